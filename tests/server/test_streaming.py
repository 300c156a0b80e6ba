"""Streams: what is sent, when, and to whom no longer."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest

from nbllm.core import Chunk, ToolCallDelta
from nbllm.errors import EngineError, InvalidRequestError, ModelLoadError
from nbllm.server.handlers.base import OpenAIHandler
from nbllm.testing import ScriptedEngine
from tests.server.serving import CHAT, COMPLETIONS, TOY, WAIT_S, Site, chat, completion, wait_until
from tests.server.test_metrics import value


def _limits(site: Site, **changes: Any) -> None:
    site.service.limits = replace(site.service.limits, **changes)


def _head(connection: socket.socket) -> tuple[int, bytes]:
    """The status, and what came of the body with the headers."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def _until(connection: socket.socket, wanted: bytes, data: bytes = b"") -> bytes:
    while wanted not in data:
        more = connection.recv(65536)
        assert more, f"it ended without {wanted!r}: {data[-300:]!r}"
        data += more
    return data


# ---- what is sent


def test_stream_is_exact(site: Site) -> None:
    site.scripted(["Hel", "lo"])
    answer = site.post(CHAT, chat(stream=True))
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    *events, done = answer.events
    assert done == "[DONE]"
    for event in events:
        assert set(event) == {"id", "object", "created", "model", "system_fingerprint", "choices"}
        assert event["object"] == "chat.completion.chunk"
        assert event["model"] == TOY
    assert len({(event["id"], event["created"]) for event in events}) == 1
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas[1:]) == "Hello"
    assert deltas[-1] == {}
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["stop"]


def test_stream_says_the_same_as_the_whole_answer(site: Site) -> None:
    whole = site.post(CHAT, chat(max_tokens=40)).json()["choices"][0]["message"]["content"]
    events = site.post(CHAT, chat(max_tokens=40, stream=True)).events
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == whole


def test_usage_comes_last_if_it_was_asked_for(site: Site) -> None:
    *events, usage, done = site.post(CHAT, chat(stream=True, stream_options={"include_usage": True})).events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 30
    assert usage["timings"]["predicted_n"] == 8
    assert all(event["usage"] is None for event in events)


def test_each_choice_has_a_role_and_an_end(site: Site) -> None:
    *events, _ = site.post(CHAT, chat(stream=True, n=3, temperature=1)).events
    choices = [event["choices"][0] for event in events]
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] is None for choice in own] == [True] * (len(own) - 1) + [False]


def test_tool_calls_come_with_their_index(site: Site) -> None:
    first = Chunk(tool_calls=(ToolCallDelta(0, "call_1", "add", ""),))
    pieces = [Chunk(tool_calls=(ToolCallDelta(0, arguments=text),)) for text in ('{"a"', ":1}")]
    site.scripted([first, *pieces, Chunk(finish_reason="tool_calls")])
    tool = {"type": "function", "function": {"name": "add"}}
    *events, _ = site.post(CHAT, chat(stream=True, tools=[tool])).events
    calls = [c for event in events for c in event["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "add", "arguments": ""},
    }
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a":1}'
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_reasoning_comes_in_deltas_of_its_own(site: Site) -> None:
    site.scripted([Chunk(reasoning="Hm"), "Yes"])
    *events, _ = site.post(CHAT, chat(stream=True)).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert {"reasoning_content": "Hm"} in deltas
    assert {"content": "Yes"} in deltas


def test_text_with_line_ends_and_signs_stays_one_event(site: Site) -> None:
    said = 'a\r\n\r\ndata: x\n\u2028"\\ü🎈'
    site.scripted([said])
    *events, _ = site.post(CHAT, chat(stream=True)).events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == said


def test_the_first_token_is_sent_before_the_last_is_made(site: Site) -> None:
    site.scripted(["early"], until_cancelled=True)
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        status, body = _head(connection)
        assert status == 200
        assert b"early" in _until(connection, b"early", body)
    wait_until(lambda: site.in_flight == 0)


# ---- what goes wrong before there is anything to say


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        pytest.param({"model": "nothing"}, 404, "model_not_found", id="model"),
        pytest.param({"max_tokens": -1}, 400, None, id="range"),
        pytest.param({"regex": "["}, 400, "invalid_constraint", id="constraint"),
        pytest.param({"long": True}, 400, "context_length_exceeded", id="context"),
    ],
)
def test_an_early_error_has_its_real_status(
    site: Site, path: str, changes: dict[str, Any], status: int, code: str | None
) -> None:
    make: Any = chat if path == CHAT else completion
    text = "x" * 5000 if changes.pop("long", False) else "Hi"
    answer = site.post(path, make(text, stream=True, **changes))
    changes.update({"long": True} if len(text) > 2 else {})
    assert answer.status == status
    assert answer.error["code"] == code


