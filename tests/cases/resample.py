from __future__ import annotations

from fnn.layers.resample import AdaptiveAvgPool2D, Upsample2D, ZeroPad2D
from tests.case import Case

IMAGE = (7, 8, 3)
WRONG = ((8, 3), (2, 7, 8, 3), (3,))

CASES: list[Case] = [
    Case(AdaptiveAvgPool2D(2), IMAGE, wrong=WRONG),
    Case(AdaptiveAvgPool2D((3, 10)), IMAGE),
    Case(Upsample2D(2), IMAGE, wrong=WRONG),
    Case(Upsample2D((3, 1)), IMAGE),
    Case(Upsample2D(2, "bilinear"), IMAGE, wrong=WRONG),
    Case(Upsample2D((1, 3), method="bilinear"), IMAGE),
    Case(ZeroPad2D(1), IMAGE, wrong=WRONG),
    Case(ZeroPad2D(((0, 2), (1, 0))), IMAGE),
    Case(ZeroPad2D(0), IMAGE),
]
