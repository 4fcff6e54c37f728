"""subpixel: transposed convolutions with few outputs become pointwise ones and DepthToSpace."""

import numpy as np
import pytest
from test_conv_passes import Build, check, rand


def transposed(channels, outputs, stride, *, kernel=None, activation=None, bias=True, bn=False, **attrs):
    b = Build()
    kernel = kernel or stride
    w = rand(channels, outputs, kernel, kernel) / np.float32(channels**0.5)
    y = b.op("ConvTranspose", b.conv("x", channels, channels, 3), w, *([rand(outputs)] if bias else []), strides=[stride] * 2, **attrs)
    if bn:
        y = b.bn(y, outputs)
    if activation:
        y = b.op(activation, y)
    return b, y


def shuffles(ops):
    """How many; the name carries the operator's version where that is not the model's."""
    return sum(n for op, n in ops.items() if op.startswith("DepthToSpace"))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("outputs", [1, 3, 4])
@pytest.mark.parametrize(("activation", "bias", "bn"), [(None, True, False), ("Relu", False, True), ("Sigmoid", True, True)])
def test_few_outputs(stride, outputs, activation, bias, bn, tmp_path):
    b, y = transposed(24, outputs, stride, activation=activation, bias=bias, bn=bn)
    ops = check(b, {"x": rand(2, 24, 9, 14)}, [y], tmp_path)
    assert shuffles(ops) == 1
    assert ops["ConvTranspose"] == 0


@pytest.mark.parametrize(
    ("outputs", "stride", "attrs"),
    [(24, 2, {}), (16, 2, {}), (1, 2, {"pads": [0, 1, 0, 0]}), (1, 2, {"output_padding": [1, 1]}), (1, 2, {"kernel": 3})],
)  # fmt: skip
def test_others_stay(outputs, stride, attrs, tmp_path):
    b, y = transposed(24, outputs, stride, **attrs)
    ops = check(b, {"x": rand(1, 24, 9, 14)}, [y], tmp_path)
    assert shuffles(ops) == 0
    assert ops["ConvTranspose"] == 1


def test_unknown_height_and_width(tmp_path):
    b, y = transposed(16, 1, 2)
    ops = check(b, {"x": rand(1, 16, 7, 5)}, [y], tmp_path, dynamic={("x", 0): "n", ("x", 2): "h", ("x", 3): "w"})
    assert shuffles(ops) == 1


