"""Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000). Gates in the order
i (input), f (forget), g (candidate), o (output):

    i = sigmoid(x W_i + h U_i + b_i + p_i * c)        the terms with p: peepholes (Gers & Schmidhuber 2000)
    f = sigmoid(x W_f + h U_f + b_f + p_f * c)
    g = tanh   (x W_g + h U_g + b_g)
    c' = f c + i g
    o = sigmoid(x W_o + h U_o + b_o + p_o * c')
    m = o tanh(c')
    h' = m, or m P with a projection (Sak et al. 2014)
"""

from __future__ import annotations

import math
from itertools import repeat
from typing import Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from fnn.check import positive
from fnn.contract import Layer
from fnn.initializers import Initializer, glorot_uniform, orthogonal, zeros
from fnn.layers.activation import sigmoid, tanh_vjp
from fnn.layers.dense import rows
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
    scaled,
)
from fnn.random import Key
from fnn.types import Array, Ints, Params, Shape, bind, ones

Pair: TypeAlias = tuple[Array, Array]
"""The carry: h (batch, features or projection) and c (batch, features)."""

GATES = "ifgo"
SCALE = (0.5, 0.5, 1.0, 0.5)


# --- one step --------------------------------------------------------------------------------------------------------


def lstm_step(params: Params, x: Array, carry: Pair) -> tuple[tuple[Array, Pair], Any]:
    """The formula above; the answer is h'."""
    h, c = carry
    z = x.dot(params["input_weight"]) + h.dot(params["hidden_weight"]) + params["bias"]
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=1)
    if "peephole" in params:
        p_i, p_f, p_o = np.split(params["peephole"], 3)
        z_i, z_f = z_i + p_i * c, z_f + p_f * c
    i, _ = sigmoid(z_i)
    f, _ = sigmoid(z_f)
    g = np.tanh(z_g)
    c_next = f * c + i * g
    if "peephole" in params:
        z_o = z_o + p_o * c_next
    o, _ = sigmoid(z_o)
    tanh_c = np.tanh(c_next)
    m = o * tanh_c
    y = m.dot(params["projection"]) if "projection" in params else m
    return (y, (y, c_next)), (x, h, c, i, f, g, o, c_next, tanh_c)


def lstm_step_vjp(
    params: Params, cache: tuple[Array, ...], dy: tuple[Array, Pair]
) -> tuple[Params, tuple[Array, Pair]]:
    """The chain rule from h' and c' back through o, c', and the other gates."""
    x, h, c, i, f, g, o, c_next, tanh_c = cache
    dh, dc = dy[0] + dy[1][0], dy[1][1]
    dm = dh.dot(params["projection"].T) if "projection" in params else dh
    dz_o = dm * tanh_c * o * (1 - o)
    dc = dc + tanh_vjp(tanh_c, dm * o)
    if "peephole" in params:
        p_i, p_f, p_o = np.split(params["peephole"], 3)
        dc = dc + dz_o * p_o
    dz_i, dz_f, dz_g = dc * g * i * (1 - i), dc * c * f * (1 - f), tanh_vjp(g, dc * i)
    dc = dc * f
    if "peephole" in params:
        dc = dc + dz_i * p_i + dz_f * p_f
    dz = np.concatenate([dz_i, dz_f, dz_g, dz_o], axis=1)
    column = ones(len(x), dz.dtype)
    grads = {"input_weight": x.T.dot(dz), "hidden_weight": h.T.dot(dz), "bias": column.dot(dz)}
    if "peephole" in params:
        grads["peephole"] = column.dot(np.concatenate([dz_i * c, dz_f * c, dz_o * c_next], axis=1))
    if "projection" in params:
        grads["projection"] = (o * tanh_c).T.dot(dh)
    return grads, (dz.dot(params["input_weight"].T), (dz.dot(params["hidden_weight"].T), dc))


# --- all steps -------------------------------------------------------------------------------------------------------


