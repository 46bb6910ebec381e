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

from fnn.contract import Layer
from fnn.initializers import Initializer, glorot_uniform, orthogonal, zeros
from fnn.layers.activation import sigmoid, tanh_vjp
from fnn.layers.check import positive
from fnn.layers.dense import rows
from fnn.layers.recurrent.sequence import Options, Returns, Start, cell, initial_weights, recurrent, scaled
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

# h' = n + z (h - n), so dn = dh (1 - z) and dz = dh (h - n). All factors that lead from dh to the pre-activations are
# known before the loop: to_n = (1 - z) tanh', to_z = (h - n) sigmoid', to_r = (what r multiplies) sigmoid'.


def gru_after_forward(params: Params, zs: Array, start: Start, keep: bool) -> tuple[Any, Any]:
    """All steps with the reset after the product. The cache: the trajectory of h, the gates, and m = h U_n + c."""
    time, batch, width = zs.shape
    features = width // 3
    weight, bias = scaled(params["hidden_weight"], SCALE), params["hidden_bias"]
    hs = np.empty((time + 1, batch, features), zs.dtype)
    ms = np.empty((time if keep else 1, batch, features), zs.dtype)
    hs[0] = start[0]
    product = np.empty((batch, width), zs.dtype)
    for_gates, for_n = product[:, : 2 * features], product[:, 2 * features :]
    gates, ns = zs[:, :, : 2 * features], zs[:, :, 2 * features :]
    steps = list(hs)
    for t, (h, y, gate, n) in enumerate(zip(steps, steps[1:], gates, ns)):
        h.dot(weight, out=product)
        for_gates += gate
        _sigmoid_of_halved(for_gates, gate)
        m = ms[t if keep else 0]
        np.add(for_n, bias, out=m)
        np.multiply(gate[:, :features], m, out=y)
        n += y
        np.tanh(n, out=n)
        _update(h, gate[:, features:], n, y)
    return (hs,), (hs, gates, ns, ms)


def gru_after_vjp(
    params: Params, cache: tuple[Array, Array, Array, Array], dhs: Array, dcs: Array | None
) -> tuple[dict[str, Array], Array, tuple[Array]]:
    """From the last step to the first: `dn = dh to_n`, `dm = dn r`, `dr = dn to_r`, `dz = dh to_z`, and the h before
    gets `dh z + [dr dz dm] U'`."""
    hs, gates, ns, ms = cache
    time, batch, features = dhs.shape
    to_z, to_n = _towards_z_and_n(hs, gates, ns)
    rs = gates[:, :, :features]
    to_r = (1 - rs) * rs
    to_r *= ms
    back = params["hidden_weight"].T.copy()
    dzs, dns = np.empty((time, batch, 3 * features), dhs.dtype), np.empty_like(dhs)
    dh, through = np.zeros_like(dhs[0]), np.empty_like(dhs[0])
    for t in range(time - 1, -1, -1):
        dz, dn, r, z = dzs[t], dns[t], gates[t, :, :features], gates[t, :, features:]
        dh += dhs[t]
        np.multiply(dh, to_n[t], out=dn)
        np.multiply(dn, to_r[t], out=dz[:, :features])
        np.multiply(dh, to_z[t], out=dz[:, features : 2 * features])
        np.multiply(dn, r, out=dz[:, 2 * features :])
        dh *= z
        dz.dot(back, out=through)
        dh += through
    flat = rows(dzs)
    weight = rows(hs[:-1]).T.dot(flat)
    bias = ones(len(flat), flat.dtype).dot(flat[:, 2 * features :])
    dzs[:, :, 2 * features :] = dns
    return {"hidden_weight": weight, "hidden_bias": bias}, dzs, (dh,)


def gru_before_forward(params: Params, zs: Array, start: Start, keep: bool) -> tuple[Any, Any]:
    """All steps with the reset before the product. The cache: the trajectory of h, and the gates."""
    time, batch, width = zs.shape
    features = width // 3
    weight = scaled(params["hidden_weight"], SCALE)
    weight, candidate = weight[:, : 2 * features].copy(), weight[:, 2 * features :].copy()
    hs = np.empty((time + 1, batch, features), zs.dtype)
    hs[0] = start[0]
    for_gates, for_n = np.empty((batch, 2 * features), zs.dtype), np.empty((batch, features), zs.dtype)
    gates, ns = zs[:, :, : 2 * features], zs[:, :, 2 * features :]
    steps = list(hs)
    for h, y, gate, n in zip(steps, steps[1:], gates, ns):
        h.dot(weight, out=for_gates)
        for_gates += gate
        _sigmoid_of_halved(for_gates, gate)
        np.multiply(gate[:, :features], h, out=y)
        y.dot(candidate, out=for_n)
        n += for_n
        np.tanh(n, out=n)
        _update(h, gate[:, features:], n, y)
    return (hs,), (hs, gates, ns)


def gru_before_vjp(
    params: Params, cache: tuple[Array, Array, Array], dhs: Array, dcs: Array | None
) -> tuple[dict[str, Array], Array, tuple[Array]]:
    """From the last step to the first: `dn = dh to_n`, `dm = dn U_n'`, `dr = dm to_r`, `dz = dh to_z`, and the h before
    gets `dh z + dm r + [dr dz] U_rz'`."""
    hs, gates, ns = cache
    time, batch, features = dhs.shape
    to_z, to_n = _towards_z_and_n(hs, gates, ns)
    rs = gates[:, :, :features]
    to_r = (1 - rs) * rs
    to_r *= hs[:-1]
    back = params["hidden_weight"].T
    back, candidate = back[: 2 * features].copy(), back[2 * features :].copy()
    dgates, dns = np.empty((time, batch, 2 * features), dhs.dtype), np.empty_like(dhs)
    dh, dm, through = np.zeros_like(dhs[0]), np.empty_like(dhs[0]), np.empty_like(dhs[0])
    for t in range(time - 1, -1, -1):
        dgate, dn, r, z = dgates[t], dns[t], gates[t, :, :features], gates[t, :, features:]
        dh += dhs[t]
        np.multiply(dh, to_n[t], out=dn)
        dn.dot(candidate, out=dm)
        np.multiply(dm, to_r[t], out=dgate[:, :features])
        np.multiply(dh, to_z[t], out=dgate[:, features:])
        dh *= z
        dm *= r
        dh += dm
        dgate.dot(back, out=through)
        dh += through
    weight = np.concatenate([rows(hs[:-1]).T.dot(rows(dgates)), rows(rs * hs[:-1]).T.dot(rows(dns))], axis=1)
    return {"hidden_weight": weight}, np.concatenate([dgates, dns], axis=2), (dh,)


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


def _towards_z_and_n(hs: Array, gates: Array, ns: Array) -> tuple[Array, Array]:
    """`(h - n) z (1 - z)` and `(1 - z) (1 - n**2)` for all steps."""
    z = gates[:, :, hs.shape[2] :]
    rest = 1 - z
    to_z = hs[:-1] - ns
    to_z *= z
    to_z *= rest
    to_n = ns * ns
    np.subtract(1, to_n, out=to_n)
    to_n *= rest
    return to_z, to_n


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

    Cho et al. 2014, eq. 5 to 8; the formula stands at the top of this module. Parameters: `input_weight`
    (in, 3 features), `hidden_weight` (features, 3 features), `bias` (3 features,), gates in the order r, z, n, and, where
    the reset comes after the product, `hidden_bias` (features,), the c that r multiplies too.

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
        SCALE,
        bind(_init, features, reset, (input_init, hidden_init, bias_init)),
        *kernel,
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
