"""Every optimizer through every law; transforms against closed forms; what bad arguments get."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest

import fnn.optimizers as fo
import fnn.schedules as fs
from fnn import make_step, train, tree
from fnn.checkpoint import load, save
from fnn.combinators import frozen, serial
from fnn.contract import Eval, value_and_grad
from fnn.data import batches
from fnn.history import TrainState
from fnn.layers.activation import Tanh
from fnn.layers.dense import Dense
from fnn.layers.dropout import Dropout
from fnn.losses import mse
from fnn.optimizers import Context, GradientTransformation, Optimizer, apply_updates
from fnn.random import Key
from fnn.schedules import Schedule, constant, cosine, linear, piecewise_constant, warmup
from fnn.types import Params
from tests.reference.trajectories import OURS, SHORT, everywhere, ours, stored


# --- the table -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Row:
    """An optimizer made from a learning rate, and the rates with which it must solve the two problems."""

    label: str
    make: Callable[[Any], Any]
    bowl: float = 0.3
    valley: float = 0.1
    tolerance: float = 1e-3
    """What must be left of the first value of each problem."""
    decays: bool = False
    """Whether parameters without a gradient shrink."""

    def __str__(self) -> str:
        return self.label


def fixed(make: Callable[[float], Any]) -> Callable[[Any], Any]:
    """For those that take a number and no schedule."""
    return lambda rate: make(float(rate(0)) if callable(rate) else rate)


def in_group(path: str, parameter: Any) -> bool:
    return path.endswith("w")


ROWS = [
    Row("sgd", fo.sgd, valley=0.03),
    Row("momentum", lambda r: fo.sgd(r, momentum=0.9), valley=0.01),
    Row("nesterov", lambda r: fo.sgd(r, momentum=0.9, nesterov=True), valley=0.01),
    Row("rprop", fixed(fo.rprop)),
    Row("lion", fo.lion, bowl=0.1, valley=0.03),
    Row("lion decay", lambda r: fo.lion(r, weight_decay=1e-4), decays=True, bowl=0.1, valley=0.03),
    Row("adagrad", fo.adagrad, bowl=1.0, valley=1.0),
    Row("rmsprop", fo.rmsprop, bowl=0.03, valley=0.01),
    Row("rmsprop momentum", lambda r: fo.rmsprop(r, momentum=0.9), bowl=0.01, valley=0.003),
    Row("rmsprop centered", lambda r: fo.rmsprop(r, centered=True), bowl=0.03, valley=0.003),
    Row("adadelta", fo.adadelta, bowl=3.0, valley=3.0, tolerance=0.06),
    Row("adam", fo.adam),
    Row("adamw", lambda r: fo.adamw(r, weight_decay=1e-4), decays=True),
    Row("amsgrad", fo.amsgrad),
    Row("adamax", fo.adamax),
    Row("nadam", fo.nadam),
    Row("radam", fo.radam, valley=0.03),
    Row("adabelief", fo.adabelief),
    Row("yogi", fo.yogi),
    Row("lars", lambda r: fo.lars(r, trust=0.1), bowl=0.1, valley=0.03),
    Row("lamb", fo.lamb, bowl=1.0, valley=0.03),
    Row("adafactor", lambda r: fo.adafactor(r, factor_from=2)),
    Row("adafactor unscaled", lambda r: fo.adafactor(r, scaled=False), valley=0.01),
    Row("muon", fo.muon, bowl=0.1, valley=0.03),
    Row("muon plain", lambda r: fo.muon(r, nesterov=False, momentum=0.5, rest=fo.adam(r)), bowl=0.1, valley=0.01),
    Row("schedule-free", lambda r: fo.schedule_free_adamw(r(0) if callable(r) else r), bowl=0.3, valley=3.0),
    Row("sam", lambda r: fo.sam(fo.adam(r), radius=1e-4)),
    Row("ema", lambda r: fo.ema(fo.adam(r), decay=0.9), valley=0.3),
    Row("swa", lambda r: fo.swa(fo.adam(r), start=5, every=2), bowl=1.0, valley=1.0),
    Row("lookahead", lambda r: fo.lookahead(fo.adam(r))),
    Row("accumulate", lambda r: fo.accumulate(fo.adam(r), every=2)),
    Row("plateau", lambda r: fo.reduce_on_plateau(fo.adam(r), patience=1000)),
    Row("chain", lambda r: fo.chain(fo.clip_by_global_norm(10.0), fo.sgd(r, momentum=0.9)), valley=0.01),
    Row("clip value", lambda r: fo.chain(fo.clip_by_value(1.0), fo.adam(r))),
    Row("clip block", lambda r: fo.chain(fo.clip_by_block_rms(1.0), fo.adam(r))),
    Row("adaptive clip", lambda r: fo.chain(fo.adaptive_clip(0.5), fo.adam(r))),
    Row("decayed weights", lambda r: fo.chain(fo.add_decayed_weights(1e-5), fo.adam(r)), decays=True),
    Row("scale", lambda r: fo.chain(fo.scale(2.0), fo.sgd(r)), valley=0.01),
    Row("scale by schedule", lambda r: fo.chain(fo.adam(1.0), fo.scale_by_schedule(r if callable(r) else constant(r)))),
    Row("noise", lambda r: fo.chain(fo.add_noise(1e-8, decay=1.0, key=Key(3)), fo.adam(r))),
    Row("skip", lambda r: fo.skip_nonfinite(fo.adam(r))),
    Row("zero", lambda r: fo.chain(fo.zero_nonfinite(), fo.check_finite(), fo.adam(r))),
    Row("inject", lambda r: fo.inject(fo.adam, learning_rate=r, b1=0.9)),
    Row("partition", lambda r: fo.partition((in_group, fo.adam(r)), rest=fo.adam(r))),
    Row(
        "deep",
        lambda r: fo.ema(fo.chain(fo.clip_by_value(9.0), fo.sam(fo.accumulate(fo.adam(r), every=2))), decay=0.9),
        tolerance=2e-3,
    ),
]
"""All but `centralize`, which keeps means where they are and so cannot solve the problems."""

every_row = pytest.mark.parametrize("row", ROWS, ids=str)


# --- problems --------------------------------------------------------------------------------------------------------

def begin(dtype: Any = np.float64) -> Params:
    """Parameters away from 0, of one, two and no axes, at two depths."""
    rng = np.random.default_rng(1)
    shapes = {"a": {"w": (3, 2), "b": (2,)}, "c": {"d": {"w": (4, 3)}}, "e": (5,), "s": ()}
    params: Params = tree.read_only(draw(rng, shapes, dtype))
    return params


def draw(rng: np.random.Generator, shapes: Any, dtype: Any) -> Any:
    if isinstance(shapes, dict):
        return {name: draw(rng, shape, dtype) for name, shape in shapes.items()}
    return np.asarray(rng.uniform(0.5, 1.5, shapes), dtype)


def bowl(params: Params) -> tuple[float, Params]:
    """`sum of c (p - t)**2 / 2`, with curvatures from 1 to 3."""
    value, grads = 0.0, {}
    for k, (path, p) in enumerate(tree.items(params)):
        c = 1 + (np.arange(np.size(p)).reshape(np.shape(p)) + k) % 3
        gap = p - np.sin(k + np.arange(np.size(p)).reshape(np.shape(p)))
        value += float((c * gap * gap).sum()) / 2
        grads[path] = np.asarray(c * gap, np.asarray(p).dtype)
    return value, tree.map_with_path(lambda path, _: grads[path], params)


def valley(params: Params) -> tuple[float, Params]:
    """Rosenbrock's function `(1 - x)**2 + 10 (y - x**2)**2`, x and y a matrix of one row."""
    x, y = params["w"][0]
    value = (1 - x) ** 2 + 10 * (y - x * x) ** 2
    return float(value), {"w": np.array([[-2 * (1 - x) - 40 * x * (y - x * x), 20 * (y - x * x)]])}


