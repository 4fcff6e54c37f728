"""Operators that move elements and make shapes, against onnx's reference evaluator."""

import ml_dtypes
import numpy as np
import pytest

from oracle import against_onnxruntime, check, fails_everywhere

RNG = np.random.default_rng(5)
DTYPES = ["float32", "float64", "float16", "int8", "uint16", "int32", "int64", "bool", "complex64", "complex128", "str", "bfloat16"]


def rand(*shape, dtype="float32"):
    if dtype == "str":
        return np.array([f"s{i}é" for i in range(int(np.prod(shape)))], object).reshape(shape)
    x = RNG.standard_normal(shape) * 50
    if dtype.startswith("complex"):
        return (x + 1j * RNG.standard_normal(shape)).astype(dtype)
    if dtype == "bool":
        return x > 0
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def i64(*values):
    return np.array(values, np.int64)


# ---- every element type


@pytest.mark.parametrize("dtype", DTYPES)
def test_types(dtype):
    x = rand(3, 4, 5, dtype=dtype)
    check("Transpose", [x], {"perm": [2, 0, 1]}, 21, expected=[x.transpose(2, 0, 1)])
    check("Reshape", [x, i64(5, -1)], opset=21, expected=[x.reshape(5, -1)])
    check("Slice", [x, i64(2, -1), i64(-9, 0), i64(0, 2), i64(-1, -2)], opset=13, expected=[x[2::-1, :, -1:0:-2]])
    check("Gather", [x, i64(0, -1, 2)], {"axis": 1}, 13, expected=[x[:, [0, -1, 2]]])
    check("Gather", [x, i64(4, 0)], {"axis": 2}, 13, expected=[x[..., [4, 0]]])
    check("Expand", [x[:, :1], i64(2, 1, 4, 1)], opset=13, expected=[np.broadcast_to(x[:, :1], (2, 3, 4, 5))])
    check("Tile", [x, i64(2, 1, 3)], opset=13, expected=[np.tile(x, (2, 1, 3))])
    check("Concat", [x, x[:, :2], x[:, :0]], {"axis": 1}, 13, expected=[np.concatenate([x, x[:, :2]], 1)])
    check("Split", [x, i64(1, 3)], {"axis": 1}, 13, outputs=2, expected=[x[:, :1], x[:, 1:]])
    check("Pad", [x, i64(0, 1, 0, 1, 0, 2)], {"mode": "edge"}, 21, expected=[np.pad(x, ((0, 1), (1, 0), (0, 2)), mode="edge")])
    index = RNG.integers(-4, 4, (3, 6, 5))
    check("GatherElements", [x, index], {"axis": 1}, 13, expected=[np.take_along_axis(x, index, 1)])
    pairs = RNG.integers(0, 3, (2, 4, 2))
    check("GatherND", [x, pairs], opset=13, expected=[x[pairs[..., 0], pairs[..., 1]]])
    y = x.copy()
    y[[2, 0]] = x[[1, 1]]
    check("ScatterND", [x, i64(2, 0).reshape(2, 1), x[[1, 1]]], opset=18, expected=[y])
    y = x.copy()
    y[:, [3]] = x[:, [0]]
    check("ScatterElements", [x, np.full((3, 1, 5), 3), x[:, :1]], {"axis": 1}, 18, expected=[y])
    check("Unsqueeze", [x, i64(0, -1)], opset=21, expected=[x[None, ..., None]])
    check("Flatten", [x], {"axis": 2}, 21, expected=[x.reshape(12, 5)])
    check("Identity", [x], opset=21, expected=[x])
    check("ReverseSequence", [x, i64(2, 1, 3, 0)], opset=10, expected=[reversed_steps(x, [2, 1, 3, 0])])
    check("Compress", [x, np.array([False, True, True])], {"axis": 2}, 11, expected=[x[..., 1:3]])
    if dtype != "bool":
        values = x.reshape(-1)[:2]
        want = np.where(np.arange(4) == i64(1, 3)[:, None], values[1], values[0])
        check("OneHot", [i64(1, 3), i64(4), values], opset=11, expected=[want.astype(x.dtype)])
    if dtype not in ("str", "bfloat16"):
        check("Trilu", [x], opset=14, expected=[np.triu(x)])


