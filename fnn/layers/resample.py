"""Images of other sizes: means of as many parts as are asked for, enlargement, a frame of zeros.

Means and interpolation are linear and the axes are independent: `y = A x B'` for every channel, with a small matrix for
each axis, and `dx = A' dy B`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np

from fnn.contract import Layer, no_params, stateless
from fnn.check import feature_shape
from fnn.layers.pool import check_image
from fnn.layers.window import Pairs, Sizes, crop, layout, pad, pairs, sizes
from fnn.types import EMPTY, Array, Params, Shape, ShapeError, bind

Matrix: TypeAlias = Callable[[int, int], Array]
"""`(size, how it changes) -> matrix (new size, size)` in float64."""


# --- y = A x B',   dx = A' dy B --------------------------------------------------------------------------------------


def linear_forward(who: str, matrix: Matrix, change: Shape, params: Params, x: Array) -> tuple[Array, tuple[int, ...]]:
    """`y = A x B'` for every image and channel; the cache is the shape of x."""
    check_image(who, 2, x)
    a, b = _matrices(matrix, change, x.shape, x.dtype)
    return _apply(a, b, x), x.shape


def linear_vjp(
    who: str, matrix: Matrix, change: Shape, params: Params, cache: tuple[int, ...], dy: Array
) -> tuple[Params, Array]:
    """`dx = A' dy B`."""
    a, b = _matrices(matrix, change, cache, dy.dtype)
    return EMPTY, _apply(a.T, b.T, dy)


def _apply(a: Array, b: Array, x: Array) -> Array:
    n, height, width, channels = x.shape
    tall = np.matmul(a, x.reshape(n, height, width * channels)).reshape(n, len(a), width, channels)
    y: Array = np.matmul(b, tall)
    return y


def _matrices(matrix: Matrix, change: Shape, shape: Shape, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    return matrix(shape[1], change[0]).astype(dtype), matrix(shape[2], change[1]).astype(dtype)


@lru_cache(maxsize=64)
def adaptive_mean(n: int, parts: int) -> Array:
    """Means of parts: part i is from `floor(i n / parts)` to `ceil((i + 1) n / parts)`, so that some may overlap."""
    i, pixels = np.arange(parts)[:, None], np.arange(n)
    inside = (pixels >= i * n // parts) & (pixels < -(-(i + 1) * n // parts))
    means: Array = inside / inside.sum(1, keepdims=True)
    return means


@lru_cache(maxsize=64)
def bilinear(n: int, factor: int) -> Array:
    """Interpolation between the centres of pixels: the new one i lies at `(i + 1/2) / factor - 1/2`, kept inside."""
    place = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)[:, None]
    weights: Array = np.maximum(0, 1 - np.abs(place - np.arange(n)))
    return weights


# --- every pixel repeated --------------------------------------------------------------------------------------------


def nearest_forward(who: str, factor: Shape, params: Params, x: Array) -> tuple[Array, tuple[int, ...]]:
    """`y[i f + j] = x[i]` for j < f, along both axes; the cache is the shape of x."""
    check_image(who, 2, x)
    n, height, width, channels = x.shape
    y = np.empty((n, height, factor[0], width, factor[1], channels), x.dtype)
    y[...] = x[:, :, None, :, None]
    return y.reshape(n, height * factor[0], width * factor[1], channels), x.shape


def nearest_vjp(who: str, factor: Shape, params: Params, cache: tuple[int, ...], dy: Array) -> tuple[Params, Array]:
    """`dx[i] = sum over j < f of dy[i f + j]`, along both axes."""
    n, height, width, channels = cache
    parts = dy.reshape(n, height, factor[0], width, factor[1], channels)
    rows = parts[:, :, 0].copy()
    for i in range(1, factor[0]):
        rows += parts[:, :, i]
    dx = rows[:, :, :, 0].copy()
    for j in range(1, factor[1]):
        dx += rows[:, :, :, j]
    return EMPTY, dx


# --- a frame of zeros ------------------------------------------------------------------------------------------------


def pad_forward(who: str, pads: Pairs, params: Params, x: Array) -> tuple[Array, tuple[()]]:
    """x with zeros around it."""
    check_image(who, 2, x)
    return pad(x, pads), ()


def pad_vjp(who: str, pads: Pairs, params: Params, cache: tuple[()], dy: Array) -> tuple[Params, Array]:
    """dy without what stands around."""
    return EMPTY, crop(dy, pads)


# --- constructors ----------------------------------------------------------------------------------------------------


def AdaptiveAvgPool2D(out: Sizes) -> Layer[Array, Array]:
    """Means of `out` parts of height and width, whatever they are: `(batch, height, width, channels)` to (out, out).

    Part i reaches from `floor(i n / out)` to `ceil((i + 1) n / out)`.
    """
    shape = sizes("AdaptiveAvgPool2D", "out", 2, out)
    who = f"AdaptiveAvgPool2D({out})"
    return stateless(
        "AdaptiveAvgPool2D",
        no_params,
        bind(linear_forward, who, adaptive_mean, shape),
        bind(linear_vjp, who, adaptive_mean, shape),
        out_shape=bind(_fixed_shape, who, shape),
        config={"out": out},
        build=AdaptiveAvgPool2D,
    )


def Upsample2D(factor: Sizes, method: Literal["nearest", "bilinear"] = "nearest") -> Layer[Array, Array]:
    """Images enlarged by a factor: `(batch, height, width, channels)` to `(batch, height f, width f, channels)`.

    `"nearest"` repeats every pixel, `"bilinear"` interpolates between the centres of pixels (constant at the border).
    """
    factors = sizes("Upsample2D", "factor", 2, factor)
    if method not in ("nearest", "bilinear"):
        raise ValueError(f"Upsample2D: expected method 'nearest' or 'bilinear', got {method!r}")
    who = f"Upsample2D({factor})"
    near = method == "nearest"
    return stateless(
        "Upsample2D",
        no_params,
        bind(nearest_forward, who, factors) if near else bind(linear_forward, who, bilinear, factors),
        bind(nearest_vjp, who, factors) if near else bind(linear_vjp, who, bilinear, factors),
        out_shape=bind(_larger_shape, who, factors),
        config={"factor": factor, "method": method},
        build=Upsample2D,
    )


def ZeroPad2D(padding: int | Pairs) -> Layer[Array, Array]:
    """Zeros around images: so many on every side, or `((top, bottom), (left, right))`."""
    pads = pairs("ZeroPad2D", 2, padding)
    who = f"ZeroPad2D({padding})"
    return stateless(
        "ZeroPad2D",
        no_params,
        bind(pad_forward, who, pads),
        bind(pad_vjp, who, pads),
        out_shape=bind(_padded_shape, who, pads),
        config={"padding": padding},
        build=ZeroPad2D,
    )


def _image(who: str, in_shape: Shape) -> Shape:
    if len(feature_shape(who, in_shape)) != 3:
        raise ShapeError(f"{who}: expected an input shape {layout(2, batch=False)}, got {in_shape}")
    return in_shape


def _fixed_shape(who: str, shape: Shape, in_shape: Shape) -> Shape:
    return (*shape, _image(who, in_shape)[2])


def _larger_shape(who: str, factor: Shape, in_shape: Shape) -> Shape:
    height, width, channels = _image(who, in_shape)
    return (height * factor[0], width * factor[1], channels)


def _padded_shape(who: str, pads: Pairs, in_shape: Shape) -> Shape:
    height, width, channels = _image(who, in_shape)
    return (height + sum(pads[0]), width + sum(pads[1]), channels)
