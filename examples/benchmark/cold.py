"""W12: what it costs to begin. A fresh process imports a library and makes one step of W1, as its user would write it;
and how much disk the library takes with all that it needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import perf_counter

import attrs

from .machine import ROOT, settings

DATA = """
import numpy as np
x = np.linspace(-1, 1, 90, dtype=np.float32)[:, None]
y = np.sin(3 * x)
"""

PROGRAMS = {
    "fnn": """
from fnn import Dense, Key, Sigmoid, batches, mse, serial, sgd, train
net = serial(Dense(25), Sigmoid, Dense(1))
train(net.init(Key(0), (1,)), batches((x, y), size=90), sgd(0.1), model=net, loss=mse, steps=1)
""",
    "torch": """
import torch
from torch import nn
net = nn.Sequential(nn.Linear(1, 25), nn.Sigmoid(), nn.Linear(25, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
nn.functional.mse_loss(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
opt.step()
""",
    "jax": """
import jax
import jax.numpy as jnp
v, w = jax.random.split(jax.random.key(0))
params = jax.random.normal(v, (1, 25)), jnp.zeros(25), jax.random.normal(w, (25, 1)) / 5, jnp.zeros(1)
def loss(p, x, y):
    return ((jax.nn.sigmoid(x @ p[0] + p[1]) @ p[2] + p[3] - y) ** 2).mean()
@jax.jit
def step(p, x, y):
    return jax.tree_util.tree_map(lambda a, g: a - 0.1 * g, p, jax.grad(loss)(p, x, y))
jax.block_until_ready(step(params, x, y))
""",
    "thinc": """
from thinc.api import SGD, Linear, Sigmoid, chain
net = chain(Sigmoid(25), Linear(1))
net.initialize(X=x, Y=y)
answer, back = net.begin_update(x)
back((answer - y) * np.float32(2 / 90))
net.finish_update(SGD(0.1))
""",
    "sklearn": """
from sklearn.neural_network import MLPRegressor
net = MLPRegressor(hidden_layer_sizes=25, activation="logistic", solver="sgd", learning_rate_init=0.2)
net.partial_fit(x, y.ravel())
""",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


@attrs.frozen
class Cold:
    """A contender's start."""

    contender: str
    milliseconds: float
    """Median of fresh processes, from before their start until after their end."""
    megabytes: float
    """Installed size of the library and of all that it requires."""


def cold_starts(contenders: Sequence[str], rounds: int) -> list[Cold]:
    """In turns, once uncounted for the caches."""
    names = [name for name in PROGRAMS if name in contenders]
    environment = {**os.environ, **settings(1), "PYTHONPATH": str(ROOT)}
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names * (rounds + 1):
        begin = perf_counter()
        subprocess.run([sys.executable, "-c", DATA + PROGRAMS[name]], env=environment, check=True, capture_output=True)
        times[name].append(1e3 * (perf_counter() - begin))
    return [Cold(name, statistics.median(times[name][1:]), _installed(DISTRIBUTIONS.get(name, name))) for name in names]


def _installed(name: str) -> float:
    sizes: dict[str, int] = {}
    _measure(name, sizes)
    return sum(sizes.values()) / 2**20


def _measure(name: str, sizes: dict[str, int]) -> None:
    """Enters the files of a distribution and of those that it requires; what is not installed is not needed here."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    if name in sizes:
        return
    files = {Path(str(file.locate())) for file in found.files or ()}
    if name == "fnn" and (spec := importlib.util.find_spec(name)) and spec.origin:  # also where it runs from its source
        files |= set(Path(spec.origin).parent.rglob("*.py"))
    sizes[name] = sum(file.stat().st_size for file in files if file.is_file())
    for requirement in found.requires or ():
        if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement)):
            _measure(match[0], sizes)
