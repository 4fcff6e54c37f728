"""Engines side by side on a folder of models: a fresh process for every measurement, in turns. Prints a Markdown table.

    python bench/compare.py FOLDER [--engines onnxruntime openvino torch tiercel] [--threads 2] [--rounds 3] [--seconds 1]
                            [--models NAME ...] [--report FOLDER] [--json FILE]

FOLDER holds NAME.onnx with NAME.npz (inputs by name) beside: see bench/zoo.py. The first engine is the reference: outputs
are compared with its before anything is timed, and ratios are its time over another's, the median of the rounds (above 1:
the other is faster). torch runs the modules that bench/zoo.py exports, eager; its cells of other models are empty. Exit code 1:
Tiercel failed, or differs by more than 1e-3 of an output's largest value. Run nothing else on the machine meanwhile.

--report also profiles every node and writes report.md with plots (PNG and SVG): speed, peak memory, loading, the roofline of
all nodes, and the arena of intermediates against its lower bound. It needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import plots
import report
import tables
from tiercel import build_info
from tiercel.cli import compare
from tiercel.cli.text import progress

TOLERANCE = 1e-3
TORCH = "torch"
compare.PROGRAMS[TORCH] = Path(__file__).with_name("torch_measure.py")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "tiercel"], choices=(*compare.ENGINES, TORCH))
    parser.add_argument("--threads", type=int, default=build_info()["threads"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed runs in each process")
    parser.add_argument("--models", nargs="+", help="names, all by default")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.md and plots into a folder")
    parser.add_argument("--json", type=Path, help="write every measurement to a file")
    args = parser.parse_args(argv)
    if args.report:
        try:
            plots.pyplot()
        except plots.NoMatplotlib as e:
            parser.error(f"--report: {e}")
    return args


def measure(args: argparse.Namespace, names: list[str]) -> dict[str, list[compare.Result]]:
    """Every engine on every model, a line of the table printed after each."""
    everything: dict[str, list[compare.Result]] = {}
    print(tables.line(tables.header(args.engines)))
    print(tables.rule(len(tables.header(args.engines))))
    for name in progress(names, "models"):
        model, inputs = args.folder / f"{name}.onnx", args.folder / f"{name}.npz"
        with compare.inputs_file({}) as scratch:  # a folder for the outputs
            results = compare.check(args.engines, model, inputs, args.threads, scratch.parent)
        compare.time_rounds(results, model, inputs, args.threads, args.rounds, args.seconds)
        everything[name] = results
        print(tables.line(tables.row(name, results)), flush=True)
    return everything


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    names = args.models or sorted(p.stem for p in args.folder.glob("*.onnx") if p.with_suffix(".npz").exists())
    if not names:
        print(f"{args.folder} holds no NAME.onnx with NAME.npz beside; make some with bench/zoo.py", file=sys.stderr)
        return 2
    about = f"{args.threads} threads, {args.rounds} rounds of {args.seconds:g} s; {compare.environment()}"
    print(f"{about}\n")
    everything = measure(args, names)
    print(f"\n{tables.markdown(tables.summary(everything))}\n\n{tables.slowest(everything)}")
    if args.json:
        rows = {name: [vars(r) for r in results] for name, results in everything.items()}
        document = {"environment": compare.environment(), "threads": args.threads, "models": rows}
        args.json.write_text(json.dumps(document, indent=1))
    if args.report:
        print(f"\nwrote {report.write(args.report, everything, args.folder, args.threads, about)}")
    ours = [r for results in everything.values() for r in results if r.engine == "tiercel"]
    return 1 if any(r.failure or (r.difference or 0) > TOLERANCE for r in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
