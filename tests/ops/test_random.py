"""Random operators: statistics, seeds, and what must never be folded or merged."""

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, helper

import tiercel
from oracle import evaluate, fails_everywhere, one_node
from tiercel.errors import Error

TYPES = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.float16: TensorProto.FLOAT16, bfloat16: TensorProto.BFLOAT16}
N = 200_003


def session(op, inputs=(), attrs=None, opset=22, dynamic=False, threads=0, constants=()):
    model, feeds, _ = one_node(op, inputs, attrs, opset, dynamic=dynamic, constants=constants)
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    s = tiercel.InferenceSession(model.SerializeToString(), options)
    return lambda: s.run(None, feeds)[0]


def draw(op, inputs=(), attrs=None, **kwargs):
    return session(op, inputs, attrs, **kwargs)()


@pytest.mark.parametrize("dtype", TYPES)
def test_normal(dtype):
    x = draw("RandomNormal", attrs={"shape": [N], "mean": 3.0, "scale": 2.0, "dtype": TYPES[dtype]})
    assert x.shape == (N,) and x.dtype == dtype
    x = (x.astype(np.float64) - 3) / 2
    assert abs(x.mean()) < 0.02 and abs(x.std() - 1) < 0.02
    assert abs((x**3).mean()) < 0.1 and abs((x**4).mean() - 3) < 0.2
    assert 3.8 < np.abs(x).max() < 7
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 6.0)])
def test_uniform(dtype, low, high):
    x = draw("RandomUniform", attrs={"shape": [N], "low": low, "high": high, "dtype": TYPES[dtype]})
    assert x.shape == (N,) and x.dtype == dtype
    x = (x.astype(np.float64) - low) / (high - low)
    assert x.min() >= 0 and x.max() < 1 and x.min() < 0.005 and x.max() > 0.995 - 1 / 256
    assert abs(x.mean() - 0.5) < 0.006 and abs(x.var() - 1 / 12) < 0.003
    counts = np.bincount((x * 16).astype(int), minlength=16)
    assert np.abs(counts / N - 1 / 16).max() < 0.004


def test_uniform_of_one_value():
    assert (draw("RandomUniform", attrs={"shape": [100], "low": 2.5, "high": 2.5}) == 2.5).all()


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
@pytest.mark.parametrize("opset", [1, 22])
def test_like(op, opset):
    x = np.zeros((3, 5, 7), np.float64)
    for dynamic in (False, True):
        y = draw(op, [x], opset=opset, dynamic=dynamic)
        assert y.shape == x.shape and y.dtype == np.float64 and len(np.unique(y)) == y.size
        y = draw(op, [x.astype(np.int8)], {"dtype": TensorProto.FLOAT}, opset=opset, dynamic=dynamic)
        assert y.shape == x.shape and y.dtype == np.float32
    with pytest.raises(Error, match="should be float"):
        draw(op, [x.astype(np.int8)], opset=opset)
    assert draw(op, [np.array(["a", "b"], object)], {"dtype": TensorProto.FLOAT}, opset=opset).shape == (2,)


@pytest.mark.parametrize("dtype", TYPES)
def test_bernoulli(dtype):
    p = np.repeat(np.array([0, 0.1, 0.5, 0.9, 1, np.nan]), 20_000).astype(dtype)
    y = draw("Bernoulli", [p])
    assert y.dtype == dtype and set(np.unique(y.astype(np.float64))) == {0, 1}
    means = y.astype(np.float64).reshape(6, -1).mean(axis=1)
    assert means[0] == 0 and means[4] == 1 and means[5] == 0
    np.testing.assert_allclose(means[1:4], [0.1, 0.5, 0.9], atol=0.02)


@pytest.mark.parametrize(
    "name", ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "BOOL"]
)
def test_types_of_bernoulli(name):
    to = getattr(TensorProto, name)
    y = draw("Bernoulli", [np.full(1001, 0.5, np.float32)], {"dtype": to, "seed": 2.0}, opset=15)
    assert y.dtype == helper.tensor_dtype_to_np_dtype(to)
    want = draw("Bernoulli", [np.full(1001, 0.5, np.float32)], {"seed": 2.0}, opset=15)
    np.testing.assert_array_equal(y.astype(np.float32), want)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("opset", [7, 22])
def test_multinomial(dtype, opset):
    p = np.array([[0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01], [0, 0.5, 0.5, 0]])
    with np.errstate(divide="ignore"):
        x = (np.log(p) + np.array([[0], [20], [-30]])).astype(dtype)
    for to, np_type in ((TensorProto.INT32, np.int32), (TensorProto.INT64, np.int64)):
        y = draw("Multinomial", [x], {"sample_size": 40_000, "dtype": to}, opset=opset)
        assert y.shape == (3, 40_000) and y.dtype == np_type
        shares = np.array([np.bincount(row, minlength=4) for row in y]) / 40_000
        with np.errstate(over="ignore"):
            e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(axis=1, keepdims=True))
        np.testing.assert_allclose(shares, e / e.sum(axis=1, keepdims=True), atol=0.012)
        assert shares[2, 0] == shares[2, 3] == 0


