"""Pooling: maxima and means of windows, and of everything.

A window is taken one axis after the other: one of 3 x 3 costs four operations an output, not eight. The first axis
comes first, since its operations run over whole rows. It is done for some images at a time, those that fit the cache.
Results have their axes in memory in the order of the input's; where images do not come first, all are done at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from fnn.contract import Layer, no_params, stateless
from fnn.check import feature_shape
from fnn.layers.abreast import channel_rows, from_rows, in_order, is_abreast
from fnn.layers.window import Geometry, Padding, Sizes, Window, crop, geometry, layout, pad, window
from fnn.types import EMPTY, Array, Ints, Params, Shape, ShapeError, bind

C = TypeVar("C")

_BLOCK = 1 << 17
"""Numbers of the input that are pooled together."""


# --- one axis --------------------------------------------------------------------------------------------------------


def _tap(x: Array, g: Geometry, axis: int, k: int) -> Array:
    """What the windows read at offset k along one spatial axis: a view."""
    start, stride, n = k, g.stride[axis], g.outside[axis]
    return x[(slice(None),) * (axis + 1) + (slice(start, start + (n - 1) * stride + 1, stride),)]


def _reduce(f: Callable[..., Array], x: Array, g: Geometry, axis: int) -> Array:
    """`f(...f(x[o s], x[o s + 1])..., x[o s + size - 1])` along one axis; x itself where that changes nothing."""
    if g.size[axis] == 1:
        return _tap(x, g, axis, 0)
    y = f(_tap(x, g, axis, 0), _tap(x, g, axis, 1))
    for k in range(2, g.size[axis]):
        f(y, _tap(x, g, axis, k), out=y)
    return y


def _disjoint(x: Array, g: Geometry, axis: int) -> bool:
    """Whether the windows cover the axis without overlapping."""
    return g.size[axis] == g.stride[axis] and g.size[axis] * g.outside[axis] == x.shape[axis + 1]


def _axes(g: Geometry) -> range:
    return range(len(g.size))


def _parts(x: Array) -> Iterator[slice]:
    count = max(1, min(len(x), -(-x.size // _BLOCK))) if x.strides[0] == max(x.strides) else 1
    return (slice(len(x) * i // count, len(x) * (i + 1) // count) for i in range(count))


# --- maxima ----------------------------------------------------------------------------------------------------------

# y = max over k of x[o s + k]        dx[i] = sum of dy[o] over the windows o whose (first) maximum is at i


def max_forward(who: str, shape: Window, params: Params, x: Array) -> tuple[Array, tuple[Array, Array]]:
    """`y[o] = max over k of x[o s + k - p]`; padding is never a maximum. The cache is x and y."""
    y = max_infer(who, shape, params, x)
    return y, (x, y)


def max_infer(who: str, shape: Window, params: Params, x: Array) -> Array:
    """The y of `max_forward`, without remembering where the maxima stood."""
    g = _check(who, shape, x)
    y = np.empty_like(x, shape=(len(x), *g.outside, x.shape[-1]))
    for images in _parts(x):
        some = pad(x[images], g.pads, -math.inf)
        for axis in _axes(g):
            some = _reduce(np.maximum, some, g, axis)
        y[images] = some
    return y


def max_vjp(who: str, shape: Window, params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Params, Array]:
    """`dx[i] = sum of dy[o]` over the windows o whose maximum is at i; of equal maxima the first takes it all.

    First is meant column by column. (A window that holds a nan passes its gradient to its last place.)
    """
    x, y = cache
    g = geometry(who, shape, x.shape[1:])
    dx, dy = np.empty_like(x), in_order(dy, y)
    for images in _parts(x):
        stages = [pad(x[images], g.pads, -math.inf)]
        for axis in _axes(g)[:-1]:
            stages.append(_reduce(np.maximum, stages[-1], g, axis))
        top, given = y[images], dy[images]
        for axis in reversed(_axes(g)):
            below = stages.pop()
            into = dx[images] if below.shape[1:] == dx.shape[1:] and not stages else np.empty_like(below)
            _max_axis_vjp(below, top, given, g, axis, into)
            top, given = below, into
        if given.shape[1:] != dx.shape[1:]:
            dx[images] = crop(given, g.pads)
    return EMPTY, dx


def _max_axis_vjp(x: Array, y: Array, dy: Array, g: Geometry, axis: int, dx: Array) -> None:
    """Writes dx of the maxima y along one axis: offset by offset, what is left of dy goes where x is the maximum."""
    disjoint = _disjoint(x, g, axis)
    if not disjoint:
        dx.fill(0)
    last = g.size[axis] - 1
    end = _tap(dx, g, axis, last) if disjoint else np.empty_like(dy)
    left = dy
    for k in range(last):
        there = _tap(dx, g, axis, k)
        taken = np.multiply(left, _tap(x, g, axis, k) == y, out=there if disjoint else None)
        left = np.subtract(left, taken, out=end)
        if not disjoint:
            there += taken
    if not disjoint:
        there = _tap(dx, g, axis, last)
        there += left
    elif last == 0:
        end[...] = dy


# --- means -----------------------------------------------------------------------------------------------------------

# y = sum over k of x[o s + k] / n[o]        dx[i] = sum of dy[o] / n[o] over the windows o that hold i


def average_forward(
    who: str, shape: Window, count_padding: bool, params: Params, x: Array
) -> tuple[Array, tuple[Shape, bool]]:
    """`y[o] = sum over k of x[o s + k - p] / n[o]`; the cache is the shape of x, and whether it lies abreast."""
    return average_infer(who, shape, count_padding, params, x), (x.shape, is_abreast(x))


def average_infer(who: str, shape: Window, count_padding: bool, params: Params, x: Array) -> Array:
    """The y of `average_forward`."""
    g = _check(who, shape, x)
    y = np.empty_like(x, shape=(len(x), *g.outside, x.shape[-1]))
    share = _share(g, count_padding, x)
    for images in _parts(x):
        some = pad(x[images], g.pads)
        for axis in _axes(g):
            some = _reduce(np.add, some, g, axis)
        np.multiply(some, share, out=y[images])
    return y


def average_vjp(
    who: str, shape: Window, count_padding: bool, params: Params, cache: tuple[Shape, bool], dy: Array
) -> tuple[Params, Array]:
    """`dx[i] = sum of dy[o] / n[o]` over the windows o that hold i."""
    in_shape, together = cache
    if together:
        dy = from_rows(channel_rows(dy), dy.shape)
    g = geometry(who, shape, in_shape[1:])
    dx = np.empty_like(dy, shape=in_shape)
    share = _share(g, count_padding, dy)
    for images in _parts(dx):
        given: Array = dy[images] * share
        for axis in reversed(_axes(g)):
            given = _sum_axis_vjp(given, g, axis)
        dx[images] = crop(given, g.pads)
    return EMPTY, dx


def _sum_axis_vjp(dy: Array, g: Geometry, axis: int) -> Array:
    """dx of the sums along one axis."""
    dx = np.empty_like(dy, shape=(*dy.shape[: axis + 1], g.padded[axis], *dy.shape[axis + 2 :]))
    dx.fill(0)
    for k in range(g.size[axis]):
        there = _tap(dx, g, axis, k)
        there += dy
    return dx


def _share(g: Geometry, count_padding: bool, like: Array) -> Array:
    """`1 / n[o]`, where n counts the pixels in the window o: all, or those of the input."""
    share = np.ones((1,) * (len(g.size) + 1))
    for axis, (size, stride, n, inside, (before, _)) in enumerate(zip(g.size, g.stride, g.outside, g.inside, g.pads)):
        first = np.arange(n) * stride - before
        count = np.minimum(first + size, inside) - np.maximum(first, 0)
        inverse = 1 / (np.full(n, size) if count_padding else count)
        share = share * inverse.reshape((n,) + (1,) * (len(g.size) - axis))
    return share.astype(like.dtype)


# --- everything ------------------------------------------------------------------------------------------------------


def global_max_forward(who: str, axes: int, params: Params, x: Array) -> tuple[Array, tuple[Ints, tuple[int, ...]]]:
    """`y = max over all pixels of x`, shape (batch, channels); the cache is where it is, and the shape of x."""
    flat = _pixels(who, axes, x)
    return flat.max(1), (flat.argmax(1), x.shape)


def global_max_infer(who: str, axes: int, params: Params, x: Array) -> Array:
    """The y of `global_max_forward`."""
    y: Array = _pixels(who, axes, x).max(1)
    return y


def global_max_vjp(
    who: str, axes: int, params: Params, cache: tuple[Ints, tuple[int, ...]], dy: Array
) -> tuple[Params, Array]:
    """`dx = dy` at the first maximum (row by row), 0 elsewhere."""
    where, shape = cache
    pixels = np.arange(math.prod(shape[1:-1]))[:, None]
    return EMPTY, ((where[:, None] == pixels) * dy[:, None]).reshape(shape)


def global_average_forward(who: str, axes: int, params: Params, x: Array) -> tuple[Array, tuple[int, ...]]:
    """`y = mean over all pixels of x`, shape (batch, channels); the cache is the shape of x."""
    pixels = _pixels(who, axes, x)
    n = pixels.shape[1]
    # Row by row, and then the rows: a sum of so many numbers one after the other would lose their last digits.
    starts = np.arange(0, n, max(1, math.isqrt(n)))
    y: Array = np.add.reduceat(pixels, starts, axis=1).sum(1)
    y /= n
    return y, x.shape


def global_average_vjp(who: str, axes: int, params: Params, cache: tuple[int, ...], dy: Array) -> tuple[Params, Array]:
    """`dx = dy / pixels` everywhere."""
    pixels = math.prod(cache[1:-1])
    return EMPTY, np.repeat((dy / pixels)[:, None], pixels, axis=1).reshape(cache)


def _pixels(who: str, axes: int, x: Array) -> Array:
    """`(batch, pixels, channels)`."""
    check_image(who, axes, x)
    return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])


# --- checks ----------------------------------------------------------------------------------------------------------


def check_image(who: str, axes: int, x: Any) -> None:
    """`TypeError` unless x is an array of floating-point numbers, `ShapeError` unless it has so many spatial axes."""
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{who}: expected an array of float32 or float64, got {kind}; use x.astype(np.float32)")
    if x.ndim != axes + 2:
        raise ShapeError(f"{who}: expected input {layout(axes)}, got {x.shape}")


def _check(who: str, shape: Window, x: Array) -> Geometry:
    check_image(who, len(shape.size), x)
    return geometry(who, shape, x.shape[1:])


def _out_shape(who: str, shape: Window, in_shape: Shape) -> Shape:
    return (*geometry(who, shape, feature_shape(who, in_shape)).outside, in_shape[-1])


def _global_shape(who: str, axes: int, in_shape: Shape) -> Shape:
    if len(feature_shape(who, in_shape)) != axes + 1:
        raise ShapeError(f"{who}: expected an input shape {layout(axes, batch=False)}, got {in_shape}")
    return in_shape[-1:]


# --- constructors ----------------------------------------------------------------------------------------------------


def MaxPool1D(size: Sizes, stride: Sizes | None = None, padding: Padding = "valid") -> Layer[Array, Array]:
    """The largest of every `size` steps: `(batch, time, channels)` to `(batch, time', channels)`; as `MaxPool2D`."""
    return _max(MaxPool1D, 1, size, stride, padding)


def MaxPool2D(size: Sizes, stride: Sizes | None = None, padding: Padding = "valid") -> Layer[Array, Array]:
    """The largest number of every window, channel by channel: `(batch, height, width, channels)`, the space reduced.

    `stride` is the size unless given. Padding (as in `Conv2D`) is never the maximum. The gradient goes to one place: of
    equal maxima that in the first column, and there the first (PyTorch: in the first row, and there the first).
    """
    return _max(MaxPool2D, 2, size, stride, padding)


def AvgPool1D(
    size: Sizes, stride: Sizes | None = None, padding: Padding = "valid", count_padding: bool = False
) -> Layer[Array, Array]:
    """The mean of every `size` steps: `(batch, time, channels)` to `(batch, time', channels)`; as `AvgPool2D`."""
    return _average(AvgPool1D, 1, size, stride, padding, count_padding)


def AvgPool2D(
    size: Sizes, stride: Sizes | None = None, padding: Padding = "valid", count_padding: bool = False
) -> Layer[Array, Array]:
    """The mean of every window, channel by channel: `(batch, height, width, channels)`, the space reduced.

    `stride` is the size unless given. The mean is over the pixels of the input; with `count_padding`, over all of the
    window, in which padding counts as zeros.
    """
    return _average(AvgPool2D, 2, size, stride, padding, count_padding)


def _window(kind: str, axes: int, size: Sizes, stride: Sizes | None, padding: Padding) -> Window:
    shape = window(kind, "size", axes, size, size if stride is None else stride, padding)
    if isinstance(shape.padding, tuple) and any(max(pair) >= n for pair, n in zip(shape.padding, shape.size)):
        raise ValueError(f"{kind}: expected padding smaller than the window {shape.size}, got {padding!r}")
    return shape


def _max(
    build: Callable[..., Layer[Array, Array]], axes: int, size: Sizes, stride: Sizes | None, padding: Padding
) -> Layer[Array, Array]:
    kind = build.__name__
    who, shape = f"{kind}({size})", _window(kind, axes, size, stride, padding)
    return stateless(
        kind,
        no_params,
        bind(max_forward, who, shape),
        bind(max_vjp, who, shape),
        out_shape=bind(_out_shape, who, shape),
        infer=bind(max_infer, who, shape),
        config={"size": size, "stride": stride, "padding": padding},
        build=build,
    )


def _average(
    build: Callable[..., Layer[Array, Array]],
    axes: int,
    size: Sizes,
    stride: Sizes | None,
    padding: Padding,
    count_padding: bool,
) -> Layer[Array, Array]:
    kind = build.__name__
    who, shape = f"{kind}({size})", _window(kind, axes, size, stride, padding)
    if not isinstance(count_padding, bool):
        raise ValueError(f"{kind}: expected count_padding to be True or False, got {count_padding!r}")
    return stateless(
        kind,
        no_params,
        bind(average_forward, who, shape, count_padding),
        bind(average_vjp, who, shape, count_padding),
        out_shape=bind(_out_shape, who, shape),
        infer=bind(average_infer, who, shape, count_padding),
        config={"size": size, "stride": stride, "padding": padding, "count_padding": count_padding},
        build=build,
    )


def _global(
    kind: str,
    axes: int,
    forward: Callable[[str, int, Params, Array], tuple[Array, C]],
    vjp: Callable[[str, int, Params, C, Array], tuple[Params, Array]],
    infer: Callable[[str, int, Params, Array], Array] | None = None,
) -> Layer[Array, Array]:
    return stateless(
        kind,
        no_params,
        bind(forward, kind, axes),
        bind(vjp, kind, axes),
        out_shape=bind(_global_shape, kind, axes),
        infer=None if infer is None else bind(infer, kind, axes),
    )


GlobalMaxPool1D = _global("GlobalMaxPool1D", 1, global_max_forward, global_max_vjp, global_max_infer)
GlobalMaxPool2D = _global("GlobalMaxPool2D", 2, global_max_forward, global_max_vjp, global_max_infer)
GlobalAvgPool1D = _global("GlobalAvgPool1D", 1, global_average_forward, global_average_vjp)
GlobalAvgPool2D = _global("GlobalAvgPool2D", 2, global_average_forward, global_average_vjp)
