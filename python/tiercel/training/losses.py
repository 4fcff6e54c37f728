"""Losses by name, with their options."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.training.checks import numbers

Array = np.ndarray[Any, Any]
_LABELS = ("cross_entropy", "ctc")  # their targets may be class numbers


class CtcTargets(np.ndarray[Any, Any]):
    """What ``ctc_targets`` made: [N, 1 + S], how many steps of a sample count (-1: all), then its labels, padded with
    -1."""


def ctc_targets(labels: Any, input_lengths: Any = None, target_lengths: Any = None) -> CtcTargets:
    """Targets of the loss ctc: ``labels`` are a list of sequences of class numbers, or an array [N, S] whose rows are
    padded with -1 (with ``target_lengths`` [N]: with anything). ``input_lengths`` [N]: how many time steps of each
    sample count; by default all. The result is an array with a row a sample: it can be sliced and shuffled."""
    if not isinstance(labels, np.ndarray):
        rows = [np.asarray(row) for row in labels]
        if not rows or any(row.ndim != 1 for row in rows):
            raise ValueError("the labels of ctc are an array [N, S] or a list of sequences of class numbers")
        filled = np.full((len(rows), max(map(len, rows))), -1, np.int64)
        for i, row in enumerate(rows):
            filled[i, : len(row)] = _integers(row, "labels") if len(row) else row
        labels = filled
    if labels.ndim != 2:
        raise ValueError(f"the labels of ctc are [N, S], got shape {list(labels.shape)}")
    n, most = labels.shape
    labels = np.array(_integers(labels, "labels"))
    if target_lengths is not None:
        lengths = _lengths(target_lengths, n, "target_lengths", most)
        labels[np.arange(most) >= lengths[:, None]] = -1
    ended = np.cumsum(labels < 0, axis=1) > 0
    if (labels[ended] >= 0).any():
        sample = int(np.flatnonzero((ended & (labels >= 0)).any(axis=1))[0])
        raise ValueError(f"sample {sample} of the labels goes on after padding (a number below zero)")
    steps = np.full(n, -1) if input_lengths is None else _lengths(input_lengths, n, "input_lengths", None)
    return np.concatenate([steps[:, None], np.maximum(labels, -1)], axis=1).astype(np.int64).view(CtcTargets)


def ctc_decode(scores: Any, input_lengths: Any = None, blank: int = 0) -> list[list[int]]:
    """The labels of the best class of each time step, without repetitions and blanks, of scores [N, T, C]."""
    best = np.asarray(scores).argmax(axis=-1)
    lengths = (
        np.full(len(best), best.shape[1])
        if input_lengths is None
        else _lengths(input_lengths, len(best), "input_lengths", best.shape[1])
    )
    return [
        [int(c) for i, c in enumerate(row[:n]) if c != blank and (i == 0 or c != row[i - 1])]
        for row, n in zip(best, lengths, strict=True)
    ]


def _integers(a: Array, what: str) -> Array:
    if a.dtype.kind not in "iu":
        raise ValueError(f"{what} of ctc are integers, got {a.dtype}")
    return a.astype(np.int64)


def _lengths(given: Any, n: int, what: str, most: int | None) -> Array:
    lengths = _integers(np.asarray(given), what)
    if lengths.shape != (n,):
        raise ValueError(f"{what} are [{n}], one for each sample, got shape {list(lengths.shape)}")
    if (lengths < 0).any() or (most is not None and (lengths > most).any()):
        raise ValueError(f"{what} are within [0, {'the time steps' if most is None else most}], got {lengths.tolist()}")
    return lengths


class Loss:
    """A loss: ``Loss("huber", delta=2.0)``. ``reduction``: mean, sum or none; ``weight``: of the classes
    (cross_entropy) or of the positive ones (binary_cross_entropy_with_logits). Options: huber delta; cross_entropy
    label_smoothing, ignore_index; kl log_target; hinge margin; ctc blank, zero_infinity, time_first. ``ignore_nan``
    (all but ctc): targets that are NaN count for nothing, nor do vectors and rows of probabilities that hold one.

    cross_entropy takes scores, not probabilities, and class numbers or probabilities as targets; binary_cross_entropy
    takes probabilities, its form with_logits scores. ctc takes scores or log probabilities [batch, time, classes] and
    what ``ctc_targets`` takes or gives; its mean is that of the samples' losses, each by its number of labels."""

    def __init__(self, name: str, reduction: str = "mean", weight: Any = None, **options: float) -> None:
        self.name, self.reduction, self.options = name, reduction, options
        self.added: tuple[str, ...] = ()  # options of of_padded
        for key, value in options.items():
            if not isinstance(value, (bool, int, float, np.number, np.bool_)):
                raise TypeError(f"loss {name}: the option {key} is a number, not {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"loss {name}: the option {key} is finite, not {value!r}")
        if name == "huber" and options.get("delta", 1.0) <= 0:
            raise ValueError(f"loss huber: delta is above 0, not {options['delta']!r}")
        if options.get("ignore_index", 0) != int(options.get("ignore_index", 0)):
            raise ValueError(f"loss {name}: ignore_index is a whole number, not {options['ignore_index']!r}")
        self.weight: Array | None = None
        if weight is not None:
            self.weight = np.array(weight, np.float64)
            if not np.isfinite(self.weight).all() or (self.weight < 0).any():
                raise ValueError(f"loss {name}: weights are finite and not negative, got {weight}")

    def spec(self, labels: bool) -> dict[str, Any]:
        spec: dict[str, Any] = {"name": self.name, "reduction": self.reduction, "labels": labels, **self.options}
        if self.weight is not None:
            spec["weight"] = self.weight
        return spec

    def targets(self, y: Any) -> Array:
        """Targets as an array: for ctc what ``ctc_targets`` gives, of (labels, input_lengths, target_lengths) too."""
        if self.name != "ctc":
            return np.asarray(y)
        return y if isinstance(y, CtcTargets) else ctc_targets(*y) if isinstance(y, tuple) else ctc_targets(y)

    @property
    def may_take_labels(self) -> bool:
        return self.name in _LABELS

    def takes_labels(self, target: Any) -> bool:
        """Are these targets class numbers?"""
        return self.may_take_labels and target.dtype.kind in "biu"

    def check_labels(self, target: Array, rank: int | None) -> None:
        """Whole numbers in the shape of scores of this rank are rows, not class numbers."""
        rows = target.ndim == rank and target.ndim > 1 and target.shape[1] > 1
        if self.name == "cross_entropy" and rows and self.takes_labels(target):
            raise ValueError(
                f"cross_entropy takes class numbers as integers without the axis of the classes, got "
                f"{target.dtype}{list(target.shape)}: give one-hot rows as class numbers, y.argmax(axis=1), or as "
                "probabilities, y.astype(np.float32)"
            )

    def check_range(self, target: Array) -> None:
        """Targets that would lead nowhere: of a label that is no share a binary cross-entropy has no least value."""
        if target.dtype.kind not in "biuf":
            return
        if self.name.startswith("binary_cross_entropy"):
            wrong, takes = (target < 0) | (target > 1), "targets from 0 to 1"
        elif self.name == "cross_entropy" and not self.takes_labels(target):
            wrong, takes = target < 0, "class numbers, which are integers, or probabilities of at least 0"
        elif self.name == "hinge":
            wrong, takes = np.abs(target) != 1, "targets -1 and 1 (2 * y - 1 of labels 0 and 1)"
            wrong &= ~np.isnan(target)
        else:
            return
        if wrong.any():
            at = np.argwhere(wrong)[0]
            raise ValueError(f"{self.name} takes {takes}, got {target[tuple(at)]} at {at.tolist()} of y")

    def of_padded(self) -> Loss:
        """The loss with targets that count for nothing, which padding is given: ``ignore_index`` -100 and NaN, where it
        has none."""
        options: dict[str, float] = {} if self.name == "ctc" else {"ignore_nan": True}
        if self.name == "cross_entropy":
            options["ignore_index"] = -100
        padded = Loss(self.name, self.reduction, self.weight, **{**options, **self.options})
        padded.added = tuple(key for key in options if key not in self.options)
        return padded

    def padding(self, labels: bool) -> float | None:
        """A target that counts for nothing; None: there is none."""
        if labels:
            return int(self.options["ignore_index"]) if "ignore_index" in self.options else None
        return math.nan if self.options.get("ignore_nan") else None

    def counted(self, target: Array) -> Any:
        """Which class numbers are not ``ignore_index``; True: all."""
        return target != int(self.options["ignore_index"]) if "ignore_index" in self.options else True

    def share(self, target: Array) -> float:
        """What the mean over these targets is divided by, and so the weight of a batch beside others: with class
        numbers how many are not ignored, or the sum of their class weights; the rows of vectors or of probabilities;
        else the elements. Of sums 1: they add up."""
        if self.reduction == "sum":
            return 1.0
        if self.name == "ctc" or self.reduction == "batchmean":
            return float(len(target) if target.ndim else 1)
        if self.name != "cross_entropy" or not self.takes_labels(target):
            axis = {"cosine": -1, "cross_entropy": 1}.get(self.name)
            if target.ndim < (1 if axis == -1 else 2):
                axis = None
            if not self.options.get("ignore_nan"):
                return float(target.size // (1 if axis is None else max(target.shape[axis], 1)))
            ignored = np.isnan(target) if axis is None else np.isnan(target).any(axis)
            return float(ignored.size - ignored.sum())
        counted = np.broadcast_to(self.counted(target), target.shape)
        if self.weight is None or not self.weight.size:
            return float(counted.sum())
        labels = target[counted].astype(np.int64)  # one that is no class is an error of the step
        return float(self.weight.ravel().take(labels, mode="clip").sum())

    def scale(self, shares: float) -> float:
        """What makes a mean of a sum of batches, each times its share. Of sums 1."""
        return 1.0 if self.reduction == "sum" else 1.0 / shares if shares else math.nan


def loss_names() -> list[str]:
    return list(_core.losses())


def _operands(loss: str | Loss, prediction: Any, target: Any) -> tuple[dict[str, Any], Array, Array]:
    loss = Loss(loss) if isinstance(loss, str) else loss
    x, t = np.asarray(prediction), loss.targets(target)
    numbers(x, "the prediction")
    numbers(t, "the target")
    if not loss.may_take_labels and x.shape != t.shape:
        raise ValueError(
            f"loss {loss.name}: prediction and target should have one shape, got {list(x.shape)} and {list(t.shape)}"
        )
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32)
    labels = loss.takes_labels(t)
    loss.check_labels(t, x.ndim)
    return loss.spec(labels), x, np.asarray(t, np.int64 if labels else x.dtype, order="C")


def loss_value(loss: str | Loss, prediction: Any, target: Any) -> Array:
    """The loss of two arrays."""
    return np.asarray(_core.loss_value(*_operands(loss, prediction, target)))


def loss_gradient(loss: str | Loss, prediction: Any, target: Any) -> Array:
    """The gradient of the loss of two arrays with respect to the first; without reduction, of the sum of the losses."""
    return np.asarray(_core.loss_gradient(*_operands(loss, prediction, target)))
