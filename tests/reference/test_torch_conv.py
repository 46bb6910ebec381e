"""Convolutions against PyTorch, float64: outputs and all gradients, over a table of options."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn.layers.conv import Conv1D, Conv2D, Conv3D, ConvTranspose1D, ConvTranspose2D
from tests.reference.comparison import Compared, last_first

torch: Any = pytest.importorskip("torch")

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
    operation = getattr(torch.nn.functional, f"conv_transpose{axes}d" if transpose else f"conv{axes}d")

    @last_first
    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        return operation(x, to_torch(weight, groups, transpose), bias, padding=padding, **options)

    x = np.random.default_rng(0).standard_normal((BATCH, *SPACE[axes], channels))
    compared.layer(layer, x, theirs)


def test_the_table_is_wide() -> None:
    found = [case[:2] for case in table()]
    assert all(found.count(kind) >= 60 for kind in LAYERS)
