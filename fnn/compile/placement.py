"""Results computed in the place that wants them: arrays that are only made to be copied into a part of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.compile.program import Call, Storage, View, contiguous_strides, extent, replaced

Moved = dict[int, tuple[Storage, int]]
"""Storages (by id) that lie within others, from which byte on."""


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
        """`(call, whether it writes, view)` for one storage, in order."""
        return self.touched.get(id(storage), [])

    def join(self, source: Storage, target: View) -> None:
        """From now on the source lies in the target's place: its uses are uses of that."""
        moved = [(i, w, v.moved(target.storage, target.offset + v.offset)) for i, w, v in self.of(source)]
        self.touched[id(target.storage)] = [*self.of(target.storage), *moved]


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
                uses.join(source.storage, target)
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


def _can_move(uses: Uses, moved: Moved, copy: int, target: View, source: View) -> bool:
    """Whether the source can lie in the target's place from its first write on.

    A call that takes both must find them apart: NumPy makes the product of an array and its own transpose in another
    way than that of two arrays.
    """
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
    read = {i for i, _, _ in of_source} - {copy}
    for i, written, view in uses.of(t):
        if i == copy or not overlaps(view, low, high):
            continue
        if first <= i < copy or written and copy < i <= last or i in read:
            return False
    return True


def overlaps(view: View, low: int, high: int) -> bool:
    """Whether a view has bytes from low to high."""
    start, stop = extent(view)
    return start < high and low < stop


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
