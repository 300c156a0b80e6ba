"""What one HTTP request cost: the sum over its prompts and their answers."""

from __future__ import annotations

from typing import Any

from nbllm.core import Chunk, Timings, Usage


class Costs:
    """Gathers the last chunk of each answer. The answers to one prompt share it: it counts once."""

    def __init__(self) -> None:
        self._usages: dict[int, list[Usage]] = {}
        self._timings: list[tuple[Usage, Timings]] = []

    def add(self, prompt: int, chunk: Chunk) -> None:
        """Take a chunk in; only a last one says what its answer cost."""
        if chunk.usage is None:
            return
        self._usages.setdefault(prompt, []).append(chunk.usage)
        if chunk.timings is not None:
            self._timings.append((chunk.usage, chunk.timings))

    def usage(self) -> dict[str, Any]:
        """OpenAI's `usage`."""
        prompt, cached = self._prompt_tokens, self._cached_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt + self._completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {
                "reasoning_tokens": sum(usage.reasoning_tokens for group in self._groups for usage in group)
            },
        }

    def timings(self) -> dict[str, Any]:
        """llama-server's `timings`. Answers are made side by side, so that the slowest one's time is everybody's."""
        decode_s = max((timings.decode_s for _, timings in self._timings), default=0.0)
        after_first = sum(max(0, usage.completion_tokens - 1) for usage, _ in self._timings)
        return {
            "prompt_n": self._prompt_tokens - self._cached_tokens,
            "cache_n": self._cached_tokens,
            "prompt_ms": _milliseconds(max((timings.prefill_s for _, timings in self._timings), default=0.0)),
            "predicted_n": self._completion_tokens,
            "predicted_ms": _milliseconds(decode_s),
            "predicted_per_second": round(after_first / decode_s, 3) if decode_s > 0 else 0.0,
        }

    @property
    def _groups(self) -> list[list[Usage]]:
        return list(self._usages.values())

    @property
    def _prompt_tokens(self) -> int:
        return sum(max(usage.prompt_tokens for usage in group) for group in self._groups)

    @property
    def _cached_tokens(self) -> int:
        """Answers after the first find the whole prompt cached by the first: that was evaluated for this request."""
        return sum(min(usage.cached_tokens for usage in group) for group in self._groups)

    @property
    def _completion_tokens(self) -> int:
        return sum(usage.completion_tokens for group in self._groups for usage in group)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
