"""What several examples share: arguments, stopping and going on, digits to read, and pictures."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fnn import CheckpointError, Key, load_arrays, read_idx, save, split
from fnn.types import Array, Ints

Examples = tuple[Array, Ints]
"""Images (n, height, width, 1) with pixels from 0 to 1, and their labels."""


# --- arguments, stopping and going on --------------------------------------------------------------------------------


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every example has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--out", type=_folder, default="out", help="folder for what is written (default: out)")
    parser.add_argument("--resume", action="store_true", help="go on from what is saved in OUT")
    return parser


def positive(text: str) -> int:
    """The type of an argument that counts."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def existing(path: str) -> Path:
    """The type of an argument that says where data is."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"there is no file or folder {path}")
    return Path(path)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**128:
        raise argparse.ArgumentTypeError(f"expected a seed, an integer from 0 on, below 2**128, got {text!r}")
    return int(text)


def _folder(path: str) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot make the folder {path}: {error.strerror}") from None
    return Path(path)


@contextmanager
def stops_cleanly() -> Iterator[None]:
    """Ctrl-C in this block ends the program with what was saved and how to go on, not with a traceback.

    Files that cannot be read or written, or do not fit, end it with what is wrong with them.
    """
    try:
        yield
    except (OSError, CheckpointError) as error:
        raise SystemExit(f"{error}") from None
    except ValueError as error:
        if "train: resume:" not in str(error):
            raise
        raise SystemExit(f"{error}") from None
    except KeyboardInterrupt as interrupt:
        notes = getattr(interrupt, "__notes__", ["stopped"])
        raise SystemExit("\n".join(["", *notes, "the same command with --resume goes on from what is saved"])) from None


def anew(args: argparse.Namespace, *patterns: str) -> None:
    """Without --resume, removes what earlier runs have saved in OUT: what is stopped early must not go on with that."""
    for pattern in () if args.resume else patterns:
        for path in args.out.glob(pattern):
            path.unlink()


def resumed(args: argparse.Namespace, checkpoint: Path) -> Path | None:
    """The checkpoint to go on from: with --resume, and if there is one (what was stopped early has saved nothing)."""
    if args.resume and not checkpoint.exists():
        print(f"no checkpoint {checkpoint} yet: it begins anew", flush=True)
    return checkpoint if args.resume and checkpoint.exists() else None


def save_moments(path: Path, moments: Mapping[int, Array]) -> None:
    """Keeps what a picture will show of several moments of a training, each an array."""
    save(path, {str(moment): a for moment, a in moments.items()})


def load_moments(path: Path) -> dict[int, Array]:
    """What `save_moments` has kept."""
    return {int(moment): a for moment, a in load_arrays(path).items()}


# --- digits ----------------------------------------------------------------------------------------------------------


def read_digits(data: Path | None, key: Key) -> tuple[Examples, Examples]:
    """Digits to train on and to test on: of MNIST in a folder or a .mat file, or of scikit-learn; says which."""
    if data is None:
        training, test = sklearn_digits(key)
    else:
        try:
            training, test = read_folder(data) if data.is_dir() else read_mat(data)
        except ValueError as error:
            raise SystemExit(f"--data {data}: {error}") from None
        for images, labels in (training, test):
            if len(images) != len(labels) or not set(np.unique(labels)) <= {*range(10)}:
                raise SystemExit(f"--data {data}: expected a label from 0 to 9 for each of {len(images)} images")
    source = "the digits of scikit-learn" if data is None else data
    print(f"data: {source}, {len(training[0]):,} to train on, {len(test[0]):,} to test on", flush=True)
    return training, test


def sklearn_digits(key: Key) -> tuple[Examples, Examples]:
    """The 1,797 digits of 8x8 pixels that scikit-learn carries, shuffled; a fifth is held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split((_images(images / 16), labels), 0.2, key)


def read_folder(folder: Path) -> tuple[Examples, Examples]:
    """MNIST as it is published, in four IDX files, compressed or not: 60,000 and 10,000 digits of 28x28 pixels."""

    def read(part: str, kind: str) -> Any:
        names = [f"{part}-{kind}-ubyte{end}" for end in (".gz", "")]
        for name in names:
            if (folder / name).is_file():
                return read_idx(folder / name)
        raise SystemExit(f"--data {folder}: expected the four files of MNIST there, but found no {' or '.join(names)}")

    def examples(part: str) -> Examples:
        images, labels = read(part, "images-idx3"), read(part, "labels-idx1")
        return _images(images.astype(np.float32) / 255), labels

    return examples("train"), examples("t10k")


