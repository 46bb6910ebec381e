"""Programs that `mypy --strict` accepts. `tests/test_typing.py` runs them too: what the types allow works.

Every function is a program of its own and takes a folder to write to. The types of the key results are asserted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, assert_type

import attrs
import numpy as np
from numpy.typing import NDArray

from fnn import (
    LSTM,
    Array,
    BatchNorm,
    Batches,
    Dense,
    Dropout,
    Elu,
    Embedding,
    Eval,
    Flatten,
    Gelu,
    Glu,
    Identity,
    Ints,
    Key,
    Layer,
    LayerNorm,
    LearnedPosition,
    LogSoftmax,
    Loss,
    Metric,
    Optimizer,
    Params,
    Relu,
    Reshape,
    Result,
    Row,
    Schedule,
    ShapeError,
    Sigmoid,
    SinusoidalPosition,
    Softmax,
    State,
    Tanh,
    Train,
    TrainState,
    accuracy,
    adam,
    adamw,
    add_decayed_weights,
    apply_updates,
    batches,
    bind,
    chain,
    constant,
    cosine,
    dag,
    evaluate,
    fan_in_concat,
    fan_in_sum,
    fan_out,
    frozen,
    grad,
    initializers,
    iterate,
    layer,
    load,
    load_arrays,
    load_metadata,
    make_step,
    mse,
    named,
    one_hot,
    parallel,
    progress,
    pullback,
    remat,
    repeat,
    residual,
    save,
    serial,
    sgd,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    split,
    stateless,
    train,
    tree,
    value_and_grad,
    warmup,
)
from fnn.contract import Mode, no_params
from fnn.layers.activation import activation
from fnn.losses import loss
from fnn.optimizers import GradientTransformation
from fnn.training import Batch, Step
from fnn.types import Shape

# --- data that the programs share ------------------------------------------------------------------------------------


def points() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs (24, 3) and targets (24, 2)."""
    generator = Key(1).generator()
    x = generator.standard_normal((24, 3), np.float32)
    return x, np.stack([x.sum(axis=1), x[:, 0] * x[:, 1]], axis=1)


def labelled() -> tuple[Array, Ints]:
    """Inputs (24, 3) and labels (24,) below 2."""
    x, y = points()
    return x, (y[:, 0] > 0).astype(np.int64)


def sentences() -> tuple[Ints, Ints]:
    """Token ids (24, 5) below 7 and labels (24,) below 2."""
    ids = Key(2).generator().integers(0, 7, (24, 5))
    return ids, ids[:, 0] % 2


# --- networks --------------------------------------------------------------------------------------------------------


def networks_of_every_length(folder: Path) -> None:
    dense: Layer[Array, Array] = Dense(3)
    assert_type(serial(Dense(3)), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh), Layer[Array, Array])
    assert_type(serial(dense, Tanh, Dense(3)), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(3), Elu()), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(3), Elu(), Dense(2)), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(3), Elu(0.5), Dense(2), Softmax), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(4), Tanh, Dense(3), Tanh, Dense(2)), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(4), Tanh, Dense(3), Tanh, Dense(2), Tanh), Layer[Array, Array])
    assert_type(serial(Dense(3), Tanh, Dense(4), Tanh, Dense(3), Tanh, Dense(2), Tanh, Dense(1)), Layer[Array, Array])
    ten = serial(Dense(3), Tanh, Dense(4), Tanh, Dense(3), Tanh, Dense(2), Tanh, Dense(1), Sigmoid)
    eleven = serial(Dense(3), Tanh, Dense(4), Tanh, Dense(3), Tanh, Dense(2), Tanh, Dense(2), Glu(), Sigmoid)
    twelve = serial(Dense(3), Tanh, Dense(4), Relu, Dense(3), Gelu, Dense(2), Tanh, Dense(2), Glu(Relu), Tanh, Sigmoid)
    assert_type(ten, Layer[Array, Array])
    assert_type(eleven, Layer[Array, Array])
    assert_type(twelve, Layer[Array, Array])
    for net in (ten, eleven, twelve):
        assert_type(net.init(Key(0), (3,)), Mapping[str, Any])
        assert_type(net.apply(net.init(Key(0), (3,)), points()[0]), Array)


