"""Registry of cases for gradient rules: what an operator is given, drawn from a seed, and what PyTorch says instead of it.

    @case("Softmax", "LogSoftmax")
    def over_an_axis(d, op):
        return Case([d.any(3, 4)], {"axis": -1}, torch=lambda t, x: ...)

Every case is run by test_grad_rules.py, against central differences and, where it has `torch`, against that; the same file demands that every
rule of the engine has cases. Where a test of its own does what a case cannot say (bodies, sequences), `covers` says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import onnx

from tiercel import _core

Operator = tuple[str, str]  # domain and name
TIERCEL, MICROSOFT = "ai.tiercel", "com.microsoft"
SEEDS = range(3)


class Draw:
    """Shapes and values out of a seed. Values keep their distance from the corners of |x|, ReLU and the like."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def shape(self, least: int = 1, most: int = 4) -> tuple[int, ...]:
        return tuple(int(n) for n in self.rng.integers(1, 5, self.rng.integers(least, most)))

    def any_shape(self) -> tuple[int, ...]:
        """Rank 0 to 4; odd extents, and sometimes none at all."""
        return tuple(int(n) for n in self.rng.choice([0, 1, 2, 3, 5, 7], self.rng.integers(0, 5), p=[0.06, 0.2, 0.2, 0.3, 0.14, 0.1]))

    def axis(self, rank: int) -> int:
        return int(self.rng.integers(-rank, rank))

    def positive(self, *shape: int) -> np.ndarray:
        return np.asarray(self.rng.uniform(0.3, 1.5, shape))

    def any(self, *shape: int) -> np.ndarray:
        return np.asarray(self.positive(*shape) * self.rng.choice([-1, 1], shape))

    def small(self, *shape: int) -> np.ndarray:
        return self.any(*shape) / 2

    def above(self, *shape: int) -> np.ndarray:
        return self.positive(*shape) + 1

    def distinct(self, *shape: int) -> np.ndarray:
        """No two alike, and none near another: for maxima."""
        n = int(np.prod(shape))
        return np.asarray((self.rng.permutation(n).reshape(shape) - n / 2 + 0.25) / max(n / 3, 1))

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts to this one."""
        cut = int(self.rng.integers(0, len(shape) + 1))
        return tuple(1 if self.rng.random() < 0.3 else n for n in shape[cut:])


@dataclass
class Case:
    inputs: Sequence[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    torch: Callable[..., Any] | None = None  # of the module and a tensor for each input, None for those left out
    constants: Sequence[int] = ()
    opset: int | None = None
    outputs: int | Sequence[bool] = 1
    wrt: Sequence[int] | None = None
    dynamic: bool = True  # may the extents be unknown?
    check: dict[str, Any] = field(default_factory=dict)  # step and tolerances of check_grad


CASES: list[tuple[Operator, Callable[[Draw, str], Case]]] = []
COVERED: dict[str, set[Operator]] = {"differences": set(), "PyTorch": set()}  # by tests of their own

F = TypeVar("F", bound=Callable[..., Any])
Drawing = TypeVar("Drawing", bound=Callable[[Draw, str], Case])


def case(*ops: str, domain: str = "") -> Callable[[Drawing], Drawing]:
    def register(draw: Drawing) -> Drawing:
        CASES.extend(((domain, op), draw) for op in ops)
        return draw

    return register


def covers(how: str, *ops: str, domain: str = "") -> Callable[[F], F]:
    """The test compares gradients of these operators with `how`: it fails if it takes none of them."""
    declared = {(domain, op) for op in ops}

    def register(test: F) -> F:
        COVERED[how] |= declared

        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            seen: set[Operator] = set()
            original = _core.gradient_model

            def watch(data: bytes, *rest: Any) -> Any:
                model = onnx.load_from_string(data)
                seen.update((n.domain, n.op_type) for graph in [model.graph, *model.functions] for n in graph.node)
                return original(data, *rest)

            with mock.patch.object(_core, "gradient_model", watch):
                test(*args, **kwargs)
            assert seen & declared, f"no gradient of {sorted(declared)} was taken"

        return run  # type: ignore[return-value]

    return register
