"""How the package is put together: which way imports point, what `import fnn` loads, what is public, what is where."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fnn
from fnn.contract import Layer

ROOT = Path(__file__).parent.parent
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted((ROOT / "fnn").rglob("*.py"))}
SOURCES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

LEVELS: tuple[tuple[str, ...], ...] = (
    ("types", "tree", "random", "recordable"),
    ("initializers", "check"),
    ("contract",),
    ("layers", "combinators", "recurrence"),
    ("losses", "schedules", "optimizers", "metrics", "data", "checkpoint", "testing"),
    ("history", "diagnosis", "reporting", "compile", "threads", "preconditions", "training"),
)
"""A module imports from its own level and those above it in this table. What is not listed may import everything."""


OPTIONAL = {"fnn.threads": ("threadpoolctl",)}
"""What modules of the core use where it is installed, and do without where it is not."""


def level(module: str) -> int:
    """The position of a module in the table."""
    stem = module.split(".")[1] if "." in module else ""
    return next((i for i, names in enumerate(LEVELS) if stem in names), len(LEVELS))


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text())


def imported(module: str, node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names: those of fnn in full, of others the first part."""
    names: list[str] = []
    if isinstance(node, ast.ImportFrom):
        assert not node.level, f"{module} imports relatively"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    for name in names:
        if name.split(".")[0] != "fnn":
            yield name.split(".")[0]
        else:
            yield name if name in SOURCES else name.rpartition(".")[0]


def imports(module: str) -> set[str]:
    """All that a module imports, wherever it does."""
    return {name for node in ast.walk(parsed(module)) for name in imported(module, node)}


def imports_at_once(module: str) -> set[str]:
    """What a module imports when it is imported itself."""
    todo: list[ast.AST] = list(parsed(module).body)
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        found.update(imported(module, node))
        todo += ast.iter_child_nodes(node)
    return found


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "fnn"])
def test_imports_point_one_way(module: str) -> None:
    for other in imports(module):
        if other.startswith("fnn"):
            assert other in SOURCES, f"{module} imports {other}, which is no module"
            assert other != "fnn" or level(module) == len(LEVELS), f"{module} imports the package that imports it"
            assert level(other) <= level(module), f"{module} imports {other}, which stands below it"


def test_imports_make_no_circle() -> None:
    graph = {m: {i for i in imports(m) if i in SOURCES and i not in ("fnn", m)} for m in SOURCES}
    for package in [m for m in SOURCES if FILES.get(f"{m}.__init__")]:
        for module in graph:
            if module.startswith(f"{package}."):
                graph[module].discard(package)
    assert len(list(TopologicalSorter(graph).static_order())) >= len(SOURCES)