def test_a_model_that_cannot_be_loaded_has_its_status_in_time(site: Site) -> None:
    site.cast.errors.append(ModelLoadError("it is damaged"))
    assert site.post(CHAT, chat(stream=True)).status == 404


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_slow_load_gets_pings_and_then_the_answer(site: Site, path: str) -> None:
    _limits(site, hold_s=0.05, ping_s=0.05)
    site.cast.gate.clear()
    body = chat(stream=True) if path == CHAT else completion(stream=True)
    with site.raw_post(path, body) as connection:
        status, data = _head(connection)
        assert status == 200
        data = _until(connection, b":\n\n", data)
        data = _until(connection, b":\n\n", data.partition(b":\n\n")[2])
        site.cast.gate.set()
        assert b'"finish_reason":"length"' in _until(connection, b"data: [DONE]\n\n", data)


def test_a_load_that_fails_late_ends_in_an_error_event(site: Site) -> None:
    _limits(site, hold_s=0.05, ping_s=0.05)
    site.cast.gate.clear()
    site.cast.errors.append(ModelLoadError("it is damaged"))
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        status, data = _head(connection)
        assert status == 200
        _until(connection, b":\n\n", data)
        site.cast.gate.set()
        data = _until(connection, b"0\r\n\r\n")
    assert b'data: {"error":{"message":"it is damaged"' in data
    assert b'"code":"model_not_found"' in data
    assert b"[DONE]" not in data


def test_a_request_that_does_not_stream_always_has_its_status(site: Site) -> None:
    _limits(site, hold_s=0.01, ping_s=0.01)
    site.cast.gate.clear()
    site.cast.errors.append(ModelLoadError("it is damaged"))
    with site.raw_post(CHAT, chat()) as connection:
        wait_until(lambda: site.cast.specs)
        site.cast.gate.set()
        assert _head(connection)[0] == 404


# ---- and in the middle


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("error", [EngineError("boom"), InvalidRequestError("boom")], ids=["ours", "theirs"])
def test_an_error_in_the_middle_is_the_last_event(site: Site, path: str, error: Exception) -> None:
    site.scripted(["some text", error])
    answer = site.post(path, chat(stream=True) if path == CHAT else completion(stream=True))
    assert answer.status in (200, 400, 503)  # both pieces may come at once
    assert b"boom" in answer.body
    assert b"[DONE]" not in answer.body
    if answer.status == 200:
        assert set(answer.events[-1]["error"]) == {"message", "type", "param", "code"}


def test_a_runner_that_dies_in_the_middle(site: Site) -> None:
    site.scripted(["some text"], until_cancelled=True)
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        data = _until(connection, b"some text", _head(connection)[1])
        site.cast.runners[0].die()
        data = _until(connection, b"0\r\n\r\n", data)
    assert b'"code":"engine_failed"' in data
    assert b"[DONE]" not in data
    assert site.post(CHAT, chat()).status == 200


# ---- what is logged


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_log_has_the_tokens(site: Site, path: str, stream: bool) -> None:
    site.post(path, chat(stream=stream) if path == CHAT else completion(stream=stream))
    line = site.log.access_lines()[-1]
    assert "status=200" in line
    assert re.search(r" prompt=[1-9]\d* completion=8 ", line)


