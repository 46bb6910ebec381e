"""The README and the docstrings say what is true: their programs run and print what they show."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import fnn

README = Path(__file__).parent.parent / "README.md"
MODULES = sorted(module.name for module in pkgutil.walk_packages(fnn.__path__, "fnn."))


def test_readme() -> None:
    """Everything behind `>>>` runs and prints what stands below it."""
    failures, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 10
    assert not failures


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    """The examples in docstrings do, too."""
    assert not doctest.testmod(importlib.import_module(name)).failed
