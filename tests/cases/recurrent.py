"""Recurrent layers, their cells, and the combinators of recurrence."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from fnn.combinators import frozen, parallel, remat, serial, tap
from fnn.initializers import normal
from fnn.layers.dense import Dense
from fnn.layers.norm import BatchNorm
from fnn.layers.recurrent import GRU, LSTM, RNN, gru_cell, lstm_cell, rnn_cell
from fnn.layers.shape import Identity
from fnn.recurrence import Bidirectional, carried, scan, stack
from tests.case import BATCH, Case


def with_lengths(generator: Generator, shape: Any) -> Any:
    """`(x, lengths)` or `((x, lengths), carry)`: lengths from 1 to time, both among them."""
    if not isinstance(shape[0], tuple):
        return generator.standard_normal(shape)
    if isinstance(shape[0][0], tuple):
        return with_lengths(generator, shape[0]), normals(generator, shape[1])
    x = generator.standard_normal(shape[0])
    lengths = generator.integers(1, x.shape[1], size=shape[1], endpoint=True)
    lengths[0], lengths[1] = 1, x.shape[1]
    return x, lengths


def normals(generator: Generator, shape: Any) -> Any:
    """Standard normal arrays for a tree of shapes."""
    several = isinstance(shape[0], tuple)
    return tuple(normals(generator, part) for part in shape) if several else generator.standard_normal(shape)


X = (4, 3)  # time, in
WRONG = ((3,), (4, 3, 2), ())
WRONG_PAIR = ((4, 3), ((4, 3), (2,)), ((3,), (6,)), ((4, 3), ((6,), (6,), (6,))))

CASES: list[Case] = [
    Case(RNN(6), X, wrong=WRONG),
    Case(RNN(6, "relu", bias_init=normal(1.0)), X),
    Case(RNN(6, returns="last"), X, wrong=WRONG),
    Case(RNN(6, reverse=True), X),
    Case(RNN(6, reverse=True, returns="last"), X),
    Case(RNN(6, carry=True), (X, (6,)), wrong=WRONG_PAIR),
    Case(RNN(6, carry=True, returns="last", reverse=True), (X, (6,))),
    Case(RNN(6, lengths=True), (X, ()), with_lengths, wrong=(X, (X, (2,)), ((3,), ()))),
    Case(RNN(6, lengths=True, returns="last"), (X, ()), with_lengths),
    Case(RNN(6, lengths=True, reverse=True), (X, ()), with_lengths),
    Case(RNN(6, lengths=True, reverse=True, returns="last"), (X, ()), with_lengths),
    Case(RNN(6, lengths=True, carry=True), ((X, ()), (6,)), with_lengths, wrong=((X, ()), (X, (6,)))),
    Case(RNN(6), (1, 3), label="one step"),
    Case(RNN(6), (11, 1), label="narrow input"),
    Case(GRU(6), X, wrong=WRONG),
    Case(GRU(6, reset="before"), X),
    Case(GRU(6, returns="last"), X),
    Case(GRU(6, reverse=True), X),
    Case(GRU(6, carry=True), (X, (6,)), wrong=WRONG_PAIR),
    Case(GRU(6, reset="before", carry=True, reverse=True), (X, (6,))),
    Case(GRU(6, lengths=True), (X, ()), with_lengths),
    Case(GRU(6, lengths=True, carry=True, reverse=True), ((X, ()), (6,)), with_lengths),
    Case(GRU(6, reset="before", lengths=True, carry=True), ((X, ()), (6,)), with_lengths),
    Case(LSTM(6), X, wrong=WRONG),
    Case(LSTM(6, peepholes=True), X),
    Case(LSTM(6, projection=2), X),
    Case(LSTM(6, peepholes=True, projection=2), X),
    Case(LSTM(6, returns="last", reverse=True), X),
    Case(LSTM(6, carry=True), (X, ((6,), (6,))), wrong=(*WRONG_PAIR, (X, (6,)), (X, ((6,), (7,))))),
    Case(LSTM(6, peepholes=True, projection=2, carry=True, reverse=True), (X, ((2,), (6,)))),
    Case(LSTM(6, carry=True, returns="last"), (X, ((6,), (6,)))),
    Case(LSTM(6, lengths=True), (X, ()), with_lengths),
    Case(LSTM(6, lengths=True, carry=True), ((X, ()), ((6,), (6,))), with_lengths),
    Case(LSTM(6, projection=2, lengths=True, carry=True, reverse=True), ((X, ()), ((2,), (6,))), with_lengths),
    Case(LSTM(6, peepholes=True, lengths=True, carry=True), ((X, ()), ((6,), (6,))), with_lengths),
    Case(rnn_cell(6), ((3,), (6,)), wrong=((3,), (X, (6,)), ((3,), (5,)))),
    Case(rnn_cell(6, "relu"), ((3,), (6,))),
    Case(gru_cell(6), ((3,), (6,)), wrong=((3,), (X, (6,)), ((3,), (5,)))),
    Case(gru_cell(6, reset="before"), ((3,), (6,))),
    Case(lstm_cell(6), ((3,), ((6,), (6,))), wrong=((3,), ((3,), (6,)), (X, ((6,), (6,))))),
    Case(lstm_cell(6, peepholes=True), ((3,), ((6,), (6,)))),
    Case(lstm_cell(6, peepholes=True, projection=2), ((3,), ((2,), (6,)))),
    Case(scan(rnn_cell(6)), (X, (6,)), wrong=(X, ((4, 3, 2), (6,)), (X, (5,)), ((), (6,)))),
    Case(scan(lstm_cell(6), reverse=True), (X, ((6,), (6,)))),
    Case(scan(gru_cell(6), lengths=True), ((X, ()), (6,)), with_lengths),
    Case(scan(lstm_cell(6), lengths=True, reverse=True), ((X, ()), ((6,), (6,))), with_lengths),
    Case(scan(stack(lstm_cell(6), gru_cell(2))), (X, (((6,), (6,)), (2,)))),
    Case(
        stack(GRU(6, carry=True), RNN(2, carry=True)),
        (X, ((6,), (2,))),
        wrong=(X, (X, (6,)), (X, ((6,), (2,), (2,)))),
    ),
    Case(stack(frozen(GRU(6, carry=True)), RNN(2, carry=True)), (X, ((6,), (2,)))),
    Case(scan(stack(frozen(rnn_cell(6)), remat(gru_cell(2)))), (X, ((6,), (2,)))),
    Case(Bidirectional(frozen(GRU(6)), tap("back", GRU(2, reverse=True))), X),
    Case(serial(LSTM(6), GRU(2, returns="last"), Dense(1)), X),
    Case(Bidirectional(GRU(6), RNN(2, reverse=True)), X, wrong=WRONG),
    Case(Bidirectional(LSTM(6, returns="last"), LSTM(2, returns="last", reverse=True)), X),
    Case(Bidirectional(GRU(6, lengths=True), GRU(2, reverse=True, lengths=True)), (X, ()), with_lengths),
    Case(
        Bidirectional(GRU(6, carry=True), LSTM(2, reverse=True, carry=True), carry=True),
        (X, ((6,), ((2,), (2,)))),
        wrong=(X, (X, (6,)), (X, ((6,), (2,)))),
    ),
    Case(carried(GRU(6, carry=True), BATCH), X, wrong=WRONG),
    Case(carried(stack(frozen(LSTM(6, carry=True)), tap("top", RNN(2, carry=True))), BATCH), X),
    Case(
        carried(parallel(serial(Dense(2), BatchNorm()), Identity), BATCH, shape=(4,)),
        X,
        label="a carry of its own",
    ),
]
