"""Averages of the parameters along the way, which often do better on new data than the last ones.

Training goes on at other parameters than those to evaluate with: `averaged_params(opt_state, params)` gives the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fnn import tree
from fnn.check import above_zero, fraction, not_negative, positive
from fnn.optimizers.adaptive import root_of_correction
from fnn.optimizers.parts import overlaid
from fnn.optimizers.protocol import (
    Context,
    Contextual,
    GradientTransformation,
    Optimizer,
    Where,
    apply_updates,
    states,
    updater,
    wrapper,
)
from fnn.optimizers.rules import Moments, check_selects, decay_into, decays, elementwise, leafwise, zeros
from fnn.recordable import live
from fnn.schedules import Schedule, as_schedule, rate_at
from fnn.types import Array, Params, bind


def averaged_params(opt_state: Any, params: Params) -> Params:
    """The parameters to evaluate with: the averages in the optimizer's state, `params` where it has none.

        averaged_params(result.train_state.opt_state, result.params)

    Works for `ema`, `swa`, `lookahead` and `schedule_free_adamw`, alone or within other optimizers (of several that
    average the same parameters, the outermost). Raises `ValueError` for a state without any average.
    """
    found = [record for record in states(opt_state) if hasattr(record, "averaged")]
    if not found:
        raise ValueError(
            "averaged_params: the optimizer's state has no average; use ema, swa, lookahead or schedule_free_adamw"
        )
    average = params
    for record in reversed(found):
        average = overlaid(average, record.averaged(params))
    return tree.read_only(average) if average is not params else params


class AverageState(NamedTuple):
    """Updates made, how many parameters are in the average, the average, and the optimizer's state."""

    step: int
    members: int
    average: Params
    inner: Any

    def averaged(self, params: Params) -> Params | None:
        """The average, once there is one."""
        return self.average if self.members else None


def ema(opt: GradientTransformation, decay: float = 0.999) -> Optimizer:
    """Keeps the exponential mean of the parameters, `a = decay a + (1 - decay) p` after each update, corrected.

    The corrected mean is kept itself: `a = a + (1 - decay) / (1 - decay**t) (p - a)`. Polyak & Juditsky 1992 average
    with equal weights; with this decay e.g. Tarvainen & Valpola 2017. Updates are those of `opt`.
    """
    decay = fraction("ema", "decay", decay)
    config = {"opt": opt, "decay": decay}
    return wrapper("ema", bind(_average_init, opt), bind(_ema_update, decay, updater(opt)), (opt,), config, ema)


def _average_init(opt: GradientTransformation, params: Params) -> AverageState:
    return AverageState(0, 0, params, opt.init(params))


def _ema_update(
    decay: float, update: Contextual, grads: Params, state: AverageState, params: Params, context: Context | None
) -> tuple[Params, AverageState]:
    updates, inner = update(grads, state.inner, params, context)
    step = state.step + 1
    weight = live(_ema_weight, decay, step)
    average = tree.map(bind(_mixed, weight), state.average, apply_updates(params, updates))
    return updates, AverageState(step, step, average, inner)


def _ema_weight(decay: float, step: int) -> float:
    """`(1 - decay) / (1 - decay**t)`."""
    return (1 - decay) / (1 - decay**step)


def _mixed(weight: float, a: Array, p: Array) -> Array:
    """`(1 - weight) a + weight p`, as `p - (1 - weight) (p - a)`: exactly p where the weight is 1, and where a is p."""
    if a is p:
        return p
    behind = p - a
    behind *= 1 - weight
    return np.asarray(p - behind)


def swa(opt: GradientTransformation, *, start: int, every: int = 1) -> Optimizer:
    """Keeps the mean of the parameters after the updates start, start + every, start + 2 every, ...

    Stochastic weight averaging, Izmailov et al. 2018, algorithm 1; there `every` is the length of a cycle of the
    learning rate. Updates are those of `opt`. Running statistics (batch norm) are not those of the averaged network:
    compute them anew.
    """
    start, every = positive("swa", "start", start), positive("swa", "every", every)
    config = {"opt": opt, "start": start, "every": every}
    return wrapper("swa", bind(_average_init, opt), bind(_swa_update, start, every, updater(opt)), (opt,), config, swa)


