"""Trains the model that `tiercel demo` classifies digits with, the network of examples/digits_cnn.py, and writes the digits
that come with the package.

    python bench/train_digits.py        needs scikit-learn

Writes `digits.onnx` (any batch size) and `digits.npz` (all images, those that were never trained on last; their labels; which are shown) into the
package. Data: scikit-learn's digits, 1,797 images of 8x8 pixels (Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0).
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from digits_cnn import network  # noqa: E402

from tiercel.training import Activation, AdamW, Loss, OneCycle, Sequential, Trainer  # noqa: E402

DEMO = ROOT / "python" / "tiercel" / "demo"
EPOCHS, BATCH = 60, 64
REQUIRED = 0.985  # held-out accuracy


class Moved:
    """Batches in a new order each epoch, every image moved by up to one pixel, as a hand would."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y, self.rng = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), y, np.random.default_rng(0)

    def __len__(self) -> int:
        return -(-len(self.y) // BATCH)

    def __iter__(self):
        order = self.rng.permutation(len(self.y))
        for i in range(0, len(order), BATCH):
            rows = order[i : i + BATCH]
            dy, dx = self.rng.integers(0, 3, 2)
            yield self.x[rows, :, dy : dy + 8, dx : dx + 8], self.y[rows]


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As numpy's, with a date that does not change, so that the same digits are the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), zipfile.ZIP_DEFLATED)


def main() -> None:
    digits = load_digits()
    pixels = digits.images.astype(np.uint8)
    rows, held = train_test_split(np.arange(len(pixels)), test_size=0.2, random_state=0, stratify=digits.target)
    order = np.concatenate([rows, held])
    pixels, labels = pixels[order], digits.target[order].astype(np.uint8)
    x, y, count = (pixels[:, None] / 16).astype(np.float32), labels.astype(np.int64), len(held)

    model = Sequential(
        [*network().layers, Activation("softmax")], (1, 8, 8), input_name="image", output_name="probabilities"
    )
    batches = Moved(x[:-count], y[:-count])
    optimizer = AdamW(OneCycle(1e-2, EPOCHS * len(batches)), weight_decay=1e-3)
    trainer = Trainer(model, Loss("cross_entropy", label_smoothing=0.05), optimizer)
    history = trainer.fit(batches, epochs=EPOCHS, validation=(x[-count:], y[-count:]))
    accuracy = history["val_accuracy"][-1]
    if accuracy < REQUIRED:
        raise SystemExit(f"held-out accuracy {accuracy:.4f} is below {REQUIRED}")
    path = DEMO / "digits.onnx"
    trainer.save(path)

    # One of each digit, in order, then four that the model finds hardest: held-out images all.
    sure = trainer.predict(x[-count:]).max(1)
    shown = [int(np.flatnonzero(y[-count:] == d)[0]) for d in range(10)]
    shown += [int(i) for i in np.argsort(sure) if i not in shown][:4]
    write_npz(
        DEMO / "digits.npz",
        {
            "images": pixels, "labels": labels, "held_out": np.int64(count), "accuracy": np.float32(accuracy),
            "shown": np.array(shown) + len(y) - count,
        },
    )  # fmt: skip
    for file in ("digits.onnx", "digits.npz"):
        print(f"{DEMO / file}: {(DEMO / file).stat().st_size / 1024:.0f} KiB")
    print(f"{accuracy:.2%} of {count} held-out images right")


if __name__ == "__main__":
    main()
