"""Cases of layers: convolutions, pools, norms, losses, images, transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from grad_cases import TIERCEL, Case, Draw, case


def at(*v: int) -> np.ndarray:
    return np.array(v, np.int64)


def of_rank(t: Any, name: str, rank: int) -> Any:
    """PyTorch's function for 1, 2 or 3 spatial axes."""
    return getattr(t.nn.functional, f"{name}{rank}d")


@case("Conv", "ConvTranspose")
def convolution(d: Draw, op: str) -> Case:
    rank, group = int(d.rng.integers(1, 4)), int(d.rng.choice([1, 2]))
    kernel, stride, dilation = (d.rng.integers(1, 4, rank).tolist() for _ in range(3))
    reach = [(k - 1) * f + 1 for k, f in zip(kernel, dilation, strict=True)]
    pads = [int(d.rng.integers(0, (r + 1) // 2)) for r in reach]
    space = [int(d.rng.integers(0, 3)) + r for r in reach]
    attrs = {"strides": stride, "dilations": dilation, "pads": pads * 2, "group": group}
    transposed = op == "ConvTranspose"
    weight = d.any(2 * group, 3, *kernel) if transposed else d.any(3 * group, 2, *kernel)
    inputs = [d.any(2, 2 * group, *space), weight, d.any(3 * group)]
    more = (0, group, dilation) if transposed else (dilation, group)
    return Case(inputs, attrs, lambda t, x, w, b: of_rank(t, "conv_transpose" if transposed else "conv", rank)(x, w, b, stride, pads, *more))


@case("MaxPool", "AveragePool", "LpPool")
def pool(d: Draw, op: str) -> Case:
    rank = int(d.rng.integers(1, 4 if op != "LpPool" else 3))
    kernel, stride = d.rng.integers(2, 4, rank).tolist(), d.rng.integers(1, 3, rank).tolist()
    pads = [0 if op == "LpPool" else int(d.rng.integers(0, 2)) for _ in kernel]
    x = d.distinct(2, 3, *(k + int(d.rng.integers(0, 4)) for k in kernel))
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": stride, "pads": pads * 2}
    if op == "LpPool":
        return Case([x], {**attrs, "p": 2}, lambda t, x: of_rank(t, "lp_pool", rank)(x, 2.0, *(v if rank > 1 else v[0] for v in (kernel, stride))))
    padded = int(d.rng.integers(2))
    if op == "MaxPool":
        return Case([x], attrs, lambda t, x: of_rank(t, "max_pool", rank)(x, kernel, stride, pads))
    return Case([x], {**attrs, "count_include_pad": padded}, lambda t, x: of_rank(t, "avg_pool", rank)(x, kernel, stride, pads, False, bool(padded)))


GLOBAL = {
    "GlobalAveragePool": lambda t, x, axes: x.mean(axes, True),
    "GlobalMaxPool": lambda t, x, axes: x.amax(axes, True),
    "GlobalLpPool": lambda t, x, axes: (x * x).sum(axes, True).sqrt(),
}


@case(*GLOBAL)
def whole(d: Draw, op: str) -> Case:
    shape = (2, 3, *d.rng.integers(1, 5, d.rng.integers(1, 4)).tolist())
    return Case([d.distinct(*shape)], {}, lambda t, x: GLOBAL[op](t, x, tuple(range(2, x.ndim))))


@case("MaxUnpool")
def unpooled(d: Draw, op: str) -> Case:
    places = np.stack([d.rng.permutation(24)[:6].reshape(2, 3) + 24 * c for c in range(2)])[None]
    attrs = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return Case([d.any(1, 2, 2, 3), places], attrs, lambda t, x, i: t.nn.functional.max_unpool2d(x, i % 24, 2, 2))


@case("Col2Im")
def folded(d: Draw, op: str) -> Case:
    c = int(d.rng.integers(1, 4))
    return Case([d.any(2, c * 4, 6), at(3, 4), at(2, 2)], {}, lambda t, x, *_: t.nn.functional.fold(x, (3, 4), (2, 2)), constants=[1, 2])


@case("BatchNormalization")
def batch_norm(d: Draw, op: str) -> Case:
    training = int(d.rng.integers(2))
    inputs = [d.any(4, 3, *d.shape(0, 3)), d.any(3), d.any(3), d.any(3), d.positive(3)]
    eps = 1e-3

    def same(t: Any, x: Any, w: Any, b: Any, m: Any, v: Any) -> Any:
        return t.nn.functional.batch_norm(x, None if training else m, None if training else v, w, b, bool(training), 0.1, float(np.float32(eps)))

    return Case(inputs, {"training_mode": training, "epsilon": eps}, same, constants=[3, 4])


EPS = float(np.float32(1e-5))


@case("LayerNormalization", "RMSNormalization")
def norm_of_last(d: Draw, op: str) -> Case:
    shape = d.shape(2, 4)
    axis = int(d.rng.integers(-len(shape), 0))
    inner = shape[axis:]
    x, w, b = d.any(*shape[:-1], shape[-1] + 2), d.any(*inner[:-1], inner[-1] + 2), d.any(*inner[:-1], inner[-1] + 2)
    if op == "RMSNormalization":
        return Case([x, w], {"axis": axis}, lambda t, x, w: t.nn.functional.rms_norm(x, w.shape, w, EPS))
    return Case([x, w, b], {"axis": axis}, lambda t, x, w, b: t.nn.functional.layer_norm(x, w.shape, w, b, EPS))


@case("SimplifiedLayerNormalization")
@case("SimplifiedLayerNormalization", domain="com.microsoft")
def simplified(d: Draw, op: str) -> Case:
    n = int(d.rng.integers(2, 8))
    return Case([d.any(*d.shape(1, 3), n), d.any(n)], {"epsilon": EPS}, lambda t, x, w: t.nn.functional.rms_norm(x, w.shape, w, EPS), opset=1)


@case("InstanceNormalization", "GroupNormalization")
def norm_of_images(d: Draw, op: str) -> Case:
    inputs = [d.any(2, 6, *d.shape(1, 3), 3), d.any(6), d.any(6)]
    if op == "InstanceNormalization":
        return Case(inputs, {}, lambda t, x, w, b: t.nn.functional.instance_norm(x, None, None, w, b, True, 0.1, EPS))
    groups = int(d.rng.choice([1, 2, 3, 6]))
    return Case(inputs, {"num_groups": groups}, lambda t, x, w, b: t.nn.functional.group_norm(x, groups, w, b, EPS))


@case("LpNormalization")
def unit(d: Draw, op: str) -> Case:
    shape = d.shape(1, 4)
    axis, p = d.axis(len(shape)), int(d.rng.integers(1, 3))
    return Case([d.any(*shape)], {"axis": axis, "p": p}, lambda t, x: t.nn.functional.normalize(x, p, axis))


@case("MeanVarianceNormalization")
def centred(d: Draw, op: str) -> Case:
    return Case([d.any(2, 3, 4, 5)], {}, lambda t, x: (x - x.mean((0, 2, 3), True)) / (x.std((0, 2, 3), correction=0, keepdim=True) + 1e-9))


@case("LRN")
def local_response(d: Draw, op: str) -> Case:
    size = int(d.rng.choice([1, 3, 5]))
    alpha, beta, bias = 0.25 * size, 0.75, 1.5  # alpha / size is a float
    return Case([d.any(2, 5, *d.shape(1, 3))], {"size": size, "alpha": alpha, "beta": beta, "bias": bias},
                lambda t, x: t.nn.functional.local_response_norm(x, size, alpha, beta, bias))  # fmt: skip


@case("Softmax", "LogSoftmax")
def over_an_axis(d: Draw, op: str) -> Case:
    shape = d.shape(1, 4)
    axis = d.axis(len(shape))
    return Case([d.any(*shape)], {"axis": axis}, lambda t, x: x.softmax(axis) if op == "Softmax" else x.log_softmax(axis))


@case("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
def class_loss(d: Draw, op: str) -> Case:
    shape, reduction = d.shape(0, 3), str(d.rng.choice(["mean", "sum", "none"]))
    inputs = [d.any(3, 4, *shape), d.rng.integers(0, 4, (3, *shape)), d.positive(4)]
    name = "cross_entropy" if op == "SoftmaxCrossEntropyLoss" else "nll_loss"
    return Case(inputs, {"reduction": reduction, "ignore_index": 2},
                lambda t, x, y, w: getattr(t.nn.functional, name)(x, y, w, ignore_index=2, reduction=reduction), constants=[2])  # fmt: skip


@case("CtcLoss", domain=TIERCEL)
def ctc(d: Draw, op: str) -> Case:
    """Of log probabilities as they are, which PyTorch's own gradient takes for normalised: here by the sum over all ways."""
    inputs = [-d.positive(3, 6, 4), d.rng.integers(1, 4, (3, 2)), d.rng.integers(4, 7, 3), d.rng.integers(0, 3, 3)]

    def same(t: Any, x: Any, labels: Any, steps: Any, lengths: Any) -> Any:
        total = 0
        for sample in range(3):
            states = [0]
            for label in labels[sample, : lengths[sample]].tolist():
                states += [label, 0]
            never = t.tensor(-1e9, dtype=x.dtype)
            ways = [x[sample, 0, c] if s < 2 else never for s, c in enumerate(states)]
            for row in x[sample, 1 : int(steps[sample])]:
                jumps = [s > 1 and c != 0 and c != states[s - 2] for s, c in enumerate(states)]
                ways = [row[c] + t.stack([ways[s], ways[s - 1] if s else never, ways[s - 2] if jumps[s] else never]).logsumexp(0) for s, c in enumerate(states)]
            total = total - t.stack(ways[-2:]).logsumexp(0)
        return total

    return Case(inputs, {"reduction": "sum"}, same)


@case("Dropout")
def no_dropout(d: Draw, op: str) -> Case:
    return Case([d.any(*d.any_shape())], {}, lambda t, x: t.nn.functional.dropout(x, 0.5, False))


@case("Dropout", domain=TIERCEL)
def masked(d: Draw, op: str) -> Case:
    return Case([d.any(*d.any_shape()), np.array(0.4), np.array(3)], {"seed": 5}, constants=[1, 2])


@case("DequantizeLinear")
def scale(d: Draw, op: str) -> Case:
    x = d.rng.integers(-9, 9, (3, 4), np.int8)
    inputs = [x, d.positive(4).astype(np.float32), d.rng.integers(-3, 3, 4).astype(np.int8)]
    return Case(inputs, {"axis": -1}, lambda t, x, s, z: (x - z) * s, wrt=[1], check={"step": 2**-6, "rtol": 1e-3, "atol": 1e-3})


# ---- Images and signals


@case("Resize", "Upsample")
def resized(d: Draw, op: str) -> Case:
    mode = str(d.rng.choice(["nearest", "linear"]))
    x = d.any(1, 2, 3, 5)
    if op == "Upsample":
        return Case([x, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}, lambda t, x, _: t.nn.functional.interpolate(x, scale_factor=(2, 3)), constants=[1], opset=9)
    if mode == "nearest":
        attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return Case([x, None, None, at(1, 2, 6, 3)], attrs, lambda t, x, *_: t.nn.functional.interpolate(x, (6, 3)), constants=[3])
    corners = bool(d.rng.integers(2))
    attrs = {"mode": mode, "coordinate_transformation_mode": "align_corners" if corners else "half_pixel"}
    return Case([x, None, None, at(1, 2, 7, 4)], attrs, lambda t, x, *_: t.nn.functional.interpolate(x, (7, 4), mode="bilinear", align_corners=corners), constants=[3])


@case("GridSample")
def sampled(d: Draw, op: str) -> Case:
    padding, corners = str(d.rng.choice(["zeros", "border"])), int(d.rng.integers(2))
    place = d.rng.integers(-1, 5, (2, 3, 2, 2)) + d.rng.choice([0.2, 0.3, 0.7, 0.8], (2, 3, 2, 2))
    n = np.array([5, 4])
    grid = 2 * place / (n - 1) - 1 if corners else (2 * place + 1) / n - 1
    attrs = {"mode": "linear", "padding_mode": padding, "align_corners": corners}
    return Case([d.distinct(2, 3, 4, 5), grid], attrs, lambda t, x, g: t.nn.functional.grid_sample(x, g, "bilinear", padding, bool(corners)))


@case("AffineGrid")
def affine_grid(d: Draw, op: str) -> Case:
    corners = int(d.rng.integers(2))
    size = [2, 1, 3, 4] if d.rng.integers(2) else [2, 1, 3, 2, 4]
    n = len(size) - 2
    return Case([d.any(2, n, n + 1), at(*size)], {"align_corners": corners}, lambda t, x, _: t.nn.functional.affine_grid(x, size, bool(corners)), constants=[1])


@case("RoiAlign")
def rois(d: Draw, op: str) -> Case:
    boxes = np.sort(d.rng.integers(0, 5, (2, 2, 2)) + d.rng.uniform(0.2, 0.4, (2, 2, 2)), 1).reshape(2, 4)
    return Case([d.any(2, 3, 6, 5), boxes, at(1, 0)], {"output_height": 2, "output_width": 3, "sampling_ratio": 2}, constants=[1])


@case("MaxRoiPool")
def max_rois(d: Draw, op: str) -> Case:
    boxes = np.array([[0, 0.1, 0.2, 4.3, 5.2], [1, 1.1, 2.2, 3.3, 3.1]])
    return Case([d.distinct(2, 2, 6, 5), boxes], {"pooled_shape": [2, 3]}, wrt=[0])


@case("DFT")
def fourier(d: Draw, op: str) -> Case:
    n = int(d.rng.integers(3, 8))
    return Case([d.any(2, n, 3, 2), None, np.array(-3)], {}, lambda t, x, *_: t.view_as_real(t.fft.fft(t.view_as_complex(x), dim=1)), constants=[2])


@case("STFT")
def short_fourier(d: Draw, op: str) -> Case:
    hop = int(d.rng.integers(1, 5))
    inputs = [d.any(2, 14, 1), np.array(hop), d.positive(5)]

    def same(t: Any, x: Any, _: Any, w: Any) -> Any:
        return t.view_as_real(t.stft(x[..., 0], 5, hop, window=w, center=False, return_complex=True)).transpose(1, 2)

    return Case(inputs, {}, same, constants=[1])
