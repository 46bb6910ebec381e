"""What a training run has to tell: the rows of its history, and the record of it that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, NamedTuple

import attrs

from fnn.checkpoint import CheckpointError, check_saving, load, load_metadata, save
from fnn.contract import Train
from fnn.random import Key
from fnn.types import EMPTY, Params, State


@attrs.frozen(eq=False)
class TrainState:
    """Everything that a training step reads and gives anew. Resuming needs nothing else."""

    step: int
    """Updates made so far."""
    params: Params
    state: State
    opt_state: Any
    key: Key

    def mode(self, draws: bool) -> Train:
        """The mode of the next step: layers that draw do so from the key, "step" and the number of the step."""
        return Train(self.key.fold_in("step").fold_in(self.step) if draws else self.key)


class Best(NamedTuple):
    """The outcome of the best evaluation so far."""

    params: Params
    state: State


@attrs.frozen
class Row:
    """One line of the history."""

    step: int
    """Updates made so far."""
    epoch: float
    """The same in epochs."""
    loss: float
    """The mean training loss since the row before, over examples by weight, each as it was when its step was made."""
    learning_rate: float | None
    """The learning rate of the last step, if the optimizer's state tells."""
    seconds: float
    """Time since the start, of all runs together where training was resumed."""
    evaluation: Mapping[str, float]
    """The loss and the metrics on the evaluation data; empty where nothing was evaluated."""


@attrs.frozen(eq=False)
class Run:
    """How far a run has come: what `train` carries from step to step, and what a checkpoint of it holds."""

    train_state: TrainState
    best: Best
    score: float = math.inf
    """The value that the best evaluation had; negated where higher is better."""
    monitor: str = "loss"
    """What it is the value of."""
    per_epoch: int = 0
    """Steps in an epoch."""
    made: Mapping[str, str] = EMPTY
    """What is trained, and how: the code of the model, the loss, the optimizer and the penalty."""
    loss: float = 0.0
    """The weighted sum of the training losses since the last row."""
    weight: float = 0.0
    """The sum of the weights: the number of examples, where these have no weights."""
    seconds: float = 0.0
    history: tuple[Row, ...] = ()

    def stepped(self, train_state: TrainState, loss: float, weight: float) -> Run:
        """The run after one step more, with the mean loss and the weight of its batch."""
        total = self.loss + loss * weight
        weight += self.weight
        told = self.score, self.monitor, self.per_epoch, self.made
        return Run(train_state, self.best, *told, total, weight, self.seconds, self.history)


def save_run(path: str | PathLike[str], run: Run) -> None:
    """Writes the run to a checkpoint: its train states as arrays, the rest as metadata."""
    fields = "score", "monitor", "per_epoch", "made", "loss", "weight", "seconds"
    told = {name: getattr(run, name) for name in fields}
    columns = {field.name: [getattr(row, field.name) for row in run.history] for field in attrs.fields(Row)}
    save(path, _kept(run), metadata={"run": {**told, "history": columns}})


def check_saving_run(path: str | PathLike[str], run: Run) -> None:
    """Raises what `save_run` would."""
    check_saving(path, _kept(run))


def _kept(run: Run) -> dict[str, Any]:
    """Before any evaluation the best parameters are the present ones."""
    now = run.train_state
    return {"train_state": now, "best": run.best if run.score < math.inf else Best(now.params, now.state)}


def load_run(path: str | PathLike[str], like: TrainState) -> Run:
    """The run in a checkpoint; `CheckpointError` lists what differs from the structure of `like`."""
    found: Any = load(path, _kept(Run(like, Best(like.params, like.state))))
    try:
        told = dict(load_metadata(path)["run"])
        columns = told.pop("history")
        rows = tuple([Row(*row) for row in zip(*[columns[field.name] for field in attrs.fields(Row)])])
        return Run(**found, history=rows, **told)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{fspath(path)} is a checkpoint, but not one that this version of train wrote"
        ) from error
