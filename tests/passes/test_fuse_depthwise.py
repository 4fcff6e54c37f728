"""A depthwise convolution and its pointwise neighbours, band by band: bit for bit what the separate convolutions give."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

RNG = np.random.default_rng(5)


def rand(*shape):
    return (RNG.standard_normal(shape) * 0.3).astype(np.float32)


def activate(nodes, name, kind):
    """Appends an activation of `name`; the name of its result."""
    if kind is None:
        return name
    if kind == "Silu":
        nodes += [helper.make_node("Sigmoid", [name], [f"{name}g"]), helper.make_node("Mul", [name, f"{name}g"], [f"{name}a"])]
    elif kind == "Clip":
        nodes.append(helper.make_node("Clip", [name, "low", "high"], [f"{name}a"]))
    else:
        nodes.append(helper.make_node(kind, [name], [f"{name}a"]))
    return f"{name}a"


def model(shape, inner, outputs, *, kernel=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), kinds=("Clip", "Clip", None),
          before=True, after=True, residual=False, declared=None):  # fmt: skip
    """x -> [pointwise] -> depthwise -> [pointwise] (+ residual), between two convolutions that keep it in channel blocks."""
    first = inner if not before else 24
    w = {"w0": rand(first, 5, 1, 1), "wd": rand(inner, 1, *kernel), "bd": rand(inner), "low": np.float32(-0.5), "high": np.float32(0.75)}
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"])]
    last = "a"
    if before:
        w |= {"w1": rand(inner, first, 1, 1), "b1": rand(inner)}
        nodes.append(helper.make_node("Conv", [last, "w1", "b1"], ["e"]))
        last = activate(nodes, "e", kinds[0])
    nodes.append(helper.make_node("Conv", [last, "wd", "bd"], ["d"], name="deep", group=inner, strides=strides, pads=pads, dilations=dilations))
    if after:
        last = activate(nodes, "d", kinds[1])
        w |= {"w2": rand(outputs, inner, 1, 1)}
        nodes.append(helper.make_node("Conv", [last, "w2"], ["p"]))
    end, channels = ("p", outputs) if after else ("d", inner)
    if residual:
        w["w3"] = rand(channels, 5, 1, 1)
        nodes += [helper.make_node("Conv", ["x", "w3"], ["r"]), helper.make_node("Add", [end, "r"], [f"{end}s"])]
        end = f"{end}s"
    end = activate(nodes, end, kinds[2])
    w["w4"] = rand(3, channels, 1, 1)
    nodes.append(helper.make_node("Conv", [end, "w4"], ["y"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, declared or shape)], [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in w.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def check(monkeypatch, tmp_path, data, *shapes, fused=True):
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    chain = tiercel.InferenceSession(data, options)
    operators = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    assert ("ConvChain" in operators) == fused
    again = tiercel.InferenceSession(options.optimized_model_filepath) if fused else chain
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 2
    two = tiercel.InferenceSession(data, options)
    monkeypatch.setenv("TIERCEL_DISABLE_PASS", "fuse_depthwise")
    plain = tiercel.InferenceSession(data)
    monkeypatch.delenv("TIERCEL_DISABLE_PASS")
    for shape in shapes:
        x = rand(*shape)
        want = plain.run(None, {"x": x})[0]
        for s in (chain, two, again):
            np.testing.assert_array_equal(s.run(None, {"x": x})[0], want)
    return chain, plain


@pytest.mark.parametrize("kernel", [3, 5, 7, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_kernels_and_strides(kernel, stride, before, after, monkeypatch, tmp_path):
    pad = kernel // 2
    data = model((1, 5, 83, 90), 150, 40, kernel=(kernel, kernel), strides=(stride, stride), pads=(pad, pad, pad, pad), before=before, after=after)
    check(monkeypatch, tmp_path, data, (1, 5, 83, 90), fused=before or stride == 1)  # else too little lies between them


@pytest.mark.parametrize(("outputs", "fused"), [(300, True), (400, False)])
def test_weights_beyond_l2_stay_out(outputs, fused, monkeypatch, tmp_path):
    shape = (1, 5, 40, 44)
    check(monkeypatch, tmp_path, model(shape, 400, outputs, before=False), shape, fused=fused)


@pytest.mark.parametrize("kinds", [("Relu", "Relu", "Relu"), ("Silu", "HardSwish", None), ("HardSwish", None, "Silu"), (None, "Sigmoid", "Clip")])
@pytest.mark.parametrize("residual", [False, True])
def test_activations_and_residual(kinds, residual, monkeypatch, tmp_path):
    shape = (2, 5, 61, 70)
    check(monkeypatch, tmp_path, model(shape, 100, 37, kinds=kinds, residual=residual), shape)
    check(monkeypatch, tmp_path, model(shape, 130, 1, kinds=kinds, residual=residual, after=False), shape)


@pytest.mark.parametrize(
    "window",
    [
        dict(kernel=(3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
        dict(kernel=(3, 5), pads=(0, 4, 2, 0)),
        dict(kernel=(1, 9), pads=(0, 4, 0, 4)),
        dict(kernel=(5, 3), strides=(1, 2), pads=(3, 1, 4, 0)),
        dict(kernel=(3, 3), pads=(9, 9, 9, 9)),  # windows that lie outside of the image
        dict(kernel=(2, 2), strides=(4, 4), pads=(0, 0, 0, 0)),  # rows that no window reads
    ],
)
def test_windows(window, monkeypatch, tmp_path):
    check(monkeypatch, tmp_path, model((1, 5, 80, 120), 96, 24, **window), (1, 5, 80, 120))


@pytest.mark.parametrize(("dilation", "before"), [(4, True), (6, False)])
def test_far_rows_are_not_computed_by_each_thread(dilation, before, monkeypatch, tmp_path):
    """Where bands share many rows, only the pointwise convolution behind the depthwise one joins it."""
    pads = (dilation,) * 4
    check(monkeypatch, tmp_path, model((1, 5, 70, 90), 96, 24, dilations=(dilation, dilation), pads=pads), (1, 5, 70, 90))
    (chain,) = [n for n in onnx.load(tmp_path / "optimized.onnx").graph.node if n.op_type == "ConvChain"]
    assert bool(chain.input[1]) == before


def test_extents_that_change(monkeypatch, tmp_path):
    data = model(None, 48, 24, strides=(2, 2), declared=("n", 5, "h", "w"))
    check(monkeypatch, tmp_path, data, (1, 5, 64, 64), (3, 5, 7, 200), (1, 5, 1, 1), (1, 5, 2, 3), (2, 5, 200, 9), (0, 5, 8, 8))


def test_what_is_not_a_number_stays_in_its_windows(monkeypatch, tmp_path):
    shape = (1, 5, 70, 90)
    chain, plain = check(monkeypatch, tmp_path, model(shape, 96, 24, kinds=(None, "Relu", None)), shape)
    x = rand(*shape)
    x[0, 2, 35, 40], x[0, 1, 0, 0], x[0, 4, 69, 89] = np.nan, np.inf, -np.inf
    got, want = chain.run(None, {"x": x})[0], plain.run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, want)
    assert 0 < np.isnan(got).any(axis=(0, 1)).sum() <= 27


def test_results_that_others_read_stay(monkeypatch, tmp_path):
    """A pointwise result with a second reader, or one that is an output of the graph, is computed as it is."""
    w = {"w0": rand(24, 5, 1, 1), "w1": rand(96, 24, 1, 1), "wd": rand(96, 1, 3, 3), "w2": rand(24, 96, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Conv", ["a", "w1"], ["e"]),
        helper.make_node("Conv", ["e", "wd"], ["d"], group=96, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
        helper.make_node("Relu", ["e"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 5, 90, 90))],
        [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="z"), onnx.ValueInfoProto(name="d")],
        [numpy_helper.from_array(v, n) for n, v in w.items()],
    )  # fmt: skip
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    check(monkeypatch, tmp_path, data, (1, 5, 90, 90), fused=False)
