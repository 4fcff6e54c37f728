"""Gradients of one node against central differences in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import tiercel
from oracle import one_node
from tiercel import _core


def projected(
    model: onnx.ModelProto, names: Sequence[str], shapes: Sequence[Any], rng: np.random.Generator
) -> onnx.ModelProto:
    """The model with every float output multiplied by fixed random numbers: so no part of a gradient can cancel or hide."""
    graph = model.graph
    del graph.output[:]
    for name, (shape, dtype) in zip(names, shapes, strict=True):
        if dtype.kind != "f":
            continue
        factor = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        graph.initializer.append(numpy_helper.from_array(np.asarray(factor, dtype), f"factor_{name}"))
        graph.node.append(helper.make_node("Mul", [name, f"factor_{name}"], [f"projected_{name}"]))
        graph.output.append(onnx.ValueInfoProto(name=f"projected_{name}"))
    return model


def check_grad(
    op_type: str,
    inputs: Sequence[Any],
    attrs: dict[str, Any] | None = None,
    wrt: Sequence[int] | None = None,
    opset: int | None = None,
    domain: str = "",
    outputs: int | Sequence[bool] = 1,
    constants: Sequence[int] = (),
    dynamic: bool = False,
    step: float = 1e-5,
    rtol: float = 2e-6,
    atol: float = 2e-8,
    seed: int = 0,
) -> list[np.ndarray]:
    """Compares the gradient of every float64 input (or of `wrt`) with central differences. Returns the gradients."""
    rng = np.random.default_rng(seed)
    model, feeds, names = one_node(op_type, inputs, attrs, opset, domain, outputs, constants, dynamic)
    if domain:
        model.opset_import[1].version = 21
    results = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
    model = projected(model, names, [(r.shape, r.dtype) for r in results], rng)
    data = model.SerializeToString()
    forward = tiercel.InferenceSession(data)
    if wrt is None:
        wrt = [
            i
            for i, v in enumerate(inputs)
            if isinstance(v, np.ndarray) and v.dtype == np.float64 and i not in constants
        ]
    asked = [f"x{i}" for i in wrt]
    backward = tiercel.InferenceSession(_core.gradient_model(data, "", [], asked))
    got = backward.run([f"gradient of {n}" for n in asked], feeds)

    def value(at: dict[str, Any]) -> float:
        return float(sum(np.sum(y, dtype=np.longdouble) for y in forward.run(None, at)))

    for name, gradient in zip(asked, got, strict=True):
        x = np.asarray(feeds[name])
        assert gradient.shape == x.shape and gradient.dtype == x.dtype, (
            f"{op_type}: the gradient of {name} is {gradient.dtype}{gradient.shape}"
        )
        expected = np.zeros(x.shape)
        flat = expected.reshape(-1)
        for i in range(x.size):
            moved = x.reshape(-1).copy()
            moved[i] += step
            up = value({**feeds, name: moved.reshape(x.shape)})
            moved[i] -= 2 * step
            flat[i] = (up - value({**feeds, name: moved.reshape(x.shape)})) / (2 * step)
        np.testing.assert_allclose(
            gradient,
            expected,
            rtol=rtol,
            atol=atol * max(1.0, np.abs(expected).max(initial=0)) + 1e-9 / step * 1e-3,
            err_msg=f"{op_type}: gradient of {name}",
        )
    return got
