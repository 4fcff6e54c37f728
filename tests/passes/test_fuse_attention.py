"""Attention in the spellings of exporters: one operator is left, no axis is moved, and the numbers stay."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiercel

B, H, G, S, T, D = 2, 4, 2, 5, 7, 8
RNG = np.random.default_rng(11)


class Builder:
    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, v):
        if isinstance(v, str):
            return v
        v = np.asarray(v, np.float32) if not isinstance(v, np.ndarray) else v
        self.constants.append(numpy_helper.from_array(v, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def __getattr__(self, op):
        def add(*inputs, **attrs):
            out = f"v{len(self.nodes)}"
            self.nodes.append(helper.make_node(op, [self.const(v) for v in inputs], [out], **attrs))
            return out

        return add

    def reshape(self, x, *shape):
        return self.Reshape(x, np.array(shape, np.int64))


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def fused(spell, feeds, tmp_path, symbols=None, attentions=1):
    """The operators of the optimised graph; its result must be onnxruntime's, with known extents and with `symbols`
    (names of extents, by input)."""
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(bool): TensorProto.BOOL}
    for shapes in ({n: v.shape for n, v in feeds.items()}, symbols):
        if shapes is None:
            continue
        b = Builder()
        y = spell(b)
        graph = helper.make_graph(
            b.nodes, "g", [helper.make_tensor_value_info(n, kinds[v.dtype], shapes[n]) for n, v in feeds.items()],
            [onnx.ValueInfoProto(name=o) for o in ([y] if isinstance(y, str) else y)], b.constants,
        )
        data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        options = tiercel.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        got = tiercel.InferenceSession(data, options).run(None, feeds)
        for g, w in zip(got, onnxruntime.InferenceSession(data).run(None, feeds), strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=3e-6 * max(1, np.abs(w).max()))
        ops = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
        assert ops.count("Attention") == attentions and ("Softmax" in ops) == (attentions == 0), ops
    return ops


def qkv(heads=H):
    return {"q": rand(B, H, S, D), "k": rand(B, heads, T, D), "v": rand(B, heads, T, D)}


BATCHES = {"q": ["b", H, "s", D], "k": ["b", H, "t", D], "v": ["b", H, "t", D]}


def kt(b, k="k"):
    return b.Transpose(k, perm=[0, 1, 3, 2])


def test_several_masks(tmp_path):
    def spell(b):
        s = b.Add(b.Div(b.Add(b.MatMul("q", kt(b)), "bias"), 2.0), "mask")
        s = b.Sub(s, b.Mul("pad", 10000.0))
        return b.MatMul(b.Softmax(b.Where("hidden", -3.4e38, s), axis=-1), "v")

    feeds = qkv() | {"bias": rand(1, H, S, T), "mask": rand(S, T), "pad": np.zeros((B, 1, 1, T), np.float32), "hidden": np.zeros((B, 1, S, T), bool)}
    feeds["pad"][1, ..., 5:] = 1
    feeds["hidden"][0, 0, :, :2] = True
    fused(spell, feeds, tmp_path, BATCHES | {"bias": [1, H, "s", "t"], "mask": ["s", "t"], "pad": ["b", 1, 1, "t"], "hidden": ["b", 1, "s", "t"]})


@pytest.mark.parametrize("grow", ["Expand", "Tile"])
@pytest.mark.parametrize("transposed", ["heads", "merged"])
def test_grouped_queries(grow, transposed, tmp_path):
    def repeat(b, x):
        x = b.Unsqueeze(x, np.array([2], np.int64))
        x = b.Expand(x, np.array([1, 1, H // G, 1, 1], np.int64)) if grow == "Expand" else b.Tile(x, np.array([1, 1, H // G, 1, 1], np.int64))
        return b.reshape(x, B, H, T, D)

    def spell(b):
        k = repeat(b, b.Transpose(b.reshape("k", B, T, G, D), perm=[0, 2, 1, 3]))
        v = repeat(b, b.Transpose(b.reshape("v", B, T, G, D), perm=[0, 2, 1, 3]))
        merged = transposed == "merged"
        k = b.reshape(b.Transpose(b.reshape(k, -1, T, D), perm=[0, 2, 1]), B, H, D, T) if merged else kt(b, k)
        y = b.MatMul(b.Softmax(b.Mul(b.MatMul("q", k), 0.3), axis=-1), v)
        return b.reshape(b.Transpose(y, perm=[0, 2, 1, 3]), B, S, H * D)

    ops = fused(spell, {"q": rand(B, H, S, D), "k": rand(B, T, G * D), "v": rand(B, T, G * D)}, tmp_path)
    assert not {"Transpose", "Expand", "Tile"} & set(ops)


def test_axes_that_are_no_heads_are_not_taken_for_repeated(tmp_path):
    """Rows, not heads, are repeated."""

    def repeat(b, x):
        return b.reshape(b.Expand(b.Unsqueeze(x, np.array([3], np.int64)), np.array([1, 1, 1, 2, 1], np.int64)), B, H, 2 * T, D)

    def spell(b):
        return b.MatMul(b.Softmax(b.MatMul("q", kt(b, repeat(b, "k"))), axis=-1), repeat(b, "v"))

    assert fused(spell, qkv(), tmp_path).count("Expand") == 2


@pytest.mark.parametrize("mask", [None, (S, T), (1, S, T), (B * H, 1, T), (B * H, S, T)])
def test_sequence_first(mask, tmp_path):
    """[S, B, HD], batch and heads as one axis: how PyTorch's MultiheadAttention is written."""

    def split(b, x, n):
        return b.Transpose(b.reshape(x, n, B * H, D), perm=[1, 0, 2])

    def spell(b):
        s = b.MatMul(b.Mul(split(b, "q", S), 0.3), b.Transpose(split(b, "k", T), perm=[0, 2, 1]))
        y = b.MatMul(b.Softmax(b.Add(s, "m") if mask else s, axis=-1), split(b, "v", T))
        return b.reshape(b.Transpose(y, perm=[1, 0, 2]), S, B, H * D)

    feeds = {"q": rand(S, B, H * D), "k": rand(T, B, H * D), "v": rand(T, B, H * D)} | ({"m": rand(*mask)} if mask else {})
    assert "Transpose" not in fused(spell, feeds, tmp_path)


