"""Training in three layers, each usable alone: `make_step` (one update), `iterate` (a generator of updates), and
`train` (a fold over it that keeps history, evaluates, reports and saves). All of them are pure but for what is injected.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import Any, TypeAlias, TypeVar

import attrs

from fnn import tree
from fnn.contract import Layer, Loss, Train, ValueAndGrad, evaluator, value_and_grad
from fnn.data import Data, count
from fnn.diagnosis import explain
from fnn.history import Row, Run, TrainState, load_run, save_run
from fnn.check import positive
from fnn.metrics import Mean, Metric, add_to_mean, compute_mean
from fnn.optimizers import Context, GradientTransformation, Update, UpdateWith, apply_updates, learning_rate
from fnn.random import Key
from fnn.types import EMPTY, Array, Params, State, bind

X = TypeVar("X")
Y = TypeVar("Y")
T = TypeVar("T")
B = TypeVar("B")

Batch: TypeAlias = tuple[X, T] | tuple[X, T, Array]
"""Inputs and targets, and perhaps a weight for each example."""


# --- one update ------------------------------------------------------------------------------------------------------


Step: TypeAlias = Callable[[TrainState, B], tuple[TrainState, Mapping[str, Array]]]


def make_step(model: Layer[X, Y], loss: Loss[Y, T], opt: GradientTransformation) -> Step[Batch[X, T]]:
    """The pure function `(train_state, batch) -> (train_state, {"loss": ...})` of one update.

    The batch is `(x, target)` or `(x, target, weight)`. Random layers draw from `key`, "step" and the step's number.
    """
    f = value_and_grad(model, loss)
    update_with: UpdateWith | None = getattr(opt, "update_with", None)
    if update_with is not None:
        return bind(_step_with, f, update_with, model.draws)
    return bind(_step, f, opt.update, model.draws)


def _step(
    f: ValueAndGrad[X, T], update: Update, draws: bool, before: TrainState, batch: Batch[X, T]
) -> tuple[TrainState, Mapping[str, Array]]:
    step, params, key = before.step, before.params, before.key
    mode = Train(key.fold_in("step").fold_in(step) if draws else key)
    weight = batch[2] if len(batch) == 3 else None
    loss, grads, state = f(params, before.state, batch[0], batch[1], mode, weight)
    updates, opt_state = update(grads, before.opt_state, params)
    return TrainState(step + 1, apply_updates(params, updates), state, opt_state, key), {"loss": loss}


def _step_with(
    f: ValueAndGrad[X, T], update: UpdateWith, draws: bool, before: TrainState, batch: Batch[X, T]
) -> tuple[TrainState, Mapping[str, Array]]:
    """`_step` for optimizers that are given the loss, the number of examples, and gradients at other parameters."""
    step, params, key = before.step, before.params, before.key
    mode = Train(key.fold_in("step").fold_in(step) if draws else key)
    weight = batch[2] if len(batch) == 3 else None
    loss, grads, state = f(params, before.state, batch[0], batch[1], mode, weight)

    def grad(at: Params) -> Params:
        return f(at, before.state, batch[0], batch[1], mode, weight)[1]

    examples = float(len(tree.leaves(batch[1])[0])) if weight is None else float(weight.sum())
    updates, opt_state = update(grads, before.opt_state, params, Context(loss, examples, grad))
    return TrainState(step + 1, apply_updates(params, updates), state, opt_state, key), {"loss": loss}


def iterate(
    step: Step[B], train_state: TrainState, batches: Iterable[B]
) -> Iterator[tuple[TrainState, Mapping[str, Array]]]:
    """`(train_state, metrics)` after each of the batches: stop, evaluate and save in the body of your own `for`."""
    for batch in batches:
        train_state, metrics = step(train_state, batch)
        yield train_state, metrics


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(
    model: Layer[X, Y],
    params: Params,
    data: Batch[X, T],
    *,
    loss: Loss[Y, T],
    metrics: Sequence[Metric[Y, T]] = (),
    state: State = EMPTY,
    size: int = 1024,
) -> dict[str, float]:
    """The mean loss and the metrics, by name, over arrays `(x, target)` or `(x, target, weight)`, `size` at a time."""
    examples, infer = count(data, "evaluate"), evaluator(model)
    mean, sums = Mean(0.0, 0.0), [metric.init() for metric in metrics]
    for start in range(0, examples, size):
        x, target, *rest = tree.map(lambda a: a[start : start + size], data)
        weight = rest[0] if rest else None
        output = infer(params, state, x)
        mean = add_to_mean(mean, loss.each(output, target), weight)
        sums = [metric.update(total, output, target, weight) for metric, total in zip(metrics, sums)]
    return {"loss": compute_mean(mean), **{m.kind: m.compute(total) for m, total in zip(metrics, sums)}}


# --- the loop --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Result:
    """What training gives."""

    train_state: TrainState
    """The final state; `train(..., resume=result.train_state)` goes on from it."""
    best: Params
    """The parameters of the best evaluation; the final ones without evaluation data."""
    best_state: State
    """The running statistics that belong to `best`."""
    history: tuple[Row, ...]

    @property
    def params(self) -> Params:
        """The final parameters."""
        return self.train_state.params

    @property
    def state(self) -> State:
        """The final running statistics."""
        return self.train_state.state


def train(
    params: Params,
    data: Data[Batch[X, T]],
    opt: GradientTransformation,
    *,
    model: Layer[X, Y],
    loss: Loss[Y, T],
    epochs: int | None = None,
    steps: int | None = None,
    key: Key = Key(0),
    state: State | None = None,
    evaluation: Batch[X, T] | None = None,
    metrics: Sequence[Metric[Y, T]] = (),
    monitor: str = "loss",
    every: int | None = None,
    report: Callable[[Row], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: TrainState | str | PathLike[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Trains from `params` until `epochs` epochs, or `steps` updates, have been made in all.

    data: `batches(...)`, or anything of that form. Batches are `(x, target)` or `(x, target, weight)`.
    key: the source of all randomness: the order of the data and what random layers draw.
    state: running statistics to start from; by default `model.init_state` of the data's shape.
    evaluation: arrays on which the loss and `metrics` are computed after every epoch and at the end; `monitor` names
        the one that decides which parameters are `Result.best`.
    every: a row of the history is made after this many steps, as well as after every epoch and at the end.
    report: called with every row, for instance `progress()`.
    checkpoint: a file to save to, every `checkpoint_every` steps (by default every epoch), at the end, and when
        interrupted from the keyboard.
    resume: a checkpoint, or the `train_state` of a result, to go on from; `params` then only say what it must contain.
        Training n steps gives the same bits as training k, saving, loading in a new process and training n - k.

    Raises `NonFiniteError` when the loss stops being finite: it says where that began, and holds the last good state.
    """
    _check_parts(data, opt, model, loss, metrics, monitor, evaluation)
    per_epoch = data.steps_per_epoch
    total = _total(per_epoch, epochs, steps)
    every = positive("train", "every", total if every is None else every)
    save_every = positive("train", "checkpoint_every", per_epoch if checkpoint_every is None else checkpoint_every)
    run = _start(params, state, key, data, opt, model, resume)
    step, now, loss_sum, examples = make_step(model, loss, opt), run.train_state, run.loss, run.examples
    before, began = now, clock() - run.seconds

    def so_far() -> Run:
        return attrs.evolve(run, train_state=now, loss=loss_sum, examples=examples, seconds=clock() - began)

    try:
        for batch in islice(data.stream(now.key, now.step), max(0, total - now.step)):
            after, measured = step(now, batch)
            value = float(measured["loss"])
            if not math.isfinite(value):
                raise explain(model, loss, data, before, now)
            before, now = now, after
            n = len(tree.leaves(batch[1])[0])
            loss_sum, examples = loss_sum + value * n, examples + n
            epoch_ends = now.step % per_epoch == 0 or now.step == total
            if epoch_ends or now.step % every == 0:
                evaluated: Mapping[str, float] = EMPTY
                if evaluation is not None and epoch_ends:
                    evaluated = evaluate(model, now.params, evaluation, loss=loss, metrics=metrics, state=now.state)
                run = _with_row(so_far(), now.step / per_epoch, evaluated, monitor, metrics)
                loss_sum, examples = 0.0, 0
                if report:
                    report(run.history[-1])
            if checkpoint is not None and (now.step % save_every == 0 or now.step == total):
                save_run(checkpoint, so_far())
    except KeyboardInterrupt as interrupt:
        if checkpoint is not None:
            save_run(checkpoint, so_far())
            interrupt.add_note(f"saved step {now.step} to {checkpoint}; train(..., resume=...) goes on from there")
        raise
    best = now if evaluation is None else run.best
    return Result(now, best.params, best.state, run.history)


