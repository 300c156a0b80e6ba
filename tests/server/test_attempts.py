from __future__ import annotations

import pytest

from nbllm.server.attempts import Attempts


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_charge_until_the_limit(clock: Clock) -> None:
    attempts = Attempts(10, 60.0, clock=clock)
    assert [attempts.charge("192.0.2.1") for _ in range(10)] == [0.0] * 10
    assert attempts.charge("192.0.2.1") == pytest.approx(6.0)


def test_charge_beyond_the_limit_does_not_prolong_the_wait(clock: Clock) -> None:
    attempts = Attempts(2, 60.0, clock=clock)
    waits = [attempts.charge("a") for _ in range(50)]
    assert waits[2:] == [pytest.approx(30.0)] * 48
    clock.now += 31
    assert attempts.charge("a") == 0.0
    assert attempts.charge("a") > 0.0


def test_charge_after_a_long_time_has_the_limit_and_no_more(clock: Clock) -> None:
    attempts = Attempts(3, 60.0, clock=clock)
    for _ in range(5):
        attempts.charge("a")
    clock.now += 100_000
    assert [attempts.charge("a") == 0.0 for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        pytest.param("192.0.2.1", "192.0.2.2", False, id="ipv4"),
        pytest.param("192.0.2.1", "::ffff:192.0.2.1", True, id="ipv4 in ipv6"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1", True, id="one network of ipv6"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two networks of ipv6"),
        pytest.param("", "", True, id="no address"),
        pytest.param("fe80::1%eth0", "fe80::2%eth0", True, id="with a zone"),
    ],
)
def test_charge_counts_addresses_apart(clock: Clock, one: str, other: str, together: bool) -> None:
    attempts = Attempts(1, clock=clock)
    attempts.charge(one)
    assert (attempts.charge(other) > 0) is together


def test_memory_is_bounded_and_the_oldest_is_forgotten(clock: Clock) -> None:
    attempts = Attempts(1, max_addresses=100, clock=clock)
    attempts.charge("192.0.2.1")
    attempts.charge("192.0.2.2")
    attempts.charge("192.0.2.1")  # again: now the other is the oldest
    for number in range(99):
        attempts.charge(f"10.0.0.{number}")
    assert len(attempts._buckets) == 100
    assert attempts.charge("192.0.2.1") > 0
    assert attempts.charge("192.0.2.2") == 0.0
