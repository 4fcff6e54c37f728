"""SessionOptions, enumerations, providers."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import tiercel
from small_models import ARRANGE, TURN, model
from tiercel import providers
from tiercel.errors import Error, Fail, InvalidArgument

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(params=[tiercel, onnxruntime], ids=["tiercel", "onnxruntime"])
def lib(request: pytest.FixtureRequest) -> Any:
    return request.param


FIELDS = [n for n in dir(onnxruntime.SessionOptions()) if not n.startswith("_")]
PLAIN = [n for n in FIELDS if not callable(getattr(onnxruntime.SessionOptions(), n))]


@pytest.mark.parametrize("name", PLAIN)
def test_fields_and_their_defaults(name: str) -> None:
    theirs = getattr(onnxruntime.SessionOptions(), name)
    ours = getattr(tiercel.SessionOptions(), name)
    if name == "profile_file_prefix":
        assert ours == "tiercel_profile_"
    else:
        assert ours == (int(theirs) if hasattr(theirs, "value") else theirs)


def test_fields_are_set(lib: Any) -> None:
    o = lib.SessionOptions()
    for name in PLAIN:
        value = getattr(o, name)
        if isinstance(value, bool):
            setattr(o, name, not value)
            assert getattr(o, name) is (not value)
        elif isinstance(value, str):
            setattr(o, name, "text")
            assert getattr(o, name) == "text"
    o.intra_op_num_threads = 1
    o.execution_mode = lib.ExecutionMode.ORT_PARALLEL
    assert o.execution_mode == lib.ExecutionMode.ORT_PARALLEL
    o.execution_order = lib.ExecutionOrder.PRIORITY_BASED
    o.graph_optimization_level = lib.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert o.graph_optimization_level == lib.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for wrong in [("intra_op_num_threads", "a"), ("enable_profiling", "a"), ("logid", 3), ("execution_mode", "x")]:
        with pytest.raises(TypeError):
            setattr(o, *wrong)
    with pytest.raises(AttributeError):
        o.no_such_field = 1


def test_enumerations() -> None:
    for name in ("GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"):
        theirs, ours = getattr(onnxruntime, name), getattr(tiercel, name)
        assert {k: int(v) for k, v in theirs.__members__.items()} == {k: int(v) for k, v in ours.__members__.items()}
        for member in ours:
            assert ours(int(member)) is member
            assert (member.name, member.value) == (theirs(int(member)).name, theirs(int(member)).value)


def test_config_entries(lib: Any) -> None:
    o = lib.SessionOptions()
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    o.add_session_config_entry("never.heard.of", "anything")
    assert o.get_session_config_entry("never.heard.of") == "anything"
    with pytest.raises(RuntimeError):
        o.get_session_config_entry("none")
    with pytest.raises(TypeError):
        o.add_session_config_entry("key", 1)
    for key in ("", "x" * 2000):
        with pytest.raises(RuntimeError):
            o.add_session_config_entry(key, "1")
    lib.InferenceSession(model(TURN), o)


def test_free_dimension_override(lib: Any) -> None:
    o = lib.SessionOptions()
    o.add_free_dimension_override_by_name("N", 2)
    o.add_free_dimension_override_by_name("unknown", 7)
    o.add_free_dimension_override_by_denotation("DATA_BATCH", 2)
    s = lib.InferenceSession(model(TURN), o)
    assert s.get_inputs()[0].shape == [2, 3]
    np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)
    wrong = InvalidArgument if lib is tiercel else onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
    with pytest.raises(wrong, match="x"):
        s.run(None, {"x": X[:1]})


@pytest.mark.parametrize("level", [0, 1, 2, 3, 99])
@pytest.mark.parametrize("threads", [-1, 0, 1, 2, 3])
def test_results_depend_on_neither_level_nor_threads(level: int, threads: int) -> None:
    o = tiercel.SessionOptions()
    o.graph_optimization_level = level
    o.intra_op_num_threads = threads
    o.inter_op_num_threads = threads
    got = tiercel.InferenceSession(model(ARRANGE), o).run(None, {"x": X, "s": np.array([3, 2])})
    for g, want in zip(got, [X.T, X.sum(1), X.reshape(3, 2)], strict=True):
        np.testing.assert_array_equal(g, want)


def test_optimized_model_is_written(tmp_path: Path) -> None:
    o = tiercel.SessionOptions()
    o.optimized_model_filepath = tmp_path / "optimised.onnx"  # type: ignore[assignment]
    tiercel.InferenceSession(model(TURN), o)
    onnx.load(o.optimized_model_filepath)
    np.testing.assert_array_equal(tiercel.InferenceSession(o.optimized_model_filepath).run(None, {"x": X})[0], X.T)


def test_wrong_values_of_our_own_entries() -> None:
    o = tiercel.SessionOptions()
    o.add_session_config_entry("tiercel.program_cache", "none")
    with pytest.raises(InvalidArgument, match="program_cache"):
        tiercel.InferenceSession(model(TURN), o)


def test_disabled_passes() -> None:
    names = tiercel._core.passes()
    assert names
    o = tiercel.SessionOptions()
    o.add_session_config_entry("tiercel.disable_pass", ", ".join(names))
    for disabled in (["ConstantFolding"], {*names}, None):
        s = tiercel.InferenceSession(model(TURN), o, disabled_optimizers=disabled)
        np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)
    o.add_session_config_entry("tiercel.disable_pass", "no such pass")
    with pytest.raises(InvalidArgument, match="no such pass"):
        tiercel.InferenceSession(model(TURN), o)


def test_what_cannot_be_served_is_an_error() -> None:
    o = tiercel.SessionOptions()
    with pytest.raises(Fail, match="no/such"):
        o.register_custom_ops_library("no/such.so")
    with pytest.raises(tiercel.errors.NotImplemented):
        o.register_custom_ops_library(__file__)
    with pytest.raises(tiercel.errors.NotImplemented):
        o.add_initializer("w", None)
    with pytest.raises(tiercel.errors.NotImplemented):
        o.add_external_initializers(["w"], [None])


def test_options_are_copied_and_pickled() -> None:
    o = tiercel.SessionOptions()
    o.intra_op_num_threads = 3
    o.add_free_dimension_override_by_name("N", 4)
    o.add_session_config_entry("k", "v")
    for c in (copy.deepcopy(o), pickle.loads(pickle.dumps(o))):
        assert (c.intra_op_num_threads, c.get_session_config_entry("k")) == (3, "v")
        assert ("dimension:N", "4") in c._pairs()


def test_global_threads() -> None:
    o = tiercel.SessionOptions()
    o.use_per_session_threads = False
    tiercel.set_global_thread_pool_sizes(1, 1)
    try:
        assert ("threads", "1") in o._pairs()
        assert ("threads", "0") in tiercel.SessionOptions()._pairs()
    finally:
        tiercel.set_global_thread_pool_sizes()
    with pytest.raises(InvalidArgument):
        tiercel.set_global_thread_pool_sizes(-1)


@pytest.mark.parametrize(
    "chosen",
    [
        None,
        [],
        ["CPUExecutionProvider"],
        [("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})],
        ("CPUExecutionProvider",),
        "CPUExecutionProvider",
    ],
    ids=str,
)
def test_providers(chosen: Any) -> None:
    s = tiercel.InferenceSession(model(TURN), providers=chosen)
    assert s.get_providers() == ["CPUExecutionProvider"]
    s.set_providers(["CPUExecutionProvider"], [{"a": 1}])
    s.disable_fallback()
    s.enable_fallback()
    np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)


def test_an_unknown_provider_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_warned", set())
    chosen: list[Any] = [("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"]
    with pytest.warns(UserWarning, match="CUDAExecutionProvider") as caught:
        s = tiercel.InferenceSession(model(TURN), providers=chosen)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert s.get_providers() == ["CPUExecutionProvider"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiercel.InferenceSession(model(TURN), providers=chosen)
    with pytest.warns(UserWarning, match="NoSuch"):
        tiercel.InferenceSession(model(TURN), providers=["NoSuch"])


@pytest.mark.parametrize(
    ("chosen", "given"),
    [([("CPUExecutionProvider", 1)], None), (["CPUExecutionProvider"], [{}, {}]), ([5], None), (5, None)],
    ids=str,
)
def test_malformed_providers_are_warned_of(chosen: Any, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_warned", set())
    with pytest.raises(ValueError, match="providers"):
        providers.check_and_normalize_provider_args(chosen, given, ["CPUExecutionProvider"])
    with pytest.warns(UserWarning, match="providers"):
        s = tiercel.InferenceSession(model(TURN), providers=chosen, provider_options=given)
    np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)


def test_exception_classes() -> None:
    theirs = onnxruntime.capi.onnxruntime_pybind11_state
    for name in (
        "Fail",
        "InvalidArgument",
        "NoSuchFile",
        "NoModel",
        "EngineError",
        "RuntimeException",
        "InvalidProtobuf",
        "ModelLoaded",
        "NotImplemented",
        "InvalidGraph",
        "EPFail",
        "ModelLoadCanceled",
        "ModelRequiresCompilation",
        "NotFound",
        "DeviceReset",
    ):
        assert issubclass(getattr(theirs, name), Exception)
        assert issubclass(getattr(tiercel.errors, name), Error)
    assert type(tiercel.errors.from_code(7, "x")) is tiercel.errors.InvalidProtobuf
    assert type(tiercel.errors.from_code(99, "x")) is Fail
    assert issubclass(Error, RuntimeError)
