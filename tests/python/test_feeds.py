"""What may be fed, and what the errors say when it may not. A session stays usable after each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

import tiercel
from small_models import ARRANGE, TURN, identity, model
from tiercel.errors import InvalidArgument

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def turn() -> tiercel.InferenceSession:
    return tiercel.InferenceSession(model(TURN))


def strided() -> np.ndarray:
    wide = np.zeros((4, 6), np.float32)
    wide[::2, ::2] = X
    return wide[::2, ::2]


def unaligned() -> np.ndarray:
    raw = np.zeros(X.nbytes + 1, np.uint8)
    raw[1:] = X.view(np.uint8).ravel()
    return raw[1:].view(np.float32).reshape(X.shape)


def read_only() -> np.ndarray:
    x = X.copy()
    x.flags.writeable = False
    return x


GOOD = {
    "plain": X,
    "fortran": np.asfortranarray(X),
    "strided": strided(),
    "reversed": X[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": np.broadcast_to(X, (2, 3)),
    "big-endian": X.astype(">f4"),
    "big-endian strided": strided().astype(">f4")[:, :],
    "unaligned": unaligned(),
    "read-only": read_only(),
    "list": X.tolist(),
    "tuple": tuple(map(tuple, X.tolist())),
    "list of ints": X.astype(int).tolist(),
    "list of arrays": list(X),
    "subclass": np.ma.array(X),
    "OrtValue": tiercel.OrtValue.ortvalue_from_numpy(X),
    "memory map": np.frombuffer(X.tobytes(), np.float32).reshape(2, 3),
}


@pytest.mark.parametrize("name", GOOD)
def test_works(turn: tiercel.InferenceSession, name: str) -> None:
    np.testing.assert_array_equal(turn.run(None, {"x": GOOD[name]})[0], X.T)


def test_objects_with_an_array_interface(turn: tiercel.InferenceSession) -> None:
    class Tensor:
        def __init__(self, a: np.ndarray) -> None:
            self.a = a

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return self.a if dtype is None else self.a.astype(dtype)

    np.testing.assert_array_equal(turn.run(None, {"x": Tensor(X)})[0], X.T)
    with pytest.raises(InvalidArgument, match="double"):
        turn.run(None, {"x": Tensor(X.astype(np.float64))})


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError])
def test_objects_that_refuse_to_be_arrays(turn: tiercel.InferenceSession, error: type[Exception]) -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise error("detach it first")

    with pytest.raises(InvalidArgument, match=r'input "x": .*Tensor.*detach it first'):
        turn.run(None, {"x": Tensor()})
    np.testing.assert_array_equal(turn.run(None, {"x": X})[0], X.T)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.float64(2), np.array(2, "f4"), True], ids=repr)
def test_scalars(value: Any) -> None:
    y = tiercel.InferenceSession(identity(1, [])).run(None, {"x": value})[0]
    assert y.shape == ()
    assert y.dtype == np.float32
    assert y == float(value)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3)])
def test_zero_sized_batches(turn: tiercel.InferenceSession, shape: tuple[int, ...]) -> None:
    y = turn.run(None, {"x": np.zeros(shape, np.float32)})[0]
    assert y.shape == shape[::-1]


def test_mappings_other_than_dict(turn: tiercel.InferenceSession) -> None:
    from types import MappingProxyType

    np.testing.assert_array_equal(turn.run(None, MappingProxyType({"x": X}))[0], X.T)
    for feed in ([X], None, X, "x"):
        with pytest.raises(TypeError):
            turn.run(None, feed)  # type: ignore[arg-type]


BAD = {
    "float64": (X.astype(np.float64), ["x", "tensor(float)", "tensor(double)", "float64"]),
    "int32": (X.astype(np.int32), ["x", "tensor(float)", "tensor(int32)"]),
    "strings": (X.astype(str), ["x", "tensor(float)", "tensor(string)"]),
    "objects": (X.astype(object), ["x", "tensor(float)"]),
    "dates": (X.astype("M8[s]"), ["x", "tensor(float)", "datetime64"]),
    "rank 1": (X[0], ["x", "rank", "2", "1"]),
    "rank 3": (X[None], ["x", "rank", "2", "3"]),
    "dimension": (np.ones((2, 4), np.float32), ["x", "dimension", "3", "4"]),
    "ragged": ([[1.0, 2.0], [3.0]], ["x", "tensor(float)", "list"]),
    "words": ([["a", "b", "c"]], ["x", "tensor(float)"]),
    "text": ("abc", ["x", "tensor(float)", "str"]),
    "None": (None, ["x", "tensor(float)", "None"]),
    "dict": ({1: 2}, ["x", "tensor(float)", "dict"]),
    "rank 20": (np.ones((1,) * 20, np.float32), ["x"]),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_value(turn: tiercel.InferenceSession, name: str) -> None:
    value, words = BAD[name]
    with pytest.raises(InvalidArgument) as caught:
        turn.run(None, {"x": value})
    for word in words:
        assert word in str(caught.value), str(caught.value)
    np.testing.assert_array_equal(turn.run(None, {"x": X})[0], X.T)


def test_missing_input() -> None:
    s = tiercel.InferenceSession(model(ARRANGE))
    with pytest.raises(ValueError, match=r"\['s'\].*\['x'\]"):
        s.run(None, {"x": X})
    with pytest.raises(ValueError, match=r"'x', 's'"):
        s.run(None, {})
    assert len(s.run(None, {"x": X, "s": np.array([6, 1])})) == 3


def test_unknown_names(turn: tiercel.InferenceSession) -> None:
    with pytest.raises(InvalidArgument, match=r"'q'.*inputs are x"):
        turn.run(None, {"x": X, "q": X})
    with pytest.raises(InvalidArgument, match=r"'q'.*outputs are y"):
        turn.run(["q"], {"x": X})
    with pytest.raises(InvalidArgument):
        turn.run([""], {"x": X})
    with pytest.raises(TypeError):
        turn.run("y", {"x": X})
    np.testing.assert_array_equal(turn.run(None, {"x": X})[0], X.T)


def test_wrong_data_fails_at_the_node() -> None:
    s = tiercel.InferenceSession(model(ARRANGE))
    with pytest.raises(tiercel.errors.Error, match="Reshape"):
        s.run(None, {"x": X, "s": np.array([4, 4])})
    assert len(s.run(None, {"x": X, "s": np.array([6, 1])})) == 3


def optional_model() -> bytes:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [3]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_value_info("x", kind)],
        [helper.make_value_info("y", kind)],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_optional() -> None:
    s = tiercel.InferenceSession(optional_model())
    assert (s.get_inputs()[0].type, s.get_inputs()[0].shape) == ("optional(tensor(float))", [3])
    np.testing.assert_array_equal(s.run(None, {"x": np.ones(3, np.float32)})[0], [1, 1, 1])
    assert s.run(None, {"x": None}) == [None]
    assert s.run(None, {}) == [None]


def sequence_model() -> bytes:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_value_info("x", kind)],
        [helper.make_value_info("y", kind)],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def test_sequence() -> None:
    s = tiercel.InferenceSession(sequence_model())
    assert (s.get_inputs()[0].type, s.get_inputs()[0].shape) == ("seq(tensor(float))", [])
    items = [np.ones(2, np.float32), np.zeros((1, 3), np.float32)]
    (y,) = s.run(None, {"x": items})
    assert isinstance(y, list)
    for a, b in zip(y, items, strict=True):
        np.testing.assert_array_equal(a, b)
    assert s.run(None, {"x": []}) == [[]]
    assert s.run(None, {"x": [[1.0, 2.0]]})[0][0].tolist() == [1, 2]
    with pytest.raises(InvalidArgument, match=r"x.*\[1\].*double"):
        s.run(None, {"x": [np.ones(2, np.float32), np.ones(2)]})
    with pytest.raises(InvalidArgument, match="list of arrays"):
        s.run(None, {"x": np.ones((2, 2), np.float32)})
