"""Pictures of a training, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tiercel.training.loop import History
    from tiercel.training.trainer import Trainer


def _axes(axes: Any) -> Any:
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError as e:
        raise ImportError("plots need matplotlib: pip install 'tiercel[train]'") from e
    return plt.subplots()[1]


def plot_history(history: History, axes: Any = None) -> Any:
    """The losses by epoch, accuracies on an axis of their own. Gives the matplotlib axes."""
    axes = _axes(axes)
    right = None
    for name, values in history.items():
        if name == "seconds":
            continue
        if "accuracy" in name:
            right = right or axes.twinx()
            right.plot(range(1, len(values) + 1), values, "--", label=name, color="tab:green")
            right.set_ylabel("accuracy")
        else:
            axes.plot(range(1, len(values) + 1), values, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    return axes


def plot_decision(
    trainer: Trainer,
    x: Any,
    y: Any,
    axes: Any = None,
    points: int = 200,
    margin: float = 0.5,
    boundary: float | None = None,
) -> Any:
    """Samples of two features over what the model says everywhere around. Of two classes the difference of the scores
    is drawn, with a line where it is zero, of one score itself, with a line at ``boundary``, of more the best class.
    Gives the matplotlib axes: ``axes.figure.savefig("points.svg")``."""
    x, y = np.asarray(x, np.float32), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise ValueError(f"plot_decision takes samples [n, 2], got shape {list(x.shape)}")
    if len(y) != len(x):
        raise ValueError(f"plot_decision takes a label for each of the {len(x)} samples, got {len(y)}")
    axes = _axes(axes)
    low, high = x.min(axis=0) - margin, x.max(axis=0) + margin
    u, v = np.meshgrid(np.linspace(low[0], high[0], points), np.linspace(low[1], high[1], points))
    scores = np.asarray(trainer.predict(np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)))
    scores = scores.reshape(points * points, -1)
    classes = scores.shape[1]
    if classes > 2:
        shown = scores.argmax(axis=1).reshape(points, points)
        axes.contourf(u, v, shown, levels=np.arange(classes + 1) - 0.5, cmap="coolwarm", alpha=0.6)
    else:
        shown = (scores[:, 0] if classes == 1 else scores[:, 1] - scores[:, 0]).reshape(points, points)
        line = 0.0 if classes == 2 and boundary is None else boundary
        levels: Any = 20
        if line is not None and (most := float(np.abs(shown - line).max())) > 0:
            levels = np.linspace(line - most, line + most, 21)  # so that the colours change at the line
        axes.contourf(u, v, shown, levels=levels, cmap="coolwarm", alpha=0.6)
        if line is not None and shown.min() < line < shown.max():
            axes.contour(u, v, shown, levels=[line], colors="black", linewidths=1)
    axes.scatter(x[:, 0], x[:, 1], c=y.ravel(), cmap="coolwarm", edgecolors="black", s=80)
    return axes
