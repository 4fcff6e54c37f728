"""Low-rank adapters and training of the head alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import X, Y, plain, trainer

from tiercel import InferenceSession
from tiercel.training import Adam, CheckpointError, Conv, Dense, Flatten, LoRA, Loss, Sequential, Trainer, apply_adapter

RNG = np.random.default_rng(5)


def sharing() -> bytes:
    """MatMul and Gemm in all forms that can have an adapter; `a` is used twice."""
    weights = {"a": (4, 4), "b": (6, 4), "c": (6, 3), "bias": (6,)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h0"], name="first"),
        helper.make_node("Tanh", ["h0"], ["h1"]),
        helper.make_node("MatMul", ["h1", "a"], ["h2"], name="second"),
        helper.make_node("Gemm", ["h2", "b", "bias"], ["h3"], transB=1, alpha=0.5, beta=2.0, name="third"),
        helper.make_node("Tanh", ["h3"], ["h4"]),
        helper.make_node("Gemm", ["h4", "c"], ["y"], name="fourth"),
    ]
    values = [numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()]
    inputs, outputs = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w])] for n, w in (("x", 4), ("y", 3)))
    graph = helper.make_graph(nodes, "sharing", inputs, outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def images() -> Sequential:
    return Sequential([Conv(5, 3, activation="tanh"), Conv(4, 1, stride=2), Flatten(), Dense(3)], (1, 2, 2), seed=2)


MODELS = {"sharing": (sharing(), None, X), "dense": (plain().build(), None, X), "conv": (images().build(), "*", X.reshape(-1, 1, 2, 2))}


@pytest.mark.parametrize("name", MODELS)
def test_merged_and_separate(name, tmp_path):
    model, targets, x = MODELS[name]
    targets = "*weight" if targets else None
    t = Trainer(model, "cross_entropy", Adam(0.02), trainable=LoRA(2, 4, targets=targets), seed=3)
    start = InferenceSession(model).run(None, {"x": x})[0]
    np.testing.assert_array_equal(t.predict(x), start)
    losses = [t.step(x, Y) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.01
    assert all(n.endswith((".lora_a", ".lora_b")) for n in t.weights)
    # the model that trains, with its adapters beside, and the merged one say the same
    trained = t._core.evaluate([x, Y])[1][0]
    assert np.abs(trained - start).max() > 0.01
    np.testing.assert_allclose(t.predict(x), trained, atol=2e-5)
    t.save(tmp_path / "merged.onnx")
    t.save_adapter(tmp_path / "adapter")
    merged = onnx.load(tmp_path / "merged.onnx")
    onnx.checker.check_model(merged)
    assert [n.op_type for n in merged.graph.node] == [n.op_type for n in onnx.load_from_string(model).graph.node]
    np.testing.assert_array_equal(InferenceSession(str(tmp_path / "merged.onnx")).run(None, {"x": x})[0], t.predict(x))
    np.testing.assert_array_equal(InferenceSession(apply_adapter(model, tmp_path / "adapter")).run(None, {"x": x})[0], t.predict(x))


def test_against_plain_numpy():
    """One layer, mean squared error, three steps of plain descent."""
    rng = np.random.default_rng(1)
    target = rng.standard_normal((50, 3)).astype(np.float32)
    model = Sequential([Dense(3, bias=False)], (4,), seed=0)
    t = Trainer(model, Loss("mse"), "sgd", trainable=LoRA(2, 6.0), seed=9)
    t.optimizer.lr = 0.05
    w = next(iter(model.weights.values())).astype(np.float64)
    a, b = (next(v for n, v in t.weights.items() if n.endswith(k)).astype(np.float64) for k in ("_a", "_b"))
    assert a.any() and not b.any()
    for _ in range(3):
        t.step(X, target)
        g = 2 * X.T.astype(np.float64) @ (X @ (w + 3 * a @ b) - target) / target.size
        a, b = a - 0.05 * 3 * g @ b.T, b - 0.05 * 3 * a.T @ g
    for key, expected in (("_a", a), ("_b", b)):
        np.testing.assert_allclose(next(v for n, v in t.weights.items() if n.endswith(key)), expected, atol=1e-6)


def test_weights_beside_adapters():
    t = trainer(plain(), trainable=LoRA(2, targets="dense0.*", trainable="dense1.*"))
    before = {n: a.copy() for n, a in plain().weights.items()}
    assert set(t.weights) == {"dense0.weight.lora_a", "dense0.weight.lora_b", "dense1.weight", "dense1.bias"}
    for _ in range(5):
        t.step(X, Y)
    after = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(t.model()).graph.initializer}
    assert {n for n in before if (before[n] != after[n]).any()} == {"dense0.weight", "dense1.weight", "dense1.bias"}


@pytest.mark.parametrize("trainable, number", [("head", 4), ("all", 6), ("dense0.weight", 3)])
def test_weights_that_have_adapters_too(trainable, number):
    t = trainer(plain(), trainable=LoRA(2, targets="dense0.*", trainable=trainable))
    assert len(t.weights) == number
    for _ in range(5):
        t.step(X, Y)
    np.testing.assert_allclose(t.predict(X), t._core.evaluate([X, Y])[1][0], atol=2e-5)


def test_resume(tmp_path):
    make = lambda: trainer(plain(), trainable=LoRA(2))  # noqa: E731
    a, b = make(), make()
    for _ in range(3):
        a.step(X, Y)
    a.save_checkpoint(tmp_path / "c")
    b.load_checkpoint(tmp_path / "c")
    assert a.step(X, Y) == b.step(X, Y)
    with pytest.raises(CheckpointError):
        trainer(plain(), trainable=LoRA(3)).load_checkpoint(tmp_path / "c")


def test_adapter_of_another_model(tmp_path):
    t = trainer(plain(), trainable=LoRA(2))
    t.step(X, Y)
    t.save_adapter(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="another model"):
        apply_adapter(images(), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="fit"):
        apply_adapter(Sequential([Dense(9), Dense(3)], (4,)), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="is a LoRA adapter"):
        t.load_checkpoint(tmp_path / "adapter")
    with pytest.raises(ValueError, match="without LoRA"):
        trainer(plain()).save_adapter(tmp_path / "adapter")


def test_head():
    t = trainer(plain(), trainable="head")
    assert set(t.weights) == {"dense1.weight", "dense1.bias"}
    # a head of MatMul and Add: the bias stands in a node of its own
    added = Sequential([Dense(6, "tanh"), Dense(3)], ("time", 4))
    assert set(Trainer(added, "mse", trainable="head").weights) == {"dense1.weight", "dense1.bias"}
    before = {n: a.copy() for n, a in plain().weights.items()}
    t.step(X, Y)
    after = {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(t.model()).graph.initializer}
    assert {n for n in before if (before[n] != after[n]).any()} == {"dense1.weight", "dense1.bias"}


def test_a_softmax_at_the_end_is_part_of_the_loss():
    from tiercel.training import Activation

    layers = lambda: [Dense(8, "tanh"), Dense(3)]  # noqa: E731
    scores = Trainer(Sequential(layers(), (4,), seed=1), "cross_entropy")
    probabilities = Trainer(Sequential([*layers(), Activation("softmax")], (4,), seed=1), "cross_entropy")
    assert [scores.step(X, Y) for _ in range(3)] == [probabilities.step(X, Y) for _ in range(3)]
    np.testing.assert_allclose(probabilities.predict(X).sum(1), 1, rtol=1e-6)
    assert scores.evaluate(X, Y) == probabilities.evaluate(X, Y)
