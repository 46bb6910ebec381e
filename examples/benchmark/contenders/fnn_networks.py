"""The networks of the workloads in fnn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fnn
from fnn import Dense, Flatten, Layer, Relu, Sigmoid, Tanh, serial

from ..workloads import Workload

ACTIVATIONS: dict[str, Layer[Any, Any]] = {"relu": Relu, "sigmoid": Sigmoid, "tanh": Tanh}


def _mlp(work: Workload) -> Layer[Any, Any]:
    layers: list[Layer[Any, Any]] = []
    for units in work.units:
        layers += [Dense(units), ACTIVATIONS[work.activation]]
    return serial(*layers[:-1], *([ACTIVATIONS[work.last]] if work.last else []))


def _lenet(work: Workload) -> Layer[Any, Any]:
    first, second, units, classes = work.units
    return serial(
        fnn.Conv2D(first, 5, padding="valid"), Relu, fnn.MaxPool2D(2),
        fnn.Conv2D(second, 5, padding="valid"), Relu, fnn.MaxPool2D(2),
        Flatten, Dense(units), Relu, Dense(classes),
    )  # fmt: skip


def _rnn(work: Workload) -> Layer[Any, Any]:
    return serial(fnn.RNN(work.units[0]), Dense(work.units[1]))


def _lstm(work: Workload) -> Layer[Any, Any]:
    embedding, units, vocabulary = work.units
    return serial(fnn.Embedding(vocabulary, embedding), fnn.LSTM(units), Dense(vocabulary))


def _convolutions(work: Workload) -> Layer[Any, Any]:
    first, second = (fnn.Conv2D(channels, 3, bias_init=None) for channels in work.units)
    return serial(first, fnn.BatchNorm(), Relu, second, fnn.BatchNorm(), Relu)


def _block(work: Workload) -> Layer[Any, Any]:
    (heads, hidden), features = work.units, work.shape[-1]
    between = fnn.FeedForward(features, hidden, activation=fnn.GeluTanh)
    return fnn.TransformerBlock(features, heads, causal=True, feed_forward=between)


NETWORKS: dict[str, Callable[[Workload], Layer[Any, Any]]] = {
    "mlp": _mlp,
    "lenet": _lenet,
    "rnn": _rnn,
    "lstm": _lstm,
    "convolutions": _convolutions,
    "block": _block,
}
