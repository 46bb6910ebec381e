"""Reads handwritten digits, in today's way and, with --as-it-was, in that of the program that this one replaces.

Today: silu, cross-entropy, AdamW, warm-up and cosine. As it was: relu, relu, ten sigmoids each with a square loss,
plain gradient descent. There some seeds are stuck for long: an output that is near 0 for every image has a gradient
near 0, since the sigmoid is flat there, and its digit is not read. Each output's largest answer over the epochs shows
it (MNIST, --seed 1).

Without --data it uses the 1,797 digits of 8x8 pixels that scikit-learn carries; with --data DIR it uses MNIST, with
16 and 16 hidden units. Pictures: learning, confusion matrix, mistakes, first-layer weights.

Run: python examples/02_digits.py [--as-it-was] [--data DIR] [--seed 0] [--epochs 30] [--resume] [--out out]
"""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
from common import Examples, anew, arguments, draw_confusion, existing, percent, positive, pyplot, read_digits, resumed
from common import save_images, stops_cleanly

from fnn import Dense, Flatten, Key, Layer, Loss, Optimizer, Relu, Result, Row, Sigmoid, Silu, accuracy, adamw, batches
from fnn import cosine, initializers, mse, one_hot, progress, serial, sgd, softmax_cross_entropy, train, warmup
from fnn.metrics import Metric, confusion_matrix
from fnn.types import Array

Parts = tuple[Layer[Array, Array], Loss[Array, Array], Optimizer]


def as_it_was(hidden: int, steps: int) -> Parts:
    first, second, out = (Dense(n, weight_init=initializers.lecun_uniform()) for n in (hidden, hidden, 10))
    return serial(Flatten, first, Relu, second, Relu, out, Sigmoid), mse, sgd(8.5)  # 0.85 for the sum over outputs


def today(hidden: int, steps: int) -> Parts:
    first, second = (Dense(hidden, weight_init=initializers.he_normal()) for _ in range(2))
    rate = warmup(cosine(0.015, steps=steps), steps=max(1, steps // 50))
    opt = adamw(rate, b2=0.99, weight_decay=0.1)
    return serial(Flatten, first, Silu, second, Silu, Dense(10)), softmax_cross_entropy(), opt


def largest(digit: int) -> Metric[Array, Array, float]:
    """A metric of our own: the largest answer that any example gets from the output for a digit."""
    def update(so_far: float, answers: Array, target: Array, weight: Array | None) -> float:
        return max(so_far, float(answers[:, digit].max()))
    return Metric(f"largest {digit}", lambda: -np.inf, update, max, float)


def main() -> float:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=existing, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--epochs", type=positive, default=30)
    parser.add_argument("--as-it-was", action="store_true", help="network and training of the old program")
    args = parser.parse_args()
    stem = args.out / ("02_digits_as_it_was" if args.as_it_was else "02_digits")
    checkpoint = stem.with_suffix(".npz")
    anew(args, checkpoint.name)

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    size = 32 if not args.data else 100 if args.as_it_was else 200
    data = batches((training[0], one_hot(training[1], 10)), size=size)
    build = as_it_was if args.as_it_was else today
    net, loss, opt = build(16 if args.data else 64, args.epochs * data.steps_per_epoch)
    params, show = net.init(key.fold_in("init"), training[0].shape[1:]), progress(args.epochs)

    def report(row: Row) -> None:
        show(attrs.evolve(row, evaluation={"accuracy": row.evaluation["accuracy"]}))

    result = train(params, data, opt, model=net, loss=loss, epochs=args.epochs, key=key, report=report,
                   evaluation=(test[0], one_hot(test[1], 10)), metrics=(accuracy, *map(largest, range(10))),
                   checkpoint=checkpoint, resume=resumed(args, checkpoint))  # fmt: skip
    answers = net.apply(result.params, test[0])
    metric = confusion_matrix(10)
    matrix = metric.compute(metric.update(metric.init(), answers, test[1], None))
    draw(stem, result, matrix, 1.05 if args.as_it_was else None)
    draw_digits(stem, test, answers, result.params["dense_0"]["weight"])
    pictures = ", ".join(f"{stem}{what}.png" for what in ("", "_mistakes", "_weights"))
    print(f"trained in {result.history[-1].seconds:.1f} s; pictures: {pictures}")
    if missed := [digit for digit in range(10) if not matrix[:, digit].any()]:
        print(f"stuck: never reads {missed}; the largest answers there: {answers.max(axis=0)[missed].round(2)}")
    print(f"test accuracy: {np.trace(matrix) / matrix.sum():.4f}")
    return float(np.trace(matrix) / matrix.sum())


def draw(stem: Path, result: Result, matrix: Any, top: float | None) -> None:
    """The error over the epochs, every output's largest answer, the confusion matrix."""
    plt, rows = pyplot(), result.history
    figure, (error, outputs, confusion) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    error.semilogy([row.epoch for row in rows], [1 - row.evaluation["accuracy"] for row in rows], marker=".")
    error.set(xlabel="epoch", ylabel="test digits read wrongly", title="error")
    percent(error.yaxis)
    error.grid(alpha=0.3)
    for digit in range(10):
        values = [row.evaluation[f"largest {digit}"] for row in rows]
        outputs.plot([row.epoch for row in rows], values, label=str(digit), color=plt.get_cmap("tab10")(digit))
    outputs.set(xlabel="epoch", ylabel="largest answer to any test digit", title="one line for each output")
    outputs.set_ylim(top and 0, top)
    outputs.legend(title="digit", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    draw_confusion(confusion, matrix, range(10))
    figure.savefig(f"{stem}.png", dpi=110)
    plt.close(figure)


def draw_digits(stem: Path, test: Examples, answers: Array, weight: Array) -> None:
    """The first forty mistakes, and the weights of the first layer as images."""
    (images, labels), guesses = test, answers.argmax(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    titles, title = [f"{guesses[i]}, is {labels[i]}" for i in wrong[:40]], "what was read, what it is"
    save_images(f"{stem}_mistakes.png", f"{len(wrong)} of {len(labels)}: {title}", images[wrong[:40]], titles, 10)
    units, top = weight.T.reshape(-1, *images.shape[1:])[:32], float(np.abs(weight).max())
    title, names = "weights of the first layer: blue is for, red against", [f"unit {i}" for i in range(len(units))]
    save_images(f"{stem}_weights.png", title, units, names, 8, cmap="RdBu", vmin=-top, vmax=top)


if __name__ == "__main__":
    with stops_cleanly():
        main()
