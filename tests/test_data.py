"""Data: a batch is a function of (data, key, step) alone, every epoch a permutation; preparation and IDX files."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import data as module
from fnn import tree
from fnn.data import batches, one_hot, read_idx, split
from fnn.random import Key

sizes = st.tuples(st.integers(1, 23), st.integers(1, 26))


def numbered(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Examples that carry their own number."""
    return np.arange(n * 2, dtype=np.float32).reshape(n, 2), np.arange(n)


# --- batches ---------------------------------------------------------------------------------------------------------


@given(sizes, st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_epoch_is_a_permutation(size: tuple[int, int], shuffle: bool, drop_last: bool, seed: int) -> None:
    n, b = size
    if drop_last and b > n:
        return
    data = batches(numbered(n), b, shuffle=shuffle, drop_last=drop_last)
    assert data.steps_per_epoch == (n // b if drop_last else -(-n // b))
    stream = data.stream(Key(seed))
    for epoch in range(3):
        parts = [next(stream) for _ in range(data.steps_per_epoch)]
        labels = np.concatenate([y for _, y in parts])
        assert [len(y) for _, y in parts[:-1]] == [b] * (len(parts) - 1)
        assert len(labels) == (n - n % b if drop_last else n) and len(set(labels.tolist())) == len(labels)
        assert np.array_equal(labels, data.order(Key(seed), epoch)[: len(labels)])
        assert all(np.array_equal(x[:, 0], 2 * y) for x, y in parts), "the arrays stay together"
        if not shuffle:
            assert labels.tolist() == list(range(len(labels)))


@given(sizes, st.integers(0, 40), st.booleans(), st.integers(1, 40))
def test_a_stream_from_a_step_is_the_stream_without_the_steps_before(
    size: tuple[int, int], start: int, shuffle: bool, block: int
) -> None:
    n, b = size
    data = batches(numbered(n), b, shuffle=shuffle)
    whole = list(islice(data.stream(Key(3)), start + 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        later = list(islice(data.stream(Key(3), start), 5))
    for (x, y), (x2, y2) in zip(whole[start:], later, strict=True):
        assert np.array_equal(x, x2) and np.array_equal(y, y2)
    assert np.array_equal(data.batch(Key(3), start)[1], whole[start][1])


def test_streams_are_independent_of_each_other() -> None:
    data = batches(numbered(11), 3)
    alone = [y.tolist() for _, y in islice(data.stream(Key(0)), 12)]
    a, b = data.stream(Key(0)), data.stream(Key(1))
    mixed = [(next(a)[1].tolist(), next(b)[1].tolist()) for _ in range(12)]
    assert [first for first, _ in mixed] == alone and [second for _, second in mixed] != alone


def test_epochs_and_keys_give_different_orders() -> None:
    data = batches(numbered(50), 10)
    orders = [data.order(Key(k), e).tolist() for k in range(3) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_the_order_has_a_fixed_domain_of_the_key() -> None:
    data = batches(numbered(20), 5)
    expected = Key(4).fold_in("order").fold_in(2).generator().permutation(20)
    assert np.array_equal(data.order(Key(4), 2), expected)


def test_every_order_is_equally_likely() -> None:
    data = batches(numbered(3), 3)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1200):
        order = tuple(data.order(Key(0), epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and max(abs(c - 200) for c in counts.values()) < 5 * np.sqrt(200)


def test_batches_are_read_only_and_the_data_stay_writeable() -> None:
    x, y = numbered(10)
    for shuffle in (True, False):
        for part in tree.leaves(batches((x, y), 4, shuffle=shuffle).batch(Key(0), 0)):
            with pytest.raises(ValueError, match="read-only"):
                part += 1
    assert x.flags.writeable and y.flags.writeable
    x.setflags(write=False)
    assert batches((x, y), 4).batch(Key(0), 0)[0].shape == (4, 2)


def test_any_tree_of_arrays() -> None:
    x, y = numbered(7)
    batch: Any = batches({"image": x, "sides": (y, None, x > 3)}, 3).batch(Key(0), 2)
    assert batch["image"].shape == (1, 2) and batch["sides"][0].shape == (1,) and batch["sides"][1] is None
    assert batch["sides"][2].dtype == bool
    alone = batches(x, 3).batch(Key(0), 2)
    assert isinstance(alone, np.ndarray) and np.array_equal(alone, batch["image"])


def test_arrays_keep_their_dtypes_and_may_be_views() -> None:
    y = np.arange(20)
    views: tuple[Any, ...] = y.astype(np.uint8)[::2], y.astype(np.float64)[::-2], np.asfortranarray(np.ones((10, 3, 2)))
    for part, view in zip(batches(views, 4).batch(Key(0), 0), views, strict=True):
        assert part.dtype == view.dtype and part.shape == (4, *view.shape[1:])


def test_examples_without_numbers() -> None:
    assert batches(np.zeros((5, 0), np.float32), 2).batch(Key(0), 0).shape == (2, 0)


X, Y = numbered(20)
BROKEN = X.copy()
BROKEN[3, 1] = np.nan
BROKEN[7, 0] = -np.inf


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: batches((X[:0], Y[:0]), 5), ValueError, "batches: expected at least one example, got arrays with"),
        (lambda: batches((), 5), ValueError, "batches: expected arrays, got nothing"),
        (lambda: batches(None, 5), ValueError, "batches: expected arrays, got nothing"),
        (lambda: batches((X, Y[:3]), 5), ValueError, "first axes of one length, got array 0: 20, array 1: 3"),
        (lambda: batches((X, {"a": np.array(3.0)}), 5), ValueError, "array 0: 20, array 1/a: no axis"),
        (lambda: batches((X, Y), 21, drop_last=True), ValueError, "size 21 is larger than the 20 examples.*no batch"),
        (lambda: batches((X, BROKEN), 5), ValueError, r"array 1: 2 numbers are NaN or infinite, .* index \[3, 1\]"),
        (lambda: batches((X.astype(object), Y), 5), TypeError, "array 0: expected numbers, got dtype object"),
        (lambda: batches((X, Y.astype(str)), 5), TypeError, "array 1: expected numbers, got dtype <U"),
        (lambda: batches((X, Y.astype("M8[s]")), 5), TypeError, "array 1: expected numbers, got dtype datetime64"),
        (lambda: batches((X, Y + 1j), 5), TypeError, "array 1: expected numbers, got dtype complex128"),
        (lambda: batches(([[1], [2, 3]], Y), 5), TypeError, "array 0: expected a NumPy array, got list; use np"),
        (lambda: batches([X, Y], 5), TypeError, "the array: expected a NumPy array, got list"),
        (lambda: batches((X, Y), 5).batch(Key(0), -1), ValueError, "expected the number of a step, 0 or more, got -1"),
    ],
)
def test_refusals(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("size", [0, -1, 2.0, float("nan"), "3", True, None])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(ValueError, match=f"batches: expected size to be a positive integer, got {size!r}"):
        batches((X, Y), size)


def test_a_size_larger_than_the_data_gives_one_short_batch() -> None:
    data = batches((X, Y), 100)
    assert data.steps_per_epoch == 1 and len(data.batch(Key(0), 0)[1]) == 20
    assert batches((X, Y), 20, drop_last=True).steps_per_epoch == 1


def test_repr_shows_no_arrays() -> None:
    assert repr(batches((X, Y), 5)) == "batches(<20 examples>, size=5, shuffle=True, drop_last=False)"


# --- preparation -----------------------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 9))
def test_split_parts_all_examples(n: int, fraction: float, seed: int) -> None:
    if round(n * fraction) in (0, n):
        with pytest.raises(ValueError, match="leaves one part empty"):
            split(numbered(n), fraction, Key(seed))
        return
    (x, y), (x2, y2) = split(numbered(n), fraction, Key(seed))
    assert len(y2) == round(n * fraction)
    assert sorted([*y.tolist(), *y2.tolist()]) == list(range(n))
    assert np.array_equal(x[:, 0], 2 * y) and np.array_equal(x2[:, 0], 2 * y2)
    assert np.array_equal(split(numbered(n), fraction, Key(seed))[0][1], y)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), "0.2", None])
def test_fractions_that_are_none(fraction: Any) -> None:
    with pytest.raises(ValueError, match="split: expected a fraction between 0 and 1"):
        split((X, Y), fraction, Key(0))


def test_other_refusals_of_split() -> None:
    wrong: Any = 0
    with pytest.raises(TypeError, match="split: expected a Key last"):
        split((X, Y), 0.5, wrong)
    with pytest.raises(TypeError, match="split: array 0: expected a NumPy array, got list"):
        split(([1, 2], Y[:2]), 0.5, Key(0))
    with pytest.raises(ValueError, match="split: expected arrays with first axes of one length"):
        split((X, Y[:3]), 0.5, Key(0))


def test_one_hot() -> None:
    rows = one_hot(np.array([2, 0, 1, 2]), 3)
    assert rows.dtype == np.float32 and rows.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert one_hot(np.zeros((2, 3), np.uint8), 4).shape == (2, 3, 4)
    assert one_hot(np.zeros(0, np.int64), 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("labels", "classes", "error", "words"),
    [
        ([0, 3], 3, ValueError, "one_hot: expected labels from 0 to 2, got 0 to 3"),
        ([-1, 0], 3, ValueError, "got -1 to 0"),
        ([0.0, 1.0], 3, TypeError, "one_hot: expected integer labels, got float64"),
        ([True], 3, TypeError, "got bool"),
        ([0], 0, ValueError, "one_hot: expected classes to be a positive integer"),
        ([0], 2.5, ValueError, "one_hot: expected classes to be a positive integer"),
    ],
)
def test_labels_that_are_none(labels: Any, classes: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        one_hot(labels, classes)


# --- IDX -------------------------------------------------------------------------------------------------------------

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(a: np.ndarray[Any, Any]) -> bytes:
    """The array in IDX format: two zeros, type, number of axes, sizes, numbers, all big-endian."""
    head = bytes([0, 0, CODES[a.dtype.str[1:]], a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape)
    return head + a.astype(a.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2), (0, 28, 28), ()])
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_come_back(tmp_path: Path, dtype: str, shape: tuple[int, ...], compressed: bool) -> None:
    a = np.asarray(Key(0).generator().standard_normal(shape) * 100).astype(dtype)
    path = tmp_path / "a-ubyte"
    path.write_bytes(gzip.compress(idx(a)) if compressed else idx(a))
    for given in (path, str(path)):
        found = read_idx(given)
        assert found.dtype == a.dtype and found.dtype.isnative and found.shape == shape and np.array_equal(found, a)
        assert found.flags.writeable


WHOLE = idx(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
PACKED = gzip.compress(WHOLE)


@pytest.mark.parametrize("n", range(len(WHOLE)))
def test_every_cut_of_an_idx_file_is_noticed(tmp_path: Path, n: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(WHOLE[:n])
    with pytest.raises(ValueError, match="not an IDX file|announces shape"):
        read_idx(path)


@pytest.mark.parametrize("n", range(2, len(PACKED)))
def test_every_cut_of_a_compressed_file_is_noticed(tmp_path: Path, n: int) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(PACKED[:n])
    with pytest.raises(ValueError, match="the compressed file is damaged"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file .it begins with nothing"),
        (b"\x89PNG\r\n", "not an IDX file .it begins with 89 50 4e 47"),
        (bytes([0, 0, 10, 1]) + bytes(8), "not an IDX file"),
        (WHOLE + b"\0", r"announces shape \(2, 3, 4\), 64 bytes, but has 65"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "announces shape"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "the compressed file is damaged"),
        (b"\x1f\x8b\x08" + b"garbage" * 9, "the compressed file is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_idx(path)
    assert "a file" in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")
