"""cross_entropy with class numbers or with probabilities: the first step decides, evaluation takes both."""

import numpy as np
import pytest
from training_models import X, Y, plain, trainer

from tiercel.training import SGD, Activation, CheckpointError, Dense, LoRA, Loss, Sequential, Trainer, loss_value

SOFT = np.random.default_rng(4).dirichlet(np.ones(3), 50).astype(np.float32)
ONE_HOT = np.eye(3)[Y]


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"trainable": LoRA(2)}, {"trainable": "head"}])
def test_what_was_looked_at_first_does_not_matter(options, tmp_path):
    plainly = trainer(plain(), **options)
    looked = trainer(plain(), **options)
    assert looked.weights and looked.predict(X).shape == (50, 3) and looked.memory()
    looked.save(tmp_path / "m.onnx")
    looked.evaluate(X, Y)
    for t in (plainly, looked):
        assert np.isfinite(t.fit(X, SOFT, epochs=2)["loss"]).all()
    assert all((a == looked.weights[n]).all() for n, a in plainly.weights.items())


def test_changed_weights_stay():
    t = trainer(plain())
    for w in t.weights.values():
        w[...] = 0.25
    lora = trainer(plain(), trainable=LoRA(2))
    for w in lora.weights.values():
        w[...] = 0.5
    for one, value in ((t, 0.25), (lora, 0.5)):
        one.optimizer.lr = 0.0
        one.step(X, SOFT)
        assert all((w == np.float32(value)).all() for w in one.weights.values())


@pytest.mark.parametrize("options", [{}, {"trainable": LoRA(2)}, {"accumulate": 2}])
@pytest.mark.parametrize("first, second", [(Y, SOFT), (SOFT, Y)])
def test_evaluation_takes_the_other_form(first, second, options):
    t = trainer(plain(), **options)
    for _ in range(2):
        for _ in range(2):
            t.step(X, first)
        before = {n: a.copy() for n, a in t.model_state().items()}
        for y in (second, first):
            assert t.evaluate(X, y)["loss"] == pytest.approx(float(loss_value(t.loss, t.predict(X), y)), rel=1e-5)
            assert ("accuracy" in t.evaluate(X, y)) == (y is Y)
        assert all((a == before[n]).all() for n, a in t.model_state().items())
    history = t.fit(X, first, epochs=2, validation=(X, second))
    assert len(history["val_loss"]) == 2
    with pytest.raises(ValueError, match="a training keeps to one form"):
        t.step(X, second)
    assert np.isfinite(t.step(X, first))


def test_one_evaluation_of_both():
    t = trainer(plain())
    t.step(X, Y)
    both = t.evaluate([(X, Y), (X, SOFT)])
    assert both["loss"] == pytest.approx((t.evaluate(X, Y)["loss"] + t.evaluate(X, SOFT)["loss"]) / 2)
    assert both["accuracy"] == t.evaluate(X, Y)["accuracy"]


def test_a_softmax_at_the_end_in_both_forms():
    t = Trainer(Sequential([Dense(3), Activation("softmax")], (4,), seed=0), "cross_entropy", SGD(0.1))
    t.step(X, Y)
    assert t.evaluate(X, ONE_HOT)["loss"] == pytest.approx(t.evaluate(X, Y)["loss"], rel=1e-6)


def test_whole_one_hot_rows():
    t = trainer(plain())
    for call in (t.step, t.evaluate, t.fit):
        with pytest.raises(ValueError, match=r"int64\[(50|32), 3\].*y.argmax\(axis=1\).*y.astype\(np.float32\)"):
            call(X, ONE_HOT.astype(np.int64))
    with pytest.raises(ValueError, match="one-hot"):
        loss_value("cross_entropy", X, np.eye(4, dtype=np.int64)[:1].repeat(50, 0))
    assert np.isfinite(t.step(X, ONE_HOT))


def test_checkpoints_of_both_forms(tmp_path):
    soft, again = trainer(plain()), trainer(plain())
    soft.step(X, SOFT)
    soft.save_checkpoint(tmp_path / "c")
    again.evaluate(X, Y)
    again.load_checkpoint(tmp_path / "c")
    assert soft.step(X, SOFT) == again.step(X, SOFT)
    hard = trainer(plain())
    hard.step(X, Y)
    with pytest.raises(CheckpointError, match="other targets"):
        hard.load_checkpoint(tmp_path / "c")
    assert np.isfinite(hard.step(X, Y))


def test_class_weights_in_both_forms():
    t = Trainer(plain(), Loss("cross_entropy", weight=[1, 2, 4]), SGD(0.1))
    t.step(X, SOFT)
    assert t.evaluate(X, Y)["loss"] == pytest.approx(float(loss_value(t.loss, t.predict(X), Y)), rel=1e-5)
