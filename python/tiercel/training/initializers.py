"""How weights begin: by name, from a seeded generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _fans(shape: Sequence[int], fan_in_axis: int) -> tuple[int, int]:
    """Inputs and outputs that a weight connects: [out, in, kernel...] for convolutions, [in, out] for dense layers."""
    if fan_in_axis == 0:
        return shape[0], shape[1]
    space = math.prod(shape[2:])
    return shape[1] * space, shape[0] * space


def _orthogonal(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return (q.T if rows < columns else q).reshape(shape)


def initialize(
    kind: str | Callable[[np.random.Generator, Sequence[int]], Array],
    rng: np.random.Generator,
    shape: Sequence[int],
    fan_in_axis: int,
) -> Array:
    """he, glorot, lecun (each with _uniform, _normal; alone: uniform), orthogonal, zeros, or a function of generator
    and shape."""
    if callable(kind):
        made = np.array(kind(rng, shape), np.float32)
        if made.shape != tuple(shape):
            raise ValueError(f"the initializer gave {list(made.shape)} where {list(shape)} was asked for")
        return made
    fan_in, fan_out = _fans(shape, fan_in_axis)
    variances = {"he": 2 / fan_in, "glorot": 2 / (fan_in + fan_out), "lecun": 1 / fan_in}
    scheme, _, form = kind.partition("_")
    if scheme in variances and form in ("", "uniform", "normal"):
        deviation = math.sqrt(variances[scheme])
        if form == "normal":
            return (rng.standard_normal(shape) * deviation).astype(np.float32)
        limit = math.sqrt(3) * deviation
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind == "orthogonal":
        return _orthogonal(rng, shape).astype(np.float32)
    if kind == "zeros":
        return np.zeros(shape, np.float32)
    raise ValueError(
        f"there is no initializer {kind!r}; there are: he, glorot, lecun (_uniform, _normal), orthogonal, zeros"
    )
