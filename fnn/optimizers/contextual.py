"""Optimizers that use more than the gradients: how many examples there were, the loss, or a second gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fnn import tree
from fnn.check import above_zero, not_negative, positive
from fnn.optimizers.averaging import ScheduleFreeState
from fnn.optimizers.protocol import (
    Context,
    Contextual,
    GradientTransformation,
    Optimizer,
    apply_updates,
    learning_rate,
    no_updates,
    required,
    states,
    updater,
    wrapper,
)
from fnn.optimizers.rules import scaled
from fnn.optimizers.transforms import global_norm
from fnn.recordable import live
from fnn.types import Params, bind

# --- gradient accumulation -------------------------------------------------------------------------------------------


class AccumulateState(NamedTuple):
    """Micro-batches since the last update, their examples, the sums of their losses and gradients, and the state."""

    batches: int
    examples: float
    value: float
    total: Params
    inner: Any


def accumulate(opt: GradientTransformation, *, every: int) -> Optimizer:
    """One update of `opt` after every k-th batch, with the mean gradient over the examples of all k.

    So k micro-batches do what one large batch would, whatever their sizes: batches count by their examples (by the sum
    of the weights where examples are weighted). Losses that weigh rows themselves (`ignore=`, `class_weights=`,
    `masked`) divide by what counts in each batch, so there the sum is not quite that of one large batch. Without a
    context, `update` counts every batch the same.
    """
    every = positive("accumulate", "every", every)
    return wrapper(
        "accumulate",
        bind(_accumulate_init, opt),
        bind(_accumulate_update, every, updater(opt)),
        (opt,),
        {"opt": opt, "every": every},
        accumulate,
        contextual=True,
    )


def _accumulate_init(opt: GradientTransformation, params: Params) -> AccumulateState:
    return AccumulateState(0, 0.0, 0.0, tree.zeros_like(params), opt.init(params))


def _accumulate_update(
    every: int, update: Contextual, grads: Params, state: AccumulateState, params: Params, context: Context | None
) -> tuple[Params, AccumulateState]:
    weight = 1.0 if context is None else live(float, context.examples)
    examples = state.examples + weight
    value = state.value if context is None else state.value + weight * live(float, context.value)
    total = _sum(state.total, scaled(weight, grads, params))
    if state.batches + 1 < every:
        return no_updates(params), AccumulateState(state.batches + 1, examples, value, total, state.inner)
    mean = _where_given(scaled(1 / examples if examples else 0.0, total, params), grads)
    whole = None if context is None else Context(value / examples if examples else 0.0, examples, _no_second_gradient)
    updates, inner = update(mean, state.inner, params, whole)
    return updates, AccumulateState(0, 0.0, 0.0, tree.zeros_like(total), inner)


def _no_second_gradient(params: Params) -> Params:
    raise TypeError(
        "accumulate: the batches before the last are gone, so there is no gradient of all at other parameters; "
        "write sam(accumulate(...)) instead of accumulate(sam(...))"
    )


def _sum(total: Any, g: Any) -> Any:
    """`total + g`, the total where there is no gradient."""
    if g is None:
        return total
    return {k: _sum(t, g[k]) for k, t in total.items()} if isinstance(total, Mapping) else np.asarray(total + g)


def _where_given(mean: Any, grads: Any) -> Any:
    """The means, `None` where the gradients have it."""
    if grads is None or not isinstance(mean, Mapping):
        return None if grads is None else mean
    return {name: _where_given(m, grads[name]) for name, m in mean.items()}


# --- sharpness-aware minimisation ------------------------------------------------------------------------------------


class SamState(NamedTuple):
    """The optimizer's state."""

    inner: Any


def sam(opt: GradientTransformation, *, radius: float = 0.05) -> Optimizer:
    """Sharpness-aware minimisation: `opt` is given the gradient at `p + radius g / |g|` instead of at p.

    Foret et al. 2021, algorithm 1. The second gradient is of the same batch, with the same randomness; each step costs
    two. Where g is 0 it is taken at p.
    """
    radius = above_zero("sam", "radius", radius)
    config = {"opt": opt, "radius": radius}
    update = bind(_sam_update, radius, updater(opt))
    return wrapper("sam", bind(_sam_init, opt), update, (opt,), config, sam, contextual=True)


def _sam_init(opt: GradientTransformation, params: Params) -> SamState:
    return SamState(opt.init(params))


def _sam_update(
    radius: float, update: Contextual, grads: Params, state: SamState, params: Params, context: Context | None
) -> tuple[Params, SamState]:
    context = required("sam", "a second gradient", context)
    ascent = scaled(live(_ascent, radius, global_norm(grads)), grads, params)
    grads = context.grad(apply_updates(params, ascent))
    updates, inner = update(grads, state.inner, params, context)
    return updates, SamState(inner)


def _ascent(radius: float, norm: float) -> float:
    return radius / norm if norm else 0.0


# --- a learning rate that waits for the loss -------------------------------------------------------------------------


