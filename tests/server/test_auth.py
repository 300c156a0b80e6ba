"""Who may come in, over HTTP: keys, the notebook's token, cookies, other pages."""

from __future__ import annotations

import base64
import json
import socket
from datetime import timedelta
from typing import Any

import pytest

from nbllm.server.access import Policy
from nbllm.server.origins import AllowedOrigins
from tests.server.serving import CHAT, COMPLETIONS, EMBEDDINGS, OTHER, TOY, Answer, Site, chat, completion, wait_until

_EMBED = {"model": TOY, "input": "x"}
_PAGE = "http://localhost:3000"


def _key(site: Site, name: str = "laptop", **options: Any) -> str:
    return site.keys.create(name, **options).secret


def _ask(site: Site, headers: dict[str, str], path: str = CHAT, body: Any = None) -> Answer:
    return site.post(path, chat() if body is None else body, bare=True, headers=headers)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


# ---- keys


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic", "X-Api-Key"])
def test_a_key_opens_however_it_is_sent(site: Site, scheme: str) -> None:
    secret = _key(site)
    basic = base64.b64encode(f"any:{secret}".encode()).decode()
    headers = {
        "Bearer": {"Authorization": f"Bearer {secret}"},
        "bearer": {"Authorization": f"bearer   {secret}"},
        "Basic": {"Authorization": f"Basic {basic}"},
        "X-Api-Key": {"X-Api-Key": secret},
    }[scheme]
    assert _ask(site, headers).status == 200
    assert "key=laptop " in site.log.access_lines()[-1]
    assert secret not in "\n".join(site.log.lines)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Basic !"},
        {"X-Api-Key": "sk-" + "a" * 48},
    ],
    ids=["none", "wrong", "too long", "no base64", "well-formed"],
)
def test_a_stranger_gets_401_and_no_cookie(site: Site, method: str, headers: dict[str, str]) -> None:
    answer = site.request(method, "v1/models" if method == "GET" else CHAT, bare=True, headers=headers)
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    assert answer.error["type"] == "authentication_error"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("scope", "open_path"),
    [
        ("chat", CHAT),
        ("chat", COMPLETIONS),
        ("chat", "v1/tokenize"),
        ("embeddings", EMBEDDINGS),
        ("models", "v1/models"),
    ],
)
def test_a_scope_opens_its_routes_only(site: Site, scope: str, open_path: str) -> None:
    headers = _bearer(_key(site, scopes=[scope]))
    bodies = {
        CHAT: chat(),
        COMPLETIONS: completion(),
        "v1/tokenize": {"model": TOY, "content": "x"},
        EMBEDDINGS: _EMBED,
    }
    opened = _ask(site, headers, open_path, bodies[open_path]) if open_path in bodies else _list(site, headers)
    assert opened.status == 200
    closed = EMBEDDINGS if scope != "embeddings" else CHAT
    refused = _ask(site, headers, closed, bodies[closed])
    assert refused.status == 403
    assert refused.error["code"] == "insufficient_scope"
    assert refused.error["type"] == "permission_error"


def _list(site: Site, headers: dict[str, str]) -> Answer:
    return site.get("v1/models", bare=True, headers=headers)


def test_a_key_for_some_models(site: Site) -> None:
    headers = _bearer(_key(site, models=[TOY]))
    assert _ask(site, headers).status == 200
    assert _ask(site, headers, body=chat(model="gpt-4")).status == 200  # what it resolves to is open
    refused = _ask(site, headers, body=chat(model=OTHER))
    assert refused.status == 403
    assert refused.error["code"] == "model_not_allowed"
    assert [entry["id"] for entry in _list(site, headers).json()["data"]] == [TOY, "gpt-4"]
    assert site.get(f"v1/models/{OTHER}", bare=True, headers=headers).status == 403


def test_an_expired_key(site: Site) -> None:
    secret = _key(site, expires_in=timedelta(seconds=1))
    stored = json.loads(site.keys_file.read_bytes())
    stored["keys"][0]["expires"] = "2020-01-01T00:00:00Z"
    site.keys_file.write_text(json.dumps(stored))
    answer = _ask(site, _bearer(secret))
    assert answer.status == 401
    assert "expired" in answer.error["message"]


def test_a_revoked_key_is_void_at_once(site: Site) -> None:
    secret = _key(site)
    assert _ask(site, _bearer(secret)).status == 200
    site.keys.revoke("laptop")
    assert _ask(site, _bearer(secret)).status == 401


def test_a_key_made_meanwhile_opens_at_once(site: Site) -> None:
    assert _ask(site, _bearer("sk-" + "x" * 48)).status == 401
    assert _ask(site, _bearer(_key(site))).status == 200


