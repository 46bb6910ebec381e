"""Recording: the function is run once, for real, and every NumPy call made with stand-ins is noted."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fnn.compile.current import noting
from fnn.compile.namespace import NAMESPACE
from fnn.compile.program import Call, NotRecordable, Storage, Variable, View, address, bounds, replaced
from fnn.compile.stand_ins import Live, Number, Traced, TracedKey, assign, assign_number, lives, run, traces
from fnn.random import Key


class Recorder:
    """The calls of one run."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        """`(recorder, f, args, keywords)` makes a call of a NumPy function that is not a ufunc, and notes it."""
        self.calls: list[Call] = []
        self.constants: dict[int, tuple[Any, View, Any]] = {}
        self.values: list[Any] = []
        self.refused: list[str] = []
        """Why there can be no plan, even where the function has caught the exception that says so."""
        self.errors = np.geterr()
        self.silent: set[str] = set()
        """What an `np.errstate` within the function says nothing of; a replay says nothing of it from end to end."""
        self.active = True

    def forget(self) -> None:
        """Lets go of what was recorded: a cache may go on to hold a stand-in, and with it the recorder."""
        self.calls, self.constants, self.values = [], {}, []

    # --- arguments ---------------------------------------------------------------------------------------------------

    def argument(self, array: np.ndarray[Any, Any], source: int) -> Traced:
        """An array that the function is given."""
        view = array.view()
        return self.traced(view, self.storage(view, "argument", source))

    def variable(self, value: Any) -> Variable:
        """A Python value that is computed anew at each replay."""
        self.values.append(value)
        return Variable(len(self.values) - 1)

    def number(self, value: Any) -> Number:
        """A Python number that the function is given."""
        return Number(self, value, self.variable(value))

    def key(self, value: Key) -> TracedKey:
        """A key that the function is given."""
        return TracedKey(self, value, self.variable(value))

    # --- arrays ------------------------------------------------------------------------------------------------------

    def storage(self, array: np.ndarray[Any, Any], kind: str = "scratch", source: int = -1) -> Storage:
        """New memory."""
        if array.dtype.kind not in "fiubc":
            raise NotRecordable(f"an array of {array.dtype}")
        start, stop = bounds(array)
        storage = Storage(kind, stop - start, array, source)
        if kind == "scratch" and array.size and storage.nbytes != array.nbytes:
            raise NotRecordable("a result whose elements overlap or lie apart in memory")
        return storage

    def traced(self, value: Any, storage: Storage) -> Traced:
        """An array that lies in the storage."""
        offset = address(value) - storage.start if value.size else 0
        return Traced(self, value, View(storage, offset, value.dtype, value.shape, value.strides))

    def fresh(self, value: Any) -> Traced:
        """A result with memory of its own; a NumPy scalar becomes an array without axes."""
        array = value if isinstance(value, np.ndarray) else np.array(value)
        traced = self.traced(array, self.storage(array))
        if array is not value:
            traced.value = value
        return traced

    def result(self, value: Any, inputs: list[Traced]) -> tuple[Traced, bool]:
        """The traced form of what a function gave, and whether it is new (and not a view of something given)."""
        if isinstance(value, np.ndarray) and value.size == 0:
            return self.fresh(value), False
        if isinstance(value, np.ndarray) and value.base is not None or any(value is t.value for t in inputs):
            for t in inputs:
                if isinstance(t.value, np.ndarray) and np.may_share_memory(value, t.value):
                    return self.traced(value, t.at.storage), False
        return self.fresh(value), True

    def operand(self, value: Any) -> Any:
        """What stands in a call for a value: the view of a traced array, a variable, or the value itself."""
        if isinstance(value, Traced):
            if value.recorder is self:
                return value.at
            value = value.value
        if isinstance(value, Live):
            if value.recorder is not self:
                raise NotRecordable("a number of another recording")
            return value.variable
        if isinstance(value, np.ndarray):
            return self.constant(value)
        return value

    def constant(self, array: np.ndarray[Any, Any]) -> View:
        """An array that does not depend on the arguments; it must not change while recording."""
        if array.dtype.hasobject:
            raise NotRecordable("an array of Python objects")
        known = self.constants.get(id(array))
        if known is None:
            storage = self.storage(array, "constant")
            view = View(storage, address(array) - storage.start, array.dtype, array.shape, array.strides)
            known = self.constants[id(array)] = (array, view, array.tobytes() if _can_change(array) else None)
        elif known[2] is not None:
            _check_content(array, known[2])
        return known[1]

    def check(self) -> None:
        """Raises unless the constants are as they were, and all that was done can be replayed."""
        for array, _, content in self.constants.values():
            if content is not None:
                _check_content(array, content)
        if self.refused:
            raise NotRecordable(self.refused[0])

    def operands(self, template: Any) -> Any:
        """`operand` for nested arguments."""
        return replaced(template, self.operand)

    # --- calls -------------------------------------------------------------------------------------------------------

    def add(self, call: Call) -> None:
        """Notes a call."""
        for out in call.outs:
            self._check_written(call.name, out)
        if (errors := np.geterr()) != self.errors:
            if "raise" in errors.values():
                raise NotRecordable(f"{call.name} within np.errstate that makes it raise")
            self.silent |= {kind for kind, how in errors.items() if how == "ignore"}
        self.calls.append(call)

    @staticmethod
    def _check_written(name: str, out: View) -> None:
        if out.storage.kind != "scratch":
            raise NotRecordable(f"{name} writes to an {out.storage.kind}, which is read-only")

    def into(self, name: str, f: Any, args: tuple[Any, ...], keywords: dict[str, Any], positional: bool = False) -> Any:
        """A call of a function that takes `out=`."""
        if name in ("mean", "var", "std") and any(t.dtype == np.float16 for t in traces(args)):
            return self.copied(name, f, args, keywords)  # with out=, the sums are rounded, too
        if f is np.einsum and "out" not in keywords and any(min(t.strides, default=0) < 0 for t in traces(args)):
            return self.copied(name, f, args, keywords)  # with out=, it takes the axes in another order
        if f is np.einsum and keywords.get("out") is None:
            value = run(f, *args, **keywords)
            if any(isinstance(t.value, np.ndarray) and np.may_share_memory(value, t.value) for t in traces(args)):
                return self.result(value, list(traces(args)))[0]  # axes in another order are a view; with out=, new
        given = keywords.pop("out", None)
        template, options = self.operands(args), self.operands(keywords)
        if given is not None:
            given = given if isinstance(given, tuple) else (given,)
            for out in given:
                if out is not None and not isinstance(out, Traced):
                    raise NotRecordable(f"{name} with out= an array that was not made while recording")
                if out is not None:
                    self._check_written(name, out.at)
            real_outs = tuple(None if out is None else out.value for out in given)
            value = run(f, *args, **keywords, out=real_outs[0] if len(real_outs) == 1 else real_outs)
        else:
            value = run(f, *args, **keywords)
        values = value if isinstance(value, tuple) else (value,)
        outs = [given[i] if given is not None and given[i] is not None else self.fresh(v) for i, v in enumerate(values)]
        found = tuple(out.at for out in outs)
        self.add(Call(f, name, template, options, "out", found, positional=positional))
        return tuple(outs) if isinstance(value, tuple) else outs[0]

    def copied(self, name: str, f: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A call of a function without `out=`: its result is copied into planned memory, or is a view."""
        template, options = self.operands(args), self.operands(keywords)
        value = run(f, *args, **keywords)
        if isinstance(value, (tuple, list)):
            return self.several(name, f, args, template, options, value)
        if (
            isinstance(value, (int, float, str, np.dtype))
            and not isinstance(value, np.generic)
            or value is None
            or isinstance(value, type)
        ):
            raise NotRecordable(f"{name} gives a Python value that depends on arrays")
        out, new = self.result(value, list(traces((args, keywords))))
        if not new:
            _check_place(name, args[1:], keywords, out.size > 0)
        if new:
            self.add(Call(f, name, template, options, "copy", (out.at,)))
        return out

    def several(self, name: str, f: Any, args: Any, template: Any, options: Any, value: Any) -> Any:
        """A function with several results: all views, or all new."""
        inputs = list(traces(args))
        found = [self.result(part, inputs) for part in value]
        if f not in _EACH and not all(new for _, new in found):
            _check_place(name, args[1:], {})
        if any(new for _, new in found):
            if not all(new for _, new in found):
                raise NotRecordable(f"{name} gives views and new arrays together")
            self.add(Call(f, name, template, options, "copy", tuple(out.at for out, _ in found)))
        outs = [out for out, _ in found]
        return type(value)(*outs) if hasattr(value, "_fields") else type(value)(outs)

    def write(self, name: str, f: Any, args: tuple[Any, ...], changed: Traced) -> None:
        """A call that changes one of its arguments."""
        template = self.operands(args)
        if not isinstance(changed, Traced) or changed.recorder is not self:
            raise NotRecordable(f"{name} writes to an array that was not made while recording")
        self._check_written(name, changed.at)
        run(f, *args)
        self.add(Call(f, name, template, {}, "write", (changed.at,)))

    def assigned(self, array: Traced, index: Any, place: Traced, value: Any) -> None:
        """`array[index] = value`, noted for the place that the index means."""
        self._check_written("an assignment", place.at)
        template = self.operands((place, value))
        run(operator.setitem, array, index, value)
        number = isinstance(value, Traced) and not isinstance(value.value, np.ndarray) and value.dtype.kind == "f"
        if number and place.dtype.kind != "f":
            self.add(Call(assign_number, "assign", template, {}, "write", (place.at,)))
        else:
            self.add(Call(assign, "copyto", template, {}, "write", (place.at,)))

    def value(self, name: str, f: Any, args: tuple[Any, ...], keywords: dict[str, Any] | None = None) -> Any:
        """A call that gives a Python number from numbers (or arrays)."""
        template, options = self.operands(args), self.operands(keywords or {})
        value = run(f, *args, **(keywords or {}))
        if isinstance(value, np.ndarray):
            out = self.fresh(value.copy())
            self.add(Call(f, name, template, options, "copy", (out.at,)))
            return out
        kind = TracedKey if type(value) is Key else Number
        number = kind(self, value, self.variable(value))
        self.calls.append(Call(f, name, template, options, "value", (), number.variable))
        return number

    def branch(self, number: Number) -> bool:
        """Notes that the replay goes on only where the number is as true as it is now."""
        value = bool(number.value)
        self.calls.append(Call(None, "branch", (number.variable, value), {}, "branch"))
        return value

    # --- what fnn.recordable asks ------------------------------------------------------------------------------------

    def live(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """`f(*args)` computed anew at each replay, if anything in it can differ."""
        if not any(True for _ in traces(args)) and not any(True for _ in lives(args)):
            return f(*args)
        return self.value(getattr(f, "__name__", "live"), f, args)

    def unexpected(self, condition: Any) -> bool:
        """Notes that the replay ends where the condition holds; the function is then run as it is."""
        if not isinstance(condition, (Traced, Live)):
            return bool(condition)
        if bool(condition.value):
            return True
        self.calls.append(Call(None, "guard", (self.operand(condition),), {}, "guard"))
        return False


_EACH: set[Any] = {np.broadcast_arrays, np.atleast_1d, np.atleast_2d, np.atleast_3d}
"""They give a view of each argument."""


def _check_place(name: str, args: Any, keywords: dict[str, Any], arrays: bool = True) -> None:
    """Raises where contents decide which part of an array a view is, or of what shape."""
    for part in (*(traces((args, keywords)) if arrays else ()), *lives((args, keywords))):
        what = "an array" if isinstance(part, Traced) else "a number that changes from call to call"
        raise NotRecordable(f"{name}: {what} decides which part of another is meant")


def _can_change(array: np.ndarray[Any, Any]) -> bool:
    """Whether anyone may write to it, or to what it is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return True
        base = base.base
    return base is not None


def _check_content(array: np.ndarray[Any, Any], content: bytes) -> None:
    if array.tobytes() != content:
        raise NotRecordable("an array that does not come from the arguments is changed while it is used")


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Meanwhile the recorder notes what this thread does.

    `np.empty` and its kin, which tell no protocol, give arrays of it.
    """
    try:
        NAMESPACE.enter(recorder)
        with noting(recorder):
            yield
        recorder.check()
    finally:
        recorder.active = False
        NAMESPACE.leave(recorder)