def read_mat(path: Path) -> tuple[Examples, Examples]:
    """MNIST in a MATLAB file, in one of the two forms in which it goes round.

    Either `data` (784, 70000) and `label` (1, 70000), the first 60,000 to train on; or `train0` to `train9` and `test0`
    to `test9`, matrices of the images of each digit (n, 784).
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)  # of files that are cut or newer (7.3) it raises any of these
    except (ValueError, TypeError, IndexError, OSError, NotImplementedError, MatReadError) as error:
        raise SystemExit(f"--data {path}: expected a folder or a .mat file, but SciPy says: {error}") from None
    if {"data", "label"} <= content.keys():
        images, labels = _images(content["data"].T / np.float32(255)), content["label"].ravel().astype(np.int64)
        n = len(images) * 6 // 7
        return (images[:n], labels[:n]), (images[n:], labels[n:])
    wanted = [f"{part}{i}" for part in ("train", "test") for i in range(10)]
    if missing := [name for name in wanted if name not in content]:
        raise SystemExit(f"--data {path}: expected data and label, or train0 to test9; no {', '.join(missing)} there")

    def read(part: str) -> Examples:
        classes = [content[f"{part}{i}"] for i in range(10)]
        return _images(np.concatenate(classes) / np.float32(255)), np.repeat(np.arange(10), [len(c) for c in classes])

    return read("train"), read("test")


def _images(pixels: Any) -> Array:
    side = round(float(np.prod(pixels.shape[1:])) ** 0.5)
    return np.ascontiguousarray(pixels, np.float32).reshape(-1, side, side, 1)


# --- pictures --------------------------------------------------------------------------------------------------------


def pyplot(*, live: bool = False) -> Any:
    """matplotlib's pyplot, drawing to files; with `live` in a window where there is a display."""
    import matplotlib

    if not live:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_images(figure: Any, images: Sequence[Array] | Array, titles: Sequence[str], columns: int, **how: Any) -> None:
    """A grid of images with titles, filling a figure or subfigure."""
    panels = figure.subplots(max(1, -(-len(images) // columns)), columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for panel, image, title in zip(panels.flat, images, titles):
        panel.imshow(image.squeeze(), **{"cmap": "gray_r", **how})
        panel.set_title(title, fontsize=8, pad=2)


def save_images(path: str, title: str, images: Array, titles: Sequence[str], columns: int, **how: Any) -> None:
    """A picture of a grid of images alone."""
    plt, rows = pyplot(), max(1, -(-len(images) // columns))
    figure = plt.figure(figsize=(10, 0.6 + rows * (10 / columns + 0.25)), layout="constrained")
    draw_images(figure, images, titles, columns, **how)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_gif(path: str | Path, figure: Any, show: Callable[[int], None], moments: Iterable[int]) -> None:
    """An animation: what `show` makes of the figure at each of the moments."""
    from matplotlib.animation import PillowWriter

    writer = PillowWriter(fps=7)
    with writer.saving(figure, path, dpi=75):
        for moment in moments:
            show(moment)
            writer.grab_frame()
            figure.set_layout_engine("none")  # the first layout is good for all, and it is slow


def percent(axis: Any) -> None:
    """Labels such as 2 % instead of 2e-2 on an axis, also where it is logarithmic and short."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axis.set_minor_formatter(FuncFormatter(lambda share, _: ""))


def draw_confusion(axes: Any, matrix: Any, names: Sequence[Any]) -> None:
    """How many of each class (row) were read as which (column); the colours show the mistakes."""
    mistakes = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    axes.imshow(mistakes, cmap="Reds", vmax=max(1, 1.5 * mistakes.max()))
    for (i, j), count in np.ndenumerate(matrix):
        if count:
            axes.text(j, i, f"{count:g}", ha="center", va="center", fontsize=7, weight="bold" if i == j else "normal")
    axes.set(xlabel="read as", ylabel="is", title="confusion matrix")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
