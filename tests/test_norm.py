"""Normalisation: what the statistics are, how the layers follow from one another, what they refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import numpy as np
import pytest

from fnn import tree
from fnn.combinators import serial
from fnn.contract import Eval, Layer, Train
from fnn.initializers import constant, normal
from fnn.layers import norm
from fnn.layers.dense import Dense
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm, batch_norm_vjp
from fnn.random import Key
from fnn.testing import LawError, check_vjp
from fnn.types import Array, Params, ShapeError, State

TRAIN = Train(Key(0))
RANDOM: dict[str, Any] = {"scale_init": normal(1.0), "bias_init": normal(1.0)}


def draw(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def start(layer: Layer[Any, Any], in_shape: tuple[int, ...]) -> tuple[Params, State]:
    return tree.cast(layer.init(Key(2), in_shape), np.float64), tree.cast(layer.init_state(in_shape), np.float64)


def both(layer: Layer[Any, Any], params: Params, x: Array, dy: Array) -> tuple[Array, Params, Array]:
    """`(y, grads, dx)` of a training pass."""
    y, _, cache = layer.forward(params, start(layer, x.shape[1:])[1], x, TRAIN)
    return (y, *layer.vjp(params, cache, dy))


def same(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    assert tree.allclose(a, b, rtol=tolerance, atol=tolerance)


# --- what each layer computes ----------------------------------------------------------------------------------------

STATISTICS: list[tuple[Layer[Any, Any], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    # layer, shape of x, its shape with groups as an axis of their own, the axes that share a mean
    (LayerNorm(**RANDOM, eps=0.1), (5, 7, 3), (5, 7, 3), (2,)),
    (LayerNorm(**RANDOM, eps=0.1, axes=2), (5, 4, 7, 3), (5, 4, 7, 3), (2, 3)),
    (InstanceNorm(**RANDOM, eps=0.1), (5, 4, 7, 3), (5, 4, 7, 3), (1, 2)),
    (GroupNorm(2, **RANDOM, eps=0.1), (5, 4, 7, 6), (5, 4, 7, 2, 3), (1, 2, 4)),
    (GroupNorm(3, **RANDOM, eps=0.1), (5, 6), (5, 3, 2), (2,)),
    (BatchNorm(**RANDOM, eps=0.1), (5, 3), (5, 3), (0,)),
    (BatchNorm(**RANDOM, eps=0.1), (5, 4, 7, 3), (5, 4, 7, 3), (0, 1, 2)),
    (BatchNorm(**RANDOM, eps=0.1), (6, 4, 8, 3), (6, 4, 8, 3), (0, 1, 2)),  # many positions side by side
]


@pytest.mark.parametrize("block", [1, 40, norm.BLOCK])
@pytest.mark.parametrize(("layer", "shape", "split", "axes"), STATISTICS, ids=repr)
def test_the_formula(
    layer: Layer[Any, Any],
    shape: tuple[int, ...],
    split: tuple[int, ...],
    axes: tuple[int, ...],
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Output and gradients are those of the formula written naively, however the work is cut into blocks."""
    monkeypatch.setattr(norm, "BLOCK", block)
    x, dy = draw(*shape), draw(*shape, seed=3)
    params, _ = start(layer, shape[1:])
    y, grads, dx = both(layer, params, x, dy)

    groups = x.reshape(split)
    r = 1 / np.sqrt(groups.var(axes, keepdims=True) + 0.1)
    normal_x = (groups - groups.mean(axes, keepdims=True)) * r
    same(y, normal_x.reshape(shape) * params["scale"] + params["bias"])
    examples = tuple(range(len(shape) - params["scale"].ndim))
    same(grads, {"scale": (dy * normal_x.reshape(shape)).sum(examples), "bias": dy.sum(examples)})
    slope = (dy * params["scale"]).reshape(split)
    means = slope.mean(axes, keepdims=True) + normal_x * (slope * normal_x).mean(axes, keepdims=True)
    same(dx, (r * (slope - means)).reshape(shape))


