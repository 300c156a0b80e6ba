"""Pulls that clients share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from nbllm.config import Config
from nbllm.server import pulls
from nbllm.server.pulls import Pulls
from nbllm.store.pulling import PullError, PullProgress

_WAIT_S = 10.0


class Stage:
    """Pulls that go on when they are told to.

    Attributes:
        ended: what each pull that has ended was ended by; None is its own end.
    """

    def __init__(self) -> None:
        self.reports: list[Callable[[PullProgress], None]] = []
        self.gate = threading.Event()
        self.ended: list[BaseException | None] = []
        self.error: Exception | None = None

    def pull(self, name: str, *, on_progress: Callable[[PullProgress], None], **_: object) -> None:
        self.reports.append(on_progress)
        try:
            on_progress(at(0))
            while not self.gate.wait(0.002):
                on_progress(at(1))
            if self.error is not None:
                raise self.error
            on_progress(at(9))
        except BaseException as exc:
            self.ended.append(exc)
            raise
        self.ended.append(None)


def at(done: int) -> PullProgress:
    return PullProgress(status="downloading", file="m.gguf", done=done, total=9)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(pulls, "pull", stage.pull)
    return stage


@pytest.fixture
def known(tmp_path: Any) -> Callable[[], Config]:
    config = Config(models_dir=tmp_path, foreign_stores=())
    return lambda: config


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, _WAIT_S))


async def _until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.002)


async def _all(pulls: Pulls, name: str = "m") -> list[PullProgress]:
    return [progress async for progress in pulls.follow(name)]


def test_two_clients_share_one_pull_and_both_see_its_end(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared = Pulls(known)
        first, second = asyncio.ensure_future(_all(shared)), asyncio.ensure_future(_all(shared))
        await _until(lambda: stage.reports)
        stage.gate.set()
        for told in (await first, await second):
            assert told[-1].done == 9
        assert len(stage.reports) == 1
        assert shared._works == {}

    run(work())


def test_client_that_comes_later_is_told_how_far_it_is(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared = Pulls(known)
        first = asyncio.ensure_future(_all(shared))
        await _until(lambda: shared._works["m"]._last is not None if shared._works else False)
        async with aclosing(shared.follow("m")) as late:
            assert (await anext(late)).file == "m.gguf"
        stage.gate.set()
        assert (await first)[-1].done == 9  # the other that went away has not ended it

    run(work())


def test_pull_that_everybody_has_left_is_ended(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared = Pulls(known)
        for _ in range(2):
            async with aclosing(shared.follow("m")) as progress:
                await anext(progress)
        await _until(lambda: len(stage.ended) == 2)
        assert all(isinstance(error, pulls._UnwantedError) for error in stage.ended)
        stage.gate.set()
        assert (await _all(shared))[-1].done == 9  # the next begins anew

    run(work())


def test_failure_is_everybodys(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared, stage.error = Pulls(known), PullError("offline")
        followers = [asyncio.ensure_future(_all(shared)) for _ in range(3)]
        await _until(lambda: stage.reports)
        stage.gate.set()
        errors = await asyncio.gather(*followers, return_exceptions=True)
        assert [str(error) for error in errors] == ["offline"] * 3
        assert len({id(error) for error in errors}) == 3  # a traceback each

    run(work())


def test_models_are_pulled_side_by_side(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared = Pulls(known)
        both = [asyncio.ensure_future(_all(shared, name)) for name in ("a", "b")]
        await _until(lambda: len(stage.reports) == 2)
        stage.gate.set()
        await asyncio.gather(*both)

    run(work())


def test_a_reader_that_is_slow_is_told_the_latest(known: Callable[[], Config]) -> None:
    follower = pulls._Follower()
    for done in range(9):
        follower.put(at(done))
    follower.put(PullProgress(status="done", file="m.gguf"))
    assert [(progress.status, progress.done) for progress in follower.taken()] == [("downloading", 8), ("done", 0)]
    assert follower.taken() == []


def test_close_ends_what_is_under_way(stage: Stage, known: Callable[[], Config]) -> None:
    async def work() -> None:
        shared = Pulls(known)
        client = asyncio.ensure_future(_all(shared))
        await _until(lambda: stage.reports)
        shared.close()
        with pytest.raises(asyncio.CancelledError):
            await client
        await _until(lambda: stage.ended)

    run(work())


@pytest.mark.parametrize(
    ("aliases", "is_pulled"),
    [({"m": "smollm2"}, False), ({"m": "nothing-here"}, True), ({}, True)],
    ids=["is here", "is not", "no alias"],
)
@pytest.mark.model
def test_name_that_the_settings_give_is_pulled_only_where_it_means_nothing(
    stage: Stage, tmp_path: Any, smollm2_path: Any, aliases: dict[str, str], is_pulled: bool
) -> None:
    config = Config(models_dir=tmp_path, foreign_stores=(), aliases=aliases)
    stage.gate.set()
    run(_ended(Pulls(lambda: config)))
    assert bool(stage.reports) is is_pulled


async def _ended(shared: Pulls) -> None:
    await _all(shared)