PROBLEMS: dict[str, tuple[Callable[[Params], tuple[float, Params]], Callable[[], Params], int]] = {
    "bowl": (bowl, begin, 300),
    "valley": (valley, lambda: {"w": np.array([[-1.2, 1.0]]), "x": np.zeros(1)}, 1500),
}


def advance(opt: Any, f: Callable[[Params], tuple[float, Params]], params: Params, state: Any) -> tuple[Params, Any]:
    """The updates and the new state, through whichever form of update the optimizer has."""
    value, grads = f(params)
    if getattr(opt, "update_with", None) is None:
        found: tuple[Params, Any] = opt.update(grads, state, params)
    else:
        found = opt.update_with(grads, state, params, Context(np.float64(value), 8.0, lambda p: f(p)[1]))
    return found


def run(opt: Any, f: Callable[[Params], tuple[float, Params]], params: Params, steps: int) -> tuple[Params, Any]:
    state = opt.init(params)
    for _ in range(steps):
        updates, state = advance(opt, f, params, state)
        params = apply_updates(params, updates)
    return params, state


def final_value(row: Row, problem: str, rate: float) -> float:
    """What is left of the first value."""
    f, start, steps = PROBLEMS[problem]
    full = (lambda p: (f(p)[0], {**f(p)[1], "x": p["x"]})) if problem == "valley" else f
    params = start()
    after, state = run(row.make(cosine(rate, steps=steps)), full, params, steps)
    try:
        after = fo.averaged_params(state, after)
    except ValueError:
        pass
    return f(after)[0] / f(params)[0]


# --- the laws --------------------------------------------------------------------------------------------------------

Law = Callable[[Any], None]


def law_dtypes(opt: Any) -> None:
    """float32 and float64 are kept in updates and state."""
    for dtype in (np.float32, np.float64):
        params = begin(dtype)
        for _ in range(3):
            state = opt.init(params)
            for _ in range(3):
                updates, state = advance(opt, bowl, params, state)
                params = apply_updates(params, updates)
        for path, leaf in [*tree.items(updates), *tree.items(state), *tree.items(params)]:
            if isinstance(leaf, (np.ndarray, np.generic)):
                assert leaf.dtype == dtype, f"{path} is {leaf.dtype} with {dtype.__name__} parameters"


def law_structure(opt: Any) -> None:
    """The state keeps its nodes, shapes and kinds of numbers; updates have the shapes of the parameters."""
    params = begin()
    state = first = opt.init(params)
    for _ in range(7):
        updates, state = advance(opt, bowl, params, state)
        tree.check_same_structure(first, state)
        assert [type(a) for a in tree.leaves(first)] == [type(a) for a in tree.leaves(state)]
        if updates:
            tree.check_same_structure(params, updates)
        params = apply_updates(params, updates)


def law_saved(opt: Any, folder: Path) -> None:
    """Saved and loaded after four steps, it goes on with the same bits."""
    params, state = run(opt, bowl, begin(np.float32), 4)
    save(folder / "state.npz", {"params": params, "state": state})
    loaded: Any = load(folder / "state.npz", {"params": begin(np.float32), "state": opt.init(begin(np.float32))})
    again, other = params, loaded["params"]
    theirs = loaded["state"]
    for _ in range(4):
        updates, state = advance(opt, bowl, again, state)
        again = apply_updates(again, updates)
        updates, theirs = advance(opt, bowl, other, theirs)
        other = apply_updates(other, updates)
    assert same_bits(again, other) and same_bits(state, theirs)


def same_bits(a: Any, b: Any) -> bool:
    tree.check_same_structure(a, b)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(tree.leaves(a), tree.leaves(b)))


def law_pure(opt: Any) -> None:
    """Arguments may be read-only, are not changed, and the same ones give the same answers."""
    params, state = run(opt, bowl, begin(), 3)
    frozen_params, frozen_state = tree.read_only(params), tree.read_only(state)
    grads: Params = tree.read_only(bowl(params)[1])
    copies = pickle.dumps((frozen_params, frozen_state, grads))
    answers = [advance(opt, lambda p: (1.0, grads), frozen_params, frozen_state) for _ in range(2)]
    assert pickle.dumps((frozen_params, frozen_state, grads)) == copies
    assert same_bits(answers[0], answers[1])
    assert same_bits(opt.init(params), opt.init(params))


def law_rest(opt: Any) -> None:
    """Gradients of 0 from a fresh state change nothing."""
    params = begin()
    state = opt.init(params)
    for _ in range(3):
        updates, state = advance(opt, lambda p: (1.0, tree.zeros_like(p)), params, state)
        assert all(not np.any(leaf) for leaf in tree.leaves(updates))


def law_untrained(opt: Any) -> None:
    """None in the gradients: no update there; the others move."""
    params = begin()

    def partly(p: Params) -> tuple[float, Params]:
        value, grads = bowl(p)
        return value, {**grads, "a": {"w": None, "b": grads["a"]["b"]}, "c": None}

    after, _ = run(opt, partly, params, 3)
    assert after["a"]["w"] is params["a"]["w"] and after["c"]["d"]["w"] is params["c"]["d"]["w"]
    assert np.all(after["a"]["b"] != params["a"]["b"]) and np.all(after["e"] != params["e"])


def law_mismatch(opt: Any) -> None:
    """Gradients of another form raise an error that names the path."""
    params = begin()
    grads = bowl(params)[1]
    wrong: list[tuple[str, Params]] = [
        ("c/d/w", {**grads, "c": {"d": {}}}),
        ("c/d/w", {**grads, "c": {"d": {"w": np.zeros((3, 4))}}}),
        ("extra", {**grads, "extra": np.zeros(2)}),
    ]
    for path, bad in wrong:
        with pytest.raises(ValueError, match=path):
            advance(opt, lambda p: (1.0, bad), params, opt.init(params))


def law_pickles(opt: Any) -> None:
    copy = pickle.loads(pickle.dumps(opt))
    assert same_bits(run(opt, bowl, begin(), 3), run(copy, bowl, begin(), 3))


