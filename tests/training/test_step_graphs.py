"""Graphs of training steps where something is unusual: nodes that a file may hold, bodies within bodies, results that others read."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import _core
from tiercel.training import SGD, Dense, Sequential, Trainer


def float_info(name, shape=None):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights])
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("ai.tiercel", 1), helper.make_opsetid("ai.onnx.preview.training", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "message"),
    [
        ("Adam", ["lr", "step", "", "", "p", "g", "m", "v"], ["p1"], "3 outputs, got 1"),
        ("Adam", ["lr", "step", "", "", "p", "g", "m", "v"], ["p1", "", "v1"], "output 1 is missing"),
        ("Sgd", ["", "step", "", "", "p", "g"], ["p1"], "input 0 is missing"),
        ("Sgd", ["lr", "step", "", "", "p", "g", "m"], ["p1"], "lists of one length"),
        ("CrossEntropyGrad", ["d", "x", "few"], ["y"], "does not fit"),
        ("CrossEntropyGrad", ["d", "x", "target", "lr"], ["y"], "1000 weights, one a class, got 1"),
        ("CrossEntropyGrad", ["d", "p", "target"], ["y"], "two axes"),
        ("CrossEntropyGrad", ["d", "x", "bytes"], ["y"], "int32 or int64"),
    ],
)
def test_operators_of_steps_check_what_they_are_given(op, inputs, outputs, message):
    feeds = {
        "lr": np.float32([1])[0], "d": np.float32(1), "step": np.int64(1), "target": np.zeros(4, np.int64), "few": np.zeros(3, np.int64),
        "bytes": np.zeros(4, np.int8), "x": np.zeros((4, 1000), np.float32), **{n: np.zeros(5, np.float32) for n in "pgmv"},
    }  # fmt: skip
    used = [n for n in inputs if n]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(feeds[n]).dtype), np.shape(feeds[n])) for n in used]
    data = model_of([helper.make_node(op, inputs, outputs, domain="ai.tiercel")], infos, [onnx.ValueInfoProto(name=n) for n in outputs if n])
    with pytest.raises(Exception, match=message):
        tiercel.InferenceSession(data).run(None, {n: np.asarray(feeds[n]) for n in used})


def test_gradients_through_deep_bodies_take_no_time():
    """States that move on by one place, in bodies within bodies: each is looked at once."""
    states, depth = 6, 9

    def loop(level):
        names = [f"s{level}_{i}" for i in range(states)]
        inside = [f"i{level}_{i}" for i in range(states)]
        if level == depth:
            nodes, out = [], inside
        else:
            node = loop(level + 1)
            node.input[2:] = inside
            nodes, out = [node], list(node.output)
        moved = [f"m{level}_{i}" for i in range(states)]
        nodes += [helper.make_node("Identity", [out[i - 1]], [moved[i]]) for i in range(states)]
        nodes.append(helper.make_node("Identity", [f"c{level}"], [f"d{level}"]))
        body = helper.make_graph(
            nodes, f"body{level}",
            [helper.make_tensor_value_info(f"n{level}", TensorProto.INT64, []), helper.make_tensor_value_info(f"c{level}", TensorProto.BOOL, []),
             *(float_info(n, []) for n in inside)],
            [helper.make_tensor_value_info(f"d{level}", TensorProto.BOOL, []), *(float_info(n, []) for n in moved)],
        )  # fmt: skip
        return helper.make_node("Loop", ["trips", "", *[""] * states], [f"{n}_out" for n in names], body=body)

    node = loop(1)
    node.input[2:] = ["x"] * states
    nodes = [node, helper.make_node("Gradient", ["x"], ["dx"], domain="ai.onnx.preview.training", xs=["x"], y="s1_0_out")]
    data = model_of(nodes, [float_info("x", [])], [float_info("dx", [])], [("trips", np.int64(1))])
    (dx,) = tiercel.InferenceSession(data).run(None, {"x": np.float32(3)})
    assert dx == 1


def test_convolution_of_an_image_without_pixels():
    data = model_of([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1])], [float_info("x", [1, 16, "l"]), float_info("w", [32, 16, 1])], [float_info("y")])
    (y,) = tiercel.InferenceSession(data).run(None, {"x": np.zeros((1, 16, 0), np.float32), "w": np.ones((32, 16, 1), np.float32)})
    np.testing.assert_array_equal(y, np.zeros((1, 32, 2), np.float32))


def norm_model(opset, outputs, extra=(), results=("y",)):
    weights = [(n, np.full(3, v, np.float32)) for n, v in (("scale", 1), ("shift", 0), ("mean", 0), ("var", 1))]
    nodes = [helper.make_node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], outputs, name="norm"), *extra]
    return model_of(nodes, [float_info("x", ["n", 3])], [float_info(r) for r in results], weights, opset)


def test_statistics_that_others_read():
    """Saved statistics that nothing reads are left out; those that something reads have no meaning in a training session."""
    x, y = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32), np.zeros((8, 3), np.float32)
    trainer = Trainer(norm_model(8, ["y", "m", "v", "sm", "sv"]), loss="mse", optimizer=SGD(0.1))
    assert trainer.step(x, y) > trainer.step(x, y)
    read = helper.make_node("Add", ["y", "sm"], ["z"])
    with pytest.raises(Exception, match='"norm".*result 3, "sm", is used elsewhere'):
        Trainer(norm_model(8, ["y", "m", "v", "sm", "sv"], [read], ["z"]), loss="mse", optimizer=SGD(0.1)).step(x, y)


def test_tables_in_the_forward_are_no_weights():
    table = np.array([-1e9, 0, 1], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(table)),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "table"], ["y"]),
    ]
    w = np.eye(3, dtype=np.float32)
    data = model_of(nodes, [float_info("x", ["n", 3])], [float_info("y")], [("w", w)])
    assert _core.trainable_weights(data) == ["w"]
    # A file that keeps everything in Constant nodes is trained all the same.
    nodes.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)))
    assert sorted(_core.trainable_weights(model_of(nodes, [float_info("x", ["n", 3])], [float_info("y")]))) == ["table", "w"]


def test_models_are_taken_while_steps_are_made():
    """The end of a step lets go of numpy's arrays, which takes the interpreter's lock; a copy of the model waits for the step."""
    trainer = Trainer(Sequential([Dense(64, "tanh"), Dense(3)], input_shape=(16,), seed=0), loss="mse", optimizer=SGD(0.01))
    rng = np.random.default_rng(0)

    def steps():
        for _ in range(300):
            trainer.step(rng.standard_normal((8, 16)).astype(np.float32), np.zeros((8, 3), np.float32))

    thread = threading.Thread(target=steps, daemon=True)
    thread.start()
    while thread.is_alive():
        tiercel.InferenceSession(trainer.model())
    thread.join()
    assert trainer.steps == 300
