"""Python functions and other forms of tools, and which of them is to be called."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest

from nbllm.chat.functions import ToolChoice, as_tool, as_tools, tool_choice
from nbllm.core import Tool
from nbllm.errors import ParameterError


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


def get_weather(city: str, unit: Unit = Unit.CELSIUS, *, days: int = 1) -> str:
    """Say what the weather is.

    It asks a service.

    Args:
        city: its name,
            in English: Rome
        days (int): how many

    Returns:
        unit: not an argument.
    """
    return f"{city} {unit} {days}"


def test_function_is_a_tool_with_its_signature_and_docstring() -> None:
    assert as_tool(get_weather) == Tool(
        name="get_weather",
        description="Say what the weather is.\n\nIt asks a service.",
        parameters={
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "its name, in English: Rome"},
                "unit": {"enum": ["c", "f"], "type": "string"},
                "days": {"type": "integer", "description": "how many"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (dict, {"type": "object", "additionalProperties": True}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 -- people write it
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Annotated[int, "a count"], {"type": "integer", "description": "a count"}),
        (Unit, {"enum": ["c", "f"], "type": "string"}),
    ],
    ids=str,
)
def test_type_is_a_schema(kind: Any, schema: dict[str, Any]) -> None:
    def function(a):  # type: ignore[no-untyped-def]
        """Take a thing."""

    function.__annotations__ = {"a": kind}
    parameters = as_tool(function).parameters
    assert parameters is not None
    assert parameters["properties"]["a"] == schema


def test_schema_of_every_type_can_be_enforced() -> None:
    from nbllm.chat.callformats import HERMES
    from nbllm.chat.callgrammar import call_grammar

    def function(
        a: list[dict[str, int]], b: tuple[int, str], c: Unit | None, d: Literal[1, "x"], e: Any, f: float = 1.0
    ) -> None:
        """Take all of it."""

    assert call_grammar(HERMES, [as_tool(function)], 2, tokens={})


def test_pydantic_model_is_a_tool() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Weather", __doc__="The weather.", city=(str, ...))
    tool = as_tool(model)
    assert (tool.name, tool.description) == ("Weather", "The weather.")
    assert tool.parameters is not None
    assert tool.parameters["required"] == ["city"]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {"name": "f", "description": "d", "parameters": {"type": "object"}},
        Tool(name="f", description="d", parameters={"type": "object"}),
    ],
    ids=["openai", "openai's newer", "bare", "tool"],
)
def test_other_forms_are_tools(value: Any) -> None:
    assert as_tools([value]) == (Tool(name="f", description="d", parameters={"type": "object"}),)


def _positional(a: int, /) -> None: ...
def _starred(*a: int) -> None: ...
def _named(**a: int) -> None: ...
def _complex(a: complex) -> None: ...
def _unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (_positional, "gives arguments by name"),
        (_starred, "gives arguments by name"),
        (_named, "gives arguments by name"),
        (_complex, r"_complex\(a: 'complex'\): a model cannot give"),
        (_unknown, "cannot be read"),
        (lambda: None, "is no name of a tool"),
        (7, "is no tool: give a Python function"),
        (int, "is no tool"),
        ({"type": "retrieval"}, "names no function"),
        ({"name": "a b"}, "is no name of a tool"),
        ({"name": "f", "params": {}}, "has no key 'params'; its keys are name"),
        ({"name": "f", "parameters": "x"}, "must be a JSON Schema"),
        ({"name": "f", "description": 1}, "must be a string"),
    ],
)
def test_what_is_no_tool_says_what_to_give(value: Any, problem: str) -> None:
    with pytest.raises(ParameterError, match=f"^tools: .*{problem}"):
        as_tool(value)


@pytest.mark.parametrize("values", ["f", {"name": "f"}, 7], ids=["text", "dict", "number"])
def test_tools_are_a_list(values: Any) -> None:
    with pytest.raises(ParameterError, match=r"^tools: must be a list"):
        as_tools(values)


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, ToolChoice("auto")),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("get_weather", ToolChoice("required", "get_weather")),
        (get_weather, ToolChoice("required", "get_weather")),
        (Tool(name="f"), ToolChoice("required", "f")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", "f")),
        ({"type": "function", "name": "f"}, ToolChoice("required", "f")),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_choice_is_understood(value: str | Callable[..., Any] | dict[str, Any] | None, choice: ToolChoice) -> None:
    assert tool_choice(value) == choice


@pytest.mark.parametrize("value", [7, {"type": "web_search"}, {"type": "function"}, []], ids=str)
def test_choice_that_is_none_says_what_to_give(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"^tool_choice: must be 'auto'"):
        tool_choice(value)
