"""Builds the C++ tests: on the engine that the installed wheel was linked from when its objects are still there, else anew.

`pip install .` leaves its build folder in build/<wheel tag>; the archive in it holds the very objects that were shipped,
so testing those is both quicker and truer than compiling the engine once more. TIERCEL_BUILD names another configured
build folder to use, such as that of the preset `dev`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = "libtiercel_static.a"


def tool(name: str) -> str:
    """cmake, ctest or ninja: beside this interpreter (from PyPI), else on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is needed: pip install 'tiercel[test]'"
    return found


def command(*args: str) -> str:
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(args)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def newest_source() -> float:
    files = [ROOT / "CMakeLists.txt", *(ROOT / "cmake").rglob("*"), *(ROOT / "csrc").rglob("*")]
    return max(f.stat().st_mtime for f in files if f.is_file())


def shipped_engine() -> Path | None:
    """The folder of a wheel's build whose archive is newer than every source."""
    built = [a for a in (ROOT / "build").glob(f"*/{ARCHIVE}") if a.parent.name != "native"]
    fresh = [a for a in built if a.stat().st_mtime >= newest_source()]
    return max(fresh, key=lambda a: a.stat().st_mtime).parent if fresh else None


@functools.cache
def build_folder() -> Path:
    """The build folder of the C++ tests, configured (nothing built yet)."""
    if chosen := os.environ.get("TIERCEL_BUILD"):
        return (ROOT / chosen).resolve()
    folder = ROOT / "build" / "native"
    engine = shipped_engine()
    command(
        tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        "-DCMAKE_BUILD_TYPE=Release", "-DTIERCEL_TESTS=ON", "-DTIERCEL_WERROR=ON",
        f"-DTIERCEL_PREBUILT={engine / ARCHIVE if engine else ''}",
    )  # fmt: skip
    return folder


@functools.cache
def engine_folder() -> Path:
    """The build folder that holds the engine's objects; they are compiled now where they are not there yet."""
    if "TIERCEL_BUILD" not in os.environ and (engine := shipped_engine()):
        return engine
    command(tool("cmake"), "--build", str(build_folder()), "--target", "tiercel_static")
    return build_folder()


@functools.cache
def ctests() -> dict[str, list[str]]:
    """Name and command of every test that CMake knows. Builds them all."""
    folder = build_folder()
    command(tool("cmake"), "--build", str(folder))
    listing = json.loads(command(tool("ctest"), "--test-dir", str(folder), "--show-only=json-v1"))
    return {t["name"]: t["command"] for t in listing["tests"]}
