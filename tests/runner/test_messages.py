from __future__ import annotations

import numpy as np
import pytest

from nbllm.core import (
    Adapter,
    ChoiceRequest,
    Chunk,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Message,
    Request,
    SamplingParams,
    ScoreRequest,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from nbllm.errors import ContextOverflowError, EngineDeadError, EngineError, InvalidRequestError, ParameterError
from nbllm.runner import messages
from nbllm.runner.errors import BusyError, ProtocolError

CHAT = GenerateRequest(
    messages=(
        Message("user", "hé 🎈"),
        Message("assistant", "", tool_calls=(ToolCall("call_1", "f", '{"a": 1}'),), tokens=(1, 2)),
        Message("tool", "2", tool_call_id="call_1"),
    ),
    sampling=SamplingParams(temperature=0.5, stop=("a", "b"), logit_bias={7: -3.5}, logprobs=True, top_logprobs=2, n=3),
    constraint=Constraint("regex", "a+"),
    template_options={"enable_thinking": False, "deep": [{"x": None}]},
    tools=(Tool(name="f", parameters={"type": "object"}),),
    timeout_s=2.5,
    priority="batch",
    template="{{ messages }}",
    adapters=(Adapter("/a/é.gguf", -0.5), Adapter("/b.gguf")),
)
LOGPROB = TokenLogprob(5, b"\xff", -0.5, ((6, b"b", -1.5),))
CHUNK = Chunk(
    index=2,
    text="x",
    reasoning="r",
    tokens=(5,),
    tool_calls=(ToolCallDelta(0, "id", "f", "{"),),
    logprobs=(LOGPROB,),
    prompt_logprobs=(LOGPROB,),
    finish_reason="tool_calls",
    usage=Usage(1, 2, 3, 4),
    timings=Timings(0.1, 0.2, 0.3, 0.4),
    seed=9,
    token_logprobs=(LOGPROB,),
)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(CHAT, id="chat"),
        pytest.param(GenerateRequest(text="a", suffix="b", parse_special=True), id="text"),
        pytest.param(GenerateRequest(tokens=(1, 2), prompt_logprobs=True), id="tokens"),
        pytest.param(EmbedRequest(texts=("a", "b"), timeout_s=1.0, adapters=()), id="embed"),
        pytest.param(ScoreRequest(prompt="", continuation="c", messages=(Message("user", "q"),)), id="score"),
        pytest.param(
            ChoiceRequest(messages=(Message("user", "q"),), choices=("a", "é"), template_options={"x": [1]}),
            id="choose",
        ),
    ],
)
def test_request_arrives_as_it_was_sent(request_: Request) -> None:
    sent = messages.submission(7, request_)
    assert messages.decoded_request(messages.encoded_request(sent)) == sent


def test_chunk_arrives_as_it_was_sent() -> None:
    sent = messages.Piece(7, CHUNK)
    assert messages.decoded_answer(messages.encoded_answer(sent)) == sent


def test_vector_arrives_as_it_was_sent() -> None:
    vector = np.linspace(-1, 1, 5, dtype=np.float32)
    received = messages.decoded_answer(messages.encoded_answer(messages.Piece(1, Chunk(embedding=vector))))
    assert isinstance(received, messages.Piece)
    assert received.chunk.embedding.dtype == np.float32
    assert received.chunk.embedding.tolist() == vector.tolist()


@pytest.mark.parametrize(
    "error", [ParameterError("n", "is odd"), ContextOverflowError(9, 5, "wait"), EngineDeadError("gone")]
)
def test_error_of_the_tree_arrives_as_itself(error: Exception) -> None:
    received = messages.decoded_answer(messages.encoded_answer(messages.Refused(3, error)))
    assert isinstance(received, messages.Refused)
    assert type(received.error) is type(error)
    assert str(received.error) == str(error)
    assert vars(received.error) == vars(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("k"), "KeyError: 'k'"), (BusyError("full", 2.0), "full"), (EngineError("half \ud800"), "half ?")],
)
def test_other_error_arrives_as_the_engines(error: Exception, text: str) -> None:
    received = messages.decoded_answer(messages.encoded_answer(messages.Refused(3, error)))
    assert isinstance(received, messages.Refused)
    assert type(received.error) is EngineError
    assert str(received.error) == text


def _nested(depth: int) -> list[object]:
    nested: list[object] = []
    for _ in range(depth):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        pytest.param(GenerateRequest(text="\ud800"), "surrogate", id="surrogate"),
        pytest.param(GenerateRequest(text="a", template_options={"x": object()}), "object", id="object"),
        pytest.param(GenerateRequest(text="a", template_options={"x": _nested(100_000)}), "deeply", id="deep"),
    ],
)
def test_request_that_cannot_be_sent_says_why(request_: Request, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        messages.encoded_request(messages.submission(1, request_))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91\xa3abc", b"\x91" * 100_000, b"\x93\xa6refused\x00\x01"])
def test_nonsense_is_a_protocol_error(payload: bytes) -> None:
    for decoded in (messages.decoded_request, messages.decoded_answer):
        with pytest.raises(ProtocolError):
            decoded(payload)
