"""A plan: what a recording becomes, a function that checks its arguments, runs the calls, and hands out the results."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from functools import partial
from operator import is_
from time import perf_counter
from types import FunctionType
from typing import Any

import numpy as np

from fnn.compile.allocation import aligned, allocate
from fnn.compile.entry import Entry
from fnn.compile.guards import with_plain_guards
from fnn.compile.packs import Packs, levelled
from fnn.compile.passes import (
    with_cheap_calls,
    with_copied_arguments,
    with_numbers_first,
    with_whole_operands,
    without_dead,
)
from fnn.compile.placement import Moved, placed
from fnn.compile.program import Call, NotRecordable, Variable, View
from fnn.compile.recorder import Recorder
from fnn.compile.results import Constant, Given, Out, carried_pairs, copy_of, is_kept, result_leaves
from fnn.compile.stand_ins import Traced
from fnn.compile.slots import Layout, Pool, Slot, array_at, block
from fnn.compile.source import Source, function_code
from fnn.compile.structure import ArrayLeaf, ValueLeaf, leaf_signatures

MISS = object()
"""What a plan gives for arguments that it is not made for."""

_serial = itertools.count()


class Instance:
    """The memory of a plan and its function on that memory; a plan has as many as run at the same time."""

    __slots__ = ("memory", "run", "times")

    def __init__(self, plan: Plan, timed: bool = False) -> None:
        public, self.memory = block(plan.arena)
        names: dict[str, Any] = dict(plan.source.constants)
        for name, view, offset in plan.source.tables["arena"].values():
            names[name] = array_at(self.memory, view, offset)
        for name, dtype in plan.source.scalars.items():
            names[name] = np.empty((), dtype)
        self.times = [0.0] * len(plan.calls)
        if timed:
            names |= {"T": self.times, "clock": perf_counter}
        run = FunctionType(plan.timed_code() if timed else plan.code, names)
        silent: dict[str, Any] = dict.fromkeys(plan.silent, "ignore")
        self.run: Callable[..., Any] = np.errstate(**silent)(run) if silent else run


class Plan:
    """The replay of a function for arguments of one signature."""

    def __init__(
        self,
        recorder: Recorder,
        signatures: tuple[Any, ...],
        arguments: list[Any],
        form: Any,
        pools: dict[Any, Pool],
    ) -> None:
        self.serial = next(_serial)
        self.signatures = signatures
        self.silent = frozenset(recorder.silent)
        leaves = [leaf for signature in signatures for leaf in leaf_signatures(signature)]
        turned = turned_arguments(recorder.calls)
        pairs = carried_pairs(signatures, form, list(range(len(leaf_signatures(signatures[0])))))
        pairs = {i: out for i, out in pairs.items() if i not in turned}
        found = result_leaves(form)
        outs = list({id(out): out for out in found if isinstance(out, Out)}.values())
        wholes = {i: a.at for i, a in enumerate(arguments) if isinstance(a, Traced)}
        for i in pairs:
            wholes[i].storage.kind = "carried"  # read in slots, where results lie as these arguments do

        wanted = [leaf for leaf in found if isinstance(leaf, Variable)]
        calls = without_dead(with_plain_guards(recorder.calls), [out.view.storage for out in outs], wanted)
        calls = self._shorter(calls, outs, pairs, wholes, turned)
        self.calls = with_numbers_first(calls, {*range(sum(isinstance(leaf, ValueLeaf) for leaf in leaves))})
        self.source = Source(self._laid_out(outs, pairs, wholes, pools), wholes, recorder.values)
        for i, call in enumerate(self.calls):
            self.source.call(i, call)
        self._finish(leaves, form, found, outs)
        for view in (*wholes.values(), *(view for call in self.calls for view in (*call.reads(), *call.outs))):
            if view.storage.kind != "constant":
                view.storage.array = None

    def _shorter(
        self, calls: list[Call], outs: list[Out], pairs: dict[int, Out], wholes: dict[int, View], turned: set[int]
    ) -> list[Call]:
        """The calls, cheaper and fewer, with what they make moved together."""
        loose = {i: view for i, view in wholes.items() if i not in pairs}
        calls, moved = with_copied_arguments(
            with_whole_operands(with_cheap_calls(calls)), loose, [out.view for out in outs]
        )
        if any(wholes[i].storage.kind == "argument" and id(wholes[i].storage) in moved for i in turned):
            raise NotRecordable("a product of an argument and the transpose of another, which may be the same array")
        self._move(outs, moved)
        calls, moved = placed(calls, {id(out.view.storage) for out in outs})
        self._move(outs, moved)
        beside = {id(wholes[i].storage): _as_carried(out.view, wholes[i]) for i, out in pairs.items()}
        packs = Packs(levelled(calls), beside, {id(out.view.storage) for out in outs if out not in pairs.values()})
        calls = packs.run()
        self._move(outs, packs.moved)
        return calls

    def _laid_out(
        self, outs: list[Out], pairs: dict[int, Out], wholes: dict[int, View], pools: dict[Any, Pool]
    ) -> Callable[[View], tuple[str, int]]:
        """Where every view lies: in a slot that is read or written, an argument, or the arena, and at what offset."""
        places: dict[int, int] = {}
        size = 0
        for out in pairs.values():
            if id(out.view.storage) not in places:
                places[id(out.view.storage)] = size
                size += aligned(out.view.storage.nbytes)
        self.carried = [*pairs]
        for k, out in enumerate(pairs.values()):
            out.leaf = k
        layout = Layout(
            [(out.view, places[id(out.view.storage)] + out.view.offset) for out in pairs.values()],
            [out.writeable for out in pairs.values()],
            size,
        )
        self.pool = pools.setdefault(layout.key, Pool(layout)) if pairs else None
        inside = {
            id(wholes[i].storage): places[id(out.view.storage)] + _as_carried(out.view, wholes[i]).offset
            for i, out in pairs.items()
        }
        offsets, self.arena = allocate(self.calls, set(places), {id(out.view.storage) for out in outs})

        def place(view: View) -> tuple[str, int]:
            name = id(view.storage)
            if name in places:
                return "out", places[name] + view.offset
            if name in inside:
                return "in", inside[name] + view.offset
            if view.storage.kind == "argument":
                return "argument", view.offset
            return "arena", offsets.get(name, 0) + view.offset

        return place

    @staticmethod
    def _move(outs: list[Out], moved: Moved) -> None:
        for out in outs:
            while id(out.view.storage) in moved:
                storage, offset = moved[id(out.view.storage)]
                out.view = out.view.moved(storage, out.view.offset + offset)

    # --- code --------------------------------------------------------------------------------------------------------

    def _finish(self, leaves: list[Any], form: Any, found: list[Any], outs: list[Out]) -> None:
        """Makes the code of the run, and the function that calls it."""
        source = self.source
        exits: list[str] = []
        names: dict[int, str] = {}
        for leaf in found:
            if isinstance(leaf, Variable):
                exits.append(f"v{leaf.index}")
                names[id(leaf)] = f"r[{len(exits) - 1}]"
            elif isinstance(leaf, Out) and leaf.leaf < 0 and id(leaf) not in names:
                exits.append(self._exit(leaf))
                names[id(leaf)] = f"r[{len(exits) - 1}]"
        read = [view for call in self.calls for view in call.reads()] + [out.view for out in outs]
        used = sorted({view.storage.source for view in read if view.storage.kind == "argument"})
        values = [i for i, leaf in enumerate(leaves) if isinstance(leaf, ValueLeaf)]
        self.parameters = [
            *[name for name, _, _ in source.tables["in"].values()],
            *[name for name, _, _ in source.tables["out"].values()],
            *[f"a{i}" for i in used],
            *[f"v{k}" for k in range(len(values))],  # the recorder numbers those among the arguments first
        ]
        self.exits = exits
        self.code = source.code("run", self.parameters, exits)
        self._make_entry(leaves, form, names, used, values)

    def timed_code(self) -> Any:
        """The code of the run with a clock after each call."""
        return self.source.code("run", self.parameters, self.exits, timed=True)

    def _exit(self, out: Out) -> str:
        name = self.source.array(out.view)
        if out.view.storage.kind == "argument":
            return f"{self.source.constant(_read_only)}({name}.view())" if out.protected else name
        if out.scalar:
            return f"{name}[()]"
        copy = f"{name}.copy('K')" if is_kept(out.view) else f"{self.source.constant(copy_of)}({name})"
        return copy if out.writeable else f"{self.source.constant(_read_only)}({copy})"

    def _make_entry(
        self, leaves: list[Any], form: Any, names: dict[int, str], used: list[int], values: list[int]
    ) -> None:
        entry = Entry(leaves, set(self.carried))
        for k, signature in enumerate(self.signatures):
            entry.open(signature, f"args[{k}]")
        lines = [f"if len(args) != {len(self.signatures)}: return MISS", *entry.lines, *_distinct(leaves)]
        inputs = []
        if self.pool is not None:
            listed = "".join(f"l{i}, " for i in self.carried)
            lines += [
                f"carried = ({listed})",
                "source = owner(id(l%d))" % self.carried[0],
                "if source is None or not all(map(is_, carried, source.leaves)):",
                "    adopted = source = adopt(carried)",
                "    if source is None: return MISS",
                "else: adopted = None",
                "slot = take()",
                "leaves = slot.leaves",
                f"inputs = source.tables.get({self.serial}) or tables(source)",
                f"outputs = slot.tables.get({self.serial}) or tables(slot)",
            ]
            inputs = ["*inputs[0]", "*outputs[1]"]
        inputs += [f"l{i}" for i in (*used, *values)]
        result = self._result(form, names, entry)
        kept = "instances.append(instance)"
        if self.pool is not None:
            kept += "; give(slot); adopted is None or give(adopted)"
        lines += [
            "try: instance = instances.pop()",
            "except IndexError: instance = new()",
            f"try: r = instance.run({', '.join(inputs)})",
            f"except BaseException: {kept}; raise",
            "instances.append(instance)",
            f"result = {result}",
        ]
        if self.pool is not None:
            lines += ["give(slot)", "if adopted is not None: give(adopted)"]
        lines += ["return result"]
        pool = self.pool
        constants = {
            **entry.constants,
            "MISS": MISS,
            "is_": is_,
            "ndarray": np.ndarray,
            "new": partial(Plan._new, itself := weakref.proxy(self)),
            "tables": partial(Plan._tables, itself),
        }
        if pool is not None:
            constants |= {"owner": pool.owners.get, "adopt": pool.adopt, "take": pool.take, "give": pool.give}
        self.entry_code, self.entry_constants = function_code("entry", ["args"], lines), constants
        self.instances: list[Instance] = []
        constants["instances"] = self.instances
        self.entry: Callable[[tuple[Any, ...]], Any] = FunctionType(self.entry_code, constants)

    def _result(self, form: Any, names: dict[int, str], entry: Entry) -> str:
        """The expression for the result."""
        if isinstance(form, Given):
            return f"l{form.source}"
        if isinstance(form, Out) and form.leaf >= 0:
            return f"leaves[{form.leaf}]"
        if isinstance(form, (Out, Variable)):
            return names[id(form)]
        if isinstance(form, Constant):
            if isinstance(form.value, np.ndarray) and form.value.flags.writeable:
                return f"{entry.constant(copy_of)}({entry.constant(copy_of(form.value))})"
            return entry.constant(form.value)
        children = [self._result(child, names, entry) for child in form.children]
        if form.kind is dict:
            return (
                "{" + ", ".join(f"{entry.constant(name)}: {child}" for name, child in zip(form.names, children)) + "}"
            )
        listed = ", ".join(children)
        if form.kind is list:
            return f"[{listed}]"
        return (
            f"({listed}{',' if children else ''})" if form.kind is tuple else f"{entry.constant(form.kind)}({listed})"
        )

    def _new(self) -> Instance:
        return Instance(self)

    def _tables(self, slot: Slot) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arrays in a slot that this plan reads, and those that it writes."""
        tables = self.source.tables
        found = (
            tuple([array_at(slot.private, view, offset) for _, view, offset in tables["in"].values()]),
            tuple([array_at(slot.private, view, offset) for _, view, offset in tables["out"].values()]),
        )
        slot.tables[self.serial] = found
        return found