def integers_and_pairs_beside_an_array(folder: Path) -> None:
    tokens = parallel(Embedding(50, 16), Identity)  # and their lengths
    assert_type(serial(tokens, LSTM(8, lengths=True, returns="last"), Dense(2)), Layer[tuple[Ints, Any], Array])
    read = dag(
        inputs=("tokens", "lengths"),
        e=("tokens", Embedding(50, 16)),
        h=(("e", "lengths"), LSTM(8, lengths=True, returns="last")),
        y=("h", Dense(2)),
        output="y",
    )
    assert_type(read, Layer[tuple[NDArray[Any], ...], Array])


def networks_within_networks(folder: Path) -> None:
    block = serial(Dense(4, weight_init=initializers.he_normal()), Relu, Dropout(0.1))
    net = serial(block, block, serial(), named("out", Dense(1, bias_init=None)))
    assert_type(block, Layer[Array, Array])
    assert_type(net, Layer[Array, Array])
    assert_type(named("words", Embedding(7, 3)), Layer[Ints, Array])
    stem: list[Layer[Array, Array]] = [Dense(width) for width in (5, 4, 3)]
    first, second, third = stem
    assert_type(serial(first, second, third), Layer[Array, Array])


def networks_of_words(folder: Path) -> None:
    words, labels = sentences()
    body = serial(LearnedPosition(5), SinusoidalPosition, LayerNorm(), Dense(4), Tanh)
    net = serial(Embedding(7, 4), body, Reshape((-1,)), Dense(2))
    assert_type(serial(Embedding(7, 4), Dense(5)), Layer[Ints, Array])
    assert_type(net, Layer[Ints, Array])
    many = serial(Embedding(7, 4), Tanh, Tanh, Tanh, Tanh, Tanh, Tanh, Tanh, Tanh, Flatten, Dense(2))
    assert_type(many, Layer[Ints, Array])
    params = net.init(Key(0), (5,))
    result = train(
        params,
        batches((words, labels), size=8),
        adam(1e-2),
        model=net,
        loss=softmax_cross_entropy(),
        epochs=2,
        evaluation=(words, labels),
        metrics=(accuracy,),
    )
    assert_type(net.apply(result.params, words), Array)


def networks_with_branches(folder: Path) -> None:
    x, y = points()
    branches = serial(fan_out(2), parallel(Dense(4), serial(Dense(5), Tanh)), fan_in_concat, Dense(2))
    assert_type(branches, Layer[Array, Array])
    assert_type(parallel(Embedding(7, 3), Dense(3)), Layer[tuple[Ints, Array], tuple[Array, Array]])
    assert_type(serial(parallel(Embedding(7, 3), Dense(3)), fan_in_sum), Layer[tuple[Ints, Array], Array])
    assert_type(repeat(residual(remat(Dense(3))), 2), Layer[Array, Array])
    assert_type(frozen(Embedding(7, 3)), Layer[Ints, Array])
    both = serial(parallel(serial(Embedding(7, 3), Flatten), Dense(15)), fan_in_sum, Dense(2))
    words, _ = sentences()
    params = both.init(Key(0), ((5,), (3,)))
    result = train(params, batches(((words, x), y), size=6), adam(0.01), model=both, loss=mse, epochs=1)
    assert_type(both.apply(result.params, (words, x)), Array)


# --- training --------------------------------------------------------------------------------------------------------


