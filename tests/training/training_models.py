"""Small models and data that the tests of training share."""

import numpy as np

from tiercel.training import Adam, BatchNorm, Cosine, Dense, Dropout, Sequential, Trainer, WarmUp

RNG = np.random.default_rng(7)
X = RNG.standard_normal((50, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 50)


def classifier(seed: int = 0) -> Sequential:
    return Sequential([Dense(8, "tanh"), BatchNorm(), Dropout(0.3), Dense(3)], input_shape=(4,), seed=seed)


def plain(seed: int = 0) -> Sequential:
    return Sequential([Dense(8, "tanh"), Dense(3)], input_shape=(4,), seed=seed)


def trainer(model=None, **options) -> Trainer:
    options = {"optimizer": Adam(WarmUp(Cosine(1e-2, 50), 5)), **options}
    return Trainer(model or classifier(), "cross_entropy", **options)


def same_bits(a: Trainer, b: Trainer) -> bool:
    left, right = a.model_state(), b.model_state()
    return left.keys() == right.keys() and all(left[n].tobytes() == right[n].tobytes() for n in left)
