"""What follows from a layer: pullback, value_and_grad, grad, apply; the constructors, repr, pickling, shapes."""

from __future__ import annotations

import math
import pickle
from typing import Any

import attrs
import numpy as np
import pytest

from fnn import tree
from fnn.combinators import named, serial
from fnn.contract import Eval, Layer, Train, check_shape, grad, layer, no_params, pullback, stateless, value_and_grad
from fnn.initializers import constant, he_normal, normal
from fnn.layers.activation import LeakyRelu, Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.losses import mse, softmax_cross_entropy
from fnn.random import Key
from fnn.types import EMPTY, Array, Params, ShapeError

NET = serial(Dense(5), Tanh, Dropout(0.4), Dense(2))
PARAMS = tree.cast(NET.init(Key(0), (3,)), np.float64)
X = Key(1).generator().standard_normal((7, 3))
TARGET = Key(2).generator().standard_normal((7, 2))
WEIGHT = np.arange(1.0, 8.0)
MODE = Train(Key(3))


def directional(params: Params, direction: Params, weight: Array | None, step: float = 1e-6) -> float:
    """The derivative of the loss along a direction in the parameters, by central differences."""

    def value(sign: float) -> float:
        moved = tree.map(lambda p, d: p + sign * step * d, params, direction)
        return float(mse.forward(NET.forward(moved, EMPTY, X, MODE)[0], TARGET, weight)[0])

    return (value(1) - value(-1)) / (2 * step)


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_value_and_grad_is_the_loss_and_its_derivative(weight: Array | None) -> None:
    value, grads, state = value_and_grad(NET, mse)(PARAMS, EMPTY, X, TARGET, MODE, weight)
    squares = ((NET.forward(PARAMS, EMPTY, X, MODE)[0] - TARGET) ** 2).mean(axis=1)
    assert value.shape == () and float(value) == pytest.approx(np.average(squares, weights=weight), rel=1e-12)
    tree.check_same_structure(PARAMS, grads)
    direction = tree.map(lambda p: Key(4).fold_in(p.size).generator().standard_normal(p.shape), PARAMS)
    assert tree.dot(grads, direction) == pytest.approx(directional(PARAMS, direction, weight), rel=1e-7)
    assert state == EMPTY


def test_grad_is_the_second_part_of_value_and_grad() -> None:
    _, expected, _ = value_and_grad(NET, mse)(PARAMS, EMPTY, X, TARGET, MODE, WEIGHT)
    assert tree.allclose(grad(NET, mse)(PARAMS, EMPTY, X, TARGET, MODE, WEIGHT), expected, rtol=0, atol=0)


def test_pullback_gives_the_gradients_of_parameters_and_inputs() -> None:
    y, state, pull = pullback(NET, PARAMS, EMPTY, X, MODE)
    assert np.array_equal(y, NET.forward(PARAMS, EMPTY, X, MODE)[0]) and state == EMPTY
    value, cache = mse.forward(y, TARGET, None)
    grads, dx = pull(mse.vjp(cache))
    assert tree.allclose(grads, grad(NET, mse)(PARAMS, EMPTY, X, TARGET, MODE), rtol=1e-12)
    step, direction = 1e-6, np.cos(np.arange(X.size)).reshape(X.shape)
    moved = [NET.forward(PARAMS, EMPTY, X + s * direction, MODE)[0] for s in (step, -step)]
    numeric = [float(mse.forward(y, TARGET, None)[0]) for y in moved]
    assert np.vdot(dx, direction) == pytest.approx((numeric[0] - numeric[1]) / (2 * step), rel=1e-7)


def test_a_pullback_can_be_pulled_twice() -> None:
    _, _, pull = pullback(NET, PARAMS, EMPTY, X, MODE)
    (first, dx), (second, dx2) = pull(TARGET), pull(TARGET)
    assert tree.allclose(first, second, rtol=0, atol=0) and np.array_equal(dx, dx2)


