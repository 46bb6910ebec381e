"""Metrics: the same however the data is split, equal to scikit-learn's, and what they refuse."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn.metrics
from fnn import tree
from fnn.contract import Layer
from fnn.data import batches
from fnn.layers.shape import Identity
from fnn.losses import huber, mse, softmax_cross_entropy
from fnn.metrics import (
    Metric,
    accuracy,
    binary_accuracy,
    binary_f1,
    binary_precision,
    binary_recall,
    class_scores,
    confusion_matrix,
    f1,
    ignoring,
    mean_absolute_error,
    mean_of,
    mean_squared_error,
    perplexity,
    precision,
    r2,
    recall,
    roc_auc,
    root_mean_squared_error,
    top_k,
)
from fnn.optimizers import sgd
from fnn.training import evaluate, train
from fnn.types import ShapeError

sk: Any = pytest.importorskip("sklearn.metrics")

Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]
Reference = Callable[[Any, Any, Any], Any]
CLASSES = 4
OF: tuple[Literal["macro", "micro"] | int, ...] = ("macro", "micro", 0, 3)


# --- data ------------------------------------------------------------------------------------------------------------


def classes(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Scores with ties, and labels among which one class is rare."""
    return np.round(g.standard_normal((n, CLASSES)), 1), g.choice(CLASSES, size=n, p=(0.4, 0.3, 0.29, 0.01))


