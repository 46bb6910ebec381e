"""Recurrent layers against PyTorch in float64: answers, final carries, and every gradient."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL
from fnn.layers.recurrent import GRU, LSTM, RNN
from fnn.random import Key
from fnn.recurrence import Bidirectional, carry_shape, stack
from tests.reference.comparison import Compared, variable

torch: Any = pytest.importorskip("torch")
weights: Any = importlib.import_module("tests.reference.torch_values").weights

IN, FEATURES, PROJECTION = 3, 5, 2

KINDS: dict[str, tuple[Any, dict[str, Any], Any, dict[str, Any]]] = {
    "rnn tanh": (RNN, {}, torch.nn.RNN, {"nonlinearity": "tanh"}),
    "rnn relu": (RNN, {"activation": "relu"}, torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": (GRU, {}, torch.nn.GRU, {}),
    "lstm": (LSTM, {}, torch.nn.LSTM, {}),
    "lstm projection": (LSTM, {"projection": PROJECTION}, torch.nn.LSTM, {"proj_size": PROJECTION}),
}
DIRECTIONS = ("forward", "reverse", "both")
CASES = list(itertools.product(KINDS, DIRECTIONS, (False, True), ((1, 4), (7, 2), (40, 6))))


@pytest.mark.parametrize(("kind", "direction", "lengths", "size"), CASES)
def test_equals_torch(kind: str, direction: str, lengths: bool, size: tuple[int, int], compared: Compared) -> None:
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
    compared.outputs(y, y_torch)
    per_net = [last] if len(nets) == 1 else list(last)
    per_net_d = [dlast] if len(nets) == 1 else list(dlast)
    total = (y_torch * torch.from_numpy(dy)).sum()
    for slot, carry, d_carry in zip(slots, per_net, per_net_d):
        for whole, part, d_part in zip(last_torch, tree.leaves(carry), tree.leaves(d_carry)):
            compared.outputs(part, whole[slot])
            total = total + (whole[slot] * torch.from_numpy(d_part)).sum()
    total.backward()

    compared.gradients(dx[0] if lengths else dx, x_torch.grad)
    per_net_start = [dstart] if len(nets) == 1 else list(dstart)
    for slot, carry in zip(slots, per_net_start):
        for whole, part in zip(start_torch, tree.leaves(carry)):
            compared.gradients(part, whole.grad[slot])
    for own_grads, suffix in zip(each_grads, suffixes):
        compare_gradients(compared, own_grads, module, suffix)


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


def compare_gradients(compared: Compared, grads: Any, module: Any, suffix: str) -> None:
    def theirs(name: str) -> Any:
        return getattr(module, name + suffix).grad

    compared.gradients(grads["input_weight"], theirs("weight_ih_l0").T)
    compared.gradients(grads["hidden_weight"], theirs("weight_hh_l0").T)
    compared.gradients(grads["bias"], theirs("bias_ih_l0"))
    if "hidden_bias" in grads:
        compared.gradients(grads["hidden_bias"], theirs("bias_hh_l0")[2 * FEATURES :])
    else:
        compared.gradients(grads["bias"], theirs("bias_hh_l0"))
    if "projection" in grads:
        compared.gradients(grads["projection"], theirs("weight_hr_l0").T)


STACKED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "rnn": (RNN, "rnn_tanh", {}),
    "gru": (GRU, "gru", {}),
    "lstm": (LSTM, "lstm", {}),
    "lstm projection": (LSTM, "lstm", {"projection": PROJECTION}),
}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", STACKED)
def test_stacks(kind: str, layers: int, compared: Compared) -> None:
    """Layer upon layer, each with a carry of its own."""
    make, name, options = STACKED[kind]
    net: Any = stack(*(make(FEATURES, carry=True, **options) for _ in range(layers)))
    rng = np.random.default_rng(2)

    def like(shapes: Any) -> Any:
        return tuple(like(one) for one in shapes) if isinstance(shapes[0], tuple) else rng.standard_normal((4, *shapes))

    shapes = carry_shape(net)
    inputs = rng.standard_normal((4, 7, IN)), like(shapes)
    params = tree.map(lambda a: rng.standard_normal(a.shape) / 2, net.init(Key(0), ((7, IN), shapes)))
    (y, last), _, cache = net.forward(params, {}, inputs, EVAL)
    dy = tree.map(lambda a: rng.standard_normal(a.shape), (y, last))
    grads, dx = net.vjp(params, cache, dy)

    x, carries = tree.map(variable, inputs)
    theirs = tree.map(variable, params)
    flat = [weight for one in theirs.values() for weight in weights(one, tuple(options))]
    start = [torch.stack(parts) for parts in zip(*(one if isinstance(one, tuple) else (one,) for one in carries))]
    one_way = layers, 0.0, False, False, True
    found, *ends = getattr(torch, name)(x, start if len(start) > 1 else start[0], flat, True, *one_way)
    split = tuple(tuple(end[i] for end in ends) if len(ends) > 1 else ends[0][i] for i in range(layers))
    compared.outputs((y, last), (found, split))
    torch.autograd.backward(tree.leaves((found, split)), [torch.tensor(a) for a in tree.leaves(dy)])
    compared.gradients((grads, dx), tree.map(lambda a: a.grad, (theirs, (x, carries))))
