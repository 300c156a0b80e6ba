"""What a sequence knows of itself, and how long two share a beginning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbllm.engine.sequence import MAX_DECODE_TOKENS, Batch, Sequence, Slice, common_prefix, tables_pause

_TOKENS = st.lists(st.integers(0, 2), max_size=40)


def _naive(a: list[int], b: list[int]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


@given(_TOKENS, _TOKENS, _TOKENS)
def test_common_prefix_is_that_of_a_plain_loop(start: list[int], a: list[int], b: list[int]) -> None:
    assert common_prefix(start + a, start + b) == _naive(start + a, start + b)
    assert common_prefix(tuple(start + a), tuple(start + b)) == _naive(start + a, start + b)


def test_sequence_is_prefilling_until_its_prompt_is_evaluated() -> None:
    sequence = Sequence(0, [1, 2, 3], 3)
    assert sequence.is_prefilling
    assert sequence.num_pending == 3
    sequence.num_evaluated = 3
    assert not sequence.is_prefilling


def test_sequence_is_prefilling_again_after_its_state_was_lost() -> None:
    sequence = Sequence(0, [1] * 40, 3)
    sequence.num_evaluated = 40 - MAX_DECODE_TOKENS
    assert not sequence.is_prefilling
    sequence.num_evaluated -= 1
    assert sequence.is_prefilling


def test_tables_pause_while_a_persons_prompt_is_evaluated() -> None:
    person, row = Sequence(0, [1] * 9, 9), Sequence(1, [1] * 9, 9, priority="batch")
    assert tables_pause([row, person])
    person.num_evaluated = 9
    assert not tables_pause([row, person])


def test_batch_counts_tokens_and_decoding_sequences() -> None:
    prefilling, decoding = Sequence(0, [1] * 9, 9), Sequence(1, [1] * 9, 8, num_evaluated=8)
    batch = Batch((Slice(decoding, 8, 9), Slice(prefilling, 0, 5)))
    assert batch.num_tokens == 6
    assert batch.num_decoding == 1
