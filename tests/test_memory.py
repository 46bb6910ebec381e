"""Arrays that are made and freed again and again cost no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, numpy as np
{first}
def work():
    for _ in range(50):
        arrays = [np.ones(n) for n in (300_000, 200_000, 400_000, 300_000)]
        del arrays
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(first=first)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is known about is glibc")
def test_freed_memory_is_used_again() -> None:
    """9.6 MB, 50 times: at 4 KB a page up to 120,000 page faults, and next to none once the hint was given."""
    assert faults("import fnn") < 1000
