"""Losses made of losses: sums of terms, several outputs, masks, and the evidence bound of variational autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fnn import tree
from fnn.check import call_hint, not_negative, number
from fnn.contract import Loss
from fnn.losses import core
from fnn.losses.core import example_means, example_weights, no_target, spread, sums_of, weighted_sums
from fnn.losses.regression import pair
from fnn.recordable import unexpected
from fnn.types import Array, NDArray, Shape, ShapeError, bind

Y = TypeVar("Y")
T = TypeVar("T")
AnyLoss: TypeAlias = Loss[Any, Any]
Sums: TypeAlias = NDArray[np.float64]


def check_losses(who: str, losses: tuple[Any, ...]) -> None:
    """Raises unless there are losses, and only losses."""
    if not losses:
        raise ValueError(f"{who}: expected at least one loss")
    for part in losses:
        if not isinstance(part, Loss):
            raise TypeError(f"{who}: expected losses, got {part!r}{call_hint(part)}")


# --- a factor: value = f L -------------------------------------------------------------------------------------------


def weighted(factor: float, loss: Loss[Y, T]) -> Loss[Y, T]:
    """The loss times a factor: `sum_of(mse, weighted(0.1, mae))`."""
    check_losses("weighted", (loss,))
    f = number("weighted", "factor", factor)
    return Loss(
        kind=loss.kind,
        forward=bind(_weighted_forward, f, loss.forward),
        vjp=bind(_weighted_vjp, f, loss.vjp),
        each=bind(_weighted_each, f, loss.each),
        sums=None if loss.sums is None else bind(_weighted_sums, f, loss.sums),
        couples_batch=loss.couples_batch,
        config={"factor": factor, "loss": loss},
        build=weighted,
    )


def _weighted_forward(
    f: float,
    forward: Callable[[Y, T, Array | None], tuple[Array, Any]],
    output: Y,
    target: T,
    weight: Array | None = None,
) -> tuple[Array, Any]:
    value, cache = forward(output, target, weight)
    return np.asarray(value * f), cache


def _weighted_vjp(f: float, vjp: Callable[[Any], Y], cache: Any) -> Y:
    d: Y = tree.map(bind(_times, f), vjp(cache))
    return d


def _times(f: float, a: Array) -> Array:
    product: Array = a * f
    return product


def _weighted_each(f: float, each: Callable[[Y, T], Array], output: Y, target: T) -> Array:
    return _times(f, each(output, target))


def _weighted_sums(
    f: float, sums: Callable[[Y, T, Array | None], Sums], output: Y, target: T, weight: Array | None = None
) -> Sums:
    return np.multiply(sums(output, target, weight), [f, 1.0])


# --- several terms: value = sum of L_k(output, target),   d = sum of d_k ----------------------------------------------


def sum_of(*losses: Loss[Y, T]) -> Loss[Y, T]:
    """The sum of several losses of the same output and target; factors are given by `weighted`."""
    check_losses("sum_of", losses)
    return Loss(
        kind="sum_of",
        forward=bind(_sum_forward, losses),
        vjp=bind(_sum_vjp, losses),
        each=bind(_sum_each, losses),
        sums=bind(_sum_sums, losses) if any(part.sums for part in losses) else None,
        couples_batch=any(part.couples_batch for part in losses),
        config={"losses": losses},
        build=sum_of,
    )


def _sum_forward(
    losses: tuple[Loss[Y, T], ...], output: Y, target: T, weight: Array | None = None
) -> tuple[Array, tuple[Any, ...]]:
    values, caches = zip(*(part.forward(output, target, weight) for part in losses))
    return np.asarray(sum(values)), caches


def _sum_vjp(losses: tuple[Loss[Y, T], ...], caches: tuple[Any, ...]) -> Y:
    d, *others = (part.vjp(cache) for part, cache in zip(losses, caches))
    for other in others:
        d = tree.map(np.add, d, other)
    return d


def _sum_each(losses: tuple[Loss[Y, T], ...], output: Y, target: T) -> Array:
    return np.asarray(sum(part.each(output, target) for part in losses))


def _sum_sums(losses: tuple[Loss[Y, T], ...], output: Y, target: T, weight: Array | None = None) -> Sums:
    return np.concatenate([sums_of(part)(output, target, weight) for part in losses])


# --- several outputs: value = sum of L_k(output_k, target_k),   d = (d_0, d_1, ...) -----------------------------------


def per_output(*losses: AnyLoss) -> Loss[tuple[Any, ...], tuple[Any, ...]]:
    """One loss for each output of a network with several: `sum of L_k(output_k, target_k)`; factors by `weighted`.

    Outputs and targets are tuples, as many as losses. All share the example weights.
    """
    check_losses("per_output", losses)
    return Loss(
        kind="per_output",
        forward=bind(_outputs_forward, losses),
        vjp=bind(_outputs_vjp, losses),
        each=bind(_outputs_each, losses),
        sums=bind(_outputs_sums, losses) if any(part.sums for part in losses) else None,
        couples_batch=any(part.couples_batch for part in losses),
        config={"losses": losses},
        build=per_output,
    )


def _matched(
    losses: tuple[AnyLoss, ...], output: tuple[Any, ...], target: tuple[Any, ...]
) -> list[tuple[AnyLoss, Any, Any]]:
    for name, parts in (("output", output), ("target", target)):
        if not isinstance(parts, tuple) or len(parts) != len(losses):
            got = f"{len(parts)}" if isinstance(parts, tuple) else type(parts).__name__
            raise ShapeError(f"per_output: expected a tuple of {len(losses)} as {name}, got {got}")
    return [*zip(losses, output, target)]


def _outputs_forward(
    losses: tuple[AnyLoss, ...], output: tuple[Any, ...], target: tuple[Any, ...], weight: Array | None = None
) -> tuple[Array, tuple[Any, ...]]:
    pairs = [part.forward(y, t, weight) for part, y, t in _matched(losses, output, target)]
    return np.asarray(sum(value for value, _ in pairs)), tuple(cache for _, cache in pairs)


def _outputs_vjp(losses: tuple[AnyLoss, ...], caches: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.vjp(cache) for part, cache in zip(losses, caches))


def _outputs_each(losses: tuple[AnyLoss, ...], output: tuple[Any, ...], target: tuple[Any, ...]) -> Array:
    return np.asarray(sum(part.each(y, t) for part, y, t in _matched(losses, output, target)))


def _outputs_sums(
    losses: tuple[AnyLoss, ...], output: tuple[Any, ...], target: tuple[Any, ...], weight: Array | None = None
) -> Sums:
    return np.concatenate([sums_of(part)(y, t, weight) for part, y, t in _matched(losses, output, target)])


# --- masks: the mean over the rows that count ------------------------------------------------------------------------


def masked(loss: Loss[Array, T]) -> Loss[Array, tuple[T, NDArray[Any]]]:
    """The mean of a loss over the rows that a mask selects, for padded sequences and missing targets.

    The target is a pair (target, mask). The mask has the first axes of the output, such as (batch, time); its numbers
    (or flags) are the weights of these rows, each of which the loss takes as an example: `sum(w m l) / sum(w m)` over
    all rows, w the weight of the example. Targets where the mask is 0 count nothing, but must be finite, and such
    as the loss takes (a label, for `hinge` -1 or 1). Losses that weigh rows themselves are refused: softmax losses have
    `ignore=` for this.
    """
    check_losses("masked", (loss,))
    if loss.sums is not None:
        raise ValueError(f"masked: expected a loss whose rows count the same, got {loss!r}")
    return Loss(
        kind="masked",
        forward=bind(_masked_forward, loss.forward),
        vjp=bind(_masked_vjp, loss.vjp),
        each=bind(_masked_each, loss.each),
        sums=bind(_masked_sums, loss.each),
        couples_batch=loss.couples_batch,
        config={"loss": loss},
        build=masked,
    )


def _rows(output: Array, target: Any) -> tuple[Array, Any, Array]:
    """Output and target with one row for each number of the mask, and the mask."""
    if not isinstance(target, tuple) or len(target) != 2:
        raise TypeError(f"masked: expected a pair (target, mask), got {type(target).__name__}")
    mask, shape = np.asarray(target[1], output.dtype), np.shape(output)
    n, count = mask.ndim, len(mask.reshape(-1))
    if n < 1 or mask.shape != shape[:n] or any(np.shape(leaf)[:n] != shape[:n] for leaf in tree.leaves(target[0])):
        shapes = tree.map(np.shape, target[0])
        raise ShapeError(
            f"masked: expected a mask with the first axes of the output {shape} and of the target {shapes}, "
            f"got {mask.shape}"
        )
    if count and unexpected(mask.min() < 0):
        raise ValueError(f"masked: expected a mask without negative numbers, got {mask.min()}")
    return output.reshape(count, *shape[n:]), tree.map(bind(_flat, n), target[0]), mask


def _flat(n: int, a: NDArray[Any]) -> NDArray[Any]:
    return a.reshape(-1, *a.shape[n:])


def _row_weights(mask: Array, weight: Array | None) -> Array:
    if weight is None:
        return mask.reshape(-1)
    w = spread(example_weights("masked", weight, mask.reshape(len(mask), -1)[:, 0]), mask.ndim)
    rows: Array = (mask * w).reshape(-1)
    return rows


def _masked_forward(
    forward: Callable[[Array, Any, Array | None], tuple[Array, Any]],
    output: Array,
    target: Any,
    weight: Array | None = None,
) -> tuple[Array, tuple[Any, Shape]]:
    y, t, mask = _rows(output, target)
    value, cache = forward(y, t, _row_weights(mask, weight))
    return value, (cache, output.shape)


def _masked_vjp(vjp: Callable[[Any], Array], cache: tuple[Any, Shape]) -> Array:
    return vjp(cache[0]).reshape(cache[1])


def _masked_each(each: Callable[[Array, Any], Array], output: Array, target: Any) -> Array:
    y, t, mask = _rows(output, target)
    m = mask.reshape(len(mask), -1)
    mass = example_means(m)
    l: Array = example_means(m * each(y, t).reshape(m.shape)) / (mass + (mass == 0))
    return l


def _masked_sums(each: Callable[[Array, Any], Array], output: Array, target: Any, weight: Array | None = None) -> Sums:
    y, t, mask = _rows(output, target)
    return weighted_sums(each(y, t), _row_weights(mask, weight))


# --- a normal distribution against the standard one: l = sum (m**2 + exp(v) - v - 1) / 2 ------------------------------


def gaussian_kl_forward(output: tuple[Array, Array], target: None) -> tuple[Array, tuple[Array, Array]]:
    """`l = sum (m**2 + exp(v) - 1 - v) / 2`; the cache is m and exp(v) - 1."""
    no_target("gaussian_kl", target)
    m, v = pair("gaussian_kl", output)
    if m.ndim < 2:
        raise ShapeError(f"gaussian_kl: expected outputs (batch, ..., features), got {m.shape}")
    excess = np.expm1(v)
    return example_means((m * m + excess - v) * 0.5) * (m.size // max(1, len(m))), (m, excess)


def gaussian_kl_vjp(cache: tuple[Array, Array], dl: float | Array) -> tuple[Array, Array]:
    """`d_m = dl m` and `d_v = dl (exp(v) - 1) / 2`."""
    m, excess = cache
    share = spread(dl, m.ndim)
    return m * share, excess * (share * 0.5)


gaussian_kl: Loss[tuple[Array, Array], None] = core.loss("gaussian_kl", gaussian_kl_forward, gaussian_kl_vjp)
"""The divergence of normal distributions from the standard one; the output is a pair (mean m, log variance v):
`sum (m**2 + exp(v) - v - 1) / 2` over the numbers of an example, mean over the batch. There is no target: give None."""


# --- the evidence bound: value = numbers * reconstruction + beta KL ---------------------------------------------------


def evidence_bound(reconstruction: Loss[Y, T], *, beta: float = 1.0) -> Loss[tuple[Y, tuple[Array, Array]], T]:
    """The negative evidence lower bound of a variational autoencoder (Kingma and Welling 2014, equation 3; with beta,
    Higgins et al. 2017): `-log p(x | z) + beta KL(q(z | x) || N(0, 1))`, mean over the batch.

    The output is `(reconstruction, (mean, log_variance))`, the target what is to be reconstructed. The first term is
    the sum over the numbers of a target, so `reconstruction` is a loss that is their mean: `sigmoid_cross_entropy()`,
    `gaussian_nll`, `mse`, or `softmax_cross_entropy()` with labels.
    """
    check_losses("evidence_bound", (reconstruction,))
    if reconstruction.sums is not None:
        raise ValueError(f"evidence_bound: expected a loss whose rows count the same, got {reconstruction!r}")
    factor = not_negative("evidence_bound", "beta", beta)
    return Loss(
        kind="evidence_bound",
        forward=bind(_bound_forward, factor, reconstruction.forward),
        vjp=bind(_bound_vjp, factor, reconstruction.vjp),
        each=bind(_bound_each, factor, reconstruction.each),
        couples_batch=reconstruction.couples_batch,
        config={"reconstruction": reconstruction, "beta": beta},
        build=evidence_bound,
    )


def _bound_forward(
    beta: float,
    reconstruction: Callable[[Any, T, Array | None], tuple[Array, Any]],
    output: tuple[Any, tuple[Array, Array]],
    target: T,
    weight: Array | None = None,
) -> tuple[Array, tuple[Any, Any, int]]:
    x, latent = _bound_parts(output)
    value, cache = reconstruction(x, target, weight)
    divergence, of_latent = gaussian_kl.forward(latent, None, weight)
    numbers = _numbers(target, len(latent[0]))
    return np.asarray(value * numbers + divergence * beta), (cache, of_latent, numbers)


def _bound_vjp(
    beta: float, reconstruction: Callable[[Any], Any], cache: tuple[Any, Any, int]
) -> tuple[Any, tuple[Array, Array]]:
    of_x, of_latent, numbers = cache
    latent = tree.map(bind(_times, beta), gaussian_kl.vjp(of_latent))
    return tree.map(bind(_times, numbers), reconstruction(of_x)), latent


def _bound_each(
    beta: float, reconstruction: Callable[[Any, T], Array], output: tuple[Any, tuple[Array, Array]], target: T
) -> Array:
    x, latent = _bound_parts(output)
    l = reconstruction(x, target)
    return np.asarray(l * _numbers(target, len(l)) + gaussian_kl.each(latent, None) * beta)


def _numbers(target: Any, examples: int) -> int:
    """How many numbers the target of one example has."""
    return int(np.size(target)) // examples


def _bound_parts(output: tuple[Any, tuple[Array, Array]]) -> tuple[Any, tuple[Array, Array]]:
    if not isinstance(output, tuple) or len(output) != 2:
        raise ShapeError("evidence_bound: expected the output (reconstruction, (mean, log_variance))")
    return output
