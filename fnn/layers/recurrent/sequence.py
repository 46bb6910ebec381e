"""What recurrent layers share: the order of time, the product with the input, lengths, carries, checks, constructors.

Time leads inside. What a step multiplies with weights stands side by side in one array, `hx_t = [h_t x_t 1]`, so that
hidden weight, input weight and bias are one matrix, and so are their gradients. What is left to a kernel are the steps:

    forward(keep, params, hx, start) -> others, kept
    vjp(params, carries, kept, back) -> grads of what only the kernel knows

The first part of the carry, h, is the answer, and its trajectory (time + 1, batch, width) a view of hx: forward finds
its start there and fills in the rest. `start` has the starts of the other parts (LSTM: c), `others` their trajectories;
`kept` are arrays with time leading. Without `keep` nobody asks for more than h and the ends of the others, and their
trajectories may be no more than that.

Vjp is told of a few steps at a time, the last first, as if there were no others; it fills `back.dzs`, the derivatives
with respect to the pre-activations. A kernel that cannot use hx as a whole (GRU: the reset tells h from x) finds the
input's share `x W + b` by `projected`, and gives the gradient of its hidden weight itself.

What makes the steps fast: one product for all gates; few calls, on whole arrays that are contiguous (NumPy is several
times slower on a slice of every row); what leads from the derivative of a carry to that of a pre-activation is known
once forward has run, so vjps work these factors out for many steps at once and leave little to the loop over time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar

import numpy as np

from fnn.check import input_error
from fnn.contract import Layer, stateless
from fnn.initializers import Initializer
from fnn.layers.dense import rows
from fnn.recordable import unexpected
from fnn.random import Key
from fnn.types import Array, Ints, NDArray, Params, Shape, ShapeError, bind

C = TypeVar("C")

Returns: TypeAlias = Literal["sequence", "last"]
Arrays: TypeAlias = tuple[Array, ...]


class Back(NamedTuple):
    """What comes back to a kernel, and where it puts its results; all of it but the weight is its own to write into."""

    dzs: Array
    """(time, batch, gates * features): to be filled."""
    dhs: Array
    """(time, batch, width): what comes back to the answers."""
    dcs: Array | None
    """(time, batch, features): what comes back to c at every step, if anything does."""
    carry: Arrays
    """What comes back to the carry after the last step; to become what comes back to its start."""
    weight: Array
    """The hidden weight transposed, (gates * features, width)."""


class Kernel(NamedTuple):
    """The steps of one kind of layer."""

    forward: Callable[[bool, Params, Array, Arrays], tuple[Arrays, Arrays]]
    vjp: Callable[[Params, Arrays, Arrays, Back], dict[str, Array]]
    joint: bool = True
    """Whether it uses hx as a whole."""


class Options(TypedDict, total=False):
    """The keyword arguments that `RNN`, `GRU` and `LSTM` have in common."""

    reverse: bool
    returns: Returns
    input_init: Initializer
    hidden_init: Initializer
    bias_init: Initializer


class Variant(NamedTuple):
    """What a sequence layer takes and gives."""

    who: str
    widths: tuple[int, ...]
    """The features of every part of the carry; the first part is the answer."""
    kernel: Kernel
    reverse: bool
    last: bool
    lengths: bool
    carry: bool


# --- the order of time: x (batch, time, ...) <-> xs (time, batch, ...), backwards in time if `reverse` ---------------


def to_time(x: Array, reverse: bool, lengths: Ints | None) -> Array:
    """The time-major array: a view of x. With lengths a new one: every example begins at its first step (its last, if
    reversed), and what lies beyond its length is 0, whatever x holds there."""
    if lengths is None:
        return (x[:, ::-1] if reverse else x).swapaxes(0, 1)
    batch, time = x.shape[:2]
    xs: Array = x.reshape(batch * time, *x.shape[2:]).take(_order(lengths, time, reverse) + np.arange(batch) * time, 0)
    return select(valid(lengths, time), xs, xs.dtype.type(0))


def from_time(xs: Array, reverse: bool, lengths: Ints | None) -> Array:
    """The inverse of `to_time` up to the padding, which becomes 0. Each is the derivative of the other."""
    if lengths is None:
        return (xs[::-1] if reverse else xs).swapaxes(0, 1)
    time, batch = xs.shape[:2]
    known = select(valid(lengths, time), xs, xs.dtype.type(0))
    x: Array = known.reshape(time * batch, *xs.shape[2:]).take(
        (_order(lengths, time, reverse) * batch + np.arange(batch)).T, 0
    )
    return x


def valid(lengths: Ints, time: int) -> NDArray[np.bool_]:
    """(time, batch): whether the step belongs to the example."""
    return np.less(np.arange(time)[:, None], lengths)


def select(condition: NDArray[np.bool_], a: Array, b: Any) -> Array:
    """`a` where the condition on its first axes holds, `b` elsewhere."""
    chosen: Array = np.where(condition.reshape(*condition.shape, *(1 for _ in range(a.ndim - condition.ndim))), a, b)
    return chosen


def _order(lengths: Ints, time: int, reverse: bool) -> NDArray[Any]:
    """(time, batch), or (time, 1): which step of the example comes when; its own inverse."""
    steps = np.arange(time)[:, None]
    return np.where(steps < lengths, lengths - 1 - steps, steps) if reverse else steps


def at_end(trajectory: Array, lengths: Ints | None) -> Array:
    """(batch, width): the carry after the last step of every example."""
    batch, width = trajectory.shape[1:]
    final: Array
    if lengths is None:
        final = trajectory[-1].copy()
    else:
        final = trajectory.reshape(-1, width).take(lengths * batch + np.arange(batch), axis=0)
    return final


def at_end_vjp(d: Array, time: int, lengths: Ints | None) -> Array:
    """(time, batch, width): `d` at the last step of every example, 0 elsewhere."""
    if lengths is None:
        ds = np.zeros((time, *d.shape), d.dtype)
        ds[-1] = d
        return ds
    last = np.equal(np.arange(time)[:, None], lengths - 1)
    spread: Array = np.where(last[..., None], d, d.dtype.type(0))
    return spread


# --- weights ---------------------------------------------------------------------------------------------------------


def scaled(weight: Array, scale: tuple[float, ...]) -> Array:
    """A weight (..., gates * features) with every gate multiplied by its scale."""
    return weight * np.repeat(np.array(scale, weight.dtype), weight.shape[-1] // len(scale))


def joint(params: Params) -> Array:
    """`[U; W; b]`, (width + in + 1, gates * features)."""
    return np.concatenate([params["hidden_weight"], params["input_weight"], params["bias"][None]])


LIMIT = 80.0
"""Pre-activations below -LIMIT are taken for it: sigmoids are above 1e-35, and no exponential overflows."""


def sigmoid_of_negative(z: Array, limit: Array, one: Array) -> None:
    """`1 / (1 + exp(z))` in the place of z, with arrays of 1 and of LIMIT in its shape: NumPy takes a minimum with a
    number several times slower. (Without AVX-512 tanh, through which it could go too, takes twice the time of exp.)"""
    np.minimum(z, limit, out=z)
    np.exp(z, out=z)
    z += 1
    np.divide(one, z, out=z)


def projected(params: Params, hx: Array, scale: tuple[float, ...]) -> Array:
    """`x W + b` of all steps, (time, gates, batch, features), every gate multiplied by its scale."""
    time, batch, width, n = len(hx) - 1, hx.shape[1], len(params["hidden_weight"]), len(scale)
    weight = scaled(joint(params)[width:], scale)
    zs = np.empty((time, n, batch, weight.shape[1] // n), hx.dtype)
    for block in blocks(time, batch, weight.shape[1]):
        product = rows(hx[block, :, width:].copy()).dot(weight)
        zs[block] = product.reshape(block.stop - block.start, batch, n, zs.shape[3]).swapaxes(1, 2)
    return zs


def blocks(time: int, batch: int, width: int) -> list[slice]:
    """All steps in slices, the first first: long enough for products, short enough for a second-level cache."""
    batch = max(1, batch)
    return _slices(time, max(1, 512 // batch, 262144 // (batch * width)))


def short_blocks(time: int, batch: int, width: int) -> list[slice]:
    """All steps in slices, the first first: short enough for several arrays of theirs in a second-level cache."""
    return _slices(time, max(1, 32768 // (max(1, batch) * width)))


def _slices(time: int, steps: int) -> list[slice]:
    return [slice(start, min(start + steps, time)) for start in range(0, time, steps)]


def allocate(dtype: np.dtype[Any], *shapes: Shape) -> list[Array]:
    """Arrays to be filled, in one piece of memory: one large piece is handed out again sooner than several, and memory
    that is new to the process costs a page fault every 4 KB."""
    ends = [*accumulate(math.prod(shape) for shape in shapes)]
    memory = np.empty(ends[-1], dtype)
    return [memory[start:end].reshape(shape) for start, end, shape in zip([0, *ends], ends, shapes)]


def each(a: Array, time: int) -> list[Array]:
    """The array of every step: all of them, or, where there is only one, that one every time."""
    return list(a) if len(a) >= time else [a[0]] * time


# --- from a kernel to the functions of a layer -----------------------------------------------------------------------


class Cache(NamedTuple):
    """What is kept between forward and vjp."""

    hx: Array
    others: Arrays
    kept: Arrays
    lengths: Ints | None


def _forward(variant: Variant, keep: bool, params: Params, x: Any) -> tuple[Any, Cache]:
    x, lengths, (first, *start) = _checked(variant, params, x)
    (batch, time, features), width = x.shape, variant.widths[0]
    hx = np.empty((time + 1, batch, width + features + 1), x.dtype)
    hx[:-1, :, width:-1] = to_time(x, variant.reverse, lengths)
    hx[:, :, -1] = 1
    hx[0, :, :width] = first
    others, kept = variant.kernel.forward(keep or lengths is not None, params, hx, tuple(start))
    hs = hx[:, :, :width]
    final = [at_end(part, lengths) for part in (hs, *others)] if variant.carry or variant.last else []
    y = final[0] if variant.last else np.ascontiguousarray(from_time(hs[1:], variant.reverse, lengths))
    return (y, pack(final)) if variant.carry else y, Cache(hx, others, kept, lengths)


def _infer(variant: Variant, params: Params, x: Any) -> Any:
    return _forward(variant, False, params, x)[0]


def _back(
    variant: Variant, inputs: bool, params: Params, cache: Cache, dy: Any
) -> tuple[dict[str, Array], Array, Arrays]:
    """The gradients, dx (computed only if `inputs`) in the order of time, and what comes back to the carry."""
    hx, others, kept, lengths = cache
    time, batch, gates = len(hx) - 1, hx.shape[1], params["bias"].size
    kernel, width, features = variant.kernel, variant.widths[0], len(params["input_weight"])
    carries = (hx[:, :, :width], *others)
    dy, dcarry = (dy[0], unpack(dy[1])) if variant.carry else (dy, ())
    ds = at_end_vjp(dy, time, lengths) if variant.last else to_time(dy, variant.reverse, lengths)
    dcs, end = None, tuple(np.zeros(part[0].shape, part.dtype) for part in carries)
    if lengths is None:
        end = tuple(d.copy() for d in dcarry) or end
    elif dcarry:
        ds = ds + at_end_vjp(dcarry[0], time, lengths)
        dcs = at_end_vjp(dcarry[1], time, lengths) if len(dcarry) > 1 else None
    dx = np.empty((batch, time, features) if inputs else 0, hx.dtype)
    dxs = to_time(dx, variant.reverse, None) if inputs else dx
    weight, back = params["input_weight"].T, params["hidden_weight"].T.copy()
    first, *rest = reversed(blocks(time, batch, gates))
    steps = max(block.stop - block.start for block in (first, *rest))
    dzs, dhs = allocate(hx.dtype, (steps, batch, gates), (steps, batch, width))
    total: dict[str, Array] = {}
    for block in (first, *rest):
        steps = block.stop - block.start
        to_fill, coming = dzs[:steps], dhs[:steps]
        coming[...] = ds[block]
        parts = tuple(part[block.start : block.stop + 1] for part in carries)
        now = Back(to_fill, coming, None if dcs is None else dcs[block], end, back)
        grads = kernel.vjp(params, parts, tuple(a[block] for a in kept), now)
        dz = rows(to_fill)
        grads["joint"] = rows(hx[block] if kernel.joint else hx[block, :, width:].copy()).T.dot(dz)
        if inputs:
            dxs[block] = dz.dot(weight).reshape(steps, batch, features)
        for name in total:
            total[name] += grads[name]
        total = total or grads
    product = total.pop("joint")
    total["input_weight"], total["bias"] = product[-1 - features : -1], product[-1]
    if kernel.joint:
        total["hidden_weight"] = product[:width]
    if inputs and lengths is not None:
        dx = from_time(dxs, variant.reverse, lengths)
    return {name: total[name] for name in params}, dx, end


def _param_vjp(variant: Variant, params: Params, cache: Cache, dy: Any) -> Params:
    return _back(variant, False, params, cache, dy)[0]


def _vjp(variant: Variant, params: Params, cache: Cache, dy: Any) -> tuple[Params, Any]:
    grads, x, carry = _back(variant, True, params, cache, dy)
    dx = x if cache.lengths is None else (x, np.zeros_like(cache.lengths))
    return grads, (dx, pack(carry)) if variant.carry else dx


def pack(parts: Any) -> Any:
    """The carry from its parts: the only one, or the tuple of them."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def unpack(carry: Any) -> tuple[Any, ...]:
    """The parts of the carry."""
    return carry if isinstance(carry, tuple) else (carry,)


