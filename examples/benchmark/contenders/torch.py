"""PyTorch. `torch` is eager, with the optimizers as they are by default: on a CPU, one parameter after another
(`foreach` is the default on accelerators only). `torch_fused` takes their fused form; `torch_compile` does, too, and
compiles the network together with its loss.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

from numpy.typing import NDArray

from ..workloads import Workload, batches
from . import Job, NotOffered, Step, Weights
from .torch_networks import NETWORKS

torch: Any = importlib.import_module("torch")
F = torch.nn.functional

LOSSES = {
    "mse": F.mse_loss,
    "sigmoid": F.binary_cross_entropy_with_logits,
    "softmax": lambda z, labels: F.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1)),
}


def build(name: str, work: Workload, weights: Weights, threads: int) -> Job:
    if name == "torch_compile" and work.network in ("rnn", "lstm"):
        raise NotOffered("torch.compile leaves recurrent modules as they are")
    if name == "torch_fused" and work.loss is None:
        raise NotOffered("there is nothing to update")
    torch.set_num_threads(threads)
    modules, forward = NETWORKS[work.network](work, weights)
    data = [(_tensor(x), _tensor(y)) for x, y in batches(work)]
    compiled = torch.compile if name == "torch_compile" else lambda function: function
    if work.loss is None:
        infer = compiled(modules.eval())

        def answer(i: int) -> Any:
            with torch.inference_mode():
                return infer(data[i % len(data)][0])

        return Job(lambda: answer)
    loss, initial = LOSSES[work.loss], copy.deepcopy(modules.state_dict())
    losses = compiled(lambda x, y: loss(forward(x), y))

    def start() -> Step:
        modules.load_state_dict(initial)
        parameters = [p for p in modules.parameters() if p.requires_grad]
        opt = _optimizer(work, parameters, {} if name == "torch" else {"fused": True})

        def one(i: int) -> Any:
            opt.zero_grad()
            value = losses(*data[i % len(data)])
            value.backward()
            opt.step()
            return value

        return one

    return Job(start)


def _tensor(a: NDArray[Any]) -> Any:
    """A batch; images with their channels first."""
    return torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() if a.ndim == 4 else torch.from_numpy(a)


def _optimizer(work: Workload, parameters: list[Any], how: dict[str, bool]) -> Any:
    if work.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=work.rate, **how)
    inertia = {"momentum": 0.9, "weight_decay": 1e-4} if work.optimizer == "momentum" else {}
    return torch.optim.SGD(parameters, lr=work.rate, **inertia, **how)
