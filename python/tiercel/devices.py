"""Devices, memory and plugins under onnxruntime's names. There is one device, the processor, and there are no plugins."""

from __future__ import annotations

import enum
from typing import Any

from tiercel import errors

_TYPES = {"cpu": 0, "cuda": 1, "gpu": 1, "webgpu": 1, "npu": 2, "cann": 3, "dml": 4}


class OrtDeviceVendorId(enum.IntEnum):
    """PCI numbers of the makers of devices."""

    NONE = 0
    AMD = 0x1002
    NVIDIA = 0x10DE
    ARM = 0x13B5
    MICROSOFT = 0x1414
    HUAWEI = 0x19E5
    QUALCOMM = 0x5143
    INTEL = 0x8086


class OrtAllocatorType(enum.IntEnum):
    """Kinds of allocators. Kept for compatibility."""

    INVALID = -1
    ORT_DEVICE_ALLOCATOR = 0
    ORT_ARENA_ALLOCATOR = 1


class OrtMemType(enum.IntEnum):
    """Kinds of memory. Kept for compatibility."""

    CPU_INPUT = -2
    CPU_OUTPUT = -1
    CPU = -1
    DEFAULT = 0


class OrtDeviceMemoryType(enum.IntEnum):
    """Kinds of a device's memory. Kept for compatibility."""

    DEFAULT = 0
    HOST_ACCESSIBLE = 5


class OrtMemoryInfoDeviceType(enum.IntEnum):
    """Kinds of devices that memory lies on."""

    CPU = 0
    GPU = 1
    FPGA = 2
    NPU = 3


class OrtHardwareDeviceType(enum.IntEnum):
    """Kinds of hardware."""

    CPU = 0
    GPU = 1
    NPU = 2


class OrtExecutionProviderDevicePolicy(enum.IntEnum):
    """How to choose between devices: each policy chooses the processor."""

    DEFAULT = 0
    PREFER_CPU = 1
    PREFER_NPU = 2
    PREFER_GPU = 3
    MAX_PERFORMANCE = 4
    MAX_EFFICIENCY = 5
    MIN_OVERALL_POWER = 6


class OrtDevice:
    """Where memory lies. Only the processor's is supported; others exist as names."""

    def __init__(self, device_type: int = 0, mem_type: int = 0, *vendor_and_id: int) -> None:
        # (type, memory, id) or (type, memory, vendor, id)
        if len(vendor_and_id) > 2:
            raise TypeError("OrtDevice(device_type, mem_type, [vendor_id,] device_id)")
        vendor, number = (0, 0, *vendor_and_id)[-2:]
        self._type, self._mem_type = int(device_type), int(mem_type)
        self._vendor, self._id = (int(vendor) if len(vendor_and_id) == 2 else 0), int(number)

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> OrtDevice:
        """The device of a name ("cpu", "cuda", ...). Raises ``Fail`` for a name that is none."""
        return OrtDevice(get_ort_device_type(ort_device_name.lower()), 0, max(vendor_id, 0), device_id)

    def device_id(self) -> int:
        """int: the number of the device among its kind."""
        return self._id

    def device_type(self) -> int:
        """int: 0 for the processor."""
        return self._type

    def device_vendor_id(self) -> int:
        """int: 0, no vendor."""
        return self._vendor

    vendor_id = device_vendor_id

    def device_mem_type(self) -> int:
        """int: 0, the default memory of the device."""
        return self._mem_type

    mem_type = device_mem_type

    @staticmethod
    def cpu() -> int:
        """The device type of the processor."""
        return 0

    @staticmethod
    def cuda() -> int:
        """The device type of GPUs."""
        return 1

    gpu = webgpu = cuda

    @staticmethod
    def npu() -> int:
        """The device type of neural processors."""
        return 2

    @staticmethod
    def cann() -> int:
        """The device type of Ascend processors."""
        return 3

    @staticmethod
    def dml() -> int:
        """The device type of DirectML."""
        return 4

    @staticmethod
    def default_memory() -> int:
        """The default memory type."""
        return 0

    def _get_c_device(self) -> OrtDevice:
        return self