def test_the_table_names_modules_that_exist() -> None:
    listed = [name for names in LEVELS for name in names]
    assert len(listed) == len(set(listed)) and {f"fnn.{name}" for name in listed} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_other_packages_are_imported_where_they_are_used(module: str) -> None:
    """At import, only the standard library, numpy and attrs; the core never more than these."""
    others = {name for name in imports_at_once(module) if name.split(".")[0] != "fnn"}
    assert others <= {*sys.stdlib_module_names, "numpy", "attrs"}
    if level(module) < len(LEVELS):
        allowed = {*sys.stdlib_module_names, "numpy", "attrs", "fnn", *OPTIONAL.get(module, ())}
        assert imports(module) - set(SOURCES) <= allowed


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The modules that are loaded after `import numpy, attrs`, and after `import fnn` too."""
    program = (
        "import sys, json, numpy, attrs\nbefore = sorted(sys.modules)\nimport fnn\n"
        "print(json.dumps({'before': before, 'after': sorted(sys.modules)}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_importing_fnn_imports_nothing_but_fnn_numpy_and_the_standard_library(loaded: dict[str, list[str]]) -> None:
    new = {name.split(".")[0] for name in loaded["after"]} - {name.split(".")[0] for name in loaded["before"]}
    assert "fnn" in new and new - {"fnn"} <= set(sys.stdlib_module_names)


def test_importing_fnn_imports_nothing_slow() -> None:
    slow = "numpy.random zipfile json tempfile pathlib inspect logging argparse gzip multiprocessing unittest pickle"
    program = (
        "import sys, numpy, attrs\n"
        f"slow = {slow.split()!r}\n"
        "already = [name for name in slow if name in sys.modules]\nimport fnn\n"
        "print(sorted(name for name in slow if name in sys.modules and name not in already))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- what is public --------------------------------------------------------------------------------------------------


def test_all_is_sorted_and_complete() -> None:
    assert fnn.__all__ == sorted(fnn.__all__) and len(set(fnn.__all__)) == len(fnn.__all__)
    names = {name for name in vars(fnn) if not name.startswith("_")}
    modules = {name for name in names if isinstance(getattr(fnn, name), ModuleType)}
    assert names - modules == set(fnn.__all__) - modules, "imported and not exported, or exported and not there"


def test_nothing_is_exported_under_two_names() -> None:
    things: dict[int, str] = {}
    for name in fnn.__all__:
        thing = getattr(fnn, name)
        assert id(thing) not in things or name in ("Params", "State"), f"{name} is {things[id(thing)]}"
        things[id(thing)] = name


def test_no_function_bears_the_name_of_a_module() -> None:
    """`fnn.layer` the function would hide `fnn.layer` the module."""
    for module in SOURCES:
        _, _, name = module.rpartition(".")
        if module.count(".") == 1 and name in vars(fnn):
            assert isinstance(getattr(fnn, name), ModuleType), f"fnn.{name} hides the module {module}"
            assert getattr(fnn, name) is sys.modules[module]


def origin(name: str, module: str = "fnn") -> tuple[str, str] | None:
    """The module and the name under which a public thing is defined."""
    for node in parsed(module).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module in SOURCES:
                    if f"{node.module}.{alias.name}" in SOURCES:
                        return f"{node.module}.{alias.name}", ""
                    return origin(alias.name, node.module) or (node.module, alias.name)
    return None


def documentation(module: str, name: str) -> str | None:
    """The docstring in the source: of a definition, or below an assignment."""
    body = parsed(module).body
    if not name:
        return ast.get_docstring(parsed(module))
    found: list[str | None] = []
    for node, after in zip(body, [*body[1:], None]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            found.append(ast.get_docstring(node))
        targets: list[ast.expr] = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            text = after.value if isinstance(after, ast.Expr) else None
            found.append(text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else None)
    return next((text for text in found if text), None)


def formula(forward: Any) -> str | None:
    """A row in a table of layers is documented by its forward function."""
    if isinstance(forward, partial):
        return next(filter(None, map(formula, forward.args)), None) or formula(forward.func)
    return forward.__doc__ if inspect.isfunction(forward) else None


@pytest.mark.parametrize("name", fnn.__all__)
def test_everything_public_is_documented(name: str) -> None:
    where, thing = origin(name), getattr(fnn, name)
    assert where is not None, f"fnn.{name} is not imported from a module"
    text = documentation(*where) or (formula(thing.forward) if isinstance(thing, Layer) else None)
    assert text and len(text) > 8, f"{where[0]}.{where[1]} has no docstring"


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_and_public_definition_is_documented(module: str) -> None:
    assert ast.get_docstring(parsed(module)), f"{module} does not say what belongs in it"
    for node in parsed(module).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
            assert overload or ast.get_docstring(node), f"{module}.{node.name} has no docstring"


def test_public_functions_tell_all_their_types() -> None:
    for name in fnn.__all__:
        thing: Any = getattr(fnn, name)
        if inspect.isfunction(thing):
            for parameter in inspect.signature(thing).parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"fnn.{name}: {parameter.name}"


# --- where things lie ------------------------------------------------------------------------------------------------


def listed() -> list[str]:
    """The files of the project, as git knows them."""
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        pytest.skip("not a git repository")
    return done.stdout.splitlines()


def test_the_top_level() -> None:
    folders = {path.split("/")[0] for path in listed() if "/" in path}
    assert {"fnn", "tests", "examples", ".ci"} <= folders
    assert folders <= {"fnn", "tests", "examples", ".ci", "typings", "benchmarks", "docs"}
    files = {path for path in listed() if "/" not in path}
    assert {"README.md", "LICENSE", "pyproject.toml", ".gitignore"} <= files
    assert not [path for path in files if path.endswith(".py")]
    assert (ROOT / "fnn" / "py.typed").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("[0-9]*.py")), ids=lambda path: path.name)
def test_examples_are_short_numbered_programs(path: Path) -> None:
    number, _, name = path.stem.partition("_")
    assert number.isdigit() and len(number) == 2 and name
    text = path.read_text()
    assert len(text.splitlines()) <= 120
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(text)) or ""), "says how to run it"


def test_no_type_checks_are_switched_off() -> None:
    for module, path in SOURCES.items():
        text = path.read_text()
        assert "type: ignore" not in text and "cast(" not in text.replace(".cast(", "").replace("def cast(", ""), module
