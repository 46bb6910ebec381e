"""thinc, on its NumPy operations. It has layers with relu and sigmoid, plain SGD and Adam; the derivatives of losses
are written out, as its own functions return them without the value.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..workloads import Workload, batches
from . import Job, NotOffered, Step, Weights

api: Any = importlib.import_module("thinc.api")

LAYERS = {"relu": api.Relu, "sigmoid": api.Sigmoid, None: api.Linear}


def _mse(answer: Any, target: Any) -> tuple[Any, Any]:
    difference = answer - target
    return np.vdot(difference, difference) / difference.size, difference * np.float32(2 / difference.size)


def _sigmoid(answer: Any, target: Any) -> tuple[Any, Any]:
    """From probabilities, since the activation belongs to the layer."""
    slope = (answer - target) / (answer * (1 - answer) * np.float32(answer.size))
    return -np.log(np.abs(1 - target - answer)).mean(), slope


def _softmax(answer: Any, target: Any) -> tuple[Any, Any]:
    """The layer returns the slope of the logits as it is given."""
    return -np.log((answer * target).sum(axis=1)).mean(), (answer - target) / np.float32(len(answer))


LOSSES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {"mse": _mse, "sigmoid": _sigmoid, "softmax": _softmax}


def _model(work: Workload, weights: Weights) -> Any:
    output = {"softmax": api.Softmax, "sigmoid": api.Sigmoid}.get(work.loss or "", LAYERS[work.last])
    if work.network != "mlp" or work.activation not in LAYERS:
        raise NotOffered(f"no {work.network} with {work.activation}")
    makes = [LAYERS[work.activation]] * (len(work.units) - 1) + [output]
    layers = [make(*sizes) for make, sizes in zip(makes, zip(work.units, (*work.shape, *work.units)))]
    model = api.chain(*layers).initialize()
    for i, layer in enumerate(layers):
        layer.set_param("W", weights[f"dense_{i}/weight"].T.copy())
        layer.set_param("b", weights[f"dense_{i}/bias"].copy())
    return model


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    api.use_ops("numpy")
    data = batches(work)
    if work.loss is None:
        model = _model(work, weights)
        return Job(lambda: lambda i: model.predict(data[i % len(data)][0]))
    if work.optimizer == "momentum":
        raise NotOffered("no momentum")
    make = {"sgd": api.SGD, "adam": api.Adam}[work.optimizer]
    loss = LOSSES[work.loss]
    if work.loss == "softmax":
        data = [(x, np.eye(work.units[-1], dtype=np.float32)[labels]) for x, labels in data]
    _model(work, weights)

    def start() -> Step:
        model = _model(work, weights)
        opt = make(work.rate, L2=0.0, grad_clip=0.0, use_averages=False)

        def one(i: int) -> Any:
            x, target = data[i % len(data)]
            answer, back = model.begin_update(x)
            value, slope = loss(answer, target)
            back(slope)
            model.finish_update(opt)
            return value

        return one

    return Job(start)
