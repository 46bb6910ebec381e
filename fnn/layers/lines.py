"""Lines: what the windows over an image read, gathered along the last axis only.

The lines of x are `(*outer space, images, places, along * in)`: for every place of a window along the last axis, the
pixels it reads there. Windows one place apart share pixels, so lines hold as many copies of x as the kernel has pixels
along that axis (not in all), in long runs. Under an offset along the other axes lies a slice of the lines, which is a
matrix as it stands. Along an outer axis of stride s the lines are sorted by their place modulo s, so that those under
an offset are consecutive there, too.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fnn.layers.blocks import Spare
from fnn.layers.window import Geometry, crop
from fnn.types import Array, Shape, bind


def gather(x: Array, g: Geometry, spare: Spare) -> Array:
    """The lines of a padded input; those that no window reads are arbitrary."""
    there, some = plan(g), outer_first(runs(x, g, spare))
    lines = spare.array("lines", (*there.heights, *some.shape[-3:]))
    for to, start in there.phases:
        lines[to] = some[start]
    return lines


def fold(lines: Array, g: Geometry, dx: Array, spare: Spare) -> None:
    """Writes dx of the gradients of lines."""
    channels = dx.shape[-1]
    total = spare.array("total", (*g.padded[:-1], len(dx), g.padded[-1], channels))
    total.fill(0)
    for here, there in plan(g).phases:
        some, part = total[there], lines[here]
        for j in range(g.size[-1]):
            start = j * g.dilation[-1]
            places = some[..., start : start + (g.outside[-1] - 1) * g.stride[-1] + 1 : g.stride[-1], :]
            places += part[..., j * channels : (j + 1) * channels]
    dx[...] = crop(np.moveaxis(total, -3, 0), g.pads)


def outer_first(x: Array) -> Array:
    """`(images, *space, channels)` in the order of lines: `(*outer space, images, places, channels)`."""
    last = x.ndim - 2
    return x.transpose(*range(1, last), 0, last, last + 1)


def runs(x: Array, g: Geometry, spare: Spare) -> Array:
    """`(images, *outer space, places, along * in)`: the pixels of every window along the last axis."""
    along, stride, dilation, places = g.size[-1], g.stride[-1], g.dilation[-1], g.outside[-1]
    if dilation == 1:
        return spare.view("runs", x, bind(_runs, along, stride))
    pieces = [x[..., j * dilation :: stride, :][..., :places, :] for j in range(along)]
    return np.concatenate(pieces, -1)


def _runs(along: int, stride: int, x: Array) -> Array:
    """They follow each other in memory, so this is a view."""
    channels = x.shape[-1]
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * channels)
    windows: Array = sliding_window_view(flat, along * channels, axis=-1)
    return windows[..., :: stride * channels, :]


def matrices(lines: Array, rows: int) -> Array:
    """Lines as matrices of so many rows (the innermost outer axis, images and places taken together)."""
    return lines.reshape(*lines.shape[:-4], -1, rows, lines.shape[-1])


class Plan(NamedTuple):
    """Where the lines of a geometry stand, along the outer axes."""

    heights: Shape
    """How many there are."""
    phases: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]
    """For every place modulo the strides that windows read: where its lines are, and where they stand in the space."""
    offsets: tuple[tuple[Shape, tuple[slice, ...]], ...]
    """For every offset: the lines under it."""


@lru_cache(maxsize=512)
def plan(g: Geometry) -> Plan:
    """Where the lines of this geometry stand."""
    outer = list(zip(g.size[:-1], g.stride, g.dilation, g.outside, g.padded))
    heights, phases, starts = [], [], []
    for size, stride, dilation, windows, space in outer:
        height = (size - 1) * dilation // stride + windows  # of one place modulo the stride
        places = sorted({k * dilation % stride for k in range(size)})
        counts = [min(height, len(range(place, space, stride))) for place in places]
        heights.append(stride * height)
        phases.append(
            [
                (slice(place * height, place * height + n), slice(place, place + (n - 1) * stride + 1, stride))
                for place, n in zip(places, counts)
            ]
        )
        starts.append([k * dilation % stride * height + k * dilation // stride for k in range(size)])
    offsets = product(*(range(size) for size in g.size[:-1]))
    return Plan(
        tuple(heights),
        tuple((tuple(to for to, _ in phase), tuple(start for _, start in phase)) for phase in product(*phases)),
        tuple((k, tuple(slice(a[i], a[i] + n) for i, a, n in zip(k, starts, g.outside))) for k in offsets),
    )
