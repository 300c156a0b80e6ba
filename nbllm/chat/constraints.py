"""What a person or a client says about the shape of an answer, to a Constraint, to a grammar that llguidance takes.

`from_response_format`, `regex`, `choice`, `lark` and `gbnf` only look at the form, which is cheap. `grammar` compiles
and tries the result, so that what cannot be enforced is an error when the request is made: nothing is left out of a
schema in silence. Whoever builds a matcher from a grammar passes `parser_limits()` too, which the trial was run under.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nbllm.chat.schemas import INTEGER, bounded
from nbllm.core import Constraint
from nbllm.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions, LLParserLimits

_MAX_SOURCE = 256 * 1024
# llguidance takes time by the square of an object's optional properties: 10,000 of them are twelve seconds.
_MAX_PROPERTIES, _MAX_PROPERTIES_IN_ALL = 1_000, 5_000
_LEXER_FUEL = 300_000  # a third of llguidance's own: the worst expression found fails in 0.2 s instead of 1.3 s
_TRIAL_STEPS = 16
# White space between the parts of a JSON text; without a bound some models write nothing else.
_JSON_OPTIONS: JsonCompileOptions = {
    "whitespace_flexible": True,
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}",
    "coerce_one_of": False,
    "lenient": False,
}
_PLAIN_TYPES: Mapping[object, Mapping[str, Any]] = {
    dict: {"type": "object"},
    list: {"type": "array"},
    bool: {"type": "boolean"},
    int: INTEGER,
    float: {"type": "number"},
}
_EXACT = range(-(2**53), 2**53 + 1)
"""Integers that llguidance takes as they are when one of them is to be the answer. It rounds others, or crashes."""
_NAMED_PARTS = frozenset(("properties", "patternProperties", "$defs", "definitions"))
"""What holds schemas under names of the user's own."""
_SCHEMA_KEYS = frozenset(
    (
        "type",
        "properties",
        "required",
        "items",
        "prefixItems",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "$defs",
    )
)
_NAMES = {
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "choice": "the list of choices",
    "lark": "the Lark grammar",
    "gbnf": "the GBNF grammar",
}
_FORMS = (
    "give 'json_object', {'type': 'json_schema', 'json_schema': {'schema': {...}}}, a JSON Schema, "
    "a list of choices, dict, list, bool, or a pydantic model"
)


def from_response_format(value: object) -> Constraint | None:
    """What OpenAI's `response_format`, or its shorter forms here, ask for; None is free text.

    Raises:
        ConstraintError: `value` is none of the forms.
    """
    if value is None or value == "text":
        return None
    if isinstance(value, Constraint):
        return value
    if isinstance(value, str):
        return _from_name(value)
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, list | tuple):
        return choice(value)
    if isinstance(value, type) and value in _PLAIN_TYPES:
        return _schema(_PLAIN_TYPES[value])
    if callable(getattr(value, "model_json_schema", None)):
        if not isinstance(value, type):
            name = type(value).__name__
            raise ConstraintError(f"response_format: give the class {name:.100} and not one object of it")
        return _from_model(value)
    raise ConstraintError(f"response_format: {value!r:.100} is not a shape; {_FORMS}")


def regex(pattern: str) -> Constraint:
    """The whole answer matches `pattern`, in the syntax of Rust's regex crate: no look-around, no back-references."""
    return _text("regex", pattern)


def choice(options: Sequence[object]) -> Constraint:
    """The answer is one of `options`, word for word."""
    if isinstance(options, str) or not options or not all(isinstance(option, str) and option for option in options):
        raise ConstraintError(f"choices must be a list of texts, none of them empty, not {options!r:.100}")
    return _sized(Constraint("choice", _as_json(list(dict.fromkeys(options)), "choice")))


def lark(text: str) -> Constraint:
    """The answer follows a grammar in llguidance's form of Lark, which begins at the rule `start`."""
    return _text("lark", text)


def gbnf(text: str) -> Constraint:
    """The answer follows a grammar in llama.cpp's GBNF, which begins at the rule `root`."""
    return _text("gbnf", text)


def grammar(constraint: Constraint) -> str:
    """The constraint as a grammar for llguidance, known to compile and to allow some text.

    Raises:
        ConstraintError: it is broken, not supported, too large, or no text can satisfy it.
    """
    return _grammar(_sized(constraint))


def embedded(schema: Mapping[str, Any]) -> str:
    """A JSON Schema as a part of a Lark grammar, its JSON laid out as models were trained to write it: `{"a": 1}`."""
    options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    strict = {name: _JSON_OPTIONS[name] for name in ("coerce_one_of", "lenient")}
    return "%json " + json.dumps({**schema, "x-guidance": {**options, **strict}})