def test_multinomial_of_odd_rows():
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf, -inf], [nan, nan, nan], [nan, 0, -inf], [0, inf, 0]], np.float32)
    y = draw("Multinomial", [x], {"sample_size": 1000})
    assert ((y >= 0) & (y < 3)).all() and set(y[0]) == {0, 1, 2} and set(y[2]) == {1} and set(y[3]) == {1}


CASES = [
    ("RandomNormal", [], {"shape": [9000]}),
    ("RandomUniform", [], {"shape": [9000]}),
    ("RandomNormalLike", [np.zeros((90, 100), np.float32)], {}),
    ("RandomUniformLike", [np.zeros((90, 100), np.float64)], {}),
    ("Bernoulli", [np.full((90, 100), 0.5, np.float32)], {}),
    ("Multinomial", [np.zeros((90, 100), np.float32)], {"sample_size": 100}),
]


@pytest.mark.parametrize(("op", "inputs", "attrs"), CASES)
def test_seed(op, inputs, attrs):
    seeded = {**attrs, "seed": 7.0}
    run = session(op, inputs, seeded)
    first = run()
    np.testing.assert_array_equal(run(), first)
    for threads in (1, 3):
        np.testing.assert_array_equal(draw(op, inputs, seeded, threads=threads), first)
    np.testing.assert_array_equal(draw(op, inputs, seeded, dynamic=True), first)
    np.testing.assert_array_equal(evaluate(one_node(op, inputs, seeded, 22)[0], inputs)[0], first)
    assert (draw(op, inputs, {**attrs, "seed": 8.0}) != first).any()
    assert (draw(op, inputs, {**attrs, "seed": float("nan")}) != first).any()


@pytest.mark.parametrize(("op", "inputs", "attrs"), CASES)
def test_every_run_draws_anew_without_a_seed(op, inputs, attrs):
    for constants in ((), tuple(range(len(inputs)))):
        model, feeds, _ = one_node(op, inputs, attrs, 22, constants=constants)
        s = tiercel.InferenceSession(model.SerializeToString())
        runs = [s.run(None, feeds)[0] for _ in range(3)]
        runs.append(tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)[0])
        for i in range(4):
            for j in range(i):
                assert (runs[i] != runs[j]).any()


@pytest.mark.parametrize(("op", "inputs", "attrs"), CASES)
def test_two_nodes_draw_different_numbers(op, inputs, attrs):
    names = [f"x{i}" for i in range(len(inputs))]
    nodes = [helper.make_node(op, names, [y], **attrs) for y in ("a", "b")]
    nodes += [helper.make_node("Identity", [y], [y + "_out"]) for y in ("a", "b")]
    graph = helper.make_graph(
        nodes, "two",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in zip(names, inputs, strict=True)],
        [onnx.ValueInfoProto(name=y + "_out") for y in ("a", "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    a, b = tiercel.InferenceSession(model.SerializeToString()).run(None, dict(zip(names, inputs, strict=True)))
    assert a.shape == b.shape and (a != b).any()


def test_nothing():
    assert draw("RandomNormal", attrs={"shape": [0, 3]}).shape == (0, 3)
    assert draw("RandomUniform", attrs={"shape": [1, 1]}).shape == (1, 1)
    assert draw("Bernoulli", [np.zeros((2, 0), np.float32)]).shape == (2, 0)
    assert draw("Multinomial", [np.zeros((0, 4), np.float32)], {"sample_size": 3}).shape == (0, 3)
    assert draw("Multinomial", [np.zeros((2, 4), np.float32)], {"sample_size": 0}).shape == (2, 0)


@pytest.mark.parametrize("n", [-1, -(2**63), 2**40, 2**62, 2**63 - 1])
def test_impossible_extents(n):
    for op in ("RandomNormal", "RandomUniform"):
        fails_everywhere("negative|memory", op, [], {"shape": [n]})
        fails_everywhere("negative|memory", op, [], {"shape": [n, n, 3]})
    fails_everywhere("negative|memory", "Multinomial", [np.zeros((2, 2), np.float32)], {"sample_size": n})


def test_impossible_attributes():
    for dtype in (TensorProto.INT32, TensorProto.STRING, 0, -1, 257, 2**40 + 1):
        fails_everywhere("dtype", "RandomNormal", [], {"shape": [2], "dtype": dtype})
        fails_everywhere("float|type", "RandomUniformLike", [np.zeros(2, np.float32)], {"dtype": dtype})
        if dtype != TensorProto.INT32:
            fails_everywhere("dtype", "Bernoulli", [np.zeros(2, np.float32)], {"dtype": dtype})
            fails_everywhere("dtype", "Multinomial", [np.zeros((2, 2), np.float32)], {"dtype": dtype})
    fails_everywhere("shape", "RandomNormal", [], {})
    fails_everywhere("rank", "RandomNormal", [], {"shape": [1] * 40})
    fails_everywhere("class", "Multinomial", [np.zeros((2, 0), np.float32)])
    fails_everywhere("batch", "Multinomial", [np.zeros(2, np.float32)])
    fails_everywhere("float", "Bernoulli", [np.zeros(2, np.int32)])
