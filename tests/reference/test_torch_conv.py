"""Convolutions against PyTorch, float64: outputs and all gradients, over a table of options."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn.layers.conv import Conv1D, Conv2D, Conv3D, ConvTranspose1D, ConvTranspose2D, DepthwiseConv2D
from tests.reference.comparison import Compared, last_first

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

LAYERS: dict[tuple[int, bool], Any] = {
    (1, False): Conv1D,
    (2, False): Conv2D,
    (3, False): Conv3D,
    (1, True): ConvTranspose1D,
    (2, True): ConvTranspose2D,
}

# channels and features for (ordinary, two groups, depthwise with three features a channel)
WIDTHS = [(4, 6, 1), (4, 6, 2), (3, 9, 3)]
KERNELS: dict[int, list[tuple[int, ...]]] = {
    1: [(1,), (3,), (4,)],
    2: [(1, 1), (3, 2), (2, 5)],
    3: [(1, 1, 1), (2, 3, 2)],
}
SPACE: dict[int, tuple[int, ...]] = {1: (13,), 2: (9, 11), 3: (6, 5, 7)}
BATCH = 5


def table() -> list[tuple[int, bool, tuple[int, ...], int, int, int, tuple[int, int, int]]]:
    """Every combination of kernel, stride, dilation, padding and groups, for every kind."""
    return [
        (axes, transpose, kernel, stride, dilation, padding, width)
        for axes, transpose in [*LAYERS]
        for kernel in KERNELS[axes]
        for stride, dilation, padding, width in product((1, 2, 3), (1, 2), (0, 1), WIDTHS)
        if not transpose or min(((n - 1) * stride + (k - 1) * dilation + 1 for n, k in zip(SPACE[axes], kernel))) > 2
        if transpose or all((k - 1) * dilation < n + 2 * padding for n, k in zip(SPACE[axes], kernel))
    ]


def to_torch(weight: Any, groups: int, transpose: bool) -> Any:
    """`(*size, in / groups, out)` as torch has it: (out, in / groups, *size), transposed (in, out / groups, *size)."""
    if transpose:
        *size, channels, features = weight.shape
        parts = weight.reshape(*size, channels, groups, features // groups)
        weight = parts.movedim(-2, -3).reshape(*size, channels * groups, features // groups).swapaxes(-1, -2)
    return weight.movedim((-1, -2), (0, 1))


@pytest.mark.parametrize(("axes", "transpose", "kernel", "stride", "dilation", "padding", "width"), table(), ids=str)
def test_agrees_with_torch(
    axes: int,
    transpose: bool,
    kernel: tuple[int, ...],
    stride: int,
    dilation: int,
    padding: int,
    width: tuple[int, int, int],
    compared: Compared,
) -> None:
    channels, features, groups = width
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    layer = LAYERS[axes, transpose](features, kernel, padding=((padding, padding),) * axes, **options)
    operation = getattr(F, f"conv_transpose{axes}d" if transpose else f"conv{axes}d")

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        return operation(x, to_torch(weight, groups, transpose), bias, padding=padding, **options)

    x = np.random.default_rng(0).standard_normal((BATCH, *SPACE[axes], channels))
    compared.layer(layer, x, theirs)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(
    ("axes", "kernel"), [(axes, kernel) for axes, kernels in KERNELS.items() for kernel in kernels], ids=str
)
def test_same(axes: int, kernel: tuple[int, ...], dilation: int, compared: Compared) -> None:
    """The odd pixel of padding goes after the image in theirs too."""
    layer = LAYERS[axes, False](6, kernel, padding="same", dilation=dilation, groups=2)
    operation = getattr(F, f"conv{axes}d")

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        return operation(x, to_torch(weight, 2, False), bias, padding="same", dilation=dilation, groups=2)

    compared.layer(layer, np.random.default_rng(0).standard_normal((BATCH, *SPACE[axes], 4)), theirs)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(product((1, 2, 5), (1, 2), (1, 3))))
def test_causal(kernel: int, stride: int, dilation: int, compared: Compared) -> None:
    layer = Conv1D(6, kernel, stride=stride, padding="causal", dilation=dilation)

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        padded = F.pad(x, ((kernel - 1) * dilation, 0))
        return F.conv1d(padded, to_torch(weight, 1, False), bias, stride=stride, dilation=dilation)

    compared.layer(layer, np.random.default_rng(0).standard_normal((BATCH, 13, 4)), theirs)


@pytest.mark.parametrize("stride", [1, 2, (2, 3)])
@pytest.mark.parametrize("sides", [((0, 1), (2, 0)), ((3, 1), (1, 2))])
def test_padding_of_unequal_sides_without_bias(sides: Any, stride: Any, compared: Compared) -> None:
    (top, bottom), (left, right) = sides
    layer = Conv2D(6, (3, 2), stride=stride, padding=sides, bias_init=None)

    @last_first
    def theirs(x: Any, weight: Any) -> Any:
        return F.conv2d(F.pad(x, (left, right, top, bottom)), to_torch(weight, 1, False), stride=stride)

    compared.layer(layer, np.random.default_rng(0).standard_normal((BATCH, 9, 11, 4)), theirs)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("stride", [2, 3])
def test_output_padding(stride: int, padding: int, extra: int, compared: Compared) -> None:
    """What they call so is a pixel less of padding after the image."""
    layer = ConvTranspose2D(6, 4, stride=stride, padding=((padding, padding - extra),) * 2)

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        options = {"stride": stride, "padding": padding, "output_padding": extra}
        return F.conv_transpose2d(x, to_torch(weight, 1, True), bias, **options)

    compared.layer(layer, np.random.default_rng(0).standard_normal((BATCH, 5, 6, 3)), theirs)


@pytest.mark.parametrize(("multiplier", "stride", "dilation"), list(product((1, 2), (1, 2), (1, 2))))
def test_depthwise(multiplier: int, stride: int, dilation: int, compared: Compared) -> None:
    layer = DepthwiseConv2D(3, multiplier=multiplier, stride=stride, padding=1, dilation=dilation)

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        options = {"stride": stride, "padding": 1, "dilation": dilation, "groups": 4}
        return F.conv2d(x, to_torch(weight, 4, False), bias, **options)

    compared.layer(layer, np.random.default_rng(0).standard_normal((BATCH, 9, 11, 4)), theirs)


def test_the_table_is_wide() -> None:
    found = [case[:2] for case in table()]
    assert all(found.count(kind) >= 60 for kind in LAYERS)
