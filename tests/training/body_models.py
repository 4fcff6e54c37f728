"""Models with bodies, and their gradients against central differences in double and against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import _core

DOUBLE = TensorProto.DOUBLE


def info(name: str, shape: Any = None, kind: int = DOUBLE) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    functions: Any = (),
    dynamic: bool = False,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    inputs = [
        info(n, [None] * v.ndim if dynamic else v.shape, int(helper.np_dtype_to_tensor_dtype(v.dtype)))
        for n, v in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in sorted({*domains, *(f.domain for f in functions)}))]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def with_value(model: onnx.ModelProto, name: str, value: np.ndarray) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for t in copy.graph.initializer:
        if t.name == name:
            t.CopyFrom(numpy_helper.from_array(value, name))
    return copy.SerializeToString()


def check(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    wrt: list[str],
    weights: dict[str, np.ndarray] | None = None,
    dynamic: bool = False,
    functions: Any = (),
    domains: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Gradients of the weighted sum of the outputs against central differences."""
    model = model_of(nodes, feeds, outputs, weights, functions, dynamic, domains)
    rng = np.random.default_rng(5)
    values = tiercel.InferenceSession(model.SerializeToString()).run(outputs, feeds)
    factors = {n: rng.uniform(0.5, 1.5, np.shape(v)) for n, v in zip(outputs, values, strict=True)}
    for n, factor in factors.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(factor), f"factor_{n}"))
        model.graph.node.append(helper.make_node("Mul", [n, f"factor_{n}"], [f"scaled_{n}"]))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=f"scaled_{n}") for n in outputs)
    backward = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", [], wrt))
    got = dict(zip(wrt, backward.run([f"gradient of {n}" for n in wrt], feeds), strict=True))
    forward = tiercel.InferenceSession(model.SerializeToString())
    for name in wrt:
        x = feeds[name] if name in feeds else (weights or {})[name]
        assert got[name].shape == x.shape
        expected = np.zeros(x.size)
        for i in range(x.size):
            ends = []
            for step in (1e-5, -1e-5):
                moved = x.reshape(-1).copy()
                moved[i] += step
                moved = moved.reshape(x.shape)
                if name in feeds:
                    ys = forward.run(None, {**feeds, name: moved})
                else:
                    ys = tiercel.InferenceSession(with_value(model, name, moved)).run(None, feeds)
                ends.append(sum(float(np.sum(y)) for y in ys))
            expected[i] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got[name], expected.reshape(x.shape), rtol=1e-6, atol=1e-7, err_msg=name)
    return got


def against_torch(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
    wrt: list[str],
    same: Callable[..., Any],
    weights: dict[str, np.ndarray] | None = None,
    domains: Sequence[str] = (),
) -> None:
    """Gradients of the sum of the outputs against PyTorch's: `same` makes the outputs of the module and the tensors by name."""
    torch = pytest.importorskip("torch")
    data = model_of(nodes, feeds, outputs, weights, domains=domains).SerializeToString()
    got = tiercel.InferenceSession(_core.gradient_model(data, "", [], wrt)).run([f"gradient of {n}" for n in wrt], feeds)
    tensors = {n: torch.tensor(v, requires_grad=n in wrt) for n, v in {**feeds, **(weights or {})}.items()}
    results = same(torch, tensors)
    sum(r.sum() for r in results).backward()
    for n, r in zip(outputs, results, strict=True):
        np.testing.assert_allclose(tiercel.InferenceSession(data).run([n], feeds)[0], r.detach().numpy(), rtol=1e-12)
    for n, g in zip(wrt, got, strict=True):
        np.testing.assert_allclose(g, tensors[n].grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=n)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).uniform(-1, 1, shape)


def branch(nodes: list[onnx.NodeProto], outputs: list[str], name: str = "branch") -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [info(n) for n in outputs])


def if_node(prefix: str = "") -> onnx.NodeProto:
    then = branch([helper.make_node("MatMul", ["x", "w"], ["t0"]), helper.make_node("Tanh", ["t0"], ["t1"])], ["t1"])
    other = branch([helper.make_node("Mul", ["x", "v"], ["e0"]), helper.make_node("Exp", ["e0"], ["e1"])], ["e1"])
    return helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)


def scan_body() -> onnx.GraphProto:
    """h' = tanh(x W + h U + b); gives h' and h' * x."""
    nodes = [
        helper.make_node("MatMul", ["x_t", "W"], ["a"]),
        helper.make_node("MatMul", ["h", "U"], ["r"]),
        helper.make_node("Add", ["a", "r"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["z"]),
        helper.make_node("Tanh", ["z"], ["h1"]),
        helper.make_node("Mul", ["h1", "h1"], ["y_t"]),
    ]
    return helper.make_graph(nodes, "cell", [info("h"), info("x_t")], [info("h1"), info("y_t")])


SCAN_WEIGHTS = {"W": draw(3, 4), "U": draw(4, 4), "b": draw(4)}


def loop_node(early: bool = False, trips: str = "n") -> onnx.NodeProto:
    """s' = sin(s * w) + x[i]; with `early` until the sum of |s| exceeds a bound."""
    nodes = [
        helper.make_node("Gather", ["x", "i"], ["x_i"]),
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Sin", ["m"], ["sin"]),
        helper.make_node("Add", ["sin", "x_i"], ["s1"]),
        helper.make_node("Mul", ["s1", "s"], ["item"]),
    ]
    if early:
        nodes += [
            helper.make_node("Constant", [], ["last"], value_int=2),
            helper.make_node("Less", ["i", "last"], ["go"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["c"], ["go"]))
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s")],
        [info("go", [], TensorProto.BOOL), info("s1"), info("item")],
    )
    return helper.make_node("Loop", [trips, "", "s0"], ["s", "items"], name="steps", body=body)
