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


@pytest.mark.parametrize("seed", range(24))
def test_parts_of_channels_between_convolutions(seed, tmp_path):
    """Concat and Split of blocked tensors: parts that end within blocks, empty ones, ones that nobody reads; the same bits for any team."""
    rng = np.random.default_rng(seed)
    axes, batch = int(rng.integers(1, 4)), int(rng.choice([0, 1, 2, 5], p=[0.1, 0.4, 0.3, 0.2]))
    space = rng.integers(1, (400, 30, 7)[axes - 1], axes).tolist() if seed % 4 else [1] * axes
    parts = rng.choice([1, 2, 5, 15, 16, 17, 32, 48], int(rng.integers(2, 7))).tolist()
    total = sum(parts)
    sizes = np.diff([0, *np.sort(rng.integers(0, total + 1, int(rng.integers(1, 4)))).tolist(), total])
    nodes, weights = [], {"sizes": sizes}
    for i, n in enumerate(parts):
        weights[f"w{i}"] = rng.standard_normal((n, 16, *[1] * axes)).astype("float32")
        nodes.append(helper.make_node("Conv", ["x", f"w{i}"], [f"a{i}"]))
    nodes.append(helper.make_node("Concat", [f"a{i}" for i in range(len(parts))], ["c"], axis=int(rng.choice([1, -1 - axes]))))
    read = [n > 0 and (n == sizes.max() or rng.random() < 0.7) for n in sizes]
    nodes.append(helper.make_node("Split", ["c", "sizes"], [f"s{i}" if r else "" for i, r in enumerate(read)], axis=1))
    for i, n in enumerate(sizes):
        if read[i]:
            weights[f"v{i}"] = rng.standard_normal((9, n, *[1] * axes)).astype("float32")
            nodes.append(helper.make_node("Conv", [f"s{i}", f"v{i}"], [f"y{i}"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, *["a", "b", "c"][:axes]])],
        [onnx.ValueInfoProto(name=f"y{i}") for i, r in enumerate(read) if r], [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    feeds = {"x": rng.standard_normal((batch, 16, *space)).astype("float32")}
    first = None
    for threads in (1, 2, 3, 4, 5):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        got = tiercel.InferenceSession(data, options).run(None, feeds)
        first = first or got
        assert all(g.tobytes() == f.tobytes() for g, f in zip(got, first, strict=True)), f"{threads} threads"
    x = feeds["x"].astype("float64")
    c = np.concatenate([np.einsum("nc...,oc->no...", x, weights[f"w{i}"].reshape(n, 16)) for i, n in enumerate(parts)], 1)
    pieces = np.split(c, np.cumsum(sizes)[:-1], 1)
    wants = [np.einsum("nc...,oc->no...", p, weights[f"v{i}"].reshape(9, -1)) for i, p in enumerate(pieces) if read[i]]
    for g, want in zip(first, wants, strict=True):
        np.testing.assert_allclose(g, want, rtol=0, atol=1e-5 * np.abs(want).max(initial=1))
    ops = [node.op_type.split("_")[0] for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert ops[ops.index("Concat") - 1] == "Conv", ops  # of blocks
