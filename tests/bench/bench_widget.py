"""Issue 6, bars 2 and 3 in the browser: a long conversation opens, an answer streams into it, and nothing is lost.

Chromium shows the real chat.js in a bare page (tests/notebook/widget/page.py); the messages are what Live sends, but
one a frame instead of 20 a second. A conversation is painted when its end is on the screen, and all of it is there when
its beginning is too. A script is one call into the page's JavaScript; a task is what the main thread did in one go,
with styles and layout.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import sides
from tests.notebook.widget.page import ChatPage, answer, chat_page, exchange, question, traits

_PROSE = "A **bold** word, `code`, a [link](https://example.com) and *some* more text to read. " * 6
_CODE = '```python\ndef total(values: list[int]) -> int:\n    """The sum."""\n    return sum(values)  # quick\n```\n'
_TABLE = "| name | value |\n|---|---:|\n" + "".join(f"| row {n} | {n * 7} |\n" for n in range(8))
_TEXT = f"{_PROSE}\n\n- one\n- two\n\n{_CODE * 2}\n{_TABLE}\n\n{_PROSE}\n"

_OPEN = """async (traits) => {
  await import("/chat.js");
  const started = performance.now();
  await window.begin(traits, true);
  const script = performance.now() - started;
  await window.framesOn(2);
  const painted = performance.now() - started;
  while (document.querySelectorAll(".nbllm-message").length < traits.transcript.length) await window.framesOn(1);
  return { script_ms: script, painted_ms: painted, all_ms: performance.now() - started };
}"""
_STREAM = """async (messages) => {
  for (const message of messages) {
    await window.framesOn(1);
    window.model.deliver(message);
  }
  await window.framesOn(2);
}"""
_FLOOD = """async (messages) => {
  const channel = new MessageChannel();
  for (const message of messages) {
    await new Promise((done) => { channel.port1.onmessage = done; channel.port2.postMessage(0); });
    window.model.deliver(message);
  }
  await window.framesOn(2);
}"""
_FRAMES = """() => { window.framesOn = async (count) => {
  for (; count > 0; count -= 1) await new Promise((done) => requestAnimationFrame(done));
}; }"""


@contextmanager
def _chat() -> Iterator[ChatPage]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no Chromium on the PATH: apt-get install chromium")
    with chat_page(path) as chat:
        chat.page.evaluate(_FRAMES)
        yield chat


def _conversation(num_messages: int) -> list[dict[str, Any]]:
    from nbllm.markup.nodes import nodes

    blocks = nodes(_TEXT)
    pairs = [(question(n, f"question {n}"), answer(n, *blocks, text=_TEXT)) for n in range(1, num_messages // 2 + 1)]
    return [message for pair in pairs for message in pair]


def _messages(num_deltas: int) -> tuple[list[dict[str, Any]], str]:
    """What Live sends for an answer of as many pieces, a block closing every 20; and the text that has to be there."""
    whole: dict[str, Any] = {"id": "L", "question": question(900, "more"), "after": None}
    whole |= {"blocks": [], "tail": "", "reasoning": ""}
    messages: list[dict[str, Any]] = [{"is": "live", "seq": 1, "live": whole}]
    tail, text = "", ""
    for number in range(num_deltas):
        piece = f"word{number} "
        closes = number % 20 == 19
        tail, text = tail + piece, text + piece
        blocks = [["p", {}, tail]] if closes else []
        messages.append({"is": "delta", "seq": number + 2, "reasoning": "", "blocks": blocks})
        messages[-1] |= {"tail": "", "text": ""} if closes else {"tail": None, "text": piece}
        tail = "" if closes else tail
    return messages, text


def _opened() -> dict[str, float]:
    with _chat() as chat:
        figures: dict[str, float] = chat.page.evaluate(_OPEN, traits(transcript=_conversation(200)))
        return figures


def _streamed() -> dict[str, float]:
    messages, text = _messages(2000)
    with _chat() as chat:
        chat.page.evaluate(_OPEN, traits(transcript=_conversation(200), state={"phase": "answering"}))
        browser = chat.page.context.browser
        assert browser is not None
        browser.start_tracing(page=chat.page, categories=["devtools.timeline", "toplevel", "__metadata"])
        chat.page.evaluate(_STREAM, messages)
        figures = _longest(json.loads(browser.stop_tracing())["traceEvents"])
        assert _shown(chat) == text
        return figures


def _longest(events: list[dict[str, Any]]) -> dict[str, float]:
    """In the page's main thread, which is where FunctionCall events are, but for the first second."""
    calls = [event for event in events if event["name"] == "FunctionCall" and event.get("dur")]
    thread = (calls[-1]["pid"], calls[-1]["tid"])
    started = min(event["ts"] for event in calls) + 1_000_000
    own = [event for event in events if (event.get("pid"), event.get("tid")) == thread and event.get("ts", 0) > started]
    scripts = sorted(event["dur"] for event in own if event["name"] == "FunctionCall" and "dur" in event)
    tasks = sorted(event["dur"] for event in own if event["name"].endswith("RunTask") and "dur" in event)
    return {
        "script_longest_ms": scripts[-1] / 1000,
        "script_median_ms": scripts[len(scripts) // 2] / 1000,
        "task_longest_ms": tasks[-1] / 1000,
        "task_p99_ms": tasks[int(len(tasks) * 0.99)] / 1000,
    }


def _flooded() -> dict[str, float]:
    messages, text = _messages(10_000)
    with _chat() as chat:
        chat.begin(transcript=exchange(10), state={"phase": "answering"})
        before = _heap_mb(chat)
        chat.page.evaluate(_FLOOD, messages)
        shown = _shown(chat)
        during = _heap_mb(chat)
        chat.deliver({"is": "live", "seq": len(messages) + 1, "live": None})
        wrong = sum(1 for one, other in zip(shown.split(), text.split(), strict=False) if one != other)
        return {
            "wrong_or_missing": wrong + abs(len(shown.split()) - len(text.split())),
            "hellos": len(chat.sent("hello")),
            "heap_before_mb": before,
            "heap_with_the_answer_mb": during,
            "heap_after_mb": _heap_mb(chat),
        }


def _shown(chat: ChatPage) -> str:
    text: str = chat.page.evaluate(
        """() => { const last = [...document.querySelectorAll(".nbllm-message")].at(-1);
          return last.querySelector(".nbllm-body").textContent + last.querySelector(".nbllm-tail").textContent; }"""
    )
    return text


def _heap_mb(chat: ChatPage) -> float:
    session = chat.page.context.new_cdp_session(chat.page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used / 1e6


if __name__ == "__main__":
    sides.main(__file__, {"open_200": _opened, "stream_2000": _streamed, "deltas_10000": _flooded})
