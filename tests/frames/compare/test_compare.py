from __future__ import annotations

import inspect
import itertools
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nbllm
from nbllm.errors import EngineDeadError, InvalidRequestError, ModelLoadError, ModelNotFoundError, ParameterError
from nbllm.frames.compare.columns import DTYPES, require_results, turns_of
from nbllm.frames.compare.compare import planned
from nbllm.frames.jobs import Job
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from tests.frames.compare.talking import Garage, asked, echo, requests_of, talking

_DATA = pd.DataFrame({"topic": ["rain", "sun"], "n": [1, 2]}, index=[7, 7])


def _compare(*arguments: Any, **options: Any) -> Any:
    return nbllm.compare(*arguments, **{"cache": False, **options})


def test_every_cell_is_a_row_of_each_model() -> None:
    models = [talking("a"), talking("b")]
    frame = _compare(
        {"short": "{topic}?", "long": "Explain {topic} {n}"}, models, {"temperature": [0, 0.8]}, _DATA, repeat=2
    )
    keys = ["model", "prompt", "case", "param_temperature", "repeat"]
    wanted = itertools.product(["a", "b"], ["short", "long"], [0, 1], [0, 0.8], [0, 1])
    assert set(frame[keys].astype({"model": str, "prompt": str}).itertuples(index=False, name=None)) == set(wanted)
    assert len(frame) == 32
    assert (frame["response"] == "re: " + frame["input"]).all()
    assert frame["var_topic"].tolist() == [("rain", "sun")[case] for case in frame["case"]]
    assert frame["error"].isna().all()
    assert frame["response_id"].is_unique


def test_columns_have_their_dtypes_also_when_nothing_was_asked() -> None:
    frame = _compare("{topic}", [talking("a")], data=_DATA[:0])
    assert frame.empty
    for part in (frame, _compare("hi", talking("a"))):
        assert {name: str(part[name].dtype) for name in DTYPES} == dict(DTYPES)
        require_results(part)


def test_system_and_messages_are_told_apart() -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "{topic}"}]
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    frame = _compare({"one": turns, "many": chat}, talking("a"), data=_DATA[:1])
    assert frame["system"].tolist() == ["be brief", np.nan]
    assert frame["input"][0] == "rain"
    assert turns_of(frame["input"][1]) == chat


def test_missing_values_ask_nothing() -> None:
    model = talking("a")
    frame = _compare("{topic}", model, data=pd.DataFrame({"topic": [None, "rain", float("nan")]}))
    assert [asked(request) for request in requests_of(model)] == ["rain"]
    assert frame["response"].isna().tolist() == [True, False, True]
    assert frame["error"].isna().all()
    assert frame["finish_reason"].isna().tolist() == [True, False, True]


def test_texts_of_a_list_are_taken_as_they_are_without_data() -> None:
    frame = _compare([r"\frac{a}{b} {{x}}", "{topic}"], talking("a"))
    assert frame["input"].tolist() == [r"\frac{a}{b} {{x}}", "{topic}"]


# ---- seeds


def test_seeds_come_from_content_and_not_from_order() -> None:
    one = _compare("{topic}", talking("a"), {"temperature": 1}, _DATA, repeat=2)
    other = _compare("{topic}", talking("a"), {"temperature": 1}, _DATA[::-1], repeat=2)
    assert dict(zip(zip(one["input"], one["repeat"], strict=True), one["seed"], strict=True)) == dict(
        zip(zip(other["input"], other["repeat"], strict=True), other["seed"], strict=True)
    )
    assert one["seed"].is_unique
    assert set(one["seed"]).isdisjoint(_compare("{topic}", talking("a"), {"temperature": 1}, _DATA, seed=1)["seed"])


def test_repeats_are_asked_once_when_nothing_is_drawn() -> None:
    model = talking("a")
    frame = _compare("hi", model, {"temperature": [0, 1]}, repeat=3)
    assert len(requests_of(model)) == 1 + 3
    assert frame.groupby("param_temperature")["seed"].nunique().to_dict() == {0: 1, 1: 3}


