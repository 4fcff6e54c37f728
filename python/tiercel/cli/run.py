"""Runs a model once on files or random numbers, prints its outputs and saves them as .npy."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from tiercel.cli import feeds
from tiercel.cli.text import duration, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    feeds.add_arguments(parser)
    feeds.add_threads(parser)
    parser.add_argument("--output", metavar="DIR", help="save every output as DIR/NAME.npy")


def describe(name: str, value: Any) -> list[str]:
    """Name, type, shape and the range or first elements of an output."""
    if not isinstance(value, np.ndarray):
        items = value if isinstance(value, list) else []
        return [name, "nothing" if value is None else f"sequence of {len(items)}", "", ""]
    flat = value.ravel()
    if value.dtype.kind == "f" and flat.size > 4 and np.isfinite(flat).all():
        content = f"min {flat.min():.6g}, mean {flat.mean(dtype=np.float64):.6g}, max {flat.max():.6g}"
    else:
        content = ", ".join(str(x) for x in flat[:6].tolist()) + (", ..." if flat.size > 6 else "")
    return [name, str(value.dtype), str(list(value.shape)), content]


def save(folder: Path, name: str, value: Any, taken: set[str]) -> Path:
    """Writes one array; the name becomes a file name that no other output has."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._") or "output"
    unique, i = stem, 1
    while unique in taken:
        i += 1
        unique = f"{stem}_{i}"
    taken.add(unique)
    path = folder / f"{unique}.npy"
    np.save(path, value if value.dtype != object else value.astype(str))
    return path


def main(args: argparse.Namespace) -> int:
    from tiercel import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = args.threads
    start = time.perf_counter()
    session = InferenceSession(args.model, options)
    loaded = time.perf_counter()
    arrays = feeds.feeds(args, [(i.name, i.type, i.shape) for i in session.get_inputs()])
    began = time.perf_counter()
    outputs = session.run(None, arrays)
    ended = time.perf_counter()
    names = [o.name for o in session.get_outputs()]
    print(
        table([["output", "type", "shape", "content"], *(describe(n, v) for n, v in zip(names, outputs, strict=True))])
    )
    print(f"\nloaded in {duration(loaded - start)}, first run {duration(ended - began)}")
    if args.output:
        folder, taken = Path(args.output), set[str]()
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, outputs, strict=True):
            if value is None:
                continue
            for i, item in enumerate(value if isinstance(value, list) else [value]):
                print("wrote", save(folder, name if item is value else f"{name}.{i}", item, taken))
    return 0
