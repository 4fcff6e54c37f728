"""Operators on images, one after the other as they stand in models."""

from __future__ import annotations

from typing import Any

import numpy as np
from draw_activations import activation_of
from drawing import Drawing


def conv(d: Drawing) -> None:
    x = d.of_rank(3, 4, 5)
    if not x:
        return
    shape = d.shapes[x]
    n, c, *space = shape
    groups = d.pick([1, 1, 1, c, *(g for g in (2, 3, 4) if c % g == 0)])
    out = groups * int(d.rng.integers(1, max(2, 36 // groups)))
    if groups == c and d.chance(0.7):
        out = c
    kernel = [int(d.rng.integers(1, min(4, s) + 1)) for s in space]
    if d.chance(0.3):
        kernel = [1] * len(space)
    dilations = [int(d.rng.integers(1, 3)) if k * 2 - 1 <= s else 1 for k, s in zip(kernel, space, strict=True)]
    strides = [int(d.rng.integers(1, 3)) for _ in space]
    pads = [int(d.rng.integers(0, 2)) for _ in range(2 * len(space))]
    if d.chance(0.3):
        same = [(k - 1) * spread for k, spread in zip(kernel, dilations, strict=True)]
        pads = [s // 2 for s in same] + [s - s // 2 for s in same]
        strides = [1] * len(space)
    source = x
    if d.chance(0.15):  # a Pad before it
        extra = [int(d.rng.integers(0, 2)) for _ in range(2 * len(space))]
        k = len(space)
        full = [0, 0, *extra[:k], 0, 0, *extra[k:]]
        source = d.hidden("Pad", [x, d.const(full, "int64"), d.const(d.pick([0, 0, 0.5]))], mode=d.pick(["constant", "constant", "constant", "edge"]))
        space = [s + a + b for s, a, b in zip(space, extra[:k], extra[k:], strict=True)]
    k = len(space)
    got = [(s + pads[i] + pads[i + k] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i, s in enumerate(space)]
    if min(got) < 1:
        return
    inputs = [source, d.weights(out, c // groups, *kernel)]
    if d.chance(0.6):
        inputs.append(d.vector(out))
    y_shape = (n, out, *got)
    y = d.emit("Conv", inputs, y_shape, kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations, group=groups)
    if d.chance(0.4):
        y = d.emit("BatchNormalization", [y, d.positive(out), d.vector(out), d.vector(out), d.positive(out)], y_shape, epsilon=1e-3)
    if d.chance(0.3) and (z := d.of_shape(y_shape, y)):
        y = d.two("Add", y, z, y_shape)
    if d.chance(0.6):
        activation_of(d, y)


def conv_transpose(d: Drawing) -> None:
    x = d.of_rank(3, 4)
    if not x:
        return
    n, c, *space = d.shapes[x]
    if np.prod(space) > 300:
        return
    groups = d.pick([1, 1, *(g for g in (2, 4) if c % g == 0)])
    out = groups * int(d.rng.integers(1, 12))
    kernel = [int(d.rng.integers(1, 4)) for _ in space]
    strides = [int(d.rng.integers(1, 3)) for _ in space]
    extra = [int(d.rng.integers(0, s)) for s in strides]
    got = [(s - 1) * st + k + e for s, st, k, e in zip(space, strides, kernel, extra, strict=True)]
    inputs = [x, d.weights(c, out // groups, *kernel, scale=0.5)] + ([d.vector(out)] if d.chance(0.5) else [])
    y = d.emit("ConvTranspose", inputs, (n, out, *got), kernel_shape=kernel, strides=strides, output_padding=extra, group=groups)
    if d.chance(0.4):
        y = d.emit("BatchNormalization", [y, d.positive(out), d.vector(out), d.vector(out), d.positive(out)], d.shapes[y])
    if d.chance(0.5):
        activation_of(d, y)


def affine(d: Drawing) -> None:
    x = d.of_rank(3, 4)
    if not x:
        return
    s = d.shapes[x]
    channel = (s[1], *([1] * (len(s) - 2)))
    y = d.emit("Mul", [x, d.positive(*channel)], s)
    y = d.emit("Add", [y, d.vector(*channel)], s)
    if d.chance(0.4):
        activation_of(d, y)


def pool(d: Drawing) -> None:
    x = d.of_rank(3, 4, 5)
    if not x:
        return
    n, c, *space = d.shapes[x]
    op = d.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    if op.startswith("Global"):
        y = d.emit(op, [x], (n, c, *([1] * len(space))))
        if d.chance(0.6):  # squeeze and excite
            hidden = int(d.rng.integers(1, 9))
            k = [1] * len(space)
            t = d.hidden("Relu", [d.hidden("Conv", [y, d.weights(hidden, c, *k), d.vector(hidden)])])
            t = d.hidden("Conv", [t, d.weights(c, hidden, *k)])
            gate = d.hidden(d.pick(["Sigmoid", "HardSigmoid"]), [t])
            d.two("Mul", x, gate, d.shapes[x])
        return
    kernel = [int(d.rng.integers(1, min(3, s) + 1)) for s in space]
    strides = [int(d.rng.integers(1, 3)) for _ in space]
    pads = [int(d.rng.integers(0, max(1, k))) if k > 1 and d.chance(0.5) else 0 for k in kernel * 2]
    ceil = int(d.chance(0.4))
    got = []
    for i, s in enumerate(space):
        span = s + pads[i] + pads[i + len(space)] - kernel[i]
        o = (span + (strides[i] - 1 if ceil else 0)) // strides[i] + 1
        if ceil and (o - 1) * strides[i] >= s + pads[i]:
            o -= 1
        got.append(o)
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": ceil}
    if op == "AveragePool":
        attrs["count_include_pad"] = int(d.chance(0.5))
        if ceil:  # onnxruntime counts the overhang below opset 19
            attrs["count_include_pad"] = 0
    d.emit(op, [x], (n, c, *got), **attrs)


def resize(d: Drawing) -> None:
    x = d.of_rank(3, 4)
    if not x:
        return
    n, c, *space = d.shapes[x]
    if np.prod(space) > 200:
        return
    sizes = [int(d.rng.integers(1, 2 * s + 2)) for s in space] if d.chance(0.5) else [2 * s for s in space]
    mode = d.pick(["nearest", "linear", "linear"])
    how = d.pick(["half_pixel", "asymmetric", "align_corners"] if mode == "linear" else ["half_pixel", "asymmetric"])
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": how}
    if mode == "nearest":
        attrs["nearest_mode"] = d.pick(["floor", "round_prefer_floor"])
    d.emit("Resize", [x, "", "", d.const([n, c, *sizes], "int64")], (n, c, *sizes), **attrs)


def pad(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    mode = d.pick(["constant", "constant", "edge", "reflect"])
    pads = [int(d.rng.integers(0, 3)) if d.chance(0.4) else 0 for _ in range(2 * len(s))]
    if mode == "reflect":
        pads = [min(p, s[i % len(s)] - 1) for i, p in enumerate(pads)]
    target = tuple(e + pads[i] + pads[i + len(s)] for i, e in enumerate(s))
    d.emit("Pad", [x, d.const(pads, "int64"), d.const(d.pick([0.0, 1.5]))], target, mode=mode)
