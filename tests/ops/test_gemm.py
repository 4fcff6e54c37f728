"""Gemm against numpy: transpositions, scales, every broadcast of C, opsets and dtypes."""

import itertools

import numpy as np
import pytest

import tiercel
from oracle import check, compare, one_node

RNG = np.random.default_rng(6)


def random(shape, dtype):
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(0, 50, shape).astype(dtype)
    return RNG.uniform(-1, 1, shape).astype(dtype)


def gemm(a, b, c, transA=0, transB=0, alpha=1.0, beta=1.0):
    wide = [None if x is None else x.astype("float64") for x in (a, b, c)]
    y = alpha * np.matmul(wide[0].T if transA else wide[0], wide[1].T if transB else wide[1])
    return (y if c is None else y + beta * wide[2]).astype(a.dtype)


@pytest.mark.parametrize("opset", [6, 7, 9, 11, 13])
@pytest.mark.parametrize("trans", list(itertools.product((0, 1), (0, 1))))
@pytest.mark.parametrize("m,n,k", [(3, 5, 4), (1, 70, 33), (130, 96, 100), (7, 1, 20), (0, 3, 2), (2, 3, 0)])
def test_forms(opset, trans, m, n, k):
    for shape in [(m, n), (n,), (1, n), (m, 1), (1, 1), (1,), (), None]:
        if opset < 11 and shape is None:
            continue
        a = random((k, m) if trans[0] else (m, k), "float32")
        b = random((n, k) if trans[1] else (k, n), "float32")
        c = None if shape is None else random(shape, "float32")
        attrs = {"transA": trans[0], "transB": trans[1]}
        if m == 3:
            attrs |= {"alpha": 0.5, "beta": -1.25}
        if opset < 7:
            attrs["broadcast"] = 1
        want = gemm(a, b, c, **{k: v for k, v in attrs.items() if k != "broadcast"})
        check("Gemm", [a, b] if c is None else [a, b, c], attrs, opset=opset, expected=[want], atol=1e-6 * (1 + k))


@pytest.mark.parametrize("constants", [(1,), (1, 2), (0,), (2,)])
@pytest.mark.parametrize("transB", [0, 1])
def test_constants(constants, transB):
    for m, n, k in [(5, 100, 30), (64, 64, 64), (1, 17, 200)]:
        a, b, c = random((m, k), "float32"), random((n, k) if transB else (k, n), "float32"), random((n,), "float32")
        model, feeds, names = one_node("Gemm", [a, b, c], {"transB": transB}, constants=constants)
        got = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0]
        compare(got, gemm(a, b, c, transB=transB), 4, 1e-6 * (1 + k))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "uint32", "uint64"])
def test_dtypes(dtype):
    for attrs in [{}, {"transA": 1, "alpha": 2.0, "beta": 3.0}, {"transB": 1, "beta": 0.0}]:
        a, b = random((8, 8), dtype), random((8, 8), dtype)
        for c in [random((8, 8), dtype), random((8,), dtype), random((8, 1), dtype), None]:
            want = gemm(a, b, c, **attrs)
            atol = 0 if dtype[0] in "iu" else 4e-3 if dtype == "float16" else 1e-12
            check("Gemm", [a, b] if c is None else [a, b, c], attrs, opset=13, expected=[want], atol=atol)


def test_errors():
    f = lambda *s: np.zeros(s, "float32")  # noqa: E731
    for inputs, message in [
        ([f(3, 4), f(5, 6)], "inner extents"),
        ([f(3, 4, 1), f(4, 6)], "A should have two axes"),
        ([f(3, 4), f(4, 6), f(5)], "should broadcast"),
        ([f(3, 4), f(4, 6), f(1, 1, 1)], "at most two axes"),
        ([f(3, 4), f(4, 6), f(6).astype("float64")], "one type"),
    ]:
        with pytest.raises(Exception, match=message):
            check("Gemm", inputs, expected=[f(3, 6)])
