"""MatMul against numpy: every shape form, dtype and way of getting B."""

import numpy as np
import pytest

import tiercel
from oracle import check, compare, one_node

RNG = np.random.default_rng(5)
FORMS = [
    ((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)), ((1, 3, 4), (6, 4, 5)), ((6, 3, 4), (1, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (2, 3, 4, 5)),
    ((0, 4), (4, 5)), ((3, 0), (0, 5)), ((3, 4), (4, 0)), ((0, 3, 4), (4, 5)), ((2, 3, 0), (2, 0, 5)), ((0,), (0,)),
    ((1, 1), (1, 1)), ((7, 129), (129, 65)), ((1, 300), (300, 130)), ((5, 64, 48), (5, 48, 33)), ((12, 9, 31), (12, 31, 64)),
    ((40, 1), (1, 70)), ((40, 70), (70, 1)), ((40, 70), (70, 3)), ((3, 1, 4, 70), (2, 70, 2)), ((70,), (5, 70, 4)), ((9, 300), (300,)), ((2, 2, 50, 20), (2, 1, 20, 50)),
]  # fmt: skip


def expected(a, b):
    if a.dtype.kind in "iu":
        return np.matmul(a, b)
    return np.matmul(a.astype("float64"), b.astype("float64")).astype(a.dtype)


def random(shape, dtype):
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return RNG.integers(info.min // 2, info.max // 2, shape).astype(dtype)
    return RNG.uniform(-1, 1, shape).astype(dtype)


def close(k, dtype):
    eps = np.finfo(dtype).eps if np.dtype(dtype).kind == "f" else 0
    return {"ulp": 4, "atol": float(eps) * (1 + 0.5 * k) if dtype != "float16" else 1e-3}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint32", "uint64"])
@pytest.mark.parametrize("forms", FORMS, ids=str)
def test_forms(forms, dtype):
    a, b = (random(s, dtype) for s in forms)
    with np.errstate(over="ignore"):
        want = np.asarray(expected(a, b))
    opset = 13 if dtype != "float32" else 9
    check("MatMul", [a, b], opset=opset, expected=[want], **close(a.shape[-1], dtype))


@pytest.mark.parametrize("forms", FORMS, ids=str)
def test_constants(forms):
    a, b = (random(s, "float32") for s in forms)
    for constants in [(1,), (0,)]:
        model, feeds, names = one_node("MatMul", [a, b], constants=constants)
        got = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0]
        compare(got, np.asarray(expected(a, b)), 4, 1e-6 * (1 + 0.2 * a.shape[-1]))


@pytest.mark.parametrize("forms", [((300, 200), (200, 700)), ((512, 100), (100, 512)), ((9, 250, 80), (9, 80, 1000)), ((1, 1000), (1000, 1000)), ((600, 500), (500, 3)), ((10, 90, 50), (10, 50, 2))], ids=str)
@pytest.mark.parametrize("constant", [False, True])
def test_threads_and_batch_do_not_change_a_bit(forms, constant):
    a, b = (random(s, "float32") for s in forms)
    model, feeds, names = one_node("MatMul", [a, b], constants=(1,) if constant else (), dynamic=True)
    results = []
    for threads in (1, 2, 3):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        session = tiercel.InferenceSession(model.SerializeToString(), options)
        results.append(session.run(names, feeds)[0])
        np.testing.assert_array_equal(results[-1], results[0])
        rows = session.run(names, feeds | {"x0": np.ascontiguousarray(a[..., :1, :])})[0]
        np.testing.assert_array_equal(rows, results[0][..., :1, :])
    compare(results[0], expected(a, b), 4, 1e-6 * a.shape[-1])


@pytest.mark.parametrize("seed", range(12))
def test_drawn_products_on_any_team(seed):
    """Blocks as even as they can be: extents about multiples of theirs, A or B transposed or not."""
    rng = np.random.default_rng(seed)
    m, n, k = (int(rng.choice(sizes)) + int(rng.integers(-1, 2)) for sizes in ([2, 36, 145, 289, 577, 900], [2, 64, 129, 513, 577, 1100], [2, 33, 300]))
    batch, trans = [int(rng.integers(2, 14))] * int(rng.random() < 0.3), {"transA": int(rng.integers(2)), "transB": int(rng.integers(2))}
    a, b = random((*batch, m, k), "float32"), random((*batch, k, n), "float32")
    want = expected(a, b)
    ax, bx = (np.ascontiguousarray(np.swapaxes(v, -1, -2)) if t else v for v, t in zip((a, b), trans.values(), strict=True))
    for constants in ((), (1,)):
        model, feeds, names = one_node("FusedMatMul", [ax, bx], trans, 1, "com.microsoft", constants=constants)
        results = []
        for threads in (1, 2, 3, 4, 8):
            options = tiercel.SessionOptions()
            options.intra_op_num_threads = threads
            results += tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)
            assert results[-1].tobytes() == results[0].tobytes(), f"{threads} threads"
        compare(results[0], want, 4, 1e-6 * (1 + k))


def test_bfloat16():
    import ml_dtypes

    a, b = (random(s, "float32").astype(ml_dtypes.bfloat16) for s in ((5, 40), (40, 17)))
    want = np.matmul(a.astype("float64"), b.astype("float64")).astype(ml_dtypes.bfloat16)
    model, feeds, names = one_node("MatMul", [a, b], opset=13)
    got = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0]
    assert np.max(np.abs(got.astype("float64") - want.astype("float64"))) <= 0.04


def test_nan_and_infinity():
    a, b = random((4, 8), "float32"), random((8, 20), "float32")
    a[1, 2], a[2, 3], b[4, 5], b[3, 7] = np.nan, np.inf, -np.inf, 0
    with np.errstate(invalid="ignore"):
        check("MatMul", [a, b], expected=[expected(a, b)], atol=1e-6)


def test_errors():
    f = lambda *s: np.zeros(s, "float32")  # noqa: E731
    for a, b, message in [
        (f(3, 4), f(5, 6), "inner extents"),
        (f(2, 3, 4), f(3, 4, 5), "do not broadcast"),
        (f(3, 4), f(4, 5).astype("float64"), "one type"),
        (f(), f(4, 5), "at least one axis"),
        (f(3, 4).astype("int8"), f(4, 5).astype("int8"), "should be float"),
    ]:
        with pytest.raises(Exception, match=message):
            check("MatMul", [a, b], expected=[f(3, 5)])
