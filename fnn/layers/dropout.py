"""Noise that regularises: layers that draw from the key of a training pass, and are the identity in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.contract import Layer, Mode, in_training, layer, no_params, same_shape
from fnn.layers.activation import OBJECT, float_error
from fnn.check import feature_shape, fraction, not_negative
from fnn.random import Key
from fnn.types import EMPTY, Array, NDArray, Params, Shape, ShapeError, State, bind

Mask = NDArray[np.bool_]

# --- dropout: y = x mask / keep,   dx = dy mask / keep ---------------------------------------------------------------
#
# The mask compares 16 random bits with a threshold, so the chance to keep is a multiple of 1 / LEVELS. The kept are
# divided by that multiple, not by the rate asked for: the mean of y is exactly x.

LEVELS = 2**16


def draw_mask(key: Key, kept: int, shape: Shape) -> Mask:
    """Independent booleans, each true with the chance `kept / LEVELS`."""
    count = math.prod(shape)
    bits: NDArray[np.uint64] = key.generator().bit_generator.random_raw(-(-count // 4))
    mask: Mask = bits.view(np.uint16)[:count] < kept
    return mask.reshape(shape)


def masked(kept: int, mask: Mask, x: Array) -> Array:
    """`x mask / keep` with keep = kept / LEVELS; the mask is broadcast."""
    factor = mask.astype(x.dtype)
    factor *= LEVELS / kept
    return np.multiply(x, factor, out=factor if factor.shape == x.shape else None)


def dropout_forward(
    kind: str, kept: int, mask_shape: Callable[[Shape], Shape], params: Params, state: State, x: Array, mode: Mode
) -> tuple[Array, State, Mask | None]:
    """`y = x mask / keep` in training; x in evaluation, and where nothing is dropped. The cache is the mask."""
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error(kind, x)
    shape = mask_shape(x.shape)
    if not in_training(mode) or kept == LEVELS:
        return x, state, None
    mask = draw_mask(mode.key, kept, shape)
    return masked(kept, mask, x), state, mask


def dropout_vjp(kept: int, params: Params, mask: Mask | None, dy: Array) -> tuple[Params, Array]:
    """`dx = dy mask / keep`."""
    return EMPTY, dy if mask is None else masked(kept, mask, dy)


def Dropout(rate: float) -> Layer[Array, Array]:
    """Sets every number to 0 with the chance `rate` in training and divides the others by `1 - rate`.

    0 <= rate < 1, rounded to a multiple of 2**-16 below 1. Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov,
    "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014).
    """
    return _dropping("Dropout", rate, _every_number, same_shape, Dropout)


def SpatialDropout(rate: float) -> Layer[Array, Array]:
    """Drops whole channels of an example, `(batch, ..., channels)`, as `Dropout` drops numbers.

    Tompson, Goroshin, Jain, LeCun and Bregler, "Efficient object localization using convolutional networks", CVPR 2015.
    """
    return _dropping("SpatialDropout", rate, _every_channel, bind(feature_shape, "SpatialDropout"), SpatialDropout)


def StochasticDepth(rate: float) -> Layer[Array, Array]:
    """Drops whole examples, as `Dropout` drops numbers: at the end of a residual branch it switches the branch off.

    Huang, Sun, Liu, Sedra and Weinberger, "Deep networks with stochastic depth", ECCV 2016.
    """
    return _dropping("StochasticDepth", rate, _every_example, same_shape, StochasticDepth)


def _every_number(shape: Shape) -> Shape:
    return shape


def _every_channel(shape: Shape) -> Shape:
    if len(shape) < 2:
        raise ShapeError(f"SpatialDropout: expected input (batch, ..., channels), got {shape}")
    return (shape[0], *(1,) * (len(shape) - 2), shape[-1])


def _every_example(shape: Shape) -> Shape:
    return (shape[0], *(1,) * (len(shape) - 1))


def _dropping(
    kind: str,
    rate: float,
    mask_shape: Callable[[Shape], Shape],
    out_shape: Callable[[Any], Any],
    build: Callable[[float], Layer[Array, Array]],
) -> Layer[Array, Array]:
    rate = fraction(kind, "rate", rate)
    kept = max(1, round(LEVELS * (1 - rate)))
    return layer(
        kind,
        no_params,
        bind(dropout_forward, kind, kept, mask_shape),
        bind(dropout_vjp, kept),
        out_shape=out_shape,
        config={"rate": rate},
        draws=kept < LEVELS,
        build=build,
    )


# --- gaussian noise: y = x + std n,   dx = dy ------------------------------------------------------------------------


def noise_forward(std: float, params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, None]:
    """`y = x + std n` in training with standard normal n, x in evaluation."""
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error("GaussianNoise", x)
    if not in_training(mode) or std == 0:
        return x, state, None
    generator = mode.key.generator()
    y: Array = generator.standard_normal(x.shape, np.float32 if x.dtype.itemsize <= 4 else np.float64)
    y *= std
    y += x
    return y, state, None


def noise_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """`dx = dy`."""
    return EMPTY, dy


def GaussianNoise(std: float) -> Layer[Array, Array]:
    """Adds independent normal numbers of mean 0 and standard deviation `std` in training."""
    std = not_negative("GaussianNoise", "std", std)
    return layer(
        "GaussianNoise",
        no_params,
        bind(noise_forward, float(std)),
        noise_vjp,
        config={"std": float(std)},
        draws=std > 0,
        build=GaussianNoise,
    )
