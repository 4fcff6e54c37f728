"""Times one engine on one model in this process and prints one line of JSON. Run as a program, afresh for every measurement.

    python measure.py ENGINE MODEL.onnx INPUTS.npz THREADS SECONDS [SAVE.npz]

ENGINE: tiercel, onnxruntime or openvino. SECONDS: of timed runs; 0 runs the model once, to save its outputs. Prints
import_s, load_s, first_s, median_s, min_s (seconds), peak_mb (largest resident memory, MiB) and n (timed runs).

A file of its own, imported by nothing: a process that times another engine must not load this one.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # this folder's modules must not stand before the standard library's


def peak_mb() -> float:
    """Peak resident memory of this program alone (ru_maxrss would carry the parent's over)."""
    try:
        with open("/proc/self/status") as f:
            return int(next(line for line in f if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_model(engine: str, model: str, threads: int, feeds: dict[str, Any]) -> tuple[float, Callable[[], list[Any]]]:
    """Seconds that the import took, and a function that runs the model once."""
    start = time.perf_counter()
    library = importlib.import_module(engine)
    imported = time.perf_counter() - start
    if engine == "openvino":
        import numpy as np

        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        compiled = library.Core().compile_model(model, "CPU", config)
        request = compiled.create_infer_request()
        named = {next(n for n in port.names if n in feeds): i for i, port in enumerate(compiled.inputs)}
        arguments = {i: feeds[name] for name, i in named.items()}
        return imported, lambda: [np.array(v) for v in request.infer(arguments).values()]
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return imported, lambda: list(session.run(None, feeds))


def arrays(outputs: list[Any]) -> dict[str, Any]:
    """Outputs by position, sequences flattened: what numpy.savez takes."""
    import numpy as np

    named = {}
    for i, value in enumerate(outputs):
        if isinstance(value, list):
            named.update({f"{i}.{j}": np.asarray(item) for j, item in enumerate(value)})
        elif value is not None:
            array = np.asarray(value)
            named[str(i)] = array.astype(str) if array.dtype == object else array
    return named


def main(argv: list[str]) -> None:
    engine, model, inputs, threads, seconds = argv[0], argv[1], argv[2], int(argv[3]), float(argv[4])
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import numpy as np

    feeds = dict(np.load(inputs))
    start = time.perf_counter()
    imported, run = open_model(engine, model, threads, feeds)
    loaded = time.perf_counter()
    outputs = run()
    first = time.perf_counter() - loaded
    if len(argv) > 5:
        np.savez(argv[5], **arrays(outputs))
    times: list[float] = []
    if seconds > 0:
        for _ in range(2):
            run()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    row = {
        "import_s": imported,
        "load_s": loaded - start - imported,
        "first_s": first,
        "peak_mb": peak_mb(),
        "n": len(times),
    }
    if times:
        row |= {"median_s": float(np.median(times)), "min_s": min(times)}
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
