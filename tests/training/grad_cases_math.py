"""Cases of arithmetic, products, reductions and movement."""

from __future__ import annotations

import numpy as np
from grad_cases import TIERCEL, Case, Draw, case


def single(v: float) -> float:
    """As an attribute holds it."""
    return float(np.float32(v))


# How values are drawn, and PyTorch's.
POINTWISE = {
    "Abs": ("any", lambda t, x: x.abs()),
    "Neg": ("any", lambda t, x: -x),
    "Exp": ("any", lambda t, x: x.exp()),
    "Log": ("positive", lambda t, x: x.log()),
    "Sqrt": ("positive", lambda t, x: x.sqrt()),
    "Reciprocal": ("any", lambda t, x: x.reciprocal()),
    "Sin": ("any", lambda t, x: x.sin()),
    "Cos": ("any", lambda t, x: x.cos()),
    "Tan": ("small", lambda t, x: x.tan()),
    "Asin": ("small", lambda t, x: x.asin()),
    "Acos": ("small", lambda t, x: x.acos()),
    "Atan": ("any", lambda t, x: x.atan()),
    "Sinh": ("any", lambda t, x: x.sinh()),
    "Cosh": ("any", lambda t, x: x.cosh()),
    "Asinh": ("any", lambda t, x: x.asinh()),
    "Acosh": ("above", lambda t, x: x.acosh()),
    "Atanh": ("small", lambda t, x: x.atanh()),
    "Erf": ("any", lambda t, x: x.erf()),
    "Identity": ("any", lambda t, x: x * 1),
    "Relu": ("any", lambda t, x: x.relu()),
    "Sigmoid": ("any", lambda t, x: x.sigmoid()),
    "Tanh": ("any", lambda t, x: x.tanh()),
    "LeakyRelu": ("any", lambda t, x: t.nn.functional.leaky_relu(x, single(0.01))),
    "Elu": ("any", lambda t, x: t.nn.functional.elu(x)),
    "Celu": ("any", lambda t, x: t.nn.functional.celu(x)),
    "Selu": ("any", lambda t, x: single(1.05070102214813232421875) * t.nn.functional.elu(x, single(1.67326319217681884765625))),
    "Softplus": ("any", lambda t, x: t.nn.functional.softplus(x)),
    "Softsign": ("any", lambda t, x: t.nn.functional.softsign(x)),
    "HardSwish": ("any", lambda t, x: x * (single(1 / 6) * x + 0.5).clamp(0, 1)),
    "Gelu": ("any", lambda t, x: t.nn.functional.gelu(x)),
    "Mish": ("any", lambda t, x: t.nn.functional.mish(x)),
    "Swish": ("any", lambda t, x: t.nn.functional.silu(x)),
    "HardSigmoid": ("any", lambda t, x: (single(0.2) * x + 0.5).clamp(0, 1)),
    "ThresholdedRelu": ("any", lambda t, x: t.nn.functional.threshold(x, 1, 0)),
    "Shrink": ("any", lambda t, x: t.nn.functional.hardshrink(x, 0.5)),
}


@case(*POINTWISE)
def drawn(d: Draw, op: str) -> Case:
    how, same = POINTWISE[op]
    return Case([getattr(d, how)(*d.any_shape())], torch=same)


@case("Swish")
def slope(d: Draw, op: str) -> Case:
    alpha = float(np.float32(d.rng.choice([0.5, 2.5, -1.3])))
    return Case([d.any(*d.any_shape())], {"alpha": alpha}, lambda t, x: x * (alpha * x).sigmoid())


@case("Silu", domain=TIERCEL)
def tiercels(d: Draw, op: str) -> Case:
    alpha = float(np.float32(d.rng.choice([1.0, 1.7])))
    return Case([d.any(*d.any_shape())], {"alpha": alpha}, lambda t, x: x * (alpha * x).sigmoid(), opset=1)


