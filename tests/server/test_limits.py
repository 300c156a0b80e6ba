"""What a request may be: its size, its type, its path, its method; and how many there may be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nbllm.runner.errors import RunnerBackoffError
from tests.server.serving import CHAT, COMPLETIONS, EMBEDDINGS, Answer, Site, chat, wait_until

_POSTS = [CHAT, COMPLETIONS, EMBEDDINGS, "v1/tokenize", "v1/detokenize", CHAT + "/input_tokens"]
_GETS = ["v1/models", "v1/models/toy", "v1/health"]


def test_a_full_queue_refuses_and_says_when_to_come_back(site: Site) -> None:
    site.service.limits = replace(site.service.limits, max_queue=1)
    site.scripted(["a"], until_cancelled=True)
    with site.raw_post(CHAT, chat()):
        wait_until(lambda: site.in_flight == 1)
        answer = site.post(CHAT, chat())
        assert answer.status == 429
        assert answer.error["code"] == "rate_limit_exceeded"
        assert answer.error["type"] == "rate_limit_error"
        assert int(answer.headers["Retry-After"]) >= 1
        assert site.get("v1/models").status == 200
    wait_until(lambda: site.in_flight == 0)
    assert site.post("v1/tokenize", {"model": "toy", "content": "x"}).status == 200


# ---- size


@pytest.fixture
def small(site: Site) -> Site:
    site.service.limits = replace(site.service.limits, max_body_bytes=1000)
    return site


def _raw_answer(site: Site, data: bytes) -> tuple[int, dict[str, object]]:
    with site.raw(data) as connection, connection.makefile("rb") as reader:
        status = int(reader.readline().split()[1])
        length = 0
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, json.loads(reader.read(length))


def _head(site: Site, *headers: str) -> bytes:
    lines = [f"POST {site.base_url}{CHAT} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {site.token}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_body_too_large_is_refused_before_it_was_sent(small: Site) -> None:
    status, body = _raw_answer(small, _head(small, "Content-Length: 100000000"))
    assert status == 413
    assert body["error"]["code"] == "body_too_large"  # type: ignore[index]


def test_a_body_too_large_in_chunks(small: Site) -> None:
    chunk = b"1f4\r\n" + b" " * 500 + b"\r\n"
    status, _ = _raw_answer(small, _head(small, "Transfer-Encoding: chunked") + chunk * 10 + b"0\r\n\r\n")
    assert status == 413
    assert small.post(CHAT, chat()).status == 200


def test_a_body_in_chunks(site: Site) -> None:
    data = json.dumps(chat()).encode()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    assert _raw_answer(site, _head(site, "Transfer-Encoding: chunked") + chunks)[0] == 200


def test_a_body_at_the_limit(small: Site) -> None:
    data = json.dumps(chat()).encode()
    assert small.post(CHAT, data.ljust(1000)).status == 200
    assert small.post(CHAT, data.ljust(1001)).status == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "99999999999999999999"])
def test_a_strange_length_is_no_5xx(site: Site, length: str) -> None:
    with site.raw(_head(site, f"Content-Length: {length}") + b"{}") as connection:
        connection.settimeout(5)
        line = connection.makefile("rb").readline()  # Tornado closes, or says why
        assert line == b"" or 400 <= int(line.split()[1]) < 500
    assert site.get("v1/health").status == 200


def test_a_stranger_is_refused_before_the_body_was_sent(site: Site) -> None:
    head = f"POST {site.base_url}{CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n"
    assert _raw_answer(site, head.encode())[0] == 401


# ---- type


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
    ],
)
def test_json_is_read_under_what_clients_call_it(site: Site, kind: str) -> None:
    data = json.dumps(chat()).encode()
    if kind:
        assert site.post(CHAT, data, headers={"Content-Type": kind}).status == 200
    else:
        assert _raw_answer(site, _head(site, f"Content-Length: {len(data)}") + data)[0] == 200


@pytest.mark.parametrize("kind", ["image/png", "application/xml", "text/html", "application/jsonx", "x\ty"])
def test_another_type_is_refused(site: Site, kind: str) -> None:
    answer = site.post(CHAT, chat(), headers={"Content-Type": kind})
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


def test_a_compressed_body_is_refused(site: Site) -> None:
    assert site.post(CHAT, b"\x1f\x8b", headers={"Content-Encoding": "gzip"}).status == 415


# ---- paths and methods


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["v1", "v1/", "v1/chat", "v1/responses", "v1/audio/speech", "v1//"])
def test_an_unknown_path_is_404_in_json(site: Site, method: str, path: str) -> None:
    answer = site.request(method, path)
    assert answer.status == 404
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", _POSTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_wrong_method_is_405_and_says_which_is_right(site: Site, path: str, method: str) -> None:
    _assert_405(site.request(method, path), "POST")


@pytest.mark.parametrize("path", _GETS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_reading_routes_are_not_written_to(site: Site, path: str, method: str) -> None:
    _assert_405(site.request(method, path), "GET")


@pytest.mark.parametrize("method", ["TRACE", "FOO"])
def test_a_method_that_tornado_refuses_is_405_too(site: Site, method: str) -> None:
    _assert_405(site.request(method, CHAT), "POST")


@pytest.mark.parametrize(("path", "status"), [("v1/nothing", 404), ("v1/models", 200)])
def test_each_request_makes_one_line(site: Site, path: str, status: int) -> None:
    assert site.get(path).status == status
    site.log.access_lines()
    assert [line for line in site.log.lines if path in line] == site.log.access_lines()


def test_an_honest_503_makes_one_line(site: Site) -> None:
    site.cast.errors.append(RunnerBackoffError("crashed", 2.0))
    assert site.post(CHAT, chat()).status == 503
    assert site.log.lines == site.log.access_lines()


def _assert_405(answer: Answer, allowed: str) -> None:
    assert answer.status == 405
    assert answer.error["code"] == "method_not_allowed"
    assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize("path", _GETS)
def test_head_is_get_without_a_body(site: Site, path: str) -> None:
    answer = site.request("HEAD", path)
    assert answer.status == 200
    assert answer.body == b""
    assert site.get("v1/health").status == 200  # the connection is in order


@pytest.mark.parametrize("path", [*_POSTS, *_GETS, "v1/nothing"])
def test_options_needs_no_key(site: Site, path: str) -> None:
    assert site.request("OPTIONS", path, bare=True).status == 204


@pytest.mark.parametrize("path", [*_POSTS, *_GETS])
def test_a_slash_at_the_end_is_the_same_path(site: Site, path: str) -> None:
    if path == "v1/models/toy":
        return
    assert site.request("OPTIONS", path + "/").status == 204
    assert site.request("GET", path + "/").status == site.request("GET", path).status


def test_every_answer_has_a_request_id_of_its_own(site: Site) -> None:
    ids = [site.get(path).headers["x-request-id"] for path in ("v1/models", "v1/models", "v1/nothing")]
    assert len(set(ids)) == 3


def test_jupyters_own_routes_go_on(site: Site) -> None:
    assert "version" in site.get("api").json()