class OrtMemoryInfo:
    """A description of memory: name, kind of allocator, device. Informative only."""

    def __init__(self, name: str = "Cpu", allocator_type: int = 0, device_id: int = 0, mem_type: int = 0) -> None:
        self.name, self.allocator_type, self.device_id, self.mem_type = name, allocator_type, device_id, mem_type


class OrtArenaCfg:
    """Settings of an allocator: kept, without effect, since memory is planned for each set of input shapes."""

    def __init__(self, *settings: Any) -> None:
        self.settings = settings


class OrtHardwareDevice:
    """The processor: ``type``, ``vendor`` (str), ``vendor_id``, ``device_id`` (int), ``metadata`` (dict of str)."""

    def __init__(self) -> None:
        self.type = OrtHardwareDeviceType.CPU
        self.vendor = ""
        self.vendor_id = 0
        self.device_id = 0
        self.metadata: dict[str, str] = {}


class OrtEpDevice:
    """An execution provider and its device: ``ep_name``, ``ep_vendor`` (str), ``ep_metadata``, ``ep_options`` (dicts of
    str), ``device``."""

    def __init__(self) -> None:
        self.ep_name = "CPUExecutionProvider"
        self.ep_vendor = "Tiercel"
        self.ep_metadata: dict[str, str] = {}
        self.ep_options: dict[str, str] = {}
        self.device = OrtHardwareDevice()


def get_ep_devices() -> list[OrtEpDevice]:
    """The execution providers with their devices: one, the processor."""
    return [OrtEpDevice()]


def register_execution_provider_library(registration_name: str, library_path: str) -> None:
    """Raises ``NotImplemented``: execution providers of onnxruntime's plugin interface cannot be loaded."""
    raise errors.NotImplemented(f"{registration_name}: libraries of execution providers are not supported")


def unregister_execution_provider_library(registration_name: str) -> None:
    """Raises ``Fail``: no library is ever registered."""
    raise errors.Fail(f"no library of an execution provider is registered as {registration_name}")


def create_and_register_allocator(memory_info: OrtMemoryInfo, arena_cfg: OrtArenaCfg | None = None) -> None:
    """Accepted; no effect: memory is planned for each set of input shapes."""


def create_and_register_allocator_v2(
    provider_type: str, memory_info: OrtMemoryInfo, options: dict[str, str], arena_cfg: OrtArenaCfg | None = None
) -> None:
    """Accepted; no effect: memory is planned for each set of input shapes."""


def get_ort_device_type(device_type: str) -> int:
    """The number of a device's name. Raises ``Fail`` for a name that is none."""
    if device_type not in _TYPES:
        raise errors.Fail(f"Unsupported device type: {device_type}")
    return _TYPES[device_type]


def get_vendor_id_for_device_type(device_type: str) -> OrtDeviceVendorId | None:
    """The vendor that a device's name implies, None when it implies none."""
    vendors = {"cuda": OrtDeviceVendorId.NVIDIA, "dml": OrtDeviceVendorId.MICROSOFT, "cann": OrtDeviceVendorId.HUAWEI}
    return vendors.get(device_type, OrtDeviceVendorId.NONE if device_type == "webgpu" else None)


def need_cpu(device_type: object) -> None:
    """Raises ``Fail`` unless the device is the processor."""
    name = device_type.lower() if isinstance(device_type, str) else device_type
    if isinstance(name, OrtDevice):
        name = "cpu" if name.device_type() == 0 else f"device type {name.device_type()}"
    if name not in ("cpu", 0):
        raise errors.Fail(f"memory on {device_type} is not supported: Tiercel runs on the processor, use 'cpu'")
