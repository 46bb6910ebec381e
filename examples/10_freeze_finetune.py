"""Learns the digits 0 to 4, keeps what it has learned of seeing, and learns 5 to 9 from a few examples of each.

The network is a body and a head, by name. The first training saves both; the second loads the body alone from that
checkpoint, freezes it, and trains a new head. For comparison the same few examples train everything from there, and
everything from nothing, and often do as well. Without --data: the 8x8 digits that scikit-learn carries; with --data DIR: MNIST.
Writes OUT/10_freeze_finetune.png: the three accuracies while they train, and the examples that they learn from.

Run: python examples/10_freeze_finetune.py [--data DIR] [--few 10] [--epochs 60] [--seed 0] [--out out]
"""

from pathlib import Path

import numpy as np
from common import Examples, arguments, draw_images, pyplot, read_digits, stops_cleanly

from fnn import Conv2D, Dense, Flatten, Key, Layer, MaxPool2D, Params, Relu, Result, accuracy, adamw, batches, cosine
from fnn import frozen, load_arrays, named, progress, save, serial, softmax_cross_entropy, train, tree
from fnn.types import Array

BODY = serial(Conv2D(16, 3), Relu, MaxPool2D(2), Conv2D(32, 3), Relu, MaxPool2D(2), Flatten)


def network(body: Layer[Array, Array]) -> Layer[Array, Array]:
    """Its parameters are body/... and head/..., whether the body is frozen or not."""
    return serial(named("body", body), named("head", Dense(5)))


def main() -> None:
    parser = arguments(__doc__, resumes=False)
    parser.add_argument("--data", type=Path, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--few", type=int, default=10, help="examples of each of the digits 5 to 9")
    parser.add_argument("--epochs", type=int, default=60, help="of the few examples")
    args = parser.parse_args()
    checkpoint = args.out / "10_freeze_finetune.npz"

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    in_shape = training[0].shape[1:]
    with stops_cleanly():
        net = network(BODY)
        print("digits 0 to 4, body and head", flush=True)
        epochs = 3 if args.data else 20
        before = fit(net, net.init(key.fold_in("low"), in_shape), five(training, 0), five(test, 0), epochs, 0.003, key)
        save(checkpoint, before.params)

        few = first_of_each(five(training, 5), args.few)
        fresh = net.init(key.fold_in("high"), in_shape)
        loaded = with_body(fresh, checkpoint)
        ways = {
            "frozen body, new head": (network(frozen(BODY)), loaded, 0.01),
            "everything fine-tuned": (net, loaded, 0.003),
            "everything from nothing": (net, fresh, 0.003),
        }
        results: dict[str, Result] = {}
        for name, (model, params, rate) in ways.items():
            print(f"digits 5 to 9, {len(few[0])} examples: {name}", flush=True)
            results[name] = fit(model, params, few, five(test, 5), args.epochs, rate, key)

    kept = all(a is b for a, b in zip(tree.leaves(results["frozen body, new head"].params["body"]), tree.leaves(loaded["body"])))
    print(f"digits 0 to 4: accuracy {before.history[-1].evaluation['accuracy']:.4f}")
    for name, result in results.items():
        print(f"digits 5 to 9, {name}: accuracy {result.history[-1].evaluation['accuracy']:.4f}")
    print(f"the frozen body is {'the same objects as' if kept else 'NOT'} what was loaded from {checkpoint}")
    print(f"picture: {draw(args.out, results, few)}")
    print(f"test accuracy with the frozen body: {results['frozen body, new head'].history[-1].evaluation['accuracy']:.4f}")


def fit(
    net: Layer[Array, Array], params: Params, few: Examples, test: Examples, epochs: int, rate: float, key: Key
) -> Result:
    data, loss = batches(few, size=min(32, len(few[0]))), softmax_cross_entropy()
    opt, report = adamw(cosine(rate, steps=epochs * data.steps_per_epoch)), progress(epochs)
    return train(
        params, data, opt, model=net, loss=loss, epochs=epochs, key=key, evaluation=test, metrics=(accuracy,), report=report
    )


def with_body(params: Params, checkpoint: Path) -> Params:
    """The parameters with those of the body from a checkpoint; what else it holds is left there."""
    saved = load_arrays(checkpoint)
    merged: Params = tree.map_with_path(lambda path, leaf: saved[path] if path.startswith("body/") else leaf, params)
    return merged


def five(digits: Examples, first: int) -> Examples:
    """The five digits from the first on, as labels 0 to 4."""
    images, labels = digits
    chosen = (labels >= first) & (labels < first + 5)
    return images[chosen], labels[chosen].astype(np.int64) - first


def first_of_each(digits: Examples, n: int) -> Examples:
    """The first n examples of each label."""
    images, labels = digits
    rows = np.concatenate([np.flatnonzero(labels == label)[:n] for label in range(5)])
    return images[rows], labels[rows]


def draw(folder: Path, results: dict[str, Result], few: Examples) -> Path:
    """Accuracies over the epochs on the left, the few examples on the right."""
    plt = pyplot()
    left, right = (figure := plt.figure(figsize=(12, 4.6), layout="constrained")).subfigures(1, 2)
    axes = left.subplots()
    for name, result in results.items():
        axes.plot([r.epoch for r in result.history], [r.evaluation["accuracy"] for r in result.history], label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on the test digits 5 to 9", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    draw_images(right, few[0][:50], [str(label + 5) for label in few[1][:50]], 10 if len(few[1]) > 25 else 5)
    right.suptitle("what they learn from")
    figure.savefig(path := folder / "10_freeze_finetune.png", dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
