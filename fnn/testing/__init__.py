"""Checks that anyone can run on their own layers and losses; the library's own tests are made of them.

Somebody's first own layer, which forgets a factor 2:

>>> from fnn.contract import no_params, stateless
>>> def forward(params, x):
...     return x * x, x
>>> def vjp(params, x, dy):
...     return {}, dy * x
>>> check_layer(stateless("Square", no_params, forward, vjp), (3,))  # doctest: +ELLIPSIS
Traceback (most recent call last):
fnn.testing.LawError: check_layer(Square): law 2 (derivative): x[...]: analytic ..., numeric ...; 15 of 15 are wrong...

Each law is one function, in `layers` or `losses`; `LAYER_LAWS` and `LOSS_LAWS` are the tables of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnn.contract import Layer, Loss
from fnn.random import Key
from fnn.testing.comparison import LawError
from fnn.testing.layers import LAYER_LAWS, check_refusal, derivative_law
from fnn.testing.losses import LOSS_LAWS
from fnn.testing.subjects import Draw, LayerSubject, LossSubject

__all__ = [
    "Draw",
    "LAYER_LAWS",
    "LOSS_LAWS",
    "LawError",
    "LayerSubject",
    "LossSubject",
    "check_law",
    "check_layer",
    "check_loss",
    "check_refusal",
    "check_vjp",
]


def check_layer(
    layer: Layer[Any, Any],
    in_shape: Any,
    *,
    key: Key = Key(0),
    batch: int = 5,
    inputs: Draw | None = None,
    tolerance: float = 1e-7,
) -> float:
    """Checks every law of a layer (`LAYER_LAWS`) and returns the largest error of its derivatives.

    `inputs(generator, shape)` draws an input of the full shape (standard normal by default). Initial parameters are
    moved a little, so that derivatives are not taken at zeros and ones. Keep all sizes different (batch, features in
    and out, ...): a transposed product is right where they are equal.

    Raises `LawError` where the layer breaks a law, or fails.
    """
    subject = LayerSubject("check_layer", layer, in_shape, key, batch, inputs, tolerance)
    return max(check_law(name, law, subject) for name, law in LAYER_LAWS.items())


def check_vjp(
    layer: Layer[Any, Any],
    in_shape: Any,
    *,
    key: Key = Key(0),
    batch: int = 5,
    inputs: Draw | None = None,
    tolerance: float = 1e-7,
) -> float:
    """Checks only that `vjp` is the derivative of `forward`, in both modes; returns the largest error.

    Central differences in float64 along random directions of parameters and inputs, and along every coordinate if
    there are few. The error is `|numeric - analytic| / max(1, |numeric|, |analytic|)`.
    """
    subject = LayerSubject("check_vjp", layer, in_shape, key, batch, inputs, tolerance)
    return check_law("law 2 (derivative)", derivative_law, subject)


def check_loss(
    loss: Loss[Any, Any],
    output_shape: Any,
    targets: Draw | None = None,
    *,
    outputs: Draw | None = None,
    key: Key = Key(0),
    batch: int = 5,
    tolerance: float = 1e-7,
) -> float:
    """Checks every law of a loss (`LOSS_LAWS`) and returns the largest error of its derivative.

    `targets(generator, shape)` and `outputs(generator, shape)` draw for the full shape of the output (standard normal
    by default): `lambda generator, shape: generator.integers(shape[-1], size=shape[:-1])` are labels for logits. For
    several outputs, `output_shape` and the shape given to these are tuples of shapes.

    Raises `LawError` where the loss breaks a law, or fails.
    """
    subject = LossSubject("check_loss", loss, output_shape, key, batch, outputs, targets, tolerance)
    return max(check_law(name, law, subject) for name, law in LOSS_LAWS.items())


def check_law(name: str, law: Callable[[Any], float], subject: LayerSubject | LossSubject) -> float:
    """Runs one law; whatever goes wrong in it becomes a `LawError` that names the law and the subject."""
    try:
        return law(subject)
    except LawError as error:
        raise LawError(f"{subject}: {name}: {error}") from None
    except Exception as error:
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise LawError(f"{subject}: {subject.purity}: it writes into an array it was given ({error})") from error
        raise LawError(f"{subject}: {type(error).__name__} while checking {name}: {error}") from error
