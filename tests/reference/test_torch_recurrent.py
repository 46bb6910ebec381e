"""Recurrent layers against PyTorch in float64: answers, final carries, and every gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL
from fnn.layers.recurrent import GRU, LSTM, RNN
from fnn.random import Key
from fnn.recurrence import Bidirectional, carry_shape

torch = pytest.importorskip("torch")

IN, FEATURES, PROJECTION = 3, 5, 2
CLOSE = 1e-9

KINDS: dict[str, tuple[Any, dict[str, Any], Any, dict[str, Any]]] = {
    "rnn tanh": (RNN, {}, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (RNN, {"activation": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": (GRU, {}, torch.nn.GRU, {}),
    "lstm": (LSTM, {}, torch.nn.LSTM, {}),
    "lstm projection": (LSTM, {"projection": PROJECTION}, torch.nn.LSTM, {"proj_size": PROJECTION}),
}
DIRECTIONS = ("forward", "reverse", "both")
CASES = list(itertools.product(KINDS, DIRECTIONS, (False, True), ((1, 4), (7, 2), (40, 6))))


def test_the_number_of_compared_cases(record_property: Any) -> None:
    record_property("cases compared with PyTorch", len(CASES))
    assert len(CASES) == len({*CASES}) == 90


@pytest.mark.parametrize(("kind", "direction", "lengths", "size"), CASES)
def test_equals_torch(kind: str, direction: str, lengths: bool, size: tuple[int, int]) -> None:
    make, options, torch_make, torch_options = KINDS[kind]
    time, batch = size
    rng = np.random.default_rng(time)
    parts = {"forward": [False], "reverse": [True], "both": [False, True]}[direction]
    nets = [make(FEATURES, carry=True, lengths=lengths, reverse=reverse, **options) for reverse in parts]
    net: Any = nets[0] if len(nets) == 1 else Bidirectional(nets[0], nets[1], carry=True)
    shapes = carry_shape(net)
    in_shape = ((time, IN), ()) if lengths else (time, IN)
    params: Any = tree.map(
        lambda a: rng.standard_normal(a.shape) / 2, tree.cast(net.init(Key(0), (in_shape, shapes)), np.float64)
    )
    each = [params] if len(nets) == 1 else [params["forward"], params["backward"]]
    x = rng.standard_normal((batch, time, IN))
    ends = rng.integers(1, time, batch, endpoint=True)
    ends[0] = time
    start = [tuple(rng.standard_normal((batch, *s)) for s in pairs(carry_shape(one))) for one in nets]

    def ours(carries: list[Any]) -> Any:
        unpacked = [carry if len(carry) > 1 else carry[0] for carry in carries]
        return unpacked[0] if len(unpacked) == 1 else tuple(unpacked)

    inputs = ((x, ends) if lengths else x), ours(start)
    (y, last), _, cache = net.forward(params, {}, inputs, EVAL)
    dy = rng.standard_normal(y.shape)
    dlast = tree.map(lambda a: rng.standard_normal(a.shape), last)
    grads, (dx, dstart) = net.vjp(params, cache, (dy, dlast))
    each_grads = [grads] if len(nets) == 1 else [grads["forward"], grads["backward"]]

    module = torch_make(IN, FEATURES, bidirectional=True, batch_first=True, dtype=torch.float64, **torch_options)
    suffixes = ["_reverse" if reverse else "" for reverse in parts]
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
        for own, suffix in zip(each, suffixes):
            for name, value in to_torch(own).items():
                getattr(module, name + suffix).copy_(torch.from_numpy(value))
    # torch always runs both directions here; the one that was not asked for is left out of everything compared
    slots = [int(reverse) for reverse in parts]
    x_torch = torch.from_numpy(x).requires_grad_()
    start_torch = [torch.zeros(2, batch, part.shape[1], dtype=torch.float64) for part in start[0]]
    for slot, carry in zip(slots, start):
        for whole, part in zip(start_torch, carry):
            whole[slot] = torch.from_numpy(part)
    for whole in start_torch:
        whole.requires_grad_()
    sequence: Any = x_torch
    if lengths:
        sequence = torch.nn.utils.rnn.pack_padded_sequence(x_torch, ends, batch_first=True, enforce_sorted=False)
    y_torch, last_torch = module(sequence, tuple(start_torch) if len(start_torch) > 1 else start_torch[0])
    if lengths:
        y_torch = torch.nn.utils.rnn.pad_packed_sequence(y_torch, batch_first=True, total_length=time)[0]
    last_torch = last_torch if isinstance(last_torch, tuple) else (last_torch,)
    width = y_torch.shape[2] // 2
    y_torch = torch.cat([y_torch[:, :, slot * width : (slot + 1) * width] for slot in slots], 2)
    close(y, y_torch)
    per_net = [last] if len(nets) == 1 else list(last)
    per_net_d = [dlast] if len(nets) == 1 else list(dlast)
    total = (y_torch * torch.from_numpy(dy)).sum()
    for slot, carry, d_carry in zip(slots, per_net, per_net_d):
        for whole, part, d_part in zip(last_torch, tree.leaves(carry), tree.leaves(d_carry)):
            close(part, whole[slot])
            total = total + (whole[slot] * torch.from_numpy(d_part)).sum()
    total.backward()

    close(dx[0] if lengths else dx, x_torch.grad)
    per_net_start = [dstart] if len(nets) == 1 else list(dstart)
    for slot, carry in zip(slots, per_net_start):
        for whole, part in zip(start_torch, tree.leaves(carry)):
            close(part, whole.grad[slot])
    for own_grads, suffix in zip(each_grads, suffixes):
        compare_gradients(own_grads, module, suffix)


def pairs(shape: Any) -> Any:
    """The shapes of the parts of one layer's carry."""
    return shape if isinstance(shape[0], tuple) else (shape,)


def to_torch(params: Any) -> dict[str, Any]:
    """Our parameters under PyTorch's names: weights transposed, one bias of its two zero but for what r multiplies."""
    found = {"weight_ih_l0": params["input_weight"].T, "weight_hh_l0": params["hidden_weight"].T}
    found["bias_ih_l0"] = params["bias"]
    if "hidden_bias" in params:
        found["bias_hh_l0"] = np.concatenate([np.zeros(2 * FEATURES), params["hidden_bias"]])
    if "projection" in params:
        found["weight_hr_l0"] = params["projection"].T
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def compare_gradients(grads: Any, module: Any, suffix: str) -> None:
    def theirs(name: str) -> Any:
        return getattr(module, name + suffix).grad

    close(grads["input_weight"], theirs("weight_ih_l0").T)
    close(grads["hidden_weight"], theirs("weight_hh_l0").T)
    close(grads["bias"], theirs("bias_ih_l0"))
    if "hidden_bias" in grads:
        close(grads["hidden_bias"], theirs("bias_hh_l0")[2 * FEATURES :])
    else:
        close(grads["bias"], theirs("bias_hh_l0"))
    if "projection" in grads:
        close(grads["projection"], theirs("weight_hr_l0").T)


def close(ours: Any, theirs: Any) -> None:
    """Equal to 1e-9, relative to the largest number of the array."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= CLOSE * max(1e-300, np.abs(theirs).max())
