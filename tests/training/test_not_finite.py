"""Gradients that are not finite though the loss is: an error before anything has changed."""

import numpy as np
import onnx
import pytest

import tiercel
from tiercel import _core
from tiercel.training import SGD, BatchNorm, Dense, Layer, LoRA, Loss, Sequential, Trainer

RNG = np.random.default_rng(5)
X = RNG.standard_normal((12, 4)).astype(np.float32)
Y = np.abs(RNG.standard_normal((12, 2))).astype(np.float32)
BAD = X.copy()
BAD[7] = 0  # the root of |0| has no slope


class Root(Layer):
    def emit(self, b):
        b.node("Sqrt", [b.node("Abs", [b.current])])


def model(*more, width=6):
    return Sequential([Dense(width, bias=False), Root(), *more, Dense(2)], input_shape=(4,), seed=3)


def state(t):
    return {n: a.tobytes() for n, a in t._core.state()}, t.steps, t.batches


CLIPS = {"": {}, "norm": {"clip_norm": 1.0}, "value": {"clip_value": 0.5}, "both": {"clip_norm": 1.0, "clip_value": 0.5}}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adagrad", "adam", "adamw", "lion"])
def test_nothing_changes(optimizer, clip, accumulate, threads):
    t, same = (Trainer(model(BatchNorm()), "mse", optimizer, accumulate=accumulate, threads=threads, **CLIPS[clip]) for _ in range(2))
    for each in (t, same):
        each.step(X, Y)
        each.step(X, Y)
    before = state(t)
    for _ in range(2):
        with pytest.raises(tiercel.errors.Error, match='gradient of the weight "dense0.weight" is not finite; the first.*/gradient.*weights are unchanged'):
            t.step(BAD, Y)
        assert state(t) == before
    for each in (t, same):  # and the training goes on as if the batch had not been
        each.step(X, Y)
        each.step(X, Y)
    assert state(t) == state(same)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("atomic", [False, True])
def test_large_models(atomic, accumulate):
    """Updates of the last layers come before the gradients of the first ones: without ``atomic`` they have happened, and were finite."""
    layers = [Dense(700, "tanh"), Dense(700, "tanh"), Dense(700, "tanh")]
    t = Trainer(model(*layers, width=300), "mse", SGD(0.01), atomic=atomic, accumulate=accumulate, groups={"dense0.weight": {"lr": 0.5}})
    t.step(X, Y)
    before = state(t)
    message = "weights are unchanged" if atomic else r"[1-9] of 9 (weights|sums of gradients) had been updated before, with finite.*atomic=True"
    with pytest.raises(tiercel.errors.Error, match=f'"dense0.weight" is not finite; .*{message}'):
        t.step(BAD, Y)
    assert (state(t) == before) == atomic
    assert all(np.isfinite(a).all() for _, a in t._core.state())
    if accumulate > 1 and not atomic:  # half a batch is no batch: the sums begin anew
        assert not any(a.any() for n, a in t._core.state() if n.startswith("tiercel_g "))
        assert t._pending == 0
    assert np.isfinite(t.step(X, Y))


def test_the_node():
    """The way back from the gradient ends at the node that made the first such value."""
    t = Trainer(model(Dense(5, "relu")), "mse")
    with pytest.raises(tiercel.errors.Error, match='"dense0.weight" is not finite; .* Div node "root0/Sqrt/gradient"'):
        t.step(BAD, Y)


@pytest.mark.parametrize("clip", ["norm", "value"])
def test_large_models_with_clipping(clip):
    """All gradients are there before any update anyway."""
    t = Trainer(model(Dense(700, "tanh"), Dense(700, "tanh"), width=300), "mse", "adam", **CLIPS[clip])
    t.step(X, Y)
    before = state(t)
    with pytest.raises(tiercel.errors.Error, match='"dense0.weight" is not finite; .*weights are unchanged'):
        t.step(BAD, Y)
    assert state(t) == before


