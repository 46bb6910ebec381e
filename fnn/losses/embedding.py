"""Losses for embeddings: how near vectors lie to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fnn.check import number
from fnn.contract import Loss
from fnn.layers.softmax import row_dot, row_max, row_sum
from fnn.losses.core import example_means, float_error, like_output, loss, no_target, spread
from fnn.types import Array, ShapeError, bind

EPS = 1e-8
"""The length of a vector x is taken as `sqrt(x.x + EPS**2)`, so that zero vectors have a direction derivative."""


class Unit(NamedTuple):
    """A vector in its direction, and one by its length."""

    direction: Array
    scale: Array


def unit(x: Array) -> Unit:
    """Vectors along the last axis, scaled to length one."""
    scale = row_dot(x, x)
    scale += EPS * EPS
    np.sqrt(scale, out=scale)
    np.divide(1, scale, out=scale)
    return Unit(x * scale, scale)


def unit_vjp(u: Unit, d: Array) -> Array:
    """`dx = (d - u (u.d)) / |x|`."""
    dx: Array = d - u.direction * row_dot(u.direction, d)
    dx *= u.scale
    return dx


# --- cosine similarity: l = 1 - cos(output, target),   d = -(t - u (u.t)) / |output| with unit vectors u and t --------


def cosine_forward(output: Array, target: Array) -> tuple[Array, tuple[Unit, Array]]:
    """`l = 1 - u.t` with the unit vectors of output and target."""
    like = like_output("cosine_similarity", output, target)
    if output.ndim < 2:
        raise ShapeError(f"cosine_similarity: expected an output (batch, ..., features), got {output.shape}")
    u, t = unit(output), unit(like).direction
    return example_means(1 - row_dot(u.direction, t)), (u, t)


def cosine_vjp(cache: tuple[Unit, Array], dl: float | Array) -> Array:
    """`d_output = -dl (t - u (u.t)) / |output|`, over the vectors of one example."""
    u, t = cache
    d = unit_vjp(u, t)
    d *= spread(dl, d.ndim) * (-len(d) * d.shape[-1] / d.size)
    return d


cosine_similarity: Loss[Array, Array] = loss("cosine_similarity", cosine_forward, cosine_vjp)
"""`1 - cos(output, target)` of the vectors along the last axis, mean over all of them: 0 where they point the same way,
2 where they are opposed."""


# --- triplet: l = max(0, |a - p|**2 - |a - n|**2 + margin) ------------------------------------------------------------


def triplet_forward(
    margin: float, output: tuple[Array, Array, Array], target: None
) -> tuple[Array, tuple[Array, Array, Array]]:
    """`l = max(0, |a - p|**2 - |a - n|**2 + margin)`; the cache is a - p, a - n and where l is positive."""
    no_target("triplet", target)
    anchor, positive, negative = same_shapes("triplet", output, 3)
    near, far = anchor - positive, anchor - negative
    l = row_dot(near, near)[:, 0] - row_dot(far, far)[:, 0] + margin
    return np.maximum(l, 0), (near, far, (l > 0).astype(l.dtype))


def triplet_vjp(cache: tuple[Array, Array, Array], dl: float | Array) -> tuple[Array, Array, Array]:
    """`da = 2 dl (n - p)`, `dp = -2 dl (a - p)`, `dn = 2 dl (a - n)` where l is positive."""
    near, far, active = cache
    share = (active * dl * 2)[:, None]
    return (near - far) * share, near * -share, far * share


def triplet(*, margin: float = 1.0) -> Loss[tuple[Array, Array, Array], None]:
    """`max(0, |a - p|**2 - |a - n|**2 + margin)`, mean over the batch, for an output of three arrays (batch, features):
    anchors a, examples p of the same kind and n of another (Schroff et al. 2015, FaceNet, equation 3).

    There is no target: give None.
    """
    return loss(
        "triplet",
        bind(triplet_forward, number("triplet", "margin", margin, above=0)),
        triplet_vjp,
        config={"margin": margin},
        build=triplet,
    )


def same_shapes(kind: str, output: tuple[Array, ...], count: int) -> tuple[Array, ...]:
    """The outputs, if they are so many arrays (batch, features) of one shape and dtype."""
    shapes = tuple(np.shape(part) for part in output) if isinstance(output, tuple) else (np.shape(output),)
    if len(shapes) != count or len({*shapes}) != 1 or len(shapes[0]) != 2:
        raise ShapeError(f"{kind}: expected an output of {count} arrays (batch, features) of one shape, got {shapes}")
    for part in output:
        if part.dtype.kind != "f":
            raise float_error(kind, part)
        if part.dtype != output[0].dtype:
            raise TypeError(f"{kind}: expected outputs of one dtype, got {output[0].dtype} and {part.dtype}")
    return output


# --- InfoNCE: with s = cos(query_i, key_j) / temperature:   l_i = log sum_j exp(s_ij) - s_ii -------------------------


class InfoCache(NamedTuple):
    """What the derivative needs."""

    q: Unit
    k: Unit
    to_keys: Array
    """The softmax of every row of s, minus the identity."""
    to_queries: Array | None
    """The same of the transposed matrix, where the loss is symmetric."""


def info_nce_forward(
    temperature: float, symmetric: bool, output: tuple[Array, Array], target: None
) -> tuple[Array, InfoCache]:
    """`l_i = log sum_j exp(s_ij) - s_ii`; symmetric, the mean of this and the same for the transposed s."""
    no_target("info_nce", target)
    queries, keys = same_shapes("info_nce", output, 2)
    q, k = unit(queries), unit(keys)
    s = q.direction.dot(k.direction.T) * (1 / temperature)
    l, to_keys = _matching(s)
    if not symmetric:
        return l, InfoCache(q, k, to_keys, None)
    other, to_queries = _matching(s.T)
    return (l + other) * 0.5, InfoCache(q, k, to_keys, to_queries)


def _matching(s: Array) -> tuple[Array, Array]:
    """`log sum_j exp(s_ij) - s_ii` and its derivative, the softmax of the rows minus the identity."""
    same = np.eye(len(s), dtype=s.dtype)
    z = s - row_max(s)
    own = row_sum(z * same)[:, 0]
    np.exp(z, out=z)
    total = row_sum(z)
    z /= total
    z -= same
    return np.log(total[:, 0]) - own, z


def info_nce_vjp(temperature: float, cache: InfoCache, dl: float | Array) -> tuple[Array, Array]:
    """`ds_ij = dl_i (softmax(s_i)_j - [i = j])`, through the product and the lengths."""
    q, k, to_keys, to_queries = cache
    share = spread(dl, 2)
    ds = to_keys * share
    if to_queries is not None:
        ds += (to_queries * share).T
        ds *= 0.5
    ds *= 1 / temperature
    return unit_vjp(q, ds.dot(k.direction)), unit_vjp(k, ds.T.dot(q.direction))


def info_nce(*, temperature: float = 0.1, symmetric: bool = False) -> Loss[tuple[Array, Array], None]:
    """The contrastive loss InfoNCE for an output of two arrays (batch, features), queries and keys: with similarities
    `s_ij = cos(query_i, key_j) / temperature`, the mean over the batch of

        log sum_j exp(s_ij) - s_ii

    the softmax cross-entropy of finding every query's own key among those of the batch (van den Oord et al. 2018,
    equation 4; with cosines as in Chen et al. 2020, SimCLR). Symmetric, it is the mean of this and of finding every
    key's query (Radford et al. 2021, CLIP). The examples of a batch depend on each other, so an evaluation depends on
    its size. There is no target: give None.
    """
    number("info_nce", "temperature", temperature, above=0)
    return loss(
        "info_nce",
        bind(info_nce_forward, float(temperature), symmetric),
        bind(info_nce_vjp, float(temperature)),
        couples_batch=True,
        config={"temperature": temperature, "symmetric": symmetric},
        build=info_nce,
    )