@pytest.mark.parametrize("block", [1, 40, norm.BLOCK])
def test_root_mean_square(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "BLOCK", block)
    layer, x, dy = RMSNorm(eps=0.1, scale_init=normal(1.0)), draw(5, 7, 3), draw(5, 7, 3, seed=3)
    params, _ = start(layer, (7, 3))
    y, grads, dx = both(layer, params, x, dy)
    root = np.sqrt((x * x).mean(-1, keepdims=True) + 0.1)
    same(y, x / root * params["scale"])
    same(grads, {"scale": (dy * x / root).sum((0, 1))})
    slope = dy * params["scale"]
    same(dx, slope / root - x * (slope * x).mean(-1, keepdims=True) / root**3)


@pytest.mark.parametrize(
    ("one", "shape", "other", "other_shape"),
    [
        (GroupNorm(1), (5, 7, 3), LayerNorm(axes=2), (5, 7, 3)),
        (GroupNorm(3), (5, 7, 3), InstanceNorm(), (5, 7, 3)),
        (GroupNorm(1), (5, 3), LayerNorm(), (5, 3)),
        (BatchNorm(), (1, 4, 7, 3), InstanceNorm(), (1, 4, 7, 3)),
        (BatchNorm(), (5, 4, 7, 3), BatchNorm(), (140, 3)),
        (LayerNorm(axes=2), (5, 7, 3), LayerNorm(), (5, 21)),
        (RMSNorm(axes=2), (5, 7, 3), RMSNorm(), (5, 21)),
    ],
    ids=repr,
)
def test_layers_that_coincide(
    one: Layer[Any, Any], shape: tuple[int, ...], other: Layer[Any, Any], other_shape: tuple[int, ...]
) -> None:
    """At scale 1 and bias 0, where the means run over the same numbers."""
    x, dy = draw(*shape), draw(*shape, seed=3)
    y, _, dx = both(one, start(one, shape[1:])[0], x, dy)
    y2, _, dx2 = both(other, start(other, other_shape[1:])[0], x.reshape(other_shape), dy.reshape(other_shape))
    same((y, dx), (y2.reshape(shape), dx2.reshape(shape)))


def test_layer_norm_is_rms_norm_of_centred_rows() -> None:
    x, dy = draw(5, 7, 3), draw(5, 7, 3, seed=3)
    layer, rms = LayerNorm(bias_init=None), RMSNorm()
    centred = x - x.mean(-1, keepdims=True)
    y, grads, dx = both(layer, start(layer, (7, 3))[0], x, dy)
    y2, grads2, dx2 = both(rms, start(rms, (7, 3))[0], centred, dy)
    same((y, grads, dx), (y2, grads2, dx2 - dx2.mean(-1, keepdims=True)))


@pytest.mark.parametrize("layer", [LayerNorm(), GroupNorm(2), InstanceNorm(), BatchNorm()], ids=repr)
def test_offset_and_unit_do_not_matter(layer: Layer[Any, Any]) -> None:
    """`f(a x + c) = f(x)` up to eps, so the derivative along x and along 1 is 0."""
    x, dy = 1e3 * draw(5, 8, 4), draw(5, 8, 4, seed=3)
    params, _ = start(layer, (8, 4))
    y, _, dx = both(layer, params, x, dy)
    same(both(layer, params, 7 * x + 3, dy)[0], y, 1e-9)
    assert abs(dx.sum()) < 1e-12
    assert abs(np.vdot(x, dx)) < 1e-9


@pytest.mark.parametrize("layer", [LayerNorm(), GroupNorm(2), InstanceNorm(), BatchNorm()], ids=repr)
def test_a_large_offset_costs_no_more_than_its_own_rounding(layer: Layer[Any, Any]) -> None:
    """In float32 at an offset of 1,000 deviations; `mean(x**2) - mean(x)**2` would lose 6 digits of the variance."""
    x = (1000 + draw(64, 32, 8)).astype(np.float32)
    params = layer.init(Key(2), (32, 8))
    y = layer.forward(params, layer.init_state((32, 8)), x, TRAIN)[0]
    exact = both(layer, tree.cast(params, np.float64), x.astype(np.float64), np.ones(x.shape))[0]
    assert np.abs(y - exact).max() < 1e-3


def test_arrays_that_are_not_contiguous() -> None:
    x, dy = draw(7, 5, 4), draw(4, 5, 7, seed=3)
    for layer in (LayerNorm(), RMSNorm(), GroupNorm(2), InstanceNorm(), BatchNorm()):
        params, _ = start(layer, (7, 4))
        got = both(layer, params, x.transpose(1, 0, 2), dy.transpose(1, 2, 0))
        same(got, both(layer, params, x.transpose(1, 0, 2).copy(), dy.transpose(1, 2, 0).copy()))


