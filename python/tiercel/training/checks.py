"""What arguments may be; each error says what was given."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np


def number(name: str, value: Any, least: float = 0.0, below: float = math.inf) -> float:
    """A finite number within [least, below)."""
    right = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not right or not least <= value < below:  # NaN is within nothing
        end = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"{name} is at least {least:g} and {end}, not {value!r}")
    return float(value)


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number from ``least`` on, that fits in 64 bits."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value < 2**63:
        raise ValueError(f"{name} is at least {least} and a whole number, not {value!r}")
    return int(value)


def numbers(a: np.ndarray[Any, Any], what: str) -> None:
    """An array of numbers."""
    if a.dtype.kind in "biuf" or a.dtype.name == "bfloat16":
        return
    hint = " (numbers for names of classes: np.unique(names, return_inverse=True)[1])" if a.dtype.kind in "UST" else ""
    raise ValueError(f"{what} should hold numbers, not {a.dtype}{hint}")


def replace_file(path: str | os.PathLike[str], write: Callable[[str], object]) -> None:
    """Calls ``write`` with the name of a new file, which takes the name ``path`` when it is whole; where that fails,
    nothing is left behind, and what was at ``path`` stays."""
    name = os.fspath(path)
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name} is a folder: give the name of a file")
    if os.path.exists(name) and not os.path.isfile(name):
        raise OSError(f"{name} is a device or the like: a new file would take its place")
    part = f"{name}.part"
    try:
        write(part)
        os.replace(part, name)
    except BaseException:
        if os.path.isfile(part):
            os.remove(part)
        raise
