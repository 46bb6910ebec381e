"""Elementwise activations, one row each in the table at the end: a function `f(x) -> (y, cache)` and its vjp
`(cache, dy) -> dx`. The cache is the answer y where the derivative is cheap from it, and the derivative itself where it
is dear.

All are finite with finite derivatives for |x| up to 1e4 and far beyond, and overflow nowhere on the way. At a kink the
derivative is that of one side; each vjp states its condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fnn.contract import Layer, Mode, layer, no_params, same_shape
from fnn.check import fraction
from fnn.layers.abreast import in_order
from fnn.layers.erf import upper_tail
from fnn.types import EMPTY, Array, Params, State, bind

C = TypeVar("C")


def activation(
    kind: str,
    forward: Callable[[Array], tuple[Array, C]],
    vjp: Callable[[C, Array], Array],
    *,
    infer: Callable[[Array], Array] | None = None,
    out_shape: Callable[[Any], Any] = same_shape,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Layer[Array, Array]:
    """A layer without parameters from `forward(x) -> (y, cache)` and `vjp(cache, dy) -> dx`.

    `infer(x) -> y` is for those whose cache costs something. What is no array of floats raises `TypeError`.
    """
    return layer(
        kind,
        no_params,
        bind(_forward, kind, forward),
        bind(_vjp, vjp),
        out_shape=out_shape,
        infer=None if infer is None else bind(_infer, kind, infer),
        config=config,
        draws=False,
        build=build,
    )


def _forward(
    kind: str, f: Callable[[Array], tuple[Array, C]], params: Params, state: State, x: Array, mode: Mode
) -> tuple[Array, State, C]:
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error(kind, x)
    y, cache = f(x)
    return y, state, cache


def _vjp(f: Callable[[C, Array], Array], params: Params, cache: C, dy: Array) -> tuple[Params, Array]:
    like: Any = cache[0] if isinstance(cache, tuple) and cache else cache
    return EMPTY, f(cache, in_order(dy, like) if dy.ndim > 2 and isinstance(like, np.ndarray) else dy)


def _infer(kind: str, f: Callable[[Array], Array], params: Params, state: State, x: Array) -> Array:
    if getattr(x, "dtype", OBJECT).kind != "f":
        raise float_error(kind, x)
    return f(x)


OBJECT = np.dtype(object)


def float_error(kind: str, x: Any) -> TypeError:
    """The error for an input that is not an array of floats."""
    if not isinstance(x, np.ndarray):
        return TypeError(f"{kind}: expected an array, got {type(x).__name__}; use np.asarray(x, np.float32)")
    return TypeError(f"{kind}: expected an array of floats, got {x.dtype}; use x.astype(np.float32)")


def scaled(d: Array, dy: Array) -> Array:
    """`dx = dy d`: the vjp of the activations that keep their derivative d."""
    return d * dy


# --- sigmoid: y = 1 / (1 + exp(-x)),   y' = y (1 - y) ----------------------------------------------------------------


def sigmoid(x: Array) -> tuple[Array, Array]:
    """`1 / (1 + exp(-x))`, as e / (1 + e) with e = exp(x): exact limits, full relative accuracy in the lower tail.

    Above 40 the result is 1 to the last bit of float64, so e need not grow further and cannot overflow.
    """
    e = _exp(x)
    y = e + 1
    np.divide(e, y, out=y)
    return y, y


def sigmoid_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy y (1 - y)`."""
    dx = 1 - y
    dx *= y
    dx *= dy
    return dx


def _exp(x: Array) -> Array:
    """`exp(min(x, 40))`."""
    e = np.minimum(x, 40)
    return np.exp(e, out=e)


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


# --- softplus: y = log(1 + exp(x)),   y' = sigmoid(x) = 1 - exp(-y) --------------------------------------------------


def softplus(x: Array) -> tuple[Array, Array]:
    """`log(1 + exp(x))`, as max(x, 0) + log1p(exp(-|x|)): no overflow, full relative accuracy in the lower tail."""
    y = np.abs(x)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(x, 0)
    return y, y


