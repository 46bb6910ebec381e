"""What must be true of attention and of the blocks made of it: definition, invariances, closed forms, errors."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fnn import tree
from fnn.combinators import serial
from fnn.contract import EVAL, Layer, Train
from fnn.initializers import normal
from fnn.layers.activation import Silu
from fnn.layers.attention import (
    CrossAttention,
    MaskedAttention,
    MaskedCrossAttention,
    MultiHeadAttention,
    attend,
    attend_vjp,
)
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import LayerNorm, RMSNorm
from fnn.layers.transformer import (
    CrossTransformerBlock,
    FeedForward,
    GatedFeedForward,
    MaskedTransformerBlock,
    TransformerBlock,
)
from fnn.random import Key
from fnn.testing import check_layer
from fnn.types import ShapeError

Numbers = NDArray[np.float64]
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, whichever others run."""
    RNG.bit_generator.state = START


def draw(*shape: int) -> Numbers:
    return RNG.standard_normal(shape)


def params64(layer: Layer[Any, Any], in_shape: Any, seed: int = 0) -> Any:
    """Initial parameters in float64, biases included, none of them 0."""
    generator = np.random.default_rng(seed)
    init = layer.init(Key(seed), in_shape)
    return tree.cast(tree.map(lambda a: a + 0.3 * generator.standard_normal(a.shape), init), np.float64)


