"""Schedules against their formulas, written out, and what bad arguments get."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from fnn import schedules as fs

T = range(60)

CASES: list[tuple[str, fs.Schedule, Callable[[int], float]]] = [
    ("constant", fs.constant(0.3), lambda t: 0.3),
    (
        "piecewise",
        fs.piecewise_constant([1.0, 0.1, 0.01], boundaries=[10, 20]),
        lambda t: 1.0 if t < 10 else 0.1 if t < 20 else 0.01,
    ),
    ("linear", fs.linear(1.0, 0.2, steps=40), lambda t: 1.0 - 0.8 * t / 40 if t < 40 else 0.2),
    ("linear up", fs.linear(0.0, 1.0, steps=10), lambda t: min(1.0, t / 10)),
    ("polynomial", fs.polynomial(2.0, 1.0, steps=30, power=2.0), lambda t: 1 + (1 - min(t, 30) / 30) ** 2),
    ("exponential", fs.exponential(0.5, factor=0.9, steps=5), lambda t: 0.5 * math.exp(math.log(0.9) * t / 5)),
    ("staircase", fs.exponential(1.0, factor=0.5, steps=7, staircase=True), lambda t: 1 / 2 ** (t // 7)),
    ("exponential to an end", fs.exponential(1.0, factor=0.5, end=0.1), lambda t: max(0.1, 2.0**-t)),
    ("inverse time", fs.inverse_time(0.1, gamma=1e-4, power=0.75), lambda t: 0.1 / (1 + 1e-4 * t) ** 0.75),
    ("cosine", fs.cosine(1.0, steps=30, end=0.5), lambda t: 0.5 + 0.5 * math.cos(math.pi * min(t, 30) / 60) ** 2),
    (
        "restarts",
        fs.cosine_restarts(1.0, steps=10),
        lambda t: math.cos(math.pi * (t % 10) / 20) ** 2,
    ),
    (
        "longer restarts",
        fs.cosine_restarts(1.0, steps=10, growth=2),
        lambda t: math.cos(math.pi * (t / 20 if t < 10 else (t - 10) / 40 if t < 30 else (t - 30) / 80)) ** 2,
    ),
    (
        "one cycle",
        fs.one_cycle(1.0, steps=40, rise=0.25, first=4.0, last=100.0),
        lambda t: 0.25 + 0.75 * math.sin(math.pi * t / 20) ** 2
        if t < 10
        else 0.0025 + 0.9975 * math.cos(math.pi * (min(t, 40) - 10) / 60) ** 2,
    ),
    ("warm-up", fs.warmup(0.3, steps=4), lambda t: 0.3 * min(1, (t + 1) / 4)),
    ("warm-up of any", fs.warmup(fs.inverse_time(1.0, gamma=1.0), steps=4), lambda t: min(1, (t + 1) / 4) / (1 + t)),
    (
        "join",
        fs.join([0.5, fs.linear(1.0, 0.0, steps=10), fs.constant(0.1)], boundaries=[5, 12]),
        lambda t: 0.5 if t < 5 else 1 - (t - 5) / 10 if t < 12 else 0.1,
    ),
]

by_name = pytest.mark.parametrize(("name", "schedule", "formula"), CASES, ids=[case[0] for case in CASES])


@by_name
def test_formula(name: str, schedule: fs.Schedule, formula: Callable[[int], float]) -> None:
    assert [schedule(t) for t in T] == pytest.approx([formula(t) for t in T], rel=1e-13, abs=1e-13)


@by_name
def test_a_float_without_memory_that_pickles(name: str, schedule: fs.Schedule, formula: Any) -> None:
    forwards = [schedule(t) for t in T]
    assert [schedule(t) for t in reversed(T)] == forwards[::-1]
    assert [pickle.loads(pickle.dumps(schedule))(t) for t in T] == forwards
    assert all(type(value) is float and value >= 0 for value in forwards)


def test_a_warm_up_never_begins_at_zero() -> None:
    assert fs.warmup(1.0, steps=1000)(0) == 0.001


def test_restarts_far_out() -> None:
    assert fs.cosine_restarts(1.0, steps=3)(3 * 10**12) == 1.0


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: fs.constant(-1.0), "value"),
    (lambda: fs.piecewise_constant([1.0, 0.1, 0.01], boundaries=[20, 10]), "increasing"),
    (lambda: fs.piecewise_constant([1.0, 0.1, 0.01], boundaries=[10, 10]), "increasing"),
    (lambda: fs.piecewise_constant([1.0, 0.1], boundaries=[10, 20]), "one boundary fewer"),
    (lambda: fs.piecewise_constant([1.0, 0.1], boundaries=[0]), "boundary"),
    (lambda: fs.linear(1.0, 0.1, steps=0), "steps"),
    (lambda: fs.polynomial(1.0, steps=5, power=0.0), "power"),
    (lambda: fs.exponential(1.0, factor=1.1), "factor"),
    (lambda: fs.exponential(1.0, factor=0.0), "factor"),
    (lambda: fs.inverse_time(1.0, gamma=-1.0), "gamma"),
    (lambda: fs.cosine(math.nan, steps=5), "start"),
    (lambda: fs.cosine(1.0, steps=2.5), "steps"),  # type: ignore[arg-type]
    (lambda: fs.cosine_restarts(1.0, steps=5, growth=0), "growth"),
    (lambda: fs.one_cycle(1.0, steps=2), "rise"),
    (lambda: fs.one_cycle(1.0, steps=20, rise=1.0), "rise"),
    (lambda: fs.one_cycle(1.0, steps=20, first=0.0), "first"),
    (lambda: fs.warmup(0.1, steps=0), "steps"),
    (lambda: fs.join([0.1, 0.2, 0.3], boundaries=[5, 4]), "increasing"),
    (lambda: fs.join([0.1, 0.2], boundaries=[]), "one boundary fewer"),
    (lambda: fs.join([0.1, -0.2], boundaries=[5]), "rate"),
]


@pytest.mark.parametrize("i", range(len(REFUSED)))
def test_bad_arguments_are_refused(i: int) -> None:
    make, what = REFUSED[i]
    with pytest.raises(ValueError, match=what):
        make()
