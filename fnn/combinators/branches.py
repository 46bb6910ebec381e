"""Layers side by side: several inputs or outputs are tuples of arrays, and so are their shapes.

`serial(fan_out(2), parallel(Dense(5), Dense(7)), fan_in_concat)` splits, transforms and joins.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal, TypeVar, overload

import numpy as np

from fnn.combinators.core import (
    AnyLayer,
    Back,
    Children,
    InputBack,
    ParamBack,
    Step,
    added,
    backs_of,
    check_layer,
    combinator,
    infer_child,
    name_children,
    out_shape,
    pull,
    pull_input,
    pull_params,
    run,
    step_of,
    with_entries,
)
from fnn.contract import Layer, Mode, evaluator, no_params, stateless
from fnn.check import positive
from fnn.types import EMPTY, Array, Params, Shape, ShapeError, State, bind

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
I = TypeVar("I")  # noqa: E741
J = TypeVar("J")
K = TypeVar("K")
L = TypeVar("L")

Arrays = tuple[Array, ...]
Shapes = tuple[Shape, ...]


# --- parallel: (x1, x2, ...) -> (f1(x1), f2(x2), ...) ----------------------------------------------------------------


@overload
def parallel(a: Layer[A, B], /) -> Layer[tuple[A], tuple[B]]: ...
@overload
def parallel(a: Layer[A, B], b: Layer[C, D], /) -> Layer[tuple[A, C], tuple[B, D]]: ...
@overload
def parallel(a: Layer[A, B], b: Layer[C, D], c: Layer[E, F], /) -> Layer[tuple[A, C, E], tuple[B, D, F]]: ...
@overload
def parallel(
    a: Layer[A, B], b: Layer[C, D], c: Layer[E, F], d: Layer[G, H], /
) -> Layer[tuple[A, C, E, G], tuple[B, D, F, H]]: ...
@overload
def parallel(
    a: Layer[A, B], b: Layer[C, D], c: Layer[E, F], d: Layer[G, H], e: Layer[I, J], /
) -> Layer[tuple[A, C, E, G, I], tuple[B, D, F, H, J]]: ...
@overload
def parallel(
    a: Layer[A, B], b: Layer[C, D], c: Layer[E, F], d: Layer[G, H], e: Layer[I, J], f: Layer[K, L], /
) -> Layer[tuple[A, C, E, G, I, K], tuple[B, D, F, H, J, L]]: ...
@overload
def parallel(
    a: Layer[A, B],
    b: Layer[A, B],
    c: Layer[A, B],
    d: Layer[A, B],
    e: Layer[A, B],
    f: Layer[A, B],
    g: Layer[A, B],
    /,
    *rest: Layer[A, B],
) -> Layer[tuple[A, ...], tuple[B, ...]]: ...
def parallel(*layers: AnyLayer) -> AnyLayer:
    """Each layer on an input of its own: `(x1, x2, ...) -> (f1(x1), f2(x2), ...)`; `dx` is the tuple of their dx.

    The same layer twice has parameters of its own in each place; `tied` makes them one, as for siamese networks.
    Raises `ShapeError` unless there are as many inputs as layers.
    """
    if not layers:
        raise ValueError("parallel: expected at least one layer")
    children = name_children("parallel", layers)
    vjps, param_vjps, input_vjps = backs_of(children)
    return combinator(
        "parallel",
        children,
        bind(_parallel_shapes, children),
        bind(_parallel_forward, tuple(step_of(name, child) for name, child in children)),
        bind(_parallel_vjp, vjps),
        infer=bind(_parallel_infer, tuple((name, evaluator(child)) for name, child in children)),
        param_vjp=bind(_parallel_param_vjp, param_vjps),
        input_vjp=bind(_parallel_input_vjp, input_vjps),
        config={"layers": layers},
        build=parallel,
    )


def _parallel_shapes(children: Children, in_shape: Any) -> tuple[Shapes, tuple[Any, ...]]:
    shapes = _many("parallel", in_shape, len(children))
    return shapes, tuple(out_shape(name, child, shape) for (name, child), shape in zip(children, shapes))


def _parallel_forward(
    steps: tuple[Step, ...], params: Params, state: State, x: tuple[Any, ...], mode: Mode
) -> tuple[tuple[Any, ...], State, tuple[Any, ...]]:
    _check_inputs("parallel", x, len(steps))
    changed: dict[str, State] = {}
    done = [run(step, params, state, changed, part, mode) for step, part in zip(steps, x)]
    return tuple(y for y, _ in done), with_entries(state, changed), tuple(cache for _, cache in done)


def _parallel_vjp(
    backs: tuple[Back, ...], params: Params, caches: tuple[Any, ...], dy: tuple[Any, ...]
) -> tuple[Params, tuple[Any, ...]]:
    grads: dict[str, Any] = {}
    return grads, tuple(pull(back, params, grads, cache, part) for back, cache, part in zip(backs, caches, dy))


def _parallel_param_vjp(
    backs: tuple[ParamBack, ...], params: Params, caches: tuple[Any, ...], dy: tuple[Any, ...]
) -> Params:
    grads: dict[str, Any] = {}
    for back, cache, part in zip(backs, caches, dy):
        pull_params(back, params, grads, cache, part)
    return grads


def _parallel_input_vjp(
    backs: tuple[InputBack, ...], params: Params, caches: tuple[Any, ...], dy: tuple[Any, ...]
) -> tuple[Any, ...]:
    return tuple(pull_input(back, params, cache, part) for back, cache, part in zip(backs, caches, dy))


def _parallel_infer(steps: tuple[InputBack, ...], params: Params, state: State, x: tuple[Any, ...]) -> tuple[Any, ...]:
    _check_inputs("parallel", x, len(steps))
    return tuple(infer_child(step, params, state, part) for step, part in zip(steps, x))


# --- fan_out: x -> (x, ..., x),   dx = dy_1 + ... + dy_n -------------------------------------------------------------


@overload
def fan_out(n: Literal[1]) -> Layer[Array, tuple[Array]]: ...
@overload
def fan_out(n: Literal[2]) -> Layer[Array, tuple[Array, Array]]: ...
@overload
def fan_out(n: Literal[3]) -> Layer[Array, tuple[Array, Array, Array]]: ...
@overload
def fan_out(n: Literal[4]) -> Layer[Array, tuple[Array, Array, Array, Array]]: ...
@overload
def fan_out(n: Literal[5]) -> Layer[Array, tuple[Array, Array, Array, Array, Array]]: ...
@overload
def fan_out(n: Literal[6]) -> Layer[Array, tuple[Array, Array, Array, Array, Array, Array]]: ...
@overload
def fan_out(n: int) -> Layer[Array, tuple[Array, ...]]: ...
def fan_out(n: int) -> AnyLayer:
    """`n` times the input: `x -> (x, ..., x)`, without copying; `dx = dy_1 + ... + dy_n`."""
    positive("fan_out", "n", n)
    return stateless(
        "fan_out",
        no_params,
        bind(_fan_out_forward, n),
        _fan_out_vjp,
        out_shape=bind(_fan_out_shape, n),
        config={"n": n},
        build=fan_out,
    )


def _fan_out_forward(n: int, params: Params, x: Array) -> tuple[Arrays, tuple[()]]:
    return (x,) * n, ()


def _fan_out_vjp(params: Params, cache: tuple[()], dy: Arrays) -> tuple[Params, Array]:
    return EMPTY, total(dy)


def _fan_out_shape(n: int, in_shape: Any) -> tuple[Any, ...]:
    return (in_shape,) * n


def total(parts: Arrays) -> Array:
    """`parts[0] + parts[1] + ...`, from left to right; with one part that part itself."""
    y: Array = reduce(added, parts)
    return y


# --- fan_in_sum: y = x1 + ... + xn,   dx_i = dy ----------------------------------------------------------------------


def fan_in_sum_forward(params: Params, x: Arrays) -> tuple[Array, int]:
    """`y = x1 + ... + xn`; the cache is n."""
    _check_equal("fan_in_sum", x)
    return total(x), len(x)


def fan_in_sum_vjp(params: Params, n: int, dy: Array) -> tuple[Params, Arrays]:
    """`dx_i = dy`."""
    return EMPTY, (dy,) * n


# --- fan_in_mul: y = x1 ... xn,   dx_i = dy prod_(j != i) x_j --------------------------------------------------------


def fan_in_mul_forward(params: Params, x: Arrays) -> tuple[Array, Arrays]:
    """`y = x1 x2 ... xn`, elementwise; the cache is x."""
    _check_equal("fan_in_mul", x)
    return reduce(np.multiply, x), x


def fan_in_mul_vjp(params: Params, x: Arrays, dy: Array) -> tuple[Params, Arrays]:
    """`dx_i = (dy x_1 ... x_(i-1)) (x_(i+1) ... x_n)`: products from the left and from the right, no division."""
    n = len(x)
    left = [dy]  # left[i] = dy x_1 ... x_i
    for part in x[:-1]:
        left.append(left[-1] * part)
    right = x[-1]
    for i in range(n - 2, -1, -1):
        left[i] = left[i] * right
        right = right * x[i] if i else right
    return EMPTY, tuple(left)


# --- fan_in_concat: y = [x1 ... xn] along the last axis --------------------------------------------------------------


def fan_in_concat_forward(params: Params, x: Arrays) -> tuple[Array, tuple[int, ...]]:
    """`y = [x1 ... xn]` along the last axis; the cache is where each part ends."""
    _check_arrays("fan_in_concat", x)
    if any(part.ndim < 2 or part.shape[:-1] != x[0].shape[:-1] for part in x):
        raise _unequal("fan_in_concat", "equal shapes but for the last axis", tuple(part.shape for part in x))
    return np.concatenate(x, -1), _ends(tuple(part.shape for part in x))


def fan_in_concat_vjp(params: Params, ends: tuple[int, ...], dy: Array) -> tuple[Params, Arrays]:
    """`[dx1 ... dxn] = dy`, as views."""
    return EMPTY, tuple(dy[..., start:end] for start, end in zip((0, *ends), ends))


def _ends(shapes: Shapes) -> tuple[int, ...]:
    ends = [0]
    for shape in shapes:
        ends.append(ends[-1] + shape[-1])
    return tuple(ends[1:])


def _concat_shape(in_shape: Any) -> Shape:
    shapes = _many("fan_in_concat", in_shape)
    if any(not shape or shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise _unequal("fan_in_concat", "equal shapes but for the last axis", shapes)
    return (*shapes[0][:-1], _ends(shapes)[-1])


def _equal_shape(who: str, in_shape: Any) -> Shape:
    shapes = _many(who, in_shape)
    if any(shape != shapes[0] for shape in shapes):
        raise _unequal(who, "equal shapes", shapes)
    return shapes[0]


fan_in_sum: Layer[tuple[Array, ...], Array] = stateless(
    "fan_in_sum", no_params, fan_in_sum_forward, fan_in_sum_vjp, out_shape=bind(_equal_shape, "fan_in_sum")
)
fan_in_mul: Layer[tuple[Array, ...], Array] = stateless(
    "fan_in_mul", no_params, fan_in_mul_forward, fan_in_mul_vjp, out_shape=bind(_equal_shape, "fan_in_mul")
)
fan_in_concat: Layer[tuple[Array, ...], Array] = stateless(
    "fan_in_concat", no_params, fan_in_concat_forward, fan_in_concat_vjp, out_shape=_concat_shape
)


# --- residual: y = f(x) + s(x),   dx = f'(dy) + s'(dy) ---------------------------------------------------------------


def residual(f: Layer[Array, Array], shortcut: Layer[Array, Array] | None = None) -> Layer[Array, Array]:
    """`y = f(x) + shortcut(x)`, or `f(x) + x` without a shortcut. He et al. 2016, eq. 1 and 2.

    Raises `ShapeError` where both branches do not give the same shape.
    """
    check_layer("residual", f)
    if shortcut is not None:
        check_layer("residual", shortcut)
    children = name_children("residual", (f,) if shortcut is None else (f, shortcut))
    vjps, param_vjps, input_vjps = backs_of(children)
    return combinator(
        "residual",
        children,
        bind(_residual_shapes, children),
        bind(_residual_forward, tuple(step_of(name, child) for name, child in children)),
        bind(_residual_vjp, vjps),
        infer=bind(_residual_infer, tuple((name, evaluator(child)) for name, child in children)),
        param_vjp=bind(_residual_param_vjp, param_vjps),
        input_vjp=bind(_residual_input_vjp, input_vjps),
        config={"f": f, "shortcut": shortcut},
        build=residual,
    )


def _residual_shapes(children: Children, in_shape: Any) -> tuple[list[Any], Any]:
    shapes = [out_shape(name, child, in_shape) for name, child in children]
    if shapes[0] != (shapes[1] if len(shapes) > 1 else in_shape):
        raise _branches(tuple(name for name, _ in children), shapes, in_shape)
    return [in_shape] * len(children), shapes[0]


def _residual_forward(
    steps: tuple[Step, ...], params: Params, state: State, x: Array, mode: Mode
) -> tuple[Array, State, tuple[Any, ...]]:
    changed: dict[str, State] = {}
    done = [run(step, params, state, changed, x, mode) for step in steps]
    y = _residual_sum(steps, x, [y for y, _ in done])
    return y, with_entries(state, changed), tuple(cache for _, cache in done)


def _residual_vjp(backs: tuple[Back, ...], params: Params, caches: tuple[Any, ...], dy: Array) -> tuple[Params, Array]:
    grads: dict[str, Any] = {}
    dx = [pull(back, params, grads, cache, dy) for back, cache in zip(backs, caches)]
    return grads, total((dx[0], dx[1] if len(dx) > 1 else dy))


def _residual_param_vjp(backs: tuple[ParamBack, ...], params: Params, caches: tuple[Any, ...], dy: Array) -> Params:
    grads: dict[str, Any] = {}
    for back, cache in zip(backs, caches):
        pull_params(back, params, grads, cache, dy)
    return grads


def _residual_input_vjp(backs: tuple[InputBack, ...], params: Params, caches: tuple[Any, ...], dy: Array) -> Array:
    dx = [pull_input(back, params, cache, dy) for back, cache in zip(backs, caches)]
    return total((dx[0], dx[1] if len(dx) > 1 else dy))


def _residual_infer(steps: tuple[InputBack, ...], params: Params, state: State, x: Array) -> Array:
    return _residual_sum(steps, x, [infer_child(step, params, state, x) for step in steps])


def _residual_sum(steps: tuple[Any, ...], x: Array, branches: list[Array]) -> Array:
    main, other = branches[0], branches[1] if len(branches) > 1 else x
    if main.shape != other.shape:
        raise _branches(tuple(step[0] for step in steps), [branch.shape for branch in branches], x.shape)
    if main.dtype != other.dtype:
        raise TypeError(f"residual: the branches give {main.dtype} and {other.dtype}; convert the input first")
    return main + other


def _branches(names: tuple[str, ...], shapes: list[Any], in_shape: Any) -> ShapeError:
    other = f"{names[1]} gives {shapes[1]}" if len(shapes) > 1 else f"the input has {in_shape}"
    hint = "" if len(shapes) > 1 else "; give a shortcut, as in residual(f, Dense(features))"
    return ShapeError(f"residual: expected branches of equal shape, got: {names[0]} gives {shapes[0]}, {other}{hint}")


# --- checks ----------------------------------------------------------------------------------------------------------


def _many(who: str, in_shape: Any, n: int | None = None) -> Shapes:
    """The input shapes of a layer with several inputs."""
    several = isinstance(in_shape, tuple) and in_shape and all(isinstance(shape, tuple) for shape in in_shape)
    if not several or n not in (None, len(in_shape)):
        wanted = "several input shapes" if n is None else f"{n} input shapes"
        raise ShapeError(f"{who}: expected a tuple of {wanted}, such as ((3,), (4,)), got {in_shape!r}")
    return tuple(in_shape)


def _check_inputs(who: str, x: Any, n: int | None = None) -> None:
    if not isinstance(x, tuple) or not x or n not in (None, len(x)):
        got = f"{len(x)}" if isinstance(x, tuple) else f"one {type(x).__name__} of shape {np.shape(x)}"
        raise ShapeError(f"{who}: expected a tuple of {'' if n is None else f'{n} '}inputs, got {got}")


def _check_arrays(who: str, x: Any) -> None:
    _check_inputs(who, x)
    if not all(hasattr(part, "dtype") for part in x):
        raise TypeError(f"{who}: expected a tuple of arrays, got {', '.join(type(part).__name__ for part in x)}")
    if any(part.dtype != x[0].dtype for part in x):
        raise TypeError(f"{who}: expected inputs of one dtype, got {', '.join(str(part.dtype) for part in x)}")


def _check_equal(who: str, x: Any) -> None:
    _check_arrays(who, x)
    if any(part.shape != x[0].shape for part in x):
        raise _unequal(who, "equal shapes", tuple(part.shape for part in x))


def _unequal(who: str, wanted: str, shapes: Shapes) -> ShapeError:
    return ShapeError(f"{who}: expected inputs of {wanted}, got {', '.join(map(str, shapes))}")
