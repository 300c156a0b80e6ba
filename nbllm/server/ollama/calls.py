"""From Ollama's requests to GenerateRequests: `POST /api/generate` and `POST /api/chat`.

What is accepted and changes nothing: `shift` (there is no sliding of the context: an answer that fills it ends with
the reason "length", whether or not it may shift), the options that are hints (see `options`), and a `template` in Go's
language, for which the model's own template is used; that is logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbllm.core import Constraint, GenerateRequest, Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.server.ollama.messages import chat_messages, check_images
from nbllm.server.ollama.options import Room, assumed, room, sampling, unknown_options
from nbllm.store.presets.templates import split
from nbllm.wire.decoding import MAX_UNKNOWN, json_text, unknown_keys
from nbllm.wire.ollama.answers import Form
from nbllm.wire.ollama.shapes import AnswerBody, ChatBody, ChatMessage, GenerateBody, model_of, parsed
from nbllm.wire.openai.lora import Switch, switches
from nbllm.wire.openai.messages import unknown_message_keys
from nbllm.wire.openai.prompts import token_ids
from nbllm.wire.openai.sampling import keep_alive_s
from nbllm.wire.openai.tools import tools

_LEVELS = ("low", "medium", "high", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request for an answer.

    Attributes:
        model: as the client named it.
        request: None loads the model, or unloads it where `keep_alive` is 0.
        context: ids of tokens that the prompt follows on.
        gives_context: whether the answer tells its ids for the next request.
        think: whether the model should think first; None leaves it to the model.
        keep_alive: seconds that the model stays loaded afterwards; below 0 is forever, None the server's own.
        unknown: keys that mean nothing here, fit for the log.
        notes: what else the log should say.
        lora: which of the model's adapters to compute with; None is as the model is.
        assumed: the names in the request's sampling whose values the client left to Ollama's API.
    """

    form: Form
    model: str
    request: GenerateRequest | None
    stream: bool
    room: Room
    context: tuple[int, ...] = ()
    gives_context: bool = False
    think: bool | None = None
    keep_alive: float | None = None
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lora: tuple[Switch, ...] | None = None
    assumed: tuple[str, ...] = ()

    @property
    def unloads(self) -> bool:
        return self.request is None and self.keep_alive == 0


def parse_generate(data: bytes) -> Call:
    """Read a request.

    Raises:
        InvalidRequestError: the body is no JSON object, or contradicts itself; as ParameterError, a field is of a
            wrong type or out of range; as UnsupportedError, it asks for what there is not.
    """
    body, raw = parsed(data, GenerateBody)
    model = model_of(body)
    check_images(body.images, "images")
    if body.raw and (body.template or body.system or body.context):
        raise InvalidRequestError("raw mode does not support template, system, or context: leave them out")
    is_bare = bool(body.raw or body.suffix)
    template, notes = _template(body.template)
    return Call(
        form="generate",
        model=model,
        request=_generation(body, template),
        gives_context=not is_bare,
        context=token_ids(body.context or (), "context"),
        notes=notes,
        unknown=unknown_keys(raw, GenerateBody) + unknown_options(body.options),
        **_common(body),
    )


def parse_chat(data: bytes) -> Call:
    """Read a request. Raises as `parse_generate` does."""
    body, raw = parsed(data, ChatBody)
    unknown = unknown_keys(raw, ChatBody) + unknown_message_keys(raw.get("messages") or [], ChatMessage)
    return Call(
        form="chat",
        model=model_of(body),
        request=_chat(body),
        unknown=unknown[:MAX_UNKNOWN] + unknown_options(body.options),
        **_common(body),
    )


def _generation(body: GenerateBody, template: str | None) -> GenerateRequest | None:
    shared = _shared(body)
    if body.suffix:
        if body.system or body.context or body.template:
            raise InvalidRequestError("suffix goes without system, template and context: what it fills is plain text")
        return GenerateRequest(text=body.prompt or "", suffix=body.suffix, parse_special=bool(body.raw), **shared)
    if not body.prompt:
        return None
    if body.raw:
        return GenerateRequest(text=body.prompt, parse_special=True, **shared)
    system = (Message("system", body.system),) if body.system else ()
    return GenerateRequest(
        messages=(*system, Message("user", body.prompt)),
        template=template,
        template_options=_template_options(body.think),
        **shared,
    )


def _chat(body: ChatBody) -> GenerateRequest | None:
    shared = _shared(body)
    messages = chat_messages(body.messages or [])
    known = tools(body.tools)  # type: ignore[arg-type]  # of the same attributes, some with defaults
    if not messages:
        return None
    last = messages[-1]
    return GenerateRequest(
        messages=messages,
        tools=known,
        template_options=_template_options(body.think),
        continue_final=last.role == "assistant" and bool(last.content) and not last.tool_calls,
        **shared,
    )


def _common(body: AnswerBody) -> dict[str, Any]:
    return {
        "stream": body.stream is not False,
        "room": room(body.options, body.truncate),
        "think": None if body.think is None else body.think is not False,
        "keep_alive": keep_alive_s(body.keep_alive),
        "lora": switches(body.lora),
        "assumed": assumed(body),
    }


def _shared(body: AnswerBody) -> dict[str, Any]:
    return {"sampling": sampling(body), "constraint": _constraint(body.format)}


def _constraint(format: str | dict[str, Any] | bool | None) -> Constraint | None:
    if format is None or format == "":
        return None
    if format == "json":
        return Constraint("json_schema", '{"type":"object"}')
    if not isinstance(format, dict):
        raise ParameterError("format", f'must be "json" or a JSON Schema, not {format!r:.60}')
    return Constraint("json_schema", json_text(format, "format"))


def _template_options(think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in _LEVELS:
        raise ParameterError("think", f"must be true, false or one of {', '.join(_LEVELS)}, not {think!r:.60}")
    return {"enable_thinking": True, "reasoning_effort": think}


def _template(text: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The request's own in Jinja, and what to log of one in Go's language."""
    if not text:
        return None, ()
    jinja, go = split(text)
    note = "a template in Go's language came with the request; the model's own is used"
    return jinja, () if go is None else (note,)
