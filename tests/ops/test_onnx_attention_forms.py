"""Attention and RotaryEmbedding of ai.onnx against the reference evaluator: drawn options, and the same bits on 1 and 2 threads."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import tiercel
from oracle import check, fails_everywhere, one_node


@pytest.mark.parametrize("seed", range(60))
def test_attention(seed):
    rng = np.random.default_rng(seed)
    batch, groups, times, rows, keys = (int(rng.integers(1, n)) for n in (3, 3, 3, 40, 20))
    size, out_size, flat = int(rng.integers(1, 9)), int(rng.integers(1, 9)), seed % 2
    past = int(rng.integers(0, 6)) if seed % 3 == 0 else None
    heads, total = groups * times, keys + (past or 0)

    def draw(h, n, d):
        return rng.standard_normal((batch, n, h * d) if flat else (batch, h, n, d)).astype(np.float32)

    inputs = [draw(heads, rows, size), draw(groups, keys, size), draw(groups, keys, out_size), None, None, None]
    if seed % 4:
        shape = [(rows, total), (1, 1, rows, total), (batch, heads, rows, total), (heads, rows, total), (rows, max(total - 1, 1))][seed % 5]
        inputs[3] = rng.random(shape) < 0.7 if seed % 8 > 4 else rng.standard_normal(shape).astype(np.float32)
    if past is not None:
        inputs[4] = rng.standard_normal((batch, groups, past, size)).astype(np.float32)
        inputs[5] = rng.standard_normal((batch, groups, past, out_size)).astype(np.float32)
    attrs = {"is_causal": seed % 2 ^ seed % 3 % 2, "qk_matmul_output_mode": seed % 4}
    if flat:
        attrs |= {"q_num_heads": heads, "kv_num_heads": groups}
    if seed % 5 == 0 and seed % 4:  # the evaluator caps what mode 0 shows, too; the text of the standard says raw
        attrs["softcap"] = 2.0
    if seed % 6 == 0:
        attrs["scale"] = 0.3
    check("Attention", inputs, attrs, 24, outputs=[True, past is not None, past is not None, seed % 7 > 3], ulp=64, atol=2e-6)


@pytest.mark.parametrize("left, right", [(0, -1), (2, 0), (-1, 1), (2, 1)])
def test_attention_windows_and_lengths(left, right):
    rng = np.random.default_rng([left + 1, right + 1])
    q, k, v = (rng.standard_normal((2, 2, n, 4)).astype(np.float32) for n in (3, 8, 8))
    inputs = [q, k, v, None, None, None, np.array([8, 5], np.int64)]
    for causal in (0, 1):
        check("Attention", inputs, {"left_window_size": left, "right_window_size": right, "is_causal": causal}, 25, ulp=64, atol=1e-6)


@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("columns", [1, 4, 6])
@pytest.mark.parametrize("boolean", [True, False])
def test_masks_of_fewer_keys_with_symbols_for_extents(columns, boolean, past):
    """What the mask does not reach is hidden; one column is not stretched over all keys."""
    rng = np.random.default_rng(columns)
    q, k, v = (rng.standard_normal((1, 2, n, 8)).astype(np.float32) for n in (4, 6, 6))
    mask = rng.random((4, columns)) < 0.8 if boolean else rng.standard_normal((4, columns)).astype(np.float32)
    cache = [rng.standard_normal((1, 2, past, 8)).astype(np.float32) for _ in range(2)] if past else []
    model, feeds, _ = one_node("Attention", [q, k, v, mask, *cache], {}, 23, outputs=[True, bool(past), bool(past)])
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis in (0, 2) or value.name == model.graph.input[3].name:
                dim.dim_param = f"{value.name}_{axis}"
    want = ReferenceEvaluator(model).run(None, feeds)
    for got, expected in zip(tiercel.InferenceSession(model.SerializeToString()).run(None, feeds), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_attention_is_the_same_on_two_threads():
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, 4, 70, 32)).astype(np.float32) for _ in range(3)]
    model, feeds, _ = one_node("Attention", inputs, {"is_causal": 1}, 23)
    results = []
    for threads in (1, 2):
        options = tiercel.SessionOptions()
        options.intra_op_num_threads = threads
        results.append(tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0])
    assert results[0].tobytes() == results[1].tobytes()


def test_attention_errors():
    q, k = np.zeros((1, 3, 2, 4), np.float32), np.zeros((1, 2, 5, 4), np.float32)
    fails_everywhere("multiple", "Attention", [q, k, k], opset=23)
    fails_everywhere("rows of K and V", "Attention", [k, k, k[:, :, :4]], opset=23)
    fails_everywhere("does not fit", "Attention", [k, k, k, np.zeros((5, 6), np.float32)], opset=23)
    fails_everywhere("q_num_heads", "Attention", [k[0], k[0], k[0]], opset=23)
    fails_everywhere("go together", "Attention", [k, k, k, None, k], opset=23)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_embedding(interleaved, turned):
    rng = np.random.default_rng(turned)
    half = (turned or 8) // 2
    cos, sin = (rng.standard_normal((9, half)).astype(np.float32) for _ in range(2))
    ids = rng.integers(0, 9, (2, 5))
    attrs = {"interleaved": interleaved, "rotary_embedding_dim": turned}
    x = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    check("RotaryEmbedding", [x, cos, sin, ids], attrs, 23, atol=1e-6)
    check("RotaryEmbedding", [x, cos[ids], sin[ids]], attrs, 23, atol=1e-6)
    check("RotaryEmbedding", [x.reshape(2, 5, 24), cos, sin, ids], attrs | {"num_heads": 3}, 23, atol=1e-6)
    fails_everywhere("outside", "RotaryEmbedding", [x, cos, sin, ids + 9], attrs, 23)


@pytest.mark.parametrize("kind", ["bool", "float", "causal", "causal_bool"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("rows", [4, 9])
def test_rows_that_see_nothing_are_zero_and_nan_is_passed_on(kind, constant, rows, tmp_path):
    rng = np.random.default_rng(rows)
    q, k, v = (rng.standard_normal((1, 2, n, 8)).astype(np.float32) for n in (rows, 300, 300))
    q[0, 0, 1, 3] = np.nan
    q[0, 1, 2, 0] = np.inf
    seen = rng.random((rows, 300)) < 0.5
    seen[2] = seen[3] = False  # row 2 of the second head is infinite, too
    k[0, 1, 299, 2] = np.nan
    seen[0, 299] = False  # NaN + -inf is NaN
    inputs = [q, k, v]
    if kind != "causal":
        inputs.append(seen if "bool" in kind else np.where(seen, rng.standard_normal(seen.shape), -np.inf).astype(np.float32))
    model, feeds, _ = one_node("Attention", inputs, {"is_causal": int("causal" in kind), "softcap": 1.5 if rows == 9 else 0.0}, 23)
    with np.errstate(invalid="ignore"):
        want = ReferenceEvaluator(model).run(None, feeds)[0]
    assert np.isnan(want).any() and (kind == "causal" or (want[0, 0, 3] == 0).all())
    if constant and len(inputs) > 3:
        name = model.graph.input[3].name
        model.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
        del model.graph.input[3]
    options = tiercel.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    got = tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    assert [n.domain for n in onnx.load(tmp_path / "optimised.onnx").graph.node if n.op_type == "Attention"] == ["ai.tiercel"]
    options.graph_optimization_level = tiercel.GraphOptimizationLevel.ORT_DISABLE_ALL
    np.testing.assert_allclose(tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0], want, rtol=1e-4, atol=1e-6)
