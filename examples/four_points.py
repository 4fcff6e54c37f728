"""The smallest training there is: four points, two classes.

(1, 0), (0, 1) and (1, 1) against (-1, -1) and their like: a single unit finds the least-squares line, a hidden layer the classes.

python examples/four_points.py [--plot points.png]
"""

import sys

import numpy as np

from tiercel.training import SGD, Dense, Sequential, Trainer

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


def plot(trainer: Trainer, path: str) -> None:
    import matplotlib.pyplot as plt

    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 200), np.linspace(-2, 2, 200)), -1).astype(np.float32)
    scores = trainer.predict(grid.reshape(-1, 2))
    figure, axes = plt.subplots()
    axes.contourf(
        grid[..., 0],
        grid[..., 1],
        (scores[:, 1] - scores[:, 0]).reshape(200, 200),
        levels=20,
        cmap="coolwarm",
        alpha=0.6,
    )
    axes.scatter(*POINTS.T, c=LABELS, cmap="coolwarm", edgecolors="black", s=100)
    figure.savefig(path)


def main() -> None:
    found, exact = least_squares()
    print(f"one unit:       weights and bias {np.round(found, 4)}, closed form {np.round(exact, 4)}")
    for activation in ("sigmoid", "relu", "tanh"):
        trainer = hidden(activation)
        classes = trainer.predict(POINTS).argmax(axis=1)
        print(f"hidden {activation:8} classes {classes}, wanted {LABELS.astype(int)}")
    if "--plot" in sys.argv:
        plot(trainer, sys.argv[sys.argv.index("--plot") + 1])


if __name__ == "__main__":
    main()
