"""Initializers that a run gives other values for: as onnxruntime does, and at no cost where none does."""

import pickle
import threading

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

RNG = np.random.default_rng(11)
ort.set_default_logger_severity(3)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes, inputs, initializers, listed=None, ir_version=8, opset=17, outputs=("y",)):
    """`listed`: {name: shape} of initializers that are inputs too; by default all, as they are."""
    if listed is None:
        listed = {name: list(a.shape) for name, a in initializers.items()}
    types = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in initializers.items()}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    infos += [helper.make_tensor_value_info(n, types[n], s) for n, s in listed.items()]
    graph = helper.make_graph(
        nodes, "g", infos, [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in initializers.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version).SerializeToString()


def conv():
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    values = {"w": array(32, 16, 3, 3), "b": array(32), "s": array(32), "v": np.abs(array(32)) + 1}
    return model(nodes, {"x": ["n", 16, 12, 12]}, values), {"x": array(2, 16, 12, 12)}


def matmul():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return model(nodes, {"x": ["n", 20]}, {"w": array(20, 30), "b": array(30)}), {"x": array(5, 20)}


def reshape():
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Mul", ["r", "f"], ["y"])]
    values = {"shape": np.array([2, -1]), "f": array(1)}
    return model(nodes, {"x": [4, 6]}, values, {"shape": [None], "f": [1]}), {"x": array(4, 6)}


def body():
    """A branch reads the initializer, and another is an output."""
    def branch(op):
        nodes = [helper.make_node(op, ["x", "w"], [f"{op}_y"])]
        return helper.make_graph(nodes, op, [], [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["t"], keepdims=0),
        helper.make_node("Greater", ["t", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("Add"), else_branch=branch("Sub")),
        helper.make_node("Identity", ["w"], ["z"]),
    ]
    return model(nodes, {"x": ["n", 3]}, {"w": array(3), "zero": np.array(0, np.float32)}, outputs=("y", "z")), {"x": array(2, 3)}


CASES = {
    "conv": (conv, [{"w": array(32, 16, 3, 3)}, {"s": array(32), "v": np.full(32, 2, np.float32)}, {"b": array(32)}]),
    "matmul": (matmul, [{"w": array(20, 30)}, {"b": array(30)}, {"w": array(20, 30), "b": array(30)}]),
    "reshape": (reshape, [{"shape": np.array([3, 8])}, {"shape": np.array([24])}, {"shape": np.array([2, 3, 4]), "f": array(1)}]),
    "body": (body, [{"w": array(3)}, {"zero": np.array(1e9, np.float32)}]),
}


@pytest.mark.parametrize("level", [0, 99])
@pytest.mark.parametrize("name", CASES)
def test_as_onnxruntime(name, level):
    """With and without, in turn."""
    make, overrides = CASES[name]
    data, feed = make()
    options = tiercel.SessionOptions()
    options.graph_optimization_level = list(tiercel.GraphOptimizationLevel)[0 if level == 0 else -1]
    ours, theirs = tiercel.InferenceSession(data, options), ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [(a.name, a.type, a.shape) for a in ours.get_overridable_initializers()] == [
        (a.name, a.type, a.shape) for a in theirs.get_overridable_initializers()
    ]
    assert [a.name for a in ours.get_inputs()] == ["x"]
    for other in [{}, *overrides, {}, *overrides, {}]:
        for a, b in zip(ours.run(None, {**feed, **other}), theirs.run(None, {**feed, **other}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
            assert a.shape == b.shape


@pytest.mark.parametrize(
    "value, message",
    [
        (array(20, 31), "invalid dimension 1: expected 30, got 31"),
        (array(20), "invalid rank: expected 2 dimensions"),
        (array(20, 30).astype(np.float64), r'"w": expected tensor\(float\), got tensor\(double\)'),
        ([array(20, 30)], '"w": invalid rank: expected 2 dimensions'),
    ],
)
def test_wrong_values(value, message):
    data, feed = matmul()
    session = tiercel.InferenceSession(data)
    before = session.run(None, feed)[0]
    with pytest.raises(tiercel.errors.Error, match=message):
        session.run(None, {**feed, "w": value})
    np.testing.assert_array_equal(session.run(None, feed)[0], before)


def test_names_that_cannot_be_given():
    data, feed = matmul()
    session = tiercel.InferenceSession(data)
    with pytest.raises(tiercel.errors.InvalidArgument, match="invalid input name 'q': the inputs are x; initializers that may be given: w, b"):
        session.run(None, {**feed, "q": array(1), "w": array(20, 30)})
    with pytest.raises(ValueError, match="Required inputs"):
        session.run(None, {"w": array(20, 30)})


@pytest.mark.parametrize("ir_version, listed", [(3, None), (8, {})])
def test_constants_stay_constants(ir_version, listed):
    """Before IR version 4 every initializer is an input, which says nothing; later those that are none are constants."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    data = model(nodes, {"x": ["n", 3]}, {"w": array(3, 4)}, listed, ir_version, opset=8)
    ours, theirs = tiercel.InferenceSession(data), ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert ours.get_overridable_initializers() == theirs.get_overridable_initializers() == []
    for session, error in ((ours, tiercel.errors.InvalidArgument), (theirs, Exception)):
        with pytest.raises(error, match="(?i)invalid input name"):
            session.run(None, {"x": array(2, 3), "w": array(3, 4)})


def test_all_ways_to_feed(tmp_path):
    data, feed = matmul()
    (tmp_path / "m.onnx").write_bytes(data)
    w = array(20, 30)
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {**feed, "w": w})[0]
    session = tiercel.InferenceSession(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").unlink()  # it has been read
    whole = tiercel.InferenceSession(data).run(None, feed)[0]
    np.testing.assert_array_equal(session.run(None, {**feed, "w": None})[0], whole)  # None: as if it were not there
    close = lambda y: np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)  # noqa: E731
    close(session.run(["y"], {"x": feed["x"], "w": w})[0])
    close(session.run(None, {"w": w.tolist(), **feed})[0])
    close(session.run(None, {"w": np.asfortranarray(w), **feed})[0])
    value = tiercel.OrtValue.ortvalue_from_numpy(w)
    close(session.run_with_ort_values(None, {"x": tiercel.OrtValue.ortvalue_from_numpy(feed["x"]), "w": value})[0].numpy())
    binding, out = session.io_binding(), np.empty((5, 30), np.float32)
    binding.bind_cpu_input("x", feed["x"])
    binding.bind_ortvalue_input("w", value)
    binding.bind_ortvalue_output("y", tiercel.OrtValue.ortvalue_from_numpy(out))
    session.run_with_iobinding(binding)
    close(binding.get_outputs()[0].numpy())
    close(pickle.loads(pickle.dumps(tiercel.InferenceSession(data))).run(None, {**feed, "w": w})[0])
    done = threading.Event()
    session.run_async(None, {**feed, "w": w}, lambda results, _, error: (close(results[0]), done.set()), None)
    assert done.wait(10)


def test_a_dimension_has_one_name_and_one_extent():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    data = model(nodes, {"x": ["n", "k"]}, {"w": array(3, 4)}, {"w": ["k", 4]})
    session = tiercel.InferenceSession(data)
    assert session.get_overridable_initializers()[0].shape == ["k", 4]
    x, w = array(2, 5), array(5, 4)
    np.testing.assert_allclose(session.run(None, {"x": x, "w": w})[0], x @ w, rtol=1e-4, atol=1e-5)
    options = tiercel.SessionOptions()
    options.add_free_dimension_override_by_name("k", 3)
    session = tiercel.InferenceSession(data, options)
    assert session.get_overridable_initializers()[0].shape == [3, 4]
    with pytest.raises(tiercel.errors.InvalidArgument, match="expected 3, got 5"):
        session.run(None, {"x": x, "w": w})


def test_the_usual_session_keeps_its_weights_packed():
    """As many packed bytes as without the inputs, whatever was given."""
    data, feed = matmul()
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    plain = tiercel.InferenceSession(model(nodes, {"x": ["n", 20]}, {"w": array(20, 30), "b": array(30)}, {}))
    session = tiercel.InferenceSession(data)
    session.run(None, {**feed, "w": array(20, 30)})
    for s in (session, plain):
        s.run(None, feed)
    assert session.memory() == plain.memory()


def test_many_threads():
    data, feed = matmul()
    session, errors = tiercel.InferenceSession(data), []
    weights = [array(20, 30) for _ in range(4)]
    bias = session.run(None, {"x": np.zeros((1, 20), np.float32)})[0]

    def work(i):
        try:
            for _ in range(50):
                np.testing.assert_allclose(session.run(None, {**feed, "w": weights[i]})[0], feed["x"] @ weights[i] + bias, rtol=1e-3, atol=1e-4)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_profile_has_both():
    data, feed = matmul()
    options = tiercel.SessionOptions()
    options.enable_profiling = True
    session = tiercel.InferenceSession(data, options)
    session.run(None, feed)
    session.run(None, {**feed, "w": array(20, 30)})
    assert {e["run"] for e in session.take_profile()} == {1, 2}


def test_names_that_are_no_strings():
    data, feed = matmul()
    session = tiercel.InferenceSession(data)
    for wrong in ({1: array(2)}, {1: array(2), "q": array(2)}, {1: array(2), "w": array(20, 30)}):
        with pytest.raises(tiercel.errors.InvalidArgument, match="invalid input name .*1"):
            session.run(None, feed | wrong)


def test_many_sets_of_names():
    """Few of them stay prepared; all give their results."""
    nodes = [helper.make_node("MatMul", [f"p{i - 1}" if i else "x", f"w{i}"], [f"p{i}" if i < 5 else "y"]) for i in range(6)]
    weights = {f"w{i}": array(20, 20) for i in range(6)}
    session = tiercel.InferenceSession(model(nodes, {"x": [3, 20]}, weights))
    x = array(3, 20)
    for names in ([f"w{i}"] for i in (0, 1, 2, 3, 4, 5, 0, 1, 5)):
        given = {n: array(20, 20) for n in names}
        want = x
        for n, w in weights.items():
            want = want @ given.get(n, w)
        np.testing.assert_allclose(session.run(None, {"x": x, **given})[0], want, rtol=1e-4, atol=1e-3)
