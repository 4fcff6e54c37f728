"""OrtValue: a value outside a call, as onnxruntime has it. All memory is the processor's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsInt

import numpy as np

from tiercel import _core, errors
from tiercel.devices import OrtMemoryInfo, need_cpu

_STRING = 8
_TENSOR, _SEQUENCE = 0, 1


def element_dtype(element_type: Any) -> tuple[np.dtype[Any], int]:
    """The numpy dtype and the TensorProto.DataType of a numpy type or a TensorProto.DataType."""
    if isinstance(element_type, int) and not isinstance(element_type, bool):
        return _core.dtype_numpy(element_type), int(element_type)
    dtype = np.dtype(element_type)
    number = _core.dtype_number(dtype)
    if number == 0:
        raise errors.InvalidArgument(f"no tensor has the element type {dtype}")
    return dtype, number


class OrtValue:
    """A tensor, a sequence of tensors or nothing, over numpy memory. Made by the class methods, or by a run.

    Source: ``onnxruntime.OrtValue``.
    """

    __slots__ = ("_element_type", "_tiercel_data")
    _tiercel_data: Any  # an array, a list of arrays or None; tiercel._call reads it
    _element_type: int

    def __init__(self, data: Any, element_type: int | None = None) -> None:
        self._tiercel_data = data._tiercel_data if isinstance(data, OrtValue) else data
        if element_type is None:
            first = self._tiercel_data
            if isinstance(first, list):
                first = first[0] if first else None
            element_type = _core.dtype_number(first.dtype) if isinstance(first, np.ndarray) else 0
        self._element_type = element_type

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: np.ndarray[Any, Any], /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """A tensor over the array's memory, which is shared when it is contiguous and in native byte order, else copied.

        Raises ``InvalidArgument`` for what is no array or has an element type that no tensor has, ``Fail`` for another device.
        """
        need_cpu(device_type)
        if not isinstance(numpy_obj, np.ndarray):
            raise errors.InvalidArgument(f"ortvalue_from_numpy: expected an array, got a {type(numpy_obj).__name__}")
        if _core.dtype_number(numpy_obj.dtype) == 0:
            raise errors.InvalidArgument(f"no tensor has the element type {numpy_obj.dtype}")
        return cls(_tidy(numpy_obj))

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: np.ndarray[Any, Any], /, onnx_element_type: int) -> OrtValue:
        """A tensor of the given TensorProto.DataType over the array's memory, whose elements have the same size."""
        dtype, number = element_dtype(int(onnx_element_type))
        if not isinstance(data, np.ndarray) or data.dtype.itemsize != dtype.itemsize:
            raise errors.InvalidArgument(f"expected an array with elements of {dtype.itemsize} bytes")
        return cls(_tidy(data).view(dtype), number)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: Any,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int = -1,
        memory_info: OrtMemoryInfo | None = None,
    ) -> OrtValue:
        """An uninitialised tensor. element_type: a numpy type, or a TensorProto.DataType (int).

        Raises ``InvalidArgument`` for a negative extent or an element type that no tensor has, ``Fail`` for another device.
        """
        need_cpu(device_type)
        dtype, number = element_dtype(element_type)
        if any(d < 0 for d in shape):
            raise errors.InvalidArgument(f"the shape {list(shape)} has a negative extent")
        return cls(np.empty(tuple(int(d) for d in shape), dtype), number)

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """A tensor over the memory of an object with ``__dlpack__``, or of such a capsule.

        Raises ``TypeError`` for anything else, ``BufferError`` when the memory is not the processor's.
        """
        from tiercel import dlpack

        array, number = dlpack.load(data)
        return cls(_tidy(array), number)

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        from tiercel import dlpack

        return dlpack.export(self._tensor(), self._element_type)

    def to_dlpack(self) -> Any:
        """A DLPack capsule over the tensor's memory. Raises ``BufferError`` for element types that DLPack lacks."""
        return self.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The tensor as an array over the same memory. Raises ``InvalidArgument`` for what is no tensor."""
        return self._tensor()

    def data_ptr(self) -> int:
        """Address of the first element. Writing there writes into the value. Raises ``InvalidArgument`` for no tensor."""
        return int(self._tensor().ctypes.data)

    def shape(self) -> list[int]:
        """Extents of the tensor. Raises ``InvalidArgument`` for what is no tensor."""
        return list(self._tensor().shape)

    def data_type(self) -> str:
        """The type, such as ``tensor(float)`` or ``seq(tensor(int64))``; ``""`` for nothing."""
        if self._tiercel_data is None:
            return ""
        return _core.type_string(_SEQUENCE if self.is_tensor_sequence() else _TENSOR, self._element_type)

    def element_type(self) -> int:
        """The TensorProto.DataType of the elements."""
        return self._element_type

    def tensor_size_in_bytes(self) -> int:
        """Bytes of the tensor's elements."""
        return self._tensor().nbytes

    def device_name(self) -> str:
        """``"cpu"``."""
        return "cpu"

    def has_value(self) -> bool:
        """False for an empty optional."""
        return self._tiercel_data is not None

    def is_tensor(self) -> bool:
        """True for a tensor."""
        return isinstance(self._tiercel_data, np.ndarray)

    def is_tensor_sequence(self) -> bool:
        """True for a sequence of tensors."""
        return isinstance(self._tiercel_data, list)

    def is_sparse_tensor(self) -> bool:
        """False: there are no sparse values."""
        return False

    def as_sparse_tensor(self) -> Any:
        """Raises ``NotImplemented``: there are no sparse values."""
        raise errors.NotImplemented("sparse tensors are not supported as values")

    def to_list(self) -> list[np.ndarray[Any, Any]]:
        """The items of a sequence. Raises ``InvalidArgument`` for what is no sequence."""
        if not isinstance(self._tiercel_data, list):
            raise errors.InvalidArgument("the OrtValue is not a sequence")
        return list(self._tiercel_data)

    def update_inplace(self, data: Any) -> None:
        """Copies an array or OrtValue of the same number of elements into the tensor's memory.

        Raises ``InvalidArgument`` for another number of elements, ``TypeError`` for what is neither.
        """
        source = data.numpy() if isinstance(data, OrtValue) else data
        if not isinstance(source, np.ndarray):
            raise TypeError("data must be a numpy.ndarray or an OrtValue.")
        target = self._tensor()
        if source.size != target.size:
            raise errors.InvalidArgument(
                f"the array's shape {list(source.shape)} does not match the OrtValue's {list(target.shape)}"
            )
        target[...] = source.reshape(target.shape)

    def _tensor(self) -> np.ndarray[Any, Any]:
        if not isinstance(self._tiercel_data, np.ndarray):
            raise errors.InvalidArgument("the OrtValue is not a tensor")
        return self._tiercel_data

    def _get_c_value(self) -> OrtValue:
        return self

    @property
    def _ortvalue(self) -> OrtValue:
        return self

    def __repr__(self) -> str:
        shape = f" {self.shape()}" if self.is_tensor() else ""
        return f"OrtValue({self.data_type() or 'nothing'}{shape})"


