"""Separates two moons of points, and shows the boundary while it moves: in a window, or in a GIF where there is none.

The data is one fixed draw of scikit-learn's make_moons(1000, noise=0.2), 200 points held out. The loop is written with
`iterate`: measuring, drawing and saving are statements in it. Writes OUT/05_moons.png (and .gif): boundary and curves.

Run: python examples/05_moons.py [--seed 0] [--steps 400] [--rate 0.03] [--scale 1] [--no-drawing] [--resume] [--out out]
"""

from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import arguments, window_or_file

from fnn import Dense, Key, Relu, Row, TrainState, adamw, batches, cosine, evaluate, iterate, load, make_step, progress
from fnn import save, serial, sigmoid_cross_entropy, split, tree
from fnn.metrics import binary_accuracy
from fnn.types import Array

Data = tuple[Array, Array]
EVERY = 10
SIDE = np.linspace(-3, 3, 121, dtype=np.float32)
GRID = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate at the start")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the features, to see what that does")
    parser.add_argument("--no-drawing", action="store_true", help="only train")
    args = parser.parse_args()
    checkpoint = args.out / "05_moons.npz"

    key = Key(args.seed)
    training, test = moons(args.scale)
    print(f"data: make_moons of scikit-learn, {len(training[0])} points to train on, {len(test[0])} to test on", flush=True)

    net = serial(Dense(25), Relu, Dense(50), Relu, Dense(50), Relu, Dense(25), Relu, Dense(1))
    loss, opt = sigmoid_cross_entropy(), adamw(cosine(args.rate, steps=args.steps), weight_decay=0.5)
    params = net.init(key.fold_in("init"), (2,))
    now = TrainState(0, params, net.init_state((2,)), opt.init(params), key)
    now, data = load(checkpoint, now) if args.resume else now, batches(training, size=100)
    steps = iterate(make_step(net, loss, opt), now, data.stream(key, now.step))
    metrics, report = (binary_accuracy(threshold=0),), progress(args.steps / data.steps_per_epoch)
    view = None if args.no_drawing else View(args.out / "05_moons", training, test, args.scale)
    curves: list[tuple[float, ...]] = []
    seconds, began = 0.0, perf_counter()
    try:
        for now, _ in islice(steps, max(0, args.steps - now.step)):
            if now.step % EVERY == 0 or now.step == args.steps:
                seconds += perf_counter() - began
                measured = [evaluate(net, now.params, d, loss=loss, metrics=metrics) for d in (training, test)]
                curves.append((now.step, *(m[name] for name in measured[0] for m in measured)))
                report(Row(now.step, now.step / data.steps_per_epoch, curves[-1][1], None, seconds, measured[1]))
                if view:
                    view.show(net.apply(now.params, GRID * args.scale), np.array(curves).T)
                began = perf_counter()
    except KeyboardInterrupt:
        save(checkpoint, now)
        raise SystemExit(f"\nsaved step {now.step} to {checkpoint}; the same command with --resume goes on") from None

    save(checkpoint, now)
    if view and curves:
        print(f"pictures: {view.finish()}")
    print(f"trained in {seconds:.2f} s, to parameters no larger than {max(abs(a).max() for a in tree.leaves(now.params)):.3g}")
    print(f"test accuracy: {np.mean((net.apply(now.params, test[0]) > 0) == test[1]):.4f}")


def moons(scale: float) -> tuple[Data, Data]:
    """The same points and the same split for every seed."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(1000, noise=0.2, random_state=0)
    return split((scale * points.astype(np.float32), labels.astype(np.float32)[:, None]), 0.2, Key(0))


class View:
    """The boundary on the left, the curves on the right; in a window or, frame by frame, in a GIF."""

    def __init__(self, stem: Path, training: Data, test: Data, scale: float) -> None:
        self.stem, self.parts = stem, [(x / scale, y, marker) for (x, y), marker in ((training, "o"), (test, "D"))]
        self.plt, self.window = window_or_file()
        self.figure, self.axes = self.plt.subplot_mosaic("AAB;AAC", figsize=(10, 5.4), layout="constrained")
        from matplotlib.animation import PillowWriter

        self.writer = PillowWriter(fps=8)
        self.writer.setup(self.figure, f"{self.stem}.gif", dpi=70)

    def show(self, logits: Array, curves: Any) -> None:
        for axes in self.axes.values():
            axes.clear()
        plane, z = self.axes["A"], np.tanh(logits.reshape(len(SIDE), len(SIDE)) / 2)
        plane.contourf(SIDE, SIDE, z, levels=np.linspace(-1, 1, 11), cmap="RdBu", alpha=0.6)
        plane.contour(SIDE, SIDE, z, levels=[0], colors="black")
        for x, y, marker in self.parts:
            colours = np.where(y[:, 0] > 0, "tab:blue", "tab:red")
            plane.scatter(*x.T, s=9 if marker == "o" else 18, c=colours, marker=marker, edgecolors="white", linewidths=0.3)
        title = f"step {curves[0][-1]:.0f}: boundary, training (o) and test (◆) points"
        plane.set(xlim=(-2, 3), ylim=(-2, 2.3), xlabel="first feature", ylabel="second feature", title=title)
        for name, first, title in (("B", 1, "cross-entropy"), ("C", 3, "accuracy")):
            for values, part in zip(curves[first : first + 2], ("training", "test")):
                self.axes[name].plot(curves[0], values, label=part)
            self.axes[name].set(xlabel="step", ylabel=title)
            self.axes[name].legend()
        self.plt.pause(0.001) if self.window else self.writer.grab_frame()

    def finish(self) -> str:
        if not self.window:
            self.writer.finish()
        self.figure.savefig(f"{self.stem}.png", dpi=110)
        return f"{self.stem}.png" + ("" if self.window else f", {self.stem}.gif")


if __name__ == "__main__":
    main()
