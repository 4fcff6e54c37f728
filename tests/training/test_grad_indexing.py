"""Gradients of what gathers and scatters: against central differences in double, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import check_grad

import tiercel
from oracle import one_node
from tiercel import _core

REDUCTIONS = ["none", "add", "mul", "max", "min"]


def values(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Away from zero, and no two near each other."""
    n = int(np.prod(shape))
    return np.asarray((rng.permutation(n).reshape(shape) + rng.uniform(0.2, 0.3, shape) - n // 2) / max(n / 3, 1))


def gradients(op: str, inputs: list[Any], attrs: dict[str, Any], wrt: list[int], opset: int | None = None) -> list[np.ndarray]:
    """Of the sum of the result."""
    model, feeds, _ = one_node(op, inputs, attrs, opset)
    asked = [f"x{i}" for i in wrt]
    session = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", [], asked))
    return session.run([f"gradient of {n}" for n in asked], feeds)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(axis: int, reduction: str, dynamic: bool) -> None:
    rng = np.random.default_rng(axis + 5)
    data, updates = np.split(values(rng, 2, 4, 3, 2), 2)
    data, updates = data[0], updates[0, :3, :2]
    at = rng.integers(-data.shape[axis], data.shape[axis], updates.shape)  # negative ones and repeated ones
    check_grad("ScatterElements", [data, at, updates], {"axis": axis, "reduction": reduction}, dynamic=dynamic)
    check_grad("ScatterElements", [data, at.astype(np.int32), updates], {"axis": axis, "reduction": reduction}, constants=[1])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("tuple_size", [1, 2, 3])
def test_scatter_nd(tuple_size: int, reduction: str, dynamic: bool) -> None:
    rng = np.random.default_rng(tuple_size)
    shape = (2, 3, 2)
    at = np.stack([rng.integers(-n, n, (2, 2)) for n in shape[:tuple_size]], -1)
    flat = values(rng, 12 + 4 * int(np.prod(shape[tuple_size:])))
    data, updates = flat[:12].reshape(shape), flat[12:].reshape(2, 2, *shape[tuple_size:])
    check_grad("ScatterND", [data, at, updates], {"reduction": reduction}, dynamic=dynamic)
    check_grad("ScatterND", [data, at, updates], {"reduction": reduction}, constants=[1])
    distinct = np.array([[1], [-2]])
    if tuple_size == 1:
        check_grad("ScatterND", [data, distinct, updates[0]], {"reduction": reduction}, constants=[1], dynamic=dynamic)


def test_scatter_before_opset_11() -> None:
    rng = np.random.default_rng(0)
    check_grad("Scatter", [values(rng, 3, 4), np.array([[0, 2, 2, 1], [0, 1, 2, 1]]), values(rng, 2, 4)], {"axis": 0}, opset=10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_of_nothing(reduction: str) -> None:
    data = values(np.random.default_rng(0), 3, 4)
    for op, at, updates in [
        ("ScatterElements", np.zeros((0, 4), np.int64), np.zeros((0, 4))),
        ("ScatterND", np.zeros((0, 1), np.int64), np.zeros((0, 4))),
    ]:
        dx, du = gradients(op, [data, at, updates], {"reduction": reduction}, [0, 2])
        assert dx.tolist() == np.ones((3, 4)).tolist() and du.shape == updates.shape


def test_product_with_zeros() -> None:
    """One factor of zero, two, and the data's own."""
    data, updates = np.array([[2.0, 3.0, 0.0, 4.0, 0.0]]), np.array([[0.0, 5.0, 0.0, 0.0, 7.0, 0.0]])
    at = np.array([[0, 0, 1, 1, 2, 4]])
    check_grad("ScatterElements", [data, at, updates], {"axis": 1, "reduction": "mul"})
    check_grad("ScatterND", [data[0], at.T, updates[0]], {"reduction": "mul"})


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
def test_ties_and_repeats_as_pytorch(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    data, updates = rng.integers(-2, 3, (4, 5)).astype(float), rng.integers(-2, 3, (6, 5)).astype(float)
    at = rng.integers(0, 4, (6, 5))
    dx, du = gradients("ScatterElements", [data, at, updates], {"axis": 0, "reduction": reduction}, [0, 2])
    a, b = torch.tensor(data, requires_grad=True), torch.tensor(updates, requires_grad=True)
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    a.scatter_reduce(0, torch.tensor(at), b, names[reduction]).sum().backward()
    np.testing.assert_allclose(dx, a.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(du, b.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_gather_nd(batch: int, dynamic: bool) -> None:
    rng = np.random.default_rng(batch)
    shape = (2, 3, 4, 2)
    for size in range(1, 5 - batch):
        lead = (*shape[:batch], 3)
        at = np.stack([rng.integers(-n, n, lead) for n in shape[batch : batch + size]], -1)
        check_grad("GatherND", [values(rng, *shape), at], {"batch_dims": batch}, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
def test_gather(dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    check_grad("GatherElements", [values(rng, 3, 4), rng.integers(-4, 4, (2, 7))], {"axis": 1}, dynamic=dynamic)
    check_grad("GatherElements", [values(rng, 3, 4), np.zeros((0, 2), np.int64)], {"axis": 1}, dynamic=dynamic)
    check_grad("Gather", [values(rng, 3, 4), np.array([[-1, 2], [0, -1]])], {"axis": 1}, dynamic=dynamic)
    check_grad("Gather", [values(rng, 3, 4), np.zeros((0,), np.int64)], dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str, dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    starts = np.array([1, 0] if mode == "linear" else [3, 0])
    inputs = [values(rng, 2, 3, 4, 2), values(rng, 2, 3, 3, 2), starts]
    check_grad("TensorScatter", inputs, {"mode": mode, "axis": 2}, dynamic=dynamic)
    check_grad("TensorScatter", inputs[:2], {"mode": mode}, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
def test_max_unpool(dynamic: bool) -> None:
    rng = np.random.default_rng(0)
    at = rng.permutation(2 * 4 * 6)[:12].reshape(1, 2, 2, 3)
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    check_grad("MaxUnpool", [values(rng, 1, 2, 2, 3), at], window, dynamic=dynamic)
    at[0, 0, 0, :2] = at[0, 1, 1, 2]  # three in one place: the last one stays
    check_grad("MaxUnpool", [values(rng, 1, 2, 2, 3), at], window, dynamic=dynamic)
    for size in ([1, 2, 5, 7], [1, 2, 3, 4]):
        check_grad("MaxUnpool", [values(rng, 1, 2, 2, 3), at, np.array(size)], window, constants=[2], dynamic=dynamic)
