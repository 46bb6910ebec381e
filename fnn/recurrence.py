"""Combinators of recurrence: `scan` repeats a cell over time, `stack` puts layers with carries one upon the other,
`Bidirectional` lets two layers read a sequence from both ends, `carried` goes on from batch to batch; `carry_shape` and
`zero_carry` say where carries start.

A cell is any layer `(x, carry) -> (y, carry)` of one step; with all steps at once it has the same form.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar, overload

import attrs
import numpy as np

from fnn import tree
from fnn.check import positive
from fnn.combinators.core import (
    AnyLayer,
    Back,
    Children,
    Forward,
    InputBack,
    ParamBack,
    Step,
    backs_of,
    check_layer,
    combinator,
    infer_child,
    name_children,
    out_shape,
    pull,
    pull_params,
    run,
    step_of,
    with_entries,
)
from fnn.combinators.parameters import SpectralNorm, without
from fnn.contract import Layer, Mode, Train, evaluator, in_training, inputs_vjp, params_vjp
from fnn.layers.recurrent.sequence import checked_lengths, from_time, pair, select, to_time
from fnn.random import Key
from fnn.types import Array, DTypeLike, Ints, Params, Shape, ShapeError, State, bind

X = TypeVar("X")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

# --- scan: y_t, c_t = cell(x_t, c_{t-1}) -----------------------------------------------------------------------------


class _Scan(NamedTuple):
    reverse: bool
    lengths: bool


@overload
def scan(
    cell: Layer[tuple[Array, C], tuple[Array, C]], *, reverse: bool = False, lengths: Literal[False] = False
) -> Layer[tuple[Array, C], tuple[Array, C]]: ...
@overload
def scan(
    cell: Layer[tuple[Array, C], tuple[Array, C]], *, reverse: bool = False, lengths: Literal[True]
) -> Layer[tuple[tuple[Array, Ints], C], tuple[Array, C]]: ...
def scan(
    cell: Layer[tuple[Array, C], tuple[Array, C]], *, reverse: bool = False, lengths: bool = False
) -> Layer[Any, Any]:
    """The cell at every step of time: `(x, c_0) -> (y, c_T)` with `y_t, c_t = cell(x_t, c_{t-1})`.

    x is (batch, time, ...), y (batch, time, ...); the carry is whatever array, or tuples of arrays, (batch, ...) the
    cell takes and gives. All steps share one set of parameters, whose gradient is the sum over the steps. Running
    statistics pass from step to step like a second carry; step t draws from the key folded with t.

    `reverse=True` runs from the last step to the first; y stays in the order of x. `lengths=True` takes
    `((x, lengths), carry)`, lengths (batch,) integers from 1 to time: beyond its length an example's carry stands
    still, y is 0, and what x holds is ignored (the cell sees 0).

    Raises `ShapeError` if the cell changes the shape of its carry.
    """
    check_layer("scan", cell)
    ((name, child),) = name_children("scan", (cell,))
    options = _Scan(bool(reverse), bool(lengths))
    if _holds(cell, SpectralNorm):
        raise ValueError(
            f"scan: the weights of {cell!r} would differ from step to step, since SpectralNorm moves its vectors in "
            "every pass; write SpectralNorm(scan(cell)), which moves them once"
        )
    return combinator(
        "scan",
        ((name, child),),
        bind(_scan_shapes, options, name, child),
        bind(_scan_forward, options, step_of(name, child)),
        bind(_scan_vjp, options, (name, child.vjp)),
        infer=bind(_scan_infer, options, (name, evaluator(child))),
        config={"cell": cell, "reverse": reverse, "lengths": lengths},
        build=scan,
    )


def _holds(layer: AnyLayer, build: Any) -> bool:
    """Whether the layer is, or has within it, one that this function made."""
    within = [layer.config.get("layer"), *(child for _, child in layer.children)]
    return layer.build is build or any(isinstance(part, Layer) and _holds(part, build) for part in within)


def _scan_shapes(scan: _Scan, name: str, cell: AnyLayer, in_shape: Any) -> tuple[list[Any], Any]:
    shape, carry = pair("scan", "(x, carry)", in_shape)
    if scan.lengths:
        shape, lengths = pair("scan", "((x, lengths), carry)", shape)
        if lengths != ():
            raise ShapeError(f"scan: expected the shape () for lengths, an integer an example, got {lengths!r}")
    if not isinstance(shape, tuple) or not shape or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(f"scan: expected an input shape (time, ...), got {shape!r}")
    step = shape[1:], carry
    y, after = pair(f"scan: the output of {cell!r}", "(y, carry)", out_shape(name, cell, step))
    if after != carry:
        raise ShapeError(f"scan: expected {cell!r} to keep the shape of its carry, {carry}, got {after}")
    return [step], ((shape[0], *y), carry)


def _scan_inputs(scan: _Scan, inputs: Any) -> tuple[Array, Ints | None, Any]:
    """Time-major x, the lengths and the first carry."""
    x, carry = pair("scan", "(x, carry)", inputs)
    lengths = None
    if scan.lengths:
        x, lengths = pair("scan", "((x, lengths), carry)", x)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"scan: expected an array, got {type(x).__name__}; use np.asarray(x, np.float32)")
    if x.ndim < 2 or x.shape[1] < 1:
        raise ShapeError(f"scan: expected input (batch, time, ...), got {x.shape}")
    if scan.lengths:
        lengths = checked_lengths("scan", x, lengths)
    return np.ascontiguousarray(to_time(x, scan.reverse, lengths)), lengths, carry


def _scan_forward(
    scan: _Scan, step: Step, params: Params, state: State, inputs: Any, mode: Mode
) -> tuple[tuple[Array, Any], State, tuple[tuple[Any, ...], Ints | None]]:
    xs, lengths, carry = _scan_inputs(scan, inputs)
    ys, caches = [], []
    for t, x in enumerate(xs):
        changed: dict[str, State] = {}
        step_mode = Train(mode.key.fold_in(t)) if in_training(mode) else mode
        (y, after), cache = run(step, params, state, changed, (x, carry), step_mode)
        state = with_entries(state, changed)
        carry = after if lengths is None else tree.map(bind(select, t < lengths), after, carry)
        ys.append(y)
        caches.append(cache)
    return (_in_time(ys, scan, lengths), carry), state, (tuple(caches), lengths)


def _scan_vjp(
    scan: _Scan, back: Back, params: Params, cache: tuple[tuple[Any, ...], Ints | None], dy: tuple[Array, Any]
) -> tuple[Params, Any]:
    """From the last step to the first: `dx_t, dc_{t-1} = vjp(dy_t, dc_t)`; the steps' gradients are summed."""
    (caches, lengths), dys, dcarry = cache, to_time(dy[0], scan.reverse, cache[1]), dy[1]
    dxs: list[Array] = []
    total: dict[str, Any] = {}
    for t in range(len(caches) - 1, -1, -1):
        grads: dict[str, Any] = {}
        if lengths is None:
            dx, dcarry = pull(back, params, grads, caches[t], (dys[t], dcarry))
        else:
            into, past = (tree.map(bind(_or_zero, there), dcarry) for there in (t < lengths, t >= lengths))
            dx, dcarry = pull(back, params, grads, caches[t], (dys[t], into))
            dcarry = tree.map(np.add, dcarry, past)
        dxs.append(dx)
        total = tree.map(np.add, total, grads) if total else grads
    dx = _in_time(dxs[::-1], scan, lengths)
    return total, (dx if lengths is None else (dx, np.zeros_like(lengths)), dcarry)


