from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.config import Config
from nbllm.errors import ParameterError
from nbllm.server.origins import AllowedOrigins, cors_headers, is_loopback_address, is_loopback_host, preflight

LOCAL = AllowedOrigins.parse(
    f"{scheme}://{host}:*" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")
)
ANY = AllowedOrigins.parse(["*"])


@pytest.mark.parametrize(
    ("patterns", "origin", "allowed"),
    [
        pytest.param(["http://localhost:*"], "http://localhost:3000", True, id="any port"),
        pytest.param(["http://localhost:*"], "http://localhost", True, id="any port, also the usual one"),
        pytest.param(["http://localhost:*"], "https://localhost:3000", False, id="other scheme"),
        pytest.param(["http://localhost:*"], "http://localhost.evil.example", False, id="longer host"),
        pytest.param(["http://localhost:*"], "http://localhost:3000.evil.example", False, id="port and more"),
        pytest.param(["http://localhost:*"], "http://evil.example#http://localhost:1", False, id="at the end"),
        pytest.param(["http://localhost:*"], "http://localhost:*", False, id="a star is no port"),
        pytest.param(["http://localhost:*"], "http://localhost:99999", False, id="no such port"),
        pytest.param(["http://localhost:*"], "http://user@localhost:1", False, id="user"),
        pytest.param(["http://localhost:*"], "http://localhost:1/", False, id="with a path"),
        pytest.param(["http://localhost:*"], "http://localhost:1\n", False, id="newline"),
        pytest.param(["http://localhost:*"], "http://localhost.:1", False, id="trailing dot is another origin"),
        pytest.param(["http://localhost:*"], "null", False, id="null"),
        pytest.param(["http://localhost:*"], "", False, id="empty"),
        pytest.param(["http://[::1]:*"], "http://[::1]:8080", True, id="ipv6"),
        pytest.param(["https://app.example"], "https://app.example", True, id="exact"),
        pytest.param(["https://App.example/"], "https://app.example", True, id="exact, as pasted from a browser"),
        pytest.param(["https://app.example:443"], "https://app.example", True, id="default port in the pattern"),
        pytest.param(["https://app.example"], "https://app.example:8443", False, id="other port"),
        pytest.param(["https://app.example"], "https://www.app.example", False, id="sub-domain"),
        pytest.param(["http://kit.example"], "http://\u212ait.example", False, id="a letter whose lower case is k"),
        pytest.param(["vscode-webview://abc"], "vscode-webview://abc", True, id="an editor's scheme"),
        pytest.param(["*"], "https://any.example:1", True, id="all"),
        pytest.param(["*"], "null", False, id="all but null"),
        pytest.param(["*"], "nonsense", False, id="all but what is no origin"),
        pytest.param(["*", "null"], "null", True, id="null listed"),
        pytest.param([], "http://localhost", False, id="none"),
    ],
)
def test_allows(patterns: list[str], origin: str, allowed: bool) -> None:
    assert AllowedOrigins.parse(patterns).allows(origin) is allowed


@pytest.mark.parametrize(
    "pattern",
    ["localhost", "http://", "https://*.example", "http://a.example/x", "http://localhost:70000", "", "http://größe"],
)
def test_parse_refuses_what_is_no_origin(pattern: str) -> None:
    with pytest.raises(ParameterError, match="allow_origins: must hold origins such as"):
        AllowedOrigins.parse([pattern])


@given(st.text())
def test_allows_no_text_that_is_not_local(origin: str) -> None:
    expected = re.fullmatch(r"(?i:https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)", origin, re.ASCII)
    assert not LOCAL.allows(origin) or expected


@given(st.sampled_from(["http://localhost", "https://127.0.0.1", "http://[::1]"]), st.text(min_size=1))
def test_allows_nothing_glued_to_an_origin(origin: str, tail: str) -> None:
    assert not LOCAL.allows(origin + tail) or re.fullmatch(r":[0-9]{1,5}", tail)
    assert not LOCAL.allows(tail + origin)


@given(st.integers(0, 65535))
def test_allows_every_port(port: int) -> None:
    assert LOCAL.allows(f"http://localhost:{port}")


def test_allows_by_default_the_pages_of_this_machine() -> None:
    allowed = AllowedOrigins.parse(Config().allow_origins)
    for origin in ("http://localhost:3000", "https://localhost", "http://127.0.0.1:80", "https://[::1]:8443"):
        assert allowed.allows(origin)
    for origin in ("null", "https://evil.example", "http://192.168.1.2"):
        assert not allowed.allows(origin)


def test_cors_headers_of_a_listed_page() -> None:
    assert cors_headers("http://localhost:3000", LOCAL) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": "http://localhost:3000",
        "Access-Control-Expose-Headers": "Retry-After, x-request-id",
    }


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:1\r\nSet-Cookie: a=b"])
def test_cors_headers_of_others(origin: str | None) -> None:
    assert cors_headers(origin, LOCAL) == {"Vary": "Origin"}


