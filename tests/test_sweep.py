"""The laws hold for every shape: random networks and sizes, one example and equal sizes among them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn.combinators import serial
from fnn.contract import Layer
from fnn.initializers import normal, zeros
from fnn.layers.activation import Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.random import Key
from fnn.testing import check_layer

sizes = st.integers(1, 7)
keys = st.builds(Key, st.integers(0, 2**32))
in_shapes = st.lists(sizes, min_size=1, max_size=3).map(tuple)
dense_layers = st.builds(Dense, sizes, bias_init=st.sampled_from([None, zeros, normal(0.5)]))
steps: st.SearchStrategy[Layer[Any, Any]] = st.one_of(dense_layers, st.just(Tanh), st.just(Sigmoid))
networks = st.recursive(
    st.lists(steps, max_size=4).map(lambda layers: serial(*layers)),
    lambda inner: st.lists(st.one_of(steps, inner), max_size=3).map(lambda layers: serial(*layers)),
    max_leaves=4,
)


@given(dense_layers, in_shapes, st.integers(1, 6), keys)
def test_dense_layers(dense: Layer[Any, Any], in_shape: tuple[int, ...], batch: int, key: Key) -> None:
    assert check_layer(dense, in_shape, batch=batch, key=key) < 1e-7


@given(networks, in_shapes, st.integers(1, 6), keys)
def test_networks(network: Layer[Any, Any], in_shape: tuple[int, ...], batch: int, key: Key) -> None:
    assert check_layer(network, in_shape, batch=batch, key=key) < 1e-7


@pytest.mark.slow
@settings(max_examples=300)
@given(networks, in_shapes, st.integers(1, 6), keys)
def test_many_networks(network: Layer[Any, Any], in_shape: tuple[int, ...], batch: int, key: Key) -> None:
    assert check_layer(network, in_shape, batch=batch, key=key) < 1e-7
