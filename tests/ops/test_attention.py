"""Scaled dot-product attention in the spellings that exporters write: fused, and right."""
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel


class Builder:
    def __init__(self):
        self.nodes, self.constants, self.n = [], [], 0

    def const(self, value, dtype=np.float32):
        self.n += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{self.n}"))
        return f"c{self.n}"

    def __call__(self, op, *inputs, outputs=1, **attributes):
        self.n += 1
        names = [f"v{self.n}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names


def build(q_shape, k_shape, v_shape, spell, *, mask=None, dynamic=False, inside=True):
    """A model of q, k, v ([B,S,H,D] when inside, else as given) to the attention's output."""
    b = Builder()
    y = spell(b, "q", "k", "v", mask)
    rng = np.random.default_rng(0)
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in (("q", q_shape), ("k", k_shape), ("v", v_shape))}

    def shape(name, s):
        return [f"{name}{i}" if i < 2 else d for i, d in enumerate(s)] if dynamic else list(s)

    names = {"q": "q", "k": "k", "v": "k"}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape("b" if False else names[n], a.shape)) for n, a in feeds.items()]
    if isinstance(mask, tuple):
        feeds["mask"] = mask[1]
        inputs.append(helper.make_tensor_value_info("mask", helper.np_dtype_to_tensor_dtype(mask[1].dtype), mask[1].shape))
    b.nodes.append(helper.make_node("Identity", [y], ["y"]))
    graph = helper.make_graph(b.nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString(), feeds


def check(data, feeds, tmp_path, fused=True, tolerance=3e-6):
    expected = onnxruntime.InferenceSession(data).run(None, feeds)[0]
    results = []
    for threads in (1, 2):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        results.append(tiercel.InferenceSession(data, options).run(None, feeds)[0])
    ops = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert ("Attention" in ops) == fused, ops
    if fused:
        assert "Softmax" not in ops
    scale = max(np.abs(expected[np.isfinite(expected)]).max(initial=0), 1e-6)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=tolerance * scale)
    np.testing.assert_array_equal(*results)


def split(b, x, perm):
    return b("Transpose", x, perm=perm)


