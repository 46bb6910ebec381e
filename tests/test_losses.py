"""Losses: every row of the table through every law, closed forms, equalities between losses, and what is refused."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby, product
from typing import Any

import numpy as np
import pytest

import fnn.losses
from fnn import tree
from fnn.combinators import serial
from fnn.contract import EVAL, Layer, Loss, Penalty, grad, pullback, value_and_grad
from fnn.data import batches
from fnn.diagnosis import NonFiniteError
from fnn.layers.activation import Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.layers.shape import Identity
from fnn.layers.softmax import LogSoftmax, Softmax
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
    l1,
    l2,
    log_cosh,
    mae,
    masked,
    mse,
    multiclass_hinge,
    nll,
    penalties,
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
from fnn.optimizers import add_decayed_weights, chain, sgd
from fnn.random import Key
from fnn.testing import LOSS_LAWS, check_law
from fnn.training import evaluate, train
from fnn.types import Array, ShapeError
from tests.losses import LOSSES, LossCase, interior, labels, padded

every_case = pytest.mark.parametrize("case", LOSSES, ids=str)


# --- the laws --------------------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("law", LOSS_LAWS)
def test_law(case: LossCase, law: str) -> None:
    assert check_law(law, LOSS_LAWS[law], case.subject()) <= 1e-7


@every_case
def test_repr_is_the_code_that_builds_the_loss(case: LossCase) -> None:
    code = repr(case.loss)
    built = eval(code, dict(vars(fnn.losses)))
    assert repr(built) == code
    output, target = case.subject().point()
    assert built.forward(output, target, None)[0] == case.loss.forward(output, target, None)[0]


def public_losses() -> list[str]:
    """The losses that `fnn.losses` exports, and the functions that give one."""
    found = {name: getattr(fnn.losses, name) for name in fnn.losses.__all__}
    given = {name: str(getattr(thing, "__annotations__", {}).get("return", "")) for name, thing in found.items()}
    makers = {name for name in found if given[name].startswith("Loss[")} - {"loss", "elementwise"}
    return [name for name, thing in found.items() if isinstance(thing, Loss) or name in makers]


@pytest.mark.parametrize("name", public_losses())
def test_every_loss_has_a_row(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", repr(case.loss)) for case in LOSSES)


def test_rows_differ() -> None:
    assert len({str(case) for case in LOSSES}) == len(LOSSES)


# --- closed forms ----------------------------------------------------------------------------------------------------


def value(loss: Loss[Any, Any], output: Any, target: Any, weight: Any = None) -> float:
    return float(loss.forward(output, target, weight)[0])


def gradient(loss: Loss[Any, Any], output: Any, target: Any, weight: Any = None) -> Any:
    return loss.vjp(loss.forward(output, target, weight)[1])


def row(*numbers: float) -> Array:
    return np.array([numbers], np.float64)


CLOSED: list[tuple[Loss[Any, Any], Any, Any, float, Any]] = [
    (mse, row(1, 4), row(3, 3), 2.5, row(-2, 1)),
    (mae, row(1, 4), row(3, 3), 1.5, row(-0.5, 0.5)),
    (huber(delta=1.0), row(3, 0.5), row(0, 0), (2.5 + 0.125) / 2, row(0.5, 0.25)),
    (log_cosh, row(0.5), row(0), math.log(math.cosh(0.5)), row(math.tanh(0.5))),
    (quantile(0.9), row(1, 5), row(3, 3), (0.9 * 2 + 0.1 * 2) / 2, row(-0.45, 0.05)),
    (poisson_nll, row(math.log(2)), row(3), 2 - 3 * math.log(2), row(-1)),
    (gaussian_nll, (row(1), row(math.log(4))), row(5), 2 + math.log(8 * math.pi) / 2, (row(-1), row(-1.5))),
    (sigmoid_cross_entropy(), row(0, 0), row(1, 0), math.log(2), row(-0.25, 0.25)),
    (sigmoid_cross_entropy(positive_weight=3.0), row(0, 0), row(1, 0), 2 * math.log(2), row(-0.75, 0.25)),
    (sigmoid_cross_entropy(smoothing=0.5), row(0), row(1), math.log(2), row(-0.25)),
    (softmax_cross_entropy(), row(0, 0, 0), np.array([1]), math.log(3), row(1 / 3, -2 / 3, 1 / 3)),
    (softmax_cross_entropy(smoothing=0.3), row(0, 0, 0), np.array([1]), math.log(3), row(0.7 / 3, -1.4 / 3, 0.7 / 3)),
    (cross_entropy(), row(0.25, 0.75), np.array([0]), math.log(4), row(-4, 0)),
    (nll(), row(-2, -3), np.array([0]), 2, row(-1, 0)),
    (binary_cross_entropy(), row(0.25), row(1), math.log(4), row(-4)),
    (sigmoid_focal(gamma=2.0), row(0), row(1), math.log(2) / 4, row(-(2 * 0.5 * math.log(2) + 0.5) / 4)),
    (hinge, row(0.5, 2, -1), np.array([[1, 1, 1]]), 2.5 / 3, row(-1 / 3, 0, -1 / 3)),
    (multiclass_hinge, row(1, 0.5, -3), np.array([0]), 0.5, row(-1, 1, 0)),
    (multiclass_hinge, row(3, 0.5, -3), np.array([0]), 0, row(0, 0, 0)),
    (kl_divergence, row(0, 0), row(1, 0), math.log(2), row(-0.5, 0.5)),
    (cosine_similarity, row(1, 0), row(0, 5), 1, row(0, -1)),
    (triplet(margin=2.0), (row(0, 0), row(1, 0), row(0, 1)), None, 2, (row(-2, 2), row(2, 0), row(0, -2))),
    (gaussian_kl, (row(2), row(0)), None, 2, (row(2), row(0))),
    (info_nce(), (np.eye(3), np.eye(3)), None, math.log(1 + 2 * math.exp(-10)), None),
]


@pytest.mark.parametrize(("loss", "output", "target", "expected", "slope"), CLOSED, ids=lambda part: f"{part!r}"[:40])
def test_closed_forms(loss: Loss[Any, Any], output: Any, target: Any, expected: float, slope: Any) -> None:
    assert value(loss, output, target) == pytest.approx(expected, rel=1e-12)
    if slope is not None:
        assert tree.allclose(gradient(loss, output, target), slope, rtol=1e-12, atol=1e-12)


def test_minima() -> None:
    """The best constant is the mean, the median, the quantile."""
    targets = np.random.default_rng(0).exponential(size=(1001, 1))
    constants = np.linspace(0, 4, 4001)
    for loss, best in (
        (mse, targets.mean()),
        (mae, np.median(targets)),
        (quantile(0.8), np.quantile(targets, 0.8)),
        (poisson_nll, math.log(targets.mean())),
    ):
        values = [value(loss, np.full_like(targets, c), targets) for c in constants]
        assert constants[np.argmin(values)] == pytest.approx(best, abs=2e-3)


# --- one loss from another -------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"smoothing": 0.1},
    {"class_weights": (1.0, 0.3, 2.0), "smoothing": 0.2},
    {"class_weights": (1.0, 0.3, 2.0), "ignore": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
@pytest.mark.parametrize("shape", [(5, 3), (5, 7, 3)])
def test_softmax_and_its_likelihoods_are_softmax_cross_entropy(shape: Any, options: dict[str, Any]) -> None:
    """Logits by way of `Softmax` or `LogSoftmax`: value and derivative to 1e-12."""
    g = np.random.default_rng(0)
    z, t, w = 3 * g.standard_normal(shape), labels(g, shape), g.uniform(size=5)
    direct = softmax_cross_entropy(**options)
    for layer, loss in ((Softmax, cross_entropy(**options)), (LogSoftmax, nll(**options))):
        y, _, back = pullback(layer, {}, {}, z, EVAL)
        np.testing.assert_allclose(value(loss, y, t, w), value(direct, z, t, w), rtol=1e-12)
        np.testing.assert_allclose(back(gradient(loss, y, t, w))[1], gradient(direct, z, t, w), rtol=1e-12, atol=1e-12)


def test_sigmoid_and_its_likelihood_are_sigmoid_cross_entropy() -> None:
    g = np.random.default_rng(0)
    z, t = 3 * g.standard_normal((5, 7)), g.uniform(size=(5, 7))
    for smoothing in (0.0, 0.2):
        direct, loss = sigmoid_cross_entropy(smoothing=smoothing), binary_cross_entropy(smoothing=smoothing)
        y, _, back = pullback(Sigmoid, {}, {}, z, EVAL)
        np.testing.assert_allclose(value(loss, y, t), value(direct, z, t), rtol=1e-12)
        np.testing.assert_allclose(back(gradient(loss, y, t))[1], gradient(direct, z, t), rtol=1e-12, atol=1e-12)


def test_two_classes_are_one_sigmoid() -> None:
    g = np.random.default_rng(0)
    z, t = 3 * g.standard_normal((5, 2)), g.integers(2, size=5)
    alone = value(sigmoid_cross_entropy(), z[:, 1:] - z[:, :1], t[:, None])
    assert value(softmax_cross_entropy(), z, t) == pytest.approx(alone, rel=1e-12)
    assert value(softmax_focal(gamma=1.5), z, t) == pytest.approx(
        value(sigmoid_focal(gamma=1.5), z[:, 1:] - z[:, :1], t[:, None]), rel=1e-12
    )


@pytest.mark.parametrize("make", [softmax_cross_entropy, cross_entropy, nll])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=repr)
def test_labels_are_one_hot_targets(make: Any, options: dict[str, Any]) -> None:
    g = np.random.default_rng(0)
    y, t = interior(g, (5, 7, 3)), labels(g, (5, 7, 3))
    y = np.log(y) if make is nll else y
    loss, dense = make(**options), np.eye(3)[t]
    assert value(loss, y, t) == pytest.approx(value(loss, y, dense), rel=1e-12)
    np.testing.assert_allclose(gradient(loss, y, t), gradient(loss, y, dense), rtol=1e-12, atol=1e-15)


def test_equal_class_weights_change_nothing() -> None:
    g = np.random.default_rng(0)
    z, t = g.standard_normal((5, 7, 3)), labels(g, (5, 7, 3))
    plain, equal = softmax_cross_entropy(smoothing=0.1), softmax_cross_entropy(smoothing=0.1, class_weights=(2, 2, 2))
    assert value(plain, z, t) == pytest.approx(value(equal, z, t), rel=1e-12)
    np.testing.assert_allclose(gradient(plain, z, t), gradient(equal, z, t), rtol=1e-12)


def test_ignored_rows_change_nothing_and_have_no_gradient() -> None:
    g = np.random.default_rng(0)
    z, t = g.standard_normal((5, 7, 3)), padded(g, (5, 7, 3))
    loss = softmax_cross_entropy(ignore=-1)
    moved = np.where((t == -1)[..., None], 100.0, z)
    assert value(loss, z, t) == pytest.approx(value(loss, moved, t), rel=1e-12)
    assert not gradient(loss, z, t)[t == -1].any()
    assert gradient(loss, z, t)[t != -1].all()
    kept = t.reshape(-1) != -1
    alone = value(softmax_cross_entropy(), z.reshape(-1, 3)[kept], t.reshape(-1)[kept])
    assert value(loss, z, t) == pytest.approx(alone, rel=1e-12)


@every_case
def test_a_weight_of_two_is_the_example_twice(case: LossCase) -> None:
    if case.loss.couples_batch:
        pytest.skip("its examples depend on each other")
    output, target = case.subject().point()
    times = np.array([1, 2, 1, 3, 1])
    twice = tree.map(lambda a: np.repeat(a, times, axis=0), (output, target))
    assert value(case.loss, output, target, times) == pytest.approx(value(case.loss, *twice), rel=1e-10)


def test_the_mean_of_a_mask_of_ones_is_the_mean() -> None:
    g = np.random.default_rng(0)
    y, t = g.standard_normal((2, 5, 7, 3))
    for mask in (np.ones((5, 7)), np.ones((5, 7), bool), np.full((5, 7, 3), 2)):
        assert value(masked(mse), y, (t, mask)) == pytest.approx(value(mse, y, t), rel=1e-12)


def test_masks_and_ignored_labels_agree() -> None:
    g = np.random.default_rng(0)
    z, t, w = g.standard_normal((5, 7, 3)), padded(g, (5, 7, 3)), g.uniform(size=5)
    ours = value(masked(softmax_cross_entropy()), z, (np.maximum(t, 0), t != -1), w)
    assert ours == pytest.approx(value(softmax_cross_entropy(ignore=-1), z, t, w), rel=1e-12)


def test_sums_and_factors() -> None:
    g = np.random.default_rng(0)
    y, t = g.standard_normal((2, 5, 3))
    both = sum_of(mse, weighted(0.1, mae))
    assert value(both, y, t) == pytest.approx(value(mse, y, t) + 0.1 * value(mae, y, t), rel=1e-12)
    np.testing.assert_allclose(gradient(both, y, t), gradient(mse, y, t) + 0.1 * gradient(mae, y, t), rtol=1e-12)
    several = per_output(mse, weighted(2.0, mae))
    assert value(several, (y, t), (t, y)) == pytest.approx(value(mse, y, t) + 2 * value(mae, t, y), rel=1e-12)


def test_the_evidence_bound_bounds_the_evidence() -> None:
    """For a linear model with normal noise everything is known: x = z + e, so x ~ N(0, 2) and z | x ~ N(x / 2, 1/2).

    Averaged over draws from the exact posterior, the bound is the negative log evidence; from any other it is larger.
    """
    g = np.random.default_rng(0)
    x = 1.7
    evidence = (math.log(2 * math.pi * 2) + x * x / 2) / 2
    bound = evidence_bound(gaussian_nll)
    for mean, variance, slack in ((x / 2, 0.5, 0.0), (0.0, 1.0, 0.1), (1.0, 0.1, 0.1)):
        z = mean + math.sqrt(variance) * g.standard_normal((200_000, 1))
        latent = np.full_like(z, mean), np.full_like(z, math.log(variance))
        found = value(bound, ((z, np.zeros_like(z)), latent), np.full_like(z, x))
        assert found > evidence + slack - 0.01
        assert slack or found == pytest.approx(evidence, abs=0.01)


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype: Any) -> None:
    """Logits of +-1e4 give finite and right losses and derivatives, and no warnings."""
    big = dtype(1e4)
    z = np.array([[big, -big, 0], [-big, big, 0]], dtype)
    for t, wrong in ((np.array([0, 1]), 0.0), (np.array([1, 0]), 2e4)):
        p, one = np.array([[1, 0, 0], [0, 1, 0]]), np.eye(3)[t]
        assert value(softmax_cross_entropy(), z, t) == wrong
        np.testing.assert_array_equal(gradient(softmax_cross_entropy(), z, t), (p - one) / 2)
        assert value(softmax_focal(), z, t) == wrong
        assert value(softmax_focal(gamma=0.5), z, t) == wrong
        np.testing.assert_array_equal(gradient(softmax_focal(), z, t), (p - one) / 2)
        assert value(kl_divergence, z, one) == wrong
    z, t = np.array([[big, -big, big, -big]], dtype), np.array([[1, 0, 0, 1]])
    for loss in (sigmoid_cross_entropy(), sigmoid_focal(), sigmoid_focal(gamma=0.5)):
        assert value(loss, z, t) == 5e3
        np.testing.assert_array_equal(gradient(loss, z, t), row(0, 0, 0.25, -0.25))
    assert value(log_cosh, z, np.zeros_like(z)) == pytest.approx(1e4 - math.log(2), rel=1e-6)
    np.testing.assert_array_equal(gradient(log_cosh, z, np.zeros_like(z)), np.sign(z) / 4)
    sequence = np.array([[[big, -big, 0], [-big, big, 0], [0, big, -big]]], dtype)
    for given, expected in (([1], 0.0), ([2], 2e4)):
        target = CtcTarget(np.array([given]), np.array([1]), np.array([3]))
        assert value(ctc(), sequence, target) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert np.isfinite(gradient(ctc(), sequence, target)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_exactly_zero_and_one(dtype: Any) -> None:
    """Below the floor the logarithm goes on along its tangent: 0 costs 1 - log(floor), with slope -1 / floor."""
    p, floor = np.array([[0.0, 1.0]], dtype), 1e-7
    for loss, target, wrong in (
        (cross_entropy(), np.array([1]), False),
        (cross_entropy(), np.array([0]), True),
        (binary_cross_entropy(), np.array([[0, 1]]), False),
        (binary_cross_entropy(), np.array([[1, 0]]), True),
    ):
        expected = 1 - math.log(floor) if wrong else 0.0
        assert value(loss, p, target) == pytest.approx(expected, rel=1e-6)
        d = gradient(loss, p, target)
        assert d.dtype == dtype
        numbers = 1 if target.ndim == 1 else 2
        assert np.abs(d).max() == pytest.approx((1 / floor if wrong else 1) / numbers, rel=1e-6)


def test_small_losses_are_accurate() -> None:
    """Where the answer is nearly right the loss is `exp(-z)`, not the noise of a difference of large numbers."""
    z = np.array([[10.0], [16.0]], np.float32)
    exact = np.exp(-z.astype(np.float64))[:, 0]
    np.testing.assert_allclose(sigmoid_cross_entropy().each(z, np.ones_like(z)), exact, rtol=1e-4)
    tiny = np.full((1, 1), 1e-3, np.float32)
    np.testing.assert_allclose(log_cosh.each(tiny, np.zeros_like(tiny)), [5e-7], rtol=1e-5)


# --- connectionist temporal classification ---------------------------------------------------------------------------


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """Repeats merged, then blanks removed."""
    return tuple(k for k, _ in groupby(path) if k != blank)


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_ctc_is_the_sum_over_all_alignments(frames: int, blank: int) -> None:
    """Brute force: for every labelling that some path of three classes collapses to, all paths are added up."""
    g = np.random.default_rng(frames)
    z = 2 * g.standard_normal((1, 6, 3))
    p = np.exp(z[0]) / np.exp(z[0]).sum(axis=1, keepdims=True)
    expected: dict[tuple[int, ...], float] = defaultdict(float)
    for path in product(range(3), repeat=frames):
        expected[collapse(path, blank)] += math.prod(p[t, k] for t, k in enumerate(path))
    assert sum(expected.values()) == pytest.approx(1)
    for given, probability in expected.items():
        labels = np.full((1, 5), 7)
        labels[0, : len(given)] = given
        target = CtcTarget(labels, np.array([len(given)]), np.array([frames]))
        assert value(ctc(blank=blank), z, target) == pytest.approx(-math.log(probability), rel=1e-12)
        assert not gradient(ctc(blank=blank), z, target)[:, frames:].any()


def test_ctc_of_labels_that_do_not_fit() -> None:
    z = np.zeros((2, 3, 4))
    for labels, lengths, frames in (([[1, 1], [1, 2]], [2, 2], [2, 3]), ([[1, 2], [1, 2]], [2, 2], [3, 1])):
        with pytest.raises(ValueError, match="labels need"):
            ctc().forward(z, CtcTarget(np.array(labels), np.array(lengths), np.array(frames)), None)


# --- what is refused -------------------------------------------------------------------------------------------------

Z = np.zeros((4, 3))
L = np.array([0, 1, 2, 0])
CE = softmax_cross_entropy()
FRAMES = np.zeros((1, 5, 3))

BY_CLASS: Any = {0: 5.0, 1: 1.0, 2: 1.0}
WORD: Any = "125"


REFUSED: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ShapeError, "nothing is broadcast", lambda: value(mse, np.zeros(4), np.zeros((4, 1)))),
    (ShapeError, "nothing is broadcast", lambda: value(mse, np.zeros((4, 1)), np.zeros(4))),
    (ShapeError, "batch axis", lambda: value(mse, np.zeros(()), np.zeros(()))),
    (ShapeError, "no examples", lambda: value(mse, np.zeros((0, 3)), np.zeros((0, 3)))),
    (TypeError, "expected an output of floats", lambda: value(mse, np.zeros((4, 3), int), np.zeros((4, 3)))),
    (TypeError, "expected an output of floats", lambda: value(CE, np.zeros((4, 3), int), L)),
    (ValueError, "expected labels from 0 to 2, got 3", lambda: value(CE, Z, L + 1)),
    (ValueError, "expected labels from 0 to 2, got -1", lambda: value(CE, Z, L - 1)),
    (ValueError, r"0 to 2 \(or -1, ignored\), got -2", lambda: value(softmax_cross_entropy(ignore=-1), Z, L - 2)),
    (ShapeError, "expected integer labels", lambda: value(CE, Z, L.astype(float))),
    (ShapeError, "expected integer labels", lambda: value(CE, Z, L[:, None])),
    (ShapeError, "expected integer labels", lambda: value(CE, Z, Z.astype(int))),
    (ShapeError, "expected integer labels", lambda: value(softmax_cross_entropy(ignore=0), Z, Z)),
    (ShapeError, "expected integer labels", lambda: value(multiclass_hinge, Z, Z)),
    (ShapeError, r"\(batch, ..., classes\)", lambda: value(CE, np.zeros(4), L)),
    (ShapeError, "weights for 3 classes, got 2", lambda: value(softmax_cross_entropy(class_weights=(1, 2)), Z, L)),
    (ValueError, "nothing to take the mean of", lambda: value(softmax_cross_entropy(ignore=0), Z, L * 0)),
    (ValueError, "nothing to take the mean of", lambda: value(mse, Z, Z, np.zeros(4))),
    (ShapeError, "one weight for each of 4", lambda: value(mse, Z, Z, np.ones((4, 1)))),
    (ShapeError, "one weight for each of 4", lambda: value(softmax_cross_entropy(ignore=0), Z, L, np.ones(3))),
    (ValueError, "targets from 0 to 1", lambda: value(sigmoid_cross_entropy(), Z, Z - 1)),
    (ValueError, "targets from 0 to 1", lambda: value(binary_cross_entropy(), Z, Z + 2)),
    (ValueError, "targets from 0 to 1", lambda: value(sigmoid_focal(), Z, Z + 2)),
    (ValueError, "targets -1 and 1", lambda: value(hinge, Z, Z)),
    (ValueError, "expected counts", lambda: value(poisson_nll, Z, Z - 1)),
    (ValueError, "expected distributions", lambda: value(kl_divergence, Z, Z - 1)),
    (ShapeError, "a pair of outputs", lambda: value(gaussian_nll, Z, Z)),
    (TypeError, "expected an output of floats", lambda: value(gaussian_kl, (Z.astype(int), Z.astype(int)), None)),
    (ShapeError, "a pair of outputs", lambda: value(gaussian_nll, (Z, Z[:, :1]), Z)),
    (ShapeError, "3 arrays", lambda: value(triplet(), (Z, Z), None)),
    (ShapeError, "2 arrays", lambda: value(info_nce(), (Z, Z[:3]), None)),
    (TypeError, "expected the target None", lambda: value(info_nce(), (Z, Z), L)),
    (TypeError, "of one dtype", lambda: value(info_nce(), (Z, Z.astype(np.float32)), None)),
    (ShapeError, "a tuple of 2 as output", lambda: value(per_output(mse, mse), Z, (Z, Z))),
    (ShapeError, "a tuple of 2 as target", lambda: value(per_output(mse, mse), (Z, Z), (Z, Z, Z))),
    (ShapeError, "expected a mask", lambda: value(masked(mse), Z, (Z, np.ones(3)))),
    (TypeError, r"a pair \(target, mask\)", lambda: value(masked(mse), Z, Z)),
    (ValueError, "without negative numbers", lambda: value(masked(mse), Z, (Z, -np.ones(4)))),
    (TypeError, "CtcTarget", lambda: value(ctc(), np.zeros((2, 5, 3)), L)),
    (ShapeError, "ctc: expected logits", lambda: value(ctc(), Z, CtcTarget(L[:, None], L, L))),
    (ValueError, "other than the blank", lambda: value(ctc(), FRAMES, CtcTarget(L[None], L[:1] + 4, L[:1] + 5))),
    (ValueError, "the blank is 3", lambda: value(ctc(blank=3), FRAMES, CtcTarget(L[None], L[:1] + 1, L[:1] + 5))),
    (ShapeError, "ctc: for logits", lambda: value(ctc(), FRAMES, CtcTarget(L, L[:1] + 1, L[:1] + 5))),
    (TypeError, "ctc: expected integers", lambda: value(ctc(), FRAMES, (Z[:1], L[:1] + 1, L[:1] + 5))),
    (ValueError, "huber: expected delta", lambda: huber(delta=0.0)),
    (ValueError, "huber: expected delta", lambda: huber(delta=math.nan)),
    (ValueError, "quantile: expected q", lambda: quantile(1.0)),
    (ValueError, "smoothing", lambda: softmax_cross_entropy(smoothing=1.0)),
    (ValueError, "class weight", lambda: softmax_cross_entropy(class_weights=(1.0, -1.0))),
    (ValueError, "class weight", lambda: softmax_cross_entropy(class_weights=(0.0, 0.0))),
    (ValueError, "expected ignore", lambda: softmax_cross_entropy(ignore=0.5)),  # type: ignore[arg-type]
    (ValueError, "positive_weight", lambda: sigmoid_cross_entropy(positive_weight=0.0)),
    (ValueError, "floor", lambda: cross_entropy(floor=0.0)),
    (ValueError, "gamma", lambda: sigmoid_focal(gamma=-1.0)),
    (ValueError, "alpha", lambda: sigmoid_focal(alpha=1.0)),
    (ValueError, "margin", lambda: triplet(margin=0.0)),
    (ValueError, "temperature", lambda: info_nce(temperature=0.0)),
    (ValueError, "blank", lambda: ctc(blank=-1)),
    (ValueError, "factor", lambda: weighted(math.inf, mse)),
    (TypeError, r"call it: huber\(...\)", lambda: sum_of(mse, huber)),  # type: ignore[arg-type]
    (ValueError, "at least one", lambda: sum_of()),
    (ValueError, "count the same", lambda: masked(softmax_cross_entropy(ignore=0))),
    (ValueError, "count the same", lambda: evidence_bound(softmax_cross_entropy(ignore=0))),
    (ValueError, "beta", lambda: evidence_bound(mse, beta=-1.0)),
    (ValueError, "l2: expected a finite strength", lambda: l2(-1.0)),
    (ValueError, "cross_entropy: expected probabilities.*Softmax.*logits", lambda: value(cross_entropy(), Z + 2, L)),
    (ValueError, "nll: expected log-probabilities.*LogSoftmax", lambda: value(nll(), np.abs(Z) + 1, L)),
    (ValueError, "binary_cross_entropy: .*Sigmoid", lambda: value(binary_cross_entropy(), Z - 3, np.abs(np.sign(Z)))),
    (TypeError, "one class weight for each class, in order", lambda: softmax_cross_entropy(class_weights=BY_CLASS)),
    (TypeError, "one class weight for each class, in order", lambda: softmax_cross_entropy(class_weights=WORD)),
    (ValueError, "above 0 with smoothing", lambda: softmax_cross_entropy(smoothing=0.1, class_weights=[1, 0, 2])),
    (TypeError, "expected penalties", lambda: penalties(mse)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED)
def test_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("loss", [softmax_focal(), multiclass_hinge], ids=str)
def test_a_class_that_is_ruled_out_counts_nothing(loss: Loss[Any, Any]) -> None:
    """Logits of minus infinity, as of actions that are not allowed."""
    z = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    labels = np.array([0, 1, 2])
    masked = z.copy()
    masked[:, 3] = -np.inf
    value, cache = loss.forward(masked, labels, None)
    expected, among = loss.forward(z[:, :3].copy(), labels, None)
    assert value == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(loss.vjp(cache)[:, :3], loss.vjp(among), rtol=1e-5, atol=1e-7)
    assert not loss.vjp(cache)[:, 3].any()


def test_labels_may_be_a_list_where_some_are_ignored() -> None:
    z = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    loss: Loss[Any, Any] = softmax_cross_entropy(ignore=-1)
    assert loss.forward(z, [0, 2, -1], None)[0] == loss.forward(z, np.array([0, 2, -1]), None)[0]


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the weights of all examples sum to 0"):
        evaluate(Identity, {}, (Z, L * 0), loss=softmax_cross_entropy(ignore=0))


# --- penalties -------------------------------------------------------------------------------------------------------

NET = serial(Dense(4), Tanh, Dense(2))
PARAMS = tree.cast(NET.init(Key(0), (3,)), np.float64)
X, T = (np.random.default_rng(i).standard_normal((5, n)) for i, n in enumerate((3, 2)))
STRENGTHS = [l1(0.1), l2(0.3), penalties(l1(0.1), l2(0.3)), l2(0.2, where=lambda path, a: path == "dense_1/bias")]


@pytest.mark.parametrize("penalty", STRENGTHS, ids=repr)
def test_a_penalty_adds_its_value_and_its_derivative(penalty: Penalty) -> None:
    plain, grads, _ = value_and_grad(NET, mse)(PARAMS, {}, X, T, EVAL)
    total, with_penalty, _ = value_and_grad(NET, mse, penalty)(PARAMS, {}, X, T, EVAL)
    assert total == plain + penalty.forward(PARAMS)
    vector, unravel = tree.ravel(PARAMS)
    numeric = [
        (penalty.forward(unravel(vector + d)) - penalty.forward(unravel(vector - d))) / 2e-6
        for d in 1e-6 * np.eye(len(vector))
    ]
    expected = tree.map(np.add, grads, unravel(np.array(numeric)))
    assert tree.allclose(with_penalty, expected, rtol=1e-7, atol=1e-7)
    assert tree.allclose(grad(NET, mse, penalty)(PARAMS, {}, X, T, EVAL), with_penalty, rtol=0, atol=0)


def test_penalties_in_closed_form() -> None:
    params = {"a": {"w": np.array([[1.0, -2.0], [0.0, 4.0]]), "b": np.array([9.0])}}
    zeros = tree.zeros_like(params)
    assert l1(0.5).forward(params) == 3.5
    assert l2(0.5).forward(params) == 5.25
    for penalty, slope in ((l1(0.5), [[0.5, -0.5], [0, 0.5]]), (l2(0.5), [[0.5, -1], [0, 2]])):
        assert tree.allclose(penalty.vjp(params, zeros), {"a": {"w": np.array(slope), "b": np.zeros(1)}})


@pytest.mark.parametrize("penalty", STRENGTHS, ids=repr)
def test_penalties_keep_dtypes_and_what_is_not_theirs(penalty: Penalty) -> None:
    params = tree.cast(PARAMS, np.float32)
    value, grads, _ = value_and_grad(NET, mse, penalty)(params, {}, X.astype(np.float32), T, EVAL)
    assert value.dtype == np.float32
    assert {leaf.dtype for leaf in tree.leaves(grads)} == {np.dtype(np.float32)}
    given: Any = {"dense_0": {"weight": None, "bias": np.zeros(4)}, "dense_1": None}
    kept: Any = penalty.vjp(PARAMS, given)
    assert kept["dense_0"]["weight"] is None
    assert kept["dense_1"] is None
    assert kept["dense_0"]["bias"] is given["dense_0"]["bias"]


def test_l2_is_weight_decay() -> None:
    """Training with the penalty is training with `add_decayed_weights` before the optimizer."""
    data = batches((X.astype(np.float32), T.astype(np.float32)), size=2)
    params = NET.init(Key(0), (3,))
    common: dict[str, Any] = {"model": NET, "loss": mse, "epochs": 3}
    with_penalty = train(params, data, sgd(0.1), penalty=l2(0.2), **common)
    with_decay = train(params, data, chain(add_decayed_weights(0.2), sgd(0.1)), **common)
    assert tree.allclose(with_penalty.params, with_decay.params, rtol=1e-5, atol=1e-6)
    assert with_penalty.history[0].loss > with_decay.history[0].loss


def test_a_penalty_that_selects_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="selects no parameter; there are dense_0/weight"):
        l2(0.1, where=lambda path, a: path == "dense_7/weight").forward(PARAMS)


# --- training and evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@every_case
def test_an_evaluation_in_parts_is_the_loss_of_the_whole(case: LossCase, size: int) -> None:
    if case.loss.couples_batch:
        pytest.skip("its examples depend on each other")
    output, target = case.subject().point()
    weight = np.array([1.0, 0.5, 2.0, 0.0, 1.5])
    for data in ((output, target), (output, target, weight)):
        found = evaluate(Identity, {}, data, loss=case.loss, size=size)["loss"]
        assert found == pytest.approx(value(case.loss, *data), rel=1e-9)


def test_training_without_targets() -> None:
    """Losses that compare outputs take None as target, through batches, training and evaluation."""
    g = np.random.default_rng(0)
    x = g.standard_normal((40, 3)).astype(np.float32)
    pairs = x, (x + 0.1 * g.standard_normal(x.shape)).astype(np.float32)
    loss = info_nce(temperature=0.5)
    data = batches((pairs, None), size=8)
    net: Layer[Any, Any] = Identity
    found = train({}, data, sgd(0.1), model=net, loss=loss, epochs=1, evaluation=(pairs, None))
    assert found.history[-1].evaluation["loss"] == pytest.approx(value(loss, pairs, None), rel=1e-6)


def test_a_penalty_that_overflows_is_named() -> None:
    data = batches((X.astype(np.float32), T.astype(np.float32)), size=5)
    with np.errstate(over="ignore"), pytest.raises(NonFiniteError, match=r"with the penalty l2\(1e\+39\)"):
        train(NET.init(Key(0), (3,)), data, sgd(0.1), model=NET, loss=mse, penalty=l2(1e39), epochs=1)


def test_a_part_in_the_wrong_place_is_named() -> None:
    data = batches((X.astype(np.float32), T.astype(np.float32)), size=5)
    params = NET.init(Key(0), (3,))
    with pytest.raises(TypeError, match=r"penalty: expected a penalty such as l2\(1e-4\).*call it: l2\(...\)"):
        train(params, data, sgd(0.1), model=NET, loss=mse, penalty=l2, epochs=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"loss: expected a loss such as mse.*call it: huber\(...\)"):
        train(params, data, sgd(0.1), model=NET, loss=huber, epochs=1)  # type: ignore[arg-type]


def test_a_class_that_is_ruled_out_costs_nothing_where_it_is_not_the_label() -> None:
    logits = np.array([[1.0, 2.0, -np.inf]], np.float32)
    value, cache = softmax_cross_entropy().forward(logits, np.array([1]), None)
    assert value == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)
    np.testing.assert_allclose(softmax_cross_entropy().vjp(cache)[0, 2], 0)
    logs = np.log(np.array([[0.25, 0.75, 1.0]], np.float32)) + np.array([0, 0, -np.inf], np.float32)
    assert nll().forward(logs, np.array([1]), None)[0] == pytest.approx(-math.log(0.75), rel=1e-6)


def test_ctc_with_classes_that_are_ruled_out() -> None:
    """Only label 1 is possible in the second of three frames: blank 1 2, 1 1 2 and 2 1 ... are the ways."""
    logits = np.zeros((1, 3, 3))
    logits[0, 1, [0, 2]] = -np.inf
    target = CtcTarget(np.array([[1, 2]]), np.array([2]), np.array([3]))
    value, cache = ctc().forward(logits, target, None)
    assert value == pytest.approx(-math.log(2 / 9))  # of the 9 ways on, "- 1 2" and "1 1 2"
    d = ctc().vjp(cache)
    assert np.isfinite(d).all() and not d[0, 1].any()
