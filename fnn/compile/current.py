"""Which recorder, if any, notes what this thread does."""

from __future__ import annotations

import threading
from typing import Any

_local = threading.local()


def current() -> Any:
    """The recorder of this thread, or `None`."""
    recorder = getattr(_local, "recorder", None)
    return recorder if recorder is not None and recorder.active else None


class noting:
    """Meanwhile `recorder` notes what this thread does; `None` notes nothing.

    A class, since a suspended generator, dropped late after an interrupt, would put back what is long over.
    """

    def __init__(self, recorder: Any) -> None:
        self.recorder = recorder

    def __enter__(self) -> None:
        self.before, _local.recorder = current(), self.recorder

    def __exit__(self, *error: object) -> None:
        _local.recorder = self.before
