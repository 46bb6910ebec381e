"""Pooling and images of other sizes against PyTorch in float64: outputs and gradients, over tables of options."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn.contract import Layer
from fnn.layers.pool import (
    AvgPool1D,
    AvgPool2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    MaxPool1D,
    MaxPool2D,
)
from fnn.layers.resample import AdaptiveAvgPool2D, Upsample2D, ZeroPad2D
from tests.reference.comparison import Compared, Reference, last_first

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

SPACE: dict[int, tuple[int, ...]] = {1: (13,), 2: (9, 11)}
SIZES: dict[int, list[Any]] = {1: [1, 2, 3, 5], 2: [1, 2, 3, (3, 2), (2, 5), (9, 11)]}
STRIDES: dict[int, list[Any]] = {1: [None, 1, 2, 4], 2: [None, 1, 2, (1, 3), (3, 2)]}
PADDINGS: dict[int, list[Any]] = {1: [0, 1, 2], 2: [0, 1, (1, 0), (0, 2)]}


def numbers(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape)


def table(axes: int) -> list[tuple[int, Any, Any, Any]]:
    """Every combination of size, stride and padding; they allow padding up to half of the size."""
    return [
        (axes, size, stride, padding)
        for size, stride, padding in product(SIZES[axes], STRIDES[axes], PADDINGS[axes])
        if all(2 * p <= n for p, n in zip(np.broadcast_to(padding, axes), np.broadcast_to(size, axes)))
    ]


WINDOWS = [*table(1), *table(2)]


def pads(axes: int, padding: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(p), int(p)) for p in np.broadcast_to(padding, axes))


@pytest.mark.parametrize(("axes", "size", "stride", "padding"), WINDOWS, ids=str)
def test_maxima(axes: int, size: Any, stride: Any, padding: Any, compared: Compared) -> None:
    layer = {1: MaxPool1D, 2: MaxPool2D}[axes](size, stride, pads(axes, padding))
    operation = {1: F.max_pool1d, 2: F.max_pool2d}[axes]
    compared.layer(layer, numbers(3, *SPACE[axes], 2), last_first(lambda x: operation(x, size, stride, padding)))


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize(("axes", "size", "stride", "padding"), WINDOWS, ids=str)
def test_means(axes: int, size: Any, stride: Any, padding: Any, count: bool, compared: Compared) -> None:
    layer = {1: AvgPool1D, 2: AvgPool2D}[axes](size, stride, pads(axes, padding), count)
    operation = {1: F.avg_pool1d, 2: F.avg_pool2d}[axes]

    @last_first
    def theirs(x: Any) -> Any:
        return operation(x, size, stride, padding, count_include_pad=count)

    compared.layer(layer, numbers(3, *SPACE[axes], 2), theirs)


@pytest.mark.parametrize("sides", [((0, 1), (1, 0)), ((2, 1), (0, 2)), ((1, 2), (2, 2))], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "mean", "mean with zeros"])
def test_padding_of_unequal_sides(kind: str, stride: int, sides: Any, compared: Compared) -> None:
    """Theirs is the same on both sides, so theirs is padded before."""
    (top, bottom), (left, right) = sides

    def framed(x: Any, value: float = 0.0) -> Any:
        return F.pad(x, (left, right, top, bottom), value=value)

    def maxima(x: Any) -> Any:
        return F.max_pool2d(framed(x, -np.inf), 3, stride)

    def means(x: Any) -> Any:
        return F.avg_pool2d(framed(x), 3, stride) / F.avg_pool2d(framed(torch.ones_like(x)), 3, stride)

    def means_with_zeros(x: Any) -> Any:
        return F.avg_pool2d(framed(x), 3, stride)

    layer, reference = {
        "max": (MaxPool2D(3, stride, sides), maxima),
        "mean": (AvgPool2D(3, stride, sides), means),
        "mean with zeros": (AvgPool2D(3, stride, sides, True), means_with_zeros),
    }[kind]
    compared.layer(layer, numbers(3, 9, 11, 2), last_first(reference))


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_many_images(pool: str, compared: Compared) -> None:
    """More than are pooled together."""
    layer = {"max": MaxPool2D(3, 2, 1), "mean": AvgPool2D(3, 2, 1, True)}[pool]
    operation = {"max": F.max_pool2d, "mean": F.avg_pool2d}[pool]
    compared.layer(layer, numbers(40, 33, 31, 7), last_first(lambda x: operation(x, 3, 2, 1)))


GLOBAL: list[tuple[Layer[Any, Any], int, Reference]] = [
    (GlobalMaxPool1D, 1, lambda x: F.adaptive_max_pool1d(x.mT, 1)[..., 0]),
    (GlobalAvgPool1D, 1, lambda x: F.adaptive_avg_pool1d(x.mT, 1)[..., 0]),
    (GlobalMaxPool2D, 2, lambda x: F.adaptive_max_pool2d(x.movedim(-1, 1), 1)[..., 0, 0]),
    (GlobalAvgPool2D, 2, lambda x: F.adaptive_avg_pool2d(x.movedim(-1, 1), 1)[..., 0, 0]),
]


@pytest.mark.parametrize(("layer", "axes", "reference"), GLOBAL, ids=[repr(layer) for layer, _, _ in GLOBAL])
@pytest.mark.parametrize("small", [False, True])
def test_everything(layer: Layer[Any, Any], axes: int, reference: Reference, small: bool, compared: Compared) -> None:
    space = (1,) * axes if small else SPACE[axes]
    compared.layer(layer, numbers(3, *space, 2), reference)


@pytest.mark.parametrize("out", [1, 2, 3, 5, 7, (4, 3), (1, 6), (9, 11), (12, 14)], ids=str)
@pytest.mark.parametrize("space", [(9, 11), (8, 6), (1, 5)], ids=str)
def test_adaptive_means(out: Any, space: tuple[int, int], compared: Compared) -> None:
    theirs = last_first(lambda x: F.adaptive_avg_pool2d(x, out))
    compared.layer(AdaptiveAvgPool2D(out), numbers(3, *space, 2), theirs)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 7, (2, 3), (1, 5)], ids=str)
@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("space", [(9, 11), (8, 6), (1, 5)], ids=str)
def test_enlargement(method: Any, factor: Any, space: tuple[int, int], compared: Compared) -> None:
    """Interpolated between the centres of pixels: theirs without `align_corners`."""
    options = {"align_corners": False} if method == "bilinear" else {}
    theirs = last_first(lambda x: F.interpolate(x, scale_factor=factor, mode=method, **options))
    compared.layer(Upsample2D(factor, method), numbers(3, *space, 2), theirs)


@pytest.mark.parametrize("sides", [0, 1, 3, ((0, 1), (2, 3)), ((4, 0), (0, 1))], ids=str)
def test_a_frame_of_zeros(sides: Any, compared: Compared) -> None:
    (top, bottom), (left, right) = ((sides, sides),) * 2 if isinstance(sides, int) else sides
    theirs = last_first(lambda x: F.pad(x, (left, right, top, bottom)))
    compared.layer(ZeroPad2D(sides), numbers(3, 4, 5, 2), theirs)
