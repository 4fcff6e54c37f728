"""Whole models against onnxruntime in one process: those of the tests, the packaged one, and a zoo (--zoo, see bench/zoo.py).

One process is quick and favours nobody's caches; bench/compare.py, with a process for every measurement, is what figures come from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support import SEED, Work, measure

ROOT = Path(__file__).resolve().parent.parent.parent
OPEN = 32  # extents that a small model leaves open


def small(path: Path) -> Work:
    """A model of the tests, its inputs made up: random floats, token ids and masks of 0 and 1."""
    proto = onnx.load(path)
    rng = np.random.default_rng(SEED)
    feeds: dict[str, np.ndarray] = {}
    for i in proto.graph.input:
        kind = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else OPEN for d in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.FLOAT:
            feeds[i.name] = rng.standard_normal(shape, dtype=np.float32)
        else:
            feeds[i.name] = rng.integers(0, 2, shape)
    return Work(path.stem, path, feeds)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "zoo_model" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--zoo")
        found = sorted(p for p in folder.glob("*.onnx") if p.with_suffix(".npz").exists()) if folder else []
        works = []
        for path in found:
            with np.load(path.with_suffix(".npz")) as archive:
                works.append(Work(path.stem, path, dict(archive)))
        pairs = [(w, e) for w in works for e in ("tiercel", "onnxruntime")]
        metafunc.parametrize(("zoo_model", "engine"), pairs, ids=str)


SMALL = [small(p) for p in sorted((ROOT / "tests" / "models" / "data").glob("*.onnx"))]
SMALL.append(small(ROOT / "python" / "tiercel" / "demo" / "digits.onnx"))


@pytest.mark.parametrize("engine", ["tiercel", "onnxruntime"])
@pytest.mark.parametrize("work", SMALL, ids=str)
def test_small_model(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)


def test_zoo(benchmark: Any, zoo_model: Work, engine: str, threads: int) -> None:
    measure(benchmark, zoo_model, engine, threads)
