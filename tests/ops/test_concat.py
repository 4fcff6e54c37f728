"""Concat and Split of drawn shapes, against numpy, on teams of any size."""

import ml_dtypes
import numpy as np
import pytest

import tiercel
from oracle import one_node
from test_movement import DTYPES, i64, rand


def on_threads(model, feeds, threads):
    options = tiercel.SessionOptions()
    options.intra_op_num_threads = threads
    return tiercel.InferenceSession(model.SerializeToString(), options).run(None, feeds)


@pytest.mark.parametrize("dtype", [*DTYPES, "int4", "uint4"])
def test_drawn_concats_and_splits(dtype):
    """Short rows and long ones, tiny parts and none, ranks 1 to 8, on teams of any size."""
    rng = np.random.default_rng(len(dtype))
    for rank in range(1, 9):
        shape = rng.integers(1, {1: 3000, 2: 70, 3: 20, 4: 9}.get(rank, 4), rank).tolist()
        if rank == 5:
            shape[0] = 0
        axis = int(rng.integers(-rank, rank))
        sizes = rng.integers(0, (3, 40)[rank % 2], 60 if rank < 4 else 5).tolist()
        shape[axis] = sum(sizes)
        x = rand(*shape) if dtype.endswith("int4") else rand(*shape, dtype=dtype)
        if dtype.endswith("int4"):
            x = (np.abs(x) % 8).astype(getattr(ml_dtypes, dtype))
        cuts = np.cumsum(sizes)[:-1]
        parts, asked = np.split(x, cuts, axis), [bool(i % 4) for i in range(len(sizes))]
        for op, inputs, outputs, want in (("Concat", parts, 1, [x]), ("Split", [x, i64(*sizes)], asked, [p for p, a in zip(parts, asked, strict=True) if a])):
            model, feeds, _ = one_node(op, inputs, {"axis": axis}, 24 if dtype.endswith("int4") else 13, outputs=outputs)
            for threads in (1, 2, 3, 4):
                for got, expected in zip(on_threads(model, feeds, threads), want, strict=True):
                    assert got.shape == expected.shape
                    assert got.tolist() == expected.tolist(), (op, rank, axis, threads)


def test_concat_of_nothing():
    """Extents beside an empty one may be anything."""
    for shape in ((2**40, 0), (0, 2**60), (2**50, 0, 2**10)):
        for axis in range(len(shape)):
            x, wanted = np.zeros(shape, "int8"), list(shape)
            wanted[axis] *= 2
            model, feeds, _ = one_node("Concat", [x, x], {"axis": axis}, 13)
            assert on_threads(model, feeds, 2)[0].shape == tuple(wanted)
