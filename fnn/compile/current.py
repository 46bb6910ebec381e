"""Which recorder, if any, notes what this thread does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_local = threading.local()


def current() -> Any:
    """The recorder of this thread, or `None`."""
    return getattr(_local, "recorder", None)


@contextmanager
def noting(recorder: Any) -> Iterator[None]:
    """Meanwhile `recorder` notes what this thread does; `None` notes nothing."""
    before, _local.recorder = current(), recorder
    try:
        yield
    finally:
        _local.recorder = before
