"""Optimizers: pairs `init(params) -> state` and `update(grads, state, params) -> (updates, state)`, the protocol of optax.

`apply_updates(params, updates)` adds. Elementwise rules are written once, on single arrays, and run over the
vector of all small parameters and over each large one; their moments are kept in that form (`moments_tree` shows them
as a tree). A `None` in the gradients means that the parameters there are not trained: they get no update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import attrs
import numpy as np

from fnn import tree
from fnn.contract import code
from fnn.schedules import Schedule, as_schedule
from fnn.types import EMPTY, Array, Params, bind

Init: TypeAlias = Callable[[Params], Any]
Update: TypeAlias = Callable[[Params, Any, Params], tuple[Params, Any]]
Where: TypeAlias = Callable[[str, Any], bool]


class GradientTransformation(Protocol):
    """What `train` takes as an optimizer: any pair of this form, fnn's or optax's."""

    @property
    def init(self) -> Init: ...
    @property
    def update(self) -> Update: ...


@attrs.frozen(eq=False, repr=False)
class Optimizer:
    """A pair of pure functions that turns gradients into updates."""

    kind: str
    init: Init
    update: Update
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return code(self)


def apply_updates(params: Params, updates: Any) -> Params:
    """`params + updates`, in the dtypes of the parameters. Leaves without an update stay the same objects.

    Raises `ValueError` where an update has another shape than its parameter, or none to go with.
    """
    if not isinstance(params, dict) and not isinstance(params, Mapping):
        return _add("the root", params, updates)
    new: dict[str, Any] = {}
    complete = len(updates) == len(params)
    for name, p in params.items():
        u = updates.get(name)
        if u is None:
            new[name] = p
            complete = False
        elif type(u) is np.ndarray and u.shape == p.shape and u.dtype is p.dtype and u.ndim:
            new[name] = q = p + u
            q.setflags(write=False)
        else:
            new[name] = _add(name, p, u) if type(p) is np.ndarray else apply_updates(p, u)
    if not complete and not updates.keys() <= params.keys():
        tree.check_same_structure(params, updates, ("the parameters", "the updates"))
    return new


def _add(name: str, p: Any, u: Any) -> Any:
    """One leaf the slow way: an update of another kind (a JAX array), another dtype, or a 0-d array."""
    p, u = np.asarray(p), np.asarray(u)
    if p.shape != u.shape:
        raise ValueError(f"apply_updates: {name}: the parameter has shape {p.shape}, its update {u.shape}")
    q = np.asarray(p + u, p.dtype)
    q.setflags(write=False)
    return q


# --- elementwise rules -----------------------------------------------------------------------------------------------

SMALL = 1 << 13
"""Leaves below this size share one vector, so that many small ones cost few calls."""

SLICE = 1 << 16
"""Larger leaves are worked on in slices of this size, a handful of which fit the second-level cache."""

Moments: TypeAlias = tuple[Array, ...]
"""A number for every parameter: the vector of all small leaves (sorted by name), then each large leaf by itself."""


def elementwise(
    rule: Callable[..., None], grads: Params, params: Params, *moments: Moments
) -> tuple[Params, tuple[Moments, ...]]:
    """The updates and the new moments that a rule on single arrays gives for all parameters.

    `rule(g, u, *old, *new)` reads the gradient g and the old moments and fills u (which may be g itself) and the new
    moments, arrays of one shape. Raises `ValueError` where the gradients differ from the parameters.
    """
    (small, *large), complete = _matched(grads, params)
    packed = [np.empty_like(small) for _ in moments]
    rule(small, small, *[moment[0] for moment in moments], *packed)
    updates, new = [small], [packed]
    for i, g in enumerate(large, 1):
        u, *parts = [np.empty(g.shape, g.dtype) for _ in range(1 + len(moments))]
        if g.size <= SLICE:
            rule(g, u, *[moment[i] for moment in moments], *parts)
        else:
            vectors = [a.reshape(-1) for a in (g, u, *[moment[i] for moment in moments], *parts)]
            for start in range(0, g.size, SLICE):
                rule(*[a[start : start + SLICE] for a in vectors])
        updates.append(u)
        new.append(parts)
    tree_of_updates = _assembled(updates, params)
    return tree_of_updates if complete else _pruned(tree_of_updates, grads), tuple(zip(*new))


def zeros(params: Params) -> Moments:
    """Moments that are 0."""
    (small, *large), _ = _matched(params, params)
    return np.zeros_like(small), *(np.zeros(a.shape, a.dtype) for a in large)


def moments_tree(moments: Moments, params: Params) -> Params:
    """Moments in the form of the parameters, to look at."""
    return _assembled(list(moments), params)


def _matched(grads: Params, params: Params) -> tuple[list[Array], bool]:
    """The gradients as `Moments` are laid out (the first array is new), and whether all are there or some are `None`.

    Zeros stand in for `None`.
    """
    small: list[Array] = []
    large: list[Array] = []
    try:
        _gather(grads, params, small, large)
        complete = True
    except (KeyError, TypeError, AttributeError):
        filled = tree.map(np.asarray, _filled(grads, params))
        tree.check_same_structure(params, filled, ("the parameters", "the gradients"))
        small, large, complete = [], [], False
        _gather(filled, tree.map(np.asarray, params), small, large)
    kinds = {leaf.dtype for leaf in small + large}
    if len(kinds) > 1:
        raise TypeError(f"expected parameters of one dtype, got {' and '.join(sorted(str(kind) for kind in kinds))}")
    start = [] if small else [np.zeros(0, large[0].dtype if large else np.float32)]
    return [np.concatenate(small or start, axis=None), *large], complete


def _gather(grads: Params, params: Params, small: list[Array], large: list[Array]) -> None:
    """Sorts the gradients into small and large ones, by sorted names; raises `KeyError` at the first difference."""
    if len(grads) != len(params):
        raise KeyError
    for name in sorted(params):
        g, p = grads[name], params[name]
        if type(g) is np.ndarray and g.shape == p.shape:
            (small if g.size < SMALL else large).append(g)
        else:
            _gather(g, p, small, large)


def _filled(grads: Any, params: Any) -> Any:
    if grads is None:
        return tree.zeros_like(params)
    if isinstance(params, Mapping) and isinstance(grads, Mapping):
        return {k: _filled(g, params[k]) if k in params else g for k, g in grads.items()}
    return grads


def _assembled(parts: list[Array], params: Params) -> Params:
    return _assemble(parts[0], 0, iter(parts[1:]), params)[0]


def _assemble(small: Array, start: int, large: Iterator[Array], params: Params) -> tuple[dict[str, Any], int]:
    new: dict[str, Any] = dict.fromkeys(params)
    for name in sorted(params):
        p = params[name]
        if type(p) is not np.ndarray:
            new[name], start = _assemble(small, start, large, p)
        elif p.size < SMALL:
            end = start + p.size
            new[name] = small[start:end] if p.ndim == 1 else small[start:end].reshape(p.shape)
            start = end
        else:
            new[name] = next(large)
    return new, start


def _pruned(updates: Any, grads: Any) -> Any:
    """The updates without those for which the gradients have `None`."""
    if not isinstance(grads, Mapping):
        return updates
    return {k: None if grads[k] is None else _pruned(u, grads[k]) for k, u in updates.items()}


# --- stochastic gradient descent -------------------------------------------------------------------------------------


class SgdState(NamedTuple):
    """Updates made, and the last learning rate."""

    step: int
    learning_rate: float


class MomentumState(NamedTuple):
    """Updates made, the last learning rate, and the decaying sum of the gradients."""

    step: int
    learning_rate: float
    trace: Moments


def sgd(learning_rate: float | Schedule, *, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent: `v = momentum v + g`, `update = -learning_rate v`.

    With Nesterov momentum the update is `-learning_rate (g + momentum v)` (Sutskever et al. 2013, as reformulated by
    Bengio et al. 2013, eq. 7).
    """
    rate = as_schedule("sgd", learning_rate)
    momentum = unit("sgd", "momentum", momentum)
    if nesterov and not momentum:
        raise ValueError("sgd: nesterov needs a momentum above 0")
    config = {"learning_rate": learning_rate, "momentum": momentum, "nesterov": nesterov}
    if not momentum:
        return Optimizer("sgd", bind(_sgd_init, rate), bind(_sgd_update, rate), config, sgd)
    return Optimizer(
        "sgd", bind(_momentum_init, rate), bind(_momentum_update, rate, momentum, nesterov), config, sgd
    )


