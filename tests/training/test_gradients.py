"""Every gradient rule against central differences in double precision, with drawn shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grad_cases import SEEDS, Draw
from gradcheck import check_grad

import tiercel
from tiercel import _core

ACTIVATIONS = [
    "Relu", "LeakyRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Gelu", "Mish",
    "Sigmoid", "Tanh",
]  # fmt: skip
UNARY = [
    "Abs",
    "Neg",
    "Exp",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Erf",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Identity",
]
DOMAINS = {
    "Log": "positive",
    "Sqrt": "positive",
    "Reciprocal": "positive",
    "Asin": "small",
    "Acos": "small",
    "Atanh": "small",
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", [*ACTIVATIONS, *UNARY, *DOMAINS])
def test_pointwise(op: str, seed: int) -> None:
    d = Draw(seed)
    check_grad(op, [getattr(d, DOMAINS.get(op, "any"))(*d.shape())], dynamic=seed == 1, seed=seed)


@pytest.mark.parametrize(
    "op,attrs",
    [
        ("Gelu", {"approximate": "tanh"}), ("LeakyRelu", {"alpha": -0.3}), ("Elu", {"alpha": 0.4}), ("Elu", {"alpha": -0.4}),
        ("Celu", {"alpha": 0.6}), ("Selu", {"alpha": 1.2, "gamma": 0.7}), ("Selu", {"alpha": -1.2}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ],
)  # fmt: skip
def test_activation_attributes(op: str, attrs: dict[str, Any]) -> None:
    check_grad(op, [Draw(0).any(3, 7)], attrs)


def test_acosh() -> None:
    check_grad("Acosh", [Draw(0).positive(3, 4) + 1])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Sum", "Mean"])
def test_broadcasting(op: str, seed: int, dynamic: bool) -> None:
    d = Draw(seed)
    shape = d.shape(1, 5)
    check_grad(op, [d.any(*shape), d.any(*d.broadcast(shape))], dynamic=dynamic, seed=seed)
    check_grad(op, [d.any(*d.broadcast(shape)), d.any(*shape)], dynamic=dynamic, seed=seed)


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_extremes(op: str) -> None:
    d = Draw(0)
    values = d.distinct(5, 4, 3)
    check_grad(op, [values[0], values[1][:1], values[2][:, :1]])


def test_pow_mod_prelu_clip_where() -> None:
    d = Draw(0)
    check_grad("Pow", [d.positive(3, 4), d.any(4)])
    for p in (2.0, 3.0, 0.5, 0.0, -1.0):
        check_grad("Pow", [d.positive(3, 4), np.array(p)], constants=[1])
    check_grad("Pow", [d.any(3, 4), np.array(2.0)], constants=[1])
    check_grad("Mod", [d.positive(3, 4), d.positive(4)], {"fmod": 1}, step=1e-6)
    check_grad("PRelu", [d.any(3, 4), d.any(4)])
    bounds = [np.array(-0.5), np.array(0.7)]
    check_grad("Clip", [d.distinct(4, 5), *bounds], constants=[1, 2])
    check_grad("Clip", [d.distinct(4, 5), *bounds])
    check_grad("Where", [np.array([[True], [False]]), d.any(2, 3), d.any(3)])


def test_zero_to_the_power_of_zero() -> None:
    session = tiercel.InferenceSession(_power())
    dx, dp = session.run(["gradient of x0", "gradient of x1"], {"x0": np.zeros(2), "x1": np.array([0.0, 2.0])})
    assert dx.tolist() == [0, 0] and dp.tolist() == [0, 0]


def _power() -> bytes:
    from oracle import one_node

    model, _, _ = one_node("Pow", [np.zeros(2), np.zeros(2)], dynamic=True)
    return _core.gradient_model(model.SerializeToString(), "", [], ["x0", "x1"])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "a,b",
    [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 2)), ((3, 4), (2, 4, 2)), ((4,), (4, 5)),
     ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3))],
)  # fmt: skip
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], dynamic: bool) -> None:
    d = Draw(0)
    check_grad("MatMul", [d.any(*a), d.any(*b)], dynamic=dynamic)


@pytest.mark.parametrize("c", [(), (5,), (3, 1), (1, 5), (3, 5)])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_gemm(trans_a: int, trans_b: int, c: tuple[int, ...]) -> None:
    d = Draw(0)
    a, b = d.any(*((4, 3) if trans_a else (3, 4))), d.any(*((5, 4) if trans_b else (4, 5)))
    check_grad("Gemm", [a, b, d.any(*c)], {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0})


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    "op",
    ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp",
     "ReduceLogSum"],
)  # fmt: skip
def test_reductions(op: str, keepdims: int) -> None:
    d = Draw(0)
    values = d.positive if op == "ReduceLogSum" else d.distinct
    check_grad(op, [values(3, 4, 2), np.array([1])], {"keepdims": keepdims}, constants=[1])
    check_grad(op, [values(3, 4, 2), np.array([-1, 0])], {"keepdims": keepdims}, constants=[1], dynamic=True)
    check_grad(op, [values(3, 4)], {"keepdims": keepdims})
    check_grad(op, [values(3, 4, 2)], {"keepdims": keepdims, "axes": [1]}, opset=11)


def test_product_with_zeros() -> None:
    for zeros in ([], [1], [0, 2]):
        x = Draw(0).any(2, 4)
        x[0, zeros] = 0
        check_grad("ReduceProd", [x, np.array([1])], constants=[1])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax(op: str) -> None:
    d = Draw(0)
    for axis in (0, 1, -1):
        check_grad(op, [d.any(3, 4, 2)], {"axis": axis})
    check_grad(op, [d.any(3, 4, 2)], {"axis": 1}, opset=11)
    check_grad(op, [d.any(3, 40)])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(reduction: str) -> None:
    d = Draw(0)
    labels = np.array([[0, 3], [1, 1], [2, 0]])
    attrs = {"reduction": reduction}
    check_grad("SoftmaxCrossEntropyLoss", [d.any(3, 4), labels[:, 0]], attrs)
    check_grad("SoftmaxCrossEntropyLoss", [d.any(3, 4), labels[:, 0].astype(np.int32)], attrs, outputs=2)
    check_grad(
        "SoftmaxCrossEntropyLoss",
        [d.any(3, 4, 2), labels, d.positive(4)],
        {**attrs, "ignore_index": 1},
        constants=[2],
        outputs=2,
    )
    check_grad("NegativeLogLikelihoodLoss", [d.any(3, 4, 2), labels, d.positive(4)], attrs, constants=[2])


def test_movement() -> None:
    d, at = Draw(0), lambda *v: np.array(v, np.int64)
    check_grad("Transpose", [d.any(2, 3, 4)], {"perm": [1, 2, 0]})
    check_grad("Transpose", [d.any(2, 3, 4)])
    check_grad("Reshape", [d.any(2, 6), at(3, -1)], constants=[1])
    check_grad("Reshape", [d.any(2, 6), at(3, -1)], constants=[1], dynamic=True)
    check_grad("Flatten", [d.any(2, 3, 2)])
    check_grad("Squeeze", [d.any(2, 1, 2), at(1)])
    check_grad("Unsqueeze", [d.any(2, 2), at(1)])
    check_grad("Expand", [d.any(3, 1), at(2, 3, 4)], constants=[1])
    check_grad("Tile", [d.any(2, 3), at(2, 3)], constants=[1])
    for dynamic in (False, True):
        check_grad("Concat", [d.any(2, 3), d.any(2, 1), d.any(2, 2)], {"axis": -1}, dynamic=dynamic)
    check_grad("Split", [d.any(6, 2)], {"num_outputs": 3, "axis": 0}, outputs=3)
    check_grad("Split", [d.any(6, 2)], {"num_outputs": 3, "axis": 0}, outputs=[True, False, True])
    check_grad("Split", [d.any(2, 6), at(1, 5)], {"axis": 1}, outputs=[False, True], constants=[1])
    check_grad("Slice", [d.any(5, 6), at(1, -1), at(5, 0), at(0, 1), at(2, -2)], constants=[1, 2, 3, 4])
    check_grad("Slice", [d.any(5, 6), at(1), at(3)])
    check_grad("Slice", [d.any(5, 6)], {"starts": [1], "ends": [3], "axes": [1]}, opset=9)
    check_grad("Pad", [d.any(3, 4), at(1, 0, 2, -1)], constants=[1])
    check_grad("Pad", [d.any(3, 4), at(1, 2), np.array(0.5), at(1)], constants=[1, 2, 3])
    check_grad("CumSum", [d.any(3, 4), np.array(1)], {"exclusive": 1})
    check_grad("CumSum", [d.any(3, 4), np.array(0)], {"reverse": 1})
    check_grad("Trilu", [d.any(3, 4), np.array(1)], {"upper": 0})
    check_grad("TopK", [d.distinct(3, 5), at(2)], {"axis": 1}, outputs=2, constants=[1])
    check_grad("DepthToSpace", [d.any(2, 8, 2, 3)], {"blocksize": 2})
    check_grad("DepthToSpace", [d.any(2, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"})
    check_grad("SpaceToDepth", [d.any(2, 2, 4, 6)], {"blocksize": 2})
    check_grad("Dropout", [d.any(3, 4)])


def test_indexing() -> None:
    d, at = Draw(0), lambda *v: np.array(v, np.int64)
    check_grad("Gather", [d.any(5, 3), at(0, 4, -1, 0)])
    check_grad("Gather", [d.any(5, 200), np.array([[0, 4], [4, 4]], np.int32)])
    check_grad("Gather", [d.any(2, 5, 3), np.array([[1, 1], [0, 3]])], {"axis": 1}, dynamic=True)
    check_grad("GatherElements", [d.any(3, 4), np.array([[0, 2, 2, 1], [0, 1, 2, 1]])], {"axis": 0})
    check_grad("GatherND", [d.any(3, 4), np.array([[0, 1], [2, 2], [0, 1]])])
    check_grad("ScatterElements", [d.any(3, 4), np.array([[0, 2, 1, 1]]), d.any(1, 4)])
    check_grad(
        "ScatterElements", [d.any(3, 4), np.array([[0, 2, 2, 1], [0, 1, 0, 1]]), d.any(2, 4)], {"reduction": "add"}
    )
    check_grad("ScatterND", [d.any(3, 4), np.array([[0], [2]]), d.any(2, 4)])
    check_grad("ScatterND", [d.any(3, 4), np.array([[0], [0]]), d.any(2, 4)], {"reduction": "add"})


@pytest.mark.parametrize("seed", range(12))
def test_conv(seed: int) -> None:
    d = Draw(seed)
    rank, groups = seed % 3 + 1, int(d.rng.choice([1, 2]))
    draw = lambda low, high: d.rng.integers(low, high, rank).tolist()  # noqa: E731
    kernel, dilation, stride = draw(1, 4), draw(1, 3), draw(1, 3)
    reach = [(k - 1) * f + 1 for k, f in zip(kernel, dilation, strict=True)]
    pads = [int(d.rng.integers(0, r)) for r in reach * 2]
    space = [int(d.rng.integers(0, 4)) + r for r in reach]
    channels, outputs = int(d.rng.integers(1, 3)) * groups, int(d.rng.integers(1, 3)) * groups
    attrs = {"kernel_shape": kernel, "dilations": dilation, "strides": stride, "pads": pads, "group": groups}
    inputs = [d.any(2, channels, *space), d.any(outputs, channels // groups, *kernel), d.any(outputs)]
    check_grad("Conv", inputs, attrs, dynamic=seed % 2 == 1)
    small = [
        d.any(2, channels, *[s // 2 + 1 for s in space]),
        d.any(channels, outputs // groups, *kernel),
        d.any(outputs),
    ]
    if (
        min(
            (s // 2) * t + r - p - q
            for s, t, r, p, q in zip(space, stride, reach, pads[:rank], pads[rank:], strict=True)
        )
        > 0
    ):
        check_grad("ConvTranspose", small, attrs)


def test_conv_forms() -> None:
    d = Draw(0)
    check_grad("Conv", [d.any(2, 4, 9), d.any(4, 1, 3)], {"group": 4, "strides": [2], "auto_pad": "SAME_UPPER"})
    check_grad("Conv", [d.any(1, 2, 3, 3, 3, 3), d.any(2, 2, 2, 2, 2, 2)])
    check_grad(
        "ConvTranspose",
        [d.any(2, 3, 4, 4), d.any(3, 2, 3, 3), d.any(2)],
        {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
    )


def test_pools() -> None:
    d = Draw(0)
    window = {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]}
    check_grad("MaxPool", [d.distinct(2, 3, 5, 6)], window)
    check_grad("MaxPool", [d.distinct(2, 3, 7)], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1})
    check_grad("MaxPool", [d.distinct(1, 2, 4, 4, 4)], {"kernel_shape": [2, 2, 2], "dilations": [1, 2, 1]})
    for padded in (0, 1):
        check_grad("AveragePool", [d.any(2, 3, 5, 6)], {**window, "count_include_pad": padded, "ceil_mode": 1})
    check_grad("GlobalAveragePool", [d.any(2, 3, 4, 5)], dynamic=True)
    check_grad("GlobalMaxPool", [d.distinct(2, 3, 4, 5)])


@pytest.mark.parametrize("training", [0, 1])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_norm(shape: tuple[int, ...], training: int) -> None:
    d = Draw(0)
    inputs = [d.any(*shape), d.any(3), d.any(3), d.any(3), d.positive(3)]
    check_grad("BatchNormalization", inputs, {"training_mode": training}, constants=[3, 4])


def test_layer_norm() -> None:
    d = Draw(0)
    check_grad("LayerNormalization", [d.any(4, 3, 5), d.any(5), d.any(5)])
    check_grad("LayerNormalization", [d.any(20, 37), d.any(37), d.any(37)])
    check_grad("LayerNormalization", [d.any(4, 3, 5), d.any(3, 5)], {"axis": 1}, dynamic=True)
    check_grad("RMSNormalization", [d.any(4, 3, 5), d.any(5)])


def test_other_norms() -> None:
    d = Draw(0)
    check_grad("InstanceNormalization", [d.any(2, 3, 4, 2), d.any(3), d.any(3)])
    check_grad("GroupNormalization", [d.any(2, 6, 4, 2), d.any(6), d.any(6)], {"num_groups": 3})
    check_grad("GroupNormalization", [d.any(2, 6, 4, 2), d.any(3), d.any(3)], {"num_groups": 3}, opset=18)
    check_grad("LpNormalization", [d.any(3, 4)], {"p": 1, "axis": 0})
    check_grad("LpNormalization", [d.any(3, 4)])
    check_grad("MeanVarianceNormalization", [d.any(2, 3, 4, 2)])


def test_rest() -> None:
    d, at = Draw(0), lambda *v: np.array(v, np.int64)
    check_grad("ReverseSequence", [d.any(4, 3), at(4, 2, 1)])
    check_grad("Shrink", [d.distinct(3, 4)], {"lambd": 0.6, "bias": 0.2})


def test_by_expansion() -> None:
    d = Draw(0)
    check_grad("Einsum", [d.any(2, 3, 4), d.any(2, 4, 5)], {"equation": "bij,bjk->bik"})
    check_grad("Einsum", [d.any(2, 3, 4), d.any(5, 4)], {"equation": "bij,kj->bk"})
    check_grad("Attention", [d.any(1, 2, 3, 4), d.any(1, 2, 5, 4), d.any(1, 2, 5, 4)])
    check_grad("Attention", [d.any(1, 2, 5, 4), d.any(1, 2, 5, 4), d.any(1, 2, 5, 4)], {"is_causal": 1})
    check_grad(
        "RotaryEmbedding", [d.any(1, 2, 3, 4), d.any(5, 2), d.any(5, 2), np.array([[0, 1, 2]])], constants=[1, 2]
    )


@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(mode: str, coordinates: str) -> None:
    d = Draw(0)
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    scales, sizes = np.array([1, 1, 2, 0.7], np.float32), np.array([2, 1, 3, 9], np.int64)
    check_grad("Resize", [d.any(2, 1, 4, 5), None, scales], attrs, constants=[2])
    check_grad("Resize", [d.any(2, 1, 4, 5), None, None, sizes], attrs, constants=[3], dynamic=True)


def test_errors_name_node_and_way() -> None:
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["x", "w"], ["a"], "first"), helper.make_node("ArgMax", ["a"], ["b"], "choice"),
             helper.make_node("Cast", ["b"], ["y"], "back", to=TensorProto.FLOAT)]  # fmt: skip
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(Exception, match=r'ArgMax node "choice".*"w".*Mul node "first" -> ArgMax node "choice"'):
        tiercel.gradient(model, inputs=["w"])
    with pytest.raises(Exception, match='no value "v"'):
        tiercel.gradient(model, inputs=["v"])
