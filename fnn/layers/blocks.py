"""Blocks of a batch: a few images at a time, so that what is computed on the way stays in the second-level cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fnn.layers.window import Geometry, crop, pad, volume
from fnn.types import Array, Shape

SCRATCH = 1 << 18
"""Numbers of scratch in a block: 1 MB of float32, half of a usual second-level cache."""


class Spare:
    """Arrays that the blocks of one call use in turn, which keeps them in the cache. A name has one use."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._flat: dict[str, Array] = {}
        self._shaped: dict[tuple[str, Shape], Array] = {}
        self._views: dict[tuple[str, Shape], tuple[Array, Array]] = {}

    def array(self, name: str, shape: Shape, zeros: bool = False) -> Array:
        """An array without gaps, of any contents; with `zeros`, of zeros and what was written there in that shape."""
        found = self._shaped.get((name, shape))
        if found is None:
            size = volume(shape)
            if zeros or name not in self._flat or self._flat[name].size < size:
                self._flat[name] = np.zeros(size, self._dtype) if zeros else np.empty(size, self._dtype)
            found = self._shaped[name, shape] = self._flat[name][:size].reshape(shape)
        return found

    def copy(self, name: str, x: Array) -> Array:
        """A copy of x without gaps."""
        there = self.array(name, x.shape)
        there[...] = x
        return there

    def view(self, name: str, x: Array, make: Callable[[Array], Array]) -> Array:
        """The view `make(x)`, made once for as long as x is the same array."""
        owner, found = self._views.get((name, x.shape), (None, x))
        if owner is not x:
            found = make(x)
            self._views[name, x.shape] = (x, found)
        return found


class Block(NamedTuple):
    """Some images, and some rows of windows along their first spatial axis (all, if there is more than one image)."""

    images: slice
    rows: slice


def cut(batch: int, rows: int, scratch: int) -> Iterator[Block]:
    """Blocks of nearly equal size, if one row of windows needs so much scratch."""
    fit = max(1, SCRATCH // scratch)
    if fit >= rows:
        return (Block(images, slice(0, rows)) for images in parts(batch, fit // rows))
    return (Block(slice(i, i + 1), some) for i in range(batch) for some in parts(rows, fit))


def parts(n: int, most: int) -> Iterator[slice]:
    """Slices that cover n, none longer than `most`, nearly equal."""
    count = max(1, -(-n // most))
    return (slice(n * i // count, n * (i + 1) // count) for i in range(count))


def within(g: Geometry, block: Block) -> Geometry:
    """The geometry of a block: its rows of windows over the padded pixels they read."""
    n, pads = block.rows.stop - block.rows.start, ((0, 0),) * len(g.pads)
    if n == g.outside[0]:
        return g._replace(inside=g.padded, pads=pads)
    reach = (n - 1) * g.stride[0] + (g.size[0] - 1) * g.dilation[0] + 1
    return g._replace(inside=(reach, *g.padded[1:]), pads=pads, outside=(n, *g.outside[1:]))


def read(x: Array, g: Geometry, block: Block, spare: Spare) -> Array:
    """The pixels that the windows of the block read, padding included; without gaps."""
    some = x[block.images]
    first = block.rows.start * g.stride[0] - g.pads[0][0]
    if block.rows != slice(0, g.outside[0]):
        last = first + within(g, block).inside[0]
        around = (max(0, min(-first, last - first)), max(0, min(last - g.inside[0], last - first)))
        return np.ascontiguousarray(pad(some[:, max(0, first) : max(0, last)], (around, *g.pads[1:])))
    padded = spare.array("padded", (len(some), *g.padded, x.shape[-1]), zeros=True)
    crop(padded, g.pads)[...] = some
    return padded
