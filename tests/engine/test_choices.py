"""Choices as tokens: spelled exactly, and ended as the model ends its turn."""

from __future__ import annotations

import pytest

from nbllm.core import ChoiceRequest, Message
from nbllm.engine.choices import Choices
from nbllm.engine.prompt import Prompts
from nbllm.errors import ContextOverflowError, InvalidRequestError, UnsupportedError
from nbllm.testing import ToyBackend
from nbllm.testing.vocabulary import BOS, CHATML, EOS, IM_END, IM_START
from tests.engine.hand import Hand

_THINKS = CHATML.replace("assistant\n{%", "assistant\n<think>\n{%")


def _request(*choices: str, text: str = "q", fixed: bool = False) -> ChoiceRequest:
    return ChoiceRequest(messages=(Message("user", text),), choices=choices or ("a", "b"), reproducible=fixed)


def _prepared(backend: ToyBackend, *choices: str) -> tuple[list[int], list[tuple[int, ...]]]:
    tokens, tree = Choices(backend, Prompts(backend)).prepare(_request(*choices))
    return tokens, tree.paths


class _Spacing(ToyBackend):
    """Puts a space before any text, as some tokenizers do."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return super().tokenize(" " + text, add_special=add_special, parse_special=parse_special)


class _Endless(ToyBackend):
    def special(self, name: str) -> int | None:
        return None

    def is_end(self, token: int) -> bool:
        return False


class _Misnamed(ToyBackend):
    """Names another token as EOT than its template ends a turn with."""

    def special(self, name: str) -> int | None:
        return EOS if name == "eot" else super().special(name)


@pytest.mark.parametrize(
    ("backend", "end"),
    [
        pytest.param(ToyBackend(), IM_END, id="template and vocabulary agree"),
        pytest.param(_Misnamed(), IM_END, id="template knows better"),
        pytest.param(ToyBackend(chat_template="{{ messages[0].content }}:"), IM_END, id="template shows none"),
        pytest.param(ToyBackend(chat_template="{{ raise_exception('no') }}"), IM_END, id="template refuses"),
    ],
)
def test_choice_ends_as_the_models_turn_does(backend: ToyBackend, end: int) -> None:
    assert Choices(backend, Prompts(backend))._turn_end(None) == end


def test_choice_ends_as_the_turns_of_a_requests_template_do() -> None:
    choices = Choices(_Misnamed(), Prompts(_Misnamed()))
    template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    assert (choices._turn_end(template), choices._turn_end(None)) == (EOS, IM_END)


def test_choice_is_spelled_exactly_and_has_no_control_tokens() -> None:
    _, paths = _prepared(ToyBackend(), " a", "<|im_end|>")
    assert paths == [(*b" a", IM_END), (*b"<|im_end|>", IM_END)]


def test_space_that_the_tokenizer_adds_is_left_out() -> None:
    _, paths = _prepared(_Spacing(), "yes", " no")
    assert paths == [(*b"yes", IM_END), (*b" no", IM_END)]


def test_thinking_that_the_template_opens_is_closed() -> None:
    tokens, _ = _prepared(ToyBackend(chat_template=_THINKS))
    assert bytes(token for token in tokens if token < BOS).endswith(b"assistant\n<think>\n</think>\n\n")
    assert IM_START in tokens


def test_model_without_an_end_is_told_to_score() -> None:
    with pytest.raises(UnsupportedError, match=r"model\.score"):
        _prepared(_Endless())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        pytest.param(_request(text="q" * 300), ContextOverflowError, id="prompt too long"),
        pytest.param(_request("a", "b" * 250), ContextOverflowError, id="choice too long"),
        pytest.param(_request("a", "b" * 250, fixed=True), ContextOverflowError, id="too long for both lanes"),
        pytest.param(_request("a", "\ud800"), InvalidRequestError, id="lone surrogate"),
    ],
)
def test_bad_choices_are_refused_at_once(request_: ChoiceRequest, error: type[Exception]) -> None:
    hand = Hand()
    with pytest.raises(error) as refusal:
        hand.ask(request_)
    assert "\n" not in str(refusal.value)
    assert not hand.has_work
