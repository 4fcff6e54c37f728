"""FusedMatMul and FusedGemm of com.microsoft, and ai.tiercel.FusedMatMul, against numpy."""

import itertools

import numpy as np
import pytest

from oracle import check

RNG = np.random.default_rng(7)


def rand(*shape):
    return RNG.uniform(-1, 1, shape).astype("float32")


def operand(x, trans, batch):
    if batch:
        x = np.moveaxis(x, 0, -2)
    return np.swapaxes(x, -1, -2) if trans else x


@pytest.mark.parametrize("flags", list(itertools.product((0, 1), repeat=4)), ids=str)
def test_microsoft(flags):
    ta, tb, ba, bb = flags

    def shaped(rows, cols, batch, trans, moved):
        s = [*batch, cols, rows] if trans else [*batch, rows, cols]
        return rand(*([s[-2], *s[:-2], s[-1]] if moved else s))

    for m, n, k, batch in [(5, 7, 9, (3,)), (70, 100, 120, (2, 3)), (1, 4, 3, (2,))]:
        a, b = shaped(m, k, batch, ta, ba), shaped(k, n, batch, tb, bb)
        want = 0.25 * np.matmul(operand(a, ta, ba).astype("float64"), operand(b, tb, bb).astype("float64"))
        attrs = {"transA": ta, "transB": tb, "transBatchA": ba, "transBatchB": bb, "alpha": 0.25}
        check("FusedMatMul", [a, b], attrs, 1, "com.microsoft", expected=[want.astype("float32")], atol=1e-6 * k)
    a, b = a.astype("float64"), b.astype("float64")
    check("FusedMatMul", [a, b], attrs, 1, "com.microsoft", expected=[0.25 * np.matmul(operand(a, ta, ba), operand(b, tb, bb))], atol=1e-14)


def test_fused_gemm():
    a, b, c = rand(6, 9), rand(20, 9), rand(20)
    y = 2 * a.astype("float64") @ b.T + 0.5 * c
    want = np.where(y < 0, 0.1 * y, y).astype("float32")
    attrs = {"transB": 1, "alpha": 2.0, "beta": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.1}
    check("FusedGemm", [a, b, c], attrs, 1, "com.microsoft", expected=[want], atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_addends(dtype):
    a, b, bias, residual = (rand(*s).astype(dtype) for s in [(2, 5, 9), (9, 33), (33,), (5, 33)])
    y = np.matmul(a.astype("float64"), b.astype("float64")) + bias + residual
    check("FusedMatMul", [a, b, bias, residual], {}, 1, "ai.tiercel", expected=[y.astype(dtype)], atol=1e-2 if dtype == "float16" else 4e-6)


def test_errors():
    a, b = rand(3, 4), rand(4, 5)
    for inputs, attrs, message in [
        ([a, b, rand(6)], {}, "bias .* should broadcast"),
        ([a, b, None, rand(2, 3, 5)], {}, "residual .* should broadcast"),
        ([a, rand(5, 4)], {}, "inner extents"),
        ([a, b, rand(5).astype("float64")], {}, "one type"),
        ([a, b], {"activation": "Fancy"}, "Fancy"),
    ]:
        with pytest.raises(Exception, match=message):
            check("FusedMatMul", inputs, attrs, 1, "ai.tiercel", expected=[a])
