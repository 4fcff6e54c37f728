"""What the suites share: one-node models, a runner for each engine, results compared before they are timed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tiercel import _core
from tiercel.cli.compare import difference

Run = Callable[[], list[np.ndarray]]
TOLERANCE = 1e-4  # of an output's largest value, between engines
SEED = 0


@dataclass
class Work:
    """A computation: an ONNX model, its inputs, and what it costs."""

    name: str
    model: onnx.ModelProto | Path
    feeds: dict[str, np.ndarray]
    flops: float = 0
    bytes: float = 0  # read and written at least once
    numpy: Run | None = None  # the same in numpy, where numpy has it
    results: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def serialized(self) -> str | bytes:
        return str(self.model) if isinstance(self.model, Path) else self.model.SerializeToString()

    def runner(self, engine: str, threads: int) -> Run:
        """A function that computes it once with `engine`, whose result has been compared with onnxruntime's."""
        run = RUNNERS[engine](self, threads)
        if "onnxruntime" not in self.results:
            self.results["onnxruntime"] = RUNNERS["onnxruntime"](self, threads)()
        expected = dict(enumerate(self.results["onnxruntime"]))
        worst = difference(dict(enumerate(run())), expected)
        assert worst <= TOLERANCE, f"{engine} differs from onnxruntime by {worst:.1e} of the largest value"
        return run


def one_node(
    op: str, inputs: Sequence[np.ndarray | None], attributes: dict[str, Any] | None = None, constants: Sequence[int] = (),
    opset: int = 20, **work: Any,
) -> Work:  # fmt: skip
    """A model of one node. inputs: None for those left out; `constants`: indices of those that become initializers."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    given = {n: a for i, (n, a) in enumerate(zip(names, inputs, strict=True)) if a is not None and i not in constants}
    fixed = [numpy_helper.from_array(inputs[i], names[i]) for i in constants]
    declared = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()
    ]
    node = helper.make_node(op, names, ["y"], **(attributes or {}))
    graph = helper.make_graph([node], op, declared, [onnx.ValueInfoProto(name="y")], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    shapes = " ".join("x".join(map(str, a.shape)) for a in inputs[:2] if a is not None)
    return Work(work.pop("name", f"{op} {shapes}"), model, given, **work)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(shape, dtype=np.float32)


def _session(module: Any, work: Work, threads: int, **more: Any) -> Run:
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = module.InferenceSession(work.serialized(), options, **more)
    return lambda: list(session.run(None, work.feeds))


def _tiercel(work: Work, threads: int) -> Run:
    import tiercel

    return _session(tiercel, work, threads)


def _onnxruntime(work: Work, threads: int) -> Run:
    import onnxruntime

    return _session(onnxruntime, work, threads, providers=["CPUExecutionProvider"])


def _numpy(work: Work, threads: int) -> Run:
    assert work.numpy is not None
    return work.numpy


RUNNERS: dict[str, Callable[[Work, int], Run]] = {"tiercel": _tiercel, "onnxruntime": _onnxruntime, "numpy": _numpy}


def engines(works: Sequence[Work]) -> list[tuple[Work, str]]:
    """Every (work, engine) that there is: parameters of a bench."""
    return [(w, e) for w in works for e in RUNNERS if e != "numpy" or w.numpy is not None]


def peak_gflops() -> float:
    """What one core reaches on independent multiply-adds, now."""
    return float(_core.peak_gflops(seconds=0.05))


def measure(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    """Checks, then times. Rates stand in the bench's extra_info: gflops, share of the peak measured around it, GB/s."""
    run = work.runner(engine, threads)
    before = peak_gflops()
    benchmark.group = work.name
    benchmark.extra_info["engine"] = engine
    benchmark(run)
    if not benchmark.stats:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.median
    peak = (before + peak_gflops()) / 2 * threads
    if work.flops:
        benchmark.extra_info["gflops"] = work.flops / seconds / 1e9
        benchmark.extra_info["share_of_peak"] = work.flops / seconds / 1e9 / peak
    if work.bytes:
        benchmark.extra_info["gbytes_per_s"] = work.bytes / seconds / 1e9


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
