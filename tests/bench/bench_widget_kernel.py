"""Issue 6, bars 1 and 3, on the kernel's side: what 10,000 tokens cost on their way to the page, and what a question
takes from the page's message to the first delta, beyond the engine's own time to its first token."""

from __future__ import annotations

import json
import statistics
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest
from jupyter_client.session import Session

from nbllm.core import Chunk
from nbllm.markup.nodes import nodes
from nbllm.notebook.widget.live import Live
from tests.notebook.kernel import started

_NUM_TOKENS = 10_000
_TOKENS_PER_S = 60
_NUM_QUESTIONS = 12
_TEXT = (
    "A paragraph of an answer, with *emphasis*, `code` and a [link](https://example.org), that goes on for a while. "
    "Another sentence.\n\n- one\n- two\n\n```python\ndef area(radius):\n    return 3.14159 * radius ** 2\n```\n\n"
)


class _Time:
    """A clock that the tokens move on, as fast as a model would."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def transport() -> dict[str, Any]:
    """CPU time of Live and its nodes, and of a comm that makes the bytes for the socket as ipykernel does."""
    session, clock = Session(key=b"secret"), _Time()
    sizes: list[int] = []

    def send(message: dict[str, Any]) -> None:
        data = {"comm_id": "a", "data": {"method": "custom", "content": message}}
        sizes.append(sum(map(len, session.serialize(session.msg("comm_msg", data)))))

    tokens = _tokens()
    nodes(_TEXT)  # imports
    live = Live(send, clock)
    live.begin("a")
    began = time.process_time()
    for token in tokens:
        clock.now += 1 / _TOKENS_PER_S
        live.add(Chunk(text=token))
    live.finish()
    live.end()
    cpu_s = time.process_time() - began
    return {
        "tokens": len(tokens),
        "messages": len(sizes),
        "bytes": sum(sizes),
        "largest_message_bytes": max(sizes),
        "cpu_s": round(cpu_s, 3),
        "share_of_a_core (bar 0.02)": round(cpu_s / clock.now, 5),
        "memory_of_two_halves_kb": _memory(tokens),
    }


def _tokens() -> list[str]:
    words = [piece for piece in _TEXT.replace(" ", " \0").split("\0") if piece]
    return [words[index % len(words)] for index in range(_NUM_TOKENS)]


def _memory(tokens: list[str]) -> list[int]:
    """What the first and the second 5,000 tokens leave behind: the answer itself, and nothing that grows with time."""
    clock = _Time()
    live = Live(lambda message: None, clock)
    live.begin("a")
    tracemalloc.start()
    left = [0]
    for half in (tokens[: _NUM_TOKENS // 2], tokens[_NUM_TOKENS // 2 :]):
        for token in half:
            clock.now += 1 / _TOKENS_PER_S
            live.add(Chunk(text=token))
        left.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    live.close()
    return [(after - before) // 1000 for before, after in pairwise(left)]


def first_delta() -> dict[str, Any]:
    """From a message on the shell channel to the first delta on iopub, in a real kernel with the bundled model."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_CHATS_DIR", folder)
        over = _over_engine()
    return {
        "questions": len(over),
        "over_engine_ms_median (bar 150, with the page)": round(statistics.median(over) * 1000, 1),
        "over_engine_ms_worst": round(max(over) * 1000, 1),
    }


def _over_engine() -> list[float]:
    with started() as kernel:
        shown = kernel.run("import nbllm\nw = nbllm.ChatWidget(max_tokens=8, temperature=0)\nw")
        (data,) = [display["data"] for display in shown.displays]
        comm_id = data["application/vnd.jupyter.widget-view+json"]["model_id"]
        kernel.run("w.send('Hello')")
        return [_asked(kernel, comm_id, number) for number in range(_NUM_QUESTIONS)]


def _asked(kernel: Any, comm_id: str, number: int) -> float:
    client = kernel._client
    content = {"do": "send", "text": f"Name the number {number}.", "attachments": [], "id": number}
    data = {"comm_id": comm_id, "data": {"method": "custom", "content": content}}
    began = time.perf_counter()
    client.shell_channel.send(client.session.msg("comm_msg", data))
    first = 0.0
    while True:
        message = client.get_iopub_msg(timeout=60)["content"].get("data", {})
        if message.get("content", {}).get("is") == "delta" and not first:
            first = time.perf_counter() - began
        if message.get("state", {}).get("state", {}).get("phase") == "idle" and first:
            break
    own = kernel.run("print(w.last.timings.first_token_s)")
    return first - float(own.printed)


if __name__ == "__main__":
    print(json.dumps({"transport": transport(), "first_delta": first_delta()}, indent=2))
