"""What training asks of its arguments before it begins, and what it says to those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from fnn import tree
from fnn.check import call_hint, positive
from fnn.contract import Layer, Loss, Penalty
from fnn.diagnosis import first_bad
from fnn.metrics import Metric
from fnn.random import Key
from fnn.types import Params


def check_params(params: Params) -> None:
    """Raises unless all are finite arrays of floating-point numbers."""
    for path, leaf in tree.items(params):
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f":
            what = f"dtype {leaf.dtype}" if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise TypeError(f"train: params: {path}: expected an array of floating-point numbers, got {what}")
    if bad := first_bad(params):
        raise ValueError(f"train: params: {bad} holds numbers that are NaN or infinite")


def steps_in_all(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    """How many updates a training makes in all, from either epochs or steps."""
    if per_epoch < 1:
        raise ValueError("train: the data has no batches")
    if epochs is not None and steps is None:
        return positive("train", "epochs", epochs) * per_epoch
    if steps is not None and epochs is None:
        return positive("train", "steps", steps)
    raise ValueError(f"train: expected either epochs or steps, got epochs={epochs} and steps={steps}")


def check_parts(data: Any, opt: Any, model: Any, loss: Any, penalty: Any, metrics: Any, monitor: str, key: Any) -> None:
    """Raises for a part that is not what stands in its place."""
    is_data = hasattr(data, "stream") and hasattr(data, "steps_per_epoch")
    check_part("train: data", data, "batches(...)", is_data)
    check_part("train: opt", opt, "an optimizer such as adam(1e-3)", is_optimizer(opt))
    is_penalty = penalty is None or isinstance(penalty, Penalty)
    check_part("train: penalty", penalty, "a penalty such as l2(1e-4)", is_penalty)
    check_part("train: key", key, "a Key such as Key(0)", isinstance(key, Key))
    names = check_measures("train", model, loss, metrics)
    if monitor not in names:
        raise ValueError(f"train: monitor: expected one of {', '.join(names)}, got {monitor!r}")


def is_optimizer(opt: Any) -> bool:
    """Whether it is a pair (init, update), fnn's or optax's; a metric has these names, too."""
    return hasattr(opt, "init") and hasattr(opt, "update") and not isinstance(opt, Metric)


def check_use(
    evaluation: Any,
    metrics: Sequence[Any],
    monitor: str,
    checkpoint: Any,
    checkpoint_every: Any,
    report: Any,
    compile: Any,
) -> None:
    """Raises for arguments that would do nothing."""
    if evaluation is None and (metrics or monitor != "loss"):
        raise ValueError("train: metrics and monitor look at evaluation data; expected evaluation=(x, target), too")
    if checkpoint is None and checkpoint_every is not None:
        raise ValueError("train: checkpoint_every: expected a file to save to, too: checkpoint=...")
    if report is not None and not callable(report):
        raise TypeError(f"train: report: expected a function of a row, such as progress(), got {report!r}")
    if not isinstance(compile, bool) and not callable(compile):
        raise TypeError(f"train: compile: expected True, False or a compiled step, got {compile!r}")


def check_measures(who: str, model: Any, loss: Any, metrics: Any) -> list[str]:
    """The names of loss and metrics, once all are what they should be."""
    check_part(f"{who}: model", model, "a layer such as serial(...)", isinstance(model, Layer))
    own = "; fnn.losses.loss makes one of your own from a pair of functions"
    check_part(f"{who}: loss", loss, "a loss such as mse", isinstance(loss, Loss), own)
    check_part(f"{who}: metrics", metrics, "a list or tuple of metrics", isinstance(metrics, (list, tuple)))
    for metric in metrics:
        own = "; fnn.metrics.mean_of(name, f) makes one of a function f(output, target) that gives a number an example"
        check_part(f"{who}: metrics", metric, "metrics such as accuracy", isinstance(metric, Metric), own)
        if np.ndim(metric.compute(metric.init())):
            raise TypeError(f"{who}: metrics: expected metrics that give a number; {metric!r} gives an array")
    names = ["loss", *(metric.kind for metric in metrics)]
    if len(set(names)) < len(names):
        raise ValueError(f"{who}: metrics: two have the same name: {', '.join(names)}")
    return names


def check_part(where: str, part: Any, expected: str, ok: bool, own: str = "") -> None:
    """Each part has its place; a function that makes a part, given instead of it, is the common mistake.

    own: what to say to those who give a function of their own.
    """
    if not ok:
        theirs = own and callable(part) and not str(getattr(part, "__module__", "")).startswith("fnn.")
        raise TypeError(f"{where}: expected {expected}, got {kind_of(part)}{own if theirs else call_hint(part)}")


def check_step(given: Any, own: Any) -> None:
    """Raises where a step that `make_step` has made is one of other parts: it would train something else."""
    given = getattr(given, "function", given)
    if isinstance(given, partial) and given.func is own.func and not _is_same(given, own):
        raise ValueError("train: compile: got a step of another model, loss, optimizer or penalty than train itself")


def _is_same(a: Any, b: Any) -> bool:
    """Whether two functions are the same, with the same first arguments."""
    if isinstance(a, partial) and isinstance(b, partial):
        return len(a.args) == len(b.args) and all(map(_is_same, (a.func, *a.args), (b.func, *b.args)))
    return a is b or callable(a) and bool(a == b)


def check_batch(who: str, batch: Any) -> None:
    """Raises unless it is a pair or a triple."""
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise TypeError(f"{who}: expected (x, target) or (x, target, weight), got {kind_of(batch)}")


def kind_of(thing: Any) -> str:
    """What to call it in a message."""
    return f"a tuple of {len(thing)}" if isinstance(thing, tuple) else type(thing).__name__
