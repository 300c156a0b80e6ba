"""A table's requests: each different one once, in any order, and nothing finished is lost."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import ChoiceRequest, EmbedRequest, GenerateRequest, Message, ModelInfo, Request
from nbllm.core.flag import Flag
from nbllm.engine.interface import OnChunk
from nbllm.errors import (
    ConstraintError,
    EngineError,
    InvalidRequestError,
    NbllmError,
    ParameterError,
    UnsupportedError,
)
from nbllm.frames import run as module
from nbllm.frames.compare.late import LateEngine
from nbllm.frames.keeping import identity_of, is_whole
from nbllm.frames.landing import outcome_of_response
from nbllm.frames.run import Ask, Outcome, RunOptions, row_seed, run
from nbllm.session.cache import AnswerCache
from nbllm.session.model import Model
from nbllm.session.requests import Options
from nbllm.session.response import Response
from nbllm.testing import ScriptedEngine, toy_engine
from nbllm.testing.script import ScriptedTicket
from tests.frames.answering import AnsweringEngine, answering, prompt

QUIET = RunOptions(progress=False)


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers")


@pytest.fixture
def quiet(cache: AnswerCache) -> RunOptions:
    return RunOptions(progress=False, cache=cache)


def chat(text: str, **options: Any) -> Ask:
    return Ask(Options.of(options).chat(text))


def embed(text: str) -> Ask:
    return Ask(EmbedRequest(texts=(text,)))


def choose(text: str, *choices: str) -> Ask:
    return Ask(ChoiceRequest(messages=(Message("user", text),), choices=choices or ("yes", "no")))


def texts(outcomes: list[Outcome | None]) -> list[str | None]:
    return [outcome.value.text if outcome and isinstance(outcome.value, Response) else None for outcome in outcomes]


def errors(outcomes: list[Outcome | None]) -> list[str | None]:
    return [type(outcome.error).__name__ if outcome and outcome.error else None for outcome in outcomes]


# ---- rows and values


def test_rows_come_back_in_their_order(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path, seed=3)
    rows = [chat(f"row {number}") for number in range(50)]
    assert texts(run(model, rows, 50, quiet)) == [f"row {number}!" for number in range(50)]
    assert {request.priority for request in engine.requests if isinstance(request, GenerateRequest)} == {"batch"}


def test_each_kind_of_request_has_its_value_again_from_the_cache(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    rows = [chat("a"), choose("b", "x", "yyy"), embed("c"), None]
    first, second = run(model, rows, 4, quiet), run(model, rows, 4, quiet)
    assert len(engine.requests) == 3
    for outcomes, cached in ((first, False), (second, True)):
        words, choices, vector, nothing = outcomes
        assert words
        assert choices
        assert vector
        assert nothing is None
        assert isinstance(words.value, Response)
        assert (words.value.text, words.value.tokens, words.duration_s) == ("a!", (), 0.375)
        assert choices.value == (-1.5, -3.5)
        assert isinstance(vector.value, np.ndarray)
        assert (vector.value.tolist(), str(vector.value.dtype)) == ([1, 1, 2], "float32")
        assert [outcome.cached for outcome in (words, choices, vector)] == [cached] * 3
        assert choices.duration_s == vector.duration_s == 0.375


def test_real_engine_answers_all_kinds(quiet: RunOptions) -> None:
    model = Model(toy_engine(ends=3.0))
    try:
        options = {"temperature": 0, "max_tokens": 4}
        rows = [chat("a", **options), choose("b"), embed("c"), chat("x" * 3000, **options)]
        words, choices, vector, long = run(model, rows, 4, RunOptions(progress=False, cache=False, on_error="skip"))
    finally:
        model.close()
    assert words
    assert choices
    assert vector
    assert long
    assert isinstance(words.value, Response)
    assert words.duration_s > 0
    assert isinstance(choices.value, tuple)
    assert all(value < 0 for value in choices.value)
    assert isinstance(vector.value, np.ndarray)
    assert vector.value.shape == (16,)
    assert type(long.error).__name__ == "ContextOverflowError"


def test_equal_requests_are_asked_once_also_across_chunks(
    tmp_path: Path, quiet: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    model, engine = answering(tmp_path)
    rows = [chat(f"row {number % 5}") for number in range(40)]
    outcomes = run(model, rows, 40, replace(quiet, cache=False))
    assert len(engine.requests) == 5
    assert texts(outcomes) == [f"row {number % 5}!" for number in range(40)]
    assert not any(outcome is None or outcome.cached for outcome in outcomes)


def test_rows_that_begin_alike_are_neighbours(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    rows = [chat(f"{'ab'[number % 2]} {number}") for number in range(20)]
    run(model, rows, 20, quiet)
    beginnings = [prompt(request)[0] for request in engine.requests]
    assert beginnings == sorted(beginnings)


def test_limit_asks_the_first_rows_only(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    taken: list[int] = []

    def rows() -> Iterator[Ask]:
        for number in range(10):
            taken.append(number)
            yield chat(f"row {number}")

    outcomes = run(model, rows(), 10, replace(quiet, limit=3))
    assert texts(outcomes) == ["row 0!", "row 1!", "row 2!", *[None] * 7]
    assert (taken, len(engine.requests)) == ([0, 1, 2], 3)


@pytest.mark.parametrize(("most", "allowed"), [(1, 1), (3, 3), (None, 256)], ids=["one", "three", "as many as ever"])
def test_no_more_than_the_window_is_with_the_engine(
    tmp_path: Path, quiet: RunOptions, most: int | None, allowed: int
) -> None:
    model, engine = answering(tmp_path, seed=1)
    run(model, (chat(f"row {number}") for number in range(300)), 300, replace(quiet, max_concurrency=most))
    assert engine.most_at_once <= allowed
    assert engine.num_answered == 300


def test_memory_stays_flat_over_a_million_null_rows(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    tracemalloc.start()
    try:
        outcomes = run(model, repeat(None, 1_000_000), 1_000_000, quiet)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(outcomes) == 1_000_000
    assert not any(outcomes)
    assert not engine.requests
    assert most - held < 10e6  # besides the list, which is 8 MB


def test_rows_are_taken_as_they_are_needed(tmp_path: Path, quiet: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 10)
    model, engine = answering(tmp_path)
    ahead = []

    def rows() -> Iterator[Ask]:
        for number in range(100):
            ahead.append(number - len(engine.requests))
            yield chat(f"row {number}")

    run(model, rows(), 100, quiet)
    assert max(ahead) < 10


# ---- errors


def _raised() -> NbllmError:
    try:
        raise ParameterError("p", "wrong")
    except ParameterError as error:
        return error


def test_rows_errors_are_kept_beside_the_others(
    tmp_path: Path, quiet: RunOptions, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = answering(tmp_path)
    rows: list[Ask | NbllmError | None] = [chat("a"), chat("refuse"), chat("break"), _raised(), None]
    with caplog.at_level(logging.WARNING, "nbllm"):
        outcomes = run(model, rows, 5, quiet)
    assert texts(outcomes) == ["a!", None, None, None, None]
    assert errors(outcomes) == [None, "InvalidRequestError", "EngineError", "ParameterError", None]
    assert not any(outcome and outcome.error and outcome.error.__traceback__ for outcome in outcomes)
    assert caplog.messages == ["3 of 5 rows failed; the first is row 1: InvalidRequestError: refuse was refused"]


def test_skipped_errors_are_not_told(tmp_path: Path, quiet: RunOptions, caplog: pytest.LogCaptureFixture) -> None:
    model, _ = answering(tmp_path)
    outcomes = run(model, [chat("break"), chat("break"), chat("a")], 3, replace(quiet, on_error="skip"))
    assert errors(outcomes) == ["EngineError", "EngineError", None]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        pytest.param(chat("refuse"), InvalidRequestError, id="refused"),
        pytest.param(chat("break"), EngineError, id="broken"),
        pytest.param(ParameterError("p", "wrong"), ParameterError, id="no request"),
    ],
)
def test_raised_error_leaves_what_was_finished_in_the_cache(
    tmp_path: Path, quiet: RunOptions, bad: Ask | NbllmError, kind: type[Exception]
) -> None:
    model, engine = answering(tmp_path)
    good = [chat("a"), chat("b")]  # before "break" and "refuse" in the order of beginnings
    with pytest.raises(kind):
        run(model, [*good, bad], 3, replace(quiet, on_error="raise"))
    before = len(engine.requests)
    assert texts(run(model, good, 2, quiet)) == ["a!", "b!"]
    assert len(engine.requests) - before == (2 if isinstance(bad, ParameterError) else 0)


def test_errors_are_not_kept_on_disk(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    for _ in range(2):
        run(model, [chat("break")], 1, replace(quiet, on_error="skip"))
    assert len(engine.requests) == 2


@pytest.mark.parametrize("again", [False, True], ids=["computed", "cached"])
def test_answer_cut_before_it_had_its_form_is_an_error_with_its_text(
    tmp_path: Path, quiet: RunOptions, again: bool
) -> None:
    model, engine = answering(tmp_path)
    rows = [chat("long", choice=["long story"], max_tokens=3), chat("long", max_tokens=3)]
    options = replace(quiet, on_error="skip")
    if again:
        run(model, rows, 2, options)
    shaped, free = run(model, rows, 2, options)
    assert shaped
    assert free
    assert isinstance(shaped.error, ConstraintError)
    assert free.error is None
    assert "max_tokens" in str(shaped.error)
    assert texts([shaped, free]) == ["long!", "long!"]
    assert len(engine.requests) == 2
    assert shaped.cached is again
    with pytest.raises(ConstraintError):
        run(model, rows, 2, replace(quiet, on_error="raise"))


@pytest.mark.parametrize(
    ("finish_reason", "max_tokens", "expected"),
    [("stop", None, True), ("length", 3, True), ("length", 4, False), ("length", None, False), ("timeout", 3, False)],
)
def test_answer_cut_by_the_context_is_not_whole(finish_reason: Any, max_tokens: int | None, expected: bool) -> None:
    from nbllm.core import Usage

    request = Options.of({"max_tokens": max_tokens}).chat("a")
    assert is_whole(request, Response(text="", finish_reason=finish_reason, usage=Usage(5, 3))) is expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"on_error": "ignore"}, "on_error: must be 'keep' or 'raise' or 'skip'"),
        ({"on_interrupt": "stop"}, "on_interrupt: must be"),
        ({"limit": -1}, "limit: must be a whole number from 0"),
        ({"max_concurrency": 0}, "max_concurrency: must be a whole number from 1"),
        ({"cache": "folder"}, "cache: must be True, False or an AnswerCache"),
        ({"progress": "bar"}, "progress: must be"),
        ({"background": 1}, "background: must be"),
    ],
)
def test_options_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        RunOptions(**options)


def test_choices_that_no_row_can_have_are_refused_at_once(tmp_path: Path, quiet: RunOptions) -> None:
    class Elsewhere(AnsweringEngine):
        num_refused = 0

        def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
            if isinstance(request, ChoiceRequest):
                self.num_refused += 1
                raise UnsupportedError("choose: not over a URL")
            return super().submit(request, on_chunk)

    engine = Elsewhere(tmp_path / "answering.gguf")
    with pytest.raises(UnsupportedError, match="choose"):
        run(Model(engine), [choose(f"row {number}") for number in range(5)], 5, quiet)
    assert engine.num_refused == 1


def test_row_with_several_answers_is_refused() -> None:
    with pytest.raises(ParameterError, match="n: a row has one answer"):
        chat("a", n=2)
    with pytest.raises(ParameterError, match="a row has one text"):
        Ask(EmbedRequest(texts=("a", "b")))


# ---- the cache


def test_without_a_cache_all_is_asked_again(tmp_path: Path) -> None:
    model, engine = answering(tmp_path)
    for _ in range(2):
        run(model, [chat("a")], 1, RunOptions(cache=False))
    assert len(engine.requests) == 2


def test_users_cache_is_the_default(tmp_path: Path) -> None:
    model, engine = answering(tmp_path)
    for _ in range(2):
        run(model, [chat("the users_cache_is_the_default")], 1, RunOptions())
    assert len(engine.requests) == 1


def test_model_is_known_by_its_file(tmp_path: Path, quiet: RunOptions) -> None:
    model, engine = answering(tmp_path)
    run(model, [chat("a")], 1, quiet)
    Path(engine.info.model.path).write_bytes(b"other weights")
    run(model, [chat("a")], 1, quiet)
    assert len(engine.requests) == 2


def test_model_is_known_by_how_it_was_loaded(tmp_path: Path, quiet: RunOptions) -> None:
    for num_asked, kv_type in enumerate(["f16", "q8_0", "f16", "q8_0"], 1):
        model, engine = answering(tmp_path)
        engine.info = replace(engine.info, kv_type=kv_type)
        for ask in (chat("a"), choose("b"), embed("c")):
            run(model, [ask], 1, quiet)
        assert len(engine.requests) == (3 if num_asked <= 2 else 0)


@pytest.mark.parametrize(("kv_type", "is_known_to"), [("f16", ["f16"]), ("q8_0", ["q8_0"])])
def test_model_that_is_loaded_for_the_run_is_known_by_what_it_got(
    tmp_path: Path, quiet: RunOptions, kv_type: str, is_known_to: list[str]
) -> None:
    def asked(kv_type: str, *, is_late: bool) -> int:
        model, engine = answering(tmp_path)
        found = replace(engine.info, kv_type=kv_type)
        late = LateEngine(found.model, lambda: Model(engine))
        engine.info = found
        run(Model(late) if is_late else model, [chat("a"), embed("b")], 2, quiet)
        return len(engine.requests)

    assert asked(kv_type, is_late=True) == 2
    assert asked(kv_type, is_late=True) == 0  # before anything is loaded
    assert [name for name in ("f16", "q8_0") if not asked(name, is_late=False)] == is_known_to


def test_model_without_a_file_is_known_by_what_its_server_states() -> None:
    def known(**stated: Any) -> str | None:
        engine = ScriptedEngine(replace(ModelInfo(name="m", path="", size_bytes=5), **stated))
        return identity_of(Model(engine))

    assert known() == known() is not None
    assert len({known(), known(name="other"), known(size_bytes=6), known(context_length=9)}) == 4
    assert known(name="") is None
    assert known(path="/no/such/file.gguf") is None


# ---- interrupts


def test_stopped_run_keeps_what_is_finished(tmp_path: Path, quiet: RunOptions) -> None:
    stop = Flag()
    rows = [chat(f"row {number}") for number in range(60)]

    def progress(done: int, total: int) -> None:
        if done >= 25:
            stop.set()

    model, engine = answering(tmp_path, seed=5, most=30)
    with pytest.raises(CancelledError, match=r"\d\d/60 done, run again to resume"):
        run(model, rows, 60, replace(quiet, progress=progress), stop=stop)
    assert engine.num_answered == 30
    model, engine = answering(tmp_path, seed=6)
    outcomes = run(model, rows, 60, quiet)
    assert engine.num_answered == 30
    assert texts(outcomes) == [f"row {number}!" for number in range(60)]


def test_interrupted_run_may_return_what_it_has(
    tmp_path: Path, quiet: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    def progress(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    model, _ = answering(tmp_path)
    rows = [chat(f"row {number:02}") for number in range(20)]
    outcomes = run(model, rows, 20, replace(quiet, progress=progress, on_interrupt="return", max_concurrency=1))
    assert texts(outcomes) == [*(f"row {number:02}!" for number in range(7)), *[None] * 13]
    assert capsys.readouterr().out == "7/20 done, run again to resume\n"


def _interrupt_at(rows: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == rows:
            raise KeyboardInterrupt

    return progress


def test_interrupt_is_shown_in_one_line(tmp_path: Path, quiet: RunOptions) -> None:
    model, _ = answering(tmp_path)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run(model, [chat("a"), chat("b")], 2, replace(quiet, progress=_interrupt_at(1), max_concurrency=1))
    assert interrupt.value._render_traceback_() == ["KeyboardInterrupt: the run was stopped"]  # type: ignore[attr-defined]


def test_interrupt_of_a_wait_is_not_about_an_empty_queue(tmp_path: Path) -> None:
    class Impatient:
        """Looks when there was nothing to receive, as a signal's handler does."""

        def put(self, flight: Any) -> None:
            assert flight.is_broken_off

        def get(self, timeout: float) -> Any:
            try:
                raise queue.Empty
            except queue.Empty:
                raise KeyboardInterrupt  # noqa: B904  # as it comes from a signal

    model, _ = answering(tmp_path, most=0, seed=1)
    planned = module._Run(model, 1, RunOptions(cache=False), lambda outcome: outcome, Flag())
    planned._inbox = Impatient()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt) as interrupt:
        planned.run([chat("a")])
    assert interrupt.value.__context__ is None


