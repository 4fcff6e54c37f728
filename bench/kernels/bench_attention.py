"""Attention of real networks: as one operator, masked, causal, with shared heads; one row of queries against a long past."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import Work, engines, measure, normal, one_node


def attention(
    heads: int, queries: int, keys: int, size: int, shared: int = 1, causal: bool = False, masked: bool = False, batch: int = 1
) -> Work:  # fmt: skip
    """shared: how many heads of queries use one head of keys."""
    q, k, v = (
        normal(batch, heads, queries, size),
        normal(batch, heads // shared, keys, size),
        normal(batch, heads // shared, keys, size),
    )
    mask = (np.arange(keys) < keys * 4 // 5)[None].repeat(queries, 0) if masked else None
    kind = " ".join(n for n, on in (("causal", causal), ("masked", masked), (f"{shared} share", shared > 1)) if on)
    return one_node(
        "Attention", [q, k, v, *([mask] if masked else [])], {"is_causal": int(causal)}, opset=23,
        flops=4.0 * batch * heads * queries * keys * size * (0.5 if causal else 1), bytes=4.0 * (2 * q.size + k.size + v.size),
        name=f"attention {batch}x{heads}x{queries}x{size} over {keys} {kind}".rstrip(),
    )  # fmt: skip


WORKS = [
    attention(12, 128, 128, 64),
    attention(12, 128, 128, 64, masked=True),
    attention(12, 128, 128, 64, causal=True),
    attention(12, 197, 197, 64, batch=2),
    attention(6, 1500, 1500, 64),
    attention(8, 77, 300, 32, masked=True),
    attention(32, 64, 64, 128, shared=4, causal=True),
    attention(12, 1, 1000, 64),
    attention(3, 13, 17, 24),
]


@pytest.mark.parametrize(("work", "engine"), engines(WORKS), ids=str)
def test_attention(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)
