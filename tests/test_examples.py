"""The examples are programs that work: they run as commands, write their pictures, and keep what is claimed of them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
SHORT: dict[str, list[str]] = {
    "01_sine": ["--epochs", "8"],
    "02_digits": ["--epochs", "1"],
    "03_rnn_sine_to_cosine": ["--epochs", "2"],
    "04_regression": ["--epochs", "20"],
    "05_moons": ["--steps", "40"],
    "06_mnist": ["--steps", "100"],
    "07_char_lm": ["--epochs", "1"],
    "08_autoencoder": ["--epochs", "3"],
    "09_custom_layer": ["--epochs", "50"],
    "10_freeze_finetune": ["--epochs", "5"],
}
"""Arguments that make an example short; those not listed run as they are."""

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def command(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an example as a person would."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    line = [sys.executable, "-W", "error::RuntimeWarning", str(path), *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=settings)


def last_number(text: str) -> float:
    """The number that the last line ends with."""
    found = re.search(r": (-?\d+(?:\.\d+)?(?:e-?\d+)?)$", text.strip().splitlines()[-1])
    assert found, f"the last line does not end with ': number': {text.strip().splitlines()[-1]!r}"
    return float(found[1])


def call(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    """Runs an example in this process without its pictures; the number that it ends with."""
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # what a layer of its own needs to be pickled
    spec.loader.exec_module(module)
    for name in ("draw", "draw_digits", "animate", "save_gif"):
        monkeypatch.setattr(module, name, no_picture, raising=False)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    assert isinstance(module, ModuleType)
    module.main()
    return last_number(capsys.readouterr().out)


def no_picture(*arguments: Any) -> None:
    """Pictures take longer than the training."""


def example(stem: str) -> Path:
    return ROOT / "examples" / f"{stem}.py"


# --- as programs -----------------------------------------------------------------------------------------------------


@every_example
def test_an_example_runs_draws_and_prints_a_number(path: Path, tmp_path: Path) -> None:
    done = command(path, *SHORT.get(path.stem, []), "--out", str(tmp_path / "new" / "folder"))
    assert done.returncode == 0, done.stderr
    assert last_number(done.stdout) >= 0
    picture = tmp_path / "new" / "folder" / f"{path.stem}.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 5000
    assert re.search(r"epoch [\d.]+/[\d.]+  loss \d", done.stderr), "it shows progress"


@every_example
def test_an_example_says_how_it_is_used(path: Path) -> None:
    done = command(path, "--help")
    assert done.returncode == 0 and "--seed" in done.stdout and "--out" in done.stdout
    assert f"python examples/{path.name}" in done.stdout


@every_example
@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--seed", "-1"], ["--epochs", "many"]])
def test_wrong_arguments_are_refused(
    path: Path, wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = ["--steps" if "_m" in path.stem and word == "--epochs" else word for word in wrong]  # moons, mnist
    with pytest.raises(SystemExit, match="2"):
        call(path, monkeypatch, capsys, *wrong, "--out", str(tmp_path))
    said = capsys.readouterr().err
    assert "expected a positive integer" in said or "expected a seed" in said


# --- what is claimed of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [pytest.param(s, marks=() if s < 3 else pytest.mark.slow) for s in range(8)])
def test_the_sine_is_fitted(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error = call(example("01_sine"), monkeypatch, capsys, "--seed", str(seed), "--out", str(tmp_path))
    assert error < 0.03


def test_the_sine_resumed_ends_at_the_same_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = example("01_sine")
    arguments = ["--epochs", "60", "--out", str(tmp_path)]
    first = call(path, monkeypatch, capsys, *arguments)
    assert call(path, monkeypatch, capsys, *arguments, "--resume") == first


@pytest.mark.parametrize("seed", range(3))
def test_the_digits_are_read(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    correct = call(example("02_digits"), monkeypatch, capsys, "--seed", str(seed), "--out", str(tmp_path))
    assert correct >= 0.97


def test_the_moons_are_separated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--no-drawing", "--out", str(tmp_path)]
    assert call(example("05_moons"), monkeypatch, capsys, *arguments) >= 0.97
    call(example("05_moons"), monkeypatch, capsys, *arguments, "--rate", "2", "--scale", "100")


def test_a_custom_layer_knows_what_is_periodic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(example("09_custom_layer"), monkeypatch, capsys, "--out", str(tmp_path)) < 0.05


def test_mnist_files_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder in the form of MNIST: 300 digits to train on and 100 to test on, each a bright row of its own."""
    import gzip
    import struct

    import numpy as np

    for part, n in (("train", 300), ("t10k", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = np.zeros((n, 28, 28), np.uint8)
        images[np.arange(n), 2 * labels + 3] = 200
        for kind, a in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, a.ndim]) + struct.pack(f">{a.ndim}I", *a.shape)
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + a.tobytes()))
    arguments = ["--data", str(tmp_path), "--epochs", "5", "--out", str(tmp_path)]
    assert call(example("02_digits"), monkeypatch, capsys, *arguments) == 1.0


