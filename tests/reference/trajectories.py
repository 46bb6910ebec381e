"""What optimizers are compared on: one small problem, ours by name, and the same rule in optax or PyTorch.

Run as a script with both installed, it writes `trajectories.txt`: the first steps of every reference, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import fnn.optimizers as fo
from fnn import schedules
from fnn.optimizers import Context, Optimizer, apply_updates
from fnn.types import Params

Vector: TypeAlias = NDArray[np.float64]
STORED = Path(__file__).with_name("trajectories.txt")
SHORT, LONG = 10, 50
ROWS, COLUMNS = 4, 3
SIZE = ROWS * COLUMNS + COLUMNS


# --- the problem -----------------------------------------------------------------------------------------------------


def tree_of(x: Vector) -> dict[str, Any]:
    """A bias and a weight; `weight` is (rows, columns) = (in, out)."""
    return {"bias": x[:COLUMNS].copy(), "weight": x[COLUMNS:].reshape(ROWS, COLUMNS).copy()}


def vector_of(params: Any) -> Vector:
    return np.concatenate([np.asarray(params["bias"]).reshape(-1), np.asarray(params["weight"]).reshape(-1)])


def start() -> Vector:
    i = np.arange(SIZE)
    return np.asarray(np.sin(1.7 * i + 0.3) + 0.1 * i)


def gradient(x: Vector, step: int) -> Vector:
    """A bowl whose gradients are noisy, of different sizes, and change their signs."""
    i = np.arange(SIZE)
    noise = np.sin(3.1 * step + 2.3 * i) * (1 + 0.5 * np.cos(i))
    return np.asarray((0.05 + 0.2 * i) * (x - np.cos(i)) * 0.3 + noise)


def ours(opt: Optimizer, steps: int) -> list[Vector]:
    params: Params = tree_of(start())
    state, found = opt.init(params), []
    for step in range(steps):
        x = vector_of(params)

        def grad(at: Params, step: int = step) -> Params:
            return tree_of(gradient(vector_of(at), step))

        grads = tree_of(gradient(x, step))
        if opt.update_with is None:
            updates, state = opt.update(grads, state, params)
        else:
            updates, state = opt.update_with(grads, state, params, Context(np.float64(0.0), 1.0, grad))
        params = apply_updates(params, updates)
        found.append(vector_of(params))
    return found


# --- ours by name ----------------------------------------------------------------------------------------------------

TINY = 1e-300
"""An eps that changes nothing, to compare formulas that differ only in where they add it."""


def everywhere(path: str, parameter: Any) -> bool:
    return True


OURS: dict[str, Optimizer] = {
    "sgd": fo.sgd(0.1),
    "sgd momentum": fo.sgd(0.05, momentum=0.9),
    "sgd nesterov": fo.sgd(0.05, momentum=0.9, nesterov=True),
    "sgd cosine": fo.sgd(schedules.cosine(0.1, steps=30)),
    "rprop": fo.rprop(0.01),
    "lion": fo.lion(0.01, weight_decay=0.1, where=everywhere),
    "adagrad": fo.adagrad(0.1),
    "adagrad tiny": fo.adagrad(0.1, initial=0.1, eps=TINY),
    "rmsprop": fo.rmsprop(0.01),
    "rmsprop momentum": fo.rmsprop(0.01, decay=0.99, momentum=0.9),
    "rmsprop centered": fo.rmsprop(0.01, centered=True, momentum=0.9),
    "adadelta": fo.adadelta(1.0),
    "adam": fo.adam(0.02, b2=0.99),
    "adamw": fo.adamw(0.02, weight_decay=0.1, where=everywhere),
    "amsgrad": fo.amsgrad(0.02, b2=0.9),
    "adamax": fo.adamax(0.02),
    "nadam": fo.nadam(0.02),
    "radam": fo.radam(0.02),
    "radam tiny": fo.radam(0.02, eps=TINY),
    "adabelief": fo.adabelief(0.02),
    "yogi": fo.yogi(0.02),
    "lamb": fo.lamb(0.02, weight_decay=0.1, where=everywhere),
    "lars": fo.lars(1.0, weight_decay=0.1, trust=0.02, where=everywhere),
    "lars nesterov": fo.lars(1.0, nesterov=True, trust=0.02),
    "adafactor": fo.adafactor(0.05, factor_from=2),
    "adafactor whole": fo.adafactor(0.05, scaled=False, weight_decay=0.01, where=everywhere),
    "adafactor root": fo.adafactor(
        lambda t: min(0.05, (t + 1) ** -0.5), factor_from=2, eps=TINY, weight_decay=0.0
    ),
    "muon": fo.muon(0.02, nesterov=False, weight_decay=0.1, eps=TINY, rest=fo.adamw(0.02, eps=TINY, weight_decay=0.0)),
    "schedule-free": fo.schedule_free_adamw(0.05, weight_decay=0.01, where=everywhere),
    "sam": fo.sam(fo.sgd(0.05), radius=0.1),
    "lookahead": fo.lookahead(fo.adam(0.05), every=5, factor=0.5),
    "clip": fo.chain(fo.clip_by_global_norm(1.0), fo.sgd(0.1)),
    "clip value": fo.chain(fo.clip_by_value(0.5), fo.sgd(0.1)),
    "clip block": fo.chain(fo.clip_by_block_rms(0.5), fo.sgd(0.1)),
    "adaptive clip": fo.chain(fo.adaptive_clip(0.05), fo.sgd(0.1)),
    "decay": fo.chain(fo.add_decayed_weights(0.1), fo.sgd(0.1)),
    "decay torch": fo.chain(fo.add_decayed_weights(0.1, where=everywhere), fo.sgd(0.1, momentum=0.9)),
    "partition": fo.partition((fo.at("bias"), fo.sgd(0.1)), rest=fo.adam(0.02)),
}


# --- the same in other libraries -------------------------------------------------------------------------------------


def optax_references() -> dict[str, Any]:
    optax = import_module("optax")
    contrib = import_module("optax.contrib")
    yogi = optax.yogi(0.02)

    def yogi_init(params: Any) -> Any:
        state = yogi.init(params)
        zero = {name: 0 * value for name, value in state[0].mu.items()}
        return (state[0]._replace(mu=zero), *state[1:])

    def exact_decay(step: Any, exponent: float) -> Any:
        """optax's own is computed in float32."""
        return 1.0 - (1.0 + step) ** -exponent

    fixed_yogi = optax.GradientTransformation(yogi_init, yogi.update)
    groups = {"bias": "a", "weight": "b"}
    return {
        "sgd": optax.sgd(0.1),
        "sgd momentum": optax.sgd(0.05, momentum=0.9),
        "sgd nesterov": optax.sgd(0.05, momentum=0.9, nesterov=True),
        "sgd cosine": optax.sgd(optax.cosine_decay_schedule(0.1, 30)),
        "lion": optax.lion(0.01, weight_decay=0.1),
        "adagrad tiny": optax.adagrad(0.1, initial_accumulator_value=0.1, eps=0.0),
        "rmsprop": optax.rmsprop(0.01, eps_in_sqrt=False),
        "rmsprop momentum": optax.rmsprop(0.01, decay=0.99, momentum=0.9, eps_in_sqrt=False),
        "rmsprop centered": optax.rmsprop(0.01, centered=True, momentum=0.9, eps_in_sqrt=False),
        "adadelta": optax.adadelta(1.0),
        "adam": optax.adam(0.02, b2=0.99),
        "adamw": optax.adamw(0.02, weight_decay=0.1),
        "adamax": optax.adamax(0.02),
        "nadam": optax.nadam(0.02),
        "radam": optax.radam(0.02),
        "adabelief": optax.adabelief(0.02),
        "yogi": fixed_yogi,
        "lamb": optax.lamb(0.02, weight_decay=0.1),
        "lars": optax.lars(1.0, weight_decay=0.1, trust_coefficient=0.02),
        "lars nesterov": optax.lars(1.0, nesterov=True, trust_coefficient=0.02),
        "adafactor": optax.chain(
            optax.scale_by_factored_rms(min_dim_size_to_factor=2, decay_rate_fn=exact_decay),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(),
            optax.scale(-0.05),
        ),
        "adafactor whole": optax.chain(
            optax.scale_by_factored_rms(decay_rate_fn=exact_decay),
            optax.clip_by_block_rms(1.0),
            optax.scale(-0.05),
            optax.add_decayed_weights(-0.05 * 0.01),
        ),
        "muon": contrib.muon(0.02, nesterov=False, weight_decay=0.1, eps=0.0, adam_weight_decay=0.0),
        "schedule-free": contrib.schedule_free_adamw(0.05, weight_decay=0.01),
        "lookahead": optax.lookahead(optax.adam(0.05), 5, 0.5),
        "clip": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        "clip value": optax.chain(optax.clip(0.5), optax.sgd(0.1)),
        "clip block": optax.chain(optax.clip_by_block_rms(0.5), optax.sgd(0.1)),
        "adaptive clip": optax.chain(optax.adaptive_grad_clip(0.05), optax.sgd(0.1)),
        "decay": optax.chain(
            optax.add_decayed_weights(0.1, mask={"bias": False, "weight": True}), optax.sgd(0.1)
        ),
        "partition": optax.partition({"a": optax.sgd(0.1), "b": optax.adam(0.02)}, groups),
    }