def _scan_infer(scan: _Scan, infer: InputBack, params: Params, state: State, inputs: Any) -> tuple[Array, Any]:
    xs, lengths, carry = _scan_inputs(scan, inputs)
    ys = []
    for t, x in enumerate(xs):
        y, after = infer_child(infer, params, state, (x, carry))
        carry = after if lengths is None else tree.map(bind(select, t < lengths), after, carry)
        ys.append(y)
    return _in_time(ys, scan, lengths), carry


def _in_time(parts: list[Array], scan: _Scan, lengths: Ints | None) -> Array:
    """The steps, in the order they were run, as one array (batch, time, ...)."""
    return np.ascontiguousarray(from_time(np.stack(parts), scan.reverse, lengths))


def _or_zero(condition: Any, a: Array) -> Array:
    return select(condition, a, a.dtype.type(0))


# --- stack: the answer of one is the input of the next, every layer keeps a carry of its own --------------------------


@overload
def stack(a: Layer[tuple[X, C], tuple[A, C]], /) -> Layer[tuple[X, tuple[C]], tuple[A, tuple[C]]]: ...
@overload
def stack(
    a: Layer[tuple[X, C], tuple[A, C]], b: Layer[tuple[A, D], tuple[B, D]], /
) -> Layer[tuple[X, tuple[C, D]], tuple[B, tuple[C, D]]]: ...
@overload
def stack(
    a: Layer[tuple[X, C], tuple[Array, C]],
    b: Layer[tuple[Array, D], tuple[Array, D]],
    c: Layer[tuple[Array, E], tuple[A, E]],
    /,
) -> Layer[tuple[X, tuple[C, D, E]], tuple[A, tuple[C, D, E]]]: ...
@overload
def stack(
    a: Layer[tuple[X, C], tuple[Array, C]],
    b: Layer[tuple[Array, D], tuple[Array, D]],
    c: Layer[tuple[Array, E], tuple[Array, E]],
    d: Layer[tuple[Array, F], tuple[A, F]],
    /,
) -> Layer[tuple[X, tuple[C, D, E, F]], tuple[A, tuple[C, D, E, F]]]: ...
def stack(*layers: AnyLayer) -> AnyLayer:
    """Layers with carries one upon the other: `(x, (c_1, ..., c_n)) -> (y, (c_1', ..., c_n'))`.

    y_k, c_k' = layer_k(y_{k-1}, c_k) with y_0 = x. It takes cells (the result is a cell) as well as layers over all
    steps. Children are named as in `serial`.
    """
    children = name_children("stack", layers)
    if not children:
        raise ValueError("stack: expected at least one layer")
    vjps, param_vjps, _ = backs_of(children)
    return combinator(
        "stack",
        children,
        bind(_stack_shapes, children),
        bind(_stack_forward, tuple(step_of(name, layer) for name, layer in children)),
        bind(_stack_vjp, vjps),
        infer=bind(_stack_infer, tuple((name, evaluator(layer)) for name, layer in children)),
        param_vjp=bind(_stack_param_vjp, vjps, param_vjps[0]),
        config={"layers": layers},
        build=stack,
    )


