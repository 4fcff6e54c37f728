"""Fine-tuning of models as torch.onnx.export writes them: the first losses are PyTorch's, and so is the model after them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tiercel.training import SGD, LoRA, Trainer

# Small ones: where rounding decides on which side of a ReLU a value falls, the gradients differ, and large steps would magnify that.
RATES = {"momentum": 0.002, "adamw": 1e-3}


@functools.cache
def exported(model: str, form: str) -> tuple[Any, Any, bytes]:
    """torch_reference, the case and the file."""
    for module in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(module)
    import torch
    import torch_reference

    torch.set_num_threads(1)
    if model == "bert":
        case = torch_reference.bert(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16
        )
    else:
        case = torch_reference.resnet(side=48, embedding_size=8, hidden_sizes=[12, 16], depths=[1, 2])
    return torch_reference, case, torch_reference.export(case, form)


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("how", ["all", "head", "lora"])
@pytest.mark.parametrize("form", ["training", "plain", "zoo"])
@pytest.mark.parametrize("model", ["bert", "resnet"])
def test_losses_follow_torch(model: str, form: str, how: str, optimizer: str) -> None:
    reference, case, data = exported(model, form)
    targets = "*[wW]eight*" if model == "resnet" and form != "zoo" else None  # adapters of the convolutions too
    curves = reference.compare(case, data, form, how, optimizer, RATES[optimizer], targets=targets)
    assert curves.worst() < reference.LIMIT
    assert curves.ours[-1] < curves.ours[0] - 1e-3


@pytest.mark.parametrize("model", ["bert", "resnet"])
def test_the_exporter_without_torchscript(model: str) -> None:
    reference, case, data = exported(model, "dynamo")
    assert reference.compare(case, data, "dynamo", "all", "momentum", RATES["momentum"]).worst() < reference.LIMIT


@pytest.mark.parametrize("how", ["all", "lora"])
@pytest.mark.parametrize("form", ["training", "plain"])
def test_evaluation_afterwards_follows_torch(form: str, how: str) -> None:
    """So the running statistics are those of PyTorch; the file that is written gives the same scores elsewhere."""
    reference, case, data = exported("resnet", form)
    curves = reference.compare(case, data, form, how, "momentum", RATES["momentum"], steps=5)
    x, y = case.inputs[0].numpy(), case.labels.numpy()
    import torch

    with torch.no_grad():
        scores = curves.module.eval()(case.inputs[0])
    loss = torch.nn.functional.cross_entropy(scores, case.labels).item()
    assert curves.trainer.evaluate(x, y)["loss"] == pytest.approx(loss, abs=1e-4)
    np.testing.assert_allclose(curves.trainer.predict(x), scores.numpy(), atol=1e-4)
    onnxruntime = pytest.importorskip("onnxruntime")
    written = onnxruntime.InferenceSession(curves.trainer.model(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(written.run(None, {"x": x})[0], scores.numpy(), atol=1e-4)


# ---- Weights that the exporter stored once, without torch


def dense_twice(second: str, through: str = "") -> bytes:
    """x w0 + b -> relu -> (w0 or w1) + b, where b is zeros; `through`: the second use is of an Identity of b."""
    rng = np.random.default_rng(0)
    b = through or "b"
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a0"]),
        helper.make_node("Add", ["a0", "b"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["r0"]),
        helper.make_node("MatMul", ["r0", second], ["a1"]),
        helper.make_node("Add", [b, "a1"] if through else ["a1", b], ["y"]),
    ]
    if through:
        nodes.insert(0, helper.make_node("Identity", ["b"], [through]))
    weights = {n: rng.standard_normal((4, 4)).astype(np.float32) for n in {"w0", second}} | {"b": np.zeros(4, np.float32)}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    fixed = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    "second, through, names", [("w1", "", {"b", "b 2"}), ("w1", "layer.bias", {"b", "layer.bias"}), ("w0", "", {"b"})]
)
def test_equal_weights_of_layers_are_two(second: str, through: str, names: set[str]) -> None:
    """Zeros that two layers share; a layer that is applied twice has one bias."""
    data = dense_twice(second, through)
    trainer = Trainer(data, "mse", SGD(0.1))
    x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    assert {n for n in trainer.weights if n[0] != "w"} == names
    trainer.step(x, np.ones_like(x))
    model = onnx.load_from_string(trainer.model())
    onnx.checker.check_model(model)
    after = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.name[0] != "w"}
    assert set(after) == names and all(a.any() for a in after.values())
    assert len({a.tobytes() for a in after.values()}) == len(names)


def test_adapter_of_a_transposed_weight() -> None:
    """What an export without folding writes for a linear layer."""
    w = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(w, "w")])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    trainer = Trainer(data, "mse", SGD(0.1), LoRA(2))
    x = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    for _ in range(5):
        trainer.step(x, np.ones((8, 3), np.float32))
    a, b = trainer.weights["w.lora_a"], trainer.weights["w.lora_b"]
    assert a.shape == (4, 2) and b.shape == (2, 3) and b.any()
    np.testing.assert_allclose(trainer.predict(x), x @ (w.T + a @ b), atol=1e-5)


def test_a_normalisation_that_is_applied_twice() -> None:
    """Its running statistics take in both batches, one after the other; the variance is the unbiased one."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["b"]),
        helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    fixed = {n: rng.random(3).astype(np.float32) for n in ("w", "scale", "bias", "mean", "var")}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in fixed.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    trainer = Trainer(model, "mse", SGD(0.0))
    x = rng.standard_normal((6, 3)).astype(np.float32)
    trainer.step(x, np.zeros_like(x))
    mean, var = fixed["mean"], fixed["var"]
    for batch in (x * fixed["w"], x):
        mean, var = 0.9 * mean + 0.1 * batch.mean(0), 0.9 * var + 0.1 * batch.var(0, ddof=1)
    state = trainer.model_state()
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], var, rtol=1e-5)


