"""What makes a recording shorter without changing a bit of its results.

Each pass takes the list of calls and gives a new one. None of them looks at times or contents.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.compile.program import Call, Storage, Variable, View, contiguous_strides, replaced, variables

EXACT = {np.add, np.subtract, np.multiply, np.true_divide, np.sqrt, np.square, np.negative, np.absolute}
"""Functions of single numbers that give the same bits wherever in memory the numbers lie."""


# --- calls that nothing depends on -----------------------------------------------------------------------------------


def without_dead(calls: list[Call], kept: list[Storage], wanted: list[Variable]) -> list[Call]:
    """The calls that the results, or a guard, depend on."""
    live = {id(storage) for storage in kept}
    named = {variable.index for variable in wanted}
    found = []
    for call in reversed(calls):
        needed = (
            call.how == "guard"
            or _is_draw(call)
            or any(id(out.storage) in live for out in call.outs)
            or (call.target is not None and call.target.index in named)
        )
        if needed:
            found.append(call)
            live.update(id(view.storage) for view in call.reads())
            named.update(variable.index for variable in variables((call.args, call.keywords)))
    return found[::-1]


def _is_draw(call: Call) -> bool:
    """Whether the call moves a generator of random numbers on."""
    return "Generator." in getattr(call.f, "__qualname__", "")


# --- the same call, made cheaper -------------------------------------------------------------------------------------


def with_cheap_calls(calls: list[Call]) -> list[Call]:
    """Products of small matrices through `dot`, and numbers as arrays without axes, of the dtype they are used in."""
    return [_cheaper(call) for call in calls]


_COPIES = {"reshape", "ravel", "flatten", "astype", "ascontiguousarray", "array", "copy"}


def _cheaper(call: Call) -> Call:
    if call.how == "copy" and call.name in _COPIES and isinstance(call.args[0], View) and len(call.outs) == 1:
        return _copying(call)
    if call.f is np.matmul and not call.keywords and len(call.args) == 2 and _is_plain_product(call):
        return Call(np.dot, "dot", call.args, {}, "out", call.outs, positional=True)
    if isinstance(call.f, np.ufunc) and call.how == "out" and not call.keywords:
        dtypes = {part.dtype for part in call.args if isinstance(part, View)}
        if len(dtypes) == 1 and (dtype := dtypes.pop()).kind == "f" and call.f.nout == 1:
            args = tuple(_scalar(part, dtype) for part in call.args)
            return Call(call.f, call.name, args, {}, "out", call.outs, positional=call.positional)
    return call


def _copying(call: Call) -> Call:
    """A copy in another order, shape or dtype, made without the array between."""
    source, out = call.args[0], call.outs[0]
    if call.name in ("reshape", "ravel", "flatten"):
        if not out.contiguous or any(isinstance(part, str) for part in (*call.args, *call.keywords.values())):
            return call
        out = View(out.storage, out.offset, out.dtype, source.shape, contiguous_strides(source.shape, out.dtype.itemsize))
    elif source.shape != out.shape:
        return call
    return Call(np.copyto, "copyto", (out, source), {}, "write", (out,))


def _is_plain_product(call: Call) -> bool:
    a, b = call.args
    return (
        all(isinstance(part, View) and len(part.shape) == 2 and min(part.shape) > 1 for part in (a, b, *call.outs))
        and a.dtype == b.dtype == call.outs[0].dtype
        and a.dtype.kind == "f"
        and call.outs[0].contiguous
        and all(_is_matrix(part) for part in (a, b))
    )


def _is_matrix(view: View) -> bool:
    """Whether BLAS takes it as it lies, or transposed."""
    rows, columns = view.strides
    n, m = view.shape
    size = view.dtype.itemsize
    return (columns == size and rows == m * size) or (rows == size and columns == n * size)


def _scalar(part: Any, dtype: np.dtype[Any]) -> Any:
    if type(part) in (int, float) or isinstance(part, np.generic) and part.dtype == dtype:
        array = np.array(part, dtype)
        array.setflags(write=False)
        return View(Storage("constant", array.nbytes, array), 0, dtype, (), ())
    return part


# --- arguments that are looked at in parts -------------------------------------------------------------------------


Moved = dict[int, tuple[Storage, int]]
"""Storages (by id) that lie within others, from which byte on."""


def with_copied_arguments(
    calls: list[Call], arguments: dict[int, View], results: list[View]
) -> tuple[list[Call], Moved]:
    """Arguments of which more is used than `place_in` can say are copied first, so that all their views stay the same."""
    hard = {
        view.storage.source
        for view in [*results, *(view for call in calls for view in call.reads())]
        if view.storage.kind == "argument" and place_in(arguments[view.storage.source], view) is None
    }
    moved: Moved = {}
    copies: list[Call] = []
    for i in sorted(hard):
        whole = arguments[i]
        copy = Storage("scratch", whole.storage.nbytes)
        moved[id(whole.storage)] = copy, 0
        target = whole.moved(copy, whole.offset)
        copies.append(Call(np.copyto, "copyto", (target, whole), {}, "write", (target,)))
    return [*copies, *relocated(calls, moved)], moved


def place_in(whole: View, view: View) -> str | None:
    """The Python expression that makes a view from its argument `{}`, if there is a short one."""
    if (view.offset, view.shape, view.strides) == (whole.offset, whole.shape, whole.strides):
        return "{}"
    if view.offset != whole.offset or view.size != whole.size or view.dtype != whole.dtype or view.size == 0:
        return None
    if view.contiguous and whole.contiguous:
        return "{}.reshape(" + repr(view.shape) + ")"
    axes = len(whole.shape)
    if len(view.shape) == axes == 2 and (view.shape, view.strides) == (whole.shape[::-1], whole.strides[::-1]):
        return "{}.T"
    turned = View(view.storage, view.offset, view.dtype, view.shape[::-1], view.strides[::-1])
    if len(view.shape) == 2 and turned.contiguous and whole.contiguous:
        return "{}.reshape(" + repr(turned.shape) + ").T"
    pairs = list(zip(whole.shape, whole.strides))
    if len(view.shape) == axes and len(set(pairs)) == axes and sorted(pairs) == sorted(zip(view.shape, view.strides)):
        return "{}.transpose(" + repr(tuple(pairs.index(pair) for pair in zip(view.shape, view.strides))) + ")"
    return None


# --- results computed in the place that wants them -------------------------------------------------------------------


class Uses:
    """Where in a list of calls each storage is read and written."""

    def __init__(self, calls: list[Call]) -> None:
        self.touched: dict[int, list[tuple[int, bool, View]]] = {}
        for i, call in enumerate(calls):
            for view in call.reads():
                self.touched.setdefault(id(view.storage), []).append((i, False, view))
            for view in call.outs:
                self.touched.setdefault(id(view.storage), []).append((i, True, view))

    def of(self, storage: Storage) -> list[tuple[int, bool, View]]:
        return self.touched.get(id(storage), [])


def placed(calls: list[Call], fixed: set[int]) -> tuple[list[Call], Moved]:
    """Arrays that are only made to be copied into a part of another are made there (gradients into one vector).

    Storages whose ids are `fixed` stay where they are.
    """
    calls = [part for call in calls for part in _parts_of(call)]
    uses = Uses(calls)
    moved: Moved = {}
    gone = set()
    for i, call in enumerate(calls):
        if call.name == "copyto" and len(call.args) == 2 and isinstance(call.args[1], View):
            target, source = call.args
            if id(source.storage) not in fixed and _can_move(uses, moved, i, target, source):
                moved[id(source.storage)] = target.storage, target.offset
                gone.add(i)
    kept = [call for i, call in enumerate(calls) if i not in gone]
    return relocated(kept, moved), moved


def relocated(calls: list[Call], moved: Moved) -> list[Call]:
    """The calls with storages that lie within others."""

    def where(part: Any) -> Any:
        while isinstance(part, View) and id(part.storage) in moved:
            storage, offset = moved[id(part.storage)]
            part = part.moved(storage, part.offset + offset)
        return part

    return [rewritten(call, where) for call in calls]


def rewritten(call: Call, f: Callable[[Any], Any]) -> Call:
    """The call with other operands."""
    return Call(
        call.f,
        call.name,
        replaced(call.args, f),
        replaced(call.keywords, f),
        call.how,
        tuple([f(out) for out in call.outs]),
        call.target,
        call.positional,
    )


def _can_move(
    uses: Uses, moved: Moved, copy: int, target: View, source: View
) -> bool:
    """Whether the source can lie in the target's place from its first write on."""
    s, t = source.storage, target.storage
    if s.kind != "scratch" or t.kind != "scratch" or s is t or id(s) in moved or id(t) in moved:
        return False
    if not source.whole or source.dtype != target.dtype or source.shape != target.shape:
        return False
    if not (source.contiguous and target.contiguous):
        return False
    if any(storage is s for storage, _ in moved.values()):
        return False
    of_source = uses.of(s)
    first = of_source[0][0]
    if any(i > copy and written for i, written, _ in of_source):
        return False
    last = max(i for i, _, _ in of_source)
    low, high = target.offset, target.offset + target.nbytes
    for i, written, view in uses.of(t):
        if i == copy or not _overlaps(view, low, high):
            continue
        if first <= i < copy or written and copy < i <= last:
            return False
    return True


