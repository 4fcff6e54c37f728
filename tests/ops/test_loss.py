"""The losses against the reference evaluator: reductions, weights, ignored targets."""

import numpy as np
import pytest

from oracle import check, fails_everywhere


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 2), (2, 5, 3, 4)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses(reduction, shape, weighted, dtype):
    rng = np.random.default_rng(len(shape))
    x = rng.standard_normal(shape).astype(dtype)
    target = rng.integers(0, 5, (shape[0], *shape[2:]))
    weight = rng.uniform(0.5, 1, 5).astype(dtype) if weighted else None
    inputs = [x, target, weight] if weighted else [x, target]
    for attrs in ({"reduction": reduction}, {"reduction": reduction, "ignore_index": 2}):
        check("NegativeLogLikelihoodLoss", inputs, attrs, 13, ulp=16, atol=1e-6)
        check("SoftmaxCrossEntropyLoss", inputs, attrs, 13, ulp=16, atol=1e-6)
        check("SoftmaxCrossEntropyLoss", inputs, attrs, 13, outputs=2, ulp=16, atol=1e-6)


def test_an_ignored_target_may_lie_outside():
    x, target = np.zeros((3, 2), np.float32), np.array([0, -1, 1])
    check("NegativeLogLikelihoodLoss", [x + 1, target], {"ignore_index": -1}, 13, expected=[np.array(-1, np.float32)])
    fails_everywhere("outside", "NegativeLogLikelihoodLoss", [x, target], {}, 13)
