"""Work that memory bounds: pointwise maths, softmax, normalisations, reductions, data movement, pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import Work, engines, measure, normal, one_node


def unary(op: str, function: Any = None, **attributes: Any) -> list[Work]:
    """In L1, in L2, in memory."""
    works = []
    for n in (4096, 128 * 768, 8 << 20):
        x = normal(n)
        if op in ("Log", "Sqrt"):
            x = np.abs(x) + 0.1
        run = (lambda x=x: [function(x)]) if function else None
        works.append(one_node(op, [x], attributes, bytes=8 * n, numpy=run, name=f"{op} {n}"))
    return works


def binary(op: str, function: Any, a: tuple[int, ...], b: tuple[int, ...]) -> Work:
    x, y = normal(*a), normal(*b)
    size = np.broadcast_shapes(a, b)
    shapes = f"{'x'.join(map(str, a))} {'x'.join(map(str, b))}"
    total = 4 * (x.size + y.size + int(np.prod(size)))
    return one_node(op, [x, y], bytes=total, numpy=lambda: [function(x, y)], name=f"{op} {shapes}")


def rows(op: str, shape: tuple[int, ...], extra: list[np.ndarray] | None = None, **attributes: Any) -> Work:
    x = normal(*shape)
    constants = list(range(1, 1 + len(extra or [])))
    return one_node(
        op,
        [x, *(extra or [])],
        attributes,
        constants=constants,
        bytes=8 * x.size,
        name=f"{op} {'x'.join(map(str, shape))}",
    )


def reduce(op: str, function: Any, shape: tuple[int, ...], axis: int) -> Work:
    x = normal(*shape)
    axes = np.array([axis], np.int64)
    return one_node(
        op, [x, axes], constants=[1], bytes=4 * x.size, numpy=lambda: [function(x, axis=axis, keepdims=True)],
        name=f"{op} {'x'.join(map(str, shape))} axis {axis}",
    )  # fmt: skip


def transpose(shape: tuple[int, ...], perm: tuple[int, ...]) -> Work:
    x = normal(*shape)
    return one_node(
        "Transpose", [x], {"perm": perm}, bytes=8 * x.size, numpy=lambda: [np.ascontiguousarray(x.transpose(perm))],
        name=f"Transpose {'x'.join(map(str, shape))} {perm}",
    )  # fmt: skip


def pool(op: str, c: int, size: int, kernel: int, stride: int) -> Work:
    x = normal(1, c, size, size)
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
    return one_node(
        op, [x], attributes, bytes=4 * x.size * (1 + 1 / stride**2), name=f"{op} {c}x{size}x{size} {kernel} /{stride}"
    )


def resize(mode: str, c: int, size: int) -> Work:
    x, scales = normal(1, c, size, size), np.array([1, 1, 2, 2], np.float32)
    return one_node(
        "Resize",
        [x, None, scales],
        {"mode": mode},
        constants=[2],
        bytes=20 * x.size,
        name=f"Resize {mode} {c}x{size}x{size}",
    )


POINTWISE = [
    *unary("Relu", lambda x: np.maximum(x, 0)), *unary("Exp", np.exp), *unary("Log", np.log), *unary("Tanh", np.tanh),
    *unary("Sigmoid"), *unary("Erf"), *unary("Gelu"), *unary("HardSwish"), *unary("Sqrt", np.sqrt), *unary("Sin", np.sin),
    binary("Add", np.add, (128, 768), (128, 768)), binary("Add", np.add, (128, 768), (768,)),
    binary("Mul", np.multiply, (1, 64, 56, 56), (1, 64, 1, 1)), binary("Div", np.divide, (1 << 22,), (1 << 22,)),
]  # fmt: skip
ROWS = [
    rows("Softmax", (12, 128, 128)), rows("Softmax", (8, 1000)), rows("Softmax", (1, 50257)), rows("Softmax", (64, 16, 7), axis=1),
    rows("LogSoftmax", (128, 1000)),
    rows("LayerNormalization", (128, 768), [normal(768), normal(768)]), rows("LayerNormalization", (3136, 96), [normal(96), normal(96)]),
    rows("InstanceNormalization", (1, 64, 56, 56), [normal(64), normal(64)]),
    reduce("ReduceMean", np.mean, (1, 512, 49), 2), reduce("ReduceSum", np.sum, (4096, 1024), 1),
    reduce("ReduceSum", np.sum, (4096, 1024), 0), reduce("ReduceMax", np.max, (256, 10000), 1),
]  # fmt: skip
MOVEMENT = [
    transpose((1, 128, 12, 64), (0, 2, 1, 3)), transpose((1024, 1024), (1, 0)), transpose((1, 96, 56, 56), (0, 2, 3, 1)),
    pool("MaxPool", 64, 112, 3, 2), pool("AveragePool", 64, 56, 3, 1),
    resize("nearest", 64, 40), resize("linear", 64, 40),
]  # fmt: skip


@pytest.mark.parametrize(("work", "engine"), engines(POINTWISE), ids=str)
def test_pointwise(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)


@pytest.mark.parametrize(("work", "engine"), engines(ROWS), ids=str)
def test_rows(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)


@pytest.mark.parametrize(("work", "engine"), engines(MOVEMENT), ids=str)
def test_movement(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)
