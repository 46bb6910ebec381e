"""Normalisation, embedding and rotations against PyTorch in float64: outputs, all gradients, running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL, Layer, Train
from fnn.initializers import normal
from fnn.layers.embedding import Embedding
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fnn.random import Key
from tests.reference.comparison import Compared, Reference, last_first, variable

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

RANDOM: dict[str, Any] = {"scale_init": normal(1.0), "bias_init": normal(1.0)}

CASES: list[tuple[Layer[Any, Any], tuple[int, ...], Reference]] = [
    (LayerNorm(**RANDOM), (5, 3), lambda x, s, b: F.layer_norm(x, (3,), s, b)),
    (LayerNorm(**RANDOM, eps=0.1), (5, 7, 23), lambda x, s, b: F.layer_norm(x, (23,), s, b, 0.1)),
    (LayerNorm(**RANDOM, axes=2), (5, 7, 3), lambda x, s, b: F.layer_norm(x, (7, 3), s, b)),
    (LayerNorm(scale_init=None, bias_init=None), (5, 7, 3), lambda x: F.layer_norm(x, (3,))),
    (LayerNorm(**RANDOM), (300, 512), lambda x, s, b: F.layer_norm(x, (512,), s, b)),
    (RMSNorm(scale_init=normal(1.0)), (5, 7, 3), lambda x, s: F.rms_norm(x, (3,), s, 1e-5)),
    (RMSNorm(scale_init=normal(1.0), axes=2), (5, 7, 3), lambda x, s: F.rms_norm(x, (7, 3), s, 1e-5)),
    (GroupNorm(1, **RANDOM), (5, 7, 3), last_first(lambda x, s, b: F.group_norm(x, 1, s, b))),
    (GroupNorm(2, **RANDOM), (5, 4, 7, 6), last_first(lambda x, s, b: F.group_norm(x, 2, s, b))),
    (GroupNorm(3, **RANDOM), (5, 6), lambda x, s, b: F.group_norm(x, 3, s, b)),
    (GroupNorm(4, **RANDOM), (5, 32, 32, 16), last_first(lambda x, s, b: F.group_norm(x, 4, s, b))),
    (InstanceNorm(**RANDOM), (5, 7, 3), last_first(lambda x, s, b: F.instance_norm(x, None, None, s, b))),
    (InstanceNorm(**RANDOM), (5, 4, 7, 6), last_first(lambda x, s, b: F.instance_norm(x, None, None, s, b))),
]


@pytest.mark.parametrize(("layer", "shape", "reference"), CASES, ids=[f"{layer!r} {s}" for layer, s, _ in CASES])
def test_stateless(layer: Layer[Any, Any], shape: tuple[int, ...], reference: Reference, compared: Compared) -> None:
    compared.layer(layer, 2 + 3 * np.random.default_rng(1).standard_normal(shape), reference)


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 7, 6), (32, 16, 16, 12)])
@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_batch_norm_over_several_steps(shape: tuple[int, ...], decay: float, compared: Compared) -> None:
    """Their momentum is the weight of the new value. After every training step also one in evaluation mode."""
    layer = BatchNorm(**RANDOM, decay=decay)
    params, state = (tree.cast(t, np.float64) for t in (layer.init(Key(0), shape[1:]), layer.init_state(shape[1:])))
    mean, var = torch.zeros(shape[-1], dtype=torch.float64), torch.ones(shape[-1], dtype=torch.float64)
    rng = np.random.default_rng(1)
    for step in range(4):
        x = step + (1 + step) * rng.standard_normal(shape)
        for training in (True, False):

            def theirs(x: Any, scale: Any, bias: Any, training: bool = training) -> Any:
                return F.batch_norm(x, mean, var, scale, bias, training, 1 - decay)

            mode = Train(Key(step)) if training else EVAL
            state = compared.layer(layer, x, last_first(theirs), params=params, state=state, mode=mode)
            compared.statistics(state, {"mean": mean, "var": var})


# --- with and without scale and bias, and other options --------------------------------------------------------------

OPTIONAL = [(True, True), (True, False), (False, True), (False, False)]
EPS = [1e-5, 0.3]
AXES = [((5, 3), 1), ((5, 7, 6), 1), ((5, 7, 6), 2), ((5, 2, 7, 4, 3), 3)]


def inits(scale: bool, bias: bool) -> dict[str, Any]:
    """Whether there is a scale, and a bias."""
    return {"scale_init": normal(1.0) if scale else None, "bias_init": normal(1.0) if bias else None}


def normalised(f: Reference, scale: bool, bias: bool, **options: Any) -> Reference:
    """Their function of x and the parameters that there are."""
    return lambda x, *rest: f(x, weight=rest[0] if scale else None, bias=rest[-1] if bias else None, **options)


def spread(*shape: int) -> Any:
    return 2 + 3 * np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("scale", "bias"), OPTIONAL)
@pytest.mark.parametrize(("shape", "axes"), AXES, ids=str)
def test_layer_norm(
    shape: tuple[int, ...], axes: int, scale: bool, bias: bool, eps: float, compared: Compared
) -> None:
    theirs = normalised(F.layer_norm, scale, bias, normalized_shape=shape[-axes:], eps=eps)
    compared.layer(LayerNorm(axes=axes, eps=eps, **inits(scale, bias)), spread(*shape), theirs)


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(("shape", "axes"), AXES, ids=str)
def test_rms_norm(shape: tuple[int, ...], axes: int, scale: bool, eps: float, compared: Compared) -> None:
    layer = RMSNorm(axes=axes, eps=eps, scale_init=normal(1.0) if scale else None)
    compared.layer(layer, spread(*shape), lambda x, *rest: F.rms_norm(x, shape[-axes:], *(rest or [None]), eps))


def biased_groups(groups: int, eps: float) -> Reference:
    """Their vjp fails where there is a bias and no weight."""
    return lambda x, bias: F.group_norm(x, groups, torch.ones_like(bias), bias, eps)


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("scale", "bias"), OPTIONAL)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(5, 7, 6), (5, 4, 7, 12)], ids=str)
def test_group_norm(
    shape: tuple[int, ...], groups: int, scale: bool, bias: bool, eps: float, compared: Compared
) -> None:
    theirs = normalised(F.group_norm, scale, bias, num_groups=groups, eps=eps)
    if bias and not scale:
        theirs = biased_groups(groups, eps)
    compared.layer(GroupNorm(groups, eps=eps, **inits(scale, bias)), spread(*shape), last_first(theirs))


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("scale", "bias"), OPTIONAL)
@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 4, 7, 6), (2, 3, 4, 5, 6)], ids=str)
def test_instance_norm(shape: tuple[int, ...], scale: bool, bias: bool, eps: float, compared: Compared) -> None:
    theirs = last_first(normalised(F.instance_norm, scale, bias, eps=eps))
    compared.layer(InstanceNorm(eps=eps, **inits(scale, bias)), spread(*shape), theirs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(("scale", "bias"), OPTIONAL)
@pytest.mark.parametrize("shape", [(5, 3), (5, 7, 6), (5, 4, 7, 6)], ids=str)
def test_batch_norm(
    shape: tuple[int, ...], scale: bool, bias: bool, eps: float, training: bool, compared: Compared
) -> None:
    rng = np.random.default_rng(2)
    state = {"mean": rng.standard_normal(shape[-1]), "var": 0.5 + rng.random(shape[-1])}
    theirs = tree.map(torch.tensor, state)
    running = {"running_mean": theirs["mean"], "running_var": theirs["var"], "training": training}
    reference = last_first(normalised(F.batch_norm, scale, bias, eps=eps, **running))
    layer = BatchNorm(eps=eps, **inits(scale, bias))
    after = compared.layer(layer, spread(*shape), reference, state=state, mode=Train(Key(0)) if training else EVAL)
    compared.statistics(after, theirs)


# --- embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 7, 3)])
def test_embedding(shape: tuple[int, ...], compared: Compared) -> None:
    layer = Embedding(9, 4)
    params = tree.cast(layer.init(Key(0), shape[1:]), np.float64)
    rng = np.random.default_rng(1)
    x, dy = rng.integers(6, size=shape), rng.standard_normal((*shape, 4))
    y, _, cache = layer.forward(params, {}, x, EVAL)
    weight = variable(params["weight"])
    expected = F.embedding(torch.tensor(x), weight)
    compared.outputs(y, expected)
    (theirs,) = torch.autograd.grad(expected, weight, torch.tensor(dy))
    compared.gradients(layer.vjp(params, cache, dy)[0], {"weight": theirs})