@case("Cast", "CastLike")
def to_double(d: Draw, op: str) -> Case:
    x = d.any(*d.any_shape())
    given = ([x], {"to": 11}) if op == "Cast" else ([x, np.zeros(2)], {})
    return Case(*given, lambda t, x, *_: x.double(), wrt=[0])


@case("Cast", "CastLike")
def to_float(d: Draw, op: str) -> Case:
    x = d.rng.integers(-64, 65, d.any_shape()) / 64  # what float holds exactly, the steps too
    given = ([x], {"to": 1}) if op == "Cast" else ([x, np.zeros((0, 2), np.float32)], {})
    return Case(*given, lambda t, x, *_: x.float(), wrt=[0], check={"step": 2**-6, "rtol": 1e-4, "atol": 1e-4})


BROADCAST = {
    "Add": lambda t, a, b: a + b,
    "Sub": lambda t, a, b: a - b,
    "Mul": lambda t, a, b: a * b,
    "Div": lambda t, a, b: a / b,
    "Pow": lambda t, a, b: a**b,
    "Sum": lambda t, a, b: a + b,
    "Mean": lambda t, a, b: (a + b) / 2,
    "Max": lambda t, a, b: t.maximum(a, b),
    "Min": lambda t, a, b: t.minimum(a, b),
    "Mod": lambda t, a, b: t.fmod(a, b),
    "PRelu": lambda t, a, b: t.where(a < 0, a * b, a),
}


@case(*BROADCAST)
def two_operands(d: Draw, op: str) -> Case:
    shape = d.any_shape()
    draw = d.positive if op == "Pow" else d.any
    shapes = [shape, d.broadcast(shape)]
    if op != "PRelu" and d.rng.random() < 0.5:
        shapes.reverse()
    a, b = (draw(*s) for s in shapes)
    if op == "Mod":
        b = np.sign(b) * 0.25 + 0 * b  # |a| above: quotients away from whole numbers
        a = np.sign(a) * (d.rng.integers(1, 5, a.shape) * 0.25 + 0.1)
    return Case([a, b], {"fmod": 1} if op == "Mod" else {}, BROADCAST[op], check={"step": 1e-6} if op == "Mod" else {})


@case("Where")
def chosen(d: Draw, op: str) -> Case:
    shape = d.any_shape()
    inputs = [d.rng.random(d.broadcast(shape)) < 0.5, d.any(*d.broadcast(shape)), d.any(*shape)]
    return Case(inputs, torch=lambda t, c, a, b: t.where(c, a, b))


@case("Clip")
def between(d: Draw, op: str) -> Case:
    return Case([d.any(*d.any_shape()), np.array(-0.71), np.array(0.83)], torch=lambda t, x, a, b: x.clamp(a, b))


@case("SumTo", domain=TIERCEL)
def gathered(d: Draw, op: str) -> Case:
    shape = d.any_shape()
    small = d.broadcast(shape)
    return Case([d.any(*shape), np.array(small, np.int64)], torch=lambda t, x, _: x.sum_to_size(small), opset=1, constants=[1])


REDUCTIONS = {
    "ReduceSum": lambda t, x, axes, keep: x.sum(axes, keep),
    "ReduceMean": lambda t, x, axes, keep: x.mean(axes, keep),
    "ReduceMax": lambda t, x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda t, x, axes, keep: x.amin(axes, keep),
    "ReduceProd": lambda t, x, axes, keep: x.log().sum(axes, keep).exp(),
    "ReduceL1": lambda t, x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda t, x, axes, keep: (x * x).sum(axes, keep).sqrt(),
    "ReduceSumSquare": lambda t, x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSum": lambda t, x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda t, x, axes, keep: x.logsumexp(axes, keep),
}


