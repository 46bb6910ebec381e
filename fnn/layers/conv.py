"""Convolutions in one, two and three spatial axes, channels last; the arithmetic is in `correlate` and `window`.

What neural networks call a convolution is a correlation: the kernel is not mirrored. The cache is the input,
in the order in memory that suits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import attrs

from fnn.combinators import named, serial
from fnn.contract import Layer, stateless
from fnn.initializers import Initializer, he_normal, zeros
from fnn.check import check_bias, feature_shape, input_error, positive
from fnn.layers.correlate import bias_gradient, correlate, correlate_input, correlate_weight, ordered, swapped
from fnn.layers.window import Geometry, Padding, Sizes, Window, geometry, layout, transposed, window
from fnn.random import Key
from fnn.types import Array, Params, Shape, ShapeError, bind


class Conv(NamedTuple):
    """What a convolution is: its hyper-parameters, checked."""

    who: str
    features: int
    """The channels of the output; of a depthwise convolution those for every channel of the input."""
    window: Window
    groups: int
    """0 in a depthwise convolution: as many as the input has channels."""
    transpose: bool


# y[o] = sum over k of x[o s + k d - p] W[k] + b        (s stride, d dilation, p padding; W[k] is (in / groups, out))
# dW[k] = sum over images and o of x[o s + k d - p]' dy[o]       db = sum of dy over images and o
# dx[i] = sum of dy[o] W[k]' over o, k with o s + k d - p = i


def conv_forward(conv: Conv, params: Params, x: Array) -> tuple[Array, Array]:
    """`y[o] = sum over k of x[o s + k d - p] W[k] + b`; the cache is x."""
    g = _check(conv, params, x)
    x = ordered(x, g, _groups(conv, x))
    return correlate(x, params["weight"], params.get("bias"), g, _groups(conv, x)), x


def conv_param_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> Params:
    """`dW[k] = sum of x[o s + k d - p]' dy[o]` and `db = sum of dy`, over images and o."""
    g = geometry(conv.who, conv.window, x.shape[1:])
    dy = ordered(dy, g, _groups(conv, x))
    return _with_bias(params, correlate_weight(x, dy, g, _groups(conv, x)), dy)


def conv_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    """As `conv_param_vjp`, and `dx[i] = sum of dy[o] W[k]'` over o, k with `o s + k d - p = i`."""
    return conv_param_vjp(conv, params, x, dy), conv_input_vjp(conv, params, x, dy)


def conv_input_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> Array:
    """`dx` as in `conv_vjp`."""
    g = geometry(conv.who, conv.window, x.shape[1:])
    groups = _groups(conv, x)
    return correlate_input(ordered(dy, g, groups), params["weight"], None, g, groups)


# A transposed convolution is the map dy -> dx of a convolution, whose W it holds with in and out exchanged:
# y[i] = sum of x[o] W[k] over o, k with o s + k d - p = i, plus b. Its dx is a convolution of dy, its dW that of both.


def transpose_forward(conv: Conv, params: Params, x: Array) -> tuple[Array, Array]:
    """`y[i] = sum of x[o] W[k] over o, k with o s + k d - p = i, plus b`; the cache is x."""
    g = _check(conv, params, x)
    x = ordered(x, g, conv.groups)
    return correlate_input(x, swapped(params["weight"], conv.groups), params.get("bias"), g, conv.groups), x


def transpose_param_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> Params:
    """`dW[k] = sum of x[o]' dy[o s + k d - p]` and `db = sum of dy`."""
    g = transposed(conv.who, conv.window, x.shape[1:])
    dy = ordered(dy, g, conv.groups)
    return _with_bias(params, swapped(correlate_weight(dy, x, g, conv.groups), conv.groups), dy)


def transpose_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> tuple[Params, Array]:
    """As `transpose_param_vjp`, and `dx[o] = sum over k of dy[o s + k d - p] W[k]'`."""
    return transpose_param_vjp(conv, params, x, dy), transpose_input_vjp(conv, params, x, dy)


def transpose_input_vjp(conv: Conv, params: Params, x: Array, dy: Array) -> Array:
    """`dx` as in `transpose_vjp`."""
    g = transposed(conv.who, conv.window, x.shape[1:])
    return correlate(ordered(dy, g, conv.groups), swapped(params["weight"], conv.groups), None, g, conv.groups)


def _with_bias(params: Params, dw: Array, dy: Array) -> Params:
    return {"weight": dw, "bias": bias_gradient(dy)} if "bias" in params else {"weight": dw}


def _groups(conv: Conv, x: Array) -> int:
    return conv.groups or x.shape[-1]


def _check(conv: Conv, params: Params, x: Array) -> Geometry:
    """Where the windows lie on this input, after the checks."""
    weight = params["weight"]
    axes = len(conv.window.size)
    channels = weight.shape[-2] * conv.groups or weight.shape[-1] // conv.features
    if getattr(x, "ndim", 0) != axes + 2 or x.shape[-1] != channels or x.dtype != weight.dtype:
        raise input_error(conv.who, layout(axes, channels), x, weight)
    check_bias(conv.who, params, weight)
    return _geometry(conv, x.shape[1:])


def _geometry(conv: Conv, in_shape: Shape) -> Geometry:
    return (transposed if conv.transpose else geometry)(conv.who, conv.window, in_shape)


def _out_shape(conv: Conv, in_shape: Shape) -> Shape:
    g = _geometry(conv, feature_shape(conv.who, in_shape))
    if conv.groups and in_shape[-1] % conv.groups:
        raise ShapeError(f"{conv.who}: expected channels divisible by groups={conv.groups}, got {in_shape}")
    features = conv.features if conv.groups else conv.features * in_shape[-1]
    return (*(g.inside if conv.transpose else g.outside), features)


def _init(conv: Conv, weight_init: Initializer, bias_init: Initializer | None, key: Key, in_shape: Shape) -> Params:
    features = _out_shape(conv, in_shape)[-1]
    shape = (*conv.window.size, in_shape[-1] // conv.groups if conv.groups else 1, features)
    params: dict[str, Any] = {"weight": weight_init(key.fold_in("weight"), shape)}
    if bias_init is not None:
        params["bias"] = bias_init(key.fold_in("bias"), (features,))
    return params


# --- constructors ----------------------------------------------------------------------------------------------------


def Conv1D(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding | Literal["causal"] = "same",
    dilation: Sizes = 1,
    groups: int = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A convolution over time: `(batch, time, in)` to `(batch, time', features)`. Everything else is as in `Conv2D`.

    `padding="causal"` puts all of it before the sequence, so that no output sees a later step; there are
    `ceil(time / stride)`.
    """
    return _conv(Conv1D, 1, features, kernel, stride, padding, dilation, groups, weight_init, bias_init)


