"""fuse_matmul: what becomes one node, what must not, and that no bit of the result changes but where factors go into weights."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from test_conv_passes import Build, rand

import tiercel


def check(b, inputs, outputs, tmp_path, dynamic=(), exact=True):
    """Against onnxruntime; the fused graph gives the bits of the unfused one (`exact`). Returns the operators that are left."""
    declared = {n: [f"{n}_{i}" if (n, i) in dynamic else d for i, d in enumerate(v.shape)] for n, v in inputs.items()}
    model = b.model(declared, outputs)
    want = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(outputs, inputs)
    path, results = tmp_path / "optimised.onnx", []
    for disabled in ("fuse_matmul", ""):
        for threads in (1, 2):
            options = tiercel.SessionOptions()
            options.intra_op_num_threads = threads
            options.optimized_model_filepath = str(path)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TIERCEL_DISABLE_PASS", disabled)
                session = tiercel.InferenceSession(model, options)
            results.append(session.run(outputs, inputs))
    for got in results:
        for g, r, w in zip(got, results[0], want, strict=True):
            if exact:
                np.testing.assert_array_equal(g, r)
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5 * np.abs(w).max(initial=1e-9))
    return Counter(n.op_type for n in onnx.load(path).graph.node)


def test_bias_residual_activation(tmp_path):
    b = Build(20)
    h = b.op("Gelu", b.op("Add", b.op("MatMul", "x", rand(48, 96)), rand(96)))
    y = b.op("Add", b.op("Add", rand(48), b.op("MatMul", h, rand(96, 48))), "x")
    z = b.op("Relu", b.op("Gemm", b.op("Reshape", y, np.array([-1, 48])), rand(20, 48), rand(20), transB=1, alpha=0.5))
    ops = check(b, {"x": rand(2, 7, 48)}, [y, z], tmp_path)
    assert ops == {"FusedMatMul": 3, "Reshape": 1}
    ops = check(b, {"x": rand(2, 7, 48)}, [y, z], tmp_path, dynamic=[("x", 0), ("x", 1)])  # perhaps of many rows
    assert ops == {"MatMulChain": 1, "FusedMatMul": 1, "Reshape": 1}


@pytest.mark.parametrize("shape", [(5, 16), (16,), (1,), (), (3, 5, 16), (1, 5, 1), (3, 1, 16), (3, 1, 1), (1, 1, 16)])
@pytest.mark.parametrize("constant", [True, False])
def test_addends_of_every_shape(shape, constant, tmp_path):
    b = Build()
    inputs = {"x": rand(3, 5, 9), "d": rand(*shape)}
    y = b.op("Add", b.op("MatMul", "x", rand(9, 16)), inputs["d"] if constant else "d")
    ops = check(b, inputs, [b.op("Tanh", y)], tmp_path)
    assert ops == {"FusedMatMul": 1}


def test_batched_operands(tmp_path):
    b = Build()
    s = b.op("Mul", b.op("MatMul", "q", b.op("Transpose", "k", perm=[0, 1, 3, 2])), np.float32(0.3))
    s = b.op("Add", s, "mask")
    t = b.op("MatMul", b.op("Transpose", "q", perm=[0, 1, 3, 2]), b.op("Div", s, np.array([4.0], np.float32)))
    ops = check(b, {"q": rand(2, 3, 10, 8), "k": rand(2, 3, 12, 8), "mask": rand(2, 1, 1, 12)}, [t], tmp_path)
    assert ops == {"FusedMatMul": 2, "Div": 1}


def test_gates(tmp_path):
    b = Build()
    y = b.op("MatMul", "x", rand(9, 16))
    y = b.op("Mul", y, b.op("Sigmoid", y))
    y = b.op("MatMul", y, rand(16, 8))
    y = b.op("Mul", b.op("HardSigmoid", y, alpha=1 / 6), y)
    y = b.op("Div", b.op("MatMul", y, rand(8, 8)), np.float32(8))
    assert check(b, {"x": rand(4, 9)}, [y], tmp_path, exact=False) == {"FusedMatMul": 3}  # a SiLU rounds once less


def test_what_stays(tmp_path):
    b = Build()
    x = b.op("MatMul", "x", rand(9, 16))
    wider = b.op("Add", x, rand(2, 4, 16))            # the addend is larger than the product
    twice = b.op("MatMul", "x", rand(9, 16))          # read twice
    sums = [b.op("Add", twice, rand(16)), b.op("Relu", twice)]
    third = b.op("Div", b.op("MatMul", "x", rand(9, 4)), np.float32(3))  # would round differently
    after = b.op("Add", b.op("Relu", b.op("MatMul", "x", rand(9, 4))), rand(4))  # an addend after the activation
    square = b.op("MatMul", "x", rand(9, 4))
    square = b.op("Add", square, square)
    ops = check(b, {"x": rand(4, 9)}, [wider, *sums, third, after, square], tmp_path)
    assert ops == {"MatMul": 4, "FusedMatMul": 1, "Add": 4, "Relu": 1, "Div": 1}


def test_two_products_added(tmp_path):
    b = Build()
    y = b.op("Relu", b.op("Add", b.op("MatMul", "x", rand(9, 16)), b.op("MatMul", "x", rand(9, 16))))
    assert check(b, {"x": rand(4, 9)}, [y], tmp_path) == {"MatMul": 1, "FusedMatMul": 1}


def test_residual_computed_later(tmp_path):
    b = Build()
    y = b.op("MatMul", "x", rand(9, 9))
    late = b.op("Exp", b.op("Neg", b.op("Abs", "x")))
    y = b.op("Clip", b.op("Add", y, late), np.float32(-1), np.float32(1.5))
    y = b.op("Identity", y)
    ops = check(b, {"x": rand(4, 9)}, [y, late], tmp_path)
    assert ops == {"FusedMatMul": 1, "Pointwise": 1}


def test_gemm_without_c_keeps_its_addend_unscaled(tmp_path):
    b = Build()
    y = b.op("Add", b.op("Gemm", "x", rand(9, 16), beta=3.0), rand(16))
    z = b.op("Add", b.op("Gemm", "x", rand(9, 16), rand(16), beta=3.0, alpha=2.0), rand(4, 16))
    assert check(b, {"x": rand(4, 9)}, [y, z], tmp_path) == {"FusedMatMul": 2}


def test_one_dimensional_operands(tmp_path):
    b = Build()
    y = b.op("Add", b.op("MatMul", "v", rand(5, 9, 16)), rand(5, 16))
    z = b.op("Add", b.op("MatMul", "a", rand(9)), rand(3, 1))
    assert check(b, {"v": rand(9), "a": rand(3, 4, 9)}, [y, z], tmp_path) == {"FusedMatMul": 2}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (1, 1, 64)])
def test_layer_scale_goes_into_the_weights(bias, shape, tmp_path):
    b = Build(20)
    h = b.op("MatMul", "x", rand(48, 64))
    h = b.op("Mul", b.op("Add", h, rand(64)) if bias else h, rand(*shape))
    y = b.op("Add", h, "r")
    ops = check(b, {"x": rand(2, 9, 48), "r": rand(2, 9, 64)}, [y], tmp_path, exact=False)
    assert ops == {"FusedMatMul": 1}


def test_layer_scale_of_gemm_with_transposed_weights(tmp_path):
    b = Build(20)
    y = b.op("Mul", rand(40), b.op("Gemm", "x", rand(40, 24), rand(40), transB=1, alpha=0.5))
    assert check(b, {"x": rand(7, 24)}, [y], tmp_path, exact=False) == {"FusedMatMul": 1}


def test_factors_that_are_no_columns_stay(tmp_path):
    b = Build(20)
    w = rand(9, 9)
    first = b.op("Mul", b.op("MatMul", "x", w), rand(9, 1))  # of rows
    second = b.op("Mul", b.op("Relu", b.op("MatMul", "x", rand(9, 9))), rand(9))  # behind an activation
    third = b.op("MatMul", "x", w)
    third = b.op("Mul", b.op("Add", third, "x"), rand(9))  # an addend that is no constant
    ops = check(b, {"x": rand(9, 9)}, [first, second, third], tmp_path)
    assert ops["Mul"] + ops["Pointwise"] == 3


@pytest.mark.parametrize("activation", ["Gelu", "Relu", "Tanh"])
def test_activation_behind_a_reshape(activation, tmp_path):
    b = Build(20)
    flat = b.op("Reshape", "x", np.array([-1, 24], np.int64))
    h = b.op("Reshape", b.op("Gemm", flat, rand(24, 40), rand(40)), np.array([2, -1, 40], np.int64))
    y = b.op(activation, h)
    z = b.op("Gemm", b.op("Reshape", y, np.array([-1, 40], np.int64)), rand(40, 8))
    ops = check(b, {"x": rand(2, 5, 24)}, [y, z], tmp_path)
    assert ops[activation] == 0


def test_reshape_with_other_readers_keeps_its_activation(tmp_path):
    b = Build(20)
    h = b.op("Reshape", b.op("MatMul", "x", rand(24, 40)), np.array([2, -1, 40], np.int64))
    ops = check(b, {"x": rand(10, 24)}, [b.op("Relu", h), b.op("Neg", h)], tmp_path)
    assert ops["Relu"] == 1


@pytest.mark.parametrize("where", ["factor", "bias"])
def test_layer_scale_that_is_not_finite_stays(where, tmp_path):
    """An infinity times a finite sum is infinite; times each of its terms it may be NaN."""
    b = Build(20)
    scale, bias = np.full(16, 2, np.float32), np.ones(16, np.float32)
    scale[3] = np.inf if where == "factor" else 3e38
    bias[3] = 5
    y = b.op("Mul", b.op("Add", b.op("MatMul", "x", np.zeros((9, 16), np.float32) if where == "factor" else rand(9, 16) * 0.1), bias), scale)
    model = b.model({"x": [4, 9]}, [y])
    x = rand(4, 9)
    (want,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (got,) = tiercel.InferenceSession(model).run(None, {"x": x})
    assert np.isinf(want).any()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def norm(b, x, channels, **attributes):
    parameters = [rand(channels) + 2, rand(channels), rand(channels), np.abs(rand(channels)) + 0.5]
    return b.op("BatchNormalization", x, *parameters, **attributes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_batch_norm_around_gemm(bias, transposed, tmp_path):
    b = Build()
    weights = rand(7, 9) if transposed else rand(9, 7)
    y = b.op("Gemm", norm(b, "x", 9), weights, *([rand(7)] if bias else []), transB=transposed, alpha=0.5)
    y = b.op("Relu", norm(b, y, 7, epsilon=0.01))
    ops = check(b, {"x": rand(5, 9)}, [y], tmp_path, dynamic=[("x", 0)], exact=False)
    assert ops == {"FusedMatMul": 1}


def test_batch_norm_of_flattened_rows(tmp_path):
    b = Build()
    rows = b.op("Reshape", b.op("MatMul", "x", rand(9, 16)), np.array([-1, 16]))
    y = b.op("HardSwish", b.op("Reshape", norm(b, rows, 16), np.array([2, 5, 16])))
    rows = b.op("Flatten", b.op("Add", b.op("MatMul", y, rand(16, 9)), rand(9)), axis=2)
    y = b.op("Add", b.op("Reshape", norm(b, rows, 9), np.array([2, 5, 9])), "x")
    flat = norm(b, b.op("Reshape", b.op("MatMul", y, rand(9, 4)), np.array([10, 4])), 4)
    ops = check(b, {"x": rand(2, 5, 9)}, [y, flat], tmp_path, exact=False)
    assert ops == {"FusedMatMul": 3, "Reshape": 1}


def test_batch_norm_that_stays(tmp_path):
    b = Build()
    middle = norm(b, b.op("MatMul", "x", rand(9, 5)), 5)          # of the rows, not the columns: 5 of both
    twice = b.op("MatMul", "m", rand(9, 5))                       # the product is a result too
    other = norm(b, b.op("Reshape", b.op("MatMul", "m", rand(9, 6)), np.array([-1, 3])), 3)   # no longer its columns
    shared = b.const(rand(9, 3))
    pair = [norm(b, b.op("MatMul", "m", shared), 3), b.op("MatMul", "m", shared)]
    outputs = [middle, twice, norm(b, twice, 5), other, *pair]
    ops = check(b, {"x": rand(2, 5, 9), "m": rand(4, 9)}, outputs, tmp_path, exact=False)
    assert ops == {"MatMul": 5, "BatchNormalization": 4, "Reshape": 1}


def test_batch_norm_beyond_finite_weights(tmp_path):
    b = Build()
    y = b.op("BatchNormalization", b.op("MatMul", "x", np.full((9, 4), 1e38, np.float32)), *[np.full(4, v, np.float32) for v in (9, 0, 0, 1)])
    x = rand(3, 9) / 100
    got = tiercel.InferenceSession(b.model({"x": [3, 9]}, [y])).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, np.tile(x.sum(1, dtype=np.float64)[:, None] * 9e38, 4), rtol=1e-3)
