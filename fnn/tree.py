"""Trees: nested mappings and tuples (NamedTuples too) with arrays or numbers as leaves. `None` is an empty node.

Parameters, running statistics, optimizer states and batches are all trees. The path of a leaf joins names, fields and
positions with `/`: `dense_0/weight`. Several trees are always matched by key, never by order.

>>> t = {"dense_0": {"weight": np.ones((2, 3)), "bias": np.zeros(3)}}
>>> size(t), [path for path, _ in items(t)]
(9, ['dense_0/weight', 'dense_0/bias'])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np

from fnn.types import DTypeLike, NDArray

Tree: TypeAlias = Any
T = TypeVar("T")
R = TypeVar("R")

_ndarray = np.ndarray


# --- the shape of a tree ---------------------------------------------------------------------------------------------


def _is_node(tree: Tree) -> bool:
    return isinstance(tree, (Mapping, tuple)) or tree is None


def _children(tree: Tree) -> list[tuple[str, Tree]]:
    """The named children of a node."""
    if isinstance(tree, Mapping):
        return [(str(key), child) for key, child in tree.items()]
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", None) or range(len(tree))
        return [(str(name), child) for name, child in zip(names, tree)]
    return []


def rebuild(node: Tree, children: list[Tree]) -> Tree:
    """A node like `node` with other children, in the same order."""
    if isinstance(node, Mapping):
        return dict(zip(node, children))
    if isinstance(node, tuple):
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
    return None


def join(path: str, name: str) -> str:
    """The path of the child `name` of the node at `path`."""
    return f"{path}/{name}" if path else name


def items(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """`(path, leaf)` for every leaf, depth first."""
    if _is_node(tree):
        for name, child in _children(tree):
            yield from items(child, join(path, name))
    else:
        yield path, tree


def leaves(tree: Tree) -> list[Any]:
    """Every leaf, depth first."""
    if type(tree) is _ndarray:
        return [tree]
    if isinstance(tree, Mapping):
        return [leaf for child in tree.values() for leaf in leaves(child)]
    if isinstance(tree, tuple):
        return [leaf for child in tree for leaf in leaves(child)]
    return [] if tree is None else [tree]


def check_same_structure(tree: Tree, other: Tree, names: tuple[str, str] = ("the first tree", "the second")) -> None:
    """Raises `ValueError` unless both trees have the same nodes and equal leaf shapes; lists where they differ."""
    differences = list(_differences(tree, other, "", names))
    if differences:
        more = f"\n  and {len(differences) - 8} more" if len(differences) > 8 else ""
        listed = "".join(f"\n  {line}" for line in differences[:8])
        raise ValueError(f"{names[0]} and {names[1]} differ in structure:{listed}{more}")


def _differences(a: Tree, b: Tree, path: str, names: tuple[str, str]) -> Iterator[str]:
    where = path or "(the root)"
    if _is_node(a) and _is_node(b):
        if isinstance(a, Mapping) != isinstance(b, Mapping) and _children(a) + _children(b):
            yield f"{where}: {_describe(a)} in {names[0]}, {_describe(b)} in {names[1]}"
            return
        mine, others = dict(_children(a)), dict(_children(b))
        for name in mine:
            if name in others:
                yield from _differences(mine[name], others[name], join(path, name), names)
            else:
                yield f"{join(path, name)}: {_describe(mine[name])} in {names[0]}, missing in {names[1]}"
        for name in others:
            if name not in mine:
                yield f"{join(path, name)}: missing in {names[0]}, {_describe(others[name])} in {names[1]}"
    elif _is_node(a) or _is_node(b) or np.shape(a) != np.shape(b):
        yield f"{where}: {_describe(a)} in {names[0]}, {_describe(b)} in {names[1]}"


def _describe(tree: Tree) -> str:
    if isinstance(tree, Mapping):
        return f"a mapping of {len(tree)}"
    if isinstance(tree, tuple):
        return f"a tuple of {len(tree)}"
    return "nothing" if tree is None else f"{np.shape(tree)}"


# --- maps ------------------------------------------------------------------------------------------------------------


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """The tree of `f(leaf, *leaves of the rest at the same path)`. All trees must have the same structure."""
    try:
        return _map(f, tree) if not rest else _map2(f, tree, rest[0]) if len(rest) == 1 else _map_many(f, tree, rest)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        for other in rest:
            check_same_structure(tree, other)
        raise


def _map(f: Callable[..., Any], tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {k: f(v) if type(v) is _ndarray else _map(f, v) for k, v in tree.items()}
    if type(tree) is tuple:
        return tuple([f(v) if type(v) is _ndarray else _map(f, v) for v in tree])
    return rebuild(tree, [_map(f, v) for _, v in _children(tree)]) if _is_node(tree) else f(tree)


def _map2(f: Callable[..., Any], tree: Tree, other: Tree) -> Tree:
    if isinstance(tree, dict):
        if len(other) != len(tree):
            raise ValueError("the trees have different numbers of children")
        return {k: f(v, other[k]) if type(v) is _ndarray else _map2(f, v, other[k]) for k, v in tree.items()}
    return _map_many(f, tree, (other,))


def _map_many(f: Callable[..., Any], tree: Tree, rest: tuple[Tree, ...]) -> Tree:
    if not _is_node(tree):
        return f(tree, *rest)
    children = _children(tree)
    others = [dict(_children(other)) for other in rest]
    if any(len(other) != len(children) for other in others):
        raise ValueError("the trees have different numbers of children")
    return rebuild(tree, [_map_many(f, child, tuple(o[name] for o in others)) for name, child in children])


def map_with_path(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Like `map`, but calls `f(path, leaf, ...)`."""
    for other in rest:
        check_same_structure(tree, other)

    def walk(node: Tree, others: list[Tree], path: str) -> Tree:
        if not _is_node(node):
            return f(path, node, *others)
        tables = [dict(_children(other)) for other in others]
        return rebuild(node, [walk(c, [t[name] for t in tables], join(path, name)) for name, c in _children(node)])

    return walk(tree, list(rest), "")


