"""No code that is compiled more than once may cross from one instruction set to another.

An inline function with external linkage that two kernel sets define is merged by the linker: one set's copy then runs where its
instructions may not exist. So the objects of a set define no weak symbols, and global ones only in their own namespace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from native import engine_folder
from tiercel import _core, build_info

ISAS = build_info()["isas"]
LANES = {"baseline": 4, "neon": 4, "avx2": 8, "avx512": 16}
RUNNING = _core.running_isas()

# References to the personality routine: a pointer in data, the same in every object.
HARMLESS = re.compile(r"^DW\.ref\.")


def defined_symbols(isa: str) -> list[tuple[str, str, str]]:
    """(object, kind, mangled name) of what the objects of a kernel set define with external linkage."""
    objects = sorted((engine_folder() / "CMakeFiles" / f"tiercel_kernels_{isa}.dir").rglob("*.o"))
    assert objects, f"no objects of {isa} in {engine_folder()}"
    symbols = []
    for path in objects:
        listing = subprocess.run(["nm", "--defined-only", str(path)], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            *_, kind, name = line.split()
            # Upper case: external. V, W, u: weak and unique ones (v and w are undefined there, or local to no one).
            if (kind.isupper() or kind in "uvw") and not HARMLESS.match(name):
                symbols.append((path.name, kind, name))
    return symbols


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.timeout(900)
def test_symbols_stay_in_their_namespace(isa: str) -> None:
    symbols = defined_symbols(isa)
    weak = [s for s in symbols if s[1] in "VWuvw"]
    assert not weak, f"weak symbols, which the linker merges with another kernel set's: {weak}"
    own = f"7tiercel{len(isa)}{isa}"  # as mangled: _ZN8tiercel6avx512...
    foreign = [s for s in symbols if own not in s[2]]
    assert not foreign, f"symbols outside namespace tiercel::{isa}: {foreign}"


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
@pytest.mark.timeout(900)
def test_every_set_has_the_same_tables() -> None:
    def tables(isa: str) -> set[str]:
        return {name.replace(f"{len(isa)}{isa}", "ISA") for _, _, name in defined_symbols(isa) if "_table" in name}

    first = tables(ISAS[0])
    assert first
    for isa in ISAS[1:]:
        assert tables(isa) == first


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("isa", RUNNING)
def test_forced_set_is_the_one_that_runs(isa: str) -> None:
    code = "import tiercel; from tiercel import _core; print(tiercel.build_info()['isa'], _core.active_lanes())"
    done = python(code, TIERCEL_FORCE_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa, str(LANES[isa])]


def test_the_best_set_is_chosen() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TIERCEL_FORCE_ISA"}
    code = "import tiercel; print(tiercel.build_info()['isa'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [RUNNING[-1]]


@pytest.mark.parametrize("name", ["avx9000", "AVX2", "baseline ", "neon" if "neon" not in RUNNING else "avx2"])
def test_forcing_a_set_that_cannot_run_is_an_error(name: str) -> None:
    done = python("import tiercel; tiercel.build_info()", TIERCEL_FORCE_ISA=name)
    assert done.returncode == 1, "an exception, not an abort"
    last = done.stderr.strip().splitlines()[-1]
    assert "InvalidArgument" in last
    assert f"TIERCEL_FORCE_ISA={name}" in last
    assert all(isa in last for isa in RUNNING), "it says what can be chosen"


def test_an_empty_choice_is_no_choice() -> None:
    assert python("import tiercel; tiercel.build_info()", TIERCEL_FORCE_ISA="").returncode == 0


def test_wheel_has_no_debug_symbols() -> None:
    module = Path(_core.__file__)
    if "site-packages" not in module.parts:
        pytest.skip("the package is not installed from a wheel")
    sections = subprocess.run(["readelf", "-S", "-W", str(module)], capture_output=True, text=True, check=True).stdout
    assert ".debug_info" not in sections
    assert ".symtab" not in sections
