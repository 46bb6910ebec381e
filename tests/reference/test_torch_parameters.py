"""Weight and spectral norm against PyTorch in float64: outputs, all gradients, the vectors of the power method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.combinators import SpectralNorm, WeightNorm
from fnn.contract import EVAL, Train
from fnn.layers.conv import Conv2D
from fnn.layers.dense import Dense
from fnn.random import Key
from tests.reference.comparison import Compared, last_first

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional
parametrizations = torch.nn.utils.parametrizations


def theirs(image: bool) -> Any:
    """A module of three inputs and four outputs, its parameters in float64."""
    return (torch.nn.Conv2d(3, 4, (3, 2)) if image else torch.nn.Linear(3, 4)).double()


def to_torch(weight: Any) -> Any:
    """(..., in, out) as torch has it: (out, in, ...)."""
    return weight.movedim((-1, -2), (0, 1))


@pytest.mark.parametrize("image", [False, True])
def test_weight_norm(image: bool, compared: Compared) -> None:
    layer = WeightNorm(Conv2D(4, (3, 2), padding="valid") if image else Dense(4))
    module = parametrizations.weight_norm(theirs(image))

    def reference(x: Any, direction: Any, gain: Any, bias: Any) -> Any:
        given = {"original1": to_torch(direction), "original0": gain.reshape(4, *[1] * (direction.ndim - 1))}
        given = {f"parametrizations.weight.{name}": value for name, value in given.items()} | {"bias": bias}
        return torch.func.functional_call(module, given, (x,))

    x = np.random.default_rng(1).standard_normal((2, 5, 6, 3) if image else (5, 3))
    names = [path for path, _ in tree.items(layer.init(Key(0), x.shape[1:]))]
    assert names == ["weight/direction", "weight/gain", "bias"]
    compared.layer(layer, x, last_first(reference) if image else reference)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("image", [False, True])
def test_spectral_norm_over_several_steps(image: bool, iterations: int, compared: Compared) -> None:
    """Their u moves at the start of a training pass, ours at its end: ours begins with what theirs moves to first."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, 6, 3) if image else (5, 3))
    layer = SpectralNorm(Conv2D(4, (3, 2), padding="valid") if image else Dense(4), iterations)
    params = tree.map(lambda a: rng.standard_normal(a.shape), layer.init(Key(0), x.shape[1:]))
    module = parametrizations.spectral_norm(theirs(image), n_power_iterations=iterations)
    norm = module.parametrizations.weight[0]
    matrix = to_torch(torch.tensor(np.array(params["weight"]))).flatten(1)
    u, v = (torch.tensor(rng.standard_normal(n)) for n in matrix.shape)
    norm._v.copy_(v)
    for _ in range(iterations):
        u = F.normalize(matrix @ v, dim=0)
        v = F.normalize(matrix.T @ u, dim=0)
    (path,) = (path for path, _ in tree.items(layer.init_state(x.shape[1:])))
    state = tree.map(lambda a: u.numpy(), layer.init_state(x.shape[1:]))

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        given = {"parametrizations.weight.original": to_torch(weight), "bias": bias}
        return torch.func.functional_call(module, given, (x,))

    used = state
    for training in (True, True, False, True, False):
        module.train(training)
        mode, used = (Train(Key(0)), state) if training else (EVAL, used)  # their evaluation is that of the pass before
        channels_second = last_first(reference) if image else reference
        after = compared.layer(layer, x, channels_second, params=params, state=used, mode=mode)
        compared.statistics(dict(tree.items(used)), {path: norm._u})
        state = after if training else state
