"""silero-vad hears the same speech with either engine: streaming, batched and sequence models, unmodified application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(900)
Results = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def results(on_both: Callable[[str, str], tuple[Path, Path]]) -> Results:
    pair = []
    for folder in on_both("silero_vad", "silero_app.py"):
        with np.load(folder / "result.npz") as archive:
            pair.append({name: archive[name] for name in archive.files})
    return pair[0], pair[1]


def test_there_is_speech_and_silence(results: Results) -> None:
    probabilities = results[0]["probabilities opset 16 at 16000"]
    assert probabilities.max() > 0.8
    assert probabilities.min() < 0.1
    assert len(results[0]["timestamps opset 16 at 16000"]) >= 1
    assert len(results[0]["stream events"]) >= 1


def test_same_probabilities(results: Results) -> None:
    reference, ours = results
    assert list(ours) == list(reference)
    for name, expected in reference.items():
        assert ours[name].shape == expected.shape, name
        np.testing.assert_allclose(
            ours[name], expected, atol=1e-3 if "probabilities" in name else 0, rtol=0, err_msg=name
        )