def reversed_steps(x, lengths):
    y = x.copy()
    for b, n in enumerate(lengths):
        y[:n, b] = x[:n, b][::-1]
    return y


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_elements_below_a_byte(dtype):
    x = RNG.integers(0, 7, (3, 5)).astype(getattr(ml_dtypes, dtype))
    for op, inputs, attrs, want in [
        ("Transpose", [x], {}, x.T), ("Reshape", [x, i64(5, 3)], {}, x.reshape(5, 3)), ("Unsqueeze", [x, i64(1)], {}, x[:, None]),
        ("Flatten", [x], {"axis": 0}, x.reshape(1, 15)), ("Pad", [x, i64(1, 0, 0, 2)], {"mode": "edge"}, np.pad(x, ((1, 0), (0, 2)), "edge")),
    ]:
        (got,) = check(op, inputs, attrs, 21, expected=[want], ways=["node"])
        assert got.dtype == want.dtype


# ---- Transpose


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 64, 33, 1), (17, 65), (3, 1, 1, 130, 2), (5,), (), (2, 0, 3), (2, 3, 224, 17)])
def test_transpose(shape):
    x = rand(*shape)
    for _ in range(6 if shape else 0):
        check("Transpose", [x], {"perm": [int(i) for i in RNG.permutation(len(shape))]}, 13)
    check("Transpose", [x], opset=1)


def test_transpose_errors():
    fails_everywhere("perm", "Transpose", [rand(2, 3)], {"perm": [0, 0]}, 13)
    fails_everywhere("perm", "Transpose", [rand(2, 3)], {"perm": [0, 2]}, 13)
    fails_everywhere("perm", "Transpose", [rand(2, 3)], {"perm": [0]}, 13)


# ---- Reshape and relatives


def test_reshape():
    x = rand(2, 3, 4)
    for target in [(24,), (2, 12), (0, -1), (-1, 0, 2), (0, 0, 0), (1, 2, 1, -1), (2, 0, 2, 2)]:
        check("Reshape", [x, i64(*target)], opset=13)
    check("Reshape", [rand(0, 3), i64(0, 5)], {"allowzero": 1}, 14)
    check("Reshape", [rand(0, 6), i64(0, 3, -1)], opset=14, expected=[np.zeros((0, 3, 2), "float32")])
    check("Reshape", [rand(1), np.zeros(0, np.int64)], opset=13)
    for target, why in [((5, 5), "25"), ((-1, -1), "more than one"), ((7, -1), "multiple"), ((2, -3), "negative"), ((2, 3, 4, 0), "copies"),
                        ((2**62, 2**62), "64-bit|large|element")]:
        fails_everywhere(why, "Reshape", [x, i64(*target)], None, 13)


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_squeeze_and_unsqueeze(opset):
    x = rand(1, 3, 1, 2)

    def both(op, x, axes, want):
        if opset < 13:
            check(op, [x], {"axes": axes}, opset, expected=[want])
        else:
            check(op, [x, i64(*axes)], None, opset, expected=[want])

    both("Squeeze", x, [0, 2], x[0, :, 0])
    both("Squeeze", x, [-2], x[:, :, 0])
    both("Unsqueeze", x, [0, 5], x[None, ..., None])
    both("Unsqueeze", x, [-1, 1], x[:, None, ..., None])
    both("Unsqueeze", np.float32(3).reshape(()), [0], np.full((1,), 3, "float32"))
    check("Squeeze", [x], opset=opset)
    if opset >= 13:
        fails_everywhere("extent 1", "Squeeze", [x, i64(1)], None, opset)
        fails_everywhere("outside", "Squeeze", [x, i64(4)], None, opset)
        fails_everywhere("twice", "Unsqueeze", [x, i64(1, 1)], None, opset)


