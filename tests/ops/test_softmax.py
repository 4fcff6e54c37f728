"""Softmax and LogSoftmax against the reference evaluator (opset 13) and numpy (the older meaning)."""

import numpy as np
import pytest

from oracle import check

RNG = np.random.default_rng(2)


def softmax(x, axes, log):
    x = x.astype("float64")
    with np.errstate(invalid="ignore", divide="ignore"):
        d = x - x.max(axis=axes, keepdims=True, initial=-np.inf)
        s = np.exp(d).sum(axis=axes, keepdims=True)
        return d - np.log(s) if log else np.exp(d) / s


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("opset", [6, 11, 13])
def test_softmax(op, dtype, opset):
    for shape in [(3, 5), (2, 3, 17), (2, 40, 3), (4, 7, 2, 33), (5,), (2, 0), (0, 3), (3, 300, 70)]:
        x = RNG.normal(0, 3, shape).astype(dtype)
        for axis in [None, *range(-len(shape), len(shape))]:
            if axis is None and opset < 13 and len(shape) < 2:
                continue
            a = (1 if opset < 13 else -1) if axis is None else axis
            axes = (a % len(shape),) if opset >= 13 else tuple(range(a % len(shape), len(shape)))
            want = softmax(x, axes, op == "LogSoftmax").astype(dtype)
            check(op, [x], {} if axis is None else {"axis": axis}, opset=opset, expected=[want], ulp=8, atol=5e-7 if op == "LogSoftmax" else 1e-7)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1])
def test_specials(op, axis):
    x = RNG.normal(0, 3, (6, 40)).astype("float32")
    x[0, 3], x[1, 4], x[2, 5], x[3, :], x[4, :20], x[5, :] = np.nan, np.inf, -np.inf, -np.inf, -np.inf, 3e38
    x = x if axis else np.ascontiguousarray(x.T)
    want = softmax(x, (axis,), op == "LogSoftmax").astype("float32")
    check(op, [x], {"axis": axis}, opset=13, expected=[want], ulp=8, atol=5e-7 if op == "LogSoftmax" else 1e-7)


def test_errors():
    x = np.zeros((2, 3), "float32")
    with pytest.raises(Exception, match="axis 2"):
        check("Softmax", [x], {"axis": 2}, expected=[x])
    with pytest.raises(Exception, match="should be float"):
        check("Softmax", [x.astype("int32")], expected=[x])
