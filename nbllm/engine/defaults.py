"""What a request gets where neither it nor the model's file says anything."""

from __future__ import annotations

import random
from dataclasses import replace

from nbllm.core import RANGES, SamplingParams

STATED = SamplingParams(
    temperature=0.8,
    top_p=0.95,
    top_k=40,
    min_p=0.05,
    typical_p=1.0,
    repeat_penalty=1.0,
    repeat_last_n=64,
    presence_penalty=0.0,
    frequency_penalty=0.0,
)
COMPLETION_TOKENS = 16
"""OpenAI's default for legacy completion."""


def resolved(asked: SamplingParams, recommended: SamplingParams) -> SamplingParams:
    """Fill in what was not asked for, a random seed included."""
    filled = asked.or_else(recommended).or_else(STATED)
    if filled.seed is None:
        filled = replace(filled, seed=random.SystemRandom().randrange(int(RANGES["seed"].high) + 1))
    return filled
