"""Bar 1 of the server: streaming chats of 64 new tokens over HTTP at 1, 4, 8 and 16 clients, tokens a second.

Sides: nbllm, llama-server (NBLLM_LLAMA_SERVER, `-np 8`), `python -m llama_cpp.server` at 8 clients.
"""

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

_NEW = 4 if serving.SMOKE else 64
_WIDTHS = (1, 4, 8, 16)
_ROUNDS = 1 if serving.SMOKE else 3


def _measured(start: Callable[[], AbstractContextManager[serving.Server]], width: int) -> dict[str, float]:
    with start() as server:
        serving.warmed(server)
        texts = serving.prompts(width * _ROUNDS)
        started = time.perf_counter()
        found = asyncio.run(serving.clients(width, texts, lambda text: serving.stream(server, server.body(text, _NEW))))
        elapsed = time.perf_counter() - started
    wrong = [one.error or one.status for one in found if one.error or one.num_tokens != _NEW]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(found)} streams went wrong: {wrong[0]}")
    return {
        "tokens_per_s": sum(one.num_tokens for one in found) / elapsed,
        "first_p95_s": serving.percentile([one.first_s for one in found], 0.95),
    }


_NBLLM = partial(serving.nbllm, "--NbllmApp.max_sequences=16")
SIDES = serving.available(
    {f"nbllm-{width}": partial(_measured, _NBLLM, width) for width in _WIDTHS}
    | {f"llama-server-{width}": partial(_measured, serving.llama_server, width) for width in _WIDTHS}
    | {"llama-cpp-python-8": partial(_measured, serving.llama_cpp_server, 8)}
)
_BARS = {1: 0.9, 4: 0.95, 8: 1.0, 16: 1.1}
RATIOS = {
    f"1 nbllm/llama-server at {width} (bar {_BARS[width]})": ("tokens_per_s", f"nbllm-{width}", f"llama-server-{width}")
    for width in _WIDTHS
} | {"1 nbllm/llama_cpp.server at 8 (bar 3)": ("tokens_per_s", "nbllm-8", "llama-cpp-python-8")}

if __name__ == "__main__":
    sides.main(__file__, SIDES, ratios=RATIOS)
