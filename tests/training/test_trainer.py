"""Trainer: what it learns, what it says when it cannot, and that it does the same again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiercel
from tiercel.training import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BatchNorm,
    Conv,
    Cosine,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    History,
    LayerNorm,
    Lion,
    MaxPool,
    RMSprop,
    Sequential,
    Trainer,
)  # fmt: skip

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import digits_cnn
import four_points


def test_least_squares_of_four_points() -> None:
    found, exact = four_points.least_squares()
    np.testing.assert_allclose(found, exact, atol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_hidden_layer_tells_the_points_apart(activation: str) -> None:
    trainer = four_points.hidden(activation)
    assert trainer.predict(four_points.POINTS).argmax(axis=1).tolist() == [1, 1, 0, 0]


def small_network(seed: int = 0, dropout: float = 0.25) -> Sequential:
    return Sequential(
        [Conv(8, 3, activation="relu"), BatchNorm(), MaxPool(2), Conv(16, 3, stride=2, activation="gelu"), Flatten(), Dropout(dropout),
         Dense(20, "tanh"), LayerNorm(), Dense(4)],
        input_shape=(3, 8, 8), seed=seed,
    )  # fmt: skip


rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((50, 3, 8, 8)).astype(np.float32)
LABELS = rng.integers(0, 4, 50)


def trained(threads: int = 0, epochs: int = 3, **options: Any) -> Trainer:
    trainer = Trainer(small_network(), loss="cross_entropy", optimizer=Adam(1e-2), threads=threads, **options)
    trainer.fit(IMAGES, LABELS, epochs=epochs, batch_size=16)
    return trainer


def bits(trainer: Trainer) -> dict[str, bytes]:
    return {name: w.tobytes() for name, w in trainer.weights.items()}


def test_same_bits_again_and_on_other_threads() -> None:
    first = bits(trained(1))
    assert first == bits(trained(1)) == bits(trained(2))
    assert first != bits(trained(1, seed=5))  # of Dropout


def test_history_validation_and_callbacks() -> None:
    trainer = Trainer(small_network(), loss="cross_entropy", optimizer="adam")
    seen: list[int] = []

    def stop(_: Trainer, epoch: int, history: History) -> bool:
        seen.append(epoch)
        return len(history["loss"]) == 2

    history = trainer.fit(IMAGES, LABELS, epochs=5, validation=(IMAGES, LABELS), callbacks=[stop])
    assert seen == [0, 1] and sorted(history) == ["loss", "seconds", "val_accuracy", "val_loss"]
    assert trainer.steps == 4 and all(len(v) == 2 for v in history.values())


def test_learns_and_saves_plain_onnx(tmp_path: Path) -> None:
    trainer = trained(epochs=60)
    assert trainer.evaluate(IMAGES, LABELS)["accuracy"] > 0.9
    trainer.save(tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    import onnx

    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model)
    assert {n.domain for n in model.graph.node} == {""}
    onnxruntime = pytest.importorskip("onnxruntime")
    expected = onnxruntime.InferenceSession(tmp_path / "out.onnx").run(None, {"x": IMAGES})[0]
    np.testing.assert_allclose(trainer.predict(IMAGES), expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(trainer.session.run(None, {"x": IMAGES})[0], expected, rtol=2e-4, atol=2e-4)


def test_session_is_live() -> None:
    trainer = Trainer(Sequential([Dense(1)], input_shape=(2,)), optimizer=SGD(0.1))
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    before = trainer.predict(x)
    trainer.step(x, y)
    after = trainer.predict(x)
    assert abs(after - 1).max() < abs(before - 1).max()
    w, b = trainer.weights.values()
    np.testing.assert_allclose(after, x @ w + b, rtol=1e-6)


def test_only_what_is_asked_for_is_trained() -> None:
    trainer = Trainer(small_network(), loss="cross_entropy", trainable=["dense1.*"])
    before = {n: w.copy() for n, w in small_network().weights.items()}
    trainer.fit(IMAGES, LABELS)
    assert sorted(trainer.weights) == ["dense1.bias", "dense1.weight"]
    import onnx
    from onnx import numpy_helper

    for tensor in onnx.load_from_string(trainer.model()).graph.initializer:
        same = np.array_equal(numpy_helper.to_array(tensor), before[tensor.name])
        assert same == (
            not tensor.name.startswith("dense1") and tensor.name not in ("batchnorm0.mean", "batchnorm0.var")
        )


def test_digits() -> None:
    x, y = digits_cnn.digits()
    trainer = Trainer(digits_cnn.network(), loss="cross_entropy", optimizer=Adam(Cosine(8e-3, 60 * 23)))
    order = np.random.default_rng(0).permutation(len(y))
    trainer.fit(x[order[:-360]], y[order[:-360]], epochs=60, batch_size=64)
    assert trainer.evaluate(x[order[-360:]], y[order[-360:]])["accuracy"] >= 0.98


# ---- Against PyTorch


class Copy:
    """A Sequential's weights in a torch.nn.Sequential of the same layers."""

    def __init__(self, model: Sequential, layers: list[Any]) -> None:
        import torch

        self.net = torch.nn.Sequential(*layers)
        state = iter(model.weights.items())
        for layer in layers:
            for name in ("weight", "bias", "running_mean", "running_var"):
                if getattr(layer, name, None) is not None:
                    _, value = next(state)
                    target = torch.tensor(value)
                    getattr(layer, name).data = (
                        target.T.contiguous() if isinstance(layer, torch.nn.Linear) and name == "weight" else target
                    )