def _with_row(
    run: Run, epoch: float, evaluated: Mapping[str, float], monitor: str, metrics: Sequence[Metric[Any, Any]]
) -> Run:
    """The run with one row more, and with its best state if this evaluation is the best so far."""
    now = run.train_state
    mean = run.loss / run.examples
    row = Row(now.step, epoch, mean, learning_rate(now.opt_state), run.seconds, evaluated)
    run = attrs.evolve(run, loss=0.0, examples=0, history=(*run.history, row))
    if not evaluated:
        return run
    score = evaluated[monitor]
    if any(metric.kind == monitor and metric.higher_is_better for metric in metrics):
        score = -score
    return attrs.evolve(run, best=now, score=score) if score < run.score else run


def _start(
    params: Params,
    state: State | None,
    key: Key,
    data: Data[Batch[X, T]],
    opt: GradientTransformation,
    model: Layer[X, Y],
    resume: TrainState | str | PathLike[str] | None,
) -> Run:
    """The run to begin with, or to go on with; checks that parameters, model and data belong together."""
    first = next(iter(data.stream(key, 0)))
    if not isinstance(first, tuple) or len(first) not in (2, 3):
        raise TypeError(f"train: expected batches (x, target) or (x, target, weight), got {_kind(first)}")
    in_shape = tree.map(lambda a: a.shape[1:], first[0])
    model.out_shape(in_shape)
    tree.check_same_structure(model.init(key, in_shape), params, ("the model's parameters", "the given ones"))
    params, state = tree.read_only(params), model.init_state(in_shape) if state is None else state
    fresh = TrainState(0, params, state, opt.init(params), key)
    if resume is None:
        return Run(fresh, fresh)
    if isinstance(resume, TrainState):
        tree.check_same_structure(params, resume.params, ("the given parameters", "those to resume from"))
        return Run(resume, resume)
    return load_run(resume, fresh)


