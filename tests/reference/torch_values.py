"""Makes `torch_values.json`, what PyTorch computes for small layers of every family.

It is run by `python -m tests.reference.torch_values`. Each row of `ROWS` is a function `f(x, params) -> y` of PyTorch,
or `f(x, params, state)` where there are running statistics, which it moves in place. Its arrays are in the layout of
fnn, channels last, and under the names of fnn's parameters; in the row stand their shapes. They are drawn with three
decimals, from a seed that is the label. The file holds them, dy, and what follows: y, dx, the gradients, and the
statistics before and after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

torch: Any = import_module("torch")
F = torch.nn.functional

FILE = Path(__file__).with_suffix(".json")

Tree = Any
"""Tensors in mappings and tuples; in the file a tuple is a mapping from "0", "1", ..., an array a list."""


class Row(NamedTuple):
    f: Callable[..., Tree]
    x: Tree
    """Shapes, as lists; or arrays, which are taken as they are."""
    params: Mapping[str, Any]
    state: Mapping[str, Any] = {}
    training: bool = False


def row(f: Callable[..., Tree], *x: Any, **params: Any) -> Row:
    """A row of one input shape, or of several."""
    return Row(f, x[0] if len(x) == 1 else x, params)


# --- layouts ---------------------------------------------------------------------------------------------------------


def last_first(f: Callable[..., Any]) -> Callable[..., Any]:
    """Channels last outside, second inside."""
    return lambda x, p, *state: f(x.movedim(-1, 1), p, *state).movedim(1, -1)


def alone(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the input alone."""
    return lambda x, p: f(x)


def image(f: Callable[..., Any]) -> Callable[..., Any]:
    """The same with channels last outside, second inside."""
    return last_first(alone(f))


def conv(name: str, before: Any = None, **options: Any) -> Callable[..., Any]:
    """`(*size, in / groups, out)` is `(out, in / groups, *size)` there. `before` is padded first, as F.pad takes it."""

    @last_first
    def f(x: Any, p: Any) -> Any:
        weight, bias = p["weight"].movedim((-1, -2), (0, 1)), p.get("bias")
        return getattr(F, name)(x if before is None else F.pad(x, before), weight, bias, **options)

    return f


def transposed(name: str, groups: int = 1, **options: Any) -> Callable[..., Any]:
    """`(*size, in / groups, out)` is `(in, out / groups, *size)` there."""

    @last_first
    def f(x: Any, p: Any) -> Any:
        parts = p["weight"].unflatten(-1, (groups, -1)).movedim(-2, 0).movedim((-2, -1), (1, 2)).flatten(0, 1)
        return getattr(F, name)(x, parts, p.get("bias"), groups=groups, **options)

    return f


