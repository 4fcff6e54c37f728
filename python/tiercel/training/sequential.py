"""A model from nothing: layers one after another, as ONNX."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiercel import _core
from tiercel.training.checks import replace_file, whole
from tiercel.training.layers import Layer, Permute


class Builder:
    """What layers emit into: nodes, weights, the name of the current value and the shape of one sample."""

    def __init__(self, shape: tuple[Any, ...], current: str, rng: np.random.Generator) -> None:
        self.shape, self.current, self.rng = shape, current, rng
        self.scope = ""
        self.lengths = self.mask = ""  # with lengths: their input [batch], and which steps are no padding, once made
        self.time: int | None = None  # the axis of a sample along which it is padded
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self._names: Counter[str] = Counter()
        self._layers: Counter[str] = Counter()

    def node(self, op: str, inputs: list[str], attributes: dict[str, Any] | None = None, output: int = 0) -> str:
        """Adds a node; its result number ``output``, which is returned, is the current value then."""
        name = f"{self.scope}/{op}"
        self._names[name] += 1
        if self._names[name] > 1:
            name += f"_{self._names[name]}"
        self.nodes.append((op, inputs, [""] * output + [name], attributes or {}))
        self.current = name
        return name

    def add(self, layer: Layer) -> None:
        """Emits a layer, in a scope of its own within that of the layer around it."""
        outer = self.scope
        kind = f"{outer}." * bool(outer) + layer.kind
        self.scope = f"{kind}{self._layers[kind]}"
        self._layers[kind] += 1
        if self.time is not None and not isinstance(layer, Permute):
            self._check_steps(layer)
        layer.emit(self)
        self.scope = outer

    def _check_steps(self, layer: Layer) -> None:
        if self.time != 0:
            raise ValueError(
                f"{self.scope}: in a model with lengths layers take sequences [T, ...], but T is axis {self.time} of "
                f"{list(self.shape)}: a Permute is the last layer, or another one brings T back"
            )
        if not layer.by_step:
            raise ValueError(
                f"{self.scope} would mix a sequence of a model with lengths with its padding: an LSTM, GRU, RNN or "
                "SequencePool makes one vector of it first (a layer of your own that takes each step by itself says "
                "by_step = True)"
            )
        if len(self.shape) < 2 and layer.takes == "float32":
            raise ValueError(f"{self.scope} takes sequences [T, units], got samples of shape {list(self.shape)}")

    def ints(self, *values: int) -> str:
        """The name of a constant [n] of int64, made once."""
        name = f"ints_{'_'.join(map(str, values))}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def scalar(self, value: float, dtype: Any = np.float32) -> str:
        """The name of a constant of rank 0, made once."""
        name = f"{np.dtype(dtype).name}_{value}"
        self.constants[name] = np.array(value, dtype)
        return name

    def weight(self, name: str, value: np.ndarray[Any, Any]) -> str:
        name = f"{self.scope}.{name}"
        self.weights[name] = value
        return name


class Sequential:
    """``Sequential([Dense(16, "relu"), Dense(1)], input_shape=(2,), seed=0)``: ``build()`` gives the .onnx bytes,
    ``save(path)`` writes them. ``input_shape``: of one sample, where a name ("time") stands for an extent that differs
    from batch to batch; the batch is an axis before it, named "batch". The input holds floats, where the first layer is
    an Embedding int64. The same seed gives the same weights. ``lengths``: samples are sequences of different lengths,
    padded at their ends to the first extent; a second input "lengths" (int32 [batch]) says how long each is, and no
    result depends on padding."""

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int | str],
        seed: int = 0,
        input_name: str = "x",
        output_name: str = "y",
        lengths: bool = False,
    ) -> None:
        self.layers, self.input_shape, self.seed = list(layers), tuple(input_shape), seed
        if any(
            not n if isinstance(n, str) else not isinstance(n, (int, np.integer)) or n < 1 for n in self.input_shape
        ):
            raise ValueError(
                f"input_shape is that of one sample: whole numbers from 1 on, or names of extents, not {self.input_shape}"
            )
        b = Builder(self.input_shape, input_name, np.random.default_rng(whole("seed", seed)))
        if lengths:
            if not self.input_shape or input_name == "lengths":
                raise ValueError('a model with lengths takes sequences (input_shape begins with T), not named "lengths"')
            b.lengths, b.time = "lengths", 0
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers are objects such as Dense(3), not {layer!r}")
            b.add(layer)
        if not b.nodes:
            raise ValueError("a model has one layer at least")
        op, inputs, outputs, attributes = b.nodes[-1]
        b.nodes[-1] = (op, inputs, [*outputs[:-1], output_name], attributes)
        self.output_shape = b.shape
        self.weights = b.weights
        extents: list[int | str] = ["batch", *self.input_shape]
        inputs_of_model: list[tuple[str, np.dtype[Any], Sequence[int | str]]] = [
            (input_name, np.dtype(self.layers[0].takes), extents)
        ]
        if lengths:
            inputs_of_model.append(("lengths", np.dtype("int32"), ["batch"]))
        self._bytes: bytes = _core.build_model(inputs_of_model, {**b.weights, **b.constants}, b.nodes, [output_name])

    def build(self) -> bytes:
        return self._bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a new file, which then takes the name."""
        replace_file(path, lambda part: Path(part).write_bytes(self._bytes))