def test_requests_have_the_parameters_of_their_row() -> None:
    model = talking("a")
    _compare("hi", model, [{"max_tokens": 5}, {"temperature": 0.5, "stop": ["x", "y"]}], system="s")
    samplings = [request.sampling for request in requests_of(model)]
    assert {(one.temperature, one.max_tokens, one.stop) for one in samplings} == {(0, 5, ()), (0.5, None, ("x", "y"))}


def test_parameters_that_are_lists_are_columns_of_json() -> None:
    frame = _compare("hi", talking("a"), {"stop": [["x"], ["y", "z"]]})
    assert frame["param_stop"].tolist() == ['["x"]', '["y", "z"]']


# ---- models in memory


def test_never_two_models_are_in_memory(garage: Garage) -> None:
    paths = [garage.add("a"), garage.add("b"), garage.add("judge", lambda request: "4")]
    frame = _compare(["1", "2"], paths[:2], {"temperature": [0, 1]}, judge={"rubric": "good", "model": paths[2]})
    assert garage.log == ["load a", "close a", "load b", "close b", "load judge", "close judge"]
    assert garage.most == 1
    assert frame["score_judge"].tolist() == [4.0] * 8
    assert frame["load_ms"].gt(0).all()


def test_a_model_that_was_loaded_before_is_left_alone(garage: Garage) -> None:
    before = garage.load(garage.add("mine"))
    frame = _compare("hi", [str(before.info.model.path), garage.add("b")])
    assert garage.log == ["load mine", "load b", "close b"]
    assert garage.in_memory == [before]
    assert frame["load_ms"].isna().tolist() == [True, False]


def test_models_stay_when_that_is_asked_for(garage: Garage) -> None:
    _compare("hi", [garage.add("a"), garage.add("b")], keep_loaded=True)
    assert [model.name for model in garage.in_memory] == ["a", "b"]


def test_a_judge_without_a_name_is_the_last_model_which_is_loaded_once(garage: Garage) -> None:
    reply = lambda request: "3" if request.constraint else echo(request)  # noqa: E731
    frame = _compare("hi", [garage.add("a"), garage.add("b", reply)], scorers=[("similarity", "hi")], judge="good")
    assert garage.log == ["load a", "close a", "load b", "close b"]
    assert frame["score_judge"].tolist() == [3, 3]
    assert frame["score_similarity"].between(-1, 1).all()


def test_what_is_cached_loads_no_model(garage: Garage, cache: AnswerCache) -> None:
    paths = [garage.add("a"), garage.add("b")]
    first = _compare("{topic}", paths, data=_DATA, cache=cache)
    garage.log.clear()
    again = _compare("{topic}", paths, data=_DATA, cache=cache)
    assert garage.log == []
    assert again["cached"].all()
    assert not first["cached"].any()
    for column in ("response", "response_id", "model_hash", "output_tokens"):
        assert again[column].tolist() == first[column].tolist()


# ---- failures


def test_a_model_that_cannot_be_loaded_leaves_the_others(garage: Garage) -> None:
    frame = _compare(["1", "2"], [garage.add("a"), garage.add("bad", None), garage.add("c")])
    assert frame["model"].tolist() == [name for name in ("a.gguf", "bad.gguf", "c.gguf") for _ in "12"]
    assert frame["response"].notna().tolist() == [True, True, False, False, True, True]
    failed = frame[frame["response"].isna()]
    assert failed["error"].str.contains("bad is damaged").all()
    assert (failed["finish_reason"] == "error").all()
    assert garage.log.count("load bad") == 1


def test_a_name_that_means_no_model_is_told_before_any_is_asked(garage: Garage) -> None:
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        _compare(["1"], [garage.add("a"), "no-such-model"])
    assert garage.log == []


def test_a_model_that_dies_in_the_middle_keeps_its_answers() -> None:
    answered = []

    def dies(request: Any) -> str | BaseException:
        answered.append(request)
        return echo(request) if len(answered) < 3 else EngineDeadError("gone")

    frame = _compare([str(number) for number in range(4)], [talking("a", dies), talking("b")])
    assert frame.groupby("model", observed=True)["response"].count().to_dict() == {"a": 2, "b": 4}
    assert frame["error"].dropna().tolist() == ["EngineDeadError: gone"] * 2


