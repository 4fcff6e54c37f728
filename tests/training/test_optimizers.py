"""Twenty steps of each optimiser against plain numpy in doubles, and against torch."""

import numpy as np
import pytest
from training_models import X, Y, plain, trainer

from tiercel import _core
from tiercel.training import SGD, Adagrad, Adam, AdamW, Dense, Lion, Loss, Momentum, RMSprop, Sequential, Trainer

STEPS = 20
RNG = np.random.default_rng(3)
A = RNG.standard_normal((16, 5)).astype(np.float32)
B = RNG.standard_normal((16, 3)).astype(np.float32)


def model():
    return Sequential([Dense(3, bias=False)], input_shape=(5,), seed=4)


def ours(optimizer, **options):
    t = Trainer(model(), "mse", optimizer, **options)
    for _ in range(STEPS):
        t.step(A, B)
    return next(iter(t.weights.values()))


def plain_numpy(rule, decay=0.0, clip_norm=0.0, clip_value=0.0):
    w = next(iter(model().weights.values())).astype(np.float64)
    state = {}
    for i in range(1, STEPS + 1):
        g = 2 * A.astype(np.float64).T @ (A @ w - B) / B.size
        if clip_value:
            g = np.clip(g, -clip_value, clip_value)
        if clip_norm:
            g = g * min(1, clip_norm / (np.sqrt((g * g).sum()) + 1e-6))
        w = rule(w, g + decay * w, i, state)
    return w


def momentum(mu, nesterov, lr):
    def rule(w, g, i, s):
        s["m"] = mu * s.get("m", 0) + g
        return w - lr * (g + mu * s["m"] if nesterov else s["m"])

    return rule


def rmsprop(w, g, i, s, lr=0.01, a=0.9, eps=1e-8, mu=0.5):
    s["v"] = a * s.get("v", 0) + (1 - a) * g * g
    s["m"] = mu * s.get("m", 0) + g / (np.sqrt(s["v"]) + eps)
    return w - lr * s["m"]


def adagrad(w, g, i, s, lr=0.1, lr_decay=0.05, eps=1e-10):
    s["v"] = s.get("v", 0) + g * g
    return w - lr / (1 + (i - 1) * lr_decay) * g / (np.sqrt(s["v"]) + eps)


def adam(decay):
    def rule(w, g, i, s, lr=0.02, b1=0.9, b2=0.95, eps=1e-8):
        w = w * (1 - lr * decay)
        s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
        return w - lr / (1 - b1**i) * s["m"] / (np.sqrt(s["v"] / (1 - b2**i)) + eps)

    return rule


def lion(w, g, i, s, lr=0.01, b1=0.9, b2=0.99, decay=0.1):
    w = w * (1 - lr * decay)
    m = s.get("m", np.zeros_like(w))
    s["m"] = b2 * m + (1 - b2) * g
    return w - lr * np.sign(b1 * m + (1 - b1) * g)


CASES = {
    "sgd": (SGD(0.1, weight_decay=0.01), lambda: plain_numpy(lambda w, g, i, s: w - 0.1 * g, 0.01)),
    "momentum": (Momentum(0.05, 0.8), lambda: plain_numpy(momentum(0.8, False, 0.05))),
    "nesterov": (SGD(0.05, 0.8, nesterov=True, weight_decay=0.01), lambda: plain_numpy(momentum(0.8, True, 0.05), 0.01)),
    "rmsprop": (RMSprop(0.01, 0.9, 0.5), lambda: plain_numpy(rmsprop)),
    "adagrad": (Adagrad(0.1, lr_decay=0.05), lambda: plain_numpy(adagrad)),
    "adam": (Adam(0.02, beta2=0.95, weight_decay=0.01), lambda: plain_numpy(adam(0), 0.01)),
    "adamw": (AdamW(0.02, beta2=0.95, weight_decay=0.1), lambda: plain_numpy(adam(0.1))),
    "lion": (Lion(0.01, weight_decay=0.1), lambda: plain_numpy(lion)),
}


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    optimizer, expected = CASES[name]
    np.testing.assert_allclose(ours(optimizer), expected(), atol=1e-6, rtol=0)


TORCH = {
    "sgd": lambda o, p: o.SGD(p, 0.1, weight_decay=0.01),
    "momentum": lambda o, p: o.SGD(p, 0.05, 0.8),
    "nesterov": lambda o, p: o.SGD(p, 0.05, 0.8, nesterov=True, weight_decay=0.01),
    "rmsprop": lambda o, p: o.RMSprop(p, 0.01, 0.9, momentum=0.5),
    "adagrad": lambda o, p: o.Adagrad(p, 0.1, lr_decay=0.05),
    "adam": lambda o, p: o.Adam(p, 0.02, (0.9, 0.95), weight_decay=0.01),
    "adamw": lambda o, p: o.AdamW(p, 0.02, (0.9, 0.95), weight_decay=0.1),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name):
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(next(iter(model().weights.values())).copy()))
    optimizer = TORCH[name](torch.optim, [w])
    x, y = torch.from_numpy(A), torch.from_numpy(B)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(x @ w, y).backward()
        optimizer.step()
    np.testing.assert_allclose(ours(CASES[name][0]), w.detach().numpy(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.2}, {"clip_value": 0.05}, {"clip_norm": 0.2, "clip_value": 0.05}])
