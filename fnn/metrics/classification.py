"""How often classes are right: accuracies, the confusion matrix and what follows from it, the area under the ROC curve.

Outputs are scores (batch, ..., classes), targets integer labels (batch, ...) or dense distributions, of which the
largest number is the label. All rows (such as time steps) count the same, times the weight of their example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fnn.check import number, positive
from fnn.losses.classes import check_labels
from fnn.losses.core import float_error
from fnn.losses.entropy import softmax_cross_entropy
from fnn.metrics.core import Mean, Metric, compute_mean, loss_metric, mean_metric, row_weights
from fnn.types import Array, Ints, NDArray, ShapeError, bind

Matrix: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = Array | Ints


# --- labels ----------------------------------------------------------------------------------------------------------


def true_labels(kind: str, output: Array, target: Labels) -> NDArray[Any]:
    """The labels of the rows, given as such or as dense targets; they must fit the output (batch, ..., classes)."""
    shape = np.shape(output)
    given: NDArray[Any] = np.asarray(target)
    if len(shape) > 1 and given.dtype.kind in "iu" and given.shape == shape[:-1]:
        try:
            check_labels(kind, given, shape[-1])
        except ValueError as error:
            error.add_note("where a label stands for padding, ignoring(label, metric) leaves its rows out")
            raise
        return given
    if len(shape) > 1 and given.dtype.kind == "f" and given.shape == shape:
        return np.asarray(given.argmax(axis=-1))
    raise ShapeError(
        f"{kind}: for outputs {shape} expected integer labels {shape[:-1]} or dense float targets {shape}, "
        f"got {given.dtype} {given.shape}"
    )


def binary_labels(kind: str, output: Array, target: Labels) -> NDArray[np.bool_]:
    """Whether the numbers of the target are 1; they must be 0 or 1, and as many as those of the output."""
    given: NDArray[Any] = np.asarray(target)
    if np.ndim(output) < 1 or given.shape != np.shape(output):
        raise ShapeError(f"{kind}: expected output and target of one shape, got {np.shape(output)} and {given.shape}")
    if output.dtype.kind != "f":
        raise float_error(kind, output)
    ones: NDArray[np.bool_] = given == 1
    if not np.all(ones | (given == 0)):
        raise ValueError(f"{kind}: expected targets 0 and 1")
    return ones


# --- accuracies ------------------------------------------------------------------------------------------------------


def hit(output: Array, target: Labels) -> NDArray[np.bool_]:
    """Whether the largest output stands at the label; not where one of the outputs is no number."""
    found: NDArray[np.bool_] = output.argmax(axis=-1) == true_labels("accuracy", output, target)
    return found & ~np.isnan(output).any(axis=-1)


accuracy: Metric[Array, Labels, float] = mean_metric("accuracy", hit)
"""The fraction of rows whose largest output stands at the label, or at the largest dense target."""


def hit_top_k(k: int, output: Array, target: Labels) -> NDArray[np.bool_]:
    """Whether fewer than k outputs are larger than that of the label; of equal ones the first counts as larger."""
    labels = true_labels(f"top_{k}", output, target)[..., None]
    own = np.take_along_axis(output, labels, axis=-1)
    before = ~(output < own) & ((output != own) | (np.arange(output.shape[-1]) < labels))  # NaN is before all
    found: NDArray[np.bool_] = before.sum(axis=-1) < k
    return found


def top_k(k: int) -> Metric[Array, Labels, float]:
    """The fraction of rows whose label is among the k largest outputs; of equal outputs the first counts as larger.

    Its name is `top_5` for k = 5.
    """
    positive("top_k", "k", k)
    return mean_metric(f"top_{k}", bind(hit_top_k, int(k)), config={"k": k}, build=top_k)


def binary_hit(kind: str, threshold: float, output: Array, target: Labels) -> NDArray[np.bool_]:
    """Whether the output is above the threshold just where the target is 1."""
    found: NDArray[np.bool_] = (output > threshold) == binary_labels(kind, output, target)
    return found & ~np.isnan(output)


def binary_accuracy(*, threshold: float = 0.5) -> Metric[Array, Labels, float]:
    """The fraction of numbers that are above the threshold where the target is 1, and not where it is 0.

    The threshold is 0.5 for probabilities, 0 for logits; its name says it if it is not 0.5.
    """
    kind = binary_name("binary_accuracy", threshold)
    return mean_metric(kind, bind(binary_hit, kind, threshold), config={"threshold": threshold}, build=binary_accuracy)


def binary_name(stem: str, threshold: float) -> str:
    """`binary_accuracy`, or `binary_accuracy_0.2` for another threshold."""
    number(stem, "threshold", threshold)
    return stem if threshold == 0.5 else f"{stem}_{threshold}"


def exp_mean(mean: Mean) -> float:
    """`exp(total / weight)`."""
    return float(np.exp(compute_mean(mean)))


perplexity: Metric[Array, Labels, float] = loss_metric("perplexity", softmax_cross_entropy(), compute=exp_mean)
"""`exp` of the mean softmax cross-entropy of logits (batch, ..., classes): the number of classes among which a guess
would be as good (Jelinek et al. 1977). `ignoring(-1, perplexity)` leaves out padding."""


# --- rows that do not count ------------------------------------------------------------------------------------------


def ignoring(label: int, metric: Metric[Array, Labels, Any]) -> Metric[Array, Ints, Any]:
    """The metric over the rows whose label is another one than this: `ignoring(-1, accuracy)` for padded sequences.

    Its name is `accuracy_ignoring_-1`.
    """
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
        raise ValueError(f"ignoring: expected a label, got {label!r}")
    if not isinstance(metric, Metric):
        raise TypeError(f"ignoring: expected a metric, got {metric!r}")
    kind = f"{metric.kind}_ignoring_{label}"
    update = bind(_update_ignoring, kind, int(label), metric.update)
    config = {"label": label, "metric": metric}
    return Metric(kind, metric.init, update, metric.merge, metric.compute, metric.higher_is_better, config, ignoring)


def _update_ignoring(
    kind: str,
    label: int,
    update: Callable[[Any, Array, Labels, Array | None], Any],
    accumulated: Any,
    output: Array,
    target: Ints,
    weight: Array | None = None,
) -> Any:
    given, shape = np.asarray(target), np.shape(output)
    if given.dtype.kind not in "iu" or given.shape != shape[:-1] or not given.shape:
        expected = f"for outputs {shape} expected integer labels {shape[:-1]}"
        raise ShapeError(f"{kind}: {expected}, got {given.dtype} {given.shape}")
    kept = given.reshape(-1) != label
    w = row_weights(kind, given.size, len(given), weight)
    return update(accumulated, output.reshape(-1, shape[-1])[kept], given.reshape(-1)[kept], w[kept])


# --- the confusion matrix --------------------------------------------------------------------------------------------


def no_matrix(classes: int) -> Matrix:
    """The matrix of nothing."""
    return np.zeros((classes, classes))


def update_matrix(
    kind: str, classes: int, matrix: Matrix, output: Array, target: Labels, weight: Array | None = None
) -> Matrix:
    """Every row adds its weight at [true label, label of the largest output]; all is nan where an output is."""
    if np.shape(output)[-1:] != (classes,):
        raise ShapeError(f"{kind}: expected outputs (batch, ..., {classes}), got {np.shape(output)}")
    labels = true_labels(kind, output, target)
    return _counted(kind, matrix, labels, output.argmax(axis=-1), weight) + _nan_if(output)


def update_binary_matrix(
    kind: str, threshold: float, matrix: Matrix, output: Array, target: Labels, weight: Array | None = None
) -> Matrix:
    """Every number adds its weight at [target, whether the output is above the threshold]; nan as above."""
    labels = binary_labels(kind, output, target)
    return _counted(kind, matrix, labels, output > threshold, weight) + _nan_if(output)


def _nan_if(output: Array) -> float:
    return float("nan") if np.isnan(output).any() else 0.0


def _counted(kind: str, matrix: Matrix, labels: NDArray[Any], found: NDArray[Any], weight: Array | None) -> Matrix:
    n = len(matrix)
    cells = (labels.astype(np.intp) * n + found).reshape(-1)
    counts = np.bincount(cells, row_weights(kind, cells.size, len(labels), weight), n * n)
    added: Matrix = matrix + counts.reshape(n, n)
    return added


def merge_matrices(a: Matrix, b: Matrix) -> Matrix:
    """The sum."""
    total: Matrix = a + b
    return total


def whole_matrix(matrix: Matrix) -> Matrix:
    """The matrix itself."""
    return matrix


def confusion_matrix(classes: int) -> Metric[Array, Labels, Matrix]:
    """How many rows (by weight) have one label and were given another: `matrix[true label, label of largest output]`.

    `class_scores(matrix)` are precision, recall and F1 of every class. For `train` and `evaluate`, which take numbers,
    there are `precision`, `recall` and `f1`.
    """
    positive("confusion_matrix", "classes", classes)
    return Metric(
        "confusion_matrix",
        bind(no_matrix, classes),
        bind(update_matrix, "confusion_matrix", classes),
        merge_matrices,
        whole_matrix,
        config={"classes": classes},
        build=confusion_matrix,
    )


class ClassScores(NamedTuple):
    """What a confusion matrix says about every class: arrays (classes,)."""

    precision: Matrix
    """Of the rows given this label, how many have it."""
    recall: Matrix
    """Of the rows that have this label, how many were given it."""
    f1: Matrix
    """The harmonic mean of both (van Rijsbergen 1979)."""
    support: Matrix
    """How many rows have this label."""


def class_scores(matrix: Matrix) -> ClassScores:
    """Precision, recall, F1 and support of every class. A ratio of 0 to 0 is 0, as in scikit-learn."""
    right, given, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    precision, recall, f1 = _quotient(right, given), _quotient(right, support), _quotient(2 * right, given + support)
    return ClassScores(precision, recall, f1, support)


def _quotient(a: Matrix, b: Matrix) -> Matrix:
    quotient: Matrix = a / (b + (b == 0))
    return quotient


Of: TypeAlias = Literal["macro", "micro"] | int


def precision(classes: int, *, of: Of = "macro") -> Metric[Array, Labels, float]:
    """Precision, `true positives / all given the label`: that of one class (`of=2`), the mean over the classes that
    occur (`"macro"`), or that of all rows together (`"micro"`, which is the accuracy).

    Its name is `precision`, `precision_micro` or `precision_2`.
    """
    return _score("precision", classes, of, precision)


def recall(classes: int, *, of: Of = "macro") -> Metric[Array, Labels, float]:
    """Recall, `true positives / all that have the label`: that of one class (`of=2`), the mean over the classes that
    occur (`"macro"`), or that of all rows together (`"micro"`, which is the accuracy).

    Its name is `recall`, `recall_micro` or `recall_2`.
    """
    return _score("recall", classes, of, recall)


def f1(classes: int, *, of: Of = "macro") -> Metric[Array, Labels, float]:
    """F1, `2 precision recall / (precision + recall)`: that of one class (`of=2`), the mean over the classes that occur
    (`"macro"`), or that of all rows together (`"micro"`, which is the accuracy).

    Its name is `f1`, `f1_micro` or `f1_2`.
    """
    return _score("f1", classes, of, f1)


def _score(stem: str, classes: int, of: Of, build: Callable[..., Any]) -> Metric[Array, Labels, float]:
    positive(stem, "classes", classes)
    label = isinstance(of, (int, np.integer)) and not isinstance(of, bool) and 0 <= of < classes
    if not label and of not in ("macro", "micro"):
        raise ValueError(f"{stem}: expected of to be 'macro', 'micro' or a class from 0 to {classes - 1}, got {of!r}")
    kind = stem if of == "macro" else f"{stem}_{of}"
    return Metric(
        kind,
        bind(no_matrix, classes),
        bind(update_matrix, kind, classes),
        merge_matrices,
        bind(summary, stem, of),
        config={"classes": classes, "of": of},
        build=build,
    )


def summary(stem: str, of: Of, matrix: Matrix) -> float:
    """One number of a confusion matrix; nan of an empty one, and of one that is nan."""
    if not matrix.any() or np.isnan(matrix).any():
        return float("nan")
    if of == "micro":
        return float(np.trace(matrix) / matrix.sum())
    scores: Matrix = getattr(class_scores(matrix), stem)
    if of == "macro":
        occurs = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
        return float(scores[occurs].mean())
    return float(scores[of])


# --- the same for two classes and one output --------------------------------------------------------------------------


def binary_precision(*, threshold: float = 0.5) -> Metric[Array, Labels, float]:
    """Precision of the numbers above the threshold (0.5 for probabilities, 0 for logits), for targets of 0 and 1."""
    return _binary_score("precision", threshold, binary_precision)


def binary_recall(*, threshold: float = 0.5) -> Metric[Array, Labels, float]:
    """Recall of the numbers above the threshold (0.5 for probabilities, 0 for logits), for targets of 0 and 1."""
    return _binary_score("recall", threshold, binary_recall)


def binary_f1(*, threshold: float = 0.5) -> Metric[Array, Labels, float]:
    """F1 of the numbers above the threshold (0.5 for probabilities, 0 for logits), for targets of 0 and 1."""
    return _binary_score("f1", threshold, binary_f1)


def _binary_score(stem: str, threshold: float, build: Callable[..., Any]) -> Metric[Array, Labels, float]:
    kind = binary_name(f"binary_{stem}", threshold)
    return Metric(
        kind,
        bind(no_matrix, 2),
        bind(update_binary_matrix, kind, threshold),
        merge_matrices,
        bind(summary, stem, 1),
        config={"threshold": threshold},
        build=build,
    )


# --- the area under the ROC curve: how often a one scores above a zero ------------------------------------------------


class Scored(NamedTuple):
    """All scores, whether their targets are 1, and their weights, batch by batch."""

    scores: tuple[Matrix, ...]
    ones: tuple[NDArray[np.bool_], ...]
    weights: tuple[Matrix, ...]


def no_scores() -> Scored:
    """The scores of nothing."""
    return Scored((), (), ())


def update_scores(scored: Scored, output: Array, target: Labels, weight: Array | None = None) -> Scored:
    """With the batch at the end."""
    ones = binary_labels("roc_auc", output, target).reshape(-1)
    w = row_weights("roc_auc", ones.size, len(output), weight)
    return merge_scores(scored, Scored((np.array(output, np.float64).reshape(-1),), (ones,), (w,)))


def merge_scores(a: Scored, b: Scored) -> Scored:
    """All scores of both."""
    return Scored(a.scores + b.scores, a.ones + b.ones, a.weights + b.weights)


def compute_auc(scored: Scored) -> float:
    """By one sort: for every one the weight of the zeros below it, and half of that of those with the same score."""
    if not scored.scores:
        return float("nan")
    scores, ones, weights = (np.concatenate([np.asarray(a, np.float64) for a in parts]) for parts in scored)
    if np.isnan(scores).any():
        return float("nan")
    order = scores.argsort(kind="stable")
    scores, ones, weights = scores[order], ones[order], weights[order]
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    p, n = np.add.reduceat(weights * ones, starts), np.add.reduceat(weights * (1 - ones), starts)
    pairs = p.sum() * n.sum()
    return float(p.dot(n.cumsum() - n / 2) / pairs) if pairs else float("nan")


roc_auc: Metric[Array, Labels, float] = Metric("roc_auc", no_scores, update_scores, merge_scores, compute_auc)
"""The area under the receiver operating characteristic of scores for targets 0 and 1: how often a one scores above a
zero, equal scores counting half (Hanley and McNeil 1982). Exact, so it keeps all scores; nan where all targets are the
same."""
