"""Profiles: Chrome-trace JSON, and the dicts it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import tiercel
from small_models import ARRANGE, model

FEED = {"x": np.ones((2, 3), np.float32), "s": np.array([1, 6])}


def test_end_profiling(tmp_path: Path) -> None:
    options = tiercel.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile_")
    s = tiercel.InferenceSession(model(ARRANGE), options)
    assert s.get_profiling_start_time_ns() > 0
    s.run(None, FEED)
    s.run(None, FEED)
    path = s.end_profiling()
    assert path.startswith(str(tmp_path / "profile_"))
    events = json.loads(Path(path).read_text())
    assert {"Transpose", "ReduceSum"} <= {e["args"]["op_name"] for e in events}
    for e in events:
        assert e["ph"] == "X"
        assert e["dur"] >= 0
        assert e["ts"] >= 0
        assert e["cat"] == "Node"
        assert {"pid", "tid", "name"} <= set(e)
    assert s.end_profiling() == ""
    assert len(s.run(None, FEED)) == 3


def test_without_profiling() -> None:
    s = tiercel.InferenceSession(model(ARRANGE))
    s.run(None, FEED)
    assert s.get_profiling_start_time_ns() == 0
    assert s.end_profiling() == ""
    assert s.take_profile() == []


def test_memory() -> None:
    s = tiercel.InferenceSession(model(ARRANGE))
    s.run(None, FEED)
    m = s.memory()
    assert m["programs"] == 1
    assert m["instructions"] >= 2
    assert m["arena"] >= m["live_bound"] >= 0
