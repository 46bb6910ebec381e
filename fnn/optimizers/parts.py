"""Different rules for different parameters: freezing some, and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fnn import tree
from fnn.optimizers.protocol import Context, Contextual, GradientTransformation, Optimizer, Where, updater, wrapper
from fnn.optimizers.rules import check_gradients, check_selects
from fnn.tree import join
from fnn.types import EMPTY, Params, bind


def freeze(opt: GradientTransformation, where: Where) -> Optimizer:
    """The optimizer for all parameters but those that `where(path, parameter)` selects.

    Those get no update, so that they stay the same objects, and the optimizer keeps nothing for them.

        freeze(adam(1e-3), fnn.optimizers.at("dense_0"))

    Raises `ValueError` from `init` where nothing is selected.
    """
    parts: Parts = ((where, "frozen", None), (None, "trained", opt))
    return grouped("freeze", parts, {"opt": opt, "where": where}, freeze)


def partition(*groups: tuple[Where, GradientTransformation], rest: GradientTransformation | None = None) -> Optimizer:
    """Groups of parameters with an optimizer each: `(where, optimizer)`; what no group selects goes to `rest`.

    A parameter belongs to the first group that selects it; `rest` may be left with nothing.

        partition((at("*/bias"), sgd(1e-2)), (at("head"), adam(1e-2)), rest=adam(1e-3))

    Raises `ValueError` from `init` where a group selects nothing (or nothing that is left), and where there is no
    `rest` and a parameter is in no group.
    """
    if not groups or not all(isinstance(group, tuple) and len(group) == 2 for group in groups):
        raise ValueError("partition: expected groups (where, optimizer), such as (at('head'), adam(1e-3))")
    named: Parts = tuple((where, f"group_{i}", opt) for i, (where, opt) in enumerate(groups))
    parts = named if rest is None else (*named, (None, "rest", rest))
    return grouped("partition", parts, {"groups": groups, "rest": rest}, partition)


Parts: TypeAlias = tuple[tuple[Where | None, str, GradientTransformation | None], ...]
"""For each part of the parameters the predicate (`None` takes all that is left), the name, and the optimizer."""

Updaters: TypeAlias = tuple[tuple[Where | None, str, Contextual | None], ...]


def grouped(
    kind: str, parts: Parts, config: Mapping[str, Any], build: Callable[..., Optimizer], *, strict: bool = True
) -> Optimizer:
    """The optimizer with these parts; `strict` if each predicate must select something."""
    inner = tuple(opt for _, _, opt in parts if opt is not None)
    update = bind(_update, _with_updaters(parts))
    return wrapper(kind, bind(_init, kind, strict, parts), update, inner, config, build)


def _with_updaters(parts: Parts) -> Updaters:
    return tuple((where, name, None if opt is None else updater(opt)) for where, name, opt in parts)


def _init(who: str, strict: bool, parts: Parts, params: Params) -> dict[str, Any]:
    state: dict[str, Any] = {}
    left = params
    for where, name, opt in parts:
        if strict:
            check_selects(who, where, params)
        part, left = _split(where, left)
        if strict and where is not None and not tree.leaves(part):
            raise ValueError(f"{who}: nothing is left for {name}: what it selects belongs to groups before it")
        if opt is not None:
            state[name] = opt.init(part)
    if missing := [path for path, _ in tree.items(left)]:
        raise ValueError(f"{who}: no group selects {', '.join(missing[:8])}; give rest= an optimizer, or freeze them")
    return state


def _update(
    parts: Updaters, grads: Params, state: Mapping[str, Any], params: Params, context: Context | None
) -> tuple[Params, dict[str, Any]]:
    new: dict[str, Any] = {}
    updates: Any = EMPTY
    left = params
    for where, name, update in parts:
        part, left = _split(where, left)
        if update is None:
            continue
        own = None if context is None else context._replace(grad=bind(_grad_of_part, context.grad, params, part))
        moved, new[name] = update(_restricted(grads, part, grads, params), state[name], part, own)
        if part is params or not _is_empty(part):
            updates = moved if updates is EMPTY else tree.merge(updates, moved)
    _check_names(grads, params)
    return updates, new


def _grad_of_part(grad: Any, params: Params, part: Params, at_part: Params) -> Any:
    """The gradient of one group at other values of its own parameters."""
    whole = grad(overlaid(params, at_part))
    return _restricted(whole, part, whole, params)


def _split(where: Where | None, params: Any) -> tuple[Any, Any]:
    """The parameters that are selected, and the others."""
    if where is None:
        return params, EMPTY
    if not isinstance(params, Mapping):
        return (params, EMPTY) if where("", params) else (EMPTY, params)
    return tree.partition(params, where)


def _is_empty(part: Any) -> bool:
    return isinstance(part, Mapping) and not part


def _restricted(grads: Any, part: Any, all_grads: Params, params: Params) -> Any:
    """The gradients of a part of the parameters."""
    if grads is None or not isinstance(part, Mapping):
        return grads
    try:
        return {name: _restricted(grads[name], p, all_grads, params) for name, p in part.items()}
    except (KeyError, TypeError):
        check_gradients(all_grads, params)
        raise


def _check_names(grads: Any, params: Any, path: str = "") -> None:
    """Raises `ValueError` for gradients that have no parameter (frozen parameters need no gradient)."""
    if isinstance(grads, Mapping) and isinstance(params, Mapping):
        for name, g in grads.items():
            if name not in params:
                raise ValueError(f"a gradient has no parameter: {join(path, name)}")
            if isinstance(g, Mapping):
                _check_names(g, params[name], join(path, name))


def overlaid(params: Any, part: Any) -> Any:
    """The parameters with others in the place of those that `part` has."""
    if isinstance(params, Mapping) and isinstance(part, Mapping):
        return {name: overlaid(p, part[name]) if name in part else p for name, p in params.items()}
    return params if part is None else part
