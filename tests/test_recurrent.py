"""Recurrent layers: the fused kernels against the cells, time, lengths, carries, and what is refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.combinators import frozen, remat, serial
from fnn.contract import EVAL, Layer, Mode, Train, layer
from fnn.data import batches
from fnn.layers.dense import Dense
from fnn.layers.recurrent import GRU, LSTM, RNN, gru_cell, lstm_cell, rnn_cell
from fnn.layers.recurrent.sequence import blocks, short_blocks
from fnn.losses import mse
from fnn.optimizers import sgd
from fnn.random import Key
from fnn.recurrence import Bidirectional, carried, carry_shape, scan, stack, zero_carry
from fnn.training import train
from fnn.types import Array, Params, Shape, ShapeError, State

BATCH, TIME, IN, FEATURES = 5, 7, 3, 6

CELLS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "rnn tanh": (RNN, rnn_cell, {}),
    "rnn relu": (RNN, rnn_cell, {"activation": "relu"}),
    "gru after": (GRU, gru_cell, {}),
    "gru before": (GRU, gru_cell, {"reset": "before"}),
    "lstm": (LSTM, lstm_cell, {}),
    "lstm peepholes": (LSTM, lstm_cell, {"peepholes": True}),
    "lstm projection": (LSTM, lstm_cell, {"projection": 2}),
    "lstm both": (LSTM, lstm_cell, {"peepholes": True, "projection": 2}),
}

every_cell = pytest.mark.parametrize(("sequence", "cell", "options"), CELLS.values(), ids=CELLS)


def normals(shape: Any, seed: int) -> Any:
    """Standard normal float64 arrays for a tree of shapes, batch axis included."""
    rng = np.random.default_rng(seed)
    several = isinstance(shape[0], tuple)
    return tuple(normals(part, seed + i) for i, part in enumerate(shape)) if several else rng.standard_normal(shape)


def carry(shape: Any, batch: int = BATCH, seed: int = 7) -> Any:
    return tree.map(lambda a: a + normals(a.shape, seed + a.shape[1]), zero_carry(shape, batch, np.float64))


def moved(params: Params, seed: int = 3) -> Any:
    """float64 parameters away from where they start."""
    return tree.map(lambda a: a + 0.3 * normals((1, *a.shape), seed)[0], tree.cast(params, np.float64))


def close(a: Any, b: Any, tolerance: float = 1e-11) -> None:
    tree.check_same_structure(a, b)
    for x, y in zip(tree.leaves(a), tree.leaves(b)):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def run(net: Layer[Any, Any], params: Params, x: Any, dy_seed: int = 11) -> tuple[Any, Params, Any]:
    """The output, the gradients and dx for a random dy."""
    y, _, cache = net.forward(params, {}, x, EVAL)
    dy = tree.map(lambda a: normals(a.shape, dy_seed + a.ndim), y)
    return y, *net.vjp(params, cache, dy)


# --- the fused kernels are the cells repeated ------------------------------------------------------------------------


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_a_layer_is_its_cell_repeated(
    sequence: Any, cell: Any, options: dict[str, Any], reverse: bool, lengths: bool
) -> None:
    fused = sequence(FEATURES, carry=True, reverse=reverse, lengths=lengths, **options)
    over_time: Any = scan  # the overloads ask for a literal
    plain = over_time(cell(FEATURES, **options), reverse=reverse, lengths=lengths)
    shape = carry_shape(fused)
    assert carry_shape(plain) == shape
    x: Any = normals((BATCH, TIME, IN), 1)
    in_shape: Any = (TIME, IN)
    if lengths:
        x, in_shape = (x, np.array([1, TIME, 4, 2, 6])), (in_shape, ())
    inputs = x, carry(shape)
    params = moved(fused.init(Key(0), (in_shape, shape)))
    name = plain.children[0][0]
    y, grads, dx = run(fused, params, inputs)
    y_plain, grads_plain, dx_plain = run(plain, {name: params}, inputs)
    close(y, y_plain)
    close({name: grads}, grads_plain)
    close(dx, dx_plain)
    close(fused.apply(params, inputs), y)
    close(plain.apply({name: params}, inputs), y)


@every_cell
def test_the_initial_values_are_those_of_the_cell(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    fused, plain = sequence(FEATURES, **options), cell(FEATURES, **options)
    close(fused.init(Key(4), (TIME, IN)), plain.init(Key(4), ((IN,), carry_shape(plain))), 0)


@every_cell
def test_many_blocks_of_steps_are_one(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    """Wide layers run their backward pass a few steps at a time."""
    batch, features, time = 270, 500, 3
    assert len(blocks(time, batch, features)) == time
    options = {**options, "projection": 4} if "projection" in options else options
    fused, plain = sequence(features, carry=True, **options), scan(cell(features, **options))
    shape = carry_shape(fused)
    x = normals((batch, time, 2), 1), carry(shape, batch)
    params = tree.cast(fused.init(Key(0), ((time, 2), shape)), np.float64)
    (name, _), *_ = plain.children
    y, grads, dx = run(fused, params, x)
    y_plain, grads_plain, dx_plain = run(plain, {name: params}, x)
    close(y, y_plain)
    close({name: grads}, grads_plain, 1e-10)
    close(dx, dx_plain, 1e-10)


@every_cell
def test_a_batch_without_examples_has_gradients_of_zero(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    net = sequence(FEATURES, **options)
    params = net.init(Key(0), (TIME, IN))
    x = np.zeros((0, TIME, IN), np.float32)
    y, _, cache = net.forward(params, {}, x, EVAL)
    grads, dx = net.vjp(params, cache, y)
    assert (y.shape, dx.shape) == ((0, TIME, net.out_shape((TIME, IN))[1]), x.shape)
    close(grads, tree.map(np.zeros_like, params), 0)


def test_blocks_cover_all_steps_once() -> None:
    for time, batch, width in [(1, 1, 1), (50, 32, 32), (64, 32, 512), (7, 1000, 1000), (1000, 3, 9)]:
        for cut in (blocks, short_blocks):
            steps = [t for block in cut(time, batch, width) for t in range(block.start, block.stop)]
            assert steps == list(range(time))


@pytest.mark.parametrize("kind", [kind for kind in CELLS if not kind.startswith("rnn")])
def test_saturated_gates_do_not_overflow(kind: str) -> None:
    """Pre-activations of ten thousand, of both signs: finite everywhere, and silent."""
    sequence, _, options = CELLS[kind]
    net = sequence(FEATURES, **options)
    params = tree.map(lambda p: p * np.float32(1e4), net.init(Key(0), (TIME, IN)))
    x = normals((5, TIME, IN), 1).astype(np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, _, cache = net.forward(params, {}, x, EVAL)
        back = net.vjp(params, cache, np.ones_like(y))
    assert all(np.isfinite(leaf).all() for leaf in tree.leaves((y, back)))


def test_evaluation_keeps_no_gates() -> None:
    net, time = LSTM(16), 400
    params = net.init(Key(0), (time, 1))
    x = np.zeros((8, time, 1), np.float32)
    tracemalloc.start()
    try:
        net.apply(params, x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4 * 8 * time * 16  # h, once by time and once by example, and not much more


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_a_linear_recurrence_is_a_power_of_the_weight() -> None:
    """relu(h U) for non-negative h and U is h U, so h_T = h_0 U**T, dh_0 = dh_T (U')**T."""
    net, time = RNN(3, "relu", carry=True), 9
    rng = np.random.default_rng(0)
    weight, h, dh = rng.uniform(0, 0.5, (3, 3)), rng.uniform(0, 1, (2, 3)), rng.standard_normal((2, 3))
    params = {"input_weight": np.zeros((1, 3)), "hidden_weight": weight, "bias": np.zeros(3)}
    (y, last), _, cache = net.forward(params, {}, (np.zeros((2, time, 1)), h), EVAL)
    close(last, h @ np.linalg.matrix_power(weight, time))
    close(y[:, -1], last)
    grads, (_, dstart) = net.vjp(params, cache, (np.zeros_like(y), dh))
    close(dstart, dh @ np.linalg.matrix_power(weight.T, time))
    states = [h @ np.linalg.matrix_power(weight, t) for t in range(time)]
    powers = [dh @ np.linalg.matrix_power(weight.T, time - 1 - t) for t in range(time)]
    close(grads["hidden_weight"], sum(a.T @ b for a, b in zip(states, powers)))


def test_an_open_lstm_counts() -> None:
    """With gates i and f saturated open and g at its limit of 1, c grows by one a step."""
    params = {"input_weight": np.zeros((1, 8)), "hidden_weight": np.zeros((2, 8)), "bias": np.full(8, 40.0)}
    net = LSTM(2, carry=True)
    start = zero_carry(carry_shape(net), 3, np.float64)
    (y, (h, c)), _, _ = net.forward(params, {}, (np.zeros((3, 6, 1)), start), EVAL)
    close(c, np.full((3, 2), 6.0))
    close(y[0, :, 0], np.tanh(np.arange(1.0, 7.0)))
    close(h, y[:, -1])


def test_a_gru_with_its_update_gate_closed_stands_still() -> None:
    """z = 1 copies h, however long the sequence."""
    for reset in ("after", "before"):
        net = GRU(2, reset=reset, carry=True)
        params = moved(net.init(Key(0), ((4, 3), (2,))))
        params["bias"][2:4] = 1e3
        h = normals((5, 2), 0)
        (y, last), _, _ = net.forward(params, {}, (normals((5, 4, 3), 1), h), EVAL)
        close(last, h)
        close(y, np.repeat(h[:, None], 4, axis=1))


# --- gradients through time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in CELLS if kind != "rnn relu"])  # a chain of relus may be cut
def test_the_first_step_feels_the_last(kind: str) -> None:
    """The derivative of the last answer with respect to the first input, against central differences."""
    sequence, _, options = CELLS[kind]
    net, time = sequence(FEATURES, **options), 12
    params = moved(net.init(Key(1), (time, IN)))
    x = normals((2, time, IN), 5)
    y, _, cache = net.forward(params, {}, x, EVAL)
    dy = np.zeros_like(y)
    dy[:, -1] = 1
    dx = net.vjp(params, cache, dy)[1]
    assert np.abs(dx[:, 0]).max() > 1e-9
    for index in [(0, 0, 0), (1, 0, 2), (1, time // 2, 1)]:
        step = np.zeros_like(x)
        step[index] = 1e-6
        up, down = (net.apply(params, x + s)[:, -1].sum() for s in (step, -step))
        assert abs((up - down) / 2e-6 - dx[index]) < 1e-8


@every_cell
def test_a_sequence_in_two_parts(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    """Handing the carry on, forwards and backwards, is the same as one pass; not back, truncated backpropagation."""
    net = sequence(FEATURES, carry=True, **options)
    shape = carry_shape(net)
    params = moved(net.init(Key(2), ((TIME, IN), shape)))
    x, start, cut = normals((BATCH, TIME, IN), 1), carry(shape), 3
    (y, last), _, whole = net.forward(params, {}, (x, start), EVAL)
    (y_a, middle), _, cache_a = net.forward(params, {}, (x[:, :cut], start), EVAL)
    (y_b, last_b), _, cache_b = net.forward(params, {}, (x[:, cut:], middle), EVAL)
    close(np.concatenate([y_a, y_b], axis=1), y)
    close(last_b, last)

    dy, dlast = normals(y.shape, 8), carry(shape, seed=9)
    grads, (dx, dstart) = net.vjp(params, whole, (dy, dlast))
    grads_b, (dx_b, dmiddle) = net.vjp(params, cache_b, (dy[:, cut:], dlast))
    grads_a, (dx_a, dstart_a) = net.vjp(params, cache_a, (dy[:, :cut], dmiddle))
    close(tree.map(np.add, grads_a, grads_b), grads)
    close(np.concatenate([dx_a, dx_b], axis=1), dx)
    close(dstart_a, dstart)

    nothing = tree.map(np.zeros_like, dmiddle)
    truncated, (dx_cut, _) = net.vjp(params, cache_a, (dy[:, :cut], nothing))
    y_alone, alone, dx_alone = (lambda c: (c[0], *net.vjp(params, c[2], (dy[:, :cut], nothing))))(
        net.forward(params, {}, (x[:, :cut], start), EVAL)
    )
    close(y_alone[0], y_a)
    close(truncated, alone)
    close(dx_cut, dx_alone[0])


# --- variants --------------------------------------------------------------------------------------------------------


@every_cell
def test_without_a_carry_it_starts_from_zero(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    plain, carried = sequence(FEATURES, **options), sequence(FEATURES, carry=True, **options)
    shape = carry_shape(carried)
    params = moved(plain.init(Key(0), (TIME, IN)))
    x = normals((BATCH, TIME, IN), 1)
    y, _ = carried.apply(params, (x, zero_carry(shape, BATCH, np.float64)))
    close(plain.apply(params, x), y)


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_last_is_the_step_that_is_run_last(
    sequence: Any, cell: Any, options: dict[str, Any], reverse: bool, lengths: bool
) -> None:
    every = sequence(FEATURES, reverse=reverse, lengths=lengths, **options)
    last = sequence(FEATURES, reverse=reverse, lengths=lengths, returns="last", **options)
    ends = np.array([1, TIME, 4, 2, 6]) if lengths else np.full(BATCH, TIME)
    array = normals((BATCH, TIME, IN), 1)
    x = (array, ends) if lengths else array
    params = moved(every.init(Key(0), ((TIME, IN), ()) if lengths else (TIME, IN)))
    at = np.arange(BATCH), np.zeros(BATCH, int) if reverse else ends - 1
    y, _, cache = every.forward(params, {}, x, EVAL)
    final, _, cache_last = last.forward(params, {}, x, EVAL)
    close(final, y[at])
    d = normals(final.shape, 2)
    dy = np.zeros_like(y)
    dy[at] = d
    close(last.vjp(params, cache_last, d), every.vjp(params, cache, dy))


@every_cell
def test_reversed_is_the_mirror_image(sequence: Any, cell: Any, options: dict[str, Any]) -> None:
    ahead, back = sequence(FEATURES, **options), sequence(FEATURES, reverse=True, **options)
    params = moved(ahead.init(Key(0), (TIME, IN)))
    x = normals((BATCH, TIME, IN), 1)
    close(back.apply(params, x), ahead.apply(params, x[:, ::-1])[:, ::-1])


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_an_example_of_a_length_is_the_example_cut_there(
    sequence: Any, cell: Any, options: dict[str, Any], reverse: bool
) -> None:
    """Whatever the padding holds, and with gradients that nothing beyond the length touches."""
    ragged = sequence(FEATURES, lengths=True, carry=True, reverse=reverse, **options)
    plain = sequence(FEATURES, carry=True, reverse=reverse, **options)
    shape = carry_shape(plain)
    params = moved(plain.init(Key(0), ((TIME, IN), shape)))
    x, lengths, start = normals((BATCH, TIME, IN), 1), np.array([3, 1, TIME, 5, 2], np.int8), carry(shape)
    for i, n in enumerate(lengths):
        x[i, n:] = np.nan
    (y, last), _, cache = ragged.forward(params, {}, ((x, lengths), start), EVAL)
    dy, dlast = normals(y.shape, 3), carry(shape, seed=4)
    grads, ((dx, _), dstart) = ragged.vjp(params, cache, (dy, dlast))
    total = tree.map(np.zeros_like, grads)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        alone = x[one, :n], tree.map(lambda a: a[one], start)
        (y_i, last_i), _, cache_i = plain.forward(params, {}, alone, EVAL)
        close(y[one, :n], y_i)
        close(tree.map(lambda a: a[one], last), last_i)
        grads_i, (dx_i, dstart_i) = plain.vjp(params, cache_i, (dy[one, :n], tree.map(lambda a: a[one], dlast)))
        close(dx[one, :n], dx_i)
        close(tree.map(lambda a: a[one], dstart), dstart_i)
        assert not y[i, n:].any() and not dx[i, n:].any()
        total = tree.map(np.add, total, grads_i)
    close(grads, total)


def test_both_directions_side_by_side() -> None:
    ahead, back = GRU(FEATURES), LSTM(2, reverse=True)
    both = Bidirectional(ahead, back)
    params = moved(both.init(Key(0), (TIME, IN)))
    x = normals((BATCH, TIME, IN), 1)
    expected = ahead.apply(params["forward"], x), back.apply(params["backward"], x)
    close(both.apply(params, x), np.concatenate(expected, axis=2))


def test_layers_stack_through_serial_and_carries_through_stack() -> None:
    plain = serial(LSTM(FEATURES), GRU(2))
    carried = stack(LSTM(FEATURES, carry=True), GRU(2, carry=True))
    cells = scan(stack(lstm_cell(FEATURES), gru_cell(2)))
    shape = carry_shape(carried)
    assert shape == carry_shape(cells) == (((FEATURES,), (FEATURES,)), (2,))
    params = moved(plain.init(Key(0), (TIME, IN)))
    x, start = normals((BATCH, TIME, IN), 1), zero_carry(shape, BATCH, np.float64)
    y, last = carried.apply(params, (x, start))
    close(y, plain.apply(params, x))
    inner = {"stack_0": {"lstm_cell_0": params["lstm_0"], "gru_cell_0": params["gru_0"]}}
    close(cells.apply(inner, (x, start)), (y, last))


# --- scan ------------------------------------------------------------------------------------------------------------


def counting_forward(params: Params, state: State, inputs: Any, mode: Mode) -> tuple[Any, State, Any]:
    """y = x + noise, carry + 1; counts its steps in the state."""
    x, carry = inputs
    noise = mode.key.generator().standard_normal(x.shape) if isinstance(mode, Train) else np.zeros_like(x)
    return (x + noise, carry + 1), {"steps": state["steps"] + 1}, ()


def counting_vjp(params: Params, cache: Any, dy: Any) -> tuple[Params, Any]:
    return {}, dy


def counting_state(in_shape: Any) -> State:
    return {"steps": np.zeros((), np.float32)}


def no_params(key: Key, in_shape: Any) -> Params:
    return {}


def test_scan_hands_on_state_and_gives_every_step_a_key_of_its_own() -> None:
    cell: Layer[tuple[Array, Array], tuple[Array, Array]] = layer(
        "Counting", no_params, counting_forward, counting_vjp, init_state=counting_state
    )
    net = scan(cell)
    in_shape = ((TIME, IN), (1,))
    state = net.init_state(in_shape)
    assert net.out_shape(in_shape) == in_shape
    x = np.zeros((BATCH, TIME, IN)), np.zeros((BATCH, 1))
    (y, last), after, cache = net.forward({}, state, x, Train(Key(0)))
    assert tree.leaves(after) == [TIME]
    assert tree.leaves(state) == [0]
    close(last, np.full((BATCH, 1), float(TIME)))
    assert len({y[:, t].tobytes() for t in range(TIME)}) == TIME
    again = net.forward({}, state, x, Train(Key(0)))[0]
    other = net.forward({}, state, x, Train(Key(1)))[0]
    close(again[0], y, 0)
    assert not np.allclose(other[0], y)
    grads, (dx, _) = net.vjp({}, cache, (y, last))
    assert grads == {}
    close(dx, y, 0)


def test_a_carried_layer_goes_on_from_batch_to_batch_and_derivatives_do_not() -> None:
    layer = stack(LSTM(FEATURES, carry=True), GRU(2, carry=True))
    shape = carry_shape(layer)
    net = carried(layer, BATCH)
    params = net.init(Key(0), (TIME, IN))
    assert tree.map(np.shape, params) == tree.map(np.shape, layer.init(Key(0), ((TIME, IN), shape)))
    state, held, mode = net.init_state((TIME, IN)), zero_carry(shape, BATCH), Train(Key(1))
    for seed in range(3):
        x = normals((BATCH, TIME, IN), seed).astype(np.float32)
        (y, held), _, inside = layer.forward(params, {}, (x, held), mode)
        given, state, cache = net.forward(params, state, x, mode)
        assert tree.allclose((given, state["carry"]), (y, held), rtol=0, atol=0)
        dy = np.ones_like(y)
        grads, (dx, _) = layer.vjp(params, inside, (dy, tree.zeros_like(held)))
        assert tree.allclose(net.vjp(params, cache, dy), (grads, dx), rtol=0, atol=0)
    whole, after, _ = net.forward(params, state, x[:2], EVAL)
    assert after is not state and tree.allclose(after, state, rtol=0, atol=0), "an evaluation moves nothing"
    assert tree.allclose(whole, layer.apply(params, (x[:2], zero_carry(shape, 2)))[0], rtol=0, atol=0)


def test_a_carried_layer_is_trained_in_batches_of_its_size() -> None:
    net = carried(GRU(FEATURES, carry=True), BATCH)
    params, x = net.init(Key(0), (TIME, IN)), np.zeros((3 * BATCH, TIME, IN), np.float32)
    y = np.ones((3 * BATCH, TIME, FEATURES), np.float32)
    opt = sgd(0.1)
    plain, replayed = [
        train(params, batches((x, y), BATCH, shuffle=False), opt, model=net, loss=mse, epochs=4, compile=compile)
        for compile in (False, True)
    ]
    assert tree.allclose(plain.train_state.params, replayed.train_state.params, rtol=0, atol=0)
    assert tree.allclose(plain.state, replayed.state, rtol=0, atol=0) and np.any(plain.state["carry"])
    with pytest.raises(ShapeError, match=f"GRU: carried in batches of {BATCH}: .* got 4; drop .*drop_last=True"):
        train(params, batches((x[1:], y[1:]), BATCH), opt, model=net, loss=mse, epochs=1)
    with pytest.raises(TypeError, match="the first one is net.init_state"):
        net.forward(params, {}, x[:BATCH], Train(Key(0)))


ALONE: Any = GRU(2)
PLAIN: Any = Dense(2)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: carried(ALONE, 3), TypeError, "a layer that takes and gives a carry"),
        (lambda: carried(PLAIN, 3), TypeError, "carry_shape: expected a recurrent layer"),
        (lambda: carried(GRU(2, carry=True), 0), ValueError, "carried: expected batch to be a positive integer"),
        (lambda: carried(GRU(2, carry=True), 3, shape=2), ShapeError, "zero_carry: expected a shape"),
    ],
)
def test_what_cannot_be_carried(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make().init(Key(0), (TIME, IN))



def growing_shape(in_shape: Any) -> Any:
    return in_shape[0], (in_shape[1][0] + 1,)


def test_scan_refuses_a_cell_that_changes_its_carry() -> None:
    cell: Layer[tuple[Array, Array], tuple[Array, Array]] = layer(
        "Growing", no_params, counting_forward, counting_vjp, out_shape=growing_shape
    )
    with pytest.raises(ShapeError, match=r"keep the shape of its carry, \(2,\), got \(3,\)"):
        scan(cell).out_shape(((TIME, IN), (2,)))


# --- initial values --------------------------------------------------------------------------------------------------


def test_every_gate_is_orthogonal_and_the_forget_gate_open() -> None:
    params = LSTM(FEATURES, forget_bias=2.0).init(Key(0), (TIME, IN))
    for gate in np.split(params["hidden_weight"].astype(np.float64), 4, axis=1):
        close(gate.T @ gate, np.eye(FEATURES), 1e-6)
    np.testing.assert_array_equal(params["bias"].reshape(4, FEATURES)[:, 0], [0, 2, 0, 0])
    limit = np.sqrt(6 / (IN + FEATURES))
    for gate in np.split(params["input_weight"], 4, axis=1):
        assert 0.5 * limit < np.abs(gate).max() <= limit


def test_names_and_shapes_of_the_parameters() -> None:
    def shapes(net: Layer[Any, Any]) -> dict[str, Shape]:
        return {path: leaf.shape for path, leaf in tree.items(net.init(Key(0), (TIME, IN)))}

    n = FEATURES
    rnn = {"input_weight": (IN, n), "hidden_weight": (n, n), "bias": (n,)}
    gru = {"input_weight": (IN, 3 * n), "hidden_weight": (n, 3 * n), "bias": (3 * n,)}
    lstm = {"input_weight": (IN, 4 * n), "hidden_weight": (n, 4 * n), "bias": (4 * n,)}
    assert shapes(RNN(n)) == rnn
    assert shapes(GRU(n)) == {**gru, "hidden_bias": (n,)}
    assert shapes(GRU(n, reset="before")) == gru
    assert shapes(LSTM(n)) == lstm
    full = {**lstm, "hidden_weight": (2, 4 * n), "peephole": (3 * n,), "projection": (n, 2)}
    assert shapes(LSTM(n, peepholes=True, projection=2)) == full


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RNN(0), "RNN: expected features to be a positive integer, got 0"),
        (lambda: RNN(3, "sigmoid"), "RNN(3): expected activation 'tanh' or 'relu', got 'sigmoid'"),  # type: ignore
        (lambda: RNN(3, returns="first"), "RNN(3): expected returns 'sequence' or 'last', got 'first'"),  # type: ignore
        (lambda: GRU(3, reset=True), "GRU(3): expected reset 'after' or 'before', got True"),  # type: ignore
        (lambda: LSTM(3, projection=0), "LSTM(3): expected projection to be a positive integer, got 0"),
        (lambda: LSTM(3, forget_bias=np.inf), "LSTM(3): expected a finite forget_bias, got inf"),
        (lambda: lstm_cell(-1), "lstm_cell: expected features to be a positive integer, got -1"),
        (lambda: stack(), "stack: expected at least one layer"),  # type: ignore
        (lambda: Bidirectional(GRU(2), GRU(2)), "expected a backward_layer with reverse=True, got GRU(2)"),
        (lambda: Bidirectional(GRU(2, reverse=True), GRU(2)), "expected a forward_layer with reverse=False"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


X = np.zeros((BATCH, TIME, IN), np.float32)
H = np.zeros((BATCH, FEATURES), np.float32)


@pytest.mark.parametrize(
    ("options", "x", "kind", "message"),
    [
        ({}, X[0], ShapeError, "expected input (batch, time, 3), got (7, 3)"),
        ({}, X[:, :, :2], ShapeError, "expected input (batch, time, 3), got (5, 7, 2)"),
        ({}, X[:, :0], ShapeError, "expected input (batch, time, 3), got (5, 0, 3)"),
        ({}, X.astype(np.float64), TypeError, "the parameters are float32, the input is float64"),
        ({}, X.astype(int), TypeError, "the parameters are float32, the input is int64"),
        ({}, [[[0.0]]], TypeError, "expected an array, got list"),
        ({"carry": True}, X, ShapeError, "expected the input (x, carry), got ndarray"),
        ({"carry": True}, (X, H, H), ShapeError, "expected the input (x, carry), got a tuple of 3"),
        ({"carry": True}, (X, H[:, :2]), ShapeError, "expected a carry of shape (5, 6), got (5, 2)"),
        ({"carry": True}, (X, H[:1]), ShapeError, "expected a carry of shape (5, 6), got (1, 6)"),
        ({"carry": True}, (X, (H, H)), ShapeError, "expected a carry of shape (5, 6), got ((5, 6), (5, 6))"),
        ({"carry": True}, (X, None), TypeError, "expected a carry of arrays of shape (5, 6), got NoneType"),
        ({"carry": True}, (X, H.astype(np.float64)), TypeError, "the parameters are float32, the carry is float64"),
        ({"lengths": True}, X, ShapeError, "expected the input (x, lengths), got ndarray"),
        ({"lengths": True}, (X, [7] * 5), TypeError, "expected an array of integer lengths, got list"),
        ({"lengths": True}, (X, np.ones(5)), TypeError, "expected an array of integer lengths, got float64"),
        ({"lengths": True}, (X, np.ones(5, bool)), TypeError, "expected an array of integer lengths, got bool"),
        ({"lengths": True}, (X, np.array([1, 2])), ShapeError, "expected lengths of shape (5,), got (2,)"),
        ({"lengths": True}, (X, np.array([1, 2, 3, 4, 8])), ShapeError, "expected lengths from 1 to 7"),
        ({"lengths": True}, (X, np.array([1, 2, 3, 4, 0])), ShapeError, "got 0 to 4"),
    ],
)
def test_bad_inputs(options: dict[str, Any], x: Any, kind: type[Exception], message: str) -> None:
    shape: Any = ((TIME, IN), ()) if "lengths" in options else (TIME, IN)
    net: Layer[Any, Any] = RNN(FEATURES, **options)
    params = net.init(Key(0), (shape, (FEATURES,)) if "carry" in options else shape)
    with pytest.raises(kind) as caught:
        net.forward(params, {}, x, EVAL)
    assert "RNN(6): " in str(caught.value) and message in str(caught.value)


def test_the_carry_of_an_lstm_is_a_pair() -> None:
    net = LSTM(FEATURES, carry=True)
    params = net.init(Key(0), ((TIME, IN), carry_shape(net)))
    with pytest.raises(ShapeError, match=r"LSTM\(6\): expected a carry of shape \(\(5, 6\), \(5, 6\)\), got \(5, 6\)"):
        net.forward(params, {}, (X, H), EVAL)  # type: ignore[arg-type]


def test_the_carry_of_other_layers_is_unknown() -> None:
    assert carry_shape(frozen(remat(GRU(4, carry=True)))) == (4,)
    assert carry_shape(serial(LSTM(3, projection=2, carry=True))) == ((2,), (3,))
    assert carry_shape(Bidirectional(GRU(4, carry=True), RNN(2, reverse=True, carry=True), carry=True)) == ((4,), (2,))
    with pytest.raises(TypeError, match=r"carry_shape: expected a recurrent layer of fnn, got Dense\(5\)"):
        carry_shape(Dense(5))
    with pytest.raises(ShapeError, match="zero_carry: expected a shape"):
        zero_carry(5, batch=2)
