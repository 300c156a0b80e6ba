"""Failures over HTTP, and the table of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbllm.errors import EngineDeadError, EngineError, InsufficientMemoryError, ModelLoadError, NbllmError
from nbllm.runner.errors import BusyError, LoadCrashError, RunnerBackoffError
from nbllm.server import access
from nbllm.server.failures import failure_of, markdown_table
from nbllm.server.handlers.models import ROUTES
from tests.server.serving import CHAT, Site, chat, wait_until


def _all_errors(root: type[NbllmError] = NbllmError) -> list[type[NbllmError]]:
    return [kind for child in root.__subclasses__() for kind in (child, *_all_errors(child))]


@pytest.mark.parametrize(
    "kind", [kind for kind in _all_errors() if kind.__module__.startswith(("nbllm.errors", "nbllm.runner"))]
)
def test_every_error_has_a_status(kind: type[NbllmError]) -> None:
    if kind.__name__.startswith("_"):
        return
    instance = kind.__new__(kind)
    failure = failure_of(instance)
    assert failure is not None
    assert 400 <= failure.status < 500 or failure.status == 503
    assert failure.status != 503 or failure.retry_after_s is not None


_CODES = {
    name
    for pattern in (r'code="(\w+)"', r'"(\w+_not_allowed|insufficient_scope)"')
    for path in Path(access.__file__).parent.rglob("*.py")
    for name in re.findall(pattern, path.read_text())
}


def test_the_table_has_every_code_that_is_sent() -> None:
    assert {"model_not_allowed", "keys_unavailable", "body_too_large"} <= _CODES
    assert [code for code in sorted(_CODES) if f"| `{code}` |" not in markdown_table()] == []


def test_an_unknown_path_lists_those_that_there_are(site: Site) -> None:
    told = site.get("v1/nothing").error["message"]
    for route in ROUTES:
        assert route in told
        assert site.get(f"v1/{route.replace('NAME', 'toy')}").status in (200, 405)


def test_an_error_of_nobody_has_none() -> None:
    assert failure_of(KeyError("x")) is None


def test_the_table_has_a_row_for_each_status() -> None:
    table = markdown_table()
    for status in (400, 401, 403, 404, 405, 413, 415, 429, 503):
        assert f"\n| {status} | " in table
    assert len(set(table.splitlines())) == len(table.splitlines())


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (ModelLoadError("damaged"), 404, "model_not_found", None),
        (LoadCrashError("it died"), 503, "model_unavailable", "5"),
        (InsufficientMemoryError("too big"), 503, "model_unavailable", "30"),
        (EngineError("no process"), 503, "engine_failed", "1"),
        (BusyError("all in use", 5.0), 503, "model_unavailable", "5"),
        (RunnerBackoffError("crashed", 2.2), 503, "model_unavailable", "3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_load_that_fails(site: Site, error: NbllmError, status: int, code: str, retry_after: str | None) -> None:
    site.cast.errors.append(error)
    answer = site.post(CHAT, chat())
    assert answer.status == status
    assert answer.error["code"] == code
    assert answer.headers["Retry-After"] == retry_after


def test_an_unforeseen_failure_is_told_without_its_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(name: str) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(site.service.router, "target", fail)
    answer = site.post(CHAT, chat())
    assert answer.status == 500
    assert answer.error["type"] == "server_error"
    assert "secret" not in answer.body.decode()
    wait_until(lambda: any("secret" in line for line in site.log.lines))


@pytest.mark.parametrize("error", [EngineError("boom"), EngineDeadError("boom")])
def test_an_engine_that_fails_in_the_middle_of_a_whole_answer(site: Site, error: Exception) -> None:
    site.scripted(["some", error])
    answer = site.post(CHAT, chat())
    assert answer.status == 503
    assert answer.error["code"] == "engine_failed"
    assert "boom" in answer.error["message"]
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_runner_that_crashes_over_and_over_is_left_alone_for_a_while(site: Site) -> None:
    site.cast.errors += [LoadCrashError("it died")] * 5
    answers = [site.post(CHAT, chat()) for _ in range(3)]
    assert answers[-1].status == 503
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "crashed 2 times" in answers[-1].error["message"]
    assert len(site.cast.specs) == 2


def test_a_runner_that_dies_while_idle_is_loaded_again(site: Site) -> None:
    site.post(CHAT, chat())
    site.cast.runners[0].die()
    wait_until(lambda: not site.cast.runners[0].is_alive)
    assert site.post(CHAT, chat()).status == 200
    assert len(site.cast.runners) == 2


def test_a_runner_that_dies_ends_every_request_it_had(site: Site) -> None:
    site.scripted(*["a"] * 4, until_cancelled=True)
    connections = [site.raw_post(CHAT, chat()) for _ in range(4)]
    wait_until(lambda: site.cast.runners)
    tickets = site.cast.runners[0].engine._tickets
    wait_until(lambda: sum(ticket.is_answered for ticket in tickets.values()) == 4)  # else they would be asked again
    site.cast.runners[0].die()
    statuses = []
    for connection in connections:
        with connection:
            statuses.append(connection.recv(100).split()[1])
    assert statuses == [b"503"] * 4
    wait_until(lambda: site.in_flight == 0)
    assert site.get("v1/models").status == 200


def test_the_context_overflow_tells_both_counts(site: Site) -> None:
    error = site.post(CHAT, chat("x" * 2000)).error
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    assert "2,0" in error["message"]
    assert "load the model" not in error["message"]  # which a client cannot do
    assert "512" in error["message"]
