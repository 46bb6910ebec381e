from __future__ import annotations

from fnn.layers.shape import Flatten, Identity, Reshape, Transpose
from tests.case import Case

CASES: list[Case] = [
    Case(Identity, (7, 3)),
    Case(Flatten, (7, 3)),
    Case(Flatten, (7,)),
    Case(Flatten, ()),
    Case(Reshape((2, 6)), (4, 3), wrong=((5, 3), ())),
    Case(Reshape((2, -1, 3)), (4, 9), wrong=((4, 8),)),
    Case(Transpose((1, 0)), (7, 3), wrong=((7,), (2, 7, 3))),
    Case(Transpose((2, 0, 1)), (2, 7, 3), wrong=((7, 3),)),
]
