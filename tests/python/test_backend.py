"""ONNX's backend interface."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

import tiercel.backend as backend
from small_models import TURN, model

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_prepare_and_run() -> None:
    m = onnx.load_from_string(model(TURN))
    assert backend.is_compatible(m)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    rep = backend.prepare(m, "CPU", intra_op_num_threads=1)
    for inputs in ([X], X, {"x": X}, (X,)):
        np.testing.assert_array_equal(rep.run(inputs)[0], X.T)
    np.testing.assert_array_equal(backend.run_model(m, [X])[0], X.T)
    np.testing.assert_array_equal(backend.run(m, [X])[0], X.T)


def test_run_node() -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    np.testing.assert_array_equal(backend.run_node(node, [X])[0], X.T)
    np.testing.assert_array_equal(backend.run_node(node, {"x": X}, opset_version=13)[0], X.T)


def test_what_does_not_load_is_not_compatible() -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    value = helper.make_tensor_value_info("x", 1, [1])
    out = helper.make_tensor_value_info("y", 1, [1])
    assert not backend.is_compatible(helper.make_model(helper.make_graph([node], "g", [value], [out])))
