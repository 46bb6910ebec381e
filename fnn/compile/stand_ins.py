"""What stands for arrays, numbers, keys and generators while a function is recorded.

NumPy hands every call that involves a `Traced` array to the recorder (`__array_ufunc__`, `__array_function__`), which
makes the call with the real array and notes it. What depends on contents in a way that a list of calls cannot express
(`float(array)`, `if array`, boolean masks) raises `NotRecordable`, and so does what is not defined here. After the
recording a stand-in that is left somewhere behaves as the real array.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fnn.compile.current import current, noting
from fnn.compile.program import Call, NotRecordable, Variable, View, parts, replaced
from fnn.random import Key


def run(f: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """The call itself with real arrays; what NumPy calls within is not noted.

    Where it raises, the function may go on in another way, which a replay could not: then there is no plan.
    """
    recorder = current()
    with noting(None):
        try:
            return f(*real(args), **real(keywords))
        except Exception as error:
            if recorder is not None:
                recorder.refused.append(f"{type(error).__name__}: {error}")
            raise


def real(template: Any, every: bool = True) -> Any:
    """The arguments with real arrays and numbers; unless `every`, only in the place of what earlier recordings left."""

    def value(part: Any) -> Any:
        stands_in = isinstance(part, (Traced, Live)) and (every or not part.recorder.active)
        return part.value if stands_in else part

    return replaced(template, value)


def settled(template: Any) -> Any:
    """The arguments without stand-ins of earlier recordings, such as a cache holds; those of this one stay."""
    return real(template, every=False)


def traces(template: Any) -> Iterator[Traced]:
    """Every traced array in nested arguments."""
    return parts(template, Traced)


def lives(template: Any) -> Iterator[Live]:
    """Every live value in nested arguments."""
    return parts(template, Live)


# --- numbers and keys ------------------------------------------------------------------------------------------------


class Live:
    """A Python value that differs from call to call."""

    __slots__ = ("recorder", "value", "variable")

    def __init__(self, recorder: Any, value: Any, variable: Variable) -> None:
        self.recorder, self.value, self.variable = recorder, value, variable

    locals()["__class__"] = property(lambda self: type(self.value))  # isinstance(x, int) holds as for the value

    def _refuse(self, *args: Any, **keywords: Any) -> Any:
        if not self.recorder.active:
            raise RuntimeError("a value of a recording is used after it")
        raise NotRecordable("a Python number that changes from call to call decides something; see fnn.recordable.live")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __round__ = __trunc__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __array__ = __array_function__ = _refuse
    __repr__ = __str__ = __format__ = _refuse
    locals()["__hash__"] = None


def _arithmetic(name: str, f: Callable[..., Any], swapped: bool) -> Callable[..., Any]:
    def method(self: Number, *others: Any) -> Any:
        if any(isinstance(other, (Traced, np.ndarray)) for other in others):
            return NotImplemented
        args = (*others, self) if swapped else (self, *others)
        return self.recorder.value(name, f, args)

    return method


class Number(Live):
    """A Python number; arithmetic with it is noted, and so is how a branch on it goes."""

    __slots__ = ()

    def __bool__(self) -> bool:
        if not self.recorder.active:
            self._refuse()
        return bool(self.recorder.branch(self))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **keywords: Any) -> Any:
        return _ufunc(self.recorder, ufunc, method, args, keywords)


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _arithmetic(_name, getattr(operator, _name), False))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _arithmetic(_name, getattr(operator, _name), False))
    setattr(Number, f"__r{_name}__", _arithmetic(_name, getattr(operator, _name), True))
for _name in ("neg", "pos", "abs"):
    setattr(Number, f"__{_name}__", _arithmetic(_name, getattr(operator, _name), False))


class TracedKey(Live):
    """A key: what is derived and drawn from it is noted."""

    __slots__ = ()

    def fold_in(self, part: Any) -> TracedKey:
        key = self.value.fold_in(real(part))
        traced = TracedKey(self.recorder, key, self.recorder.variable(key))
        self._note(Key.fold_in, "fold_in", (self, part), traced)
        return traced

    def generator(self) -> Generator:
        generator = run(self.value.generator)
        traced = Generator(self.recorder, generator, self.recorder.variable(generator))
        self._note(Key.generator, "generator", (self,), traced)
        return traced

    def _note(self, f: Any, name: str, args: tuple[Any, ...], traced: Live) -> None:
        template = self.recorder.operands(args)
        self.recorder.calls.append(Call(f, name, template, {}, "value", (), traced.variable))

    def __getattr__(self, name: str) -> Any:
        raise NotRecordable(f"Key.{name} while recording")


class Generator(Live):
    """A generator of random numbers (or its bit generator), whose draws are noted, each in its turn."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.value, name)
        if not callable(method):
            traced = Generator(self.recorder, method, self.recorder.variable(method))
            template = self.recorder.operands((self, name))
            self.recorder.calls.append(Call(getattr, "getattr", template, {}, "value", (), traced.variable))
            return traced

        def draw(*args: Any, **keywords: Any) -> Any:
            recorder = self.recorder
            template = recorder.operands((self, *args))
            options = recorder.operands(keywords)
            given = keywords.get("out")
            value = run(method, *args, **keywords)
            if value is None or any(value is part.value for part in traces(args)):
                raise NotRecordable(f"{name}, which writes to an array that it is given")
            f = getattr(type(self.value), name)
            if given is not None:
                if not isinstance(given, Traced):
                    raise NotRecordable(f"{name} with out= an array that was not made while recording")
                options.pop("out")
                recorder.add(Call(f, name, template, options, "out", (given.at,)))
                return given
            if not isinstance(value, np.ndarray):
                number = Number(recorder, value, recorder.variable(value))
                recorder.calls.append(Call(f, name, template, options, "value", (), number.variable))
                return number
            out = recorder.fresh(value)
            how = "out" if name in ("random", "standard_normal", "standard_exponential") else "copy"
            recorder.add(Call(f, name, template, options, how, (out.at,)))
            return out

        return draw


