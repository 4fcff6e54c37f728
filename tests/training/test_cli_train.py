"""`tiercel train`: CSV and NPZ files, what it writes, and what it says of wrong ones."""

import numpy as np
import pytest
from training_models import X, Y, plain

from tiercel import InferenceSession, cli
from tiercel.training import Dense, Sequential


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
     ("--schedule", "plateau", "--patience", 2), ("--accumulate", 2, "--clip-norm", 1, "--optimizer", "lion")],
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


@pytest.mark.parametrize(
    "content, options, message",
    [
        ("1,2,3,4,0\n1,2,3,4\n", (), "row 2: 4 columns, the first row has 5"),
        ("a,b,c,d,y\n1,2,x,4,0\n", (), "row 2, column 3: 'x' is not a number"),
        ("a,b,c,d,y\n1,2,3,4,0\n", ("--target", "z"), "no column 'z'; there are: a, b, c, d, y"),
        ("", (), "is empty"),
        ("a,b,c,d,y\n", (), "no sample"),
        ("1,2,3,4,0\n1,2,3,4,0\n", ("--loss", "mze"), "there is no loss 'mze'"),
        ("1,2,3,4,0\n1,2,3,4,0\n", ("--optimizer", "mze"), "there is no optimizer 'mze'"),
        ("1,2,3,4,0\n1,2,3,4,0\n", ("--trainable", "mze"), "no weight matches 'mze'"),
        ("1,2,3,4,0\n1,2,3,4,0\n", ("--output", "/no/such/m.onnx"), "no folder"),
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
