"""The supervisor under a clock that stands still until a test moves it, over runners that are no processes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, cast

import pytest

from nbllm.errors import EngineClosedError, EngineError, InsufficientMemoryError, ModelLoadError, NbllmError
from nbllm.runner.client import RemoteEngine
from nbllm.runner.entry import RunnerState
from nbllm.runner.errors import BusyError, LoadCrashError, RunnerBackoffError
from nbllm.runner.spec import LoadOptions, RunnerSpec
from nbllm.runner.supervisor import Lease, Supervisor
from nbllm.testing import ScriptedEngine

KEEP_ALIVE_S, LOAD_TIMEOUT_S = 300.0, 120.0
_pids = itertools.count(1000)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, duration_s: float) -> None:
        if duration_s > 0:
            sleeper = asyncio.get_running_loop().create_future()
            self._sleepers.append((self.now + duration_s, sleeper))
            await sleeper

    async def advance(self, duration_s: float) -> None:
        await quiet()
        self.now += duration_s
        for due, sleeper in self._sleepers:
            if due <= self.now and not sleeper.done():
                sleeper.set_result(None)
        await quiet()


class FakeEngine(ScriptedEngine):
    num_others = 0


class FakeRunner:
    def __init__(self, spec: RunnerSpec) -> None:
        self.spec, self.pid = spec, next(_pids)
        self.engine = cast("RemoteEngine", FakeEngine())
        self.is_alive = True
        self.num_stops = 0
        self.may_stop = threading.Event()
        self.may_stop.set()
        self._callbacks: list[Callable[[], None]] = []

    def when_gone(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if not self.is_alive:
            callback()

    def stop(self) -> None:
        self.num_stops += 1
        self.may_stop.wait(10)
        self.die()

    def die(self) -> None:
        was_alive, self.is_alive = self.is_alive, False
        for callback in self._callbacks if was_alive else ():
            callback()


class FakeStarter:
    """Loads at once, unless its gate is closed; fails with what is put into `errors`."""

    def __init__(self) -> None:
        self.runners: list[FakeRunner] = []
        self.errors: list[Exception] = []
        self.num_calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, spec: RunnerSpec, cancelled: threading.Event) -> FakeRunner:
        self.num_calls += 1
        while not self.gate.wait(0.005):
            if cancelled.is_set():
                raise EngineClosedError("given up")
        if self.errors:
            raise self.errors.pop(0)
        self.runners.append(FakeRunner(spec))
        return self.runners[-1]

    @property
    def alive(self) -> list[str]:
        return [runner.spec.name for runner in self.runners if runner.is_alive]


class Stage:
    def __init__(self, **options: Any) -> None:
        self.clock, self.starter = Clock(), FakeStarter()
        self.supervisor = Supervisor(
            self.starter,
            **{"keep_alive_s": KEEP_ALIVE_S, "load_timeout_s": LOAD_TIMEOUT_S, **options},
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def lease(self, name: str, **options: Any) -> Awaitable[Lease]:
        return self.supervisor.lease(spec(name), **options)

    async def use(self, name: str, **options: Any) -> None:
        async with await self.lease(name, **options):
            pass

    def states(self) -> dict[str, str]:
        return {state.name: state.state for state in self.supervisor.loaded()}

    def one(self, name: str) -> RunnerState:
        return next(state for state in self.supervisor.loaded() if state.name == name)


def spec(name: str, **options: Any) -> RunnerSpec:
    return RunnerSpec(path=Path(f"/models/{name}.gguf"), name=name, folder=Path("/run"), options=LoadOptions(**options))


async def quiet() -> None:
    """Let tasks and threads come to rest."""
    for _ in range(10):
        await asyncio.sleep(0.001)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)


def staged(**options: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """A test on an event loop of its own, which leaves no runner and no task behind."""

    def decorate(act: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
        async def run() -> None:
            stage = Stage(**options)
            try:
                async with asyncio.timeout(20):
                    await act(stage)
            finally:
                stage.starter.gate.set()
                for runner in stage.starter.runners:
                    runner.may_stop.set()
                await stage.supervisor.close()
            assert stage.starter.alive == []
            assert stage.supervisor.loaded() == []
            await quiet()  # alarms that nobody needs any more are still being cancelled
            assert asyncio.all_tasks() == {asyncio.current_task()}

        @wraps(act)
        def test() -> None:
            asyncio.run(run())

        del test.__wrapped__  # pytest would take `stage` for a fixture
        return test

    return decorate


async def refused(lease: Awaitable[Lease], kind: type[NbllmError], match: str | None = None) -> Any:
    with pytest.raises(kind, match=match) as caught:
        await lease
    return caught.value


# ---- leases


@staged()
async def test_lease_loads_the_model_and_the_next_one_shares_it(stage: Stage) -> None:
    async with await stage.lease("a") as first, await stage.lease("a") as second:
        assert first.engine is second.engine is stage.starter.runners[0].engine
        assert stage.one("a").num_active == 2
    assert stage.starter.num_calls == 1
    assert stage.one("a").num_active == 0


@staged()
async def test_waiters_share_one_load(stage: Stage) -> None:
    stage.starter.gate.clear()
    waiters = [asyncio.create_task(stage.supervisor.lease(spec("a"))) for _ in range(8)]
    await quiet()
    assert stage.states() == {"a": "starting"}
    stage.starter.gate.set()
    leases = await asyncio.gather(*waiters)
    assert stage.starter.num_calls == 1
    assert len({id(lease.engine) for lease in leases}) == 1
    assert stage.one("a").num_active == 8


@staged()
async def test_a_waiter_that_is_cancelled_leaves_the_load_to_the_others(stage: Stage) -> None:
    stage.starter.gate.clear()
    gone, stays = (asyncio.create_task(stage.supervisor.lease(spec("a"))) for _ in range(2))
    await quiet()
    gone.cancel()
    await asyncio.wait([gone])
    stage.starter.gate.set()
    assert (await stays).engine is stage.starter.runners[0].engine


@staged()
async def test_a_load_that_nobody_waits_for_is_finished_and_kept(stage: Stage) -> None:
    stage.starter.gate.clear()
    waiter = asyncio.create_task(stage.supervisor.lease(spec("a")))
    await quiet()
    waiter.cancel()
    await quiet()
    stage.starter.gate.set()
    await until(lambda: stage.states() == {"a": "ready"})
    assert stage.one("a").expires_at == KEEP_ALIVE_S
    await stage.use("a")
    assert stage.starter.num_calls == 1


@staged()
async def test_releasing_twice_counts_once(stage: Stage) -> None:
    first, second = await stage.lease("a"), await stage.lease("a")
    first.release()
    first.release()
    assert stage.one("a").num_active == 1
    second.release()


@staged()
async def test_other_options_are_another_runner_and_another_name_is_not(stage: Stage) -> None:
    async with await stage.supervisor.lease(spec("a")) as plain:
        async with await stage.supervisor.lease(spec("a", context_length=512)) as short:
            assert short.engine is not plain.engine
        alias = RunnerSpec(path=spec("a").path, name="alias", folder=Path("/run"))
        async with await stage.supervisor.lease(alias) as same:
            assert same.engine is plain.engine


# ---- failures


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ModelLoadError("not a GGUF"), id="file"),
        pytest.param(InsufficientMemoryError("too large"), id="memory"),
    ],
)
def test_a_refusal_reaches_all_waiters_and_is_no_crash(error: NbllmError) -> None:
    @staged()
    async def act(stage: Stage) -> None:
        stage.starter.gate.clear()
        stage.starter.errors = [error, error, error]
        waiters = [asyncio.create_task(stage.supervisor.lease(spec("a"))) for _ in range(3)]
        await quiet()
        stage.starter.gate.set()
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(error)] * 3
        assert len({id(outcome) for outcome in outcomes}) == 3
        for _ in range(2):
            await refused(stage.lease("a"), type(error), str(error))
        await stage.use("a")

    act()


@pytest.mark.parametrize("error", [LoadCrashError("SIGABRT"), EngineError("not loaded within 120 s"), OSError("gone")])
def test_crashes_while_loading_back_off(error: Exception) -> None:
    @staged()
    async def act(stage: Stage) -> None:
        stage.starter.errors = [error] * 2
        kind = type(error) if isinstance(error, NbllmError) else EngineError
        await refused(stage.lease("a"), kind, str(error))
        await refused(stage.lease("a"), kind, str(error))
        backoff = await refused(stage.lease("a"), RunnerBackoffError, "2 times in a row")
        assert backoff.retry_after_s == 1.0
        assert stage.starter.num_calls == 2
        await stage.use("b")
        await stage.clock.advance(1.0)
        stage.starter.errors = [error]
        await refused(stage.lease("a"), kind, str(error))
        assert (await refused(stage.lease("a"), RunnerBackoffError)).retry_after_s == 2.0
        assert stage.one("a").state == "backing off"
        assert stage.one("a").expires_at == 3.0
        await stage.clock.advance(2.0)
        assert "a" not in stage.states()
        await stage.use("a")

    act()


@staged()
async def test_a_runner_that_died_is_replaced_by_the_next_lease(stage: Stage) -> None:
    lease = await stage.lease("a")
    stage.starter.runners[0].die()
    await until(lambda: stage.states() == {})
    async with await stage.lease("a") as again:
        assert again.engine is not lease.engine
        lease.release()
        assert stage.one("a").num_active == 1


@staged()
async def test_a_runner_whose_connection_is_lost_is_stopped_and_replaced(stage: Stage) -> None:
    await stage.use("a")
    stage.starter.runners[0].is_alive = False  # no call back: its process goes on
    await stage.use("a")
    assert stage.starter.num_calls == 2
    assert stage.starter.alive == ["a"]
    await until(lambda: stage.starter.runners[0].num_stops == 1)


@staged()
async def test_a_model_that_crashes_again_and_again_backs_off_until_it_lived_well(stage: Stage) -> None:
    for _ in range(2):
        await stage.use("a")
        stage.starter.runners[-1].die()
        await until(lambda: "ready" not in stage.states().values())
    assert (await refused(stage.lease("a"), RunnerBackoffError)).retry_after_s == 1.0
    await stage.clock.advance(1.0)
    await stage.use("a")
    await stage.clock.advance(60.0)
    stage.starter.runners[-1].die()
    await until(lambda: stage.states() == {})
    await stage.use("a")


# ---- idle runners


@staged()
async def test_an_idle_runner_goes_after_its_keep_alive(stage: Stage) -> None:
    await stage.use("a")
    await stage.clock.advance(KEEP_ALIVE_S - 1)
    assert stage.starter.alive == ["a"]
    await stage.use("a")
    await stage.clock.advance(KEEP_ALIVE_S - 1)
    assert stage.starter.alive == ["a"]
    await stage.clock.advance(1)
    await until(lambda: stage.states() == {})
    assert stage.starter.alive == []


@staged()
async def test_a_runner_in_use_stays_however_long_it_takes(stage: Stage) -> None:
    async with await stage.lease("a", keep_alive_s=0.0):
        assert stage.one("a").expires_at is None
        await stage.clock.advance(10 * KEEP_ALIVE_S)
        assert stage.starter.alive == ["a"]
    await until(lambda: stage.states() == {})


@staged()
async def test_the_last_request_says_how_long_the_runner_stays(stage: Stage) -> None:
    await stage.use("a", keep_alive_s=-1.0)
    assert stage.one("a").expires_at is None
    await stage.clock.advance(100 * KEEP_ALIVE_S)
    assert stage.starter.alive == ["a"]
    await stage.use("a", keep_alive_s=10.0)
    assert stage.one("a").expires_at == stage.clock.now + 10.0
    await stage.use("a")
    assert stage.one("a").expires_at == stage.clock.now + KEEP_ALIVE_S


@staged()
async def test_a_lease_during_the_unloading_waits_and_loads_again(stage: Stage) -> None:
    await stage.use("a")
    stage.starter.runners[0].may_stop.clear()
    await stage.clock.advance(KEEP_ALIVE_S)
    assert stage.states() == {"a": "stopping"}
    waiter = asyncio.create_task(stage.supervisor.lease(spec("a")))
    await quiet()
    assert stage.starter.num_calls == 1
    stage.starter.runners[0].may_stop.set()
    assert (await waiter).engine is stage.starter.runners[1].engine


# ---- room


@staged(max_loaded=2)
async def test_the_least_recently_used_makes_room(stage: Stage) -> None:
    for name in ("a", "b", "a"):
        await stage.use(name)
        await stage.clock.advance(1)
    await stage.use("c")
    assert sorted(stage.starter.alive) == ["a", "c"]


@staged(max_loaded=1)
async def test_a_full_pool_waits_until_one_is_idle(stage: Stage) -> None:
    lease = await stage.lease("a")
    waiter = asyncio.create_task(stage.supervisor.lease(spec("b")))
    await quiet()
    assert stage.states() == {"a": "ready", "b": "starting"}
    assert stage.starter.num_calls == 1
    lease.release()
    async with await waiter:
        assert stage.starter.alive == ["b"]


@staged(max_loaded=1)
async def test_a_full_pool_refuses_when_nothing_gets_idle_in_time(stage: Stage) -> None:
    async with await stage.lease("a"):
        waiters = [asyncio.create_task(stage.supervisor.lease(spec(name))) for name in ("b", "b", "c")]
        await stage.clock.advance(LOAD_TIMEOUT_S - 1)
        assert not any(waiter.done() for waiter in waiters)
        await stage.clock.advance(1)
        for waiter in waiters:
            assert (await refused(waiter, BusyError)).retry_after_s > 0
        assert stage.starter.alive == ["a"]
        await until(lambda: stage.states() == {"a": "ready"})
    await stage.use("b")  # it was busy, not broken: nothing is held against it


@staged(max_loaded=1)
async def test_one_that_nobody_waits_for_any_more_takes_no_place(stage: Stage) -> None:
    lease = await stage.lease("a")
    waiter = asyncio.create_task(stage.supervisor.lease(spec("b")))
    await quiet()
    waiter.cancel()
    await until(lambda: stage.states() == {"a": "ready"})
    lease.release()
    await quiet()
    assert stage.starter.alive == ["a"]


@staged(max_loaded=1)
async def test_models_take_turns_in_the_order_of_their_requests(stage: Stage) -> None:
    order: list[str] = []

    async def ask(name: str) -> None:
        async with await stage.lease(name):
            order.append(name)

    first = await stage.lease("a")
    asks = []
    for name in ("b", "c", "d"):
        asks.append(asyncio.create_task(ask(name)))
        await quiet()
    first.release()
    await asyncio.gather(*asks)
    assert order == ["b", "c", "d"]
    assert stage.starter.alive == ["d"]


@staged(max_loaded=1)
async def test_one_that_just_became_ready_is_not_taken_from_its_waiters(stage: Stage) -> None:
    stage.starter.gate.clear()
    first = asyncio.create_task(stage.supervisor.lease(spec("a")))
    await quiet()
    second = asyncio.create_task(stage.supervisor.lease(spec("b")))
    await quiet()
    stage.starter.gate.set()
    lease = await first
    assert lease.engine is stage.starter.runners[0].engine
    assert stage.starter.alive == ["a"]
    lease.release()
    assert (await second).engine is stage.starter.runners[1].engine


def test_runners_go_one_by_one_until_the_memory_does() -> None:
    @staged(max_loaded=0, fits=lambda wanted: wanted.name != "big" or len(stage_of["it"].starter.alive) < 2)
    async def act(stage: Stage) -> None:
        stage_of["it"] = stage
        for name in ("a", "b", "c"):
            await stage.use(name)
            await stage.clock.advance(1)
        await stage.use("big")
        assert stage.starter.alive == ["c", "big"]

    stage_of: dict[str, Stage] = {}
    act()


@staged(max_loaded=0, fits=lambda wanted: False)
async def test_what_does_not_fit_even_alone_is_left_to_the_runner_to_refuse(stage: Stage) -> None:
    await stage.use("a")
    stage.starter.errors = [InsufficientMemoryError("needs 40 GiB")]
    await refused(stage.lease("b"), InsufficientMemoryError, "40 GiB")
    assert stage.starter.alive == []


@staged(load_timeout_s=10.0)
async def test_a_waiter_is_told_when_its_model_takes_too_long(stage: Stage) -> None:
    stage.starter.gate.clear()
    waiter = asyncio.create_task(stage.supervisor.lease(spec("a")))
    await stage.clock.advance(10.0)
    await refused(waiter, BusyError, "not loaded within 10 s")
    stage.starter.gate.set()
    await stage.use("a")
    assert stage.starter.num_calls == 1


# ---- unloading and the end


@staged()
async def test_unload_takes_what_is_idle_at_once(stage: Stage) -> None:
    await stage.use("a", keep_alive_s=-1.0)
    await stage.use("b")
    assert await stage.supervisor.unload("a")
    assert stage.starter.alive == ["b"]
    assert await stage.supervisor.unload(spec("b"))
    assert stage.starter.alive == []
    assert not await stage.supervisor.unload("a")


@staged()
async def test_unload_takes_what_is_in_use_when_it_is_idle(stage: Stage) -> None:
    async with await stage.lease("a"):
        assert await stage.supervisor.unload("a")
        assert stage.starter.alive == ["a"]
    await until(lambda: stage.starter.alive == [])


@staged()
async def test_close_gives_up_what_is_being_loaded(stage: Stage) -> None:
    await stage.use("a")
    stage.starter.gate.clear()
    waiter = asyncio.create_task(stage.supervisor.lease(spec("b")))
    await quiet()
    await stage.supervisor.close()
    await refused(waiter, EngineClosedError)
    await refused(stage.lease("a"), EngineClosedError)
    assert stage.starter.alive == []


@staged(max_loaded=1)
async def test_close_ends_what_waits_for_a_place(stage: Stage) -> None:
    async with await stage.lease("a"):
        waiters = [asyncio.create_task(stage.supervisor.lease(spec(name))) for name in ("b", "c")]
        await quiet()
        await stage.supervisor.close()
        for waiter in waiters:
            await refused(waiter, EngineClosedError)


def test_a_loop_that_is_cut_off_leaves_no_runner() -> None:
    starter, loading = FakeStarter(), threading.Event()
    stopped = threading.Event()

    def start(wanted: RunnerSpec, cancelled: threading.Event) -> FakeRunner:
        loading.set()
        cancelled.wait(10)  # and it is too late to give up
        runner = starter(wanted, threading.Event())
        runner.when_gone(stopped.set)
        return runner

    async def run() -> None:
        task = asyncio.create_task(Supervisor(start).lease(spec("a")))
        await asyncio.to_thread(loading.wait, 10)
        task.cancel()

    asyncio.run(run())
    assert stopped.wait(10)


def test_many_clients_of_many_models_leave_nothing_behind() -> None:
    @staged(max_loaded=2)
    async def act(stage: Stage) -> None:
        most = 0

        async def client(number: int) -> None:
            nonlocal most
            for turn in range(5):
                async with await stage.lease(
                    "abcd"[(number * 7 + turn * 3) % 4], keep_alive_s=float(turn % 2)
                ) as lease:
                    assert not cast("ScriptedEngine", lease.engine).is_closed
                    most = max(most, len(stage.starter.alive))
                    await asyncio.sleep(0)

        await asyncio.gather(*map(client, range(16)))
        assert most == 2
        assert all(not state.num_active for state in stage.supervisor.loaded())

    act()


def test_starter_of_processes_is_a_starter() -> None:
    from nbllm.runner import spawn

    Supervisor(partial(spawn.start, timeout_s=1.0), fits=spawn.fits)  # for mypy


# ---- guests: kernels that are attached to a runner


@pytest.mark.parametrize(
    ("keep_alive_s", "again_after_s"), [(KEEP_ALIVE_S, KEEP_ALIVE_S), (0.0, 5.0)], ids=["usual", "at once"]
)
def test_a_runner_with_guests_gets_its_keep_alive_again(keep_alive_s: float, again_after_s: float) -> None:
    @staged()
    async def act(stage: Stage) -> None:
        lease = await stage.lease("a", keep_alive_s=keep_alive_s)
        lease.engine.num_others = 1
        lease.release()
        await stage.clock.advance(keep_alive_s)
        for _ in range(3):
            assert stage.one("a").state == "ready"
            assert stage.one("a").expires_at == stage.clock.now + again_after_s
            await stage.clock.advance(again_after_s)
        lease.engine.num_others = 0
        await stage.clock.advance(again_after_s)
        await until(lambda: stage.states() == {})

    act()


@staged(max_loaded=2)
async def test_a_runner_with_guests_makes_no_room_for_another_model(stage: Stage) -> None:
    for name in ("a", "b"):
        await stage.use(name)
        await stage.clock.advance(1.0)
    guest = stage.starter.runners[0].engine
    guest.num_others = 1
    await stage.use("c")  # takes the place of b, although a was not used for longer
    assert stage.starter.alive == ["a", "c"]
    stage.starter.runners[-1].engine.num_others = 1
    waiter = asyncio.create_task(stage.supervisor.lease(spec("d")))
    await quiet()
    await stage.clock.advance(LOAD_TIMEOUT_S)
    with pytest.raises(BusyError):
        await waiter
    guest.num_others = 0
    await stage.use("d")
    assert stage.starter.alive == ["c", "d"]
