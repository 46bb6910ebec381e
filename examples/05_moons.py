"""Separates two moons of points, and shows the boundary while it moves: in a window, or in a GIF where there is none.

The data is one fixed draw of scikit-learn's make_moons(1000, noise=0.2), 200 points held out. The loop is written with
`iterate`: measuring, drawing and saving are statements in it. Writes OUT/05_moons.png (and .gif): boundary and curves.
What it has measured is saved to OUT/05_moons.npz every two epochs: stop with Ctrl-C, go on with --resume.

Run: python examples/05_moons.py [--seed 0] [--steps 400] [--rate 0.03] [--scale 1] [--no-drawing] [--resume]
"""

from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
from common import anew, arguments, load_moments, positive, pyplot, resumed, save_gif, save_moments, stops_cleanly

from fnn import Dense, Key, Relu, Row, TrainState, adamw, batches, compiled, cosine, evaluate, iterate, load
from fnn import load_metadata, make_step, progress, save, serial, sigmoid_cross_entropy, split, tree
from fnn.metrics import binary_accuracy
from fnn.types import Array

Data = tuple[Array, Array]
EVERY = 16  # two epochs
SIDE = np.linspace(-3, 3, 81, dtype=np.float32)
GRID = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=positive, default=400)
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate at the start")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the features, to see what that does")
    parser.add_argument("--no-drawing", action="store_true", help="only train")
    args = parser.parse_args()
    anew(args, "05_moons*.npz")
    stem, checkpoint, moments = (args.out / f"05_moons{end}" for end in ("", ".npz", "_moments.npz"))
    key = Key(args.seed)
    training, test = moons(args.scale)
    print(f"data: make_moons of scikit-learn, {len(training[0])} to train on, {len(test[0])} to test on", flush=True)
    data = batches(training, size=100)
    net = serial(Dense(25), Relu, Dense(50), Relu, Dense(50), Relu, Dense(25), Relu, Dense(1))
    loss, opt = sigmoid_cross_entropy(), adamw(cosine(args.rate, steps=args.steps), weight_decay=0.5)
    now = TrainState(0, params := net.init(key.fold_in("init"), (2,)), net.init_state((2,)), opt.init(params), key)
    curve: list[tuple[float, ...]] = []  # step, seconds; cross-entropy and accuracy, each of training and test
    planes: dict[int, Array] = {}  # the logits on the grid
    if path := resumed(args, checkpoint):
        now, curve, planes = load(path, now), load_metadata(path)["curve"], load_moments(moments)

    metrics, report = (binary_accuracy(threshold=0),), progress(args.steps / data.steps_per_epoch)
    view = None if args.no_drawing else View(training, test, args.scale, curve, planes)
    step, left = compiled(make_step(net, loss, opt)), max(0, args.steps - now.step)
    seconds, began = curve[-1][1] if curve else 0.0, perf_counter()
    for now, _ in islice(iterate(step, now, data.stream(key, now.step)), left):
        if now.step % EVERY == 0 or now.step == args.steps:
            seconds += perf_counter() - began
            measured = [evaluate(net, now.params, part, loss=loss, metrics=metrics) for part in (training, test)]
            curve.append((now.step, seconds, *(m[name] for name in measured[0] for m in measured)))
            planes[now.step] = net.apply(now.params, GRID * args.scale)
            save_moments(moments, planes)
            save(checkpoint, now, metadata={"curve": [list(row) for row in curve]})
            report(Row(now.step, now.step / data.steps_per_epoch, curve[-1][2], None, seconds, measured[1]))
            if view and view.live:
                view.show(len(curve) - 1)
            began = perf_counter()

    if view:
        print(f"drawing {stem}.{'png' if view.live else 'gif and .png'}", flush=True)
        view.show(len(curve) - 1) if view.live else save_gif(f"{stem}.gif", view.figure, view.show, range(len(curve)))
        view.figure.savefig(f"{stem}.png", dpi=110)
    largest = max(abs(a).max() for a in tree.leaves(now.params))
    print(f"trained in {seconds:.2f} s, to parameters no larger than {largest:.3g}")
    print(f"test accuracy: {np.mean((net.apply(now.params, test[0]) > 0) == test[1]):.4f}")
    if view and view.live:
        view.plt.show()  # until the window is closed


def moons(scale: float) -> tuple[Data, Data]:
    """The same points and the same split for every seed."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(1000, noise=0.2, random_state=0)
    return split((scale * points.astype(np.float32), labels.astype(np.float32)[:, None]), 0.2, Key(0))


class View:
    """The boundary on the left, the curves on the right: live in a window, if there is one."""

    def __init__(self, training: Data, test: Data, scale: float, curve: Any, planes: dict[int, Array]) -> None:
        self.plt, self.curve, self.planes, self.border = pyplot(live=True), curve, planes, None
        self.figure, self.axes = self.plt.subplot_mosaic("AAB;AAC", figsize=(10, 5.4), layout="constrained")
        self.live = getattr(self.figure.canvas, "required_interactive_framework", None) is not None
        plane, look = self.axes["A"], {"cmap": "RdBu", "alpha": 0.6, "origin": "lower", "interpolation": "bilinear"}
        self.image = plane.imshow(np.zeros((2, 2)), vmin=-1, vmax=1, extent=(-3, 3, -3, 3), **look)
        for (x, y), size, marker in ((training, 3.5, "o"), (test, 4.5, "D")):
            for label, colour in enumerate(("tab:red", "tab:blue")):
                plane.plot(*x[y[:, 0] == label].T / scale, marker, c=colour, ms=size, mec="white", mew=0.3)
        plane.set(xlim=(-2, 3), ylim=(-2, 2.3), xlabel="first feature", ylabel="second feature", aspect="auto")

    def show(self, moment: int) -> None:
        step, columns = self.curve[moment][0], list(zip(*self.curve[: moment + 1]))
        z = np.tanh(self.planes[step].reshape(len(SIDE), len(SIDE)) / 2)
        self.image.set_data(z)
        if self.border:
            self.border.remove()
        crossed = z.min() < 0 < z.max()
        self.border = self.axes["A"].contour(SIDE, SIDE, z, levels=[0], colors="black") if crossed else None
        self.axes["A"].set_title(f"step {step}: boundary, training (o) and test (◆) points")
        for name, first, title in (("B", 2, "cross-entropy"), ("C", 4, "accuracy")):
            self.axes[name].clear()
            for values, part in zip(columns[first : first + 2], ("training", "test")):
                self.axes[name].plot(columns[0], values, ".-", ms=3, label=part)
            self.axes[name].set(xlabel="step", ylabel=title)
            self.axes[name].legend(loc="upper right" if name == "B" else "lower right")
        if self.live:
            self.plt.pause(0.001)


if __name__ == "__main__":
    with stops_cleanly():
        main()
