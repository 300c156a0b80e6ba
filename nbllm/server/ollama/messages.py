"""A chat's messages, from Ollama's shape to core's. Its calls need no ids: those that are missing are made up."""

from __future__ import annotations

from nbllm.core import ROLES, Message, Role, ToolCall
from nbllm.errors import ParameterError, UnsupportedError
from nbllm.wire.decoding import json_text
from nbllm.wire.ollama.shapes import ChatMessage

_OFTEN_USED = tuple(role for role in ROLES if role != "developer")


def chat_messages(given: list[ChatMessage]) -> tuple[Message, ...]:
    """Raises ParameterError naming the message and its field; UnsupportedError for images."""
    open_calls: list[ToolCall] = []
    messages = []
    for index, turn in enumerate(given):
        at = f"messages[{index}]"
        check_images(turn.images, f"{at}.images")
        role = _role(turn, at)
        calls = tuple(_call(turn, index, number, at) for number in range(len(turn.tool_calls or ())))
        if calls and role != "assistant":
            raise ParameterError(f"{at}.tool_calls", f"goes with the role assistant only, and this one is {role}")
        open_calls = [*open_calls, *calls] if role in ("assistant", "tool") else []
        answered = _answered(turn, open_calls) if role == "tool" else None
        messages.append(
            Message(
                role,
                turn.content or "",
                reasoning=turn.thinking or None,
                name=turn.tool_name,
                tool_calls=calls,
                tool_call_id=answered,
            )
        )
    return tuple(messages)


def check_images(images: list[object] | None, at: str) -> None:
    """Raises UnsupportedError: no model here can see yet."""
    if images:
        raise UnsupportedError(f"{at}: this server cannot look at images yet (vision is missing); send text only")


def _role(turn: ChatMessage, at: str) -> Role:
    for role in ROLES:
        if role == turn.role:
            return role
    raise ParameterError(f"{at}.role", f"{turn.role!r:.60} is not one of {', '.join(_OFTEN_USED)}")


def _call(turn: ChatMessage, index: int, number: int, at: str) -> ToolCall:
    call = (turn.tool_calls or [])[number]
    where = f"{at}.tool_calls[{number}].function"
    if not call.function.name:
        raise ParameterError(f"{where}.name", "is empty")
    arguments = json_text(call.function.arguments, f"{where}.arguments")
    return ToolCall(call.id or f"call_{index}_{number}", call.function.name, arguments)


def _answered(turn: ChatMessage, open_calls: list[ToolCall]) -> str:
    """The id of the call that a result is for: the one it says, else the first open one of its name, else the first.

    That call is taken from the list.
    """
    if turn.tool_call_id:
        named = [call for call in open_calls if call.id == turn.tool_call_id]
    else:
        named = [call for call in open_calls if call.name == turn.tool_name] or open_calls[:1]
    if named:
        open_calls.remove(named[0])
    return turn.tool_call_id or (named[0].id if named else "call_0_0")
