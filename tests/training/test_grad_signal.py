"""Gradients of transforms, running products, determinants, Einsum and what chooses elements."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check_grad
from test_grad_indexing import gradients, values


def at(*v: int) -> np.ndarray:
    return np.array(v, np.int64)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse,onesided", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_dft(inverse: int, onesided: int, parts: int, dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    attrs = {"inverse": inverse, "onesided": onesided}
    for n in (5, 6):
        check_grad("DFT", [values(rng, 2, n, 2, parts), None, np.array(1)], attrs, constants=[2], dynamic=dynamic)
        for length in (4, 7, 10):  # cut and padded
            inputs = [values(rng, n, 2, parts), np.array(length), np.array(0)]
            check_grad("DFT", inputs, attrs, constants=[1, 2], dynamic=dynamic)
    check_grad("DFT", [values(rng, 2, 4, parts)], attrs, dynamic=dynamic)
    check_grad("DFT", [values(rng, 2, 4, 3, parts)], {**attrs, "axis": 2}, opset=17, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(onesided: int, dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    for n, hop in ((4, 2), (5, 3), (4, 5)):
        for parts in (1, 2):
            if parts == 2 and onesided:
                continue
            signal = values(rng, 2, 14, parts)
            check_grad("STFT", [signal, np.array(hop), values(rng, n)], {"onesided": onesided}, constants=[1], dynamic=dynamic)
            check_grad("STFT", [signal, np.array(hop), None, np.array(n)], {"onesided": onesided}, constants=[1, 3], dynamic=dynamic)


def test_stft_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    signal, window = rng.normal(size=(2, 20, 1)), rng.uniform(0.5, 1, 8)
    dx, dw = gradients("STFT", [signal, np.array(3), window], {}, [0, 2])
    a, b = torch.tensor(signal[..., 0], requires_grad=True), torch.tensor(window, requires_grad=True)
    y = torch.stft(a, 8, 3, window=b, center=False, return_complex=True)
    torch.view_as_real(y).sum().backward()
    np.testing.assert_allclose(dx[..., 0], a.grad.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dw, b.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
def test_running(exclusive: int, reverse: int) -> None:
    rng = np.random.default_rng(0)
    x = values(rng, 2, 5, 3)
    x[0, 1, 0] = x[1, 2, 1] = x[1, 4, 1] = 0
    attrs = {"exclusive": exclusive, "reverse": reverse}
    for axis in (0, 1, -1):
        check_grad("CumSum", [x, np.array(axis)], attrs, dynamic=axis == 1)
        check_grad("CumProd", [x, np.array(axis)], attrs, opset=26, dynamic=axis == 1)


def test_det() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5):
        check_grad("Det", [rng.normal(size=(2, 3, n, n))], dynamic=n == 3)
        a = torch.tensor(rng.normal(size=(4, n, n)), requires_grad=True)
        torch.linalg.det(a).sum().backward()
        np.testing.assert_allclose(gradients("Det", [a.detach().numpy()], {}, [0])[0], a.grad.numpy(), rtol=1e-9)


def test_det_of_singular_matrices() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (3, 4, 4)).astype(float)
    x[0, 3] = x[0, 0] + x[0, 1]  # rank 3
    x[1, :, 2] = 0
    x[2, 2:] = x[2, :2]  # rank 2
    (dx,) = check_grad("Det", [x])
    assert np.abs(dx[2]).max() < 1e-9


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "equation,shapes",
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("ij->", [(2, 3)]), ("ijk->ki", [(2, 3, 4)]), ("ij->i", [(2, 3)]),
        ("ii->i", [(3, 3)]), ("ii", [(3, 3)]), ("iij->j", [(3, 3, 2)]), ("iii->i", [(2, 2, 2)]), ("ij,ij->", [(2, 3), (2, 3)]),
        ("i,j->ij", [(2,), (3,)]), ("i,j->j", [(2,), (3,)]), (",ij->ij", [(), (2, 3)]), ("ij,kl->ik", [(2, 3), (4, 2)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (4, 2)]), ("...ij,...jk->...ik", [(2, 1, 3, 4), (3, 4, 2)]), ("i...->...", [(3, 2, 2)]),
        ("...,...->...", [(2, 3), (3,)]), ("b...i,bi->b...", [(2, 3, 4), (2, 4)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
        ("ij,ij->ij", [(1, 3), (2, 1)]), ("ij,jk->ik", [(2, 1), (3, 4)]), ("ii,i->i", [(3, 3), (1,)]), ("ii,ij->j", [(1, 1), (3, 2)]),
        ("ij,ij->j", [(1, 3), (2, 3)]), ("ab,cb,cd->", [(2, 3), (4, 3), (4, 2)]), ("iij,jk->ik", [(2, 2, 3), (3, 2)]),
    ],
)  # fmt: skip
def test_einsum(equation: str, shapes: list[tuple[int, ...]], dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    check_grad("Einsum", [values(rng, *s) for s in shapes], {"equation": equation}, dynamic=dynamic)


def test_compress() -> None:
    rng = np.random.default_rng(0)
    for dynamic in (False, True):
        check_grad("Compress", [values(rng, 3, 4), np.array([True, False, True])], {"axis": 0}, dynamic=dynamic)
        check_grad("Compress", [values(rng, 3, 4), np.array([False, True])], {"axis": -1}, dynamic=dynamic)
        check_grad("Compress", [values(rng, 3, 2), np.array([True, False, False, True, True, False, True])], dynamic=dynamic)
        check_grad("Compress", [values(rng, 3, 2), np.array([False, False])], dynamic=dynamic)


@pytest.mark.parametrize("is_sorted", [0, 1])
def test_unique(is_sorted: int) -> None:
    rng = np.random.default_rng(0)
    check_grad("Unique", [values(rng, 3, 4)], {"sorted": is_sorted})
    check_grad("Unique", [values(rng, 3, 4)], {"axis": 1, "sorted": is_sorted}, outputs=4)
    (dx,) = gradients("Unique", [np.array([2.0, 1.0, 2.0, 1.0])], {"sorted": is_sorted}, [0])
    assert dx.tolist() == [1, 1, 0, 0]


def test_one_hot_and_range() -> None:
    indices = np.array([[0, 2], [-1, 5]])
    for axis in (-1, 0, 1):
        check_grad("OneHot", [indices, np.array(4), np.array([0.3, 1.7])], {"axis": axis}, constants=[1])
    check_grad("Range", [np.array(0.5), np.array(3.0), np.array(0.4)])
    check_grad("ReverseSequence", [values(np.random.default_rng(0), 4, 3, 2), at(4, 2, 0)], dynamic=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_class_weights(op: str, reduction: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([[0, 3], [1, 1], [2, 0]])
    inputs = [values(rng, 3, 4, 2), labels, rng.uniform(0.5, 1.5, 4)]
    check_grad(op, inputs, {"reduction": reduction})
    check_grad(op, [inputs[0], labels.astype(np.int32), inputs[2]], {"reduction": reduction, "ignore_index": 1}, dynamic=True)
    check_grad(op, [values(rng, 3, 4), np.array([3, -100, 1]), inputs[2]], {"reduction": reduction, "ignore_index": -100})


@pytest.mark.parametrize("low,high", [(-0.5, 0.7), (0.7, -0.5)])
def test_bounds_of_clip(low: float, high: float) -> None:
    x = values(np.random.default_rng(0), 4, 5)
    check_grad("Clip", [x, np.array(low), np.array(high)])
    check_grad("Clip", [x, np.array(low)])
    check_grad("Clip", [x, None, np.array(high)], dynamic=True)


def test_slopes_of_prelu_and_remainders() -> None:
    rng = np.random.default_rng(0)
    check_grad("PRelu", [values(rng, 2, 3, 4), values(rng, 3, 1)])
    check_grad("PRelu", [values(rng, 2, 3, 4), values(rng, 3)], opset=6)
    check_grad("PRelu", [values(rng, 2, 3, 4), values(rng, 1)], opset=6)
    check_grad("Mod", [np.array([-5.3, 5.3, 4.1, -4.1]), np.array([2.1, -2.1, 1.3, 1.7])], {"fmod": 1})


def test_zero_vectors_have_no_direction() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    for p in (1, 2):
        (dx,) = gradients("LpNormalization", [x], {"p": p}, [0])
        assert dx[0].tolist() == [0, 0] and np.isfinite(dx).all()


@pytest.mark.parametrize("form", ["tensor", "axis", "block"])
def test_scale_of_dequantize(form: str) -> None:
    """In float: the scale's gradient is the sum of dy (x - zero) over what it scales."""
    rng = np.random.default_rng(0)
    x, attrs = rng.integers(-9, 9, (4, 6), np.int8), {}
    scale = rng.uniform(0.5, 1, {"tensor": (), "axis": (6,), "block": (2, 6)}[form]).astype(np.float32)
    zero = rng.integers(-3, 3, scale.shape).astype(np.int8)
    if form == "block":
        attrs = {"block_size": 3, "axis": 0}
    (ds,) = gradients("DequantizeLinear", [x, scale, zero], attrs, [1])
    wide = np.repeat(zero, 3, 0)[:4] if form == "block" else zero
    each = x.astype(float) - wide
    expected = {"tensor": lambda: each.sum(), "axis": lambda: each.sum(0), "block": lambda: np.stack([each[:3].sum(0), each[3:].sum(0)])}[form]()
    np.testing.assert_allclose(ds, expected, rtol=1e-5)


def test_linear_maps_in_float() -> None:
    """The adjoint in float is that in double."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 30, 2))
    for op, inputs in [("DFT", [x]), ("CumProd", [x, np.array(1)]), ("Det", [rng.normal(size=(2, 5, 5))])]:
        narrow = [v.astype(np.float32) if v.dtype == np.float64 else v for v in inputs]
        wide = gradients(op, inputs, {}, [0])[0]
        np.testing.assert_allclose(gradients(op, narrow, {}, [0])[0], wide, rtol=1e-3, atol=1e-4)
