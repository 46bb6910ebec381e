"""Checks that anyone can run on their own layers and losses; the library's own tests are made of them.

Somebody's first own layer, which forgets a factor 2:

>>> from fnn.contract import no_params, stateless
>>> def forward(params, x):
...     return x * x, x
>>> def vjp(params, x, dy):
...     return {}, dy * x
>>> check_layer(stateless("Square", no_params, forward, vjp), (3,))  # doctest: +ELLIPSIS
Traceback (most recent call last):
fnn.testing.LawError: check_layer(Square): law 2 (derivative): x[...]: analytic ..., numeric ...; 15 of 15 are wrong...

Each law is one function below; `LAYER_LAWS` and `LOSS_LAWS` are the tables of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import attrs
import numpy as np

from fnn import tree
from fnn.contract import Eval, Layer, Loss, Mode, Train, evaluator, inputs_vjp, params_vjp, trainable
from fnn.losses.core import ratio, sums_of
from fnn.random import Key
from fnn.types import Array, NDArray, Params, ShapeError, State

if TYPE_CHECKING:
    from numpy.random import Generator

Draw: TypeAlias = Callable[["Generator", Any], Any]
"""`(generator, shape) -> array`, batch axis included; for several arrays a tuple of shapes gives a tuple."""

Coupling: TypeAlias = bool | Literal["train"]
"""Whether the examples of a batch influence each other: never, always, or in Train mode only (batch normalisation)."""

STEP = 1e-6
"""The step of the central differences; their error in float64 is then about 1e-10 for numbers near 1."""
TINY = 300
"""Up to so many numbers (parameters and inputs together) every partial derivative is checked."""
CLOSE = 1e-9
"""What may differ in float64 between two ways to the same number (orders of summation)."""
CLOSE_FLOAT32 = 1e-4
"""What may differ between the float32 and the float64 result of a layer."""


class LawError(AssertionError):
    """A layer or a loss breaks a law; the message says which, and how."""


# --- the checks ------------------------------------------------------------------------------------------------------


def check_layer(
    layer: Layer[Any, Any],
    in_shape: Any,
    *,
    key: Key = Key(0),
    batch: int = 5,
    inputs: Draw | None = None,
    couples_batch: Coupling = False,
    tolerance: float = 1e-7,
) -> float:
    """Checks every law of a layer (`LAYER_LAWS`) and returns the largest error of its derivatives.

    `inputs(generator, shape)` draws an input of the full shape (standard normal by default). Initial parameters are
    moved a little, so that derivatives are not taken at zeros and ones. Keep all sizes different (batch, features in
    and out, ...): a transposed product is right where they are equal.

    Raises `LawError` where the layer breaks a law, or fails.
    """
    subject = LayerSubject("check_layer", layer, in_shape, key, batch, inputs, couples_batch, tolerance)
    return max(check_law(name, law, subject) for name, law in LAYER_LAWS.items())


def check_vjp(
    layer: Layer[Any, Any],
    in_shape: Any,
    *,
    key: Key = Key(0),
    batch: int = 5,
    inputs: Draw | None = None,
    tolerance: float = 1e-7,
) -> float:
    """Checks only that `vjp` is the derivative of `forward`, in both modes; returns the largest error.

    Central differences in float64 along random directions of parameters and inputs, and along every coordinate if
    there are few. The error is `|numeric - analytic| / max(1, |numeric|, |analytic|)`.
    """
    subject = LayerSubject("check_vjp", layer, in_shape, key, batch, inputs, False, tolerance)
    return check_law("law 2 (derivative)", derivative_law, subject)


def check_loss(
    loss: Loss[Any, Any],
    output_shape: Any,
    targets: Draw | None = None,
    *,
    outputs: Draw | None = None,
    key: Key = Key(0),
    batch: int = 5,
    tolerance: float = 1e-7,
) -> float:
    """Checks every law of a loss (`LOSS_LAWS`) and returns the largest error of its derivative.

    `targets(generator, shape)` and `outputs(generator, shape)` draw for the full shape of the output (standard normal
    by default): `lambda generator, shape: generator.integers(shape[-1], size=shape[:-1])` are labels for logits. For
    several outputs, `output_shape` and the shape given to these are tuples of shapes.

    Raises `LawError` where the loss breaks a law, or fails.
    """
    subject = LossSubject("check_loss", loss, output_shape, key, batch, outputs, targets, tolerance)
    return max(check_law(name, law, subject) for name, law in LOSS_LAWS.items())


def check_law(name: str, law: Callable[[Any], float], subject: LayerSubject | LossSubject) -> float:
    """Runs one law; whatever goes wrong in it becomes a `LawError` that names the law and the subject."""
    try:
        return law(subject)
    except LawError as error:
        raise LawError(f"{subject}: {name}: {error}") from None
    except Exception as error:
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise LawError(f"{subject}: {subject.purity}: it writes into an array it was given ({error})") from error
        raise LawError(f"{subject}: {type(error).__name__} while checking {name}: {error}") from error


# --- what the laws are told ------------------------------------------------------------------------------------------


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
    couples_batch: Coupling = False
    tolerance: float = 1e-7

    def __str__(self) -> str:
        return f"{self.who}({self.layer!r})"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return Train(self.key.fold_in("train")), Eval()

    def input(self, shape: Any, dtype: Any = np.float64) -> Any:
        """A read-only input for the announced shape; floating-point leaves have the dtype."""
        draw = self.inputs or _normal
        return tree.cast(draw(self.key.fold_in("input").generator(), _full(shape, self.batch)), dtype)

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
        if not tree.leaves(_differentiable(x, x)):
            return params_vjp(self.layer)(params, cache, dy), _differentiable(x, x)
        grads, dx = self.layer.vjp(params, cache, dy)
        return grads, _differentiable(dx, x)


def _normal(generator: Generator, shape: Any) -> Any:
    """Standard normal numbers; a tuple of arrays for a tuple of shapes."""
    return tuple(_normal(generator, part) for part in shape) if _several(shape) else generator.standard_normal(shape)


def _several(shape: Any) -> bool:
    return bool(shape) and all(isinstance(part, tuple) for part in shape)


def _full(shape: Any, batch: int) -> Any:
    """The shape with the batch axis, or the tuple of such shapes."""
    return tuple(_full(part, batch) for part in shape) if _several(shape) else (batch, *shape)


def _differentiable(dx: Any, x: Any) -> Any:
    """The parts of dx that stand where x holds floating-point numbers; None elsewhere."""
    if not isinstance(x, tuple):
        return dx if np.asarray(x).dtype.kind == "f" else None
    if not isinstance(dx, tuple) or len(dx) != len(x):
        return dx  # wrong, and said so where dx is compared with x
    return tuple(_differentiable(d, part) for d, part in zip(dx, x))


def _describe(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"{type(value).__name__} {value!r}"


def _mode(mode: Mode) -> str:
    return type(mode).__name__


# --- comparisons -----------------------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LawError(message)


def _require_alike(what: str, got: Any, expected: Any) -> None:
    """Both trees have the same structure, shapes and dtypes; arrays stand where arrays are expected."""
    try:
        tree.check_same_structure(got, expected, ("what was given", "what was expected"))
    except ValueError as error:
        raise LawError(f"{what}: {error}") from None

    def compare(path: str, a: Any, b: Any) -> None:
        if np.asarray(a).dtype != np.asarray(b).dtype or (isinstance(b, np.ndarray) and not isinstance(a, np.ndarray)):
            raise LawError(f"{_path(what, path)}: expected {_describe(b)}, got {_describe(a)}")

    tree.map_with_path(compare, got, expected)


def _require_equal(what: str, got: Any, expected: Any, than: str, tolerance: float = 0.0) -> None:
    """The trees are alike and hold the same numbers: the same bits, or an error `|a - b| / max(1, |a|, |b|)`."""
    _require_alike(what, got, expected)

    def compare(path: str, a: Any, b: Any) -> None:
        if np.asarray(a).tobytes() == np.asarray(b).tobytes():
            return
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = np.asarray(np.abs(a - b) / np.maximum(1, np.maximum(np.abs(a), np.abs(b))))
        if tolerance == 0 or not np.all(error <= tolerance):
            at = np.unravel_index(np.argmax(error), error.shape)  # argmax finds nan first
            raise LawError(f"{_place(_path(what, path), at)} is {a[at]:.12g}, {than} {b[at]:.12g}")

    tree.map_with_path(compare, got, expected)


def _path(what: str, path: str) -> str:
    return f"{what}: {path}" if path else what


def _place(name: str, index: Any) -> str:
    """`weight[1, 2]`."""
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if len(index) else name


def _copy(value: Any) -> Any:
    """A tree whose arrays share nothing with those of the given one."""
    return tree.map(lambda a: np.array(a) if isinstance(a, np.ndarray) else a, value)


def _rows(value: Any, i: int) -> Any:
    """The batch that holds example i alone."""
    return tree.map(lambda a: a[i : i + 1], value)


# --- derivatives -----------------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Claim:
    """That `gradient` is the derivative of `dot(dy, f(tree))` at a tree of float64 numbers."""

    f: Callable[[Any], Any]
    dy: Any
    at: Any
    gradient: Any
    vector: Array = attrs.field(init=False)
    """The numbers of `at`."""
    claimed: Array = attrs.field(init=False)
    """The numbers of `gradient`, in the same order."""

    @vector.default
    def _vector(self) -> Array:
        return tree.concatenate(self.at, self.at)

    @claimed.default
    def _claimed(self) -> Array:
        return tree.concatenate(self.gradient, self.at)

    def slopes(self, chosen: NDArray[Any], direction: Array) -> tuple[float, float, float]:
        """`(error, analytic, numeric)` along a direction in the chosen coordinates.

        The error is relative to 1, to the two numbers and to the length of the gradient in these coordinates, whichever
        is largest: along a random direction the two numbers may be small by cancellation.
        """
        claimed = self.claimed[chosen]
        moved = np.zeros(self.vector.size)
        moved[chosen] = STEP * direction
        up, down = (self.f(tree.read_only(tree.unravel(self.vector + d, self.at))) for d in (moved, -moved))
        numeric = tree.dot(self.dy, tree.map(np.subtract, up, down)) / (2 * STEP)
        analytic = float(claimed.dot(direction))
        size = max(1.0, abs(numeric), abs(analytic), float(np.linalg.norm(claimed)))
        return abs(numeric - analytic) / size, analytic, numeric

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """The positions of every leaf in the vector of all numbers."""
        indices = tree.unravel(np.arange(self.vector.size), self.at)
        return {path: leaf.reshape(-1) for path, leaf in tree.items(indices)}


def _gradient_error(claim: _Claim, tolerance: float, circumstance: str) -> float:
    """The largest error along a random direction of all numbers, one of every leaf, and every coordinate if few."""
    generator = Key(0).fold_in("directions").generator()
    coordinates = claim.coordinates()
    count = claim.vector.size
    largest = 0.0
    for path, chosen in coordinates.items():
        errors = [claim.slopes(chosen, generator.standard_normal(chosen.size))[0]]
        if count <= TINY:
            errors += [claim.slopes(np.array([i]), np.ones(1))[0] for i in chosen]
        if not all(error <= tolerance for error in errors):
            raise LawError(f"{_worst(claim, path, chosen, tolerance)} ({circumstance})")
        largest = max(largest, *errors)
    error, analytic, numeric = claim.slopes(np.arange(count), generator.standard_normal(count))
    along = f"along a direction of all numbers: analytic {analytic:.9g}, numeric {numeric:.9g} ({circumstance})"
    _require(error <= tolerance, along)
    return max(largest, error)


def _worst(claim: _Claim, path: str, chosen: NDArray[Any], tolerance: float) -> str:
    """`weight[1, 2]: analytic 0.5, numeric 0.25; 3 of 6 are wrong`; of many numbers, those where the error lies."""
    start = int(chosen[0])
    while chosen.size > TINY:
        chosen = max(np.array_split(chosen, 2), key=lambda half: _rank(claim.slopes(half, np.ones(half.size))[0]))
    found = {int(i): claim.slopes(np.array([i]), np.ones(1)) for i in chosen}
    worst = max(found, key=lambda i: _rank(found[i][0]))
    _, analytic, numeric = found[worst]
    wrong = sum(not error <= tolerance for error, _, _ in found.values())
    index = np.unravel_index(worst - start, np.shape(tree.get(claim.at, path)))
    where = _place(path.removeprefix("params/"), index)
    return f"{where}: analytic {analytic:.9g}, numeric {numeric:.9g}; {wrong} of {len(found)} are wrong"


def _rank(error: float) -> float:
    return np.inf if np.isnan(error) else error


# --- the laws of layers ----------------------------------------------------------------------------------------------


def init_law(s: LayerSubject) -> float:
    """`init` gives read-only float32 arrays, and the same ones for the same key."""
    params = s.layer.init(s.key, s.in_shape)
    _require_equal("init", s.layer.init(s.key, s.in_shape), params, "before, for the same key,")
    for path, leaf in tree.items(params):
        right = isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
        _require(right, f"{path}: expected a float32 array, got {_describe(leaf)}")
        _require(not leaf.flags.writeable, f"{path}: expected a read-only array; `layer` and `tree.read_only` make one")
    return 0.0


def shape_law(s: LayerSubject) -> float:
    """`out_shape` is the shape that `forward` gives."""
    params, state, x = s.point()
    promised = _full(s.layer.out_shape(s.in_shape), s.batch)
    for mode in s.modes:
        given = _shape(s.layer.forward(params, state, x, mode)[0])
        _require(given == promised, f"out_shape promises {promised}, forward gives {given} ({_mode(mode)})")
    return 0.0


def _shape(y: Any) -> Any:
    return tuple(_shape(part) for part in y) if isinstance(y, tuple) else np.shape(y)


def purity_law(s: LayerSubject) -> float:
    """Nothing that was given is changed: parameters, state, input, cache, dy. (All their arrays are read-only, too.)"""
    params, state, x = s.point()
    given: dict[str, Any] = {"params": params, "state": state, "x": x}
    original = _copy(given)
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        _require_equal("forward changes what it is given", given, original, "it was")
        of_vjp = {"params": params, "cache": tree.read_only(cache), "dy": s.cotangent(y)}
        before = _copy(of_vjp)
        s.vjp(params, of_vjp["cache"], of_vjp["dy"], x)
        _require_equal("vjp changes what it is given", of_vjp, before, "it was")
        params_vjp(s.layer)(params, of_vjp["cache"], of_vjp["dy"])
        _require_equal("param_vjp changes what it is given", of_vjp, before, "it was")
    evaluator(s.layer)(params, state, x)
    _require_equal("infer changes what it is given", given, original, "it was")
    return 0.0


def gradient_law(s: LayerSubject) -> float:
    """Gradients have structure, shapes and dtypes of what they belong to (`None` where parameters are frozen).

    float32 stays float32, float64 float64.
    """
    for dtype in (np.float32, np.float64):
        params, state, x = s.point(dtype)
        floats = any(np.asarray(leaf).dtype.kind == "f" for leaf in tree.leaves((params, x)))
        for mode in s.modes:
            y, after, cache = s.layer.forward(params, state, x, mode)
            if floats:
                _require_alike("output", y, tree.map(lambda a: np.asarray(a, dtype), y))
            _require_alike("state", after, state)
            dy = s.cotangent(y)
            grads, dx = s.vjp(params, cache, dy, x)
            _require_alike("grads", grads, trainable(s.layer, params))
            _require_alike("dx", dx, _differentiable(x, x))
            _require_alike("param_vjp", params_vjp(s.layer)(params, cache, dy), grads)
        _require_alike("infer", evaluator(s.layer)(params, state, x), y)
    return 0.0


def mode_law(s: LayerSubject) -> float:
    """A pass depends on its arguments alone. Eval leaves the state as it is, Train keeps its structure."""
    params, state, x = s.point()
    start = s.layer.init_state(s.in_shape)
    _require_alike("state after the first pass", tree.cast(state, np.float32), tree.cast(start, np.float32))
    for mode in s.modes:
        y, after, _ = s.layer.forward(params, state, x, mode)
        y_again, after_again, _ = s.layer.forward(params, state, x, mode)
        _require_equal(f"output of a second, equal call ({_mode(mode)})", y_again, y, "of the first")
        _require_equal(f"state after a second, equal call ({_mode(mode)})", after_again, after, "after the first")
        _require_alike(f"state after {_mode(mode)}", after, state)
        if isinstance(mode, Eval):
            _require_equal("state after Eval", after, state, "before it")
        elif not s.layer.draws:
            y_other = s.layer.forward(params, state, x, Train(s.key.fold_in("other")))[0]
            _require_equal("output for another key, although draws=False,", y_other, y, "for the first key")
    return 0.0


def linear_law(s: LayerSubject) -> float:
    """`vjp` is linear in dy, and gives the same when it is called again."""
    params, state, x = s.point()
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        a, b = s.cotangent(y, "a"), s.cotangent(y, "b")
        of_a, of_b = _copy(s.vjp(params, cache, a, x)), _copy(s.vjp(params, cache, b, x))
        _require_equal("second vjp of the same dy", s.vjp(params, cache, a, x), of_a, "the first")
        of_both = s.vjp(params, cache, tree.read_only(tree.map(_combine, a, b)), x)
        _require_equal("vjp(20 a - 30 b)", of_both, tree.map(_combine, of_a, of_b), "20 vjp(a) - 30 vjp(b) is", CLOSE)
    return 0.0


def _combine(a: Array, b: Array) -> Array:
    return np.asarray(20 * a - 30 * b)


def derivative_law(s: LayerSubject) -> float:
    """`vjp` is the derivative of `forward`, by central differences in float64."""
    params, state, x = s.point()
    floats, others = tree.partition(x, lambda path, a: bool(np.asarray(a).dtype.kind == "f"))
    moving = trainable(s.layer, params)
    errors = []
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        grads, dx = s.vjp(params, cache, dy, x)
        _require_alike("grads", grads, moving)
        _require_alike("dx", dx, floats)

        def f(at: Any, mode: Mode = mode) -> Any:
            return s.layer.forward(_overlaid(params, at["params"]), state, tree.merge(at["x"], others), mode)[0]

        claim = _Claim(f, dy, {"params": moving, "x": floats}, {"params": grads, "x": dx})
        errors.append(_gradient_error(claim, s.tolerance, _mode(mode)))
    return max(errors)


def _overlaid(whole: Any, part: Any) -> Any:
    """`whole` with the leaves of `part` in place of its own, where `part` has some."""
    if not isinstance(part, Mapping):
        return whole if part is None else part
    return {**whole, **{name: _overlaid(whole[name], below) for name, below in part.items()}}


def precision_law(s: LayerSubject) -> float:
    """float32 gives the numbers of float64 to its precision; the other laws look at the numbers of float64 alone."""
    point = s.point(np.float32)
    for mode in s.modes:
        if isinstance(mode, Train) and s.layer.draws:  # what is drawn may depend on the dtype
            continue
        dy = s.cotangent(s.layer.forward(*point, mode)[0])
        single = tree.cast(_pass(s, (*point, dy), mode), np.float64)
        double = _pass(s, tree.cast((*point, dy), np.float64), mode)
        _require_equal(f"float32 ({_mode(mode)})", single, double, "float64 gives", CLOSE_FLOAT32)
    return 0.0


def _pass(s: LayerSubject, at: tuple[Params, State, Any, Any], mode: Mode) -> dict[str, Any]:
    """The results of forward and vjp at `(params, state, x, dy)`."""
    params, state, x, dy = at
    y, _, cache = s.layer.forward(params, state, x, mode)
    grads, dx = s.vjp(params, cache, dy, x)
    return {"output": y, "grads": grads, "dx": dx}


def batch_law(s: LayerSubject) -> float:
    """A batch equals its examples one by one, and its gradient is the sum of theirs."""
    params, state, x = s.point()
    for mode in s.modes:
        coupled = s.couples_batch is True or (isinstance(mode, Train) and (s.couples_batch or s.layer.draws))
        if coupled:
            continue
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        grads, dx = s.vjp(params, cache, dy, x)
        total = tree.zeros_like(grads)
        for i in range(s.batch):
            y_i, _, cache_i = s.layer.forward(params, state, _rows(x, i), mode)
            grads_i, dx_i = s.vjp(params, cache_i, _rows(dy, i), _rows(x, i))
            total = tree.map(np.add, total, grads_i)
            _require_equal(f"output for example {i} alone ({_mode(mode)})", y_i, _rows(y, i), "in the batch", CLOSE)
            _require_equal(f"dx for example {i} alone ({_mode(mode)})", dx_i, _rows(dx, i), "in the batch", CLOSE)
        _require_equal(f"sum of the examples' grads ({_mode(mode)})", total, grads, "of the batch", CLOSE)
    return 0.0


def inference_law(s: LayerSubject) -> float:
    """`infer` equals `forward` in Eval mode, `param_vjp` equals `vjp(...)[0]`, `input_vjp` equals `vjp(...)[1]`."""
    params, state, x = s.point()
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        if isinstance(mode, Eval):
            _require_equal("infer", evaluator(s.layer)(params, state, x), y, "forward in Eval mode gives", CLOSE)
        if tree.leaves(_differentiable(x, x)):
            dy = s.cotangent(y)
            grads, dx = s.layer.vjp(params, cache, dy)
            _require_equal("param_vjp", params_vjp(s.layer)(params, cache, dy), grads, "vjp gives", CLOSE)
            dx_alone = inputs_vjp(s.layer)(params, cache, dy)
            _require_equal("input_vjp", _differentiable(dx_alone, x), _differentiable(dx, x), "vjp gives", CLOSE)
    return 0.0


def pickle_law(s: LayerSubject) -> float:
    """Layer, parameters and cache survive pickling: what comes back gives the same bits."""
    init = s.layer.init(s.key, s.in_shape)
    params, state, x = s.point()
    copy = attrs.evolve(s, layer=_pickled("the layer", s.layer))
    _require_equal("pickled parameters", _pickled("the parameters", init), init, "the original")
    _require_equal("init of the pickled layer", copy.layer.init(s.key, s.in_shape), init, "the original gives")
    for mode in s.modes:
        y, _, cache = s.layer.forward(params, state, x, mode)
        dy = s.cotangent(y)
        y_copy = copy.layer.forward(params, state, x, mode)[0]
        _require_equal("output of the pickled layer", y_copy, y, "the original's")
        got = copy.vjp(params, _pickled("the cache", cache), dy, x)
        _require_equal("vjp from the pickled cache", got, s.vjp(params, cache, dy, x), "from the original")
    return 0.0


def _pickled(what: str, value: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:
        hint = "its functions must stand at the top level of a module, with hyper-parameters given by `bind`"
        raise LawError(f"{what} cannot be pickled ({error}); {hint}") from error


def shape_error_law(s: LayerSubject) -> float:
    """Where a size or the rank of the input is wrong, `ShapeError` names the layer; no number is made up.

    Tried are the neighbours of the input shape (one size changed, an axis more or less). For each of them forward gives
    what `out_shape` promises or raises `ShapeError`, as it must if `out_shape` does; and where `out_shape` promises
    something, parameters made for this shape keep the promise.
    """
    for shape in _neighbours(s.in_shape):
        try:
            x = s.input(shape)
        except Exception:  # the caller's `inputs` cannot be drawn in this shape
            continue
        if _shape(x) == _full(shape, s.batch):
            _check_neighbour(s, shape, x)
    return 0.0


def check_refusal(s: LayerSubject, shape: Any) -> None:
    """That an input of this shape is refused: by `forward`, and by `out_shape` unless other parameters would fit it.

    Where a tuple is given for one array, or one array for a tuple, `forward` may raise a `TypeError` instead.
    """
    x = s.input(shape)
    for name, y in _passes(s, x):
        _require(y is None, f"{name} accepts {_shape(x)}")
    _check_neighbour(s, shape, x)


def _check_neighbour(s: LayerSubject, shape: Any, x: Any) -> None:
    out_shape = _outcome(s, f"out_shape({shape})", s.layer.out_shape, shape)
    promised = None if out_shape is None else _full(out_shape, s.batch)
    for name, y in _passes(s, x):
        if y is not None:
            _require(promised is not None, f"{name} accepts {_shape(x)}, which out_shape refuses")
            _require(_shape(y) == promised, f"{name} makes {_shape(y)} of {_shape(x)}, out_shape promises {promised}")
    if promised is not None:
        for name, y in _passes(attrs.evolve(s, in_shape=shape), x):
            given = "raises ShapeError" if y is None else f"gives {_shape(y)}"
            right = y is not None and _shape(y) == promised
            _require(right, f"out_shape promises {promised} for {shape}, {name} of a layer made for it {given}")


def _passes(s: LayerSubject, x: Any) -> Iterator[tuple[str, Any]]:
    """What forward and infer make of x with the parameters for `s.in_shape`; None where they raise `ShapeError`."""
    point = _outcome(s, f"making a layer for {s.in_shape}", s.point)
    if point is None:
        yield "the first pass", None
        return
    params, state, fitting = point
    refusal = ShapeError if isinstance(x, tuple) == isinstance(fitting, tuple) else (ShapeError, TypeError)
    for mode in s.modes:
        name = f"forward in {_mode(mode)} mode"
        given = _outcome(s, f"{name} of {_shape(x)}", s.layer.forward, params, state, x, mode, refusal=refusal)
        yield name, None if given is None else given[0]
    yield "infer", _outcome(s, f"infer of {_shape(x)}", evaluator(s.layer), params, state, x, refusal=refusal)


def _outcome(
    s: LayerSubject,
    what: str,
    f: Callable[..., Any],
    *arguments: Any,
    refusal: type[Exception] | tuple[type[Exception], ...] = ShapeError,
) -> Any:
    """What f gives, None if it raises a refusal that names the layer; any other error breaks the law."""
    try:
        return f(*arguments)
    except refusal as error:
        kinds = sorted(_kinds(s.layer))
        named = any(kind in str(error) for kind in kinds)
        _require(named, f"{what}: the {type(error).__name__} names none of {kinds}: {error}")
        return None
    except Exception as error:
        raise LawError(f"{what} raises {type(error).__name__}, not a ShapeError naming the layer: {error}") from error


def _kinds(layer: Layer[Any, Any]) -> set[str]:
    return {layer.kind}.union(*(_kinds(child) for _, child in layer.children))


def _neighbours(shape: Any) -> Iterator[Any]:
    """The shapes that differ from the given one (one of several inputs) in one size or by one axis."""
    if _several(shape):
        for i, part in enumerate(shape):
            yield from ((*shape[:i], other, *shape[i + 1 :]) for other in _neighbours(part))
        return
    for i, n in enumerate(shape):
        yield from ((*shape[:i], size, *shape[i + 1 :]) for size in (1, n + 1, 2 * n) if size != n)
    yield (2, *shape)
    if shape:
        yield shape[1:]


LAYER_LAWS: Mapping[str, Callable[[LayerSubject], float]] = {
    "init": init_law,
    "law 1 (shapes)": shape_law,
    LayerSubject.purity: purity_law,
    "law 5 (gradients)": gradient_law,
    "law 8 (modes)": mode_law,
    "law 4 (linearity)": linear_law,
    "law 2 (derivative)": derivative_law,
    "law 5 (precision)": precision_law,
    "law 7 (batch)": batch_law,
    "law 12 (infer, param_vjp)": inference_law,
    "law 9 (pickling)": pickle_law,
    "law 10 (shape errors)": shape_error_law,
}
"""The laws, the later ones relying on the earlier; each gives the largest error of the derivatives it has checked."""


# --- the laws of losses ----------------------------------------------------------------------------------------------


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
        shape = _full(self.output_shape, self.batch)
        output = (self.outputs or _normal)(self.key.fold_in("output").generator(), shape)
        target = (self.targets or _normal)(self.key.fold_in("target").generator(), shape)
        return tree.cast(output, dtype), tree.cast(target, target_dtype)

    @property
    def weights(self) -> tuple[Array | None, Array]:
        """None, and weights of which one is zero."""
        weight = self.key.fold_in("weight").generator().uniform(0.5, 2.0, self.batch)
        weight[1] = 0
        weight.setflags(write=False)
        return None, weight


def loss_value_law(s: LossSubject) -> float:
    """The value is the mean of the losses of the examples, with weights `sum(w l) / sum(w)`: a 0-d array.

    For losses with `sums` it is what these give.
    """
    output, target = s.point()
    each = s.loss.each(output, target)
    _require(_shape(each) == (s.batch,), f"each: expected shape {(s.batch,)}, got {_shape(each)}")
    for weight in s.weights:
        name = _weighting(weight)
        value = s.loss.forward(output, target, weight)[0]
        scalar = isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0
        _require(scalar, f"value {name}: expected a 0-d array, got {_describe(value)}")
        mean = ratio(s.loss.sums(output, target, weight)) if s.loss.sums else np.average(each, weights=weight)
        _require_equal(f"value {name}", np.asarray(value), np.asarray(mean), "the mean of the examples is", CLOSE)
    return 0.0


def _weighting(weight: Array | None) -> str:
    return "without weights" if weight is None else "with weights"


def loss_purity_law(s: LossSubject) -> float:
    """Output, target, weights and cache are not changed; a second call gives the same."""
    output, target = s.point()
    for weight in s.weights:
        given: dict[str, Any] = {"output": output, "target": target, "weight": weight}
        before = _copy(given)
        value, cache = s.loss.forward(output, target, weight)
        s.loss.each(output, target)
        _require_equal("second value", s.loss.forward(output, target, weight)[0], value, "the first")
        given["cache"] = tree.read_only(cache)
        before["cache"] = _copy(cache)
        d_output = _copy(s.loss.vjp(given["cache"]))
        _require_equal("second vjp of the same cache", s.loss.vjp(given["cache"]), d_output, "the first")
        _require_equal("the loss changes what it is given", given, before, "it was")
    return 0.0


def loss_dtype_law(s: LossSubject) -> float:
    """Value, losses of the examples and derivative have the output's dtype, whatever target and weights have."""
    for dtype in (np.float32, np.float64):
        for other in (np.float32, np.float64):
            output, target = s.point(dtype, other)
            for weight in s.weights:
                value, cache = s.loss.forward(output, target, tree.cast(weight, other))
                _require_alike(f"value {_weighting(weight)}", np.asarray(value), np.zeros((), dtype))
                _require_alike(f"d_output {_weighting(weight)}", s.loss.vjp(cache), output)
            _require_alike("each", s.loss.each(output, target), np.zeros(s.batch, dtype))
    return 0.0


