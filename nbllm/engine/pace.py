"""How many prompt tokens fit into a step that nobody notices, learned from the steps so far. No clock in here."""

from __future__ import annotations

TARGET_S = 0.13
"""What a step is sized for. People notice 200 ms, and a step may take half as long again as was expected."""
UNWATCHED_S = 0.2
"""What a step is sized for while only a table's rows run: larger steps evaluate prompts with less effort a token, and
whoever comes now waits for one of them at most."""
_FIRST_BUDGET = 32
_SMALLEST_BUDGET = 4
_GROWTH = 4
_WEIGHT = 0.3
_LEAST_S = 1e-7  # a coarse clock says 0 for a short step


class Pace:
    """Predicts `step = decoding + tokens * per token` and sizes the next step by it.

    Args:
        largest: the most tokens that a step may have.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._budget = _FIRST_BUDGET
        self._per_token_s: float | None = None
        self._decode_s: dict[int, float] = {}

    def budget(self, num_decoding: int, target_s: float = TARGET_S) -> int:
        """Prompt tokens for a step in which `num_decoding` sequences decode."""
        if self._per_token_s is None:
            return _FIRST_BUDGET
        left_s = target_s - self._decoding_s(num_decoding)
        fitting = int(left_s / max(self._per_token_s, _LEAST_S))
        self._budget = max(_SMALLEST_BUDGET, min(fitting, self._budget * _GROWTH, self._largest))
        return self._budget

    def expected_s(self, num_decoding: int, num_prompt_tokens: int) -> float:
        return self._decoding_s(num_decoding) + num_prompt_tokens * (self._per_token_s or 0.0)

    def observe(self, num_decoding: int, num_prompt_tokens: int, duration_s: float) -> None:
        """Learn from a step that was evaluated."""
        if num_decoding and not num_prompt_tokens:
            self._decode_s[num_decoding] = _blend(self._decode_s.get(num_decoding), duration_s)
        elif num_prompt_tokens >= _SMALLEST_BUDGET:
            per_token_s = max(duration_s - self._decoding_s(num_decoding), duration_s * 0.1) / num_prompt_tokens
            self._per_token_s = _blend(self._per_token_s, per_token_s)

    def _decoding_s(self, num_decoding: int) -> float:
        """Measured, or scaled from the nearest count that was."""
        if not num_decoding or not self._decode_s:
            return 0.0
        nearest = min(self._decode_s, key=lambda count: abs(count - num_decoding))
        return self._decode_s[nearest] * max(1.0, num_decoding / nearest)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)
