"""Bar 2 of the server: 32 requests from 8 clients on a fresh server, under a common prefix of 400 tokens."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import serving, sides
from tests.bench.bench_batch import _INSTRUCTION

_COUNT, _CLIENTS = (8, 8) if serving.SMOKE else (32, 8)
_NEW = 4 if serving.SMOKE else 32


def _measured(start: Callable[[], AbstractContextManager[serving.Server]]) -> dict[str, float]:
    with start() as server:

        async def ask(text: str) -> serving.Streamed:
            body = server.body(text, _NEW)
            system = {"role": "system", "content": _INSTRUCTION}
            return await serving.stream(server, {**body, "messages": [system, *body["messages"]]})

        serving.warmed(server)  # loaded, as llama-server is when it says that it is ready; the prefix is new
        started = time.perf_counter()
        found = asyncio.run(serving.clients(_CLIENTS, serving.prompts(_COUNT), ask))
        elapsed = time.perf_counter() - started
    assert all(one.num_tokens == _NEW for one in found), found
    first = [one.first_s for one in found]
    return {
        "tokens_per_s": sum(one.num_tokens for one in found) / elapsed,
        "first_p50_s": serving.percentile(first, 0.5),
        "first_p95_s": serving.percentile(first, 0.95),
    }


SIDES = serving.available(
    {"nbllm": partial(_measured, serving.nbllm), "llama-server": partial(_measured, serving.llama_server)}
)

if __name__ == "__main__":
    sides.main(
        __file__,
        SIDES,
        ratios={
            "2 tokens a second (bar 2)": ("tokens_per_s", "nbllm", "llama-server"),
            "2 first token, p95 (bar under 0.33)": ("first_p95_s", "nbllm", "llama-server"),
        },
    )
