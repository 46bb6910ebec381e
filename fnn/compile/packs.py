"""Equal calls over several small arrays, brought together and made one call."""

from __future__ import annotations

from typing import Any

from fnn.compile.placement import Moved, overlaps, relocated
from fnn.compile.program import EXACT, Call, Storage, Variable, View, content, extent


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
        spans = [(id(view.storage), written, *extent(view)) for view, written in _touches(call)]
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
            known = content(part)
            parts.append("array" if same else part.place if known is None else (known, part.shape, part.dtype))
        else:
            parts.append(repr(part))
    return call.f, out.dtype, *parts


def _touches(call: Call) -> list[tuple[View, bool]]:
    return [*[(view, False) for view in call.reads()], *[(view, True) for view in call.outs]]


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
            elif isinstance(column[0], View) and column[0].shape not in ((), (1,)):
                return None  # it is spread over rows or columns, which one long array has not
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
        """In which storage a view lies, from where on, and how large that is; carried arguments lie as results."""
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
                    if view.storage is out.storage and not same and overlaps(out, *_span_of(view)):
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
