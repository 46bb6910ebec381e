from __future__ import annotations

from fnn.combinators import serial
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout, GaussianNoise, SpatialDropout, StochasticDepth
from tests.case import Case

CASES: list[Case] = [
    Case(Dropout(0.4), (7, 3)),
    Case(Dropout(0.0), (7, 3)),
    Case(Dropout(0.999999), (7,)),
    Case(SpatialDropout(0.4), (8, 7, 3), wrong=((),)),
    Case(SpatialDropout(0.4), (3,)),
    Case(StochasticDepth(0.4), (7, 3)),
    Case(StochasticDepth(0.4), ()),
    Case(GaussianNoise(0.3), (7, 3)),
    Case(GaussianNoise(0.0), (7,)),
    Case(serial(Dropout(0.4), Dense(4), Dropout(0.2)), (3,)),
]
