"""Progress on the terminal: what `train(..., report=progress())` prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from fnn.history import Row


def progress(
    epochs: float | None = None,
    *,
    seconds: float = 0.2,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Row], None]:
    """A report for `train`: one line that is rewritten on a terminal, and a line now and then elsewhere.

    A terminal is updated every `seconds`, another file every fifty times `seconds`. Where `epochs` is the number of all
    epochs, the last row is always shown. Lines go to `file`, by default the standard error.
    """
    out = sys.stderr if file is None else file
    terminal = out.isatty()
    due = clock()

    def report(row: Row) -> None:
        nonlocal due
        last = epochs is not None and row.epoch >= epochs
        if not last and clock() < due:
            return
        due = clock() + (seconds if terminal else 50 * seconds)
        end = "" if terminal and not last else "\n"
        out.write(f"\r{line(row, epochs):<78}{end}" if terminal else f"{line(row, epochs)}{end}")
        out.flush()

    return report


def line(row: Row, epochs: float | None = None) -> str:
    """The row in one line: `epoch 3/10  loss 0.1234  lr 0.001  eval loss 0.1456  accuracy 0.9700  1.2 s`."""
    of = "" if epochs is None else f"/{epochs:g}"
    rate = "" if row.learning_rate is None else f"  lr {row.learning_rate:.3g}"
    values = "".join(f"  {'eval loss' if k == 'loss' else k} {v:.4g}" for k, v in row.evaluation.items())
    return f"epoch {row.epoch:.4g}{of}  loss {row.loss:.4g}{rate}{values}  {row.seconds:.1f} s"
