"""How a rule is run over all parameters: for each leaf by itself, or for all numbers alike.

Rules for all numbers alike are written once, on single arrays, and run over the vector of all small leaves and over
slices of the large ones, with no temporaries of full size; their moments are kept as one vector (`moments_tree` shows
them as a tree).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from fnn import tree
from fnn.optimizers.protocol import Optimizer, Where, with_zeros, without_zeros
from fnn.schedules import Schedule, as_schedule, rate_at
from fnn.tree import join
from fnn.types import Array, Params, bind

_ndarray = np.ndarray


# --- each leaf by itself ------------------------------------------------------------------------------


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
    g = g if isinstance(g, _ndarray) else np.asarray(g)
    if g.shape != np.shape(p):
        raise ValueError("a gradient has another shape than its parameter")
    return f(path, g, p, *rest)


def scaled(factor: float, grads: Params, params: Params) -> Any:
    """`factor * grads`; raises `ValueError` where they differ from the parameters."""
    try:
        return _scaled(factor, grads, params)
    except (KeyError, TypeError, AttributeError, ValueError):
        check_gradients(grads, params)
        raise


def _scaled(factor: float, grads: Any, params: Any) -> Any:
    if type(params) is not dict and not isinstance(params, Mapping):
        if np.shape(grads) != np.shape(params):
            raise ValueError("a gradient has another shape than its parameter")
        return np.multiply(grads, factor)
    if len(grads) != len(params):
        raise ValueError("the trees have different numbers of children")
    new: dict[str, Any] = {}
    for name, p in params.items():
        g = grads[name]
        if isinstance(g, _ndarray) and g.shape == p.shape:
            new[name] = g * factor
        else:
            new[name] = None if g is None else _scaled(factor, g, p)
    return new


def check_gradients(grads: Any, params: Params) -> None:
    """Raises `ValueError`, with the differing paths, unless the gradients have the structure of the parameters."""
    tree.check_same_structure(params, with_zeros(grads, params), ("the parameters", "the gradients"))


# --- all numbers alike -------------------------------------------------------------------------------------

SMALL = 1 << 13
"""Leaves below this size are worked on together, so that many small ones cost few calls."""

SLICE = 1 << 17
"""Larger leaves are worked on in slices of this size, a handful of which the caches hold."""

Moments: TypeAlias = Array
"""One vector with a number for every parameter: those of all small leaves, then of each large one, by sorted names."""


def elementwise(
    rule: Callable[..., None], grads: Params, params: Params, *moments: Moments
) -> tuple[Params, tuple[Moments, ...]]:
    """The updates and the new moments that a rule on single arrays gives for all parameters.

    `rule(g, u, *old, *new)` reads the gradient g and the old moments and fills u (which may be g itself) and the new
    moments, arrays of one shape. Raises `ValueError` where the gradients differ from the parameters.
    """
    if type(params) is not dict and not isinstance(params, Mapping):
        updates, new = elementwise(rule, {"": grads}, {"": params}, *moments)
        return updates[""], new
    small, large, like, complete = _matched(grads, params)
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
            for piece in [g] if g.size <= SLICE else [g[i : i + SLICE] for i in range(0, g.size, SLICE)]:
                end = start + piece.size
                rule(piece, *[a[start:end] for a in parts])
                start = end
        new = tuple(parts[1 + len(moments) :])
    else:
        vector, new = small, tuple([np.empty_like(small) for _ in moments])
        rule(small, small, *moments, *new)
    updates = _assemble(vector, like)
    return updates if complete else without_zeros(updates, grads), new


def zeros(params: Params) -> Moments:
    """Moments that are 0."""
    return filled(params, 0.0)


def filled(params: Params, value: float) -> Moments:
    """Moments that all have this value. Raises `TypeError` unless the parameters have one dtype, float32 or float64."""
    kinds = {path: np.asarray(leaf).dtype for path, leaf in tree.items(params)}
    if len({*kinds.values()}) > 1 or any(kind.kind != "f" for kind in kinds.values()):
        found = " and ".join(sorted({str(kind) for kind in kinds.values()}))
        listed = ", ".join(f"{path or 'the root'} {kind}" for path, kind in list(kinds.items())[:8])
        raise TypeError(f"expected parameters of one dtype, got {found} ({listed}); convert them: fnn.tree.cast")
    return np.full(tree.size(params), value, next(iter(kinds.values()), np.float32))


def moments_tree(moments: Moments, params: Params) -> Params:
    """Moments in the form of the parameters, to look at."""
    whole: Params = {"": params}
    found: Params = _assemble(moments, tree.map(np.asarray, whole))[""]
    return found


def _matched(grads: Params, params: Params) -> tuple[Array, list[Array], Params, bool]:
    """All small gradients as one new vector, the large ones, the parameters as arrays, and whether no gradient is None.

    Zeros stand in for `None`.
    """
    small: list[Array] = []
    large: list[Array] = []
    like, complete = params, True
    try:
        _gather(grads, params, small, large)
    except (KeyError, TypeError, AttributeError):
        complete = False
        given = tree.map(np.asarray, with_zeros(grads, params))
        tree.check_same_structure(params, given, ("the parameters", "the gradients"))
        like = tree.map(np.asarray, params)
        _check_dtypes(given, like, None)
        small, large = [], []
        _gather(given, like, small, large)
    if small:
        return np.concatenate(small, axis=None), large, like, complete
    return np.zeros(0, large[0].dtype if large else np.float32), large, like, complete


def _gather(grads: Params, params: Params, small: list[Array], large: list[Array]) -> None:
    """Sorts the gradients into small and large ones, by sorted names; raises `KeyError` at the first difference."""
    if len(grads) != len(params):
        raise KeyError
    for name in sorted(params) if len(params) > 1 else params:
        g, p = grads[name], params[name]
        if isinstance(g, _ndarray) and g.shape == p.shape:
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
        if type(p) is dict or not isinstance(p, _ndarray) and isinstance(p, Mapping):
            new[name], start = _assemble_small(vector, start, p, large)
        elif p.size < SMALL:
            end = start + p.size
            new[name] = vector[start:end] if p.ndim == 1 else vector[start:end].reshape(p.shape)
            start = end
        else:
            large.append((new, name, p))
    return new, start


# --- optimizers of one rule ------------------------------------------------------------------------------------------


def rule_optimizer(
    kind: str,
    learning_rate: float | Schedule,
    rule: Callable[..., None],
    constants: Any,
    state: Callable[..., Any],
    moments: int,
    config: Mapping[str, Any],
    build: Callable[..., Optimizer],
    *,
    start: tuple[float, ...] = (),
    weight_decay: float = 0.0,
    where: Where | None = None,
) -> Optimizer:
    """The optimizer that runs `rule(constants, lr, step, g, u, *old, *new)` over all parameters; step counts from 1.

    Its state is `state(step, learning_rate, *moments)`; the moments begin with the values `start`, or 0. With weight
    decay, `lr weight_decay p` is taken from the update of each parameter that decays.
    """
    rate = as_schedule(kind, learning_rate)
    return Optimizer(
        kind,
        bind(bind(_rule_init, kind, rate, state), start or (0.0,) * moments, where),
        bind(bind(_rule_update, rate, rule, constants), state, weight_decay, where or decays),
        {"learning_rate": learning_rate, **config},
        build,
    )


def _rule_init(
    kind: str,
    rate: Schedule,
    state: Callable[..., Any],
    start: tuple[float, ...],
    where: Where | None,
    params: Params,
) -> Any:
    check_selects(kind, where, params)
    return state(0, rate_at(rate, 0), *[filled(params, value) for value in start])


def _rule_update(
    rate: Schedule,
    rule: Callable[..., None],
    constants: Any,
    make: Callable[..., Any],
    weight_decay: float,
    where: Where,
    grads: Params,
    state: Any,
    params: Params,
) -> tuple[Params, Any]:
    step, lr = state[0] + 1, rate_at(rate, state[0])
    updates, moments = elementwise(bind(rule, constants, lr, step), grads, params, *state[2:])
    if weight_decay:
        decay_into(updates, params, -lr * weight_decay, where)
    return updates, make(step, lr, *moments)


def leaf_norm(a: Array) -> float:
    """The Euclidean norm, also where the sum of the squares has no place in the dtype."""
    total = float(np.vdot(a, a))
    if 1e-30 < total < math.inf:
        return math.sqrt(total)
    largest = float(np.max(np.abs(a), initial=0.0))
    if not 0 < largest < math.inf:
        return largest
    ratio = a / largest
    return largest * math.sqrt(float(np.vdot(ratio, ratio)))


# --- which parameters ------------------------------------------------------------------------------------------------


def decays(path: str, parameter: Any) -> bool:
    """What decays by default: matrices and kernels, not biases and scales."""
    return np.ndim(parameter) > 1


def decay_into(updates: Any, params: Any, factor: float, where: Where, path: str = "") -> None:
    """Adds `factor * parameter` to the updates (which the caller has just allocated) of the selected parameters."""
    if updates is None:
        return
    if isinstance(params, Mapping):
        for name, p in params.items():
            decay_into(updates[name], p, factor, where, join(path, name))
    elif where(path, params):
        updates += factor * params


class At(tuple[str, ...]):
    """The predicate that `at` gives."""

    def __call__(self, path: str, parameter: Any) -> bool:
        return any(_lies_at(pattern, path) for pattern in self)

    def __repr__(self) -> str:
        return f"at({', '.join(map(repr, self))})"


def at(*paths: str) -> At:
    """A predicate for `freeze`, `partition` and `where=`: the parameters at, or below, one of these paths.

    `*` stands for any part of one name: `at("dense_0", "*/bias")`. Each path must select something.
    """
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"at: expected one or more paths such as 'dense_0' or '*/bias', got {paths!r}")
    return At(paths)


def _lies_at(pattern: str, path: str) -> bool:
    from fnmatch import fnmatchcase

    wanted, names = pattern.split("/"), path.split("/")
    return len(wanted) <= len(names) and all(fnmatchcase(name, want) for want, name in zip(wanted, names))


def check_selects(who: str, where: Where | None, params: Params) -> None:
    """Raises `ValueError` where a predicate, or one of the paths of `at`, selects no parameter."""
    if where is not None and not callable(where):
        such = f"fnn.optimizers.at({where if isinstance(where, str) else 'head'!r})"
        raise TypeError(f"{who}: expected a function of path and parameter, such as {such}, got {where!r}")
    for part in () if where is None else [At((path,)) for path in where] if isinstance(where, At) else [where]:
        if not any(part(path, p) for path, p in tree.items(params)):
            listed = [path for path, _ in tree.items(params)]
            more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
            name = getattr(part, "__name__", repr(part))
            raise ValueError(f"{who}: {name} selects no parameter; there are {', '.join(listed[:8])}{more}")