LAWS: dict[str, Law] = {
    name: law
    for name, law in (
        ("dtypes", law_dtypes),
        ("structure", law_structure),
        ("purity", law_pure),
        ("untrained", law_untrained),
        ("mismatch", law_mismatch),
    )
}


@every_row
@pytest.mark.parametrize("law", LAWS)
def test_law(row: Row, law: str) -> None:
    LAWS[law](row.make(0.1))


@every_row
def test_solves_a_bowl(row: Row) -> None:
    assert final_value(row, "bowl", row.bowl) < row.tolerance


@every_row
def test_follows_a_bent_valley(row: Row) -> None:
    assert final_value(row, "valley", row.valley) < row.tolerance


@every_row
def test_goes_on_from_a_saved_state(row: Row, tmp_path: Path) -> None:
    law_saved(row.make(0.1), tmp_path)


@every_row
def test_gradients_of_zero_change_nothing(row: Row) -> None:
    opt = row.make(0.1)
    if row.label == "noise":
        opt = fo.chain(fo.add_noise(0.0), fo.adam(0.1))
    if row.decays:
        with pytest.raises(AssertionError):
            law_rest(opt)
    else:
        law_rest(opt)


@every_row
def test_a_frozen_leaf_is_the_same_object_and_owns_no_state(row: Row) -> None:
    params = begin()
    opt = fo.freeze(row.make(0.01), fo.at("a/w", "e"))
    after, state = run(opt, bowl, params, 100)
    assert after["a"]["w"] is params["a"]["w"] and after["e"] is params["e"]
    assert after["c"]["d"]["w"] is not params["c"]["d"]["w"]
    trained = {"a": {"b": params["a"]["b"]}, "c": params["c"], "s": params["s"]}
    assert tree.size(state) == tree.size(row.make(0.01).init(trained))


@every_row
def test_one_leaf_and_a_number_are_trees_too(row: Row) -> None:
    if row.label == "partition":
        pytest.skip("its group is one of names")
    for start in (np.array([[2.0, 1.0], [0.5, 3.0]]), np.array(2.0)):
        params: Any = start
        after: Any = run(row.make(0.01), squares, params, 30)[0]
        assert np.shape(after) == start.shape and np.square(after).sum() < np.square(start).sum()


def squares(p: Any) -> tuple[float, Any]:
    return float((p * p).sum()), 2 * p


@pytest.mark.parametrize("row", [row for row in ROWS if row.make(0.1).config], ids=str)
def test_the_repr_shows_how_it_was_made(row: Row) -> None:
    opt = row.make(0.1)
    assert repr(opt).startswith(f"{opt.build.__name__}(") and "object at" not in repr(opt)


@pytest.mark.parametrize("name", OURS)
def test_the_repr_builds_the_optimizer(name: str) -> None:
    if name == "adafactor root":
        pytest.skip("its schedule is a local function")
    schedules = {"constant": constant, "cosine": cosine}
    names = {**vars(fo), "everywhere": everywhere, **schedules}
    built = eval(repr(OURS[name]), names)
    np.testing.assert_array_equal(ours(built, 5), ours(OURS[name], 5))


@pytest.mark.parametrize("row", [row for row in ROWS if "plateau" not in row.label and "sam" not in row.label], ids=str)
def test_pickles(row: Row) -> None:
    try:
        pickle.dumps(row.make(0.1).config)
    except (AttributeError, pickle.PicklingError):
        pytest.skip("made with a local function")
    law_pickles(row.make(0.1))


def test_order_of_names_does_not_matter() -> None:
    """States are laid out by name, so parameters that come back in another order (from JAX) are matched."""
    params = begin()
    opt = fo.adam(0.1)
    state = opt.init(params)
    _, state = opt.update(bowl(params)[1], state, params)
    turned = {name: params[name] for name in sorted(params, reverse=True)}
    grads = bowl(params)[1]
    ordered, turned_updates = opt.update(grads, state, params)[0], opt.update(grads, state, turned)[0]
    assert list(turned_updates) == list(turned)
    assert same_bits(ordered, {name: turned_updates[name] for name in params})


def test_chain_is_associative() -> None:
    a, b, c = fo.clip_by_global_norm(1.0), fo.add_decayed_weights(0.1), fo.adam(0.1)
    chains = fo.chain(a, b, c), fo.chain(fo.chain(a, b), c), fo.chain(a, fo.chain(b, c))
    runs = [run(opt, bowl, begin(), 5)[0] for opt in chains]
    assert same_bits(runs[0], runs[1]) and same_bits(runs[0], runs[2])


def test_large_leaves_take_the_same_steps_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(p: Params) -> tuple[float, Params]:
        return 1.0, tree.map(lambda a: np.sin(3 * a), p)

    rng = np.random.default_rng(0)
    params = {"b": rng.normal(size=11), "w": rng.normal(size=(40, 50)), "v": rng.normal(size=(10, 10))}
    whole = [run(opt, f, params, 5)[0] for opt in (fo.adam(0.1), fo.lion(0.1), fo.rmsprop(0.1))]
    monkeypatch.setattr("fnn.optimizers.rules.SMALL", 64)
    monkeypatch.setattr("fnn.optimizers.rules.SLICE", 300)
    sliced = [run(opt, f, params, 5)[0] for opt in (fo.adam(0.1), fo.lion(0.1), fo.rmsprop(0.1))]
    for a, b in zip(whole, sliced):
        assert tree.allclose(a, b, rtol=1e-13, atol=0)


# --- the laws can fail -----------------------------------------------------------------------------------------------


def no_state(params: Params) -> Any:
    return {"seen": np.zeros(())}


