"""Sequences of different lengths: a batch of them gives what each gives alone."""

import numpy as np
import onnx
import pytest

import tiercel
from tiercel.training import (
    GRU,
    LSTM,
    RNN,
    SGD,
    Adam,
    Dense,
    Dropout,
    Embedding,
    LayerNorm,
    Loss,
    MultiHeadAttention,
    Permute,
    PositionEmbedding,
    Residual,
    SequencePool,
    Sequential,
    Trainer,
    loss_gradient,
    loss_value,
)
from tiercel.training.loop import batches_of
from tiercel.training.ragged import Ragged

RNG = np.random.default_rng(8)
LENGTHS = [5, 9, 3, 1, 9, 6]
X = [RNG.standard_normal((n, 4)).astype(np.float32) for n in LENGTHS]
IDS = [RNG.integers(0, 20, n) for n in LENGTHS]
Y = RNG.integers(0, 3, len(X))
STEPS = [RNG.integers(0, 3, n) for n in LENGTHS]  # a label a step
VALUES = [RNG.standard_normal((n, 2)).astype(np.float32) for n in LENGTHS]

VECTORS = {  # to one vector a sequence
    "lstm": [LSTM(6)],
    "gru": [GRU(6)],
    "rnn": [RNN(6)],
    "bidirectional": [LSTM(5, bidirectional=True)],
    "two layers": [GRU(5, return_sequences=True, bidirectional=True), LSTM(4)],
    "mean": [Dense(6, "tanh"), SequencePool("mean")],
    "max": [Dense(6, "tanh"), SequencePool("max")],
    "last": [RNN(5, return_sequences=True), SequencePool("last")],
    "attention": [Dense(8), MultiHeadAttention(2), SequencePool("mean")],
    "causal": [Dense(8), MultiHeadAttention(2, causal=True), SequencePool("max")],
    "transformer": [Dense(8), PositionEmbedding(length=12), Residual([LayerNorm(), MultiHeadAttention(4)]),
                    Residual([LayerNorm(), Dense(16, "gelu"), Dense(8)]), SequencePool("mean")],
}  # fmt: skip
SEQUENCES = {  # to a vector a step
    "lstm": [LSTM(6, return_sequences=True)],
    "both ways": [GRU(4, return_sequences=True, bidirectional=True)],
    "attention": [Dense(8), MultiHeadAttention(2), MultiHeadAttention(2, causal=True)],
}


def model(layers, end, shape=("time", 4)):
    return Sequential([*layers, *end], shape, seed=2, lengths=True)


def after_a_step(make, batches):
    """Weights after a step of plain gradient descent on the mean of these batches, the loss, and how far the weights went."""
    t = make(accumulate=len(batches))
    start = {n: a.copy() for n, a in t.weights.items()}
    shares = [t.loss.share(t._feed.batch(x, y, t.loss)[1]) for x, y in batches]
    losses = [t.step(x, y) for x, y in batches]
    assert t.steps == 1
    return {n: a.copy() - start[n] for n, a in t.weights.items()}, np.average(losses, weights=shares), t


