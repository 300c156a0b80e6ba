from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbllm.core import Adapter, ChoiceRequest, EmbedRequest, GenerateRequest, Message, Request, ScoreRequest
from nbllm.core.requests import MAX_CHOICES
from nbllm.errors import ParameterError

_ASKED = (Message("user", "q"),)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"choices": ("a",)}, "choices", id="one"),
        pytest.param({"choices": ()}, "choices", id="none"),
        pytest.param({"choices": ("a", "b", "a")}, "'a' twice", id="twice"),
        pytest.param({"choices": ("a", "")}, "not ''", id="empty"),
        pytest.param({"choices": ("a", 1)}, "not 1", id="number"),
        pytest.param({"choices": tuple(map(str, range(MAX_CHOICES + 1)))}, "1000", id="too many"),
        pytest.param({"choices": ("a", "b"), "timeout_s": 0}, "seconds", id="no time"),
    ],
)
def test_choices_that_cannot_be_compared_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        ChoiceRequest(messages=_ASKED, **given)


def _generate(**fields: Any) -> Request:
    return GenerateRequest(messages=(Message("user", "a"),), **fields)


def _choose(**fields: Any) -> Request:
    return ChoiceRequest(messages=(Message("user", "a"),), choices=("a", "b"), **fields)


def _score(**fields: Any) -> Request:
    return ScoreRequest(prompt="", continuation="b", messages=(Message("user", "a"),), **fields)


def _embed(**fields: Any) -> Request:
    return EmbedRequest(texts=("a",), **fields)


@pytest.mark.parametrize("make", [_generate, _choose, _score], ids=["generate", "choose", "score"])
def test_request_template(make: Callable[..., Request]) -> None:
    assert make(template="{{ messages }}") != make()
    with pytest.raises(ParameterError, match="template: must be a text"):
        make(template=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GenerateRequest(text="a", template="b"),
        lambda: GenerateRequest(tokens=(1,), template="b"),
        lambda: ScoreRequest(prompt="a", continuation="b", template="c"),
    ],
    ids=["text", "tokens", "score"],
)
def test_request_template_without_messages(make: Callable[[], Request]) -> None:
    with pytest.raises(ParameterError, match="template: goes with messages only"):
        make()


@pytest.mark.parametrize("make", [_generate, _choose, _score, _embed], ids=["generate", "choose", "score", "embed"])
def test_request_adapters(make: Callable[..., Request]) -> None:
    assert make(adapters=(Adapter("/a.gguf", 0.5),)) != make(adapters=()) != make()
    for wrong in ("/a.gguf", ["/a.gguf"], ("/a.gguf",), [Adapter("/a.gguf")]):
        with pytest.raises(ParameterError, match="adapters: must be a tuple of Adapter"):
            make(adapters=wrong)