def sine(folder: Path) -> None:
    x = np.arange(0.0, 2.0, 0.01, dtype=np.float32)[:, None]
    y = 20 * np.sin(2 * np.pi * x)

    net = serial(Dense(25), Sigmoid, Dense(1))
    params = net.init(Key(0), (1,))
    data = batches((x, y), size=90)
    opt = adam(cosine(0.3, steps=6000), b2=0.99)
    result = train(params, data, opt, model=net, loss=mse, epochs=2)
    prediction = net.apply(result.params, x)
    assert_type(prediction, Array)
    assert_type(result, Result)
    assert_type(result.history[-1].loss, float)
    assert_type(result.history[-1].learning_rate, float | None)


def float32_and_float64(folder: Path) -> None:
    single, _ = points()
    double: NDArray[np.float64] = single.astype(np.float64)
    net = serial(Dense(4), LogSoftmax)
    params = net.init(Key(0), (3,))
    assert_type(net.apply(params, single), Array)
    assert_type(net.apply(tree.cast(params, np.float64), double), Array)
    targets: NDArray[np.float64] = np.zeros((24, 4))
    train(params, batches((single, targets), size=8), sgd(0.1), model=net, loss=mse, steps=2)


def everything_that_train_takes(folder: Path) -> None:
    (x, labels), held_out = split(labelled(), 0.25, Key(3))
    weights = np.ones(len(x), np.float32)
    net = serial(Dense(5), BatchNorm(), Relu, Dropout(0.5), Dense(2))
    rows: list[Row] = []
    opt = chain(add_decayed_weights(1e-4), adamw(warmup(cosine(0.01, steps=20, end=1e-4), steps=3), weight_decay=0.0))
    data = batches((x, labels, weights), size=7, shuffle=True, drop_last=True)
    assert_type(data.steps_per_epoch, int)
    result = train(
        net.init(Key(0), (3,)),
        data,
        opt,
        model=net,
        loss=softmax_cross_entropy(smoothing=0.1),
        epochs=2,
        key=Key(4),
        evaluation=held_out,
        metrics=[accuracy],
        monitor="accuracy",
        every=2,
        report=rows.append,
        checkpoint=folder / "everything.npz",
        checkpoint_every=3,
    )
    again = train(
        result.params,
        data,
        opt,
        model=net,
        loss=softmax_cross_entropy(smoothing=0.1),
        steps=8,
        state=result.state,
        resume=result.train_state,
        evaluation=(*held_out, np.ones(len(held_out[0]))),
        report=progress(2, file=StringIO()),
    )
    assert_type(again.best, Mapping[str, Any])
    train(
        result.params,
        data,
        opt,
        model=net,
        loss=softmax_cross_entropy(smoothing=0.1),
        epochs=2,
        resume=str(folder / "everything.npz"),
    )
    measured = evaluate(
        net, result.best, held_out, loss=softmax_cross_entropy(), metrics=(accuracy,), state=result.best_state
    )
    assert_type(measured, dict[str, float])


def labels_of_either_kind(folder: Path) -> None:
    x, labels = labelled()
    net = serial(Dense(2))
    params = net.init(Key(0), (3,))
    dense = one_hot(labels, 2)
    assert_type(dense, Array)
    opt = sgd(0.1, momentum=0.9, nesterov=True)
    train(params, batches((x, labels), size=8), opt, model=net, loss=softmax_cross_entropy(), steps=1)
    train(params, batches((x, dense), size=8), opt, model=net, loss=softmax_cross_entropy(), steps=1)
    train(params, batches((x, dense), size=8), opt, model=net, loss=sigmoid_cross_entropy(), steps=1)
    flags = one_hot(labels, 2).astype(np.int32)
    train(params, batches((x, flags), size=8), opt, model=net, loss=sigmoid_cross_entropy(), steps=1)
    evaluate(net, params, (x, dense), loss=mse, metrics=(accuracy,))


