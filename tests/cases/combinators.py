"""Rows of the combinators but `serial`, with two layers of the tests' own: one that draws, one with a running state."""

from __future__ import annotations

import numpy as np

from fnn.combinators import (
    SpectralNorm,
    WeightNorm,
    dag,
    fan_in_concat,
    fan_in_mul,
    fan_in_sum,
    fan_out,
    frozen,
    low_rank,
    mapped,
    named,
    parallel,
    remat,
    reparam,
    repeat,
    residual,
    serial,
    tap,
    tied,
)
from fnn.contract import Layer, Mode, Train, layer, no_params
from fnn.layers.activation import Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.embedding import Embedding
from fnn.layers.norm import BatchNorm
from fnn.types import EMPTY, Array, Ints, Params, Shape, ShapeError, State
from tests.case import Case

# --- a layer that draws: y = m x with m uniform in [0, 2) in training, m = 1 in evaluation ---------------------------


def noisy_forward(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, Array]:
    if isinstance(mode, Train):
        factor: Array = (2 * mode.key.generator().random(x.shape)).astype(x.dtype)
    else:
        factor = np.ones_like(x)
    return factor * x, state, factor


def noisy_vjp(params: Params, factor: Array, dy: Array) -> tuple[Params, Array]:
    return EMPTY, factor * dy


Noisy: Layer[Array, Array] = layer("Noisy", no_params, noisy_forward, noisy_vjp)


# --- a layer with a state: y = x - mean; in training the mean moves towards that of the batch ------------------------


def centred_forward(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, tuple[()]]:
    mean = state["mean"]
    if x.shape[1:] != mean.shape:
        raise ShapeError(f"Centred: expected input (batch, {', '.join(map(str, mean.shape))}), got {x.shape}")
    after = {"mean": 0.75 * mean + 0.25 * x.mean(0)} if isinstance(mode, Train) else state
    return x - mean, after, ()


def centred_vjp(params: Params, cache: tuple[()], dy: Array) -> tuple[Params, Array]:
    return EMPTY, dy


def centred_state(in_shape: Shape) -> State:
    return {"mean": np.zeros(in_shape, np.float32)}


Centred: Layer[Array, Array] = layer(
    "Centred", no_params, centred_forward, centred_vjp, init_state=centred_state, draws=False
)


# --- a parametrisation: a weight that is positive --------------------------------------------------------------------


def positive_expand(own: Params) -> Params:
    return {**own, "weight": np.exp(own["weight"])}


def positive_contract(own: Params, grads: Params) -> Params:
    return {**grads, "weight": grads["weight"] * np.exp(own["weight"])}


mlp = serial(Dense(6), Tanh, Dense(2))
normed = residual(serial(Dense(6), BatchNorm(), Dropout(0.25), Dense(3)))


def tokens(generator: np.random.Generator, shape: Shape) -> Ints:
    return generator.integers(11, size=shape)


def tokens_and_numbers(generator: np.random.Generator, shapes: tuple[Shape, Shape]) -> tuple[Ints, Array]:
    return tokens(generator, shapes[0]), generator.standard_normal(shapes[1])


WEIGHTS = {"dense_1/weight": "dense_0/weight"}

