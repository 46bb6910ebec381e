"""Every row of `tests/cases` through every law of a layer, and what must be true of the table itself."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fnn
from fnn import initializers, tree
from fnn.combinators import serial
from fnn.contract import Eval, Layer, Train
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.random import Key
from fnn.testing import LAYER_LAWS, check_law, check_refusal
from tests.case import BATCH, Case
from tests.cases import CASES, FAMILIES

every_case = pytest.mark.parametrize("case", CASES, ids=str)


# --- the laws of one layer -------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("law", LAYER_LAWS)
def test_law(case: Case, law: str, record_property: Callable[[str, object], None]) -> None:
    error = check_law(law, LAYER_LAWS[law], case.subject())
    assert error <= case.tolerance
    if law.startswith("law 2 "):
        record_property("derivative error", error)


@pytest.mark.parametrize(
    ("case", "shape"), [pytest.param(c, shape, id=f"{c} refuses {shape}") for c in CASES for shape in c.wrong]
)
def test_a_wrong_input_is_refused(case: Case, shape: Any) -> None:
    check_refusal(case.subject(), shape)


@every_case
def test_no_examples_have_no_outputs(case: Case) -> None:
    params, state, x = case.subject().point()
    y = case.layer.apply(params, tree.map(lambda a: a[:0], x), state)
    expected = tree.map(lambda a: (0, *a.shape[1:]), case.layer.apply(params, x, state))
    assert tree.map(np.shape, y) == expected


@every_case
def test_repr_is_the_code_that_builds_the_layer(case: Case) -> None:
    code = repr(case.layer)
    built = eval(code, dict(NAMES))
    assert repr(built) == code
    ours, theirs = (layer.init(Key(1), case.in_shape) for layer in (case.layer, built))
    assert tree.allclose(ours, theirs, rtol=0, atol=0)


# --- the table -------------------------------------------------------------------------------------------------------


MODULES = [import_module(module.name) for module in pkgutil.walk_packages(fnn.__path__, "fnn.")]


def makes_layers(thing: Any, module: ModuleType) -> bool:
    """Whether it is a layer, or a function defined in the module that gives one (and not a tool to define others)."""
    if isinstance(thing, Layer):
        return True
    if not inspect.isfunction(thing) or thing.__module__ != module.__name__:
        return False
    given = str(thing.__annotations__.get("return", ""))
    return given.startswith(("Layer[", "AnyLayer")) and "kind" not in inspect.signature(thing).parameters


LAYERS: dict[str, Any] = {
    name: thing
    for module in MODULES
    for name, thing in vars(module).items()
    if not name.startswith("_") and makes_layers(thing, module)
}
NAMES: dict[str, Any] = {
    name: thing for module in [*FAMILIES.values(), initializers] for name, thing in vars(module).items()
} | LAYERS
"""What the code that builds a layer may use; rows may be made of layers and functions of their own module."""


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_row(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", repr(case.layer)) for case in CASES), f"no case in tests/cases is about {name}"


def test_every_family_has_a_row() -> None:
    assert all(family.CASES for family in FAMILIES.values())


def parts(shape: Any) -> list[tuple[int, ...]]:
    """The shapes of the arrays of an input or output."""
    several = bool(shape) and all(isinstance(part, tuple) for part in shape)
    return [leaf for part in shape for leaf in parts(part)] if several else [shape]


@every_case
def test_all_sizes_differ(case: Case) -> None:
    """A transposed product, or a sum over the wrong axis, is right where two sizes are equal."""
    for shape in parts(case.in_shape):
        assert len({BATCH, *shape}) == 1 + len(shape), f"equal sizes among the batch, {BATCH}, and the input, {shape}"
    sizes = sorted(size for shape in parts(case.in_shape) for size in shape)
    kept = {shape[-1] for shape in parts(case.in_shape) if shape}
    for shape in parts(case.layer.out_shape(case.in_shape)):
        assert BATCH not in shape, f"the output {shape} has the size of the batch, {BATCH}"
        if shape and shape[-1] not in kept and sorted(shape) != sizes:
            assert shape[-1] not in sizes, f"the features of the output, {shape}, are as many as one of {sizes}"


def test_labels_differ() -> None:
    labels = [str(case) for case in CASES]
    assert len({*labels}) == len(labels)


# --- laws of several layers ------------------------------------------------------------------------------------------


def same_network(
    a: Layer[Any, Any], b: Layer[Any, Any], move: Callable[[Any], Any], in_shape: tuple[int, ...]
) -> None:
    """Outputs and gradients of both agree bit for bit; `move` takes parameters (or gradients) of a to those of b."""
    params = a.init(Key(3), in_shape)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((BATCH, *in_shape), np.float32)
    for mode in (Train(Key(5)), Eval()):
        y, _, cache = a.forward(params, {}, x, mode)
        y_b, _, cache_b = b.forward(move(params), {}, x, mode)
        np.testing.assert_array_equal(y, y_b)
        dy = rng.standard_normal(y.shape, np.float32)
        grads, dx = a.vjp(params, cache, dy)
        grads_b, dx_b = b.vjp(move(params), cache_b, dy)
        np.testing.assert_array_equal(dx, dx_b)
        assert tree.allclose(move(grads), grads_b, rtol=0, atol=0)


def test_serial_is_associative() -> None:
    a, b, c = Dense(4), Tanh, Dense(2)
    flat = serial(a, b, c)
    same_network(
        flat,
        serial(serial(a, b), c),
        lambda p: {"serial_0": {"dense_0": p["dense_0"]}, "dense_0": p["dense_1"]},
        (3,),
    )
    same_network(
        flat,
        serial(a, serial(b, c)),
        lambda p: {"dense_0": p["dense_0"], "serial_0": {"dense_0": p["dense_1"]}},
        (3,),
    )


@pytest.mark.parametrize("neutral", [serial(), *([LAYERS["Identity"]] if "Identity" in LAYERS else [])], ids=repr)
def test_the_identity_is_neutral(neutral: Layer[Any, Any]) -> None:
    net = serial(Dense(4), Tanh, Dense(2))
    for with_neutral in (
        serial(neutral, Dense(4), Tanh, Dense(2)),
        serial(Dense(4), neutral, Tanh, Dense(2)),
        serial(Dense(4), Tanh, Dense(2), neutral),
    ):
        same_network(net, with_neutral, lambda p: p, (3,))


def test_a_serial_of_one_is_that_layer() -> None:
    same_network(Dense(4), serial(Dense(4)), lambda p: {"dense_0": p}, (3,))
