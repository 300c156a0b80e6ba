"""A batch as the rows of one decode call: its tokens, padding around them, and where the wanted outputs are."""

from __future__ import annotations

from collections.abc import Iterable

from nbllm.core import Row
from nbllm.engine.likelihoods import Output
from nbllm.engine.sequence import Batch, Sequence

_PAD_TOKEN = 0


def rows(batch: Batch) -> list[Row]:
    return [
        Row(part.sequence.tokens[position], position, part.sequence.slot or 0, position >= part.sequence.outputs_from)
        for part in batch.slices
        for position in range(part.start, part.stop)
    ]


def padding(batch: Batch, holders: Iterable[Sequence], num_slots: int) -> list[Row]:
    """A row for every slot that does not decode, so that a decode always has the same shape."""
    busy = {part.sequence.slot for part in batch.slices}
    held = {sequence.slot: sequence.num_evaluated for sequence in holders}
    return [Row(_PAD_TOKEN, held.get(slot, 0), slot, True) for slot in range(num_slots) if slot not in busy]


def outputs(batch: Batch, evaluated: list[Row]) -> list[list[Output]]:
    """Where each slice's wanted outputs are among the rows."""
    place = {(row.slot, row.position): index for index, row in enumerate(evaluated) if row.output}
    return [
        [
            Output(place[slot, position], position, None if part.sequence.trunk is None else part.sequence)
            for slot in (part.sequence.slot or 0,)
            for position in range(part.start, part.stop)
            if (slot, position) in place
        ]
        for part in batch.slices
    ]
