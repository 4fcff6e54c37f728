"""Losses by name, with their options."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiercel import _core


class Loss:
    """A loss: ``Loss("huber", delta=2.0)``. ``reduction``: mean, sum or none; ``weight``: of the classes
    (cross_entropy) or of the positive ones (binary_cross_entropy_with_logits). Options: huber delta; cross_entropy
    label_smoothing, ignore_index; kl log_target; hinge margin.

    cross_entropy takes scores, not probabilities, and class numbers or probabilities as targets; binary_cross_entropy
    takes probabilities, its form with_logits scores."""

    def __init__(self, name: str, reduction: str = "mean", weight: Any = None, **options: float) -> None:
        self.name, self.reduction, self.options = name, reduction, options
        self.weight = None if weight is None else np.asarray(weight, np.float32)

    def spec(self, labels: bool) -> dict[str, Any]:
        spec: dict[str, Any] = {"name": self.name, "reduction": self.reduction, "labels": labels, **self.options}
        if self.weight is not None:
            spec["weight"] = self.weight
        return spec

    def takes_labels(self, target: np.ndarray[Any, Any]) -> bool:
        """Are these targets class numbers?"""
        return self.name == "cross_entropy" and target.dtype.kind in "iu"


def loss_names() -> list[str]:
    return list(_core.losses())


def loss_value(loss: str | Loss, prediction: Any, target: Any) -> np.ndarray[Any, Any]:
    """The loss of two arrays."""
    loss = Loss(loss) if isinstance(loss, str) else loss
    x, t = np.asarray(prediction), np.asarray(target)
    if x.dtype.kind != "f":
        x = x.astype(np.float32)
    labels = loss.takes_labels(t)
    t = t.astype(np.int64 if labels else x.dtype)
    return np.asarray(_core.loss_value(loss.spec(labels), x, t))
