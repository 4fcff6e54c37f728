"""Cases of attention and of what runtimes fuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from grad_cases import MICROSOFT, TIERCEL, Case, Draw, case

EPS = float(np.float32(1e-5))
H, D = 2, 4


def heads(x: Any, n: int = H) -> Any:
    """[B, S, n D] -> [B, n, S, D]"""
    return x.reshape(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def joined(x: Any) -> Any:
    return x.transpose(1, 2).flatten(2)


def attend(t: Any, q: Any, k: Any, v: Any, **more: Any) -> Any:
    return t.nn.functional.scaled_dot_product_attention(q, k, v, **more)


@case("Attention")
def attention(d: Draw, op: str) -> Case:
    causal, s = int(d.rng.integers(2)), int(d.rng.integers(1, 5))
    inputs = [d.any(2, H, s, D), d.any(2, H, s, D), d.any(2, H, s, 3)]
    return Case(inputs, {"is_causal": causal}, lambda t, *x: attend(t, *x, is_causal=bool(causal)), dynamic=False)


@case("Attention", domain=MICROSOFT)
def projected(d: Draw, op: str) -> Case:
    causal = int(d.rng.integers(2))

    def same(t: Any, x: Any, w: Any, b: Any) -> Any:
        q, k, v = (x @ w + b).split(H * D, -1)
        return joined(attend(t, heads(q), heads(k), heads(v), is_causal=bool(causal)))

    return Case([d.any(2, 3, 5), d.any(5, 3 * H * D), d.any(3 * H * D)], {"num_heads": H, "unidirectional": causal}, same, dynamic=False)


@case("MultiHeadAttention", domain=MICROSOFT)
def many_heads(d: Draw, op: str) -> Case:
    s, n = d.rng.integers(1, 5, 2).tolist()
    inputs = [d.any(2, s, H * D), d.any(2, n, H * D), d.any(2, n, H * D)]
    return Case(inputs, {"num_heads": H}, lambda t, q, k, v: joined(attend(t, heads(q), heads(k), heads(v))), dynamic=False)


@case("GroupQueryAttention", domain=MICROSOFT)
def grouped(d: Draw, op: str) -> Case:
    s = int(d.rng.integers(1, 5))
    inputs = [d.any(2, s, 2 * H * D), d.any(2, s, H * D), d.any(2, s, H * D), None, None, np.full(2, s - 1, np.int32), np.array(s, np.int32)]

    def same(t: Any, q: Any, k: Any, v: Any, *_: Any) -> Any:
        return joined(attend(t, heads(q, 2 * H), heads(k), heads(v), is_causal=True, enable_gqa=True))

    return Case(inputs, {"num_heads": 2 * H, "kv_num_heads": H}, same, dynamic=False)


def rotated(t: Any, x: Any, cos: Any, sin: Any) -> Any:
    a, b = x.chunk(2, -1)
    return t.cat([a * cos - b * sin, b * cos + a * sin], -1)


@case("RotaryEmbedding")
def rotary(d: Draw, op: str) -> Case:
    angles, ids = d.any(6, D // 2), d.rng.integers(0, 6, (2, 3))
    return Case([d.any(2, H, 3, D), np.cos(angles), np.sin(angles), ids], {},
                lambda t, x, c, s, i: rotated(t, x, c[i][:, None], s[i][:, None]), constants=[1, 2], dynamic=False)  # fmt: skip


@case("RotaryEmbedding", domain=MICROSOFT)
def rotary_by_place(d: Draw, op: str) -> Case:
    angles, ids = d.any(6, D // 2), d.rng.integers(0, 6, (2, 3))
    return Case([d.any(2, H, 3, D), ids, np.cos(angles), np.sin(angles)], {},
                lambda t, x, i, c, s: rotated(t, x, c[i][:, None], s[i][:, None]), constants=[2, 3], dynamic=False)  # fmt: skip


@case("FusedMatMul", domain=MICROSOFT)
@case("FusedMatMul", domain=TIERCEL)
def scaled_product(d: Draw, op: str) -> Case:
    ta, tb = d.rng.integers(0, 2, 2).tolist()
    lead = d.shape(0, 3)
    n, k, m = d.rng.integers(1, 6, 3).tolist()
    inputs = [d.any(*lead, *((k, n) if ta else (n, k))), d.any(*((m, k) if tb else (k, m)))]
    return Case(inputs, {"transA": ta, "transB": tb, "alpha": 0.5}, lambda t, a, b: 0.5 * (a.mT if ta else a) @ (b.mT if tb else b))


@case("FusedGemm", domain=MICROSOFT)
def gemm(d: Draw, op: str) -> Case:
    n, k, m = d.rng.integers(1, 6, 3).tolist()
    return Case([d.any(n, k), d.any(k, m), d.any(m)], {"alpha": 0.5, "beta": 2.0}, lambda t, a, b, c: 0.5 * a @ b + 2 * c)


@case("FusedConv", domain=MICROSOFT)
def convolution(d: Draw, op: str) -> Case:
    name = str(d.rng.choice(["Relu", "Sigmoid", "Tanh"]))
    return Case([d.any(2, 3, 5, 4), d.any(2, 3, 2, 3), d.any(2)], {"activation": name}, lambda t, x, w, b: getattr(t, name.lower())(t.nn.functional.conv2d(x, w, b)))


@case("Gelu", "FastGelu", "QuickGelu", domain=MICROSOFT)
def gelus(d: Draw, op: str) -> Case:
    same = {
        "Gelu": lambda t, x: t.nn.functional.gelu(x),
        "FastGelu": lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
        "QuickGelu": lambda t, x: x * (float(np.float32(1.702)) * x).sigmoid(),
    }[op]
    return Case([d.any(*d.any_shape())], {}, same)


@case("BiasGelu", "FastGelu", domain=MICROSOFT)
def with_bias(d: Draw, op: str) -> Case:
    n = int(d.rng.integers(1, 8))
    return Case([d.any(*d.shape(1, 3), n), d.any(n)], {}, lambda t, x, b: t.nn.functional.gelu(x + b, approximate="none" if op == "BiasGelu" else "tanh"))


@case("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skips(d: Draw, op: str) -> Case:
    n = int(d.rng.integers(2, 8))
    x, skip, w, b = d.any(2, 3, n), d.any(2, 3, n), d.any(n), d.any(n)
    if op == "SkipLayerNormalization":
        return Case([x, skip, w, b], {"epsilon": EPS}, lambda t, x, s, w, b: t.nn.functional.layer_norm(x + s, w.shape, w, b, EPS))
    return Case([x, skip, w], {"epsilon": EPS}, lambda t, x, s, w: t.nn.functional.rms_norm(x + s, w.shape, w, EPS))


@case("EmbedLayerNormalization", domain=MICROSOFT)
def embedded(d: Draw, op: str) -> Case:
    ids, segments = d.rng.integers(0, 4, (2, 3)).astype(np.int32), d.rng.integers(0, 2, (2, 3)).astype(np.int32)
    inputs = [ids, segments, d.any(4, 5), d.any(6, 5), d.any(2, 5), d.any(5), d.any(5)]

    def same(t: Any, i: Any, s: Any, words: Any, places: Any, kinds: Any, w: Any, b: Any) -> Any:
        return t.nn.functional.layer_norm(words[i] + places[:3] + kinds[s], (5,), w, b, EPS)

    return Case(inputs, {"epsilon": EPS}, same)
