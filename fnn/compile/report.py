"""Plans as text, for people who want to see where the time goes."""

from __future__ import annotations

import statistics
from typing import Any

from fnn.compile.plan import MISS, Instance, Plan
from fnn.compile.program import Call, View
from fnn.compile.source import Elsewhere


def table(plan: Plan, profile: tuple[Any, ...] | None, rounds: int) -> str:
    """One line for each call of a plan, and the sums."""
    times = None if profile is None else _times(plan, profile, rounds)
    outs = [_size(call) for call in plan.calls]
    buffers = len({view.storage for call in plan.calls for view in call.outs if view.storage.kind == "scratch"})
    slots = 0 if plan.pool is None else plan.pool.layout.size
    head = f"{len(plan.calls)} calls, {buffers} arrays in {plan.arena:,} bytes of scratch, {slots:,} bytes carried on"
    if times is not None:
        head += f", {sum(times):,.1f} us"
    elif profile is not None:
        head += ", not for the arguments of the profile"
    lines = [head]
    for i, (call, (shape, size)) in enumerate(zip(plan.calls, outs)):
        time = "" if times is None else f"{times[i]:9.2f} us"
        lines.append(f"{i:5d}{time}  {call.name:<20} {shape:<24} {size:>12,}")
    return "\n".join(lines)


def _size(call: Call) -> tuple[str, int]:
    out: View | None = call.outs[0] if call.outs else None
    return ("", 0) if out is None else (f"{out.dtype}{list(out.shape)}", out.nbytes)


def _times(plan: Plan, args: tuple[Any, ...], rounds: int) -> list[float] | None:
    """The median time of each call in microseconds; `None` where the plan is not for these arguments."""
    instance, kept = Instance(plan, timed=True), list(plan.instances)
    found: list[list[float]] = []
    try:
        for _ in range(rounds + 1):
            plan.instances[:] = [instance]
            instance.times[:] = [0.0] * len(instance.times)
            if plan.entry(args) is MISS:
                return None
            found.append(list(instance.times))
    except Elsewhere:
        return None
    finally:
        plan.instances[:] = kept
    return [1e6 * statistics.median(column) for column in zip(*found[1:])]