CASES: list[Case] = [
    Case(parallel(Dense(4)), ((3,),), wrong=((3,), ((3,), (3,)), ((6,),))),
    Case(parallel(Dense(4), Tanh, mlp), ((3,), (7,), (9,)), wrong=(((3,), (7,)), (3,), ((3,), (7,), (8,)))),
    Case(fan_out(1), (3,)),
    Case(fan_out(3), (4, 3)),
    Case(fan_in_sum, ((4, 3), (4, 3), (4, 3)), wrong=((3,), ((4, 3), (4, 2)), ((3,), (4, 3)))),
    Case(fan_in_sum, ((3,),)),
    Case(fan_in_mul, ((4, 3), (4, 3), (4, 3), (4, 3)), wrong=((3,), ((4, 3), (4, 2)), ((3,), (4, 3)))),
    Case(fan_in_mul, ((3,),)),
    Case(fan_in_mul, ((3,), (3,))),
    Case(fan_in_concat, ((4, 3), (4, 6), (4, 2)), wrong=((3,), ((4, 3), (2, 3)), ((3,), (4, 3)))),
    Case(serial(fan_out(2), parallel(Dense(4), mlp), fan_in_concat), (3,)),
    Case(residual(serial(Dense(6), Tanh, Dense(3))), (3,), wrong=((), (7,))),
    Case(residual(serial(Tanh, Dense(4)), Dense(4)), (3,), wrong=((), (7,))),
    Case(residual(serial(Noisy, Centred), Centred), (3,)),
    Case(repeat(serial(Dense(3), Tanh), 3), (3,), wrong=((), (7,))),
    Case(repeat(named("block", residual(serial(Dense(6), Noisy, Dense(3)))), 2), (3,)),
    Case(mapped(Dense(6)), (4, 3), wrong=((3,), (), (4, 2))),
    Case(mapped(serial(Dense(2), Centred, Noisy)), (7, 4, 3)),
    Case(remat(mlp), (3,), wrong=((), (7,))),
    Case(serial(remat(serial(Dense(6), Noisy, Centred)), remat(named("out", Dense(2)))), (3,)),
    Case(frozen(Dense(4)), (3,), wrong=((), (7,))),
    Case(serial(frozen(mlp), Tanh, Dense(4)), (3,)),
    Case(serial(Dense(4), frozen(serial(Dense(6), Sigmoid)), named("out", frozen(Dense(2)))), (3,)),
    Case(serial(serial(Dense(4), frozen(Dense(6))), frozen(serial(Dense(7)))), (3,)),
    Case(residual(frozen(serial(Tanh, Dense(4))), Dense(4)), (3,)),
    Case(frozen(serial(fan_out(2), parallel(Dense(4), residual(Dense(3))), fan_in_concat)), (3,)),
    Case(frozen(residual(Dense(4), mapped(Dense(4)))), (7, 3)),
    Case(frozen(WeightNorm(Dense(4))), (3,)),
    Case(tap("hidden", Dense(4)), (3,), wrong=((), (7,))),
    Case(serial(tap("hidden", named("first", serial(Dense(6), Tanh))), tap("both", fan_out(2)), fan_in_mul), (3,)),
    Case(remat(tap("hidden", mlp)), (3,)),
    Case(reparam(Dense(4), positive_expand, positive_contract), (3,), wrong=((), (7,))),
    Case(tied(serial(Dense(7), Tanh, Dense(3)), transposed={"dense_1/weight": "dense_0/weight"}), (3,), wrong=((4,),)),
    Case(tied(repeat(serial(Dense(3), Tanh), 3), {"serial_1": "serial_0", "serial_2": "serial_0"}), (3,)),
    Case(tied(serial(frozen(repeat(Dense(3), 2)), Dense(2)), {"repeat_0/dense_1": "repeat_0/dense_0"}), (3,)),
    Case(tied(serial(repeat(Dense(3), 2), Tanh, frozen(Dense(2))), {"repeat_0/dense_1": "repeat_0/dense_0"}), (3,)),
    Case(WeightNorm(Dense(4)), (7, 3), wrong=((), (7, 2))),
    Case(WeightNorm(serial(Dense(6), Centred, Dense(2, bias_init=None))), (3,)),
    Case(SpectralNorm(Dense(4)), (7, 3), wrong=((), (7, 2))),
    Case(serial(SpectralNorm(serial(Dense(6), Noisy, Centred, Dense(4)), iterations=3), Dense(2)), (3,)),
    Case(low_rank(Dense(4), 2), (7, 3), wrong=((), (7, 2))),
    Case(low_rank(serial(Dense(6), Centred, Dense(2)), 3, scale=0.5), (3,)),
    Case(dag(inputs="x", h=("x", Dense(4)), output="h"), (3,), wrong=((), (7,))),
    Case(
        dag(
            inputs=("x", "z"),
            a=(("x", "z"), serial(fan_in_concat, Dense(4))),
            b=(("a", "z"), serial(fan_in_concat, Dense(2))),
            output="b",
        ),
        ((3,), (7,)),
        label="a node with parameters, of inputs alone",
    ),
    Case(
        tied(serial(frozen(Dense(4, bias_init=None)), frozen(Dense(4, bias_init=None)), Dense(2)), WEIGHTS),
        (4,),
        label="tied and frozen, and nothing else there",
    ),
    Case(
        dag(
            inputs="x",
            h=("x", Dense(4)),
            noise=("h", Noisy),
            g=(("h", "noise", "h"), fan_in_mul),
            k=("x", serial(Dense(4), Centred)),
            y=(("k", "g", "h"), fan_in_sum),
            output="y",
        ),
        (3,),
    ),
    Case(
        dag(
            inputs=("x", "z"),
            a=("x", Dense(4)),
            b=("z", frozen(Dense(4))),
            sum=(("a", "b"), fan_in_sum),
            both=(("sum", "z"), fan_in_concat),
            output=("sum", "both", "x"),
        ),
        ((3,), (7,)),
        wrong=((3,), ((3,),), ((3,), (8,))),
    ),
    Case(serial(remat(normed), frozen(normed), repeat(low_rank(normed, 2), 2)), (3,)),
    Case(tied(serial(Embedding(11, 4), Dense(11)), transposed={"dense_0/weight": "embedding_0/weight"}), (7,), tokens),
    Case(
        dag(
            inputs=("ids", "x"),
            e=("ids", Embedding(11, 4)),
            h=("x", Dense(4)),
            y=(("e", "h"), fan_in_mul),
            output="y",
        ),
        ((7,), (7, 3)),
        tokens_and_numbers,
    ),
]
