"""`nbllm.map` and `nbllm.amap`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbllm
from nbllm.errors import EngineError, NbllmError, ParameterError
from nbllm.frames import using
from nbllm.frames.landing import MisfitError
from nbllm.session.cache import AnswerCache
from tests.frames.answering import answering
from tests.frames.verbs.replying import replying
from tests.frames.wrong import wrong_models

QUIET: dict[str, Any] = {"cache": False, "progress": False}


def _shout(prompt: str) -> Any:
    return EngineError("it broke") if "bad" in prompt else prompt.upper()


def test_map_keeps_order_and_nulls_and_asks_equal_values_once() -> None:
    model, engine = replying(_shout)
    answers = nbllm.map(["b", None, "a", float("nan"), "b"], "say {}", model=model, **QUIET)
    assert answers == ["SAY B", None, "SAY A", None, "SAY B"]
    assert engine.prompts == ["say a", "say b"]


def test_map_of_dicts_names_their_keys() -> None:
    model, _ = replying(_shout)
    rows = [{"x": "a", "n": 1}, {"x": "b", "n": None}]
    assert nbllm.map(rows, "{x}{n}", model=model, **QUIET) == ["A1", None]


def test_map_reads_what_was_asked_for() -> None:
    model, _ = replying(lambda _: '{"age": 3}')
    assert nbllm.map(("a",), "{}", response_format="age int", model=model, **QUIET) == [{"age": 3}]


@pytest.mark.parametrize(("on_error", "answers"), [("keep", ["A", None]), ("skip", ["A"])])
def test_map_keeps_or_skips_what_failed(on_error: str, answers: list[Any]) -> None:
    assert nbllm.map(["a", "bad"], "{}", model=replying(_shout)[0], on_error=on_error, **QUIET) == answers


def test_map_raises_when_asked_to() -> None:
    with pytest.raises(EngineError, match=r"^number 1: it broke$"):
        nbllm.map(["a", "bad"], "{}", model=replying(_shout)[0], on_error="raise", **QUIET)


def test_skipped_values_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    nbllm.map(["a", "bad"], "{}", model=replying(_shout)[0], on_error="skip", **QUIET)
    assert caplog.messages == ["1 of 2 rows failed and are left out; the first is number 1: it broke"]


def test_value_that_does_not_fit_raises_when_asked_to() -> None:
    options = {"response_format": {"type": "integer"}, "model": replying(lambda _: str(2**63))[0], **QUIET}
    assert nbllm.map(["a"], "{}", **options) == [None]
    with pytest.raises(MisfitError, match=r"^number 0: 9223372036854775808 does not fit"):
        nbllm.map(["a"], "{}", on_error="raise", **options)


def test_map_in_the_background_and_with_a_limit() -> None:
    model, _ = replying(_shout)
    job = nbllm.map((word for word in "abc"), "{}", model=model, limit=2, background=True, **QUIET)
    assert job.result(timeout=20) == ["A", "B", None]


@pytest.mark.parametrize("values", [[], [None]], ids=["empty", "all null"])
def test_map_of_nothing_needs_no_model(values: list[None]) -> None:
    assert nbllm.map(values, "{}", model="no-such-model") == values


@pytest.mark.parametrize(
    ("values", "prompt", "options", "says"),
    [
        pytest.param("abc", "{}", {}, "values: must be a list", id="a text"),
        pytest.param(pd.DataFrame({"a": ["x"]}), "{}", {}, "values: is a DataFrame; use df.llm.map", id="a frame"),
        pytest.param(["a"], "hello", {}, r"write \{\}", id="no place"),
        pytest.param(["a"], "{word}", {}, r"write \{\} for the value", id="a name"),
        pytest.param([{"x": 1}, {"y": 1}], "{x}", {}, "number 1 has other keys", id="keys"),
        pytest.param(["a"], "{}", {"details": True}, "details: is for tables", id="details"),
        pytest.param(["a"], "{}", {"examples": None}, "examples: is for tables", id="examples"),
        pytest.param(["a"], "{}", {"overwrite": True}, "overwrite: is for tables", id="overwrite"),
        pytest.param(["a"], "{}", {"temprature": 0}, "did you mean temperature", id="unknown"),
    ],
)
def test_bad_input_is_one_line(values: Any, prompt: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        nbllm.map(values, prompt, **options)


@wrong_models
def test_wrong_model_of_a_job_is_refused_at_once(model: Any, says: str) -> None:
    with pytest.raises(NbllmError, match=says):
        nbllm.map(["a"], "{}", model=model, background=True)
    with pytest.raises(NbllmError, match=says):
        asyncio.run(nbllm.amap(["a"], "{}", model=model, background=True))


def test_interrupt_before_any_row_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(using, "load", interrupted)
    monkeypatch.setattr(using, "loaded_models", list)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        nbllm.map(["a"], "{}", model="smollm2", **QUIET)
    assert interrupt.value._render_traceback_() == ["KeyboardInterrupt: it was stopped; run it again"]  # type: ignore[attr-defined]


def test_interrupt_of_an_amap_is_shown_in_one_line() -> None:
    def values() -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        nbllm.amap(values(), "{}", **QUIET).send(None)
    assert interrupt.value._render_traceback_() == ["KeyboardInterrupt: it was stopped; run it again"]  # type: ignore[attr-defined]


def test_amap_gives_the_same() -> None:
    model, _ = replying(_shout)
    assert asyncio.run(nbllm.amap(["a", None], "say {}", model=model, **QUIET)) == ["SAY A", None]


def test_a_cancelled_amap_ends_its_run(tmp_path: Path) -> None:
    model, engine = answering(tmp_path, seed=1, most=1)
    cache = AnswerCache(tmp_path / "answers")

    async def cancelled() -> None:
        task = asyncio.ensure_future(nbllm.amap(["a", "b", "c"], "{}", model=model, cache=cache, progress=False))
        while engine.num_answered < 1:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as error:
            await task
        assert error.value._render_traceback_() == [  # type: ignore[attr-defined]  # IPython's
            "CancelledError: the run was cancelled; what is finished is in the cache"
        ]

    asyncio.run(cancelled())  # it waits for the thread, which would wait for ever if the run went on
