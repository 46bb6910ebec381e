"""Combinators of recurrence: `scan` repeats a cell over time, `stack` puts layers with carries one upon the other,
`Bidirectional` lets two layers read a sequence from both ends; `carry_shape` and `zero_carry` say where carries start.

A cell is any layer `(x, carry) -> (y, carry)` of one step; with all steps at once it has the same form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike

from fnn import tree
from fnn.combinators import combinator, located, name_children, with_entries
from fnn.contract import Layer, Mode, Train, evaluator
from fnn.layers.recurrent.sequence import checked_lengths, from_time, pair, select, to_time, valid
from fnn.types import EMPTY, Array, Ints, Params, Shape, ShapeError, State, bind

X = TypeVar("X")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

AnyLayer: TypeAlias = Layer[Any, Any]


# --- children --------------------------------------------------------------------------------------------------------


class Child(NamedTuple):
    """What running a child needs."""

    name: str
    forward: Callable[[Params, State, Any, Mode], tuple[Any, State, Any]]
    vjp: Callable[[Params, Any, Any], tuple[Params, Any]]
    infer: Callable[[Params, State, Any], Any]
    draws: bool


def _child(name: str, layer: AnyLayer) -> Child:
    return Child(name, layer.forward, layer.vjp, evaluator(layer), layer.draws)


def _mode(child: Child, mode: Mode) -> Mode:
    return Train(mode.key.fold_in(child.name)) if child.draws and isinstance(mode, Train) else mode


def _run(
    child: Child, params: Params, state: State, changed: dict[str, State], x: Any, mode: Mode
) -> tuple[Any, Any]:
    """The child's `(y, cache)`; a new state is noted in `changed`."""
    before = state.get(child.name, EMPTY)
    try:
        y, after, cache = child.forward(params.get(child.name, EMPTY), before, x, _mode(child, mode))
    except Exception as error:
        raise located(error, child.name)
    if after is not before:
        changed[child.name] = after
    return y, cache


def _pull(child: Child, params: Params, grads: dict[str, Any], cache: Any, dy: Any) -> Any:
    """The child's dx; its gradients become an entry of `grads`."""
    try:
        part, dx = child.vjp(params.get(child.name, EMPTY), cache, dy)
    except Exception as error:
        raise located(error, child.name)
    if part:
        grads[child.name] = part
    return dx


def _eval(child: Child, params: Params, state: State, x: Any) -> Any:
    try:
        return child.infer(params.get(child.name, EMPTY), state.get(child.name, EMPTY), x)
    except Exception as error:
        raise located(error, child.name)


def _announced(name: str, layer: AnyLayer, in_shape: Any) -> Any:
    try:
        return layer.out_shape(in_shape)
    except Exception as error:
        raise located(error, name)


# --- scan: y_t, c_t = cell(x_t, c_{t-1}) -----------------------------------------------------------------------------


