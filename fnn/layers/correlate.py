"""The arithmetic of convolution: three products of two of x, W and dy, in any number of spatial axes, channels last.

    y[b, o, :]  = sum over k of x[b, o s + k d - p, :] W[k]            correlate
    dW[k]       = sum over b, o of x[b, o s + k d - p, :]' dy[b, o, :] correlate_weight
    dx[b, i, :] = sum over o, k with o s + k d - p = i of dy[b, o, :] W[k]'    correlate_input

(s stride, d dilation, p padding; W is `(*size, in / groups, out)`). Each works on blocks of the batch whose scratch stays
in the second-level cache. Which product is used depends on the shapes alone:

- *slices*: the pixels that windows read along all axes but the last are gathered side by side, `(rows, width, size * in)`.
  The columns of windows in the same place along the last axis are then a slice of that matrix, so one product for each
  place does everything, and the gathered copies are fewer by the size along the last axis than with all columns.
- *columns*: all windows written out, `(windows, size * in)`, and one product.
- *offsets*: multiply and add for every offset; where every channel is convolved alone (depthwise).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fnn.layers.window import Geometry, crop, pad, taps, volume
from fnn.types import Array, ones

_SCRATCH = 1 << 18
"""Numbers of scratch in a block: 1 MB of float32, half of a usual second-level cache."""

_SMALL = 10**6
"""Products of at most so many multiplications skip the packing of operands in OpenBLAS and MKL."""


# --- blocks of the batch ---------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    """Some images, and some rows of windows along the first spatial axis of them (all, if there is more than one image)."""

    images: slice
    rows: slice


def _blocks(batch: int, rows: int, scratch: int) -> Iterator[_Block]:
    """The blocks of nearly equal size, if one row of windows needs so much scratch."""
    fit = max(1, _SCRATCH // scratch)
    if fit >= rows:
        for images in _parts(batch, fit // rows):
            yield _Block(images, slice(0, rows))
    else:
        for image in range(batch):
            for some in _parts(rows, fit):
                yield _Block(slice(image, image + 1), some)


def _parts(n: int, most: int) -> Iterator[slice]:
    count = -(-n // most)
    each = -(-n // max(1, count))
    return (slice(start, min(n, start + each)) for start in range(0, n, each or 1))


def _within(g: Geometry, block: _Block) -> Geometry:
    """The geometry of a block: its rows of windows over the pixels they read, padding included."""
    n = block.rows.stop - block.rows.start
    if n == g.outside[0]:
        return g._replace(inside=g.padded, pads=((0, 0),) * len(g.pads))
    reach = (n - 1) * g.stride[0] + (g.size[0] - 1) * g.dilation[0] + 1
    return g._replace(inside=(reach, *g.padded[1:]), pads=((0, 0),) * len(g.pads), outside=(n, *g.outside[1:]))


def _read(x: Array, g: Geometry, block: _Block) -> Array:
    """The pixels that the windows of the block read, padding included."""
    some = x[block.images]
    if block.rows == slice(0, g.outside[0]):
        return pad(some, g.pads)
    before, n = g.pads[0][0], g.inside[0]
    first = block.rows.start * g.stride[0] - before
    last = first + _within(g, block).inside[0]
    around = (max(0, min(-first, last - first)), max(0, min(last - n, last - first)))
    return pad(some[:, max(0, first) : max(0, last)], (around, *g.pads[1:]))


# --- windows as matrices ---------------------------------------------------------------------------------------------


def _slices(x: Array, g: Geometry) -> Array:
    """`(places, rows, size * in)`: for every place along the last axis the windows there, the last kernel axis first.

    An overlapping view of one gathered copy; needs dilation 1 along the last axis.
    """
    *outer, along = g.size
    step = volume(tuple(outer)) * x.shape[-1]
    gathered = np.empty((len(x), *g.outside[:-1], g.padded[-1], step // x.shape[-1], x.shape[-1]), x.dtype)
    for i, offset in enumerate(product(*map(range, outer))):
        gathered[..., i, :] = x[taps(offset, g)]
    matrix = gathered.reshape(-1, g.padded[-1] * step)
    windows: Array = sliding_window_view(matrix, along * step, axis=1)[:, :: g.stride[-1] * step]
    return windows.transpose(1, 0, 2)


def _columns(x: Array, g: Geometry) -> Array:
    """`(windows, size * in)`: every window in a row of its own."""
    *outer, along = g.size
    channels = x.shape[-1]
    columns = np.empty((len(x), *g.outside, volume(tuple(outer)), along * channels), x.dtype)
    for i, offset in enumerate(product(*map(range, outer))):
        lines = x[taps(offset, g)]
        if g.dilation[-1] == 1:
            runs = lines.reshape(*lines.shape[:-2], -1)
            runs = sliding_window_view(runs, along * channels, axis=-1)[..., :: g.stride[-1] * channels, :]
            columns[..., i, :] = runs
        else:
            for j in range(along):
                columns[..., i, j * channels : (j + 1) * channels] = x[taps((*offset, j), g)]
    return columns.reshape(-1, volume(g.size) * channels)


def _last_first(weight: Array) -> Array:
    """The weight as a matrix `(size * in, out)` in the order of `_slices`."""
    return np.ascontiguousarray(np.moveaxis(weight, -3, 0)).reshape(-1, weight.shape[-1])


def _groups(channels: int, groups: int) -> list[slice]:
    return [slice(i * channels // groups, (i + 1) * channels // groups) for i in range(groups)]


def _lift(g: Geometry) -> Geometry:
    """One spatial axis as two, the first of size 1."""
    return Geometry((1, *g.size), (1, *g.stride), (1, *g.dilation), ((0, 0), *g.pads), (1, *g.inside), (1, *g.outside))


# --- y ---------------------------------------------------------------------------------------------------------------


def correlate(x: Array, weight: Array, bias: Array | None, g: Geometry, groups: int) -> Array:
    """`y[o] = sum over k of x[o s + k d - p] W[k] + b`, shape `(batch, *outside, out)`."""
    if len(g.size) == 1:
        return correlate(x[:, None], weight[None], bias, _lift(g), groups)[:, 0]
    y = np.empty((len(x), *g.outside, weight.shape[-1]), x.dtype)
    line = None if bias is None else np.tile(bias, (g.outside[-1], 1))
    if groups > 1 and weight.shape[-2] == 1:
        return _depthwise(x, weight, line, g, y)
    depth, outs = volume(weight.shape[:-1]), _groups(weight.shape[-1], groups)
    rows = volume(g.outside[:-1])
    gathered = rows // g.outside[0] * g.padded[-1] * depth // g.size[-1]
    few = _few_rows(depth * (weight.shape[-1] // groups))
    fit = min(len(x) * rows, max(1, _SCRATCH // gathered) * rows // g.outside[0])
    by_slices = g.dilation[-1] == 1 and volume(g.size) > 1 and fit >= (8 if few else 128)
    if by_slices:
        weights = [_last_first(weight[..., out]) for out in outs]
    else:
        gathered = rows // g.outside[0] * g.outside[-1] * depth
        weights = [np.ascontiguousarray(weight[..., out]).reshape(depth, -1) for out in outs]
    for block in _blocks(len(x), g.outside[0], gathered):
        some, inside, part = _read(x, g, block), _within(g, block), y[block.images, block.rows]
        for w, c, out in zip(weights, _groups(x.shape[-1], groups), outs):
            piece = some if groups == 1 else np.ascontiguousarray(some[..., c])
            if by_slices:
                windows = _slices(piece, inside)
                into = part[..., out].reshape(-1, *part.shape[-2:-1], w.shape[-1]).transpose(1, 0, 2)
                m = _divisor(windows.shape[1], few)
                split = (windows.shape[0], windows.shape[1] // m, m)
                np.matmul(windows.reshape(*split, -1), w, out=into.reshape(*split, -1))
            else:
                np.matmul(_columns(piece, inside), w, out=part[..., out].reshape(-1, w.shape[-1]))
        if line is not None:
            part += line
    return y


def _few_rows(size: int) -> int:
    """How many rows a product with a weight of that size may have to count as small; 0 if that is too few to be of use."""
    few = _SMALL // size
    return few if few >= 8 else 0


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n up to `most`, or n if there is none worth it."""
    best = max((d for d in range(1, min(n, most) + 1) if n % d == 0), default=n)
    return best if best >= 8 else n


