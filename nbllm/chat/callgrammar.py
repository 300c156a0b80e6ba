"""Grammars that calls of given tools follow, for an answer that has to be one, or may have another shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nbllm.chat import constraints
from nbllm.chat.callformats import CallFormat
from nbllm.chat.toolprompt import described
from nbllm.core import Constraint, Tool
from nbllm.errors import ConstraintError

_BREAK = '"\\n"?'
# With one of these an object's properties are not all that there is to know of it, so that it cannot be closed.
_OPEN_WORDS = frozenset(
    (
        *("$ref", "additionalProperties", "allOf", "anyOf", "dependentSchemas", "if", "maxProperties"),
        *("minProperties", "not", "oneOf", "patternProperties", "propertyNames", "unevaluatedProperties"),
    )
)


class ToolSchemaError(ConstraintError):
    """The parameters of one tool cannot be enforced."""

    def __init__(self, tool: str, problem: str) -> None:
        super().__init__(f"tool {tool!r:.100}: {problem}")
        self.tool = tool


def call_grammar(
    form: CallFormat, tools: Sequence[Tool], most: int, *, tokens: Mapping[str, int], is_opened: bool = False
) -> str:
    """A grammar of one to `most` calls and nothing else, known to compile.

    Args:
        tokens: which of the form's marks are a control token of the vocabulary.
        is_opened: the grammar goes on after the opening of the first call.

    Raises:
        ConstraintError: the tools are too many; as ToolSchemaError, the parameters of one, which is named, are not
            supported.
    """
    schemas = [_checked(tool, schema) for tool, schema in zip(tools, described(tools), strict=True)]
    try:
        constraints.grammar(Constraint("lark", _lark(form, tools, schemas, most, {}, is_opened)))
    except ConstraintError as error:
        raise ConstraintError(f"tools: together they make too large a grammar; give fewer ({error})") from error
    return constraints.compiled_lark(_lark(form, tools, schemas, most, tokens, is_opened))


def call_or_shape_grammar(
    form: CallFormat, tools: Sequence[Tool], most: int, shape: Constraint, *, tokens: Mapping[str, int]
) -> str:
    """A grammar of one to `most` calls and nothing else, or of an answer of that shape and nothing else.

    A tool whose schema cannot be enforced takes any object: the shape is what was promised.

    Raises:
        ConstraintError: the shape is not supported.
    """
    given = constraints.grammar(shape)
    schemas = [_lenient(tool, schema) for tool, schema in zip(tools, described(tools), strict=True)]
    if form.is_bare and shape.kind == "json_schema":
        return constraints.grammar(Constraint("json_schema", json.dumps(_any_of(form, tools, schemas, shape))))
    calls = _lark(form, tools, schemas, most, tokens, False).removeprefix("start:")
    parts = json.loads(given)["grammars"] if given.startswith('{"grammars"') else [{"lark_grammar": given}]
    parts[0]["name"] = "shape"
    return json.dumps({"grammars": [{"lark_grammar": f"start: calls | @shape\ncalls:{calls}"}, *parts]})


def _any_of(
    form: CallFormat, tools: Sequence[Tool], schemas: Sequence[Mapping[str, Any]], shape: Constraint
) -> dict[str, Any]:
    """A call or a value, where both are bare JSON: two grammars that begin alike would keep to the first of them.

    An `$id` makes a schema a whole of its own, so that its references stay within it.
    """
    value = json.loads(shape.source)
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, form.arguments: {"$id": f"nbllm:tool-{place}", **schema}},
            "required": ["name", form.arguments],
            "additionalProperties": False,
        }
        for place, (tool, schema) in enumerate(zip(tools, schemas, strict=True))
    ]
    return {"anyOf": [*calls, {"$id": "nbllm:shape", **value} if isinstance(value, dict) else value]}


def _lenient(tool: Tool, described: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _checked(tool, described)
    except ToolSchemaError:
        return {"type": "object"}


def _checked(tool: Tool, described: Mapping[str, Any]) -> dict[str, Any]:
    parameters = described["function"]["parameters"] if tool.parameters else {}
    schema: dict[str, Any] = _closed(parameters if "$ref" in parameters else {"type": "object", **parameters})
    if schema.get("type", "object") != "object":
        raise ToolSchemaError(tool.name, "its parameters must be of the type 'object'")
    try:
        constraints.grammar(Constraint("json_schema", json.dumps(schema)))
    except ConstraintError as error:
        raise ToolSchemaError(tool.name, str(error)) from error
    return schema


def _closed(schema: Any) -> Any:
    """No properties but those that are described, where the schema does not say: small models make up ever more."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    if isinstance(properties := schema.get("properties"), dict):
        result["properties"] = {name: _closed(part) for name, part in properties.items()}
        if not _OPEN_WORDS & schema.keys():
            result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = _closed(schema["items"])
    return result


def _lark(
    form: CallFormat,
    tools: Sequence[Tool],
    schemas: Sequence[Mapping[str, Any]],
    most: int,
    tokens: Mapping[str, int],
    is_opened: bool,
) -> str:
    marks = {text: f"<[{tokens[text]}]>" if text in tokens else json.dumps(text) for text in form.marks}
    first = "" if is_opened or form.is_bare else marks[form.opening]
    alternatives = " | ".join(f"call_{index}" for index in range(len(tools)))
    rules = [_start(form, marks, first, most), f"call: {alternatives}"]
    for index, (tool, schema) in enumerate(zip(tools, schemas, strict=True)):
        rules.append(f"call_{index}: {_call(form, tool.name, constraints.embedded(schema), marks)}")
    return "\n".join(rules) + "\n"


def _start(form: CallFormat, marks: Mapping[str, str], first: str, most: int) -> str:
    opening = marks[form.opening]
    if form.is_list:
        calls = _repeated("call", '", " call', most)
        return f'start: {first} "[" {calls} "]"'
    if form.is_bare:
        calls = _repeated("call", f"{json.dumps(form.separator)} call", most)
        return f"start: {first} {calls}"
    body = "call" if form.after_name else f"{_BREAK} call {_BREAK} {marks[form.closing]}"
    separator = "" if form.after_name else _BREAK
    return f"start: {first} {_repeated(body, f'{separator} {opening} {body}', most)}"


def _repeated(first: str, further: str, most: int) -> str:
    return f"{first} ({further}){{0,{most - 1}}}" if most > 1 else first


def _call(form: CallFormat, name: str, arguments: str, marks: Mapping[str, str]) -> str:
    if form.after_name:
        return f"{json.dumps(name)} {marks[form.after_name]} {arguments}"
    head = f'{{"name": {json.dumps(name)}, "{form.arguments}": '
    return f'{json.dumps(head)} {arguments} "}}"'
