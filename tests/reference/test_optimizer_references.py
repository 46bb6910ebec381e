"""Fifty steps of every optimizer agree with optax and with torch.optim, where those are installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

import fnn.schedules as fs
from fnn import evaluate, make_step, train
from fnn.combinators import serial
from fnn.data import batches
from fnn.history import TrainState
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.losses import mse
from fnn.random import Key
from tests.reference.trajectories import LONG, OURS, TORCH, ours, run_optax, run_torch

OPTAX = [
    name
    for name in OURS
    if name not in ("rprop", "adagrad", "amsgrad", "radam tiny", "adafactor root", "sam", "decay torch")
]


@pytest.mark.parametrize("name", OPTAX)
def test_optax_takes_the_same_steps(name: str) -> None:
    pytest.importorskip("optax")
    np.testing.assert_allclose(ours(OURS[name], LONG), run_optax(name, LONG), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TORCH)
def test_torch_takes_the_same_steps(name: str) -> None:
    pytest.importorskip("torch")
    np.testing.assert_allclose(ours(OURS[name], LONG), run_torch(name, LONG), rtol=1e-10, atol=1e-10)


def test_schedule_free_evaluates_where_optax_does() -> None:
    pytest.importorskip("optax")
    jax, contrib = import_module("jax"), import_module("optax.contrib")
    from fnn.optimizers import apply_updates, averaged_params
    from tests.reference.trajectories import gradient, start, tree_of, vector_of

    opt, params = OURS["schedule-free"], tree_of(start())
    state: Any = opt.init(params)
    with jax.enable_x64(True):
        theirs = contrib.schedule_free_adamw(0.05, weight_decay=0.01)
        their_state = theirs.init(jax.tree.map(jax.numpy.asarray, params))
        now: Any = params
        for step in range(20):
            grads = tree_of(gradient(vector_of(now), step))
            _, their_state = theirs.update(
                jax.tree.map(jax.numpy.asarray, grads), their_state, jax.tree.map(jax.numpy.asarray, dict(now))
            )
            updates, state = opt.update(grads, state, now)
            now = apply_updates(now, updates)
        wanted = contrib.schedule_free_eval_params(their_state, jax.tree.map(jax.numpy.asarray, dict(now)))
    np.testing.assert_allclose(vector_of(averaged_params(state, now)), vector_of(wanted), rtol=1e-10)


# --- schedules -------------------------------------------------------------------------------------------------------


def optax_schedules() -> list[tuple[fs.Schedule, Any]]:
    o = import_module("optax")
    return [
        (fs.linear(1.0, 0.1, steps=20), o.linear_schedule(1.0, 0.1, 20)),
        (fs.polynomial(1.0, 0.1, steps=20, power=3.0), o.polynomial_schedule(1.0, 0.1, 3.0, 20)),
        (
            fs.exponential(1.0, factor=0.5, steps=7, staircase=True, end=0.1),
            o.exponential_decay(1.0, 7, 0.5, staircase=True, end_value=0.1),
        ),
        (fs.exponential(1.0, factor=0.9), o.exponential_decay(1.0, 1, 0.9)),
        (fs.cosine(1.0, steps=20, end=0.1), o.cosine_decay_schedule(1.0, 20, alpha=0.1)),
        (
            fs.piecewise_constant([1.0, 0.5, 0.05], boundaries=[5, 9]),
            o.join_schedules([o.constant_schedule(v) for v in (1.0, 0.5, 0.05)], [5, 9]),
        ),
        (fs.one_cycle(1.0, steps=30), o.cosine_onecycle_schedule(30, 1.0)),
        (
            fs.join([0.3, fs.cosine(1.0, steps=10)], boundaries=[4]),
            o.join_schedules([o.constant_schedule(0.3), o.cosine_decay_schedule(1.0, 10)], [4]),
        ),
    ]


@pytest.mark.parametrize("i", range(8))
def test_optax_has_the_same_schedules(i: int) -> None:
    pytest.importorskip("optax")
    mine, theirs = optax_schedules()[i]
    with import_module("jax").enable_x64(True):
        wanted = [float(theirs(t)) for t in range(40)]
    np.testing.assert_allclose([mine(t) for t in range(40)], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("growth", [1, 2])
def test_torch_restarts_at_the_same_steps(growth: int) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5, growth, eta_min=0.1)
    mine = fs.cosine_restarts(1.0, steps=5, growth=growth, end=0.1)
    for t in range(40):
        assert mine(t) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        scheduler.step()


# --- optax in train --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adam", "sgd", "chain", "adafactor", "lion"])
def test_train_takes_optax_as_it_is(name: str) -> None:
    optax = pytest.importorskip("optax")
    opt = {
        "adam": optax.adam(1e-2),
        "sgd": optax.sgd(optax.cosine_decay_schedule(0.1, 30), momentum=0.9),
        "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
        "adafactor": optax.adafactor(1e-2),
        "lion": optax.lion(1e-3),
    }[name]
    net = serial(Dense(8), Tanh, Dense(1))
    params = net.init(Key(0), (2,))
    x = Key(1).generator().standard_normal((40, 2)).astype(np.float32)
    data = batches((x, x[:, :1] * x[:, 1:]), size=10)
    target = x[:, :1] * x[:, 1:]
    result = train(params, data, opt, model=net, loss=mse, steps=30)
    before, after_all = (evaluate(net, p, (x, target), loss=mse)["loss"] for p in (params, result.params))
    assert after_all < before
    assert all(leaf.dtype == np.float32 for layer in result.params.values() for leaf in layer.values())
    step = make_step(net, mse, opt)
    after, measured = step(TrainState(0, params, {}, opt.init(params), Key(0)), (x, x[:, :1]))
    assert after.step == 1 and np.isfinite(measured["loss"])
