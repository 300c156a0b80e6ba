"""Which field of a request an error is about, by the client's own names."""

from __future__ import annotations

from nbllm.core import GenerateRequest
from nbllm.errors import ConstraintError, InvalidRequestError, ParameterError, UnsupportedError
from nbllm.wire.openai.chat import ChatCall
from nbllm.wire.openai.completions import CompletionCall
from nbllm.wire.openai.embeddings import EmbedCall
from nbllm.wire.openai.tokens import DetokenizeCall, TokenizeCall

_TEXTS = {
    ChatCall: "messages",
    CompletionCall: "prompt",
    EmbedCall: "input",
    TokenizeCall: "content",
    DetokenizeCall: "tokens",
}
_NAMES = {
    ChatCall: {"template_options": "chat_template_kwargs"},
    CompletionCall: {"tokens": "prompt"},
    EmbedCall: {"tokens": "input"},
}
_SHAPES = {"json_schema": "response_format", "regex": "regex", "choice": "choice", "lark": "grammar", "gbnf": "grammar"}


def blamed(error: BaseException, call: object) -> tuple[str, str | None]:
    """What to say of an error, and the field of `call` that is to be corrected; None where it is no field's fault."""
    if isinstance(error, ParameterError):
        name = _NAMES.get(type(call), {}).get(error.param, error.param)
        return f"{name}: {error.problem}", name
    return str(error), _field(error, call)


def _field(error: BaseException, call: object) -> str | None:
    request = _generation(call)
    if request is not None and isinstance(error, ConstraintError):
        form = None if request.tool_choice == "required" else request.constraint
        return "tools" if form is None else _SHAPES[form.kind]
    if request is not None and isinstance(error, UnsupportedError):
        return "suffix" if request.suffix is not None else "reproducible" if request.reproducible else None
    return _TEXTS.get(type(call)) if isinstance(error, InvalidRequestError) else None


def _generation(call: object) -> GenerateRequest | None:
    """The request, or the first of several that differ in their prompts only."""
    if isinstance(call, CompletionCall):
        return call.requests[0]
    return call.request if isinstance(call, ChatCall) else None
