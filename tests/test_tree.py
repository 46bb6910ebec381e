"""Trees: the laws of maps, parts and vectors, matching by key, and messages that say where two trees differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fnn import tree


X = np.ones(2)


class Pair(NamedTuple):
    left: Any
    right: Any


names = st.sampled_from("abcdef")
sizes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
leaf = arrays(np.float64, sizes, elements=st.integers(-9, 9))
trees: st.SearchStrategy[Any] = st.recursive(
    st.one_of(leaf, st.none()),
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equal nodes (dicts in any order), leaves of equal shape, dtype and numbers."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if a is None or b is None:
        return a is b
    return bool(np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b))


def shuffled(t: Any) -> Any:
    """The same tree with every dict built in the opposite order."""
    if isinstance(t, dict):
        return {k: shuffled(v) for k, v in reversed(t.items())}
    if isinstance(t, Pair):
        return Pair(*map(shuffled, t))
    return tuple(map(shuffled, t)) if isinstance(t, tuple) else t


def add(a: Any, b: Any) -> Any:
    return a + b


# --- maps ------------------------------------------------------------------------------------------------------------


@given(trees)
def test_mapping_the_identity_changes_nothing(t: Any) -> None:
    assert same(tree.map(lambda a: a, t), t)
    assert same(tree.map_with_path(lambda path, a: a, t), t)


@given(trees)
def test_maps_compose(t: Any) -> None:
    assert same(tree.map(np.negative, tree.map(np.square, t)), tree.map(lambda a: -(a * a), t))


@given(trees)
def test_trees_are_matched_by_key_and_not_by_order(t: Any) -> None:
    doubled = tree.map(add, t, t)
    assert same(tree.map(add, t, shuffled(t)), doubled)
    assert same(tree.map(lambda a, b, c: a + b + c - a, t, shuffled(t), t), doubled)
    assert same(tree.map_with_path(lambda path, a, b: a + b, t, shuffled(t)), doubled)


@given(trees)
def test_items_leaves_and_get_tell_the_same(t: Any) -> None:
    found = list(tree.items(t))
    assert len(found) == len(tree.leaves(t))
    assert all(a is b for (_, a), b in zip(found, tree.leaves(t)))
    assert all(tree.get(t, path) is a for path, a in found)
    seen: list[str] = []
    tree.map_with_path(lambda path, a: seen.append(path), t)
    assert seen == [path for path, _ in found]


def test_paths_are_names_fields_and_positions() -> None:
    t = {"dense_0": {"weight": 1}, "moments": Pair(2, (3, None, 4)), "none": None}
    paths = ["dense_0/weight", "moments/left", "moments/right/0", "moments/right/2"]
    assert [path for path, _ in tree.items(t)] == paths
    assert list(tree.items(5)) == [("", 5)]


def test_any_mapping_is_a_node_and_becomes_a_dict() -> None:
    given = MappingProxyType({"a": MappingProxyType({"b": np.ones(2)})})
    assert type(tree.map(np.negative, given)) is dict
    assert same(tree.map(add, given, {"a": {"b": np.ones(2)}}), {"a": {"b": np.full(2, 2.0)}})
    assert tree.leaves(given)[0] is given["a"]["b"]


def test_an_error_of_the_mapped_function_comes_through() -> None:
    def fails(a: Any, b: Any) -> Any:
        raise ValueError("of the function")

    with pytest.raises(ValueError, match="of the function"):
        tree.map(fails, {"a": 1}, {"a": 2})


@given(trees)
def test_reduce_goes_over_the_leaves_in_order(t: Any) -> None:
    start: tuple[int, ...] = ()
    assert tree.reduce(lambda found, a: (*found, id(a)), t, start) == tuple(id(a) for a in tree.leaves(t))


# --- structures ------------------------------------------------------------------------------------------------------


@given(trees)
def test_a_tree_has_its_own_structure(t: Any) -> None:
    tree.check_same_structure(t, shuffled(t))


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({"a": {"w": np.zeros((2, 3))}}, {"a": {"w": np.zeros((3, 2))}}, ["a/w: (2, 3) in mine, (3, 2) in yours"]),
        ({"a": np.zeros(2), "b": np.zeros(1)}, {"b": np.zeros(1)}, ["a: (2,) in mine, missing in yours"]),
        ({}, {"a": {"b": 1, "c": 2}}, ["a: missing in mine, a mapping of 2 in yours"]),
        ((1, 2), (1, 2, 3), ["2: missing in mine, () in yours"]),
        (np.zeros(2), {"a": 1}, ["(the root): (2,) in mine, a mapping of 1 in yours"]),
        ({"a": None}, {"a": np.zeros(2)}, ["a: nothing in mine, (2,) in yours"]),
        (Pair(1, 2), {"left": 1, "right": 2}, ["(the root): a tuple of 2 in mine, a mapping of 2 in yours"]),
    ],
)
def test_differences_are_listed_with_their_paths(a: Any, b: Any, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        tree.check_same_structure(a, b, ("mine", "yours"))
    assert str(error.value).splitlines() == ["mine and yours differ in structure:", *(f"  {line}" for line in words)]


def test_a_long_list_of_differences_is_cut() -> None:
    with pytest.raises(ValueError, match="and 12 more") as error:
        tree.check_same_structure({str(i): 1 for i in range(20)}, {})
    assert len(str(error.value).splitlines()) == 10


@pytest.mark.parametrize("other", [{"a": np.ones(2)}, {"a": np.ones(2), "b": {"c": 1}}, (1, 2), 3, None, X, {}])
def test_maps_over_trees_of_other_structures_are_refused(other: Any) -> None:
    t = {"a": np.ones(2), "b": {"c": np.ones(3), "d": np.ones(4)}}
    for call in (tree.map, tree.map_with_path):
        with pytest.raises(ValueError, match="differ in structure"):
            call(lambda *args: args, t, other)
    with pytest.raises(ValueError, match="differ in structure"):
        tree.map(lambda *args: args, t, t, other)
    for compare in (tree.dot, tree.allclose):
        with pytest.raises(ValueError, match="differ in structure"):
            compare(t, other)


# --- parts -----------------------------------------------------------------------------------------------------------


@given(trees, st.integers(0, 99))
def test_set_replaces_one_leaf_and_shares_the_others(t: Any, choice: int) -> None:
    found = list(tree.items(t))
    if not found:
        return
    path = found[choice % len(found)][0]
    mark = object()
    new = tree.set(t, path, mark)
    assert tree.get(new, path) is mark
    assert all(a is b for (p, a), (_, b) in zip(found, tree.items(new)) if p != path)
    assert [p for p, _ in tree.items(new)] == [p for p, _ in found]
    assert tree.get(t, path) is not mark


def test_a_missing_path_names_what_there_is() -> None:
    t = {"dense_0": {"weight": 1, "bias": 2}}
    with pytest.raises(KeyError, match="no 'dense_0/scale'; dense_0 has weight, bias"):
        tree.get(t, "dense_0/scale")
    with pytest.raises(KeyError, match="no 'dense_1'; the root has dense_0"):
        tree.set(t, "dense_1", 1)
    with pytest.raises(KeyError, match="dense_0/bias has nothing below it"):
        tree.get(t, "dense_0/bias/x")
    assert tree.find(t, "dense_1") is None and tree.find(t, "dense_0/bias") == 2
    assert tree.get(t, "") is t and tree.set(t, "", 5) == 5


@given(trees, st.integers(0, 2**8))
def test_merge_is_the_inverse_of_partition(t: Any, bits: int) -> None:
    chosen = {path for i, (path, _) in enumerate(tree.items(t)) if bits >> i & 1}
    inside, outside = tree.partition(t, lambda path, a: path in chosen)
    assert {path for path, _ in tree.items(inside)} == chosen
    assert {path for path, _ in tree.items(outside)} == {path for path, _ in tree.items(t)} - chosen
    assert same(tree.merge(inside, outside), t)
    assert same(tree.merge(outside, inside), t)


def test_partition_drops_the_mappings_that_become_empty() -> None:
    t = {"dense_0": {"weight": 1, "bias": 2}, "norm_0": {"scale": 3}}
    weights, others = tree.partition(t, lambda path, a: path.endswith("weight"))
    assert weights == {"dense_0": {"weight": 1}}
    assert others == {"dense_0": {"bias": 2}, "norm_0": {"scale": 3}}


def test_merge_refuses_what_both_have() -> None:
    with pytest.raises(ValueError, match="merge: both trees have something at a/b"):
        tree.merge({"a": {"b": 1}}, {"a": {"b": 2}})
    with pytest.raises(ValueError, match="both trees have something at the root"):
        tree.merge((1, 2), (1, 2, 3))


# --- vectors ---------------------------------------------------------------------------------------------------------


@given(trees)
def test_unravel_is_the_inverse_of_ravel(t: Any) -> None:
    vector, unravel = tree.ravel(t)
    assert vector.ndim == 1 and vector.size == tree.size(t)
    assert same(unravel(vector), t)
    assert same(unravel(2 * vector), tree.map(lambda a: 2 * a, t))


@given(trees)
def test_vectors_do_not_depend_on_how_a_dict_was_built(t: Any) -> None:
    assert np.array_equal(tree.ravel(t)[0], tree.ravel(shuffled(t))[0])
    assert np.array_equal(tree.concatenate(shuffled(t), t), tree.ravel(t)[0])


def test_unravel_gives_views_and_ravel_copies() -> None:
    t = {"a": np.zeros((2, 2)), "b": np.zeros(3)}
    vector, unravel = tree.ravel(t)
    parts = unravel(vector)
    vector[:] = 1
    assert parts["a"].sum() == 4 and parts["b"].sum() == 3 and tree.norm(t) == 0


def test_vectors_of_another_length_or_kind_are_refused() -> None:
    like = {"a": np.zeros((2, 2)), "b": np.zeros(3)}
    for wrong in (np.zeros(6), np.zeros(8), np.zeros((7, 1))):
        with pytest.raises(ValueError, match="unravel: expected a vector of 7 numbers|cannot reshape"):
            tree.unravel(wrong, like)
    with pytest.raises(TypeError, match="different dtypes.*tree.cast"):
        tree.ravel({"a": np.zeros(2, np.float32), "b": np.zeros(2)})
    with pytest.raises(ValueError, match="differ in structure"):
        tree.concatenate({"a": np.zeros((2, 2))}, like)


def test_numbers_and_empty_trees_are_vectors_too() -> None:
    assert tree.ravel({"a": 1.0, "b": (2.0, np.array([3.0]))})[0].tolist() == [1, 2, 3]
    assert tree.ravel({})[0].shape == (0,) and tree.ravel(None)[0].size == 0


# --- arithmetic ------------------------------------------------------------------------------------------------------


@given(trees)
def test_dot_and_norm_are_those_of_the_vector(t: Any) -> None:
    vector, unravel = tree.ravel(t)
    assert tree.dot(t, shuffled(t)) == vector @ vector
    assert tree.norm(t) == math.sqrt(vector @ vector)
    assert tree.dot(tree.zeros_like(t), t) == 0


def test_dot_does_not_overflow_in_float32() -> None:
    t = {"a": np.full(4, 1e30, np.float32)}
    assert tree.norm(t) == pytest.approx(2e30, rel=1e-6)


def test_cast_changes_floats_only_and_protects_them() -> None:
    t: dict[str, Any] = {"a": np.ones(2, np.float32), "n": np.arange(3), "flag": np.array([True])}
    cast = tree.cast(t, np.float64)
    assert [cast[k].dtype.name for k in t] == ["float64", "int64", "bool"]
    assert not cast["a"].flags.writeable and t["a"].flags.writeable


def test_zeros_like_keeps_shapes_and_dtypes() -> None:
    t: dict[str, Any] = {"a": np.ones((2, 3), np.float32), "n": np.arange(3)}
    zeros = tree.zeros_like(t)
    assert zeros["a"].dtype == np.float32 and zeros["n"].dtype == t["n"].dtype
    assert not any(map(np.any, tree.leaves(zeros)))


def test_allclose_is_that_of_numpy_on_every_leaf() -> None:
    a = {"a": np.ones(2), "b": np.ones(3)}
    assert tree.allclose(a, tree.map(lambda x: x + 1e-9, a))
    assert not tree.allclose(a, {"a": np.ones(2), "b": np.array([1, 1, 1.1])})
    assert tree.allclose(a, {"a": np.ones(2), "b": np.array([1, 1, 1.1])}, atol=0.2)
    assert not tree.allclose(a, {"a": np.ones(2), "b": np.array([1, 1, np.nan])})


def test_read_only_protects_views_and_leaves_the_given_arrays_alone() -> None:
    t = {"a": np.zeros(3), "n": 5, "frozen": np.zeros(2)}
    frozen = t["frozen"]
    assert isinstance(frozen, np.ndarray)
    frozen.setflags(write=False)
    protected = tree.read_only(t)
    with pytest.raises(ValueError, match="read-only"):
        protected["a"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        protected["a"] += 1
    assert isinstance(t["a"], np.ndarray) and t["a"].flags.writeable and protected["frozen"] is frozen
