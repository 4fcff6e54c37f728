"""Tiercel: a compact CPU engine for neural networks. ONNX models in, numpy arrays in and out.

    >>> import tiercel
    >>> session = tiercel.InferenceSession("model.onnx")
    >>> outputs = session.run(None, {"x": x})
"""

from tiercel import _core, errors

__version__ = "0.1.0"


def build_info() -> dict:
    """What was built and what runs here.

    Returns a dict: ``version``, ``isa`` (kernel set in use), ``isas`` (kernel sets compiled), ``compiler``, and
    ``threads`` (processors that this process may use: the affinity mask bounded by the cgroup's quota).
    Raises ``InvalidArgument`` when ``TIERCEL_FORCE_ISA`` names a kernel set that cannot run here.
    """
    return _core.build_info()


__all__ = ["__version__", "build_info", "errors"]
