"""Parameters made of other parameters, by one mechanism: `full = expand(own)` before the layer runs, and the gradient
of `full` pulled back to `own` by `contract`, the vjp of `expand`, after it.

On it stand shared weights (`tied`), normalised weights (`WeightNorm`, `SpectralNorm`) and adapters (`low_rank`). They
keep kind, name and paths of the layer they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs
import numpy as np

from fnn import tree
from fnn.combinators.core import AnyLayer, Forward, check_layer
from fnn.contract import EVAL, Layer, Mode, evaluator, in_training, inputs_vjp, params_vjp, trainable
from fnn.initializers import lecun_normal
from fnn.check import number, positive
from fnn.random import Key
from fnn.types import EMPTY, Array, Params, ShapeError, State, bind, ones

A = TypeVar("A")
B = TypeVar("B")

Start: TypeAlias = Callable[[Key, Params], Params]
"""`(key, the layer's own first parameters) -> the parameters to start from`."""
Expand: TypeAlias = Callable[[Params, State, Mode], tuple[Params, State, Any]]
"""`(own, memory, mode) -> (full, new memory, residue)`."""
Contract: TypeAlias = Callable[[Params, Any, Params], Params]
"""`(own, residue, gradient of full) -> gradient of own`."""


# --- the mechanism: y = f(expand(p), x),   dp = expand'(p)' dfull ----------------------------------------------------


def keep(key: Key, params: Params) -> Params:
    """The `start` of parameters that have the layer's own form: they start as the layer's."""
    return params


def reparam(
    layer: Layer[A, B],
    expand: Callable[[Params], Params],
    contract: Callable[[Params, Params], Params],
    start: Start = keep,
) -> Layer[A, B]:
    """The layer with the parameters `expand(own)`; `own` is what is initialised, trained and saved.

    `contract(own, grads)` pulls the gradient of `expand(own)` back to `own`: the vjp of `expand`. `start(key, params)`
    makes the first `own` from the layer's first parameters. Positive weights, for a monotone network:

    >>> from fnn.layers.dense import Dense
    >>> def expand(own): return {**own, "weight": np.exp(own["weight"])}
    >>> def contract(own, grads): return {**grads, "weight": grads["weight"] * np.exp(own["weight"])}
    >>> monotone = reparam(Dense(5), expand, contract)
    """
    check_layer("reparam", layer)
    config = {"layer": attrs.evolve(layer, name=None), "expand": expand, "contract": contract, "start": start}
    _refuse_frozen("reparam", layer)
    return _reparam(layer, start, bind(_plain_expand, expand), bind(_plain_contract, contract), config, reparam)


def _plain_expand(
    expand: Callable[[Params], Params], own: Params, memory: State, mode: Mode
) -> tuple[Params, State, None]:
    return expand(own), memory, None


def _plain_contract(contract: Callable[[Params, Params], Params], own: Params, residue: None, grads: Params) -> Params:
    return contract(own, grads)


def _reparam(
    layer: Layer[A, B],
    start: Start,
    expand: Expand,
    contract: Contract,
    config: Mapping[str, Any],
    build: Callable[..., Any],
    *,
    entry: str = "",
    init_state: Callable[[Any], State] | None = None,
    out_shape: Callable[[Any], Any] | None = None,
    trainable: Callable[[Params], Params] | None = None,
) -> Layer[A, B]:
    """`reparam` in full: the expansion may depend on the mode and have a memory, the state's `entry`."""
    return attrs.evolve(
        layer,
        init=bind(_reparam_init, layer.init, start),
        init_state=init_state or layer.init_state,
        out_shape=out_shape or layer.out_shape,
        forward=bind(_reparam_forward, entry, expand, layer.forward),
        vjp=bind(_reparam_vjp, contract, layer.vjp),
        infer=bind(_reparam_infer, entry, expand, evaluator(layer)),
        param_vjp=bind(_reparam_param_vjp, contract, params_vjp(layer)),
        input_vjp=bind(_reparam_input_vjp, inputs_vjp(layer)),
        trainable=trainable,
        config=config,
        build=build,
    )


