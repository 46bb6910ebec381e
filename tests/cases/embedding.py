from __future__ import annotations

from typing import Any

import numpy as np

from fnn.combinators import serial
from fnn.initializers import normal
from fnn.layers.dense import Dense
from fnn.layers.embedding import Embedding
from fnn.layers.position import LearnedPosition, Rotary, SinusoidalPosition
from fnn.types import Ints
from tests.case import Case


def tokens(generator: np.random.Generator, shape: Any) -> Ints:
    """Ids below 6, so that some repeat; the vocabularies below hold more."""
    ids: Ints = generator.integers(6, size=shape)
    return ids


CASES: list[Case] = [
    Case(Embedding(9, 4), (3,), tokens),
    Case(Embedding(8, 4, weight_init=normal(0.1)), (7, 3), tokens),
    Case(Embedding(9, 4), (), tokens),
    Case(Embedding(30, 13), (17,), tokens, label="Embedding, more numbers than are checked one by one"),
    Case(serial(Embedding(9, 4), Dense(2)), (3,), tokens),
    Case(serial(Embedding(9, 4), LearnedPosition(8), SinusoidalPosition), (3,), tokens),
    Case(LearnedPosition(7), (7, 3), wrong=((3,), (8, 3), (7, 2, 3), (7, 4))),
    Case(LearnedPosition(9, weight_init=normal(1.0)), (7, 3), wrong=((10, 3),)),
    Case(SinusoidalPosition, (7, 6), wrong=((6,), (7, 3), (2, 7, 6))),
    Case(Rotary(), (7, 6), wrong=((6,), (7, 3), (2, 7, 6))),
    Case(Rotary(base=5.0), (3, 2)),
]
