"""OrtValue, OrtDevice and IOBinding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

import tiercel
from small_models import ARRANGE, TURN, identity, model
from tiercel.errors import Error, Fail, InvalidArgument

X = np.arange(6, dtype=np.float32).reshape(2, 3)
S = np.array([1, 6])


@pytest.fixture(params=[tiercel, onnxruntime], ids=["tiercel", "onnxruntime"])
def lib(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_ortvalue(lib: Any) -> None:
    x = X.copy()
    v = lib.OrtValue.ortvalue_from_numpy(x)
    assert (v.shape(), v.data_type(), v.element_type(), v.device_name()) == ([2, 3], "tensor(float)", 1, "cpu")
    assert (v.is_tensor(), v.has_value(), v.is_tensor_sequence(), v.is_sparse_tensor()) == (True, True, False, False)
    assert (v.tensor_size_in_bytes(), v.data_ptr()) == (24, x.ctypes.data)
    np.testing.assert_array_equal(v.numpy(), x)
    v.update_inplace(x + 1)
    np.testing.assert_array_equal(v.numpy(), X + 1)
    v.update_inplace(lib.OrtValue.ortvalue_from_numpy(X))
    np.testing.assert_array_equal(v.numpy(), X)
    with pytest.raises(RuntimeError):
        v.update_inplace(X[:1])
    with pytest.raises(TypeError):
        v.update_inplace([1])
    np.testing.assert_array_equal(lib.OrtValue.ortvalue_from_numpy(X.T).numpy(), X.T)
    with pytest.raises(RuntimeError):
        lib.OrtValue.ortvalue_from_numpy([1, 2])
    with pytest.raises(RuntimeError):
        lib.OrtValue.ortvalue_from_numpy(X, "cuda", 0)


@pytest.mark.parametrize("element_type", [np.float32, "float32", np.dtype("f4"), 1], ids=str)
def test_ortvalue_from_shape(lib: Any, element_type: Any) -> None:
    v = lib.OrtValue.ortvalue_from_shape_and_type([2, 3], element_type, "cpu", 0)
    assert v.numpy().shape == (2, 3)
    assert v.numpy().dtype == np.float32
    with pytest.raises(RuntimeError):
        lib.OrtValue.ortvalue_from_shape_and_type([-2, 3], element_type)


def test_ortvalue_of_other_types() -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)
    v = tiercel.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, 16)
    assert (v.data_type(), v.element_type(), v.data_ptr()) == ("tensor(bfloat16)", 16, bits.ctypes.data)
    (y,) = tiercel.InferenceSession(identity(16, [2])).run(None, {"x": v})
    assert y.astype(np.float32).tolist() == [1, 2]
    with pytest.raises(InvalidArgument):
        tiercel.OrtValue.ortvalue_from_numpy_with_onnx_type(X, 16)
    with pytest.raises(InvalidArgument):
        tiercel.OrtValue.ortvalue_from_numpy(X.astype("M8[s]"))
    assert tiercel.OrtValue.ortvalue_from_numpy(np.array(["a"])).data_type() == "tensor(string)"
    big = tiercel.OrtValue.ortvalue_from_numpy(X.astype(">f4"))
    assert big.numpy().dtype == np.dtype("=f4")


def test_dlpack(lib: Any) -> None:
    v = lib.OrtValue.from_dlpack(X.copy())
    np.testing.assert_array_equal(v.numpy(), X)


def test_dlpack_of_types_that_numpy_lacks() -> None:
    """Between the two libraries, in both directions."""
    bits = np.array([0x3F80, 0x4000], np.uint16)
    for ours, theirs in ((tiercel.OrtValue, onnxruntime.OrtValue), (onnxruntime.OrtValue, tiercel.OrtValue)):
        sent = ours.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
        got = theirs.from_dlpack(sent)
        assert got.data_type() == "tensor(bfloat16)"
        assert got.element_type() == TensorProto.BFLOAT16
        assert got.data_ptr() == sent.data_ptr() == bits.ctypes.data
        del sent


def test_memory_from_dlpack_can_be_written() -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)
    for sent in (
        onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16),
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((2, 3), np.float32)),
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((0, 3), np.float32)),
    ):
        value = tiercel.OrtValue.from_dlpack(sent)
        value.update_inplace(np.zeros_like(value.numpy()))
        assert not value.numpy().any()
    assert not bits.any()


def test_dlpack_of_what_is_none() -> None:
    value = tiercel.OrtValue.ortvalue_from_numpy(np.ones(2, np.float32))
    capsule = value.to_dlpack()
    tiercel.OrtValue.from_dlpack(capsule)
    for wrong in (capsule, 3, [1.0]):  # a capsule is good for once
        with pytest.raises(TypeError, match="from_dlpack"):
            tiercel.OrtValue.from_dlpack(wrong)
    with pytest.raises(BufferError):
        tiercel.OrtValue.ortvalue_from_numpy(np.array(["a"], object)).to_dlpack()


def test_run_with_ort_values(lib: Any) -> None:
    s = lib.InferenceSession(model(ARRANGE))
    feed = {"x": lib.OrtValue.ortvalue_from_numpy(X), "s": lib.OrtValue.ortvalue_from_numpy(S)}
    for names in (None, ["turned", "total", "shaped"]):
        got = s.run_with_ort_values(names, feed)
        assert all(isinstance(v, lib.OrtValue) for v in got)
        np.testing.assert_array_equal(got[0].numpy(), X.T)
        np.testing.assert_array_equal(got[2].numpy(), X.reshape(1, 6))
    np.testing.assert_array_equal(s.run(["total"], feed)[0], X.sum(1))


def test_iobinding(lib: Any) -> None:
    s = lib.InferenceSession(model(ARRANGE))
    b = s.io_binding()
    x = X.copy()
    b.bind_cpu_input("x", x)
    b.bind_ortvalue_input("s", lib.OrtValue.ortvalue_from_numpy(S))
    turned = np.zeros((3, 2), np.float32)
    b.bind_output("turned", "cpu", 0, np.float32, turned.shape, turned.ctypes.data)
    b.bind_output("shaped")
    total = lib.OrtValue.ortvalue_from_shape_and_type([2], np.float32)
    b.bind_ortvalue_output("total", total)
    b.synchronize_inputs()
    s.run_with_iobinding(b)
    b.synchronize_outputs()
    np.testing.assert_array_equal(turned, X.T)
    np.testing.assert_array_equal(total.numpy(), X.sum(1))
    got = b.copy_outputs_to_cpu()
    for g, want in zip(got, [X.T, X.reshape(1, 6), X.sum(1)], strict=True):
        np.testing.assert_array_equal(g, want)
    np.testing.assert_array_equal(b.get_outputs()[1].numpy(), X.reshape(1, 6))
    assert len(b.get_outputs_as_ortvaluevector()) == 3

    b.clear_binding_outputs()
    assert b.get_outputs() == []
    b.bind_output("total")
    s.run_with_iobinding(b)
    assert len(b.get_outputs()) == 1
    b.bind_input("x", "cpu", 0, np.float32, [2, 3], x.ctypes.data)
    s.run_with_iobinding(b, lib.RunOptions())
    np.testing.assert_array_equal(b.copy_outputs_to_cpu()[0], X.sum(1))
    with pytest.raises(ValueError, match="session"):
        lib.InferenceSession(model(ARRANGE)).run_with_iobinding(b)


def test_inputs_bound_are_read_at_each_run() -> None:
    s = tiercel.InferenceSession(model(TURN))
    b = s.io_binding()
    x = X.copy()
    b.bind_cpu_input("x", x)
    b.bind_output("y")
    s.run_with_iobinding(b)
    first = b.get_outputs()[0].numpy()
    x += 1
    s.run_with_iobinding(b)
    np.testing.assert_array_equal(first, X.T)
    np.testing.assert_array_equal(b.get_outputs()[0].numpy(), X.T + 1)


def test_wrong_bindings() -> None:
    s = tiercel.InferenceSession(model(TURN))
    b = s.io_binding()
    for call in (
        lambda: b.bind_cpu_input("q", X),
        lambda: b.bind_ortvalue_input("q", tiercel.OrtValue.ortvalue_from_numpy(X)),
        lambda: b.bind_cpu_input("x", [1]),  # type: ignore[arg-type]
        lambda: b.bind_output("q"),
        lambda: b.bind_output("y", buffer_ptr=1),
        lambda: b.bind_input("x", "cpu", 0, np.float32, [2, 3], 0),
        lambda: s.run_with_iobinding(b),
    ):
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(Fail, match="cuda"):
        b.bind_input("x", "cuda", 0, np.float32, [2, 3], X.ctypes.data)
    b.bind_output("y")
    with pytest.raises(ValueError, match="x"):
        s.run_with_iobinding(b)
    b.bind_cpu_input("x", X.astype(np.float64))
    with pytest.raises(InvalidArgument, match="double"):
        s.run_with_iobinding(b)
    b.bind_cpu_input("x", X)
    for wrong in (np.zeros((2, 3), np.float32), np.zeros((3, 2)), np.zeros(6, np.float32)):
        b.bind_ortvalue_output("y", tiercel.OrtValue.ortvalue_from_numpy(wrong))
        with pytest.raises(Error, match="y"):
            s.run_with_iobinding(b)
    b.bind_output("y")
    s.run_with_iobinding(b)
    np.testing.assert_array_equal(b.copy_outputs_to_cpu()[0], X.T)


def test_device(lib: Any) -> None:
    d = lib.OrtDevice.make("cpu", 0)
    assert (d.device_id(), d.device_type(), d.device_mem_type(), d.device_vendor_id()) == (0, 0, 0, 0)
    with pytest.raises(Exception, match="nonsense"):
        lib.OrtDevice.make("nonsense", 0)


def test_enumerations_of_devices() -> None:
    for name in (
        "OrtAllocatorType", "OrtDeviceMemoryType", "OrtDeviceVendorId", "OrtExecutionProviderDevicePolicy",
        "OrtHardwareDeviceType", "OrtMemType", "OrtMemoryInfoDeviceType",
    ):  # fmt: skip
        theirs, ours = getattr(onnxruntime, name), getattr(tiercel, name)
        assert {k: int(v) for k, v in theirs.__members__.items()} == {k: int(v) for k, v in ours.__members__.items()}


def test_devices_and_allocators(lib: Any) -> None:
    device = next(d for d in lib.get_ep_devices() if d.ep_name == "CPUExecutionProvider")
    assert device.device.type == lib.OrtHardwareDeviceType.CPU
    lib.OrtMemoryInfo("Cpu", lib.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, lib.OrtMemType.DEFAULT)
    lib.OrtArenaCfg(0, -1, -1, -1)
    failures = (RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.Fail)
    with pytest.raises(failures):
        lib.register_execution_provider_library("name", "/no/such/library.so")
    with pytest.raises(failures):
        lib.unregister_execution_provider_library("name")
    options = lib.SessionOptions()
    options.set_provider_selection_policy(lib.OrtExecutionProviderDevicePolicy.PREFER_CPU)
    session = lib.InferenceSession(model(TURN), options)
    assert [d.ep_name for d in session.get_input_epdevices() if d] in (["CPUExecutionProvider"], [])


def test_calls_of_the_inner_session(lib: Any) -> None:
    """Programs that call often go past the Python layer."""
    session = lib.InferenceSession(model(TURN))
    inner, value = session._sess, lib.OrtValue.ortvalue_from_numpy(X)
    assert [a.name for a in inner.inputs_meta] == ["x"]
    assert [a.name for a in inner.outputs_meta] == ["y"]
    assert inner.model_meta.graph_name == "turn"
    np.testing.assert_array_equal(inner.run(["y"], {"x": X}, None)[0], X.T)
    np.testing.assert_array_equal(inner.run_with_ort_values({"x": value._ortvalue}, ["y"], None)[0].numpy(), X.T)
    binding = session.io_binding()
    binding._iobinding.bind_ortvalue_input("x", value._ortvalue)
    binding._iobinding.bind_output("y", lib.OrtDevice.make("cpu", 0)._get_c_device())
    inner.run_with_iobinding(binding._iobinding, None)
    np.testing.assert_array_equal(binding.get_outputs()[0].numpy(), X.T)


def test_vectors_of_values(lib: Any) -> None:
    state = onnxruntime.capi.onnxruntime_pybind11_state if lib is onnxruntime else tiercel
    session, feeds, fetches = lib.InferenceSession(model(TURN)), state.OrtValueVector(), state.OrtValueVector()
    feeds.push_back(lib.OrtValue.ortvalue_from_numpy(X)._ortvalue)
    device = lib.OrtDevice.make("cpu", 0)._get_c_device()
    session.run_with_ortvaluevector(lib.RunOptions(), ["x"], feeds, ["y"], fetches, [device])
    assert len(fetches) == 1
    np.testing.assert_array_equal(fetches[0].numpy(), X.T)
    assert fetches.element_type_at(0) == TensorProto.FLOAT
    assert len(fetches.to_dlpacks(lambda capsule: capsule)) == 1


def test_copy_tensors() -> None:
    a, b = (tiercel.OrtValue.ortvalue_from_numpy(X.copy()) for _ in range(2))
    a.update_inplace(X + 1)
    tiercel.copy_tensors([a], [b])
    np.testing.assert_array_equal(b.numpy(), X + 1)
    with pytest.raises(InvalidArgument):
        tiercel.copy_tensors([a], [])


def test_values_made_by_a_session(lib: Any) -> None:
    made = lib.InferenceSession(model(TURN)).create_ortvalue_from_shape_and_type([2, 3], np.float32, "cpu")
    assert made.shape() == [2, 3]
