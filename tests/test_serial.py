"""`serial`: names of children, keys folded by name, sparing of entries, and the path of what went wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fnn
from fnn import tree
from fnn.combinators import named, serial
from fnn.contract import Eval, Layer, Train, params_vjp, pullback
from fnn.layers.activation import Relu, Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.layers.shape import Flatten
from fnn.random import Key
from fnn.types import EMPTY, ShapeError

X = Key(1).generator().standard_normal((4, 3)).astype(np.float32)


def names(net: Layer[Any, Any]) -> list[str]:
    return [name for name, _ in net.children]


def equal(a: Any, b: Any) -> bool:
    return tree.allclose(a, b, rtol=0, atol=0)


# --- names -----------------------------------------------------------------------------------------------------------


def test_children_are_named_by_kind_and_counter() -> None:
    assert names(serial(Dense(5), Sigmoid, Dense(4), Sigmoid)) == ["dense_0", "sigmoid_0", "dense_1", "sigmoid_1"]
    net = serial(Dense(5), named("out", Dense(4)), serial(Dense(3)), Dense(2))
    assert names(net) == ["dense_0", "out", "serial_0", "dense_1"]


def test_children_without_parameters_own_no_entry() -> None:
    net = serial(Dense(5), Sigmoid, serial(Tanh, Relu), serial(Dense(2), Flatten), BatchNorm())
    assert list(net.init(Key(0), (3,))) == ["dense_0", "serial_1", "batchnorm_0"]
    assert list(net.init_state((3,))) == ["batchnorm_0"]
    assert serial(Sigmoid, Tanh).init(Key(0), (3,)) == {} == serial().init(Key(0), (3,))


def test_explicit_names() -> None:
    params = serial(named("hidden", Dense(5)), Sigmoid, named("out", Dense(1))).init(Key(0), (3,))
    assert [path for path, _ in tree.items(params)] == ["hidden/weight", "hidden/bias", "out/weight", "out/bias"]
    assert named("b", named("a", Dense(1))).name == "b"


@pytest.mark.parametrize("layers", [("a", "a"), ("dense_0", None), (None, "dense_0"), ("dense_1", None, None)])
def test_two_layers_with_one_name(layers: tuple[str | None, ...]) -> None:
    children = [Dense(2) if name is None else named(name, Dense(2)) for name in layers]
    with pytest.raises(ValueError, match="serial: two layers are named '.+'; names must differ among siblings"):
        serial(*children)


@pytest.mark.parametrize("name", ["", "a/b", "/", "a/", 3, None, Dense(1)])
def test_names_that_cannot_be_paths(name: Any) -> None:
    with pytest.raises(ValueError, match="named: expected a name without '/'"):
        named(name, Dense(1))


def test_every_name_that_is_accepted_can_be_saved(tmp_path: Any) -> None:
    for name in ["out", "0", "weights and biases", "größe", "a.b", "a:b", "-", "$key"]:
        params = serial(named(name, Dense(2))).init(Key(0), (3,))
        fnn.save(tmp_path / "p.npz", params)
        assert equal(fnn.load(tmp_path / "p.npz", params), params)


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\0b"])
def test_names_that_could_not_be_saved_are_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="named: expected a name"):
        named(name, Dense(1))


@pytest.mark.parametrize(
    ("child", "words"),
    [
        (Dense, r"serial: expected layers, got .* in position 1; call it: Dense\(...\)"),
        ([Dense(1)], "serial: expected layers, got .* in position 1"),
        (np.tanh, r"in position 1; call it"),
        (None, "got None in position 1"),
    ],
)
def test_what_is_no_layer(child: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        serial(Tanh, child)
    with pytest.raises(TypeError, match="named: expected a layer"):
        named("a", child)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_layer_of_another_kind_reseeds_nothing() -> None:
    plain = serial(Dense(5), Dense(3)).init(Key(0), (3,))
    for net in (
        serial(Dense(5), Sigmoid, Dense(3)),
        serial(Dropout(0.5), Dense(5), BatchNorm(), Dense(3), Tanh),
        serial(Dense(5), named("extra", Dense(5)), Dense(3)),
        serial(Dense(5), serial(Dense(5)), Dense(3)),
    ):
        params = net.init(Key(0), (3,))
        assert equal(params["dense_0"], plain["dense_0"]) and equal(params["dense_1"], plain["dense_1"])


def test_siblings_and_parameters_differ() -> None:
    params = serial(Dense(3), Dense(3), serial(Dense(3))).init(Key(0), (3,))
    weights = [params["dense_0"]["weight"], params["dense_1"]["weight"], params["serial_0"]["dense_0"]["weight"]]
    assert not any(np.array_equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_the_key_of_a_child_is_folded_by_its_name() -> None:
    params = serial(Sigmoid, serial(named("out", Dense(5)))).init(Key(7), (3,))
    expected = Dense(5).init(Key(7).fold_in("serial_0").fold_in("out"), (3,))
    assert equal(params["serial_0"]["out"], expected)


def test_random_children_draw_from_their_own_keys() -> None:
    ones = np.ones((50, 40), np.float32)
    net = serial(Dropout(0.5), Dropout(0.5), serial(Dropout(0.5)))
    mode = Train(Key(3))
    y = net.forward(EMPTY, EMPTY, ones, mode)[0]
    expected, inner = ones, Key(3).fold_in("serial_0")
    for key in (Key(3).fold_in("dropout_0"), Key(3).fold_in("dropout_1"), inner.fold_in("dropout_0")):
        expected = Dropout(0.5).forward(EMPTY, EMPTY, expected, Train(key))[0]
    assert np.array_equal(y, expected)
    assert 0.09 < np.mean(y > 0) < 0.16, "three independent masks keep an eighth"


# --- passes ----------------------------------------------------------------------------------------------------------


def test_serial_is_composition() -> None:
    net = serial(Dense(5), Tanh, Dense(2))
    params = net.init(Key(0), (3,))
    by_hand = Dense(2).apply(params["dense_1"], np.tanh(Dense(5).apply(params["dense_0"], X)))
    assert np.allclose(net.apply(params, X), by_hand, rtol=1e-6)
    assert net.out_shape((3,)) == (2,)


def test_gradients_stand_in_the_order_of_the_parameters() -> None:
    net = serial(Dense(5), Tanh, Dense(4), serial(Dense(3)), Dense(2))
    params = net.init(Key(0), (3,))
    y, _, cache = net.forward(params, EMPTY, X, Eval())
    for grads in (net.vjp(params, cache, y)[0], params_vjp(net)(params, cache, y)):
        assert [path for path, _ in tree.items(grads)] == [path for path, _ in tree.items(params)]


def test_the_order_of_the_parameters_given_does_not_matter() -> None:
    net = serial(Dense(5), Tanh, Dense(2))
    params = net.init(Key(0), (3,))
    turned = {name: dict(reversed(list(params[name].items()))) for name in reversed(list(params))}
    assert np.array_equal(net.apply(params, X), net.apply(turned, X))
    y, _, pull = pullback(net, params, EMPTY, X, Eval())
    assert equal(pull(y)[0], pullback(net, turned, EMPTY, X, Eval())[2](y)[0])


def test_state_without_changes_is_the_same_object() -> None:
    net = serial(Dense(5), BatchNorm())
    params, state = net.init(Key(0), (3,)), net.init_state((3,))
    assert net.forward(params, state, X, Eval())[1] is state
    changed = net.forward(params, state, X, Train(Key(0)))[1]
    assert changed is not state and list(changed) == list(state)


def test_the_empty_serial_is_the_identity() -> None:
    y, _, pull = pullback(serial(), {}, {}, X, Train(Key(0)))
    assert y is X and pull(X) == ({}, X) and serial().out_shape((3,)) == (3,)


# --- where it went wrong ---------------------------------------------------------------------------------------------


def deep() -> Layer[Any, Any]:
    return serial(Dense(5), serial(Tanh, serial(Dense(4), Dense(3))), Dense(2))


def test_errors_carry_one_path_however_deep() -> None:
    net = deep()
    params = net.init(Key(0), (3,))
    broken = tree.set(params, "serial_0/serial_0/dense_1/weight", np.zeros((9, 3), np.float32))
    for call in (
        lambda: net.apply(broken, X),
        lambda: net.forward(broken, {}, X, Train(Key(0))),
    ):
        with pytest.raises(ShapeError, match=r"Dense\(3\): expected input \(batch, ..., 9\), got \(4, 4\)") as error:
            call()
        assert error.value.__notes__ == ["in serial_0/serial_0/dense_1"]


def test_errors_of_shapes_and_of_backward_passes_carry_the_path_too() -> None:
    net = serial(Dense(5), serial(Flatten, BatchNorm(), Dense(4)))
    with pytest.raises(ShapeError) as error:
        serial(Tanh, serial(Dense(3))).out_shape(())
    assert error.value.__notes__ == ["in serial_0/dense_0"]
    params = net.init(Key(0), (3,))
    _, _, pull = pullback(net, params, net.init_state((3,)), X, Train(Key(0)))
    with pytest.raises(ValueError) as wrong:
        pull(np.zeros((4, 9), np.float32))
    assert wrong.value.__notes__ == ["in serial_0/dense_0"]


def test_a_missing_entry_is_named() -> None:
    net = deep()
    params = net.init(Key(0), (3,))
    inner, _ = tree.partition(params, lambda path, a: not path.startswith("serial_0/serial_0/dense_0"))
    for call in (lambda: net.apply(inner, X), lambda: net.forward(inner, {}, X, Eval())):
        with pytest.raises(KeyError, match="weight") as error:
            call()
        notes = error.value.__notes__
        assert notes == [
            "no such entry in the parameters (or the state): pass those that the network's own init made",
            "in serial_0/serial_0/dense_0",
        ]
