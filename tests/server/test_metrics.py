"""Prometheus counters in Jupyter's own `/metrics`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.server.serving import CHAT, TOY, Site, chat


def value(site: Site, series: str) -> float:
    text = site.get("metrics").body.decode()
    match = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_requests_and_tokens_are_counted(site: Site) -> None:
    series = (
        'nbllm_requests_total{route="chat/completions",status="200"}',
        f'nbllm_completion_tokens_total{{model="{TOY}"}}',
        f'nbllm_prompt_tokens_total{{model="{TOY}"}}',
        "nbllm_time_to_first_token_seconds_count",
    )
    before = [value(site, one) for one in series]
    site.post(CHAT, chat())
    site.post(CHAT, chat(stream=True))
    after = [value(site, one) for one in series]
    assert [b - a for a, b in zip(before, after, strict=True)][:3] == [2, 16, 44]
    assert after[3] > before[3]


def test_failures_are_counted_by_status(site: Site) -> None:
    series = 'nbllm_requests_total{route="chat/completions",status="404"}'
    before = value(site, series)
    site.post(CHAT, chat(model="nothing"))
    assert value(site, series) == before + 1


def test_gauges_follow_what_there_is(tmp_path: Path) -> None:
    with Site(tmp_path) as site:  # the gauge is the process's, and tells of the server that was started last
        assert value(site, "nbllm_models_loaded") == 0
        site.post(CHAT, chat())
        assert value(site, "nbllm_models_loaded") == 1
        assert value(site, "nbllm_requests_in_flight") == 0


def test_unknown_paths_make_no_new_series(site: Site) -> None:
    for path in ("v1/a", "v1/b"):
        site.get(path)
    assert "v1/a" not in site.get("metrics").body.decode()


def test_jupyters_own_metrics_are_there_too(site: Site) -> None:
    assert "http_request_duration_seconds" in site.get("metrics").body.decode()
