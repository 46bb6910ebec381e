"""A training that draws on everything a checkpoint must hold, and a program that resumes it in a process of its own.

`python -m tests.resuming FOLDER K...` resumes from FOLDER/K.npz for every K, and saves the end to FOLDER/end_K.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from fnn.checkpoint import save
from fnn.combinators import serial
from fnn.data import batches
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.losses import softmax_cross_entropy
from fnn.metrics import accuracy
from fnn.optimizers import add_decayed_weights, adam, chain
from fnn.random import Key
from fnn.schedules import cosine
from fnn.training import Result, train

EXAMPLES, SIZE = 45, 8
PER_EPOCH = 6
STEPS = 21  # ends within the fourth epoch

MODEL = serial(Dense(7), BatchNorm(), Tanh, Dropout(0.3), serial(Dense(5), Tanh, Dropout(0.2)), Dense(3))


def examples(n: int, seed: int) -> tuple[Any, Any]:
    """Points on noisy arcs, and which arc."""
    generator = Key(seed).generator()
    labels = generator.integers(0, 3, n)
    angle = labels * 2 + generator.standard_normal(n) * 0.7
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32), labels


def run(steps: int, **options: Any) -> Result:
    """Training up to a number of steps."""
    settings: dict[str, Any] = dict(
        model=MODEL,
        loss=softmax_cross_entropy(smoothing=0.1),
        key=Key(11),
        evaluation=examples(20, 1),
        metrics=(accuracy,),
        monitor="accuracy",
        every=4,
    )
    opt = chain(add_decayed_weights(1e-3), adam(cosine(0.05, steps=STEPS)))
    data = batches(examples(EXAMPLES, 0), SIZE)
    return train(MODEL.init(Key(5), (2,)), data, opt, steps=steps, **{**settings, **options})


def outcome(result: Result) -> dict[str, Any]:
    """All of a result but the time it took, as a tree."""
    rows = [attrs.asdict(attrs.evolve(row, seconds=0.0)) for row in result.history]
    return {
        "train_state": result.train_state,
        "best": result.best,
        "best_state": result.best_state,
        "history": tuple(rows),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for k in sys.argv[2:]:
        save(folder / f"end_{k}.npz", outcome(run(STEPS, resume=folder / f"{k}.npz")))
