"""Replaying pure functions from planned memory. `compiled` is the way in; all cleverness about speed lives here.

`recorder` runs a function once on `stand_ins` and notes its NumPy calls (`program`; `functions` and `namespace` say
how). `guards`, `passes`, `placement` and `packs` make the list shorter, `allocation` and `slots` say where arrays lie,
`source` and `entry` write the functions that a `plan` runs, `results` says what it gives, and `replay` chooses the plan
for the arguments. Nothing is loaded before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from fnn.compile.replay import Compiled

P = ParamSpec("P")
R = TypeVar("R")


def compiled(f: Callable[P, R], *, report: Callable[[str], None] | None = None, after: int = 0) -> Compiled[P, R]:
    """A function with the same arguments and the same results, bit for bit, that replays `f` from planned memory.

    f: a pure function made of fnn and NumPy, such as a step of `make_step`, `value_and_grad(...)` or `model.apply`.
    report: called with one line, once for each reason, where arguments cannot be replayed and `f` itself is run.

    after: how many calls of a form are made as they are before one is recorded.

    The first call with arguments of a new form (nesting, shapes, strides, dtypes) runs `f` on arrays that note every
    NumPy call made with them; later calls repeat these calls, in memory that is used again. Python numbers and keys
    among the arguments may differ from call to call; anything else must be equal. Results are never overwritten: the
    memory of what a step gives is used again only when nobody holds it any more.

    What cannot be replayed is run as it is: decisions that depend on contents (`if array`, `float(array)`, boolean
    masks), writing to arguments, NumPy functions that the recorder does not know, and forms beyond the first
    eight. A function that is not pure (that reads what changes, or has effects) must not be given.
    """
    from fnn.compile.replay import Compiled

    return Compiled(f, report, after)