def check(make, x, y):
    together, loss, _ = after_a_step(make, [(x, y)])
    alone, mean, _ = after_a_step(make, [([x[i]], [y[i]] if isinstance(y, list) else y[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(loss, mean, rtol=1e-6)
    for name, a in together.items():
        np.testing.assert_allclose(a, alone[name], atol=1e-6, rtol=1e-5, err_msg=name)
    t = make()
    for got, each in zip(t.predict(x), x, strict=True):
        np.testing.assert_allclose(got, t.predict([each])[0], atol=1e-6)
    parts = [(t.evaluate([a], y[i : i + 1]), t.loss.share(t._feed.batch([a], y[i : i + 1], t.loss)[1])) for i, a in enumerate(x)]
    whole = t.evaluate(x, y, batch_size=4)
    np.testing.assert_allclose(whole["loss"], np.average([p["loss"] for p, _ in parts], weights=[n for _, n in parts]), rtol=1e-6)
    if "accuracy" in whole:
        np.testing.assert_allclose(whole["accuracy"], np.average([p["accuracy"] for p, _ in parts], weights=[n for _, n in parts]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", VECTORS)
def test_a_label_a_sequence(name, threads):
    def make(**options):
        return Trainer(model(VECTORS[name], [Dense(3)]), "cross_entropy", SGD(1.0), threads=threads, **options)

    check(make, X, Y)


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_label_a_step(name):
    def make(**options):
        return Trainer(model(SEQUENCES[name], [Dense(3), Permute(2, 1)]), "cross_entropy", SGD(1.0), **options)

    check(make, X, STEPS)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "hinge", "binary_cross_entropy_with_logits", "kl"])
@pytest.mark.parametrize("axes", [(1, 2), (2, 1)])
def test_values_of_each_step(loss, axes):
    def make(**options):
        return Trainer(model(SEQUENCES["lstm"], [Dense(2), Permute(*axes)]), loss, SGD(1.0), **options)

    fitting = {"hinge": lambda a: np.where(a < 0, -1, 1).astype(a.dtype), "binary_cross_entropy_with_logits": lambda a: np.abs(np.sin(a))}
    check(make, X, [fitting.get(loss, np.array)(a) for a in VALUES])


@pytest.mark.parametrize("loss, axes", [("cosine", (1, 2)), ("cross_entropy", (2, 1)), ("smoothed", (2, 1)), ("batchmean", (1, 2))])
def test_vectors_of_each_step(loss, axes):
    """A step is one target: a direction, probabilities."""
    losses = {"smoothed": Loss("cross_entropy", label_smoothing=0.1, weight=[1.0, 2.0]), "batchmean": Loss("kl", "batchmean")}

    def make(**options):
        return Trainer(model(SEQUENCES["lstm"], [Dense(2), Permute(*axes)]), losses.get(loss, loss), SGD(0.5), **options)

    check(make, X, [np.abs(a) / np.abs(a).sum(1, keepdims=True) if loss != "cosine" else a for a in VALUES])


def test_ids():
    def make(**options):
        layers = [Embedding(20, 6), PositionEmbedding(length=9), MultiHeadAttention(2), LSTM(4, bidirectional=True), Dense(3)]
        return Trainer(Sequential(layers, ("time",), lengths=True), "cross_entropy", SGD(1.0), **options)

    check(make, IDS, Y)
    check(make, [a.astype(np.int32) for a in IDS], Y)


def test_padding_does_not_matter():
    t = Trainer(model([Dense(8), MultiHeadAttention(2), GRU(5, bidirectional=True)], [Dense(3)]), "cross_entropy")
    expected = t.predict(X)
    for rest, more in ((0.0, 0), (7.5, 3), (-1e9, 1)):
        padded = np.full((len(X), 9 + more, 4), rest, np.float32)
        for row, a in zip(padded, X, strict=True):
            row[: len(a)] = a
        for given in ({"x": padded, "lengths": LENGTHS}, [padded, LENGTHS], [padded, np.int32(LENGTHS)]):
            np.testing.assert_allclose(t.predict(given), expected, atol=1e-6)
    whole = np.stack([X[1], X[4]])  # an array counts in full
    np.testing.assert_allclose(t.predict(whole), expected[[1, 4]], atol=1e-6)


def test_plain_onnx():
    m = model(VECTORS["transformer"], [Dense(3)])
    proto = onnx.load_from_string(m.build())
    onnx.checker.check_model(proto, full_check=True)
    assert [(i.name, i.type.tensor_type.elem_type) for i in proto.graph.input] == [("x", 1), ("lengths", 6)]
    t = Trainer(m, "cross_entropy")
    x = np.zeros((2, 5, 4), np.float32)
    x[0], x[1, :3] = X[0], X[2]
    got = tiercel.InferenceSession(m.build()).run(None, {"x": x, "lengths": np.int32([5, 3])})[0]
    np.testing.assert_allclose(got, t.predict([X[0], X[2]]), atol=1e-6)


def test_a_fixed_extent():
    make = lambda shape: Trainer(model([Dense(4), MultiHeadAttention(2), LSTM(4)], [Dense(3)], shape), "cross_entropy")  # noqa: E731
    fixed = make((11, 4))
    np.testing.assert_allclose(fixed.predict(X), make(("time", 4)).predict(X), atol=1e-6)
    with pytest.raises(ValueError, match="sample 0 has 12 steps, but there is room for 11"):
        fixed.predict([np.zeros((12, 4), np.float32)])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_against_torch(bidirectional):
    torch = pytest.importorskip("torch")
    m = Sequential([LSTM(6, return_sequences=True, bidirectional=bidirectional), Dense(2)], ("time", 4), seed=1, lengths=True)
    t = Trainer(m, "mse", SGD(1.0))
    lstm, dense = torch.nn.LSTM(4, 6, batch_first=True, bidirectional=bidirectional), torch.nn.Linear(6 * (1 + bidirectional), 2)
    order = [0, 2, 3, 1]  # input, output, forget, cell to input, forget, cell, output

    def gates(a):
        return a.reshape(4, 6, -1)[order].reshape(24, -1).squeeze()

    w = {n: a.copy() for n, a in m.weights.items()}
    with torch.no_grad():
        for d, suffix in enumerate(["", "_reverse"][: 1 + bidirectional]):
            for ours, theirs in (("weight", "weight_ih"), ("recurrence", "weight_hh")):
                getattr(lstm, f"{theirs}_l0{suffix}").copy_(torch.tensor(gates(w[f"lstm0.{ours}"][d])))
            for half, theirs in enumerate(("bias_ih", "bias_hh")):
                getattr(lstm, f"{theirs}_l0{suffix}").copy_(torch.tensor(gates(w["lstm0.bias"][d][24 * half : 24 * half + 24])))
        dense.weight.copy_(torch.tensor(w["dense0.weight"].T))
        dense.bias.copy_(torch.tensor(w["dense0.bias"]))
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_sequence([torch.tensor(a) for a in X], enforce_sorted=False)
    y, lengths = rnn.pad_packed_sequence(lstm(packed)[0], batch_first=True)
    y = dense(y)
    expected = torch.cat([row[:n] for row, n in zip(y, lengths, strict=True)])
    loss = torch.nn.functional.mse_loss(expected, torch.tensor(np.concatenate(VALUES)))
    loss.backward()
    for got, row, n in zip(t.predict(X), y, lengths, strict=True):
        np.testing.assert_allclose(got, row[:n].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(t.step(X, VALUES), loss.item(), rtol=1e-6)
    for d, suffix in enumerate(["", "_reverse"][: 1 + bidirectional]):
        for ours, theirs in (("weight", "weight_ih"), ("recurrence", "weight_hh")):
            gradient = gates(w[f"lstm0.{ours}"][d] - t.weights[f"lstm0.{ours}"][d])
            np.testing.assert_allclose(gradient, getattr(lstm, f"{theirs}_l0{suffix}").grad.numpy(), atol=1e-6)


def test_fit():
    """To tell from a sequence whether its first number is in it again."""
    rng = np.random.default_rng(1)
    x = [rng.integers(0, 6, n) for n in rng.integers(2, 9, 300)]
    y = np.array([int(a[0] in a[1:]) for a in x])
    layers = [Embedding(6, 16), PositionEmbedding(length=8), Residual([MultiHeadAttention(2)]), SequencePool("max"), Dense(16, "relu"), Dense(2)]
    t = Trainer(Sequential(layers, ("time",), lengths=True), "cross_entropy", Adam(1e-2))
    history = t.fit(x, y, epochs=25, batch_size=32, validation=0.1, bucket=True)
    assert history["loss"][-1] < 0.3 * history["loss"][0] and history["val_accuracy"][-1] > 0.7
    assert t.predict(x, batch_size=64).shape == (300, 2)
    np.testing.assert_allclose(t.predict(x, batch_size=64)[17], t.predict([x[17]])[0], atol=1e-5)


def test_fit_of_steps_goes_on_from_a_checkpoint(tmp_path):
    def make():
        return Trainer(model([LSTM(5, return_sequences=True), Dropout(0.2)], [Dense(3), Permute(2, 1)]), "cross_entropy", Adam(1e-2))

    whole, part, rest = make(), make(), make()
    whole.fit(X, STEPS, epochs=4, batch_size=2, bucket=True)
    part.fit(X, STEPS, epochs=4, batch_size=2, bucket=True, callbacks=[lambda t, epoch, h: t.save_checkpoint(tmp_path / "c") or epoch == 1])
    rest.fit(X, STEPS, epochs=4, batch_size=2, bucket=True, resume=tmp_path / "c")
    assert all(a.tobytes() == rest.weights[n].tobytes() for n, a in whole.weights.items())
    with pytest.raises(ValueError, match="bucket"):
        make().fit(X, STEPS, epochs=4, batch_size=2, resume=tmp_path / "c")


def test_batches_as_they_are():
    t = Trainer(model([LSTM(5)], [Dense(3)]), "cross_entropy")
    history = t.fit([(X[:2], Y[:2]), (X[2:], Y[2:])], epochs=2, validation=[(X, Y)])
    assert len(history["val_loss"]) == 2


def test_buckets():
    x = Ragged([np.zeros(n) for n in np.random.default_rng(0).integers(1, 100, 1000)], "x")
    y = np.arange(1000)

    def waste(bucket):
        batches = [b for b, _ in batches_of([x], y, 16, np.random.default_rng(3), bucket)]
        return sum(b[0].lengths.max() * len(b[0]) - b[0].lengths.sum() for b in batches) / x.lengths.sum()

    assert waste(True) < 0.1 < 0.5 < waste(False)
    parts = [t for _, t in batches_of([x], y, 16, np.random.default_rng(3), True)]
    assert sorted(np.concatenate(parts)) == list(range(1000))


def masked_model():
    """A foreign model with an attention mask: the mean of embeddings that the mask lets through."""
    h = onnx.helper
    nodes = [
        h.make_node("Gather", ["table", "input_ids"], ["rows"]),
        h.make_node("Cast", ["attention_mask"], ["m"], to=1),
        h.make_node("Unsqueeze", ["m", "two"], ["m3"]),
        h.make_node("Mul", ["rows", "m3"], ["kept"]),
        h.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        h.make_node("ReduceSum", ["m", "one"], ["n"], keepdims=1),
        h.make_node("Div", ["sum", "n"], ["y"]),
    ]
    inputs = [h.make_tensor_value_info(n, 7, ["batch", "sequence"]) for n in ("input_ids", "attention_mask")]
    table = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32), "table")
    ints = [onnx.numpy_helper.from_array(np.array([k]), name) for k, name in ((1, "one"), (2, "two"))]
    graph = h.make_graph(nodes, "g", inputs, [h.make_tensor_value_info("y", 1, ["batch", 3])], [table, *ints])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9)


def test_a_mask():
    def make(**options):
        return Trainer(masked_model(), "cross_entropy", SGD(1.0), **options)

    check(make, IDS, Y)
    t = make()
    mask = [np.ones(n, np.int64) for n in LENGTHS]
    np.testing.assert_array_equal(t.predict({"input_ids": IDS, "attention_mask": mask}), t.predict(IDS))
    with pytest.raises(ValueError, match="neither|no input"):
        make(lengths="nothing")


def test_two_inputs():
    """Of one length, as their extents have one name; or of two."""

    def make(names):
        h = onnx.helper
        nodes = [h.make_node("ReduceSum", ["a", "one"], ["p"], keepdims=0), h.make_node("ReduceSum", ["b", "one"], ["q"], keepdims=0),
                 h.make_node("Add", ["p", "q"], ["s"]), h.make_node("MatMul", ["s", "w"], ["y"])]  # fmt: skip
        inputs = [h.make_tensor_value_info(n, 1, ["batch", t, 4]) for n, t in zip("ab", names, strict=True)]
        constants = [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"), onnx.numpy_helper.from_array(np.array([1]), "one")]
        graph = h.make_graph(nodes, "g", inputs, [h.make_tensor_value_info("y", 1, ["batch", 4])], constants)
        return Trainer(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9), "mse")

    one, two = make(["t", "t"]), make(["t", "u"])
    expected = np.stack([a.sum(0) + b.sum(0) for a, b in zip(X, X[::-1], strict=True)])
    np.testing.assert_allclose(two.predict({"a": X, "b": X[::-1]}), expected, atol=1e-5)
    np.testing.assert_allclose(one.predict([X, X]), 2 * np.stack([a.sum(0) for a in X]), atol=1e-5)
    with pytest.raises(ValueError, match="input 'b': sample 0 has 6 steps, but 5 in input 'a'"):
        one.predict({"a": X, "b": X[::-1]})
    with pytest.raises(ValueError, match="input 'b' has 3 samples, input 'a' 6"):
        one.predict({"a": X, "b": X[:3]})
    assert np.isfinite(two.fit({"a": X, "b": X[::-1]}, expected, epochs=2, batch_size=4)["loss"]).all()


def test_a_model_without_lengths():
    t = Trainer(Sequential([Embedding(20, 4, padding=0), SequencePool("max"), Dense(3)], ("time",)), "cross_entropy")
    padded = np.zeros((2, 9), np.int64)
    padded[0, :5], padded[1] = IDS[0], IDS[1]
    np.testing.assert_array_equal(t.predict(IDS[:2]), t.predict(padded))
    steps = Trainer(Sequential([LSTM(4, return_sequences=True), Dense(3), Permute(2, 1)], ("time", 4)), "cross_entropy")
    with pytest.raises(ValueError, match=r"padding needs: give Loss\('cross_entropy', ignore_index=-100\)"):
        steps.step(X, STEPS)
    assert np.isfinite(Trainer(steps.model(), Loss("cross_entropy", ignore_index=-1)).step(X, STEPS))


def test_ctc():
    t = Trainer(model([LSTM(6, return_sequences=True)], [Dense(4)]), Loss("ctc", zero_infinity=True), SGD(1.0))
    x, y = [a for a in X if len(a) > 4], [[1, 2], [3], [2, 2], [1]]
    alone = [t.evaluate([a], [b])["loss"] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(t.evaluate(x, y)["loss"], np.mean(alone), rtol=1e-6)
    assert np.isfinite(t.fit(x, y, epochs=2, batch_size=2)["loss"]).all()


def no_steps():
    return Trainer(model([LSTM(5)], [Dense(3)]), "cross_entropy")


def steps():
    return Trainer(model([LSTM(5, return_sequences=True)], [Dense(3), Permute(2, 1)]), "cross_entropy")


PADDED = np.zeros((6, 9, 4), np.float32)
WRONG = {
    "empty": (no_steps, [*X, X[0][:0]], [*Y, 0], "input 'x': sample 6 has no steps"),
    "ranks": (no_steps, [X[0], X[1][0]], Y[:2], r"of one rank, but sample 0 has shape \[5, 4\], sample 1 \[4\]"),
    "rank": (no_steps, [a[0] for a in X], Y, r"a sample has rank 2, not the shape \[4\]"),
    "types": (no_steps, [X[0], X[1].astype(np.float64)], Y[:2], "sample 0 is float32, sample 1 float64"),
    "features": (no_steps, [X[0], X[1][:, :3]], Y[:2], r"a step of sample 0 has shape \[4\], one of sample 1 \[3\]"),
    "other features": (no_steps, [a[:, :3] for a in X], Y, "x"),
    "labels": (no_steps, X, Y[:3], "x and y should have one length|extent 0 of the target"),
    "step labels": (steps, X, STEPS[:4], "x and y should have one length|extent 0 of the target"),
    "lengths of y": (steps, X, [a[:1] for a in STEPS], "y: sample 0 has 1 steps, but 5 in input 'x'"),
    "y of a vector": (no_steps, X, STEPS, "the model's output has no axis of steps"),
    "too long": (no_steps, {"x": PADDED, "lengths": [9, 9, 9, 10, 9, 9]}, Y, "'lengths' of sample 3 is 10, but 'x' has 9 steps"),
    "zero": (no_steps, {"x": PADDED, "lengths": [0, 9, 9, 9, 9, 9]}, Y, "'lengths' of sample 0 is 0"),
    "other lengths": (no_steps, {"x": X, "lengths": [1] * 6}, Y, "sample 0 has 5 steps, but 1 in 'lengths'"),
    "count of lengths": (no_steps, {"x": PADDED, "lengths": [9, 9]}, Y, "there are 2 'lengths'|should have one length"),
    "nothing": (no_steps, [], [], "input 'x' is an empty list"),
    "numbers": (no_steps, [1.0, 2.0], Y[:2], "one rank, but sample 0 is np.float64|one rank, but sample 0 is 1.0"),
    "none": (no_steps, None, Y[:2], "input 'x' should hold numbers|one length"),
    "text": (steps, [a.astype(str) for a in X], STEPS, "input 'x' should hold numbers, not <U"),
    "text of y": (steps, X, [a.astype(str) for a in STEPS], "y should hold numbers, not <U"),
}


@pytest.mark.parametrize("method", ["step", "fit", "evaluate"])
@pytest.mark.parametrize("case", WRONG)
def test_errors(case, method):
    make, x, y, message = WRONG[case]
    t = make()
    with pytest.raises((ValueError, tiercel.errors.Error), match=message):
        getattr(t, method)(x, y)
    assert t.steps == 0


def test_scores_of_steps():
    t = Trainer(model(SEQUENCES["lstm"], [Dense(3)]), "cross_entropy")
    with pytest.raises(ValueError, match=r"end the model with a transpose, Permute\(2, 1\)"):
        t.step(X, STEPS)


def test_nan_is_no_value_of_a_step():
    t = Trainer(model(SEQUENCES["lstm"], [Dense(2)]), "mse")
    bad = [a.copy() for a in VALUES]
    bad[2][1, 0] = np.nan
    with pytest.raises(ValueError, match="y: sample 2 holds NaN"):
        t.step(X, bad)


def test_options():
    with pytest.raises(ValueError, match="bucket is for lists of sequences that are shuffled"):
        no_steps().fit(X, Y, bucket=True, shuffle=False)
    with pytest.raises(ValueError, match="bucket is for lists"):
        no_steps().fit(PADDED, Y, bucket=True)
    with pytest.raises(ValueError, match="already is batches"):
        no_steps().fit([(X, Y)], bucket=True)
    with pytest.raises(TypeError, match="lengths is the name of an input"):
        Trainer(model([LSTM(5)], [Dense(3)]), lengths=3)


def test_layers_that_would_mix_padding():
    from tiercel.training import BatchNorm, Conv, Flatten, GlobalMaxPool

    for layer in (Conv(3), Flatten(), GlobalMaxPool(), BatchNorm()):
        with pytest.raises(ValueError, match="would mix a sequence of a model with lengths with its padding"):
            model([Dense(3)], [layer], (7, 4))
        model([LSTM(4), Dense(3)], [], (7, 4))
    with pytest.raises(ValueError, match="T is axis 1"):
        model([Permute(2, 1)], [Dense(3)], (7, 4))
    with pytest.raises(ValueError, match=r"takes sequences \[T, units\]"):
        model([Dense(3)], [], ("time",))
    with pytest.raises(ValueError, match="input_shape begins with T"):
        Sequential([Dense(3)], (), lengths=True)
    model([Permute(2, 1), Permute(2, 1)], [Dense(3)], (7, 4))
    with pytest.raises(ValueError, match="kind is mean, max or last"):
        SequencePool("sum")


@pytest.mark.parametrize("kind", ["mean", "max", "last"])
def test_pool_without_lengths(kind):
    t = Trainer(Sequential([SequencePool(kind), Dense(2)], ("time", 4), seed=1), "mse")
    x = np.stack([X[1], X[4]])
    pooled = {"mean": x.mean(1), "max": x.max(1), "last": x[:, -1]}[kind]
    np.testing.assert_allclose(t.predict(x), pooled @ t.weights["dense0.weight"], atol=1e-6)
    assert np.isfinite(t.step(x, pooled[:, :2]))


@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "hinge", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_targets_that_are_nan(loss, reduction):
    x, t = RNG.random((5, 4)), RNG.integers(0, 2, (5, 4)).astype(np.float64)
    holes = RNG.random((5, 4)) < 0.4
    with_holes = np.where(holes, np.nan, t)
    l = Loss(loss, reduction, ignore_nan=True)  # noqa: E741
    np.testing.assert_allclose(loss_value(l, x, with_holes), loss_value(Loss(loss, reduction), x[~holes], t[~holes]), rtol=1e-12)
    gradient = loss_gradient(l, x, with_holes)
    np.testing.assert_allclose(gradient[~holes], loss_gradient(Loss(loss, reduction), x[~holes], t[~holes]), rtol=1e-12)
    assert not gradient[holes].any()
    assert l.share(with_holes) == (1 if reduction == "sum" else (~holes).sum())