def _stack_shapes(children: Children, in_shape: Any) -> tuple[list[Any], Any]:
    y, carries = _with_carries("stack", len(children), in_shape)
    shapes, after = [], []
    for (name, layer), carry in zip(children, carries):
        shapes.append((y, carry))
        y, carry = pair(f"stack: the output of {layer!r}", "(y, carry)", out_shape(name, layer, (y, carry)))
        after.append(carry)
    return shapes, (y, tuple(after))


def _stack_forward(
    steps: tuple[Step, ...], params: Params, state: State, x: Any, mode: Mode
) -> tuple[tuple[Any, Any], State, tuple[Any, ...]]:
    y, carries = _with_carries("stack", len(steps), x)
    changed: dict[str, State] = {}
    after, caches = [], []
    for step, carry in zip(steps, carries):
        (y, carry), cache = run(step, params, state, changed, (y, carry), mode)
        after.append(carry)
        caches.append(cache)
    return (y, tuple(after)), with_entries(state, changed), tuple(caches)


def _stack_vjp(
    backs: tuple[Back, ...], params: Params, cache: tuple[Any, ...], dy: tuple[Any, Any]
) -> tuple[Params, tuple[Any, Any]]:
    dx, dcarries = dy
    grads: dict[str, Any] = dict.fromkeys(params)
    before = []
    for back, kept, dcarry in zip(backs[::-1], cache[::-1], dcarries[::-1]):
        dx, dcarry = pull(back, params, grads, kept, (dx, dcarry))
        before.append(dcarry)
    return grads, (dx, tuple(before[::-1]))


