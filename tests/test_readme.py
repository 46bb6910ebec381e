"""The README and the docstrings say what is true: their programs run and print what they show."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fnn

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = README.parent / "examples"
MODULES = sorted(module.name for module in pkgutil.walk_packages(fnn.__path__, "fnn."))


def test_readme() -> None:
    """Everything behind `>>>` runs and prints what stands below it."""
    failures, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 10
    assert not failures


def test_what_there_is() -> None:
    """The README names nothing that there is not."""
    table = README.read_text().split("## What there is")[1].split("## Examples")[0]
    names = set(re.findall(r"`(\w+)`", table))
    assert len(names) > 120
    assert names <= set(fnn.__all__)


def test_index_of_examples() -> None:
    """The README lists every example."""
    index = README.read_text().split("## Examples")[1].split("## What it is not")[0]
    assert re.findall(r"`(\w+\.py)`", index) == sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    """The examples in docstrings do, too."""
    assert not doctest.testmod(importlib.import_module(name)).failed
