"""Times a model, alone or beside other engines, in alternating fresh processes; compares results before it times.

The median is over the rounds of each round's median, the spread from the quickest round to the slowest. Loading, the
first run and the peak memory of the whole process are shown too. Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys

from tiercel.cli import compare, feeds
from tiercel.cli.text import count, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    feeds.add_arguments(parser)
    feeds.add_threads(parser)
    parser.add_argument(
        "--against",
        default="",
        metavar="ENGINES",
        help="comma-separated, of onnxruntime and openvino; they must be installed",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="processes for each engine (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of timed runs in each (default 1)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, metavar="X",
        help="largest difference between engines, relative to the largest value of an output (default 1e-3)",
    )  # fmt: skip
    parser.add_argument("--json", type=feeds.output_file, metavar="FILE", help="write every measurement to FILE")


def engines(text: str) -> list[str]:
    """tiercel and the engines of --against, which must be known and installed."""
    wanted = [e.strip() for e in text.split(",") if e.strip()]
    for engine in wanted:
        if engine not in compare.ENGINES:
            raise feeds.UsageError(f"--against {engine}: choose from {', '.join(compare.ENGINES[1:])}")
        if not compare.installed(engine):
            raise feeds.UsageError(f"--against {engine}: it is not installed; pip install {engine}")
    return list(dict.fromkeys(["tiercel", *wanted]))


def main(args: argparse.Namespace) -> int:
    from tiercel import build_info

    names = engines(args.against)
    if args.rounds < 1 or args.seconds <= 0:
        raise feeds.UsageError("--rounds and --seconds must be positive")
    arrays = feeds.feeds(args, feeds.model_info(args.model)["inputs"])
    build = build_info()
    threads = args.threads or int(build["threads"])
    with compare.inputs_file(arrays) as inputs:
        results = compare.check(names, args.model, inputs, threads)
        for r in results:
            if r.failure:
                print(f"tiercel bench: {r.engine} failed: {r.failure}", file=sys.stderr)
            elif r.difference is not None and not r.difference <= args.tolerance:
                print(
                    f"tiercel bench: the outputs of {r.engine} differ by {r.difference:.2e} of the largest value, more than "
                    f"--tolerance {args.tolerance:g}; nothing was timed",
                    file=sys.stderr,
                )
                return 1
        if results[0].failure:
            return 1
        compare.time_rounds(
            results, args.model, inputs, threads, args.rounds, args.seconds, lambda turns: progress(turns, "timing")
        )
    shapes = ", ".join(f"{name} {list(a.shape)}" for name, a in arrays.items())
    print(f"{args.model}: {shapes}; {count(threads, 'thread')}, {build['isa']}, {count(args.rounds, 'round')}\n")
    print(compare.report(results))
    if args.json:
        document = {
            "model": args.model, "threads": threads, "isa": build["isa"], "versions": compare.environment(),
            "results": [vars(r) for r in results],
        }  # fmt: skip
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(document, f, indent=1)
    return 1 if any(r.failure for r in results) else 0