def test_flatten():
    for axis in (-4, -1, 0, 1, 2, 4):
        check("Flatten", [rand(2, 3, 4, 5)], {"axis": axis}, 13)
    check("Flatten", [rand()], {"axis": 0}, 13, expected=None)
    check("Flatten", [rand(2, 0, 3)], opset=13)
    fails_everywhere("outside", "Flatten", [rand(2, 3)], {"axis": 3}, 13)


# ---- Slice, Split, Concat


def test_slice():
    x = rand(5, 6, 7)
    big = 2**63 - 1
    for starts, ends, axes, steps in [
        ([1], [4], [0], None), ([0, 1], [big, -1], [0, 2], None), ([-100], [100], [1], None), ([-1], [-big], [1], [-1]),
        ([-1], [-big - 1], [1], [-2]), ([4, 5], [0, 1], [-3, 1], [-1, -3]), ([3], [3], [0], None), ([4], [2], [0], None), ([0], [big], [2], [3]),
        ([0], [5], [0], [big]), ([4], [-6], [0], [-big]),
    ]:
        inputs = [x, i64(*starts), i64(*ends), i64(*axes)] + ([i64(*steps)] if steps else [])
        want = x[tuple(slice_of(a, axes, starts, ends, steps) for a in range(3))]
        check("Slice", inputs, opset=13, expected=[want])
        check("Slice", [v if k == 0 else np.clip(v, -(2**31), 2**31 - 1).astype("int32") for k, v in enumerate(inputs)], opset=11, expected=[want])
        if not steps:
            check("Slice", [x], {"starts": starts, "ends": ends, "axes": axes}, 9, expected=[want])
    check("Slice", [x, i64(1, 2), i64(3, 9)], opset=13, expected=[x[1:3, 2:9]])
    check("Slice", [x[:0], i64(0), i64(2)], opset=13, expected=[x[:0]])
    fails_everywhere("step 0", "Slice", [x, i64(0), i64(2), i64(0), i64(0)], None, 13)
    fails_everywhere("twice", "Slice", [x, i64(0, 0), i64(2, 2), i64(0, -3)], None, 13)
    fails_everywhere("outside", "Slice", [x, i64(0), i64(2), i64(3)], None, 13)
    fails_everywhere("one length", "Slice", [x, i64(0, 1), i64(2), i64(1)], None, 13)


def slice_of(axis, axes, starts, ends, steps):
    for i, a in enumerate(axes):
        if a % 3 == axis:
            return slice(starts[i], ends[i], steps[i] if steps else 1)
    return slice(None)


@pytest.mark.parametrize("opset", [2, 11, 13, 18])
def test_split(opset):
    x = rand(4, 6, 3)
    for axis in (0, 1, -1) if opset >= 11 else (0, 1, 2):
        n = x.shape[axis]
        sizes = [1, n - 1]
        if opset < 13:
            check("Split", [x], {"axis": axis, "split": sizes}, opset, outputs=2)
        else:
            check("Split", [x, i64(*sizes)], {"axis": axis}, opset, outputs=2)
            check("Split", [x, i64(*sizes)], {"axis": axis}, opset, outputs=[True, False], expected=[np.split(x, [1], axis)[0]])
    check("Split", [x], {"axis": 1, "num_outputs": 3} if opset >= 18 else {"axis": 1}, opset, outputs=3)
    if opset >= 18:
        check("Split", [x], {"axis": 1, "num_outputs": 4}, opset, outputs=4)
    elif opset == 13:
        fails_everywhere("equal parts", "Split", [x], {"axis": 0}, opset, outputs=3)
        fails_everywhere("add up", "Split", [x, i64(1, 2)], {"axis": 0}, opset, outputs=2)
        fails_everywhere("negative", "Split", [x, i64(-1, 5)], {"axis": 0}, opset, outputs=2)
        fails_everywhere("split sizes for", "Split", [x, i64(2, 2)], {"axis": 0}, opset, outputs=3)


