from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from nbllm.server.credentials import MALFORMED, MAX_LENGTH, NOTHING, Presented, is_same_secret, presented

KEY = "sk-" + "a1B2" * 12


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Authorization": f"Bearer {KEY}"}, id="bearer"),
        pytest.param({"Authorization": f"bEARER \t {KEY} "}, id="bearer in any case and with spaces"),
        pytest.param({"Authorization": f"token {KEY}"}, id="token"),
        pytest.param({"X-Api-Key": KEY}, id="x-api-key"),
        pytest.param({"x-api-key": f" {KEY}"}, id="x-api-key in any case"),
        pytest.param({"Authorization": basic(f"me:{KEY}")}, id="basic, password"),
        pytest.param({"Authorization": basic(f"{KEY}:")}, id="basic, user"),
        pytest.param({"Authorization": basic(KEY)}, id="basic, no colon"),
        pytest.param({"Authorization": f"Bearer {KEY}", "X-Api-Key": "other"}, id="bearer before x-api-key"),
        pytest.param({"Authorization": basic("proxy:password"), "X-Api-Key": KEY}, id="x-api-key before basic"),
        pytest.param({"Authorization": "Negotiate abc", "X-Api-Key": KEY}, id="another scheme is not for us"),
        pytest.param({"Authorization": "Bearer ", "X-Api-Key": KEY}, id="an empty one counts as none"),
    ],
)
def test_presented_secret(headers: dict[str, str]) -> None:
    assert presented(HTTPHeaders(headers)) == Presented(KEY)


def test_presented_secret_of_basic_may_hold_colons() -> None:
    assert presented({"Authorization": basic("me:a:b")}).secret == "a:b"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": ""}, id="empty"),
        pytest.param({"Authorization": "Bearer"}, id="no secret"),
        pytest.param({"Authorization": KEY}, id="no scheme"),
        pytest.param({"Authorization": f"Bearer{KEY}"}, id="glued"),
        pytest.param({"Authorization": basic(":")}, id="basic, both empty"),
        pytest.param({"X-Api-Key": "  "}, id="x-api-key of spaces"),
    ],
)
def test_presented_nothing(headers: dict[str, str]) -> None:
    assert presented(headers) == NOTHING


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Authorization": "Bearer a\r\nX-Evil: 1"}, id="injection"),
        pytest.param({"Authorization": "Bearer a\n"}, id="newline at the end"),
        pytest.param({"Authorization": "Bearer a b"}, id="space"),
        pytest.param({"Authorization": "Bearer a,Bearer b"}, id="twice"),
        pytest.param({"Authorization": "Bearer schlüssel"}, id="not ascii"),
        pytest.param({"X-Api-Key": "\ud800"}, id="surrogate"),
        pytest.param({"X-Api-Key": "a\0b"}, id="nul"),
        pytest.param({"Authorization": "Bearer " + "a" * (MAX_LENGTH + 1)}, id="long"),
        pytest.param({"Authorization": "Basic " + "a" * 10_000}, id="long basic"),
        pytest.param({"Authorization": "Basic !!"}, id="not base64"),
        pytest.param({"Authorization": "Basic größe"}, id="basic not ascii"),
        pytest.param({"Authorization": "Basic /w=="}, id="not utf-8 inside"),
        pytest.param({"Authorization": basic("me:a\nb")}, id="newline inside"),
    ],
)
def test_presented_malformed(headers: dict[str, str]) -> None:
    assert presented(headers) == MALFORMED


def test_presented_longest_secret() -> None:
    secret = "a" * MAX_LENGTH
    assert presented({"Authorization": f"Bearer {secret}"}).secret == secret
    assert presented({"Authorization": basic(f"me:{secret}")}).secret == secret


_values = st.one_of(st.none(), st.text(), st.builds("{}{}".format, st.sampled_from(["Basic ", "token "]), st.text()))


@given(_values, _values)
def test_presented_of_anything_is_visible_ascii_or_none(authorization: str | None, key: str | None) -> None:
    given_headers = {"Authorization": authorization, "X-Api-Key": key}
    found = presented({name: value for name, value in given_headers.items() if value is not None})
    assert found.secret is None or (found.secret.isascii() and found.secret.isprintable() and " " not in found.secret)
    assert not (found.is_malformed and found.secret)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=100))
def test_presented_is_the_same_in_every_header(secret: str) -> None:
    ways = [
        {"Authorization": f"Bearer {secret}"},
        {"X-Api-Key": secret},
        {"Authorization": basic(f"user:{secret}")},
    ]
    assert [presented(way).secret for way in ways] == [secret] * 3


def test_presented_does_not_show_its_secret() -> None:
    assert KEY not in repr(presented({"X-Api-Key": KEY}))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("abc", "abc", True, id="same"),
        pytest.param("abc", "abd", False, id="other"),
        pytest.param("", "", False, id="a server without a token"),
        pytest.param(None, "", False, id="nothing and no token"),
        pytest.param(None, "abc", False, id="nothing"),
        pytest.param("abc", "größe", False, id="token not ascii"),
    ],
)
def test_is_same_secret(one: str | None, other: str, same: bool) -> None:
    assert is_same_secret(one, other) is same
