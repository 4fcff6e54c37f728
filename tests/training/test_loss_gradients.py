"""Losses and their gradients, with every option, against PyTorch; many classes and images."""

from __future__ import annotations

import numpy as np
import pytest

from tiercel.training import Loss, loss_gradient, loss_value

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))
T = RNG.standard_normal((6, 5))
P = RNG.dirichlet(np.ones(5), 6)
U = RNG.uniform(size=(6, 5))
LABELS = np.array([0, 4, 1, 1, 2, 3])
WEIGHT = np.array([0.5, 1, 2, 0.25, 1.3])
IMAGE, IMAGE_LABELS = RNG.standard_normal((2, 5, 7, 3)), RNG.integers(0, 5, (2, 7, 3))
IMAGE_P = np.moveaxis(RNG.dirichlet(np.ones(5), (2, 7, 3)), -1, 1)

CROSS_ENTROPY = [
    {"weight": weight, "ignore_index": ignore, "label_smoothing": smoothing}
    for weight in (None, WEIGHT)
    for ignore in (None, 1)
    for smoothing in (0.0, 0.2)
]
CASES = [
    *(("cross_entropy", o, x, t) for o in CROSS_ENTROPY for x, t in ((X, LABELS), (IMAGE, IMAGE_LABELS))),
    *(("cross_entropy", o, x, t) for o in CROSS_ENTROPY if o["ignore_index"] is None for x, t in ((X, P), (IMAGE, IMAGE_P))),
    ("binary_cross_entropy_with_logits", {}, 20 * X, U),
    ("binary_cross_entropy_with_logits", {"weight": WEIGHT}, X, U),
    ("binary_cross_entropy_with_logits", {"weight": WEIGHT}, 200 * X, (U > 0.5).astype(float)),
    ("binary_cross_entropy", {}, P, U),
    ("mse", {}, X, T),
    ("l1", {}, X, T),
    ("huber", {"delta": 0.7}, X, T),
    ("kl", {}, np.log(P), P[::-1].copy()),
    ("kl", {"log_target": True}, np.log(P), np.log(P[::-1])),
]  # fmt: skip
NAMES = {"mse": "mse_loss", "l1": "l1_loss", "huber": "huber_loss", "kl": "kl_div"}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_against_torch(case, reduction, dtype):
    torch = pytest.importorskip("torch")
    name, options, x, target = CASES[case]
    options = {key: v for key, v in options.items() if v is not None}
    x = x.astype(dtype)
    target = target if target.dtype.kind == "i" else target.astype(dtype)
    theirs = {key: v for key, v in options.items() if key != "weight"}
    if "weight" in options:
        theirs["pos_weight" if "logits" in name else "weight"] = torch.tensor(options["weight"].astype(dtype))
    prediction = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, NAMES.get(name, name))(prediction, torch.tensor(target), reduction=reduction, **theirs)
    expected.sum().backward()
    loss = Loss(name, reduction=reduction, **options)
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(loss_value(loss, x, target), expected.detach().numpy(), **tolerance)
    got = loss_gradient(loss, x, target)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, prediction.grad.numpy(), **tolerance)


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("shape", [(3, 50_257), (1, 1), (4, 2), (17, 10), (5, 33), (2, 5, 700), (2, 3, 1, 1), (1, 300, 16, 17)])
@pytest.mark.parametrize("ignored", [None, 0])
def test_classes_in_single_precision(shape, ignored):
    rng = np.random.default_rng(len(shape))
    x = (3 * rng.standard_normal(shape)).astype(np.float32)
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    labels.flat[-1] = shape[1] - 1
    loss = Loss("cross_entropy", **({} if ignored is None else {"ignore_index": ignored}))
    counts = np.ones(labels.shape) if ignored is None else labels != ignored
    if not counts.any():
        return
    p = softmax(x.astype(np.float64))
    hot = np.moveaxis(np.arange(shape[1]) == labels[..., None], -1, 1)
    value = -(np.log(p) * hot * np.expand_dims(counts, 1)).sum() / counts.sum()
    assert float(loss_value(loss, x, labels)) == pytest.approx(value, rel=1e-5, abs=1e-6)
    gradient = (p - hot) * np.expand_dims(counts, 1) / counts.sum()
    np.testing.assert_allclose(loss_gradient(loss, x, labels), gradient, rtol=2e-5, atol=1e-7 / counts.sum())


def test_an_ignored_sample_that_is_not_finite_does_not_matter():
    x = np.zeros((2, 3), np.float32)
    x[1] = np.nan
    loss = Loss("cross_entropy", ignore_index=2)
    assert float(loss_value(loss, x, np.array([0, 2]))) == pytest.approx(np.log(3))
    assert not loss_gradient(loss, x, np.array([0, 2]))[1].any()


def test_wrong_weights():
    for weight in ([np.nan, 1], [-1.0, 1]):
        with pytest.raises(ValueError, match="finite and not negative"):
            Loss("cross_entropy", weight=weight)
    with pytest.raises(Exception, match=r"weights and classes|weight"):
        loss_value(Loss("cross_entropy", weight=[1.0, 2.0]), X, LABELS)
    with pytest.raises(TypeError, match="the option delta is a number, not 'x'"):
        Loss("huber", delta="x")
