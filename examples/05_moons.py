"""Separates two moons of points, and shows the boundary while it moves: in a window, or in a GIF where there is none.

The data is one fixed draw of scikit-learn's make_moons(1000, noise=0.2), of which 200 points are held out. The loop is
written out with `iterate`: drawing, evaluating and saving are ordinary statements in it. Writes OUT/05_moons.png (the
boundary, loss and accuracy of both parts) and OUT/05_moons.gif.

Run: python examples/05_moons.py [--seed 0] [--steps 400] [--rate 0.03] [--scale 1] [--no-drawing] [--resume] [--out out]
"""

import time
from itertools import islice

import numpy as np
from common import arguments, stops_cleanly

from fnn import Dense, Key, Relu, Row, TrainState, adamw, batches, cosine, evaluate, iterate, load, make_step, progress
from fnn import save, serial, sigmoid_cross_entropy, split
from fnn.metrics import binary_accuracy
from fnn.types import Array

Data = tuple[Array, Array]
Curves = list[tuple[int, float, float, float, float]]
"""After so many steps: loss on the training and on the test points, accuracy on both."""

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
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "05_moons.npz"

    key = Key(args.seed)
    training, test = moons(args.scale)
    print(f"data: make_moons of scikit-learn, {len(training[0])} points to train on, {len(test[0])} to test on", flush=True)

    net = serial(Dense(25), Relu, Dense(50), Relu, Dense(50), Relu, Dense(25), Relu, Dense(1))
    loss, opt = sigmoid_cross_entropy(), adamw(cosine(args.rate, steps=args.steps), weight_decay=0.5)
    params = net.init(key.fold_in("init"), (2,))
    now = TrainState(0, params, net.init_state((2,)), opt.init(params), key)
    if args.resume:
        now = load(checkpoint, now)
    data = batches(training, size=100)
    view = None if args.no_drawing else View(training, test, args.scale)
    measures, report = (binary_accuracy(threshold=0),), progress(args.steps / data.steps_per_epoch)
    curves: Curves = []
    seconds = 0.0

    def look() -> None:
        """Measures and draws; its time is not that of the training."""
        of_training, of_test = (list(evaluate(net, now.params, d, loss=loss, metrics=measures).values()) for d in (training, test))
        curves.append((now.step, of_training[0], of_test[0], of_training[1], of_test[1]))
        rate = args.rate
        report(Row(now.step, now.step / data.steps_per_epoch, of_training[0], rate, seconds, {"accuracy": of_test[1]}))