def _stack_param_vjp(
    backs: tuple[Back, ...], first: ParamBack, params: Params, cache: tuple[Any, ...], dy: tuple[Any, Any]
) -> Params:
    """As `_stack_vjp`, but the first layer computes no dx."""
    dx, dcarries = dy
    grads, (dx, _) = _stack_vjp(backs[1:], params, cache[1:], (dx, dcarries[1:]))
    grads = dict(grads)
    pull_params(first, params, grads, cache[0], (dx, dcarries[0]))
    return grads


def _stack_infer(infers: tuple[InputBack, ...], params: Params, state: State, x: Any) -> tuple[Any, Any]:
    y, carries = _with_carries("stack", len(infers), x)
    after = []
    for infer, carry in zip(infers, carries):
        y, carry = infer_child(infer, params, state, (y, carry))
        after.append(carry)
    return y, tuple(after)


def _with_carries(who: str, n: int, inputs: Any) -> tuple[Any, tuple[Any, ...]]:
    """An input and the carries that come with it, one for every layer."""
    x, carries = pair(who, "(x, carries)", inputs)
    if not isinstance(carries, tuple) or len(carries) != n:
        got = f"a tuple of {len(carries)}" if isinstance(carries, tuple) else type(carries).__name__
        raise ShapeError(f"{who}: expected a tuple of {n} carries, one for every layer, got {got}")
    return x, carries


# --- Bidirectional: y_t = [forward_t | backward_t] -------------------------------------------------------------------


@overload
def Bidirectional(
    forward_layer: Layer[X, Array], backward_layer: Layer[X, Array], *, carry: Literal[False] = False
) -> Layer[X, Array]: ...
@overload
def Bidirectional(
    forward_layer: Layer[tuple[X, C], tuple[Array, C]],
    backward_layer: Layer[tuple[X, D], tuple[Array, D]],
    *,
    carry: Literal[True],
) -> Layer[tuple[X, tuple[C, D]], tuple[Array, tuple[C, D]]]: ...
def Bidirectional(forward_layer: AnyLayer, backward_layer: AnyLayer, *, carry: bool = False) -> AnyLayer:
    """Two layers read the same input, and their features stand side by side: `y = [forward(x) | backward(x)]`.

    Schuster & Paliwal 1997. The second is one that runs backwards: `Bidirectional(GRU(8), GRU(8, reverse=True))`; both
    take x, or both `(x, lengths)`. Parameters: `forward/...` and `backward/...`. `carry=True` is for two layers with
    carries: `(x, (c_forward, c_backward)) -> (y, (c_forward', c_backward'))`.
    """
    for name, layer, reverse in (("forward", forward_layer, False), ("backward", backward_layer, True)):
        check_layer("Bidirectional", layer)
        options = _bare(layer).config
        if options.get("reverse", reverse) is not reverse:
            raise ValueError(f"Bidirectional: expected a {name}_layer with reverse={reverse}, got {layer!r}")
        if options.get("carry", carry) is not carry:
            raise ValueError(f"Bidirectional(carry={carry}): expected a {name}_layer with carry={carry}, got {layer!r}")
    children = (("forward", forward_layer), ("backward", backward_layer))
    vjps, param_vjps, _ = backs_of(children)
    return combinator(
        "Bidirectional",
        children,
        bind(_bidirectional_shapes, children, carry),
        bind(_bidirectional_forward, tuple(step_of(*child) for child in children), carry),
        bind(_bidirectional_vjp, vjps, carry),
        infer=bind(_bidirectional_infer, tuple((name, evaluator(layer)) for name, layer in children), carry),
        param_vjp=bind(_bidirectional_param_vjp, param_vjps, carry),
        config={"forward_layer": forward_layer, "backward_layer": backward_layer, "carry": carry},
        build=Bidirectional,
    )


