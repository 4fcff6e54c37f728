"""RNN, GRU and LSTM against onnxruntime (onnx's reference evaluator covers few of their attributes)."""
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tiercel

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def model(op, direction, *, lengths, bias, initial, peepholes, layout, dtype=TensorProto.FLOAT, constant=True, hidden=20, inputs=7,
          batch=3, steps=5, seed=0, **attributes):
    rng = np.random.default_rng(seed)
    n = np.float64 if dtype == TensorProto.DOUBLE else np.float32
    d = 2 if direction == "bidirectional" else 1
    g = GATES[op]
    draw = lambda *s: rng.uniform(-0.6, 0.6, s).astype(n)  # noqa: E731
    # As trained networks have it: larger weights make the recurrence chaotic, and a last bit grows at every step.
    contract = np.asarray(min(1.0, 2 / np.sqrt(hidden)), n)
    x = draw(batch, steps, inputs) if layout else draw(steps, batch, inputs)
    state = (batch, d, hidden) if layout else (d, batch, hidden)
    values = {"W": draw(d, g * hidden, inputs), "R": draw(d, g * hidden, hidden) * contract}
    if bias:
        values["B"] = draw(d, 2 * g * hidden)
    if lengths:
        values["sequence_lens"] = np.array([steps, 2, 0 if op == "never" else 1][:batch], np.int32)
    if initial:
        values["initial_h"] = draw(*state)
        if op == "LSTM":
            values["initial_c"] = draw(*state)
    if peepholes:
        values["P"] = draw(d, 3 * hidden)
    order = ["W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    names = ["X"] + [k if k in values else "" for k in order]
    while names[-1] == "":
        names.pop()
    outputs = ["Y", "Y_h"] + (["Y_c"] if op == "LSTM" else [])
    node = helper.make_node(op, names, outputs, hidden_size=hidden, direction=direction, **({"layout": 1} if layout else {}), **attributes)
    kept = {k: v for k, v in values.items() if constant}
    fed = {"X": x} | {k: v for k, v in values.items() if not constant}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in fed.items()],
        [helper.make_tensor_value_info(o, dtype, None) for o in outputs],
        [onnx.numpy_helper.from_array(v, k) for k, v in kept.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString(), fed


def compare(data, fed, tolerance):
    expected = onnxruntime.InferenceSession(data).run(None, fed)
    first = None
    for threads in (1, 2):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        got = tiercel.InferenceSession(data, options).run(None, fed)
        for e, g in zip(expected, got, strict=True):
            assert e.shape == g.shape and e.dtype == g.dtype
            np.testing.assert_allclose(g, e, rtol=0, atol=tolerance)
        first = first or got
        assert all(np.array_equal(a, b) for a, b in zip(first, got, strict=True))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("lengths", "bias", "initial"), list(itertools.product([False, True], repeat=3)))
def test_directions_and_optional_inputs(op, direction, lengths, bias, initial):
    compare(*model(op, direction, lengths=lengths, bias=bias, initial=initial, peepholes=False, layout=0), 2e-6)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 64, 100, 256])
@pytest.mark.parametrize("constant", [True, False])
def test_hidden_sizes(op, hidden, constant):
    compare(*model(op, "forward", lengths=False, bias=True, initial=True, peepholes=False, layout=0, hidden=hidden, batch=2,
                   constant=constant), 2e-5)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("batch", [1, 4])
def test_gru_linear_before_reset(direction, batch):
    compare(*model("GRU", direction, lengths=False, bias=True, initial=True, peepholes=False, layout=0, batch=batch,
                   linear_before_reset=1, hidden=48), 5e-6)


def test_lstm_peepholes_and_input_forget():
    compare(*model("LSTM", "bidirectional", lengths=True, bias=True, initial=True, peepholes=True, layout=0), 2e-6)
    compare(*model("LSTM", "forward", lengths=False, bias=True, initial=False, peepholes=False, layout=0, input_forget=1), 2e-6)


@pytest.mark.parametrize(("op", "names"), [
    ("RNN", ["Relu"]), ("RNN", ["Softsign"]), ("GRU", ["HardSigmoid", "LeakyRelu"]), ("LSTM", ["HardSigmoid", "Softsign", "Elu"]),
    ("LSTM", ["Sigmoid", "ScaledTanh", "Affine"])])
def test_activations(op, names):
    attributes = {"activations": names}
    if names[0] == "HardSigmoid":
        attributes |= {"activation_alpha": [0.25, 0.9, 0.9], "activation_beta": [0.4]}
    if "Affine" in names:
        attributes |= {"activation_alpha": [0.7, 1.2], "activation_beta": [0.5, 0.1]}
    compare(*model(op, "forward", lengths=False, bias=True, initial=True, peepholes=False, layout=0, **attributes), 3e-6)


def test_double_runs_on_the_reference():
    for op in GATES:
        data, fed = model(op, "bidirectional", lengths=True, bias=True, initial=True, peepholes=False, layout=0, dtype=TensorProto.DOUBLE)
        single, _ = model(op, "bidirectional", lengths=True, bias=True, initial=True, peepholes=False, layout=0)
        got = tiercel.InferenceSession(data).run(None, fed)
        near = tiercel.InferenceSession(single).run(None, {"X": fed["X"].astype(np.float32)})
        for a, b in zip(got, near, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("op", GATES)
def test_batch_first_layout(op):
    """layout=1 (onnxruntime refuses it): the same as layout=0 on transposed data."""
    data, fed = model(op, "bidirectional", lengths=True, bias=True, initial=False, peepholes=False, layout=1)
    plain, _ = model(op, "bidirectional", lengths=True, bias=True, initial=False, peepholes=False, layout=0)
    got = tiercel.InferenceSession(data).run(None, fed)
    expected = tiercel.InferenceSession(plain).run(None, {"X": fed["X"].transpose(1, 0, 2)})
    np.testing.assert_array_equal(got[0], expected[0].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got[1], expected[1].transpose(1, 0, 2))


def test_empty_batch_and_no_steps():
    for batch, steps in ((0, 5), (2, 0)):
        data, fed = model("LSTM", "forward", lengths=False, bias=True, initial=True, peepholes=False, layout=0, batch=batch, steps=steps)
        y, y_h, _ = tiercel.InferenceSession(data).run(None, fed)
        assert y.shape == (steps, 1, batch, 20) and y_h.shape == (1, batch, 20)


def test_wrong_shapes_are_named():
    data, _ = model("LSTM", "forward", lengths=False, bias=True, initial=False, peepholes=False, layout=0)
    broken = onnx.load_from_string(data)
    for i in broken.graph.initializer:
        if i.name == "R":
            i.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 80, 19), np.float32), "R"))
    with pytest.raises(tiercel.InvalidGraph if hasattr(tiercel, "InvalidGraph") else Exception, match="LSTM.*R should be"):
        tiercel.InferenceSession(broken.SerializeToString())
