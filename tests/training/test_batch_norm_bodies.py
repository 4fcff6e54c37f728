"""BatchNormalization in branches, loops and functions trains as outside: batch statistics, and running ones that are carried out; against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from body_models import info, model_of
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel.training import SGD, Trainer

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((8, 3)).astype("f"), RNG.standard_normal((8, 3)).astype("f")
WEIGHTS = {"w": (np.eye(3) + 0.3 * RNG.standard_normal((3, 3))).astype("f"), "scale": np.array([1.1, 0.9, 1.3], "f"), "bias": np.array([0.1, -0.2, 0.3], "f")}
RUNNING = {"mean": np.array([0.3, -0.1, 0.2], "f"), "var": np.array([0.8, 1.2, 1.5], "f")}


def norm(x: str, y: str, mean: str = "mean", var: str = "var", training: bool = False) -> onnx.NodeProto:
    more: Any = {"training_mode": 1} if training else {}
    outputs = [y, f"{y}_mean", f"{y}_var"] if training else [y]
    return helper.make_node("BatchNormalization", [x, "scale", "bias", mean, var], outputs, name=f"norm_{y}", **more)


def float_info(name: str) -> onnx.ValueInfoProto:
    return info(name, None, F32)


def branches(training: bool = False, x: str = "x") -> onnx.NodeProto:
    then = helper.make_graph([helper.make_node("MatMul", [x, "w"], ["m"]), norm("m", "t", training=training)], "then", [], [float_info("t")])
    other = helper.make_graph([helper.make_node("MatMul", [x, "w"], ["e"])], "else", [], [float_info("e")])
    return helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)


def body_of_steps(states: list[str], more: list[str], loop: bool) -> onnx.GraphProto:
    """h' = norm(h w) (+ x_t)."""
    nodes = [helper.make_node("MatMul", ["h", "w"], ["m"]), norm("m", "n"), helper.make_node("Mul", ["n", "half"], ["h1"])]
    ins = [info("i", [], I64), info("go_in", [], BOOL)] if loop else []
    outs = [float_info("h1"), float_info("seen")]
    if loop:
        nodes += [helper.make_node("Identity", ["go_in"], ["go"]), helper.make_node("Identity", ["n"], ["seen"])]
        outs.insert(0, info("go", [], BOOL))
    else:
        nodes += [helper.make_node("Add", ["n", "x_t"], ["seen"])]
    return helper.make_graph(nodes, "body", [*ins, *(float_info(n) for n in states + more)], outs)


HALF = {"half": np.array(0.5, "f"), "n": np.array(3)}


def loop() -> list[onnx.NodeProto]:
    node = helper.make_node("Loop", ["n", "", "x"], ["h", "all"], name="steps", body=body_of_steps(["h"], [], True))
    return [node, helper.make_node("ReduceSum", ["all", "zero"], ["sum"], keepdims=0), helper.make_node("Add", ["h", "sum"], ["y"])]


def scan() -> list[onnx.NodeProto]:
    node = helper.make_node("Scan", ["x", "xs"], ["h", "all"], name="steps", body=body_of_steps(["h"], ["x_t"], False), num_scan_inputs=1)
    return [node, helper.make_node("ReduceSum", ["all", "zero"], ["sum"], keepdims=0), helper.make_node("Add", ["h", "sum"], ["y"])]


def trainer_of(nodes: list[onnx.NodeProto], feeds: dict[str, np.ndarray], weights: dict[str, Any], functions: Any = (), **options: Any) -> Trainer:
    model = model_of(nodes, feeds, ["y"], {**WEIGHTS, **RUNNING, **weights}, functions)
    model.graph.output[0].CopyFrom(info("y", [8, 3], F32))
    return Trainer(model, "mse", SGD(0.1), ["w", "scale", "bias"], **options)


