"""From a request's body to a typed value: strict on types, lenient on unknown keys, one line on what is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from nbllm.errors import InvalidRequestError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

_Body = TypeVar("_Body", bound=msgspec.Struct)
_Value = TypeVar("_Value")
_MAX_DEPTH = 100
MAX_UNKNOWN = 20
"""Keys of one kind that are reported."""
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_WORDS = {
    "int": "a number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_GOT = _WORDS | {"bool": "a boolean"}
_HINTS = {"model": "is required: the name of a model, or 'default'"}


def decoded(body: bytes, kind: type[_Body]) -> tuple[_Body, dict[str, Any]]:
    """The body as `kind`, and as the plain dict it was.

    Raises:
        InvalidRequestError: it is no JSON object.
        ParameterError: a field is missing or of a wrong type.
    """
    raw = json_object(body)
    try:
        return msgspec.convert(raw, kind), raw
    except msgspec.ValidationError as exc:
        raise field_error(str(exc)) from None


def json_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidRequestError when the body is anything else."""
    if not body.strip():
        raise InvalidRequestError("the body is empty: send a JSON object")
    try:
        raw = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except msgspec.ValidationError:  # numbers of thousands of digits, or beyond 1e308
        raise InvalidRequestError("the body is not usable: a number in it is out of range") from None
    except RecursionError:
        raise InvalidRequestError("the body is not usable: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidRequestError("the body is not valid JSON: it is not in UTF-8") from None
    except msgspec.DecodeError as exc:
        raise InvalidRequestError(f"the body is not valid JSON: {_reason(str(exc))}") from None
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"the body must be a JSON object, not {_json_kind(raw)}")
    return raw


def _reason(message: str) -> str:
    if "surrogate" in message:
        return "it holds half of a surrogate pair, which is no character"
    if "truncated" in message:
        return "it ends too early"
    return message.removeprefix("JSON is malformed: ")


def field_error(message: str) -> ParameterError:
    """What msgspec's message means to somebody who has not read the schema."""
    match = _PATH.fullmatch(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    if missing := _MISSING.fullmatch(what):
        name = missing["name"]
        return ParameterError(f"{path}.{name}".lstrip("."), _HINTS.get(name, "is required"))
    if wrong := _EXPECTED.fullmatch(what):
        if wrong["got"] == "null" and path in _HINTS:  # null is as good as absent
            return ParameterError(path, _HINTS[path])
        wanted = [name for name in wrong["expected"].split(" | ") if name != "null"]
        words = list(dict.fromkeys(_WORDS.get(name, name) for name in wanted))
        what = f"must be {' or '.join(words)}, not {_GOT.get(wrong['got'], wrong['got'])}"
    return ParameterError(path[:100] or "body", what[:200])


def unknown_keys(raw: Mapping[str, Any], kind: type[msgspec.Struct], known: Collection[str] = ()) -> tuple[str, ...]:
    """Keys that mean nothing here, fit for a log: a client's typing error should be found there."""
    return unknown_names(raw, (*kind.__struct_encode_fields__, *known))


def unknown_names(raw: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """The first of those that are not `known`, fit for a log."""
    return tuple(_printable(name) for name in raw if name not in known)[:MAX_UNKNOWN]


def _printable(key: str) -> str:
    return key[:60] if key.isprintable() else repr(key[:60])[1:-1]


def refuse(raw: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Raises ParameterError for a key that is understood and cannot be followed; null counts as absent."""
    for name, reason in reasons.items():
        if raw.get(name) is not None:
            raise ParameterError(name, reason)


def plain_json(value: _Value, param: str) -> _Value:
    """`value`, known to pass through every encoder on its way: not nested without end, its integers of 64 bits.

    Raises:
        ParameterError: it would not.
    """
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for part in level for inner in _inside(part, param)]
        if not level:
            return value
    raise ParameterError(param, f"is nested too deeply: at most {_MAX_DEPTH} levels are taken")


def _inside(value: object, param: str) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    if isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        raise ParameterError(param, "holds an integer of more than 64 bits")
    return ()


def json_text(value: Any, param: str) -> str:
    """`value` as compact JSON. Raises ParameterError as `plain_json` does."""
    return msgspec.json.encode(plain_json(value, param)).decode()


@contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Name parameters in errors as the client does who sent them."""
    try:
        yield
    except ParameterError as exc:
        raise ParameterError(names.get(exc.param, exc.param)[:100], exc.problem) from None


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
