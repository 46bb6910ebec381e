"""A layer of your own: write forward and vjp, let check_layer find the mistake in them, then train with it.

The layer is Snake, y = x + sin(a x)**2 / a with a learned frequency a for each feature (Ziyin et al. 2020): what is
periodic in the data goes on beyond it. Networks of tanh and relu, trained alike, know nothing of what follows.
Each training is saved to OUT/09_custom_layer_NAME.npz: stop with Ctrl-C, go on with --resume.

Run: python examples/09_custom_layer.py [--seed 0] [--epochs 1500] [--resume] [--out out]
"""

from pathlib import Path

import numpy as np
from common import anew, arguments, positive, pyplot, resumed, stops_cleanly

from fnn import Dense, Key, Params, Relu, ShapeError, Tanh, adamw, batches, cosine, mse, progress, serial
from fnn import stateless, train
from fnn.testing import LawError, check_layer
from fnn.types import Array

Cache = tuple[Array, Array]


def snake_init(key: Key, in_shape: tuple[int, ...]) -> Params:
    """A frequency for each feature, spread over a range from which training chooses."""
    return {"a": key.generator().uniform(0.5, 2.0, in_shape).astype(np.float32)}


def snake_forward(params: Params, x: Array) -> tuple[Array, Cache]:
    """`y = x + sin(a x)**2 / a`; the cache is what the derivatives need."""
    a = params["a"]
    if x.shape[1:] != a.shape:
        raise ShapeError(f"Snake: expected input (batch, {len(a)}), got {x.shape}")
    sine = np.sin(a * x)
    return x + sine * sine / a, (x, sine)


def snake_vjp(params: Params, cache: Cache, dy: Array) -> tuple[Params, Array]:
    """`dx = dy (1 + sin 2ax)`, and `da = sum over the batch of dy (x sin 2ax - sin(ax)**2 / a) / a`."""
    (x, sine), a = cache, params["a"]
    slope = np.sin(2 * a * x)
    return {"a": (dy * (x * slope - sine * sine / a)).sum(axis=0) / a}, dy * (1 + slope)


def hasty_vjp(params: Params, cache: Cache, dy: Array) -> tuple[Params, Array]:
    """The same in a hurry: that a also stands in the denominator is forgotten."""
    (x, _), a = cache, params["a"]
    slope = np.sin(2 * a * x)
    return {"a": (dy * x * slope).sum(axis=0) / a}, dy * (1 + slope)


def snake_out_shape(in_shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(in_shape) != 1:
        raise ShapeError(f"Snake: expected an input shape (features,), got {in_shape}")
    return in_shape


Snake = stateless("Snake", snake_init, snake_forward, snake_vjp, out_shape=snake_out_shape)
HastySnake = stateless("HastySnake", snake_init, snake_forward, hasty_vjp, out_shape=snake_out_shape)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=positive, default=1500)
    args = parser.parse_args()
    anew(args, "09_custom_layer_*.npz")

    try:
        check_layer(HastySnake, (3,))
    except LawError as error:
        print(f"the wrong layer is refused:\n  {error}")
    print(f"the right one keeps every law; largest error of its derivatives: {check_layer(Snake, (3,)):.1e}")

    key = Key(args.seed)
    x = np.linspace(-10, 10, 200, dtype=np.float32)[:, None]
    beyond = np.linspace(-25, 25, 500, dtype=np.float32)[:, None]
    data, opt = batches((x, signal(x)), size=len(x)), adamw(cosine(0.03, steps=args.epochs), weight_decay=0.1)
    fits: dict[str, Array] = {}
    for name, unit in (("tanh", Tanh), ("relu", Relu), ("snake", Snake)):
        print(f"network of {name}", flush=True)
        net, path = serial(Dense(32), unit, Dense(1)), args.out / f"09_custom_layer_{name}.npz"
        params, report = net.init(key.fold_in("init"), (1,)), progress(args.epochs)
        result = train(params, data, opt, model=net, loss=mse, epochs=args.epochs, key=key, report=report,
                       checkpoint=path, checkpoint_every=500, resume=resumed(args, path))  # fmt: skip
        fits[name] = net.apply(result.params, beyond)
    outside = np.abs(beyond) > 10
    errors = {name: float(np.mean((y - signal(beyond))[outside] ** 2)) for name, y in fits.items()}
    print("mean squared error outside the data: " + ", ".join(f"{name} {e:.4f}" for name, e in errors.items()))
    print(f"picture: {draw(args.out, x, beyond, fits)}")
    print(f"mean squared error outside the data, snake: {errors['snake']:.6f}")


def signal(x: Array) -> Array:
    """A season on a trend."""
    y: Array = np.sin(x) + 0.1 * x
    return y


def draw(folder: Path, x: Array, beyond: Array, fits: dict[str, Array]) -> Path:
    """Each network inside and outside the range of the data."""
    plt = pyplot()
    figure, panels = plt.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    for panel, (name, y) in zip(panels, fits.items()):
        panel.axvspan(-10, 10, color="0.93", label="range of the data")
        panel.plot(beyond, signal(beyond), color="0.5", linestyle="--", label="sin x + x/10")
        panel.plot(beyond, y, color="tab:red", label=f"network of {name}")
        panel.set(ylabel="y", ylim=(-4.5, 4.5))
        panel.legend(loc="upper left", ncols=3, fontsize=9)
    panels[-1].set_xlabel("x")
    path = folder / "09_custom_layer.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    with stops_cleanly():
        main()
