"""Data: what the batches of every epoch are, as a pure description, and the small functions that prepare arrays.

The batch of step s is a function of `(data, key, s)` alone, so training can resume anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs
import numpy as np

from fnn import tree
from fnn.check import positive
from fnn.random import Key
from fnn.types import Array, Ints, NDArray, Shape

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)


class Data(Protocol[D_co]):
    """What `train` takes as data: `batches(...)`, or anything else of this form."""

    @property
    def steps_per_epoch(self) -> int: ...

    def stream(self, key: Key, start: int = 0) -> Iterator[D_co]:
        """The batches of the steps `start`, `start + 1`, ... without end."""
        ...


# --- batches ---------------------------------------------------------------------------------------------------------

BLOCK = 1 << 18
"""Small batches are gathered several at a time, up to about this many numbers."""


@attrs.frozen(eq=False, repr=False)
class Batches(Generic[D_co]):
    """A description of the batches of every epoch; `batches` makes one."""

    arrays: D_co
    size: int
    shuffle: bool
    drop_last: bool
    examples: int

    @property
    def steps_per_epoch(self) -> int:
        """How many batches make an epoch."""
        return self.examples // self.size if self.drop_last else -(-self.examples // self.size)

    def order(self, key: Key, epoch: int) -> Ints:
        """The order in which the epoch takes the examples: a permutation drawn from `key`, "order" and the epoch."""
        if not self.shuffle:
            return np.arange(self.examples)
        return key.fold_in("order").fold_in(epoch).generator().permutation(self.examples)

    def batch(self, key: Key, step: int) -> D_co:
        """The batch of one step."""
        return next(self.stream(key, step))

    def stream(self, key: Key, start: int = 0) -> Iterator[D_co]:
        """The batches of the steps `start`, `start + 1`, ... without end; only the order of one epoch is kept."""
        if start < 0:
            raise ValueError(f"batches: expected the number of a step, 0 or more, got {start}")
        epoch, first = divmod(start, self.steps_per_epoch)
        while True:
            yield from self._epoch(key, epoch, first)
            epoch, first = epoch + 1, 0

    def _epoch(self, key: Key, epoch: int, first: int) -> Iterator[D_co]:
        order = self.order(key, epoch)
        several = max(1, BLOCK // max(1, self.size * tree.size(self.arrays) // self.examples))
        for start in range(first, self.steps_per_epoch, several):
            stop = min(start + several, self.steps_per_epoch)
            rows = order[start * self.size : stop * self.size]
            block = tree.map(lambda a: _taken(a, rows, self.shuffle), self.arrays)
            for i in range(0, len(rows), self.size):
                yield tree.map(lambda a: a[i : i + self.size], block)

    if not TYPE_CHECKING:

        def __iter__(self) -> Iterator[D_co]:
            raise TypeError("'Batches' object is not iterable: its stream(key) is, and has no end")

    def __repr__(self) -> str:
        return (
            f"batches(<{self.examples} examples>, size={self.size}, shuffle={self.shuffle}, drop_last={self.drop_last})"
        )


def _taken(a: NDArray[Any], rows: Ints, shuffled: bool) -> NDArray[Any]:
    block = np.asarray(a.take(rows, axis=0) if shuffled else a[rows[0] : rows[-1] + 1])  # of a memmap, too
    block.setflags(write=False)
    return block


def batches(arrays: D, size: int, *, shuffle: bool = True, drop_last: bool = False) -> Batches[D]:
    """The batches of `size` examples of any tree of arrays with a common first axis, such as `(x, y)`.

    Every epoch is shuffled anew, and its last batch may be shorter (`drop_last=True` leaves it out).
    Raises `ValueError` for no arrays, no examples, arrays of different lengths and numbers that are not finite, and
    `TypeError` for lists and for arrays of anything but numbers.
    """
    size = positive("batches", "size", size)
    examples = count(arrays, "batches")
    check_numbers(arrays, "batches")
    if drop_last and size > examples:
        raise ValueError(
            f"batches: size {size} is larger than the {examples} examples, and drop_last leaves the short batch out: "
            "no batch remains; use a smaller size or drop_last=False"
        )
    return Batches(arrays, size, shuffle, drop_last, examples)


def weight_of(batch: tuple[Any, ...]) -> float:
    """How much the mean loss of a batch counts: the sum of its weights, or the number of its examples."""
    return float(len(tree.leaves(batch)[0]) if len(batch) == 2 or batch[2] is None else batch[2].sum())


def count(arrays: Any, who: str) -> int:
    """The common length of the first axes; `ValueError` where there is none, `TypeError` for what is no array."""
    lengths: dict[str, Shape] = {}
    for path, a in tree.items(arrays):
        if isinstance(a, np.ma.MaskedArray):
            raise TypeError(f"{who}: {_place(path)}: a masked array; fill it, and give its mask to a loss as weights")
        if not isinstance(a, np.ndarray):
            raise TypeError(f"{who}: {_place(path)}: expected a NumPy array, got {type(a).__name__}; use np.asarray")
        lengths[_place(path)] = a.shape[:1]
    if not lengths:
        raise ValueError(f"{who}: expected arrays, got nothing")
    if len(set(lengths.values())) > 1 or () in lengths.values():
        listed = ", ".join(f"{path}: {n[0] if n else 'no axis'}" for path, n in lengths.items())
        raise ValueError(f"{who}: expected arrays with first axes of one length, got {listed}")
    n = int(next(iter(lengths.values()))[0])
    if n == 0:
        raise ValueError(f"{who}: expected at least one example, got arrays with none")
    return n


def check_numbers(arrays: Any, who: str) -> None:
    """Raises `TypeError` for arrays that do not hold numbers, `ValueError` for numbers that are not finite."""
    for path, a in tree.items(arrays):
        if a.dtype.kind not in "fiub":
            raise TypeError(f"{who}: {_place(path)}: expected numbers, got dtype {a.dtype}")
        if a.dtype.kind == "f" and a.size and not (np.isfinite(a.min()) and np.isfinite(a.max())):
            bad = np.argwhere(~np.isfinite(a))
            first = ", ".join(str(i) for i in bad[0])
            raise ValueError(
                f"{who}: {_place(path)}: {len(bad)} numbers are NaN or infinite, the first at index [{first}]"
            )


def _place(path: str) -> str:
    return f"array {path}" if path else "the array"


# --- preparation -----------------------------------------------------------------------------------------------------


def split(arrays: D, fraction: float, key: Key) -> tuple[D, D]:
    """Two parts of a tree of arrays, shuffled by `key`: all but a `fraction` of the examples, and that fraction.

    >>> rest, held_out = split((np.arange(10), np.arange(10) * 2), 0.2, Key(0))
    >>> len(rest[0]), len(held_out[0])
    (8, 2)
    """
    if not isinstance(key, Key):
        raise TypeError(f"split: expected a Key last, as in split((x, y), 0.2, Key(0)), got {key!r}")
    if not isinstance(fraction, (int, float, np.floating)) or not 0 < fraction < 1:
        raise ValueError(f"split: expected a fraction between 0 and 1, got {fraction!r}")
    examples = count(arrays, "split")
    part = round(examples * fraction)
    if not 0 < part < examples:
        raise ValueError(f"split: a fraction of {fraction!r} of {examples} examples leaves one part empty")
    order = key.generator().permutation(examples)
    return tree.map(lambda a: a[order[part:]], arrays), tree.map(lambda a: a[order[:part]], arrays)


def one_hot(labels: Ints, classes: int) -> Array:
    """Rows with a 1 at the label and 0 elsewhere, float32: (...,) to (..., classes)."""
    classes, labels = positive("one_hot", "classes", classes), np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: expected integer labels, got {labels.dtype}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"one_hot: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    rows: Array = np.equal(labels[..., None], np.arange(classes)).astype(np.float32)
    return rows


# The type codes of the IDX format, as documented with the MNIST data (LeCun, Cortes & Burges 1998); big-endian.
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Any) -> NDArray[Any]:
    """The array in an IDX file (the format of MNIST), also when compressed (`.gz`), in the machine's byte order.

    Raises `ValueError` if the file is not of this format or its length is not the one that it announces.
    """
    import gzip
    import zlib
    from pathlib import Path

    content = Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"read_idx: {path}: the compressed file is damaged ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise ValueError(f"read_idx: {path}: not an IDX file (it begins with {content[:4].hex(' ') or 'nothing'})")
    dtype, start = np.dtype(_IDX_TYPES[content[2]]), 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(f"read_idx: {path}: announces shape {shape}, {expected} bytes, but has {len(content)}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
