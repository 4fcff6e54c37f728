"""How the commands print: tables, sizes, times, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def size(n: float) -> str:
    """Bytes in binary units: ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(n) < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} GiB"


def duration(seconds: float) -> str:
    """Three digits and a unit: ``1.23 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        value = seconds * scale
        if value >= 1 or unit == "us":
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    raise AssertionError


def count(n: int, what: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def extents(dims: Sequence[int | str | None] | None) -> str:
    """``[1, 3, height, ?]``; ``[...]`` for an unknown rank."""
    if dims is None:
        return "[...]"
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = (), header: bool = True) -> str:
    """Columns of text, aligned; those in `right` to the right. The first row is underlined when it is a header."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    aligned_right = set(right)

    def line(row: Sequence[str]) -> str:
        cells = [
            f"{cell:>{w}}" if c in aligned_right else f"{cell:<{w}}"
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    lines = [line(row) for row in rows]
    if header:
        lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def shorten(text: str, width: int) -> str:
    """The text, its beginning left out where it is longer than `width`: the ends of node names differ, not their beginnings."""
    return text if len(text) <= width else "..." + text[len(text) - width + 3 :]


def progress(items: Sequence[T], label: str) -> Iterator[T]:
    """The items; on a terminal, with a bar on stderr (tqdm's when it is installed)."""
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        pass
    else:
        yield from tqdm(items, desc=label, leave=False)
        return
    width = 30
    for i, item in enumerate(items):
        filled = width * i // len(items)
        print(
            f"\r{label} [{'#' * filled}{'.' * (width - filled)}] {i}/{len(items)}", end="", file=sys.stderr, flush=True
        )
        try:
            yield item
        finally:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
