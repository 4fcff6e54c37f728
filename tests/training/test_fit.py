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
