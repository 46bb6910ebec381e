"""What all combinators share: the names of children, the constructor, and how one child is run and pulled back.

`combinator` is the one constructor: from the children and one function about shapes follow initialisation, running
statistics, shape checks, the part of the parameters that has gradients, and the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs

from fnn.check import call_hint
from fnn.contract import Coupling, Layer, Mode, Train, in_training, inputs_vjp, layer, params_vjp, trainable
from fnn.random import Key
from fnn.types import EMPTY, Params, State, bind

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

AnyLayer: TypeAlias = Layer[Any, Any]
Children: TypeAlias = tuple[tuple[str, AnyLayer], ...]
Shapes: TypeAlias = Callable[[Any], tuple[Sequence[Any], Any]]
Forward: TypeAlias = Callable[..., tuple[Any, State, Any]]
Step: TypeAlias = tuple[str, Forward, bool]
Back: TypeAlias = tuple[str, Callable[..., tuple[Params, Any]]]
ParamBack: TypeAlias = tuple[str, Callable[[Params, Any, Any], Params]]
InputBack: TypeAlias = tuple[str, Callable[[Params, Any, Any], Any]]


# --- names -----------------------------------------------------------------------------------------------------------


def named(name: str, child: Layer[A, B]) -> Layer[A, B]:
    """The same layer under a name of its own: `named("out", Dense(1))` owns the parameters `out/...`."""
    check_name("named", name)
    if not isinstance(child, Layer):
        raise TypeError(f"named: expected a layer, got {child!r}")
    return attrs.evolve(child, name=name)


def check_name(who: str, name: Any) -> None:
    """Raises `ValueError` unless `name` can be one part of a path."""
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or not name.isprintable():
        raise ValueError(f"{who}: expected a name without '/', '\\' and control characters, got {name!r}")


def check_layer(who: str, child: Any, where: str = "") -> None:
    """Raises `TypeError` unless `child` is a layer; the hint is for `Dense` where `Dense(5)` was meant."""
    if not isinstance(child, Layer):
        raise TypeError(f"{who}: expected {'layers' if where else 'a layer'}, got {child!r}{where}{call_hint(child)}")


def stem(child: AnyLayer) -> str:
    """What the name of a child begins with: the name it asks for, or its kind in lower case."""
    return child.kind.lower() if child.name is None else child.name


def name_children(who: str, layers: Sequence[AnyLayer]) -> Children:
    """Pairs `(name, layer)`: the explicit name, or the kind in lower case with a counter: `dense_0`, `dense_1`."""
    counts: dict[str, int] = {}
    children: dict[str, AnyLayer] = {}
    for position, child in enumerate(layers):
        check_layer(who, child, f" in position {position}")
        name = stem(child)
        if child.name is None:
            count = counts.get(name, 0)
            counts[name], name = count + 1, f"{name}_{count}"
        if name in children:
            raise ValueError(f"{who}: two layers are named {name!r}; names must differ among siblings")
        children[name] = child
    return tuple(children.items())


# --- the constructor -------------------------------------------------------------------------------------------------


def combinator(
    kind: str,
    children: Children,
    shapes: Callable[[Any], tuple[Sequence[Any], Any]],
    forward: Callable[[Params, State, A, Mode], tuple[B, State, C]],
    vjp: Callable[[Params, C, B], tuple[Params, A]],
    *,
    infer: Callable[[Params, State, A], B] | None = None,
    param_vjp: Callable[[Params, C, B], Params] | None = None,
    input_vjp: Callable[[Params, C, B], A] | None = None,
    config: Mapping[str, Any] = EMPTY,
    build: Callable[..., Any] | None = None,
) -> Layer[A, B]:
    """A layer made of named children.

    `shapes(in_shape)` gives `(the input shape of every child, the output shape)` and raises `ShapeError` where the
    children do not fit together. Parameters and state are dicts by child name; children that own none have no entry.
    Gradients have the entries of the parameters, `None` where a child has no gradients (`frozen`).
    """
    some_frozen = any(child.trainable is not None for _, child in children)
    if some_frozen:
        vjp, param_vjp = bind(_some_vjp, vjp), None if param_vjp is None else bind(_some_param_vjp, param_vjp)
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
        input_vjp=input_vjp,
        trainable=bind(_trainable, dict(children)) if some_frozen else None,
        draws=any(child.draws for _, child in children),
        couples_batch=_coupling([child.couples_batch for _, child in children]),
        build=build,
    )


def _coupling(children: list[Coupling]) -> Coupling:
    return True if True in children else "train" if "train" in children else False


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


def _trainable(children: Mapping[str, AnyLayer], params: Params) -> Params:
    return _some({name: trainable(children[name], part) or None for name, part in params.items()})


def _some(parts: Params) -> Params:
    """The entries if any child has something; otherwise none, so that a network of frozen layers is as one of them."""
    return parts if any(part is not None for part in parts.values()) else EMPTY


def _some_vjp(vjp: Callable[[Params, C, B], tuple[Params, A]], params: Params, cache: C, dy: B) -> tuple[Params, A]:
    grads, dx = vjp(params, cache, dy)
    return _some(grads), dx


def _some_param_vjp(param_vjp: Callable[[Params, C, B], Params], params: Params, cache: C, dy: B) -> Params:
    return _some(param_vjp(params, cache, dy))


# --- one child -------------------------------------------------------------------------------------------------------


def located(error: Exception, name: str) -> Exception:
    """The error with a note that says where it happened: `in serial_0/dense_1`, one path however deep."""
    notes: list[str] = getattr(error, "__notes__", [])
    if isinstance(error, KeyError) and not notes:
        error.add_note("no such entry in the parameters (or the state): pass those that the network's own init made")
    if notes and notes[-1].startswith("in "):
        notes[-1] = f"in {name}/{notes[-1][3:]}"
    else:
        error.add_note(f"in {name}")
    return error


def with_entries(whole: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """`whole` with the entries of `changed`; the same object if there are none."""
    return {**whole, **changed} if changed else whole


def step_of(name: str, child: AnyLayer) -> Step:
    """What `run` needs of a child."""
    return name, child.forward, child.draws


def run(step: Step, params: Params, state: State, changed: dict[str, State], x: Any, mode: Mode) -> tuple[Any, Any]:
    """One child's `(y, cache)`, with its own parameters, state and key; a new state is noted in `changed`."""
    name, forward, draws = step
    before = state.get(name, EMPTY)
    child_mode = Train(mode.key.fold_in(name)) if draws and in_training(mode) else mode
    try:
        y, after, cache = forward(params.get(name, EMPTY), before, x, child_mode)
    except Exception as error:
        raise located(error, name)
    if after is not before:
        changed[name] = after
    return y, cache