@pytest.mark.parametrize("opset", [13, 17])
def test_what_was_exported_for_training_is_saved_for_inference(opset: int) -> None:
    """BatchNormalization of batch statistics and Dropout that drops: what `predict` and the file compute is neither."""
    outputs = ["b", "mean_after", "var_after"] + (["saved_mean", "saved_var"] if opset < 14 else [])
    mode = {} if opset < 14 else {"training_mode": 1}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], outputs, **mode),
        helper.make_node("Dropout", ["b", "ratio", "yes"], ["y", "mask"]),
    ]
    rng = np.random.default_rng(0)
    fixed = {n: rng.random(3).astype(np.float32) for n in ("scale", "bias", "mean", "var")} | {"w": rng.random((3, 3)).astype(np.float32)}
    fixed |= {"ratio": np.array(0.5, np.float32), "yes": np.array(True)}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in fixed.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    trainer = Trainer(model, "mse", SGD(0.1))
    x = rng.standard_normal((6, 3)).astype(np.float32)
    trainer.step(x, x)
    now = {**fixed, **trainer.model_state()}
    expected = (x @ now["w"] - now["mean"]) / np.sqrt(now["var"] + 1e-5) * now["scale"] + now["bias"]
    np.testing.assert_allclose(trainer.predict(x), expected, rtol=1e-4, atol=1e-5)
    assert trainer.evaluate(x, x)["loss"] == pytest.approx(np.mean((expected - x) ** 2), rel=1e-4)
    written = onnx.load_from_string(trainer.model())
    onnx.checker.check_model(written)
    assert [len(n.output) for n in written.graph.node] == [1, 1, 1]


def test_group_normalization_as_exporters_write_it() -> None:
    """InstanceNormalization of ones and zeros between Reshapes, then scale and bias: these alone are weights."""
    nodes = [
        helper.make_node("Reshape", ["x", "groups"], ["a"]),
        helper.make_node("InstanceNormalization", ["a", "ones", "zeros"], ["b"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["d"]),
        helper.make_node("Add", ["d", "bias"], ["y"]),
    ]
    fixed = {"groups": np.array([0, 2, -1]), "ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32)}
    fixed |= {"scale": np.ones((4, 1, 1), np.float32), "bias": np.zeros((4, 1, 1), np.float32)}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4, 3, 3]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in fixed.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert set(Trainer(model, "mse", SGD(0.1)).weights) == {"scale", "bias"}
