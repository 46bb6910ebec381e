"""Focal losses: cross-entropies in which what is already right counts less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnn.check import not_negative, number
from fnn.contract import Loss
from fnn.layers.activation import log1p_exp
from fnn.layers.softmax import row_max
from fnn.losses.classes import LOWEST, Targets, checked_classes, class_loss
from fnn.losses.core import elementwise
from fnn.losses.entropy import sigmoid, sigmoid_targets
from fnn.types import Array, Ints, bind, ones

# --- focal: F(u) = sigmoid(u)**gamma softplus(u),   l = a t F(-z) + b (1 - t) F(z) ------------------------------------


def focal_term(gamma: float, u: Array) -> tuple[Array, Array]:
    """`F(u)` and its derivative `sigmoid(u)**gamma (gamma (1 - sigmoid(u)) softplus(u) + sigmoid(u))`.

    Since log sigmoid(u) = -softplus(-u), the power is `exp(-gamma softplus(-u))`: no overflow, full accuracy.
    """
    small = log1p_exp(u)
    plus = np.maximum(u, 0) + small
    s = sigmoid(u)
    power = np.exp((small - np.minimum(u, 0)) * -gamma)
    return power * plus, power * (gamma * (1 - s) * plus + s)


def sigmoid_focal_forward(gamma: float, alpha: float | None, logits: Array, target: Array) -> tuple[Array, Array]:
    """`l = a t F(-z) + b (1 - t) F(z)`, a = alpha and b = 1 - alpha, or both 1; the cache is the derivative."""
    t = sigmoid_targets("sigmoid_focal", 0.0, target)
    yes, d_yes = focal_term(gamma, -logits)
    no, d_no = focal_term(gamma, logits)
    a, b = t, 1 - t
    if alpha is not None:
        a, b = a * alpha, b * (1 - alpha)
    return a * yes + b * no, b * d_no - a * d_yes


def sigmoid_focal_vjp(slope: Array, dl: Any) -> Array:
    """`d_logits = dl (b (1 - t) F'(z) - a t F'(-z))`."""
    d: Array = slope * dl
    return d


def sigmoid_focal(*, gamma: float = 2.0, alpha: float | None = None) -> Loss[Array, Array | Ints]:
    """The focal loss of logits z, mean over all numbers: `-(1 - q)**gamma log q`, where q is the probability given to
    the truth: sigmoid(z) where the target is 1, 1 - sigmoid(z) where it is 0 (Lin et al. 2017, equation 4).

    alpha weighs the ones by alpha and the zeros by 1 - alpha (equation 5). Targets between 0 and 1 mix both terms.
    With gamma = 0 it is `sigmoid_cross_entropy`.
    """
    return elementwise(
        "sigmoid_focal",
        bind(
            sigmoid_focal_forward,
            not_negative("sigmoid_focal", "gamma", gamma),
            None if alpha is None else number("sigmoid_focal", "alpha", alpha, above=0, below=1),
        ),
        sigmoid_focal_vjp,
        config={"gamma": gamma, "alpha": alpha},
        build=sigmoid_focal,
    )


# --- softmax focal: with y = log softmax(z) and q = 1 - p:   l = -sum_k t_k q_k**gamma y_k ----------------------------


def softmax_focal_forward(gamma: float, logits: Array, targets: Targets) -> tuple[Array, tuple[Array, Array]]:
    """`l = -sum_k t_k q_k**gamma y_k`; the cache is p and the derivative g with respect to y.

    `g = -t q**gamma (1 - gamma p y / q)`, with y / q = -1 in the limit p = 1.
    """
    one = ones(logits.shape[1], logits.dtype)
    y = logits - row_max(logits)
    y -= np.log(np.exp(y).dot(one))[:, None]
    p = np.exp(y)
    q = -np.expm1(y)
    np.maximum(y, LOWEST[y.dtype.char], out=y)
    weight = targets.t * np.power(q, gamma)
    relative = y / np.maximum(q, np.finfo(q.dtype).tiny)
    return (weight * y).dot(one) * -1.0, (p, weight * (gamma * p * relative - 1))


def softmax_focal_vjp(cache: tuple[Array, Array], dl: Any) -> Array:
    """`d_logits = dl (g - p sum_k g_k)`."""
    p, g = cache
    d: Array = g - p * g.dot(ones(g.shape[1], g.dtype))[:, None]
    d *= dl
    return d


def softmax_focal(
    *, gamma: float = 2.0, class_weights: Sequence[float] | Array | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """The focal loss over classes: `-sum_k t_k (1 - p_k)**gamma log p_k` with p = softmax(z), mean over all rows.

    Targets, class weights and ignored label are those of `softmax_cross_entropy`, which it is with gamma = 0 (after
    Lin et al. 2017).
    """
    return class_loss(
        checked_classes("softmax_focal", 0.0, class_weights, ignore),
        bind(softmax_focal_forward, not_negative("softmax_focal", "gamma", gamma)),
        softmax_focal_vjp,
        {"gamma": gamma, "class_weights": class_weights, "ignore": ignore},
        softmax_focal,
    )
