"""Work in the background: what it says of itself, and what becomes of it."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbllm.frames.jobs import Job, in_background
from nbllm.frames.run import Ask, Outcome, Progress, RunOptions, run
from nbllm.session.cache import AnswerCache
from nbllm.session.requests import Options
from tests.frames.answering import answering

WITHIN_S = 30.0


def asks(count: int) -> list[Ask]:
    return [Ask(Options.of({}).chat(f"row {number}")) for number in range(count)]


def test_result_is_what_the_call_would_have_given() -> None:
    job = Job(lambda report, stop: "frame")
    assert job.result(WITHIN_S) == "frame"
    assert job.done


def test_repr_says_how_far_it_is() -> None:
    reported, go_on = threading.Event(), threading.Event()

    def work(report: Progress, stop: threading.Event) -> None:
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


def test_error_is_raised_where_the_result_is_wanted() -> None:
    def work(report: Progress, stop: threading.Event) -> None:
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

    def work(report: Progress, stop: threading.Event) -> bool:
        begin.wait(WITHIN_S)
        _thread.interrupt_main()
        return go_on.wait(WITHIN_S)

    job = Job(work)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it may come as soon as it is allowed
        begin.set()
        job.result(WITHIN_S)
    assert not job.done
    go_on.set()
    assert job.result(WITHIN_S) is True


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
