"""Layers of every family against numbers that PyTorch has computed once: these tests need no PyTorch.

`torch_values.py` has made `torch_values.json`, and tells what the rows are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.contract import EVAL, Layer, Train, no_params, stateless
from fnn.layers.activation import (
    Elu,
    Gelu,
    GeluTanh,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Squareplus,
    Tanh,
)
from fnn.layers.attention import CrossAttention, MultiHeadAttention, attend, attend_vjp
from fnn.layers.conv import Conv1D, Conv2D, Conv3D, ConvTranspose1D, ConvTranspose2D, DepthwiseConv2D
from fnn.layers.dense import Dense
from fnn.layers.embedding import Embedding
from fnn.layers.gated import Glu, Maxout, PRelu
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fnn.layers.pool import AvgPool1D, AvgPool2D, GlobalAvgPool1D, GlobalMaxPool2D, MaxPool1D, MaxPool2D
from fnn.layers.recurrent import GRU, LSTM, RNN
from fnn.layers.resample import AdaptiveAvgPool2D, Upsample2D, ZeroPad2D
from fnn.layers.softmax import LogSoftmax, Softmax
from fnn.layers.transformer import FeedForward, TransformerBlock
from fnn.random import Key
from fnn.recurrence import Bidirectional
from fnn.types import EMPTY, bind
from tests.reference.comparison import Compared

FILE = Path(__file__).with_name("torch_values.json")
STORED = json.loads(FILE.read_text())
REFERENCE = f"stored values of PyTorch {STORED['torch']}"


def attend_forward(causal: bool, params: Any, x: Any) -> Any:
    """`attend` with their factor `1 / sqrt(width)`."""
    q, k, v = x
    return attend(q / np.sqrt(q.shape[-1]), k, v, causal=causal)


def attend_back(causal: bool, params: Any, cache: Any, dy: Any) -> Any:
    dq, dk, dv, _ = attend_vjp(cache, dy)
    return EMPTY, (dq / np.sqrt(dq.shape[-1]), dk, dv)


def products(causal: bool) -> Layer[Any, Any]:
    return stateless("Attend", no_params, bind(attend_forward, causal), bind(attend_back, causal))


LAYERS: dict[str, Layer[Any, Any]] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": Relu,
    "leaky relu": LeakyRelu(0.2),
    "elu": Elu(0.7),
    "selu": Selu,
    "gelu": Gelu,
    "gelu by tanh": GeluTanh,
    "silu": Silu,
    "mish": Mish,
    "softplus": Softplus,
    "softsign": Softsign,
    "squareplus": Squareplus(4.0),
    "hard tanh": HardTanh,
    "hard sigmoid": HardSigmoid,
    "hard swish": HardSwish,
    "glu": Glu(),
    "swiglu": Glu(Silu),
    "maxout": Maxout(2),
    "softmax": Softmax,
    "log-softmax": LogSoftmax,
    "prelu": PRelu(),
    "dense": Dense(4),
    "dense over time, no bias": Dense(5, bias_init=None),
    "embedding": Embedding(6, 4),
    "conv 1d": Conv1D(4, 3, padding=1),
    "conv 1d, stride, dilation, no bias": Conv1D(4, 3, stride=2, dilation=2, padding=2, bias_init=None),
    "conv 1d, causal, groups": Conv1D(6, 3, dilation=2, padding="causal", groups=2),
    "conv 2d": Conv2D(4, (3, 2), padding="valid"),
    "conv 2d, stride, same": Conv2D(3, 3, stride=(1, 2), padding="same"),
    "conv 2d, dilation, groups": Conv2D(6, (3, 2), dilation=(2, 1), padding=((2, 2), (1, 1)), groups=2),
    "conv 2d, depthwise": DepthwiseConv2D(3, multiplier=2, stride=2, padding=1),
    "conv 3d": Conv3D(3, (2, 3, 2), stride=(1, 2, 1), padding=((0, 0), (1, 1), (0, 0))),
    "conv 3d, dilation, groups": Conv3D(4, 2, dilation=(1, 1, 2), padding="valid", groups=2),
    "transposed 1d": ConvTranspose1D(2, 4, stride=2, padding=1),
    "transposed 1d, dilation, output padding": ConvTranspose1D(2, 3, stride=3, dilation=2, padding=((1, 0),)),
    "transposed 2d": ConvTranspose2D(2, (3, 2), stride=(2, 1), padding=((1, 1), (0, 0))),
    "transposed 2d, groups": ConvTranspose2D(6, (2, 3), stride=2, padding="valid", groups=2),
    "max pool 1d": MaxPool1D(3, 2, 1),
    "max pool 2d": MaxPool2D((3, 2), 2, 1),
    "mean pool 1d": AvgPool1D(3, 2, 1),
    "mean pool 2d": AvgPool2D(3, 2, 1),
    "mean pool 2d with zeros": AvgPool2D(3, 2, 1, count_padding=True),
    "adaptive mean pool": AdaptiveAvgPool2D((3, 2)),
    "global max pool": GlobalMaxPool2D,
    "global mean pool": GlobalAvgPool1D,
    "nearest": Upsample2D((2, 3)),
    "bilinear": Upsample2D((2, 3), "bilinear"),
    "zero pad": ZeroPad2D(((1, 2), (0, 3))),
    "batch norm, training": BatchNorm(),
    "batch norm, training, images": BatchNorm(decay=0.75),
    "batch norm, evaluation": BatchNorm(),
    "layer norm": LayerNorm(),
    "layer norm, two axes": LayerNorm(axes=2, eps=0.1),
    "layer norm, bare": LayerNorm(scale_init=None, bias_init=None),
    "rms norm": RMSNorm(),
    "group norm": GroupNorm(2),
    "instance norm": InstanceNorm(),
    "rnn tanh": RNN(4, carry=True),
    "rnn relu": RNN(4, "relu", carry=True),
    "gru": GRU(4, carry=True),
    "lstm": LSTM(4, carry=True),
    "lstm, projection": LSTM(4, projection=2, carry=True),
    "gru, both ways": Bidirectional(GRU(4, carry=True), GRU(4, carry=True, reverse=True), carry=True),
    "lstm, both ways": Bidirectional(LSTM(4, carry=True), LSTM(4, carry=True, reverse=True), carry=True),
    "scaled dot products": products(causal=False),
    "scaled dot products, causal, grouped": products(causal=True),
    "attention": MultiHeadAttention(2),
    "attention, causal": MultiHeadAttention(3, causal=True),
    "attention, cross": CrossAttention(2),
    "transformer block": TransformerBlock(4, 2, feed_forward=FeedForward(4, 5)),
    "transformer block, relu, causal": TransformerBlock(
        4, 2, causal=True, feed_forward=FeedForward(4, 5, activation=Relu)
    ),
}


def read(tree: Any) -> Any:
    """Arrays are lists there; tuples are mappings from "0", "1", ..."""
    if not isinstance(tree, dict):
        return np.array(tree)
    found = {name: read(child) for name, child in tree.items()}
    return tuple(found.values()) if found and [*found] == [str(i) for i in range(len(found))] else found


def example_shape(x: Any) -> Any:
    return tuple(example_shape(child) for child in x) if isinstance(x, tuple) else x.shape[1:]


def test_all_rows_are_compared() -> None:
    assert [*LAYERS] == [*STORED["rows"]]
    assert len(STORED["rows"]) >= 70


@pytest.mark.parametrize("label", STORED["rows"])
def test_equals_the_stored_values(label: str, compared: Compared) -> None:
    layer, row = LAYERS[label], STORED["rows"][label]
    x, params, state, dy = (tree.read_only(read(row[name])) for name in ("x", "params", "state", "dy"))
    tree.check_same_structure(params, layer.init(Key(0), example_shape(x)), ("stored parameters", "initial ones"))
    y, new_state, cache = layer.forward(params, state, x, Train(Key(0)) if row["training"] else EVAL)
    compared.outputs(y, read(row["y"]))
    compared.statistics(new_state, read(row["new_state"]))
    grads, dx = layer.vjp(params, cache, dy)
    compared.gradients(grads, read(row["grads"]))
    if "dx" in row:
        compared.gradients(dx, read(row["dx"]))


def test_training_moves_the_stored_statistics() -> None:
    moved = [label for label, row in STORED["rows"].items() if row["state"] != row["new_state"]]
    assert moved == ["batch norm, training", "batch norm, training, images"]


def test_the_script_makes_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever PyTorch is installed computes these numbers from these inputs."""
    pytest.importorskip("torch")
    from tests.reference import torch_values

    monkeypatch.setattr(torch_values, "FILE", tmp_path / "values.json")
    torch_values.main()
    made = json.loads(torch_values.FILE.read_text())["rows"]
    assert [*made] == [*STORED["rows"]]
    again = Compared()
    for label, row in made.items():
        assert {name: row[name] for name in ("x", "params", "state", "dy")}.items() <= STORED["rows"][label].items()
        again.outputs(numbers(row), numbers(STORED["rows"][label]))


def numbers(row: Mapping[str, Any]) -> Any:
    """What has been computed."""
    return {name: read(row[name]) for name in ("y", "grads", "dx", "new_state") if name in row}