def _tidy(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array itself when it is plain, contiguous, aligned and in native byte order, else such a copy of it."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.require(np.asarray(array), requirements=["C", "A"])


def copy_tensors(src: Sequence[OrtValue], dst: Sequence[OrtValue], stream: Any = None) -> None:
    """Copies each tensor of src into the one of dst at the same place. Raises ``InvalidArgument`` when sizes differ."""
    if len(src) != len(dst):
        raise errors.InvalidArgument(f"copy_tensors: {len(src)} sources for {len(dst)} destinations")
    for a, b in zip(src, dst, strict=True):
        b.update_inplace(a)


class OrtValueVector(list[OrtValue]):
    """A list of OrtValues with the methods of onnxruntime's vector type."""

    def push_back(self, value: OrtValue) -> None:
        """Appends a value."""
        self.append(value)

    def element_type_at(self, index: int) -> int:
        """The TensorProto.DataType of one of them."""
        return self[index].element_type()

    def dlpack_at(self, index: int) -> Any:
        """A DLPack capsule over one of them."""
        return self[index].to_dlpack()

    def to_dlpacks(self, to_tensor: Callable[[Any], Any] | None = None) -> list[Any]:
        """DLPack capsules over all, or what the function makes of each."""
        capsules = [value.to_dlpack() for value in self]
        return capsules if to_tensor is None else [to_tensor(c) for c in capsules]

    def reserve(self, n: SupportsInt) -> None:
        """No effect."""

    def shrink_to_fit(self) -> None:
        """No effect."""

    def __iter__(self) -> Iterator[OrtValue]:
        return super().__iter__()
