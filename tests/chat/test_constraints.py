from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from nbllm.chat import constraints
from nbllm.core import Constraint
from nbllm.errors import ConstraintError


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether the whole text may be written under the constraint, and end there."""
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, constraints.grammar(constraint), limits=constraints.parser_limits())
    tokens = tokenizer.tokenize_str(text)
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


class Point(BaseModel):
    x: int
    label: str | None = None


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORMATS: dict[str, tuple[Any, str, str]] = {
    "json_object": ({"type": "json_object"}, '{"a": [1]}', "[1]"),
    "its name": ("json_object", "{}", "1"),
    "ollama's name": ("json", "{}", "1"),
    "json_schema": (
        {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        '{"a":1}',
        "{}",
    ),
    "flat json_schema": ({"type": "json_schema", "name": "n", "schema": SCHEMA}, '{"a":1}', "{}"),
    "bare schema": (SCHEMA, '{"a": 1}', '{"b": 1}'),
    "bare anyOf": ({"anyOf": [{"type": "null"}, {"const": 1}]}, "null", "2"),
    "bare enum": ({"enum": ["x", 1]}, '"x"', '"y"'),
    "dict": (dict, "{}", "[]"),
    "list": (list, "[1]", "{}"),
    "bool": (bool, "true", "1"),
    "int": (int, "-12", "1.5"),
    "float": (float, "1.5", '"a"'),
    "pydantic model": (Point, '{"x": 1, "label": null}', '{"label": null}'),
    "choices": (["yes", "no", "é|("], "é|(", "maybe"),
}


@pytest.mark.parametrize(("value", "good", "bad"), FORMATS.values(), ids=FORMATS.keys())
def test_response_format_becomes_a_shape(value: Any, good: str, bad: str) -> None:
    constraint = constraints.from_response_format(value)
    assert constraint is not None
    assert accepts(constraint, good)
    assert not accepts(constraint, bad)


@pytest.mark.parametrize("value", [None, "text", {"type": "text"}], ids=["none", "name", "openai"])
def test_free_text_is_no_constraint(value: Any) -> None:
    assert constraints.from_response_format(value) is None


@pytest.mark.parametrize(
    "value",
    [
        *[5, "yaml", {}, {"foo": 1}, [], [""], [1], str],
        *[{"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}],
        *[{"type": "object", "default": {1, 2}}, {"const": float("nan")}, {"const": "\ud800"}],
    ],
    ids=repr,
)
def test_response_format_that_is_no_shape_is_an_error(value: Any) -> None:
    with pytest.raises(ConstraintError):
        constraints.from_response_format(value)


def test_deep_schema_is_an_error_and_not_a_crash() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(10_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConstraintError, match="nested too deeply"):
        constraints.from_response_format(schema)


MATCHES: dict[str, tuple[Constraint, str, str]] = {
    "regex": (constraints.regex(r"[a-c]{2}/\d"), "ab/1", "abc"),
    "regex with anchors": (constraints.regex("^a+$"), "aa", "b"),
    "choice with controls": (constraints.choice(["a\nb", 'q"\\', "日本😀"]), 'q"\\', "q"),
    "choice that begins another": (constraints.choice(["a", "ab"]), "a", "b"),
    "lark": (constraints.lark('start: "a" b+\nb: "x" | "y"'), "axy", "a"),
    "gbnf": (constraints.gbnf('root ::= "a" [0-9]+ ("b" | "c")'), "a12c", "a"),
    "white space is bounded": (
        constraints.from_response_format(list) or constraints.regex(""),
        "[ 1 ]",
        "[" + " " * 50 + "1]",
    ),
    "true is any JSON": (Constraint("json_schema", "true"), '[{"a": null}]', "x"),
}


@pytest.mark.parametrize(("constraint", "good", "bad"), MATCHES.values(), ids=MATCHES.keys())
def test_grammar_allows_what_it_says(constraint: Constraint, good: str, bad: str) -> None:
    assert accepts(constraint, good)
    assert not accepts(constraint, bad)


def schema(**keywords: Any) -> Constraint:
    return Constraint("json_schema", json.dumps(keywords))


UNSUPPORTED: dict[str, tuple[Constraint, str]] = {
    "remote reference": (schema(**{"$ref": "https://example.com/x.json"}), "Default retriever"),
    "missing reference": (schema(**{"$ref": "#/$defs/x"}), "does not exist"),
    "endless reference": (schema(**{"$ref": "#"}), "no text satisfies it"),
    "unknown keyword": (schema(type="array", uniqueItems=True), "uniqueItems"),
    "not": (schema(**{"not": {"type": "string"}}), "not"),
    "keyword made lenient": (schema(**{"not": {}, "x-guidance": {"lenient": True}}), "not"),
    "overlapping oneOf": (schema(oneOf=[{"type": "string"}, {"type": "string", "minLength": 3}]), "oneOf"),
    "unknown format": (schema(type="string", format="foo"), "foo"),
    "contradiction": (schema(type="integer", minimum=5, maximum=1), "minimum"),
    "false": (Constraint("json_schema", "false"), "must be an object"),
    "a number": (Constraint("json_schema", "5"), "must be an object"),
    "not JSON": (Constraint("json_schema", "{nope"), "is not JSON"),
    "broken pattern": (schema(type="string", pattern="("), "unclosed group"),
    "broken regex": (constraints.regex("(a"), "unclosed group"),
    "look-ahead": (constraints.regex("(?=a)b"), "look-around"),
    "back-reference": (constraints.regex(r"(a)\1"), "backreferences"),
    "regex of nothing": (constraints.regex(r"[^\s\S]"), "no text satisfies it"),
    "broken lark": (constraints.lark("start: ("), "Expected token"),
    "lark without start": (constraints.lark('a: "a"'), "no start rule"),
    "lark of nothing": (constraints.lark("start: start"), "no text satisfies it"),
    "undefined rule": (constraints.lark("start: foo"), "unknown name"),
    "broken gbnf": (constraints.gbnf("root ::= ("), "Expected"),
    "gbnf without root": (constraints.gbnf('foo ::= "a"'), "root"),
    "broken choices": (Constraint("choice", "[]"), "list of texts"),
    "unknown kind": (Constraint("yaml", "a"), "one of json_schema"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), 10**19, [1, {"a": 10**400}]], ids=["+", "-", "19", "in it"])
@pytest.mark.parametrize("word", ["enum", "const"])
def test_integer_that_would_be_rounded_is_no_choice(word: str, value: Any) -> None:
    """Of 9007199254740993 llguidance makes 9007199254740992, and -2**63 ends the process."""
    with pytest.raises(ConstraintError, match=r"integer beyond 9,007,199,254,740,992.*write it as a text"):
        constraints.grammar(schema(type="object", properties={"a": {word: [value]}}))


def test_field_called_like_a_keyword_is_a_schema() -> None:
    fields = {"enum": {"type": "integer", "maximum": 2**60}, "const": {"type": "string"}}
    constraint = schema(type="object", properties=fields, required=["enum", "const"], additionalProperties=False)
    assert accepts(constraint, '{"enum": 1152921504606846976, "const": "a"}')


@pytest.mark.parametrize("form", [int, Point], ids=["int", "pydantic"])
def test_integers_of_a_python_type_have_at_most_18_digits(form: Any) -> None:
    constraint = constraints.from_response_format(form)
    assert constraint is not None
    shown = "{}" if form is int else '{{"x": {}, "label": null}}'
    for number in (0, -5, 123_456_789_012_345_678, -999_999_999_999_999_872):
        assert accepts(constraint, shown.format(number))
    for number in (10**18, -(10**18), 10**30):
        assert not accepts(constraint, shown.format(number))


def test_object_of_a_pydantic_model_is_no_shape() -> None:
    with pytest.raises(ConstraintError, match="response_format: give the class Point"):
        constraints.from_response_format(Point(x=1, label=None))


@pytest.mark.parametrize(("constraint", "problem"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_unsupported_constraint_says_why_in_one_line(constraint: Constraint, problem: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        constraints.grammar(constraint)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{index}": {} for index in range(count)}}


BOMBS: dict[str, Constraint] = {
    "deep schema": Constraint("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000),
    "deep JSON": Constraint("json_schema", '{"const":' + "[" * 50_000 + "]" * 50_000 + "}"),
    "huge schema": schema(enum=[f"value {index}" for index in range(50_000)]),
    "many properties": schema(**optional(5_000)),
    "many optional properties": schema(**optional(1_000)),
    "many objects": schema(prefixItems=[optional(900) for _ in range(15)]),
    "products of anyOf": schema(
        allOf=[{"anyOf": [{"properties": {f"a{n}": {"const": m}}} for m in range(4)]} for n in range(16)]
    ),
    "long text": schema(type="string", maxLength=10**18),
    "nested repetition": constraints.regex("(a{1000}){1000}{1000}"),
    "more nested repetition": constraints.regex("(" * 10 + "a" + "{10})" * 10 + "{10}"),
    "deep regex": constraints.regex("(" * 20_000 + "a" + ")" * 20_000),
    "lark repetition": constraints.lark('start: "a"{1000000000}'),
    "lark terminal": constraints.lark('start: T\nT: ("a"{10000}){10000}'),
    "lark tripling": constraints.lark(
        "start: r0\n" + "".join(f"r{n}: r{n + 1} r{n + 1} r{n + 1}\n" for n in range(60)) + 'r60: "x"'
    ),
    "lark terminal tripling": constraints.lark(
        "start: T0\n" + "".join(f"T{n}: T{n + 1} T{n + 1} T{n + 1}\n" for n in range(60)) + 'T60: "x"'
    ),
    "deep lark": constraints.lark("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "deep gbnf": constraints.gbnf("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "gbnf repetition": constraints.gbnf('root ::= "a"{1000000000}'),
}


def test_bombs_are_errors_in_a_process_that_lives() -> None:
    script = (
        "import json, resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (30, 30))\n"
        "from nbllm.chat.constraints import grammar\nfrom nbllm.core import Constraint\n"
        "from nbllm.errors import ConstraintError\nheld = []\n"
        "for name, kind, source in json.load(sys.stdin):\n"
        "    try:\n        grammar(Constraint(kind, source))\n"
        "    except ConstraintError as error:\n        assert chr(10) not in str(error)\n        held.append(name)\n"
        "print(json.dumps(held))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([(name, bomb.kind, bomb.source) for name, bomb in BOMBS.items()]),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(BOMBS)


@pytest.mark.parametrize("source", ["a" * 300_000, "\ud800"], ids=["long", "surrogate"])
def test_text_that_cannot_be_a_grammar_is_an_error(source: str) -> None:
    with pytest.raises(ConstraintError):
        constraints.regex(source)


PARSED: dict[str, tuple[Constraint, str, object]] = {
    "object": (schema(type="object"), '{"a": [1, null]}', {"a": [1, None]}),
    "cut": (schema(type="object"), '{"a": [1', None),
    "deep": (schema(type="array"), "[" * 100_000, None),
    "choice": (constraints.choice(["1", "2"]), "1", "1"),
    "regex": (constraints.regex("[0-9]"), "1", "1"),
}


@pytest.mark.parametrize(("constraint", "text", "value"), PARSED.values(), ids=PARSED.keys())
def test_parse_gives_the_value(constraint: Constraint, text: str, value: object) -> None:
    assert constraints.parse(constraint, text) == value


def outcome(constraint: Constraint) -> str:
    """The error's text, or none; anything but a ConstraintError escapes."""
    try:
        constraints.grammar(constraint)
    except ConstraintError as error:
        return str(error)
    return ""


