"""The gated recurrent unit (Cho et al. 2014). Gates in the order r (reset), z (update), n (candidate):

r = sigmoid(x W_r + h U_r + b_r)
z = sigmoid(x W_z + h U_z + b_z)
n = tanh(x W_n + b_n + r * (h U_n + c))     reset after the product: cuDNN, PyTorch
n = tanh(x W_n + b_n + (r * h) U_n)         reset before it: the paper
h' = (1 - z) n + z h
"""

from __future__ import annotations

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
    cell,
    each,
    initial_weights,
    projected,
    recurrent,
    scaled,
    short_blocks,
    sigmoid_of_negative,
)
from fnn.random import Key
from fnn.types import Array, Ints, Params, Shape, bind, ones

Reset: TypeAlias = Literal["after", "before"]

GATES = "rzn"
SCALE = (-1.0, -1.0, 1.0)


# --- one step --------------------------------------------------------------------------------------------------------


def gru_step(reset: Reset, params: Params, x: Array, h: Array) -> tuple[tuple[Array, Array], Any]:
    """`h' = (1 - z) n + z h`; the answer and the carry are both h'."""
    weight, features = params["hidden_weight"], h.shape[1]
    from_x = x.dot(params["input_weight"]) + params["bias"]
    from_h = h.dot(weight[:, : 2 * features])
    gates, _ = sigmoid(from_x[:, : 2 * features] + from_h)
    r, z = gates[:, :features], gates[:, features:]
    if reset == "after":
        m = h.dot(weight[:, 2 * features :]) + params["hidden_bias"]
        n = np.tanh(from_x[:, 2 * features :] + r * m)
    else:
        m = r * h
        n = np.tanh(from_x[:, 2 * features :] + m.dot(weight[:, 2 * features :]))
    y = (1 - z) * n + z * h
    return (y, y), (x, h, gates, m, n)


def gru_step_vjp(
    reset: Reset, params: Params, cache: tuple[Array, Array, Array, Array, Array], dy: tuple[Array, Array]
) -> tuple[Params, tuple[Array, Array]]:
    """The chain rule through h', n, then r and z; a' stands for the derivative before the gate's nonlinearity."""
    x, h, gates, m, n = cache
    features = h.shape[1]
    weight, candidate = params["hidden_weight"][:, : 2 * features], params["hidden_weight"][:, 2 * features :]
    r, z = gates[:, :features], gates[:, features:]
    dh_next = dy[0] + dy[1]
    dn = tanh_vjp(n, dh_next * (1 - z))
    dh = dh_next * z
    grads = {}
    if reset == "after":
        dm = dn * r
        dr = dn * m
        dh += dm.dot(candidate.T)
        dcandidate = h.T.dot(dm)
        grads["hidden_bias"] = ones(len(dm), dm.dtype).dot(dm)
    else:
        dm = dn.dot(candidate.T)
        dr = dm * h
        dh += dm * r
        dcandidate = m.T.dot(dn)
    dgates = np.concatenate([dr, dh_next * (h - n)], axis=1) * gates * (1 - gates)
    dh += dgates.dot(weight.T)
    dz = np.concatenate([dgates, dn], axis=1)
    grads = {
        "input_weight": x.T.dot(dz),
        "hidden_weight": np.concatenate([h.T.dot(dgates), dcandidate], axis=1),
        "bias": ones(len(dz), dz.dtype).dot(dz),
        **grads,
    }
    return grads, (dz.dot(params["input_weight"].T), dh)


# --- all steps -------------------------------------------------------------------------------------------------------


def gru_after_forward(keep: bool, params: Params, hx: Array, start: Arrays) -> tuple[Arrays, Arrays]:
    """All steps with the reset after the product. It keeps the gates and m = h U_n + c."""
    gates, weight = projected(params, hx, SCALE), scaled(params["hidden_weight"], SCALE)
    time, _, batch, features = gates.shape
    hs, ms = hx[:, :, :features], np.empty((time if keep else 1, batch, features), hx.dtype)
    h, part, product = hs[0].copy(), np.empty_like(ms[0]), np.empty((batch, 3 * features), hx.dtype)
    by_gate = product.reshape(batch, 3, features).swapaxes(0, 1)
    from_h, bias = np.empty_like(gates[0]), np.empty_like(part)
    bias[...] = params["hidden_bias"]
    one, limit = np.ones_like(from_h[:2]), np.full_like(from_h[:2], LIMIT)
    for rz, r, z, n, m, y in zip(gates[:, :2], gates[:, 0], gates[:, 1], gates[:, 2], each(ms, time), hs[1:]):
        h.dot(weight, out=product)
        from_h[...] = by_gate
        rz += from_h[:2]
        sigmoid_of_negative(rz, limit, one)
        np.add(from_h[2], bias, out=m)
        np.multiply(r, m, out=part)
        n += part
        np.tanh(n, out=n)
        _update(h, z, n)
        y[...] = h
    return (), (gates, ms)