def a_loop_of_ones_own(folder: Path) -> None:
    x, y = points()
    net = serial(Dense(4), Tanh, Dense(2))
    opt = adam(constant(0.01))
    params = net.init(Key(0), (3,))
    squares: Loss[Array, Array] = mse
    step = make_step(net, squares, opt)
    assert_type(step, Step[Batch[Array, Array]])
    start = TrainState(0, params, net.init_state((3,)), opt.init(params), Key(5))
    data = batches((x, y), size=10)
    assert_type(data, Batches[tuple[NDArray[np.float32], NDArray[np.float32]]])
    for now, metrics in iterate(step, start, islice(data.stream(Key(6)), 4)):
        assert_type(now, TrainState)
        assert_type(metrics, Mapping[str, Array])
        if float(metrics["loss"]) < 0.01:
            break
    now, metrics = step(start, (x, y))
    now, metrics = step(now, (x, y, np.ones(24, np.float32)))
    assert_type(now.params, Mapping[str, Any])
    now = attrs.evolve(now, step=0)


# --- derivatives -----------------------------------------------------------------------------------------------------


def gradient_descent_by_hand(folder: Path) -> None:
    x, y = points()
    net = serial(Dense(4), Tanh, Dense(2))
    params, state = net.init(Key(0), (3,)), net.init_state((3,))
    f = value_and_grad(net, mse)
    for step in range(3):
        value, grads, state = f(params, state, x, y, Train(Key(7).fold_in(step)))
        assert_type(value, Array)
        assert_type(grads, Mapping[str, Any])
        params = apply_updates(params, tree.map(lambda g: -0.1 * g, grads))
    assert_type(grad(net, mse)(params, state, x, y, Eval()), Mapping[str, Any])
    grad(net, mse)(params, state, x, y, mode=Eval(), weight=np.ones(24))


def gradients_of_inputs(folder: Path) -> None:
    x, y = points()
    net = serial(Dense(4), Tanh, Dense(2))
    prediction, state, back = pullback(net, net.init(Key(0), (3,)), {}, x, Eval())
    assert_type(prediction, Array)
    value, cache = mse.forward(prediction, y, None)
    grads, dx = back(mse.vjp(cache))
    assert_type(dx, NDArray[np.float32])
    assert_type(grads, Mapping[str, Any])
    words = serial(Embedding(7, 2), Flatten)
    tokens, _ = sentences()
    features, _, pull = pullback(words, words.init(Key(0), (5,)), {}, tokens, Eval())
    assert_type(pull(features), tuple[Mapping[str, Any], Ints])
    assert_type(mse.each(prediction, y), Array)


# --- layers of ones own ----------------------------------------------------------------------------------------------


Flags = NDArray[np.bool_]


class Affine(NamedTuple):
    """More hyper-parameters than a chain of binds carries well."""

    factor: float
    offset: float
    centre: bool


def affine_forward(config: Affine, params: Params, x: Array) -> tuple[Array, Array]:
    """`y = gain (factor x + offset)`; the cache is what gain multiplies."""
    z = config.factor * x + config.offset
    return params["gain"] * z, z


def affine_vjp(config: Affine, params: Params, z: Array, dy: Array) -> tuple[Params, Array]:
    return {"gain": np.sum(z * dy, axis=0)}, params["gain"] * config.factor * dy


def affine_init(key: Key, in_shape: Shape) -> Params:
    return {"gain": initializers.ones(key, in_shape)}


def Scaled(factor: float, *, offset: float = 0.0) -> Layer[Array, Array]:
    config = Affine(factor, offset, False)
    return stateless(
        "Scaled",
        affine_init,
        bind(affine_forward, config),
        bind(affine_vjp, config),
        config={"factor": factor, "offset": offset},
        build=Scaled,
    )


def clip_forward(low: float, high: float, params: Params, x: Array) -> tuple[Array, tuple[Flags, Flags]]:
    return np.clip(x, low, high), (x > low, x < high)


def clip_vjp(params: Params, cache: tuple[Flags, Flags], dy: Array) -> tuple[Params, Array]:
    above, below = cache
    return {}, dy * above * below


def clip_infer(low: float, high: float, params: Params, x: Array) -> Array:
    return np.clip(x, low, high)


def Clip(low: float, high: float) -> Layer[Array, Array]:
    forward = bind(bind(clip_forward, low), high)
    infer = bind(clip_infer, low, high)
    return stateless("Clip", no_params, forward, clip_vjp, infer=infer)


