"""trainer.session: one session for all of a training, whose runs give what a fresh session of the saved model gives, to the bit."""

import gc
import pickle
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import X, Y, plain, trainer

import tiercel
from tiercel import InferenceSession
from tiercel.training import (
    SGD,
    Adam,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    LayerNorm,
    LoRA,
    Loss,
    Sequential,
    Trainer,
    checkpoint,
)

RNG = np.random.default_rng(3)
IMAGES = RNG.standard_normal((6, 3, 16, 16)).astype(np.float32)
LABELS = RNG.integers(0, 4, 6)


def network() -> Sequential:
    """Convolutions that Winograd takes, normalisations that are folded into them and into a product."""
    return Sequential(
        [Conv(32, 3, activation="relu"), BatchNorm(), Conv(32, 3), BatchNorm(), Conv(16, 1, stride=2, activation="gelu"), Flatten(),
         Dense(20), BatchNorm(), Dense(8, "tanh"), LayerNorm(), Dense(4)],
        input_shape=(3, 16, 16), seed=1,
    )  # fmt: skip


def shared_in_a_body() -> bytes:
    """w is read by the graph, by both branches of an If and, transposed, by a product; `ones` is a factor that changes nothing at first."""
    w = RNG.standard_normal((4, 4)).astype(np.float32)
    branches = []
    for name, op in (("then", "Add"), ("else", "Sub")):
        nodes = [helper.make_node("MatMul", ["h", "w"], [f"{name}_p"]), helper.make_node(op, [f"{name}_p", "bias"], [f"{name}_y"])]
        branches.append(helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)]))
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["g"]),
        helper.make_node("Mul", ["g", "ones"], ["s"]),
        helper.make_node("Tanh", ["s"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["t"], keepdims=0),
        helper.make_node("Greater", ["t", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["b"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    values = {"w": w, "ones": np.ones(4, np.float32), "bias": np.zeros(4, np.float32), "zero": np.array(0, np.float32)}
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4])] for n in "xy"]
    graph = helper.make_graph(nodes, "g", *infos, [numpy_helper.from_array(v, n) for n, v in values.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


CASES = {
    "all": (network, "cross_entropy", {}, IMAGES, LABELS),
    "head": (network, "cross_entropy", {"trainable": "head"}, IMAGES, LABELS),
    "one convolution": (network, "cross_entropy", {"trainable": ["conv1.*", "*norm1*"]}, IMAGES, LABELS),
    "lora": (network, "cross_entropy", {"trainable": LoRA(2, alpha=3.0, trainable=["*norm*"])}, IMAGES, LABELS),
    "lora of convolutions": (network, "cross_entropy", {"trainable": LoRA(2, targets="*")}, IMAGES, LABELS),
    "accumulate": (network, "cross_entropy", {"accumulate": 2}, IMAGES, LABELS),
    "body": (shared_in_a_body, "mse", {}, X, np.ones((50, 4), np.float32)),
    "body, one weight": (shared_in_a_body, "mse", {"trainable": "w"}, X, np.ones((50, 4), np.float32)),
    "nothing": (plain, "cross_entropy", {"optimizer": SGD(0.0)}, X, Y),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_step_as_a_fresh_session(name, tmp_path):
    model, loss, options, x, y = CASES[name]
    model = model() if callable(model) else model
    t = Trainer(model, loss, **{"optimizer": Adam(1e-2), **options})
    live = t.session
    for step in range(4):
        t.save(tmp_path / "model.onnx")
        fresh = InferenceSession(str(tmp_path / "model.onnx"))
        for n in (len(x), 1, 3):
            feed = {t.input_names[0]: x[:n]}
            for a, b in zip(live.run(None, feed), fresh.run(None, feed), strict=True):
                assert a.tobytes() == b.tobytes(), f"step {step}, {n} samples"
        assert t.session is live
        t.step(x, y)


def test_what_is_frozen_stays_packed():
    """Packings are made again of what changed alone, and the old ones go."""
    t = Trainer(Sequential([Dense(64, "tanh"), Dense(64, "tanh"), Dense(4)], (8,)), "mse", trainable="head", optimizer=SGD(0.1))
    x, y = np.ones((40, 8), np.float32), np.zeros((40, 4), np.float32)
    live = t.session
    live.run(None, {t.input_names[0]: x})
    before = live.memory()
    for _ in range(3):
        t.step(x, y)
        live.run(None, {t.input_names[0]: x})
        assert live.memory() == before


def test_other_ways_to_change_weights(tmp_path):
    t, x = trainer(), {"x": X}
    name = t.input_names[0]
    x = {name: X}
    run = t.session.run
    first = run(None, x)[0]
    state = {k: v.copy() for k, v in t.model_state().items()}
    t.step(X, Y)
    second = run(None, x)[0]
    assert (first != second).any()
    t.save_checkpoint(tmp_path / "c")
    t.load_model_state(state)
    assert run(None, x)[0].tobytes() == first.tobytes()
    t.load_checkpoint(tmp_path / "c")
    assert run(None, x)[0].tobytes() == second.tobytes()
    for w in t.weights.values():
        w[...] = 0
    assert (t.session.run(None, x)[0] == 0).all()


def test_targets_of_the_other_form_before_the_first_step():
    t = trainer(plain())
    live, feed = t.session, {t.input_names[0]: X}
    live.run(None, feed)
    t.step(X, np.eye(3, dtype=np.float32)[Y])  # probabilities: the trainer begins anew
    assert live.run(None, feed)[0].tobytes() == InferenceSession(t.model()).run(None, feed)[0].tobytes()
    assert t.session is live


def test_the_session_outlives_the_trainer_and_is_pickled():
    t = trainer(plain())
    feed = {t.input_names[0]: X}
    t.step(X, Y)
    live = t.session
    expected = live.run(None, feed)[0]
    copy = pickle.loads(pickle.dumps(live))
    assert type(copy) is InferenceSession
    assert copy.run(None, feed)[0].tobytes() == expected.tobytes()
    del t
    gc.collect()
    assert live.run(None, feed)[0].tobytes() == expected.tobytes()
    assert live.get_modelmeta().producer_name == "tiercel"
    binding = live.io_binding()
    binding.bind_cpu_input(live.get_inputs()[0].name, X)
    binding.bind_output(live.get_outputs()[0].name)
    live.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tobytes() == expected.tobytes()
    assert tiercel.gradient(live) is not None


@pytest.mark.parametrize("threads", [1, 0])
def test_runs_beside_steps_give_the_weights_of_a_step(threads):
    """y = x w + b: all of w and b go down by 1 in a step, so a mix of two steps would show."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    n = 64
    values = [numpy_helper.from_array(np.zeros(s, np.float32), name) for name, s in (("w", (1, n)), ("b", (n,)))]
    infos = [[helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", s])] for k, s in (("x", 1), ("y", n))]
    model = helper.make_model(helper.make_graph(nodes, "g", *infos, values), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    t = Trainer(model, Loss("l1", reduction="sum"), SGD(1.0), threads=threads)
    x, y = np.ones((1, 1), np.float32), np.full((1, n), -1e6, np.float32)
    session, stop, seen, errors = t.session, threading.Event(), [], []

    def watch() -> None:
        last = 0.0
        try:
            while not stop.is_set():
                out = session.run(None, {"x": np.array([[0.0], [1.0], [2.0]], np.float32)})[0]
                bias, weight = out[0], out[1] - out[0]
                assert (bias == bias[0]).all() and (weight == bias[0]).all(), "weights of two steps"
                assert bias[0] <= last, "weights of an earlier step"
                last = bias[0]
                seen.append(float(last))
        except BaseException as e:
            errors.append(e)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for w in watchers:
        w.start()
    end, steps = time.monotonic() + 1, 0
    while time.monotonic() < end and not errors:
        t.step(x, y)
        steps += 1
        assert session.run(None, {"x": np.zeros((1, 1), np.float32)})[0][0, 0] == -steps  # a step that has ended is seen
    stop.set()
    for w in watchers:
        w.join()
    assert not errors, errors[0]
    assert len(set(seen)) > 3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_checkpoints_beside_steps_are_of_one_step(tmp_path, accumulate):
    """All weights go down by 1 for each batch of a step; what is pending fits the sums."""
    n = 200000
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g",
        *[[helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", n])] for k in "xy"], [numpy_helper.from_array(np.zeros(n, np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    t = Trainer(model, Loss("l1", reduction="sum"), SGD(1.0), accumulate=accumulate)
    x, y, stop, seen, errors = np.ones((1, n), np.float32), np.full((1, n), -1e6, np.float32), threading.Event(), [], []

    def save() -> None:
        try:
            while not stop.is_set():
                t.save_checkpoint(tmp_path / "c")
                meta, arrays = checkpoint.read(tmp_path / "c", "checkpoint of tiercel")
                assert (arrays["w"] == -meta["steps"] * accumulate).all(), "weights of two steps"
                assert meta["batches"] == meta["steps"] * accumulate + meta["pending"]
                assert all((a == meta["pending"] * a.flat[0]).all() for k, a in arrays.items() if k.startswith("tiercel_g"))
                seen.append(meta["batches"])
        except BaseException as e:
            errors.append(e)

    saver = threading.Thread(target=save)
    saver.start()
    end = time.monotonic() + 1
    while time.monotonic() < end and not errors:
        t.step(x, y)
    stop.set()
    saver.join()
    assert not errors, errors[0]
    assert len(set(seen)) > 1
