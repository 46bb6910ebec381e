"""Losses for numbers: squared, absolute and robust differences, quantiles, and likelihoods of Poisson and Gauss."""

from __future__ import annotations

import math

import numpy as np

from fnn.check import number
from fnn.contract import Loss
from fnn.losses.core import elementwise, example_means, float_error, like_output, loss, spread
from fnn.recordable import unexpected
from fnn.types import Array, Ints, ShapeError, bind

# --- mean squared error: l = mean (output - target)**2,   d = 2 (output - target) / features -------------------------


def mse_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = mean((output - target)**2)` of every example; the cache is the difference."""
    difference: Array = output - like_output("mse", output, target)
    return example_means(difference * difference), difference


def mse_vjp(difference: Array, dl: float | Array) -> Array:
    """`d_output = dl 2 (output - target) / features`."""
    d: Array = difference * (spread(dl, difference.ndim) * (2 * len(difference) / difference.size))
    return d


mse: Loss[Array, Array] = loss("mse", mse_forward, mse_vjp)
"""Mean squared error: `mean((output - target)**2)` over all numbers (Legendre 1805)."""


# --- mean absolute error: l = |output - target|,   d = sign(output - target) -----------------------------------------


def mae_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = |output - target|`; the cache is the difference."""
    difference: Array = output - target
    return np.abs(difference), difference


def mae_vjp(difference: Array, dl: float | Array) -> Array:
    """`d_output = dl sign(output - target)`, 0 where they are equal."""
    d = np.sign(difference)
    d *= dl
    return d


mae: Loss[Array, Array] = elementwise("mae", mae_forward, mae_vjp)
"""Mean absolute error: `mean(|output - target|)` over all numbers (Boscovich 1757); its minimum is the median."""


# --- Huber: with e = output - target and c = clip(e, -delta, delta):   l = c (e - c / 2),   d = c --------------------


def huber_forward(delta: float, output: Array, target: Array) -> tuple[Array, Array]:
    """`l = c (e - c / 2)`; the cache is c, the difference e clipped to [-delta, delta]."""
    e: Array = output - target
    c = np.minimum(e, delta)
    np.maximum(c, -delta, out=c)
    l = c * -0.5
    l += e
    l *= c
    return l, c


def clipped_vjp(c: Array, dl: float | Array) -> Array:
    """`d_output = dl c`."""
    d: Array = c * dl
    return d


def huber(*, delta: float = 1.0) -> Loss[Array, Array]:
    """The loss of Huber, squared near zero and linear far out. With e = output - target, the mean over all numbers of

        e**2 / 2               where |e| <= delta
        delta (|e| - delta/2)  elsewhere

    (Huber 1964, "Robust estimation of a location parameter").
    """
    delta = number("huber", "delta", delta, above=0)
    return elementwise("huber", bind(huber_forward, delta), clipped_vjp, config={"delta": delta}, build=huber)


# --- log-cosh: l = log cosh(e) with e = output - target,   d = tanh(e) -----------------------------------------------


def log_cosh_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = log cosh(e)` as log(1 + 2 sinh(a / 2)**2) + |e| - a with a = min(|e|, 20); the cache is e.

    Nothing cancels for small e; beyond 20 the function is |e| - log 2 to the last bit of float64.
    """
    e: Array = output - target
    size = np.abs(e)
    a = np.minimum(size, 20)
    l = np.sinh(a * 0.5)
    l *= l
    l *= 2
    np.log1p(l, out=l)
    l += size
    l -= a
    return l, e


def log_cosh_vjp(e: Array, dl: float | Array) -> Array:
    """`d_output = dl tanh(e)`."""
    d = np.tanh(e)
    d *= dl
    return d


log_cosh: Loss[Array, Array] = elementwise("log_cosh", log_cosh_forward, log_cosh_vjp)
"""`mean(log cosh(output - target))`: `e**2 / 2` near zero, `|e| - log 2` far out (Green 1990)."""


# --- quantile: l = max(e, 0) - q e with e = output - target,   d = [e > 0] - q ----------------------------------------


def quantile_forward(q: float, output: Array, target: Array) -> tuple[Array, Array]:
    """`l = max(e, 0) - q e`; the cache is e."""
    e: Array = output - target
    l = np.maximum(e, 0)
    l -= e * q
    return l, e


