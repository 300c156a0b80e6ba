from __future__ import annotations

import datetime
import json
from typing import Any

import pandas as pd
import pydantic
import pytest

from nbllm.core import GenerateRequest
from nbllm.errors import EngineError, NbllmError, ParameterError
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


@pytest.mark.parametrize(
    ("schema", "options", "says"),
    [
        pytest.param(["a", "b"], {}, "schema: must have fields", id="choices"),
        pytest.param(None, {}, "schema: must have fields", id="nothing"),
        pytest.param("name", {"prefix": 3}, "prefix: must be a text", id="prefix"),
        pytest.param("n int, text", {}, "prefix: there is a column 'text' already; give another prefix=", id="taken"),
        pytest.param("name", {"response_format": "x"}, "this verb says itself", id="another shape"),
    ],
)
def test_bad_input_is_one_line(schema: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        FRAME.llm.extract("text", schema, **options)


def test_a_schema_that_is_not_supported_is_refused_before_a_model_is_looked_for() -> None:
    with pytest.raises(NbllmError, match="uniqueItems"):
        FRAME.llm.extract(
            "text", {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, model="no-such"
        )
