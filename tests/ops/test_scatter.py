"""Drawn ScatterElements, Scatter, ScatterND and GatherElements against numpy's unbuffered `at`, bit for bit and on any number of threads."""

import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tiercel
from oracle import fails_everywhere, one_node

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]
OTHERS = ["complex64", "complex128", "str"]
AT = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def drawn(rng, shape, dtype):
    if dtype == "str":
        return np.array([f"s{i}é" for i in rng.integers(0, 1000, int(np.prod(shape)))], object).reshape(shape)
    if dtype.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if "float" not in dtype:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    x = np.asarray(rng.choice([rng.standard_normal(shape), np.round(rng.standard_normal(shape))]))
    if x.size and rng.random() < 0.3:  # what min and max must hand on
        x.reshape(-1)[rng.integers(0, x.size, 3)] = [np.nan, np.inf, -0.0]
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def combined(x, where, updates, reduction):
    """Updates in their order; 16-bit floats by way of float32, rounded once."""
    half = x.dtype in (np.float16, ml_dtypes.bfloat16)
    y = x.astype(np.float32) if half else x.copy()
    u = updates.astype(y.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if reduction == "none":
            flat, n = y.reshape(-1), np.arange(y.size).reshape(y.shape)[where]
            for at, value in zip(n.ravel(), u.ravel(), strict=True):
                flat[at] = value
        else:
            AT[reduction].at(y, where, u)
        return y.astype(x.dtype)


def elements(x, index, updates, axis, reduction):
    where = list(np.indices(index.shape, sparse=True))
    where[axis] = index
    return combined(x, tuple(np.broadcast_arrays(*where)), updates, reduction)


def nd(x, index, updates, reduction):
    return combined(x, tuple(np.moveaxis(index, -1, 0)), updates, reduction)


def runs_alike(op, inputs, attrs, opset, expected, threads=(1, 2, 3, 8), dynamic=False):
    model, feeds, names = one_node(op, inputs, attrs, opset, dynamic=dynamic)
    dtype = expected.dtype
    for n in threads:
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = n
        (got,) = tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)
        where = f"{op} {attrs} of {[v.shape for v in inputs]} {inputs[0].dtype}, {n} threads"
        assert got.dtype == dtype or dtype.kind == "O", where
        if dtype == ml_dtypes.bfloat16:  # whose NaN numpy does not know
            got, expected = got.astype("float32"), expected.astype("float32")
        np.testing.assert_array_equal(got, expected, err_msg=where)


def drawn_index(rng, shape, axis, extent, kind):
    """Indices of one kind: of no order, the same along the axes behind `axis`, the same but for a few."""
    index = rng.integers(-extent, extent, shape)
    if kind != "free":
        one = index[(slice(None),) * (axis + 1) + (slice(0, 1),) * (len(shape) - axis - 1)]
        index = np.broadcast_to(one, shape).copy()
    if kind == "nearly" and index.size:
        index.reshape(-1)[rng.integers(0, index.size, 2)] = rng.integers(-extent, extent)
    return index.astype(rng.choice(["int32", "int64"]))


def draw_elements(rng, large):
    rank = int(rng.integers(1, 5))
    most = {1: 4000, 2: 120, 3: 24, 4: 10}[rank] if large else 7
    data = rng.integers(1, most + 1, rank)
    axis = int(rng.integers(0, rank))
    updates = data.copy() if rng.random() < 0.5 else np.array([int(rng.integers(1, d + 1)) for d in data])
    updates[axis] = rng.integers(1, 3 * most)
    return tuple(data.tolist()), tuple(updates.tolist()), axis


@pytest.mark.parametrize("dtype", DTYPES + OTHERS)
def test_drawn_elements(dtype):
    rng = np.random.default_rng(DTYPES.index(dtype) if dtype in DTYPES else 99)
    for i in range(24):
        data, shape, axis = draw_elements(rng, large=i % 4 == 0)
        reduction = "none" if dtype in OTHERS else str(rng.choice(["none", *AT]))
        x, u = drawn(rng, data, dtype), drawn(rng, shape, dtype)
        index = drawn_index(rng, shape, axis, data[axis], rng.choice(["free", "rows", "nearly"]))
        given = axis - len(data) if rng.random() < 0.3 else axis
        op, opset, attrs = "ScatterElements", 18, {"axis": given, "reduction": reduction}
        if reduction == "none" and rng.random() < 0.5:
            op, opset, attrs = ("Scatter", 9, {"axis": axis}) if rng.random() < 0.5 else ("ScatterElements", 11, {"axis": given})
        runs_alike(op, [x, index, u], attrs, opset, elements(x, index, u, axis, reduction), threads=(1, 3), dynamic=i % 3 == 1)


