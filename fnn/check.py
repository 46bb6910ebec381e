"""The checks that layers share: hyper-parameters, announced shapes, and arrays that do not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnn.types import Shape, ShapeError


def positive(who: str, name: str, value: int) -> int:
    """The value if it is a positive integer; `ValueError` names what it was for."""
    if isinstance(value, (bool, float)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{who}: expected {name} to be a positive integer, got {_shown(value)}")
    return int(value)


def fraction(who: str, name: str, value: float) -> float:
    """The value if it lies in [0, 1); `ValueError` names what it was for."""
    if not (_is_number(value) and 0 <= value < 1):
        raise ValueError(f"{who}: expected {name} in [0, 1), got {value!r}")
    return _as_float(value)


def number(who: str, name: str, value: float, above: float = -math.inf, below: float = math.inf) -> float:
    """The value if it is a finite number, larger than `above` and smaller than `below`; else `ValueError`."""
    if not (_is_number(value) and -math.inf < value < math.inf):
        raise ValueError(f"{who}: expected {name} to be a finite number, got {value!r}")
    if not above < value < below:
        bounds = [f"larger than {above:g}"] * (above > -math.inf) + [f"smaller than {below:g}"] * (below < math.inf)
        raise ValueError(f"{who}: expected {name} to be {' and '.join(bounds)}, got {value!r}")
    return _as_float(value)


def not_negative(who: str, name: str, value: float) -> float:
    """The value if it is finite and at least 0; `ValueError` names what it was for."""
    if not (_is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{who}: expected a finite {name} of at least 0, got {value!r}")
    return _as_float(value)


def above_zero(who: str, name: str, value: float) -> float:
    """The value if it is finite and above 0; `ValueError` names what it was for."""
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{who}: expected a finite {name} above 0, got {value!r}")
    return _as_float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def _as_float(value: float) -> float:
    """A Python float as it is: it may be one that changes from call to call (`fnn.recordable.live`)."""
    return value if isinstance(value, float) and not isinstance(value, np.floating) else float(value)


def _shown(value: Any) -> str:
    """The value, or of what type it is, where it is long."""
    return text if len(text := repr(value)) < 80 else type(value).__name__


def call_hint(part: Any, arguments: str = "...") -> str:
    """What to say where a function that makes a part was given in its place."""
    return f"; call it: {part.__name__}({arguments})" if callable(part) and hasattr(part, "__name__") else ""


def feature_shape(who: str, in_shape: Any) -> Shape:
    """The shape of one example if it has a feature axis at all."""
    if not isinstance(in_shape, tuple) or not in_shape or not all(isinstance(n, (int, np.integer)) for n in in_shape):
        raise ShapeError(f"{who}: expected an input shape (..., features), got {in_shape!r}")
    return in_shape


def check_bias(who: str, params: Any, weight: Any) -> None:
    """Raises where a bias would be broadcast or converted in silence."""
    bias = params.get("bias")
    if bias is not None and (bias.shape != weight.shape[-1:] or bias.dtype != weight.dtype):
        raise ShapeError(f"{who}: expected a bias {weight.dtype} {weight.shape[-1:]}, got {bias.dtype} {bias.shape}")


def input_error(who: str, expected: str, x: Any, weight: Any) -> Exception:
    """The error for an input that a layer with the parameter `weight` cannot take: its type, its dtype or its shape."""
    if not isinstance(x, np.ndarray):
        return TypeError(f"{who}: expected an array, got {type(x).__name__}; use np.asarray(x, np.float32)")
    if x.dtype != weight.dtype:
        return TypeError(
            f"{who}: the parameters are {weight.dtype}, the input is {x.dtype}; "
            f"convert one of them: x.astype(np.{weight.dtype}) or fnn.tree.cast(params, dtype)"
        )
    return ShapeError(f"{who}: expected input {expected}, got {x.shape}")
