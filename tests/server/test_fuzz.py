"""Hundreds of requests that nobody meant, and with NBLLM_FUZZ=10000 that many."""

from __future__ import annotations

import os

import pytest

from nbllm.testing import toy_engine
from tests.server import fuzz
from tests.server.serving import CHAT, TOY, Site, chat, wait_until

_COUNT = int(os.environ.get("NBLLM_FUZZ", "400"))  # read here: a test's environment has none of nbllm's variables


@pytest.mark.timeout(120 + _COUNT // 5)
@pytest.mark.parametrize("path", list(fuzz.ROUTES))
def test_no_request_does_harm(site: Site, path: str) -> None:
    site.cast.engines.append(toy_engine(ends=4))
    found = fuzz.run(site, path, _COUNT // len(fuzz.ROUTES), model=TOY, seeded=_COUNT <= 400)
    assert found.get(200, 0) > _COUNT // len(fuzz.ROUTES) // 10, f"hardly one of them was a good one: {found}"
    assert found.get(400), f"none of them was a bad one: {found}"
    wait_until(lambda: site.in_flight == 0)
    assert site.post(CHAT, chat()).status == 200