def test_stopped_run_is_shown_in_one_line(tmp_path: Path) -> None:
    stop = Flag()
    stop.set()
    model, _ = answering(tmp_path)
    with pytest.raises(CancelledError) as cancelled:
        run(model, [chat("a")], 1, RunOptions(cache=False, progress=False), stop=stop)
    line = "CancelledError: 0/1 done, and nothing is kept: there is no cache for this run"
    assert cancelled.value._render_traceback_() == [line]  # type: ignore[attr-defined]


def test_interrupt_without_a_cache_does_not_promise_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    model, _ = answering(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(model, [chat("a"), chat("b")], 2, RunOptions(cache=False, progress=progress, max_concurrency=1))
    assert capsys.readouterr().out == "1/2 done, and nothing is kept: there is no cache for this run\n"


_CHILD = """
import sys
from pathlib import Path
from nbllm.frames.run import RunOptions, run
from nbllm.session.cache import AnswerCache
from tests.frames.answering import answering
from tests.frames.test_run import chat

folder = Path(sys.argv[1])
model, engine = answering(folder, seed=1, most=12)
options = RunOptions(progress=lambda done, total: print(done, flush=True), cache=AnswerCache(folder / "answers"))
run(model, [chat(f"row {number}") for number in range(40)], 40, options)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_ends_at_once_and_the_next_run_resumes(tmp_path: Path, quiet: RunOptions) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_ROOT) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            if line == "12\n":
                break
        child.send_signal(signal.SIGINT)  # while it waits for an engine that says no more
        out, problem = child.communicate(timeout=60)
    assert out == "12/40 done, run again to resume\n"
    assert "KeyboardInterrupt" in problem
    model, engine = answering(tmp_path)
    assert None not in texts(run(model, [chat(f"row {number}") for number in range(40)], 40, quiet))
    assert engine.num_answered == 28


_ROOT = os.fspath(Path(__file__).parents[2])


# ---- what a row's value depends on

_PROMPTS = st.lists(st.sampled_from(["a", "b", "ab", "break", "refuse", None]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    rows=_PROMPTS,
    before=_PROMPTS,
    chunk=st.integers(1, 13),
    most=st.integers(1, 5),
    seed=st.none() | st.integers(0, 9),
    stopped=st.none() | st.integers(0, 5),
)
def test_value_depends_on_its_row_alone(
    rows: list[str | None], before: list[str | None], chunk: int, most: int, seed: int | None, stopped: int | None
) -> None:
    """Not on the order, the chunks, the concurrency, what was kept before, nor on a run that was broken off."""

    def asks(prompts: list[str | None]) -> list[Ask | None]:
        return [None if text is None else chat(text) for text in prompts]

    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        folder = Path(name)
        options = RunOptions(
            progress=False, cache=AnswerCache(folder / "answers"), on_error="skip", max_concurrency=most
        )
        model, _ = answering(folder)
        run(model, asks(before), len(before), options)
        if stopped is not None:
            _broken_off(folder, asks(rows), options, stopped)
        model, engine = answering(folder, seed=seed)
        outcomes = run(model, asks(rows), len(rows), options)
    expected = {"a": "a!", "b": "b!", "ab": "ab!"}
    assert texts(outcomes) == [expected.get(text or "") for text in rows]
    kinds = {"break": "EngineError", "refuse": "InvalidRequestError"}
    assert errors(outcomes) == [kinds.get(text or "") for text in rows]
    asked = [prompt(request) for request in engine.requests]
    assert len(asked) == len(set(asked))
    assert not set(asked) & set(before) & set(expected)


def _broken_off(folder: Path, asks: list[Ask | None], options: RunOptions, after: int) -> None:
    interrupts = iter([KeyboardInterrupt()])

    def progress(done: int, total: int) -> None:
        if done > after:
            for interrupt in interrupts:
                raise interrupt

    model, _ = answering(folder)
    run(model, asks, len(asks), replace(options, progress=progress, on_interrupt="return"))


def test_seed_is_made_of_the_content() -> None:
    messages = (Message("user", "a"),)
    assert row_seed(0, messages) == row_seed(0, [Message("user", "a", tokens=(1,))])
    others = [row_seed(1, messages), row_seed(0, messages, 1), row_seed(0, (Message("user", "b"),)), row_seed(0, ())]
    assert len({row_seed(0, messages), *others}) == 5
    assert row_seed(0, (Message("user", "\ud800"),)) >= 0


@given(st.integers(), st.lists(st.text()), st.integers(0, 5))
def test_seed_is_one_that_the_engine_takes(seed: int, contents: list[str], repeat: int) -> None:
    found = row_seed(seed, [Message("user", content) for content in contents], repeat)
    assert Options.of({"seed": found}).sampling.seed == found


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    """Another server's JSON may hold one, and no column of text takes it."""
    outcome = outcome_of_response(chat("hi"), Response(text="a\ud800b", reasoning="\udfff😀"), cached=False)
    assert isinstance(outcome.value, Response)
    assert (outcome.value.text, outcome.value.reasoning) == ("a\ufffdb", "\ufffd😀")
