"""Schedules: pure functions from the number of updates made so far to a rate, `int -> float`.

Wherever a rate is taken, a number or a schedule may be given. In the formulas t is that number, counted from 0.
`reduce_on_plateau`, which must see the loss, is an optimizer around another.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from fnn.check import above_zero, fraction, not_negative, positive
from fnn.recordable import live
from fnn.types import bind

Schedule: TypeAlias = Callable[[int], float]
"""From the number of updates made so far to a rate."""


def constant(value: float) -> Schedule:
    """Always `value`."""
    return bind(_constant, not_negative("constant", "value", value))


def _constant(value: float, step: int) -> float:
    return value


def as_schedule(who: str, rate: float | Schedule) -> Schedule:
    """A schedule, or the constant schedule of a number that is finite and not negative."""
    if callable(rate):
        return rate
    return bind(_constant, not_negative(who, "learning rate", rate))


def rate_at(schedule: Schedule, step: int) -> float:
    """The schedule's value as a Python float, marked as one that changes unless the schedule is a constant."""
    if getattr(schedule, "func", None) is _constant:
        return schedule(step)
    return live(_float, schedule, step)


def _float(schedule: Schedule, step: int) -> float:
    return float(schedule(step))


# --- falling ---------------------------------------------------------------------------------------------------------


def piecewise_constant(values: Sequence[float], *, boundaries: Sequence[int]) -> Schedule:
    """`values[i]` from the i-th boundary on: one value more than there are boundaries.

    >>> drops = piecewise_constant([0.1, 0.01], boundaries=[100])
    >>> drops(99), drops(100)
    (0.1, 0.01)
    """
    steps = _boundaries("piecewise_constant", boundaries, len(values) - 1, "values")
    levels = tuple(not_negative("piecewise_constant", "value", value) for value in values)
    return bind(_piecewise_constant, levels, steps)


def _piecewise_constant(values: tuple[float, ...], boundaries: tuple[int, ...], step: int) -> float:
    return values[bisect_right(boundaries, step)]


def linear(start: float, end: float, *, steps: int) -> Schedule:
    """A straight line from `start` to `end` over `steps` updates, then `end`."""
    return polynomial(start, end, steps=steps, power=1.0)


def polynomial(start: float, end: float = 0.0, *, steps: int, power: float) -> Schedule:
    """`end + (start - end) (1 - t / steps)**power`, then `end`."""
    return bind(
        _polynomial,
        not_negative("polynomial", "start", start),
        not_negative("polynomial", "end", end),
        positive("polynomial", "steps", steps),
        above_zero("polynomial", "power", power),
    )


def _polynomial(start: float, end: float, steps: int, power: float, step: int) -> float:
    return float(end + (start - end) * (1 - min(step, steps) / steps) ** power)


def exponential(start: float, *, factor: float, steps: int = 1, staircase: bool = False, end: float = 0.0) -> Schedule:
    """`start factor**(t / steps)`, but not below `end`; with `staircase` in jumps, the exponent rounded down."""
    above_zero("exponential", "factor", factor)
    if factor > 1:
        raise ValueError(f"exponential: expected factor of at most 1, got {factor!r}")
    rule = ExponentialRule(
        not_negative("exponential", "start", start),
        float(factor),
        positive("exponential", "steps", steps),
        staircase,
        not_negative("exponential", "end", end),
    )
    return bind(_exponential, rule)


class ExponentialRule(NamedTuple):
    """The constants of `exponential`."""

    start: float
    factor: float
    steps: int
    staircase: bool
    end: float


def _exponential(rule: ExponentialRule, step: int) -> float:
    power = step // rule.steps if rule.staircase else step / rule.steps
    return float(max(rule.end, rule.start * rule.factor**power))


def inverse_time(start: float, *, gamma: float, power: float = 1.0) -> Schedule:
    """`start (1 + gamma t)**-power`. Robbins & Monro 1951 ask for a power above 1/2 and at most 1."""
    return bind(
        _inverse_time,
        not_negative("inverse_time", "start", start),
        not_negative("inverse_time", "gamma", gamma),
        not_negative("inverse_time", "power", power),
    )


