"""simplify_shapes and cancel_transposes: what goes, what stays, and that results do not change."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_conv_passes import Build, check, rand

import tiercel


def run_both(build, inputs, outputs, tmp_path, dynamic=None):
    return check(build, inputs, outputs, tmp_path, dynamic=dynamic)


def test_transposes_merge(tmp_path):
    b = Build()
    y = b.op("Transpose", b.op("Transpose", "x", perm=[0, 2, 1, 3]), perm=[0, 1, 3, 2])
    ops = run_both(b, {"x": rand(2, 3, 4, 5)}, [b.op("Relu", y)], tmp_path)
    assert ops["Transpose"] == 1


def test_transposes_cancel(tmp_path):
    b = Build()
    y = b.op("Transpose", b.op("Transpose", "x", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    assert not run_both(b, {"x": rand(2, 3, 4, 5)}, [b.op("Relu", y)], tmp_path)["Transpose"]


def test_transposes_cancel_through_pointwise(tmp_path):
    b = Build()
    t = b.op("Transpose", "x", perm=[0, 2, 3, 1])
    h = b.op("Add", b.op("Mul", t, rand(3)), rand(4, 5, 3))  # per channel, and a whole constant
    h = b.op("Mul", h, b.op("Sigmoid", h))  # read twice
    h = b.op("Clip", h, np.float32(-1), np.float32(2))
    h = b.op("Add", h, b.op("Transpose", "z", perm=[0, 2, 3, 1]))
    h = b.op("Add", h, "s")  # one element, whatever its place
    y = b.op("Transpose", h, perm=[0, 3, 1, 2])
    feeds = {"x": rand(2, 3, 4, 5), "z": rand(2, 3, 4, 5), "s": rand(1)}
    ops = run_both(b, feeds, [b.op("Neg", y)], tmp_path, dynamic={("x", 0): "batch", ("z", 0): "batch"})
    assert not ops["Transpose"]


def test_transposes_cancel_through_concat_and_softmax(tmp_path):
    b = Build()
    parts = [b.op("Transpose", n, perm=[0, 2, 1]) for n in ("x", "z")]
    h = b.op("Concat", *parts, rand(2, 1, 3), axis=1)
    h = b.op("Softmax", h, axis=2)
    y = b.op("Transpose", h, perm=[0, 2, 1])
    assert not run_both(b, {"x": rand(2, 3, 4), "z": rand(2, 3, 6)}, [b.op("Neg", y)], tmp_path)["Transpose"]


def test_a_transpose_that_others_read_stays(tmp_path):
    b = Build()
    h = b.op("Relu", b.op("Transpose", "x", perm=[1, 0]))
    y = b.op("Transpose", h, perm=[1, 0])
    ops = run_both(b, {"x": rand(3, 4)}, [b.op("Neg", y), b.op("MatMul", "x", h)], tmp_path)
    assert ops["Transpose"]


def test_a_cancelled_transpose_may_be_the_output(tmp_path):
    b = Build()
    y = b.op("Transpose", b.op("Exp", b.op("Transpose", "x", perm=[1, 2, 0])), perm=[2, 0, 1])
    assert not run_both(b, {"x": rand(3, 4, 5)}, [y], tmp_path)["Transpose"]
    b = Build()
    y = b.op("Transpose", b.op("Transpose", "x", perm=[1, 2, 0]), perm=[2, 0, 1])
    run_both(b, {"x": rand(3, 4, 5)}, [y], tmp_path)  # an input cannot be an output: something has to stay between


def test_reshape_chains_become_one(tmp_path):
    b = Build()
    h = b.op("Reshape", "x", np.array([2, 12, 5]))
    h = b.op("Unsqueeze", b.op("Squeeze", b.op("Unsqueeze", h, np.array([0])), np.array([0])), np.array([3]))
    y = b.op("Reshape", h, np.array([0, -1]))
    ops = run_both(b, {"x": rand(2, 3, 4, 5)}, [b.op("Relu", y)], tmp_path)
    assert ops["Reshape"] == 1
    assert not ops["Unsqueeze"] + ops["Squeeze"]


def test_computed_targets_become_constants(tmp_path):
    """The split of heads as exporters write it."""
    b = Build()
    shape = b.op("Shape", "x")
    batch, length = (b.op("Unsqueeze", b.op("Gather", shape, np.array(i), axis=0), np.array([0])) for i in (0, 1))
    target = b.op("Concat", batch, length, np.array([2]), np.array([4]), axis=0)
    h = b.op("Transpose", b.op("Reshape", "x", target), perm=[0, 2, 1, 3])
    back = b.op("Concat", batch, length, np.array([8]), axis=0)
    y = b.op("Reshape", b.op("Transpose", b.op("Relu", h), perm=[0, 2, 1, 3]), back)
    feeds = {"x": rand(3, 5, 8)}
    ops = run_both(b, feeds, [b.op("Neg", y)], tmp_path, dynamic={("x", 0): "batch", ("x", 1): "length"})
    assert set(ops) <= {"Reshape", "Relu", "Neg"}
    ops = run_both(b, {"x": rand(0, 5, 8)}, [b.op("Neg", y)], tmp_path, dynamic={("x", 0): "batch", ("x", 1): "length"})


@pytest.mark.parametrize("opset", [11, 17])
def test_moves_that_change_nothing_go(tmp_path, opset):
    b = Build(opset)
    i64 = np.array
    h = b.op("Slice", "x", i64([0, 0]), i64([2**62, 2**62]), i64([0, 1]))
    h = b.op("Pad", h, i64([0, 0, 0, 0]))
    h = b.op("Tile", h, i64([1, 1]))
    h = b.op("Expand", h, i64([1, 1]))
    h = b.op("Concat", h, axis=0)
    h = b.op("Concat", h, np.zeros((3, 0), np.float32), axis=1)
    h = b.op("Slice", h, i64([-1]), i64([-(2**63)]), i64([1]), i64([-1]))  # this one does something
    ops = run_both(b, {"x": rand(3, 4)}, [b.op("Neg", h)], tmp_path)
    assert set(ops) == {"Slice", "Neg"}
    assert ops["Slice"] == 1


def test_expands_that_a_reader_undoes_go(tmp_path):
    b = Build()
    wide = b.op("Expand", "s", np.array([2, 3, 4]))
    ops = run_both(b, {"s": rand(3, 1), "x": rand(2, 3, 4)}, [b.op("Add", wide, "x")], tmp_path)
    assert not ops["Expand"]
    b = Build()  # here it decides the shape
    wide = b.op("Expand", "s", np.array([2, 3, 4]))
    assert run_both(b, {"s": rand(3, 1), "x": rand(3, 4)}, [b.op("Add", wide, "x")], tmp_path)["Expand"]


def test_declared_names_are_not_proofs(tmp_path):
    """A file may name extents wrongly: results must not rest on it."""
    nodes = [
        helper.make_node("Compress", ["x", "c"], ["h"], axis=0),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["z", "t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]), helper.make_tensor_value_info("c", TensorProto.BOOL, ["n"]),
         helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(v), k) for k, v in {"zero": [0], "one": [1], "rest": [-1]}.items()],
        value_info=[helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": rand(3, 4), "c": np.array([True, False, True]), "z": rand(3, 6)}
    expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    (got,) = tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)
    np.testing.assert_array_equal(got, expected[0])
