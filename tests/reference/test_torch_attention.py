"""Attention and transformer blocks against PyTorch in float64: outputs and all gradients, to 1e-9."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn import tree
from fnn.combinators import named, serial
from fnn.contract import EVAL, Layer
from fnn.initializers import normal
from fnn.layers.activation import Gelu, Relu
from fnn.layers.attention import (
    CrossAttention,
    MaskedAttention,
    MaskedCrossAttention,
    MultiHeadAttention,
    attend,
    attend_vjp,
)
from fnn.layers.transformer import CrossTransformerBlock, FeedForward, MaskedTransformerBlock, TransformerBlock
from fnn.random import Key
from tests.reference.comparison import Compared, variable

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional


# --- attend against scaled_dot_product_attention ---------------------------------------------------------------------

SIZES = [
    (2, 4, 4, 7, 7, 3, 3),
    (2, 4, 2, 7, 5, 3, 6),
    (3, 6, 1, 5, 9, 4, 2),
    (2, 4, 2, 83, 83, 2, 3),
    (2, 2, 2, 300, 130, 4, 4),
]
"""batch, heads, groups, queries, keys, width, width of v."""
KINDS = ["none", "padding", "flags", "numbers", "causal"]


@pytest.mark.parametrize(
    ("size", "kind"), [(s, kind) for s in SIZES for kind in KINDS if kind != "causal" or s[3] == s[4]], ids=str
)
def test_attend(size: Any, kind: str, compared: Compared) -> None:
    batch, heads, groups, queries, keys, width, out = size
    rng = np.random.default_rng(1)
    shapes = (batch, heads, queries, width), (batch, groups, keys, width), (batch, groups, keys, out)
    q, k, v = (rng.standard_normal(shape) for shape in shapes)
    theirs = [variable(a) for a in (q, k, v)]
    mask: Any = None
    options: dict[str, Any] = {"is_causal": kind == "causal"}
    if kind == "padding":
        mask = rng.random((batch, keys)) < 0.7
        mask[:, 0] = True
        options["attn_mask"] = torch.tensor(mask)[:, None, None, :]
    if kind == "flags":
        mask = rng.random((batch, queries, keys)) < 0.7
        mask[..., 0] = True
        options["attn_mask"] = torch.tensor(mask)[:, None]
    if kind == "numbers":
        mask = rng.standard_normal((batch, queries, keys))
        theirs.append(variable(mask))
        options["attn_mask"] = theirs[3][:, None]
    expected = F.scaled_dot_product_attention(*theirs[:3], **options, scale=1.0, enable_gqa=True)
    y, cache = attend(q, k, v, mask, causal=kind == "causal")
    dy = rng.standard_normal(y.shape)
    compared.outputs(y, expected)
    for gradient, other in zip(attend_vjp(cache, dy), torch.autograd.grad(expected, theirs, torch.tensor(dy))):
        compared.gradients(gradient, other)


# --- the layers against torch.nn.MultiheadAttention ------------------------------------------------------------------


def their_attention(ours: Any, heads: int) -> Any:
    """A torch.nn.MultiheadAttention with our parameters."""
    features, memory, biased = *(ours[name]["weight"].shape[0] for name in ("query", "key")), "bias" in ours["query"]
    module = torch.nn.MultiheadAttention(
        features, heads, bias=biased, kdim=memory, vdim=memory, batch_first=True, dtype=torch.float64
    )
    weights = [torch.tensor(ours[name]["weight"].T.copy()) for name in ("query", "key", "value")]
    with torch.no_grad():
        if memory == features:
            module.in_proj_weight.copy_(torch.cat(weights))
        else:
            for name, weight in zip("qkv", weights):
                getattr(module, f"{name}_proj_weight").copy_(weight)
        module.out_proj.weight.copy_(torch.tensor(ours["output"]["weight"].T.copy()))
        if biased:
            biases = [ours[name]["bias"] for name in ("query", "key", "value")]
            module.in_proj_bias.copy_(torch.tensor(np.concatenate(biases)))
            module.out_proj.bias.copy_(torch.tensor(ours["output"]["bias"]))
    return module


def agree_attention(compared: Compared, grads: Any, module: Any) -> None:
    """Our gradients are those of their module."""
    names = ("query", "key", "value")
    weights = [getattr(module, f"{name}_proj_weight") for name in "qkv"]
    weights = [w.grad for w in weights] if module.in_proj_weight is None else module.in_proj_weight.grad.chunk(3)
    for name, weight in zip(names, weights):
        compared.gradients(grads[name]["weight"].T, weight)
    compared.gradients(grads["output"]["weight"].T, module.out_proj.weight.grad)
    if module.in_proj_bias is not None:
        for name, bias in zip(names, module.in_proj_bias.grad.chunk(3)):
            compared.gradients(grads[name]["bias"], bias)
        compared.gradients(grads["output"]["bias"], module.out_proj.bias.grad)


@pytest.mark.parametrize(
    ("memory", "kind"), [*product([None, 6, 8], KINDS[:-1]), (None, "causal")]  # causal attention is square
)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("time", [7, 90])
def test_layers(kind: str, memory: int | None, biased: bool, time: int, compared: Compared) -> None:
    """Self attention without `memory`; else to a sequence of so many features."""
    rng = np.random.default_rng(2)
    heads, features, batch, steps = 2, 6, 3, time if memory is None else 4
    options: dict[str, Any] = {"bias_init": normal(0.5) if biased else None}
    arrays = [rng.standard_normal((batch, time, features))]
    arrays += [] if memory is None else [rng.standard_normal((batch, steps, memory))]
    theirs, call = [variable(a) for a in arrays], {}
    mask: Any = None
    if kind == "padding":
        mask = rng.random((batch, steps)) < 0.7
        mask[:, 0] = True
        call["key_padding_mask"] = torch.tensor(~mask)
    if kind == "flags":
        mask = rng.random((batch, time, steps)) < 0.7
        mask[..., 0] = True
        call["attn_mask"] = torch.tensor(~mask).repeat_interleave(heads, 0)
    if kind == "numbers":
        mask = rng.standard_normal((batch, time, steps))
        theirs.append(variable(mask))
        call["attn_mask"] = theirs[-1].repeat_interleave(heads, 0)
    if kind == "causal":
        options["causal"] = True
        call["attn_mask"] = torch.ones(time, time, dtype=torch.bool).triu(1)
    table: dict[tuple[bool, bool], Any] = {
        (False, False): MultiHeadAttention,
        (True, False): MaskedAttention,
        (False, True): CrossAttention,
        (True, True): MaskedCrossAttention,
    }
    layer: Layer[Any, Any] = table[mask is not None, memory is not None](heads, **options)
    given = (*arrays, mask) if mask is not None else tuple(arrays)
    shapes = tuple(a.shape[1:] for a in given)
    params = tree.cast(layer.init(Key(0), shapes if len(given) > 1 else shapes[0]), np.float64)
    y, _, cache = layer.forward(params, {}, given if len(given) > 1 else given[0], EVAL)
    module = their_attention(params, heads)
    source = theirs[0] if memory is None else theirs[1]
    expected = module(theirs[0], source, source, need_weights=False, **call)[0]
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    grads, dx = layer.vjp(params, cache, dy)
    compared.outputs(y, expected)
    agree_attention(compared, grads, module)
    for gradient, other in zip(dx if len(given) > 1 else (dx,), theirs):
        compared.gradients(gradient, other.grad)


# --- blocks against torch.nn.TransformerEncoderLayer and TransformerDecoderLayer -------------------------------------


def load(module: Any, weight: Any, bias: Any) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.array(weight)))
        module.bias.copy_(torch.tensor(np.array(bias)))


def load_block(block: Any, params: Any, heads: int) -> list[tuple[str, Any]]:
    """Our parameters into their block; returns where its attentions stand in ours."""
    attentions = [("attention", "self_attn"), ("cross", "multihead_attn")]
    norms = [name for name in ("attention_norm", "cross_norm", "feed_forward_norm") if name in params]
    for i, name in enumerate(norms):
        load(getattr(block, f"norm{i + 1}"), params[name]["scale"], params[name]["bias"])
    for i in (0, 1):
        dense = params["feed_forward"][f"dense_{i}"]
        load(getattr(block, f"linear{i + 1}"), dense["weight"].T, dense["bias"])
    found = [(name, attribute) for name, attribute in attentions if name in params]
    for name, attribute in found:
        getattr(block, attribute).load_state_dict(their_attention(params[name], heads).state_dict())
    return [(name, getattr(block, attribute)) for name, attribute in found]


def agree_block(compared: Compared, grads: Any, block: Any, attentions: list[tuple[str, Any]]) -> None:
    for name, module in attentions:
        agree_attention(compared, grads[name], module)
    norms = [name for name in ("attention_norm", "cross_norm", "feed_forward_norm") if name in grads]
    for i, name in enumerate(norms):
        norm = getattr(block, f"norm{i + 1}")
        compared.gradients(grads[name]["scale"], norm.weight.grad)
        compared.gradients(grads[name]["bias"], norm.bias.grad)
    for i in (0, 1):
        dense, linear = grads["feed_forward"][f"dense_{i}"], getattr(block, f"linear{i + 1}")
        compared.gradients(dense["weight"].T, linear.weight.grad)
        compared.gradients(dense["bias"], linear.bias.grad)


SETTINGS: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True, "dtype": torch.float64}


@pytest.mark.parametrize("kind", ["none", "causal", "padding"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_blocks(kind: str, activation: str, heads: int, compared: Compared) -> None:
    rng = np.random.default_rng(3)
    feed = FeedForward(8, 11, activation={"relu": Relu, "gelu": Gelu}[activation])
    x, mask = rng.standard_normal((3, 7, 8)), rng.random((3, 7)) < 0.7
    mask[:, 0] = True
    theirs, call = variable(x), {}
    layer: Layer[Any, Any] = TransformerBlock(8, heads, causal=kind == "causal", feed_forward=feed)
    if kind == "padding":
        layer, call = MaskedTransformerBlock(8, heads, feed_forward=feed), {"src_key_padding_mask": torch.tensor(~mask)}
    if kind == "causal":
        call = {"src_mask": torch.ones(7, 7, dtype=torch.bool).triu(1)}
    given = (x, mask) if kind == "padding" else x
    params = moved(layer, ((7, 8), (7,)) if kind == "padding" else (7, 8))
    block = torch.nn.TransformerEncoderLayer(8, heads, 11, activation=activation, **SETTINGS)
    attentions = load_block(block, params, heads)
    expected = block(theirs, **call)
    y, _, cache = layer.forward(params, {}, given, EVAL)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    grads, dx = layer.vjp(params, cache, dy)
    compared.outputs(y, expected)
    compared.gradients(dx[0] if kind == "padding" else dx, theirs.grad)
    agree_block(compared, grads, block, attentions)


@pytest.mark.parametrize("causal", [True, False])
def test_cross_blocks(causal: bool, compared: Compared) -> None:
    rng = np.random.default_rng(4)
    layer = CrossTransformerBlock(8, 2, causal=causal, feed_forward=FeedForward(8, 11, activation=Relu))
    x, memory = rng.standard_normal((3, 7, 8)), rng.standard_normal((3, 4, 8))
    params = moved(layer, ((7, 8), (4, 8)))
    block = torch.nn.TransformerDecoderLayer(8, 2, 11, **SETTINGS)
    attentions = load_block(block, params, 2)
    theirs = [variable(x), variable(memory)]
    expected = block(*theirs, tgt_mask=torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None)
    y, _, cache = layer.forward(params, {}, (x, memory), EVAL)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    grads, dx = layer.vjp(params, cache, dy)
    compared.outputs(y, expected)
    for gradient, other in zip(dx, theirs):
        compared.gradients(gradient, other.grad)
    agree_block(compared, grads, block, attentions)


def test_a_stack_of_blocks(compared: Compared) -> None:
    """Several blocks in a `serial`, against the same in torch.nn.TransformerEncoder."""
    rng = np.random.default_rng(5)
    feed = FeedForward(8, 11)
    net = serial(*(named(f"block_{i}", TransformerBlock(8, 2, causal=True, feed_forward=feed)) for i in range(3)))
    params, x = moved(net, (70, 8)), rng.standard_normal((2, 70, 8))
    layer = torch.nn.TransformerEncoderLayer(8, 2, 11, activation="gelu", **SETTINGS)
    encoder = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    attentions = [load_block(block, params[f"block_{i}"], 2) for i, block in enumerate(encoder.layers)]
    theirs = variable(x)
    expected = encoder(theirs, mask=torch.ones(70, 70, dtype=torch.bool).triu(1))
    y, _, cache = net.forward(params, {}, x, EVAL)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(dy))
    grads, dx = net.vjp(params, cache, dy)
    compared.outputs(y, expected)
    compared.gradients(dx, theirs.grad)
    for i, block in enumerate(encoder.layers):
        agree_block(compared, grads[f"block_{i}"], block, attentions[i])


def moved(layer: Layer[Any, Any], in_shape: Any) -> Any:
    """Initial parameters in float64, moved a little, so that no scale is 1 and no bias 0."""
    rng = np.random.default_rng(6)
    init = layer.init(Key(0), in_shape)
    return tree.cast(tree.map(lambda a: a + 0.3 * rng.standard_normal(a.shape), init), np.float64)
