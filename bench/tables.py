"""The comparison in words: a Markdown table of engines, and what it comes to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from tiercel.cli.compare import Result, ratios

Results = Mapping[str, Sequence[Result]]  # by model; the first engine is the reference
FILE_ENGINES = ("onnxruntime", "openvino")  # peers that load the same file
NO_FORM = "no torch form"  # how bench/torch_measure.py says that a model has none


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rule(columns: int) -> str:
    return line(["---", *["---:"] * (columns - 1)])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header."""
    return "\n".join([line(rows[0]), rule(len(rows[0])), *map(line, rows[1:])])


def header(engines: Sequence[str]) -> list[str]:
    names = ["model"]
    for i, engine in enumerate(engines):
        columns = ["ms", "load s", "MiB"] if i == 0 else ["ms", "ratio", "load s", "MiB", "difference"]
        names += [f"{engine} {c}" for c in columns]
    return names


def row(name: str, results: Sequence[Result]) -> list[str]:
    return [name, *(c for r in results for c in _cells(r, results[0]))]


def _cells(result: Result, base: Result) -> list[str]:
    """Time, ratio, load, memory and difference of an engine on a model."""
    if result.failure:
        why = "" if NO_FORM in result.failure else f"failed: {result.failure[:60].replace('|', '/')}"
        return [why, "", "", "", ""][: 5 if result is not base else 3]
    cells = [f"{result.median('median_s') * 1e3:.3f}"]
    if result is not base:
        cells.append("" if base.failure else f"{speedup(base, result):.2f}")
    cells += [f"{result.median('load_s'):.3f}", f"{result.median('peak_mb'):.0f}"]
    if result is not base:
        cells.append("" if result.difference is None else f"{result.difference:.0e}")
    return cells


def speedup(base: Result, other: Result) -> float:
    """How many times as fast as `base`, the median of the rounds."""
    return statistics.median(1 / r for r in ratios(base, other))


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def pairs(everything: Results, engine: str, base: str = "") -> dict[str, tuple[Result, Result]]:
    """(base's result, engine's) of the models that both ran; `base`: the first engine by default."""
    found = {}
    for name, results in everything.items():
        by_name = {r.engine: r for r in results}
        one, other = by_name.get(base or results[0].engine), by_name.get(engine)
        if one and other and not one.failure and not other.failure:
            found[name] = (one, other)
    return found


def summary(everything: Results) -> list[list[str]]:
    """A row an engine but the first: geometric means of speed, memory and loading against it, and the extremes."""
    first = next(iter(everything.values()))
    base = first[0].engine
    names = [
        "times as fast",
        "least",
        "most",
        "peak memory",
        "load time",
        "load and first run",
        "models",
        "largest difference",
    ]
    rows = [[f"against {base}", *names]]
    for engine in (r.engine for r in first[1:]):
        both = pairs(everything, engine)
        if not both:
            rows.append([engine, *[""] * len(names)])
            continue
        speeds = {n: speedup(*p) for n, p in both.items()}
        least, most = min(speeds, key=speeds.__getitem__), max(speeds, key=speeds.__getitem__)
        differences = [b.difference for _, b in both.values() if b.difference is not None]

        def mean(key: str, *more: str, both: Mapping[str, tuple[Result, Result]] = both) -> str:
            shares = [
                sum(b.median(k) for k in (key, *more)) / sum(a.median(k) for k in (key, *more))
                for a, b in both.values()
            ]
            return f"{geometric_mean(shares):.2f}"

        rows.append([
            engine, f"{geometric_mean(list(speeds.values())):.3f}", f"{speeds[least]:.2f} ({least})", f"{speeds[most]:.2f} ({most})",
            mean("peak_mb"), mean("load_s"), mean("load_s", "first_s"), str(len(both)), f"{max(differences, default=math.nan):.1e}",
        ])  # fmt: skip
    return rows


def slowest(everything: Results, engine: str = "tiercel") -> str:
    """The model on which `engine` is least ahead of the faster of the peers that load the same file."""
    least: dict[str, tuple[float, str]] = {}
    for peer in FILE_ENGINES:
        for name, (a, b) in pairs(everything, engine, peer).items():
            least[name] = min(least.get(name, (math.inf, "")), (speedup(a, b), peer))
    if not least:
        return ""
    name = min(least, key=least.__getitem__)
    ratio, peer = least[name]
    mean = geometric_mean([r for r, _ in least.values()])
    return f"slowest model against the faster of its peers: {name}, {ratio:.2f} ({peer}); geometric mean against the faster: {mean:.3f}"
