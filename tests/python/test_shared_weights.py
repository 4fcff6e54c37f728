"""Exporters write Identity of a weight that several layers share: it lies and is packed once."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

import tiercel

N, LAYERS = 256, 4


def model(shared: bool) -> bytes:
    rng = np.random.default_rng(0)
    first = (rng.standard_normal((N, N)) / N**0.5).astype(np.float32)
    nodes, weights, x = [], [numpy_helper.from_array(first, "w0")], "x"
    for i in range(LAYERS):
        if i and shared:
            nodes.append(helper.make_node("Identity", ["w0"], [f"w{i}"]))
        elif i:
            weights.append(numpy_helper.from_array(first, f"w{i}"))
        y = f"y{i}"
        nodes += [helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]), helper.make_node("Relu", [f"m{i}"], [y])]
        x = y
    infos = [[helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, ["n", N])] for k in ("x", x)]
    graph = helper.make_graph(nodes, "g", *infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_shared_weights_are_packed_once(tmp_path):
    x = np.random.default_rng(1).standard_normal((20, N)).astype(np.float32)
    (tmp_path / "m.onnx").write_bytes(model(True))
    apart = tiercel.InferenceSession(model(False))
    wanted = apart.run(None, {"x": x})[0]
    for source in (model(True), str(tmp_path / "m.onnx")):
        session = tiercel.InferenceSession(source)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)
        assert session.memory()["packed"] * LAYERS == apart.memory()["packed"] > 0
        assert session.memory()["weights"] == apart.memory()["weights"] / LAYERS
