"""Nothing is mutated, remembered or drawn from a global: inputs stay, trainings side by side do not meet."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fnn
from fnn import tree
from fnn.combinators import residual, serial
from fnn.contract import Eval, Layer, Train, grad, pullback
from fnn.data import batches, one_hot, split
from fnn.history import TrainState
from fnn.layers.activation import Gelu, Relu, Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm, LayerNorm
from fnn.layers.shape import Flatten, Identity
from fnn.losses import mse, sigmoid_cross_entropy, softmax_cross_entropy
from fnn.metrics import accuracy
from fnn.optimizers import adam, adamw, add_decayed_weights, apply_updates, chain, sgd
from fnn.random import Key
from fnn.training import evaluate, iterate, make_step, train

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "fnn").rglob("*.py"))

NET = serial(
    Flatten,
    Identity,
    Dense(9),
    BatchNorm(),
    Relu,
    Dropout(0.3),
    residual(serial(Dense(9), LayerNorm(), Gelu)),
    Dense(3),
)
X = Key(0).generator().standard_normal((22, 2, 3)).astype(np.float32)
LABELS = np.arange(22) % 3
WEIGHT = np.linspace(0.5, 1.5, 22, dtype=np.float32)
OPTIMIZERS: list[Any] = [
    sgd(0.1),
    sgd(0.1, momentum=0.9, nesterov=True),
    adam(0.01),
    adamw(0.01, weight_decay=0.1),
    chain(add_decayed_weights(0.01), sgd(0.1, momentum=0.5)),
]
TARGETS: list[Any] = [
    (softmax_cross_entropy(), LABELS),
    (softmax_cross_entropy(smoothing=0.2), one_hot(LABELS, 3)),
    (sigmoid_cross_entropy(smoothing=0.1), one_hot(LABELS, 3)),
    (mse, one_hot(LABELS, 3)),
]


def bits(value: Any) -> list[tuple[str, Any]]:
    """Path, dtype, shape and bytes of every array, and the numbers."""


    def of(a: Any) -> Any:
        return (str(a.dtype), a.shape, a.tobytes()) if isinstance(a, np.ndarray) else a

    return [(path, of(a)) for path, a in tree.items(value)]


def sealed(value: Any) -> Any:
    """The same tree with copies of its arrays that cannot be written to by any way."""

    def seal(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)  # over immutable bytes

    return tree.map(seal, value)


def start(net: Layer[Any, Any], opt: Any, seed: int = 0) -> TrainState:
    """A state whose arrays cannot be written to."""
    params = sealed(net.init(Key(seed), (2, 3)))
    return TrainState(0, params, sealed(net.init_state((2, 3))), sealed(opt.init(params)), Key(seed))


def parts(state: TrainState) -> tuple[Any, ...]:
    """A train state as a tree."""
    return state.step, state.params, state.state, state.opt_state


# --- nothing is mutated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize(("loss", "target"), TARGETS, ids=[repr(loss) for loss, _ in TARGETS])
def test_a_step_writes_into_nothing_it_was_given(opt: Any, loss: Any, target: Any) -> None:
    before, batch = start(NET, opt), sealed((X, target, WEIGHT))
    step = make_step(NET, loss, opt)
    remembered = bits((parts(before), batch))
    after, _ = step(before, batch)
    params, state, opt_state = sealed(parts(after)[1:])
    second, _ = step(TrainState(1, params, state, opt_state, Key(0)), batch)
    again, _ = step(before, batch)
    assert bits((parts(before), batch)) == remembered
    assert bits(parts(again)) == bits(parts(after)) != bits(parts(second))


@pytest.mark.parametrize("mode", [Train(Key(1)), Eval()])
def test_passes_write_into_nothing_they_were_given(mode: Any) -> None:
    params, state, x = sealed(NET.init(Key(0), (2, 3))), sealed(NET.init_state((2, 3))), sealed(X)
    y, new, pull = pullback(NET, params, state, x, mode)
    dy = sealed(np.ones_like(y))
    remembered = bits((params, state, x, dy))
    first = bits(pull(dy))
    assert bits(pull(dy)) == first and bits((params, state, x, dy)) == remembered
    NET.apply(params, x, state)
    grad(NET, softmax_cross_entropy())(params, state, x, sealed(LABELS), mode, sealed(WEIGHT))
    assert bits((params, state, x, dy)) == remembered


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_updates_write_into_nothing_they_were_given(opt: Any) -> None:
    params = sealed(NET.init(Key(0), (2, 3)))
    grads, state = sealed(tree.map(np.ones_like, params)), sealed(opt.init(params))
    remembered = bits((params, grads, state))
    updates, new = opt.update(grads, state, params)
    apply_updates(params, sealed(updates))
    opt.update(grads, sealed(new), params)
    assert bits((params, grads, state)) == remembered


def test_data_evaluation_and_training_write_into_nothing_they_were_given() -> None:
    arrays = sealed((X, LABELS, WEIGHT))
    params = sealed(NET.init(Key(0), (2, 3)))
    remembered = bits((arrays, params))
    rest, held_out = split(arrays, 0.3, Key(0))
    for shuffle in (True, False):
        result = train(
            params,
            batches(arrays, 5, shuffle=shuffle),
            adam(0.01),
            model=NET,
            loss=softmax_cross_entropy(),
            epochs=2,
            evaluation=arrays,
            metrics=[accuracy],
        )
    evaluate(NET, params, arrays, loss=softmax_cross_entropy(), metrics=[accuracy], state=result.state)
    assert bits((arrays, params)) == remembered and len(rest[0]) + len(held_out[0]) == 22
    assert all(not a.flags.writeable for a in tree.leaves((result.params, result.best)))


def test_a_result_does_not_change_when_training_goes_on() -> None:
    def go_on(**options: Any) -> Any:
        data = batches((X, LABELS), 5)
        return train(NET.init(Key(0), (2, 3)), data, adam(0.05), model=NET, loss=softmax_cross_entropy(), **options)

    first = go_on(epochs=2)
    remembered = bits(parts(first.train_state))
    go_on(epochs=5, resume=first.train_state)
    assert bits(parts(first.train_state)) == remembered


# --- nothing is remembered -------------------------------------------------------------------------------------------


def training(seed: int) -> Iterator[TrainState]:
    """The states of a training; networks of different seeds differ in size and optimizer."""
    net = serial(Flatten, Dense(5 + seed), BatchNorm(), Sigmoid, Dropout(0.4), Dense(3 + seed), Tanh, Dense(3))
    opt = OPTIMIZERS[seed % len(OPTIMIZERS)]
    steps = make_step(net, softmax_cross_entropy(), opt)
    for state, _ in iterate(steps, start(net, opt, seed), batches((X, LABELS), 5).stream(Key(seed))):
        yield state


def after(seed: int, steps: int) -> Any:
    """What a training has come to."""
    return bits(parts(next(itertools.islice(training(seed), steps - 1, None))))


def test_trainings_interleaved_give_the_bits_of_one_after_the_other() -> None:
    alone = [after(seed, 12) for seed in range(3)]
    *_, mixed = itertools.islice(zip(*(training(seed) for seed in range(3))), 12)
    assert [bits(parts(state)) for state in mixed] == alone


def test_trainings_in_threads_give_the_bits_of_one_after_the_other() -> None:
    alone = [after(seed, 40) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(after, range(4), [40] * 4)) == alone


# --- no global is read or written ------------------------------------------------------------------------------------


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    np.random.seed(3)
    first = after(1, 6)
    np.random.seed(4)
    before = np.random.get_state(legacy=False)
    assert after(1, 6) == first
    result = np.random.get_state(legacy=False)
    assert str(before) == str(result)


def test_settings_of_numpy_stay_as_they_are() -> None:
    errors, options = np.geterr(), np.get_printoptions()
    net = serial(Dense(3), Dense(3))
    data = batches((np.ones((9, 2), np.float32), np.arange(9) % 3), 4)
    with np.errstate(all="ignore"):
        with pytest.raises(fnn.NonFiniteError):
            train(net.init(Key(0), (2,)), data, sgd(3e38), model=net, loss=softmax_cross_entropy(), epochs=9)
        assert set(np.geterr().values()) == {"ignore"}
    assert np.geterr() == errors and np.get_printoptions() == options


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_declares_globals_or_draws_from_them(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Global), f"line {getattr(node, 'lineno', 0)} declares a global"
        if isinstance(node, ast.Attribute):
            assert not ast.unparse(node).startswith("np.random."), f"line {node.lineno} draws from a global generator"
        if isinstance(node, ast.ImportFrom) and node.module in ("random", "numpy.random", "secrets"):
            assert path.name == "random.py" or {a.name for a in node.names} <= {"Generator"}
        if isinstance(node, ast.Import):
            assert not {a.name for a in node.names} & {"random", "secrets", "numpy.random"}
