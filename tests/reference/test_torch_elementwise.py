"""Activations, softmax, dense and shape layers against PyTorch in float64: outputs and all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fnn.contract import Layer
from fnn.initializers import normal
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
from fnn.layers.dense import Dense
from fnn.layers.gated import Glu, Maxout, PRelu
from fnn.layers.shape import Flatten, Identity, Reshape, Transpose
from fnn.layers.softmax import LogSoftmax, Softmax
from tests.reference.comparison import Compared, Reference, last_first

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

# --- activations -----------------------------------------------------------------------------------------------------


def squareplus(x: Any, b: float) -> Any:
    root = (x * x + b).sqrt()
    return torch.where(x > 0, (root + x) / 2, b / 2 / (root - x))  # two forms of it; here or there one cancels


ELEMENTWISE: list[tuple[Layer[Any, Any], Reference]] = [
    (Sigmoid, torch.sigmoid),
    (Tanh, torch.tanh),
    (Softplus, lambda x: F.softplus(x, threshold=50)),  # theirs is x above the threshold
    (Silu, F.silu),
    (Mish, F.mish),
    (Gelu, F.gelu),
    (GeluTanh, lambda x: F.gelu(x, approximate="tanh")),
    (Relu, F.relu),
    (HardTanh, F.hardtanh),
    (HardSigmoid, lambda x: F.relu6(x + 3) / 6),  # the vjp of F.hardsigmoid has 1 / 6 to seven digits only
    (HardSwish, F.hardswish),
    (Softsign, F.softsign),
    (Selu, F.selu),
    (LeakyRelu(), F.leaky_relu),
    (LeakyRelu(0.3), lambda x: F.leaky_relu(x, 0.3)),
    (Elu(), F.elu),
    (Elu(0.7), lambda x: F.elu(x, 0.7)),
    (Squareplus(), lambda x: squareplus(x, 4)),
    (Squareplus(1.5), lambda x: squareplus(x, 1.5)),
    (PRelu(), lambda x, slope: last_first(F.prelu)(x, slope)),
    (Identity, lambda x: x),
    (Glu(), F.glu),
    (Glu(Gelu), lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1])),
    (Glu(Silu), lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1])),
    (Glu(Tanh), lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1].tanh()),
    (Maxout(2), lambda x: x.unflatten(-1, (2, -1)).amax(-2)),
    (Maxout(3), lambda x: x.unflatten(-1, (3, -1)).amax(-2)),
    (Softmax, lambda x: F.softmax(x, -1)),
    (LogSoftmax, lambda x: F.log_softmax(x, -1)),
]
SHAPES = [(5, 12), (4, 7, 6), (3, 2, 5, 18)]


@pytest.mark.parametrize("scale", [0.1, 1, 10, 1000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("layer", "reference"), ELEMENTWISE, ids=[repr(layer) for layer, _ in ELEMENTWISE])
def test_activations(
    layer: Layer[Any, Any], reference: Reference, shape: tuple[int, ...], scale: float, compared: Compared
) -> None:
    """From where all is almost linear to where all is saturated."""
    compared.layer(layer, scale * np.random.default_rng(2).standard_normal(shape), reference)


ENDS = [-1e4, -300, -40, -8, -1, 1, 8, 40, 300, 1e4]
SPANS = [*zip(ENDS, ENDS[1:], [1_001] * 9), (-8, 8, 80_001)]
"""From where to where in how many steps; large arrays are taken in pieces."""


@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize(("layer", "reference"), ELEMENTWISE[:19], ids=[repr(layer) for layer, _ in ELEMENTWISE[:19]])
def test_the_line(
    layer: Layer[Any, Any], reference: Reference, span: tuple[float, float, int], compared: Compared
) -> None:
    """In parts, since numbers are compared to the largest."""
    compared.layer(layer, np.linspace(*span)[:, None], reference)


@pytest.mark.parametrize(("layer", "reference"), ELEMENTWISE[:20], ids=[repr(layer) for layer, _ in ELEMENTWISE[:20]])
def test_kinks(layer: Layer[Any, Any], reference: Reference, compared: Compared) -> None:
    """The same side is taken where there are two derivatives."""
    compared.layer(layer, np.array([[-3.0, -1.0, -0.0, 0.0, 1.0, 3.0]]), reference)


@pytest.mark.parametrize("features", [2, 95, 97, 300])
@pytest.mark.parametrize("shift", [0, -1e4])
@pytest.mark.parametrize(("layer", "reference"), ELEMENTWISE[-2:], ids=["Softmax", "LogSoftmax"])
def test_rows(layer: Layer[Any, Any], reference: Reference, features: int, shift: float, compared: Compared) -> None:
    """Rows short and long, and numbers whose exponentials are all 0."""
    compared.layer(layer, shift + 3 * np.random.default_rng(3).standard_normal((7, features)), reference)


# --- dense -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("features", [1, 4, 65])
@pytest.mark.parametrize("shape", [(1, 3), (5, 3), (5, 7, 3), (5, 2, 7, 3), (130, 70)], ids=str)
def test_dense(shape: tuple[int, ...], features: int, biased: bool, compared: Compared) -> None:
    layer = Dense(features, bias_init=normal(1.0) if biased else None)
    compared.layer(layer, np.random.default_rng(4).standard_normal(shape), lambda x, w, *b: F.linear(x, w.T, *b))


# --- shapes ----------------------------------------------------------------------------------------------------------

SHAPED: list[tuple[Layer[Any, Any], tuple[int, ...], Reference]] = [
    (Flatten, (5, 4, 3), lambda x: x.flatten(1)),
    (Flatten, (5, 4), lambda x: x.flatten(1)),
    (Flatten, (5,), lambda x: x[:, None]),
    (Reshape((2, 6)), (5, 4, 3), lambda x: x.unflatten(1, (2, 2)).reshape(5, 2, 6)),
    (Reshape((3, -1, 2)), (5, 4, 6), lambda x: x.reshape(5, 3, 4, 2)),
    (Transpose((1, 0)), (5, 4, 3), lambda x: x.mT),
    (Transpose((2, 0, 1)), (5, 4, 3, 2), lambda x: x.permute(0, 3, 1, 2)),
    (Transpose((1, 3, 0, 2)), (5, 4, 3, 2, 6), lambda x: x.permute(0, 2, 4, 1, 3)),
]


@pytest.mark.parametrize(("layer", "shape", "reference"), SHAPED, ids=[f"{layer!r} {s}" for layer, s, _ in SHAPED])
def test_shapes(layer: Layer[Any, Any], shape: tuple[int, ...], reference: Reference, compared: Compared) -> None:
    compared.layer(layer, np.random.default_rng(5).standard_normal(shape), reference)
