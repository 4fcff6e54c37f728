"""ai.onnx.preview.training: Gradient in a loaded model, and the optimisers as operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from body_models import info, model_of
from onnx import TensorProto, helper

import tiercel
from tiercel.training import differentiable_operators

TRAINING = "ai.onnx.preview.training"


def session_of(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    functions: Any = (),
) -> tiercel.InferenceSession:
    model = model_of(nodes, feeds, outputs, weights, functions, domains=[TRAINING])
    return tiercel.InferenceSession(model.SerializeToString())


def run(
    nodes: list[onnx.NodeProto], feeds: dict[str, np.ndarray], outputs: list[str], **kwargs: Any
) -> list[np.ndarray]:
    return session_of(nodes, feeds, outputs, **kwargs).run(outputs, feeds)


def gradient(inputs: list[str], outputs: list[str], y: str, zs: list[str] | None = None) -> onnx.NodeProto:
    xs = inputs[: len(inputs) - len(zs or [])]
    return helper.make_node(
        "Gradient", inputs, outputs, name="grad", domain=TRAINING, xs=xs, y=y, **({"zs": zs} if zs else {})
    )


X = np.array([0.3, -0.7, 1.1])
W = np.array([1.2, 0.4, -0.5])


def test_gradient_and_what_is_fixed() -> None:
    """h = x * w is held fixed in the second one."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "x"], ["y"]),
        gradient(["x", "w"], ["dx", "dw"], "y"),
        gradient(["x", "h"], ["dx_at_h"], "y", zs=["h"]),
        gradient(["h"], ["dh"], "y"),
    ]
    dx, dw, at_h, dh = run(nodes, {"x": X, "w": W}, ["dx", "dw", "dx_at_h", "dh"])
    np.testing.assert_allclose(dx, 2 * X * W)
    np.testing.assert_allclose(dw, X * X)
    np.testing.assert_allclose(at_h, X * W)
    np.testing.assert_allclose(dh, X)


def test_initializers_and_skipped_outputs() -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"]), gradient(["x", "w"], ["", "dw"], "y")]
    (dw,) = run(nodes, {"x": X}, ["dw"], weights={"w": W})
    np.testing.assert_allclose(dw, X)


def test_at_other_values() -> None:
    nodes = [
        helper.make_node("Sin", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "w"], ["y"]),
        helper.make_node("Gradient", ["x1", "w"], ["dx", "dw"], domain=TRAINING, xs=["x", "w"], y="y"),
    ]
    other = X + 1
    y, dx, dw = run(nodes, {"x": X, "w": W, "x1": other}, ["y", "dx", "dw"])
    np.testing.assert_allclose(y, np.sin(X) * W)
    np.testing.assert_allclose(dx, np.cos(other) * W)
    np.testing.assert_allclose(dw, np.sin(other))


def test_one_value_for_two() -> None:
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["y"]),
        helper.make_node("Gradient", ["p", "p"], ["da", "db"], domain=TRAINING, xs=["a", "b"], y="y"),
    ]
    da, db = run(nodes, {"a": X, "b": W, "p": X + 2}, ["da", "db"])
    np.testing.assert_allclose(da, X + 2)
    np.testing.assert_allclose(db, X + 2)


def test_higher_orders() -> None:
    """x^4: 4x^3, 12x^2, 24x; exp(x w) likewise."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["x2"]),
        helper.make_node("Mul", ["x2", "x2"], ["y"]),
        gradient(["x"], ["d1"], "y"),
        gradient(["x"], ["d2"], "d1"),
        gradient(["x"], ["d3"], "d2"),
        helper.make_node("Mul", ["x", "w"], ["p"]),
        helper.make_node("Exp", ["p"], ["e"]),
        gradient(["x", "w"], ["e1"], "e", zs=["w"]),
        gradient(["x", "w"], ["e2", "e11"], "e1"),
    ]
    d1, d2, d3, e1, e2, e11 = run(nodes, {"x": X, "w": W}, ["d1", "d2", "d3", "e1", "e2", "e11"])
    np.testing.assert_allclose(d1, 4 * X**3)
    np.testing.assert_allclose(d2, 12 * X**2)
    np.testing.assert_allclose(d3, 24 * X)
    e = np.exp(X * W)
    np.testing.assert_allclose(e1, W * e)
    np.testing.assert_allclose(e2, W * W * e)
    np.testing.assert_allclose(e11, e + X * W * e)


def test_a_step_of_training_in_the_model() -> None:
    """The linear model of the standard's text, with Momentum on it: the loss falls over runs."""
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((20, 3)).astype("f"), rng.standard_normal((20, 1)).astype("f")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Sub", ["y", "t"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["d2"]),
        helper.make_node("ReduceMean", ["d2"], ["loss"], keepdims=0),
        gradient(["w", "x", "t"], ["dw"], "loss", zs=["x", "t"]),
        helper.make_node(
            "Momentum", ["R", "T", "w", "dw", "v"], ["w1", "v1"], domain=TRAINING,
            alpha=0.9, beta=1.0, norm_coefficient=0.0, mode="standard",
        ),
    ]  # fmt: skip
    w, v = np.zeros((3, 1), "f"), np.zeros((3, 1), "f")
    feeds = {"x": x, "t": t, "w": w, "v": v, "R": np.float32(0.05), "T": np.array(0)}
    feeds = {n: np.asarray(a) for n, a in feeds.items()}
    session = session_of(nodes, feeds, ["loss", "w1", "v1"])
    for step in range(200):
        loss, feeds["w"], feeds["v"] = session.run(["loss", "w1", "v1"], {**feeds, "T": np.array(step)})
    best = np.linalg.lstsq(x, t, rcond=None)[0]
    np.testing.assert_allclose(feeds["w"], best, atol=1e-3)
    np.testing.assert_allclose(loss, np.mean((x @ best - t) ** 2), rtol=1e-4)


