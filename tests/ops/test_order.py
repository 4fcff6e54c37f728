"""ArgMax, ArgMin, Hardmax, TopK, CumSum, CumProd."""

import numpy as np
import pytest

from oracle import check

RNG = np.random.default_rng(4)
ALL = ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def ties(shape, dtype="float32"):
    """Few different values, so that ties are common; negative ones where the type has them."""
    x = RNG.integers(0, 9, shape)
    return (x.astype("int64") - (0 if np.dtype(dtype).kind == "u" else 4)).astype(dtype)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_arg(op, last):
    for dtype in ALL:
        x = ties((3, 20, 5), dtype)
        for axis in (0, 1, 2, -1):
            for keepdims in (0, 1):
                check(op, [x], {"axis": axis, "keepdims": keepdims, "select_last_index": last}, opset=13)
    for shape in [(5, 3000), (3, 30, 700), (1,), (17, 1, 4)]:
        x = ties(shape)
        for axis in range(len(shape)):
            check(op, [x], {"axis": axis, "select_last_index": last}, opset=13)
    x = ties((4, 50))
    x[0, 7] = x[1, 3] = x[1, 40] = np.nan
    x[2, 9] = np.inf
    for axis in (0, 1):
        check(op, [x], {"axis": axis, "select_last_index": last}, opset=13)
    for opset in (6, 11, 12):
        check(op, [ties((3, 4))], {"axis": 1}, opset=opset)
    with pytest.raises(Exception, match="empty"):
        check(op, [np.zeros((2, 0), "float32")], {"axis": 1}, opset=13, expected=[None])
    check(op, [np.zeros((0, 2), "float32")], {"axis": 1}, opset=13)


def test_hardmax():
    for dtype in ("float32", "float64", "float16"):
        x = ties((3, 4, 5), dtype)
        for axis in (0, 1, 2, -2):
            check("Hardmax", [x], {"axis": axis}, opset=13)
        y = np.zeros((3, 20), dtype)
        y[np.arange(3), x.reshape(3, 20).argmax(1)] = 1
        check("Hardmax", [x], {}, opset=11, expected=[y.reshape(x.shape)])
    check("Hardmax", [np.zeros((2, 0), "float32")], {}, opset=13)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(largest):
    for dtype in ALL:
        x = ties((3, 40, 4), dtype)
        for axis, k in [(0, 2), (1, 5), (1, 40), (2, 1), (-1, 4), (1, 0)]:
            check("TopK", [x, np.array([k], "int64")], {"axis": axis, "largest": largest}, opset=11, outputs=2)
    x = RNG.normal(0, 1, (3, 5000)).astype("float32")
    x[0, 3:9], x[1, 4], x[2, 5], x[2, 7], x[2, 8] = np.nan, np.inf, -np.inf, -0.0, 0.0
    for k in (1, 7, 32, 100, 2500, 5000):
        check("TopK", [x, np.array([k], "int64")], {"largest": largest}, opset=11, outputs=2)
    big = np.array([[2**63 - 1, -(2**63), 0, 5]], "int64")
    check("TopK", [big, np.array([3], "int64")], {"largest": largest}, opset=11, outputs=2)
    check("TopK", [ties((2, 9)), np.array([3], "int64")], {}, opset=10, outputs=2)
    check("TopK", [ties((2, 9))], {"k": 3, "axis": 1}, opset=1, outputs=2)
    check("TopK", [ties((2, 9)), np.array([3], "int64")], {"largest": largest, "sorted": 0}, opset=11, outputs=2)
    for k in (10, -1):
        with pytest.raises(Exception, match="k "):
            check("TopK", [ties((2, 9)), np.array([k], "int64")], {}, opset=11, outputs=2, expected=[None, None])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative(exclusive, reverse):
    for dtype in ["float32", "float64", "int32", "int64", "uint32", "uint64"]:
        x = ties((3, 20, 70), dtype)
        for axis in (0, 1, 2, -1):
            check("CumSum", [x, np.array(axis, "int32")], {"exclusive": exclusive, "reverse": reverse}, opset=14)
    x = RNG.normal(0, 1, (4, 33)).astype("float16")
    full = np.flip(x, 1) if reverse else x
    want = np.cumsum(full.astype("float32"), axis=1)
    want = np.concatenate([np.zeros((4, 1)), want[:, :-1]], 1) if exclusive else want
    want = (np.flip(want, 1) if reverse else want).astype("float16")
    check("CumSum", [x, np.array(1, "int64")], {"exclusive": exclusive, "reverse": reverse}, opset=14, expected=[want], atol=2e-3)
    x = (RNG.random((3, 6)) + 0.5).astype("float32")
    full = np.flip(x, 1) if reverse else x
    want = np.cumprod(full, axis=1)
    want = np.concatenate([np.ones((3, 1), "float32"), want[:, :-1]], 1) if exclusive else want
    want = np.flip(want, 1) if reverse else want
    check("CumProd", [x, np.array(1, "int64")], {"exclusive": exclusive, "reverse": reverse}, opset=26, expected=[want])
    check("CumSum", [np.zeros((0, 3), "float32"), np.array(0, "int64")], {"exclusive": exclusive, "reverse": reverse}, opset=14)
    with pytest.raises(Exception, match="axis 2"):
        check("CumSum", [x, np.array(2, "int64")], {}, opset=14, expected=[x])