def centre_forward(decay: float, params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, None]:
    """Subtracts a running mean, which only training changes, and adds a little noise."""
    if isinstance(mode, Eval):
        return x - state["mean"], state, None
    noise = mode.key.generator().standard_normal(x.shape[1:], np.float32)
    mean: Array = decay * state["mean"] + (1 - decay) * x.mean(axis=0)
    return x - state["mean"] + 0.01 * noise, {"mean": mean}, None


def centre_vjp(params: Params, cache: None, dy: Array) -> tuple[Params, Array]:
    return {}, dy


def centre_state(in_shape: Shape) -> State:
    return {"mean": np.zeros(in_shape, np.float32)}


Centre = layer("Centre", no_params, bind(centre_forward, 0.9), centre_vjp, init_state=centre_state)


def pair_forward(params: Params, x: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    return x[0] * x[1], x


def pair_vjp(params: Params, x: tuple[Array, Array], dy: Array) -> tuple[Params, tuple[Array, Array]]:
    return {}, (dy * x[1], dy * x[0])


def double_forward(params: Params, x: Array) -> tuple[tuple[Array, Array], None]:
    return (x, x), None


def double_vjp(params: Params, cache: None, dy: tuple[Array, Array]) -> tuple[Params, Array]:
    return {}, dy[0] + dy[1]


def double_shape(in_shape: Shape) -> tuple[Shape, Shape]:
    return in_shape, in_shape


def pair_shape(in_shape: tuple[Shape, Shape]) -> Shape:
    if in_shape[0] != in_shape[1]:
        raise ShapeError(f"Product: expected two equal shapes, got {in_shape}")
    return in_shape[0]


Double = stateless("Double", no_params, double_forward, double_vjp, out_shape=double_shape)
Product = stateless("Product", no_params, pair_forward, pair_vjp, out_shape=pair_shape)


def cubic(x: Array) -> tuple[Array, Array]:
    return x * x * x, x


def cubic_vjp(x: Array, dy: Array) -> Array:
    return 3 * x * x * dy


Cubic = activation("Cubic", cubic, cubic_vjp)


def layers_of_ones_own(folder: Path) -> None:
    assert_type(Double, Layer[Array, tuple[Array, Array]])
    assert_type(Product, Layer[tuple[Array, Array], Array])
    assert_type(serial(Double, Product), Layer[Array, Array])
    assert_type(Centre, Layer[Array, Array])
    assert_type(Cubic, Layer[Array, Array])
    net = serial(Centre, Scaled(0.5, offset=0.1), Clip(-2.0, 2.0), Double, Product, Cubic, Dense(2))
    assert_type(net, Layer[Array, Array])
    data = batches(points(), size=6)
    result = train(net.init(Key(0), (3,)), data, sgd(0.01), model=net, loss=mse, epochs=1)
    net.apply(result.params, points()[0], result.state)
    x, y = points()
    assert_type(Product.apply({}, (x, x)), Array)
    assert_type(Double.apply({}, x), tuple[Array, Array])
    paired = serial(Product, Dense(2))
    both = batches(((x, x), y), size=6)
    train(paired.init(Key(0), ((3,), (3,))), both, sgd(0.01), model=paired, loss=mse, epochs=1)


# --- losses and metrics of ones own ----------------------------------------------------------------------------------


def huber_forward(delta: float, output: Array, target: Array) -> tuple[Array, Array]:
    r = output - target
    small = np.minimum(np.abs(r), delta)
    each: Array = (small * (np.abs(r) - small / 2)).mean(axis=1)
    return each, np.clip(r, -delta, delta)


def huber_vjp(clipped: Array, dl: float | Array) -> Array:
    d: Array = clipped * np.reshape(dl, (-1, 1)) / clipped.shape[1]
    return d


def huber(delta: float) -> Loss[Array, Array]:
    return loss("huber", bind(huber_forward, delta), huber_vjp, config={"delta": delta}, build=huber)


def sum_forward(output: Array, target: Array, weight: Array | None = None) -> tuple[Array, Array]:
    return np.asarray(np.sum(np.abs(output - target))), np.sign(output - target)


def sum_vjp(sign: Array) -> Array:
    return sign


def sum_each(output: Array, target: Array) -> Array:
    each: Array = np.abs(output - target).sum(axis=1)
    return each


absolute: Loss[Array, Array] = Loss("absolute", sum_forward, sum_vjp, sum_each)


class Total(NamedTuple):
    """An accumulation."""

    value: float
    examples: int


def no_total() -> Total:
    return Total(0.0, 0)


def add_deviations(total: Total, output: Array, target: Array, weight: Array | None) -> Total:
    return Total(total.value + float(np.abs(output - target).max(axis=1).sum()), total.examples + len(output))


def add_totals(a: Total, b: Total) -> Total:
    return Total(a.value + b.value, a.examples + b.examples)


def mean_of(total: Total) -> float:
    return total.value / total.examples if total.examples else math.nan


deviation = Metric("deviation", no_total, add_deviations, add_totals, mean_of, higher_is_better=False)


def losses_of_ones_own(folder: Path) -> None:
    x, y = points()
    net = serial(Dense(2))
    params = net.init(Key(0), (3,))
    data = batches((x, y), size=6)
    for own in (huber(1.0), absolute):
        assert_type(own, Loss[Array, Array])
        train(params, data, sgd(0.001), model=net, loss=own, steps=2, evaluation=(x, y), metrics=(deviation, accuracy))
    assert_type(evaluate(net, params, (x, y), loss=mse, metrics=(deviation,)), dict[str, float])


# --- optimizers, schedules and data of ones own ----------------------------------------------------------------------


class Transformation(NamedTuple):
    """A pair in the form of optax."""

    init: Callable[[Params], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


@attrs.frozen
class SignDescent:
    """An optimizer with methods."""

    rate: float

    def init(self, params: Params) -> int:
        return 0

    def update(self, grads: Params, state: int, params: Params) -> tuple[Params, int]:
        return tree.map(lambda g: -self.rate * np.sign(g), grads), state + 1


class WithDefaults:
    """An update whose parameters are optional, as in optax."""

    def init(self, params: Params) -> tuple[()]:
        return ()

    def update(self, updates: Params, state: tuple[()], params: Params | None = None) -> tuple[Params, tuple[()]]:
        return tree.map(lambda g: -0.01 * g, updates), state


def halving(step: int) -> float:
    return 0.1 * 0.5**step


@attrs.frozen
class Steps:
    """A schedule that is an object."""

    values: tuple[float, ...]

    def __call__(self, step: int) -> float:
        return self.values[min(step, len(self.values) - 1)]


def optimizers_of_ones_own(folder: Path) -> None:
    x, y = points()
    net = serial(Dense(2))
    params = net.init(Key(0), (3,))
    signs = SignDescent(0.01)
    own: tuple[GradientTransformation, ...] = (
        Transformation(signs.init, signs.update),
        signs,
        WithDefaults(),
        chain(add_decayed_weights(0.1, where=lambda path, p: path.endswith("weight")), signs),
        sgd(halving),
        adam(Steps((0.1, 0.01)), b1=0.8),
        adamw(lambda step: 0.1 / (1 + step)),
        Optimizer("own", signs.init, signs.update),
    )
    for opt in own:
        train(params, batches((x, y), size=6), opt, model=net, loss=mse, steps=2)
    schedules: list[Schedule] = [halving, Steps((0.1,)), constant(0.1), warmup(0.1, steps=3), warmup(halving, steps=3)]
    assert_type(schedules[0](3), float)


@attrs.frozen
class Generated:
    """Data that is never an array as a whole."""

    size: int

    @property
    def steps_per_epoch(self) -> int:
        return 4

    def batch(self, key: Key, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = key.fold_in("x").fold_in(step).generator().standard_normal((self.size, 3), np.float32)
        return x, x[:, :2]

    def stream(self, key: Key, start: int = 0) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        while True:
            yield self.batch(key, start)
            start += 1


class Words:
    """Data with an attribute where the protocol has a property, and with weights."""

    steps_per_epoch = 2

    def stream(self, key: Key, start: int = 0) -> Iterator[tuple[Ints, Ints, Array]]:
        words, labels = sentences()
        while True:
            yield words, labels, np.ones(len(words))


def data_of_ones_own(folder: Path) -> None:
    net = serial(Dense(2))
    train(net.init(Key(0), (3,)), Generated(5), sgd(0.1), model=net, loss=mse, epochs=2)
    reader = serial(Embedding(7, 3), Flatten, Dense(2))
    train(reader.init(Key(0), (5,)), Words(), sgd(0.1), model=reader, loss=softmax_cross_entropy(), epochs=1)
    table = batches({"image": np.zeros((6, 2)), "label": np.arange(6)}, size=2)
    for batch in islice(table.stream(Key(0)), 3):
        assert_type(batch["label"].sum(), Any)


# --- checkpoints, trees, keys ----------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> None:
    net = serial(Dense(4), Tanh, Dense(2))
    opt = adam(0.1)
    params = net.init(Key(0), (3,))
    start = TrainState(0, params, net.init_state((3,)), opt.init(params), Key(1))
    save(folder / "state.npz", start, metadata={"epoch": 3})
    found = load(folder / "state.npz", like=start)
    assert_type(found, TrainState)
    assert_type(found.step, int)
    save(str(folder / "pair.npz"), (params, {"best": 0.5}))
    pair = load(str(folder / "pair.npz"), (params, {"best": 0.0}))
    assert_type(pair, tuple[Mapping[str, Any], dict[str, float]])
    assert_type(load_arrays(folder / "state.npz")["params/dense_0/weight"], NDArray[Any])
    assert_type(load_metadata(folder / "state.npz"), dict[str, Any])


def trees(folder: Path) -> None:
    params = serial(Dense(4), Tanh, Dense(2)).init(Key(0), (3,))
    doubled: Params = tree.map(lambda a, b: a + b, params, params)
    assert_type(tree.size(doubled), int)
    assert_type(tree.norm(params), float)
    assert_type(tree.allclose(params, params), bool)
    assert_type(tree.reduce(lambda n, a: n + a.size, params, 0), int)
    vector, unravel = tree.ravel(params)
    assert_type(vector, NDArray[Any])
    same: Params = unravel(vector)
    weights, biases = tree.partition(same, lambda path, leaf: path.endswith("weight"))
    params = tree.merge(weights, biases)
    params = tree.set(params, "dense_0/bias", np.ones(4, np.float32))
    for path, leaf in tree.items(tree.map_with_path(lambda path, leaf: leaf, params)):
        assert_type(path, str)
    weight: Array = tree.get(params, "dense_0/weight")
    assert_type(float(weight.sum()), float)


def keys(folder: Path) -> None:
    key = Key(0).fold_in("data").fold_in(3).fold_in(np.int64(4))
    assert_type(key, Key)
    assert_type(key.generator(), np.random.Generator)
    modes: list[Mode] = [Train(key), Eval()]
    assert_type(modes[0], Train | Eval)


Program = Callable[[Path], None]

PROGRAMS: tuple[Program, ...] = (
    networks_of_every_length,
    integers_and_pairs_beside_an_array,
    networks_within_networks,
    networks_of_words,
    networks_with_branches,
    sine,
    float32_and_float64,
    everything_that_train_takes,
    labels_of_either_kind,
    a_loop_of_ones_own,
    gradient_descent_by_hand,
    gradients_of_inputs,
    layers_of_ones_own,
    losses_of_ones_own,
    optimizers_of_ones_own,
    data_of_ones_own,
    checkpoints,
    trees,
    keys,
)
