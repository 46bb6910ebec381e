"""Replayed functions give the bits of the functions themselves, and never overwrite what they gave."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np
import pytest

import fnn.optimizers as fo
from fnn import tree
from fnn.combinators import serial
from fnn.compile import compiled
from fnn.compile.replay import Compiled
from fnn.contract import EVAL, Layer, Train, evaluator
from fnn.history import TrainState
from fnn.layers.activation import Relu, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.losses import mse
from fnn.optimizers import adam, sgd
from fnn.random import Key
from fnn.training import make_step
from tests.case import Case
from tests.cases import CASES
from tests.losses import LOSSES, LossCase
from tests.test_optimizers import ROWS, Row

CALLS = 4


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Equal types, structure, dtypes, and bits."""
    if isinstance(a, (np.ndarray, np.generic)):
        assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), f"{path}: {a} and {b}"
        assert a.flags.writeable == b.flags.writeable, f"{path}: writeable"
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for name in a:
            assert_same(a[name], b[name], f"{path}/{name}")
    elif isinstance(a, (tuple, list)):
        assert type(a) is type(b) and len(a) == len(b), path
        for i, (left, right) in enumerate(zip(a, b)):
            assert_same(left, right, f"{path}/{i}")
    elif isinstance(a, TrainState):
        for field in attrs.fields(TrainState):
            assert_same(getattr(a, field.name), getattr(b, field.name), f"{path}.{field.name}")
    else:
        assert type(a) is type(b) and a == b, f"{path}: {a!r} and {b!r}"


def replays(f: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Compiled[..., Any]:
    """The compiled function, once all calls have given the bits of the plain one, and kept them."""
    replayed = compiled(f)
    given = [(args, replayed(*args)) for args in calls]
    for args, result in given:
        assert_same(f(*args), result)
    return replayed


def check_replayed(f: Compiled[..., Any]) -> None:
    """Fails unless every call was replayed (or recorded)."""
    assert not f.reasons, f"not replayed: {f.reasons}"


# --- every layer, loss and optimizer ---------------------------------------------------------------------------------


def both_passes(layer: Layer[Any, Any], mode: Any, params: Any, state: Any, x: Any, dy: Any) -> Any:
    y, state, cache = layer.forward(params, state, x, mode)
    if any(leaf.dtype.kind == "f" for leaf in tree.leaves(x)):
        return y, state, layer.vjp(params, cache, dy)
    grads = layer.vjp(params, cache, dy)[0] if layer.param_vjp is None else layer.param_vjp(params, cache, dy)
    return y, state, grads


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["Train", "Eval"])
def test_every_layer(case: Case, training: bool) -> None:
    layer, calls = case.layer, []

    def f(params: Any, state: Any, x: Any, dy: Any, key: Key) -> Any:
        return both_passes(layer, Train(key) if training else EVAL, params, state, x, dy)

    for i in range(CALLS):
        subject = attrs.evolve(case.subject(), key=Key(i))
        params, state, x = subject.point(np.float32)
        y = layer.forward(params, state, x, Train(Key(i)))[0]
        calls.append((params, state, x, subject.cotangent(y), Key(10 + i)))
    check_replayed(replays(f, calls))
    if not training:
        infer = evaluator(layer)
        check_replayed(replays(infer, [(params, state, x) for params, state, x, _, _ in calls]))


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_every_loss(case: LossCase) -> None:
    def f(output: Any, target: Any) -> Any:
        value, cache = case.loss.forward(output, target, None)
        return value, case.loss.vjp(cache)

    calls = []
    for i in range(CALLS):
        output, target = attrs.evolve(case.subject(), key=Key(i)).point()
        calls.append((tree.cast(output, np.float32), target))
    check_replayed(replays(f, calls))


NOT_RECORDABLE = {"accumulate", "lookahead", "swa", "plateau", "skip", "deep", "inject"}
"""Rules that do something else in some steps, or depend on the loss."""


def is_matrix(path: str, parameter: Any) -> bool:
    return np.ndim(parameter) > 1


HERE = [
    *[row for row in ROWS if row.label != "partition"],
    Row("partition", lambda r: fo.partition((is_matrix, fo.adam(r)), rest=fo.sgd(r))),
]


@pytest.mark.parametrize("row", HERE, ids=str)
def test_every_optimizer(row: Row) -> None:
    net = serial(Dense(7), Tanh, Dropout(0.25), Dense(3))
    opt = row.make(lambda step: 0.1 / (1 + step))
    step = make_step(net, mse, opt)
    replayed = compiled(step)
    rng = np.random.default_rng(0)
    params = net.init(Key(0), (4,))
    plain = other = TrainState(0, params, {}, opt.init(params), Key(1))
    kept = []
    for _ in range(12):
        batch = rng.standard_normal((6, 4), np.float32), rng.standard_normal((6, 3), np.float32)
        plain, expected = step(plain, batch)
        other, given = replayed(other, batch)
        kept.append((plain, expected, other, given))
    for plain, expected, other, given in kept:
        assert_same(plain, other)
        assert_same(expected, given)
    if row.label not in NOT_RECORDABLE:
        check_replayed(replayed)