def _reparam_init(init: Callable[[Key, Any], Params], start: Start, key: Key, in_shape: Any) -> Params:
    own: Params = tree.read_only(start(key, init(key, in_shape)))
    return own


def _reparam_forward(
    entry: str, expand: Expand, forward: Forward, own: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[Params, Any, Any]]:
    memory = state.get(entry, EMPTY)
    full, remembered, residue = expand(own, memory, mode)
    before = without(state, entry)
    y, after, cache = forward(full, before, x, mode)
    if after is before and remembered is memory:
        after = state
    elif entry in state:
        after = {**after, entry: remembered}
    return y, after, (full, residue, cache)


def _reparam_vjp(
    contract: Contract, vjp: Any, own: Params, cache: tuple[Params, Any, Any], dy: Any
) -> tuple[Params, Any]:
    full, residue, inner = cache
    grads, dx = vjp(full, inner, dy)
    return contract(own, residue, grads), dx


def _reparam_param_vjp(
    contract: Contract, param_vjp: Any, own: Params, cache: tuple[Params, Any, Any], dy: Any
) -> Params:
    full, residue, inner = cache
    return contract(own, residue, param_vjp(full, inner, dy))


def _reparam_input_vjp(input_vjp: Any, own: Params, cache: tuple[Params, Any, Any], dy: Any) -> Any:
    full, _, inner = cache
    return input_vjp(full, inner, dy)


def _reparam_infer(entry: str, expand: Expand, infer: Any, own: Params, state: State, x: Any) -> Any:
    return infer(expand(own, state.get(entry, EMPTY), EVAL)[0], without(state, entry), x)


