"""Convolutions whose channels are moved last and back: blocks become rows of channels in one step."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

RNG = np.random.default_rng(6)


@pytest.mark.parametrize("channels", [16, 20, 48])
@pytest.mark.parametrize("space", [(9,), (5, 7), (3, 4, 5)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("flat", [False, True])
def test_channels_last_between_convolutions(channels, space, batch, flat, tmp_path):
    n = len(space)
    weight = [RNG.standard_normal(s).astype("float32") for s in ((channels, 16, *(3,) * n), (channels,), (17, channels, *(3,) * n))]
    last, first = [0, *range(2, n + 2), 1], [0, n + 1, *range(1, n + 1)]
    targets = [np.array([0, channels, -1]), np.array([0, channels, *space])]
    if flat:  # the spatial axes as one
        last, first = [0, 2, 1], [0, 2, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a0"], pads=[1] * 2 * n),
        helper.make_node("Reshape", ["a0", "t0"], ["a"]) if flat else helper.make_node("Identity", ["a0"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=last),
        helper.make_node("LayerNormalization", ["b", "w1"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d0"], perm=first),
        helper.make_node("Reshape", ["d0", "t1"], ["d"]) if flat else helper.make_node("Identity", ["d0"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, *space])],
        [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(w, f"{k}{i}") for k, ws in (("w", weight), ("t", targets)) for i, w in enumerate(ws)],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    feeds = {"x": RNG.standard_normal((batch, 16, *space)).astype("float32")}
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    got = tiercel.InferenceSession(data, options).run(None, feeds)[0]
    want = onnxruntime.InferenceSession(data).run(None, feeds)[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert "Transpose" not in [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize("cuts", [[0, 16, 32], [0, 16, 48, 64], [0, 10, 32], [0, 16, 30], [4, 16, 32]])
def test_slices_that_part_channels(cuts, tmp_path):
    """Complete ones become a Split, and convolutions around them need not leave their blocks; gaps stay Slices."""
    channels = {30: 32}.get(cuts[-1], cuts[-1])
    w = RNG.standard_normal((channels, 16, 3, 3)).astype("float32")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4)]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([1]), "axis")]
    for i, (begin, end) in enumerate(itertools.pairwise(cuts)):
        last = end == channels
        constants += [numpy_helper.from_array(np.array([begin]), f"b{i}"), numpy_helper.from_array(np.array([2**31 if last else end]), f"e{i}")]
        nodes.append(helper.make_node("Slice", ["a", f"b{i}", f"e{i}", "axis"], [f"s{i}"]))
        nodes.append(helper.make_node("Relu" if i else "Sigmoid", [f"s{i}"], [f"y{i}"]))
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(len(cuts) - 1)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 6, 7])], outputs, constants)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    feeds = {"x": RNG.standard_normal((2, 16, 6, 7)).astype("float32")}
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    got = tiercel.InferenceSession(data, options).run(None, feeds)
    for g, want in zip(got, onnxruntime.InferenceSession(data).run(None, feeds), strict=True):
        np.testing.assert_allclose(g, want, rtol=0, atol=1e-5 * np.abs(want).max())
    ops = [node.op_type.split("_")[0] for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert ("Split" in ops) == (cuts[0] == 0 and cuts[-1] == channels) == ("Slice" not in ops), ops