def loss_derivative_law(s: LossSubject) -> float:
    """`vjp` is the derivative of the value, by central differences in float64."""
    output, target = s.point()
    errors = []
    for weight in s.weights:
        d_output = s.loss.vjp(s.loss.forward(output, target, weight)[1])
        _require_alike("d_output", d_output, output)

        def f(at: Any, weight: Array | None = weight) -> Any:
            return s.loss.forward(at["output"], target, weight)[0]

        claim = _Claim(f, np.ones(()), {"output": output}, {"output": d_output})
        errors.append(_gradient_error(claim, s.tolerance, _weighting(weight)))
    return max(errors)


def loss_precision_law(s: LossSubject) -> float:
    """float32 gives the numbers of float64 to its precision, in value and derivative."""
    output, target = s.point(np.float32, np.float32)
    for weight in s.weights:
        single, double = (_loss_pass(s, output, target, weight, dtype) for dtype in (np.float32, np.float64))
        _require_equal(f"float32 {_weighting(weight)}", single, double, "float64 gives", CLOSE_FLOAT32)
    return 0.0


def _loss_pass(s: LossSubject, output: Any, target: Any, weight: Array | None, dtype: Any) -> Any:
    """Value and derivative, computed with the dtype."""
    value, cache = s.loss.forward(tree.cast(output, dtype), tree.cast(target, dtype), tree.cast(weight, dtype))
    return tree.cast({"value": np.asarray(value), "d_output": s.loss.vjp(cache)}, np.float64)


