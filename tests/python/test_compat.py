"""Tiercel under onnxruntime's name, in fresh processes."""

from __future__ import annotations

from small_models import TURN
from test_process import python

SETUP = f"""
import numpy as np, sys
from onnx import parser
data = parser.parse_model('''{TURN}''').SerializeToString()
x = np.arange(6, dtype=np.float32).reshape(2, 3)
import tiercel
assert tiercel.install_as_onnxruntime() is tiercel.install_as_onnxruntime()
"""


def installed(code: str) -> str:
    return python(SETUP + code)


def test_an_application() -> None:
    out = installed("""
import onnxruntime as ort
from onnxruntime import InferenceSession, SessionOptions, GraphOptimizationLevel, get_available_providers
import onnxruntime.capi
import onnxruntime.capi._pybind_state as state
from onnxruntime.capi import _pybind_state as C
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, NoSuchFile, Fail, InvalidGraph, InvalidProtobuf
from onnxruntime.capi.onnxruntime_inference_collection import OrtValue, IOBinding, check_and_normalize_provider_args
assert InferenceSession is tiercel.InferenceSession and state is C
assert ort.OrtValue is OrtValue is C.OrtValue and ort.IOBinding is IOBinding
options = SessionOptions()
options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
s = InferenceSession(data, sess_options=options, providers=get_available_providers())
np.testing.assert_array_equal(s.run(None, {"x": x})[0], x.T)
for error, call in ((InvalidArgument, lambda: s.run(None, {"x": x[0]})), (NoSuchFile, lambda: InferenceSession("none.onnx")),
                    (ort.capi.onnxruntime_pybind11_state.InvalidProtobuf, lambda: InferenceSession(b"\\x0a\\xff"))):
    try:
        call()
    except error:
        print(error.__name__)
print(ort.get_device(), type(s).__module__)
""")
    assert out.split() == ["InvalidArgument", "NoSuchFile", "InvalidProtobuf", "CPU", "tiercel.session"]


def test_version_checks() -> None:
    out = installed("""
import importlib, importlib.metadata, importlib.util
import onnxruntime
major, minor = map(int, onnxruntime.__version__.split(".")[:2])
assert (major, minor) >= (1, 20), onnxruntime.__version__
assert importlib.metadata.version("onnxruntime") == onnxruntime.__version__ == onnxruntime.get_version_string()
assert importlib.metadata.distribution("onnxruntime").metadata["Name"] == "onnxruntime"
assert importlib.util.find_spec("onnxruntime") is not None
assert importlib.metadata.version("numpy") == np.__version__
assert importlib.import_module("onnxruntime") is onnxruntime
assert "onnxruntime" in {d.metadata["Name"] for d in importlib.metadata.distributions()}
try:
    importlib.metadata.version("no-such-package")
except importlib.metadata.PackageNotFoundError:
    print("good")
""")
    assert out == "good\n"


def test_what_is_not_there() -> None:
    out = installed("""
import onnxruntime
for name in ("onnxruntime.quantization", "onnxruntime.transformers.optimizer", "onnxruntime.nothing"):
    try:
        __import__(name)
    except ModuleNotFoundError as e:
        print(e.name)
try:
    onnxruntime.no_such_name
except AttributeError:
    print("no attribute")
""")
    assert out.split("\n")[:4] == [
        "onnxruntime.quantization",
        "onnxruntime.transformers.optimizer",
        "onnxruntime.nothing",
        "no attribute",
    ]


def test_modules_that_applications_import() -> None:
    out = installed("""
import os
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_validation
from onnxruntime.capi.build_and_package_info import __version__ as built
from onnxruntime.capi.onnxruntime_inference_collection import C, Session, get_ort_device_type
from onnxruntime.transformers.io_binding_helper import TypeHelper
assert "torch" not in sys.modules
assert built == ort.__version__ == ort.version and ort.package_name == "onnxruntime"
assert onnxruntime_validation.get_package_name_and_version_info()[0] == "onnxruntime"
assert not os.path.exists(os.path.join(ort.__path__[0], "capi", "libonnxruntime_providers_cuda.so"))
s = Session(data)
device = C.OrtDevice(get_ort_device_type("cpu"), C.OrtDevice.default_memory(), 0)
value = C.OrtValue.ortvalue_from_numpy(x, device)
np.testing.assert_array_equal(s._sess.run_with_ort_values({"x": value}, ["y"], None)[0].numpy(), x.T)
print(TypeHelper.get_input_type(s, "x"), TypeHelper.get_io_numpy_type_map(s), TypeHelper.get_io_onnx_type_map(s))
for call in (lambda: TypeHelper.get_input_type(s, "z"), lambda: TypeHelper.ort_type_to_numpy_type("tensor(bfloat16)"),
             lambda: TypeHelper.ort_type_to_numpy_type("tensor(string)"), lambda: TypeHelper.ort_type_to_numpy_type("x")):
    try:
        call()
    except ValueError:
        print("no")
""")
    types = "{'x': <class 'numpy.float32'>, 'y': <class 'numpy.float32'>}"
    assert out.splitlines() == [f"tensor(float) {types} {{'x': 1, 'y': 1}}", *["no"] * 4]


def test_backend_module() -> None:
    installed("""
assert "tiercel.backend" not in sys.modules
import onnxruntime.backend as backend
np.testing.assert_array_equal(backend.run_model(__import__("onnx").load_from_string(data), [x])[0], x.T)
""")


def test_pickles() -> None:
    installed("""
import pickle, onnxruntime
s = pickle.loads(pickle.dumps(onnxruntime.InferenceSession(data)))
np.testing.assert_array_equal(s.run(None, {"x": x})[0], x.T)
""")


def test_the_real_one_is_not_replaced_by_accident() -> None:
    out = python("""
        import onnxruntime, tiercel, sys
        real = onnxruntime
        try:
            tiercel.install_as_onnxruntime()
        except RuntimeError as e:
            print("already" in str(e), sys.modules["onnxruntime"] is real)
        tiercel.install_as_onnxruntime(force=True)
        import onnxruntime
        print(onnxruntime.InferenceSession is tiercel.InferenceSession)
    """)
    assert out.split() == ["True", "True", "True"]
