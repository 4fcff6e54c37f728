"""Gradients of a model with respect to its inputs and weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tiercel import _core
from tiercel.options import SessionOptions
from tiercel.session import InferenceSession
from tiercel.training.models import model_bytes, model_info

_FLOATS = ("tensor(float)", "tensor(double)")


def gradient(
    model: Any,
    outputs: str | Sequence[str] | None = None,
    inputs: str | Sequence[str] | None = None,
    sess_options: SessionOptions | None = None,
) -> InferenceSession:
    """A session that computes the model's outputs and, as further outputs ``gradient of NAME``, the gradients of the
    sum of the elements of ``outputs`` with respect to ``inputs``, which are inputs or weights. Each is a name or a list
    of them, by default every output and every input of floats. ``model``: a path, .onnx bytes, an onnx.ModelProto, a
    Sequential or an InferenceSession.

    >>> session = tiercel.gradient("model.onnx", inputs=["x", "fc.weight"])
    >>> dx, dw = session.run(["gradient of x", "gradient of fc.weight"], {"x": x})

    A way that cannot be differentiated is an error that names the node and the way to it."""
    data, folder = model_bytes(model)
    info = model_info(model, data, folder)
    of, wrt = _names("outputs", outputs, info["outputs"]), _names("inputs", inputs, info["inputs"])
    return InferenceSession(_core.gradient_model(data, folder, of, wrt), sess_options)


def _names(what: str, given: str | Sequence[str] | None, infos: Sequence[tuple[str, str, Any]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    names = list(given or []) if given is None or isinstance(given, Iterable) else [given]
    if not all(isinstance(n, str) for n in names):
        raise TypeError(f"{what} is a name or a list of names, not {given!r}")
    if not names:
        names = [name for name, kind, _ in infos if kind in _FLOATS]
        if not names:
            kinds = ", ".join(f"{name!r} is a {kind}" for name, kind, _ in infos)
            hint = ": name weights, inputs=[...]" if what == "inputs" else ""
            raise ValueError(f"none of the model's {what} has a gradient, as only floats have ({kinds}){hint}")
    return names


def differentiable_operators() -> dict[tuple[str, str], bool]:
    """(domain, operator) of every gradient rule; False where the derivative is zero wherever there is one."""
    return {(domain, name): smooth for domain, name, smooth in _core.differentiable()}
