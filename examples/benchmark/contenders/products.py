"""The floor: only the matrix products of a step, forward and backward, into buffers that are there. Convolutions count
as products with the gathered windows, which are not gathered here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workloads import Workload
from . import Job, Weights

Product = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Factors and result."""


def _product(a: NDArray[Any], b: NDArray[Any]) -> Product:
    return a, b, np.empty((*a.shape[:-1], b.shape[-1]), np.float32)


def _filled(*shape: int) -> NDArray[Any]:
    return np.full(shape, 0.1, np.float32)


def _dense(rows: int, inputs: int, outputs: int, *, first: bool = False, times: int = 1) -> list[Product]:
    """y = x w; dw = x' dy; dx = dy w', which a first layer leaves out. `times`: of y and dx in a recurrence."""
    x, w, dy = _filled(rows, inputs), _filled(inputs, outputs), _filled(rows, outputs)
    part = rows // times
    forward, back = _product(x[:part], w), _product(dy[:part], w.T)
    return [forward] * times + [_product(x.T, dy)] + ([] if first else [back] * times)


def _pair(batch: tuple[int, ...], rows: int, inner: int, columns: int) -> list[Product]:
    """y = a b; da = dy b'; db = a' dy, for stacks of matrices."""
    a, b, dy = _filled(*batch, rows, inner), _filled(*batch, inner, columns), _filled(*batch, rows, columns)
    return [_product(a, b), _product(dy, b.swapaxes(-1, -2)), _product(a.swapaxes(-1, -2), dy)]


def _mlp(work: Workload) -> list[Product]:
    sizes = (*work.shape, *work.units)
    layers = [_dense(work.batch, *pair, first=i == 0) for i, pair in enumerate(zip(sizes, sizes[1:]))]
    return [product for layer in layers for product in (layer if work.loss else layer[:1])]


def _lenet(work: Workload) -> list[Product]:
    first, second, units, classes = work.units
    return [
        *_dense(work.batch * 24 * 24, 5 * 5 * work.shape[-1], first, first=True),
        *_dense(work.batch * 8 * 8, 5 * 5 * first, second),
        *_dense(work.batch, 4 * 4 * second, units),
        *_dense(work.batch, units, classes),
    ]


def _convolutions(work: Workload) -> list[Product]:
    rows, channels = work.batch * math.prod(work.shape[:-1]), (work.shape[-1], *work.units)
    layers = [_dense(rows, 9 * c, d, first=i == 0) for i, (c, d) in enumerate(zip(channels, work.units))]
    return [product for layer in layers for product in layer]


def _recurrent(work: Workload, inputs: int, units: int, gates: int, outputs: int, first: bool) -> list[Product]:
    time = work.shape[0]
    rows = work.batch * time
    return [
        *_dense(rows, inputs, gates * units, first=first),
        *_dense(rows, units, gates * units, times=time),
        *_dense(rows, units, outputs),
    ]


def _block(work: Workload) -> list[Product]:
    (time, features), (heads, hidden) = work.shape, work.units
    rows, stack, size = work.batch * time, (work.batch, heads), features // heads
    return [
        *_dense(rows, features, 3 * features),
        *_pair(stack, time, size, time),
        *_pair(stack, time, time, size),
        *_dense(rows, features, features),
        *_dense(rows, features, hidden),
        *_dense(rows, hidden, features),
    ]


NETWORKS = {
    "mlp": _mlp,
    "lenet": _lenet,
    "convolutions": _convolutions,
    "rnn": lambda work: _recurrent(work, work.shape[-1], work.units[0], 1, work.units[1], True),
    "lstm": lambda work: _recurrent(work, work.units[0], work.units[1], 4, work.units[2], False),
    "block": _block,
}


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    calls = [(np.dot if a.ndim == 2 else np.matmul, a, b, out) for a, b, out in NETWORKS[work.network](work)]

    def step(i: int) -> None:
        for call, a, b, out in calls:
            call(a, b, out)

    return Job(lambda: step)
