"""Bars 1, 3 and 4 of the tables: rows a second under a common instruction, a second run, and who comes meanwhile.

Sides of bar 1, with 200 rows of at most 15 tokens under an instruction of 300 and greedy answers of 20: `df.llm.map`
without the cache, raw calls that fork one evaluated prefix, a loop over `llama_cpp.Llama`, and 8 threads against
`python -m llama_cpp.server`. Ends of turn are banned.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import engine, raw, serving, sides

_NUM_ROWS, _NEW, _WIDTH = (16, 4, 8) if serving.SMOKE else (200, 20, 8)
_INSTRUCTION = " ".join(
    f"Rule {number}: answer in plain words about {engine.TOPICS[number % 10]}, keep to one short line, and be kind."
    for number in range(1, 13)
)
_CACHED_ROWS = 50 if serving.SMOKE else 1000
_ARRIVALS = 2 if serving.SMOKE else 20


def _rows(count: int = _NUM_ROWS) -> list[str]:
    return [f"The {engine.TOPICS[index % 10]} of order {index * 7 + 3} came late." for index in range(count)]


def _table() -> dict[str, float]:
    import pandas as pd

    model = engine.load()
    frame = pd.DataFrame({"text": _rows()})
    options: dict[str, Any] = {"model": model, **engine.endless(model, _NEW, system=_INSTRUCTION)}
    started = time.perf_counter()
    answers = frame.llm.map("{text}", cache=False, progress=False, details=True, **options)
    elapsed = time.perf_counter() - started
    assert (answers["response_output_tokens"] == _NEW).all()
    return {"rows_per_s": _NUM_ROWS / elapsed}


def _raw() -> dict[str, float]:
    loop = raw.RawLoop(_WIDTH)
    prompts = [loop.ids(raw.chatml(text, _INSTRUCTION)) for text in _rows()]
    shared = next(i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1)
    loop.run(prompts[:2], 4)
    started = time.perf_counter()
    loop.run(prompts, _NEW, shared)
    return {"rows_per_s": _NUM_ROWS / (time.perf_counter() - started), "shared": shared}


def _llama() -> dict[str, float]:
    model = raw.llama(n_ctx=2048)
    bias = {int(token): float(value) for token, value in serving.ENDS.items()}
    started = time.perf_counter()
    for text in _rows():
        messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": text}]
        answer = model.create_chat_completion(messages, max_tokens=_NEW, temperature=0, logit_bias=bias)
        assert answer["usage"]["completion_tokens"] == _NEW
    return {"rows_per_s": _NUM_ROWS / (time.perf_counter() - started)}


def _server() -> dict[str, float]:
    import httpx

    with serving.llama_cpp_server() as server:
        serving.warmed(server)

        def ask(text: str) -> int:
            messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": text}]
            body = server.body(text, _NEW, messages=messages, stream=False)
            answer = httpx.post(f"http://127.0.0.1:{server.port}/v1/chat/completions", json=body, timeout=600)
            return int(answer.json()["usage"]["completion_tokens"])

        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(made == _NEW for made in pool.map(ask, _rows()))
        return {"rows_per_s": _NUM_ROWS / (time.perf_counter() - started)}


def _cached() -> dict[str, float]:
    """The second run of a cell of 1,000 rows, in a fresh process's first second and warm; the answers are kept ones."""
    import pandas as pd

    from nbllm.session.cache import AnswerCache

    model = engine.load()
    with tempfile.TemporaryDirectory() as folder:
        cache = AnswerCache(Path(folder))
        frame = pd.DataFrame({"text": _rows(_CACHED_ROWS)})
        ask = {"model": model, "system": _INSTRUCTION, "max_tokens": 1, "cache": cache, "progress": False}
        first = frame.llm.map("{text}", **ask)
        started = time.perf_counter()
        second = frame.llm.map("{text}", **ask)
        elapsed = time.perf_counter() - started
        assert first.equals(second)
        return {"second_run_s": elapsed}


def _meanwhile() -> dict[str, float]:
    """Time to the first token of a request from another thread while 1,000 rows run."""
    import pandas as pd

    model = engine.load()
    frame = pd.DataFrame({"text": _rows(1000)})
    options: dict[str, Any] = {"model": model, **engine.endless(model, _NEW, system=_INSTRUCTION)}
    job = frame.llm.map("{text}", cache=False, background=True, **options)
    while job.progress[0] < _WIDTH:
        time.sleep(0.05)
    waits = []
    for number in range(_ARRIVALS):
        arrived = threading.Event()
        started = time.perf_counter()
        for chunk in model.stream(f"Name one thing about the number {number}.", max_tokens=3, temperature=0):
            if chunk.tokens and not arrived.is_set():
                waits.append(time.perf_counter() - started)
                arrived.set()
        time.sleep(0.3)
    job.cancel()
    return {"first_token_median_s": statistics.median(waits), "first_token_p95_s": serving.percentile(waits, 0.95)}


SIDES = {"table": _table, "raw": _raw, "llama": _llama, "cached": _cached, "meanwhile": _meanwhile} | serving.available(
    {"llama-cpp-python": _server}
)
RATIOS = {
    "1 table/raw forks (bar 0.9)": ("rows_per_s", "table", "raw"),
    "1 table/Llama loop (bar 1.2)": ("rows_per_s", "table", "llama"),
    "1 table/llama_cpp.server (bar 2)": ("rows_per_s", "table", "llama-cpp-python"),
}

if __name__ == "__main__":
    sides.main(__file__, SIDES, ratios=RATIOS)
