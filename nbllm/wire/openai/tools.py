"""Tools and the choice among them, from OpenAI's shape to core's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, cast

from nbllm.core import Tool
from nbllm.errors import ParameterError
from nbllm.wire.decoding import plain_json
from nbllm.wire.openai.shapes import AllowedTools, ToolChoice, ToolSpec

_Function = TypeVar("_Function")
Mode = Literal["auto", "none", "required"]
_MODES = ("auto", "none", "required")
# No parameters at all is an empty list of them, in OpenAI's words; a model that may make some up does.
_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_NAME = re.compile(r"[\w.:/-]{1,128}")  # wider than OpenAI's: names of MCP servers' tools have dots and slashes


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether tools may or must be called, and which.

    Attributes:
        name: the only tool that may be called.
        allowed: the names of those that may; None is all of them.
    """

    mode: Mode = "auto"
    name: str | None = None
    allowed: tuple[str, ...] | None = None

    def among(self, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        """The tools that may be called: a model is not told of others. Raises ParameterError for unknown names."""
        if self.allowed is None:
            return tools
        names = [tool.name for tool in tools]
        for index, name in enumerate(self.allowed):
            if name not in names:
                at = f"tool_choice.allowed_tools.tools[{index}].function.name"
                raise ParameterError(at, f"there is no tool {name!r:.100} among the tools")
        return tuple(tool for tool in tools if tool.name in self.allowed)


class _Typed(Protocol[_Function]):
    type: str
    function: _Function | None


def function_of(given: _Typed[_Function], at: str) -> _Function:
    """The function of a tool, a call or a choice. Raises ParameterError when it is of another type."""
    if given.type == "custom":
        raise ParameterError(f"{at}.type", "custom tools are not supported, only functions with JSON arguments")
    if given.type != "function":
        raise ParameterError(f"{at}.type", f"must be 'function', not {given.type!r:.60}")
    if given.function is None:
        raise ParameterError(f"{at}.function", "is required: an object with the function's name")
    return given.function


def tools(given: list[ToolSpec] | None) -> tuple[Tool, ...]:
    """Raises ParameterError naming the tool's field."""
    return tuple(_tool(spec, f"tools[{index}]") for index, spec in enumerate(given or ()))


def _tool(spec: ToolSpec, at: str) -> Tool:
    function = function_of(spec, at)
    name, given = function.name, function.parameters
    if not _NAME.fullmatch(name):
        raise ParameterError(f"{at}.function.name", f"{name!r:.60} is no name of 1 to 128 letters, digits or _-.:/")
    parameters = _NO_PARAMETERS if given is None else plain_json(given, f"{at}.function.parameters")
    return Tool(name=name, description=function.description or "", parameters=parameters)


def tool_choice(given: str | ToolChoice | None) -> Choice:
    """Raises ParameterError when it is neither a mode, nor a named function, nor a list of those allowed."""
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
    if given.type == "allowed_tools":
        return _allowed(given.allowed_tools, "tool_choice.allowed_tools")
    return Choice("required", function_of(given, "tool_choice").name)


def _allowed(given: AllowedTools | None, at: str) -> Choice:
    if given is None:
        raise ParameterError(at, "is required: an object with mode and tools")
    if given.mode not in ("auto", "required"):
        raise ParameterError(f"{at}.mode", f"{given.mode!r:.60} is not one of auto, required")
    names = tuple(function_of(tool, f"{at}.tools[{index}]").name for index, tool in enumerate(given.tools))
    return Choice(cast("Mode", given.mode), allowed=names)
