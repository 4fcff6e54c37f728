"""Connectionist temporal classification: against PyTorch, central differences and a count of all ways; targets; training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gradcheck import check_grad

import tiercel
from tiercel import _core
from tiercel.training import (
    Activation,
    Adam,
    Conv,
    Dense,
    Loss,
    Sequential,
    Trainer,
    ctc_decode,
    ctc_targets,
    loss_gradient,
    loss_value,
)
from tiercel.training.losses import CtcTargets

LABELS = [[1, 2, 2, 3], [5], [], [1, 1]]
STEPS = [12, 3, 5, 7]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def all_ways(x, labels, blank=0):
    """The definition: every sequence of classes that the labels are left of."""
    total = 0.0
    for way in itertools.product(range(x.shape[1]), repeat=len(x)):
        kept = [c for i, c in enumerate(way) if c != blank and (i == 0 or way[i - 1] != c)]
        if kept == list(labels):
            total += np.exp(sum(x[t, c] for t, c in enumerate(way)))
    return -np.log(total)


@pytest.mark.parametrize("labels", [[], [1], [2, 2], [1, 2], [2, 1, 2], [1, 1, 1]])
def test_is_the_sum_over_all_ways(labels):
    x = np.random.default_rng(len(labels)).standard_normal((1, 5, 3))
    got = float(loss_value(Loss("ctc", reduction="sum"), x, ctc_targets([labels])))
    assert got == pytest.approx(all_ways(log_softmax(x)[0], labels), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 4])
@pytest.mark.parametrize("time_first", [False, True])
def test_against_torch(dtype, reduction, blank, time_first):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).standard_normal((4, 12, 6)).astype(dtype)
    labels = [[(c + 3) % 6 if blank else c for c in row] for row in LABELS]
    labels = [[c if c != blank else 0 for c in row] for row in labels]
    scores = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), torch.tensor([c for row in labels for c in row]), torch.tensor(STEPS),
        torch.tensor([len(row) for row in labels]), blank=blank, reduction=reduction,
    )  # fmt: skip
    expected.sum().backward()
    gradient = scores.grad.numpy()
    if time_first:
        x, gradient = x.transpose(1, 0, 2).copy(), gradient.transpose(1, 0, 2)
    loss = Loss("ctc", reduction=reduction, blank=blank, time_first=time_first)
    targets = ctc_targets(labels, STEPS)
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-11, "atol": 1e-13}
    np.testing.assert_allclose(loss_value(loss, x, targets), expected.detach().numpy(), **tolerance)
    got = loss_gradient(loss, x, targets)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, gradient, **tolerance)


def test_log_probabilities_are_scores_too():
    x = np.random.default_rng(2).standard_normal((4, 12, 6))
    y = ctc_targets(LABELS, STEPS)
    assert loss_value("ctc", x, y) == pytest.approx(float(loss_value("ctc", log_softmax(x), y)), rel=1e-12)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_labels_that_do_not_fit(zero_infinity):
    """[1, 1] takes three steps, as a blank stands between; none at all takes none."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(3).standard_normal((4, 4, 3))
    labels, steps = [[1, 1], [1, 1], [1], []], [2, 3, 0, 0]
    scores = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), torch.tensor([c for row in labels for c in row]), torch.tensor(steps),
        torch.tensor([2, 2, 1, 0]), reduction="none", zero_infinity=zero_infinity,
    )  # fmt: skip
    expected.sum().backward()
    loss = Loss("ctc", reduction="none", zero_infinity=zero_infinity)
    np.testing.assert_allclose(loss_value(loss, x, ctc_targets(labels, steps)), expected.detach().numpy())
    got = loss_gradient(loss, x, ctc_targets(labels, steps))
    assert np.isfinite(got[1]).all() and np.isfinite(got).all() == zero_infinity
    np.testing.assert_allclose(got[1], scores.grad.numpy()[1], atol=1e-12)
    if zero_infinity:
        assert not got[0].any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient(seed, reduction):
    rng = np.random.default_rng(seed)
    n, s, classes = int(rng.integers(1, 4)), int(rng.integers(0, 3)), int(rng.integers(2, 5))
    t = 2 * s + 1 + int(rng.integers(0, 3))
    shape = (t, n, classes) if seed % 2 else (n, t, classes)
    labels = rng.integers(0, classes - 1, (n, s))
    inputs = [log_softmax(rng.standard_normal(shape)), labels, rng.integers(max(2 * s, 1), t + 1, n), rng.integers(0, s + 1, n)]
    attributes = {"blank": classes - 1, "reduction": reduction, "time_first": seed % 2}
    check_grad("CtcLoss", inputs, attributes, domain="ai.tiercel")


