"""A model in double precision: what its f32 results are judged by.

Every f32 constant, input, output and Cast of the model becomes double; weights keep their f32 values. An input that the operator's
schema allows in f32 and not in double (the scales of Resize) is rounded to f32 before the node, and an output that is only ever f32 is
widened behind it. The result is run by onnx's reference evaluator: numpy in double, none of the engines that are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model, whose f32 tensors are double. Its external data must be loaded."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    opsets = {o.domain: o.version for o in wide.opset_import}
    _widen_graph(wide.graph, opsets)
    for function in wide.functions:
        nodes = _widen_nodes(function.node, opsets | {o.domain: o.version for o in function.opset_import})
        del function.node[:], function.value_info[:]
        function.node.extend(nodes)
    return wide


def outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[Any]:
    """Outputs of the model computed in double."""
    return list(_evaluator(model).run(None, _widened_feeds(feeds)))


def values(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every tensor of the main graph, by name."""
    return dict(_evaluator(model).run(None, _widened_feeds(feeds), intermediate=True))


def _widened_feeds(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()}


def _evaluator(model: onnx.ModelProto) -> Any:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # type: ignore[misc]
        """onnx's own fails where an index has fewer rows than the data."""

        def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
            rest = tuple(slice(n) if i != axis % data.ndim else slice(None) for i, n in enumerate(indices.shape))
            return (np.take_along_axis(data[rest], indices, axis),)

    class BatchNormalization(OpRun):  # type: ignore[misc]
        """onnx's own takes opset 9's for training where `momentum` is given."""

        def _run(
            self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray,
            epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0, spatial: int = 1,
        ) -> tuple[np.ndarray]:  # fmt: skip
            if training_mode or not spatial:
                raise NotImplementedError("BatchNormalization in training mode or with spatial = 0 has no f64 run here")
            column = (-1, *[1] * (x.ndim - 2))
            factor = scale / np.sqrt(variance + epsilon)
            return ((x - mean.reshape(column)) * factor.reshape(column) + bias.reshape(column),)

    return ReferenceEvaluator(widened(model), new_ops=[GatherElements, BatchNormalization])


def _widen_graph(graph: GraphProto, opsets: Mapping[str, int]) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output):
        _widen_type(value.type)
    del graph.value_info[:]
    nodes = _widen_nodes(graph.node, opsets)
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_type(kind: TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(kind, which)
        if tensor.elem_type == FLOAT:
            tensor.elem_type = DOUBLE
    elif which in ("sequence_type", "optional_type"):
        _widen_type(getattr(kind, which).elem_type)


def _widen_attribute(attribute: AttributeProto, opsets: Mapping[str, int]) -> None:
    if attribute.type == AttributeProto.TENSOR:
        _widen_tensor(attribute.t)
    elif attribute.type == AttributeProto.GRAPH:
        _widen_graph(attribute.g, opsets)
    elif attribute.type == AttributeProto.INT and attribute.name in DTYPE_ATTRIBUTES and attribute.i == FLOAT:
        attribute.i = DOUBLE
    elif attribute.name in ("value_float", "value_floats"):  # of Constant
        values = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
        shape = [] if attribute.name == "value_float" else [len(values)]
        attribute.CopyFrom(helper.make_attribute("value", helper.make_tensor("", DOUBLE, shape, values)))


def _widen_nodes(nodes: Iterable[NodeProto], opsets: Mapping[str, int]) -> list[NodeProto]:
    result: list[NodeProto] = []
    for node in nodes:
        for attribute in node.attribute:
            _widen_attribute(attribute, opsets)
        before, after = _boundary(node, opsets)
        result += [*before, node, *after]
    return result


def _boundary(node: NodeProto, opsets: Mapping[str, int]) -> tuple[list[NodeProto], list[NodeProto]]:
    """Casts around a node, whose names it takes over, for what its operator knows in f32 only."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:  # a function of the model
        return [], []

    def narrow(formals: Any, at: int) -> bool:
        types = formals[min(at, len(formals) - 1)].types if formals else ()
        return "tensor(float)" in types and "tensor(double)" not in types

    before, after = [], []
    unique = f"{node.output[0] if node.output else node.name}"
    for i, name in enumerate(node.input):
        if name and narrow(schema.inputs, i):
            node.input[i] = f"{unique}/in{i}/f32"
            before.append(helper.make_node("Cast", [name], [node.input[i]], to=FLOAT))
    for i, name in enumerate(node.output):
        if name and narrow(schema.outputs, i) and node.op_type not in ("Constant", "Cast"):
            node.output[i] = f"{name}/f32"
            after.append(helper.make_node("Cast", [node.output[i]], [name], to=DOUBLE))
    return before, after
