"""`Compiled`: a pure function, recorded once for each form of its arguments, and replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from fnn.compile import functions
from fnn.compile.current import current
from fnn.compile.plan import MISS, Plan
from fnn.compile.program import NotRecordable
from fnn.compile.recorder import Recorder, recording
from fnn.compile.report import table
from fnn.compile.results import real_result, results
from fnn.compile.slots import Pool
from fnn.compile.source import Elsewhere, Unexpected
from fnn.compile.structure import (
    ArrayLeaf,
    Static,
    ValueLeaf,
    field_names,
    flatten,
    is_record,
    leaf_signatures,
    unflatten,
)
from fnn.random import Key

P = ParamSpec("P")
R = TypeVar("R")

PLANS = 8
"""Forms of arguments that can have a plan; others run as they are."""

WAYS = 4
"""Plans for arguments of one form, for different ways of branches on numbers such as the number of the step."""

SEEN = 256
"""Forms that are remembered until they come again."""


class Compiled(Generic[P, R]):
    """What `compiled` gives: a function with the arguments and the results of `f`, and what it knows of its plans."""

    def __init__(self, f: Callable[P, R], report: Callable[[str], None] | None = None, after: int = 0) -> None:
        self.function: Callable[..., R] = f
        self._report = report
        self._after = after
        self._seen: dict[Any, int] = {}
        self._named: dict[tuple[str, ...], Compiled[..., R]] = {}
        self._plans: dict[Any, list[Plan]] = {}
        self._refused: set[Any] = set()
        self._pools: dict[Any, Pool] = {}
        self._recent: Callable[[tuple[Any, ...]], Any] = _miss
        self._lock = threading.Lock()
        self._reasons: list[str] = []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs:
            return self._by_name(args, kwargs)
        ended = ""
        try:
            result = self._recent(args)
        except Elsewhere:
            result = MISS
        except Exception as error:
            ended = _ended(error)
        if ended:  # outside the handler: what the function itself raises is then all that is told
            return self._as_it_is(args, ended)
        return result if result is not MISS else self._other(args)

    def __reduce__(self) -> Any:
        """Pickled and copied, it has the function and makes its plans anew."""
        return Compiled, (self.function, self._report, self._after)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why some arguments, or all, are not replayed; empty where all are."""
        return (*self._reasons, *(reason for named in [*self._named.values()] for reason in named.reasons))

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans made so far."""
        own = [plan for ways in [*self._plans.values()] for plan in ways]
        return (*own, *(plan for named in [*self._named.values()] for plan in named.plans))

    def plan_of(self, *args: Any) -> Plan | None:
        """The plan made last for arguments of this form, if there is one."""
        try:
            ways = self._plans.get(tuple([flatten(arg, [], {}) for arg in args]))
        except NotRecordable:
            return None
        return ways[-1] if ways else None

    def explain(self, *, profile: tuple[Any, ...] | None = None, rounds: int = 20) -> str:
        """The plans as text: every call with the size of its result, and buffers and bytes in all.

        profile: arguments to run a plan with, which adds the median time of each call in microseconds.
        """
        found = [table(plan, profile, rounds) for plan in self.plans]
        found += [f"not replayed: {reason}" for reason in self.reasons]
        return "\n\n".join(found) if found else "no plan yet: call the function first"

    # --- the slow ways -----------------------------------------------------------------------------------------------

    def _as_it_is(self, args: Any, ended: str) -> R:
        """Runs the function itself, where a replay ended early: it says better what is wrong, if it is."""
        result = self.function(*args)
        self._note(ended)
        return result

    def _by_name(self, args: Any, kwargs: dict[str, Any]) -> R:
        """A call with named arguments, as one of a function that takes them last."""
        names = tuple(kwargs)
        if names not in self._named:
            if len(self._named) >= PLANS:
                self._note(f"more than {PLANS} sets of named arguments")
                return self.function(*args, **kwargs)
            self._named[names] = Compiled(_Named(self.function, names), self._report, self._after)
        return self._named[names](*args, *kwargs.values())

    def _note(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
            if self._report is not None:
                self._report(reason)

    def _other(self, args: Any) -> R:
        """Arguments of another form than those before, or for which a branch on a number goes another way."""
        if current() is not None:
            return self.function(*args)  # a part of what is recorded
        for plan in [plan for ways in [*self._plans.values()] for plan in ways]:
            ended = ""
            try:
                result = plan.entry(args)  # one that does not fit says so soon
            except Elsewhere:
                continue
            except Exception as error:
                ended = _ended(error)
            if ended:
                return self._as_it_is(args, ended)
            if result is not MISS:
                self._recent = plan.entry
                given: R = result
                return given
        leaves: list[Any] = []
        seen: dict[int, int] = {}
        try:
            signatures = tuple([flatten(arg, leaves, seen) for arg in args])
        except NotRecordable as reason:
            self._note(str(reason))
            return self.function(*args)
        return self._recorded(signatures, leaves, args) if self._is_wanted(signatures) else self.function(*args)

    def _is_wanted(self, signatures: tuple[Any, ...]) -> bool:
        """Whether a plan is to be made for arguments of these signatures; says why not, where that lasts."""
        ways = self._plans.get(signatures)
        if ways is not None:
            if signatures not in self._refused and len(ways) >= WAYS:
                self._note(f"branches on numbers go more than {WAYS} ways")
            return signatures not in self._refused and len(ways) < WAYS
        if not signatures or len(self._plans) >= PLANS:
            self._note(f"more than {PLANS} forms of arguments" if signatures else "no arguments")
            return False
        times = self._seen[signatures] = self._seen.get(signatures, 0) + 1
        if times <= self._after and len(self._seen) > SEEN:
            self._seen.clear()
            self._note(f"{SEEN} forms of arguments, hardly any of which came again")
        return times > self._after

    def _recorded(self, signatures: tuple[Any, ...], leaves: list[Any], args: Any) -> R:
        """One real run that is recorded; without a plan, if it cannot be."""
        known = len(self._plans.get(signatures, ()))
        reason = ""
        with self._lock:
            if len(self._plans.get(signatures, ())) > known:
                return self.function(*args)  # another thread has just recorded it
            try:
                plan, result = record(self.function, signatures, leaves, self._pools)
            except Exception as error:
                reason = reason_of(error)
        again = self.function(*args)  # raises, if the function itself does
        if reason or not _is_same(result, again):
            self._plans.setdefault(signatures, [])
            self._refused.add(signatures)
            self._note(reason or "the same call, made again, gives something else: a draw without a key, a counter?")
            return again
        self._plans.setdefault(signatures, []).append(plan)
        self._recent = plan.entry
        given: R = result
        return given


class _Named:
    """A function whose last arguments are given to another by name."""

    def __init__(self, f: Callable[..., Any], names: tuple[str, ...]) -> None:
        self.f, self.names = f, names

    def __call__(self, *args: Any) -> Any:
        n = len(args) - len(self.names)
        return self.f(*args[:n], **dict(zip(self.names, args[n:])))


def record(
    f: Callable[..., Any], signatures: tuple[Any, ...], leaves: list[Any], pools: dict[Any, Pool]
) -> tuple[Plan, Any]:
    """The plan of a function for arguments of these signatures, and the result of the run that was recorded."""
    recorder = Recorder(functions.call)
    try:
        arguments, value, form = _noted(recorder, f, signatures, leaves)
        result = real_result(form, value, leaves)
        return Plan(recorder, signatures, arguments, form, pools), result
    finally:
        recorder.forget()


def _noted(
    recorder: Recorder, f: Callable[..., Any], signatures: tuple[Any, ...], leaves: list[Any]
) -> tuple[list[Any], Any, Any]:
    """One run of the function: what stood for its arguments, its result, and the form of that."""
    described = [leaf for signature in signatures for leaf in leaf_signatures(signature)]
    fixed = {id(static.value) for signature in signatures for static in _statics(signature)}
    try:
        with recording(recorder):
            arguments: list[Any] = []
            for i, (leaf, signature) in enumerate(zip(leaves, described)):
                if isinstance(signature, ArrayLeaf):
                    arguments.append(recorder.argument(leaf, i) if signature.same < 0 else arguments[signature.same])
                else:
                    arguments.append(recorder.key(leaf) if isinstance(leaf, Key) else recorder.number(leaf))
            stream = iter(arguments)
            value = f(*[unflatten(signature, stream) for signature in signatures])
            return arguments, value, results(value, arguments, fixed)
    finally:
        recorder.active = False  # here, too: an interrupt may come while the recording is left


def _is_same(a: Any, b: Any) -> bool:
    """Whether two results have the same bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, np.generic)):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(_is_same, a.values(), b.values()))
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if is_record(a):
        return all(_is_same(getattr(a, name), getattr(b, name)) for name in field_names(type(a)))
    return a is b or bool(a == b) or bool(a != a and b != b)


def _statics(signature: Any) -> list[Static]:
    if isinstance(signature, Static):
        return [signature]
    if isinstance(signature, (ArrayLeaf, ValueLeaf)):
        return []
    return [static for child in signature.children for static in _statics(child)]


def _miss(args: tuple[Any, ...]) -> Any:
    return MISS


def _ended(error: Exception) -> str:
    """Why a replay ended early, in one line."""
    if isinstance(error, Unexpected):
        return "a condition that held in the recording does not"
    return f"a replay ended in {type(error).__name__}: {error}"


def reason_of(error: Exception) -> str:
    """One line: what could not be recorded, and where."""
    what = str(error) if isinstance(error, NotRecordable) else f"{type(error).__name__}: {error}"
    where = [note.removeprefix("in ") for note in getattr(error, "__notes__", ()) if note.startswith("in ")]
    return f"{where[0]}: {what}" if where else what.splitlines()[0] if what else type(error).__name__
