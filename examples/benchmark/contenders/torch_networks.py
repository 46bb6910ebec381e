"""The networks in PyTorch: its ordinary modules, made from the weights with which all contenders begin. Images come as
`(batch, channels, height, width)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workloads import Workload
from . import Weights

torch: Any = importlib.import_module("torch")
nn, F = torch.nn, torch.nn.functional

Network = tuple[Any, Callable[[Any], Any]]
"""The modules that hold the parameters, and the function from inputs to outputs."""


def _filled(module: Any, *arrays: NDArray[Any]) -> Any:
    """A module with these parameters, in its own order."""
    for parameter, a in zip(module.parameters(), arrays, strict=True):
        parameter.data.copy_(torch.from_numpy(a.copy()))
    return module


def _linear(weight: NDArray[Any], bias: NDArray[Any]) -> Any:
    return _filled(nn.Linear(*weight.shape), weight.T, bias)


def _dense(weights: Weights, path: str) -> Any:
    return _linear(weights[f"{path}/weight"], weights[f"{path}/bias"])


def _norm(module: Any, weights: Weights, path: str) -> Any:
    return _filled(module, weights[f"{path}/scale"], weights[f"{path}/bias"])


def _mlp(work: Workload, weights: Weights) -> Network:
    modules = []
    for i in range(len(work.units)):
        modules += [_dense(weights, f"dense_{i}"), ACTIVATIONS[work.activation]()]
    net = nn.Sequential(*modules[:-1], *([ACTIVATIONS[work.last]()] if work.last else []))
    return net, net


def _conv(weights: Weights, path: str, **how: Any) -> Any:
    weight, *bias = (a for name, a in weights.items() if name.startswith(f"{path}/"))
    height, width, inputs, outputs = weight.shape
    module = nn.Conv2d(inputs, outputs, (height, width), bias=bool(bias), **how)
    return _filled(module, weight.transpose(3, 2, 0, 1), *bias)


def _lenet(work: Workload, weights: Weights) -> Network:
    dense = weights["dense_0/weight"]  # its rows: from (height, width, channels) to (channels, height, width)
    dense = dense.reshape(-1, work.units[1], work.units[2]).swapaxes(0, 1).reshape(dense.shape)
    net = nn.Sequential(
        _conv(weights, "conv2d_0"), nn.ReLU(), nn.MaxPool2d(2),
        _conv(weights, "conv2d_1"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        _linear(dense, weights["dense_0/bias"]), nn.ReLU(), _dense(weights, "dense_1"),
    )  # fmt: skip
    return net, net


def _convolutions(work: Workload, weights: Weights) -> Network:
    modules = []
    for i, channels in enumerate(work.units):
        norm = _norm(nn.BatchNorm2d(channels), weights, f"batchnorm_{i}")
        modules += [_conv(weights, f"conv2d_{i}", padding=1), norm, nn.ReLU()]
    net = nn.Sequential(*modules)
    return net, net


def _recurrent(module: Any, weights: Weights, path: str) -> Any:
    inputs, hidden, bias = (weights[f"{path}/{name}"] for name in ("input_weight", "hidden_weight", "bias"))
    _filled(module, inputs.T, hidden.T, bias, np.zeros_like(bias))
    module.bias_hh_l0.requires_grad_(False)
    return module


def _rnn(work: Workload, weights: Weights) -> Network:
    rnn = _recurrent(nn.RNN(work.shape[-1], work.units[0], batch_first=True), weights, "rnn_0")
    head = _dense(weights, "dense_0")
    return nn.ModuleList([rnn, head]), lambda x: head(rnn(x)[0])


def _lstm(work: Workload, weights: Weights) -> Network:
    embedding = _filled(nn.Embedding(work.units[2], work.units[0]), weights["embedding_0/weight"])
    lstm = _recurrent(nn.LSTM(work.units[0], work.units[1], batch_first=True), weights, "lstm_0")
    head = _dense(weights, "dense_0")
    return nn.ModuleList([embedding, lstm, head]), lambda x: head(lstm(embedding(x))[0])


def _block(work: Workload, weights: Weights) -> Network:
    heads, features = work.units[0], work.shape[-1]
    norms = [_norm(nn.LayerNorm(features), weights, f"{name}_norm") for name in ("attention", "feed_forward")]
    parts = ("query", "key", "value")
    weight, bias = (np.concatenate([weights[f"attention/{p}/{k}"] for p in parts], -1) for k in ("weight", "bias"))
    project, out = _linear(weight, bias), _dense(weights, "attention/output")
    up, down = (_dense(weights, f"feed_forward/dense_{i}") for i in range(2))

    def forward(x: Any) -> Any:
        batch, time, _ = x.shape
        q, k, v = project(norms[0](x)).view(batch, time, 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + out(attended.transpose(1, 2).reshape(batch, time, features))
        return x + down(F.gelu(up(norms[1](x)), approximate="tanh"))

    return nn.ModuleList([*norms, project, out, up, down]), forward


ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
NETWORKS: dict[str, Callable[[Workload, Weights], Network]] = {
    **{"mlp": _mlp, "lenet": _lenet, "convolutions": _convolutions},
    **{"rnn": _rnn, "lstm": _lstm, "block": _block},
}
