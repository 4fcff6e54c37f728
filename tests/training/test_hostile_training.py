"""Wrong arguments, data, files and disks: an error that says what to do, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import X, Y, plain, trainer

import tiercel
from tiercel.training import (
    SGD,
    Adam,
    AdamW,
    Checkpoint,
    CheckpointError,
    Constant,
    Cosine,
    Dense,
    EarlyStopping,
    LoRA,
    Loss,
    Momentum,
    OneCycle,
    ReduceOnPlateau,
    RMSprop,
    Sequential,
    StepDecay,
    Trainer,
    WarmUp,
    loss_value,
)

ERRORS = (tiercel.errors.Error, ValueError, TypeError)
NAMES = np.array(["a", "b", "c"])[Y]

OPTIMIZERS = {
    "negative": (lambda: SGD(-0.1), "learning rate is at least 0 and finite, not -0.1"),
    "nan": (lambda: Adam(float("nan")), "learning rate.* not nan"),
    "infinite": (lambda: Adam(float("inf")), "learning rate.* not inf"),
    "text": (lambda: SGD("0.1"), "learning rate.* not '0.1'"),
    "none": (lambda: SGD(None), "learning rate.* not None"),
    "momentum": (lambda: Momentum(0.1, -1), "momentum is at least 0"),
    "beta": (lambda: Adam(beta1=1.0), "beta1 is at least 0 and below 1, not 1.0"),
    "epsilon": (lambda: Adam(epsilon=-1e-8), "epsilon is at least 0"),
    "decay": (lambda: AdamW(weight_decay=float("nan")), "weight_decay"),
    "alpha": (lambda: RMSprop(alpha=2), "alpha is at least 0 and below 1, not 2"),
    "unknown": (lambda: Adam(beta3=1), "unexpected keyword argument 'beta3'"),
    "cosine": (lambda: Cosine(-1, 10), "lr is at least 0"),
    "cosine's end": (lambda: Cosine(1, 10, -1), "minimum is at least 0"),
    "constant": (lambda: Constant("a"), "lr is at least 0"),
    "decay by steps": (lambda: StepDecay(0.1, 5, -2), "gamma"),
    "one cycle": (lambda: OneCycle(0.1, 10, start=0), "start is a divisor"),
    "plateau": (lambda: ReduceOnPlateau(-1), "lr is at least 0"),
    "warm up": (lambda: WarmUp(-0.1, 5), "lr is at least 0"),
    "patience": (lambda: EarlyStopping(patience=-1), "patience is at least 0"),
    "every": (lambda: Checkpoint("c", every=1.5), "every is at least 0 and a whole number"),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_settings(case):
    make, message = OPTIMIZERS[case]
    with pytest.raises(ERRORS, match=message):
        make()


def argmax():
    """A model whose only way from its weight to its scores has no derivative."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("ArgMax", ["a"], ["i"], axis=1),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 4), ("y", 1))]
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), None, "a"])
def test_a_schedule_that_gives_no_rate_changes_nothing(rate):
    t = trainer(plain(), optimizer=Adam(lambda step: 0.1 if step < 2 else rate))
    t.step(X, Y), t.step(X, Y)
    before = {n: a.copy() for n, a in t.weights.items()}
    with pytest.raises(ValueError, match="learning rate that the schedule gives for step 2 is at least 0 and finite"):
        t.step(X, Y)
    assert t.steps == 2 and all((a == before[n]).all() for n, a in t.weights.items())