def test_long_sequences_stay_finite():
    x = np.random.default_rng(4).standard_normal((2, 2000, 40)).astype(np.float32)
    y = ctc_targets(np.random.default_rng(5).integers(1, 40, (2, 300)))
    value, gradient = loss_value("ctc", x, y), loss_gradient("ctc", x, y)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-6)


def test_targets():
    y = ctc_targets([[1, 2], [3]], [5, 4])
    assert isinstance(y, CtcTargets) and y.tolist() == [[5, 1, 2], [4, 3, -1]]
    assert isinstance(y[::-1], CtcTargets) and y[[1]].tolist() == [[4, 3, -1]]
    assert ctc_targets(np.array([[1, 2], [3, 9]]), target_lengths=[2, 1]).tolist() == [[-1, 1, 2], [-1, 3, -1]]
    assert ctc_targets(np.array([[1, -5]])).tolist() == [[-1, 1, -1]]
    assert ctc_targets([[], []]).tolist() == [[-1], [-1]]
    scores = np.eye(3)[[[1, 1, 0, 1, 2], [2, 2, 2, 0, 1]]]
    assert ctc_decode(scores) == [[1, 1, 2], [2, 1]]
    assert ctc_decode(scores, [2, 3]) == [[1], [2]]
    assert ctc_decode(scores, blank=2) == [[1, 0, 1], [0, 1]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[1.5]],), "integers, got float64"),
        (([["a"]],), "integers, got <U1"),
        (([],), "list of sequences"),
        (([1, 2],), "list of sequences"),
        ((np.ones((2, 3, 4), int),), r"\[N, S\], got shape \[2, 3, 4\]"),
        ((np.array([[1, -1, 2]]),), "sample 0 of the labels goes on after padding"),
        (([[1]], [3, 4]), r"input_lengths are \[1\]"),
        (([[1]], [-3]), "within"),
        (([[1]], [2.5]), "integers"),
        (([[1]], None, [2]), r"target_lengths are within \[0, 1\]"),
    ],
)
def test_wrong_targets(arguments, message):
    with pytest.raises(ValueError, match=message):
        ctc_targets(*arguments)


@pytest.mark.parametrize(
    "loss, x, y, message",
    [
        (Loss("ctc"), (1, 4, 3), [[3]], r"label 3 of sample 0 is outside \[0, 2\]"),
        (Loss("ctc"), (1, 4, 3), [[0]], "is the blank, class 0"),
        (Loss("ctc", blank=3), (1, 4, 3), [[1]], "the blank, class 3, is none of the 3 classes"),
        (Loss("ctc", blank=-1), (1, 4, 3), [[1]], "the blank, class -1"),
        (Loss("ctc"), (2, 4, 3), [[1]], "batch"),
        (Loss("ctc"), (4, 3), [[1]], r"scores \[batch, time, classes\]"),
        (Loss("ctc"), (1, 4, 3), ([[1]], [5]), r"input length 5 of sample 0 is outside \[0, 4\]"),
        (Loss("ctc", blnk=1), (1, 4, 3), [[1]], 'no option "blnk"'),
    ],
)
def test_wrong_losses(loss, x, y, message):
    with pytest.raises((tiercel.errors.Error, ValueError), match=message):
        loss_value(loss, np.zeros(x, np.float32), y)


def sequences(n, steps=16, classes=4):
    """Sounds one after another, each of two to four steps; and what they are."""
    rng = np.random.default_rng(0)
    x, labels = np.zeros((n, classes, steps), np.float32), []
    for sample in x:
        row = rng.integers(1, classes, rng.integers(2, 5)).tolist()
        at = 0
        for c in row:
            length = int(rng.integers(2, 4))
            sample[c, at : at + length] = 1
            at += length + 1
        labels.append(row)
    return x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), labels


def recognizer():
    from tiercel.training.layers import Permute

    return Sequential([Conv(16, 5, activation="relu"), Permute(2, 1), Dense(4)], input_shape=(4, 16), seed=0)


