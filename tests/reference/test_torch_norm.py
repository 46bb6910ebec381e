"""Normalisation, embedding and rotations against PyTorch in float64: outputs, all gradients, running statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL, Layer, Train
from fnn.initializers import normal
from fnn.layers.embedding import Embedding
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fnn.random import Key

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional

RANDOM: dict[str, Any] = {"scale_init": normal(1.0), "bias_init": normal(1.0)}
Reference = Callable[..., Any]


def last_first(f: Reference) -> Reference:
    """PyTorch's channels come second."""
    return lambda x, *rest: f(x.movedim(-1, 1), *rest).movedim(1, -1)


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


def agree(ours: Any, theirs: Any) -> None:
    """To 1e-9 of the largest number."""
    expected = theirs.detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def compare(layer: Layer[Any, Any], params: Any, got: Any, x: Any, dy: Any, reference: Reference) -> int:
    """Compares y, dx and the gradients of a pass; returns how many arrays that were."""
    y, cache = got
    leaves = [torch.tensor(np.array(a), requires_grad=True) for a in (x, *params.values())]
    expected = reference(*leaves)
    agree(y, expected)
    grads, dx = layer.vjp(params, cache, dy)
    theirs = torch.autograd.grad(expected, leaves, torch.tensor(dy))
    agree(dx, theirs[0])
    for gradient, other in zip(grads.values(), theirs[1:], strict=True):
        agree(gradient, other)
    return 2 + len(params)


@pytest.mark.parametrize(("layer", "shape", "reference"), CASES, ids=[f"{layer!r} {s}" for layer, s, _ in CASES])
def test_stateless(
    layer: Layer[Any, Any], shape: tuple[int, ...], reference: Reference, record_property: Callable[[str, object], None]
) -> None:
    rng = np.random.default_rng(1)
    x, dy = 2 + 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    params = tree.cast(layer.init(Key(0), shape[1:]), np.float64)
    y, _, cache = layer.forward(params, {}, x, EVAL)
    record_property("compared arrays", compare(layer, params, (y, cache), x, dy, reference))


@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 7, 6), (32, 16, 16, 12)])
@pytest.mark.parametrize("decay", [0.9, 0.3])
def test_batch_norm_over_several_steps(
    shape: tuple[int, ...], decay: float, record_property: Callable[[str, object], None]
) -> None:
    """Their momentum is the weight of the new value. After every training step also one in evaluation mode."""
    layer = BatchNorm(**RANDOM, decay=decay)
    params, state = (tree.cast(t, np.float64) for t in (layer.init(Key(0), shape[1:]), layer.init_state(shape[1:])))
    mean, var = torch.zeros(shape[-1], dtype=torch.float64), torch.ones(shape[-1], dtype=torch.float64)
    rng = np.random.default_rng(1)
    compared = 0
    for step in range(4):
        x, dy = step + (1 + step) * rng.standard_normal(shape), rng.standard_normal(shape)
        for training in (True, False):

            def theirs(x: Any, scale: Any, bias: Any, training: bool = training) -> Any:
                return F.batch_norm(x, mean, var, scale, bias, training, 1 - decay)

            y, state, cache = layer.forward(params, state, x, Train(Key(step)) if training else EVAL)
            compared += compare(layer, params, (y, cache), x, dy, last_first(theirs))
            agree(state["mean"], mean)
            agree(state["var"], var)
            compared += 2
    record_property("compared arrays", compared)


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 7, 3)])
def test_embedding(shape: tuple[int, ...], record_property: Callable[[str, object], None]) -> None:
    layer = Embedding(9, 4)
    params = tree.cast(layer.init(Key(0), shape[1:]), np.float64)
    rng = np.random.default_rng(1)
    x, dy = rng.integers(6, size=shape), rng.standard_normal((*shape, 4))
    y, _, cache = layer.forward(params, {}, x, EVAL)
    weight = torch.tensor(np.array(params["weight"]), requires_grad=True)
    expected = F.embedding(torch.tensor(x), weight)
    agree(y, expected)
    agree(layer.vjp(params, cache, dy)[0]["weight"], torch.autograd.grad(expected, weight, torch.tensor(dy))[0])
    record_property("compared arrays", 2)
