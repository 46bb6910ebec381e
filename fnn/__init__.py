"""Neural networks as pure functions over NumPy.

A layer is a pair of functions (forward, vjp), a network is a layer made of layers, parameters are a nested dict of
read-only arrays, an optimizer is a pair (init, update), and `train` is a loop without hidden state.
"""

from fnn import initializers, tree
from fnn.checkpoint import CheckpointError, load, load_arrays, load_metadata, save
from fnn.combinators import named, serial
from fnn.contract import Eval, Layer, Loss, Train, grad, layer, pullback, stateless, value_and_grad
from fnn.data import Batches, batches, one_hot, read_idx, split
from fnn.diagnosis import NonFiniteError
from fnn.history import Row, TrainState
from fnn.layers.activation import (
    Elu,
    Gelu,
    GeluTanh,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyRelu,
    Mish,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Squareplus,
    Tanh,
)
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout, GaussianNoise, SpatialDropout, StochasticDepth
from fnn.layers.embedding import Embedding
from fnn.layers.gated import Glu, Maxout, PRelu
from fnn.layers.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from fnn.layers.position import LearnedPosition, Rotary, SinusoidalPosition
from fnn.layers.shape import Flatten, Identity, Reshape, Transpose
from fnn.layers.softmax import LogSoftmax, Softmax
from fnn.losses import mse, sigmoid_cross_entropy, softmax_cross_entropy
from fnn.metrics import Metric, accuracy
from fnn.optimizers import Optimizer, adam, adamw, add_decayed_weights, apply_updates, chain, sgd
from fnn.progress import progress
from fnn.random import Key
from fnn.schedules import Schedule, constant, cosine, warmup
from fnn.training import Result, evaluate, iterate, make_step, train
from fnn.types import Array, Ints, Params, ShapeError, State, bind

__all__ = [
    "Array",
    "BatchNorm",
    "Batches",
    "CheckpointError",
    "Dense",
    "Dropout",
    "Elu",
    "Embedding",
    "Eval",
    "Flatten",
    "GaussianNoise",
    "Gelu",
    "GeluTanh",
    "Glu",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Identity",
    "InstanceNorm",
    "Ints",
    "Key",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "LearnedPosition",
    "LogSoftmax",
    "Loss",
    "Maxout",
    "Metric",
    "Mish",
    "NonFiniteError",
    "Optimizer",
    "PRelu",
    "Params",
    "RMSNorm",
    "Relu",
    "Reshape",
    "Result",
    "Rotary",
    "Row",
    "Schedule",
    "Selu",
    "ShapeError",
    "Sigmoid",
    "Silu",
    "SinusoidalPosition",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpatialDropout",
    "Squareplus",
    "State",
    "StochasticDepth",
    "Tanh",
    "Train",
    "TrainState",
    "Transpose",
    "accuracy",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "batches",
    "bind",
    "chain",
    "constant",
    "cosine",
    "evaluate",
    "grad",
    "initializers",
    "iterate",
    "layer",
    "load",
    "load_arrays",
    "load_metadata",
    "make_step",
    "mse",
    "named",
    "one_hot",
    "progress",
    "pullback",
    "read_idx",
    "save",
    "serial",
    "sgd",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "split",
    "stateless",
    "train",
    "tree",
    "value_and_grad",
    "warmup",
]