def writes(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    grads["e"][...] *= -1
    return grads, state


def drifts(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return tree.map(lambda g: g * np.float64(-0.1), grads), state


def grows(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return tree.map(lambda g: -0.1 * g, grads), {**state, str(len(state)): np.zeros(())}


def forgets(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
    return {name: -0.1 * g for name, g in grads.items() if name == "e"}, state


@pytest.mark.parametrize(
    ("law", "update"), [("purity", writes), ("dtypes", drifts), ("structure", grows), ("mismatch", forgets)]
)
def test_the_laws_reject_a_wrong_optimizer(law: str, update: Any) -> None:
    with pytest.raises(BaseException):  # pytest.fail is none of Exception
        LAWS[law](Optimizer("wrong", no_state, update))


# --- stored trajectories of other libraries --------------------------------------------------------------------------


@pytest.mark.parametrize("key", stored())
def test_stored_reference(key: str) -> None:
    np.testing.assert_allclose(ours(OURS[key.split(": ")[1]], SHORT)[4::5], stored()[key], rtol=1e-10, atol=1e-11)


def test_muon_with_nesterov_momentum_by_its_definition() -> None:
    """No library computes it in float64."""
    opt = fo.muon(0.1, momentum=0.9)
    rng = np.random.default_rng(2)
    p = rng.normal(size=(3, 5))
    v, state, params = np.zeros_like(p), opt.init({"w": p}), {"w": p}
    for _ in range(4):
        g = rng.normal(size=p.shape)
        v = 0.9 * v + 0.1 * g
        x = (0.9 * v + 0.1 * g) / (np.linalg.norm(0.9 * v + 0.1 * g) + 1e-7)
        for _ in range(5):
            s = x @ x.T
            x = 3.4445 * x - 4.775 * s @ x + 2.0315 * s @ s @ x
        assert np.all((0.5 < np.linalg.svd(x)[1]) & (np.linalg.svd(x)[1] < 1.3))
        updates, state = opt.update({"w": g}, state, params)
        np.testing.assert_allclose(updates["w"], -0.1 * math.sqrt(5 / 3) * x, rtol=1e-12)


def test_sam_by_its_definition() -> None:
    params = begin()
    g = bowl(params)[1]
    up = tree.map(lambda p, a: p + 0.5 * a / tree.norm(g), params, g)
    updates, _ = advance(fo.sam(fo.sgd(0.1), radius=0.5), bowl, params, fo.sam(fo.sgd(0.1)).init(params))
    assert tree.allclose(updates, tree.map(lambda a: -0.1 * a, bowl(up)[1]), rtol=1e-12)


# --- transforms ------------------------------------------------------------------------------------------------------

W = {"w": np.array([[3.0, -4.0], [0.0, 12.0]]), "b": np.array([0.5, -0.5])}
P = {"w": np.array([[1.0, 2.0], [2.0, 1.0]]), "b": np.array([2.0, -1.0])}


def transformed(opt: Optimizer, grads: Params = W, params: Params = P) -> Any:
    return opt.update(grads, opt.init(params), params)[0]


def test_clipping() -> None:
    assert same_bits(transformed(fo.clip_by_value(3.0)), {"w": np.array([[3.0, -3.0], [0.0, 3.0]]), "b": W["b"]})
    clipped = transformed(fo.clip_by_global_norm(1.0))
    assert tree.norm(clipped) == pytest.approx(1.0, rel=1e-14)
    assert tree.allclose(clipped, tree.map(lambda a: a / tree.norm(W), W), rtol=1e-14)
    assert same_bits(transformed(fo.clip_by_global_norm(100.0)), W)
    block = transformed(fo.clip_by_block_rms(1.0))
    assert np.sqrt(np.mean(np.square(block["w"]))) == pytest.approx(1.0) and same_bits(block["b"], W["b"])
    unit = transformed(fo.adaptive_clip(0.5))["w"]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), [0.5 * math.sqrt(5)] * 2)


def test_norms_beyond_the_range_of_squares() -> None:
    huge: Params = {"w": np.full((2, 2), 1e30, np.float32), "b": np.zeros(2, np.float32)}
    clipped = transformed(fo.clip_by_global_norm(1.0), huge, tree.cast(P, np.float32))
    np.testing.assert_allclose(clipped["w"], 0.5, rtol=1e-6)


def test_centralize_takes_the_mean_of_each_output() -> None:
    centred = transformed(fo.centralize())
    np.testing.assert_allclose(centred["w"].sum(0), 0, atol=1e-15)
    assert centred["b"] is W["b"]


def test_decay_skips_vectors_unless_told() -> None:
    decayed = transformed(fo.add_decayed_weights(0.5))
    np.testing.assert_array_equal(decayed["w"], W["w"] + 0.5 * P["w"])
    assert decayed["b"] is W["b"]
    only = transformed(fo.add_decayed_weights(0.5, where=fo.at("b")))
    assert only["w"] is W["w"] and np.array_equal(only["b"], W["b"] + 0.5 * P["b"])


def test_noise_is_a_function_of_key_step_and_path() -> None:
    opt = fo.add_noise(0.04, decay=1.0, key=Key(5))
    params = {"x": np.zeros(4000), "y": np.zeros(4000)}
    first, state = opt.update(params, opt.init(params), params)
    again, _ = opt.update(params, opt.init(params), params)
    second, _ = opt.update(params, state, params)
    assert same_bits(first, again) and not np.array_equal(first["x"], first["y"])
    assert np.std(first["x"]) == pytest.approx(0.2, rel=0.05)
    assert np.std(second["x"]) == pytest.approx(0.2 / math.sqrt(2), rel=0.05)


BAD = {"w": np.array([[1.0, np.nan], [np.inf, 2.0]]), "b": np.zeros(2)}


def test_gradients_that_are_not_finite() -> None:
    with pytest.raises(FloatingPointError, match="2 of 4 numbers are not finite in w"):
        transformed(fo.check_finite(), BAD)
    zero = fo.zero_nonfinite()
    cleaned, state = zero.update(BAD, zero.init(P), P)
    assert np.array_equal(cleaned["w"], [[1.0, 0.0], [0.0, 2.0]]) and state == (1, 2)
    skip = fo.skip_nonfinite(fo.adam(0.1), most=2)
    start = skip.init(P)
    updates, state = skip.update(BAD, start, P)
    assert apply_updates(P, updates)["w"] is P["w"] and state.skipped == 1 and state.inner is start.inner
    _, state = skip.update(BAD, state, P)
    with pytest.raises(FloatingPointError, match="w .*3 times"):
        skip.update(BAD, state, P)
    _, state = skip.update(W, state, P)
    assert (state.skipped, state.in_a_row, state.inner.step) == (2, 0, 1)


def test_partition_gives_each_group_its_own_rule() -> None:
    opt = fo.partition((fo.at("*/b", "e"), fo.sgd(1.0)), (lambda path, p: path == "s", fo.sgd(2.0)), rest=fo.adam(0.1))
    params = begin()
    grads = bowl(params)[1]
    updates, state = opt.update(grads, opt.init(params), params)
    np.testing.assert_array_equal(updates["a"]["b"], -grads["a"]["b"])
    np.testing.assert_array_equal(updates["e"], -grads["e"])
    np.testing.assert_array_equal(updates["s"], -2 * grads["s"])
    np.testing.assert_allclose(np.abs(updates["a"]["w"]), 0.1, rtol=1e-6)
    assert state["rest"].mu.size == 6 + 12


def test_injected_numbers_stand_in_the_state() -> None:
    opt = fo.inject(fo.sgd, learning_rate=linear(1.0, 0.0, steps=10), momentum=0.5)
    state = opt.init(P)
    for step in range(3):
        _, state = opt.update(W, state, P)
        assert fo.learning_rate(state) == pytest.approx(1 - step / 10)
    assert state.values == {"momentum": 0.5, "learning_rate": pytest.approx(0.8)}
    changed = state._replace(values={**state.values, "momentum": 0.0})
    np.testing.assert_allclose(opt.update(W, changed, P)[0]["w"], -0.7 * W["w"])


# --- averages --------------------------------------------------------------------------------------------------------


def path_of(opt: Any, steps: int) -> tuple[list[Params], Any]:
    params, state, found = begin(), opt.init(begin()), []
    for _ in range(steps):
        updates, state = advance(opt, bowl, params, state)
        params = apply_updates(params, updates)
        found.append(params)
    return found, state


def test_ema_is_the_corrected_mean() -> None:
    found, state = path_of(fo.ema(fo.adam(0.1), decay=0.7), 6)
    weights = [0.7 ** (5 - i) for i in range(6)]
    mean = tree.map(lambda *ps: sum(w * p for w, p in zip(weights, ps)) / sum(weights), *found)
    assert tree.allclose(fo.averaged_params(state, found[-1]), mean, rtol=1e-12)
    assert same_bits(found[-1], path_of(fo.adam(0.1), 6)[0][-1])


def test_swa_is_the_mean_of_its_members() -> None:
    found, state = path_of(fo.swa(fo.adam(0.1), start=3, every=2), 8)
    mean = tree.map(lambda *ps: sum(ps) / 3, found[2], found[4], found[6])
    assert tree.allclose(fo.averaged_params(state, found[-1]), mean, rtol=1e-12)
    early, state = path_of(fo.swa(fo.adam(0.1), start=3, every=2), 2)
    assert same_bits(fo.averaged_params(state, early[-1]), early[-1])


def test_averages_of_some_parameters_leave_the_others() -> None:
    opt = fo.partition((fo.at("e"), fo.ema(fo.sgd(0.1), decay=0.5)), rest=fo.sgd(0.1))
    found, state = path_of(opt, 4)
    average = fo.averaged_params(state, found[-1])
    assert average["a"]["w"] is found[-1]["a"]["w"] or same_bits(average["a"], found[-1]["a"])
    assert not np.array_equal(average["e"], found[-1]["e"])
    with pytest.raises(ValueError, match="no average"):
        fo.averaged_params(fo.adam(0.1).init(P), P)


def test_schedule_free_by_its_definition() -> None:
    """With a rate that warms up, the weights are those of the steps themselves."""
    b1, rate = 0.8, warmup(0.1, steps=4)
    opt = fo.schedule_free_adamw(rate, b1=b1, b2=0.9)
    x = z = y = np.array([1.0, -2.0])
    nu, weights, state = np.zeros(2), 0.0, opt.init({"p": y})
    params: Params = {"p": y}
    for t in range(8):
        g = np.sin(y + t)
        nu = 0.9 * nu + 0.1 * g * g
        z = z - rate(t) * g / (np.sqrt(nu / (1 - 0.9 ** (t + 1))) + 1e-8)
        weights += rate(t) ** 2
        x = x + rate(t) ** 2 / weights * (z - x)
        y = (1 - b1) * z + b1 * x
        updates, state = opt.update({"p": g}, state, params)
        params = apply_updates(params, updates)
        np.testing.assert_allclose(params["p"], y, rtol=1e-12)
        np.testing.assert_allclose(fo.averaged_params(state, params)["p"], x, rtol=1e-11)


# --- what needs more than gradients ----------------------------------------------------------------------------------


def data_for(key: int, n: int) -> tuple[Any, Any]:
    rng = Key(key).generator()
    x = rng.standard_normal((n, 3))
    return x, np.sin(x[:, :2])


def network() -> tuple[Any, Params]:
    net = serial(Dense(5), Tanh, Dense(2))
    return net, tree.cast(net.init(Key(0), (3,)), np.float64)


@pytest.mark.parametrize("cuts", [[4, 8], [1, 9], [5, 6]])
@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_equal_one_large_batch(cuts: list[int], weighted: bool) -> None:
    net, params = network()
    batch: tuple[Any, ...] = data_for(1, 12)
    if weighted:
        batch = (*batch, np.linspace(0.1, 2.0, 12))
    inner = fo.adamw(0.1)
    whole = make_step(net, mse, inner)
    small = make_step(net, mse, fo.accumulate(inner, every=3))
    one = TrainState(0, params, {}, inner.init(params), Key(0))
    many = TrainState(0, params, {}, fo.accumulate(inner, every=3).init(params), Key(0))
    for _ in range(3):
        one, _ = whole(one, batch)
        for begin_, end in zip([0, *cuts], [*cuts, 12]):
            before = many.params
            many, _ = small(many, tuple(a[begin_:end] for a in batch))
            if end < 12:
                assert many.params["dense_0"]["weight"] is before["dense_0"]["weight"]
        assert tree.allclose(one.params, many.params, rtol=1e-12, atol=1e-13)


def test_sam_in_training_uses_the_same_batch_and_randomness() -> None:
    net = serial(Dense(50), Dropout(0.5), Dense(2))
    params = tree.cast(net.init(Key(0), (3,)), np.float64)
    batch = data_for(1, 12)
    opt = fo.sam(fo.sgd(0.1), radius=0.3)
    step = make_step(net, mse, opt)
    start = TrainState(4, params, {}, opt.init(params), Key(7))
    after, _ = step(start, batch)
    f = value_and_grad(net, mse)
    from fnn.contract import Train

    mode = Train(Key(7).fold_in("step").fold_in(4))
    g = f(params, {}, *batch, mode)[1]
    up = tree.map(lambda p, a: p + 0.3 * a / tree.norm(g), params, g)
    expected = tree.map(lambda p, a: p - 0.1 * a, params, f(up, {}, *batch, mode)[1])
    assert tree.allclose(after.params, expected, rtol=1e-12)
    second, _ = step(start, batch)
    assert same_bits(after.params, second.params)


def feed(opt: Any, losses: list[float], examples: list[float] | None = None) -> list[float]:
    """The factor by which updates were scaled after each loss."""
    params: Params = {"p": np.zeros(1)}
    state, found = opt.init(params), []
    for i, loss in enumerate(losses):
        n = 1.0 if examples is None else examples[i]
        updates, state = opt.update_with({"p": np.ones(1)}, state, params, Context(np.float32(loss), n, lambda p: p))
        found.append(-float(updates["p"][0]))
    return found


@pytest.mark.parametrize("shift", [0.0, -10.0, 10.0])
def test_plateau_waits_for_losses_of_any_sign(shift: float) -> None:
    opt = fo.reduce_on_plateau(fo.sgd(1.0), factor=0.5, patience=1, rtol=0.0, atol=0.1, cooldown=1, smallest=0.3)
    losses = [shift + v for v in (5, 4, 3, 2.95, 2.95, 2.95, 2.95, 2.95, 2.95, 2.95)]
    #              best: 5  4  3  wait  cut  rest  wait  cut(0.3)
    assert feed(opt, losses) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3]


def test_plateau_does_not_take_a_falling_negative_loss_for_a_plateau() -> None:
    opt = fo.reduce_on_plateau(fo.sgd(1.0), patience=0)
    assert feed(opt, [-1.0 - i for i in range(10)]) == [1.0] * 10
    assert feed(opt, [-9.0, -9.0, -9.0])[-1] == pytest.approx(0.1)


def test_plateau_looks_at_means_over_examples() -> None:
    opt = fo.reduce_on_plateau(fo.sgd(1.0), factor=0.5, patience=0, every=2, rtol=0.0)
    #                    means: 2.0       1.75 (better)  3.0 (worse)
    assert feed(opt, [1.0, 3.0, 1.0, 2.0, 3.0, 3.0, 0.0], [1, 1, 1, 3, 1, 1, 1]) == [1] * 6 + [0.5]


def test_the_history_shows_the_reduced_rate() -> None:
    net, params = network()
    x, y = data_for(1, 12)
    opt = fo.reduce_on_plateau(fo.sgd(0.0), factor=0.5, patience=0)
    assert fo.learning_rate(opt.init(params)) == 0.0
    opt = fo.reduce_on_plateau(fo.chain(fo.scale(0.0), fo.sgd(0.8)), factor=0.5, patience=0)
    result = train(params, batches((x, y), size=12), opt, model=net, loss=mse, epochs=4)
    assert [row.learning_rate for row in result.history] == pytest.approx([0.8, 0.8, 0.4, 0.2])


@pytest.mark.parametrize(
    "opt",
    [fo.sam(fo.sgd(0.1)), fo.chain(fo.reduce_on_plateau(fo.sgd(0.1))), fo.freeze(fo.sam(fo.sgd(0.1)), fo.at("b"))],
)
def test_without_a_context_it_says_what_it_needs(opt: Optimizer) -> None:
    with pytest.raises(TypeError, match="second gradient|the loss"):
        opt.update(W, opt.init(P), P)


def test_accumulated_sam_says_what_to_write() -> None:
    opt = fo.accumulate(fo.sam(fo.sgd(0.1)), every=1)
    with pytest.raises(TypeError, match=r"sam\(accumulate"):
        advance(opt, bowl, begin(), opt.init(begin()))


def test_plain_optimizers_have_no_update_with() -> None:
    adam = fo.adam(0.1)
    for opt in (adam, fo.chain(fo.clip_by_value(1.0), adam), fo.ema(adam), fo.freeze(adam, fo.at("b"))):
        assert opt.update_with is None
    assert fo.chain(fo.sam(fo.sgd(0.1))).update_with is not None


def test_lbfgs_over_a_tree() -> None:
    scipy = pytest.importorskip("scipy")
    del scipy
    from fnn.scipy import minimize

    found = minimize(lambda p: (valley(p)[0], valley(p)[1]), {"w": np.array([[-1.2, 1.0]])})
    np.testing.assert_allclose(found.params["w"], 1.0, rtol=1e-4)
    assert found.converged and found.value < 1e-8 and found.evaluations >= found.iterations > 5
    rounds: list[int] = []
    bottom = minimize(bowl, begin(np.float32), method="BFGS", report=lambda i, value: rounds.append(i), tolerance=1e-6)
    assert all(leaf.dtype == np.float32 for leaf in tree.leaves(bottom.params))
    assert rounds == [*range(1, len(rounds) + 1)]
    for k, p in enumerate(tree.leaves(bottom.params)):
        np.testing.assert_allclose(p, np.sin(k + np.arange(np.size(p)).reshape(np.shape(p))), atol=1e-3)
    net, params = network()
    x, y = data_for(2, 30)
    f = value_and_grad(net, mse)
    fitted = minimize(lambda p: f(p, {}, x, y, Eval())[:2], params, iterations=200)
    assert fitted.value < 0.02 * float(f(params, {}, x, y, Eval())[0])
    with pytest.raises(FloatingPointError, match="at the start"):
        minimize(lambda p: (math.nan, p), params)
    with pytest.raises(ValueError, match="differ"):
        minimize(lambda p: (1.0, {"w": np.zeros((2, 1))}), {"w": np.zeros((1, 2))})


# --- bad arguments ---------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: fo.sgd(-1.0), "learning rate"),
    (lambda: fo.sgd(math.nan), "learning rate"),
    (lambda: fo.sgd(0.1, momentum=1.0), "momentum"),
    (lambda: fo.sgd(0.1, nesterov=True), "nesterov"),
    (lambda: fo.adam(0.1, b1=1.0), "b1"),
    (lambda: fo.adam(0.1, b2=-0.1), "b2"),
    (lambda: fo.adam(0.1, eps=0.0), "eps"),
    (lambda: fo.adamw(0.1, weight_decay=-1.0), "weight_decay"),
    (lambda: fo.lion(0.1, b2=1.5), "b2"),
    (lambda: fo.rprop(0.1, up=0.9), "up"),
    (lambda: fo.rprop(100.0), "largest"),
    (lambda: fo.rmsprop(0.1, decay=1.0), "decay"),
    (lambda: fo.adagrad(0.1, initial=-1.0), "initial"),
    (lambda: fo.adadelta(eps=-1.0), "eps"),
    (lambda: fo.lars(0.1, trust=0.0), "trust"),
    (lambda: fo.lamb(0.1, weight_decay=math.inf), "weight_decay"),
    (lambda: fo.adafactor(0.1, clip=0.0), "clip"),
    (lambda: fo.adafactor(0.1, factor_from=0), "factor_from"),
    (lambda: fo.muon(0.1, iterations=0), "iterations"),
    (lambda: fo.schedule_free_adamw(0.1, b1=0.0), "b1"),
    (lambda: fo.sam(fo.sgd(0.1), radius=0.0), "radius"),
    (lambda: fo.chain(), "at least one"),
    (lambda: fo.scale(math.inf), "factor"),
    (lambda: fo.clip_by_value(0.0), "limit"),
    (lambda: fo.clip_by_global_norm(-1.0), "limit"),
    (lambda: fo.clip_by_block_rms(math.nan), "limit"),
    (lambda: fo.adaptive_clip(eps=0.0), "eps"),
    (lambda: fo.add_decayed_weights(-0.1), "weight_decay"),
    (lambda: fo.add_noise(-1.0), "variance"),
    (lambda: fo.ema(fo.sgd(0.1), decay=1.0), "decay"),
    (lambda: fo.swa(fo.sgd(0.1), start=0), "start"),
    (lambda: fo.lookahead(fo.sgd(0.1), factor=0.0), "factor"),
    (lambda: fo.accumulate(fo.sgd(0.1), every=0), "every"),
    (lambda: fo.reduce_on_plateau(fo.sgd(0.1), factor=1.0), "factor"),
    (lambda: fo.reduce_on_plateau(fo.sgd(0.1), patience=-1), "patience"),
    (lambda: fo.skip_nonfinite(fo.sgd(0.1), most=-1), "most"),
    (lambda: fo.inject(fo.sgd), "at least one"),
    (lambda: fo.partition(), "groups"),
    (lambda: fo.at(), "paths"),
]


