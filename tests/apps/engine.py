"""What both programs begin and end with: the engine chosen, and proof that it was the one that ran."""

from __future__ import annotations

import sys


def choose(engine: str) -> None:
    """Before the application is imported."""
    if engine == "tiercel":
        import tiercel

        tiercel.install_as_onnxruntime()


def prove(engine: str) -> None:
    """onnxruntime's library is mapped into this process, or it is not, and the other way round for Tiercel's."""
    with open("/proc/self/maps") as f:
        maps = f.read()
    assert ("onnxruntime_pybind11_state" in maps) == (engine == "onnxruntime")
    assert ("tiercel/_core" in maps) == (engine == "tiercel")
    import onnxruntime

    session = onnxruntime.InferenceSession
    assert session.__module__.split(".")[0] in (engine, "onnxruntime")
    print("ran on", engine, "as", session, file=sys.stderr)
