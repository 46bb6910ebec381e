"""Losses against PyTorch in float64: values and gradients, weights of classes and examples, ignored labels, counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import Loss
from fnn.losses import (
    CtcTarget,
    binary_cross_entropy,
    cosine_similarity,
    cross_entropy,
    ctc,
    gaussian_kl,
    gaussian_nll,
    hinge,
    huber,
    info_nce,
    kl_divergence,
    mae,
    masked,
    mse,
    nll,
    poisson_nll,
    sigmoid_cross_entropy,
    sigmoid_focal,
    softmax_cross_entropy,
    softmax_focal,
    triplet,
)
from tests.losses import bits, counts, distributions, fractions, labels, log_probabilities, masses, padded, signs
from tests.reference.comparison import Compared, Reference

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

GRID = (5, 7, 3)
ROWS = (5, 3)
W = (1.0, 0.25, 2.5)


def normal(g: np.random.Generator, shape: Any) -> Any:
    return tuple(map(g.standard_normal, shape)) if isinstance(shape[0], tuple) else g.standard_normal(shape)


def nothing(g: np.random.Generator, shape: Any) -> None:
    return None


def of_first(g: np.random.Generator, shape: Any) -> Any:
    return g.standard_normal(shape[0])


def tensor(a: Any) -> Any:
    return None if a is None else torch.tensor(np.asarray(a))


def classes_second(f: Reference) -> Reference:
    """PyTorch's classes come second, and labels are int64."""
    return lambda z, t: f(z.movedim(-1, 1), t if t.ndim < z.ndim else t.movedim(-1, 1))


def entropy(**options: Any) -> Reference:
    weights = options.pop("weight", None)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return classes_second(lambda z, t: F.cross_entropy(z, t, weight=weights, **options))


def focal(gamma: float, alpha: float | None) -> Reference:
    """The formula of the paper, as torchvision has it."""

    def loss(z: Any, t: Any) -> Any:
        p, t = torch.sigmoid(z), t.double()
        l = F.binary_cross_entropy_with_logits(z, t, reduction="none") * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
        return (l if alpha is None else l * (alpha * t + (1 - alpha) * (1 - t))).mean()

    return loss


def multiclass_focal(gamma: float) -> Reference:
    def loss(z: Any, t: Any) -> Any:
        y = torch.log_softmax(z, -1).gather(-1, t[..., None])
        return (-((1 - y.exp()) ** gamma) * y).mean()

    return loss


def contrastive(temperature: float, symmetric: bool) -> Reference:
    def loss(output: Any, t: Any) -> Any:
        s = F.normalize(output[0], dim=1) @ F.normalize(output[1], dim=1).T / temperature
        own = torch.arange(len(s))
        l = F.cross_entropy(s, own)
        return (l + F.cross_entropy(s.T, own)) / 2 if symmetric else l

    return loss


def squared_distance(a: Any, b: Any) -> Any:
    return ((a - b) ** 2).sum(-1)


def gaussian(output: Any, t: Any) -> Any:
    return F.gaussian_nll_loss(output[0], t, output[1].exp(), full=True, eps=0)


def standard_kl(output: Any, t: Any) -> Any:
    mean, v = output
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, (v / 2).exp()), normal(0.0, 1.0))
    return divergence.sum() / len(mean)


