"""What the laws are told: a layer or a loss, and the points it is tested at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs
import numpy as np

from fnn import tree
from fnn.contract import Eval, Layer, Loss, Mode, Train, params_vjp
from fnn.random import Key
from fnn.types import Array, Params, State

if TYPE_CHECKING:
    from numpy.random import Generator

Draw: TypeAlias = Callable[["Generator", Any], Any]
"""`(generator, shape) -> array`, batch axis included; for several arrays a tuple of shapes gives a tuple."""


@attrs.frozen(eq=False, repr=False)
class LayerSubject:
    """A layer under test, and the points it is tested at."""

    purity: ClassVar[str] = "law 6 (purity)"
    who: str
    layer: Layer[Any, Any]
    in_shape: Any
    key: Key = Key(0)
    batch: int = 5
    inputs: Draw | None = None
    tolerance: float = 1e-7

    def __str__(self) -> str:
        return f"{self.who}({self.layer!r})"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return Train(self.key.fold_in("train")), Eval()

    def input(self, shape: Any, dtype: Any = np.float64) -> Any:
        """A read-only input for the announced shape; floating-point leaves have the dtype."""
        draw = self.inputs or normal
        return tree.cast(draw(self.key.fold_in("input").generator(), full(shape, self.batch)), dtype)

    def point(self, dtype: Any = np.float64) -> tuple[Params, State, Any]:
        """Read-only `(params, state, x)`: the parameters moved from where they start, the state after one pass."""
        generator = self.key.fold_in("moved").generator()
        init = self.layer.init(self.key.fold_in("init"), self.in_shape)
        params = tree.map(lambda a: np.float64(a) + 0.1 * generator.standard_normal(np.shape(a)), init)
        state = tree.cast(self.layer.init_state(self.in_shape), np.float64)
        x = self.input(self.in_shape)
        state = self.layer.forward(tree.cast(params, np.float64), state, x, self.modes[0])[1]
        return tree.cast(params, dtype), tree.cast(state, dtype), tree.cast(x, dtype)

    def cotangent(self, y: Any, name: str = "dy") -> Any:
        """A read-only random dy for the output y."""
        generator = self.key.fold_in(name).generator()
        return tree.read_only(tree.map(lambda a: generator.standard_normal(np.shape(a)).astype(a.dtype), y))

    def vjp(self, params: Params, cache: Any, dy: Any, x: Any) -> tuple[Params, Any]:
        """`(grads, dx)`, dx with None in the place of integer inputs (and not computed where there are only those)."""
        if not tree.leaves(differentiable(x, x)):
            return params_vjp(self.layer)(params, cache, dy), differentiable(x, x)
        grads, dx = self.layer.vjp(params, cache, dy)
        return grads, differentiable(dx, x)


@attrs.frozen(eq=False, repr=False)
class LossSubject:
    """A loss under test, and the points it is tested at."""

    purity: ClassVar[str] = "purity"
    who: str
    loss: Loss[Any, Any]
    output_shape: Any
    key: Key = Key(0)
    batch: int = 5
    outputs: Draw | None = None
    targets: Draw | None = None
    tolerance: float = 1e-7

    def __str__(self) -> str:
        return f"{self.who}({self.loss!r})"

    def point(self, dtype: Any = np.float64, target_dtype: Any = np.float64) -> tuple[Any, Any]:
        """A read-only `(output, target)`."""
        shape = full(self.output_shape, self.batch)
        output = (self.outputs or normal)(self.key.fold_in("output").generator(), shape)
        target = (self.targets or normal)(self.key.fold_in("target").generator(), shape)
        return tree.cast(output, dtype), tree.cast(target, target_dtype)

    @property
    def weights(self) -> tuple[Array | None, Array]:
        """None, and weights of which one is zero."""
        weight = self.key.fold_in("weight").generator().uniform(0.5, 2.0, self.batch)
        weight[1] = 0
        weight.setflags(write=False)
        return None, weight


def normal(generator: Generator, shape: Any) -> Any:
    """Standard normal numbers; a tuple of arrays for a tuple of shapes."""
    return tuple(normal(generator, part) for part in shape) if several(shape) else generator.standard_normal(shape)


def several(shape: Any) -> bool:
    """Whether these are the shapes of several arrays."""
    return bool(shape) and all(isinstance(part, tuple) for part in shape)


def full(shape: Any, batch: int) -> Any:
    """The shape with the batch axis, or the tuple of such shapes."""
    return tuple(full(part, batch) for part in shape) if several(shape) else (batch, *shape)


def differentiable(dx: Any, x: Any) -> Any:
    """The parts of dx that stand where x holds floating-point numbers; None elsewhere."""
    if not isinstance(x, tuple):
        return dx if np.asarray(x).dtype.kind == "f" else None
    if not isinstance(dx, tuple) or len(dx) != len(x):
        return dx  # wrong, and said so where dx is compared with x
    return tuple(differentiable(d, part) for d, part in zip(dx, x))
