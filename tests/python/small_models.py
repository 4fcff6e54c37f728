"""Small models for the tests of the Python package."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper, parser

ARRANGE = """<ir_version: 8, opset_import: ["": 17], producer_name: "tests", model_version: 3, doc_string: "a model",
 domain: "test.models", metadata_props: ["key": "value", "other": "x"]>
arrange (float[N, 3] x, int64[2] s) => (float[3, N] turned, float[N] total, float[A, B] shaped)
{
    turned = Transpose (x)
    axes = Constant <value = int64[1] {1}> ()
    total = ReduceSum <keepdims = 0> (x, axes)
    shaped = Reshape (x, s)
}"""

TURN = """<ir_version: 8, opset_import: ["": 17]>
turn (float[N, 3] x) => (float[3, N] y) { y = Transpose (x) }"""


def model(text: str) -> bytes:
    """The bytes of a model written in ONNX's text format."""
    return parser.parse_model(text).SerializeToString()


def identity(elem_type: int, shape: list[int | str | None] | None, opset: int = 21) -> bytes:
    """One Identity of a tensor type."""
    x = helper.make_tensor_value_info("x", elem_type, shape)
    y = helper.make_tensor_value_info("y", elem_type, shape)
    return one(helper.make_node("Identity", ["x"], ["y"]), [x], [y], opset)


def one(node: object, inputs: list[object], outputs: list[object], opset: int = 21) -> bytes:
    """One node."""
    graph = helper.make_graph([node], "one", inputs, outputs)
    made: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return made.SerializeToString()


NATIVE_TYPES = [
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT32,
    TensorProto.UINT64,
]
OTHER_TYPES = [
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.UINT4,
    TensorProto.INT4,
]
