"""Embedding: a learned vector for every token of a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnn.contract import Layer, stateless
from fnn.initializers import Initializer, normal
from fnn.check import positive
from fnn.random import Key
from fnn.types import Array, Ints, Params, Shape, ShapeError, bind

# y = W[x]        dW[v] = sum of dy over the places where x = v        tokens have no derivative


def embedding_forward(params: Params, x: Ints) -> tuple[Array, Ints]:
    """`y = W[x]`: the rows of W (vocabulary, features) named by the token ids x (batch, ...); the cache is x."""
    weight = params["weight"]
    vocabulary, features = weight.shape
    if getattr(x, "ndim", 0) == 0 or x.dtype.kind not in "iu":
        raise _input_error(f"Embedding({vocabulary}, {features})", x)
    try:
        # A negative id, seen as unsigned, is far above the vocabulary: take would count it from the end.
        return weight.take(np.minimum(x.astype(np.uint64), vocabulary).astype(np.intp), axis=0), x
    except IndexError:
        raise ValueError(
            f"Embedding({vocabulary}, {features}): expected token ids from 0 to {vocabulary - 1}, "
            f"got ids from {x.min()} to {x.max()}"
        ) from None


def embedding_param_vjp(params: Params, x: Ints, dy: Array) -> Params:
    """`dW[v] = sum of dy over the places where x = v`."""
    # Adding number by number into a flat array is a tight loop inside NumPy; adding row by row is not.
    features = dy.shape[-1]
    places = np.add.outer(x.reshape(-1).astype(np.intp) * features, np.arange(features))
    weight = np.zeros(params["weight"].size, dy.dtype)
    np.add.at(weight, places.reshape(-1), dy.reshape(-1))
    return {"weight": weight.reshape(params["weight"].shape)}


def embedding_vjp(params: Params, x: Ints, dy: Array) -> tuple[Params, Ints]:
    """As `embedding_param_vjp`; token ids have no derivative, in the place of dx stand integer zeros shaped as x."""
    return embedding_param_vjp(params, x, dy), np.zeros(x.shape, x.dtype)


def Embedding(vocabulary: int, features: int, *, weight_init: Initializer = normal(1.0)) -> Layer[Ints, Array]:
    """A learned vector for every token: `y = W[x]`, from token ids (batch, ...) to (batch, ..., features).

    Parameters: `weight` (vocabulary, features). Ids must be integers from 0 to vocabulary - 1: others raise `TypeError`
    or `ValueError`. The gradient of a token that occurs several times is the sum over its places.
    Bengio et al. 2003, section 2.
    """
    positive("Embedding", "vocabulary", vocabulary)
    positive("Embedding", "features", features)
    return stateless(
        "Embedding",
        bind(_init, vocabulary, features, weight_init),
        embedding_forward,
        embedding_vjp,
        out_shape=bind(_out_shape, vocabulary, features),
        param_vjp=embedding_param_vjp,
        config={"vocabulary": vocabulary, "features": features, "weight_init": weight_init},
        build=Embedding,
    )


def _init(vocabulary: int, features: int, weight_init: Initializer, key: Key, in_shape: Shape) -> Params:
    return {"weight": weight_init(key.fold_in("weight"), (vocabulary, features))}


def _out_shape(vocabulary: int, features: int, in_shape: Any) -> Shape:
    if not isinstance(in_shape, tuple) or not all(isinstance(n, (int, np.integer)) for n in in_shape):
        raise ShapeError(f"Embedding({vocabulary}, {features}): expected a shape of token ids (...), got {in_shape!r}")
    return (*in_shape, features)


def _input_error(who: str, x: Any) -> Exception:
    if not isinstance(x, np.ndarray):
        return TypeError(f"{who}: expected an array of token ids, got {type(x).__name__}; use np.asarray(x)")
    if x.dtype.kind not in "iu":
        return TypeError(f"{who}: expected integer token ids, got {x.dtype}; use x.astype(np.int64)")
    return ShapeError(f"{who}: expected token ids (batch, ...), got {x.shape}")
