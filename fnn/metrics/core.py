"""What metrics are: pure accumulators, and the mean, which most of them accumulate.

`init()` starts, `update` adds a batch, `merge` adds two accumulations, `compute` answers. The metric of merged
accumulations is the metric of all the data, however it was split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import attrs
import numpy as np

from fnn import tree
from fnn.contract import Loss, code, not_called
from fnn.losses.core import sums_of
from fnn.types import EMPTY, Array, NDArray, ShapeError, bind

Y = TypeVar("Y", contravariant=True)
T = TypeVar("T", contravariant=True)
R = TypeVar("R", covariant=True)
Out = TypeVar("Out")
Target = TypeVar("Target")


@attrs.frozen(eq=False, repr=False)
class Metric(Generic[Y, T, R]):
    """A measure of outputs against targets: a number, or an array such as a confusion matrix.

    `train` and `evaluate` take those that give a number. The accumulation is a tuple of numbers or arrays.
    """

    kind: str
    """Its name, also in the evaluations of `train`: metrics with different options have different names."""
    init: Callable[[], Any]
    """`() -> accumulation` of nothing."""
    update: Callable[[Any, Y, T, Array | None], Any]
    """`(accumulation, output, target, weight) -> accumulation`; the weight (batch,) may be None."""
    merge: Callable[[Any, Any], Any]
    """`(accumulation, accumulation) -> accumulation` of both."""
    compute: Callable[[Any], R]
    """`accumulation -> value`; nan where nothing was accumulated."""
    higher_is_better: bool = True
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            use = "metric.compute(metric.update(metric.init(), output, target, None))"
            raise not_called(self, "a metric", f"{use}, or fnn.evaluate")

    def __repr__(self) -> str:
        return code(self)


# --- weights ---------------------------------------------------------------------------------------------------------


def row_weights(kind: str, rows: int, examples: int, weight: Array | None) -> NDArray[np.float64]:
    """One weight for each row, where every example has the same number of rows."""
    if weight is None:
        return np.ones(rows)
    w = np.asarray(weight, np.float64)
    if w.shape != (examples,):
        raise ShapeError(f"{kind}: expected one weight for each of {examples} examples, got shape {w.shape}")
    return w.repeat(rows // max(1, examples))


# --- the mean --------------------------------------------------------------------------------------------------------


class Mean(NamedTuple):
    """A weighted sum and the sum of the weights."""

    total: float
    weight: float


def no_mean() -> Mean:
    """The mean of nothing."""
    return Mean(0.0, 0.0)


def merge_means(a: Mean, b: Mean) -> Mean:
    """The mean of both together."""
    return Mean(a.total + b.total, a.weight + b.weight)


def compute_mean(mean: Mean) -> float:
    """`total / weight`, nan of nothing."""
    return mean.total / mean.weight if mean.weight else float("nan")


def add_to_mean(mean: Mean, values: Any, weight: Array | None, kind: str = "metric") -> Mean:
    """The mean with all values more: (batch,), or (batch, ...) with the same number of rows for each example."""
    values = np.asarray(values, np.float64)
    w = row_weights(kind, values.size, len(values), weight)
    return Mean(mean.total + float(w.dot(values.reshape(-1))), mean.weight + float(w.sum()))


def mean_metric(
    kind: str,
    each: Callable[[Out, Target], NDArray[Any]],
    *,
    higher_is_better: bool = True,
    compute: Callable[[Mean], float] = compute_mean,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Metric[Out, Target, float]:
    """A metric that is the mean (or a function of it, `compute`) of values (batch, ...) that `each` gives."""
    return Metric(kind, no_mean, bind(_update_mean, kind, each), merge_means, compute, higher_is_better, config, build)


def _update_mean(
    kind: str,
    each: Callable[[Out, Target], NDArray[Any]],
    mean: Mean,
    output: Out,
    target: Target,
    weight: Array | None = None,
) -> Mean:
    values, batch = each(output, target), len(tree.leaves(output)[0])
    if np.shape(values)[:1] != (batch,):
        raise ShapeError(f"{kind}: expected a value for each of {batch} examples, (batch, ...), got {np.shape(values)}")
    return add_to_mean(mean, values, weight, kind)


def mean_of(
    name: str, each: Callable[[Any, Any], NDArray[Any]], *, higher_is_better: bool = False
) -> Metric[Any, Any, float]:
    """The mean of any scalar: `each(output, target)` gives numbers (batch, ...), one for each example or row.

    >>> metric = mean_of("largest error", lambda output, target: abs(output - target).max(axis=1))
    >>> metric.compute(metric.update(metric.init(), np.array([[1.0, 2.0], [3.0, 5.0]]), np.ones((2, 2)), None))
    2.5
    """
    if not name or not isinstance(name, str):
        raise ValueError(f"mean_of: expected a name, got {name!r}")
    config = {"name": name, "each": each, "higher_is_better": higher_is_better}
    return mean_metric(name, each, higher_is_better=higher_is_better, config=config, build=mean_of)


# --- a metric from a loss: the same sums, and a function of their ratio -----------------------------------------------


def loss_metric(
    kind: str,
    loss: Loss[Out, Target],
    *,
    compute: Callable[[Mean], float] = compute_mean,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Metric[Out, Target, float]:
    """The value of a loss of one term over all the data (or a function of it)."""
    update = bind(_update_loss, sums_of(loss))
    return Metric(kind, no_mean, update, merge_means, compute, False, config, build)


def _update_loss(
    sums: Callable[[Out, Target, Array | None], NDArray[np.float64]],
    mean: Mean,
    output: Out,
    target: Target,
    weight: Array | None = None,
) -> Mean:
    ((total, mass),) = sums(output, target, weight).tolist()
    return Mean(mean.total + total, mean.weight + mass)
