"""Pooling and resampling against their definition in loops, closed forms, and where equal maxima send the gradient."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from fnn.contract import EVAL, Layer
from fnn.layers import pool
from fnn.layers.pool import (
    AvgPool1D,
    AvgPool2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    MaxPool1D,
    MaxPool2D,
)
from fnn.layers.resample import AdaptiveAvgPool2D, Upsample2D, ZeroPad2D
from fnn.layers.window import Geometry, geometry, window
from fnn.types import EMPTY, Array, ShapeError


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def run(layer: Layer[Array, Array], x: Array, dy: Array) -> tuple[Array, Array]:
    y, _, cache = layer.forward(EMPTY, EMPTY, x, EVAL)
    return y, layer.vjp(EMPTY, cache, dy)[1]


OPTIONS: list[tuple[int, int, int | None, Any]] = [
    (axes, size, stride, padding)
    for axes in (1, 2)
    for size, stride in product((1, 2, 3), (None, 1, 2, 4))
    for padding in ("valid", "same", size - 1)
]


@pytest.mark.parametrize("block", [1 << 17, 1])
@pytest.mark.parametrize("axes", [1, 2])
def test_windows_are_what_they_say(axes: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_BLOCK", block)
    largest, mean = ((MaxPool1D, AvgPool1D), (MaxPool2D, AvgPool2D))[axes - 1]
    space = (6, 9)[-axes:]
    for _, size, stride, padding in [option for option in OPTIONS if option[0] == axes]:
        shape = window("", "size", axes, size, stride or size, padding)
        g = geometry("", shape, (*space, 2))
        x, dy = draw(3, *space, 2), draw(3, *g.outside, 2, seed=1)
        y = {name: np.zeros(dy.shape) for name in ("max", "mean", "all")}
        dx = {name: np.zeros(x.shape) for name in y}
        for o in product(*map(range, g.outside)):
            reads = [at(i) for i in (place(o, k, g) for k in product(*map(range, g.size))) if within(i, g.inside)]
            some = np.stack([x[i] for i in reads])
            y["max"][at(o)] = some.max(0)
            y["mean"][at(o)] = some.mean(0)
            y["all"][at(o)] = some.sum(0) / size**axes
            for here, value in zip(reads, some):
                d = dy[at(o)]
                dx["max"][here] += d * (value == some.max(0))
                dx["mean"][here] += d / len(reads)
                dx["all"][here] += d / size**axes
        layers = {
            "max": largest(size, stride, padding),
            "mean": mean(size, stride, padding),
            "all": mean(size, stride, padding, count_padding=True),
        }
        for name, layer in layers.items():
            found = run(layer, x, dy)
            np.testing.assert_allclose(found[0], y[name], atol=1e-12, err_msg=f"{layer!r}: y")
            np.testing.assert_allclose(found[1], dx[name], atol=1e-12, err_msg=f"{layer!r}: dx")


def at(i: tuple[int, ...]) -> Any:
    """The index of a pixel of every image."""
    return (slice(None), *i)


def within(i: tuple[int, ...], inside: tuple[int, ...]) -> bool:
    return all(0 <= a < n for a, n in zip(i, inside))


def place(o: tuple[int, ...], k: tuple[int, ...], g: Geometry) -> tuple[int, ...]:
    return tuple(a * s + b - p for a, s, b, (p, _) in zip(o, g.stride, k, g.pads))


# --- equal maxima ----------------------------------------------------------------------------------------------------


MAXIMA = [MaxPool2D(2), MaxPool2D(3), MaxPool2D(3, 2), MaxPool2D(2, 1, "same"), GlobalMaxPool2D]


@pytest.mark.parametrize("layer", MAXIMA)
def test_one_place_takes_the_gradient_of_equal_maxima(layer: Layer[Array, Array]) -> None:
    """Of few different numbers many are equal; each dy arrives exactly once, at a maximum of its window."""
    x = np.random.default_rng(0).integers(0, 2, (5, 6, 12, 2)).astype(np.float64)
    out = layer.apply(EMPTY, x).shape
    for seed in range(3):
        dy = np.zeros(out)
        where = tuple(np.random.default_rng(seed).integers(0, n) for n in out)
        dy[where] = 1
        y, dx = run(layer, x, dy)
        assert dx.sum() == 1 and dx.max() == 1
        assert x[dx == 1][0] == y[where]


def test_the_first_column_and_there_the_first_row_wins() -> None:
    x = np.zeros((1, 2, 4, 1))
    x[0, 1, 0] = x[0, 0, 1] = 7  # left window: below in its first column, above in its second
    _, dx = run(MaxPool2D(2), x, np.array([2.0, 3.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 0, 3, 0], [2, 0, 0, 0]])
    _, dx = run(MaxPool1D(3), np.array([1.0, 4, 4, 2, 2, 2]).reshape(1, 6, 1), np.array([2.0, 3.0]).reshape(1, 2, 1))
    np.testing.assert_array_equal(dx[0, :, 0], [0, 2, 0, 3, 0, 0])
    _, dx = run(GlobalMaxPool1D, np.array([1.0, 4, 4, 2]).reshape(1, 4, 1), np.array([[2.0]]))
    np.testing.assert_array_equal(dx[0, :, 0], [0, 2, 0, 0])


def test_padding_is_never_the_maximum() -> None:
    x = -1 - np.abs(draw(3, 5, 7, 2))
    assert (MaxPool2D(3, 1, "same").apply(EMPTY, x) <= -1).all()


def test_maxima_keep_what_is_not_finite() -> None:
    x = np.array([1.0, np.nan, -np.inf, -np.inf, np.inf, 0.0]).reshape(1, 6, 1)
    np.testing.assert_array_equal(MaxPool1D(2).apply(EMPTY, x)[0, :, 0], [np.nan, -np.inf, np.inf])


# --- means -----------------------------------------------------------------------------------------------------------


def test_the_mean_of_a_constant_is_the_constant() -> None:
    x = np.full((3, 7, 8, 2), 4.0)
    for layer in (AvgPool2D(3, 2, "same"), AvgPool2D(2, 1, 1), AdaptiveAvgPool2D((3, 5)), GlobalAvgPool2D):
        y = layer.apply(EMPTY, x)
        np.testing.assert_allclose(y, np.full(y.shape, 4.0), atol=1e-14)


def test_adaptive_means_have_the_parts_they_say() -> None:
    x = draw(3, 7, 10, 2)
    y = AdaptiveAvgPool2D((3, 4)).apply(EMPTY, x)
    rows, columns = [(0, 3), (2, 5), (4, 7)], [(0, 3), (2, 5), (5, 8), (7, 10)]
    for (i, (top, bottom)), (j, (left, right)) in product(enumerate(rows), enumerate(columns)):
        np.testing.assert_allclose(y[:, i, j], x[:, top:bottom, left:right].mean((1, 2)), atol=1e-12)


def test_adaptive_is_ordinary_where_the_parts_are_equal() -> None:
    x = draw(3, 6, 8, 2)
    np.testing.assert_allclose(AdaptiveAvgPool2D((3, 2)).apply(EMPTY, x), AvgPool2D((2, 4)).apply(EMPTY, x), atol=1e-12)
    whole = AdaptiveAvgPool2D(1).apply(EMPTY, x)[:, 0, 0]
    np.testing.assert_allclose(whole, GlobalAvgPool2D.apply(EMPTY, x), atol=1e-12)


# --- enlargement -----------------------------------------------------------------------------------------------------


def test_nearest_repeats_pixels() -> None:
    x = draw(3, 4, 6, 2)
    np.testing.assert_array_equal(Upsample2D((2, 3)).apply(EMPTY, x), x.repeat(2, axis=1).repeat(3, axis=2))


def test_bilinear_keeps_planes() -> None:
    """A linear function of the place stays the same function, but for the half pixel next to the border."""
    place = np.arange(6.0)
    x = (2 * place[:, None] - 3 * place + 1)[None, :, :, None]
    y = Upsample2D(2, "bilinear").apply(EMPTY, x)[0, :, :, 0]
    new = (np.arange(12) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(y[1:-1, 1:-1], (2 * new[:, None] - 3 * new + 1)[1:-1, 1:-1], atol=1e-12)
    assert y[0, 0] == x[0, 0, 0, 0] and y[-1, -1] == x[0, -1, -1, 0]


@pytest.mark.parametrize(
    "layer",
    [Upsample2D(2), Upsample2D((3, 2), "bilinear"), AdaptiveAvgPool2D((4, 3)), AvgPool2D(3, 2, "same"), ZeroPad2D(2)],
)
def test_linear_maps_have_their_adjoints(layer: Layer[Array, Array]) -> None:
    x = draw(3, 7, 8, 2)
    dy = draw(3, *layer.out_shape((7, 8, 2)), seed=1)
    y, dx = run(layer, x, dy)
    assert abs(np.vdot(y, dy) - np.vdot(x, dx)) < 1e-10


def test_zeros_around() -> None:
    x = draw(3, 4, 6, 2)
    np.testing.assert_array_equal(
        ZeroPad2D(((1, 0), (2, 3))).apply(EMPTY, x), np.pad(x, ((0, 0), (1, 0), (2, 3), (0, 0)))
    )


# --- errors ----------------------------------------------------------------------------------------------------------


WRONG: dict[str, Any] = {"full": "full", "causal": "causal", "cubic": "cubic", "1": 1, "1.5": 1.5}
"""What a type checker would refuse."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool2D(0), "MaxPool2D: expected size to be a positive integer, got 0"),
        (lambda: MaxPool2D((2, 2, 2)), "MaxPool2D: expected size to be an integer or 2 of them, got (2, 2, 2)"),
        (lambda: MaxPool2D(2, 0), "MaxPool2D: expected stride to be a positive integer, got 0"),
        (lambda: MaxPool2D(2, padding=2), "MaxPool2D: expected padding smaller than the window (2, 2), got 2"),
        (lambda: AvgPool1D(2, padding=WRONG["full"]), "AvgPool1D: expected padding 'same' or 'valid'"),
        (lambda: AvgPool1D(2, padding=WRONG["causal"]), "AvgPool1D: expected padding 'same' or 'valid'"),
        (lambda: AvgPool2D(2, count_padding=WRONG["1"]), "AvgPool2D: expected count_padding to be True or False"),
        (lambda: AdaptiveAvgPool2D(0), "AdaptiveAvgPool2D: expected out to be a positive integer, got 0"),
        (lambda: Upsample2D(WRONG["1.5"]), "Upsample2D: expected factor to be a positive integer, got 1.5"),
        (lambda: Upsample2D(2, WRONG["cubic"]), "Upsample2D: expected method 'nearest' or 'bilinear', got 'cubic'"),
        (lambda: ZeroPad2D(-1), "ZeroPad2D: expected padding to be a non-negative integer or 2 pairs"),
    ],
)
def test_bad_hyper_parameters(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def refused(error: type[Exception], message: str) -> Any:
    return pytest.raises(error, match=re.escape(message))


def test_a_wrong_input_is_named() -> None:
    with refused(ShapeError, "MaxPool2D(2): expected input (batch, height, width, channels), got (5, 3)"):
        MaxPool2D(2).apply(EMPTY, np.zeros((5, 3)))
    with refused(ShapeError, "MaxPool2D(3): expected a padded input of at least (3, 3), got (2, 8, 3)"):
        MaxPool2D(3).out_shape((2, 8, 3))
    with refused(TypeError, "AvgPool2D(2): expected an array of float32 or float64, got int64"):
        AvgPool2D(2).apply(EMPTY, np.zeros((5, 6, 8, 3), np.int64))
    with refused(ShapeError, "GlobalAvgPool2D: expected input (batch, height, width, channels), got (5, 3)"):
        GlobalAvgPool2D.apply(EMPTY, np.zeros((5, 3)))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
def test_the_mean_of_a_large_image_keeps_its_digits(value: float) -> None:
    for x in (np.full((1, 512, 512, 3), value, np.float32), np.full((1, 65536, 5), value, np.float32)):
        mean = (GlobalAvgPool2D if x.ndim == 4 else GlobalAvgPool1D).apply(EMPTY, x)
        np.testing.assert_allclose(mean, np.float32(value), rtol=1e-5)