def _overlaps(view: View, low: int, high: int) -> bool:
    start = view.offset + sum(min(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides))
    stop = view.offset + sum(max(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides)) + view.dtype.itemsize
    return view.size > 0 and start < high and low < stop


def _parts_of(call: Call) -> list[Call]:
    """A concatenation, or a stack, as one copy for each part."""
    if call.f not in (np.concatenate, np.stack) or call.how != "out" or set(call.keywords) - {"axis"}:
        return [call]
    axis = call.args[1] if len(call.args) > 1 else call.keywords.get("axis", 0)
    parts, out = call.args[0], call.outs[0]
    if not all(isinstance(part, View) and part.dtype == out.dtype and part.size for part in parts):
        return [call]
    copies, start = [], 0
    for part in parts:
        source = part
        if call.f is np.stack:
            axis = axis % len(out.shape)
            offset = out.offset + start * out.strides[axis]
            shape, strides = _without(out.shape, axis), _without(out.strides, axis)
            start += 1
        elif axis is None:
            if not part.contiguous:
                return [call]
            offset, shape = out.offset + start * out.dtype.itemsize, part.shape
            strides = contiguous_strides(shape, out.dtype.itemsize)
            start += part.size
        else:
            axis = axis % len(out.shape)
            offset, shape, strides = out.offset + start * out.strides[axis], part.shape, out.strides
            start += part.shape[axis]
        target = View(out.storage, offset, out.dtype, shape, strides)
        copies.append(Call(np.copyto, "copyto", (target, source), {}, "write", (target,)))
    return copies if any(copy.args[1].whole for copy in copies) else [call]


