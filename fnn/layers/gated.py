"""Activations over the channels of the last axis: a learned slope each (PRelu), one half gating the other (Glu), the
largest of several (Maxout).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fnn.contract import EVAL, Layer, Mode, layer, no_params, stateless
from fnn.layers.activation import OBJECT, Sigmoid, float_error
from fnn.check import call_hint, feature_shape, input_error, number, positive
from fnn.layers.dense import rows
from fnn.random import Key
from fnn.types import EMPTY, Array, NDArray, Params, Shape, ShapeError, State, bind, ones

# --- prelu: y = max(x, 0) + a min(x, 0)        da = sum of dy min(x, 0) over the examples        dx = dy or a dy -----


def prelu_forward(params: Params, x: Array) -> tuple[Array, Array]:
    """`y = max(x, 0) + a min(x, 0)` with a slope a for every channel; the cache is x."""
    slope = params["slope"]
    if getattr(x, "ndim", 0) < 2 or x.shape[-1] != slope.shape[0] or x.dtype != slope.dtype:
        raise input_error("PRelu", f"(batch, ..., {slope.shape[0]})", x, slope)
    y = np.minimum(x, 0)
    y *= slope
    y += np.maximum(x, 0)
    return y, x


def prelu_param_vjp(params: Params, x: Array, dy: Array) -> Params:
    """`da = sum of dy min(x, 0) over everything but the channels`."""
    product = np.minimum(x, 0)
    product *= dy
    flat = rows(product)
    return {"slope": ones(len(flat), dy.dtype).dot(flat)}


def prelu_vjp(params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    """As `prelu_param_vjp`, and `dx = dy where x > 0, else a dy`."""
    slope = params["slope"]
    dx = (x > 0).astype(dy.dtype)
    dx *= 1 - slope
    dx += slope
    dx *= dy
    return prelu_param_vjp(params, x, dy), dx


def PRelu(init: float = 0.25) -> Layer[Array, Array]:
    """`x` where x > 0, else `a x`, with a learned a for every channel of `(batch, ..., channels)`.

    Parameter: `slope` (channels,), at first all `init`. He, Zhang, Ren and Sun, "Delving deep into rectifiers",
    arXiv:1502.01852.
    """
    init = number("PRelu", "init", init)
    return stateless(
        "PRelu",
        bind(_prelu_init, float(init)),
        prelu_forward,
        prelu_vjp,
        out_shape=bind(feature_shape, "PRelu"),
        param_vjp=prelu_param_vjp,
        config={"init": float(init)},
        build=PRelu,
    )


def _prelu_init(value: float, key: Key, in_shape: Any) -> Params:
    return {"slope": np.full(feature_shape("PRelu", in_shape)[-1], value, np.float32)}


# --- glu: x = [a | b]        y = a g(b)        da = dy g(b)        db = vjp of g at b, of dy a ------------------------

GluCache: TypeAlias = tuple[Array, Array, Any]


def glu_forward(
    gate: Layer[Array, Array], params: Params, state: State, x: Array, mode: Mode
) -> tuple[Array, State, GluCache]:
    """`y = a g(b)`, a and b the halves of the last axis of x; the cache is `(x, g(b), cache of g)`."""
    a, b = _halves(gate, x)
    g, _, cache = gate.forward(EMPTY, EMPTY, b, EVAL)
    return a * g, state, (x, g, cache)


def glu_vjp(gate: Layer[Array, Array], params: Params, cache: GluCache, dy: Array) -> tuple[Params, Array]:
    """`dx = [dy g(b) | vjp of g at b, of dy a]`."""
    x, g, of_gate = cache
    half = x.shape[-1] // 2
    dx = np.empty_like(x)
    np.multiply(dy, g, out=dx[..., :half])
    dx[..., half:] = gate.vjp(EMPTY, of_gate, dy * x[..., :half])[1]
    return EMPTY, dx


def glu_infer(gate: Layer[Array, Array], params: Params, state: State, x: Array) -> Array:
    """`y = a g(b)`."""
    a, b = _halves(gate, x)
    return a * gate.apply(EMPTY, b)


def Glu(gate: Layer[Array, Array] = Sigmoid) -> Layer[Array, Array]:
    """`a g(b)`, a and b the halves of the last axis: `(batch, ..., 2 n)` becomes `(batch, ..., n)`.

    `gate` is an elementwise activation without parameters: `Glu()` is the gated linear unit, `Glu(Gelu)` GEGLU,
    `Glu(Silu)` SwiGLU, `Glu(Relu)` ReGLU, `Glu(Identity)` the bilinear layer. Dauphin, Fan, Auli and Grangier,
    arXiv:1612.08083; Shazeer, "GLU variants improve transformer", arXiv:2002.05202.
    """
    if not isinstance(gate, Layer):
        raise TypeError(f"Glu: expected an activation, got {gate!r}{call_hint(gate, '')}")
    if gate.draws or gate.children or gate.init(Key(0), (6,)) or gate.out_shape((6,)) != (6,):
        raise ValueError(f"Glu: expected an elementwise activation without parameters, got {gate!r}")
    return layer(
        "Glu",
        no_params,
        bind(glu_forward, gate),
        bind(glu_vjp, gate),
        out_shape=bind(_glu_out_shape, gate),
        infer=bind(glu_infer, gate),
        config={"gate": gate},
        draws=False,
        build=Glu,
    )


def _halves(gate: Layer[Array, Array], x: Array) -> tuple[Array, Array]:
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error(_glu_name(gate), x)
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ShapeError(f"{_glu_name(gate)}: expected input (batch, ..., an even number of features), got {x.shape}")
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _glu_out_shape(gate: Layer[Array, Array], in_shape: Any) -> Shape:
    shape = feature_shape(_glu_name(gate), in_shape)
    if shape[-1] % 2:
        raise ShapeError(f"{_glu_name(gate)}: expected an input shape with an even number of features, got {in_shape}")
    return (*shape[:-1], shape[-1] // 2)


def _glu_name(gate: Layer[Array, Array]) -> str:
    return f"Glu({gate!r})"


# --- maxout: x = [x_0 | x_1 | ...]        y = max over j of x_j        dx_j = dy where x_j is the largest ------------

MaxoutCache: TypeAlias = NDArray[np.unsignedinteger[Any]]


def maxout_forward(pieces: int, params: Params, x: Array) -> tuple[Array, MaxoutCache]:
    """`y = max over j of x_j`, x_j the equal pieces of the last axis; the cache is the j, the first one of equals."""
    first, *others = _split(pieces, x)
    y = first.copy()
    index = np.min_scalar_type(pieces)
    which = np.zeros(y.shape, index)
    for j, piece in enumerate(others, 1):
        larger = (piece > y).astype(index)
        larger *= j
        np.maximum(which, larger, out=which)
        np.maximum(y, piece, out=y)
    return y, which


def maxout_vjp(pieces: int, params: Params, which: MaxoutCache, dy: Array) -> tuple[Params, Array]:
    """`dx_j = dy where the largest was x_j, else 0`."""
    units = dy.shape[-1]
    dx = np.empty((*dy.shape[:-1], pieces * units), dy.dtype)
    for j in range(pieces):
        np.multiply(dy, which == j, out=dx[..., j * units : (j + 1) * units])
    return EMPTY, dx


def maxout_infer(pieces: int, params: Params, x: Array) -> Array:
    """`y = max over j of x_j`."""
    first, *others = _split(pieces, x)
    y = first.copy()
    for piece in others:
        np.maximum(y, piece, out=y)
    return y


def Maxout(pieces: int) -> Layer[Array, Array]:
    """The largest of corresponding numbers: `(batch, ..., pieces n)` becomes `(batch, ..., n)`.

    Unit i is the largest of the features i, n + i, 2 n + i, ...; with a Dense before it, a learned convex function.
    Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout networks", arXiv:1302.4389.
    """
    pieces = positive("Maxout", "pieces", pieces)
    return stateless(
        "Maxout",
        no_params,
        bind(maxout_forward, pieces),
        bind(maxout_vjp, pieces),
        out_shape=bind(_maxout_out_shape, pieces),
        infer=bind(maxout_infer, pieces),
        config={"pieces": pieces},
        build=Maxout,
    )


def _split(pieces: int, x: Array) -> list[Array]:
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error(f"Maxout({pieces})", x)
    if x.ndim < 2 or x.shape[-1] % pieces:
        raise ShapeError(f"Maxout({pieces}): expected input (batch, ..., a multiple of {pieces}), got {x.shape}")
    units = x.shape[-1] // pieces
    return [x[..., j * units : (j + 1) * units] for j in range(pieces)]


def _maxout_out_shape(pieces: int, in_shape: Any) -> Shape:
    shape = feature_shape(f"Maxout({pieces})", in_shape)
    if shape[-1] % pieces:
        raise ShapeError(f"Maxout({pieces}): expected an input shape (..., a multiple of {pieces}), got {in_shape}")
    return (*shape[:-1], shape[-1] // pieces)
