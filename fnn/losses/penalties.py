"""Penalties: terms of what is minimised that depend on the parameters alone, with their own derivatives.

They are given to `train`, `make_step`, `value_and_grad` or `grad` as `penalty=`, which then add value and derivative.
An evaluation is of the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from fnn import tree
from fnn.check import not_negative
from fnn.contract import Penalty
from fnn.types import Array, Params, bind

Where: TypeAlias = Callable[[str, Any], bool]
"""`(path, parameter) -> bool`: selects parameters."""


def penalty(
    kind: str,
    forward: Callable[[Array], Array],
    vjp: Callable[[Array], Array],
    *,
    where: Where | None = None,
    config: Mapping[str, Any],
    build: Callable[..., Any],
) -> Penalty:
    """A penalty from a pair for single arrays: `forward(parameter) -> value` and `vjp(parameter) -> derivative`.

    `where(path, parameter)` selects the parameters; by default these are all but vectors (biases, scales).
    """
    chosen = where or not_vectors
    return Penalty(
        kind, bind(_penalty_forward, kind, forward, chosen), bind(_penalty_vjp, vjp, chosen), config=config, build=build
    )


def not_vectors(path: str, parameter: Any) -> bool:
    """Whether the parameter has more than one axis."""
    return bool(np.ndim(parameter) > 1)


def _penalty_forward(kind: str, forward: Callable[[Array], Array], where: Where, params: Params) -> Array:
    values = [forward(leaf) for path, leaf in tree.items(params) if where(path, leaf)]
    if not values:
        paths = [path for path, _ in tree.items(params)]
        raise ValueError(f"{kind}: the penalty selects no parameter; there are {', '.join(paths[:8]) or 'none'}")
    return np.asarray(sum(values))


def _penalty_vjp(vjp: Callable[[Array], Array], where: Where, params: Params, grads: Params) -> Params:
    return _added(vjp, where, params, grads, "")


def _added(vjp: Callable[[Array], Array], where: Where, params: Params, grads: Params, path: str) -> Params:
    """The gradients with the derivative of the penalty added where there are gradients."""
    new: dict[str, Any] = {}
    for name, g in grads.items():
        here, p = tree.join(path, name), params[name]
        if isinstance(g, Mapping):
            new[name] = _added(vjp, where, p, g, here)
        else:
            new[name] = g if g is None or not where(here, p) else g + vjp(p)
    return new


# --- L1: strength sum |w|,   d = strength sign(w) ---------------------------------------------------------------------


def l1_forward(strength: float, w: Array) -> Array:
    """`strength sum |w|`."""
    return np.asarray(np.abs(w).sum() * strength)


def l1_vjp(strength: float, w: Array) -> Array:
    """`strength sign(w)`, 0 at 0."""
    d = np.sign(w)
    d *= strength
    return d


def l1(strength: float, *, where: Where | None = None) -> Penalty:
    """`strength sum |w|` over the parameters: drives many of them to zero (Tibshirani 1996).

    Vectors (biases, scales) are left out; `where(path, parameter)` selects other parameters, and must select some.
    """
    s = not_negative("l1", "strength", strength)
    config = {"strength": strength, "where": where}
    return penalty("l1", bind(l1_forward, s), bind(l1_vjp, s), where=where, config=config, build=l1)


# --- L2: strength / 2 sum w**2,   d = strength w ----------------------------------------------------------------------


def l2_forward(strength: float, w: Array) -> Array:
    """`strength / 2 sum w**2`."""
    return np.asarray(np.vdot(w, w) * (strength / 2))


def l2_vjp(strength: float, w: Array) -> Array:
    """`strength w`."""
    d: Array = w * strength
    return d


def l2(strength: float, *, where: Where | None = None) -> Penalty:
    """`strength / 2 sum w**2` over the parameters (Hoerl and Kennard 1970; Krogh and Hertz 1991).

    Its derivative, `strength w`, is what `add_decayed_weights(strength)` adds to the gradient. Vectors (biases, scales)
    are left out; `where(path, parameter)` selects other parameters, and must select some.
    """
    s = not_negative("l2", "strength", strength)
    config = {"strength": strength, "where": where}
    return penalty("l2", bind(l2_forward, s), bind(l2_vjp, s), where=where, config=config, build=l2)


# --- several ----------------------------------------------------------------------------------------------------------


def penalties(*terms: Penalty) -> Penalty:
    """The sum of several penalties: `penalties(l1(1e-5), l2(1e-4))` is the elastic net (Zou and Hastie 2005)."""
    if not terms:
        raise ValueError("penalties: expected at least one penalty")
    for term in terms:
        if not isinstance(term, Penalty):
            raise TypeError(f"penalties: expected penalties, got {term!r}")
    return Penalty("penalties", bind(_all_forward, terms), bind(_all_vjp, terms), {"terms": terms}, penalties)


def _all_forward(terms: tuple[Penalty, ...], params: Params) -> Array:
    return np.asarray(sum(term.forward(params) for term in terms))


def _all_vjp(terms: tuple[Penalty, ...], params: Params, grads: Params) -> Params:
    for term in terms:
        grads = term.vjp(params, grads)
    return grads
