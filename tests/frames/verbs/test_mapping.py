"""What `map` shows is true of every verb: they share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbllm.core import Chunk, GenerateRequest, Message
from nbllm.errors import EngineError, InvalidRequestError, ParameterError
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
    with pytest.raises(ParameterError, match="names no column"):
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
    with pytest.raises(EngineError, match="it broke"):
        _words("a", "bad").llm.map("{word}", model=_shouting()[0], on_error="raise", **QUIET)


def test_a_prompt_that_is_empty_in_one_row_fails_that_row_only() -> None:
    result = _words("a", " ").llm.map("{word}", model=_shouting()[0], **QUIET)
    assert result["response"].fillna("-").tolist() == ["A", "-"]
    assert "prompt is empty" in result["response_error"].iloc[1]


@pytest.mark.parametrize("name", ["response", "response_error"])
def test_an_existing_column_is_never_overwritten(name: str) -> None:
    frame = _words("a").assign(**{name: 1})
    with pytest.raises(ParameterError, match=r"^into: there is a column .* already; give another into="):
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
