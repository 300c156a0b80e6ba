"""Steps are sized by what was measured."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from nbllm.engine.pace import TARGET_S, Pace


def _trained(per_token_s: float, decode_s: float = 0.0, steps: int = 30) -> Pace:
    pace = Pace(512)
    for _ in range(steps):
        pace.observe(4, 0, decode_s)
        tokens = pace.budget(4)
        pace.observe(4, tokens, decode_s + tokens * per_token_s)
    return pace


def test_budget_is_small_before_anything_was_measured() -> None:
    assert 0 < Pace(512).budget(0) <= 64


def test_budget_fills_the_target() -> None:
    pace = _trained(0.004, 0.03)
    tokens = pace.budget(4)
    assert 0.9 * TARGET_S <= 0.03 + tokens * 0.004 <= TARGET_S


def test_budget_never_exceeds_a_batch() -> None:
    assert _trained(1e-6).budget(0) == 512


def test_budget_keeps_prefill_going_beside_slow_decoding() -> None:
    assert _trained(0.004, 0.5).budget(4) == 4


def test_expected_time_is_what_was_seen() -> None:
    assert abs(_trained(0.004, 0.03).expected_s(4, 20) - 0.11) < 0.02


def test_decoding_of_more_sequences_is_expected_to_take_longer() -> None:
    pace = Pace(512)
    pace.observe(2, 0, 0.02)
    assert pace.expected_s(4, 0) == 0.04
    assert pace.expected_s(1, 0) == 0.02


@example([(0, 0, 0.1)], 1)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 512), st.floats(0, 5)), max_size=30), st.integers(0, 8))
def test_budget_is_always_usable(steps: list[tuple[int, int, float]], num_decoding: int) -> None:
    pace = Pace(512)
    for decoding, prompt, duration_s in steps:
        pace.observe(decoding, prompt, duration_s)
        assert 1 <= pace.budget(num_decoding) <= 512