def test_a_key_for_one_request_at_a_time(site: Site) -> None:
    secret = _key(site, max_concurrent=1)
    site.scripted(["a"], until_cancelled=True)
    with site.raw_post(CHAT, chat(), headers=f"X-Api-Key: {secret}\r\n", bare=True):
        wait_until(lambda: site.in_flight == 1)
        refused = _ask(site, _bearer(secret))
        assert refused.status == 429
        assert refused.error["code"] == "rate_limit_exceeded"
        assert int(refused.headers["Retry-After"]) >= 1
        assert site.get("v1/models").status == 200
    wait_until(lambda: site.in_flight == 0)
    assert _ask(site, _bearer(secret), "v1/tokenize", {"model": TOY, "content": "x"}).status == 200


def test_a_slot_comes_back_after_a_failure(site: Site) -> None:
    headers = _bearer(_key(site, max_concurrent=1))
    for _ in range(3):
        assert _ask(site, headers, body=chat(model="nothing")).status == 404
    assert _ask(site, headers).status == 200


def test_many_wrong_keys_are_slowed_down_and_right_ones_are_not(site: Site) -> None:
    statuses = [_ask(site, _bearer(f"sk-{i}")).status for i in range(15)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    refused = _ask(site, _bearer("sk-more"))
    assert int(refused.headers["Retry-After"]) >= 1
    assert _ask(site, _bearer(_key(site))).status == 200
    assert _ask(site, _bearer(site.token)).status == 200


def test_a_damaged_keys_file_locks_keys_out_and_not_the_owner(site: Site) -> None:
    site.keys_file.write_text("{")
    site.keys_file.chmod(0o600)
    answer = _ask(site, _bearer("sk-" + "x" * 48))
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert str(site.keys_file) not in answer.error["message"]
    assert str(site.keys_file) in "\n".join(site.log.lines)
    assert _ask(site, _bearer(site.token)).status == 200


def test_a_key_opens_nothing_else_of_jupyter(site: Site) -> None:
    headers = _bearer(_key(site, scopes=["chat", "embeddings", "models", "kernel", "manage"]))
    for path in ("api/contents", "api/kernels", "api/status", "api/me"):
        assert site.get(path, bare=True, headers=headers).status == 403


# ---- Jupyter's own


@pytest.mark.parametrize("how", ["bearer", "token", "query", "x-api-key"])
def test_the_notebooks_token_opens_and_sets_no_cookie(site: Site, how: str) -> None:
    headers = {
        "bearer": _bearer(site.token),
        "token": {"Authorization": f"token {site.token}"},
        "query": {},
        "x-api-key": {"X-Api-Key": site.token},
    }[how]
    for path, body in ((CHAT, chat()), (EMBEDDINGS, _EMBED)):
        answer = _ask(site, headers, path + (f"?token={site.token}" if how == "query" else ""), body)
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
    assert site.token not in "\n".join(site.log.access_lines())


def test_a_wrong_query_token(site: Site) -> None:
    assert _ask(site, {}, CHAT + "?token=wrong").status == 401


def _login(site: Site, host: str) -> str:
    """The cookies of a browser that opened Jupyter under this name, with an XSRF token."""
    made = site.get("api/status", headers={"Host": host}).headers.get_all("Set-Cookie") or []
    assert made, "Jupyter sets a cookie for its own routes"
    return "; ".join([*(cookie.partition(";")[0] for cookie in made), "_xsrf=abcdef"])


@pytest.fixture
def cookies(site: Site) -> str:
    return _login(site, f"127.0.0.1:{site.port}")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_alone_opens_nothing(site: Site, cookies: str, method: str) -> None:
    path, body = ("v1/models", None) if method == "GET" else (CHAT, chat())
    answer = site.request(method, path, body, bare=True, headers={"Cookie": cookies})
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_with_xsrf_is_jupyters_own_page(site: Site, cookies: str, method: str) -> None:
    path, body = ("v1/models", None) if method == "GET" else (CHAT, chat())
    headers = {"Cookie": cookies, "X-XSRFToken": "abcdef"}
    answer = site.request(method, path, body, bare=True, headers=headers)
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers


def test_what_a_cookie_opened_is_for_no_page_to_read(site: Site) -> None:
    own = f"localhost:{site.port}"  # an origin of the list, so that only the cookie keeps the header away
    headers = {"Cookie": _login(site, own), "X-XSRFToken": "abcdef", "Host": own, "Origin": f"http://{own}"}
    answer = _ask(site, headers)
    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_another_page_cannot_use_the_cookie(site: Site, cookies: str) -> None:
    assert _ask(site, {"Cookie": cookies, "X-XSRFToken": "abcdef", "Origin": _PAGE}).status == 401


def test_a_login_that_has_ended_is_not_deleted_from_here(site: Site, cookies: str) -> None:
    ended = cookies.replace("=", "=x", 1)
    answer = site.get("v1/models", bare=True, headers={"Cookie": ended, "X-XSRFToken": "abcdef"})
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers


def test_a_cookie_with_a_wrong_xsrf(site: Site, cookies: str) -> None:
    assert _ask(site, {"Cookie": cookies, "X-XSRFToken": "other"}).status == 401


@pytest.mark.parametrize("path", ["v1/models", "v1/models/x", "v1/health", "v1/nothing", "v1"])
@pytest.mark.parametrize("bare", [False, True])
def test_no_route_sets_a_cookie(site: Site, path: str, bare: bool) -> None:
    for method in ("GET", "POST", "OPTIONS", "PUT"):
        assert "Set-Cookie" not in site.request(method, path, bare=bare).headers


# ---- other pages


def test_preflight_of_a_listed_page(site: Site) -> None:
    headers = {
        "Origin": _PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = site.request("OPTIONS", CHAT, bare=True, headers=headers)
    assert answer.status == 204
    assert answer.body == b""
    assert answer.headers["Access-Control-Allow-Origin"] == _PAGE
    assert "x-stainless-lang" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "x\ty"])
