"""What makes a recording shorter without changing a bit of its results.

Each pass takes the list of calls and gives a new one. None of them looks at times or contents.
"""

from __future__ import annotations

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


def with_whole_operands(calls: list[Call]) -> list[Call]:
    """Operands without axes, or of one row, made as large as NumPy is fast with; each number is met by the same number.

    `maximum(x, 0)` is several times slower than with an array of zeros, and the sum with a row than the sum with many
    rows at once.
    """
    sizes: dict[tuple[bytes, np.dtype[Any]], int] = {}
    for call in calls:
        for j in _numbers(call):
            key = _number_key(call.args[j])
            sizes[key] = max(sizes.get(key, 0), call.outs[0].size)
    wholes = {key: _constant(np.frombuffer(key[0], key[1]), size) for key, size in sizes.items()}
    found: list[Call] = []
    for call in calls:
        args = list(call.args)
        for j in _numbers(call):
            whole, out = wholes[_number_key(args[j])], call.outs[0]
            args[j] = View(whole, 0, out.dtype, out.shape, contiguous_strides(out.shape, out.dtype.itemsize))
        if args != list(call.args):
            call = Call(call.f, call.name, tuple(args), {}, "out", call.outs, positional=call.positional)
        found += _with_rows(call)
    return found


def _number_key(view: View) -> tuple[bytes, np.dtype[Any]]:
    return _content(view) or b"", view.dtype


def _constant(number: np.ndarray[Any, Any], size: int) -> Storage:
    array = np.repeat(number, size)
    array.setflags(write=False)
    return Storage("constant", array.nbytes, array)


def _numbers(call: Call) -> list[int]:
    """Which arguments of `maximum` or `minimum` are constants without axes, beside an array in C order."""
    if call.f not in (np.maximum, np.minimum) or call.keywords or call.how != "out" or len(call.args) != 2:
        return []
    out = call.outs[0]
    if not out.contiguous or out.size < 2:
        return []
    for j, (part, other) in enumerate((call.args, call.args[::-1])):
        if isinstance(part, View) and isinstance(other, View) and part.shape == () and _content(part) is not None:
            if other.shape == out.shape and other.contiguous and part.dtype == other.dtype == out.dtype:
                return [j]
    return []


ROW = 1 << 11
"""Numbers that rows repeated side by side have together, at most."""


