"""Tiercel: a compact CPU engine for neural networks. ONNX models in, numpy arrays in and out.

    >>> import tiercel
    >>> session = tiercel.InferenceSession("model.onnx")
    >>> outputs = session.run(None, {"x": x})

The interface is onnxruntime's, so programs written for it need another import at most; ``install_as_onnxruntime()`` saves
them that too.
"""

from typing import TYPE_CHECKING, Any

from tiercel import _core, errors
from tiercel._call import RunOptions
from tiercel.misc import (
    build_info,
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_include,
    get_version_string,
    has_collective_ops,
    preload_dlls,
    print_debug_info,
    set_default_logger_callback,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_seed,
)
from tiercel.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    SessionOptions,
    set_global_thread_pool_sizes,
)
from tiercel.providers import get_all_providers, get_available_providers, get_device
from tiercel.session import InferenceSession, ModelMetadata, NodeArg

if TYPE_CHECKING:
    from tiercel import training
    from tiercel.binding import IOBinding, SessionIOBinding
    from tiercel.compat import install_as_onnxruntime
    from tiercel.devices import (
        OrtAllocatorType,
        OrtArenaCfg,
        OrtDevice,
        OrtDeviceMemoryType,
        OrtDeviceVendorId,
        OrtEpDevice,
        OrtExecutionProviderDevicePolicy,
        OrtHardwareDevice,
        OrtHardwareDeviceType,
        OrtMemoryInfo,
        OrtMemoryInfoDeviceType,
        OrtMemType,
        create_and_register_allocator,
        create_and_register_allocator_v2,
        get_ep_devices,
        register_execution_provider_library,
        unregister_execution_provider_library,
    )
    from tiercel.training import gradient
    from tiercel.values import OrtValue, OrtValueVector, copy_tensors

__version__: str = _core.__version__

# Imported when first used.
_LAZY = {
    "gradient": "tiercel.training",
    "training": "",
    "IOBinding": "tiercel.binding",
    "OrtAllocatorType": "tiercel.devices",
    "OrtArenaCfg": "tiercel.devices",
    "OrtDevice": "tiercel.devices",
    "OrtDeviceMemoryType": "tiercel.devices",
    "OrtDeviceVendorId": "tiercel.devices",
    "OrtEpDevice": "tiercel.devices",
    "OrtExecutionProviderDevicePolicy": "tiercel.devices",
    "OrtHardwareDevice": "tiercel.devices",
    "OrtHardwareDeviceType": "tiercel.devices",
    "OrtMemType": "tiercel.devices",
    "OrtMemoryInfo": "tiercel.devices",
    "OrtMemoryInfoDeviceType": "tiercel.devices",
    "OrtValue": "tiercel.values",
    "OrtValueVector": "tiercel.values",
    "SessionIOBinding": "tiercel.binding",
    "copy_tensors": "tiercel.values",
    "create_and_register_allocator": "tiercel.devices",
    "create_and_register_allocator_v2": "tiercel.devices",
    "get_ep_devices": "tiercel.devices",
    "install_as_onnxruntime": "tiercel.compat",
    "register_execution_provider_library": "tiercel.devices",
    "unregister_execution_provider_library": "tiercel.devices",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tiercel' has no attribute {name!r}")
    from importlib import import_module

    module = _LAZY[name]
    value = getattr(import_module(module), name) if module else import_module(f"tiercel.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtAllocatorType",
    "OrtArenaCfg",
    "OrtDevice",
    "OrtDeviceMemoryType",
    "OrtDeviceVendorId",
    "OrtEpDevice",
    "OrtExecutionProviderDevicePolicy",
    "OrtHardwareDevice",
    "OrtHardwareDeviceType",
    "OrtMemType",
    "OrtMemoryInfo",
    "OrtMemoryInfoDeviceType",
    "OrtValue",
    "OrtValueVector",
    "RunOptions",
    "SessionIOBinding",
    "SessionOptions",
    "__version__",
    "build_info",
    "copy_tensors",
    "create_and_register_allocator",
    "create_and_register_allocator_v2",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "errors",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_ep_devices",
    "get_include",
    "get_version_string",
    "gradient",
    "has_collective_ops",
    "install_as_onnxruntime",
    "preload_dlls",
    "print_debug_info",
    "register_execution_provider_library",
    "set_default_logger_callback",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_global_thread_pool_sizes",
    "set_seed",
    "training",
    "unregister_execution_provider_library",
]
