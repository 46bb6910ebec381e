"""What a function is given and gives: nested mappings, tuples and records, taken apart into leaves and put together.

A signature is everything about the arguments that a plan relies on: the nodes, and shape, strides and dtype of each
array. Leaves are arrays, Python numbers and keys; whatever else can be hashed belongs to the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import attrs
import numpy as np

from fnn.compile.program import NotRecordable
from fnn.contract import Layer, Loss, Penalty
from fnn.optimizers.protocol import Optimizer
from fnn.random import Key

_PARTS = (Layer, Loss, Penalty, Optimizer)


class Node(NamedTuple):
    """A dict, tuple or record, with the names and signatures of what it holds."""

    kind: type
    names: tuple[Any, ...]
    children: tuple[Any, ...]


class ArrayLeaf(NamedTuple):
    """An array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    same: int = -1
    """Which leaf before it is the same object: functions may ask `a is b`."""


class ValueLeaf(NamedTuple):
    """A Python number or a key, which may differ from call to call."""

    kind: type


class Static(NamedTuple):
    """Anything else; a plan holds for this value."""

    value: Any
    kind: type


def flatten(value: Any, leaves: list[Any], seen: dict[int, int]) -> Any:
    """The signature of a value; its leaves are appended in order, and arrays `seen` (by id) are known again."""
    kind = type(value)
    if kind is np.ndarray:
        if value.dtype.kind not in "fiub" or not value.dtype.isnative or not value.flags.aligned:
            raise NotRecordable(f"an array of {value.dtype}")
        same = seen.setdefault(id(value), len(leaves))
        leaves.append(value)
        return ArrayLeaf(value.shape, value.dtype, value.strides, -1 if same == len(leaves) - 1 else same)
    if kind in (int, float, Key):
        leaves.append(value)
        return ValueLeaf(kind)
    if kind is dict:
        return Node(dict, tuple(value), tuple([flatten(child, leaves, seen) for child in value.values()]))
    if kind is tuple or isinstance(value, tuple) and hasattr(value, "_fields"):
        names = value._fields if hasattr(value, "_fields") else ()
        return Node(kind, names, tuple([flatten(child, leaves, seen) for child in value]))
    if is_record(value):
        names = field_names(kind)
        return Node(kind, names, tuple([flatten(getattr(value, name), leaves, seen) for name in names]))
    if isinstance(value, (np.ndarray, np.generic, tuple, list, Mapping)):
        raise NotRecordable(f"an argument of type {kind.__name__}")
    try:
        hash(value)
    except TypeError:
        raise NotRecordable(f"an argument of type {kind.__name__}") from None
    if not (value is None or "__eq__" in defined(kind) or callable(value) or isinstance(value, (*_PARTS, Enum))):
        raise NotRecordable(f"an argument of type {kind.__name__}, which may change and still be itself")
    return Static(value, kind)


def defined(kind: type) -> set[str]:
    """What a class defines, itself or in what it derives from but `object`."""
    return {name for base in kind.__mro__[:-1] for name in vars(base)}


def is_record(value: Any) -> bool:
    """Whether it is an attrs record of values, such as `TrainState`, and not a part such as a layer."""
    return attrs.has(type(value)) and not isinstance(value, _PARTS) and type(value) is not Key


def field_names(kind: type) -> tuple[str, ...]:
    """The fields of a record, all of which its constructor takes in order."""
    fields = attrs.fields(kind)
    if any(not field.init or field.kw_only for field in fields):
        raise NotRecordable(f"an argument of type {kind.__name__}")
    return tuple(field.name for field in fields)


def unflatten(signature: Any, leaves: Any) -> Any:
    """The value of a signature with other leaves, an iterator."""
    if isinstance(signature, Static):
        return signature.value
    if isinstance(signature, (ArrayLeaf, ValueLeaf)):
        return next(leaves)
    children = [unflatten(child, leaves) for child in signature.children]
    if signature.kind is dict:
        return dict(zip(signature.names, children))
    return tuple(children) if signature.kind is tuple else signature.kind(*children)


def leaf_signatures(signature: Any) -> list[Any]:
    """The signatures of the leaves, in order."""
    if isinstance(signature, Static):
        return []
    if isinstance(signature, (ArrayLeaf, ValueLeaf)):
        return [signature]
    return [leaf for child in signature.children for leaf in leaf_signatures(child)]
