"""Convolutions against their definition in loops, and the laws that tie them to each other and to `Dense`."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL, Layer
from fnn.initializers import normal
from fnn.layers import abreast, blocks, correlate
from fnn.layers.conv import (
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    DepthwiseConv2D,
    SeparableConv2D,
)
from fnn.layers.dense import Dense
from fnn.layers.window import Geometry, geometry, window
from fnn.random import Key
from fnn.types import EMPTY, Array, Params, ShapeError

KEY = Key(0)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def start(layer: Layer[Array, Array], in_shape: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    """Parameters in float64, the bias not zero."""
    params = tree.cast(layer.init(KEY, in_shape), np.float64)
    moved: dict[str, Any] = tree.map(lambda a: a + draw(*a.shape, seed=seed), params)
    return moved


def run(layer: Layer[Array, Array], params: Params, x: Array, dy: Array) -> tuple[Array, Params, Array]:
    y, _, cache = layer.forward(params, EMPTY, x, EVAL)
    return (y, *layer.vjp(params, cache, dy))


# --- the definition --------------------------------------------------------------------------------------------------


def by_definition(x: Array, weight: Array, dy: Array, g: Geometry, groups: int) -> tuple[Array, Array, Array]:
    """y, dW and dx, one window, one offset and one channel at a time."""
    features, channels = weight.shape[-1], weight.shape[-2]
    y, dw, dx = np.zeros(dy.shape), np.zeros(weight.shape), np.zeros(x.shape)
    for o in product(*map(range, g.outside)):
        for k in product(*map(range, g.size)):
            i = tuple(a * s + b * d - p for a, s, b, d, (p, _) in zip(o, g.stride, k, g.dilation, g.pads))
            if not all(0 <= place < n for place, n in zip(i, g.inside)):
                continue
            for f in range(features):
                first = f // (features // groups) * channels
                for c in range(channels):
                    here, there, tap = at(*i, first + c), at(*o, f), (*k, c, f)
                    y[there] += x[here] * weight[tap]
                    dw[tap] += x[here] @ dy[there]
                    dx[here] += dy[there] * weight[tap]
    return y, dw, dx


def at(*i: int) -> Any:
    """The index of a number of every image."""
    return (slice(None), *i)


SIZES: dict[int, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {
    1: ((9,), [(1,), (4,)]),
    2: ((6, 14), [(3, 2), (1, 3), (2, 1)]),
    3: ((3, 4, 6), [(2, 1, 3)]),
}
OPTIONS: list[tuple[int, tuple[int, ...], int, int, Any, int]] = [
    (axes, kernel, stride, dilation, padding, groups)
    for axes, (_, kernels) in SIZES.items()
    for kernel in kernels
    for stride, dilation, padding, groups in product((1, 2, 3), (1, 2), ("same", "valid", 2), (1, 2, 4))
    if padding != "valid" or all((k - 1) * dilation < n for k, n in zip(kernel, SIZES[axes][0]))
]
WAYS = {
    "as it is": {},
    "small blocks": {(blocks, "SCRATCH"): 60},
    "a row at a time": {(blocks, "SCRATCH"): 1, (correlate, "_SMALL"): 700, (correlate, "_FEW"): 0},
    "cut": {(blocks, "SCRATCH"): 2000, (correlate, "_SMALL"): 5000, (correlate, "_FEW"): 0},
    "abreast": {(abreast, "IMAGES"): 1, (abreast, "ROW"): 1},
    "abreast, some rows": {(abreast, "IMAGES"): 1, (abreast, "ROW"): 1, (abreast, "LINES"): 1500},
    "abreast, a row at a time": {(abreast, "IMAGES"): 1, (abreast, "ROW"): 1, (abreast, "LINES"): 1},
}
"""Sizes from which on something is done in another way."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axes", SIZES)
def test_the_three_products_are_what_they_say(axes: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every combination of options, in every way to compute them: blocks of all sizes, products cut or whole."""
    for (owner, name), value in WAYS[way].items():
        monkeypatch.setattr(owner, name, value)
    options = [option for option in OPTIONS if option[0] == axes][:: 1 if way in ("as it is", "abreast") else 3]
    assert len(options) >= 15
    for _, kernel, stride, dilation, padding, groups in options:
        space = SIZES[axes][0]
        shape = window("", "kernel", axes, kernel, stride, padding, dilation)
        g = geometry("", shape, (*space, 4))
        x, weight = draw(3, *space, 4), draw(*kernel, 4 // groups, 8, seed=1)
        dy, bias = draw(3, *g.outside, 8, seed=2), draw(8, seed=3)
        y, dw, dx = by_definition(x, weight, dy, g, groups)
        message = f"{kernel=} {stride=} {dilation=} {padding=} {groups=}"
        found = correlate.correlate(x, weight, bias, g, groups)
        np.testing.assert_allclose(found, y + bias, atol=1e-12, err_msg=message)
        found = correlate.correlate_weight(x, dy, g, groups)
        np.testing.assert_allclose(found, dw, atol=1e-11, err_msg=message)
        found = correlate.correlate_input(dy, weight, None, g, groups)
        np.testing.assert_allclose(found, dx, atol=1e-12, err_msg=message)


@pytest.mark.parametrize(
    ("in_shape", "features", "kernel", "options"),
    [
        ((28, 29, 1), 16, 5, {"padding": "valid"}),
        ((12, 13, 16), 32, 5, {"padding": "valid"}),
        ((30, 31, 32), 24, 3, {}),
        ((30, 31, 32), 24, 3, {"stride": 2}),
        ((30, 31, 32), 64, (2, 3), {"groups": 32}),
        ((30, 31, 32), 64, 3, {"groups": 4, "dilation": 2}),
        ((90, 91, 48), 64, 3, {}),
        ((4, 3, 256), 128, 3, {}),
        ((29, 31, 64), 128, 1, {}),
    ],
)
def test_real_sizes_agree_in_both_precisions(
    in_shape: tuple[int, ...], features: int, kernel: Any, options: dict[str, Any]
) -> None:
    """All three are derivatives of one trilinear form, `<dy, y> = <dW, W> = <dx, x>`; float32 is float64 rounded."""
    layer = Conv2D(features, kernel, bias_init=None, **options)
    params, x = start(layer, in_shape), draw(7, *in_shape)
    dy = draw(7, *layer.out_shape(in_shape), seed=5)
    y, grads, dx = run(layer, params, x, dy)
    form, scale = np.vdot(y, dy), np.linalg.norm(y) * np.linalg.norm(dy)
    assert abs(form - np.vdot(grads["weight"], params["weight"])) < 1e-12 * scale
    assert abs(form - np.vdot(dx, x)) < 1e-12 * scale
    low = run(layer, tree.cast(params, np.float32), x.astype(np.float32), dy.astype(np.float32))
    for exact, rounded in zip((y, grads["weight"], dx), (low[0], low[1]["weight"], low[2])):
        assert rounded.dtype == np.float32
        assert np.linalg.norm(rounded - exact) < 3e-6 * np.linalg.norm(exact)


# --- what they are next to other things ------------------------------------------------------------------------------


def test_a_kernel_of_one_pixel_is_a_dense_layer() -> None:
    conv, dense, x, dy = Conv2D(7, 1), Dense(7), draw(5, 6, 8, 3), draw(5, 6, 8, 7, seed=1)
    params = start(conv, (6, 8, 3))
    flat = {"weight": params["weight"][0, 0], "bias": params["bias"]}
    y, grads, dx = run(conv, params, x, dy)
    y2, grads2, dx2 = run(dense, flat, x, dy)
    np.testing.assert_allclose(y, y2, atol=1e-12)
    np.testing.assert_allclose(dx, dx2, atol=1e-12)
    np.testing.assert_allclose(grads["weight"][0, 0], grads2["weight"], atol=1e-11)
    np.testing.assert_allclose(grads["bias"], grads2["bias"], atol=1e-11)


def test_a_kernel_of_the_size_of_the_image_is_a_dense_layer_over_all_of_it() -> None:
    conv, x = Conv2D(7, (6, 8), padding="valid"), draw(5, 6, 8, 3)
    params = start(conv, (6, 8, 3))
    y = conv.apply(params, x)
    flat = {"weight": params["weight"].reshape(-1, 7), "bias": params["bias"]}
    np.testing.assert_allclose(y[:, 0, 0], Dense(7).apply(flat, x.reshape(5, -1)), atol=1e-12)


def test_groups_are_convolutions_of_parts_of_the_channels() -> None:
    layer, x = Conv2D(9, 3, groups=3), draw(5, 7, 8, 6)
    params = start(layer, (7, 8, 6))
    parts = [
        Conv2D(3, 3).apply({"weight": params["weight"][..., f], "bias": params["bias"][f]}, x[..., c])
        for c, f in ((slice(2 * i, 2 * i + 2), slice(3 * i, 3 * i + 3)) for i in range(3))
    ]
    np.testing.assert_allclose(layer.apply(params, x), np.concatenate(parts, -1), atol=1e-12)


def test_depthwise_has_as_many_groups_as_channels() -> None:
    x, dy = draw(5, 7, 8, 3), draw(5, 7, 8, 6, seed=1)
    depthwise, grouped = DepthwiseConv2D(3, multiplier=2), Conv2D(6, 3, groups=3)
    params = start(depthwise, (7, 8, 3))
    assert tree.map(np.shape, params) == tree.map(np.shape, grouped.init(KEY, (7, 8, 3)))
    for one, other in zip(tree.leaves(run(depthwise, params, x, dy)), tree.leaves(run(grouped, params, x, dy))):
        np.testing.assert_array_equal(one, other)


def test_separable_is_depthwise_then_pointwise() -> None:
    x = draw(5, 7, 8, 3)
    layer = SeparableConv2D(4, 3, multiplier=2, stride=2)
    params = start(layer, (7, 8, 3))
    assert sorted(path for path, _ in tree.items(params)) == ["depthwise/weight", "pointwise/bias", "pointwise/weight"]
    middle = DepthwiseConv2D(3, multiplier=2, stride=2, bias_init=None).apply(params["depthwise"], x)
    np.testing.assert_allclose(layer.apply(params, x), Conv2D(4, 1).apply(params["pointwise"], middle), atol=1e-12)


def test_axes_of_size_one_change_nothing() -> None:
    params, x = start(Conv1D(4, 3), (11, 2)), draw(5, 11, 2)
    y = Conv1D(4, 3, stride=2).apply(params, x)
    wide = {"weight": params["weight"][:, None, None], "bias": params["bias"]}
    y3 = Conv3D(4, (3, 1, 1), stride=(2, 1, 1)).apply(wide, x[:, :, None, None])
    np.testing.assert_allclose(y3[:, :, 0, 0], y, atol=1e-12)


@pytest.mark.parametrize("padding", ["same", "valid", 1, ((2, 0), (1, 1))])
@pytest.mark.parametrize("stride", [1, 2, (3, 2)])
def test_transposed_is_the_adjoint(padding: Any, stride: Any) -> None:
    """It is the map dy -> dx of the convolution that holds its weight with in and out exchanged."""
    up = ConvTranspose2D(4, 3, stride=stride, padding=padding, bias_init=None)
    down = Conv2D(3, 3, stride=stride, padding=padding, bias_init=None)
    params, z = start(up, (6, 8, 3)), draw(5, 6, 8, 3)
    large = up.out_shape((6, 8, 3))
    assert down.out_shape(large) == (6, 8, 3)
    swapped = {"weight": params["weight"].swapaxes(-1, -2)}
    x = draw(5, *large, seed=1)
    np.testing.assert_allclose(run(down, swapped, x, z)[2], up.apply(params, z), atol=1e-12)


def test_sizes_of_transposed_outputs() -> None:
    assert ConvTranspose2D(4, 3, stride=2).out_shape((6, 8, 3)) == (12, 16, 4)
    assert ConvTranspose2D(4, 3, stride=2, padding=((1, 0), (1, 0))).out_shape((6, 8, 3)) == (12, 16, 4)
    assert ConvTranspose2D(4, 3, stride=2, padding=1).out_shape((6, 8, 3)) == (11, 15, 4)
    assert ConvTranspose2D(4, (1, 5), stride=(3, 2), padding="valid", dilation=2).out_shape((6, 8, 3)) == (16, 23, 4)
    assert ConvTranspose1D(4, 3, stride=4).out_shape((6, 3)) == (24, 4)


@pytest.mark.parametrize(("size", "stride"), [(9, 1), (9, 2), (10, 3), (10, 4)])
def test_same_gives_one_output_for_every_stride(size: int, stride: int) -> None:
    assert Conv1D(4, 3, stride=stride).out_shape((size, 2)) == (-(-size // stride), 4)
    assert Conv1D(4, 5, stride=stride, padding="causal", dilation=2).out_shape((size, 2)) == (-(-size // stride), 4)


def test_causal_sees_no_later_step_and_all_that_it_should() -> None:
    layer, x = Conv1D(4, 3, padding="causal", dilation=2), draw(5, 11, 2)
    params = start(layer, (11, 2))
    y = layer.apply(params, x)
    for step in range(11):
        other = x.copy()
        other[:, step] += 1
        changed = np.abs(layer.apply(params, other) - y).max(axis=(0, 2)) > 1e-9
        assert [t for t in range(11) if changed[t]] == [t for t in (step, step + 2, step + 4) if t < 11]


def test_it_moves_with_the_image() -> None:
    layer = Conv2D(4, 3, padding="valid", stride=2)
    params, x = start(layer, (13, 14, 3)), draw(5, 13, 14, 3)
    np.testing.assert_allclose(layer.apply(params, x[:, 2:, 4:]), layer.apply(params, x)[:, 1:, 2:], atol=1e-12)


SOME = [Conv2D(4, 3), Conv2D(4, 3, stride=2), DepthwiseConv2D(3), ConvTranspose2D(4, 3, stride=3)]


@pytest.mark.parametrize("layer", SOME)
def test_the_order_in_memory_does_not_matter(layer: Layer[Array, Array]) -> None:
    """Views, mirrored and transposed arrays, and gradients that are repeated without being copied."""
    params = start(layer, (7, 8, 3))
    x = draw(3, 8, 7, 10).transpose(3, 2, 1, 0)[::2, :, ::-1]
    dy = np.broadcast_to(draw(5, 1, 1, layer.out_shape((7, 8, 3))[-1]), (5, *layer.out_shape((7, 8, 3))))
    for one, other in zip(tree.leaves(run(layer, params, x, dy)), tree.leaves(run(layer, params, x.copy(), dy.copy()))):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_an_empty_batch_is_a_batch() -> None:
    for layer in (*SOME, Conv1D(4, 3)):
        in_shape = (7, 2) if layer.kind == "Conv1D" else (7, 8, 2)
        params, out = start(layer, in_shape), layer.out_shape(in_shape)
        y, grads, dx = run(layer, params, np.zeros((0, *in_shape)), np.zeros((0, *out)))
        assert y.shape == (0, *out) and dx.shape == (0, *in_shape)
        assert not any(leaf.any() for leaf in tree.leaves(grads))


def test_he_normal_keeps_the_variance_of_rectified_inputs() -> None:
    x = np.maximum(draw(5, 16, 16, 32), 0) * np.sqrt(2)  # the mean square is 1
    layer = Conv2D(1000, 3, padding="valid")
    y = layer.apply(tree.cast(layer.init(KEY, (16, 16, 32)), np.float64), x)
    assert 1.85 < np.square(y).mean() < 2.15


# --- errors ----------------------------------------------------------------------------------------------------------


WRONG: dict[str, Any] = {"full": "full", "causal": "causal", "list": [0.0]}
"""What a type checker would refuse."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 3), "Conv2D: expected features to be a positive integer, got 0"),
        (lambda: Conv2D(4, 0), "Conv2D: expected kernel to be a positive integer, got 0"),
        (lambda: Conv2D(4, (3, 3, 3)), "Conv2D: expected kernel to be an integer or 2 of them, got (3, 3, 3)"),
        (lambda: Conv2D(4, 3, stride=0), "Conv2D: expected stride to be a positive integer, got 0"),
        (lambda: Conv2D(4, 3, stride=(1, -2)), "Conv2D: expected stride to be a positive integer, got -2"),
        (lambda: Conv2D(4, 3, dilation=0), "Conv2D: expected dilation to be a positive integer, got 0"),
        (lambda: Conv2D(4, 3, groups=3), "Conv2D: expected features divisible by groups, got 4 and 3"),
        (lambda: Conv2D(4, 3, groups=0), "Conv2D: expected groups to be a positive integer, got 0"),
        (lambda: Conv2D(4, 3, padding=-1), "Conv2D: expected padding to be a non-negative integer or 2 pairs"),
        (lambda: Conv2D(4, 3, padding=((1, 1),)), "Conv2D: expected padding to be a non-negative integer or 2 pairs"),
        (lambda: Conv2D(4, 3, padding=WRONG["full"]), "Conv2D: expected padding 'same' or 'valid', an integer"),
        (lambda: Conv2D(4, 3, padding=WRONG["causal"]), "Conv2D: expected padding 'same' or 'valid', an integer"),
        (lambda: Conv1D(4, 3, padding=WRONG["full"]), "Conv1D: expected padding 'same', 'valid' or 'causal'"),
        (lambda: ConvTranspose1D(4, 3, padding=WRONG["causal"]), "ConvTranspose1D: expected padding 'same' or 'valid'"),
        (lambda: DepthwiseConv2D(3, multiplier=0), "DepthwiseConv2D: expected multiplier to be a positive integer"),
        (lambda: SeparableConv2D(0, 3), "SeparableConv2D: expected features to be a positive integer, got 0"),
    ],
)
def test_bad_hyper_parameters(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def refused(error: type[Exception], message: str) -> Any:
    return pytest.raises(error, match=re.escape(message))


def test_a_wrong_input_is_named() -> None:
    layer = Conv2D(4, 3, padding="valid", weight_init=normal(0.1))
    params = layer.init(KEY, (7, 8, 3))
    with refused(ShapeError, "Conv2D(4, 3): expected input (batch, height, width, 3), got (5, 7, 8, 2)"):
        layer.apply(params, np.zeros((5, 7, 8, 2), np.float32))
    with refused(ShapeError, "Conv2D(4, 3): expected a padded input of at least (3, 3), got (2, 8, 3)"):
        layer.out_shape((2, 8, 3))
    with refused(ShapeError, "Conv2D(4, 3): expected channels divisible by groups=2, got (7, 8, 3)"):
        Conv2D(4, 3, groups=2).init(KEY, (7, 8, 3))
    with refused(ShapeError, "Conv2D(4, 3): expected an input shape (height, width, channels), got (7, 3)"):
        layer.out_shape((7, 3))
    with pytest.raises(ShapeError, match="expected an output of at least one pixel"):
        ConvTranspose2D(4, 1, padding=3).out_shape((6, 8, 3))
    with pytest.raises(TypeError, match="the parameters are float32, the input is float64"):
        layer.apply(params, np.zeros((5, 7, 8, 3)))
    with pytest.raises(TypeError, match="expected an array, got list"):
        layer.apply(params, WRONG["list"])


def test_repr() -> None:
    assert repr(Conv2D(4, 3)) == "Conv2D(4, 3)"
    assert repr(Conv2D(4, (3, 2), stride=2, padding="valid", bias_init=None)) == (
        "Conv2D(4, (3, 2), stride=2, padding='valid', bias_init=None)"
    )
    assert repr(DepthwiseConv2D(3, multiplier=2)) == "DepthwiseConv2D(3, multiplier=2)"
    assert repr(SeparableConv2D(8, 3, stride=2)) == "SeparableConv2D(8, 3, stride=2)"
