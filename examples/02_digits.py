"""Trains a network on handwritten digits and draws the ones that it gets wrong.

Without --data it uses the 1,797 digits of 8x8 pixels that scikit-learn carries, and keeps a fifth of them to test on.
With --data DIR it uses MNIST: 60,000 digits of 28x28 pixels, from the four IDX files (train-images-idx3-ubyte.gz, ...).

Run: python examples/02_digits.py [--data DIR] [--seed 0] [--epochs N] [--out out]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fnn import Dense, Dropout, Key, Relu, accuracy, adamw, batches, cosine, initializers, progress, read_idx, serial
from fnn import softmax_cross_entropy, split, train
from fnn.types import Array, Ints

Examples = tuple[Array, Ints]


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the IDX files of MNIST")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: 60 for the small digits, 10 for MNIST")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    args = parser.parse_args()

    key = Key(args.seed)
    training, test = mnist(args.data) if args.data else digits(key.fold_in("split"))
    epochs = (10 if args.data else 60) if args.epochs is None else args.epochs
    print(f"data: {args.data or 'the digits of scikit-learn'}, {len(training[0])} to train on, {len(test[0])} to test on")

    hidden, rate = (128, 0.2) if args.data else (512, 0.5)
    net = serial(Dense(hidden, weight_init=initializers.he_normal()), Relu, Dropout(rate), Dense(10))
    params = net.init(key.fold_in("init"), training[0].shape[1:])
    data = batches(training, size=100 if args.data else 32)
    opt = adamw(cosine(2e-3, steps=epochs * data.steps_per_epoch), weight_decay=0.02)

    result = train(
        params,
        data,
        opt,
        model=net,
        loss=softmax_cross_entropy(),
        epochs=epochs,
        key=key,
        evaluation=test,
        metrics=(accuracy,),
        report=progress(epochs),
    )
    guesses = net.apply(result.params, test[0]).argmax(axis=1)
    correct = float(np.mean(guesses == test[1]))
    picture = draw(args.out, test, guesses)
    print(f"trained in {result.history[-1].seconds:.1f} s; picture of the mistakes: {picture}")
    print(f"test accuracy: {correct:.4f}")
    return correct


def digits(key: Key) -> tuple[Examples, Examples]:
    """scikit-learn's digits, shuffled; a fifth is held out."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return split((np.asarray(images / 16, np.float32), labels), 0.2, key)


def mnist(folder: Path) -> tuple[Examples, Examples]:
    """MNIST as it is published: 60,000 and 10,000 digits."""

    def read(part: str) -> Examples:
        images, labels = (read_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        return images.reshape(len(images), -1).astype(np.float32) / 255, labels

    return read("train"), read("t10k")


def draw(folder: Path, test: Examples, guesses: Any) -> Path:
    """The first forty mistakes, with what was seen and what it was."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    images, labels = test
    wrong = np.flatnonzero(guesses != labels)[:40]
    side = int(images.shape[1] ** 0.5)
    rows = max(1, -(-len(wrong) // 10))
    figure, axes = plt.subplots(rows, 10, figsize=(11, 1.35 * rows + 0.5), layout="constrained", squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for panel, i in zip(axes.flat, wrong):
        panel.imshow(images[i].reshape(side, side), cmap="gray_r")
        panel.set_title(f"{guesses[i]}, is {labels[i]}", fontsize=9)
    figure.suptitle(f"{np.sum(guesses != labels)} of {len(labels)} test digits are read wrongly: what was read, what it is")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "02_digits.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
