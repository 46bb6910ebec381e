from __future__ import annotations

from fnn.initializers import he_normal, normal
from fnn.layers.activation import Relu, Sigmoid, Tanh
from fnn.layers.dense import Dense
from tests.case import Case

CASES: list[Case] = [
    Case(Dense(4), (3,), wrong=((), (6,), (1,))),
    Case(Dense(4), (7, 3), wrong=((7, 6), (3, 7))),
    Case(Dense(4), (2, 7, 3)),
    Case(Dense(1), (3,)),
    Case(Dense(4, bias_init=None), (3,), wrong=((6,),)),
    Case(Dense(4, weight_init=he_normal(), bias_init=normal(0.5)), (3,)),
    Case(Dense(23), (17,), label="Dense, more numbers than are checked one by one"),
    Case(Sigmoid, (7, 3)),
    Case(Tanh, (7, 3)),
    Case(Relu, (7, 3)),
]
