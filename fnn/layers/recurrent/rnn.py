"""The plain recurrent network (Elman 1990): `h_t = f(x_t W + h_{t-1} U + b)` with f the tanh or the relu."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from fnn.check import positive
from fnn.contract import Layer
from fnn.initializers import Initializer, glorot_uniform, orthogonal, zeros
from fnn.layers.activation import relu_vjp, tanh_vjp
from fnn.layers.recurrent.sequence import (
    Arrays,
    Back,
    Kernel,
    Options,
    Returns,
    cell,
    initial_weights,
    joint,
    recurrent,
)
from fnn.types import Array, Ints, Params, bind, ones

Activation: TypeAlias = Literal["tanh", "relu"]


# --- one step --------------------------------------------------------------------------------------------------------


def rnn_step(activation: Activation, params: Params, x: Array, h: Array) -> tuple[tuple[Array, Array], Any]:
    """`h' = f(x W + h U + b)`; the answer and the carry are both h'."""
    z = x.dot(params["input_weight"]) + h.dot(params["hidden_weight"]) + params["bias"]
    y = np.tanh(z) if activation == "tanh" else np.maximum(z, 0)
    return (y, y), (x, h, y)


def rnn_step_vjp(
    activation: Activation, params: Params, cache: tuple[Array, Array, Array], dy: tuple[Array, Array]
) -> tuple[Params, tuple[Array, Array]]:
    """`dz = (dy + dh') f'(z)`; then dW = x' dz, dU = h' dz, dx = dz W', dh = dz U'."""
    x, h, y = cache
    dz = (tanh_vjp if activation == "tanh" else relu_vjp)(y, dy[0] + dy[1])
    grads = {"input_weight": x.T.dot(dz), "hidden_weight": h.T.dot(dz), "bias": ones(len(dz), dz.dtype).dot(dz)}
    return grads, (dz.dot(params["input_weight"].T), dz.dot(params["hidden_weight"].T))


# --- all steps -------------------------------------------------------------------------------------------------------


def rnn_forward(activation: Activation, keep: bool, params: Params, hx: Array, start: Arrays) -> tuple[Arrays, Arrays]:
    """`h_t = f([h_{t-1} x_t 1] [U; W; b])`."""
    weight, hs = joint(params), hx[:, :, : len(params["hidden_weight"])]
    product, zero = np.empty(hs[0].shape, hs.dtype), np.zeros(hs[0].shape, hs.dtype)
    for before, y in zip(hx, hs[1:]):
        before.dot(weight, out=product)
        if activation == "tanh":
            np.tanh(product, out=y)
        else:
            np.maximum(product, zero, out=y)
    return (), ()


def rnn_vjp(activation: Activation, params: Params, carries: Arrays, kept: Arrays, back: Back) -> dict[str, Array]:
    """`dz_t = (dh_t + dz_{t+1} U') f'(z_t)` from the last step to the first."""
    (hs,), (dh,), dzs = carries, back.carry, back.dzs
    if activation == "tanh":
        np.multiply(hs[1:], hs[1:], out=dzs)
        np.subtract(1, dzs, out=dzs)
    else:
        dzs[...] = hs[1:] > 0
    for dy, dz in zip(back.dhs[::-1], dzs[::-1]):
        dh += dy
        dz *= dh
        dz.dot(back.weight, out=dh)
    return {}


# --- constructors ----------------------------------------------------------------------------------------------------


def rnn_cell(
    features: int,
    activation: Activation = "tanh",
    *,
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[tuple[Array, Array], tuple[Array, Array]]:
    """One step of `RNN`: `(x, h) -> (h', h')` with `h' = f(x W + h U + b)`, x (batch, in), h (batch, features).

    Parameters as those of `RNN`; `scan(rnn_cell(n))` equals `RNN(n, carry=True)`.
    """
    _check("rnn_cell", features, activation)
    return cell(
        "rnn_cell",
        features,
        (features,),
        bind(initial_weights, "h", features, features, (input_init, hidden_init, bias_init)),
        bind(rnn_step, activation),
        bind(rnn_step_vjp, activation),
        config={
            "features": features,
            "activation": activation,
            "input_init": input_init,
            "hidden_init": hidden_init,
            "bias_init": bias_init,
        },
        build=rnn_cell,
    )


@overload
def RNN(
    features: int,
    activation: Activation = "tanh",
    *,
    lengths: Literal[False] = False,
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[Array, Array]: ...
@overload
def RNN(
    features: int,
    activation: Activation = "tanh",
    *,
    lengths: Literal[True],
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[tuple[Array, Ints], Array]: ...
@overload
def RNN(
    features: int,
    activation: Activation = "tanh",
    *,
    lengths: Literal[False] = False,
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[Array, Array], tuple[Array, Array]]: ...
@overload
def RNN(
    features: int,
    activation: Activation = "tanh",
    *,
    lengths: Literal[True],
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[tuple[Array, Ints], Array], tuple[Array, Array]]: ...
def RNN(
    features: int,
    activation: Activation = "tanh",
    *,
    reverse: bool = False,
    returns: Returns = "sequence",
    lengths: bool = False,
    carry: bool = False,
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[Any, Any]:
    """A recurrent layer `h_t = f(x_t W + h_{t-1} U + b)` from `h_0 = 0`: (batch, time, in) -> (batch, time, features).

    Elman 1990. Parameters: `input_weight` (in, features), `hidden_weight` (features, features), `bias` (features,).

    `activation` is f, "tanh" or "relu". `reverse=True` runs from the last step to the first; y stays in the order of x.
    `returns="last"` gives only the answer of the step that is run last, (batch, features).
    `lengths=True` takes `(x, lengths)`, lengths (batch,) integers from 1 to time: an example ends (or, reversed,
    begins) at its length; beyond it y is 0 and what x holds there is ignored.
    `carry=True` pairs the input with h_0 (batch, features) and the output with the h of the step run last:
    `(x, h) -> (y, h)`, or `((x, lengths), h) -> (y, h)`.
    """
    _check("RNN", features, activation)
    return recurrent(
        "RNN",
        features,
        (features,),
        bind(initial_weights, "h", features, features, (input_init, hidden_init, bias_init)),
        Kernel(bind(rnn_forward, activation), bind(rnn_vjp, activation)),
        reverse=reverse,
        returns=returns,
        lengths=lengths,
        carry=carry,
        config={
            "features": features,
            "activation": activation,
            "input_init": input_init,
            "hidden_init": hidden_init,
            "bias_init": bias_init,
        },
        build=RNN,
    )


def _check(kind: str, features: int, activation: Activation) -> None:
    positive(kind, "features", features)
    if activation not in ("tanh", "relu"):
        raise ValueError(f"{kind}({features}): expected activation 'tanh' or 'relu', got {activation!r}")
