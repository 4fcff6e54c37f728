"""Weights of float16 and bfloat16, trained as floats and saved as they were, and weights of rank 0; against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel
from tiercel import _core
from tiercel.training import SGD, Adam, LoRA, Trainer, apply_adapter

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 6)).astype(np.float32)
Y = np.sin(X[:, :2] * 2).astype(np.float32)
KINDS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
SHAPES = {"w1": (6, 16), "b1": (16,), "w2": (16, 2), "b2": (2,)}


def narrow(a: np.ndarray, kind: str) -> onnx.TensorProto:
    return helper.make_tensor("", KINDS[kind], a.shape, a.astype(np.float32).ravel().tolist())


def mlp(kind: str, float_ends: bool = True) -> bytes:
    """Two layers in a narrow type; their input and output are floats, or narrow too."""
    rng = np.random.default_rng(1)
    to, t = KINDS[kind], TensorProto.FLOAT if float_ends else KINDS[kind]
    weights = []
    for name, shape in SHAPES.items():
        weights.append(narrow(rng.uniform(-0.5, 0.5, shape), kind))
        weights[-1].name = name
    nodes = [
        helper.make_node("Cast", ["x"], ["xh"], to=to),
        helper.make_node("MatMul", ["xh", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Tanh", ["a1"], ["t1"]),
        helper.make_node("MatMul", ["t1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["yh"]),
        helper.make_node("Cast", ["yh"], ["y"], to=t),
    ]
    ends = [helper.make_tensor_value_info("x", t, ["n", 6])], [helper.make_tensor_value_info("y", t, ["n", 2])]
    graph = helper.make_graph(nodes, "mlp", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def initializers(data: bytes) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in onnx.load_from_string(data).graph.initializer}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_against_pytorch(kind: str, accumulate: int) -> None:
    torch = pytest.importorskip("torch")
    data = mlp(kind)
    trainer = Trainer(data, "mse", Adam(0.01), accumulate=accumulate)
    masters = {n: torch.tensor(w.copy(), requires_grad=True) for n, w in trainer.weights.items()}
    assert all(w.dtype == np.float32 for w in trainer.weights.values()) and list(masters) == list(SHAPES)
    optimizer, dtype = torch.optim.Adam(masters.values(), 0.01), getattr(torch, kind)
    x, y = torch.tensor(X), torch.tensor(Y)
    for _ in range(15):
        for _ in range(accumulate):
            ours = trainer.step(X, Y)
        optimizer.zero_grad()
        w = {n: m.to(dtype) for n, m in masters.items()}
        loss = ((torch.tanh(x.to(dtype) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]).float() - y).square().mean()
        loss.backward()
        optimizer.step()
        assert abs(ours - loss.item()) < 20 * EPS[kind] * (1 + loss.item())
    for n, w in trainer.weights.items():
        assert np.abs(w - masters[n].detach().numpy()).max() < 0.02  # of the 0.15 that Adam can have gone


@pytest.mark.parametrize("float_ends", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_as_they_were(kind: str, float_ends: bool, tmp_path: Any) -> None:
    """The type of the file, the rounded masters; what the live session computes is what the file does."""
    if kind == "bfloat16" and not float_ends:
        pytest.importorskip("ml_dtypes")
    data = mlp(kind, float_ends)
    trainer = Trainer(data, "mse", Adam(0.01))
    assert {n: t.raw_data or list(t.int32_data) for n, t in initializers(data).items()}.keys() == trainer.weights.keys()
    before = initializers(trainer.model())
    for n, t in initializers(data).items():  # nothing is lost before the first step
        np.testing.assert_array_equal(numpy_helper.to_array(before[n]), numpy_helper.to_array(t))
    losses = [trainer.step(X, Y) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    trainer.save(tmp_path / "m.onnx")
    saved = initializers((tmp_path / "m.onnx").read_bytes())
    for n, master in trainer.weights.items():
        assert saved[n].data_type == KINDS[kind]
        np.testing.assert_array_equal(numpy_helper.to_array(saved[n]), master.astype(numpy_helper.to_array(saved[n]).dtype))
    there = tiercel.InferenceSession(str(tmp_path / "m.onnx"))
    x = X.astype(trainer._feed.dtypes[0])
    np.testing.assert_array_equal(there.run(None, {"x": x})[0], trainer.session.run(None, {"x": x})[0])
    assert abs(trainer.evaluate(X, Y)["loss"] - losses[-1]) < 0.1 * losses[0]
    np.testing.assert_array_equal(trainer.predict(X), there.run(None, {"x": x})[0])


def test_steps_below_the_spacing_add_up() -> None:
    """Each step moves a weight by less than half the distance of two neighbours in float16."""
    trainer = Trainer(mlp("float16"), "mse", Adam(1e-5))
    first = {n: w.copy() for n, w in trainer.weights.items()}
    for _ in range(200):
        trainer.step(X, Y)
    moved = {n: np.abs(w - first[n]).max() for n, w in trainer.weights.items()}
    assert all(0.0005 < m < 0.0025 for m in moved.values()), moved
    after = initializers(trainer.model())
    assert any((numpy_helper.to_array(after[n]) != first[n]).any() for n in first)


def test_threads_checkpoints_and_class_numbers(tmp_path: Any) -> None:
    labels = (Y[:, 0] > 0).astype(np.int64)
    states = []
    for threads in (1, 2):
        trainer = Trainer(mlp("float16"), "cross_entropy", Adam(0.01), threads=threads, clip_norm=1.0)
        for _ in range(5):
            trainer.step(X, labels)
        states.append(trainer.model_state())
    assert all(states[0][n].tobytes() == states[1][n].tobytes() for n in states[0])
    trainer.save_checkpoint(tmp_path / "c")
    again = Trainer(mlp("float16"), "cross_entropy", Adam(0.01), clip_norm=1.0)
    again.load_checkpoint(tmp_path / "c")
    assert trainer.step(X, labels) == again.step(X, labels)
    assert {n: w.tobytes() for n, w in trainer.weights.items()} == {n: w.tobytes() for n, w in again.weights.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters(kind: str, tmp_path: Any) -> None:
    pytest.importorskip("ml_dtypes")
    data = mlp(kind)
    trainer = Trainer(data, "mse", Adam(0.02), LoRA(2, trainable=["b2"]))
    losses = [trainer.step(X, Y) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    saved = initializers(trainer.model())
    assert {t.data_type for t in saved.values()} == {KINDS[kind]}
    trainer.save_adapter(tmp_path / "a")
    put = initializers(bytes(apply_adapter(data, tmp_path / "a")))
    assert {n: numpy_helper.to_array(t).tobytes() for n, t in put.items()} == {n: numpy_helper.to_array(t).tobytes() for n, t in saved.items()}


def test_an_overflow_is_named() -> None:
    trainer = Trainer(mlp("float16"), "mse", SGD(0.01))
    with pytest.raises(tiercel.errors.Error, match="the first result that is not: Cast"):
        trainer.step(X * 1e6, Y)


# ---- Rank 0


def gained(gain: float = 1.5, extra: str = "") -> bytes:
    """y = gain tanh(x w) / root, where root is a constant."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Tanh", ["m"], ["t"]),
        helper.make_node("Mul", ["t", f"{extra}gain"], ["g"]),
        helper.make_node("Div", ["g", f"{extra}root"], ["y"]),
    ]
    w = np.random.default_rng(3).uniform(-0.5, 0.5, (6, 2)).astype(np.float32)
    named = {"w": w, f"{extra}gain": np.array(gain, np.float32), f"{extra}root": np.array(2.0, np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])], [numpy_helper.from_array(v, n) for n, v in named.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1}, {"accumulate": 2}])