def _both(carry: bool, x: Any) -> tuple[Any, Any]:
    """The inputs of the two layers."""
    if not carry:
        return x, x
    x, (c, d) = _with_carries("Bidirectional", 2, x)
    return (x, c), (x, d)


def _joined(carry: bool, a: Any, b: Any) -> Any:
    """The output from those of the two layers."""
    if not carry:
        return np.concatenate([a, b], axis=-1)
    return np.concatenate([a[0], b[0]], axis=-1), (a[1], b[1])


def _parted(carry: bool, width: int, dy: Any) -> tuple[Any, Any]:
    """What comes back to the two layers."""
    if not carry:
        return dy[..., :width], dy[..., width:]
    dy, (dc, dd) = dy
    return (dy[..., :width], dc), (dy[..., width:], dd)


def _bidirectional_shapes(children: Children, carry: bool, in_shape: Any) -> tuple[tuple[Any, Any], Any]:
    in_shapes = _both(carry, in_shape)
    outs = [out_shape(name, layer, shape) for (name, layer), shape in zip(children, in_shapes)]
    a, b = [pair("Bidirectional", "(y, carry)", out)[0] for out in outs] if carry else outs
    if a[:-1] != b[:-1]:
        raise ShapeError(f"Bidirectional: expected two outputs that differ at most in their features, got {a} and {b}")
    y: Shape = (*a[:-1], a[-1] + b[-1])
    return in_shapes, (y, (outs[0][1], outs[1][1])) if carry else y


def _bidirectional_forward(
    steps: tuple[Step, ...], carry: bool, params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[Any, Any, int]]:
    changed: dict[str, State] = {}
    (a, kept_a), (b, kept_b) = (
        run(step, params, state, changed, part, mode) for step, part in zip(steps, _both(carry, x))
    )
    width: int = (a[0] if carry else a).shape[-1]
    return _joined(carry, a, b), with_entries(state, changed), (kept_a, kept_b, width)


def _bidirectional_vjp(
    backs: tuple[Back, ...], carry: bool, params: Params, cache: tuple[Any, Any, int], dy: Any
) -> tuple[Params, Any]:
    *kept, width = cache
    grads: dict[str, Any] = {}
    a, b = (pull(back, params, grads, part, d) for back, part, d in zip(backs, kept, _parted(carry, width, dy)))
    return grads, (tree.map(np.add, a[0], b[0]), (a[1], b[1])) if carry else tree.map(np.add, a, b)


def _bidirectional_param_vjp(
    backs: tuple[ParamBack, ...], carry: bool, params: Params, cache: tuple[Any, Any, int], dy: Any
) -> Params:
    *kept, width = cache
    grads: dict[str, Any] = {}
    for back, part, d in zip(backs, kept, _parted(carry, width, dy)):
        pull_params(back, params, grads, part, d)
    return grads


def _bidirectional_infer(infers: tuple[InputBack, ...], carry: bool, params: Params, state: State, x: Any) -> Any:
    a, b = (infer_child(infer, params, state, part) for infer, part in zip(infers, _both(carry, x)))
    return _joined(carry, a, b)


# --- where carries start ---------------------------------------------------------------------------------------------


