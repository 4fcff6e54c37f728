"""Losses: their values, and their gradients in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tiercel.training import Loss, loss_names, loss_value

rng = np.random.default_rng(0)
X = rng.standard_normal((6, 5))
T = rng.standard_normal((6, 5))
P = rng.dirichlet(np.ones(5), 6)
LABELS = np.array([0, 4, 1, 1, 2, 3])


def test_cross_entropy_of_seven_tenths() -> None:
    assert float(loss_value("binary_cross_entropy", np.float32([0.7]), np.float32([1]))) == pytest.approx(
        0.3567, abs=5e-5
    )
    scores = np.log(np.float32([[0.3, 0.7]]))
    assert float(loss_value("cross_entropy", scores, np.array([1]))) == pytest.approx(-math.log(0.7), rel=1e-6)
    logit = np.float32([math.log(0.7 / 0.3)])
    assert float(loss_value("binary_cross_entropy_with_logits", logit, np.float32([1]))) == pytest.approx(
        -math.log(0.7), rel=1e-6
    )


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name,options,prediction,target,ours",
    [
        ("mse_loss", {}, X, T, ("mse", {})),
        ("l1_loss", {}, X, T, ("l1", {})),
        ("huber_loss", {"delta": 0.7}, X, T, ("huber", {"delta": 0.7})),
        ("cross_entropy", {}, X, LABELS, ("cross_entropy", {})),
        ("cross_entropy", {}, X, P, ("cross_entropy", {})),
        ("cross_entropy", {"label_smoothing": 0.2}, X, P, ("cross_entropy", {"label_smoothing": 0.2})),
        ("cross_entropy", {"label_smoothing": 0.2}, X, LABELS, ("cross_entropy", {"label_smoothing": 0.2})),
        ("cross_entropy", {"ignore_index": 1}, X, LABELS, ("cross_entropy", {"ignore_index": 1})),
        ("cross_entropy", {"ignore_index": 1, "label_smoothing": 0.2}, X, LABELS, ("cross_entropy", {"ignore_index": 1, "label_smoothing": 0.2})),
        ("binary_cross_entropy", {}, P, rng.uniform(size=P.shape), ("binary_cross_entropy", {})),
        ("binary_cross_entropy_with_logits", {}, 20 * X, P, ("binary_cross_entropy_with_logits", {})),
        ("kl_div", {}, np.log(P), P[::-1].copy(), ("kl", {})),
        ("kl_div", {"log_target": True}, np.log(P), np.log(P[::-1]), ("kl", {"log_target": 1})),
    ],
)  # fmt: skip
def test_against_torch(
    name: str, options: dict[str, Any], prediction: Any, target: Any, ours: tuple[str, dict[str, float]], reduction: str
) -> None:
    torch = pytest.importorskip("torch")
    expected = getattr(torch.nn.functional, name)(
        torch.tensor(prediction), torch.tensor(target), reduction=reduction, **options
    )
    got = loss_value(Loss(ours[0], reduction=reduction, **ours[1]), prediction, target)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [LABELS, P])
def test_class_weights(target: Any, smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    weight = np.float32([0.5, 1, 2, 0.25, 1.5])
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(X), torch.tensor(target), torch.tensor(weight, dtype=torch.float64), label_smoothing=smoothing
    )
    np.testing.assert_allclose(
        loss_value(Loss("cross_entropy", weight=weight, label_smoothing=smoothing), X, target),
        expected.numpy(),
        rtol=1e-6,
    )


def test_others() -> None:
    sign = np.sign(T)
    np.testing.assert_allclose(loss_value("hinge", X, sign), np.maximum(0, 1 - sign * X).mean())
    cosine = (X * T).sum(-1) / np.linalg.norm(X, axis=-1) / np.linalg.norm(T, axis=-1)
    np.testing.assert_allclose(loss_value("cosine", X, T), (1 - cosine).mean())
    np.testing.assert_allclose(
        loss_value(Loss("kl", reduction="batchmean"), np.log(P), P[::-1]),
        (P[::-1] * (np.log(P[::-1]) - np.log(P))).sum() / 6,
    )
    weighted = loss_value(Loss("binary_cross_entropy_with_logits", weight=[2.0]), X, P)
    s = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(weighted, -(2 * P * np.log(s) + (1 - P) * np.log(1 - s)).mean(), rtol=1e-6)


def test_extreme_values_stay_finite() -> None:
    x = np.float32([[1e4, -1e4], [-1e4, 1e4]])
    assert np.isfinite(loss_value("cross_entropy", x, np.array([1, 1])))
    assert np.isfinite(loss_value("binary_cross_entropy_with_logits", x, np.float32([[0, 1], [1, 0]])))
    assert np.isfinite(loss_value("binary_cross_entropy", np.float32([0, 1]), np.float32([1, 0])))


def test_errors() -> None:
    assert "mse" in loss_names()
    with pytest.raises(Exception, match='no loss "huger"; there are: mse'):
        loss_value("huger", X, T)
    with pytest.raises(Exception, match='no option "delat"; it has: delta'):
        loss_value(Loss("huber", delat=2.0), X, T)
    with pytest.raises(Exception, match="reduction"):
        loss_value(Loss("mse", reduction="median"), X, T)
    with pytest.raises(Exception, match=r"target 5 is outside \[0, 4\]"):
        loss_value("cross_entropy", X, np.array([0, 1, 2, 3, 4, 5]))
    with pytest.raises(Exception, match="takes no weight"):
        loss_value(Loss("mse", weight=[1.0]), X, T)
