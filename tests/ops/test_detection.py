"""NonMaxSuppression against onnxruntime: ties, corners in any order, every option left out or given."""

import numpy as np
import pytest

from oracle import against_onnxruntime, fails_everywhere


@pytest.mark.parametrize("seed", range(60))
def test_non_max_suppression(seed):
    rng = np.random.default_rng(seed)
    batch, classes, n = rng.integers(1, 3), rng.integers(1, 4), rng.integers(0, 25)
    boxes = rng.integers(0, 8, (batch, n, 4)) if seed % 2 else rng.random((batch, n, 4)) * 4
    scores = rng.integers(0, 6, (batch, classes, n)) / 5 if seed % 3 == 0 else rng.random((batch, classes, n))
    inputs = [
        boxes.astype(np.float32),
        scores.astype(np.float32),
        np.array([rng.integers(0, 9)], np.int64) if seed % 7 else None,
        np.array([rng.choice([0, 0.3, 0.5, 1])], np.float32) if seed % 5 else None,
        np.array([rng.choice([0, 0.4, 0.9])], np.float32) if seed % 4 else None,
    ]
    against_onnxruntime("NonMaxSuppression", inputs, {"center_point_box": seed % 2}, opset=11)


def test_non_max_suppression_errors():
    boxes, scores, most = np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 3), np.float32), np.array([1], np.int64)
    fails_everywhere("numbers of boxes", "NonMaxSuppression", [boxes, scores[:, :, :2], most], opset=11)
    fails_everywhere("coordinates", "NonMaxSuppression", [boxes[:, :, :3], scores, most], opset=11)
    fails_everywhere("center_point_box", "NonMaxSuppression", [boxes, scores, most], {"center_point_box": 2}, opset=11)
    fails_everywhere("iou_threshold", "NonMaxSuppression", [boxes, scores, most, np.array([1.5], np.float32)], opset=11)


@pytest.mark.parametrize("most, threshold", [(1, 0.5), (7, None), (7, 0.02), (300, 0.3), (4000, None)])
def test_many_candidates(most, threshold):
    """More than are sorted at once; scores that are equal by the dozen."""
    rng = np.random.default_rng(most)
    n = 2500
    corner = rng.uniform(0, 100, (2, n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 30, (2, n, 2))], 2).astype(np.float32)
    scores = (np.round(rng.uniform(-1, 1, (2, 3, n)) * 200) / 200).astype(np.float32)  # zeros of both signs among them
    inputs = [boxes, scores, np.array([most], np.int64), np.array([0.4], np.float32)]
    against_onnxruntime("NonMaxSuppression", inputs + ([np.array([threshold], np.float32)] if threshold is not None else []), opset=11)


def test_no_score_is_above_a_threshold_that_is_no_number():
    boxes, scores = np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]], np.float32), np.array([[[0.9, 0.8]]], np.float32)
    inputs = [boxes, scores, np.array([np.iinfo(np.int64).max]), np.array([0.5], np.float32)]
    against_onnxruntime("NonMaxSuppression", [*inputs, np.array([np.nan], np.float32)], opset=11)
    against_onnxruntime("NonMaxSuppression", inputs, opset=11)
