"""Schedules: pure functions from the number of updates made so far to a rate, `int -> float`.

Wherever a rate is taken, a number or a schedule may be given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from fnn.types import bind

Schedule: TypeAlias = Callable[[int], float]
"""From the number of updates made so far to a rate."""


def constant(value: float) -> Schedule:
    """Always `value`."""
    return bind(_constant, _rate("constant", "value", value))


def _constant(value: float, step: int) -> float:
    return value


def cosine(start: float, *, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine from `start` to `end` over `steps` updates, then `end`.

    `end + (start - end) (1 + cos(pi t / steps)) / 2`. Loshchilov & Hutter 2017, eq. 5, without restarts.
    """
    return bind(
        _cosine, _rate("cosine", "start", start), _count("cosine", "steps", steps), _rate("cosine", "end", end)
    )


def _cosine(start: float, steps: int, end: float, step: int) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def warmup(schedule: float | Schedule, *, steps: int) -> Schedule:
    """The schedule times `(t + 1) / steps` during the first `steps` updates: linear, and never zero. Goyal et al. 2017."""
    return bind(_warmup, as_schedule("warmup", schedule), _count("warmup", "steps", steps))


def _warmup(schedule: Schedule, steps: int, step: int) -> float:
    return float(schedule(step)) * min(1.0, (step + 1) / steps)


def as_schedule(who: str, rate: float | Schedule) -> Schedule:
    """A schedule, or the constant schedule of a number that is finite and not negative."""
    if callable(rate):
        return rate
    return bind(_constant, _rate(who, "learning rate", rate))


def _rate(who: str, name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{who}: expected a finite {name} of at least 0, got {value!r}")
    return float(value)


def _count(who: str, name: str, value: int) -> int:
    if isinstance(value, (bool, float)) or value < 1:
        raise ValueError(f"{who}: expected {name} to be a positive integer, got {value!r}")
    return int(value)
