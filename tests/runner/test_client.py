"""Both ends of the protocol at once: what is asked of a RemoteEngine, an engine behind an EngineHost answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbllm.core import ChoiceRequest, Chunk, EmbedRequest, GenerateRequest, Message, SamplingParams, ScoreRequest
from nbllm.engine.interface import iter_chunks
from nbllm.errors import EngineClosedError, EngineDeadError, EngineError, ParameterError
from nbllm.runner import messages
from nbllm.runner.client import RemoteEngine
from nbllm.runner.framing import FrameReader, framed
from nbllm.runner.host import EngineHost
from nbllm.runner.listener import dial, listen
from nbllm.testing import ScriptedEngine, toy_engine
from tests.interrupts import check_requests

TOKEN = "open sesame"
HI = GenerateRequest(messages=(Message("user", "hi"),))
WAIT_S = 10.0


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def host(engine: ScriptedEngine, tmp_path: Path) -> Iterator[EngineHost]:
    host = EngineHost(engine, listen(tmp_path), TOKEN)
    host.start()
    yield host
    host.close()


@pytest.fixture
def remote(host: EngineHost) -> Iterator[RemoteEngine]:
    remote = RemoteEngine(host.address, token=TOKEN)
    yield remote
    remote.close()


class Heard:
    """Collects chunks until the last one."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.has_begun, self.is_over = threading.Event(), threading.Event()

    def __call__(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.has_begun.set()
        if chunk.finish_reason is not None:
            self.is_over.set()


def test_answer_is_the_engines(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    engine.enqueue(["one ", "two"])
    chunks = list(iter_chunks(remote, HI))
    assert "".join(chunk.text for chunk in chunks) == "one two"
    assert chunks[-1].finish_reason == "stop"
    assert engine.requests == [HI]
    assert not remote._tickets


def test_all_answers_come_to_their_end(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    for text in "abc":
        engine.enqueue(text)
    chunks = list(iter_chunks(remote, GenerateRequest(text="x", sampling=SamplingParams(n=3))))
    assert [chunk.index for chunk in chunks if chunk.finish_reason] == [0, 1, 2]


def test_numbers_are_the_engines(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    for request in (
        EmbedRequest(texts=("a", "b")),
        ScoreRequest(prompt="a", continuation="b"),
        ChoiceRequest(messages=(Message("user", "q"),), choices=("a", "b")),
    ):
        here, there = list(iter_chunks(engine, request)), list(iter_chunks(remote, request))
        for mine, its in zip(here, there, strict=True):
            assert mine.token_logprobs == its.token_logprobs
            assert (mine.embedding is None) or (mine.embedding == its.embedding).all()


def test_calls_are_the_engines(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    assert remote.info == engine.info
    assert remote.tokenize("<|im_end|>", parse_special=True) == engine.tokenize("<|im_end|>", parse_special=True)
    assert remote.detokenize([104, 105]) == "hi"
    assert remote.render(HI) == engine.render(HI)
    assert remote.stats() == engine.stats()


def test_refusal_is_raised_where_it_was_asked(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    engine.enqueue(ParameterError("logit_bias", "no such token"))
    with pytest.raises(ParameterError, match="no such token") as caught:
        remote.submit(HI, lambda chunk: None)
    assert caught.value.param == "logit_bias"
    with pytest.raises(EngineError, match="KeyError"):
        remote.detokenize([99_999_999])


def test_cancel_ends_the_answer_over_there(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    engine.enqueue("so far", until_cancelled=True)
    heard = Heard()
    ticket = remote.submit(HI, heard)
    assert heard.has_begun.wait(WAIT_S)
    assert not ticket.is_done
    ticket.cancel()
    assert heard.is_over.wait(WAIT_S)
    assert heard.chunks[-1].finish_reason == "interrupted"
    assert ticket.is_done


def test_broken_callback_cancels_its_request_alone(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    engine.enqueue("never heard", until_cancelled=True)

    def broken(chunk: Chunk) -> None:
        raise RuntimeError

    remote.submit(HI, broken)
    engine.enqueue("fine")
    assert "".join(chunk.text for chunk in iter_chunks(remote, HI)) == "fine"
    assert all(ticket.is_done for ticket in engine.tickets)


def test_requests_of_a_client_that_goes_are_cancelled(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    cancelled = threading.Event()
    engine.enqueue("x", until_cancelled=True)
    heard = Heard()
    remote.submit(HI, heard)
    (ticket,) = engine.tickets
    ticket.on_chunk = lambda chunk: cancelled.set()
    remote.close()
    assert cancelled.wait(WAIT_S)
    assert heard.is_over.wait(WAIT_S)
    assert isinstance(heard.chunks[-1].error, EngineClosedError)


def test_lost_host_ends_everything_with_a_clear_error(
    engine: ScriptedEngine, host: EngineHost, remote: RemoteEngine
) -> None:
    engine.enqueue("x", until_cancelled=True)
    heard = Heard()
    remote.submit(HI, heard)
    host.close()
    assert heard.is_over.wait(WAIT_S)
    assert isinstance(heard.chunks[-1].error, EngineDeadError)
    assert not remote.is_alive
    for ask in (lambda: remote.submit(HI, heard), remote.stats, lambda: RemoteEngine(host.address, token=TOKEN)):
        with pytest.raises(EngineDeadError):
            ask()


def test_requests_of_an_abandoned_connection_end_as_of_a_lost_one(engine: ScriptedEngine, remote: RemoteEngine) -> None:
    engine.enqueue("x", until_cancelled=True)
    heard = Heard()
    remote.submit(HI, heard)
    remote.abandon()
    assert heard.is_over.wait(WAIT_S)
    assert isinstance(heard.chunks[-1].error, EngineDeadError)
    with pytest.raises(EngineDeadError):
        remote.submit(HI, heard)


def test_owner_is_told_once_when_the_host_is_lost(host: EngineHost) -> None:
    lost = threading.Event()
    remote = RemoteEngine(host.address, token=TOKEN, on_lost=lost.set, lost_message=lambda: "killed by signal 6")
    host.close()
    assert lost.wait(WAIT_S)
    with pytest.raises(EngineDeadError, match="signal 6"):
        remote.stats()


@pytest.mark.parametrize("token", ["", "open", "sésame"])
def test_wrong_token_is_refused(host: EngineHost, token: str) -> None:
    with pytest.raises(EngineError, match="token"):
        RemoteEngine(host.address, token=token)


def test_other_protocol_is_refused(host: EngineHost) -> None:
    connection = dial(host.address, WAIT_S)
    connection.sendall(framed(messages.encoded_request(messages.Hello(messages.PROTOCOL + 1, TOKEN))))
    with connection, connection.makefile("rb") as answer:
        (payload,) = FrameReader().push(answer.read())
    refused = messages.decoded_answer(payload)
    assert isinstance(refused, messages.Refused)
    assert "speaks protocol" in str(refused.error)


def test_frozen_host_is_given_up(engine: ScriptedEngine, host: EngineHost, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteEngine(host.address, token=TOKEN, answer_timeout_s=0.05)
    release = threading.Event()
    monkeypatch.setattr("nbllm.runner.messages.Received", lambda id: release.wait(WAIT_S))
    with pytest.raises(EngineDeadError, match="no sign"):
        remote.submit(HI, lambda chunk: None)
    release.set()
    remote.close()


def test_bytes_before_the_greeting_end_the_connection(host: EngineHost) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", framed(b"\x91\xa5stats"), framed(b"junk")):
        connection = dial(host.address, 1.0)
        connection.sendall(data)
        assert connection.recv(1) == b""
        connection.close()


def test_each_guest_knows_how_many_others_there_are(host: EngineHost, remote: RemoteEngine) -> None:
    assert remote.num_others == 0
    second = RemoteEngine(host.address, token=TOKEN)
    with pytest.raises(EngineError):
        RemoteEngine(host.address, token="wrong")  # is no guest
    _until(lambda: (remote.num_others, second.num_others) == (1, 1))
    third = RemoteEngine(host.address, token=TOKEN)
    _until(lambda: {one.num_others for one in (remote, second, third)} == {2})
    third.close()
    second.close()
    _until(lambda: remote.num_others == 0)
    assert remote.tokenize("a")


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


def test_a_new_request_does_not_wait_for_the_reason_of_the_end(host: EngineHost) -> None:
    """Whoever asks may be an event loop, and to find out how a process ended takes a moment."""
    is_asked, may_say = threading.Event(), threading.Event()

    def reason() -> str:
        is_asked.set()
        may_say.wait(WAIT_S)
        return "it was ended by SIGABRT"

    remote = RemoteEngine(host.address, token=TOKEN, lost_message=reason)
    host.close()
    assert is_asked.wait(WAIT_S)
    with pytest.raises(EngineDeadError, match="send the request again"):
        remote.begin(HI, lambda chunk: None, lambda error: None)
    may_say.set()
    _until(lambda: remote._farewell == "it was ended by SIGABRT")
    with pytest.raises(EngineDeadError, match="it was ended by SIGABRT"):
        remote.begin(HI, lambda chunk: None, lambda error: None)


def test_next_request_is_answered_after_one_that_was_interrupted_at_any_moment(tmp_path: Path) -> None:
    engine = toy_engine(context_length=100_000, max_sequences=2)
    host = EngineHost(engine, listen(tmp_path), TOKEN)
    host.start()
    remote = RemoteEngine(host.address, token=TOKEN)
    check_requests(remote, behind=engine)
    remote.close()
    host.close()
    engine.close()
