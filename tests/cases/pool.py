from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fnn.layers.pool import (
    AvgPool1D,
    AvgPool2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    MaxPool1D,
    MaxPool2D,
)
from fnn.types import Array
from tests.case import Case

if TYPE_CHECKING:
    from numpy.random import Generator


def distinct(generator: Generator, shape: tuple[int, ...]) -> Array:
    """Numbers at least 0.01 apart: no step of a difference quotient changes which of them is the largest."""
    size = int(np.prod(shape))
    return generator.permutation(size).reshape(shape) / 100 - size / 200


IMAGE = (7, 8, 3)
WRONG = ((8, 3), (2, 7, 8, 3), (3,))

CASES: list[Case] = [
    Case(MaxPool2D(2), (6, 8, 3), distinct, wrong=(*WRONG, (1, 8, 3), (6, 1, 3))),
    Case(MaxPool2D(2), IMAGE, distinct, label="MaxPool2D, a row left over"),
    Case(MaxPool2D(3, 2), IMAGE, distinct),
    Case(MaxPool2D((2, 3), (3, 1), padding="same"), IMAGE, distinct),
    Case(MaxPool2D(3, (1, 4), padding=((1, 2), (0, 1))), IMAGE, distinct),
    Case(MaxPool2D(1, 2), IMAGE, distinct),
    Case(MaxPool1D(2), (12, 2), distinct, wrong=((1, 2), (11,), (2, 11, 2))),
    Case(MaxPool1D(3, 2, padding=1), (11, 2), distinct),
    Case(AvgPool2D(2), (6, 8, 3), wrong=(*WRONG, (1, 8, 3))),
    Case(AvgPool2D(3, 2), IMAGE),
    Case(AvgPool2D((2, 3), (3, 1), padding="same"), IMAGE),
    Case(AvgPool2D(3, (1, 4), padding=((1, 2), (0, 1)), count_padding=True), IMAGE),
    Case(AvgPool1D(2), (12, 2), wrong=((1, 2), (11,))),
    Case(AvgPool1D(3, 2, padding=1), (11, 2)),
    Case(GlobalMaxPool1D, (11, 2), distinct, wrong=((11,), (4, 11, 2))),
    Case(GlobalMaxPool2D, IMAGE, distinct, wrong=((7, 8), (4, 7, 8, 3))),
    Case(GlobalAvgPool1D, (11, 2), wrong=((11,), (4, 11, 2))),
    Case(GlobalAvgPool2D, IMAGE, wrong=((7, 8), (4, 7, 8, 3))),
]