@pytest.mark.parametrize(
    "ours,theirs",
    [
        (SGD(0.1), ("SGD", dict(lr=0.1))),
        (SGD(0.1, weight_decay=0.01), ("SGD", dict(lr=0.1, weight_decay=0.01))),
        (SGD(0.05, momentum=0.9), ("SGD", dict(lr=0.05, momentum=0.9))),
        (SGD(0.05, momentum=0.9, nesterov=True), ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True))),
        (RMSprop(0.01, momentum=0.5), ("RMSprop", dict(lr=0.01, momentum=0.5))),
        (Adagrad(0.05, lr_decay=0.1), ("Adagrad", dict(lr=0.05, lr_decay=0.1))),
        (Adam(0.01, weight_decay=0.1), ("Adam", dict(lr=0.01, weight_decay=0.1))),
        (AdamW(0.01, weight_decay=0.1), ("AdamW", dict(lr=0.01, weight_decay=0.1))),
    ],
)
def test_optimizers_follow_torch(ours: Any, theirs: tuple[str, dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch")
    model = Sequential([Dense(17, "tanh"), Dense(3)], input_shape=(5,), seed=0)
    net = Copy(model, [torch.nn.Linear(5, 17), torch.nn.Tanh(), torch.nn.Linear(17, 3)]).net
    optimizer = getattr(torch.optim, theirs[0])(net.parameters(), **theirs[1])
    trainer = Trainer(model, loss="mse", optimizer=ours)
    x, y = rng.standard_normal((8, 5)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=2e-4)


def test_lion() -> None:
    model = Sequential([Dense(3)], input_shape=(5,), seed=0)
    trainer = Trainer(model, optimizer=Lion(0.01, beta1=0.9, beta2=0.99, weight_decay=0.1))
    x, y = rng.standard_normal((8, 5)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    w, b = (v.astype(np.float64) for v in model.weights.values())
    m = [np.zeros_like(w), np.zeros_like(b)]
    for _ in range(10):
        d = 2 * (x @ w + b - y) / y.size
        for p, g, v in zip((w, b), (x.T @ d, d.sum(0)), m, strict=True):
            p *= 1 - 0.01 * 0.1
            p -= 0.01 * np.sign(0.9 * v + 0.1 * g)
            v[:] = 0.99 * v + 0.01 * g
        trainer.step(x, y)
    for got, want in zip(trainer.weights.values(), (w, b), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_convolutional_network_follows_torch() -> None:
    torch = pytest.importorskip("torch")
    model = Sequential(
        [Conv(8, 3, padding=1), BatchNorm(), Conv(16, 3, padding=1, stride=2, activation="relu"), MaxPool(2), Conv(16, 3, padding=1, groups=4),
         GlobalAveragePool(), Dense(4)],
        input_shape=(3, 16, 16), seed=0,
    )  # fmt: skip
    nn = torch.nn
    net = Copy(model, [
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ]).net  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    trainer = Trainer(model, loss="cross_entropy", optimizer=SGD(0.05))
    x, y = rng.standard_normal((8, 3, 16, 16)).astype(np.float32), rng.integers(0, 4, 8)
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), abs=1e-4)


@pytest.mark.parametrize("options", [{"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_clipping_follows_torch(options: dict[str, float]) -> None:
    torch = pytest.importorskip("torch")
    model = Sequential([Dense(17, "tanh"), Dense(3)], input_shape=(5,), seed=0)
    net = Copy(model, [torch.nn.Linear(5, 17), torch.nn.Tanh(), torch.nn.Linear(17, 3)]).net
    optimizer, trainer = torch.optim.SGD(net.parameters(), lr=1.0), Trainer(model, optimizer=SGD(1.0), **options)
    x, y = rng.standard_normal((8, 5)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        if "clip_norm" in options:
            torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip_norm"])
        else:
            torch.nn.utils.clip_grad_value_(net.parameters(), options["clip_value"])
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-5)


# ---- Errors


def test_label_out_of_range_changes_nothing() -> None:
    trainer = trained()
    before = bits(trainer)
    with pytest.raises(Exception, match=r"SoftmaxCrossEntropyLoss.*target 4 is outside \[0, 3\]"):
        trainer.step(IMAGES[:8], np.full(8, 4))
    assert bits(trainer) == before
    assert np.isfinite(trainer.step(IMAGES[:8], LABELS[:8]))


def test_loss_that_is_not_finite_names_its_node_and_changes_nothing() -> None:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["x", "w"], ["a"], "scale"), helper.make_node("Log", ["a"], ["y"], "log")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
                              [helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])])  # fmt: skip
    trainer = Trainer(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), optimizer=SGD(0.1)
    )
    before = bits(trainer)
    with pytest.raises(Exception, match=r'step 1: the loss is not finite.*Log node "log".*unchanged'):
        trainer.step(-np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    with pytest.raises(Exception, match='input "x" is not'):
        trainer.step(np.full((2, 3), np.nan, np.float32), np.ones((2, 3), np.float32))
    assert bits(trainer) == before and trainer.steps == 0


def test_bad_options_and_arrays() -> None:
    model = Sequential([Dense(3)], input_shape=(5,))
    with pytest.raises(Exception, match="no optimizer \"?'?sdg"):
        Trainer(model, optimizer="sdg")
    with pytest.raises(ValueError, match="no weight matches 'fc'"):
        Trainer(model, trainable="fc")
    with pytest.raises(Exception, match='no output "z"'):
        Trainer(model, output="z")
    trainer = Trainer(model)
    x, y = np.ones((4, 5), np.float32), np.ones((4, 3), np.float32)
    with pytest.raises(Exception, match='input "target"'):
        trainer.step(x, y[:, 0])
    with pytest.raises(Exception, match='input "x"'):
        trainer.step(x[:, :4], y)
    with pytest.raises(ValueError, match="one length"):
        trainer.fit(x, y[:2])
    with pytest.raises(Exception, match="one loss"):
        Trainer(model, loss=tiercel.training.Loss("mse", reduction="none"))


def test_sequential_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no activation 'rleu'"):
        Sequential([Dense(3, "rleu")], input_shape=(5,))
    with pytest.raises(ValueError, match="does not fit"):
        Sequential([Conv(3, 5, padding="valid")], input_shape=(1, 4, 4))
    with pytest.raises(ValueError, match="no initializer"):
        Sequential([Dense(3, init="glorat")], input_shape=(5,))


@pytest.mark.parametrize(
    "init", ["he", "he_normal", "glorot", "glorot_normal", "lecun", "lecun_normal", "orthogonal", "zeros"]
)
def test_initializers(init: str) -> None:
    w = Sequential([Dense(400, init=init)], input_shape=(300,), seed=1).weights["dense0.weight"]
    again = Sequential([Dense(400, init=init)], input_shape=(300,), seed=1).weights["dense0.weight"]
    assert np.array_equal(w, again) and w.dtype == np.float32
    variance = {"he": 2 / 300, "glorot": 2 / 700, "lecun": 1 / 300, "zeros": 0}.get(init.split("_")[0])
    if variance is not None:
        assert w.var() == pytest.approx(variance, rel=0.05)
    else:
        np.testing.assert_allclose(w @ w.T, np.eye(300), atol=1e-5)


def test_threads_may_share_a_trainer() -> None:
    """Steps from two threads, evaluations beside them: as many steps as were asked for, and finite weights."""
    rng = np.random.default_rng(0)
    model = Sequential([Dense(32, "tanh"), Dense(3)], input_shape=(4,), seed=0)
    trainer = Trainer(model, loss="cross_entropy", optimizer=SGD(0.01))
    x, y = rng.standard_normal((16, 4)).astype(np.float32), rng.integers(0, 3, 16)
    first = trainer.step(x, y)
    losses: list[float] = []

    def work(call: Callable[[], float]) -> None:
        losses.extend(call() for _ in range(200))

    threads = [
        threading.Thread(target=work, args=(call,))
        for call in (lambda: trainer.step(x, y), lambda: trainer.step(x, y), lambda: float(trainer.evaluate(x, y)["loss"]))
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert trainer.steps == 401 and len(losses) == 600
    assert np.isfinite(losses).all() and trainer.step(x, y) < first
