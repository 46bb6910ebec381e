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
    Arrays,
    Back,
    Kernel,
    Options,
    Returns,
    cell,
    initial_weights,
    recurrent,
    scaled,
)
from fnn.random import Key
from fnn.types import Array, Ints, Params, Shape, bind, ones

Reset: TypeAlias = Literal["after", "before"]

GATES = "rzn"
SCALE = (0.5, 0.5, 1.0)


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

def gru_after_forward(params: Params, zs: Array, hx: Array, carries: Arrays) -> Arrays:
    """All steps with the reset after the product; the gates take the place of zs, the cache is m = h U_n + c."""
    (hs,), features = carries, zs.shape[2] // 3
    weight, bias = scaled(params["hidden_weight"], SCALE), params["hidden_bias"]
    ms = np.empty_like(hs[1:])
    product = np.empty_like(zs[0])
    for_rz, for_n = product[:, : 2 * features], product[:, 2 * features :]
    steps = list(hs)
    for rz, r, z, n, h, y, m in zip(zs[:, :, : 2 * features], *_three(zs), steps, steps[1:], ms):
        h.dot(weight, out=product)
        for_rz += rz
        _sigmoid_of_halved(for_rz, rz)
        np.add(for_n, bias, out=m)
        np.multiply(r, m, out=y)
        n += y
        np.tanh(n, out=n)
        _update(h, z, n, y)
    return (ms,)


def gru_after_vjp(params: Params, gates: Array, carries: Arrays, cache: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with h' = n + z (h - n):

        dz_n = dh' (1 - z) (1 - n**2)        dz_r = dz_n m r (1 - r)        dz_z = dh' (h - n) z (1 - z)
        dm = dz_n r                          dh = dh' z + [dz_r dz_z dm] U'
    """
    (hs,), (ms,), (dh,), dzs, dhs = carries, cache, back.carry, back.dzs, back.dhs
    features = dhs.shape[2]
    dns, through = np.empty_like(dhs), np.empty_like(dh)
    dz_r, dz_z, dms = _three(dzs)  # dm stands in the place of dz_n until the loop is done
    _factors(gates, hs[:-1], ms, dz_r, dz_z, dns)
    dms[...] = gates[:, :, :features]
    each = (dzs, *_three(dzs), dns, dhs, gates[:, :, features : 2 * features])
    for dz, dz_r, dz_z, dm, dn, dy, z in zip(*(a[::-1] for a in each)):
        dh += dy
        dn *= dh
        dz_r *= dn
        dz_z *= dh
        dm *= dn
        dh *= z
        dz.dot(back.weight, out=through)
        dh += through
    flat = rows(dzs)
    bias = ones(len(flat), flat.dtype).dot(rows(dms))
    grads = {"hidden_weight": rows(hs[:-1]).T.dot(flat), "hidden_bias": bias}
    dms[...] = dns
    return grads


def gru_before_forward(params: Params, zs: Array, hx: Array, carries: Arrays) -> Arrays:
    """All steps with the reset before the product; the gates take the place of zs."""
    (hs,), features = carries, zs.shape[2] // 3
    weight = scaled(params["hidden_weight"], SCALE)
    weight, candidate = weight[:, : 2 * features].copy(), weight[:, 2 * features :].copy()
    for_rz, for_n = np.empty((zs.shape[1], 2 * features), zs.dtype), np.empty_like(hs[0])
    steps = list(hs)
    for rz, r, z, n, h, y in zip(zs[:, :, : 2 * features], *_three(zs), steps, steps[1:]):
        h.dot(weight, out=for_rz)
        for_rz += rz
        _sigmoid_of_halved(for_rz, rz)
        np.multiply(r, h, out=y)
        y.dot(candidate, out=for_n)
        n += for_n
        np.tanh(n, out=n)
        _update(h, z, n, y)
    return ()


def gru_before_vjp(params: Params, gates: Array, carries: Arrays, cache: Arrays, back: Back) -> dict[str, Array]:
    """From the last step to the first, with h' = n + z (h - n) and m = r h:

        dz_n = dh' (1 - z) (1 - n**2)        dm = dz_n U_n'        dz_r = dm h r (1 - r)
        dz_z = dh' (h - n) z (1 - z)         dh = dh' z + dm r + [dz_r dz_z] U_rz'
    """
    (hs,), (dh,), dzs, dhs = carries, back.carry, back.dzs, back.dhs
    features = dhs.shape[2]
    weight, candidate = back.weight[: 2 * features], back.weight[2 * features :]
    dm, through = np.empty_like(dh), np.empty_like(dh)
    _factors(gates, hs[:-1], hs[:-1], *_three(dzs))
    each = (dzs[:, :, : 2 * features], *_three(dzs), dhs, *_three(gates)[:2])
    for dz_rz, dz_r, dz_z, dz_n, dy, r, z in zip(*(a[::-1] for a in each)):
        dh += dy
        dz_z *= dh
        dz_n *= dh
        dz_n.dot(candidate, out=dm)
        dz_r *= dm
        dh *= z
        dm *= r
        dh += dm
        dz_rz.dot(weight, out=through)
        dh += through
    m = gates[:, :, :features] * hs[:-1]
    flat = rows(dzs)
    products = rows(hs[:-1]).T.dot(flat[:, : 2 * features]), rows(m).T.dot(flat[:, 2 * features :])
    return {"hidden_weight": np.concatenate(products, axis=1)}


def _sigmoid_of_halved(z: Array, y: Array) -> None:
    """`y = (1 + tanh(z)) / 2`, written into y."""
    np.tanh(z, out=y)
    y *= 0.5
    y += 0.5


def _update(h: Array, z: Array, n: Array, y: Array) -> None:
    """`y = n + z (h - n)`, written into y."""
    np.subtract(h, n, out=y)
    y *= z
    y += n


def _factors(gates: Array, h: Array, m: Array, to_r: Array, to_z: Array, to_n: Array) -> None:
    """Writes `m r (1 - r)`, `(h - n) z (1 - z)` and `(1 - z) (1 - n**2)`."""
    r, z, n = _three(gates)
    np.subtract(1, r, out=to_r)
    to_r *= r
    to_r *= m
    np.multiply(n, n, out=to_n)
    np.subtract(1, to_n, out=to_n)
    np.subtract(1, z, out=to_z)
    to_n *= to_z
    to_z *= z
    to_z *= h - n


def _three(gates: Array) -> tuple[Array, Array, Array]:
    """The gates r, z, n of an array whose last axis holds them side by side, as views."""
    k = gates.shape[-1] // 3
    return gates[..., :k], gates[..., k : 2 * k], gates[..., 2 * k :]


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
        Kernel(*kernel, project=SCALE),
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