@pytest.mark.parametrize("dtype", DTYPES + OTHERS)
def test_drawn_tuples(dtype):
    rng = np.random.default_rng(50 + DTYPES.index(dtype) if dtype in DTYPES else 98)
    for i in range(24):
        rank = int(rng.integers(1, 5))
        data = tuple(rng.integers(1, 20 if i % 4 == 0 else 6, rank).tolist())
        tuple_size = int(rng.integers(1, rank + 1))
        lead = tuple(rng.integers(1, 40 if i % 4 == 0 else 4, rng.integers(0, 3)).tolist())
        index = np.stack([rng.integers(-d, d, lead) for d in data[:tuple_size]], -1)
        reduction = "none" if dtype in OTHERS else str(rng.choice(["none", *AT]))
        x, u = drawn(rng, data, dtype), drawn(rng, lead + data[tuple_size:], dtype)
        runs_alike("ScatterND", [x, index, u], {"reduction": reduction}, 18, nd(x, index, u, reduction), threads=(1, 3), dynamic=i % 3 == 1)


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
@pytest.mark.parametrize("shape, extent", [((3000, 128), 500), ((3000, 8), 500), ((2000, 7), 90), ((40000,), 6000), ((5000, 3, 33), 11), ((300, 1), 20)])
def test_threads(shape, extent, reduction):
    rng = np.random.default_rng(extent)
    x, u = drawn(rng, (extent, *shape[1:]), "float32"), drawn(rng, shape, "float32")
    for kind in ["rows", "nearly", "free"]:
        index = drawn_index(rng, shape, 0, extent, kind)
        runs_alike("ScatterElements", [x, index, u], {"axis": 0, "reduction": reduction}, 18, elements(x, index, u, 0, reduction))
    index = rng.integers(-extent, extent, (shape[0], 1))
    runs_alike("ScatterND", [x, index, u], {"reduction": reduction}, 18, nd(x, index, u, reduction))


@pytest.mark.parametrize("data, shape, axis", [
    ((8, 300, 64), (8, 500, 64), 1), ((6, 40, 50), (6, 40, 700), 2), ((2, 100, 30), (1, 700, 20), 1), ((3000, 12), (3000, 1), 1), ((4, 5, 6, 700), (4, 9, 6, 650), 1),
])  # fmt: skip
def test_lanes(data, shape, axis):
    rng = np.random.default_rng(axis)
    for kind in ["rows", "nearly", "free"]:
        for reduction in ["none", "add"]:
            x, u = drawn(rng, data, "float32"), drawn(rng, shape, "float32")
            index = drawn_index(rng, shape, axis, data[axis], kind)
            runs_alike("ScatterElements", [x, index, u], {"axis": axis, "reduction": reduction}, 18, elements(x, index, u, axis, reduction))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "complex128", "str"])
def test_drawn_gather(dtype):
    rng = np.random.default_rng(7)
    for i in range(24):
        data, shape, axis = draw_elements(rng, large=i % 4 == 0)
        x = drawn(rng, data, dtype)
        index = drawn_index(rng, shape, axis, data[axis], rng.choice(["free", "rows", "nearly"]))
        where = list(np.indices(shape, sparse=True))
        where[axis] = index
        runs_alike("GatherElements", [x, index], {"axis": axis}, 13, x[tuple(np.broadcast_arrays(*where))], threads=(1, 3), dynamic=i % 3 == 1)
        index.reshape(-1)[int(rng.integers(0, index.size))] = bad = int(rng.choice([data[axis], -data[axis] - 1]))
        fails_everywhere(rf"index {bad} is outside \[{-data[axis]}, {data[axis] - 1}\]", "GatherElements", [x, index], {"axis": axis}, 13)


def test_nothing_to_write():
    runs_alike("GatherElements", [np.zeros((2**40, 0), np.float32), np.zeros((2**40, 0), np.int64)], {"axis": 0}, 13, np.zeros((2**40, 0), np.float32))
    x = np.ones((3, 0, 4), np.float32)
    runs_alike("ScatterElements", [x, np.zeros((5, 0, 4), np.int64), np.zeros((5, 0, 4), np.float32)], {"axis": 0}, 18, x)
    runs_alike("ScatterElements", [x[:0], np.zeros((0, 0, 0), np.int64), x[:0, :, :0]], {"axis": 0}, 18, x[:0])
    runs_alike("ScatterND", [x, np.zeros((0, 2), np.int64), np.zeros((0, 4), np.float32)], None, 18, x)
    y = np.ones((3, 4), np.float32)
    runs_alike("ScatterND", [y, np.zeros((2, 0, 1), np.int64), np.zeros((2, 0, 4), np.float32)], None, 18, y)
    runs_alike("ScatterElements", [y, np.zeros((2, 0), np.int64), np.zeros((2, 0), np.float32)], {"axis": 1}, 18, y)


