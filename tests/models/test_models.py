"""Small configurations of real architectures against onnxruntime: every optimisation level, every kernel set, changing shapes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import tiercel
from tiercel import _core

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-4  # of the largest value of an output
Feeds = dict[str, np.ndarray]


def only(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {name: shape}


# Shapes of the inputs, one entry a run. Integer inputs are token ids below 100; names with "mask" are ones, then zeros.
SHAPES: dict[str, list[dict[str, tuple[int, ...]]]] = {
    "bert": [dict.fromkeys(("input_ids", "attention_mask"), s) for s in ((1, 7), (3, 16), (1, 64), (2, 1))],
    "convnext": [only("pixel_values", 1, 3, 64, 64), only("pixel_values", 3, 3, 64, 64)],
    "detr": [only("pixel_values", 1, 3, 64, 96)],
    "gpt2": [only("input_ids", 2, 12), only("input_ids", 3, 33), only("input_ids", 2, 5)],
    "llama": [only("input_ids", 2, 12), only("input_ids", 3, 33), only("input_ids", 2, 5)],
    "mobilenetv2": [only("x", 1, 3, 48, 48), only("x", 5, 3, 48, 48)],
    "mobilenetv3": [only("x", 1, 3, 40, 40), only("x", 2, 3, 33, 57), only("x", 1, 3, 7, 9)],
    "recurrent": [only("x", 1, 9, 10), only("x", 4, 1, 10), only("x", 3, 21, 10)],
    "resnet": [
        only("pixel_values", 1, 3, 64, 64),
        only("pixel_values", 2, 3, 37, 65),
        only("pixel_values", 3, 3, 32, 32),
    ],
    "unet": [only("x", 1, 3, 16, 24), only("x", 2, 3, 8, 8), only("x", 1, 3, 40, 20)],
    "vit": [only("pixel_values", 1, 3, 32, 32), only("pixel_values", 4, 3, 32, 32)],
    "wavenet": [only("x", 1, 16, 50), only("x", 2, 16, 333), only("x", 1, 16, 1)],
    "whisper": [only("input_features", 1, 8, 100)],
    "yolo": [only("images", 1, 3, 32, 48), only("images", 2, 3, 32, 48)],
}
MODELS = sorted(SHAPES)


def test_every_model_is_tested() -> None:
    assert sorted(p.stem for p in DATA.glob("*.onnx")) == MODELS


@functools.cache
def cases(name: str) -> list[tuple[Feeds, list[np.ndarray]]]:
    """Feeds and onnxruntime's outputs, for every set of shapes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(DATA / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = {i.name: i.type for i in session.get_inputs()}
    rng = np.random.default_rng(7)
    found = []
    for shapes in SHAPES[name]:
        feeds = {}
        for key, shape in shapes.items():
            if "mask" in key:
                feeds[key] = (np.arange(shape[1]) < max(shape[1] - 3, 1)).astype(np.int64) * np.ones(shape, np.int64)
            elif kinds[key] == "tensor(int64)":
                feeds[key] = rng.integers(0, 100, shape)
            else:
                feeds[key] = rng.standard_normal(shape).astype(np.float32)
        found.append((feeds, session.run(None, feeds)))
    return found


def load(name: str, threads: int = 0, level: int = 99) -> tiercel.InferenceSession:
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = tiercel.GraphOptimizationLevel(level)
    return tiercel.InferenceSession(str(DATA / f"{name}.onnx"), options)


def assert_close(got: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape, what
        assert g.dtype == e.dtype, what
        error = np.abs(g.astype(np.float64) - e).max() / np.abs(e).max()
        assert error <= TOLERANCE, f"{what}: {error:.1e} of the largest value"


@pytest.mark.parametrize("level", [0, 1, 2, 99])
@pytest.mark.parametrize("name", MODELS)
def test_matches_onnxruntime(name: str, level: int) -> None:
    session = load(name, level=level)
    for feeds, expected in cases(name):
        assert_close(session.run(None, feeds), expected, str({k: v.shape for k, v in feeds.items()}))


@pytest.mark.parametrize("name", MODELS)
def test_result_does_not_depend_on_threads_or_earlier_shapes(name: str) -> None:
    one, two = load(name, threads=1), load(name, threads=2)
    first = [one.run(None, feeds) for feeds, _ in cases(name)]
    for session in (two, one, two):
        for (feeds, _), expected in zip(cases(name), first, strict=True):
            for g, e in zip(session.run(None, feeds), expected, strict=True):
                np.testing.assert_array_equal(g, e)


@pytest.mark.parametrize("name", ["bert", "resnet", "recurrent"])
def test_one_session_in_many_threads(name: str) -> None:
    session = load(name)
    expected = [session.run(None, feeds) for feeds, _ in cases(name)]
    turns = list(range(len(expected))) * 12

    def again(i: int) -> bool:
        return all(np.array_equal(g, e) for g, e in zip(session.run(None, cases(name)[i][0]), expected[i], strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(again, turns))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("isa", _core.running_isas())
def test_every_kernel_set(isa: str, tmp_path: Path) -> None:
    for name in MODELS:
        for i, (feeds, _) in enumerate(cases(name)):
            np.savez(tmp_path / f"{name}.{i}.in.npz", **feeds)
    environment = os.environ | {"TIERCEL_FORCE_ISA": isa}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]
    for name in MODELS:
        for i, (_, expected) in enumerate(cases(name)):
            with np.load(tmp_path / f"{name}.{i}.out.npz") as archive:
                assert_close([archive[k] for k in archive.files], expected, f"{name}, run {i}")


def run_all(folder: Path) -> None:
    """In a process of its own: every model on the inputs in the folder, outputs beside them."""
    for name in MODELS:
        session = load(name)
        for i in range(len(SHAPES[name])):
            with np.load(folder / f"{name}.{i}.in.npz") as feeds:
                np.savez(folder / f"{name}.{i}.out.npz", *session.run(None, dict(feeds)))
    print(tiercel.build_info()["isa"])


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
