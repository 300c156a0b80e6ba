"""What a person sees of a run, and when."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.core import GenerateRequest, Request
from nbllm.engine.interface import OnChunk
from nbllm.frames.durations import duration_text, rate_text, rough
from nbllm.frames.progress import SAMPLE, Meter
from nbllm.frames.run import Ask, RunOptions, run
from nbllm.session.model import Model
from nbllm.session.requests import Options
from nbllm.testing.script import ScriptedTicket
from tests.frames.answering import AnsweringEngine, answering


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asks(count: int) -> Iterator[Ask]:
    return (Ask(Options.of({}).chat(f"row {number}")) for number in range(count))


def metered(total: int, progress: Any, rows_s: float, *, computed: int | None = None) -> None:
    """A run of as many rows, each of which takes so long."""
    clock = Clock()
    meter = Meter(total, progress, clock)
    computed = total if computed is None else computed
    meter.advance(total - computed)
    meter.expect(computed, total, 0)
    for _ in range(computed):
        clock.now += rows_s
        meter.advance(1, computed=1)
    meter.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration_is_read_by_a_person(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_rate_has_the_digits_that_matter() -> None:
    assert [rate_text(*pair) for pair in ((51, 10.0), (20_000, 10.0), (1, 20.0), (0, 5.0))] == [
        "5.1 rows/s",
        "2,000 rows/s",
        "20 s a row",
        "0 rows/s",
    ]


def test_estimate_is_rounded_as_estimates_are() -> None:
    assert [rough(value) for value in (3.21, 45.6, 196, 1234)] == [3.21, 46, 200, 1260]


def test_long_run_has_an_estimate_and_a_bar_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    metered(1000, None, 0.2)
    shown = capsys.readouterr()
    assert "1,000 rows: about 3 min 20 s (5.0 rows/s)\n" in shown.out
    assert "1000/1000" in shown.out
    assert shown.err == ""


def test_estimate_says_how_many_rows_are_to_be_computed(capsys: pytest.CaptureFixture[str]) -> None:
    metered(1000, None, 0.2, computed=588)
    assert "1,000 rows, 588 to compute: about 2 min (5.0 rows/s)\n" in capsys.readouterr().out


def test_rows_that_come_later_are_taken_to_be_like_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = Meter(4000, None, clock)
    meter.advance(500)
    meter.expect(500, 1000, 3000)
    for _ in range(SAMPLE):
        clock.now += 1
        meter.advance(1, computed=1)
    meter.close()
    assert "4,000 rows, about 2,000 to compute: about 33 min (1.0 rows/s)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("total", "progress", "rows_s"),
    [
        pytest.param(1000, None, 0.0001, id="short"),
        pytest.param(SAMPLE, None, 0.01, id="no rest to speak of"),
        pytest.param(1000, False, 10.0, id="not wanted"),
        pytest.param(1000, lambda done, total: None, 10.0, id="a function"),
        pytest.param(0, True, 1.0, id="no rows"),
    ],
)
def test_nothing_is_shown(total: int, progress: Any, rows_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    metered(total, progress, rows_s)
    assert capsys.readouterr().out == ""


def test_bar_that_is_asked_for_comes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    metered(3, True, 0.0001)
    assert "3/3" in capsys.readouterr().out


def test_bar_comes_while_a_slow_row_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = Meter(5, None, clock)
    meter.tick()
    assert capsys.readouterr().out == ""
    clock.now += 3
    meter.tick()
    assert "0/5" in capsys.readouterr().out
    meter.close()


def test_clock_of_a_bar_begins_with_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    clock.now += 3
    meter = Meter(5, None, clock, started=clock.now - 60)
    meter.advance(2)
    meter.close()
    shown = capsys.readouterr().out
    assert "2/5 [01:00<" in shown
    assert "[00:00" not in shown


def test_rate_of_a_bar_is_of_the_rows_that_were_computed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = Meter(1000, True, clock)
    meter.close()
    capsys.readouterr()
    meter = Meter(1000, None, clock, started=clock.now - 10)
    meter.expect(100, 1000, 0)
    meter.advance(900)  # from the cache
    meter.advance(20, computed=20)
    meter.close()
    assert re.search(r"920/1000 \[00:10<00:\d\d, +2\.00 rows/s\]", capsys.readouterr().out)


def test_function_is_told_of_each_row(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model, _ = answering(tmp_path)
    rows = [*asks(3), None, *asks(3)]
    options = RunOptions(cache=False, progress=lambda done, total: told.append((done, total)))
    run(model, rows, 7, options)
    assert told == [(1, 7), (3, 7), (5, 7), (7, 7)]  # the null row first; two rows share each answer


class _Frozen(AnsweringEngine):
    """Notes how much it was asked when the estimate came."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(path, seed=1)
        self.before_estimate = 0
        self._capsys = capsys
        self._was_told = False

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        self._was_told = self._was_told or " rows: about " in self._capsys.readouterr().out
        self.before_estimate += isinstance(request, GenerateRequest) and not self._was_told
        return super().submit(request, on_chunk)


def test_estimate_comes_before_the_rest_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbllm.frames.progress._SHORT_S", -1.0)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x")
    engine = _Frozen(path, capsys)
    run(Model(engine), asks(300), 300, RunOptions(cache=False))
    assert (
        engine.before_estimate == SAMPLE + engine.info.max_sequences
    )  # what keeps the slots full while the last of the sample are computed
    assert engine.num_answered == 300


def test_estimate_counts_what_only_the_first_rows_cost_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = Meter(120, None, clock)
    meter.expect(120, 120, 0)
    clock.now += 30  # a load, and an instruction that all rows share
    for _ in range(SAMPLE):
        clock.now += 1
        meter.advance(1, computed=1, took_s=1.0)
    meter.close()
    assert "120 rows: about 2 min 30 s (1.0 rows/s)" in capsys.readouterr().out