def test_one_cycle_that_begins_at_its_peak():
    assert OneCycle(0.1, 2, rise=0.5)(0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"loss": 3}, "loss is a name or a Loss, not 3"),
        ({"optimizer": 3}, "there is no optimizer 3"),
        ({"output": 3}, "output is the name of one"),
        ({"trainable": 3}, "trainable is"),
        ({"trainable": [3]}, "trainable is"),
        ({"clip_norm": "a"}, "clip_norm is at least 0"),
        ({"clip_value": float("nan")}, "clip_value is at least 0"),
        ({"threads": -1}, "threads is at least 0"),
        ({"seed": "a"}, "seed is"),
        ({"seed": 2**70}, "seed is"),
        ({"accumulate": 1.5}, "accumulate is at least 1 and a whole number"),
        ({"groups": {"*": {"lr": -1}}}, r"lr of the group '\*' is at least 0"),
        ({"groups": {"*": {"lr": "a"}}}, "lr of the group"),
        ({"groups": {"*": {"weight_decay": float("nan")}}}, "weight_decay of the group"),
        ({"groups": {"*": {"momentum": 1}}}, "a group has lr"),
        ({"unknown": 1}, "unexpected keyword argument 'unknown'"),
        ({"loss": Loss("cross_entropy", weight=[1, 2])}, "weights and classes should be equal, got 2 and 3"),
        ({"loss": Loss("cross_entropy", label_smoothing=2)}, "label_smoothing should be within"),
        ({"loss": Loss("cross_entropy", reduction="none")}, "take the reduction mean or sum"),
        ({"model": argmax()}, "ArgMax"),
    ],
)  # fmt: skip
def test_trainers(options, message):
    """All of them errors of the constructor."""
    with pytest.raises(ERRORS, match=message):
        Trainer(**{"model": plain(), "loss": "cross_entropy", **options})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Loss("huber", delta=0), "delta is above 0, not 0"),
        (lambda: Loss("huber", delta=-1.0), "delta is above 0, not -1.0"),
        (lambda: Loss("huber", delta=float("nan")), "delta is finite, not nan"),
        (lambda: Loss("hinge", margin=float("inf")), "margin is finite, not inf"),
        (lambda: Loss("cross_entropy", ignore_index=0.5), "ignore_index is a whole number, not 0.5"),
        (lambda: LoRA(8, targets=[]), "targets of LoRA are patterns of names, at least one"),
        (lambda: LoRA(8, targets=[3]), "targets of LoRA are patterns of names"),
        (lambda: LoRA(2.5), "rank of an adapter is at least 1 and a whole number, not 2.5"),
        (lambda: LoRA(0), "rank of an adapter is at least 1"),
        (lambda: LoRA(True), "rank of an adapter"),
        (lambda: LoRA(2, alpha=float("nan")), "alpha of an adapter is a finite number, not nan"),
        (lambda: LoRA(2, alpha="a"), "alpha of an adapter is a finite number, not 'a'"),
    ],
)
def test_losses_and_adapters(make, message):
    with pytest.raises(ERRORS, match=message):
        make()


@pytest.mark.parametrize("model, message", [(3, "a model is a path"), (b"", "it is empty"), (b"hello", "not an ONNX model"), ("/no/such.onnx", "such.onnx")])
def test_models(model, message):
    with pytest.raises((*ERRORS, OSError), match=message):
        Trainer(model)


STEPS = {
    "text": (NAMES[:, None].repeat(4, 1), Y, "input 'x' should hold numbers, not <U1"),
    "names of classes": (X, NAMES, "y should hold numbers, not <U1 .numbers for names of classes: np.unique"),
    "labels as floats": (X, Y.astype(float), r"class numbers, which are integers \(y.astype\(np.int64\)\).*float64\[50\]"),
    "objects": (X, np.array([None] * 50), "y should hold numbers, not object"),
    "nothing": (None, Y, "input 'x' should hold numbers"),
    "no target": (X, None, "y should hold numbers"),
    "complex": (X + 1j, Y, "input 'x' should hold numbers, not complex"),
    "columns of labels": (X, Y[:, None], 'input "target": invalid rank'),
    "one sample": (X[0], Y[:1], 'input "x": invalid rank'),
    "axis more": (X[None], Y, 'input "x": invalid rank'),
    "rows": (X, Y[:5], "extent 0 of the target"),
    "ragged": ([[1, 2], [3]], Y, "inhomogeneous"),
    "none": (X[:0], Y[:0], "empty batch"),
    "names": ({"y": X}, Y, "inputs are missing: x"),
    "wrapped": (X, np.full(50, 2**63, np.uint64), "outside"),
}