def test_sequence_first_with_heads_apart(tmp_path):
    """The same with batch and heads parted between: key padding can be masked."""

    def split(b, x, n):
        return b.reshape(b.Transpose(b.reshape(x, n, B * H, D), perm=[1, 0, 2]), B, H, n, D)

    def spell(b):
        s = b.Add(b.MatMul(b.Mul(split(b, "q", S), 0.5), kt(b, b.Mul(split(b, "k", T), 0.5))), "m")
        y = b.Transpose(b.MatMul(b.Softmax(s, axis=-1), split(b, "v", T)), perm=[2, 0, 1, 3])
        return b.reshape(y, S * B, H * D)

    feeds = {"q": rand(S, B, H * D), "k": rand(T, B, H * D), "v": rand(T, B, H * D), "m": rand(B, 1, 1, T)}
    assert "Transpose" not in fused(spell, feeds, tmp_path)


def test_scores_parted_between_products(tmp_path):
    """Products over [BH, S, D], masks over [B, H, S, T]; a bias of each head's keys is added before."""

    def merged(b, x):
        return b.reshape(x, B * H, -1, D)

    def spell(b):
        heads = [b.Transpose(x, perm=[0, 2, 1, 3]) for x in ("q", "k", "v")]
        q, k, v = (merged(b, x) for x in heads)
        s = b.Add(b.Mul(b.MatMul(q, b.Transpose(k, perm=[0, 2, 1])), 0.3), "alibi")
        p = b.Softmax(b.Add(b.reshape(s, B, H, S, T), "m"), axis=-1)
        y = b.reshape(b.MatMul(b.reshape(p, B * H, S, T), v), B, H, S, D)
        return b.reshape(b.Transpose(y, perm=[0, 2, 1, 3]), B, S, H * D)

    feeds = {"q": rand(B, S, H, D), "k": rand(B, T, H, D), "v": rand(B, T, H, D), "alibi": rand(B * H, 1, T), "m": rand(B, 1, S, T)}
    assert "Transpose" not in fused(spell, feeds, tmp_path)


