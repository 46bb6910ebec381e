"""Settings of the test run: seeded random cases, slow sweeps only on demand, what the tests measured in the summary."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("fnn", derandomize=True, database=None, deadline=None, max_examples=25)
settings.load_profile("fnn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `-m`, the tests marked slow stay out."""
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The largest derivative error of all conformance cases, and whose it is; how much agreed with PyTorch."""
    reports = terminalreporter.getreports("passed")
    found = [(error, r.nodeid) for r in reports for name, error in r.user_properties if name == "derivative error"]
    if found:
        error, where = max(found)
        terminalreporter.write_line(f"largest derivative error of {len(found)} layers: {error:.1e} ({where})")
    compared = [(name, counts) for r in reports for name, counts in r.user_properties if name[:8] == "compared"]
    for reference in sorted({name for name, _ in compared}):
        cases = [counts for name, counts in compared if name == reference]
        kinds: Counter[str] = Counter()
        for counts in cases:
            kinds.update(counts)
        parts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        terminalreporter.write_line(f"{reference}: {len(cases):,} cases ({parts})")
