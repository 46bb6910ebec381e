"""The types: programs that `mypy --strict` accepts and mistakes that it rejects, each mistake in its line.

One run of mypy over `tests/typing/good.py`, `tests/typing/bad.py` and a generated file with a wrong layer in every
position of networks of every length.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import pytest

import fnn
from tests.typing import good

if np.lib.NumpyVersion(np.__version__) < "2.4.0":
    pytest.skip("the types of older versions of NumPy say less", allow_module_level=True)

ROOT = Path(__file__).parent.parent
GOOD, BAD = ROOT / "tests/typing/good.py", ROOT / "tests/typing/bad.py"

# --- what the files say ----------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """`# E: codes -> Error: text` behind a statement."""

    line: int
    codes: tuple[frozenset[str], ...]
    """The codes of the errors; one that depends on the version of mypy is written `call-arg|misc`."""
    error: str
    """The name of the error raised at run time; empty where none is promised."""
    text: str


def marks(path: Path) -> Iterator[Mark]:
    for token in tokenize.generate_tokens(StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("# E:"):
            codes, _, promise = token.string.removeprefix("# E:").partition(" -> ")
            error, _, text = promise.partition(": ")
            wanted = (frozenset(code.strip().split("|")) for code in codes.split(","))
            yield Mark(token.start[0], tuple(wanted), error, text)


def agree(wanted: tuple[frozenset[str], ...], found: frozenset[str]) -> bool:
    return all(codes & found for codes in wanted) and found <= frozenset().union(*wanted)


MARKS = {mark.line: mark for mark in marks(BAD)}

# --- what mypy says --------------------------------------------------------------------------------------------------

Errors = dict[str, dict[int, frozenset[str]]]
"""The codes of the errors, by file name and line."""

MESSAGE = r"(?P<file>.+?):(?P<line>\d+): (?P<kind>error|note): (?P<text>.*?)(?:  \[(?P<code>[\w-]+)\])?"
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


class Report(NamedTuple):
    errors: Errors
    revealed: dict[str, str]
    """The type of every public name."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Report:
    """What `mypy --strict`, with the settings of the project, reports about all files together."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "wrong_networks.py").write_text(wrong_networks())
    (folder / "public.py").write_text("import fnn\n" + "".join(f"reveal_type(fnn.{name})\n" for name in fnn.__all__))
    files = [GOOD, BAD, folder / "wrong_networks.py", folder / "public.py"]
    cache = folder / "cache" if pytestconfig.cache is None else pytestconfig.cache.mkdir("mypy")
    options = ["--strict", f"--cache-dir={cache}", "--no-pretty", "--no-error-summary"]
    ran = subprocess.run([sys.executable, "-m", "mypy", *options, *files], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found: Errors = {}
    revealed: dict[str, str] = {}
    for line in ran.stdout.splitlines():
        at = re.fullmatch(MESSAGE, line)
        assert at, line
        if at["kind"] == "error":
            of_file = found.setdefault(Path(at["file"]).name, {})
            of_file[int(at["line"])] = of_file.get(int(at["line"]), frozenset()) | {at["code"] or "no code"}
        elif at["text"].startswith("Revealed type is "):
            revealed[fnn.__all__[int(at["line"]) - 2]] = at["text"].removeprefix("Revealed type is ").strip('"')
    return Report(found, revealed)


@pytest.fixture(scope="module")
def errors(report: Report) -> Errors:
    return report.errors


# --- they agree ------------------------------------------------------------------------------------------------------


def test_good_programs_are_accepted(errors: Errors) -> None:
    assert errors.get("good.py", {}) == {}


def test_the_library_itself_is_accepted(errors: Errors) -> None:
    assert set(errors) <= {"good.py", "bad.py", "wrong_networks.py"}


def test_bad_programs_are_rejected_in_the_marked_lines(errors: Errors) -> None:
    source, found = BAD.read_text().splitlines(), errors["bad.py"]
    wrong = [
        f"line {line}: mypy reports {', '.join(sorted(found.get(line, ()))) or 'nothing'} for {source[line - 1]}"
        for line in sorted({*MARKS, *found})
        if not agree(MARKS[line].codes if line in MARKS else (), found.get(line, frozenset()))
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


def given(text: str) -> Iterator[str]:
    """`Array` and `Ints` of every `Layer[Array, Ints]` that the revealed type is, or that a call of it gives."""
    for start in re.finditer(r"(?:^|-> )fnn\.contract\.(?:Layer|Loss)\[", text):
        depth, begin = 1, start.end()
        for i in range(start.end(), len(text)):
            depth += (text[i] in "[(") - (text[i] in "])")
            if depth == 0 or depth == 1 and text[i] == ",":
                yield text[begin:i].strip()
                begin = i + 1
            if depth == 0:
                break


def test_no_public_layer_leaks_any(report: Report) -> None:
    """Layers and losses say what they take and give: none has `Any` in the place of a type.

    But for `Identity`, which takes integers and tuples, too: a value cannot be generic.
    """
    assert {*report.revealed} == {*fnn.__all__}
    types = {name: [*given(text)] for name, text in report.revealed.items()}
    assert all(types[name] for name in ("Dense", "Sigmoid", "Embedding", "Identity", "serial", "named", "mse", "layer"))
    assert [name for name, parts in types.items() if "Any" in parts] == ["Identity"]


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
        for token in tokenize.generate_tokens(StringIO(path.read_text()).readline)
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


# --- the stubs tell the truth ----------------------------------------------------------------------------------------

STUBBED = [
    (".".join(path.relative_to(ROOT / "typings").with_suffix("").parts), node)
    for path in sorted((ROOT / "typings").rglob("*.pyi"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
]


@pytest.mark.parametrize("module, stub", STUBBED, ids=[f"{module}.{stub.name}" for module, stub in STUBBED])
def test_stubs_describe_functions_that_exist(module: str, stub: ast.FunctionDef) -> None:
    """Every argument of a stub is an argument of the real function, positional ones in the same place."""
    real = list(inspect.signature(getattr(pytest.importorskip(module), stub.name)).parameters)
    positional = [argument.arg for argument in stub.args.args]
    assert real[: len(positional)] == positional
    assert {argument.arg for argument in stub.args.kwonlyargs} <= set(real)


def test_stubs_tell_what_the_functions_give() -> None:
    datasets, io = pytest.importorskip("sklearn.datasets"), pytest.importorskip("scipy.io")
    optimize = pytest.importorskip("scipy.optimize")
    for load, kinds in (
        (partial(datasets.load_digits, return_X_y=True), (np.float64, np.int64)),
        (partial(datasets.load_diabetes, return_X_y=True), (np.float64, np.float64)),
        (partial(datasets.make_moons, 8, noise=0.1, random_state=0), (np.float64, np.int64)),
    ):
        assert tuple(part.dtype.type for part in load()) == kinds
    file = BytesIO()
    io.savemat(file, {"x": np.arange(3.0)})
    assert type(io.loadmat(file)) is dict
    found: Any = optimize.minimize(lambda x: (float(x @ x), 2 * x), np.ones(2, np.float32), jac=True, method="L-BFGS-B")
    assert found.x.dtype == np.float64 and issubclass(type(found), dict)
    assert isinstance(found.message, str) and isinstance(found.nit, int) and isinstance(found.nfev, int)
    assert float(found.fun) == found.fun and bool(found.success) is True