def _sgd_init(rate: Schedule, params: Params) -> SgdState:
    return SgdState(0, float(rate(0)))


def _sgd_update(rate: Schedule, grads: Params, state: SgdState, params: Params) -> tuple[Params, SgdState]:
    lr = float(rate(state.step))
    return tree.map(bind(np.multiply, -lr), grads), SgdState(state.step + 1, lr)


def _momentum_init(rate: Schedule, params: Params) -> MomentumState:
    return MomentumState(0, float(rate(0)), zeros(params))


def _momentum_update(
    rate: Schedule, momentum: float, nesterov: bool, grads: Params, state: MomentumState, params: Params
) -> tuple[Params, MomentumState]:
    lr = float(rate(state.step))
    updates, (trace,) = elementwise(bind(_momentum_rule, momentum, nesterov, lr), grads, params, state.trace)
    return updates, MomentumState(state.step + 1, lr, trace)


def _momentum_rule(
    momentum: float, nesterov: bool, lr: float, g: Array, u: Array, old_trace: Array, trace: Array
) -> None:
    np.multiply(old_trace, momentum, out=trace)
    trace += g
    if nesterov:
        np.add(g, momentum * trace, out=u)
        u *= -lr
    else:
        np.multiply(trace, -lr, out=u)


# --- Adam ------------------------------------------------------------------------------------------------------------


