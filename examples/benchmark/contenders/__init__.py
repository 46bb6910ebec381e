"""How each library computes the workloads: one module each, `build(name, work, weights, threads) -> Job`.

`name` tells the contenders of one library apart. `weights` holds the arrays with which all begin under fnn's paths,
`dense_0/weight` of shape (in, out). `build` raises `NotOffered` for what a library does not have.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs
from numpy.typing import NDArray

from ..workloads import Workload

Weights: TypeAlias = Mapping[str, NDArray[Any]]

Step: TypeAlias = Callable[[int], Any]
"""Computes with the batch of that number, waits until it is done, and returns the loss, or the answers."""


@attrs.frozen
class Job:
    """What a contender makes of a workload."""

    start: Callable[[], Step]
    """Goes back to the initial weights."""
    many: Callable[[int], int] | None = None
    """Goes on for at least n steps in one call and says how many, where steps are not called one by one."""


class NotOffered(Exception):
    """The library lacks a part of the workload."""


MODULES = {
    "fnn": "fnn",
    "fnn_plain": "fnn",
    "fnn_threads": "fnn",
    "torch": "torch",
    "torch_fused": "torch",
    "torch_compile": "torch",
    "jax": "jax",
    "thinc": "thinc",
    "sklearn": "sklearn",
    "products": "products",
}
"""The contenders and the modules that build them, which are named like what they import."""

FLOOR = "products"
"""Not a contender, but what none of them gets around."""


def installed(name: str) -> bool:
    """Whether a contender can run here: its library is there, and for `torch_compile` a C++ compiler."""
    module = MODULES[name]
    there = module == FLOOR or importlib.util.find_spec(module) is not None
    return there and (name != "torch_compile" or shutil.which("g++") is not None)


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    """The job of a contender."""
    module: Any = importlib.import_module(f".{MODULES[name]}", __package__)
    job: Job = module.build(name, work, weights, threads)
    return job
