"""Fits 20 sin(2 pi x) on [0, 2) with a network of 25 sigmoid units, and draws how the fit comes about.

The training is saved to OUT/01_sine.npz as it goes. Stop it with Ctrl-C and go on with --resume: the result is the same,
bit for bit. Writes OUT/01_sine.png (data and fit, four earlier moments, the training loss) and OUT/01_sine.gif.

Run: python examples/01_sine.py [--seed 0] [--epochs 2000] [--resume] [--out out]
"""

import argparse
from pathlib import Path

import numpy as np

from fnn import Dense, Key, Result, Sigmoid, adam, batches, cosine, mse, progress, serial, train
from fnn.types import Array

Moments = dict[int, Array]
"""The fit after so many epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/01_sine.npz")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for checkpoint and pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "01_sine.npz"

    x = np.arange(0.0, 2.0, 0.01, dtype=np.float32)[:, None]
    y = 20 * np.sin(2 * np.pi * x)

    key = Key(args.seed)
    net = serial(Dense(25), Sigmoid, Dense(1))
    params = net.init(key.fold_in("init"), (1,))
    data = batches((x, y), size=90)
    opt = adam(cosine(0.3, steps=args.epochs * data.steps_per_epoch), b2=0.99)

    report = progress(args.epochs)

    def train_until(epochs: int, resume: bool) -> Result:
        return train(
            params,
            data,
            opt,
            model=net,
            loss=mse,
            epochs=epochs,
            key=key,
            report=report,
            checkpoint=checkpoint,
            checkpoint_every=1000,
            resume=checkpoint if resume else None,
        )

    # In stages, each resumed from the file that the one before has saved, to see the fit at many moments.
    fits: Moments = {} if args.resume else {0: net.apply(params, x)}
    try:
        for epochs in sorted({max(1, round(args.epochs * (i / 40) ** 2)) for i in range(6, 41)}):
            result = train_until(epochs, resume=args.resume or len(fits) > 1)
            fits[round(result.train_state.step / data.steps_per_epoch)] = net.apply(result.params, x)
    except KeyboardInterrupt as interrupt:
        notes = getattr(interrupt, "__notes__", [])
        raise SystemExit("\n".join(["", *notes, "the same command with --resume does that"])) from None

    error = float(np.mean((net.apply(result.params, x) - y) ** 2))
    draw(args.out / "01_sine.png", x, y, fits, result)
    animate(args.out / "01_sine.gif", x, y, fits)
    print(f"trained in {result.history[-1].seconds:.2f} s; pictures: {args.out / '01_sine.png'}, {args.out / '01_sine.gif'}")
    print(f"mean squared error: {error:.4f}")


def draw(path: Path, x: Array, y: Array, fits: Moments, result: Result) -> None:
    """Four earlier moments above; the fit and the training loss below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = list(fits)
    figure, panels = plt.subplot_mosaic([list("abcd"), list("eeff")], figsize=(12, 7), layout="constrained")
    for name, i in zip("abcde", [*np.linspace(0, len(epochs) - 1, 5).astype(int)]):
        panels[name].plot(x, y, ".", markersize=3, color="0.65", label="data: 20 sin(2πx)")
        panels[name].plot(x, fits[epochs[i]], color="tab:red", label="fit")
        panels[name].set(xlabel="x", ylabel="y", title=f"epoch {epochs[i]:,}", ylim=(-26, 32))
    panels["e"].legend(loc="upper right", ncols=2)
    panels["f"].semilogy([row.epoch for row in result.history], [row.loss for row in result.history], linewidth=0.8)
    panels["f"].set(xlabel="epoch", ylabel="mean squared error of the batches", title="training loss")
    panels["f"].grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def animate(path: Path, x: Array, y: Array, fits: Moments) -> None:
    """The fit converging, one frame a moment."""
    import matplotlib.pyplot as plt
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.artist import Artist

    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(x, y, ".", markersize=3, color="0.65")
    (line,) = axes.plot(x, y, color="tab:red")
    axes.set(xlabel="x", ylabel="y", ylim=(-26, 26))

    def frame(epochs: int) -> list[Artist]:
        line.set_ydata(fits[epochs])
        return [line, axes.set_title(f"epoch {epochs:,}")]

    FuncAnimation(figure, frame, frames=list(fits)).save(path, PillowWriter(fps=6), dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