def test_inside_a_function() -> None:
    function = helper.make_function(
        "local", "Slope", ["a"], ["slope"],
        [helper.make_node("Mul", ["a", "a"], ["square"]), gradient(["a"], ["slope"], "square")],
        [helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Slope", ["x"], ["s"], domain="local"),
        helper.make_node("Slope", ["w"], ["s2"], domain="local"),
    ]
    s, s2 = run(nodes, {"x": X, "w": W}, ["s", "s2"], functions=[function])
    np.testing.assert_allclose(s, 2 * X)
    np.testing.assert_allclose(s2, 2 * W)


def scan(body_weight: str = "w") -> onnx.NodeProto:
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["h", body_weight], ["m"]),
            helper.make_node("Sin", ["m"], ["s"]),
            helper.make_node("Add", ["s", "x_t"], ["h1"]),
        ],
        "body",
        [info("h"), info("x_t")],
        [info("h1")],
    )
    return helper.make_node("Scan", ["h0", "x"], ["h"], body=body, num_scan_inputs=1)


@pytest.mark.parametrize("constant", [False, True])
def test_second_order_through_a_scan(constant: bool) -> None:
    nodes = [scan(), gradient(["w"], ["dw"], "h"), gradient(["w"], ["d2w"], "dw")]
    feeds = {"h0": np.array(0.4), "x": np.array([0.3, -0.2, 0.9])}
    w = np.array(0.8)

    def at(w: np.ndarray) -> list[np.ndarray]:
        if constant:
            return run(nodes, feeds, ["h", "dw", "d2w"], weights={"w": w})
        return run(nodes, {**feeds, "w": w}, ["h", "dw", "d2w"])

    up, down, (_, dw, d2w) = at(w + 1e-5), at(w - 1e-5), at(w)
    np.testing.assert_allclose(dw, (up[0] - down[0]) / 2e-5, rtol=1e-6)
    np.testing.assert_allclose(d2w, (up[1] - down[1]) / 2e-5, rtol=1e-6)


def test_in_a_branch() -> None:
    then = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["q"]), gradient(["x"], ["d"], "q")], "then", [], [info("d")]
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [], [info("e")])
    node = helper.make_node("If", ["c"], ["out"], then_branch=then, else_branch=other)
    for c in (True, False):
        (out,) = run([node], {"c": np.array(c), "x": X}, ["out"])
        np.testing.assert_allclose(out, 2 * X if c else -X)


def error(nodes: list[onnx.NodeProto], feeds: dict[str, np.ndarray], outputs: list[str]) -> str:
    with pytest.raises(Exception, match=r"\w") as e:
        session_of(nodes, feeds, outputs)
    return str(e.value)


def test_errors() -> None:
    mul = helper.make_node("Mul", ["x", "w"], ["y"])
    feeds = {"x": X, "w": W}
    node = helper.make_node("Gradient", ["x"], ["d"], name="g", domain=TRAINING, xs=["nothing"], y="y")
    assert '"nothing"' in error([mul, node], feeds, ["d"])
    node = helper.make_node("Gradient", ["x"], ["d"], name="g", domain=TRAINING, xs=["x", "w"], y="y")
    assert "2 inputs, not 1" in error([mul, node], feeds, ["d"])
    node = helper.make_node("Gradient", ["x"], ["d", "e"], name="g", domain=TRAINING, xs=["x"], y="y")
    assert "2 outputs" in error([mul, node], feeds, ["d"])
    node = helper.make_node("Gradient", ["x"], ["d"], name="g", domain=TRAINING, y="y")
    assert "xs" in error([mul, node], feeds, ["d"])
    node = helper.make_node("Gradient", ["x", "x"], ["d", "e"], name="g", domain=TRAINING, xs=["x", "x"], y="y")
    assert "twice" in error([mul, node], feeds, ["d"])
    node = helper.make_node("Gradient", [], ["d"], name="g", domain=TRAINING, xs=["x"], y="y")
    assert "1 inputs, not 0" in error([mul, node], feeds, ["d"])
    hardmax = helper.make_node("Hardmax", ["x"], ["u"], name="the_hardmax")
    text = error([hardmax, gradient(["x"], ["d"], "u")], feeds, ["d"])
    assert "the_hardmax" in text and "grad" in text
    whole = helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)
    assert "only floats" in error([whole, gradient(["x"], ["d"], "i")], feeds, ["d"])


