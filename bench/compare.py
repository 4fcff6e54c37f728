"""Engines side by side on a folder of models: a fresh process for every measurement, in turns. Prints a Markdown table.

    python bench/compare.py FOLDER [--engines onnxruntime openvino tiercel] [--threads 2] [--rounds 3] [--seconds 1]
                            [--models NAME ...] [--json FILE]

FOLDER holds NAME.onnx with NAME.npz (inputs by name) beside: see bench/zoo.py. The first engine is the reference: outputs
are compared with its before anything is timed, and ratios are its time over another's, the median of the rounds (above 1:
the other is faster). Exit code 1: Tiercel failed, or differs by more than 1e-3 of an output's largest value. Run nothing
else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from tiercel import build_info
from tiercel.cli import compare
from tiercel.cli.text import progress

TOLERANCE = 1e-3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "tiercel"], choices=compare.ENGINES)
    parser.add_argument("--threads", type=int, default=build_info()["threads"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed runs in each process")
    parser.add_argument("--models", nargs="+", help="names, all by default")
    parser.add_argument("--json", type=Path, help="write every measurement to a file")
    return parser.parse_args()


def cell(result: compare.Result, base: compare.Result) -> list[str]:
    """Time, ratio, load, memory and difference of an engine on a model."""
    if result.failure:
        return [f"failed: {result.failure[:60]}", "", "", "", ""][: 5 if result is not base else 3]
    row = [f"{result.median('median_s') * 1e3:.3f}"]
    if result is not base:
        ratio = statistics.median(1 / r for r in compare.ratios(base, result)) if not base.failure else math.nan
        row.append(f"{ratio:.2f}")
    row += [f"{result.median('load_s'):.2f}", f"{result.median('peak_mb'):.0f}"]
    if result is not base:
        row.append("" if result.difference is None else f"{result.difference:.0e}")
    return row


def header(engines: list[str]) -> list[list[str]]:
    names = ["model"]
    for i, engine in enumerate(engines):
        columns = ["ms", "load s", "MiB"] if i == 0 else ["ms", "ratio", "load s", "MiB", "difference"]
        names += [f"{engine} {c}" for c in columns]
    return [names, ["---", *["---:"] * (len(names) - 1)]]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    args = arguments()
    names = args.models or sorted(p.stem for p in args.folder.glob("*.onnx") if p.with_suffix(".npz").exists())
    if not names:
        print(f"{args.folder} holds no NAME.onnx with NAME.npz beside; make some with bench/zoo.py", file=sys.stderr)
        return 2
    everything: dict[str, list[compare.Result]] = {}
    print(f"{args.threads} threads, {args.rounds} rounds of {args.seconds:g} s; {compare.environment()}\n")
    for row in header(args.engines):
        print(line(row))
    for name in progress(names, "models"):
        model, inputs = args.folder / f"{name}.onnx", args.folder / f"{name}.npz"
        with compare.inputs_file({}) as scratch:  # a folder for the outputs
            results = compare.check(args.engines, model, inputs, args.threads, scratch.parent)
        compare.time_rounds(results, model, inputs, args.threads, args.rounds, args.seconds)
        everything[name] = results
        print(line([name, *(c for r in results for c in cell(r, results[0]))]), flush=True)
    print()
    for i, engine in enumerate(args.engines[1:], 1):
        pairs = [(r[0], r[i]) for r in everything.values() if not r[0].failure and not r[i].failure]
        ratios = [statistics.median(1 / x for x in compare.ratios(a, b)) for a, b in pairs]
        if ratios:
            mean = math.exp(statistics.fmean(math.log(r) for r in ratios))
            differences = [b.difference for _, b in pairs if b.difference is not None]
            print(
                f"{args.engines[0]} / {engine}: geometric mean {mean:.3f} over {len(ratios)} models, least {min(ratios):.2f}, "
                f"most {max(ratios):.2f}; largest difference {max(differences, default=math.nan):.1e}"
            )
    if args.json:
        rows = {name: [vars(r) for r in results] for name, results in everything.items()}
        args.json.write_text(
            json.dumps({"environment": compare.environment(), "threads": args.threads, "models": rows}, indent=1)
        )
    ours = [r for results in everything.values() for r in results if r.engine == "tiercel"]
    return 1 if any(r.failure or (r.difference or 0) > TOLERANCE for r in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