class AdamState(NamedTuple):
    """Updates made, the last learning rate, and the running means of the gradients and of their squares."""

    step: int
    learning_rate: float
    mu: Moments
    nu: Moments


def adam(learning_rate: float | Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """`mu = b1 mu + (1 - b1) g`, `nu = b2 nu + (1 - b2) g**2`, `update = -lr mu' / (sqrt(nu') + eps)`.

    mu' and nu' are corrected for their start at zero: `mu' = mu / (1 - b1**t)`. Kingma & Ba 2015, algorithm 1.
    """
    config = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    return _adam("adam", learning_rate, AdamRule(b1, b2, eps, 0.0, None), config, adam)


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

    Decay skips vectors (biases, scales); `where(path, parameter)` selects other parameters.
    """
    config = {
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
        "where": where,
    }
    decay = not_negative("adamw", "weight_decay", weight_decay)
    return _adam("adamw", learning_rate, AdamRule(b1, b2, eps, decay, where), config, adamw)


class AdamRule(NamedTuple):
    """The constants of Adam."""

    b1: float
    b2: float
    eps: float
    weight_decay: float
    where: Where | None


def _adam(
    kind: str,
    learning_rate: float | Schedule,
    rule: AdamRule,
    config: Mapping[str, Any],
    build: Callable[..., Optimizer],
) -> Optimizer:
    rate = as_schedule(kind, learning_rate)
    unit(kind, "b1", rule.b1)
    unit(kind, "b2", rule.b2)
    not_negative(kind, "eps", rule.eps)
    return Optimizer(kind, bind(_adam_init, rate), bind(_adam_update, rate, rule), config, build)


def _adam_init(rate: Schedule, params: Params) -> AdamState:
    start = zeros(params)
    return AdamState(0, float(rate(0)), start, start)


def _adam_update(
    rate: Schedule, rule: AdamRule, grads: Params, state: AdamState, params: Params
) -> tuple[Params, AdamState]:
    step = state.step + 1
    lr = float(rate(state.step))
    numbers = rule.b1, rule.b2, rule.eps, lr, step
    updates, (mu, nu) = elementwise(bind(_adam_rule, numbers), grads, params, state.mu, state.nu)
    if rule.weight_decay:
        decay_into(updates, params, -lr * rule.weight_decay, rule.where or decays)
    return updates, AdamState(step, lr, mu, nu)


def _adam_rule(
    numbers: tuple[float, float, float, float, int],
    g: Array,
    u: Array,
    old_mu: Array,
    old_nu: Array,
    mu: Array,
    nu: Array,
) -> None:
    """-lr (mu / c1) / (sqrt(nu / c2) + eps) = -(lr sqrt(c2) / c1) mu / (sqrt(nu) + eps sqrt(c2)), c = 1 - b**step"""
    b1, b2, eps, lr, step = numbers
    root = math.sqrt(1 - b2**step)
    np.multiply(g, 1 - b1, out=u)
    np.multiply(old_mu, b1, out=mu)
    mu += u
    u *= u
    u *= (1 - b2) / (1 - b1) ** 2
    np.multiply(old_nu, b2, out=nu)
    nu += u
    np.sqrt(nu, out=u)
    u += eps * root
    np.divide(mu, u, out=u)
    u *= -lr * root / (1 - b1**step)


# --- weight decay ----------------------------------------------------------------------------------------------------


def decays(path: str, parameter: Any) -> bool:
    """What decays by default: matrices and kernels, not biases and scales."""
    return bool(parameter.ndim > 1)


def decay_into(updates: Params, params: Params, factor: float, where: Where, path: str = "") -> None:
    """Adds `factor * parameter` to the updates (which the caller has just allocated) of the selected parameters."""
    for name, p in params.items():
        u, here = updates[name], f"{path}/{name}" if path else name
        if u is None:
            continue
        if type(p) is not np.ndarray:
            decay_into(u, p, factor, where, here)
        elif where(here, p):
            u += factor * p


def add_decayed_weights(weight_decay: float, *, where: Where | None = None) -> Optimizer:
    """Adds `weight_decay p` to the gradient of every matrix, as an L2 penalty of `weight_decay / 2 |p|**2` would.

    Vectors (biases, scales) are left alone; `where(path, parameter)` selects other parameters.
    """
    decay = not_negative("add_decayed_weights", "weight_decay", weight_decay)
    return Optimizer(
        "add_decayed_weights",
        _no_state,
        bind(_decay_update, decay, where or decays),
        {"weight_decay": weight_decay, "where": where},
        add_decayed_weights,
    )


def _no_state(params: Params) -> tuple[()]:
    return ()


def _decay_update(decay: float, where: Where, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return _decayed("", decay, where, grads, params), state


def _decayed(path: str, decay: float, where: Where, grads: Params, params: Params) -> Params:
    new: dict[str, Any] = {}
    for name, g in grads.items():
        p, here = params[name], f"{path}/{name}" if path else name
        if g is None:
            new[name] = None
        elif type(p) is not np.ndarray:
            new[name] = _decayed(here, decay, where, g, p)
        elif where(here, p):
            new[name] = decayed = decay * p
            decayed += g
        else:
            new[name] = g
    return new


# --- composition -----------------------------------------------------------------------------------------------------


def chain(*transforms: GradientTransformation) -> Optimizer:
    """One after the other: each transform's updates are the next one's gradients. The state is a dict by kind."""
    if not transforms:
        raise ValueError("chain: expected at least one transform")
    names: list[str] = []
    for transform in transforms:
        stem = getattr(transform, "kind", "transform")
        taken = sum(name == stem or name.startswith(f"{stem}_") for name in names)
        names.append(f"{stem}_{taken}" if taken else stem)
    parts = tuple(zip(names, transforms))
    return Optimizer("chain", bind(_chain_init, parts), bind(_chain_update, parts), {"transforms": transforms}, chain)


Parts: TypeAlias = tuple[tuple[str, GradientTransformation], ...]


def _chain_init(parts: Parts, params: Params) -> dict[str, Any]:
    return {name: transform.init(params) for name, transform in parts}


def _chain_update(
    parts: Parts, grads: Params, state: Mapping[str, Any], params: Params
) -> tuple[Params, dict[str, Any]]:
    new: dict[str, Any] = {}
    for name, transform in parts:
        grads, new[name] = transform.update(grads, state[name], params)
    return grads, new


def learning_rate(state: Any) -> float | None:
    """The learning rate that an optimizer's state says it used last; `None` if it says none."""
    found = getattr(state, "learning_rate", None)
    if found is not None:
        return float(found)
    if isinstance(state, (Mapping, tuple)):
        parts = state.values() if isinstance(state, Mapping) else state
        rates = [rate for rate in (learning_rate(part) for part in parts) if rate is not None]
        return rates[-1] if rates else None
    return None


# --- arguments -------------------------------------------------------------------------------------------------------


def unit(who: str, name: str, value: float) -> float:
    """The value if it lies in [0, 1)."""
    if not (isinstance(value, (int, float)) and 0 <= value < 1):
        raise ValueError(f"{who}: expected {name} in [0, 1), got {value!r}")
    return float(value)


def not_negative(who: str, name: str, value: float) -> float:
    """The value if it is finite and at least 0."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{who}: expected a finite {name} of at least 0, got {value!r}")
    return float(value)
