"""Hinge losses: a margin between the right answer and the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnn.contract import Loss
from fnn.losses.classes import LOWEST, Classes, Targets, class_forward, class_vjp
from fnn.losses.core import elementwise, loss
from fnn.recordable import unexpected
from fnn.types import Array, Ints, Shape, ShapeError, bind, ones

# --- hinge: l = max(0, 1 - t z),   d = -t where it is positive --------------------------------------------------------


def hinge_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = max(0, 1 - t z)`; the cache is the derivative."""
    if unexpected((np.abs(target) != 1).any()):
        raise ValueError("hinge: expected targets -1 and 1; use 2 * labels - 1 for labels 0 and 1")
    l = target * output
    np.subtract(1, l, out=l)
    return np.maximum(l, 0), target * (l > 0) * -1.0


def hinge_vjp(slope: Array, dl: Any) -> Array:
    """`d = -dl t [1 - t z > 0]`."""
    d: Array = slope * dl
    return d


hinge: Loss[Array, Array | Ints] = elementwise("hinge", hinge_forward, hinge_vjp)
"""`max(0, 1 - t z)` of outputs z for targets t of -1 and 1, mean over all numbers (Cortes and Vapnik 1995)."""


# --- multiclass hinge: l = max(0, 1 + max_{k != y} z_k - z_y) ---------------------------------------------------------


def rival_forward(output: Array, targets: Targets) -> tuple[Array, Array]:
    """`l = max(0, 1 + max_{k != y} z_k - z_y)`; the cache is the derivative: 1 at the rival, -1 at the label."""
    t = targets.t
    others = np.where(t > 0, -np.inf, output)
    rival = (others.argmax(axis=1)[:, None] == np.arange(t.shape[1])).astype(t.dtype)
    l = others.max(axis=1) - (np.maximum(output, LOWEST[output.dtype.char]) * t).dot(ones(t.shape[1], t.dtype)) + 1
    return np.maximum(l, 0), (rival - t) * (l > 0)[:, None]


def rival_vjp(slope: Array, dl: Any) -> Array:
    """`d = dl (rival - label)` where the margin is not kept."""
    d: Array = slope * dl
    return d


def multiclass_hinge_forward(output: Array, target: Ints) -> tuple[Array, tuple[Array, Shape]]:
    """The mean over an example's rows; the targets must be labels."""
    if np.asarray(target).dtype.kind not in "iu":
        raise ShapeError(f"multiclass_hinge: expected integer labels {np.shape(output)[:-1]}, got {target.dtype}")
    return class_forward(Classes("multiclass_hinge"), rival_forward, output, target)


multiclass_hinge: Loss[Array, Ints] = loss("multiclass_hinge", multiclass_hinge_forward, bind(class_vjp, rival_vjp))
"""`max(0, 1 + max_{k != y} z_k - z_y)` of scores z for labels y, mean over all rows (Crammer and Singer 2001)."""
