"""llama.cpp's log: through `logging`, in whole lines, and never an exception into C."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from nbllm.llama import log

_DEBUG, _INFO, _WARN, _ERROR, _CONTINUED = 1, 2, 3, 4, 5  # llama.cpp's levels
Say = Callable[[int, bytes], None]


class _Api:
    """llama.cpp's two functions of its log, and what they were called with."""

    def __init__(self) -> None:
        self.callback: Any = None

    def llama_log_callback(self, function: Any) -> Any:
        return function

    def llama_log_set(self, callback: Any, _data: object) -> None:
        self.callback = callback


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Says something as llama.cpp does; the real routing, if any, is back after the test."""
    for name in ("_api", "_callback", "_last_level"):
        monkeypatch.setattr(log, name, getattr(log, name))
    monkeypatch.setattr("atexit.register", lambda *_: None)
    api = _Api()
    log.route(api)
    return lambda level, text: api.callback(level, text, None)


@pytest.mark.parametrize(
    ("level", "ours"),
    [
        pytest.param(_DEBUG, 5, id="debug"),
        pytest.param(_INFO, logging.DEBUG, id="info, of which a load says a hundred lines"),
        pytest.param(_WARN, logging.INFO, id="warning"),
        pytest.param(_ERROR, logging.WARNING, id="error"),
    ],
)
def test_line_reaches_logging_at_its_level(say: Say, caplog: pytest.LogCaptureFixture, level: int, ours: int) -> None:
    with caplog.at_level(1, "nbllm.llama"):
        say(level, b"a line of 100 %s\n")
    assert caplog.record_tuples == [("nbllm.llama", ours, "a line of 100 %s")]


def test_continuation_has_the_level_of_what_it_continues(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1, "nbllm.llama"):
        say(_ERROR, b"half")
        say(_CONTINUED, b" a line\n")
        say(_CONTINUED, b"......\n")
    assert [(entry.levelno, entry.message) for entry in caplog.records] == [
        (logging.WARNING, "half"),
        (logging.WARNING, " a line"),
    ], "dots of a progress bar are no line"


def test_captured_holds_the_errors_said_inside_alone(say: Say) -> None:
    say(_ERROR, b"before\n")
    with log.captured() as errors:
        say(_INFO, b"loading\n")
        say(_ERROR, b"unknown architecture\n")
        say(_CONTINUED, b"in a tensor\n")
    say(_ERROR, b"after\n")
    assert errors == ["unknown architecture", "in a tensor"]


def test_bytes_that_are_no_utf8_are_shown_as_far_as_they_are(say: Say) -> None:
    with log.captured() as errors:
        say(_ERROR, b"name: \xff\n")
    assert errors == ["name: \N{REPLACEMENT CHARACTER}"]


def test_broken_handler_does_not_raise_into_c(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a handler of the user's")

    monkeypatch.setattr(log.logger, "log", fail)
    with log.captured() as errors:
        say(_ERROR, b"x\n")
    assert errors == ["x"]


def test_echo_of_an_abort_is_for_debugging_only(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1, "nbllm.llama"):
        with log.expecting_abort(lambda: True):
            say(_ERROR, b"graph_compute failed\n")
        with log.expecting_abort(lambda: False):
            say(_ERROR, b"failed indeed\n")
        say(_ERROR, b"failed afterwards\n")
    assert [entry.levelno for entry in caplog.records] == [logging.DEBUG, logging.WARNING, logging.WARNING]
