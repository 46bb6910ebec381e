"""One row of the conformance table."""

from __future__ import annotations

from typing import Any

import attrs

from fnn.contract import Layer
from fnn.testing import Draw, LayerSubject

BATCH = 5


@attrs.frozen(eq=False)
class Case:
    """A layer, and what `check_layer` needs to know about it. Keep all sizes different, and different from `BATCH`."""

    layer: Layer[Any, Any]
    in_shape: Any
    inputs: Draw | None = None
    """`(generator, full shape) -> array`: draws an input; standard normal by default."""
    tolerance: float = 1e-7
    wrong: tuple[Any, ...] = ()
    """Input shapes (without the batch axis) that are refused with a `ShapeError`.

    By `forward` always; by `out_shape` too, unless the layer would take them with other parameters (`Dense(4)` takes
    any number of features, but not after it was made for three).
    """
    label: str = ""

    def __str__(self) -> str:
        return self.label or f"{self.layer!r} {self.in_shape}"

    def subject(self) -> LayerSubject:
        """What the laws of `fnn.testing` are told."""
        return LayerSubject(
            "check_layer",
            self.layer,
            self.in_shape,
            batch=BATCH,
            inputs=self.inputs,
            tolerance=self.tolerance,
        )
