"""Optimisers: a name, a learning rate and options. The steps themselves are operators of the engine."""

from __future__ import annotations

import math
from collections.abc import Callable

from tiercel.training.checks import number

Schedule = Callable[[int], float]


class Optimizer:
    """``lr``: a number, or a function of the step (from 0) that gives one."""

    name = "sgd"

    def __init__(self, lr: float | Schedule, **options: float) -> None:
        if not callable(lr) or isinstance(lr, type):
            number("the learning rate", lr)
        for name, value in options.items():
            number(name, value, 0.0, 1.0 if name.startswith("beta") else math.inf)
        self.lr, self.options = lr, options

    def rate(self, step: int) -> float:
        if callable(self.lr):
            return number(f"the learning rate that the schedule gives for step {step}", self.lr(step))
        return number("the learning rate", self.lr)

    def spec(self) -> dict[str, str | float]:
        return {"name": self.name, **{k: float(v) for k, v in self.options.items()}}


class SGD(Optimizer):
    def __init__(
        self, lr: float | Schedule = 0.01, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay=weight_decay)
        number("momentum", momentum)
        if momentum:
            self.name = "momentum"
            self.options.update(momentum=momentum, nesterov=float(nesterov))
        elif nesterov:
            raise ValueError("nesterov needs a momentum")


class Momentum(SGD):
    def __init__(
        self, lr: float | Schedule = 0.01, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, momentum, nesterov, weight_decay)


class RMSprop(Optimizer):
    name = "rmsprop"

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        alpha: float = 0.99,
        momentum: float = 0.0,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        alpha = number("alpha", alpha, 0.0, 1.0)
        super().__init__(lr, beta2=alpha, momentum=momentum, epsilon=epsilon, weight_decay=weight_decay)


class Adagrad(Optimizer):
    name = "adagrad"

    def __init__(
        self, lr: float | Schedule = 0.01, epsilon: float = 1e-10, weight_decay: float = 0.0, lr_decay: float = 0.0
    ) -> None:
        super().__init__(lr, epsilon=epsilon, weight_decay=weight_decay, lr_decay=lr_decay)


class Adam(Optimizer):
    """``lazy``: of a table that only Gather on axis 0 reads (an embedding), the rows that a batch has and their moments
    are updated, all others stay as they are, as in PyTorch's SparseAdam. Without it the moments of every row fade at
    each step, and move its weights on."""

    name = "adam"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        lazy: bool = False,
    ) -> None:
        super().__init__(lr, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay)
        if not isinstance(lazy, bool):
            raise ValueError(f"lazy is True or False, not {lazy!r}")
        if lazy:
            self.options["lazy"] = 1.0


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights instead of joining the gradient; with ``lazy`` those of a batch's
    rows."""

    name = "adamw"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        lazy: bool = False,
    ) -> None:
        super().__init__(lr, beta1, beta2, epsilon, weight_decay, lazy)


class Lion(Optimizer):
    name = "lion"

    def __init__(
        self, lr: float | Schedule = 1e-4, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay)


_BY_NAME: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD, "momentum": Momentum, "rmsprop": RMSprop, "adagrad": Adagrad, "adam": Adam, "adamw": AdamW, "lion": Lion,
}  # fmt: skip


def optimizer_of(value: str | Optimizer) -> Optimizer:
    if isinstance(value, Optimizer):
        return value
    return by_name(value)()


def by_name(name: str) -> Callable[..., Optimizer]:
    """The optimizer's class."""
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ValueError(f"there is no optimizer {name!r}; there are: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
