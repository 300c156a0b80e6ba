"""A model of a name of its own: another one's weights, with settings, instructions and adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from nbllm.core.adapters import Adapter
from nbllm.core.messages import Message
from nbllm.core.requests import EmbedRequest, GenerateRequest, Request
from nbllm.core.sampling import SamplingParams
from nbllm.errors import ParameterError

_R = TypeVar("_R", bound=Request)
_INSTRUCTING = ("system", "developer")
_OF_REQUESTS = ("logit_bias", "logprobs", "top_logprobs", "n")
MAX_MESSAGES = 1000
MAX_ADAPTERS = 16
MAX_LICENSES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a person made of a model.

    Attributes:
        name: what it is called.
        base: the model that it is made of: a name, a path, or "sha256:..." for a blob of the models folder.
        system: goes before every chat that brings no system message of its own; "" is none, whatever the base has.
        messages: turns that go before every chat's own, as examples.
        sampling: what a request gets where it says nothing.
        template: Jinja, in place of the model's own chat template; None or "" leaves that.
        go_template: Ollama's, which nothing here renders; kept to be shown.
        adapters: LoRA files, with their scales, in the order in which requests number them.
        context_length: tokens that a conversation may have; None is as usual.
        threads: most decode threads; None is as usual.
        licenses: their texts.
        ignored: parameters that have no effect here, with their values as they were written.

    Raises:
        ParameterError: too many of something, or what would never have an effect.
    """

    name: str
    base: str
    system: str | None = None
    messages: tuple[Message, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    template: str | None = None
    go_template: str | None = None
    adapters: tuple[Adapter, ...] = ()
    context_length: int | None = None
    threads: int | None = None
    licenses: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, most in (("messages", MAX_MESSAGES), ("adapters", MAX_ADAPTERS), ("licenses", MAX_LICENSES)):
            count = len(getattr(self, name))
            if count > most:
                raise ParameterError(name, f"there are {count:,}; {most:,} are the most")
        if self.template is not None and self.go_template is not None:
            raise ParameterError("template", "is in Jinja or in Ollama's language, not in both")
        for message in self.messages:
            if message.role == "tool" or message != Message(message.role, message.content):
                raise ParameterError("messages", "those of a preset are a role and a text, and of no tool")
        plain = SamplingParams()
        for name in _OF_REQUESTS:
            if getattr(self.sampling, name) != getattr(plain, name):
                raise ParameterError(name, "is for a request to say, not for a preset")


def applied(preset: Preset, request: _R) -> _R:
    """The request as the preset's base has to be asked it: what the request says wins.

    A system message that the request begins with takes the place of the preset's. This is to be done once a request:
    the preset's messages would come a second time.
    """
    changes: dict[str, Any] = {}
    if request.adapters is None and preset.adapters:
        changes["adapters"] = preset.adapters
    if not isinstance(request, EmbedRequest) and request.messages is not None:
        changes["messages"] = _with_messages(preset, request.messages)
        if request.template is None:
            changes["template"] = preset.template or None
    if isinstance(request, GenerateRequest):
        changes["sampling"] = _with_sampling(preset, request.sampling)
    return replace(request, **changes)


def _with_messages(preset: Preset, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if messages and messages[0].role in _INSTRUCTING:
        return (messages[0], *_without_instructions(preset.messages), *messages[1:])
    instructions = (Message("system", preset.system),) if preset.system else ()
    return (*instructions, *preset.messages, *messages)


def _without_instructions(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Many templates take a system message at the very beginning only."""
    return messages[1:] if messages and messages[0].role in _INSTRUCTING else messages


def _with_sampling(preset: Preset, sampling: SamplingParams) -> SamplingParams:
    merged = sampling.or_else(preset.sampling)
    return merged if merged.stop else replace(merged, stop=preset.sampling.stop)
