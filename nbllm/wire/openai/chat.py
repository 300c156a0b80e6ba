"""`POST /v1/chat/completions`: what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbllm.core import GenerateRequest, SamplingParams
from nbllm.errors import ParameterError
from nbllm.wire.decoding import decoded, plain_json, refuse, unknown_keys
from nbllm.wire.openai.formats import constraint
from nbllm.wire.openai.lora import Switch, switches
from nbllm.wire.openai.messages import chat_messages, unknown_message_keys
from nbllm.wire.openai.sampling import assumed, checked_model, common_fields, includes_usage, keep_alive_s, sampling
from nbllm.wire.openai.shapes import EFFORTS, IGNORED, REFUSED, ChatBody
from nbllm.wire.openai.tools import tool_choice, tools


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A chat request.

    Attributes:
        model: as the client named it.
        include_usage: whether the stream ends with a chunk of usage.
        keep_alive: seconds that the model stays loaded afterwards; below 0 is forever, None the server's own.
        user: whom the client says it asks for; for the log, cut and escaped there.
        unknown: keys that mean nothing here, fit for the log.
        lora: which of the model's adapters to compute with; None is as the model is.
        assumed: the names in `request.sampling` whose values the client left to OpenAI's API.
    """

    model: str
    request: GenerateRequest
    stream: bool
    include_usage: bool
    keep_alive: float | None
    user: str | None
    unknown: tuple[str, ...]
    lora: tuple[Switch, ...] | None = None
    assumed: tuple[str, ...] = ()


def parse_chat(body: bytes) -> ChatCall:
    """Read a request.

    Raises:
        InvalidRequestError: the body is no JSON object; as ParameterError, a field is missing, of a wrong type, out
            of range or cannot be followed.
    """
    chat, raw = decoded(body, ChatBody)
    refuse(raw, REFUSED)
    _check_modalities(chat)
    choice = tool_choice(chat.tool_choice)
    request = GenerateRequest(
        messages=chat_messages(chat.messages),
        sampling=_sampling(chat),
        constraint=constraint(chat),
        template_options=_template_options(chat),
        tools=choice.among(tools(chat.tools)),
        tool_choice=choice.mode,
        forced_tool=choice.name,
        parallel_tool_calls=chat.parallel_tool_calls is not False,
        **common_fields(chat),
    )
    return ChatCall(
        model=checked_model(chat.model),
        request=request,
        stream=bool(chat.stream),
        include_usage=includes_usage(chat),
        keep_alive=keep_alive_s(chat.keep_alive),
        user=chat.user,
        unknown=unknown_keys(raw, ChatBody, (*IGNORED, *REFUSED)) + unknown_message_keys(raw["messages"]),
        lora=switches(chat.lora),
        assumed=assumed(chat),
    )


def _sampling(chat: ChatBody) -> SamplingParams:
    if chat.top_logprobs and not chat.logprobs:
        raise ParameterError("top_logprobs", "needs logprobs: true")
    others: dict[str, Any] = {"logprobs": bool(chat.logprobs)}
    if chat.max_completion_tokens is None:
        return sampling(chat, {}, **others)
    others["max_tokens"] = chat.max_completion_tokens
    return sampling(chat, {"max_tokens": "max_completion_tokens"}, **others)


def _template_options(chat: ChatBody) -> dict[str, Any]:
    """The effort as templates know it; what the client says to the template itself goes before."""
    effort = chat.reasoning_effort
    if effort is not None and effort not in EFFORTS:
        raise ParameterError("reasoning_effort", f"{effort!r:.60} is not one of {', '.join(EFFORTS)}")
    options: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
    if effort == "none":
        options["enable_thinking"] = False
    given: dict[str, Any] = chat.chat_template_kwargs or {}
    return options | plain_json(given, "chat_template_kwargs")


def _check_modalities(chat: ChatBody) -> None:
    for index, kind in enumerate(chat.modalities or ()):
        if kind != "text":
            raise ParameterError(f"modalities[{index}]", f"{kind!r:.60} is not supported, only 'text'")
