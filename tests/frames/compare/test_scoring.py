from __future__ import annotations

import pytest

import nbllm
from nbllm.errors import ParameterError
from nbllm.frames.compare.scoring import score
from tests.frames.compare.talking import asked, talking


def test_scores_are_added_to_what_is_there() -> None:
    frame = nbllm.compare(["x", "y"], talking("m", asked), scorers="equals", expected=["x", "x"], cache=False)
    more = score(score(frame, len, name="size"), ("contains", "y"))
    assert more["score_size"].tolist() == [1, 1]
    assert more["passed"].tolist() == [False, False]
    assert {"score_equals", "score_contains"} <= set(more.columns)
    assert "score_size" not in frame.columns


def test_what_was_expected_is_known() -> None:
    frame = nbllm.compare(["x", "y"], talking("m", asked), expected=["x", "x"], cache=False)
    more = score(frame, ["equals", "similarity"], model=talking("ruler"), cache=False)
    assert more["score_equals"].tolist() == [1, 0]
    assert more["score_similarity"][0] == pytest.approx(1, abs=1e-6)


def test_nothing_to_score_is_told() -> None:
    frame = nbllm.compare("x", talking("m"), cache=False)
    with pytest.raises(ParameterError, match="scorers"):
        score(frame, None)
    with pytest.raises(ParameterError, match="expected="):
        score(frame, "equals")
