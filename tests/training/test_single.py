"""The float forms of the structured gradients against their double forms, which test_gradients.py holds against central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tiercel
from oracle import one_node
from tiercel import _core


def compare(
    op: str,
    inputs: list[Any],
    attrs: dict[str, Any] | None = None,
    outputs: int = 1,
    constants: tuple[int, ...] = (),
    rtol: float = 2e-5,
) -> None:
    results = []
    for dtype in (np.float64, np.float32):
        cast = [
            x.astype(np.float32).astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
            for x in inputs
        ]
        model, feeds, _ = one_node(op, cast, attrs, 23, "", outputs, constants)
        asked = [f"x{i}" for i, x in enumerate(cast) if x.dtype == dtype and i not in constants]
        data = _core.gradient_model(_squared(model), "", [], asked)
        for threads in (1, 2):
            options = tiercel.SessionOptions()
            options.intra_op_num_threads = threads
            session = tiercel.InferenceSession(data, options)
            results.append(session.run([f"gradient of {n}" for n in asked], feeds))
    for wide, _, one, two in zip(*results, strict=True):
        np.testing.assert_allclose(
            one, wide, rtol=rtol, atol=rtol * max(1.0, float(np.abs(wide).max(initial=0))), err_msg=op
        )
        np.testing.assert_array_equal(one, two)


def _squared(model: Any) -> bytes:
    """With the outputs squared, so that what comes back is not all ones."""
    import onnx
    from onnx import helper

    names = [o.name for o in model.graph.output]
    del model.graph.output[:]
    for n in names[:1]:
        model.graph.node.append(helper.make_node("Mul", [n, n], [f"{n}_squared"]))
        model.graph.output.append(onnx.ValueInfoProto(name=f"{n}_squared"))
    return model.SerializeToString()


@pytest.mark.parametrize("seed", range(40))
def test_conv(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank, groups = seed % 3 + 1, int(rng.choice([1, 1, 2, 3]))
    draw = lambda low, high: rng.integers(low, high, rank).tolist()  # noqa: E731
    kernel, dilation, stride = draw(1, 5), draw(1, 3), draw(1, 4)
    reach = [(k - 1) * f + 1 for k, f in zip(kernel, dilation, strict=True)]
    pads = [int(rng.integers(0, r)) for r in reach * 2]
    space = [int(rng.integers(0, 9)) + r for r in reach]
    channels, outputs = int(rng.integers(1, 21)) * groups, int(rng.integers(1, 40)) * groups
    attrs = {"kernel_shape": kernel, "dilations": dilation, "strides": stride, "pads": pads, "group": groups}
    inputs = [
        rng.standard_normal((int(rng.choice([1, 3, 70])), channels, *space)),
        rng.standard_normal((outputs, channels // groups, *kernel)),
        rng.standard_normal(outputs),
    ]
    compare("Conv", inputs, attrs)


@pytest.mark.parametrize("seed", range(12))
def test_conv_of_small_images(seed: int) -> None:
    """Fewer pixels in all than outputs: products that read the weights as they lie."""
    rng = np.random.default_rng(seed)
    rank, groups = seed % 3 + 1, int(rng.choice([1, 1, 2]))
    kernel, dilation, stride = (rng.integers(1, high, rank).tolist() for high in (4, 3, 3))
    reach = [(k - 1) * f + 1 for k, f in zip(kernel, dilation, strict=True)]
    pads = [int(rng.integers(0, r)) for r in reach * 2]
    space = [int(rng.integers(0, 2)) + r for r in reach]
    channels, outputs = int(rng.integers(16, 40)), int(rng.integers(60, 140))
    attrs = {"kernel_shape": kernel, "dilations": dilation, "strides": stride, "pads": pads, "group": groups}
    inputs = [
        rng.standard_normal((2, channels * groups, *space)),
        rng.standard_normal((outputs * groups, channels, *kernel)),
        rng.standard_normal(outputs * groups),
    ]
    compare("Conv", inputs, attrs)


def test_conv_of_more_images_than_a_slab() -> None:
    rng = np.random.default_rng(0)
    compare(
        "Conv",
        [rng.standard_normal((40, 16, 64, 64)), rng.standard_normal((8, 16, 3, 3))],
        {"pads": [1] * 4, "strides": [2, 2]},
        rtol=1e-4,
    )
    compare("Conv", [rng.standard_normal((9, 32, 30, 31)), rng.standard_normal((32, 1, 3, 3))], {"group": 32})


@pytest.mark.parametrize("kernel,stride,pad", [(2, 2, 0), (3, 2, 0), (3, 1, 1), (5, 3, 2), (1, 2, 0)])
def test_pools(kernel: int, stride: int, pad: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 20 * 17 * 19).reshape(2, 20, 17, 19).astype(np.float64) / 1000
    attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    compare("MaxPool", [x], attrs)
    compare("AveragePool", [x], attrs)


def test_norms() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 19, 7, 9))
    stats = [rng.standard_normal(19), rng.standard_normal(19), rng.standard_normal(19), rng.uniform(0.5, 2, 19)]
    compare("BatchNormalization", [x, *stats], {"training_mode": 1}, constants=(3, 4))
    compare("BatchNormalization", [x, *stats], {}, constants=(3, 4))
    rows = rng.standard_normal((70, 5, 133))
    compare("LayerNormalization", [rows, rng.standard_normal(133), rng.standard_normal(133)])
    compare("RMSNormalization", [rows, rng.standard_normal(133)])


def test_softmax_and_losses() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((33, 70, 3))
    for axis in (0, 1, 2):
        compare("Softmax", [x], {"axis": axis})
        compare("LogSoftmax", [x], {"axis": axis})
    compare("SoftmaxCrossEntropyLoss", [x, rng.integers(0, 70, (33, 3))], {})


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Gelu", "Mish", "Sigmoid", "Tanh", "Erf"])  # fmt: skip
def test_activations(op: str) -> None:
    compare(op, [np.random.default_rng(0).uniform(-6, 6, (77, 53))])


def test_products() -> None:
    rng = np.random.default_rng(0)
    compare("MatMul", [rng.standard_normal((3, 33, 65)), rng.standard_normal((65, 47))])
    compare("MatMul", [rng.standard_normal((3, 4, 33, 65)), rng.standard_normal((4, 65, 47))])
    compare(
        "Gemm", [rng.standard_normal((33, 65)), rng.standard_normal((47, 65)), rng.standard_normal(47)], {"transB": 1}
    )
    compare("Gather", [rng.standard_normal((50, 300)), rng.integers(-50, 50, (7, 9))])