# --- dW --------------------------------------------------------------------------------------------------------------


def correlate_weight(x: Array, dy: Array, g: Geometry, groups: int) -> Array:
    """`dW[k] = sum over images and o of x[o s + k d - p]' dy[o]`, shape `(*size, in / groups, out)`."""
    if len(g.size) == 1:
        return correlate_weight(x[:, None], dy[:, None], _lift(g), groups)[0]
    channels = x.shape[-1] // groups
    if groups > 1 and channels == 1:
        return _depthwise_weight(x, dy, g)
    depth, outs = volume(g.size) * channels, _groups(dy.shape[-1], groups)
    rows = volume(g.outside[:-1])
    gathered = rows // g.outside[0] * g.padded[-1] * depth // g.size[-1]
    fit = min(len(x) * rows, max(1, _SCRATCH // gathered) * rows // g.outside[0])
    by_slices = g.dilation[-1] == 1 and volume(g.size) > 1 and fit >= max(128, depth // 4)
    if not by_slices:
        gathered = rows // g.outside[0] * g.outside[-1] * depth
    dw = np.zeros((groups, depth, dy.shape[-1] // groups), dy.dtype)
    for block in _blocks(len(x), g.outside[0], gathered):
        some, inside, part = _read(x, g, block), _within(g, block), dy[block.images, block.rows]
        for i, (c, out) in enumerate(zip(_groups(x.shape[-1], groups), outs)):
            piece = some if groups == 1 else np.ascontiguousarray(some[..., c])
            if by_slices:
                there = part[..., out].reshape(-1, *part.shape[-2:-1], dw.shape[-1]).transpose(1, 0, 2)
                each = np.matmul(_slices(piece, inside).transpose(0, 2, 1), there)
                dw[i] += ones(len(each), dy.dtype).dot(each.reshape(len(each), -1)).reshape(dw.shape[1:])
            else:
                dw[i] += np.dot(_columns(piece, inside).T, part[..., out].reshape(-1, dw.shape[-1]))
    whole = dw.transpose(1, 0, 2)
    if by_slices:
        whole = np.moveaxis(whole.reshape(g.size[-1], *g.size[:-1], channels, -1), 0, -3)
    return whole.reshape(*g.size, channels, dy.shape[-1])


# --- dx --------------------------------------------------------------------------------------------------------------


def correlate_input(dy: Array, weight: Array, bias: Array | None, g: Geometry, groups: int) -> Array:
    """`dx[i] = sum of dy[o] W[k]' where o s + k d - p = i`, shape `(batch, *inside, in)`; plus b in a transposed convolution.

    With stride 1 it is a correlation of dy with the mirrored weight, unless that has many more windows than y has; then,
    and with larger strides, the products `dy W[k]'` are added where they belong.
    """
    if len(g.size) == 1:
        return correlate_input(dy[:, None], weight[None], bias, _lift(g), groups)[:, 0]
    mirror = _mirror(g)
    if mirror is not None and 2 * volume(g.inside) <= 3 * volume(g.outside):
        axes = tuple(range(len(g.size)))
        return correlate(dy, swapped(np.flip(weight, axes), groups), bias, mirror, groups)
    dx = np.empty((len(dy), *g.inside, weight.shape[-2] * groups), dy.dtype)
    if groups > 1 and weight.shape[-2] == 1:
        _depthwise_input(dy, weight, g, dx)
    else:
        _scatter(dy, weight, g, groups, dx)
    if bias is not None:
        dx += bias
    return dx


def swapped(weight: Array, groups: int) -> Array:
    """The weight with the parts of in and out exchanged: `(*size, in / groups, out)` to `(*size, out / groups, in)`."""
    *size, channels, features = weight.shape
    parts = weight.reshape(*size, channels, groups, features // groups)
    return parts.swapaxes(-3, -1).reshape(*size, features // groups, groups * channels)


def _mirror(g: Geometry) -> Geometry | None:
    """The geometry under which dx is a correlation of dy; None if there is none."""
    reach = [(k - 1) * d + 1 for k, d in zip(g.size, g.dilation)]
    pads = tuple((r - 1 - a, n + a - m) for r, n, m, (a, _) in zip(reach, g.inside, g.outside, g.pads))
    if set(g.stride) != {1} or min(map(min, pads)) < 0:
        return None
    return Geometry(g.size, g.stride, g.dilation, pads, g.outside, g.inside)


def _scatter(dy: Array, weight: Array, g: Geometry, groups: int, dx: Array) -> None:
    """Writes dx: per offset along all axes but the last a product, added in long runs; then the last axis is folded."""
    *outer, along = g.size
    offsets = list(product(*map(range, outer)))
    outs, ins = _groups(weight.shape[-1], groups), _groups(dx.shape[-1], groups)
    channels = weight.shape[-2]
    weights = [[np.ascontiguousarray(weight[k][..., out].reshape(along * channels, -1).T) for k in offsets] for out in outs]
    row = volume(g.outside[1:]) * along * channels
    per_block = max(1, _SCRATCH // (2 * row * g.outside[0]))
    rows = list(_parts(g.outside[0], max(1, _SCRATCH // row)))
    spread = g._replace(outside=(0, *g.outside[1:]))
    for images in _parts(len(dy), per_block):
        for out, c, ws in zip(outs, ins, weights):
            some = dy[images]
            sums = np.zeros((len(some), *g.padded[:-1], g.outside[-1], along * channels), dy.dtype)
            for part in rows:
                flat = some[:, part, ..., out].reshape(-1, out.stop - out.start)
                shape = (len(some), part.stop - part.start, *g.outside[1:], along * channels)
                inside = spread._replace(outside=shape[1:-1])
                start = part.start * g.stride[0]
                for k, w in zip(offsets, ws):
                    sums[:, start:][taps(k, inside)] += flat.dot(w).reshape(shape)
            _fold(crop(sums, (*g.pads[:-1], (0, 0))), g, dx[images][..., c])


def _fold(sums: Array, g: Geometry, dx: Array) -> None:
    """Writes `dx[i] = sum over j, o with o s + j d - p = i of sums[o, j]` along the last axis."""
    channels = dx.shape[-1]
    line = np.zeros((*sums.shape[:-2], g.padded[-1], channels), dx.dtype)
    for j in range(g.size[-1]):
        start = j * g.dilation[-1]
        stop = start + (g.outside[-1] - 1) * g.stride[-1] + 1
        line[..., start : stop : g.stride[-1], :] += sums[..., j * channels : (j + 1) * channels]
    before = g.pads[-1][0]
    dx[...] = line[..., before : before + g.inside[-1], :]


# --- every channel alone ---------------------------------------------------------------------------------------------

# Output channel c m + j belongs to input channel c (m = out / in), so W is used as m weights of one number a channel.


def _depthwise(x: Array, weight: Array, bias: Array | None, g: Geometry, y: Array) -> Array:
    """`y[o, c] = sum over k of x[o s + k d - p, c] W[k, c] + b[c]`, written into y."""
    channels = x.shape[-1]
    m = y.shape[-1] // channels
    offsets = list(product(*map(range, g.size)))
    for block in _blocks(len(x), g.outside[0], 3 * volume(g.outside[1:]) * channels):
        some, inside, part = _read(x, g, block), _within(g, block), y[block.images, block.rows]
        for j in range(m):
            total = np.zeros((*part.shape[:-1], channels), y.dtype)
            term = np.empty_like(total)
            for k in offsets:
                total += np.multiply(some[taps(k, inside)], _line(weight[k][0, j::m], g), out=term)
            part[..., j::m] = total
        if bias is not None:
            part += bias
    return y


def _depthwise_weight(x: Array, dy: Array, g: Geometry) -> Array:
    """`dW[k, c] = sum over images and o of x[o s + k d - p, c] dy[o, c]`."""
    channels = x.shape[-1]
    m = dy.shape[-1] // channels
    dw = np.zeros((*g.size, 1, dy.shape[-1]), dy.dtype)
    for block in _blocks(len(x), g.outside[0], 3 * volume(g.outside[1:]) * channels):
        some, inside, part = _read(x, g, block), _within(g, block), dy[block.images, block.rows]
        for j in range(m):
            factor = np.ascontiguousarray(part[..., j::m])
            term = np.empty_like(factor)
            for k in product(*map(range, g.size)):
                np.multiply(some[taps(k, inside)], factor, out=term)
                lines = term.reshape(-1, g.outside[-1] * channels)
                columns = ones(len(lines), dy.dtype).dot(lines).reshape(-1, channels)
                dw[k][0, j::m] += ones(len(columns), dy.dtype).dot(columns)
    return dw


def _depthwise_input(dy: Array, weight: Array, g: Geometry, dx: Array) -> None:
    """Writes `dx[i, c] = sum of dy[o, c] W[k, c] where o s + k d - p = i`."""
    channels = dx.shape[-1]
    m = dy.shape[-1] // channels
    for images in _parts(len(dy), max(1, _SCRATCH // (3 * volume(g.padded) * channels))):
        some = dy[images]
        sums = np.zeros((len(some), *g.padded, channels), dy.dtype)
        for j in range(m):
            factor = np.ascontiguousarray(some[..., j::m])
            term = np.empty_like(factor)
            for k in product(*map(range, g.size)):
                sums[taps(k, g)] += np.multiply(factor, _line(weight[k][0, j::m], g), out=term)
        dx[images] = crop(sums, g.pads)


def _line(weight: Array, g: Geometry) -> Array:
    """One number a channel, repeated along the last axis: products with it run over whole lines."""
    return np.tile(weight, (g.outside[-1], 1))
