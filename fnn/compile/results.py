"""What a function gives, as the leaves of its form: arguments, arrays of the plan, Python values, and constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnn.compile.program import NotRecordable, View, address, bounds, extent
from fnn.compile.slots import array_at
from fnn.compile.stand_ins import Live, Traced
from fnn.compile.structure import ArrayLeaf, Node, Static, field_names, is_record
from fnn.random import Key


class Given:
    """A result that is an argument."""

    def __init__(self, source: int) -> None:
        self.source = source


class Out:
    """A result that is an array of the plan."""

    def __init__(self, view: View, scalar: bool, writeable: bool, protected: bool = False) -> None:
        self.view, self.scalar, self.writeable = view, scalar, writeable
        self.protected = protected
        """Whether it is a view of an argument that cannot be written to as the argument can."""
        self.leaf = -1
        """Which leaf of the slot it is, if it is carried."""


class Constant:
    """A result that does not depend on the arguments."""

    def __init__(self, value: Any) -> None:
        self.value = value


def results(value: Any, arguments: list[Any], statics: set[int]) -> Any:
    """The form of a result, with `Given`, `Out`, `Variable` and `Constant` as leaves."""
    known: dict[int, Out] = {}

    def form(value: Any) -> Any:
        if isinstance(value, Live):
            same = [i for i, argument in enumerate(arguments) if argument is value]
            return Given(same[0]) if same else value.variable
        if isinstance(value, Traced):
            scalar = not isinstance(value.value, np.ndarray)
            writeable = not scalar and bool(value.value.flags.writeable)
            protected = False
            for i, argument in enumerate(arguments):
                if isinstance(argument, Traced) and value.at.storage is argument.at.storage:
                    protected = not writeable and bool(argument.value.flags.writeable)
                    if value.at.place == argument.at.place and not protected:
                        return Given(i)
            if value.at.storage.kind == "constant":
                return Constant(value.value)
            return known.setdefault(id(value), Out(value.at, scalar, writeable, protected))
        kind = type(value)
        if kind is dict:
            return Node(dict, tuple(value), tuple([form(child) for child in value.values()]))
        if kind is tuple or isinstance(value, tuple) and hasattr(value, "_fields"):
            return Node(kind, (), tuple([form(child) for child in value]))
        if kind is list:
            return Node(list, (), tuple([form(child) for child in value]))
        plain = (type(None), bool, int, float, complex, str, bytes, np.generic, np.dtype, np.ndarray, Key)
        if id(value) in statics or isinstance(value, plain):
            return Constant(value)
        if is_record(value):
            names = field_names(kind)
            return Node(kind, names, tuple([form(getattr(value, name)) for name in names]))
        raise NotRecordable(f"a result of type {kind.__name__}")

    try:
        return form(value)
    finally:
        del form  # it holds itself, and with it the arguments


def result_leaves(form: Any) -> list[Any]:
    """The leaves of a form, in order."""
    return [leaf for child in form.children for leaf in result_leaves(child)] if isinstance(form, Node) else [form]


def real_result(form: Any, value: Any, arguments: list[Any]) -> Any:
    """What the recorded run itself gives."""
    if isinstance(form, Given):
        return arguments[form.source]
    if isinstance(value, (Traced, Live)):
        value = value.value
    if isinstance(form, Constant) and isinstance(value, np.ndarray) and value.flags.writeable:
        return copy_of(value)  # the plan keeps the array itself
    if not isinstance(form, Node):
        return value
    if form.kind is dict:
        return {name: real_result(child, value[name], arguments) for name, child in zip(form.names, form.children)}
    parts = [getattr(value, name) for name in form.names] if form.names else list(value)
    children = [real_result(child, part, arguments) for child, part in zip(form.children, parts)]
    return children if form.kind is list else tuple(children) if form.kind is tuple else form.kind(*children)


def carried_pairs(signatures: tuple[Any, ...], form: Any, first: list[int]) -> dict[int, Out]:
    """Leaves of the first argument that the function gives anew: argument number to result.

    A step gives `(state, ...)`, or the state alone, in the form of its first argument.
    """
    candidates = [form, form.children[0]] if isinstance(form, Node) and form.kind is tuple and form.children else [form]
    for candidate in candidates:
        pairs: dict[int, Out] = {}
        if _matches(signatures[0], candidate, iter(first), pairs) and pairs:
            return pairs
    return {}


def _matches(signature: Any, form: Any, numbers: Any, pairs: dict[int, Out]) -> bool:
    if isinstance(signature, Node):
        if (
            not isinstance(form, Node)
            or form.kind is not signature.kind
            or len(form.children) != len(signature.children)
        ):
            return False
        if form.kind is dict and form.names != signature.names:
            return False
        return all([_matches(s, f, numbers, pairs) for s, f in zip(signature.children, form.children)])
    if isinstance(signature, Static):
        return not isinstance(form, Node)
    i = next(numbers)
    if isinstance(form, Node):
        return False
    if isinstance(signature, ArrayLeaf) and isinstance(form, Out) and not form.scalar and form.view.size:
        same = (form.view.shape, form.view.dtype, form.view.strides) == signature[:3]
        if same and form.view.storage.kind == "scratch" and not any(_meet(form, other) for other in pairs.values()):
            pairs[i] = form
    return True


def _meet(a: Out, b: Out) -> bool:
    """Whether two results lie in the same memory, where two arguments could not be laid as they do."""
    if a.view.storage is not b.view.storage:
        return False
    (start, stop), (other_start, other_stop) = extent(a.view), extent(b.view)
    return start < other_stop and other_start < stop


def is_kept(view: View) -> bool:
    """Whether a copy has the strides of the array: what others compute from it depends on them."""
    if view.size == 0:
        return True
    start, stop = extent(view)
    array = array_at(np.empty(stop - start, np.uint8), view, view.offset - start)
    strides = np.empty_like(array).strides
    return all(n == 1 or a == b for n, a, b in zip(view.shape, view.strides, strides))


def copy_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy with the strides of the array, whatever they are."""
    start, stop = bounds(array)
    memory = np.empty(max(1, stop - start), np.uint8)
    copy = np.ndarray(array.shape, array.dtype, memory, address(array) - start, array.strides)
    copy[...] = array
    return copy