def test_merged_heads_are_seen_through(tmp_path):
    """[B,H,S,D] -> [BH,S,D] around everything, and a mask of zeros, as torch.baddbmm leaves it."""

    def spell(b):
        q, k, v = (b.reshape(b.Transpose(x, perm=[0, 2, 1, 3]), B * H, -1, D) for x in ("q", "k", "v"))
        empty = b.Mul(b.ConstantOfShape(b.Concat(b.Gather(b.Shape(q), np.array([0, 1], np.int64)), np.array([T], np.int64), axis=0)), 0.0)
        s = b.Add(b.Mul(b.MatMul(q, b.Transpose(k, perm=[0, 2, 1])), 0.3), empty)
        y = b.reshape(b.MatMul(b.Softmax(s, axis=-1), v), B, H, S, D)
        return b.reshape(b.Transpose(y, perm=[0, 2, 1, 3]), B, S, H * D)

    feeds = {"q": rand(B, S, H, D), "k": rand(B, T, H, D), "v": rand(B, T, H, D)}
    assert not {"Transpose", "ConstantOfShape"} & set(fused(spell, feeds, tmp_path))


def test_key_that_comes_transposed(tmp_path):
    def spell(b):
        return b.MatMul(b.Softmax(b.MatMul("q", "k"), axis=-1), "v")

    fused(spell, {"q": rand(B, H, S, D), "k": rand(B, H, D, T), "v": rand(B, H, T, D)}, tmp_path)


def test_shape_of_the_scores(tmp_path):
    def spell(b):
        s = b.MatMul("q", kt(b))
        p = b.Softmax(s, axis=-1)
        return b.MatMul(p, "v"), b.Shape(s), b.Shape(p)

    fused(spell, qkv(), tmp_path, BATCHES)


def test_batches_of_other_names(tmp_path):
    """Batches that only a run knows: equal, or one of them 1."""

    def spell(b):
        return b.MatMul(b.Softmax(b.MatMul("q", kt(b)), axis=-1), "v")

    symbols = {"q": ["b", H, "s", D], "k": ["n", H, "t", D], "v": ["n", H, "t", D]}
    for q, k in ((B, B), (B, 1), (1, B)):
        fused(spell, {"q": rand(q, H, S, D), "k": rand(k, H, T, D), "v": rand(k, H, T, D)}, tmp_path, symbols)


