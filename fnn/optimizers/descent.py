"""Optimizers that follow the gradient or its sign."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fnn.check import above_zero, fraction, not_negative
from fnn.optimizers.protocol import Optimizer, Where
from fnn.optimizers.rules import Moments, elementwise, filled, rule_optimizer, scaled, zeros
from fnn.schedules import Schedule, as_schedule, rate_at
from fnn.types import Array, Params, bind


class SgdState(NamedTuple):
    """Updates made, and the last learning rate."""

    step: int
    learning_rate: float


class MomentumState(NamedTuple):
    """Updates made, the last learning rate, and the momentum."""

    step: int
    learning_rate: float
    trace: Moments


# --- stochastic gradient descent -------------------------------------------------------------------------------------


def sgd(learning_rate: float | Schedule, *, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent: `v = momentum v + g`, `update = -learning_rate v`.

    With Nesterov momentum the update is `-learning_rate (g + momentum v)` (Sutskever et al. 2013, as reformulated by
    Bengio et al. 2013, eq. 7). Equals optax's and PyTorch's (`dampening=0`).
    """
    momentum = fraction("sgd", "momentum", momentum)
    if nesterov and not momentum:
        raise ValueError("sgd: nesterov needs a momentum above 0")
    config = {"momentum": momentum, "nesterov": nesterov}
    if momentum:
        return rule_optimizer("sgd", learning_rate, momentum_rule, (momentum, nesterov), MomentumState, 1, config, sgd)
    rate = as_schedule("sgd", learning_rate)
    return Optimizer(
        "sgd", bind(_sgd_init, rate), bind(_sgd_update, rate), {"learning_rate": learning_rate, **config}, sgd
    )


def _sgd_init(rate: Schedule, params: Params) -> SgdState:
    return SgdState(0, rate_at(rate, 0))


def _sgd_update(rate: Schedule, grads: Params, state: SgdState, params: Params) -> tuple[Params, SgdState]:
    lr = rate_at(rate, state.step)
    return scaled(-lr, grads, params), SgdState(state.step + 1, lr)


def momentum_rule(
    constants: tuple[float, bool], lr: float, step: int, g: Array, u: Array, old_trace: Array, trace: Array
) -> None:
    """`v = momentum v + g`, `update = -lr v`, or `-lr (g + momentum v)`."""
    momentum, nesterov = constants
    np.multiply(old_trace, momentum, out=trace)
    trace += g
    if nesterov:
        np.add(g, momentum * trace, out=u)
        u *= -lr
    else:
        np.multiply(trace, -lr, out=u)


# --- signs -----------------------------------------------------------------------------------------------------------


def lion(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 0.0,
    where: Where | None = None,
) -> Optimizer:
    """`update = -lr sign(b1 m + (1 - b1) g) - lr weight_decay p`, then `m = b2 m + (1 - b2) g`.

    Chen et al. 2023, algorithm 2. Decay skips vectors (biases, scales); `where(path, parameter)` selects others.
    Equals optax's.
    """
    decay = not_negative("lion", "weight_decay", weight_decay)
    constants = fraction("lion", "b1", b1), fraction("lion", "b2", b2)
    config = {"b1": b1, "b2": b2, "weight_decay": weight_decay, "where": where}
    return rule_optimizer(
        "lion",
        learning_rate,
        _lion_rule,
        constants,
        MomentumState,
        1,
        config,
        lion,
        weight_decay=decay,
        where=where,
    )


def _lion_rule(
    constants: tuple[float, float], lr: float, step: int, g: Array, u: Array, old_trace: Array, trace: Array
) -> None:
    b1, b2 = constants
    np.multiply(old_trace, b2, out=trace)
    trace += (1 - b2) * g
    np.multiply(g, 1 - b1, out=u)
    u += b1 * old_trace
    np.sign(u, out=u)
    u *= -lr


class RpropState(NamedTuple):
    """Updates made, the first size of a step, the size of each parameter's step, and the last gradients."""

    step: int
    learning_rate: float
    sizes: Moments
    last: Moments


def rprop(
    learning_rate: float = 1e-2,
    *,
    down: float = 0.5,
    up: float = 1.2,
    smallest: float = 1e-6,
    largest: float = 50.0,
) -> Optimizer:
    """Resilient descent, for full batches: each parameter moves against its gradient's sign by a size of its own.

    The size begins as `learning_rate`, grows by `up` where the gradient keeps its sign and shrinks by `down` where it
    has changed (there the parameter rests for one step and the gradient counts as 0). Riedmiller & Braun 1993, in the
    form without backtracking (iRprop- of Igel & Huesken 2000). Equals PyTorch's; optax moves by the update of the step
    before. Takes no schedule.
    """
    start = above_zero("rprop", "learning_rate", learning_rate)
    if not 0 < down < 1 < up:
        raise ValueError(f"rprop: expected 0 < down < 1 < up, got down={down!r} and up={up!r}")
    if not 0 < smallest <= start <= largest:
        raise ValueError(
            f"rprop: expected 0 < smallest <= learning_rate <= largest, got {smallest!r}, {start!r} and {largest!r}"
        )
    config = {"learning_rate": learning_rate, "down": down, "up": up, "smallest": smallest, "largest": largest}
    constants = float(down), float(up), float(smallest), float(largest)
    return Optimizer("rprop", bind(_rprop_init, start), bind(_rprop_update, constants), config, rprop)


def _rprop_init(start: float, params: Params) -> RpropState:
    return RpropState(0, start, filled(params, start), zeros(params))


def _rprop_update(
    constants: tuple[float, float, float, float], grads: Params, state: RpropState, params: Params
) -> tuple[Params, RpropState]:
    updates, (sizes, last) = elementwise(bind(_rprop_rule, constants), grads, params, state.sizes, state.last)
    return updates, RpropState(state.step + 1, state.learning_rate, sizes, last)


def _rprop_rule(
    constants: tuple[float, float, float, float],
    g: Array,
    u: Array,
    old_sizes: Array,
    old_last: Array,
    sizes: Array,
    last: Array,
) -> None:
    down, up, smallest, largest = constants
    agreement = np.sign(g) * np.sign(old_last)
    factor = np.where(agreement > 0, up, np.where(agreement < 0, down, 1.0)).astype(g.dtype, copy=False)
    np.multiply(old_sizes, factor, out=sizes)
    np.clip(sizes, smallest, largest, out=sizes)
    np.multiply(g, agreement >= 0, out=last)
    np.sign(last, out=u)
    u *= sizes
    np.negative(u, out=u)
