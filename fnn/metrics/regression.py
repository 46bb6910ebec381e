"""How far numbers are off: squared and absolute errors, and the part of the variance that is explained."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fnn.losses.core import like_output
from fnn.losses.regression import mae, mse
from fnn.metrics.core import Mean, Metric, compute_mean, loss_metric, row_weights
from fnn.types import Array

mean_squared_error: Metric[Array, Array, float] = loss_metric("mean_squared_error", mse)
"""`mean((output - target)**2)` over all numbers."""

mean_absolute_error: Metric[Array, Array, float] = loss_metric("mean_absolute_error", mae)
"""`mean(|output - target|)` over all numbers."""


def root_mean(mean: Mean) -> float:
    """`sqrt(total / weight)`."""
    return math.sqrt(compute_mean(mean))


root_mean_squared_error: Metric[Array, Array, float] = loss_metric("root_mean_squared_error", mse, compute=root_mean)
"""`sqrt(mean((output - target)**2))` over all numbers."""


# --- R2: 1 - sum (output - target)**2 / sum (target - mean target)**2 -------------------------------------------------


class Variation(NamedTuple):
    """How targets vary, and how far outputs are off: numbers, or arrays of the features."""

    weight: float
    mean: Any
    """The mean of the targets."""
    spread: Any
    """`sum w (target - mean)**2`."""
    error: Any
    """`sum w (output - target)**2`."""


def no_variation() -> Variation:
    """The variation of nothing."""
    return Variation(0.0, 0.0, 0.0, 0.0)


@np.errstate(invalid="ignore")
def update_variation(before: Variation, output: Array, target: Array, weight: Array | None = None) -> Variation:
    """With the batch added; the features are the axes but the first, rows of an example are taken as features."""
    t = np.asarray(like_output("r2", output, target), np.float64)
    w = row_weights("r2", len(t), len(t), weight)
    total = float(w.sum())
    if not total:
        return before
    t, y = t.reshape(len(t), -1), np.asarray(output, np.float64).reshape(len(t), -1)
    mean = w.dot(t) / total
    return merge_variations(before, Variation(total, mean, w.dot((t - mean) ** 2), w.dot((y - t) ** 2)))


@np.errstate(invalid="ignore")
def merge_variations(a: Variation, b: Variation) -> Variation:
    """Both together: the sum of squares about the common mean (Chan, Golub and LeVeque 1983)."""
    weight = a.weight + b.weight
    if not weight:
        return a
    apart = b.mean - a.mean
    mean = a.mean + apart * (b.weight / weight)
    spread = a.spread + b.spread + apart * apart * (a.weight * b.weight / weight)
    return Variation(weight, mean, spread, a.error + b.error)


def compute_r2(found: Variation) -> float:
    """The mean over the features of `1 - error / spread`; where nothing varies, 1 without error and else 0.

    It is nan where a number is, or a target is infinite.
    """
    if not found.weight:
        return float("nan")
    error, spread = np.atleast_1d(found.error), np.atleast_1d(found.spread)
    explained = 1 - error / np.where(spread > 0, spread, 1)
    constant = np.where(spread == 0, np.where(error > 0, 0.0, 1.0 - error), np.nan)
    return float(np.where((spread > 0) & (spread < np.inf), explained, constant).mean())


r2: Metric[Array, Array, float] = Metric("r2", no_variation, update_variation, merge_variations, compute_r2)
"""The coefficient of determination, `1 - sum (output - target)**2 / sum (target - mean)**2`, mean over the features
(Wright 1921). 1 is perfect, 0 as good as the mean of the targets. Features that do not vary have 1 without error, else
0, as in scikit-learn."""
