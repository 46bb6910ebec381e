"""Convolutions against PyTorch, float64: outputs and all gradients, over a table of options."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn.contract import EVAL, Layer
from fnn.layers.conv import Conv1D, Conv2D, Conv3D, ConvTranspose1D, ConvTranspose2D
from fnn.random import Key
from fnn.tree import cast
from fnn.types import EMPTY, Array

torch = pytest.importorskip("torch")

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


def to_torch(layer_weight: Array, groups: int, transpose: bool) -> Any:
    """`(*size, in / groups, out)` as torch has it: (out, in / groups, *size), transposed (in, out / groups, *size)."""
    if transpose:
        *size, channels, features = layer_weight.shape
        parts = layer_weight.reshape(*size, channels, groups, features // groups)
        layer_weight = np.moveaxis(parts, -2, -3).reshape(*size, channels * groups, features // groups).swapaxes(-1, -2)
    return torch.tensor(np.moveaxis(layer_weight, (-1, -2), (0, 1)).copy(), requires_grad=True)


def agree(layer: Layer[Array, Array], operation: Any, in_shape: tuple[int, ...], groups: int, transpose: bool) -> None:
    generator = np.random.default_rng(0)
    params = cast(layer.init(Key(1), in_shape), np.float64)
    params = {name: generator.standard_normal(value.shape) for name, value in params.items()}
    x = generator.standard_normal((BATCH, *in_shape))
    y, _, cache = layer.forward(params, EMPTY, x, EVAL)
    dy = generator.standard_normal(y.shape)
    grads, dx = layer.vjp(params, cache, dy)

    tx = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    tw = to_torch(params["weight"], groups, transpose)
    tb = torch.tensor(params["bias"], requires_grad=True)
    ty = operation(tx, tw, tb)
    ty.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
    dw = to_torch(grads["weight"], groups, transpose).detach().numpy()
    close(np.moveaxis(y, -1, 1), ty.detach().numpy())
    close(np.moveaxis(dx, -1, 1), tx.grad.numpy())
    close(dw, tw.grad.numpy())
    close(grads["bias"], tb.grad.numpy())


def close(mine: Array, theirs: Array) -> None:
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * float(np.abs(theirs).max()))


@pytest.mark.parametrize(("axes", "transpose"), LAYERS)
def test_agrees_with_torch(axes: int, transpose: bool, record_property: Any) -> None:
    functions = torch.nn.functional
    cases = [case for case in table() if case[:2] == (axes, transpose)]
    for _, _, kernel, stride, dilation, padding, (channels, features, groups) in cases:
        pads = ((padding, padding),) * axes
        layer = LAYERS[axes, transpose](
            features, kernel, stride=stride, dilation=dilation, padding=pads, groups=groups, bias_init=normal
        )
        name = f"conv_transpose{axes}d" if transpose else f"conv{axes}d"

        def operation(x: Any, w: Any, b: Any) -> Any:
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            return getattr(functions, name)(x, w, b, **options)

        agree(layer, operation, (*SPACE[axes], channels), groups, transpose)
    record_property("compared cases", len(cases))
    print(f"{len(cases)} cases compared")
    assert len(cases) >= 60


def normal(key: Key, shape: tuple[int, ...]) -> Array:
    return key.generator().standard_normal(shape).astype(np.float32)
