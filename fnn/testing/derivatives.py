"""Central differences in float64: whether a gradient is the derivative of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from fnn import tree
from fnn.random import Key
from fnn.testing.comparison import LawError, place, require
from fnn.types import Array, NDArray

STEP = 1e-6
"""The step of the central differences; their error in float64 is then about 1e-10 for numbers near 1."""
TINY = 300
"""Up to so many numbers (parameters and inputs together) every partial derivative is checked."""


@attrs.frozen(eq=False)
class Claim:
    """That `gradient` is the derivative of `dot(dy, f(tree))` at a tree of float64 numbers."""

    f: Callable[[Any], Any]
    dy: Any
    at: Any
    gradient: Any
    vector: Array = attrs.field(init=False)
    """The numbers of `at`."""
    claimed: Array = attrs.field(init=False)
    """The numbers of `gradient`, in the same order."""

    @vector.default
    def _vector(self) -> Array:
        return tree.concatenate(self.at, self.at)

    @claimed.default
    def _claimed(self) -> Array:
        return tree.concatenate(self.gradient, self.at)

    def slopes(self, chosen: NDArray[Any], direction: Array) -> tuple[float, float, float]:
        """`(error, analytic, numeric)` along a direction in the chosen coordinates.

        The error is relative to 1, to the two numbers and to the length of the gradient in these coordinates, whichever
        is largest: along a random direction the two numbers may be small by cancellation.
        """
        claimed = self.claimed[chosen]
        moved = np.zeros(self.vector.size)
        moved[chosen] = STEP * direction
        up, down = (self.f(tree.read_only(tree.unravel(self.vector + d, self.at))) for d in (moved, -moved))
        numeric = tree.dot(self.dy, tree.map(np.subtract, up, down)) / (2 * STEP)
        analytic = float(claimed.dot(direction))
        size = max(1.0, abs(numeric), abs(analytic), float(np.linalg.norm(claimed)))
        return abs(numeric - analytic) / size, analytic, numeric

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """The positions of every leaf in the vector of all numbers."""
        indices = tree.unravel(np.arange(self.vector.size), self.at)
        return {path: leaf.reshape(-1) for path, leaf in tree.items(indices)}


def gradient_error(claim: Claim, tolerance: float, circumstance: str) -> float:
    """The largest error along a random direction of all numbers, one of every leaf, and every coordinate if few."""
    generator = Key(0).fold_in("directions").generator()
    coordinates = claim.coordinates()
    count = claim.vector.size
    largest = 0.0
    for path, chosen in coordinates.items():
        errors = [claim.slopes(chosen, generator.standard_normal(chosen.size))[0]]
        if count <= TINY:
            errors += [claim.slopes(np.array([i]), np.ones(1))[0] for i in chosen]
        if not all(error <= tolerance for error in errors):
            raise LawError(f"{_worst(claim, path, chosen, tolerance)} ({circumstance})")
        largest = max(largest, *errors)
    error, analytic, numeric = claim.slopes(np.arange(count), generator.standard_normal(count))
    along = f"along a direction of all numbers: analytic {analytic:.9g}, numeric {numeric:.9g} ({circumstance})"
    require(error <= tolerance, along)
    return max(largest, error)


def _worst(claim: Claim, path: str, chosen: NDArray[Any], tolerance: float) -> str:
    """`weight[1, 2]: analytic 0.5, numeric 0.25; 3 of 6 are wrong`; of many numbers, those where the error lies."""
    start = int(chosen[0])
    while chosen.size > TINY:
        chosen = max(np.array_split(chosen, 2), key=lambda half: _rank(claim.slopes(half, np.ones(half.size))[0]))
    found = {int(i): claim.slopes(np.array([i]), np.ones(1)) for i in chosen}
    worst = max(found, key=lambda i: _rank(found[i][0]))
    _, analytic, numeric = found[worst]
    wrong = sum(not error <= tolerance for error, _, _ in found.values())
    index = np.unravel_index(worst - start, np.shape(tree.get(claim.at, path)))
    where = place(path.removeprefix("params/"), index)
    return f"{where}: analytic {analytic:.9g}, numeric {numeric:.9g}; {wrong} of {len(found)} are wrong"


def _rank(error: float) -> float:
    return np.inf if np.isnan(error) else error
