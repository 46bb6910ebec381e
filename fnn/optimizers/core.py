"""What optimizers are made of: the protocol, its extension, `apply_updates`, and rules run over all parameters.

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
from fnn.tree import join
from fnn.types import EMPTY, Array, Params, bind

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
    """An optimizer made of others: it has an `update_with` if one of them has, or if it says that it is `contextual`."""
    for part in inner:
        if not (hasattr(part, "init") and hasattr(part, "update")):
            raise TypeError(f"{kind}: expected an optimizer such as adam(1e-3), got {part!r}")
    contextual = contextual or any(getattr(part, "update_with", None) is not None for part in inner)
    return Optimizer(kind, init, bind(_without, update), config, build, update if contextual else None)


def _without(update: Contextual, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return update(grads, state, params, None)


def updater(transform: GradientTransformation) -> Contextual:
    """The update of any transform, in the form that takes a context or `None`."""
    update_with = getattr(transform, "update_with", None)
    return bind(_plain, transform.update) if update_with is None else bind(_contextual, transform.update, update_with)


def _plain(
    update: Update, grads: Params, state: Any, params: Params, context: Context | None
) -> tuple[Params, Any]:
    return update(grads, state, params)


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
        if type(u) is _ndarray and u.shape == p.shape and u.dtype is p.dtype and u.ndim:
            new[name] = q = p + u
            q.setflags(write=False)
        elif u is None:
            new[name] = p
            complete = False
        else:
            new[name] = _add(p, u) if type(p) is _ndarray else apply_updates(p, u)
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


# --- rules for each parameter by itself ------------------------------------------------------------------------------


def leafwise(f: Callable[..., Any], grads: Params, params: Params, *rest: Any) -> Any:
    """The tree of `f(path, g, p, ...)`, `None` where the gradient is `None`.

    Raises `ValueError` that lists the paths where the gradients' tree differs from the parameters'.
    """
    try:
        return _leafwise(f, "", grads, params, rest)
    except (KeyError, TypeError, AttributeError, ValueError):
        check_gradients(grads, params)
        raise


def _leafwise(f: Callable[..., Any], path: str, g: Any, p: Any, rest: tuple[Any, ...]) -> Any:
    if g is None:
        return None
    if isinstance(p, Mapping):
        if len(g) != len(p):
            raise ValueError("the trees have different numbers of children")
        return {k: _leafwise(f, join(path, k), g[k], p[k], tuple([r[k] for r in rest])) for k in p}
    g = g if type(g) is _ndarray else np.asarray(g)
    if g.shape != np.shape(p):
        raise ValueError("a gradient has another shape than its parameter")
    return f(path, g, p, *rest)


def check_gradients(grads: Any, params: Params) -> None:
    """Raises `ValueError`, with the differing paths, unless the gradients have the structure of the parameters."""
    tree.check_same_structure(params, _filled(grads, params), ("the parameters", "the gradients"))


def _filled(grads: Any, params: Any) -> Any:
    """The gradients with zeros in the place of each `None`."""
    if grads is None:
        return tree.zeros_like(params)
    if isinstance(params, Mapping) and isinstance(grads, Mapping):
        return {k: _filled(g, params[k]) if k in params else g for k, g in grads.items()}
    return grads


# --- rules for all numbers alike -------------------------------------------------------------------------------------

SMALL = 1 << 13
"""Leaves below this size are worked on together, so that many small ones cost few calls."""

SLICE = 1 << 16
"""Larger leaves are worked on in slices of this size, a handful of which fit the second-level cache."""

Moments: TypeAlias = Array
"""One vector with a number for every parameter: first those of all small leaves, then of each large one, by sorted names."""


def elementwise(
    rule: Callable[..., None], grads: Params, params: Params, *moments: Moments
) -> tuple[Params, tuple[Moments, ...]]:
    """The updates and the new moments that a rule on single arrays gives for all parameters.

    `rule(g, u, *old, *new)` reads the gradient g and the old moments and fills u (which may be g itself) and the new
    moments, arrays of one shape. Raises `ValueError` where the gradients differ from the parameters.
    """
    if not isinstance(params, Mapping):
        updates, new = elementwise(rule, {"": grads}, {"": params}, *moments)
        return updates[""], new
    small, large, complete = _matched(grads, params)
    if moments and moments[0].dtype is not small.dtype:
        _check_dtypes(grads, params, moments[0].dtype)
    start = small.size
    if large:
        n = start + sum([g.size for g in large])
        vector = np.empty(n, small.dtype)
        parts = [vector, *moments, *np.empty((len(moments), n), small.dtype)]
        if start:
            rule(small, *[a[:start] for a in parts])
        for g in large:
            g = g.reshape(-1)
            for first in range(0, g.size, SLICE):
                piece = g[first : first + SLICE]
                end = start + piece.size
                rule(piece, *[a[start:end] for a in parts])
                start = end
        new = tuple(parts[1 + len(moments) :])
    else:
        vector, new = small, tuple([np.empty_like(small) for _ in moments])
        rule(small, small, *moments, *new)
    updates = _assemble(vector, params)
    return updates if complete else _pruned(updates, grads), new


def zeros(params: Params) -> Moments:
    """Moments that are 0."""
    return filled(params, 0.0)


def filled(params: Params, value: float) -> Moments:
    """Moments that all have this value. Raises `TypeError` unless the parameters have one dtype, float32 or float64."""
    kinds = {path: np.asarray(leaf).dtype for path, leaf in tree.items(params)}
    if len({*kinds.values()}) > 1 or any(kind.kind != "f" for kind in kinds.values()):
        listed = ", ".join(f"{path or 'the root'} {kind}" for path, kind in list(kinds.items())[:8])
        raise TypeError(f"expected parameters of one floating dtype, got {listed}; convert them: fnn.tree.cast")
    return np.full(tree.size(params), value, next(iter(kinds.values()), np.float32))


def moments_tree(moments: Moments, params: Params) -> Params:
    """Moments in the form of the parameters, to look at."""
    whole: Params = {"": params}
    found: Params = _assemble(moments, tree.map(np.asarray, whole))[""]
    return found


def _matched(grads: Params, params: Params) -> tuple[Array, list[Array], bool]:
    """All small gradients as one new vector, the large ones, and whether all are there or some are `None`.

    Zeros stand in for `None`.
    """
    small: list[Array] = []
    large: list[Array] = []
    complete = True
    try:
        _gather(grads, params, small, large)
    except (KeyError, TypeError, AttributeError):
        complete = False
        given = tree.map(np.asarray, _filled(grads, params))
        tree.check_same_structure(params, given, ("the parameters", "the gradients"))
        like = tree.map(np.asarray, params)
        _check_dtypes(given, like, None)
        small, large = [], []
        _gather(given, like, small, large)
    if small:
        return np.concatenate(small, axis=None), large, complete
    return np.zeros(0, large[0].dtype if large else np.float32), large, complete


def _gather(grads: Params, params: Params, small: list[Array], large: list[Array]) -> None:
    """Sorts the gradients into small and large ones, by sorted names; raises `KeyError` at the first difference."""
    if len(grads) != len(params):
        raise KeyError
    for name in sorted(params) if len(params) > 1 else params:
        g, p = grads[name], params[name]
        if type(g) is _ndarray and g.shape == p.shape:
            if g.dtype is not p.dtype and g.dtype != p.dtype:
                raise TypeError
            (small if g.size < SMALL else large).append(g)
        else:
            _gather(g, p, small, large)


def _check_dtypes(grads: Params, params: Params, dtype: np.dtype[Any] | None) -> None:
    """Raises `TypeError` unless gradients, parameters and moments have one dtype."""
    own = dict(tree.items(params))
    for path, g in tree.items(grads):
        wanted = np.asarray(own[path]).dtype if dtype is None else dtype
        if np.asarray(g).dtype != wanted:
            what = "the parameter" if dtype is None else "the state"
            raise TypeError(f"{path or 'the root'}: the gradient is {np.asarray(g).dtype}, {what} {wanted}")


def _assemble(vector: Moments, params: Params) -> dict[str, Any]:
    """The tree of views of a vector that is laid out as `Moments`."""
    large: list[tuple[dict[str, Any], str, Any]] = []
    new, start = _assemble_small(vector, 0, params, large)
    for node, name, p in large:
        end = start + p.size
        node[name] = vector[start:end].reshape(p.shape)
        start = end
    return new


def _assemble_small(
    vector: Moments, start: int, params: Params, large: list[tuple[dict[str, Any], str, Any]]
) -> tuple[dict[str, Any], int]:
    several = len(params) > 1
    new: dict[str, Any] = dict.fromkeys(params) if several else {}
    for name in sorted(params) if several else params:
        p = params[name]
        if type(p) is not _ndarray and isinstance(p, Mapping):
            new[name], start = _assemble_small(vector, start, p, large)
        elif p.size < SMALL:
            end = start + p.size
            new[name] = vector[start:end] if p.ndim == 1 else vector[start:end].reshape(p.shape)
            start = end
        else:
            large.append((new, name, p))
    return new, start


def _pruned(updates: Any, grads: Any) -> Any:
    """The updates without those for which the gradients have `None`."""
    if not isinstance(grads, Mapping):
        return updates
    return {k: None if grads[k] is None else _pruned(u, grads[k]) for k, u in updates.items()}


# --- what a state tells ----------------------------------------------------------------------------------------------


def learning_rate(state: Any) -> float | None:
    """The learning rate that an optimizer's state says it used last; `None` if it says none."""
    found = state.get("learning_rate") if isinstance(state, Mapping) else getattr(state, "learning_rate", None)
    if isinstance(found, float):
        return found
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
