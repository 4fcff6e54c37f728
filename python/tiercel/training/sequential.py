"""A model from nothing: layers one after another, as ONNX."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.training.layers import Layer


class Builder:
    """What layers emit into: nodes, weights, the name of the current value and the shape of one sample."""

    def __init__(self, shape: tuple[int, ...], current: str, rng: np.random.Generator) -> None:
        self.shape, self.current, self.rng = shape, current, rng
        self.scope = ""
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self._names: Counter[str] = Counter()

    def node(self, op: str, inputs: list[str], attributes: dict[str, Any] | None = None) -> str:
        """Adds a node; its result, which is returned, is the current value then."""
        name = f"{self.scope}/{op}"
        self._names[name] += 1
        if self._names[name] > 1:
            name += f"_{self._names[name]}"
        self.nodes.append((op, inputs, [name], attributes or {}))
        self.current = name
        return name

    def ints(self, *values: int) -> str:
        """The name of a constant [n] of int64, made once."""
        name = f"ints_{'_'.join(map(str, values))}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def weight(self, name: str, value: np.ndarray[Any, Any]) -> str:
        name = f"{self.scope}.{name}"
        self.weights[name] = value
        return name


class Sequential:
    """``Sequential([Dense(16, "relu"), Dense(1)], input_shape=(2,), seed=0)``: ``build()`` gives the .onnx bytes,
    ``save(path)`` writes them. ``input_shape``: of one sample; the batch is an axis before it, named "batch". The
    same seed gives the same weights."""

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        seed: int = 0,
        input_name: str = "x",
        output_name: str = "y",
    ) -> None:
        self.layers, self.input_shape, self.seed = list(layers), tuple(input_shape), seed
        b = Builder(self.input_shape, input_name, np.random.default_rng(seed))
        kinds: Counter[str] = Counter()
        for layer in self.layers:
            b.scope = f"{layer.kind}{kinds[layer.kind]}"
            kinds[layer.kind] += 1
            layer.emit(b)
        b.scope = "output"
        if not b.nodes:
            raise ValueError("a model has one layer at least")
        op, inputs, _, attributes = b.nodes[-1]
        b.nodes[-1] = (op, inputs, [output_name], attributes)
        self.output_shape = b.shape
        self.weights = b.weights
        extents: list[int | str] = ["batch", *self.input_shape]
        inputs_of_model: list[tuple[str, np.dtype[Any], Sequence[int | str]]] = [
            (input_name, np.dtype(np.float32), extents)
        ]
        self._bytes: bytes = _core.build_model(inputs_of_model, {**b.weights, **b.constants}, b.nodes, [output_name])

    def build(self) -> bytes:
        return self._bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_bytes(self._bytes)