def normalised(f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda x, p: f(x, weight=p.get("scale"), bias=p.get("bias"), **options)


def batch_norm(momentum: float, training: bool) -> Callable[..., Any]:
    """Moves the state where it trains."""

    @last_first
    def f(x: Any, p: Any, state: Any) -> Any:
        return F.batch_norm(x, state["mean"], state["var"], p["scale"], p["bias"], training, momentum)

    return f


# --- recurrence: one direction or two, from a given carry to the last ------------------------------------------------


def recurrent(name: str, *names: str) -> Callable[..., Any]:
    def f(inputs: Any, p: Any) -> Any:
        x, carry = inputs
        both = "forward" in p
        flat = [weight for one in ([p["forward"], p["backward"]] if both else [p]) for weight in weights(one, names)]
        carries = [one if isinstance(one, tuple) else (one,) for one in (carry if both else [carry])]
        start = [torch.stack(parts) for parts in zip(*carries)]
        hidden = start if name == "lstm" else start[0]
        one_layer = 1, 0.0, False, both, True  # without dropout, not in training, batch first
        y, *last = getattr(torch, name)(x, hidden, flat, True, *one_layer)
        ends = [tuple(part[i] for part in last) for i in range(1 + both)]
        unpacked = tuple(end if len(end) > 1 else end[0] for end in ends)
        return y, unpacked if both else unpacked[0]

    return f


def weights(p: Any, names: tuple[str, ...]) -> list[Any]:
    """Ours transposed. Of their two biases one is zero but for what r of a GRU multiplies."""
    bias = torch.zeros_like(p["bias"])
    if "hidden_bias" in p:
        bias = torch.cat([bias[len(p["hidden_bias"]) :], p["hidden_bias"]])
    return [p["input_weight"].T, p["hidden_weight"].T, p["bias"], bias, *(p[name].T for name in names)]


def recurrent_shapes(gates: int, **more: Any) -> dict[str, Any]:
    """3 inputs and 4 features, or what `more` tells."""
    hidden = more["projection"][1] if "projection" in more else 4
    return {"input_weight": [3, 4 * gates], "hidden_weight": [hidden, 4 * gates], "bias": [4 * gates]} | more


# --- attention -------------------------------------------------------------------------------------------------------


def attention_weights(p: Any) -> dict[str, Any]:
    """The parameters of a torch.nn.MultiheadAttention."""
    names = ("query", "key", "value")
    return {
        "in_proj_weight": torch.cat([p[name]["weight"].T for name in names]),
        "in_proj_bias": torch.cat([p[name]["bias"] for name in names]),
        "out_proj.weight": p["output"]["weight"].T,
        "out_proj.bias": p["output"]["bias"],
    }


def future(steps: int) -> Any:
    return torch.ones(steps, steps, dtype=torch.bool).triu(1)


def attention(heads: int, causal: bool = False, cross: bool = False) -> Callable[..., Any]:
    def f(x: Any, p: Any) -> Any:
        x, memory = x if cross else (x, x)
        module = torch.nn.MultiheadAttention(x.shape[2], heads, batch_first=True, dtype=torch.float64)
        options = {"need_weights": False, "attn_mask": future(x.shape[1]) if causal else None}
        return torch.func.functional_call(module, attention_weights(p), (x, memory, memory), options)[0]

    return f


def attention_shapes(features: int) -> dict[str, Any]:
    one = {"weight": [features, features], "bias": [features]}
    return {name: one for name in ("query", "key", "value", "output")}


def block(heads: int, activation: str, causal: bool) -> Callable[..., Any]:
    def f(x: Any, p: Any) -> Any:
        dense = [p["feed_forward"][f"dense_{i}"] for i in (0, 1)]
        given = {f"self_attn.{name}": value for name, value in attention_weights(p["attention"]).items()}
        for i, name in enumerate(("attention_norm", "feed_forward_norm")):
            given |= {f"norm{i + 1}.weight": p[name]["scale"], f"norm{i + 1}.bias": p[name]["bias"]}
            given |= {f"linear{i + 1}.weight": dense[i]["weight"].T, f"linear{i + 1}.bias": dense[i]["bias"]}
        options = {"dropout": 0.0, "batch_first": True, "norm_first": True, "dtype": torch.float64}
        module = torch.nn.TransformerEncoderLayer(
            x.shape[2], heads, len(dense[1]["weight"]), activation=activation, **options
        )
        return torch.func.functional_call(module, given, (x,), {"src_mask": future(x.shape[1]) if causal else None})

    return f


BLOCK_SHAPES = {
    "attention_norm": {"scale": [4], "bias": [4]},
    "attention": attention_shapes(4),
    "feed_forward_norm": {"scale": [4], "bias": [4]},
    "feed_forward": {"dense_0": {"weight": [4, 5], "bias": [5]}, "dense_1": {"weight": [5, 4], "bias": [4]}},
}

# --- the table -------------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, threshold=50),
    "softsign": F.softsign,
    "squareplus": lambda x: (x + (x * x + 4).sqrt()) / 2,
    "hard tanh": F.hardtanh,
    "hard sigmoid": lambda x: F.relu6(x + 3) / 6,  # the vjp of F.hardsigmoid has 1 / 6 to seven digits only
    "hard swish": F.hardswish,
    "glu": F.glu,
    "swiglu": lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1]),
    "maxout": lambda x: x.unflatten(-1, (2, -1)).amax(-2),
    "softmax": lambda x: F.softmax(x, -1),
    "log-softmax": lambda x: F.log_softmax(x, -1),
}

BOTH = {"scale": [3], "bias": [3]}
STATISTICS = {"mean": np.array([0.3, -0.2, 1.1]), "var": np.array([0.5, 2.1, 1.2])}
START = {"mean": np.zeros(3), "var": np.ones(3)}
SCALED = {"scale": [2, 3], "bias": [2, 3]}
RNN, GRU, LSTM = (recurrent_shapes(gates) for gates in (1, 3, 4))
RESET = GRU | {"hidden_bias": [4]}
PROJECTED = recurrent_shapes(4, projection=[4, 2])
IDS = np.array([[0, 3, 3], [5, 0, 3]])