def test_errors_are_raised_or_left_out_when_asked(garage: Garage) -> None:
    paths = [garage.add("a"), garage.add("bad", None)]
    with pytest.raises(ModelLoadError):
        _compare("hi", paths, on_error="raise")
    assert garage.in_memory == []
    assert _compare("hi", paths, on_error="skip")["error"].isna().tolist() == [True]


def test_an_interrupt_keeps_what_is_done_and_frees_the_model(
    garage: Garage, cache: AnswerCache, capsys: pytest.CaptureFixture[str]
) -> None:
    hasty = [True]

    def stops(request: Any) -> str:
        if asked(request) == "2" and hasty[0]:
            raise KeyboardInterrupt
        return echo(request)

    paths = [garage.add("a"), garage.add("b", stops)]
    with pytest.raises(KeyboardInterrupt):
        _compare(["1", "2"], paths, cache=cache)
    assert garage.in_memory == []
    said = capsys.readouterr().out
    assert "run again to resume" in said
    assert "model 2 of 2" in said
    hasty.clear()
    hasty.append(False)
    again = _compare(["1", "2"], paths, cache=cache)
    assert again["cached"].sum() >= 2
    assert again["response"].notna().all()


@pytest.mark.model
def test_an_answer_cut_before_it_had_its_form_is_kept_beside_the_error(smollm2: Model) -> None:
    frame = _compare("Name a man.", smollm2, {"max_tokens": 2}, response_format="name, age int")
    assert frame["finish_reason"].tolist() == ["length"]
    assert "max_tokens" in frame["error"][0]


# ---- shape of the result


def test_answers_to_the_same_input_lie_together_when_asked() -> None:
    frame = _compare(["1", "2"], [talking("a"), talking("b")], order="input")
    assert frame["model"].tolist() == ["a", "b", "a", "b"]
    assert frame["input"].tolist() == ["1", "1", "2", "2"]


def test_limit_is_of_each_model() -> None:
    frame = _compare("{topic}", [talking("a"), talking("b")], data=_DATA, limit=1)
    assert frame[["model", "input"]].values.tolist() == [["a", "rain"], ["b", "rain"]]


def test_limit_takes_rows_of_data_with_all_that_is_asked_of_them() -> None:
    frame = _compare(["{topic}?", "{topic}!"], talking("a"), {"temperature": [0, 1]}, _DATA, repeat=2, limit=1)
    assert set(frame["input"]) == {"rain?", "rain!"}
    assert len(frame) == 2 * 2 * 2


def test_limit_takes_prompts_where_there_is_no_data() -> None:
    assert _compare(["1", "2", "3"], talking("a"), limit=2)["input"].tolist() == ["1", "2"]
    assert _compare(["1", "2", "3"], talking("a"), limit=0).empty


def test_progress_is_of_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    _compare(["1", "2"], [talking("a"), talking("b")], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)
    assert sorted(seen) == seen


def test_a_background_job_has_the_same_result() -> None:
    job = _compare(["1", "2"], [talking("a"), talking("b")], background=True)
    assert isinstance(job, Job)
    frame = job.result(timeout=30)
    assert frame["response"].tolist() == ["re: 1", "re: 2"] * 2
    assert job.progress == (4, 4)


def test_a_cancelled_job_says_so() -> None:
    def cancels(request: Any) -> str:
        jobs[0].cancel()
        return "x"

    is_known, jobs = threading.Event(), list[Job[Any]]()

    def waits(request: Any) -> str:
        is_known.wait(30)
        return cancels(request)

    jobs.append(_compare(["1", "2"], [talking("a", waits), talking("b")], background=True))
    is_known.set()
    with pytest.raises(CancelledError):
        jobs[0].result(timeout=30)


