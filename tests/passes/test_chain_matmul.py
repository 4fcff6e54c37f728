"""Products one after the other, strip by strip of rows: bit for bit what the separate products give."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import errors

RNG = np.random.default_rng(7)


def rand(*shape):
    return (RNG.standard_normal(shape) * 0.2).astype(np.float32)


def model(shape, widths, *, kinds=(), transposed=(), biases=True, residual=None, declared=None, extra=()):
    """x [..., K] -> a product and an activation for each width -> y; `residual`: added to the last product, "x" or another input "r"."""
    depth, last, w, nodes = shape[-1], "x", {}, []
    for i, n in enumerate(widths):
        t = i in transposed and len(shape) == 2
        w[f"w{i}"] = rand(n, depth) if t else rand(depth, n)
        if t:
            w[f"b{i}"] = rand(n)
            nodes.append(helper.make_node("Gemm", [last, f"w{i}"] + [f"b{i}"] * biases, [f"p{i}"], transB=1))
        else:
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"p{i}"]))
        last = f"p{i}"
        if biases and not t:
            w[f"b{i}"] = rand(n)
            nodes.append(helper.make_node("Add", [last, f"b{i}"], [f"s{i}"]))
            last = f"s{i}"
        if residual and i + 1 == len(widths):
            nodes.append(helper.make_node("Add", [last, residual], [f"r{i}"]))
            last = f"r{i}"
        if i < len(kinds) and kinds[i]:
            nodes.append(helper.make_node(kinds[i], [last], [f"a{i}"]))
            last = f"a{i}"
        depth = n
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    shapes = {"x": declared or shape} | ({"r": (*(declared or shape)[:-1], widths[-1])} if residual == "r" else {})
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in shapes.items()],
        [onnx.ValueInfoProto(name=n) for n in ("y", *extra)], [numpy_helper.from_array(v, n) for n, v in w.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def longest(rows, widths):
    """Products of the longest chain: those between which 2 MiB or more would lie."""
    best = run = 0
    for n in widths[:-1]:
        run = run + 1 if 4 * rows * n >= 2 << 20 else 0
        best = max(best, run)
    return best + 1 if best else 0


def check(monkeypatch, tmp_path, data, *shapes, width=None, stages=2):
    """`stages`: of the longest chain that is expected; 0: none."""
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    sessions = [tiercel.InferenceSession(data, options)]
    chains = [n for n in onnx.load(options.optimized_model_filepath).graph.node if n.op_type == "MatMulChain"]
    assert max([next(a.i for a in n.attribute if a.name == "stages") for n in chains], default=0) == stages
    sessions.append(tiercel.InferenceSession(options.optimized_model_filepath))
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 2
    sessions.append(tiercel.InferenceSession(data, options))
    monkeypatch.setenv("TIERCEL_DISABLE_PASS", "chain_matmul")
    plain = tiercel.InferenceSession(data)
    monkeypatch.delenv("TIERCEL_DISABLE_PASS")
    for shape in shapes:
        feeds = {"x": rand(*shape)}
        if width:
            feeds["r"] = rand(*shape[:-1], width)
        want = plain.run(None, feeds)
        for s in sessions:
            for got, expected in zip(s.run(None, feeds), want, strict=True):
                np.testing.assert_array_equal(got, expected)
    return sessions[0], plain


@pytest.mark.parametrize("rows", [4096, 3001, 2731])
@pytest.mark.parametrize("widths", [(256, 64), (200, 37), (384, 1), (260, 130, 3), (160, 161, 162, 163)])
def test_rows_and_widths(rows, widths, monkeypatch, tmp_path):
    kinds = ("Relu", "Tanh", "Gelu", None)[: len(widths)]
    check(monkeypatch, tmp_path, model((rows, 70), widths, kinds=kinds), (rows, 70), stages=longest(rows, widths))


@pytest.mark.parametrize("kinds", [("Gelu", None), ("Sigmoid", "Relu"), (None, None), ("HardSwish", "Tanh")])
@pytest.mark.parametrize("residual", [None, "x", "r"])
@pytest.mark.parametrize("biases", [False, True])
def test_activations_and_addends(kinds, residual, biases, monkeypatch, tmp_path):
    shape = (3, 19, 61, 48)
    width = 48 if residual else 50
    data = model(shape, (192, width), kinds=kinds, residual=residual, biases=biases)
    check(monkeypatch, tmp_path, data, shape, width=width if residual == "r" else None)


@pytest.mark.parametrize("transposed", [(0,), (1,), (0, 1)])
def test_transposed_weights(transposed, monkeypatch, tmp_path):
    check(monkeypatch, tmp_path, model((5000, 33), (129, 65), kinds=("Relu",), transposed=transposed), (5000, 33))


def test_rows_that_change(monkeypatch, tmp_path):
    """Few rows go product by product; none give none."""
    data = model((1, 7, 64), (256, 256, 2), kinds=("Relu", "Tanh", "Sigmoid"), declared=("batch", "length", 64), residual="r")
    shapes = [(1, 1, 64), (3, 1365, 64), (1, 0, 64), (16, 300, 64), (2, 37, 64), (1, 4, 64)]
    check(monkeypatch, tmp_path, data, *shapes, width=2, stages=3)


def test_what_is_not_a_number_stays_in_its_row(monkeypatch, tmp_path):
    chain, plain = check(monkeypatch, tmp_path, model((4000, 40), (160, 20), kinds=("Relu",)), (4000, 40))
    x = rand(4000, 40)
    x[7, 3], x[39, 0], x[3999, 39] = np.nan, np.inf, -np.inf
    got = chain.run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, plain.run(None, {"x": x})[0])
    assert set(np.flatnonzero(~np.isfinite(got).all(1))) <= {7, 39, 3999}


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((300, 64), (256, 64)),  # little lies between them
        ((4096, 512), (2048, 512)),  # weights that no L2 holds
        ((9000, 16), (3000, 16)),  # few rows of what lies between them would fit
    ],
)
def test_what_is_left_alone(shape, widths, monkeypatch, tmp_path):
    check(monkeypatch, tmp_path, model(shape, widths), shape, stages=0)


def test_results_that_others_read_stay(monkeypatch, tmp_path):
    data = model((4000, 40), (200, 100, 30), kinds=("Relu", "Relu"), extra=("a0",))
    check(monkeypatch, tmp_path, data, (4000, 40), stages=0)  # what lies after is little
    data = model((6000, 40), (200, 100, 30), kinds=("Relu", "Relu"), extra=("a0",))
    check(monkeypatch, tmp_path, data, (6000, 40), stages=2)


def test_wrong_rows_are_an_error(monkeypatch, tmp_path):
    chain, _ = check(monkeypatch, tmp_path, model((4000, 40), (160, 20), declared=("n", 40), kinds=("Relu",), residual="r"), (4000, 40), width=20)
    with pytest.raises(errors.RuntimeException, match="residual should have the output.s shape"):
        chain.run(None, {"x": rand(4000, 40), "r": rand(3999, 20)})