def _without(sizes: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return sizes[:axis] + sizes[axis + 1 :]


# --- one call for many arrays ----------------------------------------------------------------------------------------


class Packs:
    """Runs of the same call over several arrays, made one call over arrays that lie one after the other.

    Arguments that come back as results (`pairs`: storage of the argument to that of the result) are laid out alike.
    """

    def __init__(self, calls: list[Call], pairs: dict[int, Storage], fixed: set[int]) -> None:
        self.calls = calls
        self.pairs = pairs
        self.fixed = fixed
        self.moved: Moved = {}

    def run(self) -> list[Call]:
        calls, end = list(self.calls), len(self.calls)
        while end > 0:
            start = end - 1
            while start > 0 and _alike(calls[start - 1], calls[end - 1]):
                start -= 1
            if end - start > 1 and (packed := self._packed(calls, start, end)) is not None:
                calls[start:end] = [packed]
            end = start
        return relocated(calls, self.moved)

    def _packed(self, calls: list[Call], start: int, end: int) -> Call | None:
        run = calls[start:end]
        columns = [[self._where(call.outs[0]) for call in run]]
        scalars: dict[int, Any] = {}
        for j in range(len(run[0].args)):
            column = [self._where(call.args[j]) for call in run]
            if all(isinstance(part, View) and part.shape == out.shape for part, out in zip(column, columns[0])):
                columns.append(column)
            elif all(_same_scalar(part, column[0]) for part in column):
                scalars[j] = column[0]
            else:
                return None
        if not self._independent(run):
            return None
        order: list[int] | None = None
        free = []
        for column in columns:
            if not all(view.contiguous for view in column):
                return None
            if len({id(view.storage) for view in column}) == 1:
                own = sorted(range(len(column)), key=lambda k: column[k].offset)
                if not _consecutive([column[k] for k in own]) or order is not None and own != order:
                    return None
                order = own
            elif all(view.whole for view in column) and len({id(view.storage) for view in column}) == len(column):
                free.append(column)
            else:
                return None
        order = list(range(len(run))) if order is None else order
        joins = []
        for column in free:
            storages = [column[k].storage for k in order]
            if any(id(s) in self.fixed for s in storages) or any(self._is_taken(s) for s in storages):
                return None
            if all(s.kind == "carried" for s in storages):
                if [id(self.pairs.get(id(s))) for s in storages] != [id(columns[0][k].storage) for k in order]:
                    return None
                continue
            if any(s.kind != "scratch" for s in storages):
                return None
            joins.append(storages)
        joined = [id(storage) for storages in joins for storage in storages]
        if len({*joined}) < len(joined):
            return None
        for storages in joins:
            self._join(storages)
        size = sum(view.size for view in columns[0])
        whole = iter([self._span(column, order, size) for column in columns])
        out = next(whole)
        args = tuple([scalars[j] if j in scalars else next(whole) for j in range(len(run[0].args))])
        return Call(run[0].f, run[0].name, args, {}, "out", (out,), positional=run[0].positional)

    def _where(self, part: Any) -> Any:
        if isinstance(part, View) and id(part.storage) in self.moved:
            storage, offset = self.moved[id(part.storage)]
            return part.moved(storage, part.offset + offset)
        return part

    def _is_taken(self, storage: Storage) -> bool:
        return id(storage) in self.moved or any(storage is whole for whole, _ in self.moved.values())

    def _independent(self, run: list[Call]) -> bool:
        """Whether no call of the run reads what another writes."""
        written = [out for call in run for out in call.outs]
        for k, call in enumerate(run):
            for view in call.reads():
                for i, out in enumerate(written):
                    same = i == k and view.place == out.place
                    if view.storage is out.storage and not same and _overlaps(out, *_span_of(view)):
                        return False
        return True

    def _join(self, storages: list[Storage]) -> None:
        whole = Storage("scratch", sum(storage.nbytes for storage in storages))
        offset = 0
        for storage in storages:
            self.moved[id(storage)] = whole, offset
            offset += storage.nbytes

    def _span(self, column: list[View], order: list[int], size: int) -> View:
        first = self._where(column[order[0]])
        return View(first.storage, first.offset, first.dtype, (size,), (first.dtype.itemsize,))


def _span_of(view: View) -> tuple[int, int]:
    return view.offset, view.offset + view.nbytes


def _alike(call: Call, other: Call) -> bool:
    return (
        call.f is other.f
        and call.f in EXACT
        and call.how == other.how == "out"
        and not call.keywords
        and not other.keywords
        and len(call.args) == len(other.args)
        and call.outs[0].dtype == other.outs[0].dtype
        and all(view.dtype == call.outs[0].dtype for view in (*call.reads(), *other.reads()))
        and len(call.outs[0].shape) > 0
    )


def _consecutive(column: list[View]) -> bool:
    return all(a.offset + a.nbytes == b.offset for a, b in zip(column, column[1:]))


def _content(view: View) -> bytes | None:
    """The bytes of a constant."""
    array = view.storage.array
    return array.tobytes() if array is not None and view.storage.kind == "constant" else None


def _same_scalar(part: Any, other: Any) -> bool:
    if isinstance(part, Variable):
        return isinstance(other, Variable) and part.index == other.index
    if isinstance(part, View):
        if not isinstance(other, View) or part.shape != () or other.shape != () or part.dtype != other.dtype:
            return False
        return part.place == other.place or (_content(part) is not None and _content(part) == _content(other))
    return type(part) is type(other) and bool(operator.eq(part, other))
