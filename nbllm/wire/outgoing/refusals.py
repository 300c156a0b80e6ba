"""What a server refuses, as an error that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.errors import (
    ContextOverflowError,
    EngineError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
    NbllmError,
)
from nbllm.wire.outgoing.parsing import parsed

_MOST_CHARACTERS = 300
_MOST_DIGITS = 12
_CONTEXT = re.compile(r"(?:context length is|context holds|context size \(|maximum of) ?([\d,]{1,15})")
_PROMPT = re.compile(r"(?:prompt has|resulted in|prompt contains at least|requested|request \() ?([\d,]{1,15})")
_OVERFLOW_CODES = ("context_length_exceeded", "exceed_context_size_error")
_QUOTA = "insufficient_quota"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status that is not 2xx, or an error in a stream, with what its body says.

    Attributes:
        message: in one line, cut, "" when the body says nothing that can be read.
        code: of the server's own, or its type of error.
        counts: tokens of the prompt and of the context when the body names both.
    """

    status: int
    message: str = ""
    code: str = ""
    counts: tuple[int, int] | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (429, 503) and self.code != _QUOTA

    @property
    def is_overflow(self) -> bool:
        return self.code in _OVERFLOW_CODES or "maximum context length" in self.message


def refusal(status: int, body: bytes, secret: str | None = None) -> Refusal:
    """Read the body of an answer that is not 2xx; `secret` is cut out wherever the server repeats it."""
    return refusal_of(status, parsed(body), secret)


def refusal_of(status: int, body: object, secret: str | None = None) -> Refusal:
    """The same of parsed JSON: OpenAI's {"error": {...}}, or a text under "error", "detail" or "message"."""
    fields = body if isinstance(body, dict) else {}
    error = fields.get("error")
    detail: Mapping[str, Any] = error if isinstance(error, dict) else fields
    texts = (detail.get("message"), error, fields.get("detail"))
    message = next((text for text in texts if isinstance(text, str)), "")
    code = next((text for name in ("code", "type") if isinstance(text := detail.get(name), str) and text), "")
    if detail.get("type") in _OVERFLOW_CODES:  # llama-server's code is the status
        code = str(detail["type"])
    own_status = detail.get("code")
    if status == 200 and isinstance(own_status, int) and 400 <= own_status < 600:
        status = own_status
    return Refusal(status, one_line(message, secret), code[:100], _counts(detail, message))


def one_line(text: str, secret: str | None = None) -> str:
    """Text of a server, made fit for an error: no secret, no control characters, not long."""
    if secret:
        text = text.replace(secret, "***")
    plain = "".join(character if character.isprintable() else " " for character in text[: 4 * _MOST_CHARACTERS])
    line = " ".join(plain.split())
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "…"


def failure(refused: Refusal, *, url: str, model: str, key_name: str, has_key: bool) -> NbllmError:
    """The error that a person sees.

    Args:
        key_name: where the key comes from, or would: an environment variable, or the argument "api_key".
    """
    said = refused.message or f"status {refused.status}, without a reason"
    if refused.status in (401, 403):
        return ModelError(_about_key(refused, url, key_name, has_key, said))
    if refused.status == 404:
        return ModelNotFoundError(f"{url} has no model {model!r:.100}, or is no OpenAI-compatible address: {said}")
    if refused.is_overflow:
        if refused.counts is not None:
            return ContextOverflowError(*refused.counts, advice="that is for the server to do")
        return InvalidRequestError(f"the prompt does not fit into the context of {model!r:.100}: {said}")
    if refused.status in (400, 413, 415, 422):
        return InvalidRequestError(f"{url} refused the request: {said}")
    if refused.status == 200:
        return EngineError(f"{url} failed in the middle of the answer: {said}")
    return EngineError(f"{url} failed ({refused.status}): {said}")


def _about_key(refused: Refusal, url: str, key_name: str, has_key: bool, said: str) -> str:
    if not has_key:
        remedy = 'give nbllm.connect api_key="..."' if key_name == "api_key" else f"set the variable {key_name}"
        return f"{url} wants a key ({refused.status}): {remedy}; it says: {said}"
    if refused.status == 403:
        return f"{url} does not allow this to the key in {key_name} (403): {said}"
    return f"{url} does not know the key in {key_name} (401): correct it; it says: {said}"


def _counts(detail: Mapping[str, Any], message: str) -> tuple[int, int] | None:
    prompt, context = detail.get("n_prompt_tokens"), detail.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):
        return prompt, context
    in_context, in_prompt = _CONTEXT.search(message), _PROMPT.search(message)
    if in_context is None or in_prompt is None:
        return None
    digits = [match[1].replace(",", "") for match in (in_prompt, in_context)]
    if not all(0 < len(text) <= _MOST_DIGITS for text in digits):
        return None
    return int(digits[0]), int(digits[1])