def test_a_watch_is_told_of_each_model_and_of_no_judge(garage: Garage) -> None:
    told: list[Any] = []

    class Watch:
        def began(self, name: str, total: int) -> None:
            told.append((name, total))

        def grew(self, ask: Any, chunk: Any) -> None:
            told.append(chunk.text)

        def show(self) -> None:
            pass

        def ended(self, error: str) -> None:
            told.append(error)

    plan, options = planned(
        "hi", [garage.add("a"), garage.add("bad", None)], judge={"rubric": "x", "model": talking("j", lambda _: "1")},
        cache=False,
    )  # fmt: skip
    frame = plan.run(replace(options, watch=Watch()))
    assert [one for one in told if one] == [("a.gguf", 1), "re: hi", ("bad.gguf", 1), "ModelLoadError: bad is damaged"]
    assert frame.attrs["nbllm"]["models"][1]["error"] == "ModelLoadError: bad is damaged"
    assert frame["score_judge"].notna().tolist() == [True, False]


# ---- the index of the data


def _with_index(index: Any) -> pd.DataFrame:
    return pd.DataFrame({"topic": ["rain", "sun"]}, index=index)


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        pytest.param(pd.Index(["m", "e"]), {"var_index": ["m", "e"]}, id="unnamed"),
        pytest.param(pd.Index([7, 7], name="id"), {"var_id": [7, 7]}, id="named, doubled"),
        pytest.param(pd.Index([0, 1], name="id"), {"var_id": [0, 1]}, id="named, counting"),
        pytest.param(pd.RangeIndex(1, 3), {"var_index": [1, 2]}, id="a part of another frame"),
        pytest.param(
            pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None]),
            {"var_x": ["a", "b"], "var_level_1": [1, 2]},
            id="levels",
        ),
        pytest.param(pd.Index(["m", "e"], name="topic"), {}, id="named as a column"),
        pytest.param(pd.RangeIndex(2), {}, id="counting"),
    ],
)
def test_an_index_leads_back_to_the_data(index: Any, columns: dict[str, list[Any]]) -> None:
    frame = _compare("{topic}", [talking("a")], data=_with_index(index))
    assert frame["var_topic"].tolist() == ["rain", "sun"]
    assert {name: frame[name].tolist() for name in frame if name.startswith("var_") and name != "var_topic"} == columns


def test_an_index_is_there_when_it_is_run_again() -> None:
    model = talking("a")
    frame = _compare("{topic}", model, data=_with_index(["m", "e"]), expected=["x", "y"])
    again = nbllm.replay(frame, models={"a": model}, progress=False)
    assert again["var_index"].tolist() == ["m", "e"]
    assert again["var_expected"].tolist() == ["x", "y"]
    assert again["response_id"].tolist() == frame["response_id"].tolist()


def test_an_index_is_no_column_of_a_prompt() -> None:
    with pytest.raises(ParameterError, match="no column 'index'"):
        _compare("{index}", talking("a"), data=_with_index(["m", "e"]))