def softplus_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy (1 - exp(-y))`."""
    dx = np.negative(y)
    np.expm1(dx, out=dx)
    dx *= dy
    return np.negative(dx, out=dx)


# --- silu, also called swish: y = x s with s = sigmoid(x),   y' = s + y (1 - s) --------------------------------------


def silu(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """`x sigmoid(x)` (Elfwing, Uchibe and Doya, arXiv:1702.03118)."""
    s, _ = sigmoid(x)
    y = x * s
    return y, (y, s)


def silu_vjp(cache: tuple[Array, Array], dy: Array) -> Array:
    """`dx = dy (s + y (1 - s))`."""
    y, s = cache
    dx = 1 - s
    dx *= y
    dx += s
    dx *= dy
    return dx


# --- mish: y = x tanh(softplus(x)) -----------------------------------------------------------------------------------
#
# With e = exp(x) and r = 2 / (e (e + 2) + 2):
#   w = tanh(log(1 + e)) = ((1 + e)**2 - 1) / ((1 + e)**2 + 1) = e (e + 2) r / 2   and   w' = e (e + 1) r**2.


def mish(x: Array) -> tuple[Array, Array]:
    """`x tanh(log(1 + exp(x)))` (Misra, arXiv:1908.08681); the cache is the derivative `w + x e (e + 1) r**2`."""
    e, w, r = _mish(x)
    y = x * w
    d = e + 1
    d *= r
    e *= r
    d *= e
    d *= x
    d += w
    return y, d


def mish_infer(x: Array) -> Array:
    """The same without a cache."""
    _, y, _ = _mish(x)
    y *= x
    return y


def _mish(x: Array) -> tuple[Array, Array, Array]:
    e = _exp(x)
    w = e + 2
    w *= e
    r = w + 2
    np.divide(2, r, out=r)
    w *= r
    w *= 0.5
    return e, w, r


# --- gelu: y = x Phi(x),   y' = Phi(x) + x phi(x) --------------------------------------------------------------------
#
# With a = |x| and Q = Phi(-a), Phi(x) is Q or 1 - Q, so y = max(x, 0) - a Q for either sign of x. With w = Q - a phi(a)
# the derivative is w for x < 0 and 1 - w for x >= 0.

DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


def gelu(x: Array) -> tuple[Array, Array]:
    """`x Phi(x)`, Phi the normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415). The cache is y'.

    The error is below 1e-15 (float64) and 2e-7 (float32) times max(1, |y|), and small relative to y in the negative
    tail too: see `upper_tail`.
    """
    a = np.abs(x)
    tail, density = upper_tail(a)
    density *= DENSITY_AT_0
    density *= a
    w = np.subtract(tail, density, out=density)
    a *= tail
    y = np.maximum(x, 0)
    y -= a
    d = (x >= 0).astype(x.dtype)
    sign = np.multiply(d, -2, out=tail)
    sign += 1
    w *= sign
    d += w
    return y, d


def gelu_infer(x: Array) -> Array:
    """The same without a cache."""
    a = np.abs(x)
    a *= upper_tail(a)[0]
    y = np.maximum(x, 0)
    y -= a
    return y


# --- gelu by tanh: y = x s with s = sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x**3),   y' = s + y (1 - s) 2 z' ----

SLOPE = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """`x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2`: Gelu as GPT-2 approximates it, at half the cost.

    The difference from Gelu is up to 5e-4. The cache is the derivative.
    """
    square, s = _gelu_tanh(x)
    y = x * s
    d = 1 - s
    d *= y
    square *= 3 * SLOPE * CUBIC
    square += SLOPE
    d *= square
    d += s
    return y, d


def gelu_tanh_infer(x: Array) -> Array:
    """The same without a cache."""
    _, y = _gelu_tanh(x)
    y *= x
    return y


def _gelu_tanh(x: Array) -> tuple[Array, Array]:
    square = x * x
    z = square * (SLOPE * CUBIC)
    z += SLOPE
    z *= x
    return square, sigmoid(z)[0]


# --- relu: y' = 1 where y > 0 ----------------------------------------------------------------------------------------


def relu(x: Array) -> tuple[Array, Array]:
    """`max(x, 0)`."""
    y = np.maximum(x, 0)
    return y, y


def relu_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy where y > 0, else 0`."""
    return np.multiply(dy, y > 0)


# --- leaky relu: y' = 1 where y > 0, else slope ----------------------------------------------------------------------


def leaky_relu(slope: float, x: Array) -> tuple[Array, Array]:
    """`max(x, slope x)`, for 0 <= slope < 1."""
    y = x * slope
    np.maximum(x, y, out=y)
    return y, y


def leaky_relu_vjp(slope: float, y: Array, dy: Array) -> Array:
    """`dx = dy where y > 0, else slope dy`."""
    dx = (y > 0).astype(dy.dtype)
    dx *= 1 - slope
    dx += slope
    dx *= dy
    return dx


# --- elu and selu: y = scale (max(x, 0) + alpha (exp(min(x, 0)) - 1)),   y' = scale where y > 0, else y + scale alpha -


def elu(alpha: float, scale: float, x: Array) -> tuple[Array, Array]:
    """`scale x` for x > 0, else `scale alpha (exp(x) - 1)`."""
    below = np.minimum(x, 0)
    y = x - below
    np.expm1(below, out=below)
    if alpha != 1:
        below *= alpha
    y += below
    if scale != 1:
        y *= scale
    return y, y


def elu_vjp(alpha: float, scale: float, y: Array, dy: Array) -> Array:
    """`dx = scale dy where y > 0, else (y + scale alpha) dy`."""
    dx = np.minimum(y, 0)
    dx += scale * alpha
    if alpha != 1:
        step = (y > 0).astype(dy.dtype)
        step *= scale * (1 - alpha)
        dx += step
    dx *= dy
    return dx


# --- piecewise linear bounds: hard tanh, hard sigmoid, hard swish ----------------------------------------------------


def hard_tanh(x: Array) -> tuple[Array, Array]:
    """`min(max(x, -1), 1)`."""
    y = np.clip(x, -1, 1)
    return y, y


def hard_tanh_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy where -1 < y < 1, else 0`."""
    dx = (np.abs(y) < 1).astype(dy.dtype)
    dx *= dy
    return dx


