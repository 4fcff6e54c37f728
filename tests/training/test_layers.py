"""Layers: forward and training against PyTorch, shapes, plain ONNX, seeds, and what they say of wrong arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import tiercel
from tiercel import _core
from tiercel.training import (
    GRU,
    LSTM,
    RNN,
    SGD,
    Activation,
    Adam,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    MultiHeadAttention,
    Permute,
    PositionEmbedding,
    Reshape,
    Residual,
    RMSNorm,
    Sequential,
    Trainer,
    differentiable_operators,
)

RNG = np.random.default_rng(0)


def run(model: Sequential, x: np.ndarray) -> np.ndarray:
    data = model.build()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    y = tiercel.InferenceSession(data).run(None, {"x": x})[0]
    assert y.shape == (len(x), *(n if not isinstance(n, str) else y.shape[i + 1] for i, n in enumerate(model.output_shape)))
    return y


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def has_rule(name: str) -> bool:
    return differentiable_operators().get(("", name), False)


# ---- Recurrent layers


def recurrent(layer: Any, torch: Any, weights: dict[str, np.ndarray], inputs: int) -> Any:
    """The same in PyTorch, whose gates are in another order."""
    kind = type(layer).__name__
    options = {"nonlinearity": layer.activation} if kind == "RNN" else {}
    net = getattr(torch.nn, kind)(inputs, layer.units, batch_first=True, bidirectional=layer.directions == 2, bias=layer.bias, **options)
    order = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}[kind]  # theirs: ifgo, rzn; ours: iofc, zrh

    def reordered(a: np.ndarray) -> Any:
        return torch.tensor(np.concatenate([np.split(a, len(order))[k] for k in order]))

    w, r = (next(v for n, v in weights.items() if n.endswith(end)) for end in ("weight", "recurrence"))
    bias = next((v for n, v in weights.items() if n.endswith("bias")), None)
    for d in range(layer.directions):
        end = "_l0_reverse" if d else "_l0"
        getattr(net, "weight_ih" + end).data = reordered(w[d])
        getattr(net, "weight_hh" + end).data = reordered(r[d])
        if bias is not None:
            first, second = np.split(bias[d], 2)
            getattr(net, "bias_ih" + end).data = reordered(first)
            getattr(net, "bias_hh" + end).data = reordered(second)
    return net


def last_or_all(layer: Any, states: Any, torch: Any) -> Any:
    if layer.return_sequences:
        return states
    units = layer.units
    return torch.cat([states[:, -1, :units], states[:, 0, units:]], -1) if layer.directions == 2 else states[:, -1]


LAYERS = [
    *(
        (kind, {"return_sequences": s, "bidirectional": d})
        for kind in (LSTM, GRU, RNN)
        for s in (False, True)
        for d in (False, True)
    ),
    (RNN, {"activation": "relu", "bidirectional": True}),
    (LSTM, {"bias": False}),
    (GRU, {"bias": False, "return_sequences": True}),
]


@pytest.mark.parametrize("kind,options", LAYERS)
@pytest.mark.parametrize("steps", [7, "time"])
def test_recurrent_forward(kind: Any, options: dict[str, Any], steps: Any) -> None:
    torch = pytest.importorskip("torch")
    layer = kind(5, **options)
    model = Sequential([layer], input_shape=(steps, 3), seed=1)
    weights = {n: v + 0.3 * floats(*v.shape) for n, v in model.weights.items()}  # biases too
    net = recurrent(layer, torch, weights, 3)
    x = floats(4, 7, 3)
    expected = last_or_all(layer, net(torch.tensor(x))[0], torch).detach().numpy()
    assert run(model, x).shape == expected.shape
    data = _core.with_weights(model.build(), "", weights)
    np.testing.assert_allclose(tiercel.InferenceSession(data).run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind,options", LAYERS)
def test_recurrent_training(kind: Any, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    if not has_rule(kind.op):
        pytest.skip(f"{kind.op} has no gradient yet")
    layer = kind(5, **options)
    model = Sequential([layer], input_shape=(6, 3), seed=1)
    net = recurrent(layer, torch, model.weights, 3)
    x = floats(4, 6, 3)
    y = floats(4, *model.output_shape)
    optimizer, trainer = torch.optim.SGD(net.parameters(), lr=0.2), Trainer(model, optimizer=SGD(0.2))
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(last_or_all(layer, net(torch.tensor(x))[0], torch), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-4)


def test_forget_gate_begins_open() -> None:
    bias = Sequential([LSTM(2)], input_shape=(3, 4)).weights["lstm0.bias"]
    np.testing.assert_array_equal(bias, [[0, 0, 0, 0, 1, 1, 0, 0, *[0] * 8]])


# ---- Attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", [5, "time"])
def test_attention_follows_torch(causal: bool, steps: Any) -> None:
    torch = pytest.importorskip("torch")
    model = Sequential([MultiHeadAttention(3, causal=causal)], input_shape=(steps, 12), seed=0)
    net = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    w = {n.split(".", 1)[1]: torch.tensor(v) for n, v in model.weights.items()}
    net.in_proj_weight.data = torch.cat([w[f"{n}.weight"].T for n in ("query", "key", "value")])
    net.in_proj_bias.data = torch.cat([w[f"{n}.bias"] for n in ("query", "key", "value")])
    net.out_proj.weight.data, net.out_proj.bias.data = w["output.weight"].T.contiguous(), w["output.bias"]
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
    x, y = floats(4, 5, 12), floats(4, 5, 12)

    def forward() -> Any:
        return net(torch.tensor(x), torch.tensor(x), torch.tensor(x), attn_mask=mask, need_weights=False)[0]

    np.testing.assert_allclose(run(model, x), forward().detach().numpy(), rtol=1e-4, atol=1e-5)
    optimizer, trainer = torch.optim.SGD(net.parameters(), lr=0.2), Trainer(model, optimizer=SGD(0.2))
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(forward(), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-4)
    assert all(n.startswith("multiheadattention0.") for n in trainer.weights)  # the mask is none


def transformer(causal: bool = True, vocabulary: int = 6) -> Sequential:
    def block() -> list[Any]:
        return [
            Residual([LayerNorm(), MultiHeadAttention(2, causal=causal)]),
            Residual([RMSNorm(), Dense(32, "gelu"), Dense(16)]),
        ]

    layers = [Embedding(vocabulary, 16), PositionEmbedding(), *block(), *block(), LayerNorm(), Dense(vocabulary)]
    return Sequential(layers, input_shape=(8,), seed=0)


def test_a_transformer_learns_to_count() -> None:
    model = transformer()
    ids = (np.arange(8) + np.arange(6)[:, None]) % 6
    trainer = Trainer(Sequential([*model.layers, Permute(2, 1)], input_shape=(8,), seed=0), "cross_entropy", Adam(1e-2))
    history = trainer.fit(ids, (ids + 1) % 6, epochs=60, batch_size=6)
    assert history["loss"][-1] < 0.05
    assert trainer.evaluate(ids, (ids + 1) % 6)["accuracy"] == 1


def test_causal_attention_does_not_look_ahead() -> None:
    ids = RNG.integers(0, 6, (3, 8))
    other = ids.copy()
    other[:, 5:] = (other[:, 5:] + 1) % 6
    for causal in (True, False):
        a, b = run(transformer(causal), ids), run(transformer(causal), other)
        assert np.allclose(a[:, :5], b[:, :5], atol=1e-6) == causal
        assert not np.allclose(a[:, 5:], b[:, 5:])


# ---- Embedding


def test_embedding_and_its_padding() -> None:
    torch = pytest.importorskip("torch")
    model = Sequential([Embedding(7, 4, padding=2), Flatten(), Dense(3)], input_shape=(5,), seed=0)
    weights = {n: v.copy() for n, v in model.weights.items()}
    table = torch.nn.Embedding(7, 4, padding_idx=2)
    table.weight.data = torch.tensor(weights["embedding0.weight"])
    dense = torch.nn.Linear(20, 3)
    dense.weight.data = torch.tensor(weights["dense0.weight"].T.copy())
    dense.bias.data = torch.tensor(weights["dense0.bias"])
    net = torch.nn.Sequential(table, torch.nn.Flatten(), dense)
    ids, y = RNG.integers(0, 7, (6, 5)), floats(6, 3)
    ids[0] = 2
    np.testing.assert_allclose(run(model, ids), net(torch.tensor(ids)).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert not weights["embedding0.weight"][2].any()
    optimizer, trainer = torch.optim.SGD(net.parameters(), lr=0.5), Trainer(model, optimizer=SGD(0.5))
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(torch.tensor(ids)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(ids, y) == pytest.approx(loss.item(), rel=1e-4)
    assert not trainer.weights["embedding0.weight"][2].any()
    with pytest.raises(ValueError, match="with fractions"):
        trainer.step(ids + 0.5, y)
    with pytest.raises(tiercel.errors.Error, match="7"):
        trainer.step(np.full_like(ids, 7), y)


# ---- Norms, convolutions and the like, against PyTorch, some steps of training too


def torch_layers(torch: Any) -> dict[str, tuple[list[Any], list[Any], tuple[int, ...]]]:
    nn = torch.nn
    return {
        "conv1d": ([Conv(4, 3, padding=1), Activation("tanh"), MaxPool(2)], [nn.Conv1d(3, 4, 3, padding=1), nn.Tanh(), nn.MaxPool1d(2)], (3, 8)),
        "conv2d": ([Conv(4, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2))], [nn.Conv2d(2, 4, (3, 2), (2, 1), dilation=(1, 2))], (2, 7, 6)),
        "conv3d": ([Conv(6, 3, groups=2, bias=False), AveragePool(2)], [nn.Conv3d(2, 6, 3, padding=1, groups=2, bias=False), nn.AvgPool3d(2)], (2, 4, 5, 4)),
        "transpose1d": ([ConvTranspose(4, 4, stride=2, padding=1)], [nn.ConvTranspose1d(3, 4, 4, 2, 1)], (3, 5)),
        "transpose2d": (
            [ConvTranspose(4, 3, stride=2, padding=1, output_padding=1, groups=2)],
            [nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2)], (4, 3, 4)),
        "transpose3d": ([ConvTranspose(2, 2, stride=2, padding="valid")], [nn.ConvTranspose3d(2, 2, 2, 2)], (2, 2, 3, 2)),
        "same": ([ConvTranspose(2, 4, stride=2)], [nn.ConvTranspose2d(2, 2, 4, 2, 1)], (2, 3, 4)),
        "batch": ([BatchNorm()], [nn.BatchNorm1d(5)], (5,)),
        "layer": ([LayerNorm()], [nn.LayerNorm(5)], (4, 5)),
        "rms": ([RMSNorm(1e-5)], [nn.RMSNorm(5, eps=1e-5)], (4, 5)),
        "group": ([GroupNorm(2)], [nn.GroupNorm(2, 6)], (6, 3, 3)),
        "shapes": ([Reshape(2, -1), Permute(2, 1), Flatten(), Dense(3)], [Torch(lambda x: x.reshape(len(x), 2, 6).transpose(1, 2).flatten(1)), nn.Linear(12, 3)], (3, 4)),
        "mean": ([Conv(4, 1), GlobalAveragePool()], [nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()], (3, 4, 5)),
        "max": ([Conv(4, 1), GlobalMaxPool()], [nn.Conv2d(3, 4, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()], (3, 4, 5)),
    }  # fmt: skip


class Torch:
    def __init__(self, call: Any) -> None:
        self.call = call


NAMES = ["conv1d", "conv2d", "conv3d", "transpose1d", "transpose2d", "transpose3d", "same", "batch", "layer", "rms", "group", "shapes", "mean", "max"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_layers_follow_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs, shape = torch_layers(torch)[name]
    model = Sequential(ours, input_shape=shape, seed=3)
    values = iter(v for n, v in model.weights.items() if not n.endswith(("mean", "var")))
    for layer in theirs:
        for which in ("weight", "bias"):
            if getattr(layer, which, None) is not None:
                value = torch.tensor(next(values))
                getattr(layer, which).data = value.T.contiguous() if isinstance(layer, torch.nn.Linear) and which == "weight" else value
    parameters = [p for layer in theirs if not isinstance(layer, Torch) for p in layer.parameters()]

    def forward(x: Any) -> Any:
        for layer in theirs:
            x = layer.call(x) if isinstance(layer, Torch) else layer(x)
        return x

    x = floats(4, *shape)
    y = floats(4, *model.output_shape)
    optimizer, trainer = torch.optim.SGD(parameters, lr=0.1), Trainer(model, optimizer=SGD(0.1))
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(forward(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-4)
    if name != "batch":
        np.testing.assert_allclose(run(model, x).shape, forward(torch.tensor(x)).shape)


@pytest.mark.parametrize(
    "layers,shape,result",
    [
        ([Conv(4, 3), MaxPool(2), Flatten(), Dense(3)], (2, 9, 8), (3,)),
        ([ConvTranspose(4, 3, stride=3)], (2, 5), (4, 15)),
        ([ConvTranspose(4, 2, stride=3)], (2, 5), (4, 15)),
        ([ConvTranspose(4, 3, dilation=2, padding="valid")], (2, 5), (4, 9)),
        ([Conv(4, 5), Permute(2, 1), LSTM(3, return_sequences=True), Dense(2)], (6, "time"), ("time", 2)),
        ([GRU(3, return_sequences=True, bidirectional=True), RNN(2)], (4, 5), (2,)),
        ([Embedding(9, 4), LSTM(5, bidirectional=True), Dropout(0.1), Dense(2, "softmax")], ("time",), (2,)),
    ],
)
def test_shapes(layers: list[Any], shape: Any, result: Any) -> None:
    model = Sequential(layers, input_shape=shape)
    assert model.output_shape == result
    fed = [6 if isinstance(n, str) else n for n in shape]
    x = RNG.integers(0, 9, (3, *fed)) if isinstance(layers[0], Embedding) else floats(3, *fed)
    assert np.isfinite(run(model, x)).all()
    assert all(n.domain == "" for n in onnx.load_from_string(model.build()).graph.node)
    again = Sequential(layers, input_shape=shape)
    assert model.build() == again.build()
    if model.weights:
        assert model.build() != Sequential(layers, input_shape=shape, seed=1).build()


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: Dense(0), "units is a whole number from 1 on, not 0"),
        (lambda: Dense(2.5), "units is a whole number"),
        (lambda: Conv(-1), "filters"),
        (lambda: Sequential([Conv(2, 0)], (1, 4, 4)), "conv0: kernel is a number from 1 on, or 2 of them, not 0"),
        (lambda: Sequential([Conv(2, (3, 3, 3))], (1, 4, 4)), "or 2 of them"),
        (lambda: Sequential([Conv(2, 3, stride=0)], (1, 4, 4)), "stride"),
        (lambda: Sequential([Conv(2, 3, padding=-1)], (1, 4, 4)), "padding"),
        (lambda: Sequential([Conv(2, 3, padding="sane")], (1, 4, 4)), "same, valid or a number"),
        (lambda: Sequential([MaxPool(2, padding=2)], (1, 4, 4)), "not below the size"),
        (lambda: Sequential([MaxPool(2)], (4,)), r"takes \[C, ...\]"),
        (lambda: Sequential([GlobalAveragePool()], (4,)), r"takes \[C, ...\]"),
        (lambda: Sequential([ConvTranspose(2, 3, padding=3)], (1, 2)), "the result would be"),
        (lambda: Sequential([ConvTranspose(2, 3, output_padding=1)], (1, 2)), "the result would be"),
        (lambda: Sequential([GroupNorm(2)], (3, 4)), "do not divide"),
        (lambda: Sequential([LSTM(3)], (4,)), r"lstm0 takes sequences \[T, units\]"),
        (lambda: Sequential([LSTM(3), LSTM(3)], (4, 2)), "lstm1 takes sequences"),
        (lambda: RNN(3, activation="gelu"), "tanh or relu"),
        (lambda: Sequential([MultiHeadAttention(3)], (4, 8)), "8 units do not divide into 3 heads"),
        (lambda: Sequential([BatchNorm()], ("time", 8)), r"batchnorm0: the first extent of .*'time'.*channels, should be a number"),
        (lambda: Sequential([GroupNorm(2)], ("time", 8)), "groupnorm0: the first extent"),
        (lambda: Sequential([Conv(4)], ("channels", 8)), "conv0: the first extent"),
        (lambda: Sequential([Conv(4)], (8,)), "conv0 takes samples .* of rank 2 or more"),
        (lambda: Sequential([BatchNorm()], ()), "batchnorm0 takes samples"),
        (lambda: Sequential([MaxPool(2)], ()), "a pool takes"),
        (lambda: Sequential([Dense(3), Embedding(3, 3)], (4,)), "it is the first layer"),
        (lambda: Embedding(3, 4, padding=3), "padding is one of the 3 numbers"),
        (lambda: Sequential([Residual([Dense(3)])], (4,)), r"residual0: the layers make \[3\] of \[4\]"),
        (lambda: Sequential([Reshape(5, -1)], (4,)), r"samples of shape \[4\] cannot be \[5, -1\]"),
        (lambda: Sequential([Reshape(-1, -1)], (4,)), "cannot be"),
        (lambda: Sequential([Permute(0, 1)], (4, 3)), "do not order the axes 1 to 2"),
        (lambda: Sequential([Flatten()], ("time", 3)), "of a known shape"),
        (lambda: Sequential([PositionEmbedding()], ("time", 3)), "of a known shape"),
        (lambda: Sequential([Conv(2, 3, stride=2)], (1, "time")), "the extent 'time' has no number"),
        (lambda: Sequential([Dense(3)], (0,)), "whole numbers from 1 on"),
        (lambda: Sequential([Dense(3)], (-4,)), "whole numbers from 1 on"),
        (lambda: Sequential([], (4,)), "one layer at least"),
        (lambda: Sequential([Conv(2, 2.5)], (1, 4, 4)), "kernel is a number from 1 on, or 2 of them, not 2.5"),
        (lambda: Sequential([Reshape((2, 2))], (4,)), r"whole numbers, as in Reshape\(2, 6\)"),
        (lambda: Sequential([Dense(3)], (4,), seed="a"), "seed is at least 0 and a whole number, not 'a'"),
        (lambda: Sequential([Dense], (4,)), "layers are objects"),
        (lambda: Sequential([Dense(3, init="he_foo")], (4,)), "no initializer 'he_foo'"),
        (lambda: Sequential([Dense(3, init=lambda rng, shape: np.zeros(3))], (4,)), r"initializer gave \[3\]"),
    ],
)  # fmt: skip
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("init", ["he", "he_uniform", "he_normal", "glorot_uniform", "glorot_normal", "lecun_uniform", "lecun_normal", "orthogonal"])
def test_initializers_of_convolutions(init: str) -> None:
    make = [Conv(60, 3, init=init), ConvTranspose(60, 3, init=init)]
    for layer, fan_in, fan_out in zip(make, (20 * 9, 20 * 9), (60 * 9, 60 * 9), strict=True):
        w = Sequential([layer], (20, 8, 8), seed=2).weights[f"{layer.kind}0.weight"]
        variance = {"he": 2 / fan_in, "glorot": 2 / (fan_in + fan_out), "lecun": 1 / fan_in}.get(init.split("_")[0])
        if variance is not None:
            assert w.var() == pytest.approx(variance, rel=0.1)
            assert (np.abs(w).max() <= np.sqrt(3 * variance) + 1e-6) == ("normal" not in init)
    if init == "orthogonal":
        w = Sequential([make[0]], (20, 8, 8), seed=2).weights["conv0.weight"].reshape(60, -1)
        np.testing.assert_allclose(w @ w.T, np.eye(60), atol=1e-5)
