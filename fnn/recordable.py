"""What a step tells whoever records it: which Python numbers change from call to call, and which branches only raise.

A step that is written as array code can be recorded once and replayed into planned buffers. What NumPy's protocols do
not show a recorder is marked here. Without a recorder both functions do nothing but what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar, TypeVarTuple

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_recorder: Any = None
"""The recorder at work, or `None`. It has `thread`, the identifier of the thread whose calls it takes, and the methods
`live(f, args)` and `unexpected(condition)`."""


def live(f: Callable[[*Ts], R], *args: *Ts) -> R:
    """`f(*args)`: the one place through which a Python number is computed that differs from call to call.

    Rates that follow a schedule, corrections for the number of steps, the norm of the gradients: recorded as they are,
    they would be frozen at the values of the recorded call. Through `live` a recorder sees the function and computes
    the number anew in each replay. f must be pure, and module-level or a bound partial of such a function; the
    arguments may be arrays, and numbers that are live themselves. Such numbers may be added, subtracted, multiplied,
    divided and raised to powers in the open; `float`, `math` and comparisons of them belong inside f.
    """
    recorder = _recorder
    if recorder is not None and recorder.thread == get_ident():
        number: R = recorder.live(f, args)
        return number
    return f(*args)


def unexpected(condition: Any) -> bool:
    """`bool(condition)`, for a guard on the contents of arrays that only raises: `if unexpected(np.any(bad)): raise`.

    A recorder can follow no branch that depends on what an array holds, but it can take note that this one is never
    taken when all is well, and look at the condition again in a replay. Everything else about the arrays (shapes,
    dtypes) may be tested as usual.
    """
    recorder = _recorder
    if recorder is not None and recorder.thread == get_ident():
        return bool(recorder.unexpected(condition))
    return bool(condition)
