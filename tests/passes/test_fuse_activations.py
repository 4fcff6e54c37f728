"""Activations spelled as several nodes: each is recognised, gives the same numbers, and lookalikes are left alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tiercel

X = np.random.default_rng(3).normal(0, 3, (4, 33)).astype(np.float32)


class Builder:
    """b.Mul(x, 0.5) adds a node; numbers become constants of the shape `scalar`."""

    def __init__(self, scalar=()):
        self.nodes, self.constants, self.scalar = [], [], scalar

    def __getattr__(self, op):
        def add(*inputs, **attrs):
            names = []
            for v in inputs:
                if isinstance(v, (int, float)):
                    name = f"c{len(self.constants)}"
                    self.constants.append(numpy_helper.from_array(np.full(self.scalar, v, np.float32), name))
                    v = name
                names.append(v)
            out = f"v{len(self.nodes)}"
            self.nodes.append(helper.make_node(op, names, [out], **attrs))
            return out

        return add

    def model(self, out, opset=17):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 33])
        y = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def operators(model, tmp_path):
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = tiercel.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERCEL_DISABLE_PASS", "fuse_pointwise")
        tiercel.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # a node of another opset than the model's is exported as a function: Gelu_20_0
    return [n.op_type.split("_")[0] for n in onnx.load(options.optimized_model_filepath).graph.node]


def cube(b, x):
    return b.Mul(x, b.Mul(x, x))


SPELLINGS = {
    "gelu": ("Gelu", [
        lambda b: b.Mul(b.Mul("x", b.Add(b.Erf(b.Div("x", 1.41421356)), 1.0)), 0.5),
        lambda b: b.Mul(b.Mul("x", 0.5), b.Add(1.0, b.Erf(b.Mul("x", 0.70710678)))),
        lambda b: b.Div(b.Mul(b.Add(b.Erf(b.Div("x", 1.4142135)), 1.0), "x"), 2.0),
        lambda b: b.Mul(0.5, b.Mul("x", b.Add(b.Erf(b.Div("x", 1.4142135)), 1.0))),
        lambda b: b.Mul("x", b.Mul(0.5, b.Add(1.0, b.Erf(b.Div("x", 1.4142135))))),
        lambda b: b.Mul("x", b.Add(b.Mul(0.5, b.Erf(b.Div("x", 1.4142135))), 0.5)),
        lambda b: b.Add(b.Mul(0.5, "x"), b.Mul(b.Mul(0.5, "x"), b.Erf(b.Div("x", 1.4142135)))),
    ]),
    "gelu_tanh": ("Gelu", [
        lambda b: b.Mul(b.Mul(0.5, "x"), b.Add(1.0, b.Tanh(b.Mul(0.7978845608, b.Add("x", b.Mul(0.044715, b.Pow("x", 3.0))))))),
        lambda b: b.Mul(0.5, b.Mul("x", b.Add(b.Tanh(b.Mul(b.Add("x", b.Mul(cube(b, "x"), 0.044715)), 0.79788456)), 1.0))),
        lambda b: b.Mul("x", b.Mul(0.5, b.Add(b.Tanh(b.Mul(b.Mul("x", 0.79788456), b.Add(1.0, b.Mul(0.044715, b.Mul("x", "x"))))), 1.0))),
        lambda b: b.Mul("x", b.Sigmoid(b.Mul(1.59576912, b.Add("x", b.Mul(0.044715, b.Pow("x", 3.0)))))),
    ]),
    "silu": ("Swish", [
        lambda b: b.Mul("x", b.Sigmoid("x")),
        lambda b: b.Mul(b.Sigmoid("x"), "x"),
        lambda b: b.Mul(b.Sigmoid(b.Mul("x", 1.702)), "x"),
        lambda b: b.Div("x", b.Add(1.0, b.Exp(b.Neg("x")))),
        lambda b: b.Mul("x", b.Reciprocal(b.Add(b.Exp(b.Mul("x", -1.0)), 1.0))),
    ]),
    "hard_swish": ("HardSwish", [
        lambda b: b.Div(b.Mul("x", b.Clip(b.Add("x", 3.0), 0.0, 6.0)), 6.0),
        lambda b: b.Mul("x", b.Div(b.Clip(b.Add(3.0, "x"), 0.0, 6.0), 6.0)),
        lambda b: b.Mul(b.Mul("x", b.Clip(b.Add("x", 3.0), 0.0, 6.0)), 0.16666667),
        lambda b: b.Mul("x", b.HardSigmoid("x", alpha=1 / 6, beta=0.5)),
        lambda b: b.Mul("x", b.Clip(b.Add(b.Div("x", 6.0), 0.5), 0.0, 1.0)),
    ]),
    "hard_sigmoid": ("HardSigmoid", [
        lambda b: b.Div(b.Clip(b.Add("x", 3.0), 0.0, 6.0), 6.0),
        lambda b: b.Clip(b.Add(b.Mul("x", 0.2), 0.5), 0.0, 1.0),
    ]),
    "mish": ("Mish", [
        lambda b: b.Mul("x", b.Tanh(b.Softplus("x"))),
        lambda b: b.Mul(b.Tanh(b.Log(b.Add(b.Exp("x"), 1.0))), "x"),
    ]),
    "softplus": ("Softplus", [lambda b: b.Log(b.Add(1.0, b.Exp("x")))]),
    "sigmoid": ("Sigmoid", [
        lambda b: b.Div(1.0, b.Add(1.0, b.Exp(b.Neg("x")))),
        lambda b: b.Add(b.Mul(0.5, b.Tanh(b.Mul(0.5, "x"))), 0.5),
    ]),
    "relu": ("Relu", [lambda b: b.Max("x", 0.0), lambda b: b.Clip("x", 0.0)]),
    "leaky_relu": ("LeakyRelu", [lambda b: b.Max("x", b.Mul("x", 0.1)), lambda b: b.Max(b.Mul(0.1, "x"), "x")]),
}
CASES = [(name, op, i, f) for name, (op, spellings) in SPELLINGS.items() for i, f in enumerate(spellings)]


@pytest.mark.parametrize("scalar", [(), (1,), (1, 1)])
@pytest.mark.parametrize(("name", "op", "i", "spell"), CASES, ids=[f"{n}{i}" for n, _, i, _ in CASES])
def test_recognised(name, op, i, spell, scalar, tmp_path):
    b = Builder(scalar)
    model = b.model(spell(b))
    assert operators(model, tmp_path) == [op]
    (want,) = ReferenceEvaluator(model).run(None, {"x": X})
    (got,) = tiercel.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_of_an_expression(tmp_path):
    b = Builder()
    h = b.Mul(b.Abs("x"), 3.0)  # the activation of a product: its factors are not the activation's
    model = b.model(b.Exp(b.Mul(h, b.Sigmoid(h))))
    assert operators(model, tmp_path) == ["Abs", "Mul", "Swish", "Exp"]


LOOKALIKES = [
    lambda b: b.Mul(b.Mul("x", b.Add(b.Erf(b.Div("x", 1.5)), 1.0)), 0.5),
    lambda b: b.Mul(b.Mul("x", b.Add(b.Erf(b.Div("x", 1.41421356)), 1.0)), 0.6),
    lambda b: b.Mul(b.Mul("x", b.Add(b.Erf(b.Div("x", 1.41421356)), 2.0)), 0.5),
    lambda b: b.Mul(b.Abs("x"), b.Sigmoid("x")),
    lambda b: b.Mul("x", b.Clip(b.Add("x", 2.0), 0.0, 6.0)),
    lambda b: b.Max("x", b.Mul("x", 1.5)),
    lambda b: b.Mul("x", b.Add(b.Sigmoid("x"), 0.1)),
]


@pytest.mark.parametrize("spell", LOOKALIKES)
def test_lookalikes(spell, tmp_path):
    b = Builder()
    model = b.model(spell(b))
    assert not {"Gelu", "Swish", "HardSwish", "LeakyRelu", "Mish"} & set(operators(model, tmp_path))
    (want,) = ReferenceEvaluator(model).run(None, {"x": X})
    (got,) = tiercel.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": X})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