class Reference:
    """The same in PyTorch: `norm` trains, as BatchNorm1d does."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.w = torch.tensor(WEIGHTS["w"], requires_grad=True)
        self.norm = torch.nn.BatchNorm1d(3)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor(WEIGHTS["scale"]))
            self.norm.bias.copy_(torch.tensor(WEIGHTS["bias"]))
            self.norm.running_mean.copy_(torch.tensor(RUNNING["mean"]))
            self.norm.running_var.copy_(torch.tensor(RUNNING["var"]))
        self.optimizer = torch.optim.SGD([self.w, *self.norm.parameters()], 0.1)

    def step(self, y: Any) -> float:
        loss = (y - self.torch.tensor(Y)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def compare(self, trainer: Trainer, loss: float, ours: float) -> None:
        assert ours == pytest.approx(loss, rel=2e-5)
        state = trainer.model_state()
        his = {"w": self.w, "scale": self.norm.weight, "bias": self.norm.bias, "mean": self.norm.running_mean, "var": self.norm.running_var}
        for n, v in his.items():
            np.testing.assert_allclose(state[n], v.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=n)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("exported_in_training", [False, True])
def test_branches(exported_in_training: bool, accumulate: int) -> None:
    """The branch with the norm moves its statistics, the other one leaves them."""
    torch = pytest.importorskip("torch")
    trainer, ref = trainer_of([branches(exported_in_training)], {"x": X, "c": np.array(True)}, {}, accumulate=accumulate), Reference(torch)
    for condition in (True, True, False, True):
        for _ in range(accumulate):
            ours = trainer.step([X, np.array(condition)], Y)
        x = torch.tensor(X) @ ref.w
        if condition and accumulate == 2:  # the first of two batches moves the statistics too
            ref.norm(x.detach())
        ref.compare(trainer, ref.step(ref.norm(x) if condition else x), ours)
    assert trainer.evaluate([([X, np.array(True)], Y)])["loss"] == pytest.approx(inference_loss(trainer, [X, np.array(True)]), rel=1e-6)


def inference_loss(trainer: Trainer, feeds: list[np.ndarray]) -> float:
    """Of the saved model, which has no trace of training."""
    saved = trainer.model()
    assert "training_mode" not in onnx.printer.to_text(onnx.load_from_string(saved))
    (y,) = tiercel.InferenceSession(saved).run(["y"], dict(zip(trainer.input_names, feeds, strict=True)))
    return float(np.mean((y - Y) ** 2))


@pytest.mark.parametrize("threads", [1, 2])
def test_loop(threads: int) -> None:
    torch = pytest.importorskip("torch")
    weights = {**HALF, "zero": np.array([0])}
    trainer, ref = trainer_of(loop(), {"x": X}, weights, threads=threads), Reference(torch)
    for _ in range(4):
        h, seen = torch.tensor(X), 0
        for _ in range(3):
            n = ref.norm(h @ ref.w)
            h, seen = n / 2, seen + n
        ref.compare(trainer, ref.step(h + seen), trainer.step(X, Y))
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(inference_loss(trainer, [X]), rel=1e-6)


def test_scan() -> None:
    torch = pytest.importorskip("torch")
    xs = RNG.standard_normal((4, 8, 3)).astype("f")
    trainer, ref = trainer_of(scan(), {"x": X, "xs": xs}, {**HALF, "zero": np.array([0])}), Reference(torch)
    for _ in range(4):
        h, seen = torch.tensor(X), 0
        for x_t in torch.tensor(xs):
            n = ref.norm(h @ ref.w)
            h, seen = n / 2, seen + n + x_t
        ref.compare(trainer, ref.step(h + seen), trainer.step([X, xs], Y))


def test_nested_and_applied_twice() -> None:
    """In a branch of a loop's body, and the same layer once more after it; no step at all leaves the statistics."""
    torch = pytest.importorskip("torch")
    one = branches(x="h")
    one.output[0] = "h1"
    one.input[0] = "even"
    nodes = [
        helper.make_node("Mod", ["i", "two"], ["r"]),
        helper.make_node("Equal", ["r", "none"], ["even"]),
        one,
        helper.make_node("Identity", ["go_in"], ["go"]),
    ]
    body = helper.make_graph(nodes, "body", [info("i", [], I64), info("go_in", [], BOOL), float_info("h")], [info("go", [], BOOL), float_info("h1")])
    outer = [helper.make_node("Loop", ["n", "", "x"], ["h_all"], name="steps", body=body), norm("h_all", "y")]
    weights = {"two": np.array(2), "none": np.array(0)}
    trainer, ref = trainer_of(outer, {"x": X, "n": np.array(3)}, weights), Reference(torch)
    for steps in (3, 0, 2):
        h = torch.tensor(X)
        for i in range(steps):
            m = h @ ref.w
            h = ref.norm(m) if i % 2 == 0 else m
        y = ref.norm(h)
        ref.compare(trainer, ref.step(y), trainer.step([X, np.array(steps)], Y))


