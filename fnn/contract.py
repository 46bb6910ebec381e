"""The contract: what a layer is, what a loss is, and everything that follows from the pairs of functions they hold.

A `Layer` is a pair `(forward, vjp)` of pure functions with what is needed around it (parameters, shapes). `pullback`,
`value_and_grad` and `grad` chain such pairs; nothing else in the library computes a derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeGuard, TypeVar

import attrs
import numpy as np

from fnn import tree
from fnn.check import call_hint
from fnn.random import Key
from fnn.types import EMPTY, Array, NDArray, Params, ShapeError, State, bind

X = TypeVar("X")
Y = TypeVar("Y")
C = TypeVar("C")
X_contra = TypeVar("X_contra", contravariant=True)
Y_co = TypeVar("Y_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
T = TypeVar("T")


# --- the mode of a pass ----------------------------------------------------------------------------------------------


@attrs.frozen
class Train:
    """A training pass: layers may draw from `key` and use the statistics of the batch."""

    key: Key = attrs.field()

    @key.validator
    def _is_key(self, attribute: Any, value: Any) -> None:
        if not isinstance(value, Key):
            raise TypeError(f"Train: expected a key, as in Train(Key(0)), got {value!r}")


@attrs.frozen
class Eval:
    """An evaluation pass: deterministic, with the running statistics."""


Mode: TypeAlias = Train | Eval
"""How a pass is made: `Train(key)` or `Eval()`."""

EVAL = Eval()


def in_training(mode: Mode) -> TypeGuard[Train]:
    """Whether it is a training pass; `TypeError` for what is no mode, which would pass for one of evaluation."""
    if not isinstance(mode, (Train, Eval)):
        raise TypeError(f"expected the mode of the pass, Train(key) or Eval(), got {mode!r}")
    return isinstance(mode, Train)


# --- layers ----------------------------------------------------------------------------------------------------------

Coupling: TypeAlias = bool | Literal["train"]
"""Whether the examples of a batch influence each other: never, always, or in Train mode only (batch normalisation)."""


def same_shape(in_shape: Any) -> Any:
    """The `out_shape` of a layer that accepts every shape and keeps it."""
    return in_shape


def no_params(key: Key, in_shape: Any) -> Params:
    """The `init` of a layer without parameters."""
    return EMPTY


def no_state(in_shape: Any) -> State:
    """The `init_state` of a layer without running statistics."""
    return EMPTY


@attrs.frozen(eq=False, repr=False)
class Layer(Generic[X_contra, Y_co]):
    """A pure function of parameters with its hand-written derivative; build one with `layer` or `stateless`.

    Its types are those of input and output, an array or a tuple of them; as for functions, a layer that takes any tuple
    of arrays (`fan_in_sum`) stands where one that takes a pair is asked for. Shapes never include the batch axis.
    """

    kind: str
    """What it is; in lower case the stem of its name among the children of a combinator."""
    init: Callable[[Key, Any], Params]
    """`(key, in_shape) -> params`: read-only float32 arrays."""
    forward: Callable[[Params, State, X_contra, Mode], tuple[Y_co, State, Any]]
    """`(params, state, x, mode) -> (y, new state, cache)`."""
    vjp: Callable[[Params, Any, Y_co], tuple[Params, X_contra]]
    """`(params, cache, dy) -> (grads, dx)`: the vector-Jacobian product, linear in dy."""
    out_shape: Callable[[Any], Any] = same_shape
    """`in_shape -> shape of the output`; raises `ShapeError` for a shape that does not fit."""
    init_state: Callable[[Any], State] = no_state
    """`in_shape -> state`: the running statistics at the start."""
    config: Mapping[str, Any] = EMPTY
    """The hyper-parameters: the arguments with which `build` makes this layer."""
    children: tuple[tuple[str, Layer[Any, Any]], ...] = ()
    """The named layers a combinator is made of."""
    name: str | None = None
    """The name it asks for among its siblings; set by `named`."""
    infer: Callable[[Params, State, X_contra], Y_co] | None = None
    """`(params, state, x) -> y`: equal to `forward` in Eval mode, keeping no caches."""
    param_vjp: Callable[[Params, Any, Y_co], Params] | None = None
    """`(params, cache, dy) -> grads`: equal to `vjp(...)[0]`, computing no dx."""
    input_vjp: Callable[[Params, Any, Y_co], X_contra] | None = None
    """`(params, cache, dy) -> dx`: equal to `vjp(...)[1]`, computing no grads."""
    trainable: Callable[[Params], Params] | None = None
    """`params -> those that vjp gives gradients for, None in place of the others`; without it, all. See `frozen`."""
    draws: bool = True
    """Whether forward may draw from the key in Train mode; where it does not, no key is derived for it."""
    couples_batch: Coupling = False
    """Whether the examples of a batch influence each other: then a batch is not split over threads."""
    build: Callable[..., Any] | None = None
    """The public function that made it; a layer without one is a value (`Sigmoid`)."""

    def apply(self, params: Params, x: X_contra, state: State | None = None) -> Y_co:
        """The output for `x` in evaluation mode; keeps nothing for a backward pass.

        `state` are the running statistics, needed by networks that have them (`TrainState.state`).
        """
        if type(params) is not dict and not isinstance(params, Mapping):
            got = type(params).__name__
            raise TypeError(f"{self.kind}.apply: expected parameters first, as in net.apply(params, x), got {got}")
        if state is not None and not isinstance(state, Mapping):
            got = type(state).__name__
            raise TypeError(f"{self.kind}.apply: expected the state last, net.apply(params, x, state), got {got}")
        return evaluator(self)(params, EMPTY if state is None else state, x)

    if not TYPE_CHECKING:  # for type checkers a layer stays what cannot be called

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise not_called(self, "a layer", "net.apply(params, x), with params = net.init(Key(0), in_shape)")

    def __repr__(self) -> str:
        return code(self) if self.name is None else f"named({self.name!r}, {code(self)})"


def layer(
    kind: str,
    init: Callable[[Key, Any], Params],
    forward: Callable[[Params, State, X, Mode], tuple[Y, State, C]],
    vjp: Callable[[Params, C, Y], tuple[Params, X]],
    *,
    out_shape: Callable[[Any], Any] = same_shape,
    init_state: Callable[[Any], State] = no_state,
    config: Mapping[str, Any] = EMPTY,
    children: tuple[tuple[str, Layer[Any, Any]], ...] = (),
    infer: Callable[[Params, State, X], Y] | None = None,
    param_vjp: Callable[[Params, C, Y], Params] | None = None,
    input_vjp: Callable[[Params, C, Y], X] | None = None,
    trainable: Callable[[Params], Params] | None = None,
    draws: bool = True,
    couples_batch: Coupling = False,
    build: Callable[..., Any] | None = None,
) -> Layer[X, Y]:
    """A layer from its pair of functions. Type-checkers check here that `vjp` takes the cache that `forward` gives.

    `forward` and `vjp` are best module-level functions (then the layer pickles), with hyper-parameters given by `bind`.
    """
    _check_kind(kind)
    return Layer(
        kind=kind,
        init=bind(_init, kind, init),
        forward=forward,
        vjp=vjp,
        out_shape=out_shape,
        init_state=init_state,
        config=config,
        children=children,
        infer=infer,
        param_vjp=param_vjp,
        input_vjp=input_vjp,
        trainable=trainable,
        draws=draws,
        couples_batch=couples_batch,
        build=build,
    )


def stateless(
    kind: str,
    init: Callable[[Key, Any], Params],
    forward: Callable[[Params, X], tuple[Y, C]],
    vjp: Callable[[Params, C, Y], tuple[Params, X]],
    *,
    out_shape: Callable[[Any], Any] = same_shape,
    config: Mapping[str, Any] = EMPTY,
    infer: Callable[[Params, X], Y] | None = None,
    param_vjp: Callable[[Params, C, Y], Params] | None = None,
    input_vjp: Callable[[Params, C, Y], X] | None = None,
    couples_batch: bool = False,
    build: Callable[..., Any] | None = None,
) -> Layer[X, Y]:
    """A layer whose `forward(params, x) -> (y, cache)` has no state, no randomness and one mode."""
    return layer(
        kind,
        init,
        bind(_stateless_forward, forward),
        vjp,
        out_shape=out_shape,
        config=config,
        infer=None if infer is None else bind(_stateless_infer, infer),
        param_vjp=param_vjp,
        input_vjp=input_vjp,
        couples_batch=couples_batch,
        draws=False,
        build=build,
    )


def _stateless_forward(
    f: Callable[[Params, X], tuple[Y, C]], params: Params, state: State, x: X, mode: Mode
) -> tuple[Y, State, C]:
    y, cache = f(params, x)
    return y, state, cache


def _stateless_infer(f: Callable[[Params, X], Y], params: Params, state: State, x: X) -> Y:
    return f(params, x)


def _init(kind: str, init: Callable[[Key, Any], Params], key: Key, in_shape: Any) -> Params:
    """`init` with its arguments checked and its arrays protected from writing."""
    if not isinstance(key, Key):
        raise TypeError(f"{kind}.init: expected a Key first, as in net.init(Key(0), in_shape), got {key!r}")
    check_shape(kind, in_shape)
    params: Params = tree.read_only(init(key, in_shape))
    for path, leaf in tree.items(params):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" and leaf.dtype != np.float32:
            raise TypeError(f"{kind}: init: expected {path} in float32, got {leaf.dtype}; use .astype(np.float32)")
    return params


def check_shape(who: str, shape: Any) -> None:
    """Raises `ShapeError` unless `shape` is a tuple of sizes (or, for several inputs, a tuple of such tuples)."""
    if isinstance(shape, tuple):
        if all(isinstance(part, tuple) for part in shape):
            for part in shape:
                check_shape(who, part)
            return
        if all(isinstance(size, (int, np.integer)) and size > 0 for size in shape):
            return
    raise ShapeError(
        f"{who}: expected a shape without the batch axis, a tuple of positive integers such as (784,), got {shape!r}"
    )


def _check_kind(kind: str) -> None:
    if not kind or "/" in kind:
        raise ValueError(f"layer: expected a kind that is a name without '/', got {kind!r}")


# --- what follows from a layer ---------------------------------------------------------------------------------------


def evaluator(layer: Layer[X, Y]) -> Callable[[Params, State, X], Y]:
    """`(params, state, x) -> y` in evaluation mode: `layer.infer`, or made from `layer.forward`."""
    return layer.infer or bind(_infer, layer.forward)


def _infer(forward: Callable[[Params, State, X, Mode], tuple[Y, State, Any]], params: Params, state: State, x: X) -> Y:
    return forward(params, state, x, EVAL)[0]


def params_vjp(layer: Layer[X, Y]) -> Callable[[Params, Any, Y], Params]:
    """`(params, cache, dy) -> grads`: `layer.param_vjp`, or made from `layer.vjp`."""
    return layer.param_vjp or bind(_param_vjp, layer.vjp)


def _param_vjp(vjp: Callable[[Params, Any, Y], tuple[Params, X]], params: Params, cache: Any, dy: Y) -> Params:
    return vjp(params, cache, dy)[0]


def inputs_vjp(layer: Layer[X, Y]) -> Callable[[Params, Any, Y], X]:
    """`(params, cache, dy) -> dx`: `layer.input_vjp`, or made from `layer.vjp`."""
    return layer.input_vjp or bind(_input_vjp, layer.vjp)


def _input_vjp(vjp: Callable[[Params, Any, Y], tuple[Params, X]], params: Params, cache: Any, dy: Y) -> X:
    return vjp(params, cache, dy)[1]


def trainable(layer: Layer[Any, Any], params: Params) -> Params:
    """The parameters that have gradients, with `None` in the place of those that are frozen.

    Gradients have exactly this structure. Without frozen layers these are all, and the result is `params` itself.
    """
    return params if layer.trainable is None else layer.trainable(params)


def pullback(
    layer: Layer[X, Y], params: Params, state: State, x: X, mode: Mode
) -> tuple[Y, State, Callable[[Y], tuple[Params, X]]]:
    """`(y, new state, fn)`, where `fn(dy) -> (grads, dx)` is the derivative at this point."""
    in_training(mode)
    y, state, cache = layer.forward(params, state, x, mode)
    return y, state, partial(layer.vjp, params, cache)


class LossForward(Protocol[X_contra, T_contra]):
    """The type of the forward function of a loss."""

    def __call__(
        self, output: X_contra, target: T_contra, weight: Array | None = None, /
    ) -> tuple[Array, Any]: ...


@attrs.frozen(eq=False, repr=False)
class Loss(Generic[Y, T_contra]):
    """A differentiable mean over the batch: a pair `(forward, vjp)`; build one in the manner of `fnn.losses`."""

    kind: str
    """What it is."""
    forward: LossForward[Y, T_contra]
    """`(output, target, weight=None) -> (value, cache)`; the value is a 0-d array, with weights `sum(w l) / sum(w)`."""
    vjp: Callable[[Any], Y]
    """`cache -> d_output`: exactly the derivative of the value."""
    each: Callable[[Y, T_contra], Array]
    """`(output, target) -> (batch,)`: the loss of every example."""
    sums: Callable[[Y, T_contra, Array | None], NDArray[np.float64]] | None = None
    """`(output, target, weight) -> (terms, 2)`, for losses whose value is not the mean of `each` alone: for every term
    `sum(w l)` and `sum(w)`, which add up over batches; the value is the sum of their ratios."""
    couples_batch: bool = False
    """Whether the loss of an example depends on the others of its batch, as that of a contrastive loss does."""
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise not_called(self, "a loss", "value, cache = loss.forward(output, target)")

    def __repr__(self) -> str:
        return code(self)


@attrs.frozen(eq=False, repr=False)
class Penalty:
    """A term of what is minimised that depends on the parameters alone: a pair, as in `fnn.losses.penalties`."""

    kind: str
    forward: Callable[[Params], Array]
    """`params -> value`, a 0-d array."""
    vjp: Callable[[Params, Params], Params]
    """`(params, grads) -> grads` with the derivative added; gradients that are None (frozen parameters) stay None."""
    config: Mapping[str, Any] = EMPTY
    build: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return code(self)


class ValueAndGrad(Protocol[X_contra, T_contra]):
    """The type of what `value_and_grad` gives."""

    def __call__(
        self, params: Params, state: State, x: X_contra, target: T_contra, mode: Mode, weight: Array | None = None
    ) -> tuple[Array, Params, State]: ...


class Grad(Protocol[X_contra, T_contra]):
    """The type of what `grad` gives."""

    def __call__(
        self, params: Params, state: State, x: X_contra, target: T_contra, mode: Mode, weight: Array | None = None
    ) -> Params: ...


def value_and_grad(model: Layer[X, Y], loss: Loss[Y, T], penalty: Penalty | None = None) -> ValueAndGrad[X, T]:
    """The function `(params, state, x, target, mode, weight=None) -> (value, grads, new state)`.

    `value` is the mean loss of the batch as a 0-d array, `grads` its derivative, shaped as the parameters. A penalty on
    the parameters adds its value and its derivative.
    """
    for name, part, kind in (("model", model, Layer), ("loss", loss, Loss)):
        if not isinstance(part, kind):
            raise TypeError(f"value_and_grad: {name}: expected a {kind.__name__}, got {part!r}{call_hint(part)}")
    f: ValueAndGrad[X, T] = bind(_value_and_grad, model.forward, params_vjp(model), loss.forward, loss.vjp)
    return f if penalty is None else bind(_penalised, f, penalty)


def _penalised(
    f: ValueAndGrad[X, T],
    penalty: Penalty,
    params: Params,
    state: State,
    x: X,
    target: T,
    mode: Mode,
    weight: Array | None = None,
) -> tuple[Array, Params, State]:
    value, grads, state = f(params, state, x, target, mode, weight)
    return np.asarray(value + penalty.forward(params)), penalty.vjp(params, grads), state


def _value_and_grad(
    forward: Callable[[Params, State, X, Mode], tuple[Y, State, Any]],
    backward: Callable[[Params, Any, Y], Params],
    loss: Callable[[Y, T, Array | None], tuple[Array, Any]],
    loss_vjp: Callable[[Any], Y],
    params: Params,
    state: State,
    x: X,
    target: T,
    mode: Mode,
    weight: Array | None = None,
) -> tuple[Array, Params, State]:
    in_training(mode)
    y, state, cache = forward(params, state, x, mode)
    value, residue = loss(y, target, weight)
    return value, backward(params, cache, loss_vjp(residue)), state


def grad(model: Layer[X, Y], loss: Loss[Y, T], penalty: Penalty | None = None) -> Grad[X, T]:
    """The function `(params, state, x, target, mode, weight=None) -> grads`."""
    return bind(_grad, value_and_grad(model, loss, penalty))


def _grad(
    f: ValueAndGrad[X, T], params: Params, state: State, x: X, target: T, mode: Mode, weight: Array | None = None
) -> Params:
    return f(params, state, x, target, mode, weight)[1]


# --- the code that builds a thing ------------------------------------------------------------------------------------


class Built(Protocol):
    """A record that knows the function and the arguments that made it."""

    @property
    def kind(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def build(self) -> Callable[..., Any] | None: ...


def not_called(thing: Built, what: str, use: str) -> TypeError:
    """The error for calling a thing that is a record of functions: its value takes no parentheses."""
    if thing.build is None:
        return TypeError(f"{thing.kind}: {what} as it is, written without parentheses; to use it: {use}")
    return TypeError(f"{thing.kind}: {what} is not called; to use it: {use}")


def code(thing: Built) -> str:
    """`Dense(5)`: the call that made it, without the arguments that have their defaults."""
    return thing.kind if thing.build is None else _call(thing.build, thing.config)


def _call(build: Callable[..., Any], values: Mapping[str, Any]) -> str:
    from inspect import Parameter, signature

    parts: list[str] = []
    for name, parameter in signature(build).parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            parts += [_show(value) for value in values[name]]
        elif parameter.kind is Parameter.VAR_KEYWORD:
            parts += [f"{key}={_show(value)}" for key, value in values[name].items()]
        elif name in values and (value := _show(values[name])) != _show(parameter.default):
            required = parameter.default is Parameter.empty and parameter.kind is not Parameter.KEYWORD_ONLY
            parts.append(value if required else f"{name}={value}")
    return f"{build.__name__}({', '.join(parts)})"


def _show(value: Any) -> str:
    if isinstance(value, partial):
        return _show_bound(value)
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    if isinstance(value, (set, frozenset)):  # in an order that is the same in every process
        return f"{{{', '.join(sorted(map(_show, value)))}}}"
    if type(value) is tuple:
        return f"({', '.join(map(_show, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _show_bound(value: Any) -> str:
    """What `bind(_cosine, ...)` stands for: the call of `cosine`, if its parameters have the names of what is bound."""
    from inspect import signature
    from sys import modules

    name = getattr(value.func, "__name__", type(value.func).__name__).strip("_")
    public = getattr(modules.get(getattr(value.func, "__module__", "")), name, None)
    try:
        given = dict(zip(signature(value.func).parameters, value.args))
        named = signature(public).parameters if public is not value.func and callable(public) else {}
    except ValueError:  # of a builtin function nobody knows the parameters
        given, named = {}, {}
    if len(given) == 1 and hasattr(rule := next(iter(given.values())), "_asdict"):
        given = rule._asdict()
    several = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in named.values())
    if callable(public) and named and not several and given.keys() <= named.keys():
        return _call(public, given)
    return f"{name}({', '.join(map(_show, value.args))})"
