"""Tensors handed over by DLPack, in both directions; also of the narrow types that numpy's own export refuses.

Source: https://dmlc.github.io/dlpack/latest/c_api.html
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tiercel import _core

# DLDataTypeCode of TensorProto's BFLOAT16 and FLOAT8*, which travel through numpy as unsigned integers of their size.
_CODES = {16: 4, 17: 10, 18: 11, 19: 12, 20: 13}
_NUMBERS = {code: number for number, code in _CODES.items()}
_UINT = 1
_CODE_AT = 20  # DLTensor: data (8 bytes), device (4 + 4), ndim (4), dtype: code


def _code_of(capsule: Any) -> ctypes.c_uint8:
    """The type code inside a capsule "dltensor", to be read or written there."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + _CODE_AT)


def export(array: np.ndarray[Any, Any], element_type: int) -> Any:
    """A capsule over the array's memory. Raises ``BufferError`` for element types that DLPack lacks."""
    code = _CODES.get(element_type)
    if code is None:
        return array.__dlpack__()
    capsule = array.view(f"u{array.dtype.itemsize}").__dlpack__()
    _code_of(capsule).value = code
    return capsule


class _Producer:
    """A capsule as the object that numpy.from_dlpack wants."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def load(data: Any) -> tuple[np.ndarray[Any, Any], int | None]:
    """The array over the memory of an object with ``__dlpack__`` or of a capsule, and its TensorProto.DataType where
    numpy's dtype does not tell it. Raises ``TypeError`` for anything else, ``BufferError`` for memory of another device."""
    capsule = data
    if hasattr(data, "__dlpack__"):
        kind = data.__dlpack_device__()[0] if hasattr(data, "__dlpack_device__") else 1
        if int(kind) != 1:
            raise BufferError(f"from_dlpack: the memory is on device type {int(kind)}, not the processor's")
        capsule = data.__dlpack__()
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"from_dlpack: expected an object with __dlpack__ or a capsule, got a {type(data).__name__}")
    try:
        code = _code_of(capsule)
    except ValueError:
        raise TypeError("from_dlpack: the capsule is used already, or none of DLPack") from None
    number = _NUMBERS.get(code.value)
    if number is not None:
        code.value = _UINT
    array = _writable(np.from_dlpack(_Producer(capsule)))
    return (array, None) if number is None else (array.view(_core.dtype_numpy(number)), number)


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """numpy marks what comes from an unversioned capsule as read-only, which such a capsule cannot be."""
    if array.flags.writeable:
        return array
    if array.size == 0:
        return np.empty_like(array)
    size = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
    memory = (ctypes.c_char * size).from_address(array.ctypes.data)
    memory.owner = array
    writable: np.ndarray[Any, Any] = np.ndarray(array.shape, array.dtype, memory, 0, array.strides)
    return writable
