"""What `map` shows is true of every verb: they share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbllm.core import Chunk, GenerateRequest, Message, Usage
from nbllm.errors import ConstraintError, EngineError, InvalidRequestError, ParameterError
from nbllm.frames.landing import MisfitError
from nbllm.frames.templates import TemplateError
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from tests.frames.answering import answering
from tests.frames.verbs.replying import ReplyingEngine, replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
DETAILS = ["error", "finish_reason", "input_tokens", "output_tokens", "duration_ms", "cached"]


def _shouting() -> tuple[Model, ReplyingEngine]:
    def reply(prompt: str) -> Any:
        return EngineError("it broke") if "bad" in prompt else prompt.upper()

    return replying(reply)


def _words(*words: Any, index: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"word": pd.Series(words, dtype="str", index=index)})


def test_map_keeps_duplicate_index_order_and_nulls() -> None:
    model, engine = _shouting()
    frame = _words("b", None, "a", "b", index=[5, 5, 1, 0])
    frame.attrs["kept"] = 1
    result = frame.llm.map("say {word}", model=model, **QUIET)
    assert list(result.index) == [5, 5, 1, 0]
    assert result["response"].dtype == "str"
    assert result["response"].fillna("-").tolist() == ["SAY B", "-", "SAY A", "SAY B"]
    assert result.attrs == {"kept": 1}
    assert engine.prompts == ["say a", "say b"]
    assert list(frame.columns) == ["word"]


def test_map_with_a_multiindex_of_columns_keeps_it() -> None:
    model, _ = _shouting()
    frame = pd.DataFrame({("a", "x"): [1], ("b", "y"): ["t"]})
    with pytest.raises(ParameterError, match="cannot name columns of several levels"):
        frame.llm.map("{}", model=model, **QUIET)
    result = frame.llm.classify(("b", "y"), ["L", "M"], model=replying(lambda _: "M")[0], **QUIET)
    assert result.columns.tolist() == [("a", "x"), ("b", "y"), ("label", "")]
    assert result["label"].tolist() == ["M"]


def test_series_map_gives_a_series_and_with_details_a_frame() -> None:
    model, _ = _shouting()
    series = pd.Series(["a", None], index=["x", "x"], name="word")
    result = series.llm.map("say {} or {word}", model=model, **QUIET)
    assert isinstance(result, pd.Series)
    assert result.tolist()[:1] == ["SAY A OR A"]
    assert list(result.index) == ["x", "x"]
    table = series.llm.map("say {}", model=model, details=True, into="said", **QUIET)
    assert list(table.columns) == ["said", *(f"said_{name}" for name in DETAILS)]


def test_details_have_their_dtypes_and_say_what_was_cached(tmp_path: Path) -> None:
    model, engine = answering(tmp_path)
    options = {"model": model, "details": True, "cache": AnswerCache(tmp_path / "answers"), "progress": False}
    frame = _words("a", None, "break")
    first = frame.llm.map("say {word}", **options)
    assert first.dtypes.astype(str).to_dict() == {
        "word": "str",
        "response": "str",
        "response_error": "str",
        "response_finish_reason": "str",
        "response_input_tokens": "Int64",
        "response_output_tokens": "Int64",
        "response_duration_ms": "Float64",
        "response_cached": "boolean",
    }
    assert first["response_error"].fillna("-").tolist() == ["-", "-", "say break broke"]
    assert first["response_finish_reason"].fillna("-").tolist() == ["stop", "-", "error"]
    assert first["response_input_tokens"].fillna(0).tolist() == [5, 0, 0]
    assert first["response_cached"].fillna(False).tolist() == [False, False, False]
    second = frame.llm.map("say {word}", **options)
    assert second["response_cached"].fillna(False).tolist() == [True, False, False]
    assert len(engine.requests) == 3


@pytest.mark.parametrize("rows", [[], [None, None]], ids=["empty", "all null"])
def test_a_frame_without_a_row_to_ask_needs_no_model(rows: list[None]) -> None:
    frame = _words(*rows)
    result = frame.llm.map("{word}", model="no-such-model", details=True)
    assert list(result.columns) == ["word", "response", *(f"response_{name}" for name in DETAILS)]
    assert result["response"].dtype == "str"
    assert result["response_cached"].dtype == "boolean"
    assert len(result) == len(rows)
    typed = frame.llm.extract("word", "name, age int, tags list[str]", model="no-such-model")
    assert typed.dtypes.astype(str).tolist() == ["str", "str", "Int64", "object"]


def test_limit_asks_the_first_rows_only() -> None:
    model, engine = _shouting()
    result = _words("a", "b", "c").llm.map("{word}", model=model, limit=2, **QUIET)
    assert result["response"].fillna("-").tolist() == ["A", "B", "-"]
    assert engine.prompts == ["a", "b"]


def test_failed_rows_are_kept_with_their_error() -> None:
    result = _words("a", "bad").llm.map("{word}", model=_shouting()[0], **QUIET)
    assert list(result.columns) == ["word", "response", "response_error"]
    assert result["response"].fillna("-").tolist() == ["A", "-"]
    assert result["response_error"].fillna("-").tolist() == ["-", "it broke"]


def test_failed_rows_are_skipped_with_duplicate_index() -> None:
    result = _words("a", "bad", None, index=[0, 0, 0]).llm.map("{word}", model=_shouting()[0], on_error="skip", **QUIET)
    assert list(result.columns) == ["word", "response"]
    assert result["response"].fillna("-").tolist() == ["A", "-"]


def test_failed_rows_raise_when_asked_to() -> None:
    with pytest.raises(EngineError, match=r"^row 1: it broke$"):
        _words("a", "bad").llm.map("{word}", model=_shouting()[0], on_error="raise", **QUIET)


@pytest.mark.parametrize(
    ("prompt", "words", "says"),
    [
        pytest.param("{word}", ["a", " "], "^row 1: the prompt is empty", id="no request"),
        pytest.param("{word:.2f}", [None, "a"], "^row 1: prompt: ", id="no prompt"),
        pytest.param("say {word}", ["a", "refuse"], "^row 1: say refuse was refused", id="refused by the engine"),
    ],
)
def test_raised_error_says_which_row_it_is_of(prompt: str, words: list[Any], says: str, tmp_path: Path) -> None:
    model, _ = answering(tmp_path)
    with pytest.raises(InvalidRequestError, match=says):
        _words(*words).llm.map(prompt, model=model, on_error="raise", **QUIET)
    kept = _words(*words).llm.map(prompt, model=model, **QUIET)["response_error"].iloc[1]
    assert not kept.startswith("row")


@pytest.mark.parametrize(
    ("index", "says"),
    [
        pytest.param([0, 1], r"^row 1: it broke$", id="the places"),
        pytest.param(["x", "y"], r"^row 1 \(index 'y'\): it broke$", id="texts"),
        pytest.param([5, 6], r"^row 1 \(index 6\): it broke$", id="other numbers"),
        pytest.param([0, pd.NA], r"^row 1 \(index <NA>\): it broke$", id="null"),
    ],
)
def test_raised_error_has_the_rows_label(index: list[Any], says: str) -> None:
    with pytest.raises(EngineError, match=says):
        _words("a", "bad", index=index).llm.map("{word}", model=_shouting()[0], on_error="raise", **QUIET)


def test_skipped_rows_are_told_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    _words("a", "bad", "c", "bad").llm.map("{word}", model=_shouting()[0], on_error="skip", **QUIET)
    assert caplog.messages == ["2 of 4 rows failed and are left out; the first is row 1: it broke"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"regex": "[0-9"}, "the regular expression is not supported", id="regex"),
        pytest.param({"grammar": "start: nothing"}, "the Lark grammar is not supported", id="grammar"),
    ],
)
def test_form_that_is_none_is_refused_before_any_row(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConstraintError, match=says):
        _words("a").llm.map("{word}", model="no-such-model", **options)


def test_answer_of_a_form_that_is_cut_says_where() -> None:
    model, _ = replying(lambda _: Chunk(text="12", finish_reason="length", usage=Usage(5, 2)))
    result = _words("a").llm.map("{word}", response_format=int, max_tokens=2, model=model, **QUIET)
    assert result["response_error"].iloc[0] == (
        "the answer was cut at 2 tokens, before it had its form; give a larger max_tokens="
    )


def test_value_that_does_not_fit_its_column_is_an_error() -> None:
    model, _ = replying(lambda _: "1e400")
    options = {"response_format": {"type": "number"}, "model": model, **QUIET}
    result = _words("a").llm.map("{word}", **options)
    assert result["response_error"].iloc[0] == "Infinity does not fit into a column of Float64"
    with pytest.raises(MisfitError, match=r"^row 0: Infinity"):
        _words("a").llm.map("{word}", on_error="raise", **options)


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        pytest.param("You know {word}.", ["system: {word} is sent as it is, for a system message is the same for all "
                     "rows; columns are filled in in the prompt"], id="a column"),
        pytest.param('Write {"word": 1}.', [], id="JSON"),
    ],
)  # fmt: skip
def test_system_is_sent_as_it_is(system: str, messages: list[str], caplog: pytest.LogCaptureFixture) -> None:
    model, engine = _shouting()
    _words("a").llm.map("{word}", system=system, model=model, **QUIET)
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert (request.messages or ())[0] == Message("system", system)
    assert caplog.messages == messages


def test_whole_numbers_are_names_of_columns() -> None:
    model, _ = _shouting()
    frame = pd.DataFrame([["a", "b", "c"]], columns=[0, 1, "1"])
    assert frame.llm.map("{0}{1} {7}", model=model, **QUIET)["response"].tolist() == ["AC {7}"]
    assert frame[[0, 1]].llm.map("{0:>2}{1}", model=model, **QUIET)["response"].tolist() == [" AB"]
    with pytest.raises(ParameterError, match=r"write \{0\}"):
        frame.llm.map("hello")


def test_columns_of_several_levels_are_told_of() -> None:
    frame = pd.DataFrame({("a", "x"): ["t"]})
    with pytest.raises(ParameterError, match=r"^prompt: cannot name columns of several levels; .*'_'.join") as caught:
        frame.llm.map("say {a}")
    assert caught.value.param == "prompt"
    frame.columns = frame.columns.map("_".join)
    assert frame.llm.map("say {a_x}", model=_shouting()[0], **QUIET)["response"].tolist() == ["SAY T"]


def test_round_trip_through_parquet_asks_the_same() -> None:
    model, engine = _shouting()
    lists = pd.DataFrame({"tags": [["a", "b"], ["c"]]})
    arrays = pd.DataFrame({"tags": [np.array(tags, object) for tags in lists["tags"]]})
    for frame in (lists, arrays):
        frame.llm.map("say {tags}", model=model, **QUIET)
    assert engine.prompts == ['say ["a", "b"]'] * 2 + ['say ["c"]'] * 2


def test_a_cell_that_is_run_again_replaces_its_columns() -> None:
    model, _ = _shouting()
    options = {"into": "said", "overwrite": True, "model": model, **QUIET}
    frame = _words("a", "bad", index=[1, 1])
    frame.attrs["kept"] = 1
    first = frame.llm.map("say {word}", details=True, **options).assign(other=0)
    again = first.llm.map("now {word}", **options)
    assert list(again.columns) == ["word", "said", "other", "said_error"]
    assert again["said"].fillna("-").tolist() == ["NOW A", "-"]
    assert again.attrs == {"kept": 1}
    well = again.iloc[:1].llm.map("well {said}", **options)
    assert list(well.columns) == ["word", "said", "other"]
    assert well["said"].tolist() == ["WELL NOW A"]
    assert first["said"].iloc[0] == "SAY A"


def test_a_prompt_that_is_empty_in_one_row_fails_that_row_only() -> None:
    result = _words("a", " ").llm.map("{word}", model=_shouting()[0], **QUIET)
    assert result["response"].fillna("-").tolist() == ["A", "-"]
    assert "prompt is empty" in result["response_error"].iloc[1]


@pytest.mark.parametrize("name", ["response", "response_error"])
def test_an_existing_column_is_never_overwritten(name: str) -> None:
    frame = _words("a").assign(**{name: 1})
    with pytest.raises(
        ParameterError, match=r"^into: there is a column .* already; give another into=, or overwrite=True"
    ):
        frame.llm.map("{word}", model=_shouting()[0], **QUIET)
    assert frame.llm.map("{word}", model=_shouting()[0], into="said", **QUIET)["said"].tolist() == ["A"]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        pytest.param(lambda a: a.map("{wrod}"), TemplateError, r"did you mean \{word\}\?", id="near miss"),
        pytest.param(lambda a: a.map("hello"), ParameterError, r"write \{word\}", id="no column"),
        pytest.param(lambda a: a.map(3), ParameterError, "prompt: must be a text", id="no text"),
        pytest.param(lambda a: a.map("{word}", into=["x"]), ParameterError, "into: must be", id="into"),
        pytest.param(lambda a: a.map("{word}", temprature=1), ParameterError, "temperature", id="unknown option"),
        pytest.param(lambda a: a.map("{word}", detials=True), ParameterError, "details", id="unknown own option"),
        pytest.param(lambda a: a.map("{word}", n=2), ParameterError, "n: a row has room", id="n"),
        pytest.param(lambda a: a.map("{word}", stream=True), ParameterError, "stream: a table's", id="stream"),
        pytest.param(lambda a: a.map("{word}", overwrite=1), ParameterError, "overwrite: must be", id="overwrite"),
        pytest.param(lambda a: a.map("{word}", details=1), ParameterError, "details: must be", id="details"),
        pytest.param(lambda a: a.map("{word}", seed=-1), ParameterError, "seed", id="seed"),
        pytest.param(lambda a: a.map("{word}", on_error="ignore"), ParameterError, "on_error", id="on_error"),
        pytest.param(lambda a: a.map("{word}", examples=[1]), ParameterError, "must be a DataFrame", id="examples"),
        pytest.param(
            lambda a: a.map("{word}", examples=pd.DataFrame({"word": ["x"]})),
            ParameterError, "no column 'response'; it needs 'word', 'response'", id="examples without answers",
        ),
        pytest.param(
            lambda a: a.map("{word}", examples=pd.DataFrame({"word": ["x"], "response": [None]})),
            ParameterError, "no value in column 'response'", id="examples with nulls",
        ),
        pytest.param(lambda a: a.summarize("wrod"), ParameterError, "did you mean 'word'", id="column"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call: Any, error: type[InvalidRequestError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        call(_words("a").llm)
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["word", "word"])
    with pytest.raises(ParameterError, match="two columns 'word'"):
        frame.llm.map("{word}")


def test_examples_system_and_sampling_become_the_request() -> None:
    model, engine = _shouting()
    shots = pd.DataFrame({"word": ["x"], "said": ["X!"]})
    _words("a").llm.map("say {word}", model=model, into="said", examples=shots, system="be loud", max_tokens=7, **QUIET)
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert request.messages == (
        Message("system", "be loud"),
        Message("user", "say x"),
        Message("assistant", "X!"),
        Message("user", "say a"),
    )
    assert (request.sampling.temperature, request.sampling.max_tokens, request.priority) == (0, 7, "batch")


def test_a_rows_seed_comes_from_what_it_says() -> None:
    def seeds(frame: pd.DataFrame, **options: Any) -> dict[str, int | None]:
        model, engine = _shouting()
        frame.llm.map("{word}", model=model, temperature=1, **options, **QUIET)
        asked = [request for request in engine.requests if isinstance(request, GenerateRequest)]
        return {(request.messages or ())[-1].content: request.sampling.seed for request in asked}

    assert seeds(_words("a", "b")) == seeds(_words("b", "a"))
    assert seeds(_words("a"), seed=1) != seeds(_words("a"))
    assert len(set(seeds(_words("a", "b")).values())) == 2


@pytest.mark.parametrize(
    ("shape", "said", "dtype", "value"),
    [
        pytest.param(["yes", "no"], "yes", "str", "yes", id="choices"),
        pytest.param({"type": "integer"}, "3", "Int64", 3, id="a number"),
        pytest.param("name, age int", '{"name": "x", "age": 2}', "object", {"name": "x", "age": 2}, id="fields"),
    ],
)
def test_response_format_types_the_column(shape: Any, said: str, dtype: str, value: Any) -> None:
    model, engine = replying(lambda _: said)
    shots = pd.DataFrame({"word": ["x"], "response": [value]})
    result = _words("a", None).llm.map("{word}", model=model, response_format=shape, examples=shots, **QUIET)
    assert result["response"].dtype == dtype
    assert result["response"].iloc[0] == value
    assert result["response"].isna().tolist() == [False, True]
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    written = (request.messages or ())[1].content
    assert written == said if isinstance(value, str) else json.loads(written) == value


def test_an_answer_that_is_cut_before_its_shape_is_an_error() -> None:
    cut = Chunk(text='{"name": "x', finish_reason="length")
    result = _words("a").llm.extract("word", "name", model=replying(lambda _: cut)[0], **QUIET)
    assert result["name"].isna().all()
    assert "max_tokens" in result["extract_error"].iloc[0]


def test_background_gives_a_job_for_the_same_frame() -> None:
    model, _ = _shouting()
    frame = _words("a", "b")
    job = frame.llm.map("{word}", model=model, background=True, **QUIET)
    frame["word"] = "changed"
    result = job.result(timeout=20)
    assert result["response"].tolist() == ["A", "B"]
    assert result["word"].tolist() == ["a", "b"]
    assert job.progress == (2, 2)


def test_an_interrupt_can_give_what_is_there() -> None:
    class Interrupted(ScriptedEngine):
        def submit(self, request: Any, on_chunk: Any) -> Any:
            if len(self.requests) == 1:
                raise KeyboardInterrupt
            self.enqueue("done")
            return super().submit(request, on_chunk)

    frame = _words("a", "b", "c")
    options = {**QUIET, "max_concurrency": 1}
    result = frame.llm.map("{word}", model=Model(Interrupted()), on_interrupt="return", **options)
    assert result["response"].notna().sum() == 1
    with pytest.raises(KeyboardInterrupt):
        frame.llm.map("{word}", model=Model(Interrupted()), **options)


def test_values_of_other_kinds_are_written_plainly() -> None:
    model, engine = _shouting()
    frame = pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan], "tags": [["p", "q"], []], "unit price": [1.25, 2]})
    frame.llm.map("{n} {x} {tags} {unit price:.1f} {{n}}", model=model, **QUIET)
    assert engine.prompts == ['1 0.5 ["p", "q"] 1.2 {n}']