# --- arrays ----------------------------------------------------------------------------------------------------------


def _ufunc(recorder: Any, ufunc: np.ufunc, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if not recorder.active:
        return getattr(ufunc, method)(*settled(args), **settled(keywords))
    keywords = {k: v for k, v in keywords.items() if not (k == "out" and v is None)}
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    f = ufunc if method == "__call__" else getattr(ufunc, method)
    if method == "at":
        recorder.write(name, f, args, args[0])
        return None
    if not any(True for _ in traces((args, keywords))) and all(np.ndim(a) == 0 for a in real(args)):
        return recorder.value(name, f, args, keywords)
    out = keywords.get("out")
    if isinstance(out, tuple) and len(out) == 1:
        keywords["out"] = out[0]
    if method in ("reduce", "accumulate", "reduceat"):
        return recorder.into(name, f, args, keywords)
    if method not in ("__call__", "outer"):
        raise NotRecordable(f"numpy.{name}")
    plain = method == "__call__" and ufunc not in (np.maximum, np.minimum) and ufunc.nout == 1
    return recorder.into(name, f, args, keywords, positional=plain)


def _binary(ufunc: np.ufunc, swapped: bool = False) -> Callable[..., Any]:
    def method(self: Traced, other: Any) -> Any:
        return ufunc(other, self) if swapped else ufunc(self, other)

    return method


def _in_place(ufunc: np.ufunc) -> Callable[..., Any]:
    def method(self: Traced, other: Any) -> Any:
        if not isinstance(self.value, np.ndarray):
            return ufunc(self, other)
        return ufunc(self, other, out=(self,))

    return method


def _unary(ufunc: np.ufunc) -> Callable[..., Any]:
    def method(self: Traced) -> Any:
        return ufunc(self)

    return method


def _refused(what: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **keywords: Any) -> Any:
        if not self.recorder.active:
            return getattr(self.value, what)(*args, **keywords)
        raise NotRecordable(f"{what.strip('_')} of an array: the contents of arrays decide what comes next")

    return method


class Traced:
    """An array while recording. What is not an attribute here is not recordable."""

    __slots__ = ("__weakref__", "at", "recorder", "value")
    locals()["__hash__"] = None
    __array_priority__ = 1e6

    def __init__(self, recorder: Any, value: Any, view: View) -> None:
        self.recorder, self.value, self.at = recorder, value, view

    locals()["__class__"] = property(lambda self: type(self.value))  # isinstance(x, np.ndarray) holds

    # what depends on shapes alone

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    strides = property(lambda self: self.value.strides)
    itemsize = property(lambda self: self.value.itemsize)
    nbytes = property(lambda self: self.value.nbytes)

    @property
    def flags(self) -> Any:
        return self.value.flags

    def setflags(self, write: bool | None = None, align: bool | None = None, uic: bool | None = None) -> None:
        self.value.setflags(write, align, uic)

    def __len__(self) -> int:
        return len(self.value)

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **keywords: Any) -> Any:
        return _ufunc(self.recorder, ufunc, method, args, keywords)

    def __array_function__(self, f: Any, types: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if not self.recorder.active:
            return f(*settled(args), **settled(keywords))
        return self.recorder.function(self.recorder, f, args, keywords)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if not self.recorder.active:
            return np.array(self.value, dtype, copy=copy)
        raise NotRecordable("an array is handed to code that the recorder does not see (or assigned into one)")

    # operators

    __add__, __radd__, __iadd__ = _binary(np.add), _binary(np.add, True), _in_place(np.add)
    __sub__, __rsub__, __isub__ = _binary(np.subtract), _binary(np.subtract, True), _in_place(np.subtract)
    __mul__, __rmul__, __imul__ = _binary(np.multiply), _binary(np.multiply, True), _in_place(np.multiply)
    __truediv__, __rtruediv__ = _binary(np.true_divide), _binary(np.true_divide, True)
    __itruediv__ = _in_place(np.true_divide)
    __floordiv__, __rfloordiv__ = _binary(np.floor_divide), _binary(np.floor_divide, True)
    __ifloordiv__ = _in_place(np.floor_divide)
    __mod__, __rmod__, __imod__ = _binary(np.remainder), _binary(np.remainder, True), _in_place(np.remainder)
    __matmul__, __rmatmul__ = _binary(np.matmul), _binary(np.matmul, True)
    __and__, __rand__, __iand__ = _binary(np.bitwise_and), _binary(np.bitwise_and, True), _in_place(np.bitwise_and)
    __or__, __ror__, __ior__ = _binary(np.bitwise_or), _binary(np.bitwise_or, True), _in_place(np.bitwise_or)
    __xor__, __rxor__, __ixor__ = _binary(np.bitwise_xor), _binary(np.bitwise_xor, True), _in_place(np.bitwise_xor)
    __lt__, __le__, __gt__, __ge__ = (
        _binary(np.less),
        _binary(np.less_equal),
        _binary(np.greater),
        _binary(np.greater_equal),
    )
    __eq__, __ne__ = _binary(np.equal), _binary(np.not_equal)
    __neg__, __pos__, __abs__, __invert__ = (
        _unary(np.negative),
        _unary(np.positive),
        _unary(np.absolute),
        _unary(np.invert),
    )

    def __pow__(self, other: Any) -> Any:
        """As NumPy's operator: small exponents have functions of their own."""
        if not self.recorder.active:
            return self.value**other
        if _is_number(self) and _is_number(other):
            return self.recorder.copied("power", _number_power, (self, other), {})
        fast = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}
        if type(other) in (int, float) and other in fast and self.dtype.kind == "f":
            return fast[other](self)
        return np.power(self, other)

    def __rpow__(self, other: Any) -> Any:
        if self.recorder.active and _is_number(self) and _is_number(other):
            return self.recorder.copied("power", _number_power, (other, self), {})
        return np.power(other, self)

    def __ipow__(self, other: Any) -> Any:
        raise NotRecordable("**= on an array")

    for _name in ("bool", "float", "int", "index", "complex", "contains", "imatmul"):
        locals()[f"__{_name}__"] = _refused(f"__{_name}__")
    item, tolist, tobytes, nonzero, searchsorted, choose, compress, partition, argpartition, resize = map(
        _refused,
        (
            "item",
            "tolist",
            "tobytes",
            "nonzero",
            "searchsorted",
            "choose",
            "compress",
            "partition",
            "argpartition",
            "resize",
        ),
    )

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # places

    def __getitem__(self, index: Any) -> Any:
        if not self.recorder.active:
            return self.value[settled(index)]
        _check_index(index)
        return self.recorder.copied("getitem", operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if not self.recorder.active:
            self.value[settled(index)] = settled(value)
            return
        _check_index(index)
        if _is_basic(index):
            place = self.value[index] if isinstance(index, tuple) and ... in index else self.value[_open(index)]
            target = self.recorder.traced(place, self.at.storage)
            if isinstance(value, Traced) and value.recorder is self.recorder and value.at.place == target.at.place:
                return
            self.recorder.assigned(self, index, target, value)
        else:
            self.recorder.write("setitem", operator.setitem, (self, index, value), self)

    def view(self, dtype: Any) -> Any:
        return self._view(self.value.view(dtype))

    @property
    def T(self) -> Any:
        return self._view(self.value.T) if isinstance(self.value, np.ndarray) else self

    def _view(self, value: Any) -> Any:
        if not self.recorder.active:
            return value
        if not isinstance(value, np.ndarray):
            raise NotRecordable("a number of an array looked at as something else")
        return self.recorder.traced(value, self.at.storage)

    def reshape(self, *shape: Any, **keywords: Any) -> Any:
        return self._method("reshape", shape, keywords)

    def transpose(self, *axes: Any) -> Any:
        return self._view(self.value.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> Any:
        return self._view(self.value.swapaxes(a, b))

    def _method(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A method with a result of its own, or a view."""
        if not self.recorder.active:
            return getattr(self.value, name)(*settled(args), **settled(keywords))
        f = getattr(np.ndarray, name) if isinstance(self.value, np.ndarray) else _OfNumber(name)
        return self.recorder.copied(name, f, (self, *args), keywords)

    def ravel(self, *args: Any, **keywords: Any) -> Any:
        return self._method("ravel", args, keywords)

    def flatten(self, *args: Any, **keywords: Any) -> Any:
        return self._method("flatten", args, keywords)

    def squeeze(self, *args: Any, **keywords: Any) -> Any:
        return self._method("squeeze", args, keywords)

    def diagonal(self, *args: Any, **keywords: Any) -> Any:
        return self._method("diagonal", args, keywords)

    def repeat(self, *args: Any, **keywords: Any) -> Any:
        _check_counts(args, keywords)
        return self._method("repeat", args, keywords)

    def argsort(self, *args: Any, **keywords: Any) -> Any:
        return self._method("argsort", args, keywords)

    def astype(self, dtype: Any, *args: Any, **keywords: Any) -> Any:
        return self._method("astype", (dtype, *args), keywords)

    def copy(self, order: Any = "C") -> Any:
        if not self.recorder.active:
            return self.value.copy(order)
        out = self.recorder.fresh(self.value.copy(order))
        self.recorder.add(Call(assign, "copyto", (out.at, self.at), {}, "write", (out.at,)))
        return out

    def fill(self, value: Any) -> None:
        self.recorder.write("fill", np.ndarray.fill, (self, value), self)

    def sort(self, *args: Any) -> None:
        self.recorder.write("sort", np.ndarray.sort, (self, *args), self)

    # sums, products and the like

    def dot(self, other: Any, out: Any = None) -> Any:
        if not self.recorder.active:
            return self.value.dot(settled(other), settled(out))
        return self.recorder.into("dot", np.dot, (self, other), {} if out is None else {"out": out}, positional=True)

    def _reduced(self, ufunc: np.ufunc, names: tuple[str, ...], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return ufunc.reduce(self, **named_arguments(names, args, keywords))

    def sum(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.add, SUM, args, keywords)

    def prod(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.multiply, SUM, args, keywords)

    def any(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.logical_or, MAX, args, keywords)

    def all(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.logical_and, MAX, args, keywords)

    def max(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.maximum, MAX, args, keywords)

    def min(self, *args: Any, **keywords: Any) -> Any:
        return self._reduced(np.minimum, MAX, args, keywords)

    def _out(self, name: str, names: tuple[str, ...], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A method that takes `out=`."""
        if not self.recorder.active:
            return getattr(self.value, name)(*settled(args), **settled(keywords))
        named = {k: v for k, v in named_arguments(names, args, keywords).items() if not (k == "out" and v is None)}
        if not isinstance(self.value, np.ndarray):
            return self.recorder.copied(name, _OfNumber(name), (self,), named)
        return self.recorder.into(name, getattr(np.ndarray, name), (self,), named)

    def mean(self, *args: Any, **keywords: Any) -> Any:
        return self._out("mean", ("axis", "dtype", "out", "keepdims"), args, keywords)

    def var(self, *args: Any, **keywords: Any) -> Any:
        return self._out("var", ("axis", "dtype", "out", "ddof", "keepdims"), args, keywords)

    def std(self, *args: Any, **keywords: Any) -> Any:
        return self._out("std", ("axis", "dtype", "out", "ddof", "keepdims"), args, keywords)

    def argmax(self, *args: Any, **keywords: Any) -> Any:
        return self._out("argmax", ("axis", "out"), args, keywords)

    def argmin(self, *args: Any, **keywords: Any) -> Any:
        return self._out("argmin", ("axis", "out"), args, keywords)

    def cumsum(self, *args: Any, **keywords: Any) -> Any:
        return self._out("cumsum", ("axis", "dtype", "out"), args, keywords)

    def trace(self, *args: Any, **keywords: Any) -> Any:
        return self._out("trace", ("offset", "axis1", "axis2", "dtype", "out"), args, keywords)

    def round(self, *args: Any, **keywords: Any) -> Any:
        return self._out("round", ("decimals", "out"), args, keywords)

    def clip(self, *args: Any, **keywords: Any) -> Any:
        return np.clip(self, *args, **keywords)

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
        function: Any = np.take
        return function(self, indices, axis=axis, out=out, mode=mode)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self.recorder.active:
            return getattr(self.value, name)
        raise NotRecordable(f"ndarray.{name}")

    def __repr__(self) -> str:
        if not self.recorder.active:
            return repr(self.value)
        raise NotRecordable("the text of an array: it depends on the contents")

    def __reduce__(self) -> Any:
        raise NotRecordable("pickling an array while recording")


def _is_number(value: Any) -> bool:
    """Whether it is a number to Python, not an array: their powers are not quite those of `np.power`."""
    return not isinstance(value.value if isinstance(value, (Traced, Live)) else value, np.ndarray)


def _number_power(base: Any, exponent: Any) -> Any:
    return (base[()] if isinstance(base, np.ndarray) else base) ** (
        exponent[()] if isinstance(exponent, np.ndarray) else exponent
    )


class _OfNumber:
    """A method of a NumPy scalar, for the array without axes in which a replay has it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, number: Any, *args: Any, **keywords: Any) -> Any:
        return getattr(number[()], self.name)(*args, **keywords)


SUM = ("axis", "dtype", "out", "keepdims", "initial", "where")
"""What sums and products take in this order."""

MAX = ("axis", "out", "keepdims", "initial", "where")
"""What the other reductions take in this order."""


def named_arguments(names: tuple[str, ...], args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Positional arguments by name. Reductions of methods go over all axes by default."""
    if len(args) > len(names):
        raise NotRecordable(f"more than the arguments {', '.join(names)}")
    named = {**({"axis": None} if "axis" in names else {}), **dict(zip(names, args)), **keywords}
    return {k: v for k, v in named.items() if not (k in ("out", "dtype") and v is None)}


def assign(target: Any, value: Any) -> None:
    """`target[...] = value`."""
    target[...] = value


def assign_number(target: Any, value: Any) -> None:
    """`target[...] = value` of a NumPy scalar, which must not be infinite or NaN where integers are expected."""
    target[...] = value[()]


def _open(index: Any) -> Any:
    """An index whose result is a view, also where it names one element."""
    return (*index, ...) if isinstance(index, tuple) else (index, ...) if index is not ... else index


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None
        or part is ...
        or type(part) is slice
        or (isinstance(part, (int, np.integer)) and type(part) is not bool)
        for part in parts
    )


def _check_index(index: Any) -> None:
    """Raises for places whose number depends on contents."""
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, Traced) and part.dtype == bool:
            raise NotRecordable("a boolean array as an index: the size of the result depends on the contents")
        if (
            isinstance(part, Live)
            or isinstance(part, slice)
            and any(isinstance(end, (Live, Traced)) for end in (part.start, part.stop, part.step))
        ):
            raise NotRecordable("a number that changes from call to call as an index")


def _check_counts(args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    if any(True for _ in (*traces((args, keywords)), *lives((args, keywords)))):
        raise NotRecordable("repeat with an array of counts: the size of the result depends on the contents")
