"""An engine over a URL, against servers that answer well, badly, slowly and not at all."""

from __future__ import annotations

import asyncio
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from nbllm.core import (
    ChoiceRequest,
    Chunk,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Message,
    Request,
    SamplingParams,
    ScoreRequest,
)
from nbllm.engine.interface import iter_chunks
from nbllm.errors import (
    ContextOverflowError,
    EndpointError,
    EngineClosedError,
    EngineError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    ParameterError,
    UnsupportedError,
)
from nbllm.runner.endpoint import EndpointEngine
from nbllm.runner.endpoint import caller as caller_file
from tests.forked import succeeds_in_child
from tests.runner.plays import Asked, Playhouse, Reply, chat_events, delta, playhouse

_KEY = "sk-verysecret"
_HI = GenerateRequest(messages=(Message("user", "hi"),))


@pytest.fixture
def house() -> Iterator[Playhouse]:
    with playhouse() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_file, "_FIRST_PAUSE_S", 0.001)


@pytest.fixture
def engine(house: Playhouse) -> Iterator[EndpointEngine]:
    engine = EndpointEngine(house.url, "m", api_key=_KEY, max_concurrency=2, max_retries=2)
    yield engine
    engine.close()


def _hi(**options: Any) -> GenerateRequest:
    return GenerateRequest(messages=(Message("user", "hi"),), **options)


def _all(engine: EndpointEngine, request: Request = _HI) -> list[Chunk]:
    return list(iter_chunks(engine, request))


def _text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def _error(engine: EndpointEngine, request: Request = _HI) -> BaseException:
    error = _all(engine, request)[-1].error
    assert error is not None
    assert _KEY not in f"{error!r} {error.__cause__!r}"
    return error


# ---- answers


def test_submit_streams_text_and_ends_with_usage_and_timings(house: Playhouse, engine: EndpointEngine) -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 1}}
    house.chat(lambda asked, reply: reply.stream(*chat_events("Hel", "lo", usage=usage)))

    *pieces, last = _all(engine, _hi(sampling=SamplingParams(seed=3)))

    assert [piece.text for piece in pieces] == ["Hel", "lo"]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 2)
    assert (last.usage.cached_tokens, last.usage.reasoning_tokens) == (5, 1)
    assert last.timings is not None
    assert last.timings.first_token_s >= last.timings.prefill_s > 0
    assert last.seed == 3
    assert engine.stats().completion_tokens == 2


def test_submit_sends_the_key_and_asks_nothing_else(house: Playhouse, engine: EndpointEngine) -> None:
    house.answers("x")

    _all(engine)

    (asked,) = house.asked
    assert asked.headers["Authorization"] == f"Bearer {_KEY}"
    assert asked.body["messages"] == [{"role": "user", "content": "hi"}]
    assert asked.body["stream_options"] == {"include_usage": True}


def test_constructor_sends_nothing_and_shows_no_key(house: Playhouse, engine: EndpointEngine) -> None:
    assert _KEY not in repr(engine)
    assert not house.asked


def test_submit_takes_an_answer_that_is_no_stream(house: Playhouse, engine: EndpointEngine) -> None:
    message = {"role": "assistant", "content": "whole", "reasoning": "hm"}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "length"}], "usage": {"prompt_tokens": 4}}
    house.chat(lambda asked, reply: reply.json(whole))

    piece, last = _all(engine)

    assert (piece.text, piece.reasoning, last.finish_reason) == ("whole", "hm", "length")


def test_submit_gives_each_of_n_answers_its_end(house: Playhouse, engine: EndpointEngine) -> None:
    events = [delta({"content": "a"}), delta({"content": "b"}, index=1), delta({}, "stop"), delta({}, "length", 1)]
    house.chat(lambda asked, reply: reply.stream(*events, {"choices": [], "usage": {"completion_tokens": 2}}))

    chunks = _all(engine, _hi(sampling=SamplingParams(n=2)))

    assert house.bodies[0]["n"] == 2
    assert [(chunk.index, chunk.finish_reason) for chunk in chunks if chunk.finish_reason] == [
        (0, "stop"),
        (1, "length"),
    ]
    assert sum(chunk.usage.completion_tokens for chunk in chunks if chunk.usage) == 2


