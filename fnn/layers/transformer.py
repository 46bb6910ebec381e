"""Transformer blocks, written as networks of the layers of the other files: nothing here computes a derivative.

The norm stands first in every branch (pre-norm: Xiong et al. 2020, figure 1b), so the sum runs through from the first
block to the last; a network of blocks ends with one more norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from fnn.combinators import dag, fan_in_mul, fan_in_sum, serial
from fnn.contract import Layer
from fnn.layers.activation import Gelu, Silu
from fnn.layers.attention import CrossAttention, Mask, MaskedAttention, MultiHeadAttention
from fnn.check import positive
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.layers.norm import LayerNorm
from fnn.types import Array, Params, ShapeError, bind

X = TypeVar("X")


def FeedForward(
    features: int, hidden: int | None = None, *, activation: Layer[Array, Array] = Gelu, dropout: float = 0.0
) -> Layer[Array, Array]:
    """`y = activation(x W1 + b1) W2 + b2`, applied to the last axis of `(batch, ..., in)`; y has `features`.

    `hidden` is the width between, 4 times `features` by default; `dropout` applies there. Vaswani et al. 2017,
    section 3.3.
    """
    positive("FeedForward", "features", features)
    width = 4 * features if hidden is None else positive("FeedForward", "hidden", hidden)
    config = {"features": features, "hidden": hidden, "activation": activation, "dropout": dropout}
    return _called(FeedForward, config, serial(Dense(width), activation, Dropout(dropout), Dense(features)))


def GatedFeedForward(
    features: int, hidden: int | None = None, *, activation: Layer[Array, Array] = Silu, dropout: float = 0.0
) -> Layer[Array, Array]:
    """`y = (activation(x Wg + bg) (x Wv + bv)) Wo + bo` over the last axis of `(batch, ..., in)`; y has `features`.

    `hidden` is the width between. By default it is 8/3 of `features`, rounded up, for as many parameters as
    `FeedForward` has. Shazeer 2020, eq. 5 and 6 (SwiGLU with `Silu`, GEGLU with `Gelu`).
    """
    positive("GatedFeedForward", "features", features)
    width = -(-8 * features // 3) if hidden is None else positive("GatedFeedForward", "hidden", hidden)
    config = {"features": features, "hidden": hidden, "activation": activation, "dropout": dropout}
    network = dag(
        inputs="x",
        gate=("x", Dense(width)),
        opened=("gate", activation),
        value=("x", Dense(width)),
        product=(("opened", "value"), fan_in_mul),
        dropped=("product", Dropout(dropout)),
        out=("dropped", Dense(features)),
        output="out",
    )
    return _called(GatedFeedForward, config, network)


def TransformerBlock(
    features: int,
    heads: int,
    *,
    key_value_heads: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    dropout: float = 0.0,
    norm: Layer[Array, Array] = LayerNorm(),
    feed_forward: Layer[Array, Array] | None = None,
) -> Layer[Array, Array]:
    """`h = x + attention(norm(x))`, `y = h + feed_forward(norm(h))`; `(batch, time, features)` stays what it is.

    The attention is `MultiHeadAttention(heads, ...)`, the rest `FeedForward(features)` unless another layer is given,
    such as `GatedFeedForward(features)`. `dropout` applies to the attention weights, within the default `feed_forward`,
    and to what both branches add. The parameters of the parts are in `attention_norm`, `attention`, `feed_forward_norm`
    and `feed_forward`.
    """
    config = dict(locals())  # all arguments by name
    attention = MultiHeadAttention(
        heads, key_value_heads=key_value_heads, causal=causal, rotary=rotary, dropout=dropout
    )
    network = dag(
        inputs="x",
        attention_norm=("x", norm),
        attention=("attention_norm", attention),
        attention_dropout=("attention", Dropout(dropout)),
        h=(("x", "attention_dropout"), fan_in_sum),
        feed_forward_norm=("h", norm),
        feed_forward=("feed_forward_norm", _feed_forward(features, feed_forward, dropout)),
        feed_forward_dropout=("feed_forward", Dropout(dropout)),
        y=(("h", "feed_forward_dropout"), fan_in_sum),
        output="y",
    )
    return _called(TransformerBlock, config, network, features)


def MaskedTransformerBlock(
    features: int,
    heads: int,
    *,
    key_value_heads: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    dropout: float = 0.0,
    norm: Layer[Array, Array] = LayerNorm(),
    feed_forward: Layer[Array, Array] | None = None,
) -> Layer[tuple[Array, Mask], Array]:
    """`TransformerBlock` with the mask of `MaskedAttention`: the input is `(x, mask)`, the output as x.

    Several blocks share one mask in a `dag`: `a=(("x", "mask"), block), b=(("a", "mask"), block)`.
    """
    config = dict(locals())  # all arguments by name
    attention = MaskedAttention(heads, key_value_heads=key_value_heads, causal=causal, rotary=rotary, dropout=dropout)
    network = dag(
        inputs=("x", "mask"),
        attention_norm=("x", norm),
        attention=(("attention_norm", "mask"), attention),
        attention_dropout=("attention", Dropout(dropout)),
        h=(("x", "attention_dropout"), fan_in_sum),
        feed_forward_norm=("h", norm),
        feed_forward=("feed_forward_norm", _feed_forward(features, feed_forward, dropout)),
        feed_forward_dropout=("feed_forward", Dropout(dropout)),
        y=(("h", "feed_forward_dropout"), fan_in_sum),
        output="y",
    )
    return _called(MaskedTransformerBlock, config, network, features)


def CrossTransformerBlock(
    features: int,
    heads: int,
    *,
    key_value_heads: int | None = None,
    causal: bool = True,
    rotary: bool = False,
    dropout: float = 0.0,
    norm: Layer[Array, Array] = LayerNorm(),
    feed_forward: Layer[Array, Array] | None = None,
) -> Layer[tuple[Array, Array], Array]:
    """The block of a decoder: `TransformerBlock` with attention to a second sequence between its two branches.

    The input is `(x, memory)`: `h = x + attention(norm(x))`, `m = h + cross(norm(h), memory)` and
    `y = m + feed_forward(norm(m))`. The first attention is causal unless told otherwise. Its parameters are as those of
    `TransformerBlock`, with `cross_norm` and `cross` besides. The memory is not normalised here. Vaswani et al. 2017,
    figure 1 (right).
    """
    config = dict(locals())  # all arguments by name
    attention = MultiHeadAttention(
        heads, key_value_heads=key_value_heads, causal=causal, rotary=rotary, dropout=dropout
    )
    network = dag(
        inputs=("x", "memory"),
        attention_norm=("x", norm),
        attention=("attention_norm", attention),
        attention_dropout=("attention", Dropout(dropout)),
        h=(("x", "attention_dropout"), fan_in_sum),
        cross_norm=("h", norm),
        cross=(("cross_norm", "memory"), CrossAttention(heads, key_value_heads=key_value_heads, dropout=dropout)),
        cross_dropout=("cross", Dropout(dropout)),
        m=(("h", "cross_dropout"), fan_in_sum),
        feed_forward_norm=("m", norm),
        feed_forward=("feed_forward_norm", _feed_forward(features, feed_forward, dropout)),
        feed_forward_dropout=("feed_forward", Dropout(dropout)),
        y=(("m", "feed_forward_dropout"), fan_in_sum),
        output="y",
    )
    return _called(CrossTransformerBlock, config, network, features)


def _feed_forward(features: int, given: Layer[Array, Array] | None, dropout: float) -> Layer[Array, Array]:
    return FeedForward(features, dropout=dropout) if given is None else given


def _called(
    build: Callable[..., Any], config: Mapping[str, Any], network: Layer[X, Array], width: int | None = None
) -> Layer[X, Array]:
    """The network under the name of the function that composed it; the features of its first input, if they matter."""
    named = attrs.evolve(network, kind=build.__name__, config=config, build=build)
    if width is None:
        return named
    fits = bind(_check_width, build.__name__, width)
    return attrs.evolve(
        named, init=bind(_init_fitting, fits, network.init), out_shape=bind(_shape_fitting, fits, network.out_shape)
    )


def _check_width(who: str, width: int, in_shape: Any) -> None:
    if not isinstance(in_shape, tuple):
        return  # the network says what is wrong with it
    first = in_shape[0] if in_shape and isinstance(in_shape[0], tuple) else in_shape
    if len(first) != 2 or first[1] != width:
        raise ShapeError(f"{who}({width}): expected an input shape (time, {width}), got {first}")


def _init_fitting(fits: Callable[[Any], None], init: Callable[[Any, Any], Params], key: Any, in_shape: Any) -> Params:
    fits(in_shape)
    return init(key, in_shape)


def _shape_fitting(fits: Callable[[Any], None], out_shape: Callable[[Any], Any], in_shape: Any) -> Any:
    fits(in_shape)
    return out_shape(in_shape)
