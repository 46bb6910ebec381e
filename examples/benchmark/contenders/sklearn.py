"""scikit-learn's `MLPRegressor` and `MLPClassifier`, by `partial_fit`: 20 batches a call where they are timed, since it
loops over batches by itself. Weight decay leaves its biases alone.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..workloads import Workload, batches
from . import Job, NotOffered, Step, Weights

network: Any = importlib.import_module("sklearn.neural_network")

AT_ONCE = 20


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    if work.network != "mlp" or work.last:
        raise NotOffered(f"no {work.network} with {work.last or work.activation} at the end")
    data = [(x, y.ravel() if work.loss else y) for x, y in batches(work)]
    if work.loss is None:
        model = _model(work, weights, data)
        return Job(lambda: lambda i: model.predict(data[i % len(data)][0]))
    regression = work.loss == "mse"
    turns = AT_ONCE // len(data)
    x, y = (np.concatenate([pair[k] for pair in data] * turns) for k in range(2))
    current: Any = None

    def start() -> Step:
        nonlocal current
        model = current = _model(work, weights, data)

        def one(i: int) -> Any:
            decay = 0.5 * model.alpha / work.batch * sum(np.vdot(w, w) for w in model.coefs_)
            model.partial_fit(*data[i % len(data)])
            return (model.loss_ - decay) * (2 if regression else 1)

        return one

    def many(n: int) -> int:
        calls = -(-n // AT_ONCE)
        for _ in range(calls):
            current.partial_fit(x, y)
        return calls * AT_ONCE

    return Job(start, many)


def _model(work: Workload, weights: Weights, data: Any) -> Any:
    """A model with the initial weights. Its squared error is halved, so its rate is doubled."""
    regression = work.loss in ("mse", None)
    make = network.MLPRegressor if regression else network.MLPClassifier
    model = make(
        hidden_layer_sizes=work.units[:-1],
        activation={"sigmoid": "logistic"}.get(work.activation, work.activation),
        solver="adam" if work.optimizer == "adam" else "sgd",
        alpha=1e-4 * work.batch if work.optimizer == "momentum" else 0.0,
        batch_size=work.batch,
        learning_rate_init=work.rate * (2 if regression else 1),
        momentum=0.9 if work.optimizer == "momentum" else 0.0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    classes = {} if regression else {"classes": np.arange(max(2, work.units[-1]))}
    model.partial_fit(*data[0], **classes)
    for i, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_)):
        weight[:], bias[:] = weights[f"dense_{i}/weight"], weights[f"dense_{i}/bias"]
    del model._optimizer  # begins anew at the next call
    return model
