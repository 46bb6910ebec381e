"""Layers around one layer. `remat`, `frozen` and `tap` are the layer itself but for one property: they keep its kind,
name and paths, so the parameters are the layer's own. `mapped` is a combinator, with its child one level down.
"""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import numpy as np

from fnn.combinators.core import (
    AnyLayer,
    Back,
    Forward,
    InputBack,
    ParamBack,
    Step,
    check_layer,
    check_name,
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
from fnn.contract import Eval, Layer, Mode, evaluator, inputs_vjp, params_vjp
from fnn.types import EMPTY, NDArray, Params, ShapeError, State, bind

A = TypeVar("A")
B = TypeVar("B")
M = TypeVar("M", bound=NDArray[Any])
N = TypeVar("N", bound=NDArray[Any])


# --- remat: time for memory ------------------------------------------------------------------------------------------


def remat(layer: Layer[A, B]) -> Layer[A, B]:
    """The same layer keeping only its input for the backward pass, which runs the forward pass again.

    `serial(remat(block), ..., remat(block))` keeps one input a block, and the caches of one block at a time. The second
    run has the key and the state of the first: the results are those of `layer`, bit for bit. Chen et al. 2016, sec. 4.
    """
    check_layer("remat", layer)
    forward = layer.forward
    return attrs.evolve(
        layer,
        forward=bind(_remat_forward, forward),
        vjp=bind(_remat_vjp, forward, layer.vjp),
        param_vjp=bind(_remat_vjp, forward, params_vjp(layer)),
        input_vjp=bind(_remat_vjp, forward, inputs_vjp(layer)),
        config={"layer": attrs.evolve(layer, name=None)},
        build=remat,
    )


def _remat_forward(
    forward: Forward, params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[State, Any, Mode]]:
    y, after, _ = forward(params, state, x, mode)
    return y, after, (state, x, mode)


def _remat_vjp(forward: Forward, vjp: Any, params: Params, cache: tuple[State, Any, Mode], dy: Any) -> Any:
    state, x, mode = cache
    return vjp(params, forward(params, state, x, mode)[2], dy)


# --- frozen: no gradients --------------------------------------------------------------------------------------------


def frozen(layer: Layer[A, B]) -> Layer[A, B]:
    """The same layer without gradients of its parameters, and without the work for them; `dx` is as before.

    The layer owns its parameters as ever: they are initialised, saved and loaded with the others, under the same paths.
    But its gradients are `{}`, and in those of the network `None` stands in their place: no update, so training leaves
    those very arrays where they are. `fnn.contract.trainable(net, params)` has `None` in the same places.
    Layers below still get their gradients; in front of a network frozen layers cost no backward pass at all. Running
    statistics are not parameters: in training they move. (For no moments either, `freeze` the same paths.)
    """
    check_layer("frozen", layer)
    pull_dx = inputs_vjp(layer)
    return attrs.evolve(
        layer,
        vjp=bind(_frozen_vjp, pull_dx),
        param_vjp=_no_grads,
        input_vjp=pull_dx,
        trainable=_nothing,
        config={"layer": attrs.evolve(layer, name=None)},
        build=frozen,
    )


def _frozen_vjp(input_vjp: Any, params: Params, cache: Any, dy: Any) -> tuple[Params, Any]:
    return EMPTY, input_vjp(params, cache, dy)


def _no_grads(params: Params, cache: Any, dy: Any) -> Params:
    return EMPTY


def _nothing(params: Params) -> Params:
    return EMPTY


# --- tap: an intermediate output as a result -------------------------------------------------------------------------


class Record(Eval):
    """An evaluation pass in which every `tap` puts its output into the state that `forward` returns."""

    __slots__ = ()


def tap(name: str, layer: Layer[A, B]) -> Layer[A, B]:
    """The same layer, whose output is an entry `name` of its state after a `Record` pass.

    >>> from fnn.combinators import serial
    >>> from fnn.layers.dense import Dense
    >>> from fnn.random import Key
    >>> net = serial(tap("hidden", Dense(5)), Dense(2))
    >>> y, state, _ = net.forward(net.init(Key(0), (3,)), {}, np.ones((7, 3), np.float32), Record())
    >>> state["dense_0"]["hidden"].shape
    (7, 5)

    In all other passes it is the layer itself. Within `scan` it has the last step, within `mapped` all positions in one
    axis. Raises `ValueError` if the layer has a state of that name.
    """
    check_name("tap", name)
    check_layer("tap", layer)
    if name in dict(layer.children):
        raise ValueError(f"tap: {layer!r} has a child named {name!r}, whose state it would hide; choose another name")
    return attrs.evolve(
        layer,
        forward=bind(_tap_forward, name, layer.forward),
        init_state=bind(_tap_state, name, layer),
        infer=evaluator(layer),
        config={"name": name, "layer": attrs.evolve(layer, name=None)},
        build=tap,
    )


def _tap_forward(
    name: str, forward: Forward, params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, Any]:
    y, after, cache = forward(params, state, x, mode)
    return y, {**after, name: y} if isinstance(mode, Record) else after, cache


def _tap_state(name: str, layer: AnyLayer, in_shape: Any) -> State:
    state = layer.init_state(in_shape)
    if name in state:
        raise ValueError(f"tap: {layer!r} has a state named {name!r} already; choose another name")
    return state


# --- mapped: y[:, t] = f(x[:, t]) ------------------------------------------------------------------------------------


def mapped(layer: Layer[M, N]) -> Layer[M, N]:
    """The layer applied along one further axis, the first after the batch: `y[:, t] = f(x[:, t])`.

    `(batch, time, ...)` is seen as `(batch * time, ...)`: all positions share the parameters, and a layer that takes
    statistics takes them over batch and time. Raises `ShapeError` for inputs with no axis to map over.
    """
    check_layer("mapped", layer)
    ((name, child),) = name_children("mapped", (layer,))
    return combinator(
        "mapped",
        ((name, child),),
        bind(_mapped_shapes, name, child),
        bind(_mapped_forward, step_of(name, child)),
        bind(_mapped_vjp, (name, child.vjp)),
        infer=bind(_mapped_infer, (name, evaluator(child))),
        param_vjp=bind(_mapped_param_vjp, (name, params_vjp(child))),
        input_vjp=bind(_mapped_input_vjp, (name, inputs_vjp(child))),
        config={"layer": layer},
        build=mapped,
    )


def _mapped_shapes(name: str, child: AnyLayer, in_shape: Any) -> tuple[list[Any], Any]:
    if not isinstance(in_shape, tuple) or len(in_shape) < 2 or isinstance(in_shape[0], tuple):
        raise ShapeError(f"mapped: expected an input shape (time, ...), got {in_shape!r}")
    return [in_shape[1:]], (in_shape[0], *out_shape(name, child, in_shape[1:]))


def _mapped_forward(step: Step, params: Params, state: State, x: Any, mode: Mode) -> tuple[Any, State, Any]:
    changed: dict[str, State] = {}
    y, cache = run(step, params, state, changed, _fold(x), mode)
    return _unfold(y, x.shape[:2]), with_entries(state, changed), cache


def _mapped_vjp(back: Back, params: Params, cache: Any, dy: Any) -> tuple[Params, Any]:
    grads: dict[str, Any] = {}
    dx = pull(back, params, grads, cache, _together(dy))
    return grads, _unfold(dx, dy.shape[:2])


def _mapped_param_vjp(back: ParamBack, params: Params, cache: Any, dy: Any) -> Params:
    grads: dict[str, Any] = {}
    pull_params(back, params, grads, cache, _together(dy))
    return grads


def _mapped_input_vjp(back: InputBack, params: Params, cache: Any, dy: Any) -> Any:
    return _unfold(pull_input(back, params, cache, _together(dy)), dy.shape[:2])


def _mapped_infer(step: InputBack, params: Params, state: State, x: Any) -> Any:
    return _unfold(infer_child(step, params, state, _fold(x)), x.shape[:2])


def _fold(x: Any) -> Any:
    """`(batch, time, ...)` as `(batch * time, ...)`."""
    if getattr(x, "ndim", 0) < 3:
        raise ShapeError(f"mapped: expected input (batch, time, ...), got {np.shape(x)}")
    return _together(x)


def _together(x: Any) -> Any:
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _unfold(y: Any, batch_and_time: tuple[int, int]) -> Any:
    """`(batch * time, ...)` as `(batch, time, ...)`."""
    return y.reshape(*batch_and_time, *y.shape[1:])
