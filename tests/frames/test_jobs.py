"""Work in the background: what it says of itself, and what becomes of it."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbllm.core.flag import Flag
from nbllm.frames.jobs import Job, in_background
from nbllm.frames.run import Ask, Outcome, Progress, RunOptions, run
from nbllm.session.cache import AnswerCache
from nbllm.session.requests import Options
from tests.frames.answering import answering
from tests.interrupts import moments

WITHIN_S = 30.0
_ROOT = Path(__file__).parents[2]


def asks(count: int) -> list[Ask]:
    return [Ask(Options.of({}).chat(f"row {number}")) for number in range(count)]


def test_result_is_what_the_call_would_have_given() -> None:
    job = Job(lambda report, stop: "frame")
    assert job.result(WITHIN_S) == "frame"
    assert job.done


def test_repr_says_how_far_it_is() -> None:
    reported, go_on = threading.Event(), threading.Event()

    def work(report: Progress, stop: Flag) -> None:
        report(412, 1000)
        reported.set()
        go_on.wait(WITHIN_S)
        report(1000, 1000)

    job = Job(work, total=1000)
    assert reported.wait(WITHIN_S)
    assert job.progress == (412, 1000)
    assert repr(job).startswith("<nbllm.Job 412/1,000 done, about ")
    assert not job.done
    with pytest.raises(TimeoutError, match="412/1,000 done"):
        job.result(timeout=0)
    go_on.set()
    job.result(WITHIN_S)
    assert repr(job).startswith("<nbllm.Job 1,000/1,000 done in ")


def test_job_ends_though_a_wait_was_interrupted_at_any_moment() -> None:
    def wait() -> None:
        with contextlib.suppress(TimeoutError):
            job.result(timeout=0.001)

    go_on = Flag()
    job = Job(lambda report, stop: go_on.wait(WITHIN_S))
    for _ in moments(wait):
        assert not job.done
    go_on.set()
    assert job.result(WITHIN_S)


def test_error_is_raised_where_the_result_is_wanted() -> None:
    def work(report: Progress, stop: Flag) -> None:
        report(1, 5)
        raise ValueError("no such thing")

    job = Job(work)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing"):
            job.result(WITHIN_S)
    assert repr(job) == "<nbllm.Job failed, 1/5 done: ValueError: no such thing>"


def _running(folder: Path, options: RunOptions, most: int | None = None) -> Job[list[Outcome | None]]:
    model, _ = answering(folder, seed=1, most=most)
    return in_background(options, lambda quiet, stop: run(model, asks(30), 30, quiet, stop=stop), 30)


def test_table_in_the_background_gives_the_same_and_shows_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    options = RunOptions(cache=False, background=True, progress=lambda done, total: told.append((done, total)))
    job = _running(tmp_path, options)
    model, _ = answering(tmp_path)
    alone = run(model, asks(30), 30, RunOptions(cache=False))
    assert [outcome and outcome.value for outcome in job.result(WITHIN_S)] == [
        outcome and outcome.value for outcome in alone
    ]
    assert job.progress == told[-1] == (30, 30)
    assert capfd.readouterr().out == ""


def test_cancelled_job_keeps_what_is_finished(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    at_ten = threading.Event()
    options = RunOptions(
        cache=AnswerCache(tmp_path / "answers"),
        background=True,
        progress=lambda done, total: at_ten.set() if done >= 10 else None,
    )
    job = _running(tmp_path, options, most=10)
    assert at_ten.wait(WITHIN_S)
    assert repr(job).startswith("<nbllm.Job 10/30 done")
    job.cancel()
    with pytest.raises(CancelledError, match="10/30 done, run again to resume"):
        job.result(WITHIN_S)
    assert repr(job) == "<nbllm.Job cancelled, 10/30 done>"
    assert capfd.readouterr().out == ""
    model, engine = answering(tmp_path)
    run(model, asks(30), 30, replace(options, progress=False))
    assert engine.num_answered == 20


def test_cancelled_job_may_give_what_it_has(tmp_path: Path) -> None:
    at_ten = threading.Event()
    options = RunOptions(
        cache=False, on_interrupt="return", progress=lambda done, total: at_ten.set() if done >= 10 else None
    )
    job = _running(tmp_path, options, most=10)
    assert at_ten.wait(WITHIN_S)
    job.cancel()
    assert sum(outcome is not None for outcome in job.result(WITHIN_S)) == 10


def test_interrupt_ends_the_wait_and_not_the_job() -> None:
    begin, go_on = threading.Event(), threading.Event()

    def work(report: Progress, stop: Flag) -> bool:
        begin.wait(WITHIN_S)
        _thread.interrupt_main()
        return go_on.wait(WITHIN_S)

    job = Job(work)
    with pytest.raises(KeyboardInterrupt) as interrupt:  # noqa: PT012  # it may come as soon as it is allowed
        begin.set()
        job.result(WITHIN_S)
    assert not job.done
    shown = interrupt.value._render_traceback_()  # type: ignore[attr-defined]
    assert shown == ["KeyboardInterrupt: the wait was ended, and the job runs on; job.cancel() ends it"]
    go_on.set()
    assert job.result(WITHIN_S) is True


def test_job_can_be_awaited(tmp_path: Path) -> None:
    begin = threading.Event()

    async def awaited() -> list[Any]:
        job = Job(lambda report, stop: begin.wait(WITHIN_S))
        waiting = asyncio.ensure_future(_value_of(job))
        await asyncio.sleep(0)
        begin.set()  # the loop is free
        return [await waiting, await job]

    assert asyncio.run(awaited()) == [True, True]


async def _value_of(job: Job[Any]) -> Any:
    return await job


def test_awaiting_a_job_that_failed_or_was_cancelled_says_so(tmp_path: Path) -> None:
    def fails(report: Progress, stop: Flag) -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        asyncio.run(_value_of(Job(fails)))
    job = _running(tmp_path, RunOptions(cache=False), most=2)
    job.cancel()
    with pytest.raises(CancelledError, match=r"\d/30 done"):
        asyncio.run(_value_of(job))


def test_whoever_awaits_a_job_may_stop_waiting() -> None:
    go_on = threading.Event()
    job = Job(lambda report, stop: go_on.wait(WITHIN_S))

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_value_of(job), 0)

    asyncio.run(impatient())
    assert not job.done
    go_on.set()
    assert job.result(WITHIN_S) is True


_ENDS_EARLY = """
import atexit
import sys
import threading
from pathlib import Path
from nbllm.frames.jobs import in_background
from nbllm.frames.run import RunOptions, run
from nbllm.session.cache import AnswerCache
from tests.frames.answering import answering
from tests.frames.test_jobs import asks

folder = Path(sys.argv[1])
at_three = threading.Event()

def work(options, stop):
    model, engine = answering(folder, seed=1, most=3)
    atexit.register(lambda: print("closed", len(engine.requests), any(ticket.pending for ticket, _ in engine._open)))
    return run(model, asks(6), 6, options, stop=stop)

options = RunOptions(cache=AnswerCache(folder), progress=lambda done, total: at_three.set() if done == 3 else None)
job = in_background(options, work, 6)
at_three.wait()
"""


def test_job_that_ends_with_its_script_says_how_far_it_came(tmp_path: Path) -> None:
    """Its model may have been loaded after it began, and is closed last all the same."""
    command = [sys.executable, "-c", _ENDS_EARLY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=_ROOT)
    assert done.stderr == "a job was ended with its process: 3/6 done, run again to resume\n"
    assert done.stdout == "closed 6 False\n"


def test_end_of_the_process_ends_its_jobs() -> None:
    """One that is still in native code while C++ tears its globals down would abort the process."""
    code = """
import subprocess
import sys
import threading
from nbllm.frames.jobs import Job

started = threading.Event()

def work(report, stop):
    started.set()
    stop.wait()
    print("ended", flush=True)

job = Job(work)
started.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended\n"