# ---- bad input


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        pytest.param({"prompts": "{topik}", "data": _DATA}, "did you mean", id="near miss"),
        pytest.param({"prompts": "{topic}"}, "data", id="no data"),
        pytest.param({"prompts": []}, "at least one", id="no prompts"),
        pytest.param({"prompts": {}}, "at least one", id="no templates"),
        pytest.param({"prompts": 3}, "must be a text", id="number"),
        pytest.param({"prompts": ["x", ""]}, "empty", id="empty prompt"),
        pytest.param({"models": []}, "at least one", id="no models"),
        pytest.param({"models": ["a", "a"]}, "different names", id="twice"),
        pytest.param({"models": ["http://x/v1"]}, "nbllm.connect", id="url"),
        pytest.param({"params": {"temprature": [0]}}, "temperature", id="unknown parameter"),
        pytest.param({"params": {"temperature": []}}, "empty list", id="empty axis"),
        pytest.param({"params": {"temperature": ["hot"]}}, "temperature", id="no number"),
        pytest.param({"params": {"seed": [1]}}, "seed=", id="seed"),
        pytest.param({"params": {"n": 2}}, "repeat=", id="n"),
        pytest.param({"params": "hot"}, "dict of lists", id="text"),
        pytest.param({"params": {"system": "x"}, "system": "y"}, "one place", id="system twice"),
        pytest.param({"data": "rain"}, "DataFrame", id="data is text"),
        pytest.param({"data": [1]}, "dicts", id="data of numbers"),
        pytest.param({"data": {"a": [1], "b": [1, 2]}}, "length", id="ragged"),
        pytest.param({"data": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "two columns", id="doubled column"),
        pytest.param({"data": _DATA, "expected": "topi"}, "did you mean 'topic'", id="expected"),
        pytest.param({"data": _DATA, "expected": ["x"]}, "1 answers for 2", id="expected too short"),
        pytest.param({"expected": "topic"}, "data=", id="expected without data"),
        pytest.param({"scorers": "equals"}, "expected=", id="nothing expected"),
        pytest.param({"scorers": "equalz"}, "did you mean equals", id="unknown scorer"),
        pytest.param({"scorers": "contains:x"}, "('contains', 'x')", id="colon"),
        pytest.param({"scorers": "regex"}, "argument", id="no pattern"),
        pytest.param({"scorers": ("regex", "(")}, "regular expression", id="bad pattern"),
        pytest.param({"scorers": ("is_json", 1)}, "no argument", id="superfluous argument"),
        pytest.param({"scorers": lambda: 1}, "text", id="function of nothing"),
        pytest.param({"scorers": 3}, "must be", id="no scorer"),
        pytest.param({"scorers": ["length", "length"]}, "different names", id="two scorers"),
        pytest.param({"judge": {"model": "a"}}, "rubric", id="no rubric"),
        pytest.param({"judge": {"rubric": "x", "hi": 3}}, "hi", id="unknown key"),
        pytest.param({"judge": {"rubric": "x", "low": 5, "high": 1}}, "low", id="scale"),
        pytest.param({"repeat": 0}, "repeat", id="repeat"),
        pytest.param({"seed": "x"}, "seed", id="no seed"),
        pytest.param({"order": "row"}, "order", id="order"),
        pytest.param({"on_error": "ignore"}, "on_error", id="on_error"),
        pytest.param({"limit": -1}, "limit", id="limit"),
        pytest.param({"max_tokens": 3}, "params={'max_tokens': 3}", id="option of chat"),
        pytest.param({"max_token": 3}, "params={'max_tokens': 3}", id="option of chat, nearly"),
        pytest.param({"n": 3}, "repeat=", id="option of chat that is called otherwise"),
        pytest.param({"modles": ["a"]}, "did you mean models", id="argument, nearly"),
        pytest.param({"response_format": 3}, "response_format", id="response_format"),
    ],
)
def test_bad_input_asks_nothing(options: dict[str, Any], hint: str) -> None:
    model = talking("a")
    arguments = {"prompts": "hi", "models": [model], **options}
    with pytest.raises(InvalidRequestError) as caught:
        _compare(**arguments)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert requests_of(model) == []


def test_a_comparison_of_nothing_is_one_line() -> None:
    with pytest.raises(ParameterError, match=r"prompts: is missing; write compare\(prompts\)"):
        nbllm.compare()  # type: ignore[call-arg]


def test_the_signature_of_compare_is_its_own() -> None:
    assert list(inspect.signature(nbllm.compare).parameters)[:4] == ["prompts", "models", "params", "data"]


def test_what_is_no_comparison_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"nbllm\.compare"):
        require_results(_DATA)


@pytest.mark.model
def test_answers_of_a_real_model_have_their_form(smollm2: Model) -> None:
    frame = _compare(
        "Is {thing} an animal?",
        smollm2,
        data=[{"thing": "a cat"}, {"thing": "a stone"}],
        response_format=["yes", "no"],
        expected=["yes", "no"],
        scorers="equals",
    )
    assert frame["score_equals"].isin([0.0, 1.0]).all()
    assert frame["parsed"].isin(["yes", "no"]).all()
    assert frame["input_tokens"].gt(5).all()
    assert len(frame["model_hash"][0]) == 64
    assert frame.attrs["nbllm"]["models"][0]["template_hash"]
    assert "CPU" in frame.attrs["nbllm"]["machine"]["llama.cpp"]
