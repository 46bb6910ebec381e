"""The arithmetic of convolution: three products of two of x, W and dy, in any number of spatial axes, channels last.

    y[o]  = sum over k of x[o s + k d - p] W[k] + b                     correlate
    dW[k] = sum over images and o of x[o s + k d - p]' dy[o]            correlate_weight
    dx[i] = sum of dy[o] W[k]' over o, k with o s + k d - p = i         correlate_input

(s stride, d dilation, p padding; W is `(*size, in / groups, out)`.) With L[k] the lines of x under the offset k along
all axes but the last, and with W cut likewise,

    y = sum over k of L[k] W[k]        dW[k] = L[k]' dy        dL[k] += dy W[k]', then the lines are folded into dx

Three cases go other ways: many images, which stand side by side (`abreast`), few channels, where adding thin products
would cost more than the products, and channels that are convolved alone (`depthwise`). Which way is taken depends on
shapes and strides only.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fnn.layers import abreast, blocks, depthwise
from fnn.layers.blocks import Spare, parts, read, within
from fnn.layers.dense import rows
from fnn.layers.lines import fold, gather, matrices, outer_first, plan, runs
from fnn.layers.window import Geometry, volume
from fnn.types import Array, ones

_SMALL = 10**6
"""Products of at most so many multiplications skip the packing of operands in OpenBLAS, which makes them faster."""

_FEW = 48
"""Up to so many numbers in a row of the kernel (pixels along the last axis times channels) count as few channels."""


# --- y ---------------------------------------------------------------------------------------------------------------


def correlate(x: Array, weight: Array, bias: Array | None, g: Geometry, groups: int) -> Array:
    """`y[o] = sum over k of x[o s + k d - p] W[k] + b`, shape `(batch, *outside, out)`."""
    if len(g.size) == 1:
        return correlate(x[:, None], weight[None], bias, _lift(g), groups)[:, 0]
    if abreast.fits(x, g, groups):
        return abreast.apart(abreast.correlate(abreast.abreast(x), weight, bias, g))
    channels, features = weight.shape[-2:]
    if groups > 1 and channels == 1:
        return depthwise.correlate(x, weight, bias, g)
    y = np.empty((len(x), *g.outside, features), x.dtype)
    few = _few(g, channels)
    way = _correlate_rows if few else _correlate_lines
    pieces = [(c, f, np.ascontiguousarray(weight[..., f])) for c, f in _cuts(x.shape[-1], features, groups)]
    line = None if bias is None else np.tile(bias, (g.outside[-1], 1))
    spare = Spare(x.dtype)
    for block in blocks.cut(len(x), g.outside[0], _scratch(g, channels, 0 if few else features // groups)):
        inside, part = within(g, block), y[block.images, block.rows]
        for c, f, w in pieces:
            way(read(x[..., c], g, block, spare), w, inside, part[..., f], spare)
        if line is not None:
            part += line
    return y


def _correlate_lines(x: Array, weight: Array, g: Geometry, y: Array, spare: Spare) -> None:
    """Writes `y = sum over k of L[k] W[k]`."""
    lines, there = gather(x, g, spare), outer_first(y)
    total = there if len(y) == 1 else spare.array("total", there.shape)
    term = spare.array("term", there.shape)
    height = _height(volume(there.shape[-4:-1]), lines.shape[-1] * y.shape[-1])
    for i, (k, under) in enumerate(plan(g).offsets):
        w = weight[k].reshape(-1, weight.shape[-1])
        np.matmul(matrices(lines[under], height), w, out=matrices(term if i else total, height))
        if i:
            total += term
    if len(y) > 1:
        there[...] = total


def _correlate_rows(x: Array, weight: Array, g: Geometry, y: Array, spare: Spare) -> None:
    """Writes y for few channels in two axes: whole windows times the whole weight, one product for a row of windows.

    With the lines of a column next to each other, the windows there are overlapping parts of one row of numbers.
    """
    columns = spare.copy("columns", runs(x, g, spare).swapaxes(1, 2))
    images, places, height, row = columns.shape
    windows = sliding_window_view(columns.reshape(images, places, height * row), g.size[0] * row, axis=2)
    np.matmul(windows[:, :, :: g.stride[0] * row].swapaxes(1, 2), weight.reshape(-1, weight.shape[-1]), out=y)


def _few(g: Geometry, channels: int) -> bool:
    thin = g.size[-1] * channels <= _FEW and g.outside[-1] >= 12
    return thin and len(g.size) == 2 and g.size[0] > 1 and g.dilation == (1, 1)


# --- dW --------------------------------------------------------------------------------------------------------------


def correlate_weight(x: Array, dy: Array, g: Geometry, groups: int) -> Array:
    """`dW[k] = sum over images and o of x[o s + k d - p]' dy[o]`, shape `(*size, in / groups, out)`."""
    if len(g.size) == 1:
        return correlate_weight(x[:, None], dy[:, None], _lift(g), groups).reshape(*g.size, -1, dy.shape[-1])
    if abreast.fits(x, g, groups):
        return abreast.correlate_weight(abreast.abreast(x), abreast.abreast(dy), g)
    channels, features = x.shape[-1] // groups, dy.shape[-1]
    if groups > 1 and channels == 1:
        return depthwise.correlate_weight(x, dy, g)
    dw = np.zeros((*g.size, channels, features), dy.dtype)
    cuts = _cuts(x.shape[-1], features, groups)
    spare = Spare(x.dtype)
    for block in blocks.cut(len(x), g.outside[0], _scratch(g, channels, features // groups)):
        inside, part = within(g, block), dy[block.images, block.rows]
        for c, f in cuts:
            _weight_lines(read(x[..., c], g, block, spare), part[..., f], inside, dw[..., f], spare)
    return dw


def _weight_lines(x: Array, dy: Array, g: Geometry, dw: Array, spare: Spare) -> None:
    """Adds `dW[k] = L[k]' dy`."""
    lines, dy = gather(x, g, spare), spare.copy("dy", outer_first(dy))
    size = lines.shape[-1] * dy.shape[-1]
    height = _height(volume(dy.shape[-4:-1]), size)
    for k, under in plan(g).offsets:
        each = np.matmul(matrices(lines[under], height).swapaxes(-1, -2), matrices(dy, height)).reshape(-1, size)
        whole = each if len(each) == 1 else ones(len(each), dy.dtype).dot(each)
        dw[k] += whole.reshape(dw.shape[-3:])


# --- dx --------------------------------------------------------------------------------------------------------------


def correlate_input(dy: Array, weight: Array, bias: Array | None, g: Geometry, groups: int) -> Array:
    """`dx[i] = sum of dy[o] W[k]' over o, k with o s + k d - p = i`, shape `(batch, *inside, in)`.

    With stride 1 it is a correlation of dy with the mirrored weight, unless that has many more windows than y has.
    The bias is that of a transposed convolution, whose output this is.
    """
    if len(g.size) == 1:
        return correlate_input(dy[:, None], weight[None], bias, _lift(g), groups)[:, 0]
    channels, features = weight.shape[-2:]
    alone = groups > 1 and channels == 1
    mirror = _mirror(g)
    if mirror is not None and 2 * volume(g.inside) <= 3 * volume(g.outside) and not (alone and features > groups):
        mirrored = np.flip(weight, tuple(range(len(g.size))))
        return correlate(dy, swapped(mirrored, groups), bias, mirror, groups)
    if abreast.fits(dy, g, groups):
        return abreast.apart(abreast.correlate_input(abreast.abreast(dy), weight, bias, g))
    dx = np.empty((len(dy), *g.inside, channels * groups), dy.dtype)
    if alone:
        depthwise.correlate_input(dy, weight, g, dx)
    else:
        spare = Spare(dy.dtype)
        pieces = [(c, f, weight[..., f].swapaxes(-1, -2)) for c, f in _cuts(dx.shape[-1], features, groups)]
        for images in parts(len(dy), max(1, blocks.SCRATCH // (2 * _scratch(g, channels, 0) * g.outside[0]))):
            for c, f, w in pieces:
                _input_lines(dy[images][..., f], w, g, dx[images][..., c], spare)
    if bias is not None:
        dx += np.tile(bias, (g.inside[-1], 1))
    return dx


def _input_lines(dy: Array, weight: Array, g: Geometry, dx: Array, spare: Spare) -> None:
    """Writes dx: `dL[k] += dy W[k]'`, and the lines are folded; the weight is `(*size, out, in)`."""
    dy = spare.copy("dy", outer_first(dy))
    features, channels = weight.shape[-2:]
    lines = spare.array("lines", (*plan(g).heights, *dy.shape[-3:-1], g.size[-1] * channels))
    lines.fill(0)
    term = spare.array("term", (*dy.shape[:-1], lines.shape[-1]))
    height = _height(volume(dy.shape[-4:-1]), features * lines.shape[-1])
    for k, under in plan(g).offsets:
        w = np.ascontiguousarray(weight[k].swapaxes(0, 1)).reshape(features, -1)
        np.matmul(matrices(dy, height), w, out=matrices(term, height))
        there = lines[under]
        there += term
    fold(lines, g, dx, spare)


def _mirror(g: Geometry) -> Geometry | None:
    """The geometry under which dx is a correlation of dy; None if there is none."""
    reach = [(k - 1) * d + 1 for k, d in zip(g.size, g.dilation)]
    pads = tuple((r - 1 - a, n + a - m) for r, n, m, (a, _) in zip(reach, g.inside, g.outside, g.pads))
    if set(g.stride) != {1} or min(map(min, pads)) < 0:
        return None
    return Geometry(g.size, g.stride, g.dilation, pads, g.outside, g.inside)


def swapped(weight: Array, groups: int) -> Array:
    """The weight with the parts of in and out exchanged: `(*size, in / groups, out)` to `(*size, out / groups, in)`."""
    *size, channels, features = weight.shape
    cut = weight.reshape(*size, channels, groups, features // groups)
    return cut.swapaxes(-3, -1).reshape(*size, features // groups, groups * channels)


# --- order in memory -------------------------------------------------------------------------------------------------


def ordered(x: Array, g: Geometry, groups: int) -> Array:
    """x in the order in which its axes should stand in memory: a copy where they do not."""
    images, g = (x[:, None], _lift(g)) if x.ndim == 3 else (x, g)
    if not abreast.fits(images, g, groups):
        return x
    there = abreast.apart(abreast.abreast(images))
    return there[:, 0] if x.ndim == 3 else there


def bias_gradient(dy: Array) -> Array:
    """`db`: the sum of dy over images and o."""
    if abreast.is_abreast(dy):
        return abreast.channel_sums(abreast.channel_rows(dy))
    flat = rows(dy)
    sums: Array = ones(len(flat), dy.dtype).dot(flat)
    return sums


# --- sizes -----------------------------------------------------------------------------------------------------------


def _height(n: int, size: int) -> int:
    """How high the products are into which one of height n is cut, with so many multiplications a row."""
    return next((m for m in range(min(n, _SMALL // size), 63, -1) if n % m == 0), max(1, n))


def _scratch(g: Geometry, channels: int, features: int) -> int:
    """What one row of windows needs: its lines, and so many numbers for each window."""
    return volume(g.outside[1:]) * (g.size[-1] * channels + features)


def _cuts(channels: int, features: int, groups: int) -> list[tuple[slice, slice]]:
    """The channels of input and output that belong to each group."""
    c, f = channels // groups, features // groups
    return [(slice(i * c, (i + 1) * c), slice(i * f, (i + 1) * f)) for i in range(groups)]


def _lift(g: Geometry) -> Geometry:
    """One spatial axis as two, the first of size 1."""
    return Geometry((1, *g.size), (1, *g.stride), (1, *g.dilation), ((0, 0), *g.pads), (1, *g.inside), (1, *g.outside))
