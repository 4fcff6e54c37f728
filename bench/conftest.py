"""Options of the suites, and a table of rates at the end of a run.

    python -m pytest bench/kernels --threads 1
    python -m pytest bench/models --zoo build/zoo --threads 2
    python -m pytest bench/training --threads 1

numpy's own matrix product is bound to the same number of threads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=1, help="threads of a run (default 1)")
    parser.addoption("--zoo", type=Path, help="folder of NAME.onnx with NAME.npz beside, for bench/models")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(config.getoption("--threads")))


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--threads"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A row a bench: time, rates, and the time of onnxruntime (of torch, in training) over it."""
    session = getattr(config, "_benchmarksession", None)
    benches = [b for b in session.benchmarks if b.stats.data] if session else []
    if not benches:
        return
    medians = {(b.group, b.extra_info.get("engine")): b.stats.median for b in benches}
    rows = [["bench", "engine", "median us", "GFLOPS", "of peak", "GB/s", "times as fast as the peer"]]
    for b in benches:
        info, reference = b.extra_info, medians.get((b.group, "onnxruntime"), medians.get((b.group, "torch")))
        rows.append([
            str(b.group), str(info.get("engine", "")), f"{b.stats.median * 1e6:.2f}",
            f"{info['gflops']:.1f}" if "gflops" in info else "",
            f"{info['share_of_peak']:.1%}" if "share_of_peak" in info else "",
            f"{info['gbytes_per_s']:.1f}" if "gbytes_per_s" in info else "",
            f"{reference / b.stats.median:.2f}" if reference else "",
        ])  # fmt: skip
    from tiercel.cli.text import table

    terminalreporter.section("rates")
    terminalreporter.write_line(table(rows, right=range(2, 7)))
