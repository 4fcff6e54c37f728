"""The session's surface. Tests that take `lib` hold for onnxruntime too, which is how we know that the names are right."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

import tiercel
from small_models import ARRANGE, NATIVE_TYPES, OTHER_TYPES, TURN, identity, model

X = np.arange(6, dtype=np.float32).reshape(2, 3)
FEED = {"x": X, "s": np.array([1, 6])}


@pytest.fixture(params=[tiercel, onnxruntime], ids=["tiercel", "onnxruntime"])
def lib(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_describes(lib: Any) -> None:
    s = lib.InferenceSession(model(ARRANGE))
    assert [(a.name, a.type, a.shape) for a in s.get_inputs()] == [
        ("x", "tensor(float)", ["N", 3]),
        ("s", "tensor(int64)", [2]),
    ]
    assert [(a.name, a.type, a.shape) for a in s.get_outputs()] == [
        ("turned", "tensor(float)", [3, "N"]),
        ("total", "tensor(float)", ["N"]),
        ("shaped", "tensor(float)", ["A", "B"]),
    ]
    assert s.get_overridable_initializers() == []
    assert str(s.get_inputs()[0]) == "NodeArg(name='x', type='tensor(float)', shape=['N', 3])"
    meta = s.get_modelmeta()
    assert meta.custom_metadata_map == {"key": "value", "other": "x"}
    assert (meta.producer_name, meta.graph_name, meta.domain, meta.description) == (
        "tests",
        "arrange",
        "test.models",
        "a model",
    )
    assert (meta.version, meta.graph_description) == (3, "")
    assert s.get_providers() == ["CPUExecutionProvider"]
    assert s.get_provider_options() == {"CPUExecutionProvider": {}}
    assert len(s.get_input_memory_infos()) == 2


@pytest.mark.parametrize("names", [None, [], ["turned", "total", "shaped"]], ids=str)
def test_all_outputs(lib: Any, names: Any) -> None:
    got = lib.InferenceSession(model(ARRANGE)).run(names, FEED)
    assert isinstance(got, list)
    np.testing.assert_array_equal(got[0], X.T)
    np.testing.assert_array_equal(got[1], X.sum(1))
    np.testing.assert_array_equal(got[2], X.reshape(1, 6))
    assert [g.dtype for g in got] == [np.float32] * 3


@pytest.mark.parametrize("names", [["total"], ("total", "turned"), ["shaped", "shaped"]], ids=str)
def test_some_outputs(lib: Any, names: Any) -> None:
    want = {"turned": X.T, "total": X.sum(1), "shaped": X.reshape(1, 6)}
    got = lib.InferenceSession(model(ARRANGE)).run(names, FEED)
    for name, g in zip(names, got, strict=True):
        np.testing.assert_array_equal(g, want[name])


def test_positional_and_keyword_arguments_are_onnxruntimes() -> None:
    for name in ("run", "run_with_ort_values", "run_async", "run_with_iobinding", "set_providers", "end_profiling"):
        theirs = list(inspect.signature(getattr(onnxruntime.InferenceSession, name)).parameters)
        assert list(inspect.signature(getattr(tiercel.InferenceSession, name)).parameters) == theirs, name
    s = tiercel.InferenceSession(path_or_bytes=model(TURN), sess_options=None, providers=None, provider_options=None)
    np.testing.assert_array_equal(s.run(output_names=None, input_feed={"x": X}, run_options=None)[0], X.T)


def test_surface_is_complete() -> None:
    """Every public name of onnxruntime's that an application written for inference on the processor can use."""
    missing_on_purpose = {
        # compiled contexts and streams of other execution providers
        "OrtCompileApiFlags", "OrtEpAssignedNode", "OrtEpAssignedSubgraph", "OrtEpContextData", "OrtEpContextDataBuffer",
        "OrtExternalInitializerInfo", "OrtSyncStream", "cuda_version",
        # adapters, compiled models, packages, sparse values
        "AdapterFormat", "LoraAdapter", "ModelCompiler", "ModelPackage", "ModelPackageComponentContext",
        "ModelPackageContext", "ModelPackageOptions", "ModelPackageWriteMode", "OrtSparseFormat", "SparseTensor",
        # its own modules
        "capi", "contextlib", "import_capi_exception", "onnxruntime_validation", "package_name", "version",
    }  # fmt: skip
    theirs = {n for n in dir(onnxruntime) if not n.startswith("_")}
    assert theirs - set(dir(tiercel)) <= missing_on_purpose
    for cls in ("SessionOptions", "RunOptions", "OrtValue", "IOBinding", "InferenceSession"):
        ours, ort = getattr(tiercel, cls), getattr(onnxruntime, cls)
        gaps = {n for n in dir(ort) if not n.startswith("_")} - set(dir(ours))
        assert gaps <= {
            "add_external_initializers_from_files_in_memory", "set_ep_context_data_read_func",
            "clear_ep_context_data_read_func", "set_load_cancellation_flag", "add_active_adapter",
            "ort_value_from_sparse_tensor", "get_provider_graph_assignment_info", "release_captured_graph",
        }, cls  # fmt: skip