CASES: list[tuple[Loss[Any, Any], Any, Any, Any, Reference]] = [
    (mse, GRID, normal, normal, F.mse_loss),
    (mae, GRID, normal, normal, F.l1_loss),
    (huber(), GRID, normal, normal, F.huber_loss),
    (huber(delta=0.3), GRID, normal, normal, lambda y, t: F.huber_loss(y, t, delta=0.3)),
    (poisson_nll, GRID, normal, counts, lambda y, t: F.poisson_nll_loss(y, t)),
    (gaussian_nll, (GRID, GRID), normal, of_first, gaussian),
    (gaussian_kl, (GRID, GRID), normal, nothing, standard_kl),
    (sigmoid_cross_entropy(), GRID, normal, bits, lambda z, t: F.binary_cross_entropy_with_logits(z, t.double())),
    (sigmoid_cross_entropy(), GRID, normal, fractions, F.binary_cross_entropy_with_logits),
    (
        sigmoid_cross_entropy(positive_weight=3.0),
        GRID,
        normal,
        fractions,
        lambda z, t: F.binary_cross_entropy_with_logits(z, t, pos_weight=torch.tensor(3.0)),
    ),
    (binary_cross_entropy(), GRID, fractions, fractions, F.binary_cross_entropy),
    (softmax_cross_entropy(), ROWS, normal, labels, entropy()),
    (softmax_cross_entropy(), GRID, normal, labels, entropy()),
    (softmax_cross_entropy(), GRID, normal, distributions, entropy()),
    (softmax_cross_entropy(), GRID, normal, masses, entropy()),
    (softmax_cross_entropy(smoothing=0.1), GRID, normal, labels, entropy(label_smoothing=0.1)),
    (softmax_cross_entropy(smoothing=0.1), GRID, normal, distributions, entropy(label_smoothing=0.1)),
    (softmax_cross_entropy(class_weights=W), ROWS, normal, labels, entropy(weight=W)),
    (softmax_cross_entropy(class_weights=W), GRID, normal, labels, entropy(weight=W)),
    (
        softmax_cross_entropy(class_weights=W, smoothing=0.2),
        GRID,
        normal,
        labels,
        entropy(weight=W, label_smoothing=0.2),
    ),
    (softmax_cross_entropy(ignore=-1), GRID, normal, padded, entropy(ignore_index=-1)),
    (softmax_cross_entropy(ignore=1), GRID, normal, labels, entropy(ignore_index=1)),
    (
        softmax_cross_entropy(ignore=-1, class_weights=W, smoothing=0.3),
        GRID,
        normal,
        padded,
        entropy(ignore_index=-1, weight=W, label_smoothing=0.3),
    ),
    (cross_entropy(), ROWS, distributions, labels, lambda p, t: F.nll_loss(p.log(), t)),
    (
        cross_entropy(class_weights=W),
        ROWS,
        distributions,
        labels,
        lambda p, t: F.nll_loss(p.log(), t, torch.tensor(W).double()),
    ),
    (nll(), GRID, log_probabilities, labels, classes_second(F.nll_loss)),
    (nll(ignore=-1), GRID, log_probabilities, padded, classes_second(lambda y, t: F.nll_loss(y, t, ignore_index=-1))),
    (sigmoid_focal(gamma=0.0), GRID, normal, bits, lambda z, t: F.binary_cross_entropy_with_logits(z, t.double())),
    (sigmoid_focal(), GRID, normal, bits, focal(2.0, None)),
    (sigmoid_focal(gamma=1.5, alpha=0.25), GRID, normal, bits, focal(1.5, 0.25)),
    (softmax_focal(gamma=0.0), GRID, normal, labels, entropy()),
    (softmax_focal(gamma=1.5), GRID, normal, labels, multiclass_focal(1.5)),
    (hinge, GRID, normal, signs, lambda y, t: F.relu(1 - t * y).mean()),
    (
        kl_divergence,
        ROWS,
        normal,
        distributions,
        lambda z, t: F.kl_div(torch.log_softmax(z, -1), t, reduction="batchmean"),
    ),
    (cosine_similarity, GRID, normal, normal, lambda y, t: (1 - F.cosine_similarity(y, t, dim=-1)).mean()),
    (
        triplet(margin=3.0),
        (ROWS, ROWS, ROWS),
        normal,
        nothing,
        lambda y, t: F.triplet_margin_with_distance_loss(*y, distance_function=squared_distance, margin=3.0),
    ),
    (info_nce(), (ROWS, ROWS), normal, nothing, contrastive(0.1, False)),
    (info_nce(temperature=0.5, symmetric=True), (ROWS, ROWS), normal, nothing, contrastive(0.5, True)),
]


def compare(compared: Compared, loss: Loss[Any, Any], output: Any, target: Any, reference: Reference) -> None:
    """The value and the gradient of both agree."""
    value, cache = loss.forward(output, target, None)
    theirs = tree.map(lambda a: tensor(a).requires_grad_(), output)
    expected = reference(theirs, tree.map(tensor, target))
    expected.backward()
    compared.outputs(value, expected)
    compared.gradients(loss.vjp(cache), tree.map(lambda leaf: leaf.grad, theirs))


@pytest.mark.parametrize(("loss", "shape", "outputs", "targets", "reference"), CASES, ids=lambda part: f"{part!r}"[:60])
def test_loss(
    loss: Loss[Any, Any], shape: Any, outputs: Any, targets: Any, reference: Reference, compared: Compared
) -> None:
    for seed in range(3):
        g = np.random.default_rng(seed)
        compare(compared, loss, outputs(g, shape), targets(g, shape), reference)


def test_every_row_counts_as_its_class_and_its_example_say(compared: Compared) -> None:
    """With example weights the rows of an example count so many times more: PyTorch's mean of rows drawn w times."""
    g = np.random.default_rng(1)
    logits, given, times = g.standard_normal(GRID), padded(g, GRID), np.array([1, 3, 2, 4, 1])
    repeated = [np.repeat(a, times, axis=0) for a in (logits, given)]
    for options, reference in (
        ({"ignore": -1}, entropy(ignore_index=-1)),
        ({"ignore": -1, "class_weights": W}, entropy(ignore_index=-1, weight=W)),
    ):
        value, _ = softmax_cross_entropy(**options).forward(logits, given, times.astype(np.float64))
        compared.outputs(value, reference(*map(tensor, repeated)))


def test_masked_rows_are_left_out(compared: Compared) -> None:
    g = np.random.default_rng(2)
    output, target, mask = g.standard_normal(GRID), g.standard_normal(GRID), g.integers(2, size=GRID[:2])
    compare(compared, masked(mse), output, (target, mask), lambda y, t: F.mse_loss(y[t[1] == 1], t[0][t[1] == 1]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("blank", [0, 2, 3])
def test_ctc(seed: int, blank: int, compared: Compared) -> None:
    g = np.random.default_rng(seed)
    batch, times, classes, longest = 6, 11, 4, 4
    logits = 2 * g.standard_normal((batch, times, classes))
    given = g.integers(classes - 1, size=(batch, longest))
    given += given >= blank
    lengths = g.integers(0, longest + 1, size=batch)
    frames = g.integers(2 * longest, times + 1, size=batch)

    def reference(z: Any, t: Any) -> Any:
        y = torch.log_softmax(z, -1).transpose(0, 1)
        l = F.ctc_loss(y, t[0], t[2], t[1], blank=blank, reduction="none")
        return l.mean()

    compare(compared, ctc(blank=blank), logits, CtcTarget(given, lengths, frames), reference)
