"""The arithmetic of convolution: three products of two of x, W and dy, in any number of spatial axes, channels last.

    y[o]  = sum over k of x[o s + k d - p] W[k] + b                     correlate
    dW[k] = sum over images and o of x[o s + k d - p]' dy[o]            correlate_weight
    dx[i] = sum of dy[o] W[k]' over o, k with o s + k d - p = i         correlate_input

(s stride, d dilation, p padding; W is `(*size, in / groups, out)`.) What the windows read is gathered along the last
axis only, as *lines* `(*outer space, images, places, along * in)`: with long runs, and as many copies as the kernel has
pixels along that axis, not in all. For every offset k along the other axes the pixels under it are then a slice of the
lines and a matrix as it stands, L[k], and with W and dy cut likewise

    y = sum over k of L[k] W[k]        dW[k] = L[k]' dy        dL[k] += dy W[k]', then the lines are folded into dx

Two cases have ways of their own: few channels (sums of thin products would cost more than the products) and depthwise.
All work on blocks of the batch whose scratch stays in the second-level cache; which way is taken depends on shapes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fnn.layers.window import Geometry, crop, pad, taps, volume
from fnn.types import Array, Shape, ones

_SCRATCH = 1 << 18
"""Numbers of scratch in a block: 1 MB of float32, half of a usual second-level cache."""

_SMALL = 10**6
"""Products of at most so many multiplications skip the packing of operands in OpenBLAS, which makes them faster."""

_FEW = 48
"""Up to so many numbers in a line of the kernel (pixels along the last axis times channels), all of it is one product."""


# --- y ---------------------------------------------------------------------------------------------------------------


def correlate(x: Array, weight: Array, bias: Array | None, g: Geometry, groups: int) -> Array:
    """`y[o] = sum over k of x[o s + k d - p] W[k] + b`, shape `(batch, *outside, out)`."""
    if len(g.size) == 1:
        return correlate(x[:, None], weight[None], bias, _lift(g), groups)[:, 0]
    channels, features = weight.shape[-2:]
    y = np.empty((len(x), *g.outside, features), x.dtype)
    depthwise = groups > 1 and channels == 1
    few = _by_rows(g, channels)
    way = _depthwise if depthwise else _correlate_rows if few else _correlate_lines
    scratch = _depthwise_scratch(g, x.shape[-1]) if depthwise else _scratch(g, channels, 0 if few else features // groups)
    cuts = [(slice(None), slice(None))] if depthwise else _cuts(x.shape[-1], features, groups)
    weights = [np.ascontiguousarray(weight[..., out]) for _, out in cuts]
    line = None if bias is None else np.tile(bias, (g.outside[-1], 1))
    spare = _Spare(x.dtype)
    for block in _blocks(len(x), g.outside[0], scratch):
        inside, part = _within(g, block), y[block.images, block.rows]
        for w, (into, out) in zip(weights, cuts):
            way(_read(x[..., into], g, block, spare), w, inside, part[..., out], spare)
        if line is not None:
            part += line
    return y


def _correlate_lines(x: Array, weight: Array, g: Geometry, y: Array, spare: _Spare) -> None:
    """Writes `y = sum over k of L[k] W[k]`."""
    lines, there = _lines(x, g, spare), _outer_first(y)
    total = there if len(y) == 1 else spare.array("total", there.shape)
    term = spare.array("term", there.shape)
    m = _rows(volume(there.shape[-4:-1]), weight.shape[-3] * volume(weight.shape[-2:]), 64)
    for i, (k, under) in enumerate(_plan(g).offsets):
        w = weight[k].reshape(-1, weight.shape[-1])
        np.matmul(_matrices(lines[under], m), w, out=_matrices(term if i else total, m))
        if i:
            total += term
    if len(y) > 1:
        there[...] = total


def _correlate_rows(x: Array, weight: Array, g: Geometry, y: Array, spare: _Spare) -> None:
    """Writes y for few channels in two axes: whole windows against the whole weight, one product for a row of windows.

    With the lines of a column next to each other, the windows there are overlapping parts of one row of numbers.
    """
    columns = spare.copy("columns", spare.runs(x, g).swapaxes(1, 2))
    step = columns.shape[-1]
    windows = sliding_window_view(columns.reshape(*columns.shape[:2], columns.shape[2] * step), g.size[0] * step, axis=2)
    np.matmul(windows[:, :, :: g.stride[0] * step].swapaxes(1, 2), weight.reshape(-1, weight.shape[-1]), out=y)


def _by_rows(g: Geometry, channels: int) -> bool:
    thin = g.size[-1] * channels <= _FEW and g.outside[-1] >= 12
    return thin and len(g.size) == 2 and g.size[0] > 1 and g.dilation == (1, 1)


# --- dW --------------------------------------------------------------------------------------------------------------


def correlate_weight(x: Array, dy: Array, g: Geometry, groups: int) -> Array:
    """`dW[k] = sum over images and o of x[o s + k d - p]' dy[o]`, shape `(*size, in / groups, out)`."""
    if len(g.size) == 1:
        return correlate_weight(x[:, None], dy[:, None], _lift(g), groups).reshape(*g.size, -1, dy.shape[-1])
    channels, features = x.shape[-1] // groups, dy.shape[-1]
    dw = np.zeros((*g.size, channels, features), dy.dtype)
    depthwise = groups > 1 and channels == 1
    way = _depthwise_weight if depthwise else _weight_lines
    scratch = _depthwise_scratch(g, x.shape[-1]) if depthwise else _scratch(g, channels, features // groups)
    cuts = [(slice(None), slice(None))] if depthwise else _cuts(x.shape[-1], features, groups)
    spare = _Spare(x.dtype)
    for block in _blocks(len(x), g.outside[0], scratch):
        inside, part = _within(g, block), dy[block.images, block.rows]
        for into, out in cuts:
            way(_read(x[..., into], g, block, spare), part[..., out], inside, dw[..., out], spare)
    return dw


def _weight_lines(x: Array, dy: Array, g: Geometry, dw: Array, spare: _Spare) -> None:
    """Adds `dW[k] = L[k]' dy`."""
    lines, dy = _lines(x, g, spare), spare.copy("dy", _outer_first(dy))
    size = lines.shape[-1] * dy.shape[-1]
    m = _rows(volume(dy.shape[-4:-1]), size, 64)
    for k, under in _plan(g).offsets:
        each = np.matmul(_matrices(lines[under], m).swapaxes(-1, -2), _matrices(dy, m)).reshape(-1, size)
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
    mirror = _mirror(g)
    channels, features = weight.shape[-2:]
    depthwise = groups > 1 and channels == 1
    if mirror is not None and (2 * volume(g.inside) <= 3 * volume(g.outside)) and not (depthwise and features > groups):
        mirrored = np.flip(weight, tuple(range(len(g.size))))
        return correlate(dy, swapped(mirrored, groups), bias, mirror, groups)
    dx = np.empty((len(dy), *g.inside, channels * groups), dy.dtype)
    way = _depthwise_input if depthwise else _input_lines
    scratch = _depthwise_scratch(g, groups) if depthwise else 2 * _scratch(g, channels, 0)
    cuts = [(slice(None), slice(None))] if depthwise else _cuts(channels * groups, features, groups)
    weights = [np.ascontiguousarray(weight[..., out].swapaxes(-1, -2)) for _, out in cuts]
    spare = _Spare(dy.dtype)
    for images in _parts(len(dy), max(1, _SCRATCH // (scratch * g.outside[0]))):
        for w, (into, out) in zip(weights, cuts):
            way(dy[images][..., out], w, g, dx[images][..., into], spare)
    if bias is not None:
        dx += np.tile(bias, (g.inside[-1], 1))
    return dx


def _input_lines(dy: Array, weight: Array, g: Geometry, dx: Array, spare: _Spare) -> None:
    """Writes dx: `dL[k] += dy W[k]'`, and the lines are folded."""
    dy = spare.copy("dy", _outer_first(dy))
    features, channels = weight.shape[-2:]
    lines = spare.array("lines", (*_plan(g).heights, *dy.shape[-3:-1], g.size[-1] * channels))
    lines.fill(0)
    term = spare.array("term", (*dy.shape[:-1], lines.shape[-1]))
    m = _rows(volume(dy.shape[-4:-1]), features * lines.shape[-1], 64)
    for k, under in _plan(g).offsets:
        w = np.ascontiguousarray(weight[k].swapaxes(0, 1)).reshape(features, -1)
        np.matmul(_matrices(dy, m), w, out=_matrices(term, m))
        there = lines[under]
        there += term
    _fold(lines, g, dx, spare)


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
    parts = weight.reshape(*size, channels, groups, features // groups)
    return parts.swapaxes(-3, -1).reshape(*size, features // groups, groups * channels)


# --- every channel alone: output c m + j belongs to input c (m = out / in) -------------------------------------------


def _depthwise(x: Array, weight: Array, g: Geometry, y: Array, spare: _Spare) -> None:
    """Writes `y[o, c] = sum over k of x[o s + k d - p, c] W[k, c]`."""
    channels = x.shape[-1]
    m = y.shape[-1] // channels
    total, term = (spare.array(name, (*y.shape[:-1], channels)) for name in ("total", "term"))
    for j in range(m):
        into = total if m > 1 else y
        for i, k in enumerate(product(*map(range, g.size))):
            np.multiply(x[taps(k, g)], _line(weight[k][0, j::m], g), out=term if i else into)
            if i:
                into += term
        if m > 1:
            y[..., j::m] = total


def _depthwise_weight(x: Array, dy: Array, g: Geometry, dw: Array, spare: _Spare) -> None:
    """Adds `dW[k, c] = sum over images and o of x[o s + k d - p, c] dy[o, c]`."""
    channels = x.shape[-1]
    m = dy.shape[-1] // channels
    term = spare.array("term", (*dy.shape[:-1], channels))
    for j in range(m):
        factor = np.ascontiguousarray(dy[..., j::m])
        for k in product(*map(range, g.size)):
            np.multiply(x[taps(k, g)], factor, out=term)
            flat = term.reshape(-1, g.outside[-1] * channels)
            flat = ones(len(flat), dy.dtype).dot(flat).reshape(-1, channels)
            dw[k][0, j::m] += ones(len(flat), dy.dtype).dot(flat)


def _depthwise_input(dy: Array, weight: Array, g: Geometry, dx: Array, spare: _Spare) -> None:
    """Writes `dx[i, c] = sum of dy[o, c] W[k, c] over o, k with o s + k d - p = i`; the weight is `(*size, out, 1)`."""
    channels = dx.shape[-1]
    m = dy.shape[-1] // channels
    total = spare.array("total", (len(dy), *g.padded, channels))
    total.fill(0)
    term = spare.array("term", (*dy.shape[:-1], channels))
    for j in range(m):
        factor = np.ascontiguousarray(dy[..., j::m])
        for k in product(*map(range, g.size)):
            there = total[taps(k, g)]
            there += np.multiply(factor, _line(weight[k][j::m, 0], g), out=term)
    dx[...] = crop(total, g.pads)


def _line(weight: Array, g: Geometry) -> Array:
    """One number a channel, repeated along the last axis, so that products with it run over whole lines."""
    return np.broadcast_to(weight, (g.outside[-1], len(weight))).copy()


def _depthwise_scratch(g: Geometry, channels: int) -> int:
    return 3 * volume(g.outside[1:]) * channels


# --- lines -----------------------------------------------------------------------------------------------------------

# Along an outer axis of stride s the lines are sorted by their place modulo s: those under an offset are consecutive.


def _lines(x: Array, g: Geometry, spare: _Spare) -> Array:
    """The lines of a padded input, `(*outer space, images, places, along * in)`; those that no window reads are arbitrary."""
    plan, runs = _plan(g), _outer_first(spare.runs(x, g))
    lines = spare.array("lines", (*plan.heights, *runs.shape[-3:]))
    for here, there in plan.phases:
        lines[here] = runs[there]
    return lines


def _fold(lines: Array, g: Geometry, dx: Array, spare: _Spare) -> None:
    """Writes dx of the gradients of lines."""
    channels = dx.shape[-1]
    total = spare.array("total", (*g.padded[:-1], len(dx), g.padded[-1], channels))
    total.fill(0)
    for here, there in _plan(g).phases:
        some, part = total[there], lines[here]
        for j in range(g.size[-1]):
            start = j * g.dilation[-1]
            places = some[..., start : start + (g.outside[-1] - 1) * g.stride[-1] + 1 : g.stride[-1], :]
            places += part[..., j * channels : (j + 1) * channels]
    dx[...] = crop(np.moveaxis(total, -3, 0), g.pads)


def _outer_first(x: Array) -> Array:
    """`(images, *space, channels)` in the order of lines: `(*outer space, images, places, channels)`."""
    last = x.ndim - 2
    return x.transpose(*range(1, last), 0, last, last + 1)


def _runs(x: Array, g: Geometry) -> Array:
    """`(images, *outer space, places, along * in)`: the pixels of every window along the last axis; a view if it can be one."""
    channels, along, stride, dilation = x.shape[-1], g.size[-1], g.stride[-1], g.dilation[-1]
    if dilation > 1:
        pieces = [x[..., j * dilation :: stride, :][..., : g.outside[-1], :] for j in range(along)]
        return np.concatenate(pieces, -1)
    flat = np.ascontiguousarray(x).reshape(*x.shape[:-2], x.shape[-2] * channels)
    runs: Array = sliding_window_view(flat, along * channels, axis=-1)[..., :: stride * channels, :]
    return runs[..., : g.outside[-1], :]


class _Plan(NamedTuple):
    """Where the lines of a geometry stand, along the outer axes."""

    heights: Shape
    """How many there are."""
    phases: tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]
    """For every place modulo the strides that windows read: where its lines are, and where they stand in the space."""
    offsets: tuple[tuple[Shape, tuple[slice, ...]], ...]
    """For every offset: the lines under it."""


@lru_cache(maxsize=512)
def _plan(g: Geometry) -> _Plan:
    outer = range(len(g.size) - 1)
    each = [(g.size[a] - 1) * g.dilation[a] // g.stride[a] + g.outside[a] for a in outer]  # lines of one place modulo stride
    axes = []
    for a in outer:
        s, there = g.stride[a], []
        for r in sorted({k * g.dilation[a] % s for k in range(g.size[a])}):
            n = min(each[a], len(range(r, g.padded[a], s)))
            there.append((slice(r * each[a], r * each[a] + n), slice(r, r + (n - 1) * s + 1, s)))
        axes.append(there)
    starts = [[k * d % s * n + k * d // s for k in range(size)] for size, s, d, n in zip(g.size, g.stride, g.dilation, each)]
    offsets = product(*(range(size) for size in g.size[:-1]))
    return _Plan(
        tuple(g.stride[a] * each[a] for a in outer),
        tuple((tuple(h for h, _ in phase), tuple(t for _, t in phase)) for phase in product(*axes)),
        tuple((k, tuple(slice(starts[a][k[a]], starts[a][k[a]] + g.outside[a]) for a in outer)) for k in offsets),
    )


def _matrices(lines: Array, rows: int) -> Array:
    """Lines as matrices of so many rows (the innermost outer axis, images and places taken together)."""
    return lines.reshape(*lines.shape[:-4], -1, rows, lines.shape[-1])


def _rows(n: int, size: int, least: int) -> int:
    """Into products of how many rows to cut one of n with so many multiplications a row: small ones, or one."""
    most = min(n, _SMALL // size)
    return next((m for m in range(most, least - 1, -1) if n % m == 0), max(1, n))


# --- blocks ----------------------------------------------------------------------------------------------------------


class _Spare:
    """Arrays that the blocks of one call use in turn, which keeps them in the cache. A name has one use."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._flat: dict[str, Array] = {}
        self._shaped: dict[tuple[str, Shape], Array] = {}

    def array(self, name: str, shape: Shape, zeros: bool = False) -> Array:
        """An array without gaps, of any contents; with `zeros`, of zeros and what was written into that shape before."""
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

    def runs(self, x: Array, g: Geometry) -> Array:
        """`_runs(x, g)`, made once for the padded input that all blocks use."""
        if x is not self._shaped.get(("padded", x.shape)) or g.dilation[-1] > 1:
            return _runs(x, g)
        found = self._shaped.get(("runs", x.shape))
        if found is None:
            found = self._shaped["runs", x.shape] = _runs(x, g)
        return found