def recurrent(
    kind: str,
    features: int,
    widths: tuple[int, ...],
    init: Callable[[Key, Shape], Params],
    kernel: Kernel,
    *,
    reverse: bool,
    returns: Returns,
    lengths: bool,
    carry: bool,
    config: Mapping[str, Any],
    build: Callable[..., Any],
) -> Layer[Any, Any]:
    """The sequence layer of a kernel, with `init(key, in_shape of a step)`."""
    who = f"{kind}({features})"
    if returns not in ("sequence", "last"):
        raise ValueError(f"{who}: expected returns 'sequence' or 'last', got {returns!r}")
    variant = Variant(who, widths, kernel, bool(reverse), returns == "last", bool(lengths), bool(carry))
    return stateless(
        kind,
        bind(_init, variant, init),
        bind(_forward, variant, True),
        bind(_vjp, variant),
        out_shape=bind(_out_shape, variant),
        infer=bind(_infer, variant),
        param_vjp=bind(_param_vjp, variant),
        config={**config, "reverse": reverse, "returns": returns, "lengths": lengths, "carry": carry},
        build=build,
    )


def _init(variant: Variant, init: Callable[[Key, Shape], Params], key: Key, in_shape: Any) -> Params:
    return init(key, _sequence_shape(variant, in_shape)[1:])