def loss_examples_law(s: LossSubject) -> float:
    """The loss of an example is what it is alone, and `sums` of parts of a batch add up to those of the whole."""
    output, target = s.point()
    if s.loss.couples_batch:
        return 0.0
    each, sums = s.loss.each(output, target), sums_of(s.loss)
    for i in range(s.batch):
        alone = s.loss.each(_rows(output, i), _rows(target, i))
        _require_equal(f"each for example {i} alone", alone, each[i : i + 1], "in the batch", CLOSE)
    for weight in s.weights:
        parts = [sums(*_rows((output, target, weight), i)) for i in range(s.batch)]
        whole = sums(output, target, weight)
        total = np.sum(parts, axis=0)
        _require_equal(f"sums {_weighting(weight)} of the examples", total, whole, "of the batch", CLOSE)
    return 0.0


def loss_pickle_law(s: LossSubject) -> float:
    """Loss and cache survive pickling: what comes back gives the same bits."""
    output, target = s.point()
    copy = _pickled("the loss", s.loss)
    value, cache = s.loss.forward(output, target, None)
    _require_equal("value of the pickled loss", copy.forward(output, target, None)[0], value, "the original's")
    d_output = copy.vjp(_pickled("the cache", cache))
    _require_equal("vjp from the pickled cache", d_output, s.loss.vjp(cache), "from the original")
    return 0.0


