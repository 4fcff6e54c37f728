"""bench/f64.py and bench/accuracy.py: the f64 run is one, casts and subgraphs included, and errors are told from rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import accuracy
import f64

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], fixed: dict[str, np.ndarray], output: str = "y"
) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()]
    result = helper.make_tensor_value_info(output, FLOAT, None)
    initializers = [numpy_helper.from_array(a, n) for n, a in fixed.items()]
    graph = helper.make_graph(nodes, "g", declared, [result], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_everything_is_double(rng: np.random.Generator) -> None:
    """Constants, Casts and both branches of an If widen; the scales of Resize stay f32."""
    third = helper.make_tensor("", FLOAT, [], [1 / 3])
    branch = {
        name: helper.make_graph(
            [helper.make_node("Constant", [], ["c"], value_float=value), helper.make_node("Mul", ["x", "c"], ["r"])],
            name, [], [helper.make_tensor_value_info("r", FLOAT, None)],
        )
        for name, value in (("then", 0.1), ("else", 0.7))
    }  # fmt: skip
    nodes = [
        helper.make_node("If", ["yes"], ["a"], then_branch=branch["then"], else_branch=branch["else"]),
        helper.make_node("Constant", [], ["third"], value=third),
        helper.make_node("Cast", ["whole"], ["w"], to=FLOAT),
        helper.make_node("Mul", ["a", "third"], ["b"]),
        helper.make_node("Add", ["b", "w"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["y"], mode="nearest"),
    ]
    fixed = {"yes": np.array(True), "whole": np.array([3], np.int64), "scales": np.array([1, 1, 2, 2], np.float32)}
    proto = model(nodes, {"x": [1, 1, 2, 2]}, fixed)
    x = rng.standard_normal((1, 1, 2, 2), dtype=np.float32)
    (y,) = f64.outputs(proto, {"x": x})
    exact = x.astype(np.float64) * np.float64(np.float32(0.1)) * np.float64(np.float32(1 / 3)) + 3
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, exact.repeat(2, 2).repeat(2, 3), rtol=1e-15)
    assert proto.graph.node[2].attribute[0].i == FLOAT  # the model is left alone


def test_reference_operators(rng: np.random.Generator) -> None:
    """Those that onnx's evaluator gets wrong: GatherElements of fewer rows, BatchNormalization with a momentum."""
    data, index = rng.standard_normal((5, 6), dtype=np.float32), rng.integers(0, 6, (2, 4))
    (y,) = f64.outputs(
        model([helper.make_node("GatherElements", ["x", "i"], ["y"], axis=1)], {"x": [5, 6]}, {"i": index}), {"x": data}
    )
    np.testing.assert_array_equal(y, np.take_along_axis(data[:2], index, 1))
    x, (s, b, m), v = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 3)), rng.random(3) + 0.5
    fixed = {n: a.astype(np.float32) for n, a in zip("sbmv", (s, b, m, v), strict=True)}
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], momentum=0.9)
    (y,) = f64.outputs(model([node], {"x": [2, 3, 4]}, fixed), {"x": x.astype(np.float32)})
    s, b, m, v = (fixed[n].astype(np.float64)[:, None] for n in "sbmv")
    expected = (x.astype(np.float32) - m) / np.sqrt(v + np.float64(np.float32(1e-5))) * s + b
    np.testing.assert_allclose(y, expected, rtol=1e-9)


def convolution(folder: Path, rng: np.random.Generator) -> Path:
    fixed = {"w": rng.standard_normal((64, 64, 3, 3), dtype=np.float32), "b": rng.standard_normal(64, dtype=np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["y"], name="relu"),
    ]
    path = folder / "conv.onnx"
    onnx.save(model(nodes, {"x": [1, 64, 28, 28]}, fixed), path)
    np.savez(path.with_suffix(".npz"), x=rng.standard_normal((1, 64, 28, 28), dtype=np.float32))
    return path


def test_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    path = convolution(tmp_path, rng)
    row = accuracy.errors(path, path.with_suffix(".npz"), 1)
    for key in ("onnxruntime", "tiercel", "direct"):
        assert 1e-9 < row[key] < 1e-5
    assert row["passes"] == (row["tiercel"] <= row["onnxruntime"] * (4 if row["winograd"] else 2))
    assert len(accuracy.cells("conv", row)) == len(accuracy.HEADER)
    row |= {"onnxruntime": 1e-7, "tiercel": 5e-7, "direct": 1e-7, "winograd": True}
    assert not accuracy.passes(row)
    assert accuracy.passes(row | {"tiercel": 3.9e-7})
    assert not accuracy.passes(row | {"tiercel": 3.9e-7, "winograd": False})
    assert accuracy.passes(row | {"onnxruntime": 0.0, "tiercel": 1e-7, "winograd": False})


def test_nodes(tmp_path: Path, rng: np.random.Generator) -> None:
    path = convolution(tmp_path, rng)
    rows = accuracy.node_errors(path, path.with_suffix(".npz"))
    assert [r[2].split()[:2] for r in rows] == [["Conv", "conv"], ["Relu", "relu"]]
    assert rows[0][0] > 1e-9
    assert rows[1][:2] == (0, 0)
