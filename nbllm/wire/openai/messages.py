"""A chat's messages, from OpenAI's shape to core's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbllm.core import ROLES, Message, Role, ToolCall
from nbllm.errors import ParameterError
from nbllm.wire.decoding import MAX_UNKNOWN, unknown_keys
from nbllm.wire.openai.shapes import CalledTool, ChatMessage, Part
from nbllm.wire.openai.tools import function_of

if TYPE_CHECKING:
    from msgspec import Struct


def chat_messages(given: list[ChatMessage]) -> tuple[Message, ...]:
    """Raises ParameterError naming the message and its field, as in "messages[2].content"."""
    if not given:
        raise ParameterError("messages", "is empty: give at least one message")
    return tuple(_message(turn, f"messages[{index}]") for index, turn in enumerate(given))


def unknown_message_keys(given: list[dict[str, Any]], kind: type[Struct] = ChatMessage) -> tuple[str, ...]:
    """Keys of messages that mean nothing in `kind`, each once, as in "messages[].annotations"."""
    keys = {key: None for turn in given for key in unknown_keys(turn, kind)}
    return tuple(f"messages[].{key}" for key in keys)[:MAX_UNKNOWN]


def _message(turn: ChatMessage, at: str) -> Message:
    role = _role(turn, at)
    calls = tuple(_tool_call(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(turn.tool_calls or ()))
    if calls and role != "assistant":
        raise ParameterError(f"{at}.tool_calls", f"goes with the role assistant only, and this one is {role}")
    if role == "tool" and not turn.tool_call_id:
        raise ParameterError(f"{at}.tool_call_id", "is required with the role tool: the id of the call it answers")
    return Message(
        role,
        _content(turn, at),
        reasoning=turn.reasoning_content,
        name=turn.name,
        tool_calls=calls,
        tool_call_id=turn.tool_call_id,
    )


def _role(turn: ChatMessage, at: str) -> Role:
    if turn.role == "function":
        raise ParameterError(f"{at}.role", "'function' is deprecated: use 'tool', with tool_call_id")
    if turn.role not in ROLES:
        raise ParameterError(f"{at}.role", f"{turn.role!r:.100} is not one of {', '.join(ROLES)}")
    if turn.function_call is not None:
        raise ParameterError(f"{at}.function_call", "is deprecated: use tool_calls")
    return turn.role


def _content(turn: ChatMessage, at: str) -> str:
    if isinstance(turn.content, str):
        return turn.content
    if turn.content:
        return "".join(_part(part, turn.role, f"{at}.content[{index}]") for index, part in enumerate(turn.content))
    if turn.role == "assistant":
        return ""
    problem = "is required: a string, or a list of text parts"
    raise ParameterError(f"{at}.content", problem if turn.content is None else "is an empty list; give a string")


def _part(part: Part, role: str, at: str) -> str:
    is_refusal = part.type == "refusal" and role == "assistant"
    if part.type != "text" and not is_refusal:
        raise ParameterError(at, f"a part of type {part.type!r:.60} is not supported yet, only text")
    text = part.refusal if is_refusal else part.text
    if text is None:
        raise ParameterError(f"{at}.{part.type}", "is required")
    return text


def _tool_call(call: CalledTool, at: str) -> ToolCall:
    function = function_of(call, at)
    if not function.name:
        raise ParameterError(f"{at}.function.name", "is empty")
    return ToolCall(call.id, function.name, function.arguments)