def run_optax(name: str, steps: int) -> list[Vector]:
    jax = import_module("jax")
    optax = import_module("optax")
    with jax.enable_x64(True):
        transform = optax_references()[name]
        lookahead = name == "lookahead"
        params = jax.tree.map(jax.numpy.asarray, tree_of(start()))
        params = optax.LookaheadParams.init_synced(params) if lookahead else params
        state, found = transform.init(params), []
        for step in range(steps):
            x = vector_of(params.fast if lookahead else params)
            grads = jax.tree.map(jax.numpy.asarray, tree_of(gradient(x, step)))
            updates, state = transform.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            found.append(vector_of(params.fast if lookahead else params))
    return found


TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "sgd nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "decay torch": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "rprop": ("Rprop", {"lr": 0.01}),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "rmsprop": ("RMSprop", {"lr": 0.01, "alpha": 0.9}),
    "rmsprop momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    "rmsprop centered": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.9, "centered": True}),
    "adadelta": ("Adadelta", {"lr": 1.0}),
    "adam": ("Adam", {"lr": 0.02, "betas": (0.9, 0.99)}),
    "adamw": ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
    "amsgrad": ("Adam", {"lr": 0.02, "betas": (0.9, 0.9), "amsgrad": True}),
    "adamax": ("Adamax", {"lr": 0.02}),
    "radam tiny": ("RAdam", {"lr": 0.02, "eps": 0.0}),
    "adafactor root": ("Adafactor", {"lr": 0.05, "weight_decay": 0.0, "eps": (1e-150, 1e-3)}),
}


