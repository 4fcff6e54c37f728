"""DFT, STFT, the window functions and MelWeightMatrix against the reference evaluator."""

import numpy as np
import pytest
from ml_dtypes import bfloat16
from onnx import TensorProto, helper

import tiercel
from oracle import check, compare, fails_everywhere, one_node
from tiercel.errors import Error

RNG = np.random.default_rng(11)
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 31, 37, 60, 64, 74, 97, 100, 128, 210, 400, 480, 997, 1024, 1369]


def i64(v):
    return np.array(v, np.int64)


def data(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def complex_result(x, n, axis, inverse, onesided):
    """The transform in double."""
    x, axis = x.astype(np.float64), axis % x.ndim
    c = x[..., 0] + 1j * x[..., 1] if x.shape[-1] == 2 else x[..., 0]
    if inverse and onesided:
        return np.fft.irfft(c, n, axis)[..., None]
    y = np.fft.ifft(c, n, axis) if inverse else np.fft.fft(c, n, axis)
    if onesided:
        y = np.take(y, np.arange(n // 2 + 1), axis)
    return np.stack([y.real, y.imag], -1)


def dft(x, axis, opset, inverse=0, onesided=0, n=None, ways=("static", "dynamic")):
    length = n or (2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis])
    expected = complex_result(x, length, axis, inverse, onesided).astype(x.dtype)
    # The magnitude of a transform of n numbers grows with sqrt(n), its errors with the logarithm.
    atol = 4 * (2**-52 if x.dtype == np.float64 else 2**-23) * np.sqrt(length) * np.log2(length + 2)
    attrs = {"inverse": inverse, "onesided": onesided}
    inputs = [x, None if n is None else i64(n)]
    if opset < 20:
        attrs["axis"] = axis
    else:
        inputs.append(i64(axis))
    check("DFT", inputs, attrs, opset, expected=[expected], atol=atol, ways=ways)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lengths(n, dtype):
    opset = 20
    for parts in (1, 2):
        for rows in (1, 9):
            x = data(rows, n, parts, dtype=dtype)
            dft(x, 1, opset)
            dft(x, 1, opset, inverse=1)
            if parts == 1:
                dft(x, 1, opset, onesided=1)
            elif n > 1:
                dft(x, 1, opset, inverse=1, onesided=1)
                dft(x, 1, opset, inverse=1, onesided=1, n=2 * n - 1)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3, -4])
@pytest.mark.parametrize("n", [None, 3, 12])
def test_axes_and_padding(axis, n, opset):
    for parts in (1, 2):
        x = data(4, 5, 6, parts)
        for inverse in (0, 1):
            for onesided in (0, 1):
                dft(x, axis, opset, inverse, onesided, n)


@pytest.mark.parametrize("opset", [17, 20])
def test_against_the_reference_evaluator(opset):
    x = data(2, 10, 7, 1, dtype=np.float64)
    c = data(2, 10, 7, 2, dtype=np.float64)
    axis = {"axis": 2} if opset < 20 else {}
    more = [] if opset < 20 else [None, i64(2)]
    check("DFT", [x, *more], axis, opset, atol=1e-13)
    check("DFT", [x, *more], {**axis, "onesided": 1}, opset, atol=1e-13)
    check("DFT", [c, *more], {**axis, "inverse": 1}, opset, atol=1e-13)
    check("DFT", [c, *more], {**axis, "inverse": 1, "onesided": 1}, opset, atol=1e-13)
    check("DFT", [x], {}, opset, atol=1e-13)  # the default axis: 1, and -2 from opset 20 on


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_16_bits(dtype):
    for parts in (1, 2):
        dft(data(3, 40, parts, dtype=dtype), 1, 20)
    signal, window = data(2, 64, 1, dtype=dtype), data(16, dtype=dtype)
    expected = stft(signal, 5, window, 16)
    check("STFT", [signal, i64(5), window], opset=17, expected=[expected.astype(dtype)], ulp=2, atol=1e-5)


def test_large():
    dft(data(1, 1 << 17, 1), 1, 20)
    dft(data(1, 70001, 2), 1, 20)


