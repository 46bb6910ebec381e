"""The driver's end of a contender's process; `worker` is the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .machine import ROOT, settings
from .workloads import Workload


class Process:
    """A contender at work."""

    def __init__(self, contender: str, work: Workload, weights: Path, threads: int) -> None:
        self.contender = contender
        self.errors = tempfile.TemporaryFile("w+")
        line = [sys.executable, "-m", f"{__package__}.worker", contender, work.name, str(weights), str(threads)]
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        environment = {**os.environ, **settings(threads), "PYTHONPATH": path}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(line, env=environment, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)

    def read(self) -> dict[str, Any]:
        """Its next answer; `{"error": ...}` if it has died."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.errors.seek(0)
        return {"error": (self.errors.read().strip().splitlines() or ["it ended"])[-1]}

    def ask(self, command: str, n: int) -> dict[str, Any]:
        assert self.process.stdin
        try:
            print(command, n, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        return self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()