def compiled_lark(text: str) -> str:
    """A Lark grammar for llguidance that names tokens of one vocabulary, which `grammar` could not try."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_lark(text)


def parser_limits() -> LLParserLimits:
    """The limits under which `grammar` tries its result; without the same ones a matcher may spend seconds on it."""
    from llguidance._lib import LLParserLimits

    return LLParserLimits(initial_lexer_fuel=_LEXER_FUEL, verbose_errors=False)


def parse(constraint: Constraint, text: str) -> object | None:
    """The value of a JSON answer, None if it was cut off before its end; any other answer is its text."""
    if constraint.kind != "json_schema":
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _from_name(name: str) -> Constraint:
    if name not in ("json_object", "json"):
        raise ConstraintError(f"response_format: {name!r:.100} is not known; {_FORMS}")
    return _schema({"type": "object"})


def _from_mapping(value: Mapping[Any, Any]) -> Constraint | None:
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return _schema({"type": "object"})
    if kind == "json_schema":
        named = value.get("json_schema", value)  # OpenAI's newer interface has no inner object
        schema = named.get("schema") if isinstance(named, Mapping) else None
        if not isinstance(schema, Mapping | bool):
            raise ConstraintError("response_format: 'json_schema' needs an object with the JSON Schema as 'schema'")
        return _schema(schema)
    if not _SCHEMA_KEYS & value.keys():
        raise ConstraintError(f"response_format: {dict(value)!r:.100} is not a JSON Schema; {_FORMS}")
    return _schema(value)


def _from_model(model: Any) -> Constraint:
    try:
        return _schema(_closed(model.model_json_schema()))
    except ConstraintError:
        raise
    except Exception as exc:  # pydantic's own errors, or whatever a look-alike raises
        raise ConstraintError(f"response_format: {model!r:.100} has no JSON Schema: {_one_line(str(exc))}") from exc


def _closed(schema: Any) -> Any:
    """No fields but those of the classes, as OpenAI's strict schemas say: a small model makes up ever more of them.

    Nor does it stop writing digits, so that integers have an end too.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return bounded(closed)


def _schema(schema: Mapping[str, Any] | bool) -> Constraint:
    return _sized(Constraint("json_schema", _as_json(schema, "json_schema")))


