"""fit: data, validation, callbacks, early stopping, batches of different lengths, pictures and event files."""

import sys

import numpy as np
import pytest
from training_models import X, Y, classifier, plain, same_bits, trainer

from tiercel.training import (
    SGD,
    Adam,
    Callback,
    Dense,
    EarlyStopping,
    ReduceOnPlateau,
    Sequential,
    TensorBoard,
    Trainer,
    plot_decision,
    plot_history,
)


def test_fit_is_steps():
    a, b = trainer(plain()), trainer(plain())
    history = a.fit(X, Y, epochs=2, batch_size=20, shuffle=False)
    losses = []
    for _ in range(2):
        parts = [(b.step(X[i : i + 20], Y[i : i + 20]), len(Y[i : i + 20])) for i in range(0, 50, 20)]
        losses.append(sum(loss * n for loss, n in parts) / 50)
    assert history["loss"] == pytest.approx(losses)
    assert same_bits(a, b)


def test_a_seed_says_all():
    a, b, c = trainer(), trainer(), trainer()
    a.fit(X, Y, epochs=3, batch_size=8, seed=1)
    b.fit(X, Y, epochs=3, batch_size=8, seed=1)
    c.fit(X, Y, epochs=3, batch_size=8, seed=2)
    assert same_bits(a, b)
    assert not same_bits(a, c)


def test_threads_change_nothing():
    a, b = trainer(threads=1), trainer(threads=2)
    for t in (a, b):
        t.fit(X, Y, epochs=3, batch_size=8)
    assert same_bits(a, b)


def test_validation():
    a, b, c = trainer(), trainer(), trainer()
    first = a.fit(X, Y, epochs=2, batch_size=8, validation=0.2)
    second = b.fit(X[:40], Y[:40], epochs=2, batch_size=8, validation=(X[40:], Y[40:]))
    third = c.fit(X[:40], Y[:40], epochs=2, batch_size=8, validation=[(X[40:43], Y[40:43]), (X[43:], Y[43:])])
    assert first["val_loss"] == second["val_loss"]
    assert first["val_loss"] == pytest.approx(third["val_loss"])
    assert first["val_accuracy"] == third["val_accuracy"]
    expected = (a.predict(X[40:]).argmax(1) == Y[40:]).mean()
    assert first["val_accuracy"][-1] == pytest.approx(expected)
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match="leaves nothing"):
            a.fit(X, Y, validation=share)


def test_callbacks():
    seen = []

    class Look(Callback):
        def on_fit_begin(self, trainer, history):
            seen.append("begin")

        def on_batch(self, trainer, batch, loss):
            seen.append(batch)

        def on_epoch_end(self, trainer, epoch, history):
            seen.append(f"epoch {epoch}")

        def on_fit_end(self, trainer, history):
            seen.append("end")

    history = trainer().fit(X, Y, epochs=9, batch_size=25, callbacks=[Look(), lambda t, epoch, h: epoch == 1])
    assert seen == ["begin", 1, 2, "epoch 0", 3, 4, "epoch 1", "end"]
    assert len(history["loss"]) == 2


def test_early_stopping_restores_the_best():
    kept = {}

    def keep(trainer, epoch, history):
        kept[epoch] = {n: a.copy() for n, a in trainer.model_state().items()}

    t = trainer(plain(), optimizer=SGD(5.0))  # it never settles
    stopping = EarlyStopping(patience=3)
    history = t.fit(X, Y, epochs=100, batch_size=50, validation=0.2, callbacks=[keep, stopping])
    best = int(np.argmin(history["val_loss"]))
    assert stopping.best_epoch == best
    assert len(history["loss"]) == best + 4
    assert all((a == kept[best][n]).all() for n, a in t.model_state().items())
    assert t.evaluate(X[40:], Y[40:])["loss"] == pytest.approx(history["val_loss"][best])


def test_early_stopping_options():
    still = trainer(plain(), optimizer=SGD(1e-9))
    assert len(still.fit(X, Y, epochs=50, callbacks=[EarlyStopping(patience=2, min_delta=0.01)])["loss"]) == 3
    with pytest.raises(ValueError, match="no 'val_loss'"):
        still.fit(X, Y, callbacks=[EarlyStopping(monitor="val_loss")])
    with pytest.raises(ValueError, match="mode"):
        EarlyStopping(mode="least")


def test_patience_of_zero():
    """It ends at the first epoch that is not better, and at no other."""
    stopping = EarlyStopping(patience=0, monitor="m")
    t = trainer(plain())
    given = iter([3.0, 2.0, 1.0, 1.5, 0.5])

    def measure(trainer, epoch, history):
        history.setdefault("m", []).append(next(given))

    history = t.fit(X, Y, epochs=5, callbacks=[measure, stopping])
    assert history["m"] == [3.0, 2.0, 1.0, 1.5] and stopping.best_epoch == 2


def test_nan_is_never_the_best():
    stopping = EarlyStopping(patience=9, monitor="m")
    t = trainer(plain())
    given = iter([np.nan, 3.0, np.nan, 2.0, np.nan])

    def measure(trainer, epoch, history):
        history.setdefault("m", []).append(next(given))

    t.fit(X, Y, epochs=5, callbacks=[measure, stopping])
    assert (stopping.best, stopping.best_epoch) == (2.0, 3)


