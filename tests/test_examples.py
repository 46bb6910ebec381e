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
    for name in ("draw", "draw_digits", "animate"):
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
    with pytest.raises((ValueError, SystemExit), match="positive integer|seed|2"):
        call(path, monkeypatch, capsys, *wrong, "--out", str(tmp_path))


# --- what is claimed of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [pytest.param(s, marks=() if s < 3 else pytest.mark.slow) for s in range(8)])
def test_the_sine_is_fitted(
    seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error = call(example("01_sine"), monkeypatch, capsys, "--seed", str(seed), "--out", str(tmp_path))
    assert error < 0.05


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
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.gz"):
        call(example("02_digits"), monkeypatch, capsys, "--data", str(tmp_path / "none"))


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
    assert error < 0.04


def test_the_layer_that_draws_has_the_right_derivative() -> None:
    from fnn.testing import check_vjp

    spec = importlib.util.spec_from_file_location("autoencoder", example("08_autoencoder"))
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert check_vjp(module.Draw, ((3,), (3,))) < 1e-7
