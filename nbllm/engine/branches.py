"""Continuations of one prompt, evaluated side by side in slots that they have for one step.

A branch is forked from the sequence whose prompt it continues, its trunk, evaluated to its end, and forgotten: between
two steps there are no branches, and the books of the KV memory never hold one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Tokens

from nbllm.engine.backend import Context
from nbllm.engine.sequence import Sequence, Slice, tables_pause
from nbllm.engine.slots import Slots

LONGEST = 64
"""Tokens: a longer continuation goes on in the trunk's own slot, in slices as a prompt does, and is cut off after."""


class Branches:
    """Grows the branches that a step has room for. For the engine's thread alone.

    Args:
        slots: the books of the trunks' slots.
        spare: slots of the context that are in no books. Without any, every continuation goes on in the trunk's slot:
            the fixed lane's shapes allow nothing else, and each slot of a recurrent model costs memory.
    """

    def __init__(self, context: Context, slots: Slots, spare: Tokens[int]) -> None:
        self._context, self._slots, self._spare = context, slots, tuple(spare)
        self._num_grown = 0

    def grow(self, running: Iterable[Sequence], room: int, most: int) -> tuple[Slice, ...]:
        """Fork branches for the next step. Changes trunks that go on in their own slot.

        Args:
            room: tokens that keep the step short. The first trunk gets one branch even if that has more.
            most: tokens that the step can have at all.
        """
        grown: list[Slice] = []
        for trunk in _waiting(running):
            if not self._is_rewound(trunk):
                continue
            if not self._spare or len(trunk.branches[0]) > min(LONGEST, most):
                trunk.tokens += trunk.branches[0]
                continue
            if grown and sum(map(len, trunk.branches)) > room:
                continue  # in the next step they fit side by side
            for branch in self._forked(trunk, room, most, is_first=not grown):
                grown.append(branch)
                room -= branch.stop - branch.start
                most -= branch.stop - branch.start
        return tuple(grown)

    def drop(self) -> None:
        """Forget the branches of the step that was evaluated, or was not."""
        for slot in self._spare[: self._num_grown]:
            self._context.forget(slot)
        self._num_grown = 0

    def _is_rewound(self, trunk: Sequence) -> bool:
        """Cut off what the trunk itself went on with. False when its memory has no middle: it is evaluated again."""
        if len(trunk.tokens) > trunk.num_prompt:
            del trunk.tokens[trunk.num_prompt :]
            kept = trunk.num_prompt if self._context.cut(trunk.slot or 0, trunk.num_prompt) else 0
            self._slots.cut(trunk, kept)
        return trunk.num_pending == 0

    def _forked(self, trunk: Sequence, room: int, most: int, *, is_first: bool) -> Iterator[Slice]:
        for branch in trunk.branches:
            if self._num_grown == len(self._spare) or len(branch) > (most if is_first else min(room, most, LONGEST)):
                return
            slot = self._spare[self._num_grown]
            self._num_grown += 1
            if not self._context.fork(trunk.slot or 0, slot, trunk.num_prompt):
                trunk.tokens += branch
                return
            yield _slice(trunk, branch, slot)
            room, most, is_first = room - len(branch), most - len(branch), False


def _waiting(running: Iterable[Sequence]) -> list[Sequence]:
    """The trunks whose prompt is evaluated, persons' first; a table's are left out while tables pause."""
    sequences = list(running)
    persons_only = tables_pause(sequences)
    return sorted(
        (
            one
            for one in sequences
            if one.branches and not one.num_pending and not (persons_only and one.priority == "batch")
        ),
        key=lambda one: one.priority == "batch",
    )


def _slice(trunk: Sequence, branch: Tokens[int], slot: int) -> Slice:
    tokens = [*trunk.tokens, *branch]
    start = trunk.num_prompt
    sequence = Sequence(
        uid=trunk.uid,
        tokens=tokens,
        num_prompt=len(tokens),
        priority=trunk.priority,
        outputs_from=start,
        num_evaluated=start,
        slot=slot,
        trunk=trunk,
    )
    return Slice(sequence, start, len(tokens))
