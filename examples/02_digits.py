"""Reads handwritten digits, in today's way and, with --as-it-was, in that of the program that this one replaces.

Today: silu, cross-entropy, AdamW, warm-up and cosine. As it was: relu, relu, ten sigmoids each with a square loss, plain
gradient descent. There some seeds stay stuck: an output that is near 0 for every image has a gradient near 0, since the
sigmoid is flat there, and its digit is never read. Each output's largest answer over the epochs shows it.

Without --data it uses the 1,797 digits of 8x8 pixels that scikit-learn carries; with --data DIR it uses MNIST, with
16 and 16 hidden units. Pictures: learning, confusion matrix, mistakes, first-layer weights.

Run: python examples/02_digits.py [--as-it-was] [--data DIR] [--seed 0] [--epochs 30] [--resume] [--out out]
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import Examples, arguments, draw_confusion, draw_images, pyplot, read_digits, stops_cleanly

from fnn import Dense, Flatten, Key, Layer, Loss, Optimizer, Relu, Result, Sigmoid, Silu, accuracy, adamw, batches
from fnn import cosine, initializers, mse, one_hot, progress, serial, sgd, softmax_cross_entropy, train, warmup
from fnn.metrics import confusion_matrix
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


def main() -> float:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--as-it-was", action="store_true", help="network and training of the old program")
    args = parser.parse_args()
    stem = args.out / ("02_digits_as_it_was" if args.as_it_was else "02_digits")
    checkpoint = stem.with_suffix(".npz")

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    dense = training[0], one_hot(training[1], 10)
    data = batches(dense, size=32 if not args.data else 100 if args.as_it_was else 200)
    build = as_it_was if args.as_it_was else today
    net, loss, opt = build(16 if args.data else 64, args.epochs * data.steps_per_epoch)
    params = net.init(key.fold_in("init"), training[0].shape[1:])
    run = partial(train, params, data, opt, model=net, loss=loss, key=key, metrics=(accuracy,), checkpoint=checkpoint)
    report, evaluation = progress(args.epochs), (test[0], one_hot(test[1], 10))

    largest: dict[float, Array] = {}
    with stops_cleanly():
        for epoch in range(1, args.epochs + 1):  # in stages, to look at the answers in between
            resume = checkpoint if args.resume or epoch > 1 else None
            result = run(epochs=epoch, evaluation=evaluation, report=report, resume=resume)
            answers = net.apply(result.params, test[0])
            largest[result.history[-1].epoch] = answers.max(axis=0)

    metric = confusion_matrix(10)
    matrix = metric.compute(metric.update(metric.init(), answers, test[1], None))
    draw(stem, result, largest, matrix)
    draw_digits(stem, test, answers, result.params["dense_0"]["weight"])
    print(f"trained in {result.history[-1].seconds:.1f} s; pictures: {stem}.png, {stem}_mistakes.png, {stem}_weights.png")
    if missed := [digit for digit in range(10) if not matrix[:, digit].any()]:
        print(f"stuck: never reads {missed}; the largest answers of these outputs: {answers.max(axis=0)[missed].round(2)}")
    print(f"test accuracy: {np.trace(matrix) / matrix.sum():.4f}")
    return float(np.trace(matrix) / matrix.sum())


def draw(stem: Path, result: Result, largest: dict[float, Array], matrix: Any) -> None:
    """The error over the epochs, every output's largest answer, the confusion matrix."""
    plt = pyplot()
    figure, (error, outputs, confusion) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    error.semilogy([r.epoch for r in result.history], [1 - r.evaluation["accuracy"] for r in result.history], marker=".")
    error.set(xlabel="epoch", ylabel="share of the test digits read wrongly", title="error")
    for digit, values in enumerate(np.array(list(largest.values())).T):
        outputs.plot(list(largest), values, label=str(digit), color=plt.get_cmap("tab10")(digit))
    outputs.set(xlabel="epoch", ylabel="largest answer to any test digit", title="one line for each output")
    outputs.legend(title="digit", loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    draw_confusion(confusion, matrix, range(10))
    figure.savefig(f"{stem}.png", dpi=110)
    plt.close(figure)


def draw_digits(stem: Path, test: Examples, answers: Array, weight: Array) -> None:
    """The first forty mistakes, and the weights of the first layer as images."""
    plt, (images, labels), guesses = pyplot(), test, answers.argmax(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    units = weight.T.reshape(-1, *images.shape[1:])
    top = float(np.abs(units).max())
    titles = [f"{guesses[i]}, is {labels[i]}" for i in wrong[:40]]
    names = [f"unit {i}" for i in range(len(units))]
    colours = {"cmap": "RdBu", "vmin": -top, "vmax": top}
    pictures: list[tuple[str, Any, dict[str, Any], str]] = [
        ("mistakes", (images[wrong[:40]], titles, 10), {}, f"{len(wrong)} of {len(labels)}: what was read, what it is"),
        ("weights", (units[:32], names[:32], 8), colours, "weights of the first layer: blue is for, red against"),
    ]
    for what, shown, how, title in pictures:
        figure = plt.figure(figsize=(10, 1 + 1.2 * max(1, -(-len(shown[0]) // shown[2]))), layout="constrained")
        draw_images(figure, *shown, **how)
        figure.suptitle(title)
        figure.savefig(f"{stem}_{what}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
