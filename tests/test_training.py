"""Training: the law of resuming, best parameters, evaluation, what bad input gets, what is kept when it goes wrong."""

from __future__ import annotations

import io
import itertools
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest

import fnn
from fnn import tree
from fnn.checkpoint import CheckpointError
from fnn.combinators import fan_out, parallel, residual, serial
from fnn.contract import Layer, no_params, stateless
from fnn.data import Batches, batches
from fnn.diagnosis import NonFiniteError
from fnn.history import Row, TrainState
from fnn.layers.activation import HardTanh, Relu, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.layers.recurrent import LSTM
from fnn.layers.transformer import TransformerBlock
from fnn.losses import l2, mse, sigmoid_cross_entropy, softmax_cross_entropy, triplet
from fnn.metrics import Metric, accuracy
from fnn.optimizers import accumulate, adam, adamw, sgd
from fnn.reporting import progress
from fnn.random import Key
from fnn.training import Result, evaluate, iterate, make_step, train
from fnn.types import EMPTY, Array, Params, ShapeError
from tests import resuming

ROOT = Path(__file__).parent.parent

X = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
Y = np.sin(3 * X)
NET = serial(Dense(6), Tanh, Dense(1))
PARAMS = NET.init(Key(0), (1,))


def fit(
    params: Any = PARAMS, data: Any = batches((X, Y), 8), opt: Any = adam(0.01), *, epochs: Any = None, **options: Any
) -> Result:
    """Three steps an epoch; two epochs unless told otherwise."""
    if epochs is None and "steps" not in options:
        epochs = 2
    settings: dict[str, Any] = {"model": NET, "loss": mse, **options}
    return train(params, data, opt, epochs=epochs, **settings)


