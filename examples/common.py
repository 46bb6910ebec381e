"""What several examples share: their arguments, digits to read, a stop that loses nothing, and pictures of digits."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fnn import Key, read_idx, split
from fnn.types import Array, Ints

Examples = tuple[Array, Ints]
"""Images (n, height, width, 1) with pixels from 0 to 1, and their labels."""


def arguments(description: str | None, *, resumes: bool = True) -> argparse.ArgumentParser:
    """The arguments that every example has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=_folder, default="out", help="folder for what is written")
    if resumes:
        parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    return parser


def _folder(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def stops_cleanly() -> Iterator[None]:
    """Ctrl-C in this block ends the program with a line, and with what `train` says of the checkpoint that it saved."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        notes = getattr(interrupt, "__notes__", [])
        how = ["the same command with --resume does that"] if notes else ["stopped"]
        raise SystemExit("\n".join(["", *notes, *how])) from None


# --- digits ----------------------------------------------------------------------------------------------------------


def read_digits(data: Path | None, key: Key) -> tuple[Examples, Examples]:
    """Digits to train on and to test on, from MNIST in a folder or a .mat file, or those of scikit-learn; says which."""
    if data is None:
        training, test = sklearn_digits(key)
    else:
        training, test = read_mat(data) if data.suffix == ".mat" else read_folder(data)
    source = "the digits of scikit-learn" if data is None else data
    print(f"data: {source}, {len(training[0]):,} to train on, {len(test[0]):,} to test on", flush=True)
    return training, test


def sklearn_digits(key: Key) -> tuple[Examples, Examples]:
    """The 1,797 digits of 8x8 pixels that scikit-learn carries, shuffled; a fifth is held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split((_images(images / 16), labels), 0.2, key)


def read_folder(folder: Path) -> tuple[Examples, Examples]:
    """MNIST as it is published, in four IDX files: 60,000 and 10,000 digits of 28x28 pixels."""

    def read(part: str) -> Examples:
        images, labels = (read_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        return _images(images.astype(np.float32) / 255), labels

    return read("train"), read("t10k")


def read_mat(path: Path) -> tuple[Examples, Examples]:
    """MNIST in a MATLAB file, in one of the two forms in which it goes round.

    Either `data` (784, 70000) and `label` (1, 70000), the first 60,000 to train on; or `train0` to `train9` and `test0`
    to `test9`, matrices of the images of each digit (n, 784).
    """
    from scipy.io import loadmat

    content = loadmat(path)
    if {"data", "label"} <= content.keys():
        images, labels = _images(content["data"].T / np.float32(255)), content["label"].ravel().astype(np.int64)
        n = len(images) * 6 // 7
        return (images[:n], labels[:n]), (images[n:], labels[n:])
    if missing := [name for name in (f"{part}{i}" for part in ("train", "test") for i in range(10)) if name not in content]:
        raise SystemExit(f"{path}: expected data and label, or train0 to test9; there is no {', '.join(missing)}")

    def read(part: str) -> Examples:
        classes = [content[f"{part}{i}"] for i in range(10)]
        return _images(np.concatenate(classes) / np.float32(255)), np.repeat(np.arange(10), [len(c) for c in classes])

    return read("train"), read("test")


def _images(pixels: Any) -> Array:
    side = round(float(np.prod(pixels.shape[1:])) ** 0.5)
    return np.ascontiguousarray(pixels, np.float32).reshape(-1, side, side, 1)


# --- pictures --------------------------------------------------------------------------------------------------------


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files."""
    import matplotlib

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


def window_or_file() -> tuple[Any, bool]:
    """matplotlib's pyplot, and whether it draws in a window: where there is no display, it can only write files."""
    import matplotlib.pyplot as plt

    return plt, plt.get_backend().lower() != "agg"
