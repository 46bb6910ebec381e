"""A layered network for MNIST in three ways: --model was (the program this one replaces), today, lenet.

was    784-50-50-10 tanh, Xavier initialisation, shuffled batches of 100, momentum 0.9, inverse learning-rate policy,
       weight decay, --dropout; 800 iterations
today  the same widths and iterations: silu, He initialisation, AdamW, warm-up and cosine
lenet  two convolutions with pooling and three dense layers (LeCun et al. 1998), AdamW; 3 epochs

Without --data it uses the 1,797 digits of 8x8 pixels that scikit-learn carries. Writes OUT/06_mnist.png: the error
while training, the confusion matrix. It saves as it goes: stop with Ctrl-C, go on with --resume.

Run: python examples/06_mnist.py [--model today] [--data DIR or FILE.mat] [--seed 0] [--steps 800] [--resume]
"""

from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import anew, arguments, draw_confusion, existing, percent, positive, pyplot
from common import read_digits, resumed, stops_cleanly

from fnn import Conv2D, Dense, Dropout, Flatten, Key, Layer, MaxPool2D, Optimizer, Relu, Row, Silu, Tanh, TrainState
from fnn import accuracy, adamw, add_decayed_weights, batches, chain, compiled, cosine, evaluate, initializers
from fnn import inverse_time, iterate, load, load_metadata, make_step, progress, save, serial, sgd
from fnn import softmax_cross_entropy, tree, warmup
from fnn.metrics import confusion_matrix
from fnn.types import Array

Parts = tuple[Layer[Array, Array], Optimizer]


def was(steps: int, dropout: float) -> Parts:
    xavier = initializers.glorot_uniform()
    first, second, out = (Dense(n, weight_init=xavier) for n in (50, 50, 10))
    net = serial(Flatten, first, Tanh, Dropout(dropout), second, Tanh, Dropout(dropout), out)
    policy = inverse_time(0.1, gamma=1e-4, power=0.75)
    return net, chain(add_decayed_weights(5e-4), sgd(policy, momentum=0.9))


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
    parser.add_argument("--data", type=existing, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--model", choices=["was", "today", "lenet"], default="today")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=positive, help="default: 800; for lenet 3 epochs of MNIST or 40 of the others")
    args = parser.parse_args()
    checkpoint = args.out / ("06_mnist.npz" if args.model == "today" else f"06_mnist_{args.model}.npz")
    anew(args, checkpoint.name)

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    data = batches(training, size=100)
    usual = (3 if args.data else 40) * data.steps_per_epoch if args.model == "lenet" else 800
    total = usual if args.steps is None else args.steps
    net, opt = {"was": was, "today": today, "lenet": lenet}[args.model](total, args.dropout)
    params = net.init(key.fold_in("init"), training[0].shape[1:])
    now = TrainState(0, params, net.init_state(training[0].shape[1:]), opt.init(params), key)
    curve: list[tuple[float, ...]] = []  # step, seconds, training loss since the last row, share of test digits misread
    if path := resumed(args, checkpoint):
        now, curve = load(path, now), load_metadata(path)["curve"]

    loss, every, report = softmax_cross_entropy(), max(1, total // 20), progress(total / data.steps_per_epoch)
    steps = iterate(compiled(make_step(net, loss, opt)), now, data.stream(key, now.step))
    losses: list[float] = []
    seconds, began = curve[-1][1] if curve else 0.0, perf_counter()
    for now, measured in islice(steps, max(0, total - now.step)):
        losses.append(float(measured["loss"]))
        if now.step % every == 0 or now.step == total:
            seconds += perf_counter() - began
            tested = evaluate(net, now.params, test, loss=loss, metrics=(accuracy,))
            curve.append((now.step, seconds, float(np.mean(losses)), 1 - tested["accuracy"]))
            save(checkpoint, now, metadata={"curve": [list(row) for row in curve]})
            report(Row(now.step, now.step / data.steps_per_epoch, curve[-1][2], None, seconds, tested))
            losses, began = [], perf_counter()

    metric = confusion_matrix(10)
    matrix = metric.compute(metric.update(metric.init(), net.apply(now.params, test[0]), test[1], None))
    path = checkpoint.with_suffix(".png")
    draw(path, curve, matrix, f"--model {args.model}, {tree.size(now.params):,} parameters")
    print(f"{now.step} steps in {seconds:.2f} s of training; checkpoint: {checkpoint}; picture: {path}")
    print(f"test accuracy: {np.trace(matrix) / matrix.sum():.4f}")


def draw(path: Path, curve: list[tuple[float, ...]], matrix: Any, title: str) -> None:
    """The error while training on the left, the confusion matrix on the right."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    steps, _, losses, errors = zip(*curve)
    left.semilogy(steps, losses, ".-", color="0.5")
    left.set(xlabel="step", title="error while training")
    left.set_ylabel("cross-entropy of the batches", color="0.4")
    share = left.twinx()
    share.semilogy(steps, errors, ".-", color="tab:blue")
    share.set_ylabel("test digits read wrongly", color="tab:blue")
    percent(share.yaxis)
    left.grid(alpha=0.3, which="both")
    draw_confusion(right, matrix, range(10))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