def initial_weights(
    gates: str,
    features: int,
    rows: int,
    inits: tuple[Initializer, Initializer, Initializer],
    key: Key,
    in_shape: Shape,
) -> dict[str, Array]:
    """`input_weight`, `hidden_weight` and `bias`, every gate initialised as a matrix (in, features) of its own.

    `rows` are those of a hidden weight; `inits` are for input, hidden and bias.
    """
    shapes = {"input_weight": (in_shape[-1], features), "hidden_weight": (rows, features), "bias": (features,)}
    return {
        name: np.concatenate([init(key.fold_in(name).fold_in(gate), shape) for gate in gates], axis=-1)
        for (name, shape), init in zip(shapes.items(), inits)
    }


# --- checks ----------------------------------------------------------------------------------------------------------


def _sequence_shape(variant: Variant, in_shape: Any) -> Shape:
    """The (time, features) of an announced input."""
    who, shape = variant.who, in_shape
    if variant.carry:
        shape = pair(who, "(x, carry)", in_shape)[0]
        check_carry_shape(who, variant.widths, in_shape[1])
    if variant.lengths:
        shape, lengths = pair(who, "(x, lengths)", shape)
        if lengths != ():
            raise ShapeError(f"{who}: expected the shape () for lengths, an integer an example, got {lengths!r}")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(f"{who}: expected an input shape (time, features), got {shape!r}")
    return shape


