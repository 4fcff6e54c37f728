"""report.md of a comparison, with its plots beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import plots
import roofline
import tables
from tiercel.cli.compare import MeasurementError
from tiercel.cli.text import progress


def write(folder: Path, everything: tables.Results, models: Path, threads: int, about: str) -> Path:
    """Profiles every model that Tiercel runs, then writes tables and pictures. The path of report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    engines = [r.engine for r in next(iter(everything.values()))]
    parts = [
        "# Engines compared", about, "## Times",
        f"Ratios are times of {engines[0]} over another engine's, above 1: the other is faster. Differences are the largest from its outputs, "
        "relative to their largest value. An empty cell: the engine has no form of the model.",
        tables.markdown([tables.header(engines), *(tables.row(n, r) for n, r in everything.items())]),
        "## What it comes to", "Geometric means; memory and time of loading are shares of the first engine's, below 1: less.",
        tables.markdown(tables.summary(everything)), tables.slowest(everything),
    ]  # fmt: skip
    for title, picture in plots.all_bars(folder, everything).items():
        parts += [f"## {title}", f"![{title}]({picture})"]
    profiles = profiled(everything, models, threads)
    if profiles:
        bandwidths = {
            "memory": roofline.bandwidth(threads, roofline.MEMORY),
            "L2": roofline.bandwidth(threads, roofline.CACHE),
        }
        picture = plots.roofline(folder / "roofline", profiles, bandwidths, threads)
        parts += [
            "## Roofline of every node", f"![Roofline]({picture})",
            "A point is a node, its area the share of the time of its model. Bytes are those of its inputs, weights and outputs, once each; what stays "
            "in a cache may lie above the line of the memory. FLOPs are those of the direct algorithm as far as a node has one; the lines are "
            "independent multiply-adds, and numpy's sum of two arrays.",
            "## Floors of arithmetic", roofline.floor_table(profiles, everything),
            "## Arena of intermediates", roofline.arena_table(profiles),
        ]  # fmt: skip
    path = folder / "report.md"
    path.write_text("\n\n".join(p for p in parts if p) + "\n")
    return path


def profiled(everything: tables.Results, models: Path, threads: int) -> dict[str, roofline.Profile]:
    profiles = {}
    for name in progress(list(everything), "profiles"):
        if any(r.engine == "tiercel" and not r.failure for r in everything[name]):
            try:
                profiles[name] = roofline.profile(models / f"{name}.onnx", models / f"{name}.npz", threads)
            except MeasurementError as e:
                print(f"{name}: no profile: {e}", file=sys.stderr)
    return profiles
