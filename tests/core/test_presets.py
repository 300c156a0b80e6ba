from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nbllm.core import (
    Adapter,
    ChoiceRequest,
    EmbedRequest,
    GenerateRequest,
    Message,
    Preset,
    Request,
    SamplingParams,
    ScoreRequest,
    ToolCall,
    applied,
)
from nbllm.core.presets import MAX_ADAPTERS, MAX_LICENSES, MAX_MESSAGES
from nbllm.errors import ParameterError

HELLO = Message("user", "Hello!")
SYSTEM = Message("system", "You are Mario.")
EXAMPLES = (Message("user", "Who are you?"), Message("assistant", "It's-a me!"))
OTHER_SYSTEM = Message("system", "You are Luigi.")
MARIO = Preset(
    name="mario",
    base="smollm2",
    system=SYSTEM.content,
    messages=EXAMPLES,
    sampling=SamplingParams(temperature=0.5, top_k=3, stop=("Luigi",)),
    template="{{ messages }}",
    adapters=(Adapter("/mario.gguf"),),
)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param((HELLO,), (SYSTEM, *EXAMPLES, HELLO), id="user"),
        pytest.param((), (SYSTEM, *EXAMPLES), id="empty"),
        pytest.param((OTHER_SYSTEM, HELLO), (OTHER_SYSTEM, *EXAMPLES, HELLO), id="system"),
        pytest.param(
            (Message("developer", "Be kind."), HELLO),
            (Message("developer", "Be kind."), *EXAMPLES, HELLO),
            id="developer",
        ),
        pytest.param((HELLO, OTHER_SYSTEM), (SYSTEM, *EXAMPLES, HELLO, OTHER_SYSTEM), id="system-later"),
    ],
)
def test_applied_messages(messages: tuple[Message, ...], expected: tuple[Message, ...]) -> None:
    requests: list[Any] = [
        GenerateRequest(messages=messages),
        ChoiceRequest(messages=messages, choices=("a", "b")),
        ScoreRequest(prompt="", continuation="a", messages=messages),
    ]
    for request in requests:
        assert applied(MARIO, request).messages == expected


def test_applied_system_of_the_examples_gives_way_to_the_requests() -> None:
    preset = Preset(name="mario", base="smollm2", messages=(SYSTEM, *EXAMPLES))

    made = applied(preset, GenerateRequest(messages=(OTHER_SYSTEM, HELLO)))

    assert made.messages == (OTHER_SYSTEM, *EXAMPLES, HELLO)
    assert applied(preset, GenerateRequest(messages=(HELLO,))).messages == (SYSTEM, *EXAMPLES, HELLO)


@pytest.mark.parametrize("system", [None, ""], ids=["none", "empty"])
def test_applied_without_system(system: str | None) -> None:
    preset = Preset(name="mario", base="smollm2", system=system)

    assert applied(preset, GenerateRequest(messages=(HELLO,))).messages == (HELLO,)


@pytest.mark.parametrize("form", [{"text": "Hello"}, {"tokens": (1, 2)}], ids=["text", "tokens"])
def test_applied_to_raw_prompt_leaves_the_prompt(form: dict[str, Any]) -> None:
    made = applied(MARIO, GenerateRequest(**form))

    assert made == GenerateRequest(**form, sampling=MARIO.sampling, adapters=MARIO.adapters)


def test_applied_sampling_of_the_request_wins() -> None:
    asked = SamplingParams(temperature=0.0, top_p=0.9)

    made = applied(MARIO, GenerateRequest(messages=(HELLO,), sampling=asked)).sampling

    assert made == SamplingParams(temperature=0.0, top_p=0.9, top_k=3, stop=("Luigi",))
    asked = replace(asked, stop=("Peach",))
    assert applied(MARIO, GenerateRequest(messages=(HELLO,), sampling=asked)).sampling.stop == ("Peach",)


def test_applied_template_and_adapters_of_the_request_win() -> None:
    asked = GenerateRequest(messages=(HELLO,), template="own", adapters=())

    made = applied(MARIO, asked)

    assert (made.template, made.adapters) == ("own", ())
    made = applied(MARIO, GenerateRequest(messages=(HELLO,)))
    assert (made.template, made.adapters) == (MARIO.template, MARIO.adapters)


@pytest.mark.parametrize(
    "request_",
    [EmbedRequest(texts=("a",)), ScoreRequest(prompt="a", continuation="b")],
    ids=["embed", "score"],
)
def test_applied_without_messages_has_only_adapters(request_: Request) -> None:
    assert applied(MARIO, request_) == replace(request_, adapters=MARIO.adapters)


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest(messages=(HELLO,), sampling=SamplingParams(seed=1)),
        GenerateRequest(text="a"),
        EmbedRequest(texts=("a",)),
        ScoreRequest(prompt="", continuation="a", messages=(HELLO,)),
        ChoiceRequest(messages=(HELLO,), choices=("a", "b")),
    ],
    ids=["messages", "text", "embed", "score", "choice"],
)
def test_applied_preset_that_says_nothing_changes_nothing(request_: Request) -> None:
    assert applied(Preset(name="plain", base="smollm2"), request_) == request_


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        pytest.param({"messages": (HELLO,) * (MAX_MESSAGES + 1)}, "messages: there are 1,001", id="messages"),
        pytest.param({"adapters": (Adapter("/a"),) * (MAX_ADAPTERS + 1)}, "adapters: there are 17", id="adapters"),
        pytest.param({"licenses": ("",) * (MAX_LICENSES + 1)}, "licenses: there are 101", id="licenses"),
        pytest.param({"template": "a", "go_template": "b"}, "not in both", id="two-templates"),
        pytest.param({"messages": (Message("tool", "a"),)}, "role and a text", id="tool"),
        pytest.param(
            {"messages": (Message("assistant", "", tool_calls=(ToolCall("1", "f", "{}"),)),)},
            "role and a text",
            id="call",
        ),
        pytest.param({"messages": (Message("assistant", "", reasoning="a"),)}, "role and a text", id="reasoning"),
        pytest.param({"sampling": SamplingParams(n=2)}, "n: is for a request", id="n"),
        pytest.param({"sampling": SamplingParams(logprobs=True)}, "logprobs: is for a request", id="logprobs"),
        pytest.param({"sampling": SamplingParams(logit_bias={1: 2})}, "logit_bias: is for a request", id="bias"),
    ],
)
def test_preset_refuses(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        Preset(name="mario", base="smollm2", **changes)
