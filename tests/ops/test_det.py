"""Det against the reference evaluator."""

import numpy as np
import pytest
from ml_dtypes import bfloat16

from oracle import check, fails_everywhere

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("opset", [11, 22])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (7, 7), (5, 4, 4), (2, 3, 6, 6), (300, 3, 3), (1, 33, 33)])
def test_det(shape, opset):
    x = RNG.standard_normal(shape)
    check("Det", [x], opset=opset, ulp=4000)
    x = x.astype(np.float32)
    check("Det", [x], opset=opset, expected=[np.asarray(np.linalg.det(x.astype(np.float64)), np.float32)], ulp=2)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_16_bits(dtype):
    x = RNG.standard_normal((6, 4, 4)).astype(dtype)
    check("Det", [x], opset=22, expected=[np.linalg.det(x.astype(np.float64)).astype(dtype)], ulp=1)


def test_edges():
    check("Det", [np.zeros((4, 3, 3), np.float32)])
    check("Det", [np.ones((3, 3), np.float32)])
    check("Det", [np.array([[0, 1], [1, 0]], np.float32)])
    check("Det", [np.eye(5, dtype=np.float32)[[1, 0, 3, 4, 2]] * 2])
    check("Det", [np.zeros((2, 0, 0), np.float32)], expected=[np.ones(2, np.float32)])
    check("Det", [np.zeros((0, 3, 3), np.float32)], expected=[np.ones(0, np.float32)])
    check("Det", [np.full((2, 2), np.nan, np.float32)], expected=[np.asarray(np.nan, np.float32)])


def test_refused():
    fails_everywhere("rank", "Det", [np.zeros(3, np.float32)])
    fails_everywhere("equal", "Det", [np.zeros((2, 3), np.float32)])
    fails_everywhere("float", "Det", [np.zeros((2, 2), np.int32)])
