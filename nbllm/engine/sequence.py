"""One token sequence on its way through the engine: plain state, no policy."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import NamedTuple

from nbllm.core import Priority


@dataclass(eq=False, slots=True)
class Sequence:
    """Tokens, how many of them are evaluated, and where.

    Attributes:
        tokens: the prompt, then what was generated. What lies after `num_evaluated` waits to be evaluated.
        outputs_from: the first position whose output is wanted. Generation wants the last one of the prompt.
        reuses: the prefix may come from the cache, and goes into it.
        num_cached: prompt tokens that were found evaluated.
        slot: the KV memory's name for it, None while it waits.
        follows: the running sequence whose prefill it waits for, and up to where.
        branches: continuations of the prompt that are still wanted, each from the prompt's end on.
        trunk: the sequence whose prompt it continues for one step, when it is a branch.
    """

    uid: int
    tokens: list[int]
    num_prompt: int
    priority: Priority = "interactive"
    outputs_from: int = 0
    reuses: bool = True
    num_evaluated: int = 0
    num_cached: int = 0
    slot: int | None = None
    follows: Leader | None = field(default=None, repr=False)
    branches: list[tuple[int, ...]] = field(default_factory=list, repr=False)
    trunk: Sequence | None = field(default=None, repr=False)
    is_finished: bool = False
    was_admitted: bool = False

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_evaluated

    @property
    def num_coming(self) -> int:
        """Cells that it needs before it can be done with what it has to evaluate: with its longest branch."""
        return self.num_pending + max(map(len, self.branches), default=0)

    @property
    def is_prefilling(self) -> bool:
        """More waits than what a decode step gives it: its prompt, or everything after its state was lost."""
        return self.num_evaluated < self.num_prompt or self.num_pending > MAX_DECODE_TOKENS


MAX_DECODE_TOKENS = 16
"""Tokens that a sequence may bring to a step and still count as decoding: the sampled one and forced ones."""


def tables_pause(running: Iterable[Sequence]) -> bool:
    """Whether a table's rows wait, for a person's prompt is evaluated.

    Beside eight of them a step has time for a few of its tokens only, and the person would wait for many steps.
    """
    return any(sequence.priority == "interactive" and sequence.is_prefilling for sequence in running)


class Leader(NamedTuple):
    """A running sequence, and how many of its tokens a follower waits for."""

    sequence: Sequence
    length: int


class Slice(NamedTuple):
    """The part `tokens[start:stop]` of a sequence, to be evaluated in the next step."""

    sequence: Sequence
    start: int
    stop: int


class Batch(NamedTuple):
    """What the next step evaluates, decoding sequences first."""

    slices: tuple[Slice, ...]

    @property
    def num_tokens(self) -> int:
        return sum(part.stop - part.start for part in self.slices)

    @property
    def num_decoding(self) -> int:
        return sum(not part.sequence.is_prefilling for part in self.slices)


def common_prefix(a: Tokens[int], b: Tokens[int]) -> int:
    """How many leading tokens two sequences share, by bisection over slices that C compares."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
