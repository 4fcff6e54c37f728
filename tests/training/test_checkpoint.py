"""Checkpoints: going on is as never having stopped; a bad file changes nothing."""

import numpy as np
import pytest
from training_models import X, Y, classifier, plain, same_bits, trainer

from tiercel.training import (
    Adam,
    Callback,
    Checkpoint,
    CheckpointError,
    Dense,
    EarlyStopping,
    Loss,
    ReduceOnPlateau,
    Sequential,
    Trainer,
    checkpoint,
)


class Stopped(Exception):
    pass


class StopAt(Callback):
    """Saves after that batch, and breaks off after the next."""

    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_batch(self, trainer, batch, loss):
        if batch == self.batch:
            trainer.save_checkpoint(self.path)
        if batch == self.batch + 1:
            raise Stopped


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop", [1, 5, 6, 13])
@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop", "adagrad", "adamw", "lion"])
def test_resume_is_exact(tmp_path, stop, accumulate, optimizer):
    path = tmp_path / "run.ckpt"
    settings = dict(epochs=4, batch_size=8, validation=0.2, seed=3)
    whole = trainer(optimizer=optimizer, accumulate=accumulate)
    expected = whole.fit(X, Y, **settings)
    first = trainer(optimizer=optimizer, accumulate=accumulate)
    with pytest.raises(Stopped):
        first.fit(X, Y, **settings, callbacks=[StopAt(path, stop)])
    second = trainer(optimizer=optimizer, accumulate=accumulate)
    history = second.fit(X, Y, **settings, resume=path)
    assert history["loss"] == expected["loss"]
    assert history["val_loss"] == expected["val_loss"]
    assert second.steps == whole.steps
    assert same_bits(whole, second)


def test_checkpoints_every_few_batches(tmp_path):
    path = tmp_path / "run.ckpt"
    seen = []

    class Look(Callback):
        def on_batch(self, trainer, batch, loss):
            seen.append((batch, path.exists()))

    trainer(accumulate=2).fit(X, Y, batch_size=10, callbacks=[Checkpoint(path, every=3), Look()])
    assert seen == [(1, False), (2, False), (3, False), (4, True), (5, True)]


def test_resume_with_schedule_and_early_stopping(tmp_path):
    path = tmp_path / "run.ckpt"

    def fit(epochs, resume=None):
        t = trainer(optimizer=Adam(ReduceOnPlateau(1e-2, patience=1)))
        stopping = EarlyStopping(patience=4)
        history = t.fit(X, Y, epochs=epochs, batch_size=16, validation=0.2, callbacks=[stopping, Checkpoint(path)], resume=resume)
        return t, history, stopping

    whole, expected, stopping = fit(30)
    assert len(expected["loss"]) < 30  # it stopped early
    fit(3)
    resumed, history, again = fit(30, path)
    assert history["loss"] == expected["loss"]
    assert (again.best, again.best_epoch) == (stopping.best, stopping.best_epoch)
    assert resumed.optimizer.lr.lr == whole.optimizer.lr.lr
    assert same_bits(whole, resumed)


def test_outside_a_fit(tmp_path):
    path = tmp_path / "a.ckpt"
    a, b = trainer(), trainer()
    for _ in range(3):
        a.step(X, Y)
    a.save_checkpoint(path)
    b.load_checkpoint(path)
    assert a.step(X, Y) == b.step(X, Y)
    assert same_bits(a, b)
    with pytest.raises(CheckpointError, match="not saved during a fit"):
        trainer().fit(X, Y, resume=path)


def with_loss(**options):
    return Trainer(classifier(), Loss("cross_entropy", **options), Adam(1e-2))


def test_another_learning_rate_may_go_on(tmp_path):
    a, b = trainer(optimizer=Adam(1e-2)), trainer(optimizer=Adam(1e-4))
    a.step(X, Y)
    a.save_checkpoint(tmp_path / "c")
    b.load_checkpoint(tmp_path / "c")
    assert same_bits(a, b)


@pytest.mark.parametrize("name, what", [("dense0.weight", "the weight 'dense0.weight'"), ("tiercel_v dense0.bias", "the second moment of 'dense0.bias'")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, name, what, bad):
    path = tmp_path / "c"
    t = trainer(plain(), optimizer=Adam(1e-2))
    t.fit(X, Y, callbacks=[Checkpoint(path)])
    good = path.read_bytes()
    dict(t._core.state())[name][..., 0] = bad
    with pytest.raises(CheckpointError, match=f"{what} is not finite after step 2"):
        t.save_checkpoint(path)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]


