"""How a plan takes its arguments apart, and finds that they are not those it is made for."""

from __future__ import annotations

import itertools
from typing import Any

from fnn.compile.structure import ArrayLeaf, Node, Static, ValueLeaf


class Entry:
    """The lines that take the arguments apart, and leave for another plan where they do not fit."""

    def __init__(self, leaves: list[Any], carried: set[int]) -> None:
        self.leaves = leaves
        self.carried = carried
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._count = itertools.count()
        self._nodes = itertools.count()

    def constant(self, value: Any, by_name: bool = False) -> str:
        """The source of a value, or a name for it."""
        if not by_name and (value is None or type(value) in (bool, int, str)):
            return repr(value)
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def open(self, signature: Any, expression: str) -> None:
        """Adds the lines for one value."""
        if isinstance(signature, Static):
            self._static(signature, expression)
        elif isinstance(signature, ArrayLeaf):
            self._array(next(self._count), signature, expression)
        elif isinstance(signature, ValueLeaf):
            i = next(self._count)
            self.lines += [f"l{i} = {expression}", f"if type(l{i}) is not {self.constant(signature.kind)}: return MISS"]
        else:
            self._node(signature, expression)

    def _static(self, signature: Static, expression: str) -> None:
        name = self.constant(signature.value, by_name=type(signature.value) in (int, str))
        if name in ("None", "True", "False"):
            self.lines.append(f"if {expression} is not {name}: return MISS")
        else:
            kind = self.constant(signature.kind)
            self.lines += [
                f"n = {expression}",
                f"if n is not {name} and (type(n) is not {kind} or n != {name}): return MISS",
            ]

    def _array(self, i: int, signature: ArrayLeaf, expression: str) -> None:
        self.lines.append(f"l{i} = {expression}")
        if i not in self.carried:
            shape, dtype, strides = repr(signature.shape), self.constant(signature.dtype), repr(signature.strides)
            self.lines += [
                f"if type(l{i}) is not ndarray or l{i}.shape != {shape} or l{i}.strides != {strides}: return MISS",
                f"if l{i}.dtype is not {dtype} and l{i}.dtype != {dtype}: return MISS",
            ]

    def _node(self, signature: Node, expression: str) -> None:
        name = f"n{next(self._nodes)}"
        self.lines.append(f"{name} = {expression}")
        if signature.kind is dict:
            keys = self.constant(list(signature.names))
            self.lines.append(f"if type({name}) is not dict or [*{name}] != {keys}: return MISS")
            for key, child in zip(signature.names, signature.children):
                self.open(child, f"{name}[{self.constant(key)}]")
            return
        kind = self.constant(signature.kind)
        self.lines.append(f"if type({name}) is not {kind}: return MISS")
        if issubclass(signature.kind, tuple):
            self.lines.append(f"if len({name}) != {len(signature.children)}: return MISS")
            for k, child in enumerate(signature.children):
                self.open(child, f"{name}[{k}]")
        else:
            for field, child in zip(signature.names, signature.children):
                self.open(child, f"{name}.{field}")
