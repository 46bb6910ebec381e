"""The laws of losses, one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fnn import tree
from fnn.losses.core import ratio, sums_of
from fnn.testing.comparison import (
    CLOSE,
    CLOSE_FLOAT32,
    LawError,
    copied,
    describe,
    pickled,
    require,
    require_alike,
    require_equal,
    rows,
    shape_of,
    turned,
)
from fnn.testing.derivatives import Claim, gradient_error
from fnn.testing.subjects import LossSubject
from fnn.types import Array, ShapeError


def loss_value_law(s: LossSubject) -> float:
    """The value is the mean of the losses of the examples, with weights `sum(w l) / sum(w)`: a 0-d array.

    For losses with `sums` it is what these give.
    """
    output, target = s.point()
    each = s.loss.each(output, target)
    require(shape_of(each) == (s.batch,), f"each: expected shape {(s.batch,)}, got {shape_of(each)}")
    for weight in s.weights:
        name = _weighting(weight)
        value = s.loss.forward(output, target, weight)[0]
        scalar = isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0
        require(scalar, f"value {name}: expected a 0-d array, got {describe(value)}")
        mean = ratio(s.loss.sums(output, target, weight)) if s.loss.sums else np.average(each, weights=weight)
        require_equal(f"value {name}", np.asarray(value), np.asarray(mean), "the mean of the examples is", CLOSE)
    return 0.0


def _weighting(weight: Array | None) -> str:
    return "without weights" if weight is None else "with weights"


def loss_purity_law(s: LossSubject) -> float:
    """Output, target, weights and cache are not changed; a second call gives the same, and nothing is remembered."""
    output, target = s.point()
    for weight in s.weights:
        given: dict[str, Any] = {"output": output, "target": target, "weight": weight}
        before = copied(given)
        value, cache = s.loss.forward(output, target, weight)
        s.loss.each(output, target)
        require_equal("second value", s.loss.forward(output, target, weight)[0], value, "the first")
        given["cache"] = tree.read_only(cache)
        before["cache"] = copied(cache)
        d_output = copied(s.loss.vjp(given["cache"]))
        require_equal("second vjp of the same cache", s.loss.vjp(given["cache"]), d_output, "the first")
        require_equal("the loss changes what it is given", given, before, "it was")
        s.loss.forward(turned(output), turned(target), weight)
        again = s.loss.vjp(given["cache"])
        require_equal("vjp of a cache, after forward of another output,", again, d_output, "before it")
    return 0.0


def loss_dtype_law(s: LossSubject) -> float:
    """Value, losses of the examples and derivative have the output's dtype, whatever target and weights have."""
    for dtype in (np.float32, np.float64):
        for other in (np.float32, np.float64):
            output, target = s.point(dtype, other)
            for weight in s.weights:
                value, cache = s.loss.forward(output, target, tree.cast(weight, other))
                require_alike(f"value {_weighting(weight)}", np.asarray(value), np.zeros((), dtype))
                require_alike(f"d_output {_weighting(weight)}", s.loss.vjp(cache), output)
            require_alike("each", s.loss.each(output, target), np.zeros(s.batch, dtype))
    return 0.0


def loss_derivative_law(s: LossSubject) -> float:
    """`vjp` is the derivative of the value, by central differences in float64."""
    output, target = s.point()
    errors = []
    for weight in s.weights:
        d_output = s.loss.vjp(s.loss.forward(output, target, weight)[1])
        require_alike("d_output", d_output, output)

        def f(at: Any, weight: Array | None = weight) -> Any:
            return s.loss.forward(at["output"], target, weight)[0]

        claim = Claim(f, np.ones(()), {"output": output}, {"output": d_output})
        errors.append(gradient_error(claim, s.tolerance, _weighting(weight)))
    return max(errors)


def loss_precision_law(s: LossSubject) -> float:
    """float32 gives the numbers of float64 to its precision, in value and derivative."""
    output, target = s.point(np.float32, np.float32)
    for weight in s.weights:
        single, double = (_loss_pass(s, output, target, weight, dtype) for dtype in (np.float32, np.float64))
        require_equal(f"float32 {_weighting(weight)}", single, double, "float64 gives", CLOSE_FLOAT32)
    return 0.0


def _loss_pass(s: LossSubject, output: Any, target: Any, weight: Array | None, dtype: Any) -> Any:
    """Value and derivative, computed with the dtype."""
    value, cache = s.loss.forward(tree.cast(output, dtype), tree.cast(target, dtype), tree.cast(weight, dtype))
    return tree.cast({"value": np.asarray(value), "d_output": s.loss.vjp(cache)}, np.float64)


def loss_examples_law(s: LossSubject) -> float:
    """The loss of an example is what it is alone, and `sums` of parts of a batch add up to those of the whole."""
    output, target = s.point()
    if s.loss.couples_batch:
        return 0.0
    each, sums = s.loss.each(output, target), sums_of(s.loss)
    for i in range(s.batch):
        alone = s.loss.each(rows(output, i), rows(target, i))
        require_equal(f"each for example {i} alone", alone, each[i : i + 1], "in the batch", CLOSE)
    for weight in s.weights:
        parts = [sums(*rows((output, target, weight), i)) for i in range(s.batch)]
        whole = sums(output, target, weight)
        total = np.sum(parts, axis=0)
        require_equal(f"sums {_weighting(weight)} of the examples", total, whole, "of the batch", CLOSE)
    return 0.0


def loss_pickle_law(s: LossSubject) -> float:
    """Loss and cache survive pickling: what comes back gives the same bits."""
    output, target = s.point()
    copy = pickled("the loss", s.loss)
    value, cache = s.loss.forward(output, target, None)
    require_equal("value of the pickled loss", copy.forward(output, target, None)[0], value, "the original's")
    d_output = copy.vjp(pickled("the cache", cache))
    require_equal("vjp from the pickled cache", d_output, s.loss.vjp(cache), "from the original")
    return 0.0


def loss_shape_law(s: LossSubject) -> float:
    """Nothing is broadcast: targets of another rank, and targets or weights of another number, raise `ShapeError`."""
    output, target = s.point()
    wrong_targets = {
        "with one example": rows(target, 0),
        "with one axis more": tree.map(lambda a: a[..., None], target),
        "with one axis less": tree.map(lambda a: a[..., 0], target),
        "with one example more": tree.map(lambda a: np.concatenate([a, a[:1]]), target),
    }
    for how, wrong in wrong_targets.items() if tree.leaves(target) else ():
        _require_refused(f"forward of a target {how}", s.loss.forward, output, wrong, None)
        _require_refused(f"each of a target {how}", s.loss.each, output, wrong)
    for size in ((s.batch, 1), (s.batch + 1,), (1,), ()):
        _require_refused(f"forward with weights {size}", s.loss.forward, output, target, np.ones(size))
    return 0.0


def _require_refused(what: str, f: Callable[..., Any], *arguments: Any) -> None:
    try:
        f(*arguments)
    except ShapeError:
        return
    except Exception as error:
        raise LawError(f"{what} raises {type(error).__name__}, not a ShapeError: {error}") from error
    raise LawError(f"{what} gives a number; it must raise ShapeError")


LOSS_LAWS: Mapping[str, Callable[[LossSubject], float]] = {
    "value": loss_value_law,
    LossSubject.purity: loss_purity_law,
    "dtype": loss_dtype_law,
    "derivative": loss_derivative_law,
    "precision": loss_precision_law,
    "examples": loss_examples_law,
    "pickling": loss_pickle_law,
    "broadcasting": loss_shape_law,
}
"""The laws of losses, the later ones relying on the earlier."""