def _distinct(leaves: list[Any]) -> list[str]:
    """The lines that leave unless exactly those arrays are the same object that were."""
    arrays = [(i, leaf.same) for i, leaf in enumerate(leaves) if isinstance(leaf, ArrayLeaf)]
    lines = [f"if l{i} is not l{same}: return MISS" for i, same in arrays if same >= 0]
    own = [i for i, same in arrays if same < 0]
    if len(own) > 1:
        lines.append(f"if len({{*map(id, ({', '.join(f'l{i}' for i in own)}))}}) != {len(own)}: return MISS")
    return lines


def _as_carried(result: View, argument: View) -> View:
    """The result, from where the memory of the argument begins in its memory."""
    return result.moved(result.storage, result.offset - argument.offset)


def _read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.setflags(write=False)
    return array


_PRODUCTS: set[Any] = {np.matmul, np.dot, np.inner, np.tensordot, np.einsum}


def turned_arguments(calls: list[Call]) -> set[int]:
    """Arguments of which one may be the transpose of the other where they are multiplied.

    NumPy makes the product of an array and its own transpose in another way than that of two arrays, with other bits:
    these arguments have to be taken where they lie.
    """
    found: set[int] = set()
    for call in calls:
        if call.f in _PRODUCTS:
            read = [view for view in call.reads() if view.storage.kind == "argument" and len(view.shape) > 1]
            for k, a in enumerate(read):
                for b in read[:k]:
                    if a.storage is not b.storage and a.dtype == b.dtype and _likeness(a) == _likeness(b):
                        found |= {a.storage.source, b.storage.source}
    return found


def _likeness(view: View) -> list[tuple[int, int]]:
    return sorted(zip(view.shape, view.strides))
