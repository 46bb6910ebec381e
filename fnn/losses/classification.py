"""Losses for classes: cross-entropies from logits and from probabilities, focal losses, hinges, Kullback-Leibler.

Targets of classes are integer labels (the shape of the logits without their last axis) or dense distributions (the
whole shape), rows of class weights t. `Classes` holds the options that all losses of classes share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fnn.check import fraction, not_negative, number
from fnn.contract import Loss
from fnn.layers.softmax import row_max
from fnn.losses.core import elementwise, example_means, float_error, like_output, loss, spread
from fnn.types import Array, Ints, Shape, ShapeError, bind, ones

C = TypeVar("C")


# --- targets of classes ----------------------------------------------------------------------------------------------


class Classes(NamedTuple):
    """Which loss it is, and how it takes its targets."""

    kind: str
    smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    ignore: int | None = None

    @property
    def weighs(self) -> bool:
        """Whether some rows count more than others."""
        return self.class_weights is not None or self.ignore is not None


class Targets(NamedTuple):
    """Targets as rows of class weights."""

    t: Array
    """(rows, classes), smoothed and weighted."""
    total: Array | None
    """Their sums (rows,); `None` where these are 1 by construction."""


def class_targets(classes: Classes, output: Array, target: Array | Ints) -> Targets:
    """The targets for an output (batch, ..., classes).

    Without class weights and ignored label these are one-hot rows or the dense targets, smoothed. With them every row
    is scaled so that the mean over an example's rows is its weighted mean over the rows that count.
    """
    t = hits(classes, output, target)
    dense = t.dot(ones(t.shape[1], t.dtype)) if np.ndim(target) == output.ndim else None
    counts = row_counts(classes, t) if classes.weighs else None
    n = t.shape[1]
    if classes.smoothing:
        t = t * (1 - classes.smoothing)
        t += classes.smoothing / n if dense is None else (dense * (classes.smoothing / n))[:, None]
    if counts is None:
        return Targets(t, dense)
    per_example = counts.reshape(len(output), -1)
    mass = per_example.dot(ones(per_example.shape[1], counts.dtype))
    share = (per_example.shape[1] / (mass + (mass == 0)))[:, None]
    if classes.class_weights is not None:
        t = t * np.array(classes.class_weights, t.dtype)
    if classes.ignore is not None:
        share = share * (target.reshape(per_example.shape) != classes.ignore)
    t = t * np.broadcast_to(share, per_example.shape).reshape(-1, 1)
    return Targets(t, t.dot(ones(n, t.dtype)))


def row_counts(classes: Classes, t: Array) -> Array:
    """How much every row counts: the weight of its class, `sum_k w_k t_k`; 0 for an ignored label."""
    weights = classes.class_weights
    counts: Array = t.dot(ones(t.shape[1], t.dtype) if weights is None else np.array(weights, t.dtype))
    return counts


def class_mass(classes: Classes, output: Array, target: Array | Ints) -> Array:
    """How much every example counts: the sum over its rows."""
    counts = row_counts(classes, hits(classes, output, target)).reshape(len(output), -1)
    mass: Array = counts.dot(ones(counts.shape[1], counts.dtype))
    return mass


def hits(classes: Classes, output: Array, target: Array | Ints) -> Array:
    """The targets as rows (rows, classes) in the dtype of the output: one-hot, or as they are where they are dense."""
    kind, shape = classes.kind, np.shape(output)
    given: NDArray[Any] = np.asarray(target)
    if len(shape) < 2:
        raise ShapeError(f"{kind}: expected an output (batch, ..., classes), got {shape}")
    n = shape[-1]
    if classes.class_weights is not None and len(classes.class_weights) != n:
        raise ShapeError(f"{kind}: expected class weights for {n} classes, got {len(classes.class_weights)}")
    if output.dtype.kind != "f":
        raise float_error(kind, output)
    if given.shape == shape[:-1] and given.dtype.kind in "iu":
        return one_hot_rows(kind, given, n, output.dtype, classes.ignore)
    if given.shape == shape and given.dtype.kind == "f" and classes.ignore is None:
        return np.asarray(given, output.dtype).reshape(-1, n)
    dense = f" or dense float targets {shape}" if classes.ignore is None else ""
    raise ShapeError(
        f"{kind}: for an output {shape} expected integer labels {shape[:-1]}{dense}, "
        f"got {given.dtype} {given.shape}; nothing is broadcast"
    )


def one_hot_rows(kind: str, labels: Ints, classes: int, dtype: np.dtype[Any], ignore: int | None = None) -> Array:
    """One row for each label, with 1 at it, and zeros where it is ignored; other labels raise `ValueError`."""
    column = labels.reshape(-1, 1)
    found: NDArray[np.bool_] = column == np.arange(classes)
    expected = labels.size
    if ignore is not None:
        kept = column != ignore
        found &= kept
        expected = int(np.count_nonzero(kept))
    if np.count_nonzero(found) != expected:
        check_labels(kind, labels, classes, ignore)
    rows: Array = found.astype(dtype)
    return rows


def check_labels(kind: str, labels: NDArray[Any], classes: int, ignore: int | None = None) -> None:
    """Raises `ValueError` unless every label lies in [0, classes), or is the ignored one."""
    wrong = (labels < 0) | (labels >= classes)
    if ignore is not None:
        wrong &= labels != ignore
    if wrong.any():
        but = "" if ignore is None else f" (or {ignore}, ignored)"
        raise ValueError(f"{kind}: expected labels from 0 to {classes - 1}{but}, got {labels[wrong][0]}")


def checked_classes(
    kind: str, smoothing: float = 0.0, class_weights: Sequence[float] | None = None, ignore: int | None = None
) -> Classes:
    """The options, checked when a loss is made."""
    fraction(kind, "smoothing", smoothing)
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer))):
        raise ValueError(f"{kind}: expected ignore to be a label or None, got {ignore!r}")
    if class_weights is None:
        return Classes(kind, smoothing, None, ignore)
    weights = tuple(not_negative(kind, "every class weight", float(weight)) for weight in class_weights)
    if not any(weights):
        raise ValueError(f"{kind}: expected a class weight that is not 0, got {weights}")
    return Classes(kind, smoothing, weights, ignore)


def class_loss(
    classes: Classes,
    forward: Callable[[Array, Targets], tuple[Array, C]],
    vjp: Callable[[C, Any], Array],
    config: dict[str, Any],
    build: Callable[..., Any],
) -> Loss[Array, Array | Ints]:
    """A loss from a pair for rows: `forward(rows, targets) -> (l, cache)` with l (rows,), and `vjp(cache, dl) -> d`,
    where dl is a number or a column, one for each row. An example's loss is the mean over its rows."""
    return loss(
        classes.kind,
        bind(_class_forward, classes, forward),
        bind(_class_vjp, vjp),
        mass=bind(class_mass, classes) if classes.weighs else None,
        config=config,
        build=build,
    )


