"""Reductions against the reference evaluator: every opset, axes as attribute and input, all dtypes, empty sets, NaN."""

import itertools

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from oracle import check, one_node

OPS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]
AXES_INPUT_SINCE = {"Sum": 13}
RNG = np.random.default_rng(1)


def data(shape, dtype="float32"):
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(1, 7, shape).astype(dtype)
    return np.asarray(RNG.random(shape) + 0.5).astype(dtype)


def reduce(op, x, axes, keepdims=1, opset=18, noop=None, **kw):
    attrs = {"keepdims": keepdims}
    inputs = [x]
    if opset >= AXES_INPUT_SINCE.get(op, 18):
        inputs.append(None if axes is None else np.array(axes, "int64"))
        if noop is not None:
            attrs["noop_with_empty_axes"] = noop
    elif axes is not None:
        attrs["axes"] = list(axes)
    return check(f"Reduce{op}", inputs, attrs, opset=opset, **kw)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes(op, keepdims):
    x = data((2, 3, 4, 5))
    for n in range(5):
        for axes in itertools.combinations(range(4), n):
            reduce(op, x, axes or None, keepdims, ulp=16)
    reduce(op, x, [-1, 1], keepdims, ulp=16)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("opset", [6, 11, 13, 18, 20])
def test_opsets(op, opset):
    x = data((3, 4, 5))
    for axes in ([1], [0, 2], None):
        reduce(op, x, axes, opset=opset, ulp=16)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "uint32", "uint64"])
def test_dtypes(op, dtype):
    if op.startswith("Log") and np.dtype(dtype).kind in "iu":
        pytest.skip("the reference has no integer logarithms")
    x = data((3, 4, 5), dtype)
    for axes in ([0], [1], [2], [0, 2], None):
        want = None
        if op in ("L1", "SumSquare") and np.dtype(dtype).kind in "iu":  # the reference widens these
            terms = np.abs(x) if op == "L1" else x * x
            want = [terms.sum(axis=None if axes is None else tuple(axes), keepdims=True, dtype=dtype)]
        reduce(op, x, axes, ulp=16 if dtype == "float16" else 8, expected=want)


def test_small_integers_and_bool():
    for dtype in ("int8", "uint8"):
        x = RNG.integers(-100 if dtype == "int8" else 0, 100, (4, 5)).astype(dtype)
        for op in ("Max", "Min"):
            reduce(op, x, [1], opset=20)
    b = np.array([[True, True], [True, False], [False, False]])
    for op in ("Max", "Min"):
        reduce(op, b, [1], opset=20)
        reduce(op, b, None, 0, opset=20)
        reduce(op, np.zeros((2, 0), bool), [1], opset=20)


@pytest.mark.parametrize("op", OPS)
def test_shapes(op):
    for shape, axes in [
        ((100, 3), [0]), ((5000, 3), [0]), ((3, 5000), [1]), ((2, 70000), [1]), ((3000, 70), [0]), ((2, 600, 33), [1]),
        ((2, 3, 33, 40), [0, 2]), ((2, 3, 33, 40), [0, 3]), ((7, 33, 2, 3), [0, 2]), ((40, 3, 70, 9), [0, 2]),
        ((90, 2, 33, 7), [0, 3]), ((3, 1, 5, 1), [1, 2]), ((), None), ((1, 1), [0]), ((1, 16, 37, 41), [2, 3]),
    ]:  # fmt: skip
        x = data(shape)
        if op == "Prod":
            x = np.asarray(np.exp((x - 1) * 0.001).astype("float32"))
        want = None
        if op in ("Sum", "Mean", "Prod", "L1", "L2", "LogSum", "SumSquare", "LogSumExp") and shape:  # float32 sums of numpy are worse than ours
            inputs = [np.asarray(x.astype("float64")), None if axes is None else np.array(axes, "int64")]
            model, feeds, names = one_node(f"Reduce{op}", inputs, {}, 18)
            want = [np.asarray(ReferenceEvaluator(model).run(names, feeds)[0]).astype("float32")]
        elif op == "LogSumExp":
            want = [x]
        reduce(op, x, axes, ulp=2000 if op == "Prod" else 8, expected=want)


@pytest.mark.parametrize("op", OPS)
def test_empty(op):
    for shape, axes in [((2, 0, 3), [1]), ((2, 0, 3), [0]), ((0,), [0]), ((0, 4), [1]), ((3, 0), [1])]:
        if op == "Mean" and 0 in [shape[a] for a in axes]:
            want = np.full([1 if i in axes else s for i, s in enumerate(shape)], np.nan, "float32")
            reduce(op, np.zeros(shape, "float32"), axes, expected=[want])
        elif op in ("Max", "Min", "LogSum", "LogSumExp") and 0 not in [shape[a] for a in axes]:
            want = np.zeros([1 if i in axes else s for i, s in enumerate(shape)], "float32")
            reduce(op, np.zeros(shape, "float32"), axes, expected=[want])
        else:
            reduce(op, np.zeros(shape, "float32"), axes)
    if op in ("Max", "Min", "Prod", "Sum"):
        reduce(op, np.zeros((2, 0), "int32"), [1])


@pytest.mark.parametrize("op", OPS)
def test_noop_with_empty_axes(op):
    x = data((2, 3))
    want = {"L1": np.abs(x), "L2": np.abs(x), "LogSum": np.log(x), "SumSquare": x * x}.get(op, x)
    reduce(op, x, None, noop=1, expected=[want])
    reduce(op, x, [], noop=1, expected=[want])
    reduce(op, x, [], noop=0, ulp=16)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "LogSumExp"])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_specials(op):
    x = data((4, 50))
    x[0, 3], x[1, 7], x[2, 49] = np.nan, np.inf, -np.inf
    want = None
    if op == "LogSumExp":
        want = [np.logaddexp.reduce(x.astype("float64"), axis=1, keepdims=True).astype("float32")]
    reduce(op, x, [1], expected=want)
    if op == "LogSumExp":
        want = [np.logaddexp.reduce(x.astype("float64"), axis=0, keepdims=True).astype("float32")]
    reduce(op, x, [0], expected=want)
    big = np.array([[1000.0, 1000.5], [-1000.0, -1000.5], [-np.inf, -np.inf]], "float32")
    if op == "LogSumExp":
        reduce(op, big, [1], expected=[np.logaddexp.reduce(big.astype("float64"), axis=1, keepdims=True).astype("float32")])


def test_errors():
    x = data((2, 3))
    for axes, what in [([2], "axis 2"), ([-3], "axis -3"), ([0, 0], "twice"), ([1, -1], "twice")]:
        with pytest.raises(Exception, match=what):
            reduce("Sum", x, axes, expected=[x])
    with pytest.raises(Exception, match="does not reduce string"):
        check("ReduceSum", [np.array(["a"])], {}, expected=[x])