def _swa_update(
    start: int,
    every: int,
    update: Contextual,
    grads: Params,
    state: AverageState,
    params: Params,
    context: Context | None,
) -> tuple[Params, AverageState]:
    updates, inner = update(grads, state.inner, params, context)
    step, members, average = state.step + 1, state.members, state.average
    if step >= start and (step - start) % every == 0:
        members += 1
        average = _towards(average, apply_updates(params, updates), 1 / members)
    return updates, AverageState(step, members, average, inner)


def _towards(average: Params, params: Params, weight: float) -> Params:
    """`average + weight (params - average)`; exactly the parameters where the weight is 1."""
    if weight == 1.0:
        return params
    moved: Params = tree.map(bind(_moved, weight), average, params)
    return moved


def _moved(weight: float, a: Array, p: Array) -> Array:
    if a is p:
        return a
    moved = np.subtract(p, a)
    moved *= weight
    return np.asarray(moved + a)


# --- lookahead -------------------------------------------------------------------------------------------------------


class LookaheadState(NamedTuple):
    """Updates made, the slow parameters, and the optimizer's state."""

    step: int
    slow: Params
    inner: Any

    def averaged(self, params: Params) -> Params:
        """The slow parameters."""
        return self.slow


def lookahead(opt: GradientTransformation, *, every: int = 5, factor: float = 0.5) -> Optimizer:
    """k steps forward, one back: after every k-th update, `slow = slow + factor (p - slow)`, and p goes on from there.

    Zhang et al. 2019, algorithm 1. The optimizer's own state goes on. Equals optax's.
    """
    every = positive("lookahead", "every", every)
    if not 0 < factor <= 1:
        raise ValueError(f"lookahead: expected factor above 0 and at most 1, got {factor!r}")
    config = {"opt": opt, "every": every, "factor": factor}
    update = bind(_lookahead_update, every, float(factor), updater(opt))
    return wrapper("lookahead", bind(_lookahead_init, opt), update, (opt,), config, lookahead)


def _lookahead_init(opt: GradientTransformation, params: Params) -> LookaheadState:
    return LookaheadState(0, params, opt.init(params))


def _lookahead_update(
    every: int,
    factor: float,
    update: Contextual,
    grads: Params,
    state: LookaheadState,
    params: Params,
    context: Context | None,
) -> tuple[Params, LookaheadState]:
    updates, inner = update(grads, state.inner, params, context)
    step = state.step + 1
    if step % every:
        return updates, LookaheadState(step, state.slow, inner)
    slow = _towards(state.slow, apply_updates(params, updates), factor)
    return _difference(grads, slow, params), LookaheadState(step, slow, inner)


def _difference(grads: Any, target: Any, params: Any) -> Any:
    """What leads from the parameters to the target, where there are gradients."""
    if grads is None or not isinstance(params, Mapping):
        return None if grads is None else np.asarray(target - params)
    return {name: _difference(grads.get(name), target[name], p) for name, p in params.items()}


# --- schedule-free ---------------------------------------------------------------------------------------------------


class ScheduleFreeState(NamedTuple):
    """Updates made, the last learning rate, the weights so far, the fast parameters z, the means of squares, and b1."""

    step: int
    learning_rate: float
    largest: float
    weights: float
    fast: Params
    nu: Moments
    b1: float

    def averaged(self, params: Params) -> Params:
        """`x = (y - (1 - b1) z) / b1`, where y are the parameters that are trained."""
        return _slow(self.b1, self.fast, params) if self.step else self.fast


def _slow(b1: float, fast: Any, params: Any) -> Any:
    if isinstance(fast, Mapping):
        return {name: _slow(b1, z, params[name]) for name, z in fast.items()}
    return np.asarray((params - (1 - b1) * fast) / b1)


class ScheduleFreeRule(NamedTuple):
    """The constants of schedule-free AdamW."""

    b1: float
    b2: float
    eps: float
    weight_decay: float
    power: float
    where: Where


