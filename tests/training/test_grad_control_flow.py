"""Gradients through If, Loop and Scan: states, scanned values, and weights that the bodies take from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import _core, training

DOUBLE = TensorProto.DOUBLE


def info(name: str, shape: Any = None, kind: int = DOUBLE) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    functions: Any = (),
    dynamic: bool = False,
) -> onnx.ModelProto:
    inputs = [
        info(n, [None] * v.ndim if dynamic else v.shape, int(helper.np_dtype_to_tensor_dtype(v.dtype)))
        for n, v in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()],
    )
    domains = sorted({f.domain for f in functions})
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def with_value(model: onnx.ModelProto, name: str, value: np.ndarray) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for t in copy.graph.initializer:
        if t.name == name:
            t.CopyFrom(numpy_helper.from_array(value, name))
    return copy.SerializeToString()


def check(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    wrt: list[str],
    weights: dict[str, np.ndarray] | None = None,
    dynamic: bool = False,
    functions: Any = (),
) -> dict[str, np.ndarray]:
    """Gradients of the weighted sum of the outputs against central differences."""
    model = model_of(nodes, feeds, outputs, weights, functions, dynamic)
    rng = np.random.default_rng(5)
    values = tiercel.InferenceSession(model.SerializeToString()).run(outputs, feeds)
    factors = {n: rng.uniform(0.5, 1.5, np.shape(v)) for n, v in zip(outputs, values, strict=True)}
    for n, factor in factors.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(factor), f"factor_{n}"))
        model.graph.node.append(helper.make_node("Mul", [n, f"factor_{n}"], [f"scaled_{n}"]))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=f"scaled_{n}") for n in outputs)
    backward = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", [], wrt))
    got = dict(zip(wrt, backward.run([f"gradient of {n}" for n in wrt], feeds), strict=True))
    forward = tiercel.InferenceSession(model.SerializeToString())
    for name in wrt:
        x = feeds[name] if name in feeds else (weights or {})[name]
        assert got[name].shape == x.shape
        expected = np.zeros(x.size)
        for i in range(x.size):
            ends = []
            for step in (1e-5, -1e-5):
                moved = x.reshape(-1).copy()
                moved[i] += step
                moved = moved.reshape(x.shape)
                if name in feeds:
                    ys = forward.run(None, {**feeds, name: moved})
                else:
                    ys = tiercel.InferenceSession(with_value(model, name, moved)).run(None, feeds)
                ends.append(sum(float(np.sum(y)) for y in ys))
            expected[i] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got[name], expected.reshape(x.shape), rtol=1e-6, atol=1e-7, err_msg=name)
    return got


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).uniform(-1, 1, shape)


def branch(nodes: list[onnx.NodeProto], outputs: list[str], name: str = "branch") -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [info(n) for n in outputs])


def if_node(prefix: str = "") -> onnx.NodeProto:
    then = branch([helper.make_node("MatMul", ["x", "w"], ["t0"]), helper.make_node("Tanh", ["t0"], ["t1"])], ["t1"])
    other = branch([helper.make_node("Mul", ["x", "v"], ["e0"]), helper.make_node("Exp", ["e0"], ["e1"])], ["e1"])
    return helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("weights_are_inputs", [True, False])
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


def scan_body() -> onnx.GraphProto:
    """h' = tanh(x W + h U + b); gives h' and h' * x."""
    nodes = [
        helper.make_node("MatMul", ["x_t", "W"], ["a"]),
        helper.make_node("MatMul", ["h", "U"], ["r"]),
        helper.make_node("Add", ["a", "r"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["z"]),
        helper.make_node("Tanh", ["z"], ["h1"]),
        helper.make_node("Mul", ["h1", "h1"], ["y_t"]),
    ]
    return helper.make_graph(nodes, "cell", [info("h"), info("x_t")], [info("h1"), info("y_t")])


SCAN_WEIGHTS = {"W": draw(3, 4), "U": draw(4, 4), "b": draw(4)}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("dynamic", [False, True])
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


def loop_node(early: bool = False, trips: str = "n") -> onnx.NodeProto:
    """s' = sin(s * w) + x[i]; with `early` until the sum of |s| exceeds a bound."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["x_i"]),
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Sin", ["m"], ["sin"]),
        helper.make_node("Add", ["sin", "x_i"], ["s1"]),
        helper.make_node("Mul", ["s1", "s"], ["item"]),
    ]
    if early:
        nodes += [
            helper.make_node("Constant", [], ["last"], value_int=2),
            helper.make_node("Less", ["i", "last"], ["go"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["c"], ["go"]))
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s")],
        [info("go", [], TensorProto.BOOL), info("s1"), info("item")],
    )
    return helper.make_node("Loop", [trips, "", "s0"], ["s", "items"], name="steps", body=body)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
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


def sequence_nodes(position: str) -> list[onnx.NodeProto]:
    """[x, y] with z put in at a position, w taken away at another, one of them out, and all of them joined."""
    return [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s0"]),
        helper.make_node("SequenceInsert", ["s0", "z", position], ["s1"]),
        helper.make_node("SequenceInsert", ["s1", "w"], ["s2"]),
        helper.make_node("SequenceErase", ["s2", "erased"], ["s3"]),
        helper.make_node("SequenceAt", ["s3", "taken"], ["one"]),
        helper.make_node("Exp", ["one"], ["a"]),
        helper.make_node("ConcatFromSequence", ["s3"], ["joined"], axis=-1),
        helper.make_node("Sin", ["joined"], ["b"]),
    ]


@pytest.mark.parametrize("position", [0, 1, -1])
@pytest.mark.parametrize("erased", [0, 2, -1, -3])
def test_sequences(position: int, erased: int) -> None:
    feeds = {"x": draw(2, 1), "y": draw(2, 2), "z": draw(2, 3), "w": draw(2, 1, seed=7)}
    weights = {"p": np.array(position), "erased": np.array(erased), "taken": np.array(-2)}
    check(sequence_nodes("p"), feeds, ["a", "b"], ["x", "y", "z", "w"], weights)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("split", [None, np.array(2), np.array([1, 3])])
def test_split_and_optional(keepdims: int, split: Any) -> None:
    if split is not None and not keepdims:
        pytest.skip("keepdims has no meaning")
    nodes = [
        helper.make_node(
            "SplitToSequence", ["x"] if split is None else ["x", "split"], ["s"], axis=1, keepdims=keepdims
        ),
        helper.make_node("SequenceAt", ["s", "one"], ["item"]),
        helper.make_node("Optional", ["item"], ["maybe"]),
        helper.make_node("OptionalGetElement", ["maybe"], ["item2"]),
        helper.make_node("Exp", ["item2"], ["y"]),
    ]
    weights = {"one": np.array(1), **({} if split is None else {"split": split})}
    check(nodes, {"x": draw(2, 4)}, ["y"], ["x"], weights)


def test_sequence_map() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["item", "w"], ["m"]),
            helper.make_node("Mul", ["m", "each"], ["m2"]),
            helper.make_node("Tanh", ["m2"], ["out"]),
        ],
        "body",
        [info("item"), info("each")],
        [info("out")],
    )
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_node("SequenceMap", ["s", "k"], ["t"], body=body),
        helper.make_node("ConcatFromSequence", ["t"], ["z"], axis=0, new_axis=0),
    ]
    feeds = {"x": draw(2, 3), "y": draw(1, 3), "k": draw(3)}
    check(nodes, feeds, ["z"], ["x", "y", "k", "w"], {"w": draw(3, seed=3)})


def test_loop_that_appends_to_a_sequence() -> None:
    """What exporters write for a list that grows."""
    nodes = [
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Sin", ["m"], ["s1"]),
        helper.make_node("SequenceInsert", ["list", "s1"], ["list1"]),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s"), sequence("list", DOUBLE, None)],
        [info("go", [], TensorProto.BOOL), info("s1"), sequence("list1", DOUBLE, None)],
    )
    outer = [
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=DOUBLE),
        helper.make_node("Loop", ["n", "", "s0", "empty"], ["s", "all"], body=body),
        helper.make_node("ConcatFromSequence", ["all"], ["y"], axis=0, new_axis=1),
    ]
    check(outer, {"s0": draw(3), "w": draw(3, seed=1), "n": np.array(4)}, ["s", "y"], ["s0", "w"])


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


def test_scan_against_torch() -> None:
    torch = pytest.importorskip("torch")
    node = helper.make_node("Scan", ["h0", "x"], ["h", "y"], body=scan_body(), num_scan_inputs=1)
    feeds = {"h0": draw(2, 4), "x": draw(6, 2, 3)}
    data = model_of([node], feeds, ["h", "y"], SCAN_WEIGHTS).SerializeToString()
    wrt = ["h0", "x", "W", "U", "b"]
    got = tiercel.InferenceSession(_core.gradient_model(data, "", [], wrt)).run(
        [f"gradient of {n}" for n in wrt], feeds
    )
    t = {n: torch.tensor(v, requires_grad=True) for n, v in {**feeds, **SCAN_WEIGHTS}.items()}
    h, total = t["h0"], 0
    for x in t["x"]:
        h = torch.tanh(x @ t["W"] + h @ t["U"] + t["b"])
        total = total + (h * h).sum()
    (total + h.sum()).backward()
    for n, g in zip(wrt, got, strict=True):
        np.testing.assert_allclose(g, t[n].grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=n)


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
