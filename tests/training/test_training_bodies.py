"""Training of models whose weights stand in bodies and functions."""

from __future__ import annotations

import numpy as np
import onnx
from body_models import branch, info, model_of, scan_body
from onnx import TensorProto, helper

import tiercel
from tiercel import training


def test_training_an_rnn_of_scan() -> None:
    """The sum of a sequence's signs: the loss falls, and the saved model has the trained weights in its body."""
    rng = np.random.default_rng(0)
    f = lambda *shape: (rng.standard_normal(shape) * 0.4).astype(np.float32)  # noqa: E731
    weights = {"W": f(1, 8), "U": f(8, 8), "b": f(8), "V": f(8, 1), "h0": np.zeros((16, 8), np.float32)}
    body = scan_body()
    for v in [*body.input, *body.output]:
        v.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = [
        helper.make_node("Scan", ["h0", "x"], ["h", "ys"], body=body, num_scan_inputs=1),
        helper.make_node("MatMul", ["h", "V"], ["out"]),
    ]
    x = rng.choice([-1.0, 1.0], (5, 16, 1)).astype(np.float32)
    y = np.sign(x.sum(axis=0)).astype(np.float32)
    model = model_of(nodes, {"x": x}, ["out"], weights)
    model.graph.output[0].CopyFrom(info("out", [16, 1], TensorProto.FLOAT))
    trainer = training.Trainer(
        model.SerializeToString(), loss="mse", optimizer=training.Adam(lr=0.02), trainable=["W", "U", "b", "V"]
    )
    losses = [trainer.step(x, y) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    saved = trainer.model()
    (out,) = tiercel.InferenceSession(saved).run(["out"], {"x": x})
    assert np.mean((out - y) ** 2) < 1.1 * losses[-1]


def test_training_through_if_and_a_function() -> None:
    """The branch that is taken is trained, the other one's weights stay."""
    f32 = TensorProto.FLOAT
    rng = np.random.default_rng(0)
    layer = helper.make_function(
        "local", "Layer", ["a", "W", "b"], ["o"],
        [
            helper.make_node("MatMul", ["a", "W"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["s"]),
            helper.make_node("Tanh", ["s"], ["o"]),
        ],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    then = branch([helper.make_node("Layer", ["x", "W", "b"], ["t"], domain="local")], ["t"])
    other = branch([helper.make_node("Layer", ["x", "V", "b"], ["e"], domain="local")], ["e"])
    for body in (then, other):
        body.output[0].CopyFrom(info(body.output[0].name, None, f32))
    nodes = [
        helper.make_node("If", ["c"], ["h"], then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["h", "O"], ["y"]),
    ]
    x = rng.standard_normal((32, 3)).astype("f")
    target = np.sin(x.sum(1, keepdims=True)).astype("f")
    weights = {n: rng.standard_normal(s).astype("f") for n, s in {"W": (3, 8), "V": (3, 8), "b": 8, "O": (8, 1)}.items()}
    model = model_of(nodes, {"x": x, "c": np.array(True)}, ["y"], weights, [layer])
    model.graph.output[0].CopyFrom(info("y", [32, 1], f32))
    trainer = training.Trainer(model.SerializeToString(), optimizer=training.Adam(lr=0.02))
    assert sorted(trainer.weights) == ["O", "V", "W", "b"]
    for condition, stays in ((True, "V"), (False, "W")):
        before = {n: w.copy() for n, w in trainer.weights.items()}
        optimizer_only = trainer.step([x, np.array(condition)], target)
        losses = [trainer.step([x, np.array(condition)], target) for _ in range(60)]
        assert losses[-1] < 0.3 * optimizer_only
        if condition:  # later Adam's moments move W still
            np.testing.assert_array_equal(trainer.weights[stays], before[stays])
    saved = tiercel.InferenceSession(trainer.model())
    (y,) = saved.run(["y"], {"x": x, "c": np.array(False)})
    assert np.mean((y - target) ** 2) < 1.1 * losses[-1]


def test_dropout_in_a_body() -> None:
    """y = sum over steps of dropout(w): with an identity loss the gradient of w is the mask's, one drawn for each step."""
    f32 = TensorProto.FLOAT

    def body(
        first: list[onnx.ValueInfoProto], more: list[onnx.NodeProto], out: list[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Dropout", ["w", "ratio"], ["d"]),
            helper.make_node("Add", ["s", "d"], ["s1"]),
        ]
        return helper.make_graph([*nodes, *more], "body", first, out)

    s, s1 = info("s", None, f32), info("s1", None, f32)
    scan = helper.make_node(
        "Scan", ["s0", "x"], ["total"], num_scan_inputs=1, body=body([s, info("x_t", None, f32)], [], [s1])
    )
    loop = helper.make_node(
        "Loop", ["n", "", "s0"], ["total"],
        body=body(
            [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), s],
            [helper.make_node("Identity", ["c"], ["go"])],
            [info("go", [], TensorProto.BOOL), s1],
        ),
    )  # fmt: skip
    size, steps = 400, 6
    x = np.zeros((steps, 1), np.float32)
    weights = {
        "w": np.ones(size, np.float32),
        "ratio": np.float32(0.5).reshape(()),
        "s0": np.zeros(size, np.float32),
        "n": np.array(steps),
    }
    for node in (scan, loop):
        model = model_of([node], {"x": x}, ["total"], weights)
        model.graph.output[0].CopyFrom(info("total", [size], f32))
        trainer = training.Trainer(
            model.SerializeToString(),
            loss=training.Loss("mse", reduction="sum"),
            optimizer=training.SGD(lr=0.5),
            trainable=["w"],
        )
        target = np.zeros(size, np.float32)
        trainer.step(x, target)  # w - lr * 2 * total * (sum of masks), where total is that sum: 1 - k^2
        masks = np.sqrt(np.maximum(1 - trainer.weights["w"], 0))
        np.testing.assert_allclose(masks, np.round(masks), atol=1e-3)  # zeros and twos added up
        assert len(set(np.round(masks).tolist())) >= 5 and abs(masks.mean() - steps) < 0.6