def test_clipping(clip):
    expected = plain_numpy(lambda w, g, i, s: w - 0.1 * g, **clip)
    np.testing.assert_allclose(ours(SGD(0.1), **clip), expected, atol=1e-6, rtol=0)
    assert np.abs(expected - plain_numpy(lambda w, g, i, s: w - 0.1 * g)).max() > 1e-3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulation_is_one_batch(optimizer, reduction):
    loss = Loss("cross_entropy", reduction=reduction)
    whole = Trainer(plain(), loss, optimizer, clip_norm=0.5)
    parts = Trainer(plain(), loss, optimizer, clip_norm=0.5, accumulate=3)
    for _ in range(5):
        whole.step(X, Y)
        for b, e in ((0, 20), (20, 37), (37, 50)):
            parts.step(X[b:e], Y[b:e])
    assert parts.steps == whole.steps == 5
    for name, w in whole.weights.items():
        np.testing.assert_allclose(parts.weights[name], w, atol=1e-6, rtol=0)


def test_an_incomplete_group_of_batches_counts():
    a, b = trainer(plain(), accumulate=4), trainer(plain())
    a.fit(X, Y, batch_size=25, shuffle=False)
    b.step(X, Y)
    assert a.steps == 1
    for name, w in b.weights.items():
        np.testing.assert_allclose(a.weights[name], w, atol=1e-6, rtol=0)


def test_groups():
    start = {n: a.copy() for n, a in plain().weights.items()}
    base = trainer(plain(), optimizer=SGD(0.1, weight_decay=0.1))
    t = trainer(plain(), optimizer=SGD(0.1, weight_decay=0.1), groups={"dense1.*": {"lr": 0.5}, "*.bias": {"weight_decay": 0}, "dense0.*": {"lr": 0}})
    base.step(X, Y)
    t.step(X, Y)
    for name, w in t.weights.items():
        if name == "dense0.bias":  # the first pattern that matches counts: lr 1, no decay; biases begin as zeros
            np.testing.assert_allclose(w, base.weights[name], atol=1e-7)
        elif name.startswith("dense0"):
            np.testing.assert_array_equal(w, start[name])
        else:
            np.testing.assert_allclose(w - start[name], (base.weights[name] - start[name]) / 2, atol=1e-7)
    with pytest.raises(ValueError, match="no weight matches 'nothing"):
        trainer(plain(), groups={"nothing*": {"lr": 2}})
    with pytest.raises(ValueError, match="a group has lr"):
        trainer(plain(), groups={"*": {"rate": 2}})


SIZES = [1, 7, 3, 70000, 20, 16384, 5]


def _lists(op, sizes, dtype, **scalars):
    """Inputs of an optimiser's node for parameters of these sizes, and which outputs there are."""
    rng = np.random.default_rng(5)
    moments = {"Sgd": 0, "Momentum": 1, "Lion": 1, "Adagrad": 1}.get(op, 2)
    make = [[rng.standard_normal(n).astype(dtype) for n in sizes] for _ in range(2)]
    make += [[rng.random(n).astype(dtype) for n in sizes] for _ in range(moments)]
    head = [np.array(0.1, dtype), np.array(3, np.int64), None, np.array(scalars.get("scale", 1.0), dtype)]
    return head, make


@pytest.mark.parametrize("op", ["Sgd", "Momentum", "RMSprop", "Adagrad", "Adam", "AdamW", "Lion"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_parameters_are_as_one_each(op, dtype):
    head, lists = _lists(op, SIZES, dtype, scale=0.5)
    attributes = [("momentum", 1, 0.9), ("weight_decay", 1, 0.01)]

    def run(groups):
        count = len(groups[0]) * (len(groups) - 1)
        return _core.evaluate_node(op, "ai.tiercel", 1, head + [a for g in groups for a in g], [True] * count, attributes)

    together = run(lists)
    for k in range(len(SIZES)):
        alone = run([g[k : k + 1] for g in lists])
        for i, a in enumerate(alone):
            np.testing.assert_array_equal(together[i * len(SIZES) + k], a)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("most", [0.5, 1e6])
def test_clip_scale(dtype, most):
    rng = np.random.default_rng(6)
    grads = [rng.standard_normal(n).astype(dtype) for n in (0, *SIZES)]
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
    for factor in (None, 0.25):
        scale = None if factor is None else np.array(factor)
        (got,) = _core.evaluate_node("ClipScale", "ai.tiercel", 1, [scale, None, None, *grads], [True], [("max_norm", 1, most)])
        f = factor or 1.0
        np.testing.assert_allclose(got, f * min(1, most / (f * norm + 1e-6)), rtol=1e-6)


def test_clipping_has_the_same_bits_on_any_number_of_threads():
    def weights(threads):
        t = Trainer(Sequential([Dense(300, "tanh"), Dense(3)], input_shape=(5,), seed=4), "mse", AdamW(0.01), clip_norm=0.1, threads=threads)
        for _ in range(5):
            t.step(A, B)
        return [w.tobytes() for w in t.weights.values()]

    assert weights(1) == weights(2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_changes_nothing(accumulate):
    t = Trainer(plain(), "cross_entropy", "adamw", clip_norm=1.0, accumulate=accumulate)
    t.step(X, Y)
    before = {n: a.copy() for n, a in t._core.state()}
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(Exception, match="not finite"):
        t.step(bad, Y)
    for name, a in t._core.state():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
