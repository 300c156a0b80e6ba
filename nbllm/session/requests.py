"""What a person types, made into a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nbllm.chat import constraints, functions
from nbllm.core import (
    Adapter,
    Constraint,
    GenerateRequest,
    Message,
    Priority,
    SamplingParams,
    Tool,
    ToolCall,
    unknown_option,
)
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session import loras
from nbllm.session.options import CONSTRAINTS, OPTIONS

Prompt = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
_MESSAGE_KEYS = ("role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id")


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
    tools: tuple[Tool, ...]
    tool_choice: functions.ToolChoice
    parallel_tool_calls: bool
    adapters: tuple[Adapter, ...] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], own_adapters: Sequence[Adapter] | None = None) -> Options:
        """Sort keyword options. Raises ParameterError for an unknown one, with the nearest known name.

        Args:
            own_adapters: of the model's preset, which ids in `lora` number; None where the model is not known.
        """
        rest = dict(options)
        adapters = loras.adapters(rest.pop("lora", None), own_adapters)
        constraint = _constraint({name: rest.pop(name, None) for name in CONSTRAINTS})
        system = rest.pop("system", None)
        if system is not None and not isinstance(system, str):
            raise ParameterError("system", f"must be a string, not {type(system).__name__}")
        timeout_s = rest.pop("timeout", None)
        reproducible, cache_prompt = rest.pop("reproducible", False), rest.pop("cache_prompt", True)
        continue_final = rest.pop("continue_final", False)
        tools = functions.as_tools(rest.pop("tools", None))
        tool_choice = functions.tool_choice(rest.pop("tool_choice", None))
        parallel = rest.pop("parallel_tool_calls", True)
        switches = {
            "reproducible": reproducible,
            "cache_prompt": cache_prompt,
            "continue_final": continue_final,
            "parallel_tool_calls": parallel,
        }
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ParameterError(name, f"must be True or False, not {value!r}")
        template_options = rest.pop("template_options", None) or {}
        if not isinstance(template_options, Mapping):
            raise ParameterError("template_options", f"must map names to values, not {template_options!r}")
        _refuse_unknown(rest)
        sampling = SamplingParams.from_options(rest)
        return cls(
            sampling,
            constraint,
            system,
            timeout_s,
            reproducible,
            cache_prompt,
            template_options,
            continue_final,
            tools,
            tool_choice,
            parallel,
            adapters,
        )

    def chat(self, prompt: Prompt, priority: Priority = "interactive") -> GenerateRequest:
        turns = with_system(messages(prompt), self.system)
        return GenerateRequest(
            messages=turns,
            continue_final=self.continue_final,
            tools=self.tools,
            tool_choice=self.tool_choice.choice,
            forced_tool=self.tool_choice.forced,
            parallel_tool_calls=self.parallel_tool_calls,
            **self._common(priority),
        )

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
            "adapters": self.adapters,
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
    calls = tool_calls(turn.get("tool_calls"))
    for key in ("role",) if calls else ("role", "content"):
        if key not in turn:
            raise ParameterError("messages", f"a message needs {key!r}: {dict(turn)!r:.100}")
    for key in turn:
        if key not in _MESSAGE_KEYS:
            known = ", ".join(_MESSAGE_KEYS)
            raise ParameterError("messages", f"a message has no key {key!r:.100}; its keys are {known}")
    content = turn.get("content")
    return Message(
        turn["role"],
        "" if calls and content is None else _text(content),
        turn.get("reasoning_content"),
        turn.get("name"),
        tool_calls=calls,
        tool_call_id=turn.get("tool_call_id"),
    )


def tool_calls(value: object) -> tuple[ToolCall, ...]:
    """An assistant's calls: OpenAI's dicts, or ToolCalls.

    Raises:
        ParameterError: one of them is no call.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ParameterError("tool_calls", f"must be a list, not {value!r:.100}")
    return tuple(call if isinstance(call, ToolCall) else _tool_call(call) for call in value)


def _tool_call(call: object) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise ParameterError("tool_calls", f"a call needs 'id' and 'function', not {call!r:.100}")
    texts = call.get("id"), function.get("name"), function.get("arguments")
    if not all(isinstance(text, str) for text in texts):
        known = "'id', and 'function' with 'name' and 'arguments', a JSON object as text"
        raise ParameterError("tool_calls", f"a call needs {known}, all of them strings: {dict(call)!r:.100}")
    return ToolCall(*cast("tuple[str, str, str]", texts))


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
