"""Windows that slide over the spatial axes of `(batch, *space, channels)`: their sizes, strides and padding, how many
there are, and the checks of what a user may give. What is computed in them stands in `correlate` and `pool`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fnn.check import positive
from fnn.types import Array, Shape, ShapeError

Sizes: TypeAlias = int | tuple[int, ...]
"""One integer for all spatial axes, or one for each."""

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""How much stands before and after the input, for every spatial axis."""

Padding: TypeAlias = Literal["same", "valid"] | int | Pairs
"""`"same"`: `ceil(n / stride)` windows, the odd pixel of padding after the input. `"valid"`: none. An integer: on both
sides of every axis. (And `"causal"`, for one axis: all before the input, so that no window sees a later step.)"""


_NAMES: tuple[Literal["same", "valid", "causal"], ...] = ("same", "valid", "causal")


class Window(NamedTuple):
    """A window as it was asked for; all sizes are one for each spatial axis."""

    size: Shape
    stride: Shape
    dilation: Shape
    padding: Literal["same", "valid", "causal"] | Pairs


class Geometry(NamedTuple):
    """A window over an input of known sizes: window `o` reads `x[o * stride + k * dilation - before]`, k < size."""

    size: Shape
    stride: Shape
    dilation: Shape
    pads: Pairs
    inside: Shape
    """The spatial sizes of the input."""
    outside: Shape
    """The number of windows along every axis."""

    @property
    def padded(self) -> Shape:
        """The spatial sizes of the padded input."""
        return tuple(a + n + b for n, (a, b) in zip(self.inside, self.pads))


# --- what a user gives -----------------------------------------------------------------------------------------------


def window(
    who: str,
    name: str,
    axes: int,
    size: Sizes,
    stride: Sizes,
    padding: Padding | Literal["causal"],
    dilation: Sizes = 1,
    causal: bool = False,
) -> Window:
    """The window of these hyper-parameters; `ValueError` says which of them is wrong (`name` is that of the size)."""
    return Window(
        sizes(who, name, axes, size),
        sizes(who, "stride", axes, stride),
        sizes(who, "dilation", axes, dilation),
        _padding(who, axes, padding, causal),
    )


def sizes(who: str, name: str, axes: int, value: Sizes) -> Shape:
    """One positive integer for every axis."""
    if not isinstance(value, (tuple, list)):
        return (positive(who, name, value),) * axes
    if len(value) != axes:
        raise ValueError(f"{who}: expected {name} to be an integer or {axes} of them, got {value!r}")
    return tuple(positive(who, name, part) for part in value)


def pairs(who: str, axes: int, value: Any) -> Pairs:
    """`(before, after)` for every axis, from an integer or from such pairs."""
    if _count(value):
        return ((int(value), int(value)),) * axes
    if isinstance(value, (tuple, list)) and len(value) == axes:
        if all(isinstance(p, (tuple, list)) and len(p) == 2 and all(map(_count, p)) for p in value):
            return tuple((int(a), int(b)) for a, b in value)
    raise ValueError(f"{who}: expected padding to be a non-negative integer or {axes} pairs of them, got {value!r}")


def _count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _padding(who: str, axes: int, padding: Any, causal: bool) -> Literal["same", "valid", "causal"] | Pairs:
    for name in _NAMES if causal else _NAMES[:2]:
        if padding == name:
            return name
    if isinstance(padding, str):
        known = "'same', 'valid' or 'causal'" if causal else "'same' or 'valid'"
        raise ValueError(f"{who}: expected padding {known}, an integer or pairs of integers, got {padding!r}")
    return pairs(who, axes, padding)


