"""Law 11: the checks reject layers and losses that are deliberately wrong, name the law, and accept right ones."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.random import Generator

import fnn.testing
from fnn import tree
from fnn.combinators import serial
from fnn.contract import Layer, Loss, Mode, Train, layer, no_params
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.random import Key
from fnn.testing import Draw, LawError, LayerSubject, check_layer, check_loss, check_refusal, check_vjp
from fnn.types import EMPTY, Array, Ints, Params, Shape, ShapeError, State, bind

# --- a right layer, y = x W + b, and its broken twins ----------------------------------------------------------------

FEATURES = 4
Result = tuple[Array, State, Any]


def init(key: Key, in_shape: Shape) -> Params:
    weight = key.generator().standard_normal((in_shape[-1], FEATURES), np.float32)
    return {"weight": weight, "bias": np.zeros(FEATURES, np.float32)}


def forward(params: Params, state: State, x: Array, mode: Mode) -> Result:
    if x.ndim != 2 or x.shape[1] != len(params["weight"]):
        raise ShapeError(f"Affine: expected input (batch, {len(params['weight'])}), got {x.shape}")
    return x.dot(params["weight"]) + params["bias"], state, (x,)


def vjp(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return {"weight": cache[0].T.dot(dy), "bias": dy.sum(0)}, dy.dot(params["weight"].T)


def out_shape(in_shape: Shape) -> Shape:
    if len(in_shape) != 1:
        raise ShapeError(f"Affine: expected an input shape (features,), got {in_shape}")
    return (FEATURES,)


AFFINE: Layer[Array, Array] = layer("Affine", init, forward, vjp, out_shape=out_shape, draws=False)


def twin(**changes: Any) -> Layer[Array, Array]:
    """The right layer with one thing changed."""
    return attrs.evolve(AFFINE, **changes)


def wrong_sign(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return grads, -dx


def missing_factor(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return {**vjp(params, cache, dy)[0], "bias": dy.mean(0)}, vjp(params, cache, dy)[1]


def one_entry_wrong(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    grads["weight"][1, 2] *= 0.5
    return grads, dx


def nan_entry(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    grads["bias"][3] = np.nan
    return grads, dx


def right_for_a_square(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return grads, dx * (dx.shape[1] / dy.shape[1])


def transposed_gradient(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return {**grads, "weight": grads["weight"].T}, dx


def transposed_product(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return vjp(params, cache, dy)[0], dy.dot(params["weight"])


def missing_leaf(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return {"weight": cache[0].T.dot(dy)}, vjp(params, cache, dy)[1]


def missing_dx(params: Params, cache: Any, dy: Array) -> tuple[Params, Any]:
    return vjp(params, cache, dy)[0], None


def clipped(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return vjp(params, cache, np.clip(dy, -4, 4))


class Accumulating:
    """A vjp that adds to what it gave before."""

    def __init__(self) -> None:
        self.total: Any = 0.0

    def __call__(self, params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
        grads, dx = vjp(params, cache, dy)
        self.total = self.total + grads["bias"]
        return {**grads, "bias": self.total.astype(dy.dtype)}, dx


def writes_input(params: Params, state: State, x: Array, mode: Mode) -> Result:
    x += 0
    return forward(params, state, x, mode)


def writes_protected_input(params: Params, state: State, x: Array, mode: Mode) -> Result:
    result = forward(params, state, x.copy(), mode)
    x.setflags(write=True)
    x *= 2
    x.setflags(write=False)
    return result


def writes_params(params: Params, state: State, x: Array, mode: Mode) -> Result:
    params["bias"][...] = 0
    return forward(params, state, x, mode)


def adds_a_param(params: Any, state: State, x: Array, mode: Mode) -> Result:
    params["seen"] = x
    return forward(params, state, x, mode)


def writes_dy(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    dy *= 1
    return vjp(params, cache, dy)


def caches_a_copy(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return *forward(params, state, x, mode)[:2], (x.copy(),)


def writes_cache(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    cache[0][...] = 0
    return vjp(params, cache, dy)


LAST: dict[str, Array] = {}


def remembers_x(params: Params, state: State, x: Array, mode: Mode) -> Result:
    LAST["x"] = x
    return *forward(params, state, x, mode)[:2], ()


def remembered_x(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return vjp(params, (LAST["x"],), dy)


def gives_float64(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, state, cache = forward(params, state, x, mode)
    return y * np.float64(1), state, cache


def imprecise(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return forward(params, state, x.astype(np.float16).astype(x.dtype) if x.dtype == np.float32 else x, mode)


def float64_gradient(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return {**grads, "bias": np.sum(dy, 0, np.float64)}, dx


def caches_a_function(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return *forward(params, state, x, mode)[:2], (x, lambda: x)


def centred(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return forward(params, state, x - x.mean(0, keepdims=True), mode)


def centred_vjp(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return grads, dx - dx.mean(0, keepdims=True)


def mixed(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, state, cache = forward(params, state, x, mode)
    return y + 0.5 * y[::-1], state, cache


def mixed_vjp(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    return vjp(params, cache, dy + 0.5 * dy[::-1])


def infer_without_bias(params: Params, state: State, x: Array) -> Array:
    return forward({**params, "bias": 0.0}, state, x, Train(Key(0)))[0]


def infer_unchecked(params: Params, state: State, x: Array) -> Array:
    return np.asarray(x.dot(params["weight"]) + params["bias"])


def halved_param_vjp(params: Params, cache: Any, dy: Array) -> Params:
    return {"weight": cache[0].T.dot(dy) / 2, "bias": dy.sum(0)}


def doubled_input_vjp(params: Params, cache: Any, dy: Array) -> Array:
    return np.asarray(2 * dy.dot(params["weight"].T))


def grows_state(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, _, cache = forward(params, state, x, mode)
    return y, {**state, "count": np.ones((), x.dtype)}, cache


def init_count(in_shape: Shape) -> State:
    return {"count": np.ones((), np.float32)}


def counts(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, _, cache = forward(params, state, x, mode)
    return y, {"count": np.asarray(state["count"] + 1)}, cache


def noise(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, state, cache = forward(params, state, x, mode)
    return y + np.random.standard_normal(y.shape).astype(y.dtype), state, cache


def noise_from_key(params: Params, state: State, x: Array, mode: Mode) -> Result:
    y, state, cache = forward(params, state, x, mode)
    key = mode.key if isinstance(mode, Train) else Key(0)
    return y + key.generator().standard_normal(y.shape).astype(y.dtype), state, cache


def masked(params: Params, state: State, x: Array, mode: Mode) -> Result:
    mask = mode.key.generator().random(x.shape) < 0.5 if isinstance(mode, Train) else np.ones(x.shape, bool)
    return forward(params, state, x * mask, mode)[0], state, (x * mask, mask)


def masked_vjp(params: Params, cache: Any, dy: Array) -> tuple[Params, Array]:
    grads, dx = vjp(params, cache, dy)
    return grads, dx * cache[1]


def init_float64(key: Key, in_shape: Shape) -> Params:
    return {name: leaf.astype(np.float64) for name, leaf in init(key, in_shape).items()}


def init_at_random(key: Key, in_shape: Shape) -> Params:
    return {**init(key, in_shape), "bias": np.random.standard_normal(FEATURES).astype(np.float32)}


def init_read_only(f: Callable[[Key, Shape], Params], key: Key, in_shape: Shape) -> Params:
    params: Params = tree.read_only(f(key, in_shape))
    return params


def unchecked(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return x.dot(params["weight"]) + params["bias"], state, (x,)


def nameless_error(params: Params, state: State, x: Array, mode: Mode) -> Result:
    if x.ndim != 2 or x.shape[1] != len(params["weight"]):
        raise ShapeError("wrong shape")
    return forward(params, state, x, mode)


def any_shape(in_shape: Shape) -> Shape:
    return (*in_shape[:-1], FEATURES)


def one_too_many(in_shape: Shape) -> Shape:
    return (FEATURES + 1,)


def scale_init(key: Key, in_shape: Shape) -> Params:
    return {"scale": np.ones(in_shape, np.float32)}


def scale_forward(params: Params, state: State, x: Array, mode: Mode) -> Result:
    return x * params["scale"], state, x


def scale_vjp(params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    return {"scale": (dy * x).sum(0)}, dy * params["scale"]


BROADCASTING = layer("Scale", scale_init, scale_forward, scale_vjp, draws=False)

LAW_12 = next(name for name in fnn.testing.LAYER_LAWS if name.startswith("law 12 "))
WRONG: list[tuple[str, str, Layer[Any, Any]]] = [
    ("init", "weight: expected a float32 array", twin(init=bind(init_read_only, init_float64))),
    ("init", "bias", twin(init=bind(init_read_only, init_at_random))),
    ("init", "weight: expected a read-only array", twin(init=init)),
    ("law 1 (shapes)", "out_shape promises (5, 5), forward gives (5, 4)", twin(out_shape=one_too_many)),
    ("law 2 (derivative)", "x[", twin(vjp=wrong_sign)),
    ("law 2 (derivative)", "bias[", twin(vjp=missing_factor)),
    ("law 2 (derivative)", "weight[1, 2]: analytic", twin(vjp=one_entry_wrong)),
    ("law 2 (derivative)", "x[", twin(vjp=right_for_a_square)),
    ("law 2 (derivative)", "(Train)", twin(forward=masked, vjp=vjp, draws=True)),
    ("law 4 (linearity)", "bias[3] is nan", twin(vjp=nan_entry)),
    ("law 4 (linearity)", "vjp(20 a - 30 b)", twin(vjp=clipped)),
    ("law 4 (linearity)", "second vjp of the same dy", twin(vjp=Accumulating())),
    ("law 4 (linearity)", "vjp after a forward of another input", twin(forward=remembers_x, vjp=remembered_x)),
    ("law 5 (gradients)", "grads: ", twin(vjp=transposed_gradient)),
    ("law 5 (gradients)", "bias: missing in what was given", twin(vjp=missing_leaf)),
    ("law 5 (gradients)", "dx", twin(vjp=missing_dx)),
    ("law 5 (gradients)", "output: expected float32 (5, 4), got float64 (5, 4)", twin(forward=gives_float64)),
    ("law 5 (gradients)", "bias: expected float32 (4,), got float64 (4,)", twin(vjp=float64_gradient)),
    ("law 5 (precision)", "output[", twin(forward=imprecise)),
    ("law 6 (purity)", "writes into an array it was given", twin(forward=writes_input)),
    ("law 6 (purity)", "forward changes what it is given: x[0, 0]", twin(forward=writes_protected_input)),
    ("law 6 (purity)", "writes into an array it was given", twin(forward=writes_params)),
    ("law 6 (purity)", "params/seen", twin(forward=adds_a_param)),
    ("law 6 (purity)", "writes into an array it was given", twin(vjp=writes_dy)),
    ("law 6 (purity)", "writes into an array it was given", twin(forward=caches_a_copy, vjp=writes_cache)),
    ("law 7 (batch)", "alone (Eval)", twin(forward=centred, vjp=centred_vjp, draws=True)),
    ("law 7 (batch)", "alone (Train)", twin(forward=mixed, vjp=mixed_vjp)),
    ("law 8 (modes)", "count: ", twin(forward=grows_state)),
    ("law 8 (modes)", "state after Eval: count is 3, before it 2", twin(forward=counts, init_state=init_count)),
    ("law 8 (modes)", "output of a second, equal call (Train)", twin(forward=noise)),
    ("law 8 (modes)", "although draws=False", twin(forward=noise_from_key)),
    ("law 9 (pickling)", "the cache cannot be pickled", twin(forward=caches_a_function)),
    ("law 9 (pickling)", "the layer cannot be pickled", twin(forward=lambda *arguments: forward(*arguments))),
    ("law 10 (shape errors)", "raises ValueError", twin(forward=unchecked)),
    ("law 10 (shape errors)", "names none of ['Affine']: wrong shape", twin(forward=nameless_error)),
    ("law 10 (shape errors)", "out_shape promises", twin(out_shape=any_shape)),
    ("law 10 (shape errors)", "infer of (5, 1) raises ValueError", twin(infer=infer_unchecked)),
    ("law 10 (shape errors)", "forward in Train mode makes (5, 3) of (5, 1)", BROADCASTING),
    (LAW_12, "infer[", twin(infer=infer_without_bias)),
    (LAW_12, "param_vjp: weight[", twin(param_vjp=halved_param_vjp)),
    (LAW_12, "input_vjp[", twin(input_vjp=doubled_input_vjp)),
]


@pytest.mark.parametrize(("law", "message", "wrong"), WRONG, ids=[f"{law}: {what}" for law, what, _ in WRONG])
def test_a_wrong_layer_is_rejected(law: str, message: str, wrong: Layer[Any, Any]) -> None:
    with pytest.raises(LawError) as caught:
        check_layer(wrong, (3,))
    told = str(caught.value)
    assert told.startswith(f"check_layer({wrong!r}): {law}: ")
    assert message in told


def test_every_law_has_a_layer_that_breaks_it() -> None:
    assert {law for law, _, _ in WRONG} == {*fnn.testing.LAYER_LAWS}


def test_an_error_of_the_layer_is_reported_with_its_cause() -> None:
    with pytest.raises(LawError, match=r"\(Affine\): ValueError while checking law \d+ .*: shapes") as caught:
        check_layer(twin(vjp=transposed_product), (3,))
    assert isinstance(caught.value.__cause__, ValueError)


def test_equal_sizes_hide_a_wrong_derivative() -> None:
    """Why law 3 asks for different sizes everywhere."""
    assert check_layer(twin(vjp=right_for_a_square), (FEATURES,)) < 1e-7
    with pytest.raises(LawError, match="law 2"):
        check_layer(twin(vjp=right_for_a_square), (3,))


def test_the_worst_entry_is_named_with_both_numbers() -> None:
    with pytest.raises(LawError) as caught:
        check_vjp(twin(vjp=one_entry_wrong), (3,))
    told = str(caught.value)
    assert told.startswith("check_vjp(Affine): law 2 (derivative): weight[1, 2]: analytic ")
    numbers = re.search(r"analytic (\S+), numeric (\S+);", told)
    assert numbers is not None
    assert float(numbers[1]) == pytest.approx(float(numbers[2]) / 2, rel=1e-6)
    assert "1 of 12 are wrong" in told


def test_a_derivative_that_is_no_number_is_wrong() -> None:
    with pytest.raises(LawError, match=r"bias\[3\]: analytic nan"):
        check_vjp(twin(vjp=nan_entry), (3,))


def test_a_wrong_entry_is_found_among_many() -> None:
    """Where numbers are too many to be looked at one by one, directions find the entry."""
    with pytest.raises(LawError, match=r"law 2 \(derivative\): weight\[1, 2\]: analytic .* 1 of \d+ are wrong"):
        check_layer(twin(vjp=one_entry_wrong), (331,))


def test_check_vjp_looks_at_derivatives_only() -> None:
    assert check_vjp(twin(out_shape=one_too_many), (3,)) < 1e-7
    assert check_vjp(twin(forward=mixed, vjp=mixed_vjp), (3,)) < 1e-7


def test_the_tolerance_is_what_is_asked_for() -> None:
    error = check_layer(Tanh, (7, 3))
    assert 0 < error < 1e-8
    with pytest.raises(LawError, match="law 2"):
        check_vjp(Tanh, (7, 3), tolerance=error / 10)


# --- right layers of every form --------------------------------------------------------------------------------------


def product_forward(params: Params, state: State, x: tuple[Array, Array], mode: Mode) -> Result:
    a, b = x
    if a.shape != b.shape:
        raise ShapeError(f"Product: expected two arrays of one shape, got {a.shape} and {b.shape}")
    return a * b, state, x


def product_vjp(params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Params, tuple[Array, Array]]:
    a, b = cache
    return EMPTY, (dy * b, dy * a)


def product_shape(in_shape: tuple[Shape, Shape]) -> Shape:
    if in_shape[0] != in_shape[1]:
        raise ShapeError(f"Product: expected two arrays of one shape, got {in_shape}")
    return in_shape[0]


PRODUCT = layer("Product", no_params, product_forward, product_vjp, out_shape=product_shape, draws=False)


def product_vjp_swapped(params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Params, tuple[Array, Array]]:
    return EMPTY, product_vjp(params, cache, dy)[1][::-1]


def product_vjp_first(params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Params, Any]:
    return EMPTY, dy * cache[1]


def copies_forward(params: Params, state: State, x: Array, mode: Mode) -> tuple[tuple[Array, Array], State, Array]:
    return (x, x * x), state, x


def copies_vjp(params: Params, x: Array, dy: tuple[Array, Array]) -> tuple[Params, Array]:
    return EMPTY, dy[0] + 2 * x * dy[1]


def copies_shape(in_shape: Shape) -> tuple[Shape, Shape]:
    return in_shape, in_shape


COPIES = layer("Copies", no_params, copies_forward, copies_vjp, out_shape=copies_shape, draws=False)

TOKENS = 11


def table_init(key: Key, in_shape: Shape) -> Params:
    return {"table": key.generator().standard_normal((TOKENS, FEATURES), np.float32)}


def table_forward(params: Params, state: State, x: Ints, mode: Mode) -> tuple[Array, State, Ints]:
    return params["table"][x], state, x


def table_param_vjp(params: Params, x: Ints, dy: Array) -> Params:
    grad = np.zeros_like(params["table"])
    np.add.at(grad, x, dy)
    return {"table": grad}


def table_vjp(params: Params, x: Ints, dy: Array) -> tuple[Params, Ints]:
    raise TypeError("Table: integers have no derivative; use param_vjp")


def table_param_vjp_last(params: Params, x: Ints, dy: Array) -> Params:
    grad = np.zeros_like(params["table"])
    grad[x] = dy  # of a token that occurs twice only the last counts
    return {"table": grad}


def table_shape(in_shape: Shape) -> Shape:
    return (*in_shape, FEATURES)


TABLE = layer(
    "Table", table_init, table_forward, table_vjp, out_shape=table_shape, param_vjp=table_param_vjp, draws=False
)


def tokens(generator: Generator, shape: Shape) -> Ints:
    return generator.integers(TOKENS, size=shape)


def mean_init_state(in_shape: Shape) -> State:
    return {"mean": np.zeros(in_shape, np.float32)}


def mean_forward(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, bool]:
    if x.shape[1:] != state["mean"].shape:
        raise ShapeError(f"Centre: expected input (batch, {state['mean'].shape}), got {x.shape}")
    if isinstance(mode, Train):
        mean = x.mean(0)
        return x - mean, {"mean": 0.9 * state["mean"] + 0.1 * mean}, True
    return x - state["mean"], state, False


def mean_vjp(params: Params, cache: bool, dy: Array) -> tuple[Params, Array]:
    return EMPTY, dy - dy.mean(0) if cache else dy


CENTRE = layer(
    "Centre", no_params, mean_forward, mean_vjp, init_state=mean_init_state, draws=False, couples_batch="train"
)


def centre_the_batch(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, bool]:
    y, after, cache = mean_forward(params, state, x, Train(Key(0)))
    return y, after if isinstance(mode, Train) else state, cache


Row = tuple[str, Layer[Any, Any], Any, Draw | None]
RIGHT: list[Row] = [
    ("parameters", AFFINE, (3,), None),
    ("draws", twin(forward=masked, vjp=masked_vjp, draws=True), (3,), None),
    ("two inputs", PRODUCT, ((3,), (3,)), None),
    ("two outputs", COPIES, (7, 3), None),
    ("integers", TABLE, (7,), tokens),
    ("integers, then a network", serial(TABLE, Dense(6), Tanh), (7,), tokens),
    ("running statistics", CENTRE, (3,), None),
    ("coupled always", attrs.evolve(CENTRE, forward=centre_the_batch, couples_batch=True), (3,), None),
    ("no features", Tanh, (), None),
]


@pytest.mark.parametrize("row", RIGHT, ids=[row[0] for row in RIGHT])
@pytest.mark.parametrize("seed", range(3))
def test_a_right_layer_is_accepted(row: Row, seed: int) -> None:
    _, right, in_shape, inputs = row
    assert check_layer(right, in_shape, key=Key(seed), inputs=inputs) < 1e-7
    assert check_vjp(right, in_shape, key=Key(seed), inputs=inputs) < 1e-7


pair = ((3,), (3,))
OTHERS: list[tuple[str, Row]] = [
    ("law 2 (derivative)", ("x/0[", attrs.evolve(PRODUCT, vjp=product_vjp_swapped), pair, None)),
    ("law 2 (derivative)", ("table[", attrs.evolve(TABLE, param_vjp=table_param_vjp_last), (7,), tokens)),
    ("law 5 (gradients)", ("dx: what was given", attrs.evolve(PRODUCT, vjp=product_vjp_first), pair, None)),
    ("law 7 (batch)", ("alone (Train)", attrs.evolve(CENTRE, couples_batch=False), (3,), None)),
    ("law 7 (batch)", ("says so: couples_batch", attrs.evolve(CENTRE, forward=centre_the_batch), (3,), None)),
]


@pytest.mark.parametrize(("law", "row"), OTHERS, ids=[f"{law}: {row[0]}" for law, row in OTHERS])
def test_wrong_layers_of_other_forms_are_rejected(law: str, row: Row) -> None:
    message, wrong, in_shape, inputs = row
    with pytest.raises(LawError) as caught:
        check_layer(wrong, in_shape, inputs=inputs)
    assert f": {law}: " in str(caught.value)
    assert message in str(caught.value)


# --- inputs that must be refused -------------------------------------------------------------------------------------


def refuses_with_type_error(params: Params, state: State, x: Any, mode: Mode) -> Result:
    if isinstance(x, tuple):
        raise TypeError(f"Affine: expected one array, got {len(x)}")
    return forward(params, state, x, mode)


def test_a_refusal_is_recognised() -> None:
    one_array = LayerSubject("check_layer", twin(forward=refuses_with_type_error), (3,))
    for shape in ((6,), (), (7, 3), ((3,), (3,))):
        check_refusal(one_array, shape)


@pytest.mark.parametrize(
    ("wrong", "in_shape", "refused", "message"),
    [
        (AFFINE, (3,), (3,), "accepts (5, 3)"),
        (BROADCASTING, (3,), (1,), "accepts (5, 1)"),
        (twin(forward=unchecked), (3,), (6,), "raises ValueError, not a ShapeError"),
        (AFFINE, (3,), ((3,), (3,)), "raises AttributeError, not a ShapeError"),
        (twin(out_shape=any_shape), (3,), (7, 3), "out_shape promises"),
    ],
)
def test_a_missing_refusal_is_noticed(wrong: Layer[Any, Any], in_shape: Shape, refused: Any, message: str) -> None:
    with pytest.raises(LawError) as caught:
        check_refusal(LayerSubject("check_layer", wrong, in_shape), refused)
    assert message in str(caught.value)


# --- a right loss, the mean over the examples of |output - target|**2 / 2, and its broken twins -----------------------


def require_fit(output: Array, target: Array, weight: Array | None) -> None:
    if output.shape != target.shape or (weight is not None and weight.shape != output.shape[:1]):
        shapes = f"{output.shape}, {target.shape}, {None if weight is None else weight.shape}"
        raise ShapeError(f"HalfSquare: expected output and target of one shape and a weight an example, got {shapes}")


def each(output: Array, target: Array) -> Array:
    require_fit(output, target, None)
    error = output - target.astype(output.dtype)
    return np.asarray((error * error).reshape(len(error), -1).sum(1) / 2)


def shares(output: Array, weight: Array | None) -> Array:
    """How much each example counts: `1 / n`, or `w / sum(w)`."""
    w = np.ones(len(output)) if weight is None else weight
    return np.asarray((w / w.sum()).astype(output.dtype))


def loss_forward(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    require_fit(output, target, weight)
    share = shares(output, weight)
    return np.asarray(share.dot(each(output, target))), (output - target.astype(output.dtype), share)


def loss_vjp(cache: Any) -> Array:
    error, share = cache
    return np.asarray(error * share.reshape(-1, *[1] * (error.ndim - 1)))


HALF_SQUARE: Loss[Array, Array] = Loss("HalfSquare", loss_forward, loss_vjp, each)


def loss_twin(**changes: Any) -> Loss[Array, Array]:
    """The right loss with one thing changed."""
    return attrs.evolve(HALF_SQUARE, **changes)


def remembers_error(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    value, (LAST["error"], LAST["share"]) = loss_forward(output, target, weight)
    return value, ()


def remembered_error(cache: Any) -> Array:
    return loss_vjp((LAST["error"], LAST["share"]))


def summed(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    value, (error, share) = loss_forward(output, target, weight)
    return value * len(output), (error, share * len(output))


def divided_by_n(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    require_fit(output, target, weight)
    w = np.ones(len(output), output.dtype) if weight is None else weight.astype(output.dtype)
    return np.asarray(w.dot(each(output, target)) / len(w)), (output - target, w / len(w))


def plain_float(output: Array, target: Array, weight: Array | None = None) -> tuple[Any, Any]:
    value, cache = loss_forward(output, target, weight)
    return float(value), cache


def each_number(output: Array, target: Array) -> Array:
    require_fit(output, target, None)
    return np.asarray((output - target) ** 2 / 2)


def unweighted_vjp(cache: Any) -> Array:
    error, share = cache
    return np.asarray(error / len(share))


def doubled_vjp(cache: Any) -> Array:
    return 2 * loss_vjp(cache)


def flat_vjp(cache: Any) -> Array:
    return loss_vjp(cache).reshape(-1)


def float64_vjp(cache: Any) -> Array:
    return loss_vjp(cache).astype(np.float64)


def target_dtype(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    require_fit(output, target, weight)
    share, error = shares(output, weight), output - target
    return np.asarray(share.dot((error * error).sum(1)) / 2), (error, share)


def writes_output(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    output -= 0
    return loss_forward(output, target, weight)


def writes_loss_cache(cache: Any) -> Array:
    cache[0][...] *= 1
    return loss_vjp(cache)


def sloppy_float32(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    value, cache = loss_forward(output, target, weight)
    return np.asarray(value * 1.01 if output.dtype == np.float32 else value), cache


def mean_for_each(output: Array, target: Array) -> Array:
    l = each(output, target)
    return np.full_like(l, l.mean())


def mean_of_means(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    require_fit(output, target, weight)
    share = shares(output, None)
    return np.asarray(share.dot(each(output, target))), (output - target.astype(output.dtype), share)


def sums_of_means(output: Array, target: Array, weight: Array | None = None) -> Array:
    return np.array([[loss_forward(output, target, weight)[0], 1.0]])


def caches_a_closure(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    value, cache = loss_forward(output, target, weight)
    return value, (*cache, lambda: cache)


def closure_vjp(cache: Any) -> Array:
    return loss_vjp(cache[:2])


def broadcast(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    error = output - target.astype(output.dtype)
    share = shares(output, weight)
    return np.asarray(share.dot((error * error).reshape(len(error), -1).sum(1) / 2)), (error, share)


def broadcast_each(output: Array, target: Array) -> Array:
    error = output - target.astype(output.dtype)
    return np.asarray((error * error).reshape(len(error), -1).sum(1) / 2)


def broadcast_weight(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Any]:
    w = np.ones(len(output)) if weight is None else np.broadcast_to(weight.reshape(-1), len(output))
    return loss_forward(output, target, w)


WRONG_LOSSES: list[tuple[str, str, Loss[Any, Any]]] = [
    ("value", "value without weights is", loss_twin(forward=summed)),
    ("value", "value with weights is", loss_twin(forward=divided_by_n)),
    ("value", "expected a 0-d array, got float", loss_twin(forward=plain_float)),
    ("value", "each: expected shape (5,), got (5, 3)", loss_twin(each=each_number)),
    ("purity", "writes into an array it was given", loss_twin(forward=writes_output)),
    ("purity", "writes into an array it was given", loss_twin(vjp=writes_loss_cache)),
    ("purity", "after forward of another output", loss_twin(forward=remembers_error, vjp=remembered_error)),
    ("dtype", "expected float32 (), got float64 ()", loss_twin(forward=target_dtype)),
    ("dtype", "d_output without weights: expected float32 (5, 3), got float64 (5, 3)", loss_twin(vjp=float64_vjp)),
    ("dtype", "d_output", loss_twin(vjp=flat_vjp)),
    ("derivative", "output[", loss_twin(vjp=doubled_vjp)),
    ("derivative", "(with weights)", loss_twin(vjp=unweighted_vjp)),
    ("precision", "float32 without weights: value is", loss_twin(forward=sloppy_float32)),
    ("examples", "each for example 0 alone[0] is", loss_twin(forward=mean_of_means, each=mean_for_each)),
    ("examples", "sums without weights of the examples[0, 1] is 5, of the batch 1", loss_twin(sums=sums_of_means)),
    ("value", "value with weights is", loss_twin(forward=mean_of_means, sums=sums_of_means)),
    ("pickling", "the cache cannot be pickled", loss_twin(forward=caches_a_closure, vjp=closure_vjp)),
    ("pickling", "the loss cannot be pickled", loss_twin(vjp=lambda cache: loss_vjp(cache))),
    ("broadcasting", "forward of a target with one example gives a number", loss_twin(forward=broadcast)),
    ("broadcasting", "each of a target with one example gives a number", loss_twin(each=broadcast_each)),
    ("broadcasting", "forward with weights (5, 1) gives a number", loss_twin(forward=broadcast_weight)),
]


@pytest.mark.parametrize(("law", "message", "wrong"), WRONG_LOSSES)
def test_a_wrong_loss_is_rejected(law: str, message: str, wrong: Loss[Any, Any]) -> None:
    with pytest.raises(LawError) as caught:
        check_loss(wrong, (3,))
    assert str(caught.value).startswith(f"check_loss(HalfSquare): {law}: ")
    assert message in str(caught.value)


def test_every_law_of_losses_has_a_loss_that_breaks_it() -> None:
    assert {law for law, _, _ in WRONG_LOSSES} == {*fnn.testing.LOSS_LAWS}


@pytest.mark.parametrize("output_shape", [(3,), (7, 3), ()])
def test_a_right_loss_is_accepted(output_shape: Shape) -> None:
    assert check_loss(HALF_SQUARE, output_shape) < 1e-7


def label_each(output: Array, target: Ints) -> Array:
    if target.shape != output.shape[:-1]:
        raise ShapeError(f"Pick: expected labels {output.shape[:-1]}, got {target.shape}")
    return np.asarray(-(output * (target[:, None] == np.arange(output.shape[-1]))).sum(-1))


def label_forward(output: Array, target: Ints, weight: Array | None = None) -> tuple[Array, Any]:
    if weight is not None and weight.shape != target.shape:
        raise ShapeError(f"Pick: expected weights {target.shape}, got {weight.shape}")
    share = shares(output, weight)
    value = np.asarray(share.dot(label_each(output, target)))
    return value, -share[:, None] * (target[:, None] == np.arange(output.shape[-1]))


def label_vjp(cache: Array) -> Array:
    return cache


def labels(generator: Generator, shape: Shape) -> Ints:
    return generator.integers(shape[-1], size=shape[:-1])


def test_a_loss_of_labels_is_accepted() -> None:
    pick: Loss[Array, Ints] = Loss("Pick", label_forward, label_vjp, label_each)
    assert check_loss(pick, (3,), labels) < 1e-7


def test_the_examples_in_the_documentation() -> None:
    failed, tried = doctest.testmod(fnn.testing)
    assert tried > 0
    assert not failed
