"""The protocol of optimizers, its extension, `apply_updates`, and what a state tells.

An optimizer is a pair `init(params) -> state` and `update(grads, state, params) -> (updates, state)`, the protocol of
optax; `apply_updates(params, updates)` adds. A `None` in the gradients means that the parameters there are not trained:
they get no update.

Rules that need more than that (the loss, a second gradient, how many examples there were) have `update_with(grads,
state, params, context)` besides, which `make_step` calls where there is one. Nothing is remembered between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import attrs
import numpy as np

from fnn import tree
from fnn.contract import code
from fnn.recordable import live
from fnn.types import EMPTY, Params, bind

Init: TypeAlias = Callable[[Params], Any]
Update: TypeAlias = Callable[[Params, Any, Params], tuple[Params, Any]]
Where: TypeAlias = Callable[[str, Any], bool]
"""`(path, parameter) -> bool`: selects parameters."""


class GradientTransformation(Protocol):
    """What `train` takes as an optimizer: any pair of this form, fnn's or optax's."""

    @property
    def init(self) -> Init: ...
    @property
    def update(self) -> Update: ...


class Context(NamedTuple):
    """What a step knows besides the gradients."""

    value: Any
    """The loss of the batch."""
    examples: float
    """How many examples it is the mean of: the size of the batch, or the sum of their weights."""
    grad: Callable[[Params], Params]
    """The gradient of the same loss, of the same batch and with the same randomness, at other parameters."""


UpdateWith: TypeAlias = Callable[[Params, Any, Params, Context], tuple[Params, Any]]
Contextual: TypeAlias = Callable[[Params, Any, Params, Context | None], tuple[Params, Any]]
"""An update that is given the context where there is one."""


@attrs.frozen(eq=False, repr=False)
class Optimizer:
    """A pair of pure functions that turns gradients into updates."""

    kind: str
    init: Init
    update: Update
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None
    update_with: UpdateWith | None = None
    """`update` for those that can use, or need, more than the gradients; `None` for all others."""

    def __repr__(self) -> str:
        return code(self)


def wrapper(
    kind: str,
    init: Init,
    update: Contextual,
    inner: tuple[GradientTransformation, ...],
    config: Mapping[str, Any],
    build: Callable[..., Any],
    *,
    contextual: bool = False,
) -> Optimizer:
    """An optimizer made of others: it has an `update_with` if one of them has, or if it is `contextual` itself."""
    contextual = contextual or any(getattr(part, "update_with", None) is not None for part in inner)
    return Optimizer(kind, init, bind(_without, update), config, build, update if contextual else None)


def _without(update: Contextual, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return update(grads, state, params, None)


def updater(transform: GradientTransformation) -> Contextual:
    """The update of any transform, in the form that takes a context or `None`; `TypeError` for what is none."""
    if not (hasattr(transform, "init") and hasattr(transform, "update")):
        got = getattr(transform, "__name__", repr(transform))
        raise TypeError(f"expected an optimizer such as adam(1e-3), got {got}")
    update_with = getattr(transform, "update_with", None)
    if update_with is not None:
        return bind(_contextual, transform.update, update_with)
    return bind(_plain if isinstance(transform, Optimizer) else _foreign, transform.update)


def plain_update(transform: GradientTransformation) -> Update:
    """The update of any transform that takes no context, which understands `None` among the gradients."""
    return transform.update if isinstance(transform, Optimizer) else bind(_without, updater(transform))


def _plain(update: Update, grads: Params, state: Any, params: Params, context: Context | None) -> tuple[Params, Any]:
    return update(grads, state, params)


def _foreign(update: Update, grads: Params, state: Any, params: Params, context: Context | None) -> tuple[Params, Any]:
    """Of what is not fnn's own, such as optax's: to it, `None` among the gradients is another tree."""
    updates, state = update(with_zeros(grads, params), state, params)
    return without_zeros(updates, grads), state


def _contextual(
    update: Update, update_with: UpdateWith, grads: Params, state: Any, params: Params, context: Context | None
) -> tuple[Params, Any]:
    return update(grads, state, params) if context is None else update_with(grads, state, params, context)


def required(who: str, what: str, context: Context | None) -> Context:
    """The context, or the error for one that is missing."""
    if context is None:
        raise TypeError(
            f"{who}: needs {what}, which update(grads, state, params) does not have; train and make_step give it, "
            "or call update_with(grads, state, params, Context(value, examples, grad))"
        )
    return context


# --- gradients that are None -----------------------------------------------------------------------------------------


def with_zeros(grads: Any, params: Any) -> Any:
    """The gradients with zeros in the place of each `None`."""
    if grads is None:
        return tree.zeros_like(params)
    if isinstance(params, Mapping) and isinstance(grads, Mapping):
        return {k: with_zeros(g, params[k]) if k in params else g for k, g in grads.items()}
    return grads


def without_zeros(updates: Any, grads: Any) -> Any:
    """The updates without those for which the gradients have `None`."""
    if not isinstance(grads, Mapping):
        return updates
    return {k: None if grads[k] is None else without_zeros(u, grads[k]) for k, u in updates.items()}


# --- updates ---------------------------------------------------------------------------------------------------------


def apply_updates(params: Params, updates: Any) -> Params:
    """`params + updates`, in the dtypes of the parameters. Leaves without an update stay the same objects.

    Raises `ValueError` where an update has another shape than its parameter, or none to go with.
    """
    if type(params) is not dict and not isinstance(params, Mapping):
        return params if updates is None or updates is EMPTY else _add(params, updates)
    new: dict[str, Any] = {}
    complete = len(updates) == len(params)
    for name, p in params.items():
        u = updates.get(name)
        if isinstance(u, _ndarray) and (shape := u.shape) and shape == p.shape and u.dtype is p.dtype:
            new[name] = q = p + u
            q.setflags(False)
        elif u is None:
            new[name] = p
            complete = False
        else:
            new[name] = _add(p, u) if isinstance(p, _ndarray) else apply_updates(p, u)
    if not complete and not updates.keys() <= params.keys():
        tree.check_same_structure(params, updates, ("the parameters", "the updates"))
    return new


_ndarray = np.ndarray


def _add(p: Any, u: Any) -> Any:
    """One leaf the slow way: an update of another kind (a JAX array), another dtype, or a 0-d array."""
    p, u = np.asarray(p), np.asarray(u)
    if p.shape != u.shape:
        raise ValueError(f"apply_updates: a parameter has shape {p.shape}, its update {u.shape}")
    q = np.asarray(p + u, p.dtype)
    q.setflags(write=False)
    return q


def no_updates(params: Params) -> Any:
    """Updates that leave everything as it is."""
    return EMPTY if isinstance(params, Mapping) else None


def no_state(params: Params) -> tuple[()]:
    """The state of a transform that has none."""
    return ()


# --- what a state tells ----------------------------------------------------------------------------------------------


def learning_rate(state: Any) -> float | None:
    """The learning rate that an optimizer's state says it used last; `None` if it says none."""
    if hasattr(state, "dtype"):  # an array, of an average or a sum, tells nothing
        return None
    found = state.get("learning_rate") if isinstance(state, Mapping) else getattr(state, "learning_rate", None)
    if found is not None and not isinstance(found, (Mapping, tuple)):
        return live(float, found)
    if isinstance(state, (Mapping, tuple)):
        parts = state.values() if isinstance(state, Mapping) else state
        rates = [rate for rate in (learning_rate(part) for part in parts) if rate is not None]
        return rates[-1] if rates else None
    return None


def states(state: Any) -> Iterator[Any]:
    """Every record in an optimizer's state, the outer ones first."""
    if isinstance(state, Mapping):
        for part in state.values():
            yield from states(part)
    elif isinstance(state, tuple):
        if hasattr(state, "_fields"):
            yield state
        for part in state:
            yield from states(part)