def test_function() -> None:
    torch = pytest.importorskip("torch")
    function = helper.make_function(
        "local", "Layer", ["a", "w", "scale", "bias", "mean", "var"], ["o"],
        [helper.make_node("MatMul", ["a", "w"], ["m"]), norm("m", "o")], [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = helper.make_node("Layer", ["x", "w", "scale", "bias", "mean", "var"], ["y"], domain="local")
    trainer, ref = trainer_of([node], {"x": X}, {}, [function]), Reference(torch)
    for _ in range(3):
        ref.compare(trainer, ref.step(ref.norm(torch.tensor(X) @ ref.w)), trainer.step(X, Y))


def test_function_in_a_branch() -> None:
    torch = pytest.importorskip("torch")
    names = ["x", "w", "scale", "bias", "mean", "var"]
    function = helper.make_function("local", "Layer", ["a", *names[1:]], ["o"], [helper.make_node("MatMul", ["a", "w"], ["m"]), norm("m", "o")], [helper.make_opsetid("", 17)])
    then = helper.make_graph([helper.make_node("Layer", names, ["t"], domain="local")], "then", [], [float_info("t")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [], [float_info("e")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    trainer, ref = trainer_of([node], {"x": X, "c": np.array(True)}, {}, [function]), Reference(torch)
    for _ in range(3):
        ref.compare(trainer, ref.step(ref.norm(torch.tensor(X) @ ref.w)), trainer.step([X, np.array(True)], Y))


def test_what_cannot_be_carried_is_told() -> None:
    """Running statistics that are the body's own, or of a body that has no place for them."""
    node = branches()
    for a in node.attribute:
        if a.name == "then_branch":
            a.g.initializer.extend(numpy_helper.from_array(v, f"own_{n}") for n, v in RUNNING.items())
            a.g.node[1].input[3:] = ["own_mean", "own_var"]
    with pytest.warns(UserWarning, match='BatchNormalization node "norm_t".*no initializers of the graph around it.*stays as in inference'):
        trainer = trainer_of([node], {"x": X, "c": np.array(True)}, {})
    before = trainer.evaluate([([X, np.array(True)], Y)])["loss"]
    assert trainer.step([X, np.array(True)], Y) == pytest.approx(before, rel=1e-6)  # the same statistics

    body = helper.make_graph([norm("item", "out")], "body", [float_info("item")], [float_info("out")])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("SequenceConstruct", ["m", "m"], ["s"]),
        helper.make_node("SequenceMap", ["s"], ["mapped"], name="each", body=body),
        helper.make_node("SequenceAt", ["mapped", "one"], ["y"]),
    ]
    with pytest.warns(UserWarning, match='in the body of SequenceMap node "each", stays as in inference'):
        trainer = trainer_of(nodes, {"x": X}, {"one": np.array(1)})
    assert trainer.step(X, Y) > 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_moves_no_statistics(accumulate: int) -> None:
    norm = branches()
    norm.output[0] = "z"
    nodes = [norm, helper.make_node("Abs", ["z"], ["a"]), helper.make_node("Sqrt", ["a"], ["y"], name="root")]
    trainer = trainer_of(nodes, {"x": X, "c": np.array(True)}, {}, accumulate=accumulate)
    good, bad = [X, np.array(False)], [X, np.array(True)]
    trainer.step(bad, Y)  # it is not yet
    for n in ("scale", "bias"):
        trainer.weights[n][1] = 0  # the root of |0| has no slope
    before = {n: a.tobytes() for n, a in trainer._core.state()}
    with pytest.raises(tiercel.errors.Error, match="gradient of the weight .* is not finite; the first.*root/gradient.*weights are unchanged"):
        trainer.step(bad, Y)
    assert {n: a.tobytes() for n, a in trainer._core.state()} == before
    assert np.isfinite(trainer.step(good, Y))