def test_concat():
    parts = [rand(2, n, 3) for n in (1, 4, 0, 2)]
    check("Concat", parts, {"axis": 1}, 13)
    check("Concat", parts, {"axis": -2}, 11)
    check("Concat", [rand(n, 300) for n in (3, 1, 70)], {"axis": 0}, 13)
    check("Concat", [rand(40, n) for n in (1, 2, 300)], {"axis": 1}, 4)
    check("Concat", [rand(1, 2)] * 50, {"axis": 1}, 13)
    fails_everywhere("rank", "Concat", [rand(2), rand(2, 2)], {"axis": 0}, 13)
    fails_everywhere("equal", "Concat", [rand(2, 3), rand(3, 2)], {"axis": 0}, 13)
    fails_everywhere("scalar", "Concat", [rand(), rand()], {"axis": 0}, 13)


# ---- Gather and Scatter


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_gather(index):
    x = rand(6, 5, 4)
    for axis in (0, 1, -1):
        for shape in [(), (3,), (2, 3), (0,)]:
            check("Gather", [x, RNG.integers(-4, 4, shape).astype(index)], {"axis": axis}, 13)
    check("Gather", [rand(1000, 300), RNG.integers(0, 1000, (64, 3)).astype(index)], opset=11)
    check("Gather", [rand(7), np.array(3, index)], opset=13)
    fails_everywhere(r"index 6 is outside \[-6, 5\]", "Gather", [x, np.array([0, 6], index)], {"axis": 0}, 13)
    fails_everywhere(r"index -6 is outside", "Gather", [x, np.array([-6], index)], {"axis": 1}, 13)
    fails_everywhere("index 0 is outside", "Gather", [x[:0], np.array([0], index)], {"axis": 0}, 13)
    fails_everywhere("index 5", "GatherElements", [x, np.full((1, 1, 1), 5, index)], {"axis": 1}, 13)


def test_gather_elements_reaches_less_of_other_axes():
    x = rand(4, 5, 6)
    index = RNG.integers(-5, 5, (2, 7, 3))
    check("GatherElements", [x, index], {"axis": 1}, 13, expected=[np.take_along_axis(x[:2, :, :3], index, 1)])
    fails_everywhere("reach", "GatherElements", [x, np.zeros((5, 1, 1), np.int64)], {"axis": 1}, 13)


def test_gather_nd():
    x = rand(3, 4, 5, 2)
    for batch, tuple_length in [(0, 1), (0, 4), (1, 1), (1, 2), (2, 2)]:
        lead = (*x.shape[:batch], 6)
        extents = x.shape[batch : batch + tuple_length]
        index = np.stack([RNG.integers(-e, e, lead) for e in extents], -1)
        check("GatherND", [x, index], {"batch_dims": batch}, 13)
    fails_everywhere("index 9", "GatherND", [x, i64(9).reshape(1, 1)], None, 13)
    fails_everywhere("do not fit", "GatherND", [x, np.zeros((1, 5), np.int64)], None, 13)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "int64"])
def test_scatter_reductions(reduction, dtype):
    def drawn(*shape):  # a product of several goes through float here, and through float16 in the reference: none may overflow on its way
        return rand(*shape, dtype=dtype) / np.array(50 if (reduction, dtype) == ("mul", "float16") else 1, dtype)

    x, u = drawn(5, 4, 3).astype(dtype), drawn(2, 4, 3).astype(dtype)
    index = RNG.integers(-5, 5, (2, 4, 3))
    opset = 18
    with np.errstate(all="ignore"):
        check("ScatterElements", [x, index, u], {"axis": 0, "reduction": reduction}, opset, ulp=16)
        u = drawn(6, 4, 3).astype(dtype)
        check("ScatterND", [x, RNG.integers(-5, 5, (6, 1)), u], {"reduction": reduction}, opset, ulp=16)