def _class_forward(
    classes: Classes,
    forward: Callable[[Array, Targets], tuple[Array, C]],
    output: Array,
    target: Array | Ints,
) -> tuple[Array, tuple[C, Shape]]:
    targets = class_targets(classes, output, target)
    shape = output.shape
    l, cache = forward(output if len(shape) == 2 else output.reshape(-1, shape[-1]), targets)
    return (l if len(shape) == 2 else example_means(l.reshape(shape[:-1]))), (cache, shape)


def _class_vjp(vjp: Callable[[C, Any], Array], cache: tuple[C, Shape], dl: float | Array) -> Array:
    of_rows, shape = cache
    if len(shape) == 2:
        return vjp(of_rows, spread(dl, 2))
    rows = 1
    for n in shape[1:-1]:
        rows *= n
    each = dl / rows
    return vjp(of_rows, each if isinstance(each, float) else each.repeat(rows)[:, None]).reshape(shape)


# --- softmax cross-entropy: l = log sum_k exp(z_k) - sum_k t_k z_k,   d = softmax(z) - t -----------------------------


class SoftmaxCache(NamedTuple):
    """What the derivative needs, as matrices (rows, classes)."""

    p: Array
    """The softmax of the logits."""
    t: Array
    """The target distribution."""
    total: Array | None
    """`sum_k t_k` where it is not 1 by construction."""


def softmax_cross_entropy_forward(logits: Array, targets: Targets) -> tuple[Array, SoftmaxCache]:
    """`l = -sum_k t_k log softmax(z)_k`, from logits shifted by their maximum."""
    t, total = targets
    one = ones(t.shape[1], t.dtype)
    z = logits - row_max(logits)
    picked = (z * t).dot(one)
    np.exp(z, out=z)
    l = z.dot(one)
    z /= l[:, None]
    np.log(l, out=l)
    if total is not None:
        l *= total
    l -= picked
    return l, SoftmaxCache(z, t, total)


