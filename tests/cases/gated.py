from __future__ import annotations

from fnn.layers.activation import Gelu, LeakyRelu, Relu, Silu
from fnn.layers.gated import Glu, Maxout, PRelu
from fnn.layers.shape import Identity
from tests.case import Case
from tests.cases.activation import away_from

CASES: list[Case] = [
    Case(PRelu(), (3,), away_from(0), wrong=((), (4,))),
    Case(PRelu(-0.5), (2, 7, 3), away_from(0)),
    Case(Glu(), (6,), wrong=((), (3,))),
    Case(Glu(), (7, 6), wrong=((7, 3),)),
    Case(Glu(Silu), (8, 6)),
    Case(Glu(Gelu), (6,)),
    Case(Glu(Relu), (6,), away_from(0)),
    Case(Glu(LeakyRelu(0.2)), (6,), away_from(0)),
    Case(Glu(Identity), (6,)),
    Case(Maxout(1), (3,)),
    Case(Maxout(2), (6,), wrong=((), (3,))),
    Case(Maxout(3), (8, 6), wrong=((8, 7),)),
]
