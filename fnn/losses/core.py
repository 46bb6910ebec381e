"""What losses are made of: `loss`, which makes a mean from a pair for single examples, and what such pairs share.

A loss is a pair `forward(output, target, weight) -> (value, cache)` and `vjp(cache) -> d_output`. The value is the mean
over the batch, a 0-d array; with example weights w it is `sum(w l) / sum(w)`. The vjp is its exact derivative. Each
loss is written once, for every example by itself, as a pair `(output, target) -> (l, cache)` and
`(cache, dl) -> d_output`; `loss` turns that into a mean. Targets are cast to the output's dtype; shapes must agree,
nothing is broadcast. Where an example has several numbers (features, time steps), its loss is the mean over them.

Class weights, ignored labels and masks give an example a mass m of its own: the value is `sum(w m l) / sum(w m)`, the
mean over the rows that count, and l is the example's own mean over its rows that count. Such means are not averages of
the means of batches; `sums` is what adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fnn.contract import Loss
from fnn.recordable import unexpected
from fnn.types import EMPTY, Array, Ints, NDArray, ShapeError, bind, ones

Y = TypeVar("Y")
T = TypeVar("T")
C = TypeVar("C")


# --- from single examples to the mean --------------------------------------------------------------------------------


def loss(
    kind: str,
    forward: Callable[[Y, T], tuple[Array, C]],
    vjp: Callable[[C, Any], Y],
    *,
    mass: Callable[[Y, T], Array] | None = None,
    couples_batch: bool = False,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Loss[Y, T]:
    """A loss from the pair for single examples.

    `forward(output, target) -> (l, cache)` with l of shape (batch,), and `vjp(cache, dl) -> d_output`, where dl is a
    number for all examples or an array (batch,); `spread` gives it the axes of the output. `mass(output, target)` is
    how much every example counts (batch,), besides its weight; without it, all count the same.

    The loss raises `ShapeError` for a batch without examples and for weights that are not one for each example, and
    `ValueError` where the weights (times the masses) do not have a positive sum.
    """
    return Loss(
        kind=kind,
        forward=bind(_mean_forward, kind, forward) if mass is None else bind(_massive_forward, kind, forward, mass),
        vjp=bind(_mean_vjp, vjp),
        each=bind(_each, forward),
        sums=None if mass is None else bind(_massive_sums, kind, forward, mass),
        couples_batch=couples_batch,
        config=config,
        build=build,
    )


def _mean_forward(
    kind: str, forward: Callable[[Y, T], tuple[Array, C]], output: Y, target: T, weight: Array | None = None
) -> tuple[Array, tuple[C, float | Array]]:
    l, cache = forward(output, target)
    if weight is None:
        n = len(l)
        if n:
            return np.asarray(l.dot(ones(n, l.dtype)) / n), (cache, 1 / n)
        raise ShapeError(f"{kind}: the batch has no examples")
    dl = shares(kind, example_weights(kind, weight, l))
    return np.asarray(dl.dot(l)), (cache, dl)


def _massive_forward(
    kind: str,
    forward: Callable[[Y, T], tuple[Array, C]],
    mass: Callable[[Y, T], Array],
    output: Y,
    target: T,
    weight: Array | None = None,
) -> tuple[Array, tuple[C, float | Array]]:
    l, cache = forward(output, target)
    m = mass(output, target)
    dl = shares(kind, m if weight is None else m * example_weights(kind, weight, l))
    return np.asarray(dl.dot(l)), (cache, dl)


def _mean_vjp(vjp: Callable[[C, Any], Y], cache: tuple[C, float | Array]) -> Y:
    return vjp(*cache)


def _each(forward: Callable[[Y, T], tuple[Array, C]], output: Y, target: T) -> Array:
    return forward(output, target)[0]


def example_weights(kind: str, weight: Array, l: Array) -> Array:
    """The weights in the dtype of the losses l (batch,); `ShapeError` unless there is one for each."""
    if np.shape(weight) != l.shape:
        raise ShapeError(f"{kind}: expected one weight for each of {len(l)} examples, got shape {np.shape(weight)}")
    return np.asarray(weight, l.dtype)


def shares(kind: str, weight: Array) -> Array:
    """`w / sum(w)`."""
    total = weight.sum()
    if unexpected(~(total > 0)):
        raise ValueError(f"{kind}: nothing to take the mean of: the weights of the batch sum to {total}")
    normalised: Array = weight / total
    return normalised


# --- sums, which add up over batches ---------------------------------------------------------------------------------


def sums_of(loss: Loss[Y, T]) -> Callable[[Y, T, Array | None], NDArray[np.float64]]:
    """`(output, target, weight) -> (terms, 2)`: `loss.sums`, or made from `loss.each`.

    For every term of the loss these are `sum(w l)` and `sum(w)`, with all that weighs in w. Added over batches, they
    give the mean over all of them: `ratio`.
    """
    return loss.sums or bind(_plain_sums, loss.kind, loss.each)


def ratio(sums: NDArray[np.float64]) -> float:
    """The value that belongs to sums: for every term `sum(w l) / sum(w)`, added; nan where nothing counts."""
    return sum(float(total / weight) if weight else float("nan") for total, weight in sums)


def _plain_sums(
    kind: str, each: Callable[[Y, T], Array], output: Y, target: T, weight: Array | None = None
) -> NDArray[np.float64]:
    l = each(output, target)
    return weighted_sums(l, np.ones_like(l) if weight is None else example_weights(kind, weight, l))


def _massive_sums(
    kind: str,
    forward: Callable[[Y, T], tuple[Array, Any]],
    mass: Callable[[Y, T], Array],
    output: Y,
    target: T,
    weight: Array | None = None,
) -> NDArray[np.float64]:
    l = forward(output, target)[0]
    m = mass(output, target)
    return weighted_sums(l, m if weight is None else m * example_weights(kind, weight, l))


def weighted_sums(l: Array, w: Array) -> NDArray[np.float64]:
    """`[[sum(w l), sum(w)]]`, added up in float64."""
    w = np.asarray(w, np.float64)
    return np.array([[w.dot(np.asarray(l, np.float64)), w.sum()]])


# --- what the pairs for single examples share ------------------------------------------------------------------------


def spread(dl: float | Array, ndim: int) -> Any:
    """`dl` for broadcasting against `ndim` axes: an array (batch,) gets an axis of length one for every other axis."""
    return dl if isinstance(dl, float) else dl.reshape(-1, *(1,) * (ndim - 1))


def like_output(kind: str, output: Array, target: Array | Ints) -> Array:
    """The target in the dtype of the output; `ShapeError` unless it has the same shape."""
    shape = getattr(target, "shape", None)
    if getattr(output, "ndim", 0) < 1 or (np.shape(target) if shape is None else shape) != output.shape:
        raise ShapeError(
            f"{kind}: expected output and target of one shape with a batch axis, "
            f"got output {np.shape(output)} and target {np.shape(target)}; nothing is broadcast"
        )
    if output.dtype.kind != "f":
        raise float_error(kind, output)
    return np.asarray(target, output.dtype)


def float_error(kind: str, output: NDArray[Any]) -> TypeError:
    """The error for outputs that are not floating-point numbers."""
    return TypeError(f"{kind}: expected an output of floats, got {output.dtype}; use output.astype(np.float32)")


def example_means(a: Array) -> Array:
    """The mean of every example's numbers: (batch, ...) to (batch,)."""
    n = len(a)
    if a.size == n:
        return a.reshape(n)
    a = a.reshape(n, -1)
    sums: Array = a.dot(ones(a.shape[1], a.dtype))
    return sums / a.shape[1]


