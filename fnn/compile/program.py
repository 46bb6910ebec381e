"""What a recording consists of: storages, views of them, numbers, and the calls that read and write them.

A storage is the memory of one array. Every operand is a view, a place in a storage; a call in the list may write to a
storage that exists (an assignment to a slice, `out=`), so the order of the list is the order of the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from fnn.compile.current import current

T = TypeVar("T")

Strides = tuple[int, ...]

EXACT = {np.add, np.subtract, np.multiply, np.true_divide, np.sqrt, np.square, np.negative, np.absolute}
"""Functions of single numbers that give the same bits wherever in memory the numbers lie."""


class NotRecordable(Exception):
    """The function does something that a replay could not repeat; the message says what.

    It holds for the recording of this thread even where the function catches it.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        recorder = current()
        if recorder is not None:
            recorder.refused.append(what)


class Storage:
    """The memory of one array.

    kind: `scratch` of the plan, an `argument`, an argument that is `carried` from call to call, or a `constant`.
    """

    __slots__ = ("array", "kind", "nbytes", "source", "start")

    def __init__(self, kind: str, nbytes: int, array: np.ndarray[Any, Any] | None = None, source: int = -1) -> None:
        self.kind = kind
        self.nbytes = nbytes
        self.array = array
        """The memory itself, of constants, and while recording."""
        self.source = source
        """Which argument it is."""
        self.start = 0 if array is None else bounds(array)[0]


class View:
    """A place in a storage, as an array."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(
        self, storage: Storage, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], strides: Strides
    ) -> None:
        self.storage = storage
        self.offset = offset
        self.dtype = dtype
        self.shape = shape
        self.strides = strides

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def whole(self) -> bool:
        """Whether it is all of its storage, in one piece."""
        return self.offset == 0 and self.nbytes == self.storage.nbytes

    @property
    def contiguous(self) -> bool:
        """Whether its elements follow each other in C order."""
        plain = contiguous_strides(self.shape, self.dtype.itemsize)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, plain))

    @property
    def place(self) -> tuple[Any, ...]:
        """What two views have in common that are the same array."""
        return id(self.storage), self.offset, self.dtype, self.shape, self.strides

    def moved(self, storage: Storage, offset: int) -> View:
        """The same array elsewhere."""
        return View(storage, offset, self.dtype, self.shape, self.strides)

    def __repr__(self) -> str:
        return f"{self.storage.kind}{list(self.shape)}"


class Variable:
    """A Python value that differs from call to call: a number, a key, a generator of random numbers."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Call:
    """One call of the list.

    how: `out` hands `outs` over as `out=`; `copy` copies the result into `outs`; `write` changes the views in `outs`,
    which are among its arguments; `value` makes a variable; `guard` ends the replay where its argument is true,
    `branch` where it is not as true as its second argument.
    """

    __slots__ = ("_reads", "args", "f", "how", "keywords", "name", "outs", "positional", "target")

    def __init__(
        self,
        f: Callable[..., Any] | None,
        name: str,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
        how: str,
        outs: tuple[View, ...] = (),
        target: Variable | None = None,
        positional: bool = False,
    ) -> None:
        self.f, self.name, self.args, self.keywords = f, name, args, keywords
        self.how, self.outs, self.target = how, outs, target
        self._reads: tuple[View, ...] | None = None
        self.positional = positional
        """Whether `outs` may follow the arguments without the word `out=`, which is faster."""

    def reads(self) -> tuple[View, ...]:
        """The views among its arguments."""
        if self._reads is None:
            self._reads = tuple(views((self.args, self.keywords)))
        return self._reads

    @property
    def estimate(self) -> float:
        """Seconds, by shapes alone: products at 4e10 operations a second, all else at 1e10 bytes."""
        found = [*self.reads(), *self.outs]
        if self.name in ("dot", "matmul") and self.outs and len(self.args[0].shape) > 0:
            inner: int = self.args[0].shape[-1]
            return 2 * self.outs[0].size * inner / 4e10
        return sum(view.nbytes for view in found) / 1e10


def parts(template: Any, kind: type[T]) -> Iterator[T]:
    """Everything of one kind in nested arguments."""
    if isinstance(template, kind):
        yield template
    elif isinstance(template, (tuple, list)):
        for part in template:
            yield from parts(part, kind)
    elif isinstance(template, dict):
        for part in template.values():
            yield from parts(part, kind)
    elif isinstance(template, slice):
        yield from parts((template.start, template.stop, template.step), kind)


def views(template: Any) -> Iterator[View]:
    """Every view in nested arguments."""
    return parts(template, View)


def variables(template: Any) -> Iterator[Variable]:
    """Every variable in nested arguments."""
    return parts(template, Variable)


def replaced(template: Any, f: Callable[[Any], Any]) -> Any:
    """The arguments with `f(part)` for every part that is not a tuple, list, dict or slice."""
    if isinstance(template, tuple):
        found = [replaced(part, f) for part in template]
        return type(template)(*found) if hasattr(template, "_fields") else tuple(found)
    if isinstance(template, list):
        return [replaced(part, f) for part in template]
    if isinstance(template, dict):
        return {k: replaced(part, f) for k, part in template.items()}
    if isinstance(template, slice):
        return slice(f(template.start), f(template.stop), f(template.step))
    return f(template)


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> Strides:
    """The strides of an array in C order."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def address(array: np.ndarray[Any, Any]) -> int:
    """Where its first element lies."""
    where: int = array.__array_interface__["data"][0]
    return where


def bounds(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """The addresses between which its elements lie."""
    start = stop = address(array)
    if array.size == 0:
        return start, stop
    for n, stride in zip(array.shape, array.strides):
        if stride < 0:
            start += (n - 1) * stride
        else:
            stop += (n - 1) * stride
    return start, stop + array.itemsize


def extent(view: View) -> tuple[int, int]:
    """The bytes of the storage from the first to the last element."""
    if view.size == 0:
        return view.offset, view.offset
    start = view.offset + sum(min(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides))
    stop = view.offset + sum(max(0, (n - 1) * stride) for n, stride in zip(view.shape, view.strides))
    return start, stop + view.dtype.itemsize


def part_of(array: np.ndarray[Any, Any], view: View) -> np.ndarray[Any, Any]:
    """The part of a constant that a view is, read-only."""
    start = view.offset - (address(array) - bounds(array)[0])
    described = {
        "shape": view.shape,
        "strides": view.strides,
        "typestr": view.dtype.str,
        "data": (address(array) + start, True),
        "version": 3,
    }
    return np.asarray(_Memory(described, array))


class _Memory:
    """Memory described by NumPy's array interface, kept alive with the array it belongs to."""

    def __init__(self, described: dict[str, Any], owner: np.ndarray[Any, Any]) -> None:
        self.__array_interface__ = described
        self.owner = owner


def content(view: View) -> bytes | None:
    """The bytes of a constant, as the view shows it."""
    array = view.storage.array
    return part_of(array, view).tobytes() if array is not None and view.storage.kind == "constant" else None
