"""How parameters start: functions `(key, shape) -> float32 array`. Reached as `fnn.initializers.he_normal()`.

The fans of a weight of shape `(*kernel, in, out)` are `in * prod(kernel)` and `out * prod(kernel)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from fnn.check import above_zero, number
from fnn.random import Key
from fnn.types import Array, Shape, bind

Initializer: TypeAlias = Callable[[Key, Shape], Array]
Fan: TypeAlias = Literal["fan_in", "fan_out", "fan_avg"]
Distribution: TypeAlias = Literal["normal", "truncated_normal", "uniform"]


def zeros(key: Key, shape: Shape) -> Array:
    """All 0."""
    return np.zeros(shape, np.float32)


def ones(key: Key, shape: Shape) -> Array:
    """All 1."""
    return np.ones(shape, np.float32)


def constant(value: float) -> Initializer:
    """All `value`."""
    return bind(_constant, number("constant", "value", value))


def _constant(value: float, key: Key, shape: Shape) -> Array:
    return np.full(shape, value, np.float32)


def normal(std: float = 0.01) -> Initializer:
    """Independent draws of mean 0 and standard deviation `std`."""
    return bind(_normal, above_zero("normal", "std", std))


def _normal(std: float, key: Key, shape: Shape) -> Array:
    return key.generator().standard_normal(shape, np.float32) * np.float32(std)


def uniform(limit: float = 0.01) -> Initializer:
    """Independent draws from the interval `[-limit, limit)`."""
    return bind(_uniform, above_zero("uniform", "limit", limit))


def _uniform(limit: float, key: Key, shape: Shape) -> Array:
    return (key.generator().random(shape, np.float32) * 2 - 1) * np.float32(limit)


def truncated_normal(std: float = 0.01) -> Initializer:
    """A normal distribution cut at two of its standard deviations and scaled, so that `std` is what the draws have."""
    return bind(_truncated_normal, above_zero("truncated_normal", "std", std))


# The standard deviation of a standard normal variable known to lie in [-2, 2]: sqrt(1 - 4 phi(2) / erf(sqrt 2)).
_TRUNCATED_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def _truncated_normal(std: float, key: Key, shape: Shape) -> Array:
    generator = key.generator()
    draws = generator.standard_normal(shape)
    while (outside := np.abs(draws) > 2).any():
        draws[outside] = generator.standard_normal(int(outside.sum()))
    return (draws * (std / _TRUNCATED_STD)).astype(np.float32)


def variance_scaling(scale: float, fan: Fan, distribution: Distribution) -> Initializer:
    """Draws of mean 0 and variance `scale / fan`; keeps the variance of activations from layer to layer."""
    if fan not in ("fan_in", "fan_out", "fan_avg"):
        raise ValueError(f"variance_scaling: expected fan 'fan_in', 'fan_out' or 'fan_avg', got {fan!r}")
    if distribution not in ("normal", "truncated_normal", "uniform"):
        raise ValueError(
            f"variance_scaling: expected distribution 'normal', 'truncated_normal' or 'uniform', got {distribution!r}"
        )
    return bind(_variance_scaling, above_zero("variance_scaling", "scale", scale), fan, distribution)


def _variance_scaling(scale: float, fan: Fan, distribution: Distribution, key: Key, shape: Shape) -> Array:
    if len(shape) < 2:
        raise ValueError(f"variance_scaling: expected a weight of shape (..., in, out), got shape {shape}")
    kernel = math.prod(shape[:-2])
    fan_in, fan_out = shape[-2] * kernel, shape[-1] * kernel
    size = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[fan]
    std = math.sqrt(scale / max(1, size))
    if distribution == "uniform":
        return _uniform(math.sqrt(3) * std, key, shape)
    return (_normal if distribution == "normal" else _truncated_normal)(std, key, shape)


def glorot_uniform() -> Initializer:
    """Uniform, variance `2 / (fan_in + fan_out)`. Glorot & Bengio 2010, eq. 16."""
    return variance_scaling(1.0, "fan_avg", "uniform")


def glorot_normal() -> Initializer:
    """Normal, variance `2 / (fan_in + fan_out)`. Glorot & Bengio 2010, eq. 12."""
    return variance_scaling(1.0, "fan_avg", "normal")


def he_uniform() -> Initializer:
    """Uniform, variance `2 / fan_in`, for layers followed by a rectifier. He et al. 2015, eq. 10."""
    return variance_scaling(2.0, "fan_in", "uniform")


def he_normal() -> Initializer:
    """Normal, variance `2 / fan_in`, for layers followed by a rectifier. He et al. 2015, eq. 10."""
    return variance_scaling(2.0, "fan_in", "normal")


def lecun_uniform() -> Initializer:
    """Uniform, variance `1 / fan_in`. LeCun et al. 1998, eq. 16."""
    return variance_scaling(1.0, "fan_in", "uniform")


def lecun_normal() -> Initializer:
    """Normal, variance `1 / fan_in`; what Selu assumes. LeCun et al. 1998, eq. 16."""
    return variance_scaling(1.0, "fan_in", "normal")


def orthogonal(gain: float = 1.0) -> Initializer:
    """A random orthogonal matrix times `gain`: `W.T W` (or `W W.T`, if wider) is `gain**2` times the identity.

    The weight is taken as a matrix `(in * prod(kernel), out)`. Saxe et al. 2014; uniform over the orthogonal group
    (Mezzadri 2007: the signs of the diagonal of R are divided out).
    """
    return bind(_orthogonal, above_zero("orthogonal", "gain", gain))


def _orthogonal(gain: float, key: Key, shape: Shape) -> Array:
    if len(shape) < 2:
        raise ValueError(f"orthogonal: expected a weight of shape (..., in, out), got shape {shape}")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(key.generator().standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(np.float32)
