"""The NumPy functions that a recording may contain, by how they are replayed.

Only functions are listed that are pure and give arrays whose shapes depend on shapes alone; any other is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnn.compile.program import Call, NotRecordable
from fnn.compile.recorder import Recorder
from fnn.compile.stand_ins import MAX, SUM, Traced, lives, named_arguments, run, traces

_CLIP: Any = getattr(np, "_core").umath.clip
"""The ufunc that `np.clip` calls."""

Rule = Callable[[Recorder, tuple[Any, ...], dict[str, Any]], Any]


def call(recorder: Recorder, f: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Makes the call for real and notes it."""
    if f in _SHAPES:
        return run(f, *args, **keywords)
    if f in _RULES:
        return _RULES[f](recorder, args, keywords)
    if f in _WITH_OUT:
        return recorder.into(_name(f), f, args, {k: v for k, v in keywords.items() if not (k == "out" and v is None)})
    if f in _COPIED:
        return recorder.copied(_name(f), f, args, keywords)
    raise NotRecordable(f"numpy.{_name(f)}")


def _name(f: Any) -> str:
    return str(getattr(f, "__name__", f))


_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj, np.min_scalar_type}
"""They look at shapes and dtypes only."""

_WITH_OUT = {
    np.concatenate,
    np.stack,
    np.einsum,
    np.take,
    np.cumsum,
    np.cumprod,
    np.argmax,
    np.argmin,
    np.mean,
    np.var,
    np.std,
    np.trace,
    np.outer,
    np.round,
    np.around,
    np.choose,
}

_COPIED = {
    # views of what they are given, or copies
    np.reshape,
    np.ravel,
    np.transpose,
    np.swapaxes,
    np.moveaxis,
    np.rollaxis,
    np.squeeze,
    np.expand_dims,
    np.broadcast_to,
    np.broadcast_arrays,
    np.atleast_1d,
    np.atleast_2d,
    np.atleast_3d,
    np.split,
    np.array_split,
    np.hsplit,
    np.vsplit,
    np.flip,
    np.fliplr,
    np.flipud,
    np.diagonal,
    np.diag,
    np.real,
    np.lib.stride_tricks.sliding_window_view,
    # new arrays
    np.array,
    np.copy,
    np.vdot,
    np.inner,
    np.tensordot,
    np.kron,
    np.cross,
    np.tile,
    np.roll,
    np.rot90,
    np.pad,
    np.sort,
    np.argsort,
    np.tril,
    np.triu,
    np.where,
    np.select,
    np.take_along_axis,
    np.diff,
    np.vstack,
    np.hstack,
    np.column_stack,
    np.bincount,
    np.searchsorted,
    np.digitize,
    np.interp,
    np.unravel_index,
    np.average,
    np.isclose,
    np.linalg.norm,
    np.linalg.qr,
    np.linalg.svd,
    np.linalg.inv,
    np.linalg.solve,
    np.linalg.cholesky,
    np.linalg.eigh,
    np.linalg.det,
    np.linalg.slogdet,
}


# --- functions that are others -----------------------------------------------------------------------------------


def _reduction(ufunc: np.ufunc) -> Rule:
    def rule(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        a, *rest = args
        given = {k: v for k, v in keywords.items() if v is not np._NoValue}
        return ufunc.reduce(a, **named_arguments(SUM if ufunc in (np.add, np.multiply) else MAX, tuple(rest), given))

    return rule


def _dot(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    options = {k: v for k, v in keywords.items() if v is not None}
    if len(args) == 3:
        options["out"] = args[2]
    return recorder.into("dot", np.dot, args[:2], options, positional=True)


def _clip(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    a, *rest = args
    named = dict(zip(("a_min", "a_max", "out"), rest)) | {k: v for k, v in keywords.items() if v is not np._NoValue}
    low, high = named.pop("a_min", named.pop("min", None)), named.pop("a_max", named.pop("max", None))
    options = {k: v for k, v in named.items() if v is not None}
    if low is None or high is None:
        ufunc, end = (np.minimum, high) if low is None else (np.maximum, low)
        return ufunc(a, end, **options)
    return _CLIP(a, low, high, **options)


def _copyto(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    target: Traced = args[0]
    if keywords:
        source, names = args[1:], tuple(keywords)
        recorder.write("copyto", _Copy(names), (target, *source, *keywords.values()), target)
    else:
        recorder.write("copyto", np.copyto, args, target)


class _Copy:
    """`np.copyto` with named options in the place of positional ones."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, target: Any, source: Any, *options: Any) -> None:
        np.copyto(target, source, **dict(zip(self.names, options)))


def _like(fill: Any) -> Rule:
    """`empty_like` and its kin."""

    def rule(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        out = recorder.fresh(run(np.empty_like, *args, **keywords))
        if fill is not None:
            value = out.dtype.type(fill)
            recorder.add(Call(np.ndarray.fill, "fill", (out.at, value), {}, "write", (out.at,)))
            out.value.fill(value)
        return out

    return rule


def _full_like(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    a, *rest = args
    value = rest.pop(0) if rest else keywords.pop("fill_value")
    out = np.empty_like(a, *rest, **keywords)
    out[...] = value
    return out


def _put_along_axis(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    if keywords:
        args = (*args, *[keywords[name] for name in ("arr", "indices", "values", "axis") if name in keywords])
    recorder.write("put_along_axis", np.put_along_axis, args, args[0])


def _count_nonzero(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if type(run(np.count_nonzero, *args, **keywords)) is int:  # NumPy before 2.4
        return recorder.value("count_nonzero", np.count_nonzero, args, keywords)
    return recorder.copied("count_nonzero", np.count_nonzero, args, keywords)


def _where(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if len(args) != 3:
        raise NotRecordable("numpy.where with a condition alone: the size of the result depends on the contents")
    return recorder.copied("where", np.where, args, keywords)


def _counted(f: Any) -> Rule:
    """Functions whose result's size depends on an argument that must not be an array of the recording."""

    def rule(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        counts = args[1:], {k: v for k, v in keywords.items() if k != "a"}
        if any(True for _ in (*traces(counts), *lives(counts))):
            raise NotRecordable(f"numpy.{_name(f)}: the size of the result depends on the contents")
        return recorder.copied(_name(f), f, args, keywords)

    return rule


def _unless(name: str, value: Any, f: Any) -> Rule:
    """A function that writes to its argument if it is told to, which is not known how to note."""

    def rule(recorder: Recorder, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if len(args) > 1 and f is np.nan_to_num or keywords.get(name, not value) is not (not value):
            raise NotRecordable(f"numpy.{_name(f)} with {name}={value}")
        return recorder.copied(_name(f), f, args, keywords)

    return rule


_RULES: dict[Any, Rule] = {
    np.sum: _reduction(np.add),
    np.prod: _reduction(np.multiply),
    np.max: _reduction(np.maximum),
    np.amax: _reduction(np.maximum),
    np.min: _reduction(np.minimum),
    np.amin: _reduction(np.minimum),
    np.any: _reduction(np.logical_or),
    np.all: _reduction(np.logical_and),
    np.dot: _dot,
    np.clip: _clip,
    np.copyto: _copyto,
    np.empty_like: _like(None),
    np.zeros_like: _like(0),
    np.ones_like: _like(1),
    np.full_like: _full_like,
    np.put_along_axis: _put_along_axis,
    np.where: _where,
    np.count_nonzero: _count_nonzero,
    np.repeat: _counted(np.repeat),
    np.nan_to_num: _unless("copy", False, np.nan_to_num),
    np.median: _unless("overwrite_input", True, np.median),
}
