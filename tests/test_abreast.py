"""Images that stand abreast in memory: the same numbers as in any other order, and every layer keeps the order."""

from __future__ import annotations

import numpy as np
import pytest

from fnn import tree
from fnn.combinators import serial
from fnn.contract import Eval, Layer, Train
from fnn.layers import abreast
from fnn.layers.activation import Relu, Tanh
from fnn.layers.conv import Conv1D, Conv2D, ConvTranspose2D
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm
from fnn.layers.pool import AvgPool2D, MaxPool1D, MaxPool2D
from fnn.random import Key
from fnn.testing import check_vjp
from fnn.types import Array, Params, State
from tests.cases import activation

Images = Layer[Array, Array]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def side_by_side(x: Array) -> Array:
    """The same array, abreast in memory."""
    images = x if x.ndim == 4 else x[:, None]
    there = abreast.apart(np.ascontiguousarray(images.transpose(1, 3, 2, 0)))
    return there if x.ndim == 4 else there[:, 0]


def run(layer: Images, params: Params, state: State, x: Array, dy: Array, train: bool) -> list[Array]:
    y, after, cache = layer.forward(params, state, x, Train(Key(1)) if train else Eval())
    grads, dx = layer.vjp(params, cache, dy)
    return [y, dx, *tree.leaves(grads), *tree.leaves(after)]


ALL: dict[str, Images] = {repr(case.layer): case.layer for case in activation.CASES}
ELEMENTWISE = [layer for name, layer in ALL.items() if not name.endswith("Softmax")]

KEEP: list[tuple[Images, tuple[int, ...]]] = [
    *[(f, shape) for f in ELEMENTWISE for shape in ((5, 8, 3), (24, 24, 7))],
    (BatchNorm(), (5, 8, 3)),
    (BatchNorm(scale_init=None, bias_init=None), (5, 8, 3)),
    (BatchNorm(), (8, 3)),
    (GroupNorm(2), (5, 8, 4)),
    (GroupNorm(1), (8, 3)),
    (InstanceNorm(), (5, 8, 3)),
    (MaxPool2D(2), (6, 8, 3)),
    (MaxPool2D(3, 2, "same"), (5, 8, 3)),
    (MaxPool1D(2), (8, 3)),
    (AvgPool2D(2), (6, 8, 3)),
    (AvgPool2D(3, 2, "same"), (5, 8, 3)),
    (Conv2D(4, 3), (5, 8, 3)),
    (Conv2D(4, (3, 2), stride=2, padding=1), (5, 8, 3)),
    (Conv2D(4, 5, padding="valid", bias_init=None), (6, 12, 3)),
    (Conv2D(4, 1), (5, 8, 3)),
    (Conv1D(4, 3, padding="causal", dilation=2), (9, 3)),
    (ConvTranspose2D(4, 3, stride=2), (5, 8, 3)),
]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("layer", "in_shape"), KEEP, ids=repr)
def test_numbers_are_the_same_and_the_order_is_kept(layer: Images, in_shape: tuple[int, ...], train: bool) -> None:
    """Whichever of x and dy stand abreast; the batch is large enough for convolutions to take that way."""
    params, state = tree.cast(layer.init(Key(0), in_shape), np.float64), layer.init_state(in_shape)
    params = tree.map(lambda a: a + draw(*a.shape), params)
    x, dy = draw(17, *in_shape), draw(17, *layer.out_shape(in_shape), seed=1)
    alone = [run(layer, params, state, x[i : i + 1], dy[i : i + 1], False) for i in range(17)]
    whole = run(layer, params, state, x, dy, train)
    if not train:
        np.testing.assert_allclose(whole[0], np.concatenate([found[0] for found in alone]), atol=1e-12)
        np.testing.assert_allclose(whole[1], np.concatenate([found[1] for found in alone]), atol=1e-12)
    for some_x, some_dy in ((side_by_side(x), dy), (x, side_by_side(dy)), (side_by_side(x), side_by_side(dy))):
        found = run(layer, params, state, some_x, some_dy, train)
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-11)
        assert abreast.is_abreast(found[0]) or not abreast.is_abreast(some_x)
    assert abreast.is_abreast(found[1])


@pytest.mark.parametrize("layer", ELEMENTWISE, ids=repr)
def test_numbers_that_lie_in_any_way(layer: Images) -> None:
    """Reversed, cut out, repeated: the same as for a copy."""
    x = draw(60, 50, 30)
    for part in (x[::-1], x[:, ::2], x.transpose(2, 0, 1)[:, 3:], np.broadcast_to(x[0], x.shape), x[::-1, :, ::-1]):
        copy = np.ascontiguousarray(part)
        for mode in (Train(Key(0)), Eval()):
            y, _, cache = layer.forward({}, {}, part, mode)
            again, _, known = layer.forward({}, {}, copy, mode)
            np.testing.assert_array_equal(y, again)
            np.testing.assert_array_equal(layer.vjp({}, cache, part)[1], layer.vjp({}, known, copy)[1])
        np.testing.assert_array_equal(layer.apply({}, part), layer.apply({}, copy))


def test_a_network_changes_the_order_once() -> None:
    net = serial(Conv2D(4, 3), BatchNorm(), Relu, MaxPool2D(2), Conv2D(3, 3, padding="valid"), Relu)
    x = draw(16, 12, 20, 2).astype(np.float32)
    params, state = net.init(Key(0), x.shape[1:]), net.init_state(x.shape[1:])
    y, _, cache = net.forward(params, state, x, Train(Key(0)))
    assert y.shape == (16, 4, 8, 3) and y.dtype == np.float32
    assert abreast.is_abreast(y)
    assert abreast.is_abreast(net.vjp(params, cache, np.ones(y.shape, np.float32))[1])


def test_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "IMAGES", 1)
    monkeypatch.setattr(abreast, "ROW", 1)
    net = serial(Conv2D(4, 3, stride=2), BatchNorm(), Tanh, AvgPool2D(2), Conv2D(3, 2, padding="valid"))
    assert check_vjp(net, (8, 12, 2)) < 1e-7


def test_a_large_offset_costs_no_more_than_its_own_rounding() -> None:
    """In float32 at an offset of 1,000 deviations, as in any other order."""
    layer = BatchNorm()
    x = side_by_side((1000 + draw(64, 4, 8, 5)).astype(np.float32))
    params, state = layer.init(Key(2), (4, 8, 5)), layer.init_state((4, 8, 5))
    y = layer.forward(params, state, x, Train(Key(0)))[0]
    exact = layer.forward(tree.cast(params, np.float64), state, x.astype(np.float64), Train(Key(0)))[0]
    assert np.abs(y - exact).max() < 1e-3


def test_few_images_stay_as_they_are() -> None:
    layer = Conv2D(4, 3)
    y = layer.apply(layer.init(Key(0), (16, 16, 3)), draw(2, 16, 16, 3).astype(np.float32))
    assert y.flags.c_contiguous
