"""The decode thread: steps lanes in turn, sleeps when there is nothing to do, survives a lane that fails."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nbllm.engine.driver import Driver, shared_driver
from tests.forked import succeeds_in_child

_WAIT_S = 20.0


class _Report(NamedTuple):
    shape: tuple[int, int] = (1, 0)
    duration_s: float = 0.001
    is_decode: bool = True


class Lane:
    """Has as many steps to do as it is told."""

    def __init__(self, log: list[str], name: str, steps: int, error: Exception | None = None) -> None:
        self.log, self.name, self.left, self.error = log, name, steps, error
        self.idle, self.closed, self.died = threading.Event(), threading.Event(), threading.Event()
        self.thread: int | None = None
        self.interval = 0.0
        self.counts: list[tuple[int, int]] = []

    @property
    def has_work(self) -> bool:
        return self.left > 0

    def step(self, threads: int, prefill_threads: Callable[[], int]) -> _Report | None:
        self.thread, self.interval = threading.get_ident(), sys.getswitchinterval()
        self.counts.append((threads, prefill_threads()))
        self.log.append(self.name)
        if self.error is not None:
            raise self.error
        self.left -= 1
        if not self.left:
            self.idle.set()
        return _Report()

    def close(self, error: BaseException | None = None) -> None:
        self.thread = threading.get_ident()
        self.closed.set()

    def die(self, error: Exception) -> None:
        self.left = 0
        self.died.set()

    def stop_step(self) -> None:
        self.log.append(f"stop {self.name}")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "cores")
    yield made
    made.stop()


def test_lanes_with_work_take_turns(driver: Driver) -> None:
    log: list[str] = []
    slow, other = Lane(log, "a", 0), Lane(log, "b", 0)
    driver.attach(slow)
    driver.attach(other)
    slow.left = other.left = 3
    driver.wake()
    assert slow.idle.wait(_WAIT_S)
    assert other.idle.wait(_WAIT_S)
    assert slow.thread == other.thread != threading.get_ident()
    assert sorted(log[:2]) == ["a", "b"]


@pytest.mark.parametrize(("busy", "threads"), [(0, 4), (5, 3), (20, 1)])
def test_first_steps_leave_cores_to_what_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int, threads: int
) -> None:
    monkeypatch.setattr("nbllm.engine.driver.usable_cores", lambda: 4)
    monkeypatch.setattr("nbllm.engine.driver.busy_elsewhere", lambda: busy)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    driver, lane = Driver(tmp_path / "cores"), Lane([], "a", 0)
    driver.attach(lane)
    lane.left = 3
    driver.wake()
    assert lane.idle.wait(_WAIT_S)
    driver.stop()
    assert lane.counts == [(threads, threads)] * 3


def test_failing_lane_dies_and_the_others_go_on(driver: Driver) -> None:
    log: list[str] = []
    bad, good = Lane(log, "bad", 1, ValueError("broken")), Lane(log, "good", 0)
    driver.attach(good)
    driver.attach(bad)
    driver.wake()
    assert bad.died.wait(_WAIT_S)
    good.left = 2
    driver.wake()
    assert good.idle.wait(_WAIT_S)
    assert log.count("bad") == 1


def test_detach_closes_on_the_decode_thread_and_returns_then(driver: Driver) -> None:
    lane = Lane([], "a", 1)
    driver.attach(lane)
    assert lane.idle.wait(_WAIT_S)
    stepped_by = lane.thread
    driver.detach(lane)
    assert lane.closed.is_set()
    assert lane.thread == stepped_by
    driver.detach(lane)


def test_detach_of_a_busy_lane_stops_its_step(driver: Driver) -> None:
    lane = Lane([], "a", 10**9)
    driver.attach(lane)
    driver.detach(lane)
    assert lane.closed.is_set()
    assert "stop a" in lane.log


def test_stop_closes_every_lane_and_ends_the_thread(driver: Driver) -> None:
    lanes = [Lane([], name, 0) for name in "ab"]
    for lane in lanes:
        driver.attach(lane)
    driver.stop()
    assert all(lane.closed.is_set() for lane in lanes)


def test_switch_interval_is_short_only_while_decoding(driver: Driver) -> None:
    before = sys.getswitchinterval()
    lane = Lane([], "a", 3)
    driver.attach(lane)
    assert lane.idle.wait(_WAIT_S)
    assert lane.interval < before
    driver.stop()
    assert sys.getswitchinterval() == before


def test_shared_driver_is_one_a_process() -> None:
    assert shared_driver() is shared_driver()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_gets_a_driver_of_its_own() -> None:
    mine = shared_driver()

    def compare() -> None:
        assert shared_driver() is not mine

    assert succeeds_in_child(compare)