@case(*REDUCTIONS)
def over_axes(d: Draw, op: str) -> Case:
    shape = d.shape(1, 5)
    axes = sorted(d.rng.permutation(len(shape))[: d.rng.integers(1, len(shape) + 1)].tolist())
    given = [a - len(shape) if d.rng.random() < 0.5 else a for a in axes]
    x = d.distinct(*shape) if op in ("ReduceMax", "ReduceMin") else d.positive(*shape)
    keep = int(d.rng.integers(2))
    return Case([x, np.array(given)], {"keepdims": keep}, lambda t, x, _: REDUCTIONS[op](t, x, axes, bool(keep)), constants=[1])


@case("MatMul")
def product(d: Draw, op: str) -> Case:
    n, k, m = d.rng.integers(1, 8, 3).tolist()
    lead = d.shape(0, 3)
    inputs = [d.any(*lead, n, k), d.any(*d.broadcast(lead), k, m)]
    return Case(inputs, torch=lambda t, a, b: a @ b)


@case("Gemm")
def affine(d: Draw, op: str) -> Case:
    n, k, m = d.rng.integers(1, 8, 3).tolist()
    ta, tb = d.rng.integers(0, 2, 2).tolist()
    inputs = [d.any(*((k, n) if ta else (n, k))), d.any(*((m, k) if tb else (k, m))), d.any(*d.broadcast((n, m)))]
    return Case(inputs, {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0},
                lambda t, a, b, c: 0.5 * ((a.T if ta else a) @ (b.T if tb else b)) + 2 * c)  # fmt: skip


