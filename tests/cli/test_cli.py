"""The command line: what it prints and writes, and its exit codes for right and wrong arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import cli
from tiercel.cli import compare, demo, profile, text

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of subprocesses, on interruption


def save(path: Path, nodes: list[onnx.NodeProto], inputs: list, outputs: list, initializers: tuple = ()) -> str:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.org", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="a test"), path)
    return str(path)


def value(name: str, shape: list | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.fixture
def mlp(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((4, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["out/y"], name="second"),
    ]
    return save(tmp_path / "mlp.onnx", nodes, [value("x", ["batch", 4])], [value("out/y", ["batch", 3])], (w,))


@pytest.fixture
def two_inputs(tmp_path: Path) -> str:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"], name="sum")]
    return save(tmp_path / "two.onnx", nodes, [value("a", [2]), value("b", [2])], [value("y", [2])])


@pytest.fixture
def unsupported(tmp_path: Path) -> str:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="fine"),
        helper.make_node("Frobnicate", ["h"], ["y"], name="strange", domain="example.org"),
    ]
    return save(tmp_path / "unsupported.onnx", nodes, [value("x", [2])], [value("y", [2])])


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = cli.main(args)
    except SystemExit as e:  # argparse
        code = int(e.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "tiercel", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("tiercel 0.")


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys)
    assert code == 2
    assert "COMMAND" in err


@pytest.mark.parametrize("command", ["info", "run", "bench", "profile", "demo"])
def test_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "usage: tiercel " + command in out


# ---- info


def test_info(capsys: pytest.CaptureFixture[str], mlp: str) -> None:
    code, out, _ = run(capsys, "info", mlp)
    assert code == 0
    for part in (
        "IR 8", "a test", "ai.onnx 17", "tensor(float)", "[batch, 4]", "[batch, 3]", "MatMul 1", "Relu 1", "--dim batch=N",
        "12 in 48 B", "every operator",
    ):  # fmt: skip
        assert part in out, part


def test_info_of_fixed_extents_tells_memory(capsys: pytest.CaptureFixture[str], mlp: str) -> None:
    code, out, _ = run(capsys, "info", mlp, "--dim", "batch=5")
    assert code == 0
    assert "instructions" in out


def test_info_lists_what_is_not_supported(capsys: pytest.CaptureFixture[str], unsupported: str) -> None:
    code, out, _ = run(capsys, "info", unsupported)
    assert code == 0
    assert "Not supported" in out
    assert "example.org.Frobnicate* 1" in out
    assert "strange" in out


def test_info_as_json(capsys: pytest.CaptureFixture[str], mlp: str, unsupported: str) -> None:
    for model, missing in ((mlp, 0), (unsupported, 1)):
        code, out, _ = run(capsys, "info", model, "--json")
        assert code == 0
        document = json.loads(out)
        assert len(document["unsupported"]) == missing
        assert (document["memory"] is None) == bool(missing)


# ---- run


def test_run_a_file(capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.save(tmp_path / "x.npy", x)
    out_dir = tmp_path / "deep" / "out"
    code, out, _ = run(
        capsys, "run", mlp, "--input", str(tmp_path / "x.npy"), "--output", str(out_dir), "--threads", "1"
    )
    assert code == 0
    assert "[2, 3]" in out
    w = numpy_helper.to_array(onnx.load(mlp).graph.initializer[0])
    np.testing.assert_allclose(np.load(out_dir / "out_y.npy"), np.maximum(x @ w, 0), rtol=1e-5, atol=1e-6)


def test_run_named_inputs(capsys: pytest.CaptureFixture[str], two_inputs: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2], np.float32))
    np.savez(tmp_path / "both.npz", a=np.array([1, 2], np.float32), b=np.array([3, 4], np.float32))
    code, out, _ = run(capsys, "run", two_inputs, "--input", str(tmp_path / "both.npz"))
    assert code == 0
    assert "4.0, 6.0" in out
    code, _, _ = run(capsys, "run", two_inputs, "--input", f"b={tmp_path / 'a.npy'}", "--input", "a=random")
    assert code == 0


def test_random_inputs_have_a_seed(capsys: pytest.CaptureFixture[str], mlp: str) -> None:
    def outputs(*args: str) -> list[str]:  # without the line of times
        code, out, _ = run(capsys, "run", mlp, "--dim", "batch=3", *args)
        assert code == 0
        return out.splitlines()[:3]

    first = outputs()
    assert "[3, 3]" in first[2]
    assert first == outputs("--input", "random")
    assert first != outputs("--seed", "1")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input", "nowhere.npy"], "no file"),
        (["--input", "z=nowhere.npy"], "no file"),
        (["--input", "z=random"], "no input 'z'; it has x"),
        (["--input", __file__], "cannot be read"),
        (["--dim", "batch"], "NAME=N"),
        (["--dim", "batch=-1"], "NAME=N"),
        (["--dim", "batch=\u00b2"], "NAME=N"),
        (["--dim", "height=2"], "no dimension 'height'; they have batch"),
        (["--shape", "x=99999999999x99999999999"], "too large"),
        (["--seed", "-1"], "number from 0"),
        (["--shape", "x=2xq"], "NAME=EXTENTS"),
        (["--shape", "y=2x4"], "no input 'y'"),
        (["--threads", "0"], "number of threads"),
        (["--threads", "many"], "number of threads"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], mlp: str, args: list[str], message: str) -> None:
    code, _, err = run(capsys, "run", mlp, *args)
    assert code == 2
    assert message in err


def test_shape_of_an_input_that_is_a_file(capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    code, _, err = run(capsys, "run", mlp, "--input", str(tmp_path / "x.npy"), "--shape", "x=2x4")
    assert code == 2
    assert "--shape x" in err


def test_output_folder_that_cannot_be_made(capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, err = run(capsys, "run", mlp, "--output", str(folder))
        assert code == 1
        assert str(folder) in err


@pytest.mark.parametrize(("command", "option"), [("bench", "--json"), ("profile", "--json"), ("profile", "--trace")])
def test_files_that_cannot_be_written_are_known_before_the_work(
    capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path, command: str, option: str
) -> None:
    for path, message in ((tmp_path / "none" / "x.json", "no folder"), (tmp_path, "is a folder")):
        code, out, err = run(capsys, command, mlp, option, str(path))
        assert (code, out) == (2, "")
        assert message in err


def test_ambiguous_input_file(capsys: pytest.CaptureFixture[str], two_inputs: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(2, np.float32))
    code, _, err = run(capsys, "run", two_inputs, "--input", str(tmp_path / "x.npy"))
    assert code == 2
    assert "inputs a, b: say which" in err


@pytest.mark.parametrize("command", ["info", "run", "bench", "profile"])
def test_model_that_is_not_there(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, _, err = run(capsys, command, "nowhere.onnx")
    assert code == 1
    assert "NoSuchFile" in err
    assert "nowhere.onnx" in err


@pytest.mark.parametrize("command", ["info", "run", "bench", "profile"])
def test_model_that_is_none(capsys: pytest.CaptureFixture[str], command: str, tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    code, _, err = run(capsys, command, str(path))
    assert code == 1
    assert "InvalidProtobuf" in err


@pytest.mark.parametrize("command", ["run", "profile"])
def test_unsupported_model(capsys: pytest.CaptureFixture[str], command: str, unsupported: str) -> None:
    code, _, err = run(capsys, command, unsupported)
    assert code == 1
    assert "NotImplemented" in err
    assert "strange" in err


def test_wrong_shape_is_an_error_of_the_model(capsys: pytest.CaptureFixture[str], mlp: str) -> None:
    code, _, err = run(capsys, "run", mlp, "--shape", "x=2x5")
    assert code == 1
    assert "InvalidArgument" in err
    assert '"x"' in err


# ---- bench


def test_bench(capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path) -> None:
    log = tmp_path / "bench.json"
    code, out, err = run(
        capsys, "bench", mlp, "--against", "onnxruntime", "--rounds", "2", "--seconds", "0.02", "--dim", "batch=2",
        "--threads", "1", "--json", str(log),
    )  # fmt: skip
    assert code == 0, err
    assert "x [2, 4]; 1 thread," in out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "us" in rows["tiercel"]
    assert "us" in rows["onnxruntime"]
    document = json.loads(log.read_text())
    assert [len(r["rounds"]) for r in document["results"]] == [2, 2]
    assert document["results"][1]["difference"] <= 1e-5


def test_bench_refuses_to_time_engines_that_disagree(
    capsys: pytest.CaptureFixture[str], mlp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "difference", lambda got, expected: 0.5)
    code, out, err = run(capsys, "bench", mlp, "--against", "onnxruntime", "--rounds", "1", "--seconds", "0.02")
    assert code == 1
    assert not out
    assert "nothing was timed" in err


def test_bench_wants_known_engines(
    capsys: pytest.CaptureFixture[str], mlp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, "bench", mlp, "--against", "abacus")
    assert code == 2
    assert "abacus" in err
    monkeypatch.setattr(compare, "installed", lambda engine: False)
    code, _, err = run(capsys, "bench", mlp, "--against", "openvino")
    assert code == 2
    assert "pip install openvino" in err


def test_difference() -> None:
    a = {"0": np.array([1.0, -2.0, np.nan, np.inf]), "1": np.array([1, 2])}
    assert compare.difference(a, a) == 0
    close = {"0": np.array([1.0, -2.002, np.nan, np.inf]), "1": np.array([1, 2])}
    assert compare.difference(close, a) == pytest.approx(1e-3)
    for wrong in (
        {"0": a["0"]},
        {"0": a["0"][:3], "1": a["1"]},
        {"0": np.array([1.0, -2.0, 0.0, np.inf]), "1": a["1"]},
        {"0": np.array([1.0, np.nan, np.nan, np.inf]), "1": a["1"]},
        {"0": np.array([1.0, -2.0, np.nan, -np.inf]), "1": a["1"]},
        {"0": a["0"], "1": np.array([1, 3])},
        {"0": a["0"], "1": np.array([1.0, 2.0])},
    ):
        assert compare.difference(wrong, a) == np.inf


# ---- profile


def test_profile(capsys: pytest.CaptureFixture[str], mlp: str, tmp_path: Path) -> None:
    trace, log = tmp_path / "trace.json", tmp_path / "rows.json"
    args = ["--dim", "batch=64", "--runs", "3", "--trace", str(trace), "--json", str(log)]
    code, out, _ = run(capsys, "profile", mlp, *args)
    assert code == 0
    assert "of peak" in out
    assert "first" in out  # a MatMul fused with its Relu keeps the name of one of them
    events = json.loads(trace.read_text())
    assert events
    for event in events:
        assert event["ph"] == "X"
        assert event["dur"] >= 0
        assert {"name", "ts", "pid", "tid"} <= set(event)
    rows = json.loads(log.read_text())
    assert rows["peak_gflops"] > 0
    assert rows["memory"]["programs"] == 1
    assert rows["memory"]["arena"] >= rows["memory"]["live_bound"]
    assert sum(r["seconds"] for r in rows["rows"]) > 0
    assert any(r["gflops"] > 0 for r in rows["rows"])
    code, out, _ = run(capsys, "profile", mlp, "--by", "operator", "--runs", "1", "--top", "1")
    assert code == 0
    assert "calls" in out


def test_profile_counts_bodies_once() -> None:
    def event(begin: float, length: float, node: str) -> dict:
        row = {"begin_us": begin, "duration_us": length, "node": node, "op": node, "domain": "", "kernel": ""}
        return row | {"flops": 0, "bytes": 0, "thread": 0, "run": 0, "inputs": [], "outputs": []}

    # An inner node is recorded before the loop that holds it; the loop's own time is what its body leaves.
    events = [event(1, 3, "inner"), event(5, 2, "inner"), event(0, 10, "Loop"), event(10, 4, "after")]
    rows = {r.node: r for r in profile.collect(events, "node")}
    assert {n: round(r.median([0]) * 1e6) for n, r in rows.items()} == {"inner": 5, "Loop": 5, "after": 4}


# ---- demo


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--plain", "--epochs", "3")
    assert code == 0
    assert "held-out images" in out
    assert "@@" in out
    assert "tiercel" in out
    assert "onnxruntime" in out
    assert " 9 (" in out
    lines = [line.split() for line in out.splitlines() if " accuracy " in line]
    assert [line[0] for line in lines] == ["before", "epoch", "epoch", "after"]
    before, after = lines[0], lines[-1]
    assert float(before[4].rstrip("%")) < 30 and float(after[4].rstrip("%")) > 90
    assert float(after[2]) < 0.5 < 2 < float(before[2])


def test_demo_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--plain", "--epochs", "0")
    assert code == 0 and "accuracy" not in out
    code, _, err = run(capsys, "demo", "--epochs", "-1")
    assert code == 2 and "--epochs is at least 0" in err


def test_the_model_of_the_demo_is_that_of_the_example() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import digits_cnn

    def shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
        return {i.name: list(i.dims) for i in model.graph.initializer}

    bundled, example = onnx.load(demo.MODEL), onnx.load_from_string(digits_cnn.network().build())
    assert shapes(bundled) == shapes(example)
    assert [n.op_type for n in bundled.graph.node] == [*(n.op_type for n in example.graph.node), "Softmax"]
    session = tiercel.InferenceSession(str(demo.MODEL))
    x, y = digits_cnn.digits()
    right = session.run(None, {"image": x[-360:]})[0].argmax(1) == y[-360:]
    with np.load(demo.FOLDER / "digits.npz") as data:
        assert right.mean() == pytest.approx(float(data["accuracy"]), abs=1e-6) and right.mean() > 0.985
    assert demo.MODEL.stat().st_size + (demo.FOLDER / "digits.npz").stat().st_size < 135_000


def test_demo_needs_numpy_alone(tmp_path: Path) -> None:
    """With onnxruntime, onnx, tqdm and the like out of reach."""
    for name in ("onnxruntime", "onnx", "tqdm", "torch", "openvino", "ml_dtypes", "PIL", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    code = (
        "import sys; from tiercel import cli; from tiercel.cli import compare; "
        "compare.installed = lambda engine: False; sys.exit(cli.main(['demo', '--epochs', '2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": search_path(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Install onnxruntime" in done.stdout


def search_path(first: Path) -> str:
    return os.pathsep.join(p for p in (str(first), os.environ.get("PYTHONPATH", "")) if p)


def test_pipe_that_closes_early(mlp: str) -> None:
    command = f"{sys.executable} -m tiercel info {mlp} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("Model")


# ---- text


def test_units() -> None:
    assert [text.size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "3.00 GiB",
    ]
    assert [text.duration(t) for t in (2.5, 0.0123, 5e-6)] == ["2.50 s", "12.3 ms", "5.00 us"]
    assert text.shorten("a" * 10 + "end", 8) == "...aaend"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(text.progress(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
