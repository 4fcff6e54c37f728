"""Normalisations spelled as several nodes: each is recognised, gives the same numbers, and lookalikes are left alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tiercel

RNG = np.random.default_rng(5)
EPS = 1e-5


def rand(*shape):
    return RNG.normal(0.5, 1, shape).astype(np.float32)


class Builder:
    """b.Mul(x, 0.5) adds a node; numbers and arrays become constants."""

    def __init__(self, opset=17, scalar=(), dtype=np.float32):
        self.nodes, self.constants, self.opset, self.scalar, self.dtype = [], [], opset, scalar, dtype

    def const(self, v):
        if isinstance(v, str):
            return v
        if not isinstance(v, np.ndarray):
            v = np.full(self.scalar, v, self.dtype)
        self.constants.append(numpy_helper.from_array(v, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def __getattr__(self, op):
        def add(*inputs, **attrs):
            out = f"v{len(self.nodes)}"
            self.nodes.append(helper.make_node(op, [self.const(v) for v in inputs], [out], **attrs))
            return out

        return add

    def mean(self, x, axes=(-1,)):
        if self.opset < 18:
            return self.ReduceMean(x, axes=list(axes))
        return self.ReduceMean(x, np.array(axes, np.int64))

    def reshape(self, x, *shape):
        return self.Reshape(x, np.array(shape, np.int64))

    def model(self, inputs, outputs):
        kinds = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}
        ins = [helper.make_tensor_value_info(n, kinds[self.dtype], s) for n, s in inputs.items()]
        outs = [onnx.ValueInfoProto(name=o) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", ins, outs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def run(b, outputs, feeds, tmp_path, dynamic=True, tolerance=1e-5, expected=None):
    """Compares with the reference evaluator, with and without passes, and gives the operators of the optimised graph."""
    outputs = [outputs] if isinstance(outputs, str) else outputs
    shapes = {n: [f"{n}_{i}" if dynamic and i == 0 else d for i, d in enumerate(v.shape)] for n, v in feeds.items()}
    if dynamic:  # the inputs' first extents are one
        shapes = {n: ["n", *s[1:]] for n, s in shapes.items()}
    model = b.model(shapes, outputs)
    want = expected or ReferenceEvaluator(model).run(outputs, feeds)
    for level in (tiercel.GraphOptimizationLevel.ORT_DISABLE_ALL, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL,
                  tiercel.GraphOptimizationLevel.ORT_ENABLE_EXTENDED):
        options = tiercel.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        got = tiercel.InferenceSession(model.SerializeToString(), options).run(outputs, feeds)
        for g, w in zip(got, want, strict=True):
            assert g.dtype == w.dtype
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=0, atol=tolerance * max(1, np.abs(w[np.isfinite(w)]).max(initial=0)))
    return [n.op_type.split("_")[0] for n in onnx.load(options.optimized_model_filepath).graph.node]


def variance(b, x, axes, how):
    m = b.mean(x, axes)
    d = b.Sub(x, m)
    if how == "pow":
        return d, b.mean(b.Pow(d, 2.0), axes)
    if how == "twice":
        return d, b.mean(b.Pow(b.Sub(x, b.mean(x, axes)), 2.0), axes)
    if how == "square":
        return d, b.Sub(b.mean(b.Mul(x, x), axes), b.Mul(m, m))
    return d, b.mean(b.Mul(d, d), axes)


def quotient(b, d, v, how, eps=EPS):
    t = b.Add(v, eps) if how != "div" else b.Add(eps, v)
    return {
        "div": lambda: b.Div(d, b.Sqrt(t)),
        "pow": lambda: b.Div(d, b.Pow(t, 0.5)),
        "reciprocal": lambda: b.Mul(d, b.Reciprocal(b.Sqrt(t))),
        "inverse": lambda: b.Mul(b.Div(1.0, b.Sqrt(t)), d),
        "rsqrt": lambda: b.Mul(d, b.Pow(t, -0.5)),
        "sqrt_of_inverse": lambda: b.Mul(d, b.Sqrt(b.Reciprocal(t))),
    }[how]()


SQUARES = ["mul", "pow", "twice", "square"]
QUOTIENTS = ["div", "pow", "reciprocal", "inverse", "rsqrt", "sqrt_of_inverse"]


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("quotient_how", QUOTIENTS)
@pytest.mark.parametrize("opset", [11, 18])
def test_layer_norm(square, quotient_how, opset, tmp_path):
    b = Builder(opset, scalar=(1,) if opset == 11 else ())
    y = quotient(b, *variance(b, "x", [-1], square), quotient_how)
    y = b.Add(rand(33), b.Mul(y, rand(33)))
    assert run(b, y, {"x": rand(3, 4, 33)}, tmp_path) == ["LayerNormalization"]


def test_layer_norm_parts(tmp_path):
    x = {"x": rand(3, 4, 6, 8)}
    for axes, shape in [([-1], (8,)), ([2, 3], (6, 8)), ([3], (1, 1, 8)), ([-2, -1], (1, 6, 8)), ([1, 2, 3], (4, 6, 8))]:
        for scale in (True, False):
            for bias in (True, False):
                b = Builder()
                y = quotient(b, *variance(b, "x", axes, "mul"), "div")
                y = b.Mul(rand(*shape), y) if scale else y
                y = b.Add(y, rand(*shape)) if bias else y
                assert run(b, y, x, tmp_path) == ["LayerNormalization"]
    b = Builder()  # read twice: the scale stays outside
    y = quotient(b, *variance(b, "x", [-1], "mul"), "div")
    assert sorted(run(b, [b.Mul(y, rand(8)), b.Neg(y)], x, tmp_path)) == ["LayerNormalization", "Mul", "Neg"]
    b = Builder()  # the deviation is wanted too
    d, v = variance(b, "x", [-1], "mul")
    assert "LayerNormalization" in run(b, [quotient(b, d, v, "div"), d], x, tmp_path)
    b = Builder()  # not a vector along the last axis
    y = b.Mul(quotient(b, *variance(b, "x", [-1], "mul"), "div"), rand(6, 8))
    assert run(b, y, x, tmp_path) == ["LayerNormalization", "Mul"]


def test_channels_first(tmp_path):
    b = Builder()
    y = quotient(b, *variance(b, "x", [1], "pow"), "div")
    y = b.Add(b.Mul(rand(12, 1, 1), y), rand(12, 1, 1))
    assert run(b, y, {"x": rand(2, 12, 5, 9)}, tmp_path) == ["LayerNormalization"]


def test_folded(tmp_path):
    """As a batch normalisation is written out: x g + (bias - mean g)."""
    for scale in (True, False):
        b = Builder()
        m = b.mean("x")
        d = b.Sub("x", m)
        g = b.Reciprocal(b.Sqrt(b.Add(b.mean(b.Mul(d, d)), 1e-3)))
        g = b.Mul(g, rand(33)) if scale else g
        y = b.Add(b.Mul("x", g), b.Sub(rand(33), b.Mul(m, g)))
        assert run(b, y, {"x": rand(3, 4, 33)}, tmp_path) == ["LayerNormalization"]


@pytest.mark.parametrize("quotient_how", QUOTIENTS)
def test_rms_norm(quotient_how, tmp_path):
    for square in (lambda b: b.Mul("x", "x"), lambda b: b.Pow("x", 2.0)):
        b = Builder(18)
        y = b.Mul(rand(33), quotient(b, "x", b.mean(square(b)), quotient_how, 1e-6))
        assert run(b, y, {"x": rand(3, 4, 33)}, tmp_path) == ["RMSNormalization"]
    b = Builder(18)
    y = quotient(b, "x", b.mean(square(b)), quotient_how, 1e-6)
    assert run(b, y, {"x": rand(3, 4, 33)}, tmp_path) == ["RMSNormalization"]


def test_halves(tmp_path):
    x = rand(3, 4, 33).astype(np.float16)
    b = Builder(18, dtype=np.float16)
    wide = b.Cast("x", to=TensorProto.FLOAT)
    eps = np.array(1e-6, np.float32)
    r = b.Mul(wide, b.Reciprocal(b.Sqrt(b.Add(b.mean(b.Mul(wide, wide)), eps))))
    y = b.Mul(rand(33).astype(np.float16), b.Cast(r, to=TensorProto.FLOAT16))
    assert run(b, y, {"x": x}, tmp_path, tolerance=2e-3) == ["RMSNormalization"]


def test_skip(tmp_path):
    feeds = {"x": rand(3, 4, 33), "z": rand(3, 4, 33)}
    for rms in (False, True):
        for read in (False, True):
            b = Builder(18)
            s = b.Add("x", "z")
            y = quotient(b, s, b.mean(b.Mul(s, s)), "div") if rms else quotient(b, *variance(b, s, [-1], "mul"), "div")
            y = b.Mul(y, rand(33))
            y = y if rms else b.Add(y, rand(33))
            outputs = [y, b.Neg(s)] if read else [y]
            ops = run(b, outputs, feeds, tmp_path)
            assert sorted(ops) == sorted(["SkipRMSNormalization" if rms else "SkipLayerNormalization", *(["Neg"] if read else [])])
    b = Builder(17)
    s = b.Add("x", "z")
    y = b.LayerNormalization(s, rand(33), rand(33))
    assert run(b, [s, y], feeds, tmp_path) == ["SkipLayerNormalization"]
    b = Builder(17)  # broadcast: not a residual
    y = b.LayerNormalization(b.Add("x", rand(33)), rand(33), rand(33))
    assert "LayerNormalization" in run(b, y, {"x": feeds["x"]}, tmp_path)


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("how", ["instance", "layer"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("activation", [None, "Relu", "silu"])
def test_group_norm(groups, how, affine, activation, tmp_path):
    x = rand(2, 12, 5, 7)
    b = Builder()
    g = b.reshape("x", 0, groups, -1)
    if how == "instance":
        g = b.InstanceNormalization(g, np.ones(groups, np.float32), np.zeros(groups, np.float32))
    else:
        g = quotient(b, *variance(b, g, [-1], "mul"), "div")
    y = b.Reshape(g, b.Shape("x"))
    if affine:
        y = b.Add(b.Mul(y, rand(12, 1, 1)), rand(12, 1, 1))
    if activation == "silu":
        y = b.Mul(y, b.Sigmoid(y))
    elif activation:
        y = getattr(b, activation)(y)
    assert run(b, y, {"x": x}, tmp_path) == ["GroupNormalization"]


def test_scale_one_bias_zero(tmp_path):
    b = Builder()
    g = b.InstanceNormalization(b.reshape("x", 0, 3, -1), np.ones(3, np.float32), np.zeros(3, np.float32))
    y = b.Add(b.Mul(b.Reshape(g, b.Shape("x")), np.ones((1, 1), np.float32)), np.zeros((1, 1), np.float32))
    assert run(b, y, {"x": rand(2, 12, 5)}, tmp_path) == ["GroupNormalization"]


def test_group_norm_own_affine(tmp_path):
    b = Builder()
    g = b.InstanceNormalization(b.reshape("x", 0, 3, -1), rand(3), rand(3))
    y = b.Mul(b.Reshape(g, b.Shape("x")), rand(12, 1))
    assert sorted(run(b, y, {"x": rand(2, 12, 5)}, tmp_path)) == ["GroupNormalization", "Mul"]


def test_instance_norm(tmp_path):
    b = Builder(18)
    y = quotient(b, *variance(b, "x", [2, 3], "mul"), "div")
    y = b.Add(b.Mul(y, rand(12, 1, 1)), rand(1, 12, 1, 1))
    y = b.Relu(y)
    assert run(b, y, {"x": rand(2, 12, 5, 7)}, tmp_path) == ["GroupNormalization"]
    b = Builder(18)
    y = b.LeakyRelu(b.InstanceNormalization("x", rand(12), rand(12)), alpha=0.25)
    assert run(b, y, {"x": rand(2, 12, 5, 7)}, tmp_path) == ["GroupNormalization"]
    b = Builder(18)
    y = b.Relu(b.BatchNormalization("x", rand(12), rand(12), rand(12), np.abs(rand(12)) + 1))
    assert run(b, y, {"x": rand(2, 12, 5, 7)}, tmp_path) == ["BatchNormalization"]


def test_l2_norm(tmp_path):
    def length(b, how):
        if how == "sqrt":
            return b.Sqrt(b.ReduceSum(b.Mul("x", "x"), np.array([1], np.int64)))
        if how == "pow":
            return b.Pow(b.ReduceSum(b.Pow(b.Abs("x"), 2.0), np.array([1], np.int64)), 0.5)
        if how == "sumsquare":
            return b.Sqrt(b.ReduceSumSquare("x", axes=[1]))
        return b.ReduceL2("x", axes=[1])

    for how in ("sqrt", "pow", "sumsquare", "l2"):
        for divisor in (lambda b, n: b.Clip(n, 1e-6), lambda b, n: b.Max(n, 1e-6), lambda b, n: b.Add(n, 1e-3), lambda b, n: n,
                        lambda b, n: b.Expand(b.Clip(n, 1e-6), b.Shape("x"))):
            b = Builder(13)
            y = b.Div("x", divisor(b, length(b, how)))
            assert run(b, y, {"x": rand(3, 20, 5)}, tmp_path) == ["L2Normalization"]
    for quotient_how in QUOTIENTS:
        b = Builder(13)
        y = quotient(b, "x", b.ReduceSum(b.Mul("x", "x"), np.array([1], np.int64)), quotient_how, 1e-3)
        assert run(b, y, {"x": rand(3, 20, 5)}, tmp_path) == ["L2Normalization"]


LOOKALIKES = {
    "other axes": lambda b: b.Div(b.Sub("x", b.mean("x", [-1])), b.Sqrt(b.Add(b.mean(b.Mul("x", "x"), [1]), EPS))),
    "negative epsilon": lambda b: b.Div("x", b.Sqrt(b.Add(b.mean(b.Mul("x", "x")), -1e-4))),
    "cube": lambda b: b.Div("x", b.Sqrt(b.Add(b.mean(b.Pow("x", 3.0)), 30.0))),
    "other value": lambda b: b.Div(b.Neg("x"), b.Sqrt(b.Add(b.mean(b.Mul("x", "x")), EPS))),
    "square root of a square root": lambda b: b.Div("x", b.Sqrt(b.Sqrt(b.Add(b.mean(b.Mul("x", "x")), EPS)))),
    "unequal axes": lambda b: b.Div(b.Sub("x", b.mean("x", [1])), b.Sqrt(b.Add(b.mean(b.Pow(b.Sub("x", b.mean("x", [1])), 2.0), [2]), EPS))),
    "clipped above": lambda b: b.Div("x", b.Clip(b.ReduceL2("x", axes=[1]), 0.1, 2.0)),
    "another length": lambda b: b.Div("x", b.ReduceL2(b.Neg("x"), axes=[1])),
    "added to x": lambda b: b.Add(b.Mul("x", b.Reciprocal(b.Sqrt(b.Add(b.mean(b.Mul("x", "x")), EPS)))), "x"),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes(name, tmp_path):
    b = Builder()
    y = LOOKALIKES[name](b)
    ops = run(b, y, {"x": np.abs(rand(3, 4, 33)) + 0.5}, tmp_path)
    assert "LayerNormalization" not in ops and "L2Normalization" not in ops
    assert "RMSNormalization" not in ops or name in ("added to x", "unequal axes")


def test_other_group_shapes(tmp_path):
    b = Builder()  # the result is not shaped as x
    g = b.InstanceNormalization(b.reshape("x", 0, 3, -1), np.ones(3, np.float32), np.zeros(3, np.float32))
    assert "GroupNormalization" not in run(b, b.reshape(g, 0, 4, 15), {"x": rand(2, 12, 5)}, tmp_path)
    b = Builder()  # groups across images
    g = b.InstanceNormalization(b.reshape("x", 1, 4, -1), np.ones(4, np.float32), np.zeros(4, np.float32))
    assert "GroupNormalization" not in run(b, b.Reshape(g, b.Shape("x")), {"x": rand(2, 12, 5)}, tmp_path)
