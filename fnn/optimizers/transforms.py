"""Transforms of gradients and updates, and `chain`, which puts them one after the other.

Before the optimizer a transform is given gradients, after it updates: `chain(clip_by_global_norm(1.0), adam(1e-3))`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fnn import tree
from fnn.check import above_zero, not_negative
from fnn.optimizers.descent import rprop
from fnn.optimizers.protocol import (
    Context,
    Contextual,
    GradientTransformation,
    Optimizer,
    Update,
    Where,
    no_state,
    no_updates,
    plain_update,
    updater,
    wrapper,
)
from fnn.optimizers.rules import check_gradients, check_selects, decays, leaf_norm, leafwise, scaled
from fnn.random import Key
from fnn.recordable import live, unexpected
from fnn.schedules import Schedule, rate_at
from fnn.types import Array, Params, bind

# --- composition -----------------------------------------------------------------------------------------------------


def chain(*transforms: GradientTransformation) -> Optimizer:
    """One after the other: each transform's updates are the next one's gradients. The state is a dict by kind.

    Something in it has to go downhill: an optimizer, or `scale` by a negative number. What changes gradients (clipping,
    weight decay as a penalty) stands before it: `chain(clip_by_global_norm(1.0), add_decayed_weights(1e-4), sgd(0.1))`.
    """
    if not transforms:
        raise ValueError("chain: expected at least one transform")
    names: list[str] = []
    for transform in transforms:
        stem = getattr(transform, "kind", "transform")
        taken = sum(name == stem or name.startswith(f"{stem}_") for name in names)
        names.append(f"{stem}_{taken}" if taken else stem)
    init = bind(_chain_init, tuple(zip(names, transforms)))
    config = {"transforms": transforms}
    with_context = bind(_chain_update_with, tuple(zip(names, map(updater, transforms))))
    made = wrapper("chain", init, with_context, transforms, config, chain)
    if made.update_with is not None:
        return made
    plain = bind(_chain_update, tuple((name, plain_update(transform)) for name, transform in zip(names, transforms)))
    return Optimizer("chain", init, plain, config, chain)


def _chain_init(parts: tuple[tuple[str, GradientTransformation], ...], params: Params) -> dict[str, Any]:
    return {name: transform.init(params) for name, transform in parts}


def _chain_update(
    parts: tuple[tuple[str, Update], ...], grads: Params, state: Mapping[str, Any], params: Params
) -> tuple[Params, dict[str, Any]]:
    new: dict[str, Any] = {}
    for k, (name, update) in enumerate(parts):
        grads, new[name] = update(_complete(grads, params) if k else grads, state[name], params)
    return grads, new


def _complete(grads: Any, params: Any) -> Any:
    """Updates with `None` where one has left out what it does not move, which is how transforms know it."""
    if not isinstance(params, Mapping) or not isinstance(grads, Mapping):
        return grads
    if _is_whole(grads, params) or grads.keys() - params.keys():
        return grads
    return {name: _complete(grads.get(name), p) for name, p in params.items()}


def _is_whole(grads: Any, params: Any) -> bool:
    """Whether nothing is left out: the quick answer for nearly all updates."""
    for name, p in params.items():
        g = grads.get(name)
        if type(g) is dict:
            if type(p) is not dict or not _is_whole(g, p):
                return False
        elif not isinstance(g, np.ndarray):
            return False
    return len(grads) == len(params)


def _chain_update_with(
    parts: tuple[tuple[str, Contextual], ...],
    grads: Params,
    state: Mapping[str, Any],
    params: Params,
    context: Context | None,
) -> tuple[Params, dict[str, Any]]:
    new: dict[str, Any] = {}
    for k, (name, update) in enumerate(parts):
        own = context
        if k:
            grads = _complete(grads, params)
            own = context and context._replace(grad=bind(_grad_through, parts[:k], state, context))
        grads, new[name] = update(grads, state[name], params, own)
    return grads, new


def _grad_through(
    parts: tuple[tuple[str, Contextual], ...], state: Mapping[str, Any], context: Context, params: Params
) -> Params:
    """The gradient at other parameters, as it comes out of the first parts of a chain."""
    grads = context.grad(params)
    for name, update in parts:
        grads = _complete(update(grads, state[name], params, context)[0], params)
    return grads


# --- each leaf by itself, without a state ----------------------------------------------------------------------------

Leafwise: TypeAlias = Callable[[str, Array, Array], Any]


def _transform(kind: str, f: Leafwise, config: Mapping[str, Any], build: Callable[..., Optimizer]) -> Optimizer:
    """The transform `f(path, g, p)` of each leaf."""
    return Optimizer(kind, no_state, bind(_transform_update, f), config, build)


def _transform_update(f: Leafwise, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return leafwise(f, grads, params), state


def scale(factor: float) -> Optimizer:
    """Multiplies by a number, which may be negative: `chain(momentum..., scale(-0.1))` descends."""
    if not math.isfinite(factor):
        raise ValueError(f"scale: expected a finite factor, got {factor!r}")
    return Optimizer("scale", no_state, bind(_scale_update, float(factor)), {"factor": factor}, scale)


def _scale_update(factor: float, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return scaled(factor, grads, params), state


class StepState(NamedTuple):
    """Updates made."""

    step: int


def scale_by_schedule(schedule: Schedule) -> Optimizer:
    """Multiplies by the schedule's value, with its sign."""
    if not callable(schedule):
        raise TypeError(f"scale_by_schedule: expected a schedule such as cosine(1.0, steps=100), got {schedule!r}")
    config = {"schedule": schedule}
    return Optimizer("scale_by_schedule", _no_steps, bind(_schedule_update, schedule), config, scale_by_schedule)