def test_threads_do_not_matter():
    x = data(50, 90, 33, 2)
    model, feeds, _ = one_node("DFT", [x, None, i64(1)], {}, 20)
    results = []
    for threads in (1, 2, 3):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        results.append(tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_no_rows():
    for shape in ((0, 8, 1), (3, 8, 0, 1)):
        check("DFT", [np.zeros(shape, np.float32)], {"axis": 1}, 17, expected=[np.zeros((*shape[:-1], 2), np.float32)])
    # An empty axis is padded with zeros.
    check("DFT", [np.zeros((3, 0, 1), np.float32), i64(4)], {}, 17, expected=[np.zeros((3, 4, 2), np.float32)])


@pytest.mark.parametrize("int_type", [np.int32, np.int64])
def test_types_of_length(int_type):
    check("DFT", [data(2, 8, 1), np.array(6, int_type)], {}, 20, atol=1e-5)


@pytest.mark.parametrize("n", [0, -1, -(2**63), 2**40, 2**62, 2**63 - 1])
def test_impossible_lengths(n):
    x = data(2, 8, 1)
    match = "at least|range|memory|longer"
    for opset in (17, 20):
        fails_everywhere(match, "DFT", [x, i64(n)], {}, opset)
        fails_everywhere(match, "DFT", [x, i64(n)], {"onesided": 1}, opset)
        fails_everywhere(match, "DFT", [data(2, 8, 2), i64(n)], {"inverse": 1, "onesided": 1}, opset)
    fails_everywhere(match, "STFT", [x, i64(n), None, i64(4)] if n < 1 else [x, i64(1), None, i64(n)])
    fails_everywhere(match, "STFT", [x, i64(2), None, i64(n)])


def test_impossible_nodes():
    x = data(2, 8, 1)
    for axis in (2, -1, 3, -4, 2**40, -(2**63)):
        fails_everywhere("axis|range", "DFT", [x], {"axis": axis}, 17)
        fails_everywhere("axis|range", "DFT", [x, None, i64(axis)], {}, 20)
    fails_everywhere("parts", "DFT", [data(2, 8, 3)])
    fails_everywhere("parts", "DFT", [data(2, 8, 0)])
    fails_everywhere("rank", "DFT", [data(8)])
    fails_everywhere("at least", "DFT", [data(2, 0, 1)])
    fails_everywhere("at least", "DFT", [data(2, 1, 2)], {"inverse": 1, "onesided": 1})
    fails_everywhere("float", "DFT", [np.zeros((2, 8, 1), np.int32)])
    fails_everywhere("scalar", "DFT", [x, i64([4, 4])])
    fails_everywhere("int32 or int64", "DFT", [x, np.array(4, np.float32)])
    fails_everywhere("longer", "STFT", [x, i64(1), data(9)])
    fails_everywhere("equal", "STFT", [x, i64(1), data(4), i64(5)])
    fails_everywhere("1-D", "STFT", [x, i64(1), data(4, 1)])
    fails_everywhere("one type", "STFT", [x, i64(1), data(4, dtype=np.float64)])
    fails_everywhere("batch", "STFT", [data(8), i64(1)])


# ---- STFT


def stft(signal, hop, window, n, onesided=1):
    frames = 1 + (signal.shape[1] - n) // hop
    cut = np.stack([signal[:, f * hop : f * hop + n] for f in range(frames)], 1).astype(np.float64)
    if window is not None:
        cut = cut * window.astype(np.float64)[:, None]
    return complex_result(cut, n, 2, 0, onesided).astype(signal.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "hop"), [(16, 4), (16, 16), (20, 7), (37, 3), (100, 100), (1, 1)])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(n, hop, onesided, dtype):
    atol = 1e-5 if dtype == np.float32 else 1e-13
    window = data(n, dtype=dtype)
    for parts in (1, 2):
        x = data(2, 100, parts, dtype=dtype)
        for w, length in ((window, n), (window, None), (None, n)):
            inputs = [x, i64(hop), w, None if length is None else i64(length)]
            check("STFT", inputs, {"onesided": onesided}, 17, expected=[stft(x, hop, w, n, onesided)], atol=atol)
    if hop < n < 100:
        check("STFT", [data(2, 100, 1, dtype=dtype), i64(hop), window], {"onesided": onesided}, 17, atol=atol)


def test_stft_of_the_whole_signal():
    x = data(2, 50, 1)
    check("STFT", [x, i64(3)], {}, 17, expected=[stft(x, 3, None, 50)], atol=1e-5)
    check("STFT", [x, np.array(3, np.int32), None, np.array(10, np.int32)], {}, 17, expected=[stft(x, 3, None, 10)], atol=1e-5)
    check("STFT", [x[..., 0], i64(3)], {}, 17, expected=[stft(x, 3, None, 50)], atol=1e-5)


def test_stft_of_speech():
    x, window = data(1, 16000, 1), np.hanning(400).astype(np.float32)
    check("STFT", [x, i64(160), window], {}, 17, expected=[stft(x, 160, window, 400)], atol=1e-4)


# ---- Windows and filters

NUMBERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"]


