from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbllm.core import EmbedRequest
from nbllm.errors import ParameterError
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine
from tests.frames.answering import answering

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame({"text": ["cat", None, "dog", "cat"]}, index=[9, 9, 9, 1])


def test_embed_gives_a_unit_vector_a_row() -> None:
    engine = ScriptedEngine()
    result = FRAME.llm.embed("text", model=Model(engine), **QUIET)
    vectors = result["embedding"]
    assert vectors.dtype == "object"
    assert vectors.isna().tolist() == [False, True, False, False]
    matrix = np.stack(vectors.dropna().tolist())
    assert matrix.dtype == np.float32
    assert np.linalg.norm(matrix, axis=1) == pytest.approx([1, 1, 1])
    assert (matrix[0] == matrix[2]).all()
    assert sorted(request.texts[0] for request in engine.requests if isinstance(request, EmbedRequest)) == [
        "cat",
        "dog",
    ]


def test_search_gives_the_nearest_rows_first() -> None:
    result = FRAME.llm.search("text", "cat", k=2, model=Model(ScriptedEngine()), **QUIET)
    assert result["text"].tolist() == ["cat", "cat"]
    assert list(result.index) == [9, 1]
    assert result["similarity"].dtype == "float64"
    assert result["similarity"].tolist() == pytest.approx([1, 1])


def test_search_of_fewer_rows_than_asked_for_gives_them_all() -> None:
    result = FRAME["text"].llm.search("dog", k=10, model=Model(ScriptedEngine()), details=True, **QUIET)
    assert result["text"].tolist() == ["dog", "cat", "cat"]
    assert result["similarity"].is_monotonic_decreasing
    assert "similarity_error" in result.columns


@pytest.mark.parametrize("rows", [[], [None]], ids=["empty", "all null"])
def test_search_of_nothing_needs_no_model(rows: list[None]) -> None:
    frame = pd.DataFrame({"text": pd.Series(rows, dtype="str")})
    result = frame.llm.search("text", "cat", model="no-such-model")
    assert result.dtypes.astype(str).to_dict() == {"text": "str", "similarity": "float64"}
    assert result.empty


def test_search_embeds_a_column_once(tmp_path: Path) -> None:
    model, engine = answering(tmp_path)
    options = {"model": model, "cache": AnswerCache(tmp_path / "answers"), "progress": False}
    FRAME.llm.embed("text", **options)
    assert len(engine.requests) == 2
    FRAME.llm.search("text", "a bird", **options)
    assert len(engine.requests) == 3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a: a.search("text", ""), "query: must be a text"),
        (lambda a: a.search("text", "x", k=0), "k: must be a whole number"),
        (lambda a: a.embed("txet"), "did you mean 'text'"),
        (lambda a: a.embed("text", temperature=1), "temperature: is not an option"),
        (lambda a: a.embed("text", into="text"), "into: there is a column 'text'"),
        (lambda a: a.search("text", "x", into="text"), "into: there is a column 'text'"),
    ],
    ids=["query", "k", "column", "sampling", "taken", "taken by search"],
)
def test_bad_input_is_one_line(call: Any, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        call(FRAME.llm)