def bits(value: Any) -> Any:
    """Everything in a value down to the last bit, for comparison with `==`."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return type(value).__name__, [bits(v) for v in value]
    if attrs.has(type(value)):
        return type(value).__name__, [bits(getattr(value, field.name)) for field in attrs.fields(type(value))]
    return (type(value).__name__, value.hex()) if isinstance(value, float) else value


def outcome(result: Result) -> Any:
    """All bits of a result but the time it took."""
    return bits(resuming.outcome(result))


# --- resuming --------------------------------------------------------------------------------------------------------

KS = (1, 3, 6, 8, 12, 13, 18, 20, 21)
"""Within epochs and at their ends (6, 12, 18), with and without a row of the history there (every 4), and the end."""


def test_training_k_saving_loading_in_a_new_process_and_training_the_rest_changes_no_bit(tmp_path: Path) -> None:
    whole = resuming.run(resuming.STEPS)
    assert len(whole.history) == 8 and whole.history[-1].evaluation.keys() == {"loss", "accuracy"}
    assert not tree.allclose(whole.best, whole.params), "otherwise best says nothing"
    for k in KS:
        resuming.run(k, checkpoint=tmp_path / f"{k}.npz", checkpoint_every=1000)
    command = [sys.executable, "-m", "tests.resuming", str(tmp_path), *map(str, KS)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "1"})
    expected = resuming.outcome(whole)
    for k in KS:
        assert bits(fnn.load(tmp_path / f"end_{k}.npz", expected)) == bits(expected), f"resumed from step {k}"


@pytest.mark.parametrize("k", KS)
def test_resuming_from_a_state_gives_the_same_final_state(k: int) -> None:
    resumed = resuming.run(resuming.STEPS, resume=resuming.run(k).train_state)
    assert bits(resumed.train_state) == bits(resuming.run(resuming.STEPS).train_state)


def test_resuming_several_times_and_with_nothing_left_to_do(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    for k in (4, 5, 13, 14, resuming.STEPS):
        result = resuming.run(k, checkpoint=path, resume=path if path.exists() else None)
    assert outcome(result) == outcome(resuming.run(resuming.STEPS))
    again = resuming.run(resuming.STEPS, resume=path)
    assert outcome(again) == outcome(result)


def test_a_process_killed_while_training_is_resumed_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    program = (
        "import os, signal\nfrom tests import resuming\n"
        "def report(row):\n    if row.step == 16: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"resuming.run(resuming.STEPS, checkpoint={str(path)!r}, checkpoint_every=3, report=report)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and os.listdir(tmp_path) == ["run.npz"]
    assert fnn.load_metadata(path)["run"]["history"]["step"][-1] == 12
    assert outcome(resuming.run(resuming.STEPS, resume=path)) == outcome(resuming.run(resuming.STEPS))


def test_saving_and_reporting_change_nothing(tmp_path: Path) -> None:
    rows: list[Row] = []
    result = resuming.run(resuming.STEPS, checkpoint=tmp_path / "a.npz", checkpoint_every=1, report=rows.append)
    assert outcome(result) == outcome(resuming.run(resuming.STEPS))
    assert tuple(rows) == result.history


def test_a_checkpoint_is_written_while_training_goes_on(tmp_path: Path) -> None:
    path, seen = tmp_path / "run.npz", []

    def report(row: Row) -> None:
        seen.append(fnn.load_metadata(path)["run"]["history"]["step"][-1] if path.exists() else None)

    fit(epochs=4, checkpoint=path, report=report)
    assert seen == [None, 3, 6, 9] and os.listdir(tmp_path) == ["run.npz"]


def test_seconds_go_on_where_they_stopped(tmp_path: Path) -> None:
    ticks = itertools.count(1000)
    first = fit(epochs=2, clock=lambda: next(ticks), checkpoint=tmp_path / "a.npz")
    later = itertools.count(0)
    second = fit(epochs=4, clock=lambda: next(later), resume=tmp_path / "a.npz")
    assert second.history[:2] == first.history
    times = [row.seconds for row in second.history]
    assert times == sorted(times) and 0 < times[0] < 50
    assert {row.seconds for row in fit(epochs=2, clock=lambda: 5.0).history} == {0.0}


def test_a_checkpoint_of_another_network_lists_paths_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    fit(checkpoint=path)
    other = serial(Dense(4), Tanh, Dense(3), Dense(1))
    with pytest.raises(CheckpointError) as error:
        fit(other.init(Key(0), (1,)), model=other, resume=path)
    lines = str(error.value).splitlines()
    assert "  train_state/params/dense_0/weight: float32 (1, 6) in the file, expected float32 (1, 4)" in lines
    assert "  train_state/params/dense_2/weight: missing in the file, expected float32 (3, 1)" in lines
    with pytest.raises(CheckpointError, match="train_state/opt_state/mu"):
        fit(opt=sgd(0.1), resume=path)
    fnn.save(tmp_path / "params.npz", PARAMS)
    with pytest.raises(CheckpointError, match="train_state/params/dense_0/bias: missing in the file"):
        fit(resume=tmp_path / "params.npz")


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    fit(checkpoint=path)
    content = path.read_bytes()
    for broken in (content[:-40], content[:100], b"", b"PK\3\4" + bytes(50)):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            fit(epochs=3, resume=path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: attrs.evolve(s, params={"dense_0": s.params["dense_0"]}), "dense_1: a mapping of 2 in the params"),
        (lambda s: attrs.evolve(s, opt_state=sgd(0.1).init(s.params)), "mu: .* missing in the opt_state to resume"),
        (lambda s: attrs.evolve(s, state={"a": X}), "a: missing in the state of this training"),
    ],
)
def test_a_state_of_another_training_lists_paths(change: Callable[[TrainState], TrainState], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(resume=change(fit().train_state))


def test_a_checkpoint_says_what_made_it_and_resuming_with_other_parts_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run.npz"
    penalty = "l2(0.1, where=<tests.test_training.Somewhere object>)"
    made = {"model": repr(NET), "loss": "mse", "opt": "adam(0.01)", "penalty": penalty}
    fit(checkpoint=path, penalty=l2(0.1, where=Somewhere()))
    assert fnn.load_metadata(path)["run"]["made"] == made
    fit(resume=path, epochs=3, penalty=l2(0.1, where=Somewhere()))
    assert not caplog.messages
    fit(resume=path, epochs=3, opt=adamw(0.01), penalty=l2(0.1, where=Somewhere()))
    (line,) = caplog.messages
    assert line == "train: resumed with other parts: opt=adam(0.01) made the checkpoint, now it is opt=adamw(0.01)"


class Somewhere:
    """A selector whose code is an address."""

    def __call__(self, path: str, parameter: Array) -> bool:
        return parameter.ndim > 1


@pytest.mark.parametrize("resume", [3, PARAMS, fit()], ids=["int", "params", "result"])
def test_what_cannot_be_resumed(resume: Any) -> None:
    with pytest.raises(TypeError, match="train: resume: expected a path or a TrainState, got"):
        fit(resume=resume)


# --- likely mistakes -------------------------------------------------------------------------------------------------


def float64_init(key: Key, shape: Any) -> Any:
    return key.generator().normal(size=shape)


WRONG: Any = fit()
SWAPPED: Any = X
STATES: Any = {}
UNBIASED = {**PARAMS, "dense_0": {"weight": PARAMS["dense_0"]["weight"]}}
MISMADE = Dense(3, weight_init=float64_init)
ONES = np.ones((4, 3), np.float32)
STATE = TrainState(0, PARAMS, {}, (), Key(0))

MISTAKES: list[tuple[str, type[Exception], Callable[[], Any]]] = [
    (r"state last, net.apply\(params, x, state\), got nd", TypeError, lambda: NET.apply(PARAMS, STATES, SWAPPED)),
    ("evaluate: params: expected parameters, got Result", TypeError, lambda: evaluate(NET, WRONG, (X, Y), loss=mse)),
    ("dense_0/bias: .* missing in the given par", ValueError, lambda: evaluate(NET, UNBIASED, (X, Y), loss=mse)),
    ("init: expected weight in float32, got float64", TypeError, lambda: MISMADE.init(Key(0), (3,))),
    (r"Dense: expected a bias float32 \(3,\), got float32 \(1,\)", ShapeError, lambda: applied(bias=ONES[0, :1])),
    ("an optimizer begins with opt.init", IndexError, lambda: make_step(NET, mse, adam(0.1))(STATE, (X, Y))),
    (r"its update gives \(updates, state\)", AttributeError, lambda: fit(opt=Alone())),
    (r"LSTM\(2\): expected an array; \(x, lengths\) needs lengths=True", TypeError, lambda: with_lengths()),
    (r"TransformerBlock\(8\): expected an input shape \(time, 8\), got \(5, 6\)", ShapeError, lambda: block((5, 6))),
]


class Alone(NamedTuple):
    """Half an optimizer."""

    def init(self, params: Any) -> Any:
        return ()

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        return grads


def applied(**params: Any) -> Any:
    return Dense(3).apply({"weight": np.ones((3, 3), np.float32), **params}, ONES)


def with_lengths() -> Any:
    layer: Any = LSTM(2)
    return layer.apply(layer.init(Key(0), (5, 4)), (np.ones((2, 5, 4), np.float32), np.array([5, 3])))


def block(shape: Any) -> Any:
    return TransformerBlock(8, 2).init(Key(0), shape)


@pytest.mark.parametrize(("words", "kind", "make"), MISTAKES, ids=[words[:40] for words, _, _ in MISTAKES])
def test_likely_mistakes_are_told(words: str, kind: type[Exception], make: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert re.search(words, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])]))


# --- what a run ends with --------------------------------------------------------------------------------------------


def test_without_an_evaluation_the_best_parameters_of_a_checkpoint_are_the_last(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    result = fit(checkpoint=path)
    saved = fnn.load_arrays(path)
    best = tree.map_with_path(lambda at, leaf: saved[f"best/params/{at}"], PARAMS)
    assert bits(best) == bits(result.params) == bits(result.best)
    again = fit(resume=path, evaluation=(X, Y))
    assert bits(again.best) == bits(result.params)
    longer = fit(resume=path, evaluation=(X, Y), epochs=3)
    assert longer.history[-1].evaluation and bits(longer.best) == bits(longer.params)


def test_an_interrupt_of_the_last_report_holds_the_state() -> None:
    def report(row: Row) -> None:
        if row.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        fit(steps=7, report=report, evaluation=(X, Y))
    assert vars(interrupt.value)["train_state"].step == 7


@attrs.frozen(eq=False)
class OneEpoch:
    """Data whose stream ends, as that of other libraries' loaders does."""

    data: Batches[Any]

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch

    def stream(self, key: Key, start: int = 0) -> Iterator[Any]:
        yield from itertools.islice(self.data.stream(key, start), self.steps_per_epoch - start % self.steps_per_epoch)