@pytest.mark.parametrize("stem", ["02_digits", "06_mnist", "07_char_lm", "08_autoencoder", "10_freeze_finetune"])
def test_data_that_is_not_there_is_missed_in_a_line(stem: str, tmp_path: Path) -> None:
    done = command(example(stem), "--data", str(tmp_path / "none"), "--out", str(tmp_path))
    assert done.returncode == 2 and f"there is no file or folder {tmp_path / 'none'}" in done.stderr
    done = command(example(stem), "--data", str(tmp_path), "--out", str(tmp_path))
    assert done.returncode == 1 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


RESUMED: dict[str, list[str]] = {
    "01_sine": ["--epochs", "400"],
    "02_digits": ["--epochs", "8"],
    "03_rnn_sine_to_cosine": ["--epochs", "5"],
    "04_regression": ["--epochs", "200"],
    "05_moons": ["--steps", "120", "--no-drawing"],
    "06_mnist": ["--steps", "300"],
    "07_char_lm": ["--epochs", "2"],
    "08_autoencoder": ["--epochs", "5"],
    "09_custom_layer": ["--epochs", "300"],
    "10_freeze_finetune": ["--epochs", "4"],
}


@every_example
def test_an_interrupted_example_says_how_to_go_on_and_ends_at_the_same_number(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ctrl-C at the third progress line, an interrupted program started again with --resume, and one left alone."""
    lines = 0

    def interrupting(*arguments: Any) -> Any:
        def report(row: Any) -> None:
            nonlocal lines
            lines += 1
            if lines == 3:
                raise KeyboardInterrupt
        return report

    arguments = RESUMED[path.stem]
    whole = call(path, monkeypatch, capsys, *arguments, "--out", str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr("fnn.progress", interrupting)
        with pytest.raises(SystemExit, match="--resume goes on"), stops_cleanly(path, patch):
            call(path, patch, capsys, *arguments, "--out", str(tmp_path / "cut"))
    assert lines == 3
    assert call(path, monkeypatch, capsys, *arguments, "--out", str(tmp_path / "cut"), "--resume") == whole


def stops_cleanly(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the examples put around their `main`."""
    monkeypatch.syspath_prepend(str(path.parent))
    return importlib.import_module("common").stops_cleanly()


@pytest.mark.parametrize("seed", range(3))
def test_the_cosine_is_known_from_the_second_sine_on(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """0.05 is what the first of ten steps must cost."""
    error = call(example("03_rnn_sine_to_cosine"), monkeypatch, capsys, "--seed", str(seed), "--out", str(tmp_path))
    assert 0.05 - 1e-4 < error <= 0.052


@pytest.mark.parametrize("kind", [["--epochs", "6"], ["--transformer", "--epochs", "3"]])
def test_a_language_model_learns_from_any_text_and_resumes(
    kind: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A text of a few words in turn has to cost far less than the 2.8 bits that its letters cost one by one."""
    path, text = example("07_char_lm"), tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 900)
    arguments = [*kind, "--data", str(text), "--out", str(tmp_path)]
    bits = call(path, monkeypatch, capsys, *arguments)
    assert bits < 1.5
    assert call(path, monkeypatch, capsys, *arguments, "--resume") == bits


def test_an_autoencoder_beats_the_best_linear_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two principal components leave at least 0.05 of the small digits for every seed."""
    error = call(example("08_autoencoder"), monkeypatch, capsys, "--epochs", "30", "--out", str(tmp_path))
    assert error < 0.045


def test_the_layer_that_draws_has_the_right_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    from fnn import ShapeError
    from fnn.testing import check_vjp

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    spec = importlib.util.spec_from_file_location("autoencoder", example("08_autoencoder"))
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert check_vjp(module.Draw, ((3,), (3,))) < 1e-7
    for wrong in ((3,), (3, 3), ((3,), (4,)), ((3,), (3,), (3,))):
        with pytest.raises(ShapeError, match="Draw: expected"):
            module.Draw.out_shape(wrong)
