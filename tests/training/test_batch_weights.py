"""Several batches are as one, whatever their lengths: in accumulate, in evaluate and in the history of fit."""

import numpy as np
import pytest
from training_models import X, Y, plain

from tiercel.training import SGD, Dense, Loss, Sequential, Trainer, loss_value

RNG = np.random.default_rng(3)
IGNORED = np.where(RNG.random(50) < 0.4, -1, Y)
IGNORED[:7] = [-1, 0, -1, -1, -1, -1, 2]
PROBABILITIES = RNG.dirichlet(np.ones(3), 50).astype(np.float32)
VALUES = RNG.standard_normal((50, 3)).astype(np.float32)
WEIGHT = [0.2, 1.0, 3.0]
PARTS = [slice(0, 7), slice(7, 8), slice(8, 50)]

CASES = {
    "labels": (lambda **o: Loss("cross_entropy", **o), Y),
    "class weights": (lambda **o: Loss("cross_entropy", weight=WEIGHT, **o), Y),
    "ignored": (lambda **o: Loss("cross_entropy", ignore_index=-1, **o), IGNORED),
    "ignored with weights": (lambda **o: Loss("cross_entropy", weight=WEIGHT, ignore_index=-1, **o), IGNORED),
    "smoothing": (
        lambda **o: Loss("cross_entropy", weight=WEIGHT, ignore_index=-1, label_smoothing=0.1, **o),
        IGNORED,
    ),
    "probabilities": (lambda **o: Loss("cross_entropy", weight=WEIGHT, **o), PROBABILITIES),
    "mse": (lambda **o: Loss("mse", **o), VALUES),
    "huber": (lambda **o: Loss("huber", delta=0.5, **o), VALUES),
    "cosine": (lambda **o: Loss("cosine", **o), VALUES),
    "logits": (lambda **o: Loss("binary_cross_entropy_with_logits", weight=[2.0], **o), PROBABILITIES),
}
IGNORED[7] = 1  # a part of its own


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", CASES)
def test_accumulated_parts_are_one_batch(case, reduction):
    make, y = CASES[case]
    parts = Trainer(plain(), make(reduction=reduction), SGD(0.01), accumulate=len(PARTS))
    whole = Trainer(plain(), make(reduction=reduction), SGD(0.01))
    for _ in range(3):
        for part in PARTS:
            parts.step(X[part], y[part])
        whole.step(X, y)
    assert parts.steps == whole.steps == 3
    for name, a in whole.weights.items():
        np.testing.assert_allclose(parts.weights[name], a, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", CASES)
def test_evaluation_does_not_depend_on_batches(case, reduction):
    make, y = CASES[case]
    loss = make(reduction=reduction)
    t = Trainer(plain(), loss, SGD(0.01))
    expected = float(loss_value(loss, t.predict(X), y))
    for size in (1, 7, 50):
        assert t.evaluate(X, y, batch_size=size)["loss"] == pytest.approx(expected, rel=1e-6)
    assert t.evaluate([(X[p], y[p]) for p in PARTS])["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["ignored with weights", "mse"])
def test_history_of_an_epoch(case):
    make, y = CASES[case]
    for reduction in ("mean", "sum"):
        loss = make(reduction=reduction)
        t = Trainer(plain(), loss, SGD(0.0))
        history = t.fit([(X[p], y[p]) for p in PARTS])
        assert history["loss"][0] == pytest.approx(float(loss_value(loss, t.predict(X), y)), rel=1e-6)


def test_lengths_of_sequences_have_their_weight():
    """Batches of one number of samples and other numbers of steps."""
    model = Sequential([Dense(3)], ("time", 4), seed=0)
    t = Trainer(model, "mse")
    batches = [(RNG.standard_normal((2, n, 4)).astype(np.float32), np.zeros((2, n, 3), np.float32)) for n in (1, 9)]
    losses = [float(t.evaluate([b])["loss"]) for b in batches]
    assert t.evaluate(batches)["loss"] == pytest.approx((losses[0] + 9 * losses[1]) / 10)


def test_shares():
    assert Loss("mse").share(np.zeros((4, 3))) == 12
    assert Loss("mse").share(np.float32(0.5)) == 1
    assert Loss("mse", reduction="sum").share(np.zeros((4, 3))) == 1
    assert Loss("cosine").share(np.zeros((4, 5, 3))) == 20
    assert Loss("kl", reduction="batchmean").share(np.zeros((4, 3))) == 4
    labels = np.array([[0, 1], [2, 9]])
    assert Loss("cross_entropy").share(labels) == 4
    assert Loss("cross_entropy").share(np.zeros((4, 3, 5))) == 20
    assert Loss("cross_entropy", ignore_index=9).share(labels) == 3
    assert Loss("cross_entropy", weight=[1, 2, 4], ignore_index=9).share(labels) == 7
    assert Loss("ctc").share(np.zeros((4, 9), np.int64)) == 4


def test_a_batch_that_is_all_ignored():
    t = Trainer(plain(), Loss("cross_entropy", ignore_index=-1), SGD(0.1))
    none = np.full(50, -1)
    with pytest.raises(ValueError, match="each of its targets is ignore_index"):
        t.step(X, none)
    assert t.steps == 0
    both = t.evaluate([(X, IGNORED), (X, none)])
    assert both == t.evaluate(X, IGNORED)
    nothing = t.evaluate(X, none)
    assert np.isnan(nothing["loss"]) and np.isnan(nothing["accuracy"])


def test_accuracy_without_what_is_ignored():
    t = Trainer(plain(), Loss("cross_entropy", ignore_index=-1), SGD(0.1))
    right = (t.predict(X).argmax(1) == IGNORED)[IGNORED != -1].mean()
    for size in (9, 50):
        assert t.evaluate(X, IGNORED, batch_size=size)["accuracy"] == pytest.approx(right)
