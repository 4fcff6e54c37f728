"""Convolutions that may choose Winograd's algorithm: right to a few times the rounding of direct sums, bit for bit the same for any threads."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

RNG = np.random.default_rng(11)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes, constants, shape):
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def sandwich(channels, outputs, shape, *, activation=None, residual=False, pads=(1, 1, 1, 1)):
    """A 3x3 convolution between pointwise ones, so that it stands inside the blocked layout. Returns the model and its weights."""
    w = {"w0": rand(channels, 5, 1, 1), "w1": rand(outputs, channels, 3, 3) / np.float32(3 * channels**0.5), "b1": rand(outputs),
         "w2": rand(7, outputs, 1, 1) / np.float32(outputs**0.5)}  # fmt: skip
    nodes = [helper.make_node("Conv", ["x", "w0"], ["a"]), helper.make_node("Conv", ["a", "w1", "b1"], ["c"], pads=pads)]
    last = "c"
    if residual:
        w["w3"] = rand(outputs, 5, 1, 1)
        nodes.insert(1, helper.make_node("Conv", ["x", "w3"], ["r"]))
        nodes.append(helper.make_node("Add", [last, "r"], ["s"]))
        last = "s"
    if activation == "Silu":
        nodes += [helper.make_node("Sigmoid", [last], ["g"]), helper.make_node("Mul", [last, "g"], ["f"])]
        last = "f"
    elif activation:
        nodes.append(helper.make_node(activation, [last], ["f"]))
        last = "f"
    nodes.append(helper.make_node("Conv", [last, "w2"], ["y"]))
    return model(nodes, w, shape), w


def conv64(x, w, b=0.0, pads=(0, 0, 0, 0)):
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w.astype(np.float64)) + np.reshape(b, (1, -1, 1, 1))


def session(data, *, threads=1, direct=False, monkeypatch=None):
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    if direct:
        monkeypatch.setenv("TIERCEL_DISABLE_PASS", "winograd")
    made = tiercel.InferenceSession(data, options)
    if direct:
        monkeypatch.delenv("TIERCEL_DISABLE_PASS")
    return made


@pytest.mark.parametrize("shape", [(1, 5, 20, 20), (2, 5, 13, 31), (3, 5, 7, 7), (1, 5, 64, 70), (1, 5, 2, 50)])
@pytest.mark.parametrize(("channels", "outputs"), [(64, 64), (35, 50), (16, 144), (160, 24)])
def test_error_stays_within_a_few_times_direct_sums(shape, channels, outputs, monkeypatch):
    data, w = sandwich(channels, outputs, shape)
    x = rand(*shape)
    exact = conv64(conv64(conv64(x, w["w0"]), w["w1"], w["b1"], (1, 1, 1, 1)), w["w2"])
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch).run(None, {"x": x})[0] for d in (False, True))
    error, plain = (np.abs(v - exact).max() / np.abs(exact).max() for v in (fast, direct))
    assert plain < 2e-6
    assert error < 4 * max(plain, 4e-7)
    for threads in (2, 3, 4):
        assert np.array_equal(fast, session(data, threads=threads).run(None, {"x": x})[0])


def test_it_is_chosen_and_can_be_switched_off(monkeypatch):
    """Else the test above would compare direct sums with themselves."""
    data, _ = sandwich(64, 64, (1, 5, 40, 40))
    x = rand(1, 5, 40, 40)
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch).run(None, {"x": x})[0] for d in (False, True))
    assert not np.array_equal(fast, direct)
    basic = tiercel.SessionOptions()
    basic.graph_optimization_level = tiercel.GraphOptimizationLevel.ORT_ENABLE_BASIC
    np.testing.assert_allclose(tiercel.InferenceSession(data, basic).run(None, {"x": x})[0], direct, rtol=0, atol=2e-5)


@pytest.mark.parametrize("activation", ["Relu", "Silu", "HardSwish", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("residual", [False, True])
def test_bias_residual_and_activation(activation, residual, monkeypatch):
    data, _ = sandwich(64, 40, (2, 5, 23, 18), activation=activation, residual=residual)
    x = rand(2, 5, 23, 18)
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch).run(None, {"x": x})[0] for d in (False, True))
    assert not np.array_equal(fast, direct)
    np.testing.assert_allclose(fast, direct, rtol=0, atol=1e-5 * np.abs(direct).max())


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (2, 1, 0, 3), (1, 1, 1, 0)])
def test_padding_of_any_width(pads, monkeypatch):
    data, w = sandwich(48, 64, (1, 5, 21, 25), pads=pads)
    x = rand(1, 5, 21, 25)
    exact = conv64(conv64(conv64(x, w["w0"]), w["w1"], w["b1"], pads), w["w2"])
    np.testing.assert_allclose(session(data).run(None, {"x": x})[0], exact, rtol=0, atol=5e-6 * np.abs(exact).max())


@pytest.mark.parametrize(("size", "outputs"), [(9, 48), (30, 150), (60, 48)])  # tiles of two, of four in panels of two widths, of four that stay with a thread
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 3e38, -1e12])
def test_infinities_and_huge_values_reach_their_windows_alone(size, outputs, bad, monkeypatch):
    channels = 256 if size == 9 else 64
    w = {"w1": rand(outputs, channels, 3, 3) / np.float32(3 * channels**0.5), "b1": rand(outputs)}
    nodes = [helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]), helper.make_node("Conv", ["p", "w1", "b1"], ["c"], pads=[1] * 4),
             helper.make_node("Relu", ["c"], ["f"]), helper.make_node("MaxPool", ["f"], ["y"], kernel_shape=[1, 1])]  # fmt: skip
    data = model(nodes, w, (1, channels, size, size))
    x = rand(1, channels, size, size)
    clean = session(data).run(None, {"x": x})[0]
    x[0, 3, 5, 6] = bad
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch).run(None, {"x": x})[0] for d in (False, True))
    assert np.array_equal(np.isnan(fast), np.isnan(direct))
    assert np.array_equal(np.isinf(fast), np.isinf(direct))
    assert np.isfinite(bad) or not np.isfinite(fast[:, :, 4:7, 5:8]).all()
    outside = np.ones(fast.shape, bool)
    outside[:, :, 4:7, 5:8] = False
    np.testing.assert_allclose(fast[outside], clean[outside], rtol=0, atol=2e-5)
    assert not np.array_equal(fast[outside], direct[outside])  # else direct sums were compared with themselves


def test_infinite_weights_stay_direct(monkeypatch):
    data, w = sandwich(32, 32, (1, 5, 40, 40))
    model = onnx.load_from_string(data)
    (stored,) = (t for t in model.graph.initializer if t.name == "w1")
    w["w1"][3, 5, 0, 0] = np.inf
    stored.CopyFrom(numpy_helper.from_array(w["w1"], "w1"))
    data, x = model.SerializeToString(), rand(1, 5, 40, 40)
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch).run(None, {"x": x})[0] for d in (False, True))
    assert np.array_equal(fast, direct, equal_nan=True)


def test_sizes_that_change_take_other_tiles_of_the_same_weights(monkeypatch):
    """A session packs the weights anew for a tile that it has not met: they must still be there, also those that took a BatchNormalization in."""
    channels = 192
    w = {"w1": rand(channels, channels, 3, 3) / np.float32(3 * channels**0.5), "w2": rand(channels, channels, 3, 3) / np.float32(3 * channels**0.5),
         "scale": rand(channels), "shift": rand(channels), "mean": rand(channels), "variance": rand(channels) ** 2 + 1}  # fmt: skip
    nodes = [helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
             helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]), helper.make_node("Relu", ["b"], ["c"]),
             helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1] * 4), helper.make_node("MaxPool", ["d"], ["y"], kernel_shape=[1, 1])]  # fmt: skip
    data = model(nodes, w, ("n", channels, "h", "w"))
    fast, direct = (session(data, direct=d, monkeypatch=monkeypatch) for d in (False, True))
    chosen = []
    for height, width in [(40, 40), (13, 13), (6, 6), (1, 9), (40, 40), (21, 30)]:
        x = rand(1, channels, height, width)
        got, expected = (s.run(None, {"x": x})[0] for s in (fast, direct))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        chosen.append(not np.array_equal(got, expected))
    assert any(chosen)
    assert not all(chosen)  # a row of pixels stays direct
