"""Tables over other servers: from pandas, and from Dask's workers."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import nbllm
from nbllm.errors import EngineError
from nbllm.frames.distributed import models
from nbllm.runner.endpoint import caller as caller_file
from tests.runner.plays import Asked, Playhouse, Reply, chat_events, playhouse

_KEY = "sk-verysecret"
_FRAME = pd.DataFrame({"number": range(50)})
_QUIET: dict[str, Any] = {"cache": False, "progress": False}


@pytest.fixture
def house() -> Iterator[Playhouse]:
    with playhouse() as running:
        running.lists({"id": "m"})
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_file, "_FIRST_PAUSE_S", 0.001)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The workers' connections end with the test."""
    monkeypatch.setattr(models, "_connected", {})
    yield
    for model in models._connected.values():
        model.close()


class _Server:
    """Says the prompt in capitals. A moody one refuses two thirds of the prompts once or twice before, in both ways.

    It answers the first one when a second is there.

    Attributes:
        most: requests that it had at one time.
        refusals: the statuses that it gave.
    """

    def __init__(self, *, is_moody: bool = False) -> None:
        self._is_moody = is_moody
        self._lock, self._are_two = threading.Lock(), threading.Event()
        self._times: Counter[str] = Counter()
        self._now = self.most = 0
        self.refusals: list[int] = []

    def __call__(self, asked: Asked, reply: Reply) -> None:
        prompt = asked.body["messages"][-1]["content"]
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self._times[prompt] += 1
            is_refused = self._is_moody and self._times[prompt] <= int(prompt.split()[-1]) % 3
            status = 503 if len(self.refusals) % 2 else 429
            self.refusals += [status] * is_refused
            if self._now > 1 or not self._is_moody:
                self._are_two.set()
        assert self._are_two.wait(30)
        if is_refused:
            reply.json({"error": {"message": "busy"}}, status, Retry_After="0")
        else:
            reply.stream(*chat_events(prompt.upper()))
        with self._lock:
            self._now -= 1


def test_a_moody_server_gives_the_frame_of_a_quiet_one(house: Playhouse) -> None:
    quiet, moody = _Server(), _Server(is_moody=True)
    frames = []
    with nbllm.connect(house.url, model="m", max_concurrency=4) as model:
        for server in (quiet, moody):
            house.chat(server)
            frames.append(_FRAME.llm.map("number {number}", model=model, **_QUIET))
    assert_frame_equal(*frames)
    assert frames[1]["response"].tolist() == [f"NUMBER {number}" for number in range(50)]
    assert not quiet.refusals
    assert (len(moody.refusals), set(moody.refusals)) == (49, {429, 503})
    assert 1 < moody.most <= 4


def test_a_server_that_stays_busy_fails_rows_and_not_the_frame(house: Playhouse) -> None:
    house.chat(lambda asked, reply: reply.json({"error": {"message": "busy"}}, 503))
    with nbllm.connect(house.url, model="m", max_retries=1) as model:
        frame = _FRAME.head(3).llm.map("number {number}", model=model, **_QUIET)
    assert frame["response"].isna().all()
    assert frame["response_error"].str.contains("busy").all()
    assert len(house.bodies) == 6


@pytest.mark.usefixtures("connected")
def test_workers_ask_the_server_that_the_client_named(house: Playhouse) -> None:
    house.chat(_Server())
    with nbllm.connect(house.url, model="m", api_key=_KEY) as model:
        lazy = dd.from_pandas(_FRAME, npartitions=5).llm.map("number {number}", model=model, cache=False)
        whole = _FRAME.llm.map("number {number}", model=model, **_QUIET)
    assert_frame_equal(lazy.compute(), whole)  # the client's own connection is closed
    assert len(models._connected) == 1
    assert {asked.headers.get("Authorization") for asked in house.asked} == {f"Bearer {_KEY}"}


@pytest.mark.usefixtures("connected")
def test_the_key_travels_and_shows_nowhere(house: Playhouse, capsys: pytest.CaptureFixture[str]) -> None:
    with nbllm.connect(house.url, model="m", api_key=_KEY) as model:
        lazy = dd.from_pandas(_FRAME, npartitions=2).llm.map("{number}", model=model, cache=False)
    lazy.pprint()
    graph = dict(lazy.__dask_graph__())
    shown = f"{lazy!r} {lazy.expr!r} {lazy.expr.tree_repr()} {graph!r} {list(graph)} {capsys.readouterr().out}"
    assert "asked" in shown
    assert _KEY not in shown
    assert _KEY.encode() in pickle.dumps(lazy)


@pytest.mark.usefixtures("connected")
def test_a_servers_failure_is_raised_in_the_client(house: Playhouse) -> None:
    house.chat(lambda asked, reply: reply.json({"error": {"message": "out of order"}}, 500))
    with nbllm.connect(house.url, model="m", max_retries=0) as model:
        lazy = dd.from_pandas(_FRAME, npartitions=2).llm.map("{number}", model=model, cache=False, on_error="raise")
        with pytest.raises(EngineError, match="out of order") as failure:
            lazy.compute()
    again = pickle.loads(pickle.dumps(failure.value))
    assert (type(again), str(again)) == (type(failure.value), str(failure.value))
