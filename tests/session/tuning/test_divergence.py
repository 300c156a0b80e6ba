from __future__ import annotations

import math

import numpy as np
import pytest

from nbllm.errors import ModelLoadError
from nbllm.session.tuning.divergence import divergence


def test_divergence_of_known_distributions() -> None:
    original = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    other = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], np.float32))
    expected = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(original, other) == pytest.approx(expected / 2, rel=1e-5)


def test_divergence_depends_on_differences_of_logits_alone() -> None:
    rows = np.random.default_rng(1).normal(size=(5, 100)).astype(np.float32) * 10
    assert divergence(rows, rows) == 0.0
    assert divergence(rows, rows + 1000) == pytest.approx(0.0, abs=1e-4)


def test_divergence_is_of_the_original() -> None:
    flat, steep = np.zeros((1, 2), np.float32), np.array([[0.0, 5.0]], np.float32)
    assert divergence(flat, steep) > divergence(steep, flat) > 0


@pytest.mark.parametrize(
    ("other", "problem"),
    [(np.zeros((2, 3), np.float32), "another vocabulary"), (np.full((2, 4), np.nan, np.float32), "no number")],
    ids=["shape", "nan"],
)
def test_other_that_cannot_be_compared_is_refused(other: np.ndarray, problem: str) -> None:
    with pytest.raises(ModelLoadError, match=problem):
        divergence(np.zeros((2, 4), np.float32), other)