class PlateauState(NamedTuple):
    """Updates made, the last rate, the factor, the best mean loss, looks since then, rest, and the running sums."""

    step: int
    learning_rate: float | None
    factor: float
    best: float
    waited: int
    resting: int
    value: float
    examples: float
    inner: Any


class PlateauRule(NamedTuple):
    """The constants of `reduce_on_plateau`."""

    factor: float
    patience: int
    every: int
    cooldown: int
    rtol: float
    atol: float
    smallest: float


def reduce_on_plateau(
    opt: GradientTransformation,
    *,
    factor: float = 0.1,
    patience: int = 10,
    every: int = 1,
    cooldown: int = 0,
    rtol: float = 1e-4,
    atol: float = 0.0,
    smallest: float = 0.0,
) -> Optimizer:
    """Multiplies the learning rate by `factor` when the loss has not improved for more than `patience` looks.

    A look is taken after every `every` updates, at the mean training loss over their examples: give the steps of an
    epoch, since the losses of single batches go up and down and soon use up the patience. It
    improves when it is below `best - (atol + rtol |best|)`, which works for losses of any sign (PyTorch's relative
    threshold takes `best (1 - rtol)`, which a negative loss passes by getting worse). After a reduction nothing is
    counted for `cooldown` looks; the product of all factors does not fall below `smallest`. It multiplies the updates
    of `opt`, which for all rules here is its learning rate but for `schedule_free_adamw`, which is refused. Averages
    belong around it: `ema(reduce_on_plateau(...))`, not the other way.
    """
    if not 0 < factor < 1:
        raise ValueError(f"reduce_on_plateau: expected factor between 0 and 1, got {factor!r}")
    if not 0 <= smallest < 1:
        raise ValueError(f"reduce_on_plateau: expected smallest in [0, 1), got {smallest!r}")
    for name, value in (("patience", patience), ("cooldown", cooldown)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"reduce_on_plateau: expected {name} to be an integer of at least 0, got {value!r}")
    rule = PlateauRule(
        float(factor),
        int(patience),
        positive("reduce_on_plateau", "every", every),
        int(cooldown),
        not_negative("reduce_on_plateau", "rtol", rtol),
        not_negative("reduce_on_plateau", "atol", atol),
        float(smallest),
    )
    config = {
        "opt": opt,
        "factor": factor,
        "patience": patience,
        "every": every,
        "cooldown": cooldown,
        "rtol": rtol,
        "atol": atol,
        "smallest": smallest,
    }
    return wrapper(
        "reduce_on_plateau",
        bind(_plateau_init, opt),
        bind(_plateau_update, rule, updater(opt)),
        (opt,),
        config,
        reduce_on_plateau,
        contextual=True,
    )


def _plateau_init(opt: GradientTransformation, params: Params) -> PlateauState:
    inner = opt.init(params)
    if any(isinstance(record, ScheduleFreeState) for record in states(inner)):
        raise ValueError("reduce_on_plateau: schedule_free_adamw holds its rate itself, and needs no schedule")
    return PlateauState(0, learning_rate(inner), 1.0, math.inf, 0, 0, 0.0, 0.0, inner)


def _plateau_update(
    rule: PlateauRule, update: Contextual, grads: Params, state: PlateauState, params: Params, context: Context | None
) -> tuple[Params, PlateauState]:
    context = required("reduce_on_plateau", "the loss", context)
    updates, inner = update(grads, state.inner, params, context)
    if state.factor != 1.0:
        updates = tree.map(bind(np.multiply, state.factor), updates)
    rate = learning_rate(inner)
    step = state.step + 1
    examples = live(float, context.examples)
    value = state.value + live(float, context.value) * examples
    own = None if rate is None else state.factor * rate
    numbers = step, state.factor, state.best, state.waited, state.resting, value, state.examples + examples
    after = [live(_watched, name, rule, *numbers) for name in PlateauState._fields[2:8]]
    return updates, PlateauState._make((step, own, *after, inner))


def _watched(name: str, rule: PlateauRule, step: int, *watched: Any) -> Any:
    """One number of the state after a step, which may end in a look at the mean loss."""
    seen = PlateauState._make((step, None, *watched, None))
    return getattr(seen if step % rule.every or not seen.examples else _look(rule, seen), name)


def _look(rule: PlateauRule, state: PlateauState) -> PlateauState:
    """The state after a look at the mean loss."""
    loss = state.value / state.examples
    best, resting = state.best, max(0, state.resting - 1)
    state = state._replace(value=0.0, examples=0.0)
    if math.isinf(best) and loss < best or loss < best - (rule.atol + rule.rtol * abs(best)):
        return state._replace(best=loss, waited=0, resting=resting)
    if state.resting:
        return state._replace(waited=0, resting=resting)
    if state.waited < rule.patience:
        return state._replace(waited=state.waited + 1)
    return state._replace(factor=max(rule.smallest, state.factor * rule.factor), waited=0, resting=rule.cooldown)
