"""What breaks a law, how values are compared and how they are shown."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from fnn import tree

CLOSE = 1e-9
"""What may differ in float64 between two ways to the same number (orders of summation)."""
CLOSE_FLOAT32 = 1e-4
"""What may differ between the float32 and the float64 result of a layer."""


class LawError(AssertionError):
    """A layer or a loss breaks a law; the message says which, and how."""

    __module__ = "fnn.testing"


def require(condition: bool, message: str) -> None:
    """The law is broken unless the condition holds."""
    if not condition:
        raise LawError(message)


def require_alike(what: str, got: Any, expected: Any) -> None:
    """Both trees have the same structure, shapes and dtypes; arrays stand where arrays are expected."""
    try:
        tree.check_same_structure(got, expected, ("what was given", "what was expected"))
    except ValueError as error:
        raise LawError(f"{what}: {error}") from None

    def compare(path: str, a: Any, b: Any) -> None:
        if np.asarray(a).dtype != np.asarray(b).dtype or (isinstance(b, np.ndarray) and not isinstance(a, np.ndarray)):
            raise LawError(f"{_path(what, path)}: expected {describe(b)}, got {describe(a)}")

    tree.map_with_path(compare, got, expected)


def require_equal(what: str, got: Any, expected: Any, than: str, tolerance: float = 0.0) -> None:
    """The trees are alike and hold the same numbers: the same bits, or an error `|a - b| / max(1, |a|, |b|)`."""
    require_alike(what, got, expected)

    def compare(path: str, a: Any, b: Any) -> None:
        if np.asarray(a).tobytes() == np.asarray(b).tobytes():
            return
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = np.asarray(np.abs(a - b) / np.maximum(1, np.maximum(np.abs(a), np.abs(b))))
        if tolerance == 0 or not np.all(error <= tolerance):
            at = np.unravel_index(np.argmax(error), error.shape)  # argmax finds nan first
            raise LawError(f"{place(_path(what, path), at)} is {a[at]:.12g}, {than} {b[at]:.12g}")

    tree.map_with_path(compare, got, expected)


def _path(what: str, path: str) -> str:
    return f"{what}: {path}" if path else what


def place(name: str, index: Any) -> str:
    """`weight[1, 2]`."""
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if len(index) else name


def describe(value: Any) -> str:
    """What a value is, in a message."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"{type(value).__name__} {value!r}"


def shape_of(y: Any) -> Any:
    """The shape of an array, the tuple of shapes of several."""
    return tuple(shape_of(part) for part in y) if isinstance(y, tuple) else np.shape(y)


def copied(value: Any) -> Any:
    """A tree whose arrays share nothing with those of the given one."""
    return tree.map(lambda a: np.array(a) if isinstance(a, np.ndarray) else a, value)


def turned(value: Any) -> Any:
    """The batch with its examples in the opposite order."""
    return tree.read_only(tree.map(lambda a: a[::-1].copy(), value))


def rows(value: Any, i: int) -> Any:
    """The batch that holds example i alone."""
    return tree.map(lambda a: a[i : i + 1], value)


def pickled(what: str, value: Any) -> Any:
    """The value, pickled and back."""
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:
        hint = "its functions must stand at the top level of a module, with hyper-parameters given by `bind`"
        raise LawError(f"{what} cannot be pickled ({error}); {hint}") from error
