"""The table of losses: each with every option that matters, and how its outputs and targets are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from fnn.contract import Loss
from fnn.losses import (
    CtcTarget,
    binary_cross_entropy,
    cosine_similarity,
    cross_entropy,
    ctc,
    evidence_bound,
    gaussian_kl,
    gaussian_nll,
    hinge,
    huber,
    info_nce,
    kl_divergence,
    log_cosh,
    mae,
    masked,
    mse,
    multiclass_hinge,
    nll,
    per_output,
    poisson_nll,
    quantile,
    sigmoid_cross_entropy,
    sigmoid_focal,
    softmax_cross_entropy,
    softmax_focal,
    sum_of,
    triplet,
    weighted,
)
from fnn.testing import Draw, LossSubject

if TYPE_CHECKING:
    from numpy.random import Generator


@attrs.frozen(eq=False)
class LossCase:
    """A loss, and what `check_loss` needs to know about it."""

    loss: Loss[Any, Any]
    output_shape: Any = (3,)
    targets: Draw | None = None
    outputs: Draw | None = None

    def __str__(self) -> str:
        draw = "" if self.targets is None else f" {self.targets.__name__}"
        return f"{self.loss!r} {self.output_shape}{draw}"

    def subject(self) -> LossSubject:
        """What the laws of `fnn.testing` are told."""
        return LossSubject(
            "check_loss",
            self.loss,
            self.output_shape,
            outputs=self.outputs,
            targets=self.targets,
        )


# --- targets and outputs ---------------------------------------------------------------------------------------------


def labels(g: Generator, shape: Any) -> Any:
    return g.integers(shape[-1], size=shape[:-1])


def padded(g: Generator, shape: Any) -> Any:
    """Labels, a third of them ignored (-1); the second example has none that counts."""
    found = np.where(g.uniform(size=shape[:-1]) < 0.33, -1, labels(g, shape))
    found[0] = np.maximum(found[0], 0)
    found[2] = -1
    return found


def distributions(g: Generator, shape: Any) -> Any:
    return g.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def interior(g: Generator, shape: Any) -> Any:
    """Distributions without small probabilities, whose logarithms finite differences would follow badly."""
    p = 0.2 + distributions(g, shape)
    return p / p.sum(axis=-1, keepdims=True)


def log_probabilities(g: Generator, shape: Any) -> Any:
    return np.log(distributions(g, shape))


def masses(g: Generator, shape: Any) -> Any:
    """Dense targets that do not sum to one."""
    return g.uniform(0, 2, size=shape)


def fractions(g: Generator, shape: Any) -> Any:
    return g.uniform(0.02, 0.98, size=shape)


def bits(g: Generator, shape: Any) -> Any:
    return g.integers(2, size=shape)


def signs(g: Generator, shape: Any) -> Any:
    return 2 * bits(g, shape) - 1


def counts(g: Generator, shape: Any) -> Any:
    return g.poisson(2.0, size=shape)


def first(g: Generator, shape: Any) -> Any:
    """A target for the first of several outputs."""
    return g.standard_normal(shape[0])


def nothing(g: Generator, shape: Any) -> Any:
    return None


def two_targets(g: Generator, shape: Any) -> Any:
    return g.standard_normal(shape[0]), labels(g, shape[1])


def padded_targets(g: Generator, shape: Any) -> Any:
    return g.standard_normal(shape[0]), padded(g, shape[1])


def bits_of_first(g: Generator, shape: Any) -> Any:
    return bits(g, shape[0])


def with_mask(g: Generator, shape: Any) -> Any:
    """A target and a mask over the time steps; the second example has none that counts."""
    mask = g.integers(2, size=shape[:2])
    mask[0, 0], mask[2] = 1, 0
    return g.standard_normal(shape), mask


def with_weights(g: Generator, shape: Any) -> Any:
    return labels(g, shape), g.uniform(0, 2, size=shape[:-1])


def transcripts(g: Generator, shape: Any) -> CtcTarget:
    """Labels with repeats; the frames just suffice for the first example, the second has none."""
    given = np.array([[1, 1, 2], [3, 3, 3], [2, 1, 2], [1, 3, 9], [2, 2, 1]])
    return CtcTarget(given, np.array([3, 0, 3, 2, 3]), np.array([4, 2, 7, 6, 7]))


ROWS = (3,)
GRID = (7, 3)

LOSSES: list[LossCase] = [
    *(LossCase(loss, shape) for shape in ((), ROWS, GRID) for loss in (mse, mae, log_cosh, huber())),
    LossCase(mse, ROWS, bits),
    LossCase(huber(delta=0.3), GRID),
    *(LossCase(quantile(q), GRID) for q in (0.1, 0.5, 0.9)),
    LossCase(poisson_nll, GRID, counts),
    LossCase(gaussian_nll, (GRID, GRID), first),
    *(
        LossCase(loss, shape, draw)
        for shape in ((), GRID)
        for draw in (bits, fractions)
        for loss in (
            sigmoid_cross_entropy(),
            sigmoid_cross_entropy(smoothing=0.2),
            sigmoid_cross_entropy(smoothing=0.1, positive_weight=3.0),
            sigmoid_focal(),
            sigmoid_focal(gamma=0.5, alpha=0.25),
        )
    ),
    *(
        LossCase(loss, GRID, draw, fractions)
        for draw in (bits, fractions)
        for loss in (binary_cross_entropy(), binary_cross_entropy(smoothing=0.1, floor=0.2))
    ),
    *(
        LossCase(loss(**options), shape, draw, outputs)
        for loss, outputs in (
            (softmax_cross_entropy, None),
            (cross_entropy, interior),
            (nll, log_probabilities),
        )
        for shape in (ROWS, GRID)
        for options, draw in (
            ({}, labels),
            ({}, distributions),
            ({}, masses),
            ({"smoothing": 0.1}, labels),
            ({"smoothing": 0.1}, masses),
            ({"class_weights": (1.0, 0.0, 2.5)}, labels),
            ({"class_weights": (1.0, 0.5, 2.5), "smoothing": 0.2}, labels),
            ({"class_weights": (1.0, 0.5, 2.5), "smoothing": 0.2}, masses),
            ({"ignore": -1}, padded),
            ({"ignore": 1}, labels),
            ({"smoothing": 0.3, "class_weights": (3.0, 0.5, 1.0), "ignore": -1}, padded),
        )
    ),
    LossCase(cross_entropy(floor=0.3), ROWS, labels, fractions),
    *(
        LossCase(softmax_focal(gamma=gamma), shape, draw)
        for gamma in (0.0, 0.5, 2.0)
        for shape, draw in ((ROWS, labels), (GRID, distributions))
    ),
    LossCase(softmax_focal(class_weights=(1.0, 0.5, 2.5), ignore=-1), GRID, padded),
    LossCase(hinge, (), signs),
    LossCase(hinge, GRID, signs),
    LossCase(multiclass_hinge, ROWS, labels),
    LossCase(multiclass_hinge, GRID, labels),
    LossCase(kl_divergence, ROWS, distributions),
    LossCase(kl_divergence, GRID, masses),
    LossCase(cosine_similarity, ROWS),
    LossCase(cosine_similarity, GRID),
    LossCase(triplet(), (ROWS, ROWS, ROWS), nothing),
    LossCase(triplet(margin=6.0), (ROWS, ROWS, ROWS), nothing),
    LossCase(info_nce(), (ROWS, ROWS), nothing),
    LossCase(info_nce(temperature=0.5, symmetric=True), (ROWS, ROWS), nothing),
    LossCase(ctc(), (7, 4), transcripts),
    LossCase(gaussian_kl, (ROWS, ROWS), nothing),
    LossCase(gaussian_kl, (GRID, GRID), nothing),
    LossCase(weighted(0.3, mse)),
    LossCase(weighted(-2.0, softmax_cross_entropy(ignore=-1)), GRID, padded),
    LossCase(sum_of(mse, weighted(0.1, mae), huber()), GRID),
    LossCase(sum_of(softmax_cross_entropy(ignore=-1), weighted(0.1, softmax_focal(ignore=-1))), GRID, padded),
    LossCase(per_output(mse, softmax_cross_entropy()), ((2,), GRID), two_targets),
    LossCase(per_output(mse, softmax_cross_entropy(ignore=-1)), ((2,), GRID), padded_targets),
    LossCase(masked(mse), GRID, with_mask),
    LossCase(masked(huber(delta=0.5)), GRID, with_mask),
    LossCase(masked(softmax_cross_entropy()), GRID, with_weights),
    LossCase(evidence_bound(sigmoid_cross_entropy()), (GRID, ((2,), (2,))), bits_of_first),
    LossCase(evidence_bound(mse, beta=4.0), ((3,), ((2,), (2,))), first),
]
