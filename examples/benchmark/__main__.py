"""Times fnn against whichever of PyTorch, JAX, thinc and scikit-learn are installed, on small networks.

W1 to W10 are training steps, W11a and W11b answers (to one input, and to a large batch), W12 a cold start. Each
contender has a process of its own, held to as many cores as it has threads; all begin with the same weights and take
the same batches. First they show that they compute the same losses, then they are timed in turns. `products` are the
matrix products of a step alone: the floor. A contender that computes other losses makes the program end with an error.

Run: python -m examples.benchmark [--workloads W1,W4] [--contenders fnn,torch] [--threads 1,2] [--save out]
"""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

from . import machine, report
from .cold import cold_starts
from .contenders import MODULES, installed
from .race import race
from .workloads import WORKLOADS

EVERYTHING = (*WORKLOADS, "W12")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=_names(EVERYTHING), default=EVERYTHING)
    parser.add_argument("--contenders", type=_names(MODULES), default=tuple(MODULES), help=", ".join(MODULES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a round of one contender")
    parser.add_argument("--save", type=Path, default=Path("out"), help="folder for tables and chart")
    args = parser.parse_args()

    contenders = [name for name in args.contenders if installed(name)]
    about, available = machine.describe(), len(machine.cores())
    print(" · ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    if absent := [name for name in args.contenders if name not in contenders]:
        print("not installed:", ", ".join(absent))
    results = []
    for threads in map(int, args.threads.split(",")):
        if threads > available:
            print(f"{threads} threads: there are {available} cores")
            continue
        for name in args.workloads:
            if work := WORKLOADS.get(name):
                results += race(work, contenders, threads=threads, rounds=args.rounds, seconds=args.seconds)
        print(f"\n{report.table(results, threads)}\n", flush=True)
    starts = cold_starts(contenders, args.rounds) if "W12" in args.workloads else []
    if starts:
        print(report.cold_table(starts), "\n")
    report.save(args.save, about, results, starts)
    print("saved:", ", ".join(str(path) for path in sorted(args.save.glob("benchmark.*"))))
    if failures := [f"{r.contender}, {r.workload}: {r.why}" for r in results if r.failed]:
        raise SystemExit("\n".join(["", *failures]))


def _names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """What reads a list of them."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return found

    return names


if __name__ == "__main__":
    main()
