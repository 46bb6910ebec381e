"""The general minimiser of SciPy, for functions that give their gradient too."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

class OptimizeResult(dict[str, Any]):
    x: NDArray[np.float64]
    fun: float
    nit: int
    nfev: int
    success: bool
    message: str

def minimize(
    fun: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    x0: NDArray[np.floating[Any]],
    *,
    jac: Literal[True],
    method: Literal["BFGS", "CG", "L-BFGS-B", "TNC"] | None = None,
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> OptimizeResult:
    """`fun(x) -> (value, gradient)`; x is a vector."""
