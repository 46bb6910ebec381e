from __future__ import annotations

from fnn.combinators import named, serial
from fnn.layers.activation import Sigmoid, Tanh
from fnn.layers.dense import Dense
from tests.case import Case

CASES: list[Case] = [
    Case(serial(), (7, 3)),
    Case(serial(Dense(4)), (3,), wrong=((), (6,))),
    Case(serial(Dense(6), Sigmoid, Dense(2)), (3,), wrong=((), (6,))),
    Case(serial(Tanh, Sigmoid), (7, 3)),
    Case(serial(named("in", Dense(6)), Tanh, named("out", Dense(2))), (4, 3)),
    Case(serial(serial(Dense(6), Tanh), serial(), Dense(2)), (3,)),
]
