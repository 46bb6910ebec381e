"""Keys: paths never collide, equal keys give equal numbers everywhere, and deriving a key draws and hashes nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnn.random import Key, _encode

integers = st.one_of(st.integers(-5, 5), st.integers(), st.sampled_from([2**31, 2**32, 2**64, -(2**32), 2**200]))
texts = st.text(st.characters(), max_size=8)
parts = st.one_of(integers, texts)
paths = st.lists(parts, max_size=4).map(tuple)


def key_of(path: tuple[int | str, ...], seed: int = 0) -> Key:
    key = Key(seed)
    for part in path:
        key = key.fold_in(part)
    return key


def words_of(path: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(word for part in path for word in _encode(part))


@settings(max_examples=300)
@given(paths, paths)
def test_different_paths_have_different_words(a: tuple[int | str, ...], b: tuple[int | str, ...]) -> None:
    assert (words_of(a) == words_of(b)) == (a == b)
    assert all(0 <= word < 2**32 for word in words_of(a))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5, 1), (2**32 + 5,)),
        (("ab",), ("a", "b")),
        (("1",), (1,)),
        (("",), ()),
        ((0,), ()),
        ((0, 0), (0,)),
        (("a\0",), ("a",)),
        ((-1,), (1,)),
        ((-1,), (2**32 - 1,)),
        (("é",), ("e\u0301",)),
        ((0x61,), ("a",)),
        (("a", 1), (1, "a")),
        (("\ud800",), ("?",)),
    ],
)
def test_paths_that_look_alike_give_different_numbers(a: tuple[int | str, ...], b: tuple[int | str, ...]) -> None:
    assert words_of(a) != words_of(b)
    assert not np.array_equal(key_of(a).generator().random(4), key_of(b).generator().random(4))


def test_many_keys_give_many_different_numbers() -> None:
    keys = [Key(s).fold_in(n).fold_in(i) for s in (0, 1, 2**32) for n in ("step", "order") for i in range(300)]
    assert len({k.generator().bit_generator.random_raw() for k in keys}) == len(keys)


@given(paths, st.integers(0, 2**128 - 1))
def test_equal_keys_give_equal_numbers(path: tuple[int | str, ...], seed: int) -> None:
    a, b = key_of(path, seed), key_of(path, seed)
    assert a == b and hash(a) == hash(b)
    draw = a.generator().random(3)
    assert np.array_equal(draw, b.generator().random(3))
    assert np.array_equal(draw, a.generator().random(3)), "a key remembers nothing"


def test_the_order_of_the_path_matters() -> None:
    assert Key(0).fold_in("a").fold_in("b") != Key(0).fold_in("b").fold_in("a")


def test_every_bit_of_the_seed_matters() -> None:
    draws = {Key(1 << bit).generator().bit_generator.random_raw() for bit in range(128)}
    assert len(draws) == 128


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_numbers_are_the_same_in_every_process(hash_seed: str) -> None:
    program = (
        "from fnn.random import Key\n"
        "key = Key(7).fold_in('weight').fold_in(-3).fold_in('\\u00e9').fold_in(2**70)\n"
        "print(key.generator().bit_generator.random_raw(3).tolist())"
    )
    here = Key(7).fold_in("weight").fold_in(-3).fold_in("é").fold_in(2**70).generator().bit_generator.random_raw(3)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
    )
    assert done.stdout.strip() == str(here.tolist())


def test_the_stream_is_that_of_the_documented_construction() -> None:
    """What NumPy promises to keep, written out: PCG64 over a SeedSequence of kind, length and content of each part."""
    words = (0, 4, int.from_bytes(b"step", "little"), 1, 1, 9, 2, 5, 0, 1)
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=words))).random(5)
    assert np.array_equal(Key(3).fold_in("step").fold_in(9).fold_in(-(2**32)).generator().random(5), expected)


@pytest.mark.parametrize("seed", [-1, 2**128, 1.0, "0", None, True, np.float32(1), np.array([1, 2])])
def test_seeds_that_are_refused(seed: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"Key: expected a seed .* from 0 to 2\*\*128 - 1|only integer"):
        Key(seed)


def test_integers_of_numpy_are_integers() -> None:
    assert Key(np.int64(3)) == Key(3) and type(Key(np.uint8(3)).entropy) is int
    assert Key(0).fold_in(np.int64(-2)) == Key(0).fold_in(-2)
    assert type(Key(0).fold_in(np.int64(2)).path[0]) is int


@pytest.mark.parametrize("part", [1.5, None, b"a", (1,), np.float64(2)])
def test_parts_that_are_refused(part: Any) -> None:
    with pytest.raises(TypeError, match="Key.fold_in: expected a name or an integer"):
        Key(0).fold_in(part)


def test_fold_in_hashes_nothing_and_needs_no_generator() -> None:
    program = (
        "import sys\nfrom fnn.random import Key\nkey = Key(0).fold_in('a').fold_in(1)\n"
        "print('numpy.random' in sys.modules)\nkey.generator()\nprint('numpy.random' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_key_is_a_value() -> None:
    key = Key(5).fold_in("a")
    assert pickle.loads(pickle.dumps(key)) == key
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        key.entropy = 3  # type: ignore[misc]
    assert key.path == ("a",) and key.fold_in(1).path == ("a", 1) and key.path == ("a",)


def test_streams_of_siblings_are_uncorrelated() -> None:
    draws = np.stack([Key(0).fold_in("layer").fold_in(i).generator().standard_normal(4000) for i in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
