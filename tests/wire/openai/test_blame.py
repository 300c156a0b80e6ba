from __future__ import annotations

from typing import Any

import pytest

from nbllm.errors import ConstraintError, EngineDeadError, NbllmError, ParameterError, UnsupportedError
from nbllm.wire.openai.blame import blamed
from nbllm.wire.openai.chat import parse_chat
from tests.wire.openai.bodies import chat, completion_call

_FORM = {"response_format": {"type": "json_object"}}
_TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
_CHATS: dict[str, tuple[dict[str, Any], NbllmError, str | None]] = {
    "form": (_FORM, ConstraintError("no"), "response_format"),
    "choice": ({"choice": ["a"]}, ConstraintError("no"), "choice"),
    "promised call": ({**_TOOLS, "tool_choice": "required"}, ConstraintError("no"), "tools"),
    "promised call and a form": ({**_FORM, **_TOOLS, "tool_choice": "required"}, ConstraintError("no"), "tools"),
    "reproducible": ({"reproducible": True}, UnsupportedError("no"), "reproducible"),
    "another server's model": ({}, UnsupportedError("no"), None),
    "engine": ({}, EngineDeadError("gone"), None),
}


@pytest.mark.parametrize(("fields", "error", "field"), _CHATS.values(), ids=_CHATS.keys())
def test_field_of_a_chat_is_blamed(fields: dict[str, Any], error: NbllmError, field: str | None) -> None:
    assert blamed(error, parse_chat(chat(**fields))) == (str(error), field)


def test_parameter_is_named_as_the_client_names_it() -> None:
    error = ParameterError("tokens", "9 is not a token")
    assert blamed(error, completion_call(prompt=[9])) == ("prompt: 9 is not a token", "prompt")
    assert blamed(error, None) == ("tokens: 9 is not a token", "tokens")