def carry_shape(layer: AnyLayer) -> Any:
    """The shape of the carry of a recurrent layer or cell: `net.init(key, ((time, in), carry_shape(net)))`.

    A `stack` and a `Bidirectional` have a tuple of their layers' carries, a `scan` that of its cell, a `serial` that of
    its first layer. Raises `TypeError` for other layers, whose carry only their author knows.

    >>> from fnn.layers.recurrent import GRU, LSTM
    >>> carry_shape(stack(GRU(5, carry=True), LSTM(3, carry=True)))
    ((5,), ((3,), (3,)))
    """
    layer = _bare(layer)
    config = layer.config
    match layer.kind:
        case "RNN" | "GRU" | "rnn_cell" | "gru_cell":
            return (config["features"],)
        case "LSTM" | "lstm_cell":
            return ((config["projection"] or config["features"],), (config["features"],))
        case "stack" | "Bidirectional":
            return tuple(carry_shape(child) for _, child in layer.children)
        case "scan" | "serial" if layer.children:
            return carry_shape(layer.children[0][1])
    raise TypeError(
        f"carry_shape: expected a recurrent layer of fnn, got {layer!r}; state the shape of its carry yourself"
    )


def _bare(layer: AnyLayer) -> AnyLayer:
    """The layer inside wrappers that keep its kind (`frozen`, `remat`, `tap`)."""
    inner = layer.config.get("layer")
    return _bare(inner) if isinstance(inner, Layer) and inner.kind == layer.kind else layer


def zero_carry(shape: Any, batch: int, dtype: DTypeLike = np.float32) -> Any:
    """A carry of zeros for `batch` examples: an array (batch, *shape), or tuples of them for tuples of shapes.

    >>> h, c = zero_carry(((3,), (5,)), batch=2)
    >>> h.shape, c.shape
    ((2, 3), (2, 5))
    """
    if isinstance(shape, tuple) and shape and all(isinstance(part, tuple) for part in shape):
        return tuple(zero_carry(part, batch, dtype) for part in shape)
    if not isinstance(shape, tuple) or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(f"zero_carry: expected a shape such as (32,) or a tuple of shapes, got {shape!r}")
    return np.zeros((batch, *shape), dtype)


# --- carried: the carry as a running state ---------------------------------------------------------------------------

CARRY = "carry"


def carried(layer: Layer[tuple[X, C], tuple[A, C]], batch: int, *, shape: Any = None) -> Layer[X, A]:
    """The layer with its carry as a running state: in training it goes on from batch to batch, derivatives do not.

    Truncated backpropagation through time (Williams and Peng 1990): of a batch of `batch` windows, each goes on where
    the one in its place in the batch before ended; `y, c = layer(x, c of the batch before)`. So the windows of a text
    must come in this order: `batches(..., size=batch, shuffle=False, drop_last=True)`. The carry goes on from the end
    of an epoch into the next, too. An evaluation begins with zeros, as a whole sequence does, and leaves the state as
    it is.

    The layer keeps its kind, its name and its paths; the state has an entry `carry` more. shape: that of the carry,
    by default `carry_shape(layer)`. Raises `ShapeError` for a batch of another size in training.

    >>> from fnn.layers.recurrent import GRU
    >>> net = carried(GRU(5, carry=True), batch=4)
    >>> params, state, x = net.init(Key(0), (7, 3)), net.init_state((7, 3)), np.ones((4, 7, 3), np.float32)
    >>> _, state, _ = net.forward(params, state, x, Train(Key(1)))
    >>> after, _, _ = net.forward(params, state, x, Train(Key(1)))
    >>> whole = net.apply(params, np.concatenate([x, x], axis=1))
    >>> bool(np.allclose(after, whole[:, 7:], atol=1e-6))
    True
    """
    check_layer("carried", layer)
    if _bare(layer).config.get("carry") is False:
        raise TypeError(f"carried: expected a layer that takes and gives a carry, with carry=True, got {layer!r}")
    batch = positive("carried", "batch", batch)
    carry = carry_shape(layer) if shape is None else shape
    zero_carry(carry, 0)
    inner: AnyLayer = layer
    return attrs.evolve(
        inner,
        init=bind(_carried_init, layer.init, carry),
        forward=bind(_carried_forward, layer.kind, layer.forward, carry, batch),
        vjp=bind(_carried_vjp, layer.vjp),
        param_vjp=bind(_carried_param_vjp, params_vjp(layer)),
        input_vjp=bind(_carried_input_vjp, inputs_vjp(layer)),
        out_shape=bind(_carried_out_shape, layer, carry),
        init_state=bind(_carried_state, layer, carry, batch),
        couples_batch=layer.couples_batch or "train",
        infer=bind(_carried_infer, evaluator(layer), carry),
        config={"layer": attrs.evolve(layer, name=None), "batch": batch, "shape": shape},
        build=carried,
    )


