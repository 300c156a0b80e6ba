"""What is typed after `tune`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nbllm.core import unknown_option
from nbllm.errors import ParameterError

MAX_KL = 0.05
"""The default: of next tokens that are the likeliest, about one in ten is then another one. Measured with SmolLM2 135M,
a Q8_0 of its Q4_1 file is at 0.005, a Q5_0 at 0.06 and a Q4_0 at 0.2, where every fourth is another one."""
FORM = "NAME [--max-kl 0.05] [--dry-run], or NAME --forget"
FLAGS = ("--max-kl", "--dry-run", "--forget")


@dataclass(frozen=True, slots=True)
class Wish:
    """What to do.

    Attributes:
        max_divergence: of what may be chosen, in nats a token.
        keeps: measurements, files and the choice.
        forgets: remove what was kept, and do nothing else.
    """

    model: str
    max_divergence: float = MAX_KL
    keeps: bool = True
    forgets: bool = False


def wished(words: Sequence[str]) -> Wish:
    """
    Raises:
        ParameterError: a word is none that is known, or one is missing.
    """
    names: list[str] = []
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if not word.startswith("-"):
            names.append(word + equals + value)
        elif word not in FLAGS:
            raise ParameterError("tune", f"{word!r:.40} {unknown_option(word, FLAGS)}; write tune {FORM}")
        elif word != "--max-kl" and equals:
            raise ParameterError("tune", f"{word} takes no value; write tune {FORM}")
        else:
            flags[word] = value if equals or word != "--max-kl" else rest.pop(0) if rest else ""
    if len(names) != 1 or ("--forget" in flags and len(flags) > 1):
        raise ParameterError("tune", f"write tune {FORM}")
    limit = _limit(flags["--max-kl"]) if "--max-kl" in flags else MAX_KL
    return Wish(names[0], limit, keeps="--dry-run" not in flags, forgets="--forget" in flags)


def _limit(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise ParameterError("--max-kl", f"must be a number of nats a token, 0 or more, not {text!r:.40}")
    return number