def without(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The entries but that one; the same object if there is none."""
    return {key: value for key, value in whole.items() if key != name} if name in whole else whole


def _refuse_frozen(who: str, layer: AnyLayer) -> None:
    if layer.trainable is not None:
        raise ValueError(f"{who}: {layer!r} has frozen parameters; freeze outside instead: frozen({who}(...))")


# --- tied: one array in several places -------------------------------------------------------------------------------

Tie: TypeAlias = tuple[str, str, bool]


def tied(
    layer: Layer[A, B],
    equal: Mapping[str, str] = EMPTY,
    transposed: Mapping[str, str] = EMPTY,
) -> Layer[A, B]:
    """The layer with some parameters taken from other places: `{"place": "source"}`, paths of arrays or of subtrees.

    Only the sources are parameters; their gradients are the sums over all the places where they are used. With
    `transposed` the place holds the transpose of the source, an array with two axes.

    >>> from fnn.combinators import serial
    >>> from fnn.layers.dense import Dense
    >>> autoencoder = tied(serial(Dense(5), Dense(9)), transposed={"dense_1/weight": "dense_0/weight"})
    >>> tree.map(np.shape, autoencoder.init(Key(0), (9,)))
    {'dense_0': {'weight': (9, 5), 'bias': (5,)}, 'dense_1': {'bias': (9,)}}

    Places and sources must not overlap (`ValueError`), must have the same structure and shapes (`ShapeError`), and be
    both trained or both frozen.
    """
    check_layer("tied", layer)
    ties = (*((*tie, False) for tie in equal.items()), *((*tie, True) for tie in transposed.items()))
    _check_ties(ties)
    return _reparam(
        layer,
        bind(_tied_start, ties, layer),
        bind(_plain_expand, bind(tied_expand, ties)),
        bind(_plain_contract, bind(tied_contract, ties)),
        {"layer": attrs.evolve(layer, name=None), "equal": equal, "transposed": transposed},
        tied,
        out_shape=bind(_tied_out_shape, ties, layer),
        trainable=None if layer.trainable is None else bind(_tied_trainable, ties, layer),
    )


def tied_expand(ties: tuple[Tie, ...], own: Params) -> Params:
    """Every place filled with its source."""
    full = own
    for place, source, transpose in ties:
        part = tree.get(own, source)
        full = _put(full, place.split("/"), part.T if transpose else part)
    return full


def tied_contract(ties: tuple[Tie, ...], own: Params, grads: Params) -> Params:
    """Every place's gradient taken out and added to that of its source."""
    for place, source, transpose in ties:
        grads, part = _take(grads, place.split("/"))
        if part is not None:  # it is None where both are frozen
            grads = _add(grads, source.split("/"), part.T if transpose else part)
    kept: Params = _within(grads, own)
    return kept


def _within(grads: Any, own: Any) -> Any:
    """The gradients without entries that the parameters do not have: nodes in which only places were."""
    if not isinstance(grads, Mapping) or not isinstance(own, Mapping):
        return grads
    return {name: _within(g, own[name]) for name, g in grads.items() if name in own}


def _tied_start(ties: tuple[Tie, ...], layer: AnyLayer, key: Key, params: Params) -> Params:
    """The parameters without those at the places, if all ties fit."""
    own, moving = params, trainable(layer, params)
    for tie in ties:
        _check_tie(f"tied {layer.kind}", tie, params, moving)
        own, _ = _take(own, tie[0].split("/"))
    return own


def _check_tie(who: str, tie: Tie, params: Params, moving: Params) -> None:
    place, source, transpose = tie
    try:
        at_place, at_source = tree.get(params, place), tree.get(params, source)
    except KeyError as error:
        raise ValueError(f"{who}: the layer has {error.args[0]}") from None
    if transpose:
        shapes = f"{np.shape(at_place)} and {np.shape(at_source)}"
        if np.ndim(at_place) != 2 or np.shape(at_place)[::-1] != np.shape(at_source):
            raise ShapeError(f"{who}: expected {place} to have the transposed shape of {source}, got {shapes}")
    else:
        try:
            tree.check_same_structure(at_place, at_source, (place, source))
        except ValueError as error:
            raise ShapeError(f"{who}: {error}") from None
    trained = [[path for path, _ in tree.items(_take(moving, path.split("/"))[1])] for path in (place, source)]
    if trained[0] != trained[1]:
        raise ValueError(f"{who}: {place} and {source} are one; freeze both or none of them")


def _tied_out_shape(ties: tuple[Tie, ...], layer: AnyLayer, in_shape: Any) -> Any:
    """Whether the ties fit is known when there are parameters."""
    shape = layer.out_shape(in_shape)
    _tied_start(ties, layer, Key(0), layer.init(Key(0), in_shape))
    return shape


def _tied_trainable(ties: tuple[Tie, ...], layer: AnyLayer, own: Params) -> Params:
    part: Params = _restrict(own, trainable(layer, tied_expand(ties, own)))
    return part


def _restrict(whole: Any, part: Any) -> Any:
    """`whole` with `None` where `part` has it; entries that only `part` has are not there."""
    if part is None or not isinstance(whole, Mapping):
        return None if part is None else whole
    return {name: _restrict(below, part[name]) for name, below in whole.items() if name in part}


def _check_ties(ties: tuple[Tie, ...]) -> None:
    if not ties:
        raise ValueError('tied: expected at least one tie, as in tied(layer, {"dense_1/weight": "dense_0/weight"})')
    for i, (place, source, _) in enumerate(ties):
        other_places = [path for j, (path, _, _) in enumerate(ties) if j != i]
        for path in [*other_places, *(path for _, path, _ in ties)]:
            if _overlap(place, path):
                raise ValueError(f"tied: {place!r} takes its value from {source!r}, but it overlaps with {path!r}")


def _overlap(a: str, b: str) -> bool:
    return f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/")


def _put(whole: Params, names: list[str], value: Any) -> Params:
    """`whole` with `value` at the path, which need not exist."""
    name, *rest = names
    return {**whole, name: _put(whole.get(name, EMPTY), rest, value) if rest else value}


def _take(whole: Any, names: list[str]) -> tuple[Any, Any]:
    """`whole` without what stands at the path (nor nodes this leaves empty), and that: `None` if there is nothing."""
    name, *rest = names
    if whole is None or name not in whole:
        return whole, None
    below, value = _take(whole[name], rest) if rest else ({}, whole[name])
    return {k: below if k == name else v for k, v in whole.items() if k != name or below != {}}, value


def _add(whole: Params, names: list[str], value: Any) -> Params:
    """`whole` with `value` added at the path."""
    name, *rest = names
    return {**whole, name: _add(whole[name], rest, value) if rest else tree.map(np.add, whole[name], value)}


# --- weight normalisation: W = g v / |v|,   dg = dW.v / |v|,   dv = g / |v| (dW - dg v / |v|) ------------------------


def WeightNorm(layer: Layer[A, B]) -> Layer[A, B]:
    """Weights as length times direction: `W = gain * direction / |direction|` for every output unit (the last axis).

    Every parameter `weight` with two axes or more becomes `weight/direction`, of its shape, and `weight/gain` (out,).
    The first W is the layer's own. Salimans & Kingma 2016, eq. 2 and 3 (without their data-dependent start).
    """
    check_layer("WeightNorm", layer)
    _refuse_frozen("WeightNorm", layer)
    return _reparam(
        layer,
        _weight_norm_start,
        bind(_plain_expand, weight_norm_expand),
        bind(_plain_contract, weight_norm_contract),
        {"layer": attrs.evolve(layer, name=None)},
        WeightNorm,
    )


_PAIR = {"direction", "gain"}


def weight_norm_expand(own: Params) -> Params:
    """`W = g v / |v|` for every pair of gain g and direction v."""
    return {name: _weight_norm_expand(part) if isinstance(part, Mapping) else part for name, part in own.items()}


def _weight_norm_expand(part: Params) -> Any:
    if part.keys() != _PAIR:
        return weight_norm_expand(part)
    v = part["direction"]
    return v * (part["gain"] / _lengths(v))


def weight_norm_contract(own: Params, grads: Params) -> Params:
    """`dg = dW.v / |v|` and `dv = g / |v| (dW - dg v / |v|)`; other gradients pass."""
    return {name: _weight_norm_contract(own[name], part) for name, part in grads.items()}


def _weight_norm_contract(own: Any, grads: Any) -> Any:
    if isinstance(grads, Mapping):
        return weight_norm_contract(own, grads)
    if not isinstance(own, Mapping):
        return grads
    v, g = own["direction"], own["gain"]
    length = _lengths(v)
    dg = _column_sums(grads * v) / length
    dv = v * (dg / length)
    np.subtract(grads, dv, out=dv)
    dv *= g / length
    return {"direction": dv, "gain": dg}


def _weight_norm_start(key: Key, params: Params) -> Params:
    if path := _pair_in(params):
        raise ValueError(f"WeightNorm: {path} has a direction and a gain already; normalise each layer once")
    pairs = _for_matrices(_weight_norm_pair, params)
    _refuse_without("WeightNorm", pairs)
    return _replaced(params, pairs)


def _pair_in(params: Params, path: str = "") -> str:
    """The path of a node that is such a pair; empty if there is none."""
    if params.keys() == _PAIR:
        return path or "the layer"
    below = [_pair_in(part, tree.join(path, name)) for name, part in params.items() if isinstance(part, Mapping)]
    return next(filter(None, below), "")


def _replaced(params: Params, pairs: Params) -> Params:
    """`params` with the pairs in the places of their weights."""
    found = {**params, **pairs}
    for name, part in params.items():
        if isinstance(part, Mapping) and name in pairs:
            found[name] = _replaced(part, pairs[name])
    return found


def _weight_norm_pair(path: str, weight: Array) -> Params:
    gain = _lengths(weight)
    if not gain.all():
        raise ValueError(f"WeightNorm: {path} has a column of zeros, which has no direction; use another initializer")
    return {"direction": weight, "gain": gain}


def _lengths(weight: Array) -> Array:
    """The Euclidean norm over all axes but the last."""
    square = _column_sums(weight * weight)
    return np.sqrt(square, out=square)


def _column_sums(a: Array) -> Array:
    matrix = _matrix(a)
    sums: Array = ones(len(matrix), a.dtype).dot(matrix)
    return sums


def _matrix(weight: Array) -> Array:
    """`(..., out)` as `(in, out)`."""
    return weight.reshape(-1, weight.shape[-1])


def _for_matrices(f: Callable[[str, Array], Any], params: Params, path: str = "") -> Params:
    """The tree of `f(path, weight)` for every parameter with two axes or more; the others have no entry."""
    found: dict[str, Any] = {}
    for name, part in params.items():
        where = tree.join(path, name)
        if isinstance(part, Mapping):
            if below := _for_matrices(f, part, where):
                found[name] = below
        elif part.ndim > 1:
            found[name] = f(where, part)
    return found


def _refuse_without(who: str, found: Params) -> None:
    if not found:
        raise ValueError(f"{who}: expected a layer with parameters of two axes or more, got none")


# --- spectral normalisation: W = M / s with s = |M u|, v = M u / s;   dM = (dW - <dW, W> v u') / s -------------------


def SpectralNorm(layer: Layer[A, B], iterations: int = 1) -> Layer[A, B]:
    """Weights divided by their largest singular value: `W = M / s`. Miyato et al. 2018, section 2 and algorithm 1.

    For every parameter M with two axes or more, as a matrix (in, out), `s = |M u|`, where the unit vector u (out,) is a
    state (`spectral/...`) that every training pass moves by `iterations` steps of the power method towards the right
    singular vector. A pass uses the u it is given: so s is a function of M alone, and the derivative is exact.
    (PyTorch moves u before it uses it: a training pass there has the vector that ours has one pass later.)
    The parameters keep their form; u starts in a fixed direction, and s is the largest singular value only after some
    training passes (below it before).
    """
    check_layer("SpectralNorm", layer)
    _refuse_frozen("SpectralNorm", layer)
    positive("SpectralNorm", "iterations", iterations)
    return _reparam(
        layer,
        _spectral_start,
        bind(_spectral_expand, iterations),
        _spectral_contract,
        {"layer": attrs.evolve(layer, name=None), "iterations": iterations},
        SpectralNorm,
        entry="spectral",
        init_state=bind(_spectral_state, layer),
    )


def spectral_forward(iterations: int, m: Array, u: Array) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """`(W, next u, (v, u, s))`."""
    matrix, kept = _matrix(m), u.dtype
    u = u.astype(m.dtype, copy=False)
    v, s = _unit(matrix.dot(u))
    after, left = u, v
    for _ in range(iterations):
        after, _ = _unit(left.dot(matrix))
        left, _ = _unit(matrix.dot(after))
    return m / s, after.astype(kept, copy=False), (v, u, s)


def spectral_vjp(m: Array, residue: tuple[Array, Array, Array], dw: Array) -> Array:
    """`dM = (dW - <dW, W> v u') / s`."""
    v, u, s = residue
    dm = np.outer(v, u).reshape(m.shape)
    dm *= -np.vdot(dw, m) / s
    dm += dw
    dm /= s
    return dm


def _unit(a: Array) -> tuple[Array, Array]:
    """A new vector of length 1 in the direction of `a` (which is overwritten), and the length of `a`."""
    length: Array = np.sqrt(a.dot(a))
    a /= length
    return a, length


def _spectral_expand(iterations: int, own: Params, memory: State, mode: Mode) -> tuple[Params, State, Params]:
    if not in_training(mode):
        iterations = 0
    full, after, residues = dict(own), dict(memory), dict[str, Any]()
    for name, part in own.items():
        if isinstance(part, Mapping):
            if name in memory:
                full[name], after[name], residues[name] = _spectral_expand(iterations, part, memory[name], mode)
        elif part.ndim > 1:
            if name not in memory:
                raise ValueError("SpectralNorm: the state is missing; start with net.init_state(in_shape)")
            full[name], after[name], residues[name] = spectral_forward(iterations, part, memory[name])
    return full, after if iterations else memory, residues


def _spectral_contract(own: Params, residues: Params, grads: Params) -> Params:
    found = dict(grads)
    for name, residue in residues.items():
        pull = _spectral_contract if isinstance(residue, Mapping) else spectral_vjp
        found[name] = pull(own[name], residue, grads[name])
    return found


def _spectral_start(key: Key, params: Params) -> Params:
    _refuse_without("SpectralNorm", _for_matrices(_spectral_check, params))
    return params


def _spectral_check(path: str, weight: Array) -> bool:
    if not weight.any():
        raise ValueError(f"SpectralNorm: {path} is zero, which cannot be normalised; use another initializer")
    return True


def _spectral_state(layer: AnyLayer, in_shape: Any) -> State:
    state = layer.init_state(in_shape)
    if "spectral" in state:
        raise ValueError(f"SpectralNorm: {layer!r} has a state named 'spectral' already")
    vectors = _for_matrices(_spectral_vector, layer.init(Key(0), in_shape))
    return {**state, "spectral": tree.read_only(vectors)}


def _spectral_vector(path: str, weight: Array) -> Array:
    return _unit(Key(0).fold_in(path).generator().standard_normal((weight.shape[-1],), np.float32))[0]


# --- low-rank adapters: W = M + c a b,   da = c dW b',   db = c a' dW ------------------------------------------------


def low_rank(layer: Layer[A, B], rank: int, scale: float = 1.0) -> Layer[A, B]:
    """The layer frozen, plus a trainable change of low rank: `W = M + scale * a b`. Hu et al. 2021, section 4.1.

    Every parameter M with two axes or more, as a matrix (in, out), gets `a` (in, r) and `b` (r, out) with r the
    smallest of rank, in and out, under `low_rank/...`; `b` starts as zeros, so the layer starts unchanged. The layer's
    own parameters keep their paths, so trained ones are put in with `{**params, **trained}`, and have no gradients.
    `fnn.combinators.parameters.low_rank_expand(scale, params)` gives the parameters for the plain layer when training
    is done.
    """
    check_layer("low_rank", layer)
    _refuse_frozen("low_rank", layer)
    rank = positive("low_rank", "rank", rank)
    scale = number("low_rank", "scale", scale)
    if not scale:
        raise ValueError("low_rank: expected a scale other than 0")
    return _reparam(
        layer,
        bind(_low_rank_start, rank),
        bind(_plain_expand, bind(low_rank_expand, float(scale))),
        bind(_plain_contract, bind(low_rank_contract, float(scale))),
        {"layer": attrs.evolve(layer, name=None), "rank": rank, "scale": scale},
        low_rank,
        trainable=_low_rank_trainable,
    )


def low_rank_expand(scale: float, own: Params) -> Params:
    """`W = M + scale * a b` for every M that has an adapter; the adapters are gone."""
    return _adapted_all(scale, without(own, "low_rank"), own["low_rank"])


def _adapted_all(scale: float, base: Params, adapters: Params) -> Params:
    return {name: _adapted(scale, m, adapters[name]) if name in adapters else m for name, m in base.items()}


def _adapted(scale: float, base: Any, adapter: Params) -> Any:
    if isinstance(base, Mapping):
        return _adapted_all(scale, base, adapter)
    w = adapter["a"].dot(adapter["b"]).reshape(base.shape)
    w *= scale
    w += base
    return w


def low_rank_contract(scale: float, own: Params, grads: Params) -> Params:
    """`da = scale * dW b'` and `db = scale * a' dW`; `None` for the layer's own parameters."""
    return {**dict.fromkeys(own), "low_rank": _adapter_grads(scale, own["low_rank"], grads)}


def _adapter_grads(scale: float, adapter: Params, grads: Any) -> Params:
    if isinstance(grads, Mapping):
        return {name: _adapter_grads(scale, part, grads[name]) for name, part in adapter.items()}
    dw = _matrix(grads) * scale
    return {"a": dw.dot(adapter["b"].T), "b": adapter["a"].T.dot(dw)}


def _low_rank_start(rank: int, key: Key, params: Params) -> Params:
    if "low_rank" in params:
        raise ValueError("low_rank: the layer has parameters named 'low_rank' already")
    adapters = _for_matrices(bind(_adapter, rank, key.fold_in("low_rank")), params)
    _refuse_without("low_rank", adapters)
    return {**params, "low_rank": adapters}


def _adapter(rank: int, key: Key, path: str, weight: Array) -> Params:
    n_in, n_out = _matrix(weight).shape
    r = min(rank, n_in, n_out)
    return {"a": lecun_normal()(key.fold_in(path), (n_in, r)), "b": np.zeros((r, n_out), np.float32)}


def _low_rank_trainable(own: Params) -> Params:
    return {**dict.fromkeys(own), "low_rank": own["low_rank"]}
