"""The networks in JAX: plain functions of the parameters, a dict by fnn's paths, and the inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from ..workloads import Workload

jax: Any = importlib.import_module("jax")
jnp, lax, nn = jax.numpy, jax.lax, jax.nn

Parameters = Mapping[str, Any]
Forward = Callable[[Workload, Parameters, Any], Any]


def _dense(p: Parameters, path: str, x: Any) -> Any:
    return x @ p[f"{path}/weight"] + p[f"{path}/bias"]


def _mlp(work: Workload, p: Parameters, x: Any) -> Any:
    for i in range(len(work.units)):
        x = _dense(p, f"dense_{i}", x)
        activation = work.activation if i < len(work.units) - 1 else work.last
        x = getattr(jnp if activation == "tanh" else nn, activation)(x) if activation else x
    return x


def _conv(p: Parameters, path: str, x: Any, padding: str) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, p[f"{path}/weight"], (1, 1), padding, dimension_numbers=layout)


def _lenet(work: Workload, p: Parameters, x: Any) -> Any:
    for path in ("conv2d_0", "conv2d_1"):
        x = nn.relu(_conv(p, path, x, "VALID") + p[f"{path}/bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _dense(p, "dense_1", nn.relu(_dense(p, "dense_0", x.reshape(len(x), -1))))


def _normalized(p: Parameters, path: str, x: Any, axes: tuple[int, ...]) -> Any:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(var + 1e-5) * p[f"{path}/scale"] + p[f"{path}/bias"]


def _convolutions(work: Workload, p: Parameters, x: Any) -> Any:
    for i in range(len(work.units)):
        x = nn.relu(_normalized(p, f"batchnorm_{i}", _conv(p, f"conv2d_{i}", x, "SAME"), (0, 1, 2)))
    return x


def _rnn(work: Workload, p: Parameters, x: Any) -> Any:
    def cell(h: Any, z: Any) -> Any:
        h = jnp.tanh(z + h @ p["rnn_0/hidden_weight"])
        return h, h

    z = x.swapaxes(0, 1) @ p["rnn_0/input_weight"] + p["rnn_0/bias"]
    hs = lax.scan(cell, jnp.zeros(z.shape[1:]), z)[1]
    return _dense(p, "dense_0", hs).swapaxes(0, 1)


def _lstm(work: Workload, p: Parameters, tokens: Any) -> Any:
    def cell(carry: Any, z: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(z + h @ p["lstm_0/hidden_weight"], 4, -1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        h = nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    z = p["embedding_0/weight"][tokens.T] @ p["lstm_0/input_weight"] + p["lstm_0/bias"]
    zeros = jnp.zeros((z.shape[1], work.units[1]))
    return _dense(p, "dense_0", lax.scan(cell, (zeros, zeros), z)[1]).swapaxes(0, 1)


def _block(work: Workload, p: Parameters, x: Any) -> Any:
    batch, time, _ = x.shape
    h = _normalized(p, "attention_norm", x, (-1,))
    q, k, v = (
        _dense(p, f"attention/{part}", h).reshape(batch, time, work.units[0], -1).swapaxes(1, 2)
        for part in ("query", "key", "value")
    )
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    a = nn.softmax(jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)) @ v
    x = x + _dense(p, "attention/output", a.swapaxes(1, 2).reshape(x.shape))
    h = nn.gelu(_dense(p, "feed_forward/dense_0", _normalized(p, "feed_forward_norm", x, (-1,))), approximate=True)
    return x + _dense(p, "feed_forward/dense_1", h)


NETWORKS: dict[str, Forward] = {
    "mlp": _mlp,
    "lenet": _lenet,
    "rnn": _rnn,
    "lstm": _lstm,
    "convolutions": _convolutions,
    "block": _block,
}