def scores_scaled(b, q, k, v, mask):
    s = b("MatMul", split(b, q, [0, 2, 1, 3]), split(b, k, [0, 2, 3, 1]))
    s = b("Mul", s, b.const(0.125))
    if mask is not None:
        s = b("Add", s, mask[0] if isinstance(mask, tuple) else b.const(mask))
    return b("Transpose", b("MatMul", b("Softmax", s, axis=-1), split(b, v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])


def scores_divided(b, q, k, v, mask):
    s = b("Div", b("MatMul", split(b, q, [0, 2, 1, 3]), split(b, k, [0, 2, 3, 1])), b.const([8.0]))
    if mask is not None:
        s = b("Add", mask[0] if isinstance(mask, tuple) else b.const(mask), s)
    return b("MatMul", b("Softmax", s, axis=3), split(b, v, [0, 2, 1, 3]))


def both_sides(b, q, k, v, mask):
    qs = b("Mul", split(b, q, [0, 2, 1, 3]), b.const(0.35))
    ks = b("Mul", b("Transpose", split(b, k, [0, 2, 1, 3]), perm=[0, 1, 3, 2]), b.const(0.35))
    s = b("MatMul", qs, ks)
    if mask is not None:
        s = b("Add", s, mask[0] if isinstance(mask, tuple) else b.const(mask))
    p = b("Softmax", s, axis=-1)
    p = b("Where", b("IsNaN", p), b.const(0.0), p)
    return b("Transpose", b("MatMul", p, split(b, v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])


SPELLINGS = [scores_scaled, scores_divided, both_sides]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize(("rows", "keys", "heads", "depth"), [(7, 7, 3, 8), (1, 33, 2, 64), (130, 130, 4, 20), (50, 1, 1, 5), (3, 1500, 2, 64)])
def test_spellings(spell, rows, keys, heads, depth, tmp_path):
    data, feeds = build((2, rows, heads, depth), (2, keys, heads, depth), (2, keys, heads, depth), spell)
    check(data, feeds, tmp_path)


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("mask_shape", [(), (1, 1, 1, 9), (2, 1, 1, 9), (2, 1, 9, 9), (9, 9), (1, 3, 9, 9), (2, 3, 9, 1)])
@pytest.mark.parametrize("constant", [True, False])
def test_masks(spell, mask_shape, constant, tmp_path):
    m = np.where(np.random.default_rng(1).random(mask_shape) < 0.3, np.float32(-3.4e38), np.float32(0)).astype(np.float32)
    data, feeds = build((2, 9, 3, 8), (2, 9, 3, 8), (2, 9, 3, 8), spell, mask=m if constant else ("mask", m))
    check(data, feeds, tmp_path)


def test_rows_masked_by_minus_infinity(tmp_path):
    m = np.zeros((1, 1, 4, 4), np.float32)
    m[..., 1, :] = -np.inf
    for spell in SPELLINGS:
        data, feeds = build((1, 4, 2, 8), (1, 4, 2, 8), (1, 4, 2, 8), spell, mask=m)
        check(data, feeds, tmp_path)


def test_where_mask(tmp_path):
    def spell(b, q, k, v, mask):
        s = b("MatMul", split(b, q, [0, 2, 1, 3]), split(b, k, [0, 2, 3, 1]))
        s = b("Where", mask[0], b("Mul", s, b.const(0.3)), b.const(-np.inf))
        return b("MatMul", b("Softmax", s, axis=-1), split(b, v, [0, 2, 1, 3]))

    keep = np.tril(np.ones((1, 1, 6, 6), bool))
    data, feeds = build((2, 6, 3, 8), (2, 6, 3, 8), (2, 6, 3, 8), spell, mask=("mask", keep))
    check(data, feeds, tmp_path)


def test_three_dimensional(tmp_path):
    def spell(b, q, k, v, mask):
        return b("MatMul", b("Softmax", b("MatMul", q, b("Transpose", k, perm=[0, 2, 1])), axis=-1), v)

    data, feeds = build((6, 11, 8), (6, 13, 8), (6, 13, 8), spell)
    check(data, feeds, tmp_path)


def test_key_transposed_between_reshapes(tmp_path):
    def spell(b, q, k, v, mask):
        kt = b("Transpose", b("Reshape", k, b.const([6, 10, 8], np.int64)), perm=[0, 2, 1])
        s = b("MatMul", q, b("Reshape", kt, b.const([2, 3, 8, 10], np.int64)))
        return b("MatMul", b("Softmax", s, axis=-1), v)

    data, feeds = build((2, 3, 5, 8), (2, 3, 10, 8), (2, 3, 10, 8), spell)
    check(data, feeds, tmp_path)


def test_batches_that_broadcast(tmp_path):
    def spell(b, q, k, v, mask):
        s = b("MatMul", q, b("Transpose", k, perm=[0, 1, 3, 2]))
        return b("MatMul", b("Softmax", s, axis=-1), v)

    data, feeds = build((2, 3, 5, 8), (1, 3, 5, 8), (1, 3, 5, 8), spell)
    check(data, feeds, tmp_path)


@pytest.mark.parametrize("mask_shape", [(3, 1, 1, 7), (3, 2, 4, 7)])
def test_a_mask_may_stretch_a_batch_of_one(mask_shape, tmp_path):
    """With the batch unknown at load, a mask of three may meet scores of one."""
    mask = np.random.default_rng(1).standard_normal(mask_shape).astype(np.float32)

    def spell(b, q, k, v, _):
        s = b("Add", b("MatMul", q, b("Transpose", k, perm=[0, 1, 3, 2])), b.const(mask))
        return b("MatMul", b("Softmax", s, axis=-1), v)

    for batch in (1, 3):
        data, feeds = build((batch, 2, 4, 8), (batch, 2, 7, 8), (batch, 2, 7, 8), spell)
        model = onnx.load_from_string(data)
        for i in model.graph.input:
            i.type.tensor_type.shape.dim[0].dim_param = "N"
        check(model.SerializeToString(), feeds, tmp_path)


def test_scores_that_are_read_elsewhere_stay(tmp_path):
    def spell(b, q, k, v, mask):
        p = b("Softmax", b("MatMul", q, b("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        return b("Concat", b("MatMul", p, v), p, axis=3)

    data, feeds = build((2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8), spell)
    check(data, feeds, tmp_path, fused=False)


def test_nan_and_infinity_spread_as_in_the_plain_graph(tmp_path):
    data, feeds = build((1, 6, 2, 8), (1, 6, 2, 8), (1, 6, 2, 8), scores_scaled)
    feeds["q"][0, 2, 1, 3] = np.nan
    feeds["k"][0, 4, 0, 0] = np.inf
    expected = onnxruntime.InferenceSession(data).run(None, feeds)[0]
    got = tiercel.InferenceSession(data).run(None, feeds)[0]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    check_finite = np.isfinite(expected)
    np.testing.assert_allclose(got[check_finite], expected[check_finite], atol=1e-5)


def exact(feeds, scale, mask):
    """In float64, by the definition."""
    q, k, v = (feeds[n].astype(float).transpose(0, 2, 1, 3) for n in "qkv")
    with np.errstate(invalid="ignore", over="ignore"):
        s = q @ k.transpose(0, 1, 3, 2) * scale + mask
        p = np.exp(s - np.nanmax(s, -1, keepdims=True, initial=-np.inf))
        return (p / p.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


def masked(kind, rows, keys, low):
    i, j = np.arange(rows)[:, None], np.arange(keys)
    seen = {"causal": j <= i + keys - rows, "window": abs(i - j) < 50, "padding": j < keys // 3, "late": j > keys // 2, "blocks": i // 100 == j // 100}[kind]
    m = np.where(seen, 0, low).astype(np.float32)
    return np.broadcast_to(m, (1, 1, rows, keys)).copy()


@pytest.mark.parametrize("kind", ["causal", "window", "padding", "late", "blocks"])
@pytest.mark.parametrize("low", [-np.inf, -3.4028235e38, -1e32, -1e4])
def test_blocks_that_a_mask_hides(kind, low, tmp_path):
    mask = masked(kind, 500, 500, low)
    data, feeds = build((1, 500, 2, 16), (1, 500, 2, 16), (1, 500, 2, 16), scores_scaled, mask=("mask", mask))
    check(data, feeds, tmp_path)
    got = tiercel.InferenceSession(data).run(None, feeds)[0]
    np.testing.assert_allclose(got, exact(feeds, 0.125, mask), rtol=0, atol=3e-6)


@pytest.mark.parametrize("low", [-np.inf, -3.4028235e38, -1e32])
def test_what_a_hidden_block_may_hold(low, tmp_path):
    """0 * inf is NaN, a NaN among the keys spreads, and a score may be higher than its mask is low."""
    mask = masked("causal", 500, 500, low)
    for name, at, value in [("v", 490, np.inf), ("v", 490, np.nan), ("k", 490, np.nan), ("k", 490, np.inf), ("k", 490, 3e37)]:
        data, feeds = build((1, 500, 2, 16), (1, 500, 2, 16), (1, 500, 2, 16), scores_scaled, mask=("mask", mask))
        feeds[name][0, at, 1, 3] = value
        if value == 3e37:
            feeds["q"][0, 20, 1, 3] = 8
        want, got = exact(feeds, 0.125, mask), tiercel.InferenceSession(data).run(None, feeds)[0]
        assert np.isfinite(want[:, :, 0]).all() and (value == 3e37 or not np.isfinite(want[:, :400, 1]).all() or (value == np.inf and name == "k"))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


def test_rows_that_a_low_mask_hides_altogether(tmp_path):
    """Where every score is the mask's, keys count alike: -3.4e38 is not -inf."""
    mask = masked("causal", 500, 500, -3.4028235e38)
    mask[..., 100:130, :] = -3.4028235e38
    data, feeds = build((1, 500, 2, 16), (1, 500, 2, 16), (1, 500, 2, 16), scores_scaled, mask=("mask", mask))
    got = tiercel.InferenceSession(data).run(None, feeds)[0]
    np.testing.assert_allclose(got[:, 100:130], np.broadcast_to(feeds["v"].mean(1, keepdims=True), (1, 30, 2, 16)), rtol=0, atol=3e-6)
    check(data, feeds, tmp_path)


@pytest.mark.parametrize(("rows", "heads", "groups"), [(1, 8, 2), (1, 12, 1), (5, 4, 2), (7, 2, 2), (8, 2, 1), (1, 1, 1)])
@pytest.mark.parametrize("masks", [False, True])
def test_few_rows_and_grouped_heads(rows, heads, groups, masks, tmp_path):
    def spell(b, q, k, v, mask):
        def heads_of(x):
            x = b("Unsqueeze", split(b, x, [0, 2, 1, 3]), b.const([2], np.int64))
            x = b("Expand", x, b.const([2, groups, heads // groups, 700, 24], np.int64))
            return b("Reshape", x, b.const([2, heads, 700, 24], np.int64))

        s = b("Mul", b("MatMul", split(b, q, [0, 2, 1, 3]), b("Transpose", heads_of(k), perm=[0, 1, 3, 2])), b.const(0.2))
        if mask:
            s = b("Add", s, mask[0])
        return b("Transpose", b("MatMul", b("Softmax", s, axis=-1), heads_of(v)), perm=[0, 2, 1, 3])

    mask = ("mask", np.random.default_rng(3).standard_normal((1, heads, 1, 700)).astype(np.float32)) if masks else None
    data, feeds = build((2, rows, heads, 24), (2, 700, groups, 24), (2, 700, groups, 24), spell, mask=mask)
    check(data, feeds, tmp_path)


@pytest.mark.parametrize("depth", [1, 17, 32, 48, 80, 96, 128, 256])
def test_sizes_of_heads(depth, tmp_path):
    data, feeds = build((1, 60, 2, depth), (1, 530, 2, depth), (1, 530, 2, depth), scores_scaled)
    check(data, feeds, tmp_path)


def test_no_keys_sum_to_nothing():
    data, feeds = build((2, 4, 3, 8), (2, 0, 3, 8), (2, 0, 3, 8), scores_scaled)
    assert (tiercel.InferenceSession(data).run(None, feeds)[0] == 0).all()


def test_empty(tmp_path):
    for rows, keys in ((0, 4), (4, 0)):
        data, feeds = build((2, rows, 3, 8), (2, keys, 3, 8), (2, keys, 3, 8), scores_scaled)
        got = tiercel.InferenceSession(data).run(None, feeds)[0]
        assert got.shape == (2, rows, 3, 8)


@pytest.mark.parametrize("size", [1e3, 3e4, 1e6, 1e12])
def test_huge_scores(size):
    """Scores whose product with log2(e) is rounded by many powers of two: the largest takes all the weight."""
    rng = np.random.default_rng(0)
    q, k = (size * rng.standard_normal((1, 2, 70, 64))).astype(np.float32), (size * rng.standard_normal((1, 2, 600, 64))).astype(np.float32)
    v = rng.standard_normal((1, 2, 600, 64)).astype(np.float32)
    b = Builder()
    kt = b("Transpose", "k", perm=[0, 1, 3, 2])
    b.nodes.append(helper.make_node("MatMul", [b("Softmax", b("MatMul", "q", kt), axis=-1), "v"], ["y"]))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in (("q", q), ("k", k), ("v", v))]
    graph = helper.make_graph(b.nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (y,) = tiercel.InferenceSession(model).run(None, {"q": q, "k": k, "v": v})
    assert np.isfinite(y).all() and np.abs(y).max() <= np.abs(v).max() * 1.01
    scores = np.einsum("bhsd,bhtd->bhst", q.astype(np.float64), k)
    top = np.take_along_axis(v, scores.argmax(-1)[..., None], 2)
    assert (np.abs(y - top).max(-1) < 1e-3).mean() > 0.9  # but where two are nearly equal
