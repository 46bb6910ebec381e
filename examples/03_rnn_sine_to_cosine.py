"""Teaches a recurrent network of 32 units to give the cosine of an angle from the sines of up to ten steps of it.

One sine leaves open whether the wave rises or falls, so the first step can do no better than 0: a mean squared error
of 0.5 there, 0.05 over the ten steps, is the floor. From the second step on the network has to remember. With a wrong
gradient through time it does not learn to (0.28 to 0.38 remain), so that is first compared with finite differences.
After the training the network runs on for 300 steps, its state carried.

The training is saved to OUT/03_rnn_sine_to_cosine.npz as it goes: stop it with Ctrl-C, go on with --resume.

Run: python examples/03_rnn_sine_to_cosine.py [--seed 0] [--epochs 60] [--resume] [--out out]
"""

import math
from pathlib import Path

import numpy as np
from common import anew, arguments, positive, pyplot, resumed, stops_cleanly

from fnn import RNN, Dense, Key, Params, Result, adam, batches, cosine, mse, progress, serial, train, zero_carry
from fnn.testing import check_vjp
from fnn.types import Array

UNITS, TIME, STEP = 32, 10, 2 * math.pi / 25  # 25 steps to a wave
FLOOR = 0.5 / TIME


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=positive, default=60)
    args = parser.parse_args()
    anew(args, "03_rnn_sine_to_cosine.npz")
    checkpoint = args.out / "03_rnn_sine_to_cosine.npz"

    net = serial(RNN(UNITS), Dense(1))
    for time in (1, 2, TIME):
        error = check_vjp(net, (time, 1))
        print(f"gradient through time, sequences of {time:2}: differs from finite differences by {error:.1e}")

    key = Key(args.seed)
    data = batches(waves(key.fold_in("data").generator().uniform(0, 2 * np.pi, 2000), TIME), size=50)
    test = waves(np.linspace(0, 2 * np.pi, 1000, endpoint=False), TIME)
    result = train(
        net.init(key.fold_in("init"), (TIME, 1)),
        data,
        adam(cosine(1e-2, steps=args.epochs * data.steps_per_epoch), b2=0.99),
        model=net,
        loss=mse,
        epochs=args.epochs,
        key=key,
        evaluation=test,
        report=progress(args.epochs),
        checkpoint=checkpoint,
        resume=resumed(args, checkpoint),
    )
    errors = np.mean((net.apply(result.params, test[0]) - test[1]) ** 2, axis=(0, 2))
    far = run_on(result.params, 300)
    beyond = float(np.mean((far[1] - far[2])[1:] ** 2))
    draw(args.out / "03_rnn_sine_to_cosine.png", test[1], net.apply(result.params, test[0]), errors, far, result)
    print(f"trained in {result.history[-1].seconds:.1f} s; picture: {args.out / '03_rnn_sine_to_cosine.png'}")
    print(f"first step: {errors[0]:.4f}, the others: {errors[1:].mean():.5f}, 300 steps, state carried: {beyond:.5f}")
    print(f"mean squared error: {errors.mean():.4f}")


def waves(phases: Array, time: int) -> tuple[Array, Array]:
    """`(sines, cosines)`, each (waves, time, 1), of waves that start at the given phases."""
    angles = phases[:, None, None] + STEP * np.arange(time)[:, None]
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def run_on(params: Params, steps: int) -> tuple[Array, Array, Array]:
    """`(sine, cosine, answer)` of one long wave, a step at a time: what the network knows of the past is its state."""
    memory, readout = RNN(UNITS, carry=True), Dense(1)  # the layers of the network, with its parameters
    x, y = waves(np.zeros(1), steps)
    state, answers = zero_carry((UNITS,), batch=1), []
    for t in range(steps):
        hidden, state = memory.apply(params["rnn_0"], (x[:, t : t + 1], state))
        answers.append(readout.apply(params["dense_0"], hidden))
    return x[0, :, 0], y[0, :, 0], np.concatenate(answers, axis=1)[0, :, 0]


def draw(path: Path, truth: Array, guess: Array, errors: Array, far: tuple[Array, ...], result: Result) -> None:
    """Three waves, the error of every step and the training above; the long run below."""
    plt = pyplot()
    figure, panels = plt.subplot_mosaic([list("abc"), list("ddd")], figsize=(12, 7), layout="constrained")
    for i, color in zip((100, 430, 760), ("tab:blue", "tab:orange", "tab:green")):
        panels["a"].plot(range(1, TIME + 1), truth[i], color=color, alpha=0.5, linewidth=4)
        panels["a"].plot(range(1, TIME + 1), guess[i], "o-", color=color, markersize=4, linewidth=0.8)
    panels["a"].set(xlabel="step", ylabel="cosine", title="truth (wide) and answer (dots)", ylim=(-1.25, 1.25))
    panels["b"].bar(range(1, TIME + 1), errors, color="tab:red")
    panels["b"].axhline(0.5, color="black", linestyle=":", label="answering 0")
    panels["b"].set(xlabel="step", ylabel="mean squared error", title="error by step", yscale="log", ylim=(1e-6, 5))
    panels["c"].plot([r.epoch for r in result.history], [r.evaluation["loss"] for r in result.history], label="test")
    panels["c"].axhline(FLOOR, color="black", linestyle=":", label="floor: the first step cannot know")
    panels["c"].set(xlabel="epoch", ylabel="mean squared error", title="training", ylim=(0, None))
    panels["d"].plot(far[1], color="tab:blue", alpha=0.4, linewidth=4, label="truth")
    panels["d"].plot(far[2], color="tab:red", linewidth=1, label="answer")
    title = f"300 steps, one at a time, the state carried (trained on {TIME})"
    panels["d"].set(xlabel="step", ylabel="cosine", title=title, ylim=(-1.25, 1.6))
    for name in "bcd":
        panels[name].legend(loc="upper right", ncols=2 if name == "d" else 1)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