class _Block(NamedTuple):
    """Some images, and some rows of windows along the first spatial axis of them (all, if there is more than one image)."""

    images: slice
    rows: slice


def _blocks(batch: int, rows: int, scratch: int) -> Iterator[_Block]:
    """Blocks of nearly equal size, if one row of windows needs so much scratch."""
    fit = max(1, _SCRATCH // scratch)
    if fit >= rows:
        return (_Block(images, slice(0, rows)) for images in _parts(batch, fit // rows))
    return (_Block(slice(i, i + 1), some) for i in range(batch) for some in _parts(rows, fit))


def _parts(n: int, most: int) -> Iterator[slice]:
    """Slices that cover n, none longer than `most`, nearly equal."""
    count = max(1, -(-n // most))
    return (slice(n * i // count, n * (i + 1) // count) for i in range(count))


def _scratch(g: Geometry, channels: int, features: int) -> int:
    """What one row of windows needs: its lines, and so many numbers for each window."""
    return volume(g.outside[1:-1]) * g.outside[-1] * (g.size[-1] * channels + features)


def _within(g: Geometry, block: _Block) -> Geometry:
    """The geometry of a block: its rows of windows over the padded pixels they read."""
    n, pads = block.rows.stop - block.rows.start, ((0, 0),) * len(g.pads)
    if n == g.outside[0]:
        return g._replace(inside=g.padded, pads=pads)
    reach = (n - 1) * g.stride[0] + (g.size[0] - 1) * g.dilation[0] + 1
    return g._replace(inside=(reach, *g.padded[1:]), pads=pads, outside=(n, *g.outside[1:]))


def _read(x: Array, g: Geometry, block: _Block, spare: _Spare) -> Array:
    """The pixels that the windows of the block read, padding included; without gaps."""
    some = x[block.images]
    first = block.rows.start * g.stride[0] - g.pads[0][0]
    if block.rows != slice(0, g.outside[0]):
        last = first + _within(g, block).inside[0]
        around = (max(0, min(-first, last - first)), max(0, min(last - g.inside[0], last - first)))
        return np.ascontiguousarray(pad(some[:, max(0, first) : max(0, last)], (around, *g.pads[1:])))
    padded = spare.array("padded", (len(some), *g.padded, x.shape[-1]), zeros=True)
    crop(padded, g.pads)[...] = some
    return padded


def _cuts(channels: int, features: int, groups: int) -> list[tuple[slice, slice]]:
    """The channels of input and output that belong to each group."""
    c, f = channels // groups, features // groups
    return [(slice(i * c, (i + 1) * c), slice(i * f, (i + 1) * f)) for i in range(groups)]


def _lift(g: Geometry) -> Geometry:
    """One spatial axis as two, the first of size 1."""
    return Geometry((1, *g.size), (1, *g.stride), (1, *g.dilation), ((0, 0), *g.pads), (1, *g.inside), (1, *g.outside))
