"""Losses: pairs `forward(output, target, weight) -> (value, cache)` and `vjp(cache) -> d_output`.

The value is the mean over the batch, a 0-d array; with example weights it is `sum(w l) / sum(w)`. The vjp is its exact
derivative. Each loss is written once, for every example by itself, as a pair `(output, target) -> (l, cache)` and
`(cache, dl) -> d_output`; `loss` turns that into a mean. Targets are cast to the output's dtype; shapes must agree,
nothing is broadcast. Where an example has several numbers (features, time steps), its loss is the mean over them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fnn.contract import Loss
from fnn.check import fraction
from fnn.types import EMPTY, Array, Ints, Shape, ShapeError, bind, ones

Y = TypeVar("Y")
T = TypeVar("T")
C = TypeVar("C")


def loss(
    kind: str,
    forward: Callable[[Y, T], tuple[Array, C]],
    vjp: Callable[[C, Any], Y],
    *,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Loss[Y, T]:
    """A loss from the pair for single examples.

    `forward(output, target) -> (l, cache)` with l of shape (batch,), and `vjp(cache, dl) -> d_output`, where dl is a
    number for all examples or an array (batch,); `spread` gives it the axes of the output.
    """
    return Loss(
        kind=kind,
        forward=bind(_mean_forward, kind, forward),
        vjp=bind(_mean_vjp, vjp),
        each=bind(_each, forward),
        config=config,
        build=build,
    )


def _mean_forward(
    kind: str, forward: Callable[[Y, T], tuple[Array, C]], output: Y, target: T, weight: Array | None = None
) -> tuple[Array, tuple[C, float | Array]]:
    l, cache = forward(output, target)
    n = len(l)
    if weight is None:
        return np.asarray(ones(n, l.dtype).dot(l) / n), (cache, 1 / n)
    if np.shape(weight) != l.shape:
        raise ShapeError(f"{kind}: expected one weight for each of {n} examples, got shape {np.shape(weight)}")
    weight = np.asarray(weight, l.dtype)
    total = weight.sum()
    return np.asarray(weight.dot(l) / total), (cache, weight / total)


def _mean_vjp(vjp: Callable[[C, Any], Y], cache: tuple[C, float | Array]) -> Y:
    return vjp(*cache)


def _each(forward: Callable[[Y, T], tuple[Array, C]], output: Y, target: T) -> Array:
    return forward(output, target)[0]


def spread(dl: float | Array, output: Array) -> Any:
    """`dl` for broadcasting against `output`: an array (batch,) gets an axis of length one for every other axis."""
    return dl if isinstance(dl, float) else dl.reshape(-1, *(1,) * (output.ndim - 1))


def like_output(kind: str, output: Array, target: Array | Ints) -> Array:
    """The target in the dtype of the output; `ShapeError` unless it has the same shape."""
    if getattr(output, "ndim", 0) < 1 or np.shape(target) != output.shape:
        raise ShapeError(
            f"{kind}: expected output and target of one shape with a batch axis, "
            f"got output {np.shape(output)} and target {np.shape(target)}; nothing is broadcast"
        )
    return np.asarray(target, output.dtype)


def example_means(a: Array) -> Array:
    """The mean of every example's numbers: (batch, ...) to (batch,)."""
    n = len(a)
    if a.size == n:
        return a.reshape(n)
    a = a.reshape(n, -1)
    sums: Array = a.dot(ones(a.shape[1], a.dtype))
    return sums / a.shape[1]


# --- mean squared error: l = mean (output - target)**2,   d = 2 (output - target) / features -------------------------


