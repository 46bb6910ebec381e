"""Networks that are not trees: named values, each computed from values that stand before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, overload


from fnn.combinators.core import (
    AnyLayer,
    Back,
    Children,
    InputBack,
    Step,
    added,
    check_layer,
    check_name,
    combinator,
    infer_child,
    out_shape,
    pull,
    pull_input,
    run,
    step_of,
    with_entries,
)
from fnn.contract import Layer, Mode, evaluator, inputs_vjp, params_vjp
from fnn.types import Array, Ints, NDArray, Params, ShapeError, State, bind

Data: TypeAlias = NDArray[Any]

Node: TypeAlias = (
    tuple[str, Layer[Array, Array] | Layer[Ints, Array]]
    | tuple[tuple[str], Layer[tuple[Array], Array]]
    | tuple[tuple[str, str], Layer[tuple[Array, Array], Array] | Layer[tuple[Array, Ints], Array]]
    | tuple[tuple[str, str, str], Layer[tuple[Array, Array, Array], Array]]
    | tuple[tuple[str, str, str, str], Layer[tuple[Array, Array, Array, Array], Array]]
    | tuple[tuple[str, str, str, str, str, *tuple[str, ...]], Layer[tuple[Array, ...], Array]]
)
"""`(the name of the input, layer)`, or `(the names of the inputs, layer with several inputs)`."""

Names: TypeAlias = str | tuple[str, ...]
Two: TypeAlias = tuple[str, str]
More: TypeAlias = tuple[str, str, str, *tuple[str, ...]]


class Plan(NamedTuple):
    """What is taken from where."""

    inputs: Names
    sources: tuple[Names, ...]
    """The inputs of every node."""
    output: Names
    last: tuple[tuple[str, ...], ...]
    """The values that no node after this one needs."""


@overload
def dag(*, inputs: str, output: str, **nodes: Node) -> Layer[Data, Array]: ...
@overload
def dag(*, inputs: tuple[str, ...], output: str, **nodes: Node) -> Layer[tuple[Data, ...], Array]: ...
@overload
def dag(*, inputs: str, output: Two, **nodes: Node) -> Layer[Data, tuple[Array, Array]]: ...
@overload
def dag(*, inputs: tuple[str, ...], output: Two, **nodes: Node) -> Layer[tuple[Data, ...], tuple[Array, Array]]: ...
@overload
def dag(*, inputs: str, output: More, **nodes: Node) -> Layer[Data, tuple[Array, ...]]: ...
@overload
def dag(*, inputs: tuple[str, ...], output: More, **nodes: Node) -> Layer[tuple[Data, ...], tuple[Array, ...]]: ...
def dag(*, inputs: Names, output: Names, **nodes: Any) -> AnyLayer:
    """A network written as named values, in order: `name=(where its input comes from, layer)`.

    >>> from fnn.combinators import fan_in_sum
    >>> from fnn.layers.dense import Dense
    >>> from fnn.layers.activation import Tanh
    >>> net = dag(
    ...     inputs="x",
    ...     h=("x", Dense(5)),
    ...     g=("h", Tanh),
    ...     k=("x", Dense(5)),
    ...     y=(("g", "h", "k"), fan_in_sum),
    ...     output="y",
    ... )

    A layer with several inputs has them named in a tuple; `inputs` and `output` are one name each, or tuples of names:
    then the network takes, or gives, a tuple. A name may be used many times; its gradient is the sum over the uses.
    Names of values are names of children: `h` owns the parameters `h/...`.

    Raises `ValueError` where a name is unknown (a value can only be made of those before it, so there are no cycles),
    defined twice, or not used.
    """
    children = tuple((name, _layer_of(name, node)) for name, node in nodes.items())
    plan = _plan(inputs, {name: node[0] for name, node in nodes.items()}, output)
    backs = tuple((name, child.vjp) for name, child in children)
    both = tuple((child.vjp, bind(_without_dx, params_vjp(child)), child.trainable) for _, child in children)
    return combinator(
        "dag",
        children,
        bind(_dag_shapes, plan, children),
        bind(_dag_forward, plan, tuple(step_of(name, child) for name, child in children)),
        bind(_dag_vjp, plan, backs),
        infer=bind(_dag_infer, plan, tuple((name, evaluator(child)) for name, child in children)),
        param_vjp=bind(_dag_param_vjp, plan, tuple(nodes), both),
        input_vjp=bind(_dag_input_vjp, plan, tuple((name, inputs_vjp(child)) for name, child in children)),
        config={"inputs": inputs, "output": output, "nodes": nodes},
        build=dag,
    )


def _layer_of(name: str, node: Any) -> AnyLayer:
    check_name("dag", name)
    if not isinstance(node, tuple) or len(node) != 2 or not _are_names(node[0]):
        raise TypeError(f'dag: expected {name}=("input", layer) or {name}=(("a", "b"), layer), got {node!r}')
    check_layer("dag", node[1])
    child: AnyLayer = node[1]
    return child


def _are_names(names: Any) -> bool:
    return isinstance(names, str) or (
        isinstance(names, tuple) and bool(names) and all(isinstance(name, str) for name in names)
    )


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _plan(inputs: Names, sources: Mapping[str, Names], output: Names) -> Plan:
    """The plan, if every name is known where it is used, defined once, and used."""
    for what, names in (("inputs", inputs), ("output", output)):
        if not _are_names(names):
            raise TypeError(f"dag: expected {what} to be a name or a tuple of names, got {names!r}")
    known = list(_tuple(inputs))
    for name in known:
        check_name("dag", name)
    last: dict[str, str] = {}
    for name, source in sources.items():
        for used in _tuple(source):
            if used not in known:
                later = " (it is defined later)" if used in sources else ""
                raise ValueError(f"dag: {name} uses {used!r}, which is not among {', '.join(known)}{later}")
            last[used] = name
        known.append(name)
    for name in _tuple(output):
        if name not in known:
            raise ValueError(f"dag: the output {name!r} is not among {', '.join(known)}")
    for name in known:
        if known.count(name) > 1:
            raise ValueError(f"dag: the name {name!r} is given twice")
        if name not in last and name not in _tuple(output):
            raise ValueError(f"dag: {name!r} is not used; leave it out, or make it an output")
    for name in _tuple(output):
        last.pop(name, None)
    dying = tuple(tuple(used for used, user in last.items() if user == name) for name in sources)
    return Plan(inputs, tuple(sources.values()), output, dying)


# --- values by name --------------------------------------------------------------------------------------------------


def _given(names: Names, x: Any) -> dict[str, Any]:
    """The values of the inputs (or their shapes, or the gradients of the outputs) by name."""
    if isinstance(names, str):
        return {names: x}
    if not isinstance(x, tuple) or len(x) != len(names):
        got = f"{len(x)}" if isinstance(x, tuple) else f"one {type(x).__name__}"
        raise ShapeError(f"dag: expected a tuple of {len(names)} inputs ({', '.join(names)}), got {got}")
    return dict(zip(names, x))


def _pick(values: Mapping[str, Any], names: Names) -> Any:
    return values[names] if isinstance(names, str) else tuple(values[name] for name in names)


def _add(sums: dict[str, Any], names: Names, parts: Any) -> None:
    """Adds gradients to the sums by name, never into an array that was given; `None` is that of all."""
    if parts is None:
        parts = None if isinstance(names, str) else (None,) * len(names)
    for name, part in ((names, parts),) if isinstance(names, str) else zip(names, parts):
        sums[name] = added(sums.get(name), part)


def _dag_shapes(plan: Plan, children: Children, in_shape: Any) -> tuple[list[Any], Any]:
    shapes = _given(plan.inputs, in_shape)
    in_shapes = []
    for (name, child), source in zip(children, plan.sources):
        in_shapes.append(_pick(shapes, source))
        shapes[name] = out_shape(name, child, in_shapes[-1])
    return in_shapes, _pick(shapes, plan.output)


def _dag_forward(
    plan: Plan, steps: tuple[Step, ...], params: Params, state: State, x: Any, mode: Mode
) -> tuple[Any, State, tuple[Any, ...]]:
    values = _given(plan.inputs, x)
    changed: dict[str, State] = {}
    caches = []
    for step, source, dying in zip(steps, plan.sources, plan.last):
        values[step[0]], cache = run(step, params, state, changed, _pick(values, source), mode)
        caches.append(cache)
        for name in dying:
            del values[name]
    return _pick(values, plan.output), with_entries(state, changed), tuple(caches)


def _dag_vjp(
    plan: Plan, backs: tuple[Back, ...], params: Params, caches: tuple[Any, ...], dy: Any
) -> tuple[Params, Any]:
    grads: dict[str, Any] = {}
    sums: dict[str, Any] = {}
    _add(sums, plan.output, dy)
    for back, source, cache in zip(reversed(backs), reversed(plan.sources), reversed(caches)):
        _add(sums, source, pull(back, params, grads, cache, sums.pop(back[0])))
    return grads, _pick(sums, plan.inputs)


def _dag_param_vjp(
    plan: Plan, names: tuple[str, ...], backs: tuple[Any, ...], params: Params, caches: tuple[Any, ...], dy: Any
) -> Params:
    """As `_dag_vjp`, without what leads to no parameter that has gradients."""
    wanted: set[str] = set()
    chosen: list[Back | None] = []
    for name, source, (vjp, param_vjp, trainable) in zip(names, plan.sources, backs):
        deeper = not wanted.isdisjoint(_tuple(source))
        if deeper or (name in params and (trainable is None or trainable(params[name]))):
            wanted.add(name)
            chosen.append((name, vjp if deeper else param_vjp))
        else:
            chosen.append(None)
    grads: dict[str, Any] = dict.fromkeys(params)
    sums: dict[str, Any] = {}
    _add(sums, plan.output, dy)
    for name, back, source, cache in zip(reversed(names), reversed(chosen), reversed(plan.sources), reversed(caches)):
        part = sums.pop(name)
        _add(sums, source, None if back is None else pull(back, params, grads, cache, part))
    return grads


def _without_dx(param_vjp: Any, params: Params, cache: Any, dy: Any) -> tuple[Params, Any]:
    return param_vjp(params, cache, dy), None


def _dag_input_vjp(plan: Plan, backs: tuple[InputBack, ...], params: Params, caches: tuple[Any, ...], dy: Any) -> Any:
    sums: dict[str, Any] = {}
    _add(sums, plan.output, dy)
    for back, source, cache in zip(reversed(backs), reversed(plan.sources), reversed(caches)):
        _add(sums, source, pull_input(back, params, cache, sums.pop(back[0])))
    return _pick(sums, plan.inputs)


def _dag_infer(plan: Plan, steps: tuple[InputBack, ...], params: Params, state: State, x: Any) -> Any:
    values = _given(plan.inputs, x)
    for step, source, dying in zip(steps, plan.sources, plan.last):
        values[step[0]] = infer_child(step, params, state, _pick(values, source))
        for name in dying:
            del values[name]
    return _pick(values, plan.output)