class _Scan(NamedTuple):
    child: Child
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

    x is (batch, time, ...), y (batch, time, ...); the carry is whatever tree of arrays (batch, ...) the cell takes and
    gives. All steps share one set of parameters, whose gradient is the sum over the steps. Running statistics pass from
    step to step like a second carry; step t draws from the key folded with t.

    `reverse=True` runs from the last step to the first; y stays in the order of x. `lengths=True` takes
    `((x, lengths), carry)`, lengths (batch,) integers from 1 to time: beyond its length an example's carry stands still,
    y is 0, and what x holds is ignored (the cell sees 0).

    Raises `ShapeError` if the cell changes the shape of its carry.
    """
    children = name_children("scan", (cell,))
    name, _ = children[0]
    options = _Scan(_child(name, cell), bool(reverse), bool(lengths))
    return combinator(
        "scan",
        children,
        bind(_scan_shapes, options, cell),
        bind(_scan_forward, options),
        bind(_scan_vjp, options),
        infer=bind(_scan_infer, options),
        config={"cell": cell, "reverse": reverse, "lengths": lengths},
        build=scan,
    )


def _scan_shapes(scan: _Scan, cell: AnyLayer, in_shape: Any) -> tuple[list[Any], Any]:
    shape, carry = pair("scan", "(x, carry)", in_shape)
    if scan.lengths:
        shape, lengths = pair("scan", "((x, lengths), carry)", shape)
        if lengths != ():
            raise ShapeError(f"scan: expected the shape () for lengths, an integer an example, got {lengths!r}")
    if not isinstance(shape, tuple) or not shape or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(f"scan: expected an input shape (time, ...), got {shape!r}")
    step = shape[1:], carry
    y, after = pair(f"scan: the output of {cell!r}", "(y, carry)", _announced(scan.child.name, cell, step))
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
    return to_time(x, scan.reverse, lengths), lengths, carry


def _scan_forward(
    scan: _Scan, params: Params, state: State, inputs: Any, mode: Mode
) -> tuple[tuple[Array, Any], State, Any]:
    xs, lengths, carry = _scan_inputs(scan, inputs)
    child, mode = scan.child, _mode(scan.child, mode)
    part, before = params.get(child.name, EMPTY), state.get(child.name, EMPTY)
    ys, caches, statistics = [], [], before
    try:
        for t, x in enumerate(xs):
            step_mode = Train(mode.key.fold_in(t)) if child.draws and isinstance(mode, Train) else mode
            (y, after), statistics, cache = child.forward(part, statistics, (x, carry), step_mode)
            carry = after if lengths is None else _select(t < lengths, after, carry)
            ys.append(y)
            caches.append(cache)
    except Exception as error:
        raise located(error, child.name)
    changed = {} if statistics is before else {child.name: statistics}
    return (_in_time(ys, scan, lengths), carry), with_entries(state, changed), (tuple(caches), lengths)


def _scan_vjp(scan: _Scan, params: Params, cache: Any, dy: tuple[Array, Any]) -> tuple[Params, Any]:
    """From the last step to the first: `dx_t, dc_{t-1} = vjp(dy_t, dc_t)`, and the gradients of the steps are summed."""
    caches, lengths = cache
    child, part = scan.child, params.get(scan.child.name, EMPTY)
    dys, dcarry = to_time(dy[0], scan.reverse, lengths), dy[1]
    dxs: list[Array] = []
    total: Params | None = None
    try:
        for t in range(len(caches) - 1, -1, -1):
            if lengths is None:
                grads, (dx, dcarry) = child.vjp(part, caches[t], (dys[t], dcarry))
            else:
                there = t < lengths
                into, past = _select(there, dcarry, 0.0), _select(~there, dcarry, 0.0)
                grads, (dx, dcarry) = child.vjp(part, caches[t], (dys[t], into))
                dcarry = tree.map(np.add, dcarry, past)
            dxs.append(dx)
            total = grads if total is None else tree.map(np.add, total, grads)
    except Exception as error:
        raise located(error, child.name)
    dx = _in_time(dxs[::-1], scan, lengths)
    return {child.name: total} if total else EMPTY, (dx if lengths is None else (dx, np.zeros_like(lengths)), dcarry)


def _scan_infer(scan: _Scan, params: Params, state: State, inputs: Any) -> tuple[Array, Any]:
    xs, lengths, carry = _scan_inputs(scan, inputs)
    ys = []
    for t, x in enumerate(xs):
        y, after = _eval(scan.child, params, state, (x, carry))
        carry = after if lengths is None else _select(t < lengths, after, carry)
        ys.append(y)
    return _in_time(ys, scan, lengths), carry


def _in_time(parts: list[Array], scan: _Scan, lengths: Ints | None) -> Array:
    """The steps, in the order they were run, as one array (batch, time, ...)."""
    return from_time(np.stack(parts), scan.reverse, lengths)


def _select(condition: Any, a: Any, b: Any) -> Any:
    """The tree of `a` for the examples where the condition holds, of `b` (a tree or 0) elsewhere."""
    if isinstance(b, float):
        return tree.map(bind(_or_zero, condition), a)
    return tree.map(bind(select, condition), a, b)


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
    parts = tuple(_child(name, layer) for name, layer in children)
    return combinator(
        "stack",
        children,
        bind(_stack_shapes, children),
        bind(_stack_forward, parts),
        bind(_stack_vjp, parts),
        infer=bind(_stack_infer, parts),
        config={"layers": layers},
        build=stack,
    )


def _stack_shapes(children: tuple[tuple[str, AnyLayer], ...], in_shape: Any) -> tuple[list[Any], Any]:
    y, carries = pair("stack", "(x, carries)", in_shape)
    _check_carries("stack", len(children), carries)
    shapes, after = [], []
    for (name, layer), carry in zip(children, carries):
        shapes.append((y, carry))
        y, carry = pair(f"stack: the output of {layer!r}", "(y, carry)", _announced(name, layer, (y, carry)))
        after.append(carry)
    return shapes, (y, tuple(after))


def _stack_forward(
    children: tuple[Child, ...], params: Params, state: State, x: Any, mode: Mode
) -> tuple[tuple[Any, Any], State, tuple[Any, ...]]:
    y, carries = pair("stack", "(x, carries)", x)
    _check_carries("stack", len(children), carries)
    changed: dict[str, State] = {}
    after, caches = [], []
    for child, carry in zip(children, carries):
        (y, carry), cache = _run(child, params, state, changed, (y, carry), mode)
        after.append(carry)
        caches.append(cache)
    return (y, tuple(after)), with_entries(state, changed), tuple(caches)


def _stack_vjp(
    children: tuple[Child, ...], params: Params, cache: tuple[Any, ...], dy: tuple[Any, Any]
) -> tuple[Params, tuple[Any, Any]]:
    dx, dcarries = dy
    grads: dict[str, Any] = dict.fromkeys(params)
    before = []
    for child, kept, dcarry in zip(children[::-1], cache[::-1], dcarries[::-1]):
        dx, dcarry = _pull(child, params, grads, kept, (dx, dcarry))
        before.append(dcarry)
    return _present(grads), (dx, tuple(before[::-1]))


def _stack_infer(children: tuple[Child, ...], params: Params, state: State, x: Any) -> tuple[Any, Any]:
    y, carries = pair("stack", "(x, carries)", x)
    _check_carries("stack", len(children), carries)
    after = []
    for child, carry in zip(children, carries):
        y, carry = _eval(child, params, state, (y, carry))
        after.append(carry)
    return y, tuple(after)


def _check_carries(who: str, n: int, carries: Any) -> None:
    if not isinstance(carries, tuple) or len(carries) != n:
        got = f"a tuple of {len(carries)}" if isinstance(carries, tuple) else type(carries).__name__
        raise ShapeError(f"{who}: expected a tuple of {n} carries, one for every layer, got {got}")


def _present(grads: dict[str, Any]) -> Params:
    """The entries that have been filled."""
    return {name: part for name, part in grads.items() if part is not None}


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
        if not isinstance(layer, Layer):
            raise TypeError(f"Bidirectional: expected a layer as {name}_layer, got {layer!r}")
        if layer.config.get("reverse", reverse) is not reverse:
            raise ValueError(f"Bidirectional: expected a {name}_layer with reverse={reverse}, got {layer!r}")
        if not carry and layer.config.get("carry"):
            raise ValueError(f"Bidirectional: {layer!r} has a carry; say Bidirectional(..., carry=True)")
    children = (("forward", forward_layer), ("backward", backward_layer))
    parts = (_child(*children[0]), _child(*children[1]))
    return combinator(
        "Bidirectional",
        children,
        bind(_bidirectional_shapes, children, bool(carry)),
        bind(_bidirectional_forward, parts, bool(carry)),
        bind(_bidirectional_vjp, parts, bool(carry)),
        infer=bind(_bidirectional_infer, parts, bool(carry)),
        config={"forward_layer": forward_layer, "backward_layer": backward_layer, "carry": carry},
        build=Bidirectional,
    )


Two: TypeAlias = tuple[Child, Child]


def _both(carry: bool, x: Any) -> tuple[Any, Any]:
    """The inputs of the two layers."""
    if not carry:
        return x, x
    x, carries = pair("Bidirectional", "(x, carries)", x)
    _check_carries("Bidirectional", 2, carries)
    return (x, carries[0]), (x, carries[1])


def _joined(carry: bool, a: Any, b: Any) -> Any:
    """The output from those of the two layers."""
    if not carry:
        return np.concatenate([a, b], axis=-1)
    return np.concatenate([a[0], b[0]], axis=-1), (a[1], b[1])


def _bidirectional_shapes(
    children: tuple[tuple[str, AnyLayer], ...], carry: bool, in_shape: Any
) -> tuple[tuple[Any, Any], Any]:
    in_shapes = _both(carry, in_shape)
    outs = [_announced(name, layer, shape) for (name, layer), shape in zip(children, in_shapes)]
    a, b = [pair("Bidirectional", "(y, carry)", out)[0] for out in outs] if carry else outs
    if a[:-1] != b[:-1]:
        raise ShapeError(f"Bidirectional: expected two outputs that differ at most in their features, got {a} and {b}")
    y: Shape = (*a[:-1], a[-1] + b[-1])
    return in_shapes, (y, (outs[0][1], outs[1][1])) if carry else y


def _bidirectional_forward(
    children: Two, carry: bool, params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, Any]:
    changed: dict[str, State] = {}
    (a, cache_a), (b, cache_b) = (
        _run(child, params, state, changed, part, mode) for child, part in zip(children, _both(carry, x))
    )
    width = (a[0] if carry else a).shape[-1]
    return _joined(carry, a, b), with_entries(state, changed), (cache_a, cache_b, width)


def _bidirectional_vjp(children: Two, carry: bool, params: Params, cache: Any, dy: Any) -> tuple[Params, Any]:
    *kept, width = cache
    dy, dcarries = dy if carry else (dy, (None, None))
    halves = dy[..., :width], dy[..., width:]
    grads: dict[str, Any] = dict.fromkeys(params)
    a, b = (
        _pull(child, params, grads, part, (half, dcarry) if carry else half)
        for child, part, half, dcarry in zip(children, kept, halves, dcarries)
    )
    if not carry:
        return _present(grads), tree.map(np.add, a, b)
    return _present(grads), (tree.map(np.add, a[0], b[0]), (a[1], b[1]))


def _bidirectional_infer(children: Two, carry: bool, params: Params, state: State, x: Any) -> Any:
    a, b = (_eval(child, params, state, part) for child, part in zip(children, _both(carry, x)))
    return _joined(carry, a, b)


# --- where carries start ---------------------------------------------------------------------------------------------


def carry_shape(layer: AnyLayer) -> Any:
    """The shape of the carry of a recurrent layer or cell, as `init` wants it: `net.init(key, ((time, in), carry_shape(net)))`.

    A `stack` and a `Bidirectional` have a tuple of their layers' carries, a `scan` that of its cell, a `serial` that of
    its first layer. Raises `TypeError` for other layers, whose carry only their author knows.

    >>> from fnn.layers.recurrent import GRU, LSTM
    >>> carry_shape(stack(GRU(5, carry=True), LSTM(3, carry=True)))
    ((5,), ((3,), (3,)))
    """
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
    raise TypeError(f"carry_shape: expected a recurrent layer of fnn, got {layer!r}; state the shape of its carry yourself")


def zero_carry(shape: Any, batch: int, dtype: DTypeLike = np.float32) -> Any:
    """A carry of zeros for `batch` examples: a tree of arrays (batch, *shape) for a tree of shapes.

    >>> h, c = zero_carry(((3,), (5,)), batch=2)
    >>> h.shape, c.shape
    ((2, 3), (2, 5))
    """
    if isinstance(shape, tuple) and shape and all(isinstance(part, tuple) for part in shape):
        return tuple(zero_carry(part, batch, dtype) for part in shape)
    if not isinstance(shape, tuple) or not all(isinstance(n, (int, np.integer)) for n in shape):
        raise ShapeError(f"zero_carry: expected a shape such as (32,) or a tuple of shapes, got {shape!r}")
    return np.zeros((batch, *shape), dtype)
