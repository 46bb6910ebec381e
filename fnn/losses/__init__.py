"""Losses: pairs `forward(output, target, weight) -> (value, cache)` and `vjp(cache) -> d_output`.

Those without options are values (`mse`), those with options are calls (`huber(delta=0.5)`, `softmax_cross_entropy()`).
`core` says what they have in common and makes them; a room for each family holds formula, forward and vjp side by side.
"""

from fnn.losses.composition import evidence_bound, gaussian_kl, masked, per_output, sum_of, weighted
from fnn.losses.core import elementwise, loss
from fnn.losses.embedding import cosine_similarity, info_nce, triplet
from fnn.losses.entropy import (
    binary_cross_entropy,
    cross_entropy,
    kl_divergence,
    nll,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from fnn.losses.focal import sigmoid_focal, softmax_focal
from fnn.losses.margins import hinge, multiclass_hinge
from fnn.losses.penalties import l1, l2, penalties, penalty
from fnn.losses.regression import gaussian_nll, huber, log_cosh, mae, mse, poisson_nll, quantile
from fnn.losses.sequence import CtcTarget, ctc

__all__ = [
    "CtcTarget",
    "binary_cross_entropy",
    "cosine_similarity",
    "cross_entropy",
    "ctc",
    "elementwise",
    "evidence_bound",
    "gaussian_kl",
    "gaussian_nll",
    "hinge",
    "huber",
    "info_nce",
    "kl_divergence",
    "l1",
    "l2",
    "log_cosh",
    "loss",
    "mae",
    "masked",
    "mse",
    "multiclass_hinge",
    "nll",
    "penalties",
    "penalty",
    "per_output",
    "poisson_nll",
    "quantile",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
    "softmax_cross_entropy",
    "softmax_focal",
    "sum_of",
    "triplet",
    "weighted",
]
