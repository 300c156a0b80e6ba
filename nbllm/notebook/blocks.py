"""What a model says in a comparison, while it says it: one output for each model, which ends as one line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nbllm.core import Chunk, GenerateRequest
from nbllm.frames.asks import Ask
from nbllm.frames.durations import duration_text
from nbllm.markup.characters import plain_text
from nbllm.markup.safe import literal_markdown, safe_markdown
from nbllm.notebook.display import MIN_INTERVAL_S, Output, Publish
from nbllm.notebook.footer import quiet

_MOST_SHOWN = 6
"""Answers of a model that are shown while they grow: those that are not finished, and of the others the last."""
_MOST_CHARACTERS = 1500
_BEGINNING = 60


@dataclass(slots=True)
class _Answer:
    ask: Ask
    text: str = ""
    is_finished: bool = False


class ModelBlock:
    """One model's output.

    Args:
        publish: as IPython's `DisplayPublisher.publish`.
        total: answers that are wanted of it.
    """

    def __init__(self, publish: Publish, name: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = Output(publish)
        self._name, self._total, self._clock = name, total, clock
        self._answers: dict[int, _Answer] = {}  # that grow, and the last that are finished
        self._num_begun = self._num_finished = 0
        self._lock = threading.Lock()
        self._started, self._next_update = clock(), 0.0

    def grew(self, ask: Ask, chunk: Chunk) -> None:
        """Note a piece of an answer. Safe on any thread."""
        with self._lock:
            if id(ask) not in self._answers:
                self._answers[id(ask)] = _Answer(ask)
                self._num_begun += 1
            answer = self._answers[id(ask)]
            answer.text += chunk.text
            if chunk.finish_reason is not None:
                answer.is_finished = True
                self._num_finished += 1
                self._forget_oldest()

    def show(self) -> None:
        """Show how far it is, if it is time to."""
        if self._clock() < self._next_update:
            return
        with self._lock:
            answers, done = list(self._answers.values()), self._num_finished
        count = f"{done:,} of {self._total:,}"
        self._show(f"{self._name}: {count}", [f"**{literal_markdown(self._name)}** {count}", *_shown(answers)])
        self._next_update = self._clock() + MIN_INTERVAL_S * max(1, min(len(answers), _MOST_SHOWN))

    def finish(self, error: str = "") -> None:
        """Leave one line, which says why there are no answers if there are none."""
        num_cached = max(0, self._total - self._num_begun)
        line = f"{self._name}: {self._total:,} {'answer' if self._total == 1 else 'answers'}"
        if error:
            line = f"{self._name}: {error}"
        elif num_cached:
            line += f", {num_cached:,} of them from the cache" if self._num_begun else ", from the cache"
        took = f" · {duration_text(self._clock() - self._started)}" if self._num_begun else ""
        self._show(line + took, [quiet(line + took)])

    def _forget_oldest(self) -> None:
        finished = [key for key, answer in self._answers.items() if answer.is_finished]
        for key in finished[:-_MOST_SHOWN]:
            del self._answers[key]

    def _show(self, plain: str, parts: Sequence[str]) -> None:
        self._output.show({"text/plain": plain_text(plain), "text/markdown": "\n\n".join(parts)}, {})


class Blocks:
    """The blocks of a comparison, one model after the other: its `Watch`."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._block: ModelBlock | None = None

    def began(self, name: str, total: int) -> None:
        self._block = ModelBlock(self._publish, name, total)

    def grew(self, ask: Ask, chunk: Chunk) -> None:
        if self._block is not None:
            self._block.grew(ask, chunk)

    def show(self) -> None:
        if self._block is not None:
            self._block.show()

    def ended(self, error: str) -> None:
        if self._block is not None:
            self._block.finish(error)
            self._block = None


def _shown(answers: Sequence[_Answer]) -> list[str]:
    """Those that grow before those that are finished, and no more than a person follows."""
    chosen = sorted(answers, key=lambda answer: answer.is_finished)[:_MOST_SHOWN]
    return [part for answer in chosen for part in (quiet(_label(answer.ask)), safe_markdown(_cut(answer.text)))]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else "…" + text[-_MOST_CHARACTERS:]


def _label(ask: Ask) -> str:
    request = ask.request
    if not isinstance(request, GenerateRequest) or not request.messages:
        return "…"
    text = " ".join(request.messages[-1].content.split())
    beginning = text if len(text) <= _BEGINNING else text[: _BEGINNING - 1] + "…"
    temperature = request.sampling.temperature
    return beginning if temperature is None else f"{beginning} · temperature {temperature:g}"
