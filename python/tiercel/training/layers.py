"""Layers of a Sequential. Each emits the ONNX nodes that it is made of; images are [N, C, ...]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel.training.initializers import initialize

if TYPE_CHECKING:
    from tiercel.training.sequential import Builder

Initializer = str | Callable[[np.random.Generator, Sequence[int]], np.ndarray[Any, Any]]
Extents = int | Sequence[int]

# name -> ONNX operator, its attributes
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}), "sigmoid": ("Sigmoid", {}), "tanh": ("Tanh", {}), "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}), "leaky_relu": ("LeakyRelu", {}), "elu": ("Elu", {}), "selu": ("Selu", {}),
    "softplus": ("Softplus", {}), "softsign": ("Softsign", {}), "mish": ("Mish", {}), "hard_swish": ("HardSwish", {}),
    "hard_sigmoid": ("HardSigmoid", {}), "softmax": ("Softmax", {"axis": -1}), "log_softmax": ("LogSoftmax", {"axis": -1}),
}  # fmt: skip


def _each(value: Extents, rank: int, scope: str = "", what: str = "", least: int = 1) -> list[int]:
    each = [value] if isinstance(value, float) else [value] * rank if isinstance(value, (int, np.integer)) else list(value)
    if len(each) != rank or not all(isinstance(n, (int, np.integer)) and n >= least for n in each):
        raise ValueError(f"{scope}: {what} is a number from {least} on, or {rank} of them, not {value}")
    return [int(n) for n in each]


def _known(b: Builder) -> tuple[int, ...]:
    """The shape, which must have numbers only."""
    if any(isinstance(n, str) for n in b.shape):
        raise ValueError(f"{b.scope} takes samples of a known shape, not {list(b.shape)}")
    return b.shape


def _channels(b: Builder, least: int = 1) -> int:
    """The first extent of samples [C, ...]."""
    if len(b.shape) < least:
        raise ValueError(f"{b.scope} takes samples [C, ...] of rank {least} or more, got {list(b.shape)}")
    if isinstance(b.shape[0], str):
        raise ValueError(
            f"{b.scope}: the first extent of samples {list(b.shape)}, the channels, should be a number, not a name"
        )
    return int(b.shape[0])


def _count(name: str, value: int) -> int:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is a whole number from 1 on, not {value!r}")
    return int(value)


def _last(b: Builder) -> int:
    if not b.shape or isinstance(b.shape[-1], str):
        raise ValueError(f"{b.scope}: the last extent of samples {list(b.shape)} should be known")
    return int(b.shape[-1])


class Layer:
    """``emit`` adds the layer's nodes to a builder, whose ``shape`` is that of one sample, and leaves that of the
    result there."""

    takes = "float32"  # what a model that begins with the layer is fed
    by_step = False  # of sequences [T, ...]: padding behind a sequence's end does not reach the results of its steps

    def emit(self, b: Builder) -> None:
        raise NotImplementedError

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


class Activation(Layer):
    """relu, leaky_relu, elu, selu, gelu, gelu_tanh, sigmoid, tanh, softplus, softsign, mish, silu, hard_swish,
    hard_sigmoid, softmax, log_softmax."""

    by_step = True

    def __init__(self, name: str) -> None:
        if name != "silu" and name not in _ACTIVATIONS:
            raise ValueError(
                f"there is no activation {name!r}; there are: {', '.join(sorted([*_ACTIVATIONS, 'silu']))}"
            )
        self.name = name

    def emit(self, b: Builder) -> None:
        if self.name == "silu":
            x = b.current
            b.node("Mul", [x, b.node("Sigmoid", [x])])
        else:
            op, attributes = _ACTIVATIONS[self.name]
            b.node(op, [b.current], attributes)


def _activate(b: Builder, activation: str | None) -> None:
    if activation:
        Activation(activation).emit(b)


def _default_init(activation: str | None) -> str:
    return (
        "he"
        if activation in ("relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "mish", "hard_swish", "elu")
        else "glorot"
    )


class Dense(Layer):
    """``units`` results, each a weighted sum of the last axis. ``init``: of the weights; by default He's for the
    relatives of ReLU, else Glorot's."""

    by_step = True

    def __init__(
        self, units: int, activation: str | None = None, bias: bool = True, init: Initializer | None = None
    ) -> None:
        self.units, self.activation, self.bias = _count("units", units), activation, bias
        self.init = init or _default_init(activation)

    def emit(self, b: Builder) -> None:
        inputs = _last(b)
        w = b.weight("weight", initialize(self.init, b.rng, (inputs, self.units), 0))
        bias = b.weight("bias", np.zeros(self.units, np.float32)) if self.bias else ""
        if len(b.shape) == 1:
            b.node("Gemm", [b.current, w, bias] if bias else [b.current, w])
        else:
            b.node("MatMul", [b.current, w])
            if bias:
                b.node("Add", [b.current, bias])
        b.shape = (*b.shape[:-1], self.units)
        _activate(b, self.activation)


