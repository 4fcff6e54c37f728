"""Times one engine's steps of one case in this process and prints one line of JSON. Run as a program, afresh for every measurement.

    python bench/training/step_measure.py ENGINE NAME FOLDER THREADS SECONDS

ENGINE: tiercel, torch or torch.compile. SECONDS: of timed steps; 0: only the first ones, for their losses. Prints losses (of the first
steps), load_s, first_s (with compilation), median_s, min_s (seconds), n (timed steps), base_mb (resident memory with all imported and the
model loaded), grown_mb (how far its peak rose above that).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def memory_mb(field: str) -> float:
    with open("/proc/self/status") as f:
        return int(next(line for line in f if line.startswith(f"{field}:")).split()[1]) / 1024


def main(argv: list[str]) -> None:
    engine, name, folder, threads, seconds = argv[0], argv[1], Path(argv[2]), int(argv[3]), float(argv[4])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import cases
    import numpy as np

    if engine == "tiercel":
        import tiercel.training  # noqa: F401
    else:
        import modules  # noqa: F401
        import torch  # noqa: F401
    start = time.perf_counter()
    step = cases.engine_step(engine, cases.CASES[name], folder, threads)
    loaded = time.perf_counter()
    gc.collect()
    base = memory_mb("VmRSS")
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # the peak begins anew: loading may have reached higher
    begun = time.perf_counter()
    losses = [float(step())]
    row: dict[str, Any] = {"first_s": time.perf_counter() - begun, "load_s": loaded - start, "losses": losses}
    losses += [float(step()) for _ in range(cases.CHECKED - 1)]
    times: list[float] = []
    if seconds > 0:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        row |= {"median_s": float(np.median(times)), "min_s": min(times)}
    row |= {"n": len(times), "base_mb": base, "grown_mb": max(memory_mb("VmHWM") - base, 0.0)}
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
