"""The quiet line under an answer, and what the output's metadata records of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nbllm.markup.safe import literal_markdown

if TYPE_CHECKING:
    from nbllm.core import FinishReason, SamplingParams
    from nbllm.session.response import Response

_ENDINGS = {
    "length": "cut short (length)",
    "tool_calls": "tool calls",
    "interrupted": "interrupted",
    "timeout": "timeout",
    "error": "error",
}


def quiet(text: str) -> str:
    """One line of Markdown that does not draw attention; every character of `text` means itself."""
    return f"<small><em>{literal_markdown(text, plain=' ,.()·…')}</em></small>"


def usage_line(response: Response, context_length: int = 0) -> str:
    """Tokens, speed, how full the context is, and how the answer ended if not by itself."""
    usage, timings = response.usage, response.timings
    parts = []
    if usage.prompt_tokens:
        cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
        parts.append(f"{usage.prompt_tokens:,} tokens in{cached}, {usage.completion_tokens:,} out")
    else:
        parts.append(f"{usage.completion_tokens:,} tokens out")
    if timings.first_token_s:
        parts.append(f"first token after {timings.first_token_s:.2f} s")
    if speed := timings.tokens_per_s(usage.completion_tokens):
        parts.append(f"{speed:.{0 if speed >= 10 else 1}f} tokens a second")
    if context_length and usage.prompt_tokens:
        share = (usage.prompt_tokens + usage.completion_tokens) / context_length
        parts.append(f"{share:.0%} of the context" if share >= 0.01 else "under 1% of the context")
    if response.finish_reason != "stop":
        parts.append(ending(response.finish_reason))
    return " · ".join(parts)


def ending(reason: FinishReason) -> str:
    """How an answer ended, "" if by itself."""
    return _ENDINGS.get(reason, "")


def details(response: Response, context_length: int = 0) -> list[str]:
    """What `--usage` shows besides: every figure there is."""
    usage, timings = response.usage, response.timings
    tokens = f"prompt {usage.prompt_tokens:,} tokens, of them {usage.cached_tokens:,} cached"
    tokens += f" · answer {usage.completion_tokens:,}, of them {usage.reasoning_tokens:,} reasoning"
    tokens += f" · context {context_length:,}" if context_length else ""
    times = f"queue {timings.queue_s:.2f} s · prompt {timings.prefill_s:.2f} s · answer {timings.decode_s:.2f} s"
    return [tokens, times, f"model {response.model} · seed {response.seed} · ended: {response.finish_reason}"]


def record(response: Response, parameters: Mapping[str, Any], file_hash: str = "") -> dict[str, Any]:
    """What a reader needs to ask for the same answer again, and what it cost."""
    return {
        "nbllm": {
            "model": response.model,
            **({"sha256": file_hash} if file_hash else {}),
            "parameters": dict(parameters),
            "seed": response.seed,
            "finish_reason": response.finish_reason,
            "usage": asdict(response.usage),
            "timings": {name: round(seconds, 4) for name, seconds in asdict(response.timings).items()},
        }
    }


def parameters(
    sampling: SamplingParams, defaults: SamplingParams, system: str | None, reproducible: bool
) -> dict[str, Any]:
    """The values that were in force, defaults included."""
    effective = asdict(sampling.or_else(defaults))
    for name in ("seed", "n", "logprobs", "top_logprobs", "logit_bias"):
        del effective[name]
    effective["stop"] = list(sampling.stop)
    given = {name: value for name, value in effective.items() if value not in (None, [])}
    return given | ({} if system is None else {"system": system}) | ({"reproducible": True} if reproducible else {})
