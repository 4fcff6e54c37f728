"""What onnxruntime's sessions keep in ``_sess``: programs that run one model thousands of times a second call it directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiercel._call import RunOptions
    from tiercel.session import InferenceSession, ModelMetadata, NodeArg
    from tiercel.values import OrtValue


class InnerSession:
    """A session under the names of onnxruntime's C++ class; what is not here is the session's own."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session

    @property
    def inputs_meta(self) -> list[NodeArg]:
        """The inputs."""
        return self._session.get_inputs()

    @property
    def outputs_meta(self) -> list[NodeArg]:
        """The outputs."""
        return self._session.get_outputs()

    @property
    def model_meta(self) -> ModelMetadata:
        """What the model says of itself."""
        return self._session.get_modelmeta()

    def run_with_ort_values(
        self, feeds: Mapping[str, OrtValue], output_names: Sequence[str], run_options: RunOptions | None = None
    ) -> list[OrtValue]:
        """As the session's, with the arguments in the other order."""
        return self._session.run_with_ort_values(output_names, feeds, run_options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
