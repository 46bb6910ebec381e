"""Optimizers that divide each parameter's step by a running size of its gradients.

`g**2` and the like are meant number by number. A hat is the correction for the start at zero, `^mu = mu / (1 - b1**t)`,
where t counts updates from 1. `eps` stands outside the square root, as in the papers, unless said otherwise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fnn.check import above_zero, fraction, not_negative
from fnn.optimizers.protocol import Optimizer, Where
from fnn.optimizers.rules import Moments, rule_optimizer
from fnn.recordable import live
from fnn.schedules import Schedule
from fnn.types import Array

# --- AdaGrad, RMSProp, AdaDelta --------------------------------------------------------------------------------------


def adagrad(learning_rate: float | Schedule, *, initial: float = 0.0, eps: float = 1e-10) -> Optimizer:
    """`nu = nu + g**2` (from `initial`), `update = -lr g / (sqrt(nu) + eps)`. Duchi, Hazan & Singer 2011.

    Equals PyTorch's. optax begins at 0.1 and has eps (1e-7) inside the square root; the paper does neither.
    """
    constants = (above_zero("adagrad", "eps", eps),)
    start = not_negative("adagrad", "initial", initial)
    config = {"initial": initial, "eps": eps}
    return rule_optimizer(
        "adagrad", learning_rate, _adagrad_rule, constants, SquaresState, 1, config, adagrad, start=(start,)
    )


class SquaresState(NamedTuple):
    """Updates made, the last learning rate, and the sum or running mean of the squares of the gradients."""

    step: int
    learning_rate: float
    nu: Moments


def _adagrad_rule(constants: tuple[float], lr: float, step: int, g: Array, u: Array, old_nu: Array, nu: Array) -> None:
    np.multiply(g, g, out=nu)
    nu += old_nu
    root = np.sqrt(nu)
    root += constants[0]
    np.divide(g, root, out=u)
    u *= -lr


class RmsState(NamedTuple):
    """Updates made, the last learning rate, the running means of squares and gradients, and the momentum."""

    step: int
    learning_rate: float
    nu: Moments
    mu: Moments
    trace: Moments


def rmsprop(
    learning_rate: float | Schedule,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    centered: bool = False,
    momentum: float = 0.0,
) -> Optimizer:
    """`nu = decay nu + (1 - decay) g**2`, `v = momentum v + g / (sqrt(nu) + eps)`, `update = -lr v`.

    Tieleman & Hinton 2012, lecture 6.5. Centred, `nu - mu**2` stands for nu, with `mu = decay mu + (1 - decay) g`
    (Graves 2013, eq. 38 to 45). Equals PyTorch's; optax has eps inside the square root by default (`eps_in_sqrt=True`).
    """
    constants = (
        fraction("rmsprop", "decay", decay),
        above_zero("rmsprop", "eps", eps),
        fraction("rmsprop", "momentum", momentum),
    )
    config = {"decay": decay, "eps": eps, "centered": centered, "momentum": momentum}
    if centered:
        return rule_optimizer("rmsprop", learning_rate, _centered_rule, constants, RmsState, 3, config, rmsprop)
    if momentum:
        return rule_optimizer(
            "rmsprop", learning_rate, _rms_momentum_rule, constants, RmsMomentumState, 2, config, rmsprop
        )
    return rule_optimizer("rmsprop", learning_rate, _rms_rule, constants, SquaresState, 1, config, rmsprop)


class RmsMomentumState(NamedTuple):
    """Updates made, the last learning rate, the running mean of the squares, and the momentum."""

    step: int
    learning_rate: float
    nu: Moments
    trace: Moments


def _mean_into(mean: Array, old: Array, decay: float, value: Array) -> None:
    """`mean = decay old + (1 - decay) value`; the value is scratch afterwards."""
    value *= 1 - decay
    np.multiply(old, decay, out=mean)
    mean += value


def _rms_rule(
    constants: tuple[float, float, float], lr: float, step: int, g: Array, u: Array, old_nu: Array, nu: Array
) -> None:
    decay, eps, _ = constants
    scratch = g * g
    _mean_into(nu, old_nu, decay, scratch)
    np.sqrt(nu, out=scratch)
    scratch += eps
    np.divide(g, scratch, out=u)
    u *= -lr


def _rms_momentum_rule(
    constants: tuple[float, float, float],
    lr: float,
    step: int,
    g: Array,
    u: Array,
    old_nu: Array,
    old_trace: Array,
    nu: Array,
    trace: Array,
) -> None:
    _rms_rule(constants, -1.0, step, g, u, old_nu, nu)
    np.multiply(old_trace, constants[2], out=trace)
    trace += u
    np.multiply(trace, -lr, out=u)


def _centered_rule(
    constants: tuple[float, float, float],
    lr: float,
    step: int,
    g: Array,
    u: Array,
    old_nu: Array,
    old_mu: Array,
    old_trace: Array,
    nu: Array,
    mu: Array,
    trace: Array,
) -> None:
    decay, eps, momentum = constants
    scratch = g * g
    _mean_into(nu, old_nu, decay, scratch)
    np.copyto(scratch, g)
    _mean_into(mu, old_mu, decay, scratch)
    np.multiply(mu, mu, out=scratch)
    np.subtract(nu, scratch, out=scratch)
    np.maximum(scratch, 0.0, out=scratch)  # rounding can leave a variance of zero below zero
    np.sqrt(scratch, out=scratch)
    scratch += eps
    np.divide(g, scratch, out=scratch)
    np.multiply(old_trace, momentum, out=trace)
    trace += scratch
    np.multiply(trace, -lr, out=u)


class AdadeltaState(NamedTuple):
    """Updates made, the last learning rate, and the running means of the squares of gradients and of updates."""

    step: int
    learning_rate: float
    nu: Moments
    moved: Moments


def adadelta(learning_rate: float | Schedule = 1.0, *, decay: float = 0.9, eps: float = 1e-6) -> Optimizer:
    """`nu = decay nu + (1 - decay) g**2`, `d = g sqrt(moved + eps) / sqrt(nu + eps)`, `update = -lr d`.

    `moved` is the running mean of `d**2`, from the steps before. Zeiler 2012, algorithm 1 (there lr is 1). Equals
    PyTorch's and optax's.
    """
    constants = fraction("adadelta", "decay", decay), above_zero("adadelta", "eps", eps)
    config = {"decay": decay, "eps": eps}
    return rule_optimizer("adadelta", learning_rate, _adadelta_rule, constants, AdadeltaState, 2, config, adadelta)


def _adadelta_rule(
    constants: tuple[float, float],
    lr: float,
    step: int,
    g: Array,
    u: Array,
    old_nu: Array,
    old_moved: Array,
    nu: Array,
    moved: Array,
) -> None:
    decay, eps = constants
    scratch = g * g
    _mean_into(nu, old_nu, decay, scratch)
    np.add(old_moved, eps, out=scratch)
    scratch /= nu + eps
    np.sqrt(scratch, out=scratch)
    np.multiply(g, scratch, out=u)
    np.multiply(u, u, out=scratch)
    _mean_into(moved, old_moved, decay, scratch)
    u *= -lr


# --- Adam and its relatives ------------------------------------------------------------------------------------------


class AdamState(NamedTuple):
    """Updates made, the last learning rate, and the decaying sums (or means) of the gradients and of their squares."""

    step: int
    learning_rate: float
    mu: Moments
    nu: Moments


class AmsgradState(NamedTuple):
    """As `AdamState`, and the largest nu so far."""

    step: int
    learning_rate: float
    mu: Moments
    nu: Moments
    largest: Moments


Betas: TypeAlias = tuple[float, float, float]
"""b1, b2 and eps."""


def betas(kind: str, b1: float, b2: float, eps: float) -> Betas:
    """The constants of Adam, checked."""
    return fraction(kind, "b1", b1), fraction(kind, "b2", b2), above_zero(kind, "eps", eps)


def adam(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """`mu = b1 mu + (1 - b1) g`, `nu = b2 nu + (1 - b2) g**2`, `update = -lr ^mu / (sqrt(^nu) + eps)`.

    Kingma & Ba 2015, algorithm 1. Equals PyTorch's and optax's. (The state holds `mu / (1 - b1)` and `nu / (1 - b2)`,
    decaying sums instead of means, which spares two passes over the parameters.)
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    return rule_optimizer("adam", learning_rate, adam_rule, betas("adam", b1, b2, eps), AdamState, 2, config, adam)


