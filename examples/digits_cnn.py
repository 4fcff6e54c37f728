"""scikit-learn's handwritten digits, a small convolutional network from nothing: about 98 % of held-out digits in a few
seconds.

python examples/digits_cnn.py [out.onnx]
"""

import sys
import time

import numpy as np

from tiercel.training import Adam, Conv, Dense, Dropout, Flatten, MaxPool, Sequential, Trainer


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 8, 8] in [0, 1], and what they show."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)


def network(seed: int = 0) -> Sequential:
    return Sequential(
        [Conv(32, 3, activation="relu"), Conv(32, 3, activation="relu"), MaxPool(2),
         Conv(64, 3, activation="relu"), MaxPool(2), Flatten(),
         Dropout(0.3), Dense(128, "relu"), Dense(10)],
        input_shape=(1, 8, 8),
        seed=seed,
    )  # fmt: skip


def main() -> None:
    x, y = digits()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:-360], order[-360:]
    trainer = Trainer(network(), loss="cross_entropy", optimizer=Adam(2e-3))
    begin = time.perf_counter()
    trainer.fit(x[train], y[train], epochs=20, batch_size=64, seed=0, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - begin
    print(
        f"{trainer.evaluate(x[test], y[test])['accuracy']:.2%} of {len(test)} held-out digits, trained in {seconds:.1f} s"
    )
    if len(sys.argv) > 1:
        trainer.save(sys.argv[1])


if __name__ == "__main__":
    main()
