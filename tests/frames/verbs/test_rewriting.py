from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from nbllm.errors import ParameterError
from tests.frames.verbs.replying import last_line, replying

QUIET: dict[str, Any] = {"cache": False, "progress": False}
FRAME = pd.DataFrame({"text": ["{a} long one", None]})


@pytest.mark.parametrize(
    ("max_words", "length"),
    [(None, "in one or two sentences"), (1, "in at most 1 word."), (20, "in at most 20 words.")],
    ids=["unsaid", "one", "twenty"],
)
def test_summary_is_as_long_as_asked(max_words: int | None, length: str) -> None:
    model, engine = replying(last_line)
    result = FRAME.llm.summarize("text", max_words=max_words, model=model, **QUIET)
    assert result["summary"].fillna("-").tolist() == ["{a} long one", "-"]
    assert f"Summarize the text below {length}" in engine.prompts[0]


def test_translation_names_the_language() -> None:
    model, engine = replying(last_line)
    result = FRAME["text"].llm.translate("French", model=model, **QUIET)
    assert (result.name, result.dtype) == ("translation", "str")
    assert engine.prompts == [
        "Translate the text below into French. Answer with the translation only.\n\nText:\n{a} long one"
    ]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a: a.summarize("text", max_words=0), "max_words: must be"),
        (lambda a: a.summarize("text", max_words="3"), "max_words: must be"),
        (lambda a: a.translate("text", " "), "to: must be a language"),
    ],
    ids=["none", "text", "language"],
)
def test_bad_input_is_one_line(call: Any, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        call(FRAME.llm)
