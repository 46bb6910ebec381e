"""JAX: loss, gradient and update are one jitted step, to which old parameters are donated; each step is waited for."""

from __future__ import annotations

import importlib
from typing import Any

from ..workloads import Workload, batches
from . import Job, Step, Weights
from .jax_networks import NETWORKS, Parameters

jax: Any = importlib.import_module("jax")
jnp, nn, tree_map = jax.numpy, jax.nn, jax.tree_util.tree_map


def _softmax(z: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(nn.log_softmax(z), labels[..., None], -1).mean()


LOSSES = {
    "mse": lambda output, target: ((output - target) ** 2).mean(),
    "sigmoid": lambda z, target: (jnp.logaddexp(0, z) - z * target).mean(),
    "softmax": _softmax,
}


def _updated(work: Workload, p: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    """Parameters and optimizer state after a step; the state is (number of steps, averages of g, averages of g**2)."""
    n, m, v = state
    if work.optimizer == "sgd":
        return tree_map(lambda p, g: p - work.rate * g, p, grads), state
    if work.optimizer == "momentum":
        m = tree_map(lambda m, g, p: 0.9 * m + g + 1e-4 * p, m, grads, p)
        return tree_map(lambda p, m: p - work.rate * m, p, m), (n, m, v)
    n, m = n + 1, tree_map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    rate, root = work.rate / (1 - 0.9**n), (1 - 0.999**n) ** 0.5
    return tree_map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + 1e-8), p, m, v), (n, m, v)


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    forward = NETWORKS[work.network]
    data = [(jnp.asarray(x), jnp.asarray(y)) for x, y in batches(work)]

    if work.loss is None:
        parameters = {path: jnp.asarray(a) for path, a in weights.items()}
        infer = jax.jit(lambda p, x: forward(work, p, x))
        return Job(lambda: lambda i: infer(parameters, data[i % len(data)][0]).block_until_ready())
    loss = LOSSES[work.loss]

    def update(p: Parameters, state: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
        value, grads = jax.value_and_grad(lambda p: loss(forward(work, p, x), y))(p)
        return *_updated(work, p, state, grads), value

    step = jax.jit(update, donate_argnums=(0, 1))

    def zeros(needed: bool) -> Any:
        return {path: jnp.zeros_like(a) for path, a in weights.items()} if needed else None

    def start() -> Step:
        p: Any = {path: jnp.array(a) for path, a in weights.items()}
        state: Any = (jnp.float32(0), zeros(work.optimizer != "sgd"), zeros(work.optimizer == "adam"))

        def one(i: int) -> Any:
            nonlocal p, state
            p, state, value = jax.block_until_ready(step(p, state, *data[i % len(data)]))
            return value

        return one

    return Job(start)
