"""Times the torch form of a zoo model, eager, in this process: the arguments and the result of tiercel/cli/measure.py, whose main it runs.

    python bench/torch_measure.py torch MODEL.onnx INPUTS.npz THREADS SECONDS [SAVE.npz]

The module is made again from the model's name (bench/zoo.py) with the export's seed. Loading is that: random weights are drawn, no file is read,
so its time says less than the other engines'; peak memory holds all that the architectures import.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NO_FORM = "no torch form"  # what tables.py looks for


def open_model(engine: str, model: str, threads: int, feeds: dict[str, Any]) -> tuple[float, Callable[[], list[Any]]]:
    """As measure.py's."""
    start = time.perf_counter()
    import torch

    torch.set_num_threads(threads)
    import zoo

    imported = time.perf_counter() - start
    try:
        module = zoo.torch_form(Path(model).stem)
    except KeyError:
        sys.exit(f"{NO_FORM} of {Path(model).stem}")
    inputs = [torch.from_numpy(a) for a in feeds.values()]

    def run() -> list[Any]:
        with torch.inference_mode():
            outputs = module(*inputs)
        return [t.numpy() for t in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return imported, run


if __name__ == "__main__":
    # By its path: importing it as tiercel.cli.measure would load the engine into the process.
    measure = runpy.run_path(str(ROOT / "python" / "tiercel" / "cli" / "measure.py"))
    measure["main"].__globals__["open_model"] = open_model
    measure["main"](sys.argv[1:])
