"""Chrome-trace JSON of a profile. Source: the Trace Event Format; ``chrome://tracing`` and Perfetto open it."""

from __future__ import annotations

import json
import os
from typing import Any


def trace_events(profile: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Complete events ("X"; ``ts`` and ``dur`` in microseconds) of ``InferenceSession.take_profile``'s dicts."""
    pid = os.getpid()
    events = []
    for e in profile:
        seconds = e["duration_us"] * 1e-6
        args = {
            "op_name": e["op"],
            "domain": e["domain"],
            "kernel": e["kernel"],
            "run": e["run"],
            "flops": e["flops"],
            "bytes": e["bytes"],
            "gflops": e["flops"] / seconds / 1e9 if seconds > 0 else 0,
            "inputs": e["inputs"],
            "outputs": e["outputs"],
            "provider": "CPUExecutionProvider",
        }
        events.append(
            {
                "cat": "Node",
                "name": e["node"] or e["op"],
                "ph": "X",
                "pid": pid,
                "tid": e["thread"],
                "ts": e["begin_us"],
                "dur": e["duration_us"],
                "args": args,
            }
        )
    return events


def write_trace(path: str, profile: list[dict[str, Any]]) -> None:
    """Writes the profile to a file as a JSON array of events."""
    with open(path, "w", encoding="utf-8") as f:
        json.dump(trace_events(profile), f)
