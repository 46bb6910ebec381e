"""Training in three layers, each usable alone: `make_step` (one update), `iterate` (a generator of updates), and
`train` (a fold over it that keeps history, evaluates, reports, saves). All of them are pure but for what is injected.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from os import PathLike
from typing import Any, TypeAlias, TypeVar

import attrs
import numpy as np

from fnn import tree
from fnn.check import call_hint, positive
from fnn.compile import compiled
from fnn.contract import Layer, Loss, Penalty, ValueAndGrad, evaluator, value_and_grad
from fnn.data import Data, check_numbers, count, weight_of
from fnn.diagnosis import Parts, explain, first_bad
from fnn.history import Best, Row, Run, TrainState, check_saving_run, load_run, save_run
from fnn.losses.core import ratio, sums_of
from fnn.metrics import Metric
from fnn.optimizers import Context, GradientTransformation, UpdateWith, apply_updates, learning_rate
from fnn.optimizers.protocol import plain_update
from fnn.preconditions import (
    check_batch,
    check_measures,
    check_params,
    check_part,
    check_parts,
    check_step,
    check_use,
    is_optimizer,
    kind_of,
    steps_in_all,
)
from fnn.random import Key
from fnn.recordable import live
from fnn.types import EMPTY, Array, Params, State, bind

X = TypeVar("X")
Y = TypeVar("Y")
T = TypeVar("T")
B = TypeVar("B")

Batch: TypeAlias = tuple[X, T] | tuple[X, T, Array]
"""Inputs and targets, and perhaps a weight for each example."""


# --- one update ------------------------------------------------------------------------------------------------------


Step: TypeAlias = Callable[[TrainState, B], tuple[TrainState, Mapping[str, Array]]]


def make_step(
    model: Layer[X, Y], loss: Loss[Y, T], opt: GradientTransformation, *, penalty: Penalty | None = None
) -> Step[Batch[X, T]]:
    """The pure function `(train_state, batch) -> (train_state, {"loss": ...})` of one update.

    The batch is `(x, target)` or `(x, target, weight)`. Random layers draw from `key`, "step" and the step's number.
    """
    f = value_and_grad(model, loss, penalty)
    check_part("make_step: opt", opt, "an optimizer such as adam(1e-3)", is_optimizer(opt))
    update_with: UpdateWith | None = getattr(opt, "update_with", None)
    if update_with is not None:
        return bind(_step, f, update_with, True, model.draws)
    return bind(_step, f, plain_update(opt), False, model.draws)


def _step(
    f: ValueAndGrad[X, T],
    update: Callable[..., tuple[Params, Any]],
    contextual: bool,
    draws: bool,
    before: TrainState,
    batch: Batch[X, T],
) -> tuple[TrainState, Mapping[str, Array]]:
    """Contextual updates are given the loss, the number of examples, and gradients at other parameters, too."""
    mode, x, target, weight = before.mode(draws), batch[0], batch[1], batch[2] if len(batch) == 3 else None

    def at(params: Params) -> tuple[Array, Params, State]:
        return f(params, before.state, x, target, mode, weight)

    loss, grads, state = at(before.params)
    if not tree.leaves(grads):  # nothing is trained; running statistics move all the same
        return TrainState(before.step + 1, before.params, state, before.opt_state, before.key), {"loss": loss}
    context = []
    if contextual:
        examples = float(len(tree.leaves(x)[0])) if weight is None else live(float, weight.sum())
        context.append(Context(loss, examples, lambda params: at(params)[1]))
    try:
        updates, opt_state = update(grads, before.opt_state, before.params, *context)
        params = apply_updates(before.params, updates)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        error.add_note("an optimizer begins with opt.init(params); its update gives (updates, state)")
        raise
    return TrainState(before.step + 1, params, state, opt_state, before.key), {"loss": loss}


def iterate(
    step: Step[B], train_state: TrainState, batches: Iterable[B]
) -> Iterator[tuple[TrainState, Mapping[str, Array]]]:
    """`(train_state, metrics)` after each of the batches: stop, evaluate and save in the body of your own `for`.

        stream = batches((x, y), size=32).stream(train_state.key, train_state.step)  # without end
        for train_state, metrics in iterate(step, train_state, stream):
            if train_state.step == 1000:
                break
    """
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
    metrics: Sequence[Metric[Y, T, float]] = (),
    state: State = EMPTY,
    size: int = 1024,
) -> dict[str, float]:
    """The mean loss and the metrics, by name, over arrays `(x, target)` or `(x, target, weight)`, `size` at a time.

    Raises `ValueError` unless the parameters are, by their names, those of the model: none is left out in silence.
    (Not looked at where the input holds mappings.)
    """
    check_measures("evaluate", model, loss, metrics)
    check_part("evaluate: params", params, "parameters", isinstance(params, Mapping))
    check_part("evaluate: state", state, "running statistics", isinstance(state, Mapping))
    check_batch("evaluate", data)
    positive("evaluate", "size", size)
    count(data, "evaluate")
    in_shape = tree.map(lambda a: np.shape(a)[1:], data[0])
    if not _has_mapping(in_shape) and _names(model, in_shape) != {path for path, _ in tree.items(params)}:
        tree.check_same_structure(model.init(Key(0), in_shape), params, ("the model", "the given parameters"))
    return _evaluated(model, params, state, data, loss, metrics, size)


def _has_mapping(shape: Any) -> bool:
    return isinstance(shape, Mapping) or isinstance(shape, tuple) and any(map(_has_mapping, shape))


@lru_cache(maxsize=8)
def _names(model: Layer[Any, Any], in_shape: Any) -> frozenset[str]:
    """The paths of the parameters."""
    return frozenset([path for path, _ in tree.items(model.init(Key(0), in_shape))])


def _evaluated(
    model: Layer[X, Y],
    params: Params,
    state: State,
    data: Batch[X, T],
    loss: Loss[Y, T],
    metrics: Sequence[Metric[Y, T, float]],
    size: int = 1024,
) -> dict[str, float]:
    examples, infer = count(data, "evaluate"), evaluator(model)
    sums, loss_sums, parts = [metric.init() for metric in metrics], sums_of(loss), []
    for start in range(0, examples, size):
        x, target, *rest = tree.map(lambda a: a[start : start + size], data)
        weight = rest[0] if rest else None
        output = infer(params, state, x)
        parts.append(loss_sums(output, target, weight))
        sums = [metric.update(total, output, target, weight) for metric, total in zip(metrics, sums)]
    total = np.sum(parts, axis=0)
    if not total[:, 1].all():
        raise ValueError("evaluate: the weights of all examples sum to 0")
    return {"loss": ratio(total), **{m.kind: float(m.compute(total)) for m, total in zip(metrics, sums)}}


# --- the loop --------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
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
    penalty: Penalty | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    key: Key = Key(0),
    state: State | None = None,
    evaluation: Batch[X, T] | None = None,
    metrics: Sequence[Metric[Y, T, float]] = (),
    monitor: str = "loss",
    every: int | None = None,
    report: Callable[[Row], None] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: TrainState | str | PathLike[str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    compile: bool | Step[Batch[X, T]] = True,
    threads: int = 1,
) -> Result:
    """Trains from `params` until `epochs` epochs, or `steps` updates, have been made in all.

    data: `batches(...)`, or anything of that form. Batches are `(x, target)` or `(x, target, weight)`.
    penalty: a term on the parameters, such as `l2(1e-4)`, which the training loss includes and an evaluation does not.
    key: the source of all randomness: the order of the data and what random layers draw.
    state: running statistics to start from; by default `model.init_state` of the data's shape.
    evaluation: arrays on which the loss and `metrics` are computed after every epoch and at the end; `monitor` names
        the one that decides which parameters are `Result.best`.
    every: a row of the history is made after this many steps, as well as after every epoch and at the end.
    report: called with every row, for instance `progress()`.
    checkpoint: a file to save to, every `checkpoint_every` steps (by default every epoch), at the end, and when
        interrupted from the keyboard. That it can be written is tried before the first step.
    resume: a checkpoint, or the `train_state` of a result, to go on from; `params` then only say what it must contain,
        and key and data order are those of the run.
        Training n steps gives the same bits as training k, saving, loading in a new process and training n - k; from
        a checkpoint the history is the same too. (A `train_state` is without history and best parameters.) A checkpoint
        holds the code of its model, loss, optimizer and penalty; the logger "fnn" says so where they were others.

    compile: record the step when the form of a batch repeats, and replay it from planned memory, with the same bits
        (`fnn.compiled`). A step that cannot be recorded is run as it is, and the logger "fnn" says why in one line.
        What layers do besides their results (keep outputs in a list, print) happens while recording only; see `tap`.
        Or the step to make, `compiled(make_step(model, loss, opt, penalty=penalty))`, for several trainings to share.

    threads: split each batch over up to so many threads, each with BLAS on one, where the compiled step has enough
        work in large calls; where it has not, or layers look at the whole batch (`Layer.couples_batch`, running
        statistics), it stays on one thread, and the logger says so. Results differ from those of another number of
        threads in rounding and in what is drawn, since every part draws from a key of its own; never from run to run.

    Interrupted from the keyboard, the `KeyboardInterrupt` holds the `train_state` so far. Raises `NonFiniteError` when
    the loss or the parameters stop being finite: it says where that began, and holds the last good state; no checkpoint
    is written of bad ones.
    """
    check_parts(data, opt, model, loss, penalty, metrics, monitor, key)
    per_epoch = data.steps_per_epoch
    total = steps_in_all(per_epoch, epochs, steps)
    row_every = None if every is None else positive("train", "every", every)
    save_every = per_epoch if checkpoint_every is None else positive("train", "checkpoint_every", checkpoint_every)
    check_use(evaluation, metrics, monitor, checkpoint, checkpoint_every, report, compile)
    run = _start(params, state, key, data, opt, model, resume)
    run = attrs.evolve(run, per_epoch=per_epoch)
    if checkpoint is not None or run.made:
        run = attrs.evolve(run, made=_made(run, model=model, loss=loss, opt=opt, penalty=penalty))
    if evaluation is not None:
        _try_evaluation(model, run.train_state, evaluation, loss, metrics)
    if checkpoint is not None:
        check_saving_run(checkpoint, run)
    before, began = run.train_state, clock() - run.seconds

    def row_is_due(step: int) -> bool:
        return step % per_epoch == 0 or row_every is not None and step % row_every == 0

    def with_row(run: Run) -> Run:
        now, evaluated = run.train_state, EMPTY
        if evaluation is not None and (now.step % per_epoch == 0 or now.step == total):
            evaluated = _evaluated(model, now.params, now.state, evaluation, loss, metrics)
        run = _with_row(run, now.step / per_epoch, clock() - began, evaluated, monitor, metrics)
        if report:
            if callable(report(run.history[-1])):  # a function that makes what reports
                raise TypeError(f"train: report: expected a function of a row{call_hint(report, '')}")
        return run

    def checked(run: Run) -> Run:
        if first_bad(run.train_state.params) is not None:
            raise explain(model, loss, data, before, run.train_state, penalty, parts)
        return attrs.evolve(run, seconds=clock() - began)

    threads = positive("train", "threads", threads)
    with _step_for(model, loss, opt, penalty, run.train_state.state, compile, threads) as (step, parts):
        try:
            if run.weight and row_is_due(run.train_state.step):
                run = with_row(run)  # an interrupt, or the end of a shorter training, left it out
            stream = data.stream(run.train_state.key, run.train_state.step)
            for batch in islice(stream, max(0, total - run.train_state.step)):
                now = run.train_state
                after, measured = step(now, batch)
                value = float(measured["loss"])
                if not math.isfinite(value):
                    raise explain(model, loss, data, before, now, penalty, parts)
                run, before = run.stepped(after, value, weight_of(batch)), now
                if row_is_due(after.step) and (after.step < total or after.step % per_epoch == 0):
                    run = with_row(run)
                if checkpoint is not None and (after.step % save_every == 0 or after.step == total):
                    save_run(checkpoint, checked(run))
            run = checked(run)
            if run.train_state.step < total:
                raise ValueError(
                    f"train: data: its stream has ended after step {run.train_state.step} of {total}; it must go on "
                    "from epoch to epoch without end"
                )
            if run.weight:
                run = with_row(run)  # within an epoch, and not in the checkpoint: a longer training has no row here
        except KeyboardInterrupt as interrupt:
            vars(interrupt)["train_state"] = run.train_state
            if checkpoint is None:
                interrupt.add_note("train(..., resume=interrupt.train_state) goes on from this exception's train_state")
            else:
                save_run(checkpoint, checked(run))
                how = f"train(..., resume={str(checkpoint)!r}) goes on from there"
                interrupt.add_note(f"saved step {run.train_state.step} to {checkpoint}; {how}")
            raise
    now = run.train_state
    now = attrs.evolve(now, params=_apart(now.params), state=_apart(now.state))
    best = run.best if evaluation is not None and run.score < math.inf else Best(now.params, now.state)
    return Result(now, best.params, best.state, run.history)


def _apart(leaves: Params) -> Params:
    """The same arrays; copies of those that share their memory with others, such as the moments, and would keep it."""
    params: Params = tree.read_only(tree.map(_alone, leaves))
    return params


def _alone(leaf: Any) -> Any:
    memory = leaf
    while isinstance(base := getattr(memory, "base", None), np.ndarray):
        memory = base
    return leaf if memory is leaf or memory.nbytes == leaf.nbytes else leaf.copy("K")


@contextmanager
def _step_for(
    model: Layer[X, Y],
    loss: Loss[Y, T],
    opt: GradientTransformation,
    penalty: Penalty | None,
    state: State,
    compile: bool | Step[Batch[X, T]],
    threads: int,
) -> Iterator[tuple[Step[Batch[X, T]], Parts | None]]:
    """The step to train with, on as many threads as it can use, and how it divides batches, if it does."""
    step: Step[Batch[X, T]] = make_step(model, loss, opt, penalty=penalty)
    if compile is True:
        step = compiled(step, report=bind(_say, "steps are not compiled"), after=1)
    elif callable(compile):
        check_step(compile, step)
        step = compile
    if threads == 1:
        yield step, None
        return
    from fnn.threads import ThreadedStep, undivided, workers

    said = bind(_say, "steps stay on one thread")
    if reason := undivided(model, loss, opt, state) if compile else "compile=False":
        said(reason)
        yield step, None
        return
    with workers(threads) as pool:
        threaded = ThreadedStep(step, model, loss, opt, penalty, pool, threads, said)
        yield threaded, threaded.parts


def _say(what: str, reason: str) -> None:
    """One line to whom it may concern."""
    import logging

    logging.getLogger("fnn").warning("train: %s: %s", what, reason)


def _with_row(
    run: Run,
    epoch: float,
    seconds: float,
    evaluated: Mapping[str, float],
    monitor: str,
    metrics: Sequence[Metric[Any, Any, float]],
) -> Run:
    """The run with one row more, and with its best state if this evaluation is the best so far."""
    now = run.train_state
    row = Row(now.step, epoch, run.loss / run.weight, learning_rate(now.opt_state), seconds, evaluated)
    run = attrs.evolve(run, loss=0.0, weight=0.0, seconds=seconds, history=(*run.history, row))
    if not evaluated:
        return run
    score = evaluated[monitor]
    if any(metric.kind == monitor and metric.higher_is_better for metric in metrics):
        score = -score
    if score < run.score or (run.monitor != monitor and not math.isnan(score)):
        best = Best(_apart(now.params), _apart(now.state))
        run = attrs.evolve(run, best=best, score=score, monitor=monitor)
    return run


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
    check_batch("train", first)
    in_shape = tree.map(lambda a: a.shape[1:], first[0])
    model.out_shape(in_shape)
    needed = f"the model for inputs {in_shape}"
    tree.check_same_structure(model.init(key, in_shape), params, (needed, "the given parameters"))
    check_params(params)
    if state is not None:
        tree.check_same_structure(model.init_state(in_shape), state, (needed, "the given state"))
    params, state = tree.read_only(params), model.init_state(in_shape) if state is None else tree.read_only(state)
    fresh = TrainState(0, params, state, opt.init(params), key)
    if resume is None:
        return Run(fresh, Best(params, state))
    if isinstance(resume, (str, PathLike)):
        run, per_epoch = load_run(resume, fresh), data.steps_per_epoch
        if run.per_epoch != per_epoch:
            raise ValueError(
                f"train: resume: {resume} was made with {run.per_epoch} steps an epoch, this data has {per_epoch}; "
                "to go on with other batches all the same, resume from a train_state: its step is then counted in these"
            )
        return run
    if not isinstance(resume, TrainState):
        hint = "; use its train_state" if isinstance(resume, Result) else ""
        raise TypeError(f"train: resume: expected a path or a TrainState, got {kind_of(resume)}{hint}")
    for part in ("params", "state", "opt_state"):
        names = f"the {part} of this training", f"the {part} to resume from"
        tree.check_same_structure(getattr(fresh, part), getattr(resume, part), names)
    return Run(resume, Best(resume.params, resume.state))


def _made(run: Run, **parts: Any) -> Mapping[str, str]:
    """The code of what a run is made of; says where that of a checkpoint was another, whose numbers may not fit."""
    known = {name: part is None or hasattr(part, "config") for name, part in parts.items()}
    told = {name: repr(part) if known[name] else type(part).__name__ for name, part in parts.items()}
    made = {name: re.sub(" at 0x[0-9A-Fa-f]+", "", code) for name, code in told.items()}
    for name, now in made.items():
        if (then := run.made.get(name, now)) != now:
            _say("resumed with other parts", f"{name}={then} made the checkpoint, now it is {name}={now}")
    return made


def _try_evaluation(
    model: Layer[X, Y], start: TrainState, data: Batch[X, T], loss: Loss[Y, T], metrics: Sequence[Metric[Y, T, float]]
) -> None:
    """Evaluates one example: what does not fit is better found before an epoch of training than after it."""
    check_batch("train: evaluation", data)
    count(data, "train: evaluation")
    check_numbers(data, "train: evaluation")
    x, target, *rest = tree.map(lambda a: a[:1], data)
    try:
        output = evaluator(model)(start.params, start.state, x)
        sums_of(loss)(output, target, rest[0] if rest else None)
        for metric in metrics:
            metric.update(metric.init(), output, target, None)
    except Exception as error:
        error.add_note("with the evaluation data of train")
        raise
