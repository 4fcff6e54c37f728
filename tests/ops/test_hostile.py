"""Nodes that ask for the impossible: huge results, numbers that are taken for symbols, crops at infinity. Errors, and no crash."""

import numpy as np
import pytest

import tiercel
from oracle import one_node
from tiercel.errors import Error

X = np.ones((1, 4, 5, 6), np.float32)
W = np.ones((4, 4, 3, 3), np.float32)
HUGE = [2**31 - 1, 2**40, 2**62, 2**63 - 1]


def ints(*v):
    return np.array(v, np.int64)


def run(op, inputs, attrs=None, opset=17, constants=(), dynamic=False, outputs=1):
    model, feeds, _ = one_node(op, inputs, attrs, opset, outputs=outputs, constants=constants, dynamic=dynamic)
    return tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)


def refused(op, inputs, attrs=None, opset=17):
    every = tuple(i for i, v in enumerate(inputs) if v is not None)
    for constants, dynamic in (((), True), ((), False), (every[1:], False), (every, False)):
        with pytest.raises(Error):
            run(op, inputs, attrs, opset, constants, dynamic)


@pytest.mark.parametrize("n", HUGE[1:])
def test_results_beyond_any_memory(n):
    refused("ConstantOfShape", [ints(n)])
    refused("ConstantOfShape", [ints(n, n)])
    refused("Expand", [X, ints(n, 1, 1, 1, 1)])
    refused("Tile", [X, ints(1, 1, 1, n)])
    refused("Range", [np.int64(0), np.int64(n), np.int64(1)])
    refused("Pad", [X, ints(0, 0, 0, 0, 0, 0, 0, n)])
    refused("Resize", [X, None, None, ints(1, 4, 5, n)])
    refused("OneHot", [ints(0, 1), np.int64(n), np.array([0, 1], np.float32)])
    refused("TopK", [X, ints(n)])
    refused("MaxUnpool", [X, np.zeros(X.shape, np.int64), ints(1, 4, 5, n)], {"kernel_shape": [1, 1]})


def test_windows_beyond_any_memory():
    for huge in (2**31 - 1, 2**31):
        refused("Conv", [X, W], {"pads": [0, huge, 0, huge]})
        refused("ConvTranspose", [X, W], {"strides": [huge, 1]})
        refused("ConvTranspose", [X, W], {"strides": [1, 1], "output_padding": [0, huge]})
        refused("MaxPool", [X], {"kernel_shape": [3, 3], "pads": [0, huge, 0, huge]})
        refused("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [0, huge, 0, huge]})


@pytest.mark.parametrize("low", [-(2**63), -(2**63) + 1, -(2**62), -1])
def test_numbers_that_are_no_extents(low):
    refused("Split", [X], {"axis": 1, "split": [low, 2]}, opset=11)
    refused("Split", [X, ints(low, 2)], {"axis": 1})
    refused("ConstantOfShape", [ints(low)])
    refused("Expand", [X, ints(low, 1)])
    refused("Tile", [X, ints(1, 1, 1, low)])
    refused("Resize", [X, None, None, ints(1, 4, 5, low)])
    refused("Conv", [X, W], {"strides": [low, 1]})
    refused("Conv", [X, W], {"dilations": [low, 1]})
    refused("Conv", [X, W], {"group": low})
    refused("MaxPool", [X], {"kernel_shape": [low, 1]})


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e30])
def test_resize_by_such_scales(scale):
    refused("Resize", [X, None, np.array([1, 1, scale, 1], np.float32)])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("edge", [float("nan"), float("inf"), float("-inf"), 1e38, -1e38])
@pytest.mark.parametrize("at", range(8))
def test_crops_at_infinity_lie_outside(mode, edge, at):
    roi = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    roi[at] = edge
    attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    (y,) = run("Resize", [X, roi, np.array([1, 1, 2, 2], np.float32)], attrs, constants=(1, 2))
    assert y.shape == (1, 4, 10, 12)
    assert mode == "cubic" or (np.isclose(y, 1) | np.isclose(y, 7)).all()


def test_attributes_that_do_not_fit():
    refused("Conv", [X, W], {"group": 3})
    refused("Transpose", [X], {"perm": [0, 1, 1, 2]})
    refused("Transpose", [X], {"perm": [0, 1, 2, 4]})
    refused("Concat", [X, X], {"axis": 4})
    refused("Softmax", [X], {"axis": -5})
    refused("Gather", [X, ints(0)], {"axis": 2**62})
    refused("ReduceMean", [X], {"axes": [4]})
    refused("DepthToSpace", [X], {"blocksize": 2**31})
    refused("Einsum", [X, X], {"equation": "abcd,abcd->x"})
    refused("Einsum", [X], {"equation": "abc->a"})
    refused("Einsum", [X], {"equation": "ab..cd->a"})
    refused("Einsum", [X, X], {"equation": "abcd->a"})


def test_a_session_survives_its_refusals():
    model, feeds, _ = one_node("ConstantOfShape", [ints(2, 3)], opset=17, dynamic=True)
    session = tiercel.InferenceSession(model.SerializeToString())
    for _ in range(3):
        with pytest.raises(Error):
            session.run(None, {"x0": ints(2**40, 2**20)})
        assert session.run(None, feeds)[0].shape == (2, 3)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_windows_far_larger_than_the_image(op, dtype):
    x = np.arange(120, dtype=dtype).reshape(1, 4, 5, 6)
    attrs = {"kernel_shape": [3, 2**31 - 1], "auto_pad": "SAME_LOWER"}
    results = run(op, [x], attrs, outputs=2 if op == "MaxPool" else 1)
    assert results[0].shape == x.shape
    if op == "MaxPool":
        np.testing.assert_array_equal(results[0][..., 0], np.maximum.reduce([np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))[:, :, i : i + 5] for i in range(3)]).max(-1))


@pytest.mark.timeout(60)
def test_nothing_at_all_of_a_huge_shape():
    """Results without elements, whose other extents would fill the memory if a table were made of them."""
    none = np.ones((0, 4, 5, 6), np.float32)
    huge = 2**31 - 1
    for op, inputs, attrs in (
        ("Pad", [none, ints(0, 0, 0, 0, 0, 0, 0, 2**40)], None),
        ("Resize", [none, None, None, ints(0, 4, 5, 2**40)], None),
        ("Tile", [none, ints(1, 1, 1, 2**40)], None),
        ("Conv", [none, W], {"pads": [0, huge, 0, huge]}),
        ("ConvTranspose", [none, W], {"strides": [huge, 1]}),
        ("MaxPool", [none], {"kernel_shape": [3, 3], "pads": [0, 2, 0, 2], "strides": [1, huge]}),
        ("AveragePool", [none], {"kernel_shape": [3, 3], "pads": [0, huge, 0, huge]}),
    ):
        for constants in ((), tuple(range(1, len(inputs)))):
            try:
                (y,) = run(op, inputs, attrs, constants=tuple(i for i in constants if inputs[i] is not None))
            except Error:
                continue  # refusing is fine, too
            assert y.size == 0
