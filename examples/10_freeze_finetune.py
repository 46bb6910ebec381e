"""Learns the digits 0 to 4, keeps what it has learned of seeing, and learns 5 to 9 from a few examples of each.

The network is a body and a head, by name. The first training saves both; the second loads the body alone from that
checkpoint, freezes it, and trains a new head. For comparison the same few examples train everything from there, and
everything from nothing: the 8x8 digits that scikit-learn carries do as well without a body that has seen others, those
of MNIST (--data DIR) do not.
Writes OUT/10_freeze_finetune.png: the three accuracies while they train, and the examples that they learn from. Each
training is saved to a file of its own, OUT/10_*.npz: stop with Ctrl-C, go on with --resume.

Run: python examples/10_freeze_finetune.py [--data DIR] [--few 10] [--epochs 60] [--seed 0] [--resume] [--out out]
"""

from pathlib import Path

import numpy as np
from common import Examples, anew, arguments, draw_images, existing, positive, pyplot
from common import read_digits, resumed, stops_cleanly

from fnn import Conv2D, Dense, Flatten, Key, Layer, MaxPool2D, Params, Relu, Result, accuracy, adamw, batches, cosine
from fnn import frozen, load_arrays, named, progress, save, serial, softmax_cross_entropy, train, tree
from fnn.types import Array

Network = Layer[Array, Array]
BODY = serial(Conv2D(16, 3), Relu, MaxPool2D(2), Conv2D(32, 3), Relu, MaxPool2D(2), Flatten)


def network(body: Network) -> Network:
    """Its parameters are body/... and head/..., whether the body is frozen or not."""
    return serial(named("body", body), named("head", Dense(5)))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=existing, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--few", type=positive, default=10, help="examples of each of the digits 5 to 9")
    parser.add_argument("--epochs", type=positive, default=60, help="of the few examples")
    args = parser.parse_args()
    anew(args, "10_*.npz")

    key = Key(args.seed)
    training, test = read_digits(args.data, key.fold_in("split"))
    in_shape = training[0].shape[1:]

    def fit(name: str, net: Network, params: Params, digits: Examples, first: int, epochs: int, rate: float) -> Result:
        print(f"digits {first} to {first + 4}, {len(digits[0]):,} examples: {name}", flush=True)
        path, data = args.out / f"10_{name.replace(' ', '_')}.npz", batches(digits, size=min(32, len(digits[0])))
        opt, loss = adamw(cosine(rate, steps=epochs * data.steps_per_epoch)), softmax_cross_entropy()
        return train(params, data, opt, model=net, loss=loss, epochs=epochs, key=key, metrics=(accuracy,),
                     evaluation=five(test, first), report=progress(epochs), checkpoint=path,
                     resume=resumed(args, path))  # fmt: skip

    net = network(BODY)
    params, epochs = net.init(key.fold_in("low"), in_shape), 3 if args.data else 20
    before = fit("body and head", net, params, five(training, 0), 0, epochs, 0.003)
    few = first_of_each(five(training, 5), args.few)
    fresh = net.init(key.fold_in("high"), in_shape)
    loaded = with_body(fresh, args.out / "10_body_and_head.npz")
    ways = {
        "frozen body, new head": (network(frozen(BODY)), loaded, 0.01),
        "everything fine-tuned": (net, loaded, 0.003),
        "everything from nothing": (net, fresh, 0.003),
    }
    results = {name: fit(name, *way[:2], few, 5, args.epochs, way[2]) for name, way in ways.items()}

    found = results["frozen body, new head"].params["body"]
    kept = all(np.array_equal(a, b) for a, b in zip(tree.leaves(found), tree.leaves(loaded["body"])))
    print(f"digits 0 to 4: accuracy {before.history[-1].evaluation['accuracy']:.4f}")
    for name, result in results.items():
        print(f"digits 5 to 9, {name}: accuracy {result.history[-1].evaluation['accuracy']:.4f}")
    print(f"the frozen body is {'still' if kept else 'NOT'} what was loaded")
    print(f"picture: {draw(args.out, results, few)}")
    correct = results["frozen body, new head"].history[-1].evaluation["accuracy"]
    print(f"test accuracy with the frozen body: {correct:.4f}")


def with_body(params: Params, checkpoint: Path) -> Params:
    """The parameters with those of the body from the checkpoint of a training; what else it holds is left there."""
    saved = load_arrays(checkpoint)

    def chosen(path: str, leaf: Array) -> Array:
        return saved[f"train_state/params/{path}"] if path.startswith("body/") else leaf

    merged: Params = tree.map_with_path(chosen, params)
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
    with stops_cleanly():
        main()
