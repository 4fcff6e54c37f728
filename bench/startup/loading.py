"""Loading and the first run of every model of a folder, in fresh processes in turn; geometric means. Prints a Markdown table.

    python bench/startup/loading.py FOLDER [--engines onnxruntime tiercel] [--threads 2] [--rounds 3] [--models NAME ...]

FOLDER holds NAME.onnx with NAME.npz beside: see bench/zoo.py. Milliseconds, the least of the rounds; ratios are against the first engine: of loading
alone, and of loading and the first run together, since an engine may prepare weights in either. An engine may be NAME=FOLDER: the package of
another build (a folder to stand before the others in PYTHONPATH), to compare two builds of tiercel.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from tiercel.cli import compare


def measure(engine: str, model: Path, threads: int) -> tuple[float, float]:
    """Seconds: loading; loading and the first run."""
    name, _, folder = engine.partition("=")
    path = {"PYTHONPATH": folder} if folder else {}
    command = [
        sys.executable,
        str(Path(compare.__file__).with_name("measure.py")),
        name,
        str(model),
        str(model.with_suffix(".npz")),
        str(threads),
        "0",
    ]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | path).stdout
    row = json.loads(out.splitlines()[-1])
    return row["load_s"], row["load_s"] + row["first_s"]


def mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "tiercel"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", help="names, all by default")
    args = parser.parse_args()
    names = args.models or sorted(p.stem for p in args.folder.glob("*.onnx") if p.with_suffix(".npz").exists())
    others = args.engines[1:]
    labels = args.engines
    print(
        "| model | "
        + " | ".join(f"{e}: load | and first" for e in labels)
        + " | "
        + " | ".join(f"{e}: ratio | and first" for e in labels[1:])
        + " |"
    )
    print("|---" + "|---:" * (2 * len(args.engines) + 2 * len(others)) + "|")
    ratios: list[list[tuple[float, float]]] = [[] for _ in others]
    for name in names:
        best = [(math.inf, math.inf)] * len(args.engines)
        for _ in range(args.rounds):
            for i, engine in enumerate(args.engines):
                got = measure(engine, args.folder / f"{name}.onnx", args.threads)
                best[i] = (min(best[i][0], got[0]), min(best[i][1], got[1]))
        cells = [f"{1e3 * s:.1f}" for pair in best for s in pair]
        for i in range(len(others)):
            pair = (best[i + 1][0] / best[0][0], best[i + 1][1] / best[0][1])
            ratios[i].append(pair)
            cells += [f"{r:.2f}" for r in pair]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    means = [f"{mean([r[k] for r in column]):.2f}" for column in ratios for k in (0, 1)]
    print("| geometric mean |" + " |" * (2 * len(args.engines)) + " " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
