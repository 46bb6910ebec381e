"""Layers one after the other: `serial`, and `repeat` for many of a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, overload

from fnn.combinators.core import (
    AnyLayer,
    Back,
    Children,
    InputBack,
    Step,
    backs_of,
    check_layer,
    combinator,
    located,
    name_children,
    pull_input,
    step_of,
    stem,
    with_entries,
)
from fnn.contract import Layer, Mode, Train, evaluator, in_training
from fnn.check import positive
from fnn.types import EMPTY, Array, Params, State, bind

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
I = TypeVar("I")  # noqa: E741


# --- serial: y = f_n(... f_1(x)),   dx = f_1'(... f_n'(dy)) ----------------------------------------------------------


@overload
def serial() -> Layer[Array, Array]: ...
@overload
def serial(a: Layer[A, B], /) -> Layer[A, B]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], /) -> Layer[A, C]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], /) -> Layer[A, D]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], d: Layer[D, E], /) -> Layer[A, E]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], d: Layer[D, E], e: Layer[E, F], /) -> Layer[A, F]: ...
@overload
def serial(
    a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], d: Layer[D, E], e: Layer[E, F], f: Layer[F, G], /
) -> Layer[A, G]: ...
@overload
def serial(
    a: Layer[A, B],
    b: Layer[B, C],
    c: Layer[C, D],
    d: Layer[D, E],
    e: Layer[E, F],
    f: Layer[F, G],
    g: Layer[G, H],
    /,
) -> Layer[A, H]: ...
@overload
def serial(
    a: Layer[A, B],
    b: Layer[B, C],
    c: Layer[C, D],
    d: Layer[D, E],
    e: Layer[E, F],
    f: Layer[F, G],
    g: Layer[G, H],
    h: Layer[H, I],
    /,
    *rest: Layer[I, I],
) -> Layer[A, I]: ...
def serial(*layers: AnyLayer) -> AnyLayer:
    """The layers one after the other: `y = f_n(... f_1(x))`; the derivative is their vjps in reverse order.

    Children are named by kind and counter (`dense_0`, `sigmoid_0`, `dense_1`), or by `named`. Keys are derived from the
    names, so inserting a layer of another kind changes the initial values of none. With no layers it is the identity.
    A layer that stands in two places has parameters of its own in each; `tied` makes them one.
    """
    return _chain("serial", name_children("serial", layers), {"layers": layers}, serial)


def repeat(child: Layer[A, A], n: int) -> Layer[A, A]:
    """`n` layers like `child` one after the other, each with parameters of its own: `dense_0`, `dense_1`, ...

    The same network as `serial(child, ..., child)`; a named child is numbered too: `block_0`, `block_1`.
    """
    check_layer("repeat", child)
    name = stem(child)
    children = tuple((f"{name}_{i}", child) for i in range(positive("repeat", "n", n)))
    return _chain("repeat", children, {"child": child, "n": n}, repeat)


First: TypeAlias = tuple[str, Callable[[Params, Any, Any], Params], Callable[[Params], Params] | None]


def _chain(kind: str, children: Children, config: Mapping[str, Any], build: Callable[..., Any]) -> AnyLayer:
    vjps, param_vjps, input_vjps = backs_of(children)
    backs = vjps[::-1]
    firsts = tuple((name, vjp, child.trainable) for (name, vjp), (_, child) in zip(param_vjps, children))
    return combinator(
        kind,
        children,
        bind(_serial_shapes, children),
        bind(_serial_forward, tuple(step_of(name, child) for name, child in children)),
        bind(_serial_vjp, backs),
        infer=bind(_serial_infer, tuple((name, evaluator(child)) for name, child in children)),
        param_vjp=bind(_serial_param_vjp, backs, firsts),
        input_vjp=bind(_serial_input_vjp, input_vjps[::-1]),
        config=config,
        build=build,
    )


def _serial_shapes(children: Children, in_shape: Any) -> tuple[list[Any], Any]:
    shapes, name = [in_shape], ""
    try:
        for name, child in children:
            shapes.append(child.out_shape(shapes[-1]))
    except Exception as error:
        raise located(error, name)
    return shapes[:-1], shapes[-1]


def _serial_forward(
    steps: tuple[Step, ...], params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[Any, ...]]:
    caches: list[Any] = []
    changed: dict[str, State] = {}
    key = mode.key if in_training(mode) else None
    name = ""
    try:
        for name, forward, draws in steps:
            before = state.get(name, EMPTY)
            child_mode = mode if key is None or not draws else Train(key.fold_in(name))
            x, after, cache = forward(params.get(name, EMPTY), before, x, child_mode)
            caches.append(cache)
            if after is not before:
                changed[name] = after
    except Exception as error:
        raise located(error, name)
    return x, with_entries(state, changed), tuple(caches)


def _serial_vjp(backs: tuple[Back, ...], params: Params, cache: tuple[Any, ...], dy: Any) -> tuple[Params, Any]:
    grads: dict[str, Any] = dict.fromkeys(params)  # in the order of the parameters
    name, position = "", len(cache)
    try:
        for name, vjp in backs:
            position -= 1
            part, dy = vjp(params.get(name, EMPTY), cache[position], dy)
            if part:
                grads[name] = part
    except Exception as error:
        raise located(error, name)
    return grads, dy


def _serial_param_vjp(
    backs: tuple[Back, ...], firsts: tuple[First, ...], params: Params, cache: tuple[Any, ...], dy: Any
) -> Params:
    """As `_serial_vjp`, down to the first child with gradients; that one computes no dx, those before it nothing."""
    for position, (name, vjp, trainable) in enumerate(firsts, 1):
        if name in params and (trainable is None or trainable(params[name])):
            break
    else:
        return EMPTY
    tail, dy = _serial_vjp(backs[: len(backs) - position], params, cache[position:], dy)
    try:
        part = vjp(params[name], cache[position - 1], dy)
    except Exception as error:
        raise located(error, name)
    return {**tail, name: part}


def _serial_input_vjp(backs: tuple[InputBack, ...], params: Params, cache: tuple[Any, ...], dy: Any) -> Any:
    for back, child_cache in zip(backs, reversed(cache)):
        dy = pull_input(back, params, child_cache, dy)
    return dy


def _serial_infer(steps: tuple[InputBack, ...], params: Params, state: State, x: Any) -> Any:
    name = ""
    try:
        for name, infer in steps:
            x = infer(params.get(name, EMPTY), state.get(name, EMPTY), x)
    except Exception as error:
        raise located(error, name)
    return x