def test_scatter():
    x = rand(4, 5)
    u = rand(1, 2)
    y = x.copy()
    y[0, [1, 3]] = u[0]
    for opset, op in [(9, "Scatter"), (11, "ScatterElements"), (18, "ScatterElements")]:
        check(op, [x, i64(1, 3).reshape(1, 2), u], {"axis": 1}, opset, expected=[y])
    check("ScatterND", [x, np.zeros((0, 1), np.int64), rand(0, 5)], opset=16)
    check("ScatterND", [rand(3000, 40), RNG.permutation(3000)[:700, None], rand(700, 40)], opset=16)
    check("ScatterElements", [rand(200, 300), RNG.integers(0, 200, (150, 300)), rand(150, 300)], {"axis": 0}, 16)
    fails_everywhere("index 7", "ScatterElements", [x, i64(7).reshape(1, 1), rand(1, 1)], {"axis": 1}, 16)
    fails_everywhere("index -5", "ScatterND", [x, i64(-5).reshape(1, 1), rand(1, 5)], None, 16)
    fails_everywhere("rank", "ScatterND", [x, i64(0).reshape(1, 1), rand(5)], None, 16)
    fails_everywhere("equal", "ScatterElements", [x, i64(0, 1).reshape(1, 2), rand(1, 3)], None, 16)
    fails_everywhere("reduction", "ScatterND", [x, i64(0).reshape(1, 1), rand(1, 5)], {"reduction": "mean"}, 18)


# ---- Expand, Tile, Pad


def test_expand_and_tile():
    for shape, target in [((3, 1), (2, 1, 6)), ((1,), (4, 5)), ((), (3,)), ((2, 3), (1,)), ((3, 1), (3, 0)), ((1, 64), (300, 64)), ((64, 1), (64, 300))]:
        check("Expand", [rand(*shape), i64(*target)], opset=13)
    for shape, repeats in [((2, 3), (1, 1)), ((2, 3), (2, 0)), ((1, 5), (40, 3)), ((2, 1, 3), (1, 4, 2)), ((), ())]:
        check("Tile", [rand(*shape), i64(*repeats)], opset=13)
    fails_everywhere("broadcast", "Expand", [rand(2, 3), i64(4, 3)], None, 13)
    fails_everywhere("negative", "Expand", [rand(2, 3), i64(-2, 2, 3)], None, 13)
    fails_everywhere("memory|large", "Expand", [rand(1), i64(2**40)], None, 13)
    fails_everywhere("negative", "Tile", [rand(2), i64(-1)], None, 13)
    fails_everywhere("memory|large", "Tile", [rand(2, 2), i64(2**30, 2**30)], None, 13)
    fails_everywhere("large", "Tile", [rand(4), i64(2**62)], None, 13)
    fails_everywhere("entries", "Tile", [rand(2, 2), i64(2)], None, 13)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode):
    opset = 19
    x = rand(3, 4, 5)
    for pads in [(0, 0, 0, 0, 0, 0), (1, 2, 1, 0, 1, 2), (0, 0, 3, 0, 0, 0), (2, 0, 0, 2, 0, 0), (0, 3, 0, 0, 2, 0)]:
        check("Pad", [x, i64(*pads)], {"mode": mode}, opset)
    if mode == "constant":
        check("Pad", [x, i64(-1, 1, 0, 0, -2, -1), np.float32(7)], {"mode": mode}, opset, expected=[np.pad(x[1:, :2, :4], ((0, 0), (1, 0), (0, 0)), constant_values=7)])
        check("Pad", [x, i64(1, 2, 1, 1), np.float32(7), i64(0, -1)], {"mode": mode}, opset)
        check("Pad", [x, i64(1, 0, 0, 0, 0, 2), np.float32(-0.5)], {"mode": mode}, 11)
        check("Pad", [x], {"pads": [1, 0, 0, 0, 0, 2], "value": 1.5}, 2, expected=[np.pad(x, ((1, 0), (0, 0), (0, 2)), constant_values=1.5)])
        check("Pad", [x[:0], i64(1, 0, 0, 1, 0, 0)], {"mode": mode}, opset)
        fails_everywhere("take away", "Pad", [x, i64(-2, 0, 0, -2, 0, 0)], None, 13)
        fails_everywhere("two an axis", "Pad", [x, i64(1, 1)], None, 13)
        fails_everywhere("memory|large", "Pad", [x, i64(2**40, 0, 0, 0, 0, 0)], None, 13)
        fails_everywhere("large", "Pad", [x, i64(2**63 - 1, 0, 0, 1, 0, 0)], None, 13)
    else:
        if mode == "edge":
            want = np.pad(x, ((0, 0), (0, 1), (0, 3)), mode)[..., 2:]
            check("Pad", [x, i64(0, 0, -2, 0, 1, 3)], {"mode": mode}, opset, expected=[want])
        fails_everywhere("nothing to repeat", "Pad", [x[:0], i64(1, 0, 0, 0, 0, 0)], {"mode": mode}, opset)
    fails_everywhere("mode", "Pad", [x, i64(0, 0, 0, 0, 0, 0)], {"mode": "mirror"}, opset)


