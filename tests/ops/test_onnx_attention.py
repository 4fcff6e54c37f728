"""ONNX's Attention (opset 23 on): rewritten into what the fusion of attention knows. The backend suite has its many forms; here
are those that must end as one operator, and extents that only a run knows."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import tiercel
from oracle import one_node

RNG = np.random.default_rng(2)
B, H, G, S, T, D = 2, 4, 2, 5, 7, 8


def rand(*shape):
    return RNG.standard_normal(shape).astype("float32")


CASES = {
    "4d": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, 6)], {}),
    "3d": ([rand(B, S, H * D), rand(B, T, H * D), rand(B, T, H * D)], {"q_num_heads": H, "kv_num_heads": H}),
    "grouped": ([rand(B, S, H * D), rand(B, T, G * D), rand(B, T, G * D)], {"q_num_heads": H, "kv_num_heads": G, "scale": 0.2}),
    "causal": ([rand(B, H, S, D), rand(B, H, S, D), rand(B, H, S, D)], {"is_causal": 1}),
    "float mask": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, D), rand(S, T)], {}),
    "bool mask": ([rand(B, H, S, D), rand(B, H, T, D), rand(B, H, T, D), RNG.random((B, 1, S, T)) < 0.7], {}),
    "past": ([rand(B, H, S, D), rand(B, G, S, D), rand(B, G, S, D), None, rand(B, G, 3, D), rand(B, G, 3, D)], {"is_causal": 1}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("level", [0, 99])
@pytest.mark.parametrize("unknown", [False, True])
def test_attention(name, level, unknown, tmp_path):
    inputs, attributes = CASES[name]
    outputs = 3 if name == "past" else 1
    model, feeds, names = one_node("Attention", inputs, attributes, 24, outputs=outputs)
    want = ReferenceEvaluator(model).run(names, feeds)
    if unknown:  # batch and rows
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            for i, label in ((0, "b"), (len(dims) - 2, value.name + "rows")):
                if len(dims) > 2:
                    dims[i].dim_param = label
    options = tiercel.SessionOptions()
    options.graph_optimization_level = tiercel.GraphOptimizationLevel(level)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    for got, w in zip(tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds), want, strict=True):
        np.testing.assert_allclose(got, w, rtol=0, atol=3e-6)
    if level:
        ops = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
        assert "Attention" in ops and not {"Softmax", "Tile"} & set(ops), ops


def test_rows_that_see_nothing_are_zero():
    model, feeds, names = one_node("Attention", [rand(1, 1, 2, 4), rand(1, 1, 3, 4), rand(1, 1, 3, 4), np.array([[True] * 3, [False] * 3])], {}, 24)
    assert not tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)[0][0, 0, 1].any()
