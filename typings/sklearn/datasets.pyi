"""The functions of scikit-learn that the examples use, with the arguments that they use."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

def load_digits(*, return_X_y: Literal[True]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels (1797, 64) from 0 to 16, and labels (1797,)."""

def load_diabetes(
    *, return_X_y: Literal[True], scaled: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measurements (442, 10), and the progression of the disease (442,)."""

def make_moons(
    n_samples: int = 100, *, shuffle: bool = True, noise: float | None = None, random_state: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points (n_samples, 2), and labels (n_samples,)."""
