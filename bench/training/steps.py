"""A step of training side by side with PyTorch: eager, by torch.compile, and Tiercel; a fresh process for every measurement, in turns.

    python bench/training/steps.py [--engines torch torch.compile tiercel] [--threads 2] [--rounds 3] [--seconds 0.5] [--cases NAME ...]
                                   [--folder build/training] [--report FILE] [--json FILE]       needs the extra `bench`, torch.compile a C++ compiler

The same weights, data and optimisers (cases.py); all forward, backward and update, the loss read each time. Each process takes the first steps
before it times any. difference: how far their losses are from those in double precision; Tiercel failed where that is more than 1e-4. ms: the median of the rounds; ratios: the first
engine's time (memory) over another's, the median of the rounds. MiB: how far the peak of resident memory rises above what the process has with
everything imported and the model loaded (of torch.compile with what compiling takes). The first run compiles for torch.compile, into FOLDER, and takes
some minutes more. Exit code 1: Tiercel failed.
Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import cases

import tables
from tiercel import build_info
from tiercel.cli import compare
from tiercel.cli.text import progress

ENGINES = ("torch", "torch.compile", "tiercel")
TOLERANCE = 1e-4  # of a loss, or of one
LEAST_MB = 1.0  # of memory that a ratio is made of


@dataclass
class Result:
    engine: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
    difference: float | None = None  # of the losses, from those in double precision

    def median(self, key: str) -> float:
        return statistics.median(r[key] for r in self.rounds)


def measure(engine: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, Path(__file__).with_name("step_measure.py"), engine, name, args.folder, args.threads, args.seconds]
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str((args.folder / "inductor").resolve())}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return row
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise compare.MeasurementError(lines[-1] if lines else f"exit code {done.returncode}")


def measured(name: str, args: argparse.Namespace) -> list[Result]:
    """All rounds of a case; odd ones in the opposite order."""
    results = [Result(e) for e in args.engines]
    expected = cases.expected_losses(args.folder, name)
    for i in range(args.rounds):
        for r in results if i % 2 == 0 else results[::-1]:
            if r.failure:
                continue
            try:
                row = measure(r.engine, name, args)
            except compare.MeasurementError as e:
                r.failure = str(e)
                continue
            worst = max(abs(a - b) / max(abs(b), 1.0) for a, b in zip(row["losses"], expected, strict=True))
            r.difference = worst if math.isnan(worst) else max(r.difference or 0.0, worst)
            if r.engine == "tiercel" and not worst <= TOLERANCE:
                r.failure = f"its losses are {row['losses']}, in double precision {expected}"
                continue
            r.rounds.append(row)
    return results


def ratios(base: Result, other: Result, key: str) -> list[float]:
    least = LEAST_MB if key == "grown_mb" else 0.0
    pairs = zip(base.rounds, other.rounds, strict=False)
    return [max(b[key], least) / max(o[key], least) for b, o in pairs]


def usable(base: Result, other: Result, key: str) -> bool:
    if base.failure or other.failure or not base.rounds or not other.rounds:
        return False
    return key != "grown_mb" or max(base.median(key), other.median(key)) >= LEAST_MB


def header(engines: list[str]) -> list[str]:
    first, *others = engines
    names = ["case", f"{first} ms", *(f"{e} {c}" for e in others for c in ("ms", "ratio"))]
    return [*names, f"{first} MiB", *(f"{e} {c}" for e in others for c in ("MiB", "ratio")), *(f"{e} difference" for e in engines)]


def row(name: str, results: list[Result]) -> list[str]:
    base = results[0]
    cells = [name]
    for key, factor, digits in (("median_s", 1e3, 3), ("grown_mb", 1.0, 1)):
        for r in results:
            failed = f"failed: {r.failure[:60].replace('|', '/')}" if key == "median_s" else ""
            cells.append(failed if r.failure else f"{r.median(key) * factor:.{digits}f}")
            if r is not base:
                cells.append(f"{statistics.median(ratios(base, r, key)):.2f}" if usable(base, r, key) else "")
    return [*cells, *("" if r.difference is None else f"{r.difference:.0e}" for r in results)]


def means(everything: dict[str, list[Result]], engines: list[str]) -> list[list[str]]:
    """A row an engine but the first: geometric means against it over the cases that both ran."""
    rows = [[f"{engines[0]} over", "time", "least", "most", "memory", "cases"]]
    for i, engine in enumerate(engines[1:], 1):
        cells = [engine]
        for key in ("median_s", "grown_mb"):
            found = {n: statistics.median(ratios(r[0], r[i], key)) for n, r in everything.items() if usable(r[0], r[i], key)}
            cells.append(f"{tables.geometric_mean(list(found.values())):.2f}" if found else "")
            if key == "median_s":
                ends = [f(found, key=found.__getitem__) for f in (min, max)] if found else []
                cells += [f"{found[n]:.2f} ({n})" for n in ends] or ["", ""]
                count = len(found)
        rows.append([*cells, str(count)])
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--threads", type=int, default=build_info()["threads"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timed steps in each process")
    parser.add_argument("--cases", nargs="+", choices=cases.CASES, default=list(cases.CASES))
    parser.add_argument("--folder", type=Path, default=Path("build/training"), help="for models, data and torch.compile's cache")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--json", type=Path, help="write every measurement to a file")
    args = parser.parse_args(argv)
    if args.seconds <= 0 or args.rounds < 1:
        parser.error("--seconds and --rounds must be positive")
    cases.prepare(args.folder, args.cases)
    import torch

    versions = {**compare.environment(), "torch": torch.__version__}
    about = f"{args.threads} threads, {args.rounds} rounds of {args.seconds:g} s; {versions}"
    print(f"{about}\n\n{tables.line(header(args.engines))}\n{tables.rule(len(header(args.engines)))}", flush=True)
    everything: dict[str, list[Result]] = {}
    for name in progress(args.cases, "cases"):
        everything[name] = measured(name, args)
        print(tables.line(row(name, everything[name])), flush=True)
    summary = tables.markdown(means(everything, args.engines))
    print(f"\n{summary}")
    for results in everything.values():
        for r in results:
            if r.failure:
                print(f"{r.engine}: {r.failure}", file=sys.stderr)
    if args.json:
        rows = {name: [vars(r) for r in results] for name, results in everything.items()}
        args.json.write_text(json.dumps({"environment": versions, "threads": args.threads, "cases": rows}, indent=1))
    if args.report:
        rows = [header(args.engines), *(row(n, r) for n, r in everything.items())]
        described = "\n".join(f"- {n}: {cases.CASES[n].about}" for n in everything)
        args.report.write_text(f"# A step of training\n\n{about}\n\n{tables.markdown(rows)}\n\n{summary}\n\n{described}\n")
    return 1 if any(r.failure for results in everything.values() for r in results if r.engine == "tiercel") else 0


if __name__ == "__main__":
    sys.exit(main())
