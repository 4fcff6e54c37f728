"""Operators that move elements, and reductions."""

from __future__ import annotations

import numpy as np
from draw_activations import activation_of
from drawing import Drawing
from onnx import TensorProto, helper


def concat(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    axis = int(d.rng.integers(len(s)))
    parts = [v for v in d.order if len(d.shapes[v]) == len(s) and all(a == b for i, (a, b) in enumerate(zip(d.shapes[v], s, strict=True)) if i != axis)]
    chosen = [x] + [d.pick(parts) for _ in range(int(d.rng.integers(0, 3)))]
    extent = sum(d.shapes[v][axis] for v in chosen)
    if extent > 80:
        return
    shape = list(s)
    shape[axis] = extent
    d.emit("Concat", chosen, tuple(shape), axis=axis - (len(s) if d.chance(0.3) else 0))


def split(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    axis = int(d.rng.integers(len(s)))
    if s[axis] < 2:
        return
    cut = int(d.rng.integers(1, s[axis]))
    if s[axis] > 16 and d.chance(0.5):
        cut = 16
    sizes = [cut, s[axis] - cut]
    outs = [d.name(), d.name()]
    d.nodes.append(helper.make_node("Split", [x, d.const(sizes, "int64")], outs, axis=axis))
    for o, e in zip(outs, sizes, strict=True):
        d.shapes[o] = (*s[:axis], e, *s[axis + 1 :])
        d.order.append(o)
    if sizes[0] == sizes[1] and d.chance(0.5):
        d.two("Mul", outs[0], d.hidden("Sigmoid", [outs[1]]), d.shapes[outs[0]])


def cut(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4)
    if not x:
        return
    s = list(d.shapes[x])
    axis = int(d.rng.integers(len(s)))
    step = d.pick([1, 1, 2, -1])
    start, stop = sorted(d.rng.integers(0, s[axis] + 1, 2).tolist())
    indices = range(s[axis])[start:stop:step] if step > 0 else range(s[axis])[::-1]
    if not len(indices):
        return
    if step < 0:
        start, stop = s[axis] - 1, -(s[axis] + 1)
    s[axis] = len(indices)
    d.emit("Slice", [x, *(d.const([v], "int64") for v in (start, stop, axis, step))], tuple(s))


def transpose(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    perm = d.rng.permutation(len(s)).tolist()
    y = d.emit("Transpose", [x], tuple(s[p] for p in perm), perm=perm)
    if d.chance(0.5):  # something between two that undo each other
        if d.chance(0.7):
            y = activation_of(d, y)
        if d.chance(0.3):
            z = d.of_shape(d.shapes[y], y)
            y = d.two("Add", y, z, d.shapes[y]) if z else y
        back = np.argsort(perm).tolist()
        d.emit("Transpose", [y], tuple(d.shapes[y][p] for p in back), perm=back)


def reshape(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    kind = d.pick(["merge", "part", "flatten", "squeeze", "unsqueeze", "shape"])
    if kind == "merge" and len(s) > 1:
        i = int(d.rng.integers(len(s) - 1))
        target = (*s[:i], s[i] * s[i + 1], *s[i + 2 :])
        d.emit("Reshape", [x, d.const([-1 if j == i else e for j, e in enumerate(target)], "int64")], target)
    elif kind == "part" and len(s) < 5:
        i = int(d.rng.integers(len(s)))
        f = d.pick([f for f in (1, 2, 3, 4) if s[i] % f == 0])
        target = (*s[:i], f, s[i] // f, *s[i + 1 :])
        d.emit("Reshape", [x, d.const([0 if j < i else e for j, e in enumerate(target)], "int64")], target)
    elif kind == "flatten":
        a = int(d.rng.integers(len(s) + 1))
        d.emit("Flatten", [x], (int(np.prod(s[:a])), int(np.prod(s[a:]))), axis=a)
    elif kind == "squeeze" and 1 in s and len(s) > 1:
        i = s.index(1)
        d.emit("Squeeze", [x, d.const([i], "int64")], (*s[:i], *s[i + 1 :]))
    elif kind == "unsqueeze" and len(s) < 5:
        i = int(d.rng.integers(len(s) + 1))
        d.emit("Unsqueeze", [x, d.const([i], "int64")], (*s[:i], 1, *s[i:]))
    elif kind == "shape" and len(s) > 1:  # [d0, -1] computed at run time
        first = d.hidden("Gather", [d.hidden("Shape", [x]), d.const([0], "int64")])
        d.emit("Reshape", [x, d.hidden("Concat", [first, d.const([-1], "int64")], axis=0)], (s[0], int(np.prod(s[1:]))))


def reduce(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4, 5)
    if not x:
        return
    s = d.shapes[x]
    op = d.pick(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceL1", "ReduceSumSquare"])
    axes = sorted(d.rng.choice(len(s), int(d.rng.integers(1, len(s))), replace=False).tolist())
    if len(s) == 4 and d.chance(0.5):
        axes = [2, 3]
    keep = int(d.chance(0.7))
    target = tuple(1 if i in axes else e for i, e in enumerate(s)) if keep else tuple(e for i, e in enumerate(s) if i not in axes)
    if op == "ReduceSum" or d.opset >= 18:
        y = d.emit(op, [x, d.const(axes, "int64")], target, keepdims=keep)
    else:
        y = d.emit(op, [x], target, axes=axes, keepdims=keep)
    if keep and d.chance(0.5):
        d.two(d.pick(["Add", "Sub", "Mul"]), x, d.hidden("Tanh", [y]), s)


def gather(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    axis = int(d.rng.integers(len(s)))
    index = d.rng.integers(-s[axis], s[axis], d.pick([(), (2,), (3, 2), (1,)]))
    if len(s) - 1 + index.ndim in (1, 2, 3, 4):
        d.emit("Gather", [x, d.const(index, "int64")], (*s[:axis], *index.shape, *s[axis + 1 :]), axis=axis)


def tile(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    if d.chance(0.5):
        times = [int(d.rng.integers(1, 3)) for _ in s]
        if np.prod(times) * np.prod(s) < 4000:
            d.emit("Tile", [x, d.const(times, "int64")], tuple(a * b for a, b in zip(s, times, strict=True)))
    elif 1 in s:
        target = tuple(3 if e == 1 else e for e in s)
        y = d.emit("Expand", [x, d.const(target, "int64")], target)
        d.two("Add", y, d.vector(*target), target)


def same_again(d: Drawing) -> None:
    """A node that is there already, under another name; or a copy, perhaps through types."""
    if d.chance(0.5) and d.nodes:
        n = d.pick(d.nodes)
        if len(n.output) == 1 and n.output[0] in d.shapes:
            d.emit(n.op_type, list(n.input), d.shapes[n.output[0]], **{a.name: helper.get_attribute_value(a) for a in n.attribute})
            return
    x = d.of_rank(1, 2, 3, 4)
    if x:
        op = d.pick(["Identity", "Dropout", "Cast"])
        d.emit(op, [x], d.shapes[x], **({"to": TensorProto.FLOAT} if op == "Cast" else {}))
