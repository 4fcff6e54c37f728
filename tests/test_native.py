"""Every C and C++ test program, a pytest case each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from native import ROOT, ctests

# As tests/CMakeLists.txt collects them.
FOLDERS = sorted({f.parent.name for ending in ("cc", "c") for f in Path(__file__).parent.glob(f"*/*_test.{ending}")})


@pytest.mark.timeout(900)  # the first one builds them
@pytest.mark.parametrize("name", FOLDERS)
def test_program(name: str) -> None:
    done = subprocess.run(ctests()[name], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_no_program_is_left_out() -> None:
    assert sorted(ctests()) == FOLDERS
