"""Gradients through If, Loop and Scan: states, scanned values, and weights that the bodies take from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from body_models import SCAN_WEIGHTS, against_torch, branch, check, draw, if_node, info, loop_node, model_of, scan_body
from grad_cases import covers
from onnx import TensorProto, helper

from tiercel import _core


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("weights_are_inputs", [True, False])
@covers("differences", "If")
def test_if(condition: bool, weights_are_inputs: bool) -> None:
    feeds = {"c": np.array(condition), "x": draw(2, 3)}
    weights = {"w": draw(3, 3), "v": draw(3)}
    got = check(
        [if_node()],
        {**feeds, **(weights if weights_are_inputs else {})},
        ["y"],
        ["x", "w", "v"],
        {} if weights_are_inputs else weights,
    )
    assert np.any(got["w"]) == condition and np.any(got["v"]) != condition


def test_if_with_branches_of_other_shapes() -> None:
    then = branch([helper.make_node("ReduceSum", ["x", "one"], ["t"], keepdims=0)], ["t"])
    other = branch([helper.make_node("Mul", ["x", "x"], ["e"])], ["e"])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": draw(2, 3)}
        check([node], feeds, ["y"], ["x"], {"one": np.array([1])})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("dynamic", [False, True])
@covers("differences", "Scan")
def test_scan(axis: int, back: int, dynamic: bool) -> None:
    node = helper.make_node(
        "Scan",
        ["h0", "x"],
        ["h", "y"],
        name="rnn",
        body=scan_body(),
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[back],
        scan_output_axes=[-1 if axis else 0],
        scan_output_directions=[1 - back],
    )
    x = draw(5, 2, 3) if axis == 0 else draw(2, 5, 3)
    check([node], {"h0": draw(2, 4), "x": x}, ["h", "y"], ["h0", "x", "W", "U", "b"], SCAN_WEIGHTS, dynamic)


@pytest.mark.parametrize("asked", [["h"], ["y"]])
def test_scan_with_one_result_used(asked: list[str]) -> None:
    node = helper.make_node("Scan", ["h0", "x"], ["h", "y"], body=scan_body(), num_scan_inputs=1)
    check([node], {"h0": draw(2, 4), "x": draw(3, 2, 3)}, asked, ["h0", "x", "W", "U"], SCAN_WEIGHTS)


def test_scan_of_no_steps() -> None:
    node = helper.make_node("Scan", ["h0", "x"], ["h", "y"], body=scan_body(), num_scan_inputs=1)
    feeds = {"h0": draw(2, 4), "x": np.zeros((0, 2, 3))}
    got = check([node], feeds, ["h"], ["h0", "x", "W"], SCAN_WEIGHTS, dynamic=True)
    assert np.all(got["W"] == 0) and np.all(got["h0"] != 0)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@covers("differences", "Loop")
def test_loop(early: bool, constant: bool, dynamic: bool) -> None:
    count = {"n": np.array(5)}
    feeds = {"s0": draw(3), "x": draw(6, 3), "w": draw(3, seed=4), **({} if constant else count)}
    check([loop_node(early)], feeds, ["s", "items"], ["s0", "x", "w"], count if constant else {}, dynamic)


@pytest.mark.parametrize("asked", [["s"], ["items"]])
def test_loop_with_weights_and_one_result(asked: list[str]) -> None:
    check([loop_node()], {"s0": draw(3), "n": np.array(4)}, asked, ["s0", "x", "w"], {"x": draw(6, 3), "w": draw(3)})


def test_loop_of_no_steps() -> None:
    feeds = {"s0": draw(3), "x": draw(6, 3), "w": draw(3, seed=4), "n": np.array(0)}
    got = check([loop_node()], feeds, ["s"], ["s0", "x", "w"])
    assert not np.any(got["w"]) and np.all(got["s0"])


def test_loop_whose_state_grows() -> None:
    nodes = [
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["t"]),
        helper.make_node("Concat", ["t", "x"], ["s1"], axis=0),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s", [None, 2])],
        [info("go", [], TensorProto.BOOL), info("s1", [None, 2])],
    )
    node = helper.make_node("Loop", ["n", "", "s0"], ["s"], body=body)
    check([node], {"s0": draw(1, 2), "x": draw(1, 2, seed=1), "w": draw(2), "n": np.array(3)}, ["s"], ["s0", "x", "w"])


def test_if_in_scan_in_loop() -> None:
    then = branch([helper.make_node("Mul", ["p", "w"], ["t"])], ["t"])
    other = branch([helper.make_node("Sin", ["p"], ["e0"]), helper.make_node("Add", ["e0", "v"], ["e"])], ["e"])
    inner = helper.make_graph(
        [
            helper.make_node("Add", ["h", "x_t"], ["p"]),
            helper.make_node("ReduceSum", ["p"], ["total"], keepdims=0),
            helper.make_node("Greater", ["total", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["h1"], then_branch=then, else_branch=other),
            helper.make_node("Identity", ["h1"], ["y_t"]),
        ],
        "inner",
        [info("h"), info("x_t")],
        [info("h1"), info("y_t")],
    )
    outer = helper.make_graph(
        [
            helper.make_node("Scan", ["s", "x"], ["s1", "ys"], body=inner, num_scan_inputs=1),
            helper.make_node("Mul", ["ys", "u"], ["scaled"]),
            helper.make_node("Identity", ["c"], ["go"]),
        ],
        "outer",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s")],
        [info("go", [], TensorProto.BOOL), info("s1"), info("scaled")],
    )
    node = helper.make_node("Loop", ["n", "", "s0"], ["s", "ys_all"], body=outer)
    weights = {"w": draw(3), "v": draw(3, seed=2), "u": draw(3, seed=3), "zero": np.array(0.0), "n": np.array(2)}
    feeds = {"s0": draw(3, seed=9), "x": draw(4, 3)}
    check([node], feeds, ["s", "ys_all"], ["s0", "x", "w", "v", "u"], weights)


def test_local_function_with_a_body() -> None:
    function = helper.make_function(
        "local", "Cell", ["h0", "x", "W", "U", "b"], ["h", "y"],
        [helper.make_node("Scan", ["h0", "x"], ["h", "y"], body=scan_body(), num_scan_inputs=1)],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = helper.make_node("Cell", ["h0", "x", "W", "U", "b"], ["h", "y"], domain="local")
    feeds = {"h0": draw(2, 4), "x": draw(3, 2, 3)}
    check([node], feeds, ["h", "y"], ["h0", "x", "W", "U"], SCAN_WEIGHTS, functions=[function])


def test_errors_name_the_inner_node() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["h", "x_t"], ["p"]),
            helper.make_node("Hardmax", ["p"], ["u"], name="inner_hardmax"),
            helper.make_node("ReduceSum", ["u"], ["d"]),
            helper.make_node("Mul", ["p", "d"], ["h1"]),
        ],
        "body",
        [info("h"), info("x_t")],
        [info("h1")],
    )
    node = helper.make_node("Scan", ["h0", "x"], ["h"], name="outer_scan", body=body, num_scan_inputs=1)
    data = model_of([node], {"h0": draw(2), "x": draw(3, 2)}, ["h"]).SerializeToString()
    with pytest.raises(Exception, match="inner_hardmax.*outer_scan.*in its body.*inner_hardmax"):
        _core.gradient_model(data, "", [], ["x"])


def test_blocked_way_through_a_body_is_named() -> None:
    body = helper.make_graph(
        [
            helper.make_node("ArgMax", ["w"], ["index"], name="pick", axis=0, keepdims=0),
            helper.make_node("Gather", ["x_t", "index"], ["g"]),
            helper.make_node("Add", ["h", "g"], ["h1"]),
        ],
        "body",
        [info("h"), info("x_t")],
        [info("h1")],
    )
    node = helper.make_node("Scan", ["h0", "x"], ["h"], name="outer", body=body, num_scan_inputs=1)
    data = model_of([node], {"h0": draw(), "x": draw(3, 2), "w": draw(2)}, ["h"]).SerializeToString()
    with pytest.raises(
        Exception, match='pick.*cannot be differentiated.*"w" -> Scan node "outer", in its body: .*pick'
    ):
        _core.gradient_model(data, "", [], ["x", "w"])


@pytest.mark.parametrize(("depth", "works"), [(6, True), (30, False)])
def test_deep_nesting(depth: int, works: bool) -> None:
    """Many bodies in one another take no endless time."""

    def loop(k: int) -> onnx.NodeProto:
        inner = [helper.make_node("Sin", [f"s{k}"], [f"t{k}"])] if k == depth else [loop(k + 1)]
        body = helper.make_graph(
            [
                *inner,
                helper.make_node("Mul", [f"t{k}", "w"], [f"u{k}"]),
                helper.make_node("Identity", [f"c{k}"], [f"go{k}"]),
            ],
            f"body{k}",
            [info(f"i{k}", [], TensorProto.INT64), info(f"c{k}", [], TensorProto.BOOL), info(f"s{k}")],
            [info(f"go{k}", [], TensorProto.BOOL), info(f"u{k}")],
        )
        return helper.make_node(
            "Loop", ["n", "", f"s{k}"] if k == 0 else ["n", "", f"s{k - 1}"], [f"t{k - 1}"], body=body
        )

    node = loop(0)
    node.input[2] = "x"
    node.output[0] = "y"
    feeds = {"x": draw(2)}
    weights = {"n": np.array(1), "w": draw(2, seed=2) + 1.5}
    if works:
        check([node], feeds, ["y"], ["x", "w"], weights)
        return
    with pytest.raises(Exception, match="nested more than"):
        _core.gradient_model(model_of([node], feeds, ["y"], weights).SerializeToString(), "", [], ["x"])


def test_random_body_is_an_error() -> None:
    body = helper.make_graph(
        [
            helper.make_node("RandomNormalLike", ["h"], ["noise"], name="draws"),
            helper.make_node("Mul", ["h", "noise"], ["h1"]),
            helper.make_node("Add", ["h1", "x_t"], ["h2"]),
        ],
        "body",
        [info("h"), info("x_t")],
        [info("h2")],
    )
    node = helper.make_node("Scan", ["h0", "x"], ["h"], body=body, num_scan_inputs=1)
    data = model_of([node], {"h0": draw(2), "x": draw(3, 2)}, ["h"]).SerializeToString()
    with pytest.raises(Exception, match="draws.*random numbers"):
        _core.gradient_model(data, "", [], ["x"])


@covers("PyTorch", "Scan")
def test_scan_against_torch() -> None:
    def same(t: Any, v: Any) -> Any:
        h, ys = v["h0"], []
        for x in v["x"]:
            h = t.tanh(x @ v["W"] + h @ v["U"] + v["b"])
            ys.append(h * h)
        return h, t.stack(ys)

    node = helper.make_node("Scan", ["h0", "x"], ["h", "y"], body=scan_body(), num_scan_inputs=1)
    against_torch([node], {"h0": draw(2, 4), "x": draw(6, 2, 3)}, ["h", "y"], ["h0", "x", "W", "U", "b"], same, SCAN_WEIGHTS)


@pytest.mark.parametrize("condition", [True, False])
@covers("PyTorch", "If")
def test_if_against_torch(condition: bool) -> None:
    feeds = {"c": np.array(condition), "x": draw(2, 3)}
    same = lambda t, v: [t.tanh(v["x"] @ v["w"]) if condition else t.exp(v["x"] * v["v"])]  # noqa: E731
    weights = {"w": draw(3, 3), "v": draw(3)}
    against_torch([if_node()], feeds, ["y"], ["x", "w" if condition else "v"], same, weights)


@covers("PyTorch", "Loop")
def test_loop_against_torch() -> None:
    def same(t: Any, v: Any) -> Any:
        s, items = v["s0"], []
        for x in v["x"][:5]:
            before, s = s, t.sin(s * v["w"]) + x
            items.append(s * before)
        return s, t.stack(items)

    feeds = {"s0": draw(3), "x": draw(6, 3), "w": draw(3, seed=4), "n": np.array(5)}
    against_torch([loop_node()], feeds, ["s", "items"], ["s0", "x", "w"], same)
