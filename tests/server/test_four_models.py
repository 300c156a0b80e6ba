"""Four models with room for two: never more than two at a time, each answered, none loaded twice while it is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.server.serving import CHAT, Cast, FakeRunner, Site
from tests.store.gguf_writer import tiny_model, write

_NAMES = ("one", "two", "three", "four")


class CountingCast(Cast):
    """Attributes:
    most: runners that were alive at one time.
    """

    most = 0

    def start(self, spec: Any, cancelled: Any) -> FakeRunner:
        try:
            return super().start(spec, cancelled)
        finally:
            self.most = max(self.most, sum(runner.is_alive for runner in self.runners))


@pytest.fixture
def crowd(site: Site) -> CountingCast:
    for name in _NAMES:
        write(site.models_dir / "crowd" / f"{name}.gguf", tiny_model())
    site.cast = cast = CountingCast()
    return cast


def _ask(site: Site, name: str) -> int:
    body = {"model": f"crowd/{name}", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    try:
        return site.post(CHAT, body, timeout_s=30).status
    finally:
        site.close()  # a connection a thread


def test_models_in_turn(site: Site, crowd: CountingCast) -> None:
    assert [_ask(site, name) for name in _NAMES * 3] == [200] * 12
    assert crowd.most == 2
    assert len(crowd.specs) == 12  # each had to make room for another


def test_models_at_once(site: Site, crowd: CountingCast) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: _ask(site, name), _NAMES * 4)) == [200] * 16
    assert crowd.most == 2


def test_two_of_them_stay_while_they_are_asked(site: Site, crowd: CountingCast) -> None:
    assert [_ask(site, name) for name in (*_NAMES[:2] * 5, "three", *_NAMES[1:3] * 5)] == [200] * 21
    assert [spec.name for spec in crowd.specs] == ["crowd/one", "crowd/two", "crowd/three"]


def test_presets_take_no_place_of_their_own(site: Site, crowd: CountingCast) -> None:
    for number in range(4):
        made = {"model": f"crowd/p{number}", "from": "crowd/one", "system": f"{number}", "stream": False}
        assert site.post("nbllm/ollama/api/create", made).status == 200
    assert [_ask(site, f"p{number}") for number in range(4)] == [200] * 4
    assert len(crowd.specs) == 1
