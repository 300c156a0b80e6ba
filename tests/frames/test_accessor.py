"""What the accessors do with a call: which verb it is, and whose."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pandas as pd
import pytest

from nbllm.errors import NbllmError, ParameterError
from nbllm.frames import using
from nbllm.frames.accessor import FrameAccessor, SeriesAccessor
from nbllm.frames.compare.columns import REQUIRED
from nbllm.frames.compare.methods import HOMES
from nbllm.session.options import OPTIONS, TOOLS
from tests.frames.verbs.replying import replying
from tests.frames.wrong import wrong_models

QUIET: dict[str, Any] = {"cache": False, "progress": False}
RESULTS = pd.DataFrame({name: ["x"] for name in REQUIRED})
OF_RESULTS = ("grid", "summary", "pairwise", "plot", "to_csv", "to_html", "to_jsonl")


def test_accessors_are_on_the_classes() -> None:
    assert pd.DataFrame.llm is FrameAccessor
    assert pd.Series.llm is SeriesAccessor
    assert "2 rows" in repr(pd.DataFrame({"a": [1, 2]}).llm)
    assert "1 values" in repr(pd.Series([1]).llm)


@pytest.mark.parametrize("kind", [FrameAccessor, SeriesAccessor])
def test_every_verb_says_what_it_does(kind: type) -> None:
    verbs = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    assert {"map", "classify", "extract", "filter", "score", "judge", "summarize", "translate"} <= set(verbs)
    assert all(inspect.getdoc(verb) for verb in verbs.values())


def test_options_are_listed_by_name() -> None:
    """Whoever looks here should not have to guess where they are."""
    text = inspect.getdoc(FrameAccessor) or ""
    unlisted = {"n", "seed", "logprobs", "top_logprobs", "cache_prompt", "continue_final", *TOOLS}
    assert [name for name in (*OPTIONS, "model", "into", "cache") if name not in text and name not in unlisted] == []


@wrong_models
def test_wrong_model_of_a_job_is_refused_at_once(model: Any, says: str) -> None:
    frame = pd.DataFrame({"a": ["x"]})
    for rows in (frame, frame["a"]):
        with pytest.raises(NbllmError, match=says):
            rows.llm.summarize(*["a"][: rows.ndim - 1], background=True, model=model)


def test_interrupt_before_any_row_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(using, "load", interrupted)
    monkeypatch.setattr(using, "loaded_models", list)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        pd.DataFrame({"a": ["x"]}).llm.map("{a}", model="smollm2", **QUIET)
    assert interrupt.value._render_traceback_() == ["KeyboardInterrupt: it was stopped; run it again"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["summary", "differences", "agreement", "confusion", "plot", "to_jsonl"])
def test_what_needs_a_comparison_refuses_other_frames(name: str) -> None:
    with pytest.raises(ParameterError, match=r"no result of nbllm\.compare"):
        getattr(pd.DataFrame({"a": [1]}).llm, name)()


def test_grid_of_another_frame_needs_its_columns_named() -> None:
    frame = pd.DataFrame({"topic": ["bees"], "text": ["They hum."]})
    assert "They hum." in repr(frame.llm.grid(rows="topic", cols=[], values="text"))
    with pytest.raises(ParameterError, match="no column 'input'"):
        frame.llm.grid()


@pytest.mark.parametrize("name", [*OF_RESULTS, "score", "judge"])
def test_views_of_a_comparison_are_given_the_frame_and_the_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = import_module(HOMES[name])
    monkeypatch.setattr(home, name, lambda frame, *args, **options: (len(frame), args, options))
    assert getattr(RESULTS.llm, name)("equals", more=1) == (1, ("equals",), {"more": 1})


def test_score_of_a_comparison_with_a_column_in_the_rubric_is_about_its_rows() -> None:
    model, _ = replying(lambda _: "2")
    assert RESULTS.llm.score("How polite is {response}?", model=model, **QUIET)["score"].tolist() == [2]


def test_judge_of_a_comparison_with_an_answer_is_about_its_rows() -> None:
    model, _ = replying(lambda _: "3")
    assert RESULTS.llm.judge(answer="response", model=model, **QUIET)["judge_score"].tolist() == [3]


def test_score_of_another_frame_with_a_function_says_what_it_wants() -> None:
    with pytest.raises(ParameterError, match="rubric: must be a text"):
        pd.DataFrame({"a": [1]}).llm.score(len)