def reduce(f: Callable[[R, Any], R], tree: Tree, initial: R) -> R:
    """`f(... f(f(initial, leaf 0), leaf 1) ...)`, depth first."""
    for leaf in leaves(tree):
        initial = f(initial, leaf)
    return initial


# --- parts -----------------------------------------------------------------------------------------------------------


def get(tree: Tree, path: str) -> Tree:
    """The leaf or subtree at `path`; `KeyError` names the part that is missing and what there is instead."""
    here = ""
    for name in path.split("/") if path else []:
        children = dict(_children(tree))
        if name not in children:
            raise KeyError(
                f"no {join(here, name)!r}; {here or 'the root'} has {', '.join(children) or 'nothing below it'}"
            )
        tree, here = children[name], join(here, name)
    return tree


def find(tree: Tree, path: str) -> Tree:
    """The leaf or subtree at `path`, or `None`."""
    try:
        return get(tree, path)
    except KeyError:
        return None


def set(tree: Tree, path: str, value: Tree) -> Tree:
    """A new tree with `value` in the place of what stands at `path` (which must exist); everything else is shared."""
    get(tree, path)
    return _set(tree, path.split("/") if path else [], value)


def _set(tree: Tree, names: list[str], value: Tree) -> Tree:
    if not names:
        return value
    return rebuild(tree, [_set(c, names[1:], value) if name == names[0] else c for name, c in _children(tree)])


def partition(tree: Tree, where: Callable[[str, Any], bool]) -> tuple[Tree, Tree]:
    """Two trees of the same nodes: the leaves for which `where(path, leaf)` holds, and the others.

    Nested mappings lose the entries that are not theirs (and mappings that become empty); tuples keep `None` in their
    place. `merge` is the inverse.
    """
    return _select(tree, where, "", True), _select(tree, where, "", False)


def _select(tree: Tree, where: Callable[[str, Any], bool], path: str, wanted: bool) -> Tree:
    if not _is_node(tree):
        return tree if bool(where(path, tree)) is wanted else None
    children = [(name, child, _select(child, where, join(path, name), wanted)) for name, child in _children(tree)]
    if isinstance(tree, Mapping):
        return {k: new for k, (_, old, new) in zip(tree, children) if not (_is_empty(new) and not _is_empty(old))}
    return rebuild(tree, [new for _, _, new in children])


def _is_empty(tree: Tree) -> bool:
    return _is_node(tree) and not tree


def merge(tree: Tree, other: Tree) -> Tree:
    """The union of two trees whose leaves stand at different paths; `ValueError` names a path that both have."""
    return _merge(tree, other, "")


def _merge(a: Tree, b: Tree, path: str) -> Tree:
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {k: _merge(a.get(k), b.get(k), join(path, str(k))) for k in [*a, *(k for k in b if k not in a)]}
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return rebuild(a, [_merge(x, y, join(path, name)) for (name, x), y in zip(_children(a), b)])
    raise ValueError(f"merge: both trees have something at {path or 'the root'}: {_describe(a)} and {_describe(b)}")


# --- trees as vectors ------------------------------------------------------------------------------------------------


def sorted_leaves(tree: Tree, like: Tree) -> list[Any]:
    """The leaves of `tree` at the paths of `like`, mappings in the order of their sorted keys.

    The order depends on the names only, not on how a dict was built, so vectors made at different times agree.
    """
    if isinstance(like, Mapping):
        found: list[Any] = []
        for key in sorted(like):
            child = like[key]
            if type(child) is _ndarray:
                found.append(tree[key])
            else:
                found += sorted_leaves(tree[key], child)
        return found
    if isinstance(like, tuple):
        return [leaf for part, child in zip(tree, like, strict=True) for leaf in sorted_leaves(part, child)]
    return [] if like is None else [tree]


