"""Fully connected layers."""

from __future__ import annotations

from typing import Any

from fnn.contract import Layer, stateless
from fnn.initializers import Initializer, glorot_uniform, zeros
from fnn.check import check_bias, feature_shape, input_error, positive
from fnn.random import Key
from fnn.types import Array, Params, Shape, bind, ones

# y = x W + b        dW = x' dy        db = sum of dy over the examples        dx = dy W'


def dense_forward(params: Params, x: Array) -> tuple[Array, Array]:
    """`y = x W + b` over the last axis; the cache is x. W is `(in, out)`, b is `(out,)` or absent."""
    weight = params["weight"]
    if getattr(x, "ndim", 0) < 2 or x.shape[-1] != weight.shape[0] or x.dtype != weight.dtype:
        raise input_error(f"Dense({weight.shape[1]})", f"(batch, ..., {weight.shape[0]})", x, weight)
    check_bias("Dense", params, weight)
    y: Array = (x if x.ndim == 2 else rows(x)).dot(weight)
    if "bias" in params:
        y += params["bias"]
    return (y if x.ndim == 2 else y.reshape(*x.shape[:-1], weight.shape[1])), x


def dense_param_vjp(params: Params, x: Array, dy: Array) -> Params:
    """`dW = x' dy` and `db = sum of dy over the examples`."""
    if x.ndim > 2:
        x, dy = rows(x), rows(dy)
    weight = x.T.dot(dy)
    return {"weight": weight, "bias": dy.T.dot(ones(len(dy), dy.dtype))} if "bias" in params else {"weight": weight}


def dense_input_vjp(params: Params, x: Array, dy: Array) -> Array:
    """`dx = dy W'`."""
    dx: Array = (dy if x.ndim == 2 else rows(dy)).dot(params["weight"].T)
    return dx if x.ndim == 2 else dx.reshape(x.shape)


def dense_vjp(params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    """`dW`, `db` and `dx`, as above."""
    return dense_param_vjp(params, x, dy), dense_input_vjp(params, x, dy)


def rows(x: Array) -> Array:
    """The array as a matrix: every axis but the last taken together."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def Dense(
    features: int, *, weight_init: Initializer = glorot_uniform(), bias_init: Initializer | None = zeros
) -> Layer[Array, Array]:
    """A fully connected layer: `y = x W + b`, applied to the last axis of `(batch, ..., in)`.

    Parameters: `weight` (in, features) and `bias` (features,); `bias_init=None` leaves the bias out.
    """
    positive("Dense", "features", features)
    return stateless(
        "Dense",
        bind(_init, features, weight_init, bias_init),
        dense_forward,
        dense_vjp,
        out_shape=bind(_out_shape, features),
        param_vjp=dense_param_vjp,
        input_vjp=dense_input_vjp,
        config={"features": features, "weight_init": weight_init, "bias_init": bias_init},
        build=Dense,
    )


def _init(features: int, weight_init: Initializer, bias_init: Initializer | None, key: Key, in_shape: Shape) -> Params:
    params: dict[str, Any] = {"weight": weight_init(key.fold_in("weight"), (in_shape[-1], features))}
    if bias_init is not None:
        params["bias"] = bias_init(key.fold_in("bias"), (features,))
    return params


def _out_shape(features: int, in_shape: Shape) -> Shape:
    return (*feature_shape(f"Dense({features})", in_shape)[:-1], features)
