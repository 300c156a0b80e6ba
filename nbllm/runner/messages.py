"""What an engine and a process that uses it say to each other: msgpack, one tagged array a message.

client                            host
Hello(protocol, token)     ->
                           <-     Welcome(info) | Refused(0, error)
Generate|Embed|Score|Choose(id) ->
                           <-     Received(id)               at once: this process is not frozen
                           <-     Taken(id) | Refused(id, error)
                           <-     Piece(id, chunk) ...       the last of each answer has a finish_reason
Cancel(id)                 ->
Call(id, method, ...)      ->
                           <-     Result(id, value) | Refused(id, error)
                           <-     Guests(num)                whenever the number of the others has changed
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from nbllm import errors
from nbllm.core import (
    ChoiceRequest,
    Chunk,
    EmbedRequest,
    EngineInfo,
    GenerateRequest,
    RenderedPrompt,
    Request,
    ScoreRequest,
)
from nbllm.engine.interface import EngineStats
from nbllm.errors import EngineError, InvalidRequestError, NbllmError
from nbllm.runner.errors import ProtocolError

PROTOCOL = 3


class _Message(msgspec.Struct, array_like=True, frozen=True):
    pass


class Hello(_Message, tag="hello", frozen=True):
    """The first message. `token` is the one in the engine's record."""

    protocol: int
    token: str


class Generate(_Message, tag="generate", frozen=True):
    id: int
    request: GenerateRequest


class Embed(_Message, tag="embed", frozen=True):
    id: int
    request: EmbedRequest


class Score(_Message, tag="score", frozen=True):
    id: int
    request: ScoreRequest


class Choose(_Message, tag="choose", frozen=True):
    id: int
    request: ChoiceRequest


class Cancel(_Message, tag="cancel", frozen=True):
    id: int


class Tokenize(_Message, tag="tokenize", frozen=True):
    id: int
    text: str
    parse_special: bool


class Detokenize(_Message, tag="detokenize", frozen=True):
    id: int
    tokens: tuple[int, ...]


class Render(_Message, tag="render", frozen=True):
    id: int
    request: GenerateRequest


class Stats(_Message, tag="stats", frozen=True):
    id: int


class Welcome(_Message, tag="welcome", frozen=True):
    info: EngineInfo


class Received(_Message, tag="received", frozen=True):
    id: int


class Taken(_Message, tag="taken", frozen=True):
    id: int


class Refused(_Message, tag="refused", frozen=True):
    id: int
    error: BaseException


class Piece(_Message, tag="piece", frozen=True):
    id: int
    chunk: Chunk


class Tokens(_Message, tag="tokens", frozen=True):
    id: int
    value: list[int]


class Text(_Message, tag="text", frozen=True):
    id: int
    value: str


class Rendered(_Message, tag="rendered", frozen=True):
    id: int
    value: RenderedPrompt


class Load(_Message, tag="load", frozen=True):
    id: int
    value: EngineStats


class Guests(_Message, tag="guests", frozen=True):
    """How many others use the engine too; before the first of these, nobody."""

    num: int


Call = Tokenize | Detokenize | Render | Stats
Result = Tokens | Text | Rendered | Load
Submission = Generate | Embed | Score | Choose
FromClient = Hello | Submission | Cancel | Call
FromHost = Welcome | Received | Taken | Refused | Piece | Result | Guests


def submission(id: int, request: Request) -> Submission:
    if isinstance(request, GenerateRequest):
        return Generate(id, request)
    if isinstance(request, ChoiceRequest):
        return Choose(id, request)
    return Embed(id, request) if isinstance(request, EmbedRequest) else Score(id, request)


def encoded_request(message: FromClient) -> bytes:
    """A client's message as bytes.

    Raises:
        InvalidRequestError: it holds what cannot be sent: objects, half a surrogate pair, endless nesting.
    """
    try:
        return _encoder.encode(message)
    except RecursionError:
        raise InvalidRequestError("the request is nested too deeply") from None
    except UnicodeEncodeError:
        raise InvalidRequestError("the text holds half of a surrogate pair, which is no character") from None
    except (TypeError, OverflowError, NotImplementedError) as exc:
        raise InvalidRequestError(f"the request holds what cannot be sent to another process: {exc}") from exc


def encoded_answer(message: FromHost) -> bytes:
    return _encoder.encode(message)


def decoded_request(payload: bytes) -> FromClient:
    """Raises ProtocolError when it is no message of a client."""
    message: FromClient = _decoded(_from_client, payload)
    return message


def decoded_answer(payload: bytes) -> FromHost:
    """Raises ProtocolError when it is no message of a host."""
    message: FromHost = _decoded(_from_host, payload)
    if isinstance(message, Piece) and message.chunk.embedding is not None:
        return Piece(message.id, replace(message.chunk, embedding=_vector(message.chunk.embedding)))
    return message


def _decoded(decoder: Any, payload: bytes) -> Any:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"not a message of nbllm's protocol {PROTOCOL}: {exc}") from exc


def _plain(value: Any) -> object:
    """What msgspec does not know by itself."""
    if isinstance(value, BaseException):
        return _plain_error(value)
    if hasattr(value, "dtype"):
        return value.astype("<f4").tobytes()  # an embedding
    raise NotImplementedError(type(value).__name__)


def _plain_error(error: BaseException) -> list[object]:
    """The class and what it was made with; an error that is not of the tree is told as the engine's."""
    if type(error).__module__ == errors.__name__:
        return [type(error).__name__, list(map(_encodable, error.__reduce__()[1]))]
    text = str(error) if isinstance(error, NbllmError) else f"{type(error).__name__}: {error}"
    return [EngineError.__name__, [_encodable(text)]]


def _encodable(argument: object) -> object:
    """What an error quotes may hold half of a surrogate pair."""
    return argument.encode("utf-8", "replace").decode() if isinstance(argument, str) else argument


def _rebuilt(kind: type, value: Any) -> object:
    if kind is not BaseException:
        raise NotImplementedError(kind)
    name, arguments = value
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, NbllmError):
        return known(*arguments)
    raise ValueError(f"no error is called {name!r:.100}")


def _vector(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, "<f4").astype(np.float32)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_from_client: Any = msgspec.msgpack.Decoder(FromClient)
_from_host: Any = msgspec.msgpack.Decoder(FromHost, dec_hook=_rebuilt)
