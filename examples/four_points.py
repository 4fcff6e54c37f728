"""The smallest training there is: four points of two classes.

(1, 0) and (0, 1) are of class 1, (1, 1) and (-1, -1), with them in between, of class 0. A single unit finds the
least-squares solution, which cannot tell them apart, as no line can; a hidden layer does.

python examples/four_points.py [--plot points.png]      a plot (.png, .svg, .pdf) needs matplotlib
"""

import sys
from pathlib import Path

import numpy as np

from tiercel.training import SGD, Dense, Sequential, Trainer, plot_decision

POINTS = np.array([(1, 0), (0, 1), (1, 1), (-1, -1)], np.float32)
LABELS = np.array([1, 1, 0, 0], np.float32)


def least_squares() -> tuple[np.ndarray, np.ndarray]:
    """One dense unit, mean squared error, 1,000 steps; and the closed-form solution."""
    model = Sequential([Dense(1)], input_shape=(2,), seed=0)
    trainer = Trainer(model, loss="mse", optimizer=SGD(0.1))
    for _ in range(1000):
        trainer.step(POINTS, LABELS[:, None])
    found = np.concatenate([w.ravel() for w in trainer.weights.values()])
    exact = np.linalg.lstsq(np.column_stack([POINTS, np.ones(4)]), LABELS, rcond=None)[0]
    return found, exact


def hidden(activation: str) -> Trainer:
    """A hidden layer and cross-entropy: it tells the four apart, which no line can."""
    model = Sequential([Dense(8, activation), Dense(2)], input_shape=(2,), seed=1)
    trainer = Trainer(model, loss="cross_entropy", optimizer=SGD(0.5))
    trainer.fit(POINTS, LABELS.astype(np.int64), epochs=2000, batch_size=4, shuffle=False)
    return trainer


def plot(trainers: dict[str, Trainer], path: str | Path) -> None:
    """The points over what each network says everywhere around; the line is where it changes its mind."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(trainers), figsize=(4.5 * len(trainers), 4), squeeze=False)
    for (name, trainer), place in zip(trainers.items(), axes[0], strict=True):
        plot_decision(trainer, POINTS, LABELS, axes=place, margin=1).set_title(name)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    found, exact = least_squares()
    print(f"one unit:       weights and bias {np.round(found, 4)}, closed form {np.round(exact, 4)}")
    trainers = {activation: hidden(activation) for activation in ("sigmoid", "relu", "tanh")}
    for activation, trainer in trainers.items():
        classes = trainer.predict(POINTS).argmax(axis=1)
        print(f"hidden {activation:8} classes {classes}, wanted {LABELS.astype(int)}")
    if "--plot" in arguments:
        at = arguments.index("--plot") + 1
        if at == len(arguments):
            raise SystemExit("--plot takes a file, such as points.png")
        plot(trainers, arguments[at])


if __name__ == "__main__":
    main(sys.argv[1:])
