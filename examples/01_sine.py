"""Fits 20 sin(2 pi x) on [0, 2) with a network of 25 sigmoid units, and draws how the fit comes about.

The training is saved to OUT/01_sine.npz as it goes: stop with Ctrl-C, go on with --resume, and the result is the same
bit for bit. Writes OUT/01_sine.png (data and fit, four earlier moments, the training loss) and OUT/01_sine.gif.

Run: python examples/01_sine.py [--seed 0] [--epochs 2000] [--resume] [--out out]
"""

from pathlib import Path

import numpy as np
from common import anew, arguments, load_moments, positive, pyplot, resumed, save_gif, save_moments, stops_cleanly

from fnn import Dense, Key, Result, Sigmoid, adam, batches, compiled, cosine, make_step, mse, progress, serial, train
from fnn.types import Array

Moments = dict[int, Array]
"""The fit after so many epochs."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=positive, default=2000)
    args = parser.parse_args()
    anew(args, "01_sine*.npz")
    checkpoint, moments = args.out / "01_sine.npz", args.out / "01_sine_moments.npz"

    x = np.arange(0.0, 2.0, 0.01, dtype=np.float32)[:, None]
    y = 20 * np.sin(2 * np.pi * x)

    key = Key(args.seed)
    net = serial(Dense(25), Sigmoid, Dense(1))
    params = net.init(key.fold_in("init"), (1,))
    data = batches((x, y), size=90)
    opt = adam(cosine(0.3, steps=args.epochs * data.steps_per_epoch), b2=0.99)

    step = compiled(make_step(net, mse, opt))  # recorded once, for all the stages below
    resume, report = resumed(args, checkpoint), progress(args.epochs)
    fits = load_moments(moments) if resume and moments.exists() else {0: net.apply(params, x)}

    # In stages, each resumed from the file that the one before has saved, to see the fit at many moments.
    for epochs in sorted({max(1, round(args.epochs * (i / 40) ** 2)) for i in range(6, 41)}):
        result = train(
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
            resume=resume,
            compile=step,
        )
        resume = checkpoint
        if result.train_state.step == epochs * data.steps_per_epoch:
            fits[epochs] = net.apply(result.params, x)
            save_moments(moments, fits)

    error = float(np.mean((net.apply(result.params, x) - y) ** 2))
    picture, animation = args.out / "01_sine.png", args.out / "01_sine.gif"
    print(f"trained in {result.history[-1].seconds:.2f} s; drawing {picture} and {animation}", flush=True)
    draw(picture, x, y, fits, result)
    animate(animation, x, y, fits)
    print(f"mean squared error: {error:.4f}")


def draw(path: Path, x: Array, y: Array, fits: Moments, result: Result) -> None:
    """Four earlier moments above; the fit and the training loss below."""
    plt, epochs = pyplot(), list(fits)
    figure, panels = plt.subplot_mosaic([list("abcd"), list("eeff")], figsize=(12, 7), layout="constrained")
    for name, share in zip("abcde", (0, 0.06, 0.12, 0.3, 1)):
        epoch = epochs[round(share * (len(epochs) - 1))]
        panels[name].plot(x, y, ".", markersize=3, color="0.65", label="data: 20 sin(2πx)")
        panels[name].plot(x, fits[epoch], color="tab:red", label="fit")
        panels[name].set(xlabel="x", ylabel="y", title=f"epoch {epoch:,}", ylim=(-26, 32))
    panels["e"].legend(loc="upper right", ncols=2)
    panels["f"].semilogy([row.epoch for row in result.history], [row.loss for row in result.history], linewidth=0.8)
    panels["f"].set(xlabel="epoch", ylabel="mean squared error of the batches", title="training loss")
    panels["f"].grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def animate(path: Path, x: Array, y: Array, fits: Moments) -> None:
    """The fit converging, one frame a moment."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(x, y, ".", markersize=3, color="0.65")
    (line,) = axes.plot(x, y, color="tab:red")
    axes.set(xlabel="x", ylabel="y", ylim=(-26, 26))

    def show(epoch: int) -> None:
        line.set_ydata(fits[epoch])
        axes.set_title(f"epoch {epoch:,}")

    save_gif(path, figure, show, fits)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
