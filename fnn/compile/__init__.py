"""Replaying pure functions from planned memory. `compiled` is the way in; all cleverness about speed lives here.

`recorder` runs a function once and notes its NumPy calls (`program`), `passes` make the list shorter, `allocation` and
`slots` say where arrays lie, `source` writes the function that a `plan` runs.
"""

from fnn.compile.replay import Compiled, compiled

__all__ = ["Compiled", "compiled"]
