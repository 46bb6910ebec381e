"""Lets the contenders of a workload run in turns, each in a process of its own, all from the same weights: first they
show that they compute the same losses, then they are timed in rounds of random order.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from .contenders import FLOOR
from .contenders.fnn import initial
from .process import Process
from .workloads import Workload

STEPS = 5
TOLERANCE = 1e-3
"""How far a loss of the first `STEPS` steps may be from that of the first contender, relatively: float32 throughout."""

PAUSE = 0.03
"""Seconds before each round, in which the threads of the one before stop waiting for work."""


@attrs.frozen
class Result:
    """What one contender did on one workload."""

    workload: str
    title: str
    threads: int
    contender: str
    losses: tuple[float, ...] = ()
    difference: float = 0.0
    """The largest relative difference of its losses from those of the first contender."""
    times: tuple[float, ...] = ()
    """Microseconds a step, of each round."""
    median: float | None = None
    why: str = ""
    """Why there is none."""
    failed: bool = False


def race(
    work: Workload,
    contenders: Sequence[str],
    *,
    threads: int = 1,
    rounds: int = 9,
    seconds: float = 0.2,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """The results of all contenders, in their order; `seconds` is the length of a round of one."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        arrays: dict[str, Any] = {**initial(work)}
        np.savez(weights, **arrays)
        processes = [Process(contender, work, weights, threads) for contender in contenders]
        try:
            return _race(work, processes, threads, rounds, seconds, say)
        finally:
            for process in processes:
                process.close()


def _race(
    work: Workload, processes: list[Process], threads: int, rounds: int, seconds: float, say: Callable[[str], None]
) -> list[Result]:
    results = {p.contender: Result(work.name, work.title, threads, p.contender) for p in processes}

    def note(process: Process, **found: Any) -> None:
        results[process.contender] = attrs.evolve(results[process.contender], **found)

    def answers(process: Process, answer: dict[str, Any]) -> bool:
        """Whether it goes on; notes why if it does not."""
        if why := answer.get("missing") or answer.get("error"):
            note(process, why=why, failed="error" in answer)
        return not why

    ready = [process for process in processes if answers(process, process.read())]
    agreeing: list[Process] = []
    expected: list[float] = []
    for process in ready:
        answer = {"losses": []} if process.contender == FLOOR else process.ask("losses", STEPS)
        if answers(process, answer):
            losses = answer["losses"]
            expected = expected or losses
            difference = max((abs(a - b) / abs(b) for a, b in zip(losses, expected)), default=0.0)
            note(process, losses=tuple(losses), difference=difference)
            if difference <= TOLERANCE:
                agreeing.append(process)
            else:
                note(process, why=f"other losses: {losses} instead of {expected}", failed=True)
    largest = max(results[process.contender].difference for process in agreeing) if agreeing else 0.0
    names = ", ".join(process.contender for process in agreeing if process.contender != FLOOR)
    title = f"{work.name}, {threads} thread{'s' * (threads > 1)}"
    say(f"{title}: equal within {largest:.0e} (allowed: {TOLERANCE:.0e}): {names}")

    steps = {process: 2 for process in agreeing}
    for process in agreeing * 3:  # each time with a better idea of how many steps fill a round
        measured = process.ask("time", steps[process])
        if "seconds" in measured:
            steps[process] = max(2, min(20_000, round(seconds / measured["seconds"])))
    times: dict[Process, list[float]] = {process: [] for process in agreeing}
    for process in [p for _ in range(rounds) for p in random.sample(agreeing, len(agreeing))]:
        time.sleep(PAUSE)
        answer = process.ask("time", steps[process])
        if answers(process, answer):
            times[process].append(1e6 * answer["seconds"])
    for process in agreeing:
        if not results[process.contender].failed:
            note(process, times=tuple(times[process]), median=statistics.median(times[process]))
    return list(results.values())
