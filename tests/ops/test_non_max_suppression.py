"""NonMaxSuppression, against onnxruntime."""

import numpy as np
import onnxruntime
import pytest

import tiercel
from oracle import one_node

RNG = np.random.default_rng(8)


def run(boxes, scores, most=None, iou=None, score=None, center=0):
    inputs = [boxes, scores] + [None if v is None else np.array([v], t) for v, t in ((most, "int64"), (iou, "float32"), (score, "float32"))]
    while inputs[-1] is None:
        inputs.pop()
    model, feeds, names = one_node("NonMaxSuppression", inputs, {"center_point_box": center}, 11)
    data = model.SerializeToString()
    got = tiercel.InferenceSession(data).run(names, feeds)[0]
    np.testing.assert_array_equal(got, onnxruntime.InferenceSession(data).run(names, feeds)[0])
    return got


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("score", [None, 0.5])
def test_random_boxes(center, iou, score):
    corner = RNG.random((2, 60, 2)).astype("float32")
    boxes = np.concatenate([corner, corner + RNG.random((2, 60, 2)).astype("float32") * 0.4], 2)
    assert len(run(boxes, RNG.random((2, 3, 60)).astype("float32"), 20, iou, score, center))


def test_flipped_corners_and_equal_boxes():
    box = np.array([[[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0], [2, 2, 3, 3]]], "float32")
    assert len(run(box, np.array([[[0.9, 0.8, 0.7, 0.1]]], "float32"), 10, 0.5)) == 2


@pytest.mark.parametrize("most", [None, 0, 1])
def test_few(most):
    assert len(run(RNG.random((1, 5, 4)).astype("float32"), RNG.random((1, 2, 5)).astype("float32"), most, 0.5)) == 2 * (most or 0)


def test_nothing_above_the_threshold():
    assert run(RNG.random((1, 5, 4)).astype("float32"), np.zeros((1, 1, 5), "float32"), 5, 0.5, 0.2).shape == (0, 3)


def test_wrong_shapes():
    model, _, _ = one_node("NonMaxSuppression", [np.zeros((1, 5, 4), "float32"), np.zeros((1, 1, 6), "float32")], {}, 11)
    with pytest.raises(tiercel.errors.Error, match="numbers of boxes and of scores"):
        tiercel.InferenceSession(model.SerializeToString())
