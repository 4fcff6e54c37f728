"""Sequences of different lengths, which a batch pads at their ends to the longest of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def is_list(x: Any) -> bool:
    """A list of samples: a list, a tuple or an array of objects."""
    return isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1)


class Ragged:
    """Samples [T, ...] of one type and one shape but for T; ``what`` they are, for errors. It is cut and indexed as an
    array of samples is."""

    def __init__(self, items: Sequence[Any], what: str) -> None:
        arrays = [np.asarray(item) for item in items]
        if not arrays:
            raise ValueError(f"{what} is an empty list")
        first = arrays[0]
        for i, a in enumerate(arrays):
            if not a.ndim:
                raise ValueError(f"{what}: a sample is a sequence [T, ...] of one rank, but sample {i} is {a[()]!r}")
            if a.ndim != first.ndim:
                raise ValueError(
                    f"{what}: a sample is a sequence [T, ...] of one rank, but sample 0 has shape {list(first.shape)}, "
                    f"sample {i} {list(a.shape)}"
                )
            if not len(a):
                raise ValueError(f"{what}: sample {i} has no steps: leave empty sequences out")
            if a.dtype != first.dtype:
                raise ValueError(f"{what}: sample 0 is {first.dtype}, sample {i} {a.dtype}: give all of them one type")
            if a.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"{what}: a step of sample 0 has shape {list(first.shape[1:])}, one of sample {i} {list(a.shape[1:])}"
                )
        self.items, self.what = arrays, what
        self.lengths: Array = np.array([len(a) for a in arrays], np.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: Any) -> Ragged:
        part: Ragged = object.__new__(Ragged)  # what was checked stays right
        part.items = self.items[at] if isinstance(at, slice) else [self.items[int(i)] for i in at]
        part.what, part.lengths = self.what, self.lengths[at]
        return part

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.items[0].dtype

    @property
    def ndim(self) -> int:
        return self.items[0].ndim + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """As it would be padded to the longest."""
        return (len(self), int(self.lengths.max()), *self.items[0].shape[1:])

    def same_lengths(self, lengths: Array, what: str) -> None:
        differ = np.flatnonzero(self.lengths != lengths)
        if len(differ):
            i = differ[0]
            raise ValueError(f"{self.what}: sample {i} has {self.lengths[i]} steps, but {lengths[i]} in {what}")

    def padded(self, extent: int, value: Any = 0) -> Array:
        """[N, extent, ...] with ``value`` behind each sample."""
        if self.lengths.max() > extent:
            i = int(self.lengths.argmax())
            raise ValueError(f"{self.what}: sample {i} has {self.lengths[i]} steps, but there is room for {extent}")
        dtype = np.result_type(self.dtype, np.float32) if value != value else self.dtype
        out = np.full((len(self), extent, *self.items[0].shape[1:]), value, dtype)
        for row, a in zip(out, self.items, strict=True):
            row[: len(a)] = a
        return out
