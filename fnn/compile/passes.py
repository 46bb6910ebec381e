"""What makes a recording shorter, and its calls cheaper, without changing a bit of the results.

Each pass takes the list of calls and gives a new one. None looks at times, or at contents but those of constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnn.compile.placement import Moved, relocated
from fnn.compile.program import EXACT, Call, Storage, Variable, View, content, contiguous_strides, variables


# --- calls that nothing depends on ------------------------------------------------------------------------------------


def without_dead(calls: list[Call], kept: list[Storage], wanted: list[Variable]) -> list[Call]:
    """The calls that the results, or a guard, depend on, and those that raise where contents do not suit them."""
    live = {id(storage) for storage in kept}
    named = {variable.index for variable in wanted}
    found = []
    for call in reversed(calls):
        needed = (
            call.how in ("guard", "branch")
            or _is_draw(call)
            or _may_raise(call)
            or any(id(out.storage) in live for out in call.outs)
            or (call.target is not None and call.target.index in named)
        )
        if needed:
            found.append(call)
            live.update(id(view.storage) for view in call.reads())
            named.update(variable.index for variable in variables((call.args, call.keywords)))
    return found[::-1]


def with_numbers_first(calls: list[Call], given: set[int]) -> list[Call]:
    """What depends on numbers alone before all else: a replay that has to end for one of them ends early."""
    known, early, late = set(given), [], []
    for call in calls:
        alone = call.how in ("value", "branch") and not any(True for _ in call.reads()) and not _is_draw(call)
        if alone and all(variable.index in known for variable in variables((call.args, call.keywords))):
            early.append(call)
            if call.target is not None:
                known.add(call.target.index)
        else:
            late.append(call)
    return [*early, *late]


def _is_draw(call: Call) -> bool:
    """Whether the call moves a generator of random numbers on."""
    return "Generator." in getattr(call.f, "__qualname__", "")


_CHOOSING = {"take", "getitem", "setitem", "take_along_axis", "put_along_axis", "choose", "bincount", "assign"}


def _may_raise(call: Call) -> bool:
    """Whether contents may be an error: an index out of range, a negative power of integers, a singular matrix."""
    if call.f is np.power:
        return all(view.dtype.kind in "iub" for view in call.reads())
    if call.name in ("copyto", "fill"):
        return call.outs[0].dtype.kind in "iu" and any(True for _ in variables(call.args))
    return call.name in _CHOOSING or call.name.endswith(".at") or "linalg" in (getattr(call.f, "__module__", "") or "")


# --- the same call, made cheaper --------------------------------------------------------------------------------------


def with_cheap_calls(calls: list[Call]) -> list[Call]:
    """Products of small matrices through `dot`, and numbers as arrays without axes, of the dtype they are used in."""
    return [_cheaper(call) for call in calls]


_COPIES = {"reshape", "ravel", "flatten", "astype", "ascontiguousarray", "array", "copy"}


def _cheaper(call: Call) -> Call:
    if call.how == "copy" and call.name in _COPIES and isinstance(call.args[0], View) and len(call.outs) == 1:
        return _copying(call)
    if call.f is np.matmul and not call.keywords and len(call.args) == 2 and _is_plain_product(call):
        return Call(np.dot, "dot", call.args, {}, "out", call.outs, positional=True)
    if isinstance(call.f, np.ufunc) and call.how == "out" and not call.keywords:
        dtypes = {part.dtype for part in call.args if isinstance(part, View)}
        if len(dtypes) == 1 and call.f.nout == 1 and is_all(call.f, call.args, dtype := dtypes.pop()):
            args = tuple(_scalar(part, dtype) for part in call.args)
            return Call(call.f, call.name, args, {}, "out", call.outs, positional=call.positional)
    return call


def is_all(f: np.ufunc, args: tuple[Any, ...], dtype: np.dtype[Any]) -> bool:
    """Whether the function of these operands takes all of them as numbers of this dtype.

    `ldexp` takes integers, and `float_power` is always made in double precision.
    """
    kinds = [part.dtype if isinstance(part, (View, np.generic)) else type(part) for part in args]
    if dtype.kind not in "fiu" or len(args) != f.nin or any(kind in (bool, str) for kind in kinds):
        return False
    try:
        found = f.resolve_dtypes((*kinds, *[None] * f.nout))
    except TypeError:
        return False
    return all(part == dtype for part in found[: f.nin])


def _copying(call: Call) -> Call:
    """A copy in another order, shape or dtype, made without the array between."""
    source, out = call.args[0], call.outs[0]
    if call.name in ("reshape", "ravel", "flatten"):
        if not out.contiguous or any(isinstance(part, str) for part in (*call.args, *call.keywords.values())):
            return call
        out = View(
            out.storage, out.offset, out.dtype, source.shape, contiguous_strides(source.shape, out.dtype.itemsize)
        )
    elif source.shape != out.shape:
        return call
    return Call(np.copyto, "copyto", (out, source), {}, "write", (out,))


def _is_plain_product(call: Call) -> bool:
    a, b = call.args
    return (
        all(isinstance(part, View) and len(part.shape) == 2 and min(part.shape) > 1 for part in (a, b, *call.outs))
        and a.dtype == b.dtype == call.outs[0].dtype
        and a.dtype.kind == "f"
        and call.outs[0].contiguous
        and all(_is_matrix(part) for part in (a, b))
    )


def _is_matrix(view: View) -> bool:
    """Whether BLAS takes it as it lies, or transposed."""
    rows, columns = view.strides
    n, m = view.shape
    size = view.dtype.itemsize
    return (columns == size and rows == m * size) or (rows == size and columns == n * size)


def _scalar(part: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.kind != "f" and type(part) is int and not np.iinfo(dtype).min <= part <= np.iinfo(dtype).max:
        return part
    same = isinstance(part, np.generic) and part.dtype == dtype
    if same or type(part) is int or type(part) is float and dtype.kind == "f":
        array = np.array(part, dtype)
        array.setflags(write=False)
        return View(Storage("constant", array.nbytes, array), 0, dtype, (), ())
    return part


def with_whole_operands(calls: list[Call]) -> list[Call]:
    """Operands without axes, or of one row, repeated for as long as NumPy is fast with; the same numbers meet.

    `maximum(x, 0)` is several times slower than with an array of zeros, and the sum with a row than the sum with many
    rows at once.
    """
    wholes: dict[tuple[bytes, np.dtype[Any], int], Storage] = {}
    return [part for call in calls for part in _with_rows(_with_whole_number(call, wholes))]


ROW = 1 << 13
"""Numbers in a repeated operand, at most: each time that it is begun anew costs as much as some hundred numbers."""


def _with_whole_number(call: Call, wholes: dict[tuple[bytes, np.dtype[Any], int], Storage]) -> Call:
    """`maximum` or `minimum` of an array and a constant without axes, as one of rows of numbers as they lie."""
    if call.f not in (np.maximum, np.minimum) or call.keywords or call.how != "out" or len(call.args) != 2:
        return call
    out = call.outs[0]
    side = next((j for j in (0, 1) if _is_number(call.args[j], out) and _is_alike(call.args[1 - j], out)), None)
    if side is None or not _is_dense(out) or out.size < 2:
        return call
    number, other = call.args[side], call.args[1 - side]
    n = _divisor(out.size, ROW)
    n = n if n > ROW // 16 else out.size
    key = content(number) or b"", out.dtype, n
    if key not in wholes:
        array = np.repeat(np.frombuffer(*key[:2]), n)
        array.setflags(write=False)
        wholes[key] = Storage("constant", array.nbytes, array)
    shape = (out.size // n, n)
    args = [_in_rows(other, shape)] * 2
    args[side] = View(wholes[key], 0, out.dtype, (n,), (out.dtype.itemsize,))
    return Call(call.f, call.name, tuple(args), {}, "out", (_in_rows(out, shape),), positional=call.positional)


def _is_number(part: Any, out: View) -> bool:
    return isinstance(part, View) and part.shape == () and part.dtype == out.dtype and content(part) is not None


def _is_alike(part: Any, out: View) -> bool:
    return isinstance(part, View) and (part.shape, part.strides, part.dtype) == (out.shape, out.strides, out.dtype)


def _is_dense(view: View) -> bool:
    """Whether its elements follow each other in some order of the axes."""
    step = view.dtype.itemsize
    for stride, n in sorted((stride, n) for n, stride in zip(view.shape, view.strides) if n != 1):
        if stride != step:
            return False
        step *= n
    return True


def _with_rows(call: Call) -> list[Call]:
    """A function of an array and a row, as one of longer rows: the row is repeated first."""
    if call.f not in EXACT or call.keywords or call.how != "out" or len(call.args) != 2 or len(call.outs[0].shape) < 2:
        return [call]
    out = call.outs[0]
    n, m = out.size // max(1, out.shape[-1]), out.shape[-1]
    side = next((j for j in (0, 1) if _is_row(call.args[j], out) and _is_full(call.args[1 - j], out)), None)
    times = _divisor(n, ROW // max(1, m))
    if side is None or not _is_full(out, out) or m < 2 or times < 4 or n < 8:
        return [call]
    row, size = call.args[side], out.dtype.itemsize
    table = Storage("scratch", times * m * size)
    tile = View(table, 0, out.dtype, (times, m), (m * size, size))
    source = View(row.storage, row.offset, row.dtype, (m,), row.strides[-1:])
    shape = (n // times, times * m)
    args = [_in_rows(call.args[1 - side], shape)] * 2
    args[side] = View(table, 0, out.dtype, shape[1:], (size,))
    return [
        Call(np.copyto, "copyto", (tile, source), {}, "write", (tile,)),
        Call(call.f, call.name, tuple(args), {}, "out", (_in_rows(out, shape),), positional=True),
    ]


def _in_rows(view: View, shape: tuple[int, int]) -> View:
    """The same numbers, as they follow each other in memory, as a matrix."""
    return View(view.storage, view.offset, view.dtype, shape, contiguous_strides(shape, view.dtype.itemsize))


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`, or 1."""
    return next((k for k in range(min(n, most), 0, -1) if n % k == 0), 1)