def test_preflight_of_a_listed_page() -> None:
    asked = "authorization, content-type,x-stainless-lang, X-Stainless-Retry-Count"
    answer = preflight("http://localhost:3000", asked, LOCAL)
    assert answer["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert answer["Access-Control-Allow-Headers"] == asked.replace(",x", ", x")
    assert "POST" in answer["Access-Control-Allow-Methods"].split(", ")
    assert int(answer["Access-Control-Max-Age"]) > 0
    assert "Origin" in answer["Vary"]
    assert not {"Access-Control-Allow-Private-Network", "Access-Control-Allow-Credentials"} & set(answer)


def test_preflight_from_a_public_page() -> None:
    answer = preflight("https://app.example", None, ANY, wants_private_network=True)
    assert answer["Access-Control-Allow-Private-Network"] == "true"
    assert "Access-Control-Allow-Headers" not in answer


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
def test_preflight_of_others(origin: str | None) -> None:
    assert set(preflight(origin, "authorization", LOCAL, wants_private_network=True)) == {"Vary"}


def test_preflight_of_too_many_headers() -> None:
    asked = ",".join(f"x-{number}" for number in range(500))
    assert len(preflight("http://localhost", asked, LOCAL)["Access-Control-Allow-Headers"].split(",")) == 64
    assert "Access-Control-Allow-Headers" not in preflight("http://localhost", "a" * 5000, LOCAL)


@given(st.text(), st.text())
def test_headers_hold_no_control_characters(origin: str, asked: str) -> None:
    for headers in (cors_headers(origin, ANY), preflight(origin, asked, ANY, wants_private_network=True)):
        assert all(value.isascii() and value.isprintable() for value in headers.values())


@given(st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True), min_size=1, max_size=20))
def test_preflight_allows_every_sane_header(names: list[str]) -> None:
    answer = preflight("http://localhost", ",".join(names), LOCAL)
    assert answer["Access-Control-Allow-Headers"].split(", ") == names


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost", "localhost:8888", "localhost.", "localhost.:80", "127.0.0.1", "127.0.0.1:4891"),
        *("127.0.0.1.", "127.1.2.3", "127.255.255.255:1", "[::1]", "[::1]:65535", "[0:0:0:0:0:0:0:1]:80"),
    ],
)
def test_is_loopback_host(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", ":80", "localhost..", "localhost:", "localhost:x", "localhost:123456", "localhost:80:80"),
        *("localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "x.localhost", "mylocalhost"),
        *("128.0.0.1", "0.0.0.0", "127.1", "127.0.0.01", "127.0.0.256", "2130706433", "0x7f.0.0.1", "192.168.1.2"),
        *("::1", "::1:80", "[::]", "[::2]:80", "[::1", "[::1]80", "[::1%lo]", "[::ffff:127.0.0.1]", "[127.0.0.1]"),
        *("evil@localhost", "localhost@evil", "localhost/", "localhost\n", " localhost", "localhost,evil.example"),
        *("host.docker.internal", "loca\u017fhost", "127.0.0.\uff11"),
    ],
)
def test_is_loopback_host_of_others(host: str | None) -> None:
    assert not is_loopback_host(host)


_LOOPBACK = re.compile(r"(?i:localhost\.?|127(\.(0|[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])){3}\.?|\[[0:]*:0*1\])(:\d{1,5})?")


@given(st.text() | st.from_regex(r"(localhost|127\.[0-9.]{1,9}|\[[0-9:]{2,8}\])[.:@a-z0-9]{0,6}", fullmatch=True))
def test_is_loopback_host_only_of_the_known_forms(host: str) -> None:
    assert not is_loopback_host(host) or re.fullmatch(_LOOPBACK, host)


@given(st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,12}){0,3}\.[a-z]{2,6}", fullmatch=True))
def test_is_loopback_host_of_no_domain(domain: str) -> None:
    assert not is_loopback_host(domain)
    assert not is_loopback_host(f"localhost.{domain}")
    assert not is_loopback_host(f"127.0.0.1.{domain}")


@given(st.ip_addresses())
def test_is_loopback_host_agrees_with_is_loopback_address(address: object) -> None:
    text = str(address)
    host = f"[{text}]" if ":" in text else text
    assert is_loopback_host(host) == is_loopback_address(text) or text.startswith("::ffff:")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        *(("localhost", True), ("127.0.0.1", True), ("127.0.0.53", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("", False), ("0.0.0.0", False), ("::", False), ("*", False), ("192.168.0.5", False), ("myhost", False)),
        *(("::ffff:192.0.2.1", False), ("127.0.0.1:80", False)),
    ],
)
def test_is_loopback_address(address: str, loopback: bool) -> None:
    assert is_loopback_address(address) is loopback
