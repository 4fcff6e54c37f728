"""Functions of onnxruntime's module that stand alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiercel import _core

#: The onnxruntime whose Python interface this one follows.
ONNXRUNTIME_API = "1.32.0"


def build_info() -> dict[str, Any]:
    """What was built and what runs here.

    Returns a dict: ``version`` (str), ``isa`` (kernel set in use), ``isas`` (kernel sets compiled), ``compiler`` (str),
    ``threads`` (processors that this process may use: the affinity mask bounded by the cgroup's quota).
    Raises ``InvalidArgument`` when ``TIERCEL_FORCE_ISA`` names a kernel set that cannot run here.
    """
    return _core.build_info()


def get_build_info() -> str:
    """The same in one line."""
    d = build_info()
    return f"Tiercel {d['version']}, {d['compiler']}, kernels {'/'.join(d['isas'])}, using {d['isa']}"


def get_version_string() -> str:
    """The version of onnxruntime whose interface this one follows."""
    return ONNXRUNTIME_API


def get_include() -> str:
    """Folder of ``tiercel.h``, for C and Cython extensions that use the engine through ``tiercel/capi.pxd``."""
    from pathlib import Path

    here = Path(__file__).parent
    installed = here / "include"
    return str(installed if installed.is_dir() else here.parents[1] / "csrc" / "include")


def set_default_logger_severity(severity: int) -> None:
    """Accepted (0 to 4); no effect: there is no log. Raises ``RuntimeError`` for another number."""
    if not 0 <= int(severity) <= 4:
        raise RuntimeError(f"Invalid logging severity {severity}: expected 0 to 4")


def set_default_logger_verbosity(verbosity: int) -> None:
    """Accepted; no effect: there is no log."""


def set_default_logger_callback(callback: Callable[..., Any] | None, severity: int = 2) -> None:
    """Accepted; never called: there is no log."""


def set_seed(seed: int) -> None:
    """Accepted; no effect: a random operator draws from its own attribute `seed`, or without one anew in every run."""


def enable_telemetry_events() -> None:
    """No effect: nothing is ever sent."""


def disable_telemetry_events() -> None:
    """No effect: nothing is ever sent."""


def has_collective_ops() -> bool:
    """False."""
    return False


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None) -> None:
    """No effect: there are no libraries to load."""


def print_debug_info() -> None:
    """Prints version, build and machine."""
    import platform

    print(get_build_info())
    print(f"platform: {platform.platform()}, Python {platform.python_version()}")