def hard_sigmoid(x: Array) -> tuple[Array, Array]:
    """`min(max(x / 6 + 1/2, 0), 1)`."""
    y = x * (1 / 6)
    y += 0.5
    np.clip(y, 0, 1, out=y)
    return y, y


def hard_sigmoid_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy / 6 where 0 < y < 1, else 0`; there, and only there, y**2 differs from y."""
    dx = np.not_equal(y * y, y).astype(dy.dtype)
    dx *= 1 / 6
    dx *= dy
    return dx


def hard_swish(x: Array) -> tuple[Array, Array]:
    """`x h` with `h = hard_sigmoid(x)` (Howard et al., arXiv:1905.02244); the cache is h."""
    h, _ = hard_sigmoid(x)
    return x * h, h


def hard_swish_vjp(h: Array, dy: Array) -> Array:
    """`dx = dy (h + x h')`: 1 above 3, 0 below -3, and between, where 0 < h < 1, `x h' = x / 6 = h - 1/2`."""
    dx = np.not_equal(h * h, h).astype(dy.dtype)
    dx *= h - 0.5
    dx += h
    dx *= dy
    return dx


# --- algebraic: softsign and squareplus ------------------------------------------------------------------------------


def softsign(x: Array) -> tuple[Array, Array]:
    """`x r` with `r = 1 / (1 + |x|)`; the cache is r."""
    r = np.abs(x)
    r += 1
    np.divide(1, r, out=r)
    return x * r, r


def softsign_vjp(r: Array, dy: Array) -> Array:
    """`dx = dy r**2`."""
    dx = r * r
    dx *= dy
    return dx


def squareplus(b: float, x: Array) -> tuple[Array, Array]:
    """`(x + sqrt(x**2 + b)) / 2` (Barron, arXiv:2112.11687), as max(x, 0) + b / 2 / (sqrt(x**2 + b) + |x|).

    In the second form nothing cancels for negative x.
    """
    y = x * x
    y += b
    np.sqrt(y, out=y)
    y += np.abs(x)
    np.divide(b / 2, y, out=y)
    y += np.maximum(x, 0)
    return y, y


def squareplus_vjp(b: float, y: Array, dy: Array) -> Array:
    """`dx = dy y**2 / (y**2 + b / 4)`: y solves y (y - x) = b / 4, and y' = y / sqrt(x**2 + b) = y / (2 y - x)."""
    dx = y * y
    dx /= dx + b / 4
    dx *= dy
    return dx


# --- large arrays ----------------------------------------------------------------------------------------------------

BLOCK = 2**15


def in_blocks(f: Callable[[Array], tuple[Array, Array]], x: Array) -> tuple[Array, Array]:
    """`f(x)` for an elementwise f of many passes, over pieces that stay in the second-level cache.

    Half the time for half a million numbers: their temporaries would be new memory at every pass.
    """
    if x.size <= 2 * BLOCK:
        return f(x)
    flat = x.reshape(-1)
    y, d = np.empty_like(flat), np.empty_like(flat)
    for start in range(0, flat.size, BLOCK):
        part = slice(start, start + BLOCK)
        y[part], d[part] = f(flat[part])
    return y.reshape(x.shape), d.reshape(x.shape)


def infer_in_blocks(f: Callable[[Array], Array], x: Array) -> Array:
    """The same for a function of one result."""
    if x.size <= 2 * BLOCK:
        return f(x)
    flat = x.reshape(-1)
    y = np.empty_like(flat)
    for start in range(0, flat.size, BLOCK):
        y[start : start + BLOCK] = f(flat[start : start + BLOCK])
    return y.reshape(x.shape)


# --- the table -------------------------------------------------------------------------------------------------------

Sigmoid = activation("Sigmoid", sigmoid, sigmoid_vjp)
Tanh = activation("Tanh", tanh, tanh_vjp)
Softplus = activation("Softplus", softplus, softplus_vjp)
Silu = activation("Silu", silu, silu_vjp)
Mish = activation("Mish", bind(in_blocks, mish), scaled, infer=bind(infer_in_blocks, mish_infer))
Gelu = activation("Gelu", bind(in_blocks, gelu), scaled, infer=bind(infer_in_blocks, gelu_infer))
GeluTanh = activation("GeluTanh", bind(in_blocks, gelu_tanh), scaled, infer=bind(infer_in_blocks, gelu_tanh_infer))
Relu = activation("Relu", relu, relu_vjp)
HardTanh = activation("HardTanh", hard_tanh, hard_tanh_vjp)
HardSigmoid = activation("HardSigmoid", hard_sigmoid, hard_sigmoid_vjp)
HardSwish = activation("HardSwish", hard_swish, hard_swish_vjp)
Softsign = activation("Softsign", softsign, softsign_vjp)
SELU = (1.6732632423543772, 1.0507009873554805)
Selu = activation("Selu", bind(elu, *SELU), bind(elu_vjp, *SELU))


def LeakyRelu(slope: float = 0.01) -> Layer[Array, Array]:
    """`x` where x > 0, else `slope x`; 0 <= slope < 1."""
    slope = fraction("LeakyRelu", "slope", slope)
    return activation(
        "LeakyRelu",
        bind(leaky_relu, slope),
        bind(leaky_relu_vjp, slope),
        config={"slope": slope},
        build=LeakyRelu,
    )


def Elu(alpha: float = 1.0) -> Layer[Array, Array]:
    """`x` where x > 0, else `alpha (exp(x) - 1)` (Clevert, Unterthiner and Hochreiter, arXiv:1511.07289)."""
    alpha = _positive("Elu", "alpha", alpha)
    return activation(
        "Elu", bind(elu, alpha, 1.0), bind(elu_vjp, alpha, 1.0), config={"alpha": alpha}, build=Elu
    )


def Squareplus(b: float = 4.0) -> Layer[Array, Array]:
    """`(x + sqrt(x**2 + b)) / 2`: softplus without transcendental functions; `sqrt(b) / 2` at 0."""
    b = _positive("Squareplus", "b", b)
    return activation(
        "Squareplus", bind(squareplus, b), bind(squareplus_vjp, b), config={"b": b}, build=Squareplus
    )


def _positive(who: str, name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{who}: expected {name} to be a positive number, got {value!r}")
    return float(value)