def out_shape(name: str, child: AnyLayer, in_shape: Any) -> Any:
    """One child's output shape."""
    try:
        return child.out_shape(in_shape)
    except Exception as error:
        raise located(error, name)


def infer_child(step: InputBack, params: Params, state: State, x: Any) -> Any:
    """One child's output in evaluation mode."""
    name, infer = step
    try:
        return infer(params.get(name, EMPTY), state.get(name, EMPTY), x)
    except Exception as error:
        raise located(error, name)


def pull(back: Back, params: Params, grads: dict[str, Any], cache: Any, dy: Any) -> Any:
    """One child's dx; its gradients become an entry of `grads` if it has parameters, `None` if they are frozen."""
    name, vjp = back
    try:
        part, dx = vjp(params.get(name, EMPTY), cache, dy)
    except Exception as error:
        raise located(error, name)
    if name in params:
        grads[name] = part or None
    return dx


def pull_params(back: ParamBack, params: Params, grads: dict[str, Any], cache: Any, dy: Any) -> None:
    """As `pull`, without dx."""
    name, vjp = back
    try:
        part = vjp(params.get(name, EMPTY), cache, dy)
    except Exception as error:
        raise located(error, name)
    if name in params:
        grads[name] = part or None


def pull_input(back: InputBack, params: Params, cache: Any, dy: Any) -> Any:
    """As `pull`, without gradients."""
    name, vjp = back
    try:
        return vjp(params.get(name, EMPTY), cache, dy)
    except Exception as error:
        raise located(error, name)


def backs_of(children: Children) -> tuple[tuple[Back, ...], tuple[ParamBack, ...], tuple[InputBack, ...]]:
    """What `pull`, `pull_params` and `pull_input` need of the children."""
    return (
        tuple((name, child.vjp) for name, child in children),
        tuple((name, params_vjp(child)) for name, child in children),
        tuple((name, inputs_vjp(child)) for name, child in children),
    )


def added(a: Any, b: Any) -> Any:
    """The sum of two derivatives of one value, which may be a tuple, such as (y, carry); None is no derivative."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tuple):
        return tuple([added(x, y) for x, y in zip(a, b, strict=True)])
    return a + b