def test_the_running_statistics_go_through() -> None:
    net = serial(Dense(4), BatchNorm(), Dense(2))
    params, state = net.init(Key(0), (3,)), net.init_state((3,))
    x, target = X.astype(np.float32), TARGET.astype(np.float32)
    _, _, after = value_and_grad(net, mse)(params, state, x, target, MODE)
    tree.check_same_structure(state, after)
    assert not tree.allclose(state, after)
    assert np.array_equal(net.apply(params, x, after), net.forward(params, after, x, Eval())[0])


# --- apply -----------------------------------------------------------------------------------------------------------


def test_apply_is_forward_in_evaluation_mode() -> None:
    assert np.array_equal(NET.apply(PARAMS, X), NET.forward(PARAMS, EMPTY, X, Eval())[0])
    plain = attrs.evolve(Dense(5), infer=None)
    assert np.array_equal(plain.apply(PARAMS["dense_0"], X), Dense(5).apply(PARAMS["dense_0"], X))


@pytest.mark.parametrize("given", [X, None, [1.0], 3])
def test_what_is_no_tree_of_parameters(given: Any) -> None:
    with pytest.raises(TypeError, match=r"serial.apply: expected parameters first, as in net.apply\(params, x\), got"):
        NET.apply(given, X)


def test_parameters_that_are_missing() -> None:
    with pytest.raises(KeyError, match="weight") as error:
        NET.apply({"dense_0": PARAMS["dense_0"]}, X)
    assert "no such entry in the parameters" in error.value.__notes__[0] and error.value.__notes__[-1] == "in dense_1"


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[:, :2], ShapeError, r"Dense\(5\): expected input \(batch, ..., 3\), got \(7, 2\)"),
        (X[0], ShapeError, r"expected input \(batch, ..., 3\), got \(3,\)"),
        (X.astype(np.float32), TypeError, "the parameters are float64, the input is float32; convert one"),
        (X.astype(np.int64), TypeError, "the parameters are float64, the input is int64; convert one"),
        (X.astype(object), TypeError, "the parameters are float64, the input is object; convert one"),
        (X.tolist(), TypeError, "expected an array, got list; use np.asarray"),
    ],
)
def test_inputs_that_do_not_fit(x: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        NET.apply(PARAMS, x)
    assert caught.value.__notes__ == ["in dense_0"]
    with pytest.raises(error, match=words):
        NET.forward(PARAMS, EMPTY, x, MODE)


# --- initialisation --------------------------------------------------------------------------------------------------


def test_parameters_are_read_only_float32() -> None:
    for a in tree.leaves(NET.init(Key(0), (3,))):
        assert a.dtype == np.float32 and not a.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            a += 1


@pytest.mark.parametrize("key", [0, None, (3,), "a"])
def test_a_seed_is_not_a_key(key: Any) -> None:
    with pytest.raises(TypeError, match=r"serial.init: expected a Key first, as in net.init\(Key\(0\), in_shape\)"):
        NET.init(key, (3,))


@pytest.mark.parametrize("shape", [3, [3], None, (0,), (-1,), (3.0,), ("3",), X, ((3,), [4])])
def test_what_is_no_shape(shape: Any) -> None:
    with pytest.raises(ShapeError, match="expected a shape without the batch axis, a tuple of positive integers"):
        NET.init(Key(0), shape)
    with pytest.raises(ShapeError):
        check_shape("here", shape)


def test_a_shape_that_does_not_fit_says_where() -> None:
    with pytest.raises(ShapeError, match=r"Dense\(5\): expected an input shape \(..., features\), got \(\)") as error:
        serial(serial(Tanh, Dense(5))).init(Key(0), ())
    assert error.value.__notes__ == ["in serial_0/dense_0"]


# --- constructors ----------------------------------------------------------------------------------------------------


def double_forward(params: Params, x: Array) -> tuple[Array, None]:
    """y = 2 x"""
    return 2 * x, None


def double_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    """dx = 2 dy"""
    return EMPTY, 2 * dy


Double: Layer[Array, Array] = stateless("Double", no_params, double_forward, double_vjp)


def test_a_layer_of_ones_own() -> None:
    net = serial(Dense(5), Double, Double)
    params = net.init(Key(0), (3,))
    assert list(params) == ["dense_0"] and [name for name, _ in net.children] == ["dense_0", "double_0", "double_1"]
    x = X.astype(np.float32)
    assert np.array_equal(net.apply(params, x), 4 * Dense(5).apply(params["dense_0"], x))
    assert repr(net) == "serial(Dense(5), Double, Double)"


@pytest.mark.parametrize("kind", ["", "a/b"])
def test_kinds_that_cannot_be_names(kind: str) -> None:
    with pytest.raises(ValueError, match="layer: expected a kind that is a name without '/'"):
        layer(kind, no_params, Double.forward, Double.vjp)


def test_init_protects_what_an_author_returns() -> None:
    own = np.zeros(3, np.float32)

    def init(key: Key, in_shape: Any) -> Params:
        return {"w": own}

    made = stateless("Own", init, double_forward, double_vjp).init(Key(0), (3,))
    assert not made["w"].flags.writeable and own.flags.writeable


# --- repr and pickling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thing", "code"),
    [
        (Dense(5), "Dense(5)"),
        (Dense(5, bias_init=None), "Dense(5, bias_init=None)"),
        (Dense(5, weight_init=normal(0.1)), "Dense(5, weight_init=normal(std=0.1))"),
        (Dense(5, bias_init=constant(1)), "Dense(5, bias_init=constant(1.0))"),
        (Sigmoid, "Sigmoid"),
        (LeakyRelu(0.3), "LeakyRelu(slope=0.3)"),
        (named("out", Dense(1)), "named('out', Dense(1))"),
        (serial(Dense(25), Sigmoid, named("out", Dense(1))), "serial(Dense(25), Sigmoid, named('out', Dense(1)))"),
        (serial(), "serial()"),
        (softmax_cross_entropy(), "softmax_cross_entropy()"),
        (softmax_cross_entropy(smoothing=0.1), "softmax_cross_entropy(smoothing=0.1)"),
        (mse, "mse"),
    ],
)
def test_repr_is_the_code(thing: object, code: str) -> None:
    assert repr(thing) == code