ROWS: dict[str, Row] = {
    **{name: row(alone(f), [2, 3, 4]) for name, f in ELEMENTWISE.items()},
    "prelu": row(last_first(lambda x, p: F.prelu(x, p["slope"])), [3, 2, 4], slope=[4]),
    "dense": row(lambda x, p: F.linear(x, p["weight"].T, p["bias"]), [5, 3], weight=[3, 4], bias=[4]),
    "dense over time, no bias": row(lambda x, p: F.linear(x, p["weight"].T), [3, 2, 4], weight=[4, 5]),
    "embedding": row(lambda x, p: F.embedding(x, p["weight"]), IDS, weight=[6, 4]),
    # convolutions
    "conv 1d": row(conv("conv1d", padding=1), [2, 7, 3], weight=[3, 3, 4], bias=[4]),
    "conv 1d, stride, dilation, no bias": row(
        conv("conv1d", stride=2, dilation=2, padding=2), [2, 9, 3], weight=[3, 3, 4]
    ),
    "conv 1d, causal, groups": row(
        conv("conv1d", before=(4, 0), dilation=2, groups=2), [2, 7, 4], weight=[3, 2, 6], bias=[6]
    ),
    "conv 2d": row(conv("conv2d"), [2, 5, 6, 3], weight=[3, 2, 3, 4], bias=[4]),
    "conv 2d, stride, same": row(
        conv("conv2d", before=(0, 1, 1, 1), stride=(1, 2)), [2, 4, 6, 2], weight=[3, 3, 2, 3], bias=[3]
    ),
    "conv 2d, dilation, groups": row(
        conv("conv2d", dilation=(2, 1), padding=(2, 1), groups=2), [2, 5, 4, 4], weight=[3, 2, 2, 6], bias=[6]
    ),
    "conv 2d, depthwise": row(
        conv("conv2d", stride=2, padding=1, groups=3), [2, 5, 6, 3], weight=[3, 3, 1, 6], bias=[6]
    ),
    "conv 3d": row(
        conv("conv3d", stride=(1, 2, 1), padding=(0, 1, 0)), [2, 3, 4, 3, 2], weight=[2, 3, 2, 2, 3], bias=[3]
    ),
    "conv 3d, dilation, groups": row(
        conv("conv3d", dilation=(1, 1, 2), groups=2), [2, 3, 2, 4, 2], weight=[2, 2, 2, 1, 4], bias=[4]
    ),
    "transposed 1d": row(
        transposed("conv_transpose1d", stride=2, padding=1), [2, 5, 3], weight=[4, 3, 2], bias=[2]
    ),
    "transposed 1d, dilation, output padding": row(
        transposed("conv_transpose1d", stride=3, padding=1, output_padding=1, dilation=2),
        [2, 4, 3],
        weight=[3, 3, 2],
        bias=[2],
    ),
    "transposed 2d": row(
        transposed("conv_transpose2d", stride=(2, 1), padding=(1, 0)), [2, 3, 4, 3], weight=[3, 2, 3, 2], bias=[2]
    ),
    "transposed 2d, groups": row(
        transposed("conv_transpose2d", groups=2, stride=2), [2, 3, 2, 4], weight=[2, 3, 2, 6], bias=[6]
    ),
    # pooling and other sizes
    "max pool 1d": row(image(lambda x: F.max_pool1d(x, 3, 2, 1)), [2, 8, 3]),
    "max pool 2d": row(image(lambda x: F.max_pool2d(x, (3, 2), 2, 1)), [2, 5, 6, 3]),
    "mean pool 1d": row(image(lambda x: F.avg_pool1d(x, 3, 2, 1, False, False)), [2, 8, 3]),
    "mean pool 2d": row(image(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)), [2, 5, 6, 3]),
    "mean pool 2d with zeros": row(image(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=True)), [2, 5, 6, 3]),
    "adaptive mean pool": row(image(lambda x: F.adaptive_avg_pool2d(x, (3, 2))), [2, 5, 7, 3]),
    "global max pool": row(alone(lambda x: x.movedim(-1, 1).flatten(2).max(2)[0]), [2, 3, 4, 5]),
    "global mean pool": row(alone(lambda x: F.adaptive_avg_pool1d(x.mT, 1)[..., 0]), [2, 7, 3]),
    "nearest": row(image(lambda x: F.interpolate(x, scale_factor=(2, 3))), [2, 3, 2, 4]),
    "bilinear": row(image(lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear")), [2, 4, 3, 2]),
    "zero pad": row(image(lambda x: F.pad(x, (0, 3, 1, 2))), [2, 3, 2, 4]),
    # normalisation
    "batch norm, training": Row(batch_norm(0.1, True), [5, 3], BOTH, START, True),
    "batch norm, training, images": Row(batch_norm(0.25, True), [4, 2, 5, 3], BOTH, STATISTICS, True),
    "batch norm, evaluation": Row(batch_norm(0.1, False), [4, 2, 5, 3], BOTH, STATISTICS),
    "layer norm": row(normalised(F.layer_norm, normalized_shape=(3,)), [5, 4, 3], **BOTH),
    "layer norm, two axes": row(normalised(F.layer_norm, normalized_shape=(2, 3), eps=0.1), [5, 2, 3], **SCALED),
    "layer norm, bare": row(normalised(F.layer_norm, normalized_shape=(3,)), [5, 4, 3]),
    "rms norm": row(lambda x, p: F.rms_norm(x, (3,), p["scale"], 1e-5), [5, 4, 3], scale=[3]),
    "group norm": row(last_first(normalised(F.group_norm, num_groups=2)), [3, 2, 5, 4], scale=[4], bias=[4]),
    "instance norm": row(last_first(normalised(F.instance_norm)), [2, 4, 5, 3], **BOTH),
    # recurrence: (x, carry) -> (y, carry)
    "rnn tanh": row(recurrent("rnn_tanh"), [2, 5, 3], [2, 4], **RNN),
    "rnn relu": row(recurrent("rnn_relu"), [2, 5, 3], [2, 4], **RNN),
    "gru": row(recurrent("gru"), [2, 5, 3], [2, 4], **RESET),
    "lstm": row(recurrent("lstm"), [2, 5, 3], ([2, 4], [2, 4]), **LSTM),
    "lstm, projection": row(recurrent("lstm", "projection"), [2, 5, 3], ([2, 2], [2, 4]), **PROJECTED),
    "gru, both ways": row(recurrent("gru"), [2, 5, 3], ([2, 4], [2, 4]), forward=RESET, backward=RESET),
    "lstm, both ways": row(
        recurrent("lstm"), [2, 5, 3], (([2, 4], [2, 4]), ([2, 4], [2, 4])), forward=LSTM, backward=LSTM
    ),
    # attention
    "scaled dot products": row(
        alone(lambda x: F.scaled_dot_product_attention(*x)), [2, 2, 5, 3], [2, 2, 4, 3], [2, 2, 4, 2]
    ),
    "scaled dot products, causal, grouped": row(
        alone(lambda x: F.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=True)),
        [2, 4, 5, 3],
        [2, 2, 5, 3],
        [2, 2, 5, 2],
    ),
    "attention": row(attention(2), [2, 3, 4], **attention_shapes(4)),
    "attention, causal": row(attention(3, causal=True), [2, 5, 6], **attention_shapes(6)),
    "attention, cross": row(attention(2, cross=True), [2, 3, 4], [2, 5, 4], **attention_shapes(4)),
    "transformer block": row(block(2, "gelu", False), [2, 3, 4], **BLOCK_SHAPES),
    "transformer block, relu, causal": row(block(2, "relu", True), [2, 3, 4], **BLOCK_SHAPES),
}

