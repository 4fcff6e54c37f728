"""A random graph while it grows: what nodes are drawn from, and how they are added."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Shape = tuple[int, ...]


class Drawing:
    """A graph that grows; every method adds nodes that compute something of values drawn from those there are."""

    def __init__(self, seed: int, opset: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset or int(self.rng.choice([13, 13, 15, 17, 18, 19, 21, 23]))
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.shapes: dict[str, Shape] = {}
        self.feeds: dict[str, np.ndarray] = {}
        self.order: list[str] = []
        self.count = 0

    # ---- pieces

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def const(self, value: Any, dtype: str = "float32") -> str:
        name = self.name()
        self.inits.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.const(self.rng.normal(0, scale / np.sqrt(fan), shape))

    def vector(self, *shape: int) -> str:
        return self.const(self.rng.uniform(-1, 1, shape))

    def positive(self, *shape: int) -> str:
        return self.const(self.rng.uniform(0.5, 1.5, shape))

    def input(self, shape: Shape) -> str:
        name = f"x{len(self.feeds)}"
        self.feeds[name] = self.rng.uniform(-1.5, 1.5, shape).astype(np.float32)
        self.shapes[name] = shape
        self.order.append(name)
        return name

    def emit(self, op: str, inputs: list[str], shape: Shape | None, **attrs: Any) -> str:
        """A node; a shape of None: the value is not drawn again."""
        out = self.name()
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"n{len(self.nodes)}", **attrs))
        if shape is not None:
            self.shapes[out] = tuple(int(d) for d in shape)
            self.order.append(out)
        return out

    def hidden(self, op: str, inputs: list[str], **attrs: Any) -> str:
        return self.emit(op, inputs, None, **attrs)

    def of_rank(self, *ranks: int) -> str | None:
        """A value of one of those ranks, rather a late one."""
        found = [v for v in self.order if len(self.shapes[v]) in ranks]
        if not found:
            return None
        return found[-1 - min(int(self.rng.exponential(1.5)), len(found) - 1)]

    def of_shape(self, shape: Shape, but: str | None = None) -> str | None:
        found = [v for v in self.order if self.shapes[v] == shape and v != but]
        return self.pick(found) if found else None

    def two(self, op: str, a: str, b: str, shape: Shape | None) -> str:
        return self.emit(op, [a, b] if self.chance(0.5) else [b, a], shape)