@pytest.mark.parametrize("options", [{"recompute": "sqrt"}, {"trainable": LoRA(2)}, {"trainable": ["dense0.*", "dense1.weight"]}])
def test_with_other_options(options):
    t = Trainer(model(Dense(5, "gelu"), Dense(5, "gelu")), "mse", "adamw", **options)
    t.step(X, Y)
    before = state(t)
    with pytest.raises(tiercel.errors.Error, match='"dense0.weight(.lora_[ab])?" is not finite; the first'):
        t.step(BAD, Y)
    assert state(t) == before


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_bodies(op):
    h, f = onnx.helper, onnx.TensorProto.FLOAT
    root = [h.make_node("Abs", ["v"], ["a"]), h.make_node("Sqrt", ["a"], ["r"])]
    same = [h.make_node("Identity", ["v"], ["o"])]

    def body(nodes, inputs, outputs):
        return h.make_graph(nodes, "body", [h.make_tensor_value_info(n, t, s) for n, t, s in inputs],
                            [h.make_tensor_value_info(n, t, None if s is None else s) for n, t, s in outputs])  # fmt: skip

    go = onnx.helper.make_node("Identity", ["c"], ["d"])
    if op == "If":
        branch = body(same, [], [("o", f, None)])
        node = h.make_node("If", ["yes"], ["z"], name="here", then_branch=body(root, [], [("r", f, None)]), else_branch=branch)
    elif op == "Loop":
        inner = body([go, *root], [("i", 7, []), ("c", 9, []), ("v", f, None)], [("d", 9, []), ("r", f, None)])
        node = h.make_node("Loop", ["two", "yes", "v"], ["z"], name="here", body=inner)
    else:
        inner = body([h.make_node("Abs", ["row"], ["a"]), h.make_node("Sqrt", ["a"], ["r"])], [("row", f, [3])], [("r", f, [3])])
        node = h.make_node("Scan", ["v"], ["z"], name="here", num_scan_inputs=1, body=inner)
    constants = [onnx.numpy_helper.from_array(np.array(a), n) for n, a in (("yes", True), ("two", np.int64(2)))]
    w = onnx.numpy_helper.from_array(RNG.standard_normal((4, 3)).astype(np.float32), "w")
    graph = h.make_graph([h.make_node("MatMul", ["x", "w"], ["v"], name="first"), node], "g", [h.make_tensor_value_info("x", f, ["n", 4])],
                         [h.make_tensor_value_info("z", f, ["n", 3])], [w, *constants])  # fmt: skip
    t = Trainer(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), "mse", "adam")
    y = np.ones((12, 3), np.float32)
    t.step(X, y)
    before = state(t)
    with pytest.raises(tiercel.errors.Error, match='weight "w" is not finite; the first result of the backward pass that is not: .*"here/gradient"'):
        t.step(BAD, y)
    assert state(t) == before


class Scale(Layer):
    def __init__(self, by):
        self.by = by

    def emit(self, b):
        b.node("Mul", [b.current, b.scalar(self.by)])


def test_an_overflow_of_the_backward_pass():
    t = Trainer(Sequential([Dense(3, bias=False), Scale(1e30), Dense(3, bias=False, init="zeros")], (4,)), "mse", "adam")
    weights = dict(t._core.state())
    weights["dense1.weight"][...] = 1e15  # what comes back is beyond floats
    weights["dense0.weight"][...] = 0
    before = state(t)
    with pytest.raises(tiercel.errors.Error, match='"dense0.weight" is not finite; .*scale0/Mul/gradient'):
        t.step(X, Y[:, :1] * np.float32([1, 2, 3]))
    assert state(t) == before


def test_an_infinite_gradient_is_not_clipped_away():
    t = Trainer(Sequential([Root(), Dense(1)], (4,)), "mse")
    assert np.isfinite(t.step(BAD, Y[:, :1]))  # x is no weight
    with pytest.raises(tiercel.errors.Error, match="is not finite"):
        Trainer(Sequential([Dense(1, init="zeros"), Root()], (4,)), "mse", clip_value=1.0).step(X, Y[:, :1])


def test_large_gradients_are_finite():
    """Squares overflow, elements do not."""
    t = Trainer(Sequential([Dense(3, bias=False), Scale(1e20)], (4,)), "mse", SGD(1e-38))
    weights = dict(t._core.state())
    weights["dense0.weight"][...] = 1e-20
    assert np.isfinite(t.step(X, Y[:, :1] * np.float32([1, 2, 3]) * 1e10))


def test_a_sum_that_overflows():
    t = Trainer(Sequential([Dense(1, bias=False, init="zeros")], (1,)), Loss("mse", reduction="sum"), "adam", accumulate=3)
    x, y = np.float32([[1e19]]), np.float32([[1e19]])  # a gradient of -2e38
    t.step(x, y)
    t.step(x, y)
    before = dict(t._core.state())["dense0.weight"].copy()
    with pytest.raises(tiercel.errors.Error, match='sum of the gradients of the weight "dense0.weight".*overflowed'):
        t.step(x * 0, y)
    assert dict(t._core.state())["dense0.weight"] == before and t.steps == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_operator(dtype):
    grads = [RNG.standard_normal(n).astype(dtype) for n in (0, 1, 7, 70000, 4096, 3)]

    def check(loss=None, previous=None, base=0):
        (got,) = _core.evaluate_node("GradientCheck", "ai.tiercel", 1, [loss, previous, *grads], [True], [("base", 2, base)])
        scale = _core.evaluate_node("ClipScale", "ai.tiercel", 1, [None, loss, previous, *grads], [True, True], [("max_norm", 1, 1.0), ("base", 2, base)])
        assert scale[1] == got
        return int(got)

    assert check() == -1
    assert check(np.array(np.nan, dtype)) == 2**63 - 1
    assert check(np.array(1, dtype), np.array(4)) == 4
    assert check(np.array(np.nan, dtype), np.array(4)) == 4
    grads[2][3] = 1e30  # its square overflows floats
    assert check(np.array(1, dtype), np.array(-1)) == -1
    grads[4][4095] = -np.inf
    assert check(base=10) == 14
    grads[3][69999] = np.nan
    assert check() == 3
