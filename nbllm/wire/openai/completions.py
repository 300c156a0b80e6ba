"""`POST /v1/completions`: what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbllm.core import RANGES, GenerateRequest, SamplingParams
from nbllm.core.numbers import Range
from nbllm.errors import ParameterError
from nbllm.wire.decoding import decoded, unknown_keys
from nbllm.wire.openai.formats import constraint
from nbllm.wire.openai.lora import Switch, switches
from nbllm.wire.openai.prompts import texts_or_tokens
from nbllm.wire.openai.sampling import assumed, checked_model, common_fields, includes_usage, keep_alive_s, sampling
from nbllm.wire.openai.shapes import IGNORED, MAX_LOGPROBS, CompletionBody

_MAX_TOKENS = 16  # OpenAI's default
_MAX_ANSWERS = 2048
_LOGPROBS = Range(int, 0, MAX_LOGPROBS, f"from 0 to {MAX_LOGPROBS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCall:
    """A request for continuations: one GenerateRequest a prompt, each for `best_of` answers of which `n` are given.

    Attributes:
        logprobs: how many rivals to report with each token; None reports nothing.
        echo: whether the answers begin with the prompt.
        keep_alive, user, unknown, lora, assumed: as in ChatCall.
    """

    model: str
    requests: tuple[GenerateRequest, ...]
    stream: bool
    include_usage: bool
    echo: bool
    n: int
    best_of: int
    logprobs: int | None
    keep_alive: float | None
    user: str | None
    unknown: tuple[str, ...]
    lora: tuple[Switch, ...] | None = None
    assumed: tuple[str, ...] = ()

    @property
    def needs_prompt_texts(self) -> bool:
        """Whether the answer needs texts that only the engine can tell: token ids are to be echoed."""
        return self.echo and self.requests[0].text is None


def parse_completion(body: bytes) -> CompletionCall:
    """Read a request. Raises as `parse_chat` does."""
    given, raw = decoded(body, CompletionBody)
    prompts = texts_or_tokens(given.prompt, "prompt")
    n, best_of = _num_answers(given, len(prompts))
    logprobs = None if given.logprobs is None else int(_LOGPROBS.checked("logprobs", given.logprobs))
    common: dict[str, Any] = {
        "sampling": _sampling(given, n, best_of, logprobs),
        "constraint": constraint(given),
        "suffix": _suffix(given, prompts),
        "prompt_logprobs": bool(given.echo) and logprobs is not None,
        **common_fields(given),
    }
    return CompletionCall(
        model=checked_model(given.model),
        requests=tuple(_request(prompt, common) for prompt in prompts),
        stream=bool(given.stream),
        include_usage=includes_usage(given),
        echo=bool(given.echo),
        n=n,
        best_of=best_of,
        logprobs=logprobs,
        keep_alive=keep_alive_s(given.keep_alive),
        user=given.user,
        unknown=unknown_keys(raw, CompletionBody, IGNORED),
        lora=switches(given.lora),
        assumed=assumed(given, "temperature", "max_tokens"),
    )


def _request(prompt: str | tuple[int, ...], common: dict[str, Any]) -> GenerateRequest:
    if isinstance(prompt, str):  # raw text is for those who write the control tokens themselves
        return GenerateRequest(text=prompt, parse_special=True, **common)
    return GenerateRequest(tokens=prompt, **common)


def _sampling(given: CompletionBody, n: int, best_of: int, logprobs: int | None) -> SamplingParams:
    return sampling(
        given,
        {},
        n=best_of,
        max_tokens=_MAX_TOKENS if given.max_tokens is None else given.max_tokens,
        logprobs=logprobs is not None or best_of > n,  # the best is the likeliest
        top_logprobs=logprobs or 0,
    )


def _num_answers(given: CompletionBody, num_prompts: int) -> tuple[int, int]:
    """`n` and `best_of`."""
    n = 1 if given.n is None else int(RANGES["n"].checked("n", given.n))
    best_of = n if given.best_of is None else int(RANGES["n"].checked("best_of", given.best_of))
    if best_of < n:
        raise ParameterError("best_of", f"must be at least n, which is {n}")
    if best_of > n and given.stream:
        raise ParameterError("best_of", "cannot be streamed: the best is known at the end; leave out stream or best_of")
    if best_of * num_prompts > _MAX_ANSWERS:
        name = "best_of" if best_of > n else "n"
        raise ParameterError(
            name, f"makes {best_of * num_prompts:,} answers of {num_prompts:,} prompts; at most {_MAX_ANSWERS:,}"
        )
    return n, best_of


def _suffix(given: CompletionBody, prompts: tuple[Any, ...]) -> str | None:
    if not given.suffix:  # clients send "" for none
        return None
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        raise ParameterError("suffix", "goes with one prompt that is a text")
    if given.echo:
        raise ParameterError("echo", "goes without suffix")
    return given.suffix
