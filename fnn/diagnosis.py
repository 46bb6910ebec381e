"""Why training stopped being finite: which parameter, activation or gradient went bad first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fnn import tree
from fnn.combinators import serial
from fnn.contract import Layer, Loss, Mode, Penalty, Train, value_and_grad
from fnn.data import Data
from fnn.history import TrainState
from fnn.types import EMPTY, Params, State


Parts: TypeAlias = Callable[[TrainState, Any], list[tuple[Any, Train]]]
"""`(train_state, batch) -> [(part, mode), ...]`: what a step makes passes with."""


class NonFiniteError(ArithmeticError):
    """Loss or parameters stopped being finite. `train_state` is the last good state, `step` the one that went wrong."""

    def __init__(self, message: str, train_state: TrainState) -> None:
        super().__init__(message)
        self.train_state = train_state
        self.step = train_state.step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.train_state)


def explain(
    model: Layer[Any, Any],
    loss: Loss[Any, Any],
    data: Data[Any],
    before: TrainState,
    now: TrainState,
    penalty: Penalty | None = None,
    parts: Parts | None = None,
) -> NonFiniteError:
    """The error to raise when the parameters of `now`, or the loss that they give, are not finite.

    If its parameters are finite, its own pass went wrong; otherwise the update that led to it did, from the state
    `before`. That step is made again, layer by layer, with floating-point errors raised.

    parts: how the step divides a batch, if it does.
    """
    if (early := first_bad(before.params)) is not None:
        return NonFiniteError(
            f"train: the parameters are no longer finite: {early} was not before step {before.step} already, while the "
            "loss still was. Where it began is not known, and this error's train_state is not good; begin with "
            "chain(check_finite(), ...) to be told, or save checkpoints, which are looked at.",
            before,
        )
    parameter = first_bad(now.params)
    good = now if parameter is None else before
    batch = next(iter(data.stream(good.key, good.step)))
    passes = [(batch, good.mode(model.draws))] if parts is None else parts(good, batch)
    told = [_first_bad_activation(model, loss, penalty, good, *part) for part in passes]
    found = next((what for what in told if what is not None), None)
    where = f"{found} is the first that is not finite" if found else "every activation and gradient is finite"
    if parameter is not None:
        where += f", and the update leaves the parameter {parameter} not finite"
    epoch = good.step / data.steps_per_epoch
    raised = next((what for part in passes if (what := _raised(model, loss, penalty, good, *part))), "")
    return NonFiniteError(
        f"train: the {'loss is' if parameter is None else 'parameters are'} no longer finite: "
        f"in step {good.step} (epoch {epoch:.4g}) {where}{raised}. The last good state is in this error's train_state. "
        "Lower the learning rate, clip the gradients, or scale the data.",
        good,
    )


def first_bad(values: Any) -> str | None:
    """The path of the first leaf with a NaN or an infinity."""
    return next(_bad(values), None)


def _bad(values: Any) -> Iterator[str]:
    return (path for path, a in tree.items(values) if not np.isfinite(a).all())


def _first_bad_activation(
    model: Layer[Any, Any], loss: Loss[Any, Any], penalty: Penalty | None, good: TrainState, batch: Any, mode: Mode
) -> str | None:
    with np.errstate(all="ignore"):
        found = _walk(model, good.params, good.state, batch[0], mode, "")
        if isinstance(found, str):
            return f"the output of {found}"
        f = value_and_grad(model, loss, penalty)
        value, grads, _ = f(good.params, good.state, batch[0], batch[1], mode, *batch[2:])
        if not np.isfinite(value):
            return f"the loss {loss!r}" if penalty is None else f"the loss {loss!r} with the penalty {penalty!r}"
        *_, path = [None, *_bad(grads)]  # the backward pass comes to the last one first
        return None if path is None else f"the gradient of {path}"


def _walk(layer: Layer[Any, Any], params: Params, state: State, x: Any, mode: Mode, path: str) -> Any:
    """The output of the layer, or the path of the first layer in it whose output is not finite."""
    if layer.build is not serial:
        y = layer.forward(params, state, x, mode)[0]
        return y if first_bad(y) is None else path or repr(layer)
    for name, child in layer.children:
        child_mode = Train(mode.key.fold_in(name)) if isinstance(mode, Train) and child.draws else mode
        x = _walk(child, params.get(name, EMPTY), state.get(name, EMPTY), x, child_mode, tree.join(path, name))
        if isinstance(x, str):
            return x
    return x


def _raised(
    model: Layer[Any, Any], loss: Loss[Any, Any], penalty: Penalty | None, good: TrainState, batch: Any, mode: Mode
) -> str:
    """What NumPy says when the step is made with floating-point errors raised; the notes of combinators say where."""
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            value_and_grad(model, loss, penalty)(good.params, good.state, batch[0], batch[1], mode, *batch[2:])
    except FloatingPointError as error:
        return f" ({', '.join([str(error), *getattr(error, '__notes__', [])])})"
    return ""