def lstm_forward(params: Params, zs: Array, hx: Array, carries: Arrays) -> Arrays:
    """All steps; the gates go into zs."""
    (hs, cs), (time, batch, width) = carries, zs.shape
    features = width // 4
    peephole, projection = _parts(params)
    weight = scaled(joint(params), SCALE)
    scale = scaled(np.ones_like(zs[0]), SCALE)
    offset = 1 - scale
    product, part = np.empty_like(zs[0]), np.empty_like(cs[0])
    answers, c_steps = list(hs[1:]), list(cs)
    ms = answers if projection is None else [np.empty_like(part)] * time
    for before, gates, i, f, g, o, y, c, c_next, m in zip(hx, zs, *_four(zs), answers, c_steps, c_steps[1:], ms):
        before.dot(weight, out=product)
        if peephole is not None:
            product[:, : 2 * features].reshape(batch, 2, features)[...] += 0.5 * peephole[:2] * c[:, None]
        np.tanh(product, out=gates)
        gates *= scale
        gates += offset
        np.multiply(f, c, out=c_next)
        np.multiply(i, g, out=part)
        c_next += part
        if peephole is not None:
            np.tanh(product[:, 3 * features :] + 0.5 * peephole[2] * c_next, out=o)
            o *= 0.5
            o += 0.5
        np.tanh(c_next, out=part)
        np.multiply(o, part, out=m)
        if projection is not None:
            y[...] = m.dot(projection)
    return ()


def lstm_vjp(params: Params, gates: Array, carries: Arrays, cache: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with dm = dh' (or dh' P'):

        dz_o = dm tanh(c') o (1 - o)
        dc'  gets dm o (1 - tanh(c')**2)
        dz_i = dc' g i (1 - i)        dz_f = dc' c f (1 - f)        dz_g = dc' i (1 - g**2)
        dc = dc' f                    dh = dz U'

    and with peepholes dc' gets dz_o p_o too, and dc gets dz_i p_i + dz_f p_f.
    """
    (_, cs), (dh, dc), dzs, dhs = carries, back.carry, back.dzs, back.dhs
    time, batch, width = gates.shape
    features = width // 4
    peephole, projection = _parts(params)
    dm, part = dh if projection is None else np.empty_like(dc), np.empty_like(dc)
    to_c, ms = _factors(gates, cs[:-1], cs[1:], dzs)
    of_three, dcs = dc[:, None], repeat(None) if back.dcs is None else back.dcs[::-1]
    dz_ifgs, dz_os = dzs.reshape(time, batch, 4, features)[:, :, :3], dzs[:, :, 3 * features :]
    each = (a[::-1] for a in (dzs, dz_ifgs, dz_os, dhs, to_c, gates[:, :, features : 2 * features]))
    for dz, dz_ifg, dz_o, dy, slope, f, d in zip(*each, dcs):
        dh += dy
        if projection is not None:
            dy[...] = dh
            dh.dot(projection.T, out=dm)
        dz_o *= dm
        np.multiply(dm, slope, out=part)
        dc += part
        if d is not None:
            dc += d
        if peephole is not None:
            dc += dz_o * peephole[2]
        dz_ifg *= of_three
        dc *= f
        if peephole is not None:
            dc += dz_ifg[:, 0] * peephole[0]
            dc += dz_ifg[:, 1] * peephole[1]
        dz.dot(back.weight, out=dh)
    grads = {}
    if peephole is not None:
        dz_i, dz_f, _, dz_o = _four(dzs)
        terms = np.concatenate([dz_i * cs[:-1], dz_f * cs[:-1], dz_o * cs[1:]], axis=2)
        grads["peephole"] = ones(time * batch, terms.dtype).dot(rows(terms))
    if projection is not None:
        grads["projection"] = rows(ms).T.dot(rows(dhs))
    return grads


def _factors(gates: Array, c: Array, c_next: Array, dz: Array) -> tuple[Array, Array]:
    """Writes into dz what dm (for o) and dc' (for i, f, g) are multiplied with to give it; returns the factor from dm
    to dc', and m."""
    i, f, g, o = _four(gates)
    to_i, to_f, to_g, to_o = _four(dz)
    np.subtract(1, gates, out=dz)
    part = i * g
    to_i *= part
    part *= g
    np.subtract(i, part, out=to_g)
    np.multiply(f, c, out=part)
    to_f *= part
    to_c = np.tanh(c_next)
    m = np.multiply(o, to_c, out=part)
    to_o *= m
    to_c *= m
    np.subtract(o, to_c, out=to_c)
    return to_c, m


def _four(gates: Array) -> tuple[Array, Array, Array, Array]:
    """The gates i, f, g, o of an array whose last axis holds them side by side, as views."""
    n = gates.shape[-1] // 4
    return gates[..., :n], gates[..., n : 2 * n], gates[..., 2 * n : 3 * n], gates[..., 3 * n :]


