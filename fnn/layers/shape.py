"""Layers that move numbers and change none: identity, flatten, reshape, transpose. Results may be views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnn.contract import Layer, no_params, stateless
from fnn.types import EMPTY, Array, Params, Shape, ShapeError, bind

# --- identity: y = x,   dx = dy --------------------------------------------------------------------------------------


def identity_forward(params: Params, x: Array) -> tuple[Array, None]:
    """`y = x`, the same object."""
    return x, None


def identity_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """`dx = dy`."""
    return EMPTY, dy


Identity: Layer[Any, Any] = stateless("Identity", no_params, identity_forward, identity_vjp)
"""`y = x`, whatever x is: integers and tuples, too."""


# --- reshape: the numbers of an example in another shape, in the same order ------------------------------------------


def reshape_forward(shape: Shape, params: Params, x: Array) -> tuple[Array, Shape]:
    """`y = x` as `(batch, *shape)`; the cache is the shape of x."""
    _check_array(_reshape_name(shape), x)
    return x.reshape(x.shape[0], *solve(shape, x.shape[1:], x.shape)), x.shape


def reshape_vjp(shape: Shape, params: Params, x_shape: Shape, dy: Array) -> tuple[Params, Array]:
    """`dx = dy` in the shape of x."""
    return EMPTY, dy.reshape(x_shape)


def solve(shape: Shape, in_shape: Shape, got: Shape) -> Shape:
    """The shape with its -1, if it has one, replaced by what makes it as large as `in_shape`."""
    size, known = math.prod(in_shape), math.prod(n for n in shape if n != -1)
    if size != known if -1 not in shape else size % known:
        what = f"{'a multiple of ' if -1 in shape else ''}{known}"
        raise ShapeError(f"{_reshape_name(shape)}: expected examples of {what} numbers, got {got}")
    return tuple(size // known if n == -1 else n for n in shape)


def Reshape(shape: Shape) -> Layer[Array, Array]:
    """Every example in another shape, its numbers in the same order: `(batch, *shape)`.

    One size may be -1: it becomes what is left. Raises `ShapeError` where the numbers do not fit.
    """
    sizes = isinstance(shape, tuple) and all(isinstance(n, (int, np.integer)) and (n > 0 or n == -1) for n in shape)
    if not sizes or shape.count(-1) > 1:
        raise ValueError(f"Reshape: expected a tuple of positive integers, at most one of them -1, got {shape!r}")
    return _reshaping("Reshape", shape, config={"shape": shape}, build=Reshape)


def _reshaping(kind: str, shape: Shape, **about: Any) -> Layer[Array, Array]:
    return stateless(
        kind,
        no_params,
        bind(reshape_forward, shape),
        bind(reshape_vjp, shape),
        out_shape=bind(_reshape_out_shape, shape),
        **about,
    )


def _reshape_out_shape(shape: Shape, in_shape: Any) -> Shape:
    if not _one_shape(in_shape):
        raise ShapeError(f"{_reshape_name(shape)}: expected the shape of one array, got {in_shape!r}")
    return solve(shape, in_shape, in_shape)


def _reshape_name(shape: Shape) -> str:
    return "Flatten" if shape == (-1,) else f"Reshape({shape})"


def _check_array(who: str, x: Any) -> None:
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{who}: expected an array, got {type(x).__name__}; use np.asarray(x, np.float32)")


def _one_shape(in_shape: Any) -> bool:
    return isinstance(in_shape, tuple) and all(isinstance(n, (int, np.integer)) for n in in_shape)


Flatten = _reshaping("Flatten", (-1,))


# --- transpose: the axes of an example in another order --------------------------------------------------------------


def transpose_forward(axes: tuple[int, ...], params: Params, x: Array) -> tuple[Array, None]:
    """`y[b, i, j, ...] = x[b, ...]`, where axis n of an example of y is axis `axes[n]` of x."""
    _check_array(f"Transpose({axes})", x)
    if x.ndim != len(axes) + 1:
        raise ShapeError(f"Transpose({axes}): expected input with {len(axes)} axes after the batch, got {x.shape}")
    return x.transpose(0, *(n + 1 for n in axes)), None


def transpose_vjp(axes: tuple[int, ...], params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """`dx` is dy with its axes back in their places."""
    return EMPTY, dy.transpose(0, *(axes.index(n) + 1 for n in range(len(axes))))


def Transpose(axes: tuple[int, ...]) -> Layer[Array, Array]:
    """The axes of every example in another order, counted from 0 without the batch: `Transpose((1, 0))` swaps two."""
    if not isinstance(axes, tuple) or not all(isinstance(n, int) for n in axes) or {*axes} != {*range(len(axes))}:
        raise ValueError(f"Transpose: expected an order of the axes 0, 1, ... such as (1, 0), got {axes!r}")
    return stateless(
        "Transpose",
        no_params,
        bind(transpose_forward, axes),
        bind(transpose_vjp, axes),
        out_shape=bind(_transpose_out_shape, axes),
        config={"axes": axes},
        build=Transpose,
    )


def _transpose_out_shape(axes: tuple[int, ...], in_shape: Any) -> Shape:
    if not _one_shape(in_shape) or len(in_shape) != len(axes):
        raise ShapeError(f"Transpose({axes}): expected an input shape of {len(axes)} axes, got {in_shape!r}")
    return tuple(in_shape[n] for n in axes)