def _with_rows(call: Call) -> list[Call]:
    """A function of an array and a row, as one of longer rows: the row is repeated first."""
    if call.f not in EXACT or call.keywords or call.how != "out" or len(call.args) != 2 or len(call.outs[0].shape) < 2:
        return [call]
    out = call.outs[0]
    n, m = out.size // max(1, out.shape[-1]), out.shape[-1]
    side = next((j for j in (0, 1) if _is_row(call.args[j], out) and _is_full(call.args[1 - j], out)), None)
    times = max((k for k in range(1, min(n, ROW // max(1, m)) + 1) if n % k == 0), default=1)
    if side is None or not _is_full(out, out) or m < 2 or times < 4 or n < 8:
        return [call]
    row, size = call.args[side], out.dtype.itemsize
    table = Storage("scratch", times * m * size)
    tile = View(table, 0, out.dtype, (times, m), (m * size, size))
    source = View(row.storage, row.offset, row.dtype, (m,), row.strides[-1:])
    shape = (n // times, times * m)

    def long(view: View) -> View:
        return View(view.storage, view.offset, view.dtype, shape, contiguous_strides(shape, size))

    args = [long(call.args[1 - side])] * 2
    args[side] = View(table, 0, out.dtype, shape[1:], (size,))
    return [
        Call(np.copyto, "copyto", (tile, source), {}, "write", (tile,)),
        Call(call.f, call.name, tuple(args), {}, "out", (long(out),), positional=True),
    ]


def _is_row(part: Any, out: View) -> bool:
    """Whether it has only the last axis of the result."""
    if not isinstance(part, View) or part.dtype != out.dtype or not part.shape or part.shape[-1] != out.shape[-1]:
        return False
    return part.size == part.shape[-1]


def _is_full(part: Any, out: View) -> bool:
    return isinstance(part, View) and part.shape == out.shape and part.dtype == out.dtype and part.contiguous


# --- equal calls brought together ------------------------------------------------------------------------------------


LITTLE = 1 << 13
"""Numbers of an array whose calls cost as much as its numbers."""

TOGETHER = 1 << 16
"""Numbers that arrays may have together to be worked on at once: more do not stay in the second-level cache."""


def levelled(calls: list[Call]) -> list[list[Call]]:
    """Groups of calls, in order. Those with several are equal calls on single numbers that do not need each other."""
    found: list[list[Call]] = []
    window: list[Call] = []
    for call in calls:
        if call.how == "value" and not any(True for _ in call.reads()):
            found.append([call])
        elif call.f in EXACT and call.how == "out" and not call.keywords and len(window) < 512:
            window.append(call)
        else:
            found += _grouped(window)
            window = []
            found.append([call])
    return [*found, *_grouped(window)]


def _grouped(window: list[Call]) -> list[list[Call]]:
    """The window by levels; large arrays, which are worked on slice by slice, stay where they are, and part it."""
    groups = _by_level(window)
    if all(sum(call.outs[0].size for call in group) <= TOGETHER for group in groups):
        return groups
    found: list[list[Call]] = []
    part: list[Call] = []
    for call in window:
        if call.outs[0].size <= LITTLE:
            part.append(call)
        else:
            found += _by_level(part)
            part = []
            found.append([call])
    return [*found, *_by_level(part)]


def _by_level(window: list[Call]) -> list[list[Call]]:
    """By level: one more than the highest of the calls before that touch what a call writes, or write what it reads."""
    groups: dict[Any, list[Call]] = {}
    touched: dict[int, list[tuple[int, bool, int, int]]] = {}
    for call in window:
        spans = [(id(view.storage), written, *_extent(view)) for view, written in _touches(call)]
        level = 0
        for name, written, low, high in spans:
            for other, other_written, start, stop in touched.get(name, ()):
                if (written or other_written) and start < high and low < stop:
                    level = max(level, other + 1)
        for name, written, low, high in spans:
            touched.setdefault(name, []).append((level, written, low, high))
        groups.setdefault((level, call.name, _likeness(call)), []).append(call)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _likeness(call: Call) -> tuple[Any, ...]:
    """What calls have in common that can be one."""
    out = call.outs[0]
    parts: list[Any] = []
    for part in call.args:
        if isinstance(part, Variable):
            parts.append(part.index)
        elif isinstance(part, View):
            same = part.shape == out.shape and part.dtype == out.dtype and part.shape != ()
            parts.append("array" if same else _content(part) or part.place)
        else:
            parts.append(repr(part))
    return call.f, out.dtype, *parts


def _touches(call: Call) -> list[tuple[View, bool]]:
    return [*[(view, False) for view in call.reads()], *[(view, True) for view in call.outs]]


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
    start, stop = _extent(view)
    return start < high and low < stop


def _extent(view: View) -> tuple[int, int]:
    """The bytes of the storage from the first to the last element."""
    if view.size == 0:
        return view.offset, view.offset
    start = view.offset + sum(min(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides))
    stop = view.offset + sum(max(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides))
    return start, stop + view.dtype.itemsize


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
    """Equal calls over several arrays, made one call over arrays that lie one after the other.

    Arguments that come back as results (`pairs`: storage of the argument to the view of the result) are laid out alike.
    """

    def __init__(self, groups: list[list[Call]], pairs: dict[int, View], fixed: set[int]) -> None:
        self.groups = groups
        self.pairs = pairs
        self.fixed = fixed
        self.moved: Moved = {}

    def run(self) -> list[Call]:
        """The calls; from the last to the first, since results say how arrays should lie."""
        found: list[Call] = []
        for group in reversed(self.groups):
            packed = self._packed(group) if len(group) > 1 else None
            found += group[::-1] if packed is None else [packed]
        return relocated(found[::-1], self.moved)

    def _packed(self, run: list[Call]) -> Call | None:
        if not run[0].outs[0].shape or not self._independent(run):
            return None
        columns = [[self._where(call.outs[0]) for call in run]]
        scalars: dict[int, Any] = {}
        for j in range(len(run[0].args)):
            column = [self._where(call.args[j]) for call in run]
            if all(isinstance(part, View) and part.shape == out.shape for part, out in zip(column, columns[0])):
                columns.append(column)
            else:
                scalars[j] = column[0]
        if not all(view.contiguous and view.dtype == run[0].outs[0].dtype for column in columns for view in column):
            return None
        places = [[self._place(view) for view in column] for column in columns]
        order = _order(places)
        joins: dict[tuple[int, ...], list[Storage]] = {}
        for column, where in zip(columns, places):
            if len({view.storage.kind == "carried" for view in column}) > 1:
                return None
            parts = _segments([where[k] for k in order], [column[k] for k in order])
            if parts is None:
                return None
            if len(parts) > 1:
                storages = [self.pairs.get(id(view.storage), view).storage for view in (column[k] for k in order)]
                distinct = {id(storage): storage for storage in storages}
                joins[tuple(distinct)] = [*distinct.values()]
        joined = [storage for storages in joins.values() for storage in storages]
        if len({id(s) for s in joined}) < len(joined) or not all(self._can_join(storage) for storage in joined):
            return None
        for storages in joins.values():
            self._join(storages)
        size = sum(view.size for view in columns[0])
        whole = iter([self._span(column[order[0]], size) for column in columns])
        out = next(whole)
        args = tuple([scalars[j] if j in scalars else next(whole) for j in range(len(run[0].args))])
        return Call(run[0].f, run[0].name, args, {}, "out", (out,), positional=run[0].positional)

    def _place(self, view: View) -> tuple[int, int, int]:
        """In which storage a view lies, from where on, and how large that is; carried arguments lie as their results."""
        if view.storage.kind == "carried":
            pair = self.pairs[id(view.storage)]
            result, offset = pair.storage, pair.offset
            while id(result) in self.moved:
                result, more = self.moved[id(result)]
                offset += more
            return -id(result), offset + view.offset, result.nbytes  # in another slot
        return id(view.storage), view.offset, view.storage.nbytes

    def _can_join(self, storage: Storage) -> bool:
        if storage.kind != "scratch" or id(storage) in self.fixed or id(storage) in self.moved:
            return False
        return all(storage is not whole for whole, _ in self.moved.values())

    def _where(self, part: Any) -> Any:
        if isinstance(part, View) and id(part.storage) in self.moved:
            storage, offset = self.moved[id(part.storage)]
            return part.moved(storage, part.offset + offset)
        return part

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

    def _span(self, first: View, size: int) -> View:
        first = self._where(first)
        return View(first.storage, first.offset, first.dtype, (size,), (first.dtype.itemsize,))


def _order(places: list[list[tuple[int, int, int]]]) -> list[int]:
    """The order in which some operand lies in one storage already; else that of the calls."""
    for column in places:
        if len({name for name, _, _ in column}) == 1:
            return sorted(range(len(column)), key=lambda k: column[k][1])
    return list(range(len(places[0])))


def _segments(places: list[tuple[int, int, int]], views: list[View]) -> list[int] | None:
    """The storages in turn; `None` unless each view begins where the one before ends.

    Where there are several storages, all of each must be covered: they can then be joined.
    """
    names: list[int] = []
    end = 0
    for i, ((name, offset, size), view) in enumerate(zip(places, views)):
        if names and names[-1] == name:
            if offset != end:
                return None
        else:
            if name in names or names and (places[i - 1][2] != end or offset != 0):
                return None
            names.append(name)
        end = offset + view.nbytes
    if len(names) > 1 and (places[0][1] != 0 or places[-1][2] != end):
        return None
    return names


def _span_of(view: View) -> tuple[int, int]:
    return view.offset, view.offset + view.nbytes


def _content(view: View) -> bytes | None:
    """The bytes of a constant."""
    array = view.storage.array
    return array.tobytes() if array is not None and view.storage.kind == "constant" else None