@pytest.mark.parametrize("case", STEPS)
@pytest.mark.parametrize("method", ["step", "fit", "evaluate"])
def test_data(case, method):
    x, y, message = STEPS[case]
    t = trainer(plain())
    before = {n: a.copy() for n, a in plain().weights.items()}
    call = getattr(t, method)
    with pytest.raises(ERRORS, match=message if method == "step" else None):
        call([(x, y)] if method != "step" else x, *([y] if method == "step" else []))
    assert t.steps == 0
    assert all((a == before[n]).all() for n, a in t.weights.items())
    assert np.isfinite(t.step(X, Y))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": "a"}, "batch_size"),
        ({"epochs": 1.5}, "epochs"),
        ({"seed": -1}, "seed"),
        ({"validation": 1}, "a share of 1.0"),
        ({"validation": 2.0}, "a share of 2.0"),
        ({"validation": -0.5}, "a share of -0.5"),
        ({"validation": float("nan")}, "a share of nan"),
        ({"validation": (X, Y, Y)}, r"validation is \(x, y\)"),
        ({"validation": "abc"}, r"validation is \(x, y\)"),
        ({"validation": (X, Y[:3])}, "one length"),
        ({"validation": []}, "no batches"),
        ({"callbacks": [3]}, "a callback is"),
        ({"callbacks": [EarlyStopping]}, "a callback is"),
        ({"callbacks": EarlyStopping()}, r"callbacks is a list: \[EarlyStopping"),
        ({"callbacks": [EarlyStopping(monitor="accuracy")]}, "no 'accuracy'; the history has: loss"),
        ({"x": 3, "y": None}, "iterable of batches"),
        ({"x": "abc", "y": None}, "iterable of batches"),
        ({"x": [X], "y": None}, r"a batch is a pair \(x, y\), not ndarray"),
        ({"x": [(X,)], "y": None}, r"a batch is a pair \(x, y\), not 1 of them"),
    ],
)
def test_fits(arguments, message):
    with pytest.raises(ERRORS, match=message):
        trainer(plain()).fit(**{"x": X, "y": Y, **arguments})


def test_evaluations():
    t = trainer(plain())
    for x, y in ((X[:0], Y[:0]), ([], None), ([(X[:0], Y[:0])], None)):
        with pytest.raises(ValueError, match="nothing to|empty batch"):
            t.evaluate(x, y)
    with pytest.raises(ValueError, match="batch_size"):
        t.evaluate(X, Y, batch_size=0)
    assert t.predict(X[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="one shape"):
        loss_value("mse", X, X[:1])
    with pytest.raises(ValueError, match="the prediction should hold numbers"):
        loss_value("mse", "a", "b")


# ---- Files


@pytest.fixture
def saved(tmp_path):
    t = trainer(plain(), optimizer=Adam(1e-2))
    t.step(X, Y)
    t.save_checkpoint(tmp_path / "c")
    return tmp_path / "c"


def unchanged(make, path, message):
    """`make` gives a trainer that cannot go back to the file, and stays as it is."""
    t = make()
    before, steps = {n: a.copy() for n, a in t.model_state().items()}, t.steps
    with pytest.raises((CheckpointError, OSError), match=message):
        t.load_checkpoint(path)
    assert t.steps == steps and all((a == before[n]).all() for n, a in t.model_state().items())
    y = Y if t.loss.name == "cross_entropy" else np.zeros((50, 3), np.float32)
    assert np.isfinite(t.step(X, y))


def same():
    return trainer(plain(), optimizer=Adam(1e-2))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9, -1])
