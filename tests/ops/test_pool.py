"""The pools against onnx's reference evaluator (and numpy where that has none)."""

import numpy as np
import pytest

import oracle
from oracle import against_onnxruntime, check, fails_everywhere

RNG = np.random.default_rng(11)


def rand(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("opset", [8, 10, 11, 12, 22])
def test_max_pool_indices(opset):
    for attrs in ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"storage_order": 1, "strides": [2, 1]}):
        against_onnxruntime("MaxPool", [rand(2, 3, 7, 8)], {"kernel_shape": [3, 3], **attrs}, opset, outputs=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint8])
def test_max_pool_types(dtype):
    x = (rand(2, 5, 9, 10) * 50).astype(dtype)
    for attrs in ({}, {"strides": [2, 2], "ceil_mode": 1}, {"dilations": [2, 2]}, {"pads": [1, 0, 1, 2]}):
        if dtype == np.float16:  # onnxruntime has no such kernel; values are exact in any float
            wide = oracle.onnxruntime_result("MaxPool", [x.astype(np.float32)], {"kernel_shape": [3, 3], **attrs}, 12)
            check("MaxPool", [x], {"kernel_shape": [3, 3], **attrs}, opset=12, expected=[wide[0].astype(dtype)])
        else:
            against_onnxruntime("MaxPool", [x], {"kernel_shape": [3, 3], **attrs}, 12)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(op, pad):
    for stride in (1, 2, 3):
        attrs = {"kernel_shape": [2, 3], "auto_pad": pad, "strides": [stride, stride]}
        against_onnxruntime(op, [rand(1, 4, 8, 7)], attrs, 11, ulp=8, atol=1e-6)


@pytest.mark.parametrize("opset", [7, 11, 19, 22])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool(opset, include):
    x = rand(2, 4, 9, 8)
    extra = [{"ceil_mode": 1, "strides": [2, 2]}] if opset > 7 else []
    extra += [{"dilations": [2, 2]}] if opset >= 19 else []
    for attrs in ({}, {"pads": [1, 1, 1, 1]}, {"strides": [2, 3], "pads": [0, 1, 1, 1]}, *extra):
        check("AveragePool", [x], {"kernel_shape": [3, 3], "count_include_pad": include, **attrs}, opset=opset, ulp=8, atol=1e-6)


def test_ranks():
    check("MaxPool", [rand(2, 3, 20)], {"kernel_shape": [4], "strides": [3]}, opset=12)
    check("MaxPool", [rand(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 0, 0, 1, 1]}, opset=12)
    check("AveragePool", [rand(1, 2, 5, 6, 7)], {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}, opset=19, ulp=8, atol=1e-6)


@pytest.mark.parametrize("opset", [2, 11, 18])
def test_lp_pool(opset):
    for p in (1, 2, 3):
        check("LpPool", [rand(1, 3, 8, 9)], {"kernel_shape": [2, 3], "p": p, "strides": [2, 2]}, opset=opset, ulp=16, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 17, 7), (2, 33, 1, 1), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_global(shape, dtype):
    x = rand(*shape, dtype=dtype)
    axes = tuple(range(2, x.ndim))
    check("GlobalMaxPool", [x], expected=[x.max(axes, keepdims=True)])
    check("GlobalAveragePool", [x], expected=[x.mean(axes, keepdims=True)], ulp=8, atol=1e-6)
    check("GlobalLpPool", [x], {"p": 3}, expected=[(np.abs(x) ** 3).sum(axes, keepdims=True) ** dtype(1 / 3)], ulp=64, atol=1e-6)


def test_nan_and_infinity():
    x = rand(1, 2, 6, 6)
    x[0, 0, 2, 2] = np.nan
    x[0, 1] = -np.inf
    y = check("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]}, expected=[x.reshape(1, 2, 3, 2, 3, 2).max((3, 5))])
    assert np.isnan(y[0][0, 0, 1, 1])


def test_max_unpool():
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    indices = np.array([[[[5, 7], [13, 15]]]], np.int64)
    expected = np.zeros((1, 1, 4, 4), np.float32)
    expected.ravel()[[5, 7, 13, 15]] = [1, 2, 3, 4]
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check("MaxUnpool", [x, indices], attrs, opset=11, expected=[expected])
    larger = np.zeros((1, 1, 5, 5), np.float32)
    larger[..., :4, :4] = expected
    check("MaxUnpool", [x, indices, np.array([1, 1, 5, 5])], attrs, opset=11, expected=[larger])
    with pytest.raises(Exception, match="outside"):
        check("MaxUnpool", [x, indices + 1], attrs, opset=11, expected=[expected])


@pytest.mark.parametrize(
    "attrs,message",
    [({}, "kernel_shape"), ({"kernel_shape": [3]}, "kernel_shape"), ({"kernel_shape": [9, 9]}, "window"), ({"kernel_shape": [0, 1]}, "kernel_shape")],
)
def test_errors(attrs, message):
    with pytest.raises(Exception, match=message):
        check("MaxPool", [rand(1, 1, 5, 5)], attrs, expected=[None])


def test_empty():
    assert check("MaxPool", [rand(0, 3, 5, 5)], {"kernel_shape": [2, 2]}, expected=[rand(0, 3, 4, 4)])
    assert check("GlobalAveragePool", [rand(0, 3, 5, 5)], expected=[rand(0, 3, 1, 1)])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_rounded_up_one_window_may_reach_beyond_the_end(op):
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 4) - 3
    against_onnxruntime(op, [x], {"kernel_shape": [3], "strides": [2], "dilations": [2], "ceil_mode": 1}, opset=19)
    fails_everywhere("spans", op, [x], {"kernel_shape": [3], "strides": [1], "dilations": [2], "ceil_mode": 1}, opset=19)
