"""Every gradient rule of the engine, on the cases of grad_cases*.py: against central differences in double precision and against PyTorch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grad_cases import CASES, COVERED, SEEDS, Case, Draw, Operator
from gradcheck import check_grad, projected
from onnx import TensorProto, helper, numpy_helper

import tiercel
from oracle import one_node
from tiercel import _core
from tiercel.training import differentiable_operators

for module in Path(__file__).parent.glob("*grad*.py"):  # each of them registers what it has
    if module.stem != Path(__file__).stem:
        importlib.import_module(module.stem)

# Operators of which PyTorch has no differentiable form, not composed of others either.
NO_PYTORCH: dict[Operator, str] = {
    ("", "MaxRoiPool"): "torchvision's",
    ("", "RoiAlign"): "torchvision's",
    ("", "Unique"): "torch.unique has no derivative",
    ("", "Range"): "torch.arange has no derivative",
    ("ai.tiercel", "Dropout"): "draws masks of its own",
}
RULES = differentiable_operators()
WITH_PYTORCH = [(operator, draw) for operator, draw in CASES if draw(Draw(0), operator[1]).torch]


def ids(cases: Any) -> list[str]:
    return [f"{domain + '.' if domain else ''}{op}-{draw.__name__}" for (domain, op), draw in cases]


def version(c: Case, domain: str) -> int | None:
    return c.opset or (1 if domain else None)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("operator,draw", CASES, ids=ids(CASES))
def test_differences(operator: Operator, draw: Any, seed: int) -> None:
    domain, op = operator
    c: Case = draw(Draw(seed), op)
    check_grad(op, c.inputs, c.attrs, c.wrt, version(c, domain), domain, c.outputs, c.constants, c.dynamic and seed == 1, seed=seed, **c.check)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("operator,draw", WITH_PYTORCH, ids=ids(WITH_PYTORCH))
def test_as_pytorch(operator: Operator, draw: Any, seed: int) -> None:
    """Results and gradients, of the sum of the results times random numbers."""
    domain, op = operator
    c: Case = draw(Draw(seed), op)
    assert c.torch
    torch = pytest.importorskip("torch")
    model, feeds, names = one_node(op, c.inputs, c.attrs, version(c, domain), domain, c.outputs, c.constants)
    if domain:
        model.opset_import[1].version = 21
    results = tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
    model = projected(model, names, [(r.shape, r.dtype) for r in results], np.random.default_rng(seed))
    factors = [t for t in model.graph.initializer if t.name.startswith("factor_")]
    wrt = c.wrt or [i for i, v in enumerate(c.inputs) if isinstance(v, np.ndarray) and v.dtype == np.float64 and i not in c.constants]
    asked = [f"x{i}" for i in wrt]
    got = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", [], asked)).run([f"gradient of {n}" for n in asked], feeds)
    tensors = [None if v is None else torch.tensor(v, requires_grad=i in wrt) for i, v in enumerate(c.inputs)]
    theirs = c.torch(torch, *tensors)
    theirs = [theirs] if isinstance(theirs, torch.Tensor) else list(theirs)
    ours = [r for r in results if r.dtype.kind == "f"]
    total = torch.zeros((), dtype=torch.float64)
    for mine, his, factor in zip(ours, theirs, factors, strict=True):
        assert mine.shape == tuple(his.shape) and mine.dtype == his.detach().numpy().dtype
        np.testing.assert_allclose(mine, his.detach().numpy(), rtol=1e-6 if mine.dtype == np.float32 else 1e-10, atol=1e-12)
        total = total + (his * torch.tensor(np.array(numpy_helper.to_array(factor)))).sum()
    total.backward()
    for i, mine in zip(wrt, got, strict=True):
        grad = tensors[i].grad
        his = np.zeros(tensors[i].shape) if grad is None else grad.numpy()
        tolerance = 1e-6 if mine.dtype == np.float32 or results[0].dtype == np.float32 else 1e-9
        np.testing.assert_allclose(mine, his, rtol=tolerance, atol=tolerance * max(1.0, np.abs(his).max(initial=0)), err_msg=f"gradient of x{i}")


def made(op: str, inputs: str, out: str = "z", **attrs: Any) -> Any:
    return helper.make_node(op, inputs.split(), [out], **attrs)


LESS, WHOLE = made("Less", "x one", "b"), made("Cast", "x", "i", to=TensorProto.INT64)
# Operators whose derivative is zero, or whose results are no floats: nodes that make z of x.
FLAT: dict[Operator, list[Any]] = {
    **{("", op): [made(op, "x")] for op in ("Floor", "Ceil", "Round", "Sign", "IsNaN", "IsInf", "Shape", "Size", "RandomNormalLike", "RandomUniformLike")},
    **{("", op): [made(op, "x one")] for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")},
    **{("", op): [LESS, made(op, "b b")] for op in ("And", "Or", "Xor")},
    ("", "Not"): [LESS, made("Not", "b")],
    ("", "BitwiseNot"): [WHOLE, made("BitwiseNot", "i")],
    ("", "EyeLike"): [made("EyeLike", "x")],
    ("", "Bernoulli"): [made("Sigmoid", "x", "p"), made("Bernoulli", "p")],
    ("", "ConstantOfShape"): [made("Shape", "x", "s"), made("ConstantOfShape", "s")],
    ("", "OptionalHasElement"): [made("Optional", "x", "o"), made("OptionalHasElement", "o")],
    ("", "SequenceLength"): [made("SequenceConstruct", "x x", "s"), made("SequenceLength", "s")],
    ("", "SequenceEmpty"): [made("SequenceEmpty", "", "s"), made("SequenceLength", "s")],
    ("ai.tiercel", "SequenceZeros"): [
        made("SequenceConstruct", "x x", "s"), made("SequenceZeros", "s", "zeros", domain="ai.tiercel"), made("SequenceAt", "zeros one_place"),
    ],
}


@pytest.mark.parametrize("shape", [(3, 2), (1, 5), (0, 3)])
@pytest.mark.parametrize("operator", FLAT, ids=lambda o: o[1])
def test_nothing_comes_back(operator: Operator, shape: tuple[int, ...]) -> None:
    """y = x times the sum of z(x): its gradient is that sum."""
    nodes = [*FLAT[operator], made("Cast", "z", "f", to=TensorProto.DOUBLE), made("ReduceSum", "f", "sum", keepdims=0), made("Mul", "x sum", "y")]
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)
    sums = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in ("y", "sum")]
    graph = helper.make_graph(nodes, "g", [x], sums, [numpy_helper.from_array(np.array(1.0), "one"), numpy_helper.from_array(np.array(1), "one_place")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.tiercel", 1)], ir_version=10)
    session = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", ["y"], ["x"]))
    dx, total = session.run(["gradient of x", "sum"], {"x": Draw(0).any(*shape)})
    assert dx.shape == shape
    np.testing.assert_array_equal(dx, np.full(shape, total))


def test_every_rule_has_cases() -> None:
    differences = COVERED["differences"] | {operator for operator, _ in CASES}
    pytorch = COVERED["PyTorch"] | {operator for operator, _ in WITH_PYTORCH}
    real = {operator for operator, slope in RULES.items() if slope}
    zero = set(RULES) - real
    assert not sorted(zero - set(FLAT) - differences), "rules of zero without a case: FLAT takes them"
    missing = sorted(real - differences)
    assert not missing, "rules without a comparison with central differences: add a case"
    missing = sorted(real - pytorch - set(NO_PYTORCH))
    assert not missing, "rules without a comparison with PyTorch: add a case, or the reason to NO_PYTORCH"
    assert not set(NO_PYTORCH) & pytorch, "these are compared with PyTorch: no need for a reason"
    assert not (differences | pytorch | set(NO_PYTORCH)) - set(RULES), "cases of operators without a rule"