def test_networks_losses_and_their_derivatives_pickle() -> None:
    net = serial(Dense(5, weight_init=he_normal()), Sigmoid, serial(Dropout(0.5), named("out", Dense(2))))
    again = pickle.loads(pickle.dumps(net))
    params = again.init(Key(0), (3,))
    assert tree.allclose(params, net.init(Key(0), (3,)), rtol=0, atol=0) and repr(again) == repr(net)
    f = pickle.loads(pickle.dumps(value_and_grad(net, mse)))
    x, target = X.astype(np.float32), TARGET.astype(np.float32)
    expected = value_and_grad(net, mse)(params, EMPTY, x, target, MODE)
    assert tree.allclose(f(params, EMPTY, x, target, MODE), expected, rtol=0, atol=0)
    y, state, pull = pickle.loads(pickle.dumps(pullback(net, params, EMPTY, x, MODE)))
    assert tree.allclose(pull(target)[0], pullback(net, params, EMPTY, x, MODE)[2](target)[0], rtol=0, atol=0)


def test_records_cannot_be_changed() -> None:
    for thing, field in ((NET, "kind"), (mse, "vjp"), (MODE, "key")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(thing, field, None)
    assert NET != serial(Dense(5), Tanh, Dropout(0.4), Dense(2)) and NET == NET and hash(NET) == hash(NET)


def test_evaluation_modes_are_equal_and_training_modes_are_their_keys() -> None:
    assert Eval() == Eval() and Train(Key(0)) == Train(Key(0)) != Train(Key(1))
    assert math.isfinite(hash(Train(Key(0))))