def ravel(tree: Tree) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Tree]]:
    """One vector of all leaves (keys sorted), and the function that turns such a vector into a tree of views of it.

    The leaves must share one dtype. The law: `unravel(vector)` equals the tree.

    >>> vector, unravel = ravel({"b": np.array([1.0, 2.0]), "a": np.array([[3.0]])})
    >>> vector, unravel(vector * 2)
    (array([3., 1., 2.]), {'b': array([2., 4.]), 'a': array([[6.]])})
    """

    def unravel_like(vector: NDArray[Any]) -> Tree:
        return unravel(vector, tree)

    return concatenate(tree, tree), unravel_like


def concatenate(tree: Tree, like: Tree) -> NDArray[Any]:
    """The leaves of `tree` as one new vector, ordered as `sorted_leaves(tree, like)`; raises where the trees differ."""
    try:
        found = sorted_leaves(tree, like)
        vector = np.concatenate([a.reshape(-1) for a in found]) if found else np.zeros(0, np.float32)
        if len({a.dtype for a in found}) > 1:
            kinds = ", ".join(f"{path} {np.asarray(leaf).dtype}" for path, leaf in list(items(tree))[:8])
            raise TypeError(f"ravel: the leaves have different dtypes ({kinds}); cast them to one first: tree.cast")
        return vector
    except (KeyError, ValueError, AttributeError, TypeError):
        check_same_structure(like, tree, ("the reference", "the given tree"))
        if all(isinstance(leaf, np.ndarray) for leaf in leaves(tree)):
            raise
        return concatenate(map(np.asarray, tree), like)


def unravel(vector: NDArray[Any], like: Tree) -> Tree:
    """The tree of views of `vector` shaped as `like` (in the order of `ravel`)."""
    tree, end = _unravel(vector, like, 0)
    if vector.ndim != 1 or end != vector.size:
        raise ValueError(f"unravel: expected a vector of {end} numbers, got shape {vector.shape}")
    return tree


def _unravel(vector: NDArray[Any], like: Tree, start: int) -> tuple[Tree, int]:
    if isinstance(like, Mapping):
        found = dict.fromkeys(like)
        for key in sorted(like):
            child = like[key]
            if type(child) is _ndarray:
                end = start + child.size
                found[key] = vector[start:end].reshape(child.shape)
                start = end
            else:
                found[key], start = _unravel(vector, child, start)
        return found, start
    if isinstance(like, tuple):
        parts = []
        for child in like:
            part, start = _unravel(vector, child, start)
            parts.append(part)
        return rebuild(like, parts), start
    if like is None:
        return None, start
    end = start + int(np.size(like))
    return vector[start:end].reshape(np.shape(like)), end


# --- arithmetic ------------------------------------------------------------------------------------------------------


def size(tree: Tree) -> int:
    """How many numbers the tree holds."""
    return sum(int(np.size(leaf)) for leaf in leaves(tree))


def cast(tree: Tree, dtype: DTypeLike) -> Tree:
    """Every floating-point leaf in another dtype; integers and flags stay as they are. Leaves are read-only."""
    return read_only(map(lambda a: np.asarray(a, dtype) if np.asarray(a).dtype.kind == "f" else a, tree))


def zeros_like(tree: Tree) -> Tree:
    """Zeros of the same shapes and dtypes."""
    return map(np.zeros_like, tree)


def dot(tree: Tree, other: Tree) -> float:
    """The inner product: the sum over all leaves of `vdot(a, b)`, in float64."""
    check_same_structure(tree, other)
    return math.fsum(leaves(map(lambda a, b: float(np.vdot(np.float64(a), np.float64(b))), tree, other)))


def norm(tree: Tree) -> float:
    """The Euclidean norm of all numbers of the tree, `sqrt(dot(tree, tree))`."""
    return math.sqrt(dot(tree, tree))


def allclose(tree: Tree, other: Tree, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether two trees of the same structure hold the same numbers, to tolerances, as `numpy.allclose`."""
    check_same_structure(tree, other)
    return all(leaves(map(lambda a, b: bool(np.allclose(a, b, rtol, atol)), tree, other)))


def read_only(tree: Tree) -> Tree:
    """The same tree with arrays that refuse to be written to: views, so the arrays given stay as they are.

    >>> read_only({"weight": np.zeros(3)})["weight"][0] = 1.0
    Traceback (most recent call last):
    ValueError: assignment destination is read-only
    """
    return map(_read_only, tree)


def _read_only(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray) or not leaf.flags.writeable:
        return leaf
    view = leaf.view()
    view.setflags(write=False)
    return view