def window(op, n, periodic):
    k = np.arange(n) / (n if periodic else n - 1)
    if op == "HannWindow":
        return np.sin(np.pi * k) ** 2
    if op == "HammingWindow":
        return 25 / 46 - 21 / 46 * np.cos(2 * np.pi * k)
    return 0.42 - 0.5 * np.cos(2 * np.pi * k) + 0.08 * np.cos(4 * np.pi * k)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(op, periodic):
    for n in (2, 3, 10, 257, 5000):
        for name in NUMBERS:
            to = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name))
            attrs = {"periodic": periodic, "output_datatype": getattr(TensorProto, name)}
            if name.startswith(("INT", "UINT")):
                if op == "BlackmanWindow" or n % 2 == 0:
                    continue  # rounding decides whether the top is 1
                check(op, [i64(n)], attrs, 17, expected=[window(op, n, periodic).astype(to)])
            else:
                check(op, [i64(n)], attrs, 17, expected=[window(op, n, periodic).astype(to)], atol=1e-15)
        check(op, [np.array(n, np.int32)], {"periodic": periodic, "output_datatype": TensorProto.DOUBLE}, 17, atol=1e-12)
        check(op, [i64(n)], {"periodic": periodic}, 17, atol=1e-5)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows_at_the_edge(op):
    check(op, [i64(0)], {}, 17, expected=[np.zeros(0, np.float32)])
    check(op, [i64(1)], {"periodic": 0}, 17, expected=[np.ones(1, np.float32)])
    for n in (-1, -(2**63), 2**40, 2**62, 2**63 - 1):
        fails_everywhere("negative|memory", op, [i64(n)], {}, 17)
    for to in (TensorProto.STRING, TensorProto.BOOL, 0, -1, 257, 2**40 + 1):
        fails_everywhere("output_datatype", op, [i64(4)], {"output_datatype": to}, 17)
    fails_everywhere("scalar", op, [i64([4, 4])], {}, 17)
    fails_everywhere("int32 or int64", op, [np.array(4, np.float32)], {}, 17)


def mel(bands, length, rate, low, high):
    return [np.array(bands, np.int32), i64(length), np.array(rate, np.int32), np.array(low, np.float32), np.array(high, np.float64)]


@pytest.mark.parametrize("name", NUMBERS)
def test_mel_weights(name):
    for args in ((8, 16, 8192, 0, 4096), (13, 400, 16000, 20.5, 7600.25), (80, 400, 16000, 0, 8000), (3, 1000, 44100, 300, 300), (1, 64, 8000, 100, 3000)):
        check("MelWeightMatrix", mel(*args), {"output_datatype": getattr(TensorProto, name)}, 17, ulp=1)


def test_mel_weights_beyond_the_spectrum_are_cut():
    (y,) = check("MelWeightMatrix", mel(6, 32, 8000, 0, 2000), {}, 17)
    model, feeds, _ = one_node("MelWeightMatrix", mel(6, 32, 8000, 0, 1e30), {}, 17)
    z = tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    assert z.shape == y.shape and np.isfinite(z).all()


def test_impossible_mel_weights():
    for n in (-1, -(2**63), 2**40, 2**62, 2**63 - 1):
        fails_everywhere("negative|memory", "MelWeightMatrix", [i64(n), i64(64), i64(8000), np.float32(0), np.float32(100)], {}, 17)
        fails_everywhere("negative|memory", "MelWeightMatrix", [i64(4), i64(n), i64(8000), np.float32(0), np.float32(100)], {}, 17)
    for low, high in ((-1, 100), (200, 100), (0, np.inf), (np.nan, 100), (0, np.nan)):
        fails_everywhere("edges", "MelWeightMatrix", mel(4, 64, 8000, low, high), {}, 17)
    for rate in (0, -5):
        fails_everywhere("sample_rate", "MelWeightMatrix", mel(4, 64, rate, 0, 100), {}, 17)


def test_signals_with_unknown_extents_through_a_graph():
    """A window made of a size that a run computes, and a transform of it."""
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("HannWindow", ["n"], ["w"]),
        helper.make_node("Unsqueeze", ["x", "zero"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "two"], ["signal"]),
        helper.make_node("STFT", ["signal", "n", "w", "n"], ["y"], onesided=1),
    ]
    constants = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("zero", 0), ("two", 2))]
    graph = helper.make_graph(
        nodes, "window", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants,
    )
    s = tiercel.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    for n in (4, 30, 400):
        x = data(n)
        (y,) = s.run(None, {"x": x})
        want = stft(x[None, :, None], n, window("HannWindow", n, True), n)
        compare(y, want, atol=1e-4)
    with pytest.raises(Error):
        s.run(None, {"x": data(0)})
