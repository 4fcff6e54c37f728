"""Gradients of sequences and optionals: what is put in, taken out, split and joined, and done to each item."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from body_models import DOUBLE, against_torch, check, draw, info
from grad_cases import covers
from onnx import TensorProto, helper


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
