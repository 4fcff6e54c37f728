"""The comparison in pictures, each as PNG and SVG. Needs matplotlib, which the extra `bench` brings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roofline import Profile
from tables import Results, geometric_mean, pairs, speedup
from tiercel.cli.compare import Result

COLOURS = {"onnxruntime": "#7f8c99", "openvino": "#4477aa", "torch": "#cc6644", "tiercel": "#228855"}


class NoMatplotlib(Exception):
    """matplotlib is not installed; the message says how to get it."""


def pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as e:
        raise NoMatplotlib("plots need matplotlib: pip install matplotlib, or the extra: pip install '.[bench]'") from e
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tiercel"  # the same picture, the same file
    import matplotlib.pyplot

    return matplotlib.pyplot


def _save(figure: Any, path: Path) -> str:
    for kind in ("png", "svg"):
        figure.savefig(
            path.with_suffix(f".{kind}"),
            dpi=150,
            bbox_inches="tight",
            metadata={"Date": None} if kind == "svg" else None,
        )
    pyplot().close(figure)
    return path.with_suffix(".png").name


def bars(
    path: Path, title: str, unit: str, series: Mapping[str, Mapping[str, float]], one: bool = False, log: bool = False
) -> str:
    """Groups of bars: for each engine of `series` a value a model, the geometric mean last. one: a line at 1. The picture's name."""
    models = list(dict.fromkeys(name for values in series.values() for name in values))
    figure, axes = pyplot().subplots(figsize=(max(6, 0.75 * (len(models) + 1)), 4.2))
    width = 0.8 / max(len(series), 1)
    for i, (engine, values) in enumerate(series.items()):
        shown = {m: values[m] for m in models if m in values}
        if shown:
            shown["geometric mean"] = geometric_mean(list(shown.values()))
        places = [[*models, "geometric mean"].index(m) + (i - (len(series) - 1) / 2) * width for m in shown]
        drawn = axes.bar(places, list(shown.values()), width, label=engine, color=COLOURS.get(engine))
        if shown:
            axes.bar_label(drawn, [f"{v:.3g}" for v in shown.values()], fontsize=5, rotation=90, padding=2)
    if one:
        axes.axhline(1, color="black", linewidth=0.8)
    if log:
        axes.set_yscale("log")
    axes.set_xticks(range(len(models) + 1), [*models, "geometric mean"], rotation=40, ha="right", fontsize=8)
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.margins(y=0.15)
    axes.legend(fontsize=8)
    return _save(figure, path)


def roofline(path: Path, profiles: Mapping[str, Profile], bandwidths: Mapping[str, float], threads: int) -> str:
    """Every node of every model: FLOPs a byte against GFLOPS, its area the time it takes; the roofs as measured. The picture's name."""
    figure, axes = pyplot().subplots(figsize=(9, 6))
    peak = max(p.peak for p in profiles.values())
    colours = pyplot().get_cmap("tab20")
    lowest, highest = 0.05, 10.0
    for i, (name, p) in enumerate(profiles.items()):
        points = p.points()
        if not points:
            continue
        total = sum(seconds for _, _, seconds in points)
        intensity, rates, seconds = zip(*points, strict=True)
        areas = [4 + 300 * s / total if total else 4 for s in seconds]
        axes.scatter(intensity, rates, areas, alpha=0.55, label=name, color=colours(i % 20), linewidths=0)
        lowest, highest = min(lowest, *intensity), max(highest, *intensity)
    axes.axhline(peak, color="black", linewidth=1)
    axes.annotate(f"peak, {peak:.0f} GFLOPS", (highest, peak), fontsize=8, ha="right", va="bottom")
    for place, rate in bandwidths.items():
        axes.plot([lowest, peak / rate], [lowest * rate, peak], color="black", linewidth=0.8, linestyle="--")
        along = {"rotation": math.degrees(math.atan(rate)), "rotation_mode": "anchor", "transform_rotates_text": True}
        axes.text(lowest, lowest * rate, f"{place}, {rate:.0f} GB/s", fontsize=8, va="bottom", **along)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], peak * 1e-5))
    axes.set_xlabel("FLOPs a byte read or written")
    axes.set_ylabel("GFLOPS")
    axes.set_title(f"Every node under the roof, {threads} thread{'s' if threads > 1 else ''}")
    legend = axes.legend(fontsize=6, loc="lower right", ncols=2)
    for handle in legend.legend_handles:
        handle.set_sizes([20])
    return _save(figure, path)


def all_bars(folder: Path, everything: Results) -> dict[str, str]:
    """Pictures of speed, memory and loading: the name of each by its title."""
    engines: Sequence[str] = [r.engine for r in next(iter(everything.values()))]
    base = engines[0]

    def values(of: Callable[[Result], float]) -> dict[str, dict[str, float]]:
        return {
            e: {n: of(r) for n, rs in everything.items() for r in rs if r.engine == e and not r.failure}
            for e in engines
        }

    speeds = {e: {n: speedup(*both) for n, both in pairs(everything, e).items()} for e in engines[1:]}
    drawn = {}
    for name, title, unit, series, one, log in (
        ("speedup", f"Times as fast as {base}", "ratio of times, above 1 is faster", speeds, True, False),
        ("memory", "Peak memory of the process", "MiB", values(lambda r: r.median("peak_mb")), False, True),
        ("load", "Load time", "ms", values(lambda r: r.median("load_s") * 1e3), False, True),
        (
            "begin",
            "Load and first run",
            "ms",
            values(lambda r: (r.median("load_s") + r.median("first_s")) * 1e3),
            False,
            True,
        ),
    ):
        if any(series.values()):
            drawn[title] = bars(folder / name, title, unit, series, one, log)
    return drawn
