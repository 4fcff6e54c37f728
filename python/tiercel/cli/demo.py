"""Classifies a few hand-written digits with a small model that comes with the package, shows how long that takes, and
trains a copy of the model from nothing.

The images were never trained on. Where onnxruntime is installed its time stands beside, measured in processes of their
own. The training takes a few seconds (--epochs 0: none).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tiercel.cli import compare, feeds
from tiercel.cli.text import count, duration, progress

FOLDER = Path(__file__).resolve().parent.parent / "demo"
MODEL = FOLDER / "digits.onnx"
SEED = 0
ACROSS = 7  # images beside each other
INK = " .:-=+*#%@"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    feeds.add_threads(parser)
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="of the training (default 8; 0: none)")
    parser.add_argument("--plain", action="store_true", help="ASCII and no colours, even on a terminal")


def fancy(plain: bool) -> bool:
    """Does the terminal show colours and block characters?"""
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
    return (
        not plain
        and sys.stdout.isatty()
        and encoding == "utf8"
        and os.environ.get("TERM") != "dumb"
        and "NO_COLOR" not in os.environ
    )


def draw(image: Any, colours: bool) -> list[str]:
    """Lines of text for an [8, 8] image with values 0 to 16."""
    if not colours:
        return ["".join(INK[min(int(v) * len(INK) // 17, len(INK) - 1)] * 2 for v in row) for row in image]
    # Two pixels a character: the upper half in the foreground's colour, the lower in the background's.
    grey = 232 + (np.asarray(image, int) * 23) // 16
    return [
        "".join(f"\x1b[38;5;{top};48;5;{bottom}m▀▀" for top, bottom in zip(grey[y], grey[y + 1], strict=True))
        + "\x1b[0m"
        for y in range(0, 8, 2)
    ]


def show(images: Any, labels: Any, probabilities: Any, colours: bool) -> None:
    """The images, `ACROSS` beside each other, with the guess and its probability below."""
    guesses = probabilities.argmax(1)
    for first in range(0, len(images), ACROSS):
        group = range(first, min(first + ACROSS, len(images)))
        for lines in zip(*(draw(images[i], colours) for i in group), strict=True):
            print("  ".join(lines))
        captions = []
        for i in group:
            wrong = "" if guesses[i] == labels[i] else f" not {labels[i]}"
            captions.append(f"{guesses[i]} ({probabilities[i].max():.0%}){wrong}".center(16))
        print("  ".join(captions) + "\n")


def begin_anew(model: bytes, seed: int) -> bytes:
    """The model with first weights: He's, biases of zero."""
    from tiercel import _core
    from tiercel.training.initializers import initialize

    rng = np.random.default_rng(seed)
    learnt = _core.weights(model, "", _core.trainable_weights(model))
    first = {
        name: initialize("he", rng, w.shape, 0 if w.ndim == 2 else 1) if w.ndim > 1 else np.zeros_like(w)
        for name, w in learnt.items()
    }
    return bytes(_core.with_weights(model, "", first))


def train(x: Any, y: Any, held_out: int, epochs: int, threads: int) -> None:
    """Trains a copy of the model on all images but the last, and shows what it says of those."""
    from tiercel.training import Adam, Cosine, Trainer

    learn, test = (x[:-held_out], y[:-held_out]), (x[-held_out:], y[-held_out:])
    steps = epochs * -(-len(learn[1]) // 64)
    model = begin_anew(MODEL.read_bytes(), SEED)
    trainer = Trainer(model, "cross_entropy", Adam(Cosine(4e-3, steps)), seed=SEED, threads=threads)
    print(
        f"\nA copy with new weights learns the other {len(learn[1]):,} images; what it makes of the {held_out} held out:"
    )

    def report(when: str, after: str = "") -> None:
        found = trainer.evaluate(*test)
        print(f"  {when:<10} loss {found['loss']:7.4f}   accuracy {found['accuracy']:6.1%}{after}", flush=True)

    report("before")
    begin = time.perf_counter()
    trainer.fit(
        *learn, epochs=epochs, batch_size=64, seed=SEED, progress=False,
        callbacks=[lambda trainer, epoch, history: report(f"epoch {epoch + 1}") if epoch + 1 < epochs else None],
    )  # fmt: skip
    report("after", f"   {count(epochs, 'epoch')} in {time.perf_counter() - begin:.1f} s")


def main(args: argparse.Namespace) -> int:
    from tiercel import InferenceSession, SessionOptions, build_info

    if args.epochs < 0:
        raise feeds.UsageError(f"--epochs is at least 0, not {args.epochs}")
    with np.load(FOLDER / "digits.npz") as data:
        everything, classes, shown = data["images"], data["labels"].astype(np.int64), data["shown"]
        accuracy, held_out = float(data["accuracy"]), int(data["held_out"])
    images, labels = everything[shown], classes[shown]
    x = (images.astype(np.float32) / 16)[:, None]
    options = SessionOptions()
    options.intra_op_num_threads = args.threads
    session = InferenceSession(str(MODEL), options)
    (probabilities,) = session.run(None, {"image": x})
    show(images, labels, probabilities, fancy(args.plain))
    right = int((probabilities.argmax(1) == labels).sum())
    print(
        f"{right} of {len(labels)} right (the last four are those that the model is least sure of); on all {held_out} held-out "
        f"images it reached {accuracy:.1%} when it was trained."
    )

    build = build_info()
    threads = args.threads or int(build["threads"])
    names = ["tiercel", *(["onnxruntime"] if compare.installed("onnxruntime") else [])]
    with compare.inputs_file({"image": x}) as inputs:
        results = compare.check(names, MODEL, inputs, threads)
        compare.time_rounds(results, MODEL, inputs, threads, 3, 0.2, lambda turns: progress(turns, "timing"))
    print(f"\nAll {len(x)} images in one run ({build['isa']} kernels, {count(threads, 'thread')}):")
    for r in results:
        if r.failure:
            print(f"  {r.engine:<12} failed: {r.failure}")
        else:
            agree = "" if r.difference is None else f"   (largest difference {r.difference:.0e})"
            print(f"  {r.engine:<12} {duration(r.median('median_s')):>8}{agree}")
    if len(names) == 1:
        print("  Install onnxruntime to see its time beside.")
    if args.epochs:
        train((everything.astype(np.float32) / 16)[:, None], classes, held_out, args.epochs, args.threads)
    return 1 if results[0].failure else 0
