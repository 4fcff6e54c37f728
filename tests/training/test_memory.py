"""What a step takes: recomputation, gradient checkpointing, early updates."""

import numpy as np
import pytest
from training_models import X, Y, classifier, same_bits, trainer

from tiercel import _core
from tiercel.errors import InvalidArgument
from tiercel.training import AdamW, BatchNorm, Conv, Dense, Dropout, Flatten, LayerNorm, Sequential, Trainer

RNG = np.random.default_rng(11)
WAYS = ["none", None, "sqrt", 2, 5, ["*"]]


def deep(layers: int = 8, width: int = 64) -> Sequential:
    body = [layer for _ in range(layers) for layer in (Dense(width, "gelu"), LayerNorm(), Dropout(0.1))]
    return Sequential([*body, Dense(3)], input_shape=(16,), seed=1)


def deep_trainer(recompute, **options) -> Trainer:
    return Trainer(deep(), "cross_entropy", AdamW(1e-3), recompute=recompute, **options)


DATA = RNG.standard_normal((256, 16)).astype(np.float32), RNG.integers(0, 3, 256)


def steps(t: Trainer, data=DATA, n: int = 3) -> list[float]:
    return [t.step(*data) for _ in range(n)]


def test_the_arena_shrinks():
    arena = {}
    for way in ("none", None, "sqrt"):
        t = deep_trainer(way)
        steps(t, n=1)
        arena[way] = t.memory()["arena"]
        assert t.memory()["live_bound"] <= arena[way]
    # a layer keeps what goes into Gelu and into the norm, instead of those, what comes out, and what is dropped out
    assert arena[None] < 0.75 * arena["none"]
    assert arena["sqrt"] < 0.85 * arena[None]


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_results(way, threads):
    kept, again = deep_trainer("none", threads=threads), deep_trainer(way, threads=threads)
    np.testing.assert_allclose(steps(again), steps(kept), rtol=1e-6)
    for name, w in kept.weights.items():
        np.testing.assert_allclose(again.weights[name], w, atol=2e-5, err_msg=name)  # Adam divides by small roots


