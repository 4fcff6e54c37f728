"""One-node models, computed by onnx's reference evaluator and by the engine, and compared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import tiercel
from tiercel import _core

EPS = {"float16": 2**-10, "float32": 2**-23, "float64": 2**-52, "bfloat16": 2**-7}
WAYS = ("node", "static", "dynamic")


def elem_type(array: np.ndarray) -> int:
    """TensorProto.DataType of an array; object, str and bytes arrays are strings."""
    if array.dtype.kind in "OUST":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def value_type(value: Any, dynamic: bool = False) -> onnx.TypeProto:
    """TypeProto of an array or of a list of arrays (a sequence); dynamic: with unknown extents."""
    if isinstance(value, list):
        item = value[0] if value else np.zeros((0,), np.float32)
        return helper.make_sequence_type_proto(helper.make_tensor_type_proto(elem_type(item), None))
    return helper.make_tensor_type_proto(elem_type(value), [None] * value.ndim if dynamic else value.shape)


def one_node(
    op_type: str,
    inputs: Sequence[Any],
    attrs: dict[str, Any] | None = None,
    opset: int | None = None,
    domain: str = "",
    outputs: int | Sequence[bool] = 1,
    constants: Sequence[int] = (),
    dynamic: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Any], list[str]]:
    """The model, its feeds and the names of its outputs. Inputs of None are left out; those whose index stands in
    `constants` become initializers. `outputs`: how many, or which. `dynamic`: inputs are declared with unknown extents."""
    asked = [True] * outputs if isinstance(outputs, int) else list(outputs)
    names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
    out_names = [f"y{i}" if on else "" for i, on in enumerate(asked)]
    node = helper.make_node(op_type, names, out_names, name=f"the_{op_type}", domain=domain, **(attrs or {}))
    graph_inputs, initializers, feeds = [], [], {}
    for i, (name, value) in enumerate(zip(names, inputs, strict=True)):
        if value is None:
            continue
        if i in constants:
            initializers.append(numpy_helper.from_array(value, name))
        else:
            graph_inputs.append(helper.make_value_info(name, value_type(value, dynamic)))
            feeds[name] = value
    graph_outputs = [onnx.ValueInfoProto(name=n) for n in out_names if n]
    graph = helper.make_graph([node], "one_node", graph_inputs, graph_outputs, initializers)
    opset = onnx.defs.onnx_opset_version() if opset is None else opset
    imports = [helper.make_opsetid(domain, opset)]
    if domain:
        imports.append(helper.make_opsetid("", onnx.defs.onnx_opset_version()))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model, feeds, [n for n in out_names if n]


def evaluate(model: onnx.ModelProto, inputs: Sequence[Any]) -> list[Any]:
    """The engine's result for a one-node model, without a session: every input is known to the operator."""
    (node,) = model.graph.node
    opset = next(o.version for o in model.opset_import if o.domain == node.domain)
    attributes = []
    for a in node.attribute:
        value = helper.get_attribute_value(a)
        if a.type == AttributeProto.TENSOR:
            value = numpy_helper.to_array(value)
        attributes.append((a.name, int(a.type), value))
    asked = [bool(n) for n in node.output]
    results = _core.evaluate_node(node.op_type, node.domain, opset, list(inputs), asked, attributes)
    return [r for r, n in zip(results, node.output, strict=True) if n]