def softmax_cross_entropy_vjp(cache: SoftmaxCache, dl: Any) -> Array:
    """`d_logits = dl (softmax(z) sum(t) - t)`."""
    p, t, total = cache
    d: Array = p - t if total is None else p * total[:, None] - t
    d *= dl
    return d


def softmax_cross_entropy(
    *, smoothing: float = 0.0, class_weights: Sequence[float] | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """Cross-entropy of logits z over the last axis: `-sum_k t_k log softmax(z)_k`, mean over all rows.

    Targets are integer labels (the shape of the logits without its last axis) or dense distributions t (the whole
    shape).

    smoothing: s replaces t by `(1 - s) t + s / classes` (Szegedy et al. 2016, section 7).
    class_weights: w_k for each class: `-sum_k w_k t_k log softmax(z)_k`. A row counts as much as its class: the value
        is the sum over the rows divided by the sum of `sum_k w_k t_k`, t before smoothing. Labels and one-hot targets
        give the same. (PyTorch does this for labels; for dense targets it divides by the number of rows.)
    ignore: rows with this label count nothing, and have no gradient; the value is the mean over the others.

    With example weights v as well, a row counts `v w`: with the mass m of an example, the sum over its rows of what
    they count, the value is `sum(v m l) / sum(v m)`. Raises `ValueError` where nothing counts.
    """
    return class_loss(
        checked_classes("softmax_cross_entropy", smoothing, class_weights, ignore),
        softmax_cross_entropy_forward,
        softmax_cross_entropy_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore},
        softmax_cross_entropy,
    )


# --- the same from log-probabilities: l = -sum_k t_k y_k,   d = -t ----------------------------------------------------


def nll_forward(y: Array, targets: Targets) -> tuple[Array, Array]:
    """`l = -sum_k t_k y_k`; the cache is t."""
    t = targets.t
    return (y * t).dot(ones(t.shape[1], t.dtype)) * -1.0, t


def nll_vjp(t: Array, dl: Any) -> Array:
    """`d = -dl t`."""
    d: Array = t * -dl
    return d


def nll(
    *, smoothing: float = 0.0, class_weights: Sequence[float] | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """Negative log likelihood for networks that end in `LogSoftmax`: `-sum_k t_k y_k` of log-probabilities y.

    Targets and options are those of `softmax_cross_entropy`, and so is the value: it is the loss of the logits.
    """
    return class_loss(
        checked_classes("nll", smoothing, class_weights, ignore),
        nll_forward,
        nll_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore},
        nll,
    )


# --- the same from probabilities: l = -sum_k t_k L(p_k),   d = -t / max(p, floor) -------------------------------------
#
# L(p) = log p from the floor upwards; below it goes on along its tangent, log(floor) + p / floor - 1. So the loss is
# finite for p = 0, and its derivative, 1 / max(p, floor), is exact and does not vanish where the network is most wrong.


def floored_log(p: Array, floor: float) -> tuple[Array, Array]:
    """`L(p)`, and `max(p, floor)`, one by its derivative."""
    above = np.maximum(p, floor)
    l = p / above  # 1 above the floor, p / floor below
    l -= 1
    l += np.log(above)
    return l, above


def cross_entropy_forward(floor: float, p: Array, targets: Targets) -> tuple[Array, tuple[Array, Array]]:
    """`l = -sum_k t_k L(p_k)`; the cache is t and `max(p, floor)`."""
    l, above = floored_log(p, floor)
    l *= targets.t
    return l.dot(ones(p.shape[1], p.dtype)) * -1.0, (targets.t, above)


def cross_entropy_vjp(cache: tuple[Array, Array], dl: Any) -> Array:
    """`d = -dl t / max(p, floor)`."""
    t, above = cache
    d: Array = t / above
    d *= -dl
    return d


def cross_entropy(
    *,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    ignore: int | None = None,
    floor: float = 1e-7,
) -> Loss[Array, Array | Ints]:
    """Cross-entropy for networks that end in `Softmax`: `-sum_k t_k log p_k` of probabilities p, mean over all rows.

    Below the floor the logarithm goes on along its tangent: `log(floor) + p / floor - 1`. So a probability of 0 costs
    `1 - log(floor)`, and the derivative, `-t / max(p, floor)`, is exact. Targets and other options are those of
    `softmax_cross_entropy`, which is the better choice where the network can end in logits.
    """
    return class_loss(
        checked_classes("cross_entropy", smoothing, class_weights, ignore),
        bind(cross_entropy_forward, number("cross_entropy", "floor", floor, above=0, below=1)),
        cross_entropy_vjp,
        {"smoothing": smoothing, "class_weights": class_weights, "ignore": ignore, "floor": floor},
        cross_entropy,
    )