# --- running statistics ----------------------------------------------------------------------------------------------


def test_running_statistics_follow_the_batches() -> None:
    """After k passes over the same batch: `decay**k start + (1 - decay**k) batch`, the variance unbiased."""
    layer, x = BatchNorm(decay=0.8), 3 + 2 * draw(5, 7, 3)
    params, state = start(layer, (7, 3))
    same(state, {"mean": np.zeros(3), "var": np.ones(3)})
    for k in range(1, 4):
        _, state, _ = layer.forward(params, state, x, TRAIN)
        left = 0.8**k
        mean, var = x.mean((0, 1)), x.var((0, 1), ddof=1)
        same(state, {"mean": (1 - left) * mean, "var": left + (1 - left) * var})


def test_evaluation_is_the_affine_map_of_the_running_statistics() -> None:
    layer, x, dy = BatchNorm(**RANDOM, eps=0.1), draw(5, 7, 3), draw(5, 7, 3, seed=3)
    params, _ = start(layer, (7, 3))
    state = {"mean": draw(3, seed=4), "var": draw(3, seed=5) ** 2}
    y, after, cache = layer.forward(params, state, x, Eval())
    assert after is state
    r = 1 / np.sqrt(state["var"] + 0.1)
    same(y, (x - state["mean"]) * r * params["scale"] + params["bias"])
    same(layer.apply(params, x, state), y)
    grads, dx = layer.vjp(params, cache, dy)
    same(dx, dy * r * params["scale"])
    same(grads, {"scale": (dy * (x - state["mean"]) * r).sum((0, 1)), "bias": dy.sum((0, 1))})


def test_training_until_the_statistics_settle_makes_both_modes_agree() -> None:
    layer, x = BatchNorm(decay=0.0), draw(500, 3)
    params, state = start(layer, (3,))
    y, state, _ = layer.forward(params, state, x, TRAIN)
    same(layer.apply(params, x, state), y * np.sqrt((x.var(0) + 1e-5) / (x.var(0, ddof=1) + 1e-5)))


def test_constant_statistics_are_not_the_derivative_of_training() -> None:
    """The broken twin: a vjp that forgets that the statistics depend on x is refused by the check."""

    def forgetful(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
        return batch_norm_vjp(params, (cache[0], False), dy)

    assert check_vjp(BatchNorm(), (7, 3)) < 1e-7
    with pytest.raises(LawError, match="Train"):
        check_vjp(attrs.evolve(BatchNorm(), vjp=forgetful), (7, 3))


def test_the_statistics_keep_their_own_dtype() -> None:
    layer = BatchNorm()
    state = layer.init_state((3,))
    for mode in (TRAIN, Eval()):
        y, after, _ = layer.forward(tree.cast(layer.init(Key(0), (3,)), np.float64), state, draw(5, 3), mode)
        assert y.dtype == np.float64
        assert {a.dtype for a in tree.leaves(after)} == {np.dtype(np.float32)}


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [LayerNorm, InstanceNorm, BatchNorm])
def test_parameters_start_at_one_and_zero_and_can_be_left_out(build: Any) -> None:
    assert tree.allclose(build().init(Key(0), (7, 3)), {"scale": np.ones(3), "bias": np.zeros(3)})
    without_bias = build(scale_init=constant(2.0), bias_init=None)
    assert tree.allclose(without_bias.init(Key(0), (7, 3)), {"scale": np.full(3, 2.0)})
    assert build(scale_init=None, bias_init=None).init(Key(0), (7, 3)) == {}