def test_a_bad_end_of_a_fit_leaves_the_good_file(tmp_path):
    path = tmp_path / "c"

    def spoil(trainer, epoch, history):
        if epoch == 1:
            next(iter(trainer.weights.values()))[...] = np.nan

    t = trainer(plain())
    with pytest.raises(CheckpointError, match="the weight 'dense0.weight' is not finite"):
        t.fit(X, Y, epochs=3, callbacks=[spoil, Checkpoint(path)])
    again = trainer(plain())
    again.load_checkpoint(path)
    assert again.epochs == 1 and all(np.isfinite(a).all() for a in again.weights.values())


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda meta: meta["fit"].pop("epoch"), "epoch of its fit is None"),
        (lambda meta: meta["fit"].update(batch=-1), "batch of its fit is -1"),
        (lambda meta: meta["fit"]["history"].update(loss=[]), "history is not one of 1 epochs"),
        (lambda meta: meta["fit"].update(callbacks=[3]), "callbacks are not pairs"),
        (lambda meta: meta["fit"]["callbacks"][0][1].pop("best"), "a schedule or a callback cannot take its state"),
        (lambda meta: meta["schedule"].pop("bad"), "a schedule or a callback cannot take its state"),
        (lambda meta: meta.update(steps="two"), "does not say steps"),
        (lambda meta: meta.pop("settings"), "does not say settings"),
    ],
)
def test_a_wrong_state_of_a_fit_changes_nothing(tmp_path, spoil, message):
    make = lambda: trainer(plain(), optimizer=Adam(ReduceOnPlateau(1e-2)))  # noqa: E731
    make().fit(X, Y, callbacks=[EarlyStopping(), Checkpoint(tmp_path / "c")])
    meta, arrays = checkpoint.read(tmp_path / "c", "checkpoint of tiercel")
    spoil(meta)
    checkpoint.write(tmp_path / "c", "checkpoint of tiercel", meta, arrays)
    t, stopping = make(), EarlyStopping()
    before = {n: a.copy() for n, a in t.model_state().items()}
    schedule = t.optimizer.lr.state()
    with pytest.raises(CheckpointError, match=message):
        t.fit(X, Y, epochs=2, callbacks=[stopping], resume=tmp_path / "c")
    assert t.steps == 0 and t.epochs == 0 and stopping.best is None and t.optimizer.lr.state() == schedule
    assert all((a == before[n]).all() for n, a in t.model_state().items())


@pytest.mark.parametrize("stop", [1, 9, 13])
def test_resume_of_a_second_fit_is_exact(tmp_path, stop):
    """The orders of epochs go on with those of the fit before."""
    path, settings = tmp_path / "c", dict(epochs=3, batch_size=16, seed=3)
    whole, broken, again = trainer(), trainer(), trainer()
    for t in (whole, broken):
        t.fit(X, Y, **settings)
    whole.fit(X, Y, **settings)
    with pytest.raises(Stopped):
        broken.fit(X, Y, **settings, callbacks=[StopAt(path, 12 + min(stop, 11))])
    again.fit(X, Y, **settings, resume=path)
    assert same_bits(whole, again) and again.epochs == whole.epochs == 6


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: trainer(plain()), "another model"),
        (lambda: trainer(Sequential([Dense(3)], (4,))), "another model"),
        (lambda: trainer(optimizer="sgd"), "optimizer"),
        (lambda: trainer(seed=5), "seed"),
        (lambda: trainer(accumulate=2), "accumulate 1, this one has 2"),
        (lambda: trainer(optimizer=Adam(1e-3, beta1=0.8)), "the optimizer's beta1 0.9, this one has 0.8"),
        (lambda: trainer(optimizer=Adam(1e-3, weight_decay=0.1)), "the optimizer's weight_decay 0.0, this one has 0.1"),
        (lambda: trainer(clip_norm=1.0), "clip_norm 0.0, this one has 1.0"),
        (lambda: trainer(clip_value=1.0), "clip_value 0.0, this one has 1.0"),
        (lambda: trainer(groups={"*.bias": {"lr": 0.5}}), r"group of .*bias' None, this one has \[0.5, None\]"),
        (lambda: with_loss(label_smoothing=0.1), "the loss's label_smoothing None, this one has 0.1"),
        (lambda: with_loss(weight=[1, 2, 3]), r"class weights None, this one has \[1.0, 2.0, 3.0\]"),
        (lambda: with_loss(reduction="sum"), "reduction 'mean', this one has 'sum'"),
        (lambda: trainer(trainable="head"), "another model"),
    ],
)
def test_of_another_training(tmp_path, make, message):
    path = tmp_path / "a.ckpt"
    saved = trainer()
    saved.step(X, Y)
    saved.save_checkpoint(path)
    t = make()
    before = {n: a.copy() for n, a in t.model_state().items()}
    with pytest.raises(CheckpointError, match=message):
        t.load_checkpoint(path)
    assert all((a == before[n]).all() for n, a in t.model_state().items())


def test_same_shapes_other_activation(tmp_path):
    a, b = (Trainer(Sequential([Dense(3, act), Dense(1)], (4,)), "mse") for act in ("tanh", "relu"))
    a.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="another model"):
        b.load_checkpoint(tmp_path / "a.ckpt")


def test_other_settings_of_the_fit(tmp_path):
    path = tmp_path / "a.ckpt"
    trainer().fit(X, Y, batch_size=8, callbacks=[Checkpoint(path)])
    with pytest.raises(CheckpointError, match="batch_size 8, this one has 16"):
        trainer().fit(X, Y, batch_size=16, resume=path)
    with pytest.raises(CheckpointError, match="callbacks"):
        trainer().fit(X, Y, batch_size=8, resume=path, callbacks=[EarlyStopping()])


def test_truncated_or_damaged(tmp_path):
    path = tmp_path / "a.ckpt"
    saved = trainer()
    saved.step(X, Y)
    saved.save_checkpoint(path)
    data = path.read_bytes()
    t = trainer()
    t.step(X, Y)
    before = {n: a.copy() for n, a in t.model_state().items()}
    cuts = [0, 1, 10, *np.linspace(20, len(data) - 1, 30).astype(int)]
    for cut in cuts:
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match="truncated, damaged"):
            t.load_checkpoint(path)
    half = bytearray(data)
    half[len(data) // 2] ^= 0xFF
    path.write_bytes(half)
    with pytest.raises(CheckpointError):
        t.load_checkpoint(path)
    assert t.steps == 1
    assert all((a == before[n]).all() for n, a in t.model_state().items())


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    t = trainer(classifier())
    t.step(X, Y)
    t.save_checkpoint(path)
    old = path.read_bytes()
    t.step(X, Y)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        t.save_checkpoint(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
