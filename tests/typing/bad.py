"""Mistakes. `tests/test_typing.py` holds that `mypy --strict` rejects exactly the marked lines, with the marked codes.

`# E: arg-type` means that the type-checker reports `arg-type` in this line; several codes are joined by commas, and
`call-arg|misc` is called differently by different versions of mypy. What follows `->` is the run-time counterpart: the
same statement, run without a type-checker, raises an error of this type whose message contains this text. Marked
statements without it do no harm when run, or nothing that Python could see. Statements without a mark are correct; they
make what the mistakes are made with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fnn import (
    Array,
    Dense,
    Dropout,
    Embedding,
    Eval,
    Flatten,
    Ints,
    Key,
    Layer,
    Loss,
    Metric,
    Params,
    Relu,
    Row,
    Sigmoid,
    State,
    Tanh,
    Train,
    TrainState,
    accuracy,
    adam,
    adamw,
    batches,
    bind,
    chain,
    cosine,
    evaluate,
    fan_in_concat,
    fan_in_sum,
    fan_out,
    grad,
    iterate,
    layer,
    load,
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
    softmax_cross_entropy,
    split,
    stateless,
    train,
    tree,
    value_and_grad,
    warmup,
)
from fnn.contract import Mode, no_params
from fnn.losses import loss
from fnn.types import Shape

x: NDArray[np.float32] = np.ones((6, 3), np.float32)
y: NDArray[np.float32] = np.ones((6, 1), np.float32)
labels: NDArray[np.int64] = np.arange(6) % 2
tokens: NDArray[np.int64] = np.arange(18).reshape(6, 3) % 7

net = serial(Dense(4), Tanh, Dense(1))
reader = serial(Embedding(7, 4), Flatten, Dense(1))
classes = serial(Dense(2))
params = net.init(Key(0), (3,))
words = reader.init(Key(0), (3,))
opt = adam(0.1)
data = batches((x, y), size=2)
texts = batches((tokens, y), size=2)
squares: Loss[Array, Array] = mse
start = TrainState(0, params, {}, opt.init(params), Key(0))
step = make_step(net, squares, opt)
result = train(params, data, opt, model=net, loss=mse, steps=1)
softmax = softmax_cross_entropy()


# --- networks --------------------------------------------------------------------------------------------------------

serial(Dense(5), Embedding(7, 3))  # E: misc
serial(Dense(5), Tanh, Embedding(7, 3))  # E: misc
serial(Embedding(7, 3), Embedding(7, 3))  # E: misc
serial(serial(), Dense(3), serial(Embedding(7, 3), Tanh))  # E: misc
serial(Relu, Relu, Relu, Relu, Relu, Relu, Relu, Embedding(7, 3))  # E: misc
serial(Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Embedding(7, 3))  # E: misc
serial(Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Embedding(7, 3))  # E: misc
serial(Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Embedding(7, 3))  # E: misc
serial(Dense)  # E: call-overload -> TypeError: call it: Dense(...)
serial(Dense(3), Dropout, Dense(1))  # E: call-overload -> TypeError: call it: Dropout(...)
serial(Relu, Relu, Relu, Relu, Relu, Relu, Relu, Relu, Dense)  # E: call-overload -> TypeError: in position 8
serial(Dense(3), np.tanh)  # E: call-overload -> TypeError: expected layers, got <ufunc 'tanh'> in position 1
serial([Dense(3), Tanh])  # E: call-overload -> TypeError: expected layers
serial(Dense(3), mse)  # E: call-overload -> TypeError: expected layers, got mse in position 1
serial(Dense(3), "tanh")  # E: call-overload -> TypeError: expected layers, got 'tanh' in position 1
Sigmoid()  # E: operator -> TypeError: Sigmoid: a layer as it is, written without parentheses
serial(Flatten(), Dense(3))  # E: operator -> TypeError: Flatten: a layer as it is, written without parentheses
net(x)  # E: operator -> TypeError: serial: a layer is not called; to use it: net.apply(params, x)
Dropout()  # E: call-arg -> TypeError: missing 1 required positional argument: 'rate'
Dense()  # E: call-arg -> TypeError: missing 1 required positional argument: 'features'
Dense(3, Tanh)  # E: arg-type, call-arg|misc -> TypeError: takes 1 positional argument
Dense(3, activation=Tanh)  # E: call-arg -> TypeError: unexpected keyword argument 'activation'
Dense("3")  # E: arg-type -> ValueError: Dense: expected features to be a positive integer, got '3'
Dense(2.5)  # E: arg-type -> ValueError: Dense: expected features to be a positive integer, got 2.5
Dropout("0.5")  # E: arg-type -> ValueError: Dropout: expected rate in [0, 1), got '0.5'
named(Dense(1), "out")  # E: arg-type -> ValueError: named: expected a name
named("out", Dense)  # E: arg-type -> TypeError: named: expected a layer
wide: Layer[Array, Array] = serial(Embedding(7, 3), Tanh)  # E: arg-type
narrow: Layer[Ints, Array] = serial(Dense(3), Tanh)  # E: arg-type
serial(fan_out(2), Dense(3))  # E: misc
serial(fan_out(2), parallel(Dense(3), Tanh, Tanh), fan_in_sum)  # E: misc
serial(Dense(3), fan_in_sum)  # E: misc
serial(parallel(Embedding(7, 3), Dense(3)), fan_in_concat, fan_in_sum)  # E: misc
serial(fan_out(2), parallel(Embedding(7, 3), Dense(3)), fan_in_sum)  # E: misc
parallel(Dense(3), Dense)  # E: call-overload -> TypeError: call it: Dense(...)
fan_out(Dense(3), Tanh)  # E: call-overload -> TypeError
residual(Embedding(7, 3))  # E: arg-type
residual(Dense(3), Dense)  # E: arg-type -> TypeError: Dense
repeat(Embedding(7, 3), 2)  # E: misc
repeat(Dense(3), "2")  # E: arg-type -> ValueError: repeat: expected n to be a positive integer, got '2'
remat(Dense)  # E: arg-type -> TypeError: Dense
net.name = "other"  # E: misc -> AttributeError


# --- passes ----------------------------------------------------------------------------------------------------------

net.init((3,), Key(0))  # E: arg-type -> TypeError: serial.init: expected a Key first
net.init(0, (3,))  # E: arg-type -> TypeError: serial.init: expected a Key first
net.apply(x, params)  # E: arg-type -> TypeError: serial.apply: expected parameters first, as in net.apply(params, x)
net.apply(params, tokens)  # E: arg-type -> TypeError: the parameters are float32, the input is int64
net.apply(params, [[1.0, 2.0, 3.0]])  # E: arg-type -> TypeError: Dense(4): expected an array, got list
reader.apply(words, x)  # E: arg-type -> TypeError: Embedding(7, 4)
net.forward(params, {}, x, Eval)  # E: arg-type
net.forward(params, {}, x, "train")  # E: arg-type
net.forward(params, x, Eval())  # E: call-arg, arg-type -> TypeError: missing 1 required positional argument
Train()  # E: call-arg -> TypeError: missing 1 required positional argument: 'key'
Train(0)  # E: arg-type
Train(Key(0)).key = Key(1)  # E: misc -> AttributeError
Key("seed")  # E: arg-type -> ValueError: Key: expected a seed that is an integer
Key(0.5)  # E: arg-type -> ValueError: Key: expected a seed that is an integer
Key(0).fold_in(1.5)  # E: arg-type -> TypeError: Key.fold_in: expected a name or an integer, got 1.5
Key(0).entropy = 1  # E: misc -> AttributeError
params["dense_0"] = {}  # E: index
result.params["dense_0"] = {}  # E: index
del result.params["dense_0"]  # E: attr-defined


# --- derivatives -----------------------------------------------------------------------------------------------------

value_and_grad(mse, net)  # E: arg-type -> TypeError: value_and_grad: model: expected a Layer, got mse
value_and_grad(net, opt)  # E: arg-type -> TypeError: value_and_grad: loss: expected a Loss, got adam(0.1)
value_and_grad(net, softmax_cross_entropy)  # E: arg-type -> TypeError: call it: softmax_cross_entropy(...)
value_and_grad(net, mse)(params, {}, x, y)  # E: call-arg -> TypeError: missing 1 required positional argument: 'mode'
value_and_grad(net, mse)(params, {}, tokens, y, Eval())  # E: arg-type -> TypeError: the input is int64
value_and_grad(net, squares)(params, {}, x, labels, Eval())  # E: arg-type -> ValueError: mse: expected output
value_and_grad(net, mse)(params, x, y, Eval())  # E: call-arg, arg-type -> TypeError: missing 1 required positional
grad(net, mse)(params, {}, x, y, "train")  # E: arg-type -> TypeError: Train(key) or Eval()
pullback(net, params, {}, tokens, Eval())  # E: misc -> TypeError: the input is int64
pullback(net, params, {}, x, Eval)  # E: arg-type -> TypeError: Train(key) or Eval()
pullback(net, params, {}, x, Eval())[2](labels)  # E: arg-type
mse(x, y)  # E: operator -> TypeError: mse: a loss as it is, written without parentheses; to use it: value, cache
squares.forward(x, labels, None)  # E: arg-type -> ValueError: mse: expected output and target of one shape
mse.kind = "mean"  # E: misc -> AttributeError


# --- training --------------------------------------------------------------------------------------------------------

train(params, data, mse, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: opt: expected an optimizer
train(params, data, opt, model=net, loss=opt, steps=1)  # E: arg-type -> TypeError: train: loss: expected a loss
train(params, data, mse, model=net, loss=opt, steps=1)  # E: arg-type -> TypeError: train: opt: expected an optimizer
train(params, data, adam, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: call it: adam(...)
train(params, data, 0.1, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: opt: expected an optimizer
train(params, data, opt, model=net, loss=softmax_cross_entropy, steps=1)  # E: arg-type -> TypeError: call it: softmax_
train(params, data, opt, model=net, loss="mse", steps=1)  # E: arg-type -> TypeError: train: loss: expected a loss
train(data, params, opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: data: expected batches(...)
train(params, opt, data, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: data: expected batches(...)
train(net, data, opt, model=params, loss=mse, steps=1)  # E: arg-type -> TypeError: train: model: expected a layer
train(params, (x, y), opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: data: expected batches(...)
train(params, data, opt, net, mse, steps=1)  # E: call-arg|misc -> TypeError: takes 3 positional arguments
train(params, data, opt, model=Dense, loss=mse, steps=1)  # E: arg-type -> TypeError: call it: Dense(...)
train(params, data, opt, model=net, steps=1)  # E: call-arg -> TypeError: required keyword-only argument: 'loss'
train(params, data, opt, model=reader, loss=mse, steps=1)  # E: misc -> ValueError: embedding_0: a mapping of 1 in
train(words, texts, opt, model=net, loss=mse, steps=1)  # E: misc -> ValueError
train(params, batches((x, labels), size=2), opt, model=net, loss=squares, steps=1)  # E: misc -> ValueError: target (2,)
train(params, batches(x, size=2), opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: expected (x, target)
train(params, batches((x,), size=2), opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: got a tuple of 1
train(params, batches((x, y, y, y), size=2), opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: got a tuple
train(params, data, opt, model=net, loss=mse, steps=1.5)  # E: arg-type -> ValueError: train: expected steps to be
train(params, data, opt, model=net, loss=mse, steps=1, key=0)  # E: arg-type -> TypeError: train: key: expected a Key
train(params, data, opt, model=net, loss=mse, steps=1, resume=1)  # E: arg-type -> TypeError: train: resume: expected
train(params, data, opt, model=net, loss=mse, steps=1, report=True)  # E: arg-type -> TypeError: expected a function
train(params, data, opt, model=net, loss=mse, steps=1, report=progress)  # E: arg-type
train(params, data, opt, model=net, loss=mse, steps=1, metrics=accuracy)  # E: arg-type -> TypeError
train(params, data, opt, model=net, loss=mse, steps=1, metrics=(mse,))  # E: arg-type -> TypeError: train: metrics
train(params, data, opt, model=net, loss=squares, steps=1, evaluation=(y, labels))  # E: misc -> ValueError
train(params, data, opt, model=net, loss=squares, steps=1, evaluation=(labels, x))  # E: misc -> TypeError
train(words, texts, opt, model=reader, loss=mse, steps=1, evaluation=(y, tokens))  # E: misc -> TypeError
train(params, data, opt, model=net, loss=mse, steps=1, evaluation=data)  # E: arg-type -> TypeError: train: evaluation
batches(x, y)  # E: arg-type -> ValueError: batches: expected size to be a positive integer
batches((x, y), 2, True)  # E: call-arg|misc -> TypeError
batches((x, y), size=2.0)  # E: arg-type -> ValueError: batches: expected size to be a positive integer, got 2.0
split((x, y), Key(0), 0.5)  # E: arg-type -> TypeError
one_hot(x, 3)  # E: arg-type -> TypeError: one_hot: expected integer labels, got float32
evaluate(params, net, (x, y), loss=mse)  # E: arg-type -> TypeError: evaluate: model: expected a layer
evaluate(net, params, (y, labels), loss=squares)  # E: misc -> ValueError: Dense(4): expected input (batch, ..., 3)
evaluate(net, params, (x, y), loss=mse, metrics=(adam,))  # E: arg-type -> TypeError: evaluate: metrics
evaluate(net, params, data, loss=mse)  # E: arg-type -> TypeError: evaluate: expected (x, target)
make_step(net, opt, mse)  # E: arg-type -> TypeError: loss: expected a Loss, got adam(0.1)
make_step(mse, net, opt)  # E: arg-type -> TypeError: model: expected a Layer, got mse
step(start, (tokens, y))  # E: arg-type -> TypeError: the input is int64
step(start, (x, labels))  # E: arg-type -> ValueError: mse: expected output and target of one shape
step(start, x)  # E: arg-type -> ValueError: Dense(4): expected input
step((x, y), start)  # E: arg-type
next(iterate(step, start, data))  # E: arg-type -> TypeError: 'Batches' object is not iterable
next(iterate(step, data.stream(Key(0)), start))  # E: arg-type -> TypeError: 'TrainState' object is not iterable
next(iterate(step, start, batches((x, labels), size=2).stream(Key(0))))  # E: arg-type -> ValueError: mse: expected
start.step = 1  # E: misc -> AttributeError
result.history = ()  # E: misc -> AttributeError
result.history[0].loss = 0.0  # E: misc -> AttributeError
result.history.append(0)  # E: attr-defined -> AttributeError
result.parameters  # E: attr-defined -> AttributeError
data.size = 3  # E: misc -> AttributeError


# --- optimizers and schedules ----------------------------------------------------------------------------------------


def text(step: int) -> str:
    return "0.1"


def of_two(step: int, epoch: int) -> float:
    return 0.1


adam(text)  # E: arg-type
sgd(of_two)  # E: arg-type
adam("0.1")  # E: arg-type -> ValueError: adam: expected a finite learning rate of at least 0, got '0.1'
adam()  # E: call-arg -> TypeError: missing 1 required positional argument: 'learning_rate'
adam(0.1, 0.9)  # E: call-arg|misc -> TypeError
adam(0.1, beta1=0.9)  # E: call-arg -> TypeError: unexpected keyword argument 'beta1'
adamw(0.1, where="weight")  # E: arg-type
warmup(text, steps=3)  # E: arg-type
cosine(0.1)  # E: call-arg -> TypeError: missing 1 required keyword-only argument: 'steps'
cosine(0.1, steps=3.5)  # E: arg-type -> ValueError: cosine: expected steps to be a positive integer, got 3.5
chain(adam(0.1), mse)  # E: arg-type
chain(adam, sgd(0.1))  # E: arg-type
chain([adam(0.1), sgd(0.1)])  # E: arg-type
opt.update(params)  # E: call-arg -> TypeError


class Halfway:
    """No optimizer: it has no update."""

    def init(self, params: Params) -> int:
        return 0


class Backwards:
    """No optimizer: its update takes the state first."""

    def init(self, params: Params) -> int:
        return 0

    def update(self, state: int, grads: Params, params: Params) -> tuple[int, Params]:
        return state, grads


class Finite:
    """No data: it does not say how many batches make an epoch."""

    def stream(self, key: Key, start: int = 0) -> list[tuple[Array, Array]]:
        return [(x, y)]


train(params, data, Halfway(), model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: opt: expected an
train(params, data, Backwards(), model=net, loss=mse, steps=1)  # E: arg-type
train(params, Finite(), opt, model=net, loss=mse, steps=1)  # E: arg-type -> TypeError: train: data: expected


# --- checkpoints and trees -------------------------------------------------------------------------------------------

save(start, "state.npz")  # E: arg-type -> TypeError
load("state.npz")  # E: call-arg -> TypeError: missing 1 required positional argument: 'like'
found: dict[str, int] = load("state.npz", like=start)  # E: arg-type
tree.reduce(params, max, 0)  # E: arg-type
tree.get("dense_0", params)  # E: arg-type
tree.map(params, np.abs)  # E: arg-type


# --- layers of ones own ----------------------------------------------------------------------------------------------


class Config(NamedTuple):
    factor: float
    repeats: int


def forward(params: Params, x: Array) -> tuple[Array, Array]:
    return x, x


def forward_without_cache(params: Params, x: Array) -> Array:
    return x


def forward_of_pairs(params: Params, x: Array) -> tuple[Array, tuple[Array, int]]:
    return x, (x, 1)


def forward_of_factor(factor: float, params: Params, x: Array) -> tuple[Array, Array]:
    return factor * x, x


def forward_of_config(config: Config, params: Params, x: Array) -> tuple[Array, Array]:
    return config.factor * x, x


def forward_in_mode(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, State, Array]:
    return x, state, x


def forward_without_state(params: Params, state: State, x: Array, mode: Mode) -> tuple[Array, Array]:
    return x, x


def vjp(params: Params, cache: Array, dy: Array) -> tuple[Params, Array]:
    return {}, dy


def vjp_of_pairs(params: Params, cache: tuple[Array, int], dy: Array) -> tuple[Params, Array]:
    return {}, dy


def vjp_of_lists(params: Params, cache: list[Array], dy: Array) -> tuple[Params, Array]:
    return {}, dy


def vjp_without_grads(params: Params, cache: Array, dy: Array) -> Array:
    return dy


def vjp_of_tokens(params: Params, cache: Array, dy: Array) -> tuple[Params, Ints]:
    return {}, np.zeros(dy.shape, np.int64)


def vjp_backwards(params: Params, cache: Array, dy: Array) -> tuple[Array, Params]:
    return dy, {}


def vjp_of_factor(factor: float, params: Params, cache: Array, dy: Array) -> tuple[Params, Array]:
    return {}, factor * dy


def vjp_of_factor_and_pairs(
    factor: float, params: Params, cache: tuple[Array, int], dy: Array
) -> tuple[Params, Array]:
    return {}, factor * dy


def param_vjp_of_pairs(params: Params, cache: tuple[Array, int], dy: Array) -> Params:
    return {}


def infer_of_tokens(params: Params, x: Ints) -> Array:
    return np.zeros(x.shape)


def init_without_key(in_shape: Shape) -> Params:
    return {}


def each(output: Array, target: Array) -> tuple[Array, Array]:
    return output - target, output


def each_vjp(cache: tuple[Array, int], dl: Any) -> Array:
    return cache[0]


def no_hits() -> int:
    return 0


def add_hits(total: int, output: Array, target: Ints, weight: Array | None) -> int:
    return total + int(np.sum(output.argmax(axis=1) == target))


def add_totals(a: int, b: int) -> int:
    return a + b


def as_float(total: int) -> float:
    return float(total)


hits = Metric("hits", no_hits, add_hits, add_totals, as_float)
half = bind(forward_of_factor, 0.5)

stateless("Own", no_params, forward, vjp_of_pairs)  # E: misc
stateless("Own", no_params, forward_of_pairs, vjp)  # E: misc
stateless("Own", no_params, forward_of_pairs, vjp_of_lists)  # E: misc
stateless("Own", no_params, half, bind(vjp_of_factor_and_pairs, 0.5))  # E: misc
stateless("Own", no_params, half, vjp_of_pairs)  # E: misc
layer("Own", no_params, forward_in_mode, vjp_of_pairs)  # E: misc
layer("Own", no_params, forward_in_mode, bind(vjp_of_factor_and_pairs, 0.5))  # E: misc
layer("Own", no_params, forward_in_mode, vjp, param_vjp=param_vjp_of_pairs)  # E: misc
stateless("Own", no_params, forward, vjp, param_vjp=param_vjp_of_pairs)  # E: misc
stateless("Own", no_params, forward, vjp, param_vjp=vjp)  # E: arg-type
stateless("Own", no_params, forward, vjp, infer=infer_of_tokens)  # E: misc
stateless("Own", no_params, forward, vjp, infer=forward)  # E: misc
stateless("Own", no_params, forward_without_cache, vjp)  # E: arg-type
stateless("Own", no_params, forward, vjp_without_grads)  # E: arg-type
stateless("Own", no_params, forward, vjp_backwards)  # E: arg-type, misc
stateless("Own", no_params, forward, vjp_of_tokens)  # E: misc
stateless("Own", no_params, vjp, forward)  # E: arg-type
stateless("Own", no_params, forward_in_mode, vjp)  # E: arg-type, misc
stateless("Own", init_without_key, forward, vjp)  # E: arg-type
stateless(no_params, forward, vjp)  # E: call-arg, arg-type -> TypeError
layer("Own", no_params, forward, vjp)  # E: arg-type
layer("Own", no_params, forward_without_state, vjp)  # E: arg-type
stateless("Own", no_params, forward_of_factor, bind(vjp_of_factor, 0.5))  # E: arg-type, misc
stateless("Own", no_params, half, vjp_of_factor)  # E: arg-type, misc
stateless("Own", no_params, bind(forward_of_factor, "0.5"), bind(vjp_of_factor, 0.5))  # E: arg-type
stateless("Own", no_params, half, bind(vjp_of_factor, "0.5"))  # E: arg-type
stateless("Own", no_params, bind(forward_of_config, 0.5), vjp)  # E: arg-type
stateless("Own", no_params, bind(forward_of_config, (0.5, 3)), vjp)  # E: arg-type
stateless("Own", no_params, bind(forward_of_config, Config(3, 0.5)), vjp)  # E: arg-type
bind(forward_of_factor, 0.5, params, x, 3)  # E: arg-type
bind(half, x)  # E: misc
half(params, labels)  # E: arg-type
half(x)  # E: arg-type, call-arg -> TypeError: missing 1 required positional argument: 'x'
loss("own", each, each_vjp)  # E: misc
loss("own", each_vjp, each)  # E: arg-type, misc
Row(1, 2.0)  # E: call-arg -> TypeError
evaluate(net, params, (x, y), loss=squares, metrics=(hits,))  # E: misc
evaluate(classes, params, (x, y), loss=softmax, metrics=(hits,))  # E: misc
train(params, data, opt, model=net, loss=squares, steps=1, evaluation=(x, y), metrics=(hits,))  # E: misc