@pytest.mark.parametrize("i", range(len(REFUSED)))
def test_bad_arguments_are_refused_where_it_is_made(i: int) -> None:
    make, what = REFUSED[i]
    with pytest.raises(ValueError, match=what):
        make()


def test_an_optimizer_is_expected() -> None:
    wrong: Any = fo.adam
    with pytest.raises(TypeError, match="expected an optimizer such as"):
        fo.ema(wrong)
    with pytest.raises(TypeError, match="expected a schedule"):
        fo.scale_by_schedule(0.1)  # type: ignore[arg-type]


def nothing(path: str, parameter: Any) -> bool:
    return False


@pytest.mark.parametrize(
    "opt",
    [
        fo.freeze(fo.adam(0.1), fo.at("typo")),
        fo.freeze(fo.adam(0.1), fo.at("w", "typo")),
        fo.freeze(fo.adam(0.1), nothing),
        fo.partition((fo.at("typo"), fo.adam(0.1)), rest=fo.sgd(0.1)),
        fo.adamw(0.1, where=nothing),
        fo.lion(0.1, where=fo.at("typo")),
        fo.lars(0.1, where=nothing),
        fo.lamb(0.1, where=nothing),
        fo.muon(0.1, where=nothing),
        fo.adafactor(0.1, where=nothing),
        fo.schedule_free_adamw(0.1, where=nothing),
        fo.add_decayed_weights(0.1, where=nothing),
    ],
)
def test_a_predicate_that_selects_nothing_is_an_error(opt: Optimizer) -> None:
    with pytest.raises(ValueError, match="selects no parameter; there are w, b"):
        opt.init(P)