def run_torch(name: str, steps: int) -> list[Vector]:
    torch = import_module("torch")
    kind, options = TORCH[name]
    tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in tree_of(start()).items()}
    optimizer = getattr(torch.optim, kind)(tensors.values(), **options)
    found = []
    for step in range(steps):
        x = vector_of({k: v.detach().numpy() for k, v in tensors.items()})
        for name_, g in tree_of(gradient(x, step)).items():
            tensors[name_].grad = torch.tensor(g)
        optimizer.step()
        found.append(vector_of({k: v.detach().numpy() for k, v in tensors.items()}))
    return found


def stored() -> dict[str, list[Vector]]:
    """The trajectories in the file, by `library: name`."""
    found: dict[str, list[Vector]] = {}
    for line in STORED.read_text().splitlines():
        if not line.startswith("#"):
            name, numbers = line.split(" | ")
            found.setdefault(name, []).append(np.array([float(number) for number in numbers.split()]))
    return found


def write() -> None:
    """Writes the fifth and the tenth step of every reference: enough to tell rules apart."""
    lines = [
        "# The parameters after each of the first steps of other libraries' optimizers, written by trajectories.py.",
        f"# optax {import_module('optax').__version__}, torch {import_module('torch').__version__}, float64",
    ]
    runs: list[tuple[str, Callable[[str, int], list[Vector]], list[str]]] = [
        ("optax", run_optax, list(optax_references())),
        ("torch", run_torch, list(TORCH)),
    ]
    for library, run, names in runs:
        for name in names:
            lines += [f"{library}: {name} | " + " ".join(f"{v:.13e}" for v in x) for x in run(name, SHORT)[4::5]]
    STORED.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
