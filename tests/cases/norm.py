from __future__ import annotations

from fnn.combinators import serial
from fnn.initializers import normal
from fnn.layers.dense import Dense
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from tests.case import Case

CASES: list[Case] = [
    Case(LayerNorm(), (3,), wrong=((), (6,), (1,))),
    Case(LayerNorm(), (7, 3), wrong=((3, 7),)),
    Case(LayerNorm(axes=2), (7, 4, 3), wrong=((3,), (7, 3, 4))),
    Case(LayerNorm(eps=0.5, scale_init=normal(0.5), bias_init=normal(0.5)), (7, 3)),
    Case(LayerNorm(bias_init=None), (7, 3)),
    Case(LayerNorm(scale_init=None), (7, 3)),
    Case(LayerNorm(scale_init=None, bias_init=None), (7, 3), wrong=((), (7, 1))),
    Case(LayerNorm(), (4, 6, 23), label="LayerNorm, more numbers than are checked one by one"),
    Case(RMSNorm(), (3,), wrong=((), (6,))),
    Case(RMSNorm(axes=2, eps=0.5), (4, 7, 3), wrong=((3,), (4, 3, 7))),
    Case(RMSNorm(scale_init=None), (7, 3), wrong=((),)),
    Case(GroupNorm(1), (7, 3), wrong=((), (7, 6))),
    Case(GroupNorm(2), (3, 4), wrong=((3, 6), (3, 3))),
    Case(GroupNorm(2), (6,), wrong=((2,), (7,))),
    Case(GroupNorm(3, eps=0.5), (2, 4, 6)),
    Case(GroupNorm(2, scale_init=None, bias_init=None), (3, 4), wrong=((3, 7), (1, 2))),
    Case(InstanceNorm(), (7, 3), wrong=((3,), (7, 6), (1, 3))),
    Case(InstanceNorm(eps=0.5, bias_init=None), (2, 7, 3)),
    Case(InstanceNorm(scale_init=None, bias_init=None), (7, 3), wrong=((1, 3),)),
    Case(BatchNorm(), (3,), wrong=((), (6,))),
    Case(BatchNorm(), (4, 7, 3), wrong=((4, 7, 6),)),
    Case(BatchNorm(decay=0.5, eps=0.5), (7, 3)),
    Case(BatchNorm(scale_init=None), (7, 3)),
    Case(BatchNorm(bias_init=None), (7, 3)),
    Case(BatchNorm(scale_init=None, bias_init=None), (3,), wrong=((6,),)),
    Case(serial(Dense(6), BatchNorm(), Dense(2)), (3,)),
]
