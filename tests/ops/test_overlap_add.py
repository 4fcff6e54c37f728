"""Conv and ConvTranspose with few outputs: products of all taps, added where they overlap."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tiercel
from oracle import compare, onnxruntime_result


def drawn_transposed(rng):
    """Inputs and attributes of a valid node."""
    axes, outputs, channels = int(rng.integers(1, 3)), int(rng.integers(1, 8)), int(rng.choice([16, 17, 33, 64]))
    kernel, strides, space = rng.integers(1, 8, axes), rng.integers(1, 6, axes), rng.integers(1, 40, axes)
    dilations = rng.integers(1, 4, axes) if rng.random() < 0.4 else np.ones(axes, np.int64)
    if rng.random() < 0.2:  # as an inverse short-time Fourier transform
        kernel[-1], strides[-1] = rng.integers(8, 80), rng.integers(1, 40)
    if rng.random() < 0.2:
        space[0] = 1
    if outputs * kernel.prod() < 12:
        kernel[-1] = 12
    reach = (space - 1) * strides + (kernel - 1) * dilations + 1
    pads = [int(rng.integers(0, max(1, min(n // 2, 4)))) for n in reach] + [int(rng.integers(0, max(1, min(n // 2, 4)))) for n in reach]
    padding = [int(rng.integers(0, s)) for s in strides]
    x = rng.standard_normal((int(rng.integers(1, 3)), channels, *space)).astype(np.float32)
    w = rng.standard_normal((channels, outputs, *kernel)).astype(np.float32)
    inputs = [x, w, rng.standard_normal(outputs).astype(np.float32)][: int(rng.integers(2, 4))]
    attrs = {"strides": strides.tolist(), "dilations": dilations.tolist(), "pads": pads, "output_padding": padding}
    return inputs, attrs, all(n - a - b > 0 for n, a, b in zip(reach, pads[:axes], pads[axes:], strict=True))


def drawn_convolution(rng):
    axes, outputs, channels = int(rng.integers(1, 3)), int(rng.integers(1, 8)), int(rng.choice([16, 17, 33, 64]))
    kernel, space, dilations = rng.integers(1, 10, axes), rng.integers(1, 50, axes), rng.choice([1, 1, 2, 5], axes)
    if outputs * kernel.prod() < 8:
        kernel[-1] = 8
    pads = rng.integers(0, 4, 2 * axes).tolist()
    x = rng.standard_normal((int(rng.integers(1, 3)), channels, *space)).astype(np.float32)
    w = rng.standard_normal((outputs, channels, *kernel)).astype(np.float32)
    inputs = [x, w, rng.standard_normal(outputs).astype(np.float32)][: int(rng.integers(2, 4))]
    left = space + np.add(pads[:axes], pads[axes:]) - (kernel - 1) * dilations
    return inputs, {"dilations": dilations.tolist(), "pads": pads}, (left > 0).all()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("seed", range(60))
def test_few_outputs(op, seed):
    """Plain inputs, and blocked ones, from a convolution before; bits are the same on any team."""
    rng = np.random.default_rng(seed)
    (x, w, *rest), attrs, valid = (drawn_convolution if op == "Conv" else drawn_transposed)(rng)
    if not valid:
        return
    (want,) = onnxruntime_result(op, [x, w, *rest], attrs, 17)
    identity = np.eye(x.shape[1], dtype=np.float32).reshape(x.shape[1], x.shape[1], *[1] * (x.ndim - 2))
    constants = [numpy_helper.from_array(a, n) for a, n in zip([w, *rest, identity], ["w", *["b"][: len(rest)], "eye"], strict=True)]
    for blocked in (False, True):
        nodes = [helper.make_node("Conv", ["x", "eye"], ["z"])] if blocked else []
        nodes.append(helper.make_node(op, ["z" if blocked else "x", "w", *["b"][: len(rest)]], ["t"], **attrs))
        nodes.append(helper.make_node("Tanh", ["t"], ["y"]))
        shape = [None] * x.ndim if seed % 2 else list(x.shape)
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
                                  [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("t", "y")], constants)
        for outputs in (["t", "y"], ["y"]):  # alone, and with the activation inside
            del graph.output[:]
            graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
            results = []
            for threads in (1, 2, 3):
                options = tiercel.SessionOptions()
                options.intra_op_num_threads = threads
                results.append(tiercel.InferenceSession(model, options).run(None, {"x": x}))
            atol = float(2e-6 * np.sqrt(x.shape[1] * w[0, 0].size))
            compare(results[0], [want, np.tanh(want)][-len(outputs) :], 64, atol)
            for other in results[1:]:
                assert all(a.tobytes() == b.tobytes() for a, b in zip(other, results[0], strict=True))


def test_infinities_stay_with_their_windows():
    x, w = np.ones((1, 16, 6), np.float32), np.ones((16, 1, 12), np.float32)
    x[0, 3, 2] = np.inf
    graph = helper.make_graph([helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[5])], "g",
                              [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16, 6])],
                              [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (y,) = tiercel.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.flatnonzero(np.isinf(y)).tolist() == list(range(10, 22)) and not np.isnan(y).any()
