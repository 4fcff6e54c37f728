"""Layers of sequences [T, units], and what a transformer is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training.initializers import initialize
from tiercel.training.layers import Initializer, Layer, _count, _known

if TYPE_CHECKING:
    from tiercel.training.sequential import Builder


def _sequence(b: Builder) -> tuple[int | str, int]:
    if len(b.shape) != 2 or isinstance(b.shape[1], str):
        raise ValueError(f"{b.scope} takes sequences [T, units], got samples of shape {list(b.shape)}")
    return b.shape[0], b.shape[1]


def _count_of_steps(b: Builder) -> str:
    """The number of steps of the current value [batch, T, ...], as a scalar."""
    if isinstance(b.shape[0], int):
        return b.scalar(b.shape[0], np.int64)
    return b.node("Squeeze", [b.node("Shape", [b.current], {"start": 1, "end": 2}), b.ints(0)])


def _mask(b: Builder, *axes: int) -> str:
    """Which steps of the current value are no padding: [batch, T], with further ``axes`` of extent 1."""
    x = b.current
    if not b.mask:
        lengths = b.node("Unsqueeze", [b.node("Cast", [b.lengths], {"to": 7}), b.ints(1)])
        b.current = x
        places = b.node("Range", [b.scalar(0, np.int64), _count_of_steps(b), b.scalar(1, np.int64)])
        b.mask = b.node("Less", [places, lengths])
    mask = b.node("Unsqueeze", [b.mask, b.ints(*axes)])
    b.current = x
    return mask


class Embedding(Layer):
    """A row of ``units`` weights for each of ``vocabulary`` numbers: int64 [...] to [..., units]. ``padding``: a number
    that stands for nothing: its result is zeros, and nothing is learnt of it."""

    takes = "int64"
    by_step = True

    def __init__(
        self, vocabulary: int, units: int, padding: int | None = None, init: Initializer | None = None
    ) -> None:
        self.vocabulary, self.units, self.padding = _count("vocabulary", vocabulary), _count("units", units), padding
        if padding is not None and not 0 <= padding < vocabulary:
            raise ValueError(f"padding is one of the {vocabulary} numbers, from 0 on, not {padding}")
        self.init = init or (lambda rng, shape: rng.standard_normal(shape) / math.sqrt(shape[1]))

    def emit(self, b: Builder) -> None:
        if b.nodes:
            raise ValueError(f"{b.scope} takes whole numbers: it is the first layer")
        table = initialize(self.init, b.rng, (self.vocabulary, self.units), 0)
        ids = b.current
        rows = b.node("Gather", [b.weight("weight", table), ids], {"axis": 0})
        if self.padding is not None:
            table[self.padding] = 0
            counts = b.node("Not", [b.node("Equal", [ids, b.scalar(self.padding, np.int64)])])
            b.node("Unsqueeze", [b.node("Cast", [counts], {"to": 1}), b.ints(-1)])
            b.node("Mul", [rows, b.current])
        b.shape = (*b.shape, self.units)


class PositionEmbedding(Layer):
    """Adds a row of weights for each place of a sequence [T, units]. ``length``: of the longest one, where T has a
    name."""

    by_step = True

    def __init__(self, init: Initializer | None = None, length: int | None = None) -> None:
        self.init = init or (lambda rng, shape: rng.standard_normal(shape) * 0.02)
        self.length = None if length is None else _count("length", length)

    def emit(self, b: Builder) -> None:
        steps, units = _sequence(b)
        x, rows = b.current, self.length if isinstance(steps, str) and self.length else _known(b)[0]
        table = b.weight("weight", initialize(self.init, b.rng, (rows, units), 0))
        if isinstance(steps, str):
            table = b.node("Slice", [table, b.ints(0), b.node("Shape", [x], {"start": 1, "end": 2}), b.ints(0)])
        b.node("Add", [x, table])


class _Recurrent(Layer):
    """``return_sequences``: [T, units], the result of each step; else [units], that of the last. ``bidirectional``:
    twice as many, those of a second layer that goes from the end to the beginning after the others. ``init``: of the
    weights of the input, ``recurrent_init``: of the state. In a model with ``lengths`` a sequence ends at its own
    end."""

    by_step = True
    op = ""
    gates = 1

    def __init__(
        self,
        units: int,
        return_sequences: bool = False,
        bidirectional: bool = False,
        bias: bool = True,
        init: Initializer = "glorot",
        recurrent_init: Initializer = "orthogonal",
    ) -> None:
        self.units, self.return_sequences, self.bias = _count("units", units), return_sequences, bias
        self.directions = 2 if bidirectional else 1
        self.init, self.recurrent_init = init, recurrent_init

    def attributes(self) -> dict[str, Any]:
        return {}

    def first_bias(self) -> np.ndarray[Any, Any]:
        return np.zeros((self.directions, 2 * self.gates * self.units), np.float32)

    def _matrix(self, b: Builder, kind: Initializer, inputs: int) -> np.ndarray[Any, Any]:
        """[directions, gates * units, inputs], each gate by itself."""
        each = [initialize(kind, b.rng, (inputs, self.units), 0).T for _ in range(self.directions * self.gates)]
        return np.concatenate(each).reshape(self.directions, self.gates * self.units, inputs)

    def emit(self, b: Builder) -> None:
        steps, inputs = _sequence(b)
        operands = [b.node("Transpose", [b.current], {"perm": [1, 0, 2]}),
                    b.weight("weight", self._matrix(b, self.init, inputs)),
                    b.weight("recurrence", self._matrix(b, self.recurrent_init, self.units))]  # fmt: skip
        if self.bias:
            operands.append(b.weight("bias", self.first_bias()))
        if b.time is not None:
            operands += [""] * (4 - len(operands)) + [b.lengths]
            b.time = 0 if self.return_sequences else None
        attributes = {"hidden_size": self.units, "direction": "bidirectional" if self.directions == 2 else "forward"}
        b.node(self.op, operands, {**attributes, **self.attributes()}, 0 if self.return_sequences else 1)
        units = self.directions * self.units
        # all states [T, directions, batch, units], the last [directions, batch, units]
        b.node("Transpose", [b.current], {"perm": [2, 0, 1, 3] if self.return_sequences else [1, 0, 2]})
        b.node("Reshape", [b.current, b.ints(0, 0, units) if self.return_sequences else b.ints(0, units)])
        b.shape = (steps, units) if self.return_sequences else (units,)


class LSTM(_Recurrent):
    """Long short-term memory: [T, inputs] to [units], or with ``return_sequences`` to [T, units]. The bias of the
    forget gate begins at 1."""

    op, gates = "LSTM", 4

    def first_bias(self) -> np.ndarray[Any, Any]:
        bias = super().first_bias()
        bias[:, 2 * self.units : 3 * self.units] = 1  # input, output, forget, cell
        return bias


class GRU(_Recurrent):
    """Gated recurrent units: [T, inputs] to [units], or with ``return_sequences`` to [T, units]. The reset gate comes
    after the product, as in PyTorch and cuDNN."""

    op, gates = "GRU", 3

    def attributes(self) -> dict[str, Any]:
        return {"linear_before_reset": 1}


class RNN(_Recurrent):
    """Elman's network: [T, inputs] to [units], or with ``return_sequences`` to [T, units]. ``activation``: tanh,
    relu."""

    op = "RNN"

    def __init__(self, units: int, return_sequences: bool = False, bidirectional: bool = False, bias: bool = True,
                 init: Initializer = "glorot", recurrent_init: Initializer = "orthogonal",
                 activation: str = "tanh") -> None:  # fmt: skip
        super().__init__(units, return_sequences, bidirectional, bias, init, recurrent_init)
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation is tanh or relu, not {activation!r}")
        self.activation = activation

    def attributes(self) -> dict[str, Any]:
        return {"activations": [self.activation.capitalize()] * self.directions}


class MultiHeadAttention(Layer):
    """Self-attention of a sequence [T, units]: softmax(q k' / sqrt(d)) v for each of ``heads`` parts of the units, and
    a product with a last matrix. ``causal``: a place sees itself and those before it. In a model with ``lengths`` no
    place sees padding."""

    by_step = True

    def __init__(self, heads: int, causal: bool = False, bias: bool = True, init: Initializer = "glorot") -> None:
        self.heads, self.causal, self.bias, self.init = _count("heads", heads), causal, bias, init

    def _dense(self, b: Builder, x: str, name: str, units: int) -> str:
        y = b.node("MatMul", [x, b.weight(f"{name}.weight", initialize(self.init, b.rng, (units, units), 0))])
        return b.node("Add", [y, b.weight(f"{name}.bias", np.zeros(units, np.float32))]) if self.bias else y

    def emit(self, b: Builder) -> None:
        _, units = _sequence(b)
        if units % self.heads:
            raise ValueError(f"{b.scope}: {units} units do not divide into {self.heads} heads")
        x, each = b.current, units // self.heads
        parts = []
        for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            split = b.node("Reshape", [self._dense(b, x, name, units), b.ints(0, 0, self.heads, each)])
            parts.append(b.node("Transpose", [split], {"perm": order}))
        scaled = b.node("Mul", [parts[0], b.scalar(1 / math.sqrt(each))])
        scores = b.node("MatMul", [scaled, parts[1]])
        b.current, seen = x, ""
        if b.time is not None:
            seen = _mask(b, 1, 2)
        if self.causal:
            places = b.node("Range", [b.scalar(0, np.int64), _count_of_steps(b), b.scalar(1, np.int64)])
            before = b.node("GreaterOrEqual", [b.node("Unsqueeze", [places, b.ints(1)]), places])
            seen = b.node("And", [before, seen]) if seen else before
        if seen:
            scores = b.node("Where", [seen, scores, b.scalar(-math.inf)])
        b.node("MatMul", [b.node("Softmax", [scores], {"axis": -1}), parts[2]])
        b.node("Transpose", [b.current], {"perm": [0, 2, 1, 3]})
        b.node("Reshape", [b.current, b.ints(0, 0, units)])
        self._dense(b, b.current, "output", units)


class SequencePool(Layer):
    """One of all steps: [T, units] to [units]. ``kind``: mean, max, or last, the result of the last step. In a model
    with ``lengths`` of a sequence's own steps alone."""

    by_step = True

    def __init__(self, kind: str = "mean") -> None:
        if kind not in ("mean", "max", "last"):
            raise ValueError(f"kind is mean, max or last, not {kind!r}")
        self.pooled = kind

    def emit(self, b: Builder) -> None:
        _, units = _sequence(b)
        x, axis, padded = b.current, b.ints(1), b.time is not None
        if self.pooled == "last" and padded:
            at = b.node("Sub", [b.node("Cast", [b.lengths], {"to": 7}), b.scalar(1, np.int64)])
            b.node("GatherND", [x, b.node("Unsqueeze", [at, axis])], {"batch_dims": 1})
        elif self.pooled == "last":
            b.node("Gather", [x, b.scalar(-1, np.int64)], {"axis": 1})
        elif not padded:
            b.node("ReduceMean" if self.pooled == "mean" else "ReduceMax", [x, axis], {"keepdims": 0})
        elif self.pooled == "max":
            own = b.node("Where", [_mask(b, 2), x, b.scalar(-math.inf)])
            b.node("ReduceMax", [own, axis], {"keepdims": 0})
        else:
            total = b.node("ReduceSum", [b.node("Where", [_mask(b, 2), x, b.scalar(0.0)]), axis], {"keepdims": 0})
            b.node("Div", [total, b.node("Unsqueeze", [b.node("Cast", [b.lengths], {"to": 1}), axis])])
        b.time, b.shape = None, (units,)


class Residual(Layer):
    """x + f(x), f being the layers one after another."""

    by_step = True

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def emit(self, b: Builder) -> None:
        x, shape = b.current, b.shape
        for layer in self.layers:
            b.add(layer)
        if b.shape != shape:
            raise ValueError(f"{b.scope}: the layers make {list(b.shape)} of {list(shape)}: they cannot be added")
        b.node("Add", [x, b.current])
