from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nbllm.core import GenerateRequest, RenderedPrompt
from nbllm.errors import InvalidRequestError, UnsupportedError
from nbllm.session.model import Model
from nbllm.testing import ScriptedEngine

FRAME = pd.DataFrame({"word": ["a", None, " "]}, index=[4, 4, 5])


def test_prompts_are_rendered_and_counted_and_nothing_is_asked() -> None:
    engine = ScriptedEngine()
    result = FRAME.iloc[:2].llm.prompts("say {word}", system="be loud", max_tokens=3, model=Model(engine))
    assert result.dtypes.astype(str).to_dict() == {"prompt": "str", "input_tokens": "Int64"}
    assert list(result.index) == [4, 4]
    assert "be loud" in result["prompt"].iloc[0]
    assert "say a" in result["prompt"].iloc[0]
    assert result["input_tokens"].isna().tolist() == [False, True]
    assert result["input_tokens"].iloc[0] > len("say a")
    assert engine.requests == []


def test_a_row_without_a_prompt_says_why() -> None:
    result = FRAME["word"].llm.prompts("{}", model=Model(ScriptedEngine()))
    assert "prompt is empty" in result["prompt_error"].iloc[2]
    assert result["prompt"].notna().tolist() == [True, False, False]
    with pytest.raises(InvalidRequestError, match="prompt is empty"):
        FRAME.llm.prompts("{word}", model=Model(ScriptedEngine()), on_error="raise")


def test_limit_and_empty_frames_have_the_same_columns() -> None:
    result = FRAME.llm.prompts("say {word}", model=Model(ScriptedEngine()), limit=1)
    assert result["prompt"].notna().tolist() == [True, False, False]
    empty = FRAME.iloc[:0].llm.prompts("say {word}", model="no-such-model")
    assert empty.dtypes.astype(str).to_dict() == {"prompt": "str", "input_tokens": "Int64"}


def test_another_servers_prompts_are_its_messages() -> None:
    class Remote(ScriptedEngine):
        def render(self, request: GenerateRequest) -> RenderedPrompt:
            raise UnsupportedError("not here")

    options: dict[str, Any] = {"system": "be loud", "model": Model(Remote())}
    result = FRAME.iloc[:1].llm.prompts("say {word}", **options)
    assert result["prompt"].tolist() == ["system: be loud\n\nuser: say a"]
    assert result["input_tokens"].isna().all()
