"""LSTM, GRU and RNN: one step of a stream, and sequences, in one direction and in two."""

from __future__ import annotations

from typing import Any

import pytest

from support import Work, engines, measure, normal, one_node

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, steps: int, batch: int, inputs: int, hidden: int, directions: int = 1, **more: Any) -> Work:
    gates = GATES[op]
    x, scale = normal(steps, batch, inputs), hidden**-0.5
    w = normal(directions, gates * hidden, inputs) * inputs**-0.5
    r, b = normal(directions, gates * hidden, hidden) * scale, normal(directions, 2 * gates * hidden) * scale
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward", **more}
    return one_node(
        op, [x, w, r, b], attributes, constants=[1, 2, 3], flops=2.0 * directions * steps * batch * gates * hidden * (inputs + hidden),
        bytes=4.0 * (x.size + w.size + r.size + directions * steps * batch * hidden),
        name=f"{op} {inputs}->{directions}x{hidden}, {steps} steps of {batch}",
    )  # fmt: skip


WORKS = [
    recurrent("LSTM", 100, 1, 128, 256, 2),
    recurrent("LSTM", 1, 1, 128, 128),
    recurrent("LSTM", 20, 16, 64, 192),
    recurrent("GRU", 100, 1, 128, 256, linear_before_reset=1),
    recurrent("GRU", 30, 8, 33, 77, 2),
    recurrent("RNN", 100, 1, 64, 128, 2),
]


@pytest.mark.parametrize(("work", "engine"), engines(WORKS), ids=str)
def test_recurrent(benchmark: Any, work: Work, engine: str, threads: int) -> None:
    measure(benchmark, work, engine, threads)