def test_training():
    x, labels = sequences(64)
    trainer = Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2))
    history = trainer.fit(x, ctc_targets(labels), epochs=80, batch_size=16, validation=0.25)
    assert history["val_loss"][-1] < 0.1 * history["val_loss"][0]
    assert "val_accuracy" not in history
    right = sum(got == want for got, want in zip(ctc_decode(trainer.predict(x)), labels, strict=True))
    assert right >= 60
    assert trainer.evaluate(x, labels)["loss"] == pytest.approx(trainer.evaluate([(x, labels)])["loss"], rel=1e-6)


def test_a_batch_that_does_not_fit_changes_nothing():
    x, labels = sequences(4)
    trainer = Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2))
    before = {n: a.copy() for n, a in trainer.weights.items()}
    with pytest.raises(tiercel.errors.Error, match='not finite.*CtcLoss node "loss".*unchanged'):
        trainer.step(x, (labels, [1, 1, 1, 1]))
    with pytest.raises(tiercel.errors.Error, match="extent 0 of the target"):
        trainer.step(x, labels[:3])
    with pytest.raises(ValueError, match="integers"):
        trainer.step(x, np.ones((4, 3)))
    assert all((a == before[n]).all() for n, a in trainer.weights.items())
    skipping = Trainer(recognizer(), loss=Loss("ctc", zero_infinity=True), optimizer=Adam(1e-2))
    assert skipping.step(x, (labels, [1, 16, 16, 16])) > 0


def test_a_model_that_ends_in_a_softmax():
    x, labels = sequences(8)
    model = recognizer()
    plain = Trainer(model, loss="ctc")
    layers = [*model.layers, Activation("softmax")]
    ended = Trainer(Sequential(layers, input_shape=(4, 16), seed=0), loss="ctc")
    assert ended.step(x, labels) == pytest.approx(plain.step(x, labels), rel=1e-6)


def test_a_checkpoint_goes_on(tmp_path):
    x, labels = sequences(16)
    whole = Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2))
    whole.fit(x, ctc_targets(labels), epochs=3, batch_size=8)
    part = Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2))
    part.fit(x, ctc_targets(labels), epochs=2, batch_size=8)
    part.save_checkpoint(tmp_path / "c")
    again = Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2))
    again.load_checkpoint(tmp_path / "c")
    assert again.evaluate(x, labels) == part.evaluate(x, labels)
    sums = Trainer(recognizer(), loss="ctc", accumulate=2)
    assert np.isfinite(sums.fit(x, ctc_targets(labels), batch_size=4)["loss"][0])


def test_same_bits_on_any_number_of_threads():
    x, labels = sequences(32)
    first, second = (Trainer(recognizer(), loss="ctc", optimizer=Adam(1e-2), threads=n) for n in (1, 2))
    for _ in range(3):
        assert first.step(x, labels) == second.step(x, labels)
    assert all((a == second.weights[n]).all() for n, a in first.weights.items())


@pytest.mark.parametrize(
    "shape, labels, lengths, value",
    [
        ((2, 4, 3), (2, 0), None, 4 * np.log(3)),  # blanks alone
        ((2, 0, 3), (2, 0), None, 0),
        ((2, 0, 3), (2, 1), None, np.inf),
        ((2, 4, 1), (2, 0), None, 0),
        ((0, 4, 3), (0, 2), None, np.nan),
        ((2, 4, 3), (2, 1), [-2, 1], "input length -2 of sample 0"),
        ((2, 4, 3), (2, 1), [2**62, 1], "input length 4611686018427387904"),
        ((2, 4, 0), (2, 0), None, "none of the 0 classes"),
        ((2, 4, 3), (3, 1), None, "should be equal, got 2 and 3"),
        ((2, 4, 3), (2,), None, r"labels should be \[N, S\]"),
        ((4, 3), (2, 1), None, r"should be \[N, T, C\], got \[4,3\]"),
        ((), (2, 1), None, r"should be \[N, T, C\], got \[\]"),
    ],
)
def test_the_operator_on_the_edge(shape, labels, lengths, value):
    x = np.full(shape, -np.log(max(shape[-1], 1)) if shape else 0, np.float32)
    inputs = [x, np.ones(labels, np.int64), *([] if lengths is None else [np.array(lengths)])]

    def run():
        return _core.evaluate_node("CtcLoss", "ai.tiercel", 1, inputs, [True, True], [])

    if isinstance(value, str):
        with pytest.raises(tiercel.errors.Error, match=value):
            run()
    else:
        np.testing.assert_allclose(run()[0], value, rtol=1e-6, atol=1e-6)
