"""ONNX's RotaryEmbedding (opset 23 on), rewritten at every level of optimisation."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import tiercel
from oracle import check, one_node

RNG = np.random.default_rng(4)


def rand(*shape):
    return RNG.standard_normal(shape).astype("float32")


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("level", [0, 99])
def test_rotary(interleaved, turned, rank, positions, level):
    x = rand(2, 3, 5, 8) if rank == 4 else rand(2, 5, 24)
    half = (turned or 8) // 2
    caches = [rand(9, half), rand(9, half), RNG.integers(0, 9, (2, 5))] if positions else [rand(2, 5, half), rand(2, 5, half)]
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": turned} | ({"num_heads": 3} if rank == 3 else {})
    model, feeds, names = one_node("RotaryEmbedding", [x, *caches], attributes, 23)
    options = tiercel.SessionOptions()
    options.graph_optimization_level = tiercel.GraphOptimizationLevel(level)
    for dim in (0, 1 if rank == 3 else 2):
        model.graph.input[0].type.tensor_type.shape.dim[dim].dim_param = f"d{dim}"
    got = tiercel.InferenceSession(model.SerializeToString(), options).run(names, feeds)[0]
    np.testing.assert_allclose(got, ReferenceEvaluator(model).run(names, feeds)[0], rtol=0, atol=1e-6)


def test_half():
    x, cos, sin = (rand(*s).astype("float16") for s in ((1, 2, 3, 4), (1, 3, 2), (1, 3, 2)))
    check("RotaryEmbedding", [x, cos, sin], {}, opset=23, ways=("static",), ulp=4, atol=2e-3)


def test_depth_that_heads_do_not_divide():
    model, feeds, names = one_node("RotaryEmbedding", [rand(1, 2, 7), rand(1, 2, 1), rand(1, 2, 1)], {"num_heads": 2}, 23)
    with pytest.raises(tiercel.errors.Error, match="multiple of num_heads"):
        tiercel.InferenceSession(model.SerializeToString()).run(names, feeds)