@pytest.mark.parametrize("index_type", ["int32", "int64"])
def test_bad_indices(index_type):
    rng = np.random.default_rng(0)
    for shape, axis in [((70, 40), 0), ((70, 40), 1), ((9, 5, 30), 1), ((900,), 0), ((40, 1), 0)]:
        info = np.iinfo(index_type)
        extent = shape[axis]
        for bad in [extent, -extent - 1, info.max, info.min]:
            for kind in ["free", "rows"]:
                index = drawn_index(rng, shape, axis, extent, kind).astype(index_type)
                at = int(rng.integers(0, index.size))
                index.reshape(-1)[at] = bad
                u = drawn(rng, shape, "float32")
                match = rf"ScatterElements.*index {bad} is outside \[{-extent}, {extent - 1}\]"
                fails_everywhere(match, "ScatterElements", [drawn(rng, shape, "float32"), index, u], {"axis": axis, "reduction": "add"}, 18)
    if index_type == "int64":
        x = drawn(rng, (5, 6, 7), "float32")
        for bad in [6, -7, info.max, info.min]:
            index = np.array([[0, 0], [-1, bad], [1, 1]])
            fails_everywhere(rf"index {bad} is outside \[-6, 5\]", "ScatterND", [x, index, drawn(rng, (3, 7), "float32")], {"reduction": "add"}, 18)
    empty = np.zeros((0, 3), np.float32)
    one = np.zeros((1, 3), index_type)
    fails_everywhere("index 0 is outside", "ScatterElements", [empty, one, np.zeros((1, 3), np.float32)], {"axis": 0}, 18)


# ---- indices that an Expand made


def expanded_model(op, opset, index, x, u, attrs, dynamic):
    """Indices that are expanded to the updates' shape as it is at run time, or, where shapes are known, to a constant."""
    def info(name, v):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), [f"{name}{i}" for i in range(v.ndim)] if dynamic else v.shape)

    nodes, constants = [helper.make_node("Expand", ["index", "shape"], ["wide"]), helper.make_node(op, ["x", "wide", "u"], ["y"], name="rows", **attrs)], []
    if dynamic:
        nodes.insert(0, helper.make_node("Shape", ["u"], ["shape"]))
    else:
        constants.append(numpy_helper.from_array(np.array(u.shape, np.int64), "shape"))
    y = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim)
    graph = helper.make_graph(nodes, "g", [info("index", index), info("x", x), info("u", u)], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("small, data, updates, axis, rewritten", [
    ((40, 1), (9, 33), (40, 33), 0, True), ((40, 1), (9, 40), (40, 17), 0, True), ((70, 1, 1), (9, 5, 12), (70, 5, 12), 0, True),
    ((3, 50, 1), (3, 9, 20), (3, 50, 20), 1, True), ((1, 50, 1), (3, 9, 20), (3, 50, 20), 1, True), ((1, 1), (4, 6), (3, 6), 0, True),
    ((2, 1, 30, 1, 1), (2, 3, 8, 4, 5), (2, 3, 30, 3, 5), 2, True), ((1500, 1), (200, 128), (1500, 128), 0, True), ((0, 1), (4, 5), (0, 5), 0, True),
    ((1, 30), (9, 30), (20, 30), 0, False), ((30, 1), (30, 9), (30, 9), 1, False), ((30, 4), (9, 4), (30, 4), 0, False), ((4,), (9, 4), (30, 4), 0, False),
])  # fmt: skip
def test_expanded_indices(small, data, updates, axis, rewritten, tmp_path):
    rng = np.random.default_rng(len(updates) + updates[0])
    for i, (reduction, dtype) in enumerate([("none", "float32"), ("add", "float32"), ("max", "float64"), ("mul", "int32"), ("min", "float16"), ("none", "uint8")]):
        index = rng.integers(-data[axis], data[axis], small).astype(rng.choice(["int32", "int64"]))
        x, u = drawn(rng, data, dtype), drawn(rng, updates, dtype)
        op, opset, attrs = "ScatterElements", 18, {"axis": axis - len(data) * (i % 2), "reduction": reduction}
        if reduction == "none":
            op, opset, attrs = ("Scatter", 9, {"axis": axis}) if i else (op, 11, {"axis": axis})
        expected = elements(x, np.broadcast_to(index, updates), u, axis, reduction)
        for dynamic in [False, True]:
            model = expanded_model(op, opset, index, x, u, attrs, dynamic).SerializeToString()
            for threads in [1, 2, 5]:
                options = tiercel.SessionOptions()
                options.intra_op_num_threads = threads
                if threads == 1 and not dynamic:
                    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
                (got,) = tiercel.InferenceSession(model, options).run(None, {"index": index, "x": x, "u": u})
                np.testing.assert_array_equal(got, expected, err_msg=f"{reduction} {dtype} {dynamic} {threads}")
                if threads == 1 and not dynamic:
                    domains = [n.domain for n in onnx.load(options.optimized_model_filepath).graph.node if n.op_type in ("Scatter", "ScatterElements")]
                    assert domains == ["ai.tiercel" if rewritten else ""]


def test_expanded_indices_out_of_range():
    x, u = np.zeros((6, 40), np.float32), np.ones((30, 40), np.float32)
    for bad in [6, -7, 2**63 - 1, -(2**63)]:
        index = np.zeros((30, 1), np.int64)
        index[17] = bad
        model = expanded_model("ScatterElements", 18, index, x, u, {"axis": 0, "reduction": "add"}, False)
        with pytest.raises(Exception, match=rf'ScatterElements node "rows".*index {bad} is outside \[-6, 5\]'):
            tiercel.InferenceSession(model.SerializeToString()).run(None, {"index": index, "x": x, "u": u})
