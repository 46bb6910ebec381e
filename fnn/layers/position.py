"""Positions: what tells a layer that looks at all times at once (attention) where each of them stands."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fnn.contract import Layer, no_params, stateless
from fnn.initializers import Initializer, normal
from fnn.check import above_zero, feature_shape, input_error, positive
from fnn.random import Key
from fnn.types import EMPTY, Array, Ints, NDArray, Params, Shape, ShapeError, bind, ones

# --- learned positions: y = x + W[:time]        dW[:time] = sum of dy over the batch        dx = dy -------------------


def learned_position_forward(params: Params, x: Array) -> tuple[Array, None]:
    """`y = x + W[:time]` for x (batch, time, features) and W (length, features)."""
    weight = params["weight"]
    length, features = weight.shape
    if getattr(x, "ndim", 0) != 3 or x.shape[1] > length or x.shape[2] != features or x.dtype != weight.dtype:
        raise input_error(f"LearnedPosition({length})", f"(batch, time up to {length}, {features})", x, weight)
    return x + weight[: x.shape[1]], None


def learned_position_param_vjp(params: Params, cache: None, dy: Array) -> Params:
    """`dW[:time] = sum of dy over the batch`, 0 behind."""
    batch, time, features = dy.shape
    weight = np.zeros(params["weight"].shape, dy.dtype)
    np.dot(ones(batch, dy.dtype), dy.reshape(batch, -1), out=weight[:time].reshape(-1))
    return {"weight": weight}


def learned_position_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """As `learned_position_param_vjp`, and `dx = dy`."""
    return learned_position_param_vjp(params, cache, dy), dy


def LearnedPosition(length: int, *, weight_init: Initializer = normal(0.02)) -> Layer[Array, Array]:
    """Adds a learned vector to every time step of `(batch, time, features)`, where time is at most `length`.

    Parameters: `weight` (length, features). Gehring et al. 2017, section 3.1; initial values of Devlin et al. 2019.
    """
    positive("LearnedPosition", "length", length)
    return stateless(
        "LearnedPosition",
        bind(_init_learned, length, weight_init),
        learned_position_forward,
        learned_position_vjp,
        out_shape=bind(_learned_out_shape, length),
        param_vjp=learned_position_param_vjp,
        config={"length": length, "weight_init": weight_init},
        build=LearnedPosition,
    )


def _init_learned(length: int, weight_init: Initializer, key: Key, in_shape: Shape) -> Params:
    return {"weight": weight_init(key.fold_in("weight"), (length, _learned_out_shape(length, in_shape)[1]))}


def _learned_out_shape(length: int, in_shape: Any) -> Shape:
    who = f"LearnedPosition({length})"
    if len(feature_shape(who, in_shape)) != 2 or in_shape[0] > length:
        raise ShapeError(f"{who}: expected an input shape (time up to {length}, features), got {in_shape}")
    return (in_shape[0], in_shape[1])


# --- sinusoidal positions: y = x + P        dx = dy ------------------------------------------------------------------
#
# P[t, 2 i] = sin(t w_i)        P[t, 2 i + 1] = cos(t w_i)        w_i = base**(-2 i / features)


def sinusoidal_position_forward(params: Params, x: Array) -> tuple[Array, None]:
    """`y = x + P` for x (batch, time, features)."""
    _check_sequence("SinusoidalPosition", x)
    return x + sinusoids(x.shape[1], x.shape[2], x.dtype), None


def sinusoidal_position_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """`dx = dy`."""
    return EMPTY, dy


@lru_cache(maxsize=32)
def sinusoids(time: int, features: int, dtype: np.dtype[Any]) -> Array:
    """The encodings P (time, features) of the first positions: read-only, kept between calls."""
    angles = _angles(np.arange(time), features, 10000.0)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(time, features).astype(dtype)
    table.setflags(write=False)
    return table


def _angles(positions: Ints, features: int, base: float) -> NDArray[np.float64]:
    """`t base**(-2 i / features)` for every position t and every i below features / 2, in float64."""
    angles: NDArray[np.float64] = np.multiply.outer(positions, base ** (np.arange(0, features, 2) / -features))
    return angles


# --- rotary positions: every pair of neighbouring features turns by an angle that grows with the position ------------
#
# As one complex number, z = x[2 i] + 1j x[2 i + 1]:   y = z exp(1j t w_i)        dx = dy exp(-1j t w_i)


def rotate(x: Array, positions: Ints | None = None, base: float = 10000.0) -> Array:
    """Turns the pairs of features of `(..., time, features)` by `position * base**(-2 i / features)`.

    `positions` are integers that broadcast against `x.shape[:-1]`; without them time runs from 0. The product of a
    rotated query and a rotated key depends on their features and on the distance of their positions only.
    Raises `ShapeError` for an odd number of features. Su et al. 2021, equations 15 and 34.
    """
    return _turn(x, positions, base, 1.0)


def rotate_vjp(dy: Array, positions: Ints | None = None, base: float = 10000.0) -> Array:
    """The derivative of `rotate` with respect to x (and its inverse): the same angles, turned back."""
    return _turn(dy, positions, base, -1.0)


def _turn(x: Array, positions: Ints | None, base: float, sign: float) -> Array:
    if getattr(x, "ndim", 0) < 2 or x.shape[-1] % 2 or x.dtype.kind != "f":
        raise _sequence_error("rotate", "(..., time, an even number of features)", x)
    if not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))  # below, the bytes of pairs are seen as complex numbers
    time, features = x.shape[-2:]
    if positions is None:
        phases = _first_phases(time, features, base, sign, x.dtype)
    else:
        phases = _phases(positions, features, base, sign, x.dtype)
    pairs = x if x.strides[-1] == x.itemsize else x.copy("C")
    y = np.empty(x.shape, x.dtype)
    np.multiply(pairs.view(phases.dtype), phases, out=y.view(phases.dtype))
    return y


def _phases(positions: Ints, features: int, base: float, sign: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`exp(1j sign t w_i)`, computed in double precision: angles may be large."""
    phases: NDArray[Any] = np.exp(1j * sign * _angles(positions, features, base))
    return phases.astype(np.result_type(dtype, np.complex64))


