"""Gradients of rows that are not finite: an error before anything has changed, as of other gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tiercel.errors import Error
from tiercel.training import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Dense,
    Embedding,
    Flatten,
    Layer,
    Lion,
    Loss,
    RMSprop,
    Sequential,
    Trainer,
)

RNG = np.random.default_rng(7)
ROWS, ZERO = 8000, 1234
X = RNG.integers(0, 1000, (12, 5))
X[2] = X[3]  # rows that come twice
BAD = X.copy()
BAD[7, 2] = ZERO  # the root of |0| has no slope
Y = np.abs(RNG.standard_normal((12, 2))).astype(np.float32)
OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.1, 0.9, nesterov=True),
    "rmsprop": lambda: RMSprop(0.01),
    "adagrad": lambda: Adagrad(0.1, lr_decay=0.1),
    "adam": lambda: Adam(0.01),
    "adam, lazy": lambda: Adam(0.01, lazy=True),
    "adamw": lambda: AdamW(0.01),
    "adamw, lazy": lambda: AdamW(0.01, lazy=True),
    "lion": lambda: Lion(0.01, weight_decay=0.1),
}
CLIPS: dict[str, dict[str, float]] = {
    "no clipping": {},
    "norm": {"clip_norm": 1.0},
    "value": {"clip_value": 0.5},
    "both": {"clip_norm": 1.0, "clip_value": 0.5},
}


class Root(Layer):
    def emit(self, b: Any) -> None:
        b.node("Sqrt", [b.node("Abs", [b.current])])


def made(optimizer: Any, *more: Layer, rows: int = ROWS, **options: Any) -> Trainer:
    layers = [Embedding(rows, 8), Root(), Flatten(), *more, Dense(2)]
    t = Trainer(Sequential(layers, input_shape=(5,), seed=3), "mse", optimizer, **options)
    t.weights["embedding0.weight"][ZERO] = 0
    return t


def state(t: Trainer) -> Any:
    return {n: a.tobytes() for n, a in t._core.state()}, t.steps, t.batches


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_changes(name: str, clip: str, accumulate: int, threads: int) -> None:
    if accumulate > 1 and "lazy" in name:
        return
    t, same = (made(OPTIMIZERS[name](), accumulate=accumulate, threads=threads, **CLIPS[clip]) for _ in range(2))
    for each in (t, same):
        each.step(X, Y)
        each.step(X, Y)
        each.weights["embedding0.weight"][ZERO] = 0  # in case of decay
    assert t.memory()["arena"] < ROWS * 8 * 4  # rows they are
    session, before = t.session, state(t)
    seen = session.run(None, {"x": X})[0]
    for _ in range(2):
        with pytest.raises(
            Error, match='gradient of the weight "embedding0.weight" is not finite; the first.*/gradient.*are unchanged'
        ):
            t.step(BAD, Y)
        assert state(t) == before
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], seen)
    for each in (t, same):  # and the training goes on as if the batch had not been
        each.step(X, Y)
        each.step(X, Y)
    assert state(t) == state(same)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam"])
def test_large_models(name: str, atomic: bool, accumulate: int, threads: int) -> None:
    """The table is updated last: layers that came before have been, unless the step is atomic. The table never is."""
    more = [Dense(700, "tanh"), Dense(700, "tanh")]
    t = made(OPTIMIZERS[name](), *more, rows=40000, atomic=atomic, accumulate=accumulate, threads=threads)
    t.step(X, Y)
    before = {n: a.copy() for n, a in t._core.state()}
    message = "weights are unchanged" if atomic else "6 of 7 (weights|sums of gradients) had been updated before"
    with pytest.raises(Error, match=f'"embedding0.weight" is not finite; .*{message}'):
        t.step(BAD, Y)
    now = dict(t._core.state())
    of_table = [n for n in now if n.endswith("embedding0.weight")]
    assert len(of_table) == (1, 2)[accumulate > 1] + {"sgd": 0, "adagrad": 1, "adam": 2}[name]
    for n in now:
        if n.startswith("tiercel_g ") and not atomic:  # half a batch is no batch: the sums begin anew
            assert not now[n].any()
        elif atomic or n in of_table:
            assert now[n].tobytes() == before[n].tobytes(), n
    if not atomic and accumulate == 1:
        assert any(now[n].tobytes() != before[n].tobytes() for n in now)
    assert all(np.isfinite(a).all() for a in now.values())
    assert np.isfinite(t.step(X, Y))


def test_rows_of_a_batch_of_known_size_are_few() -> None:
    """Where the model says how many there are, a table counts as those: one list of checks, and nothing has changed."""
    model = onnx.load_from_string(Sequential([Embedding(40000, 8), Root(), Flatten(), Dense(2)], (5,), seed=3).build())
    for known in (False, True):
        if known:
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(X)
        t = Trainer(model, "mse", "adam")
        t.weights["embedding0.weight"][ZERO] = 0
        before = state(t)
        with pytest.raises(Error, match="weights are unchanged" if known else "2 of 3 weights had been updated before"):
            t.step(BAD, Y)
        assert (state(t) == before) == known


def gathers(*, by: float) -> bytes:
    """Two Gathers of one table, each row times a factor, added up."""
    node = helper.make_node
    nodes = [node("Gather", ["table", f"ids{k}"], [f"rows{k}"], name=f"gather{k}") for k in range(2)]
    nodes += [node("Add", ["rows0", "rows1"], ["sum"]), node("Mul", ["sum", "by"], ["y"], name="scale")]
    constants = [numpy_helper.from_array(np.zeros((50, 4), np.float32), "table")]
    constants.append(numpy_helper.from_array(np.array(by, np.float32), "by"))
    inputs = [helper.make_tensor_value_info(f"ids{k}", TensorProto.INT64, ["n"]) for k in range(2)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "adam, lazy"])
def test_rows_whose_sum_overflows(name: str, threads: int) -> None:
    """What comes back to each Gather is finite: the sum of a row that is there twice, within a Gather or of both, is not."""
    t = Trainer(gathers(by=2e38), Loss("l1", reduction="sum"), OPTIMIZERS[name](), threads=threads)
    t.weights["table"][3] = np.arange(4) * 1e-45
    y = -np.ones((3, 4), np.float32)
    before = state(t)
    for ids in (([1, 1, 2], [3, 4, 5]), ([1, 2, 3], [4, 5, 2])):
        with pytest.raises(Error, match='weight "table" is not finite; .*GatherRowsGrad.*weights are unchanged'):
            t.step(ids, y)
        assert state(t) == before


def test_clip_norm_of_rows_whose_squares_overflow() -> None:
    """They are finite, so the step is taken: with a scale of next to nothing."""
    t = Trainer(gathers(by=1e30), Loss("l1", reduction="sum"), "sgd", clip_norm=1.0)
    t.step([[1, 2], [3, 4]], np.ones((2, 4), np.float32))
    assert np.isfinite(t.weights["table"]).all()
    with pytest.raises(Error, match="is not finite"):
        Trainer(gathers(by=3e38), Loss("l1", reduction="sum"), "sgd", clip_norm=1.0).step(
            [[1, 1], [3, 4]], np.ones((2, 4), np.float32)
        )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("clip", ["no clipping", "norm"])
def test_narrow_weights(optimizer: str, clip: str) -> None:
    """Of half-precision weights the masters stay; the node is found among results that are halves."""
    node, kind = helper.make_node, TensorProto.FLOAT16
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="product"),
        node("Abs", ["h"], ["a"]),
        node("Sqrt", ["a"], ["y"], name="root"),
    ]
    w = numpy_helper.from_array(RNG.standard_normal((4, 3)).astype(np.float16), "w")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", kind, ["n", 4])], [info("y", kind, ["n", 3])], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    t = Trainer(model, "mse", optimizer, **CLIPS[clip])
    x, y = RNG.standard_normal((6, 4)).astype(np.float16), np.ones((6, 3), np.float32)
    t.step(x, y)
    before = state(t)
    x[2] = 0
    with pytest.raises(
        Error, match='weight "w" is not finite; the first.*Div node "root/gradient".*weights are unchanged'
    ):
        t.step(x, y)
    assert state(t) == before
