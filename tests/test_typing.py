"""The types: programs that `mypy --strict` accepts and mistakes that it rejects, each mistake in its line.

One run of mypy over `tests/typing/good.py`, `tests/typing/bad.py` and a generated file with a wrong layer in every
position of networks of every length.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest

import fnn
from tests.typing import good

ROOT = Path(__file__).parent.parent
GOOD, BAD = ROOT / "tests/typing/good.py", ROOT / "tests/typing/bad.py"

# --- what the files say ----------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """`# E: codes -> Error: text` behind a statement."""

    line: int
    codes: frozenset[str]
    error: str
    """The name of the error raised at run time; empty where none is promised."""
    text: str


def marks(path: Path) -> Iterator[Mark]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("# E:"):
            codes, _, promise = token.string.removeprefix("# E:").partition(" -> ")
            error, _, text = promise.partition(": ")
            yield Mark(token.start[0], frozenset(codes.replace(",", " ").split()), error, text)


MARKS = {mark.line: mark for mark in marks(BAD)}

# --- what mypy says --------------------------------------------------------------------------------------------------

Errors = dict[str, dict[int, frozenset[str]]]
"""The codes of the errors, by file name and line."""

PARTS = 12
WRONG = {"takes tokens": "Embedding(7, 3)", "not called": "Dense", "a loss": "mse", "a function": "np.tanh"}


def wrong_networks() -> str:
    """Networks of 1 to 12 layers with something wrong in every position, a line each."""
    lines = ["import numpy as np", "from fnn import Dense, Embedding, Tanh, mse, serial"]
    for wrong in WRONG.values():
        for length in range(1, PARTS + 1):
            for position in range(wrong.startswith("Embedding"), length):
                parts = ["Tanh"] * length
                parts[position] = wrong
                lines.append(f"serial({', '.join(parts)})")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Errors:
    """What `mypy --strict`, with the settings of the project, reports about all files together."""
    generated = tmp_path_factory.mktemp("typing") / "wrong_networks.py"
    generated.write_text(wrong_networks())
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "--show-error-codes", "--no-pretty"]
    command += ["--no-color-output", "--no-error-summary", "--show-absolute-path"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*command, str(GOOD), str(BAD), str(generated)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found: Errors = {}
    for line in ran.stdout.splitlines():
        at = re.fullmatch(r"(?P<file>.+?):(?P<line>\d+): (?P<kind>error|note): .*?(?:  \[(?P<code>[\w-]+)\])?", line)
        assert at, line
        if at["kind"] == "error":
            of_file = found.setdefault(Path(at["file"]).name, {})
            of_file[int(at["line"])] = of_file.get(int(at["line"]), frozenset()) | {at["code"] or "no code"}
    return found


# --- they agree ------------------------------------------------------------------------------------------------------


def test_good_programs_are_accepted(errors: Errors) -> None:
    assert errors.get("good.py", {}) == {}


def test_the_library_itself_is_accepted(errors: Errors) -> None:
    assert set(errors) <= {"good.py", "bad.py", "wrong_networks.py"}


def test_bad_programs_are_rejected_in_the_marked_lines(errors: Errors) -> None:
    source, found = BAD.read_text().splitlines(), errors["bad.py"]
    wrong = [
        f"line {line}: expected {sorted(MARKS[line].codes) if line in MARKS else 'nothing'}, "
        f"mypy reports {sorted(found.get(line, ())) or 'nothing'}: {source[line - 1]}"
        for line in sorted({*MARKS, *found})
        if line not in MARKS or found.get(line) != MARKS[line].codes
    ]
    assert not wrong, "\n".join(wrong)


def test_every_position_of_serial_is_checked(errors: Errors) -> None:
    """No overload accepts what the others refuse, however long the network."""
    lines = wrong_networks().splitlines()
    networks = {n for n, line in enumerate(lines, 1) if line.startswith("serial(")}
    assert len(networks) == PARTS * (PARTS + 1) // 2 * len(WRONG) - PARTS
    accepted = networks - set(errors["wrong_networks.py"])
    assert not accepted, "\n".join(lines[n - 1] for n in sorted(accepted))
    assert set(errors["wrong_networks.py"]) == networks


# --- the same at run time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", good.PROGRAMS, ids=lambda program: program.__name__)
def test_good_programs_run(program: good.Program, tmp_path: Path) -> None:
    program(tmp_path)


def test_no_good_program_is_forgotten() -> None:
    written = {name for name, thing in vars(good).items() if getattr(thing, "__annotations__", {}).get("folder")}
    assert written == {program.__name__ for program in good.PROGRAMS}


def compiled() -> tuple[CodeType, dict[int, CodeType]]:
    """`bad.py` without its mistakes, and every marked statement by its line."""
    module = ast.parse(BAD.read_text())
    correct = [statement for statement in module.body if statement.lineno not in MARKS]
    marked = {statement.lineno: statement for statement in module.body if statement.lineno in MARKS}
    assert {*marked} == {*MARKS}, "marks stand behind statements of one line"
    assert all(statement.lineno == statement.end_lineno for statement in marked.values())
    rest = compile(ast.Module(correct, []), str(BAD), "exec")
    return rest, {line: compile(ast.Module([statement], []), str(BAD), "exec") for line, statement in marked.items()}


CORRECT, MISTAKES = compiled()
PROMISED = [mark for mark in MARKS.values() if mark.error]


@pytest.mark.parametrize("mark", PROMISED, ids=lambda mark: f"line {mark.line}")
def test_mistakes_raise_clear_errors(mark: Mark) -> None:
    """What the type-checker would have found is an error at run time too, of the promised type and text."""
    namespace: dict[str, object] = {"__name__": "bad"}
    exec(CORRECT, namespace)
    with pytest.raises(Exception) as caught:
        exec(MISTAKES[mark.line], namespace)
    assert mark.error in {kind.__name__ for kind in type(caught.value).__mro__}, repr(caught.value)
    message = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert mark.text in message, message


# --- the library keeps its own promise -------------------------------------------------------------------------------

SOURCES = sorted(Path(fnn.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(Path(fnn.__file__).parent)))
def test_fnn_hides_nothing_from_the_type_checker(path: Path) -> None:
    """No `type: ignore`, no `cast`, no `no_type_check`."""
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.COMMENT
    ]
    assert not [comment for comment in comments if re.search(r"type:|mypy:|pyright:", comment)]
    hiding = {"cast", "no_type_check"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in ("typing", "typing_extensions"):
            assert not hiding & {name.name for name in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("typing", "t"):
            assert node.attr not in hiding


def test_the_project_excludes_only_the_mistakes() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True and settings["files"] == ["fnn", "tests", "examples"]
    assert settings["exclude"] == [r"^tests/typing/bad\.py$"]
    assert not settings.get("ignore_missing_imports") and "overrides" not in settings
