"""`tiercel train`: CSV and NPZ files, what it writes, and what it says of wrong ones."""

import io

import numpy as np
import pytest
from training_models import X, Y, plain

from tiercel import InferenceSession, cli
from tiercel.cli.train import read_csv
from tiercel.training import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Cosine,
    Dense,
    Lion,
    LoRA,
    OneCycle,
    ReduceOnPlateau,
    RMSprop,
    Sequential,
    StepDecay,
    Trainer,
    WarmUp,
)  # fmt: skip

GOOD = "1,2,3,4,0\n1,2,3,4,0\n"


@pytest.fixture
def model(tmp_path):
    plain().save(tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


def train(capsys, *args):
    try:
        code = cli.main(["train", *map(str, args)])
    except SystemExit as e:
        code = e.code
    out, err = capsys.readouterr()
    return code, out, err


def write_csv(path, header=True):
    lines = ["a,b,kind,c,d"] if header else []
    for x, y in zip(X, Y, strict=True):
        row = [x[0], x[1], y, x[2], x[3]] if header else [*x, y]
        lines.append(",".join(map(str, row)))
    path.write_text("\n".join(lines) + "\n")
    return path


def scores(path):
    return InferenceSession(str(path)).run(None, {"x": X})[0]


def test_csv_and_npz_are_the_same(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    options = ("--epochs", 3, "--lr", 0.01, "--validation", 0.2)
    code, out, err = train(capsys, model, "--data", tmp_path / "d.npz", *options, "--output", tmp_path / "a.onnx")
    assert (code, err) == (0, "")
    assert out.count("val_accuracy") == 3
    code, _, err = train(capsys, model, "--data", write_csv(tmp_path / "d.csv"), "--target", "kind", *options)
    assert (code, err) == (0, "")
    code, _, err = train(capsys, model, "--data", write_csv(tmp_path / "e.csv", False), *options, "--output", tmp_path / "c.onnx")
    assert (code, err) == (0, "")
    for name in ("m-trained.onnx", "c.onnx"):
        np.testing.assert_array_equal(scores(tmp_path / "a.onnx"), scores(tmp_path / name))
    assert np.abs(scores(tmp_path / "a.onnx") - scores(model)).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [("--lora", 2), ("--trainable", "head"), ("--trainable", "dense0.*,*.bias"), ("--schedule", "one-cycle"), ("--schedule", "cosine", "--warm-up", 2),
     ("--schedule", "plateau", "--patience", 2), ("--accumulate", 2, "--clip-norm", 1, "--optimizer", "lion"),
     ("--schedule", "step", "--lr-every", 1, "--lr-factor", 0.5), ("--optimizer", "sgd", "--momentum", 0.9, "--nesterov", "--weight-decay", 1e-3),
     ("--lora", 2, "--lora-alpha", 4, "--lora-targets", "dense1.*", "--trainable", "dense0.bias"), ("--clip-value", 0.1)],
)  # fmt: skip
def test_options(capsys, tmp_path, model, options):
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    code, out, err = train(capsys, model, "--data", tmp_path / "d.npz", "--epochs", 2, *options)
    assert (code, err) == (0, "")
    assert "m-trained.onnx" in out


def test_regression(capsys, tmp_path):
    Sequential([Dense(1)], (4,)).save(tmp_path / "r.onnx")
    data = "\n".join(",".join(map(str, [*x, x.sum() / 2])) for x in X)
    (tmp_path / "d.csv").write_text(data)
    code, out, _ = train(capsys, tmp_path / "r.onnx", "--data", tmp_path / "d.csv", "--optimizer", "sgd", "--lr", 0.1, "--epochs", 60)
    assert code == 0
    assert float(out.split("val_loss ")[-1].split()[0]) < 1e-4


def test_goes_on_from_a_checkpoint(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    base = (model, "--data", tmp_path / "d.npz", "--output")
    train(capsys, *base, tmp_path / "whole.onnx", "--epochs", 4)
    train(capsys, *base, tmp_path / "part.onnx", "--epochs", 2, "--checkpoint", tmp_path / "c")
    _, out, _ = train(capsys, *base, tmp_path / "part.onnx", "--epochs", 4, "--checkpoint", tmp_path / "c")
    assert "epoch 3:" in out and "epoch 2:" not in out
    np.testing.assert_array_equal(scores(tmp_path / "whole.onnx"), scores(tmp_path / "part.onnx"))


def test_options_mean_what_they_mean_in_python(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    groups = {"*.bias": {"weight_decay": 0.0}, "dense0.*": {"lr": 0.1, "weight_decay": 0.5}}
    rates = {
        "step": (("--lr-every", 2, "--lr-factor", 0.5), StepDecay(0.05, 2 * 3, 0.5)),
        "cosine": (("--lr-min", 0.01), Cosine(0.05, 4 * 3, 0.01)),
        "one-cycle": ((), OneCycle(0.05, 4 * 3)),
        "plateau": (("--lr-every", 1, "--lr-min", 0.01), ReduceOnPlateau(0.05, patience=1, minimum=0.01)),
    }
    for schedule, (options, rate) in rates.items():
        code, _, err = train(
            capsys, model, "--data", tmp_path / "d.npz", "--epochs", 4, "--batch-size", 16, "--validation", 0.1, "--schedule", schedule, "--lr", 0.05,
            *options, "--warm-up", 2, "--optimizer", "sgd", "--momentum", 0.9, "--nesterov", "--weight-decay", 0.01, "--clip-norm", 0.5,
            "--clip-value", 0.3, "--group", "*.bias:weight-decay=0", "--group", "dense0.*:lr=0.1,weight-decay=0.5",
        )  # fmt: skip
        assert (code, err) == (0, "")
        t = Trainer(model, "cross_entropy", SGD(WarmUp(rate, 2), 0.9, True, 0.01), clip_norm=0.5, clip_value=0.3, groups=groups)
        t.fit(X, Y, epochs=4, batch_size=16, validation=0.1)
        np.testing.assert_array_equal(scores(tmp_path / "m-trained.onnx"), t.predict(X), err_msg=schedule)


def test_lora_as_in_python(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    options = ("--lora", 2, "--lora-alpha", 8, "--lora-targets", "dense0.*,dense1.*", "--trainable", "dense0.bias", "--seed", 3)
    code, _, err = train(capsys, model, "--data", tmp_path / "d.npz", "--epochs", 2, "--validation", 0, *options)
    assert (code, err) == (0, "")
    t = Trainer(model, "cross_entropy", "adam", LoRA(2, 8, ["dense0.*", "dense1.*"], ["dense0.bias"]), seed=3)
    t.fit(X, Y, epochs=2, seed=3)
    np.testing.assert_array_equal(scores(tmp_path / "m-trained.onnx"), t.predict(X))


def test_early_stopping_and_a_new_beginning(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    base = (model, "--data", tmp_path / "d.npz", "--checkpoint", tmp_path / "c", "--lr", 0.5)
    _, out, _ = train(capsys, *base, "--epochs", 200, "--patience", 2)
    assert out.count("epoch ") < 100
    _, out, _ = train(capsys, *base, "--epochs", 1, "--no-resume")
    assert out.startswith("epoch 1:")
    code, _, err = train(capsys, *base, "--epochs", 2, "--clip-norm", 1)
    assert code == 2 and "is of a training with clip_norm 0.0, this one has 1.0" in err


def test_a_finished_training_says_so(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    base = (model, "--data", tmp_path / "d.npz", "--checkpoint", tmp_path / "c", "--lr", 0.5)
    _, out, _ = train(capsys, *base, "--epochs", 2)
    assert "nothing" not in out
    code, out, _ = train(capsys, *base, "--epochs", 2)
    assert code == 0 and "nothing was left to train: " in out and "has 2 epochs already" in out and "wrote" in out
    _, out, _ = train(capsys, *base, "--epochs", 3)
    assert "nothing" not in out
    train(capsys, *base, "--epochs", 200, "--patience", 1, "--no-resume")
    _, out, _ = train(capsys, *base, "--epochs", 200, "--patience", 1)
    assert "nothing was left to train: " in out and "ended early" in out


@pytest.mark.parametrize(
    "options, optimizer",
    [(("adam", "--beta1", 0.8, "--beta2", 0.95, "--epsilon", 1e-3), Adam(0.01, 0.8, 0.95, 1e-3)), (("adamw", "--lazy"), AdamW(0.01, lazy=True)),
     (("rmsprop", "--alpha", 0.9, "--epsilon", 1e-3), RMSprop(0.01, 0.9, 0.0, 1e-3)), (("lion", "--beta2", 0.5), Lion(0.01, beta2=0.5)),
     (("adagrad", "--lr-decay", 0.1, "--epsilon", 1e-3), Adagrad(0.01, 1e-3, lr_decay=0.1))],
)  # fmt: skip
def test_options_of_optimizers(capsys, tmp_path, model, options, optimizer):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    code, _, err = train(capsys, model, "--data", tmp_path / "d.npz", "--epochs", 3, "--lr", 0.01, "--validation", 0, "--optimizer", *options)
    assert (code, err) == (0, "")
    t = Trainer(model, "cross_entropy", optimizer)
    t.fit(X, Y, epochs=3)
    np.testing.assert_array_equal(scores(tmp_path / "m-trained.onnx"), t.predict(X))


def test_help_is_whole(capsys):
    code, out, _ = train(capsys, "--help")
    assert code == 0
    for word in ("--group", "--lora-alpha", "plateau: ", "--no-resume"):
        assert word in out


@pytest.mark.parametrize(
    "content, options, message",
    [
        ("1,2,3,4,0\n1,2,3,4\n", (), "row 2: 4 columns, the first row has 5"),
        ("a,b,c,d,y\n1,2,x,4,0\n", (), "row 2, column 3: 'x' is not a number"),
        ("a,b,c,d,y\n1,2,3,4,0\n", ("--target", "z"), "no column 'z'; there are: a, b, c, d, y"),
        ("", (), "is empty"),
        ("a,b,c,d,y\n", (), "no sample"),
        (GOOD, ("--loss", "mze"), "there is no loss 'mze'"),
        (GOOD, ("--optimizer", "mze"), "there is no optimizer 'mze'"),
        (GOOD, ("--trainable", "mze"), "no weight matches 'mze'"),
        (GOOD, ("--output", "/no/such/m.onnx"), "no folder"),
        (GOOD, ("--momentum", 0.9), "--momentum is no option of the optimizer adam"),
        (GOOD, ("--optimizer", "rmsprop", "--nesterov"), "--nesterov is no option of the optimizer rmsprop"),
        (GOOD, ("--beta1", 1), "beta1 is at least 0 and below 1, not 1.0"),
        (GOOD, ("--optimizer", "sgd", "--beta1", 0.5), "--beta1 is no option of the optimizer sgd"),
        (GOOD, ("--optimizer", "lion", "--lazy"), "--lazy is no option of the optimizer lion"),
        (GOOD, ("--optimizer", "adagrad", "--alpha", 0.5), "--alpha is no option of the optimizer adagrad"),
        (GOOD, ("--optimizer", "sgd", "--nesterov"), "nesterov needs a momentum"),
        (GOOD, ("--weight-decay", "-1"), "--weight-decay: expected a number of at least 0, got '-1'"),
        (GOOD, ("--lr", "nan"), "--lr: expected a number of at least 0, got 'nan'"),
        (GOOD, ("--epochs", "1.5"), "--epochs: expected an integer of at least 0, got '1.5'"),
        (GOOD, ("--schedule", "cos"), "invalid choice: 'cos'"),
        (GOOD, ("--lr-min", 0.1), "--lr-min has a meaning with --schedule cosine and plateau, not constant"),
        (GOOD, ("--schedule", "cosine", "--lr-every", 2), "--lr-every has a meaning with --schedule step and plateau, not cosine"),
        (GOOD, ("--schedule", "step", "--lr-factor", 2), "--lr-factor is within (0, 1), not 2"),
        (GOOD, ("--schedule", "cosine", "--lr", 0.1, "--lr-min", 1), "--lr-min 1 is above the learning rate 0.1"),
        (GOOD, ("--group", "a"), "--group a: expected PATTERN:lr=X"),
        (GOOD, ("--group", "*:rate=1"), "--group *:rate=1: expected PATTERN:lr=X"),
        (GOOD, ("--group", "*:lr=x"), "--group *:lr=x: expected PATTERN:lr=X"),
        (GOOD, ("--group", "*:lr=1", "--group", "*:lr=2"), "'*' has a group already"),
        (GOOD, ("--group", "mze:lr=1"), "no weight matches 'mze'"),
        (GOOD, ("--lora-alpha", 2), "--lora-alpha needs --lora RANK"),
        (GOOD, ("--lora", 0), "--lora: expected an integer of at least 1, got '0'"),
        (GOOD, ("--lora", 1, "--lora-targets", "mze"), "no weight that can have an adapter matches 'mze'"),
        (GOOD, ("--lora", 1, "--trainable", "head"), "--lora trains adapters"),
        (GOOD, ("--no-resume",), "--no-resume needs --checkpoint FILE"),
    ],
)
def test_wrong_usage(capsys, tmp_path, model, content, options, message):
    (tmp_path / "d.csv").write_text(content)
    code, _, err = train(capsys, model, "--data", tmp_path / "d.csv", "--validation", 0, *options)
    assert code == 2
    assert message in err


def test_wrong_data(capsys, tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y + 1)
    code, _, err = train(capsys, model, "--data", tmp_path / "d.npz")
    assert code == 1 and "target 3 is outside" in err
    np.savez(tmp_path / "d.npz", q=X, y=Y)
    code, _, err = train(capsys, model, "--data", tmp_path / "d.npz")
    assert code == 2 and "no array for the input 'x'; there are: q, y" in err
    (tmp_path / "d.npz").write_bytes(b"PK nothing")
    code, _, err = train(capsys, model, "--data", tmp_path / "d.npz")
    assert code == 2 and "is not an .npz file" in err
    code, _, err = train(capsys, model, "--data", tmp_path / "d.txt")
    assert code == 2 and ".csv or .npz" in err
    code, _, err = train(capsys, model, "--data", tmp_path / "none.csv")
    assert code == 1 and "none.csv" in err
    assert not (tmp_path / "m-trained.onnx").exists()


def npz_of(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


ROWS = "1,2,3,4,0\n2,3,4,5,1\n"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("d.npz", npz_of(lambda f: np.savez(f, x=X, y=Y))[:300], "is not an .npz file"),
        ("d.npz", npz_of(lambda f: np.save(f, X)), "one array without a name"),
        ("d.npz", npz_of(lambda f: np.savez(f, x=X, y=np.float32(3))), "the target is one number"),
        ("d.csv", b"\xff\xfe\x00abc\n", "is no CSV file in UTF-8"),
        ("d.csv", b"\xe9,b,c,d,y\n" + ROWS.encode(), "is no CSV file in UTF-8"),
        ("d.csv", (ROWS + "1,2,3,4,inf\n").encode(), "row 3, column 5: the target inf is no class number"),
        ("d.csv", ("a,b,c,d,y\n1,2,3,4,1e300\n" + ROWS).encode(), "row 2, column 5: the target 1e+300 is no class number"),
        ("d.csv", (ROWS + "1,2,3,4,nan\n").encode(), "the target nan is no class number"),
    ],
)
def test_wrong_files(capsys, tmp_path, model, name, content, message):
    (tmp_path / name).write_bytes(content)
    code, _, err = train(capsys, model, "--data", tmp_path / name, "--validation", 0)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_mark_of_the_encoding_is_no_name(tmp_path):
    for bom in ("", "\ufeff"):
        (tmp_path / "d.csv").write_text(bom + ROWS, encoding="utf-8")
        x, y = read_csv(str(tmp_path / "d.csv"), "")
        assert x.shape == (2, 4) and y.tolist() == [0, 1]


def test_a_checkpoint_that_cannot_be_is_told_first(capsys, tmp_path, model):
    (tmp_path / "d.csv").write_text(ROWS)
    for path, message in ((tmp_path / "no" / "c", "there is no folder"), (tmp_path, "is a folder")):
        code, out, err = train(capsys, model, "--data", tmp_path / "d.csv", "--validation", 0, "--checkpoint", path)
        assert code == 2 and message in err and not out