def mse_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = mean((output - target)**2)` of every example; the cache is the difference."""
    difference: Array = output - like_output("mse", output, target)
    return example_means(difference * difference), difference


def mse_vjp(difference: Array, dl: float | Array) -> Array:
    """`d_output = dl 2 (output - target) / features`."""
    d: Array = difference * (spread(dl, difference) * (2 * len(difference) / difference.size))
    return d


# --- sigmoid cross-entropy: l = softplus(z) - t z,   d = sigmoid(z) - t ----------------------------------------------


def sigmoid_cross_entropy_forward(
    smoothing: float, logits: Array, target: Array | Ints
) -> tuple[Array, tuple[Array, Array]]:
    """`l = softplus(z) - t z`, with softplus(z) = max(z, 0) + log(1 + exp(-|z|)), which cannot overflow."""
    t = like_output("sigmoid_cross_entropy", logits, target)
    if smoothing:
        t = t * (1 - smoothing) + smoothing / 2
    l = np.abs(logits)
    np.negative(l, out=l)
    np.exp(l, out=l)
    np.log1p(l, out=l)
    l += np.maximum(logits, 0)
    l -= t * logits
    return example_means(l), (logits, t)


def sigmoid_cross_entropy_vjp(cache: tuple[Array, Array], dl: float | Array) -> Array:
    """`d_logits = dl (sigmoid(z) - t) / features`."""
    logits, t = cache
    d = np.exp(np.minimum(logits, 40))
    d /= d + 1
    d -= t
    d *= spread(dl, d) * (len(d) / d.size)
    return d


# --- softmax cross-entropy: l = log sum_k exp(z_k) - sum_k t_k z_k,   d = softmax(z) - t -----------------------------


class SoftmaxCache(NamedTuple):
    """What the derivative needs, as matrices (rows, classes)."""

    p: Array
    """The softmax of the logits."""
    t: Array
    """The target distribution."""
    mass: Array | None
    """`sum_k t_k` where it is not 1 by construction."""
    shape: Shape
    """The shape of the logits."""


def softmax_cross_entropy_forward(
    smoothing: float, logits: Array, target: Array | Ints
) -> tuple[Array, SoftmaxCache]:
    """`l = -sum_k t_k log softmax(z)_k` over the last axis, from logits shifted by their maximum."""
    t, mass = class_targets("softmax_cross_entropy", logits, target)
    classes = logits.shape[-1]
    if smoothing:
        t = t * (1 - smoothing)
        t += smoothing / classes if mass is None else (mass * (smoothing / classes))[:, None]
    z = logits.reshape(-1, classes)
    z = z - row_max(z)
    picked = np.einsum("ij,ij->i", z, t)
    np.exp(z, out=z)
    total = z.dot(ones(classes, z.dtype))
    z /= total[:, None]
    np.log(total, out=total)
    l = (total if mass is None else mass * total) - picked
    return example_means(l.reshape(logits.shape[:-1])), SoftmaxCache(z, t, mass, logits.shape)


def softmax_cross_entropy_vjp(cache: SoftmaxCache, dl: float | Array) -> Array:
    """`d_logits = dl (softmax(z) sum(t) - t) / rows`, with the number of rows (such as time steps) of one example."""
    p, t, mass, shape = cache
    d = p - t if mass is None else p * mass[:, None] - t
    d = d.reshape(shape)
    d *= spread(dl, d) * (shape[0] / len(p))
    return d


def class_targets(kind: str, logits: Array, target: Array | Ints) -> tuple[Array, Array | None]:
    """The targets as rows of class weights (rows, classes), and their sums (`None` where these are 1).

    Integer labels have the shape of the logits without the last axis; dense targets have the whole shape.
    """
    shape, given = np.shape(logits), np.asarray(target)
    if len(shape) < 2:
        raise ShapeError(f"{kind}: expected logits (batch, ..., classes), got {shape}")
    classes = shape[-1]
    if given.dtype.kind in "iu" and given.shape == shape[:-1]:
        hits = given.reshape(-1, 1) == np.arange(classes)
        if np.count_nonzero(hits) != given.size:
            check_labels(kind, given, classes)
        return hits.astype(logits.dtype), None
    if given.dtype.kind == "f" and given.shape == shape:
        t = np.asarray(given, logits.dtype).reshape(-1, classes)
        return t, t.dot(ones(classes, t.dtype))
    raise ShapeError(
        f"{kind}: for logits {shape} expected integer labels {shape[:-1]} or dense float targets {shape}, "
        f"got {given.dtype} {given.shape}; nothing is broadcast"
    )


def check_labels(kind: str, labels: NDArray[Any], classes: int) -> None:
    """Raises `ValueError` unless every label lies in [0, classes)."""
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"{kind}: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")


def row_max(z: Array) -> Array:
    """The maximum of every row of a matrix, as a column. Over short rows NumPy reduces four times faster transposed."""
    top: Array = np.ascontiguousarray(z.T).max(axis=0) if z.shape[1] < 32 else z.max(axis=1)
    return top[:, None]


# --- the public losses -----------------------------------------------------------------------------------------------

mse: Loss[Array, Array] = loss("mse", mse_forward, mse_vjp)
"""Mean squared error: `mean((output - target)**2)` over all numbers."""


def sigmoid_cross_entropy(*, smoothing: float = 0.0) -> Loss[Array, Array | Ints]:
    """Binary cross-entropy of logits z: `-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, mean over all numbers.

    Targets t are probabilities or 0 and 1, in the shape of the logits; smoothing s replaces t by `(1 - s) t + s / 2`.
    """
    return loss(
        "sigmoid_cross_entropy",
        bind(sigmoid_cross_entropy_forward, fraction("sigmoid_cross_entropy", "smoothing", smoothing)),
        sigmoid_cross_entropy_vjp,
        config={"smoothing": smoothing},
        build=sigmoid_cross_entropy,
    )


def softmax_cross_entropy(*, smoothing: float = 0.0) -> Loss[Array, Array | Ints]:
    """Cross-entropy of logits z over the last axis: `-sum_k t_k log softmax(z)_k`, mean over all rows.

    Targets are integer labels (the shape of the logits without its last axis) or dense distributions t (the whole
    shape); smoothing s replaces t by `(1 - s) t + s / classes` (Szegedy et al. 2016, section 7).
    """
    return loss(
        "softmax_cross_entropy",
        bind(softmax_cross_entropy_forward, fraction("softmax_cross_entropy", "smoothing", smoothing)),
        softmax_cross_entropy_vjp,
        config={"smoothing": smoothing},
        build=softmax_cross_entropy,
    )