def _inverse_time(start: float, gamma: float, power: float, step: int) -> float:
    return float(start * (1 + gamma * step) ** -power)


def cosine(start: float, *, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from `start` to `end` over `steps` updates, then `end`.

    `end + (start - end) (1 + cos(pi t / steps)) / 2`. Loshchilov & Hutter 2017, eq. 5, without restarts.
    """
    return bind(
        _cosine,
        not_negative("cosine", "start", start),
        positive("cosine", "steps", steps),
        not_negative("cosine", "end", end),
    )


def _cosine(start: float, steps: int, end: float, step: int) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def cosine_restarts(start: float, *, steps: int, growth: int = 1, end: float = 0.0) -> Schedule:
    """Half a cosine from `start` to `end`, again and again; each is `growth` times as long as the one before.

    `end + (start - end) (1 + cos(pi s / n)) / 2`, s updates after a restart, n in the cycle: steps, growth steps, ...
    Loshchilov & Hutter 2017, eq. 5.
    """
    return bind(
        _cosine_restarts,
        not_negative("cosine_restarts", "start", start),
        positive("cosine_restarts", "steps", steps),
        positive("cosine_restarts", "growth", growth),
        not_negative("cosine_restarts", "end", end),
    )


def _cosine_restarts(start: float, steps: int, growth: int, end: float, step: int) -> float:
    if growth == 1:
        step %= steps
    while step >= steps:
        step, steps = step - steps, steps * growth
    return _cosine(start, steps, end, step)


# --- rising ----------------------------------------------------------------------------------------------------------


def one_cycle(peak: float, *, steps: int, rise: float = 0.3, first: float = 25.0, last: float = 1e4) -> Schedule:
    """Up from `peak / first` to `peak` and down to `peak / (first last)`, each by half a cosine, over `steps` updates.

    The peak is reached after `rise` of the steps (rounded down). Smith & Topin 2018; the form, with cosines, of fastai.
    optax's formula (PyTorch reaches both ends one step earlier).
    """
    n = positive("one_cycle", "steps", steps)
    top = int(fraction("one_cycle", "rise", rise) * n)
    if top < 1:
        raise ValueError(f"one_cycle: expected the rise to take a step at least, got rise={rise!r} of {n} steps")
    low = not_negative("one_cycle", "peak", peak) / above_zero("one_cycle", "first", first)
    end = low / above_zero("one_cycle", "last", last)
    up = bind(_cosine, low, top, float(peak))
    return bind(_join, (up, bind(_cosine, float(peak), n - top, end)), (top,))


def warmup(schedule: float | Schedule, *, steps: int) -> Schedule:
    """The schedule times `(t + 1) / steps` during the first `steps` updates: linear, never zero. Goyal et al. 2017."""
    return bind(_warmup, as_schedule("warmup", schedule), positive("warmup", "steps", steps))


def _warmup(schedule: Schedule, steps: int, step: int) -> float:
    return float(schedule(step)) * min(1.0, (step + 1) / steps)


# --- one after the other ---------------------------------------------------------------------------------------------


def join(schedules: Sequence[float | Schedule], *, boundaries: Sequence[int]) -> Schedule:
    """One schedule after the other: the i-th from the i-th boundary on, where it begins at its own step 0."""
    steps = _boundaries("join", boundaries, len(schedules) - 1, "schedules")
    return bind(_join, tuple(as_schedule("join", schedule) for schedule in schedules), steps)


def _join(schedules: tuple[Schedule, ...], boundaries: tuple[int, ...], step: int) -> float:
    at = bisect_right(boundaries, step)
    return float(schedules[at](step - boundaries[at - 1] if at else step))


def _boundaries(who: str, boundaries: Sequence[int], wanted: int, what: str) -> tuple[int, ...]:
    steps = tuple(positive(who, "each boundary", step) for step in boundaries)
    if any(b <= a for a, b in zip(steps, steps[1:])):
        raise ValueError(f"{who}: expected increasing boundaries, got {list(steps)}")
    if len(steps) != wanted:
        raise ValueError(f"{who}: expected one boundary fewer than {what}, got {wanted + 1} {what} and {len(steps)}")
    return steps
