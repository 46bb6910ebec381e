"""The fixture that compares and counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.reference.comparison import Compared


@pytest.fixture
def compared(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Compared:
    """Compares arrays; its counts are summed up at the end of the run, under the `REFERENCE` of the module."""
    found = Compared()
    record_property(f"compared with {getattr(request.module, 'REFERENCE', 'PyTorch')}", found.counts)
    return found