def test_submit_reports_answers_that_the_server_did_not_give(house: Playhouse, engine: EndpointEngine) -> None:
    house.answers("only one")

    first, second = (chunk for chunk in _all(engine, _hi(sampling=SamplingParams(n=2))) if chunk.finish_reason)

    assert first.finish_reason == "stop"
    assert "of 2 answers the server brought 1 to an end" in str(second.error)


def test_submit_completes_text_and_tokens(house: Playhouse, engine: EndpointEngine) -> None:
    events = [{"choices": [{"index": 0, "text": " world", "finish_reason": "length"}]}]
    house.plays["POST /v1/completions"] = lambda asked, reply: reply.stream(*events)

    assert _text(_all(engine, GenerateRequest(text="hello"))) == " world"
    assert _text(_all(engine, GenerateRequest(tokens=(1, 2)))) == " world"
    assert [(body["prompt"], body["max_tokens"]) for body in house.bodies] == [("hello", 16), ([1, 2], 16)]


def test_submit_embeds_in_the_order_of_the_texts(house: Playhouse, engine: EndpointEngine) -> None:
    def play(asked: Asked, reply: Reply) -> None:
        rows = [{"index": i, "embedding": [3.0, 4.0 * i]} for i in range(len(asked.body["input"]))]
        reply.json({"data": rows[::-1], "usage": {"prompt_tokens": 9}})

    house.plays["POST /v1/embeddings"] = play

    first, second = _all(engine, EmbedRequest(texts=("a", "b")))

    assert first.embedding.tolist() == [1.0, 0.0]
    assert second.embedding.tolist() == pytest.approx([0.6, 0.8])
    assert (first.finish_reason, second.finish_reason) == ("stop", "stop")
    assert first.usage is not None
    assert first.usage.prompt_tokens == 9
    house.lists({"id": "m"})
    assert engine.info.model.embedding_length == 2


@pytest.mark.parametrize(
    "body",
    [{"data": []}, {"data": [{"embedding": ["x"]}]}, {"data": 5}, [], {"data": [{"index": 1, "embedding": [1]}]}],
)
def test_submit_of_texts_refuses_what_are_no_vectors(house: Playhouse, engine: EndpointEngine, body: Any) -> None:
    house.plays["POST /v1/embeddings"] = lambda asked, reply: reply.json(body)

    assert "one vector for each of 1 texts" in str(_error(engine, EmbedRequest(texts=("a",))))


# ---- trying again


def _refuses(times: int, status: int, **headers: str) -> Any:
    left = iter(range(times))

    def play(asked: Asked, reply: Reply) -> None:
        if next(left, None) is None:
            reply.stream(*chat_events("fine"))
        else:
            reply.json({"error": {"message": "busy", "code": "busy"}}, status, **headers)

    return play


@pytest.mark.parametrize("status", [429, 503])
def test_submit_tries_again_while_the_server_is_busy(house: Playhouse, engine: EndpointEngine, status: int) -> None:
    house.chat(_refuses(2, status))

    assert _text(_all(engine)) == "fine"
    assert len(house.asked) == 3


