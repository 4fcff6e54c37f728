"""predict in batches, the trainer's session, outputs of rank 0, and tiercel.gradient's arguments."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import X, Y, plain, trainer

import tiercel
from tiercel.training import SGD, Dense, LoRA, Loss, Sequential, Trainer, loss_gradient, loss_value

RNG = np.random.default_rng(6)


def model(nodes, inputs, outputs, weights):
    """Inputs and outputs: name -> (type, shape)."""
    values = [[helper.make_tensor_value_info(n, *t) for n, t in each.items()] for each in (inputs, outputs)]
    fixed = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", *values, fixed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two(second="batch"):
    """Two inputs, two outputs; the second input's first axis may be another."""
    nodes = [helper.make_node("MatMul", ["a", "w"], ["y"]), helper.make_node("Add", ["b", "b"], ["z"])]
    float_ = TensorProto.FLOAT
    inputs = {"a": (float_, ["batch", 4]), "b": (float_, [second, 2])}
    outputs = {"y": (float_, ["batch", 3]), "z": (float_, [second, 2])}
    return model(nodes, inputs, outputs, {"w": RNG.standard_normal((4, 3)).astype(np.float32)})


def lengths(t, monkeypatch):
    """Of the batches that predict runs."""
    seen, session = [], t.session
    run = session.run

    class Watched:
        def run(self, names, feeds):
            seen.append(len(next(iter(feeds.values()))))
            return run(names, feeds)

    monkeypatch.setattr(type(t), "session", property(lambda self: Watched()))
    return seen


def test_predict_in_batches(monkeypatch):
    t = trainer(plain())
    whole = t.predict(X)
    seen = lengths(t, monkeypatch)
    np.testing.assert_allclose(t.predict(X, batch_size=20), whole, rtol=1e-6, atol=1e-6)
    assert t.predict(X[:0], batch_size=20).shape == (0, 3) and t.predict(X[:20], batch_size=20).shape == (20, 3)
    assert seen == [20, 20, 10, 0, 20]
    with pytest.raises(ValueError, match="batch_size is at least 1"):
        t.predict(X, batch_size=0)


@pytest.mark.parametrize("second, runs", [("batch", [4, 4, 2]), ("other", [10])])
def test_predict_of_several_inputs(monkeypatch, second, runs):
    t = Trainer(two(second), "mse")
    seen = lengths(t, monkeypatch)
    x = {"a": RNG.standard_normal((10, 4)).astype(np.float32), "b": RNG.standard_normal((10, 2)).astype(np.float32)}
    y, z = t.predict(x, batch_size=4)
    assert y.shape == (10, 3) and seen == runs
    np.testing.assert_array_equal(z, 2 * x["b"])


def test_predict_where_lengths_are_fixed():
    float_ = TensorProto.FLOAT
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    fixed = model(nodes, {"x": (float_, [5, 4])}, {"y": (float_, [5, 3])}, {"w": np.ones((4, 3), np.float32)})
    assert Trainer(fixed, "mse").predict(X[:5], batch_size=2).shape == (5, 3)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_the_session_has_the_threads_of_the_trainer(threads):
    assert trainer(plain(), threads=threads).session.get_session_options().intra_op_num_threads == threads


