"""The vocabulary: what arrays, parameters and shapes are called, the error for a wrong shape, and `bind`.

Shapes never include the batch axis. Layout: dense `(batch, features)`, sequences `(batch, time, features)`,
images `(batch, height, width, channels)`; weights `(in, out)` and `(kernel height, kernel width, in, out)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, overload

import numpy as np

S = TypeVar("S", bound=np.generic)

NDArray: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[S]]
"""What `numpy.typing.NDArray` is; that module takes as long to load as ten of this library."""

DTypeLike: TypeAlias = np.dtype[Any] | type[Any] | str
"""What `np.dtype` takes."""

Array: TypeAlias = NDArray[np.floating[Any]]
"""Activations and parameters: float32 or float64."""

Ints: TypeAlias = NDArray[np.integer[Any]]
"""Labels and token indices."""

Params: TypeAlias = Mapping[str, Any]
"""Parameters (or their gradients): nested dicts with arrays as leaves."""

State: TypeAlias = Mapping[str, Any]
"""Running statistics, in the form of `Params`."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one example, without the batch axis."""

EMPTY: Params = {}
"""The parameters of a layer without parameters, and the state of a layer without state."""


class ShapeError(ValueError):
    """An array (or an announced shape) does not fit the layer that was given it."""


P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")


@overload
def bind(f: Callable[Concatenate[A, P], R], a: A, /) -> Callable[P, R]: ...
@overload
def bind(f: Callable[Concatenate[A, B, P], R], a: A, b: B, /) -> Callable[P, R]: ...
@overload
def bind(f: Callable[Concatenate[A, B, C, P], R], a: A, b: B, c: C, /) -> Callable[P, R]: ...
@overload
def bind(f: Callable[Concatenate[A, B, C, D, P], R], a: A, b: B, c: C, d: D, /) -> Callable[P, R]: ...
def bind(f: Callable[..., R], *first: Any) -> Callable[..., R]:
    """`f` with its first arguments given: `functools.partial`, but type-checkers see what is left of the signature.

    >>> bind(pow, 2)(5)
    32
    """
    return partial(f, *first)


def ones(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A read-only vector of n ones, kept between calls: `ones(n) @ a` sums columns faster than `a.sum(0)`."""
    return np.asarray(_ones(n, dtype))  # through NumPy's own namespace, where a recorder meets it


@lru_cache(maxsize=256)
def _ones(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    vector = np.repeat(np.array(1, dtype), n)
    vector.setflags(write=False)
    return vector
