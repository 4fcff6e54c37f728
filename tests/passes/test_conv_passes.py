"""fuse_conv and layout: what the optimised graph looks like, and that results do not change."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

RNG = np.random.default_rng(3)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Build:
    """A graph in the making: b.conv("x", 3, 8, 3, pads=[1, 1, 1, 1]) adds a node and names its result."""

    def __init__(self, opset=17):
        self.nodes, self.constants, self.opset = [], [], opset

    def const(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, op_type, *inputs, outputs=1, **attrs):
        names = [f"{op_type}_{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [i if isinstance(i, str) else self.const(i) for i in inputs]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=f"n{len(self.nodes)}", **attrs))
        return names[0] if outputs == 1 else names

    def conv(self, x, channels, outputs, kernel, *, group=1, bias=True, dims=2, **attrs):
        w = rand(outputs, channels // group, *[kernel] * dims) / np.float32(np.sqrt(channels // group * kernel**dims))
        if kernel > 1 and "pads" not in attrs:
            attrs["pads"] = [kernel // 2] * 2 * dims
        return self.op("Conv", x, w, *([rand(outputs)] if bias else []), group=group, **attrs)

    def bn(self, x, channels):
        return self.op("BatchNormalization", x, rand(channels), rand(channels), rand(channels), np.abs(rand(channels)) + 0.5)

    def model(self, inputs, outputs):
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [onnx.ValueInfoProto(name=o) for o in outputs], self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8).SerializeToString()


def check(build, inputs, outputs, tmp_path, *, dynamic=None, tolerance=2e-5, threads=(1, 2)):
    """Runs against onnxruntime, with and without the passes; returns how often each operator stands in the optimised graph."""
    shapes = {n: list(v.shape) for n, v in inputs.items()}
    declared = {n: [dynamic.get((n, i), d) for i, d in enumerate(s)] for n, s in shapes.items()} if dynamic else shapes
    model = build.model(declared, outputs)
    expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(outputs, inputs)
    for level in (tiercel.GraphOptimizationLevel.ORT_DISABLE_ALL, tiercel.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
                  tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL):
        results = []
        for n in threads:
            options = tiercel.SessionOptions()
            options.graph_optimization_level = level
            options.intra_op_num_threads = n
            path = tmp_path / "optimised.onnx"
            options.optimized_model_filepath = str(path)
            session = tiercel.InferenceSession(model, options)
            assert [o.name for o in session.get_outputs()] == outputs
            results.append(session.run(outputs, inputs))
        for got, again, want in zip(results[0], results[-1], expected, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max(initial=1e-9))
            np.testing.assert_array_equal(got, again)
    return Counter(n.op_type for n in onnx.load(path).graph.node)


def test_batch_norm_activation_residual(tmp_path):
    b = Build()
    x = b.op("Relu", b.bn(b.conv("x", 3, 24, 7, bias=False, strides=[2, 2]), 24))
    pooled = b.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = b.op("Relu", b.bn(b.conv(pooled, 24, 40, 1, bias=False), 40))
    y = b.op("Relu", b.bn(b.conv(y, 40, 40, 3, group=4), 40))
    y = b.bn(b.conv(y, 40, 64, 1), 64)
    short = b.bn(b.conv(pooled, 24, 64, 1), 64)
    y = b.op("Relu", b.op("Add", y, short))
    y = b.op("GlobalAveragePool", y)
    ops = check(b, {"x": rand(2, 3, 33, 40)}, [y], tmp_path)
    assert ops == {"Conv": 5, "MaxPool": 1, "GlobalAveragePool": 1, "Reorder": 1}
    check(b, {"x": rand(1, 3, 20, 31)}, [y], tmp_path, dynamic={("x", 0): "n", ("x", 2): "h", ("x", 3): "w"})


@pytest.mark.parametrize(
    "name", ["Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Softplus", "Clip", "silu", "hard_swish", "Mish"]
)
def test_activations(name, tmp_path):
    b = Build(opset=18)
    y = b.conv("x", 16, 20, 3)
    if name == "silu":
        y = b.op("Mul", y, b.op("Sigmoid", y))
    elif name == "hard_swish":
        y = b.op("Mul", b.op("HardSigmoid", y, alpha=1 / 6, beta=0.5), y)
    elif name == "Clip":
        y = b.op("Clip", y, np.float32(0.25), np.float32(6))
    else:
        y = b.op(name, y)
    y = b.conv(y, 20, 5, 1)  # reads padded channels: they must be zero
    ops = check(b, {"x": rand(1, 16, 9, 11)}, [y], tmp_path)
    assert ops == {"Conv": 2, "Reorder": 2}


def test_affine(tmp_path):
    b = Build()
    y = b.conv("x", 8, 12, 3)
    y = b.op("Add", b.op("Mul", y, rand(1, 12, 1, 1)), rand(12, 1, 1))
    y = b.op("Sub", np.float32(2), b.op("Div", y, np.float32(3)))
    w = rand(12, 6, 3, 3)
    y = b.op("ConvTranspose", y, w, group=2, strides=[2, 2])
    y = b.bn(y, 12)
    assert check(b, {"x": rand(2, 8, 5, 6)}, [y], tmp_path) == {"Conv": 1, "ConvTranspose": 1, "Reorder": 1}


def test_not_affine(tmp_path):
    b = Build()
    y = b.op("Mul", b.conv("x", 8, 12, 1), rand(5, 12))  # along the last axes
    ops = check(b, {"x": rand(2, 8, 5, 12)}, [y], tmp_path)
    assert ops["Mul"] == 1


def test_padding(tmp_path):
    b = Build()
    y = b.conv(b.op("Pad", "x", np.array([0, 0, 1, 0, 0, 0, 2, 1])), 16, 16, 3, pads=[1, 0, 0, 0])
    assert check(b, {"x": rand(1, 16, 6, 7)}, [y], tmp_path) == {"Conv": 1, "Reorder": 2}
    b = Build()
    y = b.conv(b.op("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(1)), 16, 16, 3, pads=[0, 0, 0, 0])
    assert check(b, {"x": rand(1, 16, 6, 7)}, [y], tmp_path)["Pad"] == 1


def test_residual_of_shared_and_output_values(tmp_path):
    b = Build()
    stem = b.conv("x", 3, 32, 3)
    y = b.op("Add", b.conv(stem, 32, 32, 3), stem)
    z = b.op("Add", y, b.conv(y, 32, 32, 1))
    ops = check(b, {"x": rand(1, 3, 8, 8)}, [stem, y, z], tmp_path)
    assert ops == {"Conv": 3, "Reorder": 3}


def test_convolutions_of_other_ranks(tmp_path):
    b = Build()
    y = b.op("Relu", b.conv("x", 40, 24, 3, dims=1, pads=[4, 0], dilations=[2]))
    y = b.op("Tanh", b.conv(y, 24, 24, 5, dims=1, group=24))
    y = b.op("Transpose", y, perm=[0, 2, 1])
    check(b, {"x": rand(2, 40, 50)}, [y], tmp_path, dynamic={("x", 2): "t"})
    b = Build()
    y = b.op("Relu", b.conv("x", 2, 20, 3, dims=3))
    y = b.op("MaxPool", y, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    y = b.conv(y, 20, 4, 1, dims=3)
    check(b, {"x": rand(1, 2, 5, 6, 7)}, [y], tmp_path)


def test_weights_that_are_not_constant(tmp_path):
    b = Build()
    y = b.op("Relu", b.op("Conv", b.conv("x", 16, 20, 3), "w", "b", pads=[1, 1, 1, 1]))
    check(b, {"x": rand(1, 16, 6, 7), "w": rand(24, 20, 3, 3) / 10, "b": rand(24)}, [y], tmp_path)


def test_empty_batch(tmp_path):
    b = Build()
    y = b.op("Relu", b.conv("x", 3, 20, 3))
    check(b, {"x": rand(0, 3, 6, 7)}, [y], tmp_path, dynamic={("x", 0): "n"})


def test_layout_through_other_operators(tmp_path):
    b = Build(opset=17)
    x = b.op("Relu", b.conv("x", 3, 48, 3))
    left, right = b.op("Split", x, np.array([16, 32]), outputs=2, axis=1)
    up = b.op("Resize", right, "", np.array([1, 1, 2, 2], np.float32), mode="linear")
    up = b.op("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2])
    near = b.op("Resize", left, "", np.array([1, 1, 3, 2], np.float32), mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor")
    near = b.op("AveragePool", near, kernel_shape=[3, 2], strides=[3, 2])
    y = b.op("Concat", near, up, b.conv(x, 48, 20, 1), axis=1)
    y = b.op("Pad", y, np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    gate = b.op("ReduceMean", y, axes=[2, 3], keepdims=1)
    gate = b.op("HardSigmoid", b.conv(b.op("Relu", b.conv(gate, 68, 17, 1)), 17, 68, 1))
    y = b.op("Mul", y, gate)
    y = b.op("Add", b.op("Sigmoid", y), y)
    y = b.conv(b.op("Mul", y, rand(1, 68, 1, 1)), 68, 20, 3)
    ops = check(b, {"x": rand(2, 3, 10, 12)}, [y], tmp_path)
    assert ops["Reorder"] == 1, ops
    check(b, {"x": rand(1, 3, 9, 14)}, [y], tmp_path, dynamic={("x", 0): "n", ("x", 2): "h", ("x", 3): "w"})


def test_layout_keeps_partial_blocks_apart(tmp_path):
    b = Build()
    x = b.conv("x", 3, 40, 3)
    y = b.op("Concat", b.op("Slice", x, np.array([0]), np.array([20]), np.array([1])), b.conv(x, 40, 24, 1), b.conv(x, 40, 8, 1), axis=1)
    y = b.op("Add", b.op("Exp", b.op("Tanh", y)), rand(5, 1))
    y = b.conv(b.op("Softmax", y, axis=1), 52, 6, 3)
    check(b, {"x": rand(2, 3, 5, 12)}, [y], tmp_path)


def test_shapes_of_blocked_values(tmp_path):
    b = Build()
    x = b.op("Relu", b.conv("x", 3, 20, 3))
    y = b.op("Reshape", x, b.op("Concat", b.op("Gather", b.op("Shape", x), np.array([0])), np.array([-1]), axis=0))
    check(b, {"x": rand(2, 3, 5, 6)}, [y], tmp_path, dynamic={("x", 0): "n"})


@pytest.mark.parametrize("parts", [(24, 24), (20, 7, 33), (16, 5), (1, 1, 1), (40, 32, 8), (12, 20)])
@pytest.mark.parametrize("axis", [1, 2])
def test_concat_of_any_channel_counts_stays_blocked(parts, axis, tmp_path):
    b = Build()
    parts = parts if axis == 1 else (parts[0],) * len(parts)
    h = [b.op("Relu", b.conv("x", 9, c, 3)) for c in parts]
    joined = b.op("Concat", *h, axis=axis)
    y = b.conv(joined, sum(parts) if axis == 1 else parts[0], 11, 3)
    ops = check(b, {"x": rand(2, 9, 6, 5)}, [y], tmp_path)
    assert ops["Concat"] == 1
    assert ops["Reorder"] == 2  # of x and of y


@pytest.mark.parametrize("parts", [(24, 24), (29, 29), (20, 12), (3, 50, 5), (16, 1)])
def test_split_into_any_channel_counts_stays_blocked(parts, tmp_path):
    b = Build()
    h = b.conv("x", 9, sum(parts), 3)
    pieces = b.op("Split", h, np.array(parts, np.int64), axis=1, outputs=len(parts))
    # Each part meets a convolution, whose sums would show what stands in the padding; and the parts go back, in another order.
    sums = [b.conv(p, c, 8, 1) for p, c in zip(pieces, parts, strict=True)]
    y = b.op("Add", sums[0], sums[1])
    z = b.conv(b.op("Concat", *reversed(pieces), axis=1), sum(parts), 6, 1)
    ops = check(b, {"x": rand(2, 9, 6, 5)}, [y, z], tmp_path)
    assert ops["Split"] == 1
    assert ops["Reorder"] == 3  # of x, y and z


@pytest.mark.parametrize("group", [1, 2, 6])
@pytest.mark.parametrize("dims", [1, 2])
def test_branches_become_one_convolution(group, dims, tmp_path):
    b = Build()
    wide = b.bn(b.conv("x", 6, 6, 3, group=group, dims=dims, bias=False), 6)
    y = b.op("Add", b.op("Add", b.conv("x", 6, 6, 1, group=group, dims=dims), b.bn("x", 6)), wide)
    y = b.op("Relu", y)
    y = b.op("Add", b.conv(y, 6, 12, 5, dims=dims, strides=[2] * dims), b.bn(b.conv(y, 6, 12, 1, dims=dims, strides=[2] * dims), 12))
    inputs = {"x": rand(2, 6, *[11, 8][:dims])}
    ops = check(b, inputs, [y], tmp_path, dynamic={("x", 0): "n", ("x", 2): "h"})
    assert ops["Conv"] == 2 and not ops["Add"] and not ops["BatchNormalization"]


def test_branches_that_stay_apart(tmp_path):
    b = Build()
    two = lambda p, q: b.op("Add", p, q)  # noqa: E731
    shared = b.conv("x", 6, 6, 1)
    outputs = [
        two(b.conv("x", 6, 6, 3, pads=[0, 2, 2, 0]), b.conv("x", 6, 6, 1)),                        # to the side, within the kernel: one it is
        two(b.conv("x", 6, 6, 3, dilations=[2, 2], pads=[2] * 4), b.conv("x", 6, 6, 1)),           # dilated
        two(b.conv("x", 6, 6, 3), b.conv("x", 6, 6, 3, group=2)),                                  # of other groups
        two(b.op("Conv", "x", rand(6, 6, 1, 3), pads=[0, 1, 0, 1]), b.op("Conv", "x", rand(6, 6, 3, 1), pads=[1, 0, 1, 0])),  # neither holds the other
        two(b.conv("x", 6, 6, 3), b.conv("z", 6, 6, 1)),                                           # of other images
        two(b.conv("x", 6, 6, 3), shared), shared,                                                 # read elsewhere
        two(b.conv("x", 6, 6, 3), b.conv("x", 6, 1, 1)),                                           # broadcast
    ]
    ops = check(b, {"x": rand(1, 6, 9, 7), "z": rand(1, 6, 9, 7)}, outputs, tmp_path)
    assert ops["Conv"] == 1 + 2 * 6


@pytest.mark.parametrize("reduce", ["ReduceMean", "ReduceMax", "ReduceL2"])
def test_reductions_that_drop_axes_stay_blocked(reduce, tmp_path):
    b = Build()
    y = b.conv("x", 3, 20, 3)
    rows = b.op(reduce, b.conv(y, 20, 24, 1), axes=[3], keepdims=0)
    pooled = b.op(reduce, y, axes=[-1, 2], keepdims=0)
    gate = b.op("Sigmoid", b.op("Gemm", pooled, rand(20, 20), rand(20)))
    y = b.conv(b.op("Mul", y, b.op("Unsqueeze", gate, np.array([2, 3]))), 20, 5, 1)
    ops = check(b, {"x": rand(2, 3, 9, 8)}, [y, rows, pooled], tmp_path, dynamic={("x", 0): "n", ("x", 2): "h"})
    assert ops["Reorder"] == 3, ops  # the results and what is left of the reduced image