def scalar():
    """The sum of x times w, of rank 0."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("ReduceSum", ["m"], ["y"], keepdims=0)]
    float_ = TensorProto.FLOAT
    return model(nodes, {"x": (float_, ["n"])}, {"y": (float_, [])}, {"w": np.ones(1, np.float32)})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_predictions_of_rank_0(accumulate):
    t = Trainer(scalar(), "mse", SGD(0.01), accumulate=accumulate)
    x = np.float32([1, 2])
    assert t.step(x, 1.0) == pytest.approx(4.0)
    assert t.step(x, np.float64(1.0)) <= 4.0
    assert t.weights["w"][0] < 1 and np.shape(t.predict(x)) == ()
    assert np.isfinite(t.evaluate([(x, 1.0), (x, np.array(0))])["loss"])
    assert np.isfinite(t.fit([(x, 1.0), (x, 2)])["loss"]).all()
    assert loss_value("mse", np.float32(3), np.float32(1)) == 4
    assert loss_gradient(Loss("mse"), np.float32(3), np.float32(1)).shape == ()


# ---- tiercel.gradient


def test_gradients_by_single_names():
    session = tiercel.gradient(two(), outputs="y", inputs="a")
    assert [o.name for o in session.get_outputs()] == ["y", "z", "gradient of a"]
    feeds = {"a": np.ones((2, 4), np.float32), "b": np.ones((2, 2), np.float32)}
    (da,) = session.run(["gradient of a"], feeds)
    w = numpy_helper.to_array(two().graph.initializer[0])
    assert da.shape == (2, 4) and w.shape == (4, 3)
    both = tiercel.gradient(two(), inputs=["b", "w"]).run(["gradient of b", "gradient of w"], feeds)
    np.testing.assert_array_equal(both[0], np.full((2, 2), 2))
    np.testing.assert_array_equal(both[1], np.full((4, 3), 2))


def test_gradients_of_a_session(tmp_path):
    plain().save(tmp_path / "m.onnx")
    feeds = {"x": X}
    expected = tiercel.gradient(plain()).run(["gradient of x"], feeds)[0]
    for given in (str(tmp_path / "m.onnx"), tmp_path / "m.onnx", plain().build()):
        session = tiercel.InferenceSession(given)
        np.testing.assert_array_equal(tiercel.gradient(session).run(["gradient of x"], feeds)[0], expected)
    assert np.isfinite(Trainer(tiercel.InferenceSession(plain().build()), "cross_entropy").step(X, Y))


def test_only_floats_are_asked_for_by_default():
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"]), helper.make_node("ArgMax", ["y"], ["best"], axis=1)]
    inputs = {"x": (TensorProto.FLOAT, ["n", 3])}
    outputs = {"y": (TensorProto.FLOAT, ["n", 3]), "best": (TensorProto.INT64, ["n", 1])}
    made = model(nodes, inputs, outputs, {"w": np.float32([1, 2, 3])})
    (dx,) = tiercel.gradient(made).run(["gradient of x"], {"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(dx, [[1, 2, 3]])
    with pytest.raises(tiercel.errors.Error, match="only floats have gradients"):
        tiercel.gradient(made, outputs="best")
    with pytest.raises(TypeError, match="inputs is a name or a list of names"):
        tiercel.gradient(made, inputs=[3])
    del made.graph.output[0]
    with pytest.raises(ValueError, match=r"none of the model's outputs has a gradient.*'best' is a tensor\(int64\)"):
        tiercel.gradient(made)


def test_whole_inputs_need_names_of_weights():
    from tiercel.training import Embedding

    model = Sequential([Embedding(5, 3), Dense(2)], ("time",), seed=0)
    with pytest.raises(ValueError, match=r"none of the model's inputs has a gradient.*name weights"):
        tiercel.gradient(model)
    (dw,) = tiercel.gradient(model, inputs="embedding0.weight").run(
        ["gradient of embedding0.weight"], {"x": np.array([[1, 1]])}
    )
    assert dw[1].any() and not dw[0].any()


def test_lora_on_a_session():
    t = Trainer(tiercel.InferenceSession(plain().build()), "cross_entropy", trainable=LoRA(np.int64(2), alpha=np.float32(4)))
    assert np.isfinite(t.step(X, Y))


@pytest.mark.parametrize("trainable", ["all", LoRA(2)])
@pytest.mark.parametrize("form", ["path", "session", "bytes"])
def test_weights_in_a_file_of_their_own(tmp_path, form, trainable):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load_from_string(plain().build()), path, save_as_external_data=True, location="w", size_threshold=0)
    options = tiercel.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    given = {
        "path": lambda: path,
        "session": lambda: tiercel.InferenceSession(path),
        "bytes": lambda: tiercel.InferenceSession(path.read_bytes(), options),
    }[form]()
    (dx,) = tiercel.gradient(given).run(["gradient of x"], {"x": X})
    np.testing.assert_array_equal(dx, tiercel.gradient(plain()).run(["gradient of x"], {"x": X})[0])
    t, same = Trainer(given, "cross_entropy", SGD(0.1), trainable), Trainer(plain(), "cross_entropy", SGD(0.1), trainable)
    soft = np.eye(3, dtype=np.float32)[Y]
    for each in (t, same):
        each.step(X, soft)
        each.save(tmp_path / "out.onnx")
    assert t.evaluate(X, Y) == same.evaluate(X, Y) and t.evaluate(X, soft) == same.evaluate(X, soft)
    np.testing.assert_array_equal(t.predict(X), same.predict(X))
