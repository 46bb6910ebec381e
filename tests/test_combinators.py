"""What combinators promise beyond the laws of every layer: equalities between networks, and what is kept or spared."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

from fnn import tree
from fnn.combinators import (
    Record,
    SpectralNorm,
    WeightNorm,
    dag,
    fan_in_concat,
    fan_in_mul,
    fan_in_sum,
    fan_out,
    frozen,
    low_rank,
    mapped,
    named,
    parallel,
    remat,
    reparam,
    repeat,
    residual,
    serial,
    tap,
    tied,
)
from fnn.combinators.parameters import low_rank_expand, weight_norm_expand
from fnn.contract import EVAL, Eval, Layer, Mode, Train, grad, inputs_vjp, params_vjp, trainable
from fnn.data import batches
from fnn.layers.activation import Relu, Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import BatchNorm
from fnn.layers.recurrent import gru_cell
from fnn.layers.shape import Reshape
from fnn.losses import mse
from fnn.optimizers import Optimizer, adam, adamw, sgd
from fnn.random import Key
from fnn.recurrence import scan, stack
from fnn.testing import LawError, check_layer, check_vjp
from fnn.training import train
from fnn.types import Array, Params, ShapeError
from tests.cases.combinators import Centred, Noisy, positive_contract, positive_expand

MODES: list[Mode] = [Train(Key(7)), EVAL]


def draw(*shape: int, name: str = "x") -> Array:
    x: Array = Key(5).fold_in(name).generator().standard_normal(shape).astype(np.float32)
    return x


def moved(params: Params) -> Params:
    """Parameters at a place where nothing is zero or one by accident."""
    generator = Key(6).generator()
    found: Params = tree.map(lambda a: a + generator.standard_normal(a.shape).astype(a.dtype), params)
    return found


def pass_of(layer: Layer[Any, Any], params: Params, in_shape: Any, x: Any, mode: Mode) -> tuple[Any, ...]:
    """`(y, new state, grads, dx)` for a dy that depends on the shape of y only."""
    y, state, cache = layer.forward(params, layer.init_state(in_shape), x, mode)
    dy = tree.map(lambda a: draw(*a.shape, name="dy"), y)
    return y, state, *layer.vjp(params, cache, dy)


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    return tree.allclose(a, b, rtol=0, atol=0)


def refuse_param_grads(layer: Layer[Any, Any]) -> Layer[Any, Any]:
    """The same layer, failing when it is asked for the gradients of its parameters."""
    return attrs.evolve(layer, vjp=unexpected, param_vjp=unexpected, input_vjp=inputs_vjp(layer))


def refuse_dx(layer: Layer[Any, Any]) -> Layer[Any, Any]:
    """The same layer, failing when it is asked for dx."""
    return attrs.evolve(layer, vjp=unexpected, input_vjp=unexpected, param_vjp=params_vjp(layer))


def unexpected(*arguments: Any) -> Any:
    raise AssertionError("this derivative was not needed")


# --- names, keys and notes -------------------------------------------------------------------------------------------


def test_equal_layers_draw_differently_by_name() -> None:
    net = parallel(Noisy, Noisy, named("a", Noisy))
    x = draw(5, 3)
    y0, y1, y2 = net.forward({}, {}, (x, x, x), Train(Key(1)))[0]
    assert not np.allclose(y0, y1) and not np.allclose(y1, y2)
    again = parallel(named("a", Noisy), named("noisy_1", Noisy), named("noisy_0", Noisy))
    z2, z1, z0 = again.forward({}, {}, (x, x, x), Train(Key(1)))[0]
    assert same((y0, y1, y2), (z0, z1, z2))


def test_equal_layers_start_differently_by_name() -> None:
    params = dag(inputs="x", a=("x", Dense(3)), b=("a", Dense(3)), output="b").init(Key(0), (3,))
    assert not np.allclose(params["a"]["weight"], params["b"]["weight"])
    assert same(params, serial(named("a", Dense(3)), named("b", Dense(3))).init(Key(0), (3,)))


def broken(stage: str) -> Layer[Array, Array]:
    """The identity, with a parameter it does not use, which fails in one stage."""

    def at(name: str, value: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            if stage == name:
                raise ShapeError("broken")
            return value(*arguments)

        return run

    return Layer(
        kind="Broken",
        init=at("init", lambda key, in_shape: {"weight": np.ones((2, 2), np.float32)}),
        init_state=at("init_state", lambda in_shape: {}),
        out_shape=at("out_shape", lambda in_shape: in_shape),
        forward=at("forward", lambda params, state, x, mode: (x, state, ())),
        infer=at("infer", lambda params, state, x: x),
        vjp=at("backward", lambda params, cache, dy: (params, dy)),
        param_vjp=at("backward", lambda params, cache, dy: params),
        input_vjp=at("backward", lambda params, cache, dy: dy),
    )


Inside = Callable[[Layer[Array, Array]], Layer[Any, Any]]
NOTES: list[tuple[str, Inside, Any]] = [
    ("residual_0/serial_0/broken_0", lambda b: serial(residual(serial(Tanh, b))), (3,)),
    ("residual_0/serial_1/broken_0", lambda b: serial(residual(serial(Tanh), serial(Tanh, b))), (3,)),
    ("repeat_0/residual_0/broken_0", lambda b: serial(repeat(residual(b), 1)), (3,)),
    ("serial_0/broken_0", lambda b: parallel(Tanh, serial(Dense(2), b)), ((3,), (3,))),
    ("mapped_0/out/broken_0", lambda b: serial(mapped(named("out", serial(Dense(2), b)))), (4, 3)),
    ("deep/broken_0", lambda b: serial(Dense(3), remat(tap("t", remat(named("deep", serial(Tanh, b)))))), (3,)),
    ("cold/broken_0", lambda b: serial(Dense(3), named("cold", frozen(serial(Tanh, b)))), (3,)),
    ("serial_0/broken_0", lambda b: serial(WeightNorm(SpectralNorm(serial(Tanh, b))), Tanh), (3,)),
    ("serial_0/dag_0/b/broken_0", lambda b: serial(serial(dag(inputs="x", b=("x", serial(b)), output="b"))), (3,)),
]
STAGES: dict[str, Callable[..., Any]] = {
    "init": lambda net, in_shape, *_: net.init(Key(0), in_shape),
    "init_state": lambda net, in_shape, *_: net.init_state(in_shape),
    "out_shape": lambda net, in_shape, *_: net.out_shape(in_shape),
    "forward": lambda net, in_shape, params, state, x, *_: net.forward(params, state, x, EVAL),
    "infer": lambda net, in_shape, params, state, x, *_: net.apply(params, x, state),
    "backward": lambda net, in_shape, params, state, x, cache, y: net.vjp(params, cache, y),
    "backward to the parameters": lambda net, in_shape, params, state, x, cache, y: params_vjp(net)(params, cache, y),
    "backward to the input": lambda net, in_shape, params, state, x, cache, y: inputs_vjp(net)(params, cache, y),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("path", "inside", "in_shape"), NOTES, ids=[path for path, _, _ in NOTES])
def test_an_error_says_where_it_happened_as_one_path(path: str, inside: Inside, in_shape: Any, stage: str) -> None:
    net, sound = inside(broken(stage.split()[0])), inside(broken("never"))
    x = tuple(draw(5, *s) for s in in_shape) if isinstance(in_shape[0], tuple) else draw(5, *in_shape)
    params, state = sound.init(Key(0), in_shape), sound.init_state(in_shape)
    y, _, cache = sound.forward(params, state, x, EVAL)
    arguments = (net, in_shape, params, state, x, cache, y)
    with pytest.raises(ShapeError, match="broken") as caught:
        STAGES[stage](*arguments)
    assert caught.value.__notes__ == [f"in {path}"]


# --- serial and repeat -----------------------------------------------------------------------------------------------


def test_repeat_is_serial_of_copies() -> None:
    block = residual(serial(Dense(4), Noisy, Dense(3)))
    a, b = repeat(block, 3), serial(block, block, block)
    params = a.init(Key(0), (3,))
    assert list(params) == ["residual_0", "residual_1", "residual_2"]
    assert same(params, b.init(Key(0), (3,)))
    for mode in MODES:
        assert same(pass_of(a, params, (3,), draw(5, 3), mode), pass_of(b, params, (3,), draw(5, 3), mode))


def test_repeat_numbers_named_layers() -> None:
    assert list(repeat(named("block", Dense(3)), 2).init(Key(0), (3,))) == ["block_0", "block_1"]


def test_serial_begins_its_parameter_gradients_at_the_first_layer_that_has_some() -> None:
    nothing = attrs.evolve(Tanh, vjp=unexpected, param_vjp=unexpected, input_vjp=unexpected)
    net = serial(nothing, serial(nothing), refuse_dx(Dense(4)), Tanh)
    plain = serial(Tanh, serial(Tanh), Dense(4), Tanh)
    params, x = net.init(Key(0), (3,)), draw(5, 3)
    y, _, cache = net.forward(params, {}, x, EVAL)
    assert same(params_vjp(net)(params, cache, y), plain.vjp(params, cache, y)[0])
    assert params_vjp(serial(Tanh, Tanh))({}, serial(Tanh, Tanh).forward({}, {}, x, EVAL)[2], x) == {}


# --- branches --------------------------------------------------------------------------------------------------------


def test_parallel_composes_with_serial() -> None:
    """`(f | g) ; (h | k)` equals `(f ; h) | (g ; k)`."""
    a = serial(parallel(Dense(4), Dense(7)), parallel(Tanh, Dense(2)))
    b = parallel(serial(Dense(4), Tanh), serial(Dense(7), Dense(2)))
    params = moved(b.init(Key(0), ((3,), (6,))))
    f, g, k = params["serial_0"]["dense_0"], params["serial_1"]["dense_0"], params["serial_1"]["dense_1"]
    of_a = {"parallel_0": {"dense_0": f, "dense_1": g}, "parallel_1": {"dense_0": k}}
    x = (draw(5, 3), draw(5, 6, name="z"))
    y, _, grads, dx = pass_of(a, of_a, ((3,), (6,)), x, EVAL)
    y_b, _, grads_b, dx_b = pass_of(b, params, ((3,), (6,)), x, EVAL)
    assert same((y, dx), (y_b, dx_b))
    assert same(grads["parallel_1"]["dense_0"], grads_b["serial_1"]["dense_1"])


def test_fan_out_then_sum_is_multiplication_by_n_and_then_product_a_power() -> None:
    x, dy = draw(5, 3).astype(np.float64), draw(5, 3, name="dy").astype(np.float64)
    for n in (1, 2, 3, 4):
        times, power = serial(fan_out(n), fan_in_sum), serial(fan_out(n), fan_in_mul)
        y, _, cache = times.forward({}, {}, x, EVAL)
        np.testing.assert_allclose(y, n * x)
        np.testing.assert_allclose(times.vjp({}, cache, dy)[1], n * dy)
        y, _, cache = power.forward({}, {}, x, EVAL)
        np.testing.assert_allclose(y, x**n)
        np.testing.assert_allclose(power.vjp({}, cache, dy)[1], n * x ** (n - 1) * dy)


def test_fan_in_mul_has_derivatives_at_zero() -> None:
    x = (np.array([[0.0, 2.0]]), np.array([[0.0, 3.0]]), np.array([[5.0, 0.0]]))
    _, _, cache = fan_in_mul.forward({}, {}, x, EVAL)
    dx = fan_in_mul.vjp({}, cache, np.ones((1, 2)))[1]
    assert same(dx, (np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([[0.0, 6.0]])))


def test_dense_of_a_concatenation_is_a_sum_of_dense_layers() -> None:
    """`[x z] [[A], [B]] = x A + z B`."""
    joined, split = serial(fan_in_concat, Dense(4)), serial(parallel(Dense(4), Dense(4)), fan_in_sum)
    params = moved(split.init(Key(0), ((3,), (6,))))["parallel_0"]
    a, b = params["dense_0"], params["dense_1"]
    whole = {"dense_0": {"weight": np.concatenate([a["weight"], b["weight"]]), "bias": a["bias"] + b["bias"]}}
    x = (draw(5, 3), draw(5, 6, name="z"))
    y, _, grads, dx = pass_of(joined, whole, ((3,), (6,)), x, EVAL)
    y_split, _, grads_split, dx_split = pass_of(split, {"parallel_0": params}, ((3,), (6,)), x, EVAL)
    assert tree.allclose((y, dx), (y_split, dx_split), rtol=1e-5, atol=1e-5)
    below = grads_split["parallel_0"]["dense_1"]["weight"]
    np.testing.assert_allclose(grads["dense_0"]["weight"][3:], below, rtol=1e-5)


def test_residual_is_fan_out_parallel_sum() -> None:
    f, s = serial(Dense(6), Tanh, Dense(4)), named("short", Dense(4))
    a, b = residual(f, s), serial(fan_out(2), parallel(f, s), fan_in_sum)
    params = moved(a.init(Key(0), (3,)))
    y, _, grads, dx = pass_of(a, params, (3,), draw(5, 3), EVAL)
    y_b, _, grads_b, dx_b = pass_of(b, {"parallel_0": params}, (3,), draw(5, 3), EVAL)
    assert same((y, grads, dx), (y_b, grads_b["parallel_0"], dx_b))


def test_residual_lists_the_shapes_of_both_branches() -> None:
    alone, pair = residual(Dense(4)), residual(Dense(4), Dense(6))
    params = {"dense_0": Dense(4).init(Key(0), (3,)), "dense_1": Dense(6).init(Key(0), (3,))}
    with pytest.raises(ShapeError, match=r"dense_0 gives \(4,\), the input has \(3,\)"):
        alone.out_shape((3,))
    with pytest.raises(ShapeError, match=r"dense_0 gives \(4,\), dense_1 gives \(6,\)"):
        pair.out_shape((3,))
    with pytest.raises(ShapeError, match=r"dense_0 gives \(5, 4\), the input has \(5, 3\)"):
        alone.apply(params, draw(5, 3))
    with pytest.raises(ShapeError, match=r"dense_0 gives \(5, 4\), dense_1 gives \(5, 6\)"):
        pair.forward(params, {}, draw(5, 3), EVAL)


def test_dtypes_are_not_mixed() -> None:
    x, z = draw(5, 3), draw(5, 3).astype(np.float64)
    for join in (fan_in_sum, fan_in_mul, fan_in_concat):
        with pytest.raises(TypeError, match="float32, float64"):
            join.forward({}, {}, (x, z), EVAL)


# --- mapped ----------------------------------------------------------------------------------------------------------


def test_mapped_is_the_layer_at_every_position() -> None:
    inner = serial(Dense(4), Tanh, Dense(2))
    net, x = mapped(inner), draw(5, 7, 3)
    params = moved(net.init(Key(0), (7, 3)))
    y, _, grads, dx = pass_of(net, params, (7, 3), x, EVAL)
    dy = draw(*y.shape, name="dy")
    total = tree.zeros_like(params["serial_0"])
    for t in range(7):
        y_t, _, cache = inner.forward(params["serial_0"], {}, x[:, t], EVAL)
        grads_t, dx_t = inner.vjp(params["serial_0"], cache, dy[:, t])
        np.testing.assert_allclose(y[:, t], y_t, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dx[:, t], dx_t, rtol=1e-5, atol=1e-6)
        total = tree.map(np.add, total, grads_t)
    assert tree.allclose(grads["serial_0"], total, rtol=1e-4, atol=1e-5)


# --- remat -----------------------------------------------------------------------------------------------------------


def test_remat_is_the_layer_bit_for_bit() -> None:
    inner = serial(Dense(6), Noisy, Centred, residual(serial(Noisy, Dense(6))), Dense(2))
    plain, net = serial(inner, Noisy), serial(remat(inner), remat(Noisy))
    params = moved(plain.init(Key(0), (3,)))
    assert same(net.init(Key(0), (3,)), plain.init(Key(0), (3,)))
    for mode in MODES:
        assert same(pass_of(net, params, (3,), draw(5, 3), mode), pass_of(plain, params, (3,), draw(5, 3), mode))


def test_remat_lowers_the_peak_of_32_blocks_five_times() -> None:
    block = residual(serial(Dense(96), Relu, Dense(96), Tanh, Dense(96), Relu, Dense(8)))
    x = draw(512, 8)

    def peak(net: Layer[Array, Array]) -> tuple[int, Params]:
        params = net.init(Key(0), (8,))
        gc.collect()
        tracemalloc.start()
        y, _, cache = net.forward(params, {}, x, Train(Key(0)))
        grads = params_vjp(net)(params, cache, y)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found, grads

    (plain, grads), (less, grads_again) = peak(repeat(block, 32)), peak(repeat(remat(block), 32))
    assert same(grads, grads_again)
    assert plain > 5 * less, f"{plain} bytes without, {less} with remat"


# --- frozen ----------------------------------------------------------------------------------------------------------


def test_frozen_keeps_paths_values_and_dx_and_has_no_gradients() -> None:
    plain = serial(Dense(4), named("mid", serial(Dense(6), Noisy, Centred)), Dense(2))
    net = serial(Dense(4), frozen(named("mid", serial(Dense(6), Noisy, Centred))), Dense(2))
    params = plain.init(Key(0), (3,))
    assert same(net.init(Key(0), (3,)), params)
    for mode in MODES:
        y, state, grads, dx = pass_of(net, params, (3,), draw(5, 3), mode)
        y_plain, state_plain, grads_plain, dx_plain = pass_of(plain, params, (3,), draw(5, 3), mode)
        assert same((y, state, dx), (y_plain, state_plain, dx_plain))
        assert grads.keys() == params.keys() and grads["mid"] is None
        assert same(grads, {**grads_plain, "mid": None})


def test_trainable_is_what_has_gradients_the_same_arrays() -> None:
    net = serial(serial(Dense(4), frozen(Dense(6))), frozen(serial(Dense(7))), low_rank(Dense(2), 1))
    params = net.init(Key(0), (3,))
    part = trainable(net, params)
    assert [path for path, _ in tree.items(part)] == [
        "serial_0/dense_0/weight",
        "serial_0/dense_0/bias",
        "dense_0/low_rank/weight/a",
        "dense_0/low_rank/weight/b",
    ]
    assert all(leaf is tree.get(params, path) for path, leaf in tree.items(part))
    plain = serial(Dense(4))
    params = plain.init(Key(0), (3,))
    assert trainable(plain, params) is params


def test_frozen_layers_do_no_work_for_their_parameters() -> None:
    cold = frozen(serial(refuse_param_grads(Dense(4)), Tanh, refuse_param_grads(Dense(6))))
    net = serial(Dense(7), cold, Dense(2))
    params, x = net.init(Key(0), (3,)), draw(5, 3)
    y, _, cache = net.forward(params, {}, x, EVAL)
    for grads in (net.vjp(params, cache, y)[0], params_vjp(net)(params, cache, y)):
        assert [name for name, part in grads.items() if part is not None] == ["dense_0", "dense_1"]


def test_frozen_layers_in_front_cost_no_backward_pass() -> None:
    front = frozen(attrs.evolve(Dense(4), vjp=unexpected, param_vjp=unexpected, input_vjp=unexpected))
    net = serial(front, serial(front, Tanh), refuse_dx(Dense(2)))
    params, x = net.init(Key(0), (3,)), draw(5, 3)
    y, _, cache = net.forward(params, {}, x, EVAL)
    grads = params_vjp(net)(params, cache, y)
    assert grads["dense_0"] is None and grads["serial_0"] is None and grads["dense_1"]["weight"].shape == (4, 2)


@pytest.mark.parametrize("opt", [sgd(0.1), sgd(0.1, momentum=0.9), adam(0.1), adamw(0.1)], ids=repr)
def test_training_a_network_with_frozen_layers_keeps_their_arrays(opt: Optimizer) -> None:
    net = serial(frozen(serial(Dense(6), Tanh)), residual(frozen(Dense(6))), low_rank(Dense(2), 1))
    params, x = net.init(Key(0), (3,)), draw(20, 3)
    after = train(params, batches((x, x[:, :2]), size=5), opt, model=net, loss=mse, epochs=2).params
    changed = {path for path, leaf in tree.items(after) if not same(leaf, tree.get(params, path))}
    assert changed == {"dense_0/low_rank/weight/a", "dense_0/low_rank/weight/b"}
    assert changed == {path for path, _ in tree.items(trainable(net, params))}


def test_a_network_of_frozen_layers_has_no_gradients() -> None:
    nets: list[Layer[Any, Any]] = [
        frozen(Dense(4)),
        serial(serial(frozen(Dense(4)), Tanh), frozen(Dense(2))),
        residual(mapped(frozen(Dense(3)))),
        dag(inputs="x", y=("x", frozen(Dense(4))), output="y"),
    ]
    for net in nets:
        params, x = net.init(Key(0), (7, 3)), draw(5, 7, 3)
        y, _, cache = net.forward(params, {}, x, EVAL)
        assert net.vjp(params, cache, y)[0] == params_vjp(net)(params, cache, y) == trainable(net, params) == {}


# --- tap -------------------------------------------------------------------------------------------------------------


def test_tap_records_what_the_next_layer_sees() -> None:
    hidden = serial(tap("inner", Dense(4)), Noisy, Centred)
    net, plain = serial(tap("hidden", hidden), tap("out", Dense(2))), serial(serial(Dense(4), Noisy, Centred), Dense(2))
    params, x = plain.init(Key(0), (3,)), draw(5, 3)
    assert same(net.init(Key(0), (3,)), params)
    for mode in MODES:
        assert same(pass_of(net, params, (3,), x, mode), pass_of(plain, params, (3,), x, mode))
    _, before, _ = plain.forward(params, plain.init_state((3,)), x, MODES[0])
    y, after, _ = net.forward(params, before, x, Record())
    np.testing.assert_array_equal(y, plain.apply(params, x, before))
    recorded = {path: leaf for path, leaf in tree.items(after) if path.split("/")[-1] in ("inner", "hidden", "out")}
    first, second = params["serial_0"]["dense_0"], params["dense_0"]
    assert recorded.keys() == {"serial_0/dense_0/inner", "serial_0/hidden", "dense_0/out"}
    np.testing.assert_array_equal(recorded["serial_0/dense_0/inner"], Dense(4).apply(first, x))
    np.testing.assert_array_equal(Dense(2).apply(second, recorded["serial_0/hidden"]), y)
    assert recorded["dense_0/out"] is y


def test_a_tap_records_through_other_wrappers() -> None:
    net = remat(frozen(WeightNorm(tap("hidden", serial(Dense(4), fan_out(2))))))
    y, state, _ = net.forward(net.init(Key(0), (3,)), net.init_state((3,)), draw(5, 3), Record())
    assert same(state, {"hidden": y})


def test_a_tap_may_not_take_the_name_of_a_state() -> None:
    with pytest.raises(ValueError, match="'mean'"):
        tap("mean", Centred).init_state((3,))


# --- tied ------------------------------------------------------------------------------------------------------------


def test_tied_equals_the_expanded_network() -> None:
    plain = serial(Dense(6), Tanh, named("deep", serial(Dense(6), Dense(6))), Dense(3))
    net = tied(plain, {"deep/dense_1": "deep/dense_0"}, transposed={"dense_1/weight": "dense_0/weight"})
    own = moved(net.init(Key(0), (3,)))
    assert [path for path, _ in tree.items(own)] == [
        "dense_0/weight",
        "dense_0/bias",
        "deep/dense_0/weight",
        "deep/dense_0/bias",
        "dense_1/bias",
    ]
    deep = {"dense_0": own["deep"]["dense_0"], "dense_1": own["deep"]["dense_0"]}
    full = {**own, "deep": deep, "dense_1": {"weight": own["dense_0"]["weight"].T, **own["dense_1"]}}
    y, _, grads, dx = pass_of(net, own, (3,), draw(5, 3), EVAL)
    y_full, _, grads_full, dx_full = pass_of(plain, full, (3,), draw(5, 3), EVAL)
    assert same((y, dx), (y_full, dx_full))
    expected = {
        "dense_0": {
            "weight": grads_full["dense_0"]["weight"] + grads_full["dense_1"]["weight"].T,
            "bias": grads_full["dense_0"]["bias"],
        },
        "deep": {"dense_0": tree.map(np.add, grads_full["deep"]["dense_0"], grads_full["deep"]["dense_1"])},
        "dense_1": {"bias": grads_full["dense_1"]["bias"]},
    }
    assert same(grads, expected)


def test_one_array_may_stand_in_three_places() -> None:
    net = tied(repeat(Dense(3), 3), {"dense_1": "dense_0", "dense_2": "dense_0"})
    params = net.init(Key(0), (3,))
    assert list(params) == ["dense_0"]
    f = Dense(3)
    x = draw(5, 3)
    np.testing.assert_array_equal(net.apply(params, x), f.apply(p := params["dense_0"], f.apply(p, f.apply(p, x))))


@pytest.mark.parametrize(
    ("equal", "transposed", "message"),
    [
        ({}, {}, "at least one"),
        ({"dense_0": "dense_0"}, {}, "overlaps"),
        ({"dense_0": "dense_0/weight"}, {}, "overlaps"),
        ({"dense_1": "dense_0", "dense_2": "dense_1"}, {}, "overlaps"),
        ({"dense_1": "dense_0"}, {"dense_1/weight": "dense_0/weight"}, "overlaps"),
    ],
)
def test_ties_that_go_in_circles_are_refused(equal: dict[str, str], transposed: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tied(repeat(Dense(3), 3), equal, transposed)


def test_ties_that_do_not_fit_are_refused_where_shapes_are_known() -> None:
    net = serial(Dense(6), frozen(Dense(3)), Dense(6))
    with pytest.raises(ValueError, match="no 'dense_9'"):
        tied(net, {"dense_9": "dense_0"}).init(Key(0), (3,))
    with pytest.raises(ShapeError, match=r"\(6, 3\).*\(3, 6\)"):
        tied(net, {"dense_1/weight": "dense_0/weight"}).out_shape((3,))
    with pytest.raises(ShapeError, match=r"\(3, 6\) and \(3, 6\)"):
        tied(net, transposed={"dense_2/weight": "dense_0/weight"}).init(Key(0), (3,))
    with pytest.raises(ValueError, match="freeze both or none"):
        tied(net, transposed={"dense_1/weight": "dense_0/weight"}).init(Key(0), (3,))


# --- weights that are made of others ---------------------------------------------------------------------------------


def test_a_wrong_contraction_is_found_by_the_laws() -> None:
    def forgetful(own: Params, grads: Params) -> Params:
        return grads

    check_layer(reparam(Dense(4), positive_expand, positive_contract), (3,))
    with pytest.raises(LawError, match="weight"):
        check_layer(reparam(Dense(4), positive_expand, forgetful), (3,))


def test_weight_norm_starts_as_the_layer_and_separates_length_from_direction() -> None:
    net, x = WeightNorm(Dense(4)), draw(5, 3)
    own = net.init(Key(0), (3,))
    plain = Dense(4).init(Key(0), (3,))
    assert tree.allclose(weight_norm_expand(own), plain, atol=1e-6)
    longer = {**own, "weight": {**own["weight"], "direction": 3 * own["weight"]["direction"]}}
    np.testing.assert_allclose(net.apply(longer, x), net.apply(own, x), rtol=1e-5, atol=1e-6)
    own = moved(own)
    norms = np.linalg.norm(weight_norm_expand(own)["weight"], axis=0)
    np.testing.assert_allclose(norms, np.abs(own["weight"]["gain"]), rtol=1e-5)
    grads = pass_of(net, own, (3,), x, EVAL)[2]["weight"]
    along = (grads["direction"] * own["weight"]["direction"]).sum(0)  # dv is normal to v: section 2.1 of the paper
    np.testing.assert_allclose(along, 0, atol=1e-4)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    net, x = SpectralNorm(Dense(7)), draw(5, 4)
    params = moved(net.init(Key(0), (4,)))
    sigma = np.linalg.svd(params["weight"], compute_uv=False)[0]
    state = net.init_state((4,))
    for step in range(200):
        _, state, _ = net.forward(params, state, x, Train(Key(step)))
    expected = x @ (params["weight"] / sigma) + params["bias"]
    np.testing.assert_allclose(net.apply(params, x, state), expected, rtol=1e-4, atol=1e-4)
    assert same(net.forward(params, state, x, EVAL)[1], state)
    more = SpectralNorm(Dense(7), iterations=5)
    once, five = net.init_state((4,)), net.init_state((4,))
    for _ in range(5):
        once = net.forward(params, once, x, Train(Key(0)))[1]
    assert tree.allclose(once, more.forward(params, five, x, Train(Key(0)))[1], atol=1e-5)


def test_spectral_norm_without_its_state_says_so() -> None:
    net = SpectralNorm(Dense(7))
    with pytest.raises(ValueError, match="init_state"):
        net.apply(net.init(Key(0), (4,)), draw(5, 4))


def test_low_rank_starts_as_the_layer_and_changes_it_by_that_rank() -> None:
    plain = serial(Dense(6), Tanh, Dense(7))
    net, x = low_rank(plain, 2, scale=0.5), draw(5, 4)
    trained = moved(plain.init(Key(1), (4,)))
    own = {**net.init(Key(0), (4,)), **trained}
    np.testing.assert_array_equal(net.apply(own, x), plain.apply(trained, x))
    own = {**own, "low_rank": moved(own["low_rank"])}
    merged = low_rank_expand(0.5, own)
    np.testing.assert_array_equal(plain.apply(merged, x), net.apply(own, x))
    for name in ("dense_0", "dense_1"):
        change = np.float64(merged[name]["weight"]) - trained[name]["weight"]
        assert np.linalg.matrix_rank(change, tol=1e-4) == 2
        assert merged[name]["bias"] is own[name]["bias"]
    grads = params_vjp(net)(own, net.forward(own, {}, x, EVAL)[2], net.apply(own, x))
    assert grads["dense_0"] is None and grads["dense_1"] is None
    assert grads["low_rank"]["dense_1"]["weight"]["b"].shape == (2, 7)


def test_weights_that_cannot_be_normalised_or_adapted_are_refused() -> None:
    from fnn.initializers import zeros

    for wrapper in (WeightNorm, SpectralNorm):
        with pytest.raises(ValueError, match="zero"):
            wrapper(Dense(4, weight_init=zeros)).init(Key(0), (3,))
    for net in (WeightNorm(Tanh), SpectralNorm(Tanh), low_rank(Tanh, 2)):
        with pytest.raises(ValueError, match="two axes"):
            net.init(Key(0), (3,))
    cold = serial(frozen(Dense(4)))
    for make in (WeightNorm, SpectralNorm, lambda layer: low_rank(layer, 1)):
        with pytest.raises(ValueError, match="freeze outside"):
            make(cold)


# --- dag -------------------------------------------------------------------------------------------------------------


def test_a_dag_without_branches_is_serial() -> None:
    a = dag(inputs="x", h=("x", Dense(4)), noise=("h", Noisy), c=("noise", Centred), y=("c", Dense(2)), output="y")
    b = serial(named("h", Dense(4)), named("noise", Noisy), named("c", Centred), named("y", Dense(2)))
    params = a.init(Key(0), (3,))
    assert same(params, b.init(Key(0), (3,)))
    for mode in MODES:
        assert same(pass_of(a, params, (3,), draw(5, 3), mode), pass_of(b, params, (3,), draw(5, 3), mode))


def test_a_dag_adds_the_gradients_of_all_uses() -> None:
    f = serial(Dense(3), Tanh)
    a = dag(inputs="x", f=("x", f), y=(("x", "f"), fan_in_sum), output="y")
    b = residual(f)
    params = moved(a.init(Key(0), (3,)))
    y, _, grads, dx = pass_of(a, params, (3,), draw(5, 3), EVAL)
    y_b, _, grads_b, dx_b = pass_of(b, {"serial_0": params["f"]}, (3,), draw(5, 3), EVAL)
    assert tree.allclose((y, dx, grads["f"]), (y_b, dx_b, grads_b["serial_0"]), atol=1e-6)


def test_a_dag_spares_the_gradient_of_its_inputs() -> None:
    net = dag(
        inputs=("x", "z"),
        a=("x", refuse_dx(Dense(4))),
        b=("z", refuse_dx(Dense(4))),
        y=(("a", "b"), fan_in_sum),
        output="y",
    )
    params, x = net.init(Key(0), ((3,), (6,))), (draw(5, 3), draw(5, 6))
    y, _, cache = net.forward(params, {}, x, EVAL)
    assert set(params_vjp(net)(params, cache, y)) == {"a", "b"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dag(inputs="x", y=("z", Tanh), output="y"), "'z', which is not among x"),
        (lambda: dag(inputs="x", y=("h", Tanh), h=("x", Tanh), output="y"), "defined later"),
        (lambda: dag(inputs="x", y=("y", Tanh), output="y"), "'y', which"),
        (lambda: dag(inputs="x", y=("x", Tanh), h=("x", Tanh), output="y"), "'h' is not used"),
        (lambda: dag(inputs=("x", "z"), y=("x", Tanh), output="y"), "'z' is not used"),
        (lambda: dag(inputs=("x", "x"), y=("x", Tanh), output="y"), "'x' is given twice"),
        (lambda: dag(inputs="x", x=("x", Tanh), output="x"), "'x' is given twice"),
        (lambda: dag(inputs="x", y=("x", Tanh), output="z"), "output 'z'"),
        (lambda: dag(inputs="a/b", y=("a/b", Tanh), output="y"), "without '/'"),
    ],
)
def test_a_wrong_dag_is_refused_when_it_is_built(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_node_that_is_no_node_is_refused() -> None:
    nodes: dict[str, Any] = {"no pair": Tanh, "no layer": ("x", 3), "no call": ("x", Dense), "no names": ((), Tanh)}
    for node in nodes.values():
        with pytest.raises(TypeError, match="dag: expected"):
            dag(inputs="x", y=node, output="y")


# --- what is refused, and what survives ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [parallel, lambda: repeat(Tanh, 0), lambda: fan_out(0), lambda: tap("a/b", Tanh), lambda: low_rank(Dense(2), 0)]
    + [lambda: low_rank(Dense(2), 1, scale=0.0), lambda: SpectralNorm(Dense(2), 0)],
)
def test_bad_arguments_raise_where_they_are_given(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


def test_what_is_no_layer_is_refused_everywhere() -> None:
    wrong: Any = Dense
    makers: list[Callable[[Any], Any]] = [serial, parallel, residual, mapped, remat, frozen, WeightNorm, SpectralNorm]
    makers += [lambda f: repeat(f, 2), lambda f: tap("t", f), lambda f: tied(f, {"a": "b"}), lambda f: low_rank(f, 1)]
    for make in makers:
        with pytest.raises(TypeError, match=r"Dense\(\.\.\.\)"):
            make(wrong)


def test_names_given_before_or_after_wrapping_are_the_same() -> None:
    wrappers: list[Callable[[Layer[Array, Array]], Layer[Array, Array]]] = [remat, frozen, WeightNorm, SpectralNorm]
    for wrap in wrappers:
        for net in (wrap(named("out", Dense(4))), named("out", wrap(Dense(4)))):
            assert repr(net) == f"named('out', {wrap.__name__}(Dense(4)))"
            assert list(serial(net).init(Key(0), (3,))) == ["out"]


def test_caches_of_remat_survive_pickling() -> None:
    net = remat(serial(Dense(4), Noisy))
    params, x = net.init(Key(0), (3,)), draw(5, 3)
    y, _, cache = net.forward(params, {}, x, Train(Key(3)))
    assert same(net.vjp(params, pickle.loads(pickle.dumps(cache)), y), net.vjp(params, cache, y))


def test_the_derivatives_of_a_tuple_that_is_used_twice_are_added() -> None:
    """They were put one behind the other, and the second use was lost."""
    halves = parallel(Dense(2), Dense(2))
    both = parallel(fan_in_mul, fan_in_sum)
    nodes: Any = {"xx": ("x", fan_out(2)), "h": ("xx", halves), "a": ("h", fan_in_mul), "b": ("h", fan_in_sum)}
    graph = dag(inputs="x", **nodes, y=(("a", "b"), fan_in_sum), output="y")
    nets: list[Layer[Any, Any]] = [
        graph,
        serial(*[fan_out(2), halves, fan_out(2), both, fan_in_sum]),
        serial(*[fan_out(2), halves, fan_out(3), parallel(fan_in_mul, fan_in_sum, fan_in_mul), fan_in_sum]),
    ]
    for net in nets:
        check_layer(net, (3,))


def test_a_spectral_norm_keeps_the_dtype_of_its_state() -> None:
    net = SpectralNorm(Dense(4))
    state = net.init_state((3,))
    params = tree.cast(net.init(Key(0), (3,)), np.float64)
    _, after, _ = net.forward(params, state, np.ones((2, 3)), Train(Key(0)))
    assert [a.dtype for a in tree.leaves(after)] == [a.dtype for a in tree.leaves(state)]
    assert not tree.allclose(state, after)


def test_running_statistics_move_where_nothing_is_trained() -> None:
    net = serial(frozen(Dense(4)), BatchNorm(scale_init=None, bias_init=None), frozen(Dense(2)))
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    params = net.init(Key(0), (3,))
    result = train(params, batches((x, x[:, :2]), 5), adam(0.1), model=net, loss=mse, epochs=2)
    assert tree.allclose(result.params, params, rtol=0, atol=0)
    assert not tree.allclose(result.state, net.init_state((3,))) and result.train_state.step == 8


# --- what would go wrong later ---------------------------------------------------------------------------------------


def test_a_node_with_parameters_of_inputs_alone_is_trained() -> None:
    x, z = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
    net = dag(inputs=("x", "z"), y=(("x", "z"), serial(fan_in_concat, Dense(1))), output="y")
    params = net.init(Key(0), ((3,), (2,)))
    data = batches(((x, z), x[:, :1]), 4)
    assert train(params, data, sgd(0.1), model=net, loss=mse, epochs=2).history[-1].loss < 10


def test_tied_gradients_have_the_structure_of_the_parameters() -> None:
    bare = Dense(4, bias_init=None)
    for net in (
        tied(serial(frozen(bare), frozen(bare), Dense(4)), {"dense_1/weight": "dense_0/weight"}),
        tied(low_rank(serial(bare, bare), 1), {"dense_1/weight": "dense_0/weight"}),
    ):
        params, x = net.init(Key(0), (4,)), np.ones((8, 4), np.float32)
        grads = grad(net, mse)(params, {}, x, x, Eval())
        tree.check_same_structure(trainable(net, params), grads)
        train(params, batches((x, x), 4), adam(0.01), model=net, loss=mse, epochs=1)


def test_weights_are_normalised_once() -> None:
    with pytest.raises(ValueError, match="WeightNorm: .* has a direction and a gain already"):
        WeightNorm(serial(WeightNorm(Dense(3)), Dense(2))).init(Key(0), (3,))


def test_spectral_norm_belongs_around_a_scan() -> None:
    for cell in (SpectralNorm(gru_cell(3)), stack(gru_cell(2), SpectralNorm(gru_cell(3)))):
        with pytest.raises(ValueError, match=r"write SpectralNorm\(scan\(cell\)\)"):
            scan(cell)


@pytest.mark.parametrize("mode", [Train, True, "train", None, Key(0)], ids=str)
@pytest.mark.parametrize("layer", [serial(Dense(3)), BatchNorm(), Dropout(0.5), parallel(Dropout(0.1))], ids=str)
def test_what_is_no_mode_is_not_taken_for_evaluation(layer: Any, mode: Any) -> None:
    x: Any = np.ones((4, 3), np.float32)
    shape: Any = (3,)
    if layer.kind == "parallel":
        x, shape = (x,), (shape,)
    with pytest.raises(TypeError, match="expected the mode of the pass"):
        layer.forward(layer.init(Key(0), shape), layer.init_state(shape), x, mode)


def test_a_training_pass_has_a_key() -> None:
    seed: Any = 0
    with pytest.raises(TypeError, match=r"Train: expected a key, as in Train\(Key\(0\)\), got 0"):
        Train(seed)


def test_a_tap_hides_no_child() -> None:
    with pytest.raises(ValueError, match="has a child named 'dense_0', whose state it would hide"):
        tap("dense_0", serial(tap("h", Dense(5)), Relu))


def test_a_mapped_layer_may_give_a_number_for_each_position() -> None:
    net = mapped(serial(Dense(1), Reshape(())))
    params, x = net.init(Key(0), (4, 3)), np.ones((2, 4, 3), np.float32)
    grads = grad(net, mse)(params, {}, x, np.zeros((2, 4), np.float32), Eval())
    tree.check_same_structure(params, grads)
    check_vjp(net, (4, 3))


def test_frozen_nodes_in_front_cost_no_backward_pass() -> None:
    def refused(*args: Any) -> Any:
        raise AssertionError("nobody asks for this")

    front = attrs.evolve(Dense(3), vjp=refused, param_vjp=refused, input_vjp=refused)
    net = dag(
        inputs="x",
        a=("x", frozen(front)),
        b=("a", attrs.evolve(Tanh, vjp=refused, param_vjp=refused, input_vjp=refused)),
        y=("b", Dense(1)),
        output="y",
    )
    params, x = net.init(Key(0), (3,)), np.ones((2, 3), np.float32)
    grads = grad(net, mse)(params, {}, x, x[:, :1], Eval())
    assert grads["a"] is None and grads["y"]["weight"].shape == (3, 1)
