"""Runs at once: calls a second of two sessions in two threads, of one session in two threads, and of two processes, against one alone.

    python bench/runtime/concurrent_sessions.py FOLDER [NAME ...] [--engines tiercel onnxruntime] [--threads 2] [--seconds 1]

FOLDER: models that bench/zoo.py made. Each row in fresh processes; run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ["alone", "two sessions", "one session", "two processes"]


def session(engine: str, model: Path, threads: int) -> Any:
    module = __import__(engine)
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return module.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def rate(sessions: list[Any], feeds: dict[str, np.ndarray], seconds: float) -> float:
    """Calls a second of one thread for each entry of `sessions`, together."""
    counts, start = [0] * len(sessions), threading.Barrier(len(sessions))

    def work(index: int) -> None:
        run = sessions[index].run
        run(None, feeds)
        start.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            run(None, feeds)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sessions))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(counts) / seconds


def child(args: argparse.Namespace) -> None:
    model = args.folder / f"{args.names[0]}.onnx"
    with np.load(model.with_suffix(".npz")) as archive:
        feeds = dict(archive)
    one = session(args.child, model, args.threads)
    sessions = [one]
    if args.way == "two sessions":
        sessions.append(session(args.child, model, args.threads))
    elif args.way == "one session":
        sessions.append(one)
    if args.way == "two processes":
        one.run(None, feeds)
        time.sleep(max(0.0, args.at - time.time()))
    print(rate(sessions, feeds, args.seconds))


def measure(args: argparse.Namespace, name: str, engine: str, way: str) -> float:
    command = [sys.executable, __file__, str(args.folder), name, "--child", engine, "--way", way, "--threads", str(args.threads),
               "--seconds", str(args.seconds), "--at", str(time.time() + 4)]  # fmt: skip
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2 if way == "two processes" else 1)
    ]
    return sum(float(r.communicate()[0]) for r in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="models, all by default")
    parser.add_argument("--engines", nargs="+", default=["tiercel", "onnxruntime"])
    parser.add_argument("--threads", type=int, default=2, help="of a session; 0: the engine's default")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    print("| model | engine | " + " | ".join(f"{w}, calls/s" for w in WAYS) + " |\n|---|---|" + "---:|" * len(WAYS))
    for name in args.names or sorted(p.stem for p in args.folder.glob("*.onnx") if p.with_suffix(".npz").exists()):
        for engine in args.engines:
            rates = [measure(args, name, engine, way) for way in WAYS]
            print(f"| {name} | {engine} | " + " | ".join(f"{r:.4g}" for r in rates) + " |", flush=True)
    return None


if __name__ == "__main__":
    main()