def test_a_page_that_is_not_listed_gets_no_headers(site: Site, origin: str) -> None:
    for method, body in (("OPTIONS", None), ("POST", chat())):
        answer = site.request(method, CHAT, body, headers={"Origin": origin})
        assert not [name for name in answer.headers if name.startswith("Access-Control-Allow")]


@pytest.mark.parametrize("status", [200, 404, 401], ids=["answer", "error", "refusal"])
def test_a_listed_page_may_read_answers_and_errors(site: Site, status: int) -> None:
    body = chat(model="nothing") if status == 404 else chat()
    answer = site.post(CHAT, body, bare=status == 401, headers={"Origin": _PAGE})
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == _PAGE
    assert "Origin" in answer.headers["Vary"]


def test_a_listed_page_may_stream(site: Site) -> None:
    answer = site.post(CHAT, chat(stream=True), headers={"Origin": _PAGE})
    assert answer.headers["Access-Control-Allow-Origin"] == _PAGE
    assert answer.events[-1] == "[DONE]"


# ---- a server without keys, on this machine


@pytest.fixture
def open_site(site: Site) -> Site:
    site.service.guard.policy = Policy(origins=AllowedOrigins.parse(["http://localhost:*"]), is_open=True)
    return site


def _from(site: Site, **headers: str) -> Answer:
    return _ask(site, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("key", ["", "Bearer not-needed", "Bearer sk-anything"])
def test_open_needs_no_key_and_minds_none(open_site: Site, key: str) -> None:
    assert _from(open_site, Authorization=key).status == 200
    assert "key=anonymous" in open_site.log.access_lines()[-1]


@pytest.mark.parametrize("mode", [0o600, 0o644], ids=["damaged", "readable by others"])
def test_open_stays_so_when_keys_cannot_be_checked(open_site: Site, mode: int) -> None:
    open_site.keys_file.write_text("{")
    open_site.keys_file.chmod(mode)
    for _ in range(2):
        assert _from(open_site, Authorization="Bearer none").status == 200
    told = [line for line in open_site.log.lines if str(open_site.keys_file) in line]
    assert len(told) == 1
    assert _from(open_site, Authorization="Bearer none", Host="evil.example").status == 403
    assert _from(open_site, Authorization="Bearer none", X_Forwarded_For="203.0.113.5").status == 503


@pytest.mark.parametrize("host", ["localhost:4891", "127.0.0.1:1", "[::1]:4891"])
def test_open_under_the_names_of_this_machine(open_site: Site, host: str) -> None:
    assert _from(open_site, Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", ""])
def test_open_under_another_name_is_refused(open_site: Site, host: str) -> None:
    """A page whose name was made to lead here."""
    data = json.dumps(chat()).encode()
    head = f"POST {open_site.base_url}{CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
    with open_site.raw(head.encode() + data) as connection:
        assert int(_first_line(connection).split()[1]) in (400, 403)


def _first_line(connection: socket.socket) -> bytes:
    return connection.makefile("rb").readline()


def test_open_to_listed_pages_only(open_site: Site) -> None:
    assert _from(open_site, Origin="http://localhost:5173").status == 200
    refused = _from(open_site, Origin="https://evil.example")
    assert refused.status == 403
    assert refused.error["code"] == "origin_not_allowed"


def test_open_to_nobody_behind_a_proxy(open_site: Site) -> None:
    assert _from(open_site, X_Forwarded_For="203.0.113.5").status == 401


def test_open_to_no_kernels(open_site: Site) -> None:
    from nbllm.server.scopes import USUAL_SCOPES

    _from(open_site)
    assert "kernel" not in USUAL_SCOPES
    assert "manage" not in USUAL_SCOPES