# --- on an input of known sizes --------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def geometry(who: str, window: Window, in_shape: Shape) -> Geometry:
    """Where the windows lie on an input of shape `(*space, channels)`; `ShapeError` where they do not fit."""
    axes = len(window.size)
    if len(in_shape) != axes + 1:
        raise ShapeError(f"{who}: expected an input shape {layout(axes, batch=False)}, got {in_shape}")
    inside = in_shape[:-1]
    reach = tuple((k - 1) * d + 1 for k, d in zip(window.size, window.dilation))
    pads = _pads(window, inside, reach)
    for n, r, (before, after) in zip(inside, reach, pads):
        if before + n + after < r:
            raise ShapeError(f"{who}: expected a padded input of at least {reach}, got {in_shape} padded by {pads}")
    outside = tuple((a + n + b - r) // s + 1 for n, r, s, (a, b) in zip(inside, reach, window.stride, pads))
    return Geometry(window.size, window.stride, window.dilation, pads, inside, outside)


def _pads(window: Window, inside: Shape, reach: Shape) -> Pairs:
    if isinstance(window.padding, tuple):
        return window.padding
    if window.padding == "valid":
        return ((0, 0),) * len(inside)
    if window.padding == "causal":
        return tuple((r - 1, 0) for r in reach)
    totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, s, r in zip(inside, window.stride, reach)]
    return tuple((t // 2, t - t // 2) for t in totals)


@lru_cache(maxsize=256)
def transposed(who: str, window: Window, in_shape: Shape) -> Geometry:
    """The geometry whose windows are the pixels of the input: what a transposed convolution writes into.

    `"same"` gives `n * stride`, explicit padding `(n - 1) * stride + (size - 1) * dilation + 1 - before - after`.
    """
    axes = len(window.size)
    if len(in_shape) != axes + 1:
        raise ShapeError(f"{who}: expected an input shape {layout(axes, batch=False)}, got {in_shape}")
    outside = in_shape[:-1]
    reach = ((k - 1) * d + 1 for k, d in zip(window.size, window.dilation))
    full = tuple((n - 1) * s + r for n, s, r in zip(outside, window.stride, reach))
    if window.padding == "same":
        inside = tuple(n * s for n, s in zip(outside, window.stride))
        totals = [max(0, f - n) for f, n in zip(full, inside)]
        pads: Pairs = tuple((t // 2, t - t // 2) for t in totals)
    else:
        pads = window.padding if isinstance(window.padding, tuple) else ((0, 0),) * axes
        inside = tuple(f - a - b for f, (a, b) in zip(full, pads))
    if min(inside) < 1:
        raise ShapeError(f"{who}: expected an output of at least one pixel, got {inside} from input {in_shape}")
    return Geometry(window.size, window.stride, window.dilation, pads, inside, outside)


def layout(axes: int, channels: int | str = "channels", batch: bool = True) -> str:
    """How the input is laid out, in words: `(batch, height, width, 3)`."""
    names = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}[axes]
    return f"({', '.join((*(('batch',) if batch else ()), *names, str(channels)))})"


# --- padding arrays --------------------------------------------------------------------------------------------------


def pad(x: Array, pads: Pairs, value: float = 0.0) -> Array:
    """`x` with `value` around its spatial axes, in the same order in memory; x itself if there is nothing to add."""
    if not any(map(any, pads)):
        return x
    shape = (len(x), *(a + n + b for n, (a, b) in zip(x.shape[1:], pads)), x.shape[-1])
    padded = np.empty_like(x, shape=shape)
    padded.fill(value)
    padded[inner(pads, x.shape[1:-1])] = x
    return padded


def inner(pads: Pairs, inside: Shape) -> tuple[slice, ...]:
    """Where the input stands in its padded form."""
    return (slice(None), *(slice(a, a + n) for n, (a, _) in zip(inside, pads)))


def taps(offset: tuple[int, ...], g: Geometry) -> tuple[slice, ...]:
    """The pixels that the windows read at this offset inside them, along the first axes (as many as `offset` has)."""
    steps = zip(offset, g.stride, g.dilation, g.outside)
    return (slice(None), *(slice(k * d, k * d + (n - 1) * s + 1, s) for k, s, d, n in steps))


def crop(x: Array, pads: Pairs) -> Array:
    """The inverse of `pad`: a view of `x` without what stands around it."""
    return x if not any(map(any, pads)) else x[inner(pads, tuple(n - a - b for n, (a, b) in zip(x.shape[1:], pads)))]


def volume(shape: Shape) -> int:
    """The number of pixels."""
    return math.prod(shape)
