"""Embedding and positions: lookups and their gradients, the encodings, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import tree
from fnn.combinators import serial
from fnn.contract import Train
from fnn.layers.dense import Dense
from fnn.layers.embedding import Embedding, embedding_param_vjp
from fnn.layers.position import LearnedPosition, Rotary, SinusoidalPosition, rotate, rotate_vjp, sinusoids
from fnn.random import Key
from fnn.types import Array, ShapeError

TRAIN = Train(Key(0))


def draw(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# --- embedding -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.sampled_from([np.float32, np.float64]))
def test_embedding_is_the_product_with_one_hot_rows(tokens: list[int], dtype: Any) -> None:
    x = np.array(tokens)
    layer = Embedding(7, 3)
    params = tree.cast(layer.init(Key(0), ()), dtype)
    one_hot = (x[:, None] == np.arange(7)).astype(dtype)
    y, _, cache = layer.forward(params, {}, x, TRAIN)
    np.testing.assert_array_equal(y, one_hot @ params["weight"])
    dy = draw(len(x), 3).astype(dtype)
    grads, dx = layer.vjp(params, cache, dy)
    np.testing.assert_allclose(grads["weight"], one_hot.T @ dy, rtol=1e-5, atol=1e-6)
    assert grads["weight"].dtype == dtype
    np.testing.assert_array_equal(dx, np.zeros(x.shape, x.dtype))


def test_a_token_that_repeats_gets_the_sum() -> None:
    """Exactly, where the sums are small integers; plain indexed addition would keep the last of them."""
    x = np.array([[2, 2, 0], [2, 4, 0]])
    dy = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    weight = embedding_param_vjp({"weight": np.zeros((5, 2), np.float32)}, x, dy)["weight"]
    np.testing.assert_array_equal(weight, [[14, 16], [0, 0], [8, 11], [0, 0], [8, 9]])


def test_every_integer_type_means_the_same() -> None:
    layer = Embedding(9, 4)
    params = layer.init(Key(0), ())
    x = np.array([[8, 0, 3], [3, 3, 1]])
    dy = draw(2, 3, 4).astype(np.float32)
    y, _, cache = layer.forward(params, {}, x, TRAIN)
    for dtype in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.uint64):
        y2, _, cache2 = layer.forward(params, {}, x.astype(dtype), TRAIN)
        np.testing.assert_array_equal(y2, y)
        grads, dx = layer.vjp(params, cache2, dy)
        assert dx.dtype == dtype
        assert tree.allclose(grads, layer.vjp(params, cache, dy)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("tokens", "got"),
    [
        (np.array([0, 9]), "from 0 to 9"),
        (np.array([-1, 3]), "from -1 to 3"),
        (np.array([-9, 2], np.int8), "from -9 to 2"),
        (np.array([2**63 - 1, 1]), f"from 1 to {2**63 - 1}"),
        (np.array([2**64 - 1], np.uint64), f"from {2**64 - 1} to {2**64 - 1}"),
    ],
)
def test_tokens_out_of_range(tokens: Any, got: str) -> None:
    net = serial(Embedding(9, 4), Dense(2))
    params = net.init(Key(0), ())
    with pytest.raises(ValueError, match=rf"Embedding\(9, 4\): expected .* from 0 to 8, got ids {got}") as caught:
        net.apply(params, tokens)
    assert caught.value.__notes__ == ["in embedding_0"]


def test_what_is_not_a_token() -> None:
    layer = Embedding(9, 4)
    params: Any = layer.init(Key(0), ())
    wrong: list[tuple[Any, type[Exception], str]] = [
        (np.ones(3), TypeError, "expected integer token ids, got float64; use"),
        (np.ones(3, bool), TypeError, "expected integer token ids, got bool"),
        ([1, 2], TypeError, "expected an array of token ids, got list"),
        (np.array(1), ShapeError, r"expected token ids \(batch, ...\), got \(\)"),
    ]
    for tokens, error, message in wrong:
        with pytest.raises(error, match=rf"Embedding\(9, 4\): {message}"):
            layer.apply(params, tokens)


def test_bad_sizes() -> None:
    for vocabulary, features, name in ((0, 4, "vocabulary"), (9, -1, "features")):
        with pytest.raises(ValueError, match=f"Embedding: expected {name} to be a positive integer"):
            Embedding(vocabulary, features)
    with pytest.raises(ValueError, match="LearnedPosition: expected length to be a positive integer, got 0"):
        LearnedPosition(0)


# --- learned and sinusoidal positions --------------------------------------------------------------------------------


def test_learned_positions_depend_on_time_only() -> None:
    layer, x, dy = LearnedPosition(9), draw(5, 7, 3), draw(5, 7, 3, seed=2)
    params = tree.cast(layer.init(Key(0), (7, 3)), np.float64)
    y, _, cache = layer.forward(params, {}, x, TRAIN)
    np.testing.assert_array_equal(y - x, (x + params["weight"][:7]) - x)
    grads, dx = layer.vjp(params, cache, dy)
    np.testing.assert_allclose(grads["weight"], np.concatenate([dy.sum(0), np.zeros((2, 3))]), atol=1e-14)
    np.testing.assert_array_equal(dx, dy)


def test_times_beyond_the_length() -> None:
    layer = LearnedPosition(9)
    params = layer.init(Key(0), (7, 3))
    with pytest.raises(ShapeError, match=r"expected input \(batch, time up to 9, 3\), got \(5, 10, 3\)"):
        layer.apply(params, np.zeros((5, 10, 3), np.float32))
    with pytest.raises(ShapeError, match=r"LearnedPosition\(9\): expected an input shape \(time up to 9, features\)"):
        layer.init(Key(0), (10, 3))
    with pytest.raises(TypeError, match="the parameters are float32, the input is float64"):
        layer.apply(params, np.zeros((5, 7, 3)))


def test_sinusoids() -> None:
    """The formula entry by entry; and products of two encodings depend on the distance of their positions only."""
    table = sinusoids(11, 6, np.dtype(np.float64))
    for t in range(11):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(table[t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-14)
    products = table @ table.T
    np.testing.assert_allclose(products[1:, 1:], products[:-1, :-1], atol=1e-13)
    x = draw(5, 11, 6)
    np.testing.assert_array_equal(SinusoidalPosition.apply({}, x), x + table)


# --- rotary positions ------------------------------------------------------------------------------------------------


def test_rotation_pair_by_pair() -> None:
    x = draw(2, 5, 7, 6)
    y = rotate(x, base=50.0)
    for t in range(7):
        for i in range(3):
            angle = t * 50 ** (-2 * i / 6)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            np.testing.assert_allclose(y[..., t, 2 * i : 2 * i + 2], x[..., t, 2 * i : 2 * i + 2] @ turn.T, atol=1e-14)


def test_products_of_rotated_vectors_depend_on_the_distance_only() -> None:
    q, k = draw(6), draw(6, seed=2)
    scores = rotate(np.tile(q, (9, 1))) @ rotate(np.tile(k, (9, 1))).T
    np.testing.assert_allclose(scores[1:, 1:], scores[:-1, :-1], atol=1e-13)
    assert not np.allclose(scores[0, 0], scores[0, 1])


def test_rotation_keeps_lengths_and_is_undone_by_its_derivative() -> None:
    x, dy = draw(2, 7, 6), draw(2, 7, 6, seed=2)
    np.testing.assert_allclose(np.linalg.norm(rotate(x), axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(rotate_vjp(rotate(x)), x, atol=1e-14)
    np.testing.assert_allclose(np.vdot(dy, rotate(x)), np.vdot(rotate_vjp(dy), x), rtol=1e-13)


def test_given_positions() -> None:
    """A part of a sequence is rotated as it is in the whole; positions may differ among examples."""
    x = draw(2, 7, 6)
    np.testing.assert_array_equal(rotate(x, np.arange(7)), rotate(x))
    np.testing.assert_allclose(rotate(x[:, 4:], np.arange(4, 7)), rotate(x)[:, 4:], rtol=1e-15)
    each = np.array([[0, 1, 2, 3, 4, 5, 6], [3, 1, 4, 1, 5, 9, 2]])
    y = rotate(x, each)
    np.testing.assert_allclose(y[1], rotate(x[1], each[1]), rtol=1e-15)
    np.testing.assert_allclose(rotate_vjp(y, each), x, atol=1e-14)


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (3, 1, 2, 0), (2, 1, 0, 3)])
def test_arrays_that_are_not_contiguous(axes: tuple[int, ...]) -> None:
    x = draw(4, 6, 8, 2).transpose(axes)
    np.testing.assert_array_equal(rotate(x), rotate(x.copy()))
    assert rotate(x).flags.c_contiguous


def test_far_positions_keep_their_angles_in_float32() -> None:
    x = draw(1, 6)
    far = np.array([1_000_003])
    np.testing.assert_allclose(rotate(x.astype(np.float32), far), rotate(x, far), atol=1e-6)


def test_rotary_refuses() -> None:
    for f in (rotate, rotate_vjp):
        with pytest.raises(ShapeError, match=r"rotate: expected .* an even number of features\), got \(7, 3\)"):
            f(draw(7, 3))
        with pytest.raises(TypeError, match="rotate: expected floating-point input, got int64"):
            f(np.ones((7, 4), np.int64))
    with pytest.raises(ShapeError, match="Rotary: expected an input shape"):
        Rotary().out_shape((7, 3))
    with pytest.raises(TypeError, match="SinusoidalPosition: expected floating-point input"):
        SinusoidalPosition.apply({}, np.ones((5, 7, 4), np.int64))
    for base in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Rotary: expected a finite base above 0"):
            Rotary(base=base)