def compare(got: Any, expected: Any, ulp: float = 4, atol: float = 0, what: str = "") -> None:
    """Same type and shape; floats within `ulp` epsilons of the larger magnitude (plus `atol`), all else equal."""
    if expected is None or isinstance(expected, list):
        assert type(got) is type(expected), f"{what}: {type(got)} instead of {type(expected)}"
        if isinstance(expected, list):
            assert len(got) == len(expected), f"{what}: {len(got)} items instead of {len(expected)}"
            for i, (g, e) in enumerate(zip(got, expected, strict=True)):
                compare(g, e, ulp, atol, f"{what}[{i}]")
        return
    expected = np.asarray(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape} instead of {expected.shape}"
    if expected.dtype.kind in "OUST":
        strings = [s.decode() if isinstance(s, bytes) else str(s) for s in expected.ravel().tolist()]
        assert got.ravel().tolist() == strings, f"{what}: {got} instead of {expected}"
        return
    assert got.dtype == expected.dtype, f"{what}: {got.dtype} instead of {expected.dtype}"
    if expected.dtype.name not in EPS:
        np.testing.assert_array_equal(got, expected, err_msg=what)
        return
    rtol = ulp * EPS[expected.dtype.name]
    wide = np.float64 if expected.dtype.name != "float64" else np.longdouble
    np.testing.assert_allclose(got.astype(wide), expected.astype(wide), rtol=rtol, atol=atol, err_msg=what)


def check(
    op_type: str,
    inputs: Sequence[Any],
    attrs: dict[str, Any] | None = None,
    opset: int | None = None,
    domain: str = "",
    outputs: int | Sequence[bool] = 1,
    expected: Sequence[Any] | None = None,
    ulp: float = 4,
    atol: float = 0,
    ways: Sequence[str] = WAYS,
) -> list[Any]:
    """Computes the node with the engine and compares with the reference evaluator (or with `expected`).

    inputs: arrays, lists of arrays (sequences), None for those left out. opset: the newest by default. outputs: how many, or
    which. ulp: allowed error in epsilons of the result, beside the absolute error `atol`. ways: "node" (evaluated alone, all
    inputs known), "static" (a session, shapes declared), "dynamic" (a session, extents unknown). Nodes with graph
    attributes run in sessions only. Returns the engine's results of the last way.
    """
    model, feeds, names = one_node(op_type, inputs, attrs, opset, domain, outputs)
    if expected is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ReferenceEvaluator(model).run(names, feeds)
    has_body = any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in model.graph.node[0].attribute)
    got: list[Any] = []
    for way in ways:
        if way == "node":
            if has_body:
                continue
            got = evaluate(model, inputs)
        else:
            if way == "dynamic":
                model = one_node(op_type, inputs, attrs, opset, domain, outputs, dynamic=True)[0]
            got = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
        for name, g, e in zip(names, got, expected, strict=True):
            compare(g, e, ulp, atol, f"{op_type}-{opset} ({way}) {name}")
    return got


def fails_everywhere(
    match: str, op_type: str, inputs: Sequence[Any], attrs: dict[str, Any] | None = None, opset: int | None = None,
    outputs: int | Sequence[bool] = 1,
) -> None:
    """The node is refused with a message that matches, alone and in a session."""
    import pytest

    model, feeds, names = one_node(op_type, inputs, attrs, opset, outputs=outputs)
    with pytest.raises(Exception, match=match):
        evaluate(model, inputs)
    with pytest.raises(Exception, match=match):
        tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)


def onnxruntime_result(
    op_type: str, inputs: Sequence[Any], attrs: dict[str, Any] | None = None, opset: int | None = None,
    outputs: int | Sequence[bool] = 1,
) -> list[Any]:
    """What onnxruntime computes for the node."""
    import onnxruntime

    model, feeds, names = one_node(op_type, inputs, attrs, opset, "", outputs)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, feeds)


def against_onnxruntime(
    op_type: str, inputs: Sequence[Any], attrs: dict[str, Any] | None = None, opset: int | None = None,
    outputs: int | Sequence[bool] = 1, ulp: float = 4, atol: float = 0,
) -> list[Any]:
    """As check(), against onnxruntime: for operators that the reference evaluator computes wrongly or not at all."""
    expected = onnxruntime_result(op_type, inputs, attrs, opset, outputs)
    return check(op_type, inputs, attrs, opset, "", outputs, expected, ulp, atol)