def test_a_gain_against_pytorch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    trainer = Trainer(gained(), "mse", Adam(0.05, weight_decay=0.01), ["gain", "w"], **options)
    mine = trainer.weights
    assert sorted(mine) == ["gain", "w"] and mine["gain"].shape == ()
    gain, w = (torch.tensor(mine[n].copy(), requires_grad=True) for n in ("gain", "w"))
    optimizer = torch.optim.Adam([gain, w], 0.05, weight_decay=0.01)
    for _ in range(20):
        for _ in range(options.get("accumulate", 1)):
            ours = trainer.step(X, Y)
        optimizer.zero_grad()
        loss = (gain * torch.tanh(torch.tensor(X) @ w) / 2 - torch.tensor(Y)).square().mean()
        loss.backward()
        if "clip_norm" in options:
            torch.nn.utils.clip_grad_norm_([gain, w], 0.1)
        optimizer.step()
        assert ours == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(trainer.weights["gain"], gain.detach().numpy(), rtol=1e-4)
    saved = numpy_helper.to_array(initializers(trainer.model())["gain"])
    assert saved.shape == () and saved == trainer.weights["gain"]


def test_which_scalars_are_weights() -> None:
    """Those that are named, or that a pattern means which means no other weight; of all weights where there is nothing else."""
    names = lambda how: sorted(Trainer(gained(extra="head."), "mse", SGD(0.1), how).weights)  # noqa: E731
    assert names("all") == names("*") == ["w"]
    assert names(["head.gain"]) == names("*.gain") == ["head.gain"]
    assert names(["w", "head.*"]) == ["head.gain", "head.root", "w"]
    with pytest.raises(ValueError, match=r"no weight matches 'gain'"):
        names(["gain"])
    assert _core.scalar_weights(gained()) == ["gain", "root"]
    alone = onnx.load_from_string(gained())
    alone.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 2]))
    del alone.graph.initializer[0], alone.graph.initializer[1:]
    alone.graph.node[-1].CopyFrom(helper.make_node("Identity", ["g"], ["y"]))
    trainer = Trainer(alone, "mse", SGD(0.1))
    assert list(trainer.weights) == ["gain"]
    losses = [trainer.step({"x": X, "w": np.eye(6, 2, dtype=np.float32)}, Y) for _ in range(30)]
    assert losses[-1] < losses[0]


