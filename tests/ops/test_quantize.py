"""Quantisation and integer products against the reference evaluator and numpy."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from oracle import check

RNG = np.random.default_rng(6)
RANGE = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535), "int4": (-8, 7), "uint4": (0, 15)}
CODE = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16, "uint16": TensorProto.UINT16,
        "int4": TensorProto.INT4, "uint4": TensorProto.UINT4}


def dtype_of(name):
    return getattr(ml_dtypes, name) if name in ("int4", "uint4") else np.dtype(name)


def integers(shape, name):
    low, high = RANGE[name]
    return RNG.integers(low, high + 1, shape).astype(dtype_of(name))


def spread(p, x, axis, block):
    """Parameters as x is shaped."""
    if p.ndim == 0 or (p.size == 1 and not block):
        return p.reshape(())
    if block:
        return np.take(np.repeat(p, block, axis), np.arange(x.shape[axis]), axis)
    return p.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def views():
    """(shape, axis, block, shape of the scale)"""
    for shape in [(3, 20, 7), (4, 33), (2, 64, 5, 3), (50,)]:
        yield shape, 1, 0, ()
        yield shape, 1, 0, (1,)
        for axis in range(-len(shape), len(shape)):
            yield shape, axis, 0, (shape[axis],)
            for block in (2, 3):
                s = list(shape)
                s[axis] = -(-s[axis] // block)
                yield shape, axis, block, tuple(s)


@pytest.mark.parametrize("name", RANGE)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.filterwarnings("ignore:overflow")
def test_quantize(name, half):
    dtype = "float16" if half else "float32"
    for shape, axis, block, params in views():
        if len(shape) == 1 and axis == 1:
            axis = 0
        x = RNG.normal(0, 40, shape).astype(dtype)
        scale = (RNG.random(params) + 0.5).astype(dtype)
        scale = np.asarray(scale)
        low, high = RANGE[name]
        attrs = {"axis": axis, **({"block_size": block} if block else {})}
        q = np.rint(x / spread(scale, x, axis, block)).astype("float64")
        zero = np.asarray(integers(params, name))
        want = np.clip(q + spread(zero, x, axis, block).astype("float64"), low, high).astype(dtype_of(name))
        check("QuantizeLinear", [x, scale, zero], attrs, opset=21, expected=[want])
        want = np.clip(q, low, high).astype(dtype_of(name))
        check("QuantizeLinear", [x, scale], {**attrs, "output_dtype": CODE[name]}, opset=21, expected=[want])
        y = integers(shape, name)
        want = ((y.astype("float32") - spread(zero, x, axis, block).astype("float32")) * spread(scale, x, axis, block).astype("float32")).astype(dtype)
        check("DequantizeLinear", [y, scale, zero], attrs, opset=21, expected=[want], ulp=1)
        want = (y.astype("float32") * spread(scale, x, axis, block).astype("float32")).astype(dtype)
        check("DequantizeLinear", [y, scale], attrs, opset=21, expected=[want], ulp=1)


def test_old_opsets():
    x = RNG.normal(0, 40, (3, 5)).astype("float32")
    for name in ("int8", "uint8"):
        zero = integers((), name)
        check("QuantizeLinear", [x, np.float32(0.5), np.asarray(zero)], {}, opset=10)
        check("QuantizeLinear", [x, (RNG.random(5) + 1).astype("float32"), integers(5, name)], {}, opset=13)
        q = integers((3, 5), name)
        want = (q.astype("float32") - zero.astype("float32")) * np.float32(0.5)
        check("DequantizeLinear", [q, np.float32(0.5), np.asarray(zero)], {}, opset=10, expected=[want])
    q = RNG.integers(-1000, 1000, (3, 5)).astype("int32")
    check("DequantizeLinear", [q, np.float32(0.25)], {}, opset=13, expected=[q.astype("float32") * np.float32(0.25)])
    check("QuantizeLinear", [RNG.integers(-1000, 1000, (3, 5)).astype("int32"), np.float32(4.5), np.uint8(3)], {}, opset=13)


def test_specials():
    x = np.array([np.inf, -np.inf, 1e30, -1e30, 2.5, 3.5, -2.5, 0], "float32")
    check("QuantizeLinear", [x, np.float32(1), np.uint8(2)], {}, opset=13, expected=[np.array([255, 0, 255, 0, 4, 6, 0, 2], "uint8")])
    check("QuantizeLinear", [x, np.float32(1), np.int8(-2)], {}, opset=13, expected=[np.array([127, -128, 127, -128, 0, 2, -4, -2], "int8")])
    check("QuantizeLinear", [np.zeros((0, 3), "float32"), np.float32(1)], {}, opset=13, expected=[np.zeros((0, 3), "uint8")])


def test_dynamic():
    for x in [RNG.normal(0, 3, (3, 40)), np.abs(RNG.normal(5, 3, 50000)), -np.abs(RNG.normal(5, 3, (7,))), np.zeros(5), np.full(3, 2.0)]:
        check("DynamicQuantizeLinear", [x.astype("float32")], {}, opset=11, outputs=3)


@pytest.mark.parametrize("a_type", ["int8", "uint8"])
@pytest.mark.parametrize("b_type", ["int8", "uint8"])
def test_matmul_integer(a_type, b_type):
    for a, b in [((5, 7), (7, 70)), ((2, 3, 5, 7), (7, 4)), ((2, 1, 5, 7), (3, 7, 4)), ((7,), (7, 4)), ((5, 7), (7,)), ((0, 7), (7, 4)), ((5, 0), (0, 4))]:
        x, y = integers(a, a_type), integers(b, b_type)
        check("MatMulInteger", [x, y], {}, opset=10)
        check("MatMulInteger", [x, y, np.asarray(integers((), a_type)), np.asarray(integers((), b_type))], {}, opset=10)
    x, y = integers((2, 5, 7), a_type), integers((2, 7, 4), b_type)
    za, zb = integers(5, a_type), integers(4, b_type)
    want = (x.astype("int32") - za.astype("int32")[:, None]) @ (y.astype("int32") - zb.astype("int32"))
    check("MatMulInteger", [x, y, za, zb], {}, opset=10, expected=[want])
    with pytest.raises(Exception, match="one for each row"):
        check("MatMulInteger", [x, y, integers(3, a_type)], {}, opset=10, expected=[want])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_qlinear_matmul(kind):
    for a, b in [((5, 7), (7, 70)), ((2, 3, 5, 7), (7, 4)), ((2, 5, 7), (2, 7, 4))]:
        x, y = integers(a, kind), integers(b, kind)
        zeros = [np.asarray(integers((), kind)) for _ in range(3)]
        inputs = [x, np.float32(0.07), zeros[0], y, np.float32(0.03), zeros[1], np.float32(0.5), zeros[2]]
        check("QLinearMatMul", inputs, {}, opset=10)
        scale = (RNG.random(b[-1]) * 0.1).astype("float32")
        acc = (x.astype("int32") - zeros[0].astype("int32")) @ (y.astype("int32") - zeros[1].astype("int32"))
        want = np.clip(np.rint(acc * (np.float32(0.07) * scale / np.float32(0.5)).astype("float64") + zeros[2]), *RANGE[kind]).astype(kind)
        inputs[4] = scale
        inputs[5] = np.full(b[-1], zeros[1])
        check("QLinearMatMul", inputs, {}, opset=10, expected=[want])


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_convolutions(kind):
    for x_shape, w_shape, attrs in [
        ((2, 3, 9, 8), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}), ((1, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "strides": [2, 1]}),
        ((1, 2, 9, 9), (2, 2, 3, 3), {"dilations": [2, 2], "auto_pad": "SAME_UPPER"}), ((1, 2, 4, 4), (2, 2, 1, 1), {}),
    ]:  # fmt: skip
        x, w = integers(x_shape, kind), integers(w_shape, kind)
        check("ConvInteger", [x, w, np.asarray(integers((), kind))], attrs, opset=10)
        zeros = [np.asarray(integers((), kind)) for _ in range(3)]
        bias = RNG.integers(-1000, 1000, w_shape[0]).astype("int32")
        inputs = [x, np.float32(0.07), zeros[0], w, np.float32(0.03), zeros[1], np.float32(0.9), zeros[2]]
        check("QLinearConv", inputs, attrs, opset=10)
        inputs[4], inputs[5] = (RNG.random(w_shape[0]) * 0.1).astype("float32"), integers(w_shape[0], kind)
        check("QLinearConv", [*inputs, bias], attrs, opset=10)


def test_errors():
    x = np.zeros((3, 5), "float32")
    with pytest.raises(Exception, match="length of the scale"):
        check("QuantizeLinear", [x, np.ones(4, "float32")], {}, opset=13, expected=[x])
    with pytest.raises(Exception, match="along axis 1"):
        check("QuantizeLinear", [x, np.ones((3, 2), "float32")], {"block_size": 2}, opset=21, expected=[x])
    with pytest.raises(Exception, match="cannot quantise to float"):
        check("QuantizeLinear", [x, np.float32(1)], {"output_dtype": 1}, opset=21, expected=[x])