def _carried_init(init: Any, shape: Any, key: Key, in_shape: Any) -> Params:
    params: Params = init(key, (in_shape, shape))
    return params


def _carried_out_shape(layer: AnyLayer, shape: Any, in_shape: Any) -> Any:
    return layer.out_shape((in_shape, shape))[0]


def _carried_state(layer: AnyLayer, shape: Any, batch: int, in_shape: Any) -> State:
    state = layer.init_state((in_shape, shape))
    if CARRY in state:
        raise ValueError(f"carried: {layer!r} has a state named {CARRY!r} already")
    begun: State = tree.read_only({**state, CARRY: zero_carry(shape, batch)})
    return begun


def _carried_forward(
    who: str, forward: Forward, shape: Any, batch: int, params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[Any, Any]]:
    if CARRY not in state:
        raise TypeError(f"{who}: carried: expected a state with a carry; the first one is net.init_state(in_shape)")
    start, size = state[CARRY], _size(x)
    if not in_training(mode):
        start = zero_carry(shape, size, _dtype(params))
    elif size != batch:
        raise ShapeError(
            f"{who}: carried in batches of {batch}: expected as many examples in training, got {size}; "
            "drop what is left over: batches(..., drop_last=True)"
        )
    start = tree.map(bind(_as, _dtype(params)), start)
    (y, end), after, cache = forward(params, without(state, CARRY), (x, start), mode)
    held = state[CARRY]
    if in_training(mode):  # in the dtype that the state has, as running statistics keep theirs
        held = tree.map(lambda before, now: _as(before.dtype, now), held, end)
    return y, {**after, CARRY: held}, (cache, tree.zeros_like(end))


def _as(dtype: np.dtype[Any], a: Array) -> Array:
    return a.astype(dtype, copy=False)


def _carried_vjp(vjp: Any, params: Params, cache: tuple[Any, Any], dy: Any) -> tuple[Params, Any]:
    grads, (dx, _) = vjp(params, cache[0], (dy, cache[1]))
    return grads, dx


def _carried_param_vjp(param_vjp: Any, params: Params, cache: tuple[Any, Any], dy: Any) -> Params:
    grads: Params = param_vjp(params, cache[0], (dy, cache[1]))
    return grads


def _carried_input_vjp(input_vjp: Any, params: Params, cache: tuple[Any, Any], dy: Any) -> Any:
    return input_vjp(params, cache[0], (dy, cache[1]))[0]


def _carried_infer(infer: Any, shape: Any, params: Params, state: State, x: Any) -> Any:
    return infer(params, without(state, CARRY), (x, zero_carry(shape, _size(x), _dtype(params))))[0]


def _size(x: Any) -> int:
    """The number of examples in a batch."""
    return len(tree.leaves(x)[0])


def _dtype(params: Params) -> np.dtype[Any]:
    """That of the parameters, and of the carry with them."""
    dtype: np.dtype[Any] = next((leaf.dtype for leaf in tree.leaves(params)), np.dtype(np.float32))
    return dtype
