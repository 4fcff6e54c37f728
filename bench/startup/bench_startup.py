"""What it takes to begin: import, load, first run and peak memory, each in fresh processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import installed
from tiercel.cli import compare

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = 5
IMPORT = """
import json, sys, time
start = time.perf_counter()
import numpy
base = time.perf_counter()
if sys.argv[1] != "numpy":
    __import__(sys.argv[1])
end = time.perf_counter()
threads = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("Threads"))
print(json.dumps({"numpy_s": base - start, "import_s": end - base, "threads": threads, "modules": len(sys.modules)}))
"""


@pytest.mark.parametrize("module", ["numpy", "tiercel", "onnxruntime", "openvino"])
def test_import(benchmark: Any, module: str) -> None:
    """Time of `import module` in a process that has imported numpy, and how many threads run afterwards."""
    if not installed(module):
        pytest.skip(f"{module} is not installed")
    rows: list[dict[str, float]] = []

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", IMPORT, module], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))

    benchmark.group = "process that imports"
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["engine"] = module
    benchmark.extra_info |= {k: statistics.median(r[k] for r in rows) for k in rows[0]}
    print(f"\n{module}: {benchmark.extra_info['import_s'] * 1e3:.1f} ms beyond numpy, {rows[0]['threads']} threads")


def models(config: pytest.Config) -> list[Path]:
    folder = config.getoption("--zoo") or ROOT / "tests" / "models" / "data"
    return sorted(Path(folder).glob("*.onnx"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", models(metafunc.config), ids=lambda p: p.stem)


@pytest.mark.parametrize("engine", ["tiercel", "onnxruntime"])
def test_load(benchmark: Any, model: Path, engine: str, threads: int, tmp_path: Path) -> None:
    """Load time, first run and peak memory of a process that loads a model and runs it once."""
    inputs = model.with_suffix(".npz")
    if not inputs.exists():
        from tiercel.cli.feeds import model_info, random_input

        rng = np.random.default_rng(0)
        inputs = tmp_path / "inputs.npz"
        signature = model_info(str(model))["inputs"]
        compare.save_npz(
            inputs,
            {
                n: random_input(n, k, [d if isinstance(d, int) else 32 for d in s], {}, None, rng)
                for n, k, s in signature
            },
        )
    rows: list[dict[str, float]] = []
    benchmark.group = model.stem
    benchmark.pedantic(lambda: rows.append(compare.measure(engine, model, inputs, threads, 0)), rounds=ROUNDS)
    benchmark.extra_info["engine"] = engine
    benchmark.extra_info |= {k: statistics.median(r[k] for r in rows) for k in ("load_s", "first_s", "peak_mb")}
    info = benchmark.extra_info
    print(
        f"\n{model.stem} {engine}: load {info['load_s'] * 1e3:.1f} ms, first run {info['first_s'] * 1e3:.1f} ms, peak {info['peak_mb']:.0f} MiB"
    )
