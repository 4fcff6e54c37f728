"""RoiAlign of maps as they lie after a convolution, in blocks of channels, and of plain ones."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import tiercel
from oracle import compare, onnxruntime_result


def regions(rng, n, size):
    """Some reach outside, one covers all. (None are turned around: onnxruntime does not come back from those without a sampling ratio.)"""
    corners = rng.uniform(-0.3, 1.3, (n, 4)) * size
    corners[:, 2:] = corners[:, :2] + rng.uniform(0.01, 0.8, (n, 2)) * size
    corners[0] = (0, 0, size, size)
    return corners.astype(np.float32)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 2, 5])
@pytest.mark.parametrize("channels, height, width", [(3, 9, 14), (16, 1, 1), (40, 20, 17), (70, 6, 40)])
def test_maps_plain_and_in_blocks(channels, height, width, ratio, mode):
    rng = np.random.default_rng(channels + ratio)
    x = rng.standard_normal((2, channels, height, width)).astype(np.float32)
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    for count, where in ((1, "half_pixel"), (9, "output_half_pixel"), (60, "half_pixel"), (0, "half_pixel")):
        rois, images = regions(rng, max(count, 1), 8 * max(height, width))[:count], rng.integers(0, 2, count)
        attrs = {"mode": mode, "sampling_ratio": ratio, "output_height": 5, "output_width": 3, "spatial_scale": 0.125, "coordinate_transformation_mode": where}
        (want,) = onnxruntime_result("RoiAlign", [x, rois, images], attrs, 16) if count else (np.zeros((0, channels, 5, 3), np.float32),)
        for blocked in (False, True):
            nodes = [helper.make_node("Conv", ["x", "eye"], ["maps"])] if blocked else []
            nodes += [helper.make_node("RoiAlign", ["maps" if blocked else "x", "rois", "images"], ["r"], **attrs), helper.make_node("Relu", ["r"], ["y"])]
            graph = helper.make_graph(
                nodes, "g", [helper.make_tensor_value_info("x", 1, list(x.shape)), helper.make_tensor_value_info("rois", 1, ["n", 4]),
                             helper.make_tensor_value_info("images", 7, ["n"])],
                [helper.make_tensor_value_info(n, 1, None) for n in ("r", "y")], [numpy_helper.from_array(eye, "eye")])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8).SerializeToString()
            results = []
            for threads in (1, 3):
                options = tiercel.SessionOptions()
                options.intra_op_num_threads = threads
                results.append(tiercel.InferenceSession(model, options).run(None, {"x": x, "rois": rois, "images": images}))
            compare(results[0], [want, np.maximum(want, 0)], 64, 1e-4)
            assert all(a.tobytes() == b.tobytes() for a, b in zip(*results, strict=True))
