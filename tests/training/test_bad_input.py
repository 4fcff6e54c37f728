"""Wrong data and wrong names: each a clear error, after which training goes on with the weights as they were."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import X, Y, plain, trainer

import tiercel
from tiercel.training import SGD, Dense, LoRA, Loss, Sequential, Trainer

NAN = X.copy()
NAN[3, 2] = np.nan


def regression():
    return Trainer(Sequential([Dense(1)], (4,)), "mse")


CASES = {
    "label too large": (lambda: trainer(plain()), X, Y + 1, r"target 3 is outside \[0, 2\]"),
    "label below zero": (lambda: trainer(plain()), X, Y - 1, r"target -1 is outside \[0, 2\]"),
    "columns": (lambda: trainer(plain()), X[:, :3], Y, 'input "x".*expected 4, got 3'),
    "fewer targets": (lambda: trainer(plain()), X, Y[:-1], 'extent 0 of the target should be.*"x", 50, got 49'),
    "one target": (regression, X, X[:1, :1], 'extent 0 of the target should be.*"x", 50, got 1'),
    "one sample": (regression, X[:1], X[:, :1], 'extent 0 of the target should be.*"x", 1, got 50'),
    "rank of target": (regression, X, X[:, 0], 'input "target".*rank'),
    "width of target": (regression, X, X[:, :2], 'input "target".*expected 1, got 2'),
    "numbers for labels": (lambda: trainer(plain()), X, Y.astype(np.float32), "class numbers, which are integers"),
    "probabilities": (lambda: trainer(plain()), X, np.eye(3, dtype=np.float32)[Y], "were class numbers before"),
    "no samples": (regression, X[:0], X[:0, :1], "empty batch"),
    "names": (regression, {"z": X}, X[:, :1], "inputs are missing: x"),
    "nan in x": (regression, NAN, X[:, :1], 'not finite, as input "x" is not; the weights are unchanged'),
    "nan in y": (regression, X, NAN[:, 2:3], 'not finite, as input "target" is not'),
    "overflow": (regression, np.full_like(X, 3e38), X[:, :1], 'first result that is not: Gemm node "y"'),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_wrong_batches(case, accumulate):
    make, x, y, message = CASES[case]
    t = make()
    if accumulate == 2:
        t = Trainer(t.model(), t.loss, t.optimizer, accumulate=2)
    good = Y if t.loss.name == "cross_entropy" else X[:, :1]
    for _ in range(2):
        t.step(X, good)
    before, steps = {n: a.copy() for n, a in t.model_state().items()}, t.steps
    for _ in range(2):
        with pytest.raises((tiercel.errors.Error, ValueError), match=message):
            t.step(x, y)
    assert t.steps == steps
    assert all((a == before[n]).all() for n, a in t.model_state().items())
    assert np.isfinite(t.step(X, good))


def test_evaluate_checks_too():
    t = regression()
    with pytest.raises(tiercel.errors.Error, match="extent 0 of the target"):
        t.evaluate([(X, X[:1, :1])])
    c = trainer(plain())
    with pytest.raises(tiercel.errors.Error, match="target 3 is outside"):
        c.evaluate(X, Y + 1)


def test_diverging():
    t = Trainer(Sequential([Dense(1)], (4,)), "mse", SGD(1e30))
    with pytest.raises(tiercel.errors.Error, match=r"step \d+: the loss is not finite; the first result that is not: .* node"):
        t.fit(X, X[:, :1], epochs=50, batch_size=50)
    assert all(np.isfinite(a).all() for a in t.weights.values())


MODEL = plain()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"loss": "mze"}, "there is no loss"),
        ({"loss": Loss("mse", delta=1)}, "no option"),
        ({"loss": Loss("mse", reduction="none")}, "take the reduction mean or sum"),
        ({"loss": Loss("mse", reduction="all")}, "reduction"),
        ({"loss": "mse", "optimizer": "adem"}, "there is no optimizer"),
        ({"loss": "mse", "output": "q"}, "no output"),
        ({"trainable": "nothing*"}, "no weight matches 'nothing"),
        ({"trainable": []}, "trainable names no weight"),
        ({"trainable": LoRA(2, targets="nothing*")}, "no weight that can have an adapter matches"),
        ({"trainable": LoRA(2, targets=["dense0.bias"])}, "no weight that can have an adapter"),
        ({"accumulate": 0}, "accumulate is at least 1"),
        ({"clip_norm": -1}, "clip_norm is at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((tiercel.errors.Error, ValueError), match=message):
        Trainer(MODEL, **options)
    with pytest.raises(ValueError, match="rank"):
        LoRA(0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": X, "y": Y[:3]}, "one length"),
        ({"x": X}, "y is missing"),
        ({"x": X[:0], "y": Y[:0]}, "nothing to work on"),
        ({"x": X, "y": Y, "batch_size": 0}, "batch_size"),
        ({"x": X, "y": Y, "epochs": -1}, "epochs"),
        ({"x": [], "epochs": 1}, "no batches"),
        ({"x": [(X, Y)], "validation": 0.2}, "a share for validation needs arrays"),
    ],
)
def test_wrong_fits(arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer(plain()).fit(**arguments)


BATCHES = [(X, Y), (X[:4], Y[:4])]


@pytest.mark.parametrize(
    "validation, message",
    [
        ((X[:, :3], Y), "validation: .*expected 4, got 3"),
        ((X, Y[:3]), "validation: x and y should have one length"),
        ((X, Y + 1), r"validation: y: the target 3 is outside \[0, 2\]"),
        ((X.astype(str), Y), "validation: input 'x' should hold numbers"),
        ((X[:0], Y[:0]), "validation: there is nothing to work on"),
        ([(X[:, :3], Y)], "validation: .*expected 4, got 3"),
        ([], "validation: there is nothing to evaluate"),
    ],
)
def test_wrong_validation_is_told_before_the_first_step(validation, message):
    for data in ({"x": X, "y": Y}, {"x": BATCHES}):
        t = trainer(plain())
        with pytest.raises((tiercel.errors.Error, ValueError), match=message):
            t.fit(**data, validation=validation)
        assert t.steps == 0


def test_validation_with_targets_of_the_other_form():
    rows = np.eye(3, dtype=np.float32)[Y]
    for y, other in ((Y, rows), (rows, Y)):
        a, b = trainer(plain()), trainer(plain())
        h = a.fit(X, y, epochs=2, validation=(X, other))
        b.fit(X, y, epochs=2)
        assert len(h["val_loss"]) == 2 and a.model() == b.model()


def test_a_wrong_label_anywhere_is_told_before_the_first_step():
    y = Y.copy()
    y[41] = -100
    t = trainer(plain())
    with pytest.raises(tiercel.errors.InvalidArgument, match=r"target -100 is outside \[0, 2\], at sample 41.*ignore_index=-100"):
        t.fit(X, y, batch_size=5)
    assert t.steps == 0
    Trainer(plain(), Loss("cross_entropy", ignore_index=-100)).fit(X, y, batch_size=5)


@pytest.mark.parametrize("groups", [["*"], {"*": 3}])
def test_groups_are_settings_by_pattern(groups):
    with pytest.raises(TypeError, match="settings by pattern"):
        Trainer(MODEL, groups=groups)


def test_lists_that_are_no_array():
    with pytest.raises(ValueError, match="input 'x' is no array"):
        trainer(plain()).fit([[1.0, 2.0], [3.0]], [0, 1])


def test_names_for_gradients():
    with pytest.raises(TypeError, match="inputs is a name or a list of names, not 3"):
        tiercel.gradient(MODEL, inputs=3)


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sign"])
def test_a_weight_behind_rounding(op):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(op, ["a"], ["b"], name="step"), helper.make_node("MatMul", ["b", "v"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(np.eye(4, dtype=np.float32), n) for n in "wv"])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(tiercel.errors.InvalidArgument, match=f'the weight "w" has no gradient, as the slope of {op} node "step"'):
        Trainer(model, "mse", trainable=["w"])
    with pytest.warns(UserWarning, match=f'the weight "w" stays as it is, as the slope of {op} node "step"'):
        t = Trainer(model, "mse", SGD(0.1))
    t.step(X, X)
    assert (t.weights["w"] == np.eye(4)).all() and (t.weights["v"] != np.eye(4)).any()


@pytest.mark.parametrize(
    "loss, y, message",
    [
        ("binary_cross_entropy_with_logits", 2, r"takes targets from 0 to 1, got 2.0 at \[41, 0\] of y"),
        ("binary_cross_entropy_with_logits", -1, r"takes targets from 0 to 1, got -1.0"),
        ("binary_cross_entropy", 2, "takes targets from 0 to 1, got 2.0"),
        ("hinge", 0, r"takes targets -1 and 1 \(2 \* y - 1 of labels 0 and 1\), got 0.0"),
        ("cross_entropy", -0.5, "probabilities of at least 0, got -0.5"),
    ],
)
def test_targets_out_of_range(loss, y, message):
    t = Trainer(Sequential([Dense(2, "sigmoid")], (4,)), Loss(loss, ignore_nan=True))
    good = np.ones((50, 2), np.float32)
    good[7, 1] = np.nan
    bad = good.copy()
    bad[41, 0] = y
    with pytest.raises(ValueError, match=message):
        t.fit(X, bad, batch_size=5)
    with pytest.raises(ValueError, match="validation: .*" + message):
        t.fit(X, good, validation=(X, bad))
    for run in (t.step, t.evaluate):
        with pytest.raises(ValueError, match=message):
            run(X, bad)
    assert t.steps == 0
    t.fit(X, good, batch_size=5)


def test_a_mask_of_infinities_is_no_weight(tmp_path):
    """Buffers of attention masks stand among a file's initializers."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4, 4]) for n in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["q"]), helper.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
             helper.make_node("MatMul", ["q", "k"], ["s"]), helper.make_node("Add", ["s", "mask"], ["m"]), helper.make_node("Softmax", ["m"], ["p"]),
             helper.make_node("MatMul", ["p", "q"], ["r"]), helper.make_node("Add", ["r", "b"], ["y"])]  # fmt: skip
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    weights = {"w": np.eye(4, dtype=np.float32), "mask": mask, "b": np.zeros(4, np.float32)}
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(a, n) for n, a in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    t = Trainer(model, "mse", "adamw")
    assert list(t.weights) == ["w", "b"]
    x = X[:48].reshape(12, 4, 4)
    assert t.step(x, x + 1) > t.step(x, x + 1)
    t.save_checkpoint(tmp_path / "c")
    t.save(tmp_path / "m.onnx")
    written = {i.name: numpy_helper.to_array(i) for i in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert (written["mask"] == mask).all()


def test_a_model_that_is_not_finite_is_not_saved(tmp_path):
    t = trainer(plain())
    t.weights["dense1.weight"][1, 2] = np.inf
    with pytest.raises(ValueError, match="the weight 'dense1.weight' is not finite after step 0.*m.onnx was not written"):
        t.save(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(4,), (5, 4)])
def test_scores_for_probabilities_are_told(shape):
    with pytest.warns(UserWarning, match='takes probabilities, but the output "y" comes from .* Sigmoid belongs behind it.*_with_logits'):
        Trainer(Sequential([Dense(1)], shape), "binary_cross_entropy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(Sequential([Dense(1, "sigmoid")], shape), "binary_cross_entropy")
        Trainer(Sequential([Dense(1)], shape), "binary_cross_entropy_with_logits")
