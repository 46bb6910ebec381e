"""fnn as its users write it. `fnn` replays a compiled step, as `train` does; `fnn_plain` calls the same step as it is.

Both leave several threads to the matrix products of NumPy's BLAS. `fnn_threads` splits batches over the threads
instead, as `train(..., threads=n)` does, where `train` would.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import fnn
from fnn import Key, Layer, Loss, Optimizer, TrainState, make_step, tree
from fnn.threads import ThreadedStep, undivided, workers

from ..workloads import Workload, batches
from . import Job, NotOffered, Step, Weights
from .fnn_networks import NETWORKS


def _momentum(rate: float) -> Optimizer:
    return fnn.chain(fnn.add_decayed_weights(1e-4, where=lambda path, leaf: True), fnn.sgd(rate, momentum=0.9))


LOSSES: dict[str, Loss[Any, Any]] = {
    "mse": fnn.mse,
    "sigmoid": fnn.sigmoid_cross_entropy(),
    "softmax": fnn.softmax_cross_entropy(),
}
OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {"sgd": fnn.sgd, "momentum": _momentum, "adam": fnn.adam}


def initial(work: Workload) -> Weights:
    """The weights with which every contender begins."""
    return dict(tree.items(NETWORKS[work.network](work).init(Key(0), work.shape)))


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    net, data = NETWORKS[work.network](work), batches(work)
    params = tree.map_with_path(lambda path, leaf: weights[path], net.init(Key(0), work.shape))
    if work.loss is None:
        if name == "fnn_threads":
            raise NotOffered("answers are not split")
        answer = _stepper(name, net.apply)
        return Job(lambda: lambda i: answer(params, data[i % len(data)][0]))
    opt = OPTIMIZERS[work.optimizer](work.rate)
    begin = TrainState(0, params, net.init_state(work.shape), opt.init(params), Key(0))
    step = _stepper(name, make_step(net, LOSSES[work.loss], opt))
    if name == "fnn_threads":
        step = _threaded(threads, net, LOSSES[work.loss], opt, begin, data[0])

    def start() -> Step:
        now = begin

        def one(i: int) -> Any:
            nonlocal now
            now, metrics = step(now, data[i % len(data)])
            return metrics["loss"]

        return one

    return Job(start)


def _stepper(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The pure function as this contender calls it."""
    return fnn.compiled(function) if name == "fnn" else function


def _threaded(
    threads: int, net: Layer[Any, Any], loss: Loss[Any, Any], opt: Optimizer, begin: TrainState, batch: Any
) -> Callable[..., Any]:
    """The step on several threads, if it is one that `train` splits."""
    if threads == 1 or undivided(net, loss, opt, begin.state):
        raise NotOffered("batches are not split")
    stack = ExitStack()
    atexit.register(stack.close)  # the threads are there as long as the process
    pool = stack.enter_context(workers(threads))
    step = ThreadedStep(make_step(net, loss, opt), net, loss, opt, None, pool, threads, None)
    step(begin, batch)
    if not any(step.pays.values()):
        raise NotOffered("too little work to share")
    return step
