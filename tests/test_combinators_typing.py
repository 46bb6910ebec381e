"""Networks that a type-checker accepts, and wrong ones that it refuses: mypy runs over this file with the others, and
`warn_unused_ignores` makes a wrong network that is accepted an error. Nothing here needs to run.
"""

from __future__ import annotations

from typing import assert_type

from fnn.combinators import (
    dag,
    fan_in_concat,
    fan_in_mul,
    fan_in_sum,
    fan_out,
    frozen,
    mapped,
    parallel,
    remat,
    repeat,
    residual,
    serial,
    tap,
    tied,
)
from fnn.combinators.graph import Data
from fnn.contract import Layer
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.types import Array

Pair = tuple[Array, Array]


def good() -> None:
    assert_type(serial(fan_out(2), parallel(Dense(5), Tanh), fan_in_concat), Layer[Array, Array])
    assert_type(parallel(Dense(5), Tanh), Layer[Pair, Pair])
    assert_type(serial(parallel(Dense(5), Tanh), fan_in_mul), Layer[Pair, Array])
    assert_type(serial(fan_out(3), fan_in_sum), Layer[Array, Array])
    assert_type(serial(Dense(5), repeat(residual(Dense(5), Dense(5)), 3), fan_out(2)), Layer[Array, Pair])
    assert_type(tap("hidden", remat(frozen(parallel(Dense(5), Tanh)))), Layer[Pair, Pair])
    assert_type(tied(parallel(Dense(5), Dense(5)), {"dense_1": "dense_0"}), Layer[Pair, Pair])
    assert_type(mapped(Dense(5)), Layer[Array, Array])
    assert_type(dag(inputs="x", h=("x", Dense(5)), y=(("x", "h"), fan_in_sum), output="y"), Layer[Data, Array])
    assert_type(dag(inputs=("x", "z"), y=(("x", "z"), fan_in_sum), output="y"), Layer[tuple[Data, ...], Array])
    assert_type(dag(inputs="x", h=("x", Dense(5)), output=("h", "x")), Layer[Data, Pair])


def wrong() -> None:
    serial(fan_out(2), parallel(Dense(5), Tanh, Tanh))  # type: ignore[misc]
    serial(Dense(5), fan_in_sum)  # type: ignore[misc]
    serial(fan_out(2), Dense(5))  # type: ignore[misc]
    serial(parallel(Dense(5), Tanh), Tanh)  # type: ignore[misc]
    residual(fan_out(2))  # type: ignore[arg-type]
    residual(Dense(5), fan_in_sum)  # type: ignore[arg-type]
    repeat(fan_out(2), 3)  # type: ignore[misc]
    mapped(fan_in_sum)  # type: ignore[type-var]
    remat(Dense)  # type: ignore[arg-type]
    dag(inputs="x", y=("x", fan_in_sum), output="y")  # type: ignore[arg-type]
    dag(inputs="x", h=("x", Tanh), y=(("x", "h"), Dense(5)), output="y")  # type: ignore[arg-type]
    dag(inputs="x", y=Tanh, output="y")  # type: ignore[call-overload]


def test_the_good_networks_can_be_built() -> None:
    good()
