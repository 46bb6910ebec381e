"""Losses: pairs `forward(output, target, weight) -> (value, cache)` and `vjp(cache) -> d_output`.

The value is the mean over the batch, a 0-d array; with example weights `sum(w l) / sum(w)`. The vjp is its exact
derivative. Targets are cast to the output's dtype; shapes must agree exactly, nothing is broadcast.
"""

from __future__ import annotations

import numpy as np

from fnn.contract import Loss
from fnn.types import Array, ShapeError
