"""Element types by the names that ``NodeArg.type`` gives them: ``onnxruntime.transformers.io_binding_helper``, the part of it
that optimum imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tiercel import _core

if TYPE_CHECKING:
    from tiercel.session import InferenceSession

_TENSOR = 0
_NUMBERS = {_core.type_string(_TENSOR, number): number for number in range(1, 27)}
_STRING = 8
_TORCH = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn",
    18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
}  # fmt: skip


class TypeHelper:
    """Types of a session's inputs and outputs, as numpy's, torch's and ONNX's. Every function raises ``ValueError`` for a
    name or a type that is none. Source: ``onnxruntime.transformers.io_binding_helper.TypeHelper``."""

    @staticmethod
    def get_input_type(ort_session: InferenceSession, name: str) -> str:
        """The type of an input, such as ``tensor(float)``."""
        for arg in ort_session.get_inputs():
            if arg.name == name:
                return arg.type
        raise ValueError(f"input name {name} not found")

    @staticmethod
    def get_output_type(ort_session: InferenceSession, name: str) -> str:
        """The type of an output, such as ``tensor(float)``."""
        for arg in ort_session.get_outputs():
            if arg.name == name:
                return arg.type
        raise ValueError(f"output name {name} not found")

    @staticmethod
    def ort_type_to_onnx_type(ort_type: str) -> int:
        """``tensor(float)`` -> TensorProto.FLOAT."""
        if ort_type not in _NUMBERS:
            raise ValueError(f"{ort_type} is no type of a tensor")
        return _NUMBERS[ort_type]

    @staticmethod
    def ort_type_to_numpy_type(ort_type: str) -> Any:
        """``tensor(float)`` -> numpy.float32."""
        number = TypeHelper.ort_type_to_onnx_type(ort_type)
        dtype = _core.dtype_numpy(number)
        if number == _STRING or dtype.isbuiltin != 1:
            raise ValueError(f"numpy has no type for {ort_type}")
        return bool if dtype.kind == "b" else dtype.type

    @staticmethod
    def ort_type_to_torch_type(ort_type: str) -> Any:
        """``tensor(float)`` -> torch.float32. Needs torch."""
        torch = import_module("torch")
        found = getattr(torch, _TORCH.get(TypeHelper.ort_type_to_onnx_type(ort_type), ""), None)
        if found is None:
            raise ValueError(f"torch has no type for {ort_type}")
        return found

    @staticmethod
    def numpy_type_to_torch_type(numpy_type: Any) -> Any:
        """numpy.float32 -> torch.float32. Needs torch."""
        import numpy as np

        return TypeHelper.ort_type_to_torch_type(_core.type_string(_TENSOR, _core.dtype_number(np.dtype(numpy_type))))

    @staticmethod
    def torch_type_to_numpy_type(torch_type: Any) -> Any:
        """torch.float32 -> numpy.float32."""
        name = str(torch_type).removeprefix("torch.")
        for number, torch_name in _TORCH.items():
            if torch_name == name:
                return TypeHelper.ort_type_to_numpy_type(_core.type_string(_TENSOR, number))
        raise ValueError(f"numpy has no type for {torch_type}")

    @staticmethod
    def get_io_numpy_type_map(ort_session: InferenceSession) -> dict[str, Any]:
        """Name of each input and output -> numpy's type."""
        args = [*ort_session.get_inputs(), *ort_session.get_outputs()]
        return {a.name: TypeHelper.ort_type_to_numpy_type(a.type) for a in args}

    @staticmethod
    def get_io_onnx_type_map(ort_session: InferenceSession) -> dict[str, int]:
        """Name of each input and output -> TensorProto.DataType."""
        args = [*ort_session.get_inputs(), *ort_session.get_outputs()]
        return {a.name: TypeHelper.ort_type_to_onnx_type(a.type) for a in args}
