"""Options of a session, and the enumerations they use. Names and defaults: onnxruntime's."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiercel import errors

if TYPE_CHECKING:
    from tiercel.devices import OrtEpDevice, OrtExecutionProviderDevicePolicy


class GraphOptimizationLevel(enum.IntEnum):
    """How far the graph is rewritten at load. Results stay the same up to rounding."""

    ORT_DISABLE_ALL = 0  #: nothing but what is needed to run
    ORT_ENABLE_BASIC = 1  #: folding of constants, elimination
    ORT_ENABLE_EXTENDED = 2  #: and fusion
    ORT_ENABLE_LAYOUT = 3  #: and memory layouts
    ORT_ENABLE_ALL = 99  #: everything (the default)


class ExecutionMode(enum.IntEnum):
    """Order of execution. Kept for compatibility: nodes run one after another, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(enum.IntEnum):
    """Order of nodes. Kept for compatibility: the engine chooses."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


_global_threads = 0


def set_global_thread_pool_sizes(intra_op_num_threads: int = 0, inter_op_num_threads: int = 0) -> None:
    """Threads of sessions made with ``use_per_session_threads = False`` and no ``intra_op_num_threads``; 0: all processors.

    ``inter_op_num_threads`` has no effect. Raises ``InvalidArgument`` for a negative number.
    """
    global _global_threads
    if intra_op_num_threads < 0 or inter_op_num_threads < 0:
        raise errors.InvalidArgument("set_global_thread_pool_sizes: expected numbers of threads from 0")
    _global_threads = intra_op_num_threads


#: (name, type, default) of the plain fields of SessionOptions.
_FIELDS: tuple[tuple[str, type, Any], ...] = (
    ("enable_cpu_mem_arena", bool, True),
    ("enable_mem_pattern", bool, True),
    ("enable_mem_reuse", bool, True),
    ("enable_profiling", bool, False),
    ("execution_mode", ExecutionMode, ExecutionMode.ORT_SEQUENTIAL),
    ("execution_order", ExecutionOrder, ExecutionOrder.DEFAULT),
    ("graph_optimization_level", GraphOptimizationLevel, GraphOptimizationLevel.ORT_ENABLE_ALL),
    ("inter_op_num_threads", int, 0),
    ("intra_op_num_threads", int, 0),
    ("log_severity_level", int, -1),
    ("log_verbosity_level", int, 0),
    ("logid", str, ""),
    ("optimized_model_filepath", str, ""),
    ("profile_file_prefix", str, "tiercel_profile_"),
    ("use_deterministic_compute", bool, False),
    ("use_per_session_threads", bool, True),
)
_TYPES = {name: kind for name, kind, _ in _FIELDS}


class SessionOptions:
    """How a session loads and runs. The fields with an effect:

    ``intra_op_num_threads`` (threads of one run; 0 or less: all processors that the process may use),
    ``graph_optimization_level``, ``enable_profiling`` and ``profile_file_prefix`` (see ``InferenceSession.end_profiling``),
    ``optimized_model_filepath`` (where to write the optimised model as .onnx), free dimension overrides by name.

    The others are kept, so that programs that set them run, and change nothing: results never depend on the number of
    threads, memory is always planned, and there is no log.

    Session configuration entries are accepted whatever their key. Those with an effect:
    ``session.model_external_initializers_file_folder_path`` (where the external data of a model given as bytes lies),
    ``tiercel.program_cache`` (the most sets of input shapes that stay prepared, default 256; beyond eight, 8 MiB of
    them), ``tiercel.disable_pass`` (names of optimisations to leave out, separated by commas).

    Setting a field to a value of another type raises ``TypeError``. Source: ``onnxruntime.SessionOptions``.
    """

    __slots__ = (*_TYPES, "_dimensions", "_entries")

    enable_cpu_mem_arena: bool
    enable_mem_pattern: bool
    enable_mem_reuse: bool
    enable_profiling: bool
    execution_mode: ExecutionMode
    execution_order: ExecutionOrder
    graph_optimization_level: GraphOptimizationLevel
    inter_op_num_threads: int
    intra_op_num_threads: int
    log_severity_level: int
    log_verbosity_level: int
    logid: str
    optimized_model_filepath: str
    profile_file_prefix: str
    use_deterministic_compute: bool
    use_per_session_threads: bool
    _entries: dict[str, str]
    _dimensions: dict[str, int]

    def __init__(self) -> None:
        for name, _, default in _FIELDS:
            object.__setattr__(self, name, default)
        object.__setattr__(self, "_entries", {})
        object.__setattr__(self, "_dimensions", {})

    def __setattr__(self, name: str, value: Any) -> None:
        kind = _TYPES.get(name)
        if kind is None:
            raise AttributeError(f"SessionOptions has no field {name!r}")
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if issubclass(kind, enum.IntEnum) and isinstance(value, int):
            try:
                value = kind(value)
            except ValueError:
                raise TypeError(f"SessionOptions.{name}: {value} is no {kind.__name__}") from None
        elif kind in (int, bool) and hasattr(value, "__index__"):
            value = kind(value.__index__())
        if not isinstance(value, kind):
            raise TypeError(f"SessionOptions.{name}: expected {kind.__name__}, got {type(value).__name__}")
        object.__setattr__(self, name, value)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Sets the entry ``key``; unknown keys are accepted. Raises ``TypeError`` when key or value is no str, and
        ``RuntimeError`` when the key is empty or above 1024 characters."""
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError("add_session_config_entry(key: str, value: str)")
        if not 0 < len(key) <= 1024:
            raise RuntimeError("Config key is empty or longer than maximum length 1024")
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """The value of an entry. Raises ``RuntimeError`` when there is none of that key."""
        if key not in self._entries:
            raise RuntimeError(f"SessionOptions does not have configuration with key: {key}")
        return self._entries[key]

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Fixes the symbolic dimension ``name`` of the model's inputs to ``size``: other extents are errors."""
        self._dimensions[str(name)] = int(size)

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        """Accepted; no effect: it is a hint about shapes, and shapes are resolved at each call."""

    def register_custom_ops_library(self, path: str) -> None:
        """Raises ``Fail`` when the library does not exist, else ``NotImplemented``: operators of onnxruntime's custom operator
        interface cannot be loaded. Model-local functions can: put them into the model."""
        if not os.path.exists(path):
            raise errors.Fail(f"Failed to load library {path}: no such file")
        raise errors.NotImplemented(
            f"{path}: libraries of custom operators are not supported; write the operator as a function in the model"
        )

    def add_initializer(self, name: str, ortvalue: object) -> None:
        """Raises ``NotImplemented``: initializers come from the model."""
        raise errors.NotImplemented(f"add_initializer({name!r}): initializers come from the model alone")

    def add_external_initializers(self, names: list[str], values: list[object]) -> None:
        """Raises ``NotImplemented``: initializers come from the model."""
        raise errors.NotImplemented("add_external_initializers: initializers come from the model alone")

    def has_providers(self) -> bool:
        """False: providers are given to the session."""
        return False

    def add_provider(self, provider_name: str, provider_options: dict[str, str]) -> None:
        """Accepted; no effect: there is one provider, the processor."""

    def add_provider_for_devices(self, ep_devices: Sequence[OrtEpDevice], provider_options: Mapping[str, str]) -> None:
        """Accepted; no effect: there is one device, the processor."""

    def set_provider_selection_policy(self, policy: OrtExecutionProviderDevicePolicy) -> None:
        """Accepted; no effect: every policy chooses the processor."""

    def set_provider_selection_policy_delegate(self, delegate: Callable[..., Any]) -> None:
        """Accepted; never called: there is nothing to choose from."""

    def _pairs(self) -> list[tuple[str, str]]:
        """As options of ``tiercel_options_set``."""
        threads = self.intra_op_num_threads
        if not self.use_per_session_threads and threads == 0:
            threads = _global_threads
        pairs = [
            ("threads", str(max(threads, 0))),
            ("optimization_level", str(int(self.graph_optimization_level))),
            ("profile", "1" if self.enable_profiling else "0"),
        ]
        pairs += [(f"dimension:{name}", str(size)) for name, size in self._dimensions.items()]
        if self.optimized_model_filepath:
            pairs.append(("optimized_model_path", self.optimized_model_filepath))
        if "tiercel.program_cache" in self._entries:
            pairs.append(("program_cache", self._entries["tiercel.program_cache"]))
        passes = self._entries.get("tiercel.disable_pass", "").split(",")
        return pairs + [("disable_pass", name.strip()) for name in passes if name.strip()]

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