leaves = st.sampled_from(
    [
        *[{"type": "string"}, {"type": "integer", "minimum": -3}, {"const": [1]}, {"enum": ["a", 2, None]}, {}, True],
        *[{"type": "string", "pattern": "^a|b+$"}, {"type": "number", "multipleOf": 0.5}, {"$ref": "#/$defs/d"}],
    ]
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, inner, st.integers(0, 5)),
        st.builds(
            lambda properties, extra: {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:1],
                "additionalProperties": extra,
            },
            st.dictionaries(st.text(max_size=3), inner, max_size=3),
            inner,
        ),
        st.builds(
            lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "allOf", "oneOf"]), st.lists(inner, max_size=3)
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(schemas)
def test_any_schema_is_a_grammar_or_an_error(value: Any) -> None:
    definitions = {"d": {"type": "array", "items": {"$ref": "#/$defs/d"}}}
    source = json.dumps({**value, "$defs": definitions} if isinstance(value, dict) else value)
    assert outcome(Constraint("json_schema", source)).count("\n") == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["regex", "lark", "gbnf"]),
    st.text(st.sampled_from("ab01()[]{}|*+?\\^$.:=/\"' \nstartroot%&~-,é"), max_size=40),
)
def test_any_text_is_a_grammar_or_an_error(kind: Any, source: str) -> None:
    assert outcome(Constraint(kind, source)).count("\n") == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=5))
def test_every_choice_is_accepted_word_for_word(options: list[str]) -> None:
    constraint = constraints.choice(options)
    assert all(accepts(constraint, option) for option in options)


def test_exception_of_a_signal_handler_is_not_the_grammars_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class AlarmError(Exception):
        """What the handler of a signal may raise, at any moment."""

    def rung(*_: object) -> None:
        raise AlarmError

    with monkeypatch.context() as patch:
        patch.setattr(constraints, "_trial", rung)
        with pytest.raises(AlarmError):
            constraints.grammar(constraints.regex("an alarm rings[0-9]"))
    assert constraints.grammar(constraints.regex("an alarm rings[0-9]"))