def dense(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    return g.standard_normal((n, CLASSES)), g.dirichlet(np.ones(CLASSES), size=n)


def sequences(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    return g.standard_normal((n, 3, CLASSES)), g.integers(CLASSES, size=(n, 3))


def padded(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    return g.standard_normal((n, 3, CLASSES)), g.integers(-1, CLASSES, size=(n, 3))


def binary(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Probabilities with many ties."""
    return np.round(g.uniform(size=n), 1), g.integers(2, size=n)


def numbers(g: np.random.Generator, n: int) -> tuple[Any, Any]:
    return g.standard_normal((n, 3)), 1e3 + g.standard_normal((n, 3))


# --- scikit-learn's answers ------------------------------------------------------------------------------------------


def of_labels(f: Reference) -> Reference:
    """A reference on labels: of outputs the largest, of dense targets the largest, all rows alike."""

    def reference(output: Any, target: Any, weight: Any) -> Any:
        y, t = output.reshape(-1, CLASSES).argmax(1), target if target.ndim < output.ndim else target.argmax(-1)
        w = np.repeat(weight, t.size // len(t))
        return f(y, t.reshape(-1), w)

    return reference


def kept(f: Reference) -> Reference:
    """A reference on the rows whose label is not -1."""

    def reference(output: Any, target: Any, weight: Any) -> Any:
        rows, w = target.reshape(-1) != -1, np.repeat(weight, target[0].size)
        return f(output.reshape(-1, CLASSES)[rows], target.reshape(-1)[rows], w[rows])

    return reference


def softmax(z: Any) -> Any:
    p = np.exp(z)
    return p / p.sum(-1, keepdims=True)


def sk_accuracy(y: Any, t: Any, w: Any) -> Any:
    return sk.accuracy_score(t, y, sample_weight=w)


def sk_top_k(k: int) -> Reference:
    return lambda y, t, w: sk.top_k_accuracy_score(t, y, k=k, sample_weight=w, labels=range(CLASSES))


def sk_scores(name: str, of: Any) -> Reference:
    options = {"labels": [of], "average": "macro"} if isinstance(of, int) else {"average": of}
    return of_labels(lambda y, t, w: getattr(sk, name)(t, y, sample_weight=w, zero_division=0, **options))


def sk_perplexity(z: Any, t: Any, w: Any) -> Any:
    return math.exp(sk.log_loss(t, softmax(z), sample_weight=w, labels=range(CLASSES)))


def sk_confusion(y: Any, t: Any, w: Any) -> Any:
    return sk.confusion_matrix(t, y, sample_weight=w, labels=range(CLASSES))


def above(name: str, threshold: float) -> Reference:
    return lambda y, t, w: getattr(sk, name)(t, y > threshold, sample_weight=w)


CASES: list[tuple[Metric[Any, Any, Any], Draw, Reference]] = [
    (accuracy, classes, of_labels(sk_accuracy)),
    (accuracy, dense, of_labels(sk_accuracy)),
    (accuracy, sequences, of_labels(sk_accuracy)),
    (ignoring(-1, accuracy), padded, kept(of_labels(sk_accuracy))),
    (top_k(1), classes, of_labels(sk_accuracy)),
    (top_k(2), dense, lambda y, t, w: sk_top_k(2)(y, t.argmax(1), w)),
    (ignoring(-1, top_k(3)), padded, kept(lambda y, t, w: sk_top_k(3)(y, t, w))),
    (binary_accuracy(), binary, above("accuracy_score", 0.5)),
    (binary_accuracy(threshold=0.2), binary, above("accuracy_score", 0.2)),
    (confusion_matrix(CLASSES), classes, of_labels(sk_confusion)),
    (confusion_matrix(CLASSES), sequences, of_labels(sk_confusion)),
    (ignoring(-1, confusion_matrix(CLASSES)), padded, kept(of_labels(sk_confusion))),
    *(
        (metric(CLASSES, of=of), classes, sk_scores(name, of))
        for metric, name in ((precision, "precision_score"), (recall, "recall_score"), (f1, "f1_score"))
        for of in OF
    ),
    (binary_precision(), binary, above("precision_score", 0.5)),
    (binary_recall(threshold=0.3), binary, above("recall_score", 0.3)),
    (binary_f1(threshold=0.3), binary, above("f1_score", 0.3)),
    (roc_auc, binary, lambda y, t, w: sk.roc_auc_score(t, y, sample_weight=w)),
    (perplexity, classes, sk_perplexity),
    (ignoring(-1, perplexity), padded, kept(sk_perplexity)),
    (mean_squared_error, numbers, lambda y, t, w: sk.mean_squared_error(t, y, sample_weight=w)),
    (root_mean_squared_error, numbers, lambda y, t, w: math.sqrt(sk.mean_squared_error(t, y, sample_weight=w))),
    (mean_absolute_error, numbers, lambda y, t, w: sk.mean_absolute_error(t, y, sample_weight=w)),
    (r2, numbers, lambda y, t, w: sk.r2_score(t, y, sample_weight=w)),
    (mean_of("huber", huber().each), numbers, lambda y, t, w: np.average(huber().each(y, t), weights=w)),
]
every_case = pytest.mark.parametrize(("metric", "draw", "reference"), CASES, ids=lambda part: getattr(part, "kind", ""))


def of(metric: Metric[Any, Any, Any], output: Any, target: Any, weight: Any = None) -> Any:
    return metric.compute(metric.update(metric.init(), output, target, weight))


# --- the laws --------------------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(metric: Metric[Any, Any, Any], draw: Draw, reference: Reference, seed: int) -> None:
    g = np.random.default_rng(seed)
    output, target = draw(g, 60)
    for weight in (None, g.uniform(0.1, 2, size=60)):
        expected = reference(output, target, np.ones(60) if weight is None else weight)
        np.testing.assert_allclose(of(metric, output, target, weight), expected, rtol=1e-9, atol=1e-12)


@every_case
@settings(max_examples=15)
@given(st.data())
def test_merged_parts_are_the_whole(metric: Metric[Any, Any, Any], draw: Draw, reference: Reference, data: Any) -> None:
    """However the data is split, whichever parts are empty, in whatever tree they are merged."""
    g = np.random.default_rng(data.draw(st.integers(0, 100)))
    n = 20
    output, target = draw(g, n)
    weight = g.uniform(0.1, 2, size=n) if data.draw(st.booleans()) else None
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    parts = []
    for start, stop in itertools.pairwise([0, *cuts, n]):
        rows = slice(start, stop)
        parts.append(metric.update(metric.init(), output[rows], target[rows], None if weight is None else weight[rows]))
    while len(parts) > 1:
        i = data.draw(st.integers(0, len(parts) - 2))
        parts[i : i + 2] = [metric.merge(parts[i], parts[i + 1])]
    whole = of(metric, output, target, weight)
    np.testing.assert_allclose(metric.compute(parts[0]), whole, rtol=1e-9, atol=1e-12)
    found = metric.init()
    for i in range(n):
        row = slice(i, i + 1)
        found = metric.update(found, output[row], target[row], None if weight is None else weight[row])
    np.testing.assert_allclose(metric.compute(found), whole, rtol=1e-9, atol=1e-12)


@every_case
def test_pure(metric: Metric[Any, Any, Any], draw: Draw, reference: Reference) -> None:
    """Neither data nor accumulations are changed; nothing accumulated, or only weights of zero, is not a number."""
    output, target = tree.read_only(draw(np.random.default_rng(0), 20))
    before = metric.update(metric.init(), output, target, None)
    kept = pickle.dumps(before)
    metric.update(before, output, target, None)
    metric.merge(before, before)
    metric.merge(metric.init(), before)
    assert pickle.dumps(before) == kept
    empty = np.asarray(metric.compute(metric.init()))
    assert np.isnan(empty).all() if empty.ndim == 0 else not empty.any()


@every_case
def test_repr_and_pickle(metric: Metric[Any, Any, Any], draw: Draw, reference: Reference) -> None:
    output, target = draw(np.random.default_rng(0), 20)
    copy = pickle.loads(pickle.dumps(metric))
    np.testing.assert_array_equal(of(copy, output, target), of(metric, output, target))
    if not metric.kind.startswith("huber"):
        assert repr(eval(repr(metric), dict(vars(fnn.metrics)))) == repr(metric)


def test_every_metric_has_a_row() -> None:
    exported = {name: getattr(fnn.metrics, name) for name in fnn.metrics.__all__}
    given = {name: str(getattr(thing, "__annotations__", {}).get("return", "")) for name, thing in exported.items()}
    names = {name for name, thing in exported.items() if isinstance(thing, Metric) or given[name].startswith("Metric[")}
    rows = " ".join(repr(metric) for metric, _, _ in CASES)
    assert not [name for name in names if name not in rows]


def test_names_differ_where_options_do() -> None:
    metrics: list[Metric[Any, Any, Any]] = [
        accuracy,
        *(top_k(k) for k in (1, 2, 10)),
        *(make(threshold=t) for make in (binary_accuracy, binary_f1, binary_precision) for t in (0.5, 0.0, 0.25)),
        *(make(CLASSES, of=of) for make in (precision, recall, f1) for of in OF),
        *(ignoring(label, metric) for label in (-1, 0) for metric in (accuracy, top_k(2), perplexity)),
        perplexity,
        roc_auc,
        r2,
    ]
    assert len({metric.kind for metric in metrics}) == len(metrics)


# --- what is right beyond the reference ------------------------------------------------------------------------------


def test_scores_of_every_class() -> None:
    output, target = classes(np.random.default_rng(0), 60)
    scores = class_scores(of(confusion_matrix(CLASSES), output, target))
    expected = sk.precision_recall_fscore_support(target, output.argmax(1), labels=range(CLASSES), zero_division=0)
    np.testing.assert_allclose(scores, expected)


def test_r2_of_constant_features() -> None:
    constant = np.ones((5, 1))
    assert of(r2, constant, constant) == 1 == sk.r2_score(constant, constant)
    assert of(r2, constant * 2, constant) == 0 == sk.r2_score(constant, constant * 2)


def test_r2_of_numbers_far_from_zero() -> None:
    """The sum of squares about the mean, not the difference of two large sums."""
    g = np.random.default_rng(0)
    t = g.standard_normal((1000, 1))
    y = t + 0.1 * g.standard_normal((1000, 1))
    assert of(r2, y + 2.0**26, t + 2.0**26) == pytest.approx(of(r2, y, t), rel=1e-6)


def test_the_area_of_one_kind_is_not_a_number() -> None:
    assert math.isnan(of(roc_auc, np.array([0.1, 0.2]), np.array([1, 1])))


def test_perplexity_of_no_idea_is_the_number_of_classes() -> None:
    assert of(perplexity, np.zeros((5, 7)), np.arange(5)) == pytest.approx(7)


def test_top_k_of_equal_outputs() -> None:
    """A network that says nothing is not right every time: of equal outputs the first k count."""
    z, t = np.zeros((4, 4)), np.arange(4)
    assert [of(top_k(k), z, t) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]
    assert of(top_k(1), z, t) == of(accuracy, z, t)


# --- in training -----------------------------------------------------------------------------------------------------

NET: Layer[Any, Any] = Identity


def test_metrics_in_an_evaluation() -> None:
    output, target = classes(np.random.default_rng(0), 60)
    metrics = accuracy, f1(CLASSES), top_k(2)
    found = evaluate(NET, {}, (output, target), loss=softmax_cross_entropy(), metrics=metrics, size=7)
    assert [*found] == ["loss", "accuracy", "f1", "top_2"]
    assert found["f1"] == pytest.approx(of(f1(CLASSES), output, target))


def test_training_can_monitor_a_metric() -> None:
    output, target = classes(np.random.default_rng(0), 60)
    data = batches((output.astype(np.float32), target), size=20)
    common: dict[str, Any] = {"model": NET, "loss": softmax_cross_entropy(), "epochs": 1}
    common["evaluation"] = output, target
    found = train({}, data, sgd(0.1), metrics=(f1(CLASSES, of=2),), monitor="f1_2", **common)
    assert set(found.history[-1].evaluation) == {"loss", "f1_2"}
    with pytest.raises(ValueError, match="two have the same name: loss, accuracy, accuracy"):
        train({}, data, sgd(0.1), metrics=(accuracy, accuracy), **common)
    with pytest.raises(ValueError, match="two have the same name"):
        train({}, data, sgd(0.1), metrics=(mean_of("loss", mse.each),), **common)
    with pytest.raises(TypeError, match="gives an array"):
        train({}, data, sgd(0.1), metrics=(confusion_matrix(CLASSES),), **common)  # type: ignore[arg-type]


# --- what is refused -------------------------------------------------------------------------------------------------

Z, L = np.zeros((4, CLASSES)), np.arange(4)
P, B = np.full(4, 0.5), np.array([0, 1, 1, 0])

REFUSED: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, "expected labels from 0 to 3, got 4", lambda: of(accuracy, Z, L + 1)),
    (ValueError, "expected labels from 0 to 3, got -1", lambda: of(f1(CLASSES), Z, L - 1)),
    (ShapeError, "accuracy: for outputs", lambda: of(accuracy, Z, L[:, None])),
    (ShapeError, "accuracy: for outputs", lambda: of(accuracy, Z, L.astype(float))),
    (ShapeError, "accuracy: expected one weight for each of 4", lambda: of(accuracy, Z, L, np.ones(3))),
    (ShapeError, r"f1: expected outputs \(batch, ..., 3\)", lambda: of(f1(3), Z, L)),
    (ShapeError, "expected integer labels", lambda: of(ignoring(-1, accuracy), Z, Z)),
    (ShapeError, "expected output and target of one shape", lambda: of(binary_accuracy(), P[:, None], B)),
    (ValueError, "expected targets 0 and 1", lambda: of(binary_accuracy(), P, B * 2 - 1)),
    (ValueError, "expected targets 0 and 1", lambda: of(roc_auc, P, P)),
    (ShapeError, "nothing is broadcast", lambda: of(r2, P, P[:, None])),
    (ShapeError, "r2: expected one weight", lambda: of(r2, P, P, np.ones((4, 1)))),
    (ShapeError, "nothing is broadcast", lambda: of(mean_squared_error, P, P[:, None])),
    (ValueError, "top_k: expected k", lambda: top_k(0)),
    (ValueError, "threshold", lambda: binary_accuracy(threshold=math.nan)),
    (ValueError, "classes", lambda: confusion_matrix(0)),
    (ValueError, "expected of to be", lambda: f1(3, of=3)),
    (ValueError, "expected of to be", lambda: recall(3, of="weighted")),  # type: ignore[arg-type]
    (ValueError, "expected a name", lambda: mean_of("", mse.each)),
    (ValueError, "expected a label", lambda: ignoring(0.5, accuracy)),  # type: ignore[arg-type]
    (TypeError, "expected a metric", lambda: ignoring(0, top_k)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "message", "call"), REFUSED)
def test_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


def test_metrics_are_values() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        accuracy.kind = "other"  # type: ignore[misc]


def test_an_output_that_is_no_number_is_no_hit() -> None:
    output, labels = np.full((4, 10), np.nan), np.array([3, 4, 5, 6])
    for metric in (top_k(1), top_k(5), accuracy):
        assert metric.compute(metric.update(metric.init(), output, labels * 0, None)) == 0
    for counting in (confusion_matrix(10), f1(10), recall(10, of=0)):
        assert np.isnan(counting.compute(counting.update(counting.init(), output, labels, None))).all()


def test_an_output_that_is_no_number_is_no_hit_of_two_classes() -> None:
    output, targets = np.full((10, 1), np.nan), np.zeros((10, 1))
    targets[0] = 1
    assert binary_accuracy().compute(binary_accuracy().update(binary_accuracy().init(), output, targets, None)) == 0
    for metric in (binary_f1(), binary_precision(), binary_recall(), roc_auc):
        assert np.isnan(metric.compute(metric.update(metric.init(), output, targets, None)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_r2_of_what_is_no_number_is_none(bad: float) -> None:
    y = np.array([[1.0], [2.0], [bad], [4.0]])
    out = np.array([[9.0], [-9.0], [3.0], [-4.0]])
    assert np.isnan(r2.compute(r2.update(r2.init(), out, y, None)))


@pytest.mark.parametrize("each", [lambda o, t: ((o - t) ** 2).mean(axis=0), lambda o, t: np.float64(o.max())])
def test_a_mean_is_of_a_number_for_each_example(each: Any) -> None:
    metric = mean_of("mine", each)
    with pytest.raises(ShapeError, match="mine: expected a value for each of 5 examples"):
        metric.update(metric.init(), np.zeros((5, 3)), np.zeros((5, 3)), None)
