"""Normalisation: `y = scale (x - mean) / sqrt(variance + eps) + bias`. The layers differ in what the mean runs over.

| layer | mean and variance over | keeps running statistics |
| --- | --- | --- |
| `BatchNorm` | every axis but the last, so one of each per channel | yes |
| `InstanceNorm` | the positions of one example, one of each per example and channel | no |
| `GroupNorm` | the positions and the channels of a group, one of each per example and group | no |
| `LayerNorm` | the last axis (or the last few), one of each per position | no |
| `RMSNorm` | as `LayerNorm`, the mean taken to be 0 | no |

The variance is that of the centred numbers (two passes: no cancellation), divided by their count. Caches keep the
input, which is there anyway, and the few statistics; the centred numbers are cheaper to make again than to store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fnn import initializers, tree
from fnn.contract import Layer, Mode, in_training, layer, stateless
from fnn.initializers import Initializer
from fnn.check import above_zero, feature_shape, fraction, input_error, positive
from fnn.layers.abreast import channel_rows, from_rows, is_abreast
from fnn.random import Key
from fnn.types import Array, Params, Shape, ShapeError, State, bind, ones

BLOCK = 1 << 16
"""How many numbers are worked on at a time: a few arrays of them fit the second-level cache."""

# --- layer normalisation: every row x of n numbers by itself ---------------------------------------------------------
#
# r = 1 / sqrt(var + eps)          d = x - mean          y = d r s + b
# ds = sum of dy d r    db = sum of dy (over the rows)   dx = dy r s - r mean(dy s) - d r**3 mean(dy s d)

Rows = tuple[Array, Array, Array]


def layer_norm_forward(axes: int, eps: float, params: Params, x: Array) -> tuple[Array, Rows]:
    """`y = (x - mean) r scale + bias` over the last `axes` axes; the cache is the rows of x, their means and r."""
    rows, scale = _rows("LayerNorm", axes, params, x)
    count, n = rows.shape
    if n == 1:
        raise _one_number("LayerNorm", x.shape[1:])
    mean, r = np.empty(count, x.dtype), np.empty(count, x.dtype)
    y = np.empty(rows.shape, x.dtype)
    for i in _row_blocks(count, n):
        m = np.dot(rows[i], ones(n, x.dtype), out=mean[i])
        m *= 1 / n
        part = np.subtract(rows[i], m[:, None], out=y[i])
        _reciprocal_root(np.vecdot(part, part, out=r[i]), n, eps)
        part *= r[i, None]
        part *= scale
        if "bias" in params:
            part += params["bias"].reshape(-1)
    return y.reshape(x.shape), (rows, mean, r)


def layer_norm_vjp(axes: int, params: Params, cache: Rows, dy: Array) -> tuple[Params, Array]:
    """`dx = dy r s - r mean(dy s) - d r**3 mean(dy s d)`, `ds = sum of dy d r`, `db = sum of dy`."""
    rows, mean, r = cache
    count, n = rows.shape
    scale, dys = _scale(params, n, dy.dtype), dy.reshape(count, n)
    dx, scratch = np.empty(rows.shape, dy.dtype), _scratch(rows)
    d_scale, d_bias = np.zeros(n, dy.dtype), np.zeros(n, dy.dtype)
    for i in _row_blocks(count, n):
        d = np.subtract(rows[i], mean[i, None], out=scratch[: len(r[i])])
        part = np.multiply(dys[i], d, out=dx[i])
        d_scale += r[i].dot(part)
        d_bias += dys[i].T.dot(ones(len(d), dy.dtype))
        d *= _times_cube(part.dot(scale), r[i], n)[:, None]
        d += _times(dys[i].dot(scale), r[i], n)[:, None]
        np.dot(r[i, None], scale[None], out=part)
        part *= dys[i]
        part -= d
    return _grads(params, d_scale, d_bias), dx.reshape(dy.shape)


def LayerNorm(
    *,
    eps: float = 1e-5,
    axes: int = 1,
    scale_init: Initializer | None = initializers.ones,
    bias_init: Initializer | None = initializers.zeros,
) -> Layer[Array, Array]:
    """Gives the numbers of the last `axes` axes of `(batch, ..., features)` mean 0 and variance 1; then scale and bias.

    Parameters: `scale` and `bias`, shaped as the axes normalised over; `None` instead of an initializer leaves one out.
    Raises `ShapeError` for axes of one number, whose variance is 0. Ba, Kiros & Hinton 2016, eq. 4.
    """
    positive("LayerNorm", "axes", axes)
    eps = above_zero("LayerNorm", "eps", eps)
    return stateless(
        "LayerNorm",
        bind(_init_layer_norm, axes, scale_init, bias_init),
        bind(layer_norm_forward, axes, eps),
        bind(layer_norm_vjp, axes),
        out_shape=bind(_layer_norm_out_shape, axes),
        config={"eps": eps, "axes": axes, "scale_init": scale_init, "bias_init": bias_init},
        build=LayerNorm,
    )


def _init_layer_norm(
    axes: int, scale_init: Initializer | None, bias_init: Initializer | None, key: Key, in_shape: Shape
) -> Params:
    return _init(scale_init, bias_init, key, _layer_norm_out_shape(axes, in_shape)[-axes:])


def _layer_norm_out_shape(axes: int, in_shape: Shape) -> Shape:
    if math.prod(_rows_out_shape("LayerNorm", axes, in_shape)[-axes:]) == 1:
        raise _one_number("LayerNorm", in_shape)
    return in_shape


# --- root mean square normalisation ----------------------------------------------------------------------------------
#
# r = 1 / sqrt(mean(x**2) + eps)   y = x r s             ds = sum of dy x r    dx = dy r s - x r**3 mean(dy s x)


def rms_norm_forward(axes: int, eps: float, params: Params, x: Array) -> tuple[Array, tuple[Array, Array]]:
    """`y = x r scale` over the last `axes` axes; the cache is the rows of x and their r."""
    rows, scale = _rows("RMSNorm", axes, params, x)
    count, n = rows.shape
    y, r = np.empty(rows.shape, x.dtype), np.empty(count, x.dtype)
    for i in _row_blocks(count, n):
        _reciprocal_root(np.vecdot(rows[i], rows[i], out=r[i]), n, eps)
        part = np.dot(r[i, None], scale[None], out=y[i])
        part *= rows[i]
    return y.reshape(x.shape), (rows, r)


def rms_norm_vjp(axes: int, params: Params, cache: tuple[Array, Array], dy: Array) -> tuple[Params, Array]:
    """`dx = dy r s - x r**3 mean(dy s x)`, `ds = sum of dy x r`."""
    rows, r = cache
    count, n = rows.shape
    scale, dys = _scale(params, n, dy.dtype), dy.reshape(count, n)
    dx, scratch, d_scale = np.empty(rows.shape, dy.dtype), _scratch(rows), np.zeros(n, dy.dtype)
    for i in _row_blocks(count, n):
        part = np.multiply(dys[i], rows[i], out=dx[i])
        d_scale += r[i].dot(part)
        q = _times_cube(part.dot(scale), r[i], n)
        np.dot(r[i, None], scale[None], out=part)
        part *= dys[i]
        part -= np.multiply(rows[i], q[:, None], out=scratch[: len(q)])
    return _grads(params, d_scale, d_scale), dx.reshape(dy.shape)


def RMSNorm(
    *, eps: float = 1e-5, axes: int = 1, scale_init: Initializer | None = initializers.ones
) -> Layer[Array, Array]:
    """Divides by the root of the mean square over the last `axes` axes of `(batch, ..., features)`; then scales.

    Parameters: `scale`, shaped as the axes normalised over; `scale_init=None` leaves it out.
    Zhang & Sennrich 2019, eq. 4.
    """
    positive("RMSNorm", "axes", axes)
    eps = above_zero("RMSNorm", "eps", eps)
    return stateless(
        "RMSNorm",
        bind(_init_rms_norm, axes, scale_init),
        bind(rms_norm_forward, axes, eps),
        bind(rms_norm_vjp, axes),
        out_shape=bind(_rows_out_shape, "RMSNorm", axes),
        config={"eps": eps, "axes": axes, "scale_init": scale_init},
        build=RMSNorm,
    )


def _init_rms_norm(axes: int, scale_init: Initializer | None, key: Key, in_shape: Shape) -> Params:
    return _init(scale_init, None, key, _rows_out_shape("RMSNorm", axes, in_shape)[-axes:])


# --- what both do with rows ------------------------------------------------------------------------------------------


def _rows(who: str, axes: int, params: Params, x: Array) -> tuple[Array, Array]:
    """The input as a matrix whose rows are normalised, and the scale as a vector (of ones if there is none)."""
    _check_input(who, axes + 1, params, x)
    n = math.prod(x.shape[-axes:])
    return x.reshape(math.prod(x.shape[:-axes]), n), _scale(params, n, x.dtype)


def _scale(params: Params, n: int, dtype: np.dtype[Any]) -> Array:
    return params["scale"].reshape(-1) if "scale" in params else ones(n, dtype)


def _scratch(rows: Array) -> Array:
    return np.empty((min(len(rows), _height(rows.shape[1])), rows.shape[1]), rows.dtype)


def _height(n: int) -> int:
    """How many rows of n numbers make a block."""
    return max(1, BLOCK // n)


def _row_blocks(count: int, n: int) -> Iterator[slice]:
    return (slice(start, start + _height(n)) for start in range(0, count, _height(n)))


def _reciprocal_root(squares: Array, n: float, eps: float) -> None:
    """Turns sums of n squares into `1 / sqrt(squares / n + eps)`, in place."""
    squares *= 1 / n
    squares += eps
    np.sqrt(squares, out=squares)
    np.divide(1, squares, out=squares)


def _times(sums: Array, r: Array, n: int) -> Array:
    """`sums r / n`, in place."""
    sums *= 1 / n
    sums *= r
    return sums


def _times_cube(sums: Array, r: Array, n: int) -> Array:
    """`sums r**3 / n`, in place."""
    _times(sums, r, n)
    sums *= r
    sums *= r
    return sums


def _rows_out_shape(who: str, axes: int, in_shape: Shape) -> Shape:
    if len(feature_shape(who, in_shape)) < axes:
        raise ShapeError(f"{who}: expected an input shape of at least {axes} axes, got {in_shape}")
    return in_shape


# --- normalisation per channel: column sums over (examples, positions, channels) -------------------------------------
#
# The mean and r = 1 / sqrt(var + eps) run over the m numbers of a channel, or of a group of channels:
#
# d = x - mean        y = d r s + b        S = column sums of dy        T = column sums of dy d
# ds = sum of T r     db = sum of S        dx = dy r s - r (sum of S s in the group) / m - d r**3 (sum of T s) / m
#
# A matrix of few columns is slow to walk, so k rows are taken as one of k times the columns: k copies of every channel.
# Where the images stand abreast in memory (see `abreast`), columns are all there is in a row of the images.


class Columns(NamedTuple):
    """To what the columns of an array `(examples, positions, columns)` belong: they are of this shape."""

    copies: int
    channels: int
    places: int
    images: int
    abreast: bool


Grouped = tuple[Array, Array, Array, Columns]


def _normalise(
    x: Array, columns: Columns, groups: int, eps: float, params: Params
) -> tuple[Array, Array, Array, Array]:
    """`(y, mean, var, r)` of an array `(examples, positions, columns)`, the last three per example and column."""
    mean = _group_means(_column_sums(x), x, columns, groups)
    d, squares = _centre(x, mean)
    var = _group_means(squares, x, columns, groups)
    r = 1 / np.sqrt(var + eps)
    factor = r * _spread(_scale(params, columns.channels, x.dtype), columns)
    return _affine(d, factor, _offset(params, columns), d), mean, var, r


def _normalise_vjp(groups: int, params: Params, cache: Grouped, dy: Array) -> tuple[Params, Array]:
    """The derivative of `_normalise`: `ds`, `db` and `dx` as above."""
    x, mean, r, columns = cache
    dys, scale = _like(dy, x, columns), _spread(_scale(params, columns.channels, x.dtype), columns)
    dx, t = _centre(x, mean, dys)
    s = _column_sums(dys)
    p = _group_means(s * scale, x, columns, groups) * r
    q = _group_means(t * scale, x, columns, groups) * (r * r * r)
    factor = r * scale
    for i, j in _blocks(x.shape):
        part = dx[i, j]
        part *= q[i, None]
        part += p[i, None]
        np.subtract(dys[i, j] * factor[i, None], part, out=part)
    return _grads(params, _over_columns(t * r, columns), _over_columns(s, columns)), _unlike(dx, dy.shape, columns)


def _wide(x: Array, coupled: bool) -> tuple[Array, Columns]:
    """`x` as `(examples, positions, columns)`; if the batch is coupled, all of it is one example.

    As many positions stand side by side as make up to 512 columns.
    """
    images, channels = len(x), x.shape[-1]
    if is_abreast(x):
        rows = channel_rows(x)
        places = rows.shape[2] // images
        own = (places * images, 1) if coupled else (places, images)
        return rows.reshape(1, len(rows), -1), Columns(1, channels, *own, True)
    examples, positions = (1, math.prod(x.shape[:-1])) if coupled else (images, math.prod(x.shape[1:-1]))
    k = 1
    while 2 * k * channels <= 512 and positions % (2 * k) == 0:
        k *= 2
    return x.reshape(examples, positions // k, k * channels), Columns(k, channels, 1, 1, False)


def _like(dy: Array, x: Array, columns: Columns) -> Array:
    """`dy` as `_wide` made x."""
    return (channel_rows(dy) if columns.abreast else dy).reshape(x.shape)


def _unlike(x: Array, shape: Shape, columns: Columns) -> Array:
    """The inverse of `_wide`."""
    return from_rows(x.reshape(x.shape[1], columns.channels, -1), shape) if columns.abreast else x.reshape(shape)


def _spread(parameter: Array, columns: Columns) -> Array:
    """A number per channel as `(1, columns)`."""
    copies, channels, places, images, _ = columns
    spread = np.empty((copies, channels, places * images), parameter.dtype)
    spread[...] = parameter[:, None]
    return spread.reshape(1, -1)


def _offset(params: Params, columns: Columns) -> Array | None:
    return _spread(params["bias"], columns) if "bias" in params else None


def _over_columns(sums: Array, columns: Columns) -> Array:
    """`(examples, columns)` summed over all that belongs to a channel: `(channels,)`."""
    found: Array = sums.reshape(-1, columns.channels, columns.places * columns.images).sum((0, 2))
    return found


def _group_means(sums: Array, x: Array, columns: Columns, groups: int) -> Array:
    """`(examples, columns)` summed over each group and divided by its size, again for every column."""
    copies, channels, places, images, _ = columns
    size = max(1, x.shape[1] * x.shape[2] // (groups * images))
    parts = sums.reshape(len(sums), copies, groups, channels // groups, places, images)
    means = np.empty(parts.shape, sums.dtype)
    np.multiply(parts.sum((1, 3, 4), keepdims=True), 1 / size, out=means)
    return means.reshape(sums.shape)


def _column_sums(x: Array) -> Array:
    """`(examples, positions, columns)` to `(examples, columns)`."""
    sums: Array = np.matmul(ones(x.shape[1], x.dtype), x)
    return sums


def _centre(x: Array, mean: Array, other: Array | None = None) -> tuple[Array, Array]:
    """`d = x - mean`, and the column sums of `d other` (of `d d` if there is no other)."""
    d, sums = np.empty(x.shape, x.dtype), np.zeros(mean.shape, x.dtype)
    for i, j in _blocks(x.shape):
        part = np.subtract(x[i, j], mean[i, None], out=d[i, j])
        sums[i] += np.einsum("ijk,ijk->ik", part, part if other is None else other[i, j])
    return d, sums


def _affine(x: Array, factor: Array, offset: Array | None, out: Array) -> Array:
    """`x factor + offset`, written to `out`; the factor is per example and column, the offset per column."""
    for i, j in _blocks(x.shape):
        part = np.multiply(x[i, j], factor[i, None], out=out[i, j])
        if offset is not None:
            part += offset
    return out


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Pairs of slices of examples and positions that cover `(examples, positions, columns)` in blocks."""
    examples, positions, columns = shape
    if not examples * positions * columns:
        return
    height = min(positions, _height(columns))
    several = max(1, BLOCK // (positions * columns))
    for i in range(0, examples, several):
        for j in range(0, positions, height):
            yield slice(i, i + several), slice(j, j + height)


# --- group and instance normalisation --------------------------------------------------------------------------------


def group_norm_forward(groups: int | None, eps: float, params: Params, x: Array) -> tuple[Array, Grouped]:
    """Normalises groups of channels of each example; `groups=None` makes every channel its own group.

    The cache is x as `_wide` gives it, mean and r per example and column, and to what the columns belong.
    """
    _check_input(_group_who(groups), 2, params, x)
    _group_out_shape(groups, x.shape[1:])
    wide, columns = _wide(x, coupled=False)
    y, mean, _, r = _normalise(wide, columns, groups or x.shape[-1], eps, params)
    return _unlike(y, x.shape, columns), (wide, mean, r, columns)


def group_norm_vjp(groups: int | None, params: Params, cache: Grouped, dy: Array) -> tuple[Params, Array]:
    """The derivative of `group_norm_forward`: mean and r depend on x."""
    return _normalise_vjp(groups or cache[3].channels, params, cache, dy)


def GroupNorm(
    groups: int,
    *,
    eps: float = 1e-5,
    scale_init: Initializer | None = initializers.ones,
    bias_init: Initializer | None = initializers.zeros,
) -> Layer[Array, Array]:
    """Normalises each example of `(batch, ..., channels)` over its positions and groups of neighbouring channels.

    The channels must be a multiple of `groups`; one group normalises each example as a whole. Parameters: `scale` and
    `bias` (channels,); `None` instead of an initializer leaves one out. Wu & He 2018, eq. 7.
    """
    positive("GroupNorm", "groups", groups)
    eps = above_zero("GroupNorm", "eps", eps)
    return stateless(
        "GroupNorm",
        bind(_init_groups, groups, scale_init, bias_init),
        bind(group_norm_forward, groups, eps),
        bind(group_norm_vjp, groups),
        out_shape=bind(_group_out_shape, groups),
        config={"groups": groups, "eps": eps, "scale_init": scale_init, "bias_init": bias_init},
        build=GroupNorm,
    )


def InstanceNorm(
    *,
    eps: float = 1e-5,
    scale_init: Initializer | None = initializers.ones,
    bias_init: Initializer | None = initializers.zeros,
) -> Layer[Array, Array]:
    """Normalises each channel of each example of `(batch, ..., positions, channels)` over its positions.

    Parameters: `scale` and `bias` (channels,); `None` instead of an initializer leaves one out. No running statistics:
    evaluation computes what training does. Ulyanov, Vedaldi & Lempitsky 2016.
    """
    eps = above_zero("InstanceNorm", "eps", eps)
    return stateless(
        "InstanceNorm",
        bind(_init_groups, None, scale_init, bias_init),
        bind(group_norm_forward, None, eps),
        bind(group_norm_vjp, None),
        out_shape=bind(_group_out_shape, None),
        config={"eps": eps, "scale_init": scale_init, "bias_init": bias_init},
        build=InstanceNorm,
    )


def _init_groups(
    groups: int | None, scale_init: Initializer | None, bias_init: Initializer | None, key: Key, in_shape: Shape
) -> Params:
    return _init(scale_init, bias_init, key, _group_out_shape(groups, in_shape)[-1:])


def _group_who(groups: int | None) -> str:
    return "InstanceNorm" if groups is None else f"GroupNorm({groups})"


def _group_out_shape(groups: int | None, in_shape: Shape) -> Shape:
    who = _group_who(groups)
    channels = feature_shape(who, in_shape)[-1]
    if groups is None and len(in_shape) < 2:
        raise ShapeError(f"{who}: expected an example (..., positions, channels), got {in_shape}")
    if channels % (groups or channels):
        raise ShapeError(f"{who}: expected channels that are a multiple of {groups}, got an example {in_shape}")
    if math.prod(in_shape) == (groups or channels):
        raise _one_number(who, in_shape)
    return in_shape


# --- batch normalisation ---------------------------------------------------------------------------------------------
#
# Train: mean and r of each channel of the whole batch, as above with one example of all positions.
# Eval: mean and r are constants, y = x r s + (b - mean r s), so dx = dy r s.

Batch = tuple[Grouped, bool]


def batch_norm_forward(
    decay: float, eps: float, params: Params, state: State, x: Array, mode: Mode
) -> tuple[Array, State, Batch]:
    """Train: normalises by the statistics of the batch and moves the running ones. Eval: normalises by the latter.

    The cache is that of `group_norm_forward`, and whether mean and r depend on x.
    """
    _check_input("BatchNorm", 2, params, x)
    _check_state(state, x)
    m, channels = math.prod(x.shape[:-1]), x.shape[-1]
    if (training := in_training(mode)) and m < 2:
        raise ShapeError(
            f"BatchNorm: training needs a batch of more than one number per channel, got {x.shape}; "
            "if it is the last of an epoch, batches(..., drop_last=True) leaves it out"
        )
    wide, columns = _wide(x, coupled=True)
    if training:
        y, mean, var, r = _normalise(wide, columns, channels, eps, params)
        state = {
            "mean": _moved(decay, state["mean"], _first(mean, columns)),
            "var": _moved(decay, state["var"], _first(var, columns) * (m / (m - 1))),
        }
        return _unlike(y, x.shape, columns), state, ((wide, mean, r, columns), True)
    mean, var = state["mean"].astype(x.dtype, copy=False), state["var"].astype(x.dtype, copy=False)
    r = 1 / np.sqrt(var + eps)
    factor = r * _scale(params, channels, x.dtype)
    offset = params["bias"] - mean * factor if "bias" in params else -mean * factor
    y = _affine(wide, _spread(factor, columns), _spread(offset, columns), np.empty(wide.shape, x.dtype))
    return _unlike(y, x.shape, columns), state, ((wide, _spread(mean, columns), _spread(r, columns), columns), False)


def batch_norm_vjp(params: Params, cache: Batch, dy: Array) -> tuple[Params, Array]:
    """Train: the derivative through the statistics too. Eval: `dx = dy r s`, and the same `ds` and `db`."""
    (x, mean, r, columns), train = cache
    if train:
        return _normalise_vjp(columns.channels, params, cache[0], dy)
    dys = _like(dy, x, columns)
    d, t = _centre(x, mean, dys)
    dx = _affine(dys, r * _spread(_scale(params, columns.channels, x.dtype), columns), None, d)
    grads = _grads(params, _over_columns(t * r, columns), _over_columns(_column_sums(dys), columns))
    return grads, _unlike(dx, dy.shape, columns)


def _first(means: Array, columns: Columns) -> Array:
    """What is the same for all columns of a channel: `(channels,)`."""
    return means.reshape(columns.copies, columns.channels, -1)[0, :, 0]


def BatchNorm(
    *,
    decay: float = 0.9,
    eps: float = 1e-5,
    scale_init: Initializer | None = initializers.ones,
    bias_init: Initializer | None = initializers.zeros,
) -> Layer[Array, Array]:
    """Gives each channel of `(batch, ..., channels)` mean 0 and variance 1 over the batch; then scale and bias.

    In Train mode by the statistics of the batch (every axis but the last), which must hold more than one number per
    channel; in Eval mode by the running ones, which are the state: `mean` and `var` (channels,), 0 and 1 at the start.
    Each training pass moves them: `new = decay old + (1 - decay) batch`, where the variance of the batch is the
    unbiased one. Parameters: `scale` and `bias` (channels,); `None` instead of an initializer leaves one out.
    Ioffe & Szegedy 2015, algorithms 1 and 2.
    """
    decay = fraction("BatchNorm", "decay", decay)
    eps = above_zero("BatchNorm", "eps", eps)
    return layer(
        "BatchNorm",
        bind(_init_batch, scale_init, bias_init),
        bind(batch_norm_forward, decay, eps),
        batch_norm_vjp,
        out_shape=bind(feature_shape, "BatchNorm"),
        init_state=_init_batch_state,
        config={"decay": decay, "eps": eps, "scale_init": scale_init, "bias_init": bias_init},
        draws=False,
        couples_batch="train",
        build=BatchNorm,
    )


def _moved(decay: float, old: Array, batch: Array) -> Array:
    """The running statistic after this batch, in the dtype it had."""
    return (decay * old + (1 - decay) * batch).astype(old.dtype, copy=False)


def _init_batch(scale_init: Initializer | None, bias_init: Initializer | None, key: Key, in_shape: Shape) -> Params:
    return _init(scale_init, bias_init, key, feature_shape("BatchNorm", in_shape)[-1:])


def _init_batch_state(in_shape: Shape) -> State:
    channels = feature_shape("BatchNorm", in_shape)[-1]
    state: State = tree.read_only({"mean": np.zeros(channels, np.float32), "var": np.ones(channels, np.float32)})
    return state


def _check_state(state: State, x: Array) -> None:
    if "mean" not in state:
        raise ValueError(
            "BatchNorm: no running statistics; after training, net.apply(result.params, x, result.state); "
            "before it, net.init_state(in_shape) makes them"
        )
    if state["mean"].shape != x.shape[-1:]:
        raise ShapeError(f"BatchNorm: expected input (batch, ..., {len(state['mean'])}), got {x.shape}")


# --- what all share --------------------------------------------------------------------------------------------------


def _init(scale_init: Initializer | None, bias_init: Initializer | None, key: Key, shape: Shape) -> Params:
    wanted = {"scale": scale_init, "bias": bias_init}
    return {name: init(key.fold_in(name), shape) for name, init in wanted.items() if init is not None}


def _grads(params: Params, scale: Array, bias: Array) -> Params:
    """The gradients of those parameters that there are."""
    found = {"scale": scale, "bias": bias}
    return {name: found[name].reshape(value.shape) for name, value in params.items()}


def _one_number(who: str, in_shape: Shape) -> ShapeError:
    return ShapeError(
        f"{who}: expected more than one number to take each mean over (the output is the bias otherwise), "
        f"got an example {in_shape}"
    )


def _check_input(who: str, rank: int, params: Params, x: Any) -> None:
    """Raises unless x is a floating-point array of at least this rank whose last axes and dtype are the parameters'."""
    like: Any = next(iter(params.values()), None)
    features = () if like is None else like.shape
    for name, p in params.items():
        if p.shape != features or p.dtype != like.dtype:
            raise ShapeError(f"{who}: expected {name} to be {like.dtype} {features}, got {p.dtype} {p.shape}")
    if getattr(x, "ndim", 0) < rank or x.shape[x.ndim - len(features) :] != features:
        expected = ", ".join(["batch", "...", *map(str, features or ["features"] * (rank - 1))])
        raise input_error(who, f"({expected})", x, x if like is None else like)
    if x.dtype.kind != "f" or (like is not None and x.dtype != like.dtype):
        if like is None:
            raise TypeError(f"{who}: expected floating-point input, got {x.dtype}; use x.astype(np.float32)")
        raise input_error(who, "", x, like)
