"""What a recording may miss: each row was once replayed with other numbers, in silence."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from fnn.compile import compiled
from fnn.random import Key
from fnn.recordable import live
from tests.test_compile import assert_same


def some(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


TABLE = np.array([1.0, 6.0], np.float32)


class Row(NamedTuple):
    """A function, what it is called with in turn, and why it is not replayed, if it is not."""

    label: str
    f: Callable[..., Any]
    calls: list[tuple[Any, ...]]
    reason: str = ""


def arrays(*shape: int, dtype: Any = np.float32) -> list[tuple[Any, ...]]:
    return [(some(*shape, seed=seed, dtype=dtype),) for seed in range(4)]


def with_numbers(shape: tuple[int, ...], *numbers: Any) -> list[tuple[Any, ...]]:
    return [(some(*shape, seed=seed), n) for seed, n in enumerate(numbers)]


# --- places and shapes that are computed -----------------------------------------------------------------------------


def shaped_by_number(x: Any, n: Any) -> Any:
    return x.reshape(n, -1) * 2


def split_by_number(x: Any, n: Any) -> Any:
    return np.split(x, n)[0] * 2


def split_by_array(x: Any, places: Any) -> Any:
    return [part.sum() for part in np.split(x, places)]


def highest_row(x: Any) -> Any:
    return x[x.sum(axis=1).argmax()] * 2


def highest_number(x: Any) -> Any:
    return x[x.argmax()] * 2


def counts(x: Any) -> Any:
    return np.bincount(x) * 2


def repeated(x: Any, n: Any) -> Any:
    return np.repeat(x, n) * 2


def drawn_from(key: Key, n: int) -> Any:
    return key.generator().normal(size=n)


def named(key: Key, n: int) -> Any:
    return key.fold_in(f"step {n}").generator().random(3)


PLACES = [
    Row("reshape", shaped_by_number, with_numbers((12,), 3, 4, 6), "decides which part"),
    Row("split", split_by_number, with_numbers((12,), 3, 4, 6), "decides which part"),
    Row("split at", split_by_array, [(some(12), np.array([k])) for k in (3, 4, 6)], "decides which part"),
    Row("row", highest_row, arrays(5, 4), "decides which part"),
    Row("number", highest_number, arrays(5)),
    Row("bincount", counts, [(np.array(a),) for a in ([0, 2, 1], [0, 0, 0], [1, 1, 1])], "a condition"),
    Row("repeat", repeated, with_numbers((1,), 3, 1, 2), "size of the result"),
    Row("draws", drawn_from, [(Key(0), 3), (Key(0), 1), (Key(1), 3)], "a condition"),
    Row("names", named, [(Key(0), 1), (Key(0), 2)], "decides something"),
]


# --- writing ---------------------------------------------------------------------------------------------------------


def divided_in_place(x: Any) -> Any:
    y = x * 1
    part = y[:2]
    y //= 0.5
    y %= 3.0
    return part * 1, y


def multiplied_in_place(x: Any) -> Any:
    y = x * 1
    part = y[:2]
    y @= x
    return part * 1, y


def cleaned_in_place(x: Any) -> Any:
    y = np.abs(x) / 0
    np.nan_to_num(y, copy=False)
    return y


def shuffled(key: Key, x: Any) -> Any:
    y = x * 1
    key.generator().shuffle(y)
    return y


def put_twice(x: Any) -> Any:
    """Two arrays for one place; the first is used when the second is there already."""
    whole, first = np.empty(4, np.float32), np.tanh(x)
    whole[...] = first
    second = np.exp(x)
    third = first * 2
    whole[...] = second
    return whole, third


def part_of_argument(x: Any) -> Any:
    part, whole = x[1:3], np.empty(4, np.float32)
    whole[...] = x
    whole *= 2
    return part, whole


def carried_backwards(state: Any) -> Any:
    vector = np.concatenate([state[::-1], state]) * np.float32(0.9)
    return vector[::-2]


def turned_by_einsum(x: Any) -> Any:
    product = x @ x.T
    np.einsum("ij->ji", product)[...] = 7.0
    return product * 1, np.einsum("ij->ji", x)


def silent(x: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, np.log(x), 0.0)


WRITING = [
    Row("a view by einsum", turned_by_einsum, [(some(3, 2, seed=i) * np.float32(-(i != 2)),) for i in range(4)]),
    Row("errstate within", silent, arrays(5)),
    Row("//= and %=", divided_in_place, arrays(4)),
    Row("@=", multiplied_in_place, arrays(4, 4), "imatmul"),
    Row("nan_to_num", cleaned_in_place, arrays(3), "copy=False"),
    Row("shuffle", shuffled, [(Key(i), some(6)) for i in range(3)], "writes to an array"),
    Row("one place for two", put_twice, arrays(4)),
    Row("a part of an argument", part_of_argument, arrays(4)),
    Row("carried backwards", carried_backwards, [(some(4, seed=seed)[::-2].repeat(2)[::-1],) for seed in range(3)]),
]


# --- kinds of numbers ------------------------------------------------------------------------------------------------


def root_of_number(x: Any, n: Any) -> Any:
    return x * np.sqrt(n, dtype=np.float32)


def sums(x: Any) -> Any:
    return np.sum(x, 0, None, None, True), x.sum(0, None, None, True), x.max(0, None, True)


def double_power(x: Any) -> Any:
    return np.float_power(np.abs(x), 0.1)


def double_power_of(x: Any, n: Any) -> Any:
    return np.float_power(np.abs(x), n)


def scaled(x: Any) -> Any:
    return np.ldexp(x, 3)


def as_integers(x: Any) -> Any:
    return x.view(np.int32) + 1, x.view(np.int32)


def moments(x: Any) -> Any:
    return x.mean(), x.mean(axis=0), x.var(), x.std(axis=0)


def of_a_number(x: Any) -> Any:
    return x.sum().astype(np.float64), x.sum().reshape(1), x.sum().T, x.sum().mean()


def root_of_zero(x: Any) -> Any:
    return (-0.0 * abs(x[0])) ** 0.5, 2 ** x[1], x[1] ** x[2]


def list_of_numbers(x: Any, n: Any) -> Any:
    return np.asarray([n, 2 * n]).sum(), x


def rate(step: int) -> Any:
    return 1 if step == 0 else np.float64(0.5) if step == 2 else 0.5


def scheduled(x: Any, step: Any) -> Any:
    return x * live(rate, step)


def powers(x: Any, n: Any) -> Any:
    return 2**n, x


def sum_of_products(x: Any) -> Any:
    return np.einsum("ij,jk->ik", x.T, x)


def squares_elsewhere(x: Any) -> Any:
    """The product of an array and its own transpose has other bits than that of two equal arrays."""
    copy, y = np.empty_like(x), np.tanh(x)
    copy[...] = y
    return y @ copy.T


def perhaps_squares(x: Any, y: Any) -> Any:
    return x * 2, x @ y.T


NUMBERS = [
    Row("dtype=", root_of_number, with_numbers((3,), 2.0, 3.0, 4.0)),
    Row("keepdims by place", sums, arrays(3, 4)),
    Row("float_power", double_power, arrays(5)),
    Row("float_power of a number", double_power_of, with_numbers((5,), 0.1, 0.2, 0.3)),
    Row("ldexp", scaled, arrays(5)),
    Row("view", as_integers, arrays(3, 4)),
    Row("float16", moments, arrays(60, 4, dtype=np.float16)),
    Row("methods of numbers", of_a_number, arrays(5)),
    Row("powers of numbers", root_of_zero, arrays(3)),
    Row("a list of numbers", list_of_numbers, with_numbers((3,), 1.0, 2.0), "decides something"),
    Row("rates", scheduled, with_numbers((3,), 1, 0, 2, 1, 2), "a condition"),
    Row("powers", powers, with_numbers((3,), 1, 2, -1, 3), "a condition"),
    Row("einsum", sum_of_products, [(some(17, 20, seed=seed)[::-1],) for seed in range(4)]),
    Row("product with a copy", squares_elsewhere, arrays(17, 20)),
    Row("product with itself", perhaps_squares, [(x, x) for (x,) in arrays(17, 20)]),
]


# --- what goes on in between -----------------------------------------------------------------------------------------


def caught(x: Any) -> Any:
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return x * 2


def swallowed(x: Any) -> Any:
    try:
        n = float(x[0])
    except Exception:
        n = 0.0
    return x * n


def infinite(x: Any, n: Any) -> Any:
    counts = np.zeros(3, np.int64)
    counts[1] = n
    return counts * x


def raising(x: Any) -> Any:
    with np.errstate(invalid="raise"):
        try:
            y = np.log(x)
        except FloatingPointError:
            y = x * 0
    return y + 1


def changed_below(x: Any) -> Any:
    table = np.arange(4, dtype=np.float32)
    rows = np.broadcast_to(table, (3, 4))
    first = x * rows
    table += 1
    return first, x * rows


def changed_and_back(x: Any) -> Any:
    table = np.arange(4, dtype=np.float32)
    first = x * table
    table += 1
    second = x * table
    table -= 1
    return first, second


def text(x: Any) -> Any:
    return {f"{x}": x * 2}


class Rate:
    value = 1.0


def by_object(x: Any, rate: Rate) -> Any:
    rate.value *= 0.5
    return x * rate.value


class Pair(tuple[Any, ...]):
    pass


def of_pair(pair: Pair) -> Any:
    return pair[0] * 2


BETWEEN = [
    Row("caught", caught, [(k * np.eye(3),) for k in (-1, 4, 9)], "LinAlgError"),
    Row("swallowed", swallowed, arrays(3), "contents"),
    Row("errstate", raising, [(k * np.ones(3),) for k in (1, 2, -1)], "errstate"),
    Row("changed below", changed_below, arrays(3, 4), "changed"),
    Row("changed and back", changed_and_back, arrays(3, 4), "changed"),
    Row("text", text, arrays(3), "text"),
    Row("a part of a constant", lambda x: np.maximum(x, TABLE[1, ...]), arrays(3, 4)),
    Row("parts of a constant", lambda x: (x[0] * TABLE[:1], x[1] * TABLE[1:]), arrays(2, 4)),
    Row("a tuple of another class", of_pair, [(Pair((some(3, 2),)),)] * 2, "Pair"),
    Row("a result of another class of tuples", lambda x: Pair((x * 2,)), arrays(3, 2), "Pair"),
]

ROWS = [*PLACES, *WRITING, *NUMBERS, *BETWEEN]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_the_numbers_are_those_of_the_function(row: Row) -> None:
    replayed = compiled(row.f)
    given = [replayed(*args) for args in row.calls]
    for args, result in zip(row.calls, given):
        assert_same(row.f(*args), result)
    if row.reason:
        assert row.reason in replayed.reasons[0]
    else:
        assert not replayed.reasons


@pytest.mark.parametrize(
    "draw",
    [
        lambda g, x: g.random(x.shape),
        lambda g, x: g.normal(size=x.shape),
        lambda g, x: g.integers(1000, size=4),
        lambda g, x: g.normal(),
        lambda g, x: g.permutation(1000)[:4],
        lambda g, x: np.random.rand(4),
    ],
)
def test_draws_of_a_generator_that_is_no_keys_are_not_frozen(draw: Any) -> None:
    g = np.random.default_rng(0)
    replayed = compiled(lambda x: x * draw(g, x))
    found = [replayed(some(3, 4)).tobytes() for _ in range(6)]
    assert len(set(found)) == 6 and "something else" in replayed.reasons[0] and not replayed.plans


def test_a_generator_of_its_own_draws_the_same_again() -> None:
    def f(x: Any) -> Any:
        return x * (np.random.default_rng(3).random(x.shape) < 0.5)

    replayed = compiled(f)
    for seed in range(3):
        assert_same(f(some(3, 4, seed=seed)), replayed(some(3, 4, seed=seed)))
    assert np.random.default_rng(0).random(2).dtype == np.float64


def rounded(x: Any) -> Any:
    counts = np.zeros(3, np.int64)
    counts[1] = x.sum()
    return counts


def test_what_cannot_be_assigned_raises() -> None:
    replayed = compiled(infinite)
    for _ in range(2):
        with pytest.raises(OverflowError):
            replayed(some(3), float("inf"))
    other = compiled(rounded)
    assert_same(rounded(10 * some(5)), other(10 * some(5)))
    with pytest.raises(ValueError, match="NaN"):
        other(np.nan * some(5))


def wasted(x: Any, index: Any) -> Any:
    x.take(index)
    return x * 2


def test_what_raises_is_done_even_if_nothing_comes_of_it() -> None:
    replayed = compiled(wasted)
    for index in ([0], [2]):
        assert_same(2 * some(3), replayed(some(3), np.array(index)))
    with pytest.raises(IndexError):
        replayed(some(3), np.array([3]))


def test_an_object_that_changes_is_no_argument() -> None:
    replayed, x = compiled(by_object), some(3)
    first, second = Rate(), Rate()
    for _ in range(3):
        assert_same(by_object(x, first), replayed(x, second))
    assert "Rate" in replayed.reasons[0]


def test_a_constant_that_was_given_may_be_changed() -> None:
    def f(x: Any) -> Any:
        table = np.arange(3, dtype=np.float32)
        return x * table, table

    replayed = compiled(f)
    for (x,) in arrays(3):
        given = replayed(x)
        assert_same(f(x), given)
        given[1][...] = 7


@pytest.mark.parametrize("use", [lambda t, x: t * x, lambda t, x: x @ t, lambda t, x: t[x.argsort() % 4]])
def test_a_cache_may_keep_what_was_made_while_recording(use: Callable[[Any, Any], Any]) -> None:
    def table() -> Any:
        new = np.zeros(4, np.float32)
        new[1] = 2
        return new

    cached = cache(table)
    replayed = compiled(lambda x: use(cached(), x))
    for n in (2, 3, 2, 3, 5):
        for (x,) in arrays(n, 4):
            assert_same(use(table(), x), replayed(x))


def test_results_lie_in_memory_as_those_of_the_function() -> None:
    def f(x: Any) -> Any:
        y = np.tanh(x)
        return y[::-1], y[:, 1:], y.T, np.broadcast_to(y, (2, 3, 4)), y[::2, ::-2]

    replayed = compiled(f)
    for (x,) in arrays(3, 4):
        assert [a.strides for a in f(x)] == [a.strides for a in replayed(x)]


def test_one_within_another() -> None:
    inner = compiled(scaled)
    outer = compiled(lambda x: inner(x) + inner(np.ones(3, np.float32)))
    for (x,) in arrays(3):
        assert_same(scaled(x) + scaled(np.ones(3, np.float32)), outer(x))
    assert not outer.reasons and not inner.reasons


def test_one_within_itself() -> None:
    def f(x: Any) -> Any:
        return x * 1 if len(x) < 2 else x + replayed(np.ones(len(x) - 1, np.float32)).sum()

    replayed = compiled(f)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(replayed(np.ones(4, np.float32))), daemon=True)
    thread.start()
    thread.join(20)
    assert found and found[0][0] == 16


def test_pickled_it_makes_its_plans_anew() -> None:
    replayed = compiled(highest_number)
    replayed(some(5))
    other = pickle.loads(pickle.dumps(replayed))
    assert_same(replayed(some(5)), other(some(5)))
    assert len(other.plans) == 1


def test_nothing_is_held_but_plans() -> None:
    """Arguments are not kept, and plans go with the function, without waiting for the garbage collector."""

    def f(state: Any, x: Any, y: Any) -> Any:
        return {"w": state["w"] * 2}, x, y[1:3]

    replayed = compiled(f)
    arguments = {"w": some(9)}, some(5), some(6)
    held = [weakref.ref(arguments[0]["w"]), weakref.ref(arguments[1]), weakref.ref(arguments[2])]
    gc.disable()
    try:
        replayed(*arguments)
        plan = weakref.ref(replayed.plans[0])
        del arguments
        assert all(reference() is None for reference in held)
        del replayed
        assert plan() is None
    finally:
        gc.enable()


def test_a_way_that_cannot_be_recorded_is_tried_once() -> None:
    recorded = []

    def f(x: Any, n: int) -> Any:
        recorded.append(type(x) is not np.ndarray)
        return x * 2 if n < 2 else x * float(x[0])

    replayed = compiled(f)
    for n in (0, 1, 2, 3, 4, 0):
        assert_same(f(some(3), n), replayed(some(3), n))
    assert sum(recorded) == 2 and len(replayed.reasons) == 1


def test_forms_that_never_come_again_are_forgotten() -> None:
    replayed = compiled(scaled, after=1)
    for n in range(1, 600):
        replayed(np.ones(n, np.float32))
    assert len(replayed._seen) < 300


def synchronised(state: Any, x: Any, n: int) -> Any:
    """The target network of a learner is set to the online one now and then."""
    online = state["online"] * np.float32(0.9) + x
    return {"online": online, "target": online[:] if n % 3 == 0 else state["target"]}


def overlapping(state: Any, x: Any, n: int) -> Any:
    whole = np.concatenate([state["online"], state["target"]]) + x.sum()
    return {"online": whole[:4], "target": whole[2:6]}


@pytest.mark.parametrize("step", [synchronised, overlapping])
def test_results_that_lie_in_each_other_do_not_lie_so_as_arguments(step: Callable[..., Any]) -> None:
    replayed = compiled(step)
    plain = other = {"online": some(4), "target": some(4, seed=1)}
    for n in range(1, 12):
        if n == 7:
            plain = other = {"online": some(4, seed=2), "target": some(4, seed=3)}
        plain, other = step(plain, some(4, seed=n), n), replayed(other, some(4, seed=n), n)
        assert_same(plain, other)
    assert not replayed.reasons


@pytest.mark.filterwarnings("error")
def test_words_and_what_is_not_said_give_no_warnings() -> None:
    def f(x: Any, how: str) -> Any:
        return silent(x) * (2 if how == "twice" else 3)

    replayed = compiled(f)
    for how in ("twice", "thrice", "twice", "thrice"):
        assert_same(f(some(5), how), replayed(some(5), how))
    assert not replayed.reasons and len(replayed.plans) == 2


def test_an_interrupt_while_a_recording_begins_or_ends_leaves_the_next_ones_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fnn.compile import namespace

    for name in ("enter", "leave"):
        for k in range(1, 12):
            made = getattr(namespace.Namespace, name)

            def interrupted(self: Any, who: Any, lines: int = k, made: Any = made) -> None:
                left = [lines]

                def trace(frame: Any, event: str, arg: Any) -> Any:
                    if frame.f_code is made.__code__ and event == "line":
                        left[0] -= 1
                        if not left[0]:
                            raise KeyboardInterrupt
                    return trace

                before = sys.gettrace()
                sys.settrace(trace)
                try:
                    made(self, who)
                finally:
                    sys.settrace(before)

            with monkeypatch.context() as patch:
                patch.setattr(namespace.Namespace, name, interrupted)
                try:
                    compiled(scaled)(some(3))
                except KeyboardInterrupt:
                    pass
            replayed = compiled(made_by_empty)
            for seed in range(3):
                assert_same(made_by_empty(some(3, seed=seed)), replayed(some(3, seed=seed)))
            assert not replayed.reasons and not namespace.NAMESPACE.recording
            assert np.empty is namespace._numpy["empty"]


def made_by_empty(x: Any) -> Any:
    out = np.empty(x.shape, x.dtype)
    np.multiply(x, 2, out=out)
    return out