def test_bits_on_any_number_of_threads():
    one, two = (deep_trainer("sqrt", threads=n, clip_norm=0.5) for n in (1, 2))
    assert steps(one) == steps(two)
    assert same_bits(one, two)


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_batch_statistics_and_dropout(way):
    kept, again = trainer(classifier(), recompute="none"), trainer(classifier(), recompute=way)
    np.testing.assert_allclose(steps(again, (X, Y), 10), steps(kept, (X, Y), 10), rtol=1e-5)
    for name, a in kept.model_state().items():
        np.testing.assert_allclose(again.model_state()[name], a, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("way", ["sqrt", 3])
def test_convolutions(way):
    def model():
        body = [layer for _ in range(4) for layer in (Conv(8, 3, padding="same"), BatchNorm(), Dropout(0.1))]
        return Sequential([*body, Flatten(), Dense(3)], input_shape=(3, 8, 8), seed=2)

    data = RNG.standard_normal((8, 3, 8, 8)).astype(np.float32), RNG.integers(0, 3, 8)
    kept, again = (Trainer(model(), "cross_entropy", "sgd", recompute=r) for r in ("none", way))
    np.testing.assert_allclose(steps(again, data), steps(kept, data), rtol=1e-5)
    assert again.memory()["arena"] < kept.memory()["arena"]


def test_frozen_weights_and_lora():
    kept, again = (deep_trainer(r, trainable=["dense2*.weight", "dense5*.weight"]) for r in ("none", "sqrt"))
    np.testing.assert_allclose(steps(again), steps(kept), rtol=1e-6)


def test_patterns():
    with pytest.raises(InvalidArgument, match='no value of the forward pass matches "nothing'):
        steps(deep_trainer(["nothing*"]))


@pytest.mark.parametrize("wrong", ["most", 1, 0, -3, True, [], [3]])
def test_wrong_options(wrong):
    with pytest.raises(ValueError, match="recompute"):
        deep_trainer(wrong)


def test_gradients_do_not_wait_for_the_end():
    # The weights are far larger than the batch's values: with updates at the end all their gradients would live at once.
    wide = Sequential([Dense(512, "relu") for _ in range(6)], input_shape=(512,), seed=0)
    t = Trainer(wide, "mse", "adamw")
    x = RNG.standard_normal((4, 512)).astype(np.float32)
    t.step(x, x)
    weights = sum(w.nbytes for w in t.weights.values())
    memory = t.memory()
    assert memory["states"] == 3 * weights
    assert memory["arena"] < 0.6 * weights
    clipped = Trainer(wide, "mse", "adamw", clip_norm=1.0)  # the norm needs all of them
    clipped.step(x, x)
    assert clipped.memory()["arena"] >= weights


def test_small_weights_share_an_instruction():
    def count(layers):
        t = Trainer(deep(layers), "cross_entropy", "adamw", clip_norm=1.0)
        steps(t, n=1)
        return t.memory()["instructions"], len(t.weights)

    (a, weights_a), (b, weights_b) = count(2), count(6)
    assert weights_b - weights_a == 16
    assert b - a < 4 * 15  # of a layer's forward and backward passes, without updates and norms of its four weights


def test_weights_are_held_once():
    data = deep(2, 512).build()
    t = Trainer(data, "cross_entropy", "sgd")
    steps(t, n=1)
    assert t._data == b""
    assert t.memory()["constants"] < 4096
    again = _core.model_info(t.model())
    assert again["inputs"] == _core.model_info(data)["inputs"]


def tied() -> bytes:
    """tanh(x W) W^T, W through views of it too: read again after the first of its gradients is there."""
    w = RNG.standard_normal((256 * 300,)).astype(np.float32) * 0.05
    nodes = [
        ("Reshape", ["w", "shape"], ["v"], {}),
        ("MatMul", ["x", "v"], ["a"], {}),
        ("Tanh", ["a"], ["h"], {}),
        ("Transpose", ["v"], ["t"], {"perm": [1, 0]}),
        ("MatMul", ["h", "t"], ["y"], {}),
    ]
    weights = {"w": w, "shape": np.array([256, 300])}
    return bytes(_core.build_model([("x", np.dtype(np.float32), ["n", 256])], weights, nodes, ["y"]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("model", [tied, lambda: deep(3, 600)], ids=["tied", "deep"])
def test_early_updates_are_the_late_ones(model, threads):
    data = model()
    width = 256 if isinstance(data, bytes) else 16
    x = RNG.standard_normal((32, width)).astype(np.float32)
    y = x if width == 256 else RNG.integers(0, 3, 32)
    loss = "mse" if width == 256 else "cross_entropy"
    early = Trainer(data, loss, AdamW(1e-3), threads=threads)
    late = Trainer(data, loss, AdamW(1e-3), threads=threads, clip_norm=1e30)  # too large to change anything; waits for all gradients
    assert steps(early, (x, y), 5) == steps(late, (x, y), 5)
    assert same_bits(early, late)


def test_updates_come_early():
    """Settings of their own for biases, whose list is never full, hold no other weight back; clipping and ``atomic`` do."""
    model = Sequential([*[Dense(600, "relu") for _ in range(5)], Dense(4)], (600,), seed=0)
    x, y = np.ones((4, 600), np.float32), np.ones((4, 4), np.float32)

    def arena(**options):
        t = Trainer(model, "mse", AdamW(1e-3), **options)
        t.step(x, y)
        return t.memory()["arena"]

    early, gradients = arena(), 5 * 600 * 600 * 4
    assert early < 0.5 * gradients
    assert arena(groups={"*.bias": {"weight_decay": 0.0}}) == early
    assert arena(accumulate=2) == early
    assert all(arena(**options) > gradients for options in ({"atomic": True}, {"clip_norm": 1.0}, {"clip_value": 1.0}))
