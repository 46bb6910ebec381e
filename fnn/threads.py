"""A training step on several threads: each takes a part of the batch, and the gradients are summed in a fixed order.

Pure functions have nothing to lock, and NumPy lets other threads run while it computes. It pays where a step consists
of large calls; where it consists of many small ones, threads wait for each other; there the step stays on one.
The rule that decides looks at the calls of the step, never at a clock: a run gives the same bits as another with as
many threads.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

import numpy as np

from fnn import tree
from fnn.compile import compiled
from fnn.compile.replay import Compiled
from fnn.contract import Layer, Loss, Mode, Penalty, Train, ValueAndGrad, value_and_grad
from fnn.data import weight_of
from fnn.history import TrainState
from fnn.optimizers import GradientTransformation, Update, apply_updates
from fnn.optimizers.protocol import plain_update
from fnn.types import Array, Params

Step = Callable[[TrainState, Any], tuple[TrainState, Any]]

WORTH = 1e-3
"""Seconds of computing, as `estimate` has it, from which on a step is split."""

CALL = 15e-6
"""Seconds that its calls must take on average: below, threads mostly wait for the interpreter."""


UPDATE = 3e-9
"""Seconds to add up and move one parameter for each thread; they must not be more than half of the rest."""


@contextmanager
def workers(threads: int) -> Iterator[Executor]:
    """Threads to compute on, with BLAS on one thread meanwhile.

    That needs threadpoolctl (`pip install "fnn[threads]"`). Without it, a `RuntimeWarning` says so if BLAS may use more
    threads than there are cores left.
    """
    with ThreadPoolExecutor(threads - 1, "fnn") as pool:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            _warn(threads)
            yield pool
        else:
            with threadpool_limits(1, user_api="blas"):
                yield pool


def _warn(threads: int) -> None:
    cores = os.cpu_count() or 1
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    told = [int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()]
    blas = told[0] if told else cores
    if threads * blas > cores:
        warnings.warn(
            f"train: {threads} threads, with up to {blas} of BLAS each, on {cores} cores get in each other's way; "
            'install threadpoolctl (pip install "fnn[threads]"), or set OPENBLAS_NUM_THREADS=1 before importing numpy',
            RuntimeWarning,
            stacklevel=4,
        )


def undivided(model: Layer[Any, Any], loss: Loss[Any, Any], opt: GradientTransformation, state: Any) -> str | None:
    """Why batches cannot be split, or `None` if they can: the parts must add up to the whole."""
    if tree.leaves(state):
        return "layers with running statistics look at the whole batch"
    if model.couples_batch:
        return "layers look at the whole batch (couples_batch)"
    if loss.sums is not None or loss.couples_batch:
        return f"{loss!r} is not a mean over examples that do not know of each other"
    if getattr(opt, "update_with", None) is not None:
        return "the optimizer asks for more than the gradients"
    return None


class ThreadedStep:
    """`make_step` on several threads: a pure function `(train_state, batch) -> (train_state, {"loss": ...})`.

    Part k of a batch draws from the key of the step and k. Batches of fewer examples than threads are not split.
    """

    def __init__(
        self,
        whole: Step,
        model: Layer[Any, Any],
        loss: Loss[Any, Any],
        opt: GradientTransformation,
        penalty: Penalty | None,
        pool: Executor,
        threads: int,
        report: Callable[[str], None] | None,
    ) -> None:
        self.whole = whole
        self.pool, self.threads, self.report = pool, threads, report
        self.draws = model.draws
        self.part: Compiled[..., Any] = compiled(partial(_part, value_and_grad(model, loss)))
        self.finish = compiled(partial(_finish, plain_update(opt), penalty))
        self.pays: dict[Any, bool] = {}

    def __call__(self, before: TrainState, batch: Any) -> tuple[TrainState, Any]:
        parts = self.parts(before, batch)
        if len(parts) == 1:
            return self.whole(before, batch)
        jobs = [
            self.pool.submit(copy_context().run, self.part, before.params, before.state, *part)  # np.errstate, too
            for part in parts[1:]
        ]
        try:
            first = self.part(before.params, before.state, *parts[0])
        finally:
            done = [job.exception() for job in jobs]
        if failed := [error for error in done if error is not None]:
            raise failed[0]
        results = (first, *[job.result() for job in jobs])
        weights = [weight_of(part) for part, _ in parts]
        return self.finish(before, results, tuple([weight / sum(weights) for weight in weights]))

    def parts(self, before: TrainState, batch: Any) -> list[tuple[Any, Train]]:
        """The parts of a batch with the mode of each, one for each thread; the whole, where dividing does not pay."""
        whole, examples = before.mode(self.draws), len(tree.leaves(batch[0])[0])
        form = tuple([(a.shape, a.dtype) for a in tree.leaves(batch)])
        if form not in self.pays:
            self.pays[form] = self._pays(before, batch, examples)
        if not self.pays[form]:
            return [(batch, whole)]
        ends = [examples * k // self.threads for k in range(self.threads + 1)]
        parts = [tree.map(lambda a, k=k: a[ends[k] : ends[k + 1]], batch) for k in range(self.threads)]
        if not all(weight_of(part) for part in parts):
            return [(batch, whole)]
        return [(part, Train(whole.key.fold_in(k)) if self.draws else whole) for k, part in enumerate(parts)]

    def _pays(self, before: TrainState, batch: Any, examples: int) -> bool:
        """Whether batches of this form are split, by the calls of a part."""
        if examples < self.threads:
            return False
        n = examples // self.threads
        args = before.params, before.state, tree.map(lambda a: a[:n], batch), Train(before.key)
        self.part(*args)
        plan = self.part.plan_of(*args)
        if plan is None:  # there may be too many forms; what is split must not depend on which came first
            probe: Compiled[..., Any] = compiled(self.part.function)
            probe(*args)
            plan = probe.plan_of(*args)
        if plan is None:
            self._say(f"a step that cannot be recorded: {'; '.join(self.part.reasons)}")
            return False
        seconds = sum(call.estimate for call in plan.calls)
        pays = seconds > WORTH and seconds / len(plan.calls) > CALL
        pays = pays and tree.size(before.params) * UPDATE * self.threads < seconds / 2
        if not pays:
            self._say(f"batches of {examples} have too little work to share")
        return pays

    def _say(self, reason: str) -> None:
        if self.report is not None:
            self.report(reason)


def _part(f: ValueAndGrad[Any, Any], params: Params, state: Any, batch: Any, mode: Mode) -> tuple[Array, Params]:
    weight = batch[2] if len(batch) == 3 else None
    return f(params, state, batch[0], batch[1], mode, weight)[:2]


def _finish(
    update: Update,
    penalty: Penalty | None,
    before: TrainState,
    parts: tuple[tuple[Array, Params], ...],
    shares: tuple[float, ...],
) -> tuple[TrainState, Any]:
    """The sum of the gradients by their shares, the update, and the new state."""
    params = before.params
    value, grads = parts[0]
    value, grads = value * shares[0], tree.map(lambda g: g * shares[0], grads)
    for (v, g), share in zip(parts[1:], shares[1:]):
        value, grads = value + v * share, tree.map(lambda a, b: a + b * share, grads, g)
    if penalty is not None:
        value, grads = value + penalty.forward(params), penalty.vjp(params, grads)
    updates, opt_state = update(grads, before.opt_state, params)
    after = TrainState(before.step + 1, apply_updates(params, updates), before.state, opt_state, before.key)
    return after, {"loss": np.asarray(value)}
