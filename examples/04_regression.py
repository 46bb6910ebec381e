"""A fully connected network on a regression task, each of its hidden layers with the activation that you choose.

The task is sin x on [-pi, pi], 200 points to train on and 100 others to validate on; with --task diabetes it is the
progress of the disease of 442 patients from ten measurements, which scikit-learn carries. Inputs and targets are
standardised. Writes OUT/04_regression.png (04_regression_diabetes.png): loss on both sets, predictions against targets,
residuals. The training is saved to the .npz beside it: stop with Ctrl-C, go on with --resume.

Run: python examples/04_regression.py [--task diabetes] [--hidden 100 --activations Tanh] [--epochs 2000] [--seed 0]
     [--resume] [--out out]
"""

import numpy as np
from common import anew, arguments, positive, pyplot, resumed, stops_cleanly

from fnn import Dense, Gelu, Identity, Key, Layer, Relu, Result, Sigmoid, Silu, Tanh, adamw, batches, cosine, mse
from fnn import progress, serial, split, train, warmup
from fnn.types import Array

ACTIVATIONS = {layer.kind: layer for layer in (Gelu, Identity, Relu, Sigmoid, Silu, Tanh)}
Data = tuple[Array, Array]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", choices=["sine", "diabetes"], default="sine")
    parser.add_argument("--hidden", type=positive, nargs="+", default=[100], help="units of each hidden layer")
    parser.add_argument("--activations", nargs="+", choices=[*ACTIVATIONS], default=["Tanh"], help="one for each layer")
    parser.add_argument("--epochs", type=positive, help="default: 2000 for the sine, 100 for the patients")
    args = parser.parse_args()
    if len(args.activations) != len(args.hidden):
        parser.error(f"expected {len(args.hidden)} activations, one for each hidden layer, got {len(args.activations)}")
    checkpoint = args.out / ("04_regression.npz" if args.task == "sine" else "04_regression_diabetes.npz")
    anew(args, checkpoint.name)

    key = Key(args.seed)
    training, validation = sine() if args.task == "sine" else diabetes()
    print(f"data: {args.task}, {len(training[0])} to train on, {len(validation[0])} to validate on", flush=True)
    epochs = (2000 if args.task == "sine" else 100) if args.epochs is None else args.epochs

    layers: list[Layer[Array, Array]] = []
    for units, name in zip(args.hidden, args.activations):
        layers += [Dense(units), ACTIVATIONS[name]]
    net = serial(*layers, Dense(1))
    params = net.init(key.fold_in("init"), training[0].shape[1:])
    data = batches(training, size=50)
    steps = epochs * data.steps_per_epoch
    rate = warmup(cosine(0.01 if args.task == "sine" else 0.003, steps=steps), steps=max(1, steps // 20))
    opt = adamw(rate, b2=0.99, weight_decay=0.0 if args.task == "sine" else 1.0)
    result = train(
        params,
        data,
        opt,
        model=net,
        loss=mse,
        epochs=epochs,
        key=key,
        evaluation=validation,
        report=progress(epochs),
        checkpoint=checkpoint,
        checkpoint_every=2000,
        resume=resumed(args, checkpoint),
    )

    predictions = net.apply(result.params, training[0]), net.apply(result.params, validation[0])
    error = float(np.mean((predictions[1] - validation[1]) ** 2))
    print(f"trained {net!r} in {result.history[-1].seconds:.2f} s")
    explained = 1 - error / float(np.var(validation[1]))
    print(f"explains {explained:.2%} of the variance; picture: {checkpoint.with_suffix('.png')}")
    draw(checkpoint.with_suffix(".png"), result, (training[1], validation[1]), predictions)
    print(f"mean squared error of the validation: {error:.3g}")


def sine() -> tuple[Data, Data]:
    """One fixed draw of points."""
    x = Key(0).generator().uniform(-np.pi, np.pi, (300, 1)).astype(np.float32)
    y = np.sin(x)
    return (x[:200], y[:200]), (x[200:], y[200:])


def diabetes() -> tuple[Data, Data]:
    """The patients in one fixed order, a quarter held out; every measurement with mean 0 and deviation 1."""
    from sklearn.datasets import load_diabetes

    measurements, progression = load_diabetes(return_X_y=True)
    x, y = measurements.astype(np.float32), progression.astype(np.float32)[:, None]
    return split(((x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()), 0.25, Key(0))


def draw(path: object, result: Result, targets: tuple[Array, Array], predictions: tuple[Array, Array]) -> None:
    """Loss on both sets while training; predictions against targets; what is left."""
    plt = pyplot()
    figure, (curve, scatter, rest) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    rows = result.history
    curve.semilogy([row.epoch for row in rows], [row.loss for row in rows], label="training", lw=1)
    curve.semilogy([row.epoch for row in rows], [row.evaluation["loss"] for row in rows], label="validation", lw=0.7)
    curve.set(xlabel="epoch", ylabel="mean squared error", title="loss")
    for target, prediction, name in zip(targets, predictions, ("training", "validation")):
        scatter.plot(target, prediction, ".", markersize=4, alpha=0.6, label=name)
        rest.plot(prediction, target - prediction, ".", markersize=4, alpha=0.6, label=name)
    ends = [min(t.min() for t in targets), max(t.max() for t in targets)]
    scatter.plot(ends, ends, color="0.5", linewidth=1)
    scatter.set(xlabel="target", ylabel="prediction", title="prediction against target")
    rest.axhline(0, color="0.5", linewidth=1)
    rest.set(xlabel="prediction", ylabel="target - prediction", title="residuals")
    for panel in (curve, scatter, rest):
        panel.legend()
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