def test_submit_gives_up_after_max_retries(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(_refuses(99, 503))

    assert "failed (503): busy" in str(_error(engine))
    assert len(house.asked) == 3


def test_submit_waits_as_retry_after_says(
    house: Playhouse, engine: EndpointEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    house.chat(_refuses(1, 429, Retry_After="7"))

    assert _text(_all(engine)) == "fine"
    assert 7.0 in pauses


@pytest.mark.parametrize("value", ["3600", "Fri, 31 Dec 2199 23:59:59 GMT"], ids=["seconds", "date"])
def test_submit_does_not_wait_for_an_hour(house: Playhouse, engine: EndpointEngine, value: str) -> None:
    house.chat(_refuses(1, 429, Retry_After=value))

    assert "(429)" in str(_error(engine))
    assert len(house.asked) == 1


def test_submit_does_not_try_again_when_the_money_is_gone(house: Playhouse, engine: EndpointEngine) -> None:
    error = {"error": {"message": "no quota", "code": "insufficient_quota"}}
    house.chat(lambda asked, reply: reply.json(error, 429))

    assert "no quota" in str(_error(engine))
    assert len(house.asked) == 1


def test_submit_tries_again_when_a_connection_drops_unanswered(house: Playhouse, engine: EndpointEngine) -> None:
    left = iter(range(2))
    house.chat(lambda asked, reply: None if next(left, None) is not None else reply.stream(*chat_events("fine")))

    assert _text(_all(engine)) == "fine"


def test_submit_never_says_a_beginning_twice(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(lambda asked, reply: reply.stream(delta({"content": "half"}), done=False))

    piece, last = _all(engine)

    assert (piece.text, last.finish_reason) == ("half", "error")
    assert "broke off in the middle" in str(last.error)
    assert len(house.asked) == 1


def test_submit_needs_no_done_after_the_last_end(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(lambda asked, reply: reply.stream(delta({"content": "all"}), delta({}, "stop"), done=False))

    assert [chunk.finish_reason for chunk in _all(engine)] == [None, "stop"]


def test_submit_of_a_server_that_is_not_there_fails_in_one_line() -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        engine = EndpointEngine(url, "m", max_retries=1)
        error = _error(engine)
        engine.close()

    assert isinstance(error, EndpointError)
    assert str(error) == f"nothing answers at {url}: start the server there, or check host and port"


class _Failing(httpx.AsyncClient):
    """Cannot connect, for a reason of the test's. Counts how often it was tried."""

    error: Exception = httpx.ConnectError("no")
    num_tries = 0

    def stream(self, *_: Any, **__: Any) -> Any:
        _Failing.num_tries += 1
        raise self.error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is slept, of which nothing passes but the clock."""
    slept: list[float] = []
    begun, sleep = time.monotonic(), asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds >= caller_file._FIRST_PAUSE_S / 2:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(caller_file, "_FIRST_PAUSE_S", 0.25)
    monkeypatch.setattr(asyncio, "sleep", noted)
    monkeypatch.setattr(caller_file, "time", SimpleNamespace(monotonic=lambda: begun + sum(slept), time=time.time))
    return slept


def _refused() -> Exception:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    return error


def _unnamed(number: int) -> Exception:
    error = httpx.ConnectError("no name")
    error.__cause__ = socket.gaierror(number, "who?")
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(_refused(), r"nothing answers at http://host:1/v1: start the server there", id="refused"),
        pytest.param(_unnamed(socket.EAI_NONAME), r"there is no host 'host': check the address", id="no such host"),
        pytest.param(_unnamed(socket.EAI_AGAIN), r"'host' was not found \(who\?\): check the network", id="no names"),
        pytest.param(httpx.ConnectTimeout(""), r"nothing answered at http://host:1/v1 within 5 s: check", id="silent"),
        pytest.param(httpx.ConnectError("bad TLS"), r"failed: bad TLS; check the address", id="other"),
    ],
)
def test_server_that_never_answered_is_given_up_soon(
    error: Exception, says: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Failing, "error", error)
    monkeypatch.setattr(_Failing, "num_tries", 0)
    monkeypatch.setattr(httpx, "AsyncClient", _Failing)
    engine = EndpointEngine("http://host:1/v1", "m", max_retries=1000)
    try:
        first = _error(engine)
        tries = _Failing.num_tries
        assert sum(pauses) < 1
        pauses.append(1.0)  # it is later
        assert isinstance(_error(engine), EndpointError)
    finally:
        engine.close()
    assert re.search(says, str(first))
    assert _Failing.num_tries == tries + 1  # the second request waits for nothing


def test_server_that_answered_before_is_tried_as_often_as_was_said(
    house: Playhouse, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    house.chat(lambda asked, reply: reply.stream(*chat_events("fine")))
    engine = EndpointEngine(house.url, "m", max_retries=5)
    try:
        assert _text(_all(engine)) == "fine"
        monkeypatch.setattr(httpx.AsyncClient, "stream", _Failing.stream)
        monkeypatch.setattr(httpx.AsyncClient, "error", _refused(), raising=False)
        assert isinstance(_error(engine), EndpointError)
    finally:
        engine.close()
    assert len(pauses) == 5


# ---- refusals


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            {"error": {"message": "bad top_p", "param": "top_p"}},
            InvalidRequestError,
            "refused the request: bad top_p",
        ),
        (422, {"detail": "no"}, InvalidRequestError, "refused the request: no"),
        (401, {"error": {"message": f"wrong key {_KEY}"}}, ModelError, r"the key in api_key \(401\).*wrong key \*\*\*"),
        (403, {"error": "closed"}, ModelError, r"does not allow this to the key in api_key \(403\): closed"),
        (404, {"error": {"message": "no m", "code": "model_not_found"}}, ModelNotFoundError, "has no model 'm'.*no m"),
        (500, {"error": {"message": "a\n\x1b[31mb"}}, EngineError, r"failed \(500\): a \[31mb"),
        (502, [], EngineError, r"failed \(502\): status 502, without a reason"),
        (307, {}, EngineError, r"failed \(307\): it has moved to elsewhere"),
    ],
)
def test_submit_maps_a_refusal(
    house: Playhouse, engine: EndpointEngine, status: int, body: Any, kind: type[Exception], message: str
) -> None:
    house.chat(lambda asked, reply: reply.json(body, status))

    error = _error(engine)

    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    assert "\n" not in str(error)


def test_submit_without_a_key_says_where_one_goes(house: Playhouse) -> None:
    house.chat(lambda asked, reply: reply.json({"error": {"message": "who?"}}, 401))
    engine = EndpointEngine(house.url, "m", key_name="OPENAI_API_KEY")

    error = _error(engine)
    engine.close()

    assert "Authorization" not in house.asked[0].headers
    assert "wants a key (401): set the variable OPENAI_API_KEY; it says: who?" in str(error)


def test_submit_of_a_long_prompt_names_both_counts(house: Playhouse, engine: EndpointEngine) -> None:
    error = {"code": 400, "type": "exceed_context_size_error", "message": "x", "n_prompt_tokens": 9000, "n_ctx": 4096}
    house.chat(lambda asked, reply: reply.json({"error": error}, 400))

    overflow = _error(engine)

    assert isinstance(overflow, ContextOverflowError)
    assert (overflow.prompt_tokens, overflow.context_length) == (9000, 4096)


def test_submit_of_an_error_in_the_stream_keeps_the_text(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(lambda asked, reply: reply.stream(delta({"content": "some"}), {"error": {"message": "out of memory"}}))

    piece, last = _all(engine)

    assert piece.text == "some"
    assert "failed in the middle of the answer: out of memory" in str(last.error)


@pytest.mark.parametrize(
    "content", [b"data: {oops\n\n", b"data: 5\n\n", b"data: \xff\xfe\n\n", b"data: " + b"[" * 9999 + b"\n\n"]
)
def test_submit_of_garbage_is_an_engine_error(house: Playhouse, engine: EndpointEngine, content: bytes) -> None:
    def play(asked: Asked, reply: Reply) -> None:
        reply.start(200, "text/event-stream")
        reply.write(content)

    house.chat(play)

    assert "no event of a chat" in str(_error(engine))


def test_submit_of_a_web_page_is_an_engine_error(house: Playhouse, engine: EndpointEngine) -> None:
    def play(asked: Asked, reply: Reply) -> None:
        reply.start(200, "text/html")
        reply.write(b"<html>Sign in</html>")

    house.chat(play)

    assert "'<html>Sign in</html>'" in str(_error(engine))


def test_submit_of_a_content_filter_is_no_silent_end(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(lambda asked, reply: reply.stream(*chat_events("so", reason="content_filter")))

    assert "content filter" in str(_error(engine))


# ---- ends


class _Listener:
    """Collects chunks, and lets a test wait for one."""

    def __init__(self) -> None:
        self.chunks: queue.SimpleQueue[Chunk] = queue.SimpleQueue()

    def next(self) -> Chunk:
        return self.chunks.get(timeout=10)


def test_cancel_before_the_headers_closes_the_connection(house: Playhouse, engine: EndpointEngine) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def play(asked: Asked, reply: Reply) -> None:
        arrived.set()
        reply.wait_until_gone()
        if reply.is_gone.is_set():
            gone.set()

    house.chat(play)
    heard = _Listener()
    ticket = engine.submit(_HI, heard.chunks.put)
    assert arrived.wait(10)

    ticket.cancel()

    assert heard.next().finish_reason == "interrupted"
    assert gone.wait(10)
    ticket.cancel()


def test_cancel_in_the_stream_keeps_the_text(house: Playhouse, engine: EndpointEngine) -> None:
    gone = threading.Event()

    def play(asked: Asked, reply: Reply) -> None:
        reply.stream(delta({"content": "begun"}), done=False)
        reply.wait_until_gone()
        if reply.is_gone.is_set():
            gone.set()

    house.chat(play)
    heard = _Listener()
    ticket = engine.submit(_HI, heard.chunks.put)
    assert heard.next().text == "begun"

    ticket.cancel()

    assert heard.next().finish_reason == "interrupted"
    assert gone.wait(10)


def test_cancel_at_once_gives_one_end(house: Playhouse, engine: EndpointEngine) -> None:
    house.chat(lambda asked, reply: reply.wait_until_gone())
    heard = _Listener()

    engine.submit(_hi(sampling=SamplingParams(n=2)), heard.chunks.put).cancel()

    assert [(chunk.index, chunk.finish_reason) for chunk in (heard.next(), heard.next())] == [
        (0, "interrupted"),
        (1, "interrupted"),
    ]


def test_timeout_keeps_the_text(house: Playhouse, engine: EndpointEngine) -> None:
    def play(asked: Asked, reply: Reply) -> None:
        reply.stream(delta({"content": "slow"}), done=False)
        reply.wait_until_gone()

    house.chat(play)

    piece, last = _all(engine, _hi(timeout_s=0.3))

    assert (piece.text, last.finish_reason, last.error) == ("slow", "timeout", None)


def test_silence_longer_than_the_timeout_is_an_error_and_not_tried_again(house: Playhouse) -> None:
    house.chat(lambda asked, reply: reply.wait_until_gone())
    engine = EndpointEngine(house.url, "m", timeout_s=0.1)

    error = _error(engine)
    engine.close()

    assert "said nothing for 0.1 s" in str(error)
    assert len(house.asked) == 1


def test_exception_of_the_listener_ends_its_request_only(house: Playhouse, engine: EndpointEngine) -> None:
    gone = threading.Event()

    def play(asked: Asked, reply: Reply) -> None:
        reply.stream(delta({"content": "x"}), done=False)
        reply.wait_until_gone()
        if reply.is_gone.is_set():
            gone.set()

    def fail(chunk: Chunk) -> None:
        raise ValueError("listener")

    house.chat(play)
    engine.submit(_HI, fail)

    assert gone.wait(10)
    house.answers("next")
    assert _text(_all(engine)) == "next"


def test_close_ends_what_runs_and_what_waits(house: Playhouse, engine: EndpointEngine) -> None:
    arrived = threading.Semaphore(0)

    def play(asked: Asked, reply: Reply) -> None:
        arrived.release()
        reply.wait_until_gone()

    house.chat(play)
    heard = _Listener()
    for _ in range(4):  # two at a time
        engine.submit(_HI, heard.chunks.put)
    assert arrived.acquire(timeout=10)
    assert arrived.acquire(timeout=10)
    assert not arrived.acquire(blocking=False)

    engine.close()
    engine.close()

    ends = [heard.next() for _ in range(4)]
    assert [type(end.error) for end in ends] == [EngineClosedError] * 4
    with pytest.raises(EngineClosedError, match="connect again"):
        engine.submit(_HI, heard.chunks.put)


def test_close_from_the_listener_does_not_block(house: Playhouse, engine: EndpointEngine) -> None:
    house.answers("x")
    heard = _Listener()

    def close(chunk: Chunk) -> None:
        engine.close()
        heard.chunks.put(chunk)

    engine.submit(_HI, close)

    assert heard.next().text == "x"
    assert isinstance(heard.next().error, EngineClosedError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_submit_in_a_forked_child_is_refused(house: Playhouse, engine: EndpointEngine) -> None:
    house.answers("x")
    _all(engine)

    def act() -> None:
        with pytest.raises(EngineClosedError, match="connect again"):
            engine.submit(_HI, lambda chunk: None)
        engine.close()

    assert succeeds_in_child(act)
    assert _text(_all(engine)) == "x"


def test_interactive_goes_before_batch(house: Playhouse) -> None:
    go_on = threading.Event()

    def play(asked: Asked, reply: Reply) -> None:
        if asked.body["messages"][0]["content"] == "first":
            go_on.wait(10)
        reply.stream(*chat_events("x"))

    house.chat(play)
    engine = EndpointEngine(house.url, "m", max_concurrency=1)
    heard = _Listener()
    for content, priority in (("first", "batch"), ("row", "batch"), ("person", "interactive")):
        request = GenerateRequest(messages=(Message("user", content),), priority=priority)  # type: ignore[arg-type]
        engine.submit(request, lambda chunk: heard.chunks.put(chunk) if chunk.finish_reason else None)
    go_on.set()
    for _ in range(3):
        heard.next()
    engine.close()

    assert [body["messages"][0]["content"] for body in house.bodies] == ["first", "person", "row"]


# ---- what only some servers do


@pytest.mark.parametrize(
    ("owner", "constraint", "sent"),
    [
        ("nbllm", Constraint("regex", "a+"), {"regex": "a+"}),
        ("nbllm", Constraint("lark", "start: A"), {"grammar": "start: A"}),
        ("llamacpp", Constraint("choice", '["a", "b\\""]'), {"grammar": 'root ::= "a" | "b\\""'}),
        ("vllm", Constraint("choice", '["a", "b"]'), {"structured_outputs": {"choice": ["a", "b"]}}),
    ],
)
def test_submit_sends_a_constraint_as_the_server_reads_it(
    house: Playhouse, engine: EndpointEngine, owner: str, constraint: Constraint, sent: dict[str, Any]
) -> None:
    house.lists({"id": "m", "owned_by": owner})
    house.plays["GET /version"] = lambda asked, reply: reply.json({"version": "0.12.1"})
    house.answers("a")

    _all(engine, _hi(constraint=constraint))

    assert sent.items() <= house.bodies[0].items()


def test_submit_refuses_a_constraint_that_the_server_would_ignore(house: Playhouse, engine: EndpointEngine) -> None:
    house.lists({"id": "m", "owned_by": "library"})
    house.answers("free text")

    error = _error(engine, _hi(constraint=Constraint("regex", "a+")))

    assert isinstance(error, UnsupportedError)
    assert not house.bodies
    with pytest.raises(UnsupportedError, match="regex"):  # now it is known, and said at once
        engine.submit(_hi(constraint=Constraint("regex", "a+")), lambda chunk: None)


def test_score_choose_and_render_are_not_to_be_had(house: Playhouse, engine: EndpointEngine) -> None:
    with pytest.raises(UnsupportedError, match="score"):
        engine.submit(ScoreRequest(prompt="a", continuation="b"), lambda chunk: None)
    with pytest.raises(UnsupportedError, match=r"chat\(choice="):
        engine.submit(ChoiceRequest(messages=(Message("user", "q"),), choices=("a", "b")), lambda chunk: None)
    with pytest.raises(UnsupportedError, match="usage"):
        engine.render(_HI)
    assert not house.asked


def test_tokenize_works_with_nbllm_only(house: Playhouse, engine: EndpointEngine) -> None:
    house.lists({"id": "m", "owned_by": "nbllm"})
    house.plays["POST /v1/tokenize"] = lambda asked, reply: reply.json({"tokens": [1, 2]})
    house.plays["POST /v1/detokenize"] = lambda asked, reply: reply.json({"content": "ab"})

    assert engine.tokenize("ab") == [1, 2]
    assert engine.detokenize([1, 2]) == "ab"
    assert house.bodies == [
        {"model": "m", "content": "ab", "parse_special": False},
        {"model": "m", "tokens": [1, 2]},
    ]


def test_tokenize_of_another_server_is_an_error(house: Playhouse, engine: EndpointEngine) -> None:
    house.lists({"id": "m", "owned_by": "vllm"})

    with pytest.raises(UnsupportedError, match="tokenize"):
        engine.tokenize("ab")


def test_submit_refuses_half_a_character(house: Playhouse, engine: EndpointEngine) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        engine.submit(GenerateRequest(text="\ud83d"), lambda chunk: None)
    with pytest.raises(InvalidRequestError, match="surrogate"):
        engine.submit(EmbedRequest(texts=("\ud83d",)), lambda chunk: None)


# ---- what there is to know


def test_info_is_what_the_server_says(house: Playhouse, engine: EndpointEngine) -> None:
    meta = {"n_vocab": 49152, "n_ctx_train": 8192, "n_params": 134515008, "size": 98000000, "n_ctx": 4096}
    house.lists({"id": "other"}, {"id": "m", "owned_by": "llamacpp", "meta": meta})

    info = engine.info

    assert (info.model.name, info.context_length, info.model.context_length) == ("m", 4096, 8192)
    assert (info.model.parameters, info.model.size_bytes, info.model.vocabulary_size) == (134515008, 98000000, 49152)
    assert info.summary == f"m at {house.url}"
    num_asked = len(house.asked)
    assert engine.info == info
    assert len(house.asked) == num_asked


def test_info_of_a_server_that_fails_is_unknown_and_not_asked_again_at_once(
    house: Playhouse, engine: EndpointEngine
) -> None:
    house.plays["GET /v1/models/m"] = lambda asked, reply: reply.json([], 500)

    assert (engine.info.model.name, engine.info.context_length) == ("m", 0)
    assert len(house.asked) == 2  # the one entry, then the list; once


def test_info_does_not_wait_for_a_silent_server(
    house: Playhouse, engine: EndpointEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbllm.runner.endpoint.engine._INFO_S", 0.05)
    house.plays["GET /v1/models/m"] = lambda asked, reply: reply.wait_until_gone()

    assert engine.info.model.name == "m"


def test_info_from_the_listener_does_not_block(house: Playhouse, engine: EndpointEngine) -> None:
    house.answers("x")
    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    engine.submit(_HI, lambda chunk: names.put(engine.info.model.name))

    assert names.get(timeout=10) == "m"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"base_url": "localhost"}, "base_url"),
        ({"model": ""}, "model"),
        ({"api_key": "a\nb"}, "api_key"),
        ({"api_key": "ключ"}, "api_key"),
        ({"api_key": 5}, "api_key"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_retries": -1}, "max_retries"),
        ({"timeout_s": 0}, "timeout"),
    ],
)
def test_constructor_refuses_wrong_values_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        EndpointEngine(**{"base_url": "http://a/v1", "model": "m", **options})
    assert refusal.value.param == named
    assert "ключ" not in str(refusal.value)
