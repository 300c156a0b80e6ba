"""Errors name the field that the client sent, on each route."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.serving import CHAT, COMPLETIONS, EMBEDDINGS, TOY, Site, chat, completion

_LONG = "x" * 5000
_CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "overflow of a chat": (CHAT, chat(_LONG), "messages"),
    "overflow of a completion": (COMPLETIONS, completion(_LONG), "prompt"),
    "overflow of an embedding": (EMBEDDINGS, {"model": TOY, "input": _LONG}, "input"),
    "regex of a chat": (CHAT, chat(regex="["), "regex"),
    "regex of a completion": (COMPLETIONS, completion(regex="["), "regex"),
    "GBNF": (CHAT, chat(grammar="root ::= ["), "grammar"),
    "Lark": (CHAT, chat(grammar="start: ["), "grammar"),
    "JSON Schema": (
        CHAT,
        chat(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "x"}}}),
        "response_format",
    ),
    "a template's own variable": (CHAT, chat(chat_template_kwargs={"messages": 1}), "chat_template_kwargs"),
    "unknown id": (COMPLETIONS, completion([999999]), "prompt"),
    "unknown id to be told": ("v1/detokenize", {"model": TOY, "tokens": [999999]}, "tokens"),
    "no prompt": (COMPLETIONS, completion(""), "prompt"),
    "suffix": (COMPLETIONS, completion("a", suffix="z"), "suffix"),
    "no such model": (CHAT, chat(model="nosuch"), "model"),
}


@pytest.mark.parametrize(("path", "body", "param"), _CASES.values(), ids=_CASES.keys())
def test_error_names_the_field_that_was_sent(site: Site, path: str, body: dict[str, Any], param: str) -> None:
    answer = site.post(path, body)
    assert answer.status in (400, 404), answer.body
    assert answer.error["param"] == param
