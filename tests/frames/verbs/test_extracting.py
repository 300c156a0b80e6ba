from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pydantic
import pytest

from nbllm.core import GenerateRequest
from nbllm.errors import ConstraintError, EngineError, NbllmError, ParameterError
from nbllm.frames.landing import MisfitError
from nbllm.session.cache import AnswerCache
from tests.frames.verbs.replying import replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame({"text": ["Ann, 3", None]})


class Person(pydantic.BaseModel):
    name: str
    age: int


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


@pytest.mark.parametrize("schema", ["name, age int", Person, SCHEMA], ids=["words", "pydantic", "JSON Schema"])
def test_fields_become_typed_columns(schema: Any) -> None:
    model, engine = replying(lambda _: '{"name": "Ann", "age": 3}')
    result = FRAME.llm.extract("text", schema, prefix="p_", model=model, **QUIET)
    assert result.dtypes.astype(str).to_dict() == {"text": "str", "p_name": "str", "p_age": "Int64"}
    assert result["p_age"].iloc[0] == 3
    assert result["p_age"].isna().tolist() == [False, True]
    (prompt,) = engine.prompts
    assert prompt.endswith("\n\nText:\nAnn, 3")
    assert "name" in prompt
    assert "age" in prompt


def test_what_a_field_means_is_told() -> None:
    model, engine = replying(lambda _: '{"name": "Ann"}')
    FRAME.llm.extract("text", "name: the buyer's first name", model=model, **QUIET)
    assert "name (string): the buyer's first name" in engine.prompts[0]


def test_series_gives_a_frame_with_its_errors() -> None:
    series = pd.Series(["Ann", "broken"])
    model, _ = replying(lambda prompt: EngineError("it broke") if "broken" in prompt else '{"name": "Ann"}')
    result = series.llm.extract("name", model=model, **QUIET)
    assert list(result.columns) == ["name", "extract_error"]
    assert result.fillna("-").to_numpy().tolist() == [["Ann", "-"], ["-", "it broke"]]
    assert list(series.iloc[:1].llm.extract("name", model=model, **QUIET).columns) == ["name"]


def test_examples_are_written_as_the_model_would() -> None:
    model, engine = replying(lambda _: '{"day": "2026-01-02", "n": 1, "tags": []}')
    shots = pd.DataFrame({"text": ["x"], "day": pd.to_datetime(["2025-12-31"]), "n": [2], "tags": [["a"]]})
    result = FRAME.llm.extract("text", "day date, n int, tags list[str]", examples=shots, model=model, **QUIET)
    assert result["day"].iloc[0] == datetime.datetime(2026, 1, 2)
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert json.loads((request.messages or ())[1].content) == {"day": "2025-12-31", "n": 2, "tags": ["a"]}


class Node(pydantic.BaseModel):
    name: str
    child: Node | None = None


def test_model_that_holds_itself_has_columns_too() -> None:
    model, engine = replying(lambda _: '{"name": "Ann", "child": {"name": "Bob", "child": null}}')
    result = FRAME.llm.extract("text", Node, model=model, **QUIET)
    assert result[["name", "child"]].iloc[0].tolist() == ["Ann", {"name": "Bob", "child": None}]
    assert "JSON Schema" in engine.prompts[0]


def test_field_that_may_be_missing_is_told_and_typed() -> None:
    model, engine = replying(lambda _: '{"name": "Ann", "age": null}')
    result = FRAME.llm.extract("text", "name: str, age: int?", model=model, **QUIET)
    assert result.dtypes.astype(str).to_dict() == {"text": "str", "name": "str", "age": "Int64"}
    assert "- name (string)\n- age (integer or null)\n" in engine.prompts[0]


OVER = '{"name": "Ann", "age": 9223372036854775808}'
FREE = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


