"""Requests that nobody meant, to Ollama's routes. NBLLM_FUZZ=10000 makes as many."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.testing import toy_engine
from tests.server.serving import TOY, Answer, Site, wait_until

_COUNT = int(os.environ.get("NBLLM_FUZZ", "400"))
_PATHS = ("generate", "chat", "embed", "embeddings", "show")
_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "Hi", "\x00", "\ud800", "<|im_end|>", "{{ .Prompt }}", "{{ 7 }}", "word " * 150, "%s%n"]),
)
_NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([2**31, -(2**31), 2**63, 2**64, 10**30, 1e308, -0.0, 0.5, 100.0]),
)
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_SCHEMAS = st.sampled_from(
    ["json", "", "yaml", {}, {"type": "object"}, {"type": "nothing"}, {"$ref": "#"}, {"type": "string", "maxLength": 3}]
)
_OPTIONS = st.dictionaries(
    st.sampled_from(
        [
            *("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty", "nothing"),
            *("presence_penalty", "frequency_penalty", "seed", "stop", "num_keep", "num_ctx", "num_gpu", "mirostat"),
        ]
    ),
    st.one_of(_NUMBERS, _NUMBERS, _ANYTHING),
    max_size=4,
)
_CALLS = st.lists(
    st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": _TEXTS, "arguments": _ANYTHING})}), max_size=2
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "king"]), "content": _TEXTS},
        optional={"tool_calls": _CALLS, "tool_name": _TEXTS, "thinking": _TEXTS, "images": st.just([])},
    ),
    max_size=4,
)
_TOOLS = st.lists(
    st.fixed_dictionaries({"type": st.just("function"), "function": st.fixed_dictionaries({"name": _TEXTS})}),
    max_size=2,
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": _TEXTS,
    "messages": _MESSAGES,
    "input": st.one_of(_TEXTS, st.lists(_TEXTS, max_size=3)),
    "suffix": _TEXTS,
    "system": _TEXTS,
    "template": _TEXTS,
    "context": st.lists(st.integers(-1, 300), max_size=4),
    "raw": st.booleans(),
    "stream": st.booleans(),
    "format": _SCHEMAS,
    "think": st.sampled_from([True, False, "high", "x"]),
    "truncate": st.booleans(),
    "keep_alive": st.sampled_from(["5m", -1, "x", 60]),
    "logprobs": st.booleans(),
    "top_logprobs": _NUMBERS,
    "dimensions": _NUMBERS,
    "tools": _TOOLS,
    "images": st.just([]),
    "temperature": _NUMBERS,
    "stop": _ANYTHING,
    "verbose": st.booleans(),
    "name": _TEXTS,
    "lora": st.one_of(
        st.just([]),
        st.just([]),
        st.lists(st.fixed_dictionaries({"id": _NUMBERS}, optional={"scale": _NUMBERS, "path": _TEXTS}), max_size=2),
    ),
}
_USUAL = {
    "generate": ("prompt",),
    "chat": ("messages",),
    "embed": ("input",),
    "embeddings": ("prompt",),
    "show": (),
}


@st.composite
def _bodies(draw: st.DrawFn, path: str) -> bytes:
    body: Any = {"model": TOY if draw(st.integers(0, 14)) else draw(_ANYTHING)}
    names = {*_USUAL[path], *draw(st.lists(st.sampled_from(sorted(_FIELDS)), max_size=4))}
    for name in sorted(names):
        body[name] = draw(_FIELDS[name] if draw(st.integers(0, 14)) else _ANYTHING)
    options = draw(_OPTIONS) if draw(st.booleans()) else {}
    body["options"] = {**options, "num_predict": 6} if draw(st.integers(0, 14)) else draw(_ANYTHING)
    data = json.dumps(body if draw(st.integers(0, 29)) else draw(_ANYTHING)).encode("utf-8", "surrogatepass")
    return data if draw(st.integers(0, 29)) else data[: draw(st.integers(0, len(data)))]


def _check(answer: Answer) -> None:
    assert answer.status in (200, 400, 404, 503), (answer.status, answer.body[:300])
    assert "Set-Cookie" not in answer.headers
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert lines
    if answer.status != 200:
        assert set(lines[0]) == {"error"}
        assert answer.status != 503 or answer.headers["Retry-After"]
    elif "ndjson" in answer.headers["Content-Type"]:
        assert lines[-1].get("done") or set(lines[-1]) == {"error"}


@pytest.mark.timeout(120 + _COUNT // 5)
@pytest.mark.parametrize("path", _PATHS)
def test_no_request_does_harm(site: Site, path: str) -> None:
    site.cast.engines += [toy_engine(ends=4) for _ in range(3)]
    found: dict[int, int] = {}

    @settings(
        max_examples=_COUNT // len(_PATHS),
        deadline=None,
        database=None,
        derandomize=_COUNT <= 400,
        suppress_health_check=list(HealthCheck),
    )
    @given(_bodies(path))
    def ask(body: bytes) -> None:
        answer = site.post(f"nbllm/ollama/api/{path}", body, timeout_s=10)
        found[answer.status] = found.get(answer.status, 0) + 1
        _check(answer)

    ask()
    assert found.get(200, 0) > _COUNT // len(_PATHS) // 10, f"hardly one of them was a good one: {found}"
    assert found.get(400), f"none of them was a bad one: {found}"
    wait_until(lambda: site.in_flight == 0)
    assert site.post("nbllm/ollama/api/generate", {"model": TOY}).status == 200