def elementwise(
    kind: str,
    forward: Callable[[Array, Array], tuple[Array, C]],
    vjp: Callable[[C, Any], Array],
    *,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Loss[Array, Array | Ints]:
    """A loss from a pair for single numbers: an example's loss is the mean over its numbers.

    `forward(output, target) -> (l, cache)` with l of the shape of the output, and `vjp(cache, dl) -> d_output`, where
    dl is a number or broadcasts against the output.
    """
    return loss(
        kind,
        bind(_elementwise_forward, kind, forward),
        bind(_elementwise_vjp, vjp),
        config=config,
        build=build,
    )


def _elementwise_forward(
    kind: str, forward: Callable[[Array, Array], tuple[Array, C]], output: Array, target: Array | Ints
) -> tuple[Array, tuple[C, tuple[int, ...]]]:
    l, cache = forward(output, like_output(kind, output, target))
    return example_means(l), (cache, output.shape)


def _elementwise_vjp(vjp: Callable[[C, Any], Array], cache: tuple[C, tuple[int, ...]], dl: float | Array) -> Array:
    of_numbers, shape = cache
    numbers = 1
    for n in shape[1:]:
        numbers *= n
    return vjp(of_numbers, spread(dl, len(shape)) * (1 / numbers))


def no_target(kind: str, target: None) -> None:
    """`TypeError` unless the target is None, as it is for losses that look at outputs alone."""
    if target is not None:
        raise TypeError(f"{kind}: looks at outputs alone; expected the target None, got {type(target).__name__}")
