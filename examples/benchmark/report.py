"""What comes out: tables in Markdown, everything in JSON, and a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from .cold import Cold
from .contenders import FLOOR
from .race import STEPS, TOLERANCE, Result

Medians = dict[str, dict[str, float]]
"""Microseconds by workload and contender."""


def medians(results: Sequence[Result], threads: int) -> Medians:
    found: Medians = {}
    for r in results:
        if r.threads == threads and r.median is not None:
            found.setdefault(r.workload, {})[r.contender] = r.median
    return found


def fastest(row: Mapping[str, float], but: str = "") -> float | None:
    """The shortest time of a workload; the floor is not in the race, nor is who begins with `but`."""
    racing = [us for name, us in row.items() if name != FLOOR and not (but and name.startswith(but))]
    return min(racing, default=None)


def table(results: Sequence[Result], threads: int) -> str:
    """Microseconds a step, with the ratio to the fastest; what fnn needs of the others' best, and of PyTorch's time."""
    of_threads = [r for r in results if r.threads == threads]
    contenders = list(dict.fromkeys(r.contender for r in of_threads))
    head = ["work", *contenders, "fnn / best other", "fnn / torch", f"fnn / {FLOOR}"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    titles, found = {r.workload: r.title for r in of_threads}, medians(results, threads)
    for workload, title in titles.items():
        row = found.get(workload, {})
        best, fnn = fastest(row), row.get("fnn")
        cells = [f"{_number(row[c])} ({row[c] / best:.2f})" if c in row and best else "-" for c in contenders]
        others = (fastest(row, but="fnn"), row.get("torch"), row.get(FLOOR))
        cells += [f"{fnn / other:.2f}" if fnn and other else "-" for other in others]
        lines.append("| " + " | ".join([f"{workload} {title}", *cells]) + " |")
    return "\n".join(lines)


def _number(us: float) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"


def cold_table(starts: Sequence[Cold]) -> str:
    """Fresh processes, and what is on the disk."""
    lines = ["| | milliseconds | / fnn | installed, MB |", "| --- | --- | --- | --- |"]
    own = next((cold.milliseconds for cold in starts if cold.contender == "fnn"), None)
    for cold in starts:
        ratio = f"{cold.milliseconds / own:.1f}" if own else "-"
        lines.append(f"| {cold.contender} | {cold.milliseconds:,.0f} | {ratio} | {cold.megabytes:,.0f} |")
    return "\n".join(lines)


def text(machine: Mapping[str, str], results: Sequence[Result], starts: Sequence[Cold]) -> str:
    """All tables, with the machine, and who is missing where and why."""
    parts = ["# Benchmark", " · ".join(f"{name} {value}" for name, value in machine.items())]
    parts.append(f"The losses of the first {STEPS} steps differ by less than {TOLERANCE:.0e}, relatively.")
    for threads in sorted({r.threads for r in results}):
        parts += [f"## {threads} thread{'s' * (threads > 1)}: median microseconds (ratio to the fastest)"]
        parts += [table(results, threads)]
    if starts:
        parts += ["## W12: a fresh process that imports and makes one step of W1", cold_table(starts)]
    if reasons := sorted({f"- {r.contender}, {r.workload}: {r.why}" for r in results if r.why}):
        parts += ["## Not measured", "\n".join(reasons)]
    return "\n\n".join(parts) + "\n"


def save(folder: Path, machine: Mapping[str, str], results: Sequence[Result], starts: Sequence[Cold]) -> None:
    """benchmark.md, benchmark.json and, with matplotlib, benchmark.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.md").write_text(text(machine, results, starts))
    everything = {"machine": machine, "results": [*map(attrs.asdict, results)], "cold": [*map(attrs.asdict, starts)]}
    (folder / "benchmark.json").write_text(json.dumps(everything, indent=1))
    if any(r.median for r in results):
        draw(folder / "benchmark.png", results)


def draw(path: Path, results: Sequence[Result]) -> None:
    """For each number of threads, how many times longer than the fastest each contender takes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    counts = sorted({r.threads for r in results})
    contenders = list(dict.fromkeys(r.contender for r in results))
    figure, panels = plt.subplots(len(counts), 1, figsize=(12, 4 * len(counts)), squeeze=False, layout="constrained")
    for panel, threads in zip(panels.flat, counts):
        found: Any = medians(results, threads)
        for i, contender in enumerate(contenders):
            at = [(k, row[contender] / fastest(row)) for k, row in enumerate(found.values()) if contender in row]
            places = [k + (i / len(contenders) - 0.5) * 0.6 for k, _ in at]
            look = {"marker": "_", "color": "0.4"} if contender == FLOOR else {"color": f"C{i}"}
            look |= {"marker": "D"} if contender == "fnn" else {}
            panel.scatter(places, [ratio for _, ratio in at], s=60, label=contender, **look)
        panel.axhline(1, color="0.3", linewidth=0.8)
        panel.grid(axis="y", alpha=0.3)
        panel.set(yscale="log", ylabel="time, fastest = 1", title=f"{threads} thread{'s' * (threads > 1)}")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set_xticks(range(len(found)), list(found))
    panels[0][0].legend(ncols=len(contenders), fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
