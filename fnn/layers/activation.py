"""Elementwise activations, one row each in the table at the end: a function `f(x) -> (y, cache)` and its vjp
`(cache, dy) -> dx`. They keep the answer y where the derivative is cheapest from it, and x otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fnn.contract import Layer, no_params, stateless
from fnn.types import EMPTY, Array, Params, bind

C = TypeVar("C")


def activation(
    kind: str,
    forward: Callable[[Array], tuple[Array, C]],
    vjp: Callable[[C, Array], Array],
    *,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Layer[Array, Array]:
    """A layer without parameters from `forward(x) -> (y, cache)` and `vjp(cache, dy) -> dx`."""
    return stateless(
        kind, no_params, bind(_activation_forward, forward), bind(_activation_vjp, vjp), config=config, build=build
    )


def _activation_forward(f: Callable[[Array], tuple[Array, C]], params: Params, x: Array) -> tuple[Array, C]:
    return f(x)


def _activation_vjp(f: Callable[[C, Array], Array], params: Params, cache: C, dy: Array) -> tuple[Params, Array]:
    return EMPTY, f(cache, dy)


# --- sigmoid: y = 1 / (1 + exp(-x)) = e / (1 + e) with e = exp(x),   y' = y (1 - y) ----------------------------------


def sigmoid(x: Array) -> tuple[Array, Array]:
    """`1 / (1 + exp(-x))`, as e / (1 + e): exact limits, no overflow, and full relative accuracy in the lower tail.

    Above 40 the result is 1 to the last bit of float64, so e need not grow further.
    """
    e = np.minimum(x, 40)
    np.exp(e, out=e)
    return np.divide(e, one_plus := e + 1, out=one_plus), one_plus


def sigmoid_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy y (1 - y)`."""
    dx = 1 - y
    dx *= y
    dx *= dy
    return dx


# --- tanh: y' = 1 - y**2 ---------------------------------------------------------------------------------------------


def tanh(x: Array) -> tuple[Array, Array]:
    """`tanh(x)`."""
    y = np.tanh(x)
    return y, y


def tanh_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy (1 - y**2)`."""
    dx = y * y
    np.subtract(1, dx, out=dx)
    dx *= dy
    return dx


# --- relu: y' = 1 where y > 0 ----------------------------------------------------------------------------------------


def relu(x: Array) -> tuple[Array, Array]:
    """`max(x, 0)`."""
    y = np.maximum(x, 0)
    return y, y


def relu_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy where y > 0, else 0` (0 at the kink)."""
    return dy * (y > 0)


Sigmoid = activation("Sigmoid", sigmoid, sigmoid_vjp)
Tanh = activation("Tanh", tanh, tanh_vjp)
Relu = activation("Relu", relu, relu_vjp)
