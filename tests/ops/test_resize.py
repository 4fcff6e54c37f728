"""Resize and Upsample against onnx's reference evaluator, and onnxruntime where only it has the old forms."""

import itertools

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import tiercel
from oracle import against_onnxruntime, check, evaluate, one_node

RNG = np.random.default_rng(8)
MODES = ["nearest", "linear", "cubic"]
COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


def rand(*shape, dtype="float32"):
    return (RNG.standard_normal(shape) * 50).astype(dtype)


def sizes(*v):
    return np.array(v, np.int64)


def scales(*v):
    return np.array(v, np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_coordinates(mode, coordinates):
    for h, w in [(7, 11), (3, 2), (14, 4), (9, 1)]:
        attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
        if coordinates == "pytorch_half_pixel" and mode == "cubic" and w == 1:
            continue  # the reference evaluator takes -0.5 there, the text 0
        check("Resize", [rand(2, 3, 6, 5), None, None, sizes(2, 3, h, w)], attrs, 19, ulp=64, atol=1e-3)
    check("Resize", [rand(1, 2, 4, 6), None, scales(1, 1, 2.5, 0.5)], attrs, 19, ulp=64, atol=1e-3)


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(nearest):
    for coordinates, opset in itertools.product(("half_pixel", "asymmetric", "align_corners"), (11, 13, 18)):
        attrs = {"mode": "nearest", "nearest_mode": nearest, "coordinate_transformation_mode": coordinates}
        roi = np.zeros(0, np.float32)
        against_onnxruntime("Resize", [rand(1, 3, 5, 8), roi, scales(1, 1, 2, 3)], attrs, opset)
        if opset >= 13:
            against_onnxruntime("Resize", [rand(1, 3, 8, 6), None, None, sizes(1, 3, 3, 4)], attrs, opset)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int8", "int32", "int64", "bool", "str"])
def test_types(dtype):
    if dtype == "str":
        x = np.array([f"s{i}" for i in range(12)], object).reshape(1, 1, 3, 4)
        check("Resize", [x, None, scales(1, 1, 2, 2)], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 19,
              expected=[x.repeat(2, 2).repeat(2, 3)])
        return
    x = rand(1, 2, 5, 6, dtype=dtype) if dtype != "bool" else rand(1, 2, 5, 6) > 0
    want = x.repeat(2, 2).repeat(3, 3)
    check("Resize", [x, None, scales(1, 1, 2, 3)], {"mode": "nearest"}, 19, expected=[want])
    if dtype != "bool":
        for mode in ("linear", "cubic"):
            inputs = [x, None, None, sizes(1, 2, 9, 4)]
            model, feeds, names = one_node("Resize", inputs, {"mode": mode}, 19)
            want = ReferenceEvaluator(model).run(names, feeds)[0]
            (got,) = evaluate(model, inputs)
            assert got.dtype == want.dtype
            # a half may round either way: the axes can be taken in any order
            np.testing.assert_allclose(got.astype("f8"), want.astype("f8"), atol={"float64": 1e-3, "float16": 0.2}.get(dtype, 1), rtol=0)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_antialias(mode, exclude):
    for h, w in [(3, 4), (20, 2), (7, 30)]:
        attrs = {"mode": mode, "antialias": 1, "exclude_outside": exclude}
        check("Resize", [rand(1, 2, 12, 10), None, None, sizes(1, 2, h, w)], attrs, 19, ulp=64, atol=1e-3)
    check("Resize", [rand(1, 2, 12, 10), None, scales(1, 1, 0.3, 0.6)], attrs, 18, ulp=64, atol=1e-3)


def test_other_ranks_and_axes():
    check("Resize", [rand(2, 3, 7), None, scales(1, 1, 2)], {"mode": "linear"}, 19, ulp=64, atol=1e-3)
    check("Resize", [rand(9), None, None, sizes(4)], {"mode": "cubic"}, 19, ulp=64, atol=1e-3)
    check("Resize", [rand(1, 2, 3, 4, 5), None, None, sizes(1, 2, 6, 3, 9)], {"mode": "linear"}, 19, ulp=64, atol=1e-3)
    check("Resize", [rand(2, 5, 6, 3), None, scales(1, 2, 1.5, 1)], {"mode": "linear"}, 19, ulp=64, atol=1e-3)  # channels last
    check("Resize", [rand(2, 5, 6, 3), None, None, sizes(2, 9, 3, 3)], {"mode": "nearest"}, 19)
    x = rand(4, 5, 6)
    model, _, _ = one_node("Resize", [x, None, None, sizes(9, 3)], {"mode": "cubic", "axes": [0, 2]}, 18)
    want = evaluate(model, [x, None, None, sizes(9, 3)])
    check("Resize", [x, None, None, sizes(3, 9)], {"mode": "cubic", "axes": [2, 0]}, 18, expected=want)
    for policy in ("not_larger", "not_smaller"):
        check("Resize", [rand(1, 1, 2, 4), None, None, sizes(7, 8)], {"mode": "nearest", "axes": [2, 3], "keep_aspect_ratio_policy": policy}, 18)


def test_crop():
    roi = np.array([0, 0, 0.2, -0.1, 1, 1, 0.9, 1.2], np.float32)
    for mode in MODES:
        attrs = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": -7.0}
        check("Resize", [rand(1, 2, 8, 9), roi, None, sizes(1, 2, 5, 6)], attrs, 13, ulp=64, atol=1e-3)
        check("Resize", [rand(1, 2, 8, 9), roi, None, sizes(1, 2, 1, 9)], attrs, 13, ulp=64, atol=1e-3)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_forms(mode):
    x = rand(1, 2, 4, 6)
    for factors in [(1, 1, 2, 2), (1, 1, 1.5, 3), (1, 1, 0.5, 0.6)]:
        against_onnxruntime("Resize", [x, scales(*factors)], {"mode": mode}, 10, ulp=64, atol=1e-3)
        if min(factors) >= 1:
            against_onnxruntime("Upsample", [x, scales(*factors)], {"mode": mode}, 9, ulp=64, atol=1e-3)
            against_onnxruntime("Upsample", [x], {"mode": mode, "scales": [float(f) for f in factors]}, 7, ulp=64, atol=1e-3)


def test_sizes_follow_onnxruntime():
    """Ten at 0.7 is 7: the product is taken in float."""
    against_onnxruntime("Resize", [rand(1, 1, 10, 5), None, scales(1, 1, 0.7, 0.6)], {"mode": "nearest"}, 13)


def test_larger_images_with_threads():
    x = rand(3, 5, 64, 70)
    for mode, coordinates in [("linear", "half_pixel"), ("cubic", "align_corners"), ("nearest", "asymmetric")]:
        model, feeds, names = one_node("Resize", [x, None, None, sizes(3, 5, 150, 133)], {"mode": mode, "coordinate_transformation_mode": coordinates}, 19)
        results = []
        for threads in (1, 2):
            options = tiercel.SessionOptions()
            options.intra_op_num_threads = threads
            results.append(tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)[0])
        np.testing.assert_array_equal(*results)
        check("Resize", [x, None, None, sizes(3, 5, 150, 133)], {"mode": mode, "coordinate_transformation_mode": coordinates}, 19, ulp=64, atol=1e-3, ways=["node"])