def Conv2D(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    groups: int = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A convolution over images: `(batch, height, width, in)` to `(batch, height', width', features)`.

    `y[o] = sum over k of x[o stride + k dilation - before] W[k] + b`. Padding is `"same"` (`ceil(n / stride)` outputs,
    an odd pixel of padding goes after the image), `"valid"` (none), an integer, or `((top, bottom), (left, right))`;
    then there are `floor((n + before + after - (kernel - 1) dilation - 1) / stride) + 1` outputs. With `groups`, the
    channels of input and output are cut into so many parts, each convolved alone.

    Parameters: `weight` (kernel height, kernel width, in / groups, features), He normal since a rectifier follows most
    convolutions; `bias` (features,) or, with `bias_init=None`, none.

    LeCun et al. 1989, Backpropagation applied to handwritten zip code recognition; dilation: Yu & Koltun 2016;
    groups: Krizhevsky et al. 2012.
    """
    return _conv(Conv2D, 2, features, kernel, stride, padding, dilation, groups, weight_init, bias_init)


def Conv3D(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    groups: int = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A convolution over volumes: `(batch, depth, height, width, in)`. Everything else is as in `Conv2D`."""
    return _conv(Conv3D, 3, features, kernel, stride, padding, dilation, groups, weight_init, bias_init)


def DepthwiseConv2D(
    kernel: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """Every channel convolved alone: `(batch, height, width, in)` to `(batch, height', width', in * multiplier)`.

    It is `Conv2D` with as many groups as channels: output `c * multiplier + j` is the j-th made from channel c.
    Parameters: `weight` (kernel height, kernel width, 1, in * multiplier), `bias`. Chollet 2017.
    """
    positive("DepthwiseConv2D", "multiplier", multiplier)
    who = f"DepthwiseConv2D({kernel})"
    conv = Conv(who, multiplier, window("DepthwiseConv2D", "kernel", 2, kernel, stride, padding, dilation), 0, False)
    config = {"multiplier": multiplier}
    return _layer(DepthwiseConv2D, conv, config, kernel, stride, padding, dilation, weight_init, bias_init)


def SeparableConv2D(
    features: int,
    kernel: Sizes,
    *,
    multiplier: int = 1,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A convolution of every channel alone, then a product over the channels: `DepthwiseConv2D`, `Conv2D(features, 1)`.

    Parameters: `depthwise/weight`, `pointwise/weight`, `pointwise/bias`. Chollet 2017, Xception.
    """
    positive("SeparableConv2D", "features", features)
    depthwise = DepthwiseConv2D(
        kernel,
        multiplier=multiplier,
        stride=stride,
        padding=padding,
        dilation=dilation,
        weight_init=weight_init,
        bias_init=None,
    )
    pointwise = Conv2D(features, 1, weight_init=weight_init, bias_init=bias_init)
    config = {
        "features": features,
        "kernel": kernel,
        "multiplier": multiplier,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "weight_init": weight_init,
        "bias_init": bias_init,
    }
    both = serial(named("depthwise", depthwise), named("pointwise", pointwise))
    return attrs.evolve(both, kind="SeparableConv2D", config=config, build=SeparableConv2D)


def ConvTranspose1D(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    groups: int = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A transposed convolution over time. Everything is as in `ConvTranspose2D`."""
    return _conv(ConvTranspose1D, 1, features, kernel, stride, padding, dilation, groups, weight_init, bias_init, True)


def ConvTranspose2D(
    features: int,
    kernel: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = "same",
    dilation: Sizes = 1,
    groups: int = 1,
    weight_init: Initializer = he_normal(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """A transposed convolution over images: every input pixel adds its kernel to the output, `stride` pixels apart.

    `y[i] = sum of x[o] W[k] over all o, k with o stride + k dilation - before = i, plus b`: the map from dy to dx of a
    convolution with the same kernel, stride and padding. The output has `n stride` pixels with `"same"`, and
    `(n - 1) stride + (kernel - 1) dilation + 1 - before - after` with explicit padding (0 if `"valid"`). One pixel less
    of padding after the image is what other libraries call an output padding of one.

    Parameters: `weight` (kernel height, kernel width, in / groups, features), `bias`. Zeiler et al. 2010; Dumoulin &
    Visin 2016, chapter 4.
    """
    return _conv(ConvTranspose2D, 2, features, kernel, stride, padding, dilation, groups, weight_init, bias_init, True)


def _conv(
    build: Callable[..., Layer[Array, Array]],
    axes: int,
    features: int,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding | Literal["causal"],
    dilation: Sizes,
    groups: int,
    weight_init: Initializer,
    bias_init: Initializer | None,
    transpose: bool = False,
) -> Layer[Array, Array]:
    """The convolution of these hyper-parameters, once they are checked."""
    kind = build.__name__
    positive(kind, "features", features)
    if features % positive(kind, "groups", groups):
        raise ValueError(f"{kind}: expected features divisible by groups, got {features} and {groups}")
    shape = window(kind, "kernel", axes, kernel, stride, padding, dilation, causal=axes == 1 and not transpose)
    conv = Conv(f"{kind}({features}, {kernel})", features, shape, groups, transpose)
    config = {"features": features, "groups": groups}
    return _layer(build, conv, config, kernel, stride, padding, dilation, weight_init, bias_init)


def _layer(
    build: Callable[..., Layer[Array, Array]],
    conv: Conv,
    config: dict[str, Any],
    kernel: Sizes,
    stride: Sizes,
    padding: Padding | Literal["causal"],
    dilation: Sizes,
    weight_init: Initializer,
    bias_init: Initializer | None,
) -> Layer[Array, Array]:
    window_config = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return stateless(
        build.__name__,
        bind(_init, conv, weight_init, bias_init),
        bind(transpose_forward if conv.transpose else conv_forward, conv),
        bind(transpose_vjp if conv.transpose else conv_vjp, conv),
        out_shape=bind(_out_shape, conv),
        param_vjp=bind(transpose_param_vjp if conv.transpose else conv_param_vjp, conv),
        input_vjp=bind(transpose_input_vjp if conv.transpose else conv_input_vjp, conv),
        config={**config, **window_config, "weight_init": weight_init, "bias_init": bias_init},
        build=build,
    )