def _out_shape(variant: Variant, in_shape: Any) -> Any:
    time, _ = _sequence_shape(variant, in_shape)
    y = variant.widths[:1] if variant.last else (time, variant.widths[0])
    return (y, in_shape[1]) if variant.carry else y


def check_carry_shape(who: str, widths: tuple[int, ...], shape: Any) -> None:
    """Raises `ShapeError` unless `shape` announces a carry of these widths."""
    expected = pack([(width,) for width in widths])
    if shape != expected:
        raise ShapeError(f"{who}: expected a carry of shape {expected}, got {shape!r}")


def check_carry(who: str, widths: tuple[int, ...], batch: int, dtype: np.dtype[Any], carry: Any) -> None:
    """Raises unless `carry` is an array (batch, width), or, for several widths, the tuple of such arrays."""
    expected = pack([(batch, width) for width in widths])
    for part in unpack(carry):
        if not isinstance(part, np.ndarray):
            raise TypeError(f"{who}: expected a carry of arrays of shape {expected}, got {type(part).__name__}")
    got = tuple(part.shape for part in carry) if isinstance(carry, tuple) else carry.shape
    if got != expected:
        raise ShapeError(f"{who}: expected a carry of shape {expected}, got {got}")
    for part in unpack(carry):
        if part.dtype != dtype:
            raise TypeError(f"{who}: the parameters are {dtype}, the carry is {part.dtype}; convert one of them")


