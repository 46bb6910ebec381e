"""How the modules here compare: to 1e-9 in float64, everything counted. The counts stand in the summary of the run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fnn import tree
from fnn.contract import EVAL, Layer, Mode
from fnn.random import Key

CLOSE = 1e-9
SMALL = 1e-3
"""Arrays whose numbers are all smaller, such as gradients that are 0 but for rounding, agree to `CLOSE * SMALL`."""

Reference = Callable[..., Any]


class Compared:
    """What one test, a case, has found equal: the fixture `compared`."""

    def __init__(self) -> None:
        self.counts = {"outputs": 0, "gradients": 0, "running statistics": 0}

    def outputs(self, ours: Any, theirs: Any) -> None:
        self._agree("outputs", ours, theirs)

    def gradients(self, ours: Any, theirs: Any) -> None:
        self._agree("gradients", ours, theirs)

    def statistics(self, ours: Any, theirs: Any) -> None:
        self._agree("running statistics", ours, theirs)

    def _agree(self, kind: str, ours: Any, theirs: Any) -> None:
        """All leaves of two trees (a single array is one) differ by at most 1e-9 of the largest number of each."""
        tree.check_same_structure(ours, theirs, ("ours", "theirs"))
        found = dict(tree.items(ours))
        for path, leaf in tree.items(theirs):
            mine, other = found[path], numpy(leaf)
            assert mine.dtype == other.dtype == np.float64, f"{kind} {path}: {mine.dtype} and {other.dtype}"
            largest, difference = (float(np.abs(a).max(initial=0)) for a in (other, mine - other))
            relative = difference / max(SMALL, largest)
            assert relative <= CLOSE, f"{kind} {path}: differ by {relative:.1e} of the largest number, {largest:.3g}"
            self.counts[kind] += 1

    def layer(
        self,
        layer: Layer[Any, Any],
        x: Any,
        reference: Reference,
        *,
        params: Any = None,
        state: Any = None,
        mode: Mode = EVAL,
    ) -> Any:
        """Compares y, dx and the gradients of a pass with those of `reference(x, *params)`, in our layout.

        Parameters, the leaves of their tree, are random unless given. Returns the new state.
        """
        torch = importlib.import_module("torch")
        rng = np.random.default_rng(1)
        if params is None:
            params = tree.map(lambda a: rng.standard_normal(a.shape), layer.init(Key(0), x.shape[1:]))
        y, state, cache = layer.forward(params, {} if state is None else state, x, mode)
        leaves = [variable(a) for a in (x, *tree.leaves(params))]
        expected = reference(*leaves)
        self.outputs(y, expected)
        dy = rng.standard_normal(y.shape)
        grads, dx = layer.vjp(params, cache, dy)
        dx_expected, *grads_expected = torch.autograd.grad(expected, leaves, torch.tensor(dy))
        self.gradients(dx, dx_expected)
        paths = [path for path, _ in tree.items(params)]
        self.gradients(dict(tree.items(grads)), dict(zip(paths, grads_expected, strict=True)))
        return state


def variable(a: Any) -> Any:
    """A tensor that takes gradients."""
    return importlib.import_module("torch").tensor(np.array(a), requires_grad=True)


def numpy(a: Any) -> Any:
    return a if isinstance(a, np.ndarray) else a.detach().numpy()


def last_first(f: Reference) -> Reference:
    """PyTorch's channels come second."""
    return lambda x, *rest: f(x.movedim(-1, 1), *rest).movedim(1, -1)
