"""Files that are not models, or not models that can run. Each is an error that helps; none crashes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tiercel
from small_models import ARRANGE, TURN, model
from tiercel.errors import Error, InvalidGraph, InvalidProtobuf, NoSuchFile

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match=r"none\.onnx"):
        tiercel.InferenceSession(tmp_path / "none.onnx")
    with pytest.raises(NoSuchFile):
        tiercel.InferenceSession("")
    with pytest.raises(NoSuchFile):
        tiercel.InferenceSession("zero\0character.onnx")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(Error, match=str(tmp_path)):
        tiercel.InferenceSession(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(TURN))
    path.chmod(0)
    with pytest.raises(NoSuchFile):
        tiercel.InferenceSession(path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    for source in (path, b""):
        with pytest.raises(Error):
            tiercel.InferenceSession(source)


def test_random(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 10, 100, 1000, 10000):
        for _ in range(20):
            data = rng.integers(0, 256, size, np.uint8).tobytes()
            with pytest.raises(Error):
                tiercel.InferenceSession(data)
    path = tmp_path / "random.onnx"
    path.write_bytes(rng.integers(0, 256, 1000, np.uint8).tobytes())
    with pytest.raises(Error):
        tiercel.InferenceSession(path)


def test_truncated(tmp_path: Path) -> None:
    data = model(ARRANGE)
    path = tmp_path / "truncated.onnx"
    for size in range(len(data)):
        with contextlib.suppress(Error):  # a smaller model, by chance
            tiercel.InferenceSession(data[:size])
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidProtobuf, match=r"byte \d+, in ModelProto"):
        tiercel.InferenceSession(path)


def test_flipped_bits() -> None:
    """Any byte wrong: an error or another model, never a crash. A model that loads may run."""
    data = model(ARRANGE)
    feed = {"x": X, "s": np.array([1, 6])}
    for at in range(len(data)):
        for bit in (0, 3, 7):
            wrong = bytearray(data)
            wrong[at] ^= 1 << bit
            with contextlib.suppress(Error, ValueError):
                tiercel.InferenceSession(bytes(wrong)).run(None, feed)


def test_unsupported_operators_are_listed_at_once() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "made.up": 3]>
    g (float[N] x) => (float[N] y) {
        [first] a = NoSuchOperator (x)
        [second] b = made.up.Other <alpha = 1.0> (a)
        [third] c = NoSuchOperator (b)
        y = Identity (c)
    }"""
    with pytest.raises(tiercel.errors.NotImplemented) as caught:
        tiercel.InferenceSession(model(text))
    for word in ("NoSuchOperator", "first", "third", "17", "Other", "made.up", "second", "3"):
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[N] x) => (float[N] y) { y = Concat <axis = 0> (x, nothing) }", ["nothing"]),
        ("g (float[N] x, int64[N] z) => (float[N] y) { y = Concat <axis = 0> (x, z) }", ["Concat", "float", "int64"]),
        ("g (float[2, 3] x) => (float[N] y) { y = Concat <axis = 5> (x, x) }", ["Concat", "5"]),
        ("g (float[2, 3] x) => (float[N] y) { y = Transpose <perm = [0, 0]> (x) }", ["Transpose", "perm"]),
        ("g (float[2, 3] x) => (float[N] y) { x = Identity (x) y = Identity (x) }", ["x"]),
    ],
)
def test_contradictions(text: str, words: list[str]) -> None:
    with pytest.raises(Error) as caught:
        tiercel.InferenceSession(model(f'<ir_version: 8, opset_import: ["": 17]> {text}'))
    assert not isinstance(caught.value, InvalidProtobuf)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_cycle() -> None:
    nodes = [helper.make_node("Identity", ["b"], ["a"]), helper.make_node("Identity", ["a"], ["b"])]
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
    m = helper.make_model(helper.make_graph(nodes, "g", [], [y]), opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises((InvalidGraph, tiercel.errors.InvalidArgument)):
        tiercel.InferenceSession(m.SerializeToString())


def external(folder: Path, location: str) -> Path:
    """A model whose weight lies in another file."""
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value=location)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [y], [w])
    path = folder / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def test_external_data(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    weights = np.array([1, 2, 3], np.float32)
    (inside / "w.bin").write_bytes(weights.tobytes())
    (tmp_path / "outside.bin").write_bytes(weights.tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "outside.bin")
    path = external(inside, "w.bin")
    np.testing.assert_array_equal(tiercel.InferenceSession(path).run(None, {})[0], weights)

    with pytest.raises(Error):  # bytes know no folder
        tiercel.InferenceSession(path.read_bytes())
    options = tiercel.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(inside))
    np.testing.assert_array_equal(tiercel.InferenceSession(path.read_bytes(), options).run(None, {})[0], weights)

    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "link.bin", "none.bin", ""):
        with pytest.raises(Error):
            tiercel.InferenceSession(external(inside, location))
    (inside / "w.bin").write_bytes(b"short")
    with pytest.raises(Error):
        tiercel.InferenceSession(external(inside, "w.bin"))


def test_what_onnx_writes_is_read(tmp_path: Path) -> None:
    onnx.save(onnx.load_from_string(model(TURN)), tmp_path / "m.onnx")
    np.testing.assert_array_equal(tiercel.InferenceSession(tmp_path / "m.onnx").run(None, {"x": X})[0], X.T)