def loss_shape_law(s: LossSubject) -> float:
    """Nothing is broadcast: targets of another rank, and targets or weights of another number, raise `ShapeError`."""
    output, target = s.point()
    wrong_targets = {
        "with one example": _rows(target, 0),
        "with one axis more": tree.map(lambda a: a[..., None], target),
        "with one axis less": tree.map(lambda a: a[..., 0], target),
        "with one example more": tree.map(lambda a: np.concatenate([a, a[:1]]), target),
    }
    for how, wrong in wrong_targets.items() if tree.leaves(target) else ():
        _require_refused(f"forward of a target {how}", s.loss.forward, output, wrong, None)
        _require_refused(f"each of a target {how}", s.loss.each, output, wrong)
    for size in ((s.batch, 1), (s.batch + 1,), (1,), ()):
        _require_refused(f"forward with weights {size}", s.loss.forward, output, target, np.ones(size))
    return 0.0


def _require_refused(what: str, f: Callable[..., Any], *arguments: Any) -> None:
    try:
        f(*arguments)
    except ShapeError:
        return
    except Exception as error:
        raise LawError(f"{what} raises {type(error).__name__}, not a ShapeError: {error}") from error
    raise LawError(f"{what} gives a number; it must raise ShapeError")


LOSS_LAWS: Mapping[str, Callable[[LossSubject], float]] = {
    "value": loss_value_law,
    LossSubject.purity: loss_purity_law,
    "dtype": loss_dtype_law,
    "derivative": loss_derivative_law,
    "precision": loss_precision_law,
    "examples": loss_examples_law,
    "pickling": loss_pickle_law,
    "broadcasting": loss_shape_law,
}
"""The laws of losses, the later ones relying on the earlier."""
