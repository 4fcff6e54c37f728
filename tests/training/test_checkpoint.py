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
    ReduceOnPlateau,
    Sequential,
    Trainer,
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


def other(make):
    t = make()
    t.step(X, Y)
    return t


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: trainer(plain()), "another model"),
        (lambda: trainer(Sequential([Dense(3)], (4,))), "another model"),
        (lambda: trainer(optimizer="sgd"), "optimizer"),
        (lambda: trainer(seed=5), "seed"),
        (lambda: trainer(accumulate=2), "accumulate"),
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
