"""An interrupt at any moment of a call leaves the engine's thread working, and no request behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.engine.driver import Driver
from nbllm.engine.local import LocalEngine
from nbllm.testing import toy_engine
from tests.engine.test_driver import Lane
from tests.interrupts import check_requests, moments


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path / "cores")
    yield made
    made.stop()


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = toy_engine(context_length=100_000, max_sequences=2)
    yield made
    made.close()


def test_lanes_are_stepped_after_an_interrupted_wake(driver: Driver) -> None:
    lane = Lane([], "a", 0)
    driver.attach(lane)
    for _ in moments(driver.wake):
        lane.idle.clear()
        lane.left = 1
        driver.wake()
        assert lane.idle.wait(10)


def test_lanes_are_stepped_after_an_interrupted_attach(tmp_path: Path) -> None:
    drivers = [Driver(tmp_path / "cores")]
    for moment in moments(lambda: drivers[-1].attach(Lane([], "a", 0), 1)):
        lane = Lane([], "b", 1)
        drivers[-1].attach(lane, 1)
        drivers[-1].wake()
        assert lane.idle.wait(10), moment
        drivers[-1].stop()
        drivers.append(Driver(tmp_path / "cores"))
    drivers[-1].stop()


def test_lanes_are_stepped_after_an_interrupted_detach(driver: Driver) -> None:
    other = Lane([], "other", 0)
    driver.attach(other)
    lanes = [Lane([], "a", 0)]
    driver.attach(lanes[0])
    for _ in moments(lambda: driver.detach(lanes[-1])):
        driver.detach(lanes[-1])
        assert lanes[-1].closed.wait(10)
        other.idle.clear()
        other.left = 1
        driver.wake()
        assert other.idle.wait(10)
        lanes.append(Lane([], "a", 0))
        driver.attach(lanes[-1])


def test_next_request_is_answered_after_an_interrupted_one(engine: LocalEngine) -> None:
    check_requests(engine, behind=engine)
