"""Losses for sequences: connectionist temporal classification."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fnn.contract import Loss
from fnn.layers.softmax import row_max, row_sum
from fnn.losses.core import float_error, loss, spread
from fnn.recordable import unexpected
from fnn.types import Array, Ints, ShapeError, bind

NEVER = -1e30
"""The logarithm of a probability of 0: finite, so that differences are; sums of many of them stay finite in float32."""


class CtcTarget(NamedTuple):
    """The target of `ctc`; a plain tuple of the three does as well."""

    labels: Ints
    """(batch, longest): the labels of every example, then padding of any value."""
    lengths: Ints
    """(batch,): how many labels there are."""
    frames: Ints
    """(batch,): how many of the time steps of the output are used."""


class Paths(NamedTuple):
    """The graph of the alignments: state 2 i + 1 emits label i, the even states emit blanks."""

    emits: Ints
    """(batch, states): the class that a state emits."""
    skip: Array
    """(batch, states): 0 where a state can follow the one two before it, else `NEVER`."""
    final: Array
    """(batch, states): 0 for the last label and the blank behind it, else `NEVER`."""
    frames: Ints
    """(batch,): how many time steps are used."""


class CtcCache(NamedTuple):
    """What the derivative needs."""

    p: Array
    """(batch, time, classes): the softmax of the logits."""
    emitted: Array
    """(time, batch, states): the log-probability of what the states emit."""
    alpha: Array
    """(time, batch, states): the log-probability of all ways to a state, up to this time step."""
    l: Array
    """(batch,): the losses."""
    paths: Paths


def ctc_forward(blank: int, logits: Array, target: CtcTarget) -> tuple[Array, CtcCache]:
    """`l = -log p(labels)`: forward variables alpha over time (Graves et al. 2006, section 4.1), in logarithms."""
    paths = alignments(blank, logits, target)
    logp = logits - row_max(logits)
    p = np.exp(logp)
    total = row_sum(p)
    p /= total
    logp -= np.log(total, out=total)
    np.maximum(logp, NEVER, out=logp)  # of a class that is ruled out, minus infinity
    emitted = np.take_along_axis(logp, paths.emits[:, None, :], axis=2).transpose(1, 0, 2).copy()
    times, batch, states = emitted.shape
    alpha = np.empty_like(emitted)
    alpha[0] = np.where(np.arange(states) < 2, emitted[0], NEVER)
    used = (np.arange(times)[:, None] < paths.frames)[..., None]
    before = np.full((batch, states + 2), NEVER, logits.dtype)  # two states more, so that shifts are views
    for t in range(1, times):
        before[:, 2:] = alpha[t - 1]
        step = log_sum(before[:, 2:], before[:, 1:-1], before[:, :-2] + paths.skip)
        step += emitted[t]
        alpha[t] = np.where(used[t], step, alpha[t - 1])
    l = -log_sum_rows(alpha[-1] + paths.final)
    return l, CtcCache(p, emitted, alpha, l, paths)


def ctc_vjp(cache: CtcCache, dl: float | Array) -> Array:
    """`d_logits = dl (softmax(z) - g)`, g the probability that a time step emits a class, given the labels.

    The backward variables beta are the log-probability of the labels' rest after a time step; so
    `g_k = sum of exp(alpha + beta + l)` over the states that emit k (Graves et al. 2006, equation 16).
    """
    p, emitted, alpha, l, (emits, skip, final, frames) = cache
    times, batch, states = emitted.shape
    beta = np.empty_like(alpha)
    beta[-1] = final
    inside = (np.arange(1, times + 1)[:, None] < frames)[..., None]  # whether the next time step is used, too
    after = np.full((batch, states + 2), NEVER, p.dtype)
    skip_on = np.full_like(skip, NEVER)
    skip_on[:, :-2] = skip[:, 2:]
    for t in range(times - 2, -1, -1):
        np.add(beta[t + 1], emitted[t + 1], out=after[:, :-2])
        step = log_sum(after[:, :-2], after[:, 1:-1], after[:, 2:] + skip_on)
        beta[t] = np.where(inside[t], step, final)
    beta += alpha
    beta += l[:, None]
    gamma = np.exp(beta, out=beta)
    one_hot = (emits[..., None] == np.arange(p.shape[2])).astype(p.dtype)
    d: Array = p - np.matmul(gamma.transpose(1, 0, 2), one_hot)
    d *= np.arange(times)[None, :, None] < frames[:, None, None]
    d *= spread(dl, 3)
    return d


def log_sum(a: Array, b: Array, c: Array) -> Array:
    """`log(exp(a) + exp(b) + exp(c))`."""
    top = np.maximum(a, b)
    np.maximum(top, c, out=top)
    total = np.exp(a - top)
    total += np.exp(b - top)
    total += np.exp(c - top)
    np.log(total, out=total)
    total += top
    return total


def log_sum_rows(a: Array) -> Array:
    """`log sum_k exp(a_k)` of every row."""
    top = row_max(a)
    total: Array = (np.log(row_sum(np.exp(a - top))) + top)[:, 0]
    return total


def alignments(blank: int, logits: Array, target: CtcTarget) -> Paths:
    """The graph of the alignments of every example, after everything about the target has been checked."""
    shape = np.shape(logits)
    if len(shape) != 3 or not all(shape):
        raise ShapeError(f"ctc: expected logits (batch, time, classes), got {shape}")
    if logits.dtype.kind != "f":
        raise float_error("ctc", logits)
    batch, times, classes = shape
    if not isinstance(target, tuple) or len(target) != 3:
        raise TypeError("ctc: expected the target CtcTarget(labels, lengths, frames)")
    labels, lengths, frames = (np.asarray(part) for part in target)
    if labels.ndim != 2 or not len(labels) == len(logits) or lengths.shape != (batch,) or frames.shape != (batch,):
        raise ShapeError(
            f"ctc: for logits {shape} expected labels ({batch}, longest), lengths ({batch},) and frames ({batch},), "
            f"got {labels.shape}, {lengths.shape} and {frames.shape}"
        )
    if any(part.dtype.kind not in "iu" for part in (labels, lengths, frames)):
        raise TypeError(f"ctc: expected integers, got {labels.dtype}, {lengths.dtype} and {frames.dtype}")
    labels, lengths, frames = (part.astype(np.intp) for part in (labels, lengths, frames))
    if not blank < classes:
        raise ValueError(f"ctc: the blank is {blank}, the logits have {classes} classes")
    longest = labels.shape[1]
    used = np.arange(longest) < lengths[:, None]
    labels = np.where(used, labels, blank)
    if unexpected((((labels == blank) & used) | (labels < 0) | (labels >= classes)).any()):
        raise ValueError(f"ctc: expected labels from 0 to {classes - 1} other than the blank, {blank}")
    repeats = np.zeros(labels.shape, bool)
    repeats[:, 1:] = (labels[:, 1:] == labels[:, :-1]) & used[:, 1:]
    needed = np.maximum(lengths + repeats.sum(axis=1), 1)
    bad = (lengths < 0) | (lengths > longest) | (frames > times) | (needed > frames)
    if unexpected(bad.any()):
        i = int(np.argmax(bad))
        raise ValueError(
            f"ctc: example {i} has {lengths[i]} labels (of at most {longest}) in {frames[i]} of {times} time steps; "
            f"its labels need {needed[i]} steps, one for each and one between equal neighbours"
        )
    states = np.arange(2 * longest + 1)
    emits = np.full((batch, states.size), blank, labels.dtype)
    emits[:, 1::2] = labels
    skip = np.full((batch, states.size), NEVER, logits.dtype)
    skip[:, 3::2] = np.where(repeats[:, 1:], NEVER, 0)
    last = 2 * lengths[:, None]
    final = np.where((states == last) | (states == last - 1), 0, NEVER).astype(logits.dtype)
    return Paths(emits, skip, final, frames)


def ctc(*, blank: int = 0) -> Loss[Array, CtcTarget]:
    """Connectionist temporal classification: `-log p(labels)` of logits (batch, time, classes), mean over the batch.

    p(labels) is the sum over all alignments: one class for each time step, of which the labels remain when repeated
    classes are merged and blanks removed then (Graves et al. 2006). The target is `CtcTarget(labels, lengths, frames)`.
    Labels that do not fit into their time steps raise `ValueError`, as no alignment exists.
    """
    if isinstance(blank, bool) or not isinstance(blank, int) or blank < 0:
        raise ValueError(f"ctc: expected blank to be a class, got {blank!r}")
    return loss("ctc", bind(ctc_forward, blank), ctc_vjp, config={"blank": blank}, build=ctc)
