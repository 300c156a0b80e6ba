"""What a person gives as a tool, a Python function mostly, made into the Tool that a model is told of."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from nbllm.core import Tool
from nbllm.errors import ParameterError

Choice = Literal["auto", "none", "required"]
_CHOICES = ("auto", "none", "required")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_LISTS = (list, tuple, set, frozenset, Sequence, Iterable)
_KEYS = ("name", "description", "parameters", "strict")
_SECTION = re.compile(r"\s*(Args|Arguments|Parameters):\s*")
_ARGUMENT = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.+)")
_FORMS = "give a Python function, a pydantic model, an nbllm.core.Tool, or OpenAI's dict with 'function'"


class ToolChoice(NamedTuple):
    """Whether tools may or must be called, and which."""

    choice: Choice = "auto"
    forced: str | None = None


def as_tools(values: object) -> tuple[Tool, ...]:
    """The tools of a list.

    Raises:
        ParameterError: it is none, or one of them is no tool.
    """
    if values is None:
        return ()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ParameterError("tools", f"must be a list, not {values!r:.100}; {_FORMS}")
    return tuple(map(as_tool, values))


def as_tool(value: Any) -> Tool:
    """One tool; its name is checked, its parameters are when a request has them."""
    if isinstance(value, Tool):
        tool = value
    elif isinstance(value, Mapping):
        tool = _from_mapping(value)
    elif callable(getattr(value, "model_json_schema", None)):
        tool = _from_model(value)
    elif callable(value) and not isinstance(value, type):
        tool = _from_function(value)
    else:
        raise ParameterError("tools", f"{value!r:.100} is no tool: {_FORMS}")
    if not isinstance(tool.name, str) or not _NAME.fullmatch(tool.name):
        problem = "is no name of a tool: use up to 64 letters, digits, '_', '-' and '.'"
        raise ParameterError("tools", f"{tool.name!r:.100} {problem}")
    return tool


def tool_choice(value: object) -> ToolChoice:
    """OpenAI's `tool_choice`: a word, its form for one function, the function itself, or its name.

    Raises:
        ParameterError: it is none of them.
    """
    if value is None:
        return ToolChoice()
    if isinstance(value, Mapping):
        function = value.get("function", value) if value.get("type", "function") == "function" else None
        name = function.get("name") if isinstance(function, Mapping) else None
    else:
        name = value if isinstance(value, str) else getattr(value, "__name__", None) or getattr(value, "name", None)
    if not isinstance(name, str):
        known = "'auto', 'none', 'required', the name of a tool, or {'type': 'function', 'function': {'name': ...}}"
        raise ParameterError("tool_choice", f"must be {known}, not {value!r:.100}")
    if isinstance(value, str) and name in _CHOICES:
        return ToolChoice(cast("Choice", name))
    return ToolChoice("required", name)


def _from_mapping(value: Mapping[str, Any]) -> Tool:
    function = value.get("function") if value.get("type") == "function" and "function" in value else value
    if not isinstance(function, Mapping) or "name" not in function:
        raise ParameterError("tools", f"{dict(value)!r:.100} names no function; {_FORMS}")
    unknown = [key for key in function if key not in (*_KEYS, "type")]
    if unknown:
        raise ParameterError("tools", f"a function has no key {unknown[0]!r:.100}; its keys are {', '.join(_KEYS)}")
    description, parameters = function.get("description"), function.get("parameters")
    if description is not None and not isinstance(description, str):
        raise ParameterError("tools", f"the description of {function['name']!r:.100} must be a string")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ParameterError("tools", f"the parameters of {function['name']!r:.100} must be a JSON Schema, an object")
    return Tool(name=function["name"], description=description or "", parameters=parameters)


def _from_model(model: Any) -> Tool:
    schema = _schema_of_model(model)
    description = schema.pop("description", "")
    return Tool(name=model.__name__, description=description, parameters=schema)


def _schema_of_model(model: Any) -> dict[str, Any]:
    try:
        schema = dict(model.model_json_schema())
    except Exception as error:  # pydantic's own errors, or whatever a look-alike raises
        raise ParameterError("tools", f"{model!r:.100} has no JSON Schema: {error}") from error
    schema.pop("title", None)
    return schema


def _from_function(function: Callable[..., Any]) -> Tool:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
        annotated = function if hasattr(function, "__name__") else type(function).__call__
        hints = typing.get_type_hints(annotated, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise ParameterError("tools", f"the signature of {name} cannot be read: {error}") from error
    summary, arguments = _documented(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ParameterError(
                "tools", f"{name}({parameter}): a model gives arguments by name; write a parameter for each"
            )
        schema = _schema(hints.get(parameter.name, Any), f"{name}({parameter})")
        described = arguments.get(parameter.name)
        properties[parameter.name] = {**schema, "description": described} if described else schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Tool(name=name, description=summary, parameters=parameters)


def _schema(kind: Any, where: str) -> dict[str, Any]:
    """The JSON Schema of a type. Raises ParameterError for one that JSON has no values of."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is typing.Annotated:
        texts = [text for text in arguments[1:] if isinstance(text, str)]
        schema = _schema(arguments[0], where)
        return {**schema, "description": texts[0]} if texts else schema
    if origin is Literal:
        return _choices(arguments, where)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(part, where) for part in arguments]}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choices([member.value for member in kind], where)
    if callable(getattr(kind, "model_json_schema", None)):
        return _schema_of_model(kind)
    return _container(origin or kind, arguments, where)


def _container(kind: Any, arguments: tuple[Any, ...], where: str) -> dict[str, Any]:
    if kind in (dict, Mapping):
        values = _schema(arguments[1], where) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values or True}
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        parts = [_schema(part, where) for part in arguments]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if kind in _LISTS:
        items = _schema(arguments[0], where) if arguments else {}
        return {"type": "array", "items": items} if items else {"type": "array"}
    raise ParameterError(
        "tools", f"{where}: a model cannot give a {kind!r:.60}; use str, int, float, bool, list, dict, Literal or Enum"
    )


def _choices(values: Sequence[Any], where: str) -> dict[str, Any]:
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise ParameterError("tools", f"{where}: the choices must be texts or numbers")
    kinds = {_PLAIN.get(type(value)) for value in values}
    return {"enum": list(values), **({"type": kinds.pop()} if len(kinds) == 1 and None not in kinds else {})}


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each argument in a section such as Google's style has."""
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if _SECTION.fullmatch(line)), len(lines))
    found: dict[str, str] = {}
    last = ""
    indent = 0
    for line in lines[begin + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line.strip() and not depth:
            break
        entry = _ARGUMENT.fullmatch(line.strip())
        if entry and (not last or depth <= indent):
            last, indent = entry.group(1), depth
            found[last] = entry.group(2).strip()
        elif last and line.strip():
            found[last] += " " + line.strip()
    return "\n".join(lines[:begin]).strip(), found
