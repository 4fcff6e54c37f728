"""What may stand for a model: a path, bytes, an onnx.ModelProto, a Sequential, an InferenceSession."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tiercel import _core
from tiercel.session import InferenceSession


def model_bytes(model: Any) -> tuple[bytes, str]:
    """The model as .onnx bytes, and the folder of its external data ("": none)."""
    if isinstance(model, InferenceSession):
        folder = model.get_session_options()._entries.get("session.model_external_initializers_file_folder_path", "")
        data, own = model_bytes(model._model_bytes or model._model_path)
        return data, folder or own
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model), ""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        return path.read_bytes(), str(path.parent.resolve())
    for method in ("build", "SerializeToString"):
        if hasattr(model, method):
            return bytes(getattr(model, method)()), ""
    raise TypeError(
        f"a model is a path, bytes, an onnx.ModelProto, a Sequential or an InferenceSession, not {type(model).__name__}"
    )


def model_info(model: Any, data: bytes, folder: str) -> dict[str, Any]:
    """What ``_core.model_info`` says, of a model that keeps data in other files too."""
    path = model._model_path if isinstance(model, InferenceSession) else model
    if isinstance(path, (str, os.PathLike)):
        return _core.model_info(os.fspath(path))
    return _core.model_info(bytes(_core.with_weights(data, folder, {})) if folder else data)
