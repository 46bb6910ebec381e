"""Convolution of many images at once, which stand abreast in memory: `(height, channels, width, images)`.

Arrays keep their shape `(images, height, width, channels)`; only the order of their axes in memory differs. What works
elementwise keeps that order, so that in a network the first convolution alone has to change it.

In this order everything runs over N = width * images numbers in a row, however few the channels are. The lines of x are
`(height, along, in, N)`: for each pixel of a window along its width, a copy of the rows of x, shifted by so much. The
lines that a row of windows reads are a matrix `(size * in, N)` as they stand; those of the next row overlap them. With
C[o] that matrix for row o of the output, W as a matrix `(size * in, out)` and W[k] as `(along * in, out)`,

    y[o] = W' C[o] + b      dW = sum over o of C[o] dy[o]'      dL[i] = sum of W[k] dy[o] over o, k with o s + k - p = i

and the lines dL are added up, shifted back. The last sum is one product, too: the rows of dy that it reads overlap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fnn.layers.blocks import parts
from fnn.layers.window import Geometry
from fnn.types import Array, Shape, ones

IMAGES, ROW = 8, 128
"""So many images, and numbers in a row, are worth a change of order."""

LINES = 1 << 20
"""Numbers in the lines that are made at a time."""


def fits(x: Array, g: Geometry, groups: int) -> bool:
    """Whether this way is taken for an array `(images, height, width, channels)`: images enough to make long rows.

    A kernel of one pixel runs as fast in either order, and leaves the array in that which it has.
    """
    if groups > 1 or x.ndim != 4 or g.dilation[0] > 1 or len(x) < IMAGES:
        return False
    return is_abreast(x) or (max(g.size) > 1 and len(x) * g.outside[1] >= ROW)


def is_abreast(x: Array) -> bool:
    """Whether an array `(images, [height,] width, channels)` stands in memory in this order."""
    return x.ndim in (3, 4) and x.size > 0 and bool(_abreast(x).flags.c_contiguous)


def abreast(x: Array) -> Array:
    """`(images, [height,] width, channels)` to `(height, channels, width, images)`; a view if it is that in memory."""
    there = _abreast(x)
    if there.flags.c_contiguous:
        return there
    if there.shape[1] >= 32:  # in two passes, of which one moves whole pixels: as fast again
        height, channels, width, images = there.shape
        pixels = np.empty((height, width, images, channels), x.dtype)
        pixels[...] = there.transpose(0, 2, 3, 1)
        there = pixels.transpose(0, 3, 1, 2)
    copy = np.empty(there.shape, x.dtype)
    copy[...] = there
    return copy


def _abreast(x: Array) -> Array:
    return (x if x.ndim == 4 else x[:, None]).transpose(1, 3, 2, 0)


def apart(x: Array) -> Array:
    """`(height, channels, width, images)` to `(images, height, width, channels)`: a view."""
    return x.transpose(3, 0, 2, 1)


def in_order(a: Array, like: Array) -> Array:
    """`a`, with its axes in memory in the order of those of `like`, if that has its shape: itself, or a copy."""
    if a.strides == like.strides or a.shape != like.shape:
        return a
    if is_abreast(like):
        return from_rows(channel_rows(a), a.shape)
    copy = np.empty_like(like, dtype=a.dtype)
    copy[...] = a
    return copy


def channel_rows(x: Array) -> Array:
    """`(images, [height,] width, channels)` to `(height, channels, N)`: a view if x is abreast."""
    there = abreast(x)
    return there.reshape(*there.shape[:2], -1)


def from_rows(rows: Array, shape: Shape) -> Array:
    """The inverse of `channel_rows` for an array of this shape: a view."""
    x = apart(rows.reshape(*rows.shape[:2], shape[-2], shape[0]))
    return x if len(shape) == 4 else x[:, 0]


def channel_sums(rows: Array) -> Array:
    """The sums over all but the channels of `(height, channels, N)`."""
    sums: Array = ones(len(rows), rows.dtype).dot(np.matmul(rows, ones(rows.shape[2], rows.dtype)))
    return sums


def correlate(x: Array, weight: Array, bias: Array | None, g: Geometry) -> Array:
    """`y[o] = W' C[o] + b`; x and y are abreast."""
    w = weight.reshape(-1, weight.shape[-1]).T
    y = np.empty((g.outside[0], len(w), g.outside[1] * x.shape[-1]), x.dtype)
    for rows, windows in _windows(x, g):
        part = np.matmul(w, windows, out=y[rows])
        if bias is not None:
            part += bias[:, None]
    return y.reshape(*y.shape[:2], g.outside[1], -1)


def correlate_weight(x: Array, dy: Array, g: Geometry) -> Array:
    """`dW = sum over o of C[o] dy[o]'`; x and dy are abreast."""
    features = dy.shape[1]
    dys = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dw = np.zeros(g.size[0] * g.size[1] * x.shape[1] * features, dy.dtype)
    for rows, windows in _windows(x, g):
        each = np.matmul(windows, dys[rows])
        dw += ones(len(each), dy.dtype).dot(each.reshape(len(each), -1))
    return dw.reshape(*g.size, x.shape[1], features)


def correlate_input(dy: Array, weight: Array, bias: Array | None, g: Geometry) -> Array:
    """Row i of dx is `dL[i]`, its shifted copies added; dy and dx are abreast."""
    channels, along, n = weight.shape[-2], g.size[1], g.outside[1] * dy.shape[-1]
    dys = dy.reshape(-1, n)
    phases = [_phase(weight[r :: g.stride[0]]) for r in range(min(g.size[0], g.stride[0]))]
    dx = np.zeros((g.inside[0], channels, g.inside[1], dy.shape[-1]), dy.dtype)
    fit = min(g.inside[0], max(1, LINES // (along * channels * n)))
    spare = np.empty((fit, along, channels, g.outside[1], dy.shape[-1]), dy.dtype)
    for rows in parts(g.inside[0], fit):
        lines = spare[: rows.stop - rows.start]
        _input_lines(dys, phases, g, rows, lines.reshape(len(lines), -1, n))
        part = dx[rows]
        for j in range(along):
            here, there = _columns(g, j)
            to = part[:, :, here]
            to += lines[:, j, :, there]
        if bias is not None:
            part += bias[:, None, None]
    return dx


def _windows(x: Array, g: Geometry) -> Iterator[tuple[slice, Array]]:
    """Some rows of the output, and their C `(rows, size * in, N)`."""
    height, along = g.size
    channels, images = x.shape[1], x.shape[-1]
    line = along * channels * g.outside[1] * images
    fit = min(g.outside[0], max(1, LINES // line // g.stride[0]))
    spare = np.empty(((fit - 1) * g.stride[0] + height, along, channels, g.outside[1], images), x.dtype)
    for rows in parts(g.outside[0], fit):
        first = rows.start * g.stride[0] - g.pads[0][0]
        count = (rows.stop - rows.start - 1) * g.stride[0] + height
        lines = spare[:count]
        top = max(0, -first)
        bottom = max(top, min(count, g.inside[0] - first))
        if top:
            lines[:top] = 0
        if bottom < count:
            lines[bottom:] = 0
        for j in range(along):
            here, there = _columns(g, j)
            line = lines[top:bottom, j]
            line[:, :, there] = x[first + top : first + bottom, :, here]
            if there.start:
                line[:, :, : there.start] = 0
            if there.stop < g.outside[1]:
                line[:, :, there.stop :] = 0
        flat = lines.reshape(count * along * channels, -1)
        windows = sliding_window_view(flat, height * along * channels, axis=0)[:: g.stride[0] * along * channels]
        yield rows, windows.swapaxes(1, 2)


def _columns(g: Geometry, j: int) -> tuple[slice, slice]:
    """The columns of the input that windows read at offset j of their width, and which windows these are."""
    stride, start = g.stride[1], j * g.dilation[1] - g.pads[1][0]
    first = max(0, -(start // stride))
    last = min(g.outside[1], -((start - g.inside[1]) // stride))
    if last <= first:
        return slice(0, 0), slice(0, 0)
    return slice(start + first * stride, start + (last - 1) * stride + 1, stride), slice(first, last)


def _phase(weight: Array) -> Array:
    """Some rows of the kernel, last row first, as `(along * in, rows, out)`."""
    rows, along, channels, features = weight.shape
    w = np.empty((along, channels, rows, features), weight.dtype)
    w[...] = weight[::-1].transpose(1, 2, 0, 3)
    return w.reshape(along * channels, rows, features)


def _input_lines(dy: Array, phases: list[Array], g: Geometry, rows: slice, lines: Array) -> None:
    """Writes some rows of dL from the rows of dy, `(height * out, N)`.

    With stride s, rows i where i + p is r modulo s get something from the rows r, r + s, ... of the kernel only.
    """
    stride, before = g.stride[0], g.pads[0][0]
    for r in range(stride):
        start = (r - before - rows.start) % stride
        mine = lines[start::stride]
        if r < len(phases):
            _phase_lines(dy, phases[r], g.outside[0], (rows.start + start + before - r) // stride, mine)
        else:
            mine[...] = 0


def _phase_lines(dy: Array, w: Array, height: int, last: int, lines: Array) -> None:
    """Writes lines, each from as many rows of dy as w has, up to row `last` for the first; dy has `height` of them."""
    taps, features = w.shape[1:]
    flat = w.reshape(len(w), -1)
    reads = [(o - taps + 1, o + 1) for o in range(last, last + len(lines))]
    whole = [i for i, (a, b) in enumerate(reads) if a >= 0 and b <= height]
    if whole:
        some = dy[reads[whole[0]][0] * features : reads[whole[-1]][1] * features]
        windows = sliding_window_view(some, taps * features, axis=0)[::features]
        np.matmul(flat, windows.swapaxes(1, 2), out=lines[whole[0] : whole[-1] + 1])
    for i, (a, b) in enumerate(reads):
        first, end = max(0, a), min(b, height)
        if end <= first:
            lines[i] = 0
        elif end - first < taps:
            some = dy[first * features : end * features]
            np.matmul(flat[:, (first - a) * features : (end - a) * features], some, out=lines[i])
