"""The targets of losses for classes, and `class_loss`, which makes a loss from a pair for rows.

Targets of classes are integer labels (the shape of the logits without their last axis) or dense distributions (the
whole shape): rows of class weights t. `Classes` holds the options that all losses of classes share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fnn.check import fraction, not_negative
from fnn.contract import Loss
from fnn.losses.core import example_means, float_error, loss, spread
from fnn.recordable import unexpected
from fnn.types import Array, Ints, NDArray, Shape, ShapeError, bind, ones

C = TypeVar("C")

LOWEST = {dtype: float(np.finfo(dtype).min) for dtype in "efdg"}
"""The finite number that stands for minus infinity where it is multiplied by 0."""


# --- targets of classes ----------------------------------------------------------------------------------------------


class Classes(NamedTuple):
    """Which loss it is, and how it takes its targets."""

    kind: str
    smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    ignore: int | None = None

    @property
    def weighs(self) -> bool:
        """Whether some rows count more than others."""
        return self.class_weights is not None or self.ignore is not None


class Targets(NamedTuple):
    """Targets as rows of class weights."""

    t: Array
    """(rows, classes), smoothed and weighted."""
    total: Array | None
    """Their sums (rows,); `None` where these are 1 by construction."""


def class_targets(classes: Classes, output: Array, target: Array | Ints) -> Targets:
    """The targets for an output (batch, ..., classes).

    Without class weights and ignored label these are one-hot rows or the dense targets, smoothed. With them every row
    is scaled so that the mean over an example's rows is its weighted mean over the rows that count.
    """
    t = hits(classes, output, target)
    dense = t.dot(ones(t.shape[1], t.dtype)) if np.ndim(target) == output.ndim else None
    counts = row_counts(classes, t) if classes.weighs else None
    n = t.shape[1]
    if classes.smoothing:
        t = t * (1 - classes.smoothing)
        t += classes.smoothing / n if dense is None else (dense * (classes.smoothing / n))[:, None]
    if counts is None:
        return Targets(t, dense)
    per_example = counts.reshape(len(output), -1)
    mass = per_example.dot(ones(per_example.shape[1], counts.dtype))
    share = (per_example.shape[1] / (mass + (mass == 0)))[:, None]
    if classes.class_weights is not None:
        t = t * np.array(classes.class_weights, t.dtype)
    if classes.ignore is not None:
        share = share * (np.reshape(target, per_example.shape) != classes.ignore)
    t = t * np.broadcast_to(share, per_example.shape).reshape(-1, 1)
    return Targets(t, t.dot(ones(n, t.dtype)))


def row_counts(classes: Classes, t: Array) -> Array:
    """How much every row counts: the weight of its class, `sum_k w_k t_k`; 0 for an ignored label."""
    weights = classes.class_weights
    counts: Array = t.dot(ones(t.shape[1], t.dtype) if weights is None else np.array(weights, t.dtype))
    return counts


def class_mass(classes: Classes, output: Array, target: Array | Ints) -> Array:
    """How much every example counts: the sum over its rows."""
    counts = row_counts(classes, hits(classes, output, target)).reshape(len(output), -1)
    mass: Array = counts.dot(ones(counts.shape[1], counts.dtype))
    return mass


def hits(classes: Classes, output: Array, target: Array | Ints) -> Array:
    """The targets as rows (rows, classes) in the dtype of the output: one-hot, or as they are where they are dense."""
    kind, shape = classes.kind, np.shape(output)
    given: NDArray[Any] = np.asarray(target)
    if len(shape) < 2:
        raise ShapeError(f"{kind}: expected an output (batch, ..., classes), got {shape}")
    n = shape[-1]
    if classes.class_weights is not None and len(classes.class_weights) != n:
        raise ShapeError(f"{kind}: expected class weights for {n} classes, got {len(classes.class_weights)}")
    if output.dtype.kind != "f":
        raise float_error(kind, output)
    if given.shape == shape[:-1] and given.dtype.kind in "iu":
        return one_hot_rows(kind, given, n, output.dtype, classes.ignore)
    if given.shape == shape and given.dtype.kind == "f" and classes.ignore is None:
        return np.asarray(given, output.dtype).reshape(-1, n)
    dense = f" or dense float targets {shape}" if classes.ignore is None else ""
    raise ShapeError(
        f"{kind}: for an output {shape} expected integer labels {shape[:-1]}{dense}, "
        f"got {given.dtype} {given.shape}; nothing is broadcast"
    )


def one_hot_rows(kind: str, labels: Ints, classes: int, dtype: np.dtype[Any], ignore: int | None = None) -> Array:
    """One row for each label, with 1 at it, and zeros where it is ignored; other labels raise `ValueError`."""
    flat = labels.reshape(-1)
    found: NDArray[np.bool_] = flat == np.arange(classes)[:, None]
    wanted: Any = flat.size
    if ignore is not None:
        counts = flat != ignore
        found &= counts
        wanted = np.count_nonzero(counts)
    if unexpected(np.count_nonzero(found) != wanted):
        check_labels(kind, labels, classes, ignore)
    rows = np.empty((flat.size, classes), dtype)
    rows.T[...] = found
    return rows


def check_labels(kind: str, labels: NDArray[Any], classes: int, ignore: int | None = None) -> None:
    """Raises `ValueError` unless every label lies in [0, classes), or is the ignored one."""
    wrong = (labels < 0) | (labels >= classes)
    if ignore is not None:
        wrong &= labels != ignore
    if unexpected(wrong.any()):
        but = "" if ignore is None else f" (or {ignore}, ignored)"
        raise ValueError(f"{kind}: expected labels from 0 to {classes - 1}{but}, got {labels[wrong][0]}")


def checked_classes(
    kind: str, smoothing: float = 0.0, class_weights: Sequence[float] | Array | None = None, ignore: int | None = None
) -> Classes:
    """The options, checked when a loss is made."""
    fraction(kind, "smoothing", smoothing)
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer))):
        raise ValueError(f"{kind}: expected ignore to be a label or None, got {ignore!r}")
    if class_weights is None:
        return Classes(kind, smoothing, None, ignore)
    if isinstance(class_weights, (Mapping, Set, str)) or np.ndim(class_weights) != 1:
        raise TypeError(f"{kind}: expected one class weight for each class, in order, got {class_weights!r}")
    weights = tuple(not_negative(kind, "every class weight", float(weight)) for weight in class_weights)
    if not any(weights):
        raise ValueError(f"{kind}: expected a class weight that is not 0, got {weights}")
    if smoothing and not all(weights):
        raise ValueError(
            f"{kind}: expected class weights above 0 with smoothing, got {weights}: an example of a class of weight 0 "
            "would count nothing, and still pull at the others"
        )
    return Classes(kind, smoothing, weights, ignore)


# --- from rows to a loss ---------------------------------------------------------------------------------------------


def class_loss(
    classes: Classes,
    forward: Callable[[Array, Targets], tuple[Array, C]],
    vjp: Callable[[C, Any], Array],
    config: dict[str, Any],
    build: Callable[..., Any],
) -> Loss[Array, Array | Ints]:
    """A loss from a pair for rows: `forward(rows, targets) -> (l, cache)` with l (rows,), and `vjp(cache, dl) -> d`,
    where dl is a number or a column, one for each row. An example's loss is the mean over its rows."""
    return loss(
        classes.kind,
        bind(class_forward, classes, forward),
        bind(class_vjp, vjp),
        mass=bind(class_mass, classes) if classes.weighs else None,
        config=config,
        build=build,
    )


def class_forward(
    classes: Classes,
    forward: Callable[[Array, Targets], tuple[Array, C]],
    output: Array,
    target: Array | Ints,
) -> tuple[Array, tuple[C, Shape]]:
    """The mean over the rows of every example; the cache is that of the rows and the shape of the output."""
    targets = class_targets(classes, output, target)
    shape = output.shape
    l, cache = forward(output if len(shape) == 2 else output.reshape(-1, shape[-1]), targets)
    return (l if len(shape) == 2 else example_means(l.reshape(shape[:-1]))), (cache, shape)


def class_vjp(vjp: Callable[[C, Any], Array], cache: tuple[C, Shape], dl: float | Array) -> Array:
    """The derivative of every row gets its part of its example's dl."""
    of_rows, shape = cache
    if len(shape) == 2:
        return vjp(of_rows, spread(dl, 2))
    rows = 1
    for n in shape[1:-1]:
        rows *= n
    each = dl / rows
    return vjp(of_rows, each if isinstance(each, float) else each.repeat(rows)[:, None]).reshape(shape)