def test_groups_must_cover_the_parameters() -> None:
    with pytest.raises(ValueError, match="no group selects w"):
        fo.partition((fo.at("b"), fo.sgd(0.1))).init(P)
    with pytest.raises(ValueError, match="nothing is left"):
        fo.partition((fo.at("b", "w"), fo.sgd(0.1)), (fo.at("w"), fo.adam(0.1))).init(P)


def test_dtypes_do_not_mix() -> None:
    mixed = {"w": P["w"].astype(np.float32), "b": P["b"]}
    with pytest.raises(TypeError, match="w float32, b float64"):
        fo.adam(0.1).init(mixed)
    opt = fo.adam(0.1)
    params: Params = tree.cast(P, np.float32)
    with pytest.raises(TypeError, match="the gradient is float64"):
        opt.update(W, opt.init(params), params)


def test_updates_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 1\)"):
        apply_updates(P, {"w": np.zeros((2, 1)), "b": np.zeros(2)})
    with pytest.raises(ValueError, match="extra"):
        apply_updates(P, {"extra": np.zeros(2)})


def test_the_rate_is_in_the_state() -> None:
    rate: Schedule = linear(1.0, 0.0, steps=4)
    for make in (fo.sgd, fo.adam, fo.lars, fo.adafactor, fo.muon, fo.schedule_free_adamw, fo.lamb):
        opt: Optimizer = make(rate)
        state = opt.init(P)
        for wanted in (1.0, 0.75, 0.5):
            _, state = opt.update(W, state, P)
            assert fo.learning_rate(state) == wanted