def test_a_stream_that_ends_is_told() -> None:
    with pytest.raises(ValueError, match="its stream has ended after step 3 of 15; it must go on"):
        fit(data=OneEpoch(batches((X, Y), 8)), epochs=5)
    assert fit(data=OneEpoch(batches((X, Y), 8)), epochs=1).train_state.step == 3


def test_memory_maps_are_trained_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    result = fit(data=batches((mapped, Y), 8, shuffle=False))
    assert bits(result.params) == bits(fit(data=batches((X, Y), 8, shuffle=False)).params) and not caplog.messages


class Saturating:
    """An optimizer that makes a bias infinite, which a bounded activation does not show."""

    def init(self, params: Params) -> Any:
        return ()

    def update(self, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        return {"dense_0": {"bias": np.full(4, np.inf, np.float32)}}, state


def test_parameters_that_went_bad_unseen_are_told() -> None:
    net = serial(Dense(4), HardTanh, Dense(1))
    params = net.init(Key(0), (1,))
    with pytest.raises(fnn.NonFiniteError, match="dense_0/bias was not before step 5 already, while the loss"):
        train(params, batches((X, Y), 8), Saturating(), model=net, loss=mse, steps=6)


def test_metrics_of_what_diverges_do_not_hide_it() -> None:
    rng = np.random.default_rng(39)
    x, y = rng.standard_normal((32, 4)).astype(np.float32), rng.integers(0, 3, 32)
    net = serial(Dense(16), Relu, Dense(16), Relu, Dense(16), Relu, Dense(3))
    options: Any = dict(model=net, loss=softmax_cross_entropy(), epochs=30, evaluation=(x, y))
    for metrics in ([], [accuracy], [fnn.f1(3)]):
        with np.errstate(all="ignore"), pytest.raises(fnn.NonFiniteError) as error:
            train(net.init(Key(39), (4,)), batches((x, y), 32), sgd(1e10, momentum=0.9), metrics=metrics, **options)
        assert error.value.train_state.step < 30


# --- memory ----------------------------------------------------------------------------------------------------------


def test_parameters_that_are_kept_keep_no_moments() -> None:
    result = fit(evaluation=(X, Y))
    for path, leaf in tree.items((result.params, result.best)):
        memory = leaf
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        assert memory.nbytes == leaf.nbytes, path
        assert not leaf.flags.writeable


# --- interrupts ------------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Stopping:
    """Data that are interrupted from the keyboard after a number of batches."""

    data: Batches[Any]
    after: int

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch

    def stream(self, key: Key, start: int = 0) -> Iterator[Any]:
        yield from itertools.islice(self.data.stream(key, start), self.after)
        raise KeyboardInterrupt


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_an_interrupt_saves_and_says_how_to_resume(tmp_path: Path, k: int) -> None:
    path = tmp_path / "run.npz"
    data = batches((X, Y), 8)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        fit(data=Stopping(data, k), epochs=5, checkpoint=path, evaluation=(X, Y))
    how = f"saved step {k} to {path}; train(..., resume={str(path)!r}) goes on from there"
    assert interrupt.value.__notes__ == [how]
    resumed = fit(data=data, epochs=5, resume=path, evaluation=(X, Y))
    assert outcome(resumed) == outcome(fit(epochs=5, evaluation=(X, Y)))


@pytest.mark.parametrize("where", ["metric", "report"])
def test_an_interrupt_while_evaluating_or_reporting_loses_no_row(tmp_path: Path, where: str) -> None:
    path, calls = tmp_path / "run.npz", itertools.count()

    def update(total: Any, output: Any, target: Any, weight: Any) -> Any:
        if where == "metric" and next(calls) == 3:
            raise KeyboardInterrupt
        return total + float(np.abs(output - target).sum())

    def report(row: Row) -> None:
        if where == "report" and row.step == 9:
            raise KeyboardInterrupt

    distance: Metric[Any, Any, float] = Metric("distance", lambda: 0.0, update, lambda a, b: a + b, lambda a: a)
    options: dict[str, Any] = dict(epochs=5, evaluation=(X, Y), metrics=[distance])
    with pytest.raises(KeyboardInterrupt) as interrupt:
        fit(**options, checkpoint=path, report=report)
    assert "saved step 9" in interrupt.value.__notes__[0]
    rows: list[Row] = []
    resumed = fit(**options, resume=path, report=rows.append)
    assert [row.step for row in rows] == [9, 12, 15]
    assert outcome(resumed) == outcome(fit(**options))


def test_an_interrupt_without_a_checkpoint_comes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(data=Stopping(batches((X, Y), 8), 2))


# --- the three layers ------------------------------------------------------------------------------------------------


def test_iterate_by_hand_gives_the_bits_of_train() -> None:
    net = serial(Dense(6), BatchNorm(), Relu, Dropout(0.5), Dense(1))
    params, data, opt = net.init(Key(0), (1,)), batches((X, Y), 8), adamw(0.01)
    start = TrainState(0, params, net.init_state((1,)), opt.init(params), Key(9))
    losses = []
    for state, metrics in iterate(make_step(net, mse, opt), start, data.stream(Key(9))):
        losses.append(float(metrics["loss"]))
        if state.step == 7:
            break
    result = train(params, data, opt, model=net, loss=mse, steps=7, key=Key(9), every=1)
    assert bits(state) == bits(result.train_state)
    assert [row.loss for row in result.history] == losses


def test_a_step_is_a_pure_function() -> None:
    opt = adam(0.01)
    step = make_step(NET, mse, opt)
    state = TrainState(0, PARAMS, EMPTY, opt.init(PARAMS), Key(0))
    before = bits(state)
    assert bits(step(state, (X, Y))) == bits(step(state, (X, Y))) and bits(state) == before
    assert bits(pickle.loads(pickle.dumps(step))(state, (X, Y))) == bits(step(state, (X, Y)))


def test_the_key_of_a_step_depends_on_its_number_only() -> None:
    net = serial(Dense(6), Dropout(0.5), Dense(1))
    step = make_step(net, mse, sgd(0.0))
    state = TrainState(0, net.init(Key(0), (1,)), EMPTY, sgd(0.0).init(PARAMS), Key(3))
    loss = [float(step(attrs.evolve(state, step=s), (X, Y))[1]["loss"]) for s in (0, 1, 0)]
    assert loss[0] == loss[2] != loss[1]


def test_keys_decide_the_result() -> None:
    assert outcome(fit(key=Key(1))) == outcome(fit(key=Key(1))) != outcome(fit(key=Key(2)))


def test_two_trainings_side_by_side_do_not_touch_each_other() -> None:
    def steps(seed: int) -> Iterator[TrainState]:
        opt = adam(0.02)
        start = TrainState(0, NET.init(Key(seed), (1,)), EMPTY, opt.init(PARAMS), Key(seed))
        for state, _ in iterate(make_step(NET, mse, opt), start, batches((X, Y), 8).stream(Key(seed))):
            yield state

    alone = [list(itertools.islice(steps(seed), 5))[-1] for seed in (1, 2)]
    mixed = list(itertools.islice(zip(steps(1), steps(2)), 5))[-1]
    assert bits(tuple(alone)) == bits(mixed)


# --- history, best, evaluation ---------------------------------------------------------------------------------------


def test_rows_come_after_every_epoch_at_the_end_and_where_asked() -> None:
    assert [(row.step, row.epoch) for row in fit(epochs=3).history] == [(3, 1), (6, 2), (9, 3)]
    assert [row.step for row in fit(steps=7).history] == [3, 6, 7]
    rows = fit(steps=8, every=2, evaluation=(X, Y)).history
    assert [row.step for row in rows] == [2, 3, 4, 6, 8]
    assert [bool(row.evaluation) for row in rows] == [False, True, False, True, True]
    assert [row.step for row in fit(steps=2).history] == [2]


def test_rows_tell_the_mean_loss_over_examples_and_the_rate() -> None:
    rows = fit(opt=sgd(fnn.cosine(0.2, steps=6)), epochs=2, every=1).history
    epochs = fit(opt=sgd(fnn.cosine(0.2, steps=6)), epochs=2).history
    for epoch, parts in zip(epochs, (rows[:3], rows[3:])):
        assert epoch.loss == pytest.approx(np.average([row.loss for row in parts], weights=[8, 8, 4]), rel=1e-12)
    assert [row.learning_rate for row in rows] == [fnn.cosine(0.2, steps=6)(s) for s in range(6)]


def test_without_movement_the_training_loss_is_that_of_the_data() -> None:
    weight = np.linspace(0.5, 2, 20, dtype=np.float32)
    for data in ((X, Y), (X, Y, weight)):
        row = fit(data=batches(data, 8), opt=sgd(0.0), epochs=1, evaluation=data).history[0]
        squares = (NET.apply(PARAMS, X) - Y)[:, 0].astype(np.float64) ** 2
        expected = np.average(squares, weights=weight if len(data) == 3 else None)
        assert row.loss == pytest.approx(expected, rel=1e-6)
        assert row.evaluation["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_best_are_the_parameters_of_the_best_evaluation(monitor: str) -> None:
    held_out = resuming.examples(20, 1)
    result = resuming.run(60, monitor=monitor)
    values = [row.evaluation[monitor] for row in result.history if row.evaluation]
    measured = evaluate(
        resuming.MODEL,
        result.best,
        held_out,
        loss=softmax_cross_entropy(smoothing=0.1),
        metrics=[accuracy],
        state=result.best_state,
    )
    assert measured[monitor] == (min if monitor == "loss" else max)(values) != values[-1]


def test_another_monitor_begins_anew(tmp_path: Path) -> None:
    """An accuracy of 0.9 is no loss of -0.9."""
    path = tmp_path / "run.npz"
    first = resuming.run(12, monitor="accuracy", checkpoint=path)
    second = resuming.run(24, monitor="loss", resume=path)
    losses = {row.step: row.evaluation["loss"] for row in second.history if row.evaluation and row.step > 12}
    assert not tree.allclose(first.best, second.best)
    again = resuming.run(min(losses, key=lambda step: losses[step]))
    assert bits(again.params) == bits(second.best)


def test_metrics_of_ones_own_give_what_a_checkpoint_can_hold(tmp_path: Path) -> None:
    def half(total: Any) -> Any:
        return np.float32(0.5)

    exact = attrs.evolve(accuracy, compute=half)
    result = resuming.run(6, metrics=(exact,), checkpoint=tmp_path / "run.npz")
    assert type(result.history[-1].evaluation["accuracy"]) is float


def test_a_checkpoint_with_other_metadata_is_none_of_a_training(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    state = resuming.run(6, checkpoint=path).train_state
    tree_of = fnn.load_arrays(path)
    kept = {"train_state": state, "best": {"params": state.params, "state": state.state}}
    others: list[dict[str, Any]] = [{}, {"run": 1}, {"run": {"history": {}}}]
    for metadata in others:
        fnn.save(path, kept, metadata=metadata)
        assert fnn.load_arrays(path).keys() == tree_of.keys()
        with pytest.raises(fnn.CheckpointError, match="not one that this version of train wrote"):
            resuming.run(12, resume=path)


def test_optimizers_that_count_examples_do_so_where_there_is_no_target() -> None:
    x = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    net = serial(fan_out(3), parallel(Dense(4), Dense(4), Dense(4)))
    params = net.init(Key(0), (3,))
    data = batches((x, None), size=4)
    result = train(params, data, accumulate(adam(0.1), every=3), model=net, loss=triplet(), epochs=1)
    assert result.train_state.step == 3 and not tree.allclose(params, result.params)


def test_the_first_of_equally_good_ones_is_the_best() -> None:
    result = fit(opt=sgd(0.0), epochs=3, evaluation=(X, Y))
    assert bits(result.best) == bits(PARAMS)


def test_without_evaluation_the_best_are_the_last() -> None:
    result = fit()
    assert result.best is result.params and result.best_state is result.state


@pytest.mark.parametrize("size", [1, 7, 20, 1000])
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_in_parts_is_that_of_the_whole(size: int, weighted: bool) -> None:
    net = serial(Dense(5), BatchNorm(), Dense(3))
    params, state = net.init(Key(0), (2,)), {"batchnorm_0": {"mean": np.full(5, 0.3), "var": np.full(5, 2.0)}}
    state = tree.cast(tree.map(lambda old, new: new, net.init_state((2,)), state), np.float32)
    x, labels = resuming.examples(20, 3)
    weight = np.linspace(0, 3, 20, dtype=np.float32)
    data = (x, labels, weight) if weighted else (x, labels)
    found = evaluate(net, params, data, loss=softmax_cross_entropy(), metrics=[accuracy], state=state, size=size)
    logits = net.apply(params, x, state).astype(np.float64)
    each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), labels]
    w = weight if weighted else None
    assert found["loss"] == pytest.approx(np.average(each, weights=w), rel=1e-6)
    assert found["accuracy"] == pytest.approx(np.average(logits.argmax(axis=1) == labels, weights=w), rel=1e-12)


def test_whole_weights_are_repetitions() -> None:
    """In float64, a full batch: an example of weight 3 trains as three examples do, one of weight 0 as none."""
    x, y, params = X.astype(np.float64), Y.astype(np.float64), tree.cast(PARAMS, np.float64)
    counts = np.arange(20) % 4
    weighted = fit(params, batches((x, y, counts.astype(np.float64)), 20), sgd(0.1), epochs=5)
    repeated = fit(params, batches((x.repeat(counts, 0), y.repeat(counts, 0)), 100), sgd(0.1), epochs=5)
    assert tree.allclose(weighted.params, repeated.params, rtol=1e-12, atol=1e-14)
    assert [r.loss for r in weighted.history] == pytest.approx([r.loss for r in repeated.history], rel=1e-12)


def test_weights_may_be_none() -> None:
    assert outcome(fit(data=batches((X, Y, None), 8), epochs=2)) == outcome(fit(epochs=2))


def test_training_learns() -> None:
    result = fit(opt=adam(0.05), epochs=200, evaluation=(X, Y))
    assert result.history[-1].evaluation["loss"] < 0.03 < 0.2 < result.history[0].evaluation["loss"]
    x, labels = resuming.examples(300, 4)
    net = serial(Dense(8), Tanh, Dense(1))
    binary = (labels == 1).astype(np.float32)[:, None]
    fitted = train(
        net.init(Key(0), (2,)), batches((x, binary), 32), adam(0.02), model=net, loss=sigmoid_cross_entropy(), epochs=30
    )
    assert np.mean((net.apply(fitted.params, x) > 0) == (binary > 0)) > 0.85


# --- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opt", [adam(0.01), adamw(0.01), sgd(0.1), sgd(0.1, momentum=0.9, nesterov=True)], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_array_keeps_its_dtype(opt: Any, dtype: Any, tmp_path: Path) -> None:
    net = serial(Dense(5), Tanh, Dropout(0.3), Dense(1))
    params = tree.cast(net.init(Key(0), (1,)), dtype)
    data = (X.astype(dtype), Y.astype(dtype), np.ones(20, dtype))
    options: dict[str, Any] = dict(model=net, evaluation=data, checkpoint=tmp_path / "a.npz")
    result = fit(params, batches(data, 8), opt, epochs=2, **options)
    arrays = tree.leaves((result.params, result.best, result.train_state.opt_state))
    assert {a.dtype.name for a in arrays if isinstance(a, np.ndarray)} == {dtype}
    assert net.apply(result.params, data[0]).dtype == dtype
    again = fit(params, batches(data, 8), opt, epochs=3, resume=tmp_path / "a.npz", **options)
    assert {a.dtype.name for a in tree.leaves(again.params)} == {dtype}


def test_float64_training_follows_the_float32_one_but_is_finer() -> None:
    coarse = fit(epochs=3).params
    fine = fit(tree.cast(PARAMS, np.float64), batches((X.astype(np.float64), Y.astype(np.float64)), 8), epochs=3).params
    assert tree.allclose(coarse, fine, rtol=1e-3, atol=1e-4)
    assert any(np.any(a != a.astype(np.float32)) for a in tree.leaves(fine))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X.astype(np.float64), "the parameters are float32, the input is float64; convert one of them: x.astype"),
        (np.arange(20)[:, None], "the parameters are float32, the input is int64; convert"),
        (X > 0, "the parameters are float32, the input is bool; convert"),
    ],
)
def test_inputs_of_another_dtype_are_refused_before_the_first_step(x: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as error:
        fit(data=batches((x, Y), 8))
    assert error.value.__notes__ == ["in dense_0"]
    with pytest.raises(TypeError, match=words):
        fit(evaluation=(x, Y))


# --- what bad input gets ---------------------------------------------------------------------------------------------

RESULT = fit()
WIDE = np.ones((20, 3), np.float32)
FLOAT64: Any = tree.cast(PARAMS, np.float64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(data=adam(0.1), opt=batches((X, Y), 8)), r"train: data: expected batches\(...\), got Optimizer"),
        (dict(params=batches((X, Y), 8), data=PARAMS), r"train: data: expected batches\(...\), got dict"),
        (dict(data=(X, Y)), r"train: data: expected batches\(...\), got a tuple of 2"),
        (dict(data=X), r"train: data: expected batches\(...\), got ndarray"),
        (dict(data=batches), r"train: data: .* got function; call it: batches\(...\)"),
        (dict(model=mse, loss=NET), r"train: model: expected a layer such as serial\(...\), got Loss"),
        (dict(model=Dense), r"train: model: .*; call it: Dense\(...\)"),
        (dict(model=[Dense(1)]), "train: model: .* got list"),
        (dict(opt=adam), r"train: opt: .* got function; call it: adam\(...\)"),
        (dict(opt=mse), r"train: opt: expected an optimizer such as adam\(1e-3\), got Loss"),
        (dict(opt=accuracy), "train: opt: .* got Metric"),
        (dict(opt=0.1), "train: opt: .* got float"),
        (dict(loss=softmax_cross_entropy), r"train: loss: .*; call it: softmax_cross_entropy\(...\)"),
        (dict(loss=adam(0.1)), "train: loss: expected a loss such as mse, got Optimizer"),
        (dict(loss="mse"), "train: loss: .* got str"),
        (dict(metrics=accuracy), "train: metrics: expected a list or tuple of metrics, got Metric"),
        (dict(metrics=["accuracy"]), "train: metrics: expected metrics such as accuracy, got str"),
        (dict(key=0), r"train: key: expected a Key such as Key\(0\), got int"),
        (dict(data=batches(X, 8)), r"train: expected \(x, target\) or \(x, target, weight\), got ndarray"),
        (dict(data=batches((X, Y, X[:, 0], X), 8)), "train: expected .* got a tuple of 4"),
        (dict(data=batches({"x": X, "y": Y}, 8)), "train: expected .* got dict"),
        (dict(params=tree.map(lambda a: np.zeros(a.shape, int), PARAMS)), "params: dense_0/weight: .* got dtype int64"),
        (dict(params=tree.map(np.ndarray.tolist, PARAMS)), "params: dense_0/weight: .* got list"),
        (dict(params={**PARAMS, "dense_1": FLOAT64["dense_1"]}), "parameters of one dtype, got float32 and float64"),
        (dict(evaluation=X), "train: evaluation: expected .* got ndarray"),
        (dict(evaluation=batches((X, Y), 8)), "train: evaluation: expected .* got Batches"),
        (dict(evaluation=(X.astype(object), Y)), "train: evaluation: array 0: expected numbers, got dtype object"),
        (dict(evaluation=([1.0], Y)), "train: evaluation: array 0: expected a NumPy array, got list"),
    ],
)
def test_parts_in_the_wrong_place_are_type_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        fit(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(params={"dense_0": PARAMS["dense_0"]}), "dense_1: a mapping of 2 in the model .*, missing in"),
        (dict(params=None), "nothing in the given parameters"),
        (dict(data=batches((WIDE, Y), 8)), r"dense_0/weight: \(3, 6\) in the model for inputs \(3,\), \(1, 6\) in"),
        (dict(data=batches((X, Y[:, 0]), 8)), r"mse: .* got output \(8, 1\) and target \(8,\); nothing is broadcast"),
        (dict(data=batches((X[:, 0], Y), 8)), r"Dense\(6\): expected an input shape \(..., features\), got \(\)"),
        (dict(data=batches((X, Y, Y), 8)), r"mse: expected one weight for each of 8 examples, got shape \(8, 1\)"),
        (dict(params=tree.map(lambda a: a * np.nan, PARAMS)), "params: dense_0/weight holds numbers that are"),
        (dict(state={"norm": X}), "norm: missing in the model for inputs"),
        (dict(epochs=0), "train: expected epochs to be a positive integer, got 0"),
        (dict(epochs=1.5), "train: expected epochs to be a positive integer, got 1.5"),
        (dict(steps=-3), "train: expected steps to be a positive integer, got -3"),
        (dict(steps=3, epochs=1), "either epochs or steps, got epochs=1 and steps=3"),
        (dict(steps=None, epochs=None), "either epochs or steps, got epochs=None and steps=None"),
        (dict(every=0), "train: expected every to be a positive integer, got 0"),
        (dict(checkpoint="x", checkpoint_every=0), "train: expected checkpoint_every to be a positive integer"),
        (dict(monitor="accuracy"), "train: monitor: expected one of loss, got 'accuracy'"),
        (dict(metrics=[accuracy, accuracy]), "train: metrics: two have the same name: loss, accuracy, accuracy"),
        (dict(evaluation=(X, Y[:3])), "train: evaluation: expected arrays with first axes of one length"),
        (dict(evaluation=(X[:0], Y[:0])), "train: evaluation: expected at least one example"),
        (dict(evaluation=(X * np.inf, Y)), "train: evaluation: array 0: 20 numbers are NaN or infinite"),
        (dict(evaluation=(X, Y[:, 0])), "mse: expected output and target of one shape"),
        (dict(evaluation=(WIDE, Y)), r"Dense\(6\): expected input \(batch, ..., 1\), got \(1, 3\)"),
        (dict(evaluation=(X, Y, Y)), "expected one weight for each of 1 examples"),
        (dict(evaluation=(X, np.zeros((20, 1), int)), metrics=[accuracy]), "accuracy: for outputs .* expected"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_the_first_step(options: dict[str, Any], words: str) -> None:
    rows: list[Row] = []
    with pytest.raises(ValueError, match=words):
        fit(**{"report": rows.append, "every": 1, **options})
    assert not rows


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.arange(20), ValueError, "softmax_cross_entropy: expected labels from 0 to 2, got"),
        (np.full(20, -1), ValueError, "expected labels from 0 to 2, got -1"),
        (np.zeros(20), ShapeError, r"expected integer labels \(8,\) or dense .*, got float64 \(8,\)"),
        (np.zeros((20, 1), int), ShapeError, r"expected integer labels \(8,\) .* got int64 \(8, 1\)"),
        (np.zeros((20, 4)), ShapeError, r"dense float targets \(8, 3\), got float64 \(8, 4\)"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, error: type[Exception], words: str) -> None:
    net = serial(Dense(3))
    with pytest.raises(error, match=words):
        fit(net.init(Key(0), (1,)), batches((X, labels), 8), model=net, loss=softmax_cross_entropy())


