"""Where in one block of memory each scratch storage lies: lifetimes, and places used again."""

from __future__ import annotations

from bisect import insort

import numpy as np

from fnn.compile.program import Call, Storage, View

ALIGNMENT = 64
"""Bytes; a cache line. Aligned, elementwise functions run up to twice as fast."""


def aligned(n: int) -> int:
    """The next multiple of the alignment."""
    return -(-n // ALIGNMENT) * ALIGNMENT


def allocate(calls: list[Call], fixed: set[int], kept: set[int]) -> tuple[dict[int, int], int]:
    """The offset of each scratch storage (by id), and the size of all. Storages whose ids are `fixed` lie elsewhere.

    A storage lives from its first write to its last use, or to the end if it is to be `kept`. A result takes the place
    of an operand that is used for the last time, where a function of single numbers reads each before it writes it.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    found: dict[int, Storage] = {}
    for i, call in enumerate(calls):
        for view in (*call.reads(), *call.outs):
            storage = view.storage
            if storage.kind == "scratch" and id(storage) not in fixed:
                found[id(storage)] = storage
                first.setdefault(id(storage), i)
                last[id(storage)] = i
    ending: dict[int, list[int]] = {}
    for name in kept & last.keys():
        last[name] = len(calls)
    for name, i in last.items():
        ending.setdefault(i, []).append(name)
    offsets: dict[int, int] = {}
    free = Free()
    for i, call in enumerate(calls):
        heirs: set[int] = set()
        for out in call.outs:
            name = id(out.storage)
            if first.get(name) == i and name not in offsets:
                donor = _donor(call, out, i, last, offsets, heirs)
                if donor is not None:
                    offsets[name] = offsets[donor]
                    heirs.add(donor)
                else:
                    offsets[name] = free.take(aligned(found[name].nbytes))
        for view in call.reads():  # memory that is read without having been written
            name = id(view.storage)
            if first.get(name) == i and name not in offsets:
                offsets[name] = free.take(aligned(found[name].nbytes))
        for name in ending.get(i, ()):
            if name not in heirs:
                free.give(offsets[name], aligned(found[name].nbytes))
    return offsets, free.size


def _donor(call: Call, out: View, i: int, last: dict[int, int], offsets: dict[int, int], heirs: set[int]) -> int | None:
    """The storage of an operand that the result can replace."""
    if not isinstance(call.f, np.ufunc) or call.f.signature is not None or call.how != "out" or not out.whole:
        return None
    for view in call.reads():
        name = id(view.storage)
        if (
            name in offsets
            and name not in heirs
            and last[name] == i
            and view.whole
            and view.storage.nbytes == out.storage.nbytes
            and (view.dtype, view.shape, view.strides) == (out.dtype, out.shape, out.strides)
            and all(other.storage is not view.storage or other.place == view.place for other in call.reads())
        ):
            return name
    return None


class Free:
    """Free places of a growing block; of those that fit, the smallest is taken, and neighbours are joined."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.size = 0

    def take(self, n: int) -> int:
        if n == 0:
            return 0
        fitting = [(size, start) for start, size in self.places if size >= n]
        if fitting:
            size, start = min(fitting)
            self.places.remove((start, size))
            if size > n:
                insort(self.places, (start + n, size - n))
            return start
        if self.places and sum(self.places[-1]) == self.size:  # the last place grows
            start, size = self.places.pop()
            self.size = start + n
            return start
        start = self.size
        self.size += n
        return start

    def give(self, start: int, n: int) -> None:
        if n == 0:
            return
        joined = []
        for other, size in self.places:
            if other + size == start:
                start, n = other, n + size
            elif start + n == other:
                n += size
            else:
                joined.append((other, size))
        insort(joined, (start, n))
        self.places = joined