def test_a_gradient_at_other_parameters_that_is_not_finite_is_skipped() -> None:
    opt = fo.skip_nonfinite(fo.sam(fo.sgd(0.1)))
    params = {"w": np.ones(1)}
    assert opt.update_with is not None
    context = Context(1.0, 1.0, lambda at: {"w": np.array([np.nan])})
    updates, state = opt.update_with({"w": np.ones(1)}, opt.init(params), params, context)
    assert state.skipped == 1 and np.isfinite(apply_updates(params, updates)["w"]).all()


WORD: Any = "a"


@pytest.mark.parametrize(
    "opt", [lambda: fo.freeze(fo.sgd(0.1), WORD), lambda: fo.add_decayed_weights(0.1, where=WORD)]
)
def test_a_selector_is_a_function(opt: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a function of path and parameter, such as fnn.optimizers.at\('a'\)"):
        opt().init({"a": np.ones((2, 2))})


def test_looking_back_does_not_wait_for_an_update() -> None:
    opt = fo.lookahead(fo.accumulate(fo.sgd(1.0), every=2), every=3, factor=0.5)
    params: Any = {"w": np.zeros(1)}
    state = opt.init(params)
    seen = []
    assert opt.update_with is not None
    for _ in range(6):
        context = Context(1.0, 1.0, lambda at: {"w": np.ones(1)})
        updates, state = opt.update_with({"w": np.ones(1)}, state, params, context)
        params = apply_updates(params, updates)
        seen.append(float(params["w"][0]))
    assert seen == [0, -1, -0.5, -1.5, -1.5, -1.5]


def test_an_average_of_what_is_not_trained_is_that_to_the_last_bit() -> None:
    opt = fo.ema(fo.freeze(fo.adam(0.1), fo.at("a")), 0.9)
    rng = np.random.default_rng(0)
    params: Any = {"a": {"w": rng.standard_normal(50)}, "b": {"w": rng.standard_normal(5)}}
    state = opt.init(params)
    for _ in range(20):
        state = state._replace(average=tree.map(np.copy, state.average))  # as from a checkpoint
        updates, state = opt.update(tree.map(np.ones_like, params), state, params)
        params = apply_updates(params, updates)
    assert np.array_equal(state.average["a"]["w"], params["a"]["w"])
    assert not np.array_equal(state.average["b"]["w"], params["b"]["w"])


def test_moments_belong_to_their_betas() -> None:
    with pytest.raises(ValueError, match="inject: b1: expected a number"):
        fo.inject(fo.adam, learning_rate=0.1, b1=linear(0.9, 0.99, steps=10))
    params = {"w": np.ones((2, 2))}
    state = fo.inject(fo.adam, learning_rate=0.1, b1=0.8).init(params)
    assert state.values == {"learning_rate": 0.1}
    fo.inject(fo.muon, learning_rate=0.1, iterations=3).init(params)


# --- chains and parts ------------------------------------------------------------------------------------------------


def moved_by(opt: GradientTransformation, steps: int = 1, scale: float = 200.0) -> float:
    """How far a linear model moves."""
    net = serial(Dense(1))
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    params = net.init(Key(0), (4,))
    data = batches((x, x[:, :1] * np.float32(scale)), size=20)
    after = train(params, data, opt, model=net, loss=mse, steps=steps).params
    return tree.norm(tree.map(np.subtract, after, params))


def test_what_stands_before_sam_in_a_chain_sees_both_gradients() -> None:
    assert moved_by(fo.chain(fo.clip_by_global_norm(1e-3), fo.sam(fo.sgd(1.0)))) == pytest.approx(1e-3, rel=1e-3)
    assert moved_by(fo.chain(fo.scale(0.0), fo.sam(fo.sgd(1.0)))) == 0
    decayed = moved_by(fo.chain(fo.add_decayed_weights(0.1), fo.sgd(1e-3)))
    assert moved_by(fo.chain(fo.add_decayed_weights(0.1), fo.sam(fo.sgd(1e-3), radius=1e-6))) == pytest.approx(decayed)


LEAVING_OUT: dict[str, GradientTransformation] = {
    "skip": fo.chain(fo.skip_nonfinite(fo.adam(0.1)), fo.scale(0.5)),
    "accumulate": fo.chain(fo.accumulate(fo.sgd(0.1), every=2), fo.scale(0.5), fo.clip_by_global_norm(1.0)),
    "freeze": fo.chain(fo.freeze(fo.sgd(0.1), fo.at("dense_0")), fo.scale(0.5), fo.clip_by_value(1.0)),
    "lookahead": fo.chain(fo.lookahead(fo.adam(0.1), every=2), fo.scale(0.5)),
}


@pytest.mark.parametrize("frozen_part", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("name", LEAVING_OUT)
def test_a_chain_goes_on_where_a_part_moves_nothing(name: str, frozen_part: bool) -> None:
    opt = LEAVING_OUT[name]
    net = serial(Dense(3), frozen(Dense(3)) if frozen_part else Dense(3), Dense(1))
    params = net.init(Key(0), (4,))
    step = make_step(net, mse, opt)
    now = TrainState(0, params, {}, opt.init(params), Key(0))
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    for i in range(6):
        now, _ = step(now, (x * np.float32(np.nan if i == 3 and name == "skip" else 1), x[:, :1]))
    assert not np.array_equal(now.params["dense_2"]["bias"], params["dense_2"]["bias"])
    assert (now.params["dense_1"]["weight"] is params["dense_1"]["weight"]) == frozen_part


def test_an_average_that_has_not_begun_hides_no_other() -> None:
    params: Any = {"a": np.ones(2), "b": np.ones(2)}
    opt = fo.partition((fo.at("a"), fo.swa(fo.sgd(0.1), start=100)), rest=fo.ema(fo.sgd(0.1), 0.5))
    state = opt.init(params)
    for _ in range(3):
        updates, state = opt.update({"a": np.ones(2), "b": np.ones(2)}, state, params)
        params = apply_updates(params, updates)
    average = fo.averaged_params(state, params)
    assert np.array_equal(average["a"], params["a"])
    assert np.array_equal(average["b"], state["rest"].average["b"]) and not np.array_equal(average["b"], params["b"])


@pytest.mark.parametrize("build", [fo.sgd, fo.rmsprop], ids=["sgd", "rmsprop"])
def test_an_injected_momentum_may_be_0_for_a_while(build: Callable[..., Optimizer]) -> None:
    params: Any = {"w": np.ones(3)}
    rising = fo.inject(build, learning_rate=0.1, momentum=piecewise_constant([0.0, 0.9], boundaries=[2]))
    state, plain, at = rising.init(params), build(0.1), params
    other = plain.init(params)
    for i in range(4):
        updates, state = rising.update({"w": np.arange(3.0)}, state, params)
        expected, other = plain.update({"w": np.arange(3.0)}, other, at)
        if i < 2:
            assert same_bits(updates, expected)
        params, at = apply_updates(params, updates), apply_updates(at, expected)
    assert not same_bits(params, at)


def test_injected_whole_numbers_stay_whole() -> None:
    def build(learning_rate: float, k: int) -> Optimizer:
        return fo.accumulate(fo.adam(learning_rate), every=k)

    assert fo.inject(build, learning_rate=1, k=4).init(P).values == {"learning_rate": 1.0}
    made = fo.inject(lambda rate, decay: fo.adamw(rate, weight_decay=decay), rate=1, decay=0)
    assert made.init(P).values == {"rate": 1.0, "decay": 0.0}
    with pytest.raises(ValueError, match="momentum in"):
        fo.inject(fo.sgd, learning_rate=0.1, momentum=-0.5)
    def begun(start: float) -> Optimizer:
        return fo.adam(cosine(start, steps=100))

    assert fo.inject(begun, start=0.1).init(P).values == {"start": 0.1}
    with pytest.raises(ValueError, match="rprop reads"):
        fo.inject(fo.rprop, learning_rate=0.1)


def test_a_free_schedule_takes_no_plateau() -> None:
    with pytest.raises(ValueError, match="schedule_free_adamw"):
        fo.reduce_on_plateau(fo.chain(fo.schedule_free_adamw(0.1))).init(P)


def test_adaptive_clipping_of_what_has_no_square() -> None:
    opt = fo.adaptive_clip(0.1)
    g = {"w": np.full((3, 2), 1e30, np.float32), "v": np.zeros(2, np.float32)}
    updates, _ = opt.update(g, (), tree.map(np.ones_like, g))
    np.testing.assert_allclose(updates["w"], 0.1, rtol=1e-6)
    assert not updates["v"].any()


class Foreign(NamedTuple):
    """An optimizer as others write it: gradients, state and parameters are trees of one form, or it fails."""

    rate: float

    def init(self, params: Any) -> Any:
        return tree.zeros_like(params)

    def update(self, grads: Any, state: Any, params: Any) -> Any:
        tree.check_same_structure(params, grads)
        tree.check_same_structure(params, state)
        state = tree.map(np.add, state, grads)
        return tree.map(lambda v: -self.rate * v, state), state


@pytest.mark.parametrize(
    "opt",
    [Foreign(0.01), fo.ema(Foreign(0.01)), fo.chain(fo.clip_by_global_norm(1.0), Foreign(0.01))],
    ids=["alone", "averaged", "in a chain"],
)
def test_the_optimizers_of_others_train_networks_with_frozen_layers(opt: Any, tmp_path: Path) -> None:
    net = serial(frozen(Dense(3)), Dense(1))
    params = net.init(Key(0), (4,))
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    data, path = batches((x, x[:, :1]), size=10), tmp_path / "run.npz"
    train(params, data, opt, model=net, loss=mse, steps=3, checkpoint=path)
    result = train(params, data, opt, model=net, loss=mse, steps=6, resume=path)
    assert same_bits(result.params, train(params, data, opt, model=net, loss=mse, steps=6).params)
    assert np.array_equal(result.params["dense_0"]["weight"], params["dense_0"]["weight"])
    assert not np.array_equal(result.params["dense_1"]["weight"], params["dense_1"]["weight"])


@pytest.mark.parametrize(
    "schedule",
    [
        "cosine(0.1, steps=5)",
        "cosine(0.1, steps=5, end=0.01)",
        "warmup(cosine(0.1, steps=5), steps=2)",
        "exponential(0.1, factor=0.5, steps=3)",
        "inverse_time(0.1, gamma=0.5)",
        "polynomial(0.1, steps=3, power=2.0)",
        "piecewise_constant((0.1, 0.01), boundaries=(100,))",
        "join((constant(0.1), cosine(0.1, steps=5)), boundaries=(3,))",
        "cosine_restarts(0.1, steps=3, growth=2)",
    ],
)
def test_the_code_of_a_schedule_makes_it_again(schedule: str) -> None:
    opt = eval(f"sgd({schedule})", {**vars(fs), "sgd": fo.sgd})
    assert repr(opt) == f"sgd({schedule})"
    assert fs.rate_at(opt.config["learning_rate"], 1) == fs.rate_at(eval(schedule, vars(fs).copy()), 1)


def test_code_is_shown_of_whatever_is_bound() -> None:
    assert repr(fo.sgd(partial(max, 3))) == "sgd(max(3))"
    assert repr(fo.sgd(partial(int, 1))) == "sgd(int(1))"
    assert repr(fo.sgd(partial(Foreign(0.1).update, 1))) == "sgd(update(1))"
