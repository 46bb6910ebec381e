"""The laws of layers, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np

from fnn import tree
from fnn.contract import Eval, Layer, Mode, Train, evaluator, inputs_vjp, params_vjp, trainable
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
from fnn.testing.subjects import LayerSubject, differentiable, full, several
from fnn.types import Array, Params, ShapeError, State


def init_law(s: LayerSubject) -> float:
    """`init` gives read-only float32 arrays, and the same ones for the same key."""
    params = s.layer.init(s.key, s.in_shape)
    require_equal("init", s.layer.init(s.key, s.in_shape), params, "before, for the same key,")
    for path, leaf in tree.items(params):
        right = isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
        require(right, f"{path}: expected a float32 array, got {describe(leaf)}")
        require(not leaf.flags.writeable, f"{path}: expected a read-only array; `layer` and `tree.read_only` make one")
    return 0.0


def shape_law(s: LayerSubject) -> float:
    """`out_shape` is the shape that `forward` gives."""
    params, state, x = s.point()
    promised = full(s.layer.out_shape(s.in_shape), s.batch)
    for mode in s.modes:
        given = shape_of(s.layer.forward(params, state, x, mode)[0])
        require(given == promised, f"out_shape promises {promised}, forward gives {given} ({_mode(mode)})")
    return 0.0


def purity_law(s: LayerSubject) -> float:
    """Nothing that was given is changed: parameters, state, input, cache, dy. (All their arrays are read-only, too.)"""
    params, state, x = s.point()
    given: dict[str, Any] = {"params": params, "state": state, "x": x}
    original = copied(given)
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        require_equal("forward changes what it is given", given, original, "it was")
        of_vjp = {"params": params, "cache": tree.read_only(cache), "dy": s.cotangent(y)}
        before = copied(of_vjp)
        s.vjp(params, of_vjp["cache"], of_vjp["dy"], x)
        require_equal("vjp changes what it is given", of_vjp, before, "it was")
        params_vjp(s.layer)(params, of_vjp["cache"], of_vjp["dy"])
        require_equal("param_vjp changes what it is given", of_vjp, before, "it was")
    evaluator(s.layer)(params, state, x)
    require_equal("infer changes what it is given", given, original, "it was")
    return 0.0


def gradient_law(s: LayerSubject) -> float:
    """Gradients have structure, shapes and dtypes of what they belong to (`None` where parameters are frozen).

    float32 stays float32, float64 float64.
    """
    for dtype in (np.float32, np.float64):
        params, state, x = s.point(dtype)
        floats = any(np.asarray(leaf).dtype.kind == "f" for leaf in tree.leaves((params, x)))
        for mode in s.modes:
            y, after, cache = s.layer.forward(params, state, x, mode)
            if floats:
                require_alike("output", y, tree.map(lambda a: np.asarray(a, dtype), y))
            require_alike("state", after, state)
            dy = s.cotangent(y)
            grads, dx = s.vjp(params, cache, dy, x)
            require_alike("grads", grads, trainable(s.layer, params))
            require_alike("dx", dx, differentiable(x, x))
            require_alike("param_vjp", params_vjp(s.layer)(params, cache, dy), grads)
        require_alike("infer", evaluator(s.layer)(params, state, x), y)
    return 0.0


def mode_law(s: LayerSubject) -> float:
    """A pass depends on its arguments alone. Eval leaves the state as it is, Train keeps its structure."""
    params, state, x = s.point()
    start = s.layer.init_state(s.in_shape)
    require_alike("state after the first pass", tree.cast(state, np.float32), tree.cast(start, np.float32))
    for mode in s.modes:
        y, after, _ = s.layer.forward(params, state, x, mode)
        y_again, after_again, _ = s.layer.forward(params, state, x, mode)
        require_equal(f"output of a second, equal call ({_mode(mode)})", y_again, y, "of the first")
        require_equal(f"state after a second, equal call ({_mode(mode)})", after_again, after, "after the first")
        require_alike(f"state after {_mode(mode)}", after, state)
        if isinstance(mode, Eval):
            require_equal("state after Eval", after, state, "before it")
        elif not s.layer.draws:
            y_other = s.layer.forward(params, state, x, Train(s.key.fold_in("other")))[0]
            require_equal("output for another key, although draws=False,", y_other, y, "for the first key")
    return 0.0


def linear_law(s: LayerSubject) -> float:
    """`vjp` is linear in dy, and gives the same when it is called again: it remembers neither dy nor another input."""
    params, state, x = s.point()
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        a, b = s.cotangent(y, "a"), s.cotangent(y, "b")
        of_a, of_b = copied(s.vjp(params, cache, a, x)), copied(s.vjp(params, cache, b, x))
        require_equal("second vjp of the same dy", s.vjp(params, cache, a, x), of_a, "the first")
        s.layer.forward(params, state, turned(x), mode)
        require_equal("vjp after a forward of another input", s.vjp(params, cache, a, x), of_a, "before it")
        of_both = s.vjp(params, cache, tree.read_only(tree.map(_combine, a, b)), x)
        require_equal("vjp(20 a - 30 b)", of_both, tree.map(_combine, of_a, of_b), "20 vjp(a) - 30 vjp(b) is", CLOSE)
    return 0.0


def _combine(a: Array, b: Array) -> Array:
    return np.asarray(20 * a - 30 * b)


def derivative_law(s: LayerSubject) -> float:
    """`vjp` is the derivative of `forward`, by central differences in float64."""
    params, state, x = s.point()
    floats, others = tree.partition(x, lambda path, a: bool(np.asarray(a).dtype.kind == "f"))
    moving = trainable(s.layer, params)
    errors = []
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        grads, dx = s.vjp(params, cache, dy, x)
        require_alike("grads", grads, moving)
        require_alike("dx", dx, floats)

        def f(at: Any, mode: Mode = mode) -> Any:
            return s.layer.forward(_overlaid(params, at["params"]), state, tree.merge(at["x"], others), mode)[0]

        claim = Claim(f, dy, {"params": moving, "x": floats}, {"params": grads, "x": dx})
        errors.append(gradient_error(claim, s.tolerance, _mode(mode)))
    return max(errors)


def _overlaid(whole: Any, part: Any) -> Any:
    """`whole` with the leaves of `part` in place of its own, where `part` has some."""
    if not isinstance(part, Mapping):
        return whole if part is None else part
    return {**whole, **{name: _overlaid(whole[name], below) for name, below in part.items()}}


def precision_law(s: LayerSubject) -> float:
    """float32 gives the numbers of float64 to its precision; the other laws look at the numbers of float64 alone."""
    point = s.point(np.float32)
    for mode in s.modes:
        if isinstance(mode, Train) and s.layer.draws:  # what is drawn may depend on the dtype
            continue
        dy = s.cotangent(s.layer.forward(*point, mode)[0])
        single = tree.cast(_pass(s, (*point, dy), mode), np.float64)
        double = _pass(s, tree.cast((*point, dy), np.float64), mode)
        require_equal(f"float32 ({_mode(mode)})", single, double, "float64 gives", CLOSE_FLOAT32)
    return 0.0


def _pass(s: LayerSubject, at: tuple[Params, State, Any, Any], mode: Mode) -> dict[str, Any]:
    """The results of forward and vjp at `(params, state, x, dy)`."""
    params, state, x, dy = at
    y, _, cache = s.layer.forward(params, state, x, mode)
    grads, dx = s.vjp(params, cache, dy, x)
    return {"output": y, "grads": grads, "dx": dx}


def batch_law(s: LayerSubject) -> float:
    """A batch equals its examples one by one, and its gradient is the sum of theirs (but for `couples_batch`)."""
    params, state, x = s.point()
    for mode in s.modes:
        couples = s.layer.couples_batch
        coupled = couples is True or (isinstance(mode, Train) and (couples or s.layer.draws))
        if coupled:
            continue
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        grads, dx = s.vjp(params, cache, dy, x)
        total = tree.zeros_like(grads)
        meant = "(a layer that is meant to look at the whole batch says so: couples_batch) in the batch it is"
        for i in range(s.batch):
            y_i, _, cache_i = s.layer.forward(params, state, rows(x, i), mode)
            grads_i, dx_i = s.vjp(params, cache_i, rows(dy, i), rows(x, i))
            total = tree.map(np.add, total, grads_i)
            require_equal(f"output for example {i} alone ({_mode(mode)})", y_i, rows(y, i), meant, CLOSE)
            require_equal(f"dx for example {i} alone ({_mode(mode)})", dx_i, rows(dx, i), meant, CLOSE)
        require_equal(f"sum of the examples' grads ({_mode(mode)})", total, grads, "of the batch", CLOSE)
    return 0.0


def inference_law(s: LayerSubject) -> float:
    """`infer` equals `forward` in Eval mode, `param_vjp` equals `vjp(...)[0]`, `input_vjp` equals `vjp(...)[1]`."""
    params, state, x = s.point()
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        if isinstance(mode, Eval):
            require_equal("infer", evaluator(s.layer)(params, state, x), y, "forward in Eval mode gives", CLOSE)
        if tree.leaves(differentiable(x, x)):
            dy = s.cotangent(y)
            grads, dx = s.layer.vjp(params, cache, dy)
            require_equal("param_vjp", params_vjp(s.layer)(params, cache, dy), grads, "vjp gives", CLOSE)
            dx_alone = inputs_vjp(s.layer)(params, cache, dy)
            require_equal("input_vjp", differentiable(dx_alone, x), differentiable(dx, x), "vjp gives", CLOSE)
    return 0.0


def pickle_law(s: LayerSubject) -> float:
    """Layer, parameters and cache survive pickling: what comes back gives the same bits."""
    init = s.layer.init(s.key, s.in_shape)
    params, state, x = s.point()
    copy = attrs.evolve(s, layer=pickled("the layer", s.layer))
    require_equal("pickled parameters", pickled("the parameters", init), init, "the original")
    require_equal("init of the pickled layer", copy.layer.init(s.key, s.in_shape), init, "the original gives")
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        y_copy = copy.layer.forward(params, state, x, mode)[0]
        require_equal("output of the pickled layer", y_copy, y, "the original's")
        got = copy.vjp(params, pickled("the cache", cache), dy, x)
        require_equal("vjp from the pickled cache", got, s.vjp(params, cache, dy, x), "from the original")
    return 0.0


def shape_error_law(s: LayerSubject) -> float:
    """Where a size or the rank of the input is wrong, `ShapeError` names the layer; no number is made up.

    Tried are the neighbours of the input shape (one size changed, an axis more or less). For each of them forward gives
    what `out_shape` promises or raises `ShapeError`, as it must if `out_shape` does; and where `out_shape` promises
    something, parameters made for this shape keep the promise.
    """
    for shape in _neighbours(s.in_shape):
        try:
            x = s.input(shape)
        except Exception:  # the caller's `inputs` cannot be drawn in this shape
            continue
        if shape_of(x) == full(shape, s.batch):
            _check_neighbour(s, shape, x)
    return 0.0


def check_refusal(s: LayerSubject, shape: Any) -> None:
    """That an input of this shape is refused: by `forward`, and by `out_shape` unless other parameters would fit it.

    Where a tuple is given for one array, or one array for a tuple, `forward` may raise a `TypeError` instead.
    """
    x = s.input(shape)
    for name, y in _passes(s, x):
        require(y is None, f"{name} accepts {shape_of(x)}")
    _check_neighbour(s, shape, x)


def _check_neighbour(s: LayerSubject, shape: Any, x: Any) -> None:
    out_shape = _outcome(s, f"out_shape({shape})", s.layer.out_shape, shape)
    promised = None if out_shape is None else full(out_shape, s.batch)
    for name, y in _passes(s, x):
        if y is not None:
            require(promised is not None, f"{name} accepts {shape_of(x)}, which out_shape refuses")
            require(
                shape_of(y) == promised, f"{name} makes {shape_of(y)} of {shape_of(x)}, out_shape promises {promised}"
            )
    if promised is not None:
        for name, y in _passes(attrs.evolve(s, in_shape=shape), x):
            given = "raises ShapeError" if y is None else f"gives {shape_of(y)}"
            right = y is not None and shape_of(y) == promised
            require(right, f"out_shape promises {promised} for {shape}, {name} of a layer made for it {given}")


def _passes(s: LayerSubject, x: Any) -> Iterator[tuple[str, Any]]:
    """What forward and infer make of x with the parameters for `s.in_shape`; None where they raise `ShapeError`."""
    point = _outcome(s, f"making a layer for {s.in_shape}", s.point)
    if point is None:
        yield "the first pass", None
        return
    params, state, fitting = point
    refusal = ShapeError if isinstance(x, tuple) == isinstance(fitting, tuple) else (ShapeError, TypeError)
    for mode in s.modes:
        name = f"forward in {_mode(mode)} mode"
        given = _outcome(s, f"{name} of {shape_of(x)}", s.layer.forward, params, state, x, mode, refusal=refusal)
        yield name, None if given is None else given[0]
    yield "infer", _outcome(s, f"infer of {shape_of(x)}", evaluator(s.layer), params, state, x, refusal=refusal)


def _outcome(
    s: LayerSubject,
    what: str,
    f: Callable[..., Any],
    *arguments: Any,
    refusal: type[Exception] | tuple[type[Exception], ...] = ShapeError,
) -> Any:
    """What f gives, None if it raises a refusal that names the layer; any other error breaks the law."""
    try:
        return f(*arguments)
    except refusal as error:
        kinds = sorted(_kinds(s.layer))
        named = any(kind in str(error) for kind in kinds)
        require(named, f"{what}: the {type(error).__name__} names none of {kinds}: {error}")
        return None
    except Exception as error:
        raise LawError(f"{what} raises {type(error).__name__}, not a ShapeError naming the layer: {error}") from error


def _kinds(layer: Layer[Any, Any]) -> set[str]:
    return {layer.kind}.union(*(_kinds(child) for _, child in layer.children))


def _neighbours(shape: Any) -> Iterator[Any]:
    """The shapes that differ from the given one (one of several inputs) in one size or by one axis."""
    if several(shape):
        for i, part in enumerate(shape):
            yield from ((*shape[:i], other, *shape[i + 1 :]) for other in _neighbours(part))
        return
    for i, n in enumerate(shape):
        yield from ((*shape[:i], size, *shape[i + 1 :]) for size in (1, n + 1, 2 * n) if size != n)
    yield (2, *shape)
    if shape:
        yield shape[1:]


def _mode(mode: Mode) -> str:
    return type(mode).__name__


LAYER_LAWS: Mapping[str, Callable[[LayerSubject], float]] = {
    "init": init_law,
    "law 1 (shapes)": shape_law,
    LayerSubject.purity: purity_law,
    "law 5 (gradients)": gradient_law,
    "law 8 (modes)": mode_law,
    "law 4 (linearity)": linear_law,
    "law 2 (derivative)": derivative_law,
    "law 5 (precision)": precision_law,
    "law 7 (batch)": batch_law,
    "law 12 (infer, param_vjp)": inference_law,
    "law 9 (pickling)": pickle_law,
    "law 10 (shape errors)": shape_error_law,
}
"""The laws, the later ones relying on the earlier; each gives the largest error of the derivatives it has checked."""
