"""Who goes, who stays, and how long a crash is held against a model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.runner import pool
from nbllm.runner.pool import Backoff


@dataclass(eq=False)
class Loaded:
    last_used: float = 0.0
    num_users: int = 0
    keep_alive_s: float = 300.0


@pytest.mark.parametrize(
    ("num_loaded", "max_loaded", "full"),
    [
        pytest.param(0, 1, False, id="empty"),
        pytest.param(1, 2, False, id="room"),
        pytest.param(2, 2, True, id="at the limit"),
        pytest.param(3, 2, True, id="above a lowered limit"),
        pytest.param(50, 0, False, id="no limit"),
    ],
)
def test_pool_is_full_at_its_limit(num_loaded: int, max_loaded: int, full: bool) -> None:
    assert pool.is_full(num_loaded, max_loaded) is full


def test_least_recently_used_is_the_idle_one_that_waited_longest() -> None:
    oldest_but_busy, old, new = Loaded(1.0, num_users=1), Loaded(2.0), Loaded(3.0)
    assert pool.least_recently_used([new, oldest_but_busy, old]) is old


def test_least_recently_used_of_busy_ones_is_none() -> None:
    assert pool.least_recently_used([Loaded(num_users=1), Loaded(num_users=2)]) is None


@pytest.mark.parametrize(
    ("loaded", "due"),
    [
        pytest.param(Loaded(10.0, keep_alive_s=5.0), 15.0, id="idle"),
        pytest.param(Loaded(10.0, keep_alive_s=0.0), 10.0, id="at once"),
        pytest.param(Loaded(10.0, keep_alive_s=-1.0), None, id="forever"),
        pytest.param(Loaded(10.0, num_users=1, keep_alive_s=0.0), None, id="in use"),
    ],
)
def test_expiry_counts_from_the_last_use(loaded: Loaded, due: float | None) -> None:
    assert pool.expires_at(loaded) == due
    assert pool.next_expiry([loaded, Loaded(num_users=1)]) == due


def test_expired_are_those_whose_time_has_come() -> None:
    gone, just, stays = Loaded(0.0, keep_alive_s=1.0), Loaded(5.0, keep_alive_s=5.0), Loaded(9.0)
    assert pool.expired([gone, just, stays], 10.0) == [gone, just]


def test_backoff_lets_the_first_crash_pass_and_doubles_then() -> None:
    backoff, delays = Backoff(), []
    for _ in range(9):
        backoff.crashed(100.0, lived_s=0.0)
        delays.append(backoff.retry_after_s(100.0))
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_backoff_is_reset_by_a_good_life() -> None:
    backoff = Backoff()
    for lived_s in (0.0, 0.0, 0.0, pool.GOOD_LIFE_S):
        backoff.crashed(0.0, lived_s)
    assert backoff.num_crashes == 1
    assert backoff.retry_after_s(0.0) == 0.0


def test_backoff_passes_with_time_and_is_forgotten_a_minute_later() -> None:
    backoff = Backoff()
    for _ in range(3):
        backoff.crashed(0.0, 1.0)
    assert [backoff.retry_after_s(now) for now in (0.5, 2.0, 3.0)] == [1.5, 0.0, 0.0]
    assert not backoff.is_over(61.0)
    assert backoff.is_over(62.0)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), max_size=200))
def test_backoff_never_waits_for_more_than_a_minute(crashes: list[tuple[float, float]]) -> None:
    backoff = Backoff()
    for now, lived_s in crashes:
        backoff.crashed(now, lived_s)
        assert 0.0 <= backoff.retry_after_s(now) <= pool.MAX_BACKOFF_S + 1e-6
