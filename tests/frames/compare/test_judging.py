from __future__ import annotations

import json
from typing import Any

import pytest

import nbllm
from nbllm.core import GenerateRequest
from nbllm.errors import ParameterError
from nbllm.frames.compare.export import to_jsonl
from nbllm.frames.compare.judging import judge, pairwise
from nbllm.session.model import Model
from tests.frames.compare.talking import asked, requests_of, talking


def _frame() -> Any:
    models = [talking("good", lambda request: f"good {asked(request)}"), talking("bad", lambda request: "bad")]
    return nbllm.compare(["1", "2"], models, {"temperature": [0, 1]}, cache=False)


def _honest(request: GenerateRequest) -> str:
    return "A" if "Answer A:\ngood" in asked(request) else "B"


def test_grades_are_held_to_the_scale() -> None:
    grader = talking("grader", lambda request: "3" if "good" in asked(request).split("grade:")[-1] else "1")
    frame = judge(_frame(), "Is it good?", model=grader, low=1, high=3, cache=False)
    assert frame["score_judge"].tolist() == [3.0] * 4 + [1.0] * 4
    request = requests_of(grader)[0]
    assert request.constraint is not None
    assert request.constraint.source == '["1", "2", "3"]'
    assert request.sampling.temperature == 0
    assert "nbllm" in frame.attrs


def test_a_judge_is_shown_the_right_answer() -> None:
    grader = talking("grader", lambda request: "5")
    nbllm.compare("hi", talking("m"), expected=["hello"], judge={"rubric": "right", "model": grader}, cache=False)
    assert "The right answer:\nhello" in asked(requests_of(grader)[0])


def test_a_judge_that_fails_costs_only_the_scores() -> None:
    frame = nbllm.compare("hi", talking("m"), judge={"rubric": "right", "model": "no-such-model"}, cache=False)
    assert frame["response"].tolist() == ["re: hi"]
    assert "score_judge" not in frame.columns


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        pytest.param(_honest, "good", id="decided"),
        pytest.param(lambda request: "A", "tie", id="always the first"),
        pytest.param(lambda request: "B", "tie", id="always the second"),
    ],
)
def test_pairs_are_shown_in_both_orders(reply: object, winner: str) -> None:
    referee = talking("referee", reply)  # type: ignore[arg-type]
    table = pairwise(_frame(), "good", "bad", "better", model=referee, cache=False)
    assert table["winner"].tolist() == [winner] * 4
    assert table["param_temperature"].tolist() == [0, 1, 0, 1]
    texts = [asked(request) for request in requests_of(referee)]
    assert sum("Answer A:\nbad" in text for text in texts) == sum("Answer B:\nbad" in text for text in texts)


def test_pairs_are_lines_for_training() -> None:
    table = pairwise(_frame(), "good", "bad", "better", model=talking("referee", _honest), cache=False)
    lines = [json.loads(line) for line in (to_jsonl(table, format="dpo") or "").splitlines()]
    assert len(lines) == 4
    assert all("good" in line["chosen"][-1]["content"] and "bad" in line["rejected"][-1]["content"] for line in lines)


def test_pairs_need_two_models_that_are_there() -> None:
    with pytest.raises(ParameterError, match="the models are good, bad"):
        pairwise(_frame(), "good", "worse")
    with pytest.raises(ParameterError, match="same model"):
        pairwise(_frame(), "good", "good")


@pytest.mark.model
def test_a_real_judge_gives_a_grade(smollm2: Model) -> None:
    frame = nbllm.compare("Say hello.", smollm2, {"max_tokens": 8}, judge="friendly", cache=False)
    assert frame["score_judge"].between(1, 5).all()
