"""Convolution of every channel alone: multiply and add, offset after offset, over whole lines of the image.

Output c m + j belongs to input c (m = out / in). The weight is repeated along the last axis, `(*size, places, out)`, so
that products with it run over lines, not over the channels of one pixel.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from fnn.layers import blocks
from fnn.layers.blocks import Spare, parts, read, within
from fnn.layers.window import Geometry, crop, taps, volume
from fnn.types import Array, ones


def correlate(x: Array, weight: Array, bias: Array | None, g: Geometry) -> Array:
    """`y[o, c] = sum over k of x[o s + k d - p, c] W[k, c] + b[c]`."""
    channels, features = x.shape[-1], weight.shape[-1]
    m = features // channels
    lines = np.repeat(weight, g.outside[-1], axis=-2)
    line = None if bias is None else np.tile(bias, (g.outside[-1], 1))
    y = np.empty((len(x), *g.outside, features), x.dtype)
    spare = Spare(x.dtype)
    for block in blocks.cut(len(x), g.outside[0], _scratch(g, channels)):
        some, inside, part = read(x, g, block, spare), within(g, block), y[block.images, block.rows]
        total, term = (spare.array(name, (*part.shape[:-1], channels)) for name in ("total", "term"))
        for j in range(m):
            into = part if m == 1 else total
            for i, k in enumerate(product(*map(range, g.size))):
                np.multiply(some[taps(k, inside)], lines[k][:, j::m], out=term if i else into)
                if i:
                    into += term
            if m > 1:
                part[..., j::m] = total
        if line is not None:
            part += line
    return y


def correlate_weight(x: Array, dy: Array, g: Geometry) -> Array:
    """`dW[k, c] = sum over images and o of x[o s + k d - p, c] dy[o, c]`, shape `(*size, 1, out)`."""
    channels, features = x.shape[-1], dy.shape[-1]
    m, width = features // channels, g.outside[-1] * channels
    dw = np.zeros((*g.size, 1, features), dy.dtype)
    spare = Spare(x.dtype)
    for block in blocks.cut(len(x), g.outside[0], _scratch(g, channels)):
        some, inside, part = read(x, g, block, spare), within(g, block), dy[block.images, block.rows]
        for j in range(m):
            factor = spare.copy("factor", part[..., j::m])
            term = spare.array("term", factor.shape)
            for k in product(*map(range, g.size)):
                np.multiply(some[taps(k, inside)], factor, out=term)
                lines = term.reshape(-1, width)
                pixels = ones(len(lines), dy.dtype).dot(lines).reshape(-1, channels)
                dw[k][0, j::m] += ones(len(pixels), dy.dtype).dot(pixels)
    return dw


def correlate_input(dy: Array, weight: Array, g: Geometry, dx: Array) -> None:
    """Writes `dx[i, c] = sum of dy[o, c] W[k, c] over o, k with o s + k d - p = i`."""
    channels = dx.shape[-1]
    m = dy.shape[-1] // channels
    lines = np.repeat(weight, g.outside[-1], axis=-2)
    spare = Spare(dy.dtype)
    for images in parts(len(dy), max(1, blocks.SCRATCH // (_scratch(g, channels) * g.outside[0]))):
        some = dy[images]
        total = spare.array("total", (len(some), *g.padded, channels))
        total.fill(0)
        term = spare.array("term", (*some.shape[:-1], channels))
        for j in range(m):
            factor = spare.copy("factor", some[..., j::m])
            for k in product(*map(range, g.size)):
                there = total[taps(k, g)]
                there += np.multiply(factor, lines[k][:, j::m], out=term)
        dx[images] = crop(total, g.pads)


def _scratch(g: Geometry, channels: int) -> int:
    """What one row of windows needs: itself, what it reads and a term."""
    return 3 * volume(g.outside[1:]) * channels
