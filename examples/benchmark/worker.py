"""One contender's process: answers each line of its input, `losses n` or `time n`, with one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter
from typing import Any

import numpy as np

from . import machine
from .contenders import Job, NotOffered, build
from .workloads import WORKLOADS


def main() -> None:
    contender, work, weights, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes where errors go
    machine.confine(int(threads))

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        with np.load(weights) as arrays:
            job = build(contender, WORKLOADS[work], dict(arrays), int(threads))
    except NotOffered as reason:
        return say(missing=str(reason))
    say(ready=True)
    for line in sys.stdin:
        command, n = line.split()
        say(**(losses(job, int(n)) if command == "losses" else _time(job, int(n))))


def losses(job: Job, n: int) -> dict[str, Any]:
    """The losses of the first n steps, or the means of the absolute answers."""
    step = job.start()
    return {"losses": [float(np.abs(step(i).tolist()).mean()) for i in range(n)]}


def _time(job: Job, n: int) -> dict[str, Any]:
    """Seconds per step, of n steps after a few that are not counted."""
    step = job.start()
    for i in range(max(2, n // 10)):
        step(i)
    begin = perf_counter()
    if job.many is not None:
        n = job.many(n)
    else:
        for i in range(n):
            step(i)
    return {"seconds": (perf_counter() - begin) / n}


if __name__ == "__main__":
    main()
