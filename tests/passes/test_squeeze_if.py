"""If(an extent is 1, Squeeze, the same), as exporters write a squeeze of unknown extents."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel


def model(axis, asked, expected=1, else_op="Identity"):
    def scalar(name, value):
        return numpy_helper.from_array(np.array(value, np.int64), name)

    def branch(name, op, inputs, constants=()):
        return helper.make_graph([helper.make_node(op, inputs, [name])], name, [], [helper.make_tensor_value_info(name, 1, None)], list(constants))

    then = branch("then", "Squeeze", ["h", "axes"], [numpy_helper.from_array(np.array([axis]), "axes")])
    nodes = [
        helper.make_node("Neg", ["x"], ["h"]),
        helper.make_node("Shape", ["h"], ["shape"]),
        helper.make_node("Gather", ["shape", "index"], ["extent"]),
        helper.make_node("Equal", ["extent", "expected"], ["is_one"]),
        helper.make_node("If", ["is_one"], ["s"], then_branch=then, else_branch=branch("other", else_op, ["h"])),
        helper.make_node("Exp", ["s"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", "c"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [scalar("index", asked), scalar("expected", expected)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("axis, asked", [(1, 1), (-2, 1), (2, -1), (0, 0), (1, 2), (0, 1)])
def test_results(axis, asked):
    """Where the condition asks for another axis than is squeezed, the If stays."""
    session = tiercel.InferenceSession(model(axis, asked))
    rng = np.random.default_rng(0)
    for shape in ((2, 1, 3), (1, 4, 1), (5, 2, 2), (1, 1, 1), (2, 0, 1)):
        x = rng.standard_normal(shape).astype(np.float32)
        want = np.exp(-x)
        if shape[asked] == 1:
            if shape[axis] != 1:
                with pytest.raises(Exception, match="extent 1"):
                    session.run(None, {"x": x})
                continue
            want = want.squeeze(axis)
        (y,) = session.run(None, {"x": x})
        assert y.shape == want.shape
        np.testing.assert_allclose(y, want, rtol=1e-6)


@pytest.mark.parametrize(
    "keeps, given",
    [(False, model(1, 1)), (False, model(-1, 2)), (True, model(1, 2)), (True, model(1, 1, expected=2)), (True, model(1, 1, else_op="Abs"))],
)
def test_the_if_goes_only_where_it_means_that(keeps, given, tmp_path):
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    tiercel.InferenceSession(given, options)
    assert any(n.op_type == "If" for n in onnx.load(options.optimized_model_filepath).graph.node) == keeps
