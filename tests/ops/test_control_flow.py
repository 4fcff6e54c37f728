"""If, Loop, Scan, sequences and optionals: small models in ONNX's text form, against the reference evaluator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import tiercel
from oracle import check, compare, fails_everywhere

RNG = np.random.default_rng(12)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*v):
    return np.array(v, np.int64)


def run(text, feeds, expected=None, opset=18):
    """Results with one thread and with two, optimised and not, all the same and equal to the reference's."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    names = [o.name for o in model.graph.output]
    if expected is None:
        expected = ReferenceEvaluator(model).run(None, feeds)
    for threads in (1, 2):
        for level in (tiercel.GraphOptimizationLevel.ORT_DISABLE_ALL, tiercel.GraphOptimizationLevel.ORT_ENABLE_ALL):
            options = tiercel.SessionOptions()
            options.intra_op_num_threads, options.graph_optimization_level = threads, level
            session = tiercel.InferenceSession(model.SerializeToString(), options)
            for _ in range(2):
                got = session.run(None, feeds)
                for name, g, e in zip(names, got, expected, strict=True):
                    compare(g, e, ulp=8, atol=1e-6, what=f"{name}, {threads} threads")
    return got


# ---- If

BRANCHES = """g (bool c, float[N] x, float[2] z) => (float[M] y) {
  w = Neg(x)
  y = If(c) <then_branch = a () => (float[M] t) { t = Concat<axis = 0>(w, x) },
             else_branch = b () => (float[M] e) { k = Add(z, z)  e = Mul(k, z) }>
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_if(condition):
    run(BRANCHES, {"c": np.array(condition), "x": rand(5), "z": rand(2)})
    run(BRANCHES, {"c": np.array(condition), "x": rand(0), "z": rand(2)})


@pytest.mark.parametrize("n", [1, 3])
def test_a_branch_that_cannot_work_is_not_taken(n):
    """Only the branch that runs has to fit the shapes that come."""
    run("""g (float[A, B] x) => (float[?] y) {
      s = Shape(x)
      i = Constant<value = int64 {0}>()
      n = Gather(s, i)
      one = Constant<value = int64 {1}>()
      c = Equal(n, one)
      y = If(c) <then_branch = a () => (float[?] t) { ax = Constant<value = int64[1] {0}>() t = Squeeze(x, ax) },
                 else_branch = b () => (float[?] e) { ax = Constant<value = int64[1] {-1}>() e = ReduceSum<keepdims = 0>(x, ax) }>
    }""", {"x": rand(n, 4)})


def test_nested_bodies_capture_from_every_level():
    run("""g (bool c, bool d, float[3] x) => (float[3] y) {
      u = Exp(x)
      y = If(c) <then_branch = a () => (float[3] t) {
                   v = Add(u, x)
                   t = If(d) <then_branch = aa () => (float[3] tt) { q = Mul(v, u) tt = Sub(q, x) },
                              else_branch = ab () => (float[3] te) { te = Identity(x) }> },
                 else_branch = b () => (float[3] e) { e = Identity(u) }>
    }""", {"c": np.array(True), "d": np.array(True), "x": rand(3)})


# ---- Loop

SUMS = """g (int64 m, bool c, float[2] x) => (float[2] last, float[T, 2] all) {
  last, all = Loop(m, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] so, float[2] item) {
    co = Identity(ci)
    f = Cast<to = 1>(i)
    so = Add(s, f)
    item = Mul(so, x)
  }>
}"""


@pytest.mark.parametrize("trips", [0, 1, 5, 300])
def test_loop(trips):
    x = rand(2)
    steps = [x + np.float32(0)]
    for i in range(trips):
        steps.append(steps[-1] + np.float32(i))
    want = [steps[-1], np.array([s * x for s in steps[1:]], np.float32).reshape(trips, 2)]
    run(SUMS, {"m": np.array(trips), "c": np.array(True), "x": x}, want)
    run(SUMS, {"m": np.array(trips), "c": np.array(False), "x": x}, [x, np.zeros((0, 2), np.float32)])


def test_loop_ends_by_its_condition():
    text = """g (float x) => (float y, float[T] all, int64 n) {
      zero = Constant<value = int64 {0}>()
      yes = Constant<value = bool {1}>()
      y, n, all = Loop(, yes, x, zero) <body = b (int64 i, bool ci, float s, int64 k) => (bool co, float so, int64 ko, float item) {
        two = Constant<value = float {2.0}>()
        limit = Constant<value = float {100.0}>()
        one = Constant<value = int64 {1}>()
        so = Mul(s, two)
        ko = Add(k, one)
        co = Less(so, limit)
        item = Identity(so)
      }>
    }"""
    v, all_ = np.float32(1.5), []
    while not all_ or all_[-1] < 100:
        v = np.float32(v * 2)
        all_.append(v)
    run(text, {"x": np.array(1.5, np.float32)}, [v, np.array(all_), np.array(len(all_))])


def test_state_that_grows():
    run("""g (int64 m, float[N] x) => (float[M] y) {
      yes = Constant<value = bool {1}>()
      y = Loop(m, yes, x) <body = b (int64 i, bool ci, float[K] s) => (bool co, float[L] so) {
        co = Identity(ci)
        so = Concat<axis = 0>(s, x)
      }>
    }""", {"m": np.array(4), "x": rand(3)}, opset=13)


def test_loops_in_loops_and_ifs():
    text = """g (int64 m, float[3] x) => (float[3] y) {
      y = Loop(m, , x) <body = b (int64 i, bool ci, float[3] s) => (bool co, float[3] so) {
        co = Identity(ci)
        h = Loop(i, , s) <body = bb (int64 j, bool cj, float[3] r) => (bool cjo, float[3] ro) {
          cjo = Identity(cj)
          ro = Add(r, x)
        }>
        one = Constant<value = int64 {1}>()
        odd = Equal(i, one)
        so = If(odd) <then_branch = t () => (float[3] tt) { tt = Neg(h) }, else_branch = e () => (float[3] te) { te = Identity(h) }>
      }>
    }"""
    x = rand(3)
    s = x.copy()
    for i in range(4):
        for _ in range(i):
            s = s + x
        if i == 1:
            s = -s
    run(text, {"m": np.array(4), "x": x}, [s])


def test_sequences_in_loops():
    run("""g (int64 m, float[N] x) => (float[K] y, int64 n) {
      e = SequenceEmpty()
      yes = Constant<value = bool {1}>()
      s = Loop(m, yes, e) <body = b (int64 i, bool ci, seq(float[?]) a) => (bool co, seq(float[?]) ao) {
        co = Identity(ci)
        f = Cast<to = 1>(i)
        v = Mul(x, f)
        ao = SequenceInsert(a, v)
      }>
      y = ConcatFromSequence<axis = 0>(s)
      n = SequenceLength(s)
    }""", {"m": np.array(3), "x": rand(4)})


def test_large_state_uses_every_thread():
    x = rand(64, 257)
    run("""g (int64 m, float[A, B] x) => (float[A, B] y) {
      yes = Constant<value = bool {1}>()
      y = Loop(m, yes, x) <body = b (int64 i, bool ci, float[A, B] s) => (bool co, float[A, B] so) {
        co = Identity(ci)
        t = Transpose<perm = [1, 0]>(s)
        u = Transpose<perm = [1, 0]>(t)
        k = Tanh(u)
        so = Add(k, x)
      }>
    }""", {"m": np.array(7), "x": x})


# ---- Scan


def scan_model(opset=18, **attrs):
    """sum += item; each step also gives sum * item."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "v"], ["so"]), helper.make_node("Mul", ["so", "v"], ["p"])], "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("s", "v")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("so", "p")],
    )
    inputs = ["s0", "x"] if opset >= 9 else ["lengths", "s0", "x"]
    node = helper.make_node("Scan", inputs, ["last", "all"], body=body, num_scan_inputs=1, **attrs)
    types = {"s0": TensorProto.FLOAT, "x": TensorProto.FLOAT, "lengths": TensorProto.INT64}
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info(n, types[n], None) for n in inputs],
                              [onnx.ValueInfoProto(name=n) for n in ("last", "all")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("out_axis", [0, 1, -1])
@pytest.mark.parametrize("back", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_scan(axis, out_axis, back):
    model = scan_model(scan_input_axes=[axis], scan_output_axes=[out_axis], scan_input_directions=[back[0]], scan_output_directions=[back[1]])
    x = rand(4, 3) if axis == 0 else rand(3, 4)
    items = list(x if axis == 0 else x.T)
    s, want = rand(3), []
    feeds = {"s0": s, "x": x}
    for v in items[::-1] if back[0] else items:
        s = s + v
        want.append(s * v)
    stacked = np.stack(want[::-1] if back[1] else want, out_axis)
    for g, e in zip(tiercel.InferenceSession(model.SerializeToString()).run(None, feeds), [s, stacked], strict=True):
        compare(g, e, ulp=8)


def test_scan_of_nothing():
    got = tiercel.InferenceSession(scan_model().SerializeToString()).run(None, {"s0": rand(3), "x": rand(0, 3)})
    assert got[1].shape == (0, 3)


def test_scan_8_has_batches_and_lengths():
    model = scan_model(8, directions=[0])
    s0, x, lengths = rand(2, 3), rand(2, 5, 3), i64(5, 2)
    last, want = [], np.zeros((2, 5, 3), np.float32)
    for b in range(2):
        s = s0[b]
        for t in range(lengths[b]):
            s = s + x[b, t]
            want[b, t] = s * x[b, t]
        last.append(s)
    got = tiercel.InferenceSession(model.SerializeToString()).run(None, {"lengths": lengths, "s0": s0, "x": x})
    compare(got[0], np.array(last), ulp=8)
    compare(got[1], want, ulp=8)


# ---- sequences and optionals


def test_sequences():
    a, b, c = rand(2, 3), rand(1, 3), rand(4, 3)
    s = [a, b, c]
    check("SequenceConstruct", s, opset=11, expected=[s])
    for at in (0, 2, -3, -1):
        check("SequenceAt", [s, np.array(at)], opset=11, expected=[s[at]])
        check("SequenceErase", [s, np.array(at)], opset=11, expected=[[v for i, v in enumerate(s) if i != at % 3]])
    check("SequenceErase", [s], opset=11, expected=[s[:2]])
    for at in (0, 3, -3, -1):
        want = s.copy()
        want.insert(at, a)
        check("SequenceInsert", [s, a, np.array(at)], opset=11, expected=[want])
    check("SequenceInsert", [s, a], opset=11, expected=[[*s, a]])
    check("SequenceLength", [s], opset=11, expected=[np.array(3)])
    check("ConcatFromSequence", [s], {"axis": 0}, 11, expected=[np.concatenate(s)])
    check("ConcatFromSequence", [[a, -a]], {"axis": -1, "new_axis": 1}, 11, expected=[np.stack([a, -a], -1)])
    x = rand(7, 3)
    check("SplitToSequence", [x], {"axis": 0}, 11, expected=[[x[i : i + 1] for i in range(7)]])
    check("SplitToSequence", [x], {"axis": 1, "keepdims": 0}, 11, expected=[[x[:, i] for i in range(3)]])
    check("SplitToSequence", [x, np.array(3)], {"axis": 0}, 11, expected=[[x[:3], x[3:6], x[6:]]])
    check("SplitToSequence", [x, i64(2, 0, 5)], {"axis": 0}, 11, expected=[[x[:2], x[:0], x[2:]]])
    strings = np.array(["a", "é", ""], object)
    check("SplitToSequence", [strings], {"axis": 0}, 11, expected=[[strings[i : i + 1] for i in range(3)]])


def test_sequence_errors():
    s = [rand(2), rand(3)]
    fails_everywhere("position 2", "SequenceAt", [s, np.array(2)], opset=11)
    fails_everywhere("position -3", "SequenceErase", [s, np.array(-3)], opset=11)
    fails_everywhere("position 4", "SequenceInsert", [s, s[0], np.array(4)], opset=11)
    fails_everywhere("do not concatenate", "ConcatFromSequence", [[rand(2, 2), rand(2, 3)]], {"axis": 0}, 11)
    fails_everywhere("outside", "ConcatFromSequence", [s], {"axis": 1}, 11)
    fails_everywhere("add up", "SplitToSequence", [rand(4), i64(1, 2)], None, 11)
    fails_everywhere("above 0", "SplitToSequence", [rand(4), np.array(0)], None, 11)


def test_sequence_map():
    run("""g (seq(float[N]) s, float[1] k) => (seq(float[N]) y) {
      y = SequenceMap(s, k) <body = b (float[M] x, float[1] f) => (float[M] z) { z = Mul(x, f) }>
    }""", {"s": [rand(2), rand(5), rand(0)], "k": rand(1)}, expected=None)


# ---- errors


@pytest.mark.parametrize(
    ("text", "feeds", "match"),
    [
        (BRANCHES.replace("bool c", "float c"), {"c": np.float32(1), "x": rand(2), "z": rand(2)}, "bool"),
        (BRANCHES, {"c": np.array([True, False]), "x": rand(2), "z": rand(2)}, "one bool"),
        (SUMS, {"m": i64(1, 2), "c": np.array(True), "x": rand(2)}, "one integer"),
        (SUMS.replace("bool co, float[2] so, float[2] item", "bool co"), {"m": np.array(1), "c": np.array(True), "x": rand(2)}, "body"),
    ],
)
def test_errors(text, feeds, match):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    for value in model.graph.input:
        if value.name in ("c", "m"):
            value.type.tensor_type.ClearField("shape")
    with pytest.raises(Exception, match=match):
        tiercel.InferenceSession(model.SerializeToString()).run(None, feeds)


def test_an_error_inside_a_body_leaves_the_session_usable():
    text = """g (int64 m, float[N] x, int64[1] k) => (float[?] y) {
      y = Loop(m, , x) <body = b (int64 i, bool ci, float[?] s) => (bool co, float[?] so) {
        co = Identity(ci)
        so = Gather(s, k)
      }>
    }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    for threads in (1, 2):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        session = tiercel.InferenceSession(model.SerializeToString(), options)
        x = rand(4)
        for _ in range(3):
            with pytest.raises(Exception, match="index 3 is outside"):
                session.run(None, {"m": np.array(2), "x": x, "k": i64(3)})
            np.testing.assert_array_equal(session.run(None, {"m": np.array(2), "x": x, "k": i64(0)})[0], x[:1])
