"""Memory for what a step carries on: parameters, moments, running statistics.

A slot is one block with the arrays that leave the plan. It is used again only when nobody holds any of them any more,
nor a view of them: the reference counts of the arrays and of the block are what they were when the slot was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from fnn.compile.allocation import ALIGNMENT
from fnn.compile.program import View

KEPT = 4
"""Slots that are kept for use again: two suffice for a loop that carries one state, three with the one before."""


def block(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two arrays over the same new, aligned memory; views of one do not count as references to the other."""
    memory = np.empty(n + ALIGNMENT, np.uint8).data
    start = -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % ALIGNMENT
    return np.frombuffer(memory, np.uint8, n, start), np.frombuffer(memory, np.uint8, n, start)


def array_at(memory: np.ndarray[Any, Any], view: View, offset: int) -> np.ndarray[Any, Any]:
    """The array of a view that lies at this offset of the memory."""
    if view.size == 0:
        return np.empty(view.shape, view.dtype)
    return np.ndarray(view.shape, view.dtype, memory, offset, view.strides)


class Slot:
    """One block, its leaves, and for each plan that uses it the arrays that the plan reads and writes in it."""

    __slots__ = ("_counts", "leaves", "private", "public", "tables")

    def __init__(self, layout: Layout) -> None:
        self.public, self.private = block(layout.size)
        self.leaves = tuple([array_at(self.public, view, offset) for view, offset in layout.leaves])
        for i, writeable in enumerate(layout.writeable):
            self.leaves[i].setflags(write=writeable)
        self.tables: dict[int, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}
        self._counts = self._count()

    def _count(self) -> list[int]:
        """The leaves first: another thread may turn a leaf into a view meanwhile, but no view into a leaf."""
        return [*map(getrefcount, self.leaves), getrefcount(self.public)]

    def is_free(self) -> bool:
        """Whether nobody outside holds anything of it."""
        return self._count() == self._counts


class Layout:
    """Where in a slot the leaves lie; plans with equal layouts share their slots."""

    def __init__(self, leaves: Sequence[tuple[View, int]], writeable: Sequence[bool], size: int) -> None:
        self.leaves = tuple(leaves)
        self.writeable = tuple(writeable)
        self.size = size

    @property
    def key(self) -> tuple[Any, ...]:
        """What equal layouts have in common."""
        leaves = [(offset, view.dtype, view.shape, view.strides) for view, offset in self.leaves]
        return tuple(leaves), self.writeable, self.size


class Pool:
    """The slots of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.slots: deque[Slot] = deque()
        self.owners: dict[int, Slot] = {}

    def take(self) -> Slot:
        """A slot that nobody else uses."""
        for _ in range(len(self.slots)):
            try:
                slot = self.slots.popleft()
            except IndexError:
                break
            if slot.is_free():
                return slot
            self.slots.append(slot)
        return Slot(self.layout)

    def give(self, slot: Slot) -> None:
        """Keeps a slot, whose leaves have left or are no longer needed."""
        self.owners[id(slot.leaves[0])] = slot
        self.slots.append(slot)
        if len(self.slots) > KEPT:
            try:
                oldest = self.slots.popleft()
            except IndexError:
                return
            if oldest is not slot:
                self.owners.pop(id(oldest.leaves[0]), None)

    def adopt(self, leaves: tuple[Any, ...]) -> Slot | None:
        """A slot with a copy of leaves from elsewhere; `None` if they do not fit."""
        for leaf, (view, _) in zip(leaves, self.layout.leaves):
            if type(leaf) is not np.ndarray or leaf.shape != view.shape:
                return None
            if leaf.dtype != view.dtype or leaf.strides != view.strides:
                return None
        slot = self.take()
        for leaf, (view, offset) in zip(leaves, self.layout.leaves):
            np.copyto(array_at(slot.private, view, offset), leaf)
        return slot
