"""Two ways to put the picture of a digit into two numbers: an autoencoder with tied weights, and a variational one.

The tied one decodes with its encoder's weights, transposed; two principal components, the best linear code, stand by.
The variational one (Kingma & Welling 2014) draws its code from a normal distribution that its encoder gives, by a layer
written here with its derivative, so that every place of the plane decodes to something like a digit.
They learn the digits of 8x8 pixels that scikit-learn carries, or MNIST from its IDX files in DIR. The training is saved
to OUT/08_tied.npz and OUT/08_variational.npz: stop with Ctrl-C, go on with --resume.

Run: python examples/08_autoencoder.py [--data DIR] [--seed 0] [--epochs N] [--resume] [--out out]
"""

from pathlib import Path
from typing import Any

import numpy as np
from common import anew, arguments, existing, positive, pyplot, read_digits, resumed, stops_cleanly

from fnn import Dense, Identity, Key, Layer, Loss, Params, Relu, ShapeError, Sigmoid, State, Train, adamw, batches
from fnn import cosine, fan_out, layer, mse, named, parallel, progress, serial, sigmoid_cross_entropy, tied, train
from fnn import warmup
from fnn.contract import Mode, no_params
from fnn.losses import evidence_bound
from fnn.types import EMPTY, Array, Ints


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=existing, help="folder with the IDX files of MNIST, or a .mat file of it")
    parser.add_argument("--epochs", type=positive, help="default: 150 for the small digits, 15 for MNIST")
    args = parser.parse_args()
    anew(args, "08_*.npz")
    key, epochs = Key(args.seed), (15 if args.data else 150) if args.epochs is None else args.epochs
    (images, _), (test, labels) = read_digits(args.data, key.fold_in("split"))
    x, test = (digits.reshape(len(digits), -1) for digits in (images, test))

    def fit(name: str, model: Layer[Array, Any], loss: Loss[Any, Array], rise: int) -> Params:
        data, path = batches((x, x), size=100 if args.data else 50), args.out / f"08_{name}.npz"
        params, report = model.init(key.fold_in(name), x.shape[1:]), progress(epochs)
        opt = adamw(warmup(cosine(3e-3, steps=epochs * data.steps_per_epoch), steps=rise), b2=0.99)
        print(f"the {name} autoencoder", flush=True)
        return train(params, data, opt, model=model, loss=loss, epochs=epochs, key=key, evaluation=(test, test),
                     report=report, checkpoint=path, resume=resumed(args, path)).params  # fmt: skip

    encoder = serial(Dense(256), Relu, Dense(64), Relu, Dense(2))
    decoder = serial(Dense(64), Relu, Dense(256), Relu, Dense(x.shape[1]))
    mirror = {f"decoder/dense_{2 - i}/weight": f"encoder/dense_{i}/weight" for i in range(3)}
    mirrored = tied(serial(named("encoder", encoder), named("decoder", decoder)), transposed=mirror)
    moments = serial(Dense(256), Relu, Dense(64), Relu, fan_out(2), parallel(Dense(2), Dense(2)))
    drawing = serial(named("encoder", moments), Draw, parallel(named("decoder", decoder), parallel(Identity, Identity)))
    a = fit("tied", mirrored, mse, 1)
    b = fit("variational", drawing, evidence_bound(sigmoid_cross_entropy()), 500)  # a sudden start can cost a number
    axes = np.linalg.svd(x - (mean := x.mean(axis=0)), full_matrices=False)[2][:2]
    seen = {"digits": test, "components": (test - mean) @ axes.T @ axes + mean}
    seen |= {"variational": Sigmoid.apply({}, drawing.apply(b, test)[0]), "tied": mirrored.apply(a, test)}
    codes = {"tied": encoder.apply(a["encoder"], test), "variational": moments.apply(b["encoder"], test)[0]}
    places = np.array([(i, j) for j in np.linspace(2, -2, 11) for i in np.linspace(-2, 2, 11)], np.float32)
    decoded = Sigmoid.apply({}, decoder.apply(b["parallel_0"]["decoder"], places))
    draw(args.out / "08_autoencoder.png", seen, codes, labels, decoded)
    errors = [f"{name}: {np.mean((images - test) ** 2):.4f}" for name, images in seen.items() if images is not test]
    print(f"picture: {args.out / '08_autoencoder.png'}; mean squared errors of the pixels:", *errors, sep="\n")


def draw_forward(params: Params, state: State, x: tuple[Array, Array], mode: Mode) -> tuple[Any, State, Array]:
    """`(z, x)` with z = mean + exp(log_variance / 2) noise from x = (mean, log_variance); the cache is z - mean."""
    if x[0].shape != x[1].shape:
        raise ShapeError(f"Draw: expected mean and log_variance of one shape, got {x[0].shape} and {x[1].shape}")
    noise = mode.key.generator().standard_normal(x[0].shape, np.float32) if isinstance(mode, Train) else np.float32(0)
    moved = np.exp(x[1] / 2) * noise
    return (x[0] + moved, x), state, moved


def draw_vjp(params: Params, moved: Array, dy: Any) -> tuple[Params, tuple[Array, Array]]:
    """`dmean = dz` and `dlog_variance = dz (z - mean) / 2`, added to what comes to these from elsewhere."""
    dz, (dmean, dlog_variance) = dy
    return EMPTY, (dmean + dz, dlog_variance + dz * moved / 2)


def draw_shape(in_shape: Any) -> Any:
    if len(in_shape) != 2 or not isinstance(in_shape[0], tuple) or in_shape[0] != in_shape[1]:
        raise ShapeError(f"Draw: expected the input shape (mean's, log_variance's), one shape twice, got {in_shape}")
    return in_shape[0], in_shape


Draw = layer("Draw", no_params, draw_forward, draw_vjp, out_shape=draw_shape)


def draw(path: Path, seen: dict[str, Array], codes: dict[str, Array], labels: Ints, samples: Array) -> None:
    """Digits and what remains of them above; both planes of codes, and what the second one decodes to, below."""
    plt = pyplot()

    def show(name: str, images: Array, columns: int, **options: Any) -> None:
        cells = [np.pad(image.reshape(side, side), 1) for image in images]
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        axes[name].imshow(np.block(rows), cmap="gray_r", vmin=0, vmax=1, **options)

    figure, axes = plt.subplot_mosaic("ttt;abc", figsize=(14, 7.4), layout="constrained", height_ratios=[2, 3])
    side, some = int(samples.shape[1] ** 0.5), [np.flatnonzero(labels == i // 2)[i % 2] for i in range(20)]
    show("t", np.concatenate([images[some] for images in seen.values()]), 20)
    axes["t"].set(xticks=(), title="test digits, and what two numbers keep of them")
    axes["t"].set_yticks(np.arange(4) * (side + 2) + side / 2, [*seen])
    for name, (kind, code) in zip("ab", codes.items()):
        points = axes[name].scatter(code[:, 0], code[:, 1], 8, labels, cmap="tab10", vmin=-0.5, vmax=9.5)
        axes[name].set(xlabel="first number", ylabel="second number", title=f"codes of the {kind} autoencoder")
    figure.colorbar(points, ax=axes["b"], ticks=range(10), label="digit")
    show("c", samples, 11, extent=(-2.2, 2.2, -2.2, 2.2), aspect="auto")
    axes["c"].set(xlabel="first number", ylabel="second number", title="what the variational one decodes")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