def same(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- attend is its definition ----------------------------------------------------------------------------------------


def by_definition(q: Numbers, k: Numbers, v: Numbers, mask: Any, causal: bool) -> Numbers:
    """One query at a time, the softmax over the list of what it sees."""
    batch, heads, queries, _ = q.shape
    share = heads // k.shape[1]
    y = np.zeros((batch, heads, queries, v.shape[-1]))
    for b, h, t in product(range(batch), range(heads), range(queries)):
        logits = k[b, h // share] @ q[b, h, t]
        seen = np.arange(len(logits)) <= t if causal else np.full(len(logits), True)
        if mask is not None:
            row = mask[b] if mask.ndim == 2 else mask[b, t]
            if mask.dtype == bool:
                seen &= row
            else:
                seen &= row > -np.inf
                logits = logits + row
        if seen.any():
            weights = np.exp(logits[seen] - logits[seen].max())
            y[b, h, t] = weights / weights.sum() @ v[b, h // share][seen]
    return y


SIZES = [
    (2, 4, 4, 7, 7, 3, 5),
    (3, 6, 2, 5, 5, 4, 2),
    (2, 3, 1, 6, 4, 5, 1),
    (2, 2, 1, 83, 83, 2, 3),
    (1, 2, 2, 300, 9, 3, 4),
]
"""batch, heads, groups, queries, keys, width, width of v; short and long, within one block and over several."""


def masks(batch: int, queries: int, keys: int) -> dict[str, Any]:
    padding, table = RNG.random((batch, keys)) < 0.7, RNG.random((batch, queries, keys)) < 0.4
    table[:, 0] = False
    return {
        "none": None,
        "padding": padding,
        "table": table,
        "numbers by key": draw(batch, keys),
        "numbers": np.where(table, draw(batch, queries, keys), -np.inf),
    }


@pytest.mark.parametrize("kind", masks(1, 1, 1))
@pytest.mark.parametrize(
    ("size", "causal"), [(s, c) for s in SIZES for c in (False, True) if not c or s[3] == s[4]], ids=str
)
def test_attend_is_its_definition_and_attend_vjp_its_derivative(size: Any, kind: str, causal: bool) -> None:
    batch, heads, groups, queries, keys, width, out = size
    q, k, v = draw(batch, heads, queries, width), draw(batch, groups, keys, width), draw(batch, groups, keys, out)
    mask = masks(batch, queries, keys)[kind]
    y, cache = attend(q, k, v, mask, causal=causal)
    same(y, by_definition(q, k, v, mask, causal))

    dy, step = draw(*y.shape), 1e-6
    moves = [draw(*a.shape) for a in (q, k, v)]
    dq, dk, dv, dmask = attend_vjp(cache, dy)
    analytic = sum(float(np.sum(g * m)) for g, m in zip((dq, dk, dv), moves))
    moved_mask = [mask, mask]
    if mask is not None and mask.dtype != bool:
        assert dmask is not None
        direction = draw(*mask.shape)
        analytic += float(np.sum(dmask * direction))
        moved_mask = [mask + step * direction, mask - step * direction]
    else:
        assert dmask is None
    ends: list[float] = []
    for s, moved in zip((step, -step), moved_mask):
        there = [a + s * m for a, m in zip((q, k, v), moves)]
        ends.append(float(np.sum(attend(there[0], there[1], there[2], moved, causal=causal)[0] * dy)))
    numeric = (ends[0] - ends[1]) / (2 * step)
    assert abs(numeric - analytic) / max(1, abs(numeric)) < 1e-7


def test_long_sequences_keep_nothing_of_quadratic_size() -> None:
    for time, quadratic in ((8, True), (200, False)):
        q, k, v = (draw(2, 3, time, 4) for _ in range(3))
        y, cache = attend(q, k, v, dropout=0.5, key=Key(1))
        kept = sum(a.size for a in tree.leaves(tuple(a for a in cache if not isinstance(a, Key))) if np.ndim(a))
        assert (kept >= 2 * 3 * time * time) == quadratic
        assert kept <= 3 * (q.size + k.size + v.size + y.size)


def test_attend_writes_gradients_where_it_is_told() -> None:
    q, k, v = (draw(2, 3, 7, 4) for _ in range(3))
    y, cache = attend(q, k, v)
    wide = np.zeros((2, 3, 7, 12))
    parts = (wide[..., :4], wide[..., 4:8], wide[..., 8:])
    attend_vjp(cache, y, parts)
    for part, gradient in zip(parts, attend_vjp(cache, y)[:3]):
        np.testing.assert_array_equal(part, gradient)


# --- numbers at the edge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [7, 150])
def test_large_logits_give_the_value_of_the_largest(time: int) -> None:
    k = np.zeros((1, 1, time, 1), np.float32)
    k[..., 0] = np.linspace(-1, 1, time)
    v = draw(1, 1, time, 2).astype(np.float32)
    q = np.array([1e4, -1e4, 1e4, 0], np.float32).reshape(1, 1, 4, 1)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = attend(q, k, v)
        gradients = attend_vjp(cache, np.ones_like(y))
    same(y[0, 0], np.stack([v[0, 0, -1], v[0, 0, 0], v[0, 0, -1], v[0, 0].mean(0)]), 1e-5)
    assert y.dtype == np.float32
    assert all(np.isfinite(g).all() and g.dtype == np.float32 for g in gradients[:3])


@pytest.mark.parametrize("time", [7, 150])
@pytest.mark.parametrize("kind", ["flags", "numbers"])
def test_a_query_that_sees_nothing_gets_zeros_and_has_no_gradient(time: int, kind: str) -> None:
    q, k, v = (draw(2, 1, time, 3).astype(np.float32) for _ in range(3))
    mask: Any = np.full((2, time, time), True)
    mask[0, 2] = False
    if kind == "numbers":
        mask = np.where(mask, 0, -np.inf).astype(np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = attend(q, k, v, mask)
        dq, dk, dv, _ = attend_vjp(cache, np.ones_like(y))
    assert not y[0, 0, 2].any()
    assert not dq[0, 0, 2].any()
    assert np.isfinite(dk).all()
    same(dv.sum((1, 2)), [[time - 1] * 3, [time] * 3], 1e-4)


def test_what_is_not_a_number_is_not_hidden() -> None:
    q, k, v = (draw(1, 1, 4, 2) for _ in range(3))
    q[0, 0, 1] = np.nan
    y = attend(q, k, v)[0]
    assert np.isnan(y[0, 0, 1]).all()
    assert np.isfinite(y[0, 0, [0, 2, 3]]).all()


# --- invariances -----------------------------------------------------------------------------------------------------


def test_without_mask_permuting_the_steps_permutes_the_output() -> None:
    layer, x, order = MultiHeadAttention(2), draw(3, 7, 4), RNG.permutation(7)
    params = params64(layer, (7, 4))
    same(layer.apply(params, x[:, order]), layer.apply(params, x)[:, order])


def test_the_order_of_the_memory_does_not_matter() -> None:
    layer, x, memory, order = CrossAttention(2), draw(3, 7, 4), draw(3, 5, 6), RNG.permutation(5)
    params = params64(layer, ((7, 4), (5, 6)))
    same(layer.apply(params, (x, memory[:, order])), layer.apply(params, (x, memory)))


def sees_the_future(layer: Layer[Any, Any], time: int) -> bool:
    """Whether the output at some step depends on an input after it."""
    x = draw(2, time, 4)
    params = params64(layer, (time, 4))
    y, changed = layer.apply(params, x), False
    for t in {0, 1, time // 2, time - 2}:
        other = x.copy()
        other[:, t + 1 :] += 1
        changed |= bool((layer.apply(params, other)[:, : t + 1] != y[:, : t + 1]).any())
    return changed


@pytest.mark.parametrize("time", [7, 64, 65, 200])
def test_causal_layers_do_not_see_the_future(time: int) -> None:
    assert not sees_the_future(MultiHeadAttention(2, causal=True), time)
    assert not sees_the_future(MultiHeadAttention(2, causal=True, key_value_heads=1, rotary=True), time)
    assert not sees_the_future(TransformerBlock(4, 2, causal=True), time)
    assert sees_the_future(MultiHeadAttention(2), time)
    assert sees_the_future(TransformerBlock(4, 2), time)


def test_the_last_causal_step_sees_everything() -> None:
    x = draw(2, 70, 4)
    params = params64(MultiHeadAttention(2), (70, 4))
    full, causal = (MultiHeadAttention(2, causal=c).apply(params, x) for c in (False, True))
    same(full[:, -1], causal[:, -1])


def test_equal_keys_give_the_mean_of_the_values() -> None:
    q, k, v = draw(2, 3, 7, 4), np.repeat(draw(2, 3, 1, 4), 5, axis=2), draw(2, 3, 5, 6)
    same(attend(q, k, v)[0], np.repeat(v.mean(2, keepdims=True), 7, axis=2))


def test_grouped_queries_are_repeated_keys_and_values() -> None:
    grouped, full = MultiHeadAttention(6, key_value_heads=2, rotary=True), MultiHeadAttention(6, rotary=True)
    params, x = params64(grouped, (7, 12)), draw(3, 7, 12)

    def repeated(a: Any) -> Any:
        return np.repeat(a.reshape(*a.shape[:-1], 2, 2), 3, axis=-2).reshape(*a.shape[:-1], 12)

    expanded = {**params, **{name: tree.map(repeated, params[name]) for name in ("key", "value")}}
    same(grouped.apply(params, x), full.apply(expanded, x))
    dy = draw(3, 7, 12)
    grads, dx = grouped.vjp(params, grouped.forward(params, {}, x, EVAL)[2], dy)
    expected, full_dx = full.vjp(expanded, full.forward(expanded, {}, x, EVAL)[2], dy)
    same(dx, full_dx)
    for name, part in product(("key", "value"), ("weight", "bias")):
        a = expected[name][part]
        same(grads[name][part], a.reshape(*a.shape[:-1], 2, 3, 2).sum(-2).reshape(*a.shape[:-1], 4))


def test_one_head_is_the_formula_on_dense_layers() -> None:
    layer, x = MultiHeadAttention(1), draw(3, 7, 4)
    params = params64(layer, (7, 4))
    q, k, v = (Dense(4).apply(params[name], x) for name in ("query", "key", "value"))
    weights = np.exp(q @ k.swapaxes(1, 2) / 2)
    weights /= weights.sum(-1, keepdims=True)
    same(layer.apply(params, x), Dense(4).apply(params["output"], weights @ v))


def test_heads_are_the_sum_of_layers_of_one_head() -> None:
    layer, one, x = MultiHeadAttention(3, features=6, bias_init=None), MultiHeadAttention(1, features=2), draw(3, 7, 4)
    params = params64(layer, (7, 4))
    y = np.zeros_like(x)
    for h in range(3):
        columns = slice(2 * h, 2 * h + 2)
        part = {name: {"weight": params[name]["weight"][:, columns]} for name in ("query", "key", "value")}
        part["output"] = {"weight": params["output"]["weight"][columns]}
        y += one.apply(part, x)
    same(layer.apply(params, x), y)


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [7, 130])
def test_padding_is_as_if_the_steps_were_not_there(time: int) -> None:
    layer = MaskedAttention(2, rotary=True)
    x, length = draw(2, time, 4), time - 3
    params = params64(layer, ((time, 4), (time,)))
    padding = np.arange(time) < np.full((2, 1), length)
    short = MultiHeadAttention(2, rotary=True).apply(params, x[:, :length])
    same(layer.apply(params, (x, padding))[:, :length], short)


def test_padding_in_front_does_not_matter_to_rotary_positions() -> None:
    layer, x = MaskedAttention(2, rotary=True, causal=True), draw(2, 12, 4)
    params = params64(layer, ((12, 4), (12,)))
    padding = np.arange(12) >= np.full((2, 1), 5)
    late = MultiHeadAttention(2, rotary=True, causal=True).apply(params, x[:, 5:])
    same(layer.apply(params, (x, padding))[:, 5:], late, 1e-11)


def test_a_mask_of_flags_a_mask_of_numbers_and_causal_agree() -> None:
    layer, x = MaskedAttention(2), draw(2, 7, 4)
    params, dy = params64(layer, ((7, 4), (7, 7))), draw(2, 7, 4)
    triangle = np.broadcast_to(np.tri(7, dtype=bool), (2, 7, 7))
    causal = MultiHeadAttention(2, causal=True)
    grads, dx = causal.vjp(params, causal.forward(params, {}, x, EVAL)[2], dy)
    for mask in (triangle, np.where(triangle, 0, -np.inf)):
        y, _, cache = layer.forward(params, {}, (x, mask), EVAL)
        same(y, causal.apply(params, x))
        other, (other_dx, dmask) = layer.vjp(params, cache, dy)
        same(other_dx, dx)
        assert dmask.shape == mask.shape and not dmask[~triangle].any() and dmask.any() == (mask.dtype != bool)
        assert tree.allclose(other, grads, 1e-12, 1e-12)


@pytest.mark.parametrize("layer", [MaskedAttention(2), MaskedAttention(4, key_value_heads=2, dropout=0.3)], ids=repr)
def test_square_masks_of_numbers_pass_every_law(layer: Layer[Any, Any]) -> None:
    """Not in the table of conformance, where no two sizes may be equal."""
    check_layer(layer, ((7, 4), (7, 7)))
    check_layer(layer, ((71, 4), (71, 71)))


def test_cross_attention_to_oneself_is_self_attention() -> None:
    x, dy = draw(3, 7, 4), draw(3, 7, 4)
    params = params64(MultiHeadAttention(2), (7, 4))
    y, _, cache = CrossAttention(2).forward(params, {}, (x, x), EVAL)
    same(y, MultiHeadAttention(2).apply(params, x))
    _, (dx, dmemory) = CrossAttention(2).vjp(params, cache, dy)
    itself = MultiHeadAttention(2)
    same(dx + dmemory, itself.vjp(params, itself.forward(params, {}, x, EVAL)[2], dy)[1])
    everything = np.full((3, 7), True)
    same(MaskedCrossAttention(2).apply(params, (x, x, everything)), y)


# --- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [7, 90])
def test_dropout_leaves_out_whole_weights_and_keeps_the_mean(time: int) -> None:
    """With v the identity, y are the weights: each 0, or that of the pass without dropout divided by 3/4."""
    q, k, v = draw(1, 2, time, 3), draw(1, 2, time, 3), np.broadcast_to(np.eye(time), (1, 2, time, time))
    weights = attend(q, k, v)[0]
    drawn = np.stack([attend(q, k, v, dropout=0.25, key=Key(i))[0] for i in range(200)])
    factors = drawn / weights
    assert np.all(np.isclose(factors, 0) | np.isclose(factors, 4 / 3))
    share = np.mean(factors == 0)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / factors.size)
    assert np.abs(factors.mean(0) - 1).max() < 6 * np.sqrt(1 / 3 / 200)


def test_only_training_drops_and_only_the_key_decides() -> None:
    layer, x = MultiHeadAttention(2, dropout=0.5), draw(3, 7, 4)
    params = params64(layer, (7, 4))
    first, again, other = (layer.forward(params, {}, x, Train(Key(i)))[0] for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    same(layer.forward(params, {}, x, EVAL)[0], MultiHeadAttention(2).apply(params, x))
    assert layer.draws
    assert not MultiHeadAttention(2).draws
    with pytest.raises(ValueError, match="needs a key"):
        attend(*(draw(1, 1, 3, 2) for _ in range(3)), dropout=0.5)


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_a_block_is_its_formula() -> None:
    norm, attention, feed = LayerNorm(), MultiHeadAttention(2, causal=True), FeedForward(4, 6)
    block, x = TransformerBlock(4, 2, causal=True, feed_forward=feed), draw(3, 7, 4)
    p = params64(block, (7, 4))
    h = x + attention.apply(p["attention"], norm.apply(p["attention_norm"], x))
    same(block.apply(p, x), h + feed.apply(p["feed_forward"], norm.apply(p["feed_forward_norm"], h)))


def test_a_block_whose_branches_end_in_zeros_is_the_identity() -> None:
    block, x = TransformerBlock(4, 2, norm=RMSNorm(), feed_forward=GatedFeedForward(4)), draw(3, 7, 4)
    p = params64(block, (7, 4))
    for path in ("attention/output", "feed_forward/out"):
        p = tree.set(p, path, tree.zeros_like(tree.get(p, path)))
    np.testing.assert_array_equal(block.apply(p, x), x)


def test_masked_and_cross_blocks_contain_the_plain_one() -> None:
    x, memory = draw(3, 7, 4), draw(3, 5, 6)
    plain, masked = TransformerBlock(4, 2, causal=True), MaskedTransformerBlock(4, 2, causal=True)
    cross = CrossTransformerBlock(4, 2)
    p = params64(cross, ((7, 4), (5, 6)))
    p = tree.set(p, "cross/output", tree.zeros_like(p["cross"]["output"]))
    own = {name: p[name] for name in ("attention_norm", "attention", "feed_forward_norm", "feed_forward")}
    y = plain.apply(own, x)
    same(masked.apply(own, (x, np.full((3, 7), True))), y)
    same(cross.apply(p, (x, memory)), y)


def test_feed_forwards_are_their_formulas() -> None:
    x = draw(3, 7, 4)
    plain, gated = FeedForward(5, 6, activation=Silu), GatedFeedForward(5, 6)
    p, g = params64(plain, (7, 4)), params64(gated, (7, 4))
    same(plain.apply(p, x), serial(Dense(6), Silu, Dropout(0), Dense(5)).apply(p, x))
    gate, value = Silu.apply({}, Dense(6).apply(g["gate"], x)), Dense(6).apply(g["value"], x)
    same(gated.apply(g, x), Dense(5).apply(g["out"], gate * value))
    assert tree.size(GatedFeedForward(24).init(Key(0), (24,))) == 3 * 24 * 64 + 2 * 64 + 24


def test_weights_and_biases_start_as_asked() -> None:
    p = MultiHeadAttention(3, features=12, key_value_heads=1, bias_init=normal(0.1)).init(Key(0), (7, 5))
    shapes = {path: leaf.shape for path, leaf in tree.items(p)}
    assert shapes == {
        "query/weight": (5, 12),
        "query/bias": (12,),
        "key/weight": (5, 4),
        "key/bias": (4,),
        "value/weight": (5, 4),
        "value/bias": (4,),
        "output/weight": (12, 5),
        "output/bias": (5,),
    }
    assert not np.array_equal(p["key"]["weight"], p["value"]["weight"])
    assert [*MultiHeadAttention(1, bias_init=None).init(Key(0), (7, 5))["query"]] == ["weight"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 0}, "MultiHeadAttention: expected heads to be a positive integer, got 0"),
        ({"heads": 2.0}, "expected heads to be a positive integer, got 2.0"),
        ({"heads": 4, "key_value_heads": 3}, "expected key_value_heads to divide the 4 heads, got 3"),
        ({"heads": 4, "key_value_heads": -2}, "expected key_value_heads to be a positive integer, got -2"),
        ({"heads": 4, "features": 6}, "expected features divisible by 4 heads, got 6"),
        ({"heads": 2, "features": 6, "rotary": True}, "rotary positions need heads of an even width"),
        ({"heads": 2, "dropout": 1.0}, r"expected dropout in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_raise(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**arguments)


X = draw(3, 7, 4).astype(np.float32)
BAD_INPUTS: list[tuple[Layer[Any, Any], Any, Any, type[Exception], str]] = [
    (MultiHeadAttention(2), (7, 4), X[..., :3], ShapeError, r"Attention.2.: expected input \(batch, time, 4\)"),
    (MultiHeadAttention(2), (7, 4), X[0], ShapeError, r"got \(7, 4\)"),
    (MultiHeadAttention(2), (7, 4), X[:, :0], ShapeError, r"got \(3, 0, 4\)"),
    (MultiHeadAttention(2), (7, 4), X.astype(float), TypeError, "the parameters are float32, the input is float64"),
    (CrossAttention(2), ((7, 4), (7, 4)), X, ShapeError, r"expected input \(x, memory\), a tuple of 2, got an array"),
    (CrossAttention(2), ((7, 4), (7, 4)), (X, X[:2]), ShapeError, "expected equal batches"),
    (CrossAttention(2), ((7, 4), (7, 4)), (X, X.astype(float)), TypeError, "CrossAttention.2., memory: the param"),
    (MaskedAttention(2), ((7, 4), (7,)), (X, np.ones((3, 6), bool)), ShapeError, r"shape \(3, 7\) or \(3, 7, 7\)"),
    (MaskedAttention(2), ((7, 4), (7,)), (X, np.ones((3, 7), int)), TypeError, "booleans .* or of float32, got int64"),
    (MaskedAttention(2), ((7, 4), (7,)), (X, np.ones((3, 7))), TypeError, "or of float32, got float64"),
]


@pytest.mark.parametrize(("layer", "shape", "x", "error", "message"), BAD_INPUTS, ids=[b[4] for b in BAD_INPUTS])
def test_bad_inputs_raise(layer: Layer[Any, Any], shape: Any, x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer.apply(layer.init(Key(0), shape), x)


@pytest.mark.parametrize(
    ("shapes", "dtypes", "causal", "error"),
    [
        (((2, 4, 7, 3), (2, 4, 5, 2), (2, 4, 5, 3)), "ddd", False, ShapeError),
        (((2, 4, 7, 3), (2, 3, 5, 3), (2, 3, 5, 3)), "ddd", False, ShapeError),
        (((2, 4, 7, 3), (2, 4, 5, 3), (2, 4, 6, 3)), "ddd", False, ShapeError),
        (((2, 4, 7, 3), (1, 4, 5, 3), (1, 4, 5, 3)), "ddd", False, ShapeError),
        (((4, 7, 3), (4, 5, 3), (4, 5, 3)), "ddd", False, ShapeError),
        (((2, 4, 7, 3), (2, 4, 5, 3), (2, 4, 5, 3)), "ddd", True, ShapeError),
        (((2, 4, 7, 3), (2, 4, 5, 3), (2, 4, 5, 3)), "dfd", False, TypeError),
        (((2, 4, 7, 3), (2, 4, 5, 3), (2, 4, 5, 3)), "iii", False, TypeError),
    ],
)
def test_attend_refuses_what_does_not_fit(shapes: Any, dtypes: str, causal: bool, error: type[Exception]) -> None:
    q, k, v = (np.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes))
    with pytest.raises(error, match="attend"):
        attend(q, k, v, causal=causal)


def test_heads_that_do_not_divide_the_features_are_told_what_would() -> None:
    with pytest.raises(ShapeError, match=r"divisible by 4 heads, got \(7, 10\).*features=8"):
        MultiHeadAttention(4).init(Key(0), (7, 10))
    with pytest.raises(ShapeError, match="even width"):
        MultiHeadAttention(2, rotary=True).init(Key(0), (7, 6))
