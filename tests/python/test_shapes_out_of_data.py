"""Nodes whose shapes a run finds out: results on any team, memory that serves again, results that stay the caller's."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import tiercel

EXPERTS, WIDTH, HIDDEN = 4, 48, 160


def mixture():
    """Rows go to the expert that their largest gate names; what it makes of them is scattered back. Views, too: Squeeze and Reshape."""
    rng = np.random.default_rng(0)
    constants, nodes = [], []

    def constant(array, name):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(op, inputs, output, **attrs):
        nodes.append(helper.make_node(op, inputs, [output], **attrs))
        return output

    add("MatMul", ["x", constant(rng.standard_normal((WIDTH, EXPERTS)).astype("f"), "gate")], "logits")
    add("ArgMax", ["logits"], "which", axis=1, keepdims=0)
    total = add("Mul", ["x", constant(np.float32(0), "zero")], "t")
    for e in range(EXPERTS):
        add("Equal", ["which", constant(np.int64(e), f"e{e}")], f"mine{e}")
        add("NonZero", [f"mine{e}"], f"nz{e}")
        add("Squeeze", [f"nz{e}", constant(np.array([0]), f"axis{e}")], f"rows{e}")
        add("Gather", ["x", f"rows{e}"], f"in{e}", axis=0)
        add("MatMul", [f"in{e}", constant(rng.standard_normal((WIDTH, HIDDEN)).astype("f"), f"w{e}")], f"h{e}")
        add("Relu", [f"h{e}"], f"r{e}")
        add("MatMul", [f"r{e}", constant(rng.standard_normal((HIDDEN, WIDTH)).astype("f"), f"v{e}")], f"y{e}")
        add("Reshape", [f"nz{e}", constant(np.array([-1, 1]), f"column{e}")], f"at{e}")
        total = add("ScatterND", [total, f"at{e}", f"y{e}"], f"t{e}", reduction="add")
    add("Sigmoid", [total], "y")
    add("NonZero", ["mine0"], "first")
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["n", WIDTH])],
                              [helper.make_tensor_value_info("y", 1, None), helper.make_tensor_value_info("first", 7, None),
                               helper.make_tensor_value_info("rows1", 7, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def session(threads):
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    return tiercel.InferenceSession(mixture().SerializeToString(), options)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_team_and_any_run_gives_the_same(threads):
    one, team = session(1), session(threads)
    ort = pytest.importorskip("onnxruntime").InferenceSession(mixture().SerializeToString())
    rng = np.random.default_rng(threads)
    held = []
    for n in (300, 1, 0, 77, 300, 512, 5):
        x = rng.standard_normal((n, WIDTH)).astype(np.float32)
        want = one.run(None, {"x": x})
        for _ in range(3):
            got = team.run(None, {"x": x})
            assert all(g.tobytes() == w.tobytes() and g.shape == w.shape for g, w in zip(got, want, strict=True))
        if n:
            for g, w in zip(got, ort.run(None, {"x": x}), strict=True):
                np.testing.assert_allclose(g, w, atol=1e-5)
        held.append((got, [g.copy() for g in got]))
    for got, copies in held:  # no later run wrote into them
        assert all(np.array_equal(g, c) for g, c in zip(got, copies, strict=True))


def test_an_error_in_between_ends_the_team():
    graph = mixture().graph
    nodes = list(graph.node)
    bad = helper.make_node("Gather", ["x", "beyond"], ["z"], axis=0)
    nodes.insert(8, helper.make_node("Add", ["rows0", "many"], ["beyond"]))
    nodes.insert(9, bad)
    made = helper.make_graph(nodes, "g", [*list(graph.input), helper.make_tensor_value_info("many", 7, [])],
                             [helper.make_tensor_value_info("y", 1, None), helper.make_tensor_value_info("z", 1, None)], list(graph.initializer))
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 3
    s = tiercel.InferenceSession(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString(), options)
    x = np.random.default_rng(0).standard_normal((200, WIDTH)).astype(np.float32)
    good = s.run(None, {"x": x, "many": np.int64(0)})
    for _ in range(5):
        with pytest.raises(Exception, match="Gather"):
            s.run(None, {"x": x, "many": np.int64(10**6)})
        assert all(np.array_equal(a, b) for a, b in zip(s.run(None, {"x": x, "many": np.int64(0)}), good, strict=True))


def test_a_value_lives_until_all_threads_have_read_it():
    """What an If gives is read by a kernel of known shapes, in which one thread may be ahead."""
    shape = (3, 1_500_001)

    def branch(op, constant, name):
        return helper.make_graph([helper.make_node(op, ["x", constant], [name])], name, [], [helper.make_tensor_value_info(name, 1, shape)])

    nodes = [helper.make_node("If", ["c"], ["m"], then_branch=branch("Add", "one", "a"), else_branch=branch("Mul", "one", "b")),
             helper.make_node("TopK", ["m", "k"], ["v", "i"], axis=1)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, shape), helper.make_tensor_value_info("c", 9, [])],
                              [helper.make_tensor_value_info("v", 1, None), helper.make_tensor_value_info("i", 7, None)],
                              [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.array([3000]), "k")])
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 2
    s = tiercel.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString(), options)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = -np.sort(-(x + 1), axis=1)[:, :3000]
    for _ in range(4):
        np.testing.assert_array_equal(s.run(["v"], {"x": x, "c": np.array(True)})[0], want)


def test_memory_of_earlier_runs_goes():
    """Kept is what the last run used, however large runs were before."""
    node = [helper.make_node("NonZero", ["x"], ["z"]), helper.make_node("Cast", ["z"], ["f"], to=1), helper.make_node("Exp", ["f"], ["e"]),
            helper.make_node("ReduceMax", ["e"], ["y"], keepdims=0)]  # fmt: skip
    graph = helper.make_graph(node, "g", [helper.make_tensor_value_info("x", 1, ["n"])], [helper.make_tensor_value_info("y", 1, None)])
    s = tiercel.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    small = np.ones(8, np.float32)
    s.run(None, {"x": small})
    before = resident()
    for n in range(1, 40):
        s.run(None, {"x": np.ones(100_000 * n, np.float32)})
    for _ in range(3):
        s.run(None, {"x": small})
    assert resident() - before < 64 << 20  # the largest values of a run were 62 MB, those of all runs together 1.2 GB