def test_a_stream_that_fails_is_logged_and_counted_as_failed(site: Site) -> None:
    series = 'nbllm_requests_total{route="chat/completions",status="503"}'
    before = value(site, series)
    site.scripted(["some text"], until_cancelled=True)
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        data = _until(connection, b"some text", _head(connection)[1])
        site.cast.runners[0].die()
        _until(connection, b"0\r\n\r\n", data)
    line = site.log.access_lines()[-1]
    assert "status=503" in line
    assert f" completion={len('some text')} " in line
    assert value(site, series) == before + 1


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_request_whose_client_goes_is_logged_with_what_it_got(
    site: Site, monkeypatch: pytest.MonkeyPatch, path: str, stream: bool
) -> None:
    site.scripted(["four"], until_cancelled=True)
    has_some, count = threading.Event(), OpenAIHandler.generated

    def counted(handler: OpenAIHandler, chunk: Chunk) -> Chunk:
        count(handler, chunk)
        has_some.set()
        return chunk

    monkeypatch.setattr(OpenAIHandler, "generated", counted)
    make: Any = chat if path == CHAT else completion
    with site.raw_post(path, make(stream=stream)):
        assert has_some.wait(WAIT_S)
    line = site.log.access_lines()[-1]
    assert "status=499" in line
    assert " completion=4 " in line


# ---- clients that go


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_ends_its_request(site: Site, path: str, stream: bool) -> None:
    engine = site.scripted(["a"], until_cancelled=True)
    make: Any = chat if path == CHAT else completion
    with site.raw_post(path, make(stream=stream)):
        wait_until(lambda: engine.tickets)
        assert not engine.tickets[0].is_done
    wait_until(lambda: engine.tickets[0].is_done)
    wait_until(lambda: site.in_flight == 0)
    assert site.service.router.supervisor.loaded()[0].num_active == 0
    wait_until(lambda: any("status=499" in line for line in site.log.lines))
    assert not [line for line in site.log.lines if "Traceback" in line]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_while_the_model_loads(site: Site, stream: bool) -> None:
    site.cast.gate.clear()
    engine = site.scripted("x")
    with site.raw_post(CHAT, chat(stream=stream)):
        wait_until(lambda: site.cast.specs)
    wait_until(lambda: site.in_flight == 0)
    site.cast.gate.set()
    wait_until(lambda: site.cast.runners)
    assert engine.requests == []
    assert site.post(CHAT, chat()).status == 200


def test_of_many_clients_that_go_nothing_is_left(site: Site) -> None:
    site.post(CHAT, chat())
    remote = site.cast.runners[0].engine
    for stream in [True, False] * 25:
        site.raw_post(CHAT, chat(stream=stream, max_tokens=400)).close()
    wait_until(lambda: site.in_flight == 0)
    wait_until(lambda: not remote._tickets)
    wait_until(lambda: site.cast.runners[0].inner.stats().num_running == 0)
    assert site.post(CHAT, chat()).status == 200
    assert len(site.cast.runners) == 1


def test_a_client_that_stops_reading_is_let_go_and_others_go_on(site: Site) -> None:
    _limits(site, stall_s=0.3)
    engine = ScriptedEngine()
    engine.enqueue(["x" * 100_000] * 200, until_cancelled=True)
    for _ in range(3):
        engine.enqueue("short")
    site.cast.engines.append(engine)
    with site.raw_post(CHAT, chat(stream=True)) as connection:
        connection.settimeout(20)
        wait_until(lambda: engine.tickets)
        for _ in range(3):  # while it is not read
            assert site.post(CHAT, chat(stream=True)).events[-1] == "[DONE]"
        wait_until(lambda: engine.tickets[0].is_done)
    wait_until(lambda: site.in_flight == 0)
    assert any("stream unread" in line for line in site.log.lines)


def test_streams_side_by_side_do_not_mix(site: Site) -> None:
    texts: dict[int, str] = {}

    def ask(index: int) -> None:
        events = site.post(CHAT, chat(f"number {index}", stream=True, max_tokens=30)).events
        texts[index] = "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1])
        site.close()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    alone = {i: site.post(CHAT, chat(f"number {i}", max_tokens=30)).json() for i in range(8)}
    assert texts == {i: body["choices"][0]["message"]["content"] for i, body in alone.items()}
