"""ONNX's backend interface, for its test suite and for programs written against it. Needs the onnx package.

Source: ``onnx.backend.base``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep

from tiercel import InferenceSession, SessionOptions


class TiercelBackendRep(BackendRep):
    """A prepared model. ``session`` is its ``InferenceSession``."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs for inputs given as a mapping, as a sequence in the model's order, or alone when there is one."""
        names = [a.name for a in self.session.get_inputs()]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        elif isinstance(inputs, np.ndarray):
            feeds = {names[0]: inputs}
        else:
            feeds = dict(zip(names, inputs, strict=False))
        return tuple(self.session.run(None, feeds))


class TiercelBackend(Backend):
    """Prepares and runs models on the processor."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model loads."""
        try:
            InferenceSession(model.SerializeToString())
        except Exception:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto | str | bytes, device: str = "CPU", **kwargs: Any) -> TiercelBackendRep:
        """Loads a model (a ModelProto, bytes or path). Keywords: fields of ``SessionOptions``. Raises as ``InferenceSession``."""
        options = SessionOptions()
        for name, value in kwargs.items():
            if hasattr(options, name):
                setattr(options, name, value)
        if isinstance(model, ModelProto):
            model = model.SerializeToString()
        return TiercelBackendRep(InferenceSession(model, options))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Loads a model and runs it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs one node. Keyword ``opset_version``: of the node's domain (the newest by default)."""
        names = [n for n in node.input if n]
        values = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        given = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype), np.shape(v))
            for n, v in zip(names, values, strict=True)
        ]
        made = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        graph = helper.make_graph([node], "node", given, made)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.run_model(model, dict(zip(names, values, strict=True)), device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for ``"CPU"``."""
        return device.split(":")[0] == "CPU"


is_compatible = TiercelBackend.is_compatible
prepare = TiercelBackend.prepare
run = TiercelBackend.run_model
run_model = TiercelBackend.run_model
run_node = TiercelBackend.run_node
supports_device = TiercelBackend.supports_device
