"""Learning rates over time: functions of the step (from 0), for an optimizer's ``lr``."""

from __future__ import annotations

import math
from typing import Any

from tiercel.training.checks import number


class Schedule:
    """Gives the learning rate of a step. ``observe`` gets the loss of each epoch (of validation, where there is
    one)."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError

    def observe(self, loss: float) -> None:
        """What a schedule learns at the end of an epoch."""

    def state(self) -> dict[str, Any]:
        """What ``observe`` changed, for a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``state`` gave."""


class Constant(Schedule):
    def __init__(self, lr: float) -> None:
        self.lr = number("lr", lr)

    def __call__(self, step: int) -> float:
        return self.lr


class StepDecay(Schedule):
    """``lr`` times ``gamma`` for every ``every`` steps that are past."""

    def __init__(self, lr: float, every: int, gamma: float = 0.1) -> None:
        number("every", every, 1)
        self.lr, self.every, self.gamma = number("lr", lr), every, number("gamma", gamma)

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** (step // self.every)


class Cosine(Schedule):
    """From ``lr`` down half a cosine to ``minimum`` within ``steps``, where it stays."""

    def __init__(self, lr: float, steps: int, minimum: float = 0.0) -> None:
        number("steps", steps, 1)
        self.lr, self.steps, self.minimum = number("lr", lr), steps, number("minimum", minimum)

    def __call__(self, step: int) -> float:
        return _cosine(self.lr, self.minimum, min(step / self.steps, 1.0))


class OneCycle(Schedule):
    """Up half a cosine to ``lr`` during the share ``rise`` of ``steps``, then down another: from lr / ``start`` to lr
    / start / ``end``."""

    def __init__(self, lr: float, steps: int, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> None:
        if number("steps", steps) < 2 or not 0 < number("rise", rise) < 1:
            raise ValueError(f"one cycle takes 2 steps or more and a rise within (0, 1), not {steps} and {rise}")
        for name, value in (("start", start), ("end", end)):
            if not number(name, value):
                raise ValueError(f"{name} is a divisor, and not 0")
        self.lr, self.steps, self.rise, self.start, self.end = number("lr", lr), steps, rise, start, end

    def __call__(self, step: int) -> float:
        first, peak, last = self.lr / self.start, self.rise * self.steps - 1, self.steps - 1
        if step < peak:
            return _cosine(first, self.lr, step / peak)
        return _cosine(self.lr, first / self.end, min((step - peak) / (last - peak), 1.0))


class WarmUp(Schedule):
    """``after`` (a number or a schedule), whose first ``steps`` steps rise in a line: step i has the share (i + 1) /
    (steps + 1)."""

    def __init__(self, after: float | Schedule, steps: int) -> None:
        number("steps", steps)
        given: Any = after
        self.after = given if callable(given) and not isinstance(given, type) else Constant(given)
        self.steps = steps

    def __call__(self, step: int) -> float:
        return self.after(step) * min((step + 1) / (self.steps + 1), 1.0)

    def observe(self, loss: float) -> None:
        if isinstance(self.after, Schedule):
            self.after.observe(loss)

    def state(self) -> dict[str, Any]:
        return self.after.state() if isinstance(self.after, Schedule) else {}

    def load_state(self, state: dict[str, Any]) -> None:
        if isinstance(self.after, Schedule):
            self.after.load_state(state)


class ReduceOnPlateau(Schedule):
    """``lr``, times ``factor`` whenever the loss has not fallen by the share ``threshold`` for more than ``patience``
    epochs."""

    def __init__(
        self, lr: float, factor: float = 0.1, patience: int = 10, threshold: float = 1e-4, minimum: float = 0.0
    ) -> None:
        if not number("factor", factor) or factor >= 1:
            raise ValueError(f"factor is within (0, 1), not {factor}")
        self.lr, self.minimum = number("lr", lr), number("minimum", minimum)
        self.factor, self.patience, self.threshold = factor, number("patience", patience), number("threshold", threshold)
        self.best, self.bad = math.inf, 0

    def __call__(self, step: int) -> float:
        return self.lr

    def observe(self, loss: float) -> None:
        if loss < self.best - self.threshold * (abs(self.best) if math.isfinite(self.best) else 0):
            self.best, self.bad = loss, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.lr, self.bad = max(self.lr * self.factor, self.minimum), 0

    def state(self) -> dict[str, Any]:
        return {"lr": self.lr, "best": self.best, "bad": self.bad}

    def load_state(self, state: dict[str, Any]) -> None:
        self.lr, self.best, self.bad = state["lr"], state["best"], state["bad"]


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