def quantile_vjp(q: float, e: Array, dl: float | Array) -> Array:
    """`d_output = dl ([e > 0] - q)`."""
    d = (e > 0).astype(e.dtype)
    d -= q
    d *= dl
    return d


def quantile(q: float) -> Loss[Array, Array]:
    """The pinball loss of the quantile q, 0 < q < 1. With e = output - target, the mean over all numbers of

        (1 - q) e  where the output is too large
        -q e       where it is too small

    Its minimum is the q-quantile of the targets (Koenker and Bassett 1978, "Regression quantiles").
    """
    q = number("quantile", "q", q, above=0, below=1)
    return elementwise("quantile", bind(quantile_forward, q), bind(quantile_vjp, q), config={"q": q}, build=quantile)


# --- Poisson: z = log rate,   l = exp(z) - t z,   d = exp(z) - t -----------------------------------------------------


def poisson_nll_forward(output: Array, target: Array) -> tuple[Array, tuple[Array, Array]]:
    """`l = exp(z) - t z`; the cache is the rate exp(z) and t."""
    if target.size and unexpected(target.min() < 0):
        raise ValueError(f"poisson_nll: expected counts, got {target.min()}")
    rate = np.exp(output)
    return rate - target * output, (rate, target)


def poisson_nll_vjp(cache: tuple[Array, Array], dl: float | Array) -> Array:
    """`d_output = dl (exp(z) - t)`."""
    rate, target = cache
    d: Array = rate - target
    d *= dl
    return d


poisson_nll: Loss[Array, Array | Ints] = elementwise("poisson_nll", poisson_nll_forward, poisson_nll_vjp)
"""The negative log likelihood of counts t >= 0 under Poisson distributions whose log rate is the output z:
`exp(z) - t z`, mean over all numbers, without the constant `log t!` (Nelder and Wedderburn 1972)."""


# --- Gauss: with v = log variance and e = t - mean:   l = (v + e**2 exp(-v) + log 2 pi) / 2 ---------------------------


def gaussian_nll_forward(output: tuple[Array, Array], target: Array) -> tuple[Array, tuple[Array, Array]]:
    """`l = mean (v + e**2 exp(-v) + log 2 pi) / 2`; the cache is e exp(-v) and e**2 exp(-v)."""
    mean, v = pair("gaussian_nll", output)
    e = mean - like_output("gaussian_nll", mean, target)
    slope = np.negative(v)
    np.exp(slope, out=slope)
    slope *= e
    scaled = slope * e
    return example_means((scaled + v + math.log(2 * math.pi)) * 0.5), (slope, scaled)


def gaussian_nll_vjp(cache: tuple[Array, Array], dl: float | Array) -> tuple[Array, Array]:
    """`d_mean = dl (mean - t) exp(-v)` and `d_v = dl (1 - e**2 exp(-v)) / 2`, both over the features."""
    slope, scaled = cache
    share = spread(dl, slope.ndim) * (len(slope) / slope.size)
    d_v: Array = 1 - scaled
    d_v *= share * 0.5
    return slope * share, d_v


def pair(kind: str, output: tuple[Array, Array]) -> tuple[Array, Array]:
    """The two outputs, if they are arrays of one shape (else `ShapeError`) and of floats of one dtype (`TypeError`)."""
    if not isinstance(output, tuple) or len(output) != 2 or np.shape(output[0]) != np.shape(output[1]):
        got = tuple(np.shape(part) for part in output) if isinstance(output, tuple) else np.shape(output)
        raise ShapeError(f"{kind}: expected a pair of outputs of one shape, got {got}")
    if output[0].dtype.kind != "f":
        raise float_error(kind, output[0])
    if output[0].dtype != output[1].dtype:
        raise TypeError(f"{kind}: expected outputs of one dtype, got {output[0].dtype} and {output[1].dtype}")
    return output


gaussian_nll: Loss[tuple[Array, Array], Array] = loss("gaussian_nll", gaussian_nll_forward, gaussian_nll_vjp)
"""The negative log likelihood of the target t under normal distributions; the output is a pair (mean, log variance v):
`(v + (t - mean)**2 exp(-v) + log 2 pi) / 2`, mean over all numbers (Nix and Weigend 1994)."""