@case("Einsum")
def labels(d: Draw, op: str) -> Case:
    equation, shapes = [("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("ij,kj->", [(3, 4), (2, 4)]), ("iij,j->i", [(3, 3, 2), (2,)])][int(d.rng.integers(3))]
    return Case([d.any(*s) for s in shapes], {"equation": equation}, lambda t, *x: t.einsum(equation, *x))


@case("Det")
def square(d: Draw, op: str) -> Case:
    n = int(d.rng.integers(1, 6))
    return Case([d.any(*d.shape(0, 3), n, n)], torch=lambda t, x: t.linalg.det(x), check={"rtol": 1e-5})


@case("CumSum", "CumProd")
def running(d: Draw, op: str) -> Case:
    shape = d.shape(1, 4)
    axis, back = d.axis(len(shape)), int(d.rng.integers(2))

    def same(t, x, _):
        run = t.cumsum if op == "CumSum" else t.cumprod
        return run(x.flip(axis), axis).flip(axis) if back else run(x, axis)

    return Case([d.any(*shape), np.array(axis)], {"reverse": back}, same)


# ---- Movement


@case("Transpose")
def turned(d: Draw, op: str) -> Case:
    shape = d.any_shape()
    perm = d.rng.permutation(len(shape)).tolist()
    return Case([d.any(*shape)], {"perm": perm}, lambda t, x: x.permute(perm))


@case("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshaped(d: Draw, op: str) -> Case:
    shape = list(d.shape(1, 4))
    axis = d.axis(len(shape) + 1)
    if op == "Flatten":
        return Case([d.any(*shape)], {"axis": axis if axis != -len(shape) - 1 else 0}, lambda t, x: x.reshape(int(np.prod(shape[: axis if axis >= 0 else axis % len(shape)])), -1))
    if op == "Reshape":
        return Case([d.any(*shape), np.array([-1, shape[-1]])], {}, lambda t, x, _: x.reshape(-1, shape[-1]), constants=[1])
    if op == "Unsqueeze":
        return Case([d.any(*shape), np.array([axis])], {}, lambda t, x, _: x.unsqueeze(axis), constants=[1])
    place = axis if axis >= 0 else axis + len(shape) + 1
    return Case([d.any(*shape[:place], 1, *shape[place:]), np.array([axis])], {}, lambda t, x, _: x.squeeze(axis), constants=[1])


@case("Expand", "Tile")
def repeated(d: Draw, op: str) -> Case:
    shape = d.any_shape()
    if op == "Tile":
        times = d.rng.integers(1, 4, len(shape))
        return Case([d.any(*shape), times], {}, lambda t, x, _: x.repeat(*times.tolist()) if len(shape) else x * 1, constants=[1])
    return Case([d.any(*d.broadcast(shape)), np.array(shape, np.int64)], {}, lambda t, x, _: x.expand(shape), constants=[1])


@case("Concat")
def joined(d: Draw, op: str) -> Case:
    shape = list(d.shape(1, 4))
    axis = d.axis(len(shape))
    parts = []
    for n in d.rng.integers(0, 4, 3).tolist():
        shape[axis] = n
        parts.append(d.any(*shape))
    return Case(parts, {"axis": axis}, lambda t, *x: t.cat(x, axis))


@case("Split")
def parts(d: Draw, op: str) -> Case:
    sizes = d.rng.integers(0, 4, 3)
    axis = int(d.rng.choice([1, -2]))
    return Case([d.any(3, int(sizes.sum()), 2), sizes], {"axis": axis}, lambda t, x, _: x.split(sizes.tolist(), axis), constants=[1], outputs=3)


@case("Slice")
def sliced(d: Draw, op: str) -> Case:
    shape = (5, 1, 7)
    axis = int(d.rng.choice([0, 2, -1]))
    start, step = int(d.rng.integers(0, 3)), int(d.rng.integers(1, 4))
    end = -1
    inputs = [d.any(*shape), *(np.array([v]) for v in (start, end, axis, step))]
    return Case(inputs, {}, lambda t, x, *_: x.index_select(axis, t.arange(start, x.shape[axis] - 1, step)), constants=[1, 2, 3, 4])


@case("Pad")
def padded(d: Draw, op: str) -> Case:
    p = d.rng.integers(-1, 4, 4).tolist()
    inputs = [d.any(3, 4), np.array([p[0], p[1], p[2], p[3]]), np.array(0.5)]
    return Case(inputs, {}, lambda t, x, _, v: t.nn.functional.pad(x - v, (p[1], p[3], p[0], p[2])) + v, constants=[1])


@case("CenterCropPad")
def centred(d: Draw, op: str) -> Case:
    more = int(d.rng.integers(0, 3))
    inputs = [d.any(4, 5), np.array([4 + 2 * more, 3])]
    return Case(inputs, {}, lambda t, x, _: t.nn.functional.pad(x[:, 1:4], (0, 0, more, more)), constants=[1])


@case("Trilu")
def triangle(d: Draw, op: str) -> Case:
    upper, k = int(d.rng.integers(2)), int(d.rng.integers(-2, 3))
    return Case([d.any(*d.shape(0, 2), 3, 5), np.array(k)], {"upper": upper}, lambda t, x, _: t.triu(x, k) if upper else t.tril(x, k))


@case("DepthToSpace", "SpaceToDepth")
def blocks(d: Draw, op: str) -> Case:
    if op == "DepthToSpace":
        return Case([d.any(2, 8, 3, 1)], {"blocksize": 2, "mode": "CRD"}, lambda t, x: t.nn.functional.pixel_shuffle(x, 2))
    reorder = lambda t, x: t.nn.functional.pixel_unshuffle(x, 2).reshape(2, 3, 4, 1, 3).transpose(1, 2).reshape(2, 12, 1, 3)  # noqa: E731
    return Case([d.any(2, 3, 2, 6)], {"blocksize": 2}, reorder)


@case("ReverseSequence")
def reversed_heads(d: Draw, op: str) -> Case:
    lengths = d.rng.integers(0, 5, 3)

    def same(t, x, _):
        return t.stack([t.cat([x[:n, i].flip(0), x[n:, i]]) for i, n in enumerate(lengths.tolist())], 1)

    return Case([d.any(4, 3, 2), lengths], {}, same)


@case("TopK")
def largest(d: Draw, op: str) -> Case:
    axis, k = int(d.rng.choice([0, 1, -1])), int(d.rng.integers(0, 4))
    return Case([d.distinct(5, 4, 3), np.array([k])], {"axis": axis}, lambda t, x, _: t.topk(x, k, axis).values, outputs=2, constants=[1])


@case("Compress")
def kept(d: Draw, op: str) -> Case:
    keep = d.rng.random(4) < 0.6
    return Case([d.any(3, 4, 2), keep], {"axis": -2}, lambda t, x, c: x[:, c])


@case("Unique")
def unique(d: Draw, op: str) -> Case:
    return Case([d.distinct(*d.shape(1, 4))], {"sorted": int(d.rng.integers(2))})


@case("Range")
def counted(d: Draw, op: str) -> Case:
    return Case([np.array(0.5), np.array(float(d.rng.integers(2, 6))), np.array(0.4)])


@case("OneHot")
def hot(d: Draw, op: str) -> Case:
    at = d.rng.integers(0, 4, d.shape(1, 3))
    inputs = [at, np.array(4), d.any(2)]

    def same(t, i, _, v):
        on = t.nn.functional.one_hot(i, 4)
        return v[0] * (1 - on) + v[1] * on

    return Case(inputs, {}, same, constants=[1])


# ---- Indices


@case("Gather", "GatherElements", "GatherND")
def gather(d: Draw, op: str) -> Case:
    axis = int(d.rng.choice([0, 1, -1]))
    x = d.any(3, 5, 4)
    n = x.shape[axis]
    if op == "Gather":
        at = d.rng.integers(-n, n, d.shape(1, 3))
        place = axis % 3
        return Case([x, at], {"axis": axis}, lambda t, x, i: x.index_select(place, (i % n).reshape(-1)).reshape(*x.shape[:place], *i.shape, *x.shape[place + 1 :]))
    if op == "GatherElements":
        return Case([x, d.rng.integers(-n, n, (2, 3, 4))], {"axis": axis}, lambda t, x, i: x.gather(axis, i % n))
    at = np.stack([d.rng.integers(-3, 3, (2, 2)), d.rng.integers(-5, 5, (2, 2))], -1)
    return Case([x, at], {}, lambda t, x, i: x[i[..., 0], i[..., 1]])


@case("Scatter", "ScatterElements")
def scatter(d: Draw, op: str) -> Case:
    axis = int(d.rng.integers(-2, 2))
    at = np.argsort(d.rng.random((4, 4)), axis)[:3, :3]  # no place twice
    return Case([d.any(4, 4), at, d.any(3, 3)], {"axis": axis}, lambda t, x, i, u: x.scatter(axis, i, u), opset=10 if op == "Scatter" else None)


@case("ScatterElements")
def scatter_add(d: Draw, op: str) -> Case:
    at = d.rng.integers(-4, 4, (3, 5))
    return Case([d.any(4, 5), at, d.any(3, 5)], {"reduction": "add"}, lambda t, x, i, u: x.scatter_add(0, i % 4, u))


@case("ScatterND")
def scatter_nd(d: Draw, op: str) -> Case:
    add = bool(d.rng.integers(2))
    at = d.rng.integers(0, 4, (5, 1)) if add else d.rng.permutation(4)[:3, None]
    inputs = [d.any(4, 3), at, d.any(len(at), 3)]
    return Case(inputs, {"reduction": "add" if add else "none"}, lambda t, x, i, u: x.index_put((i[:, 0],), u, accumulate=add))


@case("TensorScatter")
def cache(d: Draw, op: str) -> Case:
    def same(t, x, u, starts):
        y = x.clone()
        for b, s in enumerate(starts.tolist()):
            y[b, :, s : s + 2] = u[b]
        return y

    return Case([d.any(2, 3, 5, 2), d.any(2, 3, 2, 2), d.rng.integers(0, 4, 2)], {"axis": 2}, same)
