"""fnn as its users write it. `fnn` replays a compiled step where this version can (`fnn.compiled`), as `train` does;
`fnn_plain` calls the same step as it stands.

Both leave several threads to the matrix products of NumPy's BLAS. Where a step splits its batch over threads itself,
`_stepper` is the place to ask for it, and `machine.settings` that to leave BLAS one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fnn
from fnn import Dense, Flatten, Key, Layer, Loss, Optimizer, Relu, Sigmoid, Tanh, TrainState, make_step, serial, tree

from ..workloads import Workload, batches
from . import Job, Step, Weights


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


def _momentum(rate: float) -> Optimizer:
    return fnn.chain(fnn.add_decayed_weights(1e-4, where=lambda path, leaf: True), fnn.sgd(rate, momentum=0.9))


ACTIVATIONS: dict[str, Layer[Any, Any]] = {"relu": Relu, "sigmoid": Sigmoid, "tanh": Tanh}
NETWORKS: dict[str, Callable[[Workload], Layer[Any, Any]]] = {
    "mlp": _mlp,
    "lenet": _lenet,
    "rnn": _rnn,
    "lstm": _lstm,
    "convolutions": _convolutions,
    "block": _block,
}
LOSSES: dict[str, Loss[Any, Any]] = {
    "mse": fnn.mse,
    "sigmoid": fnn.sigmoid_cross_entropy(),
    "softmax": fnn.softmax_cross_entropy(),
}
OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": fnn.sgd, "momentum": _momentum, "adam": fnn.adam}


def initial(work: Workload) -> Weights:
    """The weights with which every contender begins."""
    return dict(tree.items(NETWORKS[work.network](work).init(Key(0), work.shape)))


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    net, data = NETWORKS[work.network](work), batches(work)
    params = tree.map_with_path(lambda path, leaf: weights[path], net.init(Key(0), work.shape))
    if work.loss is None:
        answer = _stepper(name, threads, net.apply)
        return Job(lambda: lambda i: answer(params, data[i % len(data)][0]))
    opt = OPTIMIZERS[work.optimizer](work.rate)
    step = _stepper(name, threads, make_step(net, LOSSES[work.loss], opt))

    def start() -> Step:
        now = TrainState(0, params, net.init_state(work.shape), opt.init(params), Key(0))

        def one(i: int) -> Any:
            nonlocal now
            now, metrics = step(now, data[i % len(data)])
            return metrics["loss"]

        return one

    return Job(start)


def _stepper(name: str, threads: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The pure function as this contender calls it."""
    compiled: Callable[[Any], Callable[..., Any]] | None = getattr(fnn, "compiled", None)
    return compiled(function) if compiled and name == "fnn" else function
