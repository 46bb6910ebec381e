"""What is computed: networks, batches, losses and optimizers, stated once for all contenders.

The numbers are random, since speed does not depend on them; they are the same in every process. Images are
`(batch, height, width, channels)`, sequences `(batch, time, features)`; who needs another layout converts first.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

BATCHES = 4
"""So many different batches are taken in turn."""


@attrs.frozen
class Workload:
    """A training step, or the answers for a batch where there is no loss."""

    name: str
    title: str
    network: str
    """mlp, lenet, rnn, lstm, convolutions (with batch normalisation and relu) or block (of a causal transformer)."""
    units: tuple[int, ...]
    """Outputs of the layers in turn; of a block, its heads and the units between."""
    shape: tuple[int, ...]
    """Of one input; `(time,)` for sequences of tokens."""
    batch: int
    target: tuple[int, ...] = ()
    """The shape of one target."""
    loss: str | None = None
    """mse, sigmoid or softmax: the cross-entropies take logits, softmax takes labels."""
    optimizer: str = "sgd"
    """sgd, momentum (0.9, and weight decay 0.0001 on every parameter) or adam."""
    rate: float = 0.1
    activation: str = "relu"
    """Between the layers of an mlp."""
    last: str | None = None
    """After its last."""


_WIDE, _TANH = (512, 512, 10), (50, 50, 10)
_ALL = (
    Workload("W1", "1-25-1, batch 90", "mlp", (25, 1), (1,), 90, (1,), "mse", activation="sigmoid"),
    Workload("W2", "784-16-16-10, batch 64", "mlp", (16, 16, 10), (784,), 64, (10,), "mse", rate=1.0, last="sigmoid"),
    Workload("W3", "2-25-50-50-25-1, batch 800", "mlp", (25, 50, 50, 25, 1), (2,), 800, (1,), "sigmoid"),
    Workload("W4", "784-50-50-10, batch 100", "mlp", _TANH, (784,), 100, (), "softmax", "momentum", 0.05, "tanh"),
    Workload("W5", "784-512-512-10, batch 128", "mlp", _WIDE, (784,), 128, (), "softmax", "adam", 1e-3),
    Workload("W6", "LeNet, batch 64", "lenet", (16, 32, 128, 10), (28, 28, 1), 64, (), "softmax", "adam", 1e-3),
    Workload("W7", "RNN 32, 50 steps, batch 32", "rnn", (32, 1), (50, 1), 32, (50, 1), "mse", "adam", 1e-3),
    Workload("W8", "LSTM 128, 64 steps, batch 32", "lstm", (64, 128, 65), (64,), 32, (64,), "softmax", "adam", 1e-3),
    Workload("W9", "3x3 convolutions, batch 32", "convolutions", (64, 64), (32, 32, 32), 32, (32, 32, 64), "mse"),
    Workload("W10", "transformer, batch 16", "block", (4, 512), (64, 128), 16, (64, 128), "mse", "adam", 1e-3),
    Workload("W11a", "784-512-512-10, answer to 1", "mlp", _WIDE, (784,), 1, (10,)),
    Workload("W11b", "784-512-512-10, answers to 1,024", "mlp", _WIDE, (784,), 1024, (10,)),
)
WORKLOADS = {work.name: work for work in _ALL}


def batches(work: Workload) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of inputs and targets; the targets of a workload without a loss are zeros."""
    rng = np.random.default_rng(0)

    def inputs() -> NDArray[Any]:
        if work.network == "lstm":
            return rng.integers(work.units[-1], size=(work.batch, *work.shape))
        return rng.standard_normal((work.batch, *work.shape), np.float32)

    def targets() -> NDArray[Any]:
        shape = (work.batch, *work.target)
        if work.loss == "softmax":
            return rng.integers(work.units[-1], size=shape)
        if work.loss == "sigmoid":
            return rng.integers(2, size=shape).astype(np.float32)
        return rng.standard_normal(shape, np.float32) if work.loss else np.zeros(shape, np.float32)

    return [(inputs(), targets()) for _ in range(BATCHES)]
