"""Models whose shapes change from call to call: small ones of the tests, some made here, and those of a zoo when it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "models" / "data"
Feeds = dict[str, np.ndarray]
Draw = Callable[[np.random.Generator], Feeds]


@dataclass
class Model:
    """An ONNX model (a path or bytes) and what draws inputs of random shapes for it."""

    name: str
    source: str | bytes
    draw: Draw


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def tokens(name: str, mask: str | None, vocabulary: int, batch: int, longest: int) -> Draw:
    def draw(rng: np.random.Generator) -> Feeds:
        shape = (int(rng.integers(1, batch + 1)), int(rng.integers(2, longest + 1)))
        feeds = {name: rng.integers(0, vocabulary, shape)}
        return feeds | ({mask: np.ones(shape, np.int64)} if mask else {})

    return draw


def images(name: str, batch: int, low: int, high: int, step: int) -> Draw:
    def draw(rng: np.random.Generator) -> Feeds:
        h, w = (int(v) * step for v in rng.integers(low, high + 1, 2))
        return {name: floats(rng, int(rng.integers(1, batch + 1)), 3, h, w)}

    return draw


def made(name: str, nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]], outputs: list[str],
         constants: dict[str, np.ndarray], draw: Draw) -> Model:  # fmt: skip
    """A model of these nodes on float inputs."""
    declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    fixed = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    graph = helper.make_graph(nodes, name, declared, [onnx.ValueInfoProto(name=o) for o in outputs], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Model(name, model.SerializeToString(), draw)


def decoder(heads: int = 4, head: int = 32, layers: int = 4, longest: int = 400) -> Model:
    """A step of a decoder: keys and values of the past come in, one token longer they go out."""
    rng, width, node = np.random.default_rng(0), heads * head, helper.make_node
    nodes: list[onnx.NodeProto] = []
    inputs: dict[str, list[int | str]] = {"x": ["batch", 1, width]}
    outputs: list[str] = []
    constants = {"split": np.array([0, 0, heads, head]), "join": np.array([0, 0, width]),
                 "scale": np.float32(head**-0.5)}  # fmt: skip
    h = "x"
    for i in range(layers):
        for part in "qkv":
            constants[f"w{part}{i}"] = floats(rng, width, width) / width**0.5
            nodes += [node("MatMul", [h, f"w{part}{i}"], [f"{part}0{i}"]), node("Reshape", [f"{part}0{i}", "split"], [f"{part}1{i}"]),
                      node("Transpose", [f"{part}1{i}"], [f"{part}{i}"], perm=[0, 2, 1, 3])]  # fmt: skip
        for part in "kv":
            inputs[f"past_{part}{i}"] = ["batch", heads, "past", head]
            outputs.append(f"present_{part}{i}")
            nodes.append(node("Concat", [f"past_{part}{i}", f"{part}{i}"], [f"present_{part}{i}"], axis=2))
        constants[f"wo{i}"] = floats(rng, width, width) / width**0.5
        nodes += [
            node("Transpose", [f"present_k{i}"], [f"kt{i}"], perm=[0, 1, 3, 2]), node("MatMul", [f"q{i}", f"kt{i}"], [f"s0{i}"]),
            node("Mul", [f"s0{i}", "scale"], [f"s{i}"]), node("Softmax", [f"s{i}"], [f"p{i}"], axis=-1),
            node("MatMul", [f"p{i}", f"present_v{i}"], [f"a0{i}"]), node("Transpose", [f"a0{i}"], [f"a1{i}"], perm=[0, 2, 1, 3]),
            node("Reshape", [f"a1{i}", "join"], [f"a{i}"]), node("MatMul", [f"a{i}", f"wo{i}"], [f"o{i}"]), node("Add", [h, f"o{i}"], [f"h{i}"]),
        ]  # fmt: skip
        h = f"h{i}"

    def draw(rng: np.random.Generator) -> Feeds:
        batch, past = int(rng.integers(1, 3)), int(rng.integers(0, longest))
        return {n: floats(rng, batch, 1, width) if n == "x" else floats(rng, batch, heads, past, head) for n in inputs}

    return made("decoder", nodes, inputs, [h, *outputs], constants, draw)


def selection(longest: int = 200) -> Model:
    """Rows that pass a threshold, through a layer: the data decide the shape."""
    rng, node = np.random.default_rng(0), helper.make_node
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0), node("Greater", ["m", "zero"], ["g"]), node("NonZero", ["g"], ["i0"]),
        node("Squeeze", ["i0", "first"], ["i"]), node("Gather", ["x", "i"], ["r"], axis=0), node("MatMul", ["r", "w"], ["h"]),
        node("Relu", ["h"], ["a"]), node("ReduceSum", ["a", "last"], ["s"], keepdims=0), node("Shape", ["i"], ["n"]),
        node("Concat", ["n", "two"], ["t"], axis=0), node("Expand", ["zero", "t"], ["e"]), node("Concat", ["a", "e"], ["y"], axis=1),
    ]  # fmt: skip
    constants = {
        "zero": np.float32(0),
        "first": np.array([0]),
        "last": np.array([1]),
        "two": np.array([2]),
        "w": floats(rng, 32, 16),
    }
    return made("selection", nodes, {"x": ["n", 32]}, ["y", "s"], constants,
                lambda rng: {"x": floats(rng, int(rng.integers(1, longest)), 32)})  # fmt: skip


def suppression(most: int = 200) -> Model:
    """Boxes, their scores, and what NonMaxSuppression leaves of them."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["scores0"], ["scores1"], perm=[0, 2, 1]), node("Sigmoid", ["scores1"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "low"], ["kept"]), node("Slice", ["kept", "at", "end", "axis"], ["b0"]),
        node("Squeeze", ["b0", "axis"], ["b"]), node("Squeeze", ["boxes", "first"], ["flat"]), node("Gather", ["flat", "b"], ["y"], axis=0),
    ]  # fmt: skip
    constants = {"most": np.array([50]), "iou": np.array([0.5], np.float32), "low": np.array([0.6], np.float32), "at": np.array([2]),
                 "end": np.array([3]), "axis": np.array([1]), "first": np.array([0])}  # fmt: skip

    def draw(rng: np.random.Generator) -> Feeds:
        n = int(rng.integers(1, most))
        corner = rng.random((1, n, 2), np.float32)
        return {
            "boxes": np.concatenate([corner, corner + rng.random((1, n, 2), np.float32) * np.float32(0.2)], 2),
            "scores0": floats(rng, 1, n, 3),
        }

    return made("suppression", nodes, {"boxes": [1, "n", 4], "scores0": [1, "n", 3]}, ["y", "kept"], constants, draw)