@pytest.mark.parametrize("true, epochs", [(True, 1), (np.bool_(True), 1), (np.False_, 3), (1, 3), (None, 3), ("yes", 3)])
def test_what_ends_a_fit(true, epochs):
    class Own(Callback):
        def on_epoch_end(self, trainer, epoch, history):
            return true

    for callback in (lambda t, epoch, h: true, Own()):
        assert len(trainer(plain()).fit(X, Y, epochs=3, callbacks=[callback])["loss"]) == epochs


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_end_comes_after_an_error(error):
    seen = []

    class Look(Callback):
        def on_batch(self, trainer, batch, loss):
            if batch == 7:
                raise error

        def on_fit_end(self, trainer, history):
            seen.append(len(history["loss"]))
            raise ValueError("an end that fails")

    class After(Callback):
        def on_fit_end(self, trainer, history):
            seen.append("after")

    t = trainer(plain(), optimizer=SGD(0.5))
    best = {}

    def keep(trainer, epoch, history):
        best.update({n: a.copy() for n, a in trainer.model_state().items()})

    with pytest.raises((error, ValueError)):
        t.fit(X, Y, epochs=9, batch_size=10, callbacks=[keep, Look(), EarlyStopping(), After()])
    assert seen == [1, "after"]
    assert all((a == best[n]).all() for n, a in t.model_state().items())  # of the only epoch that ended


def test_what_did_not_begin_does_not_end():
    class Fails(Callback):
        def on_fit_begin(self, trainer, history):
            raise RuntimeError

        def on_fit_end(self, trainer, history):
            raise AssertionError

    with pytest.raises(RuntimeError):
        trainer(plain()).fit(X, Y, callbacks=[Fails()])


def test_fits_one_after_another():
    """The second goes on with the orders that one long fit would have had."""
    whole, parts, same = trainer(plain(), optimizer=SGD(0.1)), trainer(plain(), optimizer=SGD(0.1)), []
    whole.fit(X, Y, epochs=5, batch_size=8, seed=2)
    parts.fit(X, Y, epochs=2, batch_size=8, seed=2)
    parts.fit(X, Y, epochs=3, batch_size=8, seed=2)
    assert same_bits(whole, parts) and parts.epochs == 5

    class Order(Callback):
        def on_batch(self, trainer, batch, loss):
            same.append(loss)

    still = trainer(plain(), optimizer=SGD(0.0))
    for _ in range(2):
        still.fit(X, Y, batch_size=8, callbacks=[Order()])
    assert same[:7] != same[7:]


def test_a_fit_drops_the_sums_of_an_interrupted_one():
    interrupted, fresh = (trainer(plain(), optimizer=SGD(0.1), accumulate=3) for _ in range(2))
    interrupted.step(X[:20], Y[:20])
    assert any(a.any() for n, a in interrupted._core.state() if n.startswith("tiercel_g "))
    for t in (interrupted, fresh):
        t.fit(X, Y, epochs=2, batch_size=10)
    assert same_bits(interrupted, fresh) and interrupted.steps == fresh.steps


def test_validation_that_can_be_read_once():
    t = trainer(plain())
    with pytest.raises(ValueError, match="an iterator serves one validation: give what can be iterated 2 times"):
        t.fit(X, Y, epochs=2, validation=iter([(X, Y)]))
    assert "val_loss" in t.fit(X, Y, validation=iter([(X, Y)]))
    with pytest.raises(ValueError, match="validation is"):
        t.fit(X, Y, validation=object())


def test_plateau_in_a_fit():
    t = trainer(plain(), optimizer=SGD(ReduceOnPlateau(1e-9, factor=0.5, patience=0)))
    t.fit(X, Y, epochs=4, batch_size=50, shuffle=False)
    assert t.optimizer.lr(0) == pytest.approx(1e-9 * 0.5**3)


def test_batches_of_different_lengths():
    rng = np.random.default_rng(0)
    model = Sequential([Dense(6, "tanh"), Dense(3)], ("time", 4), seed=0)
    batches = [(rng.standard_normal((b, n, 4)).astype(np.float32), rng.standard_normal((b, n, 3)).astype(np.float32)) for b, n in ((4, 3), (2, 7), (4, 5), (1, 1))]
    t = Trainer(model, "mse", Adam(1e-2))
    history = t.fit(batches, epochs=30, validation=batches)
    assert history["val_loss"][-1] < history["val_loss"][0]
    again = Trainer(model, "mse", Adam(1e-2))
    for _ in range(30):
        for x, y in batches:
            again.step(x, y)
    assert same_bits(t, again)
    with pytest.raises(ValueError, match="an iterator serves one epoch"):
        t.fit(iter(batches), epochs=2)


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    trainer().fit(X, Y, epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 1/2" in shown and "epoch 2/2" in shown and "loss" in shown
    trainer().fit(X, Y)
    assert capsys.readouterr().err == ""


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path)
    trainer().fit(X, Y, epochs=2, validation=0.2, callbacks=[board])
    board.close()
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    assert all(name in content for name in (b"batch/loss", b"batch/lr", b"epoch/val_loss"))


@pytest.mark.parametrize("package, use", [("tensorboardX", lambda: TensorBoard("x")), ("matplotlib.pyplot", lambda: plot_history({"loss": [1.0]}))])
def test_extras_that_are_missing(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"tiercel\[train\]"):
        use()


def test_plots():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    history = trainer().fit(X, Y, epochs=2, validation=0.2)
    axes = plot_history(history)
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss"]
    two = Trainer(Sequential([Dense(2)], (2,)), "cross_entropy")
    points = np.array([(1, 0), (0, 1), (1, 1), (-1, -1)], np.float32)
    two.step(points, np.array([1, 1, 0, 0]))
    drawn = plot_decision(two, points, [1, 1, 0, 0], points=20)
    assert len(drawn.collections) >= 2
    with pytest.raises(ValueError, match="samples"):
        plot_decision(trainer(classifier()), X, Y)
    plt.close("all")