# ---- tensors out of shapes


def test_shape_and_size():
    x = rand(2, 3, 4)
    for start, end in [(0, None), (1, None), (-1, None), (0, -1), (1, 9), (2, 1)]:
        attrs = {"start": start} | ({} if end is None else {"end": end})
        check("Shape", [x], attrs, 15)
    check("Size", [x], opset=13)
    check("Size", [rand(0, 3)], opset=13)
    check("Shape", [rand()], opset=13)


def test_constant_of_shape_range_eye():
    check("ConstantOfShape", [i64(2, 0, 3)], opset=9)
    fails_everywhere("negative", "ConstantOfShape", [i64(2, -1)], None, 9)
    fails_everywhere("memory|large", "ConstantOfShape", [i64(2**20, 2**20, 2**20)], None, 9)
    for dtype in ("float32", "float64", "int16", "int32", "int64"):
        for start, limit, delta in [(0, 7, 1), (3, -4, -2), (5, 5, 1), (2, 1, 3)]:
            check("Range", [np.array(v, dtype) for v in (start, limit, delta)], opset=11)
    check("Range", [np.array(v, "float32") for v in (0.5, 2, 0.3)], opset=11, ulp=8)
    fails_everywhere("delta", "Range", [i64(0).reshape(()), i64(4).reshape(()), i64(0).reshape(())], None, 11)
    fails_everywhere("memory|large", "Range", [i64(0).reshape(()), i64(2**62).reshape(()), i64(1).reshape(())], None, 11)
    for k in (-5, -1, 0, 2, 9):
        check("EyeLike", [rand(4, 6)], {"k": k, "dtype": 11}, 9)
        check("EyeLike", [rand(4, 3, dtype="int32")], {"k": k}, 9)


# ---- the rest


def test_one_hot():
    for axis in (0, 1, -1):
        for dtype in ("int64", "int32", "float32", "uint8"):
            index = np.array([[0, 3, 5], [1, 2, 4]], dtype)
            want = np.moveaxis(np.where(index[..., None] == np.arange(5), 9, 2).astype("float32"), -1, axis)
            check("OneHot", [index, np.array(5, dtype), np.array([2, 9], "float32")], {"axis": axis}, 11, expected=[want])
    check("OneHot", [i64(-1, -5, -6), np.array(5), i64(0, 1)], opset=11)
    fails_everywhere("depth", "OneHot", [i64(1), i64(0), i64(0, 1)], None, 11)
    fails_everywhere("depth", "OneHot", [i64(1), i64(-3), i64(0, 1)], None, 11)


def test_trilu():
    x = rand(2, 4, 6)
    for k in (None, -9, -2, 0, 1, 5, 9, 2**62, -(2**63)):
        for upper in (0, 1):
            want = (np.triu if upper else np.tril)(x, int(np.clip(k or 0, -20, 20)))
            check("Trilu", [x] + ([] if k is None else [np.array(k)]), {"upper": upper}, 14, expected=[want])
    fails_everywhere("rank 2", "Trilu", [rand(3)], None, 14)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in ("complex128",)])
def test_non_zero(dtype):
    x = rand(3, 4, 2, dtype=dtype)
    if dtype == "str":
        x[0, 1] = x[2, 3] = ""
    else:
        x[0, 1] = x[2, 3] = 0
    check("NonZero", [x], opset=13, expected=[np.array(np.nonzero(x))])
    check("NonZero", [x[:0]], opset=13, expected=[np.zeros((3, 0), np.int64)])
    if dtype == "float32":
        check("NonZero", [np.array([0.0, -0.0, np.nan, np.inf], dtype)], opset=13)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool", "str"])