def _parts(params: Params) -> tuple[Array | None, Array | None]:
    """The peepholes as (3, features), and the projection."""
    peephole = params.get("peephole")
    return None if peephole is None else peephole.reshape(3, -1), params.get("projection")


# --- constructors ----------------------------------------------------------------------------------------------------


def lstm_cell(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[tuple[Array, Pair], tuple[Array, Pair]]:
    """One step of `LSTM`: `(x, (h, c)) -> (h', (h', c'))`, x (batch, in), h (batch, features or projection), c
    (batch, features).

    Parameters as those of `LSTM`; `scan(lstm_cell(n))` equals `LSTM(n, carry=True)`.
    """
    rows = _check("lstm_cell", features, projection, forget_bias)
    inits = {"input_init": input_init, "hidden_init": hidden_init, "bias_init": bias_init}
    shape = {"features": features, "peepholes": peepholes, "projection": projection, "forget_bias": forget_bias}
    return cell(
        "lstm_cell",
        features,
        (rows, features),
        bind(_init, (features, projection), peepholes, float(forget_bias), (input_init, hidden_init, bias_init)),
        lstm_step,
        lstm_step_vjp,
        config={**shape, **inits},
        build=lstm_cell,
    )


@overload
def LSTM(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    lengths: Literal[False] = False,
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[Array, Array]: ...
@overload
def LSTM(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    lengths: Literal[True],
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[tuple[Array, Ints], Array]: ...
@overload
def LSTM(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    lengths: Literal[False] = False,
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[Array, Pair], tuple[Array, Pair]]: ...
@overload
def LSTM(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    lengths: Literal[True],
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[tuple[Array, Ints], Pair], tuple[Array, Pair]]: ...
def LSTM(
    features: int,
    *,
    peepholes: bool = False,
    projection: int | None = None,
    forget_bias: float = 1.0,
    reverse: bool = False,
    returns: Returns = "sequence",
    lengths: bool = False,
    carry: bool = False,
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[Any, Any]:
    """Long short-term memory from `h_0 = c_0 = 0`: (batch, time, in) -> (batch, time, features).

    Hochreiter & Schmidhuber 1997 with forget gates; the formula stands at the top of this module. Parameters, gates in
    the order i, f, g, o: `input_weight` (in, 4 features), `hidden_weight` (features, 4 features), `bias` (4 features,).

    `peepholes=True` lets the gates i, f, o see c: `peephole` (3 features,), starting at 0. `projection=n` answers n
    linear combinations of the features: `projection` (features, n), and `hidden_weight` is (n, 4 features).
    `forget_bias` is added to the initial bias of f (Gers et al. 2000). `reverse`, `returns`, `lengths` and `carry` are
    as in `RNN`; the carry is the pair (h, c), h (batch, features or n) and c (batch, features).
    """
    rows = _check("LSTM", features, projection, forget_bias)
    inits = {"input_init": input_init, "hidden_init": hidden_init, "bias_init": bias_init}
    shape = {"features": features, "peepholes": peepholes, "projection": projection, "forget_bias": forget_bias}
    return recurrent(
        "LSTM",
        features,
        (rows, features),
        bind(_init, (features, projection), peepholes, float(forget_bias), (input_init, hidden_init, bias_init)),
        Kernel(lstm_forward, lstm_vjp),
        reverse=reverse,
        returns=returns,
        lengths=lengths,
        carry=carry,
        config={**shape, **inits},
        build=LSTM,
    )


def _check(kind: str, features: int, projection: int | None, forget_bias: float) -> int:
    """The features of h."""
    positive(kind, "features", features)
    if not math.isfinite(forget_bias):
        raise ValueError(f"{kind}({features}): expected a finite forget_bias, got {forget_bias!r}")
    return features if projection is None else positive(f"{kind}({features})", "projection", projection)


def _init(
    sizes: tuple[int, int | None],
    peepholes: bool,
    forget_bias: float,
    inits: tuple[Initializer, Initializer, Initializer],
    key: Key,
    in_shape: Shape,
) -> Params:
    features, projection = sizes
    params = initial_weights(GATES, features, projection or features, inits, key, in_shape)
    params["bias"][features : 2 * features] += forget_bias
    if peepholes:
        params["peephole"] = np.zeros(3 * features, np.float32)
    if projection is not None:
        params["projection"] = inits[0](key.fold_in("projection"), (features, projection))
    return params
