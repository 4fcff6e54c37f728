"""The examples, as they are but shorter; the plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiercel import InferenceSession
from tiercel.training import Dense, Sequential, Trainer, plot_decision, plot_history

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import digits_cnn
import four_points


@pytest.fixture
def plt(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


def test_least_squares_is_the_closed_form() -> None:
    assert four_points.POINTS.tolist() == [[1, 0], [0, 1], [1, 1], [-1, -1]] and four_points.LABELS.tolist() == [1, 1, 0, 0]
    found, exact = four_points.least_squares()
    np.testing.assert_allclose(found, exact, atol=1e-4)
    a = np.column_stack([four_points.POINTS, np.ones(4)])
    np.testing.assert_allclose(a.T @ (a @ exact - four_points.LABELS), 0, atol=1e-6)  # the normal equations


def test_four_points(capsys: pytest.CaptureFixture[str]) -> None:
    four_points.main([])
    out = capsys.readouterr().out
    assert out.count("classes [1 1 0 0], wanted [1 1 0 0]") == 3
    with pytest.raises(SystemExit, match="--plot takes a file"):
        four_points.main(["--plot"])


@pytest.mark.parametrize("kind,begin", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot_of_four_points(tmp_path: Path, plt: Any, kind: str, begin: bytes) -> None:
    path = tmp_path / f"points.{kind}"
    four_points.plot({"tanh": four_points.hidden("tanh")}, path)
    assert path.read_bytes().startswith(begin) and path.stat().st_size > 5000


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_decisions_and_history(plt: Any, classes: int) -> None:
    x = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    y = np.arange(20) % max(classes, 2)
    trainer = Trainer(Sequential([Dense(8, "tanh"), Dense(classes)], (2,)), "mse" if classes == 1 else "cross_entropy")
    history = trainer.fit(x, y[:, None] if classes == 1 else y, epochs=3, validation=0.2)
    axes = plot_decision(trainer, x, y, boundary=0.5 if classes == 1 else None)
    assert len(axes.collections) >= 2
    assert {text.get_text() for text in plot_history(history).get_legend().get_texts()} >= {"loss", "val_loss"}
    with pytest.raises(ValueError, match=r"samples \[n, 2\]"):
        plot_decision(trainer, x[:, :1], y)
    with pytest.raises(ValueError, match="a label for each of the 20 samples, got 3"):
        plot_decision(trainer, x, y[:3])


def test_plots_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"tiercel\[train\]"):
        plot_history({"loss": [1.0]})


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["digits_cnn.py", str(tmp_path / "d.onnx")])
    digits_cnn.main(epochs=2)
    assert float(capsys.readouterr().out.split("%")[0]) > 85
    x, y = digits_cnn.digits()
    assert x.shape == (1797, 1, 8, 8) and x.min() == 0 and x.max() == 1 and len(y) == 1797
    scores = InferenceSession(str(tmp_path / "d.onnx")).run(None, {"x": x})[0]
    assert (scores.argmax(1) == y).mean() > 0.85
