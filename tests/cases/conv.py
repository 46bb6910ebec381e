from __future__ import annotations

from fnn.initializers import glorot_uniform, normal
from fnn.layers.conv import (
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    DepthwiseConv2D,
    SeparableConv2D,
)
from tests.case import Case

IMAGE = (7, 8, 3)
WRONG = ((7, 8, 4), (7, 3), (2, 7, 8, 3), (3,))
"""Other channels, too few axes, too many, hardly any."""

CASES: list[Case] = [
    Case(Conv2D(4, 3), IMAGE, wrong=WRONG),
    Case(Conv2D(4, 3, padding="valid"), (9, 8, 3), wrong=(*WRONG, (2, 8, 3), (7, 2, 3))),
    Case(Conv2D(4, (3, 2), stride=(2, 3)), IMAGE, wrong=WRONG),
    Case(Conv2D(4, (2, 3), padding=((1, 0), (2, 1)), dilation=(2, 1)), IMAGE),
    Case(Conv2D(4, (2, 3), padding=1, stride=2, dilation=(1, 2)), IMAGE),
    Case(Conv2D(4, 2, padding=3), IMAGE, label="Conv2D, more padding than the kernel reaches"),
    Case(Conv2D(4, 1), IMAGE, label="Conv2D, 1 x 1"),
    Case(Conv2D(4, 1, stride=2, padding="valid"), IMAGE, label="Conv2D, 1 x 1, pixels left out"),
    Case(Conv2D(4, 2, stride=3, padding="valid"), IMAGE, label="Conv2D, gaps between windows"),
    Case(Conv2D(4, (7, 8), padding="valid"), IMAGE, label="Conv2D, one window", wrong=((6, 8, 3), (7, 7, 3))),
    Case(Conv2D(6, 3, groups=2), (7, 8, 4), wrong=((7, 8, 6), (7, 8, 3))),
    Case(Conv2D(6, 3, groups=3), IMAGE, label="Conv2D, two features for each of three channels"),
    Case(Conv2D(4, 2, weight_init=glorot_uniform(), bias_init=normal(0.5)), IMAGE),
    Case(Conv2D(4, 2, bias_init=None), IMAGE),
    Case(Conv2D(16, 5, padding="valid"), (28, 29, 1), label="Conv2D, few channels, rows of 25"),
    Case(Conv2D(4, (3, 2), padding="valid", stride=(2, 1)), (6, 20, 2), label="Conv2D, few channels, stride"),
    Case(Conv1D(4, 3), (11, 2), wrong=((11, 3), (11,), (2, 11, 2))),
    Case(Conv1D(4, 3, padding="causal", dilation=2), (11, 2), wrong=((11, 3),)),
    Case(Conv1D(4, 3, padding="causal", stride=2), (11, 2)),
    Case(Conv1D(4, 4, padding="valid", stride=3), (11, 2), wrong=((3, 2),)),
    Case(Conv1D(6, 2, padding=((0, 1),), groups=3), (11, 3)),
    Case(Conv3D(7, 2), (3, 4, 6, 2), wrong=((3, 4, 6, 3), (4, 6, 2))),
    Case(Conv3D(4, (2, 1, 3), stride=(1, 2, 3), padding="valid"), (3, 6, 7, 2), wrong=((1, 6, 7, 2),)),
    Case(Conv3D(8, 2, dilation=(1, 2, 3), groups=2), (3, 4, 6, 2)),
    Case(DepthwiseConv2D(3), IMAGE, wrong=WRONG),
    Case(DepthwiseConv2D((2, 3), multiplier=2, stride=(1, 2), padding="valid"), IMAGE, wrong=((1, 8, 3),)),
    Case(DepthwiseConv2D(2, dilation=2, bias_init=None), IMAGE),
    Case(SeparableConv2D(4, 3), IMAGE, wrong=WRONG),
    Case(SeparableConv2D(4, 2, multiplier=2, stride=2, padding="valid"), IMAGE),
    Case(ConvTranspose2D(4, 3), IMAGE, wrong=WRONG),
    Case(ConvTranspose2D(4, 3, stride=2), IMAGE, wrong=WRONG),
    Case(ConvTranspose2D(4, (1, 2), stride=(2, 3)), IMAGE, label="ConvTranspose2D, gaps between kernels"),
    Case(ConvTranspose2D(4, (3, 2), stride=(3, 2), padding=((1, 0), (2, 1))), IMAGE, wrong=WRONG),
    Case(ConvTranspose2D(6, 2, padding="valid", dilation=2, groups=2), (7, 8, 4), wrong=((7, 8, 3),)),
    Case(ConvTranspose2D(6, 3, stride=2, groups=3, bias_init=None), IMAGE),
    Case(ConvTranspose1D(4, 3, stride=2), (11, 2), wrong=((11, 3), (11,))),
    Case(ConvTranspose1D(4, 4, stride=3, padding=1), (11, 2)),
]
