"""Operators of com.microsoft that onnxruntime's transformer optimizer writes, against onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest

import tiercel
from oracle import one_node

RNG = np.random.default_rng(23)


def rand(*shape):
    return RNG.standard_normal(shape).astype("float32")


def optimised(model, tmp_path):
    """The operators that the passes leave."""
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    tiercel.InferenceSession(model.SerializeToString(), options)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    assert not any(n.domain == "com.microsoft" and n.op_type == "Attention" for n in nodes)
    return [n.op_type for n in nodes]


def against(op, inputs, attrs=None, outputs=1, atol=2e-6, constants=(), free=None, numbers=None):
    """The model, after comparing its results with onnxruntime's: with known extents and with unknown ones (`free`: axes of
    inputs, by input; batch and rows without it), with and without optimisation."""
    model, feeds, names = one_node(op, inputs, attrs, 1, "com.microsoft", outputs, constants)
    model.opset_import[-1].version = 21
    want = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, feeds)
    for known in (True, False):
        for value in () if known else model.graph.input:
            i = int(value.name[1:])
            for axis in (range(inputs[i].ndim) if i in (numbers or ()) else (free or {}).get(i, (0, 1) if inputs[i].ndim > 2 else ())):
                value.type.tensor_type.shape.dim[axis].dim_param = f"d{i}_{axis}"
        for level in (0, 99):
            options = tiercel.SessionOptions()
            options.graph_optimization_level = tiercel.GraphOptimizationLevel(level)
            got = tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)
            for name, g, w in zip(names, got, want, strict=True):
                assert g.dtype == w.dtype and g.shape == w.shape, name
                np.testing.assert_allclose(g, w, rtol=2e-6, atol=atol, err_msg=f"{name}, known extents: {known}, level {level}")
    return model


def refused(match, op, inputs, attrs=None, outputs=1, dynamic=False):
    model, feeds, names = one_node(op, inputs, attrs, 1, "com.microsoft", outputs, dynamic=dynamic)
    with pytest.raises(tiercel.errors.Error, match=match) as error:
        tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
    assert f"the_{op}" in str(error.value), str(error.value)


# ---- Activations and convolution ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op,bias", [("BiasGelu", True), ("FastGelu", True), ("FastGelu", False)])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 33)])
def test_gelu(op, bias, shape):
    against(op, [3 * rand(*shape)] + [rand(shape[-1])] * bias)


def test_gelu_refused():
    refused("bias", "BiasGelu", [rand(2, 3)])
    refused("last extent", "BiasGelu", [rand(2, 3), rand(4)])
    refused("1 axes", "FastGelu", [rand(2, 3), rand(2, 3)])


def test_gelu_after_a_product_is_part_of_it(tmp_path):
    model = one_node("BiasGelu", [rand(2, 5, 8), rand(6)], None, 1, "com.microsoft", constants=(1,))[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(rand(8, 6), "w"))
    model.graph.node.insert(0, onnx.helper.make_node("MatMul", ["x0", "w"], ["p"]))
    model.graph.node[1].input[0] = "p"
    assert len(optimised(model, tmp_path)) == 1


ACTIVATIONS = [("", []), ("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.3]), ("Clip", [-0.5, 0.7]), ("HardSigmoid", [0.2, 0.4])]


@pytest.mark.parametrize("kind,params", ACTIVATIONS[1:])
@pytest.mark.parametrize("residual", [False, True])
def test_fused_conv(kind, params, residual, tmp_path):
    attrs = {"activation": kind, "pads": [1, 1, 1, 1], "group": 2, "kernel_shape": [3, 3], "strides": [2, 2]}
    if params:
        attrs["activation_params"] = params
    inputs = [rand(2, 4, 9, 7), rand(6, 2, 3, 3), rand(6)] + [rand(2, 6, 5, 4)] * residual
    model = against("FusedConv", inputs, attrs, constants=(1, 2), atol=4e-6, free={0: (0, 2, 3), 3: (0,)})
    assert optimised(model, tmp_path).count("Conv") == 1


def test_fused_conv_refused():
    x, w = rand(1, 2, 4, 4), rand(3, 2, 1, 1)
    refused("Swirl", "FusedConv", [x, w], {"activation": "Swirl"})
    refused("activation_params", "FusedConv", [x, w], {"activation": "Clip", "activation_params": [1.0]})
    refused("activation_params", "FusedConv", [x, w], {"activation": "LeakyRelu"})
    refused("Conv", "FusedConv", [x, rand(3, 2)], {"activation": "Relu"})


# ---- Attention ------------------------------------------------------------------------------------------------------

B, S, T, H, D = 3, 4, 6, 2, 8


def mask_of(form, batch=B, keys=T, rows=S):
    ends = RNG.integers(1, keys + 1, batch).astype("int32")
    if form == "ends":
        return ends
    if form == "ends and beginnings":
        return np.concatenate([ends, np.maximum(ends - 3, 0)]).astype("int32")
    if form == "sums":
        sums = np.arange(batch + 1, dtype="int32")
        return np.concatenate([ends, rows * sums, keys * sums]).astype("int32")
    if form is None:
        return None
    shape = (batch, keys) if form == "keys" else (batch, rows, keys)
    m = RNG.integers(0, 2, shape).astype("int32")
    m[..., 0] = 1
    return m


@pytest.mark.parametrize("mask", [None, "ends", "sums", "keys", "rows"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("more", [{}, {"scale": 0.7, "mask_filter_value": -3.0}, {"unidirectional": 1}])
def test_multi_head(mask, bias, more, tmp_path):
    rows = T if "unidirectional" in more else S  # the last row of fewer sees all keys in onnxruntime
    inputs = [rand(B, rows, H * D), rand(B, T, H * D), rand(B, T, H * 5), rand(H * (2 * D + 5)) if bias else None, mask_of(mask, rows=rows)]
    if bias and mask:
        inputs.append(rand(1, H, rows, T))
    model = against("MultiHeadAttention", inputs, {"num_heads": H} | more, numbers=(4,))
    left = optimised(model, tmp_path)
    assert left.count("Attention") == 1 and "Softmax" not in left and "Transpose" not in left, left


@pytest.mark.parametrize("mask", [None, "keys"])
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_with_a_cache(mask, causal):
    inputs = [rand(B, S, H * D), rand(B, S, H * D), rand(B, S, H * D), None, mask_of(mask, keys=S + 3), None, rand(B, H, 3, D), rand(B, H, 3, D)]
    against("MultiHeadAttention", inputs, {"num_heads": H, "unidirectional": causal}, 3, numbers=(4,), free=dict.fromkeys((6, 7), (0, 2)))


def test_causal_rows_fewer_than_keys():
    """Row i sees the keys up to i: the rows that there would be after it say nothing about it."""
    q, k, v = rand(B, T, H * D), rand(B, T, H * D), rand(B, T, H * D)
    got = []
    for rows in (T, S):
        model, feeds, names = one_node("MultiHeadAttention", [q[:, :rows], k, v], {"num_heads": H, "unidirectional": 1}, 1, "com.microsoft")
        got += tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
    np.testing.assert_allclose(got[1], got[0][:, :S], rtol=0, atol=1e-6)


def test_multi_head_of_keys_that_are_parted():
    against("MultiHeadAttention", [rand(B, S, H * D), rand(B, H, T, D), rand(B, H, T, D)], {"num_heads": H}, free={1: (0, 2), 2: (0, 2)})


@pytest.mark.parametrize("attrs,match", [
    ({"num_heads": 0}, "num_heads"), ({"num_heads": -2}, "num_heads"), ({"num_heads": 3}, "num_heads"), ({"num_heads": 2**62}, "num_heads"), ({}, "num_heads"),
])
@pytest.mark.parametrize("dynamic", [False, True])
def test_hostile_heads(attrs, match, dynamic):
    q = rand(B, S, H * D)
    if not dynamic or attrs.get("num_heads") != 3:
        refused(match, "MultiHeadAttention", [q, q, q], attrs, dynamic=dynamic)
        refused(match, "Attention", [q, rand(H * D, 3 * H * D), rand(3 * H * D)], attrs, dynamic=dynamic)


def test_multi_head_refused():
    q, heads = rand(B, S, H * D), {"num_heads": H}
    refused("packed", "MultiHeadAttention", [rand(B, S, H, 3, D)], heads)
    refused("packed", "MultiHeadAttention", [q], heads)
    refused("packed", "MultiHeadAttention", [q, rand(B, T, H, 2, D)], heads)
    refused("axes", "MultiHeadAttention", [q, rand(S, H * D), q], heads)
    refused("batches", "MultiHeadAttention", [q, rand(B + 1, S, H * D), q], heads)
    refused("sizes", "MultiHeadAttention", [q, rand(B, S, H * 4), q], heads)
    refused("bias", "MultiHeadAttention", [q, q, q, rand(7)], heads)
    refused("mask", "MultiHeadAttention", [q, q, q, None, np.ones((B, 1, S, S), "int32")], heads)
    refused("mask", "MultiHeadAttention", [q, q, q, None, np.ones(B + 1, "int32")], heads)
    refused("mask", "MultiHeadAttention", [q, q, q, None, np.ones((B + 1, S), "int32")], heads)
    refused("go together", "MultiHeadAttention", [q, q, q, None, None, None, rand(B, H, 3, D)], heads)
    refused("hidden sizes", "MultiHeadAttention", [q, q, q], heads, dynamic=True)


@pytest.mark.parametrize("mask", [None, "ends", "ends and beginnings", "keys", "rows"])
@pytest.mark.parametrize("more", [{}, {"scale": 0.7, "mask_filter_value": -3.0}, {"unidirectional": 1}, {"qkv_hidden_sizes": [H * D, H * D, H * 5]}])
def test_attention(mask, more, tmp_path):
    columns = sum(more.get("qkv_hidden_sizes", [3 * H * D]))
    inputs = [rand(B, S, 12), rand(12, columns), rand(columns), mask_of(mask, keys=S)]
    model = against("Attention", inputs, {"num_heads": H} | more, constants=(1, 2), numbers=(3,), atol=1e-5)
    left = optimised(model, tmp_path)
    assert left.count("Attention") == 1 and "Softmax" not in left and "Transpose" not in left, left


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", [None, "ends", "keys", "rows"])
def test_attention_with_a_cache(mask, causal):
    inputs = [rand(B, S, 12), rand(12, 3 * H * D), rand(3 * H * D), mask_of(mask, keys=S + 3), rand(2, B, H, 3, D)]
    against("Attention", inputs, {"num_heads": H, "unidirectional": causal}, 2, numbers=(3,), free={0: (0, 1), 4: (1, 3)}, atol=1e-5)


def test_attention_refused():
    x, w, b, heads = rand(B, S, 12), rand(12, 48), rand(48), {"num_heads": H}
    refused("columns", "Attention", [x, rand(12, 47), rand(47)], heads)
    refused("rows of the weights", "Attention", [x, rand(11, 48), b], heads)
    refused("bias", "Attention", [x, w, rand(47)], heads)
    refused("qkv_hidden_sizes", "Attention", [x, w, b], heads | {"qkv_hidden_sizes": [16, 16]})
    refused("qkv_hidden_sizes", "Attention", [x, w, b], heads | {"qkv_hidden_sizes": [-16, 16, 48]})
    refused("qkv_hidden_sizes", "Attention", [x, w, b], heads | {"qkv_hidden_sizes": [16, 16, 18]})
    refused("3 axes", "Attention", [rand(S, 12), w, b], heads)
    refused("cache", "Attention", [x, w, b, None, rand(3, B, H, 3, D)], heads)


# ---- Embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_embed_layer_norm(segments, mask, positions):
    ids = [RNG.integers(0, n, (B, S)).astype("int32") for n in (11, 2, 9)]
    inputs = [ids[0], ids[1] if segments else None, rand(11, 16), rand(9, 16), rand(2, 16) if segments else None, rand(16), rand(16)]
    inputs.append(mask_of("keys", keys=S) if mask else None)
    inputs.append(ids[2] if positions else None)
    against("EmbedLayerNormalization", inputs, {"epsilon": 1e-6}, 3, constants=(2, 3, 4, 5, 6), numbers=(0, 1, 7, 8), atol=1e-5)


def test_embed_layer_norm_refused():
    ids = np.zeros((B, S), "int32")
    refused("table of segments", "EmbedLayerNormalization", [ids, ids, rand(4, 8), rand(9, 8), None, rand(8), rand(8)], {}, 2)
    refused("last extents", "EmbedLayerNormalization", [ids, None, rand(4, 8), rand(9, 7), None, rand(8), rand(8)], {}, 2)
    refused("2 axes", "EmbedLayerNormalization", [ids[0], None, rand(4, 8), rand(9, 8), None, rand(8), rand(8)], {}, 2)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("turned", [None, 0, 4])
def test_rotary(interleaved, one, rank, turned):
    x = rand(B, S, H * D) if rank == 3 else rand(B, H, S, D)
    positions = np.array([5]) if one else RNG.integers(0, 9, (B, S))
    half = (turned or D) // 2
    attrs = {"interleaved": interleaved} | ({} if turned is None else {"num_heads": H, "rotary_embedding_dim": turned})
    against("RotaryEmbedding", [x, positions, rand(9, half), rand(9, half)], attrs, constants=(2, 3), free={0: (0, 1) if rank == 3 else (0, 2), 1: () if one else (0, 1)})


def test_rotary_refused():
    x, at, c = rand(B, S, H * D), np.zeros((B, S), "int64"), rand(9, D // 2)
    refused("num_heads", "RotaryEmbedding", [x, at, c, c], {"num_heads": 3})
    refused("num_heads", "RotaryEmbedding", [x, at, c, c], {"num_heads": -1})
    refused("rotary_embedding_dim", "RotaryEmbedding", [x, at, c, c], {"num_heads": H, "rotary_embedding_dim": 3})
    refused("rotary_embedding_dim", "RotaryEmbedding", [x, at, c, c], {"num_heads": H, "rotary_embedding_dim": 2 * D})
    refused("is_packed_batching", "RotaryEmbedding", [x, at, c, c], {"is_packed_batching": 1})
    refused("rows", "RotaryEmbedding", [x, at[:, 1:], c, c], {"num_heads": H})


# ---- Grouped queries ------------------------------------------------------------------------------------------------

GROUPED, DEPTH = {"num_heads": 4, "kv_num_heads": 2}, 16


def grouped(rows, past, lengths, total, turned=None, positions=None, bias=False):
    """`lengths`: keys of each batch; the cache holds `past`."""
    batch = len(lengths)
    cache = [rand(batch, 2, past, DEPTH), rand(batch, 2, past, DEPTH)] if past else [None, None]
    inputs = [rand(batch, rows, 4 * DEPTH), rand(batch, rows, 2 * DEPTH), rand(batch, rows, 2 * DEPTH), *cache, np.array(lengths, "int32") - 1, np.array([total], "int32")]
    inputs += [rand(16, turned // 2), rand(16, turned // 2)] if turned else [None, None]
    return [*inputs, positions, rand(batch, 4, rows, total) if bias else None]


@pytest.mark.parametrize("attrs", [
    {}, {"scale": 0.6}, {"softcap": 2.0}, {"local_window_size": 2}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1},
])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows,past,lengths,total", [(4, 0, [4, 4, 4], 4), (1, 5, [6, 6, 6], 6), (1, 5, [6, 3, 4], 6), (3, 5, [8], 8), (1, 9, [6], 6)])
def test_grouped(attrs, bias, rows, past, lengths, total):
    inputs = grouped(rows, past, lengths, total, DEPTH if "do_rotary" in attrs else None, bias=bias)
    model, feeds, names = one_node("GroupQueryAttention", inputs, GROUPED | attrs, 1, "com.microsoft", 3)
    model.opset_import[-1].version = 21
    want = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, feeds)
    for known in (True, False):
        for value in () if known else [v for v in model.graph.input if int(v.name[1:]) < 5]:
            for axis in (0, 1) if int(value.name[1:]) < 3 else (0, 2):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
        for level in (0, 99):
            options = tiercel.SessionOptions()
            options.graph_optimization_level = tiercel.GraphOptimizationLevel(level)
            got = tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)
            np.testing.assert_allclose(got[0], want[0], rtol=0, atol=3e-6)
            for g, w in zip(got[1:], want[1:], strict=True):
                assert g.shape == w.shape
                for b, n in enumerate(lengths):  # what follows says nothing
                    np.testing.assert_allclose(g[b, :, :n], w[b, :, :n], rtol=0, atol=1e-6)


def test_grouped_with_positions(tmp_path):
    inputs = grouped(1, 5, [6, 4], 6, DEPTH, positions=np.array([[3], [2]]))
    attrs = GROUPED | {"do_rotary": 1}
    model, feeds, names = one_node("GroupQueryAttention", inputs, attrs, 1, "com.microsoft", 3)
    model.opset_import[-1].version = 21
    want = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, feeds)[0]
    np.testing.assert_allclose(tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0], want, rtol=0, atol=3e-6)
    left = optimised(model, tmp_path)
    assert left.count("Attention") == 1 and not any(op.startswith("Tile") for op in left), left


def test_half():
    """Against the same in float."""
    q, m = rand(2, 3, 16).astype("float16"), np.ones((2, 3), "int32")
    for op, inputs, attrs in (
        ("MultiHeadAttention", [q, q, q, rand(48).astype("float16"), m], {"num_heads": 2}), ("Attention", [q, rand(16, 48).astype("float16"), None, m], {"num_heads": 2}),
        ("BiasGelu", [q, q[0, 0]], {}), ("RotaryEmbedding", [q, np.array([0]), q[0, :, :4], q[1, :, :4]], {}),
    ):
        wide = [v.astype("float32") if v is not None and v.dtype == np.float16 else v for v in inputs]
        got, want = ((s := one_node(op, v, attrs, 1, "com.microsoft")) and tiercel.InferenceSession(s[0].SerializeToString()).run(s[2], s[1])[0] for v in (inputs, wide))
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-2)


def test_grouped_refused():
    inputs = grouped(3, 5, [8, 8], 8)
    for attrs in ({}, {"num_heads": 4}, {"num_heads": 4, "kv_num_heads": 0}, {"num_heads": 4, "kv_num_heads": 3}, {"num_heads": 0, "kv_num_heads": 2}):
        refused("num_heads", "GroupQueryAttention", inputs, attrs, 3)
    refused("packed", "GroupQueryAttention", [inputs[0], None, None, *inputs[3:]], GROUPED, 3)
    refused("go together", "GroupQueryAttention", [*inputs[:4], None, *inputs[5:]], GROUPED, 3)
    refused("cos_cache", "GroupQueryAttention", inputs, GROUPED | {"do_rotary": 1}, 3)
    refused("smooth_softmax", "GroupQueryAttention", inputs, GROUPED | {"smooth_softmax": 1}, 3)
    refused("batches", "GroupQueryAttention", [inputs[0][:1], *inputs[1:]], GROUPED, 3)
