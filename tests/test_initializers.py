"""Initializers: moments against theory, fans of kernels, orthogonality, dtype, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fnn import initializers
from fnn.initializers import Initializer
from fnn.random import Key
from fnn.types import Shape

EVERY: dict[str, Initializer] = {
    "zeros": initializers.zeros,
    "ones": initializers.ones,
    "constant": initializers.constant(1.5),
    "normal": initializers.normal(0.3),
    "uniform": initializers.uniform(0.3),
    "truncated_normal": initializers.truncated_normal(0.3),
    "variance_scaling": initializers.variance_scaling(3.0, "fan_out", "truncated_normal"),
    "glorot_uniform": initializers.glorot_uniform(),
    "glorot_normal": initializers.glorot_normal(),
    "he_uniform": initializers.he_uniform(),
    "he_normal": initializers.he_normal(),
    "lecun_uniform": initializers.lecun_uniform(),
    "lecun_normal": initializers.lecun_normal(),
    "orthogonal": initializers.orthogonal(1.3),
}
RANDOM = {name: EVERY[name] for name in EVERY if name not in ("zeros", "ones", "constant")}
WRONG: Any = "gauss"
SHAPE = (3, 5, 40, 60)  # a kernel of 15, 40 in, 60 out: 36,000 numbers


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (1, 1), (2, 3, 4, 5), (0, 3)])
def test_shape_and_dtype(name: str, shape: Shape) -> None:
    if name == "orthogonal" and 0 in shape:
        return
    values = EVERY[name](Key(0), shape)
    assert values.shape == shape and values.dtype == np.float32 and np.isfinite(values).all()


@pytest.mark.parametrize("name", RANDOM)
def test_a_function_of_the_key(name: str) -> None:
    make = RANDOM[name]
    assert np.array_equal(make(Key(1), (4, 7)), make(Key(1), (4, 7)))
    assert not np.array_equal(make(Key(1), (4, 7)), make(Key(2), (4, 7)))
    assert not np.array_equal(make(Key(1), (4, 7)), make(Key(1).fold_in("weight"), (4, 7)))


IN, OUT = 40 * 15, 60 * 15


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("normal", 0.09),
        ("uniform", 0.09 / 3),
        ("truncated_normal", 0.09),
        ("variance_scaling", 3 / OUT),
        ("glorot_uniform", 2 / (IN + OUT)),
        ("glorot_normal", 2 / (IN + OUT)),
        ("he_uniform", 2 / IN),
        ("he_normal", 2 / IN),
        ("lecun_uniform", 1 / IN),
        ("lecun_normal", 1 / IN),
    ],
)
def test_mean_and_variance(name: str, variance: float) -> None:
    values = EVERY[name](Key(3), SHAPE).astype(np.float64)
    n = values.size
    assert abs(values.mean()) < 5 * math.sqrt(variance / n)
    assert values.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize(
    ("name", "kurtosis"),
    [("normal", 3.0), ("he_normal", 3.0), ("uniform", 1.8), ("he_uniform", 1.8), ("truncated_normal", 2.37)],
)
def test_the_form_of_the_distribution(name: str, kurtosis: float) -> None:
    """The fourth moment over the squared variance: 3 for a normal, 9/5 for a uniform, 2.37 for one cut at two."""
    values = EVERY[name](Key(4), SHAPE).astype(np.float64)
    assert np.mean(values**4) / values.var() ** 2 == pytest.approx(kurtosis, rel=0.05)


def test_limits() -> None:
    uniform = initializers.uniform(0.3)(Key(0), (200, 200))
    assert -0.3 <= uniform.min() < -0.299 and 0.299 < uniform.max() <= 0.3
    cut = initializers.truncated_normal(0.5)(Key(0), (200, 200)).astype(np.float64)
    width = 2 * 0.5 / 0.87962566103423978  # the deviation of a standard normal cut at two of its own
    assert 0.99 * width < np.abs(cut).max() <= width * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 3, 4, 7), (1, 3, 9, 2)])
def test_orthogonal(shape: Shape) -> None:
    matrix = initializers.orthogonal(1.3)(Key(0), shape).reshape(-1, shape[-1]).astype(np.float64)
    rows, columns = matrix.shape
    product = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    assert np.allclose(product, 1.3**2 * np.eye(min(rows, columns)), atol=1e-6)


def test_orthogonal_is_uniform_over_the_group() -> None:
    """Every entry of a uniform 3x3 rotation or reflection has mean 0 and variance 1/3 (a plain QR has mean -0.6)."""
    entries = np.stack([initializers.orthogonal()(Key(i), (3, 3)) for i in range(600)]).astype(np.float64)
    assert np.abs(entries.mean(axis=0)).max() < 5 * math.sqrt(1 / 3 / 600)
    assert np.allclose((entries**2).mean(axis=0), 1 / 3, atol=0.08)


def test_he_keeps_the_scale_of_activations_through_rectifiers() -> None:
    a = Key(0).fold_in("data").generator().standard_normal((50, 400))
    for i in range(6):
        a = np.maximum(a @ initializers.he_normal()(Key(0).fold_in(i), (400, 400)), 0)
    assert 0.5 < np.mean(a**2) < 2


@pytest.mark.parametrize("name", ["normal", "uniform", "truncated_normal", "orthogonal"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", None])
def test_bad_scales_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a finite"):
        getattr(initializers, name)(value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: initializers.constant(math.nan), "constant: expected value to be a finite number"),
        (lambda: initializers.variance_scaling(-1.0, "fan_in", "normal"), "variance_scaling: expected a finite scale"),
        (lambda: initializers.variance_scaling(1.0, WRONG, "normal"), "expected fan 'fan_in', 'fan_out' or 'fan_avg'"),
        (lambda: initializers.variance_scaling(1.0, "fan_in", WRONG), "expected distribution 'normal', 'trunc"),
        (lambda: initializers.he_normal()(Key(0), (5,)), r"a weight of shape \(..., in, out\), got shape \(5,\)"),
        (lambda: initializers.orthogonal()(Key(0), (5,)), r"a weight of shape \(..., in, out\), got shape \(5,\)"),
    ],
)
def test_other_refusals(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    made = initializers.normal(np.float64(0.5))(Key(0), (2, 2))
    assert made.dtype == np.float32 and np.array_equal(made, initializers.normal(0.5)(Key(0), (2, 2)))
