from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ParameterError
from nbllm.frames.compare.summary import bootstrap_interval, differences, summary


def _frame(scores: dict[str, list[float]], **columns: Any) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "prompt": "p", "prompt_idx": 0, "case": range(len(values)), "model": model, "repeat": 0, "input": "i",
                "response": "r", "error": pd.Series([None] * len(values), dtype="str"), "tokens_per_s": 10.0,
                "score_x": values, **columns,
            }
        )
        for model, values in scores.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_means_and_standard_errors_are_those_of_the_textbook() -> None:
    table = summary(_frame({"a": [1, 2, 3, 4], "b": [0, 0, 1, 1]}))
    assert table["score_x"].to_dict() == {"a": 2.5, "b": 0.5}
    assert table.loc["a", "score_x_se"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert table["count"].tolist() == [4, 4]
    assert table["tokens_per_s"].tolist() == [10, 10]


def test_differences_are_paired() -> None:
    """Cases differ much, and models by the same in each: the interval must not know of the cases."""
    values = np.random.default_rng(1).normal(0, 100, 50)
    table = summary(_frame({"a": list(values), "b": list(values - 2)}))
    assert table.loc["b", ["score_x_diff", "score_x_low", "score_x_high"]].tolist() == pytest.approx([-2, -2, -2])
    assert table.loc["a", ["score_x_diff", "score_x_low"]].isna().all()
    (row,) = differences(_frame({"a": list(values), "b": list(values - 2)})).to_dict("records")
    assert (row["a"], row["b"], row["items"], round(row["diff"], 6)) == ("a", "b", 50, 2)


def test_only_what_both_answered_is_compared() -> None:
    frame = _frame({"a": [1, 1, 5], "b": [0, 0, np.nan]})
    assert differences(frame)["diff"].tolist() == [1]
    assert differences(frame)["items"].tolist() == [2]


def test_repeats_are_no_new_observations() -> None:
    once = _frame({"a": [1, 2, 3], "b": [0, 2, 1]})
    many = pd.concat([once.assign(repeat=number) for number in range(10)], ignore_index=True)
    columns = ["score_x", "score_x_se", "score_x_diff", "score_x_low", "score_x_high"]
    pd.testing.assert_frame_equal(summary(many)[columns], summary(once)[columns])


def test_groups_are_compared_within_themselves() -> None:
    frame = pd.concat(
        [_frame({"a": [1, 1], "b": [0, 0]}), _frame({"a": [5, 5], "b": [7, 7]}, prompt="q", prompt_idx=1)]
    )
    table = summary(frame, by=["model", "prompt"])
    assert table.loc[("b", "p"), "score_x_diff"] == -1
    assert table.loc[("b", "q"), "score_x_diff"] == 2
    assert "score_x_diff" not in summary(frame, by="prompt").columns


def test_a_baseline_may_be_named() -> None:
    frame = _frame({"a": [1, 1], "b": [0, 0]})
    assert summary(frame, baseline="b").loc["a", "score_x_diff"] == 1
    with pytest.raises(ParameterError, match="the models are a, b"):
        summary(frame, baseline="c")


def test_a_single_model_has_nothing_to_differ_from() -> None:
    assert "score_x_diff" not in summary(_frame({"a": [1, 2]})).columns


def test_an_empty_frame_has_an_empty_summary() -> None:
    assert summary(_frame({"a": [1.0]})[:0]).empty


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"by": ["colour"]}, id="column"),
        pytest.param({"by": []}, id="nothing"),
        pytest.param({"resamples": 0}, id="resamples"),
    ],
)
def test_bad_options_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        summary(_frame({"a": [1]}), **options)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(0, 5))
def test_intervals_hold_the_mean_and_can_be_repeated(values: list[float], seed: int) -> None:
    interval = bootstrap_interval(np.array(values), seed, 200)
    assert interval == bootstrap_interval(np.array(values), seed, 200)
    assert min(values) - 1e-6 <= interval.low <= interval.high <= max(values) + 1e-6


def test_intervals_are_as_wide_as_theory_says() -> None:
    items = np.random.default_rng(0).normal(0, 1, 400)
    interval = bootstrap_interval(items, 0, 4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_many_items_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_interval(np.arange(50.0), 3, 100)
    monkeypatch.setattr("nbllm.frames.compare.summary._BLOCK", 120)
    assert bootstrap_interval(np.arange(50.0), 3, 100) == whole
