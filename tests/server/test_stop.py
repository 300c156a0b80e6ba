"""`POST nbllm/stop`: whom Jupyter lets in, and what comes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.runner.stops import StopListener
from nbllm.server.handlers import stop
from tests.server.serving import BASE_URL, Answer, Site

STOP = "nbllm/stop"


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def listener(site: Site, calls: list[str]) -> Iterator[StopListener]:
    listener = StopListener(site.runtime_dir, lambda: calls.append("stop"))
    yield listener
    listener.close()


def _cookies(site: Site) -> dict[str, str]:
    """What a page of the notebook server sends: its session, and the XSRF cookie again as a header."""
    made = site.get("api/status").headers.get_all("Set-Cookie") or []
    assert made, "Jupyter sets a cookie for its own routes"
    cookies = [*(cookie.partition(";")[0] for cookie in made), "_xsrf=abcdef"]
    return {"Cookie": "; ".join(cookies), "X-XSRFToken": "abcdef"}


def _message(answer: Answer) -> str:
    assert answer.headers["Content-Type"].startswith("application/json")
    return str(answer.json()["message"])


def test_token_of_the_server_stops(site: Site, listener: StopListener, calls: list[str]) -> None:
    answer = site.post(STOP, {"token": listener.token})
    assert (answer.status, answer.body) == (204, b"")
    assert calls == ["stop"]
    assert listener.token not in "\n".join(site.log.lines)


def test_path_is_below_the_base_url(site: Site, listener: StopListener, calls: list[str]) -> None:
    assert site.base_url == BASE_URL != "/"
    site.base_url = "/"
    try:
        assert site.post(STOP, {"token": listener.token}).status == 404
    finally:
        site.base_url = BASE_URL
    assert calls == []


def test_page_of_the_server_stops_with_its_cookies(site: Site, listener: StopListener, calls: list[str]) -> None:
    answer = site.post(STOP, {"token": listener.token}, bare=True, headers=_cookies(site))
    assert answer.status == 204
    assert calls == ["stop"]


@pytest.mark.parametrize("changes", [{"X-XSRFToken": ""}, {"X-XSRFToken": "other"}], ids=["none", "wrong"])
def test_cookies_without_the_xsrf_header_are_refused(
    site: Site, listener: StopListener, calls: list[str], changes: dict[str, str]
) -> None:
    answer = site.post(STOP, {"token": listener.token}, bare=True, headers=_cookies(site) | changes)
    assert answer.status == 403
    assert "XSRF" in _message(answer) or "_xsrf" in _message(answer)
    assert calls == []


def test_page_of_another_origin_is_refused(site: Site, listener: StopListener, calls: list[str]) -> None:
    """Even one that may use `/v1`."""
    headers = _cookies(site) | {"Origin": "http://localhost:3000"}
    assert site.post(STOP, {"token": listener.token}, bare=True, headers=headers).status == 404
    assert calls == []


def test_stranger_is_refused(site: Site, listener: StopListener, calls: list[str]) -> None:
    xsrf = {"Cookie": "_xsrf=abcdef", "X-XSRFToken": "abcdef"}
    for headers in ({}, xsrf, {"Authorization": "Bearer wrong"}):
        assert site.post(STOP, {"token": listener.token}, bare=True, headers=headers).status == 403
    assert calls == []


def test_key_for_the_models_opens_nothing(site: Site, listener: StopListener, calls: list[str]) -> None:
    headers = {"Authorization": f"Bearer {site.keys.create('laptop').secret}"}
    assert site.post(STOP, {"token": listener.token}, bare=True, headers=headers).status == 403
    assert calls == []


def test_authorizer_is_asked(
    site: Site, listener: StopListener, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def refuse(handler: object, user: object, action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    monkeypatch.setattr(site.app.authorizer, "is_authorized", refuse)
    assert site.post(STOP, {"token": listener.token}).status == 403
    assert asked == [("execute", "nbllm")]
    assert calls == []


def test_token_that_nobody_listens_for_is_a_json_404(site: Site, listener: StopListener) -> None:
    listener.close()
    for token in (listener.token, "0" * 32, "", "../../etc/passwd", "\0", "ü"):
        answer = site.post(STOP, {"token": token})
        assert answer.status == 404
        assert "Nobody listens for this token" in _message(answer)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[" * 1000, id="deep"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no token"),
        pytest.param(b'{"token": 5}', id="a number"),
        pytest.param(b'{"token": "\\ud800"}', id="half a surrogate pair"),
    ],
)
def test_bad_body_is_a_json_400(site: Site, body: bytes) -> None:
    answer = site.post(STOP, body)
    assert answer.status == 400
    assert _message(answer) == 'Send {"token": "..."}'
    assert not [line for line in site.log.lines if "Traceback" in line]


def test_large_body_is_a_json_400(site: Site, listener: StopListener, calls: list[str]) -> None:
    answer = site.post(STOP, json.dumps({"token": listener.token, "more": "x" * 2000}).encode())
    assert answer.status == 400
    assert "larger than" in _message(answer)
    assert calls == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    assert site.request(method, STOP, None if method == "GET" else b"{}").status == 405


def test_server_answers_others_while_one_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def request_stop(folder: Path, token: str) -> bool:
        assert (folder, token) == (site.runtime_dir, "x")
        asked.set()
        return may_end.wait(10)

    def ask() -> None:
        answers.append(site.post(STOP, {"token": "x"}))
        site.close()

    answers: list[Any] = []
    monkeypatch.setattr(stop, "request_stop", request_stop)
    threads.append(threading.Thread(target=ask))
    threads[0].start()
    assert asked.wait(10)
    assert site.get("v1/health").status == 200
    may_end.set()
    threads[0].join(10)
    assert answers[0].status == 204
