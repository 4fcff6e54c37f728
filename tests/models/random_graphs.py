"""Small random graphs: chains in the shapes that fusions, layouts and the memory plan look for, and close misses of them.

`draw(seed)` gives a model and its feeds. A graph is grown node by node, so the first n nodes of a seed are those of `draw(seed, n)`: a
failure is made small by lowering `nodes`.
"""

from __future__ import annotations

from collections.abc import Callable

import draw_activations as activations
import draw_images as images
import draw_movement as movement
import draw_rows as rows
import numpy as np
import onnx
from drawing import Drawing
from onnx import TensorProto, helper

IMAGE = [(images.conv, 8), (images.conv_transpose, 1), (images.affine, 1), (images.pool, 3), (images.resize, 1.5), (images.pad, 1)]
ROWS = [(rows.matmul, 5), (rows.attention, 3), (rows.norm, 4)]
OTHER = [
    *[(activations.activation, 2), (activations.binary, 5), (rows.softmax, 1), (movement.concat, 3), (movement.split, 2), (movement.cut, 1)],
    *[(movement.transpose, 2.5), (movement.reshape, 2.5), (movement.reduce, 2), (movement.gather, 0.7), (movement.tile, 0.7), (movement.same_again, 1)],
]
ALL = [*IMAGE, *ROWS, *OTHER]


def draw(seed: int, nodes: int = 1000, dynamic: bool | None = None) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model of a seed and its feeds. dynamic: the batch is a symbol of the model's inputs."""
    d = Drawing(seed)
    rng = d.rng
    image = d.chance(0.6)
    n = int(rng.integers(1, 4))
    if image:
        rank = d.pick([3, 4, 4, 4, 4, 5])
        shape = (n, d.pick([3, 8, 16, 17, 20, 32]), *(int(v) for v in rng.integers(3, 9, rank - 2)))
    else:
        shape = d.pick([(n, int(rng.integers(2, 8)), int(rng.integers(3, 40))), (int(rng.integers(1, 20)), int(rng.integers(2, 40)))])
    d.input(shape)
    if d.chance(0.3):
        d.input(shape)
    steps: list[Callable[[Drawing], None]] = [f for f, _ in ALL]
    weight = np.array([w * (2.5 if (image and (f, w) in IMAGE) or (not image and (f, w) in ROWS) else 1) for f, w in ALL])
    wanted = int(rng.integers(3, 14))
    for _ in range(60):
        if len(d.nodes) >= wanted:
            break
        steps[int(rng.choice(len(steps), p=weight / weight.sum()))](d)
    outputs_rng = np.random.default_rng(seed + 1)
    d.nodes = d.nodes[:nodes]
    made = {o for node in d.nodes for o in node.output}
    read = {i for node in d.nodes for i in node.input}
    outputs = [v for v in d.order if v in made and (v not in read or outputs_rng.random() < 0.2)]
    if not outputs:
        outputs = [v for v in d.order if v in made][-1:]
    if dynamic is None:
        dynamic = bool(outputs_rng.random() < 0.4)
    infos = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", *v.shape[1:]] if dynamic else v.shape) for x, v in d.feeds.items()]
    used = [t for t in d.inits if t.name in read]
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph(d.nodes, "random", infos, results, used)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", d.opset)], ir_version=9), d.feeds
