"""Elementwise chains and DAGs as one operator: same numbers as node by node, in any mix of broadcast operands."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tiercel

UNARY = ["Abs", "Neg", "Exp", "Sigmoid", "Tanh", "Relu", "Softplus", "Erf", "Sin", "Floor", "HardSwish", "Atan"]
BINARY = ["Add", "Sub", "Mul", "Max", "Min"]


def session(model, level, threads=1, path=None):
    options = tiercel.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    if path:
        options.optimized_model_filepath = str(path)
    return tiercel.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_dag(rng, shape, operands, steps):
    """Values of `shape` and inputs that broadcast to it, combined at random; one result."""
    nodes, inputs, feeds, pool = [], [], {}, []
    for i, s in enumerate([shape, *operands]):
        name = f"x{i}"
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, s))
        feeds[name] = rng.uniform(-1, 1, s).astype(np.float32)
        pool.append(name)
    full = ["x0"]
    for k in range(steps):
        out = f"v{k}"
        a = full[rng.integers(len(full))] if k else "x0"
        if rng.random() < 0.4:
            nodes.append(helper.make_node(UNARY[rng.integers(len(UNARY))], [a], [out]))
        else:
            b = (pool + full)[rng.integers(len(pool) + len(full))]
            pair = [a, b] if rng.random() < 0.5 else [b, a]
            nodes.append(helper.make_node(BINARY[rng.integers(len(BINARY))], pair, [out]))
        full.append(out)
    # what nobody reads joins the result
    read = {i for n in nodes for i in n.input}
    loose = [n.output[0] for n in nodes if n.output[0] not in read]
    while len(loose) > 1:
        out = f"j{len(loose)}"
        nodes.append(helper.make_node("Add", [loose.pop(), loose.pop()], [out]))
        loose.append(out)
    result = helper.make_tensor_value_info(loose[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "dag", inputs, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), feeds


CASES = [
    ((5,), [()]), ((3, 700), [(700,), (3, 1), ()]), ((2, 6, 9, 9), [(6, 1, 1), (2, 6, 1, 1), (9,), (1, 1, 9, 9)]), ((40, 5), [(5,), (40, 1)]),
    ((4, 50, 16), [(16,), (4, 1, 16), (50, 16)]), ((1, 5000), [(1,), (5000,)]), ((100000,), [()]), ((0, 4), [(4,)]), ((), [()]),
]


@pytest.mark.parametrize(("shape", "operands"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_random_dags(shape, operands, seed):
    rng = np.random.default_rng(seed)
    model, feeds = random_dag(rng, shape, operands, int(rng.integers(2, 14)))
    with np.errstate(all="ignore"):
        (want,) = ReferenceEvaluator(model).run(None, feeds)
    plain = session(model, tiercel.GraphOptimizationLevel.ORT_DISABLE_ALL).run(None, feeds)[0]
    one = session(model, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL).run(None, feeds)[0]
    two = session(model, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL, threads=2).run(None, feeds)[0]
    np.testing.assert_allclose(plain, want, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(one, want, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(one, two)


def test_becomes_one_node(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Add", ["a", "row"], ["b"]), helper.make_node("Exp", ["b"], ["c"]),
        helper.make_node("Sub", ["c", "b"], ["d"]), helper.make_node("Clip", ["d", "low", "high"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in [("s", 0.5), ("low", -1.0), ("high", 3.0)]]
    constants.append(numpy_helper.from_array(np.linspace(-1, 1, 33, dtype=np.float32), "row"))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 33])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    s = session(model, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL, path=tmp_path / "m.onnx")
    (node,) = onnx.load(tmp_path / "m.onnx").graph.node
    assert (node.op_type, node.domain) == ("Pointwise", "ai.tiercel")
    x = np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32)
    (want,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(s.run(["y"], {"x": x})[0], want, rtol=1e-5, atol=1e-6)
    # and the exported file runs
    again = tiercel.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(again.run(None, {"x": x})[0], s.run(None, {"x": x})[0])


@pytest.mark.parametrize(("attribute", "value", "message"), [
    ("operands", [7, -1], "register"), ("ops", [b"Nothing"], "not an elementwise"), ("params", [1.0], "two elements"), ("operands", [-1, -1], "register"),
])
def test_broken_programs(attribute, value, message):
    attrs = {"ops": ["Exp"], "operands": [0, -1], "params": [0.0, 0.0]} | {attribute: value}
    node = helper.make_node("Pointwise", ["x"], ["y"], domain="ai.tiercel", **attrs)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.tiercel", 1)], ir_version=8)
    with pytest.raises(Exception, match=message):
        session(model, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL)
