"""Gradients of attention and of its neighbours in transformers: central differences in double, float against double, PyTorch, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gradcheck import check_grad

import tiercel
from oracle import one_node
from tiercel import _core

MICROSOFT = "com.microsoft"
RNG = np.random.default_rng(31)
B, H, G, S, T, D = 2, 4, 2, 3, 5, 2


def rand(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape)


def mask(*shape: int) -> np.ndarray:
    m = RNG.random(shape) < 0.6
    m[..., 0] = True
    return m


def hidden_row(*shape: int) -> np.ndarray:
    """One row of the queries that sees nothing."""
    m = mask(*shape)
    m[..., 1, :] = False
    return m


ATTENTION: dict[str, tuple[list[Any], dict[str, Any], int]] = {
    "four axes": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, 3)], {}, 1),
    "three axes": ([rand(B, S, H * D), rand(B, T, H * D), rand(B, T, H * 3)], {"q_num_heads": H, "kv_num_heads": H}, 1),
    "grouped": ([rand(B, S, H * D), rand(B, T, G * D), rand(B, T, G * D)], {"q_num_heads": H, "kv_num_heads": G, "scale": 0.3}, 1),
    "grouped, four axes": ([rand(B, H, S, D), rand(B, G, T, D), rand(B, G, T, 3)], {"is_causal": 1}, 1),
    "causal": ([rand(1, 2, S, D), rand(1, 2, S, D), rand(1, 2, S, D)], {"is_causal": 1}, 1),
    "soft cap": ([rand(B, 2, S, D), rand(B, 2, T, D), rand(B, 2, T, D)], {"softcap": 0.7, "is_causal": 1}, 1),
    "float mask": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, D), rand(S, T)], {}, 1),
    "wide float mask": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, D), rand(B, 1, S, T)], {"softcap": 1.5}, 1),
    "bool mask": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, D), mask(B, 1, S, T)], {}, 1),
    "short mask": ([rand(B, 2, S, D), rand(B, 2, T, D), rand(B, 2, T, D), mask(S, T - 1)], {}, 1),
    "nothing seen": ([rand(B, 2, S, D), rand(B, 2, T, D), rand(B, 2, T, D), hidden_row(S, T)], {}, 1),
    "past": ([rand(1, H, S, D), rand(1, G, S, D), rand(1, G, S, D), None, rand(1, G, 2, D), rand(1, G, 2, D)], {"is_causal": 1}, 3),
    "scores": ([rand(1, 2, S, D), rand(1, 2, T, D), rand(1, 2, T, D), rand(S, T)], {"qk_matmul_output_mode": 2}, 4),
    "probabilities": ([rand(1, 2, S, D), rand(1, 2, T, D), rand(1, 2, T, D)], {"qk_matmul_output_mode": 3}, 4),
    "lengths": ([rand(B, 2, S, D), rand(B, 2, T, D), rand(B, 2, T, D), None, None, None, np.array([T, 4])], {"is_causal": 1}, 1),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    inputs, attributes, outputs = ATTENTION[name]
    check_grad("Attention", inputs, attributes, opset=24, outputs=outputs, rtol=1e-5)


def asked_of(
    op: str, inputs: list[Any], attributes: dict[str, Any], opset: int, domain: str = "", threads: int = 1, wrt: list[int] | None = None
) -> list[np.ndarray]:
    model, feeds, _ = one_node(op, inputs, attributes, opset, domain)
    if domain:
        model.opset_import[1].version = 21
    asked = [f"x{i}" for i in wrt] if wrt else [k for k, v in feeds.items() if v.dtype.kind == "f"]
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    data = _core.gradient_model(model.SerializeToString(), "", [], asked)
    return tiercel.InferenceSession(data, options).run([f"gradient of {k}" for k in asked], feeds)


def single(inputs: list[Any]) -> list[Any]:
    return [v.astype(np.float32) if v is not None and v.dtype.kind == "f" else v for v in inputs]


@pytest.mark.parametrize("name", [n for n in ATTENTION if n not in ("past", "scores", "probabilities")])
def test_float_follows_double_on_any_threads(name: str) -> None:
    inputs, attributes, _ = ATTENTION[name]
    expected = asked_of("Attention", inputs, attributes, 24)
    one, two = (asked_of("Attention", single(inputs), attributes, 24, threads=n) for n in (1, 2))
    for e, a, b in zip(expected, one, two, strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=3e-6)
        assert np.array_equal(a, b)


@pytest.mark.parametrize("form", ["plain", "causal", "bool", "float", "grouped"])
def test_pytorch_attention(form: str) -> None:
    torch = pytest.importorskip("torch")
    b, h, s, t, d = 2, 6, 17, 17, 24
    g = 2 if form == "grouped" else h
    q, k, v = (rand(*shape).astype(np.float32) for shape in ((b, h, s, d), (b, g, t, d), (b, g, t, d)))
    inputs: list[Any] = [q, k, v]
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    more: dict[str, Any] = {"is_causal": form == "causal", "enable_gqa": form == "grouped"}
    if form in ("bool", "float"):
        inputs.append(mask(b, 1, s, t) if form == "bool" else rand(b, 1, s, t).astype(np.float32))
        more["attn_mask"] = torch.tensor(inputs[3])
    torch.nn.functional.scaled_dot_product_attention(*tensors, **more).sum().backward()
    got = asked_of("Attention", inputs, {"is_causal": int(form == "causal")}, 24, wrt=[0, 1, 2])
    for mine, theirs in zip(got, tensors, strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-4, atol=2e-5)


def lengths(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    "inputs,attributes",
    [
        ([rand(B, S, H * D), rand(B, T, H * D), rand(B, T, H * D)], {}),
        ([rand(B, S, 2 * D), rand(B, T, 2 * D), rand(B, T, 2 * 3), rand(2 * (D + D + 3))], {"scale": 0.4}),
        ([rand(B, S, H * D), rand(B, T, H * D), rand(B, T, H * D), None, lengths(3, 5), rand(1, H, S, T)], {}),
        ([rand(B, S, H * D), rand(B, H, T, D), rand(B, H, T, D)], {}),
        ([rand(1, S, 2 * D), rand(1, S, 2 * D), rand(1, S, 2 * D), None, None, None, rand(1, 2, 2, D), rand(1, 2, 2, D)], {"unidirectional": 1}),
    ],
)  # fmt: skip
def test_multi_head_attention(inputs: list[Any], attributes: dict[str, Any]) -> None:
    heads = 2 if inputs[0].shape[2] == 2 * D else H
    check_grad("MultiHeadAttention", inputs, {"num_heads": heads, **attributes}, opset=1, domain=MICROSOFT, rtol=1e-5)


@pytest.mark.parametrize(
    "inputs,attributes",
    [
        ([rand(B, S, 5), rand(5, 3 * 4), rand(12)], {}),
        ([rand(B, S, 5), rand(5, 3 * 4), rand(12)], {"unidirectional": 1}),
        ([rand(B, S, 5), rand(5, 14), rand(14), lengths(2, 3)], {"qkv_hidden_sizes": [4, 4, 6]}),
        ([rand(B, S, 5), rand(5, 3 * 4), rand(12), None, rand(2, B, 2, 2, 2)], {}),
    ],
)
def test_projected_attention(inputs: list[Any], attributes: dict[str, Any]) -> None:
    check_grad("Attention", inputs, {"num_heads": 2, **attributes}, opset=1, domain=MICROSOFT, rtol=1e-5)


def test_group_query_attention() -> None:
    d, total = 4, np.array(S, np.int32)
    inputs = [rand(B, S, 4 * d), rand(B, S, 2 * d), rand(B, S, 2 * d), None, None, lengths(S - 1, S - 1), total]
    heads = {"num_heads": 4, "kv_num_heads": 2}
    check_grad("GroupQueryAttention", inputs, heads, opset=1, domain=MICROSOFT, rtol=1e-5)
    check_grad("GroupQueryAttention", inputs, heads | {"softcap": 0.8, "local_window_size": 2}, opset=1, domain=MICROSOFT, rtol=1e-5)
    angles = rand(8, d // 2)
    turned = [*inputs, np.cos(angles), np.sin(angles)]
    check_grad("GroupQueryAttention", turned, heads | {"do_rotary": 1}, [0, 1, 2], 1, MICROSOFT, rtol=1e-5)
    cached = [rand(1, 1, 4 * d), rand(1, 1, 2 * d), rand(1, 1, 2 * d), rand(1, 2, 3, d), rand(1, 2, 3, d), lengths(3), np.array(4, np.int32)]
    check_grad("GroupQueryAttention", cached, heads, opset=1, domain=MICROSOFT, outputs=3, rtol=1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 2])
def test_rotary_embedding(interleaved: int, turned: int) -> None:
    angles = rand(6, (turned or 4) // 2)
    caches = [np.cos(angles), np.sin(angles)]
    ids = np.array([[0, 2, 4], [1, 1, 5]])
    attributes = {"interleaved": interleaved, **({"rotary_embedding_dim": turned} if turned else {})}
    check_grad("RotaryEmbedding", [rand(2, 2, 3, 4), *caches, ids], attributes, opset=23)
    check_grad("RotaryEmbedding", [rand(2, 3, 8), *caches, ids], attributes | {"num_heads": 2}, opset=23)
    given = [c[ids] for c in caches]
    check_grad("RotaryEmbedding", [rand(2, 3, 8), *given], attributes | {"num_heads": 2}, opset=23)
    heads = attributes | {"num_heads": 2}
    check_grad("RotaryEmbedding", [rand(2, 3, 8), ids, *caches], heads, opset=1, domain=MICROSOFT)
    check_grad("RotaryEmbedding", [rand(2, 2, 3, 4), np.array([1]), *caches], heads, opset=1, domain=MICROSOFT)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("ta", [0, 1])
@pytest.mark.parametrize("tb", [0, 1])
def test_fused_matmul(ta: int, tb: int, dynamic: bool) -> None:
    def turned(v: np.ndarray, by: int) -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(v, -1, -2)) if by else v

    flags = {"transA": ta, "transB": tb, "alpha": 0.5}
    for a, b in [((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((2, 1, 3, 4), (3, 4, 2)), ((3, 4), (2, 4, 2))]:
        operands = [turned(rand(*a), ta), turned(rand(*b), tb)]
        check_grad("FusedMatMul", operands, flags, opset=1, domain=MICROSOFT, dynamic=dynamic)
    a, b = turned(rand(2, 3, 4), ta), turned(rand(2, 4, 2), tb)
    inside = {"transBatchA": 1, "transBatchB": 1}
    turned_in = [np.ascontiguousarray(np.moveaxis(v, -2, 0)) for v in (a, b)]
    check_grad("FusedMatMul", turned_in, flags | inside, opset=1, domain=MICROSOFT, dynamic=dynamic)
    check_grad("FusedMatMul", [rand(4), turned(rand(2, 4, 3), tb)], flags, opset=1, domain=MICROSOFT)
    check_grad("FusedMatMul", [turned(rand(2, 3, 4), ta), rand(4)], flags, opset=1, domain=MICROSOFT)
    addends = [rand(2), rand(3, 1)]
    check_grad("FusedMatMul", [turned(rand(2, 3, 4), ta), turned(rand(4, 2), tb), *addends], flags | {"beta": 0.3}, opset=1, domain="ai.tiercel")
    check_grad("FusedGemm", [turned(rand(3, 4), ta), turned(rand(4, 2), tb), rand(2)], flags | {"beta": 0.7}, opset=1, domain=MICROSOFT)


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Softsign"])
def test_fused_gemm_with_an_activation(activation: str) -> None:
    a, b, c = single([rand(5, 7), rand(7, 6), rand(6)])
    got = asked_of("FusedGemm", [a, b, c], {"activation": activation, "alpha": 0.5}, 1, MICROSOFT)
    x = (0.5 * a @ b + c).astype(np.float64)
    d = {"Relu": x > 0, "Tanh": 1 - np.tanh(x) ** 2, "Softsign": 1 / (1 + abs(x)) ** 2}[activation]
    for mine, want in zip(got, [0.5 * d @ b.T, 0.5 * a.T @ d, d.sum(0)], strict=True):
        np.testing.assert_allclose(mine, want, rtol=2e-5, atol=2e-5)


def test_gelu_with_a_bias() -> None:
    check_grad("BiasGelu", [rand(2, 3, 4), rand(4)], opset=1, domain=MICROSOFT)
    check_grad("FastGelu", [rand(2, 3, 4), rand(4)], opset=1, domain=MICROSOFT)
    check_grad("FastGelu", [rand(2, 3, 4)], opset=1, domain=MICROSOFT, dynamic=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_skip_normalizations(dynamic: bool) -> None:
    x, skip, gamma, beta, bias = rand(2, 3, 6), rand(2, 3, 6), rand(6), rand(6), rand(6)
    form: dict[str, Any] = {"opset": 1, "domain": MICROSOFT, "dynamic": dynamic}
    attributes = {"epsilon": 1e-3}
    op = "SkipLayerNormalization"
    check_grad(op, [x, skip, gamma, beta, bias], attributes, **form)
    check_grad(op, [x, skip, gamma, beta], attributes, outputs=[True, False, False, True], **form)
    check_grad(op, [x, skip, gamma], attributes, outputs=[False, False, False, True], wrt=[0, 1], **form)
    check_grad(op, [x, skip[:1], gamma, None, bias], attributes, outputs=[True, False, False, True], **form)
    op = "SkipSimplifiedLayerNormalization"
    check_grad(op, [x, skip, gamma, bias], attributes, outputs=[True, False, False, True], **form)
    check_grad(op, [x, skip, gamma], attributes, **form)
    check_grad("SimplifiedLayerNormalization", [x, gamma], attributes, **form)


def test_embeddings() -> None:
    ids, segments = np.array([[0, 3, 3], [2, 1, 0]], np.int32), np.array([[0, 1, 1], [0, 0, 1]], np.int32)
    tables = [rand(4, 5), rand(6, 5), rand(2, 5), rand(5), rand(5)]
    form: dict[str, Any] = {"opset": 1, "domain": MICROSOFT}
    check_grad("EmbedLayerNormalization", [ids, segments, *tables], {"epsilon": 1e-3}, **form)
    check_grad("EmbedLayerNormalization", [ids, None, tables[0], tables[1], None, tables[3], tables[4], None, segments], {"epsilon": 1e-3}, **form)
    check_grad("EmbedLayerNormalization", [ids, segments, *tables], {"epsilon": 1e-3}, outputs=[True, False, True], **form)


def test_extents_that_only_a_run_knows() -> None:
    """Batch and rows may be unknown; heads and their sizes may not, and an error says so."""
    inputs = [rand(B, S, H * D), rand(B, T, G * D), rand(B, T, G * D), mask(S, T)]
    heads = {"q_num_heads": H, "kv_num_heads": G, "is_causal": 1}
    model, feeds, _ = one_node("Attention", inputs, heads, 24)
    asked = ["x0", "x1", "x2"]
    results = []
    for known in (True, False):
        for value in () if known else model.graph.input:
            for axis in (0, 1):
                value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
        session = tiercel.InferenceSession(_core.gradient_model(model.SerializeToString(), "", [], asked))
        results.append(session.run([f"gradient of {k}" for k in asked], feeds))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    model, _, _ = one_node("Attention", inputs, heads, 24, dynamic=True)
    with pytest.raises(tiercel.errors.Error, match=r"the_Attention.*hidden sizes should be known"):
        _core.gradient_model(model.SerializeToString(), "", [], asked)