def test_unique(dtype):
    x = rand(4, 6, dtype=dtype)
    x[1], x[3, 2:] = x[0], x[2, 2:]
    for sorted_ in (0, 1):
        for axis in (None, 0, 1, -1):
            flat = x.reshape(-1) if axis is None else np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
            rows = [tuple(np.atleast_1d(r).tolist()) for r in flat]
            order = sorted(set(rows)) if sorted_ else list(dict.fromkeys(rows))
            first = [rows.index(r) for r in order]
            want = [np.take(x if axis is not None else x.reshape(-1), first, axis or 0), i64(*first), i64(*[order.index(r) for r in rows]),
                    i64(*[rows.count(r) for r in order])]
            check("Unique", [x], {"sorted": sorted_} | ({} if axis is None else {"axis": axis}), 11, outputs=4, expected=want)
    if dtype == "float32":
        check("Unique", [np.array([np.nan, 1, np.nan, -np.inf, 0, -0.0], dtype)], opset=11, outputs=[True, False, False, True])
        check("Unique", [x[:0]], opset=11, outputs=4)


def test_compress():
    x = rand(3, 4)
    check("Compress", [x, np.array([True, False, True, True, False, True])], opset=9)
    check("Compress", [x, np.array([False, True])], {"axis": -1}, 11)
    check("Compress", [x, np.zeros(0, bool)], {"axis": 0}, 11)
    fails_everywhere("axis", "Compress", [x, np.array([True])], {"axis": 2}, 11)


def test_reverse_sequence():
    x = rand(4, 3, 2)
    check("ReverseSequence", [x, i64(1, 2, 3, 0)], {"batch_axis": 0, "time_axis": 1}, 10)
    check("ReverseSequence", [x, i64(4, 2, 1)], {"batch_axis": 1, "time_axis": 0}, 10)
    fails_everywhere("length 5", "ReverseSequence", [x, i64(5, 1, 1)], None, 10)
    fails_everywhere("batch_axis", "ReverseSequence", [x, i64(5, 1, 1)], {"batch_axis": 1, "time_axis": 1}, 10)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_depth_and_space(block):
    x = rand(2, 2 * block * block, 3, 4)
    for mode in ("DCR", "CRD"):
        check("DepthToSpace", [x], {"blocksize": block, "mode": mode}, 13)
    check("SpaceToDepth", [rand(2, 3, 2 * block, 4 * block)], {"blocksize": block}, 13)
    if block > 1:
        fails_everywhere("multiple", "DepthToSpace", [x[:, 1:]], {"blocksize": block}, 13)
        fails_everywhere("multiple", "SpaceToDepth", [rand(1, 1, 2 * block + 1, block)], {"blocksize": block}, 13)
    fails_everywhere("blocksize", "SpaceToDepth", [x], {"blocksize": 0}, 13)
    fails_everywhere("blocksize", "SpaceToDepth", [x], {"blocksize": -1}, 13)


def test_center_crop_pad():
    x = rand(5, 6, 3)
    for target, axes in [((5, 6, 3), None), ((2, 9, 4), None), ((8, 3), (0, 1)), ((0, 2), (-1, 0))]:
        check("CenterCropPad", [x, i64(*target)], {"axes": list(axes)} if axes else None, 18)
    fails_everywhere("negative", "CenterCropPad", [x, i64(-1, 2, 3)], None, 18)


