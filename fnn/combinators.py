"""Layers made of layers. `combinator` is the one constructor: from the children and one function about shapes follow
initialisation, running statistics, shape checks, the notes that say where an error happened, and the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import attrs

from fnn.contract import Layer, Mode, Train, evaluator, layer, params_vjp
from fnn.random import Key
from fnn.types import EMPTY, Params, State, bind

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
I = TypeVar("I")  # noqa: E741

AnyLayer: TypeAlias = Layer[Any, Any]
Children: TypeAlias = tuple[tuple[str, AnyLayer], ...]


# --- what all combinators share --------------------------------------------------------------------------------------


def name_children(who: str, layers: Sequence[AnyLayer]) -> Children:
    """Pairs `(name, layer)`: the explicit name, or the kind in lower case with a counter: `dense_0`, `dense_1`."""
    counts: dict[str, int] = {}
    named: dict[str, AnyLayer] = {}
    for position, child in enumerate(layers):
        if not isinstance(child, Layer):
            hint = f"; call it: {child.__name__}(...)" if callable(child) and hasattr(child, "__name__") else ""
            raise TypeError(f"{who}: expected layers, got {child!r} in position {position}{hint}")
        name = child.name
        if name is None:
            stem = child.kind.lower()
            name = f"{stem}_{counts.get(stem, 0)}"
            counts[stem] = counts.get(stem, 0) + 1
        if name in named:
            raise ValueError(f"{who}: two layers are named {name!r}; names must differ among siblings")
        named[name] = child
    return tuple(named.items())


def combinator(
    kind: str,
    children: Children,
    shapes: Callable[[Any], tuple[Sequence[Any], Any]],
    forward: Callable[[Params, State, A, Mode], tuple[B, State, C]],
    vjp: Callable[[Params, C, B], tuple[Params, A]],
    *,
    infer: Callable[[Params, State, A], B] | None = None,
    param_vjp: Callable[[Params, C, B], Params] | None = None,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Layer[A, B]:
    """A layer made of named children.

    `shapes(in_shape)` gives `(the input shape of every child, the output shape)` and raises `ShapeError` where the
    children do not fit together. Parameters and state are dicts by child name; children that own none have no entry.
    """
    return layer(
        kind,
        bind(_init_children, children, shapes),
        forward,
        vjp,
        out_shape=bind(_out_shape, shapes),
        init_state=bind(_init_state, children, shapes),
        config=config,
        children=children,
        infer=infer,
        param_vjp=param_vjp,
        draws=any(child.draws for _, child in children),
        build=build,
    )


Shapes: TypeAlias = Callable[[Any], tuple[Sequence[Any], Any]]


def _init_children(children: Children, shapes: Shapes, key: Key, in_shape: Any) -> Params:
    return _collect(children, shapes(in_shape)[0], lambda name, child, shape: child.init(key.fold_in(name), shape))


def _init_state(children: Children, shapes: Shapes, in_shape: Any) -> State:
    return _collect(children, shapes(in_shape)[0], lambda name, child, shape: child.init_state(shape))


def _collect(
    children: Children, in_shapes: Sequence[Any], make: Callable[[str, AnyLayer, Any], Params]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    try:
        for (name, child), shape in zip(children, in_shapes, strict=True):
            if part := make(name, child, shape):
                found[name] = part
    except Exception as error:
        raise located(error, name)
    return found


def _out_shape(shapes: Shapes, in_shape: Any) -> Any:
    return shapes(in_shape)[1]


def located(error: Exception, name: str) -> Exception:
    """The error with a note that says where it happened: `in serial_0/dense_1`, one path however deep."""
    notes: list[str] = getattr(error, "__notes__", [])
    if notes and notes[-1].startswith("in "):
        notes[-1] = f"in {name}/{notes[-1][3:]}"
    else:
        error.add_note(f"in {name}")
    return error


def with_entries(whole: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """`whole` with the entries of `changed`; the same object if there are none."""
    return {**whole, **changed} if changed else whole


# --- serial ----------------------------------------------------------------------------------------------------------


@overload
def serial() -> Layer[A, A]: ...
@overload
def serial(a: Layer[A, B], /) -> Layer[A, B]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], /) -> Layer[A, C]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], /) -> Layer[A, D]: ...
@overload
def serial(a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], d: Layer[D, E], /) -> Layer[A, E]: ...
@overload
def serial(
    a: Layer[A, B], b: Layer[B, C], c: Layer[C, D], d: Layer[D, E], e: Layer[E, F], /
) -> Layer[A, F]: ...
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
    """
    children = name_children("serial", layers)
    steps = tuple((name, child.forward, child.draws) for name, child in children)
    backs = tuple((name, child.vjp) for name, child in reversed(children))
    first = None if not children else (children[0][0], params_vjp(children[0][1]))
    return combinator(
        "serial",
        children,
        bind(_serial_shapes, children),
        bind(_serial_forward, steps),
        bind(_serial_vjp, backs),
        infer=bind(_serial_infer, tuple((name, evaluator(child)) for name, child in children)),
        param_vjp=bind(_serial_param_vjp, backs[:-1], first),
        config={"layers": layers},
        build=serial,
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
    steps: tuple[tuple[str, Callable[..., tuple[Any, State, Any]], bool], ...],
    params: Params,
    state: State,
    x: Any,
    mode: Mode,
) -> tuple[Any, State, tuple[Any, ...]]:
    caches: list[Any] = []
    changed: dict[str, State] = {}
    key = mode.key if isinstance(mode, Train) else None
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


def _serial_vjp(
    backs: tuple[tuple[str, Callable[..., tuple[Params, Any]]], ...],
    params: Params,
    cache: tuple[Any, ...],
    dy: Any,
) -> tuple[Params, Any]:
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
    backs: tuple[tuple[str, Callable[..., tuple[Params, Any]]], ...],
    first: tuple[str, Callable[[Params, Any, Any], Params]] | None,
    params: Params,
    cache: tuple[Any, ...],
    dy: Any,
) -> Params:
    if first is None:
        return EMPTY
    tail, dy = _serial_vjp(backs, params, cache[1:], dy)
    name, vjp = first
    try:
        part = vjp(params.get(name, EMPTY), cache[0], dy)
    except Exception as error:
        raise located(error, name)
    return {**tail, name: part} if part else tail


def _serial_infer(
    steps: tuple[tuple[str, Callable[[Params, State, Any], Any]], ...], params: Params, state: State, x: Any
) -> Any:
    name = ""
    try:
        for name, infer in steps:
            x = infer(params.get(name, EMPTY), state.get(name, EMPTY), x)
    except Exception as error:
        raise located(error, name)
    return x


# --- names -----------------------------------------------------------------------------------------------------------


def named(name: str, child: Layer[A, B]) -> Layer[A, B]:
    """The same layer under a name of its own: `named("out", Dense(1))` owns the parameters `out/...`."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"named: expected a name without '/', got {name!r}")
    if not isinstance(child, Layer):
        raise TypeError(f"named: expected a layer, got {child!r}")
    return attrs.evolve(child, name=name)