def _is_row(part: Any, out: View) -> bool:
    """Whether it has only the last axis of the result."""
    if not isinstance(part, View) or part.dtype != out.dtype or not part.shape or part.shape[-1] != out.shape[-1]:
        return False
    return part.size == part.shape[-1]


def _is_full(part: Any, out: View) -> bool:
    return isinstance(part, View) and part.shape == out.shape and part.dtype == out.dtype and part.contiguous


# --- arguments that are looked at in parts ----------------------------------------------------------------------------


def with_copied_arguments(
    calls: list[Call], arguments: dict[int, View], results: list[View]
) -> tuple[list[Call], Moved]:
    """Arguments of which more is used than `place_in` can say are copied first: then their views stay the same."""
    hard = {
        view.storage.source
        for view in [*results, *(view for call in calls for view in call.reads())]
        if view.storage.kind == "argument" and place_in(arguments[view.storage.source], view) is None
    }
    moved: Moved = {}
    copies: list[Call] = []
    for i in sorted(hard):
        whole = arguments[i]
        copy = Storage("scratch", whole.storage.nbytes)
        moved[id(whole.storage)] = copy, 0
        target = whole.moved(copy, whole.offset)
        copies.append(Call(np.copyto, "copyto", (target, whole), {}, "write", (target,)))
    return [*copies, *relocated(calls, moved)], moved


def place_in(whole: View, view: View) -> str | None:
    """The Python expression that makes a view from its argument `{}`, if there is a short one."""
    if view.dtype != whole.dtype:
        return None
    if (view.offset, view.shape, view.strides) == (whole.offset, whole.shape, whole.strides):
        return "{}"
    if view.offset != whole.offset or view.size != whole.size or view.size == 0:
        return None
    if view.contiguous and whole.contiguous:
        return "{}.reshape(" + repr(view.shape) + ")"
    axes = len(whole.shape)
    if len(view.shape) == axes == 2 and (view.shape, view.strides) == (whole.shape[::-1], whole.strides[::-1]):
        return "{}.T"
    turned = View(view.storage, view.offset, view.dtype, view.shape[::-1], view.strides[::-1])
    if len(view.shape) == 2 and turned.contiguous and whole.contiguous:
        return "{}.reshape(" + repr(turned.shape) + ").T"
    pairs = list(zip(whole.shape, whole.strides))
    if len(view.shape) == axes and len(set(pairs)) == axes and sorted(pairs) == sorted(zip(view.shape, view.strides)):
        return "{}.transpose(" + repr(tuple(pairs.index(pair) for pair in zip(view.shape, view.strides))) + ")"
    return None