def test_truncated(saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    unchanged(same, saved, "is truncated, damaged or no checkpoint of tiercel")


def test_damaged(saved):
    data = saved.read_bytes()
    for at in range(0, len(data), len(data) // 40):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        t = same()
        before = {n: a.copy() for n, a in t.model_state().items()}
        try:
            t.load_checkpoint(saved)  # a byte that says nothing
        except CheckpointError:
            assert all((a == before[n]).all() for n, a in t.model_state().items())


def test_other_files(saved, tmp_path):
    text = tmp_path / "text"
    text.write_text("hello")
    unchanged(same, text, "no checkpoint of tiercel: it is no whole archive")
    plain().save(tmp_path / "m.onnx")
    unchanged(same, tmp_path / "m.onnx", "no checkpoint")
    np.savez(tmp_path / "z.npz", a=X)
    unchanged(same, tmp_path / "z.npz", "no checkpoint")
    unchanged(same, tmp_path / "none", "none")
    unchanged(same, tmp_path, "irectory")
    lora = Trainer(plain(), "cross_entropy", trainable=LoRA(2))
    lora.step(X, Y)
    lora.save_adapter(tmp_path / "a")
    unchanged(same, tmp_path / "a", "is a LoRA adapter")


def test_other_trainings(saved):
    other = Sequential([Dense(9, "tanh"), Dense(3)], (4,))
    unchanged(lambda: trainer(other, optimizer=Adam(1e-2)), saved, "of another model")
    unchanged(lambda: trainer(plain(), optimizer=SGD(1e-2)), saved, "with optimizer 'adam', this one has 'sgd'")
    unchanged(lambda: Trainer(plain(), "mse", Adam(1e-2)), saved, "with loss 'cross_entropy', this one has 'mse'")
    unchanged(lambda: trainer(plain(), optimizer=Adam(1e-2), accumulate=2), saved, "with accumulate 1")
    unchanged(lambda: trainer(plain(), optimizer=Adam(1e-2), seed=1), saved, "with seed 0")
    t = same()
    t.load_checkpoint(saved)
    assert t.steps == 1


def test_paths_that_cannot_be_written(tmp_path):
    t = same()
    t.step(X, Y)
    for save in (t.save, t.save_checkpoint, plain().save):
        with pytest.raises((OSError, tiercel.errors.Error), match="no/such|No such file"):
            save("/no/such/folder/file")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            save(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for save in (t.save, t.save_checkpoint, plain().save):
        with pytest.raises(OSError, match="a new file would take its place"):
            save(tmp_path / "pipe")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]
    assert not Path(f"{tmp_path}.part").exists()


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_models import X, Y, plain, trainer
from tiercel.training import Checkpoint, Dense, Sequential, Trainer
folder = Path({folder!r})
model = Sequential([Dense(300), Dense(3)], (4,))
t = Trainer(model, "cross_entropy", "adam")
t.step(X, Y)
saves = {{"m.onnx": t.save, "c": t.save_checkpoint, "s.onnx": model.save}}
for name, save in saves.items():
    save(folder / name)
before = {{name: (folder / name).read_bytes() for name in saves}}
t.step(X, Y)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for name, save in saves.items():
    try:
        save(folder / name)
        print("written", name)
    except Exception as e:
        print(name, type(e).__name__, e)
try:
    t.fit(X, Y, callbacks=[Checkpoint(folder / "c")])
    print("went on")
except OSError:
    pass
assert all((folder / name).read_bytes() == before[name] for name in saves)
assert sorted(p.name for p in folder.iterdir()) == sorted(saves)
assert t.steps > 2 and t.step(X, Y) > 0
"""


def test_a_full_disk(tmp_path):
    """A limit on the size of files stands for it: what was there stays, and no part is left behind."""
    code = FULL.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "written" not in done.stdout and "went on" not in done.stdout
    assert done.stdout.count("\n") == 3, done.stdout
