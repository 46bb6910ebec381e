"""The Python source of a plan: one line a call, on arrays that are global names of the function."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import CodeType
from typing import Any

import numpy as np

from fnn.compile.passes import is_all, place_in
from fnn.compile.program import Call, Variable, View, address, bounds, part_of, variables, views

Key = tuple[Any, ...]


class Unexpected(Exception):
    """A guard does not hold: the function has to be run as it is."""


class Elsewhere(Exception):
    """A branch on a number goes another way than in the recording: there may be another plan for it."""


_OF_ANY_SIZE: set[Any] = {np.bincount, np.tile, np.pad}
"""Functions whose results have sizes that contents decide."""

_OF_ONE_TYPE: set[Any] = {operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pos}
"""Functions of Python numbers whose results have the types of those in the recording."""

_NUMBERS = (int, float, complex, np.float32, np.float64, np.int64)


class Source:
    """Lines of source with the names they use.

    Arrays of the arena are `b0, b1, ...`; those that the plan reads and writes in the slots of carried values are
    parameters `p0, ...` and `q0, ...`; other arguments are `a0, ...`, Python values `v0, ...`.
    """

    def __init__(self, place: Callable[[View], tuple[str, int]], arguments: dict[int, View], values: list[Any]) -> None:
        self.place = place
        """Where a view lies: `arena`, `in`, `out` or `argument`, and the offset there."""
        self.arguments = arguments
        self.values = values
        self.lines: list[str] = []
        self.of_call: list[int | None] = []
        self.tables: dict[str, dict[Key, tuple[str, View, int]]] = {"arena": {}, "in": {}, "out": {}}
        self.constants: dict[str, Any] = {"Unexpected": Unexpected, "Elsewhere": Elsewhere}
        self._names: dict[int, str] = {}
        self._parts: dict[Key, str] = {}
        self._derived: dict[Key, str] = {}
        self._scalars: dict[tuple[int, np.dtype[Any]], str] = {}

    # --- names -------------------------------------------------------------------------------------------------------

    def operand(self, part: Any) -> str:
        """The source of an operand."""
        if isinstance(part, View):
            return self.array(part)
        if isinstance(part, Variable):
            return f"v{part.index}"
        if part is None or part is ... or type(part) in (bool, int, str):
            return "..." if part is ... else repr(part)
        if type(part) is float and math.isfinite(part):
            return repr(part)
        if type(part) is tuple:
            return "(" + "".join(self.operand(child) + ", " for child in part) + ")"
        if isinstance(part, tuple) and (any(True for _ in views(part)) or any(True for _ in variables(part))):
            return f"{self.constant(type(part))}({', '.join(self.operand(child) for child in part)})"
        if type(part) is list:
            return "[" + ", ".join(self.operand(child) for child in part) + "]"
        if type(part) is slice and all(type(end) in (int, type(None)) for end in (part.start, part.stop, part.step)):
            return f"slice({part.start}, {part.stop}, {part.step})"
        if isinstance(part, dict):
            return "{" + ", ".join(f"{k!r}: {self.operand(child)}" for k, child in part.items()) + "}"
        return self.constant(part)

    def constant(self, value: Any, stem: str = "c") -> str:
        """A global name for a value."""
        name = self._names.get(id(value))
        if name is None:
            name = f"{stem}_{len(self.constants)}"
            self._names[id(value)] = name
            self.constants[name] = value
        return name

    def array(self, view: View) -> str:
        """The name of an array."""
        if view.storage.kind == "constant":
            return self._constant_array(view)
        where, offset = self.place(view)
        if where == "argument":
            return self._argument(view)
        key = (offset, view.dtype, view.shape, view.strides)
        table = self.tables[where]
        if key not in table:
            table[key] = f"{dict(arena='b', out='q')[where] if where != 'in' else 'p'}{len(table)}", view, offset
        return table[key][0]

    def _constant_array(self, view: View) -> str:
        array = view.storage.array
        assert array is not None
        if view.place not in self._parts:
            same = (view.offset, view.shape, view.strides) == (
                address(array) - bounds(array)[0],
                array.shape,
                array.strides,
            )
            part = array if same and view.dtype == array.dtype else part_of(array, view)
            self._parts[view.place] = self.constant(part)
        return self._parts[view.place]

    def _argument(self, view: View) -> str:
        i = view.storage.source
        key = (i, view.offset, view.dtype, view.shape, view.strides)
        if key not in self._derived:
            expression = place_in(self.arguments[i], view)
            assert expression is not None
            name = f"a{i}"
            if expression != "{}":
                name = f"d{len(self._derived)}"
                self.line(f"{name} = {expression.format(f'a{i}')}")
            self._derived[key] = name
        return self._derived[key]

    # --- lines -------------------------------------------------------------------------------------------------------

    def line(self, text: str, call: int | None = None) -> None:
        self.lines.append(text)
        self.of_call.append(call)

    def call(self, i: int, call: Call) -> None:
        """The line of a call."""
        if call.how == "guard":
            self.line(f"if {self._condition(call.args[0])}: raise Unexpected", i)
            return
        if call.how == "branch":
            self.line(f"if bool({self.operand(call.args[0])}) is not {call.args[1]}: raise Elsewhere", i)
            return
        args = [self.operand(part) for part in call.args]
        keywords = [f"{name}={self.operand(part)}" for name, part in call.keywords.items()]
        outs = [self.array(out) for out in call.outs]
        if call.how == "out":
            if isinstance(call.f, np.ufunc) and call.f.signature is None and not keywords:
                args = [self._number(part, text, call, i) for part, text in zip(call.args, args)]
            self.line(self._with_out(call, args, keywords, outs), i)
        elif call.how == "copy":
            self._copy(i, call, args, keywords, outs)
        elif call.how == "value":
            self.line(f"v{call.target.index} = {self._plain(call, args, keywords)}" if call.target else "", i)
            if call.target and call.f not in _OF_ONE_TYPE and type(value := self.values[call.target.index]) in _NUMBERS:
                self.line(f"if type(v{call.target.index}) is not {self.constant(type(value))}: raise Unexpected")
        else:
            self.line(self._writing(call, args), i)

    def _condition(self, part: Any) -> str:
        """The source of a guard."""
        if isinstance(part, tuple):
            symbol, *operands = part
            words = [self._condition(operand) for operand in operands]
            return f"(not {words[0]})" if symbol == "not" else f"({words[0]} {symbol} {words[1]})"
        return f"{self.array(part)}.item()" if isinstance(part, View) and part.shape == () else self.operand(part)

    def _plain(self, call: Call, args: list[str], keywords: list[str]) -> str:
        return f"{self.constant(call.f, call.name.replace('.', '_'))}({', '.join([*args, *keywords])})"

    def _with_out(self, call: Call, args: list[str], keywords: list[str], outs: list[str]) -> str:
        if call.f is np.dot and isinstance(call.args[0], View) and not keywords:
            return f"{args[0]}.dot({args[1]}, {outs[0]})"
        if call.positional and not keywords:
            return self._plain(call, [*args, outs[0]], [])
        return self._plain(call, args, [*keywords, f"out={outs[0]}" if len(outs) == 1 else f"out=({', '.join(outs)})"])

    def _copy(self, i: int, call: Call, args: list[str], keywords: list[str], outs: list[str]) -> None:
        result = f"{args[0]}[{args[1]}]" if call.name == "getitem" else self._plain(call, args, keywords)
        checked = call.f in _OF_ANY_SIZE or any(True for _ in variables((call.args, call.keywords)))
        if len(outs) == 1 and not checked:
            self.line(f"{outs[0]}[...] = {result}", i)
            return
        self.line(f"t = {result}", i)
        for k, out in enumerate(outs):
            part = "t" if len(outs) == 1 else f"t[{k}]"
            if checked:
                shape, dtype = call.outs[k].shape, self.constant(call.outs[k].dtype)
                self.line(f"if {part}.shape != {shape} or {part}.dtype != {dtype}: raise Unexpected")
            self.line(f"{out}[...] = {part}", i)

    def _writing(self, call: Call, args: list[str]) -> str:
        if call.name == "copyto" and len(args) == 2:
            return f"{args[0]}[...] = {args[1]}"
        if call.name == "setitem":
            return f"{args[0]}[{args[1]}] = {args[2]}"
        if call.name == "fill":
            return f"{args[0]}.fill({args[1]})"
        return self._plain(call, args, [])

    def _number(self, part: Any, text: str, call: Call, i: int) -> str:
        """A Python number that changes from call to call, as an array without axes: functions take it faster."""
        if not isinstance(part, Variable) or type(self.values[part.index]) not in (int, float):
            return text
        assert isinstance(call.f, np.ufunc)
        dtypes = {view.dtype for view in call.reads()}
        args = tuple([self.values[a.index] if isinstance(a, Variable) else a for a in call.args])
        if len(dtypes) != 1 or (dtype := next(iter(dtypes))).kind != "f" or not is_all(call.f, args, dtype):
            return text
        key = (part.index, dtype)
        if key not in self._scalars:
            name = self._scalars[key] = f"s{len(self._scalars)}"
            self.constants[name] = dtype
            self.line(f"{name}[...] = v{part.index}", i)
        return self._scalars[key]

    @property
    def scalars(self) -> dict[str, np.dtype[Any]]:
        """The arrays without axes that hold numbers."""
        return {name: dtype for (_, dtype), name in self._scalars.items()}

    # --- functions ---------------------------------------------------------------------------------------------------

    def code(self, name: str, parameters: list[str], results: list[str], timed: bool = False) -> CodeType:
        """The function `name(parameters)` that runs the lines and returns the results."""
        lines = [*self.lines, f"return ({''.join(f'{result}, ' for result in results)})"]
        if timed:
            marks = [f"; T[{i}] += clock() - t0; t0 = clock()" if i is not None else "" for i in self.of_call]
            lines = [line if line.startswith("if ") else line + mark for line, mark in zip(lines, [*marks, ""])]
            lines.insert(0, "t0 = clock()")
        return function_code(name, parameters, lines)


def function_code(name: str, parameters: list[str], lines: list[str]) -> CodeType:
    """The code object of a function of these lines."""
    text = f"def {name}({', '.join(parameters)}):\n" + "".join(f"    {line}\n" for line in lines)
    module = compile(text, f"<fnn.compile {name}>", "exec")
    return next(part for part in module.co_consts if isinstance(part, CodeType))
