"""Gradients of what samples, pools and pads images: against central differences in double, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from gradcheck import check_grad, projected
from onnx import numpy_helper
from test_grad_indexing import gradients, values

import tiercel
from oracle import one_node
from tiercel import _core


def at(*v: int) -> np.ndarray:
    return np.array(v, np.int64)


def grid_of(rng: np.random.Generator, extents: tuple[int, ...], shape: tuple[int, ...], corners: int) -> np.ndarray:
    """Normalised coordinates inside and outside, away from the pixels' lines and middles and from the borders."""
    places = []
    for n in reversed(extents):
        pixel = rng.integers(-n - 1, 2 * n + 1, shape) + rng.choice([0.2, 0.3, 0.7, 0.8], shape)
        places.append(2 * pixel / (n - 1) - 1 if corners else (2 * pixel + 1) / n - 1)
    return np.stack(places, -1)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample(mode: str, padding: str, corners: int) -> None:
    rng = np.random.default_rng(0)
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    for extents, out in [((4, 3), (3, 5)), ((4, 3, 2), (2, 2, 2))]:
        grid = grid_of(rng, extents, (2, *out), corners)
        check_grad("GridSample", [values(rng, 2, 2, *extents), grid], attrs, dynamic=len(extents) == 3)
    check_grad("GridSample", [values(rng, 1, 2, 4, 3), grid_of(rng, (4, 3), (1, 2, 2), corners)], attrs, constants=[1])
    check_grad("GridSample", [values(rng, 1, 2, 4, 3), grid_of(rng, (4, 3), (1, 2, 2), corners)], attrs, constants=[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grid_sample_as_pytorch(dtype: Any) -> None:
    """On the pixels and the borders too, where there are two slopes."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 20, 5, 6)).astype(dtype)
    theta = np.array([[[1, 0, 0], [0, 1, 0]], [[0.9, 0.3, 0.2], [-0.2, 1.3, -0.1]]])
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                t = torch.tensor(theta, dtype=torch.float64)
                grid = torch.nn.functional.affine_grid(t, (2, 1, 7, 4), align_corners=bool(corners)).numpy().astype(dtype)
                attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
                dx, dgrid = gradients("GridSample", [x, grid], attrs, [0, 1])
                a, b = torch.tensor(x, requires_grad=True), torch.tensor(grid, requires_grad=True)
                name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
                torch.nn.functional.grid_sample(a, b, name, padding, bool(corners)).sum().backward()
                tolerance = 1e-4 if dtype == np.float32 else 1e-10
                np.testing.assert_allclose(dx, a.grad.numpy(), rtol=tolerance, atol=tolerance, err_msg=str(attrs))
                if mode == "linear" and dtype == np.float32:
                    continue  # rounding puts the borders on either side
                np.testing.assert_allclose(dgrid, b.grad.numpy(), rtol=tolerance, atol=tolerance, err_msg=str(attrs))


@pytest.mark.parametrize("shape", [(1, 1, 40, 50), (2, 3, 33, 64), (3, 5, 9, 400)])
def test_few_channels_of_many_samples(shape: tuple[int, ...]) -> None:
    """Parts of the samples are summed apart: the same bits on any threads, and what double says."""
    rng = np.random.default_rng(0)
    x, grid = rng.normal(size=shape), rng.uniform(-1.1, 1.1, (shape[0], 60, 70, 2))
    narrow = [x.astype(np.float32), grid.astype(np.float32)]
    model, feeds, names = one_node("GridSample", narrow)
    model = projected(model, names, [((*shape[:2], 60, 70), np.dtype(np.float32))], rng)
    data = _core.gradient_model(model.SerializeToString(), "", [], ["x0", "x1"])
    results = []
    for threads in (1, 2, 3):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        results.append(tiercel.InferenceSession(data, options).run(["gradient of x0", "gradient of x1"], feeds))
    assert all(a.tobytes() == b.tobytes() for r in results[1:] for a, b in zip(results[0], r, strict=True))
    (factor,) = (numpy_helper.to_array(t).astype(float) for t in model.graph.initializer)
    wide, feeds, names = one_node("GridSample", [v.astype(float) for v in narrow])
    wide.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    wide.graph.node.append(onnx.helper.make_node("Mul", [names[0], "factor"], ["y"]))
    wide.graph.output[0].name = "y"
    data = _core.gradient_model(wide.SerializeToString(), "", [], ["x0"])
    (expected,) = tiercel.InferenceSession(data).run(["gradient of x0"], feeds)
    np.testing.assert_allclose(results[0][0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("corners", [0, 1])
def test_affine_grid(corners: int) -> None:
    rng = np.random.default_rng(0)
    for size in ([2, 1, 3, 4], [2, 3, 2, 3, 2]):
        n = len(size) - 2
        inputs = [values(rng, 2, n, n + 1), at(*size)]
        check_grad("AffineGrid", inputs, {"align_corners": corners}, constants=[1], dynamic=True)
        check_grad("AffineGrid", inputs, {"align_corners": corners})


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(ratio: int, coordinates: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    rois = np.array([[0.33, 0.41, 5.27, 4.36], [2.13, 1.07, 8.31, 9.14], [1.21, 2.17, 1.63, 2.71], [-1.37, -0.7, 3.1, 2.23]])
    attrs = {"output_height": 2, "output_width": 3, "sampling_ratio": ratio, "coordinate_transformation_mode": coordinates,
             "mode": mode, "spatial_scale": 0.75}  # fmt: skip
    check_grad("RoiAlign", [values(rng, 2, 2, 6, 7), rois, at(1, 0, 1, 1)], attrs, step=1e-6, rtol=1e-5)
    check_grad("RoiAlign", [values(rng, 2, 2, 6, 7), rois, at(1, 0, 1, 1)], attrs, constants=[1], dynamic=True)


def test_max_roi_pool() -> None:
    rng = np.random.default_rng(0)
    rois = np.array([[0, 0.1, 0.2, 4.3, 5.2], [1, 1.1, 2.2, 3.3, 3.1], [1, 2.2, 2.3, 9.1, 8.2]])
    check_grad("MaxRoiPool", [values(rng, 2, 2, 6, 5), rois], {"pooled_shape": [2, 3], "spatial_scale": 0.9}, wrt=[0])
    assert not gradients("MaxRoiPool", [values(rng, 2, 2, 6, 5), rois], {"pooled_shape": [2, 3]}, [1])[0].any()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap", "constant"])
def test_pad(mode: str, dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    for pads in ([1, 2, 2, 1], [0, 3, 0, -1], [-1, 2, 1, 0], [0, 0, 0, 0]):
        for constants in ([1], []):
            check_grad("Pad", [values(rng, 3, 4), at(*pads)], {"mode": mode}, constants=constants, dynamic=dynamic)
    check_grad("Pad", [values(rng, 2, 4, 3), at(2, 1), None, at(-2)], {"mode": mode}, constants=[3], dynamic=dynamic)
    if mode == "constant":
        check_grad("Pad", [values(rng, 3, 4), at(1, -1, -1, 2), np.array(0.5)], constants=[1], dynamic=dynamic)
        check_grad("Pad", [values(rng, 3, 4), at(1, 2), np.array(0.5), at(1)], constants=[3], dynamic=dynamic)
    check_grad("Pad", [values(rng, 3, 4)], {"mode": mode if mode != "wrap" else "edge", "pads": [1, 0, 0, 2]}, opset=10)


@pytest.mark.parametrize("name", ["reflect", "replicate", "circular"])
def test_pad_as_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 5))
    mode = {"replicate": "edge", "circular": "wrap"}.get(name, name)
    (dx,) = gradients("Pad", [x, at(0, 0, 1, 2, 0, 0, 3, 2)], {"mode": mode}, [0])
    a = torch.tensor(x, requires_grad=True)
    torch.nn.functional.pad(a, (2, 2, 1, 3), name).sum().backward()
    np.testing.assert_allclose(dx, a.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_lrn(size: int, dynamic: bool) -> None:
    rng = np.random.default_rng(size)
    attrs = {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.5}
    check_grad("LRN", [values(rng, 2, 5, 2, 3)], attrs, dynamic=dynamic)
    check_grad("LRN", [values(rng, 2, 3)], attrs, dynamic=dynamic)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pools(p: int) -> None:
    rng = np.random.default_rng(0)
    for attrs in ({"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 0, 1]}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
                  {"kernel_shape": [2, 2], "dilations": [2, 1]}, {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}):  # fmt: skip
        check_grad("LpPool", [values(rng, 2, 2, 5, 5)], {**attrs, "p": p}, dynamic="pads" in attrs)
    check_grad("LpPool", [values(rng, 1, 2, 7)], {"kernel_shape": [3], "p": p})
    check_grad("GlobalLpPool", [values(rng, 2, 3, 2, 4)], {"p": p})
    for op, attrs in [("GlobalLpPool", {}), ("LpPool", {"kernel_shape": [2, 2]})]:
        assert not gradients(op, [np.zeros((1, 1, 3, 3))], {**attrs, "p": p}, [0])[0].any()


@pytest.mark.parametrize("op", ["LpPool", "AveragePool"])
@pytest.mark.parametrize("seed", range(8))
def test_drawn_windows(op: str, seed: int) -> None:
    """Strides, dilations and paddings of one to three axes; windows beyond the image."""
    rng = np.random.default_rng(seed)
    rank = seed % 3 + 1
    kernel, stride, dilation = (rng.integers(1, 4, rank).tolist() for _ in range(3))
    if op == "AveragePool":
        dilation = [1] * rank  # a window between two pixels has no mean
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = [int(rng.integers(0, r)) for r in reach * 2]
    space = [max(1, r - p - q + int(rng.integers(0, 4))) for r, p, q in zip(reach, pads[:rank], pads[rank:], strict=True)]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "pads": pads}
    attrs |= {"p": seed % 4 + 1} if op == "LpPool" else {"count_include_pad": seed % 2}
    check_grad(op, [values(rng, 2, 2, *space)], attrs, dynamic=seed % 2 == 1)


@pytest.mark.parametrize("op", ["LpPool", "AveragePool"])
def test_a_window_far_larger_than_the_image(op: str) -> None:
    n = 1 << 30
    attrs = {"kernel_shape": [3, n], "pads": [1, n // 2, 1, n // 2]}
    x = values(np.random.default_rng(0), 1, 2, 3, 4)
    check_grad(op, [x], attrs)


@pytest.mark.parametrize("dynamic", [False, True])
def test_col2im(dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    check_grad("Col2Im", [values(rng, 2, 2 * 4, 6), at(3, 4), at(2, 2)], constants=[1, 2], dynamic=dynamic)
    attrs = {"dilations": [2, 1], "strides": [1, 2], "pads": [1, 0, 0, 1]}
    check_grad("Col2Im", [values(rng, 1, 2 * 6, 4), at(5, 4), at(3, 2)], attrs, constants=[1, 2], dynamic=dynamic)
    check_grad("Col2Im", [values(rng, 1, 3 * 2, 4), at(5), at(2)], constants=[1, 2], dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
def test_center_crop_pad(dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    for size in ([2, 7], [5, 3], [3, 4], [6, 5]):
        check_grad("CenterCropPad", [values(rng, 3, 4), at(*size)], constants=[1], dynamic=dynamic)
        check_grad("CenterCropPad", [values(rng, 4, 2, 3), at(*size)], {"axes": [-1, 0]}, dynamic=dynamic)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    x = values(np.random.default_rng(0), 1, 2, 3, 4)
    check_grad("Upsample", [x, np.array([1, 1, 2, 1.5], np.float32)], {"mode": mode}, opset=9, constants=[1])
    check_grad("Upsample", [x], {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]}, opset=7)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_forms(mode: str) -> None:
    rng = np.random.default_rng(0)
    scales = np.array([1, 1, 2, 0.6], np.float32)
    for attrs in ({"antialias": 1}, {"exclude_outside": 1}, {"cubic_coeff_a": -0.5}, {"coordinate_transformation_mode": "half_pixel_symmetric"}):
        if (mode == "nearest" and "antialias" in attrs) or (mode == "linear" and "exclude_outside" in attrs and "antialias" not in attrs):
            continue
        check_grad("Resize", [values(rng, 1, 2, 4, 5), None, scales], {"mode": mode, **attrs}, constants=[2])
    check_grad("Resize", [values(rng, 4, 5), None, None, at(7)], {"mode": mode, "axes": [1]}, constants=[3])
    check_grad("Resize", [values(rng, 1, 1, 4, 5), None, None, at(6, 7)], {"mode": mode, "axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
               constants=[3])  # fmt: skip
    roi = np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 1.2])
    attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize"}
    check_grad("Resize", [values(rng, 1, 2, 4, 5), roi, None, at(1, 2, 3, 4)], attrs, constants=[1, 3])
    check_grad("Resize", [values(rng, 1, 2, 3, 4), np.array([1, 1, 2, 1.5], np.float32)], {"mode": mode} if mode != "cubic" else {}, opset=10, constants=[1])


HALF_OPS: list[tuple[str, list[Any], dict[str, Any], int]] = [
    ("GridSample", [(1, 2, 4, 3), (1, 2, 3, 2)], {}, 2),
    ("RoiAlign", [(1, 2, 5, 6), np.array([[0.2, 0.3, 3.3, 4.1]]), at(0)], {"output_height": 2, "output_width": 2}, 2),
    ("MaxRoiPool", [(1, 2, 5, 6), np.array([[0, 0.2, 0.3, 3.3, 4.1]])], {"pooled_shape": [2, 2]}, 1),
    ("LRN", [(1, 5, 2)], {"size": 3}, 1),
    ("LpPool", [(1, 2, 6)], {"kernel_shape": [2]}, 1),
    ("Pad", [(3, 4), at(1, 0, 0, 2)], {"mode": "reflect"}, 1),
    ("Resize", [(1, 1, 3, 4), None, None, at(1, 1, 5, 6)], {"mode": "linear"}, 1),
    ("Det", [(2, 3, 3)], {}, 1),
    ("DFT", [(2, 5, 2)], {}, 1),
    ("Einsum", [(2, 2, 3), (3,)], {"equation": "iij,j->i"}, 2),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("op,inputs,attrs,count", HALF_OPS)
def test_narrow_types(op: str, inputs: list[Any], attrs: dict[str, Any], count: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    drawn = [values(rng, *v) if isinstance(v, tuple) else v for v in inputs]
    narrow = [v.astype(dtype) if v is not None and v.dtype == np.float64 else v for v in drawn]
    rounded = [v.astype(np.float64) if v is not None and v.dtype == dtype else v for v in narrow]
    tolerance = 1e-5 if dtype == np.float32 else 2e-2
    wrt = list(range(count))
    for got, expected in zip(gradients(op, narrow, attrs, wrt), gradients(op, rounded, attrs, wrt), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(float), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_nothing() -> None:
    """Empty tensors have empty gradients, or zeros."""
    rng = np.random.default_rng(0)
    none, four = np.zeros((0, 4)), {"output_height": 2, "output_width": 2}
    for op, inputs, attrs, wrt in [
        ("GridSample", [np.zeros((0, 2, 3, 4)), np.zeros((0, 2, 2, 2))], {}, [0, 1]),
        ("GridSample", [np.zeros((1, 0, 3, 4)), np.zeros((1, 2, 2, 2))], {}, [0, 1]),
        ("GridSample", [values(rng, 1, 2, 3, 4), np.zeros((1, 0, 2, 2))], {}, [0, 1]),
        ("RoiAlign", [values(rng, 1, 2, 3, 4), none, np.zeros(0, np.int64)], four, [0, 1]),
        ("RoiAlign", [np.zeros((1, 2, 0, 4)), np.array([[0.0, 0.0, 3.0, 3.0]]), np.zeros(1, np.int64)], four, [0, 1]),
        ("MaxRoiPool", [np.zeros((1, 2, 0, 4)), np.array([[0.0, 0.0, 0.0, 3.0, 3.0]])], {"pooled_shape": [2, 2]}, [0]),
        ("MaxRoiPool", [values(rng, 1, 2, 3, 4), np.zeros((0, 5))], {"pooled_shape": [2, 2]}, [0]),
        ("LRN", [np.zeros((0, 3, 2))], {"size": 3}, [0]),
        ("Pad", [np.zeros((0, 2)), at(0, 1, 0, 1)], {"mode": "edge"}, [0]),
        ("Det", [np.zeros((2, 0, 0))], {}, [0]),
        ("Det", [np.zeros((0, 2, 2))], {}, [0]),
        ("DFT", [np.zeros((0, 4, 2))], {}, [0]),
        ("CumProd", [np.zeros((2, 0)), np.array(1)], {}, [0]),
        ("Einsum", [np.zeros((0, 3)), values(rng, 3, 2)], {"equation": "ij,jk->ik"}, [0, 1]),
        ("Einsum", [np.zeros((2, 0)), np.zeros((0, 2))], {"equation": "ij,jk->ik"}, [0, 1]),
    ]:
        got = gradients(op, inputs, attrs, wrt, opset=26 if op == "CumProd" else None)
        for i, g in zip(wrt, got, strict=True):
            assert g.shape == inputs[i].shape and not g.any(), op


def test_indices_outside_are_errors() -> None:
    x, rois = np.zeros((1, 1, 4, 4)), np.array([[0.0, 0.0, 3.0, 3.0]])
    for op, inputs, attrs in [
        ("RoiAlign", [x, rois, at(3)], {}),
        ("MaxRoiPool", [x, np.array([[2.0, 0, 0, 1, 1]])], {"pooled_shape": [1, 1]}),
        ("ScatterElements", [x[0, 0], np.array([[7]]), np.zeros((1, 1))], {"reduction": "max"}),
    ]:
        with pytest.raises(Exception, match=rf'{op}.*the_{op}'):
            gradients(op, inputs, attrs, [0])
