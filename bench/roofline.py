"""Where every node of a model stands under the roof: its rates from `tiercel profile`, and the bandwidths that bound them, measured here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tables import Results, geometric_mean, markdown, pairs, speedup
from tiercel.cli.compare import MeasurementError
from tiercel.cli.text import size

MEMORY, CACHE = 256 << 20, 192 << 10  # bytes a thread touches: far beyond the last level; within L2, beyond L1


@dataclass
class Profile:
    """What `tiercel profile --json` wrote of a model."""

    peak: float  # GFLOPS of all threads
    rows: list[dict[str, Any]]
    memory: dict[str, int]

    def points(self) -> list[tuple[float, float, float]]:
        """(FLOPs a byte, GFLOPS, seconds) of every node that counts FLOPs."""
        return [
            (r["gflops"] / r["gbytes_per_s"], r["gflops"], r["seconds"])
            for r in self.rows
            if r["gflops"] > 0 and r["gbytes_per_s"] > 0
        ]


def profile(model: Path, inputs: Path, threads: int, runs: int = 10) -> Profile:
    """In a process of its own. Raises ``MeasurementError``."""
    with tempfile.TemporaryDirectory(prefix="tiercel-") as folder:
        log = Path(folder) / "profile.json"
        options = ["--input", inputs, "--threads", threads, "--runs", runs, "--json", log]
        command = [sys.executable, "-m", "tiercel", "profile", model, *options]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise MeasurementError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        document = json.loads(log.read_text())
    return Profile(document["peak_gflops"], document["rows"], document["memory"])


def bandwidth(threads: int, bytes_each: int, seconds: float = 0.3) -> float:
    """GB/s of `threads` at once adding two arrays into a third, `bytes_each` in all for each; the best of the passes that fit the time."""
    count = bytes_each // 12
    arrays = [[np.ones(count, np.float32) for _ in range(3)] for _ in range(threads)]
    repeats = max(1, (4 << 20) // bytes_each)

    def add(mine: list[np.ndarray]) -> None:
        a, b, c = mine
        for _ in range(repeats):
            np.add(a, b, out=c)

    best, end = float("inf"), time.perf_counter() + seconds
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() < end or best == float("inf"):
            start = time.perf_counter()
            list(pool.map(add, arrays))
            best = min(best, time.perf_counter() - start)
    return threads * repeats * count * 12 / best / 1e9


def arena_table(profiles: dict[str, Profile]) -> str:
    """Intermediates as laid out, against the most bytes that are alive at once: no plan can take less."""
    rows = [["model", "arena", "live at once, at most", "arena over it", "instructions", "barriers"]]
    shares = []
    for name, p in profiles.items():
        m = p.memory
        shares += [m["arena"] / m["live_bound"]] if m["live_bound"] else []
        share = f"{shares[-1]:.3f}" if m["live_bound"] else ""
        rows.append([name, size(m["arena"]), size(m["live_bound"]), share, str(m["instructions"]), str(m["barriers"])])
    rows.append(["geometric mean", "", "", f"{geometric_mean(shares):.3f}" if shares else "", "", ""])
    return markdown(rows)


def floor_table(profiles: dict[str, Profile], everything: Results) -> str:
    """What the arithmetic alone would take at the peak of all threads, and how many times as fast as the first engine that would be: the bound of
    a direct algorithm in f32 (Winograd's where it runs). Weights from memory and steps that wait for each other are not in it."""
    base = next(iter(everything.values()))[0].engine
    rows = [["model", "GFLOP", "floor ms", "measured ms", "floor over it", f"{base} over the floor", f"{base} over measured"]]
    bounds, shares = [], []
    for name, (one, mine) in pairs(everything, "tiercel").items():
        if name not in profiles:
            continue
        p = profiles[name]
        work = sum(r["gflops"] * r["seconds"] for r in p.rows)
        floor, took = work / p.peak, mine.median("median_s")
        bounds.append(one.median("median_s") / floor)
        shares.append(floor / took)
        numbers = [f"{work:.3g}", f"{floor * 1e3:.3g}", f"{took * 1e3:.3g}", f"{shares[-1]:.2f}", f"{bounds[-1]:.2f}", f"{speedup(one, mine):.2f}"]
        rows.append([name, *numbers])
    mean = [f"{geometric_mean(v):.2f}" if v else "" for v in (shares, bounds)]
    rows.append(["geometric mean", "", "", "", *mean, ""])
    return markdown(rows)
