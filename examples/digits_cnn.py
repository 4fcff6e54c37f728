"""Handwritten digits, a small convolutional network from nothing: 99.2 % of held-out digits on average, in two seconds.

python examples/digits_cnn.py [out.onnx]

The digits come with the package: 1,797 images of 8x8 pixels (Alpaydin and Kaynak, "Optical Recognition of Handwritten
Digits", UCI Machine Learning Repository, CC BY 4.0; scikit-learn has the same). `tiercel demo` shows this network,
trained by bench/train_digits.py.
"""

import sys
import time
from pathlib import Path

import numpy as np

import tiercel
from tiercel.training import Adam, Conv, Cosine, Dense, Dropout, Flatten, MaxPool, Sequential, Trainer

FILE = Path(tiercel.__file__).parent / "demo" / "digits.npz"


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 8, 8] in [0, 1], and what they show."""
    with np.load(FILE) as data:
        return (data["images"][:, None] / 16).astype(np.float32), data["labels"].astype(np.int64)


def network(seed: int = 0) -> Sequential:
    return Sequential(
        [Conv(16, 3, activation="relu"), Conv(32, 3, activation="relu"), MaxPool(2),
         Conv(48, 3, activation="relu"), MaxPool(2), Flatten(),
         Dropout(0.3), Dense(10)],
        input_shape=(1, 8, 8),
        seed=seed,
    )  # fmt: skip


def main(epochs: int = 60) -> None:
    x, y = digits()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:-360], order[-360:]
    steps = epochs * -(-len(train) // 64)
    trainer = Trainer(network(), loss="cross_entropy", optimizer=Adam(Cosine(8e-3, steps)))
    begin = time.perf_counter()
    trainer.fit(x[train], y[train], epochs=epochs, batch_size=64, seed=0, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - begin
    print(
        f"{trainer.evaluate(x[test], y[test])['accuracy']:.2%} of {len(test)} held-out digits, trained in {seconds:.1f} s"
    )
    if len(sys.argv) > 1:
        trainer.save(sys.argv[1])


if __name__ == "__main__":
    main()
