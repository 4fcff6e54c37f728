"""Random graphs against onnxruntime with its optimisations off: passes, layouts, the memory plan and its aliases, several readers and outputs.

A seed that fails is made small by ``draw(seed, nodes)`` with fewer nodes, then by TIERCEL_DISABLE_PASS.
"""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
from random_graphs import draw

import tiercel

onnxruntime.set_default_logger_severity(4)
GRAPHS, EACH = 160, 40


def reference(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def session(model: bytes, threads: int) -> tiercel.InferenceSession:
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    return tiercel.InferenceSession(model, options)


def expected_of(oracle: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> list[tuple[np.ndarray, float]]:
    """Results, and how far each may be off: a rounding of the largest value, and what a change of the inputs' last bits does."""
    results = oracle.run(None, feeds)
    near = oracle.run(None, {k: (v * np.float32(1 + 1e-6)).astype(np.float32) for k, v in feeds.items()})
    allowed = []
    for y, n in zip(results, near, strict=True):
        ok = np.isfinite(y) & np.isfinite(n)
        allowed.append(2e-5 * np.abs(y[ok]).max(initial=0) + 20 * np.abs(y[ok] - n[ok]).max(initial=0) + 1e-10)
    return list(zip(results, allowed, strict=True))


def compare(seed: int, got: list[np.ndarray], expected: list[tuple[np.ndarray, float]]) -> None:
    for i, (y, (e, allowed)) in enumerate(zip(got, expected, strict=True)):
        assert y.shape == e.shape, f"seed {seed}, output {i}: shape {y.shape} instead of {e.shape}"
        np.testing.assert_allclose(y, e, rtol=0, atol=allowed, err_msg=f"seed {seed}, output {i}")


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("first", range(0, GRAPHS, EACH))
def test_graphs(first: int) -> None:
    refused = 0
    for seed in range(first, first + EACH):
        model, feeds = draw(seed)
        data = model.SerializeToString()
        try:
            oracle = reference(data)
        except Exception:  # the drawing went wrong about a shape
            refused += 1
            continue
        one, two = session(data, 1), session(data, 2)
        got = one.run(None, feeds)
        compare(seed, got, expected_of(oracle, feeds))
        assert same_bits(got, one.run(None, feeds)), f"seed {seed}: the second run differs"
        assert same_bits(got, two.run(None, feeds)), f"seed {seed}: two threads differ from one"
    assert refused <= 1


@pytest.mark.parametrize("first", range(1000, 1000 + GRAPHS // 2, EACH))
def test_batches_that_change_from_call_to_call(first: int) -> None:
    checked = 0
    for seed in range(first, first + EACH):
        model, feeds = draw(seed, dynamic=True)
        data = model.SerializeToString()
        oracle, tested = reference(data), session(data, 2)
        batch = next(iter(feeds.values())).shape[0]
        rng = np.random.default_rng(seed)
        for n in (batch, batch + 1, 1, batch + 4, batch):
            now = {k: rng.uniform(-1.5, 1.5, (n, *v.shape[1:])).astype(np.float32) for k, v in feeds.items()}
            try:
                expected = expected_of(oracle, now)
            except Exception:  # shapes that the drawing fixed do not fit other batches
                continue
            compare(seed, tested.run(None, now), expected)
            checked += 1
    assert checked > 3 * EACH


@pytest.mark.parametrize("seed", range(2000, 2010))
def test_many_threads_share_a_session(seed: int) -> None:
    model, feeds = draw(seed)
    shared = session(model.SerializeToString(), 2)
    variants = [{k: (v * f).astype(np.float32) for k, v in feeds.items()} for f in (1, -1, 0.5, 2)]
    expected = [shared.run(None, f) for f in variants]
    wrong: list[str] = []

    def call(start: int) -> None:
        for i in range(start, start + 8):
            try:
                if not same_bits(shared.run(None, variants[i % 4]), expected[i % 4]):
                    wrong.append(f"call {i} differs")
            except Exception as e:
                wrong.append(str(e))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
