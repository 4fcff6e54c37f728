"""Gradients of sequences and optionals: what is put in, taken out, split and joined, and done to each item."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from body_models import DOUBLE, against_torch, check, draw, info, model_of
from grad_cases import TIERCEL, covers
from onnx import TensorProto, helper

import tiercel
from tiercel import _core


def sequence_nodes(position: str) -> list[onnx.NodeProto]:
    """[x, y] with z put in at a position, w taken away at another, one of them out, and all of them joined."""
    return [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s0"]),
        helper.make_node("SequenceInsert", ["s0", "z", position], ["s1"]),
        helper.make_node("SequenceInsert", ["s1", "w"], ["s2"]),
        helper.make_node("SequenceErase", ["s2", "erased"], ["s3"]),
        helper.make_node("SequenceAt", ["s3", "taken"], ["one"]),
        helper.make_node("Exp", ["one"], ["a"]),
        helper.make_node("ConcatFromSequence", ["s3"], ["joined"], axis=-1),
        helper.make_node("Sin", ["joined"], ["b"]),
    ]


@pytest.mark.parametrize("position", [0, 1, -1])
@pytest.mark.parametrize("erased", [0, 2, -1, -3])
@covers("differences", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "ConcatFromSequence")
def test_sequences(position: int, erased: int) -> None:
    feeds = {"x": draw(2, 1), "y": draw(2, 2), "z": draw(2, 3), "w": draw(2, 1, seed=7)}
    weights = {"p": np.array(position), "erased": np.array(erased), "taken": np.array(-2)}
    check(sequence_nodes("p"), feeds, ["a", "b"], ["x", "y", "z", "w"], weights)


@pytest.mark.parametrize("erased", [0, -2])
@covers("PyTorch", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "ConcatFromSequence")
def test_sequences_against_torch(erased: int) -> None:
    def same(t: Any, v: Any) -> Any:
        items = [v["x"], v["y"]]
        items.insert(1, v["z"])
        items.append(v["w"])
        del items[erased]
        return items[-2].exp(), t.cat(items, -1).sin()

    feeds = {"x": draw(2, 1), "y": draw(2, 2), "z": draw(2, 3), "w": draw(2, 1, seed=7)}
    weights = {"p": np.array(1), "erased": np.array(erased), "taken": np.array(-2)}
    wrt = [n for n in feeds if n != ("x" if erased == 0 else "y")]
    against_torch(sequence_nodes("p"), feeds, ["a", "b"], wrt, same, weights)


def split_nodes(keepdims: int = 1, by: str = "split") -> list[onnx.NodeProto]:
    return [
        helper.make_node("SplitToSequence", ["x", by] if by else ["x"], ["s"], axis=1, keepdims=keepdims),
        helper.make_node("SequenceAt", ["s", "one"], ["item"]),
        helper.make_node("Optional", ["item"], ["maybe"]),
        helper.make_node("OptionalGetElement", ["maybe"], ["item2"]),
        helper.make_node("Exp", ["item2"], ["y"]),
    ]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("split", [None, np.array(2), np.array([1, 3])])
@covers("differences", "SplitToSequence", "Optional", "OptionalGetElement")
def test_split_and_optional(keepdims: int, split: Any) -> None:
    if split is not None and not keepdims:
        pytest.skip("keepdims has no meaning")
    weights = {"one": np.array(1), **({} if split is None else {"split": split})}
    check(split_nodes(keepdims, "" if split is None else "split"), {"x": draw(2, 4)}, ["y"], ["x"], weights)


@covers("PyTorch", "SplitToSequence", "Optional", "OptionalGetElement")
def test_split_and_optional_against_torch() -> None:
    weights = {"one": np.array(1), "split": np.array([1, 3])}
    against_torch(split_nodes(), {"x": draw(2, 4)}, ["y"], ["x"], lambda t, v: [v["x"].split([1, 3], 1)[1].exp()], weights)


def map_nodes() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["item", "w"], ["m"]),
            helper.make_node("Mul", ["m", "each"], ["m2"]),
            helper.make_node("Tanh", ["m2"], ["out"]),
        ],
        "body",
        [info("item"), info("each")],
        [info("out")],
    )
    return [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_node("SequenceMap", ["s", "k"], ["t"], body=body),
        helper.make_node("ConcatFromSequence", ["t"], ["z"], axis=0),
    ]


@covers("differences", "SequenceMap")
def test_sequence_map() -> None:
    feeds = {"x": draw(2, 3), "y": draw(1, 3), "k": draw(3)}
    check(map_nodes(), feeds, ["z"], ["x", "y", "k", "w"], {"w": draw(3, seed=3)})


@covers("PyTorch", "SequenceMap")
def test_sequence_map_against_torch() -> None:
    feeds = {"x": draw(2, 3), "y": draw(1, 3), "k": draw(3)}
    same = lambda t, v: [t.cat([(i * v["w"] * v["k"]).tanh() for i in (v["x"], v["y"])])]  # noqa: E731
    against_torch(map_nodes(), feeds, ["z"], ["x", "y", "k", "w"], same, {"w": draw(3, seed=3)})


def test_loop_that_appends_to_a_sequence() -> None:
    """What exporters write for a list that grows."""
    nodes = [
        helper.make_node("Mul", ["s", "w"], ["m"]),
        helper.make_node("Sin", ["m"], ["s1"]),
        helper.make_node("SequenceInsert", ["list", "s1"], ["list1"]),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("s"), sequence("list", DOUBLE, None)],
        [info("go", [], TensorProto.BOOL), info("s1"), sequence("list1", DOUBLE, None)],
    )
    outer = [
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=DOUBLE),
        helper.make_node("Loop", ["n", "", "s0", "empty"], ["s", "all"], body=body),
        helper.make_node("ConcatFromSequence", ["all"], ["y"], axis=0, new_axis=1),
    ]
    check(outer, {"s0": draw(3), "w": draw(3, seed=1), "n": np.array(4)}, ["s", "y"], ["s0", "w"])


# ---- ai.tiercel: what gradients of SequenceAt are made of


def add_nodes() -> list[onnx.NodeProto]:
    """[x, y + 2 z, w]"""
    return [
        helper.make_node("SequenceConstruct", ["x", "y", "w"], ["s"]),
        helper.make_node("SequenceAddAt", ["s", "p", "z"], ["s1"], domain=TIERCEL),
        helper.make_node("SequenceAddAt", ["s1", "p", "z"], ["s2"], domain=TIERCEL),
        helper.make_node("ConcatFromSequence", ["s2"], ["c"], axis=0),
        helper.make_node("Exp", ["c"], ["out"]),
    ]


ADDED = {"x": draw(2, 3), "y": draw(4, 3), "w": draw(1, 3), "z": draw(4, 3, seed=5)}


@pytest.mark.parametrize("position", [1, -2])
@covers("differences", "SequenceAddAt", domain=TIERCEL)
def test_adding_at_a_place(position: int) -> None:
    check(add_nodes(), ADDED, ["out"], list(ADDED), {"p": np.array(position)}, domains=[TIERCEL])


@covers("PyTorch", "SequenceAddAt", domain=TIERCEL)
def test_adding_at_a_place_against_torch() -> None:
    same = lambda t, v: [t.cat([v["x"], v["y"] + 2 * v["z"], v["w"]]).exp()]  # noqa: E731
    against_torch(add_nodes(), ADDED, ["out"], list(ADDED), same, {"p": np.array(1)}, [TIERCEL])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_zeros_and_sums_in_every_type(dtype: Any) -> None:
    kind = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "y"], ["s"]),
        helper.make_node("SequenceZeros", ["s"], ["none"], domain=TIERCEL),
        helper.make_node("SequenceAddAt", ["none", "p", "y"], ["once"], domain=TIERCEL),
        helper.make_node("SequenceAddAt", ["once", "p", "y"], ["twice"], domain=TIERCEL),
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=kind),
        helper.make_node("SequenceZeros", ["empty"], ["still"], domain=TIERCEL),
        helper.make_node("SequenceLength", ["still"], ["n"]),
    ]
    x, y = draw(2, 3).astype(dtype), draw(0, 4).astype(dtype) if dtype == np.float64 else draw(5).astype(dtype)
    session = tiercel.InferenceSession(model_of(nodes, {"x": x, "y": y, "p": np.array(-1)}, ["none", "twice", "n"], domains=[TIERCEL]).SerializeToString())
    none, twice, n = session.run(None, {"x": x, "y": y, "p": np.array(-1)})
    assert [z.shape for z in none] == [x.shape, y.shape] and not any(z.any() for z in none) and n == 0
    np.testing.assert_array_equal(twice[1], y + y)
    assert twice[0].dtype == dtype and not twice[0].any()
    with pytest.raises(tiercel.errors.Error, match=r"SequenceAddAt.*does not fit the item"):
        session.run(None, {"x": x, "y": y, "p": np.array(0)})
    with pytest.raises(tiercel.errors.Error, match=r"SequenceAddAt.*position 2 is outside the sequence of 2"):
        session.run(None, {"x": x, "y": y, "p": np.array(2)})


def test_reading_all_items_is_linear() -> None:
    """Each read adds one item to the gradient, wherever it is: no pass over the whole sequence for each."""
    n = 12
    nodes = [helper.make_node("SplitToSequence", ["x"], ["s"], axis=0)]
    nodes += [helper.make_node("SequenceAt", ["s", f"i{k}"], [f"a{k}"]) for k in range(n)]
    nodes += [helper.make_node("Sin", [f"a{k}"], [f"b{k}"]) for k in range(n)]
    nodes.append(helper.make_node("Sum", [f"b{k}" for k in range(n)], ["y"]))
    places = {f"i{k}": np.array(k * 5 % n) for k in range(n)}
    check(nodes, {"x": draw(n, 2)}, ["y"], ["x"], places)
    data = _core.gradient_model(model_of(nodes, {"x": draw(n, 2)}, ["y"], places).SerializeToString(), "", [], ["x"])
    kinds = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert "SequenceMap" not in kinds and kinds.count("SequenceAddAt") <= 2 * n


@pytest.mark.parametrize("times", [1, 3])
def test_reading_items_in_a_loop(times: int) -> None:
    """Some of them more than once, others never, beside a use of the whole."""
    body = helper.make_graph(
        [
            helper.make_node("Mod", ["i", "three"], ["k"]),
            helper.make_node("SequenceAt", ["s", "k"], ["item"]),
            helper.make_node("Mul", ["h", "item"], ["m"]),
            helper.make_node("Tanh", ["m"], ["h1"]),
            helper.make_node("Identity", ["c"], ["go"]),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("h")],
        [info("go", [], TensorProto.BOOL), info("h1")],
    )
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
        helper.make_node("Loop", ["n", "", "h0"], ["h"], body=body),
        helper.make_node("ConcatFromSequence", ["s"], ["joined"], axis=0),
        helper.make_node("Mul", ["joined", "h"], ["y"]),
    ]
    check(nodes, {"x": draw(4, 2), "h0": draw(1, 2)}, ["y"], ["x", "h0"], {"n": np.array(times * 2), "three": np.array(3)})
