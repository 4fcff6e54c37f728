"""Matrix products, attention, norms and softmax, in the spellings of exporters or close misses of them."""

from __future__ import annotations

import numpy as np
from draw_activations import activation_of
from drawing import Drawing


def matmul(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s = d.shapes[x]
    k, n = s[-1], int(d.rng.integers(1, 40))
    if d.chance(0.2) and len(s) == 2:
        trans = int(d.chance(0.5))
        c = d.pick([(n,), (1, n), (s[0], 1), (1,), (s[0], n)])
        y = d.emit("Gemm", [x, d.weights(*((n, k) if trans else (k, n))), d.vector(*c)], (s[0], n), transB=trans, alpha=d.pick([1.0, 0.5]), beta=d.pick([1.0, 2.0]))
    elif d.chance(0.25) and (z := d.of_shape(s)):  # x zT, scaled
        perm = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
        y = d.emit("MatMul", [x, d.hidden("Transpose", [z], perm=perm)], (*s[:-1], s[-2]))
        y = d.emit(d.pick(["Mul", "Div"]), [y, d.const(d.pick([0.25, 0.3]))], d.shapes[y])
    else:
        batch = s[:-2] if d.chance(0.2) else ()
        y = d.emit("MatMul", [x, d.const(d.rng.normal(0, 1 / np.sqrt(k), (*batch, k, n)))], (*s[:-1], n))
    s = d.shapes[y]
    if d.chance(0.5):
        bias = d.pick([(s[-1],), (1, s[-1]), (s[-2], 1), (1,), (), s])
        y = d.two("Add", y, d.vector(*bias), s)
    if d.chance(0.3) and (z := d.of_shape(s, y)):
        y = d.two("Add", y, z, s)
    if d.chance(0.5):
        activation_of(d, y)


def norm(d: Drawing) -> None:
    x = d.of_rank(2, 3, 4)
    if not x:
        return
    s, h = d.shapes[x], d.hidden
    rank = len(s)
    kind = d.pick(["layer", "spelled", "rms", "instance", "group", "l2", "batch"])
    if kind in ("spelled", "rms"):
        axes = d.pick([[rank - 1], [-1], [1], list(range(max(1, rank - 2), rank)), [0]])
        named = {"axes": axes} if d.opset < 18 else {}
        extra = [] if d.opset < 18 else [d.const(axes, "int64")]
        centered = x if kind == "rms" else h("Sub", [x, h("ReduceMean", [x, *extra], keepdims=1, **named)])
        square = h("Pow", [centered, d.const(2.0)]) if d.chance(0.5) else h("Mul", [centered, centered])
        spread = h("Sqrt", [h("Add", [h("ReduceMean", [square, *extra], keepdims=1, **named), d.const(d.pick([1e-5, 1e-2]))])])
        y = d.emit("Div", [centered, spread], s) if d.chance(0.6) else d.two("Mul", centered, h("Reciprocal", [spread]), s)
        shape = d.pick([(s[-1],), tuple(s[a] if a - rank in axes or a in axes else 1 for a in range(rank)), (s[1], *([1] * (rank - 2)))])
        if d.chance(0.7):
            y = d.two("Mul", y, d.positive(*shape), s)
        if d.chance(0.7):
            y = d.two("Add", y, d.vector(*shape), s)
    elif kind == "layer" and d.opset >= 17:
        axis = d.pick([-1, rank - 1, 1])
        shape = s[axis % rank :]
        inputs = [x, d.positive(*shape)] + ([d.vector(*shape)] if d.chance(0.6) else [])
        if d.chance(0.4) and (z := d.of_shape(s, x)):
            inputs[0] = d.two("Add", x, z, s)
        y = d.emit("LayerNormalization", inputs, s, axis=axis, epsilon=1e-3)
    elif kind == "instance" and rank > 2:
        y = d.emit("InstanceNormalization", [x, d.positive(s[1]), d.vector(s[1])], s, epsilon=1e-2)
    elif kind == "group" and rank > 2:
        g = d.pick([g for g in (1, 2, 4) if s[1] % g == 0])
        t = h("Reshape", [x, d.const([0, g, -1], "int64")])
        one = d.chance(0.7)
        t = h("InstanceNormalization", [t, d.const(np.ones(g)) if one else d.positive(g), d.const(np.zeros(g)) if one else d.vector(g)], epsilon=1e-2)
        y = d.emit("Reshape", [t, d.const(s, "int64")], s)
        c = (s[1], *([1] * (rank - 2)))
        y = d.emit("Mul", [y, d.positive(*c)], s)
        y = d.emit("Add", [y, d.vector(*c)], s)
    elif kind == "l2":
        named, extra = ({}, [d.const([-1], "int64")]) if d.opset >= 18 else ({"axes": [-1]}, [])
        length = h("ReduceL2", [x, *extra], keepdims=1, **named)
        y = d.emit("Div", [x, h("Clip", [length, d.const(1e-2)]) if d.chance(0.5) else h("Add", [length, d.const(1e-2)])], s)
    elif kind == "batch":
        y = d.emit("BatchNormalization", [x, d.positive(s[1]), d.vector(s[1]), d.vector(s[1]), d.positive(s[1])], s)
    else:
        return
    if d.chance(0.4):
        activation_of(d, y)


def softmax(d: Drawing) -> None:
    x = d.of_rank(1, 2, 3, 4)
    if x:
        s = d.shapes[x]
        d.emit(d.pick(["Softmax", "LogSoftmax", "Softmax"]), [x], s, axis=int(d.rng.integers(-len(s), len(s))))


def attention(d: Drawing) -> None:
    x = d.of_rank(3)
    if not x:
        return
    b, t, c = d.shapes[x]
    heads, size = d.pick([1, 2, 3]), int(d.rng.integers(2, 10))
    h = d.hidden
    inner = heads * size

    def project() -> str:
        y = h("MatMul", [x, d.weights(c, inner)])
        if d.chance(0.6):
            y = h("Add", [y, d.vector(inner)])
        return h("Reshape", [y, d.const([0, 0, heads, size], "int64")])

    q, v = (h("Transpose", [project()], perm=[0, 2, 1, 3]) for _ in range(2))
    k = h("Transpose", [project()], perm=[0, 2, 3, 1])
    if d.chance(0.3):
        q = h("Mul", [q, d.const(0.6)])
    s = h("MatMul", [q, k])
    s = h(*d.pick([("Mul", [s, d.const(size**-0.5)]), ("Div", [s, d.const(size**0.5)])]))
    if d.chance(0.5):
        mask = d.pick([(t, t), (1, 1, t, t), (b, 1, 1, t), (1, heads, t, t), (1,)])
        s = h("Add", [s, d.vector(*mask)])
    elif d.chance(0.3):
        s = h("Where", [d.const(d.rng.random((t, t)) < 0.7, "bool"), s, d.const(d.pick([-1e4, -1e30, -3e38]))])
    p = d.emit("Softmax", [s], (b, heads, t, t) if d.chance(0.3) else None, axis=d.pick([-1, 3]))
    y = h("Transpose", [h("MatMul", [p, v])], perm=[0, 2, 1, 3])
    y = h("Reshape", [y, d.const([0, 0, inner], "int64")])
    y = h("MatMul", [y, d.weights(inner, c)])
    d.two("Add", x, h("Add", [y, d.vector(c)]), d.shapes[x])