@pytest.mark.parametrize("elem_type", NATIVE_TYPES)
def test_every_type(lib: Any, elem_type: int) -> None:
    x = np.array([[0, 1, 1]]).astype(helper.tensor_dtype_to_np_dtype(elem_type))
    s = lib.InferenceSession(identity(elem_type, ["N", None]))
    assert s.get_inputs()[0].shape == ["N", None]
    (y,) = s.run(None, {"x": x})
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("elem_type", OTHER_TYPES)
def test_types_that_numpy_lacks(elem_type: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    x = np.array([[0, 1, 2, 3, 1]]).astype(dtype)
    s = tiercel.InferenceSession(identity(elem_type, ["N", None], opset=23))
    (y,) = s.run(None, {"x": x})
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(np.float32), x.astype(np.float32))
    (y,) = s.run(None, {"x": [[0, 1, 2, 3, 1]]})
    np.testing.assert_array_equal(y.astype(np.float32), x.astype(np.float32))


@pytest.mark.parametrize(
    "x",
    [
        np.array(["a", "é", ""]),
        np.array([["a", "b\0c"]], dtype=object),
        np.array(["a", "bb"], dtype="U7"),
        ["list", "of"],
        np.zeros((0, 2), dtype=object),
        np.array("scalar", dtype=object),
    ],
    ids=repr,
)
def test_strings(lib: Any, x: Any) -> None:
    (y,) = lib.InferenceSession(identity(8, None)).run(None, {"x": x})
    want = np.asarray(x, dtype=object)
    assert y.dtype == object
    assert y.shape == want.shape
    assert y.tolist() == want.tolist()


def test_bytes_are_strings_and_come_back_as_they_were() -> None:
    s = tiercel.InferenceSession(identity(8, None))
    assert s.run(None, {"x": np.array([b"abc", b"d"])})[0].tolist() == ["abc", "d"]
    odd = s.run(None, {"x": np.array([b"\xff\x00a"], dtype=object)})[0]
    assert s.run(None, {"x": odd})[0][0].encode("utf-8", "surrogateescape") == b"\xff\x00a"


def test_unknown_rank(lib: Any) -> None:
    s = lib.InferenceSession(identity(1, None))
    assert s.get_inputs()[0].shape == []
    for shape in [(), (2,), (2, 1, 3)]:
        assert s.run(None, {"x": np.ones(shape, np.float32)})[0].shape == shape


def test_from_path_and_bytes(lib: Any, tmp_path: Path) -> None:
    path = tmp_path / "modèle.onnx"
    path.write_bytes(model(TURN))
    for source in (path, str(path), model(TURN)):
        np.testing.assert_array_equal(lib.InferenceSession(source).run(None, {"x": X})[0], X.T)


@pytest.mark.parametrize("source", [5, None, bytearray(b"abc"), [b"abc"]], ids=str)
def test_neither_path_nor_bytes(lib: Any, source: Any) -> None:
    with pytest.raises(TypeError):
        lib.InferenceSession(source)


def test_wrong_option_objects(lib: Any) -> None:
    with pytest.raises(TypeError):
        lib.InferenceSession(model(TURN), 5)
    with pytest.raises(TypeError):
        lib.InferenceSession(model(TURN)).run(None, {"x": X}, 5)


def test_unknown_keywords_are_accepted(lib: Any) -> None:
    lib.InferenceSession(model(TURN), read_config_from_model=1, enable_fallback=1)


def test_names_may_be_any_iterable(lib: Any) -> None:
    s = lib.InferenceSession(model(TURN))
    for names in (("y",), {"y": 0}.keys(), np.array(["y"]), (n for n in ["y"])):
        np.testing.assert_array_equal(s.run(names, {"x": X})[0], X.T)


def test_outputs_are_the_callers_own() -> None:
    s = tiercel.InferenceSession(model(TURN))
    a = s.run(None, {"x": X})[0]
    b = s.run(None, {"x": X + 1})[0]
    np.testing.assert_array_equal(a, X.T)
    np.testing.assert_array_equal(b, X.T + 1)
    assert a.flags.owndata
    assert a.flags.writeable


def test_results_outlive_the_session() -> None:
    s = tiercel.InferenceSession(model(ARRANGE))
    shaped = s.run(["shaped"], FEED)[0]
    constant = tiercel.InferenceSession(
        model(
            '<ir_version: 8, opset_import: ["": 17]> g () => (float[3] y) <float[3] w = {1, 2, 3}> { y = Identity (w) }'
        )
    ).run(None, {})[0]
    del s
    np.testing.assert_array_equal(shaped, X.reshape(1, 6))
    np.testing.assert_array_equal(constant, [1, 2, 3])


def test_changing_shapes() -> None:
    s = tiercel.InferenceSession(model(TURN))
    for n in [1, 2, 3, 1, 2, 0, 5, *range(20), 1]:
        x = np.random.default_rng(n).random((n, 3), np.float32)
        np.testing.assert_array_equal(s.run(None, {"x": x})[0], x.T)


