"""The gradients of RNN, GRU and LSTM: central differences in double, float against double, PyTorch, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grad_cases import covers
from gradcheck import check_grad
from onnx import TensorProto, helper, numpy_helper

import tiercel
from oracle import one_node
from tiercel import _core
from tiercel.training import Adam, Trainer

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def operands(
    op: str,
    seed: int = 0,
    directions: int = 1,
    layout: int = 0,
    lengths: bool = False,
    bias: bool = True,
    initial: bool = True,
    peepholes: bool = False,
    steps: int | None = None,
    batch: int | None = None,
    inputs: int | None = None,
    hidden: int | None = None,
    dtype: Any = np.float64,
) -> list[Any]:
    rng = np.random.default_rng(seed)
    steps, batch = steps or int(rng.integers(2, 5)), batch or int(rng.integers(1, 4))
    inputs, hidden = inputs or int(rng.integers(1, 4)), hidden or int(rng.integers(1, 4))

    def draw(*shape: int) -> np.ndarray:
        return (rng.uniform(-0.8, 0.8, shape) * min(1, 3 / np.sqrt(shape[-1]))).astype(dtype)

    g, n = GATES[op], directions
    state = (batch, n, hidden) if layout else (n, batch, hidden)
    values = [
        draw(batch, steps, inputs) if layout else draw(steps, batch, inputs),
        draw(n, g * hidden, inputs),
        draw(n, g * hidden, hidden),
        draw(n, 2 * g * hidden) if bias else None,
        rng.integers(0, steps + 1, batch).astype(np.int32) if lengths else None,
        draw(*state) if initial else None,
    ]
    if op == "LSTM":
        values += [draw(*state) if initial else None, draw(n, 3 * hidden) if peepholes else None]
    while values[-1] is None:
        values.pop()
    return values


def attributes(values: list[Any], direction: str, layout: int = 0, **more: Any) -> dict[str, Any]:
    given = {"hidden_size": values[2].shape[2], "direction": direction, **more}
    return given | ({"layout": 1} if layout else {})


def outputs(op: str) -> int:
    return 3 if op == "LSTM" else 2


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("seed", range(4))
@covers("differences", *GATES)
def test_forms(op: str, direction: str, seed: int) -> None:
    layout, n = seed % 2, 2 if direction == "bidirectional" else 1
    form = {"lengths": seed in (1, 2), "bias": seed != 3, "initial": seed != 0, "peepholes": op == "LSTM" and seed >= 2}
    values = operands(op, seed, n, layout, **form)
    more = {"linear_before_reset": int(seed in (1, 2))} if op == "GRU" else {}
    check_grad(op, values, attributes(values, direction, layout, **more), opset=14, outputs=outputs(op), dynamic=seed == 2, seed=seed)


@pytest.mark.parametrize("reset", [0, 1])
def test_gru_with_lengths_reversed(reset: int) -> None:
    values = operands("GRU", 7, 2, 1, lengths=True, batch=3, steps=4)
    check_grad("GRU", values, attributes(values, "bidirectional", 1, linear_before_reset=reset), opset=14, outputs=2)


@pytest.mark.parametrize("op", GATES)
def test_one_output_alone(op: str) -> None:
    """What comes back may come through any one of the outputs."""
    values = operands(op, 3)
    for i in range(outputs(op)):
        asked = [k == i for k in range(i + 1)]
        check_grad(op, values, attributes(values, "forward"), opset=14, outputs=asked)


@pytest.mark.parametrize(
    "op,more",
    [
        ("RNN", {"activations": ["Relu"]}), ("RNN", {"activations": ["Softsign"]}), ("RNN", {"clip": 0.4}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}), ("RNN", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.05]}),
        ("GRU", {"activations": ["HardSigmoid", "Softplus"], "activation_alpha": [0.3], "activation_beta": [0.45]}), ("GRU", {"clip": 0.5}),
        ("GRU", {"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [0.9], "activation_beta": [0.7], "linear_before_reset": 1, "clip": 0.6}),
        ("LSTM", {"activations": ["HardSigmoid", "Softsign", "Elu"], "activation_alpha": [0.3, 0.8], "activation_beta": [0.4]}),
        ("LSTM", {"activations": ["Sigmoid", "ScaledTanh", "Affine"], "activation_alpha": [0.7, 1.2], "activation_beta": [0.5, 0.1]}),
        ("LSTM", {"input_forget": 1}), ("LSTM", {"clip": 0.5}), ("LSTM", {"input_forget": 1, "clip": 0.5, "activations": ["Softplus", "Tanh", "Relu"]}),
    ],
)  # fmt: skip
def test_cells(op: str, more: dict[str, Any]) -> None:
    values = operands(op, 5, peepholes=True, hidden=3, batch=2, steps=3)
    check_grad(op, values, attributes(values, "forward", **more), opset=14, outputs=outputs(op))


def test_activations_of_both_directions() -> None:
    values = operands("LSTM", 2, 2)
    names = ["Sigmoid", "Tanh", "Tanh", "HardSigmoid", "Softsign", "Affine"]
    more = {"activations": names, "activation_alpha": [0.3, 0.9], "activation_beta": [0.5, 0.1]}
    check_grad("LSTM", values, attributes(values, "bidirectional", **more), opset=14, outputs=3)


def gradients(op: str, values: list[Any], attrs: dict[str, Any], threads: int = 1) -> list[np.ndarray]:
    model, feeds, _ = one_node(op, values, attrs, 14, outputs=outputs(op))
    asked = [k for k, v in feeds.items() if v.dtype.kind == "f"]
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    data = _core.gradient_model(model.SerializeToString(), "", [], asked)
    return tiercel.InferenceSession(data, options).run([f"gradient of {k}" for k in asked], feeds)


FORMS = [("RNN", {}), ("RNN", {"activations": ["Softsign"]}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})]


def many(more: dict[str, Any], direction: str) -> dict[str, Any]:
    n = 2 if direction == "bidirectional" else 1
    return more | ({"activations": more["activations"] * n} if "activations" in more else {})


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("op,more", FORMS)
def test_float_follows_double_on_any_threads(op: str, more: dict[str, Any], lengths: bool, direction: str) -> None:
    n = 2 if direction == "bidirectional" else 1
    for batch, hidden, steps in [(1, 19, 5), (5, 40, 4), (3, 130, 3)]:
        values = operands(op, batch, n, lengths=lengths, peepholes=True, batch=batch, hidden=hidden, steps=steps, inputs=9)
        attrs = attributes(values, direction, **many(more, direction))
        expected = gradients(op, values, attrs)
        single = [v.astype(np.float32) if v is not None and v.dtype.kind == "f" else v for v in values]
        one, two = gradients(op, single, attrs, 1), gradients(op, single, attrs, 2)
        for e, a, b in zip(expected, one, two, strict=True):
            np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5 * max(1, np.abs(e).max()))
            assert np.array_equal(a, b)


@pytest.mark.parametrize("op,more", [("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})])
def test_units_shared_by_threads(op: str, more: dict[str, Any]) -> None:
    """A large R, and a batch of one: the threads share the hidden units."""
    for batch in (1, 2):
        values = operands(op, 1, lengths=batch == 2, batch=batch, hidden=400, steps=3, inputs=5, dtype=np.float32)
        attrs = attributes(values, "forward", **more)
        one, two = gradients(op, values, attrs, 1), gradients(op, values, attrs, 2)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
        wide = [v.astype(np.float64) if v is not None and v.dtype.kind == "f" else v for v in values]
        for e, a in zip(gradients(op, wide, attrs), one, strict=True):
            np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5 * max(1, np.abs(e).max()))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("steps,batch", [(0, 2), (3, 0)])
def test_nothing(op: str, steps: int, batch: int) -> None:
    values = operands(op, 0, batch=1, steps=1)
    values[0] = np.zeros((steps, batch, values[0].shape[2]))
    for i in range(5, len(values)):
        values[i] = np.ones((1, batch, values[2].shape[2]))
    got = gradients(op, values, attributes(values, "forward"))
    assert [g.shape for g in got] == [v.shape for v in values if v is not None]
    assert not any(g.any() for g in got[:4])
    assert all((g == 1).all() for g in got[4:])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("op", GATES)
@covers("PyTorch", *GATES)
def test_pytorch(op: str, bidirectional: bool) -> None:
    torch = pytest.importorskip("torch")
    n, hidden = 2 if bidirectional else 1, 24
    values = operands(op, 4, n, hidden=hidden, inputs=10, batch=3, steps=6, dtype=np.float32)
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    attrs = attributes(values, "bidirectional" if bidirectional else "forward", **more)
    net = getattr(torch.nn, op)(10, hidden, bidirectional=bidirectional)
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}[op]  # PyTorch's gates as places among ONNX's

    def turn(v: np.ndarray, by: list[int]) -> np.ndarray:
        return v.reshape(len(by), hidden, *v.shape[1:])[by].reshape(v.shape)

    wide = GATES[op] * hidden
    with torch.no_grad():
        for d in range(n):
            s = "_l0" + "_reverse" * d
            parts = {"weight_ih": values[1][d], "weight_hh": values[2][d], "bias_ih": values[3][d, :wide], "bias_hh": values[3][d, wide:]}
            for name, v in parts.items():
                getattr(net, name + s).copy_(torch.tensor(turn(v, order)))
    x, *state = (torch.tensor(v, requires_grad=True) for v in [values[0], *values[5:7]])
    out, last = net(x, tuple(state) if op == "LSTM" else state[0])
    total = out.sum() + (sum(v.sum() for v in last) if op == "LSTM" else last.sum())
    total.backward()
    got = gradients(op, values, attrs)

    def close(mine: np.ndarray, theirs: Any) -> None:
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=2e-5 * max(1, float(np.abs(mine).max())))

    for mine, theirs in zip([got[0], *got[4:]], [x, *state], strict=True):
        close(mine, theirs.grad)
    for d in range(n):
        s = "_l0" + "_reverse" * d
        parts = {"weight_ih": got[1][d], "weight_hh": got[2][d], "bias_ih": got[3][d, :wide], "bias_hh": got[3][d, wide:]}
        for name, v in parts.items():
            close(turn(v, order), getattr(net, name + s).grad)


@pytest.mark.parametrize("op", GATES)
def test_a_network_learns(op: str) -> None:
    """Whether the first number of a sequence is above the last, of a batch whose extent only a run knows; bits alike on 1 and 2 threads."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (96, 6, 1)).astype(np.float32)
    y = (x[:, 0, 0] > x[:, -1, 0]).astype(np.int64)
    hidden, g = 16, GATES[op]
    weights = {"W": rng.uniform(-0.4, 0.4, (1, g * hidden, 1)), "R": rng.uniform(-0.3, 0.3, (1, g * hidden, hidden)), "B": np.zeros((1, 2 * g * hidden))}
    weights |= {"V": rng.uniform(-0.4, 0.4, (hidden, 2)), "b": np.zeros(2)}
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(op, ["steps", "W", "R", "B"], ["", "last"], hidden_size=hidden, **({"linear_before_reset": 1} if op == "GRU" else {})),
        helper.make_node("Squeeze", ["last", "axis"], ["state"]),
        helper.make_node("Gemm", ["state", "V", "b"], ["scores"]),
    ]
    initializers = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    initializers.append(numpy_helper.from_array(np.array([0]), "axis"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        initializers,
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    states = []
    for threads in (1, 2):
        trainer = Trainer(data, "cross_entropy", optimizer=Adam(1e-2), threads=threads)
        history = trainer.fit(x, y, epochs=40, batch_size=40, seed=1)
        states.append(trainer.model_state())
    assert history["loss"][-1] < 0.2 < 0.6 < history["loss"][0]
    assert all(states[0][k].tobytes() == states[1][k].tobytes() for k in states[0])


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


PRODUCTS = [zeros(1, 6, 16), None, None, zeros(1, 16, 4), zeros(1, 2, 3, 4)]


@pytest.mark.parametrize(
    "op,inputs,more,message",
    [
        ("RecurrentPrevious", [zeros(2, 3)], {}, "Y should have 4 axes"),
        ("RecurrentPrevious", [zeros(2, 1, 3, 4), zeros(1, 2, 4)], {}, r"initial_h \[1,2,4\] does not fit"),
        ("RecurrentPrevious", [zeros(2, 1, 3, 4), None, np.zeros(3)], {}, "lengths should be int32"),
        ("GruReset", [zeros(1, 6, 12), zeros(1, 6, 11), zeros(1, 6, 4)], {}, "do not fit the state"),
        ("RecurrentGrad", PRODUCTS[:1], {"kind": "LSTM"}, "input 3 is required"),
        ("RecurrentGrad", PRODUCTS, {"kind": "GRU"}, r"x should have the extents \[1,6,12\], got \[1,6,16\]"),
        ("RecurrentGrad", PRODUCTS, {"kind": "LSTM", "done": 1}, "gates are given requires c"),
        ("RecurrentGrad", [zeros(1, 6, 12), None, None, zeros(1, 12, 4), PRODUCTS[4]], {"kind": "GRU"}, "requires r"),
        ("RecurrentGrad", [*PRODUCTS, None, zeros(1, 2, 4)], {"kind": "LSTM"}, r"dY_h should have the extents \[1,3,4\]"),
        ("RecurrentGrad", [*PRODUCTS, None, None, None, np.zeros(3, np.int64)], {"kind": "LSTM"}, "lengths should be int32"),
    ],
)
def test_wrong_operands_are_named(op: str, inputs: list[Any], more: dict[str, Any], message: str) -> None:
    model, feeds, names = one_node(op, inputs, more, 1, "ai.tiercel")
    with pytest.raises(tiercel.errors.Error, match=f"the_{op}.*{message}"):
        tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
