"""Matrix products: B constant (packed at load), B an input, vectors; against the measured peak, numpy and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import Work, engines, measure, normal, one_node

SHAPES = [  # m, n, k
    (1024, 1024, 1024), (512, 512, 512), (256, 256, 256), (64, 64, 64),
    (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (197, 768, 768), (4096, 256, 64), (4096, 10, 256),
    (1, 768, 768), (1, 4096, 4096), (4, 768, 768), (13, 1000, 77),
]  # fmt: skip


def product(m: int, n: int, k: int, constant: bool = True) -> Work:
    a, b = normal(m, k), normal(k, n)
    return one_node(
        "MatMul", [a, b], constants=[1] if constant else [], flops=2 * m * n * k, bytes=4 * (m * k + k * n + m * n),
        name=f"{'packed' if constant else 'both given'} {m}x{n}x{k}", numpy=lambda: [a @ b],
    )  # fmt: skip


def batched(batch: int, m: int, n: int, k: int) -> Work:
    a, b = normal(batch, m, k), normal(batch, k, n)
    flops = 2.0 * batch * m * n * k
    return one_node("MatMul", [a, b], flops=flops, name=f"batched {batch}x{m}x{n}x{k}", numpy=lambda: [np.matmul(a, b)])


WORKS = [product(*s) for s in SHAPES]
WORKS += [product(*s, constant=False) for s in ((1024, 1024, 1024), (128, 768, 768), (1, 4096, 4096))]
WORKS += [batched(12, 128, 128, 64), batched(12, 128, 64, 128), batched(96, 16, 16, 32)]


@pytest.mark.parametrize(("work", "engine"), engines(WORKS), ids=str)
def test_gemm(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)