class Conv(Layer):
    """A convolution of any rank over [C, ...]. ``padding``: "same", "valid" or pixels."""

    def __init__(
        self,
        filters: int,
        kernel: Extents = 3,
        stride: Extents = 1,
        padding: str | Extents = "same",
        dilation: Extents = 1,
        groups: int = 1,
        activation: str | None = None,
        bias: bool = True,
        init: Initializer | None = None,
    ) -> None:
        self.filters, self.kernel, self.stride, self.padding = _count("filters", filters), kernel, stride, padding
        self.dilation, self.groups, self.activation, self.bias = dilation, _count("groups", groups), activation, bias
        self.init = init or _default_init(activation)

    def _extents(self, b: Builder) -> tuple[int, list[int], list[int], list[int], list[int]]:
        """Channels, space, kernel, stride, dilation."""
        channels, space = _channels(b, 2), list(b.shape[1:])
        rank = len(space)
        if channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{b.scope}: {channels} channels and {self.filters} filters do not divide into {self.groups} groups"
            )
        kernel, stride, dilation = (
            _each(getattr(self, what), rank, b.scope, what) for what in ("kernel", "stride", "dilation")
        )
        return channels, space, kernel, stride, dilation

    def emit(self, b: Builder) -> None:
        channels, space, kernel, stride, dilation = self._extents(b)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        begin, end = _pads(b.scope, self.padding, space, reach, stride)
        shape = (self.filters, channels // self.groups, *kernel)
        inputs = [b.current, b.weight("weight", initialize(self.init, b.rng, shape, 1))]
        if self.bias:
            inputs.append(b.weight("bias", np.zeros(self.filters, np.float32)))
        b.node(
            "Conv",
            inputs,
            {
                "kernel_shape": kernel,
                "strides": stride,
                "dilations": dilation,
                "pads": begin + end,
                "group": self.groups,
            },
        )
        b.shape = (self.filters, *_slide(b.scope, space, reach, stride, begin, end))
        _activate(b, self.activation)


class ConvTranspose(Conv):
    """The transpose of a convolution: ``stride`` makes the image larger. ``padding``: "same" (the extents times the
    stride), "valid" or pixels that are cut off; ``output_padding``: rows that are added at the end."""

    def __init__(
        self,
        filters: int,
        kernel: Extents = 3,
        stride: Extents = 1,
        padding: str | Extents = "same",
        dilation: Extents = 1,
        groups: int = 1,
        activation: str | None = None,
        bias: bool = True,
        init: Initializer | None = None,
        output_padding: Extents = 0,
    ) -> None:
        super().__init__(filters, kernel, stride, padding, dilation, groups, activation, bias, init)
        self.output_padding = output_padding

    def emit(self, b: Builder) -> None:
        _known(b)
        channels, space, kernel, stride, dilation = self._extents(b)
        more = _each(self.output_padding, len(space), b.scope, "output_padding", 0)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if self.padding == "same":
            cut = [max(r - s, 0) for r, s in zip(reach, stride, strict=True)]
            more = [m + max(s - r, 0) for m, r, s in zip(more, reach, stride, strict=True)]
            begin, end = [c // 2 for c in cut], [c - c // 2 for c in cut]
        else:
            begin, end = _pads(b.scope, self.padding, space, reach, stride)
        out = [
            (n - 1) * s - p - q + r + m for n, s, p, q, r, m in zip(space, stride, begin, end, reach, more, strict=True)
        ]
        if min(out) < 1 or any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
            raise ValueError(f"{b.scope}: padding or output_padding does not fit: the result would be {out}")
        shape = (self.filters // self.groups, channels, *kernel)
        weight = b.weight("weight", np.ascontiguousarray(initialize(self.init, b.rng, shape, 1).swapaxes(0, 1)))
        inputs = [b.current, weight]
        if self.bias:
            inputs.append(b.weight("bias", np.zeros(self.filters, np.float32)))
        attributes = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "pads": begin + end,
                      "output_padding": more, "group": self.groups}  # fmt: skip
        b.node("ConvTranspose", inputs, attributes)
        b.shape = (self.filters, *out)
        _activate(b, self.activation)


def _pads(
    scope: str, padding: str | Extents, space: list[int], reach: list[int], stride: list[int]
) -> tuple[list[int], list[int]]:
    if padding == "valid":
        return [0] * len(space), [0] * len(space)
    if padding == "same":
        total = [
            r - 1 if isinstance(n, str) else max((-(-n // s) - 1) * s + r - n, 0)
            for n, r, s in zip(space, reach, stride, strict=True)
        ]
        return [t // 2 for t in total], [t - t // 2 for t in total]
    if isinstance(padding, str):
        raise ValueError(f"padding is same, valid or a number of pixels, not {padding!r}")
    both = _each(padding, len(space), scope, "padding", 0)
    return both, list(both)


def _slide(
    scope: str, space: list[int], reach: list[int], stride: list[int], begin: list[int], end: list[int]
) -> list[int]:
    for n, p, q, r, s in zip(space, begin, end, reach, stride, strict=True):
        if isinstance(n, str) and (s != 1 or p + q != r - 1):
            raise ValueError(f"{scope}: the extent {n!r} has no number: it takes padding same and a stride of 1")
    out = [
        n if isinstance(n, str) else (n + p + q - r) // s + 1
        for n, p, q, r, s in zip(space, begin, end, reach, stride, strict=True)
    ]
    if any(not isinstance(n, str) and n < 1 for n in out):
        raise ValueError(f"{scope}: a window of {reach} does not fit {space}")
    return out


class _Pool(Layer):
    op = ""

    def __init__(self, size: Extents = 2, stride: Extents | None = None, padding: str | Extents = "valid") -> None:
        self.size, self.stride, self.padding = size, size if stride is None else stride, padding

    def emit(self, b: Builder) -> None:
        channels, space = b.shape[:1], list(b.shape[1:])
        if not space:
            raise ValueError(f"{b.scope}: a pool takes [C, ...], got samples of shape {b.shape}")
        size, stride = (_each(getattr(self, what), len(space), b.scope, what) for what in ("size", "stride"))
        begin, end = _pads(b.scope, self.padding, space, size, stride)
        if any(p >= n or q >= n for p, q, n in zip(begin, end, size, strict=True)):
            raise ValueError(f"{b.scope}: padding {self.padding} is not below the size {size}")
        b.node(self.op, [b.current], {"kernel_shape": size, "strides": stride, "pads": begin + end})
        b.shape = (*channels, *_slide(b.scope, space, size, stride, begin, end))


class MaxPool(_Pool):
    op = "MaxPool"


class AveragePool(_Pool):
    """Means of windows, which leave padding out."""

    op = "AveragePool"


class GlobalAveragePool(Layer):
    """The mean over the axes after the first: [C, ...] to [C]."""

    op = "GlobalAveragePool"

    def emit(self, b: Builder) -> None:
        if len(b.shape) < 2:
            raise ValueError(f"{b.scope}: a pool takes [C, ...], got samples of shape {b.shape}")
        b.node(self.op, [b.current])
        b.node("Flatten", [b.current], {"axis": 1})
        b.shape = b.shape[:1]


class GlobalMaxPool(GlobalAveragePool):
    """The largest over the axes after the first: [C, ...] to [C]."""

    op = "GlobalMaxPool"


class BatchNorm(Layer):
    """``momentum``: the share of the running statistics that stays at each step, as ONNX has it (1 - PyTorch's)."""

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5) -> None:
        self.momentum, self.epsilon = momentum, epsilon

    def emit(self, b: Builder) -> None:
        n = _channels(b)
        names = [b.weight(name, np.full(n, value, np.float32)) for name, value in
                 (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1))]  # fmt: skip
        b.node(
            "BatchNormalization",
            [b.current, *names],
            {"momentum": float(self.momentum), "epsilon": float(self.epsilon)},
        )


class LayerNorm(Layer):
    """Over the last axis."""

    by_step = True

    def __init__(self, epsilon: float = 1e-5) -> None:
        self.epsilon = epsilon

    def emit(self, b: Builder) -> None:
        n = _last(b)
        scale, bias = b.weight("scale", np.ones(n, np.float32)), b.weight("bias", np.zeros(n, np.float32))
        b.node("LayerNormalization", [b.current, scale, bias], {"axis": -1, "epsilon": float(self.epsilon)})


class RMSNorm(Layer):
    """Over the last axis: x / sqrt(mean x^2 + epsilon), scaled."""

    by_step = True

    def __init__(self, epsilon: float = 1e-6) -> None:
        self.epsilon = epsilon

    def emit(self, b: Builder) -> None:
        x = b.current
        mean = b.node("ReduceMean", [b.node("Mul", [x, x]), b.ints(-1)], {"keepdims": 1})
        b.node("Div", [x, b.node("Sqrt", [b.node("Add", [mean, b.scalar(self.epsilon)])])])
        b.node("Mul", [b.current, b.weight("scale", np.ones(_last(b), np.float32))])


class GroupNorm(Layer):
    """Over ``groups`` groups of channels of [C, ...], each with all of its space; one group a channel is the norm of an
    instance."""

    def __init__(self, groups: int, epsilon: float = 1e-5) -> None:
        self.groups, self.epsilon = _count("groups", groups), epsilon

    def emit(self, b: Builder) -> None:
        n = _channels(b, 2)
        if n % self.groups:
            raise ValueError(f"{b.scope}: samples {list(b.shape)} do not divide into {self.groups} groups of channels")
        scale, bias = b.weight("scale", np.ones(n, np.float32)), b.weight("bias", np.zeros(n, np.float32))
        attributes = {"num_groups": self.groups, "epsilon": float(self.epsilon)}
        b.node("GroupNormalization", [b.current, scale, bias], attributes)


class Flatten(Layer):
    def emit(self, b: Builder) -> None:
        shape = _known(b)
        b.node("Flatten", [b.current], {"axis": 1})
        b.shape = (math.prod(shape),)


class Dropout(Layer):
    by_step = True

    def __init__(self, ratio: float = 0.5) -> None:
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio is within [0, 1), not {ratio}")
        self.ratio = ratio

    def emit(self, b: Builder) -> None:
        b.node("Dropout", [b.current, b.weight("ratio", np.array(self.ratio, np.float32))])


class Reshape(Layer):
    """Samples in another shape; one extent may be -1."""

    def __init__(self, *shape: int) -> None:
        if not all(isinstance(n, (int, np.integer)) for n in shape):
            raise ValueError(f"the extents are whole numbers, as in Reshape(2, 6), not {shape}")
        self.shape = shape

    def emit(self, b: Builder) -> None:
        count, known = math.prod(_known(b)), math.prod(n for n in self.shape if n != -1)
        wrong = any(n < 1 and n != -1 for n in self.shape) or self.shape.count(-1) > 1
        if wrong or (count % known if -1 in self.shape else count != known):
            raise ValueError(f"{b.scope}: samples of shape {list(b.shape)} cannot be {list(self.shape)}")
        b.shape = tuple(count // known if n == -1 else n for n in self.shape)
        b.node("Reshape", [b.current, b.ints(-1, *b.shape)])


class Permute(Layer):
    """The axes of a sample, numbered from 1, in another order: Permute(2, 1) of [C, T] gives [T, C]."""

    def __init__(self, *axes: int) -> None:
        self.axes = axes

    def emit(self, b: Builder) -> None:
        if sorted(self.axes) != list(range(1, len(b.shape) + 1)):
            raise ValueError(
                f"{b.scope}: axes {list(self.axes)} do not order the axes 1 to {len(b.shape)} of {list(b.shape)}"
            )
        b.node("Transpose", [b.current], {"perm": [0, *self.axes]})
        b.time = None if b.time is None else self.axes.index(b.time + 1)
        b.shape = tuple(b.shape[axis - 1] for axis in self.axes)