def test_a_rule_without_a_derivative_of_its_own_says_so() -> None:
    nodes = [
        helper.make_node("MaxPool", ["p"], ["m"], name="pool", kernel_shape=[2, 2]),
        helper.make_node("Mul", ["m", "m"], ["y"]),
        gradient(["p"], ["d"], "y"),
        gradient(["p"], ["d2"], "d"),
    ]
    feeds = {"p": np.random.default_rng(0).standard_normal((1, 1, 4, 4))}
    if ("ai.tiercel", "MaxPoolGrad") in differentiable_operators():
        pytest.skip("it has one")
    text = error(nodes, feeds, ["d2"])
    assert "ai.tiercel.MaxPoolGrad" in text and 'Gradient node "grad"' in text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", [0, 3])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("op", ["Adagrad", "Adam", "Momentum", "nesterov"])
def test_optimizers(op: str, count: int, t: int, dtype: str) -> None:
    """Against the standard's pseudo code."""
    rng = np.random.default_rng(count)
    moments = 2 if op == "Adam" else 1
    draw = lambda k: [np.asarray(rng.uniform(0.1, 1, (3, i + 2)), dtype) for i in range(k)]  # noqa: E731
    x, g, v, h = draw(count), draw(count), draw(count), draw(count) if moments == 2 else []
    r, decay, post, alpha, beta, eps, factor = 0.1, 0.01, 0.02, 0.9, 0.8, 1e-3, 0.05
    attrs: dict[str, Any] = {"norm_coefficient": decay}
    if op == "Adagrad":
        attrs |= {"decay_factor": factor, "epsilon": eps}
    elif op == "Adam":
        attrs |= {"norm_coefficient_post": post, "alpha": alpha, "beta": beta, "epsilon": eps}
    else:
        attrs |= {"alpha": alpha, "beta": beta, "mode": "nesterov" if op == "nesterov" else "standard"}
    feeds = {"R": np.asarray(r, dtype), "T": np.array(t)}
    for name, group in zip("xgvh", (x, g, v, h), strict=True):
        feeds |= {f"{name}{i}": a for i, a in enumerate(group)}
    outputs = [f"{k}{i}_new" for k in "xvh"[: 1 + moments] for i in range(count)]
    kind = "Momentum" if op == "nesterov" else op
    got = run([helper.make_node(kind, list(feeds), outputs, domain=TRAINING, **attrs)], feeds, outputs)
    for i in range(count):
        grad = decay * x[i] + g[i]
        if op == "Adagrad":
            v1 = v[i] + grad * grad
            want = [x[i] - r / (1 + t * factor) * grad / (np.sqrt(v1) + eps), v1]
        elif op == "Adam":
            v1, h1 = alpha * v[i] + (1 - alpha) * grad, beta * h[i] + (1 - beta) * grad * grad
            rate = r * np.sqrt(1 - beta**t) / (1 - alpha**t) if t else r
            want = [(1 - post) * (x[i] - rate * v1 / (np.sqrt(h1) + eps)), v1, h1]
        else:
            v1 = alpha * v[i] + (beta if t else 1) * grad
            want = [x[i] - r * (grad + alpha * v1 if op == "nesterov" else v1), v1]
        for k, expected in enumerate(want):
            np.testing.assert_allclose(got[k * count + i], expected, rtol=1e-5)


def test_optimizers_of_wrong_input() -> None:
    feeds = {"R": np.array(0.1), "T": np.array(0), "x": X, "g": X, "v": X[:2]}
    node = helper.make_node(
        "Momentum",
        list(feeds),
        ["x1", "v1"],
        name="m",
        domain=TRAINING,
        alpha=0.9,
        beta=1.0,
        norm_coefficient=0.0,
        mode="standard",
    )
    with pytest.raises(Exception, match="shape"):
        run([node], feeds, ["x1"])
    node.input.pop()
    assert "3 inputs" in error([node], {n: feeds[n] for n in "RTxg"}, ["x1"])