def schedule_free_adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    power: float = 2.0,
    where: Where | None = None,
) -> Optimizer:
    """AdamW that needs no decreasing rate: an average replaces both schedule and momentum. Defazio et al. 2024.

    Gradients are taken at y, the parameters that are trained; `averaged_params` gives x, those to evaluate with:
    `z = z - lr (g / (sqrt(^nu) + eps) + weight_decay y)`, `x = (1 - c) x + c z`, `y = (1 - b1) z + b1 x`, where
    `c = w / (sum of all w)` and `w = (largest lr so far)**power`. Give `warmup(rate, steps=...)` as learning rate.
    optax's formula, except that its weights look one step ahead in the schedule (equal for constant rates). Decay skips
    vectors; `where(path, parameter)` selects others.
    """
    rate = as_schedule("schedule_free_adamw", learning_rate)
    above_zero("schedule_free_adamw", "b1", b1)
    rule = ScheduleFreeRule(
        fraction("schedule_free_adamw", "b1", b1),
        fraction("schedule_free_adamw", "b2", b2),
        above_zero("schedule_free_adamw", "eps", eps),
        not_negative("schedule_free_adamw", "weight_decay", weight_decay),
        not_negative("schedule_free_adamw", "power", power),
        where or decays,
    )
    config = {
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
        "power": power,
        "where": where,
    }
    init = bind(_schedule_free_init, rate, rule.b1, where)
    return Optimizer("schedule_free_adamw", init, bind(_schedule_free_update, rate, rule), config, schedule_free_adamw)


def _schedule_free_init(rate: Schedule, b1: float, where: Where | None, params: Params) -> ScheduleFreeState:
    check_selects("schedule_free_adamw", where, params)
    return ScheduleFreeState(0, rate_at(rate, 0), 0.0, 0.0, params, zeros(params), b1)


def _schedule_free_update(
    rate: Schedule, rule: ScheduleFreeRule, grads: Params, state: ScheduleFreeState, params: Params
) -> tuple[Params, ScheduleFreeState]:
    step, lr, b1 = state.step + 1, rate_at(rate, state.step), rule.b1
    largest = live(max, state.largest, lr)
    weight = largest**rule.power
    weights = state.weights + weight
    c = live(_share, weight, weights)
    moved, (nu,) = elementwise(bind(_squares_rule, rule.b2, rule.eps, lr, step), grads, params, state.nu)
    if rule.weight_decay:
        decay_into(moved, params, -lr * rule.weight_decay, rule.where)
    fast = _advanced(state.fast, moved)
    updates = leafwise(bind(_schedule_free_step, 1 - b1 * (1 - c), c), moved, params, state.fast)
    return updates, ScheduleFreeState(step, lr, largest, weights, fast, nu, b1)


def _share(weight: float, weights: float) -> float:
    return weight / weights if weights else 0.0


def _squares_rule(b2: float, eps: float, lr: float, step: int, g: Array, u: Array, old_nu: Array, nu: Array) -> None:
    """`nu = b2 nu + (1 - b2) g**2`, `u = -lr g / (sqrt(^nu) + eps)`."""
    scratch = g * g
    scratch *= 1 - b2
    np.multiply(old_nu, b2, out=nu)
    nu += scratch
    np.sqrt(nu, out=scratch)
    root = live(root_of_correction, b2, step)
    scratch += eps * root
    np.divide(g, scratch, out=u)
    u *= -lr * root


def _advanced(fast: Any, moved: Any) -> Any:
    if isinstance(fast, Mapping):
        return fast if moved is None else {name: _advanced(z, moved[name]) for name, z in fast.items()}
    return fast if moved is None else np.asarray(fast + moved)


def _schedule_free_step(a: float, c: float, path: str, d: Array, y: Array, z: Array) -> Array:
    """`y' - y = a d + c (z - y)`, `a = 1 - b1 (1 - c)`: `y' = b1 ((1 - c) x + c z') + (1 - b1) z'`, `z' = z + d`."""
    u = np.subtract(z, y)
    u *= c
    return np.asarray(u + a * d)