def convolutions(channels: int = 64, layers: int = 6) -> Model:
    """3x3 convolutions wide enough for Winograd's tiles, on images of any size."""
    rng, node = np.random.default_rng(0), helper.make_node
    nodes, constants, h = [], {}, "x"
    for i in range(layers):
        constants[f"w{i}"] = floats(rng, channels, channels if i else 3, 3, 3) / np.float32((9 * channels) ** 0.5)
        constants[f"b{i}"] = floats(rng, channels)
        nodes += [node("Conv", [h, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1, 1, 1, 1]), node("Relu", [f"c{i}"], [f"r{i}"])]
        h = f"r{i}"
    return made("convolutions", nodes, {"x": ["n", 3, "h", "w"]}, [h], constants, images("x", 2, 2, 80, 1))


def of_tests(name: str, draw: Draw) -> Model:
    return Model(name, str(DATA / f"{name}.onnx"), draw)


def small() -> list[Model]:
    return [
        of_tests("bert", tokens("input_ids", "attention_mask", 40, 4, 32)),
        of_tests("gpt2", tokens("input_ids", None, 40, 4, 32)),
        of_tests("llama", tokens("input_ids", None, 40, 4, 32)),
        of_tests("resnet", images("pixel_values", 2, 20, 120, 1)),
        of_tests("mobilenetv3", images("x", 2, 20, 120, 1)),
        of_tests("unet", images("x", 2, 2, 16, 8)),
        of_tests("recurrent", lambda r: {"x": floats(r, int(r.integers(1, 4)), int(r.integers(1, 80)), 10)}),
        of_tests("wavenet", lambda r: {"x": floats(r, int(r.integers(1, 3)), 16, int(r.integers(1, 400)))}),
        decoder(), selection(), suppression(), convolutions(),
    ]  # fmt: skip


def large(zoo: Path) -> list[Model]:
    """Those of the zoo with open extents (see bench/zoo.py)."""
    draws: dict[str, Draw] = {
        "mlp": lambda r: {"x": floats(r, int(r.integers(1, 200)), 64)},
        "bert_base": tokens("input_ids", "attention_mask", 30000, 1, 256),
        "wavenet": lambda r: {"x": floats(r, 1, 256, int(r.integers(200, 4000)))},
        "ppocr_det": images("x", 1, 3, 15, 32),
        "ppocr_rec": lambda r: {"x": floats(r, int(r.integers(1, 7)), 3, 48, int(r.integers(80, 640)))},
        "nudenet_yolov8n": images("images", 1, 5, 12, 32),
    }
    return [Model(n, str(zoo / f"{n}.onnx"), d) for n, d in draws.items() if (zoo / f"{n}.onnx").exists()]
