"""Fits 20 sin(2 pi x) on [0, 2) with a network of 25 sigmoid units, and draws the fit.

Run: python examples/01_sine.py [--seed 0] [--epochs 2000] [--out out]
"""

import argparse
from pathlib import Path

import numpy as np

from fnn import Dense, Key, Sigmoid, adam, batches, cosine, mse, progress, serial, train
from fnn.types import Array


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    args = parser.parse_args()

    x = np.arange(0.0, 2.0, 0.01, dtype=np.float32)[:, None]
    y = 20 * np.sin(2 * np.pi * x)

    key = Key(args.seed)
    net = serial(Dense(25), Sigmoid, Dense(1))
    params = net.init(key.fold_in("init"), (1,))
    data = batches((x, y), size=90)
    opt = adam(cosine(0.3, steps=args.epochs * data.steps_per_epoch), b2=0.99)

    result = train(
        params, data, opt, model=net, loss=mse, epochs=args.epochs, key=key, report=progress(args.epochs)
    )
    prediction = net.apply(result.params, x)
    error = float(np.mean((prediction - y) ** 2))

    picture = draw(args.out, x, y, prediction, [(row.epoch, row.loss) for row in result.history])
    print(f"trained in {result.history[-1].seconds:.2f} s; picture: {picture}")
    print(f"mean squared error: {error:.4f}")
    return error


def draw(folder: Path, x: Array, y: Array, prediction: Array, losses: list[tuple[float, float]]) -> Path:
    """Data and fit on the left, the training loss on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.plot(x, y, ".", markersize=4, color="0.6", label="data: 20 sin(2πx)")
    left.plot(x, prediction, color="tab:red", label="fit")
    left.set(xlabel="x", ylabel="y", title="Data and fit", ylim=(-24, 30))
    left.legend(loc="upper right", ncols=2)
    right.semilogy(*zip(*losses), color="tab:blue", linewidth=0.8)
    right.set(xlabel="epoch", ylabel="mean squared error of the training batches", title="Training")
    right.grid(alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "01_sine.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


if __name__ == "__main__":
    main()