def test_a_narrow_gain_with_checkpoint(tmp_path: Any) -> None:
    model = onnx.load_from_string(mlp("float16"))
    gain = narrow(np.array(1.25), "float16")
    gain.name = "gain"
    model.graph.initializer.append(gain)
    model.graph.node[3].output[0] = "t0"
    model.graph.node.insert(4, helper.make_node("Mul", ["t0", "gain"], ["t1"]))
    trainer = Trainer(model, "mse", Adam(0.01), ["gain", "w*", "b*"])
    for _ in range(3):
        trainer.step(X, Y)
    trainer.save_checkpoint(tmp_path / "c")
    again = Trainer(model, "mse", Adam(0.01), ["gain", "w*", "b*"])
    again.load_checkpoint(tmp_path / "c")
    assert again.weights["gain"] == trainer.weights["gain"] != 1.25
    assert numpy_helper.to_array(initializers(again.model())["gain"]) == np.float16(again.weights["gain"])


@pytest.mark.parametrize("trainable", ["all", LoRA(2, targets="*")], ids=["all", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_live_session(kind: str, trainable: Any, tmp_path: Path) -> None:
    """What runs after a step are the weights that would be saved: narrow ones."""
    trainer = Trainer(mlp(kind), "mse", SGD(0.1), trainable=trainable)
    session = trainer.session
    before = session.run(None, {"x": X})[0]
    for _ in range(3):
        trainer.step(X, Y)
        trainer.save(tmp_path / "m.onnx")
        now = session.run(None, {"x": X})[0]
        np.testing.assert_array_equal(now, tiercel.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": X})[0])
    assert (now != before).any()


def test_means_of_more_elements_than_float16_counts() -> None:
    """65504 is the most that it holds: the gradient of a mean of more was 0."""
    pools: list[tuple[str, dict[str, Any]]] = [("GlobalAveragePool", {}), ("ReduceMean", {"keepdims": 1})]
    for op, attributes in pools:
        axes = [] if op == "GlobalAveragePool" else ["axes"]
        nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node(op, ["h", *axes], ["y"], **attributes)]
        infos = [[helper.make_tensor_value_info(k, TensorProto.FLOAT16, ["n", 1, *s])] for k, s in (("x", [300, 300]), ("y", [1, 1]))]
        values = [narrow(np.ones(300), "float16"), numpy_helper.from_array(np.array([2, 3]), "axes")]
        values[0].name = "w"
        graph = helper.make_graph(nodes, "g", *infos, values[: 1 + len(axes)])
        t = Trainer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), "mse", SGD(1.0), trainable=["w"])
        t.step(np.ones((2, 1, 300, 300), np.float16), np.zeros((2, 1, 1, 1), np.float16))
        np.testing.assert_allclose(1 - t.weights["w"], 2 / 300, rtol=0.01)  # of (mean of w)^2


