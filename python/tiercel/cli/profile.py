"""Where the time of a run goes: time, GFLOPS and share of the measured peak of every node.

A node's time is its own, bodies of If and Loop left out, as the median over the runs; all threads wait for each other
after every node while they are recorded. The peak is what independent fused multiply-adds reach in this process, times the
threads. --trace writes a Chrome trace that https://ui.perfetto.dev opens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tiercel.cli import feeds
from tiercel.cli.text import count, duration, progress, shorten, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    feeds.add_arguments(parser)
    feeds.add_threads(parser)
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="recorded runs (default 20)")
    parser.add_argument(
        "--top", type=int, default=25, metavar="N", help="how many rows to print, 0 for all (default 25)"
    )
    parser.add_argument(
        "--by", choices=("node", "operator"), default="node", help="what a row of the table is (default node)"
    )
    parser.add_argument(
        "--trace", type=feeds.output_file, metavar="FILE", help="write the recorded runs as Chrome-trace JSON"
    )
    parser.add_argument("--json", type=feeds.output_file, metavar="FILE", help="write the table, whole, as JSON")


@dataclass
class Row:
    """A node's (or operator's) share of a run; lists have an entry a run."""

    node: str
    op: str
    kernel: str = ""
    shape: str = ""
    calls: int = 0
    seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    flops: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    bytes: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def median(self, runs: list[int]) -> float:
        return statistics.median(self.seconds.get(r, 0.0) for r in runs)

    def rate(self, amounts: dict[int, float], runs: list[int]) -> float:
        """Amount a second, over all runs."""
        total = sum(self.seconds.get(r, 0.0) for r in runs)
        return sum(amounts.get(r, 0.0) for r in runs) / total if total > 0 else 0.0


def self_times(events: list[dict[str, Any]]) -> list[float]:
    """Seconds of each event without the events that lie within it: If and Loop hold those of their bodies."""
    own = [e["duration_us"] * 1e-6 for e in events]
    open_events: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in sorted(range(len(events)), key=lambda i: (events[i]["begin_us"], -events[i]["duration_us"])):
        e, stack = events[i], open_events[events[i]["run"], events[i]["thread"]]
        while stack and e["begin_us"] >= events[stack[-1]]["begin_us"] + events[stack[-1]]["duration_us"]:
            stack.pop()
        if stack:
            own[stack[-1]] -= e["duration_us"] * 1e-6
        stack.append(i)
    return [max(t, 0.0) for t in own]


def collect(events: list[dict[str, Any]], by: str) -> list[Row]:
    """Rows out of ``InferenceSession.take_profile``'s events."""
    rows: dict[tuple[str, str], Row] = {}
    for e, seconds in zip(events, self_times(events), strict=True):
        op = f"{e['domain']}.{e['op']}" if e["domain"] else e["op"]
        row = rows.setdefault(("" if by == "operator" else e["node"], op), Row(e["node"], op))
        row.calls += 1
        row.seconds[e["run"]] += seconds
        row.flops[e["run"]] += e["flops"]
        row.bytes[e["run"]] += e["bytes"]
        row.kernel = row.kernel or e["kernel"]
        row.shape = row.shape or ("x".join(map(str, e["outputs"][0])) if e["outputs"] else "")
    return list(rows.values())


def main(args: argparse.Namespace) -> int:
    from tiercel import InferenceSession, SessionOptions, _core, build_info
    from tiercel.trace import write_trace

    if args.runs < 1:
        raise feeds.UsageError("--runs must be positive")
    options = SessionOptions()
    options.intra_op_num_threads = args.threads
    options.enable_profiling = True
    session = InferenceSession(args.model, options)
    arrays = feeds.feeds(args, [(i.name, i.type, i.shape) for i in session.get_inputs()])
    for _ in range(3):
        session.run(None, arrays)
    session.take_profile()
    walls = []
    for _ in progress(range(args.runs), "profiling"):
        start = time.perf_counter()
        session.run(None, arrays)
        walls.append(time.perf_counter() - start)
    events = session.take_profile()
    build = build_info()
    threads = args.threads or int(build["threads"])
    peak = _core.peak_gflops() * threads

    runs = sorted({e["run"] for e in events})
    rows = sorted(collect(events, args.by), key=lambda r: -r.median(runs))
    total = sum(r.median(runs) for r in rows)
    wall = statistics.median(walls)
    flops = sum(sum(r.flops.values()) for r in rows) / max(len(runs), 1)
    print(
        f"{args.model}: {count(len(walls), 'run')}, median {duration(wall)}, {count(threads, 'thread')}, {build['isa']}"
    )
    print(
        f"peak {peak:.0f} GFLOPS; the run does {flops / 1e9:.3g} GFLOP at {flops / wall / 1e9:.1f} GFLOPS, "
        f"{flops / wall / 1e9 / peak:.0%} of peak; {duration(max(wall - total, 0))} outside of nodes\n"
    )
    shown = rows[: args.top] if args.top > 0 else rows
    cells = [["time", "share", "sum", "GFLOPS", "of peak", "GB/s", "operator", "kernel", *_place(args.by)]]
    running = 0.0
    for r in shown:
        seconds = r.median(runs)
        running += seconds
        gflops, gbytes = r.rate(r.flops, runs) / 1e9, r.rate(r.bytes, runs) / 1e9
        cells.append([
            duration(seconds), f"{seconds / total:.1%}" if total else "", f"{running / total:.0%}" if total else "",
            f"{gflops:.1f}" if gflops else "", f"{gflops / peak:.0%}" if gflops else "", f"{gbytes:.1f}" if gbytes else "",
            r.op, r.kernel, *_place(args.by, r, len(runs)),
        ])  # fmt: skip
    print(table(cells, right=range(6)))
    if len(shown) < len(rows):
        print(f"... and {len(rows) - len(shown)} more (--top 0 shows all)")
    if args.trace:
        write_trace(args.trace, events)
        print(f"\nwrote {args.trace}: open it in https://ui.perfetto.dev or chrome://tracing")
    if args.json:
        _write_json(args, rows, runs, peak, threads, wall, session.memory())
    return 0


def _place(by: str, row: Row | None = None, runs: int = 1) -> list[str]:
    """The last columns: of the header without a row."""
    if by == "operator":
        return [f"{row.calls / max(runs, 1):g}" if row else "calls"]
    return [row.shape, shorten(row.node, 60)] if row else ["output", "node"]


def _write_json(
    args: argparse.Namespace,
    rows: list[Row],
    runs: list[int],
    peak: float,
    threads: int,
    wall: float,
    memory: dict[str, int],
) -> None:
    document = {
        "model": args.model, "threads": threads, "peak_gflops": peak, "median_s": wall, "memory": memory,
        "rows": [
            {
                "node": r.node, "operator": r.op, "kernel": r.kernel, "output": r.shape, "seconds": r.median(runs),
                "gflops": r.rate(r.flops, runs) / 1e9, "gbytes_per_s": r.rate(r.bytes, runs) / 1e9,
            }
            for r in rows
        ],
    }  # fmt: skip
    with open(args.json, "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
