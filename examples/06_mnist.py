"""A layered network for MNIST in three ways: --model was (the program this one replaces), today, lenet.

was    784-50-50-10 tanh, Xavier initialisation, shuffled batches of 100, momentum 0.9, inverse learning-rate policy,
       weight decay, --dropout; 800 iterations
today  the same widths and iterations: silu, He initialisation, AdamW, warm-up and cosine
lenet  two convolutions with pooling and three dense layers (LeCun et al. 1998), AdamW; 3 epochs

Without --data it uses the 1,797 digits of 8x8 pixels that scikit-learn carries. Writes OUT/06_mnist.png: the error
while training, the confusion matrix. Ctrl-C saves; --resume goes on.

Run: python examples/06_mnist.py [--model today] [--data DIR or FILE.mat] [--seed 0] [--steps 800] [--resume] [--out out]
"""

from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import arguments, draw_confusion, pyplot, read_digits

from fnn import Conv2D, Dense, Dropout, Flatten, Key, Layer, MaxPool2D, Optimizer, Relu, Row, Silu, Tanh, TrainState
from fnn import accuracy, adamw, add_decayed_weights, batches, chain, cosine, evaluate, initializers, iterate, load
from fnn import make_step, progress, save, serial, sgd, softmax_cross_entropy, tree, warmup
from fnn.metrics import confusion_matrix
from fnn.types import Array

Parts = tuple[Layer[Array, Array], Optimizer]


def was(steps: int, dropout: float) -> Parts:
    xavier = initializers.glorot_uniform()
    first, second, out = (Dense(n, weight_init=xavier) for n in (50, 50, 10))
    net = serial(Flatten, first, Tanh, Dropout(dropout), second, Tanh, Dropout(dropout), out)
    return net, chain(add_decayed_weights(5e-4), sgd(inverse_policy, momentum=0.9))


def inverse_policy(step: int) -> float:
    """The "inv" policy, base (1 + gamma step)**-power: a schedule is any function from steps to rates."""
    return float(0.1 * (1 + 1e-4 * step) ** -0.75)


def today(steps: int, dropout: float) -> Parts:
    he = initializers.he_normal()
    first, second = (Dense(50, weight_init=he) for _ in range(2))
    net = serial(Flatten, first, Silu, Dropout(dropout), second, Silu, Dropout(dropout), Dense(10))
    return net, adamw(warmup(cosine(0.015, steps=steps), steps=50), b2=0.99, weight_decay=0.01)


def lenet(steps: int, dropout: float) -> Parts:
    features = serial(Conv2D(8, 5), Relu, MaxPool2D(2), Conv2D(24, 5), Relu, MaxPool2D(2), Flatten)
    net = serial(features, Dropout(dropout), Dense(120), Relu, Dense(84), Relu, Dense(10))
    return net, adamw(warmup(cosine(0.004, steps=steps), steps=100), b2=0.99, weight_decay=0.05)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--model", choices=["was", "today", "lenet"], default="today")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, help="default: 800; for lenet 3 epochs (of MNIST, 40 of the small digits)")
    args = parser.parse_args()
    checkpoint = args.out / ("06_mnist.npz" if args.model == "today" else f"06_mnist_{args.model}.npz")

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    data = batches(training, size=100)
    usual = (3 if args.data else 40) * data.steps_per_epoch if args.model == "lenet" else 800
    total = usual if args.steps is None else args.steps
    net, opt = {"was": was, "today": today, "lenet": lenet}[args.model](total, args.dropout)
    params = net.init(key.fold_in("init"), training[0].shape[1:])
    now = TrainState(0, params, net.init_state(training[0].shape[1:]), opt.init(params), key)
    now = load(checkpoint, now) if args.resume else now

    loss, every, report = softmax_cross_entropy(), max(1, total // 20), progress(total / data.steps_per_epoch)
    steps = iterate(make_step(net, loss, opt), now, data.stream(key, now.step))
    curve: list[tuple[int, float, float]] = []
    seconds, since, began = 0.0, 0.0, perf_counter()
    try:
        for now, measured in islice(steps, max(0, total - now.step)):
            since += float(measured["loss"]) / every
            if now.step % every == 0 or now.step == total:
                seconds += perf_counter() - began
                tested = evaluate(net, now.params, test, loss=loss, metrics=(accuracy,))
                curve.append((now.step, since, 1 - tested["accuracy"]))
                report(Row(now.step, now.step / data.steps_per_epoch, since, None, seconds, tested))
                since, began = 0.0, perf_counter()
    except KeyboardInterrupt:
        save(checkpoint, now)
        raise SystemExit(f"\nsaved step {now.step} to {checkpoint}; the same command with --resume goes on") from None
    save(checkpoint, now)

    metric = confusion_matrix(10)
    matrix = metric.compute(metric.update(metric.init(), net.apply(now.params, test[0]), test[1], None))
    path = checkpoint.with_suffix(".png")
    draw(path, curve, matrix, f"--model {args.model}, {tree.size(now.params):,} parameters")
    print(f"{now.step} steps in {seconds:.2f} s of training; checkpoint: {checkpoint}; picture: {path}")
    print(f"test accuracy: {np.trace(matrix) / matrix.sum():.4f}")


def draw(path: Path, curve: list[tuple[int, float, float]], matrix: Any, title: str) -> None:
    """The error while training on the left, the confusion matrix on the right."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    if curve:
        steps, losses, errors = zip(*curve)
        left.semilogy(steps, losses, color="0.5", label="training: cross-entropy of the batches")
        left.semilogy(steps, errors, marker=".", label="test: share read wrongly")
        left.legend()
    left.set(xlabel="step", ylabel="error", title="error while training")
    left.grid(alpha=0.3, which="both")
    draw_confusion(right, matrix, range(10))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
