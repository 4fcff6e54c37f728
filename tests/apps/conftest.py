"""Applications that were written for onnxruntime, each run twice in processes of its own: on onnxruntime and on Tiercel.

They are packages of the extra `apps`. Without them the tests are skipped; TIERCEL_APPS=1 makes that a failure.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Pair = tuple[Path, Path]


@pytest.fixture(scope="session")
def on_both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Pair]:
    """on_both(package, program): runs `program ENGINE FOLDER` for both engines; the folders, onnxruntime's first."""

    def run(package: str, program: str) -> Pair:
        if importlib.util.find_spec(package) is None:
            message = f"{package} is not installed: pip install 'tiercel[apps]'"
            pytest.fail(message) if os.environ.get("TIERCEL_APPS") else pytest.skip(message)
        folders = []
        for engine in ("onnxruntime", "tiercel"):
            folder = tmp_path_factory.mktemp(f"{package}_{engine}")
            done = subprocess.run(
                [sys.executable, str(HERE / program), engine, str(folder)], capture_output=True, text=True, timeout=400
            )
            assert done.returncode == 0, done.stderr[-4000:]
            folders.append(folder)
        return folders[0], folders[1]

    return run
