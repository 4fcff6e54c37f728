"""Exception classes: one for each status code of the engine, named as onnxruntime names them.

Source: ``OrtErrorCode`` of onnxruntime's C API, whose numbers the engine's codes share.
"""

from __future__ import annotations


class Error(RuntimeError):
    """Base class of the engine's errors; a ``RuntimeError``, which onnxruntime raises in some of these cases. ``code`` is the
    status code of the C ABI."""

    code = 1


class Fail(Error):
    """A failure that no other class describes."""


class InvalidArgument(Error):
    """An argument is wrong: an input's name, type, rank or extent, an option's value."""

    code = 2


class NoSuchFile(Error):
    """The model file does not exist or cannot be opened."""

    code = 3


class NoModel(Error):
    """There is no model where one is needed."""

    code = 4


class EngineError(Error):
    """The engine found itself in a state that it should not be in."""

    code = 5


class RuntimeException(Error):
    """A node failed while the model ran."""

    code = 6


class InvalidProtobuf(Error):
    """The bytes are not an ONNX model; the message names the offset and the field."""

    code = 7


class ModelLoaded(Error):
    """A model is loaded already."""

    code = 8


class NotImplemented(Error):
    """The model asks for an operator, type or feature that this engine lacks; all are listed at once."""

    code = 9


class InvalidGraph(Error):
    """The model is well-formed protobuf, but not a valid ONNX graph."""

    code = 10


class EPFail(Error):
    """An execution provider failed. Never raised: there is one provider."""

    code = 11


class ModelLoadCanceled(Error):
    """Loading was cancelled. Never raised."""

    code = 12


class ModelRequiresCompilation(Error):
    """The model must be compiled first. Never raised."""

    code = 13


class NotFound(Error):
    """Something asked for by name does not exist."""

    code = 14


class DeviceReset(Error):
    """The device was lost. Never raised."""

    code = 15


_BY_CODE = {c.code: c for c in Error.__subclasses__()}


def from_code(code: int, message: str) -> Error:
    """The exception object of a status code (not raised)."""
    return _BY_CODE.get(code, Fail)(message)
