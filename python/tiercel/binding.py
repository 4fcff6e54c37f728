"""IOBinding: the inputs and outputs of a run, bound to memory once and used again. Names: onnxruntime's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiercel import _core, errors
from tiercel.devices import need_cpu
from tiercel.values import OrtValue, OrtValueVector, element_dtype

if TYPE_CHECKING:
    from tiercel.session import InferenceSession


class IOBinding:
    """Inputs and outputs of ``session``, bound by name; run it with ``InferenceSession.run_with_iobinding``."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, np.ndarray[Any, Any] | None] = {}  # None: memory that the run allocates
        self._results: list[Any] = []

    @property
    def _iobinding(self) -> IOBinding:  # onnxruntime's inner object
        return self

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray[Any, Any]) -> None:
        """Binds an array, which is read at each run. Raises ``InvalidArgument`` for a name that is no input's, or no array."""
        self._check_input(name)
        if not isinstance(arr_on_cpu, np.ndarray):
            raise errors.InvalidArgument(f"input {name!r}: expected an array, got a {type(arr_on_cpu).__name__}")
        self._inputs[name] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Binds a value, which is read at each run. Raises ``InvalidArgument`` for a name that is no input's."""
        self._check_input(name)
        self._inputs[name] = ortvalue

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Binds foreign memory: shape in elements, buffer_ptr the address of the first, which the caller keeps alive.

        element_type: a numpy type or a TensorProto.DataType. Raises ``InvalidArgument`` for a name that is no input's, ``Fail``
        for a device that is not the processor.
        """
        self._check_input(name)
        need_cpu(device_type)
        dtype, number = element_dtype(element_type)
        self._inputs[name] = OrtValue(_core.array_at(int(buffer_ptr), dtype, list(shape)), number)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Asks for an output: in foreign memory when shape and buffer_ptr are given, else in memory that each run allocates.

        Raises ``InvalidArgument`` for a name that is no output's, ``Fail`` for a device that is not the processor.
        """
        self._check_output(name)
        need_cpu(device_type)
        array = None
        if buffer_ptr is not None:
            if shape is None or element_type is None:
                raise errors.InvalidArgument(f"output {name!r}: buffer_ptr needs element_type and shape")
            array = _core.array_at(int(buffer_ptr), element_dtype(element_type)[0], list(shape))
        self._outputs[name] = array

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Has the output written into the value's memory at each run. Raises ``InvalidArgument`` for a name that is no output's
        or a value that is no tensor."""
        self._check_output(name)
        self._outputs[name] = ortvalue.numpy()

    def get_outputs(self) -> list[OrtValue]:
        """The outputs of the last run, in the order in which they were bound."""
        return [OrtValue(r) for r in self._results]

    def get_outputs_as_ortvaluevector(self) -> OrtValueVector:
        """The outputs of the last run, in the order in which they were bound."""
        return OrtValueVector(self.get_outputs())

    def copy_outputs_to_cpu(self) -> list[Any]:
        """Copies of the outputs of the last run: arrays, or lists of arrays for sequences."""
        return [r.copy() if hasattr(r, "copy") else r for r in self._results]

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs and their results."""
        self._outputs.clear()
        self._results = []

    def synchronize_inputs(self) -> None:
        """No effect: a run returns when it is done."""

    def synchronize_outputs(self) -> None:
        """No effect: a run returns when it is done."""

    def _check_input(self, name: str) -> None:
        if name not in self._session._input_names and name not in self._session._overridable_names:
            raise errors.InvalidArgument(
                f"invalid input name {name!r}: the inputs are {', '.join(self._session._input_names)}"
            )

    def _check_output(self, name: str) -> None:
        if name not in self._session._output_names:
            raise errors.InvalidArgument(
                f"invalid output name {name!r}: the outputs are {', '.join(self._session._output_names)}"
            )


SessionIOBinding = IOBinding
