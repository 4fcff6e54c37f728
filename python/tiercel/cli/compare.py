"""Engines side by side: a fresh process for every measurement, alternating, results compared before anything is timed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tiercel.cli.text import duration, table

ENGINES = ("tiercel", "onnxruntime", "openvino")
_MEASURE = Path(__file__).with_name("measure.py")
PROGRAMS: dict[str, Path] = {}  # of engines beyond ENGINES: programs with measure.py's arguments and result


class MeasurementError(Exception):
    """An engine failed in its process; the message is the last line it wrote."""


def installed(engine: str) -> bool:
    return importlib.util.find_spec(engine) is not None


def save_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """numpy.savez for any names, `file` too."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(
                    member, array.astype(str) if array.dtype == object else array, allow_pickle=False
                )


def measure(
    engine: str, model: str | Path, inputs: Path, threads: int, seconds: float, save: Path | None = None
) -> dict[str, float]:
    """One measurement in a process of its own: the dict that measure.py prints. Raises ``MeasurementError``."""
    program = PROGRAMS.get(engine, _MEASURE)
    arguments = [sys.executable, program, engine, model, inputs, threads, seconds, *([save] if save else [])]
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode == 0:
        row: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return row
    lines = done.stderr.strip().splitlines()
    raise MeasurementError(lines[-1] if lines else f"exit code {done.returncode}")


def difference(got: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Largest |got - expected| of any output, relative to that output's largest magnitude; infinite where names, shapes,
    the places of NaN and infinities, or anything that is no float, differ."""
    if set(got) != set(expected):
        return float("inf")
    worst = 0.0
    for name, e in expected.items():
        g = got[name]
        if g.shape != e.shape or g.dtype.kind != e.dtype.kind:
            return float("inf")
        if e.dtype.kind not in "fc":
            if not np.array_equal(g, e):
                return float("inf")
            continue
        finite = np.isfinite(e)
        if not np.array_equal(g[~finite], e[~finite], equal_nan=True) or not np.isfinite(g[finite]).all():
            return float("inf")
        if finite.any():
            scale = float(np.abs(e[finite]).max()) or 1.0
            worst = max(worst, float(np.abs(g[finite].astype(np.float64) - e[finite]).max()) / scale)
    return worst


@dataclass
class Result:
    """What one engine showed: a dict a round, or why there is none."""

    engine: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    failure: str = ""
    difference: float | None = None  # from tiercel's outputs

    def median(self, key: str) -> float:
        return statistics.median(r[key] for r in self.rounds)


@contextlib.contextmanager
def inputs_file(feeds: Mapping[str, Any]) -> Iterator[Path]:
    """The feeds as a temporary .npz, in a folder of its own that may hold more."""
    with tempfile.TemporaryDirectory(prefix="tiercel-") as folder:
        path = Path(folder) / "inputs.npz"
        save_npz(path, feeds)
        yield path


def check(
    engines: Sequence[str], model: str | Path, inputs: Path, threads: int, folder: Path | None = None
) -> list[Result]:
    """Runs each engine once and compares its outputs with the first one's. folder: for the outputs, that of `inputs`
    by default."""
    results, outputs = [], {}
    for engine in engines:
        result = Result(engine)
        results.append(result)
        saved = (folder or inputs.parent) / f"outputs_{engine}.npz"
        try:
            measure(engine, model, inputs, threads, 0, saved)
        except MeasurementError as e:
            result.failure = str(e)
            continue
        with np.load(saved) as archive:
            outputs[engine] = {name: archive[name] for name in archive.files}
        if engine != engines[0] and engines[0] in outputs:
            result.difference = difference(outputs[engines[0]], outputs[engine])
    return results


def time_rounds(
    results: Sequence[Result],
    model: str | Path,
    inputs: Path,
    threads: int,
    rounds: int,
    seconds: float,
    watch: Callable[[Sequence[tuple[int, Result]]], Iterator[tuple[int, Result]]] | None = None,
) -> None:
    """Times every engine that works, `rounds` times, in turns; odd rounds in the opposite order."""
    working = [r for r in results if not r.failure]
    turns = [(i, r) for i in range(rounds) for r in (working if i % 2 == 0 else working[::-1])]
    for _, result in watch(turns) if watch else iter(turns):
        try:
            result.rounds.append(measure(result.engine, model, inputs, threads, seconds))
        except MeasurementError as e:
            result.failure = str(e)


def ratios(base: Result, other: Result) -> list[float]:
    """How many times `other`'s time is `base`'s, round by round."""
    return [o["median_s"] / b["median_s"] for b, o in zip(base.rounds, other.rounds, strict=False)]


def report(results: Sequence[Result]) -> str:
    """A table, an engine a row; the ratio is against the first engine."""
    base = results[0]
    header = ["engine", "median", "spread", f"time / {base.engine}'s", "load", "first run", "peak memory", "difference"]
    rows = [header]
    for r in results:
        if r.failure:
            rows.append([r.engine, "failed", "", "", "", "", "", r.failure[:90]])
            continue
        times = [x["median_s"] for x in r.rounds]
        middle = statistics.median(times)
        spread = f"{duration(min(times))} .. {duration(max(times))} ({(max(times) - min(times)) / middle:.0%})"
        ratio = statistics.median(ratios(base, r)) if base.rounds and r is not base else None
        rows.append([
            r.engine, duration(middle), spread, "" if ratio is None else f"{ratio:.2f}",
            duration(r.median("load_s")), duration(r.median("first_s")), f"{r.median('peak_mb'):.0f} MiB",
            "" if r.difference is None else f"{r.difference:.1e}",
        ])  # fmt: skip
    return table(rows, right=(1, 3, 4, 5, 6))


def environment() -> dict[str, str]:
    """Versions of what is compared, for reports."""
    from importlib import metadata

    found = {}
    for engine in (*ENGINES, *PROGRAMS):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[engine] = metadata.version(engine)
    found["python"] = ".".join(map(str, sys.version_info[:3]))
    found["processors"] = str(os.cpu_count())
    return found
