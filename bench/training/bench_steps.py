"""Steps of training in one process, with PyTorch eager beside: quick; bench/training/steps.py, with a process for every measurement, is what
figures come from.

    python -m pytest bench/training --threads 1
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import cases


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("training")


LOSSES: dict[str, list[float]] = {}  # of PyTorch


@pytest.mark.filterwarnings("ignore")  # of torch
@pytest.mark.parametrize("engine", ["torch", "tiercel"])
@pytest.mark.parametrize("name", cases.CASES)
def test_step(benchmark: Any, folder: Path, name: str, engine: str, threads: int) -> None:
    cases.prepare(folder, [name])
    case = cases.CASES[name]
    if name not in LOSSES:
        reference = cases.engine_step("torch", case, folder, threads)
        LOSSES[name] = [reference() for _ in range(cases.CHECKED)]
    step = cases.engine_step(engine, case, folder, threads)
    assert [step() for _ in range(cases.CHECKED)] == pytest.approx(LOSSES[name], rel=1e-4, abs=1e-4)
    benchmark.group = f"{name}: {case.about}"
    benchmark.extra_info["engine"] = engine
    benchmark(step)