def test_expand_to_extents_that_leave_them(tmp_path):
    """Where(target == -1, 1, target) with extents of inputs in the target: none is negative, so the Expand is known to repeat heads alone."""

    def repeat(b, x):
        shape = b.Shape(x)
        target = b.Concat(b.Gather(shape, np.array([0, 1], np.int64)), np.array([H // G], np.int64), b.Gather(shape, np.array([2, 3], np.int64)), axis=0)
        one = b.ConstantOfShape(np.array([5], np.int64), value=helper.make_tensor("one", TensorProto.INT64, [1], [1]))
        target = b.Where(b.Equal(target, np.full(5, -1, np.int64)), one, target)
        grown = b.Expand(b.Unsqueeze(x, np.array([2], np.int64)), target)
        rest = b.Gather(shape, np.array([2, 3], np.int64))
        return b.Reshape(grown, b.Concat(b.Gather(shape, np.array([0], np.int64)), np.array([H], np.int64), rest, axis=0))

    def spell(b):
        return b.MatMul(b.Softmax(b.MatMul("q", kt(b, repeat(b, "k"))), axis=-1), repeat(b, "v"))

    symbols = {"q": ["b", H, "s", D], "k": ["b", G, "t", D], "v": ["b", G, "t", D]}
    assert "Expand" not in fused(spell, qkv(G), tmp_path, symbols)


@pytest.mark.parametrize("how", ["Split", "Gather", "Slice"])
@pytest.mark.parametrize("axis", [2, 3])
def test_one_projection(how, axis, tmp_path):
    """Q, K and V out of one product: [B, S, 3, H, D], or [B, S, H, 3, D], permuted as a whole."""

    def spell(b):
        x = b.reshape("x", B, S, *((3, H) if axis == 2 else (H, 3)), D)
        x = b.Transpose(x, perm=[2, 0, 3, 1, 4] if axis == 2 else [3, 0, 2, 1, 4])
        if how == "Gather":
            q, k, v = (b.Gather(x, np.array(i, np.int64), axis=0) for i in range(3))
        elif how == "Slice":
            parts = [b.Slice(x, *(np.array([n], np.int64) for n in (i, i + 1, 0))) for i in range(3)]
            q, k, v = (b.Squeeze(o, np.array([0], np.int64)) for o in parts)
        else:
            outs = [f"part{i}" for i in range(3)]
            b.nodes.append(helper.make_node("Split", [x, b.const(np.array([1, 1, 1], np.int64))], outs, axis=0))
            q, k, v = (b.Squeeze(o, np.array([0], np.int64)) for o in outs)
        y = b.MatMul(b.Softmax(b.MatMul(b.Mul(q, 0.3), b.Transpose(k, perm=[0, 1, 3, 2])), axis=-1), v)
        return b.reshape(b.Transpose(y, perm=[0, 2, 1, 3]), B, S, H * D)

    assert "Transpose" not in fused(spell, {"x": rand(B, S, 3 * H * D)}, tmp_path)


def test_past_and_new_keys(tmp_path):
    """A mask and a target for all keys, made of two extents: their sum is that of the Concat."""

    def repeat(b, x, total):
        grown = b.Expand(b.Unsqueeze(x, np.array([2], np.int64)), b.Concat(np.array([B, G, H // G], np.int64), total, np.array([D], np.int64), axis=0))
        return b.Reshape(grown, b.Concat(np.array([B, H], np.int64), total, np.array([D], np.int64), axis=0))

    def spell(b):
        past, new = (b.Gather(b.Shape(x), np.array([2], np.int64)) for x in ("past_k", "k"))
        total = b.Add(past, new)
        k, v = b.Concat("past_k", "k", axis=2), b.Concat("past_v", "v", axis=2)
        y = b.MatMul(b.Softmax(b.MatMul("q", kt(b, repeat(b, k, total))), axis=-1), repeat(b, v, b.Add(new, past)))
        return y, k, v

    feeds = qkv(G) | {"past_k": rand(B, G, 3, D), "past_v": rand(B, G, 3, D)}
    symbols = {"q": [B, H, "s", D], "k": [B, G, "s2", D], "v": [B, G, "s2", D], "past_k": [B, G, "p", D], "past_v": [B, G, "p", D]}
    assert "Expand" not in fused(spell, feeds, tmp_path, symbols)


def test_weights_that_are_an_output_stay(tmp_path):
    def spell(b):
        p = b.Softmax(b.MatMul("q", kt(b)), axis=-1)
        return b.MatMul(p, "v"), p

    fused(spell, qkv(), tmp_path, attentions=0)


def test_mild_masks_stay(tmp_path):
    """A Where with a number that leaves the hidden scores a say is no mask."""

    def spell(b):
        return b.MatMul(b.Softmax(b.Where("hidden", -2.0, b.MatMul("q", kt(b))), axis=-1), "v")

    fused(spell, qkv() | {"hidden": RNG.random((S, T)) < 0.5}, tmp_path, attentions=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spelling", ["divided", "multiplied", "query"])
def test_soft_cap(masked, spelling, tmp_path):
    """Scores are capped before they are masked (Gemma 2)."""
    feeds = {"q": rand(B, H, S, D) * 4, "k": rand(B, H, T, D), "v": rand(B, H, T, D)}
    if masked:
        feeds["m"] = np.where(RNG.random((B, 1, S, T)) < 0.7, 0, np.finfo(np.float32).min).astype(np.float32)

    def spell(b):
        q = b.Mul("q", 0.35) if spelling == "query" else "q"
        s = b.MatMul(q, b.Transpose("k", perm=[0, 1, 3, 2]))
        s = b.Div(b.Mul(s, 0.35), 2.0) if spelling == "divided" else b.Mul(s, 0.35 / 2) if spelling == "multiplied" else b.Div(s, 2.0)
        s = b.Mul(b.Tanh(s), 2.0)
        return b.MatMul(b.Softmax(b.Add(s, "m") if masked else s, axis=-1), "v")

    ops = fused(spell, feeds, tmp_path, {n: [f"{n}{i}" if i == 2 else d for i, d in enumerate(v.shape)] for n, v in feeds.items() if n != "m"} if not masked else None)
    assert "Tanh" not in ops


def test_a_mask_below_a_soft_cap_stays(tmp_path):
    feeds = {"q": rand(B, H, S, D), "k": rand(B, H, T, D), "v": rand(B, H, T, D), "m": rand(S, T)}

    def spell(b):
        s = b.Mul(b.Tanh(b.Add(b.MatMul("q", b.Transpose("k", perm=[0, 1, 3, 2])), "m")), 2.0)
        return b.MatMul(b.Softmax(s, axis=-1), "v")

    fused(spell, feeds, tmp_path, attentions=0)