def gru_after_vjp(params: Params, carries: Arrays, kept: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with h' = n + z (h - n):

    dz_n = dh' (1 - z) (1 - n**2)        dz_r = dz_n m r (1 - r)        dz_z = dh' (h - n) z (1 - z)
    dm = dz_n r                          dh = dh' z + [dz_r dz_z dm] U'
    """
    (hs,), (gates, ms), (dh,), dzs, dhs = carries, kept, back.carry, back.dzs, back.dhs
    time, _, batch, features = gates.shape
    to_n, through = np.empty_like(dhs), np.empty_like(dh)
    wide = np.empty((batch, 3, features), dh.dtype)
    factor = wide.reshape(batch, 3 * features)
    for block in reversed(short_blocks(time, batch, 3 * features)):
        some, ns = gates[block], to_n[block]
        to_z = _factors(some, hs[block], ns)
        to_z[:, 0] *= ms[block]
        to_z[:, 0] *= ns
        np.multiply(some[:, 0], ns, out=to_z[:, 2])
        dzs[block].reshape(some.swapaxes(1, 2).shape)[...] = to_z.swapaxes(1, 2)
        for dz, dy, z in zip(dzs[block][::-1], dhs[block][::-1], some[::-1, 1]):
            dy += dh
            wide[...] = dy[:, None]
            dz *= factor
            np.multiply(dy, z, out=dh)
            dz.dot(back.weight, out=through)
            dh += through
    flat, dms = rows(dzs), dzs[:, :, 2 * features :]
    bias = ones(len(flat), flat.dtype).dot(rows(dms))
    grads = {"hidden_weight": rows(hs[:-1]).T.dot(flat), "hidden_bias": bias}
    np.multiply(to_n, dhs, out=dms)  # dz_n takes the place of dm
    return grads


def gru_before_forward(keep: bool, params: Params, hx: Array, start: Arrays) -> tuple[Arrays, Arrays]:
    """All steps with the reset before the product. It keeps the gates."""
    gates, weight = projected(params, hx, SCALE), scaled(params["hidden_weight"], SCALE)
    _, _, batch, features = gates.shape
    weight, candidate = weight[:, : 2 * features].copy(), weight[:, 2 * features :].copy()
    hs = hx[:, :, :features]
    h, part, product = hs[0].copy(), np.empty_like(gates[0, 0]), np.empty((batch, 2 * features), hx.dtype)
    by_gate = product.reshape(batch, 2, features).swapaxes(0, 1)
    from_h = np.empty_like(gates[0, :2])
    one, limit = np.ones_like(from_h), np.full_like(from_h, LIMIT)
    for rz, r, z, n, y in zip(gates[:, :2], gates[:, 0], gates[:, 1], gates[:, 2], hs[1:]):
        h.dot(weight, out=product)
        from_h[...] = by_gate
        rz += from_h
        sigmoid_of_negative(rz, limit, one)
        np.multiply(r, h, out=part)
        part.dot(candidate, out=from_h[0])
        n += from_h[0]
        np.tanh(n, out=n)
        _update(h, z, n)
        y[...] = h
    return (), (gates,)


def gru_before_vjp(params: Params, carries: Arrays, kept: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with h' = n + z (h - n) and m = r h:

    dz_n = dh' (1 - z) (1 - n**2)        dm = dz_n U_n'        dz_r = dm h r (1 - r)
    dz_z = dh' (h - n) z (1 - z)         dh = dh' z + dm r + [dz_r dz_z] U_rz'
    """
    (hs,), (gates,), (dh,), dzs, dhs = carries, kept, back.carry, back.dzs, back.dhs
    time, _, batch, features = gates.shape
    weight, candidate = back.weight[: 2 * features], back.weight[2 * features :]
    dn, dm, through = np.empty_like(dh), np.empty_like(dh), np.empty_like(dh)
    wide = np.empty((batch, 3, features), dh.dtype)
    of_r, of_zn, factor = wide[:, 0], wide[:, 1:], wide.reshape(batch, 3 * features)
    for block in reversed(short_blocks(time, batch, 3 * features)):
        some, h = gates[block], hs[block]
        to_z = _factors(some, h, np.empty_like(some[:, 2]))
        to_z[:, 0] *= h
        dzs[block].reshape(some.swapaxes(1, 2).shape)[...] = to_z.swapaxes(1, 2)
        for dz, dy, r, z, to_n in zip(dzs[block][::-1], dhs[block][::-1], some[::-1, 0], some[::-1, 1], to_z[::-1, 2]):
            dh += dy
            np.multiply(to_n, dh, out=dn)
            dn.dot(candidate, out=dm)
            of_r[...] = dm
            of_zn[...] = dh[:, None]
            dz *= factor
            dh *= z
            dm *= r
            dh += dm
            dz[:, : 2 * features].dot(weight, out=through)
            dh += through
    m = gates[:, 0] * hs[:-1]
    flat = rows(dzs)
    products = rows(hs[:-1]).T.dot(flat[:, : 2 * features]), rows(m).T.dot(flat[:, 2 * features :])
    return {"hidden_weight": np.concatenate(products, axis=1)}


def _update(h: Array, z: Array, n: Array) -> None:
    """`n + z (h - n)` in the place of h."""
    h -= n
    h *= z
    h += n


def _factors(gates: Array, h: Array, to_n: Array) -> Array:
    """(time, 3, batch, features): `r (1 - r)`, `(h - n) z (1 - z)` and `(1 - z) (1 - n**2)`, the last in to_n too."""
    n = gates[:, 2]
    to_z = np.subtract(1, gates)
    np.multiply(n, n, out=to_n)
    np.subtract(1, to_n, out=to_n)
    to_n *= to_z[:, 1]
    to_z *= gates
    to_z[:, 1] *= h - n
    to_z[:, 2] = to_n
    return to_z


# --- constructors ----------------------------------------------------------------------------------------------------


def gru_cell(
    features: int,
    *,
    reset: Reset = "after",
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[tuple[Array, Array], tuple[Array, Array]]:
    """One step of `GRU`: `(x, h) -> (h', h')` with x (batch, in) and h (batch, features).

    Parameters as those of `GRU`; `scan(gru_cell(n))` equals `GRU(n, carry=True)`.
    """
    _check("gru_cell", features, reset)
    inits = {"input_init": input_init, "hidden_init": hidden_init, "bias_init": bias_init}
    return cell(
        "gru_cell",
        features,
        (features,),
        bind(_init, features, reset, (input_init, hidden_init, bias_init)),
        bind(gru_step, reset),
        bind(gru_step_vjp, reset),
        config={"features": features, "reset": reset, **inits},
        build=gru_cell,
    )


@overload
def GRU(
    features: int,
    *,
    reset: Reset = "after",
    lengths: Literal[False] = False,
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[Array, Array]: ...
@overload
def GRU(
    features: int,
    *,
    reset: Reset = "after",
    lengths: Literal[True],
    carry: Literal[False] = False,
    **options: Unpack[Options],
) -> Layer[tuple[Array, Ints], Array]: ...
@overload
def GRU(
    features: int,
    *,
    reset: Reset = "after",
    lengths: Literal[False] = False,
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[Array, Array], tuple[Array, Array]]: ...
@overload
def GRU(
    features: int,
    *,
    reset: Reset = "after",
    lengths: Literal[True],
    carry: Literal[True],
    **options: Unpack[Options],
) -> Layer[tuple[tuple[Array, Ints], Array], tuple[Array, Array]]: ...
def GRU(
    features: int,
    *,
    reset: Reset = "after",
    reverse: bool = False,
    returns: Returns = "sequence",
    lengths: bool = False,
    carry: bool = False,
    input_init: Initializer = glorot_uniform(),
    hidden_init: Initializer = orthogonal(),
    bias_init: Initializer = zeros,
) -> Layer[Any, Any]:
    """A gated recurrent unit from `h_0 = 0`: (batch, time, in) -> (batch, time, features).

    Cho et al. 2014, eq. 5 to 8; the formula stands at the top of this module. Parameters, gates in the order r, z, n:
    `input_weight` (in, 3 features), `hidden_weight` (features, 3 features), `bias` (3 features,), and, where the reset
    comes after the product, `hidden_bias` (features,), the c that r multiplies too.

    `reset` is "after" (as in cuDNN and PyTorch) or "before" (as in the paper). `reverse`, `returns`, `lengths` and
    `carry` are as in `RNN`; the carry is h (batch, features).
    """
    _check("GRU", features, reset)
    inits = {"input_init": input_init, "hidden_init": hidden_init, "bias_init": bias_init}
    kernel = (gru_after_forward, gru_after_vjp) if reset == "after" else (gru_before_forward, gru_before_vjp)
    return recurrent(
        "GRU",
        features,
        (features,),
        bind(_init, features, reset, (input_init, hidden_init, bias_init)),
        Kernel(*kernel, joint=False),
        reverse=reverse,
        returns=returns,
        lengths=lengths,
        carry=carry,
        config={"features": features, "reset": reset, **inits},
        build=GRU,
    )


def _check(kind: str, features: int, reset: Reset) -> None:
    positive(kind, "features", features)
    if reset not in ("after", "before"):
        raise ValueError(f"{kind}({features}): expected reset 'after' or 'before', got {reset!r}")


def _init(
    features: int, reset: Reset, inits: tuple[Initializer, Initializer, Initializer], key: Key, in_shape: Shape
) -> Params:
    params = initial_weights(GATES, features, features, inits, key, in_shape)
    if reset == "after":
        params["hidden_bias"] = inits[2](key.fold_in("hidden_bias"), (features,))
    return params
