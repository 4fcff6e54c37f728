"""TopK of rows of many sizes, orders and ties against a stable sort."""

import numpy as np
import pytest

from oracle import check


def expected(x, k, largest):
    """Ties go to the lower index; a NaN counts as the largest."""
    key = np.where(np.isnan(x), np.inf, x).astype(np.float64)
    above = np.isnan(x).astype(np.int64)
    rows = []
    for row, nan in zip(key, above, strict=True):
        order = sorted(range(len(row)), key=lambda i: (-nan[i], -row[i], i) if largest else (nan[i], row[i], i))
        rows.append(order[:k])
    indices = np.array(rows, np.int64).reshape(len(x), k)
    return np.take_along_axis(x, indices, 1), indices


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("kind", ["random", "ties", "rising", "falling", "nan", "infinite", "equal"])
@pytest.mark.parametrize("n, k", [(1, 1), (7, 7), (40, 3), (512, 20), (1000, 250), (5000, 100), (5000, 600), (20001, 512)])
def test_rows(n, k, kind, largest):
    rng = np.random.default_rng(n + k)
    x = rng.standard_normal((3, n)).astype(np.float32)
    if kind == "ties":
        x = np.maximum(np.round(x), 0) * np.float32(-1) ** rng.integers(0, 2, x.shape)  # zeros of both signs
    elif kind in ("rising", "falling"):
        x = np.sort(x, 1)[:, :: 1 if kind == "rising" else -1].copy()
    elif kind == "nan":
        x[rng.random(x.shape) < (0.9, 0.5, 0.01)[n % 3]] = np.nan
    elif kind == "infinite":
        x[rng.random(x.shape) < 0.1] = np.inf
        x[rng.random(x.shape) < 0.1] = -np.inf
    elif kind == "equal":
        x[:] = 1.5
    values, indices = expected(x, k, largest)
    check("TopK", [x, np.array([k], np.int64)], {"largest": largest}, outputs=2, expected=[values, indices])
    check("TopK", [x.T.copy(), np.array([k], np.int64)], {"largest": largest, "axis": 0}, outputs=2, expected=[values.T, indices.T], ways=["static"])
