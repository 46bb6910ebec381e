from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fnn.layers.activation import (
    Elu,
    Gelu,
    GeluTanh,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Squareplus,
    Tanh,
)
from fnn.layers.softmax import LogSoftmax, Softmax
from fnn.testing import Draw
from fnn.types import bind
from tests.case import Case

if TYPE_CHECKING:
    from numpy.random import Generator


def _away_from(kinks: tuple[float, ...], generator: Generator, shape: Any) -> Any:
    x = 3 * generator.standard_normal(shape)
    near = np.abs(x[..., None] - np.array(kinks)).min(-1) < 0.01
    return x + 0.02 * near


def away_from(*kinks: float) -> Draw:
    """Normal numbers of standard deviation 3, none of them within 0.005 of a kink."""
    return bind(_away_from, kinks)


def wide(generator: Generator, shape: Any) -> Any:
    """Numbers far into both tails."""
    return generator.uniform(-50, 50, shape)


CASES: list[Case] = [
    Case(Sigmoid, (7, 3), wide, label="Sigmoid in the tails"),
    Case(Tanh, (7,), wide, label="Tanh in the tails"),
    Case(Softplus, (7, 3)),
    Case(Softplus, (7,), wide, label="Softplus in the tails"),
    Case(Silu, (7, 3)),
    Case(Silu, (7,), wide, label="Silu in the tails"),
    Case(Mish, (7, 3)),
    Case(Mish, (7,), wide, label="Mish in the tails"),
    Case(Gelu, (7, 3)),
    Case(Gelu, (7,), wide, label="Gelu in the tails"),
    Case(Gelu, (131, 103), label="Gelu in blocks"),
    Case(GeluTanh, (7, 3)),
    Case(GeluTanh, (7,), wide, label="GeluTanh in the tails"),
    Case(Relu, (2, 7, 3), away_from(0)),
    Case(LeakyRelu(), (7, 3), away_from(0)),
    Case(LeakyRelu(0.3), (3,), away_from(0)),
    Case(LeakyRelu(0.0), (3,), away_from(0)),
    Case(Elu(), (7, 3)),
    Case(Elu(0.4), (3,), away_from(0)),
    Case(Elu(2.5), (3,), away_from(0)),
    Case(Selu, (7, 3), away_from(0)),
    Case(HardTanh, (7, 3), away_from(-1, 1)),
    Case(HardSigmoid, (7, 3), away_from(-3, 3)),
    Case(HardSwish, (7, 3), away_from(-3, 3)),
    Case(Softsign, (7, 3)),
    Case(Squareplus(), (7, 3)),
    Case(Squareplus(0.3), (3,), wide),
    Case(Softmax, (3,), wrong=((),)),
    Case(Softmax, (7, 3)),
    Case(Softmax, (101,), label="Softmax over a long row"),
    Case(LogSoftmax, (3,), wrong=((),)),
    Case(LogSoftmax, (7, 3)),
    Case(LogSoftmax, (101,), label="LogSoftmax over a long row"),
]