def _no_steps(params: Params) -> StepState:
    return StepState(0)


def _schedule_update(schedule: Schedule, grads: Params, state: StepState, params: Params) -> tuple[Params, StepState]:
    return scaled(rate_at(schedule, state.step), grads, params), StepState(state.step + 1)


def add_decayed_weights(weight_decay: float, *, where: Where | None = None) -> Optimizer:
    """Adds `weight_decay p` to the gradient of every matrix, as an L2 penalty of `weight_decay / 2 |p|**2` would.

    Vectors (biases, scales) are left alone; `where(path, parameter)` selects other parameters.
    """
    decay = not_negative("add_decayed_weights", "weight_decay", weight_decay)
    config = {"weight_decay": weight_decay, "where": where}
    init, update = bind(_decay_init, where), bind(_decay_update, decay, where or decays)
    return Optimizer("add_decayed_weights", init, update, config, add_decayed_weights)


def _decay_init(where: Where | None, params: Params) -> tuple[()]:
    check_selects("add_decayed_weights", where, params)
    return ()


def _decay_update(decay: float, where: Where, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    try:
        return _decayed("", decay, where, grads, params), state
    except (KeyError, TypeError, AttributeError, ValueError):
        check_gradients(grads, params)
        raise


def _decayed(path: str, decay: float, where: Where, grads: Any, params: Any) -> Any:
    if grads is None:
        return None
    if type(params) is not dict and not isinstance(params, Mapping):
        return grads + decay * params if where(path, params) else grads
    if len(grads) != len(params):
        raise ValueError("the trees have different numbers of children")
    new: dict[str, Any] = {}
    for name, p in params.items():
        g, here = grads[name], f"{path}/{name}" if path else name
        if not isinstance(p, np.ndarray) or not isinstance(g, np.ndarray):
            new[name] = _decayed(here, decay, where, g, p)
        elif g.shape != p.shape:
            raise ValueError("a gradient has another shape than its parameter")
        elif where(here, p):
            new[name] = decayed = decay * p
            decayed += g
        else:
            new[name] = g
    return new


def centralize() -> Optimizer:
    """Subtracts from the gradient of a matrix or kernel its mean over all axes but the last. Yong et al. 2020.

    So every output's incoming weights keep their mean. (Our last axis is the output's; optax, for the same purpose in
    other layouts, keeps the first.) Vectors are left alone.
    """
    return _transform("centralize", _centralized, {}, centralize)


def _centralized(path: str, g: Array, p: Array) -> Array:
    if g.ndim < 2:
        return g
    centred: Array = g - g.mean(tuple(range(g.ndim - 1)), keepdims=True)
    return centred


# --- clipping --------------------------------------------------------------------------------------------------------


def clip_by_value(limit: float) -> Optimizer:
    """Every number is brought into `[-limit, limit]`."""
    limit = above_zero("clip_by_value", "limit", limit)
    return _transform("clip_by_value", bind(_clip_value, limit), {"limit": limit}, clip_by_value)


def _clip_value(limit: float, path: str, g: Array, p: Array) -> Array:
    return np.clip(g, -limit, limit)


def clip_by_global_norm(limit: float) -> Optimizer:
    """All gradients together are scaled by `limit / norm` where their Euclidean norm exceeds the limit.

    Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """
    limit = above_zero("clip_by_global_norm", "limit", limit)
    update = bind(_clip_global, limit)
    return Optimizer("clip_by_global_norm", no_state, update, {"limit": limit}, clip_by_global_norm)


def _clip_global(limit: float, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return scaled(live(_reduction, limit, global_norm(grads)), grads, params), state


def _reduction(limit: float, norm: float) -> float:
    """What brings a norm down to the limit; 1 where it is not above it."""
    return limit / norm if norm > limit else 1.0


def global_norm(grads: Params) -> float:
    """The Euclidean norm of all numbers of a tree, each leaf's computed in its own dtype."""
    return live(_norm, *tree.leaves(grads))


def _norm(*leaves: Any) -> float:
    return math.hypot(*[leaf_norm(np.asarray(g)) for g in leaves])


def clip_by_block_rms(limit: float) -> Optimizer:
    """Each leaf is scaled by `limit / rms` where the root of the mean of its squares exceeds the limit.

    Shazeer & Stern 2018, section 6.
    """
    limit = above_zero("clip_by_block_rms", "limit", limit)
    return _transform("clip_by_block_rms", bind(_clip_block, limit), {"limit": limit}, clip_by_block_rms)


def _clip_block(limit: float, path: str, g: Array, p: Array) -> Array:
    return g * live(_block_reduction, limit, g)


def _block_reduction(limit: float, g: Array) -> float:
    return _reduction(limit, leaf_norm(g) / math.sqrt(max(1, g.size)))


def adaptive_clip(limit: float = 0.01, *, eps: float = 1e-3) -> Optimizer:
    """Each output's gradient is scaled to `|g| <= limit max(|p|, eps)`. Brock et al. 2021, eq. 3.

    The norms are taken over all axes but the last for matrices and kernels, and of a vector as a whole; as in optax for
    matrices of more than one row and kernels over images.
    """
    limit, eps = above_zero("adaptive_clip", "limit", limit), above_zero("adaptive_clip", "eps", eps)
    config = {"limit": limit, "eps": eps}
    return _transform("adaptive_clip", bind(_clip_adaptive, limit, eps), config, adaptive_clip)


def _clip_adaptive(limit: float, eps: float, path: str, g: Array, p: Array) -> Array:
    own, most = _unit_norms(g), _unit_norms(p)
    most = np.maximum(most, eps) * limit
    factor: Array = most / np.maximum(own, most)
    return g * factor


def _unit_norms(a: Array) -> Array:
    axes = tuple(range(a.ndim - 1)) if a.ndim > 1 else None
    largest = np.abs(a).max(axes, keepdims=True, initial=0)
    ratio = a / np.where(largest > 0, largest, 1)  # whose squares have a place in the dtype
    norms: Array = np.sqrt(np.square(ratio).sum(axes, keepdims=True)) * largest
    return norms


# --- noise -----------------------------------------------------------------------------------------------------------


def add_noise(variance: float, *, decay: float = 0.55, key: Key = Key(0)) -> Optimizer:
    """Adds normal noise of variance `variance / (1 + t)**decay` to every number. Neelakantan et al. 2015, eq. 1.

    The noise of a step is a function of the key, the number of the step and the path of the parameter.
    """
    not_negative("add_noise", "decay", decay)
    not_negative("add_noise", "variance", variance)
    if not isinstance(key, Key):
        raise TypeError(f"add_noise: expected key to be a Key, got {key!r}")
    config = {"variance": variance, "decay": decay, "key": key}
    return Optimizer("add_noise", _no_steps, bind(_noise_update, variance, decay, key), config, add_noise)


def _noise_update(
    variance: float, decay: float, key: Key, grads: Params, state: StepState, params: Params
) -> tuple[Params, StepState]:
    deviation = live(_deviation, variance, decay, state.step)
    noisy = leafwise(bind(_noisy, deviation, live(_noise_key, key, state.step)), grads, params)
    return noisy, StepState(state.step + 1)


def _noise_key(key: Key, step: int) -> Key:
    return key.fold_in("noise").fold_in(step)


def _deviation(variance: float, decay: float, step: int) -> float:
    return math.sqrt(variance / (1.0 + step) ** decay)


def _noisy(deviation: float, key: Key, path: str, g: Array, p: Array) -> Array:
    noise = np.asarray(key.fold_in(path).generator().standard_normal(g.shape), g.dtype)
    return g + deviation * noise


# --- gradients that are not finite -----------------------------------------------------------------------------------


def check_finite() -> Optimizer:
    """Passes gradients on; raises `FloatingPointError` naming the first leaf that has an infinity or NaN."""
    return _transform("check_finite", _checked, {}, check_finite)


def _checked(path: str, g: Array, p: Array) -> Array:
    if unexpected(~np.isfinite(g).all()):
        bad = int(g.size - np.isfinite(g).sum())
        raise FloatingPointError(f"check_finite: {bad} of {g.size} numbers are not finite in {path or 'the gradient'}")
    return g


def _finite(g: Any) -> Any:
    return np.isfinite(g).all()


class ZeroedState(NamedTuple):
    """Updates made, and how many numbers were not finite in all of them."""

    step: int
    zeroed: int


def zero_nonfinite() -> Optimizer:
    """Puts 0 in the place of every infinity and NaN; the state counts them (`zeroed`)."""
    return Optimizer("zero_nonfinite", _none_zeroed, _zero_update, {}, zero_nonfinite)


def _none_zeroed(params: Params) -> ZeroedState:
    return ZeroedState(0, 0)


def _zero_update(grads: Params, state: ZeroedState, params: Params) -> tuple[Params, ZeroedState]:
    bad = live(_count_nonfinite, *tree.leaves(grads))
    cleaned = leafwise(_cleaned, grads, params)
    return cleaned, ZeroedState(state.step + 1, state.zeroed + bad)


def _count_nonfinite(*leaves: Any) -> int:
    return sum(int(np.size(g) - np.isfinite(g).sum()) for g in leaves)


def _cleaned(path: str, g: Array, p: Array) -> Array:
    return np.where(np.isfinite(g), g, 0.0)


class SkippedState(NamedTuple):
    """Updates skipped in all, and in a row until now, and the optimizer's state."""

    skipped: int
    in_a_row: int
    inner: Any


def skip_nonfinite(opt: GradientTransformation, *, most: int | None = None) -> Optimizer:
    """No update, and no change of the optimizer's state, where a gradient has an infinity or NaN; counted in the state.

    Raises `FloatingPointError` when more than `most` updates in a row would be skipped.
    """
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
        raise ValueError(f"skip_nonfinite: expected most to be an integer of at least 0, got {most!r}")
    config = {"opt": opt, "most": most}
    return wrapper(
        "skip_nonfinite", bind(_skip_init, opt), bind(_skip_update, most, updater(opt)), (opt,), config, skip_nonfinite
    )


def _skip_init(opt: GradientTransformation, params: Params) -> SkippedState:
    return SkippedState(0, 0, opt.init(params))


def _skip_update(
    most: int | None,
    update: Contextual,
    grads: Params,
    state: SkippedState,
    params: Params,
    context: Context | None,
) -> tuple[Params, SkippedState]:
    found = grads
    if _all_finite(grads):
        found, inner = update(grads, state.inner, params, context)
        if context is None or _all_finite(found):  # gradients at other parameters may have gone into them
            return found, SkippedState(state.skipped, 0, inner)
    check_gradients(grads, params)
    if most is not None and state.in_a_row >= most:
        bad = next(path for path, g in tree.items(found) if not _finite(g))
        raise FloatingPointError(
            f"skip_nonfinite: the gradient of {bad or 'the parameter'} is not finite, "
            f"{state.in_a_row + 1} times in a row"
        )
    return no_updates(params), SkippedState(state.skipped + 1, state.in_a_row + 1, state.inner)


def _all_finite(values: Params) -> bool:
    return live(_all, *[_finite(g) for g in tree.leaves(values)])


def _all(*flags: Any) -> bool:
    return all(map(bool, flags))


# --- hyper-parameters in the state -----------------------------------------------------------------------------------


class InjectState(NamedTuple):
    """Updates made, the values of the hyper-parameters in the last one, and the optimizer's state."""

    step: int
    values: dict[str, float]
    inner: Any


BETAS = {"b1", "b2"}

def inject(build: Callable[..., GradientTransformation], /, **hyper: Any) -> Optimizer:
    """An optimizer whose numbers can be scheduled, read from its state, and changed there between steps.

    `inject(adamw, learning_rate=cosine(...), weight_decay=1e-2)`: schedules are evaluated at every step; numbers stand
    in the state, `state.values["weight_decay"]`, and are taken from there. Other arguments are passed on, and so are
    whole numbers such as `every` (announced as int), and b1 and b2, which cannot change: moments are kept as sums that
    belong to them. `rprop`, whose rate is where its sizes begin, is refused.
    """
    if build is rprop:
        raise ValueError("inject: rprop reads its numbers at the start alone")
    schedules = {name: value for name, value in hyper.items() if name != "where" and callable(value)}
    if fixed_here := BETAS & schedules.keys():
        raise ValueError(f"inject: {', '.join(sorted(fixed_here))}: expected a number, since moments belong to it")
    numbers = {
        name: float(value)
        for name, value in hyper.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in BETAS | _counts(build, hyper)
    }
    fixed = {name: value for name, value in hyper.items() if name not in schedules and name not in numbers}
    if not schedules and not numbers:
        raise ValueError(f"inject: expected at least one number or schedule for {_name(build)}")
    made = _built(build, fixed, {**numbers, **{name: float(schedule(0)) for name, schedule in schedules.items()}})
    return wrapper(
        "inject",
        bind(_inject_init, made, numbers, schedules),
        bind(_inject_update, build, fixed, schedules),
        (made,),
        {"build": build, "hyper": hyper},
        inject,
    )


def _counts(build: Callable[..., Any], hyper: Mapping[str, Any]) -> set[str]:
    """The options that are whole numbers: those that are announced as such, or have their names."""
    from inspect import signature

    found = signature(build).parameters
    kinds = {name: getattr(found[name].annotation, "__name__", str(found[name].annotation)) for name in found}
    announced = {name for name in hyper if "int" in kinds.get(name, "") and "float" not in kinds[name]}
    usual = {"every", "start", "patience", "cooldown", "iterations", "factor_from", "most"} & hyper.keys()
    return announced | {name for name in usual if "float" not in kinds.get(name, "")}


def _built(
    build: Callable[..., GradientTransformation], fixed: Mapping[str, Any], values: Mapping[str, float]
) -> GradientTransformation:
    """The optimizer with these numbers. A momentum of 0 keeps its trace: it may be another one in the next step."""
    if "momentum" in values:
        values = {**values, "momentum": live(_not_zero, values["momentum"])}
    return build(**fixed, **values)


def _not_zero(value: float) -> float:
    return value or sys.float_info.min


def _name(build: Callable[..., Any]) -> str:
    return getattr(build, "__name__", repr(build))


def _inject_init(
    made: GradientTransformation, numbers: Mapping[str, float], schedules: Mapping[str, Schedule], params: Params
) -> InjectState:
    return InjectState(0, {**numbers, **_values(schedules, 0)}, made.init(params))


def _values(schedules: Mapping[str, Schedule], step: int) -> dict[str, float]:
    return {name: rate_at(schedule, step) for name, schedule in schedules.items()}


def _inject_update(
    build: Callable[..., GradientTransformation],
    fixed: Mapping[str, Any],
    schedules: Mapping[str, Schedule],
    grads: Params,
    state: InjectState,
    params: Params,
    context: Context | None,
) -> tuple[Params, InjectState]:
    values = {**state.values, **_values(schedules, state.step)}
    updates, inner = updater(_built(build, fixed, values))(grads, state.inner, params, context)
    return updates, InjectState(state.step + 1, values, inner)
