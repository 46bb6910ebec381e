"""The benchmark compares like with like: every contender computes the same, and who does not is told; tables add up."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples" / "benchmark").rglob("*.py"))


def module(name: str) -> Any:
    return importlib.import_module(f"examples.benchmark.{name}")


WORKLOADS, CONTENDERS = module("workloads").WORKLOADS, module("contenders")
OURS = ("fnn_plain", "fnn_threads", "products")
WHERE = {name: library for name, library in CONTENDERS.MODULES.items() if name not in OURS}


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    arguments = ["--workloads", "W1,W4,W11a", "--contenders", "fnn,fnn_plain,products", "--threads", "1"]
    short = ["--rounds", "2", "--seconds", "0.01", "--save", str(tmp_path / "new")]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    line = [sys.executable, "-m", "examples.benchmark", *arguments, *short]
    done = subprocess.run(line, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "new" / "benchmark.json").read_text())
    assert found["machine"]["CPU"] and found["machine"]["numpy"]
    by_name = {(r["workload"], r["contender"]): r for r in found["results"]}
    assert len(by_name) == 9
    for (work, contender), result in by_name.items():
        assert len(result["times"]) == 2 and result["median"] > 0 and not result["failed"]
        assert result["losses"] == (by_name[work, "fnn"]["losses"] if contender != "products" else [])
    rows = [row for row in (tmp_path / "new" / "benchmark.md").read_text().splitlines() if row.startswith("| W")]
    assert [row.split()[1] for row in rows] == ["W1", "W4", "W11a"]
    assert all(row.count(" | ") == 6 for row in rows) and rows[0] in done.stdout
    assert (tmp_path / "new" / "benchmark.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_cold_start_is_measured() -> None:
    (start,) = module("cold").cold_starts(["fnn"], 1)
    assert start.contender == "fnn" and start.milliseconds > 0 and start.megabytes > 10


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_offered(name: str) -> None:
    """The loss of the first step is a number, and all its products can be made."""
    work = WORKLOADS[name]
    weights = module("contenders.fnn").initial(work)
    assert math.isfinite(losses("fnn", work, weights, 1)[0])
    CONTENDERS.build("products", work, weights, 1).start()(0)


@pytest.mark.parametrize("name", ["W1", "W11a"])
def test_fnn_replays_and_fnn_plain_does_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Any] = []

    def compiled(function: Any) -> Any:
        replayed.append(function)
        return function

    monkeypatch.setattr("fnn.compiled", compiled, raising=False)
    weights = module("contenders.fnn").initial(WORKLOADS[name])
    for contender, times in (("fnn_plain", 0), ("fnn", 1)):
        CONTENDERS.build(contender, WORKLOADS[name], weights, 1)
        assert len(replayed) == times


@pytest.mark.parametrize("name", [name for name, work in WORKLOADS.items() if work.network == "mlp"])
@pytest.mark.parametrize("contender", [c for c in WHERE if c not in ("fnn", "torch_compile")])
def test_other_libraries_compute_the_same(contender: str, name: str) -> None:
    pytest.importorskip(WHERE[contender])
    work = WORKLOADS[name]
    weights = module("contenders.fnn").initial(work)
    try:
        found = losses(contender, work, weights, 3)
    except CONTENDERS.NotOffered as reason:
        pytest.skip(str(reason))
    assert found == pytest.approx(losses("fnn", work, weights, 3), rel=module("race").TOLERANCE)


def losses(contender: str, work: Any, weights: Any, steps: int) -> Any:
    return module("worker").losses(CONTENDERS.build(contender, work, weights, 1), steps)["losses"]


class Actor:
    """Stands in for a process: its losses, microseconds and ends are those written here."""

    LOSSES = {"fnn": [2.0, 1.0], "torch": [2.0, 1.0005], "jax": [2.0, 1.1]}
    MICROSECONDS = {"fnn": 30.0, "torch": 60.0, "jax": 1.0, "products": 10.0}

    def __init__(self, contender: str, *arguments: Any) -> None:
        self.contender = contender

    def read(self) -> dict[str, Any]:
        ends: dict[str, dict[str, Any]] = {"thinc": {"missing": "no such layer"}, "sklearn": {"error": "it died"}}
        return ends.get(self.contender, {"ready": True})

    def ask(self, command: str, n: int) -> dict[str, Any]:
        if command == "losses":
            return {"losses": self.LOSSES[self.contender]}
        return {"seconds": 1e-6 * self.MICROSECONDS[self.contender]}

    def close(self) -> None:
        pass


def test_other_losses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who computes something else is not timed, however fast; so is who lacks something, but that is no failure."""
    monkeypatch.setattr(module("race"), "Process", Actor)
    monkeypatch.setattr(module("race"), "PAUSE", 0)
    said: list[str] = []
    contenders = ("fnn", "torch", "jax", "thinc", "sklearn", "products")
    results = module("race").race(WORKLOADS["W1"], contenders, rounds=2, say=said.append)
    assert [r.contender for r in results] == list(contenders)
    assert [r.median for r in results] == pytest.approx([30.0, 60.0, None, None, None, 10.0])
    assert [r.failed for r in results] == [False, False, True, False, True, False]
    assert "equal within 5e-04" in said[0] and "jax" not in said[0]
    report = module("report")
    row = report.table(results, 1).splitlines()[-1]
    assert row == "| W1 1-25-1, batch 90 | 30 (1.00) | 60 (2.00) | - | - | - | 10 (0.33) | 0.50 | 0.50 | 3.00 |"
    text = report.text({"CPU": "some"}, results, [module("cold").Cold("fnn", 100.0, 50.0)])
    assert "- jax, W1: other losses" in text and "- sklearn, W1: it died" in text and "| fnn | 100 | 1.0 | 50 |" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 120