# --- sigmoid cross-entropy: with u = w t and s = u + 1 - t:   l = s softplus(z) - u z,   d = s sigmoid(z) - u ---------


def sigmoid_targets(kind: str, smoothing: float, target: Array) -> Array:
    """The targets, which must lie in [0, 1], smoothed."""
    if target.size and not (0 <= target.min() and target.max() <= 1):
        raise ValueError(f"{kind}: expected targets from 0 to 1, got {target.min()} to {target.max()}")
    return target * (1 - smoothing) + smoothing / 2 if smoothing else target


def sigmoid_cross_entropy_forward(
    smoothing: float, positive_weight: float, logits: Array, target: Array
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    """`l = s softplus(z) - u z`, with softplus(z) = max(z, 0) + log(1 + exp(-|z|)), which cannot overflow."""
    u = sigmoid_targets("sigmoid_cross_entropy", smoothing, target)
    s = None
    if positive_weight != 1:
        s = 1 - u
        u = u * positive_weight
        s += u
    l = np.abs(logits)
    np.negative(l, out=l)
    np.exp(l, out=l)
    np.log1p(l, out=l)
    m = np.maximum(logits, 0)
    if s is not None:
        l *= s
        m *= s
    m -= u * logits  # before the small term is added: where the answer is right, these two cancel exactly
    l += m
    return l, (logits, u, s)


def sigmoid_cross_entropy_vjp(cache: tuple[Array, Array, Array | None], dl: Any) -> Array:
    """`d_logits = dl (s sigmoid(z) - u)`."""
    logits, u, s = cache
    d = sigmoid(logits)
    if s is not None:
        d *= s
    d -= u
    d *= dl
    return d


def sigmoid(z: Array) -> Array:
    """`1 / (1 + exp(-z))`."""
    e = np.minimum(z, 40)
    np.exp(e, out=e)
    e /= e + 1
    return e


def sigmoid_cross_entropy(*, smoothing: float = 0.0, positive_weight: float = 1.0) -> Loss[Array, Array | Ints]:
    """Binary cross-entropy of logits z: `-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, mean over all numbers.

    Targets t are probabilities or 0 and 1, in the shape of the logits; others raise `ValueError`. Smoothing s replaces
    t by `(1 - s) t + s / 2`; the positive weight multiplies the first term (the mean is over all numbers all the same).
    """
    weight = number("sigmoid_cross_entropy", "positive_weight", positive_weight, above=0)
    return elementwise(
        "sigmoid_cross_entropy",
        bind(sigmoid_cross_entropy_forward, fraction("sigmoid_cross_entropy", "smoothing", smoothing), weight),
        sigmoid_cross_entropy_vjp,
        config={"smoothing": smoothing, "positive_weight": positive_weight},
        build=sigmoid_cross_entropy,
    )


# --- binary cross-entropy of probabilities: l = -t L(p) - (1 - t) L(1 - p) --------------------------------------------


def binary_cross_entropy_forward(
    smoothing: float, floor: float, p: Array, target: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """`l = -t L(p) - (1 - t) L(1 - p)`; the cache is t and the two floored probabilities."""
    t = sigmoid_targets("binary_cross_entropy", smoothing, target)
    l, yes = floored_log(p, floor)
    other, no = floored_log(1 - p, floor)
    l *= t
    l += (1 - t) * other
    return np.negative(l, out=l), (t, yes, no)


def binary_cross_entropy_vjp(cache: tuple[Array, Array, Array], dl: Any) -> Array:
    """`d = dl ((1 - t) / max(1 - p, floor) - t / max(p, floor))`."""
    t, yes, no = cache
    d = 1 - t
    d /= no
    d -= t / yes
    d *= dl
    return d


def binary_cross_entropy(*, smoothing: float = 0.0, floor: float = 1e-7) -> Loss[Array, Array | Ints]:
    """For networks that end in `Sigmoid`: `-t log p - (1 - t) log(1 - p)` of probabilities p, mean over all numbers.

    Below the floor the logarithm goes on along its tangent, as in `cross_entropy`; so the value is finite for p of 0
    and 1, and the derivative is exact. `sigmoid_cross_entropy` is the better choice where the network can end in logits.
    """
    return elementwise(
        "binary_cross_entropy",
        bind(
            binary_cross_entropy_forward,
            fraction("binary_cross_entropy", "smoothing", smoothing),
            number("binary_cross_entropy", "floor", floor, above=0, below=1),
        ),
        binary_cross_entropy_vjp,
        config={"smoothing": smoothing, "floor": floor},
        build=binary_cross_entropy,
    )


# --- focal: F(u) = sigmoid(u)**gamma softplus(u),   l = a t F(-z) + b (1 - t) F(z) ------------------------------------


def focal_term(gamma: float, u: Array) -> tuple[Array, Array]:
    """`F(u)` and its derivative `sigmoid(u)**gamma (gamma (1 - sigmoid(u)) softplus(u) + sigmoid(u))`.

    Since log sigmoid(u) = -softplus(-u), the power is `exp(-gamma softplus(-u))`: no overflow, full accuracy.
    """
    small = np.log1p(np.exp(-np.abs(u)))
    plus = np.maximum(u, 0) + small
    s = sigmoid(u)
    power = np.exp((small - np.minimum(u, 0)) * -gamma)
    return power * plus, power * (gamma * (1 - s) * plus + s)


def sigmoid_focal_forward(
    gamma: float, alpha: float | None, logits: Array, target: Array
) -> tuple[Array, Array]:
    """`l = a t F(-z) + b (1 - t) F(z)`, a = alpha and b = 1 - alpha, or both 1; the cache is the derivative."""
    t = sigmoid_targets("sigmoid_focal", 0.0, target)
    yes, d_yes = focal_term(gamma, -logits)
    no, d_no = focal_term(gamma, logits)
    a, b = t, 1 - t
    if alpha is not None:
        a, b = a * alpha, b * (1 - alpha)
    return a * yes + b * no, b * d_no - a * d_yes


def sigmoid_focal_vjp(slope: Array, dl: Any) -> Array:
    """`d_logits = dl (b (1 - t) F'(z) - a t F'(-z))`."""
    d: Array = slope * dl
    return d


def sigmoid_focal(*, gamma: float = 2.0, alpha: float | None = None) -> Loss[Array, Array | Ints]:
    """The focal loss of logits z, mean over all numbers: `-(1 - q)**gamma log q`, where q is the probability given to
    the truth: sigmoid(z) where the target is 1, 1 - sigmoid(z) where it is 0 (Lin et al. 2017, equation 4).

    alpha weighs the ones by alpha and the zeros by 1 - alpha (equation 5). Targets between 0 and 1 mix both terms.
    With gamma = 0 it is `sigmoid_cross_entropy`.
    """
    return elementwise(
        "sigmoid_focal",
        bind(
            sigmoid_focal_forward,
            not_negative("sigmoid_focal", "gamma", gamma),
            None if alpha is None else number("sigmoid_focal", "alpha", alpha, above=0, below=1),
        ),
        sigmoid_focal_vjp,
        config={"gamma": gamma, "alpha": alpha},
        build=sigmoid_focal,
    )


# --- softmax focal: with y = log softmax(z) and q = 1 - p:   l = -sum_k t_k q_k**gamma y_k ----------------------------


def softmax_focal_forward(gamma: float, logits: Array, targets: Targets) -> tuple[Array, tuple[Array, Array]]:
    """`l = -sum_k t_k q_k**gamma y_k`; the cache is p and the derivative g with respect to y.

    `g = -t q**gamma (1 - gamma p y / q)`, with y / q = -1 in the limit p = 1.
    """
    one = ones(logits.shape[1], logits.dtype)
    y = logits - row_max(logits)
    y -= np.log(np.exp(y).dot(one))[:, None]
    p = np.exp(y)
    q = -np.expm1(y)
    weight = targets.t * np.power(q, gamma)
    relative = y / np.maximum(q, np.finfo(q.dtype).tiny)
    return (weight * y).dot(one) * -1.0, (p, weight * (gamma * p * relative - 1))


def softmax_focal_vjp(cache: tuple[Array, Array], dl: Any) -> Array:
    """`d_logits = dl (g - p sum_k g_k)`."""
    p, g = cache
    d: Array = g - p * g.dot(ones(g.shape[1], g.dtype))[:, None]
    d *= dl
    return d


def softmax_focal(
    *, gamma: float = 2.0, class_weights: Sequence[float] | None = None, ignore: int | None = None
) -> Loss[Array, Array | Ints]:
    """The focal loss over classes: `-sum_k t_k (1 - p_k)**gamma log p_k` with p = softmax(z), mean over all rows.

    Targets, class weights and ignored label are those of `softmax_cross_entropy`, which it is with gamma = 0 (after
    Lin et al. 2017).
    """
    return class_loss(
        checked_classes("softmax_focal", 0.0, class_weights, ignore),
        bind(softmax_focal_forward, not_negative("softmax_focal", "gamma", gamma)),
        softmax_focal_vjp,
        {"gamma": gamma, "class_weights": class_weights, "ignore": ignore},
        softmax_focal,
    )


# --- hinge: l = max(0, 1 - t z),   d = -t where it is positive --------------------------------------------------------


def hinge_forward(output: Array, target: Array) -> tuple[Array, Array]:
    """`l = max(0, 1 - t z)`; the cache is the derivative."""
    if np.count_nonzero(np.abs(target) == 1) != target.size:
        raise ValueError("hinge: expected targets -1 and 1; use 2 * labels - 1 for labels 0 and 1")
    l = target * output
    np.subtract(1, l, out=l)
    return np.maximum(l, 0), target * (l > 0) * -1.0


def hinge_vjp(slope: Array, dl: Any) -> Array:
    """`d = -dl t [1 - t z > 0]`."""
    d: Array = slope * dl
    return d


hinge = elementwise("hinge", hinge_forward, hinge_vjp)
"""`max(0, 1 - t z)` of outputs z for targets t of -1 and 1, mean over all numbers (Cortes and Vapnik 1995)."""


# --- multiclass hinge: l = max(0, 1 + max_{k != y} z_k - z_y) ---------------------------------------------------------


def multiclass_hinge_forward(output: Array, targets: Targets) -> tuple[Array, Array]:
    """`l = max(0, 1 + max_{k != y} z_k - z_y)`; the cache is the derivative: 1 at the rival, -1 at the label."""
    t = targets.t
    others = np.where(t > 0, -np.inf, output)
    rival = (others.argmax(axis=1)[:, None] == np.arange(t.shape[1])).astype(t.dtype)
    l = others.max(axis=1) - (output * t).dot(ones(t.shape[1], t.dtype)) + 1
    return np.maximum(l, 0), (rival - t) * (l > 0)[:, None]


def multiclass_hinge_vjp(slope: Array, dl: Any) -> Array:
    """`d = dl (rival - label)` where the margin is not kept."""
    d: Array = slope * dl
    return d


def _multiclass_hinge_forward(output: Array, target: Ints) -> tuple[Array, tuple[Array, Shape]]:
    if np.asarray(target).dtype.kind not in "iu":
        raise ShapeError(f"multiclass_hinge: expected integer labels {np.shape(output)[:-1]}, got {target.dtype}")
    return _class_forward(Classes("multiclass_hinge"), multiclass_hinge_forward, output, target)


multiclass_hinge: Loss[Array, Ints] = loss(
    "multiclass_hinge", _multiclass_hinge_forward, bind(_class_vjp, multiclass_hinge_vjp)
)
"""`max(0, 1 + max_{k != y} z_k - z_y)` of scores z for labels y, mean over all rows (Crammer and Singer 2001)."""


# --- Kullback-Leibler divergence: l = sum_k t_k (log t_k - log softmax(z)_k),   d = softmax(z) sum(t) - t -------------


def kl_divergence_forward(logits: Array, target: Array) -> tuple[Array, tuple[SoftmaxCache, Shape]]:
    """The softmax cross-entropy minus the entropy of the target, `-sum_k t_k log t_k`, with 0 log 0 = 0."""
    like = like_output("kl_divergence", logits, target)
    if like.size and like.min() < 0:
        raise ValueError(f"kl_divergence: expected distributions, got a target of {like.min()}")
    l, cache = _class_forward(Classes("kl_divergence"), softmax_cross_entropy_forward, logits, like)
    plogp = like * np.log(np.maximum(like, np.finfo(like.dtype).tiny))
    return l + example_means(plogp) * logits.shape[-1], cache


kl_divergence: Loss[Array, Array] = loss(
    "kl_divergence", kl_divergence_forward, bind(_class_vjp, softmax_cross_entropy_vjp)
)
"""`KL(t || softmax(z)) = sum_k t_k (log t_k - log softmax(z)_k)` of logits z for distributions t over the last axis, mean
over all rows (Kullback and Leibler 1951)."""