def _total(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    if per_epoch < 1:
        raise ValueError("train: the data has no batches")
    if epochs is not None and steps is None:
        return positive("train", "epochs", epochs) * per_epoch
    if steps is not None and epochs is None:
        return positive("train", "steps", steps)
    raise ValueError(f"train: expected either epochs or steps, got epochs={epochs} and steps={steps}")


def _check_parts(
    data: Any, opt: Any, model: Any, loss: Any, metrics: Sequence[Any], monitor: str, evaluation: Any
) -> None:
    """Each part has its place; a function that makes a part, given instead of it, is the common mistake."""
    for name, part, expected, ok in (
        ("data", data, "batches(...)", hasattr(data, "stream") and hasattr(data, "steps_per_epoch")),
        ("opt", opt, "an optimizer such as adam(1e-3)", hasattr(opt, "init") and hasattr(opt, "update")),
        ("model", model, "a layer such as serial(...)", isinstance(model, Layer)),
        ("loss", loss, "a loss such as mse", isinstance(loss, Loss)),
        *(("metrics", metric, "metrics such as accuracy", isinstance(metric, Metric)) for metric in metrics),
    ):
        if not ok:
            call = f"; call it: {part.__name__}(...)" if callable(part) and hasattr(part, "__name__") else ""
            raise TypeError(f"train: {name}: expected {expected}, got {_kind(part)}{call}")
    names = ["loss", *(metric.kind for metric in metrics)]
    if monitor not in names:
        raise ValueError(f"train: monitor: expected one of {', '.join(names)}, got {monitor!r}")
    if evaluation is not None:
        count(evaluation, "train: evaluation")


def _kind(thing: Any) -> str:
    return f"a tuple of {len(thing)}" if isinstance(thing, tuple) else type(thing).__name__
