"""The comparison itself: what must not pass as equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fnn.contract import Layer
from fnn.layers.dense import Dense
from tests.reference.comparison import Compared

THEIRS = {"a": np.array([1.0, -200.0]), "b": np.zeros((2, 3))}
WRONG: dict[str, Any] = {
    "a difference of 1e-8 of the largest": THEIRS | {"a": np.array([1.0 + 2e-6, -200.0])},
    "not zero": THEIRS | {"b": np.full((2, 3), 1e-11)},
    "not a number": THEIRS | {"a": np.array([np.nan, -200.0])},
    "float32": THEIRS | {"a": np.array([1.0, -200.0], np.float32)},
    "another shape": THEIRS | {"b": np.zeros((3, 2))},
    "one missing": {"a": THEIRS["a"]},
    "one too many": THEIRS | {"c": np.zeros(1)},
}


@pytest.mark.parametrize("ours", WRONG.values(), ids=[*WRONG])
def test_refuses(ours: Any) -> None:
    with pytest.raises((AssertionError, ValueError)):
        Compared().gradients(ours, THEIRS)


def test_counts_what_agrees() -> None:
    compared = Compared()
    compared.outputs(THEIRS, THEIRS)
    compared.gradients(np.ones(3) + 1e-10, np.ones(3))
    assert compared.counts == {"outputs": 2, "gradients": 1, "running statistics": 0}


@pytest.mark.parametrize("wrong", ["y", "dx", "bias"])
def test_refuses_a_layer_that_differs(wrong: str) -> None:
    pytest.importorskip("torch")
    layer: Layer[Any, Any] = Dense(4)

    def reference(x: Any, weight: Any, bias: Any) -> Any:
        """Right but for what is scaled, in the value or only in the derivative."""
        if wrong == "dx":
            x = (2 * x) - x.detach()
        if wrong == "bias":
            bias = (2 * bias) - bias.detach()
        return (x @ weight + bias) * (1 + 1e-8 * (wrong == "y"))

    with pytest.raises(AssertionError, match="outputs" if wrong == "y" else "gradients"):
        Compared().layer(layer, np.random.default_rng(1).standard_normal((5, 3)), reference)
