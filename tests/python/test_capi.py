"""The C interface as the engine module exports it, and what the modules export beside it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

import tiercel
from tiercel import _call, _core


def test_table() -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(_core._C_API, b"tiercel._core._C_API")
    abi, size = (ctypes.c_uint32 * 2).from_address(address)
    assert abi == 1
    assert size == 8 + 35 * ctypes.sizeof(ctypes.c_void_p)
    version = ctypes.CFUNCTYPE(ctypes.c_char_p)(ctypes.c_void_p.from_address(address + 8).value)
    assert version().decode() == tiercel.__version__


def test_header_is_found() -> None:
    assert "tiercel_session_run" in (Path(tiercel.get_include()) / "tiercel.h").read_text()


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("module", [_core, _call])
def test_modules_export_their_entry_point_alone(module: object) -> None:
    path = module.__file__  # type: ignore[attr-defined]
    out = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in out.splitlines()} == {f"PyInit_{module.__name__.rpartition('.')[2]}"}  # type: ignore[attr-defined]
