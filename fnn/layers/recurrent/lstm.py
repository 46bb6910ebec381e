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
    LIMIT,
    Arrays,
    Back,
    Kernel,
    Options,
    Returns,
    allocate,
    cell,
    each,
    initial_weights,
    joint,
    recurrent,
    scaled,
    short_blocks,
    sigmoid_of_negative,
)
from fnn.random import Key
from fnn.types import Array, Ints, Params, Shape, bind, ones

Pair: TypeAlias = tuple[Array, Array]
"""The carry: h (batch, features or projection) and c (batch, features)."""

GATES = "ifgo"
SCALE = (-1.0, -1.0, 1.0, -1.0)


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


def lstm_forward(keep: bool, params: Params, hx: Array, start: Arrays) -> tuple[Arrays, Arrays]:
    """All steps. It keeps every gate and its partner, the number it is multiplied with: i g, f c, o tanh(c'), g i.

    They stand in this order, i, f, o, g, so that one exp serves the first three; in the place of g stands 1 + g.
    """
    time, batch, features = len(hx) - 1, hx.shape[1], params["bias"].size // 4
    width = len(params["hidden_weight"])
    peephole, projection = _parts(params)
    weight = scaled(joint(params), SCALE)
    kept, after = (time, time + 1) if keep else (1, 1)
    gates, partners = allocate(hx.dtype, (kept, 4, batch, features), (after, 4, batch, features))
    cs = partners[:, 1]
    cs[0] = start[0]
    product = np.empty((batch, 4 * features), hx.dtype)
    terms, m = np.empty((2, batch, features), hx.dtype), np.empty((batch, features), hx.dtype)
    zs = product.reshape(batch, 4, features).swapaxes(0, 1)
    one, limit = np.ones_like(gates[0, :3]), np.full_like(gates[0, :3], LIMIT)
    c_steps = each(cs, time + 1)
    steps = zip(hx, hx[1:, :, :width], each(gates, time), each(partners, time), c_steps, c_steps[1:])
    for before, y, s, partner, c, c_next in steps:
        before.dot(weight, out=product)
        if peephole is not None:
            zs[:2] -= peephole[:2] * c
        s[:2] = zs[:2]
        s[2] = zs[3]
        sigmoid_of_negative(s[:3], limit, one)
        np.tanh(zs[2], out=partner[0])
        np.add(partner[0], 1, out=s[3])
        np.multiply(s[:2], partner[:2], out=terms)
        np.add(terms[0], terms[1], out=c_next)
        if peephole is not None:
            np.subtract(zs[3], peephole[2] * c_next, out=s[2])
            sigmoid_of_negative(s[2], limit[2], one[2])
        np.tanh(c_next, out=partner[2])
        np.multiply(s[2], partner[2], out=m)
        partner[3] = s[0]
        y[...] = m if projection is None else m.dot(projection)
    return (cs,), (gates, partners)


def lstm_vjp(params: Params, carries: Arrays, kept: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with dm = dh' (or dh' P'):

        dc'  gets dm o (1 - tanh(c')**2)        dz_o = dm tanh(c') o (1 - o)
        dz_i = dc' g i (1 - i)        dz_f = dc' c f (1 - f)        dz_g = dc' i (1 - g**2)
        dc = dc' f                    dh = dz U'

    and with peepholes dc' gets dz_o p_o too, and dc gets dz_i p_i + dz_f p_f.
    """
    (gates, partners), (dh, dc), dzs, dhs = kept, back.carry, back.dzs, back.dhs
    time, _, batch, features = gates.shape
    peephole, projection = _parts(params)
    dm, part = dh if projection is None else np.empty_like(dc), np.empty_like(dc)
    top = np.ones_like(gates[0])
    top[3] = 2
    wide = np.empty((batch, 4, features), dc.dtype)
    of_ifg, of_o, factor = wide[:, :3], wide[:, 3], wide.reshape(batch, 4 * features)
    for block in reversed(short_blocks(time, batch, 4 * features)):
        to_c, through = _factors(gates[block], partners[block], top, peephole, dzs[block])
        dcs = repeat(None) if back.dcs is None else back.dcs[block][::-1]
        for dz, dy, slope, f, d in zip(dzs[block][::-1], dhs[block][::-1], to_c[::-1], through[::-1], dcs):
            dh += dy
            if projection is not None:
                dy[...] = dh
                dh.dot(projection.T, out=dm)
            np.multiply(dm, slope, out=part)
            dc += part
            if d is not None:
                dc += d
            of_ifg[...] = dc[:, None]
            of_o[...] = dm
            dz *= factor
            dc *= f
            dz.dot(back.weight, out=dh)
    grads = {}
    if peephole is not None:
        cs = carries[1]
        dz_i, dz_f, _, dz_o = np.split(dzs, 4, axis=2)
        terms = np.concatenate([dz_i * cs[:-1], dz_f * cs[:-1], dz_o * cs[1:]], axis=2)
        grads["peephole"] = ones(time * batch, terms.dtype).dot(rows(terms))
    if projection is not None:
        grads["projection"] = rows(gates[:, 2] * partners[:, 2]).T.dot(rows(dhs))
    return grads


def _factors(gates: Array, partners: Array, top: Array, peephole: Array | None, dzs: Array) -> tuple[Array, Array]:
    """Writes into dzs what dm (for o) and dc' (for i, f, g) are multiplied with to give it: the partner times the
    derivative of the gate, s (1 - s), or (1 + g) (1 - g): in both, what stands there times what it lacks to top.

    Returns the factors from dm to dc', and from dc' to dc.
    """
    time, _, batch, features = gates.shape
    to_z = np.subtract(top, gates)
    to_z *= gates
    to_z *= partners
    dz, to_dz = dzs.reshape(time, batch, 4, features), to_z.swapaxes(1, 2)
    dz[:, :, :2] = to_dz[:, :, :2]
    dz[:, :, 2:] = to_dz[:, :, :1:-1]
    f, o, tanh_c = gates[:, 1], gates[:, 2], partners[:, 2]
    to_c = np.multiply(tanh_c, tanh_c)
    np.subtract(1, to_c, out=to_c)
    to_c *= o
    if peephole is None:
        return to_c, f
    to_c += to_z[:, 2] * peephole[2]
    return to_c, f + to_z[:, 0] * peephole[0] + to_z[:, 1] * peephole[1]


def _parts(params: Params) -> tuple[Array | None, Array | None]:
    """The peepholes as (3, 1, features), and the projection."""
    peephole = params.get("peephole")
    return None if peephole is None else peephole.reshape(3, 1, -1), params.get("projection")


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
