"""What it costs when shapes change from call to call: time against the same shapes repeated, and memory over thousands of them.

    python bench/runtime/changing_shapes.py time [NAME ...] [--zoo FOLDER] [--engines tiercel onnxruntime] [--threads 2] [--shapes 48]
    python bench/runtime/changing_shapes.py memory [NAME ...] [--zoo FOLDER] [--threads 2] [--shapes 10000]

time: "changing" is the mean call when each has another shape than the last (more shapes in turn than any cache holds); "fixed"
the mean, over the same shapes, of the call repeated; "build" the first call of shapes never seen before. memory: what the
heap holds and what the process has resident after every tenth of the shapes. Every model in a fresh process.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import models

REPEATS = 5  # of one shape, whose least time counts


class Heap(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (n, ctypes.c_size_t)
        for n in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def heap_bytes() -> int:
    """Bytes that malloc has given out and not got back, large blocks included."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Heap
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def session(engine: str, model: models.Model, threads: int) -> Any:
    module = __import__(engine)
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return module.InferenceSession(model.source, options, providers=["CPUExecutionProvider"])


def distinct(model: models.Model, n: int) -> list[models.Feeds]:
    found: dict[tuple[tuple[int, ...], ...], models.Feeds] = {}
    rng = np.random.default_rng(0)
    for _ in range(8 * n):
        feeds = model.draw(rng)
        found.setdefault(tuple(a.shape for a in feeds.values()), feeds)
        if len(found) == n:
            break
    return list(found.values())


def timed(run: Any, feeds: models.Feeds) -> float:
    begin = time.perf_counter()
    run(None, feeds)
    return time.perf_counter() - begin


def measure_time(model: models.Model, engine: str, threads: int, shapes: int, seconds: float) -> dict[str, float]:
    run, draws = session(engine, model, threads).run, distinct(model, shapes)
    build = statistics.fmean(timed(run, f) for f in draws)
    changing: list[list[float]] = [[] for _ in draws]
    fixed: list[float] = [math.inf] * len(draws)
    order, until = np.random.default_rng(1), time.perf_counter() + seconds
    while time.perf_counter() < until or len(changing[0]) < 3:
        for i in order.permutation(len(draws)):
            changing[i].append(timed(run, draws[i]))
        for i in range(len(draws)):
            run(None, draws[i])
            fixed[i] = min(fixed[i], statistics.median(timed(run, draws[i]) for _ in range(REPEATS)))
    return {
        "changing": statistics.fmean(map(statistics.median, changing)),
        "fixed": statistics.fmean(fixed),
        "build": build,
    }


def measure_memory(model: models.Model, engine: str, threads: int, shapes: int) -> dict[str, list[int]]:
    run, rng = session(engine, model, threads).run, np.random.default_rng(0)
    result: dict[str, list[int]] = {"heap": [], "resident": []}
    seen = set()
    for i in range(1, shapes + 1):
        feeds = model.draw(rng)
        seen.add(tuple(a.shape for a in feeds.values()))
        run(None, feeds)
        if i % max(1, shapes // 10) == 0:
            gc.collect()
            result["heap"].append(heap_bytes())
            result["resident"].append(resident_bytes())
    result["distinct"] = [len(seen)]
    return result


def child(args: argparse.Namespace, model: str, engine: str) -> dict[str, Any]:
    command = [sys.executable, __file__, args.what, model, "--child", engine, "--threads", str(args.threads), "--shapes", str(args.shapes),
               "--seconds", str(args.seconds)]  # fmt: skip
    out = subprocess.run(
        command + (["--zoo", str(args.zoo)] if args.zoo else []), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return dict(json.loads(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory"])
    parser.add_argument("names", nargs="*", help="models, all by default")
    parser.add_argument("--zoo", type=Path, help="a folder that bench/zoo.py filled")
    parser.add_argument("--engines", nargs="+", default=["tiercel", "onnxruntime"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=int)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed calls for each model and engine")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.shapes = args.shapes or (48 if args.what == "time" else 10000)
    works = [
        m
        for m in models.small() + (models.large(args.zoo) if args.zoo else [])
        if not args.names or m.name in args.names
    ]
    if args.child:
        if args.what == "time":
            print(json.dumps(measure_time(works[0], args.child, args.threads, args.shapes, args.seconds)))
        else:
            print(json.dumps(measure_memory(works[0], args.child, args.threads, args.shapes)))
        return
    if args.what == "memory":
        print("| model | engine | distinct shapes | heap MB after each tenth | resident MB |\n|---|---|---:|---|---|")
        for m in works:
            for engine in args.engines:
                r = child(args, m.name, engine)
                cells = [" ".join(f"{b / 1e6:.2f}" for b in r[k]) for k in ("heap", "resident")]
                print(f"| {m.name} | {engine} | {r['distinct'][0]} | {cells[0]} | {cells[1]} |", flush=True)
        return
    print(
        "| model | engine | fixed us | changing us | changing / fixed | first call us | against the first engine, changing |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for m in works:
        first = 0.0
        for engine in args.engines:
            r = child(args, m.name, engine)
            first = first or r["changing"]
            cells = [
                f"{r['fixed'] * 1e6:.1f}",
                f"{r['changing'] * 1e6:.1f}",
                f"{r['changing'] / r['fixed']:.2f}",
                f"{r['build'] * 1e6:.0f}",
            ]
            print(f"| {m.name} | {engine} | " + " | ".join(cells) + f" | {r['changing'] / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
