"""Convolutions of real networks: dense 3x3 and 1x1, stems, strides, depthwise, grouped, dilated, transposed."""

from __future__ import annotations

from typing import Any

import pytest

from support import Work, engines, measure, normal, one_node


def conv(
    c: int, o: int, size: tuple[int, ...], kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1, batch: int = 1,
    name: str = "",
) -> Work:  # fmt: skip
    rank = len(size)
    x, w, bias = normal(batch, c, *size), normal(o, c // groups, *[kernel] * rank) * 0.05, normal(o)
    pad = dilation * (kernel - 1) // 2
    attributes = {
        "strides": [stride] * rank, "group": groups, "dilations": [dilation] * rank, "pads": [pad] * 2 * rank,
        "kernel_shape": [kernel] * rank,
    }  # fmt: skip
    pixels = batch
    for s in size:
        pixels *= (s + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    place = "x".join(map(str, size))
    title = f"{name or 'conv'} {c}->{o} {kernel}{'x' + str(kernel) if rank == 2 else ''} /{stride} on {place}"
    return one_node(
        "Conv", [x, w, bias], attributes, constants=[1, 2], flops=2.0 * pixels * o * (c // groups) * kernel**rank,
        bytes=4.0 * (x.size + w.size + pixels * o), name=title,
    )  # fmt: skip


def transposed(c: int, o: int, size: int, kernel: int, stride: int) -> Work:
    x, w = normal(1, c, size, size), normal(c, o, kernel, kernel) * 0.05
    pad = (kernel - stride) // 2
    return one_node(
        "ConvTranspose", [x, w], {"strides": [stride] * 2, "pads": [pad] * 4}, constants=[1],
        flops=2.0 * size * size * c * o * kernel * kernel, name=f"transposed {c}->{o} {kernel}x{kernel} /{stride} on {size}x{size}",
    )  # fmt: skip


WORKS = [
    conv(3, 64, (224, 224), 7, 2, name="stem"),
    conv(3, 32, (224, 224), 3, 2, name="stem"),
    conv(64, 64, (56, 56), 3),
    conv(128, 128, (28, 28), 3),
    conv(256, 256, (14, 14), 3),
    conv(512, 512, (7, 7), 3),
    conv(64, 256, (56, 56), 1),
    conv(1024, 256, (14, 14), 1),
    conv(256, 512, (28, 28), 1, 2),
    conv(47, 33, (29, 31), 3, name="odd channels"),
    conv(96, 96, (112, 112), 3, groups=96, name="depthwise"),
    conv(144, 144, (56, 56), 3, 2, groups=144, name="depthwise"),
    conv(96, 96, (56, 56), 7, groups=96, name="depthwise"),
    conv(129, 129, (28, 28), 3, groups=129, name="depthwise"),
    conv(128, 128, (28, 28), 3, groups=32, name="grouped"),
    conv(64, 64, (64, 64), 3, dilation=4, name="dilated"),
    conv(64, 64, (4000,), 2, dilation=8, name="1-d"),
    conv(64, 64, (16, 28, 28), 3, name="3-d"),
    conv(64, 64, (28, 28), 3, batch=8, name="batch of 8"),
    transposed(384, 192, 16, 2, 2),
    transposed(192, 96, 32, 4, 2),
]


@pytest.mark.parametrize(("work", "engine"), engines(WORKS), ids=str)
def test_conv(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)
