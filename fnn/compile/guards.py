"""Guards on single numbers, as conditions of Python: as arrays without axes, each comparison costs a call."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from fnn.compile.program import Call, View

SYMBOLS: dict[Any, str] = {
    np.greater: ">",
    np.greater_equal: ">=",
    np.less: "<",
    np.less_equal: "<=",
    np.equal: "==",
    np.not_equal: "!=",
    np.bitwise_and: "and",
    np.logical_and: "and",
    np.bitwise_or: "or",
    np.logical_or: "or",
    np.invert: "not",
    np.logical_not: "not",
}


def with_plain_guards(calls: list[Call]) -> list[Call]:
    """Guards with their comparisons inside, as nested tuples `(symbol, operand, ...)`; their calls may be dead then.

    Only what is written once is looked at later than it was.
    """
    if not any(call.how == "guard" for call in calls):
        return calls
    writes = Counter(id(out.storage) for call in calls for out in call.outs)
    once = {id(out.storage): call for call in calls for out in call.outs if writes[id(out.storage)] == 1}

    def plain(part: Any) -> Any:
        call = once.get(id(part.storage)) if isinstance(part, View) else None
        symbol = SYMBOLS.get(call.f) if call is not None and call.how == "out" else None
        if call is None or symbol is None or call.keywords or part.dtype != np.bool_:
            return part
        operands = _operands(call.args)
        if operands is None or symbol in ("and", "or", "not") and any(kind != np.bool_ for kind, _ in operands):
            return part
        if any(isinstance(value, View) and id(value.storage) not in once for _, value in operands):
            return part
        return symbol, *[plain(value) for _, value in operands]

    return [Call(None, "guard", (plain(call.args[0]),), {}, "guard") if call.how == "guard" else call for call in calls]


def _operands(args: tuple[Any, ...]) -> list[tuple[np.dtype[Any], Any]] | None:
    """Dtypes, and views without axes or Python numbers; `None` where Python does not compare them as NumPy does."""
    dtypes = {part.dtype for part in args if isinstance(part, View) and part.shape == ()}
    if len(dtypes) != 1 or (dtype := dtypes.pop()).kind not in "biuf":
        return None
    found: list[tuple[np.dtype[Any], Any]] = []
    for part in args:
        if isinstance(part, View):
            if part.shape != () or part.dtype != dtype:
                return None
            found.append((dtype, part))
            continue
        if type(part) not in (int, float) or not math.isfinite(part) or type(part) is float and dtype.kind != "f":
            return None
        found.append((dtype, dtype.type(part).item() if dtype.kind == "f" else part))
    return found
