"""The stubs say what is there, and a strictly typed program that uses the package passes the type checker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiercel

pytest.importorskip("mypy")

PROGRAM = """
import numpy as np
import tiercel
from tiercel import GraphOptimizationLevel, InferenceSession, IOBinding, OrtValue, RunOptions, SessionOptions

options = SessionOptions()
options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
session = InferenceSession("m.onnx", options, providers=["CPUExecutionProvider", ("CUDAExecutionProvider", {"device_id": 0})])
name: str = session.get_inputs()[0].name
out = session.run((o.name for o in session.get_outputs()), {name: np.zeros((1, 3), np.float32)}, RunOptions())
binding: IOBinding = session.io_binding()
binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(np.zeros(3)))
session.run_with_iobinding(binding)

def done(outputs: list[object], user_data: object, error: str) -> None: ...

session.run_async(None, {name: out[0]}, done, None)
metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
try:
    tiercel.set_default_logger_severity(3)
except tiercel.errors.InvalidArgument:
    pass
session.no_such_method()
"""


def checked(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    folder = str(Path(tiercel.__file__).parents[1])
    env = dict(os.environ)
    if not folder.endswith("-packages"):  # a package built in place
        env["MYPYPATH"] = env["PYTHONPATH"] = folder
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-tqdm.*]\nignore_missing_imports = True\n")
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )


def test_a_typed_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    errors = [
        line for line in checked(tmp_path, "mypy", "--strict", "program.py").stdout.splitlines() if "error:" in line
    ]
    assert len(errors) == 1, errors
    assert "no_such_method" in errors[0]


def test_stubs_agree_with_run_time(tmp_path: Path) -> None:
    # What Cython adds by itself; pybind11's metaclass.
    (tmp_path / "allowed").write_text(
        "tiercel\\._call\\.__(reduce_cython|setstate_cython|test)__\ntiercel\\._core\\.TrainingSession\n"
    )
    done = checked(
        tmp_path, "mypy.stubtest", "--mypy-config-file", "mypy.ini", "--allowlist", "allowed",
        "--ignore-unused-allowlist", "tiercel",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
