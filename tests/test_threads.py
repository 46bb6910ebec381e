"""Several threads give the results of one, but for rounding; the same in every run."""

from __future__ import annotations

import logging
import math
from typing import Any

import attrs
import numpy as np
import pytest

import fnn.threads
import fnn.training
from fnn import tree
from fnn.combinators import serial
from fnn.compile import compiled
from fnn.contract import Layer, Loss, Train
from fnn.data import batches
from fnn.diagnosis import NonFiniteError, explain
from fnn.history import TrainState
from fnn.layers.activation import Relu, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.losses import l2, mse
from fnn.optimizers import GradientTransformation, adam, sam, sgd
from fnn.random import Key
from fnn.threads import ThreadedStep
from fnn.training import Result, make_step, train

EXAMPLES = 70


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is worth sharing."""
    monkeypatch.setattr(fnn.threads, "WORTH", 0.0)
    monkeypatch.setattr(fnn.threads, "CALL", 0.0)
    monkeypatch.setattr(fnn.threads, "UPDATE", 0.0)


def trained(
    threads: int,
    net: Layer[Any, Any] | None = None,
    opt: GradientTransformation = adam(0.01),
    loss: Loss[Any, Any] = mse,
    weighted: bool = False,
    **options: Any,
) -> Result:
    net = net or serial(Dense(400), Tanh, Dense(3))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((EXAMPLES, 40)), rng.standard_normal((EXAMPLES, 3))
    params = tree.cast(net.init(Key(0), (40,)), np.float64)
    weight = rng.uniform(0.5, 2, EXAMPLES)
    data = batches((x, y, weight) if weighted else (x, y), size=64)
    return train(params, data, opt, model=net, loss=loss, epochs=3, threads=threads, **options)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threads", [2, 3])
def test_the_parts_add_up_to_the_whole(threads: int, weighted: bool, caplog: pytest.LogCaptureFixture) -> None:
    one, several = (trained(n, weighted=weighted, penalty=l2(1e-3)) for n in (1, threads))
    assert not caplog.records, "the step is split"
    assert tree.allclose(one.params, several.params, rtol=1e-9, atol=1e-12)
    assert math.isclose(one.history[-1].loss, several.history[-1].loss, rel_tol=1e-9)
    assert any(not np.array_equal(a, b) for a, b in zip(tree.leaves(one.params), tree.leaves(several.params)))


@pytest.mark.usefixtures("eager")
def test_two_runs_have_the_same_bits() -> None:
    net = serial(Dense(300), Relu, Dropout(0.5), Dense(3))
    first, second = (trained(2, net) for _ in range(2))
    assert tree.allclose(first.params, second.params, rtol=0, atol=0)
    assert [row.loss for row in first.history] == [row.loss for row in second.history]


@pytest.mark.usefixtures("eager")
def test_what_went_wrong_is_looked_for_in_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the random numbers that they had."""
    found = []

    def noted(model: Any, loss: Any, data: Any, before: Any, now: Any, penalty: Any, parts: Any) -> NonFiniteError:
        batch = next(iter(data.stream(now.key, now.step)))
        found.append((now, batch, parts(now, batch)))
        return explain(model, loss, data, before, now, penalty, parts)

    monkeypatch.setattr(fnn.training, "explain", noted)
    net = serial(Dense(20), Dropout(0.5), Dense(3))
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="is the first that is not finite"):
        trained(2, net, sgd(1e200), compile=make_step(net, mse, sgd(1e200)))
    (now, batch, ((first, first_mode), (second, second_mode))) = found[0]
    assert np.array_equal(np.concatenate([first[0], second[0]]), batch[0])
    key = now.key.fold_in("step").fold_in(now.step)
    assert first_mode == Train(key.fold_in(0)) and second_mode == Train(key.fold_in(1))


def nothing(output: Any, target: Any, weight: Any) -> Any:
    return np.zeros((1, 2))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "too little work"),
        ({"compile": False}, "compile=False"),
        ({"net": serial(Dense(8), BatchNorm(), Dense(3))}, "whole batch"),
        ({"net": serial(Dense(8), attrs.evolve(Tanh, couples_batch=True), Dense(3))}, "couples_batch"),
        ({"opt": sam(sgd(0.1), radius=0.01)}, "more than the gradients"),
        ({"loss": attrs.evolve(mse, sums=nothing)}, "not a mean"),
        ({"loss": attrs.evolve(mse, couples_batch=True)}, "not a mean"),
    ],
    ids=["small", "not compiled", "batch norm", "coupled", "sam", "a loss with own sums", "a loss of the whole batch"],
)
def test_one_thread_is_used_where_a_batch_cannot_be_shared(
    options: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fnn"):
        several = trained(2, **options)
    assert any(reason in record.getMessage() for record in caplog.records), [r.getMessage() for r in caplog.records]
    assert tree.allclose(trained(1, **options).params, several.params, rtol=0, atol=0)


def test_a_warning_says_that_threads_are_in_each_others_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    monkeypatch.setitem(__import__("sys").modules, "threadpoolctl", None)
    with pytest.warns(RuntimeWarning, match="OPENBLAS_NUM_THREADS=1"):
        with fnn.threads.workers(2):
            pass


def test_a_number_of_threads_is_positive() -> None:
    with pytest.raises(ValueError, match="threads"):
        trained(0)


def test_what_is_split_does_not_depend_on_which_form_came_first() -> None:
    net = serial(Dense(400), Tanh, Dense(3))
    params = net.init(Key(0), (7, 40))
    opt = sgd(0.1)
    step = compiled(make_step(net, mse, opt))
    rng = np.random.default_rng(0)
    forms = [(rng.standard_normal((64, t, 40), np.float32), np.zeros((64, t, 3), np.float32)) for t in (1, 90)]
    now = TrainState(0, params, {}, opt.init(params), Key(0))
    with fnn.threads.workers(2) as pool:
        for order in (forms, forms[::-1]):
            threaded = ThreadedStep(step, net, mse, opt, None, pool, 2, None)
            divided = {x.shape[1]: len(threaded.parts(now, (x, y))) for x, y in order}
            assert divided == {1: 1, 90: 2}