def adamw(
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    where: Where | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay: `update = adam's - lr weight_decay p`. Loshchilov & Hutter 2019, algorithm 2.

    Decay skips vectors (biases, scales); `where(path, parameter)` selects other parameters. As in PyTorch and optax the
    decay is multiplied by the learning rate (in the paper only by its schedule).
    """
    decay = not_negative("adamw", "weight_decay", weight_decay)
    constants = betas("adamw", b1, b2, eps)
    config = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay, "where": where}
    return rule_optimizer(
        "adamw", learning_rate, adam_rule, constants, AdamState, 2, config, adamw, weight_decay=decay, where=where
    )


def root_of_share(b2: float, step: int) -> float:
    """`sqrt((1 - b2) / (1 - b2**t))`: what the root of a decaying sum of squares is multiplied by."""
    return math.sqrt((1 - b2) / (1 - b2**step))


def root_of_correction(b2: float, step: int) -> float:
    """`sqrt(1 - b2**t)`: what the root of a running mean of squares is divided by."""
    return math.sqrt(1 - b2**step)


def mean_rate(lr: float, b1: float, step: int) -> float:
    """`-lr (1 - b1) / (1 - b1**t)`: a decaying sum times this is `-lr` times the corrected mean."""
    return -lr * (1 - b1) / (1 - b1**step)


def adam_rate(lr: float, b1: float, b2: float, step: int) -> float:
    """`-lr (1 - b1) / (1 - b1**t) / root`."""
    return mean_rate(lr, b1, step) / root_of_share(b2, step)


def adam_eps(b2: float, eps: float, step: int) -> float:
    """`eps / root`."""
    return eps / root_of_share(b2, step)


def _sums_into(mu: Array, nu: Array, u: Array, b1: float, b2: float, g: Array, old_mu: Array, old_nu: Array) -> None:
    """`mu = b1 mu + g`, `nu = b2 nu + g**2`; u is scratch."""
    np.multiply(old_mu, b1, out=mu)
    mu += g
    np.multiply(g, g, out=u)
    np.multiply(old_nu, b2, out=nu)
    nu += u


def adam_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    """With the sums `m = b1 m + g`, `v = b2 v + g**2`, and `root = sqrt((1 - b2) / (1 - b2**t))`:

    `-lr ^mu / (sqrt(^nu) + eps) = -lr (1 - b1) / (1 - b1**t) / root m / (sqrt(v) + eps / root)`
    """
    b1, b2, eps = constants
    _sums_into(mu, nu, u, b1, b2, g, old_mu, old_nu)
    np.sqrt(nu, out=u)
    u += live(adam_eps, b2, eps, step)
    np.divide(mu, u, out=u)
    u *= live(adam_rate, lr, b1, b2, step)


def amsgrad(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam that divides by the largest nu so far. Reddi, Kale & Kumar 2018, algorithm 2.

    The largest of the uncorrected nu is taken, as in the paper, and corrected afterwards, as in PyTorch (the paper
    corrects nothing); optax takes the largest of the corrected ones, which the first few gradients dominate.
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    constants = betas("amsgrad", b1, b2, eps)
    return rule_optimizer("amsgrad", learning_rate, _amsgrad_rule, constants, AmsgradState, 3, config, amsgrad)


def _amsgrad_rule(
    constants: Betas,
    lr: float,
    step: int,
    g: Array,
    u: Array,
    old_mu: Array,
    old_nu: Array,
    old_largest: Array,
    mu: Array,
    nu: Array,
    largest: Array,
) -> None:
    b1, b2, eps = constants
    _sums_into(mu, nu, u, b1, b2, g, old_mu, old_nu)
    np.maximum(nu, old_largest, out=largest)
    np.sqrt(largest, out=u)
    u += live(adam_eps, b2, eps, step)
    np.divide(mu, u, out=u)
    u *= live(adam_rate, lr, b1, b2, step)


def adamax(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with the maximum norm: `nu = max(b2 nu, |g| + eps)`, `update = -lr ^mu / nu`. Kingma & Ba 2015, algorithm 2.

    Equals PyTorch's and optax's (in the paper there is no eps). The state holds `mu / (1 - b1)`.
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    constants = betas("adamax", b1, b2, eps)
    return rule_optimizer("adamax", learning_rate, _adamax_rule, constants, AdamState, 2, config, adamax)


def _adamax_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    b1, b2, eps = constants
    np.multiply(old_mu, b1, out=mu)
    mu += g
    np.absolute(g, out=u)
    u += eps
    np.multiply(old_nu, b2, out=nu)
    np.maximum(nu, u, out=nu)
    np.divide(mu, nu, out=u)
    u *= live(mean_rate, lr, b1, step)


def nadam(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with Nesterov momentum: `b1 mu / (1 - b1**(t + 1)) + (1 - b1) g / (1 - b1**t)` takes the place of ^mu.

    Dozat 2016, algorithm 2 with constant b1, as in optax. PyTorch lets b1 rise with the step, by a schedule that the
    paper recommends for one experiment and whose product would have to be kept in the state.
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    constants = betas("nadam", b1, b2, eps)
    return rule_optimizer("nadam", learning_rate, _nadam_rule, constants, AdamState, 2, config, nadam)


def _nadam_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    b1, b2, eps = constants
    np.multiply(old_mu, b1, out=mu)
    mu += g
    scratch = g * g
    np.multiply(old_nu, b2, out=nu)
    nu += scratch
    np.multiply(mu, live(_ahead, b1, step), out=scratch)
    np.multiply(g, live(_corrected, b1, step), out=u)
    u += scratch
    np.sqrt(nu, out=scratch)
    scratch += live(adam_eps, b2, eps, step)
    u /= scratch
    u *= live(_nadam_rate, lr, b1, b2, step)


def _ahead(b1: float, step: int) -> float:
    return b1 / (1 - b1 ** (step + 1))


def _corrected(b1: float, step: int) -> float:
    return 1 / (1 - b1**step)


def _nadam_rate(lr: float, b1: float, b2: float, step: int) -> float:
    return -lr * (1 - b1) / root_of_share(b2, step)


def radam(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with a rectified start: with `r_inf = 2 / (1 - b2) - 1` and `r = r_inf - 2 t b2**t / (1 - b2**t)`,

    `update = -lr ^mu` while r <= 5, then Adam's times `sqrt((r - 4)(r - 2) r_inf / ((r_inf - 4)(r_inf - 2) r))`.
    Liu et al. 2020, algorithm 2. The paper's bound of 4 is 5 in its authors' code, in PyTorch and in optax. As in
    optax, eps is added to sqrt(^nu); PyTorch adds it before the correction.
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    constants = betas("radam", b1, b2, eps)
    return rule_optimizer("radam", learning_rate, _radam_rule, constants, AdamState, 2, config, radam)


def _radam_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    b1, b2, eps = constants
    _sums_into(mu, nu, u, b1, b2, g, old_mu, old_nu)
    np.sqrt(nu, out=u)
    u *= live(_is_rectified, b2, step)
    u += live(_radam_eps, b2, eps, step)
    np.divide(mu, u, out=u)
    u *= live(_radam_rate, lr, b1, b2, step)


def _rectification(b2: float, step: int) -> float:
    """The factor of Adam's step, 0 while r <= 5: there the divisor is 1."""
    limit = 2 / (1 - b2) - 1
    r = limit - 2 * step * b2**step / (1 - b2**step)
    return math.sqrt((r - 4) * (r - 2) * limit / ((limit - 4) * (limit - 2) * r)) if r > 5 else 0.0


def _is_rectified(b2: float, step: int) -> float:
    return 1.0 if _rectification(b2, step) else 0.0


def _radam_eps(b2: float, eps: float, step: int) -> float:
    return adam_eps(b2, eps, step) if _rectification(b2, step) else 1.0


def _radam_rate(lr: float, b1: float, b2: float, step: int) -> float:
    factor = _rectification(b2, step)
    return adam_rate(lr * factor, b1, b2, step) if factor else mean_rate(lr, b1, step)


def adabelief(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16) -> Optimizer:
    """Adam that divides by the surprise: `nu = b2 nu + (1 - b2) (g - mu)**2 + eps`.

    `update = -lr ^mu / (sqrt(^nu) + eps)`. Zhuang et al. 2020, algorithm 2; equals optax's with its default constants.
    """
    config: dict[str, Any] = {"b1": b1, "b2": b2, "eps": eps}
    constants = betas("adabelief", b1, b2, eps)
    return rule_optimizer("adabelief", learning_rate, _adabelief_rule, constants, AdamState, 2, config, adabelief)


def _adabelief_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    b1, b2, eps = constants
    scratch = g.copy()
    _mean_into(mu, old_mu, b1, scratch)
    np.subtract(g, mu, out=scratch)
    scratch *= scratch
    _mean_into(nu, old_nu, b2, scratch)
    nu += eps
    _corrected_into(u, constants, lr, step, mu, nu)


def _corrected_into(u: Array, constants: Betas, lr: float, step: int, mu: Array, nu: Array) -> None:
    """`-lr ^mu / (sqrt(^nu) + eps)` from running means."""
    b1, b2, eps = constants
    root = live(root_of_correction, b2, step)
    np.sqrt(nu, out=u)
    u += eps * root
    np.divide(mu, u, out=u)
    u *= live(_corrected, b1, step) * (-lr * root)


def yogi(
    learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3, initial: float = 1e-6
) -> Optimizer:
    """Adam whose nu grows additively: `nu = nu - (1 - b2) sign(nu - g**2) g**2`. Zaheer et al. 2018, algorithm 2.

    nu begins as `initial` and mu as 0, as in the paper; optax begins both as 1e-6, which moves parameters without a
    gradient. The hats on mu and nu are optax's too (the paper has none).
    """
    config = {"b1": b1, "b2": b2, "eps": eps, "initial": initial}
    start, constants = not_negative("yogi", "initial", initial), betas("yogi", b1, b2, eps)
    return rule_optimizer("yogi", learning_rate, _yogi_rule, constants, AdamState, 2, config, yogi, start=(0.0, start))


def _yogi_rule(
    constants: Betas, lr: float, step: int, g: Array, u: Array, old_mu: Array, old_nu: Array, mu: Array, nu: Array
) -> None:
    b1, b2, _ = constants
    scratch = g.copy()
    _mean_into(mu, old_mu, b1, scratch)
    np.multiply(g, g, out=scratch)
    np.subtract(old_nu, scratch, out=nu)
    np.sign(nu, out=nu)
    nu *= scratch
    nu *= b2 - 1
    nu += old_nu
    _corrected_into(u, constants, lr, step, mu, nu)
