"""Tools, calls and results as a chat template takes them, and written out for a template that knows none of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from nbllm.chat.callformats import HERMES
from nbllm.chat.folding import Turn
from nbllm.chat.options import texts_of
from nbllm.core import Tool, ToolCall
from nbllm.errors import ParameterError

NOTE = "the model's chat template knows no tools: they are described in a system text, with the form of a call"
_MAX_DEPTH = 64
_MAX_LENGTH = 256 * 1024
# What templates look up in a schema by name; any other key is a text like others.
_KEYWORDS = frozenset(
    (
        *("$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default"),
        *("definitions", "description", "enum", "examples", "format", "function", "items"),
        *("maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "name"),
        *("not", "nullable", "oneOf", "optional", "parameters", "pattern", "properties"),
        *("required", "return", "title", "type"),
    )
)
_SYSTEM = ("system", "developer")
Swap = Callable[[str], str]


class CallStyle(NamedTuple):
    """How the calls of earlier turns are given to a template.

    Attributes:
        as_objects: the arguments as an object, as most templates want them; else as their text, as in OpenAI's API.
        has_short_ids: nine letters and digits, the only ids that Mistral's templates take.
    """

    as_objects: bool = True
    has_short_ids: bool = False


STYLES = (CallStyle(), CallStyle(as_objects=False), CallStyle(has_short_ids=True), CallStyle(False, True))


def described(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools in OpenAI's form, copied.

    Raises:
        ParameterError: the parameters of one are not plain JSON, or too many.
    """
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _copied(tool, f"tools[{place}].function.parameters"),
            },
        }
        for place, tool in enumerate(tools)
    ]


def _copied(tool: Tool, param: str) -> dict[str, Any]:
    if tool.parameters is None:
        return {"type": "object", "properties": {}}
    try:
        text = json.dumps(tool.parameters, allow_nan=False, default=dict)
        copy = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(param, f"those of {tool.name!r:.100} are not plain JSON: {error}") from error
    if len(text) > _MAX_LENGTH or not isinstance(copy, dict) or not _is_shallow(copy):
        allowed = f"an object of at most {_MAX_LENGTH:,} characters and {_MAX_DEPTH} levels"
        raise ParameterError(param, f"those of {tool.name!r:.100} must be a JSON Schema, {allowed}")
    return copy


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as an object; None if they are none."""
    try:
        value = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_shallow(value) else None


def call_texts(calls: Sequence[ToolCall]) -> list[str]:
    """Every text that calls may bring into a prompt."""
    texts = [text for call in calls for text in (call.id, call.name, call.arguments)]
    return texts + [text for call in calls for text in texts_of(arguments_of(call))]


def swapped(value: Any, swap: Swap) -> Any:
    """JSON with every text changed, its keys too, but for the words of JSON Schema, which templates look up."""
    if isinstance(value, str):
        return swap(value)
    if isinstance(value, list):
        return [swapped(item, swap) for item in value]
    if isinstance(value, dict):
        return {key if key in _KEYWORDS else swap(key): swapped(item, swap) for key, item in value.items()}
    return value


def calls_as_dicts(calls: Sequence[ToolCall], style: CallStyle, swap: Swap) -> list[dict[str, Any]]:
    """OpenAI's `tool_calls`."""
    return [
        {
            "id": id_as(call.id, style, swap),
            "type": "function",
            "function": {"name": swap(call.name), "arguments": _arguments(call, style, swap)},
        }
        for call in calls
    ]


def id_as(name: str, style: CallStyle, swap: Swap) -> str:
    short = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:9]
    return short if style.has_short_ids else swap(name)


def _arguments(call: ToolCall, style: CallStyle, swap: Swap) -> Any:
    value = arguments_of(call) if style.as_objects else None
    return swap(call.arguments) if value is None else _all_swapped(value, swap)


def _all_swapped(value: Any, swap: Swap) -> Any:
    """In arguments every key is a text of the model's."""
    if isinstance(value, dict):
        return {swap(key): _all_swapped(item, swap) for key, item in value.items()}
    if isinstance(value, list):
        return [_all_swapped(item, swap) for item in value]
    return swap(value) if isinstance(value, str) else value


def shows_tools(text: str, tools: Sequence[dict[str, Any]], turns: Sequence[Turn]) -> bool:
    """Whether a rendered text has the name of each (swapped) tool beyond what the turns themselves say."""
    said = "\n".join([turn.content for turn in turns] + [call.name for turn in turns for call in turn.calls])
    names = [tool["function"]["name"] for tool in tools]
    return all(text.count(name) > said.count(name) for name in names)


def shows_calls(text: str, turns: Sequence[Turn], swap: Swap) -> bool:
    """Whether a rendered text has each call's name and its arguments, as JSON or value by value."""
    squeezed = _squeezed(text)
    return all(
        swap(call.name) in text and _shows_arguments(text, squeezed, call, swap)
        for turn in turns
        for call in turn.calls
    )


def _shows_arguments(text: str, squeezed: str, call: ToolCall, swap: Swap) -> bool:
    value = arguments_of(call)
    if value is None:
        return swap(call.arguments) in text
    shown = _all_swapped(value, swap)
    if _squeezed(json.dumps(shown, ensure_ascii=False)) in squeezed:
        return True
    quoted = json.dumps(swap(call.arguments), ensure_ascii=False)
    if quoted in text or repr(shown) in text:
        return False
    return all(leaf in text for leaf in texts_of(shown))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def written_out(turns: Sequence[Turn], tools: Sequence[dict[str, Any]], swap: Swap) -> list[Turn]:
    """The turns with the (swapped) tools, calls and results as plain text in the Hermes models' form."""
    plain: list[Turn] = []
    for is_result, group in groupby(turns, key=lambda turn: turn.role == "tool"):
        if is_result:
            results = "\n".join(f"<tool_response>\n{turn.content}\n</tool_response>" for turn in group)
            plain.append(Turn(-1, "user", results))
        else:
            plain += [_with_calls(turn, swap) for turn in group]
    return _with_tools(plain, tools) if tools else plain


def _with_calls(turn: Turn, swap: Swap) -> Turn:
    if not turn.calls:
        return turn
    written = [turn.content] if turn.content else []
    for call in calls_as_dicts(turn.calls, CallStyle(), swap):
        body = json.dumps(call["function"], ensure_ascii=False)
        written.append(f"{HERMES.opening}\n{body}\n{HERMES.closing}")
    return replace(turn, index=-1, content="\n".join(written), calls=())


def _with_tools(turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> list[Turn]:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = (
        "You can have functions called. Each line here describes one:\n"
        f"<tools>\n{lines}\n</tools>\n"
        "To call a function, write its name and its arguments as JSON between these tags, once for each call:\n"
        f'{HERMES.opening}\n{{"name": <function>, "arguments": <object>}}\n{HERMES.closing}\n'
        "The results come back in <tool_response> tags. Where no function is needed, answer in plain words."
    )
    if turns and turns[0].role in _SYSTEM:
        first = replace(turns[0], index=-1, content=f"{turns[0].content}\n\n{text}")
        return [first, *turns[1:]]
    return [Turn(-1, "system", text), *turns]


def _is_shallow(value: Any, depth: int = _MAX_DEPTH) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)