def test_value_that_does_not_fit_is_an_error_and_the_others_stay() -> None:
    model, _ = replying(lambda _: OVER)
    result = FRAME.llm.extract("text", FREE, model=model, **QUIET)
    assert list(result.columns) == ["text", "name", "age", "extract_error"]
    assert result["name"].fillna("-").tolist() == ["Ann", "-"]
    assert result["age"].isna().all()
    problem = "age: 9223372036854775808 does not fit into a column of Int64"
    assert result["extract_error"].fillna("-").tolist() == [problem, "-"]
    with pytest.raises(MisfitError, match=f"^row 0: {problem}$"):
        FRAME.llm.extract("text", FREE, model=model, on_error="raise", **QUIET)
    assert FRAME.llm.extract("text", FREE, model=model, on_error="skip", **QUIET)["text"].isna().tolist() == [True]


def test_answer_from_the_cache_is_looked_at_too(tmp_path: Path) -> None:
    model, engine = replying(lambda _: OVER)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not really")
    engine.info = replace(engine.info, model=replace(engine.info.model, path=str(file)))
    cache = AnswerCache(tmp_path / "answers")
    for _ in range(2):
        result = FRAME.llm.extract("text", FREE, model=model, cache=cache, progress=False)
        assert "does not fit" in result["extract_error"].iloc[0]
    assert len(engine.requests) == 1


def test_answer_of_a_server_that_keeps_to_no_form_is_an_error() -> None:
    model, _ = replying(lambda _: "Ann is three")
    result = FRAME.llm.extract("text", "name", model=model, **QUIET)
    assert result["extract_error"].iloc[0] == "the answer is not the JSON that was asked for: 'Ann is three'"


@pytest.mark.parametrize(
    ("schema", "options", "most"),
    [
        pytest.param("name, age int", {}, 512, id="a few fields"),
        pytest.param(", ".join(f"f{place}" for place in range(20)), {}, 20 * 64, id="many fields"),
        pytest.param("name", {"max_tokens": 9}, 9, id="given"),
        pytest.param("name", {"max_tokens": None}, None, id="as far as it goes"),
    ],
)
def test_answer_of_a_form_has_an_end(schema: str, options: dict[str, Any], most: int | None) -> None:
    model, engine = replying(lambda _: "{}")
    FRAME.llm.extract("text", schema, model=model, **options, **QUIET)
    (request,) = engine.requests
    assert isinstance(request, GenerateRequest)
    assert request.sampling.max_tokens == most


@pytest.mark.parametrize(
    ("schema", "options", "says"),
    [
        pytest.param(["a", "b"], {}, "schema: must have fields", id="choices"),
        pytest.param(None, {}, "schema: must have fields", id="nothing"),
        pytest.param("name", {"prefix": 3}, "prefix: must be a text", id="prefix"),
        pytest.param("n int, text", {}, "prefix: there is a column 'text' already; give another prefix=", id="taken"),
        pytest.param("name", {"into": "x"}, "into: is for one new column, .*; give prefix=", id="into"),
        pytest.param("name", {"response_format": "x"}, "this verb says itself", id="another shape"),
    ],
)
def test_bad_input_is_one_line(schema: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        FRAME.llm.extract("text", schema, **options)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        pytest.param({"a": 1}, "^schema: .* is not a JSON Schema", id="a dict"),
        pytest.param(Person(name="Ann", age=3), "^schema: give the class Person", id="an object"),
        pytest.param("age integer", "^schema: the type", id="a word"),
    ],
)
def test_bad_schema_is_called_what_it_is_called_here(schema: Any, says: str) -> None:
    with pytest.raises(ConstraintError, match=says):
        FRAME.llm.extract("text", schema)


def test_unknown_option_is_told_without_those_that_are_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        FRAME.llm.extract("text", "name", zzzzzz=1)
    assert "temperature" in str(caught.value)
    assert "response_format" not in str(caught.value)


def test_a_schema_that_is_not_supported_is_refused_before_a_model_is_looked_for() -> None:
    with pytest.raises(NbllmError, match="uniqueItems"):
        FRAME.llm.extract(
            "text", {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, model="no-such"
        )