def test_the_parameters_of_several_axes() -> None:
    assert LayerNorm(axes=2).init(Key(0), (4, 7, 3))["scale"].shape == (7, 3)
    assert list(RMSNorm().init(Key(0), (7, 3))) == ["scale"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_one_number_per_channel_cannot_be_normalised() -> None:
    layer = BatchNorm()
    params, state = start(layer, (3,))
    with pytest.raises(ShapeError, match=r"BatchNorm: training needs .* one number per channel, got \(1, 3\)"):
        layer.forward(params, state, draw(1, 3), TRAIN)
    assert layer.apply(params, draw(1, 3), state).shape == (1, 3)
    with pytest.raises(ShapeError, match=r"InstanceNorm: expected more than one number .* got an example \(1, 3\)"):
        InstanceNorm().init(Key(0), (1, 3))
    with pytest.raises(ShapeError, match="LayerNorm: expected more than one number"):
        LayerNorm().out_shape((7, 1))


def test_statistics_that_are_missing_or_do_not_fit() -> None:
    net = serial(Dense(3), BatchNorm())
    params = net.init(Key(0), (4,))
    with pytest.raises(ValueError, match="BatchNorm: no running statistics; .*") as caught:
        net.apply(params, np.ones((5, 4), np.float32))
    assert caught.value.__notes__ == ["in batchnorm_0"]
    with pytest.raises(ShapeError, match=r"BatchNorm: expected input \(batch, ..., 2\), got \(5, 3\)"):
        BatchNorm(scale_init=None, bias_init=None).apply({}, draw(5, 3), BatchNorm().init_state((2,)))


def test_messages_say_what_was_expected() -> None:
    with pytest.raises(ShapeError, match=r"^LayerNorm: expected input \(batch, ..., 3\), got \(5, 4\)$"):
        LayerNorm().apply(start(LayerNorm(), (3,))[0], draw(5, 4))
    with pytest.raises(ShapeError, match=r"^GroupNorm\(2\): expected .* a multiple of 2, got an example \(7, 3\)$"):
        GroupNorm(2).out_shape((7, 3))


@pytest.mark.parametrize("layer", [LayerNorm(), RMSNorm(), GroupNorm(2), InstanceNorm(), BatchNorm()], ids=repr)
def test_other_types_and_dtypes(layer: Layer[Any, Any]) -> None:
    params, state = layer.init(Key(0), (7, 4)), layer.init_state((7, 4))
    for x in (draw(5, 7, 4), np.ones((5, 7, 4), np.int64)):
        with pytest.raises(TypeError, match=f"the parameters are float32, the input is {x.dtype}"):
            layer.apply(params, x, state)
    with pytest.raises(TypeError, match="expected an array, got list"):
        layer.apply(params, [[1.0]], state)


@pytest.mark.parametrize("build", [LayerNorm, InstanceNorm, BatchNorm])
def test_integers_without_parameters(build: Any) -> None:
    layer = build(scale_init=None, bias_init=None)
    with pytest.raises(TypeError, match="expected floating-point input, got int64"):
        layer.apply({}, np.ones((5, 7, 3), np.int64), layer.init_state((7, 3)))


def test_bad_hyper_parameters() -> None:
    builders: list[Any] = [LayerNorm, RMSNorm, InstanceNorm, BatchNorm, partial(GroupNorm, 2)]
    for build in builders:
        for eps in (0.0, -1.0, float("nan"), float("inf"), True, "1"):
            with pytest.raises(ValueError, match="Norm: expected a finite eps above 0, got"):
                build(eps=eps)
    with pytest.raises(ValueError, match=r"BatchNorm: expected decay in \[0, 1\), got 1.0"):
        BatchNorm(decay=1.0)
    sizes: list[Any] = [0, -1, 2.0]
    for wrong in sizes:
        with pytest.raises(ValueError, match="GroupNorm: expected groups to be a positive integer, got"):
            GroupNorm(wrong)
    with pytest.raises(ValueError, match="LayerNorm: expected axes to be a positive integer, got 0"):
        LayerNorm(axes=0)


NAMES = "batch", "layer", "rms", "instance", "group"


@pytest.mark.parametrize("make", [BatchNorm, LayerNorm, RMSNorm, InstanceNorm, partial(GroupNorm, 2)], ids=NAMES)
def test_eps_of_any_kind_keeps_the_dtype(make: Any) -> None:
    layer = make(eps=np.float64(1e-3))
    params, state, x = layer.init(Key(0), (3, 4)), layer.init_state((3, 4)), np.ones((5, 3, 4), np.float32)
    y, _, cache = layer.forward(params, state, x, Train(Key(0)))
    grads, dx = layer.vjp(params, cache, y)
    assert {leaf.dtype for leaf in tree.leaves((y, grads, dx))} == {np.dtype(np.float32)}
