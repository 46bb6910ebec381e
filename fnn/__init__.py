"""Neural networks as pure functions over NumPy.

A layer is a pair of functions (forward, vjp), a network is a layer made of layers, parameters are a nested dict of
read-only arrays, an optimizer is a pair (init, update), and `train` is a loop without hidden state.
"""

from fnn import initializers, tree
from fnn.combinators import named, serial
from fnn.contract import Eval, Layer, Loss, Train, grad, layer, pullback, stateless, value_and_grad
from fnn.data import Batches, batches, one_hot, read_idx, split
from fnn.diagnosis import NonFiniteError
from fnn.history import Row, TrainState
from fnn.layers.activation import Relu, Sigmoid, Tanh
from fnn.layers.dense import Dense
from fnn.losses import mse, sigmoid_cross_entropy, softmax_cross_entropy
from fnn.metrics import Metric, accuracy
from fnn.optimizers import Optimizer, adam, adamw, add_decayed_weights, apply_updates, chain, sgd
from fnn.random import Key
from fnn.schedules import Schedule, constant, cosine, warmup
from fnn.training import Result, evaluate, iterate, make_step, train
from fnn.types import Array, Ints, Params, ShapeError, State, bind