def norm_model(t: int, opset: int, in_branch: bool, momentum: float) -> bytes:
    """y = BatchNormalization(x w), at the top or in both branches of an If."""
    def norm(y: str) -> onnx.NodeProto:
        return helper.make_node("BatchNormalization", ["q", "s", "b", "mu", "va"], [y], momentum=momentum)

    nodes = [helper.make_node("Mul", ["x", "w"], ["q"])]
    if in_branch:
        a, b = (helper.make_graph([norm(k)], k, [], [helper.make_tensor_value_info(k, t, None)]) for k in ("p", "r"))
        nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=a, else_branch=b))
    else:
        nodes.append(norm("y"))
    values = {"w": 1, "s": 1, "b": 0, "mu": 5, "va": 4}
    weights = [helper.make_tensor(k, t, [4], [float(v)] * 4) for k, v in values.items()]
    weights += [helper.make_tensor("c", TensorProto.BOOL, [], [True])] if in_branch else []
    infos = [[helper.make_tensor_value_info(k, t, ["n", 4])] for k in "xy"]
    graph = helper.make_graph(nodes, "g", *infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(("opset", "in_branch"), [(9, False), (13, True), (15, False), (17, True)])
def test_running_statistics_have_masters_too(opset: int, in_branch: bool) -> None:
    """With a momentum of 0.999 a step moves them by less than float16 holds."""
    rng = np.random.default_rng(2)
    batches = [rng.standard_normal((64, 4)).astype(np.float16) + np.float16(4) for _ in range(400)]
    found = []
    for dtype, t in ((np.float16, TensorProto.FLOAT16), (np.float32, TensorProto.FLOAT)):
        trainer = Trainer(norm_model(t, opset, in_branch, 0.999), "mse", SGD(0.0))
        for x in batches:
            trainer.step(x.astype(dtype), np.zeros((64, 4)))
        state = trainer.model_state()
        assert state["mu"].dtype == state["va"].dtype == np.float32
        found.append(np.stack([state["mu"], state["va"]]))
        saved = initializers(trainer.model())
        for name in ("mu", "va"):
            assert saved[name].data_type == t
            np.testing.assert_array_equal(numpy_helper.to_array(saved[name]), state[name].astype(dtype))
        loss = trainer.evaluate(batches[0].astype(dtype), np.zeros((64, 4)))["loss"]
        y = trainer.predict(batches[0].astype(dtype)).astype(np.float32)
        np.testing.assert_allclose(loss, np.square(y).mean(), rtol=1e-3)
        fresh = tiercel.InferenceSession(trainer.model()).run(None, {"x": batches[0].astype(dtype)})[0]
        np.testing.assert_array_equal(fresh, trainer.predict(batches[0].astype(dtype)))
    assert found[1][0].max() < 4.75  # of 5 on the way to 4
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.parametrize("lora", [False, True])
def test_a_weight_beyond_its_type_is_not_written(tmp_path: Path, lora: bool) -> None:
    data, path = mlp("float16"), tmp_path / "m.onnx"
    trainer = Trainer(data, "mse", SGD(0.01), trainable=LoRA(1, targets="w1") if lora else "all")
    if lora:
        trainer.weights["w1.lora_a"][...] = trainer.weights["w1.lora_b"][...] = 300
    else:
        trainer.weights["w1"][0, 3] = 65510  # rounds to the largest
        assert np.isfinite(numpy_helper.to_array(initializers(trainer.model())["w1"])).all()
        trainer.weights["w1"][0, 3] = 70000
    for write in (trainer.model, lambda: trainer.save(path)):
        with pytest.raises(tiercel.errors.InvalidArgument, match=r'"w1" has grown beyond what float16.*65504.*Nothing was written'):
            write()
    assert not list(tmp_path.iterdir())
    trainer.save_checkpoint(tmp_path / "c")  # it has floats
    if lora:
        trainer.save_adapter(tmp_path / "a")
        with pytest.raises(ValueError, match="'w1' with its adapter is beyond what float16"):
            apply_adapter(data, tmp_path / "a")
