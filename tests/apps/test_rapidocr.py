"""RapidOCR reads the same text with either engine: detection, direction and recognition models, unmodified application."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def results(on_both: Callable[[str, str], tuple[Path, Path]]) -> tuple[dict, dict]:
    reference, ours = on_both("rapidocr", "rapidocr_app.py")
    return json.loads((reference / "result.json").read_text()), json.loads((ours / "result.json").read_text())


def test_there_is_text_to_read(results: tuple[dict, dict]) -> None:
    reference, _ = results
    assert any("quick brown fox" in t for t in reference["plain"]["texts"])
    assert any("quick brown fox" in t for t in reference["upside down"]["texts"])
    assert len(reference["large"]["texts"]) >= 9
    assert reference["blank"]["texts"] == []


def test_same_text(results: tuple[dict, dict]) -> None:
    reference, ours = results
    assert {name: page["texts"] for name, page in ours.items()} == {
        name: page["texts"] for name, page in reference.items()
    }


def test_same_scores_and_places(results: tuple[dict, dict]) -> None:
    reference, ours = results
    for name, page in reference.items():
        np.testing.assert_allclose(ours[name]["scores"], page["scores"], atol=1e-3, rtol=0, err_msg=name)
        np.testing.assert_allclose(ours[name]["boxes"], page["boxes"], atol=1, rtol=0, err_msg=name)