def test_empty():
    check("Resize", [rand(0, 2, 3, 4), None, scales(1, 1, 2, 2)], {"mode": "linear"}, 19, expected=[np.zeros((0, 2, 6, 8), "float32")])
    check("Resize", [rand(1, 2, 3, 4), None, None, sizes(1, 2, 0, 4)], {"mode": "nearest"}, 19, expected=[np.zeros((1, 2, 0, 4), "float32")])


@pytest.mark.parametrize(
    ("inputs", "attrs", "match"),
    [
        ([rand(1, 1, 2, 2), None, scales(1, 1, 0, 2)], {}, "above 0"),
        ([rand(1, 1, 2, 2), None, scales(1, 1, -2, 2)], {}, "above 0"),
        ([rand(1, 1, 2, 2), None, scales(1, 1, np.nan, 2)], {}, "above 0"),
        ([rand(1, 1, 2, 2), None, scales(1, 2)], {}, "entries"),
        ([rand(1, 1, 2, 2), None, scales(1, 1, 1e9, 1e9)], {}, "memory|large"),
        ([rand(1, 1, 2, 2), None, None, sizes(1, 1, -1, 2)], {}, "out of range"),
        ([rand(1, 1, 2, 2), None, None, sizes(1, 1, 2**40, 2)], {}, "out of range"),
        ([rand(1, 1, 2, 2), None, None, sizes(1, 2)], {}, "entries"),
        ([rand(1, 1, 2, 2)], {}, "neither"),
        ([rand(1, 1, 0, 2), None, None, sizes(1, 1, 2, 2)], {}, "empty"),
        ([rand(1, 1, 2, 2), None, scales(1, 1, 2, 2)], {"mode": "area"}, "mode"),
        ([rand(1, 1, 2, 2), None, scales(1, 1, 2, 2)], {"coordinate_transformation_mode": "x"}, "known"),
        ([rand(1, 1, 2, 2), None, scales(2, 2)], {"axes": [1, 1]}, "twice"),
        ([rand(1, 1, 2, 2), None, scales(2, 2)], {"axes": [1, 4]}, "outside"),
    ],
)
def test_errors(inputs, attrs, match):
    model, feeds, names = one_node("Resize", inputs, attrs, 19)
    with pytest.raises(Exception, match=match):
        evaluate(model, inputs)
    with pytest.raises(Exception, match=match):
        tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
