"""What a person types, made into a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nbllm.chat import constraints
from nbllm.core import (
    Constraint,
    GenerateRequest,
    Message,
    Priority,
    SamplingParams,
    unknown_option,
)
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.options import CONSTRAINTS, OPTIONS

Prompt = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
_MESSAGE_KEYS = ("role", "content", "name", "reasoning_content")


@dataclass(frozen=True, slots=True)
class Options:
    """The keyword options of a chat, sorted into what they are about."""

    sampling: SamplingParams
    constraint: Constraint | None
    system: str | None
    timeout_s: float | None
    reproducible: bool
    cache_prompt: bool
    template_options: Mapping[str, Any]
    continue_final: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Sort keyword options. Raises ParameterError for an unknown one, with the nearest known name."""
        rest = dict(options)
        constraint = _constraint({name: rest.pop(name, None) for name in CONSTRAINTS})
        system = rest.pop("system", None)
        if system is not None and not isinstance(system, str):
            raise ParameterError("system", f"must be a string, not {type(system).__name__}")
        timeout_s = rest.pop("timeout", None)
        reproducible, cache_prompt = rest.pop("reproducible", False), rest.pop("cache_prompt", True)
        continue_final = rest.pop("continue_final", False)
        switches = {"reproducible": reproducible, "cache_prompt": cache_prompt, "continue_final": continue_final}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ParameterError(name, f"must be True or False, not {value!r}")
        template_options = rest.pop("template_options", None) or {}
        if not isinstance(template_options, Mapping):
            raise ParameterError("template_options", f"must map names to values, not {template_options!r}")
        _refuse_unknown(rest)
        sampling = SamplingParams.from_options(rest)
        return cls(
            sampling, constraint, system, timeout_s, reproducible, cache_prompt, template_options, continue_final
        )

    def chat(self, prompt: Prompt, priority: Priority = "interactive") -> GenerateRequest:
        turns = with_system(messages(prompt), self.system)
        return GenerateRequest(messages=turns, continue_final=self.continue_final, **self._common(priority))

    def completion(self, prompt: str | Sequence[int], priority: Priority = "interactive") -> GenerateRequest:
        if isinstance(prompt, str):
            return GenerateRequest(text=prompt, **self._common(priority))
        return GenerateRequest(tokens=_token_ids(prompt), **self._common(priority))

    def _common(self, priority: Priority) -> dict[str, Any]:
        return {
            "sampling": self.sampling,
            "constraint": self.constraint,
            "priority": priority,
            "reproducible": self.reproducible,
            "cache_prompt": self.cache_prompt,
            "timeout_s": self.timeout_s,
            "template_options": self.template_options,
        }


def _token_ids(prompt: object) -> tuple[int, ...]:
    if not isinstance(prompt, Iterable) or isinstance(prompt, bytes | Mapping):
        raise ParameterError("prompt", f"must be a string or a list of token ids, not {type(prompt).__name__}")
    ids = tuple(prompt)
    for token in ids:
        if not hasattr(token, "__index__") or isinstance(token, bool):
            raise ParameterError("prompt", f"{token!r:.100} is not a token id")
    return tuple(map(int, ids))


def _refuse_unknown(rest: Mapping[str, Any]) -> None:
    for name in rest:
        if name not in OPTIONS:
            raise ParameterError(name, unknown_option(name, OPTIONS))


def _constraint(given: Mapping[str, Any]) -> Constraint | None:
    asked = {name: value for name, value in given.items() if value is not None}
    if len(asked) > 1:
        raise ParameterError(" and ".join(asked), "give only one of them: each says what shape the answer has")
    for name, value in asked.items():
        if name == "response_format":
            return constraints.from_response_format(value)
        if name == "regex":
            return constraints.regex(value)
        if name == "choice":
            return constraints.choice(value)
        return _grammar(value)
    return None


def _grammar(text: object) -> Constraint:
    """GBNF defines its rules with `::=`, Lark with `:`."""
    if not isinstance(text, str):
        raise ParameterError("grammar", f"must be a string, not {type(text).__name__}")
    return constraints.gbnf(text) if "::=" in text else constraints.lark(text)


def messages(prompt: Prompt) -> tuple[Message, ...]:
    """A string is one user message; a sequence holds Messages or OpenAI's dicts.

    Raises:
        InvalidRequestError: there is nothing in it.
        ParameterError: an entry is no message.
    """
    if isinstance(prompt, str):
        turns: tuple[Message, ...] = (Message("user", prompt),)
    elif isinstance(prompt, Message | Mapping):
        turns = (message(prompt),)
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        turns = tuple(message(turn) for turn in cast("Sequence[Message | Mapping[str, Any]]", prompt))
    else:
        raise ParameterError("prompt", f"must be a string or a list of messages, not {type(prompt).__name__}")
    if not any(turn.content.strip() for turn in turns):
        raise InvalidRequestError("the prompt is empty: give the model something to answer")
    return turns


def message(turn: Message | Mapping[str, Any]) -> Message:
    """One turn; it may be empty. Raises ParameterError when it is no message."""
    if isinstance(turn, Message):
        return turn
    if not isinstance(turn, Mapping):
        raise ParameterError("messages", f"must hold dicts with role and content, not {turn!r:.100}")
    for key in ("role", "content"):
        if key not in turn:
            raise ParameterError("messages", f"a message needs {key!r}: {dict(turn)!r:.100}")
    for key in turn:
        if key not in _MESSAGE_KEYS:
            known = ", ".join(_MESSAGE_KEYS)
            raise ParameterError("messages", f"a message has no key {key!r:.100}; its keys are {known}")
    return Message(turn["role"], _text(turn["content"]), turn.get("reasoning_content"), turn.get("name"))


def _text(content: Any) -> str:
    """OpenAI's content: a string, or parts of which only text is understood."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        for part in content:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ParameterError("content", f"a part of type {part.get('type')!r} is not supported, only text")
        return "".join(part["text"] for part in content)
    raise ParameterError("content", f"must be a string, not {type(content).__name__}")


def with_system(turns: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """The turns after a system message.

    Raises:
        ParameterError: they have one already.
    """
    if system is None:
        return turns
    if turns and turns[0].role in ("system", "developer"):
        raise ParameterError("system", "the messages have a system message already; give only one")
    return (Message("system", system), *turns)