def test_many_inputs_and_outputs() -> None:
    """More than the call path keeps on the stack."""
    n = 40
    inputs = ", ".join(f"float[N] x{i}" for i in range(n))
    outputs = ", ".join(f"float[N] y{i}" for i in range(n))
    nodes = "\n".join(f"y{i} = Identity (x{i})" for i in range(n))
    s = tiercel.InferenceSession(
        model(f'<ir_version: 8, opset_import: ["": 17]> many ({inputs}) => ({outputs}) {{ {nodes} }}')
    )
    feed = {f"x{i}": np.full(3, i, np.float32) for i in range(n)}
    for _ in range(2):
        for i, y in enumerate(s.run(None, feed)):
            np.testing.assert_array_equal(y, [i] * 3)
    np.testing.assert_array_equal(s.run(["y39"], feed)[0], [39] * 3)


def test_run_options(lib: Any) -> None:
    s = lib.InferenceSession(model(TURN))
    options = lib.RunOptions()
    assert (options.terminate, options.logid, options.log_severity_level) == (False, "", -1)
    options.logid, options.log_severity_level, options.log_verbosity_level = "id", 3, 1
    options.only_execute_path_to_fetches = True
    options.add_run_config_entry("some.key", "1")
    assert options.get_run_config_entry("some.key") == "1"
    with pytest.raises(RuntimeError):
        options.get_run_config_entry("none")
    np.testing.assert_array_equal(s.run(None, {"x": X}, options)[0], X.T)
    options.terminate = True
    fail = tiercel.errors.Fail if lib is tiercel else onnxruntime.capi.onnxruntime_pybind11_state.Fail
    with pytest.raises(fail):
        s.run(None, {"x": X}, options)
    options.terminate = False
    np.testing.assert_array_equal(s.run(None, {"x": X}, options)[0], X.T)


def test_run_async(lib: Any) -> None:
    s = lib.InferenceSession(model(TURN))
    done = threading.Event()
    got: list[Any] = []

    def callback(results: Any, user_data: Any, error: str) -> None:
        got.append((results, user_data, error))
        done.set()

    s.run_async(None, {"x": X}, callback, "mine")
    assert done.wait(10)
    np.testing.assert_array_equal(got[0][0][0], X.T)
    assert got[0][1:] == ("mine", "")
    done.clear()
    s.run_async(["y"], {"x": X[0]}, callback, None)
    assert done.wait(10)
    assert got[1][0] == []
    assert "x" in got[1][2]
    with pytest.raises(ValueError, match="x"):
        s.run_async(["y"], {}, callback, None)


def test_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(model(TURN))
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("key", "value")
    monkeypatch.chdir(tmp_path)
    for source in (model(TURN), "m.onnx"):
        data = pickle.dumps(tiercel.InferenceSession(source, options, providers=["CPUExecutionProvider"]))
        monkeypatch.chdir("/")
        s = pickle.loads(data)
        np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)
        assert s.get_session_options().intra_op_num_threads == 1
        assert s.get_session_options().get_session_config_entry("key") == "value"
        monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(copy.deepcopy(tiercel.InferenceSession(model(TURN))).run(None, {"x": X})[0], X.T)


class Mine(tiercel.InferenceSession):
    """Keeps something, and takes other arguments."""

    def __init__(self, source: bytes, *, extra: int) -> None:
        super().__init__(source)
        self.extra = extra


class OwnState(tiercel.InferenceSession):
    """As applications make sessions picklable that onnxruntime's are not: insightface, for one."""

    def __init__(self, model_path: str, **kwargs: Any) -> None:
        super().__init__(model_path, **kwargs)
        self.model_path = model_path

    def __getstate__(self) -> dict[str, Any]:
        return {"model_path": self.model_path}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__init__(values["model_path"])  # type: ignore[misc]


def test_subclasses(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(TURN))
    mine = Mine(model(TURN), extra=5)
    own = OwnState(str(path), providers=["CPUExecutionProvider"])
    for s in (mine, pickle.loads(pickle.dumps(mine)), copy.copy(mine), own, pickle.loads(pickle.dumps(own))):
        np.testing.assert_array_equal(s.run(None, {"x": X})[0], X.T)
        assert type(s) in (Mine, OwnState)
    assert pickle.loads(pickle.dumps(mine)).extra == 5
    assert pickle.loads(pickle.dumps(own)).model_path == str(path)


def test_module_functions(lib: Any) -> None:
    assert lib.get_device() == "CPU"
    assert "CPUExecutionProvider" in lib.get_available_providers()
    assert "CPUExecutionProvider" in lib.get_all_providers()
    assert isinstance(lib.get_build_info(), str)
    assert lib.get_version_string().count(".") == 2
    lib.set_default_logger_severity(3)
    lib.set_default_logger_verbosity(0)
    lib.set_seed(1)
    lib.disable_telemetry_events()
    lib.enable_telemetry_events()
    assert lib.has_collective_ops() is False


def test_build_info() -> None:
    info = tiercel.build_info()
    assert info["version"] == tiercel.__version__
    assert info["isa"] in info["isas"]
    assert "baseline" in info["isas"]
    assert 1 <= info["threads"] <= (os.cpu_count() or 1)
    assert info["compiler"].split()[0] in ("GCC", "Clang")