def test_col2im():
    check("Col2Im", [rand(2, 3 * 4, 12), i64(5, 4), i64(2, 2)], opset=18, ulp=8, atol=1e-5)
    attrs = {"dilations": [2, 1], "strides": [1, 2], "pads": [0, 1, 1, 0]}
    check("Col2Im", [rand(1, 2 * 6, 15), i64(6, 7), i64(2, 3)], attrs, 18, ulp=8, atol=1e-5)
    check("Col2Im", [rand(1, 5 * 2, 6), i64(7), i64(2)], opset=18, ulp=8, atol=1e-5)
    fails_everywhere("columns", "Col2Im", [rand(1, 4, 5), i64(5, 5), i64(2, 2)], None, 18)
    fails_everywhere("does not fit", "Col2Im", [rand(1, 25, 1), i64(3, 3), i64(5, 5)], None, 18)
    fails_everywhere("multiple", "Col2Im", [rand(1, 5, 16), i64(5, 5), i64(2, 2)], None, 18)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(mode, padding):
    for align in (0, 1):
        grid = RNG.uniform(-1.6, 1.6, (2, 4, 5, 2)).astype("float32")
        attrs = {"mode": mode, "padding_mode": padding, "align_corners": align}
        if (mode, padding) != ("cubic", "border"):  # the reference evaluator clamps coordinates there
            check("GridSample", [rand(2, 3, 6, 7), grid], attrs, 20, ulp=64, atol=2e-4)
        old = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        against_onnxruntime("GridSample", [rand(2, 3, 6, 7), grid], attrs | {"mode": old}, 16, ulp=64, atol=2e-4)
    grid = RNG.uniform(-1.2, 1.2, (1, 2, 3, 2, 3)).astype("float32")
    if (mode, padding) != ("cubic", "border"):
        check("GridSample", [rand(1, 2, 4, 3, 5), grid], {"mode": mode, "padding_mode": padding}, 20, ulp=64, atol=2e-4)
    grid = np.array([np.nan, np.inf, -np.inf, 1e30], "float32").reshape(1, 1, 2, 2)
    (got,) = check("GridSample", [np.ones((1, 1, 3, 3), "float32"), grid], {"mode": mode, "padding_mode": padding}, 20,
                   expected=[np.full((1, 1, 1, 2), 0 if padding == "zeros" else 1, "float32")], atol=1e-5)


def test_affine_grid():
    for align in (0, 1):
        check("AffineGrid", [rand(2, 2, 3), i64(2, 3, 4, 5)], {"align_corners": align}, 20, ulp=8, atol=1e-4)
        check("AffineGrid", [rand(2, 3, 4), i64(2, 3, 4, 5, 2)], {"align_corners": align}, 20, ulp=8, atol=1e-4)
    fails_everywhere("size", "AffineGrid", [rand(2, 2, 3), i64(2, 3, 4)], None, 20)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(mode):
    x = rand(2, 3, 10, 12)
    rois = np.array([[1, 1, 7, 8], [0, 0, 11, 9], [-3, -2, 20, 30], [5, 5, 5.1, 5.2]], "float32")
    batch = i64(0, 1, 1, 0)
    for opset in (10, 16):
        for ratio in (0, 2):
            attrs = {"mode": mode, "output_height": 3, "output_width": 4, "sampling_ratio": ratio, "spatial_scale": 0.7}
            against_onnxruntime("RoiAlign", [x, rois, batch], attrs, opset, ulp=64, atol=1e-3)
    fails_everywhere("batch index 2", "RoiAlign", [x, rois[:1], i64(2)], None, 16)
    fails_everywhere("not finite", "RoiAlign", [x, rois[:1] * np.float32(np.inf), i64(0)], None, 16)


def test_max_roi_pool():
    x = rand(2, 3, 10, 12)
    rois = np.array([[0, 1, 1, 7, 8], [1, 0, 0, 11, 9], [1, 3, 3, 3, 3], [0, 9, 9, 20, 20]], "float32")
    against_onnxruntime("MaxRoiPool", [x, rois], {"pooled_shape": [3, 2], "spatial_scale": 0.8}, 1)
    fails_everywhere("batch index", "MaxRoiPool", [x, rois + 5], {"pooled_shape": [3, 2]}, 1)


def test_tensor_scatter():
    cache, update = rand(2, 3, 8, 4), rand(2, 3, 3, 4)
    check("TensorScatter", [cache, update, i64(1, 5)], opset=24)
    check("TensorScatter", [cache, update, i64(6, 7)], {"mode": "circular"}, 24)
    check("TensorScatter", [cache, update], opset=24)
    fails_everywhere("leaves the cache", "TensorScatter", [cache, update, i64(6, 0)], None, 24)
    fails_everywhere("leaves the cache", "TensorScatter", [cache, update, i64(-1, 0)], None, 24)