@lru_cache(maxsize=32)
def _first_phases(time: int, features: int, base: float, sign: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    return _phases(np.arange(time), features, base, sign, dtype)


def rotary_forward(base: float, params: Params, x: Array) -> tuple[Array, None]:
    """`rotate` for x (batch, time, features)."""
    _check_sequence("Rotary", x)
    return rotate(x, None, base), None


def rotary_vjp(base: float, params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """`rotate_vjp`."""
    return EMPTY, rotate_vjp(dy, None, base)


def Rotary(*, base: float = 10000.0) -> Layer[Array, Array]:
    """Rotary position encoding of `(batch, time, features)`; the number of features must be even. See `rotate`."""
    base = above_zero("Rotary", "base", base)
    return stateless(
        "Rotary",
        no_params,
        bind(rotary_forward, base),
        bind(rotary_vjp, base),
        out_shape=bind(_sequence_out_shape, "Rotary"),
        config={"base": base},
        build=Rotary,
    )


# --- what these share ------------------------------------------------------------------------------------------------


def _check_sequence(who: str, x: Any) -> None:
    """Raises unless x is a floating-point array (batch, time, features) of an even number of features."""
    if getattr(x, "ndim", 0) != 3 or x.shape[2] % 2 or x.dtype.kind != "f":
        raise _sequence_error(who, "(batch, time, an even number of features)", x)


def _sequence_error(who: str, expected: str, x: Any) -> Exception:
    if isinstance(x, np.ndarray) and x.dtype.kind != "f":
        return TypeError(f"{who}: expected floating-point input, got {x.dtype}; use x.astype(np.float32)")
    return input_error(who, expected, x, x)


def _sequence_out_shape(who: str, in_shape: Any) -> Shape:
    if len(feature_shape(who, in_shape)) != 2 or in_shape[1] % 2:
        raise ShapeError(f"{who}: expected an input shape (time, an even number of features), got {in_shape}")
    return (in_shape[0], in_shape[1])


SinusoidalPosition = stateless(
    "SinusoidalPosition",
    no_params,
    sinusoidal_position_forward,
    sinusoidal_position_vjp,
    out_shape=bind(_sequence_out_shape, "SinusoidalPosition"),
)
"""Adds sines and cosines of the position to `(batch, time, features)`, the features even in number.

`P[t, 2 i] = sin(t / 10000**(2 i / features))`, `P[t, 2 i + 1]` its cosine. Vaswani et al. 2017, section 3.5.
"""
