"""What a Trainer is given, as the engine takes it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tiercel.training.checks import numbers

Array = np.ndarray[Any, Any]


def model_input(x: Any, dtype: np.dtype[Any], name: str) -> Array:
    a = np.asarray(x)
    if a.dtype == dtype or dtype.kind not in "biuf":
        return np.asarray(a, dtype, order="C")
    numbers(a, f"input {name!r}")
    if dtype.kind in "iu" and a.dtype.kind == "f" and (a != np.floor(a)).any():
        raise ValueError(f"input {name!r} takes {dtype}: {a.dtype} with fractions or NaN would lose them")
    return np.asarray(a, dtype, order="C")


def is_list_of_arrays(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and len(x) == 1 and isinstance(x[0], np.ndarray)


def is_batched(info: Mapping[str, Any]) -> bool:
    """Is the first axis of every input and output the batch? It has one name then."""
    every = [shape for kind in ("inputs", "outputs") for _, _, shape in info[kind]]
    first = {shape[0] if shape else None for shape in every}
    return len(first) == 1 and isinstance(next(iter(first)), str)


def recompute_options(given: str | int | Sequence[str] | None) -> dict[str, Any]:
    if given is None or given == "none":
        return {"recompute_cheap": given is None}
    if isinstance(given, str):
        if given != "sqrt":
            raise ValueError(
                f'recompute is "sqrt", "none", a number of segments or a list of patterns of kept values, not {given!r}'
            )
        return {"segments": -1}
    if isinstance(given, (int, np.integer)):
        if isinstance(given, bool) or given < 2:
            raise ValueError(f"recompute takes at least 2 segments, not {given}")
        return {"segments": min(int(given), 1 << 20)}
    keep = list(given)
    if not keep or not all(isinstance(p, str) for p in keep):
        raise ValueError(f"recompute: patterns of kept values are a list of names that is not empty, not {given!r}")
    return {"keep": keep}


def numpy_type(kind: str) -> np.dtype[Any]:
    name = kind.removeprefix("tensor(").removesuffix(")")
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as e:
            raise ImportError("the model has inputs or outputs of bfloat16, which numpy lacks: pip install ml_dtypes") from e
        own: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return own
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def check_pattern(pattern: str, known: Sequence[str]) -> None:
    if not any(fnmatch.fnmatchcase(n, pattern) for n in known):
        raise ValueError(
            f"no weight matches {pattern!r}; there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
        )
