"""Optimizers that look at a layer's parameters together: their norm, their rows and columns, their singular values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fnn.check import above_zero, fraction, not_negative, positive
from fnn.optimizers.adaptive import AdamState, Betas, adam_rule, adamw, betas
from fnn.optimizers.descent import MomentumState, momentum_rule
from fnn.optimizers.parts import Parts, grouped
from fnn.optimizers.protocol import GradientTransformation, Optimizer, Where
from fnn.optimizers.rules import (
    check_selects,
    decay_into,
    decays,
    elementwise,
    leaf_norm,
    leafwise,
    zeros,
)
from fnn.schedules import Schedule, as_schedule, rate_at
from fnn.recordable import live
from fnn.types import Array, Params, bind

# --- steps in proportion to the norm of the parameters: LARS and LAMB ------------------------------------------------


def lars(
    learning_rate: float | Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust: float = 1e-3,
    weight_decay: float = 0.0,
    where: Where | None = None,
) -> Optimizer:
    """For large batches: `h = g + weight_decay p`, `v = momentum v + lr trust |p| / |h| h`, `update = -v`, by leaves.

    The ratio `trust |p| / |h|` is 1 where either norm is 0. You, Gitman & Ginsburg 2017, algorithm 1 (which divides by
    `|g| + weight_decay |p|`); this is optax's form. Decay skips vectors; `where(path, parameter)` selects others.
    """
    rate = as_schedule("lars", learning_rate)
    constants = fraction("lars", "momentum", momentum), nesterov
    numbers = above_zero("lars", "trust", trust), not_negative("lars", "weight_decay", weight_decay)
    config = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "trust": trust,
        "weight_decay": weight_decay,
        "where": where,
    }
    update = bind(_lars_update, rate, constants, numbers, where or decays)
    return Optimizer("lars", bind(_lars_init, rate, where), update, config, lars)


def _lars_init(rate: Schedule, where: Where | None, params: Params) -> MomentumState:
    check_selects("lars", where, params)
    return MomentumState(0, rate_at(rate, 0), zeros(params))


def _lars_update(
    rate: Schedule,
    constants: tuple[float, bool],
    numbers: tuple[float, float],
    where: Where,
    grads: Params,
    state: MomentumState,
    params: Params,
) -> tuple[Params, MomentumState]:
    lr = rate_at(rate, state.step)
    steps = leafwise(bind(_lars_step, lr, *numbers, where), grads, params)
    rule = bind(momentum_rule, constants, 1.0, 0)
    updates, (trace,) = elementwise(rule, steps, params, state.trace)
    return updates, MomentumState(state.step + 1, lr, trace)


def _lars_step(lr: float, trust: float, decay: float, where: Where, path: str, g: Array, p: Array) -> Array:
    h: Array = g + decay * p if decay and where(path, p) else g
    return h * live(trusted, lr, trust, p, h)


def trusted(lr: float, trust: float, p: Array, h: Array) -> float:
    """`lr trust |p| / |h|`, and lr where one of the norms is 0."""
    own, other = leaf_norm(p), leaf_norm(h)
    return lr * trust * own / other if own and other else lr


def lamb(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    where: Where | None = None,
) -> Optimizer:
    """Adam for large batches: `d = ^mu / (sqrt(^nu) + eps) + weight_decay p`, `update = -lr |p| / |d| d`, by leaves.

    The ratio is 1 where either norm is 0. You et al. 2020, algorithm 2, with phi the identity. Decay skips vectors;
    `where(path, parameter)` selects others. Equals optax's.
    """
    rate, constants = as_schedule("lamb", learning_rate), betas("lamb", b1, b2, eps)
    decay = not_negative("lamb", "weight_decay", weight_decay)
    config: dict[str, Any] = {
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
        "where": where,
    }
    update = bind(_lamb_update, rate, constants, decay, where or decays)
    return Optimizer("lamb", bind(_lamb_init, rate, where), update, config, lamb)


def _lamb_init(rate: Schedule, where: Where | None, params: Params) -> AdamState:
    check_selects("lamb", where, params)
    return AdamState(0, rate_at(rate, 0), zeros(params), zeros(params))


def _lamb_update(
    rate: Schedule, constants: Betas, decay: float, where: Where, grads: Params, state: AdamState, params: Params
) -> tuple[Params, AdamState]:
    step, lr = state.step + 1, rate_at(rate, state.step)
    rule = bind(adam_rule, constants, -1.0, step)
    directions, (mu, nu) = elementwise(rule, grads, params, state.mu, state.nu)
    if decay:
        decay_into(directions, params, decay, where)
    return leafwise(bind(_lamb_step, lr), directions, params), AdamState(step, lr, mu, nu)


def _lamb_step(lr: float, path: str, d: Array, p: Array) -> Array:
    d *= live(trusted, -lr, 1.0, p, d)
    return d


# --- second moments by rows and columns: Adafactor -------------------------------------------------------------------


class AdafactorState(NamedTuple):
    """Updates made, the last learning rate, and for each leaf its means of squares: of rows and columns, or of all."""

    step: int
    learning_rate: float
    nu: Any


class AdafactorRule(NamedTuple):
    """The constants of Adafactor."""

    decay: float
    clip: float
    smallest: float
    eps: float
    scaled: bool
    weight_decay: float
    where: Where


def adafactor(
    learning_rate: float | Schedule,
    *,
    decay: float = 0.8,
    clip: float = 1.0,
    scaled: bool = True,
    smallest: float = 1e-3,
    factor_from: int = 128,
    eps: float = 1e-30,
    weight_decay: float = 0.0,
    where: Where | None = None,
) -> Optimizer:
    """Adaptive steps in little memory: of nu, the mean of `g**2 + eps`, only means over rows and columns are kept.

    `nu = row column / mean(row)` where the last two axes have at least `factor_from` entries, the full nu elsewhere;
    `b2 = 1 - t**-decay`; `d = g / sqrt(nu)`, divided by `max(1, rms(d) / clip)`; and
    `update = -lr max(smallest, rms(p)) d - lr weight_decay p` (without the factor of p unless `scaled`).
    Shazeer & Stern 2018, algorithms 4 to 6; optax's formula, where the decay is not multiplied by lr. PyTorch bounds
    the learning rate by `1 / sqrt(t)` inside (here: give that as a schedule) and factors every matrix. Decay skips
    vectors; `where` selects others.
    """
    rate = as_schedule("adafactor", learning_rate)
    rule = AdafactorRule(
        above_zero("adafactor", "decay", decay),
        above_zero("adafactor", "clip", clip),
        above_zero("adafactor", "smallest", smallest),
        above_zero("adafactor", "eps", eps),
        scaled,
        not_negative("adafactor", "weight_decay", weight_decay),
        where or decays,
    )
    n = positive("adafactor", "factor_from", factor_from)
    config = {
        "learning_rate": learning_rate,
        "decay": decay,
        "clip": clip,
        "scaled": scaled,
        "smallest": smallest,
        "factor_from": factor_from,
        "eps": eps,
        "weight_decay": weight_decay,
        "where": where,
    }
    init = bind(_adafactor_init, rate, n, where)
    return Optimizer("adafactor", init, bind(_adafactor_update, rate, rule), config, adafactor)


def _adafactor_init(rate: Schedule, factor_from: int, where: Where | None, params: Params) -> AdafactorState:
    check_selects("adafactor", where, params)
    return AdafactorState(0, rate_at(rate, 0), leafwise(bind(_adafactor_start, factor_from), params, params))


def _adafactor_start(factor_from: int, path: str, g: Array, p: Array) -> tuple[Array, ...]:
    if g.ndim > 1 and min(g.shape[-2:]) >= factor_from:
        return np.zeros(g.shape[:-1], g.dtype), np.zeros((*g.shape[:-2], g.shape[-1]), g.dtype)
    return (np.zeros(g.shape, g.dtype),)


def _adafactor_update(
    rate: Schedule, rule: AdafactorRule, grads: Params, state: AdafactorState, params: Params
) -> tuple[Params, AdafactorState]:
    step, lr = state.step + 1, rate_at(rate, state.step)
    pairs = leafwise(bind(_adafactor_step, rule, lr, step), grads, params, state.nu)
    return _first(pairs, params), AdafactorState(step, lr, _second(pairs, state.nu))


def _first(pairs: Any, params: Any) -> Any:
    """The updates of the tree of pairs (update, nu)."""
    if isinstance(params, Mapping):
        return None if pairs is None else {k: _first(pairs[k], params[k]) for k in params}
    return None if pairs is None else pairs[0]


def _second(pairs: Any, old: Any) -> Any:
    """The nus of the tree of pairs, the old ones where there was no gradient."""
    if isinstance(old, Mapping):
        return old if pairs is None else {k: _second(pairs[k], old[k]) for k in old}
    return old if pairs is None else pairs[1]


def _adafactor_step(
    rule: AdafactorRule, lr: float, step: int, path: str, g: Array, p: Array, nu: tuple[Array, ...]
) -> tuple[Array, tuple[Array, ...]]:
    mix = live(_mix, rule.decay, step)
    squares = g * g
    squares += rule.eps
    if len(nu) == 2:
        row = (1 - mix) * nu[0] + mix * squares.mean(-1)
        column = (1 - mix) * nu[1] + mix * squares.mean(-2)
        root = np.sqrt(row / row.mean(-1, keepdims=True))
        d = g / root[..., None]
        d /= np.sqrt(column)[..., None, :]
        new: tuple[Array, ...] = (row, column)
    else:
        new = (np.asarray((1 - mix) * nu[0] + mix * squares),)
        d = np.asarray(g / np.sqrt(new[0]))
    d *= live(_adafactor_factor, rule, lr, d, p)
    if rule.weight_decay and rule.where(path, p):
        d -= lr * rule.weight_decay * p
    return d, new


def _mix(decay: float, step: int) -> float:
    return math.pow(step, -decay)


def _adafactor_factor(rule: AdafactorRule, lr: float, d: Array, p: Array) -> float:
    """`-lr max(smallest, rms(p)) / max(1, rms(d) / clip)`."""
    return -lr * (max(rule.smallest, rms(p)) if rule.scaled else 1.0) / max(1.0, rms(d) / rule.clip)


def rms(a: Array) -> float:
    """The root of the mean of the squares."""
    return leaf_norm(a) / math.sqrt(max(1, np.size(a)))


# --- orthogonalised momentum: Muon -----------------------------------------------------------------------------------


class MuonRule(NamedTuple):
    """The constants of Muon."""

    momentum: float
    nesterov: bool
    iterations: int
    eps: float
    weight_decay: float


def muon(
    learning_rate: float | Schedule,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    eps: float = 1e-7,
    weight_decay: float = 0.0,
    where: Where | None = None,
    rest: GradientTransformation | None = None,
) -> Optimizer:
    """Matrices move by their momentum with all singular values made about 1; the other parameters follow `rest`.

    `v = momentum v + (1 - momentum) g`, `h = momentum v + (1 - momentum) g` (or v without Nesterov's momentum),
    `update = -lr sqrt(max(1, out / in)) orthogonal(h) - lr weight_decay p`. Jordan et al. 2024. PyTorch's formula,
    computed in the dtype of the parameters (there in bfloat16); optax corrects v and g for the start before it adds
    them. `where(path, parameter)` selects the matrices (all of two axes by default; further axes are taken as rows);
    embeddings and the output layer are often left out. `rest` is `adamw(learning_rate, weight_decay=0)` by default.
    """
    rate = as_schedule("muon", learning_rate)
    rule = MuonRule(
        fraction("muon", "momentum", momentum),
        nesterov,
        positive("muon", "iterations", iterations),
        above_zero("muon", "eps", eps),
        not_negative("muon", "weight_decay", weight_decay),
    )
    matrices = Optimizer("matrices", bind(_muon_init, rate), bind(_muon_update, rate, rule))
    others = adamw(learning_rate, weight_decay=0.0) if rest is None else rest
    config = {
        "learning_rate": learning_rate,
        "momentum": momentum,
        "nesterov": nesterov,
        "iterations": iterations,
        "eps": eps,
        "weight_decay": weight_decay,
        "where": where,
        "rest": rest,
    }
    parts: Parts = ((where or _is_matrix, "matrices", matrices), (None, "rest", others))
    return grouped("muon", parts, config, muon, strict=where is not None)


def _is_matrix(path: str, parameter: Any) -> bool:
    return np.ndim(parameter) == 2


def _muon_init(rate: Schedule, params: Params) -> MomentumState:
    leafwise(_at_least_two_axes, params, params)
    return MomentumState(0, rate_at(rate, 0), zeros(params))


def _at_least_two_axes(path: str, g: Array, p: Array) -> Array:
    if g.ndim < 2:
        raise ValueError(f"muon: {path} has {g.ndim} axes and is no matrix; select others with where=")
    return g


def _muon_update(
    rate: Schedule, rule: MuonRule, grads: Params, state: MomentumState, params: Params
) -> tuple[Params, MomentumState]:
    lr = rate_at(rate, state.step)
    held, (trace,) = elementwise(bind(_muon_rule, rule), grads, params, state.trace)
    updates = leafwise(bind(_muon_step, rule, lr), held, params)
    return updates, MomentumState(state.step + 1, lr, trace)


def _muon_rule(rule: MuonRule, g: Array, u: Array, old_trace: Array, trace: Array) -> None:
    scratch = (1 - rule.momentum) * g
    np.multiply(old_trace, rule.momentum, out=trace)
    trace += scratch
    if rule.nesterov:
        np.multiply(trace, rule.momentum, out=u)
        u += scratch
    else:
        np.copyto(u, trace)


def _muon_step(rule: MuonRule, lr: float, path: str, h: Array, p: Array) -> Array:
    rows, columns = math.prod(h.shape[:-1]), h.shape[-1]
    u = orthogonal(h.reshape(rows, columns), rule.iterations, rule.eps).reshape(h.shape)
    u *= -lr * math.sqrt(max(1.0, columns / max(1, rows)))
    if rule.weight_decay:
        u -= lr * rule.weight_decay * p
    return u


def orthogonal(h: Array, iterations: int, eps: float) -> Array:
    """About `U V'` of `h = U S V'`: a quintic Newton-Schulz iteration that brings singular values near 1 (0.7 to 1.2).

    `x = h / (|h| + eps)`, then `x = 3.4445 x - 4.775 x x' x + 2.0315 (x x')**2 x`. Jordan et al. 2024.
    """
    a, b, c = 3.4445, -4.775, 2.0315
    x = h.T if h.shape[0] > h.shape[1] else h
    x = x / (live(leaf_norm, h) + eps)
    for _ in range(iterations):
        gram = x.dot(x.T)
        mixed = gram.dot(gram)
        mixed *= c
        gram *= b
        mixed += gram
        x = a * x + mixed.dot(x)
    return x.T.copy() if h.shape[0] > h.shape[1] else x
