"""The machine: what it is, and which of its CPUs a process may use. Host names are left out."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The folder from which `examples` and `fnn` are imported."""

PACKAGES = ("fnn", "numpy", "torch", "jax", "jaxlib", "thinc", "scikit-learn")


def describe() -> dict[str, str]:
    """CPU model, cores, system, and versions."""
    found = {
        "CPU": _model(),
        "cores": f"{len(cores())} of {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> list[int]:
    """One CPU of each core that this process may use, where the system says; else all of them."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    first: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    return list(first.values())


def settings(threads: int) -> dict[str, str]:
    """Environment variables that hold BLAS, OpenMP and XLA to so many threads; they count before the imports."""
    names = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "VECLIB_MAXIMUM")
    found = {f"{name}_NUM_THREADS": str(threads) for name in names} | {"JAX_PLATFORMS": "cpu"}
    if threads == 1:
        found["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return found


def confine(threads: int) -> None:
    """Keeps this process on as many cores as it has threads, which XLA goes by; where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[-threads:])
