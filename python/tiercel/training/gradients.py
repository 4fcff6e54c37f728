"""Gradients of a model with respect to its inputs and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiercel import _core
from tiercel.options import SessionOptions
from tiercel.session import InferenceSession
from tiercel.training.models import model_bytes


def gradient(
    model: Any,
    outputs: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    sess_options: SessionOptions | None = None,
) -> InferenceSession:
    """A session that computes the model's outputs and, as further outputs ``gradient of NAME``, the gradients of the
    sum of the elements of ``outputs`` (all by default) with respect to ``inputs``: names of inputs or of weights (by
    default every input of floats).

    >>> session = tiercel.gradient("model.onnx", inputs=["x", "fc.weight"]) >>> (dx,) = session.run(["gradient of x"],
    {"x": x})

    A way that cannot be differentiated is an error that names the node and the way to it."""
    data, folder = model_bytes(model)
    if inputs is None:
        info = _core.model_info(data)
        inputs = [name for name, kind, _ in info["inputs"] if kind in ("tensor(float)", "tensor(double)")]
    return InferenceSession(_core.gradient_model(data, folder, list(outputs or []), list(inputs)), sess_options)


def differentiable_operators() -> dict[tuple[str, str], bool]:
    """(domain, operator) of every gradient rule; False where the derivative is zero wherever there is one."""
    return {(domain, name): smooth for domain, name, smooth in _core.differentiable()}