def pair(who: str, names: str, value: Any) -> Any:
    """The value if it is a tuple of two; `ShapeError` names what the two should be."""
    if not isinstance(value, tuple) or len(value) != 2:
        got = f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__
        raise ShapeError(f"{who}: expected the input {names}, got {got}")
    return value


def _checked(variant: Variant, params: Params, x: Any) -> tuple[Array, Ints | None, tuple[Any, ...]]:
    """The sequences, their lengths and where the carry starts, taken from the input of the layer."""
    who, weight, widths = variant.who, params["input_weight"], variant.widths
    carry, lengths = None, None
    if variant.carry:
        x, carry = pair(who, "(x, carry)", x)
    if variant.lengths:
        x, lengths = pair(who, "(x, lengths)", x)
    if isinstance(x, tuple):
        raise TypeError(f"{who}: expected an array; (x, lengths) needs lengths=True, (x, carry) carry=True")
    if getattr(x, "ndim", 0) != 3 or x.shape[2] != len(weight) or x.shape[1] < 1 or x.dtype != weight.dtype:
        raise input_error(who, f"(batch, time, {len(weight)})", x, weight)
    if variant.lengths:
        lengths = checked_lengths(who, x, lengths)
    if variant.carry:
        check_carry(who, widths, len(x), weight.dtype, carry)
        return x, lengths, unpack(carry)
    return x, lengths, tuple(0.0 for _ in widths)


def checked_lengths(who: str, x: Array, lengths: Any) -> Ints:
    """The lengths as int64; raises unless they are integers (batch,) from 1 to the time of `x`."""
    if not isinstance(lengths, np.ndarray) or not np.issubdtype(lengths.dtype, np.integer):
        got = lengths.dtype if isinstance(lengths, np.ndarray) else type(lengths).__name__
        raise TypeError(f"{who}: expected an array of integer lengths, got {got}; use np.asarray(lengths, np.int64)")
    batch, time = x.shape[:2]
    if lengths.shape != (batch,):
        raise ShapeError(f"{who}: expected lengths of shape {(batch,)}, got {lengths.shape}")
    if batch and unexpected((lengths < 1).any() | (lengths > time).any()):
        raise ShapeError(
            f"{who}: expected lengths from 1 to {time}, the time of {x.shape}, got {lengths.min()} to {lengths.max()}"
        )
    return lengths.astype(np.int64)


# --- cells -----------------------------------------------------------------------------------------------------------


def cell(
    kind: str,
    features: int,
    widths: tuple[int, ...],
    init: Callable[[Key, Shape], Params],
    forward: Callable[[Params, Array, Any], tuple[tuple[Array, Any], C]],
    vjp: Callable[[Params, C, tuple[Array, Any]], tuple[Params, tuple[Array, Any]]],
    *,
    config: Mapping[str, Any],
    build: Callable[..., Any],
) -> Layer[tuple[Array, Any], tuple[Array, Any]]:
    """The layer of one step, `(x, carry) -> (y, carry)`, with its checks."""
    who = f"{kind}({features})"
    return stateless(
        kind,
        bind(_cell_init, who, widths, init),
        bind(_cell_forward, who, widths, forward),
        vjp,
        out_shape=bind(_cell_out_shape, who, widths),
        config=config,
        build=build,
    )


def _cell_init(
    who: str, widths: tuple[int, ...], init: Callable[[Key, Shape], Params], key: Key, in_shape: Any
) -> Params:
    _cell_out_shape(who, widths, in_shape)
    return init(key, in_shape[0])


def _cell_out_shape(who: str, widths: tuple[int, ...], in_shape: Any) -> Any:
    shape, carry = pair(who, "(x, carry)", in_shape)
    if not isinstance(shape, tuple) or len(shape) != 1 or not isinstance(shape[0], (int, np.integer)):
        raise ShapeError(f"{who}: expected an input shape (features,), got {shape!r}")
    check_carry_shape(who, widths, carry)
    return widths[:1], carry


def _cell_forward(
    who: str,
    widths: tuple[int, ...],
    forward: Callable[[Params, Array, Any], tuple[tuple[Array, Any], C]],
    params: Params,
    inputs: tuple[Array, Any],
) -> tuple[tuple[Array, Any], C]:
    x, carry = pair(who, "(x, carry)", inputs)
    weight = params["input_weight"]
    if getattr(x, "ndim", 0) != 2 or x.shape[1] != len(weight) or x.dtype != weight.dtype:
        raise input_error(who, f"(batch, {len(weight)})", x, weight)
    check_carry(who, widths, len(x), weight.dtype, carry)
    return forward(params, x, carry)
