"""Cross-entropies, from logits, log-probabilities and probabilities, and the Kullback-Leibler divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnn.check import fraction, number
from fnn.contract import Loss
from fnn.layers.activation import log1p_exp
from fnn.layers.softmax import row_max
from fnn.losses.classes import (
    LOWEST,
    Classes,
    Targets,
    checked_classes,
    class_forward,
    class_loss,
    class_vjp,
)
from fnn.losses.core import elementwise, example_means, like_output, loss
from fnn.recordable import unexpected
from fnn.types import Array, Ints, Shape, bind, ones

# --- softmax cross-entropy: l = log sum_k exp(z_k) - sum_k t_k z_k,   d = softmax(z) - t -----------------------------


class SoftmaxCache(NamedTuple):
    """What the derivative needs, as matrices (rows, classes)."""

    p: Array
    """The softmax of the logits."""
    t: Array
    """The target distribution."""
    total: Array | None
    """`sum_k t_k` where it is not 1 by construction."""


def softmax_cross_entropy_forward(logits: Array, targets: Targets) -> tuple[Array, SoftmaxCache]:
    """`l = -sum_k t_k log softmax(z)_k`, from logits shifted by their maximum."""
    t, total = targets
    one = ones(t.shape[1], t.dtype)
    z = logits - row_max(logits)
    np.maximum(z, LOWEST[z.dtype.char], out=z)  # -inf, where a class is ruled out, times 0 is nothing
    picked = (z * t).dot(one)
    np.exp(z, out=z)
    l = z.dot(one)
    z /= l[:, None]
    np.log(l, out=l)
    if total is not None:
        l *= total
    l -= picked
    return l, SoftmaxCache(z, t, total)


def softmax_cross_entropy_vjp(cache: SoftmaxCache, dl: Any) -> Array:
    """`d_logits = dl (softmax(z) sum(t) - t)`."""
    p, t, total = cache
    d: Array = p - t if total is None else p * total[:, None] - t
    d *= dl
    return d


def softmax_cross_entropy(
    *, smoothing: float = 0.0, class_weights: Sequence[float] | Array | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """Cross-entropy of logits z over the last axis: `-sum_k t_k log softmax(z)_k`, mean over all rows.

    Targets are integer labels (the shape of the logits without its last axis) or dense distributions t (the whole
    shape).

    smoothing: s replaces t by `(1 - s) t + s / classes` (Szegedy et al. 2016, section 7).
    class_weights: w_k for each class: `-sum_k w_k t_k log softmax(z)_k`. A row counts as much as its class: the value
        is the sum over the rows divided by the sum of `sum_k w_k t_k`, t before smoothing. Labels and one-hot targets
        give the same. (PyTorch does this for labels; for dense targets it divides by the number of rows.) With
        smoothing the weights are above 0.
    ignore: rows with this label count nothing, and have no gradient; the value is the mean over the others.

    With example weights v as well, a row counts `v w`: with the mass m of an example, the sum over its rows of what
    they count, the value is `sum(v m l) / sum(v m)`. Raises `ValueError` where nothing counts.
    """
    return class_loss(
        checked_classes("softmax_cross_entropy", smoothing, class_weights, ignore),
        softmax_cross_entropy_forward,
        softmax_cross_entropy_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore},
        softmax_cross_entropy,
    )


# --- the same from log-probabilities: l = -sum_k t_k y_k,   d = -t ----------------------------------------------------


def nll_forward(y: Array, targets: Targets) -> tuple[Array, Array]:
    """`l = -sum_k t_k y_k`; the cache is t."""
    check_domain("nll", "log-probabilities, of a network that ends in LogSoftmax; softmax_cross_entropy", y, -np.inf, 0)
    t = targets.t
    return (np.maximum(y, LOWEST[y.dtype.char]) * t).dot(ones(t.shape[1], t.dtype)) * -1.0, t


def nll_vjp(t: Array, dl: Any) -> Array:
    """`d = -dl t`."""
    d: Array = t * -dl
    return d


def nll(
    *, smoothing: float = 0.0, class_weights: Sequence[float] | Array | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """Negative log likelihood for networks that end in `LogSoftmax`: `-sum_k t_k y_k` of log-probabilities y.

    Targets and options are those of `softmax_cross_entropy`, and so is the value: it is the loss of the logits.
    """
    return class_loss(
        checked_classes("nll", smoothing, class_weights, ignore),
        nll_forward,
        nll_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore},
        nll,
    )


# --- the same from probabilities: l = -sum_k t_k L(p_k),   d = -t / max(p, floor) -------------------------------------
#
# L(p) = log p from the floor upwards; below it goes on along its tangent, log(floor) + p / floor - 1. So the loss is
# finite for p = 0, and its derivative, 1 / max(p, floor), is exact and does not vanish where the network is most wrong.


BEYOND = 1e-3
"""How far rounding may lead out of the domain."""


def check_domain(kind: str, wanted: str, y: Array, low: float, high: float) -> None:
    """Raises `ValueError` for outputs that are no probabilities, or their logarithms: most often they are logits."""
    if not y.size:
        return
    beyond = y.max() > high + BEYOND
    if unexpected(beyond if low == -np.inf else beyond | (y.min() < low - BEYOND)):
        raise ValueError(f"{kind}: expected {wanted} takes logits; got outputs from {y.min()} to {y.max()}")


def floored_log(p: Array, floor: float) -> tuple[Array, Array]:
    """`L(p)`, and `max(p, floor)`, one by its derivative."""
    above = np.maximum(p, floor)
    l = p / above  # 1 above the floor, p / floor below
    l -= 1
    l += np.log(above)
    return l, above


def cross_entropy_forward(floor: float, p: Array, targets: Targets) -> tuple[Array, tuple[Array, Array]]:
    """`l = -sum_k t_k L(p_k)`; the cache is t and `max(p, floor)`."""
    check_domain("cross_entropy", "probabilities, of a network that ends in Softmax; softmax_cross_entropy", p, 0, 1)
    l, above = floored_log(p, floor)
    l *= targets.t
    return l.dot(ones(p.shape[1], p.dtype)) * -1.0, (targets.t, above)


def cross_entropy_vjp(cache: tuple[Array, Array], dl: Any) -> Array:
    """`d = -dl t / max(p, floor)`."""
    t, above = cache
    d: Array = t / above
    d *= -dl
    return d


def cross_entropy(
    *,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | Array | None = None,
    ignore: int | None = None,
    floor: float = 1e-7,
) -> Loss[Array, Array | Ints]:
    """Cross-entropy for networks that end in `Softmax`: `-sum_k t_k log p_k` of probabilities p, mean over all rows.

    Below the floor the logarithm goes on along its tangent: `log(floor) + p / floor - 1`. So a probability of 0 costs
    `1 - log(floor)`, and the derivative, `-t / max(p, floor)`, is exact. Targets and other options are those of
    `softmax_cross_entropy`, which is the better choice where the network can end in logits.
    """
    return class_loss(
        checked_classes("cross_entropy", smoothing, class_weights, ignore),
        bind(cross_entropy_forward, number("cross_entropy", "floor", floor, above=0, below=1)),
        cross_entropy_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore, "floor": floor},
        cross_entropy,
    )


# --- sigmoid cross-entropy: with u = w t and s = u + 1 - t:   l = s softplus(z) - u z,   d = s sigmoid(z) - u ---------


def sigmoid_targets(kind: str, smoothing: float, target: Array) -> Array:
    """The targets, which must lie in [0, 1], smoothed."""
    if target.size and unexpected(~((target.min() >= 0) & (target.max() <= 1))):
        raise ValueError(f"{kind}: expected targets from 0 to 1, got {target.min()} to {target.max()}")
    return target * (1 - smoothing) + smoothing / 2 if smoothing else target


def sigmoid_cross_entropy_forward(
    smoothing: float, positive_weight: float, logits: Array, target: Array
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    """`l = s softplus(z) - u z`, with softplus(z) = max(z, 0) + log(1 + exp(-|z|)), which cannot overflow."""
    u = sigmoid_targets("sigmoid_cross_entropy", smoothing, target)
    s = None
    if positive_weight != 1:
        s = 1 - u
        u = u * positive_weight
        s += u
    l = log1p_exp(logits)
    m = np.maximum(logits, 0)
    if s is not None:
        l *= s
        m *= s
    m -= u * logits  # before the small term is added: where the answer is right, these two cancel exactly
    l += m
    return l, (logits, u, s)


def sigmoid_cross_entropy_vjp(cache: tuple[Array, Array, Array | None], dl: Any) -> Array:
    """`d_logits = dl (s sigmoid(z) - u)`."""
    logits, u, s = cache
    d = sigmoid(logits)
    if s is not None:
        d *= s
    d -= u
    d *= dl
    return d


def sigmoid(z: Array) -> Array:
    """`1 / (1 + exp(-z))`."""
    e = np.minimum(z, 40)
    np.exp(e, out=e)
    e /= e + 1
    return e


def sigmoid_cross_entropy(*, smoothing: float = 0.0, positive_weight: float = 1.0) -> Loss[Array, Array | Ints]:
    """Binary cross-entropy of logits z: `-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, mean over all numbers.

    Targets t are probabilities or 0 and 1, in the shape of the logits; others raise `ValueError`. Smoothing s replaces
    t by `(1 - s) t + s / 2`; the positive weight multiplies the first term (the mean is over all numbers all the same).
    """
    weight = number("sigmoid_cross_entropy", "positive_weight", positive_weight, above=0)
    return elementwise(
        "sigmoid_cross_entropy",
        bind(sigmoid_cross_entropy_forward, fraction("sigmoid_cross_entropy", "smoothing", smoothing), weight),
        sigmoid_cross_entropy_vjp,
        config={"smoothing": smoothing, "positive_weight": positive_weight},
        build=sigmoid_cross_entropy,
    )


# --- binary cross-entropy of probabilities: l = -t L(p) - (1 - t) L(1 - p) --------------------------------------------


def binary_cross_entropy_forward(
    smoothing: float, floor: float, p: Array, target: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """`l = -t L(p) - (1 - t) L(1 - p)`; the cache is t and the two floored probabilities."""
    wanted = "probabilities, of a network that ends in Sigmoid; sigmoid_cross_entropy"
    check_domain("binary_cross_entropy", wanted, p, 0, 1)
    t = sigmoid_targets("binary_cross_entropy", smoothing, target)
    l, yes = floored_log(p, floor)
    other, no = floored_log(1 - p, floor)
    l *= t
    l += (1 - t) * other
    return np.negative(l, out=l), (t, yes, no)


def binary_cross_entropy_vjp(cache: tuple[Array, Array, Array], dl: Any) -> Array:
    """`d = dl ((1 - t) / max(1 - p, floor) - t / max(p, floor))`."""
    t, yes, no = cache
    d = 1 - t
    d /= no
    d -= t / yes
    d *= dl
    return d


def binary_cross_entropy(*, smoothing: float = 0.0, floor: float = 1e-7) -> Loss[Array, Array | Ints]:
    """For networks that end in `Sigmoid`: `-t log p - (1 - t) log(1 - p)` of probabilities p, mean over all numbers.

    Below the floor the logarithm goes on along its tangent, as in `cross_entropy`; so the value is finite for p of 0
    and 1, and the derivative is exact. `sigmoid_cross_entropy` is the better choice for networks that can end
    in logits.
    """
    return elementwise(
        "binary_cross_entropy",
        bind(
            binary_cross_entropy_forward,
            fraction("binary_cross_entropy", "smoothing", smoothing),
            number("binary_cross_entropy", "floor", floor, above=0, below=1),
        ),
        binary_cross_entropy_vjp,
        config={"smoothing": smoothing, "floor": floor},
        build=binary_cross_entropy,
    )


# --- Kullback-Leibler divergence: l = sum_k t_k (log t_k - log softmax(z)_k),   d = softmax(z) sum(t) - t -------------


def kl_divergence_forward(logits: Array, target: Array) -> tuple[Array, tuple[SoftmaxCache, Shape]]:
    """The softmax cross-entropy minus the entropy of the target, `-sum_k t_k log t_k`, with 0 log 0 = 0."""
    like = like_output("kl_divergence", logits, target)
    if like.size and unexpected(like.min() < 0):
        raise ValueError(f"kl_divergence: expected distributions, got a target of {like.min()}")
    l, cache = class_forward(Classes("kl_divergence"), softmax_cross_entropy_forward, logits, like)
    plogp = like * np.log(np.maximum(like, np.finfo(like.dtype).tiny))
    return l + example_means(plogp) * logits.shape[-1], cache


kl_divergence: Loss[Array, Array] = loss(
    "kl_divergence", kl_divergence_forward, bind(class_vjp, softmax_cross_entropy_vjp)
)
"""`KL(t || softmax(z)) = sum_k t_k (log t_k - log softmax(z)_k)` of logits z for distributions t over the last axis,
mean over all rows (Kullback and Leibler 1951)."""