def _as_json(value: object, kind: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except RecursionError:
        raise ConstraintError(f"{_NAMES[kind]} is nested too deeply") from None
    except (TypeError, ValueError) as exc:
        raise ConstraintError(f"{_NAMES[kind]} is not plain JSON: {_one_line(str(exc))}") from exc


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _text(kind: Any, source: object) -> Constraint:
    if not isinstance(source, str):
        raise ConstraintError(f"{_NAMES[kind]} must be a text, not {type(source).__name__}")
    return _sized(Constraint(kind, source))


def _sized(constraint: Constraint) -> Constraint:
    name = _NAMES.get(constraint.kind)
    if name is None:
        raise ConstraintError(f"a constraint is one of {', '.join(_NAMES)}, not {constraint.kind!r:.100}")
    if len(constraint.source) > _MAX_SOURCE:
        raise ConstraintError(f"{name} has {len(constraint.source):,} characters; at most {_MAX_SOURCE:,} are taken")
    try:
        constraint.source.encode()
    except UnicodeEncodeError:
        raise ConstraintError(f"{name} holds half of a surrogate pair, which is no character") from None
    return constraint


@lru_cache(maxsize=64)
def _grammar(constraint: Constraint) -> str:
    try:
        compiled = _compiled(constraint)
        problem = _trial(compiled)
    except ConstraintError:
        raise
    except RecursionError:
        problem = "it is nested too deeply"
    except BaseException as exc:
        if not _is_fault(exc):
            raise
        problem = str(exc)
    if problem:
        raise ConstraintError(f"{_NAMES[constraint.kind]} is not supported: {_reason(problem)}")
    return compiled


def _is_fault(exc: BaseException) -> bool:
    """Whether llguidance raised this, and not the handler of a signal that came meanwhile.

    pyo3's panics are no Exceptions, and the reader of GBNF raises bare ones.
    """
    kinds = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
    bare = type(exc) is Exception or type(exc).__name__ in ("PanicException", "GbnfToLarkError")
    return bare or isinstance(exc, kinds)


def _compiled(constraint: Constraint) -> str:
    from llguidance import LLMatcher

    if constraint.kind == "json_schema":
        return LLMatcher.grammar_from_json_schema(_checked_schema(constraint.source), overrides=_JSON_OPTIONS)
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    if constraint.kind == "choice":
        return LLMatcher.grammar_from_regex("|".join(map(_literal, _choices(constraint.source))))
    if constraint.kind == "gbnf":
        from llguidance.gbnf_to_lark import gbnf_to_lark

        return LLMatcher.grammar_from_lark(gbnf_to_lark(constraint.source))
    return LLMatcher.grammar_from_lark(constraint.source)


def _checked_schema(source: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except ValueError as exc:
        raise ConstraintError(f"the JSON Schema is not JSON: {_one_line(str(exc))}") from exc
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise ConstraintError(f"a JSON Schema must be an object that some value satisfies, not {source:.100}")
    total = 0
    for part, is_value in _parts(schema):
        if is_value:
            _check_exact(part)
        elif isinstance(part, dict):
            properties = part.get("properties")
            count = len(properties) if isinstance(properties, dict) else 0
            total += count
            if count > _MAX_PROPERTIES or total > _MAX_PROPERTIES_IN_ALL:
                raise ConstraintError(
                    f"the JSON Schema has too many properties: at most {_MAX_PROPERTIES:,} in an object "
                    f"and {_MAX_PROPERTIES_IN_ALL:,} in all are taken"
                )
    return schema


def _parts(schema: object) -> Iterator[tuple[object, bool]]:
    """Every part of a schema, and whether it is a value that the answer may be, or a part of one."""
    pending: list[tuple[object, bool, bool]] = [(schema, False, False)]
    while pending:
        part, is_value, has_names = pending.pop()
        yield part, is_value
        if isinstance(part, dict):
            for name, inner in part.items():
                of_value = is_value or (not has_names and name in ("enum", "const"))
                pending.append((inner, of_value, not of_value and not has_names and name in _NAMED_PARTS))
        elif isinstance(part, list):
            pending.extend((inner, is_value, False) for inner in part)


def _check_exact(value: object) -> None:
    if isinstance(value, int) and value not in _EXACT:
        raise ConstraintError(
            f"the JSON Schema has {value!r:.40} in enum or const, an integer beyond {_EXACT[-1]:,}, which cannot be "
            "held to exactly; write it as a text"
        )


def _choices(source: str) -> list[str]:
    try:
        options = json.loads(source)
    except ValueError as exc:
        raise ConstraintError(f"the list of choices is not JSON: {_one_line(str(exc))}") from exc
    if not isinstance(options, list) or not options or not all(isinstance(text, str) and text for text in options):
        raise ConstraintError("choices must be a list of texts, none of them empty")
    return options


def _literal(text: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):X}}}" for char in text)


@lru_cache(maxsize=1)
def _byte_tokenizer() -> LLTokenizer:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def _trial(compiled: str) -> str:
    """Write a few bytes under the grammar: what is wrong with it, "" if nothing is.

    Much shows only then, whatever the tokens are: a grammar that no text satisfies, and one that is small but grows
    beyond the limits when it is used.
    """
    from llguidance import LLMatcher

    matcher = LLMatcher(_byte_tokenizer(), compiled, log_level=0, limits=parser_limits())
    for _ in range(_TRIAL_STEPS):
        if matcher.is_error():
            return matcher.get_error() or "it is broken"
        byte = _last_allowed(matcher)
        if matcher.is_error() or "NoExtensionBias" in matcher.stop_reason():
            return matcher.get_error() or "no text satisfies it"
        if byte is None or matcher.is_stopped():
            break
        matcher.consume_token(byte)
    too_complex = matcher.stop_reason() in ("InternalError", "ParserTooComplex", "LexerTooComplex")
    return "it is too complex" if too_complex else ""


def _last_allowed(matcher: LLMatcher) -> int | None:
    """The highest byte that may come next, which leads out of white space; None if only the end may."""
    mask = int.from_bytes(matcher.compute_bitmask()[:32], "little")
    return mask.bit_length() - 1 if mask else None


def _reason(problem: str) -> str:
    """llguidance's messages have many lines; the one that says it comes after `error:`, else first."""
    if "panic" in problem[:20]:
        return "it is too large"
    if problem.startswith("NoExtensionBias"):
        return "no text satisfies it"
    lines = [line.strip() for line in problem.splitlines() if line.strip()] or ["it is broken"]
    marked = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return _one_line(marked[0] if marked else lines[0])


def _one_line(text: str, limit: int = 200) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[:limit] + "..."
