"""A language model of characters: an LSTM, or a small transformer, reads a text and then writes on in its manner.

The text is 45 sonnets of Shakespeare (printed 1609, long in the public domain: examples/text/sonnets.txt), or FILE; its
last tenth is held out. Readers spread over the rest take a window each at every step. What the LSTM has in mind goes on
from window to window, derivatives do not: truncated backpropagation through time (Williams & Peng 1990). Losses: nats.
The training is saved to OUT/07_char_lm.npz: stop with Ctrl-C, go on with --resume. Draws OUT/07_char_lm.png.

Run: python examples/07_char_lm.py [--data FILE] [--transformer] [--seed 0] [--epochs N] [--temperature 0.7] [--resume]
"""

from pathlib import Path
from typing import Any

import numpy as np
from common import anew, arguments, existing, positive, pyplot, resumed, stops_cleanly

from fnn import LSTM, Dense, Dropout, Embedding, Identity, Key, Layer, LayerNorm, Result, TransformerBlock, adamw
from fnn import batches, carried, cosine, parallel, progress, serial, softmax_cross_entropy, train, warmup, zero_carry
from fnn.types import Array, Ints, Params


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=existing, default=Path(__file__).parent / "text" / "sonnets.txt", help="a text")
    parser.add_argument("--transformer", action="store_true", help="instead of the LSTM")
    parser.add_argument("--epochs", type=positive, help="default: as many as a text of this length needs")
    parser.add_argument("--temperature", type=float, default=0.7, help="of what it writes: below 1 safer, above wilder")
    args = parser.parse_args()
    checkpoint = args.out / ("07_char_lm_transformer.npz" if args.transformer else "07_char_lm.npz")
    anew(args, checkpoint.name)
    key, text = Key(args.seed), read(args.data)
    letters, end = sorted(set(text)), len(text) * 9 // 10
    codes = np.array([letters.index(letter) for letter in text])
    print(f"data: {args.data}, {end} characters to train on, {len(text) - end} held out, {len(letters)} different ones")
    net, carry, readers, window, rate = network(len(letters), args.transformer)
    model = carried(net, readers, shape=carry)
    data = batches(reading(codes[:end], readers, window), size=readers, shuffle=False)
    held_out = reading(codes[end:], 1, window if args.transformer else min(4000, len(text) - end - 1))
    epochs = max(6, 340 // data.steps_per_epoch) if args.epochs is None else args.epochs
    opt = adamw(warmup(cosine(rate, steps=epochs * data.steps_per_epoch), steps=50), b2=0.99, weight_decay=0.05)
    params, resume = model.init(key.fold_in("init"), (window,)), resumed(args, checkpoint)
    result = train(params, data, opt, model=model, loss=softmax_cross_entropy(), epochs=epochs, key=key, every=10,
                   evaluation=held_out, report=progress(epochs), checkpoint=checkpoint, resume=resume)  # fmt: skip
    noise = key.fold_in("write").generator().gumbel(size=(600, len(letters))) * args.temperature
    start = text.rfind("\n", 0, end) + 1 or end  # it begins where a line begins
    prompt = codes[max(0, start - 100) : start]
    written = write(net, carry, result.params, prompt, noise, window if args.transformer else 1)
    print("", sample := "".join(letters[code] for code in written).lstrip(), "", sep="\n")
    draw(checkpoint.with_suffix(".png"), result, sample, f"written at temperature {args.temperature}")
    print(f"trained in {result.history[-1].seconds:.0f} s; picture: {checkpoint.with_suffix('.png')}")
    print(f"bits per character: {result.history[-1].evaluation['loss'] / np.log(2):.4f}")


def read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"--data {path}: expected a text in UTF-8: {error}") from None
    if len(text) < 5000:
        raise SystemExit(f"--data {path}: expected a text of at least 5,000 characters, got {len(text)}")
    return text


def network(letters: int, transformer: bool) -> tuple[Layer[Any, Any], Any, int, int, float]:
    """(characters, carry) -> (logits, carry), the shape of the carry; how it is trained: readers, window, rate."""
    if transformer:  # it sees all of the window and has nothing else in mind: the carry stays empty
        blocks = serial(*(TransformerBlock(128, 4, causal=True, rotary=True, dropout=0.2) for _ in range(3)))
        net = serial(Embedding(letters, 128), blocks, LayerNorm(), Dense(letters))
        return parallel(net, Identity), (), 16, 128, 2e-3
    answer, keep = serial(Dropout(0.35), Dense(letters)), parallel(Identity, Identity)
    memory = serial(parallel(Embedding(letters, 32), keep), LSTM(256, carry=True), parallel(answer, keep))
    return memory, ((256,), (256,)), 32, 64, 5e-3


def reading(text: Ints, readers: int, window: int) -> tuple[Ints, Ints]:
    """Characters, and those that follow: the first window of every reader, the second of every reader, and so on."""
    steps = (len(text) - 1) // (readers * window)
    x, y = (text[i : i + steps * readers * window].reshape(readers, steps, window) for i in (0, 1))
    return x.swapaxes(0, 1).reshape(-1, window), y.swapaxes(0, 1).reshape(-1, window)


def write(net: Layer[Any, Any], shape: Any, params: Params, prompt: Ints, noise: Array, window: int) -> list[int]:
    """What follows: each character drawn from softmax(logits / temperature), by the largest logit with Gumbel noise."""
    codes, carry = [*prompt], zero_carry(shape, 1)
    for t, extra in enumerate(noise):  # it reads all of the prompt first, then what is new to it
        logits, carry = net.apply(params, (np.array([codes[-window if t else 0 :]]), carry))
        codes.append(int(np.argmax(logits[0, -1] + extra)))
    return codes[len(prompt) :]


def draw(path: Path, result: Result, sample: str, title: str) -> None:
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    held_out = [row for row in result.history if row.evaluation]
    left.plot([row.epoch for row in result.history], [row.loss / np.log(2) for row in result.history], label="training")
    left.plot([row.epoch for row in held_out], [r.evaluation["loss"] / np.log(2) for r in held_out], label="held out")
    left.set(xlabel="epoch", ylabel="bits per character", title="loss")
    left.legend()
    right.text(0, 1, f"{title}:\n\n{sample}", va="top", family="monospace", fontsize=9, wrap=True)
    right.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    with stops_cleanly():
        main()