def test_targets_that_are_no_numbers_are_refused() -> None:
    for target in (np.full((20, 1), None), np.full((20, 1), "a")):
        with pytest.raises(TypeError, match="expected numbers, got dtype"):
            fit(data=batches((X, target), 8))


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf, "0.1", None])
@pytest.mark.parametrize("make", [adam, adamw, sgd])
def test_learning_rates_that_are_none(make: Callable[[Any], Any], rate: Any) -> None:
    words = f"{make.__name__}: expected a finite learning.rate of at least 0, got {rate!r}"
    with pytest.raises(ValueError, match=words):
        make(rate)


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, math.nan, "0.5", None])
def test_dropout_rates_that_are_none(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"Dropout: expected rate in \[0, 1\), got"):
        Dropout(rate)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_evaluation_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(ValueError, match="evaluate: expected size to be a positive integer"):
        evaluate(NET, PARAMS, (X, Y), loss=mse, size=size)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((NET, PARAMS, X), {}, TypeError, r"evaluate: expected \(x, target\) or \(x, target, weight\), got ndarray"),
        ((NET, PARAMS, (X,)), {}, TypeError, "got a tuple of 1"),
        ((PARAMS, NET, (X, Y)), {}, TypeError, "evaluate: model: expected a layer"),
        ((NET, PARAMS, (X, Y)), {"metrics": accuracy}, TypeError, "evaluate: metrics: expected a list or tuple"),
        ((NET, PARAMS, (X, Y)), {"loss": adam}, TypeError, "evaluate: loss: expected a loss"),
        ((NET, PARAMS, (X, Y, 0 * X[:, 0])), {}, ValueError, "evaluate: the weights of all examples sum to 0"),
        ((NET, PARAMS, (X[:0], Y[:0])), {}, ValueError, "evaluate: expected at least one example"),
    ],
)
def test_evaluations_that_are_refused(arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        evaluate(*arguments, **{"loss": mse, **options})


# --- a place to save -------------------------------------------------------------------------------------------------


def untrainable(params: Params, x: Array) -> tuple[Array, None]:
    """A forward pass that must not be reached."""
    raise AssertionError("training has begun")


def no_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """Never called."""
    return EMPTY, dy


BAIT: Layer[Array, Array] = serial(Dense(1), stateless("Bait", no_params, untrainable, no_vjp))


@pytest.mark.parametrize("place", ["missing/run.npz", "file/run.npz", "."])
def test_a_checkpoint_that_cannot_be_written_is_noticed_before_training(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="save: "):
        fit(BAIT.init(Key(0), (1,)), model=BAIT, checkpoint=f"{tmp_path}/{place}")
    assert os.listdir(tmp_path) == ["file"]


def test_the_trial_leaves_no_trace_and_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    fit(epochs=1, checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(AssertionError, match="training has begun"):
        fit(BAIT.init(Key(0), (1,)), model=BAIT, checkpoint=path)
    assert os.listdir(tmp_path) == ["run.npz"] and path.read_bytes() == content


def test_a_state_that_cannot_be_saved_is_noticed_before_training(tmp_path: Path) -> None:
    class Worded:
        def init(self, params: Params) -> Any:
            return {"note": "text"}

        def update(self, grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
            return grads, state

    assert fit(opt=Worded(), steps=1).train_state.opt_state == {"note": "text"}
    with pytest.raises(TypeError, match="checkpoint: cannot hold train_state/opt_state/note, of type str"):
        fit(BAIT.init(Key(0), (1,)), model=BAIT, opt=Worded(), checkpoint=tmp_path / "run.npz")


# --- when numbers run away -------------------------------------------------------------------------------------------

def log_forward(params: Params, x: Array) -> tuple[Array, Array]:
    """y = log x, which is nan below zero"""
    return np.log(x), x


def log_vjp(params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    """dx = dy / x"""
    return EMPTY, dy / x


def same_forward(params: Params, x: Array) -> tuple[Array, None]:
    """y = x"""
    return x, None


def poisoned_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """A derivative that is never finite."""
    return EMPTY, dy * np.inf


Log: Layer[Array, Array] = stateless("Log", no_params, log_forward, log_vjp)
Poison: Layer[Array, Array] = stateless("Poison", no_params, same_forward, poisoned_vjp)


def failure(net: Layer[Any, Any] = NET, **options: Any) -> NonFiniteError:
    """What training raises; its state must be the one that as many good steps give."""
    params = options.pop("params", None) or net.init(Key(0), (1,))
    options = {"model": net, "epochs": 40, **options}
    with np.errstate(all="ignore"):
        with pytest.raises(NonFiniteError) as error:
            fit(params, **options)
        good = error.value.train_state
        assert good.step == error.value.step and f"in step {good.step} " in str(error.value)
        assert all(np.isfinite(a).all() for a in tree.leaves(good.params))
        options = {**options, "epochs": None}
        if good.step:
            assert bits(fit(params, **options, steps=good.step).train_state) == bits(good)
        with pytest.raises(NonFiniteError):
            fit(params, **options, steps=good.step + 1)
    return error.value


@pytest.mark.parametrize("opt", [sgd(1e6), sgd(30.0, momentum=0.9), adam(1e37), sgd(3e38)], ids=repr)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_a_learning_rate_far_too_large(opt: Any, rate: float) -> None:
    net = serial(Dense(6), Relu, Dropout(rate), Dense(6), Relu, Dense(1))
    message = str(failure(net, opt=opt))
    assert "is the first that is not finite" in message or "every activation and gradient is finite" in message
    assert "Lower the learning rate" in message


def test_data_that_overflow() -> None:
    net = serial(Dense(4), serial(Dense(3), Relu), Dense(1))
    big = np.full((20, 1), 3e38, np.float32)
    params = tree.map(np.ones_like, net.init(Key(0), (1,)))
    error = failure(net, params=params, data=batches((big, Y), 8))
    assert error.step == 0 and "the output of serial_0/dense_0 is the first that is not finite" in str(error)
    error = failure(data=batches((X, big), 8))
    assert "the loss mse is the first that is not finite (overflow" in str(error)


def test_a_layer_of_ones_own_that_gives_nan() -> None:
    for net, path in (
        (serial(Dense(5), Log, Dense(1)), "log_0"),
        (serial(Dense(5), serial(Tanh, serial(Log)), Dense(1)), "serial_0/serial_0/log_0"),
        (serial(Dense(5), residual(serial(Dense(5), Log)), Dense(1)), "residual_0/serial_0/log_0"),
    ):
        error = failure(net)
        assert f"(invalid value encountered in log, in {path})" in str(error)
        assert f"the output of {path.split('/')[0] if 'residual' in path else path} is the first" in str(error)


def test_a_derivative_that_is_not_finite() -> None:
    error = failure(serial(Dense(5), Tanh, Poison, Dense(1)))
    assert error.step == 0 and "the gradient of dense_0/bias is the first that is not finite" in str(error)
    assert "the update leaves the parameter dense_0/weight not finite" in str(error)


def test_a_schedule_that_gives_nan() -> None:
    error = failure(opt=sgd(lambda step: math.nan if step == 7 else 0.01))
    assert error.step == 7 and "in step 7 (epoch 2.333) every activation and gradient is finite" in str(error)


def test_weights_that_are_all_zero() -> None:
    weight = np.ones(20, np.float32)
    weight[16:] = 0
    with np.errstate(all="ignore"), pytest.raises((NonFiniteError, ValueError), match="weights of the batch|loss mse"):
        fit(data=batches((X, Y, weight), 8, shuffle=False))


def test_no_checkpoint_and_no_result_holds_parameters_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    broken = sgd(lambda step: math.nan if step == 5 else 0.01)
    with np.errstate(all="ignore"):
        with pytest.raises(NonFiniteError):
            fit(opt=broken, steps=6)  # the loss of no step was anything but finite
        with pytest.raises(NonFiniteError) as error:
            fit(opt=broken, epochs=9, checkpoint=path, checkpoint_every=1, evaluation=(X, Y))
    like: Any = {"train_state": error.value.train_state, "best": {"params": PARAMS, "state": EMPTY}}
    saved = fnn.load(path, like)
    assert bits(saved["train_state"]) == bits(error.value.train_state) and saved["train_state"].step == 5
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError):
        fit(data=Stopping(batches((X, Y), 8), 6), opt=broken, checkpoint=path, checkpoint_every=99)
    assert fnn.load(path, like)["train_state"].step == 5


def test_training_goes_on_from_the_last_good_state() -> None:
    error = failure(opt=sgd(1e6))
    result = fit(opt=sgd(1e-3), steps=error.step + 3, resume=attrs.evolve(error.train_state, params=PARAMS))
    assert result.train_state.step == error.step + 3


def test_the_error_pickles() -> None:
    error = failure(opt=sgd(1e6))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.step == error.step and bits(again.train_state) == bits(error.train_state)


# --- progress --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


ROW = Row(30, 3.0, 0.123456, 0.001, 1.25, {"loss": 0.5, "accuracy": 0.97})


def test_progress_rewrites_one_line_on_a_terminal() -> None:
    out, now = Terminal(), itertools.count(0, 0.1)
    report = progress(5, file=out, clock=lambda: next(now))
    for epoch in range(1, 6):
        report(attrs.evolve(ROW, epoch=float(epoch)))
    shown = out.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n") and shown.startswith("\repoch 1/5  loss 0.1235  lr 0.001")
    assert "epoch 5/5" in shown and "eval loss 0.5  accuracy 0.97  1.2 s" in shown


def test_progress_writes_few_lines_elsewhere() -> None:
    out, now = io.StringIO(), itertools.count(0.0, 1.0)
    report = progress(100, file=out, clock=lambda: next(now))
    for epoch in range(1, 101):
        report(attrs.evolve(ROW, epoch=float(epoch), learning_rate=None))
    lines = out.getvalue().splitlines()
    assert 2 < len(lines) < 20 and lines[-1].startswith("epoch 100/100  loss") and "lr" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_progress_reports_a_training() -> None:
    out = io.StringIO()
    fit(epochs=3, report=progress(3, file=out, seconds=0.0))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/3", "2/3", "3/3"]


def test_what_would_do_nothing_is_refused(tmp_path: Path) -> None:
    row: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "look at evaluation data", {"metrics": [accuracy]}),
        (ValueError, "checkpoint_every: expected a file", {"checkpoint_every": 3}),
        (TypeError, "report: expected a function of a row, such as", {"report": 3}),
        (TypeError, r"report: expected a function of a row; call it: progress\(\)", {"report": progress}),
        (TypeError, "compile: expected True, False or a compiled step", {"compile": "yes"}),
    ]
    for error, message, options in row:
        with pytest.raises(error, match=message):
            fit(**options)


def test_batches_of_another_size_do_not_fit_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    state = fit(checkpoint=path).train_state
    with pytest.raises(ValueError, match="made with 3 steps an epoch, this data has 5"):
        fit(data=batches((X, Y), 4), epochs=4, resume=path)
    assert fit(data=batches((X, Y), 4), epochs=4, resume=state).train_state.step == 20


def test_an_interrupt_holds_how_far_it_came() -> None:
    def stop(row: Row) -> None:
        if row.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        fit(epochs=5, report=stop)
    state = vars(interrupt.value)["train_state"]
    assert bits(fit(epochs=5, resume=state).params) == bits(fit(epochs=5).params) and state.step == 6


def test_an_evaluation_that_is_no_number_is_not_the_best() -> None:
    scores = iter([math.nan, 7.0, 6.0, 5.0, 4.0])

    def falling(total: Any) -> float:
        return 1.0 if total is start else next(scores)

    start: Any = accuracy.init()
    metric = attrs.evolve(accuracy, kind="m", init=lambda: start, compute=falling, higher_is_better=False)
    result = resuming.run(30, metrics=(metric,), monitor="m", every=None)
    assert bits(result.best) == bits(result.params)


def test_masked_arrays_are_refused() -> None:
    with pytest.raises(TypeError, match="array 0: a masked array"):
        batches((np.ma.masked_array(X, X > 0), Y), 8)
