"""Shapes that change from call to call: results, and what a session still holds after hundreds of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tiercel


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


def session(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]], outputs: list[str], **constants: np.ndarray
) -> tiercel.InferenceSession:
    declared = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in inputs.items()]
    fixed = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, "g", declared, [onnx.ValueInfoProto(name=o) for o in outputs], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return tiercel.InferenceSession(model.SerializeToString())


WEIGHTS = floats(4, 3)


def selection() -> tiercel.InferenceSession:
    """Rows of x whose sum is positive, times WEIGHTS, with one row of ones: no extent of it is known before it runs."""
    node = helper.make_node
    return session(
        [
            node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["keep"]), node("NonZero", ["keep"], ["at"]),
            node("Squeeze", ["at", "front"], ["rows"]), node("Gather", ["x", "rows"], ["kept"], axis=0), node("MatMul", ["kept", "w"], ["h"]),
            node("Concat", ["h", "ones"], ["y"], axis=0),
        ],
        {"x": ["n", 4]}, ["y"], axis=np.array([1]), zero=np.float32(0), front=np.array([0]), w=WEIGHTS, ones=np.ones((1, 3), np.float32),
    )  # fmt: skip


def test_symbols_of_data_do_not_pile_up() -> None:
    s = selection()
    symbols = None
    for n in range(1, 400):
        x = floats(n, 4)
        kept = x[x.sum(1) > 0] @ WEIGHTS
        np.testing.assert_allclose(
            s.run(None, {"x": x})[0], np.concatenate([kept, np.ones((1, 3))]), rtol=1e-5, atol=1e-5
        )
        symbols = symbols or s.memory()["symbols"]
        assert s.memory()["symbols"] == symbols


def test_programs_are_bounded_and_found_again() -> None:
    s = session([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, ["y"], w=WEIGHTS)
    for n in range(1, 700):
        s.run(None, {"x": floats(n, 4)})
    held = s.memory()
    assert held["programs"] <= 256
    assert 0 < held["program_bytes"] <= 8 << 20
    for n in (699, 690, 650) * 3:  # recent: nothing is built
        np.testing.assert_allclose(s.run(None, {"x": floats(n, 4)})[0], floats(n, 4) @ WEIGHTS, rtol=1e-5, atol=1e-5)
    assert s.memory() | {"arena": 0, "live_bound": 0} == held | {"arena": 0, "live_bound": 0}


def test_workspaces_of_shapes_out_of_data_count() -> None:
    """Operators whose shapes the data decide have workspaces of their own, which stay with the Program: here the packed weights."""
    node = helper.make_node
    s = session(
        [node("NonZero", ["keep"], ["at"]), node("Squeeze", ["at", "front"], ["rows"]), node("Gather", ["x", "rows"], ["kept"], axis=0),
         node("Conv", ["kept", "w"], ["h"]), node("GlobalMaxPool", ["h"], ["y"])],
        {"x": ["n", 128, "h", 4], "keep": ["n"], "w": [128, 128, 3, 3]}, ["y"], front=np.array([0]),
    )  # fmt: skip
    w = floats(128, 128, 3, 3)
    for height in range(70, 106):  # more pixels than outputs: with fewer the weights are read as they lie
        x = np.zeros((1, 128, height, 4), np.float32)
        assert not s.run(None, {"x": x, "keep": np.ones(1, np.float32), "w": w})[0].any()
    held = s.memory()
    assert held["programs"] > 8
    assert held["programs"] * w.nbytes <= held["program_bytes"] <= 8 << 20


@pytest.mark.parametrize("most", [1, 8])
def test_the_bound_is_an_option(most: int) -> None:
    options = tiercel.SessionOptions()
    options.add_session_config_entry("tiercel.program_cache", str(most))
    graph = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])],
        [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    s = tiercel.InferenceSession(model.SerializeToString(), options)
    for n in range(1, 20):
        np.testing.assert_allclose(s.run(None, {"x": floats(n)})[0], np.exp(floats(n)), rtol=1e-5)
        assert s.memory()["programs"] == min(n, most)


def test_packed_weights_are_shared_by_shapes() -> None:
    w = floats(48, 32, 3, 3)
    s = session(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], {"x": ["n", 32, "h", "w_"]}, ["y"], w=w
    )
    for size in range(3, 80):
        s.run(None, {"x": floats(1, 32, size, size + 1)})
    most = s.memory()["packed"]
    assert (
        most <= 8 * w.nbytes
    )  # direct, and two tiles of Winograd's algorithm: 1 + 16/9 + 36/9 times the kernels, padded
    for size in range(80, 3, -1):
        s.run(None, {"x": floats(2, 32, size + 2, size)})
    assert s.memory()["packed"] == most
