"""Elementwise operators against the reference evaluator: dtypes, opsets, broadcasting, special values, integer rules."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from oracle import check, evaluate, one_node

RNG = np.random.default_rng(7)
F32_SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 88.0, -88.0, 1e-3, 100.0], np.float32)
FLOATS = [np.float32, np.float64, np.float16]
SIGNED = [np.int8, np.int16, np.int32, np.int64]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]
INTS = SIGNED + UNSIGNED


def values(shape, dtype, low=-5, high=5):
    if np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16:
        return RNG.uniform(low, high, shape).astype(dtype)
    if dtype == np.bool_:
        return RNG.integers(0, 2, shape).astype(bool)
    return RNG.integers(0 if np.issubdtype(dtype, np.unsignedinteger) else low, high, shape).astype(dtype)


def quiet(*args, **kwargs):
    with np.errstate(all="ignore"):
        return check(*args, **kwargs)


UNARY = {  # name: first opset, domain of values
    "Abs": (6, -5, 5), "Neg": (6, -5, 5), "Exp": (6, -5, 5), "Log": (6, 0.01, 5), "Sqrt": (6, 0, 5), "Reciprocal": (6, 0.2, 5),
    "Floor": (6, -5, 5), "Ceil": (6, -5, 5), "Round": (11, -5, 5), "Sign": (9, -5, 5), "Sin": (7, -5, 5), "Cos": (7, -5, 5),
    "Tan": (7, -1.4, 1.4), "Asin": (7, -1, 1), "Acos": (7, -1, 1), "Atan": (7, -5, 5), "Sinh": (9, -5, 5), "Cosh": (9, -5, 5),
    "Tanh": (6, -5, 5), "Asinh": (9, -5, 5), "Acosh": (9, 1, 5), "Atanh": (9, -0.99, 0.99), "Erf": (9, -3, 3), "Sigmoid": (6, -5, 5),
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("dtype", FLOATS)
def test_unary(op, dtype):
    since, low, high = UNARY[op]
    for shape in [(), (0, 3), (7,), (3, 5, 11), (2, 1000)]:
        quiet(op, [values(shape, dtype, low, high)], opset=max(since, 13), ulp=4, atol=1e-7)
    quiet(op, [values((5,), dtype, low, high)], opset=since, ulp=4, atol=1e-7)


@pytest.mark.parametrize("op", UNARY)
def test_unary_special_values(op):
    quiet(op, [F32_SPECIAL], ulp=4, atol=1e-7)


@pytest.mark.parametrize("dtype", INTS)
def test_integer_unary(dtype):
    info = np.iinfo(dtype)
    x = np.array([0, 1, 2, info.max, info.min, 3], dtype)
    for op in ["Abs", "Sign"] + (["Neg"] if dtype in SIGNED else []):
        quiet(op, [x], opset=13)
    quiet("BitwiseNot", [x], opset=18)
    if dtype in SIGNED:
        quiet("Relu", [x], opset=14)
        quiet("Relu", [values((3000,), dtype)], opset=14)


ACTIVATIONS = [
    ("Relu", {}, 6), ("LeakyRelu", {"alpha": 0.1}, 6), ("LeakyRelu", {}, 16), ("Elu", {"alpha": 0.7}, 6), ("Elu", {}, 22), ("Selu", {}, 6),
    ("Selu", {"alpha": 1.1, "gamma": 0.9}, 6), ("ThresholdedRelu", {"alpha": 0.4}, 10), ("Softplus", {}, 6), ("Softsign", {}, 6),
    ("HardSigmoid", {}, 6), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 6), ("HardSwish", {}, 14), ("Gelu", {}, 20),
    ("Gelu", {"approximate": "tanh"}, 20), ("Mish", {}, 18), ("Swish", {}, 24), ("Swish", {"alpha": 1.7}, 24),
    ("Shrink", {"bias": 0.5, "lambd": 1.5}, 9), ("Shrink", {}, 9),
]


@pytest.mark.parametrize(("op", "attrs", "opset"), ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_activation(op, attrs, opset, dtype):
    x = values((3, 700), dtype)
    expected = None
    if dtype == np.float16:  # the reference works in float16, step by step; the engine rounds once
        model, feeds, names = one_node(op, [x.astype(np.float32)], attrs, opset)
        expected = [ReferenceEvaluator(model).run(names, {"x0": x.astype(np.float32)})[0].astype(np.float16)]
    quiet(op, [x], attrs, opset=opset, ulp=4, atol=1e-6, expected=expected)


def test_celu():
    quiet("Celu", [values((3, 70), np.float32)], {"alpha": 1.3}, opset=12, atol=1e-6)


def test_bfloat16():
    x = values((4, 300), ml_dtypes.bfloat16)
    y = values((300,), ml_dtypes.bfloat16)
    for op in ["Add", "Sub", "Mul", "Div"]:
        quiet(op, [x, y], opset=14, ulp=1)
    quiet("Exp", [x], opset=13, ulp=1)
    quiet("Abs", [x], opset=13, ulp=0)


def test_shrink_integers():
    for dtype in INTS:
        quiet("Shrink", [values((30,), dtype)], {"bias": 0.0, "lambd": 1.5}, opset=9)


def test_is_nan_is_inf():
    for dtype in [np.float32, np.float64]:
        x = F32_SPECIAL.astype(dtype)
        quiet("IsNaN", [x], opset=13)
        quiet("IsInf", [x], opset=10)
        quiet("IsInf", [x], {"detect_negative": 0}, opset=10)
        quiet("IsInf", [x], {"detect_positive": 0}, opset=20)
    for dtype in [np.float16, ml_dtypes.bfloat16]:
        x = F32_SPECIAL.astype(dtype)
        quiet("IsNaN", [x], opset=20, expected=[np.isnan(F32_SPECIAL)])
        quiet("IsInf", [x], opset=20, expected=[np.isinf(F32_SPECIAL)])


def test_not():
    quiet("Not", [values((3, 7), np.bool_)], opset=6)


SHAPES = [
    ((), ()), ((1,), ()), ((5,), (1,)), ((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 4, 5), (2, 1, 1, 5)),
    ((1, 64), (50, 1)), ((7, 300), (300,)), ((7, 300), (7, 1)), ((4, 1, 130), (1, 6, 1)), ((2, 16, 9, 16), (2, 16, 1, 16)),
    ((3, 40, 16), (40, 16)), ((5, 33, 16), (16,)), ((5, 33, 16), (5, 1, 16)), ((0, 3), (3,)), ((3, 0), (3, 1)), ((1, 1), (6, 700)),
    ((2, 1, 3, 1, 5), (1, 4, 1, 2, 1)), ((1000, 3), (3,)), ((1000, 3), (1000, 1)), ((3, 2000), ()), ((), (70000,)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_broadcasting(a, b):
    for dtype in [np.float32, np.float64, np.int32, np.float16]:
        x, y = values(a, dtype), values(b, dtype)
        quiet("Add", [x, y], opset=14)
        quiet("Sub", [x, y], opset=14)
        quiet("Sub", [y, x], opset=14)
        quiet("Mul", [y, x], opset=14)
        quiet("Less", [x, y], opset=13)
    x, y = values(a, np.float32), values(b, np.float32)
    quiet("Div", [x, y + 10], opset=14)
    quiet("PRelu", [np.broadcast_to(x, np.broadcast_shapes(a, b)).copy(), y], opset=16)
    c = RNG.integers(0, 2, b).astype(bool)
    quiet("Where", [c, x, y], opset=16)
    quiet("Where", [c, y, x], opset=16)
    z = values((), np.float32)
    for op in ["Max", "Min", "Sum"]:
        quiet(op, [x, y, z], opset=13, atol=1e-6)
    quiet("Mean", [x, y, z], opset=13, expected=[(x + y + z) / np.float32(3)], atol=1e-6)


@pytest.mark.parametrize("dtype", INTS)
def test_integer_arithmetic(dtype):
    info = np.iinfo(dtype)
    x = np.array([7, 0, 3, info.max, info.min, 100, 5], dtype)
    y = np.array([2, 5, 3, 1, 1, 7, 3], dtype)
    for op in ["Add", "Sub", "Mul", "Div"]:
        quiet(op, [x, y], opset=14)
    quiet("Mod", [x, y], opset=13)
    quiet("Mod", [x, y], {"fmod": 1}, opset=13)
    if dtype in SIGNED:
        a, b = np.meshgrid(np.arange(-7, 8, dtype=dtype), np.array([-3, -2, -1, 1, 2, 5], dtype))
        for op in ["Div", "Mod"]:
            quiet(op, [a, b], opset=14)
        quiet("Mod", [a, b], {"fmod": 1}, opset=13)
        quiet("Div", [x, -y], opset=14)
    zero = np.zeros_like(x)
    quiet("Div", [x, zero], opset=14, expected=[zero])
    quiet("Mod", [x, zero], opset=14, expected=[zero])
    for op in ["Max", "Min"]:
        quiet(op, [x, y], opset=13)
    for op in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]:
        quiet(op, [x, y], opset=18)
    for op in ["Equal", "Less", "Greater"]:
        quiet(op, [x, y], opset=13)
    for op in ["LessOrEqual", "GreaterOrEqual"]:
        quiet(op, [x, y], opset=16)
    shift = np.array([0, 1, 2, 3, 7, 4, 5], dtype)
    for direction in ["LEFT", "RIGHT"]:
        if dtype in UNSIGNED:
            quiet("BitShift", [x, shift], {"direction": direction}, opset=11)
        quiet("BitShift", [x, shift], {"direction": direction}, opset=28)
    quiet("BitShift", [x, np.full_like(x, 100)], {"direction": "RIGHT"}, opset=28)


def test_least_integer_over_minus_one():
    for dtype in SIGNED:
        x = np.array([np.iinfo(dtype).min], dtype)
        quiet("Div", [x, np.array([-1], dtype)], opset=14, expected=[x])
        quiet("Mod", [x, np.array([-1], dtype)], opset=14, expected=[np.zeros_like(x)])


def test_float_mod():
    a, b = np.meshgrid(np.array([5.5, -5.5, 0.0, -0.0, np.inf, np.nan, 4.0], np.float32), np.array([2.0, -2.0, np.inf, -np.inf, 0.0, 4.0], np.float32))
    for dtype in FLOATS:
        quiet("Mod", [a.astype(dtype), b.astype(dtype)], {"fmod": 1}, opset=13)
        quiet("Mod", [a.astype(dtype), b.astype(dtype)], opset=28)


@pytest.mark.parametrize("x", [np.float32, np.float64, np.float16, np.int32, np.int64])
@pytest.mark.parametrize("y", [np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_pow(x, y):
    a = np.array([[1, 2, 3, 4], [5, 6, 2, 3]], x)
    for b in [np.array([[1, 2, 3, 0], [2, 1, 4, 5]], y), np.array(2, y), np.array([3], y), np.array([[1], [2]], y)]:
        quiet("Pow", [a, b], opset=15, expected=[np.power(a.astype(np.float64), b.astype(np.float64)).astype(x)], ulp=2)


def test_pow_special_values():
    x = np.concatenate([F32_SPECIAL, values((50,), np.float32)])
    for e in [0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0, 2.5, -3.0, np.inf, np.nan]:
        with np.errstate(all="ignore"):
            # not by a numpy scalar: it would take roots of -inf
            expected = [np.power(x.astype(np.float64), np.full(x.shape, e)).astype(np.float32)]
        check("Pow", [x, np.array(e, np.float32)], opset=15, expected=expected)
    quiet("Pow", [np.abs(values((300,), np.float32)), values((300,), np.float32)], opset=15)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"])
def test_legacy_broadcast(op):
    kind = {"And": np.bool_, "Or": np.bool_, "Xor": np.bool_, "Equal": np.int32}.get(op, np.float32)
    for shape, axis, view in [((3,), 1, (3, 1, 1)), ((4, 5), None, (4, 5)), ((5,), 3, (5,)), ((2, 3), 0, (2, 3, 1, 1)), ((5,), None, (5,)), ((5,), -1, (5,))]:
        a, b = values((2, 3, 4, 5), kind, 1), values(shape, kind, 1)
        model, feeds, names = one_node(op, [a, b.reshape(view)], opset=13)
        expected = ReferenceEvaluator(model).run(names, feeds)
        attrs = {"broadcast": 1} | ({"axis": axis} if axis is not None else {})
        check(op, [a, b], attrs, opset=6, expected=expected)
    a = values((2, 3), kind, 1)
    model, feeds, names = one_node(op, [a, a], opset=13)
    check(op, [a, a], opset=6, expected=ReferenceEvaluator(model).run(names, feeds))
    with pytest.raises(Exception, match="broadcast"):
        evaluate(one_node(op, [a, values((3,), kind, 1)], opset=6)[0], [a, values((3,), kind, 1)])


def test_logical():
    a, b = values((3, 4), np.bool_), values((4,), np.bool_)
    for op in ["And", "Or", "Xor"]:
        quiet(op, [a, b], opset=7)
    quiet("Equal", [a, b], opset=13)


def test_strings():
    a = np.array([["a", "bb"], ["", "longer than sixteen characters"]], object)
    b = np.array(["a", ""], object)
    check("Equal", [a, b], opset=19, expected=[a == b])
    c = np.array([[True], [False]])
    check("Where", [c, a, b], opset=16, expected=[np.where(c, a, b)])


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float64, np.complex64, np.complex128, np.int8, np.uint64])
def test_where_dtypes(dtype):
    x = (RNG.normal(size=(3, 50)) * 5).astype(dtype)
    y = (RNG.normal(size=(50,)) * 5).astype(dtype)
    quiet("Where", [values((3, 1), np.bool_), x, y], opset=16)
    quiet("Where", [values((3, 50), np.bool_), x, np.array(1, dtype)], opset=16)


def test_prelu_opsets():
    x = values((2, 3, 4, 5), np.float32)
    slope = values((3,), np.float32)
    check("PRelu", [x, slope], opset=6, expected=[np.where(x > 0, x, x * slope.reshape(3, 1, 1))])
    quiet("PRelu", [x, slope.reshape(3, 1, 1)], opset=7)
    quiet("PRelu", [x, slope[:1]], opset=6)
    quiet("PRelu", [x.astype(np.int32), slope[:1].astype(np.int32)], opset=9)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS])
def test_clip(dtype):
    x = values((3, 700), dtype)
    low, high = np.array(1, dtype), np.array(3, dtype)
    for inputs in [[x], [x, low], [x, None, high], [x, low, high], [x, high, low]]:
        expected = np.minimum(np.maximum(x, inputs[1]) if len(inputs) > 1 and inputs[1] is not None else x, inputs[2] if len(inputs) > 2 else np.array(np.inf if dtype in FLOATS else np.iinfo(dtype).max, dtype))
        check("Clip", inputs, opset=13, expected=[expected])


def test_clip_attributes():
    x = np.concatenate([F32_SPECIAL, values((100,), np.float32)])
    check("Clip", [x], {"min": -1.0, "max": 1.5}, opset=6, expected=[np.clip(x, np.float32(-1), np.float32(1.5))])
    check("Clip", [x], {"max": 1.5}, opset=10, expected=[np.clip(x, np.finfo(np.float32).min, np.float32(1.5))])
    check("Clip", [x.astype(np.float64)], {"min": -1.0}, opset=6, expected=[np.clip(x.astype(np.float64), -1, np.finfo(np.float32).max)])
    check("Clip", [x, np.array(0.5, np.float32)], opset=11, expected=[np.maximum(x, np.float32(0.5))])


def test_variadic():
    for n in [1, 2, 5]:
        xs = [values((3, 40), np.float32) for _ in range(n)]
        for op in ["Max", "Min", "Sum", "Mean"]:
            for opset in [6, 8, 13]:
                quiet(op, xs, opset=opset, atol=1e-6)
    quiet("Max", [np.array([1, np.nan, 3], np.float32), np.array([np.nan, 2, 1], np.float32)], opset=13)
    quiet("Mean", [values((3, 40), np.float64), values((40,), np.float64)], opset=13)


def test_dropout():
    x = values((3, 40), np.float32)
    check("Dropout", [x], opset=7, expected=[x])
    check("Dropout", [x], opset=12, outputs=2, expected=[x, np.ones_like(x, bool)])
    check("Dropout", [x], opset=7, outputs=2, expected=[x, np.ones_like(x)])
    for ratio in [0.0, 0.5, 0.75]:
        r, t = np.array(ratio, np.float32), np.array(True)
        check("Dropout", [x, r, t], {"seed": 5}, opset=13, outputs=2)
        check("Dropout", [x, r, np.array(False)], {"seed": 5}, opset=13, outputs=2, expected=[x, np.ones_like(x, bool)])
    model, feeds, names = one_node("Dropout", [x.astype(np.float64), np.array(0.5, np.float32), np.array(True)], {"seed": 0}, opset=13, outputs=2)
    check("Dropout", [x.astype(np.float64), None, np.array(True)], {"seed": 0}, opset=13, outputs=2, expected=ReferenceEvaluator(model).run(names, feeds))


# ---- Cast ------------------------------------------------------------------------------------------------------------

WIDE = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16, "BFLOAT16": ml_dtypes.bfloat16, "BOOL": np.bool_,
        "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16,
        "UINT32": np.uint32, "UINT64": np.uint64}


@pytest.mark.parametrize("source", WIDE)
@pytest.mark.parametrize("target", WIDE)
def test_cast(source, target):
    x = np.array([0, 1, 2.7, 3.2, 100, 7.5, 64.99, 127], np.float64).astype(WIDE[source])
    if source in ("FLOAT", "DOUBLE", "FLOAT16", "INT32", "INT64", "INT16") and not target.startswith("U") and target != "BOOL":
        x = np.concatenate([x, np.array([-1, -2.5, -100], np.float64).astype(WIDE[source])])
    check("Cast", [x], {"to": getattr(onnx.TensorProto, target)}, opset=13, expected=[x.astype(WIDE[target])], ulp=0)


def test_cast_large_and_special():
    x = np.array([0.0, np.inf, -np.inf, np.nan, 65504, 65519.9, 65520, 1e-8, 5.96e-8, 1e30], np.float64)
    for target in ["FLOAT", "FLOAT16", "BFLOAT16"]:
        with np.errstate(all="ignore"):
            expected = x.astype(np.float32).astype(WIDE[target]) if target == "BFLOAT16" else x.astype(WIDE[target])
        check("Cast", [x], {"to": getattr(onnx.TensorProto, target)}, opset=13, expected=[expected], ulp=0)
    check("Cast", [x], {"to": onnx.TensorProto.BOOL}, opset=13, expected=[x.astype(bool)])
    # out of range: the least int32 or int64, as the header says
    y = np.array([3e9, -3e9, np.nan, np.inf], np.float32)
    check("Cast", [y], {"to": onnx.TensorProto.INT32}, expected=[np.full(4, -(2**31), np.int32)])
    check("Cast", [np.array([1e19, -1e19, np.nan], np.float64)], {"to": onnx.TensorProto.INT64}, expected=[np.full(3, -(2**63), np.int64)])
    # double to half rounds once: through float it would give a tie
    z = np.array([1 + 2**-11 + 2**-40, 1 + 2**-11 - 2**-40], np.float64)
    check("Cast", [z], {"to": onnx.TensorProto.FLOAT16}, expected=[z.astype(np.float16)], ulp=0)
    w = np.array([300, -300, 2**31 + 5, 2**40 + 7], np.int64)
    for target in ["INT8", "UINT8", "INT16", "INT32", "UINT32"]:
        check("Cast", [w], {"to": getattr(onnx.TensorProto, target)}, expected=[w.astype(WIDE[target])])


def test_cast_strings():
    x = np.array(["3.14", "1e-5", "1E8", "+INF", "-inf", "NaN", "100", " 7 "], object)
    check("Cast", [x], {"to": onnx.TensorProto.FLOAT}, opset=13, expected=[np.array([3.14, 1e-5, 1e8, np.inf, -np.inf, np.nan, 100, 7], np.float32)], ulp=0)
    check("Cast", [np.array(["9007199254740993", "-5"], object)], {"to": onnx.TensorProto.INT64}, expected=[np.array([9007199254740993, -5], np.int64)])
    check("Cast", [np.array(["18446744073709551615"], object)], {"to": onnx.TensorProto.UINT64}, expected=[np.array([2**64 - 1], np.uint64)])
    for v in [np.array([0.1, 1.0, 100.0, 1e-7, 1e20, -2.5, 0.47892547], np.float32), np.array([0.1, 1e16, 123456.75]), np.array([1, -2, 3], np.int64),
              np.array([True, False])]:
        check("Cast", [v], {"to": onnx.TensorProto.STRING}, opset=13, expected=[v.astype(np.str_).astype(object)])
    with pytest.raises(Exception, match="not a number"):
        evaluate(one_node("Cast", [np.array(["Hello"], object)], {"to": 1})[0], [np.array(["Hello"], object)])


def test_cast_like():
    x = values((3, 4), np.float32)
    check("CastLike", [x, np.array([1], np.int32)], opset=15, expected=[x.astype(np.int32)])


F8 = {"FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn, "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "FLOAT8E5M2": ml_dtypes.float8_e5m2,
      "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz}


def bits(x):
    return x.view(np.uint8)


@pytest.mark.parametrize("name", F8)
def test_cast_float8(name):
    kind = F8[name]
    every = np.arange(256, dtype=np.uint8).view(kind)
    to = getattr(onnx.TensorProto, name)
    got = evaluate(one_node("Cast", [every], {"to": 1}, opset=19)[0], [every])[0]
    np.testing.assert_array_equal(got, every.astype(np.float32))
    x = np.concatenate([F32_SPECIAL, RNG.normal(size=2000).astype(np.float32) * np.exp(RNG.uniform(-12, 12, 2000)).astype(np.float32), np.array([1e6, -1e6, 1e-7, -1e-7], np.float32)])
    for source in [np.float32, np.float16, np.float64]:
        with np.errstate(all="ignore"):
            v = x.astype(source)
        for saturate in [0, 1]:
            (got,) = evaluate(one_node("Cast", [v], {"to": to, "saturate": saturate}, opset=19)[0], [v])
            with np.errstate(all="ignore"):
                want = onnx.numpy_helper.saturate_cast(v, kind) if saturate else v.astype(np.float32).astype(kind)
            nan = np.isnan(want.astype(np.float32))
            np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
            np.testing.assert_array_equal(bits(got)[~nan], bits(want)[~nan])


@pytest.mark.parametrize(("name", "kind"), [("INT4", ml_dtypes.int4), ("UINT4", ml_dtypes.uint4), ("INT2", ml_dtypes.int2), ("UINT2", ml_dtypes.uint2),
                                            ("FLOAT4E2M1", ml_dtypes.float4_e2m1fn)])
def test_cast_packed(name, kind):
    to = getattr(onnx.TensorProto, name)
    x = np.arange(-9, 16).astype(np.float32)
    if name == "FLOAT4E2M1":
        x = np.array([0.48, 0.25, 1.05, -3.5, -8, 9, 1e6, 1e-7, np.inf, -np.inf, -4, 0.01, -0.0, 0.75, 1.25, 1.75, 2.5, 5], np.float32)
    for n in [1, 2, 5, len(x)]:
        for source in [np.float32, np.float16]:
            with np.errstate(all="ignore"):
                v = x[:n].astype(source)
            (got,) = evaluate(one_node("Cast", [v], {"to": to}, opset=25)[0], [v])
            want = v.astype(kind)
            np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
            (back,) = evaluate(one_node("Cast", [want], {"to": 1}, opset=25)[0], [want])
            np.testing.assert_array_equal(back, want.astype(np.float32))


def test_bit_cast():
    x = values((3, 4), np.float32)
    check("BitCast", [x], {"to": onnx.TensorProto.INT32}, opset=26, expected=[x.view(np.int32)])
    with pytest.raises(Exception, match="width"):
        evaluate(one_node("BitCast", [x], {"to": onnx.TensorProto.INT64}, opset=26)[0], [x])


@pytest.mark.parametrize(("op", "inputs", "attrs", "message"), [
    ("Add", [np.zeros((2, 3), np.float32), np.zeros((4,), np.float32)], {}, "do not broadcast"),
    ("Add", [np.zeros(2, np.float32), np.zeros(2, np.int32)], {}, "same type"),
    ("Add", [np.zeros(2, bool), np.zeros(2, bool)], {}, "numeric"),
    ("Exp", [np.zeros(2, np.int32)], {}, "float"),
    ("Clip", [np.zeros(2, np.float32), np.zeros(3, np.float32)], {}, "scalar"),
    ("Cast", [np.zeros(2, np.float32)], {"to": 99}, "cannot cast"),
    ("BitShift", [np.zeros(2, np.uint8), np.zeros(2, np.uint8)], {"direction": "UP"}, "direction"),
    ("PRelu", [np.zeros((3,), np.float32), np.zeros((2, 3), np.float32)], {}, "slope"),
    ("Where", [np.zeros(2, np.int32), np.zeros(2, np.float32), np.zeros(2, np.float32)], {}, "bool"),
])
def test_errors(op, inputs, attrs, message):
    with pytest.raises(Exception, match=message):
        evaluate(one_node(op, inputs, attrs)[0], inputs)


@pytest.mark.parametrize("dtype", ["float32", "int64", "int8"])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 14, 16, 17, 33, 63, 65])
def test_short_runs_of_both_operands(dtype, n):
    a, b = np.arange(6 * n).reshape(2, 3, n, 1) % 60, np.arange(6 * n).reshape(2, 3, 1, n) % 50
    check("Add", [a.astype(dtype), b.astype(dtype)], opset=14)
