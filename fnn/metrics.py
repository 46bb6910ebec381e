"""Metrics: pure accumulators. `init()` starts, `update` adds a batch, `merge` adds two accumulations, `compute` answers.

The metric of merged accumulations is the metric of all the data, however it was split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from fnn.contract import code
from fnn.losses.classes import check_labels
from fnn.types import EMPTY, Array, Ints, ShapeError

Y = TypeVar("Y", contravariant=True)
T = TypeVar("T", contravariant=True)
M = TypeVar("M")


@attrs.frozen(eq=False, repr=False)
class Metric(Generic[Y, T]):
    """A measure of outputs against targets; the accumulation is a tuple of numbers or arrays."""

    kind: str
    init: Callable[[], Any]
    """`() -> accumulation` of nothing."""
    update: Callable[[Any, Y, T, Array | None], Any]
    """`(accumulation, output, target, weight) -> accumulation`; the weight (batch,) may be None."""
    merge: Callable[[Any, Any], Any]
    """`(accumulation, accumulation) -> accumulation` of both."""
    compute: Callable[[Any], float]
    """`accumulation -> value`; nan where nothing was accumulated."""
    higher_is_better: bool = True
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return code(self)


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


def add_to_mean(mean: Mean, values: Any, weight: Array | None) -> Mean:
    """The mean with one value more for each example; `values` is (batch,) or (batch, rows)."""
    values = np.asarray(values, np.float64).reshape(len(values), -1).mean(axis=1)
    if weight is None:
        return Mean(mean.total + float(values.sum()), mean.weight + len(values))
    w = np.asarray(weight, np.float64)
    if w.shape != values.shape:
        raise ShapeError(f"expected one weight for each of {len(values)} examples, got shape {w.shape}")
    return Mean(mean.total + float(w.dot(values)), mean.weight + float(w.sum()))


def _update_accuracy(mean: Mean, output: Array, target: Array | Ints, weight: Array | None = None) -> Mean:
    shape, given = np.shape(output), np.asarray(target)
    if len(shape) > 1 and given.dtype.kind in "iu" and given.shape == shape[:-1]:
        check_labels("accuracy", given, shape[-1])
        labels: NDArray[Any] = given
    elif len(shape) > 1 and given.dtype.kind == "f" and given.shape == shape:
        labels = given.argmax(axis=-1)
    else:
        raise ShapeError(
            f"accuracy: for outputs {shape} expected integer labels {shape[:-1]} or dense float targets {shape}, "
            f"got {given.dtype} {given.shape}"
        )
    return add_to_mean(mean, output.argmax(axis=-1) == labels, weight)


accuracy: Metric[Array, Array | Ints] = Metric("accuracy", no_mean, _update_accuracy, merge_means, compute_mean)
"""The fraction of rows whose largest output (..., classes) stands at the label, or at the largest dense target."""
