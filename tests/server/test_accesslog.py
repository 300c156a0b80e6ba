from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.server.accesslog import access_line, shown


def test_access_line_with_everything() -> None:
    line = access_line(
        key="laptop",
        user="Bob M",
        method="POST",
        path="/v1/chat/completions",
        model="smollm2",
        status=200,
        prompt_tokens=12,
        completion_tokens=64,
        duration_s=0.8123,
    )
    assert line == (
        'key=laptop user="Bob M" POST /v1/chat/completions model=smollm2 status=200 prompt=12 completion=64 ms=812'
    )


def test_access_line_of_a_refusal() -> None:
    line = access_line(key="-", method="GET", path="/v1/models", status=401, duration_s=0.0004)
    assert line == "key=- GET /v1/models status=401 ms=0"


def test_access_line_leaves_out_the_query() -> None:
    assert "secret" not in access_line(key="-", method="GET", path="/v1/models?token=secret", status=200, duration_s=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("team/gemma:7b", "team/gemma:7b", id="plain"),
        pytest.param("", '""', id="empty"),
        pytest.param("a\nstatus=200", '"a\\nstatus=200"', id="newline"),
        pytest.param('a" status=200', '"a\\" status=200"', id="quote"),
        pytest.param("a\\", '"a\\\\"', id="backslash"),
        pytest.param("\x1b[31m\0", '"\\x1b[31m\\x00"', id="terminal"),
        pytest.param("a\u2028b\u202ec", '"a\\u2028b\\u202ec"', id="line separator, right to left"),
        pytest.param("\ud800", '"\\ud800"', id="surrogate"),
        pytest.param("größe", '"größe"', id="letters"),
        pytest.param("a" * 64, "a" * 64, id="64"),
        pytest.param("a" * 65, '"' + "a" * 63 + '…"', id="65"),
    ],
)
def test_shown(value: str, expected: str) -> None:
    assert shown(value) == expected


@given(user=st.text(), model=st.text(), path=st.text())
def test_access_line_is_one_line_of_unambiguous_fields(user: str, model: str, path: str) -> None:
    line = access_line(key="k", user=user, method="GET", path=path, model=model, status=200, duration_s=1)
    assert line.isprintable()
    outside = _without_quoted(line)
    assert outside.count("status=200") == 1
    assert outside.count(" ms=") == 1


def _without_quoted(line: str) -> str:
    kept, is_quoted, is_escaped = [], False, False
    for character in line:
        if is_escaped:
            is_escaped = False
        elif is_quoted and character == "\\":
            is_escaped = True
        elif character == '"':
            is_quoted = not is_quoted
        elif not is_quoted:
            kept.append(character)
    assert not is_quoted
    return "".join(kept)
