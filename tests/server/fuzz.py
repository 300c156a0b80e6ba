"""Requests made from the server's own JSON Schemas: valid, at the limits, of wrong types, and hostile.

python tests/server/fuzz.py --real 300          against the command with the bundled model
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core import RANGES
from nbllm.wire.openai.shapes import json_schema
from tests.server.serving import Answer, Client, real_server

HANG_S, REAL_HANG_S = 5.0, 30.0  # the real model needs seconds for three long texts
ROUTES: dict[str, Any] = {
    "v1/chat/completions": "chat",
    "v1/chat/completions/input_tokens": "chat",
    "v1/completions": "completion",
    "v1/embeddings": "embeddings",
    "v1/tokenize": "tokenize",
    "v1/detokenize": "detokenize",
}
_MOST_TOKENS = 8
_LONG = "word " * 400
_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "Hi",
            "\x00",
            "\ud800",
            "\udfff\ud800",
            "a\r\nX-Evil: 1",
            "<|im_end|>",
            "{{ 7 }}",
            "🎈",
            _LONG,
            "%s%n",
        ]
    ),
    st.sampled_from(["[", "(a+)+$", "[a-z]{3}", 'root ::= "a"', "root ::= root", 'start: "b"', "start: start"]),
)
_NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([2**31, 2**31 - 1, -(2**31), 2**63, -(2**63) - 1, 2**64, 10**30, 1e308, -0.0, 0.5, 1688.0, 1e-320]),
)
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_SCHEMAS: list[Any] = [
    True,
    False,
    {},
    {"type": "object"},
    {"type": "nothing"},
    {"$ref": "#"},
    {"$ref": "http://localhost/x"},
    {"type": "string", "pattern": "("},
    {"type": "string", "maxLength": 3},
    {"allOf": [{"type": "object"}] * 50},
    {"enum": []},
    {"type": "integer", "minimum": 5, "maximum": 1},
    {"properties": {"a": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}}, "required": ["a"]},
]
_KINDS = ["application/json", "text/plain", "application/x-www-form-urlencoded", "", "image/png", "x;y=\xff", "a" * 300]
_HEADERS: list[dict[str, str]] = [
    {},
    {},
    {},
    {"Origin": "https://evil.example"},
    {"X-Forwarded-For": "1.2.3.4, \xff"},
    {"Accept": "\xe4" * 50},
    {"Content-Encoding": "gzip"},
    {"Cookie": "_xsrf=; username-localhost=x"},
    {"X-Api-Key": "\xff"},
    {"User-Agent": "a" * 5000},
]


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: bytes = field(repr=False)
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"Asked({self.path!r}, {self.body[:2000]!r}, {self.headers!r})"


@st.composite
def requests(draw: st.DrawFn, path: str, model: str, most_tokens: int) -> Asked:
    """A request for the route; what a valid one generates is at most `most_tokens`."""
    body = draw(_bodies_of(path))
    if isinstance(body, dict):
        _restrain(body, model if draw(st.integers(0, 19)) else body.get("model"), most_tokens)
        if "messages" in body and draw(st.integers(0, 3)):  # else nearly every chat fails at its first message
            body["messages"] = [{"role": "user", "content": draw(_TEXTS)}]
    data = json.dumps(body).encode("utf-8", "surrogatepass")
    return Asked(path, draw(_harmed(data)), draw(_headers()))


@st.composite
def _bodies_of(draw: st.DrawFn, path: str) -> Any:
    if not draw(st.integers(0, 29)):
        return draw(_ANYTHING)
    schema = json_schema(ROUTES[path])
    return draw(_value(schema, schema["$defs"], ()))


@st.composite
def _value(draw: st.DrawFn, schema: Any, parts: dict[str, Any], at: tuple[str, ...]) -> Any:
    """Mostly what the schema says, now and then something else."""
    if at and not draw(st.integers(0, 24)):
        return draw(_ANYTHING)
    if "$ref" in schema:
        return draw(_value(parts[schema["$ref"].rpartition("/")[2]], parts, at))
    if "anyOf" in schema:
        return draw(_value(draw(st.sampled_from(schema["anyOf"])), parts, at))
    if "enum" in schema and draw(st.integers(0, 9)):
        return draw(st.sampled_from(schema["enum"]))
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = draw(st.sampled_from(kind))
    if kind == "object" or "properties" in schema:
        return draw(_object(schema, parts, at))
    if kind == "array":
        return [draw(_value(schema.get("items", {}), parts, at)) for _ in range(draw(st.integers(0, 3)))]
    return draw(_scalar(kind, schema))


@st.composite
def _object(draw: st.DrawFn, schema: dict[str, Any], parts: dict[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    if "properties" not in schema:  # a table, or a schema of the client's
        if at and at[-1] in ("schema", "parameters"):
            return draw(st.sampled_from(_SCHEMAS)) or {}
        return draw(
            st.dictionaries(st.one_of(st.sampled_from(["65", "-1", "999999", "x"]), _TEXTS), _NUMBERS, max_size=3)
        )
    made: dict[str, Any] = {}
    for name, field_schema in schema["properties"].items():
        is_wanted = draw(st.integers(0, 99)) < (97 if name in schema.get("required", ()) else 6)
        if is_wanted:
            made[name] = draw(_value(field_schema, parts, (*at, name)))
    if not draw(st.integers(0, 19)):
        made[draw(_TEXTS)] = draw(_ANYTHING)
    return made


def _scalar(kind: str | None, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "null":
        return st.none()
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        return _TEXTS
    if kind in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is None or high is None:
            return st.one_of(st.integers(0, 9), _NUMBERS)
        edges = [edge + step for edge in (low, high) for step in (-1, 0, 1)]
        inside = st.integers(int(low), min(int(high), 2**31))
        return st.one_of(inside, inside, inside, st.floats(low, high), st.sampled_from(edges), _NUMBERS)
    return _ANYTHING


def _restrain(body: dict[str, Any], model: Any, most_tokens: int) -> None:
    """Keep a valid request short; one that is refused stays as it is."""
    body["model"] = model
    for name, most in (("max_tokens", most_tokens), ("max_completion_tokens", most_tokens), ("n", 3), ("best_of", 3)):
        value = body.get(name)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and most < value <= float(RANGES.get(name, RANGES["n"]).high or 0)
        ):
            body[name] = most
    if body.get("keep_alive") in (0, "0", -0.0):
        del body["keep_alive"]  # loading a real model again takes longer than a request may hang
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = most_tokens


@st.composite
def _harmed(draw: st.DrawFn, data: bytes) -> bytes:
    how = draw(st.integers(0, 40))
    if how == 0:
        return data[: draw(st.integers(0, len(data)))]
    if how == 1:
        place = draw(st.integers(0, len(data)))
        return data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place:]
    if how == 2:
        return b"\xef\xbb\xbf" + data
    if how == 3 and data.startswith(b'{"'):
        return b'{"model":"x","stream":true,"stream":false,' + data[1:]
    if how == 4:
        depth = draw(st.sampled_from([50, 999, 100_000]))
        return b'{"model":"toy","messages":' + b"[" * depth + b"]" * depth + b"}"
    if how == 5:
        return data.replace(b"1", b"1" * 400).replace(b"0", b"0e99999")
    return data


@st.composite
def _headers(draw: st.DrawFn) -> dict[str, str]:
    kind = draw(st.sampled_from(_KINDS)) if not draw(st.integers(0, 9)) else "application/json"
    return {"Content-Type": kind, **draw(st.sampled_from(_HEADERS))}


def check(answer: Answer) -> None:
    """Raises AssertionError for what no request may get."""
    status = answer.status
    assert status < 500 or status == 503, (status, answer.body[:500])
    assert status in (200, 400, 401, 403, 404, 413, 415, 429, 503), status
    assert "Set-Cookie" not in answer.headers
    assert "X-Evil" not in answer.headers
    if status != 200:
        assert answer.error["type"]
        assert status not in (429, 503) or answer.headers["Retry-After"]
    elif "event-stream" in answer.headers["Content-Type"]:
        last = answer.events[-1]
        assert last == "[DONE]" or set(last) == {"error"}
    else:
        assert answer.json()


def run(
    client: Client, path: str, count: int, *, model: str, hang_s: float = HANG_S, seeded: bool = True
) -> dict[int, int]:
    """Ask so often; gives how many got each status."""
    found: dict[int, int] = {}

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=seeded, suppress_health_check=list(HealthCheck)
    )
    @given(requests(path, model, _MOST_TOKENS))
    def ask(asked: Asked) -> None:
        answer = client.request("POST", path, asked.body, asked.headers, timeout_s=hang_s)
        found[answer.status] = found.get(answer.status, 0) + 1
        check(answer)

    ask()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", type=int, default=300, metavar="COUNT")
    count = parser.parse_args().real
    with tempfile.TemporaryDirectory() as folder, real_server(Path(folder)) as client:
        client.request("POST", "v1/tokenize", {"model": "smollm2", "content": "x"}, timeout_s=60)
        report = {
            path: run(client, path, count // len(ROUTES), model="smollm2", hang_s=REAL_HANG_S, seeded=False)
            for path in ROUTES
        }
        after = client.request("POST", "v1/tokenize", {"model": "smollm2", "content": "x"})
    sys.stdout.write(json.dumps({"statuses": report, "answers afterwards": after.status == 200}, indent=1) + "\n")


if __name__ == "__main__":
    main()
