"""Numbers that change from call to call are marked: an update can be followed without knowing their values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, get_ident
from typing import Any

import numpy as np
import pytest

from fnn import recordable, tree
from fnn.losses import (
    hinge,
    kl_divergence,
    poisson_nll,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from fnn.optimizers import apply_updates
from fnn.recordable import live, unexpected
from fnn.schedules import cosine
from tests.test_optimizers import ROWS, Row, advance, begin, bowl, same_bits


class Number:
    """A number whose value only NumPy's functions and arithmetic get to see; asked for it openly, it refuses."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*map(plain, inputs), **options)

    def refuse(self, *args: Any) -> Any:
        """What no recorder can follow."""
        raise TypeError("the value of a number that changes was asked for")

    __bool__ = __float__ = __int__ = __index__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = refuse


def plain(a: Any) -> Any:
    return a.value if isinstance(a, Number) else a


def arithmetic(f: Callable[[Any, Any], Any], swapped: bool) -> Callable[[Number, Any], Any]:
    def method(self: Number, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        pair = (plain(other), self.value) if swapped else (self.value, plain(other))
        return Number(f(*pair))

    return method


for name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(Number, f"__{name}__", arithmetic(getattr(operator, name), False))
    setattr(Number, f"__r{name}__", arithmetic(getattr(operator, name), True))
setattr(Number, "__neg__", lambda self: Number(-self.value))


class Recorder:
    """Hides every live number and takes note of the guards."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self.called: list[str] = []
        self.guards: list[bool] = []

    def live(self, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self.called.append(getattr(f, "__name__", repr(f)))
        return Number(f(*map(plain, args)))

    def unexpected(self, condition: Any) -> bool:
        self.guards.append(bool(condition))
        return False


@contextmanager
def recording() -> Iterator[Recorder]:
    recordable._recorder = recorder = Recorder()
    try:
        yield recorder
    finally:
        recordable._recorder = None


# --- the two marks ---------------------------------------------------------------------------------------------------


def test_without_a_recorder_they_do_what_they_say() -> None:
    assert live(pow, 2, 5) == 32
    assert unexpected(np.array([1]).any()) is True and unexpected(np.bool_(False)) is False


def test_a_recorder_is_asked_on_its_own_thread_only() -> None:
    found: list[Any] = []
    with recording() as recorder:
        found.append(live(pow, 2, 5))
        assert not unexpected(True)
        other = Thread(target=lambda: found.extend([live(pow, 2, 5), unexpected(True)]))
        other.start()
        other.join()
    assert isinstance(found[0], Number) and found[0].value == 32 and found[1:] == [32, True]
    assert recorder.called == ["pow"] and recorder.guards == [True]


# --- optimizers ------------------------------------------------------------------------------------------------------

BRANCHING = {"swa", "lookahead", "accumulate", "plateau", "skip", "noise", "inject", "deep"}
"""What these do (or whether they do anything) depends on the step, on the loss or on the gradients."""

FOLLOWED = [row for row in ROWS if row.label not in BRANCHING]


def hidden(state: Any) -> Any:
    """A state whose numbers are hidden, the arrays as they are."""
    return tree.map(lambda a: a if isinstance(a, np.ndarray) else Number(a), state)


def shown(state: Any) -> Any:
    return tree.map(plain, state)


@pytest.mark.parametrize("row", FOLLOWED, ids=str)
def test_an_update_can_be_followed_without_the_values_of_its_numbers(row: Row) -> None:
    opt, params = row.make(cosine(0.1, steps=10)), begin()
    if row.label == "rprop":
        opt = row.make(0.1)
    state = opt.init(params)
    for _ in range(3):
        expected, after = advance(opt, bowl, params, state)
        with recording():
            updates, state = advance(opt, bowl, params, hidden(state))
        assert same_bits(updates, expected) and same_bits(shown(state), after)
        params, state = apply_updates(params, expected), after


def test_the_law_notices_a_number_that_is_not_marked() -> None:
    with recording(), pytest.raises(TypeError, match="asked for"):
        float(live(pow, 2, 5))


# --- guards ----------------------------------------------------------------------------------------------------------

GUARDED: list[tuple[str, Any, Any, Any]] = [
    ("softmax cross-entropy", softmax_cross_entropy(), np.zeros((2, 3)), np.array([0, 2])),
    ("ignoring", softmax_cross_entropy(ignore=-6), np.zeros((2, 3)), np.array([0, 1])),
    ("sigmoid cross-entropy", sigmoid_cross_entropy(), np.zeros((2, 3)), np.ones((2, 3))),
    ("divergence", kl_divergence, np.zeros((1, 2)), np.array([[0.5, 0.5]])),
    ("poisson", poisson_nll, np.zeros((1, 2)), np.array([[2.0, 3.0]])),
    ("hinge", hinge, np.zeros((1, 2)), np.array([[1.0, -1.0]])),
]


@pytest.mark.parametrize("loss, output, target", [row[1:] for row in GUARDED], ids=[row[0] for row in GUARDED])
def test_guards_on_targets_are_marked(loss: Any, output: Any, target: Any) -> None:
    bad = target.copy()
    bad.flat[0] -= 7
    with recording() as recorder:
        loss.forward(output, target)
        loss.forward(output, bad)
    assert recorder.guards and not recorder.guards[0] and True in recorder.guards
    with pytest.raises(ValueError):
        loss.forward(output, bad)
