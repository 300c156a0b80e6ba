"""The fields of Ollama's requests that are understood here, as types.

Every optional field may be null, which means absent. `model` is checked by hand, in the words of Ollama's clients.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from nbllm.errors import InvalidRequestError
from nbllm.wire.decoding import decoded
from nbllm.wire.openai.shapes import LoraEntry, Number, ToolFunction

_Body = TypeVar("_Body", bound="NamedBody")


class CalledFunction(msgspec.Struct):
    name: str
    arguments: dict[str, Any] = {}
    index: Number | None = None


class CalledTool(msgspec.Struct):
    function: CalledFunction
    id: str | None = None
    type: str | None = None


class ChatMessage(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ToolSpec(msgspec.Struct):
    function: ToolFunction | None = None
    type: str = "function"


class NamedBody(msgspec.Struct, kw_only=True):
    """What every request has."""

    model: str | None = None


class ModelBody(NamedBody, kw_only=True):
    """What every request has that uses a model."""

    keep_alive: str | Number | None = None
    options: dict[str, Any] | None = None
    lora: list[LoraEntry] | None = None


class AnswerBody(ModelBody, kw_only=True):
    """What generate and chat have in common; from `temperature` on, documented beside `options`, which win."""

    stream: bool | None = None
    format: str | dict[str, Any] | bool | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: Number | None = None
    seed: Number | None = None
    stop: str | list[str] | None = None
    max_tokens: Number | None = None


class GenerateBody(AnswerBody, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    images: list[Any] | None = None
    system: str | None = None
    template: str | None = None
    context: list[Number] | None = None
    raw: bool | None = None


class ChatBody(AnswerBody, kw_only=True):
    messages: list[ChatMessage] | None = None
    tools: list[ToolSpec] | None = None


class EmbedBody(ModelBody, kw_only=True):
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Number | None = None


class EmbeddingsBody(ModelBody, kw_only=True):
    prompt: str | None = None


class ManageBody(NamedBody, kw_only=True):
    """What every request has that is about a model.

    Attributes:
        name: what old clients call `model`.
    """

    name: str | None = None


class ShowBody(ManageBody, kw_only=True):
    verbose: bool | None = None
    options: dict[str, Any] | None = None


class PullBody(ManageBody, kw_only=True):
    stream: bool | None = None
    insecure: bool | None = None


class CreateBody(ManageBody, kw_only=True):
    """What a model is made of; nothing of it is required by itself.

    Attributes:
        modelfile: a text that says the same, as older clients send it; the fields beside it win.
        files, adapters: names to digests of blobs that are here already.
    """

    modelfile: str | None = None
    base: str | None = msgspec.field(default=None, name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[ChatMessage] | None = None
    quantize: str | None = None
    quantization: str | None = None
    stream: bool | None = None


class CopyBody(NamedBody, kw_only=True):
    source: str | None = None
    destination: str | None = None


def parsed(data: bytes, kind: type[_Body]) -> tuple[_Body, dict[str, Any]]:
    """A request's body as `kind`, and as the plain dict it was.

    Raises:
        InvalidRequestError: it is no JSON object; as ParameterError, a field is of a wrong type.
    """
    if not data.strip():
        raise InvalidRequestError("missing request body: send a JSON object")
    return decoded(data, kind)


def model_of(body: NamedBody) -> str:
    """The model's name as the client wrote it. Raises InvalidRequestError when there is none."""
    name = body.model or getattr(body, "name", None) or ""
    if not name.strip():
        raise InvalidRequestError("model is required: the name of a model, or 'default'")
    return name
