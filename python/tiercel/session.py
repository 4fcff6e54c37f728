"""InferenceSession: a model loaded and ready to run. Names and behaviour: onnxruntime's."""

from __future__ import annotations

import copyreg
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiercel import _core, errors, providers
from tiercel._call import RunOptions
from tiercel._call import Session as _Session
from tiercel.options import SessionOptions

if TYPE_CHECKING:
    from tiercel.binding import IOBinding
    from tiercel.devices import OrtEpDevice, OrtMemoryInfo
    from tiercel.inner import InnerSession
    from tiercel.values import OrtValue, OrtValueVector


class NodeArg:
    """An input or output: ``name``; ``type``, such as ``tensor(float)``, ``seq(tensor(int64))``, ``optional(tensor(float))``;
    ``shape``, a list of extents in which a symbolic one is its name (str) and an unknown one None, ``[]`` when the rank is not
    known. Source: ``onnxruntime.NodeArg``."""

    __slots__ = ("name", "shape", "type")

    def __init__(self, name: str, type: str, shape: list[int | str | None]) -> None:
        self.name, self.type, self.shape = name, type, shape

    def __repr__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape})"


class ModelMetadata:
    """What a model says of itself: ``producer_name``, ``graph_name``, ``domain``, ``description``, ``graph_description``
    (str), ``version`` (int), ``custom_metadata_map`` (dict of str), and beyond onnxruntime's: ``ir_version`` (int) and
    ``opsets`` (domain -> version)."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]
    ir_version: int
    opsets: dict[str, int]

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"ModelMetadata({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


class InferenceSession(_Session):
    """A model, loaded from an .onnx file or from bytes.

    path_or_bytes: path (str or os.PathLike) of an ONNX model, or its bytes, which are kept. sess_options: a
    ``SessionOptions``. providers, provider_options: accepted in every form that onnxruntime takes; the model runs on the
    processor, and a provider that is not available is warned of once. disabled_optimizers (keyword): names of optimisation
    passes to leave out. Other keywords are accepted.

    Raises ``NoSuchFile``; ``InvalidProtobuf`` for what is no ONNX model (the message names offset and field);
    ``InvalidGraph`` and ``InvalidArgument`` for a model that contradicts itself; ``NotImplemented``, which lists every operator
    that is missing; ``TypeError`` for a model that is neither path nor bytes.

    A session may be used by many threads at once, after a fork, and pickled (as path or bytes and options).
    Source: ``onnxruntime.InferenceSession``.
    """

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if sess_options is None:
            sess_options = SessionOptions()
        elif not isinstance(sess_options, SessionOptions):
            raise TypeError(f"sess_options must be a SessionOptions, not {type(sess_options).__name__}")
        if isinstance(path_or_bytes, (str, os.PathLike)):
            model: str | bytes = os.fspath(path_or_bytes)
            if isinstance(model, bytes):
                model = os.fsdecode(model)
        elif isinstance(path_or_bytes, bytes):
            model = path_or_bytes
        else:
            raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        self._arguments = (model, sess_options, dict(kwargs))
        self._sess_options = sess_options
        self._set_providers(providers, provider_options)
        pairs = sess_options._pairs()
        if disabled := kwargs.get("disabled_optimizers"):  # names of onnxruntime's are none of ours
            pairs += [("disable_pass", name) for name in _core.passes() if name in disabled]
        folder = sess_options._entries.get("session.model_external_initializers_file_folder_path", "")
        self._profile_start = time.monotonic_ns() if sess_options.enable_profiling else 0
        self._load(model, folder, pairs)
        self._describe_all()

    def _describe_all(self) -> None:
        self._inputs_meta = self._node_args(0)
        self._outputs_meta = self._node_args(1)
        self._meta: ModelMetadata | None = None

    def _node_args(self, what: int) -> list[NodeArg]:
        return [
            NodeArg(name, _core.type_string(kind, dtype), shape or [])
            for name, kind, dtype, shape in self._describe(what)
        ]

    def _set_providers(
        self,
        names: Sequence[str | tuple[str, dict[Any, Any]]] | None,
        options: Sequence[dict[Any, Any]] | None,
    ) -> None:
        self._providers = providers.resolve(names, options)

    # ---- what the model is

    def get_inputs(self) -> list[NodeArg]:
        """The inputs (without initializers), in the model's order."""
        return self._inputs_meta

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the model's order."""
        return self._outputs_meta

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Initializers that stand among the graph's inputs too (from IR version 4 on): a run may give other values for them.
        Until one does they are constants, folded and packed; then they are inputs of a second form of the model."""
        return self._node_args(2)

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself."""
        if self._meta is None:
            self._meta = ModelMetadata(_core.session_metadata(self._handle()))
        return self._meta

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._sess_options

    def get_providers(self) -> list[str]:
        """``["CPUExecutionProvider"]``."""
        return list(self._providers)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Options of each provider: none."""
        return {name: dict(options) for name, options in self._providers.items()}

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        """Accepted, with a warning for a provider that is not available; the model stays on the processor."""
        self._set_providers(providers, provider_options)

    def enable_fallback(self) -> None:
        """No effect: there is nothing to fall back from."""

    def disable_fallback(self) -> None:
        """No effect: there is nothing to fall back from."""

    def get_input_memory_infos(self) -> list[OrtMemoryInfo]:
        """Where each input is expected: the processor's memory."""
        from tiercel.devices import OrtMemoryInfo

        return [OrtMemoryInfo() for _ in self._input_names]

    def get_output_memory_infos(self) -> list[OrtMemoryInfo]:
        """Where each output lies: the processor's memory."""
        from tiercel.devices import OrtMemoryInfo

        return [OrtMemoryInfo() for _ in self._output_names]

    def get_input_epdevices(self) -> list[OrtEpDevice]:
        """The device of each input: the processor."""
        from tiercel.devices import OrtEpDevice

        return [OrtEpDevice() for _ in self._input_names]

    # ---- running (run itself is tiercel._call.Session.run)

    def run_with_ort_values(
        self,
        output_names: Iterable[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As ``run``, with inputs and outputs as ``OrtValue``."""
        from tiercel.values import OrtValue

        return [OrtValue(v) for v in self.run(output_names, input_dict_ort_values, run_options)]

    def run_with_ortvaluevector(
        self,
        run_options: RunOptions | None,
        feed_names: Sequence[str],
        feeds: Sequence[OrtValue],
        fetch_names: Sequence[str],
        fetches: OrtValueVector,
        fetch_devices: Sequence[Any],
    ) -> None:
        """As ``run_with_ort_values``, with the inputs as a list beside their names; the outputs are put into ``fetches``."""
        named = dict(zip(feed_names, feeds, strict=True))
        fetches[:] = self.run_with_ort_values(fetch_names, named, run_options)

    def io_binding(self) -> IOBinding:
        """A new, empty ``IOBinding`` for this session."""
        from tiercel.binding import IOBinding

        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Runs on what is bound and leaves the outputs there. Raises as ``run`` does, ``InvalidArgument`` also when no output is
        bound or an output's memory has another shape or type than the result, ``ValueError`` for another session's binding."""
        if iobinding._session is not self:
            raise ValueError("IOBinding must be used with the session that created it.")
        if not iobinding._outputs:
            raise errors.InvalidArgument("at least one output should be bound")
        iobinding._results = self._run_into(
            list(iobinding._outputs), iobinding._inputs, run_options, list(iobinding._outputs.values())
        )

    def run_async(
        self,
        output_names: Iterable[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], Any],
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Starts a run on a thread of its own and returns. The callback is called there with the outputs (as ``run`` returns
        them; ``[]`` when it failed), user_data, and the error's message (``""`` when it did not). Raises ``ValueError`` at once
        when an input is missing."""
        missing = [a.name for a in self._inputs_meta if a.name not in input_feed and not a.type.startswith("optional")]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(input_feed)}).")
        feed = dict(input_feed)

        def work() -> None:
            try:
                results, message = self.run(output_names, feed, run_options), ""
            except Exception as e:
                results, message = [], str(e) or type(e).__name__
            callback(results, user_data, message)

        threading.Thread(target=work, name="tiercel-async", daemon=True).start()

    # ---- profiling

    def get_profiling_start_time_ns(self) -> int:
        """``time.monotonic_ns()`` when profiling began; 0 without ``SessionOptions.enable_profiling``."""
        return self._profile_start

    def end_profiling(self) -> str:
        """Writes the instructions recorded so far as Chrome-trace JSON (times in microseconds; Perfetto opens it), into a file
        whose name starts with ``profile_file_prefix``. Returns that name, ``""`` when nothing is being recorded."""
        if not self._profile_start:
            return ""
        from tiercel.trace import write_trace

        self._profile_start = 0
        prefix = self._sess_options.profile_file_prefix
        path = f"{prefix}{time.strftime('%Y-%m-%d_%H-%M-%S')}_{time.time_ns() // 1_000_000 % 1000:03d}.json"
        write_trace(path, self.take_profile())
        return path

    def take_profile(self) -> list[dict[str, Any]]:
        """The instructions recorded since the last call, in the order in which they ran (with ``enable_profiling``).

        Each is a dict: ``node``, ``op``, ``domain``, ``kernel`` (str), ``begin_us`` since the load, ``duration_us``, ``flops``,
        ``bytes``, ``thread``, ``run`` (numbers), ``inputs``, ``outputs`` (shapes)."""
        events: list[dict[str, Any]] = _core.take_profile(self._handle())
        return events

    def memory(self) -> dict[str, int]:
        """Bytes of ``weights``, ``packed`` weights, the ``arena`` of intermediates, ``live_bound``, below which no arena can
        be, and ``program_bytes`` (about what Programs of recent shapes hold); counts of ``programs``, ``instructions``,
        ``barriers`` and ``symbols`` (extents with a name or an unknown value; shapes that run add none)."""
        return _core.session_memory(self._handle())

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """As ``OrtValue.ortvalue_from_shape_and_type``."""
        from tiercel.values import OrtValue

        return OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)

    # ---- onnxruntime's, without a meaning here

    @property
    def _sess(self) -> InnerSession:
        from tiercel.inner import InnerSession

        return InnerSession(self)

    @property
    def _model_path(self) -> str | None:
        return self._arguments[0] if isinstance(self._arguments[0], str) else None

    @property
    def _model_bytes(self) -> bytes | None:
        return self._arguments[0] if isinstance(self._arguments[0], bytes) else None

    def get_tuning_results(self) -> list[Any]:
        """``[]``."""
        return []

    def set_tuning_results(self, results: list[Any], *, error_on_invalid: bool = False) -> None:
        """No effect."""

    def set_ep_dynamic_options(self, options: dict[str, str]) -> None:
        """No effect."""

    # ---- pickling

    def __reduce__(self) -> tuple[Any, ...]:
        # Through __getstate__ and __setstate__, which subclasses of applications replace with their own.
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __getstate__(self) -> Any:
        """Path or bytes, options, and what a subclass keeps besides."""
        model, options, kwargs = self._arguments
        if isinstance(model, str):
            model = os.path.abspath(model)
        extra = {k: v for k, v in self.__dict__.items() if k not in _OWN}
        return {"model": model, "options": options, "kwargs": kwargs, "extra": extra}

    def __setstate__(self, state: Any) -> None:
        """Loads the model anew."""
        InferenceSession.__init__(self, state["model"], state["options"], **state["kwargs"])
        self.__dict__.update(state["extra"])


#: Attributes that loading sets.
_OWN = frozenset(
    ("_arguments", "_inputs_meta", "_meta", "_outputs_meta", "_profile_start", "_providers", "_sess_options")
)
