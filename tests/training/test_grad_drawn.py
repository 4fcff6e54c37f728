"""Rules of operators that index, sample and pad, on drawn shapes and attributes."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check_grad
from test_grad_image import grid_of
from test_grad_indexing import REDUCTIONS, values

SEEDS = range(4)


def shape_of(rng: np.random.Generator, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, 5, rng.integers(least, most)))


@pytest.mark.parametrize("seed", SEEDS)
def test_scatters_and_gathers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for reduction in REDUCTIONS:
        shape = shape_of(rng)
        axis = int(rng.integers(-len(shape), len(shape)))
        inner = [int(rng.integers(1, n + 1)) for n in shape]
        inner[axis] = int(rng.integers(0, 6))
        drawn = values(rng, int(np.prod(shape) + np.prod(inner)))
        data, updates = drawn[: np.prod(shape)].reshape(shape), drawn[np.prod(shape) :].reshape(inner)
        at = rng.integers(-shape[axis], shape[axis], inner)
        dynamic = bool(rng.integers(2))
        check_grad("ScatterElements", [data, at, updates], {"axis": axis, "reduction": reduction}, dynamic=dynamic)
        check_grad("GatherElements", [data, at], {"axis": axis}, dynamic=dynamic)
        size, lead = int(rng.integers(1, len(shape) + 1)), shape_of(rng, 0, 3)
        at = np.stack([rng.integers(-n, n, lead) for n in shape[:size]], -1).reshape(*lead, size)
        whole = (*lead, *shape[size:])
        drawn = values(rng, int(np.prod(shape) + np.prod(whole)))
        data, updates = drawn[: np.prod(shape)].reshape(shape), drawn[np.prod(shape) :].reshape(whole)
        check_grad("ScatterND", [data, at, updates], {"reduction": reduction}, dynamic=dynamic)
        check_grad("GatherND", [data, at], dynamic=dynamic)


@pytest.mark.parametrize("seed", SEEDS)
def test_grid_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for rank in (1, 2, 3):
        extents, out = tuple(rng.integers(2, 5, rank).tolist()), tuple(rng.integers(1, 4, rank).tolist())
        attrs = {
            "mode": str(rng.choice(["linear", "nearest", "cubic"])), "align_corners": int(rng.integers(2)),
            "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
        }  # fmt: skip
        grid = grid_of(rng, extents, (2, *out), attrs["align_corners"])
        check_grad("GridSample", [values(rng, 2, int(rng.integers(1, 11)), *extents), grid], attrs, dynamic=bool(rng.integers(2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_pad(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for mode in ("constant", "reflect", "edge", "wrap"):
        shape = shape_of(rng)
        pads = rng.integers(-1, 6, 2 * len(shape))
        pads[np.tile(np.array(shape) < 3, 2) & (pads < 0)] = 0
        check_grad("Pad", [values(rng, *shape), pads], {"mode": mode}, constants=[1][: rng.integers(2)], dynamic=bool(rng.integers(2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_einsum(seed: int) -> None:
    """Labels that repeat, that are summed away, axes of extent 1, ellipses."""
    rng = np.random.default_rng(seed)
    for _ in range(6):
        extent = dict(zip("abcd", rng.integers(1, 4, 4).tolist(), strict=True))
        under = shape_of(rng, 0, 3)
        terms, shapes = [], []
        for _ in range(rng.integers(1, 4)):
            letters = rng.choice(list("abcd"), rng.integers(0, 4)).tolist()
            place = int(rng.integers(0, len(letters) + 1))
            own = {c: 1 if rng.random() < 0.15 else e for c, e in extent.items()}
            shape = [own[c] for c in letters]
            terms.append("".join(letters[:place]) + "..." + "".join(letters[place:]))
            mine = under[int(rng.integers(0, len(under) + 1)) :]
            shapes.append((*shape[:place], *mine, *shape[place:]))
        there = sorted({c for t in terms for c in t if c != "."})
        kept = rng.permutation(there)[: rng.integers(0, len(there) + 1)].tolist() if there else []
        equation = ",".join(terms) + "->..." + "".join(kept)
        check_grad("Einsum", [values(rng, *s) for s in shapes], {"equation": equation}, dynamic=bool(rng.integers(2)))
