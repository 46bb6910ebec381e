"""Attention: the pure function `attend` with its derivative, and the layers made of it.

Sequences are `(batch, time, features)`, heads are cut from the last axis. A mask says which query may read which key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from fnn.contract import EVAL, Layer, Mode, in_training, layer
from fnn.initializers import Initializer, glorot_uniform, zeros
from fnn.check import fraction, input_error, positive
from fnn.layers.dense import dense_forward, dense_input_vjp, dense_param_vjp
from fnn.layers.dropout import LEVELS, draw_mask, masked
from fnn.layers.position import rotate, rotate_vjp
from fnn.random import Key
from fnn.types import EMPTY, Array, NDArray, Params, Shape, ShapeError, State, bind, ones

X = TypeVar("X")

Mask: TypeAlias = NDArray[np.bool_] | Array
"""Who may read what: True where attention is allowed, or numbers added to the logits (0 and -inf do the same).

`(batch, queries, keys)`, or `(batch, keys)` for the padding of sequences of unequal length.
"""

# --- attend: softmax(q k') v -----------------------------------------------------------------------------------------
#
#   s = k q' + mask     e = exp(s - max of s over the keys)     r = 1 / sum of e over the keys     P = r e     y = P' v
#
# With D = sum over the width of dy y, which equals the sum over the keys of P dP:
#
#   dv = P dy            dP = v dy'           ds = P (dP - D)           dq = ds' k           dk = ds q
#
# All of it stands keys by queries, the transpose of what papers print: the softmax then reduces over rows, which NumPy
# does faster. The products read the heads where they stand. Work goes in blocks that fit the second-level cache; what
# lies wholly in the future of a causal block is not computed.

BLOCK = 2**17
"""How many logits a block has at most, if it has more than one head."""


class _Block(NamedTuple):
    """Some heads of some examples, and some of their queries with the keys that these may see."""

    queries: tuple[slice, slice, int, slice]
    """Where they stand in (batch, groups, heads of the group, queries, ...)."""
    keys: tuple[slice, slice, slice]
    """Where what they may see stands in (batch, groups, keys, ...)."""
    first: bool
    """Whether it is the first of its examples and groups; it then sees every key."""


def _blocks(q: Array, k: Array, causal: bool) -> Iterator[_Block]:
    batch, groups, repeats, queries, _ = q.shape
    keys, size = k.shape[2], min(queries, 256, max(64, queries // 4))
    matrices = max(1, BLOCK // (keys * size))
    some, few = max(1, matrices // groups), min(groups, matrices)
    for b in range(0, batch, some):
        for g in range(0, groups, few):
            for r in range(repeats):
                for start in reversed(range(0, queries, size)):
                    stop = min(start + size, queries)
                    examples, heads, first = slice(b, b + some), slice(g, g + few), r == 0 and stop == queries
                    seen = slice(0, stop if causal else keys)
                    yield _Block((examples, heads, r, slice(start, stop)), (examples, heads, seen), first)


class _Softmax(NamedTuple):
    """What is known of the weights."""

    causal: bool
    kept: int
    """Out of LEVELS, how many weights dropout keeps; drawn again from `key`."""
    key: Key | None
    top: Array
    """The largest logit of every query: (batch, groups, heads of the group, queries)."""
    scale: Array
    """r, the inverse of the sum of its exponentials."""
    weights: tuple[Array, ...]
    """P of every block; empty where they would take more room than q, k, v and y, and are computed again."""


class Attended(NamedTuple):
    """What `attend` leaves for `attend_vjp`."""

    q: Array
    k: Array
    v: Array
    y: Array
    mask: Mask | None
    softmax: _Softmax


def attend(
    q: Array,
    k: Array,
    v: Array,
    mask: Mask | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> tuple[Array, Attended]:
    """`y = softmax(q k' + mask) v`, the softmax over the keys; the cache is for `attend_vjp`.

    q is (batch, heads, queries, width), k (batch, groups, keys, width), v (batch, groups, keys, any width), y is
    (batch, heads, queries, width of v). Where there are fewer groups than heads, consecutive heads share one (Ainslie
    et al. 2023). The usual factor 1 / sqrt(width) is not applied; it belongs into q (or the weights that made it).
    `causal`: query t sees the keys 0 to t. A query that sees no key at all gets zeros. `dropout` is the chance of every
    weight to be left out, drawn from `key` (as `Dropout` does); the others are divided by what is kept.

    Raises `ShapeError` where the arrays do not fit, `TypeError` where their dtypes differ.
    Vaswani et al. 2017, eq. 1; no more than one block of logits at a time: Rabe & Staats 2021, Dao et al. 2022.
    """
    _check_attend(q, k, v, mask, causal)
    if dropout and key is None:
        raise ValueError("attend: dropout needs a key to draw from")
    y, softmax = _attend(q, k, v, mask, causal, _kept("attend", dropout), key, True)
    return y, Attended(q, k, v, y, mask, softmax)


def _attend(
    q: Array, k: Array, v: Array, mask: Mask | None, causal: bool, kept: int, key: Key | None, keep: bool
) -> tuple[Array, _Softmax]:
    batch, heads, queries, _ = q.shape
    y = np.empty((batch, queries, heads, v.shape[-1]), q.dtype).transpose(0, 2, 1, 3)
    q5, y5 = _grouped(q, k), _grouped(y, k)
    top, scale = np.empty(q5.shape[:-1], q.dtype), np.empty(q5.shape[:-1], q.dtype)
    short = batch * heads * queries * k.shape[2] <= q.size + k.size + v.size + y.size
    bias = None if mask is None else _bias(mask, queries, q.dtype)
    blocks = []
    for i, block in enumerate(_blocks(q5, k, causal)):
        e = _logits(q5, k, bias, causal, block)
        largest = np.maximum.reduce(e, -2)
        if mask is not None:
            np.maximum(largest, np.finfo(e.dtype).min, out=largest)  # a query that sees nothing: exp(-inf - lowest) = 0
        e -= largest[..., None, :]
        np.exp(e, out=e)
        r = ones(e.shape[-2], e.dtype) @ e
        if mask is not None:
            np.maximum(r, 1, out=r)  # at least exp(0), unless nothing is seen
        np.divide(1, r, out=r)
        top[block.queries], scale[block.queries] = largest, r
        if short:
            e *= r[..., None, :]
        if short and keep:
            blocks.append(e)
        if key is not None and kept < LEVELS:
            e = masked(kept, draw_mask(key.fold_in(i), kept, e.shape), e)
        part = y5[block.queries]
        np.matmul(e.swapaxes(-1, -2), v[block.keys], out=part)
        if not short:  # then y is smaller than the weights
            part *= r[..., None]
    return y, _Softmax(causal, kept, key, top, scale, tuple(blocks))


def attend_vjp(
    cache: Attended, dy: Array, out: tuple[Array, Array, Array] | None = None
) -> tuple[Array, Array, Array, Array | None]:
    """`(dq, dk, dv, dmask)`; dmask is None for a boolean mask, or without one.

    The gradients are written into the arrays `out`, if there are any.
    """
    q, k, v, y, mask, (causal, kept, key, top, scale, blocks) = cache
    dq, dk, dv = (np.empty_like(q), np.empty_like(k), np.empty_like(v)) if out is None else out
    q5, y5, dq5, dy5 = _grouped(q, k), _grouped(y, k), _grouped(dq, k), _grouped(dy, k)
    bias = None if mask is None else _bias(mask, q.shape[2], q.dtype)
    dbias, of_keys = None, mask is not None and mask.ndim == 2
    if mask is not None and mask.dtype != bool:
        dbias = np.zeros((len(q), k.shape[2], 1 if of_keys else q.shape[2]), q.dtype)
    for i, block in enumerate(_blocks(q5, k, causal)):
        if blocks:
            p = weights = blocks[i]
        else:
            p = weights = _logits(q5, k, bias, causal, block)
            p -= top[block.queries][..., None, :]
            np.exp(p, out=p)
            p *= scale[block.queries][..., None, :]
        d = dy5[block.queries]
        ds: Array = v[block.keys] @ d.swapaxes(-1, -2)
        if key is not None and kept < LEVELS:
            drawn = draw_mask(key.fold_in(i), kept, p.shape)
            weights, ds = masked(kept, drawn, p), masked(kept, drawn, ds)
        ds -= np.vecdot(d, y5[block.queries])[..., None, :]
        ds *= p
        np.matmul(ds.swapaxes(-1, -2), k[block.keys], out=dq5[block.queries])
        if block.first:
            np.matmul(ds, q5[block.queries], out=dk[block.keys])
            np.matmul(weights, d, out=dv[block.keys])
        else:
            part = dk[block.keys]
            part += ds @ q5[block.queries]
            part = dv[block.keys]
            part += weights @ d
        if dbias is not None:
            part = dbias[block.queries[0], block.keys[2], slice(None) if of_keys else block.queries[3]]
            part += ds.sum((1, 3))[..., None] if of_keys else ds.sum(1)
    if dbias is None:
        return dq, dk, dv, None
    return dq, dk, dv, dbias[..., 0] if of_keys else dbias.swapaxes(-1, -2)


def _kept(who: str, dropout: float) -> int:
    """How many out of LEVELS are kept."""
    return max(1, round(LEVELS * (1 - fraction(who, "dropout", dropout))))


def _logits(q5: Array, k: Array, bias: Array | None, causal: bool, block: _Block) -> Array:
    """`s = k q' + mask` of a block: (examples, groups, keys, queries), a new array."""
    examples, _, _, queries = block.queries
    s: Array = k[block.keys] @ q5[block.queries].swapaxes(-1, -2)
    if causal:
        part = s[:, :, queries]
        part += _triangle(part.shape[-1], s.dtype)
    if bias is not None:
        s += bias[examples, None, block.keys[2], queries]
    return s


@lru_cache(maxsize=64)
def _triangle(n: int, dtype: np.dtype[Any]) -> Array:
    """What is added to the logits of the last n keys and n queries of a block: -inf where the key comes later."""
    steps = np.arange(n)
    triangle = np.where(steps[:, None] > steps, -np.inf, 0).astype(dtype)
    triangle.setflags(write=False)
    return triangle


def _bias(mask: Mask, queries: int, dtype: np.dtype[Any]) -> Array:
    """What a mask adds to the logits: (batch, keys, queries)."""
    bias: NDArray[Any] = np.where(mask, 0, -np.inf).astype(dtype) if mask.dtype == bool else mask
    if mask.ndim == 2:
        return np.broadcast_to(bias[:, :, None], (*mask.shape, queries))
    return bias.swapaxes(-1, -2).copy()


def _grouped(a: Array, k: Array) -> Array:
    """(batch, heads, ...) as (batch, groups, heads of the group, ...), a view."""
    groups = k.shape[1]
    return a.reshape(len(a), groups, a.shape[1] // groups, *a.shape[2:])


def _check_attend(q: Array, k: Array, v: Array, mask: Mask | None, causal: bool) -> None:
    shapes = f"q {np.shape(q)}, k {np.shape(k)}, v {np.shape(v)}"
    if not all(getattr(a, "ndim", 0) == 4 and a.size for a in (q, k, v)):
        raise ShapeError(f"attend: expected arrays (batch, heads, time, width), got {shapes}")
    if not q.dtype == k.dtype == v.dtype or q.dtype.kind != "f":
        raise TypeError(f"attend: expected floating-point arrays of one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if k.shape[:3] != v.shape[:3] or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3] or q.shape[1] % k.shape[1]:
        raise ShapeError(
            "attend: expected q (batch, heads, queries, width), k (batch, groups, keys, width) and "
            f"v (batch, groups, keys, ...), the groups dividing the heads, got {shapes}"
        )
    if causal and q.shape[2] != k.shape[2]:
        raise ShapeError(f"attend: causal attention expects as many queries as keys, got {shapes}")
    if mask is not None:
        _check_mask("attend", mask, (len(q), q.shape[2], k.shape[2]), q.dtype)


def _check_mask(who: str, mask: Mask, shape: Shape, dtype: np.dtype[Any]) -> None:
    batch, queries, keys = shape
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.dtype(bool), dtype):
        got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"{who}: expected a mask of booleans (True: may be read) or of {dtype}, got {got}")
    if mask.shape not in ((batch, keys), shape):
        raise ShapeError(f"{who}: expected a mask of shape {(batch, keys)} or {shape}, got {mask.shape}")


# --- the layers: y = attend(x Wq / sqrt(width), m Wk, m Wv) Wo, each product with its bias, m the memory or x --------


class _Attention(NamedTuple):
    """The hyper-parameters of all layers of this family."""

    who: str
    heads: int
    groups: int
    features: int | None
    causal: bool
    rotary: bool
    kept: int


class _Inputs(NamedTuple):
    """What a layer is given: arrays, their derivatives, or announced shapes."""

    x: Any
    memory: Any = None
    mask: Any = None


class _Cache(NamedTuple):
    inputs: _Inputs
    products: tuple[Array, ...]
    """What q, k and v are cut from."""
    y: Array
    """What the heads give, side by side."""
    softmax: _Softmax


def _run(spec: _Attention, params: Params, inputs: _Inputs, mode: Mode, keep: bool) -> tuple[Array, _Cache]:
    """The output, and what the derivative needs (with the exponentials, if `keep`)."""
    _check_arrays(spec, params, inputs)
    sources = _sources(inputs)
    products = tuple(dense_forward(_joined(spec, params, names), a)[0] for a, names in sources)
    q, k, v = _cut(spec, params, sources, products)
    if spec.rotary:
        q[...], k[...] = rotate(q), rotate(k)
    key = mode.key if in_training(mode) else None
    heads, softmax = _attend(q, k, v, inputs.mask, spec.causal, spec.kept, key, keep)
    y = _merged(heads)
    return dense_forward(params["output"], y)[0], _Cache(inputs, products, y, softmax)


def _pull(spec: _Attention, params: Params, cache: _Cache, dy: Array) -> tuple[tuple[Array, ...], Array | None]:
    """The derivatives with respect to the products that `_run` has cut into q, k and v, and to a mask of numbers."""
    inputs, products, y, softmax = cache
    sources = _sources(inputs)
    dproducts = tuple(np.empty_like(product) for product in products)
    dq, dk, dv = _cut(spec, params, sources, dproducts)
    attended = Attended(*_cut(spec, params, sources, products), _split(y, spec.heads), inputs.mask, softmax)
    dheads = _split(dense_input_vjp(params["output"], y, dy), spec.heads)
    dmask = attend_vjp(attended, dheads, (dq, dk, dv))[-1]
    if spec.rotary:
        dq[...], dk[...] = rotate_vjp(dq), rotate_vjp(dk)
    return dproducts, dmask


def _grads(spec: _Attention, params: Params, cache: _Cache, dy: Array, dproducts: tuple[Array, ...]) -> Params:
    """The gradients: columns of those of the joined products, and those of the output."""
    grads: dict[str, Params] = dict.fromkeys(params, EMPTY)  # in the order of the parameters
    for (a, names), dproduct in zip(_sources(cache.inputs), dproducts):
        joined = dense_param_vjp(params[names[0]], a, dproduct)
        stop = 0
        for name in names:
            start, stop = stop, stop + params[name]["weight"].shape[1]
            grads[name] = {part: array[..., start:stop] for part, array in joined.items()}
            if name == "query":
                for array in grads[name].values():
                    array *= _scale(spec, params)
    grads["output"] = dense_param_vjp(params["output"], cache.y, dy)
    return grads


def _input_grads(
    spec: _Attention, params: Params, cache: _Cache, dproducts: tuple[Array, ...], dmask: Array | None
) -> _Inputs:
    """The derivatives with respect to the inputs; 0 for a boolean mask."""
    x, memory, mask = cache.inputs
    sources = zip(_sources(cache.inputs), dproducts)
    d = [dense_input_vjp(_joined(spec, params, names), a, dproduct) for (a, names), dproduct in sources]
    if mask is not None and dmask is None:
        dmask = np.zeros(mask.shape, x.dtype)
    return _Inputs(d[0], None if memory is None else d[1], dmask)


Sources: TypeAlias = tuple[tuple[Array, tuple[str, ...]], ...]


def _sources(inputs: _Inputs) -> Sources:
    """What is projected from what. The projections of one array are computed in one product."""
    x, memory, _ = inputs
    if memory is None:
        return ((x, ("query", "key", "value")),)
    return (x, ("query",)), (memory, ("key", "value"))


def _joined(spec: _Attention, params: Params, names: tuple[str, ...]) -> Params:
    """Several projections as one, side by side, with the factor 1 / sqrt(width) of the logits in those of the query."""
    joined: Params = {part: np.concatenate([params[name][part] for name in names], -1) for part in params[names[0]]}
    if names[0] == "query":
        width = params["query"]["weight"].shape[1]
        for array in joined.values():
            array[..., :width] *= _scale(spec, params)
    return joined


def _scale(spec: _Attention, params: Params) -> float:
    return 1 / math.sqrt(params["query"]["weight"].shape[1] // spec.heads)


def _cut(spec: _Attention, params: Params, sources: Sources, products: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """The heads of query, key and value, as views of the joined products."""
    heads = []
    for (_, names), product in zip(sources, products):
        stop = 0
        for name in names:
            start, stop = stop, stop + params[name]["weight"].shape[1]
            heads.append(_split(product[..., start:stop], spec.heads if name == "query" else spec.groups))
    q, k, v = heads
    return q, k, v


def _split(a: Array, heads: int) -> Array:
    """(batch, time, heads * width) as (batch, heads, time, width), a view."""
    return a.reshape(*a.shape[:2], heads, a.shape[2] // heads).transpose(0, 2, 1, 3)


def _merged(a: Array) -> Array:
    """(batch, heads, time, width) as (batch, time, heads * width), a view of what `attend` gives."""
    return a.transpose(0, 2, 1, 3).reshape(len(a), a.shape[2], a.shape[1] * a.shape[3])


# --- from inputs of each kind to a layer -----------------------------------------------------------------------------


def _forward(
    unpack: Callable[[str, X], _Inputs], spec: _Attention, params: Params, state: State, x: X, mode: Mode
) -> tuple[Array, State, _Cache]:
    y, cache = _run(spec, params, unpack(spec.who, x), mode, True)
    return y, state, cache


def _infer(unpack: Callable[[str, X], _Inputs], spec: _Attention, params: Params, state: State, x: X) -> Array:
    return _run(spec, params, unpack(spec.who, x), EVAL, False)[0]


def _vjp(pack: Callable[[_Inputs], X], spec: _Attention, params: Params, cache: _Cache, dy: Array) -> tuple[Params, X]:
    dproducts, dmask = _pull(spec, params, cache, dy)
    return _grads(spec, params, cache, dy, dproducts), pack(_input_grads(spec, params, cache, dproducts, dmask))


def _param_vjp(spec: _Attention, params: Params, cache: _Cache, dy: Array) -> Params:
    return _grads(spec, params, cache, dy, _pull(spec, params, cache, dy)[0])


def _input_vjp(pack: Callable[[_Inputs], X], spec: _Attention, params: Params, cache: _Cache, dy: Array) -> X:
    return pack(_input_grads(spec, params, cache, *_pull(spec, params, cache, dy)))


def _self(who: str, x: Array) -> _Inputs:
    return _Inputs(x)


def _self_back(d: _Inputs) -> Array:
    dx: Array = d.x
    return dx


def _masked(who: str, inputs: tuple[Array, Mask]) -> _Inputs:
    x, mask = _several(who, ("x", "mask"), inputs)
    return _Inputs(x, mask=mask)


def _masked_back(d: _Inputs) -> tuple[Array, Mask]:
    return d.x, d.mask


def _cross(who: str, inputs: tuple[Array, Array]) -> _Inputs:
    return _Inputs(*_several(who, ("x", "memory"), inputs))


def _cross_back(d: _Inputs) -> tuple[Array, Array]:
    return d.x, d.memory


def _masked_cross(who: str, inputs: tuple[Array, Array, Mask]) -> _Inputs:
    return _Inputs(*_several(who, ("x", "memory", "mask"), inputs))


def _masked_cross_back(d: _Inputs) -> tuple[Array, Array, Mask]:
    return d.x, d.memory, d.mask


def _several(who: str, names: tuple[str, ...], x: Any) -> tuple[Any, ...]:
    if not isinstance(x, tuple) or len(x) != len(names):
        got = f"{len(x)}" if isinstance(x, tuple) else "an array" if isinstance(x, np.ndarray) else repr(x)
        raise ShapeError(f"{who}: expected input ({', '.join(names)}), a tuple of {len(names)}, got {got}")
    return x


# --- what fits -------------------------------------------------------------------------------------------------------


def _check_arrays(spec: _Attention, params: Params, inputs: _Inputs) -> None:
    x, memory, mask = inputs
    memory = x if memory is None else memory
    for who, a, weight in (
        (spec.who, x, params["query"]["weight"]),
        (f"{spec.who}, memory", memory, params["key"]["weight"]),
    ):
        features = weight.shape[0]
        if getattr(a, "ndim", 0) != 3 or a.shape[2] != features or not a.shape[1] or a.dtype != weight.dtype:
            raise input_error(who, f"(batch, time, {features})", a, weight)
    if not params["query"].keys() == params["key"].keys() == params["value"].keys():
        raise ValueError(f"{spec.who}: expected query, key and value with a bias each, or none; zeros stand for none")
    if len(memory) != len(x):
        raise ShapeError(f"{spec.who}: expected equal batches, got x {x.shape} and memory {memory.shape}")
    if mask is not None:
        _check_mask(spec.who, mask, (len(x), x.shape[1], memory.shape[1]), x.dtype)


def _out_shape(unpack: Callable[[str, Any], _Inputs], spec: _Attention, in_shape: Any) -> Shape:
    x, memory, mask = unpack(spec.who, in_shape)
    for a in (x, memory or x):
        if not isinstance(a, tuple) or len(a) != 2 or not all(isinstance(n, (int, np.integer)) for n in a):
            raise ShapeError(f"{spec.who}: expected input shapes (time, features), got {in_shape!r}")
    if spec.features is None and x[1] % spec.heads:
        raise ShapeError(
            f"{spec.who}: expected input (time, features), the features divisible by {spec.heads} heads, got {x}; "
            f"or give the width of all heads together: features={spec.heads * max(1, x[1] // spec.heads)}"
        )
    if spec.rotary and (spec.features or x[1]) // spec.heads % 2:
        raise ShapeError(
            f"{spec.who}: rotary positions need heads of an even width, got {x[1]} features for {spec.heads} heads"
        )
    keys = (memory or x)[0]
    if mask is not None and mask not in ((keys,), (x[0], keys)):
        raise ShapeError(f"{spec.who}: expected a mask of shape {(keys,)} or {(x[0], keys)}, got {mask}")
    shape: Shape = x
    return shape


# --- constructors ----------------------------------------------------------------------------------------------------


def MultiHeadAttention(
    heads: int,
    *,
    features: int | None = None,
    key_value_heads: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    dropout: float = 0.0,
    weight_init: Initializer = glorot_uniform(),
    bias_init: Initializer | None = zeros,
) -> Layer[Array, Array]:
    """Self attention: every step of a sequence reads all of them, `(batch, time, in) -> (batch, time, in)`.

    `y = concat_h(softmax(q_h k_h' / sqrt(width)) v_h) Wo + bo` with `q = x Wq + bq`, `k = x Wk + bk`, `v = x Wv + bv`,
    each cut into heads of one width. Vaswani et al. 2017, sections 3.2.1 and 3.2.2.

    - `features`: the width of all heads together; by default that of the input, which the heads must then divide.
    - `key_value_heads`: so many heads of keys and values, each shared by `heads / key_value_heads` consecutive heads
      (grouped queries, Ainslie et al. 2023; with 1, Shazeer 2019). By default as many as heads.
    - `causal`: step t reads the steps 0 to t only.
    - `rotary`: queries and keys are turned by angles that grow with their positions, so that products see distances
      (Su et al. 2021; see `rotate`). The heads must have an even width.
    - `dropout`: the chance of every attention weight to be left out in training; the others are divided by what is
      kept.
    - `bias_init=None` leaves all biases out.

    Parameters: `query`, `key`, `value` and `output`, each with `weight` (in, out) and `bias`, as of `Dense` layers.
    Memory grows linearly with the length: long sequences are worked through in blocks, twice.
    """
    config = {"heads": heads, "features": features, "key_value_heads": key_value_heads}
    config |= {"causal": causal, "rotary": rotary}
    return _attention(MultiHeadAttention, _self, _self_back, config, dropout, weight_init, bias_init)


def MaskedAttention(
    heads: int,
    *,
    features: int | None = None,
    key_value_heads: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    dropout: float = 0.0,
    weight_init: Initializer = glorot_uniform(),
    bias_init: Initializer | None = zeros,
) -> Layer[tuple[Array, Mask], Array]:
    """`MultiHeadAttention` with a mask that comes with the data: the input is `(x, mask)`.

    The mask is (batch, time), which steps may be read, or (batch, time, time), which step (second axis) may read which
    (third axis): True where it may, or numbers that are added to the logits. A step that may read nothing gets the bias
    of the output. The derivative with respect to a boolean mask is 0.
    """
    config = {"heads": heads, "features": features, "key_value_heads": key_value_heads}
    config |= {"causal": causal, "rotary": rotary}
    return _attention(MaskedAttention, _masked, _masked_back, config, dropout, weight_init, bias_init)


def CrossAttention(
    heads: int,
    *,
    features: int | None = None,
    key_value_heads: int | None = None,
    dropout: float = 0.0,
    weight_init: Initializer = glorot_uniform(),
    bias_init: Initializer | None = zeros,
) -> Layer[tuple[Array, Array], Array]:
    """Attention from one sequence to another: of `(x, memory)`, x makes the queries, memory the keys and values.

    `(batch, time, in)` and `(batch, steps, any) -> (batch, time, in)`. Otherwise as `MultiHeadAttention`.
    """
    config = {"heads": heads, "features": features, "key_value_heads": key_value_heads}
    return _attention(CrossAttention, _cross, _cross_back, config, dropout, weight_init, bias_init)


def MaskedCrossAttention(
    heads: int,
    *,
    features: int | None = None,
    key_value_heads: int | None = None,
    dropout: float = 0.0,
    weight_init: Initializer = glorot_uniform(),
    bias_init: Initializer | None = zeros,
) -> Layer[tuple[Array, Array, Mask], Array]:
    """`CrossAttention` with a mask that comes with the data: the input is `(x, memory, mask)`.

    The mask is (batch, steps) or (batch, time, steps), of the kinds that `MaskedAttention` takes.
    """
    config = {"heads": heads, "features": features, "key_value_heads": key_value_heads}
    return _attention(MaskedCrossAttention, _masked_cross, _masked_cross_back, config, dropout, weight_init, bias_init)


def _attention(
    build: Callable[..., Any],
    unpack: Callable[[str, X], _Inputs],
    pack: Callable[[_Inputs], X],
    config: Mapping[str, Any],
    dropout: float,
    weight_init: Initializer,
    bias_init: Initializer | None,
) -> Layer[X, Array]:
    kind, heads, features, groups = build.__name__, config["heads"], config["features"], config["key_value_heads"]
    positive(kind, "heads", heads)
    if groups is not None and heads % positive(kind, "key_value_heads", groups):
        raise ValueError(f"{kind}: expected key_value_heads to divide the {heads} heads, got {groups}")
    if features is not None and positive(kind, "features", features) % heads:
        raise ValueError(f"{kind}: expected features divisible by {heads} heads, got {features}")
    causal, rotary = config.get("causal", False), config.get("rotary", False)
    if rotary and features is not None and features // heads % 2:
        raise ValueError(f"{kind}: rotary positions need heads of an even width, got {features} features for {heads}")
    kept = _kept(kind, dropout)
    spec = _Attention(f"{kind}({heads})", heads, groups or heads, features, causal, rotary, kept)
    return layer(
        kind,
        bind(_init, unpack, spec, weight_init, bias_init),
        bind(_forward, unpack, spec),
        bind(_vjp, pack, spec),
        out_shape=bind(_out_shape, unpack, spec),
        infer=bind(_infer, unpack, spec),
        param_vjp=bind(_param_vjp, spec),
        input_vjp=bind(_input_vjp, pack, spec),
        draws=kept < LEVELS,
        config={**config, "dropout": dropout, "weight_init": weight_init, "bias_init": bias_init},
        build=build,
    )


def _init(
    unpack: Callable[[str, Any], _Inputs],
    spec: _Attention,
    weight_init: Initializer,
    bias_init: Initializer | None,
    key: Key,
    in_shape: Any,
) -> Params:
    _out_shape(unpack, spec, in_shape)
    x, memory, _ = unpack(spec.who, in_shape)
    inner = spec.features or x[1]
    shared = inner // spec.heads * spec.groups
    other = (memory or x)[1]
    sizes = {"query": (x[1], inner), "key": (other, shared), "value": (other, shared), "output": (inner, x[1])}
    params = {}
    for name, size in sizes.items():
        params[name] = {"weight": weight_init(key.fold_in(name).fold_in("weight"), size)}
        if bias_init is not None:
            params[name]["bias"] = bias_init(key.fold_in(name).fold_in("bias"), size[1:])
    return params
