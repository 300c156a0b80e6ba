"""Tools and the choice among them, from OpenAI's shape to core's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from nbllm.core import Tool
from nbllm.errors import ParameterError
from nbllm.wire.decoding import plain_json
from nbllm.wire.openai.shapes import NamedTool, ToolSpec

Mode = Literal["auto", "none", "required"]
_MODES = ("auto", "none", "required")
_NAME = re.compile(r"[\w.:/-]{1,128}")  # wider than OpenAI's: names of MCP servers' tools have dots and slashes


@dataclass(frozen=True, slots=True)
class Choice:
    mode: Mode = "auto"
    name: str | None = None


def tools(given: list[ToolSpec] | None) -> tuple[Tool, ...]:
    """Raises ParameterError naming the tool's field."""
    return tuple(_tool(spec, f"tools[{index}]") for index, spec in enumerate(given or ()))


def _tool(spec: ToolSpec, at: str) -> Tool:
    if spec.type != "function":
        raise ParameterError(f"{at}.type", f"must be 'function', not {spec.type!r:.60}")
    name = spec.function.name
    if not _NAME.fullmatch(name):
        raise ParameterError(f"{at}.function.name", f"{name!r:.60} is no name of 1 to 128 letters, digits or _-.:/")
    parameters = plain_json(spec.function.parameters, f"{at}.function.parameters")
    return Tool(name=name, description=spec.function.description or "", parameters=parameters)


def tool_choice(given: str | NamedTool | None) -> Choice:
    """Raises ParameterError when it is neither a mode nor a named function."""
    if given is None:
        return Choice()
    if isinstance(given, str):
        if given not in _MODES:
            raise ParameterError(
                "tool_choice",
                f"{given!r:.60} is not one of {', '.join(_MODES)}; "
                'for one tool give {"type": "function", "function": {"name": ...}}',
            )
        return Choice(cast("Mode", given))
    if given.type != "function":
        raise ParameterError("tool_choice.type", f"must be 'function', not {given.type!r:.60}")
    if given.function is None:
        raise ParameterError("tool_choice.function", "is required: an object with the tool's name")
    return Choice("required", given.function.name)
