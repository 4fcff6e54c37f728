"""bench/compare.py: tables and summaries on made-up measurements, and a whole report of two tiny models."""

from __future__ import annotations

import builtins
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compare as bench
import plots
import roofline
import tables
from tiercel.cli.compare import Result


def result(
    engine: str, seconds: float, load: float = 0.1, peak: float = 100, difference: float | None = 1e-7
) -> Result:
    row = {"median_s": seconds, "load_s": load, "first_s": 2 * load, "peak_mb": peak}
    return Result(engine, [row, row], difference=None if engine == "onnxruntime" else difference)


@pytest.fixture
def measured() -> dict[str, list[Result]]:
    absent = Result("torch", failure=f"{tables.NO_FORM} of b")
    broken = Result("openvino", failure="RuntimeError: no | such operator")
    return {
        "a": [result("onnxruntime", 4), result("openvino", 2), result("torch", 8), result("tiercel", 1, 0.05, 25)],
        "b": [result("onnxruntime", 9), broken, absent, result("tiercel", 1, 0.2, 100, 2e-6)],
    }


def test_table(measured: dict[str, list[Result]]) -> None:
    engines = [r.engine for r in measured["a"]]
    rows = [tables.header(engines), *(tables.row(n, r) for n, r in measured.items())]
    assert {len(r) for r in rows} == {1 + 3 + 3 * 5}
    assert rows[1][:6] == ["a", "4000.000", "0.100", "100", "2000.000", "2.00"]
    assert rows[2][4] == "failed: RuntimeError: no / such operator"
    assert rows[2][9:14] == [""] * 5  # no torch form
    lines = tables.markdown(rows).splitlines()
    assert {line.count("|") for line in lines} == {len(rows[0]) + 1}


def test_summary(measured: dict[str, list[Result]]) -> None:
    rows = {r[0]: dict(zip(tables.summary(measured)[0], r, strict=True)) for r in tables.summary(measured)[1:]}
    ours = rows["tiercel"]
    assert ours["times as fast"] == "6.000"
    assert ours["least"] == "4.00 (a)"
    assert ours["most"] == "9.00 (b)"
    assert ours["peak memory"] == "0.50"
    assert ours["load time"] == "1.00"
    assert ours["largest difference"] == "2.0e-06"
    assert rows["openvino"]["models"] == "1"
    assert tables.slowest(measured).startswith("slowest model against the faster of its peers: a, 2.00 (openvino)")
    assert tables.slowest({"a": measured["a"][3:]}) == ""
    failed = {"a": [Result("onnxruntime", failure="x"), result("tiercel", 1)]}
    assert tables.summary(failed)[1] == ["tiercel", *[""] * 8]


def test_bandwidth() -> None:
    assert 0.01 < roofline.bandwidth(1, roofline.CACHE, 0.01) < math.inf


def tiny(folder: Path, name: str, rows: int) -> None:
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((16, 8), dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, name, [x], [y], [w])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / f"{name}.onnx"
    )
    np.savez(folder / f"{name}.npz", x=rng.standard_normal((rows, 16), dtype=np.float32))


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    tiny(tmp_path, "one", 3)
    tiny(tmp_path, "other", 40)
    into, log = tmp_path / "report", tmp_path / "all.json"
    options = ["--threads", "1", "--rounds", "1", "--seconds", "0.01", "--report", str(into), "--json", str(log)]
    assert bench.main([str(tmp_path), *options]) == 0
    text = (into / "report.md").read_text()
    for picture in ("speedup", "memory", "load", "begin", "roofline"):
        assert f"({picture}.png)" in text
        assert (into / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (into / f"{picture}.svg").read_text()
    printed = capsys.readouterr().out
    for line in ("| one |", "| other |", "slowest model against the faster of its peers", "| against onnxruntime |"):
        assert line in printed
        assert line in text
    assert "## Arena of intermediates" in text and "## Floors of arithmetic" in text
    assert set(json.loads(log.read_text())["models"]) == {"one", "other"}


def test_report_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(plots.NoMatplotlib, match="pip install"):
        plots.pyplot()
    with pytest.raises(SystemExit) as e:
        bench.main([str(tmp_path), "--report", str(tmp_path / "report")])
    assert e.value.code == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_torch_without_a_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that the zoo does not export has empty cells, and one that it exports is run as a module."""
    zoo = tmp_path / "modules"
    zoo.mkdir()
    (zoo / "torch.py").write_text("def set_num_threads(n): assert n == 1\ndef from_numpy(a): return a\n")
    (zoo / "zoo.py").write_text("def torch_form(name): raise KeyError(name)\n")
    program = zoo / "torch_measure.py"
    program.write_text((Path(bench.__file__).parent / "torch_measure.py").read_text().replace(
        "Path(__file__).resolve().parent.parent", f"Path({str(Path(bench.__file__).resolve().parent.parent)!r})"
    ))  # fmt: skip
    monkeypatch.setitem(bench.compare.PROGRAMS, "torch", program)
    tiny(tmp_path, "one", 2)
    bench.main([str(tmp_path), "--engines", "tiercel", "torch", "--threads", "1", "--rounds", "1", "--seconds", "0.01"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| one |"))
    assert row.endswith("|  |  |  |  |  |")


def test_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([str(tmp_path)]) == 2
    assert "zoo.py" in capsys.readouterr().err
    assert sys.modules["compare"] is bench


def test_floors(measured: dict[str, list[Result]]) -> None:
    """100 GFLOP at 400 GFLOPS take a quarter of a second: a quarter of what was measured, a sixteenth of the first engine's four."""
    rows = [{"gflops": 200.0, "gbytes_per_s": 1.0, "seconds": 0.5}, {"gflops": 0.0, "gbytes_per_s": 1.0, "seconds": 0.5}]
    text = roofline.floor_table({"a": roofline.Profile(400.0, rows, {})}, measured)
    assert "| a | 100 | 250 | 1e+03 | 0.25 | 16.00 | 4.00 |" in text.splitlines()
    assert text.splitlines()[-1].startswith("| geometric mean | ")
