"""`np.empty` and its kin, which tell no protocol of what they make: replaced while some thread records.

`numpy.random` calls them, too, from C, and takes what they give for arrays without a look; it goes on to see those of
NumPy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

import fnn.recordable
from fnn.compile.current import current
from fnn.compile.program import Call, NotRecordable
from fnn.compile.stand_ins import Number, Traced, assign, real, run
from fnn.random import generator_modules


class _Here:
    """What `fnn.recordable` asks: the recorder of the thread that calls."""

    @property
    def thread(self) -> int:
        return threading.get_ident() if current() is not None else -1

    def live(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        recorder = current()
        return f(*args) if recorder is None else recorder.live(f, args)

    def unexpected(self, condition: Any) -> bool:
        recorder = current()
        return bool(condition) if recorder is None else recorder.unexpected(condition)


def _empty(original: Any, shape: Any, dtype: Any = float, order: Any = "C", **rest: Any) -> Any:
    recorder = current()
    rest.pop("like", None)
    array = original(shape, dtype, order, **rest)
    return recorder.fresh(array) if recorder is not None and isinstance(array, np.ndarray) and _known(array) else array


def _known(array: np.ndarray[Any, Any]) -> bool:
    """Whether it holds numbers; NumPy's own `broadcast_shapes` makes arrays of nothing."""
    return array.dtype.kind in "fiubc"


def _filled(original: Any, shape: Any, dtype: Any = None, order: Any = "C", **rest: Any) -> Any:
    recorder = current()
    rest.pop("like", None)
    array = original(shape, dtype, order, **rest)
    if recorder is None or not _known(array):
        return array
    out = recorder.fresh(array)
    recorder.add(
        Call(np.ndarray.fill, "fill", (out.at, array.dtype.type(original is _numpy["ones"])), {}, "write", (out.at,))
    )
    return out


def _full(original: Any, shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **rest: Any) -> Any:
    recorder = current()
    if recorder is None:
        return original(shape, fill_value, dtype, order, **rest)
    rest.pop("like", None)
    array = original(shape, real(fill_value), dtype, order, **rest)
    out = recorder.fresh(array)
    call = Call(assign, "copyto", (out.at, recorder.operand(fill_value)), {}, "write", (out.at,))
    recorder.add(call)
    return out


def _converted(original: Any, a: Any, *args: Any, **keywords: Any) -> Any:
    """`asarray` and its kin: the same array where nothing needs to change."""
    recorder = current()
    if recorder is not None and type(a) is np.ndarray and original is _numpy["asarray"]:
        array = original(a, *args, **keywords)
        return Traced(recorder, array, recorder.constant(array))  # its methods, such as `dot`, are noted
    if recorder is None or not isinstance(a, (Traced, Number)) or not a.recorder.active:
        return original(a, *args, **keywords)
    if isinstance(a, Number):
        raise NotRecordable("a number that changes from call to call is made an array")
    if not isinstance(a.value, np.ndarray):  # a NumPy scalar
        scalar, a = a, a.recorder.fresh(np.array(a.value))
        a.recorder.add(Call(assign, "copyto", (a.at, scalar.at), {}, "write", (a.at,)))
    value = run(original, a, *args, **keywords)
    if value is a.value:
        return a
    return a.recorder.copied(original.__name__, original, (a, *args), keywords)


_PATCHED: dict[str, Callable[..., Any]] = {
    "empty": _empty,
    "zeros": _filled,
    "ones": _filled,
    "full": _full,
    "asarray": _converted,
    "array": _converted,
    "asanyarray": _converted,
    "ascontiguousarray": _converted,
}
_numpy: dict[str, Any] = {name: getattr(np, name) for name in _PATCHED}


def _patched(name: str) -> Callable[..., Any]:
    original, f = _numpy[name], _PATCHED[name]

    def function(*args: Any, **keywords: Any) -> Any:
        return original(*args, **keywords) if current() is None else f(original, *args, **keywords)

    return function


class Namespace:
    """Knows who records; other threads pay for a look at `current()` meanwhile.

    An interrupt anywhere in it leaves nothing that the next one would not set right.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recording: set[Any] = set()
        self.spared: list[Any] = []

    def enter(self, who: Any) -> None:
        """From now on NumPy's functions that make arrays look whether somebody records."""
        with self.lock:
            self.recording = {other for other in self.recording if other.active} | {who}
            fnn.recordable._recorder = _Here()
            original = ModuleType("numpy")
            vars(original).update({**vars(np), **_numpy})
            self.spared = generator_modules()
            for module in self.spared:
                vars(module)["np"] = original
            for name in _PATCHED:
                setattr(np, name, _patched(name))

    def leave(self, who: Any) -> None:
        """Puts NumPy's own functions back after the last one."""
        with self.lock:
            self.recording = {other for other in self.recording if other.active and other is not who}
            if not self.recording:
                fnn.recordable._recorder = None
                for module in self.spared:
                    vars(module)["np"] = np
                for name in _PATCHED:
                    setattr(np, name, _numpy[name])


NAMESPACE = Namespace()
