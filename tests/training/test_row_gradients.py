"""Gradients of gathered tables as rows: the steps are those of the whole gradient. That one is had by `whole`: a factor of one before the Gather, behind
which the gradient is a tensor in the table's shape."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from training_models import same_bits

import tiercel
from tiercel import _core
from tiercel.errors import Error
from tiercel.training import SGD, Adagrad, Adam, AdamW, Dense, Embedding, Flatten, Lion, RMSprop, Sequential, Trainer

BATCH, STEPS = 6, 4
OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "sgd, decay": lambda: SGD(0.1, weight_decay=0.01),
    "momentum": lambda: SGD(0.1, 0.9, nesterov=True),
    "rmsprop": lambda: RMSprop(0.01, momentum=0.5),
    "adagrad": lambda: Adagrad(0.1, lr_decay=0.05),
    "adagrad, decay": lambda: Adagrad(0.1, weight_decay=0.01),
    "adam": lambda: Adam(0.01),
    "adamw": lambda: AdamW(0.01),
    "lion": lambda: Lion(0.01, weight_decay=0.1),
}


def model(table=(40, 8), gathers=1, whole=False, tied=False, dtype=np.float32, axis=0) -> bytes:
    """Sums of gathered rows, a matrix behind them; `tied`: that matrix is the table, transposed."""
    rng = np.random.default_rng(1)
    kind = TensorProto.FLOAT if dtype is np.float32 else TensorProto.DOUBLE
    classes = table[0] if tied else 3
    weights = {
        "table": rng.standard_normal(table).astype(dtype),
        "head": rng.standard_normal((int(np.prod(table[1:])), classes)).astype(dtype) / 8,
    }
    node = helper.make_node
    nodes = [node("Mul", ["table", "one"], ["scaled"])] if whole else []
    for k in range(gathers):
        nodes.append(node("Gather", ["scaled" if whole else "table", f"ids{k}"], [f"rows{k}"], axis=axis))
        nodes.append(node("ReduceSum", [f"rows{k}", "axis"], [f"sum{k}"], keepdims=1))
    nodes.append(node("Sum", [f"sum{k}" for k in range(gathers)], ["sum"]))
    nodes.append(node("Flatten", ["sum"], ["flat"]))
    if tied:
        nodes.append(node("Transpose", ["table"], ["turned"]))
        del weights["head"]
    nodes.append(node("MatMul", ["flat", "turned" if tied else "head"], ["scores"]))
    constants = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    constants += [numpy_helper.from_array(np.array(1, dtype), "one"), numpy_helper.from_array(np.array([1]), "axis")]
    inputs = [
        helper.make_tensor_value_info(f"ids{k}", TensorProto.INT32 if k else TensorProto.INT64, ["n", f"t{k}"])
        for k in range(gathers)
    ]
    outputs = [helper.make_tensor_value_info("scores", kind, ["n", classes])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def batches(rows=40, gathers=1, steps=STEPS, classes=3, times=(5, 9)):
    """Of drawn ids, many of them twice and some negative."""
    rng = np.random.default_rng(2)
    few = max(rows // 2, 1)
    for _ in range(steps):
        ids = [rng.integers(-few, few, (BATCH, times[k])) for k in range(gathers)]
        yield ids, rng.integers(0, classes, BATCH)


def trained(data: bytes, optimizer, given, **options) -> Trainer:
    t = Trainer(data, "cross_entropy", optimizer, **options)
    for x, y in given:
        t.step(x, y)
    return t


def state(t: Trainer) -> dict[str, bytes]:
    return {n: a.tobytes() for n, a in t._core.state()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bits_of_the_whole_gradient(name, dtype):
    for table, gathers in (((40, 8), 1), ((40, 2, 9), 2), ((40,), 2), ((3, 300), 1)):
        given = list(batches(table[0], gathers))
        rows, whole = (
            trained(model(table, gathers, way, dtype=dtype), OPTIMIZERS[name](), given) for way in (False, True)
        )
        assert state(rows) == state(whole), (table, gathers)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize(
    "options",
    [
        {"clip_value": 0.02},
        {"groups": {"table": {"lr": 0.5, "weight_decay": 0.1}}},
        {"groups": {"head": {"lr": 0.5}}},
        {"accumulate": 2},
        {"accumulate": 2, "clip_norm": 0.1},
        {"recompute": "sqrt"},
    ],
    ids=str,
)
def test_options_are_those_of_the_whole_gradient(name, options):
    given = list(batches(gathers=2))
    rows, whole = (trained(model(gathers=2, whole=way), OPTIMIZERS[name](), given, **options) for way in (False, True))
    assert state(rows) == state(whole)


def test_clip_norm_is_of_rows_that_were_added_up():
    """Sums of squares are cut elsewhere, so the last bit may differ."""
    given = [([np.full((BATCH, 5), 7)], np.zeros(BATCH, np.int64)), *batches()]
    for name in ("sgd", "adam"):
        rows, whole, free = (
            trained(model(whole=way), OPTIMIZERS[name](), given, clip_norm=clip)
            for way, clip in ((False, 0.3), (True, 0.3), (False, 0.0))
        )
        for n, w in whole.weights.items():
            np.testing.assert_allclose(rows.weights[n], w, rtol=0, atol=1e-6)
        assert np.abs(rows.weights["table"] - free.weights["table"]).max() > 1e-3


def test_memory_holds_no_gradient_of_the_table():
    given = list(batches(20000, steps=1))
    table = 20000 * 8 * 4
    for optimizer in (SGD(0.1), Adagrad(0.1), Adam(0.01), Adam(0.01, lazy=True)):
        assert trained(model((20000, 8)), optimizer, given).memory()["arena"] < table / 50
    assert trained(model((20000, 8), whole=True), "sgd", given).memory()["arena"] >= table


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "lazy"])
def test_bits_on_any_number_of_threads(name):
    rng = np.random.default_rng(3)
    given = [([rng.integers(0, 3000, (64, 20)) ** 2 // 3000], rng.integers(0, 3, 64)) for _ in range(3)]
    make = {**OPTIMIZERS, "lazy": lambda: AdamW(0.01, lazy=True)}[name]
    one, two, again = (
        trained(model((3000, 32)), make(), given, threads=n, clip_norm=clip)
        for n, clip in ((1, 0.5), (2, 0.5), (2, 0.5))
    )
    assert state(one) == state(two) == state(again)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "lazy"])
def test_a_resumed_training_has_the_same_bits(name, tmp_path):
    make = {**OPTIMIZERS, "lazy": lambda: Adam(0.01, lazy=True)}[name]
    given = list(batches(steps=6))
    straight = trained(model(), make(), given)
    trained(model(), make(), given[:3]).save_checkpoint(tmp_path / "c")
    resumed = trained(model(), make(), [])
    resumed.load_checkpoint(tmp_path / "c")
    for x, y in given[3:]:
        resumed.step(x, y)
    assert same_bits(resumed, straight)
    if name == "lazy":
        with pytest.raises(ValueError, match="lazy"):
            trained(model(), Adam(0.01), []).load_checkpoint(tmp_path / "c")


def torch_run(torch, data: bytes, make, given, sparse: bool, clip: float = 0.0, tied: bool = False):
    torch.sparse.check_sparse_tensor_invariants.disable()  # which it else warns of
    start = {t.name: numpy_helper.to_array(t).copy() for t in onnx.load_from_string(data).graph.initializer}
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(start["table"]), freeze=False, sparse=sparse)
    head = embedding.weight if tied else torch.nn.Parameter(torch.from_numpy(start["head"]))
    # SparseAdam takes no others
    optimizers = [make([embedding.weight])] + ([] if tied else [torch.optim.SGD([head], 0.0)])
    for ids, y in given:
        for o in optimizers:
            o.zero_grad()
        summed = sum(embedding(torch.from_numpy(i % len(start["table"]))).sum(1) for i in ids)
        torch.nn.functional.cross_entropy(summed @ (head.T if tied else head), torch.from_numpy(y)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_([embedding.weight], clip)
        for o in optimizers:
            o.step()
    return embedding.weight.detach().numpy()


FROZEN = {"head": {"lr": 0.0, "weight_decay": 0.0}}


@pytest.mark.parametrize(
    ("ours", "theirs", "sparse"),
    [
        (SGD(0.1), lambda o, p: o.SGD(p, 0.1), True),
        (Adagrad(0.1), lambda o, p: o.Adagrad(p, 0.1), True),
        (Adam(0.01, lazy=True), lambda o, p: o.SparseAdam(p, 0.01), True),
        (Adam(0.01, 0.8, 0.9, lazy=True), lambda o, p: o.SparseAdam(p, 0.01, (0.8, 0.9)), True),
        (Adam(0.01, epsilon=0.01, lazy=True), lambda o, p: o.SparseAdam(p, 0.01, eps=0.01), True),
        (Adam(0.01), lambda o, p: o.Adam(p, 0.01), False),
        (AdamW(0.01, weight_decay=0.1), lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1), False),
    ],
)
def test_against_torch(ours, theirs, sparse):
    torch = pytest.importorskip("torch")
    given = list(batches(gathers=2, steps=10))
    got = trained(model(gathers=2), ours, given, groups=FROZEN)
    expected = torch_run(torch, model(gathers=2), lambda p: theirs(torch.optim, p), given, sparse)
    np.testing.assert_allclose(got.weights["table"], expected, rtol=0, atol=2e-6)


def test_clip_norm_against_torch():
    torch = pytest.importorskip("torch")
    given = list(batches(steps=10))
    got = trained(model(), SGD(0.1), given, clip_norm=0.3, trainable=["table"])
    expected = torch_run(torch, model(), lambda p: torch.optim.SGD(p, 0.1), given, False, clip=0.3)
    np.testing.assert_allclose(got.weights["table"], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_tied_table_has_a_whole_gradient(lazy):
    torch = pytest.importorskip("torch")
    given = list(batches(classes=40))
    got = trained(model(tied=True), Adam(0.01, lazy=lazy), given)
    expected = torch_run(torch, model(tied=True), lambda p: torch.optim.Adam(p, 0.01), given, False, tied=True)
    np.testing.assert_allclose(got.weights["table"], expected, rtol=0, atol=2e-6)


def test_lazy_leaves_other_rows_alone():
    ids, y = np.array([[3, 3, 5], [-1, 5, 3]]), np.array([0, 1])
    for make, moved in ((lambda **k: Adam(0.01, **k), False), (lambda **k: AdamW(0.01, weight_decay=0.5, **k), True)):
        t, plain = (trained(model(), make(**k), batches()) for k in ({"lazy": True}, {}))
        before = {n: a.copy() for n, a in t._core.state()}
        t.step([ids], y)
        after, others = dict(t._core.state()), [r for r in range(40) if r not in (3, 5, 39)]
        for name in ("table", "tiercel_m table", "tiercel_v table"):
            np.testing.assert_array_equal(after[name][others], before[name][others])
            assert (after[name][[3, 5, 39]] != before[name][[3, 5, 39]]).all()
        former = plain.weights["table"].copy()
        plain.step([ids], y)
        assert (plain.weights["table"][others] != former[others]).any()
        untouched = np.flatnonzero(~dict(plain._core.state())["tiercel_m table"].any(axis=1))
        assert moved == bool(untouched.size and (plain.weights["table"][untouched] != former[untouched]).all())


def test_lazy_is_checked():
    with pytest.raises(ValueError, match="lazy is True or False"):
        Adam(0.01, lazy="rows")  # type: ignore[arg-type]
    with pytest.raises(Error, match="do not go with accumulate"):
        Trainer(model(), "cross_entropy", Adam(0.01, lazy=True), accumulate=2)


def test_axis_counted_from_the_end():
    given = list(batches())
    a, b = (trained(model(axis=axis), SGD(0.1), given) for axis in (0, -2))
    assert same_bits(a, b) and a.memory() == b.memory()


def test_an_embedding_of_sequential():
    layers = [Embedding(5000, 4, padding=0), Flatten(), Dense(3)]
    t = Trainer(Sequential(layers, input_shape=(7,), seed=0), "cross_entropy", SGD(0.1))
    table = t.weights["embedding0.weight"]
    before = table.copy()
    x = np.array([[1, 2, 3, 4, 0, 0, 0], [9, 9, 9, 1, 1, 1, 0]])
    t.step(x, np.array([0, 2]))
    assert sorted(np.flatnonzero((table != before).any(axis=1))) == [1, 2, 3, 4, 9]
    assert t.memory()["arena"] < table.nbytes / 10


def test_no_ids_and_wrong_ids():
    start = Trainer(model(), "cross_entropy").weights["table"].copy()
    y = np.zeros(BATCH, np.int64)
    for name in ("sgd", "adagrad"):
        t = trained(model(), OPTIMIZERS[name](), [([np.zeros((BATCH, 0), np.int64)], y)])
        np.testing.assert_array_equal(t.weights["table"], start)
    for wrong in (40, -41):
        with pytest.raises(Error, match=rf"index {wrong} is outside \[-40, 39\]"):
            t.step([np.full((BATCH, 2), wrong)], y)
    np.testing.assert_array_equal(t.weights["table"], start)


def test_a_loss_that_is_not_finite_changes_no_row():
    t = Trainer(model(), "mse", Adagrad(0.1))
    before = state(t)
    with pytest.raises(Error, match="not finite"):
        t.step([np.ones((BATCH, 2), np.int64)], np.full((BATCH, 3), np.nan, np.float32))
    assert state(t) == before


def test_gradients_stay_whole():
    ids = np.array([[1, 1, -1]])
    session = tiercel.gradient(model(), inputs=["table"])
    (got,) = session.run(["gradient of table"], {"ids0": ids})
    head = next(numpy_helper.to_array(t) for t in onnx.load_from_string(model()).graph.initializer if t.name == "head")
    expected = np.zeros((40, 8), np.float32)
    np.add.at(expected, ids[0], head.sum(axis=1))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


# ---- The operators alone


def rows_grad(shape, *pairs):
    flat = [np.asarray(a) for pair in pairs for a in pair]
    return _core.evaluate_node("GatherRowsGrad", "ai.tiercel", 1, [np.array(shape), *flat], [True, True], [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_drawn_ids(dtype):
    rng = np.random.default_rng(4)
    cases = (5, 3, 40), (100000, 2, 300, 200), (2100, 300, 1, 0, 60), (1, 1, 4), (7, 0, 3), (9, 2, 0)
    for rows, block, *counts in cases:
        pairs, whole = [], np.zeros((rows, block), np.float64)
        for k, n in enumerate(counts):
            ids = rng.integers(-rows, rows, n).astype(np.int32 if k % 2 else np.int64)
            d = rng.standard_normal((n, block)).astype(dtype)
            np.add.at(whole, ids, d.astype(np.float64))
            pairs.append((d, ids))
        found, sums = rows_grad([rows, block], *pairs)
        distinct = np.unique(np.concatenate([i for _, i in pairs]).astype(np.int64) % rows)
        assert found.shape == (min(sum(counts), rows),) and sums.shape == (len(found), block) and sums.dtype == dtype
        np.testing.assert_array_equal(found, np.pad(distinct, (0, len(found) - len(distinct)), constant_values=-1))
        np.testing.assert_allclose(sums[: len(distinct)], whole[distinct], atol=1e-5 if dtype is np.float32 else 1e-12)
        assert not sums[len(distinct) :].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_ids_for_each_row_have_the_bits_of_the_whole_gradient(dtype):
    """No sort then; some rows may have none."""
    rng = np.random.default_rng(5)
    for rows, block, counts in (
        (3, 5, (40,)), (40, 300, (100, 7, 90)), (2, 768, (500,)), (9, 1, (30, 0, 12)), (100, 130, (150, 60)), (7, 0, (20,)), (1, 3, (9, 1)),
    ):  # fmt: skip
        for used in (rows, -(-rows // 3)):
            pairs = [(rng.standard_normal((n, block)).astype(dtype), rng.integers(0, used, n) - rows * (n % 2)) for n in counts]
            whole = np.zeros((rows, block), dtype)
            for k, (d, ids) in enumerate(pairs):
                (one,) = _core.evaluate_node("GatherGrad", "ai.tiercel", 1, [d, ids, np.array([rows, block])], [True], [])
                whole = whole + one if k else one
            found, sums = rows_grad([rows, block], *pairs)
            distinct = np.unique(np.concatenate([i for _, i in pairs]) % rows)
            np.testing.assert_array_equal(found, np.pad(distinct, (0, rows - len(distinct)), constant_values=-1))
            assert sums[: len(distinct)].tobytes() == whole[distinct].tobytes() and not sums[len(distinct) :].any()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (([4, 2], (np.ones((2, 2), "f"), np.array([0, 4]))), r"index 4 is outside \[-4, 3\]"),
        (([4, 2], (np.ones((2, 3), "f"), np.array([0, 1]))), "2 elements for each of 2 indices"),
        (([4, 2], (np.ones((2, 2), "f"), np.array([0.0, 1.0]))), "int32 or int64"),
        (([-4, 2], (np.ones((2, 2), "f"), np.array([0, 1]))), "extent of -4"),
        (([4, 2], (np.ones((2, 2), "f2"), np.array([0, 1]))), "float or double"),
    ],
)
def test_rows_of_wrong_inputs(inputs, message):
    with pytest.raises(Error, match=message):
        rows_grad(*inputs)


def test_steps_of_wrong_rows():
    def step(rows, sums=(2, 3)):
        head = [np.float32(0.1), np.array(1), None, None, np.ones((4, 3), "f")]
        given = [*head, np.array(rows), np.ones(sums, "f")]
        return _core.evaluate_node("SgdRows", "ai.tiercel", 1, given, [True], [])[0]

    np.testing.assert_allclose(step([1, -1]), [[1] * 3, [0.9] * 3, [1] * 3, [1] * 3])
    for rows in ([1, 4], [2, 1], [1, 1], [-2, 1]):
        with pytest.raises(Error, match="ascending and below 4"):
            step(rows)
    with pytest.raises(Error, match="should have the shape"):
        step([1, 2], (2, 4))