# --- making the file -------------------------------------------------------------------------------------------------


def each(f: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree of `f(leaf)`."""
    if isinstance(tree, Mapping):
        return {name: each(f, child) for name, child in tree.items()}
    return tuple(each(f, child) for child in tree) if isinstance(tree, tuple) else f(tree)


def leaves(tree: Tree) -> list[Any]:
    found: list[Any] = []
    each(found.append, tree)
    return found


def plain(tree: Tree) -> Any:
    """As the file has it."""
    if isinstance(tree, tuple):
        tree = {str(i): child for i, child in enumerate(tree)}
    return {name: plain(child) for name, child in tree.items()} if isinstance(tree, Mapping) else tree.tolist()


def values(label: str, row: Row) -> dict[str, Any]:
    """What the file holds of a row."""
    rng = np.random.default_rng([*label.encode()])

    def draw(shape: Any) -> Any:
        return torch.tensor(shape if isinstance(shape, np.ndarray) else rng.standard_normal(shape).round(3))

    x, params, state = (each(draw, tree) for tree in (row.x, row.params, row.state))
    found = {"x": plain(x), "params": plain(params), "state": plain(state), "training": row.training}
    varied = [leaf.requires_grad_() for leaf in leaves((x, params)) if leaf.is_floating_point()]
    y = row.f(x, params, state) if state else row.f(x, params)
    dy = each(lambda leaf: draw([*leaf.shape]), y)
    torch.autograd.backward(leaves(y), leaves(dy), inputs=varied)
    found |= {"dy": plain(dy), "y": plain(each(torch.Tensor.detach, y)), "new_state": plain(state)}
    if all(leaf.is_floating_point() for leaf in leaves(x)):
        found["dx"] = plain(each(gradient, x))
    return found | {"grads": plain(each(gradient, params))}


def gradient(leaf: Any) -> Any:
    return leaf.grad


def main() -> None:
    """One line a row; floats are written so that they are read back as the same."""
    dump = json.JSONEncoder(separators=(",", ":")).encode
    rows = ",\n".join(f"{dump(label)}:{dump(values(label, row))}" for label, row in ROWS.items())
    FILE.write_text(f'{{\n"torch":{dump(torch.__version__)},\n"rows":{{\n{rows}\n}}\n}}\n')


if __name__ == "__main__":
    main()
