"""Full-batch minimisation by SciPy's methods (L-BFGS and others), over any tree of parameters. Needs `scipy`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from fnn import tree
from fnn.check import not_negative, positive
from fnn.optimizers.protocol import with_zeros
from fnn.types import NDArray, Params, bind


class Minimum(NamedTuple):
    """What `minimize` found."""

    params: Params
    value: float
    """The objective there."""
    iterations: int
    evaluations: int
    """How often the objective and its gradient were computed."""
    converged: bool
    message: str
    """Why SciPy stopped."""


def minimize(
    objective: Callable[[Params], tuple[Any, Params]],
    params: Params,
    *,
    method: str = "L-BFGS-B",
    iterations: int = 1000,
    tolerance: float | None = None,
    report: Callable[[int, float], None] | None = None,
    options: dict[str, Any] | None = None,
) -> Minimum:
    """Parameters that minimise `objective(params) -> (value, grads)`, from `params` on.

        f = value_and_grad(net, mse)
        found = minimize(lambda p: f(p, {}, x, y, Eval())[:2], params)

    method: any of `scipy.optimize.minimize` that takes a gradient: L-BFGS-B (Liu & Nocedal 1989; Byrd et al. 1995),
        BFGS, CG, SLSQP. (TNC counts evaluations, not iterations: options={"maxfun": n}.)
    iterations: no more than these; `tolerance` and `options` are SciPy's `tol` and `options`.
    report: called with the number of the iteration and the value after it.

    SciPy works on one float64 vector; the objective sees, and the result has, the dtypes and the form of `params`. In
    float32 the objective's own rounding ends the search early: `tree.cast(params, np.float64)` for the last digits.
    A `None` in the gradients leaves the parameters there as they are. Raises `ValueError` for gradients of another form
    and `FloatingPointError` when the objective is not finite at the start, `ImportError` without scipy.
    """
    positive("minimize", "iterations", iterations)
    if tolerance is not None:
        not_negative("minimize", "tolerance", tolerance)
    try:
        scipy_optimize = import_module("scipy.optimize")
    except ImportError as error:
        raise ImportError("fnn.scipy.minimize needs scipy: pip install scipy") from error
    seen: list[float] = []
    value, _ = _evaluate(objective, params, seen, _vector(params, params))
    if not np.isfinite(value):
        raise FloatingPointError(f"minimize: the objective is {value} at the start")
    done = [0]

    def after(intermediate_result: Any) -> None:  # SciPy goes by this name; some methods give the point instead
        done[0] += 1
        if report is not None:
            report(done[0], float(getattr(intermediate_result, "fun", seen[-1])))

    found = scipy_optimize.minimize(
        bind(_evaluate, objective, params, seen),
        _vector(params, params),
        jac=True,
        method=method,
        tol=tolerance,
        callback=None if report is None else after,
        options={"maxiter": iterations, **(options or {})},
    )
    result = tree.read_only(_params(found.x, params))
    return Minimum(result, float(found.fun), int(found.nit), len(seen), bool(found.success), str(found.message))


def _evaluate(
    objective: Callable[[Params], tuple[Any, Params]], like: Params, seen: list[float], x: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    value, grads = objective(tree.read_only(_params(x, like)))
    seen.append(float(value))
    return float(value), _vector(with_zeros(grads, like), like)


def _vector(values: Params, like: Params) -> NDArray[np.float64]:
    """The leaves as one float64 vector."""
    tree.check_same_structure(like, values, ("the parameters", "the gradients"))
    parts = [np.asarray(leaf, np.float64).reshape(-1) for leaf in tree.sorted_leaves(values, like)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _params(x: NDArray[np.float64], like: Params) -> Params:
    """The vector as parameters, in the dtypes of those given."""
    params: Params = tree.map(_as_leaf, tree.unravel(x, like), like)
    return params


def _as_leaf(part: NDArray[np.float64], like: Any) -> NDArray[Any]:
    return np.array(part, np.asarray(like).dtype)
