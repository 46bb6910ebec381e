"""Elementwise activations, one row each in the table at the end: a function `f(x) -> (y, cache)` and its vjp
`(cache, dy) -> dx`. The cache is the answer y where the derivative is cheap from it, and the derivative itself where it
is dear.

All are finite with finite derivatives for |x| up to 1e4 and far beyond, and overflow nowhere on the way. At a kink the
derivative is that of one side; each vjp states its condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from fnn.contract import Layer, Mode, layer, no_params, same_shape
from fnn.check import above_zero, fraction
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


def _exp(x: Array, out: Array | None = None) -> Array:
    """`exp(min(x, 40))`."""
    e: Array = np.minimum(x, _ceiling_of(x), out=np.empty_like(x) if out is None else out)
    return np.exp(e, out=e)


def _ceiling_of(x: Array) -> Any:
    return _ceiling(x.size, x.dtype).reshape(x.shape) if x.size <= BLOCK else 40


@lru_cache(maxsize=64)
def _ceiling(n: int, dtype: np.dtype[Any]) -> Array:
    """n times 40: NumPy takes the minimum with an array in a quarter of the time that it needs for one number."""
    ceiling = np.repeat(np.array(40, dtype), n)  # what is kept is not made by what a recorder replaces
    ceiling.setflags(write=False)
    return ceiling


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
    """`log(1 + exp(x))`, as max(x, 0) + log(1 + exp(-|x|)): no overflow, full relative accuracy in the lower tail."""
    y = log1p_exp(x)
    y += np.maximum(x, 0)
    return y, y


def log1p_exp(x: Array) -> Array:
    """`log(1 + e)` with `e = exp(-|x|)`, as `log(u) + (e - (u - 1)) / u` with `u = 1 + e` as it was rounded.

    The second term is what the rounding took away; where e is lost in u, it is all there is. NumPy's `log1p` takes many
    times as long as its `log`.
    """
    e = np.abs(x)
    np.negative(e, out=e)
    np.exp(e, out=e)
    u = e + 1
    l: Array = np.log(u)
    e += 1 - u
    e /= u
    l += e
    return l


def softplus_vjp(y: Array, dy: Array) -> Array:
    """`dx = dy (1 - exp(-y))`, as `2 t / (1 + t)` with `t = tanh(y / 2)`: nothing cancels where y is small."""
    t = y * 0.5
    np.tanh(t, out=t)
    dx = t + 1
    np.divide(t, dx, out=dx)
    dx *= 2
    dx *= dy
    return dx


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


def mish(x: Array, y: Array, d: Array) -> None:
    """`x tanh(log(1 + exp(x)))` (Misra, arXiv:1908.08681); the derivative is `w + x e (e + 1) r**2`."""
    e, w, r = _mish(x)
    np.multiply(x, w, out=y)
    np.add(e, 1, out=d)
    d *= r
    e *= r
    d *= e
    d *= np.minimum(x, _ceiling_of(x))  # beyond, e stands still, and the term is nothing
    d += w


def mish_infer(x: Array, y: Array) -> None:
    """The same without the derivative."""
    _, w, _ = _mish(x)
    np.multiply(x, w, out=y)


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


def gelu(x: Array, y: Array, d: Array) -> None:
    """`x Phi(x)`, Phi the normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415), and its derivative.

    The error is below 1e-15 (float64) and 2e-7 (float32) times max(1, |y|), and small relative to y in the negative
    tail too: see `upper_tail`.
    """
    a = np.abs(x)
    tail, density = upper_tail(a)
    _max_0_into(y, x, a)
    density *= DENSITY_AT_0
    density *= a
    w = np.subtract(tail, density, out=density)
    a *= tail
    y -= a
    d[...] = x >= 0
    sign = np.multiply(d, -2, out=tail)
    sign += 1
    w *= sign
    d += w


def gelu_infer(x: Array, y: Array) -> None:
    """The same without the derivative."""
    a = np.abs(x)
    _max_0_into(y, x, a)
    a *= upper_tail(a)[0]
    y -= a


def _max_0_into(y: Array, x: Array, a: Array) -> None:
    """`max(x, 0) = (x + a) / 2` with a = |x|: NumPy adds in a quarter of the time that a maximum with 0 takes."""
    np.add(x, a, out=y)
    y *= 0.5


# --- gelu by tanh: y = x s with s = sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x**3),   y' = s + y (1 - s) 2 z' ----

SLOPE = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_tanh(x: Array, y: Array, d: Array) -> None:
    """`x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2`: Gelu as GPT-2 approximates it, at half the cost.

    The difference from Gelu is up to 5e-4.
    """
    slope = x * x
    s = _gelu_tanh_into(d, x, slope, y)
    np.multiply(x, s, out=y)
    slope *= 3 * SLOPE * CUBIC
    slope += SLOPE
    slope *= y
    slope *= 1 - s
    d += slope


def gelu_tanh_infer(x: Array, y: Array) -> None:
    """The same without the derivative."""
    square = x * x
    _gelu_tanh_into(y, x, square, square)
    y *= x


def _gelu_tanh_into(s: Array, x: Array, square: Array, scratch: Array) -> Array:
    """s becomes `sigmoid(2 z)`; the scratch array may be that of the squares."""
    z = np.multiply(square, SLOPE * CUBIC, out=scratch)
    z += SLOPE
    z *= x
    e = _exp(z, out=z)
    np.add(e, 1, out=s)
    return np.divide(e, s, out=s)


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


def in_blocks(f: Callable[[Array, Array, Array], None], x: Array) -> tuple[Array, Array]:
    """y and the derivative d, the cache, of an elementwise `f(x, y, d)` of many passes that fills them.

    It is given pieces of large arrays, so that what it works on stays in the second-level cache.
    """
    y, d = np.empty_like(x), np.empty_like(x)
    if x.size <= BLOCK:
        f(x, y, d)
        return y, d
    x, all_y, all_d = _in_line(x, y), y.ravel("K"), d.ravel("K")
    for start in range(0, x.size, BLOCK):
        part = slice(start, start + BLOCK)
        f(x[part], all_y[part], all_d[part])
    return y, d


def _in_line(x: Array, like: Array) -> Array:
    """The numbers of x in the order in which those of another array lie in memory."""
    return (x if x.strides == like.strides else x.copy("K")).ravel("K")


def infer_in_blocks(f: Callable[[Array, Array], None], x: Array) -> Array:
    """The same for a function that fills y alone."""
    y = np.empty_like(x)
    if x.size <= BLOCK:
        f(x, y)
        return y
    x, all_y = _in_line(x, y), y.ravel("K")
    for start in range(0, x.size, BLOCK):
        f(x[start : start + BLOCK], all_y[start : start + BLOCK])
    return y


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
    alpha = above_zero("Elu", "alpha", alpha)
    return activation("Elu", bind(elu, alpha, 1.0), bind(elu_vjp, alpha, 1.0), config={"alpha": alpha}, build=Elu)


def Squareplus(b: float = 4.0) -> Layer[Array, Array]:
    """`(x + sqrt(x**2 + b)) / 2`: softplus without transcendental functions; `sqrt(b) / 2` at 0."""
    b = above_zero("Squareplus", "b", b)
    return activation("Squareplus", bind(squareplus, b), bind(squareplus_vjp, b), config={"b": b}, build=Squareplus)
